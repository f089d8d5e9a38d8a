"""Ranges of rates: the run is the one that NumPy computes, and it diverges where theory says."""

import re
import sys
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.sweeping.rate_range import RateRange, running_median
from scipy import ndimage


def bowl(x: Any, noise: Any) -> Any:
    """A quadratic with second derivative 10, whose minimum a batch moves."""
    return 5 * jnp.sum((x - noise) ** 2)


def noise(steps: int, seed: int = 0) -> np.ndarray:
    """Where the minimum is for each batch."""
    return 0.1 * np.random.default_rng(seed).standard_normal(steps)


@pytest.mark.usefixtures("x64")
def test_the_run_is_that_of_numpy():
    """The rates replace the chain's schedule, grow geometrically, and are those of the steps; another schedule runs."""
    momentum, batches = cx.linear_schedule(0.9, 0.1, 50), noise(80)
    tx = cx.sgd(cx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 40), momentum=momentum)
    found = cx.rate_range(tx, bowl, jnp.array(1.0, jnp.float64), jnp.asarray(batches), low=1e-3, high=0.1)
    np.testing.assert_allclose(found.rates, 1e-3 * 100 ** (np.arange(80) / 79), rtol=1e-12)
    x, mean, losses = 1.0, 0.0, []
    for k, (rate, at) in enumerate(zip(found.rates, batches)):
        losses.append(5 * (x - at) ** 2)
        mean = 10 * (x - at) + max(0.9 - 0.8 * k / 50, 0.1) * mean
        x -= rate * mean
    np.testing.assert_allclose(found.losses, losses, rtol=1e-10)


@pytest.mark.parametrize("momentum", (0.0, 0.5, 0.9))
@pytest.mark.parametrize("seed", (0, 1))
def test_it_diverges_at_the_limit_of_stability(momentum, seed):
    """Heavy ball is stable on a quadratic with second derivative L below 2(1 + β)/L (Polyak 1964)."""
    limit, batches = 2 * (1 + momentum) / 10, jnp.asarray(noise(300, seed), jnp.float32)
    tx = cx.sgd(0.1, momentum=momentum)
    near = 1.35 if momentum == 0.9 else 1.15  # with much momentum, the noise is amplified well before the limit
    for low, high, factor in ((1e-4, 10.0, 1.4), (limit / 3, 3 * limit, near)):
        found = cx.rate_range(tx, bowl, jnp.array(1.0), batches, low=low, high=high)
        assert limit / factor < (found.diverges_at or 0) < limit * factor
        assert np.isin(np.float32(found.diverges_at), found.rates)
    stable = cx.rate_range(tx, bowl, jnp.array(1.0), batches, low=1e-4, high=limit / 2)
    assert (stable.diverges_at, stable.suggestion) == (None, None)
    assert "does not diverge: try a higher `high`" in str(stable)


def test_noise_is_no_divergence():
    """Losses that do not fall, as at the lowest rates, with noise of many seeds."""
    for seed in range(20):
        losses = np.random.default_rng(seed).chisquare(8, 400)
        assert ranged(losses).diverges_at is None
        assert ranged(np.r_[losses, 10 * losses]).diverges_at is not None


