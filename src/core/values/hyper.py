"""Hyperparameters: a number, a schedule of the step, or a table by parameter."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .contents import Array, code, is_array, is_key
from .numerics import Steps
from .own_steps import after_own
from .schedule import Schedule, number_or_schedule
from .tables import Table
from .tree import flatten
from .types import DType, HyperValue, PyTree, Scalar
from .value import Range, child, number

if TYPE_CHECKING:
    HyperLike: TypeAlias = "float | jax.Array | np.ndarray | Schedule | Table | Callable[[jax.Array], Scalar]"
    """Anything that a hyperparameter accepts."""

    class Hyper:
        """What a type checker sees of a hyperparameter: it accepts `HyperLike`, and reads as an operand."""

        def __get__(self, instance: object, owner: object) -> Any: ...
        def __set__(self, instance: object, value: HyperLike) -> None: ...

    class OptionalHyper(Hyper):
        """The same for a hyperparameter that may be ``None``."""

        def __set__(self, instance: object, value: HyperLike | None) -> None: ...

else:
    Hyper = OptionalHyper = HyperLike = object


def hyper(
    symbol: str = "",
    doc: str = "",
    *,
    default: Any = dataclasses.MISSING,
    low: float = 0.0,
    high: float = math.inf,
    closed: bool = False,
    open: bool = False,
    optional: bool = False,
    kw_only: bool = False,
) -> Any:
    """Declare a hyperparameter of a link: its symbol, meaning, default and range ``low <= x < high``.

    ``closed`` includes ``high``, ``open`` excludes ``low``, ``optional`` accepts ``None``. The value may be a number, a
    schedule, or a table such as `by_path`. ``kw_only`` is for fields added to a link with subclasses: it keeps the
    positions of the subclasses' fields.
    """
    return number(
        doc,
        default=default,
        symbol=symbol,
        low=low,
        high=high,
        closed=closed,
        open=open,
        optional=optional,
        kw_only=kw_only,
        check=check_hyper,
    )


@jax.tree_util.register_static
class Whole(int):
    """A Python integer in a field that also accepts arrays.

    It is part of a chain's structure instead of a leaf of its pytree: ``jax.grad`` with respect to a chain requires
    floating-point leaves.
    """


def whole(
    symbol: str,
    doc: str,
    *,
    default: int | None,
    low: float = 1.0,
    optional: bool = False,
) -> Any:
    """Declare an integer hyperparameter: a Python integer, an integer array, or a schedule.

    Links read it with `integer`. Integers that determine shapes must be `static` instead.
    """
    start = None if default is None else Whole(default)
    return number(doc, default=start, symbol=symbol, low=low, optional=optional, check=check_whole)


def check_whole(where: str, x: HyperValue, limits: Range) -> HyperValue:
    """``x`` as a `whole` field stores it. The values of a schedule are rounded when they are read."""
    checked = number_or_schedule(where, x, limits)
    if isinstance(x, (int, np.integer)):
        return Whole(x)
    if isinstance(checked, float) or (is_array(checked) and not jnp.issubdtype(checked.dtype, jnp.integer)):
        none = " or None" if limits.optional else ""
        raise ValueError(f"`{where}` must be a whole number{none}, got {code(x) if is_array(x) else repr(x)}")
    return checked


def integer(x: Scalar, dtype: DType = jnp.int32) -> jax.Array | int:
    """The value of a `whole` field: a Python integer that fits int32, or an array of ``dtype``."""
    return min(int(x), np.iinfo(np.int32).max) if isinstance(x, int) else jnp.round(x).astype(dtype)


def prng_seed(doc: str) -> Any:
    """Declare a seed: an integer, an integer array (possibly traced, or stacked for vmap) or PRNG keys."""
    return child(doc, default=Whole(0), check=_check_seed)


def _check_seed(where: str, x: object, limits: Range | None) -> jax.Array | Whole:
    if is_array(x) and x.dtype == jnp.uint32 and x.shape[-1:] == (2,):
        raise ValueError(
            f"`{where}` got uint32 numbers in pairs, such as the raw keys of jax.random.PRNGKey: give "
            "jax.random.key(0) or jax.random.wrap_key_data(raw), and two seeds as int32"
        )
    if is_array(x) and (jnp.issubdtype(x.dtype, jnp.integer) or is_key(x)):
        return jnp.asarray(x)
    if isinstance(x, (int, np.integer)) and not isinstance(x, bool) and -(2**63) <= x < 2**63:
        return Whole(x)
    raise ValueError(
        f"`{where}` must be a whole number, got {code(x)}: "
        "give an int of 64 bits, an array of integers or a key, such as jax.random.key(0)"
    )


def as_key(where: str, seed: jax.Array | int) -> jax.Array:
    """The PRNG key of a seed."""
    if is_array(seed):
        check_scalar(where, seed)
        if is_key(seed):
            return jnp.asarray(seed)
    return jax.random.key(seed)


def check_hyper(where: str, x: HyperValue, limits: Range) -> HyperValue:
    """``x`` as a link stores it. Raises unless it is a number in range, a schedule or a table of these."""
    if isinstance(x, Mapping) or (isinstance(x, (list, tuple)) and x):
        raise ValueError(f"`{where}` must be a number, a schedule or a table, got a {type(x).__name__}{_of_tree(x)}")
    if isinstance(x, Table):
        return x.map(lambda label, entry: check_hyper(f"{where}`: `{label}", entry, limits))
    return number_or_schedule(where, x, limits)


def _of_tree(x: PyTree) -> str:
    """What to write instead of a tree."""
    flat = flatten(x)
    if any(jnp.ndim(leaf) for leaf in flat.leaves if is_array(leaf)):
        return " of arrays: parameters go to tx.init(params)"
    if flat.leaves and all(isinstance(leaf, bool) or getattr(leaf, "dtype", None) == np.bool_ for leaf in flat.leaves):
        return f" of booleans. In place of a mask write {SOME_ONLY}"
    numbers = isinstance(x, Mapping) and all(isinstance(leaf, (int, float)) for leaf in flat.leaves)
    if not numbers or not 1 <= len(flat.leaves) <= 8:
        return f": choose by path or shape, with {SOME_ONLY}"
    if {*x} == {*flat.paths}:
        return f": write by_path({code(x)}, default={code(next(iter(x.values())))})"
    return f": write by_path({code({f'^{re.escape(path)}$': leaf for path, leaf in flat.items()})})"


SOME_ONLY = "by_path({'bias|norm': 0.0}, default=0.1) or by_ndim({1: 0.0}, default=0.1)"


def evaluate(where: str, x: HyperValue, count: Steps, dtype: DType, own: Steps | None = None) -> Any:
    """The value of a hyperparameter after ``count`` steps of the run and ``own`` steps of the parameter.

    Python numbers are returned unchanged, so that arithmetic on constants is done in double precision at trace
    time. Arrays are converted to ``dtype``.
    """
    if isinstance(x, Schedule) and own is not None:
        x = after_own(x, own)
    if isinstance(x, Schedule):
        x = x(count)
    if not is_array(x):
        return x
    check_scalar(where, x)
    return jnp.asarray(x, dtype)


def check_scalar(where: str, x: Array) -> None:
    """Raise if an array in a field is not a scalar, such as a stack of settings outside ``vmap``."""
    if x.ndim:
        raise ValueError(not_a_scalar(where, x))


def not_a_scalar(where: str, x: Array) -> str:
    """The message for an array in place of a number."""
    return (
        f"`{where}` must be a scalar where it is used, got {x.dtype}{list(x.shape)}: for a number by path write "
        "by_path({pattern: number}, default=number), and map over a stack of settings by "
        "jax.vmap(train, in_axes=(tx.axes(),))(tx)"
    )
