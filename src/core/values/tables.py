"""Tables: hyperparameters with an entry for each parameter, chosen by its path or its number of axes."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

import jax.numpy as jnp
from jax.sharding import PartitionSpec

from .contents import brief, code, hashable, same, shortest
from .errors import PlainKeyError
from .schedule import Schedule, number_or_schedule
from .spec import spec
from .tree import flatten, is_trainable
from .types import HyperValue, Leaf, Params
from .value import Range, Value, check_count, fill, make, register

DTYPES = ("float32", "bfloat16", "float16")
"""The dtypes in which slots can be stored, by name."""

Shape = tuple[int, ...]


class Table(Value):
    """A hyperparameter with an entry for each parameter: the base of `by_path`, `by_ndim`, `by_depth` and `by_width`.

    A subclass is decorated with `value` and defines `choose`, `entry`, `labelled` and `map`. Leaves for which `choose`
    returns equal objects share the numbers of a step, so it should return few.

    >>> import chainax as cx
    >>> isinstance(cx.by_ndim({1: 0.0}, default=0.1), cx.extend.Table)
    True
    """

    reads_ndim: ClassVar[bool] = False
    """Whether the choice depends on the number of a parameter's axes."""
    reads_sizes: ClassVar[bool] = False
    """Whether the choice depends on the lengths of a parameter's axes."""

    @property
    def of_numbers(self) -> bool:
        """Whether all entries are numbers or schedules, as in a hyperparameter."""
        return True

    @property
    def expressions(self) -> tuple[str, ...]:
        """The regular expressions that are matched with paths."""
        return ()

    def choose(self, path: str, shape: Shape) -> Any:
        """What decides about the entry of a parameter: hashable, and equal for parameters with the same entry.

        Errors: ``PlainKeyError`` if there is no entry.
        """
        raise NotImplementedError

    def entry(self, choice: Any) -> HyperValue:
        """The entry for what `choose` returned."""
        raise NotImplementedError

    def labelled(self) -> dict[str, HyperValue]:
        """The entries as far as they are known without the parameters, by a short label."""
        raise NotImplementedError

    def map(self, change: Callable[[str, HyperValue], HyperValue]) -> Self:
        """The table with every entry replaced by ``change(label, entry)``."""
        raise NotImplementedError

    def unmatched(self, shapes: Mapping[str, Shape]) -> Iterator[str]:
        """What in the table is of no effect for these parameters, given as their shapes by path."""
        return iter(())

    def summary(self) -> str:
        """The table in a few words, for tables whose code is long."""
        return brief(self)

    def __str__(self) -> str:
        text = code(self)
        return text if len(text) <= 120 else self.summary()


def pick(where: str, table: Table, path: str, shape: Shape) -> tuple[Any, HyperValue]:
    """What decides about a parameter's entry, and the entry."""
    try:
        choice = table.choose(path, shape)
    except PlainKeyError as e:
        raise PlainKeyError(f"`{where}`: {e}") from None
    return choice, table.entry(choice)


def table_choices(links: Iterable[tuple[str, Any]], path: str, shape: Shape) -> tuple[Hashable, ...]:
    """What decides about a parameter's entry in each table in the fields of these links."""
    fields = ((name, field, getattr(link, field)) for name, link in links for field in link._leaves)
    return tuple(pick(f"{n}.{f}", table, path, shape)[0] for n, f, table in fields if isinstance(table, Table))


# Entries by key


