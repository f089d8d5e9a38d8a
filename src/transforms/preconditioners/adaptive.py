"""Variants of Adam's denominator: measures of gradient size other than the root mean square."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ...core.facade.link import Leafwise, slot_like, transform
from ...core.values.hyper import Hyper, OptionalHyper, hyper
from ...core.values.numerics import averaged, is_zero, mul, one_minus_power, over_root, root, sqrt
from ...core.values.tree import leaf_sum, to_real
from ...core.values.value import derived, static
from .adam import MOMENTS, scale_by_adam


@transform
class scale_by_adamax(Leafwise):
    """Adam with a decaying maximum in place of the root mean square. Kingma & Ba 2015, arXiv:1412.6980, Algorithm 2.

    Departs from the paper as PyTorch does: ε is added to each magnitude.
    """

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the maximum", default=0.999, high=1.0)
    eps: Hyper = hyper("ε", "floor of the maximum", default=1e-8)

    slots = ("mu", "nu")  # E[u], max |u|
    holds = {"mu": "E[u]"}
    nonnegative = ("nu",)
    equation = "m ← β₁m + (1−β₁)u,  v ← max(β₂v, |u| + ε),  u ← m̂ / v"
    role = "precondition"

    def scalars(self, at):
        return at.debias(self.b1)

    def leaf(self, u, slot, p, debias):
        m = averaged(slot.mu, u, self.b1)
        v = jnp.maximum(self.b2 * slot.nu, jnp.abs(u) + self.eps)
        return m * debias / v, {"mu": m, "nu": v}


@transform
class scale_by_belief(scale_by_adam):
    """Adam divided by the deviation of gradients from their mean. Zhuang et al. 2020, arXiv:2010.07468, Algorithm 2.

    Gradients close to their mean make large steps.
    """

    b2: Hyper = hyper("β₂", "decay of the mean squared deviation", default=0.999, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-16)
    eps_root: OptionalHyper = hyper(
        "ε̄", "added to the mean square at every step; None for ε", default=None, optional=True, kw_only=True
    )

    holds = {"mu": "E[u]"}
    equation = "m ← β₁m + (1−β₁)u,  s ← β₂s + (1−β₂)(u−m)² + ε̄,  u ← m̂ / (√ŝ + ε),  ε̄ = ε if not given"

    def leaf(self, u, slot, p, debias, /):
        m, s = self.moments(u, slot)
        m_hat, s_hat = mul(m, debias[0]), mul(s, debias[1])
        return over_root(m_hat, s_hat, self.eps), {"mu": m, "nu": s}

    def moments(self, u, slot):
        m = averaged(slot.mu, u, self.b1)
        eps_root = self.eps if self.eps_root is None else self.eps_root
        # The old mean is the last summand: XLA would compute a sum that ends in ε twice, and copy the mean for it.
        s = self.b2 * slot.nu + ((1 - self.b2) * jnp.square(u - m) + eps_root)
        return m, s


@transform
class scale_by_acprop(scale_by_belief):
    """Divide each gradient by the deviation of the previous ones. Zhuang et al. 2021, arXiv:2110.05454, Algorithm 2.

    This makes numerator and denominator independent. As in the published code, the bias is corrected and
    the first update is the gradient itself. Optax uses the previous m, so its s is
    1/β₁² times as large.
    """

    lagged = ("nu",)
    holds = {"mu": "E[u]"}
    equation = (
        "u₊ = u / (√ŝ + ε), or u where s = 0,  m ← β₁m + (1−β₁)u,  s ← β₂s + (1−β₂)(u−m)² + ε̄,  u ← u₊,  "
        "ε̄ = ε if not given"
    )

    def scalars(self, at):
        return at.step == 1, 1 / one_minus_power(self.b2, jnp.maximum(at.step - 1, 1))

    def leaf(self, u, slot, p, scalars):
        first, debias = scalars
        m, s = self.moments(u, slot)
        # The `where` is in the denominator: u/ε may overflow, which would make derivatives NaN.
        size = jnp.where(first | (slot.nu == 0), 1.0, sqrt(slot.nu * debias) + self.eps)
        return u / size, {"mu": m, "nu": s}


@transform
class scale_by_yogi(scale_by_adam):
    """Adam whose mean square changes by at most (1−β₂)u² per step. Zaheer et al. 2018, Algorithm 2.

    "Adaptive methods for nonconvex optimization", NeurIPS. Departs from it as Optax does: the bias is
    corrected; ``debias=False`` is the paper's form. Optax also starts the mean at v₀;
    here it starts at 0, as in the paper.
    """

    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-3)
    initial_accumulator_value: Hyper = hyper("v₀", "initial mean square", default=1e-6)
    debias: bool = static("correct the moments for bias", default=True, one_of=(False, True))

    holds = {"mu": "E[u]"}

    @derived
    def equation(self) -> str:
        ratio = "m̂ / (√(v̂+ε̄) + ε)" if self.debias else "m / (√(v+ε̄) + ε)"
        return f"m ← β₁m + (1−β₁)u,  v ← v − (1−β₂)·sign(v − u²)·u² from v₀,  u ← {ratio}"

    def init_leaf(self, p):
        return {"mu": slot_like(p), "nu": slot_like(p, self.initial_accumulator_value)}

    def scalars(self, at):
        return super().scalars(at) if self.debias else (1.0, 1.0)

    def moments(self, u, slot):
        m = averaged(slot.mu, u, self.b1)
        v = slot.nu - (1 - self.b2) * jnp.sign(slot.nu - jnp.square(u)) * jnp.square(u)
        return m, v


@transform
class scale_by_radam(scale_by_adam):
    """Adam that uses its denominator once it averages enough squares. Liu et al. 2020, arXiv:1908.03265, Algorithm 2.

    r is √((ρ−4)(ρ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρ)). The paper has ρ₀ = 4 and no ε; these are as in its
    code and PyTorch.
    """

    threshold: Hyper = hyper("ρ₀", "the number of squares that is enough", default=5.0, low=4.0)

    holds = MOMENTS
    equation = (
        "m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  ρ∞ = 2/(1−β₂) − 1,  ρ = ρ∞ − 2tβ₂ᵗ/(1−β₂ᵗ),  "
        "u ← r·√(1−β₂ᵗ)·m̂ / (√(v+(1−β₂ᵗ)ε̄) + ε) if ρ > ρ₀ else m̂"
    )

    def scalars(self, at):
        rho, limit = self.length(at), 2 / (1 - self.b2) - 1
        enough = rho > self.threshold
        # Otherwise both may be negative or 0, and the derivative of the root NaN.
        rho, limit = (jnp.where(enough, x, 6.0) for x in (rho, limit))
        r = jnp.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
        eps_root = 0.0 if is_zero(self.eps_root) else self.eps_root * one_minus_power(self.b2, at.step)
        return at.debias(self.b1), r / jnp.sqrt(at.debias(self.b2)), enough, eps_root

    def length(self, at) -> jax.Array:
        """ρ, the length of the simple average that approximates v."""
        t, b2 = at.step, self.b2
        far = 2 / (1 - b2) - 1 - 2 * t * (at.debias(b2) - 1)
        # In early steps this is a small difference of large numbers. With x = −log β₂ it is
        # 1 + 2/(eˣ−1) − 2t/(eᵗˣ−1), and 2/(eʸ−1) = 2/y − 1 + y/6 − y³/360 + ...
        x = -(math.log(max(b2, 0.5)) if isinstance(b2, float) else jnp.log(jnp.maximum(b2, 0.5)))
        near = t - (t**2 - 1) * x / 6 + (t**4 - 1) * x**3 / 360
        return jnp.where(t * x < 0.05, near, far)

    def leaf(self, u, slot, p, scalars):
        debias, r, enough, eps_root = scalars
        m, v = self.moments(u, slot)
        m_hat = m * debias
        return jnp.where(enough, over_root(r * m_hat, v, self.eps, eps_root), m_hat), {"mu": m, "nu": v}


@transform
class scale_by_stable_adam(scale_by_adam):
    """Adam, scaled down leaf by leaf where v̂ lags behind the gradient. Wortsman et al. 2023, arXiv:2304.13013.

    StableAdamW, Algorithm 2, with Adafactor's update clipping: RMS is the root mean square of
    the leaf. Departs from it in that a decay that follows is not scaled down.
    """

    holds = MOMENTS
    equation = "m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  u ← m̂ / (r + ε) / max(1, RMS(u / max(r, ε))),  r = √(v̂+ε̄)"

    def leaf(self, u, slot, p, debias):
        m, v = self.moments(u, slot)
        r = root(v * debias[1], self.eps_root)
        excess = _mean_square(u / jnp.maximum(r, self.eps))
        scale = debias[0] / sqrt(jnp.maximum(1.0, excess))
        return scale * m / (r + self.eps), {"mu": m, "nu": v}


@transform
class scale_by_running_norm(Leafwise):
    """Divide each leaf by its running norm. Ginsburg et al. 2019, arXiv:1905.11286: NovoGrad's second moment."""

    b2: Hyper = hyper("β₂", "decay of the mean squared norm", default=0.25, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-8)
    eps_root: Hyper = hyper("ε̄", "added to the mean squared norm, inside the root", default=0.0)

    slots = ("nu",)  # E[‖u‖²], a scalar for each leaf
    nonnegative = ("nu",)
    equation = "v ← β₂v + (1−β₂)‖u‖², v₁ = ‖u₁‖²,  u ← u / (√(v+ε̄) + ε)"
    role = "precondition"
    knows_shards = True

    def init_leaf(self, p):
        return {"nu": jnp.zeros((), slot_like(p).real.dtype)}

    def scalars(self, at):
        first = at.step == 1
        return jnp.where(first, 0.0, self.b2), jnp.where(first, 1.0, 1 - self.b2)

    def leaf(self, u, slot, p, scalars):
        keep, take = scalars
        v = keep * slot.nu + take * leaf_sum(jnp.square(u))
        return over_root(u, v, self.eps, self.eps_root), {"nu": v}


