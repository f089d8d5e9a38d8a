"""A choice between two functions that is made when they are compiled: for one device, or for several at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from ..values.types import PyTree


def on_one_device(
    kernel: Callable[..., PyTree], fallback: Callable[..., PyTree], *operands: PyTree, portable: bool = False
) -> PyTree:
    """``kernel(*operands)`` if compiled for one TPU, or within `jax.shard_map` for the part of the arrays on one.

    Everything else, including batches and derivatives, takes ``fallback(*operands)``: XLA cannot partition a custom
    kernel, and JAX can neither batch nor differentiate it. Both functions return arrays of the same shapes, and close
    over no tracers. A ``portable`` kernel consists of plain operations, so it is taken on one device of any kind, and
    batched.
    """
    arrays, treedef = jax.tree.flatten(operands)
    traced, like = jax.make_jaxpr(fallback, return_shape=True)(*operands)

    def flat(*arrays: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(kernel(*treedef.unflatten(arrays)))

    outs = _choice.bind(*arrays, functions=_Functions(flat, traced, portable))
    return jax.tree.unflatten(jax.tree.structure(like), outs)


@dataclasses.dataclass(frozen=True, eq=False)
class _Functions:
    """The functions of flat arrays."""

    call_kernel: Callable[..., list[jax.Array]]
    traced: ClosedJaxpr
    """The fallback."""
    portable: bool

    def call_fallback(self, *arrays: jax.Array) -> list[jax.Array]:
        return jaxpr_as_fun(self.traced)(*arrays)


_choice = Primitive("on_one_device")
_choice.multiple_results = True


@_choice.def_impl
def _impl(*arrays: jax.Array, functions: _Functions) -> list[jax.Array]:
    return functions.call_fallback(*arrays)


@_choice.def_abstract_eval
def _abstract_eval(*_: Any, functions: _Functions) -> list[Any]:
    return functions.traced.out_avals


def _jvp(primals: Any, tangents: Any, *, functions: _Functions) -> Any:
    return jax.jvp(functions.call_fallback, tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))


def _batched(arrays: Any, axes: Any, *, functions: _Functions) -> Any:
    kernel, fallback = (jax.vmap(f, in_axes=tuple(axes)) for f in (functions.call_kernel, functions.call_fallback))
    outs = on_one_device(kernel, fallback, *arrays, portable=True) if functions.portable else fallback(*arrays)
    return outs, [0] * len(outs)


def _lowered(ctx: mlir.LoweringRuleContext, *arrays: Any, functions: _Functions) -> Any:
    axes: Any = ctx.module_context.axis_context
    if isinstance(axes, mlir.SPMDAxisContext):  # within shard_map, manual along these axes of the mesh
        alone = axes.manual_axes == frozenset(axes.mesh.axis_names)
    else:
        alone = getattr(axes, "num_devices", None) == 1
    # An export may be lowered for several platforms at once, with this branch in it for all of them.
    known = functions.portable or tuple(ctx.platforms or ctx.module_context.platforms) == ("tpu",)
    function = functions.call_kernel if alone and known else functions.call_fallback
    return mlir.lower_fun(function, multiple_results=True)(ctx, *arrays)


ad.primitive_jvps[_choice] = _jvp
batching.primitive_batchers[_choice] = _batched
mlir.register_lowering(_choice, _lowered)
