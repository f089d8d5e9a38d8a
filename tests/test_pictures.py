"""Pictures of a comparison: what they draw are its numbers."""

from __future__ import annotations

import dataclasses
import sys

import chainax as cx
import numpy as np
import pytest
from chainax.laboratory.axes import colours, curve_scale, scale_of
from chainax.laboratory.comparison import Comparison
from made_comparisons import DECAYS, OFFSETS, ORDERS, RATES, bowl, curves, made, over, two

pytest.importorskip("matplotlib")

from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle


def maps(fig: Figure) -> list:
    """The axes with heat maps, without that of the colour bar."""
    return [ax for ax in fig.axes if any(isinstance(x, QuadMesh) for x in ax.collections) and ax.get_title("left")]


def mesh(ax) -> QuadMesh:
    """The cells."""
    return next(x for x in ax.collections if isinstance(x, QuadMesh))


def line(ax, label: str):
    """A line by the beginning of its label."""
    return next(x for x in ax.lines if str(x.get_label()).startswith(label))


def hatched(ax, label: str) -> list[tuple[float, float]]:
    """The lower left corners of the cells with the hatch of a label."""
    patches = [x for x in ax.patches if isinstance(x, Rectangle) and x.get_hatch()]
    hatch = {"some": "//", "all": "xxxx"}[label.split()[0]]
    return [x.get_xy() for x in patches if x.get_hatch() == hatch]


def with_losses(c: Comparison, lost: dict[tuple[int, int], float]) -> Comparison:
    """The same comparison with other scores at some (setting, seed)."""
    scores = c.results["loss"].copy()
    for at, x in lost.items():
        scores[at] = x
    return dataclasses.replace(c, results={**c.results, "loss": scores, "losses": curves(scores)})


# Heat maps


def test_heatmaps_show_the_means():
    """A map an order, [y, x], with one scale of colours, on axes that hold the fields' values."""
    c = two()
    fig = c.plot_heatmaps()
    assert isinstance(fig, Figure)
    first, second = maps(fig)
    for ax, group in ((first, "decoupled"), (second, "coupled")):
        tilt, height = (0.0, 1.0) if group == "decoupled" else (-0.5, 1.5)
        expected = [[bowl(tx, tilt, height) for tx in over(ORDERS[group], [rate])] for rate in RATES]
        noise = 0.0 if group == "decoupled" else c.scores[c.rows(group)].mean() - np.mean(expected) - OFFSETS[:6].mean()
        shown = np.asarray(mesh(ax).get_array()).T
        np.testing.assert_allclose(shown, np.array(expected) + OFFSETS[:6].mean() + noise, rtol=1e-12)
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        corners = np.asarray(mesh(ax).get_coordinates())
        np.testing.assert_allclose(corners[0, :, 0], 2.0 ** np.arange(-7, 0, 2))
        np.testing.assert_allclose(corners[:, 0, 1], 10 ** np.arange(-4.5, 0))
        np.testing.assert_allclose([*ax.get_xlim(), *ax.get_ylim()], corners[[0, -1], [0, -1]].T.ravel())
    assert mesh(first).norm is mesh(second).norm
    assert mesh(first).norm.vmin == pytest.approx(c.means.min())
    assert mesh(first).norm.vmax == pytest.approx(np.quantile(c.means, 0.9))
    (bar,) = (ax for ax in fig.axes if ax not in (first, second))
    assert bar.get_ylabel() == "loss"
    assert [ax.get_xlabel() for ax in (first, second)] == ["learning_rate"] * 2
    assert [ax.get_ylabel() for ax in (first, second)] == ["weight_decay", ""]


def test_heatmaps_mark_the_best():
    """The best y at each x, and a star at the best of all, with its score, interval and links in the title."""
    c = two()
    first, second = maps(c.plot_heatmaps())
    np.testing.assert_array_equal(line(first, "best weight_decay").get_xydata(), [[x, 1e-2] for x in RATES])
    np.testing.assert_array_equal(line(second, "best weight_decay").get_ydata(), [1e-1, 1e-2, 1e-3])
    for ax in (first, second):
        np.testing.assert_array_equal(line(ax, "best setting").get_xydata(), [[2.0**-4, 1e-2]])
    assert second.get_title("left") == "coupled"
    (words,) = (text.get_text() for text in second.texts)
    low, high = c.interval("coupled")
    assert words.startswith(f"best {c.best_scores('coupled').mean():.4g} (95 %: {low:.4g} to {high:.4g})\n")
    assert words.replace("\n", " ").replace("\xa0", " ").endswith("add_decayed_weights → scale_by_adam → scale_by_lr")


