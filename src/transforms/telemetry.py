"""Telemetry: statistics of the updates, recorded in the state during a run, and functions that read them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..core.engine.checks import check_buffers, check_roles
from ..core.engine.protocol import LinkLike, Links
from ..core.engine.state import State
from ..core.facade import telemetry
from ..core.facade.link import Scaling, transform
from ..core.facade.telemetry import within
from ..core.facade.transformation import Transformation
from ..core.values.boxes import unboxed
from ..core.values.contents import code, is_array
from ..core.values.errors import did_you_mean
from ..core.values.numerics import safe_div, sqrt
from ..core.values.tables import compiled
from ..core.values.tree import flatten, global_norm, leaf_size, max_abs
from ..core.values.types import PyTree
from ..core.values.value import derived, fill, static
from .clipping.clip import clip_by_global_norm


class Quantity(NamedTuple):
    """A number that is recorded for every leaf, and its reduction over leaves, stacked along the first axis."""

    of: Callable[[jax.Array, jax.Array], jax.Array]
    joined: Callable[[jax.Array], jax.Array]


def _root_of_squares(x: jax.Array) -> jax.Array:
    return sqrt(jnp.sum(jnp.square(x), axis=0))


QUANTITIES = {
    "norm": Quantity(lambda u, p: global_norm(u), _root_of_squares),
    "max": Quantity(lambda u, p: max_abs([u]), lambda x: jnp.max(x, axis=0)),
    "param_norm": Quantity(lambda u, p: global_norm(p), _root_of_squares),
    "size": Quantity(lambda u, p: jnp.full((), leaf_size(u), u.dtype), lambda x: jnp.sum(x, axis=0)),
}

STATISTICS: dict[str, tuple[tuple[str, ...], Callable[..., jax.Array]]] = {
    "norm": (("norm",), lambda norm: norm),
    "rms": (("norm", "size"), lambda norm, size: norm / sqrt(jnp.maximum(size, 1.0))),
    "max": (("max",), lambda largest: largest),
    "param_norm": (("param_norm",), lambda norm: norm),
    "ratio": (("norm", "param_norm"), safe_div),
}
"""The statistics: the quantities that each needs, and its formula."""


@transform
class record(Scaling):
    """Record statistics of the updates, which `recorded` reads, without changing the updates.

    Any of: ``norm``, ``rms`` and ``max`` of the updates at this position, ``param_norm`` of the
    parameters before the step, and ``ratio``, the norm divided by the parameter norm (0 for parameters of 0).
    The default is ``norm``. A complex number counts as two real ones. Each statistic adds one or two float32
    scalars per leaf to the state. They describe the last step, and are NaN if it was rejected; those of a leaf
    without a gradient at that step describe its last one with a gradient.

    The cost is a pass over the updates. In float32, a clip by the global norm right after it shares
    that pass. After other links XLA may store the updates for it, as it does on CPU.
    """

    statistics: tuple[str, ...] = static("the statistics to record")

    equation = "u ← u"
    role = "record"
    knows_shards = True

    def __init__(self, *names: str, statistics: tuple[str, ...] = ()) -> None:
        fill(self, statistics=(*names, *statistics) or ("norm",))
        self.__post_init__()

    def check(self) -> None:
        for i, name in enumerate(self.statistics):
            if name not in STATISTICS:
                hint = did_you_mean(name, STATISTICS) if isinstance(name, str) else ""
                raise ValueError(f"`record` keeps {', '.join(STATISTICS)}, got {code(name)}{hint}")
            if name in self.statistics[:i]:
                raise ValueError(f"`record` was given {name!r} twice")

    @derived
    def slots(self) -> tuple[str, ...]:
        needed = {q for name in self.statistics for q in STATISTICS[name][0]}
        return tuple(q for q in QUANTITIES if q in needed)

    @derived
    def reads_params(self) -> bool:
        return "param_norm" in self.slots

    def __repr__(self) -> str:
        return f"record({', '.join(map(repr, self.statistics))})"

    def init_leaf(self, p):
        return {name: jnp.zeros((), jnp.float32) for name in self.slots}

    def factor(self, at):
        return 1.0

    def after_rejection(self, entry):
        # No quantity is negative, so the sign bit says so. The number stays, for a leaf without a gradient at later
        # steps: that of NaN would be the norm of all leaves from then on.
        return jax.tree.map(lambda x: -jnp.abs(x), entry)

    def metrics(self, entry):
        return self.of_groups(entry, None)

    def of_groups(self, entry: dict[str, PyTree], by: str | Mapping[str, str] | None) -> dict[str, Any]:
        """The statistics over all leaves, or by group: see `recorded`."""
        kept = {name: [(path, x) for path, x in flatten(entry[name]).items() if x is not None] for name in self.slots}
        groups = tuple(_group(by, path) for path, _ in kept[self.slots[0]])
        found = _statistics(self.statistics, groups, {name: [x for _, x in leaves] for name, leaves in kept.items()})
        return {name: of.get("", jnp.zeros(())) for name, of in found.items()} if by is None else found

    def leaf(self, u, slot, p, scalars):
        return u, {name: QUANTITIES[name].of(u, p) for name in self.slots}


@transform
class counted_clip_by_global_norm(clip_by_global_norm):
    """`clip_by_global_norm` that counts: `recorded` reads ``clip_rate``, the fraction of steps that it clipped.

    Rejected steps count too. For other clips, compare the norms of a `record` before and after.
    """

    nonnegative = ("seen", "clipped")

    def init_global_state(self):
        return {name: jnp.zeros((), jnp.int32) for name in ("seen", "clipped")}

    def update_global_state(self, at):
        cuts = jnp.where(self.factor(at) < 1, 1, 0)
        return {"seen": at.global_state["seen"] + 1, "clipped": at.global_state["clipped"] + cuts}

    def metrics(self, entry):
        clipped, seen = (entry[name].astype(jnp.float32) for name in ("clipped", "seen"))
        return {"clip_rate": clipped / jnp.maximum(seen, 1.0)}


def metrics(tx: Transformation, state: State) -> dict[str, Any]:
    """The numbers of the step just taken for a logger, as a flat dict of scalars. Works inside and outside ``jit``.

    These are the factors by which links multiply all updates, such as ``learning_rate``; other hyperparameters that
    are schedules; and what links keep: ``norm`` and the other statistics of a `record`, ``clip_rate``, ``skipped``
    (the steps that a guard has rejected, or the micro-batches that `accumulate` has excluded), ``loss_scale``, the
    ``scale`` of `reduce_on_plateau` and `mechanize`, the ``estimate`` of `scale_by_prodigy` and others. If several
    links have a number of one name, the links' paths precede it: ``"partition/bias/scale_by_lr/learning_rate"``. A
    `by_path` table has an entry for each pattern: ``"learning_rate/bias"`` and ``"learning_rate/default"``.

    Names do not depend on the step. After a step that was rejected, the statistics are NaN, and hyperparameters are
    those of the last step that was taken. Before the first step they are those of the first. A chain within
    `accumulate`, `conditionally_transform` or `conditionally_mask` shows the numbers of the last step that it took. A
    loss scale or an estimate is the one for the next step. Nothing waits for the device; the numbers of a chain that is
    closed over may be Python numbers.

    Errors: ``KeyError`` for the state of another chain.

    >>> import jax, chainax as cx
    >>> tx = cx.chain(cx.skip_nonfinite(), cx.record("norm"), cx.sgd(cx.linear_schedule(0.5, 0.0, 5)))
    >>> params = jax.numpy.array([3.0, 4.0])
    >>> _, state = tx.step(params, tx.init(params), params)
    >>> {name: float(x) for name, x in cx.metrics(tx, state).items()}
    {'skipped': 0.0, 'norm': 5.0, 'learning_rate': 0.5}
    """
    check_roles("metrics(tx, state)", tx=tx, state=state)
    check_buffers("metrics(tx, state)", state=state)
    return telemetry.metrics(tx.links, unboxed(state))


def recorded(tx: Transformation, state: State, by: str | Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a chain has recorded, as ``{link: {statistic: number}}``. Works inside and outside ``jit``.

    This includes the statistics of its `record` links and the global state of other links:
    ``skipped``, the steps that a guard has rejected, ``loss_scale``, ``clip_rate`` and so on. Chains
    inside links appear under the keys of their states, as in `Transformation.hyperparams`.

    Statistics are over all leaves. With ``by="path"`` they are dicts with an entry for each leaf's path;
    with a table ``{pattern: group}``, dicts with an entry for each group of leaves: the first pattern that matches the
    path decides, the group may refer to parts of the match, as in `re.sub`, and leaves that no pattern matches are in
    ``"default"``.

    >>> import jax, chainax as cx
    >>> tx = cx.chain(cx.record("norm", "max"), cx.sgd(0.1))
    >>> params = {"layer_0": {"kernel": jax.numpy.ones(9)}, "layer_1": {"kernel": jax.numpy.ones(16)}}
    >>> _, state = tx.step(params, tx.init(params), params)
    >>> jax.tree.map(float, cx.recorded(tx, state))
    {'record': {'max': 1.0, 'norm': 5.0}}
    >>> jax.tree.map(float, cx.recorded(tx, state, {r"layer_(\\d+)": r"\\1"})["record"]["norm"])
    {'0': 3.0, '1': 4.0}
    """
    check_roles("recorded(tx, state)", tx=tx, state=state)
    state = unboxed(state)
    if not (by is None or by == "path" or isinstance(by, Mapping)):
        raise ValueError(f"`recorded` takes by='path', a table {{pattern: group}} or None, got {code(by)}")
    return _recorded(tx.links, state, by)


