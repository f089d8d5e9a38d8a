"""One training function over many chains."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from ..core.facade.transformation import Transformation
from ..core.values.contents import code
from ..core.values.tree import flatten
from ..core.values.warning import warn
from .arguments import check_call, check_chains, is_whole, seeds_of
from .columns import settings_of
from .devices import Devices, available
from .folder import Folder, identity_of
from .group import Group, named
from .plan import Plan, first_line
from .progress import progress_bar


def sweep(
    train: Callable[..., Any],
    over: Iterable[Transformation] | Mapping[str, Transformation],
    *args: Any,
    seeds: int | Iterable[int] | None = None,
    batch_size: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Call ``train(tx, *args)`` for every chain, and return a table of the results, in the chains' order.

    Chains with the same structure run together, in one ``jit`` of a ``vmap``, so each structure is traced
    and compiled once. Numbers that differ between its chains are traced, and all others are constants. At most
    ``batch_size`` runs happen at once; by default as many as fit into memory according to the compiler
    (if not all of them fit, that costs another compilation).

    The chains that run at once are divided among the devices: this process's devices of the mesh set by
    ``jax.set_mesh``; without a mesh, the default device if one is set, or all local devices. Each device computes its
    own chains, without communication, and has a copy of the arrays in ``args``, however they were sharded. Within
    ``train`` there is no mesh: arrays on a mesh with explicit axes must come in through ``args``, and to divide a
    single chain among devices, call ``train`` in a loop. Rows do not depend on the number of devices, apart from
    rounding errors where the number of chains on each differs. Each of several processes runs the whole sweep. On CPUs,
    chains for which ``train`` calls LAPACK run one at a time.

    ``over`` is a list of chains, such as `grid` returns, or a dict of chains by name. ``train`` returns any tree
    of arrays or numbers. Arrays in ``args`` are shared by all chains; everything else in ``args`` is a constant.

    With ``seeds``, a number of them (0, 1, ...) or a list, every chain runs with each: ``train(tx, seed, *args)`` gets
    a traced int32, for ``jax.random.key(seed)``, and results have an axis of seeds, ``[chain, seed, ...]``.

    With ``folder``, results are written there batch by batch. A sweep that was killed or interrupted goes on where it
    stopped when it is called again, with the same number of runs at once, so its table is the same to the last bit on
    the same devices; and a call with more chains or seeds runs those that are missing. By default a batch is then a
    tenth of a structure's runs at most. The folder belongs to one ``train`` and one ``args``: the contents of arrays
    and objects are compared, the source of ``train``, its closure, and what it names in its own module; not what other
    modules contain. Of several processes, the first one writes.

    Returns columns of equal length: ``name``; ``links`` if the chains have different links or orders;
    each field that differs, such as ``scale_by_lr.learning_rate`` (numbers, NaN for chains without that
    link; or text); and each leaf of the results by its path (``result`` for a single array).

    If ``train`` fails for one structure, a `ChainWarning` is issued at once and the others continue. The failed rows
    are NaN, and a last column, ``exception``, holds the error.

    Errors: ``TypeError`` for anything that is not a chain and for a ``train`` that does not take these arguments;
    ``ValueError`` for an empty list, stacked chains, seeds that are not distinct whole numbers, a mesh without devices
    of this process, results whose names or shapes differ between chains, and a folder of another sweep; and the error
    of ``train``, if it fails for all structures.

    >>> import chainax as cx
    >>> def train(tx, x):
    ...     x, _ = tx.step(x, tx.init(x), 2 * x)
    ...     return {"loss": x**2}
    >>> table = cx.sweep(train, cx.grid(cx.sgd(0.1), {"scale_by_lr.learning_rate": [0.25, 0.5]}), 2.0)
    >>> table["name"].tolist(), table["loss"].tolist()
    (['learning_rate=0.25', 'learning_rate=0.5'], [1.0, 0.0])
    """
    return swept("sweep", train, over, args, seeds, batch_size, folder, progress)


