"""Rounding of parameters that are stored in less than float32."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..core.engine.rounding import ROUNDINGS, Rounding
from ..core.facade.link import Leafwise, transform
from ..core.values.contents import brief
from ..core.values.hyper import prng_seed
from ..core.values.value import derived, static


def _check_rounding(where: str, x: object, limits: None) -> str | Rounding:
    """The name of a rounding of the library, or another `Rounding`."""
    if isinstance(x, Rounding):
        return next((name for name, known in ROUNDINGS.items() if known == x), x)
    if isinstance(x, str) and x in ROUNDINGS:
        return x
    raise ValueError(f"`{where}` must be a Rounding or one of {', '.join(map(repr, ROUNDINGS))}, got {brief(x)}")


@transform
class apply_update(Leafwise):
    """Specify how `step` rounds parameters that are stored in less than float32. Put this link last in a chain.

    Without this link `step` rounds to nearest, and loses updates below 1/256 of a bfloat16 parameter.

    - ``"stochastic"``: up or down, with probabilities that make the mean exact. Keeps no state. The random numbers
      depend on ``seed``, the step and the parameter's path, but not on the sharding, except for leaves with slots in
      codes on a mesh with explicit axes.
    - ``"kahan"``: the rounding error is kept in the parameter's dtype (2 bytes per parameter), and is
      added at the next step. Kahan 1965; Zamirai et al. 2020, arXiv:2010.06192.
    - ``"ecc"``: the same in 8 bits, as a fraction of the largest possible error: with bfloat16, 3 bytes for
      16 bits of mantissa.
    - ``"master"``: the state has a float32 copy of the parameters (4 bytes). Micikevicius et al. 2018,
      arXiv:1710.03740. If you change a parameter yourself, the copy is replaced by the new value.
    - a `Rounding` of your own.

    All links of the chain see the sum of the parameter and its rounding residual. Parameters in float32 or wider are
    not affected. Use the chain with `step`: `update` does not know how the update is applied.
    """

    rounding: str | Rounding = static("the rounding", default="nearest", check=_check_rounding)
    seed: Any = prng_seed("seed of a random rounding")

    equation = "θ ← round(θ + u)"
    role = "apply"
    reads_params = True

    @derived
    def final_rounding(self) -> Rounding:
        return self.rounding if isinstance(self.rounding, Rounding) else ROUNDINGS[self.rounding]

    @derived
    def slots(self) -> tuple[str, ...]:
        slot = self.final_rounding.slot
        return () if slot is None else (slot,)

    def init_leaf(self, p):
        if jnp.finfo(p.dtype).bits >= 32:
            return None
        return {slot: self.final_rounding.init_residual(p) for slot in self.slots}
