"""What was measured, as tables for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

COLUMNS = (
    "recipe",
    "library",
    "step ms",
    "× base",
    "(quartiles)",
    "ns/param",
    "trace s",
    "lower s",
    "× base",
    "compile s",
    "× base",
    "eqns",
    "kernels",
    "copies",
    "B/param",
    "temp B",
    "state B",
    "floor B",
    "% of copy",
    "deviation",
)
Row = list[str]


def rows(table: dict[str, Any]) -> Iterator[Row]:
    """The cells of one workload's table."""
    for row in table["rows"]:
        for i, (library, r) in enumerate(row["libraries"].items()):
            ratios = r["ratios"]
            low, high = ratios["step_quartiles"]
            yield [
                "" if i else row["title"],
                library,
                _cell(1e3 * r["step"]),
                f"{ratios['step']:.2f}",
                "" if i == 0 else f"{low:.2f}-{high:.2f}",
                _cell(r["ns_per_parameter"]),
                _cell(r.get("trace")),
                _cell(r.get("lower")),
                _cell(ratios.get("trace_and_lower")),
                _cell(r.get("compile")),
                _cell(ratios.get("compile")),
                _whole(r.get("equations")),
                _whole(r.get("kernels")),
                _whole(r.get("copies")),
                _cell(r.get("hlo_bytes_per_parameter")),
                _cell(r.get("temporary_bytes_per_parameter")),
                _cell(r["state_bytes_per_parameter"]),
                _cell(r["floor_bytes_per_parameter"]),
                f"{100 * r['floor_bytes_per_second'] / table['copy_bandwidth']:.0f}",
                f"{r['deviation']:.0e}",
            ]


ABOUT = """\
`benchmarks/step.py` writes this file together with the JSON file of the same name: change neither by hand. \
[The benchmark's README](../README.md) says how the numbers were measured and what the columns mean."""
SHARES = ["workload", "recipe", "step / Optax", "step / torch", "trace + lower", "compile", "B/param / Optax"]


def _shares(tables: list[dict[str, Any]]) -> Iterator[Row]:
    """The summary: chainax over each of the others, so that less is better."""
    for table in tables:
        for i, row in enumerate(table["rows"]):
            found = row["libraries"]
            if row["base"] != "chainax" or "optax" not in found:
                continue
            ratios = found["optax"]["ratios"]
            yield [
                "" if i else f"{table['title']}, {table['dtype']}",
                row["title"],
                _share(ratios["step"]),
                _share(found["torch"]["ratios"]["step"] if "torch" in found else None),
                _share(ratios.get("trace_and_lower")),
                _share(ratios.get("compile")),
                _share(found["optax"].get("hlo_bytes_per_parameter"), found["chainax"].get("hlo_bytes_per_parameter")),
            ]


def _share(theirs: float | None, ours: float | None = 1.0) -> str:
    return "-" if theirs is None or ours is None else f"{ours / theirs:.2f}"


def _skipped(table: dict[str, Any]) -> list[str]:
    """Why recipes were left out, each reason once."""
    recipes: dict[str, list[str]] = {}
    for entry in table["skipped"]:
        recipe, _, reason = entry.partition(": ")
        recipes.setdefault(reason, []).append(recipe)
    return [f"{' and '.join(names)}: {reason}" for reason, names in recipes.items()]


def title(table: dict[str, Any], machine: dict[str, str]) -> str:
    """What stands over one workload's table."""
    leaves = "1 leaf" if table["leaves"] == 1 else f"{table['leaves']} leaves"
    return (
        f"{table['title']}, {table['dtype']}: {table['parameters']:,} parameters in {leaves}; "
        f"{machine['device']}, copying {table['copy_bandwidth'] / 1e9:.1f} GB/s"
    )


def versions(machine: dict[str, str]) -> str:
    """The libraries' versions in a line."""
    names = ("chainax", "optax", "torch", "jax", "jaxlib")
    return ", ".join(f"{name} {machine[name]}" for name in names if name in machine)


def rich_table(table: dict[str, Any], machine: dict[str, str]) -> Table:
    """One workload for the terminal."""
    base = table["rows"][0]["base"] if table["rows"] else "base"
    heading = f"{title(table, machine)}; {versions(machine)}"
    out = Table(title=heading, caption="\n".join(_skipped(table)), title_justify="left", caption_justify="left")
    for i, column in enumerate(COLUMNS):
        out.add_column(column.replace("base", base), justify="left" if i < 2 else "right")
    for row in rows(table):
        out.add_row(*row)
    return out


def rich_settings(found: dict[str, Any]) -> Table:
    """The sweep for the terminal."""
    out = Table(title=settings_title(found))
    for column in ("library", "how", "seconds", "range", f"× {found['base']}"):
        out.add_column(column)
    for row in _settings_rows(found):
        out.add_row(*row)
    return out


def settings_title(found: dict[str, Any]) -> str:
    """What stands over the sweep."""
    return f"{found['settings']} settings of AdamW, {found['steps']} steps each, end to end with compilation"


def _settings_rows(found: dict[str, Any]) -> Iterator[Row]:
    for how, r in found["rows"].items():
        low, high = r["range"]
        yield [how.split("_")[0], r["way"], _cell(r["seconds"]), f"{low:.3g}-{high:.3g}", f"{r['ratio']:.2f}"]


def markdown(results: dict[str, Any]) -> str:
    """Everything, as a file of its own."""
    machine, parts = results["machine"], [f"# Benchmark tables: {results['machine']['device']}", ABOUT]
    parts.append(f"{versions(machine)}; {machine['cores']} cores, {machine['memory']} of memory.")
    if shares := list(_shares(results["tables"])):
        parts.append("## chainax relative to Optax and torch")
        parts.append(
            "chainax divided by the other library: below 1, chainax takes less. "
            "Tracing with lowering, and compiling, are relative to Optax."
        )
        parts.append(_markdown_table(SHARES, shares, left=2))
    for table in results["tables"]:
        parts.append(f"## {title(table, machine)}")
        base = table["rows"][0]["base"] if table["rows"] else "base"
        head = [column.replace("base", base) for column in COLUMNS]
        parts.append(_markdown_table(head, list(rows(table)), left=2))
        parts += [f"Left out: {'; '.join(_skipped(table))}."] * bool(table["skipped"])
    if found := results.get("settings"):
        parts.append(f"## {settings_title(found)}")
        head = ["library", "how", "seconds", "range", f"× {found['base']}"]
        parts.append(_markdown_table(head, list(_settings_rows(found)), left=2))
    return "\n\n".join(parts) + "\n"


def _markdown_table(head: Row, body: list[Row], left: int) -> str:
    rule = ["---" if i < left else "--:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *body])


def _cell(x: float | None) -> str:
    """Three digits, or a dash."""
    if x is None:
        return "-"
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"


def _whole(x: float | None) -> str:
    return "-" if x is None else f"{x:.0f}"
