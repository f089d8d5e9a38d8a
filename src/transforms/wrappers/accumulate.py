"""Gradient accumulation: one step for several micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...core.engine import engine
from ...core.engine.checks import as_plain, check_extra
from ...core.engine.offload import fetched, returned
from ...core.engine.protocol import ChainLike
from ...core.engine.state import State
from ...core.engine.step_info import StepInfo
from ...core.facade.link import Leafwise, slot_like, transform
from ...core.facade.parts import all_links
from ...core.facade.transformation import Transformation
from ...core.values.boxes import reboxed
from ...core.values.conditions import in_place
from ...core.values.contents import code
from ...core.values.hyper import Hyper, check_whole, evaluate, hyper, integer
from ...core.values.tree import dtype_of, flatten, is_trainable, widest
from ...core.values.types import Extra, Leaf, Params, PyTree, Scalar, Updates
from ...core.values.value import Range, child, derived
from ..guards import dynamic_loss_scale
from ..shared.wrappers import (
    ConditionalWrapper,
    Entry,
    Wrapper,
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

    Between steps only the sum of gradients, in float32 or wider, is updated, and neither the parameters nor the
    chain's state. The chain's schedules count its own steps. A micro-batch with nonfinite gradients is
    excluded from the mean: it counts as one of the ``every``, and in ``skipped`` of the
    state. If all of them are excluded there is no step. Put `dynamic_loss_scale`, which must see them,
    before this link; a micro-batch that it rejects does not count.

    A parameter whose gradient is ``None`` at the last micro-batch does not change. The chain receives the extra
    arguments of the last micro-batch. If the data end before the last micro-batch of a step, take it by `flush`.

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
    # Not a `whole` field, since the engine would evaluate the schedule at the count of micro-batches, not of steps.
    every: Any = child("micro-batches per step: a whole number, or a schedule of the steps taken", check=_check_every)

    slots = ("sum",)
    nonnegative = ("count", "weight", "skipped")
    pending = "count"
    inner_updates_differ = True
    equation = "ū = mean of u over the micro-batches,  u ← tx(ū) at the last of them, else 0"

    def check(self) -> None:
        super().check()
        own = type(self).__name__
        for name, link in all_links(self.tx):
            if isinstance(link, dynamic_loss_scale):
                raise ValueError(
                    f"`{own}.tx`: {name!r} would see no overflow, since {own} excludes such micro-batches, and its "
                    f"scale would only grow: put it before {own}: chain({code(link)}, {own}(...))"
                )

    def weight(self, at: StepInfo) -> Scalar:
        """The weight of the micro-batch in the mean."""
        return 1.0

    def init_tree(self, params):
        flat = flatten(params)
        sums = [slot_like(jnp.asarray(p)) if is_trainable(p) else None for p in flat.leaves]
        return {
            "tx": init_inner(self.tx, params),
            "sum": flat.build(sums),
            "weight": jnp.zeros((), widest(dtype_of(p) for p in flat.leaves if is_trainable(p))),
            "count": jnp.zeros((), jnp.int32),  # micro-batches since the last step
            "skipped": jnp.zeros((), jnp.int32),
        }

    def decide(self, updates, state, at):
        every = integer(evaluate(f"{type(self).__name__}.every", self.every, state["tx"].step, at.dtype))
        # The sum is not cleared at a step but overwritten after it, which saves a pass over it.
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
        # A product rather than a quotient: XLA fuses it with what follows, and would store the quotient.
        share = 1 / jnp.where(state["weight"] > 0, state["weight"], 1.0)
        return _each(lambda u, s: None if u is None else s * share.astype(s.dtype), updates, state["sum"])

    def metrics(self, entry):
        return {"skipped": entry["skipped"]}

    def closed(self, params: Params, state: Entry, extra: Extra) -> tuple[Params, Entry]:
        """The parameters and the state after a step on the mean of the micro-batches so far, if there are any."""
        extra = forwarded_arguments(self.tx, extra, params)
        _, mine = drop_holes(params, params)
        new, inner = in_place(
            (state["count"] > 0) & (state["weight"] > 0),
            lambda: (mine, state["tx"]),
            lambda old: engine.step(self.tx.links, *old, self.feed(mine, state), extra),
        )
        return fill_holes(new, params), {**state, "tx": inner, "count": jnp.zeros_like(state["count"])}


def _each(f: Callable[[Leaf, jax.Array], Leaf], updates: Updates, sums: PyTree) -> PyTree:
    """``f`` of update and sum for each leaf that has a sum."""
    flat = flatten(updates)
    pairs = zip(flat.leaves, flat.line_up("The sums of the gradients", sums))
    return flat.build([None if s is None else f(u, s) for u, s in pairs])


@transform
class accumulate_weighted(accumulate):
    """Like `accumulate`, with a mean weighted by the extra argument ``weight``.

    If the gradient of a micro-batch is a mean over tokens, pass their number, and the step is that for
    the mean over all tokens. A micro-batch of weight 0 does not count; one whose weight is negative or
    not finite is excluded.
    """

    equation = "ū = Σwu / Σw over the micro-batches,  u ← tx(ū) at the last of them, else 0"

    @derived
    def extra(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().extra, "weight")))

    def weight(self, at):
        return at.extra["weight"]


@transform
class apply_every(Leafwise):
    """Sum up updates; pass on the sum at every k-th step, and 0 at the others. Links before it run at every step."""

    k: Hyper = hyper("k", "steps per sum", default=1.0, low=1.0)

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
    """Take the pending step of `accumulate` if the data end before its last micro-batch.

    Returns the parameters and the state as if the latest micro-batch had been the last of the ``every``: the inner
    chain takes its next step, on the mean of the micro-batches so far. If there are none, nothing
    changes. ``extra`` holds the arguments that the inner chain reads. The links before `accumulate` do not run. A
    parameter that had no gradient takes a step with gradient 0: `freeze` those that must not move.

    `accumulate` may be inside other links, such as `partition` or `flatten`. It must be the last link of its
    chain, and so must each link that holds it.

    Errors: ``ValueError`` for a chain without `accumulate`; ``TypeError`` if it is not the last link, and for extra
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
    trained, plain = as_plain(call, tx, params, state)
    found = [link for _, link in all_links(tx) if isinstance(link, accumulate)]
    if not found:
        raise ValueError(f"`{call}`: no link of {code(tx)} is an accumulate, so no step is pending")
    check_extra(call, (pair for link in found for pair in link.tx.links.items()), extra)
    on_device = plain._replace(links=fetched(plain.links))
    moved, new = _flushed(tx, trained.params, on_device, trained.arguments(extra))
    return trained.put_back(moved), reboxed(new._replace(links=returned(new.links, plain.links)), state)


