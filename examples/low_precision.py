"""Train a character-level transformer with AdamW in ever fewer bytes, and measure the cost of each saving.

AdamW in float32 takes 12 bytes per parameter: 4 for the parameter and 4 for each moment. The parameters can be
kept in bfloat16, rounded in one of four ways (`cx.apply_update`), and the moments in 8 or 4 bits
(`cx.store`). Each variant trains the same network from the same initial parameters on the same batches, so the
losses can be compared seed by seed. The variants differ only in what is stored: the network computes in float32,
and gradients have the parameters' dtype.

Shows a progress bar, a table of held-out losses and bytes per parameter, a summary of the measured
losses, and the curves in ``low_precision.png``.

The network and the text are those of `transformer.py`, with 4 layers of width 128, 0.8 million parameters and 8
windows of 64 characters per step: small enough that 24 runs of 500 steps take about twenty minutes on two cores, large
enough that formats such as `int8` store all its matrices in blocks. The learning rate was chosen for float32 only, from
five: twice the rate ended 0.04 lower on average, but with seeds 0.13 apart, which would hide the cost of the
storage formats. Such short runs do not predict long ones.
"""

import argparse
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import chainax as cx
import jax
import numpy as np
import transformer
from arguments import at_least, picture
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformer import CONTEXT, HEADS, Text, initial_params, language_reference, windows

BATCH = 8  # windows of CONTEXT characters
RATE, DECAY = 2e-3, 0.1
POINTS = 10  # of a curve


# The optimizer, stored in eight ways


def ways(steps: int, rate: float = RATE) -> dict[str, tuple[str, cx.chain]]:
    """The parameters' dtype and the chain, by name. The first is the baseline."""
    schedule = cx.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps)
    adamw = cx.adamw(schedule, weight_decay=DECAY)

    def rounded(how: str) -> tuple[str, cx.chain]:
        return "bfloat16", cx.chain(adamw, cx.apply_update(how))

    return {
        "float32": ("float32", adamw),
        "bfloat16, nearest": ("bfloat16", adamw),
        "bfloat16, stochastic": rounded("stochastic"),
        "bfloat16, Kahan": rounded("kahan"),
        "bfloat16, ECC": rounded("ecc"),
        "state in int8": ("float32", cx.store(adamw, cx.int8())),
        "state in companded8": ("float32", cx.store(adamw, cx.companded8())),
        "state in int4": ("float32", cx.store(adamw, cx.int4())),
    }


# Training

loss = jax.jit(transformer.loss)
gradient = jax.jit(jax.grad(loss))


class Result(NamedTuple):
    """One variant: ``losses[seed, point]`` on the held-out text, after ``steps[point]`` steps."""

    name: str
    steps: np.ndarray
    losses: np.ndarray
    bytes: float  # per parameter, for parameters and optimizer state

    @property
    def final(self) -> np.ndarray:
        """The final loss of each seed."""
        return self.losses[:, -1]


def train(
    name: str, dtype: str, tx: cx.chain, text: Text, steps: int, seeds: int, size: tuple[int, int], tick: Callable
) -> Result:
    """Train once for each seed, which determines the initial parameters and the batches."""
    step, points = cx.make_step(tx), np.unique(np.linspace(0, steps, POINTS + 1).astype(int))
    losses, held = np.zeros((seeds, len(points))), 0.0
    for seed in range(seeds):
        start = initial_params(jax.random.key(seed), text.size, *size)
        params = jax.tree.map(lambda p: p.astype(dtype), start)
        state = tx.init(params)
        held = sum(x.nbytes for x in jax.tree.leaves((params, state))) / sum(p.size for p in jax.tree.leaves(params))
        rng = np.random.default_rng(seed)
        for done in range(steps + 1):
            if done in points:
                losses[seed, points == done] = loss(params, text.held_out)
            if done < steps:
                batch = windows(text.train, rng.integers(len(text.train) - CONTEXT, size=BATCH))
                params, state = step(params, state, gradient(params, batch))
                tick()
    return Result(name, points, losses, held)


# What the losses show


def over_seeds(x: np.ndarray, sign: str = "") -> str:
    """Mean and standard deviation."""
    return f"{x.mean():{sign}.4f} ± {x.std(ddof=1):.4f}"


