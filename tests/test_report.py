"""The report of a comparison: a page that says what the numbers say, and needs nothing else."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import itertools
import json
import os
import pathlib
import re
import sys
import xml.etree.ElementTree as ET
from typing import Any

import chainax as cx
import jax
import numpy as np
import pytest
from browser import browser
from chainax.laboratory import markup
from chainax.laboratory.comparison import Comparison
from chainax.laboratory.conclusion import conclusion
from chainax.laboratory.report import report_folder
from chainax.laboratory.words import difference_table, notes, separabilities, summary
from made_comparisons import ORDERS, bowl, curves, made, over, two

pytest.importorskip("matplotlib")

HOSTILE = "</title><script>alert('a')</script> & \"b\""
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(html.parser.HTMLParser):
    """The elements, the tables and the text of a page. Raises unless all tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), tag
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        where = self.open[-1] if self.open else ""
        self.texts.append((where, data))
        if where in ("th", "td"):
            self.tables[-1][-1][-1] += data

    def of(self, tag: str) -> list[str]:
        """The texts directly within elements of a kind."""
        return [text for where, text in self.texts if where == tag]


def written(c: Comparison, tmp_path: pathlib.Path, title: str | None = None) -> tuple[str, Page]:
    """The page as text, and parsed."""
    path = c.report(tmp_path / "page.html", title)
    assert path == tmp_path / "page.html"
    assert [x.name for x in tmp_path.iterdir()] == ["page.html"]
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> tuple[Comparison, str, Page]:
    """Two orders, with curves, a further result and a run that diverged."""
    metadata = {"train": "digits", "source": "def train(tx):\n    return 1 < 2\n", "versions": {"jax": "0.10"}}
    c = two(results={"losses": curves, "accuracy": lambda scores: 1 / scores}, metadata=metadata)
    scores = c.results["loss"].copy()
    scores[3, 1] = np.inf
    c = dataclasses.replace(c, results={**c.results, "loss": scores})
    return c, *written(c, tmp_path_factory.mktemp("report"))


# The page


