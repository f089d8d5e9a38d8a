"""Separate chains for groups of parameters, and frozen parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp

from ...core.engine import engine
from ...core.engine.protocol import Visit
from ...core.facade.link import Leafwise, transform
from ...core.facade.transformation import Transformation
from ...core.values.contents import code
from ...core.values.tables import Keyed, pick
from ...core.values.tree import Flat, dtype_of, flatten, is_trainable, slot_dtype
from ...core.values.types import Leaf, Params, PyTree, Updates
from ...core.values.value import child
from ..shared.wrappers import Entry, Wrapper, check_chain, fill_holes, forwarded_arguments, init_inner

DEFAULT = "default"
"""The key of the default's state; the other keys are those of the table."""


@transform
class freeze(Leafwise):
    """Do not change the parameters, whatever the gradients. In a `partition`, they also get no state."""

    equation = "u ← 0"

    def leaf(self, u, slot, p, scalars):
        return -jnp.zeros_like(u)  # −0, since −0 + 0 would turn a parameter of −0 into 0


class Group(NamedTuple):
    """The parameters of one chain."""

    name: str
    tx: Transformation
    members: list[int]
    frozen: bool

    def of(self, flat: Flat, leaves: list[Leaf]) -> PyTree:
        """The tree of the group's leaves, with ``None`` for the others."""
        mine = set(self.members)
        return flat.build([x if i in mine else None for i, x in enumerate(leaves)])


@transform
class partition(Wrapper):
    """Assign parameters to chains by path, by `by_path`, or by the number of their axes, by `by_ndim`.

    A chain sees only the parameters of its group: global norms are those of the group, and
    guards reject the step for the group alone. Paths, also in tables by path, are those of the whole tree.
    To pass on the updates of a group unchanged, use ``chain()``.

    Errors: ``KeyError`` for a parameter that no pattern matches, if there is no default. Warns
    (`ChainWarning`) about a pattern that decides for no parameter.

    >>> import jax, chainax as cx
    >>> tx = cx.partition(cx.by_path({"embed": cx.adam(1e-4), "bias": cx.freeze()}, default=cx.adamw(1e-3)))
    >>> params = {"embed": jax.numpy.ones(2), "bias": jax.numpy.ones(2), "kernel": jax.numpy.ones(2)}
    >>> list(tx.init(params).links["partition"])
    ['embed', 'default']
    """

    table: Any = child("by_path({pattern: chain}, default=chain), or by_ndim")

    inner_updates_differ = True
    equation = "u ← tx(u), by the parameter's path"

    def check(self) -> None:
        table = self.table
        if not isinstance(table, Keyed):
            raise ValueError(
                f"`partition.table` must be by_path({{pattern: chain}}, default=chain), got {code(self.table)}"
            )
        table.map(lambda label, tx: check_chain(f"partition.table`: `{label}", tx))
        if table.default is not None and DEFAULT in table.keys:
            raise ValueError("`partition.table`: 'default' names the default's state: write the pattern as '(default)'")

    def groups(self, flat: Flat, moves: list[bool]) -> Iterator[Group]:
        """The leaves that move, grouped by chain."""
        table = self.table
        members: dict[int, list[int]] = {}
        for i, path in enumerate(flat.paths):
            if moves[i]:
                members.setdefault(pick("partition.table", table, path, jnp.shape(flat.leaves[i]))[0], []).append(i)
        for k, (name, tx) in enumerate(self.inner.items()):
            links = tx.links.values()
            yield Group(name, tx, members.get(k, []), bool(links) and all(isinstance(link, freeze) for link in links))

    def init_tree(self, params):
        flat = flatten(params)
        groups = self.groups(flat, [is_trainable(p) for p in flat.leaves])
        return {g.name: init_inner(g.tx, g.of(flat, flat.leaves)) for g in groups if not g.frozen}

    def step_tree(self, params, state, updates, at):
        flat = flatten(params)
        out, us, entries = list(flat.leaves), flat.line_up("The updates", updates), {}
        for group in self.groups(flat, [is_trainable(p) for p in flat.leaves]):
            if group.frozen:
                continue
            mine, extra = group.of(flat, flat.leaves), forwarded_arguments(group.tx, at.extra, params)
            us_of_group, links = group.of(flat, us), group.tx.links
            new, entries[group.name] = engine.step(links, mine, state[group.name], us_of_group, extra)
            self._put(out, group, flat, new)
        return flat.build(out), entries

    def update_tree(self, updates, state, params, at):
        flat = flatten(updates if params is None else params)
        us, entries = flat.line_up("The updates", updates), {}
        out = list(us)
        for group in self.groups(flat, [is_trainable(p) for p in flat.leaves]):
            if group.frozen:
                for i in group.members:
                    out[i] = None if us[i] is None else -jnp.zeros_like(us[i], slot_dtype(dtype_of(flat.leaves[i])))
                continue
            mine = None if params is None else group.of(flat, flat.leaves)
            extra = forwarded_arguments(group.tx, at.extra, params)
            new, entries[group.name] = group.tx.update(group.of(flat, us), state[group.name], mine, **extra)
            self._put(out, group, flat, new)
        return flat.build(out), entries

    def seen_within(self, params: Params) -> dict[str, Params]:
        flat = flatten(params)
        groups = self.groups(flat, [is_trainable(p) for p in flat.leaves])
        return {group.name: group.of(flat, flat.leaves) for group in groups}

    def _put(self, out: list[Leaf], group: Group, flat: Flat, new: Updates) -> None:
        leaves = flat.line_up("The result", new)
        for i in group.members:
            out[i] = leaves[i]

    def visit(self, visit: Visit, params: Params, entry: Entry) -> dict[str, PyTree]:
        flat, found = flatten(params), {}
        for group in self.groups(flat, [is_trainable(p) for p in flat.leaves]):
            if group.frozen:
                continue
            for name, tree in visit(group.tx, group.of(flat, flat.leaves), entry[group.name]).items():
                found[name] = fill_holes(tree, found[name]) if name in found else tree
        return found
