"""Pictures of schedules."""

import sys

import chainax as cx
import numpy as np
import pytest

LINE = cx.linear_schedule(1.0, 0.0, 4)


def test_plot_draws_the_schedule(pyplot):
    """Step against value, into the axes given or the current ones, named by its description."""
    ax = cx.plot(LINE, 6)
    assert cx.plot(0.5, 6, color="red", label="half") is ax
    assert cx.plot(lambda k: k, np.int32(3)) is ax
    first, second, third = ax.lines
    np.testing.assert_array_equal(first.get_xdata(), np.arange(6))
    np.testing.assert_array_equal(first.get_ydata(), LINE(np.arange(6)))
    assert first.get_label() == "a line from 1 to 0 over 4 steps"
    np.testing.assert_array_equal(second.get_ydata(), np.full(6, 0.5))
    assert (second.get_label(), second.get_color()) == ("half", "red")
    np.testing.assert_array_equal(third.get_ydata(), np.arange(3))
    other = pyplot.figure().subplots()
    assert cx.plot(LINE, 6, ax=ax) is ax
    assert len(other.lines) == 0
    assert ax.get_xlabel() == "step"


def test_plot_names_what_is_missing(monkeypatch):
    """Without matplotlib the error says how to get it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'`plot` needs matplotlib: pip install "chainax\[plot\]"'):
        cx.plot(LINE, 6)


@pytest.mark.parametrize(
    ("schedule", "steps", "message"),
    (
        ("1", 6, "`plot.schedule` must be a number"),
        (LINE, 0, "`plot.steps` must be a whole number from 1, got 0"),
        (LINE, 2.0, "`plot.steps` must be a whole number from 1, got 2"),
        (LINE, True, "`plot.steps` must be a whole number from 1, got True"),
    ),
)
@pytest.mark.usefixtures("pyplot")
def test_plot_bad_input(schedule, steps, message):
    """The error names the argument."""
    with pytest.raises(ValueError, match=message):
        cx.plot(schedule, steps)
