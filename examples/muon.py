"""Train a small transformer with AdamW, Muon and SOAP, and measure what the order of the links does to Muon.

AdamW divides each number of the gradient by its size; Muon and SOAP treat each matrix as a whole. They do so for the
hidden matrices only: embeddings, norms and the head have AdamW, by path. The layers of the network are stacked in one
array, and queries, keys and values are parts of another, so the words in `transformer.MATRICES` say where they are.

Each optimizer is tuned on one seed, by `cx.sweep` over the same learning rates and two decay rates of its own, and its
best setting is trained from other seeds, which determine the initial parameters and the batches. The second table has
Muon's best setting with its links in other orders, from the same seeds: the weight decay before Muon (coupled) instead
of behind it (decoupled), and a clip before and behind it.

Prints both tables, and draws the curves and the learning rates in ``muon.png``. The network (`transformer.py`) has 3
layers of width 64 and 165 thousand parameters, and sees 8 windows of 64 characters per step. All parameters have one
learning rate: with a rate of its own for the embeddings and the head, AdamW ended 0.05 lower (from one seed, 0.002 and
0.018), which closes a quarter of the gap. In such short runs an optimizer is good if it leaves the start quickly,
which says little about large networks and long runs.
"""

import argparse
import functools
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
from arguments import at_least, picture
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from transformer import (
    MATRICES,
    OTHERS,
    Text,
    initial_params,
    language_reference,
    loss,
    loss_and_accuracy,
    random_batch,
)

LAYERS, WIDTH, BATCH = 3, 64, 8
RATES, DECAY, CLIP = (2e-3, 5.4e-2), 0.1, 1.0
POINTS = 10  # of a curve


# The optimizers: functions of a schedule and of the decay rate of a moving average


def adamw(rate: cx.Schedule, b2: float) -> cx.chain:
    """AdamW for all parameters. As in the others, only hidden matrices decay."""
    return cx.adamw(rate, b2=b2, weight_decay=cx.by_path({OTHERS: 0.0}, default=DECAY))


def muon(rate: cx.Schedule, momentum: float) -> cx.chain:
    """Muon, with updates of AdamW's size, so that one learning rate serves both."""
    others = cx.by_path({OTHERS: cx.adamw(rate, b2=0.95, weight_decay=None)})
    return cx.muon(rate, momentum=momentum, weight_decay=DECAY, sizing="rms", matrices=MATRICES, adam=others)


def soap(rate: cx.Schedule, b2: float) -> cx.chain:
    """SOAP, which is Adam in the eigenbases of Shampoo's statistics."""
    others = cx.by_path({OTHERS: cx.adamw(rate, b2=0.95, weight_decay=None)})
    return cx.soap(rate, b2=b2, weight_decay=DECAY, matrices=MATRICES, adam=others)


CANDIDATES: dict[str, tuple[Callable[[cx.Schedule, float], cx.chain], tuple[float, float]]] = {
    "AdamW": (adamw, (0.95, 0.99)),
    "Muon": (muon, (0.9, 0.95)),
    "SOAP": (soap, (0.95, 0.99)),
}


def orders(tx: cx.chain) -> dict[str, cx.chain]:
    """Muon with its links in other orders."""
    muon, decay = "partition/default/scale_by_muon", "partition/default/add_decayed_weights"
    clip = cx.clip_by_global_norm(CLIP)
    small = tx.replace(decay, weight_decay=DECAY / 100)
    with warnings.catch_warnings():  # about the last one: Muon's updates all have the same norm
        warnings.simplefilter("ignore", cx.ChainWarning)
        return {
            f"λ = {DECAY} before Muon": tx.move(decay, before=muon),
            f"λ = {DECAY / 100} before Muon": small.move(decay, before=muon),
            f"clip to {CLIP} before Muon": tx.insert(clip, before=muon),
            f"clip to {CLIP} behind Muon": tx.insert(clip, after=muon),
        }


# Training


def schedule(rate: float, steps: int) -> cx.Schedule:
    """A warm-up over a tenth of the steps, and a cosine to 0."""
    return cx.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps)


@functools.partial(jax.jit, static_argnames=("size", "steps"))
def start(seed: int, text: jax.Array, size: int, steps: int) -> tuple[Any, jax.Array]:
    """The initial parameters and the batches of a run: ``[point, step, window, character]``."""
    keys = jax.random.split(jax.random.key(seed), 1 + steps)
    batches = jax.vmap(random_batch, (0, None, None))(keys[1:], text, BATCH)
    return initial_params(keys[0], size, LAYERS, WIDTH), batches.reshape(POINTS, -1, *batches.shape[1:])


