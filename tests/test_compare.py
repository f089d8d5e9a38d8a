"""Orders compared from the same seeds: what is said follows from the runs, and no more than they carry."""

import math
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from chainax.laboratory.comparison import Comparison
from chainax.laboratory.conclusion import conclusion
from chainax.laboratory.separability import separability
from chainax.laboratory.structure import by_structure
from chainax.laboratory.words import summary
from chainax.sweeping.sweep import swept

RATE, DECAY = "scale_by_lr.learning_rate", "add_decayed_weights.weight_decay"
ADAMW = cx.adamw(0.1)
COUPLED = ADAMW.move("add_decayed_weights", before="scale_by_adam")
NOISE = np.random.default_rng(5).normal(size=64).astype(np.float32)
RATES = {RATE: [0.01, 0.1, 1.0]}
SGD, ADAM = cx.grid(cx.sgd(0.1), RATES), cx.grid(cx.adam(0.1), RATES)


def made(tx: Any, seed: Any, better: float = 0.0) -> dict[str, Any]:
    """A score that is known: a valley over the rate, the same noise for every chain, and less for the better links."""
    score = jnp.log10(tx["scale_by_lr"].learning_rate) + 1.0
    noise = jnp.asarray(NOISE)[seed]
    lead = (better * (1.0 + 0.1 * noise)) if "scale_by_adam" in tx.names else 0.0
    loss = score**2 + 0.3 * noise - lead
    return {"loss": loss, "curve": loss * jnp.arange(3.0)}


def test_scores_are_those_of_the_runs() -> None:
    """Best settings, means, differences by seed: what NumPy makes of the closed form."""
    found = cx.compare(made, {"sgd": SGD, "adam": ADAM}, 0.5, seeds=8)
    noise = NOISE[:8].astype(float)
    assert found.scores.shape == (6, 8)
    np.testing.assert_allclose(
        found.means[:3], [1 + 0.3 * noise.mean(), 0.3 * noise.mean(), 1 + 0.3 * noise.mean()], rtol=1e-5
    )
    assert (found.best("sgd"), found.best("adam")) == (SGD[1], ADAM[1])
    assert found.setting("sgd") == "learning_rate=0.1"
    (d,) = found.differences()
    np.testing.assert_allclose(d.mean, (0.5 + 0.05 * noise).mean(), rtol=1e-5)
    assert d.low < d.mean < d.high
    assert math.isnan(d.p)
    assert d.verdict == "not tested: these seeds chose the settings; give `fresh`"
    np.testing.assert_allclose(found.curve("adam", "curve")[:, 2], 2 * found.best_scores("adam"), rtol=1e-5)
    assert "optimistic" in str(found)
    (d,) = cx.compare(made, {"sgd": SGD[1], "adam": ADAM[1]}, 0.5, seeds=8).differences()
    assert d.p == d.adjusted == 2 / 2**8  # every seed agrees
    assert (d.verdict, d.test, d.wins) == ("adam is better", "sign-flip", (0, 8))


def test_pairs_cancel_what_the_seeds_have_in_common() -> None:
    """Noise that is ten times the difference, but the same for both orders, hides nothing."""
    found = cx.compare(made, {"sgd": SGD[1], "adam": ADAM[1]}, 0.02, seeds=8)
    (d,) = found.differences()
    assert found.best_scores("sgd").std() > 10 * d.mean
    assert d.verdict == "adam is better"


@pytest.mark.parametrize("seeds", (1, 3, 5))
def test_few_seeds_cannot_be_significant(seeds: int) -> None:
    """However large the difference is, five seeds or fewer cannot reach 5 %."""
    (d,) = cx.compare(made, {"sgd": SGD[1], "adam": ADAM[1]}, 5.0, seeds=seeds).differences()
    assert d.verdict == f"not significant: {seeds} seed{'s' * (seeds > 1)} cannot reach p <= 0.05, 6 or more can"