def test_heatmaps_by_choice():
    """The fields, the orders and the figure may be chosen."""
    c = two()
    _, half = np.ravel(Figure().subfigures(1, 2))
    names = "add_decayed_weights.weight_decay", "scale_by_lr.learning_rate"
    assert c.plot_heatmaps(*names, orders=["coupled"], fig=half) is half
    (ax,) = maps(half)
    assert ax.get_title("left") == "coupled"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("weight_decay", "learning_rate")
    expected = c.means[c.rows("coupled")].reshape(len(RATES), len(DECAYS))
    np.testing.assert_array_equal(mesh(ax).get_array(), expected)


def test_heatmaps_hatch_what_diverged():
    """Some runs or all of them: neither has a colour, and an x without any finite mean has no best y."""
    lost = {(0, 2): np.inf, **{(k, i): np.nan for k in (8, 9, 10, 11) for i in range(6)}}
    c = with_losses(two(), lost)  # of `decoupled`: one run at the first rate and decay, all at the last rate
    fig = c.plot_heatmaps()
    ax, other = maps(fig)
    assert hatched(ax, "some runs") == [pytest.approx((2.0**-7, 10**-4.5))]
    assert [x for x, _ in hatched(ax, "all runs")] == pytest.approx([2.0**-3] * 4)
    assert hatched(other, "some runs") == hatched(other, "all runs") == []
    mask = np.zeros((4, 3), bool)
    mask[0, 0] = mask[:, 2] = True
    np.testing.assert_array_equal(np.ma.getmaskarray(mesh(ax).get_array()), mask)
    np.testing.assert_array_equal(line(ax, "best weight").get_ydata(), [1e-2, 1e-2, np.nan])
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    at_each = "best weight_decay at each learning_rate"
    assert labels == ["some runs diverged", "all runs diverged", at_each, "best setting"]
    assert mesh(ax).norm.vmax == pytest.approx(np.quantile(c.means[np.isfinite(c.means)], 0.9))


def test_heatmaps_of_an_order_that_always_diverged():
    """The star is where the fewest runs did, and the title says how many."""
    c = with_losses(two(), {(k, i): np.inf for k in range(12) for i in ((0, 1) if k != 5 else (3,))})
    ax, _ = maps(c.plot_heatmaps())
    np.testing.assert_array_equal(line(ax, "best setting").get_xydata(), [[RATES[1], DECAYS[1]]])
    assert ax.texts[0].get_text().startswith("best: 1 of 6 runs diverged\n")
    assert np.isnan(line(ax, "best weight").get_ydata()).all()
    everything = with_losses(two(), {(k, i): np.inf for k in range(24) for i in range(6)})
    assert len(maps(everything.plot_heatmaps())) == 2


def test_heatmaps_leave_out_what_is_no_grid():
    """The caption names it; if nothing is left, an error says why."""
    c = made({"grid": over(ORDERS["coupled"]), "single": [ORDERS["decoupled"]]}, lambda group, tx: bowl(tx))
    fig = c.plot_heatmaps()
    assert len(maps(fig)) == 1
    assert "Left out, since their settings are no grid: single." in fig.get_supxlabel().replace("\n", " ")
    with pytest.raises(ValueError, match=r"`Comparison.plot_heatmaps` needs an order.*needs two fields.*'single'"):
        c.plot_heatmaps(orders=["single"])
    with pytest.raises(ValueError, match=r"`Comparison.plot_heatmaps` needs .*: `orders` is empty"):
        c.plot_heatmaps(orders=[])
    with pytest.raises(TypeError, match=r"orders` must be a list of names: write orders=\['grid'\]"):
        c.plot_heatmaps(orders="grid")
    with pytest.raises(KeyError, match=r"no order 'grit' in this comparison \(did you mean 'grid'\?\)"):
        c.plot_heatmaps(orders=["grit"])


