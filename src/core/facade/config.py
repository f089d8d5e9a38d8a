"""Values as plain dicts, for JSON: versioned, and checked when read."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..engine.storage import storage
from ..values.contents import brief, code, is_array, is_key
from ..values.errors import did_you_mean, unknown_field
from ..values.matrices import matrices
from ..values.schedule import from_function
from ..values.tables import Keyed, Table, by_ndim, by_path
from ..values.types import PyTree
from ..values.value import TYPES, Value
from .chain import chain

VERSION = 1
PACKAGE = __name__.partition(".")[0]

# Limits of a configuration, so that reading one takes a second at most, even if it is hostile.
MOST_PARTS = 50_000
MOST_TEXT = 200_000  # characters in total; regular expressions are the expensive ones
LONGEST_NAME = 1_000
LONGEST_CHAIN = 1_000  # links
DEEPEST = 64
MOST_WAYS = 100_000  # see `_ways`


def to_config(tx: Value) -> dict[str, Any]:
    """A chain, link or schedule as a dict that ``json.dumps`` accepts. All fields are written, including defaults.

    A type is written by its name, or as ``"module.name"`` if two modules define types of that name.

    Errors: ``TypeError`` for traced values, and for a Python function, which has no plain form: use a chainax schedule
    or write a schedule class.

    >>> import chainax as cx
    >>> cx.to_config(cx.scale_by_lr(0.1))
    {'chainax': 1, 'type': 'scale_by_lr', 'learning_rate': 0.1}
    """
    return {"chainax": VERSION, **_encode(tx, "")}


def from_config(config: Mapping[str, Any]) -> Any:
    """The value that `to_config` wrote.

    Untrusted configurations are safe to read: they run no code, and give a value or an error within about
    a second. Their size is limited, and a regular expression must not repeat a repetition or an alternative.
    Accept untrusted configurations as JSON and untrusted states as ``.npz`` files, which ``np.load(file,
    allow_pickle=False)`` reads for `Transformation.load_state_dict`. Never unpickle them: a pickle can run any code.

    Errors: ``ValueError`` for an unknown version, type or field, for values out of range, and for a configuration that
    is too large. Types of your own are known once their module is imported.
    """
    if not isinstance(config, Mapping) or "chainax" not in config:
        got = "one without it" if isinstance(config, Mapping) else f"a {type(config).__name__}"
        raise ValueError(f"a chainax configuration is a dict with the key 'chainax', got {got}")
    _check_size(config)
    if type(config["chainax"]) is not int or config["chainax"] != VERSION:
        raise ValueError(
            f"this chainax reads configurations of version {VERSION}, got version {brief(config['chainax'])}"
        )
    try:
        return _decode({k: v for k, v in config.items() if k != "chainax"}, "")
    except Warning:  # about the order of a chain, if warnings are errors
        raise
    except Exception as e:  # of any kind, since the parts of an untrusted configuration may have any type
        text = str(e) if isinstance(e, ValueError) else f"the configuration is malformed: {type(e).__name__}: {e}"
        raise ValueError(text if len(text) <= 500 else f"{text[:500]}...") from None


def _check_size(config: PyTree) -> None:
    """Raise if a configuration is larger than that of any reasonable chain."""
    level, parts, text, depth = [config], 0, 0, 0
    while level:
        within = [x.values() if isinstance(x, Mapping) else x for x in level if isinstance(x, (Mapping, list, tuple))]
        depth += 1
        parts += sum(map(len, within))
        text += sum(len(x) for x in level if isinstance(x, str))
        if parts > MOST_PARTS or text > MOST_TEXT or depth > DEEPEST:
            raise ValueError(
                f"the configuration is too large: more than {MOST_PARTS} parts, {MOST_TEXT} characters "
                f"or {DEEPEST} levels"
            )
        level = [part for x in within for part in x]


def _encode(x: object, where: str) -> PyTree:
    if isinstance(x, from_function):
        raise TypeError(
            f"{where.lstrip('.')}: the function {x!r} has no plain form: use a schedule such as linear_schedule"
        )
    if isinstance(x, chain):
        links = [{"name": name, **_encode(link, f"{where}.{name}")} for name, link in x.links.items()]
        return {"type": "chain", "links": links}
    if isinstance(x, Keyed):
        table = [[key, _encode(e, f"{where}[{key!r}]")] for key, e in x.table.items()]
        stacked = {"stacked": dict(x.stacked)} if isinstance(x, by_ndim) else {}
        default = _encode(x.default, f"{where}.default")
        return {"type": type(x).__name__, "table": table, "default": default, **stacked}
    if isinstance(x, storage):
        return {"type": "storage", "formats": {slot: _encode(f, f"{where}.{slot}") for slot, f in x.table.items()}}
    if isinstance(x, matrices):
        return {"type": "matrices", "words": [*x.words], "sizes": dict(x.sizes)}
    if isinstance(x, Value):
        fields = [f.name for f in dataclasses.fields(x) if f.repr or getattr(x, f.name) is not None]
        return {"type": _name(type(x)), **{n: _encode(getattr(x, n), f"{where}.{n}") for n in fields}}
    if isinstance(x, float) and not math.isfinite(x):
        return {"type": "float", "value": str(x)}
    if isinstance(x, (bool, float, str)) or x is None:
        return x
    if isinstance(x, int):
        return int(x)  # fields may hold a subclass of int, which some file formats do not support
    if isinstance(x, tuple):
        return [_encode(e, f"{where}[{i}]") for i, e in enumerate(x)]
    if is_array(x) and is_key(x):
        raise TypeError(f"{where.lstrip('.')}: a PRNG key has no plain form: give a whole number, such as seed=0")
    if is_array(x) and not isinstance(x, Tracer):
        return {"type": "array", "dtype": str(x.dtype), "shape": list(x.shape), "value": np.ravel(x).tolist()}
    raise TypeError(f"{where.lstrip('.')}: {code(x)} has no plain form")


PLAIN = ("float", "array")
"""The 'type' of entries that are not values."""


def _name(cls: type[Value]) -> str:
    """The 'type' of a class: its name, with the module unless the name is unique."""
    name = cls.__name__
    return name if name not in PLAIN and _types(name) == [cls] else f"{cls.__module__}.{name}"


def _types(kind: str) -> list[type[Value]]:
    """The classes that a 'type' may mean. A name without a module means chainax's own class if there is one."""
    module, _, name = kind.rpartition(".")
    known = TYPES.get(name, {})
    if module:
        return [known[module]] if module in known else []
    ours = [cls for where, cls in known.items() if where.partition(".")[0] == PACKAGE]
    return ours or list(known.values())