def test_the_page_requests_nothing(report):
    """Its pictures are within it, each with a text for those who do not see it, and its policy forbids the rest."""
    _, text, page = report
    attributes = [(tag, name, value) for tag, found in page.elements for name, value in found.items()]
    assert [x for x in attributes if x[1] in ("src", "href", "srcset", "data") and not x[2].startswith("data:")] == []
    assert [tag for tag, _ in page.elements if tag in ("script", "link", "iframe", "object")] == []
    assert re.findall(r"https?:|//|url\(|@import", re.sub(r"base64,[\w+/=]+", "", text)) == []
    policy = {found.get("http-equiv"): found.get("content") for _, found in page.elements}["Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    pictures = [found for tag, found in page.elements if tag == "img"]
    assert len(pictures) == 4
    for found in pictures:
        assert len(found["alt"]) > 20
        svg = ET.fromstring(base64.b64decode(found["src"].removeprefix("data:image/svg+xml;base64,")))
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"
        assert [x.tag for x in svg.iter() if x.tag.endswith("}script")] == []


def test_the_page_is_structured(report):
    """A language, a title, one main heading, and headings that skip no level; tables with captions and scopes."""
    _, text, page = report
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert page.of("title") == page.of("h1") == ["loss: decoupled or coupled"]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert len(page.of("caption")) == len(page.tables) == 4
    assert all(found.get("scope") for tag, found in page.elements if tag == "th")
    assert all(len(row) == len(table[0]) for table in page.tables for row in table)
    regions = [found for tag, found in page.elements if tag == "section"]
    assert len(regions) == len(page.tables) + len(page.of("code"))
    assert all(found["aria-label"] and found["tabindex"] == "0" for found in regions)


def test_every_number_of_the_tables_is_in(report):
    """The summary, the differences, the slopes, and each run."""
    c, _, page = report
    best, differences, slopes, runs = page.tables
    assert best == summary(c)
    assert differences[1:] == difference_table(c)[1:]
    found = dict(separabilities(c))
    assert [row[-1].partition(";")[0] for row in slopes[1:]] == [found[row[0]].says for row in slopes[1:]]
    assert slopes[2][-1].endswith(f"; {found['coupled'].warning}")
    assert [row[2] for row in slopes[1:]] == [f"{found[row[0]].slope:+.2f}" for row in slopes[1:]]
    head, *rows = runs
    fields = ["add_decayed_weights.weight_decay", "scale_by_lr.learning_rate"]
    seeds = [f"seed {i}" for i in range(6)]
    assert head == ["order", *sorted(fields), "mean loss", *seeds, "mean accuracy", "name", "links"]
    for i, row in enumerate(rows):
        assert row[0] == c.settings["order"][i]
        assert [float(x) for x in row[1:3]] == pytest.approx([c.settings[name][i] for name in head[1:3]], rel=1e-5)
        numbers = [np.inf if x == "diverged" else float(x) for x in row[3:11]]
        assert numbers == pytest.approx([c.means[i], *c.scores[i], c.results["accuracy"][i].mean()], rel=1e-5)
        assert row[11:] == [c.settings["name"][i], c.settings["links"][i]]
    assert rows[3][3] == rows[3][5] == "diverged"
    assert len(rows) == 24


def test_the_page_has_words_code_and_caveats(report):
    """The conclusion, the notes, the equations, the training function; and the code makes the chains."""
    c, _, page = report
    assert page.of("p")[0] == conclusion(c)
    assert page.of("li") == notes(c)
    blocks = page.of("code")
    for group in c.orders:
        assert {c.best(group).describe(), repr(c.best(group))} <= set(blocks)
        assert json.dumps(cx.to_config(c.best(group)), indent=2) in blocks
    assert c.metadata["source"] in blocks
    assert page.of("dd") == ["0, 1, 2, 3, 4, 5", "digits", "jax 0.10"]
    scope: dict[str, Any] = {}
    exec(blocks[-1], scope)
    assert scope["chains"] == {group: c.best(group) for group in c.orders}


def test_names_are_escaped(tmp_path):
    """Hostile names of orders, seeds' results, facts and titles are text."""
    link = cx.chain(cx.scale_by_adam(), cx.add_decayed_weights(0.1), cx.scale_by_lr(0.1))
    groups = {HOSTILE: over(link), f"{HOSTILE} again": over(link)}
    c = made(
        groups, lambda group, tx: bowl(tx), 2, results={HOSTILE: curves}, metadata={HOSTILE: f"{HOSTILE}\n{HOSTILE}"}
    )
    text, page = written(c, tmp_path, HOSTILE)
    assert page.of("title") == page.of("h1") == [HOSTILE]
    assert page.of("h3")[-2:] == list(groups)
    assert "<script" not in text
    assert f"{HOSTILE}\n{HOSTILE}" in page.of("code")
    assert [tag for tag, _ in page.elements if tag == "script"] == []
    for _, found in page.elements:
        assert not set(found) & {"onload", "onerror", "onclick"}


def test_orders_without_grids_curves_or_json(tmp_path):
    """What there is not is left out, or said."""
    own = cx.chain(cx.trace(0.9), cx.scale_by_lr(cx.from_function(lambda k: 0.1 / (k.astype("float32") + 1))))
    c = made({"own": [own], "plain": [cx.sgd(0.1)]}, lambda group, tx: {"own": 1.0, "plain": 2.0}[group], 1)
    c = dataclasses.replace(c, results={"loss": np.array([[1.0], [np.nan]])}, errors=("", "ValueError: <none>"))
    text, page = written(c, tmp_path)
    assert sum(tag == "img" for tag, _ in page.elements) == 1
    assert "Curves" not in page.of("h2")
    assert any(block.startswith("This chain has no JSON form: scale_by_lr.learning_rate:") for block in page.of("code"))
    assert "Chains without a JSON form must be made by their own code: own." in page.of("p")
    assert "plain: `train` failed: ValueError: <none>." in page.of("li")
    scope: dict[str, Any] = {}
    exec(page.of("code")[-1], scope)
    assert scope["chains"] == {"plain": cx.sgd(0.1)}
    assert "inf" not in page.tables[0][2]
    assert [row[-1] for row in page.tables[-1]] == ["error", "", "ValueError: <none>"]
    assert markup.table([["a", "b"]], "empty").count("<tr>") == 1
    assert text.isprintable() or "\n" in text


def test_the_same_comparison_gives_the_same_page(tmp_path):
    """Byte for byte, and over what was there before."""
    c = of_scores({"a": SEVEN, "b": SEVEN[::-1]})
    path = c.report(tmp_path / "a.html")
    before = path.read_bytes()
    path.write_text("something else")
    assert c.report(path).read_bytes() == before


def test_report_bad_input(tmp_path, monkeypatch):
    """The error names the argument; what was there stays."""
    c = of_scores({"a": SEVEN, "b": SEVEN[::-1]})
    with pytest.raises(ValueError, match=r"`Comparison.report.path` must end in .html, got '.*page.pdf'"):
        c.report(tmp_path / "page.pdf")
    with pytest.raises(FileNotFoundError, match=r"`Comparison.report.path`: there is no folder '.*none'"):
        c.report(tmp_path / "none" / "page.html")
    with pytest.raises(TypeError, match=r"`Comparison.report.title` must be a text, got 3"):
        c.report(tmp_path / "page.html", title=3)
    kept = tmp_path / "kept.html"
    kept.write_text("kept")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        c.report(kept)
    assert [x.name for x in tmp_path.iterdir()] == ["kept.html"]
    assert kept.read_text() == "kept"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'`Comparison.report` needs matplotlib: pip install "chainax\[plot\]"'):
        c.report(kept)


