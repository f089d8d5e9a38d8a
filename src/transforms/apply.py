"""How a chain's update is added to parameters that are stored in less than float32."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..core.engine.rounding import ROUNDINGS, Rounding
from ..core.facade.link import Leafwise, transform
from ..core.values.contents import brief
from ..core.values.hyper import prng_seed
from ..core.values.value import derived, static


def _check_rounding(where: str, x: Any, limits: Any) -> str | Rounding:
    """A rounding of the library by its name, one of your own as it is."""
    if isinstance(x, Rounding):
        return next((name for name, known in ROUNDINGS.items() if known == x), x)
    if isinstance(x, str) and x in ROUNDINGS:
        return x
    raise ValueError(f"`{where}` must be a Rounding or one of {', '.join(map(repr, ROUNDINGS))}, got {brief(x)}")


@transform
class apply_update(Leafwise):
    """End a chain: say how `step` rounds parameters that are stored in less than float32.

    Without this link it rounds to the nearest, and loses updates under 1/256 of a bfloat16 parameter.

    - ``"stochastic"``: up or down, with the chances that make the mean exact. Keeps no state. The draw
      depends on ``seed``, the step and the parameter's path, and is the same on any sharding.
    - ``"kahan"``: what rounding takes is remembered in the parameter's dtype (2 bytes a parameter), and
      counts at the next step. Kahan 1965; Zamirai et al. 2020, arXiv:2010.06192.
    - ``"ecc"``: the same in 8 bits, as a fraction of what rounding can take: with bfloat16, 3 bytes for
      16 bits of mantissa.
    - ``"master"``: the parameters in float32 are kept in the state (4 bytes). Micikevicius et al. 2018,
      arXiv:1710.03740. Where you set a parameter yourself, what you set counts.
    - a `Rounding` of your own.

    All links of the chain see the parameter with its rounding residual. Parameters in float32 or wider are
    left alone. The chain must be used by `step`: `update` does not know how the update is applied.
    """

    rounding: str | Rounding = static("how", default="nearest", check=_check_rounding)
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
