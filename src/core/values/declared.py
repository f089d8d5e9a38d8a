"""Checks of what a class declares when it is made: spelling, types and arguments of its hooks, and what it lacks.

They apply to every class that derives from a `contract`: links, schedules, formats and roundings.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from .contents import brief

C = TypeVar("C", bound=type)

CONTRACTS: dict[type, dict[str, str]] = {}
"""The public bases, whose declarations and hooks these checks know; for each, declarations with the hook they need."""


def contract(**needs: str) -> Callable[[C], C]:
    """Register a public base. Names close to its declarations and hooks are taken for misspellings.

    ``needs`` maps a declaration to the hook that a class must define if, and only if, it sets it.
    """

    def registered(cls: C) -> C:
        CONTRACTS[cls] = needs
        return cls

    return registered


def check_decorator(cls: Any, decorator: str) -> None:
    """Raise ``TypeError`` unless this is the decorator for the class, and the first."""
    if "_leaves" in vars(cls):
        raise TypeError(f"`{cls.__name__}` is decorated twice: decorate it with {cls.decorator} alone")
    if cls.decorator != decorator:
        raise TypeError(f"`{cls.__name__}` is a {_root(cls).__name__}: decorate it with {cls.decorator}")


def is_own(cls: type) -> bool:
    """Whether a class is this library's own: its tests check these, so that importing them does not."""
    return cls.__module__.startswith(f"{__name__.partition('.')[0]}.")


def check_class(cls: type) -> None:
    """Raise ``TypeError`` for an invalid class, with the attribute and the remedy."""
    if is_own(cls):
        return
    for check in (_check_fields, _check_spelling, _check_overrides, _check_types, _check_needs):
        check(cls)


def check_hooks(cls: type) -> None:
    """Raise ``TypeError`` for a class that lacks an abstract hook of its base."""
    if is_own(cls):
        return
    for base in _bases(cls):
        for name, hook in vars(base).items():
            if getattr(hook, "__isabstractmethod__", False) and getattr(cls, name) is hook:
                raise TypeError(
                    f"`{cls.__name__}` needs the method {name!r} of its base {base.__name__}: {_head(name, hook)}"
                )


def _check_fields(cls: Any) -> None:
    """Raise for fields that hide methods, and for declarations that an annotation makes fields."""
    declared = _declarations(cls)
    for name, kind in inspect.get_annotations(cls).items():
        default = vars(cls).get(name)
        if any(inspect.isfunction(vars(base).get(name)) for base in _bases(cls)):
            raise TypeError(f"`{cls.__name__}.{name}` would hide the method {name!r} of its base: rename the field")
        if isinstance(getattr(_root(cls), name, None), property):
            raise TypeError(f"`{cls.__name__}.{name}` would hide an attribute of its base: rename the field")
        if cls.decorator == "value" and getattr(getattr(default, "metadata", {}).get("range"), "symbol", ""):
            raise TypeError(
                f"`{cls.__name__}.{name}` has a symbol, as hyperparameters of links do: declare it by number(doc, ...)"
            )
        if name in declared and "ClassVar" not in str(kind) and not isinstance(default, dataclasses.Field):
            value = "..." if default is None else brief(default)
            raise TypeError(
                f"`{cls.__name__}.{name}` is a declaration, not a field: write {name} = {value}, without a type"
            )


def _check_spelling(cls: type) -> None:
    """Raise for attributes that look like a misspelt declaration or hook."""
    own = {name for base in cls.__mro__ for name in (*vars(base), *inspect.get_annotations(base)) if base in CONTRACTS}
    family = [base for base in CONTRACTS if issubclass(base, _root(cls))]
    others = {name: base for base in reversed(family) for name in (*inspect.get_annotations(base), *_hooks(base))}
    for name, attribute in written(cls):
        if name in own or name.startswith("_") or isinstance(attribute, dataclasses.Field):
            continue
        if name in others:
            base = others[name]
            raise TypeError(
                f"`{cls.__name__}.{name}` has no effect here: it is for classes that derive from {base.__name__}"
            )
        if close := difflib.get_close_matches(name, own & {*others}, n=1, cutoff=0.85):
            raise TypeError(
                f"`{cls.__name__}.{name}` is unknown: did you mean {close[0]!r}? If not, choose a less similar name "
                "or one with a leading underscore"
            )


