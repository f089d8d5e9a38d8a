"""The base of links that treat all parameters together, as one vector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp

from ...core.engine.step_info import StepInfo
from ...core.facade.declared import contract
from ...core.facade.holes import check_result, check_state
from ...core.facade.link import Treewise
from ...core.values.tree import global_norm, show
from .vector import Space, Vector, dot, total
from .whole import Moving


class VectorInfo(StepInfo):
    """The step as a `VectorLink` sees it: `StepInfo`, and what is done with vectors.

    Sums run over all numbers of a vector, also those on other devices under `jax.shard_map`.
    """

    def __init__(self, at: StepInfo, space: Moving, params: Any, slots: dict[str, Any]) -> None:
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

    def each(self, f: Callable[[StepInfo], Any]) -> list[Any]:
        """``f`` of the step as each parameter of the vectors sees it: one that joined late counts from then."""
        return self._space.each(self, f)

    def still(self, slot: str) -> Vector:
        """What a slot holds for the parameters that have no update at this step, for sums over all of them."""
        return self._space.still(self._slots[slot])

    def still_params(self) -> Vector:
        """The parameters that have no update at this step."""
        return [] if self._params is None else self._space.still(self._params)


@contract
class VectorLink(Treewise):
    """A link that treats all parameters together, as one real vector: a subclass writes `update_vector`.

    A vector is a list of real arrays, one for each parameter that has an update at this step, all of one dtype,
    ``at.dtype``: float64 if any parameter is, else float32. Complex numbers are pairs along a last axis of 2. There are
    no holes and no integers in it. A parameter whose gradient is ``None`` at a step stays as it is, and so does what
    the slots hold for it; ``at.still(slot)`` has it for sums over all parameters, such as a norm that is compared with
    one of an earlier step. Where no parameter has a gradient, nothing is called and nothing changes.

    The state is a dict: a vector for each name in ``slots``, and scalars (or other arrays) by other names. It is
    stored in the dtypes of the parameters, float32 or wider.

    Declare ``knows_shards = True`` if whatever is summed is summed by `VectorInfo.dot`, ``total`` or ``norm``.
    """

    sees_holes = True

    def init_vector(self, x: Vector) -> dict[str, Any]:
        """The first state. Called by ``init``.

        Args:
            x: all parameters that are floating-point or complex, each in float32 or float64.

        Returns the slots that do not start at zero, a list of as many arrays as ``x``, which may be ``x`` itself, and
        the scalars, Python numbers among them. Refused: a list that is no slot.
        """
        return {}

    @abstractmethod
    def update_vector(
        self, u: Vector, state: dict[str, Any], x: Vector, at: VectorInfo
    ) -> tuple[Vector, dict[str, Any]]:
        """Transform the updates. Called once a step.

        Args:
            u: the updates.
            state: the slots, vectors like ``u``, and the scalars, in ``at.dtype`` if they are floating-point.
            x: the parameters, a vector like ``u``; ``None`` where ``update`` was called without them, which
                ``reads_params`` forbids.
            at: the step, and the sums over vectors.

        Returns the updates, in their shapes, and the next state, with the same names.
        """
        raise NotImplementedError

    @final
    def init_tree(self, params: Any) -> dict[str, Any]:
        space = Space(params)
        x = space.read(params)
        state = self.init_vector(x)
        if not isinstance(state, dict):
            raise TypeError(f"`{type(self).__name__}.init_vector` must return a dict, got a {type(state).__name__}")
        made: dict[str, Any] = {}
        for name, given in {**{slot: [jnp.zeros_like(a) for a in x] for slot in self.slots}, **state}.items():
            if name in self.slots:
                self._check_vector("init_vector", repr(name), given, len(x))
                made[name] = space.keep([jnp.copy(a) for a in given])  # their buffers are the state's own
            elif isinstance(given, (list, tuple, dict)):
                raise TypeError(
                    f"`{type(self).__name__}.init_vector` returned {name!r}, a {type(given).__name__} of arrays: if "
                    f"that is a vector, declare slots = {(*self.slots, name)!r}"
                )
            else:
                made[name] = _scalar(jnp.array(given), space.dtype)
        return made

    @final
    def update_tree(self, updates: Any, state: Any, params: Any, at: StepInfo) -> tuple[Any, Any]:
        space = Moving(updates, updates if params is None else params, at.dtype)
        if not space.paths:
            return updates, state
        slots = {name: state[name] for name in self.slots}
        u = space.read(updates)
        x: Any = None if params is None else space.read(params)
        seen = {k: space.read(v) if k in slots else _scalar(v, at.dtype) for k, v in state.items()}
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

    def _check_vector(self, hook: str, what: str, given: Any, like: Any, paths: Any = ()) -> None:
        """Raise unless ``given`` is a vector like this one, or of so many arrays."""
        where, count = f"`{type(self).__name__}.{hook}`", like if isinstance(like, int) else len(like)
        if not isinstance(given, list) or len(given) != count:
            got = f"{len(given)} of them" if isinstance(given, list) else f"a {type(given).__name__}"
            raise TypeError(f"{where} must return {what} as a list of {count} arrays, one a parameter, got {got}")
        for path, a, b in zip(paths, given, () if isinstance(like, int) else like):
            if jnp.shape(a) != b.shape or jnp.iscomplexobj(a):
                raise TypeError(f"{where} must return {what} of {path!r} as {show(b)}, got {show(a)}")


def _scalar(x: jax.Array, dtype: Any) -> jax.Array:
    """Floating-point numbers in a dtype, all else as it is."""
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
