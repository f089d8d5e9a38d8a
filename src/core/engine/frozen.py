"""A tree taken apart into its arrays and what is constant, for the static arguments of `jax.jit`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax.tree_util import tree_flatten, tree_unflatten

from ..values.contents import is_array
from ..values.types import PyTree


class Frozen(NamedTuple):
    """A tree without its arrays: hashable, so that ``jit`` treats what is left as constant."""

    treedef: Any
    constants: tuple[Any, ...]

    def thaw(self, arrays: list[jax.Array]) -> PyTree:
        """The tree, with the arrays put back."""
        left = iter(arrays)
        return tree_unflatten(self.treedef, [next(left) if c is _ARRAY else c for c in self.constants])


_ARRAY = "array"  # stands in `Frozen.constants` for an array


def freeze(tree: PyTree) -> tuple[Frozen, list[Any]]:
    """The constants of a tree, and its arrays."""
    leaves, treedef = tree_flatten(tree)
    return Frozen(treedef, tuple(_ARRAY if is_array(x) else x for x in leaves)), [x for x in leaves if is_array(x)]
