"""What the author of a link declares is checked when its class is made: spelling, types, names, what goes together."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import keyword
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ..values.contents import brief
from ..values.errors import did_you_mean
from ..values.value import Value
from .order import ROLES
from .transformation import Transformation

C = TypeVar("C", bound=type)

CONTRACTS: list[type] = []
"""The public bases of links, whose declarations and hooks these checks know."""

PASSED = ("params", "state", "grads", "updates")
"""What `update` and `step` call their own arguments."""


def contract(cls: C) -> C:
    """Mark a public base of links: what it declares, and its hooks, are what authors may have misspelt."""
    CONTRACTS.append(cls)
    return cls


def check_class(cls: type) -> None:
    """Raise ``TypeError`` or ``ValueError`` for a class that cannot be a link: the class, the attribute, the remedy."""
    for check in (_check_fields, _check_spelling, _check_overrides, _check_types, _check_names):
        check(cls)
    for words in _at_odds(cls):
        raise TypeError(words)


def check_hooks(cls: type) -> None:
    """Raise ``TypeError`` for a link without a hook that its base leaves to it, but for one that only rounds."""
    if inspect.getattr_static(cls, "final_rounding") is not None:
        return
    for name, base, hook in _inherited(cls, lambda f: getattr(f, "__isabstractmethod__", False)):
        raise TypeError(f"`{cls.__name__}` needs the method {name!r} of a {base.__name__} link: {_head(name, hook)}")


def _check_fields(cls: type) -> None:
    declared = _declarations(cls)
    for name, kind in inspect.get_annotations(cls).items():
        given = vars(cls).get(name)
        if any(inspect.isfunction(vars(base).get(name)) for base in cls.__mro__[1:]):
            raise TypeError(f"`{cls.__name__}.{name}` would hide the method {name!r} of its base: rename the field")
        if name in declared and "ClassVar" not in str(kind) and not isinstance(given, dataclasses.Field):
            value = "..." if given is None else brief(given)
            raise TypeError(
                f"`{cls.__name__}.{name}` is a declaration, and no field: write {name} = {value}, without a type"
            )


def _check_spelling(cls: type) -> None:
    """Raise for what only looks like a declaration or a hook."""
    own = {name for base in cls.__mro__ for name in (*vars(base), *inspect.get_annotations(base)) if base in CONTRACTS}
    others = {name: base for base in CONTRACTS for name in (*inspect.get_annotations(base), *_hooks(base))}
    for name, given in _written(cls):
        if name in own or name.startswith("_") or isinstance(given, dataclasses.Field):
            continue
        if name in others:
            base = others[name]
            raise TypeError(
                f"`{cls.__name__}.{name}` means nothing here: it is for links that derive from {base.__name__}"
            )
        if close := difflib.get_close_matches(name, own & {*others}, n=1, cutoff=0.85):
            raise TypeError(
                f"`{cls.__name__}.{name}` is not known: did you mean {close[0]!r}? Else give it a name that "
                "is not so near, or one with a leading underscore"
            )


def _check_overrides(cls: type) -> None:
    """Raise for methods that are not for links to define, and for hooks that do not take what the engine passes."""
    final = {name for base in (Transformation, Value) for name in vars(base) if not name.startswith("_")} - {"check"}
    for name, given in _written(cls):
        if name in final and not any(name in vars(base) for base in CONTRACTS):
            hooks = [hook for hook in (f"{name}_tree", f"{name}_leaf") if hasattr(cls, hook)]
            instead = f": write {hooks[0]!r}" if hooks else ": give it another name"
            raise TypeError(f"`{cls.__name__}.{name}` would hide what every link and chain has by that name{instead}")
        base = next((base for base in _bases(cls) if inspect.isfunction(vars(base).get(name))), None)
        if base is None or name.startswith("_"):
            continue
        hook = vars(base)[name]
        if getattr(hook, "__final__", False):
            raise TypeError(f"`{cls.__name__}.{name}` would replace what {base.__name__} does: see its other methods")
        if not hasattr(given, "__get__") or isinstance(given, (property, type)):
            raise TypeError(f"`{cls.__name__}.{name}` must be a method, {_head(name, hook)}, got {brief(given)}")
        if not _takes(given, len(inspect.signature(hook).parameters)):
            raise TypeError(f"`{cls.__name__}.{name}` must take the arguments {_head(name, hook)}")


def _check_types(cls: type) -> None:
    """Raise for declarations of another type than their default."""
    for name, default in _declarations(cls).items():
        given = inspect.getattr_static(cls, name)
        where = f"`{cls.__name__}.{name}`"
        if isinstance(given, (property, dataclasses.Field)):
            continue
        if isinstance(default, bool) and not isinstance(given, bool):
            raise TypeError(f"{where} must be True or False, got {brief(given)}")
        if isinstance(default, str) and not isinstance(given, str):
            raise TypeError(f"{where} must be a string, got {brief(given)}")
        if isinstance(default, Mapping) and not isinstance(given, Mapping):
            raise TypeError(f"{where} must be a dict, got {brief(given)}")
        if isinstance(default, tuple):
            names = given if isinstance(given, (list, tuple)) else (given,)
            if not all(isinstance(x, str) for x in names):
                raise TypeError(f"{where} must be a tuple of names, got {brief(given)}")
            if not isinstance(given, tuple):
                raise TypeError(f"{where} must be a tuple of names, got {given!r}: write {name} = {(*names,)!r}")


def _check_names(cls: Any) -> None:
    """Raise for names that cannot be, or that name nothing."""
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


def _at_odds(cls: Any) -> Iterator[str]:
    """What of a class does not go together."""
    own = {name for name, _ in _written(cls)}
    fields = {name for base in cls.__mro__ for name in inspect.get_annotations(base)}
    name = cls.__name__
    for flag, hook in (("can_reject", "accepts"), ("moves_params", "step_tree")):
        given = inspect.getattr_static(cls, flag, False)
        if given is True and not _defines(cls, hook):
            yield f"`{name}.{flag}` is True, but there is no method {hook!r}: write it, or leave {flag} out"
        if given is False and hook in own:
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


def _no_such_slot(cls: Any, field: str, name: Any) -> str:
    known = f"its slots are {', '.join(cls.slots)}" if cls.slots else "it has no slots"
    return f"`{cls.__name__}.{field}` names {name!r}{did_you_mean(str(name), cls.slots)}; {known}"


def _has_only_slots(cls: Any) -> bool:
    """Whether the state has no other entries than the slots, as far as the class tells."""
    return not any(_defines(cls, hook) for hook in ("init_global_state", "init_tree"))


def _taken_slots(cls: Any) -> tuple[str, ...]:
    return () if cls.treewise else ("grad", "key")  # which the leaf function reads from the same place


def _declarations(cls: type) -> dict[str, Any]:
    """What the public bases of a class let it declare, with the defaults."""
    declared: dict[str, Any] = {}
    for base in _bases(cls):
        if base in CONTRACTS:
            found = {name: vars(base).get(name) for name in inspect.get_annotations(base)}
            declared = {name: x for name, x in found.items() if isinstance(x, (bool, str, tuple, Mapping))} | declared
    return declared


def _hooks(base: type) -> dict[str, Any]:
    return {name: f for name, f in vars(base).items() if inspect.isfunction(f) and not name.startswith("_")}


def _bases(cls: type) -> Iterable[type]:
    return cls.__mro__[1:]


def _written(cls: type) -> Iterator[tuple[str, Any]]:
    """What authors wrote into the class and into its bases that are no public ones, fields excepted."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if base in CONTRACTS or base in Transformation.__mro__:
            continue
        seen |= {*inspect.get_annotations(base)}
        yield from ((name, x) for name, x in vars(base).items() if name not in seen)
        seen |= {*vars(base)}


def _inherited(cls: type, holds: Callable[[Any], bool]) -> Iterator[tuple[str, type, Any]]:
    for base in _bases(cls):
        for name, hook in vars(base).items():
            if holds(hook) and getattr(cls, name) is hook:
                yield name, base, hook


def _defines(cls: type, hook: str) -> bool:
    """Whether the hook is another than the default."""
    default = next(vars(base)[hook] for base in CONTRACTS if hook in vars(base))
    return inspect.getattr_static(cls, hook, default) is not default


def _takes(given: Any, count: int) -> bool:
    """Whether a function in a class can be called with so many arguments, ``self`` among them."""
    if isinstance(given, (staticmethod, classmethod)):
        given, count = given.__func__, count - isinstance(given, staticmethod)
    try:
        inspect.signature(given).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # no signature is known
        return True
    return True


def _head(name: str, hook: Any) -> str:
    """The first line of a hook, without types."""
    parameters = inspect.signature(hook).parameters
    return f"def {name}({', '.join(parameters)})"
