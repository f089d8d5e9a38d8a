"""The base class of links that treat all parameters together, as one vector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, final

import jax
import jax.numpy as jnp

from ...core.engine.step_info import StepInfo
from ...core.facade.holes import check_result, check_state, kind
from ...core.facade.link import Treewise
from ...core.values.declared import contract
from ...core.values.tree import global_norm, show
from ...core.values.types import DType, Params, PyTree, Updates
from .vector import Space, Vector, dot, total
from .whole import Moving

T = TypeVar("T")


class VectorInfo(StepInfo):
    """The step as a `VectorLink` sees it: `StepInfo`, with operations on vectors.

    Sums are over all numbers of a vector, including those on other devices under `jax.shard_map`.
    """

    def __init__(self, at: StepInfo, space: Moving, params: Params, slots: dict[str, PyTree]) -> None:
        vars(self).update(vars(at))
        self._space, self._params, self._slots = space, params, slots

    def dot(self, a: Vector, b: Vector) -> jax.Array:
        """aᵀb."""
        return dot(a, b, self.dtype)

    def total(self, a: Vector) -> jax.Array:
        """The sum of all numbers."""
        return total(a, self.dtype)

    def norm(self, a: Vector) -> jax.Array:
        """‖a‖."""
        return global_norm(a).astype(self.dtype)

    def each(self, f: Callable[[StepInfo], T]) -> list[T]:
        """``f`` of the step as each parameter sees it. Parameters that joined late count their own steps."""
        return self._space.each(self, f)

    def still(self, slot: str) -> Vector:
        """A slot's arrays for the parameters without an update at this step, for sums over all parameters."""
        return self._space.still(self._slots[slot])

    def still_params(self) -> Vector:
        """The parameters without an update at this step."""
        return [] if self._params is None else self._space.still(self._params)


@contract()
class VectorLink(Treewise):
    """A link that treats all parameters together, as one real vector: a subclass defines `update_vector`.

    A vector is a list of real arrays, one for each parameter that has an update at this step, all in the dtype
    ``at.dtype``: float64 if any parameter is, otherwise float32. Complex numbers are pairs along a last axis of 2. A
    vector contains neither ``None`` nor integers. If the gradient of a parameter is ``None`` at a step, neither the
    parameter nor its slots change. Sums over all parameters, such as a norm that is compared with one of an earlier
    step, must include them: ``at.still(slot)`` returns their arrays. If no parameter has a gradient, no hook is called
    and nothing changes.

    The state is a dict: a vector for each name in ``slots``, and scalars or other arrays under other names. It is
    stored in the dtypes of the parameters, float32 or wider.

    Declare ``knows_shards = True`` if all sums are computed by `VectorInfo.dot`, ``total`` or ``norm``.
    """

    sees_holes = True

    def init_vector(self, x: Vector) -> dict[str, Any]:
        """The first state. Called by ``init``.

        Args:
            x: all parameters that are floating-point or complex, each in float32 or float64.

        Returns: a dict of the slots that do not start at zero and the scalars. A slot is a list with as many arrays as
        ``x``, and may be ``x`` itself. Scalars may be Python numbers. A list that is not a slot is an error.
        """
        return {}

    @abstractmethod
    def update_vector(
        self, u: Vector, state: dict[str, Any], x: Vector, at: VectorInfo
    ) -> tuple[Vector, dict[str, Any]]:
        """Transform the updates. Called once per step.

        Args:
            u: the updates.
            state: the slots, vectors like ``u``, and the scalars, in ``at.dtype`` if they are floating-point.
            x: the parameters, a vector like ``u``; ``None`` if ``update`` was called without them, which
                ``reads_params`` forbids.
            at: the step, with sums over vectors.

        Returns: the updates, with unchanged shapes, and the next state, with the same keys.
        """
        raise NotImplementedError

    @final
    def init_tree(self, params: Params) -> dict[str, PyTree]:
        space = Space(params)
        x = space.read(params)
        state = self.init_vector(x)
        if not isinstance(state, dict):
            raise TypeError(f"`{type(self).__name__}.init_vector` must return a dict, got {kind(state)}")
        made: dict[str, PyTree] = {}
        for name, entry in {**{slot: [jnp.zeros_like(a) for a in x] for slot in self.slots}, **state}.items():
            if name in self.slots:
                self._check_vector("init_vector", repr(name), entry, len(x))
                made[name] = space.keep([jnp.copy(a) for a in entry])  # copies, since the parameters may be donated
            elif isinstance(entry, (list, tuple, dict)):
                raise TypeError(
                    f"`{type(self).__name__}.init_vector` returned {name!r}, a {type(entry).__name__} of arrays: if "
                    f"that is a vector, declare slots = {(*self.slots, name)!r}"
                )
            else:
                made[name] = _scalar(jnp.array(entry), space.dtype)
        return made

    @final
    def update_tree(
        self, updates: Updates, state: dict[str, PyTree], params: Params, at: StepInfo
    ) -> tuple[Updates, dict[str, PyTree]]:
        space = Moving(updates, updates if params is None else params, at.dtype)
        if not space.paths:
            return updates, state
        slots = {name: state[name] for name in self.slots}
        u = space.read(updates)
        x: Any = None if params is None else space.read(params)
        seen: dict[str, Any] = {k: space.read(v) if k in slots else _scalar(v, at.dtype) for k, v in state.items()}
        result = self.update_vector(u, dict(seen), x, VectorInfo(at, space, params, slots))
        new, kept = check_result(self, "update_vector", result, "a vector")
        self._check_vector("update_vector", "the updates", new, u, space.paths)
        if not isinstance(kept, dict) or kept.keys() != seen.keys():
            check_state(self, "update_vector", kept, seen)
        for name in slots:
            self._check_vector("update_vector", repr(name), kept[name], seen[name], space.paths)
        return space.write(new, updates), {
            name: space.write(kept[name], tree) if name in slots else kept[name] for name, tree in state.items()
        }

    def _check_vector(self, hook: str, what: str, x: object, like: Vector | int, paths: Iterable[str] = ()) -> None:
        """Raise unless ``x`` is a vector ``like`` this, or of so many arrays."""
        where, count = f"`{type(self).__name__}.{hook}`", like if isinstance(like, int) else len(like)
        if not isinstance(x, list) or len(x) != count:
            got = f"{len(x)} of them" if isinstance(x, list) else kind(x)
            raise TypeError(f"{where} must return {what} as a list of {count} arrays, one per parameter, got {got}")
        for path, a, b in zip(paths, x, () if isinstance(like, int) else like):
            if jnp.shape(a) != b.shape or jnp.iscomplexobj(a):
                raise TypeError(f"{where} must return {what} of {path!r} as {show(b)}, got {show(a)}")


def _scalar(x: jax.Array, dtype: DType) -> jax.Array:
    """``x`` in ``dtype`` if it is floating-point, otherwise unchanged."""
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