def test_six_heatmaps_lie_in_two_rows():
    """With the names of the axes at the left and below, and names that matplotlib could take for mathematics."""
    groups = {f"order {i} at $\\frac{{" + "long " * 12: over(ORDERS["coupled"]) for i in range(6)}
    fig = made(groups, lambda group, tx: bowl(tx), seeds=1).plot_heatmaps()
    fig.draw_without_rendering()
    found = maps(fig)
    assert [bool(ax.get_ylabel()) for ax in found] == [True, False, False] * 2
    assert [bool(ax.get_xlabel()) for ax in found] == [False] * 3 + [True] * 3
    boxes = [ax.get_tightbbox() for ax in found]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    ("values", "kind", "edges"),
    (
        ([0.25, 0.5, 1.0], "log2", 2.0 ** np.arange(-2.5, 1)),
        ([1e-3, 3e-3, 1e-2], "log10", None),
        ([0.1, 0.2, 0.3], "linear", [0.05, 0.15, 0.25, 0.35]),
        ([0.0, 1e-3, 1e-1], "even", [-0.5, 0.5, 1.5, 2.5]),
        ([1e-3, 1e-1], "log10", [1e-4, 1e-2, 1.0]),
        ([0.0, 0.5], "even", [-0.5, 0.5, 1.5]),
        ([0.9, 0.99, 0.999], "even", [-0.5, 0.5, 1.5, 2.5]),
    ),
)
def test_scales_fit_the_values(values, kind, edges):
    """The kind of the axis, the borders of the cells, and a tick for each value, all distinct."""
    scale = scale_of(np.array(values))
    assert scale.kind == kind
    if edges is not None:
        np.testing.assert_allclose(scale.edges, edges, atol=1e-12)
    ax = Figure().subplots()
    scale.set(ax, "y")
    np.testing.assert_allclose(ax.get_yticks(), scale.at)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert len({*labels}) == len(values)
    if kind != "log2":
        assert [float(label) for label in labels] == values


def test_colours_are_logarithmic_where_scores_span_much():
    """From a ratio of three; constant scores and none at all have a scale too."""
    norm, extend = colours(np.array([1.0, 2.0, 2.5]))
    assert (type(norm).__name__, norm.vmin, extend) == ("Normalize", 1.0, "max")
    norm, _ = colours(np.array([1.0, 10.0, 100.0]))
    assert (type(norm).__name__, norm.vmin, norm.vmax) == ("LogNorm", 1.0, pytest.approx(82.0))
    assert type(colours(np.array([-1.0, 10.0, 100.0]))[0]).__name__ == "Normalize"
    for flat in (np.full(3, 2.0), np.zeros(2), np.array([])):
        norm, extend = colours(flat)
        assert norm.vmin < norm.vmax
        assert extend == "neither"
    assert [curve_scale([np.array(x)]) for x in ([1.0, 10.0], [1.0, 9.0], [0.0, 10.0])] == ["log", "linear", "linear"]


# One field


def test_tuning_shows_the_best_of_the_other_fields():
    """The lowest mean at each value with its interval, a star at the best, and a cross where all settings diverged."""
    c = with_losses(two(), {(k, 0): np.nan for k in range(8, 12)})  # of `decoupled`: the last rate
    ax = c.plot_tuning()
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("learning_rate", "loss", "log")
    best = c.means.reshape(2, len(RATES), len(DECAYS)).min(axis=2)
    np.testing.assert_array_equal(line(ax, "decoupled").get_xydata(), np.transpose([RATES, [*best[0, :2], np.nan]]))
    np.testing.assert_array_equal(line(ax, "coupled").get_xydata(), np.transpose([RATES, best[1]]))
    stars = [x.get_xydata().tolist() for x in ax.lines if x.get_marker() == "*"]
    assert stars == [[[RATES[1], best[0, 1]]], [[RATES[1], best[1, 1]]]]
    (cross,) = (x for x in ax.lines if x.get_marker() == "x")
    assert cross.get_xdata().tolist() == [RATES[2]]
    assert cross.get_color() == line(ax, "decoupled").get_color()
    ends = ax.collections[1].get_paths()[0].vertices
    ends = ends[ends[:, 0] == RATES[1]][:, 1]
    assert (ends.min(), ends.max()) == c.interval("coupled")
    own = Figure().subplots()
    assert c.plot_tuning("add_decayed_weights.weight_decay", ax=own) is own
    best = c.means[c.rows("coupled")].reshape(len(RATES), len(DECAYS)).min(axis=0)
    np.testing.assert_array_equal(line(own, "coupled").get_xydata(), np.transpose([DECAYS, best]))


