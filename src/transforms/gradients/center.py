"""Links that center, clean or project updates."""

from __future__ import annotations

import jax.numpy as jnp

from ...core.facade.link import Leafwise, transform
from ...core.values.value import static


@transform
class centralize(Leafwise):
    """Subtract the mean of each unit's gradient. Yong et al. 2020, arXiv:2004.01461, equation 1.

    A unit's weights extend along all axes but ``axis``, which is the last for kernels [in, out] or
    [height, width, in, out]. Use axis 0 for kernels [out, in], as Optax does.
    Leaves with fewer than two axes are unchanged. A complex leaf has an additional last axis of size 2.
    """

    axis: int = static("axis that indexes the units", default=-1)

    equation = "u ← u − mean(u) for each unit"

    def check(self) -> None:
        if type(self.axis) is not int:
            raise ValueError(f"`centralize.axis` must be a whole number, got {self.axis!r}")

    def leaf(self, u, slot, p, scalars):
        if u.ndim < 2 or not u.size:
            return u
        if not -u.ndim <= self.axis < u.ndim:
            raise ValueError(
                f"`centralize.axis` is {self.axis}, but an update of shape {list(u.shape)} has no such axis"
            )
        return u - jnp.mean(u, [i for i in range(u.ndim) if i != self.axis % u.ndim], keepdims=True)


@transform
class zero_nans(Leafwise):
    """Replace NaN by 0. Infinite numbers are unchanged. To skip the entire step, see `skip_nonfinite`."""

    equation = "u ← 0 where u is NaN"
    role = "clean"

    def leaf(self, u, slot, p, scalars):
        return jnp.where(jnp.isnan(u), 0.0, u)


@transform
class keep_params_nonnegative(Leafwise):
    """Clip parameters that would become negative to 0. Place it after `scale_by_lr`.

    For complex parameters this applies to both parts.
    """

    equation = "u ← max(u, −θ)"
    role = "project"
    hides_infinite = True
    reads_params = True

    def leaf(self, u, slot, p, scalars):
        return jnp.maximum(u, -p)
