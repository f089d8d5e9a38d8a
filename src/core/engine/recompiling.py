"""A warning for runs that compile every few steps, as numbers of the chain change and outside ``jit`` are constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable

import jax
from jax.tree_util import keystr, tree_flatten_with_path

from ..values.warning import warn
from .frozen import Frozen
from .protocol import Links

OFTEN, FEW = 5, 10
"""The compilations in a row after which to warn, and the most steps that are taken with each."""


@dataclasses.dataclass
class Uses:
    """How a compiled walk was used."""

    frozen: Frozen
    """The chain for which it was compiled."""
    steps: int = 0
    """The number of its steps."""
    last: jax.Array | None = None
    """The step count that it returned last. A run that goes on has this very array."""
    row: int = 1
    """Compilations of one run until this one, for chains that differ in numbers only, with few steps for each."""

    def note(self, links: Links, before: jax.Array, after: jax.Array) -> None:
        """Note a step, by the counts before and after it. Warns if it was compiled for a run that compiles often."""
        self.steps, self.last = self.steps + 1, after
        if self.steps > 1:
            return
        kind = self.frozen.treedef, tuple(links)
        previous = _latest.pop(kind, None)
        _latest[kind] = self
        if len(_latest) > 64:
            del _latest[next(iter(_latest))]
        if previous is None or previous.last is not before or previous.steps > FEW:
            return
        self.row = previous.row + 1
        if self.row >= OFTEN and kind not in _told:
            _told.add(kind)
            _tell(links, previous.frozen, self.frozen)


_latest: dict[Hashable, Uses] = {}  # by the chain without its numbers
_told: set[Hashable] = set()


def _tell(links: Links, old: Frozen, new: Frozen) -> None:
    names = list(links)
    paths = [path for path, _ in tree_flatten_with_path(tuple(links.values()))[0]]
    changed = [
        f"`{names[path[0].idx]}.{keystr(path[1:], simple=True, separator='.')}`"
        for path, a, b in zip(paths, old.constants, new.constants)
        if a is not b and a != b
    ]
    warn(
        f"{', '.join(changed)} changed {OFTEN - 1} times within a few steps, and outside jit each new number compiles "
        "the step again: let a schedule say what it is at each step, give it as an array, jnp.asarray(number), or pass "
        "the chain to a compiled step, jax.jit(lambda tx, params, state, grads: tx.step(params, state, grads))"
    )