def test_tuning_of_orders_with_other_fields():
    """Orders in which the field does not vary are not drawn; without any, an error says what varies."""
    groups = {"adamw": over(ORDERS["decoupled"]), "sgd": cx.grid(cx.sgd(0.1), {"scale_by_lr.learning_rate": RATES})}
    c = made(groups, lambda group, tx: float(tx["scale_by_lr"].learning_rate), 1)
    decay = "add_decayed_weights.weight_decay"
    for field, names in (None, ["adamw", "sgd"]), (decay, ["adamw"]):
        ax = c.plot_tuning(field)
        assert [text.get_text() for text in ax.get_legend().get_texts()] == names
        left_out = "left out, since weight_decay does not vary in them: sgd"
        assert (left_out in ax.get_title("left")) == (field is not None)
    assert [ax.get_title("left") for ax in maps(c.plot_heatmaps())] == ["adamw"]
    known = r"\['add_decayed_weights.weight_decay', 'scale_by_lr.learning_rate'\]"
    with pytest.raises(ValueError, match=rf"`Comparison.plot_tuning.field` must be one of {known}, got 'rate'"):
        c.plot_tuning("rate")
    with pytest.raises(ValueError, match=r"`Comparison.plot_tuning` needs a number that varies within an order"):
        made({"fixed": [cx.sgd(0.1)]}, lambda group, tx: 1.0).plot_tuning()


def scheduled(independent: bool, kind: type) -> list[cx.chain]:
    """A grid of rates and decays, where the rate is the peak of a schedule, in two groups of parameters."""
    found = []
    for rate in RATES:
        schedule = cx.warmup_cosine_decay_schedule(0.0, rate, 10, 100)
        for decay in DECAYS:
            links = [cx.scale_by_adam(), cx.add_decayed_weights(decay), cx.scale_by_lr(schedule)]
            if independent:
                links = [links[0], links[2], cx.decay_after_step(decay)]
            own = cx.chain(*links)
            found.append(own if kind is cx.chain else cx.chain(cx.partition(cx.by_path({"b": links[2]}, default=own))))
    return found


def test_the_rate_is_x_whatever_the_links():
    """A schedule's peak, behind the decay or before it, for all parameters or in two groups that vary together."""
    orders = {f"{k.__name__} {i}": scheduled(i, k) for k in (cx.chain, cx.partition) for i in (False, True)}
    numbers = [(np.log2(r), np.log10(d)) for r in RATES for d in DECAYS]
    c = made(orders, lambda order, tx: 1.0, 2)
    scores = np.array([[(x + 4) ** 2 + (y + 2) ** 2] for x, y in numbers] * 4) + OFFSETS[:2]
    c = dataclasses.replace(c, results={"loss": scores})
    for order in orders:
        (_, xs), (_, ys), _ = c.grid(order)
        assert (xs.tolist(), ys.tolist()) == (list(RATES), list(DECAYS))
        decay = "rate" if order.endswith("True") else "weight_decay"
        assert [*c.labels(order).values()].count("learning_rate") == 1
        assert {*c.labels(order).values()} == {"learning_rate", decay}
        assert c.separability(order).short == ("learning_rate", decay)
        assert sorted(c.setting(order).split(", ")) == sorted(["learning_rate=0.0625", f"{decay}=0.01"])
    assert [ax.get_xlabel() for ax in maps(c.plot_heatmaps())][1:] == ["learning_rate"] * 3
    ax = c.plot_tuning()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(orders)
    assert ax.get_xlabel() == "learning_rate"
    assert "left out" not in ax.get_title("left")


def test_further_fields_have_their_best_value():
    """Of a grid of three fields, a cell is the best over the third; and the caption says so."""
    values = {"scale_by_lr.learning_rate": [0.1, 0.2], "add_decayed_weights.weight_decay": [0.01, 0.1]}
    chains = cx.grid(cx.adamw(0.1), {**values, "scale_by_adam.b1": [0.8, 0.9]})
    c = made({"adamw": chains}, lambda order, tx: abs(float(tx["scale_by_adam"].b1) - 0.9) + 1.0, 2)
    (x, _), (y, _), scores = c.grid("adamw", y="add_decayed_weights.weight_decay")
    assert (x, y) == tuple(values)
    np.testing.assert_allclose(scores, np.broadcast_to(1.0 + OFFSETS[:2], (2, 2, 2)))
    assert "further fields: adamw" in c.plot_heatmaps(*values).get_supxlabel().replace("\n", " ")


