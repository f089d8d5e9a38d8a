"""Successive halving: many short runs, and longer ones of the best."""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..core.facade.transformation import Transformation
from ..core.values.contents import code
from ..core.values.text import aligned
from ..core.values.value import check_count
from .arguments import check_call, check_chains, listed, metric_of, orders_of, seeds_of
from .columns import settings_of
from .scores import ranked, scored
from .sweep import FAILED, swept

ONLY = "all"
"""The name of the one order that a list of chains is."""


class Halving(NamedTuple):
    """The result of `successive_halving`. As text, it is a table of the rungs and the winners."""

    table: dict[str, np.ndarray]
    """A row for each run, rung after rung: the columns of `sweep`, with ``order``, ``rung`` and ``steps``."""
    winners: dict[str, Any]
    """The best chain of each order, by the order's name; that of a list is called ``"all"``. ``None`` for an order of
    which the last runs all diverged."""
    metric: str
    """The column that chains were ranked by."""
    total: int
    """The steps of all runs of all orders."""

    @property
    def best(self) -> Any:
        """The best chain of all orders: the winner with the least metric."""
        last = np.flatnonzero(self.table["rung"] == self.table["rung"][-1])
        return self.winners[str(self.table["order"][self._ranked(last)[0]])]

    @property
    def scores(self) -> np.ndarray:
        """The metric of the runs, ``[row, seed]``: infinite for those that diverged."""
        return scored(self.table[self.metric]).reshape(len(self.table["rung"]), -1)

    def _ranked(self, rows: np.ndarray) -> np.ndarray:
        return rows[ranked(self.scores[rows])]

    def __str__(self) -> str:
        table = self.table
        lines = [["order", "rung", "chains", "steps", self.metric, "best"]]
        for rung in range(table["rung"][-1] + 1):
            for order in self.winners:
                rows = np.flatnonzero((table["rung"] == rung) & (table["order"] == order))
                first = self._ranked(rows)[0]
                score, name = self.scores[first].mean(), str(table["name"][first])
                cells = order, rung, len(rows), table["steps"][first], f"{score:.4g}"
                lines.append(
                    [*map(str, cells), name if np.isfinite(self.scores[first]).any() else "none: all diverged"]
                )
        text = [aligned(lines, left=range(6))]
        count, each = len(self.winners), self.total // len(self.winners)
        return "\n".join([*text, f"{each} steps" + (f" an order, {self.total} in all" if count > 1 else " in all")])


