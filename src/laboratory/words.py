"""A comparison as tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..core.values.text import aligned
from .differences import SEEDLESS
from .separability import NoGrid, Separability
from .statistics import EXACT, PERCENT

if TYPE_CHECKING:
    from .comparison import Comparison


def words(c: Comparison) -> str:
    """All that can be said without pictures."""
    parts = [aligned(summary(c), left=(0, 1))]
    if len(c.orders) > 1:
        parts.append(aligned(difference_table(c), left=(0, 5)))
    if lines := [f"{order}: {found}" for order, found in separabilities(c)]:
        parts.append("\n".join(lines))
    if found := notes(c):
        parts.append("\n".join(found))
    return "\n\n".join(parts)


def summary(c: Comparison) -> list[list[str]]:
    """A row for each order, as text, under a heading."""
    fresh, n = bool(c.fresh_seeds), len(c.fresh_seeds or c.seeds)
    head = ["order", "best setting", f"{c.metric}, mean of {n}{' fresh' * fresh}", f"{PERCENT} interval", "diverged"]
    head += [f"mean of {len(c.seeds)} in tuning"] * fresh + ["diverged in tuning"] * (fresh or c.optimistic)
    cells = [head]
    for order in c.orders:
        scores, (low, high) = c.best_scores(order), c.interval(order)
        tuning = c.scores[c.rows(order)]
        row = [order, c.setting(order), f"{scores.mean():.4g}", "" if math.isnan(low) else f"{low:.4g} to {high:.4g}"]
        row.append(f"{np.isinf(scores).sum()} of {len(scores)} runs")
        row += [f"{tuning[c._best(order)].mean():.4g}"] * fresh
        cells.append([*row, f"{np.isinf(tuning).sum()} of {tuning.size} runs"][: len(head)])
    return cells


def difference_table(c: Comparison) -> list[list[str]]:
    """A row for each difference, as text, under a heading."""
    cells = [["first less second", "mean", f"{PERCENT} interval", "p", "adjusted p", ""]]
    for d in c.differences():
        shown = "" if math.isnan(d.low) else f"{d.low:+.3g} to {d.high:+.3g}"
        mean, p, adjusted = (
            "" if math.isnan(x) else f"{x:{f}}" for x, f in ((d.mean, "+.3g"), (d.p, ".3g"), (d.adjusted, ".3g"))
        )
        cells.append([f"{d.first} − {d.second}", mean, shown, p, adjusted, d.verdict])
    return cells


def notes(c: Comparison) -> list[str]:
    """What a reader should know before believing the tables."""
    failed = [f"{name}: `train` failed: {e}." for name, e in zip(c.settings["order"], c.errors) if e]
    failed += [f"{name}: `train` failed with the fresh seeds: {e}." for name, e in zip(c.orders, c.fresh_errors) if e]
    found = list(dict.fromkeys(failed))
    found += [f"{order}: {SEEDLESS}." for order in c.orders if c.seedless(order)]
    if c.optimistic:
        found.append("Settings are scored on the seeds that chose them, so all means are optimistic (see `fresh`).")
    if drawn_flips(c):
        found.append(f"With more than {EXACT} seeds, the sign-flip test draws flips: its p-values are not exact.")
    found.append(f"A lower {c.metric} is better.")
    for order in c.orders:
        found += [f"{order}: {edge}, so a better one may lie beyond." for edge in c.edges(order)]
        found += [f"{order}: nothing is said about tuning one field after the other. {e}" for e in _no_grid(c, order)]
    return found


def drawn_flips(c: Comparison) -> bool:
    """Whether a p-value is from drawn flips, and so not exact."""
    return len(c.fresh_seeds or c.seeds) > EXACT and any(d.test == "sign-flip" for d in c.differences())


def separabilities(c: Comparison) -> Iterator[tuple[str, Separability]]:
    """Those of the orders that have one."""
    for order in c.orders:
        try:
            yield order, c.separability(order)
        except NoGrid:
            continue


def _no_grid(c: Comparison, order: str) -> Iterator[str]:
    """Why an order with several fields has no separability."""
    if len(c.fields(order)) < 2:
        return
    try:
        c.separability(order)
    except NoGrid as e:
        yield f"{e}."
