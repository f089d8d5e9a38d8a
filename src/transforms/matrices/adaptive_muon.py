"""Muon with a second moment: of the orthogonalized momentum, or of the gradient's norm."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from ...core.facade.link import transform
from ...core.facade.matrixwise import Matrixwise
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import averaged, norm, over_root, sqrt
from ...core.values.value import derived, static
from .muon import SIZES, dtype_field, iteration_field, scale_by_muon, sized, sizing_field
from .polar import polar


@transform
class scale_by_normuon(scale_by_muon):
    """Muon with updates of equal size for all outputs of a layer. Li et al. 2025, arXiv:2510.05491, Algorithm 1.

    The orthogonalized momentum is divided by a root mean square that is kept for each output, and then brought back to
    its norm, as in the published code. In the paper the update's norm is 0.2√(mn), which it nearly is with
    ``sizing="rms"``.
    """

    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.95, high=1.0)
    eps_rms: Hyper = hyper("ε₂", "added to the root mean square, and to the norm", default=1e-10)

    slots = ("mu", "nu")  # and E[X²] by output
    nonnegative = ("nu",)
    factors = ("nu",)
    either_way = False
    takes_complex = False

    @derived
    def equation(self) -> str:
        return (
            f"m ← βm + (1−β)u,  X = polar factor of {self.ahead}, its norm plus ε,  "
            f"v ← β₂v + (1−β₂)(column means of X²),  w = X / (√v + ε₂),  "
            f"u ← {sized(self.sizing, 'w')}·‖X‖ / (‖w‖ + ε₂)"
        )

    def init_matrix(self, m, n, dtype):
        return {"nu": jnp.zeros((n,), dtype)}

    def matrix(self, M, slot, scalars):
        X = polar(M, self.iteration, self.eps, self.dtype)
        v = averaged(slot.nu, jnp.square(X).mean(0), self.b2)
        w = X / (sqrt(v) + self.eps_rms)[None]
        return w * (norm(X) / (norm(w) + self.eps_rms)), {"nu": v}


@transform
class scale_by_adamuon(scale_by_muon):
    """Adam's division by the root mean square, of Muon's orthogonalized momentum. Si et al. 2025, arXiv:2507.11005.

    Algorithm 1 of the first version, with learning rates of AdamW's size. The second version orthogonalizes the
    momentum's sign: ``chain(ema(0.95, ...), scale_by_sign(), scale_by_adamuon(momentum=0.0))``.
    """

    nesterov: bool = static("look ahead by one step", default=False, one_of=(False, True))
    sizing: str = sizing_field("rms")
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.95, high=1.0)
    eps_rms: Hyper = hyper("ε₂", "added to the root mean square, and to the norm", default=1e-10)

    slots = ("mu", "nu")  # and E[X²]
    nonnegative = ("nu",)
    matrix_slots = ("nu",)
    takes_complex = False
    fixes_norm = True

    @derived
    def equation(self) -> str:
        return (
            f"m ← βm + (1−β)u,  X = polar factor of {self.ahead}, its norm plus ε,  v ← β₂v + (1−β₂)X²,  "
            f"w = X / (√v̂ + ε₂),  u ← {sized(self.sizing, 'w')}·√min(m, n) / (‖w‖ + ε₂)"
        )

    def scalars(self, at):
        return *super().scalars(at), at.debias(self.b2)

    def matrix(self, M, slot, scalars):
        X = polar(M, self.iteration, self.eps, self.dtype)
        v = averaged(slot.nu, jnp.square(X), self.b2)
        w = over_root(X, v * scalars[-1], self.eps_rms)
        return w * (math.sqrt(min(M.shape)) / (norm(w) + self.eps_rms)), {"nu": v}


@transform
class scale_by_adago(Matrixwise):
    """Muon with AdaGrad's step size for each matrix. Zhang et al. 2025, arXiv:2509.02981, Algorithm 1.

    The paper bounds the learning rate times the factor from below, so its lower bound is the learning rate times
    ``floor`` here.
    """

    momentum: Hyper = hyper("β", "decay of the momentum", default=0.95, high=1.0)
    gamma: Hyper = hyper("γ", "bound on the norm of a gradient", default=10.0)
    floor: Hyper = hyper("c", "lower bound on the factor", default=1e-2)
    initial_accumulator_value: Hyper = hyper("v₀", "sum of squares at the start", default=1e-12, open=True)
    eps: Hyper = hyper("ε", "added to the norm", default=1e-7)
    iteration: Any = iteration_field()
    sizing: str = sizing_field("none")
    dtype: str | None = dtype_field()

    slots = ("mu", "nu")  # E[u], and the sum of ‖u‖²
    matrix_slots = ("mu",)
    factors = ("nu",)
    nonnegative = ("nu",)
    role = "precondition"

    @derived
    def equation(self) -> str:
        return (
            "m ← βm + (1−β)u,  s = min(‖u‖, γ),  v ← v + s² from v₀,  "
            f"u ← {sized(self.sizing, 'max(s/√v, c)')}·polar factor of m, its norm plus ε"
        )

    def init_matrix(self, m, n, dtype):
        return {"nu": jnp.full((), self.initial_accumulator_value, dtype)}

    def matrix(self, M, slot, scalars):
        m = averaged(slot.mu, M, self.momentum)
        s = jnp.minimum(norm(M), self.gamma)
        v = slot.nu + jnp.square(s)
        u = jnp.maximum(s / sqrt(v), self.floor) * polar(m, self.iteration, self.eps, self.dtype)
        return u, {"mu": m, "nu": v}

    def size(self, m, n):
        return SIZES[self.sizing][1](m, n)