def _flushed(tx: ChainLike, params: Params, state: State, extra: Extra) -> tuple[Params, State]:
    """`flush` for one chain and its inner chains, which `Wrapper.visit` finds together with their parameters."""
    holding = [n for n, link in tx.links.items() if any(isinstance(x, accumulate) for _, x in all_links(link))]
    if not holding:
        return params, state
    name, link = [*tx.links.items()][-1]
    if holding != [name]:
        raise TypeError(
            f"`flush` needs {holding[0]!r} to end its chain, but {name!r} follows: move that into the inner chain, "
            f"accumulate(chain(..., {code(link)}), ...)"
        )
    if not isinstance(link, Wrapper) or not link.passes_updates:
        raise TypeError(
            f"`flush` cannot take a step for {name!r}, which changes the steps of its chain: write "
            f"accumulate({name}(...), every)"
        )
    entry, inner = state.links[name], {}
    if isinstance(link, accumulate):
        params, entry = link.closed(params, entry, extra)

    def visit(tx: ChainLike, inner_params: Params, inner_state: State) -> dict[str, PyTree]:
        if inner_params is not params and any(map(callable, extra.values())):
            raise TypeError(
                f"`flush` cannot pass a function of the parameters to the chain in {name!r}, which sees them in "
                "another form"
            )
        moved, inner[id(inner_state)] = _flushed(tx, inner_params, inner_state, extra)
        return {"params": moved}

    moved = fill_holes(link.visit(visit, params, entry)["params"], params)
    params = jax.tree.map(lambda p, new: jnp.asarray(new, dtype_of(p)) if is_trainable(p) else p, params, moved)
    return params, state._replace(links={**state.links, name: {k: inner.get(id(x), x) for k, x in entry.items()}})