# Curves


def test_curves_are_means_with_intervals():
    """NumPy's own resampling of the same seeds gives the band."""
    c = two(results={"losses": curves})
    ax = c.plot_curves(at=[10, 20, 30, 40, 50])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("step", "losses", "linear")
    assert "mean of 6 seeds and its 95 % bootstrap interval" in ax.get_title("left")
    for group, drawn, band in zip(c.orders, ax.lines, ax.collections, strict=True):
        runs = c.curve(group, "losses")
        np.testing.assert_array_equal(drawn.get_xdata(), [10, 20, 30, 40, 50])
        np.testing.assert_allclose(drawn.get_ydata(), runs.mean(axis=0), rtol=1e-12)
        which = np.random.default_rng(7).integers(0, 6, (4000, 6))
        low, high = np.percentile(runs[which].mean(axis=1), [2.5, 97.5], axis=0)
        for at, a, b in zip((10, 20, 30, 40, 50), low, high, strict=True):
            ends = band.get_paths()[0].vertices
            ends = ends[ends[:, 0] == at][:, 1]
            np.testing.assert_allclose([ends.min(), ends.max()], [a, b], atol=0.1 * (b - a))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["decoupled", "coupled"]
    assert c.plot_curves("losses", log=True, ax=ax) is ax
    assert ax.get_yscale() == "log"
    assert ax.get_xlabel() == "point"


def test_curves_show_the_runs_that_diverged():
    """One by one, dashed, to their last number; they are counted, and not in the mean."""
    c = with_losses(two(seeds=3), {(k, 1): np.inf for k in range(12)})
    ax = c.plot_curves()
    label = "decoupled (1 of 3 runs diverged: dashed)"
    runs = c.curve("decoupled", "losses")
    np.testing.assert_allclose(line(ax, label).get_ydata(), runs[[0, 2]].mean(axis=0))
    assert ax.get_title("left").startswith("best settings: mean of 3 seeds, without diverged runs, and")
    (dashed,) = (x for x in ax.lines if x.get_linestyle() == "--")
    np.testing.assert_array_equal(dashed.get_ydata(), runs[1])
    (end,) = (x for x in ax.lines if x.get_marker() == "x")
    np.testing.assert_array_equal(end.get_xydata(), [[3, runs[1, 2]]])
    gone = with_losses(two(seeds=2), {(k, i): np.nan for k in range(24) for i in range(2)})
    labels = [text.get_text() for text in gone.plot_curves().get_legend().get_texts()]
    assert labels == [f"{name} (2 of 2 runs diverged: dashed)" for name in ("decoupled", "coupled")]


def test_curves_of_one_seed_have_no_band():
    """And names that begin with an underscore are in the legend."""
    c = made({"_own": over(ORDERS["coupled"])}, lambda group, tx: bowl(tx), 1, results={"losses": curves})
    ax = c.plot_curves()
    assert len(ax.collections) == 0
    assert ax.get_title("left") == "best settings: one seed"
    assert [text.get_text().strip() for text in ax.get_legend().get_texts()] == ["_own"]


def test_curves_of_fresh_seeds():
    """They are drawn where there are any."""
    fresh = {"loss": np.array([[1.0, 1.1], [2.0, 2.2]])}
    fresh["losses"] = curves(fresh["loss"])
    c = two(results={"losses": curves}, fresh=fresh, fresh_seeds=(10, 11))
    ax = c.plot_curves()
    np.testing.assert_allclose(line(ax, "coupled").get_ydata(), fresh["losses"][1].mean(axis=0))
    assert "mean of 2 seeds" in ax.get_title("left")
    assert maps(c.plot_heatmaps())[1].texts[0].get_text().startswith("best on fresh seeds 2.1 (95 %: 2 to 2.2)\n")


