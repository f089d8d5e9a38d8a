"""The slots of one leaf: their first values, and checks that those of a state fit the leaf."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..values.hyper import evaluate
from ..values.tables import Shape, Table, pick
from ..values.tree import compute_dtype, dtype_of, is_trainable, show, slot_dtype, to_real
from ..values.types import DType, Leaf, PyTree, Scalar
from ..values.value import make
from .hooks import blamed, check_first_slots
from .matrices import first_factors, form_of
from .plan import Slots
from .protocol import L, LeafwiseLike, LeafwiseRun, is_matrixwise
from .storage import Stored, formats_of, narrowed


def resolve(
    link: L, name: str, at: tuple[str, Shape] | None, count: jax.Array, dtype: DType, own: jax.Array | None = None
) -> L:
    """The link with a number in place of each schedule and table, for a parameter that has taken ``own`` steps.

    ``at`` is the parameter's path and shape, or ``None`` for the whole tree.
    """
    numbers: dict[str, Scalar] = {}
    for field in link._numbers:
        entry = getattr(link, field)
        if isinstance(entry, Table):
            if at is None:
                kind = type(entry).__name__
                raise ValueError(f"`{name}.{field}` cannot be {kind}: the link treats the whole tree at once")
            _, entry = pick(f"{name}.{field}", entry, *at)
        numbers[field] = evaluate(f"{name}.{field}", entry, count, dtype, own)
    return make(type(link), **{**vars(link), **numbers})


def init_leaf(link: LeafwiseLike, name: str, path: str, p: Leaf, count: jax.Array) -> dict[str, Stored] | None:
    """The first slots of one parameter, as they are stored; ``None`` if it has none."""
    formats = link.formats
    if not is_trainable(p):
        if formats is not None and p is not None:
            formats.refuse(name, path, p)
        return None
    p = p if isinstance(p, jax.ShapeDtypeStruct) else jnp.asarray(p)
    dtype = compute_dtype(p.dtype)
    resolved = resolve(link, name, (path, p.shape), count, dtype)
    with blamed(name):
        first = resolved.init_leaf(p)
        factors = first_factors(name, resolved, path, p) if is_matrixwise(resolved) else {}
        slots = check_first_slots(name, link, {**(first or {}), **factors} if factors else first)
    if slots is None:
        return None
    stored: dict[str, Stored] = {**slots}
    if formats is None:
        return stored
    for slot, x in slots.items():
        form = formats.of(slot, path, p.shape)
        if form is not None and x.shape == p.shape and x.size >= form.min_size and slot not in factors:
            # Without the barrier, XLA would encode constant slots at compile time, which takes half a minute.
            wide = jax.lax.optimization_barrier(to_real(x, dtype).astype(jnp.float32))
            with blamed(name):
                stored[slot] = narrowed(wide, form, slot not in link.nonnegative)
    return stored


class SlotChecks:
    """Checks that a state's slots fit the parameters. The shapes of first slots are cached."""

    def __init__(self) -> None:
        self._first: dict[tuple, dict[str, Stored]] = {}

    def check(self, run: LeafwiseRun, path: str, like: jax.Array, slots: Slots, has_params: bool) -> None:
        """Raise unless a leaf's slots look as ``init`` makes them for ``like``, its parameter or its update."""
        # Without parameters the gradients may have another dtype than the parameters had in ``init``.
        dtypes = {slot_dtype(dtype_of(like))} if has_params else {x.dtype for x in jax.tree.leaves(slots)}
        for name, of in slots.items():
            for slot, x in of.items():
                if x is None:
                    raise TypeError(no_slot(name, slot, path, like))
                unusual = isinstance(x, dict) or x.dtype not in dtypes or x.shape not in ((), jnp.shape(like))
                if unusual or run[name].formats is not None:
                    self._compare(run[name], name, slot, path, like, x)

    def _compare(self, link: LeafwiseLike, name: str, slot: str, path: str, like: jax.Array, x: Stored) -> None:
        words = form_of(name, link, path, like) if is_matrixwise(link) else None
        key = name, jnp.shape(like), dtype_of(like), formats_of([(name, link)], path, jnp.shape(like)), words
        if key not in self._first:
            count, p = jnp.zeros((), jnp.int32), jax.ShapeDtypeStruct(*key[1:3])
            self._first[key] = jax.eval_shape(lambda p: init_leaf(link, name, path, p, count), p) or {}
        made = self._first[key].get(slot)
        if _avals(made) != _avals(x):
            raise TypeError(
                f"Slot {slot!r} of link {name!r} is {_shown(x)} at {path!r}, where the parameter is {show(like)} and "
                f"the slot {_shown(made)}: the state belongs to other parameters, or was stored in another format"
            )


def no_slot(name: str, slot: str, path: str, p: Leaf) -> str:
    """The error for a parameter without a slot in the state."""
    return (
        f"The state has no slot {slot!r} of link {name!r} for parameter {path!r} ({show(p)}): "
        "if it has joined since init, call add_param_group(params, state)"
    )


def _avals(slots: PyTree) -> PyTree:
    return jax.tree.map(lambda x: (jnp.shape(x), x.dtype), slots)


def _shown(x: Stored | None) -> str:
    """A slot as it is stored: an array, or the arrays of a format."""
    return f"{{{', '.join(f'{k}: {show(v)}' for k, v in x.items())}}}" if isinstance(x, dict) else show(x)
