"""The entries of a state: what each link keeps."""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp

from ..values.tree import Flat
from ..values.types import Leaf, PyTree
from .hooks import blamed, check_entry
from .protocol import LinkLike, Links, is_leafwise

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


def encoded_places(entries: Entries, links: Links, flat: Flat) -> set[int]:
    """The indices of leaves that have a slot in codes in one of these links."""
    slots = [entries[name][slot] for name, link in links.items() if is_leafwise(link) for slot in link.slots]
    return {i for slot in slots for i, x in enumerate(flat.treedef.flatten_up_to(slot)) if isinstance(x, dict)}


def with_encoded(entries: Entries, new: Entries, run: Links, more: Links, flat: Flat) -> tuple[Entries, set[int]]:
    """The entries, and the leaves with slots in codes, whose slots in ``run`` and ``more`` are those in ``new``."""
    places = encoded_places(entries, run, flat)

    def mixed(old: PyTree, new: PyTree) -> PyTree:
        pairs = zip(*map(flat.treedef.flatten_up_to, (old, new)))
        return flat.build([b if i in places else a for i, (a, b) in enumerate(pairs)])

    links = {**run, **more} if places else {}
    made = {name: {s: mixed(entries[name][s], new[name][s]) for s in link.slots} for name, link in links.items()}
    return merged(entries, {name: of for name, of in made.items() if of}), places


def after_rejection(links: Links, entries: Entries) -> Entries:
    """The entries of the state after a step that was rejected: those before it, with what links replace."""
    new = dict(entries)
    for name, link in links.items():
        if name in entries:
            with blamed(name):
                new[name] = link.after_rejection(entries[name])
    return new


def like(new: Leaf, old: Leaf) -> Leaf:
    """``new`` in the dtype of ``old``, so that the avals of the state do not change."""
    return jnp.asarray(new, old.dtype) if hasattr(old, "dtype") and hasattr(new, "dtype") else new
