"""Draws of chains: their distributions, and that they are the same for every order."""

import re
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

ADAMW = cx.adamw(1e-3)
RATE, DECAY = "scale_by_lr.learning_rate", "add_decayed_weights.weight_decay"
OVER = {RATE: cx.log_uniform(1e-4, 1e-1), DECAY: cx.uniform(0.0, 0.2), "scale_by_adam.b2": [0.9, 0.99, 0.999]}


def settings(chains: list[Any]) -> np.ndarray:
    """The rates, decays and decay rates of the second moment: a row for each chain."""
    return np.array(
        [
            (tx["scale_by_lr"].learning_rate, tx["add_decayed_weights"].weight_decay, tx["scale_by_adam"].b2)
            for tx in chains
        ]
    )


CASES = {
    "uniform": (cx.uniform(-1.0, 3.0), stats.uniform(-1.0, 4.0)),
    "log_uniform": (cx.log_uniform(1e-4, 10.0), stats.loguniform(1e-4, 10.0)),
}


@pytest.mark.parametrize(("drawn", "expected"), CASES.values(), ids=CASES)
def test_draws_have_the_distribution_of_their_range(drawn, expected):
    """Many of one seed lie closer to SciPy's distribution than independent draws do; each alone has it, over seeds."""
    tx, over = cx.scale(1.0), {"step_size": drawn}
    together = [link.step_size for link in cx.sample(tx, over, 512)]
    assert stats.kstest(together, expected.cdf).statistic < 2 / 512
    assert stats.kstest(expected.rvs(512, random_state=0), expected.cdf).statistic > 10 / 512
    for i in (0, 2):
        alone = [cx.sample(tx, over, 3, seed=seed)[i].step_size for seed in range(200)]
        assert stats.kstest(alone, expected.cdf).pvalue > 0.01


def test_whole_numbers_and_choices_are_equally_likely():
    """Each as often as the others; whole numbers are Python integers."""
    adam = cx.scale_by_adam()
    tx = cx.chain(cx.accumulate(cx.chain(adam), 2), cx.scale_by_lr(0.1))
    links = [adam, cx.scale_by_sign()]
    chains = cx.sample(tx, {"accumulate.every": cx.randint(1, 5), "accumulate.tx.scale_by_adam": links}, 64)
    steps = [tx["accumulate"].every for tx in chains]
    assert np.unique(steps, return_counts=True)[1].tolist() == [16] * 4
    assert sum(tx["accumulate"].tx == cx.chain(adam) for tx in chains) == 32
    numbers = [cx.randint(-2, 1).quantile(u) for u in np.linspace(0, 1, 300, endpoint=False)]
    assert {type(k) for k in numbers} == {int}
    assert np.unique(numbers, return_counts=True)[1].tolist() == [100] * 3
    assert (min(numbers), max(numbers)) == (-2, 0)


def test_draws_fill_the_plane():
    """Two ranges of one table are independent, and the points more even than those of a generator."""
    draws = settings(cx.sample(ADAMW, OVER, 128))
    unit = np.stack([stats.loguniform(1e-4, 1e-1).cdf(draws[:, 0]), draws[:, 1] / 0.2], axis=1)
    uneven = stats.qmc.discrepancy(np.random.default_rng(0).random((128, 2)))
    assert stats.qmc.discrepancy(unit) < uneven / 10
    assert abs(np.corrcoef(*unit.T).min()) < 0.02
    quarters = np.floor(unit * 4).astype(int)
    assert np.unique(quarters, axis=0, return_counts=True)[1].tolist() == [8] * 16


def test_few_draws_are_the_first_of_many():
    """For every number; the same seed gives the same, another seed others."""
    many = settings(cx.sample(ADAMW, OVER, 16, seed=3))
    for n in (1, 2, 5, 8, 16):
        np.testing.assert_array_equal(settings(cx.sample(ADAMW, OVER, n, seed=3)), many[:n])
    other = settings(cx.sample(ADAMW, OVER, 16, seed=4))
    assert not np.any(other[:, :2] == many[:, :2])


def test_every_order_gets_the_same_draws():
    """Orders of links, and chains with other links, at the same settings."""
    coupled = ADAMW.move("add_decayed_weights", before="scale_by_adam")
    clipped = coupled.insert(cx.clip_by_global_norm(1.0), before="scale_by_lr")
    expected = settings(cx.sample(ADAMW, OVER, 8))
    for tx in (coupled, clipped):
        chains = cx.sample(tx, OVER, 8)
        np.testing.assert_array_equal(settings(chains), expected)
        assert {tuple(drawn.links) for drawn in chains} == {tuple(tx.links)}


def test_a_sweep_of_draws():
    """One compilation for all, and a table of what was drawn; lists alone draw too."""
    table = cx.sweep(lambda tx: tx["scale_by_lr"].learning_rate, cx.sample(ADAMW, {RATE: OVER[RATE]}, 4))
    np.testing.assert_allclose(table["result"], table[RATE], rtol=1e-6)
    rates = [tx["scale_by_lr"].learning_rate for tx in cx.sample(ADAMW, {RATE: [0.1, 0.2]}, 4)]
    assert sorted(rates) == [0.1, 0.1, 0.2, 0.2]


