"""Comparisons of real chains with made-up scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chainax as cx
import numpy as np
from chainax.laboratory.comparison import Comparison

RATES, DECAYS = (2.0**-6, 2.0**-4, 2.0**-2), (1e-4, 1e-3, 1e-2, 1e-1)
OFFSETS = np.array([-0.02, 0.01, 0.03, -0.01, 0.0, 0.02, -0.03, 0.04])
"""What the seeds have in common."""
ADAMW = cx.adamw(1e-3)
ORDERS = {"decoupled": ADAMW, "coupled": ADAMW.move("add_decayed_weights", before="scale_by_adam")}


def over(tx: cx.chain, rates: Sequence[float] = RATES, decays: Sequence[float] = DECAYS) -> list[cx.chain]:
    """The grid of a chain."""
    return cx.grid(tx, {"scale_by_lr.learning_rate": rates, "add_decayed_weights.weight_decay": decays})


def bowl(tx: cx.chain, tilt: float = 0.0, height: float = 1.0) -> float:
    """A score that is lowest, ``height``, at a rate of 1/16 and a decay of 0.01, or on a line of slope ``tilt``."""
    x = np.log2(float(tx["scale_by_lr"].learning_rate)) + 4
    y = np.log10(float(tx["add_decayed_weights"].weight_decay)) + 2
    return height + 0.1 * x**2 + 0.3 * (y - tilt * x) ** 2


def made(
    orders: Mapping[str, Sequence[cx.chain]],
    score: Callable[[str, cx.chain], float],
    seeds: int = 6,
    noise: Mapping[str, Sequence[float]] | None = None,
    results: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    **more: Any,
) -> Comparison:
    """Scores ``score(order, chain)``, plus the seeds' offsets, plus a order's ``noise`` by seed.

    ``results`` are further columns, as functions of the scores ``[setting, seed]``.
    """
    pairs = [(order, tx) for order, chains in orders.items() for tx in chains]
    names = np.array([order for order, _ in pairs])
    scores = np.array([score(order, tx) for order, tx in pairs])[:, None] + OFFSETS[None, :seeds]
    for order, own in (noise or {}).items():
        scores[names == order] += np.asarray(own)[None]
    found = {"loss": scores, **{name: f(scores) for name, f in (results or {}).items()}}
    return Comparison({k: tuple(x) for k, x in orders.items()}, found, tuple(range(seeds)), "loss", **more)


def two(seeds: int = 6, gap: float = 0.5, **more: Any) -> Comparison:
    """Two orders on grids, the second worse by ``gap``, with a best decay that falls with the rate."""

    def score(order: str, tx: cx.chain) -> float:
        return bowl(tx, -0.5, 1.0 + gap) if order == "coupled" else bowl(tx)

    noise = {"coupled": [0.01, -0.02, 0.015, 0.0, -0.01, 0.005, 0.012, -0.004][:seeds]}
    return made({name: over(tx) for name, tx in ORDERS.items()}, score, seeds, noise, **more)


def curves(scores: np.ndarray, points: int = 5) -> np.ndarray:
    """Curves ``[setting, seed, point]`` that fall to the scores; those of diverged runs end at half their length."""
    finite = np.where(np.isfinite(scores), scores, 1.0)[..., None]
    x = finite * (1 + 1 / np.arange(1, points + 1) - 1 / points)
    x[~np.isfinite(scores), (points + 1) // 2 :] = np.nan
    return x
