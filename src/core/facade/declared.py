"""Checks of a link's declarations when its class is made: spelling, types, names and consistency."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import keyword
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

from ..values.contents import brief
from ..values.errors import did_you_mean
from ..values.value import Value
from .order import ROLES
from .transformation import Transformation

C = TypeVar("C", bound=type)

LinkClass: TypeAlias = Any
"""A class that derives from `Link`. What its attributes hold is not known before it is checked."""

CONTRACTS: list[type] = []
"""The public bases of links, whose declarations and hooks these checks know."""

PASSED = ("params", "state", "grads", "updates")
"""The arguments of `update` and `step` themselves."""


def contract(cls: C) -> C:
    """Register a public base of links. Names close to its declarations and hooks are taken for misspellings."""
    CONTRACTS.append(cls)
    return cls


def check_class(cls: type) -> None:
    """Raise ``TypeError`` or ``ValueError`` for an invalid class, with the attribute and the remedy."""
    for check in (_check_fields, _check_spelling, _check_overrides, _check_types, _check_names):
        check(cls)
    for problem in _inconsistencies(cls):
        raise TypeError(problem)


def check_hooks(cls: type) -> None:
    """Raise ``TypeError`` for a link that lacks an abstract hook of its base, unless it only rounds."""
    if inspect.getattr_static(cls, "final_rounding") is not None:
        return
    for base in _bases(cls):
        for name, hook in vars(base).items():
            if getattr(hook, "__isabstractmethod__", False) and getattr(cls, name) is hook:
                head = _head(name, hook)
                raise TypeError(f"`{cls.__name__}` needs the method {name!r} of a {base.__name__} link: {head}")


def _check_fields(cls: type) -> None:
    """Raise for fields that hide methods, and for declarations that an annotation makes fields."""
    declared = _declarations(cls)
    for name, kind in inspect.get_annotations(cls).items():
        default = vars(cls).get(name)
        if any(inspect.isfunction(vars(base).get(name)) for base in cls.__mro__[1:]):
            raise TypeError(f"`{cls.__name__}.{name}` would hide the method {name!r} of its base: rename the field")
        if name in declared and "ClassVar" not in str(kind) and not isinstance(default, dataclasses.Field):
            value = "..." if default is None else brief(default)
            raise TypeError(
                f"`{cls.__name__}.{name}` is a declaration, not a field: write {name} = {value}, without a type"
            )


def _check_spelling(cls: type) -> None:
    """Raise for attributes that look like a misspelt declaration or hook."""
    own = {name for base in cls.__mro__ for name in (*vars(base), *inspect.get_annotations(base)) if base in CONTRACTS}
    others = {name: base for base in CONTRACTS for name in (*inspect.get_annotations(base), *_hooks(base))}
    for name, attribute in _written(cls):
        if name in own or name.startswith("_") or isinstance(attribute, dataclasses.Field):
            continue
        if name in others:
            base = others[name]
            raise TypeError(
                f"`{cls.__name__}.{name}` has no effect here: it is for links that derive from {base.__name__}"
            )
        if close := difflib.get_close_matches(name, own & {*others}, n=1, cutoff=0.85):
            raise TypeError(
                f"`{cls.__name__}.{name}` is unknown: did you mean {close[0]!r}? If not, choose a less similar name "
                "or one with a leading underscore"
            )


def _check_overrides(cls: type) -> None:
    """Raise for methods that links must not define, and for hooks that do not accept the engine's arguments."""
    final = {name for base in (Transformation, Value) for name in vars(base) if not name.startswith("_")} - {"check"}
    for name, attribute in _written(cls):
        if name in final and not any(name in vars(base) for base in CONTRACTS):
            hooks = [hook for hook in (f"{name}_tree", f"{name}_leaf") if hasattr(cls, hook)]
            instead = f": write {hooks[0]!r}" if hooks else ": give it another name"
            raise TypeError(f"`{cls.__name__}.{name}` would hide an attribute that every link and chain has{instead}")
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