def train(tx: cx.chain, starts: tuple[Any, jax.Array], held_out: jax.Array) -> dict[str, jax.Array]:
    """The held-out losses and accuracies along a run from each start: ``[seed, point]``."""

    def step(run: Any, batch: jax.Array) -> tuple[Any, None]:
        params, state = run
        return tx.step(params, state, jax.grad(loss)(params, batch)), None

    def interval(run: Any, batches: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        run, _ = jax.lax.scan(step, run, batches)
        return run, dict(zip(("losses", "accuracy"), loss_and_accuracy(run[0], held_out), strict=True))

    def trained(start: tuple[Any, jax.Array]) -> dict[str, jax.Array]:
        params, batches = start
        return jax.lax.scan(interval, (params, tx.init(params)), batches)[1]

    return jax.lax.map(trained, starts)


class Result(NamedTuple):
    """One optimizer: ``tuning[rate, decay]`` from the first seed, and its best setting from the other seeds."""

    name: str
    rates: np.ndarray
    tuning: np.ndarray
    tx: cx.chain
    losses: np.ndarray  # [seed, point]
    accuracy: np.ndarray

    @property
    def best(self) -> tuple[int, int]:
        """The indices of the best rate and decay."""
        return best_of(self.tuning)


def best_of(tuning: np.ndarray) -> tuple[int, int]:
    """The indices of the lowest loss; runs that diverged are NaN."""
    rate, decay = np.unravel_index(np.nanargmin(tuning), tuning.shape)
    return int(rate), int(decay)


def compare(text: Text, steps: int, rates: np.ndarray, seeds: int) -> tuple[list[Result], dict[str, np.ndarray]]:
    """Tune all optimizers, and train their best settings, and Muon's in other orders: the last losses of each order."""

    def starts(*seeds: int) -> tuple[Any, jax.Array]:
        runs = [start(seed, text.train, text.size, steps) for seed in seeds]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)

    held_out = text.held_out[::2]  # half of the windows, since a run is so short
    settings = {
        f"{name}, α={rate:.2g}, β={decay}": make(schedule(rate, steps), decay)
        for name, (make, decays) in CANDIDATES.items()
        for rate in rates.tolist()
        for decay in decays
    }
    # One chain at a time, and seeds in a loop: two cores gain nothing from batches of such products.
    table = cx.sweep(train, settings, starts(0), held_out, batch_size=1)
    tunings = table["losses"][:, 0, -1].reshape(len(CANDIDATES), len(rates), -1)

    best = {}
    for (name, (make, decays)), tuning in zip(CANDIDATES.items(), tunings, strict=True):
        rate, decay = best_of(tuning)
        best[name] = make(schedule(rates[rate].item(), steps), decays[decay])
    others = orders(best["Muon"])
    table = cx.sweep(train, best | others, starts(*range(1, seeds + 1)), held_out, batch_size=1)
    losses, accuracy = (dict(zip(table["name"].tolist(), table[column])) for column in ("losses", "accuracy"))
    results = [
        Result(name, rates, tuning, best[name], losses[name], accuracy[name]) for name, tuning in zip(best, tunings)
    ]
    return results, {name: losses[name][:, -1] for name in ("Muon", *others)}


# What the losses show


def over_seeds(x: np.ndarray, sign: str = "") -> str:
    """Mean and standard deviation."""
    return f"{x.mean():{sign}.3f} ± {x.std(ddof=1):.3f}"


def steps_to(loss: float, result: Result, steps: int) -> str:
    """Where the mean of the curves first comes down to a loss, on straight lines between the points."""
    curve, at = result.losses.mean(axis=0), points(steps)
    below = np.flatnonzero(curve <= loss)
    if not len(below):
        return "not reached"
    i = max(below[0], 1)
    return f"{np.interp(-loss, -curve[i - 1 : i + 1], at[i - 1 : i + 1]):.0f}"


def points(steps: int) -> np.ndarray:
    """The steps after which the losses are measured."""
    return steps // POINTS * np.arange(1, POINTS + 1)


def state_bytes(tx: cx.chain, params: Any) -> float:
    """The bytes of the state for each parameter, from shapes alone."""
    state, count = jax.eval_shape(tx.init, params), sum(p.size for p in jax.tree.leaves(params))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / count


def comparison(results: Sequence[Result], params: Any, steps: int) -> Table:
    """One row for each optimizer."""
    shown = Table(
        title=f"held-out loss after {steps} steps, mean ± std over the seeds; bytes of the state", show_edge=False
    )
    shown.add_column("optimizer", no_wrap=True)
    for name in ("α", "β", "loss", "accuracy", "steps to\nAdamW's", "bytes a\nparameter"):
        shown.add_column(name, justify="right", no_wrap=True)
    for result in results:
        rate, decay = result.best
        shown.add_row(
            result.name,
            f"{result.rates[rate]:.2g}",
            f"{CANDIDATES[result.name][1][decay]}",
            over_seeds(result.losses[:, -1]),
            f"{result.accuracy[:, -1].mean():.1%}",
            steps_to(results[0].losses[:, -1].mean(), result, steps),
            f"{state_bytes(result.tx, params):.1f}",
        )
    return shown


