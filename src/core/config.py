"""Values as plain dicts, for JSON: versioned, and checked when read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .chain import chain
from .hyper import by_path
from .schedule import from_function
from .storage import storage
from .value import TYPES, Value, code, did_you_mean, is_array, is_key, unknown_field

VERSION = 1


def to_config(tx: Value) -> dict[str, Any]:
    """A chain, link or schedule as a dict that ``json.dumps`` takes. Every field is written, defaults too.

    Errors: ``TypeError`` for a bare Python function, which has no plain form: write a schedule class,
    or a chainax schedule; and for traced values.

    >>> import chainax as cx
    >>> cx.to_config(cx.scale_by_lr(0.1))
    {'chainax': 1, 'type': 'scale_by_lr', 'learning_rate': 0.1}
    """
    return {"chainax": VERSION, **_encode(tx, "")}


def from_config(config: Mapping[str, Any]) -> Any:
    """The value that `to_config` wrote.

    Errors: ``ValueError`` for an unknown version, type or field, and for values out of range. Types
    of your own are known once their module is imported.
    """
    if not isinstance(config, Mapping) or "chainax" not in config:
        raise ValueError(f"a chainax configuration is a dict with the key 'chainax', got {code(config)[:80]}")
    if type(config["chainax"]) is not int or config["chainax"] != VERSION:
        raise ValueError(f"this chainax reads configurations of version {VERSION}, got version {config['chainax']!r}")
    try:
        return _decode({k: v for k, v in config.items() if k != "chainax"}, "")
    except (TypeError, KeyError, AttributeError) as e:  # parts of another kind than to_config writes
        raise ValueError(f"the configuration is malformed: {type(e).__name__}: {e}") from e


def _encode(x: Any, where: str) -> Any:
    if isinstance(x, from_function):
        raise TypeError(
            f"{where.lstrip('.')}: the function {x!r} has no plain form: use a schedule such as linear_schedule"
        )
    if isinstance(x, chain):
        links = [{"name": name, **_encode(link, f"{where}.{name}")} for name, link in x.links.items()]
        return {"type": "chain", "links": links}
    if isinstance(x, by_path):
        table = [[p, _encode(e, f"{where}[{p!r}]")] for p, e in zip(x.patterns, x.entries)]
        return {"type": "by_path", "table": table, "default": _encode(x.default, f"{where}.default")}
    if isinstance(x, storage):
        return {"type": "storage", "formats": {slot: _encode(f, f"{where}.{slot}") for slot, f in x.table.items()}}
    if isinstance(x, Value):
        given = [f for f in dataclasses.fields(x) if f.repr or getattr(x, f.name) is not None]  # pyright: ignore[reportArgumentType]
        fields = [f.name for f in given]
        return {"type": type(x).__name__, **{n: _encode(getattr(x, n), f"{where}.{n}") for n in fields}}
    if isinstance(x, float) and not math.isfinite(x):
        return {"type": "float", "value": str(x)}
    if isinstance(x, (bool, float, str)) or x is None:
        return x
    if isinstance(x, int):
        return int(x)  # that of a field is of a subclass, which not every format knows
    if isinstance(x, tuple):
        return [_encode(e, f"{where}[{i}]") for i, e in enumerate(x)]
    if is_array(x) and is_key(x):
        raise TypeError(f"{where.lstrip('.')}: a PRNG key has no plain form: give a whole number, such as seed=0")
    if is_array(x) and not isinstance(x, Tracer):
        return {"type": "array", "dtype": str(x.dtype), "shape": list(x.shape), "value": np.ravel(x).tolist()}
    raise TypeError(f"{where.lstrip('.')}: {code(x)} has no plain form")


def _decode(x: Any, where: str) -> Any:
    if isinstance(x, list):
        return tuple(_decode(e, f"{where}[{i}]") for i, e in enumerate(x))
    if not isinstance(x, Mapping):
        return x
    at = f" at {where.lstrip('.')}" if where else ""
    if "type" not in x:
        raise ValueError(f"an entry without 'type'{at}: {dict(x)!r}")
    kind, fields = x["type"], {k: v for k, v in x.items() if k != "type"}
    if not isinstance(kind, str):
        raise ValueError(f"'type' must be a name{at}, got {kind!r}")
    if kind == "float":
        _expect(kind, fields, ("value",), at)
        return float(fields["value"])
    if kind == "array":
        _expect(kind, fields, ("dtype", "shape", "value"), at)
        return jnp.asarray(fields["value"], fields["dtype"]).reshape(fields["shape"])
    if kind == "chain":
        _expect(kind, fields, ("links",), at)
        named = {link.get("name"): {k: v for k, v in link.items() if k != "name"} for link in fields["links"]}
        if len(named) != len(fields["links"]) or None in named:
            raise ValueError(f"the links of a chain need names of their own{at}")
        return chain(**{name: _decode(link, f"{where}.{name}") for name, link in named.items()})
    if kind == "by_path":
        _expect(kind, fields, ("table", "default"), at)
        table = {pattern: _decode(entry, f"{where}[{pattern!r}]") for pattern, entry in fields["table"]}
        if len(table) != len(fields["table"]):
            raise ValueError(f"a pattern stands twice in a table{at}")
        return by_path(table, _decode(fields["default"], f"{where}.default"))
    if kind == "storage":
        _expect(kind, fields, ("formats",), at)
        return storage(**{slot: _decode(f, f"{where}.{slot}") for slot, f in fields["formats"].items()})
    cls = TYPES.get(kind)
    if cls is None:
        raise ValueError(
            f"unknown type {kind!r}{at}{did_you_mean(str(kind), TYPES)}: if it is your own, import its module first"
        )
    known = {f.name: f for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    required = tuple(n for n, f in known.items() if f.default is dataclasses.MISSING)
    _expect(kind, fields, tuple(known), at, required)
    return cls(**{name: _decode(v, f"{where}.{name}") for name, v in fields.items()})


def _expect(kind: str, fields: Mapping[str, Any], known: tuple, at: str, required: tuple | None = None) -> None:
    for name in fields:
        if name not in known:
            raise ValueError(unknown_field(kind, name, known) + at)
    for name in known if required is None else required:
        if name not in fields:
            raise ValueError(f"`{kind}` needs the field {name!r}{at}")
