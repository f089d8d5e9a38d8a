"""Pictures of a comparison: heat maps, curves, and differences. Needs matplotlib: ``pip install "chainax[plot]"``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..plotting import check_matplotlib
from .axes import CLIPPED, Scale, colours, curve_scale, scale_of
from .fields import rate_of
from .separability import NoGrid
from .statistics import PERCENT, bootstrap

if TYPE_CHECKING:
    from .comparison import Comparison
    from .differences import Difference

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Distinct for colour-blind readers: Okabe & Ito 2008."""
MARKERS = "osD^vPX"


# Heat maps


class Panel(NamedTuple):
    """What one heat map shows: the mean scores ``[x, y]``, infinite if a run diverged."""

    order: str
    x: str
    y: str
    labels: tuple[str, str]
    """What a reader calls x and y."""
    across: Scale
    up: Scale
    means: np.ndarray
    lost: np.ndarray
    """The share of the runs that diverged, ``[x, y]``."""


def plot_heatmaps(c: Comparison, x: str | None, y: str | None, orders: Sequence[str] | None, fig: Any) -> Any:
    """See `Comparison.plot_heatmaps`."""
    check_matplotlib("Comparison.plot_heatmaps")
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    panels, left_out = _panels(c, x, y, orders)
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    if fig is None:
        fig = Figure(figsize=(max(5.5, 4.0 * columns) + 0.8, 3.6 * rows + 1.4), layout="constrained")
    same = len({p.labels for p in panels}) == 1
    norm, extend = colours(np.concatenate([p.means[np.isfinite(p.means)] for p in panels]))
    shared = ScalarMappable(norm, "viridis_r")
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(panels) :]:
        ax.remove()
    for i, (ax, panel) in enumerate(zip(axes, panels)):
        _heatmap(ax, panel, c, norm, 42 if columns > 1 else 60)
        ax.set_xlabel(_plain(panel.labels[0]) if not same or i + columns >= len(panels) else "")
        ax.set_ylabel(_plain(panel.labels[1]) if not same or i % columns == 0 else "")
    _colour_bar(fig.colorbar(shared, ax=list(axes[: len(panels)]), extend=extend, pad=0.015), c.metric, norm)
    labels = {label: handle for ax in axes[: len(panels)] for handle, label in zip(*ax.get_legend_handles_labels())}
    fig.legend(labels.values(), labels.keys(), loc="outside upper left", ncols=3, facecolor="0.85", fontsize=9)
    seeds = f"{len(c.seeds)} seeds" if len(c.seeds) > 1 else "one seed"
    words = [
        f"Each cell is {_plain(c.metric)} with one setting, the mean of {seeds}; all orders have the same colours."
    ]
    words += [f"The worst {100 * (1 - CLIPPED):.0f}\xa0% of the cells have the last colour."] * (extend == "max")
    if further := [p.order for p in panels if len(c.fields(p.order)) > 2]:
        words.append(f"Cells have the best of the further fields: {_plain(', '.join(further))}.")
    words += [f"Left out, since their settings are no grid: {_plain(', '.join(left_out))}."] * bool(left_out)
    caption = textwrap.fill(" ".join(words), int(13 * fig.bbox.width / fig.dpi))
    fig.supxlabel(caption, fontsize=9, x=0.02, ha="left")
    return fig


def _panels(
    c: Comparison, x: str | None, y: str | None, orders: Sequence[str] | None
) -> tuple[list[Panel], dict[str, str]]:
    """The heat maps, and why the other orders have none."""
    if isinstance(orders, str):
        raise TypeError(f"`Comparison.plot_heatmaps.orders` must be a list of names: write orders=[{orders!r}]")
    panels, left_out = [], {}
    for name in c.orders if orders is None else orders:
        try:
            (x_name, xs), (y_name, ys), scores = c.grid(name, x, y)
        except NoGrid as e:
            left_out[name] = str(e)
            continue
        lost = np.isinf(scores).mean(axis=-1)
        short = c.labels(name)[x_name], c.labels(name)[y_name]
        panels.append(Panel(name, x_name, y_name, short, scale_of(xs), scale_of(ys), scores.mean(axis=-1), lost))
    if not panels:
        why = "; ".join(left_out.values()) or "`orders` is empty"
        raise NoGrid(f"`Comparison.plot_heatmaps` needs an order whose settings are a grid of two fields: {why}")
    return panels, left_out


