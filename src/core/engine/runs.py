"""Runs: consecutive links that are applied in one pass over the leaves; and the tree of updates before a run."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ..values.conditions import cond, zero_where
from ..values.own_steps import has_own_steps
from ..values.tables import Table
from ..values.tree import all_finite, global_norm, max_abs
from ..values.types import Scalar
from .protocol import LinkLike, Links, is_matrixwise, is_scaling


def runs_of(links: Links) -> Iterator[Links]:
    """The runs of a chain. An empty chain has one empty run.

    A `Treewise` link is a run by itself. A link that must see all updates first, as for a global norm, begins a run. A
    `Matrixwise` link ends one.
    """
    run: dict[str, LinkLike] = {}
    for name, link in links.items():
        alone = link.treewise or any(before.treewise or is_matrixwise(before) for before in run.values())
        # A link that multiplies all leaves by one number does the same to their norm, so it need not end a run.
        if run and (alone or (link.needs_all_updates and not all(map(scales_uniformly, run.values())))):
            yield run
            run = {}
        run[name] = link
    yield run


def scales_uniformly(link: LinkLike) -> bool:
    """Whether a link multiplies the updates of all parameters by the same number."""
    fields = (getattr(link, field) for field in link._leaves)
    return is_scaling(link) and not any(isinstance(x, Table) or has_own_steps(x) for x in fields)


class AllUpdates:
    """All updates before a link: the leaves at the start of its run, times a number."""

    def __init__(self, leaves: list[jax.Array]) -> None:
        self.leaves = leaves
        self.factor: Scalar = 1.0
        self._cache: dict[str, jax.Array] = {}
        self._own: dict[str, jax.Array] = {}

    @property
    def _unscaled(self) -> bool:
        return isinstance(self.factor, float) and self.factor == 1

    def norm(self) -> jax.Array:
        if "norm" not in self._cache:
            self._cache["norm"] = global_norm(self.leaves)
        norm = self._cache["norm"]
        return norm if self._unscaled else norm * jnp.abs(self.factor)

    def finite(self) -> jax.Array:
        known = self._cache if self._unscaled else self._own
        if "finite" not in known:
            recheck = (lambda: all_finite(self.leaves)) if self._unscaled else self._largest_fits
            # The squares of finite numbers may overflow, but rarely: only then does a CPU pass over them again. XLA's
            # other compilers make one pass of the sum of squares and of the check.
            on_cpu = functools.partial(cond, jnp.isfinite(self.norm()), lambda: jnp.array(True), recheck)
            traced = isinstance(self.norm(), Tracer)
            known["finite"] = jax.lax.platform_dependent(cpu=on_cpu, default=recheck) if traced else on_cpu()
        return known["finite"]

    def _largest_fits(self) -> jax.Array:
        largest = max_abs(self.leaves)
        return jnp.isfinite(largest * jnp.abs(jnp.asarray(self.factor, largest.dtype)))

    def scaled(self, factor: Scalar) -> AllUpdates:
        new = AllUpdates(self.leaves)
        new._cache, new.factor = self._cache, factor if self._unscaled else self.factor * factor
        return new

    def zero_where(self, dropped: jax.Array | None) -> AllUpdates:
        """These updates, and what is known of them, or zeros where the result of the step is dropped."""
        new = AllUpdates(zero_where(dropped, self.leaves))
        new.factor = self.factor
        if "norm" in self._cache:
            new._cache = {"norm": _known_norm(zero_where(dropped, self._cache["norm"]), new.leaves)}
        return new


@jax.custom_jvp
def _known_norm(norm: jax.Array, leaves: list[jax.Array]) -> jax.Array:
    """``norm``, with the derivative of the norm of ``leaves``: that of the norm before some were dropped may be NaN."""
    return norm


@_known_norm.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return primals[0], jax.jvp(global_norm, primals[1:], tangents[1:])[1]


class UnseenUpdates:
    """Replaces `AllUpdates` for a link that does not declare ``needs_all_updates``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def norm(self) -> jax.Array:
        raise TypeError(self._unseen("for the global norm"))

    def finite(self) -> jax.Array:
        raise TypeError(self._unseen("whether all updates are finite"))

    def _unseen(self, what: str) -> str:
        return f"Link {self.name!r} asks {what}: declare needs_all_updates = True in its class"

    def scaled(self, factor: Scalar) -> UnseenUpdates:
        return self

    def zero_where(self, dropped: jax.Array | None) -> UnseenUpdates:
        return self


def seen_by(name: str, link: LinkLike, updates: AllUpdates) -> AllUpdates | UnseenUpdates:
    """All updates, if the link declares that it needs them."""
    return updates if link.needs_all_updates else UnseenUpdates(name)
