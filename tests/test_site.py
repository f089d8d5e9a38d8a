"""The site: its made pages have every name, its equations lose nothing, its guides run and say what is so."""

import doctest
import importlib
import inspect
import re
import sys
import unicodedata
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import chainax as cx
import chainax.extend as cxe
import chex
import jax
import pytest
from chainax.core.facade.link import Link
from registry import LINKS, links_of
from test_docs import blocks, defined, missing

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GUIDES = ("averages", "experiments", "getting_started", "low_precision", "optimizers", "orders", "sweeps")
"""The guides whose code runs from top to bottom. Other tests run the other pages."""


def load(name: str) -> Any:
    """A module of the generator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / "generator"))
        return importlib.import_module(name)


families, formulas, tested = load("families"), load("formulas"), load("tested")


# Names


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The pages that are made."""
    return families.pages()


def test_every_public_name_has_a_section(pages):
    """On one page, of both doors."""
    names = [("chainax", name) for name in cx.__all__ if not inspect.ismodule(getattr(cx, name))]
    names += [("chainax.extend", name) for name in cxe.__all__]
    text = "\n".join(pages.values())
    found = Counter(re.findall(r"^(?:::: |### `\w+` \{ #)(chainax[\w.]*)", text, flags=re.M))
    modules = families.modules()
    assert modules == ["flax", "torch"]
    assert found == Counter([*(f"{module}.{name}" for module, name in names), *(f"chainax.{name}" for name in modules)])
    assert len(found) > 280
    assert {f"api/{name}.md" for name in families.modules()} <= {*pages}


def test_a_name_without_a_page_is_an_error(monkeypatch):
    """Which names it, and says where to put it."""
    monkeypatch.setattr(families, "FUNCTIONS", families.FUNCTIONS[1:])
    with pytest.raises(LookupError, match=r"chain of chainax\.core\.facade\.chain is on no page: add its module"):
        families.where()


def test_a_link_is_told_in_full(pages):
    """Its equation, its fields, its state, its users and its reference."""
    section = pages["links/adam.md"].partition("### `scale_by_adam`")[2].partition("\n### ")[0]
    assert "[arXiv:1412.6980](https://arxiv.org/abs/1412.6980), Algorithm 1" in section
    assert section.count("<math display") == 3
    assert "| `b1` | <math><msub><mi>β</mi><mn>1</mn></msub></math> | decay of the mean | `0.9` | [0, 1) |" in section
    assert "- Slots: `mu`, `nu`; 8 bytes a parameter." in section
    assert re.search(r"- Used by .*`adam`, .*`adamw`, .*`lamb`", section)
    lion = pages["links/signs.md"].partition("### `scale_by_smooth_lion`")[2].partition("\n### ")[0]
    assert "- Tested against Optax (`tests/test_sign.py`)." in lion
    momentum = pages["links/sgd.md"].partition("### `trace`")[2]
    assert "- Slots: `trace`; 4 bytes a parameter." in momentum


def test_an_optimizer_shows_what_it_is(pages):
    """`describe`, the arguments and the reference; and a row of the table of all."""
    section = pages["links/muon.md"].partition("### `muon`")[2].partition("\n### ")[0]
    assert f"{cx.muon().describe()}\n```" in section
    assert "Tested against `torch.optim.Muon`; Optax (`tests/test_muon.py`)." in section
    row = next(line for line in pages["all_optimizers.md"].splitlines() if line.startswith("| [`lion`]"))
    assert row.split(" | ")[1:] == [
        row.split(" | ")[1],
        "Chen et al. 2023, [arXiv:2302.06675](https://arxiv.org/abs/2302.06675), Algorithm 2",
        "4",
        "Optax |",
    ]
    assert pages["all_optimizers.md"].count("\n| [`") == sum(map(families.is_chain, cx.__all__))


def test_docstrings_become_markdown():
    """Sessions are fenced, and lists of arguments are lists."""
    made = families.markdown("Does ``this``.\n\nArgs:\n    x: one\n        more\n    y: two\n\n>>> 1 + 1\n2")
    assert made == "Does `this`.\n\nArgs:\n\n- x: one more\n- y: two\n\n```pycon\n>>> 1 + 1\n2\n```"


# References


@pytest.mark.parametrize("file", tested.TESTED)
def test_what_is_said_to_be_tested_is(file):
    """The file names each optimizer, or the link that it is made of, and uses the libraries."""
    source = (ROOT / "tests" / file).read_text(encoding="utf-8")
    for names, reference in tested.TESTED[file].items():
        assert [sign for sign in tested.libraries(reference) if not re.search(sign, source)] == [], names
        for name in names.split():
            assert name in cx.__all__
            made_of = families.users_of().get(name, set()) - {"scale_by_lr", "add_decayed_weights", "partition"}
            assert any(re.search(rf"\b{x}\b", source) for x in (name, *made_of)), name