RANGES = {
    "uniform(0, 0.5)": cx.uniform(0, 0.5),
    "log_uniform(0.001, 1)": cx.log_uniform(1e-3, high=1.0),
    "randint(1, 8)": cx.randint(1, np.int64(8)),
    "choice((0.1, linear_schedule(1, 0, 4)))": cx.choice([0.1, cx.linear_schedule(1.0, 0.0, 4)]),
}


@pytest.mark.parametrize("text", RANGES)
def test_ranges_are_values(text):
    """They print as code, compare, hash, and go through configurations and pytrees."""
    drawn = RANGES[text]
    assert repr(drawn) == text
    again = eval(text, vars(cx))
    assert (again, hash(again)) == (drawn, hash(drawn))
    assert drawn not in [other for name, other in RANGES.items() if name != text]
    assert cx.from_config(cx.to_config(drawn)) == drawn
    assert jax.tree.map(lambda x: x, drawn) == drawn


def test_draws_stay_within_their_range():
    """At both ends, where a rounding error could leave it."""
    last = float(np.nextafter(1.0, 0.0))
    for low, high in ((1e-6, 1.0), (0.1, 0.3), (1e-3, 7.0)):
        drawn = cx.log_uniform(low, high)
        assert low == drawn.quantile(0.0)
        assert drawn.quantile(last) <= high
    assert cx.randint(0, 10**9).quantile(last) == 10**9 - 1
    assert cx.choice(range(7)).quantile(last) == 6


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a grid of a range": (
        lambda: cx.grid(ADAMW, {RATE: cx.uniform(0.0, 1.0)}),
        ValueError,
        f"`grid.over['{RATE}']` is a range: draw from it by cx.sample(tx, over, n), got uniform(0, 1)",
    ),
    "no chain": (lambda: cx.sample(cx.adamw, OVER, 4), TypeError, "`sample.tx` must be a chain or a link, got adamw"),
    "no table": (lambda: cx.sample(ADAMW, {}, 4), ValueError, "`sample.over` must be a table"),
    "a number for a range": (
        lambda: cx.sample(ADAMW, {RATE: 0.1}, 4),
        ValueError,
        f"`sample.over['{RATE}']` must be a range or a list of values, at least one, got 0.1",
    ),
    "a key in another": (
        lambda: cx.sample(ADAMW, {"scale_by_adam.b2": [0.9], "scale_by_adam": [cx.scale_by_sign()]}, 4),
        ValueError,
        "`sample.over`: 'scale_by_adam.b2' lies within 'scale_by_adam': replace one or the other",
    ),
    "an unknown link": (lambda: cx.sample(ADAMW, {"scale_by_adma.b2": [0.9]}, 4), KeyError, "'scale_by_adam'"),
    "a value out of range": (
        lambda: cx.sample(ADAMW, {"scale_by_adam.b2": cx.uniform(1.0, 2.0)}, 4),
        ValueError,
        "`scale_by_adam.b2` must lie in [0, 1), got 1.",
    ),
    "no draws": (lambda: cx.sample(ADAMW, OVER, 0), ValueError, "`sample.n` must be a whole number from 1, got 0"),
    "a seed below 0": (
        lambda: cx.sample(ADAMW, OVER, 1, -1),
        ValueError,
        "`sample.seed` must be a whole number from 0",
    ),
    "a reversed range": (
        lambda: cx.uniform(1.0, 0.5),
        ValueError,
        "`uniform.low` must be less than `uniform.high`, got uniform(1, 0.5)",
    ),
    "no width": (lambda: cx.randint(3, 3), ValueError, "`randint.low` must be less than `randint.high`"),
    "a logarithm of 0": (lambda: cx.log_uniform(0.0, 1.0), ValueError, "`log_uniform.low` must lie in (0, ∞), got 0"),
    "an infinite range": (lambda: cx.uniform(0.0, np.inf), ValueError, "`uniform.high` must lie in (-∞, ∞), got float"),
    "an array": (lambda: cx.uniform(jnp.zeros(()), 1.0), ValueError, "`uniform.low` must be a number, got jnp.float32"),
    "a fraction": (lambda: cx.randint(0, 1.5), ValueError, "`randint.high` must be a whole number, got 1.5"),
    "nothing to choose": (lambda: cx.choice([]), ValueError, "`choice.values` must be a list of values, at least one"),
    "a text to choose": (lambda: cx.choice("ab"), ValueError, "at least one, got 'ab'"),
}


@pytest.mark.parametrize(("make", "kind", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(make, kind, message):
    """Each names the argument, what came and the remedy."""
    with pytest.raises(kind, match=re.escape(message)):
        make()
