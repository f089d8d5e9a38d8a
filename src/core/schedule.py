"""What a schedule is: a value that maps the number of steps already taken to a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .value import Range, Value, check_number, each, is_array, number, static, value


class Schedule(Value):
    """A number that depends on the step. Call it on a count of the steps taken: 0 at the first update.

    Steps may be a Python number or an array of any shape; the result has that shape.
    Multiply schedules with each other or with numbers to scale them.

    >>> import chainax as cx
    >>> (2 * cx.linear_schedule(0.0, 1.0, 4))(jax.numpy.arange(6)).tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    """

    def __call__(self, step: Any) -> jax.Array:
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
        wide = jax.tree.map(lambda x: x.astype(dtype) if is_array(x) else x, self)
        return wide.at(jnp.asarray(step).astype(dtype))

    def at(self, k: jax.Array) -> Any:
        """The value after ``k`` steps, where ``k`` is an array of floating-point numbers."""
        raise NotImplementedError

    def __mul__(self, other: Any) -> product:
        return product((*_factors(self), *_factors(other)))

    __rmul__ = __mul__


@value
class product(Schedule):
    """The product of schedules and numbers.

    Errors: ``ValueError`` unless every factor is a schedule, a function of the step or a number.
    """

    factors: tuple[Any, ...] = number("schedules or numbers", check=each(lambda *field: number_or_schedule(*field)))

    def at(self, k: jax.Array) -> Any:
        result = jnp.ones_like(k)
        for factor in self.factors:
            result = result * (factor(k) if isinstance(factor, Schedule) else factor)
        return result


@value
class from_function(Schedule):
    """A Python function of the step as a schedule. Links wrap bare functions in it themselves.

    The function gets the count of steps taken as a traced int32 scalar, and returns a scalar. It must
    depend on nothing else that changes: outside of ``jit`` too it is traced once and then reused.
    """

    function: Callable = static("from the count of steps to a number")

    def check(self) -> None:
        what = f"{self!r} was given where a number or a schedule is expected, but called on a step it"
        remedy = "To choose by parameter, write by_path({pattern: number}, default=...)"
        try:
            result = jax.eval_shape(self.function, jax.ShapeDtypeStruct((), jnp.int32))
        except jax.errors.ConcretizationTypeError as e:
            raise ValueError(
                f"{what} asks for the step's value, which is traced: use jnp.where, join_schedules or step_schedule"
            ) from e
        except Exception as e:
            raise ValueError(f"{what} raised {type(e).__name__}: {e}. {remedy}") from e
        shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
        if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.number):
            got = f"a {type(result).__name__}" if shape is None else f"{dtype}{list(shape)}"
            raise ValueError(f"{what} returns {got}, not a number. {remedy}")

    def __call__(self, step: Any) -> jax.Array:
        step = jnp.asarray(step)
        call = jnp.vectorize(self.function) if step.ndim else self.function
        return jnp.asarray(call(step.astype(jnp.int32)))

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


def as_schedule(where: str, x: Any) -> Any:
    """``x`` if it is a number or a schedule; a bare function is wrapped."""
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


def number_or_schedule(where: str, x: Any, limits: Range) -> Any:
    """The check of a field that takes a number in range, a schedule, or a function of the step."""
    x = as_schedule(where, x)
    return x if isinstance(x, Schedule) else check_number(where, x, limits)


def _factors(x: Any) -> tuple:
    return x.factors if isinstance(x, product) else (x,)
