"""Names for what passes through the library. A pytree may be anything, so for a type checker most of them are."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax

PyTree: TypeAlias = Any
"""Containers of arrays, as `jax.tree` takes them."""
Params: TypeAlias = PyTree
"""The tree of what is trained. Leaves that are no floating-point or complex arrays are left alone."""
Updates: TypeAlias = PyTree
"""A tree like the parameters, of gradients or of what links have made of them; ``None`` for leaves without one."""
Leaf: TypeAlias = Any
"""A leaf of such a tree: an array, its shape (`jax.ShapeDtypeStruct`), a number or ``None``."""
Scalar: TypeAlias = jax.Array | float
"""A number: one that XLA knows when it compiles, as a Python number, or a traced one."""
Scalars: TypeAlias = Any
"""What `Leafwise.scalars` returns, a pytree of the link's choice."""
DType: TypeAlias = Any
"""What JAX takes for a dtype."""
Extra: TypeAlias = dict[str, Any]
"""The extra arguments of ``update`` and ``step``, by name."""
HyperValue: TypeAlias = Any
"""What a hyperparameter may be set to: a number, a schedule, or a table by path."""
