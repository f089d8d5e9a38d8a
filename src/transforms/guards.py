"""Guards: links that may reject a step. A rejected step leaves parameters, slots and the step count unchanged.

A guard sees the updates at its position in the chain, so it usually comes first. Its global state is
in ``state.links[name]``, where ``skipped`` counts the rejected steps.
"""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, GetAttrKey, tree_flatten_with_path

from ..core.engine.checks import check_buffers
from ..core.engine.step_info import StepInfo
from ..core.facade.link import Scaling, transform
from ..core.values.boxes import unboxed
from ..core.values.contents import is_array
from ..core.values.errors import PlainKeyError
from ..core.values.hyper import Hyper, OptionalHyper, hyper, integer, whole
from ..core.values.numerics import sqrt
from ..core.values.types import PyTree
from ..core.values.value import Number, derived, number


def _counter() -> jax.Array:
    return jnp.zeros((), jnp.int32)


class Guard(Scaling):
    """A link that does not change the updates. It is a scaling by 1, so that a clip after it shares its norm."""

    nonnegative = ("skipped",)
    can_reject = True
    role = "guard"

    def init_global_state(self):
        return {"skipped": _counter()}

    def factor(self, at):
        return 1.0

    def update_global_state(self, at):
        return {"skipped": at.global_state["skipped"] + jnp.where(at.accepted, 0, 1)}

    def metrics(self, entry):
        return {"skipped": entry["skipped"]}


@transform
class skip_nonfinite(Guard):
    """Reject steps whose updates are not all finite.

    After ``max_consecutive`` rejections in a row, further such steps are accepted.
    """

    max_consecutive: OptionalHyper = whole(
        "n", "rejections in a row; None for no limit", default=None, low=0.0, optional=True
    )

    nonnegative = ("skipped", "consecutive")
    equation = "no step unless all of u is finite, or n were rejected in a row"
    needs_all_updates = True

    @derived
    def refuses_nonfinite(self) -> bool:
        return self.max_consecutive is None

    def init_global_state(self):
        return {**super().init_global_state(), "consecutive": _counter()}

    def accepts(self, at):
        if self.max_consecutive is None:
            return at.all_finite()
        return at.all_finite() | (at.global_state["consecutive"] >= integer(self.max_consecutive))

    def update_global_state(self, at):
        row = jnp.where(at.all_finite(), 0, at.global_state["consecutive"] + 1)
        return {**super().update_global_state(at), "consecutive": row}


@transform
class skip_large_updates(Guard):
    """Reject steps whose updates have a global norm that is too large or NaN."""

    max_norm: Hyper = hyper("c", "the largest global norm")

    equation = "no step unless ‖u‖ ≤ c"
    bounds_size = refuses_nonfinite = True
    needs_all_updates = True

    def accepts(self, at):
        return at.global_norm() <= self.max_norm


@transform
class skip_loss_spikes(Guard):
    """Reject steps whose loss l is far above the mean of recent losses.

    ``update`` and ``step`` require the loss as ``value``. Mean and variance are over all losses up to
    the n-th, and from then on exponential averages with decay 1 − 1/n. A rejected loss enters them as the
    highest acceptable loss: a spike does not widen the bound much, and a loss that stays
    high is accepted eventually. A loss that is not finite is always rejected, and does not enter them. A loss whose
    distance to the mean has no finite square, 10¹⁹ in float32, resets the statistics. A deviation whose square
    underflows, such as that of losses that were all 0, sets no bound.
    """

    sigmas: Hyper = hyper("k", "standard deviations above the mean that are accepted", default=6.0)
    window: Hyper = hyper("n", "length of the average, in losses", default=128.0, low=1.0)
    warmup: Hyper = hyper("w", "losses that are accepted before any is rejected", default=64.0, low=1.0)
    tolerance: Hyper = hyper("τ", "rise that is always accepted, relative to the mean", default=0.01)

    equation = (
        "no step unless l ≤ c = m + max(kσ, τ|m|) or t ≤ w,  d = min(l, c) − m,  a = max(1/t, 1/n),  "
        "m ← m + ad,  σ² ← (1−a)(σ² + ad²)"
    )
    nonnegative = ("skipped", "seen", "variance")
    extra = ("value",)

    def init_global_state(self):
        return {
            **super().init_global_state(),
            "seen": _counter(),
            **{x: jnp.zeros((), jnp.float32) for x in ("mean", "variance")},
        }

    def accepts(self, at):
        return jnp.isfinite(_loss(at)) & (_loss(at) <= self.bound(at))

    def update_global_state(self, at):
        memory, counts = memories(at), jnp.isfinite(_loss(at))
        t = memory.seen + 1
        a = jnp.maximum(1 / t, 1 / self.window)
        d = jnp.where(counts, jnp.minimum(_loss(at), self.bound(at)), memory.mean) - memory.mean
        far = counts & ~(jnp.abs(d) < 0.5 * jnp.sqrt(jnp.finfo(at.dtype).max))  # also where d itself overflows
        d = jnp.where(far, 0.0, d)
        new = {
            "seen": jnp.where(far, 1.0, t),
            "mean": jnp.where(far, _loss(at), memory.mean + a * d),
            "variance": jnp.where(far, 0.0, (1 - a) * (memory.variance + a * jnp.square(d))),
        }
        kept = {name: jnp.where(counts, x, getattr(memory, name)) for name, x in new.items()}
        return {**super().update_global_state(at), **kept, "seen": kept["seen"].astype(jnp.int32)}

    def bound(self, at: StepInfo) -> jax.Array:
        """The highest loss that is accepted."""
        memory = memories(at)
        rise = jnp.maximum(self.sigmas * sqrt(memory.variance), self.tolerance * jnp.abs(memory.mean))
        unbounded = (memory.seen < self.warmup) | (rise < jnp.sqrt(jnp.finfo(at.dtype).tiny))
        return jnp.where(unbounded, jnp.inf, memory.mean + rise)


