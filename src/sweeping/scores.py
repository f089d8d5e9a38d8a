"""Scores of runs, of which lower ones are better, and the order of settings by them."""

from __future__ import annotations

import math

import numpy as np


def scored(results: np.ndarray, largest: float = math.inf) -> np.ndarray:
    """Results as scores: infinite for a run that diverged, of which the result is not finite or above ``largest``."""
    x = np.asarray(results, np.float64)
    return np.where(np.isfinite(x) & (x <= largest), x, math.inf)


def ranked(scores: np.ndarray) -> np.ndarray:
    """The rows of scores ``[setting, seed]``, the best first: by the number of diverged runs, then by the mean."""
    lost = np.isinf(scores)
    means = np.where(lost, 0.0, scores).sum(axis=1) / np.maximum(1, (~lost).sum(axis=1))
    return np.lexsort((means, lost.sum(axis=1)))
