"""A tree split into its arrays and its constants; the constants can be static arguments of `jax.jit`."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import jax
from jax.tree_util import tree_flatten, tree_unflatten

from ..values.contents import is_array
from ..values.types import PyTree, TreeDef


class Frozen(NamedTuple):
    """A tree without its arrays. It is hashable, so ``jit`` can treat it as constant."""

    treedef: TreeDef
    constants: tuple[Hashable, ...]

    def thaw(self, arrays: list[jax.Array]) -> PyTree:
        """The tree with these arrays."""
        remaining = iter(arrays)
        return tree_unflatten(self.treedef, [next(remaining) if c is _ARRAY else c for c in self.constants])


_ARRAY = object()  # the placeholder for an array in `Frozen.constants`


def freeze(tree: PyTree) -> tuple[Frozen, list[jax.Array]]:
    """The constants of a tree, and its arrays."""
    leaves, treedef = tree_flatten(tree)
    constants = tuple(_ARRAY if is_array(x) else x for x in leaves)
    return Frozen(treedef, constants), [x for x, c in zip(leaves, constants) if c is _ARRAY]
