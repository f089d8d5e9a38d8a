"""The description of a chain as text."""

from __future__ import annotations

import dataclasses
import itertools
import math
import unicodedata
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..engine import engine
from ..engine.blocks import Blocks
from ..engine.protocol import LinkLike, Links, is_leafwise, is_treewise
from ..engine.shards import Shards
from ..engine.storage import Format, storage
from ..values.contents import code, is_array, same, shortest
from ..values.numerics import is_zero
from ..values.schedule import Schedule
from ..values.tables import Keyed, Table, by_ndim, by_path, pick
from ..values.tree import flatten, is_trainable
from ..values.types import HyperValue, Leaf, Params
from ..values.value import Value, make
from ..values.warning import ChainWarning
from . import order


def describe(links: Links, params: Params = None) -> str:
    """The table of equations and settings, the kind of weight decay, and the size of the state."""
    rows = list(_rows(links))
    widths = [max((_width(row[i]) for row in rows), default=0) for i in range(2)]
    lines = [f"{_pad(row[0], widths[0])}  {_pad(row[1], widths[1])}   {row[2]}".rstrip() for row in rows]
    size = [f"state: {_size(links, params)}", *_avoidable(links, links, params), *remarks(links, params)]
    return "\n".join([*lines, *_schedules(links), *_penalties(links), *size])


def _rows(links: Links, indent: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, equation and settings of each link, each followed by those of the chains that it holds."""
    for name, link in links.items():
        yield indent + name, link.equation, _settings(link)
        for label, tx in link.inner.items():
            in_table = label not in link._leaves
            if in_table:
                yield f"{indent}  {label!r}", "", ""
            yield from _rows(tx.links, indent + ("    " if in_table else "  "))


def _schedules(links: Links) -> Iterator[str]:
    """The descriptions of the schedules among the settings."""
    for name, link in links.items():
        for field in link._leaves:
            setting = getattr(link, field)
            if isinstance(setting, Schedule):
                yield f"{name}.{field}: {setting.describe()}"
        for tx in link.inner.values():
            yield from _schedules(tx.links)


def _penalties(links: Links) -> Iterator[str]:
    """The kinds of weight decay: of this chain, unless it only holds others, and of the chains that it holds."""
    inner = [(name, label, tx) for name, link in links.items() for label, tx in link.inner.items()]
    if not inner or any(not link.inner and link.role in ("decay", "decay_after", "penalty") for link in links.values()):
        yield from order.penalties(links)
    for name, label, tx in inner:
        where = name if label in links[name]._leaves else f"{name} {label!r}"
        yield from (f"{where}: {line}" for line in _penalties(tx.links))


def _width(text: str) -> int:
    """The number of columns on a terminal: combining characters, such as the hat of m̂, take none."""
    return sum(not unicodedata.combining(c) for c in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _settings(link: LinkLike) -> str:
    """``β₁=0.9  β₂=0.999``: hyperparameters by symbol, and other fields by name if they differ from the default."""
    shown = []
    for field in dataclasses.fields(link):
        setting, limits = getattr(link, field.name), field.metadata.get("range")
        if limits:
            shown.append(f"{limits.symbol or field.name}={_short(setting)}")
        elif isinstance(setting, storage):
            shown.append(", ".join(f"{slot} in {_short(form)}" for slot, form in setting.table.items()))
        elif not same(setting, field.default) and not _holds_chains(setting):
            shown.append(f"{field.name}={_short(setting)}")
    return "  ".join(shown)


def _holds_chains(x: object) -> bool:
    """Whether a field holds chains, which have rows of their own."""
    return (isinstance(x, Value) and hasattr(x, "links")) or (isinstance(x, Table) and not x.of_numbers)


def _short(x: HyperValue) -> str:
    """A hyperparameter as code, with numbers rounded to six digits."""
    x = shortest(x)
    return code(float(f"{x:.6g}")) if isinstance(x, float) else str(x) if isinstance(x, Table) else code(x)


def _size(links: Links, params: Params) -> str:
    like = params
    if params is None:  # one large parameter, and links without tables by path
        like = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
        links = {name: _without_tables(link) for name, link in links.items()}
    try:
        stored = _bytes(links, like)
    except Exception:
        if params is not None:
            raise
        return "depends on the parameters: call describe(params)"
    slots = sum(len(link.slots) for link in links.values())
    count = sum(math.prod(jnp.shape(x)) for x in flatten(like).leaves if is_trainable(x))
    each = stored / count if count else 0.0
    total = f", {stored:,} bytes in all" if params is not None else ""
    counted = "" if any(link.treewise for link in links.values()) else f"{slots} slot{'' if slots == 1 else 's'}, "
    return f"{counted}{each:.3g} bytes a parameter{total}"


def _bytes(links: Links, params: Params) -> int:
    """The size of the state for these parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChainWarning)  # a user's link may call `init` of its inner chain
        state = jax.eval_shape(lambda p: engine.init(links, p), params)
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state.links))


