"""The step of an optimizer in chainax, Optax and torch: time, memory traffic, and what compiling it takes.

Prints a table for each workload, and writes all of them to a JSON file and to a Markdown file beside it. Nothing is
timed before the libraries are seen to do the same work. ``benchmarks/README.md`` explains the columns.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import re
import sys
from collections.abc import Sequence
from typing import Any

import report
from measure import Disagreement, Options, about, settings, table
from recipes import RECIPES
from rich.console import Console
from workloads import DTYPES, LARGE, NAMES, workload

LIBRARIES = ("chainax", "optax", "torch")
RESULTS = pathlib.Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the options say; the exit status is 1 if the libraries disagree."""
    parser = _parser()
    given = parser.parse_args(argv)
    if given.output and given.output.suffix == ".md":
        parser.error("--output names the JSON file; the tables go into the .md file beside it")
    width = None if sys.stdout.isatty() else 230  # a file has no width, and the tables are wide
    console, progress = Console(width=width), Console(stderr=True)
    if given.markdown:
        tables = _write_tables(given.markdown, json.loads(given.markdown.read_text(encoding="utf-8")))
        console.print(f"Written to {tables}", soft_wrap=True)
        return 0
    # Three processes may share one GPU, so none may take all of its memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    options = Options(
        libraries=tuple(name for name in LIBRARIES if name in given.libraries),
        rounds=2 if given.quick else given.rounds,
        turn=0.01 if given.quick else 0.3,
        quick=given.quick,
        perturb=given.perturb,
        copied=2**20 if given.quick else 2**28,
    )

    def say(what: str) -> None:
        if progress.is_terminal:
            progress.print(f"[dim]{what}")

    machine = _machine() | about(options)
    path = given.output or _default_file(machine["device"], given.quick)
    results: dict[str, Any] = {"machine": machine, "tables": []}
    if path.exists() and not given.fresh:
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["machine"] != machine:
            progress.print(
                f"{path} is of another machine or other versions, {results['machine']} and not {machine}: "
                "give --fresh to begin it anew, or another --output",
                style="red",
                soft_wrap=True,
            )
            return 1
    recipes = [RECIPES[name] for name in given.recipes if name in RECIPES]
    try:
        for name in given.workloads if recipes else ():
            for dtype in given.dtypes:
                found = table(workload(name, given.quick), dtype, recipes, options, say)
                if not found["rows"]:
                    console.print(f"{found['title']}, {dtype}: {'; '.join(found['skipped'])}")
                    continue
                _merge(results["tables"], found)
                _write(path, results)
                console.print(report.rich_table(found, machine))
        if "settings" in given.recipes:
            results["settings"] = settings(options, say)
            _write(path, results)
            console.print(report.rich_settings(results["settings"]))
    except Disagreement as e:
        progress.print(f"Stopped: {e}", style="red", soft_wrap=True)
        return 1
    console.print(f"Written to {path} and {_tables_file(path).name}", soft_wrap=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [name for name in NAMES if name not in LARGE]
    add = parser.add_argument
    add("--workloads", nargs="+", choices=NAMES, default=default, help="default: all but 1b, which needs a large GPU")
    add("--recipes", nargs="+", choices=[*RECIPES, "settings"], default=[*RECIPES, "settings"], help="default: all")
    add("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="of the parameters (default: both)")
    add("--libraries", nargs="+", choices=LIBRARIES, default=LIBRARIES, help="the first one is the base of the ratios")
    add("--rounds", type=int, default=9, metavar="N", help="timed turns of each library, at least 2 (default: 9)")
    add("--output", type=pathlib.Path, metavar="FILE", help="JSON (default: benchmarks/results/<device>.json)")
    add("--fresh", action="store_true", help="begin the file anew, where its other rows would be kept")
    add("--quick", action="store_true", help="tiny sizes, hardly timed: to see whether the benchmark works")
    add("--perturb", choices=LIBRARIES, help="raise this library's learning rate by half, which must end the run")
    add("--markdown", type=pathlib.Path, metavar="FILE", help="measure nothing; write this JSON's tables again")
    return parser


def _machine() -> dict[str, str]:
    """The processor; a GPU's name takes its place later."""
    name = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE)):
        name = found[1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "device": f"{name}, {cores} cores",
        "cores": str(cores),
        "memory": f"{memory:.0f} GiB",
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _default_file(device: str, quick: bool) -> pathlib.Path:
    """Where results go: those of tiny sizes never among the others."""
    name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return RESULTS / f"{name}{'-quick' if quick else ''}.json"


def _merge(tables: list[dict[str, Any]], new: dict[str, Any]) -> None:
    """Put a table in: rows of a table that is there already are replaced one by one; the best copy of both counts."""
    for old in tables:
        if all(old[key] == new[key] for key in ("workload", "dtype", "quick")):
            names = {row["recipe"] for row in new["rows"]}
            kept = [row for row in old["rows"] if row["recipe"] not in names]
            order = list(RECIPES)
            rows = sorted(kept + new["rows"], key=lambda row: order.index(row["recipe"]))
            skipped = list(dict.fromkeys(old["skipped"] + new["skipped"]))
            bandwidth = max(old["copy_bandwidth"], new["copy_bandwidth"])
            old.update(new, rows=rows, skipped=skipped, copy_bandwidth=bandwidth)
            return
    tables.append(new)


def _write(path: pathlib.Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _write_tables(path, results)


def _write_tables(path: pathlib.Path, results: dict[str, Any]) -> pathlib.Path:
    """Write the results as Markdown beside their JSON, and say where."""
    tables = _tables_file(path)
    tables.write_text(report.markdown(results), encoding="utf-8")
    return tables


def _tables_file(path: pathlib.Path) -> pathlib.Path:
    return path.with_suffix(".md")


if __name__ == "__main__":
    sys.exit(main())
