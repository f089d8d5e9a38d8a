"""What a schedule is: a value that maps the number of steps already taken to a number. And its arithmetic."""

from __future__ import annotations

import dataclasses
import dis
import functools
import math
import numbers
import operator
from collections.abc import Callable
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from . import numerics
from .numerics import Count, as_count, elapsed, is_zero, minus, since
from .value import Number, Range, Value, check_number, code, each, is_array, number, same, shortest, static, value

F = TypeVar("F", bound=Callable[..., Any])


def counted(at: F) -> F:
    """Mark a `Schedule.at` that takes a `Count`, and so is exact where float32 does not hold the number of steps."""
    at.counted = True  # pyright: ignore[reportFunctionMemberAccess]
    return at


class Schedule(Value):
    """A number that depends on the step. Call it on a count of the steps taken: 0 at the first update.

    Steps may be a Python number or an array of any shape; the result has that shape. Whole numbers count exactly up to
    2³¹, although float32 holds them up to 2²⁴ only.
    Schedules, numbers and functions of the step add, subtract, multiply, divide and raise to powers.

    >>> import chainax as cx
    >>> (2 * cx.linear_schedule(0.0, 1.0, 4))(jax.numpy.arange(6)).tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    """

    phrase: ClassVar[str] = ""
    """What `describe` says: clauses parted by semicolons, with the fields in braces. A clause whose
    fields all have their default is left out."""

    kinks: ClassVar[tuple[str, ...]] = ()
    """Fields by which there is no derivative where they have the least number that they admit: it is given as 0."""

    __array_ufunc__: ClassVar[None] = None  # or NumPy's numbers would take a schedule for an array of objects

    def __call__(self, step: Any) -> jax.Array:
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
        wide = jax.tree.map(lambda x: x.astype(dtype) if is_array(x) else x, self)
        k = as_count(step)
        return wide.at(k if hasattr(type(self).at, "counted") else elapsed(k))

    def at(self, k: Any) -> Any:
        """The value after ``k`` steps, an array of floating-point numbers (or a `Count` where ``at`` is `counted`)."""
        raise NotImplementedError

    def describe(self) -> str:
        """What the schedule is, in a line.

        >>> import chainax as cx
        >>> (2 * cx.linear_schedule(0.0, 1.0, 4)).describe()
        '2 × (a line from 0 to 1 over 4 steps)'
        """
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        clauses = []
        for clause in self.phrase.split("; "):
            fields = {name: getattr(self, name) for _, name, _, _ in Formatter().parse(clause) if name}
            if not fields or not all(same(given, defaults[name]) for name, given in fields.items()):
                clauses.append(clause.format(**{name: _say(given) for name, given in fields.items()}))
        return ", ".join(clauses) or repr(self)

    def then(self, after: Any, *, at: Any) -> join_schedules:
        """This schedule up to step ``at``, then another (or a number), which counts from there.

        Whatever this schedule would do after step ``at`` is left out. PyTorch's ``SequentialLR``.

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

    def __mul__(self, other: Any) -> product:
        return product((*_factors(self), *_factors(other)))

    def __rmul__(self, other: Any) -> product:
        return product((*_factors(other), *_factors(self)))

    def __neg__(self) -> product:
        return -1.0 * self

    def __add__(self, other: Any) -> total:
        return total((*_terms(self), *_terms(other)))

    def __radd__(self, other: Any) -> total:
        return total((*_terms(other), *_terms(self)))

    def __sub__(self, other: Any) -> total:
        plain = is_array(other) or (isinstance(other, numbers.Real) and not isinstance(other, bool))
        return self + (-other if plain else product((-1.0, *_factors(other))))

    def __rsub__(self, other: Any) -> total:
        return other + -self

    def __truediv__(self, other: Any) -> quotient:
        return quotient(self, other)

    def __rtruediv__(self, other: Any) -> quotient:
        return quotient(other, self)

    def __pow__(self, other: Any) -> power:
        return power(self, other)

    def __rpow__(self, other: Any) -> power:
        return power(other, self)


@value
class from_function(Schedule):
    """A Python function of the step as a schedule. PyTorch's ``LambdaLR`` is ``rate * from_function(f)``.

    Links and schedules wrap bare functions in it themselves.
    The function gets the count of steps taken as a traced scalar, int32 or under ``jax_enable_x64`` int64, and
    returns a scalar. It must depend on nothing else that changes: outside of ``jit`` too it is traced once and
    then reused.
    """

    function: Callable = static("from the count of steps to a number")

    def check(self) -> None:
        what = f"{self!r} was given where a number or a schedule is expected, but called on a step it"
        remedy = "To choose by parameter, write by_path({pattern: number}, default=...)"
        try:
            result = jax.eval_shape(self.function, jax.ShapeDtypeStruct((), _whole_dtype()))
        except _NEEDS_VALUE as e:
            raise ValueError(f"{what} asks for the step's value, which is traced: {_traceable(e)}") from e
        except Exception as e:
            raise ValueError(f"{what} raised {type(e).__name__}: {e}. {remedy}") from e
        shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
        if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.number):
            got = f"a {type(result).__name__}" if shape is None else f"{dtype}{list(shape)}"
            raise ValueError(f"{what} returns {got}, not a number. {remedy}")

    def describe(self) -> str:
        """What the schedule is, in a line."""
        return f"the function {self!r}"

    def __call__(self, step: Any) -> jax.Array:
        dtype = _whole_dtype()
        if isinstance(step, Count):
            whole = jnp.floor(step.high)
            step = whole.astype(dtype) + jnp.floor(step.high - whole + step.low).astype(dtype)
        step = jnp.asarray(step)
        call = jnp.vectorize(self.function) if step.ndim else self.function
        return jnp.asarray(call(step.astype(dtype)))

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


_JAX = str(Path(jax.__file__).parent)
_NEEDS_VALUE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _whole_dtype() -> Any:
    """The widest integers, so that quotients of them are as wide as floating-point numbers can be."""
    return jax.dtypes.canonicalize_dtype(np.int64)


def _traceable(error: Exception) -> str:
    """What to write in place of that which needs the value of a traced step."""
    name = _called(error)
    if name in ("min", "max"):
        return f"use jnp.{name}imum in place of {name}"
    if name in ("float", "int", "bool"):
        return f"leave {name}() out and compute with the step itself, an array"
    if hasattr(jnp, name):
        return f"use jnp.{name}"
    if isinstance(error, jax.errors.TracerIntegerConversionError) and not name:
        return "for an item of a list write jnp.array(list)[step]"
    return "use jnp.where, join_schedules or step_schedule"


def _called(error: Exception) -> str:
    """The name of the function whose call raised, in the last frame that is not JAX's; empty for what is no call."""
    tb = last = error.__traceback__
    while tb is not None:
        last = last if tb.tb_frame.f_code.co_filename.startswith(_JAX) else tb
        tb = tb.tb_next
    loaded: dict[Any, str] = {}  # the name that was loaded last, by the line and column where its expression begins
    for instruction in dis.get_instructions(last.tb_frame.f_code) if last else ():
        begin = instruction.positions and instruction.positions[::2]
        if last and instruction.offset == last.tb_lasti:
            return loaded.get(begin, "") if instruction.opname.startswith("CALL") else ""
        if instruction.opname.startswith("LOAD") and isinstance(instruction.argval, str):
            loaded[begin] = instruction.argval
    return ""


