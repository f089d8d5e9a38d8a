"""Gradient accumulation: one step for several micro-batches."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..core.at import At
from ..core.hyper import Hyper, check_whole, evaluate, hyper, integer
from ..core.link import Leafwise, slot_like, transform
from ..core.tree import dtype_of, flatten, is_trainable, widest
from ..core.value import Range, child, code
from .guards import dynamic_loss_scale
from .wrappers import Sometimes, all_links, begin


@transform
class accumulate(Sometimes):
    """Let a chain take one step for several micro-batches, on the mean of their gradients.

    In between only the sum, in float32 or wider, is written; parameters and the chain's state are not
    touched. The chain's schedules count the steps that it takes. A micro-batch whose gradients are not
    all finite is left out of the mean: it counts as one of the ``every``, and in ``skipped`` of the
    state. If all of them are left out there is no step. `dynamic_loss_scale`, which must see them, stands
    before this link; a micro-batch that it refuses does not count.

    A parameter whose gradient is ``None`` at the last micro-batch is left alone. Extra arguments for
    the chain are those of the last micro-batch.

    >>> import jax, chainax as cx
    >>> tx, params = cx.accumulate(cx.sgd(1.0), every=2), jax.numpy.array(0.0)
    >>> state = tx.init(params)
    >>> for gradient in (1.0, 3.0):
    ...     params, state = tx.step(params, state, jax.numpy.array(gradient))
    ...     print(params)
    0.0
    -2.0
    """

    tx: Any = child("the chain that takes the steps")
    every: Any = child("micro-batches to a step: a whole number, or a schedule of the steps taken")

    slots = ("sum",)
    equation = "ū = mean of u over the micro-batches,  u ← tx(ū) at the last of them, else 0"

    def check(self) -> None:
        super().check()
        own = type(self).__name__
        for name, link in all_links(self.tx):
            if isinstance(link, dynamic_loss_scale):
                raise ValueError(
                    f"`{own}.tx`: {name!r} would see no overflow, since {own} leaves such micro-batches out, and its "
                    f"scale would only grow: put it before: chain({code(link)}, {own}(...))"
                )
        vars(self)["every"] = check_whole(f"{own}.every", self.every, Range(low=1.0))

    def weight(self, at: At) -> Any:
        """How much the micro-batch counts in the mean."""
        return 1.0

    def init_tree(self, params):
        flat = flatten(params)
        sums = [slot_like(jnp.asarray(p)) if is_trainable(p) else None for p in flat.leaves]
        return {
            "tx": begin(self.tx, params),
            "sum": flat.build(sums),
            "weight": jnp.zeros((), widest(dtype_of(p) for p in flat.leaves if is_trainable(p))),
            "count": jnp.zeros((), jnp.int32),  # micro-batches that are behind us on the way to the next step
            "skipped": jnp.zeros((), jnp.int32),
        }

    def decide(self, updates, state, at):
        every = integer(evaluate(f"{type(self).__name__}.every", self.every, state["tx"].step, at.dtype))
        # The sum is not cleared at a step but begun anew after it, which saves a pass over it.
        begins, count = state["count"] == 0, state["count"] + 1
        weight = jnp.asarray(self.weight(at), state["weight"].dtype)
        good = at.all_finite() & jnp.isfinite(weight) & (weight >= 0)
        total = jnp.where(begins, 0.0, state["weight"]) + jnp.where(good, weight, 0.0)

        def add(u: Any, s: Any) -> Any:
            s = jnp.where(begins, 0, s)
            return s if u is None else s + jnp.where(good, weight.astype(s.dtype) * jnp.asarray(u, s.dtype), 0)

        done = count >= every
        state = {
            "tx": state["tx"],
            "sum": _each(add, updates, state["sum"]),
            "weight": total,
            "count": jnp.where(done, 0, count),
            "skipped": state["skipped"] + (~good).astype(jnp.int32),
        }
        return state, done & (total > 0)

    def feed(self, updates, state):
        # A product, which XLA fuses with what follows, where it would store a quotient.
        share = 1 / jnp.where(state["weight"] > 0, state["weight"], 1.0)
        return _each(lambda u, s: None if u is None else s * share.astype(s.dtype), updates, state["sum"])


def _each(f: Any, updates: Any, sums: Any) -> Any:
    """``f`` of update and sum, wherever there is a sum."""
    flat = flatten(updates)
    pairs = zip(flat.leaves, flat.line_up("The sums of the gradients", sums))
    return flat.build([None if s is None else f(u, s) for u, s in pairs])


@transform
class accumulate_weighted(accumulate):
    """The same, with a mean weighted by the extra argument ``weight``.

    Give the number of tokens over which the micro-batch's gradient is a mean, and the step is that of
    the mean over all tokens. A micro-batch of weight 0 does not count; one whose weight is negative or
    not finite is left out.
    """

    equation = "ū = Σwu / Σw over the micro-batches,  u ← tx(ū) at the last of them, else 0"

    @property
    def extra(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return tuple(dict.fromkeys((*super().extra, "weight")))

    def weight(self, at):
        return at.extra["weight"]


@transform
class apply_every(Leafwise):
    """Add updates up; pass their sum on at every k-th step, and 0 at the others. Links before it run at every step."""

    k: Hyper = hyper("k", "steps to a sum", default=1.0, low=1.0)

    slots = ("sum",)
    lagged = slots
    equation = "s ← s + u,  u ← s and s ← 0 if t mod k = 0, else u ← 0"
    role = "accumulate"

    def scalars(self, at):
        return at.phase(self.k) == 0

    def leaf(self, u, slot, p, out):
        s = slot.sum + u
        return jnp.where(out, s, 0.0), {"sum": jnp.where(out, 0.0, s)}