def test_chance_is_not_significant() -> None:
    """Two orders that do not differ but for noise of their own."""

    def noisy(tx: Any, seed: Any) -> jax.Array:
        return jax.random.normal(jax.random.key(seed + 100 * ("scale_by_adam" in tx.names)))

    (d,) = cx.compare(noisy, {"sgd": cx.sgd(0.1), "adam": cx.adam(0.1)}, seeds=10).differences()
    assert d.p > 0.05
    assert d.verdict == "not significant: chance could be the reason"


def test_several_pairs_are_corrected_together() -> None:
    """Three pairs need seven seeds; against one order there are two pairs."""
    orders = {"sgd": SGD[1], "adam": ADAM[1], "sign": cx.sign_sgd(0.1)}
    found = cx.compare(made, orders, 0.5, seeds=6).differences()
    assert [(d.first, d.second) for d in found] == [("sgd", "adam"), ("sgd", "sign"), ("adam", "sign")]
    assert [d.adjusted for d in found] == pytest.approx([3 / 32, 1.0, 3 / 32])
    assert "7 or more can" in found[0].verdict
    found = cx.compare(made, orders, 0.5, seeds=7, against="sgd").differences()
    assert [(d.first, d.second) for d in found] == [("adam", "sgd"), ("sign", "sgd")]
    assert [d.verdict for d in found] == ["adam is better", "not significant: chance could be the reason"]


def test_fresh_seeds_score_what_others_chose() -> None:
    """Noise chooses among equal settings, so the best looks better than it is; fresh seeds tell the truth."""

    def noisy(tx: Any, seed: Any) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), jnp.asarray(1000 * tx["scale_by_lr"].learning_rate, jnp.int32))
        return 1.0 + jax.random.normal(key)

    orders = {"sgd": cx.grid(cx.sgd(0.1), {RATE: np.geomspace(0.01, 1.0, 20)})}
    found = cx.compare(noisy, orders, seeds=4, fresh=40)
    assert found.fresh_seeds == tuple(range(4, 44))
    assert found.means.min() < 0.4  # the least of twenty means, four seeds each
    assert found.best_scores("sgd").shape == (40,)
    low, high = found.interval("sgd")
    assert low < 1.0 < high
    assert "optimistic" not in str(found)


def test_diverged_runs_count_and_show() -> None:
    """A setting that diverges once is worse than one that never does; its mean is infinite."""

    def train(tx: Any, seed: Any) -> jax.Array:
        rate = jnp.asarray(tx["scale_by_lr"].learning_rate)
        lost = (rate > 0.5) & (seed == 2)
        return jnp.where(lost, jnp.nan, jnp.where(rate < 0.05, 9.0, jnp.where(rate > 0.5, 0.1, 1.0)))

    found = cx.compare(train, {"sgd": SGD}, seeds=6)
    assert found.best("sgd") == SGD[1]
    assert found.means.tolist() == [9.0, 1.0, math.inf]
    assert "1 of 18 runs" in str(found)
    bounded = cx.compare(train, {"sgd": SGD}, seeds=6, diverged=5.0)
    assert np.isinf(bounded.scores).sum() == 7
    both = cx.compare(train, {"sgd": SGD[2:], "adam": ADAM[2:]}, seeds=6)
    (d,) = both.differences()
    assert math.isnan(d.mean)
    assert d.verdict == "not significant: no seed tells them apart"


def test_an_order_whose_training_fails_is_named() -> None:
    """The others are compared, and a note says what failed."""

    def train(tx: Any, seed: Any) -> Any:
        if "scale_by_adam" in tx.names:
            raise ValueError("no Adam here")
        return seed.astype(jnp.float32)

    with pytest.warns(cx.ChainWarning, match="continues without rows"):
        found = cx.compare(train, {"sgd": cx.sgd(0.1), "adam": cx.adam(0.1)}, seeds=6)
    assert "adam: `train` failed: ValueError: no Adam here." in str(found)
    assert found.differences()[0].verdict == "not tested: `train` failed for adam"


