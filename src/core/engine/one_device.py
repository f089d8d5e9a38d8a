"""A choice between two functions that is made when they are compiled: for one device, or for several at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ..values.types import PyTree, TreeDef


def on_one_device(alone: Callable[..., PyTree], otherwise: Callable[..., PyTree], *operands: PyTree) -> PyTree:
    """``alone(*operands)`` if compiled for one device, or within `jax.shard_map` for its part of the arrays.

    Otherwise, and for batches and derivatives, ``otherwise(*operands)``: XLA divides neither a kernel of our own among
    devices, nor does JAX derive one. Both functions return arrays of the same shapes, and close over no traced values.
    """
    arrays, treedef = jax.tree.flatten(operands)
    traced, like = jax.make_jaxpr(otherwise, return_shape=True)(*operands)
    functions = _Functions(alone, otherwise, treedef, tuple(traced.out_avals))
    return jax.tree.unflatten(jax.tree.structure(like), _choice.bind(*arrays, functions=functions))


class _Functions(NamedTuple):
    """The functions of flat arrays."""

    alone: Callable[..., PyTree]
    otherwise: Callable[..., PyTree]
    treedef: TreeDef
    out_avals: tuple[ShapedArray, ...]

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def call_alone(self, *arrays: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(self.alone(*self.treedef.unflatten(arrays)))

    def call_otherwise(self, *arrays: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(self.otherwise(*self.treedef.unflatten(arrays)))


_choice = Primitive("on_one_device")
_choice.multiple_results = True


@_choice.def_impl
def _impl(*arrays: jax.Array, functions: _Functions) -> list[jax.Array]:
    return functions.call_otherwise(*arrays)


@_choice.def_abstract_eval
def _abstract_eval(*_: ShapedArray, functions: _Functions) -> list[ShapedArray]:
    return list(functions.out_avals)


def _jvp(primals: Any, tangents: Any, *, functions: _Functions) -> Any:
    return jax.jvp(functions.call_otherwise, tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))


def _batched(arrays: Any, axes: Any, *, functions: _Functions) -> Any:
    outs = jax.vmap(functions.call_otherwise, in_axes=tuple(axes))(*arrays)
    return outs, [0] * len(outs)


def _lowered(ctx: mlir.LoweringRuleContext, *arrays: Any, functions: _Functions) -> Any:
    axes: Any = ctx.module_context.axis_context
    if isinstance(axes, mlir.SPMDAxisContext):  # within shard_map, manual along these axes of the mesh
        alone = axes.manual_axes == frozenset(axes.mesh.axis_names)
    else:
        alone = getattr(axes, "num_devices", None) == 1
    function = functions.call_alone if alone else functions.call_otherwise
    return mlir.lower_fun(function, multiple_results=True)(ctx, *arrays)


ad.primitive_jvps[_choice] = _jvp
batching.primitive_batchers[_choice] = _batched
mlir.register_lowering(_choice, _lowered)
