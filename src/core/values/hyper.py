"""Hyperparameters: a number, a schedule of the step, or a table by path."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from .contents import Array, brief, code, is_array, is_key, same
from .errors import PlainKeyError
from .numerics import Steps
from .own_steps import after_own
from .schedule import Schedule, number_or_schedule
from .spec import spec
from .tree import flatten, is_trainable
from .types import DType, HyperValue, Leaf, Params, PyTree, Scalar
from .value import Range, Value, child, fill, make, number, register

DTYPES = ("float32", "bfloat16", "float16")
"""The dtypes in which slots can be stored, by name."""

if TYPE_CHECKING:
    HyperLike: TypeAlias = "float | jax.Array | np.ndarray | Schedule | by_path | Callable[[jax.Array], Scalar]"
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
    schedule, or `by_path`. ``kw_only`` is for fields added to a link with subclasses: it keeps the positions of the
    subclasses' fields.
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


@register
class by_path(Value):
    """A hyperparameter that depends on the parameter's path: the first pattern that matches the path decides.

    Paths look like ``"encoder/layer_0/kernel"``; patterns are regular expressions, matched with
    `re.search`. Each entry, and ``default``, is a number or a schedule; `store` takes tables of formats,
    and `partition` a table of chains. Without a default, a path that no pattern matches is an error.

    >>> import chainax as cx
    >>> cx.add_decayed_weights(cx.by_path({"bias|norm": 0.0}, default=0.1))
    add_decayed_weights(by_path({'bias|norm': 0}, default=0.1))
    """

    patterns: tuple[str, ...]
    entries: tuple[HyperValue, ...]
    default: HyperValue

    _static = ("patterns",)
    _leaves = ("entries", "default")

    def __init__(self, table: Mapping[str, HyperValue], default: HyperValue = None) -> None:
        if not isinstance(table, Mapping) or (not table and default is None):
            raise ValueError(f"`by_path` needs a table {{pattern: number}}, got {brief(table)}")
        for pattern in table:
            try:
                compiled(pattern)
            except (re.error, TypeError, OverflowError, RecursionError) as e:
                raise ValueError(f"`by_path`: {brief(pattern)} is no regular expression: {e}") from None
            if not isinstance(pattern, str):
                raise ValueError(f"`by_path`: a pattern must be a string, got {brief(pattern)}")
        fill(self, patterns=tuple(table), entries=tuple(table.values()), default=default)
        fill(self, **vars(self.map(_entry)))

    @property
    def table(self) -> dict[str, HyperValue]:
        """The entries by pattern, in order."""
        return dict(zip(self.patterns, self.entries))

    def find(self, path: str) -> int:
        """The index of the first pattern that matches a path; the number of patterns if none does."""
        return _finder(self.patterns)(path)

    @functools.cached_property
    def of_numbers(self) -> bool:
        """Whether all entries are numbers or schedules, as in a hyperparameter."""
        entries = self.entries if self.default is None else (*self.entries, self.default)
        return not any(isinstance(x, str) or (isinstance(x, Value) and not isinstance(x, Schedule)) for x in entries)

    def map(self, change: Callable[[str, HyperValue], HyperValue]) -> by_path:
        """The table with every entry replaced by ``change(label, entry)``."""
        return make(
            by_path,
            patterns=self.patterns,
            entries=tuple(change(f"by_path[{p!r}]", e) for p, e in zip(self.patterns, self.entries)),
            default=None if self.default is None else change("by_path.default", self.default),
        )

    def __repr__(self) -> str:
        default = "" if self.default is None else f", default={code(self.default)}"
        return f"by_path({code(self.table)}{default})"


def by_leaf(params: Params, choose: Callable[[str, Leaf], HyperValue]) -> by_path:
    """The `by_path` table whose entry for each trained leaf of ``params`` is ``choose(path, leaf)``.

    Use it for values that depend on shapes, or that are stored in a tree. ``params`` may hold arrays, or shapes and
    dtypes as returned by ``jax.eval_shape``. Leaves with equal entries share a pattern.

    >>> import chainax as cx
    >>> params = {"bias": jax.numpy.ones(2), "kernel": jax.numpy.ones((3, 2)), "scale": jax.numpy.ones(2)}
    >>> cx.by_leaf(params, lambda path, p: 0.1 if p.ndim > 1 else 0.0)
    by_path({'^(bias|scale)$': 0, '^(kernel)$': 0.1})
    """
    groups: list[tuple[HyperValue, list[str]]] = []
    trained = [(path, leaf) for path, leaf in flatten(params).items() if is_trainable(leaf)]
    for path, count in Counter(path for path, _ in trained).items():
        if count > 1:
            raise ValueError(f"`by_leaf`: {count} parameters have the path {path!r}: rename one")
    for path, leaf in trained:
        entry = choose(path, leaf)
        alike = next((paths for other, paths in groups if same(other, entry)), None)
        if alike is None:
            groups.append((entry, [path]))
        else:
            alike.append(path)
    return by_path({f"^({'|'.join(map(re.escape, paths))})$": entry for entry, paths in groups})


def _entry(label: str, x: HyperValue) -> HyperValue:
    """An entry as a table stores it. Values and dtypes are checked by the field that reads the table."""
    if isinstance(x, PartitionSpec):
        return spec(x)
    other = isinstance(x, Value) and not isinstance(x, by_path)
    return x if other or (isinstance(x, str) and x in DTYPES) else number_or_schedule(label, x, Range(closed=True))


def pick(where: str, table: by_path, path: str) -> tuple[int, HyperValue]:
    """The index of the entry for a parameter's path, and the entry. The default has the number of patterns as index."""
    i = table.find(path)
    if i < len(table.entries):
        return i, table.entries[i]
    if table.default is None:
        raise PlainKeyError(
            f"`{where}`: no pattern of {brief(table)} matches parameter {path!r}: add one, or a default"
        )
    return i, table.default