class Keyed(Table):
    """A table with an entry for each key, and a default. The first static field has the keys."""

    entries: tuple[HyperValue, ...]
    default: HyperValue

    _leaves = ("entries", "default")

    @property
    def keys(self) -> tuple[Any, ...]:
        return getattr(self, self._static[0])

    @property
    def table(self) -> dict[Any, HyperValue]:
        """The entries by key, in order."""
        return dict(zip(self.keys, self.entries))

    @functools.cached_property
    def of_numbers(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - cached
        entries = self.entries if self.default is None else (*self.entries, self.default)
        return not any(isinstance(x, str) or (isinstance(x, Value) and not isinstance(x, Schedule)) for x in entries)

    def index(self, path: str, shape: Shape) -> int:
        """The index of a parameter's entry; the number of entries if it has none but the default."""
        raise NotImplementedError

    def missing(self, path: str, shape: Shape) -> str:
        """The error for a parameter without an entry."""
        raise NotImplementedError

    def choose(self, path: str, shape: Shape) -> int:
        i = self.index(path, shape)
        if i == len(self.entries) and self.default is None:
            raise PlainKeyError(self.missing(path, shape))
        return i

    def entry(self, choice: int) -> HyperValue:
        return self.entries[choice] if choice < len(self.entries) else self.default

    @property
    def named(self) -> dict[str, HyperValue]:
        """The entries by the text of their keys, as states and paths of links have them, and ``"default"``.

        If that is a key, the default is ``"(default)"``.
        """
        entries, fallback = dict(zip(map(str, self.keys), self.entries)), "default"
        while fallback in entries:
            fallback = f"({fallback})"
        return entries if self.default is None else {**entries, fallback: self.default}

    def labelled(self) -> dict[str, HyperValue]:
        def short(text: str) -> str:
            leaves = count_leaves(text)
            return text if len(text) <= 80 else f"{text[:60]}..." + (f" ({leaves} leaves)" if leaves else "")

        labels = [*map(short, self.named)]
        return dict(zip(labels, self.named.values())) if len({*labels}) == len(labels) else self.named

    def map(self, change: Callable[[str, HyperValue], HyperValue]) -> Self:
        name = type(self).__name__
        return self.filled(
            (change(f"{name}[{key!r}]", entry) for key, entry in zip(self.keys, self.entries)),
            None if self.default is None else change(f"{name}.default", self.default),
        )

    def filled(self, entries: Iterable[HyperValue], default: HyperValue) -> Self:
        """The table with other entries, unchecked."""
        static = {name: getattr(self, name) for name in self._static}
        return make(type(self), **static, entries=tuple(entries), default=default)

    def summary(self) -> str:
        each: dict[Hashable, list[Any]] = {}
        counts = [count_leaves(key) if isinstance(key, str) else 0 for key in self.keys]
        for entry, n in zip(self.entries, counts):
            shown = each.setdefault((type(entry), hashable(entry)), [brief(shortest(entry)), 0])
            shown[1] += n or 1
        parts = [f"{text} ×{n}" for text, n in each.values()]
        parts = [*parts[:6], *(["..."] if len(parts) > 6 else [])]
        what = f"{sum(counts)} leaves" if all(counts) else f"{len(counts)} entries"
        default = "" if self.default is None else f", default={code(self.default)}"
        return f"{type(self).__name__}(<{what}: {', '.join(parts)}>{default})"

    def __repr__(self) -> str:
        default = "" if self.default is None else f", default={code(self.default)}"
        return f"{type(self).__name__}({code(self.table)}{default})"


@register
class by_path(Keyed):
    """A hyperparameter that depends on the parameter's path: the first pattern that matches the path decides.

    Paths look like ``"encoder/layer_0/kernel"``; patterns are regular expressions, matched with
    `re.search`. Each entry, and ``default``, is a number or a schedule; `store` takes tables of formats,
    and `partition` a table of chains. Without a default, a path that no pattern matches is an error.

    >>> import chainax as cx
    >>> cx.add_decayed_weights(cx.by_path({"bias|norm": 0.0}, default=0.1))
    add_decayed_weights(by_path({'bias|norm': 0}, default=0.1))
    """

    patterns: tuple[str, ...]

    _static = ("patterns",)

    def __init__(self, table: Mapping[str, HyperValue], default: HyperValue = None) -> None:
        if not isinstance(table, Mapping) or (not table and default is None):
            raise ValueError(f"`by_path` needs a table {{pattern: number}}, got {brief(table)}")
        for pattern in table:
            check_pattern("by_path", pattern)
        fill(self, patterns=tuple(table), entries=tuple(table.values()), default=default)
        fill(self, **vars(self.map(_entry)))

    @property
    def expressions(self) -> tuple[str, ...]:
        return self.patterns

    def find(self, path: str) -> int:
        """The index of the first pattern that matches a path; the number of patterns if none does."""
        return first_match(self.patterns)(path)

    def index(self, path: str, shape: Shape) -> int:
        return self.find(path)

    def missing(self, path: str, shape: Shape) -> str:
        return f"no pattern of {self} matches parameter {path!r}: add one, or a default"

    def unmatched(self, shapes: Mapping[str, Shape]) -> Iterator[str]:
        chosen = {self.find(path) for path in shapes}
        for i, pattern in enumerate(self.patterns):
            if i not in chosen:
                yield f"the pattern {pattern!r} decides for no parameter"


@register
class by_ndim(Keyed):
    """A hyperparameter that depends on the number of the parameter's axes: 0 for a scalar, 1 for a vector.

    Entries are what they are in `by_path`. ``stacked`` has the number of axes that do not count, by patterns that are
    searched for in the path: those in front along which `jax.lax.scan` or ``flax.nnx.vmap`` stack layers.

    Errors: ``KeyError`` for a parameter whose number of axes has no entry, if there is no default, and for one with
    fewer axes than are stacked. Warns (`ChainWarning`) about a pattern in ``stacked`` that no path matches.

    >>> import chainax as cx
    >>> cx.add_decayed_weights(cx.by_ndim({1: 0.0}, default=0.1, stacked={"blocks": 1}))
    add_decayed_weights(by_ndim({1: 0}, default=0.1, stacked={'blocks': 1}))
    """

    ndims: tuple[int, ...]
    stacked: tuple[tuple[str, int], ...]

    _static = ("ndims", "stacked")

    reads_ndim = True

    def __init__(
        self, table: Mapping[int, HyperValue], default: HyperValue = None, *, stacked: Mapping[str, int] | None = None
    ) -> None:
        if not isinstance(table, Mapping) or (not table and default is None):
            raise ValueError(f"`by_ndim` needs a table {{number of axes: number}}, got {brief(table)}")
        if not isinstance(stacked, Mapping | None):
            raise ValueError(f"`by_ndim.stacked` must be {{pattern: number of axes}}, got {brief(stacked)}")
        ndims = tuple(check_count("by_ndim.table", n, 0, None) for n in table)
        checked = []
        for pattern, n in (stacked or {}).items():
            check_pattern("by_ndim.stacked", pattern)
            checked.append((pattern, check_count(f"by_ndim.stacked[{pattern!r}]", n, 0, None)))
        fill(self, ndims=ndims, stacked=tuple(checked), entries=tuple(table.values()), default=default)
        fill(self, **vars(self.map(_entry)))

    @property
    def expressions(self) -> tuple[str, ...]:
        return tuple(pattern for pattern, _ in self.stacked)

    def index(self, path: str, shape: Shape) -> int:
        n = self._count(path, shape)
        return self.ndims.index(n) if n in self.ndims else len(self.ndims)

    def missing(self, path: str, shape: Shape) -> str:
        n = self._count(path, shape)
        return f"{self} has no entry for {n} axes, as parameter {path!r} has: add one, or a default"

    def _count(self, path: str, shape: Shape) -> int:
        """The number of axes that count."""
        i = first_match(self.expressions)(path)
        stacked = self.stacked[i][1] if i < len(self.stacked) else 0
        if len(shape) < stacked:
            raise PlainKeyError(
                f"parameter {path!r} has {len(shape)} axes, fewer than the {stacked} in `by_ndim.stacked`"
            )
        return len(shape) - stacked

    def unmatched(self, shapes: Mapping[str, Shape]) -> Iterator[str]:
        chosen = {first_match(self.expressions)(path) for path in shapes}
        for i, pattern in enumerate(self.expressions):
            if i not in chosen:
                yield f"the pattern {pattern!r} in `stacked` decides for no parameter"

    def __repr__(self) -> str:
        stacked = f", stacked={code(dict(self.stacked))}" if self.stacked else ""
        return f"{super().__repr__()[:-1]}{stacked})"


def by_leaf(params: Params, choose: Callable[[str, Leaf], HyperValue]) -> by_path:
    """The `by_path` table whose entry for each trained leaf of ``params`` is ``choose(path, leaf)``.

    Use it for values that are stored in a tree, or that depend on more of a leaf than `by_ndim` reads. ``params`` may
    hold arrays, or shapes and dtypes as returned by ``jax.eval_shape``. Leaves with equal entries share a pattern.
    A long table prints in short by ``str`` and in `describe`, and in full by ``repr``.

    >>> import jax, chainax as cx
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


def count_leaves(pattern: str) -> int:
    """The number of leaves that a pattern of `by_leaf` names, and 0 for any other pattern."""
    inner = re.fullmatch(r"\^\(((?:[^\\()]|\\.)*)\)\$", pattern)
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", inner[1])) + 1 if inner else 0


def shapes_of(params: Params) -> dict[str, Shape]:
    """The shapes of the trained leaves by path."""
    return {path: jnp.shape(p) for path, p in flatten(params).items() if is_trainable(p)}


def _entry(label: str, x: HyperValue) -> HyperValue:
    """An entry as a table stores it. Values and dtypes are checked by the field that reads the table."""
    if isinstance(x, PartitionSpec):
        return spec(x)
    if isinstance(x, str) and "," in x:
        raise ValueError(f"`{label}` must be a number, a schedule or a value, got {x!r}: write matrices({x!r})")
    other = isinstance(x, Value) and not isinstance(x, Table)
    return x if other or (isinstance(x, str) and x in DTYPES) else number_or_schedule(label, x, Range(closed=True))


# Patterns


def check_pattern(where: str, pattern: object) -> None:
    """Raise unless ``pattern`` is a regular expression."""
    try:
        compiled(pattern)  # pyright: ignore[reportArgumentType] - checked next
    except (re.error, TypeError, OverflowError, RecursionError) as e:
        raise ValueError(f"`{where}`: {brief(pattern)} is no regular expression: {e}") from None
    if not isinstance(pattern, str):
        raise ValueError(f"`{where}`: a pattern must be a string, got {brief(pattern)}")


@functools.lru_cache(maxsize=2**14)  # the cache of `re` holds only 512
def compiled(pattern: str) -> re.Pattern[str]:
    """The compiled regular expression."""
    return re.compile(pattern)


@functools.lru_cache(maxsize=256)
def first_match(patterns: tuple[str, ...]) -> Callable[[str], int]:
    """The index of the first of these patterns that matches a path, or their number, with a cache by path."""
    expressions = [compiled(pattern) for pattern in patterns]

    @functools.cache
    def find(path: str) -> int:
        return next((i for i, expression in enumerate(expressions) if expression.search(path)), len(expressions))

    return find
