"""What the compilers for TPUs and GPUs make of a step: budgets of memory, traffic and kernels. Nothing is executed."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import aot  # noqa: E402  # pyright: ignore[reportMissingImports]
import hlo  # noqa: E402  # pyright: ignore[reportMissingImports]

N = 512 * 1024
PARAMS = {"w": jax.ShapeDtypeStruct((512, 1024), jnp.float32)}


def entry_of(f: Any, *arguments: Any) -> tuple[hlo.Module, float]:
    """A function compiled for this machine: what is read from its text, and the traffic that XLA itself counts."""
    made = jax.jit(f).lower(*arguments).compile()
    costs: Any = made.cost_analysis()
    return hlo.Module(made.as_text()), costs["bytes accessed"]


@pytest.mark.parametrize("tx", (cx.sgd(0.1), cx.adamw(1e-3), cx.chain(cx.clip_by_global_norm(1.0), cx.adamw(1e-3))))
def test_traffic_is_what_xla_counts(tx: Any) -> None:
    """For steps without loops and conditions, whose bytes XLA's own analysis counts too."""
    module, bytes_accessed = entry_of(tx.step, PARAMS, jax.eval_shape(tx.init, PARAMS), PARAMS)
    assert module.traffic() == pytest.approx(bytes_accessed, rel=1e-3)
    assert module.traffic() > 3 * 4 * N


def test_stored_tables_are_those_of_the_stored_figures() -> None:
    """Neither is edited without the other."""
    found = json.loads(aot.RESULTS.read_text(encoding="utf-8"))
    assert aot.RESULTS.with_suffix(".md").read_text(encoding="utf-8") == aot.markdown(found)


def test_kernels_of_loops_and_conditions() -> None:
    """A loop's as often as it turns, and a condition's longer branch."""

    def looped(x: Any) -> Any:
        return jax.lax.fori_loop(0, 7, lambda i, x: jnp.sort(x + i), x)

    def conditional(x: Any) -> Any:
        return jax.lax.cond(x[0] > 0, lambda x: jnp.sort(jnp.sort(x) * x[::-1]), jnp.negative, x)

    x = jax.ShapeDtypeStruct((1000,), jnp.float32)
    once, _ = entry_of(lambda x: jnp.sort(x + 1), x)
    seven, _ = entry_of(looped, x)
    longer, _ = entry_of(conditional, x)
    assert once.count("sort") == 1
    assert seven.kernels() >= 7 * once.kernels() > 0
    assert longer.kernels() > once.kernels()
    assert longer.idle_traffic() < longer.traffic()
    assert once.idle_traffic() == once.traffic()


# On the devices

TRAFFIC = {
    "sgd": 12,
    "momentum": 20,
    "adamw": 28,
    "clip_adamw": 32,
    "adamw_bfloat16_slots": 20,
    "adamw_kahan": 26,
    "adamw_ecc": 24,
    "adamw_master": 30,
}
"""The floor, in bytes a parameter: each array is read and written once, and a gradient twice for its norm."""


def measured_in_another_process(workload: str, device: str, rows: Iterable[str]) -> dict[str, Any]:
    """The facts of these rows, from a process that has the compilers."""
    if reason := aot.missing():
        pytest.skip(reason)
    code = (
        "import sys, json, aot; workload, device, *names = sys.argv[1:]; "
        "rows = {row.name: row for row in aot.all_rows()}; "
        "print(json.dumps({name: aot.measured(rows[name], workload, device) for name in names}))"
    )
    command = [sys.executable, "-c", code, workload, device, *rows]
    made = subprocess.run(command, env=aot.environment(), cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize("device", ("v5e", "H100"))
def test_steps_are_at_the_floor(device: str) -> None:
    """No temporaries, and no more traffic than the arrays themselves; nor more than Optax's step."""
    found = measured_in_another_process("leaf", device, [*TRAFFIC, "guard_clip_adamw", "lamb", "adafactor"])
    for row, facts in found.items():
        ours, theirs = facts["chainax"], facts.get("optax", facts["chainax"])
        assert (row, ours["temporaries"]) < (row, 0.03)
        assert (row, ours["traffic"]) == (row, pytest.approx(TRAFFIC.get(row, ours["traffic"]), rel=1e-3))
        assert (row, ours["gathers"]) == (row, 0)
        assert (row, ours["traffic"]) <= (row, theirs["traffic"] * 1.0001)
        assert (row, ours["peak"]) <= (row, theirs["peak"] * 1.0001)


@pytest.mark.long
def test_offloaded_slots_take_the_memory_of_three_leaves() -> None:
    """8 bytes for parameters and gradients, and 1 for the slots of each of eight leaves, of which three are there."""
    found = measured_in_another_process("eight", "v5e", ["adamw_on_device", "adamw_offloaded"])
    here, away = found["adamw_on_device"]["chainax"], found["adamw_offloaded"]["chainax"]
    assert here["peak"] >= here["arguments"] == pytest.approx(16, rel=1e-3)
    assert away["arguments"] == pytest.approx(8, rel=1e-3)
    assert away["arguments"] + away["temporaries"] < 12
    assert away["peak"] < 12


@pytest.mark.long
@pytest.mark.parametrize("workload", ("gpt2", "gpt2_fsdp", "gpt2_tensor"))
def test_norms_of_leaves_cost_no_more_than_in_optax(workload: str) -> None:
    """LAMB and Adafactor pass over a leaf several times: the whole GPT-2, and the part of it that a chip has."""
    found = measured_in_another_process(workload, "v5e", ["lamb", "adafactor"])
    for row, facts in found.items():
        assert (row, facts["chainax"]["traffic"]) <= (row, facts["optax"]["traffic"])


@pytest.mark.parametrize("device", ("v5e", "H100"))
def test_conditional_steps_copy_nothing(device: str) -> None:
    """And move less than Optax's, which do the same work at every step: ours take the longer branch at one in four."""
    rows = ("accumulate", "conditionally_mask", "conditionally_transform", "restart", "schedule_free_adamw")
    found = measured_in_another_process("leaf", device, (*rows, "guarded_schedule_free"))
    for row, facts in found.items():
        ours, theirs = facts["chainax"], facts.get("optax", facts["chainax"])
        assert (row, ours["temporaries"]) < (row, 0.03)
        assert (row, ours["peak"]) <= (row, theirs["peak"] * 1.0001)
        assert (row, (3 * ours["idle"] + ours["traffic"]) / 4) <= (row, theirs["traffic"] * 1.0001)
    assert found["accumulate"]["chainax"]["idle"] == pytest.approx(16, rel=1e-3)