def ranged(losses: Any, low: float = 1e-3) -> RateRange:
    """The result for these losses."""
    losses = np.asarray(losses, float)
    return RateRange(np.geomspace(low, 1.0, len(losses)), losses, running_median(losses, max(5, len(losses) // 20)))


def test_where_a_run_diverges():
    """At a rise of half of the descent, or where nothing is finite any more, and not at a single bad batch."""
    falling = np.linspace(2.0, 1.0, 50)
    found = ranged(np.r_[falling, 1.0 + np.arange(50) / 20])
    assert found.diverges_at == found.rates[61]
    for bad in (np.nan, np.inf, 1e9):
        assert ranged(np.r_[falling, bad, falling - 1.0]).diverges_at is None
    for broken in (1, 3, 20):
        found = ranged(np.r_[falling, [np.nan] * broken])
        assert found.diverges_at == found.rates[50]
    assert ranged(falling - 100.0).diverges_at is None  # negative losses
    assert ranged(np.r_[falling, falling[::-1]] - 100.0).diverges_at is None, "a rise within a tenth of the least"
    below = ranged(np.r_[falling, 2 * falling[::-1]], low=0.5)
    assert (below.diverges_at, below.suggestion) == (below.rates[50], None)
    assert str(below).endswith("no suggestion, as a tenth of that is below the range: try a lower `low`")


def test_a_loss_that_is_not_finite_from_the_start():
    """It is not for want of a lower rate."""
    found = cx.rate_range(cx.sgd(0.1), lambda x, _: jnp.log(x), jnp.array(-1.0), jnp.arange(8))
    assert found.diverges_at == found.rates[0]
    assert str(found) == "8 steps at rates from 1e-06 to 1\nthe loss is not finite before the first step"


def test_the_median_is_that_of_scipy():
    """With reflected ends, and an infinity for what is not finite."""
    losses = np.random.default_rng(0).standard_normal(50)
    for width in (3, 8, 11):
        expected = ndimage.median_filter(losses, 2 * (width // 2) + 1, mode="mirror")
        np.testing.assert_array_equal(running_median(losses, width), expected)
    assert running_median(np.array([1.0, np.nan, -np.inf, 2.0, 3.0]), 3).tolist() == [np.inf, np.inf, np.inf, 3.0, 2.0]


def test_it_is_one_loop():
    """However many the steps, the loss is traced as often."""
    traces, counts = [], []

    def loss(x: Any, at: Any) -> Any:
        traces.append(x)
        return bowl(x, at)

    for steps in (10, 50):
        cx.rate_range(cx.adamw(0.1), loss, jnp.array(1.0), jnp.asarray(noise(steps), jnp.float32))
        counts.append(len(traces))
    assert counts[1] == 2 * counts[0] <= 6


@pytest.mark.parametrize(
    ("tx", "field"),
    (
        (cx.chain(cx.skip_loss_spikes(), cx.sgd(0.1)), "scale_by_lr.learning_rate"),
        (cx.chain(cx.sharpness_aware(0.05), cx.sgd(0.1)), "scale_by_lr.learning_rate"),
        (cx.accumulate(cx.sgd(0.1), 2), "tx.scale_by_lr.learning_rate"),
        (cx.adam(cx.by_path({"w": 0.1}, 1.0)), "scale_by_lr.learning_rate"),
        (cx.adam(cx.by_path({"w": 0.1}, 1.0)), "scale_by_lr.learning_rate.default"),
        (cx.scale_by_lr(0.1), "learning_rate"),
    ),
    ids=repr,
)
def test_any_chain(tx, field):
    """Those that read the loss or call it, that wrap chains, with tables, and links; parameters of any kind."""
    params = {"w": jnp.array([1.0, -1.0]), "z": jnp.array(1j), "count": 3}

    def loss(params: Any, batch: Any) -> Any:
        return bowl(params["w"], batch["at"]) + jnp.abs(params["z"]) ** 2 + 0.0 * batch["at"]

    found = cx.rate_range(tx, loss, params, {"at": jnp.zeros(20)}, low=1e-3, high=1e-1, field=field)
    assert found.losses[-1] < found.losses[0]
    assert np.all(np.isfinite(found.losses))


def test_the_plot(pyplot):
    """Losses against rates on a logarithmic axis, with a line where the run diverges and one at the suggestion."""
    found = cx.rate_range(cx.sgd(0.1), bowl, jnp.array(1.0), jnp.asarray(noise(300), jnp.float32), low=1e-3)
    ax = found.plot()
    raw, smoothed, diverges, suggestion = ax.lines
    np.testing.assert_array_equal(raw.get_xdata(), found.rates)
    np.testing.assert_array_equal(raw.get_ydata(), found.losses)
    np.testing.assert_array_equal(smoothed.get_ydata(), found.smoothed)
    assert (diverges.get_xdata()[0], suggestion.get_xdata()[0]) == (found.diverges_at, found.suggestion)
    assert str(suggestion.get_label()) == f"suggestion: {found.suggestion:.3g}"
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "rate", "loss")
    assert ax.get_ylim()[1] < 2 * found.losses[0]
    other = pyplot.figure().subplots()
    broken = ranged([np.nan] * 4)
    assert broken.plot(other) is other
    other.figure.canvas.draw()


def test_the_plot_names_what_is_missing(monkeypatch):
    """Without matplotlib the error says how to get it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'`RateRange.plot` needs matplotlib: pip install "chainax\[plot\]"'):
        ranged([1.0, 2.0, 3.0]).plot()


def call(tx: Any = None, loss: Any = bowl, batches: Any = None, **options: Any) -> Callable[[], Any]:
    """A call, for later."""
    batches = jnp.zeros(4) if batches is None else batches
    return lambda: cx.rate_range(cx.sgd(0.1) if tx is None else tx, loss, jnp.array(1.0), batches, **options)


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no chain": (call(3), TypeError, "`rate_range(tx, loss, params, batches)` got "),
    "no function": (
        call(loss=3),
        TypeError,
        "`rate_range.loss` must be a function of the parameters and a batch, got 3",
    ),
    "no scalar": (
        call(loss=lambda x, _: jnp.zeros(2)),
        TypeError,
        "`rate_range.loss` must return a real scalar, got float32[2]",
    ),
    "a pair": (call(loss=lambda x, _: (x, x)), TypeError, "`rate_range.loss` must return a real scalar, got tuple"),
    "a rate of 0": (call(low=0.0), ValueError, "`rate_range.low` must lie in (0, ∞), got 0"),
    "an infinite rate": (call(high=np.inf), ValueError, "`rate_range.high` must lie in (0, ∞), got float('inf')"),
    "a reversed range": (
        call(low=2.0),
        ValueError,
        "`rate_range.low` must be less than `rate_range.high`, got 2 and 1",
    ),
    "two steps": (call(batches=jnp.zeros(2)), ValueError, "the same number, at least 3, got shapes (2,)"),
    "one batch": (
        call(batches=jnp.zeros(())),
        ValueError,
        "`rate_range.batches` must be arrays with the steps as first",
    ),
    "no batches": (call(batches={}), ValueError, "at least 3, got no arrays"),
    "different lengths": (
        call(batches=(jnp.zeros(4), jnp.zeros((5, 2)))),
        ValueError,
        "the same number, at least 3, got shapes (4,), (5, 2)",
    ),
    "no such link": (call(cx.scale_by_adam()), TypeError, "`scale_by_adam` has no field 'scale_by_lr'"),
    "no such field": (call(field="scale_by_lr.rate"), TypeError, "`scale_by_lr` has no field 'rate'"),
    "a field that refuses it": (
        call(cx.adam(0.1), field="scale_by_adam.b1"),
        ValueError,
        "`scale_by_adam.b1` must lie in [0, 1), got 1",
    ),
    "a link": (call(field="scale_by_lr"), TypeError, "`rate_range.field` must be the path of a number"),
}


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call, kind, message):
    """Each names the argument, what came and the remedy."""
    with pytest.raises(kind, match=re.escape(message)):
        call()
