"""Transformations from other libraries as links."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import all_leaves

from ...core.facade.link import Treewise, transform
from ...core.facade.order import ROLES
from ...core.values.tree import Flat, flatten
from ...core.values.types import Leaf, Params, PyTree
from ...core.values.value import derived, static
from ..shared.wrappers import drop_holes, fill_holes


@transform
class from_optax(Treewise):
    """An Optax ``GradientTransformation``, or any object with the same ``init`` and ``update``, as a link.

    Its state is part of the chain's state, unchanged. Since it consists of closures, it cannot be compared, written as
    JSON or swept; everything else works.

    It receives ``None`` in place of leaves that are not trained, such as integers and PRNG keys, and of parameters
    without a gradient at a step. Its state for the latter is kept: the leaves for them in those trees of its state that
    have the structure of the parameters. If no parameter has a gradient it is not called.
    """

    transformation: Any = static("an object with init(params) and update(updates, state, params)")
    arguments: tuple[str, ...] = static("names of extra arguments that its update takes", default=())
    role: str = static("its purpose, such as precondition", default="other", one_of=tuple(ROLES))  # pyright: ignore[reportIncompatibleVariableOverride]

    equation = "u ← update(u)"
    sees_holes = True

    def check(self) -> None:
        if not isinstance(self.arguments, tuple):
            raise ValueError(f"`from_optax.arguments` must be a tuple of names, got {self.arguments!r}")
        if not (callable(getattr(self.transformation, "init", None)) and hasattr(self.transformation, "update")):
            raise ValueError(f"`from_optax.transformation` must have init and update, got {self.transformation!r}")

    @derived
    def extra(self) -> tuple[str, ...]:
        return self.arguments

    def init_tree(self, params):
        return self.transformation.init(drop_holes(params, params)[1])

    def update_tree(self, updates, state, params, at):
        passed = {name: at.extra[name] for name in self.arguments}
        moving = flatten(drop_holes(updates, params)[0])
        if all(u is not None for u in moving.leaves):
            return self.transformation.update(updates, state, params, **passed)
        if all(u is None for u in moving.leaves):
            return updates, state
        some = _Some(moving, params)
        new, kept = self.transformation.update(
            some.cut(updates), some.cut(state), some.cut(params), **{name: some.cut(x) for name, x in passed.items()}
        )
        return some.filled(new, updates), some.filled(kept, state)


class _Some:
    """The parameters that have a gradient at a step. Cuts all trees that are like the parameters down to these."""

    def __init__(self, moving: Flat, params: Params) -> None:
        self.moving, self.params = moving, params

    def cut(self, x: PyTree) -> PyTree:
        """``x`` with ``None`` for parameters without a gradient. Functions of the parameters take such trees."""

        def cut(part: PyTree) -> PyTree:
            if callable(part) and self.params is not None:
                return lambda trained: part(fill_holes(trained, self.params))
            if not self._is_like(part):
                return part
            return self._pairs(lambda u, own: None if u is None and all_leaves([own]) else own, part)

        return jax.tree.map(cut, x, is_leaf=self._is_like)

    def filled(self, new: PyTree, old: PyTree) -> PyTree:
        """``new`` with the leaves of ``old`` where `cut` put ``None``."""
        parts, treedef = jax.tree.flatten(old, is_leaf=self._is_like)

        def fill(own: PyTree, before: PyTree) -> PyTree:
            if not self._is_like(before):
                return own
            return self._pairs(lambda u, a, b: b if u is None else a, own, before)

        return treedef.unflatten(map(fill, treedef.flatten_up_to(new), parts))

    def _pairs(self, f: Callable[..., Leaf], *trees: PyTree) -> PyTree:
        flat = self.moving
        return flat.build([f(*own) for own in zip(flat.leaves, *(flat.line_up("The leaves", x) for x in trees))])

    def _is_like(self, x: PyTree) -> bool:
        """Whether ``x`` has the structure of the parameters, with a leaf or ``None`` for each."""
        try:
            parts = self.moving.treedef.flatten_up_to(x)
        except (ValueError, TypeError, KeyError):
            return False
        return all(all_leaves([part]) or not jax.tree.leaves(part) for part in parts)
