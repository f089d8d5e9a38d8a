"""A comparison in the folder of its sweep."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..sweeping.folder import Folder, write_json
from ..sweeping.plan import absent
from .comparison import Comparison

FILE = "comparison.json"
FIELDS = (
    *("seeds", "metric", "diverged", "fresh_seeds", "against", "softness", "metadata"),
    *("errors", "fresh_errors"),
)


def save(c: Comparison, folder: str | os.PathLike[str]) -> None:
    """Write what `load` reads."""
    kept = Folder.read(folder)
    data = {name: getattr(c, name) for name in FIELDS} | {"diverged": str(c.diverged)}
    data["orders"] = {name: kept.add_chains(chains) for name, chains in c.orders.items()}
    kept.save()  # with chains of which no run succeeded
    write_json(pathlib.Path(folder) / FILE, data)


def load(folder: str | os.PathLike[str]) -> Comparison:
    """See `Comparison.load`."""
    kept, file = Folder.read(folder), pathlib.Path(folder) / FILE
    if not file.is_file():
        remedy = "if a comparison was begun there, call `compare` again to finish it"
        raise FileNotFoundError(f"{file} does not exist, so {folder} has no finished comparison: {remedy}")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        numbers: dict[str, list[int]] = data.pop("orders")
        fields: dict[str, Any] = {k: tuple(x) if isinstance(x, list) else x for k, x in data.items()}
        fields["diverged"] = float(fields["diverged"])
        new = Comparison(orders={}, results={}, fresh={}, **fields)
        unknown = [i for which in numbers.values() for i in which if not 0 <= i < len(kept.index["chains"])]
        if unknown:
            raise ValueError(f"no chains {unknown} in the folder")
    except Exception as e:
        raise ValueError(f"{file} is not a comparison: {type(e).__name__}: {e}") from None
    new = dataclasses.replace(new, orders={name: _chains(kept, which) for name, which in numbers.items()})
    chains = [i for which in numbers.values() for i in which]
    rows = {run: row for part in kept.parts() for run, row in kept.rows(part).items()}
    new = dataclasses.replace(new, results=_stacked(folder, rows, chains, new.seeds, new.errors))
    if not new.fresh_seeds:
        return new
    best = [numbers[order][new._best(order)] for order in new.orders]
    failures = [new.failure(order) for order in new.orders]
    return dataclasses.replace(new, fresh=_stacked(folder, rows, best, new.fresh_seeds, failures))


def _chains(kept: Folder, which: Sequence[int]) -> tuple[Any, ...]:
    try:
        return tuple(map(kept.chain, which))
    except ValueError as e:
        train = kept.index.get("train", "")
        e.add_note(
            f"{kept.path} has chains with links or schedules that are not known here: before `Comparison.load`, import "
            f"the modules that define them. They were trained by {train}."
        )
        raise


def _stacked(
    folder: Any, rows: dict[Any, Any], chains: Sequence[int], seeds: Sequence[int], errors: Sequence[str]
) -> dict[str, np.ndarray]:
    """The results ``[chain, seed, ...]`` by name: NaN for a run of a chain that failed."""
    failed = {i for i, error in zip(chains, errors) if error}
    if missing := sum((i, seed) not in rows for i in chains if i not in failed for seed in seeds):
        raise ValueError(f"{folder} lacks {missing} runs of its comparison: call `compare` again to make them")
    first = next(iter(rows.values()))
    each = [[rows.get((i, seed), {name: absent(x) for name, x in first.items()}) for seed in seeds] for i in chains]
    return {name: np.stack([[row[name] for row in of] for of in each]) for name in first}
