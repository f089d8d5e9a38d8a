"""Ranges: what the values of a search are drawn from."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..core.values.contents import brief, code
from ..core.values.value import Number, Range, Value, check_number, child, number, static, value


class Distribution(Value):
    """What values are drawn from. `sample` draws."""

    def quantile(self, u: float) -> Any:
        """The value below which a share ``u`` of the draws lies, 0 ≤ u < 1."""
        raise NotImplementedError


def finite_number(where: str, x: Any, limits: Range) -> float:
    """The check of a bound: a Python number."""
    if not isinstance(x, numbers.Real):
        raise ValueError(f"`{where}` must be a number, got {brief(x)}")
    return check_number(where, x, limits)


def whole_number(where: str, x: Any, limits: None) -> int:
    """The check of a bound of whole numbers."""
    if not isinstance(x, (int, np.integer)) or isinstance(x, bool):
        raise ValueError(f"`{where}` must be a whole number, got {brief(x)}")
    return int(x)


def listed(choices: Any) -> list[Any]:
    """The values of a list, or of an array with an axis. Empty for anything that is a single value."""
    if isinstance(choices, (str, Mapping, Value)) or not isinstance(choices, Iterable):
        return []
    return [] if getattr(choices, "ndim", 1) == 0 else list(choices)  # scalar arrays are instances of Iterable


def some(where: str, x: Any, limits: None) -> tuple[Any, ...]:
    """The check of a list of values, at least one."""
    if not (values := listed(x)):
        raise ValueError(f"`{where}` must be a list of values, at least one, got {brief(x)}")
    return tuple(values)


@value
class uniform(Distribution):
    """Numbers from ``low`` to ``high``, each as likely as another. For `sample`.

    >>> import chainax as cx
    >>> cx.uniform(0.8, 1.0).quantile(0.5)
    0.9
    """

    low: Number = number("the least number", check=finite_number)
    high: Number = number("the largest", check=finite_number)

    def check(self) -> None:
        _check_order(self)

    def quantile(self, u: float) -> float:
        return self.low + u * (self.high - self.low)


@value
class log_uniform(Distribution):
    """Numbers from ``low`` to ``high`` whose logarithms are uniform. For `sample`.

    For what is known up to a factor: learning rates, decays, and distances such as 1 − β.

    >>> import chainax as cx
    >>> round(cx.log_uniform(1e-4, 1e-2).quantile(0.5), 6)
    0.001
    """

    low: Number = number("the least number", low=0.0, open=True, check=finite_number)
    high: Number = number("the largest", low=0.0, open=True, check=finite_number)

    def check(self) -> None:
        _check_order(self)

    def quantile(self, u: float) -> float:
        return min(self.low * math.exp(u * (math.log(self.high) - math.log(self.low))), self.high)


@value
class randint(Distribution):
    """Whole numbers from ``low`` to ``high`` − 1, each as likely as another, as ``jax.random.randint``. For `sample`.

    >>> import chainax as cx
    >>> [cx.randint(1, 4).quantile(u) for u in (0.0, 0.5, 0.99)]
    [1, 2, 3]
    """

    low: int = static("the least number", check=whole_number)
    high: int = static("one above the largest", check=whole_number)

    def check(self) -> None:
        _check_order(self)

    def quantile(self, u: float) -> int:
        return self.low + int(u * (self.high - self.low))


@value
class choice(Distribution):
    """Values of a list, each as likely as another: numbers, schedules, formats or links. For `sample`.

    In a table of ranges, a plain list means the same.

    >>> import chainax as cx
    >>> cx.choice([0.9, 0.99]).quantile(0.5)
    0.99
    """

    values: tuple[Any, ...] = child("the values, at least one", check=some)

    def quantile(self, u: float) -> Any:
        return self.values[int(u * len(self.values))]


def _check_order(between: Any) -> None:
    if not between.low < between.high:
        name = type(between).__name__
        raise ValueError(f"`{name}.low` must be less than `{name}.high`, got {code(between)}")
