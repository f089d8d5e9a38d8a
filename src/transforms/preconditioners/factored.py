"""Second moments in less memory than a slot of the parameter's shape: per row, column or axis."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from ...core.facade.link import Leafwise, slot_like, transform
from ...core.values.hyper import Hyper, OptionalHyper, hyper
from ...core.values.numerics import is_zero, mul, safe_div, sqrt
from ...core.values.tree import not_divided, replicated, to_real
from ...core.values.value import static


@transform
class scale_by_factored_rms(Leafwise):
    """Divide by a root mean square that is stored as row and column means.

    Shazeer & Stern 2018, arXiv:1804.04235, Algorithms 4 and 5, with the β₂ of section 7.2. The
    factored axes of a leaf are the two largest, as in Optax, or the last two, as in PyTorch; the
    paper has matrices only. Vectors, and leaves whose smaller factored axis has fewer than
    ``min_dim_size_to_factor`` entries, have a full mean square. ``b2`` sets the decay itself, such as a schedule that
    stays below 1. ``step_offset`` restarts its rise, for fine-tuning with the state of an earlier run.
    """

    decay_rate: Hyper = hyper("c", "how fast the decay of the means approaches 1", default=0.8)
    eps: Hyper = hyper("ε", "added to the squares", default=1e-30)
    min_dim_size_to_factor: int = static("smallest size of an axis that is factored", default=128, least=1)
    factored: str = static("which axes are factored", default="largest", one_of=("largest", "last"))
    step_offset: Hyper = hyper("t₀", "steps that the decay does not count", default=0.0)
    b2: OptionalHyper = hyper("β", "decay of the means", default=None, high=1.0, optional=True)

    slots = ("nu_row", "nu_col", "nu")  # E[u²] by row and by column, or by entry; unused ones are a 0
    nonnegative = slots
    equation = (
        "R ← βR + (1−β)(row means of u² + ε),  C ← βC + (1−β)(column means of u² + ε),  u ← u / √(RCᵀ/mean(R)),  "
        "β = 1 − max(t−t₀, 1)^(−c) if not given"
    )
    role = "precondition"

    def init_leaf(self, p):
        zeros = slot_like(p)
        real = to_real(zeros, zeros.real.dtype)  # its means are placed on the devices of the leaf
        if axes := self.row_and_column(real.shape):
            row, col = axes
            return {"nu_row": real.mean(col), "nu_col": real.mean(row), "nu": jnp.zeros((), real.dtype)}
        return {"nu_row": jnp.zeros((), real.dtype), "nu_col": jnp.zeros((), real.dtype), "nu": zeros}

    def row_and_column(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """The axes that index rows and columns, or ``None`` if the leaf is not factored."""
        axes = range(len(shape))
        if self.factored == "largest":
            axes = sorted(axes, key=lambda i: shape[i])
        axes = tuple(axes)[-2:]
        return axes if len(axes) == 2 and min(shape[i] for i in axes) >= self.min_dim_size_to_factor else None

    def scalars(self, at):
        if self.b2 is not None:
            return 1 - self.b2
        if is_zero(self.step_offset):
            return at.step**-self.decay_rate
        t = at.step - self.step_offset
        return jnp.where(t > 1, t, 1.0) ** -self.decay_rate  # at t = 1 the derivative is 0, that for a growing t₀

    def leaf(self, u, slot, p, fresh):
        def mean(old: jax.Array, new: jax.Array) -> jax.Array:
            return (1 - fresh) * old + fresh * new

        squares = jnp.square(u) + self.eps
        if (axes := self.row_and_column(u.shape)) is None:
            v = mean(slot.nu, squares)
            return u / sqrt(v), {"nu_row": slot.nu_row, "nu_col": slot.nu_col, "nu": v}
        row, col = axes
        # Keeps their sums finite: mean(R) = ∞ would make every row NaN.
        most = jnp.finfo(u.dtype).max / max(1, u.size)
        R = mean(slot.nu_row, jnp.minimum(squares.mean(col), most))
        C = mean(slot.nu_col, jnp.minimum(squares.mean(row), most))
        rows = jnp.expand_dims(R, col)
        # Separate roots: ε², and a small row divided by a very large mean, would underflow under one root.
        size = sqrt(rows) / sqrt(rows.mean(row, keepdims=True)) * sqrt(jnp.expand_dims(C, row))
        return u / size, {"nu_row": R, "nu_col": C, "nu": slot.nu}


@transform
class scale_by_sm3(Leafwise):
    """Divide by the root of a bound on the sum of squares, kept by axis. Anil et al. 2019, arXiv:1901.11150, SM3-II.

    The sets that cover a leaf are its slices along each axis, and an entry's bound is the minimum over its
    slices. For a vector, where each entry has its own sum, SM3 is Adagrad. With β₂ < 1 squares are averaged, as in the
    published code and Optax; in pytorch_optimizer a slice's ν then never decreases.
    """

    eps: Hyper = hyper("ε", "added to the bound, inside the root", default=0.0)
    b2: Hyper = hyper("β₂", "decay of the bound", default=1.0, high=1.0, closed=True)

    slots = ("nu",)  # the bounds of the slices, axis by axis
    nonnegative = slots
    equation = (
        "v = β₂·min over the slices of ν + (1−β₂, or 1 if β₂ = 1)·u²,  ν ← max of v in each slice,  "
        "u ← u / √(v + ε), 0 if that is 0/0"
    )
    role = "precondition"

    def init_leaf(self, p):
        zeros = slot_like(p)
        real = to_real(zeros, zeros.real.dtype)
        # Sums, which XLA simplifies. It would evaluate maxima of zeros at compile time, 4 s for a million.
        return {
            "nu": zeros
            if real.ndim < 2
            else jnp.concatenate([replicated(real.sum(others)) for others in _others(real)])
        }

    def leaf(self, u, slot, p, scalars):
        if u.ndim < 2:
            nu = v = self.added(slot.nu, jnp.square(u))
        else:
            ends = [sum(u.shape[:i]) for i in range(1, u.ndim)]
            bounds = [jnp.expand_dims(x, others) for x, others in zip(jnp.split(slot.nu, ends), _others(u))]
            v = self.added(functools.reduce(jnp.minimum, bounds), jnp.square(u))
            nu = _largest(v)
        return safe_div(u, sqrt(v + self.eps)), {"nu": nu}

    def added(self, bound: jax.Array, square: jax.Array) -> jax.Array:
        """The next sum of squares, or their mean."""
        if isinstance(self.b2, float) and self.b2 == 1:
            return bound + square
        return mul(self.b2, bound) + mul(jnp.where(self.b2 < 1, 1 - self.b2, 1.0), square)


def _largest(v: jax.Array) -> jax.Array:
    """The largest entry of each slice, axis by axis."""
    return not_divided(jnp.concatenate([replicated(v.max(others, initial=0.0)) for others in _others(v)]))


def _others(v: jax.Array) -> list[tuple[int, ...]]:
    """For each axis, all other axes, along which its slices extend."""
    return [tuple(j for j in range(v.ndim) if j != i) for i in range(v.ndim)]
