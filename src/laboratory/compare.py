"""Orders of links compared from the same seeds, each at its best setting."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..core.facade.transformation import Transformation
from ..core.values.contents import code
from ..core.values.errors import did_you_mean
from ..sweeping.arguments import check_chains, is_whole, listed, metric_of, orders_of, seeds_of
from ..sweeping.columns import settings_of
from ..sweeping.folder import identity_of, versions
from ..sweeping.group import named
from ..sweeping.identity import source_of, train_name
from ..sweeping.plan import absent
from ..sweeping.sweep import FAILED, swept
from .comparison import Comparison
from .files import save
from .separability import check_softness
from .structure import by_structure

Settings = Transformation | Iterable[Transformation]


def compare(
    train: Callable[..., Any],
    over: Mapping[str, Settings] | Iterable[Transformation],
    *args: Any,
    seeds: int | Iterable[int] = 8,
    fresh: int | Iterable[int] = 0,
    metric: str | None = None,
    diverged: float = math.inf,
    against: str | None = None,
    softness: float | None = None,
    batch_size: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Comparison:
    """Train every setting of every order from the same seeds, and compare the orders at their best settings.

    ``over`` maps the name of each order to its settings: a list of chains, such as `grid` or `sample` makes, or one
    chain; `orders` makes such a table. All orders must have the same number of settings, so that none is tuned more
    than another. A list of chains makes an order of those with the same types of links in the same places.

    ``train(tx, seed, *args)`` is called as by `sweep`, with ``seeds``; all that is random in it should come from the
    seed. It returns the score of the run, lower is better, or a tree of results in which ``metric`` names the score: by
    default the only one that is a single number, or ``"loss"``. Scores that are not finite or above ``diverged`` count
    as diverged, and a setting with fewer diverged runs is better.

    The best setting is the one with the fewest diverged runs over ``seeds``, then the lowest mean score. Its score on
    the seeds that chose it is optimistic, and a test on it would find differences where there are none. With ``fresh``,
    further seeds (the next ones, for a number of them), the best setting of each order is trained from these, and all
    statistics use these runs. Without, and with more than one setting per order, differences are not tested.

    Returns a `Comparison`. It has the best setting of each order, the mean score with a percentile bootstrap interval
    over the seeds, and for each pair of orders (or all against the one called ``against``) the mean of the differences
    by seed, its interval, and a sign-flip test (exact up to 20 seeds, with drawn flips beyond), with Holm's correction
    for several pairs. If a run diverged, which is worse than any score, an exact sign test takes its place. A
    difference is reported as significant only if the number of seeds allows p <= 0.05. Of settings on a grid it says
    whether two fields can be tuned one after the other; ``softness`` is the difference in score that counts as small
    there, see `Comparison.separability`.

    With ``folder``, runs are kept there (see `sweep`): a killed comparison goes on where it stopped, a call with more
    seeds or settings runs those that are missing, and `Comparison.load` and ``python -m chainax report`` read it.

    Errors: those of `sweep`; ``ValueError`` for orders with different numbers of settings, an unknown ``metric`` or
    ``against``, a score that is not a single number, a ``diverged`` or ``softness`` that is not a number, and fresh
    seeds that are among ``seeds``.

    >>> import chainax as cx, jax
    >>> def train(tx, seed):
    ...     x = jax.random.normal(jax.random.key(seed), 3)
    ...     return abs(tx.step(x, tx.init(x), 2 * x)[0]).sum()
    >>> rates = {"scale_by_lr.learning_rate": [0.1, 0.4]}
    >>> orders = {"sgd": cx.grid(cx.sgd(0.1), rates), "sign": cx.grid(cx.sign_sgd(0.1), rates)}
    >>> comparison = cx.compare(train, orders, fresh=8)
    >>> print(comparison.differences()[0].verdict)
    sgd is better
    """
    orders = _orders(over)
    own = seeds_of("compare.seeds", seeds)
    new = _fresh(fresh, own)
    if against is not None and against not in orders:
        hint = did_you_mean(str(against), orders)
        raise ValueError(f"`compare.against` must be one of the orders {list(orders)}, got {code(against)}{hint}")
    diverged = _limit(diverged)
    softness = check_softness("compare.softness", softness)
    if shapes := _shapes(train, orders, own[0], args):
        metric_of("compare", shapes, metric)
    if "order" in shapes:
        raise ValueError("`train` returns 'order', which is a column of the comparison: give it another name")
    chains = [tx for settings in orders.values() for tx in settings]
    identity = identity_of(train, args) if folder is not None else None
    options = batch_size, folder, progress, identity
    table = swept("compare", train, chains, args, own, *options)
    columns = settings_of([""] * len(chains), chains)
    results = {name: x for name, x in table.items() if name not in columns and name != FAILED}
    comparison = Comparison(
        orders=orders,
        results=results,
        seeds=own,
        metric=metric_of("compare", {name: x.shape[2:] for name, x in results.items()}, metric),
        diverged=diverged,
        fresh_seeds=new,
        against=against,
        softness=softness,
        metadata={"train": train_name(train), "source": source_of(train), "versions": versions()},
        errors=_errors(table),
    )
    if new:
        trained = [name for name in orders if not comparison.failure(name)]
        table = swept("compare", train, [comparison.best(name) for name in trained], args, new, *options)
        rows = [trained.index(name) if name in trained else None for name in orders]
        errors = _errors(table)
        comparison = dataclasses.replace(
            comparison,
            fresh={name: _placed(table[name], rows) for name in results},
            fresh_errors=tuple("" if i is None else errors[i] for i in rows) if errors else (),
        )
    if folder is not None:
        save(comparison, folder)
    return comparison


def _orders(over: Any) -> dict[str, tuple[Transformation, ...]]:
    """The settings of each order."""
    if isinstance(over, Mapping):
        return orders_of("compare.over", {k: [x] if isinstance(x, Transformation) else x for k, x in over.items()})
    given = listed(over)
    check_chains("compare.over", given)
    orders = by_structure(given)
    return orders_of("compare.over", orders if len(orders) > 1 else {"all": given})


def _fresh(fresh: Any, own: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds that choose no setting."""
    if is_whole(fresh):
        if fresh < 0:
            raise ValueError(f"`compare.fresh` must be a number of seeds from 0, or a list of seeds, got {fresh}")
        return tuple(range(max(own) + 1, max(own) + 1 + int(fresh)))
    new = seeds_of("compare.fresh", fresh)
    if common := {*new} & {*own}:
        raise ValueError(f"`compare.fresh` must have none of the seeds that choose the settings, got {sorted(common)}")
    return new


def _limit(diverged: Any) -> float:
    """The score above which a run has diverged."""
    limit = float(diverged) if isinstance(diverged, numbers.Real) and not isinstance(diverged, bool) else math.nan
    if not limit > -math.inf:
        raise ValueError(f"`compare.diverged` must be a number, the largest score that counts, got {code(diverged)}")
    return limit


def _shapes(
    train: Callable[..., Any], orders: Mapping[str, Sequence[Transformation]], seed: int, args: Sequence[Any]
) -> dict[str, tuple[int, ...]]:
    """The shape of each result of a run, without running it. Empty if no order can be traced so."""
    for settings in orders.values():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # `sweep` traces again
                seen = jax.eval_shape(lambda seed, tx=settings[0]: train(tx, seed, *args), np.int32(seed))
            return {name: x.shape for name, x in named(seen).items()}
        except Exception:  # `sweep` tells which orders fail, and why
            continue
    return {}


def _errors(table: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return tuple(table.get(FAILED, np.array([])).tolist())


def _placed(x: np.ndarray, rows: Sequence[int | None]) -> np.ndarray:
    """Results of some orders as those of all: NaN for the others."""
    return np.stack([absent(x[0]) if i is None else x[i] for i in rows])
