"""Trees for whole-tree links: all of them have ``None`` for leaves without an update, and results are completed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

import jax.numpy as jnp
from jax.tree_util import tree_map, tree_structure

from ..engine.protocol import LinkLike, TreewiseLike
from ..engine.step_info import StepInfo
from ..values.contents import brief, is_array
from ..values.errors import did_you_mean
from ..values.tree import Flat, flatten, is_trainable, show
from ..values.types import Params, PyTree, Updates

InitTree: TypeAlias = Callable[["Shielded", Params], PyTree]
UpdateTree: TypeAlias = Callable[["Shielded", Updates, PyTree, Params, StepInfo], tuple[Updates, PyTree]]


class Shielded(TreewiseLike, Protocol):
    """A `Treewise` link."""

    @property
    def sees_holes(self) -> bool: ...


def shield(cls: type) -> None:
    """Pass ``None`` for leaves without an update to a `Treewise` class, unless an instance declares ``sees_holes``."""
    for name, around in (("init_tree", _init_tree), ("update_tree", _update_tree)):
        hook = getattr(cls, name)
        if not hasattr(hook, "shielded") and not hasattr(hook, "__isabstractmethod__"):
            setattr(cls, name, around(hook))


def check_result(link: LinkLike, hook: str, result: object, what: str) -> tuple[PyTree, PyTree]:
    """The pair that a hook returned."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"`{type(link).__name__}.{hook}` must return {what} and the next state, got {kind(result)}")
    return result


def check_state(link: LinkLike, hook: str, new: PyTree, old: PyTree) -> None:
    """Raise unless the next state has the structure and the shapes of the previous one."""
    where = f"`{type(link).__name__}.{hook}` must return a state like the one that it got"
    if isinstance(old, dict) and isinstance(new, dict) and new.keys() != old.keys():
        raise TypeError(f"{where}, with {_listed(old)}, but returned {_listed(new)}")
    if tree_structure(new) != tree_structure(old):
        raise TypeError(f"{where}, {brief(tree_structure(old))}, but returned {brief(tree_structure(new))}")
    for (path, a), b in zip(flatten(new).items(), flatten(old).leaves):
        if a is not None and jnp.shape(a) != jnp.shape(b):
            raise TypeError(f"{where}: at {path!r} that is {show(b)}, and not {show(a)}")


def _init_tree(hook: InitTree) -> InitTree:
    @functools.wraps(hook)
    def init_tree(self: Shielded, params: Params) -> PyTree:
        if self.sees_holes:
            return hook(self, params)
        state = hook(self, tree_map(lambda p: p if is_trainable(p) else None, params))
        missing = [slot for slot in self.slots if not isinstance(state, dict) or slot not in state]
        if missing:
            found = _listed(state) if isinstance(state, dict) else kind(state)
            hint = did_you_mean(missing[0], state) if isinstance(state, dict) else ""
            raise TypeError(
                f"`{type(self).__name__}` declares the slots {self.slots}, which are keys of its state, but its "
                f"init_tree makes {found}{hint}"
            )
        return state

    init_tree.shielded = True  # pyright: ignore[reportAttributeAccessIssue]
    return init_tree


def _update_tree(hook: UpdateTree) -> UpdateTree:
    @functools.wraps(hook)
    def update_tree(
        self: Shielded, updates: Updates, state: PyTree, params: Params, at: StepInfo
    ) -> tuple[Updates, PyTree]:
        if self.sees_holes:
            return hook(self, updates, state, params, at)
        holes = _Holes(self, updates, params)
        if not any(holes.moves):
            return updates, state
        holes.check_slots(state)
        moving = holes.cut(params) if params is not None else None
        result = hook(self, holes.cut(updates), holes.cut_slots(state), moving, at)
        new, kept = check_result(self, "update_tree", result, "the updates")
        kept = holes.filled_slots(kept, state)
        check_state(self, "update_tree", kept, state)
        return holes.filled("updates", new, updates), kept

    update_tree.shielded = True  # pyright: ignore[reportAttributeAccessIssue]
    return update_tree


class _Holes:
    """The leaves of the parameters without an update at a step."""

    def __init__(self, link: LinkLike, updates: Updates, params: Params) -> None:
        self.name, self.slots = type(link).__name__, link.slots
        self.flat: Flat = flatten(updates if params is None else params)
        us = self.flat.line_up("The updates", updates)
        self.moves = [is_trainable(u) and (params is None or is_trainable(p)) for u, p in zip(us, self.flat.leaves)]

    def cut(self, tree: PyTree) -> PyTree:
        """The tree with ``None`` for leaves without an update."""
        leaves = self.flat.line_up("The arrays", tree)
        return self.flat.build([x if m else None for m, x in zip(self.moves, leaves)])

    def filled(self, what: str, new: PyTree, old: PyTree) -> PyTree:
        """``new`` with the leaves of ``old`` where there is no update."""
        news = self.flat.line_up(f"The {what} that `{self.name}` returned", new)
        olds = self.flat.line_up("The arrays", old)
        return self.flat.build([a if m else b for m, a, b in zip(self.moves, news, olds)])

    def cut_slots(self, state: PyTree) -> PyTree:
        return {k: self.cut(x) if k in self.slots else x for k, x in state.items()} if self.slots else state

    def filled_slots(self, new: PyTree, old: PyTree) -> PyTree:
        if not self.slots or not isinstance(new, dict):
            return new
        return {k: self.filled(f"slots {k!r}", x, old[k]) if k in self.slots else x for k, x in new.items()}

    def check_slots(self, state: PyTree) -> None:
        """Raise if the state has a tree like the parameters that is not a slot, and so does not fit the updates."""
        entries = state if isinstance(state, dict) else {"": state}
        for name, x in entries.items():
            if name in self.slots or not (path := self._crossed(x)):
                continue
            how = f"declare slots = {(*self.slots, name)!r}" if name else "make it a dict, and name its keys in slots"
            raise TypeError(
                f"The update at {path!r} is None, and the state of `{self.name}` has a tree like the parameters"
                f"{f', {name!r},' if name else ''} that is not a slot, so that it does not fit: {how}"
            )

    def _crossed(self, x: PyTree) -> str:
        """The path of a parameter without an update for which ``x``, a tree like the parameters, has an array."""
        if self.flat.paths == [""]:
            return ""
        try:
            leaves = self.flat.treedef.flatten_up_to(x)
        except (ValueError, TypeError, KeyError):
            return ""
        return next((p for p, m, leaf in zip(self.flat.paths, self.moves, leaves) if not m and leaf is not None), "")


def _listed(entries: Iterable[str]) -> str:
    return ", ".join(map(str, entries)) or "nothing"


def kind(x: object) -> str:
    """What a hook returned, for an error message."""
    if is_array(x):
        return show(x)
    return f"a tuple of {len(x)}" if type(x) is tuple else f"a {type(x).__name__}"