def test_every_optimizer_has_a_reference():
    """And libraries are found in what is said of it."""
    assert [name for name in cx.__all__ if families.is_chain(name) and not tested.references(name)] == []
    assert tested.libraries("pytorch_optimizer; NumPy") == ["pytorch_optimizer", r"\bnp\."]
    assert tested.libraries("`torch.optim.SGD`; kron-torch") == ["torch", "kron_torch"]


# Equations

EQUATIONS = sorted({link.equation for tx in LINKS for link in links_of(tx) if link.equation})


def letters(text: str) -> Counter:
    """The letters, digits and signs of an equation, without what becomes a form: fractions, roots, accents."""
    plain = unicodedata.normalize("NFKD", text.replace("ᵀ", "⊤")).replace("\N{MINUS SIGN}", "-")
    return Counter(c for c in plain if c.isalnum() or c in "⊤←=+-<>≤≥≠~±·∇∞")


@pytest.mark.parametrize("equation", EQUATIONS)
def test_equations_are_set_without_loss(equation):
    """Well-formed, each statement with all of its letters, numbers and operators, and as many roots and bars."""
    statements = formulas.statements(equation)
    made = formulas.mathml(equation).splitlines()
    assert len(made) == len(statements)
    for statement, markup in zip(statements, made):
        tree = ElementTree.fromstring(markup.replace("&nbsp;", " "))
        text = "".join(tree.itertext())
        assert letters(text) - letters("3" * statement.count("∛")) == letters(statement)
        assert len(tree.findall(".//msqrt")) == statement.count("√")
        assert text.count("‖") == statement.count("‖")
        accents = sum(c in "\u0302\u0304\u0332" for c in unicodedata.normalize("NFD", statement.replace("≠", "")))
        assert len(tree.findall(".//mover")) + len(tree.findall(".//munder")) == accents


def shape(equation: str) -> str:
    """The markup as nested lists, without the names of leaves."""
    markup = formulas.Parser(equation).whole().replace(' stretchy="false"', "")
    return re.sub(r"</?m[ino]>", "", markup).replace("mrow", "r")


@pytest.mark.parametrize(
    ("equation", "markup"),
    (
        ("a / (b + c)", "<mfrac>a<r>b+c</r></mfrac>"),
        ("a·b / c", "<mfrac><r>a·b</r>c</mfrac>"),
        ("a·b/c·d", "a·<mfrac>bc</mfrac>·d"),
        ("a + bc/de", "a+<mfrac><r>bc</r><r>de</r></mfrac>"),
        ("√(a+b)c", "<msqrt><r>a+b</r></msqrt>c"),
        ("√max(m, n)", "<msqrt><r>max<r>(m,n)</r></r></msqrt>"),
        ("β₂ᵗ⁻¹", "<msubsup>β2<r>t−1</r></msubsup>"),
        ("t^(−1/p)", "<msup>t<r>−1/p</r></msup>"),
        ("s_min", "<msub>smin</msub>"),
        ("‖u‖²", "<msup><r>‖u‖</r>2</msup>"),
        ("uᵀ|v|", "<msup>u⊤</msup><r>|v|</r>"),
    ),
)
def test_forms(equation, markup):
    """Strokes divide what stands beside them, and roots and scripts take what belongs to them."""
    assert shape(equation) == markup


@pytest.mark.parametrize(
    ("equation", "message"),
    (
        ("u ← u ☃ 2", r"cannot set '☃' of 'u ← u ☃ 2': add it to `TOKEN`"),
        ("u ← (u", r"'\(' is never closed in 'u ← \(u'"),
        ("u ← u)", r"'\)' closes nothing in 'u ← u\)'"),
        ("u ← √", r"'u ← √' ends too early"),
    ),
)
def test_equations_that_are_none(equation, message):
    """Each with what is wrong with it."""
    with pytest.raises(ValueError, match=message):
        formulas.mathml(equation)


def test_doctests_of_the_generator():
    """Its examples."""
    assert doctest.testmod(formulas) == (0, 1)


# Guides