def test_report_of_a_folder(tmp_path):
    """Within the folder unless another place is named; the errors of reading pass."""

    def train(tx, seed):
        x = jax.random.normal(jax.random.key(seed), 3)
        return abs(tx.step(x, tx.init(x), 2 * x)[0]).sum()

    folder = tmp_path / "runs"
    c = cx.compare(train, {"sgd": cx.sgd(0.1), "sign": cx.sign_sgd(0.1)}, seeds=3, folder=folder, progress=False)
    assert report_folder(folder) == folder / "report.html"
    assert report_folder(str(folder), tmp_path / "other.html") == tmp_path / "other.html"
    text = (tmp_path / "other.html").read_text(encoding="utf-8")
    assert text == (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.of("p")[0] == conclusion(c)
    assert page.tables[0] == summary(c)
    assert any("jax.random.normal" in block for block in page.of("code"))
    with pytest.raises(FileNotFoundError, match="none"):
        report_folder(tmp_path / "none")


# The conclusion


def of_scores(scores: dict[str, list[float]], **more: Any) -> Comparison:
    """Orders with one setting each."""
    c = made({name: [ORDERS["coupled"]] for name in scores}, lambda group, tx: 1.0, len(next(iter(scores.values()))))
    return dataclasses.replace(c, results={**c.results, "loss": np.array(list(scores.values()))}, **more)


SEVEN = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]


def test_conclusion_of_a_significant_difference():
    """Which is better, by how much, and how surely: 2/2⁷ of the flips are as extreme."""
    c = of_scores({"a": SEVEN, "b": [x + 0.25 for x in SEVEN]})
    expected = "a is better than b: its loss is 1.3, against 1.55, lower by 0.25 (95 % interval 0.25 to 0.25, "
    assert conclusion(c) == f"{expected}adjusted p = 0.016)."
    worse = of_scores({"b": [x + 0.25 for x in SEVEN], "a": SEVEN})
    assert conclusion(worse) == conclusion(c)


def test_conclusion_of_three_orders():
    """The one that is better than each other, and what is left open."""
    c = of_scores({"b": [x + 0.5 for x in SEVEN], "a": SEVEN, "c": [x + 0.5 for x in SEVEN[::-1]]})
    c = dataclasses.replace(c, results={**c.results, "loss": c.results["loss"] + [[0.0], [-1.0], [0.0]]})
    words = conclusion(c)
    assert words.startswith("a is better than each of the other 2 orders. a is better than b: its loss is 0.3, against")
    assert "a is better than c: its loss is 0.3, against 1.8, lower by 1.5 (95 % interval " in words
    assert words.endswith("1 of the 3 differences is not significant: 7 seeds do not settle it.")


def test_conclusion_against_one_order():
    """Only the pairs that were compared; so none is the best of all."""
    scores = {"a": SEVEN, "b": [x + 1 for x in SEVEN], "c": [x + 2 for x in SEVEN]}
    words = conclusion(of_scores(scores, against="b"))
    assert words.startswith("a is better than b: ")
    assert "b is better than c: " in words
    assert "each of" not in words
    assert "a is better than c" not in words


def test_conclusion_of_chance():
    """Enough seeds, no difference: the lowest mean is named as no more than that."""
    c = of_scores({"a": SEVEN, "b": [x - 0.01 for x in SEVEN[::-1]]})
    assert conclusion(c) == (
        "No order is significantly better than another. The difference is not significant: 7 seeds do not settle it. "
        "The lowest mean is b's: 1.29."
    )


def test_conclusion_of_too_few_seeds():
    """It says how many could reach a significant difference: 2·3/2⁷ is at most 0.05, 2·3/2⁶ is not."""
    c = of_scores({"a": SEVEN[:3], "b": [x + 1 for x in SEVEN[:3]], "c": [x + 2 for x in SEVEN[:3]]})
    assert conclusion(c) == (
        "No order is significantly better than another. All 3 differences cannot be significant with 3 seeds: the "
        "smallest p-value that they allow is above 0.05 in 3 tests together. 7 seeds or more are needed. "
        "The lowest mean is a's: 1.1."
    )
    pair = of_scores({"a": [1.0], "b": [2.0]})
    assert "The difference cannot be significant with 1 seed: " in conclusion(pair)
    assert "in one test. 6 seeds or more are needed." in conclusion(pair)


