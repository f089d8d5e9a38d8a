"""One process a library, told in turn what to do: A B C A B C ..., so that the machine's moods hit all alike."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import chainax as cx
import numpy as np
import sweep
from processes import serve
from recipes import EXEMPT, STORED, Recipe
from workloads import DTYPES, Workload, workload

# Powers of two are exact in every dtype. The changes of size and sign tell one moment's decay from another's.
FACTORS = (1.0, 0.5, 2.0, -0.5, 1.0, 4.0, -1.0, 0.25, 2.0, 1.0)
TOLERANCES = {"float32": 1e-5, "bfloat16": 4 * 2.0**-8}  # of a leaf's largest parameter; 4 units in the last place
MOVED = 3  # tolerances that every leaf must move at the least, or the check would see nothing
TIMES = ("trace", "lower", "trace_and_lower", "compile")  # of which a median is taken


class Disagreement(Exception):
    """The libraries do not do the same work."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How long to measure."""

    libraries: tuple[str, ...]
    rounds: int
    turn: float  # seconds
    quick: bool
    perturb: str | None
    copied: int  # bytes


class Workers:
    """The libraries' processes."""

    def __init__(self, pipes: dict[str, Any]) -> None:
        self.pipes = pipes

    def ask(self, name: str, method: str, *arguments: Any) -> Any:
        """What the worker answers. Raises ``RuntimeError`` with its traceback, or ``LookupError`` for `Missing`."""
        self.pipes[name].send((method, *arguments))
        error, answer = self.pipes[name].recv()
        if error is not None:
            kind, message, trace = error
            raise LookupError(message) if kind == "Missing" else RuntimeError(f"{name}: {message}\n{trace}")
        return answer

    def rounds(self, names: Sequence[str], times: int, method: str, *arguments: Any) -> dict[str, list[Any]]:
        """Ask all in turn, so many times."""
        answers: dict[str, list[Any]] = {name: [] for name in names}
        for _ in range(times):
            for name in names:
                answers[name].append(self.ask(name, method, *arguments))
        return answers


