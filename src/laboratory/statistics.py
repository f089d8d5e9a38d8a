"""Intervals and a test for runs from the same seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

CONFIDENCE = 0.95
PERCENT = f"{round(100 * CONFIDENCE)} %"
LEVEL = f"{1 - CONFIDENCE:.2g}"
RESAMPLES = 9999
EXACT = 20
"""The largest number of seeds for which all flips of signs are counted; beyond it they are drawn."""


def mean(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    return x.mean(axis=-1)


def bootstrap(
    x: np.ndarray, statistic: Callable[[np.ndarray], Any] = mean, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of a statistic of the runs, at 95 %, from resampled seeds (Efron 1979).

    ``statistic`` takes runs by seed along the last axis of ``x``, and returns a number. NaN for a single seed.
    """
    n = x.shape[-1]
    if n < 2:
        return math.nan, math.nan
    which = np.random.default_rng(seed).integers(0, n, (resamples, n))
    found = mean(x[which]) if statistic is mean and x.ndim == 1 else [statistic(x[..., w]) for w in which]
    low, high = np.percentile(found, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def sign_flip(differences: np.ndarray, draws: int = 99_999, seed: int = 0) -> float:
    """The two-sided p-value of Fisher's randomization test (1935): the share of flips with a mean as far from 0.

    If there were no difference, the sign of each seed's would be chance. The test is exact up to n = 20, where all 2^n
    flips are counted; beyond it ``draws`` of them are drawn, and the one that was seen is added.
    """
    d = np.asarray(differences, np.float64)
    seen = abs(d.sum()) - 1e-12 * np.abs(d).sum()  # sums of the same numbers in another order are equal
    if len(d) <= EXACT:
        sums = np.zeros(1)
        for x in d:
            sums = np.concatenate([sums - x, sums + x])
        return float(np.mean(np.abs(sums) >= seen))
    signs = 2.0 * np.random.default_rng(seed).integers(0, 2, (draws, len(d))) - 1
    return float((1 + np.sum(np.abs(signs @ d) >= seen)) / (1 + draws))


def sign_test(wins: int, losses: int) -> float:
    """The p-value of the exact two-sided sign test (binomial). Ties are not counted; 1 without any win or loss.

    >>> sign_test(6, 0), sign_test(3, 3)
    (0.03125, 1.0)
    """
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)


def holm(p: Sequence[float]) -> list[float]:
    """p-values that hold for all of several tests together (Holm 1979)."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted


def seeds_needed(tests: int) -> int:
    """The fewest seeds with which one of several tests can reach 5 %: 2/2^n of the flips are as extreme.

    >>> seeds_needed(1), seeds_needed(3)
    (6, 7)
    """
    return math.ceil(math.log2(2 * tests / (1 - CONFIDENCE) * (1 - 1e-12)))
