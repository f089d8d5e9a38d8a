"""Clipping each example's gradient separately, with noise for privacy.

The incoming updates have a leading axis of examples, as returned by ``jax.vmap(jax.grad(loss), (None, 0))``, and
the outgoing ones are their mean. Such a link comes first in a chain.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...core.facade.link import Treewise, transform
from ...core.values.hyper import Hyper, as_key, hyper, prng_seed
from ...core.values.tree import drawn_like, global_norm
from ...core.values.types import Scalar
from ...core.values.value import derived, static
from ..shared.vector import Space, Vector
from .blocks import bounding


@transform
class clip_per_example(Treewise):
    """Clip the global norm of each example's gradients, and average over the examples.

    The first link of a chain. Gradients have a leading axis of examples, ``(B, *shape)``, as returned by
    ``jax.vmap(jax.grad(loss), (None, 0))(params, batch)``.
    """

    max_norm: Hyper = hyper("c", "the largest norm of one example's gradients")

    equation = "u ← mean over examples i of uᵢ·min(1, c/‖uᵢ‖)"
    role = "clip"
    per_example = True
    sees_holes = True

    def update_tree(self, updates, state, params, at):
        space = Space(updates)
        return space.write(_clipped_mean(space.read(updates), self.max_norm)[0], updates), state


@transform
class clip_blocks_per_example(Treewise):
    """Clip each example's gradient leaf by leaf, and average over the examples. McMahan et al. 2018, arXiv:1812.06210.

    The first link of a chain, for gradients ``(B, *shape)``. The bounds imply a global norm of at most c.
    They are equal, or with ``uniform=False`` proportional to the square root of the leaf's size.
    """

    max_norm: Hyper = hyper("c", "the largest norm of one example's gradients")
    uniform: bool = static("give each leaf the same bound", default=True, one_of=(False, True))

    role = "clip"
    per_example = True
    sees_holes = True

    @derived
    def equation(self) -> str:
        share = "1/number of leaves" if self.uniform else "size of the leaf / size of all"
        return f"u ← mean over examples i of uᵢ·min(1, b/‖uᵢ‖) in each leaf,  b = c·√({share})"

    def update_tree(self, updates, state, params, at):
        space = Space(updates)
        leaves = space.read(updates)
        sizes = [1.0 if self.uniform else u[0].size for u in leaves]
        bounds = [self.max_norm * (size / max(1, sum(sizes))) ** 0.5 for size in sizes]
        means = [_clipped_mean([u], bound)[0][0] for u, bound in zip(leaves, bounds)]
        return space.write(means, updates), state


@transform
class differentially_private_aggregate(Treewise):
    """Clip each example's gradients, add noise, and average. Abadi et al. 2016, arXiv:1607.00133, Algorithm 1.

    The first link of a chain, for gradients ``(B, *shape)``. The noise depends only on ``seed`` and the step: a
    private run needs a secret seed. Compute the privacy budget with an accountant for the same σ.
    """

    l2_norm_clip: Hyper = hyper("C", "the largest norm of one example's gradients")
    noise_multiplier: Hyper = hyper("σ", "standard deviation of the noise on the sum, in units of C")
    seed: jax.Array | int = prng_seed("seed of the noise")

    equation = "u ← (Σᵢ uᵢ·min(1, C/‖uᵢ‖) + σC·z)/B over B examples i,  z ~ N(0, 1)"
    role = "clip"
    per_example = True
    sees_holes = True

    def update_tree(self, updates, state, params, at):
        space = Space(updates)
        means, batch = _clipped_mean(space.read(updates), self.l2_norm_clip)
        key = jax.random.fold_in(as_key("differentially_private_aggregate.seed", self.seed), at.count)
        size = self.noise_multiplier * self.l2_norm_clip / batch
        noise = [drawn_like(jax.random.normal, jax.random.fold_in(key, i), u, u.dtype) for i, u in enumerate(means)]
        return space.write([u + jnp.asarray(size, u.dtype) * z for u, z in zip(means, noise)], updates), state


def _clipped_mean(leaves: Vector, bound: Scalar) -> tuple[Vector, int]:
    """The mean over examples, each clipped to the norm ``bound``, and their number."""
    batches = {u.shape[0] for u in leaves}
    if len(batches) > 1:
        raise TypeError(
            f"The updates have {' and '.join(map(str, sorted(batches)))} examples: give all the same number"
        )
    batch = max({1, *batches})

    def mean(u: jax.Array, factors: jax.Array) -> jax.Array:
        # Not a matrix product, which accelerators compute in lower precision.
        return jnp.sum(u * factors.astype(u.dtype).reshape(-1, *[1] * (u.ndim - 1)), axis=0)

    factors = bounding(jax.vmap(global_norm)(leaves), bound) / batch if leaves else jnp.zeros(0)
    return [mean(u, factors) for u in leaves], batch
