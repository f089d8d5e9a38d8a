"""The engine: walks the tree once for a run of links, and owns everything that links share.

A chain is cut into *runs*. Within a run each leaf passes through all links in one compiled function:
widened to float32 once, transformed, and rounded once. A link that must see the whole tree first (a
global norm) begins a run; a `Treewise` link is a run of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from .at import At
from .checks import check_arguments, check_leaf, check_result
from .hyper import by_path, evaluate, pick
from .state import State
from .tree import (
    Flat,
    compute_dtype,
    dtype_of,
    flatten,
    global_norm,
    is_trainable,
    merge,
    show,
    slot_dtype,
    split,
    widened,
    widest,
)
from .value import is_array, make

if TYPE_CHECKING:
    from .link import Leafwise, Link
    from .transformation import Transformation

Links = dict[str, Any]
Slots = dict[str, dict[str, list[Any]]]


def init(links: Links, params: Any) -> State:
    """See `Transformation.init`; so with the next three."""
    flat = flatten(params)
    count = jnp.zeros((), jnp.int32)
    entries: dict[str, Any] = {}
    for name, link in links.items():
        if link.treewise:
            entry = resolve(link, name, None, count, jnp.float32).init_tree(widened(params))
            if type(entry) is not tuple or entry:
                entries[name] = entry
        elif link.slots:
            leaves = [_init_leaf(link, name, path, p, count) for path, p in flat.items()]
            entries[name] = {s: flat.build([leaf and leaf[s] for leaf in leaves]) for s in link.slots}
    return State(count, entries, {})


def _init_leaf(link: Leafwise, name: str, path: str, p: Any, count: jax.Array) -> dict[str, jax.Array] | None:
    if not is_trainable(p):
        return None
    p = p if isinstance(p, jax.ShapeDtypeStruct) else jnp.asarray(p)
    slots = resolve(link, name, path, count, compute_dtype(p.dtype)).init_leaf(p)
    if set(slots) != set(link.slots):
        raise TypeError(f"Link {name!r} declares the slots {link.slots} but its init_leaf makes {tuple(slots)}")
    return slots


def update(links: Links, updates: Any, state: State, params: Any, extra: dict[str, Any]) -> tuple[Any, State]:  # noqa: D103
    return _walk(links, updates, state, params, extra, apply=False)


def step(links: Links, params: Any, state: State, grads: Any, extra: dict[str, Any]) -> tuple[Any, State]:  # noqa: D103
    if params is None and grads is not None:
        raise TypeError("`step` moves the parameters: call step(params, state, grads)")
    return _walk(links, grads, state, params, extra, apply=True)


def lookahead(links: Links, params: Any, state: State, extra: dict[str, Any]) -> Any:  # noqa: D103
    flat = flatten(params)
    zeros = flat.build([jnp.zeros_like(p) if is_trainable(p) else None for p in flat.leaves])
    return step(links, params, state, zeros, extra)[0]


def apply_updates(params: Any, updates: Any) -> Any:
    """``params + updates``, leaf by leaf, added in float32 or better and rounded once to the parameter's dtype.

    Leaves that are not floating-point or complex, and those whose update is ``None``, stay as they
    are. Errors: ``TypeError`` where trees or shapes differ, with the path.
    """
    flat = flatten(params)
    leaves = flat.line_up("The updates", updates)
    moves = [check_leaf(path, u, p, True) for path, u, p in zip(flat.paths, leaves, flat.leaves)]
    return flat.build([_finish(u, p, apply=True) if m else p for m, u, p in zip(moves, leaves, flat.leaves)])


def make_step(tx: Transformation, *, donate: bool = True) -> Any:
    """``tx.step`` compiled: ``step(params, state, grads, **extra) -> (params, state)``.

    With ``donate`` the buffers of the parameters and the state that you pass are reused for those that
    you get back, and cannot be read afterwards.

    >>> import chainax as cx
    >>> tx = cx.sgd(0.5)
    >>> step, params = cx.make_step(tx), jax.numpy.array(1.0)
    >>> step(params, tx.init(params), jax.numpy.array(1.0))[0].item()
    0.5
    """
    return jax.jit(tx.step, donate_argnums=(0, 1) if donate else ())


def _walk(
    links: Links, updates: Any, state: State, params: Any, extra: dict[str, Any], *, apply: bool
) -> tuple[Any, State]:
    check_arguments(links, updates, state, params, extra)
    flat = flatten(updates if params is None else params)
    ps = [None] * len(flat.leaves) if params is None else flat.leaves
    us = flat.line_up("The updates", updates)
    moves = [check_leaf(path, u, p, params is not None) for path, u, p in zip(flat.paths, us, ps)]
    if _is_eager(links, us, ps, state, extra):
        # Outside of jit the walk is compiled as a whole: one dispatch in place of one for each leaf.
        # A compiled function takes arrays only, so what does not move becomes a hole.
        def movers(leaves: list[Any]) -> Any:
            return flat.build([x if m else None for x, m in zip(leaves, moves)])

        frozen, traced = _freeze(tuple(links.values()))
        whole = None if params is None else movers(ps)
        new, state = _compiled(frozen, tuple(links), apply, traced, movers(us), state, whole, extra)
        us = [n if m else u for m, n, u in zip(moves, flat.line_up("The result", new), us)]
    else:
        us, state = _Step(flat, moves, ps, us, state, extra).through(links, us, params, apply=apply)
    return flat.build([u if m or not apply else p for m, u, p in zip(moves, us, ps)]), state


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled(
    frozen: _Frozen, names: tuple[str, ...], apply: bool, traced: list[Any], us: Any, state: State, ps: Any, extra: Any
) -> tuple[Any, State]:
    return _walk(dict(zip(names, frozen.thaw(traced))), us, state, ps, extra, apply=apply)


def _is_eager(links: Links, us: list[Any], ps: list[Any], state: State, extra: dict[str, Any]) -> bool:
    """Whether everything is concrete, and nothing needs more of the tree than the leaves that move."""
    if jax.config.jax_disable_jit or any(link.treewise for link in links.values()):  # pyright: ignore[reportAttributeAccessIssue]
        return False
    inputs = tree_leaves((tuple(links.values()), us, ps, state, extra))
    return not any(isinstance(x, Tracer) for x in inputs) and all(map(is_array, tree_leaves(extra)))


def _runs(links: Links) -> Iterator[Links]:
    """Consecutive links that one pass over the leaves can serve; at least one run, if an empty one."""
    run: Links = {}
    for name, link in links.items():
        if run and (link.treewise or link.needs_all_updates or next(iter(run.values())).treewise):
            yield run
            run = {}
        run[name] = link
    yield run


class _Step:
    """One walk over the tree: who the leaves are, and the scalars that groups of them share."""

    def __init__(
        self, flat: Flat, moves: list[bool], ps: list[Any], us: list[Any], state: State, extra: dict[str, Any]
    ) -> None:
        self.flat, self.moves, self.ps, self.state, self.extra = flat, moves, ps, state, extra
        # The step counts from the new counter: reading the old one after it would cost XLA a copy.
        self.number = _next(state.step)
        self.count = self.number - 1
        self.dtypes = [compute_dtype(dtype_of(u if p is None else p)) if m else None for m, u, p in zip(moves, us, ps)]
        self.outs = [dtype_of(u if p is None else p) if m else None for m, u, p in zip(moves, us, ps)]

    def through(self, links: Links, us: list[Any], params: Any, *, apply: bool) -> tuple[list[Any], State]:
        """Take all leaves through all links."""
        entries = dict(self.state.links)
        runs = list(_runs(links))
        for run in runs:
            last = run is runs[-1]
            if not any(link.treewise for link in run.values()):
                us = self.through_leaves(run, us, entries, last=last, apply=apply)
                continue
            us = self.through_tree(run, us, params, entries)
            if last:
                us = [_finish(u, p, apply=apply) if m else u for m, u, p in zip(self.moves, us, self.ps)]
        return us, State(self.number, entries, self.state.born)

    def through_leaves(self, run: Links, us: list[Any], entries: dict[str, Any], *, last: bool, apply: bool) -> list:
        slots = {
            name: {s: self._slot_leaves(name, s, entries[name][s]) for s in link.slots}
            for name, link in run.items()
            if link.slots
        }
        moving = [u for u, m in zip(us, self.moves) if m]
        norm = functools.cache(lambda: global_norm(moving))
        groups: dict[tuple, tuple] = {}
        out = list(us)
        for i, path in enumerate(self.flat.paths):
            if not self.moves[i]:
                continue
            dtype, late = self.dtypes[i], any(f"{name}/{path}" in self.state.born for name in run)
            key = (dtype, path if late else None, _choices(run, path))
            if key not in groups:
                groups[key] = self._group(run, path, dtype, norm)
            plan, traced = groups[key]
            target = self.outs[i] if last else slot_dtype(self.outs[i])
            mine = {name: {s: leaves[i] for s, leaves in of.items()} for name, of in slots.items()}
            self._check_slots(path, self.ps[i] if self.ps[i] is not None else us[i], mine)
            out[i], mine = _fused(plan._replace(out=target, apply=last and apply), traced, us[i], self.ps[i], mine)
            for name, of in mine.items():
                for s, leaf in of.items():
                    slots[name][s][i] = leaf
        for name, of in slots.items():
            entries[name] = {s: self.flat.build(leaves) for s, leaves in of.items()}
        return out

    def through_tree(self, run: Links, us: list[Any], params: Any, entries: dict[str, Any]) -> list:
        ((name, link),) = run.items()
        dtype = widest(d for d in self.dtypes if d)
        link = resolve(link, name, None, self.count, dtype)
        wide = [jnp.asarray(u, slot_dtype(dtype_of(u))) if m else u for m, u in zip(self.moves, us)]
        at = At(self.number.astype(dtype), dtype, lambda: global_norm(wide), self.extra)
        with jax.named_scope(name):
            updates, entry = link.update_tree(self.flat.build(wide), entries.get(name, ()), widened(params), at)
        if name in entries:
            entries[name] = jax.tree.map(_like, entry, entries[name])
        new = self.flat.line_up(f"The updates that link {name!r} returned", updates)
        for path, moved, u, w in zip(self.flat.paths, self.moves, new, wide):
            if moved and jnp.shape(u) != jnp.shape(w):
                raise TypeError(f"Link {name!r} turned the update of {path!r}, {show(w)}, into {show(u)}")
        return new

    def _group(self, run: Links, path: str, dtype: Any, norm: Any) -> tuple[_Plan, list[Any]]:
        links = [resolve(link, name, path, self.count, dtype) for name, link in run.items()]
        scalars = []
        for name, link in zip(run, links):
            age = self.number - self.state.born.get(f"{name}/{path}", 0)
            at = At(
                age.astype(dtype),
                dtype,
                norm if link.needs_all_updates else functools.partial(_no_norm, name),
                self.extra,
            )
            with jax.named_scope(name):
                scalars.append(link.scalars(at))
        frozen, traced = _freeze((links, scalars))
        return _Plan(frozen, tuple(run), dtype), traced

    def _slot_leaves(self, name: str, slot: str, tree: Any) -> list[Any]:
        return list(self.flat.line_up(f"The slots {slot!r} of link {name!r}", tree))

    def _check_slots(self, path: str, like: Any, mine: dict[str, dict[str, Any]]) -> None:
        for name, of in mine.items():
            for slot, x in of.items():
                if x is None:
                    raise TypeError(
                        f"The state has no slot {slot!r} of link {name!r} for parameter {path!r} ({show(like)}): "
                        "if it has joined since init, call add_param_group(params, state)"
                    )
                if jnp.shape(x) not in ((), jnp.shape(like)):
                    raise TypeError(
                        f"Slot {slot!r} of link {name!r} has shape {list(jnp.shape(x))} at {path!r}, where the "
                        f"parameter has {list(jnp.shape(like))}: the state belongs to other parameters"
                    )


class _Frozen(NamedTuple):
    """A tree with its arrays taken out: hashable, so that ``jit`` holds what is left for constant."""

    treedef: Any
    constants: tuple[Any, ...]

    def thaw(self, traced: list[Any]) -> Any:
        """The tree, with arrays put back."""
        arrays = iter(traced)
        return tree_unflatten(self.treedef, [next(arrays) if c is _ARRAY else c for c in self.constants])


_ARRAY = "array"  # stands in `_Frozen.constants` for an array


def _freeze(tree: Any) -> tuple[_Frozen, list[Any]]:
    leaves, treedef = tree_flatten(tree)
    return _Frozen(treedef, tuple(_ARRAY if is_array(x) else x for x in leaves)), [x for x in leaves if is_array(x)]


class _Plan(NamedTuple):
    """What is constant in the function that a leaf runs through; equal plans share one trace."""

    frozen: _Frozen
    names: tuple[str, ...]
    dtype: Any
    out: Any = None
    apply: bool = False


@functools.partial(jax.jit, static_argnums=0)
def _fused(plan: _Plan, traced: list[Any], u: Any, p: Any, slots: dict[str, dict[str, Any]]) -> tuple[Any, dict]:
    """Take one leaf through a run of links."""
    links, scalars = plan.frozen.thaw(traced)
    w, q = split(u, plan.dtype), None if p is None else split(jnp.asarray(p), plan.dtype)
    done = {}
    for name, link, shared in zip(plan.names, links, scalars):
        old = slots.get(name, {})
        wide = SimpleNamespace(**{s: split(x, plan.dtype) for s, x in old.items()})
        with jax.named_scope(name):
            new_w, new = check_result(name, link, w, wide, link.leaf(w, wide, q, shared))
        w, done[name] = new_w, {s: merge(x, old[s].dtype) for s, x in new.items()}
    w = w if q is None or not plan.apply else q + w
    return merge(w, plan.out), {name: new for name, new in done.items() if new}


def _finish(u: Any, p: Any, *, apply: bool) -> Any:
    """What ends a walk for one leaf: add the update to the parameter if asked, and round."""
    dtype = compute_dtype(dtype_of(u if p is None else p))
    plan = _Plan(_freeze(([], []))[0], (), dtype, dtype_of(u if p is None else p), apply)
    return _fused(plan, [], u, p, {})[0]


def resolve(link: Link, name: str, path: str | None, count: Any, dtype: Any) -> Any:
    """The link with numbers in place of schedules and tables by path."""
    numbers = {}
    for field in link._leaves:
        given = getattr(link, field)
        if isinstance(given, by_path):
            if path is None:
                raise ValueError(f"`{name}.{field}` cannot be by_path: the link treats the whole tree at once")
            _, given = pick(f"{name}.{field}", given, path)
        numbers[field] = evaluate(f"{name}.{field}", given, count, dtype)
    return make(type(link), **{**vars(link), **numbers})


def _choices(run: Links, path: str) -> tuple[int, ...]:
    fields = ((name, field, getattr(link, field)) for name, link in run.items() for field in link._leaves)
    return tuple(pick(f"{n}.{f}", table, path)[0] for n, f, table in fields if isinstance(table, by_path))


def _next(count: jax.Array) -> jax.Array:
    """One more, stopping at the largest int32 instead of wrapping round to a negative step."""
    return jnp.where(count == jnp.iinfo(jnp.int32).max, count, count + 1).astype(jnp.int32)


def _no_norm(name: str) -> jax.Array:
    raise TypeError(f"Link {name!r} asks for the global norm: declare needs_all_updates = True in its class")


def _like(new: Any, old: Any) -> Any:
    """``new`` in the dtype of ``old``, so that the state's avals stay."""
    return jnp.asarray(new, old.dtype) if hasattr(old, "dtype") and hasattr(new, "dtype") else new
