"""Schedule-free learning: an average of the parameters instead of a decreasing learning rate."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...core.engine.checks import as_plain
from ...core.engine.protocol import LinkLike
from ...core.engine.state import State
from ...core.engine.step_info import StepInfo
from ...core.facade.link import transform
from ...core.facade.transformation import Transformation
from ...core.values.contents import code, is_array
from ...core.values.errors import PlainKeyError
from ...core.values.hyper import evaluate
from ...core.values.numerics import safe_div
from ...core.values.tables import Table
from ...core.values.tree import flatten
from ...core.values.types import DType, Params, PyTree, Updates
from ...core.values.value import Number, child, number
from ..shared.vector import Space
from ..shared.whole import Moving, check_guards, copied, unless_rejected
from ..shared.wrappers import Wrapper, fill_holes, forwarded_arguments, init_inner, search, select
from ..step_size.scale import scale_by_lr


@transform
class schedule_free(Wrapper):
    """Take gradients between the point that a chain moves, z, and its mean, x. Defazio et al. 2024, arXiv:2405.15682.

    The parameters are y = (1−β)z + βx. Evaluate at x, which `schedule_free_eval_params` returns. The
    chain is Algorithm 1's step without momentum, with a constant learning rate after a warm-up. γ is
    the chain's learning rate, or 1 if it has none. Optax and the published code use the largest γ so far
    instead.

    >>> import chainax as cx
    >>> tx = cx.schedule_free(cx.chain(cx.scale_by_rms(), cx.scale_by_lr(1e-3)))
    """

    tx: Transformation = child("the chain that moves z")
    b1: Number = number("weight of the mean in the parameters", symbol="β", default=0.9, low=0.0, high=1.0, closed=True)
    weight_lr_power: Number = number("power of the rate in the weight of a step", symbol="p", default=2.0, low=0.0)

    passes_updates = False
    slots = ("z", "own_total")  # z, and Σγ^p for parameters that joined late
    absent = {"own_total": None}
    moves_params = False
    reads_params = True
    equation = "z ← z + tx(u),  c = γ^p/Σγ^p,  x ← (1−c)x + cz,  θ ← (1−β)z + βx"

    def check(self) -> None:
        super().check()
        check_guards("schedule_free.tx", self.tx)
        if not is_array(self.b1) and self.b1 == 0:
            raise ValueError("`schedule_free.b1` must be above 0: x could not be recovered from y")
        for name, link in self._rates.items():
            if isinstance(link.learning_rate, Table):
                raise ValueError(
                    f"`schedule_free` weighs steps by one learning rate, got {code(link.learning_rate)} in {name!r}: "
                    "put scale(by_path(...)) before it for the ratios"
                )

    @property
    def _rates(self) -> dict[str, scale_by_lr]:
        return {name: link for name, link in self.tx.links.items() if isinstance(link, scale_by_lr)}

    def init_tree(self, params):
        space = Space(params)
        zero = jnp.zeros((), space.dtype)
        own = space.keep([jnp.copy(zero) for _ in space.paths])
        return {"tx": init_inner(self.tx, params), "z": copied(params), "total": zero, "own_total": own}

    def update_tree(self, updates, state, params, at):
        w, inner = self.tx.update(updates, state["tx"], params, **forwarded_arguments(self.tx, at.extra))
        return unless_rejected(
            self.tx, inner, state, updates, params, lambda _: self.mixed(w, updates, state, params, at)
        )

    def mixed(
        self, w: Updates, updates: Updates, state: PyTree, params: Params, at: StepInfo
    ) -> tuple[Updates, dict[str, PyTree]]:
        """The update of y for the chain's updates ``w`` of z, and the next state without the chain's."""
        space = Moving(updates, params, at.dtype)
        y, z, w = map(space.read, (params, state["z"], w))
        late = space.each(at, lambda own: None if own is at else own.count - 1)
        weight = self.weight(state["tx"].step, at.dtype)
        total = state["total"].astype(at.dtype) + weight
        weights = [weight if own is None else self.weight(state["tx"].step, at.dtype, own) for own in late]
        totals = [old if own is None else old + w for own, old, w in zip(late, space.read(state["own_total"]), weights)]
        common = safe_div(weight, total)
        shares = [common if own is None else safe_div(w, t) for own, w, t in zip(late, weights, totals)]
        z = [b + d for b, d in zip(z, w)]
        # The change of y, with x = (y − (1−β)z)/β substituted: β cancels. It reads the new z: XLA's TPU compiler would
        # write that beside the old one, and copy it.
        u = [c * (b - a) + (1 - self.b1) * (1 - c) * d for c, a, b, d in zip(shares, y, z, w)]
        new = {"z": space.write(z, state["z"]), "total": total, "own_total": space.write(totals, state["own_total"])}
        return space.write(u, updates), new

    def weight(self, count: jax.Array, dtype: DType, own: jax.Array | None = None) -> jax.Array:
        """γ^p, for the rate of the chain's next step of a parameter that has taken ``own`` steps."""
        rate = jnp.ones((), dtype)
        for name, link in self._rates.items():
            rate = rate * evaluate(f"schedule_free.tx.{name}.learning_rate", link.learning_rate, count, dtype, own)
        moves = rate > 0
        return jnp.where(moves, jnp.where(moves, rate, 1.0) ** self.weight_lr_power, 0.0)


def schedule_free_eval_params(tx: Transformation, params: Params, state: State, name: str | None = None) -> Params:
    """The mean x of a `schedule_free` link, at which to evaluate.

    The link may be in a chain inside another link. Parameters that it does not move are returned unchanged. If there
    are several such links, ``name`` selects one: see `read_average`, also for models of flax.nnx.

    Errors: ``KeyError`` unless there is exactly one such link, or one called ``name``.

    >>> import chainax as cx
    >>> tx, params = cx.schedule_free_sgd(0.5, b1=0.5), jnp.array(1.0)
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     params, state = tx.step(params, state, jnp.array(1.0))
    >>> params.item(), cx.schedule_free_eval_params(tx, params, state).item()
    (0.125, 0.25)
    """
    trained, state = as_plain("schedule_free_eval_params(tx, params, state)", tx, params, state)
    found = search(tx, trained.params, state, _mean)
    if not found:
        raise PlainKeyError("no schedule_free link moves the parameters, so there is no mean: see schedule_free(chain)")
    return trained.put_back(fill_holes(select(found, name, "a mean"), trained.params))


def _mean(link: LinkLike, params: Params, entry: PyTree) -> Params | None:
    """x, from y = (1−β)z + βx, for the parameters that have a z."""
    if not isinstance(link, schedule_free):
        return None
    flat = flatten(params)
    kept = [None if z is None else p for p, z in zip(flat.leaves, flat.line_up("The slots 'z'", entry["z"]))]
    space = Space(flat.build(kept))
    y, z = space.read(flat.build(kept)), space.read(entry["z"])
    return space.write([a + (1 / link.b1 - 1) * (a - b) for a, b in zip(y, z)], flat.build(kept))