def _decode(x: Any, where: str) -> Any:
    where = where[:200]  # it may contain long patterns, and is copied for each part below
    at = f" at {where.lstrip('.')}" if where else ""
    if isinstance(x, list):
        return tuple(_decode(e, f"{where}[{i}]") for i, e in enumerate(x))
    if isinstance(x, str) and len(x) > LONGEST_NAME:
        raise ValueError(f"a text of {len(x)} characters{at}")
    if not isinstance(x, Mapping):
        return x
    if "type" not in x:
        raise ValueError(f"an entry without 'type'{at}: {brief(x)}")
    kind, fields = x["type"], {k: v for k, v in x.items() if k != "type"}
    if not isinstance(kind, str):
        raise ValueError(f"'type' must be a name{at}, got {brief(kind)}")
    if kind == "float":
        _expect(kind, fields, ("value",), at)
        return float(fields["value"])
    if kind == "array":
        _expect(kind, fields, ("dtype", "shape", "value"), at)
        return _array(at, **fields)
    if kind == "chain":
        _expect(kind, fields, ("links",), at)
        named = {link.get("name"): {k: v for k, v in link.items() if k != "name"} for link in fields["links"]}
        if len(named) != len(fields["links"]) or None in named:
            raise ValueError(f"each link of a chain needs its own name{at}")
        if len(named) > LONGEST_CHAIN or any(len(name) > LONGEST_NAME for name in named):
            raise ValueError(f"a chain of more than {LONGEST_CHAIN} links, or with longer names{at}")
        return chain(**{name: _decode(link, f"{where}.{name}") for name, link in named.items()})
    if kind in ("by_path", "by_ndim"):
        by_shape = ("stacked",) if kind == "by_ndim" else ()
        _expect(kind, fields, ("table", "default", *by_shape), at)
        for pattern in (pattern for pattern, _ in fields["table"]) if kind == "by_path" else fields["stacked"]:
            _check_pattern(pattern, at)
        table = {key: _decode(entry, f"{where}[{brief(key)}]") for key, entry in fields["table"]}
        if len(table) != len(fields["table"]):
            raise ValueError(f"a {'pattern' if kind == 'by_path' else 'number'} occurs twice in a table{at}")
        default = _decode(fields["default"], f"{where}.default")
        return by_path(table, default) if kind == "by_path" else by_ndim(table, default, stacked=fields["stacked"])
    if kind == "storage":
        _expect(kind, fields, ("formats",), at)
        return storage(**{slot: _decode(f, f"{where}.{slot}") for slot, f in fields["formats"].items()})
    if kind == "matrices":
        _expect(kind, fields, ("words", "sizes"), at)
        return matrices(*fields["words"], **fields["sizes"])
    classes = _types(kind)
    if not classes:
        hint = did_you_mean(kind, TYPES)
        raise ValueError(f"unknown type {brief(kind)}{at}{hint}: if it is your own, import its module first")
    if len(classes) > 1:
        names = " or ".join(f"{cls.__module__}.{kind}" for cls in classes)
        raise ValueError(f"the type {kind!r}{at} may be {names}: write one of them")
    (cls,) = classes
    known = {f.name: f for f in dataclasses.fields(cls)}
    required = tuple(n for n, f in known.items() if f.default is dataclasses.MISSING)
    _expect(kind, fields, tuple(known), at, required)
    made = cls(**{name: _decode(v, f"{where}.{name}") for name, v in fields.items()})
    for pattern in made.expressions if isinstance(made, Table) else ():
        _check_pattern(pattern, at)
    return made


