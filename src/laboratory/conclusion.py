"""What a comparison shows, in sentences that follow from its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .statistics import LEVEL, PERCENT, seeds_needed

if TYPE_CHECKING:
    from .comparison import Comparison
    from .differences import Difference


MOST = 3
"""The number of significant differences that are told one by one; of more, that of the best two."""


def conclusion(c: Comparison) -> str:
    """Which orders are better; or that no difference is significant, and why."""
    found = c.differences()
    if not found:
        return _alone(c, next(iter(c.orders)))
    significant = [d for d in found if d.significant]
    won = {name: [d for d in significant if d.better == name] for name in c.orders}
    first = next((name for name, ds in won.items() if len(ds) == len(c.orders) - 1), None)
    sentences = []
    if first is not None and len(c.orders) > 2:
        sentences.append(f"{first} is better than each of the other {len(c.orders) - 1} orders.")
    elif not significant:
        sentences.append("No order is significantly better than another.")
    told = significant
    if len(significant) > MOST:
        sentences.append(f"{len(significant)} of the {len(found)} differences are significant.")
        told = [min(won[first], key=lambda d: abs(d.mean))] if first is not None else []
    sentences += [_better(c, d) for d in told]
    sentences += _open(c, found)
    if not significant:
        sentences.append(_lowest(c))
    return " ".join(filter(None, sentences))


def _alone(c: Comparison, order: str) -> str:
    scores, (low, high) = c.best_scores(order), c.interval(order)
    start = f"One order was measured, so nothing is compared. {order} does best with {c.setting(order)}:"
    if lost := int(np.isinf(scores).sum()):
        return f"{start} even so, {lost} of {_count(len(scores), 'run')} diverged."
    between = f" ({PERCENT} interval {low:.4g} to {high:.4g})" if low == low else ""
    return f"{start} its {c.metric} is {scores.mean():.4g}{between}, the mean of {_count(len(scores), 'seed')}."


def _better(c: Comparison, d: Difference) -> str:
    """The better order, by how much, and how sure that is."""
    worse = d.second if d.better == d.first else d.first
    if d.test == "sign":
        lost = [f"{k} of {len(c.best_scores(x))} of {x}" for x in (d.better, worse) if (k := _lost(c, x))]
        return (
            f"{d.better} is better than {worse} with {max(d.wins)} of {_count(sum(d.wins), 'seed')}, where runs "
            f"diverged ({', '.join(lost)}; sign test, adjusted p = {d.adjusted:.2g})."
        )
    low, high = (d.low, d.high) if d.better == d.second else (-d.high, -d.low)
    mean = c.best_scores(d.better).mean(), c.best_scores(worse).mean()
    return (
        f"{d.better} is better than {worse}: its {c.metric} is {mean[0]:.4g}, against {mean[1]:.4g}, lower by "
        f"{abs(d.mean):.3g} ({PERCENT} interval {low:.3g} to {high:.3g}, adjusted p = {d.adjusted:.2g})."
    )


def _open(c: Comparison, found: Sequence[Difference]) -> list[str]:
    """Why the other differences are not significant, or not tested."""
    sentences = []
    if failed := [name for name in c.orders if c.failure(name)]:
        sentences.append(f"`train` failed for {', '.join(failed)}, so there is nothing to compare with.")
    if c.optimistic:
        sentences.append(
            "Differences are not tested, since the seeds that chose the settings score them too: give `compare` fresh "
            "seeds."
        )
    tested = [d for d in found if d.test]
    open_ = [d for d in tested if not d.significant]
    n, least = len(c.fresh_seeds or c.seeds), seeds_needed(max(1, len(tested)))
    if open_:
        one, all_ = len(found) == 1, len(open_) == len(found)
        what = "The difference" if one else f"{'All' if all_ else len(open_)}{'' if all_ else ' of the'} "
        what += "" if one else f"{len(found)} differences"
        be = "is" if one or len(open_) == 1 else "are"
        if n < least:
            tests = "one test" if len(tested) == 1 else f"{len(tested)} tests together"
            sentences.append(
                f"{what} cannot be significant with {_count(n, 'seed')}: the smallest p-value that they allow is above "
                f"{LEVEL} in {tests}. {least} seeds or more are needed."
            )
        else:
            sentences.append(f"{what} {be} not significant: {n} seeds do not settle it.")
    lost = ", ".join(f"{name} ({k} of {n})" for name in c.orders if (k := _lost(c, name)) and not c.failure(name))
    if lost:
        sentences.append(f"Runs diverged even at the best setting: {lost}.")
    return sentences


def _lost(c: Comparison, order: str) -> int:
    return int(np.isinf(c.best_scores(order)).sum())


def _lowest(c: Comparison) -> str:
    means = {name: float(c.best_scores(name).mean()) for name in c.orders}
    name = min(means, key=means.__getitem__)
    return f"The lowest mean is {name}'s: {means[name]:.4g}." if math.isfinite(means[name]) else ""


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
