"""Where the arrays of a state lie on a mesh, derived from where the parameters lie.

With explicit axes, JAX types carry shardings: a slot that `init` computes from a parameter has its axes, whatever its
shape. So the state of parameters on any mesh is typed as if all axes of the mesh were explicit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from ..values.contents import is_array
from ..values.tree import dtype_of, flatten, is_trainable
from ..values.types import Leaf, Params, PyTree

AnyMesh = Mesh | AbstractMesh

_STANDS_FOR: ContextVar[AnyMesh | None] = ContextVar("_STANDS_FOR", default=None)
"""While `abstract` traces: the mesh that it replaces by one with explicit axes."""


def abstract(init: Callable[[Params], PyTree], params: Params) -> PyTree:
    """The shapes, dtypes and shardings of what ``init(params)`` returns, without computing it."""
    flat = flatten(params)
    where = [sharding_of(path, p) if is_trainable(p) else None for path, p in flat.items()]
    meshes = {s.mesh: path for path, s in zip(flat.paths, where) if isinstance(s, NamedSharding)}
    if len(meshes) > 1:
        (one, path), (other, path_of_other), *_ = meshes.items()
        raise ValueError(
            f"the parameters lie on several meshes: {path!r} on {_shown(one)}, {path_of_other!r} on {_shown(other)}. "
            "Give those of each mesh a state of their own"
        )
    if not meshes:
        return _on_one_device(init, params, [s for s in where if s is not None])
    mesh = next(iter(meshes))
    explicit = as_explicit(mesh)

    def typed(p: Leaf, s: Sharding | None) -> Leaf:
        if s is None:
            return jax.ShapeDtypeStruct(p.shape, p.dtype) if is_array(p) else p
        spec = s.spec if isinstance(s, NamedSharding) else P()
        return jax.ShapeDtypeStruct(np.shape(p), dtype_of(p), sharding=NamedSharding(explicit, spec))

    token = _STANDS_FOR.set(mesh)
    try:
        with jax.sharding.use_abstract_mesh(explicit):
            made = shapes(init, flat.build([typed(p, s) for p, s in zip(flat.leaves, where)]))
    finally:
        _STANDS_FOR.reset(token)

    def on_mesh(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = x.sharding.spec if isinstance(x.sharding, NamedSharding) else P()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(on_mesh, made)


def mesh_of(params: Params) -> Mesh | None:
    """The mesh of several devices on which concrete parameters lie; ``None`` if any is traced or there is no mesh."""
    leaves = [p for p in jax.tree.leaves(params) if isinstance(p, jax.Array)]
    if any(isinstance(p, Tracer) for p in leaves):
        return None
    meshes = {s.mesh for p in leaves if isinstance(s := p.sharding, NamedSharding) and isinstance(s.mesh, Mesh)}
    mesh = next(iter(meshes)) if len(meshes) == 1 else None
    return mesh if mesh is not None and mesh.size > 1 else None


def initialized(init: Callable[[Params], PyTree], params: Params) -> PyTree:
    """``init(params)``, each array where `abstract` says: step counters and other scalars on all devices."""
    of_arrays, arrays = _split(init, params, lambda p: isinstance(p, jax.Array))
    shardings = jax.tree.map(lambda x: x.sharding, abstract(init, params))
    return jax.jit(of_arrays, out_shardings=shardings)(arrays)


def sharding_of(path: str, p: Leaf) -> Sharding:
    """Where a parameter, or its shape, lies."""
    if isinstance(p, Tracer):
        sharding: Any = jax.typeof(p).sharding
        if sharding.mesh.empty or sharding.mesh.are_all_axes_explicit:
            return sharding
        raise ValueError(
            f"the sharding of {path!r} along automatic axes is not known while a function is traced: call this outside "
            "jit, with the parameters or their shapes"
        )
    sharding = getattr(p, "sharding", None)
    if sharding is None and isinstance(p, jax.ShapeDtypeStruct):
        raise ValueError(
            f"the shape of {path!r} has no sharding: give jax.ShapeDtypeStruct(shape, dtype, sharding=...), as "
            "jax.typeof and jax.eval_shape on explicit axes do"
        )
    return SingleDeviceSharding(jax.local_devices()[0]) if sharding is None else sharding


def spec_of(p: Leaf) -> P | None:
    """How an array or its shape is sharded; ``None`` if it has no mesh. Of tracers only explicit axes are known."""
    sharding = jax.typeof(p).sharding if isinstance(p, Tracer) else getattr(p, "sharding", None)
    return sharding.spec if isinstance(sharding, NamedSharding) else None


def as_explicit(mesh: AnyMesh) -> AbstractMesh:
    """The same mesh with explicit axes only."""
    found = mesh.abstract_mesh if isinstance(mesh, Mesh) else mesh
    return found.update(axis_types=(AxisType.Explicit,) * len(found.axis_names))


def axis_kinds(mesh: AnyMesh) -> dict[str, AxisType]:
    """Whether each axis of a mesh is explicit, automatic or manual, also while `abstract` treats all as explicit."""
    found = _STANDS_FOR.get() or mesh
    return dict(zip(found.axis_names, found.axis_types))


def _on_one_device(init: Callable[[Params], PyTree], params: Params, where: list[Sharding]) -> PyTree:
    sharding = where[0] if where else SingleDeviceSharding(jax.local_devices()[0])
    made = shapes(init, params)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), made)


def shapes(init: Callable[[Params], PyTree], params: Params) -> PyTree:
    """``jax.eval_shape(init, params)``."""
    return jax.eval_shape(*_split(init, params, lambda p: isinstance(p, jax.ShapeDtypeStruct) or is_array(p)))


def _split(
    init: Callable[[Params], PyTree], params: Params, takes: Callable[[Leaf], bool]
) -> tuple[Callable[[list[Leaf]], PyTree], list[Leaf]]:
    """``init`` as a function of the leaves that JAX ``takes``, and these. A tree may also hold text, for example."""
    flat = flatten(params)
    which = [i for i, p in enumerate(flat.leaves) if takes(p)]

    def of(taken: list[Leaf]) -> PyTree:
        leaves = list(flat.leaves)
        for i, x in zip(which, taken):
            leaves[i] = x
        return init(flat.build(leaves))

    return of, [flat.leaves[i] for i in which]


def _shown(mesh: AnyMesh) -> str:
    axes = ", ".join(f"{name}: {n}" for name, n in mesh.shape.items())
    devices = f" of devices {mesh.device_ids.ravel().tolist()[:8]}" if isinstance(mesh, Mesh) else ""
    return f"Mesh({axes}){devices}"
