"""Plots of schedules, and what other plots share. Needs matplotlib: ``pip install "chainax[plot]"``."""

from __future__ import annotations

from typing import Any

import numpy as np

from .core.values.contents import code
from .core.values.schedule import to_schedule
from .core.values.types import HyperValue
from .core.values.value import Range


def plot(schedule: HyperValue, steps: int, *, ax: Any = None, **line: Any) -> Any:
    """Plot the first ``steps`` steps of a schedule, and return the matplotlib axes.

    Draws into ``ax``, or into the current axes, so that several calls can be compared. ``line`` is passed to
    ``Axes.plot``; the default label is the schedule's ``describe()``.

    Errors: ``ImportError`` without matplotlib; ``ValueError`` unless ``schedule`` is a schedule, a
    function of the step, or a number.
    """
    pyplot = imported("plot")
    schedule = to_schedule("plot.schedule", schedule, Range())
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"`plot.steps` must be a whole number from 1, got {code(steps)}")
    ax = pyplot.gca() if ax is None else ax
    k = np.arange(steps)
    ax.plot(k, np.asarray(schedule(k)), **{"label": schedule.describe(), **line})
    ax.set_xlabel("step")
    return ax


def imported(call: str) -> Any:
    """``matplotlib.pyplot``, for the function ``call``."""
    check_matplotlib(call)
    from matplotlib import pyplot

    return pyplot


def check_matplotlib(call: str) -> None:
    """Raise an error that names the extra, unless matplotlib is there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as e:
        raise ImportError(f'`{call}` needs matplotlib: pip install "chainax[plot]"') from e
