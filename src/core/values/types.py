"""Type aliases. Most are `Any` to a type checker, since a pytree may be any object: they document what is meant."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax

PyTree: TypeAlias = Any
"""Containers of arrays, as `jax.tree` takes them."""
TreeDef: TypeAlias = Any
"""The structure of a pytree, as `jax.tree.structure` returns it."""
Params: TypeAlias = PyTree
"""The tree of parameters. Only floating-point and complex arrays are trained."""
Updates: TypeAlias = PyTree
"""A tree like the parameters: gradients, or what links made of them. ``None`` for leaves without an update."""
Leaf: TypeAlias = Any
"""A leaf of such a tree: an array, its shape and dtype (`jax.ShapeDtypeStruct`), a number or ``None``."""
Scalar: TypeAlias = jax.Array | float
"""A number: a Python number, which is a constant to XLA, or an array, which may be traced."""
Scalars: TypeAlias = Any
"""What `Leafwise.scalars` returns: any pytree."""
DType: TypeAlias = Any
"""Anything that JAX accepts as a dtype."""
Extra: TypeAlias = dict[str, Any]
"""The extra arguments of ``update`` and ``step``, by name."""
HyperValue: TypeAlias = Any
"""Anything that a hyperparameter accepts: a number, a schedule, a function of the step, or a table by path."""