def swept(
    caller: str,
    train: Callable[..., Any],
    over: Any,
    args: tuple[Any, ...],
    seeds: Any,
    batch_size: int | None,
    folder: str | os.PathLike[str] | None,
    progress: bool,
    identity: dict[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """`sweep`, on behalf of a function that errors name. ``identity`` is that of `identity_of`, if it is known."""
    if not callable(train):
        raise TypeError(f"`{caller}.train` must be a function of a chain, got {code(train)}")
    if batch_size is not None and not (is_whole(batch_size) and batch_size >= 1):
        raise ValueError(f"`{caller}.batch_size` must be a whole number from 1, or None, got {code(batch_size)}")
    names, chains = _chains(caller, over)
    settings = settings_of(names, chains)
    numbers = None if seeds is None else seeds_of(f"{caller}.seeds", seeds)
    check_call(caller, train, [*["seed"] * (numbers is not None), *(f"args[{i}]" for i in range(len(args)))])
    devices = Devices(available(), args)
    with contextlib.ExitStack() as stack:
        kept = None
        if folder is not None and jax.process_index() == 0:
            kept = stack.enter_context(Folder.writing(caller, folder, identity or identity_of(train, args)))
        plan = Plan(names, chains, numbers, kept)
        tell = stack.enter_context(progress_bar(plan.total, plan.total - plan.left, progress))
        try:
            for group in plan.groups:
                tell(f"compiling {group.what}", 0)
                try:
                    group.compile(train, plan.chains, args, devices, batch_size, share=1 if kept is None else SHARE)
                except Exception as e:
                    _fail(caller, group, e, plan)
            shapes = _check_results(plan, settings)
            for group in plan.groups:
                if not group.error:
                    tell(f"running {group.what}", 0)
                try:
                    for count in plan.run(group):
                        tell(f"running {group.what}", count)
                except Exception as e:
                    if "KeyboardInterrupt" in str(e):  # as JAX reports one that came within a callback of `train`
                        raise KeyboardInterrupt from e
                    _fail(caller, group, e, plan)
        except KeyboardInterrupt as e:
            if kept is not None:
                e.add_note(f"{kept.path} keeps {len(plan.rows)} of {plan.total} runs: call `{caller}` again to go on.")
            raise
    results = {name: np.stack([plan.row(i, name, shape) for i in range(len(chains))]) for name, shape in shapes.items()}
    errors = [plan.error(i) for i in range(len(chains))]
    table = {**settings, **results}
    return {**table, FAILED: np.array(errors)} if any(errors) else table


SHARE = 10
"""With a folder, a batch is this part of the runs of a structure, or less."""
FAILED = "exception"
"""The column of the errors, present if there are any."""


def _chains(caller: str, over: Any) -> tuple[list[str], list[Any]]:
    """The names, empty for a list of chains, and the chains."""
    over = over if isinstance(over, (Mapping, Transformation)) or not isinstance(over, Iterable) else list(over)
    check_chains(f"{caller}.over", over)
    pairs = over.items() if isinstance(over, Mapping) else [("", tx) for tx in over]
    return [str(name) for name, _ in pairs], [tx for _, tx in pairs]


def _check_results(plan: Plan, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The shape and dtype of a run's results by name. Raise unless all structures return the same names and shapes."""
    expected, first = plan.known, "the folder's"
    for group in plan.groups:
        if group.error:
            continue
        flat = flatten(group.compiled.out_info)
        found = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in named(group.compiled.out_info).items()}
        if not found:
            raise ValueError("`train` returns no arrays: return what the table should show, such as {'loss': loss}")
        if len(found) < sum(x is not None for x in flat.leaves):
            raise ValueError(f"`train` returns several arrays by one name: {', '.join(flat.paths)}")
        if clash := [name for name in found if name in settings or name == FAILED]:
            raise ValueError(f"`train` returns {clash[0]!r}, which is a column of the chains: give it another name")
        this = plan.names[group.members[0]]
        expected, first = (expected, first) if expected else (found, this)
        shapes, others = (
            {name: f"{x.dtype}{list(x.shape)}" for name, x in results.items()} for results in (found, expected)
        )
        if shapes != others:
            raise ValueError(
                f"`train` must return the same names, shapes and dtypes for all chains, got {shapes} for {this!r} "
                f"and {others} for {first!r}"
            )
    return expected


def _fail(caller: str, group: Group, e: Exception, plan: Plan) -> None:
    """Store an error of ``train`` with notes on where it occurred and what to do. Raise if all structures failed."""
    first, *others = [plan.names[i] for i in group.members]
    which = f"for {group.what}: {first}{f', and {len(others)} more' if others else ''}."
    remedies = []
    if isinstance(e, jax.errors.JAXTypeError):
        remedies.append(
            "`train` runs under jit and vmap, where arrays and the numbers that differ between chains are traced: "
            "do not turn them into Python numbers, nor branch on them; return arrays."
        )
    if isinstance(e, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(e):
        remedies.append(
            f"Give `{caller}` a smaller batch_size than {group.size}: that many chains are in memory at once."
        )
    if isinstance(e, (ValueError, NotImplementedError)) and ("mesh" in str(e) or "shard_map" in str(e)):
        remedies.append(
            "`sweep` computes each chain on one device, so there is no mesh within `train`: give it arrays on a mesh "
            "as arguments, `sweep(train, over, x)`. To divide one chain among devices, call `train` in a loop."
        )
    for note in (f"In `{caller}`, {which}", *remedies):
        e.add_note(note)
    group.error = e
    if all(g.error for g in plan.groups) and not plan.rows:
        raise plan.groups[0].error or e
    warn(" ".join([f"`{caller}` continues without rows {which} {first_line(e)}", *remedies]))
