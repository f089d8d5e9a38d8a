"""Averages of the parameters during a run, for evaluation or to pull the parameters back.

Put these links last in a chain, where the update is what will be added: they average θ + u, before it is
rounded to the parameter's dtype. Steps that are not taken do not count, so with `accumulate` put them
into its inner chain. `read_average` reads the averages from a state.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...core.engine.checks import as_plain
from ...core.engine.state import State
from ...core.engine.storage import widened
from ...core.facade.link import Leafwise, transform
from ...core.facade.transformation import Transformation
from ...core.values.errors import PlainKeyError
from ...core.values.hyper import Hyper, hyper
from ...core.values.tree import compute_dtype, dtype_of, flatten, from_real, is_trainable, slot_dtype
from ...core.values.types import Leaf, Params, PyTree
from ...core.values.value import derived, static
from ..shared.wrappers import fill_holes, search, select


class Average(Leafwise):
    """A link that keeps an average of the parameters in its only slot."""

    slots = ("average",)
    role = "average"
    reads_params = True

    def init_leaf(self, p):
        return {"average": jnp.array(p, slot_dtype(p.dtype))}  # a copy: the buffer of p may be donated


class Mean(Average):
    """An average that moves a fraction of the way to the parameters."""

    def leaf(self, u, slot, p, share):
        return u, {"average": (1 - share) * slot.average + share * (p + u)}


@transform
class ema_params(Mean):
    """Exponential moving average of the parameters, with bias correction.

    After t steps, the parameters of i steps ago have the weight (1−β)βⁱ/(1−βᵗ). Without ``debias`` the average starts
    at the first parameters, which then have the weight βᵗ⁻¹, as in PyTorch's AveragedModel. With a decay of 1, as at
    the end of BYOL's schedule, the average stops moving; with ``debias`` it is the limit, in which all weights are
    equal.
    """

    decay: Hyper = hyper("β", "decay of the average", high=1.0, closed=True)
    debias: bool = static("correct the bias of the first steps", default=True, one_of=(False, True))

    @derived
    def equation(self) -> str:
        return f"θ̄ ← (1−c)θ̄ + c(θ+u),  c = {'(1−β)/(1−βᵗ)' if self.debias else '1−β, c₁ = 1'}"

    def scalars(self, at):
        if not self.debias:
            return jnp.where(at.step == 1, 1.0, 1 - self.decay)
        if isinstance(self.decay, float):
            return (1 - self.decay) * at.debias(self.decay) if self.decay < 1 else 1 / at.step
        even = self.decay == 1  # then the factors below would be 0 and ∞
        decay = jnp.where(even, 0.5, self.decay)
        return jnp.where(even, 1 / at.step, (1 - decay) * at.debias(decay))


@transform
class swa(Mean):
    """Stochastic weight averaging: the mean of the parameters at some steps. Izmailov et al. 2018, arXiv:1803.05407.

    Algorithm 1. Averages the parameters after step ``start`` and after every ``every``-th step from then on. Until
    then the average equals the current parameters. With ``start=1`` this is Polyak–Ruppert averaging.
    """

    start: Hyper = hyper("s", "steps before the first average")
    every: Hyper = hyper("c", "steps between averaged parameters", default=1.0, low=1.0)

    equation = "θ̄ ← θ+u if t ≤ s;  θ̄ ← (n·θ̄ + θ+u)/(n+1) where n = (t−s)/c is whole"

    def scalars(self, at):
        past, passed = at.step - self.start, at.phase(self.every, self.start)
        n = jnp.round((past - passed) / self.every)
        counts = (past >= 0) & (passed < 1)
        return jnp.where(counts, 1 / (jnp.maximum(n, 0.0) + 1), jnp.where(at.step <= self.start, 1.0, 0.0))


@transform
class slow_weights(Average):
    """Lookahead: pull the parameters back to an average of past ones. Zhang et al. 2019, arXiv:1907.08610.

    Algorithm 1: the parameters are its fast weights, and the average is its slow weights. Earlier links
    keep their state at a synchronization: to reset it there, wrap them in `restart`.
    """

    sync_period: Hyper = hyper("k", "steps from one synchronization to the next", default=6.0, low=1.0)
    slow_step_size: Hyper = hyper("α", "step size of the slow weights", default=0.5, high=1.0, closed=True)

    equation = "φ ← φ + α(θ+u−φ), u ← φ − θ where t mod k = 0"

    def scalars(self, at):
        return at.phase(self.sync_period) < 1

    def leaf(self, u, slot, p, sync):
        slow = slot.average + self.slow_step_size * (p + u - slot.average)
        return jnp.where(sync, slow - p, u), {"average": jnp.where(sync, slow, slot.average)}


def read_average(tx: Transformation, params: Params, state: State, name: str | None = None) -> Params:
    """The average that `ema_params`, `swa` or `slow_weights` keeps, in the parameters' dtypes.

    The link may be in a chain within another link. Parameters without an average are returned
    unchanged. If several links keep an average, ``name`` is the name of one of them, such as ``"ema_params"``, or
    ``"accumulate/ema_params"`` if an inner chain has a link of the same name.

    ``params`` may be a model of flax.nnx, and ``state`` that of its optimizer: the result is then a model too, which
    shares the variables that are not trained.

    Errors: ``KeyError`` unless there is exactly one such link, or one with this name.

    >>> import jax, chainax as cx
    >>> tx, params = cx.chain(cx.sgd(1.0), cx.ema_params(0.5)), jax.numpy.array(0.0)
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     params, state = tx.step(params, state, jax.numpy.array(-3.0))
    >>> params.item(), cx.read_average(tx, params, state).item()
    (6.0, 5.0)
    """
    trained, state = as_plain("read_average(tx, params, state)", tx, params, state)
    found = search(tx, trained.params, state, _average)
    if not found:
        raise PlainKeyError("the chain keeps no average of the parameters: append ema_params(0.999) to it")
    return trained.put_back(fill_holes(select(found, name, "an average"), trained.params))


def _average(link: Any, params: Params, entry: PyTree) -> PyTree | None:
    """Copies of the averages, since the next step may reuse the state's memory; ``None`` if the link keeps none."""
    if link.slots != ("average",):
        return None
    flat = flatten(params)

    def read(path: str, p: Leaf, x: PyTree) -> jax.Array:
        form = link.formats.of("average", path, jnp.shape(p)) if link.formats else None
        shape = jnp.shape(p) + (2,) * jnp.iscomplexobj(p)
        return jnp.array(from_real(widened(x, shape, compute_dtype(dtype_of(p)), form), dtype_of(p)))

    leaves = zip(flat.paths, flat.leaves, flat.line_up("The averages", entry["average"]))
    return flat.build([read(*leaf) if is_trainable(leaf[1]) and leaf[2] is not None else None for leaf in leaves])
