"""The doors: what they show, and what they say of names that they do not have."""

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import optax
import pytest
from chainax.core.values.other_libraries import OTHER_LIBRARIES
from pages import DOCS, PAGES, page

ROWS = [(module, names, here) for module, rows in OTHER_LIBRARIES.items() for names, here in rows.items()]


@pytest.mark.parametrize("door", (cx, cxe), ids=("main", "extend"))
def test_a_door_lists_what_it_has(door: Any) -> None:
    """Once each, and nothing else."""
    has = {name for name, item in vars(door).items() if name[0] != "_" and not inspect.ismodule(item)}
    assert sorted(door.__all__) == sorted((has - {"TYPE_CHECKING"}) | ({"extend"} if door is cx else set()))


def test_dir_is_the_table_of_contents() -> None:
    """Submodules do not show, and the names of the docstring are there."""
    assert dir(cx) == sorted(cx.__all__)
    table = re.findall(r"^    (?:[a-z]+(?: [a-z]+)*  +| {17})(.*)", cx.__doc__ or "", flags=re.M)
    named = set(re.findall(r"\w+_\w+|\w+(?=,)", " ".join(table)))
    assert len(named) > 40
    assert named - {"number"} <= set(cx.__all__)


def test_no_name_is_in_both_doors() -> None:
    """A name has one place."""
    assert set(cx.__all__) & set(cxe.__all__) == set()


MISSING = {
    "masked": r"for optax.masked: .*`cx\.by_path|cx\.add_decayed_weights\(cx\.by_path",
    "identity": r"for optax\.identity: `cx\.chain\(\)`",
    "ScaleByAdamState": r"for optax\.ScaleByAdamState: `state\.links`",
    "EmptyState": "not needed: a link without slots has no state",
    "sam": r"for optax\.contrib\.sam: `cx\.chain\(cx\.sharpness_aware",
    "AdamW": r"for torch\.optim\.AdamW: `cx\.adamw\(1e-3\)`",
    "clip_grad_norm_": r"for torch\.nn\.utils\.clip_grad_norm_: `cx\.chain\(cx\.clip_by_global_norm",
    "OneCycleLR": r"for torch\.optim\.lr_scheduler\.OneCycleLR: `cx\.onecycle_schedule",
    "zero_grad": "not needed: `jax.grad` returns new gradients",
    "transform": r"it is for authors, and in chainax\.extend: write `from chainax\.extend import transform`",
    "Leafwise": "`from chainax.extend import Leafwise`",
    "cosine_decay_shedule": r"did you mean 'cosine_decay_schedule'\?",
    "skip_los_spikes": r"did you mean 'skip_loss_spikes'\?",
    "skip_loss_spike": r"did you mean 'skip_loss_spikes'\?",
    "Lion": r"did you mean 'lion'\?",
    "xyzzy": "has no attribute 'xyzzy'$",
}


@pytest.mark.parametrize("name", MISSING)
def test_a_name_that_is_not_there_is_told_what_to_write(name: str) -> None:
    """Those of Optax and PyTorch, those of the other door, and misspelt ones."""
    with pytest.raises(AttributeError, match=MISSING[name]) as caught:
        getattr(cx, name)
    assert str(caught.value).startswith(f"module 'chainax' has no attribute '{name}'")
    assert not hasattr(cx, name)


def test_the_tables_are_read_for_an_error_only() -> None:
    """Importing chainax takes no time for them."""
    code = "import sys, chainax; print('chainax.core.values.other_libraries' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def answered(name: str) -> bool:
    """Whether chainax has the name, or says what to write for it."""
    return name in cx.__all__ or any(fnmatchcase(name, part) for _, names, _ in ROWS for part in names.split())


@pytest.mark.parametrize("module", (optax, optax.contrib, optax.schedules, optax.transforms), ids=lambda m: m.__name__)
def test_every_name_of_optax_is_answered(module: Any) -> None:
    """Whatever is public in it."""
    names = [name for name in dir(module) if name[0] != "_" and name != "contrib"]
    assert len(names) > 20
    assert [name for name in names if not answered(name) and not hasattr(cx, name)] == []


def test_every_class_of_torch_is_answered() -> None:
    """Optimizers and schedulers."""
    torch = pytest.importorskip("torch")
    for module, base in (
        (torch.optim, torch.optim.Optimizer),
        (torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
    ):
        classes = [name for name, x in vars(module).items() if inspect.isclass(x) and issubclass(x, base)]
        theirs = [name for name in classes if name[0] != "_"]
        assert len(theirs) > 14
        assert [name for name in theirs if not answered(name)] == []


def library(module: str) -> Any:
    """A module, or a class in one."""
    if module.startswith("torch"):
        pytest.importorskip("torch")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        outer, _, name = module.rpartition(".")
        return getattr(importlib.import_module(outer), name)


@pytest.mark.parametrize("module", OTHER_LIBRARIES)
def test_what_the_tables_answer_is_there(module: str) -> None:
    """In the library that they name; an argument too."""
    there = library(module)
    if inspect.isclass(there):  # some of its attributes are set when it is made
        there = there([importlib.import_module("torch").zeros(1)], {})
    for name in (name for names in OTHER_LIBRARIES[module] for name in names.split()):
        item, _, argument = name.partition("(")
        if "*" in item:
            assert [x for x in dir(there) if fnmatchcase(x, item) and x not in cx.__all__], name
            continue
        found = there
        for part in item.split("."):
            found = getattr(found, part)
        assert not argument or argument.removesuffix("=)") in inspect.signature(found).parameters, name


def codes() -> Iterator[str]:
    """The code that the tables show."""
    for _, _, here in ROWS:
        yield from re.findall(r"`(.*?)`", here)


@pytest.mark.parametrize("code", sorted(set(codes())))
def test_what_the_tables_show_runs(code: str) -> None:
    """As it stands, with the names that a reader would have."""
    params = {"w": jnp.ones((2, 3)), "embed": jnp.ones(3), "bias": jnp.ones(3)}
    tx = cx.adamw(1e-3)
    state = tx.init(params)
    arrays = tx.state_dict(state)
    lr, n, factor, a, b = 0.1, 100, 0.9, cx.linear_schedule(1.0, 0.5, 10), cx.exponential_decay(1.0, 1, 0.9)

    def f(step: jax.Array) -> jax.Array:
        return 1 / (1 + step.astype(float))

    def loss(params: Any) -> jax.Array:
        return jnp.sum((params["w"] - 2) ** 2)

    scope = {**globals(), **locals(), "grads": params, "old": tx}
    if code == "cx.read_average(tx, params, state)":
        scope["tx"] = cx.chain(tx, cx.swa(start=1))
        scope["state"] = scope["tx"].init(params)
    if code == "cx.loss_scale(state)":
        scope["state"] = cx.chain(cx.dynamic_loss_scale(), tx).init(params)
    eval(code, scope)


@pytest.mark.parametrize("file", PAGES)
def test_pages_are_as_the_tables(file: str) -> None:
    """Otherwise write them anew: ``python tests/pages.py``."""
    assert (DOCS / file).read_text(encoding="utf-8") == page(file), "run `python tests/pages.py`"
