"""One leaf's way through a run of links: widened once, transformed, and narrowed once, in one compiled function."""

from __future__ import annotations

import functools
import math
import re
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.tree_util import tree_flatten, tree_unflatten

from ..values.tree import compute_dtype, dtype_of, from_real, shard_axes, to_real
from ..values.value import is_array
from .checks import check_result
from .rounding import by_turns, precise, rounded, saturated
from .storage import widened

Slots = dict[str, dict[str, Any]]


class Frozen(NamedTuple):
    """A tree with its arrays taken out: hashable, so that ``jit`` holds what is left for constant."""

    treedef: Any
    constants: tuple[Any, ...]

    def thaw(self, traced: list[Any]) -> Any:
        """The tree, with arrays put back."""
        arrays = iter(traced)
        return tree_unflatten(self.treedef, [next(arrays) if c is _ARRAY else c for c in self.constants])


_ARRAY = "array"  # stands in `Frozen.constants` for an array


def freeze(tree: Any) -> tuple[Frozen, list[Any]]:
    """The constants of a tree, and its arrays."""
    leaves, treedef = tree_flatten(tree)
    return Frozen(treedef, tuple(_ARRAY if is_array(x) else x for x in leaves)), [x for x in leaves if is_array(x)]


NOTHING = freeze(([], []))[0]


class Plan(NamedTuple):
    """What is constant in the function that a leaf runs through; equal plans share one trace."""

    frozen: Frozen
    names: tuple[str, ...]
    dtype: Any
    formats: tuple = ()
    lagged: tuple[tuple[str, str], ...] = ()
    out: Any = None
    apply: bool = False
    rounding: str = "nearest"


def leaf_function(trace: Any) -> Callable[..., tuple[Any, Slots, Any]]:
    """`through_links`, jitted: leaves of one plan and shape share a trace.

    JAX keeps traces as long as the function that they are of, and plans hold numbers such as the learning rate: those
    of a sweep would pile up. So a step that is traced to be compiled as a whole, in ``trace``, shares a function with
    the other steps in it, which goes when it does. Elsewhere, for ``None``, the functions of the last few plans are
    kept, with what was compiled for them.
    """
    if trace is not None:
        return _function_in(trace)
    return lambda plan, *args: _function_of(plan)(plan, *args)


@functools.lru_cache(maxsize=4)  # a weak key would stay: the function holds its trace
def _function_in(trace: Any) -> Callable[..., tuple[Any, Slots, Any]]:
    return _new_leaf_function()


def _new_leaf_function() -> Callable[..., tuple[Any, Slots, Any]]:
    def fused(*args: Any) -> tuple[Any, Slots, Any]:
        return through_links(*args)

    return jax.jit(fused, static_argnums=0)


@functools.lru_cache(maxsize=64)
def _function_of(plan: Plan) -> Callable[..., tuple[Any, Slots, Any]]:
    return _new_leaf_function()


def through_links(
    plan: Plan, traced: list[Any], u: Any, p: Any, slots: Slots, given: dict[str, Any]
) -> tuple[Any, Slots, Any]:
    """Take one leaf through a run of links: the update or the parameter, the slots, and the rest from rounding.

    ``given`` holds what else a leaf may need: ``grad``, ``keys`` by link, ``rest``, ``round``, a key, ``turn``, the
    step's share in rounding slots, and ``never``, which is false.
    """

    def whole(*leaf: Any) -> tuple:
        return _through(plan, *plan.frozen.thaw(traced), *leaf)

    parts = _Parts.of(plan, traced, u, p, slots, given)
    if parts is None:
        new, done, rest = whole(u, p, slots, given)
        return new, _lagging(plan, done, new, given["never"]) if plan.lagged else done, rest
    return jax.lax.platform_dependent(u, p, slots, given, cpu=functools.partial(parts.map, whole), default=whole)


def added(u: Any, p: Any) -> Any:
    """The parameter with the update added to it."""
    plan = Plan(NOTHING, (), compute_dtype(dtype_of(p)), out=dtype_of(p), apply=True)
    return _function_of(plan)(plan, [], u, p, {}, {})[0]


def key_of_leaf(key: jax.Array, path: str, again: int, axes: tuple[str, ...]) -> jax.Array:
    """The PRNG key of one leaf, or of a device's part of it along axes of the mesh.

    ``again`` counts the leaves before it whose paths have the same checksum.
    """
    key = jax.random.fold_in(key, zlib.crc32(path.encode()))
    for i in (again or None, jax.lax.axis_index(axes) if axes else None):
        key = key if i is None else jax.random.fold_in(key, i)
    return key