def successive_halving(
    train: Callable[..., Any],
    over: Iterable[Transformation] | Mapping[str, Iterable[Transformation]],
    *args: Any,
    budget: int | None = None,
    steps: Iterable[int] | None = None,
    eta: int = 3,
    seeds: int | Iterable[int] | None = None,
    metric: str | None = None,
    batch_size: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Halving:
    """Train all chains for a few steps, the best of them for more, and so on.

    Jamieson & Talwalkar 2016, arXiv:1502.07943, Algorithm 1; of n chains, ``n // eta`` go on, at least one (Li et al.
    2018, arXiv:1603.06560). Each rung is a `sweep` of ``train(tx, steps, *args)``, with the number of steps as a
    Python number. Departs from the papers in that each run starts anew, since schedules depend on the number of steps;
    so each rung costs its steps in full, and compiles anew.

    Give the plan in one of two ways. ``budget`` is the most steps that an order may cost, over all runs: the rungs
    share it equally, until one chain is left. ``steps`` are the steps of a run on each rung, such as
    ``[100, 300, 900]``. Both are for one seed. `Halving.total` is what was spent, without the steps that could not be
    divided.

    ``over`` is a list of chains, or a dict of such lists by name, such as orders of links. Each order is halved for
    itself, at the same cost, so lists must have the same length.

    With ``seeds``, every chain runs with each of them, ``train(tx, steps, seed, *args)``; those with the fewest
    diverged runs go on, and of these those with the lowest mean. Without ``seeds`` it is a single run, so that the
    winner of noisy runs owes much to chance. `compare` finds out which of the ``winners`` is better. With ``folder``,
    each rung is kept in a folder within it, as by `sweep`.

    Less is better: ``metric`` is the column of a scalar result to minimize; by default, the only one, or ``"loss"``. A
    loss that is not finite is the worst. Of equal chains, the first in the list goes on.

    Errors: those of `sweep`; ``TypeError`` for a dict that does not hold lists of chains; ``ValueError`` for lists of
    different lengths, a budget of less than one step a run, steps that do not increase, and results whose
    shapes depend on the number of steps, and for a ``metric`` that ``train`` does not return.

    >>> import chainax as cx, jax
    >>> def train(tx, steps):
    ...     def step(carry, _):
    ...         return tx.step(*carry, 2 * carry[0]), None
    ...     x = jax.numpy.array(1.0)
    ...     (x, _), _ = jax.lax.scan(step, (x, tx.init(x)), length=steps)
    ...     return x**2
    >>> chains = cx.grid(cx.sgd(0.1), {"scale_by_lr.learning_rate": [0.01, 0.1, 0.4, 1.1]})
    >>> print(cx.successive_halving(train, chains, budget=24, eta=2))
    order  rung  chains  steps  result     best
    all    0     4       3      6.4e-05    learning_rate=0.4
    all    1     2       6      4.096e-09  learning_rate=0.4
    24 steps in all
    """
    if not callable(train):
        raise TypeError(
            f"`successive_halving.train` must be a function of a chain and a number of steps, got {code(train)}"
        )
    where = "successive_halving.over"
    if not isinstance(over, Mapping):
        check_chains(where, given := listed(over))
        over = {ONLY: given}
    orders = orders_of(where, over)
    size = len(next(iter(orders.values())))
    eta = check_count("successive_halving.eta", eta, 2, None)
    plan = _plan(size, budget, steps, eta)
    numbers = None if seeds is None else seeds_of("successive_halving.seeds", seeds)
    own_names = ["steps", *["seed"] * (numbers is not None), *(f"args[{i}]" for i in range(len(args)))]
    check_call("successive_halving", train, own_names)
    chains = [tx for group in orders.values() for tx in group]
    columns = {"order": np.repeat(list(orders), size), **_settings(orders, chains)}
    alive = np.arange(len(chains)).reshape(len(orders), size)
    rungs: list[dict[str, np.ndarray]] = []
    results: list[dict[str, np.ndarray]] = []
    scores = np.full((len(orders), 1, 1), np.inf)
    for rung, (count, length) in enumerate(plan):
        rows = alive.ravel()
        members = [chains[i] for i in rows]
        given = train if numbers is None else functools.partial(_seeded, train)
        within = None if folder is None else pathlib.Path(folder) / f"rung-{rung}"
        options = numbers, batch_size, within, progress
        table = swept("successive_halving", given, members, (length, *args), *options)
        settings = settings_of([""] * len(members), members)
        result = {name: x for name, x in table.items() if name not in settings}
        _check_shapes(result, results, [length for _, length in plan])
        seeded = numbers is not None
        shapes = {name: x.shape[1 + seeded :] for name, x in result.items() if name != FAILED}
        metric = metric_of("successive_halving", shapes, metric)
        own = {"rung": np.full(len(rows), rung), "steps": np.full(len(rows), length)}
        if clash := [name for name in result if name in columns or name in own]:
            raise ValueError(f"`train` returns {clash[0]!r}, which is a column of the chains: give it another name")
        rungs.append({**{name: x[rows] for name, x in columns.items()}, **own})
        results.append(result)
        scores = scored(result[metric]).reshape(len(orders), count, -1)
        ranks = [ranked(x) for x in scores]
        keep = plan[rung + 1][0] if rung + 1 < len(plan) else 1
        alive = np.stack([members[np.sort(rank[:keep])] for members, rank in zip(alive, ranks)])
    return Halving(
        _joined(rungs, results),
        {order: chains[i] if np.isfinite(x).any() else None for order, (i,), x in zip(orders, alive.tolist(), scores)},
        str(metric),
        len(orders) * len(numbers or (0,)) * sum(count * length for count, length in plan),
    )


def _seeded(train: Callable[..., Any], tx: Any, seed: Any, steps: int, *args: Any) -> Any:
    """`train` with its arguments in its order."""
    return train(tx, steps, seed, *args)


def rungs_of(size: int, eta: int, most: int | None = None) -> list[int]:
    """How many chains run on each rung: until one is left, which need not run again, or on ``most`` rungs.

    >>> rungs_of(27, 3), rungs_of(10, 2), rungs_of(4, 2, most=4)
    ([27, 9, 3], [10, 5, 2], [4, 2, 1, 1])
    """
    counts = [size]
    while len(counts) < most if most else counts[-1] // eta > 1:
        counts.append(max(1, counts[-1] // eta))
    return counts


def _plan(size: int, budget: int | None, steps: Iterable[int] | None, eta: int) -> list[tuple[int, int]]:
    """The chains of an order, and the steps that each of them runs, on each rung."""
    if (budget is None) == (steps is None):
        raise ValueError(
            "`successive_halving` needs either the `budget` of an order, in steps of all its runs, or the `steps` of a "
            f"run on each rung, such as [100, 300, 900], got {'neither' if steps is None else 'both'}"
        )
    if steps is not None:
        lengths = list(steps) if isinstance(steps, Iterable) and not isinstance(steps, str) else []
        lengths = [check_count(f"successive_halving.steps[{i}]", x, 1, None) for i, x in enumerate(lengths)]
        if not lengths or any(a >= b for a, b in itertools.pairwise(lengths)):
            raise ValueError(f"`successive_halving.steps` must be increasing whole numbers, at least one, got {steps}")
        return list(zip(rungs_of(size, eta, len(lengths)), lengths))
    counts = rungs_of(size, eta)
    budget = check_count("successive_halving.budget", budget, 1, None)
    if budget < size * len(counts):
        raise ValueError(
            f"`successive_halving.budget` must be {size * len(counts)} steps at least, one for each of {size} chains "
            f"on the first of {len(counts)} rungs, got {budget}"
        )
    return [(count, budget // (count * len(counts))) for count in counts]


def _settings(orders: Mapping[str, tuple[Any, ...]], chains: list[Any]) -> dict[str, np.ndarray]:
    """The columns that tell the chains apart. Names begin with the order's, if there are several."""
    names: list[str] = []
    for order, group in orders.items():
        own = settings_of([""] * len(group), group)["name"].tolist()
        names += own if len(orders) == 1 else [f"{order}: {name}" for name in own] if len(own) > 1 else [order]
    return settings_of(names, chains)


def _check_shapes(result: dict[str, np.ndarray], earlier: list[dict[str, np.ndarray]], steps: list[int]) -> None:
    """Raise if results have other names or shapes than those of shorter runs."""
    shapes, before = (
        {name: x.shape[1:] for name, x in table.items() if name != FAILED}
        for table in (result, (earlier or [result])[0])
    )
    if shapes != before:
        raise ValueError(
            f"`train` must return the same names and shapes for any number of steps, got {before} after {steps[0]} and "
            f"{shapes} after {steps[len(earlier)]}: return the last loss rather than all of them"
        )


def _joined(rungs: list[dict[str, np.ndarray]], results: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One table of all rungs."""
    if any(FAILED in table for table in results):
        results = [
            {**table, FAILED: table.get(FAILED, np.full(len(rows["rung"]), ""))} for table, rows in zip(results, rungs)
        ]
    tables = [{**rows, **table} for rows, table in zip(rungs, results)]
    names = dict.fromkeys(["name", "order", "rung", "steps", *tables[0]])
    return {name: np.concatenate([table[name] for table in tables]) for name in names}
