"""Shared code of wrappers: links that hold a chain. Wrappers can be nested.

The inner chain keeps its own `State`, with its own step counter, in the wrapper's entry of the state.
If a wrapper is the last link, the inner chain moves the parameters itself, in its own fused pass.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ...core.engine import engine
from ...core.engine.entries import after_rejection
from ...core.engine.protocol import ChainLike, LinkLike, Visit
from ...core.engine.state import State
from ...core.engine.step_info import StepInfo
from ...core.engine.storage import storage
from ...core.facade.chain import chain
from ...core.facade.link import Treewise
from ...core.facade.parts import all_links
from ...core.facade.telemetry import inner_states
from ...core.facade.transformation import Transformation
from ...core.values.conditions import cond, in_place
from ...core.values.contents import code
from ...core.values.errors import PlainKeyError, did_you_mean
from ...core.values.tables import Keyed, Shape, Table, pick
from ...core.values.tree import dtype_of, flatten, is_trainable, slot_dtype, widened
from ...core.values.types import Extra, Leaf, Params, PyTree, Updates
from ...core.values.value import derived

Entry = dict[str, Any]
"""A wrapper's entry of the state: the chain's `State`, usually under ``"tx"``, and what else the wrapper keeps."""


class Wrapper(Treewise):
    """A link that holds a chain, in the field ``tx: Any = child("the chain")``.

    A subclass defines `update_tree`, and `step_tree` unless it declares ``moves_params = False``. Its state is a dict,
    in which the chain's `State` is ``"tx"``. A wrapper that holds several chains, or shows its chain other parameters,
    overrides `init_tree` and `visit`.
    """

    tx: Any

    knows_shards = True
    moves_params = True
    sees_holes = True
    passes_updates: bool = True
    """Whether the parameters move by the chain's updates. Otherwise the chain cannot keep an average of them."""

    def check(self) -> None:
        own = type(self).__name__
        if "tx" not in self._leaves:
            raise TypeError(f'`{own}` needs the chain in a field named tx: Any = child("the chain")')
        check_chain(f"{own}.tx", self.tx)
        for name, link in () if self.moves_params else all_links(self.tx):
            if link.final_rounding is not None:
                raise ValueError(
                    f"`{own}.tx`: {name!r} says how parameters are rounded, but {own} moves them by an update: "
                    f"put it at the end of the outer chain: chain({own}(...), {code(link)})"
                )

    @property
    def inner_links(self) -> Iterator[LinkLike]:
        return (link for tx in self.inner.values() for link in tx.links.values())

    @derived
    def reads_params(self) -> bool:
        return any(link.reads_params for link in self.inner_links)

    @derived
    def extra(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for link in self.inner_links for name in link.extra))

    @derived
    def role(self) -> str:
        """The role of the inner chain that matters most to the outer one."""
        inside = {link.role for link in self.inner_links}
        by_weight = ("descend", "precondition", "align", "accumulate", "decay", "penalty", "scale", "clip")
        return next((role for role in by_weight if role in inside), "other")

    @classmethod
    def projects(cls, p: Leaf) -> bool:
        """Whether the chain sees the updates of this parameter in another basis.

        Its slots then mean nothing to a chain that sees the updates as they are, though they may have one shape.
        """
        return False

    def init_tree(self, params):
        return {"tx": init_inner(self.tx, params)}

    def visit(self, visit: Visit, params: Params, entry: Entry) -> dict[str, PyTree]:
        """The result of ``visit`` for the inner chain, in the form of the outer parameters."""
        if not isinstance(entry, dict) or "tx" not in entry:
            got = f"a dict of {', '.join(entry)}" if isinstance(entry, dict) else f"a {type(entry).__name__}"
            raise TypeError(
                f"`{type(self).__name__}.init_tree` must return a dict with the chain's state under 'tx', got {got}; "
                "a wrapper with another state overrides visit"
            )
        return visit(self.tx, params, entry["tx"])

    def after_rejection(self, entry: Entry) -> Entry:
        held = inner_states(self, entry)
        return {**entry, **{key: old._replace(links=after_rejection(links, old.links)) for key, links, _, old in held}}


