"""Gradient accumulation: one step for several micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from ...core.engine import engine
from ...core.engine.checks import check_extra, check_state
from ...core.engine.offload import fetched, returned
from ...core.engine.state import State
from ...core.engine.step_info import StepInfo
from ...core.facade.link import Leafwise, slot_like, transform
from ...core.facade.transformation import Transformation
from ...core.values.contents import code
from ...core.values.hyper import Hyper, check_whole, evaluate, hyper, integer
from ...core.values.tree import cond, dtype_of, flatten, is_trainable, widest
from ...core.values.types import Extra, Leaf, Params, PyTree, Scalar, Updates
from ...core.values.value import Range, child, derived
from ..guards import dynamic_loss_scale
from ..shared.wrappers import (
    ConditionalWrapper,
    Entry,
    Wrapper,
    all_links,
    drop_holes,
    fill_holes,
    forwarded_arguments,
    init_inner,
)


def _check_every(where: str, x: Any, limits: None) -> Any:
    return check_whole(where, x, Range(low=1.0))


@transform
class accumulate(ConditionalWrapper):
    """Let a chain take one step for several micro-batches, on the mean of their gradients.

    In between only the sum, in float32 or wider, is written; parameters and the chain's state are not
    touched. The chain's schedules count the steps that it takes. A micro-batch whose gradients are not
    all finite is left out of the mean: it counts as one of the ``every``, and in ``skipped`` of the
    state. If all of them are left out there is no step. `dynamic_loss_scale`, which must see them, stands
    before this link; a micro-batch that it refuses does not count.

    A parameter whose gradient is ``None`` at the last micro-batch is left alone. Extra arguments for
    the chain are those of the last micro-batch. Where the data end before the last micro-batch of a step,
    `flush` takes it.

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
    # No `whole`, which the engine would evaluate at the micro-batches that it counts.
    every: Any = child("micro-batches to a step: a whole number, or a schedule of the steps taken", check=_check_every)

    slots = ("sum",)
    nonnegative = ("count", "weight", "skipped")
    inner_updates_differ = True
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

    def weight(self, at: StepInfo) -> Scalar:
        """How much the micro-batch counts in the mean."""
        return 1.0

    def init_tree(self, params):
        flat = flatten(params)
        sums = [slot_like(jnp.asarray(p)) if is_trainable(p) else None for p in flat.leaves]
        return {
            "tx": init_inner(self.tx, params),
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

        def add(u: Leaf, s: jax.Array) -> jax.Array:
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

    def closed(self, params: Params, state: Entry, extra: Extra) -> tuple[Params, Entry]:
        """The parameters and the state after a step on the mean of the micro-batches so far, if there are any."""
        extra = forwarded_arguments(self.tx, SimpleNamespace(extra=extra), params)  # pyright: ignore[reportArgumentType]
        _, mine = drop_holes(params, params)
        new, inner = cond(
            (state["count"] > 0) & (state["weight"] > 0),
            lambda: engine.step(self.tx.links, mine, state["tx"], self.feed(mine, state), extra),
            lambda: (mine, state["tx"]),
        )
        return fill_holes(new, params), {**state, "tx": inner, "count": jnp.zeros_like(state["count"])}


def _each(f: Callable[[Leaf, jax.Array], Leaf], updates: Updates, sums: PyTree) -> PyTree:
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

    @derived
    def extra(self) -> tuple[str, ...]:
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


def flush(tx: Transformation, params: Params, state: State, **extra: Any) -> tuple[Params, State]:
    """Take the step that `accumulate` has pending, where the data end before its last micro-batch.

    Returns the parameters and the state as if the last micro-batch had been the last of the ``every``: the chain
    within takes its next step, on the mean of the micro-batches that are there. If there are none, nothing
    changes. ``extra`` holds the arguments that this chain reads. The links before `accumulate` do not run. A
    parameter that had no gradient is stepped with the gradient 0: `freeze` those that must not move.

    `accumulate` may be held by other links, such as `partition` or `flatten`. It must be the last link of its
    chain, and so must the link that holds it.

    Errors: ``ValueError`` for a chain without `accumulate`; ``TypeError`` where it stands elsewhere, and for extra
    arguments that are missing or unknown.

    >>> import jax, chainax as cx
    >>> tx, params = cx.accumulate(cx.sgd(1.0), every=3), jax.numpy.array(0.0)
    >>> state = tx.init(params)
    >>> for gradient in (3.0, 1.0, 2.0, 5.0, 7.0):
    ...     params, state = tx.step(params, state, jax.numpy.array(gradient))
    >>> params.item(), cx.flush(tx, params, state)[0].item()
    (-2.0, -8.0)
    """
    call = "flush(tx, params, state)"
    check_state(call, tx, params, state)
    found = [link for _, link in all_links(tx) if isinstance(link, accumulate)]
    if not found:
        raise ValueError(f"`{call}`: no link of {code(tx)} is an accumulate, so no step is pending")
    check_extra(call, (pair for link in found for pair in link.tx.links.items()), extra)
    near = state._replace(links=fetched(state.links))
    params, new = _flushed(tx, params, near, extra)
    return params, new._replace(links=returned(new.links, state.links))


def _flushed(tx: Transformation, params: Params, state: State, extra: Extra) -> tuple[Params, State]:
    """`flush` for one chain, and for those within, which `Wrapper.visit` finds together with their parameters."""
    holding = [n for n, link in tx.links.items() if any(isinstance(x, accumulate) for _, x in all_links(link))]
    if not holding:
        return params, state
    name, link = next(reversed(tx.links.items()))
    if holding != [name]:
        raise TypeError(
            f"`flush` needs {holding[0]!r} to end its chain, but {name!r} follows: put that into the chain that "
            f"accumulates, accumulate(chain(..., {code(link)}), ...)"
        )
    if not isinstance(link, Wrapper) or not link.passes_updates:
        raise TypeError(
            f"`flush` cannot take a step for {name!r}, which changes the steps of its chain: write "
            f"accumulate({name}(...), every)"
        )
    entry, inner = state.links[name], {}
    if isinstance(link, accumulate):
        params, entry = link.closed(params, entry, extra)

    def visit(tx: Transformation, its: Params, own: State) -> dict[str, PyTree]:
        if its is not params and any(map(callable, extra.values())):
            raise TypeError(
                f"`flush` cannot pass a function of the parameters on to the chain in {name!r}, which sees them in "
                "another form"
            )
        moved, inner[id(own)] = _flushed(tx, its, own, extra)
        return {"params": moved}

    moved = fill_holes(link.visit(visit, params, entry)["params"], params)
    params = jax.tree.map(lambda p, new: jnp.asarray(new, dtype_of(p)) if is_trainable(p) else p, params, moved)
    return params, state._replace(links={**state.links, name: {k: inner.get(id(x), x) for k, x in entry.items()}})