def test_curves_bad_input():
    """The error says which curves there are."""
    c = two(results={"losses": curves, "norms": curves})
    with pytest.raises(ValueError, match=r"`Comparison.plot_curves.name` must be one of \['losses', 'norms'\]$"):
        c.plot_curves()
    with pytest.raises(ValueError, match=r"must be one of \['losses', 'norms'\], got 'loss'"):
        c.plot_curves("loss")
    with pytest.raises(ValueError, match=r"`Comparison.plot_curves.at` must have 5 numbers, one a point"):
        c.plot_curves("norms", at=[1, 2])
    with pytest.raises(ValueError, match=r"`Comparison.plot_curves` needs a result \[setting, seed, point\]"):
        two().plot_curves()


# Differences


def test_differences_are_a_forest_plot():
    """A row a difference: its mean, interval, seeds and p-values; a hollow grey one is not significant."""
    heights = {"a": 1.0, "b": 1.5, "c": 1.5}
    noise = {"b": OFFSETS[::-1], "c": 0.9 * OFFSETS[::-1] + [0, 1e-3] * 4}
    c = made({n: [ORDERS["coupled"]] for n in heights}, lambda g, tx: heights[g], 8, noise)
    ax = c.plot_differences()
    found = c.differences()
    called = [d.adjusted <= 0.05 for d in found]
    assert called == [True, True, False]
    circles = [x for x in ax.lines if x.get_marker() == "o"]
    for i, (d, circle) in enumerate(zip(found, circles, strict=True)):
        np.testing.assert_array_equal(circle.get_xydata(), [[d.mean, -i]])
        assert (circle.get_markerfacecolor() == "white") == (not called[i])
        assert (circle.get_color() == "0.5") == (not called[i])
        (interval,) = (x for x in ax.lines if len(x.get_xdata()) == 2 and list(x.get_ydata()) == [-i, -i])
        np.testing.assert_array_equal(interval.get_xdata(), [d.low, d.high])
        (dots,) = (x for x in ax.lines if x.get_marker() == "|" and np.all(x.get_ydata() == -i - 0.22))
        np.testing.assert_array_equal(dots.get_xdata(), c.paired(d.first, d.second))
    zero = next(x for x in ax.lines if list(x.get_xdata()) == [0, 0])
    assert zero.get_ydata() == [0, 1]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a\n− b", "a\n− c", "b\n− c"]
    texts = [text.get_text() for text in ax.texts]
    assert texts == [*(f"{d.p:.2g} ({d.adjusted:.2g})" for d in found), "p (adjusted)"]
    own = Figure().subplots()
    assert c.plot_differences(ax=own) is own


def test_differences_that_diverged():
    """They have no mean; the seeds that did not diverge are shown."""
    c = with_losses(made({n: [tx] for n, tx in ORDERS.items()}, lambda order, tx: 1.0), {(0, 1): np.inf})
    ax = c.plot_differences()
    assert [x for x in ax.lines if x.get_marker() == "o"] == []
    (dots,) = (x for x in ax.lines if x.get_marker() == "|")
    assert len(dots.get_xdata()) == 5
    assert ax.texts[0].get_text() == "1 (1)\nsign test: 0 to 1"


def test_differences_that_are_not_tested():
    """Their mean and interval are drawn without a p-value."""
    ax = two().plot_differences()
    assert ax.texts[0].get_text() == "not tested"
    (circle,) = (x for x in ax.lines if x.get_marker() == "o")
    assert circle.get_markerfacecolor() == "white"


def test_differences_need_two_orders():
    """A single one has none."""
    c = made({"alone": [ORDERS["coupled"]]}, lambda group, tx: 1.0)
    with pytest.raises(ValueError, match=r"`Comparison.plot_differences` needs two orders or more"):
        c.plot_differences()


@pytest.mark.parametrize("name", ("plot_heatmaps", "plot_tuning", "plot_curves", "plot_differences"))
def test_pictures_name_what_is_missing(monkeypatch, name):
    """Without matplotlib the error says how to get it."""
    c = two(seeds=2, results={"losses": curves})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=rf'`Comparison.{name}` needs matplotlib: pip install "chainax\[plot\]"'):
        getattr(c, name)()


def test_pictures_leave_pyplot_alone():
    """New figures are not pyplot's, which would keep them."""
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    c = two(results={"losses": curves})
    drawn = c.plot_heatmaps(), c.plot_curves().figure, c.plot_differences().figure
    assert all(isinstance(fig, Figure) for fig in drawn)
    assert pyplot.get_fignums() == before