def _heatmap(ax: Any, panel: Panel, c: Comparison, norm: Any, width: int) -> None:
    """One heat map. ``width`` is that of the title in characters."""
    across, up, finite = panel.across, panel.up, np.isfinite(panel.means)
    cells = np.ma.masked_array(panel.means, ~finite).T
    ax.pcolormesh(
        across.edges, up.edges, cells, norm=norm, cmap="viridis_r", edgecolors="face", lw=0.4
    )  # no seams in an SVG
    _hatch(ax, panel, (panel.lost > 0) & (panel.lost < 1), "some runs diverged", hatch="//", facecolor="0.9")
    _hatch(ax, panel, panel.lost == 1, "all runs diverged", hatch="xxxx", facecolor="0.75")
    known = finite.any(axis=1)
    line = {"color": "white", "mec": "black", "ms": 6, "lw": 1.5, "zorder": 3}
    best = np.where(known, up.at[panel.means.argmin(axis=1)], np.nan)
    ax.plot(across.at, best, "o-", label=_plain("best {1} at each {0}".format(*panel.labels)), **line)
    row, fields = c._best(panel.order), c.fields(panel.order)
    i, j = np.searchsorted(across.values, fields[panel.x][row]), np.searchsorted(up.values, fields[panel.y][row])
    style = {"ms": 17, "mec": "white", "ls": "", "zorder": 4, "clip_on": False}
    ax.plot(across.at[[i]], up.at[[j]], "*", color=COLORS[1], label="best setting", **style)
    across.set(ax, "x")
    up.set(ax, "y")
    links = textwrap.wrap(_plain(" →\xa0".join(c.best(panel.order).links)), width, break_long_words=False)
    below = "\n".join([_best(c, panel.order), *links])
    ax.annotate(below, (0, 1), (0, 4), "axes fraction", "offset points", fontsize=8.5, va="bottom", linespacing=1.2)
    pad = 7 + 8.5 * 1.3 * (1 + below.count("\n"))
    ax.set_title(textwrap.fill(_plain(panel.order), width - 4), fontsize=10, weight="bold", loc="left", pad=pad)
    ax.tick_params(labelsize=9)


def _hatch(ax: Any, panel: Panel, which: np.ndarray, label: str, **style: Any) -> None:
    """Fill cells with a pattern that is in the legend once."""
    from matplotlib.patches import Rectangle

    x, y = panel.across.edges.tolist(), panel.up.edges.tolist()
    for i, j in np.argwhere(which).tolist():
        width, height = x[i + 1] - x[i], y[j + 1] - y[j]
        ax.add_patch(Rectangle((x[i], y[j]), width, height, edgecolor="0.5", lw=0, label=label, **style))
        label = "_"


def _best(c: Comparison, order: str) -> str:
    """The best score of an order in a line."""
    scores, (low, high) = c.best_scores(order), c.interval(order)
    seeds = " on fresh seeds" if c.fresh_seeds else ""
    if lost := int(np.isinf(scores).sum()):
        return f"best{seeds}: {lost} of {len(scores)} runs diverged"
    return f"best{seeds} {scores.mean():.4g}" + (f" ({PERCENT}: {low:.4g} to {high:.4g})" if low == low else "")


def _colour_bar(bar: Any, metric: str, norm: Any) -> None:
    """Name the scale of colours, with round numbers at the ticks."""
    bar.set_label(_plain(metric))
    if type(norm).__name__ == "LogNorm":
        powers = 10.0 ** np.arange(np.floor(np.log10(norm.vmin)), np.log10(norm.vmax) + 1)
        many = norm.vmax > 100 * norm.vmin
        ticks = [m * power for power in powers for m in ((1,) if many else (1, 1.5, 2, 3, 5, 7))]
        ticks = [t for t in ticks if norm.vmin <= t <= norm.vmax]
        bar.ax.minorticks_off()
        bar.set_ticks(ticks, labels=[f"{t:.3g}" for t in ticks])


