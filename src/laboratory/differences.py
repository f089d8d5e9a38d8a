"""Differences between orders at their best settings, and their tests."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from .statistics import CONFIDENCE, LEVEL, bootstrap, holm, seeds_needed, sign_flip, sign_test

SEEDLESS = "all seeds give the same scores, so they are no sample: does `train` use its seed?"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The scores of one order less those of another, seed by seed: their mean, its interval, and the test."""

    first: str
    second: str
    mean: float
    """Below 0 if the first is better. NaN if a run diverged."""
    low: float
    high: float
    wins: tuple[int, int]
    """The number of seeds with which the first was better, and the second. A diverged run is worse than any other."""
    test: str
    """``sign-flip``; ``sign`` if a run diverged; empty if the difference is not tested."""
    p: float
    """Of this test. NaN if there is none."""
    adjusted: float
    """The same for all differences of the comparison together (Holm 1979)."""
    verdict: str
    """Which is better; or that the difference is not significant, or not tested, and why."""

    @property
    def significant(self) -> bool:
        """Whether ``adjusted`` is at most 0.05."""
        return self.adjusted <= 1 - CONFIDENCE

    @property
    def better(self) -> str:
        """The order with the lower mean, or that wins with more seeds if runs diverged."""
        ahead = self.wins[0] > self.wins[1] if math.isnan(self.mean) else self.mean < 0
        return self.first if ahead else self.second


def differences(
    pairs: Sequence[tuple[str, str]], scores: Mapping[str, np.ndarray], untested: Mapping[str, str]
) -> list[Difference]:
    """Test each pair of orders on their scores by seed, and all pairs together.

    ``untested`` is the reason for which an order takes part in no test. A pair without divergence is compared by the
    sign-flip test of the mean, any other by the sign test of wins, so divergence is evidence too.
    """
    found = []
    for first, second in pairs:
        a, b = scores[first], scores[second]
        finite = bool(np.isfinite(a).all() and np.isfinite(b).all())
        low, high = bootstrap(a - b) if finite else (math.nan, math.nan)
        mean = float((a - b).mean()) if finite else math.nan
        wins = int((a < b).sum()), int((b < a).sum())
        reason = untested.get(first) or untested.get(second) or ""
        test = "" if reason else "sign-flip" if finite else "sign"
        p = math.nan if reason else sign_flip(a - b) if finite else sign_test(*wins)
        found.append(Difference(first, second, mean, low, high, wins, test, p, math.nan, reason))
    tested = [i for i, d in enumerate(found) if d.test]
    for i, adjusted in zip(tested, holm([found[i].p for i in tested])):
        found[i] = dataclasses.replace(found[i], adjusted=adjusted)
    return [dataclasses.replace(d, verdict=_verdict(d, len(scores[d.first]), len(tested))) for d in found]


def _verdict(d: Difference, seeds: int, tests: int) -> str:
    if not d.test:
        return f"not tested: {d.verdict}"
    by = f" (sign test: {max(d.wins)} of {sum(d.wins)} seeds)" if d.test == "sign" and sum(d.wins) else ""
    if d.significant:
        return f"{d.better} is better{by}"
    n, least = sum(d.wins) if d.test == "sign" else seeds, seeds_needed(tests)
    if d.test == "sign" and not n:
        return "not significant: no seed tells them apart"
    if n < least:
        untied = " that are not tied" if n < seeds else ""
        few = f"{n} seed{'s' * (n > 1)}{untied} cannot reach p <= {LEVEL}, {least} or more can"
        return f"not significant: {few}{' (sign test)' * bool(by)}"
    return f"not significant: chance could be the reason{by}"