def in_words(result: Result, base: Result) -> str:
    """Compare the losses with the baseline's, seed by seed, and with the spread of those between seeds."""
    change, spread = result.final - base.final, base.final.std(ddof=1)
    if np.all(change > 0) or np.all(change < 0):
        direction = f"{'worse' if change[0] > 0 else 'better'} with every seed"
    else:
        direction = "better or worse, depending on the seed"
    within = abs(change.mean()) <= spread
    return (
        f"{result.name}: {change.mean():+.4f}, {direction}; {'within' if within else 'beyond'} "
        f"the ±{spread:.4f} by which {base.name} differs between seeds."
    )


def table(results: Sequence[Result]) -> Table:
    """The table of losses and bytes."""
    base = results[0]
    shown = Table(title="held-out loss, nats a character, mean ± std over the seeds", show_edge=False)
    shown.add_column("what is not float32", no_wrap=True)
    shown.add_column("bytes a\nparameter", justify="right", no_wrap=True)
    shown.add_column("loss", justify="right", no_wrap=True)
    shown.add_column(f"less that of {base.name},\nseed by seed", justify="right", no_wrap=True)
    for result in results:
        change = "" if result is base else over_seeds(result.final - base.final, "+")
        shown.add_row(
            "nothing" if result is base else result.name, f"{result.bytes:.2f}", over_seeds(result.final), change
        )
    return shown


def draw(results: Sequence[Result], path: pathlib.Path) -> None:
    """The curves, and next to them their differences from the first."""
    base = results[0]
    fig = Figure(figsize=(11, 5), layout="constrained")
    curves, changes = fig.subplots(1, 2)
    for i, result in enumerate(results):
        style = {"color": f"C{i}", "ls": "-" if i < 5 else "--", "label": f"{result.name} ({result.bytes:.1f} bytes)"}
        curves.plot(result.steps, result.losses.mean(axis=0), **style)
        change = result.losses - base.losses
        if result is base:
            spread = base.losses.std(axis=0, ddof=1)
            changes.fill_between(
                result.steps, -spread, spread, color="0.9", label="±1 standard deviation between seeds"
            )
        changes.plot(result.steps, change.mean(axis=0), **style)
    curves.set_title("held-out loss")
    changes.set_title(f"less {base.name}'s, with the same seed")
    changes.set_yscale("symlog", linthresh=base.final.std(ddof=1), subs=range(2, 10))  # linear within the noise
    changes.yaxis.set_major_formatter(lambda change, _: f"{change:g}")
    curves.set_ylabel("nats a character")
    for ax in (curves, changes):
        ax.set_xlabel("steps of AdamW")
    handles, labels = changes.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3)
    fig.savefig(path, dpi=150)


# The command line


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options. An invalid one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=at_least(2), default=500, metavar="N", help="steps of each run")
    parser.add_argument("--seeds", type=at_least(2), default=3, metavar="N", help="runs of each way to store")
    parser.add_argument("--layers", type=at_least(1), default=4, metavar="N", help="layers of the network")
    parser.add_argument("--width", type=at_least(HEADS), default=128, metavar="N", help=f"a multiple of {HEADS}")
    parser.add_argument("--output", type=picture, default="low_precision.png", metavar="PATH", help="where to draw")
    chosen = parser.parse_args(arguments)
    if chosen.width % HEADS:
        parser.error(f"argument --width: must be a multiple of {HEADS}, got {chosen.width}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all variants, then summarize and plot the results."""
    chosen, console, began = options(arguments), Console(), time.perf_counter()
    text, all_ways, results = language_reference(), ways(chosen.steps), []
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(all_ways) * chosen.seeds * chosen.steps)
        for name, (dtype, tx) in all_ways.items():
            progress.update(task, description=f"{name:20}")
            size = chosen.layers, chosen.width
            tick = functools.partial(progress.advance, task)
            results.append(train(name, dtype, tx, text, chosen.steps, chosen.seeds, size, tick))

    console.print(table(results))
    print()
    for result in results[1:]:
        print(in_words(result, results[0]))
    draw(results, chosen.output)
    runs = len(all_ways) * chosen.seeds
    print(f"\n{runs} runs in {time.perf_counter() - began:.0f} s; picture: {chosen.output}")


if __name__ == "__main__":
    main()
