"""Take one leaf through a run of links in one compiled function: widen it once, transform it, and narrow it once."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.core import Trace

from ..values.tree import compute_dtype, dtype_of, from_real, shard_axes, to_real, untyped_axes
from ..values.types import Leaf, Scalars
from .coded import CodedLeaf, unless_dropped, zero_if_dropped
from .elementwise import is_elementwise, without_shape
from .hooks import NO_KEY, NO_PARAMS, LeafSlots, blamed, check_precise, check_result, check_rounded
from .plan import NO_LINKS, LeafInputs, LeafOutputs, Plan, Slots
from .protocol import LeafwiseLike
from .rounding import dithered_positive, saturated
from .storage import Stored, narrowed, widened

PlannedFunction: TypeAlias = Callable[[Plan, list[jax.Array], LeafInputs], LeafOutputs]


def leaf_function(trace: Trace | None) -> PlannedFunction:
    """`through_links`, jitted: leaves of one plan and shape share a trace.

    JAX keeps traces for as long as the function that was traced, and plans hold numbers such as the learning rate, so
    the traces of a sweep would pile up. Steps within an outer ``trace`` therefore share one function, which is freed
    with that trace. With ``None``, the compiled functions of the most recent plans are kept.
    """
    if trace is not None:
        return _function_in(trace)
    return lambda plan, arrays, inputs: _function_of(plan)(plan, arrays, inputs)


@functools.lru_cache(maxsize=4)  # a weak-keyed cache would never be emptied: the function holds its trace
def _function_in(trace: Trace) -> PlannedFunction:
    return _new_leaf_function()


def _new_leaf_function() -> PlannedFunction:
    def fused(plan: Plan, arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
        return through_links(plan, arrays, inputs)

    return jax.jit(fused, static_argnums=0)


@functools.lru_cache(maxsize=64)
def _function_of(plan: Plan) -> PlannedFunction:
    return _new_leaf_function()


def through_links(plan: Plan, arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
    """Take one leaf through a run of links. ``arrays`` are the arrays of the plan's links and scalars."""

    function = functools.partial(_through, plan)
    coded = CodedLeaf.of(function, plan, arrays, inputs)
    if coded is not None:
        return coded(arrays, inputs)
    done = unless_dropped(plan.apply, inputs, function(arrays, inputs))
    if inputs.opaque_false is None:
        return done
    return done._replace(slots=_after(done, plan.lagged, inputs.opaque_false))


def added(u: Leaf, p: Leaf) -> jax.Array:
    """The sum of parameter and update, rounded to the parameter's dtype."""
    plan = Plan(NO_LINKS, (), compute_dtype(dtype_of(p)), out=dtype_of(p), apply=True)
    return _function_of(plan)(plan, [], LeafInputs(u, p)).leaf


def _through(plan: Plan, arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
    links, scalars = plan.frozen.thaw(arrays)
    inputs = zero_if_dropped(inputs)
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
        with blamed(name, NO_PARAMS if theta is None else ""):
            wide = {s: widened(x, w.shape, plan.dtype, *formats.get((name, s), ())) for s, x in old.items()}
            own = LeafSlots(**wide, **grad, **({"key": inputs.keys[name]} if link.random else {}))
            w, new = check_result(name, link, w, wide, link.leaf(w, own, theta, shared))
            slots[name] = {
                s: narrowed_slot(x, formats.get((name, s), ()), old[s], inputs.dither) for s, x in new.items()
            }
    slots = {name: new for name, new in slots.items() if new}
    if theta is None or not plan.apply:
        return LeafOutputs(from_real(w, plan.out), slots, None)
    with blamed(plan.ending, NO_KEY if inputs.rounding_key is None else ""):
        result = plan.rounding.rounded(theta, w, plan.out, inputs.rounding_key)
    p, residual = check_rounded(plan.ending, result, inputs.p, inputs.residual, plan.out)
    return LeafOutputs(p, slots, residual)


def _after(done: LeafOutputs, lagged: tuple[tuple[str, str], ...], opaque_false: jax.Array) -> Slots:
    """The slots, such that XLA's CPU compiler writes the lagged ones after the leaf, which reads their old values.

    XLA decides what to copy before it orders the kernels, so otherwise it would copy them: for Lion that is 4 bytes of
    temporaries per parameter, and three times the run time.
    """
    new = done.leaf

    def ordered(key: tuple[str, str], x: Stored) -> Stored:
        if key not in lagged or isinstance(x, dict) or x.shape != new.shape or jnp.iscomplexobj(new):
            return x
        same = new if new.dtype == x.dtype else jax.lax.convert_element_type(new, x.dtype)
        return jax.lax.select(opaque_false, same, x)

    return {name: {s: ordered((name, s), x) for s, x in of.items()} for name, of in done.slots.items()}


def narrowed_slot(x: jax.Array, form: Sequence, old: Stored, dither: jax.Array | None) -> Stored:
    """A new slot as it is stored. ``form`` is its format and whether it is signed, ``()`` without a format."""
    if isinstance(old, dict):
        return narrowed(x.astype(jnp.float32), *form)
    dtype = old.dtype
    if dither is None or not form or form[1] or jnp.finfo(dtype).bits >= jnp.finfo(x.dtype).bits:
        return from_real(saturated(x, dtype) if form else x, dtype)
    return dithered_positive(x, dtype, dither)  # rounded to the nearest bfloat16, 0.999ν would remain ν forever


def mixing_link(plan: Plan, arrays: list[jax.Array], inputs: LeafInputs) -> str | None:
    """The first link of a run that computes with several numbers of the leaf at once, or with its shape.

    Each device has a part of the leaf, so the length of the entire leaf along each axis is at most that of the part
    times the number of devices.
    """
    part = jnp.shape(to_real(inputs.u, plan.dtype))
    devices = math.prod(jax.lax.axis_size(axis) for axis in shard_axes(inputs.u) or untyped_axes())
    for name, link, shared in zip(plan.names, *plan.frozen.thaw(arrays)):
        texts = []
        for shape in () if link.knows_shards else (part, tuple(devices * n for n in part)):
            like = jax.ShapeDtypeStruct(shape, plan.dtype)
            of = inputs.slots.get(name, {}).items()
            own = {s: like if isinstance(x, dict) or jnp.ndim(x) else to_real(x, plan.dtype) for s, x in of}
            own |= {} if inputs.grad is None else {"grad": like}
            own |= {"key": inputs.keys[name]} if link.random else {}

            def leaf(
                u: jax.Array,
                own: dict[str, jax.Array],
                p: jax.Array,
                link: LeafwiseLike = link,
                shared: Scalars = shared,
            ) -> object:
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
