"""What a sweep has to run, and what it has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.values.contents import code
from .folder import Folder, Row, Run
from .group import Group


class Plan:
    """The runs of a sweep in groups that are compiled together, and the results so far.

    Chains are numbered as in the folder, if there is one. A part of it that was begun is one group, as it was; the runs
    that are in none make one group a structure.
    """

    def __init__(
        self, names: Sequence[str], chains: list[Any], seeds: tuple[int, ...] | None, kept: Folder | None
    ) -> None:
        self._kept, self._seeds = kept, seeds
        self._numbers = list(range(len(chains))) if kept is None else kept.add_chains(chains)
        known = range(len(chains)) if kept is None else range(len(kept.index["chains"]))
        given = dict(zip(self._numbers, chains))
        self.chains = [given[i] if i in given or kept is None else kept.chain(i) for i in known]
        shown = dict(zip(self._numbers, names))
        self.names = [shown.get(i) or code(tx) for i, tx in zip(known, self.chains)]
        self._wanted = dict.fromkeys((i, seed) for i in self._numbers for seed in seeds or (None,))
        self.rows: dict[Run, Row] = {}
        """The results of all runs that are wanted, so far."""
        begun: list[Group] = []
        in_parts: set[Run] = set()
        for part in kept.parts() if kept else ():
            done = kept.rows(part) if kept else {}
            self.rows |= {run: row for run, row in done.items() if run in self._wanted}
            missing = [run for run in part.runs if run not in done]
            if any(run in self._wanted for run in missing):
                begun.append(Group("", part.runs, part))
                in_parts.update(missing)
        self.known = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype) for row in self.rows.values() for name, x in row.items()
        }
        structures: dict[Any, list[Run]] = {}
        for run in self._wanted:
            if run not in self.rows and run not in in_parts:
                structures.setdefault(jax.tree.structure(self.chains[run[0]]), []).append(run)
        self.groups = begun + [Group("", runs) for runs in structures.values()]
        for k, group in enumerate(self.groups, 1):
            group.what = f"structure {k} of {len(self.groups)}"

    @property
    def total(self) -> int:
        """How many runs are wanted."""
        return len(self._wanted)

    @property
    def left(self) -> int:
        """How many of them are not done."""
        return self.total - len(self.rows)

    def run(self, group: Group) -> Iterator[int]:
        """Run the batches of a group that are not done, and keep them. Yields how many wanted runs each has."""
        if group.error:
            return
        kept, done = self._kept, {}
        if kept is not None:
            part = group.part = group.part or kept.begin(group.runs, group.most)
            done = kept.rows(part)
        for which, rows in group.batches(done, self._wanted):
            if kept is not None and group.part is not None:
                kept.add(group.part, which, rows)
            before = len(self.rows)
            runs = [group.runs[i] for i in which]
            self.rows |= {run: row for run, row in zip(runs, rows) if run in self._wanted}
            yield len(self.rows) - before

    def row(self, i: int, name: str, result: jax.ShapeDtypeStruct) -> np.ndarray:
        """A result of the ``i``-th chain: ``[seed, ...]`` if there are seeds. NaN for a run that failed."""
        shown = [self.rows.get((self._numbers[i], seed)) for seed in self._seeds or (None,)]
        if None in shown and not self.error(i):
            raise RuntimeError("a run of the sweep is missing, and no error says why: this is a fault of chainax")
        rows = [absent(result) if row is None else row[name] for row in shown]
        return rows[0] if self._seeds is None else np.stack(rows)

    def error(self, i: int) -> str:
        """The first line of the error with which the runs of the ``i``-th chain failed; empty if none did."""
        found = [first_line(g.error) for g in self.groups if g.error and self._numbers[i] in g.members]
        return found[0] if found else ""


def first_line(e: Exception | None) -> str:
    """The type of an error, and the first line of its message."""
    line = (str(e).splitlines() or [""])[0]
    return f"{type(e).__name__}: {line}"[:300]


def absent(result: jax.ShapeDtypeStruct | np.ndarray) -> np.ndarray:
    """NaN in the shape of one run's result."""
    return np.full(result.shape, math.nan, result.dtype if jnp.issubdtype(result.dtype, jnp.inexact) else float)