def _through(plan: Plan, links: Any, scalars: Any, u: Any, p: Any, slots: Slots, given: dict[str, Any]) -> tuple:
    w, q = to_real(u, plan.dtype), None
    if p is not None:
        narrow = plan.rounding != "nearest"
        q = precise(plan.rounding, p, given.get("rest"), plan.dtype) if narrow else to_real(jnp.asarray(p), plan.dtype)
    grad = {"grad": to_real(given["grad"], plan.dtype)} if "grad" in given else {}
    formats = {(name, slot): rest for name, slot, *rest in plan.formats}
    done = {}
    for name, link, shared in zip(plan.names, links, scalars):
        old = slots.get(name, {})
        wide = {s: widened(x, w.shape, plan.dtype, *formats.get((name, s), ())) for s, x in old.items()}
        own = SimpleNamespace(**wide, **grad, **({"key": given["keys"][name]} if link.random else {}))
        with jax.named_scope(name):
            w, new = check_result(name, link, w, wide, link.leaf(w, own, q, shared))
        done[name] = {s: _narrowed(x, formats.get((name, s)), old[s], given.get("turn")) for s, x in new.items()}
    done = {name: new for name, new in done.items() if new}
    if q is None or not plan.apply:
        return from_real(w, plan.out), done, None
    if plan.rounding == "nearest":
        return from_real(jax.lax.add(q, w), plan.out), done, None
    new, rest = rounded(plan.rounding, q, w, plan.out, given.get("round"))
    return new, done, rest


def _lagging(plan: Plan, slots: Slots, new: jax.Array, never: jax.Array) -> Slots:
    """The slots, of which XLA's CPU compiler will write the lagged ones after ``new``, made of their old values.

    It leaves the order of its kernels open when it decides what to copy, so it would copy them: for Lion that is 4
    bytes of temporaries a parameter, and three times the time.
    """

    def ordered(key: tuple[str, str], x: Any) -> Any:
        if key not in plan.lagged or not is_array(x) or x.shape != new.shape or jnp.iscomplexobj(new):
            return x
        return jax.lax.select(never, new if new.dtype == x.dtype else jax.lax.convert_element_type(new, x.dtype), x)

    return {name: {s: ordered((name, s), x) for s, x in of.items()} for name, of in slots.items()}


def _narrowed(x: jax.Array, form: Any, old: Any, turn: jax.Array | None) -> Any:
    if not isinstance(old, dict):
        if turn is None or not form or form[1] or jnp.finfo(old.dtype).bits >= jnp.finfo(x.dtype).bits:
            return from_real(saturated(x, old.dtype) if form else x, old.dtype)
        return by_turns(x, old.dtype, turn)  # to the nearest, 0.999ν would stay ν for ever in bfloat16
    return form[0].keep(x.astype(jnp.float32), form[1])


_PART = 1 << 14  # numbers in a part: with all that belongs to them, they fit into a core's cache


def mixing_link(plan: Plan, traced: list[Any], u: Any, p: Any, slots: Slots, given: dict[str, Any]) -> str | None:
    """The first link of a run that computes with several numbers of the leaf at once, or with its shape.

    Every device has a part of the leaf, so the whole has at most as many times the length along each axis.
    """
    part = jnp.shape(to_real(u, plan.dtype))
    devices = math.prod(jax.lax.axis_size(axis) for axis in shard_axes(u))
    for name, link, shared in zip(plan.names, *plan.frozen.thaw(traced)):
        texts = []
        for shape in () if link.knows_shards else (part, tuple(devices * n for n in part)):
            like = jax.ShapeDtypeStruct(shape, plan.dtype)
            of = slots.get(name, {}).items()
            own = {s: like if isinstance(x, dict) or jnp.ndim(x) else to_real(x, plan.dtype) for s, x in of}
            own |= {"grad": like} if "grad" in given else {}
            own |= {"key": given["keys"][name]} if link.random else {}

            def leaf(u: Any, own: Any, p: Any, link: Any = link, shared: Any = shared) -> Any:
                return link.leaf(u, SimpleNamespace(**own), p, shared)

            try:
                jaxpr = jax.make_jaxpr(leaf)(like, own, None if p is None else like).jaxpr
            except Exception:  # it depends on the leaf's shape
                return name
            if not is_elementwise(jaxpr, shape):
                return name
            texts.append(less_shape(jaxpr, shape))
        if len(set(texts)) > 1:
            return name
    return None