def _array(at: str, dtype: object, shape: Sequence[int], value: Sequence[object]) -> jax.Array:
    if not isinstance(dtype, str) or not jnp.issubdtype(np.dtype(dtype), np.number):
        raise ValueError(f"an array cannot have the dtype {brief(dtype)}{at}")
    if not all(isinstance(x, numbers.Real) for x in value) or math.prod(shape) != len(value):
        raise ValueError(f"an array{at} must have as many numbers as its shape says")
    return jnp.asarray(np.array(value, dtype).reshape(shape))


def _expect(kind: str, fields: Mapping[str, Any], known: tuple, at: str, required: tuple | None = None) -> None:
    for name in fields:
        if name not in known:
            raise ValueError(unknown_field(kind, name, known) + at)
    for name in known if required is None else required:
        if name not in fields:
            raise ValueError(f"`{kind}` needs the field {name!r}{at}")


# Untrusted regular expressions


def _check_pattern(pattern: object, at: str) -> None:
    """Raise unless ``pattern`` is a regular expression that matches any path in little time."""
    if not isinstance(pattern, str):
        raise ValueError(f"a pattern must be a string{at}, got {brief(pattern)}")
    try:
        ways = _ways(re._parser.parse(pattern))  # pyright: ignore[reportAttributeAccessIssue]
    except (re.error, OverflowError, RecursionError) as e:
        raise ValueError(f"{brief(pattern)} is no regular expression{at}: {e}") from None
    if ways > MOST_WAYS:
        raise ValueError(
            f"the pattern {brief(pattern)}{at} nests repetitions or alternatives, or has too many of them, and could "
            "take very long to match: simplify it, or build the table in code with by_path"
        )


def _ways(expression: Iterable, repeated: bool = False) -> int:
    """Roughly the number of ways in which a parsed expression can match, all of which a failing match tries."""
    ways, most = 1, 10  # most: the number of places where a repetition may end, which is small after a letter
    for operation, argument in expression:
        kind, inner = str(operation), list(_expressions(argument))
        repeats, chooses = kind.endswith("_REPEAT"), kind in ("BRANCH", "GROUPREF_EXISTS")
        if repeated and (repeats or chooses):
            return MOST_WAYS + 1
        each = [_ways(x, repeated or repeats) for x in inner]
        ways *= sum(each) if chooses else math.prod(each)
        if repeats:
            ways *= min(argument[1] - argument[0] + 1, most)
        most = 10 if kind == "LITERAL" else 100 if repeats else most
        ways = min(ways, MOST_WAYS + 1)
    return ways


def _expressions(parsed: Any) -> Iterator[Iterable]:
    """The expressions within the argument of a parsed operation."""
    if isinstance(parsed, re._parser.SubPattern):  # pyright: ignore[reportAttributeAccessIssue]
        yield parsed
    elif isinstance(parsed, (tuple, list)):
        for part in parsed:
            yield from _expressions(part)
