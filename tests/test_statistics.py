"""Intervals and tests of a comparison, against SciPy on the same numbers and resamples."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from chainax.laboratory.statistics import bootstrap, holm, seeds_needed, sign_flip, sign_test

RNG = np.random.default_rng(3)
SAMPLES = {
    "normal": RNG.normal(0.3, 1.0, 8),
    "skewed": RNG.lognormal(size=12),
    "tied": np.array([0.1, 0.1, -0.1, 0.2, 0.2, 0.3]),
    "two": np.array([1.0, 2.5]),
    "ill-scaled": RNG.normal(size=9) * 10.0 ** np.arange(-4, 5),
    "constant": np.full(6, 0.7),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_interval_is_scipys(name: str) -> None:
    """Of the mean, from the same resamples."""
    x = SAMPLES[name]
    with np.errstate(all="ignore"):
        expected = scipy.stats.bootstrap(
            (x,), np.mean, n_resamples=9999, method="percentile", random_state=np.random.default_rng(0)
        ).confidence_interval
    np.testing.assert_allclose(bootstrap(x), [expected.low, expected.high], rtol=1e-12)


def test_the_interval_of_another_statistic_is_scipys() -> None:
    """Of a median, whose runs may have axes before that of the seeds."""
    x = SAMPLES["skewed"]
    expected = scipy.stats.bootstrap(
        (x,), np.median, n_resamples=500, method="percentile", random_state=np.random.default_rng(0)
    ).confidence_interval
    found = bootstrap(np.stack([x, 2 * x]), lambda runs: np.median(runs, axis=-1)[0], resamples=500)
    np.testing.assert_allclose(found, [expected.low, expected.high], rtol=1e-12)


def test_one_seed_has_no_interval() -> None:
    """There is nothing to resample."""
    assert all(map(math.isnan, bootstrap(np.array([1.0]))))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_sign_flip_test_is_scipys(name: str) -> None:
    """All flips, ties with the one that was seen included."""
    x = SAMPLES[name]
    exact = scipy.stats.permutation_test((x,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(x) == pytest.approx(exact.pvalue, rel=1e-12)
    flips = np.array(list(itertools.product((-1, 1), repeat=len(x)))) @ x
    assert sign_flip(x) == np.mean(np.abs(flips) >= abs(x.sum()) * (1 - 1e-12))


def test_many_seeds_are_drawn() -> None:
    """Beyond 20 seeds, a share of the flips stands for all: within four standard errors of the exact value."""
    x = np.concatenate([SAMPLES["normal"], SAMPLES["normal"][:6] - 0.5])
    exact, drawn = sign_flip(x), sign_flip(np.concatenate([x, np.zeros(7)]))  # zeros change no sum
    assert 0.01 < exact < 0.99
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 99_999))
    assert sign_flip(np.full(40, 1.0)) == 1 / 100_000  # never 0


@pytest.mark.parametrize(("wins", "losses"), ((6, 0), (0, 7), (5, 2), (3, 3), (19, 4), (0, 0)))
def test_the_sign_test_is_scipys(wins: int, losses: int) -> None:
    """Exact, two-sided, and 1 if nothing was won or lost."""
    expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-12)


def test_holm_is_the_published_procedure() -> None:
    """Of four p-values, by hand: 4 × 0.005, 3 × 0.01, 2 × 0.03, and never less than the one before."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("tests", (1, 2, 3, 6, 15))
def test_the_seeds_that_are_needed_suffice(tests: int) -> None:
    """And one fewer cannot, even if all of them agree."""
    n = seeds_needed(tests)
    smallest = [holm([sign_flip(np.arange(1.0, k + 1))] * tests)[0] for k in (n - 1, n)]
    assert smallest[0] > 0.05 >= smallest[1]


def test_the_test_keeps_its_level() -> None:
    """Where there is no difference, it is significant in at most one of twenty trials."""
    rng = np.random.default_rng(0)
    significant = np.mean([sign_flip(rng.standard_t(3, 8)) <= 0.05 for _ in range(2000)])
    assert 0.03 < significant < 0.065