def _check_overrides(cls: type) -> None:
    """Raise for methods that links must not define, and for hooks that do not accept the engine's arguments."""
    final = {name for base in _root(cls).__mro__[1:] for name in vars(base) if not name.startswith("_")} - {"check"}
    for name, attribute in written(cls):
        if name in final and not any(name in vars(base) for base in CONTRACTS):
            hooks = [hook for hook in (f"{name}_tree", f"{name}_leaf") if hasattr(cls, hook)]
            instead = f": write {hooks[0]!r}" if hooks else ": give it another name"
            raise TypeError(f"`{cls.__name__}.{name}` would hide an attribute of its base{instead}")
        base = next((base for base in _bases(cls) if inspect.isfunction(vars(base).get(name))), None)
        if base is None or name.startswith("_"):
            continue
        hook = vars(base)[name]
        if getattr(hook, "__final__", False):
            raise TypeError(f"`{cls.__name__}.{name}` would replace what {base.__name__} does: see its other methods")
        if not hasattr(attribute, "__get__") or isinstance(attribute, (property, type)):
            raise TypeError(f"`{cls.__name__}.{name}` must be a method, {_head(name, hook)}, got {brief(attribute)}")
        if not _takes(attribute, len(inspect.signature(hook).parameters)):
            raise TypeError(f"`{cls.__name__}.{name}` must take the arguments {_head(name, hook)}")


def _check_types(cls: type) -> None:
    """Raise for declarations whose type differs from that of their default."""
    for name, default in _declarations(cls).items():
        declared = inspect.getattr_static(cls, name)
        where = f"`{cls.__name__}.{name}`"
        if isinstance(declared, (property, dataclasses.Field)):
            continue
        if isinstance(default, bool) and not isinstance(declared, bool):
            raise TypeError(f"{where} must be True or False, got {brief(declared)}")
        if isinstance(default, str) and not isinstance(declared, str):
            raise TypeError(f"{where} must be a string, got {brief(declared)}")
        if isinstance(default, Mapping) and not isinstance(declared, Mapping):
            raise TypeError(f"{where} must be a dict, got {brief(declared)}")
        if isinstance(default, tuple):
            names = declared if isinstance(declared, (list, tuple)) else (declared,)
            if not all(isinstance(x, str) for x in names):
                raise TypeError(f"{where} must be a tuple of names, got {brief(declared)}")
            if not isinstance(declared, tuple):
                raise TypeError(f"{where} must be a tuple of names, got {declared!r}: write {name} = {(*names,)!r}")


def _check_needs(cls: type) -> None:
    """Raise for declarations without the hook that they need, and for hooks that are not called without one."""
    own = {name for name, _ in written(cls)}
    for base in _bases(cls):
        for flag, hook in CONTRACTS.get(base, {}).items():
            declared, default = inspect.getattr_static(cls, flag), vars(base)[flag]
            if isinstance(declared, property):
                continue
            if declared != default and not defines(cls, hook):
                remedy = f"remove {flag}" if flag in vars(cls) else f"declare {flag} = {default!r}"
                raise TypeError(
                    f"`{cls.__name__}.{flag}` is {declared!r}, but there is no method {hook!r}: write it, or {remedy}"
                )
            if declared == default and hook in own:
                value = "True" if default is False else "..."
                raise TypeError(f"`{cls.__name__}.{hook}` would never be called: declare {flag} = {value}")


def _declarations(cls: type) -> dict[str, object]:
    """The declarations of the public bases of a class, with their defaults."""
    declared: dict[str, object] = {}
    for base in _bases(cls):
        if base in CONTRACTS:
            found = {name: vars(base).get(name) for name in inspect.get_annotations(base)}
            declared = {name: x for name, x in found.items() if isinstance(x, (bool, str, tuple, Mapping))} | declared
    return declared


def _hooks(base: type) -> dict[str, Callable]:
    return {name: f for name, f in vars(base).items() if inspect.isfunction(f) and not name.startswith("_")}


def _bases(cls: type) -> Iterable[type]:
    return cls.__mro__[1:]


def _root(cls: type) -> type:
    """The most general of the public bases."""
    return [base for base in cls.__mro__ if base in CONTRACTS][-1]


def written(cls: type) -> Iterator[tuple[str, object]]:
    """The attributes, except for fields, of the class and those of its bases that are not public bases."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if base in CONTRACTS or base in _root(cls).__mro__:
            continue
        seen |= {*inspect.get_annotations(base)}
        yield from ((name, x) for name, x in vars(base).items() if name not in seen)
        seen |= {*vars(base)}


def defines(cls: type, hook: str) -> bool:
    """Whether the class overrides the hook."""
    default = next(vars(base)[hook] for base in CONTRACTS if hook in vars(base))
    return inspect.getattr_static(cls, hook, default) is not default


def _takes(method: Any, count: int) -> bool:
    """Whether a function in a class can be called with ``count`` arguments, including ``self``."""
    if isinstance(method, (staticmethod, classmethod)):
        method, count = method.__func__, count - isinstance(method, staticmethod)
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # the signature is unknown
        return True
    return True


def _head(name: str, hook: Callable) -> str:
    """The first line of a hook's definition, without types."""
    parameters = inspect.signature(hook).parameters
    return f"def {name}({', '.join(parameters)})"
