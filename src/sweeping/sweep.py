"""One training function over many chains."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.facade.transformation import Transformation
from ..core.values.contents import code
from ..core.values.tree import flatten
from ..core.values.warning import warn
from .columns import settings_of
from .devices import Devices, available
from .group import Group, named
from .progress import progress_bar


def sweep(
    train: Callable[..., Any],
    over: Iterable[Transformation] | Mapping[str, Transformation],
    *args: Any,
    batch_size: int | None = None,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Call ``train(tx, *args)`` for every chain, and return a table of the results, in the chains' order.

    Chains with the same structure run together, in one ``jit`` of a ``vmap``, so each structure is traced
    and compiled once. Numbers that differ between its chains are traced, and all others are constants. At most
    ``batch_size`` chains run at once; by default as many as fit into memory according to the compiler
    (if not all of them fit, that costs another compilation).

    The chains that run at once are divided among the devices: this process's devices of the mesh set by
    ``jax.set_mesh``; without a mesh, the default device if one is set, or all local devices. Each device computes its
    own chains, without communication, and has a copy of the arrays in ``args``, however they were sharded. Within
    ``train`` there is no mesh: arrays on a mesh with explicit axes must come in through ``args``, and to divide a
    single chain among devices, call ``train`` in a loop. Rows do not depend on the number of devices, apart from
    rounding errors where the number of chains on each differs. Each of several processes runs the whole sweep. On CPUs
    divided into several devices, functions that call LAPACK run on one.

    ``over`` is a list of chains, such as `grid` returns, or a dict of chains by name. ``train`` returns any tree
    of arrays or numbers. Arrays in ``args`` are shared by all chains; everything else in ``args`` is a constant.

    Returns columns of equal length: ``name``; ``links`` if the chains have different links or orders;
    each field that differs, such as ``scale_by_lr.learning_rate`` (numbers, NaN for chains without that
    link; or text); and each leaf of the results by its path (``result`` for a single array).

    If ``train`` fails for one structure, a `ChainWarning` is issued at once and the others continue. The failed rows
    are NaN, and a last column, ``exception``, holds the error.

    Errors: ``TypeError`` for anything that is not a chain and for a ``train`` that does not take these arguments;
    ``ValueError`` for an empty list, stacked chains, a mesh without devices of this process, and results whose names or
    shapes differ between chains; and the error of ``train``, if it fails for all structures.

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
    is_integer = isinstance(batch_size, (int, np.integer)) and not isinstance(batch_size, bool)
    if batch_size is not None and not (is_integer and batch_size >= 1):
        raise ValueError(f"`sweep.batch_size` must be a whole number from 1, or None, got {code(batch_size)}")
    names, chains = _chains(over)
    settings = settings_of(names, chains)
    _check_signature(train, args)
    members: dict[Any, list[int]] = {}
    for i, tx in enumerate(chains):
        members.setdefault(jax.tree.structure(tx), []).append(i)
    groups = [Group(f"structure {k + 1} of {len(members)}", which) for k, which in enumerate(members.values())]
    devices = Devices(available(), args)
    rows: list[Any] = [None] * len(chains)
    with progress_bar(len(chains), progress) as tell:
        for group in groups:
            tell(f"compiling {group.what}", 0)
            try:
                group.compile(train, [chains[i] for i in group.members], args, batch_size, devices)
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
"""The column of the errors, present if there are any."""


def _chains(over: Any) -> tuple[list[str], list[Any]]:
    """The names, empty for a list of chains, and the chains."""
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


def _check_signature(train: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Raise at once if ``train`` takes other arguments: it would fail for every chain."""
    try:
        signature = inspect.signature(train)
    except ValueError:  # not every callable has a signature
        return
    try:
        signature.bind(None, *args)
    except TypeError as e:
        raise TypeError(f"`sweep.train` must take a chain and the {len(args)} arguments that follow: {e}") from None


def _check_results(groups: list[Group], names: list[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The shapes and dtypes of the results by name. Raise unless all structures return the same names and shapes."""
    expected: dict[str, tuple[int, ...]] = {}
    for group in groups:
        flat = flatten(group.compiled.out_info)
        shapes = {name: x.shape[1:] for name, x in named(group.compiled.out_info).items()}
        if not shapes:
            raise ValueError("`train` returns no arrays: return what the table should show, such as {'loss': loss}")
        if len(shapes) < sum(x is not None for x in flat.leaves):
            raise ValueError(f"`train` returns several arrays by one name: {', '.join(flat.paths)}")
        if clash := [name for name in shapes if name in settings or name == FAILED]:
            raise ValueError(f"`train` returns {clash[0]!r}, which is a column of the chains: give it another name")
        expected = expected or shapes
        if shapes != expected:
            this, first = (names[g.members[0]] for g in (group, groups[0]))
            raise ValueError(
                f"`train` must return the same names and shapes for all chains, got {shapes} for {this!r} "
                f"and {expected} for {first!r}"
            )
    return named(groups[0].compiled.out_info)


def _fail(group: Group, e: Exception, groups: list[Group], names: list[str]) -> None:
    """Store an error of ``train`` with notes on where it occurred and what to do. Raise if all structures failed."""
    first, *others = [names[i] for i in group.members]
    which = f"for {group.what}: {first}{f', and {len(others)} more' if others else ''}."
    remedies = []
    if isinstance(e, jax.errors.JAXTypeError):
        remedies.append(
            "`train` runs under jit and vmap, where arrays and the numbers that differ between chains are traced: "
            "do not turn them into Python numbers, nor branch on them; return arrays."
        )
    if isinstance(e, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(e):
        remedies.append(f"Give `sweep` a smaller batch_size than {group.size}: that many chains are in memory at once.")
    if isinstance(e, (ValueError, NotImplementedError)) and ("mesh" in str(e) or "shard_map" in str(e)):
        remedies.append(
            "`sweep` computes each chain on one device, so there is no mesh within `train`: give it arrays on a mesh "
            "as arguments, `sweep(train, over, x)`. To divide one chain among devices, call `train` in a loop."
        )
    for note in (f"In `sweep`, {which}", *remedies):
        e.add_note(note)
    group.error = e
    if all(g.error for g in groups):
        raise groups[0].error or e
    warn(" ".join([f"`sweep` continues without rows {which} {_first_line(e)}", *remedies]))


def _first_line(e: Exception | None) -> str:
    """The type of an error, and the first line of its message."""
    line = (str(e).splitlines() or [""])[0]
    return f"{type(e).__name__}: {line}"[:300]


def _nan(result: jax.ShapeDtypeStruct) -> np.ndarray:
    """NaN in the shape of one chain's result."""
    return np.full(result.shape[1:], math.nan, result.dtype if jnp.issubdtype(result.dtype, jnp.inexact) else float)
