"""Sweeps: one training function over many chains. The progress bar needs rich: ``pip install "chainax[sweep]"``."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .core.facade.chain import chain, stack
from .core.facade.transformation import Transformation
from .core.values.hyper import by_path
from .core.values.tree import flatten
from .core.values.value import Value, code, is_array, is_key, same, shortest, unknown_field
from .core.values.warning import warn

Tell = Callable[[str, int], None]
"""Says what is being done now, and how many chains are done since it was last called."""


def grid(tx: Transformation, over: Mapping[str, Iterable[Any]]) -> list[Any]:
    """The product of chains: one for every combination of the values, of which the last varies fastest.

    A key is the path of what is replaced, as `sweep` names its columns: a field (``"scale_by_adam.b2"``), a field
    of a value within it (``"scale_by_lr.learning_rate.init_value"``), or a whole link (``"scale_by_adam"``).
    Grids are lists: ``cx.grid(...) + cx.grid(...)`` is a sweep over both.

    Errors: ``KeyError`` for a link and ``TypeError`` for a field that is not there; ``ValueError`` for
    values that are none or no list, for a key within another, and for what the field refuses.

    >>> import chainax as cx
    >>> cx.grid(cx.sgd(0.1, momentum=0.9), {"scale_by_lr.learning_rate": [0.1, 0.2], "trace.momentum": [0.9]})
    [chain(trace(0.9), scale_by_lr(0.1)), chain(trace(0.9), scale_by_lr(0.2))]
    """
    if not isinstance(tx, Transformation):
        raise TypeError(f"`grid.tx` must be a chain or a link, got {code(tx)}")
    if not isinstance(over, Mapping) or not over or not all(isinstance(key, str) for key in over):
        raise ValueError(f'`grid.over` must be a table {{"link.field": [values]}}, got {over!r}')
    values = {}
    for key, given in over.items():
        single = isinstance(given, (str, Mapping, Value)) or not isinstance(given, Iterable)
        single = single or getattr(given, "ndim", 1) == 0  # arrays without an axis count as iterable
        values[key] = [] if single else list(given)
        if not values[key]:
            raise ValueError(f"`grid.over[{key!r}]` must be a list of values, at least one, got {code(given)}")
        if within := [other for other in over if other.startswith(f"{key}.")]:
            raise ValueError(f"`grid.over`: {within[0]!r} lies within {key!r}: replace one or the other")
    paths = [tuple(key.split(".")) for key in over]
    return [_replaced("", tx, dict(zip(paths, point))) for point in itertools.product(*values.values())]


def sweep(
    train: Callable[..., Any],
    over: Iterable[Transformation] | Mapping[str, Transformation],
    *args: Any,
    batch_size: int | None = None,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Call ``train(tx, *args)`` for every chain, and put what it returns into a table, in the chains' order.

    Chains of one structure run together, in one ``jit`` of a ``vmap``, so that each structure is traced
    and compiled once. There the numbers that differ are traced, and the others are constants. At most
    ``batch_size`` chains run at once; by default as many as fit into memory, by the compiler's count
    (where not all of them fit, that costs another compilation).

    ``over`` is a list of chains, such as `grid` makes, or a table of them by name. ``train`` returns any tree
    of arrays or numbers. Arrays in ``args`` are shared by all chains; everything else there is a constant.

    Returns columns of equal length: ``name``; ``links`` if the chains have different ones, or another order;
    each field that differs, such as ``scale_by_lr.learning_rate`` (a number, NaN in a chain that has no such
    link; else text); and each leaf of the results by its path (``result`` for a lone array).

    Where ``train`` fails for one structure, a `ChainWarning` says so at once and the others go on. The failed rows
    are NaN, and a last column, ``exception``, has the error.

    Errors: ``TypeError`` for what is no chain and for a ``train`` that does not take these arguments, ``ValueError``
    for no chains, stacked ones, and results whose names or shapes differ from chain to chain; what ``train`` raises,
    if it fails for all structures.

    >>> import chainax as cx
    >>> def train(tx, x):
    ...     x, _ = tx.step(x, tx.init(x), 2 * x)
    ...     return {"loss": x**2}
    >>> table = cx.sweep(train, cx.grid(cx.sgd(0.1), {"scale_by_lr.learning_rate": [0.25, 0.5]}), 2.0)
    >>> table["name"].tolist(), table["loss"].tolist()
    (['learning_rate=0.25', 'learning_rate=0.5'], [1.0, 0.0])
    """
    if not callable(train):
        raise TypeError(f"`sweep.train` must be a function of a chain, got {code(train)}")
    whole = isinstance(batch_size, (int, np.integer)) and not isinstance(batch_size, bool)
    if batch_size is not None and not (whole and batch_size >= 1):
        raise ValueError(f"`sweep.batch_size` must be a whole number from 1, or None, got {code(batch_size)}")
    names, chains = _chains(over)
    settings = _settings(names, chains)
    _check_signature(train, args)
    members: dict[Any, list[int]] = {}
    for i, tx in enumerate(chains):
        members.setdefault(jax.tree.structure(tx), []).append(i)
    groups = [_Group(f"structure {k + 1} of {len(members)}", which) for k, which in enumerate(members.values())]
    rows: list[Any] = [None] * len(chains)
    with _progress(len(chains), progress) as tell:
        for group in groups:
            tell(f"compiling {group.what}", 0)
            try:
                group.compile(train, [chains[i] for i in group.members], args, batch_size)
            except Exception as e:
                _fail(group, e, groups, names)
        results = _check_results([group for group in groups if not group.error], names, settings)
        for group in groups:
            if group.error:
                continue
            tell(f"running {group.what}", 0)
            try:
                for i, row in zip(group.members, group.rows(tell)):
                    rows[i] = row
            except Exception as e:
                _fail(group, e, groups, names)
    errors = [""] * len(chains)
    for group in groups:
        for i in group.members if group.error else ():
            rows[i] = {name: _nan(x) for name, x in results.items()}
            errors[i] = _first_line(group.error)
    table = {**settings, **{name: np.stack([row[name] for row in rows]) for name in results}}
    return {**table, FAILED: np.array(errors)} if any(errors) else table


