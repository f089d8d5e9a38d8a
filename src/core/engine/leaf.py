"""One leaf's way through a run of links: widened once, transformed, and narrowed once, in one compiled function."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from ..values.contents import is_array
from ..values.tree import compute_dtype, dtype_of, from_real, shard_axes, to_real
from .checks import LeafSlots, blamed, check_precise, check_result, check_rounded
from .elementwise import is_elementwise, without_shape
from .plan import NO_LINKS, LeafInputs, LeafOutputs, Plan, Slots
from .rounding import dithered_positive, saturated
from .storage import widened
from .tiles import Tiles

PlannedFunction: TypeAlias = Callable[[Plan, list[jax.Array], LeafInputs], LeafOutputs]


def leaf_function(trace: Any) -> PlannedFunction:
    """`through_links`, jitted: leaves of one plan and shape share a trace.

    JAX keeps traces as long as the function that they are of, and plans hold numbers such as the learning rate: those
    of a sweep would pile up. So a step that is traced to be compiled as a whole, in ``trace``, shares a function with
    the other steps in it, which goes when it does. Elsewhere, for ``None``, the functions of the last few plans are
    kept, with what was compiled for them.
    """
    if trace is not None:
        return _function_in(trace)
    return lambda plan, arrays, inputs: _function_of(plan)(plan, arrays, inputs)


@functools.lru_cache(maxsize=4)  # a weak key would stay: the function holds its trace
def _function_in(trace: Any) -> PlannedFunction:
    return _new_leaf_function()


def _new_leaf_function() -> PlannedFunction:
    def fused(plan: Plan, arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
        return through_links(plan, arrays, inputs)

    return jax.jit(fused, static_argnums=0)


@functools.lru_cache(maxsize=64)
def _function_of(plan: Plan) -> PlannedFunction:
    return _new_leaf_function()


def through_links(plan: Plan, arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
    """Take one leaf through a run of links. ``arrays`` are those of the plan's links and scalars."""

    def function(inputs: LeafInputs) -> LeafOutputs:
        links, scalars = plan.frozen.thaw(arrays)
        return _through(plan, links, scalars, inputs)

    tiles = Tiles.of(function, plan.formats, inputs)
    if tiles is None:
        done = function(inputs)
        if inputs.opaque_false is None:
            return done
        return done._replace(slots=_after(done, plan.lagged, inputs.opaque_false))
    return jax.lax.platform_dependent(inputs, cpu=functools.partial(tiles.map, function), default=function)


def added(u: Any, p: Any) -> jax.Array:
    """The parameter with the update added to it."""
    plan = Plan(NO_LINKS, (), compute_dtype(dtype_of(p)), out=dtype_of(p), apply=True)
    return _function_of(plan)(plan, [], LeafInputs(u, p)).leaf


def _through(plan: Plan, links: list[Any], scalars: list[Any], inputs: LeafInputs) -> LeafOutputs:
    w, theta = to_real(inputs.u, plan.dtype), None
    if inputs.p is not None:
        with blamed(plan.ending):
            theta = plan.rounding.precise(inputs.p, inputs.residual, plan.dtype)
        check_precise(plan.ending, theta, w)
    grad = {} if inputs.grad is None else {"grad": to_real(inputs.grad, plan.dtype)}
    formats = {(name, slot): form for name, slot, *form in plan.formats}
    slots = {}
    for name, link, shared in zip(plan.names, links, scalars):
        old = inputs.slots.get(name, {})
        wide = {s: widened(x, w.shape, plan.dtype, *formats.get((name, s), ())) for s, x in old.items()}
        own = LeafSlots(**wide, **grad, **({"key": inputs.keys[name]} if link.random else {}))
        with blamed(name):
            w, new = check_result(name, link, w, wide, link.leaf(w, own, theta, shared))
        slots[name] = {s: _narrowed(x, formats.get((name, s)), old[s], inputs.dither) for s, x in new.items()}
    slots = {name: new for name, new in slots.items() if new}
    if theta is None or not plan.apply:
        return LeafOutputs(from_real(w, plan.out), slots, None)
    with blamed(plan.ending):
        result = plan.rounding.rounded(theta, w, plan.out, inputs.rounding_key)
    p, residual = check_rounded(plan.ending, result, inputs.p, inputs.residual, plan.out)
    return LeafOutputs(p, slots, residual)


def _after(done: LeafOutputs, lagged: tuple[tuple[str, str], ...], opaque_false: jax.Array) -> Slots:
    """The slots, of which XLA's CPU compiler will write the lagged ones after the leaf, made of their old values.

    It leaves the order of its kernels open when it decides what to copy, so it would copy them: for Lion that is 4
    bytes of temporaries a parameter, and three times the time.
    """
    new = done.leaf

    def ordered(key: tuple[str, str], x: Any) -> Any:
        if key not in lagged or not is_array(x) or x.shape != new.shape or jnp.iscomplexobj(new):
            return x
        same = new if new.dtype == x.dtype else jax.lax.convert_element_type(new, x.dtype)
        return jax.lax.select(opaque_false, same, x)

    return {name: {s: ordered((name, s), x) for s, x in of.items()} for name, of in done.slots.items()}


def _narrowed(x: jax.Array, form: Any, old: Any, dither: jax.Array | None) -> Any:
    if not isinstance(old, dict):
        if dither is None or not form or form[1] or jnp.finfo(old.dtype).bits >= jnp.finfo(x.dtype).bits:
            return from_real(saturated(x, old.dtype) if form else x, old.dtype)
        return dithered_positive(x, old.dtype, dither)  # to the nearest, 0.999ν would stay ν for ever in bfloat16
    return form[0].keep(x.astype(jnp.float32), form[1])


def mixing_link(plan: Plan, arrays: list[jax.Array], inputs: LeafInputs) -> str | None:
    """The first link of a run that computes with several numbers of the leaf at once, or with its shape.

    Every device has a part of the leaf, so all of it has at most as many times the length along each axis.
    """
    part = jnp.shape(to_real(inputs.u, plan.dtype))
    devices = math.prod(jax.lax.axis_size(axis) for axis in shard_axes(inputs.u))
    for name, link, shared in zip(plan.names, *plan.frozen.thaw(arrays)):
        texts = []
        for shape in () if link.knows_shards else (part, tuple(devices * n for n in part)):
            like = jax.ShapeDtypeStruct(shape, plan.dtype)
            of = inputs.slots.get(name, {}).items()
            own = {s: like if isinstance(x, dict) or jnp.ndim(x) else to_real(x, plan.dtype) for s, x in of}
            own |= {} if inputs.grad is None else {"grad": like}
            own |= {"key": inputs.keys[name]} if link.random else {}

            def leaf(u: Any, own: Any, p: Any, link: Any = link, shared: Any = shared) -> Any:
                return link.leaf(u, LeafSlots(**own), p, shared)

            try:
                jaxpr = jax.make_jaxpr(leaf)(like, own, None if inputs.p is None else like).jaxpr
            except Exception:  # any exception means that the function depends on the leaf's shape
                return name
            if not is_elementwise(jaxpr, shape):
                return name
            texts.append(without_shape(jaxpr, shape))
        if len(set(texts)) > 1:
            return name
    return None
