"""Schedules: values that map the number of steps taken so far to a number. Their base class and arithmetic."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import operator
from abc import abstractmethod
from collections.abc import Callable
from string import Formatter
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from . import numerics
from .contents import brief, code, is_array, same, shortest
from .declared import contract
from .numerics import Count, Steps, as_count, elapsed, is_zero, minus, since
from .traceable import NEEDS_VALUE, traceable
from .types import DType, HyperValue, Scalar
from .value import Number, Range, Value, check_number, each, number, static, value

F = TypeVar("F", bound=Callable[..., Any])


def counted(at: F) -> F:
    """Mark a `Schedule.at` that takes a `Count`, which is exact for counts that float32 cannot represent."""
    at.counted = True  # pyright: ignore[reportFunctionMemberAccess]
    return at


@contract()
class Schedule(Value):
    """A number that depends on the step. Call it with the number of steps taken so far: 0 at the first update.

    Steps may be a Python number or an array of any shape; the result has the same shape. Integers are exact up to
    2³¹, although float32 represents them only up to 2²⁴.
    Schedules, numbers and functions of the step can be added, subtracted, multiplied, divided and raised to powers.

    >>> import chainax as cx
    >>> (2 * cx.linear_schedule(0.0, 1.0, 4))(jax.numpy.arange(6)).tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    """

    phrase: ClassVar[str] = ""
    """What `describe` prints: clauses separated by semicolons, with fields in braces. A clause whose
    fields all have their defaults is omitted."""

    kinks: ClassVar[tuple[str, ...]] = ()
    """Fields by which there is no derivative where they have the least number that they admit: it is given as 0."""

    __array_ufunc__: ClassVar[None] = None  # NumPy would treat a schedule as an array of objects

    def __call__(self, step: Steps) -> jax.Array:
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
        wide = jax.tree.map(lambda x: x.astype(dtype) if is_array(x) else x, self)
        k = as_count(step)
        result = wide.at(k if hasattr(type(self).at, "counted") else elapsed(k))
        return _checked(type(self).__name__, result, jnp.shape(k.high))

    @abstractmethod
    def at(self, k: Any) -> Any:
        """The value after ``k`` steps.

        Args:
            k: the number of steps taken so far, 0 at the first update: a floating-point array of any shape.

        Returns: a floating-point array of the shape of ``k``.
        """
        raise NotImplementedError

    def describe(self) -> str:
        """A one-line description of the schedule.

        >>> import chainax as cx
        >>> (2 * cx.linear_schedule(0.0, 1.0, 4)).describe()
        '2 × (a line from 0 to 1 over 4 steps)'
        """
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        clauses = []
        for clause in self.phrase.split("; "):
            fields = {name: getattr(self, name) for _, name, _, _ in Formatter().parse(clause) if name}
            if not fields or not all(same(x, defaults[name]) for name, x in fields.items()):
                clauses.append(clause.format(**{name: _say(x) for name, x in fields.items()}))
        return ", ".join(clauses) or repr(self)

    def then(self, after: HyperValue, *, at: Scalar) -> join_schedules:
        """This schedule up to step ``at``, then another schedule (or a number), which counts from step ``at``.

        Anything this schedule does after step ``at`` is dropped. PyTorch's ``SequentialLR``.

        >>> import chainax as cx
        >>> cx.linear_schedule(0.0, 1.0, 4).then(1.0, at=4).then(cx.cosine_decay_schedule(1.0, 10), at=90)
        join_schedules((linear_schedule(0, 1, 4), constant_schedule(1), cosine_decay_schedule(1, 10)), (4, 90))
        """
        schedules, boundaries = (self,), ()
        if (
            isinstance(self, join_schedules)
            and isinstance(at, numbers.Real)
            and not any(map(is_array, self.boundaries))
        ):
            kept = sum(b <= at for b in self.boundaries)
            schedules, boundaries = self.schedules[: kept + 1], self.boundaries[:kept]
        return join_schedules((*schedules, after), (*boundaries, at))

    def __mul__(self, other: HyperValue) -> product:
        return product((*_factors(self), *_factors(other)))

    def __rmul__(self, other: HyperValue) -> product:
        return product((*_factors(other), *_factors(self)))

    def __neg__(self) -> product:
        return -1.0 * self

    def __add__(self, other: HyperValue) -> total:
        return total((*_terms(self), *_terms(other)))

    def __radd__(self, other: HyperValue) -> total:
        return total((*_terms(other), *_terms(self)))

    def __sub__(self, other: HyperValue) -> total:
        plain = is_array(other) or (isinstance(other, numbers.Real) and not isinstance(other, bool))
        return self + (-other if plain else product((-1.0, *_factors(other))))

    def __rsub__(self, other: HyperValue) -> total:
        return other + -self

    def __truediv__(self, other: HyperValue) -> quotient:
        return quotient(self, other)

    def __rtruediv__(self, other: HyperValue) -> quotient:
        return quotient(other, self)

    def __pow__(self, other: HyperValue) -> power:
        return power(self, other)

    def __rpow__(self, other: HyperValue) -> power:
        return power(other, self)


def _checked(name: str, result: Any, shape: tuple[int, ...]) -> jax.Array:
    """What `Schedule.at` returned for steps of this shape."""
    if not is_array(result) or not jnp.issubdtype(result.dtype, jnp.floating) or (shape and not result.shape):
        got = f"{result.dtype}{list(result.shape)}" if is_array(result) else brief(result)
        raise TypeError(
            f"`{name}.at` must return a floating-point array of the shape of k, got {got}: a constant is "
            "jnp.full_like(k, 0.1), a choice jnp.where(k < 10, 0.1, 0.01)"
        )
    return jnp.asarray(result)


@value
class from_function(Schedule):
    """A Python function of the step as a schedule. PyTorch's ``LambdaLR`` is ``rate * from_function(f)``.

    Links and schedules wrap plain functions automatically.
    The function takes the number of steps so far as a traced scalar, int32 (int64 under ``jax_enable_x64``), and
    returns a scalar. It must not depend on anything else that changes: it is traced once and reused, outside ``jit``
    too.
    """

    function: Callable = static("from the number of steps to a number")

    def check(self) -> None:
        what = f"{self!r} was given where a number or a schedule is expected, but called on a step it"
        remedy = "To choose by parameter, write by_path({pattern: number}, default=...)"
        try:
            result = jax.eval_shape(self.function, jax.ShapeDtypeStruct((), _step_dtype()))
        except NEEDS_VALUE as e:
            raise ValueError(f"{what} asks for the step's value, which is traced: {traceable(e)}") from e
        except Exception as e:
            raise ValueError(f"{what} raised {type(e).__name__}: {e}. {remedy}") from e
        shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
        if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.number):
            got = f"a {type(result).__name__}" if shape is None else f"{dtype}{list(shape)}"
            raise ValueError(f"{what} returns {got}, not a number. {remedy}")

    def describe(self) -> str:
        """A one-line description of the schedule."""
        return f"the function {self!r}"

    def __call__(self, step: Steps) -> jax.Array:
        dtype = _step_dtype()
        if isinstance(step, Count):
            floor = jnp.floor(step.high)
            step = floor.astype(dtype) + jnp.floor(step.high - floor + step.low).astype(dtype)
        step = jnp.asarray(step)
        call = jnp.vectorize(self.function) if step.ndim else self.function
        return jnp.asarray(call(step.astype(dtype)))

    def at(self, k):
        return self(k)

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


def _step_dtype() -> DType:
    """The widest integer dtype, so that quotients of steps have the widest floating-point dtype."""
    return jax.dtypes.canonicalize_dtype(np.int64)


@value
class constant_schedule(Schedule):
    """The same number at every step."""

    value: Number = number("the number")

    phrase = "{value}"

    def at(self, k):
        return jnp.full_like(k, self.value)


def as_schedule(where: str, x: HyperValue) -> HyperValue:
    """``x`` if it is a number or a schedule. A plain function is wrapped."""
    if isinstance(x, Schedule):
        return x
    if callable(x) and not isinstance(x, Value):
        try:
            return from_function(x)
        except ValueError as e:
            raise ValueError(f"`{where}`: {e}") from e.__cause__
    if isinstance(x, Value):
        raise ValueError(f"`{where}` must be a number or a schedule, got {x!r}")
    return x


def number_or_schedule(where: str, x: HyperValue, limits: Range) -> HyperValue:
    """The check of a field that accepts a number in range, a schedule, or a function of the step."""
    x = as_schedule(where, x)
    return x if isinstance(x, Schedule) else check_number(where, x, limits)


def to_schedule(where: str, x: HyperValue, limits: Range) -> Schedule:
    """The check of a field that accepts a schedule, a function of the step or a number, and stores a schedule."""
    x = number_or_schedule(where, x, limits)
    return x if isinstance(x, Schedule) else constant_schedule(x)


@value
class product(Schedule):
    """The product of schedules and numbers.

    PyTorch's ``ChainedScheduler``, if one factor starts at the learning rate and the others at 1, as in
    ``step_schedule(rate, 30) * exponential_decay(1.0, 1, 0.99)``. ``CosineAnnealingLR`` in such a chain differs: it
    subtracts ``eta_min`` from the rate of the whole chain, and resets the other factors at its minimum.

    Errors: ``ValueError`` unless every factor is a schedule, a function of the step or a number.
    """

    factors: tuple[Schedule | Scalar, ...] = number("schedules or numbers", check=each(number_or_schedule))

    @counted
    def at(self, k):
        return functools.reduce(operator.mul, (value_at(x, k) for x in self.factors), jnp.ones_like(elapsed(k)))

    def describe(self) -> str:
        """A one-line description of the schedule."""
        return " × ".join(map(_operand, self.factors))


@value
class total(Schedule):
    """The sum of schedules and numbers.

    Errors: ``ValueError`` unless every term is a schedule, a function of the step or a number.
    """

    terms: tuple[Schedule | Scalar, ...] = number("schedules or numbers", check=each(number_or_schedule))

    @counted
    def at(self, k):
        return functools.reduce(operator.add, (value_at(x, k) for x in self.terms), jnp.zeros_like(elapsed(k)))

    def describe(self) -> str:
        """A one-line description of the schedule."""
        return " + ".join(map(_operand, self.terms))


@value
class quotient(Schedule):
    """One schedule or number divided by another."""

    dividend: HyperValue = number("a schedule or a number", check=number_or_schedule)
    divisor: HyperValue = number("a schedule or a number, not 0", check=number_or_schedule)

    def check(self):
        if is_zero(self.divisor):
            raise ValueError("`quotient.divisor` must not be 0")

    @counted
    def at(self, k):
        return jnp.ones_like(elapsed(k)) * value_at(self.dividend, k) / value_at(self.divisor, k)

    def describe(self) -> str:
        """A one-line description of the schedule."""
        return f"{_operand(self.dividend)} / {_operand(self.divisor)}"


@value
class power(Schedule):
    """One schedule or number raised to the power of another. At base 0, infinite derivatives are replaced by 0.

    A learning-rate range test (Smith 2017, arXiv:1506.01186, section 3.3) over five decades:

    >>> import chainax as cx
    >>> 10 ** cx.linear_schedule(-5.0, 0.0, 1000)
    power(10, linear_schedule(-5, 0, 1000))
    """

    base: HyperValue = number("a schedule or a number", low=0.0, check=number_or_schedule)
    exponent: HyperValue = number("a schedule or a number", check=number_or_schedule)

    @counted
    def at(self, k):
        return raised(value_at(self.base, k), value_at(self.exponent, k) * jnp.ones_like(elapsed(k)))

    def describe(self) -> str:
        """A one-line description of the schedule."""
        return f"{_operand(self.base)} ^ {_operand(self.exponent)}"


@value
class join_schedules(Schedule):
    """Schedules one after another, each counting from its own boundary. PyTorch's ``SequentialLR``."""

    schedules: tuple[Schedule, ...] = number("the schedules or numbers, in order", check=each(to_schedule))
    boundaries: tuple[Scalar, ...] = number(
        doc="the steps at which the second, third, ... begin", low=0.0, steps=True, check=each(check_number)
    )

    def check(self):
        if len(self.boundaries) != len(self.schedules) - 1:
            raise ValueError(
                "`join_schedules.boundaries` must be one fewer than the schedules, "
                f"got {len(self.boundaries)} for {len(self.schedules)} schedules"
            )
        plain = [b for b in self.boundaries if not is_array(b)]
        if plain != sorted(plain):
            raise ValueError(f"`join_schedules.boundaries` must not fall, got {code(self.boundaries)}")

    @counted
    def at(self, k):
        result = value_at(self.schedules[0], k)
        for boundary, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            result = jnp.where(minus(k, boundary) < 0, result, value_at(schedule, since(k, boundary)))
        return result

    def describe(self) -> str:
        """A one-line description of the schedule."""
        later = (f"; from step {_say(b)}: {s.describe()}" for b, s in zip(self.boundaries, self.schedules[1:]))
        return self.schedules[0].describe() + "".join(later)