FAILED = "exception"
"""The column of the errors, if there are any."""


class _Group:
    """Chains of one structure, as one compiled function of the arrays in them and in the arguments."""

    def __init__(self, what: str, members: list[int]) -> None:
        self.what, self.members = what, members
        self.error: Exception | None = None

    def compile(self, train: Callable, chains: list[Any], args: tuple, batch_size: int | None) -> None:
        """Trace and compile ``train`` for as many chains at once as may be."""
        alike = all(tx == chains[0] for tx in chains)
        tx = chains[0] if alike else stack(chains)
        leaves, treedef = jax.tree.flatten((tx, args))
        own = len(jax.tree.leaves(tx))
        self.axes = [0 if i < own and np.ndim(x) else None for i, x in enumerate(leaves) if is_array(x)]
        self.arrays = [
            x if axis is None or is_key(x) else np.asarray(x) for axis, x in zip(self.axes, filter(is_array, leaves))
        ]
        self.runs = 1 if alike else len(chains)

        def run(arrays: list[Any]) -> Any:
            given = iter(arrays)
            tx, args = treedef.unflatten([next(given) if is_array(x) else x for x in leaves])
            return train(tx, *args)

        def once(arrays: list[Any]) -> Any:
            return jax.tree.map(lambda x: jnp.asarray(x)[None], run(arrays))

        most = min(self.runs, batch_size or self.runs)
        while True:
            self.size = -(-self.runs // -(-self.runs // most))  # as few batches as ``most`` allows, of equal size
            mapped = once if alike else jax.vmap(run, (self.axes,), axis_size=self.size)
            self.compiled = jax.jit(mapped).lower(self.batch(0)).compile()
            needed, free = _memory(self.compiled)
            if self.size == 1 or batch_size is not None or needed <= free:
                return
            most = max(1, min(self.size - 1, int(self.size * free / needed)))

    def batch(self, start: int) -> list[Any]:
        """The arrays of some members; past the end the last one is repeated, so that all batches have one shape."""
        which = np.minimum(np.arange(start, start + self.size), self.runs - 1)
        return [x if axis is None else x[which] for x, axis in zip(self.arrays, self.axes)]

    def rows(self, tell: Tell) -> list[dict[str, np.ndarray]]:
        """The results of each member."""
        rows: list[dict[str, np.ndarray]] = []
        for start in range(0, self.runs, self.size):
            results = {name: np.asarray(x) for name, x in _named(self.compiled(self.batch(start))).items()}
            count = min(self.size, self.runs - start)
            rows += [{name: x[i] for name, x in results.items()} for i in range(count)]
            tell(f"running {self.what}", count if self.runs > 1 else len(self.members))
        return rows * (len(self.members) // self.runs)


def _memory(compiled: Any) -> tuple[float, float]:
    """How many bytes a compiled function takes besides its arguments, and how many are free where it will run."""
    count, outputs = compiled.memory_analysis(), jax.tree.leaves(compiled.output_shardings)
    if count is None or not outputs:
        return 0, 0
    device = min(outputs[0].device_set, key=lambda device: device.id)
    return count.temp_size_in_bytes + count.output_size_in_bytes, _free(device)


def _free(device: Any) -> float:
    """Bytes: nine tenths of what is free on an accelerator, half of a computer's own memory."""
    if stats := device.memory_stats():
        return 0.9 * (stats["bytes_limit"] - stats["bytes_in_use"])
    try:
        return 0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system says
        return math.inf


def _named(results: Any) -> dict[str, Any]:
    flat = flatten(results)
    return {path or "result": x for path, x in flat.items() if x is not None}


def _check_signature(train: Callable, args: tuple) -> None:
    """Raise at once if ``train`` takes other arguments, which no chain would mend."""
    try:
        signature = inspect.signature(train)
    except ValueError:  # not every callable tells
        return
    try:
        signature.bind(None, *args)
    except TypeError as e:
        raise TypeError(f"`sweep.train` must take a chain and the {len(args)} arguments that follow: {e}") from None


def _nan(result: Any) -> np.ndarray:
    """What stands in place of one chain's result."""
    return np.full(result.shape[1:], math.nan, result.dtype if jnp.issubdtype(result.dtype, jnp.inexact) else float)


def _check_results(groups: list[_Group], names: list[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The results by name, with their shapes. Raise unless all structures return the same names and shapes."""
    expected: dict[str, tuple[int, ...]] = {}
    for group in groups:
        flat = flatten(group.compiled.out_info)
        shapes = {name: x.shape[1:] for name, x in _named(group.compiled.out_info).items()}
        if not shapes:
            raise ValueError("`train` returns no arrays: return what the table shall show, such as {'loss': loss}")
        if len(shapes) < sum(x is not None for x in flat.leaves):
            raise ValueError(f"`train` returns several arrays by one name: {', '.join(flat.paths)}")
        if clash := [name for name in shapes if name in settings or name == FAILED]:
            raise ValueError(f"`train` returns {clash[0]!r}, which is a column of the chains: give it another name")
        expected = expected or shapes
        if shapes != expected:
            here, there = (names[g.members[0]] for g in (group, groups[0]))
            raise ValueError(
                f"`train` must return the same names and shapes for all chains, got {shapes} for {here!r} "
                f"and {expected} for {there!r}"
            )
    return _named(groups[0].compiled.out_info)


def _fail(group: _Group, e: Exception, groups: list[_Group], names: list[str]) -> None:
    """Keep an error of ``train``, with notes of where it came and what can be done; raise if all structures failed."""
    first, *others = [names[i] for i in group.members]
    which = f"for {group.what}: {first}{f', and {len(others)} more' if others else ''}."
    remedies = []
    if isinstance(e, jax.errors.JAXTypeError):
        remedies.append(
            "`train` runs under jit and vmap, where arrays and the numbers that differ between chains are traced: "
            "do not turn them into Python numbers, nor branch on them; return arrays."
        )
    if isinstance(e, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(e):
        remedies.append(f"Give `sweep` a smaller batch_size than {group.size}: so many chains are in memory at once.")
    for note in (f"In `sweep`, {which}", *remedies):
        e.add_note(note)
    group.error = e
    if all(g.error for g in groups):
        raise groups[0].error or e
    warn(" ".join([f"`sweep` goes on without rows {which} {_first_line(e)}", *remedies]))


def _first_line(e: Exception | None) -> str:
    """The kind of an error, and the first line of its message."""
    line = (str(e).splitlines() or [""])[0]
    return f"{type(e).__name__}: {line}"[:300]


# The chains, and what tells them apart


def _replaced(where: str, x: Any, changes: dict[tuple[str, ...], Any]) -> Any:
    """A value with other values at some paths within it."""
    if () in changes:
        return changes[()]
    heads: dict[str, dict[tuple[str, ...], Any]] = {}
    for (head, *rest), new in changes.items():
        heads.setdefault(head, {})[tuple(rest)] = new
    if isinstance(x, chain):
        for name, inner in heads.items():
            x = x.replace(name, _replaced(f"{where}.{name}".lstrip("."), x[name], inner))
        return x
    known = _parts(x)
    if known is None:
        raise TypeError(f"`{where}` is {code(x)}, which has no field {next(iter(heads))!r}")
    for name in heads:
        if name not in known:
            raise TypeError(unknown_field(type(x).__name__, name, known))
    parts = {n: _replaced(f"{where}.{n}".lstrip("."), known[n], inner) for n, inner in heads.items()}
    if isinstance(x, by_path):
        *entries, default = {**known, **parts}.values()
        return by_path(dict(zip(x.patterns, entries)), default=default)
    return x.replace(**parts) if isinstance(x, Value) else tuple({**known, **parts}.values())


def _chains(over: Any) -> tuple[list[str], list[Any]]:
    """The chains and their names, empty where none are given."""
    if isinstance(over, Transformation):
        raise TypeError("`sweep.over` is one chain: give a list, such as cx.grid(tx, {'link.field': [values]}) makes")
    if not isinstance(over, Iterable):
        raise TypeError(f"`sweep.over` must be a list of chains or a table of them by name, got {code(over)}")
    named = isinstance(over, Mapping)
    pairs = [(str(name), tx) for name, tx in over.items()] if named else [("", tx) for tx in over]
    if not pairs:
        raise ValueError("`sweep.over` is empty: give at least one chain")
    for i, (name, tx) in enumerate(pairs):
        label = f"sweep.over[{name!r}]" if named else f"sweep.over[{i}]"
        if not isinstance(tx, Transformation):
            remedy = "; wrap an Optax transformation in from_optax" if hasattr(tx, "update") else ""
            raise TypeError(f"`{label}` must be a chain, got {code(tx)}{remedy}")
        if any(np.ndim(x) for x in jax.tree.leaves(tx)):
            raise ValueError(f"`{label}` is a stack of chains: give the chains one by one, `sweep` stacks them")
    return [name for name, _ in pairs], [tx for _, tx in pairs]


_ABSENT: Any = object()  # in place of a field of a link that the chain does not have


def _settings(names: list[str], chains: list[Any]) -> dict[str, np.ndarray]:
    """The columns that tell the chains apart. Fills in the names that are empty."""
    if len({type(tx) for tx in chains}) > 1:
        chains = [chain(tx) for tx in chains]
    columns = _differing("", chains)
    last = Counter(map(_last, columns))
    labels = [_last(where) if last[_last(where)] == 1 else where for where in columns]
    texts = [_texts(label, values) for label, values in zip(labels, columns.values())]
    for i, name in enumerate(names):
        names[i] = name or ", ".join(text[i] for text in texts if text[i]) or code(chains[i])
    return {"name": np.array(names), **{where: _column(values) for where, values in columns.items()}}


def _differing(where: str, values: list[Any]) -> dict[str, list[Any]]:
    """Values that are not all the same, or the fields within them that are not, by path."""
    present = [x for x in values if x is not _ABSENT]
    if all(same(x, present[0]) for x in present):
        return {}
    inner = [{} if x is _ABSENT else _parts(x) for x in values]
    if None in inner or any(_kind(x) != _kind(present[0]) for x in present):
        return {where: values}
    columns: dict[str, list[Any]] = {}
    orders = [_ABSENT if x is _ABSENT else " → ".join(parts or ()) for x, parts in zip(values, inner)]
    if isinstance(present[0], chain) and len({order for order in orders if order is not _ABSENT}) > 1:
        columns[f"{where}.links".lstrip(".")] = orders
    for key in dict.fromkeys(key for parts in inner for key in parts or ()):
        columns |= _differing(f"{where}.{key}".lstrip("."), [(parts or {}).get(key, _ABSENT) for parts in inner])
    return columns


def _parts(x: Any) -> dict[str, Any] | None:
    """What a value is made of, by name; ``None`` for what is no value."""
    if isinstance(x, chain):
        return dict(x.links)
    if isinstance(x, by_path):
        return {**{repr(pattern): entry for pattern, entry in x.table.items()}, "default": x.default}
    if type(x) is tuple:
        return {str(i): part for i, part in enumerate(x)}
    if isinstance(x, Value) and dataclasses.is_dataclass(x):
        return {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}
    return None


def _kind(x: Any) -> Any:
    return type(x), x.patterns if isinstance(x, by_path) else len(x) if isinstance(x, tuple) else None


def _last(where: str) -> str:
    return where.rpartition(".")[2]


def _is_number(x: Any) -> bool:
    return (isinstance(x, (int, float)) and not isinstance(x, bool)) or (is_array(x) and not is_key(x))


def _column(values: list[Any]) -> np.ndarray:
    """Numbers as numbers, with NaN for what is absent; all else as text, with nothing for what is absent."""
    present = [x for x in values if x is not _ABSENT]
    if len(present) == len(values) and isinstance(values[0], int) and len(set(map(type, values))) == 1:
        return np.array(values)
    if all(map(_is_number, present)):
        return np.array([math.nan if x is _ABSENT else float(x) for x in values])
    return np.array(["" if x is _ABSENT else x if isinstance(x, str) else code(shortest(x)) for x in values])


def _texts(label: str, values: list[Any]) -> list[str]:
    """The values for people: ``b2=0.95``, with as few digits as tell them apart."""
    column = _column(values)
    shown = column.tolist()
    if column.dtype == float:
        distinct = len(set(column[~np.isnan(column)].tolist()))
        digits = next(d for d in range(3, 18) if len({f"{x:.{d}g}" for x in shown if x == x}) >= distinct)
        shown = [f"{x:.{digits}g}" if x == x else "" for x in shown]
    plain = _last(label) == "links"
    return ["" if x is _ABSENT else str(text) if plain else f"{label}={text}" for x, text in zip(values, shown)]


# How far it is


@contextlib.contextmanager
def _progress(total: int, show: bool) -> Iterator[Tell]:
    """A bar by rich, or a line of text without it; neither where standard error is no terminal."""
    if not show:
        yield lambda what, count: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield _Line(total).tell
        return
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not (console.is_terminal or console.is_jupyter)) as bar:
        task = bar.add_task("sweep", total=total)
        yield lambda what, count: bar.update(task, description=what, advance=count)


class _Line:
    """Progress without rich."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def tell(self, what: str, count: int) -> None:
        self.done += count
        if sys.stderr.isatty():
            end = "\n" if self.done == self.total else ""
            print(f"\r{self.done}/{self.total} chains, {what}", end=end, file=sys.stderr, flush=True)