@transform
class scale_by_adam_mini(scale_by_adam):
    """Adam with one mean square for each block of a leaf. Zhang et al. 2025, arXiv:2406.16793, Algorithm 1.

    ``block_axes`` are the axes that index the blocks: (1,) gives a block for each output neuron of a kernel [in, out],
    or for each head of [model, head, key]; (0,) a block for each word of an embedding [word, model]. Leaves
    without such an axis are one block, which is the default for all.
    """

    block_axes: tuple[int, ...] = static("axes of a leaf that index its blocks", default=())

    holds = {"mu": "E[u]"}

    @derived
    def meanings(self) -> Mapping[str, object]:
        return {"nu": self.block_axes}

    equation = "m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)·mean(u² in the block),  u ← m̂ / (√(v̂+ε̄) + ε)"

    def check(self) -> None:
        axes = self.block_axes
        if not isinstance(axes, tuple) or not all(type(axis) is int and axis >= 0 for axis in axes):
            raise ValueError(
                f"`scale_by_adam_mini.block_axes` must be a tuple of axes, counted from the front, got {axes!r}"
            )

    def init_leaf(self, p):
        zeros = slot_like(p)
        # A mean instead of new zeros, so that the blocks are placed on the devices of the leaf.
        return {"mu": zeros, "nu": self.mean_square(to_real(zeros, zeros.real.dtype))}

    def mean_square(self, u) -> jax.Array:
        """The mean square of each block."""
        return _mean_square(u, tuple(i for i in range(u.ndim) if i not in self.block_axes))

    def leaf(self, u, slot, p, debias):
        m = averaged(slot.mu, u, self.b1)
        v = averaged(slot.nu, self.mean_square(u), self.b2)
        size = root(v * debias[1], self.eps_root) + self.eps
        size = size.reshape([n if i in self.block_axes else 1 for i, n in enumerate(u.shape)])
        return m * debias[0] / size, {"mu": m, "nu": v}


def _mean_square(u: jax.Array, axes: tuple[int, ...] | None = None) -> jax.Array:
    """The mean square along axes, by default all; 0 for an empty array."""
    total = jnp.sum(jnp.square(u), axes)
    return total / max(1, u.size // max(1, total.size))