class ConditionalWrapper(Wrapper):
    """A wrapper that runs its chain at some steps only. At the others nothing moves."""

    undoes_itself = True

    def after_rejection(self, entry: Entry) -> Entry:
        return entry  # the chain's last step may have been an earlier one

    def decide(self, updates: Updates, state: Entry, at: StepInfo) -> tuple[Entry, jax.Array]:
        """The next state, except for the chain's, and whether the chain runs."""
        raise NotImplementedError

    def _decide(self, updates: Updates, state: Entry, at: StepInfo) -> tuple[Entry, jax.Array]:
        """`decide`, undone at a step that a link before this one has rejected."""
        new, runs = self.decide(updates, state, at)
        dropped = at.dropped if self.undoes_itself else None
        if dropped is None:
            return new, runs

        def kept(old: jax.Array, new: jax.Array) -> jax.Array:
            return jax.lax.select(dropped, old, jnp.asarray(new, old.dtype))

        own, old = ({name: x for name, x in entry.items() if name != "tx"} for entry in (new, state))
        return {**jax.tree.map(kept, old, own), "tx": state["tx"]}, runs & ~dropped

    def feed(self, updates: Updates, state: Entry) -> Updates:
        """The updates that are passed to the chain."""
        return updates

    def idle_step(self, params: Params, updates: Updates, inner: State, at: StepInfo) -> tuple[Params, State]:
        """The parameters and the chain's state if the chain does not run."""
        return params, inner

    def idle_update(self, updates: Updates, params: Params) -> Updates:
        """The updates if the chain does not run."""
        return jax.tree.map(jnp.zeros_like, as_chains_return(updates, params))

    def step_tree(self, params, state, updates, at):
        extra = forwarded_arguments(self.tx, at.extra, params)
        updates, params = drop_holes(updates, params)
        state, runs = self._decide(updates, state, at)
        params, inner = in_place(
            runs,
            lambda: (params, state["tx"]),
            lambda old: engine.step(self.tx.links, *old, self.feed(updates, state), extra),
            lambda old: self.idle_step(old[0], updates, old[1], at),
        )
        return params, {**state, "tx": inner}

    def update_tree(self, updates, state, params, at):
        extra = forwarded_arguments(self.tx, at.extra, params)
        moving, params = drop_holes(updates, params)
        state, runs = self._decide(moving, state, at)

        def start() -> tuple[Updates, State]:
            return self.idle_update(moving, params), state["tx"]

        def update(old: tuple[Updates, State]) -> tuple[Updates, State]:
            return self.tx.update(self.feed(moving, state), old[1], params, **extra)

        if jax.tree.leaves(state["tx"].links):
            new, inner = in_place(runs, start, update)
        else:  # nothing is kept, and XLA fuses small branches with what follows
            new, inner = cond(runs, lambda: update(start()), start)
        return fill_holes(new, updates), {**state, "tx": inner}


def check_chain(where: str, tx: Any) -> None:
    """Raise unless ``tx`` is a link or a chain that takes gradients with the shapes of the parameters."""
    if isinstance(tx, Transformation):
        for name, link in tx.links.items():
            if link.per_example:
                raise ValueError(
                    f"`{where}`: {name!r} reduces an axis of examples, so it must come before the link that holds the "
                    f"chain: chain({code(link)}, {where.partition('.')[0]}(...))"
                )
        return
    try:
        chain(tx)
    except TypeError as e:
        raise TypeError(f"`{where}`: {e}") from None
    raise TypeError(f"`{where}` must be a link or a chain, got {tx!r}")


def check_tables(tx: ChainLike, wrapper: str, sees: str, *, sizes_only: bool = False) -> None:
    """Raise if a table in the chain reads shapes, or with ``sizes_only`` lengths of axes, which a wrapper changes."""
    for name, link in all_links(tx):
        for field in (*link._leaves, *link._static):
            held = getattr(link, field)
            for table in held.table.values() if isinstance(held, storage) else (held,):
                if isinstance(table, Table) and (table.reads_sizes or (table.reads_ndim and not sizes_only)):
                    raise ValueError(
                        f"`{wrapper}.tx`: {name!r} has {type(table).__name__} in {field!r}, which reads the shapes of "
                        f"parameters, but the chain sees {sees}: put the link outside, chain({wrapper}(...), "
                        f"{type(link).__name__}(...))"
                    )