def _check_names(cls: LinkClass) -> None:
    """Raise for invalid names, and for names of slots that do not exist."""
    if isinstance(cls.role, str) and cls.role not in ROLES:
        hint = did_you_mean(cls.role, ROLES)
        raise ValueError(f"`{cls.__name__}.role` must be one of {', '.join(ROLES)}, got {cls.role!r}{hint}")
    slots, extra = (x if isinstance(x, tuple) else () for x in (cls.slots, cls.extra))
    for field, names, taken in (("slots", slots, _taken_slots(cls)), ("extra", extra, PASSED)):
        for i, name in enumerate(names):
            if not name.isidentifier() or keyword.iskeyword(name):
                raise ValueError(f"`{cls.__name__}.{field}` must hold identifiers, got {name!r}")
            if name in names[:i]:
                raise ValueError(f"`{cls.__name__}.{field}` names {name!r} twice")
            if name in taken:
                raise ValueError(f"`{cls.__name__}.{field}` may not name {', '.join(taken)}, got {name!r}")
    if not isinstance(cls.slots, tuple):
        return
    for field in ("lagged", *(("nonnegative", "absent") if _has_only_slots(cls) else ())):
        named = getattr(cls, field, ())
        for name in () if isinstance(named, property) else named:
            if name not in slots:
                raise ValueError(_no_such_slot(cls, field, name))
    for start in cls.absent.values() if isinstance(cls.absent, Mapping) else ():
        if start is not None and start not in slots:
            raise ValueError(_no_such_slot(cls, "absent", start))


def _inconsistencies(cls: LinkClass) -> Iterator[str]:
    """Errors for declarations and hooks of a class that contradict each other."""
    own = {name for name, _ in _written(cls)}
    fields = {name for base in cls.__mro__ for name in inspect.get_annotations(base)}
    name = cls.__name__
    for flag, hook in (("can_reject", "accepts"), ("moves_params", "step_tree")):
        declared = inspect.getattr_static(cls, flag, False)
        if declared is True and not _defines(cls, hook):
            yield f"`{name}.{flag}` is True, but there is no method {hook!r}: write it, or remove {flag}"
        if declared is False and hook in own:
            yield f"`{name}.{hook}` would never be called: declare {flag} = True"
    if getattr(cls, "random", False) is True and "seed" not in fields:
        yield f'`{name}.random` is True, but there is no seed: give it the field seed: Any = prng_seed("...")'
    if "scaling" in own and not _defines(cls, "factor"):
        yield f"`{name}.scaling` is declared by deriving from Scaling, which has the method 'factor'"
    if "update_global_state" in own and not _defines(cls, "init_global_state"):
        yield f"`{name}.update_global_state` would never be called: write init_global_state(self), the first values"
    if cls.slots == () and "init_leaf" in own:
        yield f'`{name}.init_leaf` makes slots, but the class declares none: write slots = ("...",)'
    if cls.slots and cls.treewise and not _defines(cls, "init_tree"):
        yield f"`{name}.slots` are keys of the state of a Treewise link: write init_tree(self, params), which makes it"


def _no_such_slot(cls: LinkClass, field: str, name: object) -> str:
    known = f"its slots are {', '.join(cls.slots)}" if cls.slots else "it has no slots"
    return f"`{cls.__name__}.{field}` names {name!r}{did_you_mean(str(name), cls.slots)}; {known}"


def _has_only_slots(cls: type) -> bool:
    """Whether the link's entry of the state holds slots only, as far as its class tells."""
    return not any(_defines(cls, hook) for hook in ("init_global_state", "init_tree"))


def _taken_slots(cls: LinkClass) -> tuple[str, ...]:
    return () if cls.treewise else ("grad", "key")  # the leaf function reads these as attributes of `slot` too


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


def _written(cls: type) -> Iterator[tuple[str, object]]:
    """The attributes, except for fields, of the class and those of its bases that are not public bases."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if base in CONTRACTS or base in Transformation.__mro__:
            continue
        seen |= {*inspect.get_annotations(base)}
        yield from ((name, x) for name, x in vars(base).items() if name not in seen)
        seen |= {*vars(base)}


def _defines(cls: type, hook: str) -> bool:
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
