"""Successive halving: the paper's algorithm, at equal cost for every order."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.sweeping import halving
from chainax.sweeping.sweep import swept

RATE = "scale_by_lr.learning_rate"
CURVES = np.random.default_rng(0).random((40, 600)).cumsum(axis=1)[:, ::-1].copy()
"""The loss of each arm after each number of steps: they cross, so that the number matters."""


def arms(count: int, first: int = 0) -> list[Any]:
    """Chains whose rate is the number of their arm."""
    return cx.grid(cx.sgd(0.1), {RATE: list(range(first, first + count))})


def look_up(tx: Any, steps: int, curves: Any) -> jax.Array:
    """The loss of an arm after so many steps."""
    return curves[jnp.asarray(tx["scale_by_lr"].learning_rate).astype(int), steps]


def algorithm_1(curves: np.ndarray, arms: list[int], budget: int, eta: int) -> tuple[list[tuple[int, int]], int]:
    """Jamieson & Talwalkar 2016, Algorithm 1, with runs from the start: each arm run and its steps, and the winner."""
    sizes = [len(arms)]
    while max(1, sizes[-1] // eta) > 1:
        sizes.append(sizes[-1] // eta)
    runs = []
    for _ in sizes:
        steps = budget // (len(arms) * len(sizes))
        runs += [(arm, steps) for arm in arms]
        ordered = sorted(arms, key=lambda arm: (not np.isfinite(curves[arm, steps]), curves[arm, steps], arm))
        arms = sorted(ordered[: max(1, len(arms) // eta)])
    return runs, arms[0]


@pytest.mark.parametrize(
    ("count", "eta", "budget"), ((8, 2, 100), (16, 2, 2000), (13, 3, 500), (27, 3, 1000), (1, 3, 9))
)
def test_the_algorithm_of_the_paper(count, eta, budget):
    """The same runs and the same winner as a transcription, and never more steps than were given."""
    found = cx.successive_halving(look_up, arms(count), CURVES, budget=budget, eta=eta, progress=False)
    runs, winner = algorithm_1(CURVES.astype(np.float32), list(range(count)), budget, eta)
    steps, names = found.table["steps"].tolist(), found.table.get(RATE, np.zeros(len(runs)))
    assert list(zip(names.astype(int).tolist(), steps)) == runs
    assert found.best == found.winners["all"] == arms(1, winner)[0]
    assert found.total == sum(steps) <= budget
    assert found.total > budget - len(runs)  # less than a step a run is lost
    if eta == 2:
        assert found.table["rung"][-1] + 1 == max(1, np.ceil(np.log2(count)))
    rows = CURVES[names.astype(int), steps]
    np.testing.assert_allclose(found.table["result"], rows, rtol=1e-6)


def test_every_order_costs_the_same():
    """Each is halved for itself, though all arms of one are better than those of the other."""
    curves = np.concatenate([CURVES[:8], CURVES[8:16] + 1e3])
    found = cx.successive_halving(
        look_up, {"good": arms(8), "bad": arms(8, 8)}, curves, budget=200, eta=2, progress=False
    )
    for order, first in (("good", 0), ("bad", 8)):
        runs, winner = algorithm_1(curves.astype(np.float32), list(range(first, first + 8)), 200, 2)
        own = found.table["order"] == order
        assert list(zip(found.table[RATE][own].astype(int).tolist(), found.table["steps"][own].tolist())) == runs
        assert found.winners[order] == arms(1, winner)[0]
        assert found.table["name"][own][0] == f"{order}: learning_rate={first}"
        assert 2 * found.table["steps"][own].sum() == found.total
    assert found.best == found.winners["good"]
    assert list(found.table)[:5] == ["name", "order", "rung", "steps", RATE]


def test_the_worst_losses_and_ties():
    """NaN and infinities lose to any number, and of equal arms the first goes on."""
    curves = np.array([np.nan, 3.0, np.inf, 2.0, -np.inf, 2.0, 2.0, np.nan])[:, None].repeat(20, axis=1)
    found = cx.successive_halving(look_up, arms(8), curves, steps=[2, 4, 8, 16], eta=2, progress=False)
    rates, rungs = found.table[RATE].astype(int), found.table["rung"]
    assert [rates[rungs == i].tolist() for i in range(4)] == [list(range(8)), [1, 3, 5, 6], [3, 5], [3]]
    nothing = cx.successive_halving(look_up, arms(4), curves * np.nan, steps=[2, 4], eta=2, progress=False)
    assert nothing.table[RATE][nothing.table["rung"] == 1].tolist() == [0, 1]
    assert nothing.best is None
    assert "none: all diverged" in str(nothing)


def test_train_sees_the_steps_as_a_constant(monkeypatch):
    """A Python number, once a rung and structure, so that schedules and loops can depend on it."""
    seen, asked = [], []
    monkeypatch.setattr(halving, "swept", lambda *args: asked.append(args[-3:]) or swept(*args))

    def train(tx: Any, steps: int, start: Any) -> dict[str, Any]:
        seen.append(steps)
        rate = tx["scale_by_lr"].learning_rate
        tx = tx.replace("scale_by_lr", cx.scale_by_lr(rate * cx.linear_schedule(1.0, 0.0, steps)))

        def step(carry: Any, _: None) -> Any:
            return tx.step(*carry, 2 * carry[0]), None

        (x, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=steps)
        return {"loss": x**2, "x": x}

    rates = [0.01, 0.02, 0.3, 0.04]
    chains = cx.grid(cx.sgd(0.1), {RATE: rates})
    found = cx.successive_halving(
        train, chains, jnp.array(1.0), steps=(4, 8), eta=2, metric="loss", batch_size=2, progress=False
    )
    assert seen == [4, 8]
    assert {type(steps) for steps in seen} == {int}
    assert asked == [(2, None, False)] * 2
    for i, (steps, rate) in enumerate([*((4, r) for r in rates), (8, 0.3), (8, 0.04)]):
        factors = 1 - 2 * rate * (1 - np.arange(steps) / steps)  # each run from the start, with a schedule of its own
        np.testing.assert_allclose(found.table["x"][i], factors.prod(), rtol=1e-5)
    first, last = (f"{found.table['loss'][i]:.4g}" for i in (2, 4))
    assert [line.split() for line in str(found).splitlines()] == [
        ["order", "rung", "chains", "steps", "loss", "best"],
        ["all", "0", "4", "4", first, "learning_rate=0.3"],
        ["all", "1", "2", "8", last, "learning_rate=0.3"],
        ["32", "steps", "in", "all"],
    ]


def test_an_order_that_fails_does_not_stop_the_others():
    """Its rows are NaN, with the error in a column, and it loses."""

    def train(tx: Any, steps: int) -> Any:
        if "trace" in tx.links:
            raise RuntimeError("no momentum here")
        return tx["scale_by_lr"].learning_rate

    orders = {
        "momentum": cx.grid(cx.sgd(0.1, momentum=0.9), {RATE: [0.1, 0.2]}),
        "plain": cx.grid(cx.sgd(0.1), {RATE: [0.3, 0.2]}),
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = cx.successive_halving(train, orders, budget=8, eta=2, progress=False)
    assert "no momentum here" in str(caught[0].message)
    assert found.table["exception"].tolist() == ["RuntimeError: no momentum here"] * 2 + ["", ""]
    assert found.best == cx.sgd(0.2)
    assert found.winners["momentum"] is None
    assert str(found).endswith("8 steps an order, 16 in all")


def run(train: Any = look_up, over: Any = None, *args: Any, **plan: Any) -> Callable[[], Any]:
    """A call, for later."""
    over = arms(4) if over is None else over
    args = args or ((CURVES,) if train is look_up else ())
    return lambda: cx.successive_halving(train, over, *args, progress=False, **(plan or {"steps": [1, 2]}))


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no function": (
        run(3),
        TypeError,
        "`successive_halving.train` must be a function of a chain and a number of steps",
    ),
    "a function of a chain": (run(lambda tx: 0.0), TypeError, "is called as train(tx, steps): too many"),
    "a chain": (run(over=cx.sgd(0.1)), TypeError, "`successive_halving.over` is one chain: give a list"),
    "chains by name": (
        run(over={"sgd": cx.sgd(0.1)}),
        TypeError,
        "`successive_halving.over['sgd']` is one chain: give a list, such as cx.grid(",
    ),
    "no chains": (run(over=[3]), TypeError, "`successive_halving.over[0]` must be a chain, got 3"),
    "nothing": (run(over=[]), ValueError, "`successive_halving.over` is empty: give at least one chain"),
    "no orders": (run(over={}), ValueError, "`successive_halving.over` is empty: give at least one order"),
    "different lengths": (
        run(over={"a": arms(4), "b": arms(2)}),
        ValueError,
        "the same number of settings for each order, so that none is tuned more than another, got {'a': 4, 'b': 2}",
    ),
    "no plan": (run(budget=None), ValueError, "`successive_halving` needs either the `budget` of an order"),
    "two plans": (run(budget=9, steps=[1]), ValueError, "such as [100, 300, 900], got both"),
    "too small a budget": (
        run(budget=7, eta=2),
        ValueError,
        "`successive_halving.budget` must be 8 steps at least, one for each of 4 chains on the first of 2 rungs, got 7",
    ),
    "half a step": (run(budget=7.5), ValueError, "`successive_halving.budget` must be a whole number from 1, got 7.5"),
    "steps that fall": (run(steps=[2, 2]), ValueError, "`successive_halving.steps` must be increasing whole numbers"),
    "no steps": (run(steps=[]), ValueError, "`successive_halving.steps` must be increasing whole numbers"),
    "a step of 0": (
        run(steps=[0, 2]),
        ValueError,
        "`successive_halving.steps[0]` must be a whole number from 1, got 0",
    ),
    "eta of 1": (run(steps=[1], eta=1), ValueError, "`successive_halving.eta` must be a whole number from 2, got 1"),
    "an unknown metric": (
        run(lambda tx, steps: {"loss": 0.0, "losses": jnp.zeros(3)}, steps=[1], metric="los"),
        ValueError,
        "`successive_halving.metric`: 'los' is not among what `train` returns: ['loss', 'losses'] (did you mean 'loss'",
    ),
    "two metrics": (
        run(lambda tx, steps: (0.0, 1.0)),
        ValueError,
        "`successive_halving.metric` must name the score among what `train` returns, one of ['0', '1']",
    ),
    "no scalar": (
        run(lambda tx, steps: jnp.zeros(3)),
        ValueError,
        "the score among what `train` returns, which has no single number",
    ),
    "a curve": (
        run(lambda tx, steps: {"loss": 0.0, "curve": jnp.zeros(steps)}),
        ValueError,
        "the same names and shapes for any number of steps, got {'curve': (1,), 'loss': ()} after 1 and",
    ),
    "a column's name": (run(lambda tx, steps: {"rung": 0.0}), ValueError, "`train` returns 'rung', which is a column"),
}


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call, kind, message):
    """Each names the argument, what came and the remedy."""
    with pytest.raises(kind, match=re.escape(message)):
        call()


def noisy(tx: Any, steps: int, seed: Any) -> Any:
    """The rate is the score, behind noise that is larger for fewer steps."""
    noise = jax.random.normal(
        jax.random.fold_in(jax.random.key(seed), jnp.int32(1000 * tx["scale_by_lr"].learning_rate))
    )
    return tx["scale_by_lr"].learning_rate + noise / steps


def test_the_mean_over_the_seeds_decides(tmp_path):
    """One seed is led astray by noise that many average out; a folder keeps each rung."""
    rates = np.linspace(0.1, 0.9, 9).tolist()
    chains = cx.grid(cx.sgd(0.1), {RATE: rates})
    found = cx.successive_halving(noisy, chains, steps=[4, 12], seeds=40, progress=False, folder=tmp_path)
    assert found.table["result"].shape == (12, 40)
    assert found.total == 40 * (9 * 4 + 3 * 12)
    assert found.best == cx.sgd(0.1)
    means = found.table["result"][:9].mean(axis=1)
    assert found.table[RATE][9:].tolist() == sorted(np.array(rates)[np.argsort(means)[:3]].tolist())
    firsts = {cx.successive_halving(noisy, chains, steps=[4, 12], seeds=[s], progress=False).best for s in range(3)}
    assert firsts != {cx.sgd(0.1)}
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["rung-0", "rung-1"]
    again = cx.successive_halving(noisy, chains, steps=[4, 12], seeds=40, progress=False, folder=tmp_path)
    for name, x in found.table.items():
        np.testing.assert_array_equal(again.table[name], x)