@functools.lru_cache(maxsize=2**14)  # the cache of `re` holds only 512
def compiled(pattern: str) -> re.Pattern[str]:
    """The compiled regular expression."""
    return re.compile(pattern)


@functools.lru_cache(maxsize=256)
def _finder(patterns: tuple[str, ...]) -> Callable[[str], int]:
    """`by_path.find` for these patterns, with a cache by path."""
    expressions = [compiled(pattern) for pattern in patterns]

    @functools.cache
    def find(path: str) -> int:
        return next((i for i, expression in enumerate(expressions) if expression.search(path)), len(expressions))

    return find


def table_choices(links: Iterable[tuple[str, Any]], path: str) -> tuple[int, ...]:
    """The index of the entry for a parameter's path in each table in the fields of these links."""
    fields = ((name, field, getattr(link, field)) for name, link in links for field in link._leaves)
    return tuple(pick(f"{n}.{f}", table, path)[0] for n, f, table in fields if isinstance(table, by_path))


def check_hyper(where: str, x: HyperValue, limits: Range) -> HyperValue:
    """``x`` as a link stores it. Raises unless it is a number in range, a schedule or a table of these."""
    if isinstance(x, Mapping) or (isinstance(x, (list, tuple)) and x):
        raise ValueError(f"`{where}` must be a number, a schedule or a table, got a {type(x).__name__}{_of_tree(x)}")
    if isinstance(x, by_path):
        return x.map(lambda label, entry: check_hyper(f"{where}`: `{label}", entry, limits))
    return number_or_schedule(where, x, limits)


def _of_tree(x: PyTree) -> str:
    """What to write instead of a tree."""
    flat = flatten(x)
    if any(jnp.ndim(leaf) for leaf in flat.leaves if is_array(leaf)):
        return " of arrays: parameters go to tx.init(params)"
    if flat.leaves and all(isinstance(leaf, bool) or getattr(leaf, "dtype", None) == np.bool_ for leaf in flat.leaves):
        return f" of booleans. In place of a mask write by_path({{'bias|norm': 0.0}}, default=0.1) or {BY_LEAF}"
    numbers = isinstance(x, Mapping) and all(isinstance(leaf, (int, float)) for leaf in flat.leaves)
    if not numbers or not 1 <= len(flat.leaves) <= 8:
        return f": choose by path or shape with {BY_LEAF}"
    if {*x} == {*flat.paths}:
        return f": write by_path({code(x)}, default={code(next(iter(x.values())))})"
    return f": write by_path({code({f'^{re.escape(path)}$': leaf for path, leaf in flat.items()})})"


BY_LEAF = "by_leaf(params, lambda path, p: 0.1 if p.ndim > 1 else 0.0)"


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
