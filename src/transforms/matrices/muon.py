"""Muon: the momentum of each matrix, orthogonalized."""

from __future__ import annotations

import math
from typing import Any

from ...core.facade.link import transform
from ...core.facade.matrixwise import Matrixwise
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import averaged, div, mul, one_minus_power
from ...core.values.tables import DTYPES
from ...core.values.types import PyTree, Scalars
from ...core.values.value import derived, static
from .polar import Iteration, newton_schulz, polar

SIZES = {
    "spectral": ("√max(1, n/m)", lambda m, n: math.sqrt(max(1.0, n / m))),
    "rms": ("0.2√max(m, n)", lambda m, n: 0.2 * math.sqrt(max(m, n))),
    "mup": ("√(n/m)", lambda m, n: math.sqrt(n / m)),
    "none": ("1", lambda m, n: 1.0),
}
"""The factors of an orthogonalized m × n matrix, with m inputs and n outputs."""


def _check_iteration(where: str, x: object, limits: None) -> Iteration:
    if not isinstance(x, Iteration):
        raise ValueError(f"`{where}` must be newton_schulz(...) or polar_express(...), got {x!r}")
    return x


def iteration_field() -> Any:
    """The field for the polynomials that orthogonalize."""
    return static("the polynomials that orthogonalize", default=newton_schulz(), check=_check_iteration)


def sizing_field(default: str = "spectral") -> Any:
    """The field for the factor of an orthogonalized matrix."""
    return static("the factor by the lengths of a matrix", default=default, one_of=tuple(SIZES))


def dtype_field() -> Any:
    """The field for the dtype of the iterations."""
    return static("the dtype of the iterations", default=None, one_of=(None, *DTYPES))


def sized(sizing: str, factor: str) -> str:
    """The product of the size and another factor, for equations."""
    size = SIZES[sizing][0]
    return factor if size == "1" else f"{size}·{factor}"


@transform
class orthogonalize(Matrixwise):
    """Replace each matrix UΣVᴴ by its polar factor UVᴴ: `scale_by_muon` without momentum.

    Put it after another momentum or preconditioner. The settings are those of `scale_by_muon`.
    """

    eps: Hyper = hyper("ε", "added to the norm", default=1e-7)
    iteration: Any = iteration_field()
    sizing: str = sizing_field()
    dtype: str | None = dtype_field()

    role = "precondition"
    either_way = True
    takes_complex = True
    orthogonalizes = True

    @derived
    def equation(self) -> str:
        return f"u ← {sized(self.sizing, 'polar factor')} of u, its norm plus ε"

    def matrix(self, M, slot, scalars):
        return polar(M, self.iteration, self.eps, self.dtype)

    def size(self, m, n):
        return SIZES[self.sizing][1](m, n)


@transform
class scale_by_muon(Matrixwise):
    """Orthogonalize the momentum of each matrix. Jordan et al. 2024, "Muon: An optimizer for hidden layers".

    The momentum is a moving average, as in PyTorch; with Nesterov's it is averaged with the update once more.
    ``debias`` corrects the bias of both as Optax does. For an m × n matrix, with m inputs and n outputs, ``sizing``
    is "spectral" √max(1, n/m) as in PyTorch, "rms" 0.2√max(m, n), with which learning rates are those of AdamW (Liu et
    al. 2025, arXiv:2502.16982), "mup" √(n/m) (Bernstein & Newhouse 2024, arXiv:2410.21265), or "none". ``dtype`` is
    that of the iterations: the paper's is "bfloat16". By default they have the update's, which accelerators multiply in
    bfloat16 or TF32 too unless `jax.default_matmul_precision` is higher. Complex matrices keep their own.
    """

    momentum: Hyper = hyper("β", "decay of the momentum", default=0.95, high=1.0)
    eps: Hyper = hyper("ε", "added to the norm", default=1e-7)
    nesterov: bool = static("look ahead by one step", default=True, one_of=(False, True))
    debias: bool = static("correct the bias of the momentum", default=False, one_of=(False, True))
    iteration: Any = iteration_field()
    sizing: str = sizing_field()
    dtype: str | None = dtype_field()

    slots = ("mu",)
    role = "precondition"
    either_way = True
    takes_complex = True
    orthogonalizes = True

    @derived
    def equation(self) -> str:
        return f"m ← βm + (1−β)u,  u ← {sized(self.sizing, 'polar factor')} of {self.ahead}, its norm plus ε"

    @property
    def ahead(self) -> str:
        """What is orthogonalized, for equations."""
        hat = "̂" if self.debias else ""
        return f"βm{hat} + (1−β)u{hat}" if self.nesterov else f"m{hat}"

    def scalars(self, at) -> Scalars:
        if not self.debias:
            return 1.0, 1.0
        ahead = at.step + 1 if self.nesterov else at.step
        return div(1, one_minus_power(self.momentum, ahead)), at.debias(self.momentum)

    def leaf(self, u, slot, p, scalars):
        of_m, of_u, *_ = scalars
        m = averaged(slot.mu, u, self.momentum)
        new = averaged(mul(of_m, m), mul(of_u, u), self.momentum) if self.nesterov else mul(of_m, m)
        return new, {"mu": m}

    def matrix(self, M, slot, scalars) -> PyTree:
        return polar(M, self.iteration, self.eps, self.dtype)

    def size(self, m, n):
        return SIZES[self.sizing][1](m, n)
