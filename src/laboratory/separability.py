"""Whether two hyperparameters can be tuned one after the other."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

import numpy as np

from .statistics import PERCENT, bootstrap


class NoGrid(ValueError):
    """The settings are no grid over which the best value of one field could be followed."""


@dataclasses.dataclass(frozen=True)
class Separability:
    """How the best value of one hyperparameter depends on another."""

    x: str
    y: str
    slope: float
    """Of log(best y) against log(x), for the mean scores: 0 if they are separable, ±1 on a diagonal."""
    low: float
    high: float
    """The percentile bootstrap interval of the slope over the seeds, at 95 %."""
    by_seed: tuple[float, ...]
    """The slope of each seed alone."""
    cost: float
    """The mean increase of the score if y is tuned at another x: what is lost by tuning one after the other."""
    best: tuple[int, ...]
    """The index of the best y at each x."""

    at_edge: int = 0
    """At how many values of x the best y is the smallest or the largest that was tried."""
    short: tuple[str, str] = ("", "")
    """The short names of x and y."""

    @property
    def says(self) -> str:
        """Whether the two can be tuned one after the other, as far as the seeds tell."""
        x, y = self.short
        if math.isnan(self.slope):
            return f"all runs diverged at too many values of {x} to tell how the best {y} depends on it"
        if len(self.by_seed) < 2:
            return f"one seed cannot tell whether the best {y} depends on the {x}"
        if abs(self.slope) <= SEPARABLE and self.low >= -2 * SEPARABLE and self.high <= 2 * SEPARABLE:
            return f"the best {y} hardly depends on the {x}: tune one after the other"
        if abs(self.slope) > SEPARABLE and self.low * self.high > 0:
            change = "smaller" if self.slope < 0 else "larger"
            return f"the larger the {x}, the {change} the best {y}: tune them together"
        return f"these seeds do not tell whether the best {y} depends on the {x}"

    @property
    def warning(self) -> str:
        """What biases the slope; empty if nothing does."""
        x, y = self.short
        if not self.at_edge:
            return ""
        return (
            f"at {self.at_edge} of {len(self.best)} values of {x} the best {y} lies at the edge of the grid, which "
            "biases the slope towards 0"
        )

    def __str__(self) -> str:
        x, y = self.short
        if math.isnan(self.slope):
            return self.says
        about = ""
        if not math.isnan(self.low):
            interval = f"{PERCENT}: {self.low:+.2f} to {self.high:+.2f}"
            about = f" ({interval}; seeds one by one: {np.mean(self.by_seed):+.2f} ± {np.std(self.by_seed):.2f})"
        cost = f"{self.cost:.2g}" if math.isfinite(self.cost) else "an unknown amount, since runs diverged,"
        warning = f"\n  {self.warning}" if self.warning else ""
        return (
            f"{self.says}\n  log(best {y}) against log({x}) has slope {self.slope:+.2f}{about}\n"
            f"  a {y} tuned at one {x} costs {cost} at another{warning}"
        )


SEPARABLE = 0.25
"""The largest slope that counts as none; its interval may reach to twice that."""


def check_softness(where: str, softness: Any) -> float | None:
    """Raise unless this is ``None`` or a number from 0."""
    if softness is None:
        return None
    number = float(softness) if isinstance(softness, numbers.Real) and not isinstance(softness, bool) else math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"`{where}` must be a number from 0, or None, got {softness!r}")
    return number


def separability(
    x: str,
    xs: np.ndarray,
    y: str,
    ys: np.ndarray,
    scores: np.ndarray,
    softness: float | None = None,
    short: tuple[str, str] | None = None,
) -> Separability:
    """From scores ``[x, y, seed]``.

    The best y at each x is a mean of log(y), each value weighed by exp(−(score − best score)/softness): close scores
    count alike, so that noise does not choose between them. ``softness`` is in units of the score, by default the
    median of the settings' standard deviations over the seeds. ``short`` are short names of x and y.
    """
    softness = check_softness("separability.softness", softness)
    if min(xs.min(), ys.min()) <= 0:
        raise NoGrid(f"`separability` needs positive values, since it takes logarithms of {x!r} and {y!r}")
    if softness is None:
        spread = scores[np.isfinite(scores).all(axis=-1)].std(axis=-1)
        softness = float(np.median(spread)) if spread.size and scores.shape[-1] > 1 else 0.0

    def slope(means: np.ndarray) -> float:
        """For mean scores ``[x, y]``; an x where all runs diverged is left out."""
        known = np.isfinite(means).any(axis=1)
        if known.sum() < 2:
            return math.nan
        above = means[known] - means[known].min(axis=1, keepdims=True)
        weights = np.exp(-above / softness) if softness else (above == 0).astype(float)
        best = (weights * np.log(ys)).sum(axis=1) / weights.sum(axis=1)
        return float(np.polyfit(np.log(xs[known]), best, 1)[0])

    means = scores.mean(axis=-1)
    best = means.argmin(axis=1)
    kept = means[:, best]  # kept[i, j]: at x_i, with the y that is best at x_j
    n = len(xs)
    with np.errstate(invalid="ignore"):
        cost = float((kept - kept.diagonal()[:, None]).sum() / (n * (n - 1)))
    low, high = bootstrap(scores, lambda runs: slope(runs.mean(axis=-1)), resamples=999)
    by_seed = tuple(slope(scores[..., i]) for i in range(scores.shape[-1]))
    known = np.isfinite(means).any(axis=1)
    at_edge = int(np.isin(best[known], (0, len(ys) - 1)).sum())
    short = short or (x.rpartition(".")[2], y.rpartition(".")[2])
    return Separability(x, y, slope(means), low, high, by_seed, cost, tuple(best.tolist()), at_edge, short)