class _Parts(NamedTuple):
    """A leaf with slots in blocks, taken apart for a CPU's cache.

    XLA's CPU compiler writes every widened slot to memory, since several kernels read it. In a loop over
    parts they stay in the cache, which makes 16 bytes of traffic a parameter of 80, for 8-bit AdamW.
    """

    shape: tuple[int, ...]
    unit: int  # numbers: the blocks of all slots divide it
    rows: int  # units in a part

    @classmethod
    def of(cls, plan: Plan, traced: list[Any], u: Any, p: Any, slots: Slots, given: dict[str, Any]) -> _Parts | None:
        """The parts, if the leaf has several, and its function treats every number alone."""
        shape, forms = jnp.shape(u), {(name, slot): form for name, slot, form, _ in plan.formats}
        kept = {(name, s): x for name, of in slots.items() for s, x in of.items()}
        blocks = [forms[key].block for key, x in kept.items() if isinstance(x, dict)]
        plain = [x for x in kept.values() if not isinstance(x, dict)]
        if not blocks or jnp.iscomplexobj(u) or any(x.shape not in ((), shape) for x in plain):
            return None
        unit = math.lcm(*blocks)
        rows = _rows_of_part(math.prod(shape) // unit, max(1, _PART // unit))
        if math.prod(shape) % unit or math.prod(shape) <= rows * unit:
            return None

        def bare(*leaf: Any) -> Any:
            return _through(plan, *plan.frozen.thaw(traced), *leaf)

        def traced_at(shape: tuple[int, ...]) -> Any:
            def resized(x: Any) -> Any:
                if isinstance(x, dict):  # a coded slot, which `bare` gets widened
                    return jax.ShapeDtypeStruct(shape, jnp.float32)
                return x if x is None or not jnp.ndim(x) else jax.ShapeDtypeStruct(shape, x.dtype)

            wide = {name: {s: resized(x) for s, x in of.items()} for name, of in slots.items()}
            rest = {name: x if name == "keys" else resized(x) for name, x in given.items()}
            return jax.make_jaxpr(bare)(resized(u), resized(p), wide, rest)

        part = (*(1 for _ in shape[1:]), rows * unit)
        try:
            whole, cut = traced_at(shape), traced_at(part)
        except Exception:  # whatever it is, it comes of the shape
            return None
        # A shape that a leaf function computes with, as with a fan-in, is another number in a part.
        alike = less_shape(whole, shape) == less_shape(cut, part)
        return cls(shape, unit, rows) if alike and is_elementwise(whole.jaxpr, shape) else None

    def map(self, whole: Any, u: Any, p: Any, slots: Slots, given: dict[str, Any]) -> tuple:
        """``whole`` on every part, in a loop that changes the parameter and its slots in place."""
        like = jax.eval_shape(whole, u, p, slots, given)
        in_place = p is not None and p.dtype == like[0].dtype
        count = math.prod(self.shape) // self.unit
        keys = {k: given[k] for k in ("keys", "round") if k in given}
        read = (u, p, given.get("grad"), given.get("rest") if like[2] is None else None)
        sources = self._apart(read)
        kept = {name: {s: slots[name][s] for s in of} for name, of in like[1].items()}
        returned = given.get("rest") if like[2] is not None else None
        start = (p if in_place else jnp.zeros(self.shape, like[0].dtype), kept, returned)

        def part(i: Any, rows: int, mine: Any) -> Any:
            u, q, grad, rest = self._cut(sources, read, i, rows)
            new, of, written = mine
            # Slots of one number are the same for all parts: each begins with the first one's.
            of = jax.tree.map(lambda x, first: x if jnp.ndim(first) else first, of, kept)
            own = jax.tree.map(lambda key: jax.random.fold_in(key, i), keys)
            more = {"rest": rest if written is None else written, "grad": grad, "turn": given.get("turn")}
            own |= {name: x for name, x in more.items() if x is not None}
            return whole(u, new if in_place else q, of, own)

        def body(k: Any, carry: Any) -> Any:
            # The next part is read when the last one was written: reading and writing the same array at
            # the same turn, XLA would copy it.
            outs, mine = carry
            outs = self._put(outs, part(k * self.rows, self.rows, mine), k * self.rows, self.rows)
            return outs, self._cut(outs, start, (k + 1) * self.rows, self.rows)

        outs = self._apart(start)
        outs, _ = jax.lax.fori_loop(0, count // self.rows, body, (outs, self._cut(outs, start, 0, self.rows)))
        if left := count % self.rows:
            mine = self._cut(outs, start, count - left, left)
            outs = self._put(outs, part(count - left, left, mine), count - left, left)
        return jax.tree.map(lambda x, y: _as(x, y.dtype).reshape(y.shape), outs, like)

    def _apart(self, tree: Any) -> Any:
        """Every array with a first axis of units, bfloat16 as the integers of its bits; scalars stay.

        XLA's CPU compiler widens the whole of a bfloat16 array to write a part of it.
        """
        count = math.prod(self.shape) // self.unit

        def apart(x: Any) -> Any:
            if not jnp.ndim(x):
                return x
            return _as(x, jnp.uint16 if x.dtype == jnp.bfloat16 else x.dtype).reshape(count, -1)

        return jax.tree.map(apart, tree)

    def _cut(self, tree: Any, like: Any, i: Any, rows: int) -> Any:
        """One part of every array, with as many axes as the leaf has, in the dtypes of ``like``."""
        axes = (1,) * (len(self.shape) - 1)

        def cut(x: Any, whole: Any) -> Any:
            if not jnp.ndim(x):
                return x
            return _as(jax.lax.dynamic_slice_in_dim(x, i, rows), whole.dtype).reshape(*axes, -1)

        return jax.tree.map(cut, tree, like)

    def _put(self, tree: Any, parts: Any, i: Any, rows: int) -> Any:
        def put(x: Any, y: Any) -> Any:
            return jax.lax.dynamic_update_slice_in_dim(x, _as(y, x.dtype).reshape(rows, -1), i, 0) if jnp.ndim(x) else y

        return jax.tree.map(put, tree, parts)


def _as(x: Any, dtype: Any) -> Any:
    """The same bits in another dtype of the same size."""
    return x if x.dtype == dtype else jax.lax.bitcast_convert_type(x, dtype)


def _rows_of_part(count: int, most: int) -> int:
    """How many of ``count`` units make a part: a divisor, if a large one is at hand.

    What is left over after the loop is read and written at the same turn, and XLA may copy whole arrays for it.
    """
    best = next(n for n in range(most, 0, -1) if count % n == 0)
    return best if 4 * best >= most else most


_EACH_ALONE = frozenset(
    re.findall(
        r"\w+",
        """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e bitcast_convert_type
        broadcast_in_dim cbrt ceil clamp convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2
        expm1 floor ge gt igamma igammac imag integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg
        nextafter not optimization_barrier or pcast polygamma population_count pow pvary real reduce_precision
        regularized_incomplete_beta rem round rsqrt select_n sharding_constraint shift_left shift_right_arithmetic
        shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta""",
    )
)
"""The primitives that treat each number of arrays of one shape alone."""


def is_elementwise(jaxpr: Any, shape: tuple[int, ...]) -> bool:
    """Whether every array of more than one number has the leaf's shape, and no operation mixes its numbers."""
    if any(v.aval.shape == shape for v in jaxpr.constvars):  # numbers of which each belongs to one of the leaf's
        return False
    for e in jaxpr.eqns:
        inner = [x for x in jax.tree.leaves(list(e.params.values())) if isinstance(x, (ClosedJaxpr, Jaxpr))]
        draws = e.primitive.name.startswith("random")
        if not (inner or draws or e.primitive.name in _EACH_ALONE):
            return False
        if not all(is_elementwise(getattr(x, "jaxpr", x), shape) for x in inner):
            return False
        sizes = {v.aval.shape for v in e.outvars}
        if any(getattr(v.aval, "shape", ()) == shape for v in e.invars) and sizes != {shape}:
            return False
        if not inner and not draws and any(math.prod(size) > 1 for size in sizes - {shape}):
            return False
    return True


def leaf_functions(jaxpr: Any) -> Iterator[Any]:
    """The jaxprs of leaf functions, in one that calls them."""
    for e in jaxpr.eqns:
        for x in jax.tree.leaves(list(e.params.values())):
            if isinstance(x, (ClosedJaxpr, Jaxpr)):
                inner = getattr(x, "jaxpr", x)
                yield from [inner] if e.params.get("name") == "fused" else leaf_functions(inner)


def less_shape(jaxpr: Any, shape: tuple[int, ...]) -> str:
    """A computation in words, on one line, without the shape of the leaf."""
    text = jaxpr.pretty_print(use_color=False, width=1 << 30)
    return text.replace(f"[{','.join(map(str, shape))}]", "[*]").replace(str(shape), "(*)")
