"""Transformations of other libraries as links."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import all_leaves

from ...core.facade.link import Treewise, transform
from ...core.facade.order import ROLES
from ...core.values.tree import Flat, flatten
from ...core.values.value import derived, static
from ..shared.wrappers import drop_holes, fill_holes


@transform
class from_optax(Treewise):
    """An Optax ``GradientTransformation`` (or anything with its ``init`` and ``update``) as a link.

    Its state appears in the chain's as it is. It cannot be compared, written as JSON or swept,
    since it is made of closures; everything else works.

    It sees ``None`` in place of what no optimizer acts on, such as integers and PRNG keys, and of parameters that have
    no gradient at a step. The latter keep what it holds for them: leaves of those trees in its state that have the
    containers of the parameters. Where no parameter has a gradient it is not called.
    """

    transformation: Any = static("what has init(params) and update(updates, state, params)")
    arguments: tuple[str, ...] = static("names of the extra arguments to pass on to its update", default=())
    role: str = static("what it is for, such as precondition", default="other", one_of=tuple(ROLES))  # pyright: ignore[reportIncompatibleVariableOverride]

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
    """The parameters that move at a step, out of the trees that are like them wherever they stand in others."""

    def __init__(self, moving: Flat, params: Any) -> None:
        self.moving, self.params = moving, params

    def cut(self, x: Any) -> Any:
        """``x`` with holes for what does not move; functions of the parameters take trees with such holes."""

        def cut(part: Any) -> Any:
            if callable(part) and self.params is not None:
                return lambda there: part(fill_holes(there, self.params))
            if not self._is_like(part):
                return part
            return self._pairs(lambda u, own: None if u is None and all_leaves([own]) else own, part)

        return jax.tree.map(cut, x, is_leaf=self._is_like)

    def filled(self, new: Any, old: Any) -> Any:
        """``new`` with the leaves of ``old`` in the holes that `cut` has made."""
        parts, treedef = jax.tree.flatten(old, is_leaf=self._is_like)

        def fill(own: Any, was: Any) -> Any:
            return self._pairs(lambda u, a, b: b if u is None else a, own, was) if self._is_like(was) else own

        return treedef.unflatten(map(fill, treedef.flatten_up_to(new), parts))

    def _pairs(self, f: Callable[..., Any], *trees: Any) -> Any:
        flat = self.moving
        return flat.build([f(*own) for own in zip(flat.leaves, *(flat.line_up("The leaves", x) for x in trees))])

    def _is_like(self, x: Any) -> bool:
        """Whether ``x`` has the containers of the parameters, with a leaf or nothing in place of each."""
        try:
            parts = self.moving.treedef.flatten_up_to(x)
        except (ValueError, TypeError, KeyError):
            return False
        return all(all_leaves([part]) or not jax.tree.leaves(part) for part in parts)
