"""Draws of chains: some fields or links at random."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..core.facade.transformation import Transformation
from ..core.values.value import check_count
from .grid import checked, replaced
from .ranges import Distribution, choice


def sample(tx: Transformation, over: Mapping[str, Distribution | Iterable[Any]], n: int, seed: int = 0) -> list[Any]:
    """``n`` chains with values drawn from ranges: `uniform`, `log_uniform`, `randint`, `choice`, or a list.

    Keys are those of `grid`. The draws are a scrambled Sobol sequence (Owen 1998, by ``scipy.stats.qmc``), a point for
    each chain: each draw alone has the distribution of its range, and all together fill the ranges more evenly than
    independent draws, of which some are always almost alike. The first of ``n`` draws are those of any smaller ``n``;
    powers of 2 are the most even. The same seed gives the same draws to every chain if the ranges are the same, in the
    same order, so that other orders of links are tried at the same settings:
    ``{name: cx.sample(tx, over, 16) for name, tx in orders.items()}``.

    Errors: those of `grid`, and ``ValueError`` unless ``n`` and ``seed`` are whole numbers from 1 and from 0.

    >>> import chainax as cx
    >>> chains = cx.sample(cx.sgd(0.1), {"scale_by_lr.learning_rate": cx.log_uniform(1e-3, 1e-1)}, n=4)
    >>> [f"{tx['scale_by_lr'].learning_rate:.4f}" for tx in chains]
    ['0.0066', '0.0322', '0.0132', '0.0020']
    """
    ranges = checked("sample", tx, over)
    ranges = [x if isinstance(x, Distribution) else choice(x) for x in ranges.values()]
    points = _points(check_count("sample.n", n, 1, None), len(ranges), check_count("sample.seed", seed, 0, None))
    return [replaced(tx, {key: x.quantile(u) for key, x, u in zip(over, ranges, point)}) for point in points]


def _points(n: int, dimensions: int, seed: int) -> list[list[float]]:
    """The first ``n`` points of a scrambled Sobol sequence in the unit cube."""
    from scipy.stats import qmc  # here: it takes longer to import than chainax

    sequence = qmc.Sobol(dimensions, seed=np.random.default_rng(seed))  # pyright: ignore[reportCallIssue] "rng" in 1.15
    return sequence.random_base2((n - 1).bit_length())[:n].tolist()