def _plain(text: str) -> str:
    """Text that matplotlib shows as it is, in legends too, which leave out what begins with an underscore."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


# One field


def plot_tuning(c: Comparison, field: str | None, ax: Any) -> Any:
    """See `Comparison.plot_tuning`."""
    check_matplotlib("Comparison.plot_tuning")
    chosen, label = _tuned(c, field)
    fields = {order: c.fields(order)[name] for order, name in chosen.items()}
    scale = scale_of(np.unique(np.concatenate(list(fields.values()))))
    if ax is None:
        ax = _axes(7.5, 4.6)
    drawn = []
    for i, (order, values) in enumerate(fields.items()):
        means, scores = c.means[c.rows(order)], c.scores[c.rows(order)]
        which = [np.flatnonzero(values == x) for x in np.unique(values)]
        best = np.array([rows[means[rows].argmin()] for rows in which])
        x, finite = scale.at[np.searchsorted(scale.values, values[best])], np.isfinite(means[best])
        y = np.where(finite, means[best], np.nan)
        bands = [bootstrap(scores[k]) if known else (np.nan, np.nan) for k, known in zip(best, finite)]
        low, high = np.transpose(bands)
        ax.plot(x, y, color=_color(i), label=_plain(order), marker=_marker(i), ms=5)
        ax.fill_between(x, low, high, color=_color(i), alpha=0.2, lw=0)
        if finite.any():
            at = np.nanargmin(y)
            ax.plot(x[[at]], y[[at]], "*", color=_color(i), mec="black", ms=14)
        if not finite.all():
            top = np.full(len(x), 0.98)  # of the height
            ax.plot(x[~finite], top[~finite], "x", color=_color(i), transform=ax.get_xaxis_transform())
        drawn += [y[finite], low[np.isfinite(low)], high[np.isfinite(high)]]
    _fit(ax, drawn, None)
    scale.set(ax, "x")
    ax.set(xlabel=_plain(label), ylabel=_plain(c.metric))
    title = f"best mean {_plain(c.metric)} at each {_plain(label)}, {PERCENT} interval; crosses: runs diverged"
    if left_out := [order for order in c.orders if order not in fields]:
        left = f"left out, since {label} does not vary in them: {', '.join(left_out)}"
        title += "\n" + textwrap.fill(_plain(left), 80)
    ax.set_title(title, fontsize=10, loc="left")
    _finish(ax)
    return ax


def _tuned(c: Comparison, field: str | None) -> tuple[dict[str, str], str]:
    """The field of each order in which it varies, and its short name: by default the learning rate of each."""
    known = {order: list(c.fields(order)) for order in c.orders}
    names = list(dict.fromkeys(name for fields in known.values() for name in fields))
    if not names:
        raise ValueError("`Comparison.plot_tuning` needs a number that varies within an order")
    if field is not None and field not in names:
        raise ValueError(f"`Comparison.plot_tuning.field` must be one of {names}, got {field!r}")
    found = {order: rate for order, fields in known.items() if (rate := rate_of(fields))}
    if field is not None or not found:
        field = field or names[0]
        found = {order: field for order, fields in known.items() if field in fields}
    labels = {c.labels(order)[name] for order, name in found.items()}
    return found, labels.pop() if len(labels) == 1 else field or "learning rate"


# Curves


def plot_curves(c: Comparison, name: str | None, log: bool | None, at: Any, ax: Any) -> Any:
    """See `Comparison.plot_curves`."""
    check_matplotlib("Comparison.plot_curves")
    name = _curve_name(c, name)
    curves = {order: np.asarray(c.curve(order, name), float) for order in c.orders}
    points = next(iter(curves.values())).shape[1]
    x = np.arange(1, points + 1) if at is None else np.asarray(at)
    if x.shape != (points,):
        raise ValueError(f"`Comparison.plot_curves.at` must have {points} numbers, one a point, got shape {x.shape}")
    if ax is None:
        ax = _axes(7.5, 4.6)
    drawn, any_lost = [], False
    for i, (order, runs) in enumerate(curves.items()):
        lost = np.isinf(c.best_scores(order)) | ~np.isfinite(runs).all(axis=1)
        any_lost |= bool(lost.any())
        kept, label = runs[~lost], _plain(order)
        for run in runs[lost]:
            known = np.flatnonzero(np.isfinite(run))
            ax.plot(x, run, "--", color=_color(i), lw=1, alpha=0.8)
            ax.plot(x[known[-1:]], run[known[-1:]], "x", color=_color(i), ms=6)
        if lost.any():
            label += f" ({lost.sum()} of {len(runs)} runs diverged: dashed)"
        if not len(kept):
            ax.plot([], [], "--x", color=_color(i), label=label)
            continue
        drawn.append(kept.mean(axis=0))
        ax.plot(x, drawn[-1], color=_color(i), label=label, marker=_marker(i), ms=5, markevery=_every(points, i))
        if len(kept) > 1:
            low, high = np.transpose([bootstrap(kept[:, k], resamples=999) for k in range(points)])
            ax.fill_between(x, low, high, color=_color(i), alpha=0.2, lw=0)
            drawn += [low, high]
    _fit(ax, drawn, log)
    ax.set(xlabel="point" if at is None else "step", ylabel=_plain(name))
    n = len(c.fresh_seeds or c.seeds)
    which = f"{n} seeds{', without diverged runs,' * any_lost}"
    band = f"mean of {which} and its {PERCENT} bootstrap interval" if n > 1 else "one seed"
    ax.set_title(f"best settings: {band}", fontsize=10, loc="left")
    _finish(ax)
    return ax


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _marker(i: int) -> str:
    return MARKERS[i % len(MARKERS)]


def _fit(ax: Any, drawn: Sequence[np.ndarray], log: bool | None) -> None:
    """Scale the y axis to what did not diverge."""
    known = [x for x in drawn if len(x)]
    if not known:
        return
    scale = curve_scale(known) if log is None else "log" if log else "linear"
    ax.set_yscale(scale)
    ax.set_ylim(*_margin(min(map(np.min, known)), max(map(np.max, known)), scale))


def _finish(ax: Any) -> None:
    ax.legend(fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)


def curve_names(c: Comparison) -> list[str]:
    """The results that are curves, ``[setting, seed, point]``."""
    return [name for name, x in c.results.items() if x.ndim == 3 and x.dtype.kind in "fiu"]


def _curve_name(c: Comparison, name: str | None) -> str:
    known = curve_names(c)
    if not known:
        raise ValueError("`Comparison.plot_curves` needs a result [setting, seed, point], that is a curve")
    if name is None and len(known) == 1:
        return known[0]
    if name not in known:
        got = "" if name is None else f", got {name!r}"
        raise ValueError(f"`Comparison.plot_curves.name` must be one of {known}{got}")
    return name


def _every(points: int, i: int) -> tuple[int, int]:
    """Sparse markers, those of each curve elsewhere."""
    step = max(1, points // 8)
    return (i * step // 4) % step, step


def _margin(low: float, high: float, scale: str) -> tuple[float, float]:
    if scale == "log" and low > 0:
        r = (high / low) ** 0.05 if high > low else 1.1
        return low / r, high * r
    r = 0.05 * (high - low) or 0.05 * (abs(low) or 1.0)
    return low - r, high + r


# Differences


def plot_differences(c: Comparison, ax: Any) -> Any:
    """See `Comparison.plot_differences`."""
    check_matplotlib("Comparison.plot_differences")
    from matplotlib.ticker import MaxNLocator

    found = c.differences()
    if not found:
        raise ValueError("`Comparison.plot_differences` needs two orders or more")
    if ax is None:
        ax = _axes(8.5, 1.3 + 0.55 * len(found))
    for i, d in enumerate(found):
        _difference(ax, -i, d, c.paired(d.first, d.second))
    ax.axvline(0, color="black", lw=1, zorder=0)
    ax.set_ylim(0.4 - len(found), 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.set_yticks([-i for i in range(len(found))], [f"{_cut(d.first)}\n− {_cut(d.second)}" for d in found], fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"difference in {_plain(c.metric)}: below 0 the first is better")
    title = f"mean difference, its {PERCENT} interval, and that of each seed; filled: significant"
    ax.set_title(title, fontsize=9, loc="left", pad=6)
    ax.annotate("p (adjusted)", (1, 1), (6, 6), "axes fraction", "offset points", fontsize=9)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.margins(x=0.06)
    return ax


def _difference(ax: Any, y: float, d: Difference, each: np.ndarray) -> None:
    """One row."""
    each = each[np.isfinite(each)]
    color = COLORS[0] if d.significant else "0.5"
    ax.plot(each, np.full(len(each), y - 0.22), "|", color=color, ms=7, alpha=0.7)
    if d.mean == d.mean:
        if d.low == d.low:
            ax.plot([d.low, d.high], [y, y], color=color, lw=2.2)
        ax.plot([d.mean], [y], "o", color=color, mfc=color if d.significant else "white", ms=8, zorder=3)
    text = f"{d.p:.2g} ({d.adjusted:.2g})" if d.test else "not tested"
    text += f"\nsign test: {d.wins[0]} to {d.wins[1]}" * (d.test == "sign")
    weight = {"weight": "bold"} if d.significant else {"color": "0.35"}
    ax.annotate(text, (1, y), (6, 0), ax.get_yaxis_transform(), "offset points", va="center", fontsize=9, **weight)


def _cut(name: str) -> str:
    return _plain(name if len(name) <= 40 else f"{name[:39].rstrip()}…")


def _axes(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").subplots()