def test_divergence_is_evidence() -> None:
    """A diverged run is worse than any other: a sign test, in the same family as the tests of the means."""

    def train(tx: Any, seed: Any) -> jax.Array:
        lost = "scale_by_adam" in tx.names
        return jnp.where(lost & (seed < 6), jnp.inf, jnp.where(lost, 2.0, 1.0 + 0.01 * jnp.asarray(NOISE)[seed]))

    found = cx.compare(train, {"sgd": cx.sgd(0.1), "adam": cx.adam(0.1), "sign": cx.sign_sgd(0.1)}, seeds=8)
    a, b, c = found.differences()
    assert (a.test, b.test, c.test) == ("sign", "sign-flip", "sign")
    assert a.wins == (8, 0)
    assert a.p == scipy.stats.binomtest(8, 8).pvalue
    assert a.adjusted == 3 * a.p
    assert a.verdict == "sgd is better (sign test: 8 of 8 seeds)"
    assert b.verdict == "not significant: chance could be the reason"
    (d,) = cx.compare(train, {"sgd": cx.sgd(0.1), "adam": cx.adam(0.1)}, seeds=5).differences()
    assert d.verdict == "not significant: 5 seeds cannot reach p <= 0.05, 6 or more can (sign test)"


def test_errors_of_the_fresh_stage_are_kept(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that failed before is not trained again; diverged fresh runs are counted; the folder has all of it."""
    calls: list[str] = []

    def train(tx: Any, seed: Any) -> Any:
        calls.append("adam" if "scale_by_adam" in tx.names else "sign" if "scale_by_sign" in tx.names else "sgd")
        if calls[-1] == "adam" or (calls[-1] == "sign" and late):
            raise ValueError("no such links")
        return jnp.where(seed == 7, jnp.nan, 1.0 + 0.01 * seed.astype(jnp.float32))

    late, orders = False, {"sgd": cx.sgd(0.1), "adam": cx.adam(0.1), "sign": cx.sign_sgd(0.1)}
    real = swept

    def then_fail(*args: Any, **kwargs: Any) -> Any:
        nonlocal late
        table = real(*args, **kwargs)
        late = True
        return table

    monkeypatch.setattr("chainax.laboratory.compare.swept", then_fail)
    with pytest.warns(cx.ChainWarning, match="continues without rows"):
        found = cx.compare(train, orders, seeds=2, fresh=6, folder=tmp_path)
    assert found.fresh_errors == ("", "", "ValueError: no such links")
    assert calls.count("adam") == 1  # in the sweep that chose
    assert [row[4] for row in summary(found)] == ["diverged", "1 of 6 runs", "6 of 6 runs", "6 of 6 runs"]
    assert [row[-1] for row in summary(found)][1:] == ["0 of 2 runs", "2 of 2 runs", "0 of 2 runs"]
    text = str(found)
    assert "adam: `train` failed: ValueError: no such links." in text
    assert "sign: `train` failed with the fresh seeds: ValueError: no such links." in text
    assert {d.verdict for d in found.differences()} == {"not tested: `train` failed for " + x for x in ("adam", "sign")}
    loaded = Comparison.load(tmp_path)
    assert str(loaded) == text
    assert conclusion(loaded) == conclusion(found)
    np.testing.assert_array_equal(loaded.fresh["result"], found.fresh["result"])


# Hyperparameters


def valley(steepness: float, seeds: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rates, decays, and scores whose best decay goes as rate^steepness."""
    rates, decays = np.geomspace(1e-2, 1, 9), np.geomspace(1e-4, 1, 9)
    best = -2 + steepness * (np.log10(rates) + 1)
    scores = 10 + 30 * np.abs(np.log10(decays)[None, :] - best[:, None])
    return rates, decays, np.stack([scores + 0.01 * s for s in range(seeds)], axis=-1)


@pytest.mark.parametrize(
    ("steepness", "words"),
    ((-1, "the smaller the best weight_decay"), (0, "hardly depends"), (1, "the larger the best weight_decay")),
)
def test_the_words_follow_from_the_scores(steepness: float, words: str) -> None:
    """Grids with a known slope are said to have that slope, in every seed."""
    rates, decays, scores = valley(steepness)
    found = separability(RATE, rates, DECAY, decays, scores)
    assert words in str(found)
    assert found.slope == pytest.approx(steepness, abs=0.1)
    assert found.low <= found.slope <= found.high
    assert found.by_seed == pytest.approx([found.slope] * 3)
    assert (found.cost > 1) == (steepness != 0)


def test_the_cost_is_what_is_lost_by_tuning_elsewhere() -> None:
    """By hand, for two rates and two decays."""
    scores = np.array([[1.0, 2.0], [6.0, 3.0]])[..., None]  # decay 0 is best at rate 0, decay 1 at rate 1
    found = separability("a.x", np.array([1.0, 2.0]), "b.y", np.array([1.0, 2.0]), scores)
    assert found.best == (0, 1)
    assert found.cost == ((2.0 - 1.0) + (6.0 - 3.0)) / 2
    assert found.slope == pytest.approx(1.0)


def test_rates_at_which_all_runs_diverged_are_left_out() -> None:
    """The slope is that of the others; with fewer than two there is none, and it is said."""
    rates, decays, scores = valley(-1)
    scores[-1] = np.inf
    assert separability(RATE, rates, DECAY, decays, scores).slope == pytest.approx(-1, abs=0.1)
    scores[1:] = np.inf
    found = separability(RATE, rates, DECAY, decays, scores)
    assert math.isnan(found.slope)
    assert "too many values of learning_rate" in str(found)
    assert "nan" not in str(found)


def test_noise_is_no_reading() -> None:
    """A slope is read only if its interval allows it; one seed has none."""
    rates, decays, scores = valley(0, seeds=4)
    shifts = np.stack([np.roll(scores[..., 0], k, axis=1) for k in (-2, 2)])
    slopes = [np.where(np.arange(9)[:, None] < 5, shifts[i], shifts[1 - i]) for i in (0, 1, 0)]
    found = separability(RATE, rates, DECAY, decays, np.stack([*slopes, scores[..., 0]], axis=-1), softness=30.0)
    assert found.low < 0 < found.high
    assert found.says == "these seeds do not tell whether the best weight_decay depends on the learning_rate"
    one = separability(RATE, rates, DECAY, decays, valley(-1, seeds=1)[2])
    assert one.says == "one seed cannot tell whether the best weight_decay depends on the learning_rate"


def test_a_best_value_at_the_edge_is_a_warning() -> None:
    """The slope of what is cut off is too small."""
    rates, decays, scores = valley(-2)
    assert separability(RATE, rates, DECAY, decays, valley(0)[2]).warning == ""
    found = separability(RATE, rates, DECAY, decays[:5], scores[:, :5])
    assert found.at_edge > 1
    assert f"at {found.at_edge} of 9 values of learning_rate the best weight_decay lies at the edge" in str(found)


def test_what_has_no_separability_says_why() -> None:
    """A decay of 0 has no logarithm; settings that were drawn are no grid."""

    def train(tx: Any, seed: Any) -> jax.Array:
        return jnp.asarray(tx["add_decayed_weights"].weight_decay) + seed.astype(jnp.float32)

    zero = cx.compare(train, {"adamw": cx.grid(ADAMW, {RATE: [0.1, 0.2], DECAY: [0.0, 0.1]})}, seeds=2)
    assert "adamw: nothing is said about tuning one field after the other. `separability` needs positive" in str(zero)
    drawn = [tx for d, r in ((0.1, 0.1), (0.2, 0.2), (0.3, 0.4)) for tx in cx.grid(ADAMW, {DECAY: [d], RATE: [r]})]
    none = cx.compare(train, {"adamw": drawn}, seeds=2)
    assert "nothing is said about tuning one field after the other. `Comparison.grid`: the settings" in str(none)


def test_a_grid_is_found_whatever_the_order() -> None:
    """The rate is x, though the decay may come first in the chain."""
    values = {DECAY: [0.01, 0.1], RATE: [0.1, 0.2, 0.3]}

    def train(tx: Any, seed: Any) -> jax.Array:
        return (
            100 * tx["scale_by_lr"].learning_rate
            + tx["add_decayed_weights"].weight_decay
            + 0.0 * seed.astype(jnp.float32)
        )

    found = cx.compare(train, {"coupled": cx.grid(COUPLED, values)}, seeds=2)
    (x, xs), (y, ys), scores = found.grid("coupled")
    assert (x, y, xs.tolist(), ys.tolist()) == (RATE, DECAY, [0.1, 0.2, 0.3], [0.01, 0.1])
    np.testing.assert_allclose(scores[..., 0], 100 * xs[:, None] + ys[None, :], rtol=1e-6)
    assert found.edges("coupled") == [
        "weight_decay=0.01 is the smallest that was tried",
        "learning_rate=0.1 is the smallest that was tried",
    ]


# What comes in


def test_lists_are_grouped_by_their_links() -> None:
    """One order of a grid, or several of a sum of grids."""
    assert list(cx.compare(made, SGD, seeds=1).orders) == ["all"]
    found = cx.compare(made, SGD + ADAM, seeds=1)
    assert list(found.orders) == ["scale_by_lr", "scale_by_adam → scale_by_lr"]


def test_settings_may_come_from_generators() -> None:
    """They are run through once."""
    found = cx.compare(made, {"sgd": (tx for tx in SGD)}, seeds=1)
    assert found.orders == {"sgd": tuple(SGD)}
    assert cx.compare(made, (tx for tx in SGD), seeds=1).orders == {"all": tuple(SGD)}


def test_chains_with_other_links_within_are_other_orders() -> None:
    """Names of links alone do not tell: what they hold counts, and their types."""
    clip, adam, rate = cx.clip_by_global_norm(1.0), cx.scale_by_adam(), cx.scale_by_lr(0.1)
    nested = [cx.chain(cx.accumulate(cx.chain(*x), 2)) for x in ((clip, adam, rate), (adam, clip, rate))]
    assert list(by_structure(nested)) == [
        "accumulate(clip_by_global_norm → scale_by_adam → scale_by_lr)",
        "accumulate(scale_by_adam → clip_by_global_norm → scale_by_lr)",
    ]
    named = [cx.chain(own=x, scale_by_lr=rate) for x in (adam, cx.scale_by_lion())]
    names = ["own: scale_by_adam → scale_by_lr", "own: scale_by_lion → scale_by_lr"]
    assert list(by_structure(named)) == names
    mixed = [*SGD, cx.sgd(cx.cosine_decay_schedule(0.1, 10))]
    assert by_structure(mixed) == {"scale_by_lr": mixed}  # settings, whatever their schedules


def test_a_wrong_score_is_found_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """By shapes alone, unless the training function runs only as `sweep` calls it."""
    monkeypatch.setattr("chainax.laboratory.compare.swept", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match="'error' is not among what `train` returns"):
        cx.compare(made, {"sgd": SGD, "adam": ADAM}, metric="error")
    with pytest.raises(ValueError, match="must name the score"):
        cx.compare(lambda tx, seed: jnp.zeros(3), SGD)
    monkeypatch.undo()

    def traced(tx: Any, seed: Any) -> jax.Array:
        return tx["scale_by_lr"].learning_rate.astype(jnp.float32) + seed.astype(jnp.float32)

    assert cx.compare(traced, SGD, seeds=2).metric == "result"


MISTAKES = {
    "unequal": (
        lambda: cx.compare(made, {"a": SGD, "b": ADAM[:1]}),
        r"the same number of settings for each order.*\{'a': 3, 'b': 1\}",
    ),
    "empty": (lambda: cx.compare(made, {}), "`compare.over` is empty"),
    "a table of settings": (
        lambda: cx.compare(made, {"a": {"x": SGD[0]}}),
        r"`compare.over\['a'\]` must be a list of chains, got a table",
    ),
    "diverged nan": (lambda: cx.compare(made, SGD, diverged=math.nan), "`compare.diverged` must be .*got float.'nan'."),
    "diverged text": (lambda: cx.compare(made, SGD, diverged="a"), "`compare.diverged` must be a number.*got 'a'"),
    "softness": (lambda: cx.compare(made, SGD, softness=-1.0), "`compare.softness` must be a number from 0.*got -1.0"),
    "softness text": (lambda: cx.compare(made, SGD, softness="x"), "`compare.softness` must be .* got 'x'"),
    "a column": (lambda: cx.compare(lambda tx, seed: {"order": seed}, SGD), "`train` returns 'order', which is a col"),
    "no settings": (lambda: cx.compare(made, {"a": []}), r"`compare.over\['a'\]` is empty"),
    "no chain": (lambda: cx.compare(made, {"a": [0.1]}), r"`compare.over\['a'\]\[0\]` must be a chain, got 0.1"),
    "no seeds": (lambda: cx.compare(made, SGD, seeds=0), "`compare.seeds` must be a number of seeds from 1"),
    "seeds twice": (lambda: cx.compare(made, SGD, seeds=[1, 1]), r"`compare.seeds` .*distinct.*got \[1, 1\]"),
    "fresh": (lambda: cx.compare(made, SGD, seeds=3, fresh=-1), "`compare.fresh` must be a number of seeds from 0"),
    "not fresh": (lambda: cx.compare(made, SGD, seeds=3, fresh=[2, 3]), r"none of the seeds.*got \[2\]"),
    "against": (
        lambda: cx.compare(made, {"sgd": SGD}, against="sdg"),
        r"one of the orders \['sgd'\].*did you mean 'sgd'",
    ),
    "metric": (lambda: cx.compare(made, SGD, seeds=1, metric="error"), "'error' is not among what `train` returns"),
    "curve": (lambda: cx.compare(made, SGD, seeds=1, metric="curve"), "'curve' is not a single number a run"),
    "which": (
        lambda: cx.compare(lambda tx, seed: {"a": seed, "b": seed}, SGD, seeds=1),
        r"`compare.metric` must name the score .* \['a', 'b'\]",
    ),
    "no seed taken": (
        lambda: cx.compare(lambda tx: 0.0, SGD, seeds=1),
        "`compare.train` is called as train\\(tx, seed\\): too many",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    """Each is named, with what came."""
    call, message = MISTAKES[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_unknown_orders_are_named() -> None:
    """By every method that takes one."""
    found = cx.compare(made, {"sgd": SGD}, seeds=1)
    with pytest.raises(KeyError, match=r"no order 'sdg' in this comparison.*did you mean 'sgd'"):
        found.best("sdg")
    with pytest.raises(ValueError, match=r"needs two fields that vary within 'sgd': it has \['scale_by_lr"):
        found.grid("sgd")
    with pytest.raises(ValueError, match="softness"):
        separability("a.x", np.ones(2), "b.y", np.ones(2), np.ones((2, 2, 1)), -1.0)
    with pytest.raises(ValueError, match="softness"):
        separability("a.x", np.ones(2), "b.y", np.ones(2), np.ones((2, 2, 1)), "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive"):
        separability("a.x", np.ones(2), "b.y", np.zeros(2), np.ones((2, 2, 1)))


# Folders


def test_a_comparison_comes_back_from_its_folder(tmp_path: Any) -> None:
    """With all its numbers, its seeds and its words; and a call with more seeds runs only those."""
    orders = {"sgd": SGD, "adam": ADAM}
    first = cx.compare(made, orders, 0.5, seeds=6, fresh=7, diverged=3.0, against="sgd", folder=tmp_path)
    loaded = Comparison.load(tmp_path)
    assert str(loaded) == str(first)
    assert loaded.orders == first.orders
    assert (loaded.seeds, loaded.fresh_seeds, loaded.diverged) == (first.seeds, first.fresh_seeds, 3.0)
    for name, x in first.table.items():
        np.testing.assert_array_equal(loaded.table[name], x)
    for name, x in first.fresh.items():
        np.testing.assert_array_equal(loaded.fresh[name], x)
    before = set(tmp_path.rglob("*.npz"))
    more = cx.compare(made, orders, 0.5, seeds=9, folder=tmp_path)
    np.testing.assert_array_equal(more.scores[:, :6], first.scores)
    new = [p for p in tmp_path.rglob("*.npz") if p not in before]
    assert (
        sum(len(np.load(p)["float32:loss"]) for p in new) == 6 * 3 - 2 * 3
    )  # two settings had run on all seeds, as fresh ones
    np.testing.assert_allclose(more.scores, cx.compare(made, orders, 0.5, seeds=9).scores, rtol=1e-6)


def test_what_is_no_comparison_is_said(tmp_path: Any) -> None:
    """A folder that is none, that of a sweep, and one that lacks runs."""
    with pytest.raises(FileNotFoundError, match=r"index.json does not exist: .* is not the folder of a sweep"):
        Comparison.load(tmp_path / "nothing")
    cx.sweep(made, SGD, seeds=2, folder=tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="has no finished comparison: if a comparison was begun there"):
        Comparison.load(tmp_path / "a")
    cx.compare(made, SGD, seeds=2, folder=tmp_path / "a")
    next((tmp_path / "a").rglob("*.npz")).unlink()
    with pytest.raises(ValueError, match=r"lacks \d runs of its comparison"):
        Comparison.load(tmp_path / "a")
    (tmp_path / "a" / "comparison.json").write_text("{}")
    with pytest.raises(ValueError, match=r"comparison\.json is not a comparison: KeyError: 'orders'"):
        Comparison.load(tmp_path / "a")


def test_links_of_ones_own_must_be_imported(tmp_path: Any) -> None:
    """A folder with a link that nobody has defined says what to do."""
    cx.compare(made, SGD, seeds=1, folder=tmp_path)
    index = tmp_path / "index.json"
    index.write_text(index.read_text().replace('"scale_by_lr"', '"scale_by_mine"'))
    with pytest.raises(ValueError, match=r"unknown type 'scale_by_mine'.*import its module first") as e:
        Comparison.load(tmp_path)
    assert "before `Comparison.load`, import" in e.value.__notes__[0]


def test_a_seed_that_changes_nothing_is_no_sample() -> None:
    """Eight times the same run looks like eight seeds that agree."""

    def train(tx: Any, seed: Any) -> Any:
        return made(tx, 0, 0.5)["loss"]

    found = cx.compare(train, {"sgd": SGD, "adam": ADAM}, seeds=3, fresh=8)
    (d,) = found.differences()
    assert d.verdict.startswith("not tested: all seeds give the same scores")
    assert "sgd: all seeds give the same scores, so they are no sample: does `train` use its seed?" in str(found)


def test_an_order_that_fails_in_a_later_call_is_kept(tmp_path: Any) -> None:
    """Its chains get into the folder though none of their runs did."""

    def train(tx: Any, seed: Any) -> Any:
        if "scale_by_adam" in tx.names:
            raise ValueError("no Adam here")
        return seed.astype(jnp.float32)

    cx.compare(train, {"sgd": cx.sgd(0.1)}, seeds=2, folder=tmp_path)
    with pytest.warns(cx.ChainWarning, match="continues without rows"):
        found = cx.compare(train, {"sgd": cx.sgd(0.1), "adam": cx.adam(0.1)}, seeds=2, folder=tmp_path)
    assert str(Comparison.load(tmp_path)) == str(found)
    assert "A lower result is better." in str(found)