def raised(base: Scalar, exponent: jax.Array) -> jax.Array:
    """base^exponent. The logarithm of a Python number is taken in double precision, as 1 − base may be small."""
    if isinstance(base, float) and base > 0:
        return jnp.exp(exponent * math.log(base))
    # 0^½ and 0^−1 have infinite derivatives: the `where`s keep them out of gradients.
    base = jnp.asarray(base, exponent.dtype)
    steep = (base == 0) & (exponent < 1) & (exponent != 0)
    limit = jnp.where(exponent > 0, 0.0, jnp.inf)
    return jnp.where(steep, limit, numerics.power(jnp.where(steep, 1.0, base), exponent))


def value_at(x: Schedule | Scalar, k: Steps) -> Scalar:
    """The value of a schedule or number after ``k`` steps."""
    # A plain function may return any dtype.
    return x(k).astype(jax.dtypes.canonicalize_dtype(np.float64)) if isinstance(x, Schedule) else x


def _factors(x: HyperValue) -> tuple[Schedule | Scalar, ...]:
    return x.factors if isinstance(x, product) else (x,)


def _terms(x: HyperValue) -> tuple[Schedule | Scalar, ...]:
    return x.terms if isinstance(x, total) else (x,)


def _say(x: object) -> str:
    """A field as `Schedule.describe` prints it."""
    if isinstance(x, Schedule):
        return x.describe()
    x = shortest(x)
    return f"{x:.6g}" if isinstance(x, float) else code(x)


def _operand(x: object) -> str:
    return f"({_say(x)})" if isinstance(x, Schedule) else _say(x)