@transform
class dynamic_loss_scale(Guard):
    """Divide by the loss scale, reject steps that overflow, and adapt the scale. Place it first.

    Micikevicius et al. 2018, arXiv:1710.03740, section 3.2, with the rule of PyTorch's GradScaler. Take the
    gradient of ``loss * loss_scale(state)``, with the loss in float32. Only `sharpness_aware` comes before it;
    its ``grad_fn`` must then return gradients of the scaled loss too. Departs from PyTorch, whose scale reaches 0 after
    143 bad steps and then rejects nothing: here it does not fall below ``min_scale``, or below its first value if that
    is smaller; and a step whose gradients overflow only when divided is rejected too.
    """

    init_scale: Number = number("the first scale", default=2.0**16, symbol="s₀", low=0.0)
    growth_factor: Hyper = hyper("γ", "factor by which the scale grows", default=2.0, low=1.0)
    backoff_factor: Hyper = hyper("β", "factor of the scale after an overflow", default=0.5, high=1.0)
    growth_interval: Hyper = hyper("n", "finite steps in a row before it grows", default=2000.0, low=1.0)
    min_scale: Hyper = hyper("s_min", "the smallest scale", default=1.0)

    equation = (
        "u ← u/s, no step unless all of that is finite,  s from s₀: ← γs after n steps in a row, "
        "← max(βs, min(s, s_min)) otherwise"
    )
    nonnegative = ("skipped", "loss_scale", "growth_tracker")
    role = "loss_scale"
    needs_all_updates = True

    def check(self) -> None:
        if not is_array(self.init_scale) and self.init_scale == 0:
            raise ValueError("`dynamic_loss_scale.init_scale` must be positive, got 0")

    def init_global_state(self):
        scale = jnp.asarray(self.init_scale, jnp.float32)
        return {**super().init_global_state(), "loss_scale": scale, "growth_tracker": _counter()}

    def factor(self, at):
        return 1 / memories(at).loss_scale

    def accepts(self, at):
        return at.all_finite(self.factor(at))

    def update_global_state(self, at):
        memory = memories(at)
        row = memory.growth_tracker + 1
        full = row >= self.growth_interval
        # Finite in float32, in which the loss is scaled.
        grown = (memory.loss_scale * self.growth_factor).astype(jnp.float32)
        better = jnp.where(full & jnp.isfinite(grown), grown.astype(at.dtype), memory.loss_scale)
        # States of earlier versions may hold a scale of 0, which accepts no step and would never grow.
        tiny = float(jnp.finfo(jnp.float32).tiny)
        least = jnp.maximum(jnp.asarray(self.min_scale, at.dtype), tiny)
        least = jnp.where(memory.loss_scale < tiny, least, jnp.minimum(memory.loss_scale, least))
        worse = jnp.maximum(memory.loss_scale * self.backoff_factor, least)
        scale = jnp.where(at.accepted, better, worse)
        row = jnp.where(at.accepted & ~full, row, 0.0)
        return {**super().update_global_state(at), "loss_scale": scale, "growth_tracker": row.astype(jnp.int32)}

    def metrics(self, entry):
        return {**super().metrics(entry), "loss_scale": entry["loss_scale"]}


def loss_scale(state: PyTree) -> jax.Array:
    """The current scale of `dynamic_loss_scale`: multiply the loss by it before taking the gradient.

    >>> import chainax as cx
    >>> tx = cx.chain(cx.dynamic_loss_scale(), cx.sgd(0.1))
    >>> cx.loss_scale(tx.init(jax.numpy.ones(3))).item()
    65536.0
    """
    check_buffers("loss_scale(state)", state=state)
    found = [x for path, x in tree_flatten_with_path(unboxed(state))[0] if _is_memory(path, "loss_scale")]
    if len(found) != 1:
        raise PlainKeyError(
            f"the state holds {len(found) or 'no'} loss scales: put one dynamic_loss_scale() first in the chain"
        )
    return jnp.array(found[0])  # a copy, since the next step may reuse the state's memory


def _is_memory(path: tuple, name: str) -> bool:
    """Whether this path in a state is that of a global state called ``name``: links/link/name."""
    return len(path) > 2 and path[-3] == GetAttrKey("links") and path[-1] == DictKey(name)


def _loss(at: StepInfo) -> jax.Array:
    return jnp.asarray(at.extra["value"], at.dtype)


def memories(at: StepInfo) -> SimpleNamespace:
    """The global state in the dtype of the step, like the hyperparameters."""
    return SimpleNamespace(**{name: x.astype(at.dtype) for name, x in at.global_state.items()})