@pytest.mark.parametrize("guide", GUIDES)
def test_guides_run_as_written(guide, capsys):
    """From top to bottom, with what is shown to be printed; a reader's JAX promotes ranks."""
    text, scope = (DOCS / f"{guide}.md").read_text(encoding="utf-8"), {"__name__": guide}
    code = list(blocks(text))
    assert len(code) == len(re.findall(r"^```py", text, flags=re.M)) > 0
    one_device = jax.default_device(jax.devices()[0])  # sweeps would compile for all eight
    with one_device, jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for language, block in code:
            if language == "python":
                exec(block, scope)
                continue
            session = doctest.DocTestParser().get_doctest(block, scope, guide, None, 0)
            failed = doctest.DocTestRunner().run(session, clear_globs=False).failed
            assert failed == 0, capsys.readouterr().out
            scope.update(session.globs)
    if guide != "getting_started":
        return
    (shown,) = re.findall(r"^```text\n(.*?)^```", text, flags=re.S | re.M)
    assert shown in capsys.readouterr().out  # of a description
    with jax.numpy_rank_promotion("allow"):  # an edit changes nothing in the function that closes over the chain
        arguments = (scope["params"], scope["start"], scope["inputs"], scope["targets"])
        before = scope["train_step"](*arguments)
        scope["tx"] = scope["tx"].replace("scale_by_lr", learning_rate=0.0)
        chex.assert_trees_all_equal(scope["train_step"](*arguments), before)
    assert "scale_by_quadratic_mean(eps=0)" in repr(scope["scale_by_quadratic_mean"](eps=0.0))


@pytest.mark.parametrize("page", (*GUIDES, "speed"))
def test_guides_name_what_exists(page, pages):
    """Whatever stands in backticks, and wherever a link leads: a page, one that is made, a section."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    own = {name for _, code in blocks(text) if ">>>" not in code for name in defined(code)}
    prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    spans = set(re.findall(r"`([^`]+)`", prose))
    assert {span: wrong for span in spans if (wrong := missing(span, own | THEIRS))} == {}
    for target in re.findall(r"\]\(([^)]+)\)", prose):
        path, _, section = target.partition("#")
        there = DOCS / path if path else DOCS / f"{page}.md"
        assert path in pages or path == "index.md" or there.exists(), target
        if section and there.exists():
            heads = re.findall(r"^#+ (.*)", there.read_text(encoding="utf-8"), flags=re.M)
            assert section in {re.sub(r"[^a-z0-9]+", "-", head.lower()).strip("-") for head in heads}, target


THEIRS = {
    *("TrainState", "nnx.Optimizer", "optax.chain", "optax.MultiSteps", "clip_grad_norm_", "AveragedModel"),
    *("MultiSteps", "apply_if_finite", "multiprocessing.get_context", "np.savez", "np.load", "file", "allow_pickle"),
    *("arrays", "scan", "exception", "pydoc_data.topics", "index.json"),
}
"""Names of other libraries, or of Python's, that the guides mention."""


def test_the_table_of_bytes_is_what_describe_says():
    """docs/optimizers.md, and the figures below its table."""
    text = (DOCS / "optimizers.md").read_text(encoding="utf-8").partition("## Memory")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, flags=re.M)
    assert len(rows) > 12

    def size(tx: cx.chain) -> str:
        return tx.describe().rpartition("state: ")[2].rpartition(" bytes")[0].split()[-1]

    assert rows == [(name, size(families.example(name)[0])) for name, _ in rows]
    assert f"it is {size(cx.store(cx.adamw(1e-3), cx.int8()))}, and" in text
    assert re.search(rf"keeps {float(size(cx.store(cx.lion(1e-4), cx.int4()))):.2f}\b", text)


def test_the_readme_counts():
    """Optimizers and links; and its pictures and links are there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    classes = [
        name for name in cx.__all__ if isinstance(getattr(cx, name), type) and issubclass(getattr(cx, name), Link)
    ]
    assert f"| {sum(map(families.is_chain, cx.__all__))} optimizers |" in text
    links = [name for name in classes if families.is_link(name) and not families.is_chain(name) and name != "chain"]
    assert f"| {len(links)} links |" in text
    assert [path for path in re.findall(r"\]\(([^)#]+)\)", text) if not (ROOT / path).exists()] == []
    assert len(text.splitlines()) < 140  # read in five minutes


def test_every_page_is_in_the_navigation(pages):
    """Whatever is written, and nothing that is not; but for pages that may still be missing."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ +- [^\n]*: (\w[\w/-]*\.md)$", config, flags=re.M)
    hooks = (DOCS / "generator/hooks.py").read_text(encoding="utf-8")
    optional = set(re.findall(r'"(\w+\.md)"', hooks.partition("OPTIONAL = ")[2].partition("\n")[0]))
    tables = set(re.findall(r'^    "(benchmarks/.*\.md)",$', hooks, flags=re.M))
    made = {*pages, *tables, "index.md"}
    written = {path.name for path in DOCS.glob("*.md")}
    assert written - set(listed) == set()
    assert set(listed) - written - made - optional == set()
    assert tables == {
        str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks").rglob("*[!k].md")
    }  # none of a quick run
    assert tables <= set(listed)


def test_the_generator_needs_no_mkdocs():
    """So that these tests run without it."""
    assert not {"mkdocs", "griffe"} & set(sys.modules)
