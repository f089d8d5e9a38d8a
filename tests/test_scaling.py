"""docs/scaling.md: its programs run, each after the code at the top of the page, and its table is the stored one."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import meshes  # noqa: E402  # pyright: ignore[reportMissingImports]

PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
FOUND = json.loads(meshes.RESULTS.read_text(encoding="utf-8"))
HEAD, *SECTIONS = PAGE.split("\n## ")


def code_of(text: str) -> str:
    """The code of a section."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M))


PROGRAMS = {text.partition("\n")[0]: code_of(text) for text in SECTIONS if code_of(text)}


@pytest.mark.parametrize("title", PROGRAMS)
def test_programs_run_as_written(title: str) -> None:
    """Under JAX's usual promotion of dtypes and ranks."""
    scope: dict[str, Any] = {"__name__": "scaling"}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(code_of(HEAD).replace('jax.config.update("jax_num_cpu_devices", 8)', ""), scope)
        exec(PROGRAMS[title], scope)


def test_programs_are_short() -> None:
    """At most 40 lines each, without the code at the top."""
    assert max(len(code.splitlines()) for code in PROGRAMS.values()) <= 40
    assert len(code_of(HEAD).splitlines()) <= 40


# What XLA's TPU compiler made of training on 256 chips


def along(row: str, axis: str) -> dict[str, tuple[int, float]]:
    """The collectives along one axis, by kind: their number, and bytes."""
    return FOUND["rows"][row]["collectives"].get(axis, {})


def test_the_table_is_that_of_the_stored_figures() -> None:
    """In its own file, and on the page."""
    table = meshes.markdown(FOUND)
    assert meshes.RESULTS.with_suffix(".md").read_text(encoding="utf-8") == table
    assert PAGE.endswith(table)


@pytest.mark.parametrize(("spread", "alone", "ways"), (("tensor_zero1", "tensor", 16), ("dp_zero1", "dp", 256)))
def test_the_state_is_spread(spread: str, alone: str, ways: int) -> None:
    """All of it, since every leaf can be divided, but for the counters."""
    assert FOUND["rows"][spread]["state"] <= FOUND["rows"][alone]["state"] / ways + 8


def test_gradients_are_scattered_and_parameters_gathered() -> None:
    """Beside reduce-scatters, the data axis has only all-reduces of small leaves; small parameters share a gather."""
    moved, leaves = along("tensor_zero1", "data"), FOUND["rows"]["tensor_zero1"]["parameters"]
    assert moved["reduce-scatter"][1] > leaves
    assert moved["all-reduce"][1] < 1.2e6
    assert moved["all-gather"][0] == 17  # of 29 leaves, 17 are large; the bucket of 12 is an all-reduce of 37 KB
    assert along("step_small_zero1", "data") == {"all-gather": [1, 4096000.0]}


def test_two_axes_take_reduce_scatters_only() -> None:
    """With `reduce_grads`, but for the bucket of small leaves, and with gathers along one axis after the other."""
    for axis in ("pod", "data"):
        moved = along("dp_zero1", axis)
        assert moved["reduce-scatter"][0] >= 17
        assert moved.get("all-reduce", (0, 0))[1] < 2e4
    assert {*along("dp_zero1", "pod and data")} <= {"scalars", "collective-permute"}


def test_sharded_steps_exchange_norms_alone() -> None:
    """One collective for a clip; none for stochastic rounding, whose draws each chip makes for itself."""
    assert FOUND["rows"]["step_clip_adamw"]["collectives"] == {"data": {"scalars": [1, 4.0]}}
    assert {*along("step_clip_lamb", "data")} == {*along("step_lamb", "data")} == {"scalars"}
    assert FOUND["rows"]["step_stochastic"]["collectives"] == {}
    assert FOUND["rows"]["step_stochastic"]["temporaries"] < FOUND["rows"]["step_stochastic"]["parameters"]


def test_codes_are_gathered_only_where_a_border_cuts_a_block() -> None:
    """None where blocks fit the shards, and GPT-2's embedding where they do not."""
    assert along("tensor_int8", "data").keys() == along("tensor", "data").keys()
    assert along("tensor_zero1_int8", "data")["all-gather"] == along("tensor_zero1", "data")["all-gather"]
    codes = 2 * 50257 * 768
    assert along("step_int8", "data")["all-gather"][1] <= 4.01 * codes