@value
class constant_schedule(Schedule):
    """The same number at every step."""

    value: Number = number("the number")

    phrase = "{value}"

    def at(self, k):
        return jnp.full_like(k, self.value)


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


def to_schedule(where: str, x: Any, limits: Range) -> Schedule:
    """The check of a field that takes a schedule, a function of the step or a number, and holds a schedule."""
    x = number_or_schedule(where, x, limits)
    return x if isinstance(x, Schedule) else constant_schedule(x)


@value
class product(Schedule):
    """The product of schedules and numbers.

    PyTorch's ``ChainedScheduler``, where one factor carries the learning rate and the others start from 1, as in
    ``step_schedule(rate, 30) * exponential_decay(1.0, 1, 0.99)``. Not with ``CosineAnnealingLR`` in the chain: that one
    takes its ``eta_min`` off the rate of the whole chain, and at its lowest point forgets the other factors.

    Errors: ``ValueError`` unless every factor is a schedule, a function of the step or a number.
    """

    factors: tuple[Any, ...] = number("schedules or numbers", check=each(number_or_schedule))

    @counted
    def at(self, k):
        return functools.reduce(operator.mul, (value_at(x, k) for x in self.factors), jnp.ones_like(elapsed(k)))

    def describe(self) -> str:
        """What the schedule is, in a line."""
        return " × ".join(map(_operand, self.factors))


@value
class total(Schedule):
    """The sum of schedules and numbers.

    Errors: ``ValueError`` unless every term is a schedule, a function of the step or a number.
    """

    terms: tuple[Any, ...] = number("schedules or numbers", check=each(number_or_schedule))

    @counted
    def at(self, k):
        return functools.reduce(operator.add, (value_at(x, k) for x in self.terms), jnp.zeros_like(elapsed(k)))

    def describe(self) -> str:
        """What the schedule is, in a line."""
        return " + ".join(map(_operand, self.terms))


@value
class quotient(Schedule):
    """One schedule or number divided by another."""

    dividend: Any = number("a schedule or a number", check=number_or_schedule)
    divisor: Any = number("a schedule or a number, not 0", check=number_or_schedule)

    def check(self):
        if is_zero(self.divisor):
            raise ValueError("`quotient.divisor` must not be 0")

    @counted
    def at(self, k):
        return jnp.ones_like(elapsed(k)) * value_at(self.dividend, k) / value_at(self.divisor, k)

    def describe(self) -> str:
        """What the schedule is, in a line."""
        return f"{_operand(self.dividend)} / {_operand(self.divisor)}"


