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
import matrices  # noqa: E402  # pyright: ignore[reportMissingImports]

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


def test_slices_are_read_and_not_what_they_are_of() -> None:
    """In one fusion with what is computed from them."""

    def f(x: Any) -> Any:
        return [jnp.sin(x[i * 1000 : (i + 1) * 1000]) for i in range(10)]

    module, _ = entry_of(f, jax.ShapeDtypeStruct((10000,), jnp.float32))
    assert module.traffic() == pytest.approx(2 * 40000, rel=0.05)


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


# Budgets, of the stored figures: all rows, in bytes per parameter

STORED = json.loads(aot.RESULTS.read_text(encoding="utf-8"))["rows"]
CELLS = [(row, device) for row, devices in STORED.items() for device in devices]

CODED = {
    f"{name}_{form}": floor - 1.95 * slots * (form == "int4")
    for name, slots, floor in (("adamw", 1, 16.07), ("lion", 0.5, 14.04))
    for form in ("int8", "companded8", "float8", "int4")
}
"""The rows with slots in codes, and the bytes that parameters, gradients, codes and scales are."""


def stored(workload: str, row: str, device: str, library: str = "chainax") -> dict[str, float]:
    """One cell of the tables."""
    return STORED[f"{workload} {row}"][device][library]


@pytest.mark.parametrize(("row", "device"), CELLS)
def test_no_step_takes_more_than_in_optax(row: str, device: str) -> None:
    """Traffic and temporaries; but a step that is one of several, on average over them."""
    facts = STORED[row][device]
    ours, theirs = facts["chainax"], facts.get("optax")
    if theirs is None or "packed" in row or row.endswith("adamw_bfloat16"):  # which does not store the same
        return
    if (row, device) == ("small lamb", "v5e"):  # Optax's leaves are all on the chip at once: 28 bytes, ours 32
        return
    some_steps = any(x in row for x in ("accumulate", "conditionally"))
    shares = {"idle": 0.75, "traffic": 0.25} if some_steps else {"traffic": 1.0}
    traffic, most = (sum(share * of[what] for what, share in shares.items()) for of in (ours, theirs))
    assert traffic <= most * 1.001
    assert ours["temporaries"] <= theirs["temporaries"] + 0.07
    if row.startswith("leaf"):  # of many leaves, the peak has what lies on a TPU's chip
        assert ours["peak"] <= theirs["peak"] * 1.002
    if not some_steps:  # a loop, and the counter of the steps, which not every optimizer has
        assert ours["kernels"] <= theirs["kernels"] + 1


@pytest.mark.parametrize("workload", ("leaf", "gpt2"))
@pytest.mark.parametrize("row", CODED)
def test_codes_take_one_pass_on_tpus(row: str, workload: str) -> None:
    """One kernel a leaf, which reads and writes each array once."""
    for device in aot.TPUS:
        if device in aot.DEVICES[workload]:
            ours = stored(workload, row, device)
            assert ours["temporaries"] <= 0.3
            assert ours["gathers"] == 0
            assert CODED[row] * 0.97 <= ours["traffic"] <= 1.02 * CODED[row]


@pytest.mark.parametrize("workload", ("leaf", "gpt2"))
@pytest.mark.parametrize("row", CODED)
def test_codes_take_two_passes_on_gpus(row: str, workload: str) -> None:
    """Without temporaries, but for int4: XLA does not write its bytes in place, which hold two codes each."""
    ours = stored(workload, row, "H100")
    assert ours["temporaries"] <= (1.1 if "int4" in row else 0.3)
    assert ours["gathers"] == 0
    assert ours["traffic"] <= 24


def test_eight_bits_save_memory() -> None:
    """The peak of GPT-2, against the same with slots in float32."""
    for row, most in (("adamw", 0.65), ("lion", 0.77)):
        for form in ("int8", "companded8", "float8"):
            for device in aot.DEVICES["gpt2"]:
                eight, wide = (stored("gpt2", name, device)["peak"] for name in (f"{row}_{form}", row))
                assert eight <= most * wide


@pytest.mark.parametrize("row", CODED)
def test_codes_are_not_gathered_on_several_chips(row: str) -> None:
    """But for the embedding, whose shards of 48 columns cut the blocks: its codes, and what its scales are made of."""
    ours = stored("gpt2_fsdp", row, "v5e")
    assert ours["arguments"] <= stored("gpt2", row, "v5e")["arguments"] + 0.5  # the embedding's scales are on each chip
    assert ours["all-gathers"] <= 6


def test_guards_and_narrow_numbers_are_at_the_floor() -> None:
    """The goals, whatever Optax does."""
    for device in aot.DEVICES["leaf"]:
        assert stored("leaf", "guard_clip_adamw", device)["traffic"] <= 33
        assert stored("leaf", "guard_adamw_int8", device)["temporaries"] <= (0.1 if device != "A100" else 10)
        for row, most in (("adamw_kahan", 27), ("adamw_bfloat16_slots", 21)):
            assert stored("leaf", row, device)["traffic"] <= most
            assert stored("leaf", row, device)["temporaries"] <= 0.01
    assert stored("eight", "adamw_offloaded", "v5e")["peak"] <= 12


# The same, compiled now

