"""Checks of a link's declarations when its class is made: names and consistency."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from ..values import declared
from ..values.declared import defines, written
from ..values.errors import did_you_mean
from .order import ROLES

LinkClass: TypeAlias = Any
"""A class that derives from `Link`. What its attributes hold is not known before it is checked."""

PASSED = ("params", "state", "grads", "updates")
"""The arguments of `update` and `step` themselves."""


def check_class(cls: type) -> None:
    """Raise ``TypeError`` or ``ValueError`` for an invalid link, with the attribute and the remedy."""
    if declared.is_own(cls):
        return
    declared.check_class(cls)
    _check_names(cls)
    for problem in _inconsistencies(cls):
        raise TypeError(problem)


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
    for field in ("lagged", "holds", *(("nonnegative", "absent") if _has_only_slots(cls) else ())):
        named = vars(cls).get("holds", ()) if field == "holds" else getattr(cls, field, ())
        for name in () if isinstance(named, property) else named:
            if name not in slots:
                raise ValueError(_no_such_slot(cls, field, name))
    for start in cls.absent.values() if isinstance(cls.absent, Mapping) else ():
        if isinstance(start, str) and start not in slots:
            raise ValueError(_no_such_slot(cls, "absent", start))


def _inconsistencies(cls: LinkClass) -> Iterator[str]:
    """Errors for declarations and hooks of a class that contradict each other."""
    own = {name for name, _ in written(cls)}
    fields = {name for base in cls.__mro__ for name in inspect.get_annotations(base)}
    name = cls.__name__
    if getattr(cls, "random", False) is True and "seed" not in fields:
        yield f'`{name}.random` is True, but there is no seed: give it the field seed: Any = prng_seed("...")'
    if "scaling" in own and not defines(cls, "factor"):
        yield f"`{name}.scaling` is declared by deriving from Scaling, which has the method 'factor'"
    if "update_global_state" in own and not defines(cls, "init_global_state"):
        yield f"`{name}.update_global_state` would never be called: write init_global_state(self), the first values"
    if cls.slots == () and "init_leaf" in own:
        yield f'`{name}.init_leaf` makes slots, but the class declares none: write slots = ("...",)'
    if cls.slots and cls.treewise and not defines(cls, "init_tree"):
        yield f"`{name}.slots` are keys of the state of a Treewise link: write init_tree(self, params), which makes it"


def _no_such_slot(cls: LinkClass, field: str, name: object) -> str:
    known = f"its slots are {', '.join(cls.slots)}" if cls.slots else "it has no slots"
    return f"`{cls.__name__}.{field}` names {name!r}{did_you_mean(str(name), cls.slots)}; {known}"


def _has_only_slots(cls: type) -> bool:
    """Whether the link's entry of the state holds slots only, as far as its class tells."""
    return not any(defines(cls, hook) for hook in ("init_global_state", "init_tree"))


def _taken_slots(cls: LinkClass) -> tuple[str, ...]:
    return () if cls.treewise else ("grad", "key")  # the leaf function reads these as attributes of `slot` too
