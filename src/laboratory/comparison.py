"""What a comparison of orders measured, and what its seeds allow to be said."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core.facade.transformation import Transformation
from ..core.values.errors import PlainKeyError, did_you_mean
from ..sweeping.columns import settings_of
from ..sweeping.scores import ranked, scored
from .differences import SEEDLESS, Difference, differences
from .fields import labels, rate_of, setting, varying
from .separability import NoGrid, Separability, separability
from .statistics import bootstrap


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` measured. ``print`` shows all of it that can be said in words and tables.

    A score is the metric of one run; lower is better. A run whose metric is not finite, or above ``diverged``, has
    diverged: its score is infinite.
    """

    orders: Mapping[str, tuple[Transformation, ...]]
    """The settings of each order, by name."""
    results: Mapping[str, np.ndarray]
    """What ``train`` returned, ``[setting, seed, ...]`` by name: the settings of all orders, in turn."""
    seeds: tuple[int, ...]
    metric: str
    """The name of the score among the results."""
    diverged: float = math.inf
    fresh: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """The results of each order's best setting from seeds that did not choose it, ``[order, seed, ...]``."""
    fresh_seeds: tuple[int, ...] = ()
    against: str | None = None
    """The order with which all others are compared, or ``None`` for every pair."""
    softness: float | None = None
    """That of `separability`, unless it is given there."""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The name and the source of the training function, versions and devices."""
    errors: tuple[str, ...] = ()
    """The error of each setting for which ``train`` failed, empty for others; empty if none did."""
    fresh_errors: tuple[str, ...] = ()
    """The same for the best setting of each order, with the fresh seeds."""

    @functools.cached_property
    def settings(self) -> dict[str, np.ndarray]:
        """A row a setting: ``order``, ``name``, and each field that differs, as in the table of `sweep`."""
        chains = [tx for settings in self.orders.values() for tx in settings]
        columns = settings_of([""] * len(chains), chains)
        named = [settings_of([""] * len(settings), settings)["name"] for settings in self.orders.values()]
        sizes = list(map(len, self.orders.values()))
        return {**columns, "order": np.repeat(list(self.orders), sizes), "name": np.concatenate(named)}

    @property
    def table(self) -> dict[str, np.ndarray]:
        """All columns: `settings` and `results`."""
        return {"order": self.settings["order"], **self.settings, **self.results}

    # Scores

    def rows(self, order: str) -> slice:
        """The rows of an order in the table."""
        if order not in self.orders:
            raise PlainKeyError(f"no order {order!r} in this comparison{did_you_mean(order, self.orders)}")
        sizes = list(map(len, self.orders.values()))
        start = sum(sizes[: list(self.orders).index(order)])
        return slice(start, start + len(self.orders[order]))

    @property
    def scores(self) -> np.ndarray:
        """``[setting, seed]``."""
        return scored(self.results[self.metric], self.diverged)

    @property
    def means(self) -> np.ndarray:
        """The mean score of each setting over the seeds: infinite if a run diverged."""
        return self.scores.mean(axis=1)

    def _best(self, order: str) -> int:
        """The best setting, counted within its order."""
        return int(ranked(self.scores[self.rows(order)])[0])

    def best(self, order: str) -> Transformation:
        """The chain with the best setting: of those with the fewest diverged runs, the one with the lowest mean."""
        self.rows(order)  # which checks the name
        return self.orders[order][self._best(order)]

    def best_scores(self, order: str) -> np.ndarray:
        """The scores of the best setting by seed: from the fresh seeds, if there are any."""
        return scored(self.curve(order, self.metric), self.diverged)

    def curve(self, order: str, name: str) -> np.ndarray:
        """A result of the best setting, ``[seed, ...]``, from the same runs as `best_scores`."""
        row = self.rows(order).start + self._best(order)
        return self.fresh[name][list(self.orders).index(order)] if self.fresh_seeds else self.results[name][row]

    def interval(self, order: str) -> tuple[float, float]:
        """The percentile bootstrap interval of the mean of `best_scores` at 95 %. NaN for one seed."""
        scores = self.best_scores(order)
        return bootstrap(scores) if np.isfinite(scores).all() else (math.nan, math.nan)

    def failure(self, order: str) -> str:
        """The error of ``train`` for which an order has no score; empty if it has one."""
        own = self.errors[self.rows(order)]
        return own[0] if own and all(own) else dict(zip(self.orders, self.fresh_errors)).get(order, "")

    # Differences

    @property
    def optimistic(self) -> bool:
        """Whether the scores are from the seeds that chose among several settings."""
        return not self.fresh_seeds and any(len(settings) > 1 for settings in self.orders.values())

    def differences(self) -> list[Difference]:
        """Each pair of orders at their best settings; with ``against``, all others less this one."""
        pairs = list(itertools.combinations(self.orders, 2))
        if self.against is not None:
            pairs = [(name, self.against) for name in self.orders if name != self.against]
        chosen = "these seeds chose the settings; give `fresh`" if self.optimistic else ""
        untested = {name: SEEDLESS if self.seedless(name) else chosen for name in self.orders}
        untested |= {name: f"`train` failed for {name}" for name in self.orders if self.failure(name)}
        return differences(pairs, {name: self.best_scores(name) for name in self.orders}, untested)

    def seedless(self, order: str) -> bool:
        """Whether the seeds change no score of an order, though there are several."""
        scores = self.scores[self.rows(order)]
        return scores.shape[1] > 1 and bool((scores == scores[:, :1]).all()) and bool(np.isfinite(scores).any())

    def paired(self, first: str, second: str) -> np.ndarray:
        """The best scores of one order less those of another, by seed: NaN where both diverged."""
        with np.errstate(invalid="ignore"):
            return self.best_scores(first) - self.best_scores(second)

    # Hyperparameters

    def fields(self, order: str) -> dict[str, np.ndarray]:
        """The numbers that vary within an order, by path, ``[setting]``: of proportional ones only the first."""
        self.rows(order)
        return varying(self.orders[order])

    def labels(self, order: str) -> dict[str, str]:
        """The short names of the `fields`."""
        return labels(self.orders[order][0], self.fields(order))

    def grid(
        self, order: str, x: str | None = None, y: str | None = None
    ) -> tuple[tuple[str, np.ndarray], tuple[str, np.ndarray], np.ndarray]:
        """Two fields of an order, with their values, and its scores on their grid: ``[x, y, seed]``.

        By default the learning rate, if it varies, and the first other field. If further fields vary, the scores are
        those of their best setting at each x and y. Errors: ``ValueError`` unless there is a setting for each pair of
        values.
        """
        fields = self.fields(order)
        x = x or rate_of(name for name in fields if name != y) or next((name for name in fields if name != y), None)
        y = y or next((name for name in fields if name != x), None)
        if x not in fields or y not in fields or x == y:
            raise NoGrid(f"`Comparison.grid` needs two fields that vary within {order!r}: it has {list(fields)}")
        (xs, i), (ys, j) = (np.unique(fields[name], return_inverse=True) for name in (x, y))
        if len({*zip(i.tolist(), j.tolist())}) != len(xs) * len(ys):
            raise NoGrid(f"`Comparison.grid`: the settings of {order!r} are no grid of {x!r} and {y!r}")
        grid, scores = np.empty((len(xs), len(ys), len(self.seeds))), self.scores[self.rows(order)]
        for k in ranked(scores)[::-1]:  # the best of each cell last
            grid[i[k], j[k]] = scores[k]
        return (x, xs), (y, ys), grid

    def separability(
        self, order: str, x: str | None = None, y: str | None = None, softness: float | None = None
    ) -> Separability:
        """Whether the best value of ``y`` depends on that of ``x``, and what it costs to tune them one by one.

        The best y at each x is a mean of log(y) with weights exp(−(score − best score)/softness), so that noise does
        not choose between close scores. ``softness`` is by default the median of the settings' standard deviations over
        the seeds.
        """
        (x, xs), (y, ys), scores = self.grid(order, x, y)
        short = self.labels(order)
        softness = self.softness if softness is None else softness
        return separability(x, xs, y, ys, scores, softness, (short[x], short[y]))

    def edges(self, order: str) -> list[str]:
        """The fields whose best value is the smallest or the largest that was tried."""
        i, short = self._best(order), self.labels(order)
        return [
            f"{short[name]}={x[i]:.3g} is the {'smallest' if x[i] == x.min() else 'largest'} that was tried"
            for name, x in self.fields(order).items()
            if x[i] in (x.min(), x.max())
        ]

    def setting(self, order: str) -> str:
        """The best setting in words."""
        self.rows(order)
        return setting(self.orders[order], self._best(order))

    def __str__(self) -> str:
        from .words import words

        return words(self)

    __repr__ = __str__

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Comparison:
        """The comparison that `compare` keeps in a folder.

        Errors: ``FileNotFoundError`` for a folder without one; ``ValueError`` for malformed files, missing runs, and
        links of your own whose module is not imported.
        """
        from .files import load

        return load(folder)

    # Pictures and a report

    def plot_heatmaps(
        self, x: str | None = None, y: str | None = None, *, orders: Sequence[str] | None = None, fig: Any = None
    ) -> Any:
        """Draw the mean score over two fields, a heat map an order side by side, and return the matplotlib figure.

        The fields are those of `grid`. Lines show the best ``y`` at each ``x``, stars the best settings; settings with
        a diverged run are hatched. Colours end at the 90th percentile of the scores. Draws all orders, or ``orders``,
        into ``fig``, a figure or subfigure, or a new one that pyplot does not manage. Orders whose settings are no grid
        are left out, and the caption says so.

        Errors: ``ImportError`` without matplotlib; ``ValueError`` if no order has a grid.
        """
        from .pictures import plot_heatmaps

        return plot_heatmaps(self, x, y, orders, fig)

    def plot_tuning(self, field: str | None = None, ax: Any = None) -> Any:
        """Draw the best mean score at each value of one field, a line an order; return the matplotlib axes.

        Bands are the bootstrap intervals of these means at 95 %, stars the lowest, crosses values where a run diverged
        with every setting. ``field`` is by default each order's learning rate, or the first field if no rate varies.
        The title names the orders that are left out, since the field does not vary in them.

        Errors: ``ImportError`` without matplotlib; ``ValueError`` if the field does not vary within an order.
        """
        from .pictures import plot_tuning

        return plot_tuning(self, field, ax)

    def plot_curves(
        self, name: str | None = None, *, log: bool | None = None, at: Sequence[float] | None = None, ax: Any = None
    ) -> Any:
        """Draw a result that is a curve, ``[seed, point]``, of each order's best setting; return the matplotlib axes.

        Lines are means over the seeds, and bands their bootstrap intervals at 95 %. Runs that diverged are drawn one by
        one, dashed, and are not in the means. ``name`` may be left out if one result is a curve. ``at`` are the
        coordinates of the points, such as steps; ``log`` is by default whether the curves span a decade.

        Errors: ``ImportError`` without matplotlib; ``ValueError`` if no result, or another one, has this name.
        """
        from .pictures import plot_curves

        return plot_curves(self, name, log, at, ax)

    def plot_differences(self, ax: Any = None) -> Any:
        """Draw each of the `differences` with its interval and its seeds (a forest plot); return the matplotlib axes.

        Filled circles are significant differences; p-values stand at the right.

        Errors: ``ImportError`` without matplotlib; ``ValueError`` for a single order.
        """
        from .pictures import plot_differences

        return plot_differences(self, ax)

    def report(self, path: str | os.PathLike[str], title: str | None = None) -> pathlib.Path:
        """Write all of it as one HTML page that needs nothing else, and return its path.

        It has the conclusion in words, the tables, the pictures, notes and caveats, each order's equations, code and
        JSON, every run's score, and how to run it again. The title is by default the metric and the orders.

        Errors: ``ImportError`` without matplotlib; ``ValueError`` unless ``path`` ends in .html;
        ``FileNotFoundError`` if its folder does not exist.
        """
        from .page import write_page

        return write_page(self, path, title)