@contextmanager
def workers(options: Options, work: Workload, dtype: str) -> Iterator[Workers]:
    """A fresh process for each library, ended with the block."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    try:
        for name in options.libraries:
            pipes[name], other = context.Pipe()
            process = context.Process(target=serve, args=(other, name, work, dtype, name == options.perturb))
            process.start()
            other.close()  # so that a worker that dies is seen as the end of the file
            processes.append(process)
        yield Workers(pipes)
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join(timeout=30)
            if process.is_alive():
                process.kill()


def about(options: Options) -> dict[str, str]:
    """Versions of everything; the device too, unless it is the CPU."""
    names = {*options.libraries, "jax", "jaxlib"}
    one = dataclasses.replace(options, libraries=options.libraries[:1])
    with workers(one, workload("many", quick=True), "float32") as crew:
        device = crew.ask(one.libraries[0], "device")
    versions = {name: cx.__version__ if name == "chainax" else version(name) for name in sorted(names)}
    return versions | ({"device": device} if device else {})


def table(
    work: Workload, dtype: str, recipes: Sequence[Recipe], options: Options, say: Callable[[str], None]
) -> dict[str, Any]:
    """All recipes on one workload."""
    with workers(options, work, dtype) as crew:
        bandwidth, rows, skipped = 0.0, [], []
        for recipe in recipes:
            say(f"{work.title}, {dtype}: {recipe.title}")
            if compiled := _compiled(crew, work, recipe, options, skipped):
                rows.append(_row(crew, compiled, work, dtype, recipe, options))
            copied = crew.rounds(options.libraries, 1, "copy", options.copied)
            bandwidth = max(bandwidth, *(max(answers) for answers in copied.values()))
    return {
        "workload": work.name,
        "title": work.title,
        "dtype": dtype,
        "quick": options.quick,
        "leaves": len(work.shapes),
        "parameters": work.size,
        "copy_bandwidth": bandwidth,
        "rows": rows,
        "skipped": skipped,
    }


def _compiled(
    crew: Workers, work: Workload, recipe: Recipe, options: Options, skipped: list[str]
) -> dict[str, list[dict[str, float]]]:
    """What compiling took and gave, by library, in turn.

    Six times only traced and lowered, and three times compiled too, or as often as begins within 10 seconds each.
    Nothing if no leaf feels the recipe, or chainax is asked for and has it not.
    """
    if reason := _senseless(work, recipe, options.quick):
        skipped.append(f"{recipe.title}: {reason}")
        return {}
    compiled: dict[str, list[dict[str, float]]] = {}
    for name in options.libraries:
        try:
            compiled[name] = [crew.ask(name, "lower", recipe.name)]
        except LookupError as e:
            skipped.append(f"{recipe.title}: {e.args[0]}")
            if name == "chainax":
                return {}
    again = not options.quick and any(first for (first,) in compiled.values())
    for method, times in (("lower", 5 * again), ("compile", 3 if again else 1)):
        start = time.perf_counter()
        for i in range(times):
            if i and time.perf_counter() - start > 10:
                break
            for name, answers in crew.rounds(list(compiled), 1, method, recipe.name).items():
                compiled[name] += answers
    return compiled


def _senseless(work: Workload, recipe: Recipe, quick: bool) -> str:
    """Why the recipe would be the same as another one on this workload; empty if it is not.

    The leaves of ``quick`` workloads are all short: there 8-bit recipes are only tried.
    """
    if recipe.optimizer == "clip_adamw_groups" and not any(re.search(EXEMPT, path) for path in work.shapes):
        return "there are none here"
    if recipe.optimizer in STORED and not quick:
        least = getattr(cx, STORED[recipe.optimizer])().min_size
        if max(map(math.prod, work.shapes.values())) < least:
            return f"leaves of fewer than {least} numbers stay in float32"
    if recipe.packed:
        most = cx.pack(cx.scale(1.0)).max_size
        small = [shape for shape in work.shapes.values() if math.prod(shape) <= most]
        if len(small) == len(set(small)):
            return f"no two leaves of up to {most} numbers have one shape"
    return ""


def _row(
    crew: Workers,
    compiled: dict[str, list[dict[str, float]]],
    work: Workload,
    dtype: str,
    recipe: Recipe,
    options: Options,
) -> dict[str, Any]:
    names = list(compiled)
    agreement = _agreement(crew, names, work, dtype, recipe)
    for name in names:
        crew.ask(name, "stop")
    facts = {name: crew.ask(name, "start", recipe.name, options.turn) for name in names}
    rounds = max(2, options.rounds // 2) if recipe.eager else options.rounds
    seconds = crew.rounds(names, rounds, "turn")
    for name in names:
        crew.ask(name, "stop")
    itemsize = DTYPES[dtype].itemsize
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        state = facts[name]["state_bytes"] / work.size
        floor = (2 + recipe.reads) * itemsize + 2 * state
        step = statistics.median(seconds[name])
        result = {
            "step": step,
            "step_quartiles": _quartiles(seconds[name]),
            "ns_per_parameter": 1e9 * step / work.size,
            "deviation": agreement["deviation"][name],
            "state_bytes_per_parameter": state,
            "floor_bytes_per_parameter": floor,
            "floor_bytes_per_second": floor * work.size / step,
        }
        for column, last in compiled[name][-1].items():
            times = [once[column] for once in compiled[name] if column in once]
            result[column] = statistics.median(times) if column in TIMES else last
        if "hlo_bytes" in result:
            result["hlo_bytes_per_parameter"] = result.pop("hlo_bytes") / work.size
            result["temporary_bytes_per_parameter"] = result.pop("temporary_bytes") / work.size
        results[name] = result
    for name in names:
        results[name]["ratios"] = _ratios(names[0], name, seconds, results)
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "rounds": rounds,
        "agreement": agreement,
        "base": names[0],
        "libraries": results,
    }


def _ratios(base: str, name: str, seconds: dict[str, list[float]], results: dict[str, dict[str, Any]]) -> dict:
    """To the base, chainax. Of step times: the quartiles of the ratios within one round, where moods are alike."""
    steps = [mine / its for mine, its in zip(seconds[name], seconds[base])]
    ratios: dict[str, Any] = {"step": statistics.median(steps), "step_quartiles": _quartiles(steps)}
    for column in ("trace_and_lower", "compile"):
        if column in results[name] and column in results[base]:
            ratios[column] = results[name][column] / results[base][column]
    return ratios


def _agreement(crew: Workers, names: list[str], work: Workload, dtype: str, recipe: Recipe) -> dict[str, Any]:
    """Compare the parameters after ten steps, all of them, with a float32 run; raise unless all libraries agree.

    That run is Optax's where it is among the libraries. For float32 it is Optax's own.
    """
    for name in names:
        crew.ask(name, "run", recipe.name, FACTORS, dtype, "own")
    judge = "optax" if "optax" in names else names[0]
    tolerance = TOLERANCES[dtype]
    kept = "own"
    if dtype != "float32":
        # From the same start: the float32 run of a bfloat16 workload begins with the rounded numbers.
        crew.ask(judge, "run", recipe.name, FACTORS, f"{dtype} in float32", kept := "judge")
    deviation = dict.fromkeys(names, 0.0)
    moved = float("inf")
    for path in work.shapes:
        truth = crew.ask(judge, "leaf", kept, path)
        size = np.abs(truth).max()
        start = work.parameter(path, dtype).astype(np.float32)
        moved = min(moved, float(np.abs(truth - start).max() / size))
        for name in names:
            error = np.abs(crew.ask(name, "leaf", "own", path) - truth).max() / size
            if not error <= tolerance:
                raise Disagreement(
                    f"{work.title}, {dtype}, {recipe.title}: after {len(FACTORS)} steps {name} and {judge} in float32 "
                    f"differ at {path!r} by {error:.2g} of the largest parameter (tolerance {tolerance:.2g}): "
                    "they do not do the same work, so nothing is timed"
                )
            deviation[name] = max(deviation[name], float(error))
    if moved < MOVED * tolerance:
        raise Disagreement(f"{recipe.title} moves the parameters by {moved:.2g}: too little to compare libraries by")
    return {"judge": judge, "steps": len(FACTORS), "tolerance": tolerance, "moved": moved, "deviation": deviation}


def settings(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """The end-to-end sweep over hyperparameters."""
    points, steps = (sweep.POINTS[::32], 3) if options.quick else (sweep.POINTS, sweep.STEPS)
    ways = {how: name for how, (name, _) in sweep.WAYS.items() if name in options.libraries}
    seconds: dict[str, list[float]] = {how: [] for how in ways}
    losses: dict[str, np.ndarray] = {}
    with workers(options, workload("many", quick=True), "float32") as crew:
        for how, name in ways.items():  # to import everything, which is not counted
            crew.ask(name, "sweep", how, [points[0], points[-1]], 2)
        begin = time.perf_counter()
        while len(seconds[base := next(iter(ways))]) < 3 and (not seconds[base] or time.perf_counter() - begin < 60):
            for how, name in ways.items():
                say(f"{len(points)} settings: {how}")
                once, last = crew.ask(name, "sweep", how, points, steps)
                seconds[how].append(once)
                losses[how] = np.array(last)
            if options.quick:
                break
    for how, mine in losses.items():
        error = float(np.max(np.abs(mine - losses[base]) / losses[base]))
        if not error <= sweep.TOLERANCE:
            raise Disagreement(f"{len(points)} settings: the last losses of {how} and {base} differ by {error:.2g}")
    median = {how: statistics.median(times) for how, times in seconds.items()}
    return {
        "settings": len(points),
        "steps": steps,
        "quick": options.quick,
        "base": base,
        "tolerance": sweep.TOLERANCE,
        "rows": {
            how: {"way": sweep.WAYS[how][1], "seconds": s, "range": _range(seconds[how]), "ratio": s / median[base]}
            for how, s in median.items()
        },
    }


def _quartiles(x: list[float]) -> list[float]:
    low, _, high = statistics.quantiles(x, n=4, method="inclusive")
    return [low, high]


def _range(x: list[float]) -> list[float]:
    return [min(x), max(x)]
