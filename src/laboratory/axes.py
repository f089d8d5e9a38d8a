"""How the values of a hyperparameter lie along an axis of a picture, and scores on a scale of colours."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

FEW = 7
"""Up to so many values, each has a tick of its own."""
CLIPPED = 0.9
"""Scores above this quantile have the last colour: bad settings are bad without limit."""
LOG_FROM = 3.0
"""The ratio of scores from which their scale is logarithmic."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """Where the values of a hyperparameter lie: on a logarithmic axis, a linear one, or evenly, labelled."""

    kind: str
    """``log2``, ``log10``, ``linear`` or ``even``."""
    values: np.ndarray
    """In increasing order."""

    @property
    def at(self) -> np.ndarray:
        """The coordinates of the values."""
        return np.arange(len(self.values), dtype=float) if self.kind == "even" else self.values

    @property
    def edges(self) -> np.ndarray:
        """The borders of the cells round the values, one more than these."""
        x = np.log(self.at) if self.kind.startswith("log") else self.at
        inner = (x[1:] + x[:-1]) / 2
        edges = np.concatenate([[2 * x[0] - inner[0]], inner, [2 * x[-1] - inner[-1]]])
        return np.exp(edges) if self.kind.startswith("log") else edges

    def set(self, axes: Any, side: str) -> None:
        """Set the scale, the limits and the ticks of one side, ``x`` or ``y``, of matplotlib axes."""
        if self.kind.startswith("log"):
            getattr(axes, f"set_{side}scale")("log", base=int(self.kind[3:]))
        getattr(axes, f"set_{side}lim")(self.edges[0], self.edges[-1])
        if self.kind == "even" or (len(self.values) <= FEW and (self.kind != "log2" or _whole(np.log2(self.values)))):
            labels = self.labels()
            room = 36 if side == "x" else 24 * max(map(len, labels))  # in characters
            every = -(-sum(len(label.strip("$").replace("^{", "").rstrip("}")) + 2 for label in labels) // room)
            getattr(axes, f"set_{side}ticks")(self.at[::every], labels[::every])
            getattr(axes, f"{side}axis").minorticks_off()

    def labels(self) -> list[str]:
        """The values as text, with few digits: each is off by less than a twentieth of the way to its neighbours."""
        if self.kind == "log2":
            return [f"$2^{{{power:.0f}}}$" for power in np.log2(self.values)]
        steps = np.diff(self.values)
        gaps = np.minimum(np.append(steps, np.inf), np.append(np.inf, steps))
        texts = ([f"{v:.{digits}g}" for v in self.values] for digits in range(2, 18))  # 17 digits are exact
        return next(t for t in texts if (np.abs(np.array(t, float) - self.values) <= gaps / 20).all())


def _whole(x: np.ndarray) -> bool:
    return bool(np.allclose(x, x.round(), atol=1e-6))


def scale_of(values: np.ndarray) -> Scale:
    """The scale that fits: linear for equal steps, logarithmic for steps of about one ratio, otherwise even.

    The base is 2 if both ends are powers of it, and 10 otherwise.

    >>> [scale_of(np.array(x)).kind for x in ([0.25, 0.5, 1], [1e-3, 3e-3, 1e-2], [0.8, 0.9, 1.0], [0, 1e-3, 1e-2])]
    ['log2', 'log10', 'linear', 'even']
    """
    x = np.asarray(values, float)

    def uneven(steps: np.ndarray) -> float:
        return steps.max() / steps.min()

    if len(x) > 2 and uneven(np.diff(x)) < 1.01:
        return Scale("linear", x)
    if x[0] > 0 and uneven(np.diff(np.log(x))) < 3:
        return Scale("log2" if _whole(np.log2(x[[0, -1]])) else "log10", x)
    return Scale("even", x)


def colours(scores: np.ndarray) -> tuple[Any, str]:
    """A matplotlib norm for finite scores, and the end that extends beyond it: ``max`` or ``neither``."""
    from matplotlib.colors import LogNorm, Normalize

    if not scores.size:
        return Normalize(0, 1), "neither"
    low, high = float(scores.min()), float(np.quantile(scores, CLIPPED))
    if high <= low:
        high = float(scores.max()) if scores.max() > low else low + (abs(low) or 1.0) / 100
    log = low > 0 and high >= LOG_FROM * low
    return (LogNorm if log else Normalize)(low, high), "max" if scores.max() > high else "neither"


def curve_scale(curves: list[np.ndarray]) -> str:
    """``log`` for positive curves that span a decade, otherwise ``linear``."""
    low, high = min(map(np.min, curves)), max(map(np.max, curves))
    return "log" if low > 0 and high >= 10 * low else "linear"