def _recorded(links: Links, state: State, by: str | Mapping[str, str] | None) -> dict[str, Any]:
    found = {}
    for name, link in links.items():
        inner = {key: _recorded(chain, own, by) for key, chain, _, own in within(name, link, state)}
        numbers = _read(link, state.links.get(name), by)
        if both := {**numbers, **{key: of for key, of in inner.items() if of}}:
            found[name] = both
    return found


def _read(link: LinkLike, entry: PyTree, by: str | Mapping[str, str] | None) -> dict[str, Any]:
    """What a link has recorded, from its entry in the state."""
    if not isinstance(entry, dict):
        return {}
    if isinstance(link, record):
        return link.of_groups(entry, by)
    if isinstance(link, counted_clip_by_global_norm):
        return link.metrics(entry)
    kept = {name: x for name, x in entry.items() if is_array(x) and name not in link.slots}
    return {name: x for name, x in kept.items() if not (link.treewise and x.ndim)}


def _group(by: str | Mapping[str, str] | None, path: str) -> str:
    if by is None:
        return ""
    if isinstance(by, str):
        return path
    for pattern, group in by.items():
        try:
            if match := compiled(pattern).search(path):
                return match.expand(group)
        except (re.error, TypeError) as e:
            raise ValueError(f"`recorded`: {pattern!r}: {group!r} is not a pattern and its group: {e}") from None
    return "default"


@functools.partial(jax.jit, static_argnums=(0, 1))  # so that all leaves take one dispatch
def _statistics(names: tuple[str, ...], groups: tuple[str, ...], kept: dict[str, list[jax.Array]]) -> dict[str, Any]:
    """The statistics by name and group. ``kept`` holds each quantity for all leaves; ``groups`` are their groups."""
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    marked = [jnp.signbit(x) for x in next(iter(kept.values()))]
    rejected = functools.reduce(jnp.logical_and, marked, jnp.array(True))  # else some leaf has moved since

    def joined(quantity: str, leaves: list[int]) -> jax.Array:
        return QUANTITIES[quantity].joined(jnp.abs(jnp.stack([kept[quantity][i] for i in leaves])))

    def statistic(name: str, leaves: list[int]) -> jax.Array:
        quantities, of = STATISTICS[name]
        return jnp.where(rejected, jnp.nan, of(*(joined(q, leaves) for q in quantities)))

    return {name: {group: statistic(name, leaves) for group, leaves in members.items()} for name in names}