def _avoidable(outermost: Links, links: Links, params: Params) -> Iterator[str]:
    """How much of the state belongs to parameters whose learning rate is 0, and code for a chain without it."""
    flat = flatten(params)
    if any(link.role == "decay_after" for link in links.values()):  # it moves parameters regardless of the rate
        return
    for name, link in links.items():
        field = link.factor_field if link.role == "descend" else ""
        rate = getattr(link, field) if field else 1.0
        at_rest = [is_trainable(p) and is_zero(_entry(field, rate, path, p)) for path, p in flat.items()]
        if any(at_rest):
            others = flat.build([None if resting else p for resting, p in zip(at_rest, flat.leaves)])
            if kept := _bytes(outermost, params) - _bytes(outermost, others):
                instead = _frozen(links is outermost, name, field, rate)
                of_them = f"{kept:,} of these bytes belong to parameters whose learning rate is 0"
                yield f"{of_them}; {instead} keeps none for them"
        if is_treewise(link) and link.moves_params:  # then its chain sees the same parameters
            for held in link.inner.keys() & {*link._leaves}:
                yield from _avoidable(outermost, link.inner[held].links, params)


def remarks(links: Links, params: Params) -> Iterator[str]:
    """What the links say of these parameters, and the parameters of which a shard's border cuts the blocks of codes."""
    flat = flatten(params)
    for name, link in links.items():
        if params is not None:
            yield from link.remarks(params)
        if is_leafwise(link) and link.formats:
            formats = [
                (path, p, link.formats.of(slot, path, np.shape(p))) for path, p in flat.items() for slot in link.slots
            ]
            cut = [*dict.fromkeys(path for path, p, form in formats if _is_cut(p, form))]
            if cut:
                few = ", ".join(map(repr, cut[:3])) + (f" and {len(cut) - 3} others" if len(cut) > 3 else "")
                yield (
                    f"{name}: the shards of {few} do not hold whole blocks, so each step gathers their codes on every "
                    "device: shard the rows, or an axis whose shards are multiples of the block"
                )
        for held, seen in link.seen_within(params).items() if params is not None else ():
            yield from remarks(link.inner[held].links, seen)


def _is_cut(p: Leaf, form: Format | None) -> bool:
    sharding = getattr(p, "sharding", None)
    if not isinstance(form, Blocks) or not isinstance(sharding, NamedSharding) or not is_trainable(p):
        return False
    if math.prod(p.shape) < form.min_size:
        return False
    spec = P(*sharding.spec, *(None for _ in p.shape[len(sharding.spec) :]))
    shards = Shards(sharding.mesh, spec)
    return not shards.is_replicated and shards.block_specs(p.shape, form.block, form.per_byte) is None


def _frozen(outside: bool, name: str, field: str, rate: HyperValue) -> str:
    """Code for ``tx`` with `freeze` for parameters whose ``rate``, the ``field`` of its link ``name``, is 0."""
    if not isinstance(rate, Keyed) or all(is_zero(x) for x in (*rate.entries, rate.default) if x is not None):
        return "freeze()"
    moving = {pattern: entry for pattern, entry in rate.table.items() if not is_zero(entry)}
    default = None if is_zero(rate.default) else rate.default
    if isinstance(rate, by_ndim):
        chains = [f"{n}: {'freeze()' if is_zero(entry) else 'tx'}" for n, entry in rate.table.items()]
        other = "" if rate.default is None else f", default={'freeze()' if is_zero(rate.default) else 'tx'}"
        stacked = f", stacked={code(dict(rate.stacked))}" if rate.stacked else ""
        return f"partition(by_ndim({{{', '.join(chains)}}}{other}{stacked}))"
    tx = "tx"
    if outside and len(moving) < len(rate.keys):  # otherwise some pattern would decide for no parameter
        tx = f"tx.replace({name!r}, {field}={code(by_path(moving, default) if moving else default)})"
    runs = [("|".join(run), zero) for zero, run in itertools.groupby(rate.keys, lambda p: is_zero(rate.table[p]))]
    if rate.default is not None and runs[-1][1] == is_zero(rate.default):
        runs.pop()
    shown = ", ".join(f"{pattern!r}: {'freeze()' if zero else tx}" for pattern, zero in runs)
    otherwise = "" if rate.default is None else f", default={'freeze()' if is_zero(rate.default) else tx}"
    return f"partition(by_path({{{shown}}}{otherwise}))"


def _entry(field: str, x: HyperValue, path: str, p: Leaf) -> HyperValue:
    return pick(field, x, path, jnp.shape(p))[1] if isinstance(x, Table) else x


def _without_tables(link: LinkLike) -> LinkLike:
    """The link with one entry in place of each table by path, and one number in place of each stack."""

    def one(x: HyperValue) -> HyperValue:
        if isinstance(x, Table):
            return one([*x.labelled().values()][-1]) if x.of_numbers else x
        return x.ravel()[0] if is_array(x) and x.ndim else x

    return make(type(link), **{name: one(x) for name, x in vars(link).items()})