def links_at(tx: ChainLike, path: str, shape: Shape) -> Iterator[tuple[str, LinkLike]]:
    """`all_links`, but for a table of chains only the links of the chain for the parameter at ``path``."""
    for name, link in tx.links.items():
        yield name, link
        for field in link._leaves:
            held = getattr(link, field)
            if isinstance(held, Keyed) and not held.of_numbers:
                held = pick(f"{name}.{field}", held, path, shape)[1]
            if isinstance(held, Transformation):
                yield from links_at(held, path, shape)


def search(
    tx: ChainLike, params: Params, state: State, read: Callable[[LinkLike, Params, PyTree], PyTree | None]
) -> dict[str, PyTree]:
    """The results of ``read`` for the links of a chain and of its inner chains, by name.

    ``read`` takes a link, the parameters as the link sees them and its entry of the state. It returns a tree like
    the parameters, with ``None`` for leaves without a result, or ``None`` if the link has no result at all. If several
    links have the same name, those in inner chains are named as in ``"accumulate/ema_params"``.
    """
    own: dict[str, PyTree] = {}
    inner: dict[str, dict[str, PyTree]] = {}
    for name, link in tx.links.items():
        if (tree := read(link, params, state.links.get(name))) is not None:
            own[name] = tree
        elif isinstance(link, Wrapper) and link.passes_updates:
            inner[name] = link.visit(functools.partial(search, read=read), params, state.links[name])
    places = Counter(last for found in (own, *inner.values()) for last in set(map(_last, found)))
    return own | {
        name if places[_last(name)] == 1 else f"{wrapper}/{name}": tree
        for wrapper, found in inner.items()
        for name, tree in found.items()
    }


def select(found: dict[str, PyTree], name: str | None, what: str) -> PyTree:
    """The result with this name, or the only one."""
    if name is None and len(found) > 1:
        raise PlainKeyError(f"several links keep {what}: say which by name= one of {', '.join(found)}")
    name = next(iter(found)) if name is None else name
    if name not in found:
        hint, known = did_you_mean(name, found), ", ".join(found)
        raise PlainKeyError(f"no link {name!r} keeps {what}{hint}; those that do are {known}")
    return found[name]


def _last(name: str) -> str:
    """The link's name without those of the links that hold it."""
    return name.rpartition("/")[2]


def init_inner(tx: ChainLike, params: Params) -> State:
    """The first state of the inner chain, without warnings, which the ``init`` of the outermost chain gives."""
    return engine.init(tx.links, params)


def forwarded_arguments(tx: ChainLike, extra: Extra, params: Params = None) -> Extra:
    """The ``extra`` arguments that the chain reads.

    Leaves that the chain does not see are filled in from ``params`` before functions of the parameters are called.
    """

    def forwarded(x: Any) -> Any:
        if params is None or not callable(x):
            return x
        return lambda visible: x(fill_holes(visible, widened(params)))

    return {name: forwarded(extra[name]) for link in tx.links.values() for name in link.extra}


def drop_holes(updates: Updates, params: Params) -> tuple[Updates, Params]:
    """Both trees with ``None`` for leaves that are not trained, so that they can pass through ``lax.cond``."""
    flat = flatten(updates if params is None else params)
    us = flat.line_up("The updates", updates)
    if params is None:
        return flat.build([u if _moves(u) else None for u in us]), None
    acted_on = [is_trainable(p) for p in flat.leaves]
    return (
        flat.build([u if t and _moves(u) else None for u, t in zip(us, acted_on)]),
        flat.build([p if t else None for p, t in zip(flat.leaves, acted_on)]),
    )


def fill_holes(new: PyTree, old: PyTree) -> PyTree:
    """``new`` with the leaves of ``old`` in place of ``None``."""
    flat = flatten(old)
    return flat.build([o if n is None else n for n, o in zip(flat.line_up("The leaves", new), flat.leaves)])


def as_chains_return(updates: Updates, params: Params) -> Updates:
    """The updates in the dtypes that a chain's ``update`` returns: those of the parameters, but float32 or wider."""

    def widen(u: Leaf, p: Leaf) -> Leaf:
        return None if u is None else jnp.asarray(u, slot_dtype(dtype_of(u if p is None else p)))

    return jax.tree.map(widen, updates, updates if params is None else params, is_leaf=lambda x: x is None)


def _moves(u: Leaf) -> bool:
    return u is not None and getattr(u, "dtype", None) != jax.dtypes.float0 and is_trainable(u)