@value
class power(Schedule):
    """One schedule or number to the power of another. Where the base is 0, infinite derivatives are given as 0.

    A learning-rate range test (Smith 2017, arXiv:1506.01186, section 3.3) over five decades:

    >>> import chainax as cx
    >>> 10 ** cx.linear_schedule(-5.0, 0.0, 1000)
    power(10, linear_schedule(-5, 0, 1000))
    """

    base: Any = number("a schedule or a number", low=0.0, check=number_or_schedule)
    exponent: Any = number("a schedule or a number", check=number_or_schedule)

    @counted
    def at(self, k):
        return raised(value_at(self.base, k), value_at(self.exponent, k) * jnp.ones_like(elapsed(k)))

    def describe(self) -> str:
        """What the schedule is, in a line."""
        return f"{_operand(self.base)} ^ {_operand(self.exponent)}"


@value
class join_schedules(Schedule):
    """One schedule after another, each counting from its boundary. PyTorch's ``SequentialLR``."""

    schedules: tuple[Any, ...] = number("the schedules or numbers, in order", check=each(to_schedule))
    boundaries: tuple[Any, ...] = number(
        doc="the steps at which the second, third, ... begins", low=0.0, steps=True, check=each(check_number)
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
        """What the schedule is, in a line."""
        later = (f"; from step {_say(b)}: {s.describe()}" for b, s in zip(self.boundaries, self.schedules[1:]))
        return self.schedules[0].describe() + "".join(later)


@value
class own_steps(Schedule):
    """Count a schedule by each parameter's own steps: from where it joined the run, by `add_param_group`.

    Elsewhere the schedule is as it is: for parameters that were there from the beginning, in links that treat the
    whole tree at once, in `hyperparams`, and where it is called. A chain counts a parameter's own steps from the first
    slot that it has for it, so one without slots counts the run's.

    >>> import chainax as cx
    >>> tx, one = cx.sgd(cx.own_steps(cx.linear_schedule(2.0, 1.0, 1)), momentum=0.0), jax.numpy.ones(())
    >>> _, state = tx.update({"w": one}, tx.init({"w": one}))
    >>> updates, _ = tx.update({"w": one, "b": one}, tx.add_param_group({"w": one, "b": one}, state))
    >>> updates["w"].item(), updates["b"].item()
    (-1.0, -2.0)
    """

    schedule: Any = number("the schedule", check=to_schedule)

    phrase = "{schedule}, by each parameter's own steps"

    @counted
    def at(self, k):
        return value_at(self.schedule, k)


def has_own_steps(x: Any) -> bool:
    """Whether a field depends on when the parameter has joined."""
    return any(isinstance(s, own_steps) for s in jax.tree.leaves(x, is_leaf=_is_own))


def after_own(x: Any, steps: Any) -> Any:
    """A schedule with what its `own_steps` come to after ``steps`` steps in their place."""
    return jax.tree.map(lambda s: s(steps) if _is_own(s) else s, x, is_leaf=_is_own)


def _is_own(x: Any) -> bool:
    return isinstance(x, own_steps)


def raised(base: Any, exponent: jax.Array) -> jax.Array:
    """base^exponent. A Python ``base`` has its logarithm taken in double precision: float32 holds 1 − base badly."""
    if isinstance(base, float) and base > 0:
        return jnp.exp(exponent * math.log(base))
    # 0^½ and 0^−1 have infinite derivatives, which the `where`s keep out of gradients.
    base = jnp.asarray(base, exponent.dtype)
    steep = (base == 0) & (exponent < 1) & (exponent != 0)
    limit = jnp.where(exponent > 0, 0.0, jnp.inf)
    return jnp.where(steep, limit, numerics.power(jnp.where(steep, 1.0, base), exponent))


def value_at(x: Any, k: Any) -> Any:
    """What a schedule or number comes to after ``k`` steps. A bare function may return any dtype."""
    return x(k).astype(jax.dtypes.canonicalize_dtype(np.float64)) if isinstance(x, Schedule) else x


def _factors(x: Any) -> tuple:
    return x.factors if isinstance(x, product) else (x,)


def _terms(x: Any) -> tuple:
    return x.terms if isinstance(x, total) else (x,)


def _say(x: Any) -> str:
    """A field as `Schedule.describe` shows it."""
    if isinstance(x, Schedule):
        return x.describe()
    x = shortest(x)
    return f"{x:.6g}" if isinstance(x, float) else code(x)


def _operand(x: Any) -> str:
    return f"({_say(x)})" if isinstance(x, Schedule) else _say(x)