def edges(results: Sequence[Result]) -> list[str]:
    """A sentence for each optimizer whose best learning rate may lie outside of the grid."""
    ends = {0: "smallest", len(results[0].rates) - 1: "largest"}
    return [
        f"{result.name}'s best learning rate is the {ends[result.best[0]]} that was tried: another may be better."
        for result in results
        if result.best[0] in ends
    ]


def order_table(finals: Mapping[str, np.ndarray]) -> Table:
    """One row for each order of Muon's links."""
    base, *others = finals
    shown = Table(title="Muon's best setting with its links in other orders", show_edge=False)
    shown.add_column("order", no_wrap=True)
    shown.add_column("nats a character", justify="right", no_wrap=True)
    shown.add_column("less the first row,\nseed by seed", justify="right", no_wrap=True)
    shown.add_row(f"λ = {DECAY} behind Muon, as above", over_seeds(finals[base]), "")
    for name in others:
        shown.add_row(name, over_seeds(finals[name]), over_seeds(finals[name] - finals[base], "+"))
    return shown


def draw(results: Sequence[Result], steps: int, path: pathlib.Path) -> None:
    """The curves of the best settings, and the last losses of all settings over the learning rate."""
    fig = Figure(figsize=(11, 4.5), layout="constrained")
    curves, tuning = fig.subplots(1, 2)
    at = points(steps)
    for i, result in enumerate(results):
        color, decays = f"C{i}", CANDIDATES[result.name][1]
        curves.plot(at, result.losses.mean(axis=0), color=color, label=result.name)
        curves.fill_between(at, result.losses.min(axis=0), result.losses.max(axis=0), color=color, alpha=0.2, lw=0)
        for losses, decay, style in zip(result.tuning.T, decays, ("o-", "s--"), strict=True):
            tuning.plot(result.rates, losses, style, color=color, label=f"{result.name}, β = {decay}")
        rate, decay = result.best
        tuning.plot(result.rates[rate], result.tuning[rate, decay], "*", color=color, mec="black", ms=15)
    last = results[0].losses[:, -1].mean()
    curves.axhline(last, color="0.5", ls=":", label=f"{results[0].name}'s last loss")
    curves.set(
        title="best settings: mean and range over the seeds", xlabel="steps", ylabel="held-out loss, nats a character"
    )
    tuning.set(title="all settings, one seed", xlabel="learning rate α", xscale="log", ylabel="last held-out loss")
    tuning.set_xticks(results[0].rates, [f"{rate:.2g}" for rate in results[0].rates])
    tuning.minorticks_off()
    for ax in (curves, tuning):
        ax.legend()
    fig.savefig(path, dpi=150)


# The command line


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options. An invalid one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--steps", type=at_least(1), default=250, metavar="N", help=f"steps of each run, a multiple of {POINTS}"
    )
    parser.add_argument("--rates", type=at_least(2), default=4, metavar="N", help="learning rates of each optimizer")
    parser.add_argument("--seeds", type=at_least(2), default=3, metavar="N", help="runs of each best setting")
    parser.add_argument("--output", type=picture, default="muon.png", metavar="PATH", help="where to draw")
    chosen = parser.parse_args(arguments)
    if chosen.steps % POINTS:
        parser.error(f"argument --steps: must be a multiple of {POINTS}, got {chosen.steps}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the optimizers and the orders, then print and plot the results."""
    # SOAP's decompositions run on XLA's threads, and take up to ten times as long if they start threads of their own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    chosen, console, began = options(arguments), Console(), time.perf_counter()
    text, steps = language_reference(), chosen.steps
    results, finals = compare(text, steps, np.geomspace(*RATES, chosen.rates), chosen.seeds)
    params = jax.eval_shape(lambda: initial_params(jax.random.key(0), text.size, LAYERS, WIDTH))
    console.print(comparison(results, params, steps))
    for words in edges(results):
        print(words)
    print()
    console.print(order_table(finals))
    draw(results, steps, chosen.output)
    runs = len(CANDIDATES) * 2 * chosen.rates + (len(results) + len(finals) - 1) * chosen.seeds
    print(f"\n{runs} runs in {time.perf_counter() - began:.0f} s; picture: {chosen.output}")


if __name__ == "__main__":
    main()