TRAFFIC = {
    "sgd": 12,
    "momentum": 20,
    "adamw": 28,
    "clip_adamw": 32,
    "guard_clip_adamw": 32,
    "lamb": 40,
    "adafactor": {"v5e": 24, "H100": 28.1},
    "adamw_bfloat16_slots": 20,
    "adamw_kahan": 26,
    "adamw_ecc": 24,
    "adamw_master": 30,
    "restart": 28,
    "adamw_int8": {"v5e": 16.06, "H100": 22.25},
    "adamw_float8": {"v5e": 16.06, "H100": 22.25},
    "lion_companded8": {"v5e": 14.03, "H100": 19.13},
    "lion_int4": {"v5e": 13.06, "H100": 18.75},
}
"""The bytes per parameter of a leaf of 32M: with few exceptions each array is read and written once."""


def measured_in_another_process(workload: str, device: str, rows: Iterable[str]) -> dict[str, Any]:
    """The facts of these rows, from a process that has the compilers."""
    if reason := aot.missing():
        pytest.skip(reason)
    code = (
        "import sys, json, aot; workload, device, *names = sys.argv[1:]; "
        "rows = {row.name: row for row in aot.all_rows()}; "
        "print(json.dumps({name: aot.measured(rows[name], workload, device, ['chainax']) for name in names}))"
    )
    command = [sys.executable, "-c", code, workload, device, *rows]
    made = subprocess.run(command, env=aot.environment(), cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize("device", ("v5e", "H100"))
def test_steps_are_at_the_floor(device: str) -> None:
    """No more traffic than the arrays themselves, and no temporaries."""
    for row, facts in measured_in_another_process("leaf", device, TRAFFIC).items():
        ours, most = facts["chainax"], TRAFFIC[row]
        floor = most[device] if isinstance(most, dict) else most
        assert (row, ours["temporaries"]) < (row, 0.6 if row == "lion_int4" and device == "H100" else 0.06)
        assert (row, ours["traffic"]) == (row, pytest.approx(floor, rel=2e-3))
        assert (row, ours["gathers"]) == (row, 0)


@pytest.mark.long
def test_offloaded_slots_take_the_memory_of_three_leaves() -> None:
    """8 bytes for parameters and gradients, and 1 for the slots of each of eight leaves, of which three are there."""
    found = measured_in_another_process("eight", "v5e", ["adamw_on_device", "adamw_offloaded"])
    here, away = found["adamw_on_device"]["chainax"], found["adamw_offloaded"]["chainax"]
    assert here["peak"] >= here["arguments"] == pytest.approx(16, rel=1e-3)
    assert away["arguments"] == pytest.approx(8, rel=1e-3)
    assert away["arguments"] + away["temporaries"] < 12
    assert away["peak"] < 12


# Muon, beside Optax

MATRICES = json.loads(matrices.RESULTS.read_text(encoding="utf-8"))
BUCKETS = 3
"""Shapes of matrices, turned ones apart where devices share them."""


def test_the_table_of_matrices_is_that_of_the_stored_figures() -> None:
    """As of the other tables, and all rows are there."""
    assert matrices.RESULTS.with_suffix(".md").read_text(encoding="utf-8") == matrices.markdown(MATRICES)
    assert MATRICES["rows"].keys() == matrices.ROWS.keys()


def check_shared(facts: dict[str, Any]) -> None:
    """Two all-to-alls a bucket bring the matrices to the devices and back, and nothing else moves."""
    assert {kind: count for kind, (count, _) in facts["collectives"].items()} == {"all-to-all": 2 * BUCKETS}
    one_bucket = 48 * 4 * 768 * 768
    assert facts["temporaries"] <= one_bucket


@pytest.mark.parametrize("row", ("v5e_over", "v5e_explicit"))
def test_matrices_are_shared_by_two_all_to_alls(row: str) -> None:
    """Where Optax gathers each matrix on every device."""
    facts, theirs = MATRICES["rows"][row], MATRICES["rows"]["v5e_optax"]
    check_shared(facts)
    assert theirs["collectives"]["all-gather"][0] > 400
    assert facts["seconds"] <= 0.4 * theirs["seconds"]
    assert facts["lines"] <= 0.15 * theirs["lines"]
    assert facts["temporaries"] <= theirs["temporaries"]


def test_replicated_parameters_are_gathered_once_a_bucket() -> None:
    """And nothing else moves, since each device has all gradients."""
    facts = MATRICES["rows"]["v5e_replicated"]
    assert {kind: count for kind, (count, _) in facts["collectives"].items()} == {"all-gather": BUCKETS}


def test_a_step_of_muon_on_a_cpu() -> None:
    """It compiles and takes half of Optax's time, and no more than a loop that was written for the purpose."""
    ours, loop, theirs = (MATRICES["rows"][f"cpu_{name}"] for name in ("chainax", "loop", "optax"))
    assert ours["seconds"] <= 0.65 * theirs["seconds"]
    assert ours["step"] <= 0.5 * theirs["step"]
    assert ours["step"] <= 1.05 * loop["step"]
    assert ours["lines"] <= 0.15 * theirs["lines"]
    assert ours["temporaries"] <= theirs["temporaries"]


@pytest.mark.long
def test_matrices_of_a_tpu_are_shared_now(tmp_path: pathlib.Path) -> None:
    """Compiled with this library, not stored."""
    if reason := aot.missing():
        pytest.skip(reason)
    path = tmp_path / "found.json"
    command = [sys.executable, str(BENCHMARKS / "matrices.py"), "--rows", "v5e_over", "--output", str(path)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    check_shared(json.loads(path.read_text(encoding="utf-8"))["rows"]["v5e_over"])
