"""The arrays of a state that belong together, and the chains within a chain that keep them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..engine.protocol import ChainLike, LinkLike, Links
from ..engine.state import State
from ..values.tree import flatten
from ..values.types import Params, PyTree
from .telemetry import within

Place = tuple[tuple[str, str], ...]
"""The position of an inner chain's state: a link, and the key in its entry, for each level of nesting."""


def all_links(tx: ChainLike) -> Iterator[tuple[str, LinkLike]]:
    """The links of a chain and of the chains that they hold, with their names."""
    for name, link in tx.links.items():
        yield name, link
        for inner in link.inner.values():
            yield from all_links(inner)


class Part(NamedTuple):
    """Arrays of a link that are initialized together: the slots for one parameter, or the state for the whole tree."""

    place: Place
    prefix: str
    """The prefix of the names in this chain's state."""
    link_name: str
    link: LinkLike
    path: str | None
    """The parameter's path; ``None`` for the whole tree."""
    param: Any
    """The parameter; ``None`` for the whole tree."""
    slots: dict[str, PyTree]
    """For each slot the names of its arrays, in the structure of the slot."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape, with an additional last axis of 2 for complex ones."""
        return np.shape(self.param) + (2,) * jnp.iscomplexobj(self.param)

    def names(self, slot: str) -> list[str]:
        return jax.tree.leaves(self.slots.get(slot))

    @property
    def all_names(self) -> list[str]:
        return jax.tree.leaves(self.slots)


class Scope(NamedTuple):
    """A chain and its state, within the chains that hold it."""

    links: Links
    params: Params
    """The parameters as the chain sees them."""
    state: State
    names: State
    """The name of each array of ``state``."""
    place: Place = ()
    prefix: str = ""
    parent: Scope | None = None

    @property
    def head(self) -> str:
        """What the names of the links' arrays begin with."""
        return f"{self.prefix}links/" if self.prefix else ""

    @property
    def prefix_around(self) -> str:
        """The prefix of the chain around it."""
        return self.parent.prefix if self.parent is not None else ""

    def within(self) -> Iterator[Scope]:
        """This chain, and those within it."""
        yield self
        for name, link in self.links.items():
            if name not in self.state.links:
                continue
            entry = self.names.links[name]
            for key, links, params, state in within(name, link, self.state, self.params):
                place, prefix = (*self.place, (name, key)), f"{self.head}{name}/{key}/"
                yield from Scope(links, params, state, entry[key], place, prefix, self).within()

    def parts(self) -> Iterator[Part]:
        """The parts of the chain's own state."""
        flat = flatten(self.params)
        for name, link in self.links.items():
            if name not in self.state.links:
                continue
            entry, state = self.names.links[name], self.state.links[name]
            kept, first = (x if isinstance(x, dict) else {"": x} for x in (entry, state))
            own = [key for key in kept if key not in link.slots and not isinstance(first[key], State)]
            others = {key: kept[key] for key in own}
            columns = [flat.line_up(f"The slots {slot!r}", entry[slot]) for slot in link.slots]
            for path, p, *own in zip(flat.paths, flat.leaves, *columns):
                if any(x is not None for x in own):
                    yield Part(self.place, self.prefix, name, link, path, p, dict(zip(link.slots, own)))
            if jax.tree.leaves(others):
                yield Part(self.place, self.prefix, name, link, None, None, others)


def under_old_paths(params: Params, old_paths: Mapping[str, str]) -> Params:
    """The parameters under the paths that they had."""
    if not old_paths:
        return params
    return {old_paths.get(path, path): p for path, p in flatten(params).items()}