def test_conclusion_of_divergence():
    """An order that diverged has no mean, and is named with its count; enough of it is evidence."""
    c = of_scores({"a": SEVEN, "b": [np.nan, np.inf, *SEVEN[2:]]})
    assert conclusion(c) == (
        "No order is significantly better than another. The difference is not significant: 7 seeds do not settle it. "
        "Runs diverged even at the best setting: b (2 of 7). The lowest mean is a's: 1.3."
    )
    both = of_scores({"a": [np.inf] * 3, "b": [np.inf] * 3})
    assert conclusion(both).endswith("Runs diverged even at the best setting: a (3 of 3), b (3 of 3).")
    lost = of_scores({"a": [np.nan] * 7, "b": SEVEN})
    assert conclusion(lost).startswith(
        "b is better than a with 7 of 7 seeds, where runs diverged (7 of 7 of a; sign test, adjusted p = 0.016)."
    )


def test_conclusion_of_seeds_that_chose():
    """Nothing is tested on them, however large the difference; and the page says so."""
    assert conclusion(two()) == (
        "No order is significantly better than another. Differences are not tested, since the seeds that chose the "
        f"settings score them too: give `compare` fresh seeds. The lowest mean is decoupled's: "
        f"{two().best_scores('decoupled').mean():.4g}."
    )


def test_conclusion_of_a_failure():
    """An order whose training failed is no evidence."""
    c = of_scores({"a": SEVEN, "b": [np.nan] * 7}, errors=("", "ValueError: no"))
    assert conclusion(c) == (
        "No order is significantly better than another. `train` failed for b, so there is nothing to compare with. "
        "The lowest mean is a's: 1.3."
    )


def test_the_page_says_where_p_values_are_drawn(tmp_path):
    """With more than 20 seeds they are not exact."""
    c = of_scores({"a": SEVEN, "b": SEVEN[::-1]})
    assert "sign-flip test (exact)" in written(c, tmp_path)[0]
    many = of_scores({"a": SEVEN, "b": SEVEN[::-1]}, seeds=tuple(range(21)))
    many = dataclasses.replace(many, results={"loss": np.random.default_rng(0).normal(size=(2, 21))})
    assert "(with drawn flips, as there are more than 20 seeds)" in written(many, tmp_path)[0]
    assert any("its p-values are not exact" in note for note in notes(many))


def test_conclusion_of_one_order():
    """Nothing is compared; its best setting is named."""
    c = made({"alone": over(ORDERS["decoupled"])}, lambda group, tx: bowl(tx), 1)
    best = "weight_decay=0.01, learning_rate=0.0625"
    start = f"One order was measured, so nothing is compared. alone does best with {best}:"
    assert conclusion(c) == f"{start} its loss is 0.98, the mean of 1 seed."
    lost = dataclasses.replace(c, results={**c.results, "loss": c.results["loss"] * np.inf})
    assert conclusion(lost).endswith("even so, 1 of 1 run diverged.")


# A browser

MEASURES = """({
  width: innerWidth,
  scrolled: document.scrollingElement.scrollWidth,
  title: document.querySelector("h1").textContent,
  pictures: [...document.images].map(x => x.complete && x.naturalWidth > 0),
  tables: [...document.querySelectorAll("table")].map(x => x.rows.length),
  ground: getComputedStyle(document.body).backgroundColor,
  text: getComputedStyle(document.body).color,
})"""


def test_the_page_in_a_browser(report, tmp_path):
    """A real one, at two widths, light and dark: pictures load, only tables scroll sideways, and text has contrast."""
    page = tmp_path / "page.html"
    page.write_text(report[1], encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        for width, scheme in itertools.product((400, 1400), ("light", "dark")):
            tab.load(page.as_uri(), width, scheme)
            found = tab.evaluate(MEASURES)
            assert found["scrolled"] <= found["width"] == width
            assert found["title"] == "loss: decoupled or coupled"
            assert found["pictures"] == [True] * 4
            assert found["tables"] == [3, 2, 3, 25]
            assert tab.requests() == [page.as_uri()]
            assert tab.complaints() == []
            ground, text = (sum(map(int, re.findall(r"\d+", found[name])[:3])) for name in ("ground", "text"))
            assert (ground - text) * (1 if scheme == "light" else -1) > 500  # of 765
