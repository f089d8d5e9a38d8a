"""The entries of a state: what each link keeps."""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp

from ..values.types import Leaf, PyTree
from .hooks import check_entry
from .protocol import LinkLike

Entries: TypeAlias = dict[str, PyTree]
"""The entries of a state, by link."""


def global_state(link: LinkLike, entry: PyTree) -> dict[str, jax.Array]:
    """The global state of a leafwise link, from its entry of the state."""
    return {k: x for k, x in entry.items() if k not in link.slots} if isinstance(entry, dict) else {}


def merged(entries: Entries, new: Entries) -> Entries:
    """The entries of the state, with the slots and global states in ``new`` replaced."""
    return {**entries, **{name: {**entries[name], **entry} for name, entry in new.items()}} if new else entries


def with_entry(entries: Entries, name: str, entry: PyTree) -> Entries:
    """The entries of the state, with that of a whole-tree link replaced if it has one."""
    if name not in entries:
        return entries
    made = jax.tree.map(like, entry, entries[name])
    check_entry(name, entry, entries[name])
    return {**entries, name: made}


def like(new: Leaf, old: Leaf) -> Leaf:
    """``new`` in the dtype of ``old``, so that the avals of the state do not change."""
    return jnp.asarray(new, old.dtype) if hasattr(old, "dtype") and hasattr(new, "dtype") else new
