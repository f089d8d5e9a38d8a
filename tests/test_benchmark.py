"""The benchmark measures what it says, and measures nothing unless the libraries agree. No time is tested."""

import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

pytest.importorskip("torch")
BENCHMARK = pathlib.Path(__file__).parent.parent / "benchmarks" / "step.py"
ALL = ("step", "step_quartiles", "ns_per_parameter", "floor_bytes_per_second", "state_bytes_per_parameter", "ratios")
COMPILED = (
    *("trace", "lower", "compile", "equations", "kernels", "copies"),
    *("hlo_bytes_per_parameter", "temporary_bytes_per_parameter"),
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The benchmark on 12 tiny leaves."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "--workloads", "gpt2", *arguments],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


def test_every_column_is_there_and_the_libraries_agree(tmp_path: pathlib.Path) -> None:
    """One table and the sweep, in JSON, on the terminal and as Markdown."""
    path = tmp_path / "results.json"
    done = run(
        *("--dtypes", "float32", "--output", str(path)),
        *("--recipes", "clip_adamw_groups", "clip_adamw_groups_packed", "lion", "adamw_int8", "settings"),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text(encoding="utf-8"))
    assert {"device", "chainax", "optax", "torch", "jax", "jaxlib", "python"} <= set(results["machine"])
    (table,) = results["tables"]
    row, packed, _, alone = table["rows"]
    kernels = [of["libraries"]["chainax"]["kernels"] for of in (packed, row)]
    assert kernels[0] < kernels[1]
    assert packed["libraries"]["optax"]["kernels"] == row["libraries"]["optax"]["kernels"]
    assert list(alone["libraries"]) == ["chainax"]
    assert "AdamW, int8 state: optax stores no state in 8 bits" in table["skipped"]
    assert "AdamW, int8 state: torch stores no state in 8 bits" in table["skipped"]
    assert list(row["libraries"]) == ["chainax", "optax", "torch"]
    assert row["agreement"]["moved"] > 1e-2  # or agreement would mean nothing
    for library, found in row["libraries"].items():
        assert 0 <= found["deviation"] <= row["agreement"]["tolerance"] == 1e-5
        assert set(ALL) <= set(found)
        assert found["state_bytes_per_parameter"] == pytest.approx(8, rel=0.01)
        assert (set(COMPILED) <= set(found)) == (library != "torch")
        assert found["step"] > 0
    assert row["libraries"]["chainax"]["ratios"]["step"] == 1
    assert list(results["settings"]["rows"]) == ["chainax", "optax", "optax_vmap", "torch"]
    assert "clip + AdamW, groups" in done.stdout
    tables = path.with_suffix(".md")
    written = tables.read_text(encoding="utf-8")
    tables.unlink()
    subprocess.run(
        [sys.executable, str(BENCHMARK), "--markdown", str(path)],
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert tables.read_text(encoding="utf-8") == written  # a run and --markdown write the same
    assert "| clip + AdamW, groups | chainax |" in written
    step = 1 / row["libraries"]["torch"]["ratios"]["step"]
    assert re.search(rf"\| GPT-2 small, float32 \| clip \+ AdamW, groups \| \d+\.\d\d \| {step:.2f} \|", written)
    assert results["machine"]["device"] in written
    path.write_text(json.dumps({**results, "machine": {**results["machine"], "jax": "0.0.1"}}), encoding="utf-8")
    refused = run("--output", str(path))
    assert refused.returncode == 1
    assert "is of another machine or other versions" in refused.stderr
    assert json.loads(path.read_text(encoding="utf-8"))["tables"] == results["tables"]


def test_a_row_joins_those_that_are_there(tmp_path: pathlib.Path) -> None:
    """Unless the file is to be begun anew. A recipe that is left out may come first."""
    path = tmp_path / "results.json"
    for recipe, *more in ("sgd",), ("momentum",), ("adamw", "--fresh"):
        options = ("--workloads", "leaf", "--dtypes", "float32", "--libraries", "chainax", *more)
        options += ("--recipes", "clip_adamw_groups", recipe)
        done = run(*options, "--output", str(path))
        assert done.returncode == 0, done.stderr
        (table,) = json.loads(path.read_text(encoding="utf-8"))["tables"]
        rows = [row["recipe"] for row in table["rows"]]
        assert rows == {"sgd": ["sgd"], "momentum": ["sgd", "momentum"], "adamw": ["adamw"]}[recipe]
        assert table["copy_bandwidth"] > 1e8


def test_tiny_sizes_have_a_file_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """They replace no results."""
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    step = importlib.import_module("step")
    files = [step._default_file("Some CPU (R), 2 cores", quick).name for quick in (False, True)]
    assert files == ["some-cpu-r-2-cores.json", "some-cpu-r-2-cores-quick.json"]


def test_stored_tables_are_those_of_the_stored_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is edited without the other."""
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    report = importlib.import_module("report")
    stored = [path for path in (BENCHMARK.parent / "results").glob("*.json") if not path.stem.endswith("-quick")]
    assert stored
    for path in stored:
        tables = report.markdown(json.loads(path.read_text(encoding="utf-8")))
        assert path.with_suffix(".md").read_text(encoding="utf-8") == tables


def test_kernels_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose result is a long tuple too, which XLA prints with comments in it."""
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    processes = importlib.import_module("processes")

    result = "(s32[], f32[3]{0}, f32[3]{0}, f32[3]{0}, f32[3]{0}, /*index=5*/f32[3]{0})"
    lines = (
        "%sum (p.1: f32[]) -> f32[] {",
        "  ROOT %add.0 = f32[] add(%p.1, %p.1)",
        "}",
        "",
        "ENTRY %main (p: f32[3]) -> f32[3] {",
        "  %p = f32[3]{0} parameter(0)",
        "  %double = f32[3]{0} fusion(%p), kind=kLoop, calls=%body",
        f"  %loop = {result} while(%double), condition=%c, body=%b",
        "  ROOT %last = f32[3]{0} get-tuple-element(%loop), index=5",
        "}",
    )
    assert processes.kernels("\n".join(lines) + "\n") == 2


@pytest.mark.parametrize("perturbed", ("chainax", "optax"))
def test_libraries_that_disagree_are_not_timed(perturbed: str, tmp_path: pathlib.Path) -> None:
    """A learning rate that is half as large again ends the run before anything is measured."""
    path = tmp_path / "results.json"
    options = ("--dtypes", "bfloat16", "--recipes", "adamw", "--libraries", "chainax", "optax")
    done = run(*options, "--perturb", perturbed, "--output", str(path))
    assert done.returncode == 1
    assert "they do not do the same work, so nothing is timed" in done.stderr
    assert "bfloat16, AdamW" in done.stderr
    assert not path.exists()


def test_merging_replaces_rows_and_keeps_what_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table measured in pieces reads like one that was not."""
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    step, report = importlib.import_module("step"), importlib.import_module("report")

    def table(bandwidth: float, skipped: list[str], **times: float) -> dict[str, Any]:
        rows = [{"recipe": name, "step": time} for name, time in times.items()]
        what = {"workload": "leaf", "dtype": "float32", "quick": False, "copy_bandwidth": bandwidth}
        return {**what, "rows": rows, "skipped": skipped}

    tables: list[dict[str, Any]] = []
    step._merge(tables, table(3.0, ["LAMB: torch has none", "Lion: torch has none"], sgd=1.0, lamb=1.0))
    step._merge(tables, table(2.0, ["Lion: torch has none", "AdamW: no reason"], adamw=2.0, lamb=2.0))
    (merged,) = tables
    assert [(row["recipe"], row["step"]) for row in merged["rows"]] == [("sgd", 1.0), ("adamw", 2.0), ("lamb", 2.0)]
    assert merged["copy_bandwidth"] == 3.0
    assert report._skipped(merged) == ["LAMB and Lion: torch has none", "AdamW: no reason"]


def test_compiling_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six times traced and lowered, three times compiled too, in turn; less if it takes long, once if nothing is."""
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    measure, recipes, workloads = (importlib.import_module(module) for module in ("measure", "recipes", "workloads"))
    work, now = workloads.workload("gpt2"), [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    class Crew(measure.Workers):
        def __init__(self, seconds: float, facts: dict[str, float]) -> None:
            self.seconds, self.facts, self.asked = seconds, facts, []

        def ask(self, name: str, method: str, *arguments: Any) -> Any:
            self.asked.append((name[0], method))
            now[0] += self.seconds
            return self.facts

    def asked(seconds: float, quick: bool = False, eager: bool = False) -> list[tuple[str, str]]:
        options = measure.Options(("chainax", "optax"), 9, 0.3, quick, None, 1)
        crew = Crew(seconds, {} if eager else {"lower": 1.0})
        measure._compiled(crew, work, recipes.RECIPES["adamw"], options, [])
        return crew.asked

    lower, compile_ = [("c", "lower"), ("o", "lower")], [("c", "compile"), ("o", "compile")]
    assert asked(0.1) == 6 * lower + 3 * compile_
    assert asked(4.0) == 3 * lower + 2 * compile_
    assert asked(0.1, quick=True) == asked(0.1, eager=True) == lower + compile_


@pytest.mark.parametrize(
    ("workload", "recipe", "reason"),
    (
        ("many", "adamw_int8", "fewer than 4096 numbers stay in float32"),
        ("leaf", "clip_adamw_groups", "there are none here"),
        ("gpt2", "adamw_int8", ""),
        ("gpt2", "clip_adamw_groups", ""),
        ("leaf", "adamw_packed", "no two leaves of up to 16384 numbers have one shape"),
        ("lora", "clip_adamw_packed", "no two leaves of up to 16384 numbers have one shape"),
        ("convnet", "adamw_packed", ""),
    ),
)
def test_recipes_that_change_nothing_are_left_out(
    workload: str, recipe: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8-bit state where every leaf is too short for it, exempt leaves where there are none."""
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    measure, recipes, workloads = (importlib.import_module(module) for module in ("measure", "recipes", "workloads"))
    said = measure._senseless(workloads.workload(workload), recipes.RECIPES[recipe], quick=False)
    assert reason in said
    assert bool(said) == bool(reason)


@pytest.mark.parametrize(("name", "most"), (("adamw", 8.0), ("adamw_int8", 2.1), ("adamw_companded8", 2.1)))
def test_recipes_store_what_their_titles_say(name: str, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of state a parameter on GPT-2, whose leaves are long enough for blocks as the quick ones are not."""
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    recipes, workloads = (importlib.import_module(module) for module in ("recipes", "workloads"))
    work = workloads.workload("gpt2")
    tx = recipes.in_chainax(recipes.RECIPES[name], 1e-2, work.max_norm)
    params = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in work.shapes.items()}
    state = jax.eval_shape(tx.init, params)
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / work.size
    assert 0.95 * most < held < 1.001 * most
