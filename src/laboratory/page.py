"""A comparison as one page of HTML. Needs matplotlib: ``pip install "chainax[plot]"``."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..core.facade.config import to_config
from ..core.facade.transformation import Transformation
from ..core.values.contents import code
from ..plotting import check_matplotlib
from . import markup
from .conclusion import conclusion
from .pictures import curve_names, plot_curves, plot_differences, plot_heatmaps, plot_tuning
from .separability import NoGrid
from .statistics import EXACT, LEVEL, PERCENT
from .words import difference_table, drawn_flips, notes, separabilities, summary

if TYPE_CHECKING:
    from .comparison import Comparison


def write_page(c: Comparison, path: str | os.PathLike[str], title: str | None = None) -> pathlib.Path:
    """See `Comparison.report`."""
    check_matplotlib("Comparison.report")
    path = pathlib.Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"`Comparison.report.path` must end in .html, got {str(path)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`Comparison.report.path`: there is no folder {str(path.parent)!r}")
    if title is not None and not isinstance(title, str):
        raise TypeError(f"`Comparison.report.title` must be a text, got {code(title)}")
    text = markup.page(title or f"{c.metric}: {' or '.join(c.orders)}", list(_body(c)))
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _body(c: Comparison) -> Iterator[str]:
    """The sections."""
    yield markup.paragraph(conclusion(c), "conclusion")
    yield from _summary(c)
    yield from _differences(c)
    yield from _grids(c)
    yield from _curves(c)
    if found := notes(c):
        yield markup.heading(2, "Notes and caveats")
        yield markup.bullets(found)
    yield from _chains(c)
    yield from _settings(c)
    yield from _again(c)


def _summary(c: Comparison) -> Iterator[str]:
    yield markup.heading(2, "The orders at their best settings")
    n, fresh = len(c.seeds), c.fresh_seeds
    words = f"A score is the {c.metric} of one run; lower is better. Each setting ran with {n} seed{'s' * (n > 1)}"
    words += ", and the best setting is the one with the fewest diverged runs, then the lowest mean."
    words += f" Its scores here are those of {len(fresh)} fresh seeds, which did not choose it." if fresh else ""
    yield markup.paragraph(words)
    yield markup.table(_diverged(summary(c)), "The best setting of each order", words=[0, 1])


def _diverged(cells: list[list[str]]) -> list[list[str]]:
    return [["diverged" if text == "inf" else text for text in row] for row in cells]


def _differences(c: Comparison) -> Iterator[str]:
    found = c.differences()
    if not found:
        return
    yield markup.heading(2, "Differences between the orders")
    flips = f"with drawn flips, as there are more than {EXACT} seeds" if drawn_flips(c) else "exact"
    yield markup.paragraph(
        "Runs with the same seed are compared, so that what the seeds have in common cancels. The intervals are "
        f"percentile bootstraps, the p-values those of the sign-flip test ({flips}), or of the exact sign test where "
        f"runs diverged; Holm's method corrects all together. A difference is significant if its adjusted p-value is "
        f"at most {LEVEL}."
    )
    head, *rows = difference_table(c)
    yield markup.table([[*head[:-1], "verdict"], *rows], "Paired differences of the scores", words=[0, 5])
    means = ["" if math.isnan(d.mean) else f"{d.mean:+.3g}, " for d in found]
    each = "; ".join(f"{d.first} less {d.second}: {mean}{d.verdict}" for d, mean in zip(found, means))
    yield markup.figure(plot_differences(c, None).figure, f"Forest plot of the differences in {c.metric}. {each}.")


def _grids(c: Comparison) -> Iterator[str]:
    """The scores over one field and over two, and how the fields depend on each other."""
    if not any(c.fields(order) for order in c.orders):
        return
    yield markup.heading(2, "The scores over the settings")
    alt = f"for {', '.join(c.orders)}. The table of all runs below has the numbers."
    ax = plot_tuning(c, None, None)
    yield markup.figure(ax.figure, f"The best mean {c.metric} at each {ax.get_xlabel()} {alt}")
    try:
        drawn = plot_heatmaps(c, None, None, None, None)
    except NoGrid:
        return
    yield markup.figure(drawn, f"Heat maps of the mean {c.metric} over two fields, side by side {alt}")
    cells = [["order", "fields", "slope", f"{PERCENT} interval", "cost", "reading"]]
    for order, s in separabilities(c):
        x, y = s.short
        interval = "" if math.isnan(s.low) else f"{s.low:+.2f} to {s.high:+.2f}"
        cost = f"{s.cost:.3g}" if math.isfinite(s.cost) else "unknown"
        slope = f"{s.slope:+.2f}" if math.isfinite(s.slope) else "unknown"
        reading = "; ".join(filter(None, (s.says, s.warning)))
        cells.append([order, f"best {y} at each {x}", slope, interval, cost, reading])
    if len(cells) > 1:
        yield markup.heading(3, "Can they be tuned one after the other?")
        yield markup.paragraph(
            "The slope is that of the logarithm of the best value against the logarithm of the other field: 0 if it "
            "does not depend on it. The cost is what the score loses on average if it was tuned at another value."
        )
        yield markup.table(cells, "How the best value of one field depends on the other", words=[0, 5])


def _curves(c: Comparison) -> Iterator[str]:
    if names := curve_names(c):
        yield markup.heading(2, "Curves")
    for name in names:
        alt = f"Curves of {name} with the best settings of {', '.join(c.orders)}: means over the seeds, with intervals."
        yield markup.figure(plot_curves(c, name, None, None, None).figure, alt)


def _chains(c: Comparison) -> Iterator[str]:
    yield markup.heading(2, "The chains")
    for order in c.orders:
        tx = c.best(order)
        yield markup.heading(3, order)
        yield markup.paragraph(f"Best setting: {c.setting(order)}. Its links and their equations, in their order:")
        yield markup.code(tx.describe(), f"Equations of {order}")
        yield markup.code(repr(tx), f"Code of {order}")
        config = _config(tx)
        text = config if isinstance(config, str) else json.dumps(config, indent=2, ensure_ascii=False)
        yield markup.folded("The same as JSON", markup.code(text, f"JSON of {order}"))


def _config(tx: Transformation) -> dict | str:
    """The configuration; or why there is none."""
    try:
        return to_config(tx)
    except (TypeError, ValueError) as e:
        return f"This chain has no JSON form: {e}"


def _settings(c: Comparison) -> Iterator[str]:
    yield markup.heading(2, "All runs")
    words = [name for name in ("name", "links") if name in c.settings]
    fields = [name for name in c.settings if name not in ("order", *words)]
    others = [name for name, x in c.results.items() if name != c.metric and x.ndim == 2 and x.dtype.kind in "fiub"]
    head = ["order", *fields, f"mean {c.metric}", *(f"seed {seed}" for seed in c.seeds)]
    head += [*(f"mean {name}" for name in others), *words]
    head += ["error"] * any(c.errors)
    scores, means = c.scores, c.means
    rows = [
        [
            *(_cell(c.settings[name][i]) for name in ("order", *fields)),
            *(_cell(x, "diverged") for x in (means[i], *scores[i])),
            *(_cell(c.results[name][i].mean()) for name in others),
            *(_cell(c.settings[name][i]) for name in words),
            *c.errors[i : i + any(c.errors)],
        ]
        for i in range(len(scores))
    ]
    shown = markup.table([head, *rows], f"The {c.metric} of every run", tall=True)
    yield markup.folded(f"{len(rows)} settings with {len(c.seeds)} seeds each", shown)


def _cell(x: object, infinite: str = "inf") -> str:
    if not isinstance(x, (float, np.floating)):
        return str(x)
    return "" if math.isnan(x) else f"{x:.6g}" if math.isfinite(x) else infinite


def _again(c: Comparison) -> Iterator[str]:
    yield markup.heading(2, "Run it again")
    facts, blocks = [("seeds", ", ".join(map(str, c.seeds)))], []
    if c.fresh_seeds:
        facts.append(("fresh seeds", ", ".join(map(str, c.fresh_seeds))))
    for name, x in c.metadata.items():
        text = _flat(x) or "not known"
        if "\n" in text:
            blocks.append(markup.folded(str(name), markup.code(text, str(name))))
        else:
            facts.append((str(name), text))
    yield markup.terms(facts)
    yield from blocks
    configs = {order: config for order in c.orders if isinstance(config := _config(c.best(order)), dict)}
    if configs:
        yield markup.paragraph("This makes the chains with their best settings:")
        yield markup.code(rebuilding(configs), "Code that makes the chains")
    if missing := [order for order in c.orders if order not in configs]:
        yield markup.paragraph(f"Chains without a JSON form must be made by their own code: {', '.join(missing)}.")


def _flat(x: object) -> str:
    if x is None:
        return ""
    return ", ".join(f"{k} {_flat(v)}" for k, v in x.items()) if isinstance(x, Mapping) else str(x)


def rebuilding(configs: Mapping[str, dict]) -> str:
    """The code that makes chains of their configurations: ``chains`` by name."""
    lines = ["import json", "", "import chainax as cx", "", "configs = {"]
    lines += [f"    {name!r}: {json.dumps(config)!r}," for name, config in configs.items()]
    lines += ["}", "chains = {name: cx.from_config(json.loads(text)) for name, text in configs.items()}"]
    return "\n".join(lines)
