"""Errors that say what to write: for unknown names, names from other libraries, and wrong arguments."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

from .contents import brief, code
from .names import OTHER_NAMES

P = ParamSpec("P")
R = TypeVar("R")


class PlainKeyError(KeyError):
    """A KeyError that prints its message as it is, where Python's prints the repr."""

    def __str__(self) -> str:
        return self.args[0]


def unknown_field(kind: str, name: str, known: Iterable[str], *passed: object) -> str:
    """The message for a field that a value does not have. ``passed`` is what was passed for it, if that is known."""
    known = list(known)
    hint = renamed(name, known, *passed) or did_you_mean(name, known)
    return f"`{kind}` has no field {brief(name)}{hint}; its fields are {', '.join(known) or 'none'}"


def renamed(name: str, known: Iterable[str], *passed: object) -> str:
    """What to write here for another library's name, or an empty string."""
    names = here(name, known)
    if not names:
        return next((f": {text}" for text in OTHER_NAMES.get(name, ()) if " " in text), "")
    if not passed:
        return f": here that is {', '.join(names)}"
    values = passed[0] if isinstance(passed[0], (tuple, list)) else passed
    return f": write {', '.join(f'{n}={code(x)}' for n, x in zip(names, values))}"


def here(name: str, known: Iterable[str]) -> list[str]:
    """The known names that correspond to ``name``, which may be another library's."""
    known = list(known)
    return [n for n in (name, *OTHER_NAMES.get(name, ())) if n in known]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest known name, or an empty string."""
    close = difflib.get_close_matches(name[:100], list(known), n=1)  # slow for long names
    return f" (did you mean {close[0]!r}?)" if close else ""


def explained(f: Callable[P, R], kind: str = "") -> Callable[P, R]:
    """Make errors for wrong arguments of a function, or of the ``__init__`` of class ``kind``, say what to write."""
    signature = functools.cache(lambda: inspect.signature(f))  # at the first call: importing many functions is quicker

    @functools.wraps(f)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            signature().bind(*args, **kwargs)
        except TypeError as e:
            name, parameters = kind or f.__name__, list(signature().parameters.values())[bool(kind) :]
            names = [p.name for p in parameters]
            wrong = _unknown(name, names, kwargs) or ("" if kind else _not_by_position(name, parameters, args, kwargs))
            raise TypeError(wrong or f"`{name}({', '.join(names)})`: {e}") from None
        return f(*args, **kwargs)

    return call


def _unknown(name: str, names: list[str], kwargs: Mapping[str, object]) -> str:
    """The message for arguments with unknown names, or an empty string."""
    wrong = [
        f"{argument!r}{renamed(argument, names, x) or did_you_mean(argument, names)}"
        for argument, x in kwargs.items()
        if argument not in names
    ]
    has = f"; its arguments are {', '.join(names) or 'none'}"
    return f"`{name}` has no argument {', and no argument '.join(wrong)}{has}" if wrong else ""


def _not_by_position(
    name: str, parameters: list[inspect.Parameter], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> str:
    """The message for too many positional arguments, or an empty string."""
    first = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    others = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if len(args) <= len(first) or not others:
        return ""
    trained = isinstance(args[0], (Mapping, list, tuple))  # PyTorch's optimizers take the parameters first
    args = args[trained:]
    more = [x for extra in args[len(first) :] for x in (extra if isinstance(extra, tuple) else (extra,))]
    named = {**dict(zip(others, more)), **kwargs}
    call = ", ".join([*map(code, args[: len(first)]), *(f"{n}={code(x)}" for n, x in named.items())])
    takes = f"{', '.join(first)} by position, and the others by name" if first else "all arguments by name"
    also = "; the parameters go to tx.init(params)" if trained else ""
    return f"`{name}` takes {takes}: write {name}({call}){also}"
