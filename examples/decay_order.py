"""Move the weight decay in a chain, and measure the effect on real digits.

The chain has two orders: AdamW as published, and the same links with the decay before Adam,
which is Adam with L2 regularization. For each order, a grid of learning rates × weight decays with
several seeds is trained in one compiled call: an optimizer is a pytree, so the grid is a chain of stacked
numbers, and `jax.vmap` maps over it like over any array.

Shows a progress bar, the equations of both chains, the best weight decay at each learning rate, a
summary of the measured grids, and two heat maps in ``decay_order.png``. These look like
figure 2 of Loshchilov & Hutter (2019, arXiv:1711.05101): in one order the best decay depends
on the learning rate, in the other it does not.

The setting makes the decay matter: there are few training digits, the hidden layer is
normalized, as in the paper's networks, and the initial weights are too large, so that a run has to forget
them. Other settings give other results. When a network without the normalization had
time to memorize wrong labels, the best decay was constant for PyTorch's form, with the decay before `scale`.
Change the chain or the network, and measure.
"""

import argparse
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
from arguments import at_least, picture
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits

TRAINED_ON, BATCH, HIDDEN, START = 256, 64, 64, 5.0
RATES = (2.0**-7, 2.0**-1)  # from, to
DECAYS = {"coupled": (2.0**-15, 2.0**-4), "decoupled": (2.0**-13, 2.0**-2)}
TITLES = {"coupled": "Adam with L2", "decoupled": "AdamW"}
SEPARABLE = 0.25  # the largest slope of log(best decay) against log(rate) that counts as none


# The optimizer, in two orders


def chain_of(order: str, rate: float, decay: float, steps: int) -> cx.chain:
    """AdamW as published, or with the decay before Adam. The cosine schedule multiplies both terms."""
    adamw = cx.adamw_paper(cx.cosine_decay_schedule(1.0, steps), learning_rate=rate, weight_decay=decay)
    return adamw.move("add_decayed_weights", before="scale_by_adam") if order == "coupled" else adamw


# The network: plain JAX


class Data(NamedTuple):
    """Images as rows of 64 pixels, and their labels."""

    train_x: jax.Array
    train_y: jax.Array
    test_x: jax.Array
    test_y: jax.Array


def digits() -> Data:
    """scikit-learn's 1797 digits, shuffled and centred; all but the first few are held out."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = jnp.asarray(x[order] / 16, jnp.float32), jnp.asarray(y[order], jnp.int32)
    x = x - x.mean(axis=0, keepdims=True)
    return Data(x[:TRAINED_ON], y[:TRAINED_ON], x[TRAINED_ON:], y[TRAINED_ON:])


def initial_params(key: jax.Array) -> dict[str, dict[str, jax.Array]]:
    """Two layers, with initial weights that are ``START`` times too large."""
    sizes = {"hidden": (64, HIDDEN), "out": (HIDDEN, 10)}
    return {
        name: {"kernel": START * jax.random.normal(k, size) * (2 / size[0]) ** 0.5, "bias": jnp.zeros(size[1])}
        for k, (name, size) in zip(jax.random.split(key), sizes.items(), strict=True)
    }


def logits(params: Any, x: jax.Array) -> jax.Array:
    """(n, 64) -> (n, 10), with root-mean-square normalization of the hidden layer."""
    h = x @ params["hidden"]["kernel"]
    h = h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-5)
    h = jax.nn.relu(h + params["hidden"]["bias"][None])
    return h @ params["out"]["kernel"] + params["out"]["bias"][None]


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean cross-entropy."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(params, x)), y[:, None], axis=1))


def error(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """The fraction of misclassified images."""
    return jnp.mean(jnp.argmax(logits(params, x), axis=-1) != y)


# Training: three small functions for one run, which vmap turns into a grid of runs


def train_grid(grid: cx.chain, seeds: int, epochs: int, data: Data, tick: Callable[[], None]) -> np.ndarray:
    """The held-out error of each chain of the stack (rows) with each seed (columns), in one compiled call."""

    def start(tx, key):
        params = initial_params(key)
        return params, tx.init(params)

    def one_epoch(tx, run, batches):
        def one_step(run, batch):
            params, state = run
            grads = jax.grad(loss)(params, data.train_x[batch], data.train_y[batch])
            return tx.step(params, state, grads), None

        return jax.lax.scan(one_step, run, batches)[0]

    axes = grid.axes()  # of the chains; the inner vmap is over the seeds
    start_all = jax.vmap(jax.vmap(start, (None, 0)), (axes, None))
    epoch_all = jax.vmap(jax.vmap(one_epoch, (None, 0, None)), (axes, 0, None))
    error_all = jax.vmap(jax.vmap(error, (0, None, None)), (0, None, None))

    @jax.jit
    def train(keys):
        def epoch(runs, key):
            jax.debug.callback(tick)
            batches = jax.random.permutation(key, TRAINED_ON).reshape(-1, BATCH)
            return epoch_all(grid, runs, batches), None

        shuffles = jax.random.split(jax.random.key(1), epochs)
        (params, _), _ = jax.lax.scan(epoch, start_all(grid, keys), shuffles)
        return error_all(params, data.test_x, data.test_y)

    errors = np.asarray(train(jax.random.split(jax.random.key(0), seeds)))
    jax.effects_barrier()  # wait for the last ticks
    return errors


class Result(NamedTuple):
    """The grid of one order: ``errors[rate, decay, seed]``."""

    order: str
    links: tuple[str, ...]
    rates: np.ndarray
    decays: np.ndarray
    errors: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The mean over the seeds: ``mean[rate, decay]``."""
        return self.errors.mean(axis=-1)

    @property
    def winner(self) -> tuple[int, int]:
        """The indices of the best rate and decay."""
        rate, decay = np.unravel_index(self.mean.argmin(), self.mean.shape)
        return int(rate), int(decay)

    @property
    def best(self) -> np.ndarray:
        """The index of the best decay for each rate."""
        return self.mean.argmin(axis=1)


def sweep(order: str, n: int, seeds: int, epochs: int, data: Data, tick: Callable[[], None]) -> Result:
    """Train the grid of one order."""
    rates, decays = np.geomspace(*RATES, n), np.geomspace(*DECAYS[order], n)
    steps = epochs * (TRAINED_ON // BATCH)
    chains = [chain_of(order, rate, decay, steps) for rate in rates for decay in decays]
    errors = train_grid(cx.stack(chains), seeds, epochs, data, tick)
    return Result(order, chains[0].names, rates, decays, errors.reshape(n, n, seeds))


# What the grids show


def slope(errors: np.ndarray, rates: np.ndarray, decays: np.ndarray) -> float:
    """The slope of log(best decay) against log(rate): 0 if the two are separable, ±1 on a diagonal.

    The best decay is the mean of the logarithms, each decay weighed by e^−(points of error above the best).
    """
    weights = np.exp(-100 * (errors - errors.min(axis=1, keepdims=True)))
    best = (weights * np.log(decays)).sum(axis=1) / weights.sum(axis=1)
    return float(np.polyfit(np.log(rates), best, 1)[0])


def cost_of_keeping(result: Result) -> float:
    """The average increase of the error with the best decay for another learning rate."""
    kept = result.mean[:, result.best]  # kept[i, j]: at rate i with the best decay of rate j
    n = len(kept)
    return float((kept - kept.diagonal()[:, None]).sum() / (n * (n - 1)))


def in_words(result: Result) -> str:
    """A summary of the measured grid."""
    slopes = [slope(result.errors[..., i], result.rates, result.decays) for i in range(result.errors.shape[-1])]
    steepness = slope(result.mean, result.rates, result.decays)
    if abs(steepness) <= SEPARABLE:
        shape = "the best weight decay hardly depends on the learning rate: they can be tuned one after the other"
    else:
        direction = "smaller" if steepness < 0 else "larger"
        shape = f"the larger the learning rate, the {direction} the best weight decay: they must be tuned together"
    return (
        f"{TITLES[result.order]} ({result.order}): {shape}.\n"
        f"  log(best decay) against log(learning rate) has slope {steepness:+.2f} "
        f"(seeds one by one: {np.mean(slopes):+.2f} ± {np.std(slopes):.2f}).\n"
        f"  A decay tuned at one learning rate costs {100 * cost_of_keeping(result):.1f} points of error at another."
    )


def comparison(coupled: Result, decoupled: Result) -> str:
    """Which order reaches the lower error, if the difference is significant."""
    runs = {result.order: result.errors[result.winner] for result in (coupled, decoupled)}
    worse, better = sorted(runs, key=lambda order: -runs[order].mean())
    doubt = np.hypot(*(errors.std() for errors in runs.values())) / len(runs[better]) ** 0.5
    if runs[worse].mean() - runs[better].mean() <= doubt:
        return "At their best settings the two orders differ by no more than chance would have it."
    return (
        f"At its best setting the {better} order gets {runs[better].mean():.1%} of the held-out digits wrong, "
        f"the {worse} order {runs[worse].mean():.1%}."
    )


def mean_and_std(errors: np.ndarray) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{errors.mean():.1%} ± {errors.std():.1%}"


def table(results: Sequence[Result]) -> Table:
    """The best setting of each order at each learning rate, with a star for the best overall."""
    shown = Table(title="best weight decay λ at each learning rate α, and its held-out error", show_edge=False)
    shown.add_column("α", justify="right")
    for result in results:
        shown.add_column(f"λ, {result.order}", justify="right", no_wrap=True)
        shown.add_column("error ± std", justify="right", no_wrap=True)
    for i, rate in enumerate(results[0].rates):
        row = [f"{rate:.2g}"]
        for result in results:
            j = result.best[i]
            star = "*" if (i, j) == result.winner else " "
            row += [f"{result.decays[j]:.2g}", f"{mean_and_std(result.errors[i, j])} {star}"]
        shown.add_row(*row)
    return shown


def draw(results: Sequence[Result], path: pathlib.Path) -> None:
    """The heat maps, side by side, with a common colour scale."""
    low = 100 * max(min(result.mean.min() for result in results), 1e-3)
    norm = LogNorm(low, 2.5 * low)
    fig = Figure(figsize=(11, 5.6), layout="constrained")
    axes, shared = fig.subplots(1, 2, sharey=True), ScalarMappable(norm, "viridis_r")
    for ax, result in zip(axes, results, strict=True):
        x, y = np.log2(result.decays), np.log2(result.rates)
        i, j = result.winner
        ax.pcolormesh(x, y, 100 * result.mean, norm=norm, cmap=shared.cmap, shading="nearest")
        ax.plot(x[result.best], y, "o-", color="white", mec="black", ms=6.5, lw=1.5, label="best decay at each rate")
        ax.plot(x[j], y[i], "*", color="red", mec="white", ms=18, ls="", label="best of all")
        best = mean_and_std(result.errors[i, j])
        ax.set_title(f"{TITLES[result.order]} ({result.order}), best {best}\n{' → '.join(result.links)}", fontsize=10)
        ax.set_xlabel("weight decay λ")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda exponent, _: f"$2^{{{exponent:g}}}$")
    axes[0].set_ylabel("learning rate α")
    bar = fig.colorbar(shared, ax=axes, extend="max", label="held-out error (%)", pad=0.015)
    bar.ax.minorticks_off()
    bar.set_ticks(ticks := [t for t in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 50, 80) if low <= t <= 2.5 * low])
    bar.set_ticklabels([str(t) for t in ticks])
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=True, facecolor="0.8")
    seeds = results[0].errors.shape[-1]
    fig.supxlabel(
        f"The same four links in two orders. A network with one hidden layer, trained on {TRAINED_ON} digits;\n"
        f"each cell is the error on the other digits, mean over {seeds} seed{'s' * (seeds > 1)}.",
        fontsize=9,
        x=0.02,
        ha="left",
    )
    fig.savefig(path, dpi=150)


# The command line


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options. An invalid one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--grid", type=at_least(2), default=12, metavar="N", help="N learning rates × N weight decays")
    parser.add_argument("--seeds", type=at_least(1), default=6, metavar="N", help="runs of each setting")
    parser.add_argument("--epochs", type=at_least(1), default=100, metavar="N", help="passes over the training digits")
    parser.add_argument("--output", type=picture, default="decay_order.png", metavar="PATH", help="where to draw")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Show both orders, train their grids, then summarize and plot the results."""
    chosen, console, began = options(arguments), Console(), time.perf_counter()
    decoupled, coupled = (chain_of(order, 0.05, 0.01, steps=1000) for order in ("decoupled", "coupled"))
    for order, tx in ("decoupled", decoupled), ("coupled", coupled):
        print(f"{TITLES[order]}:\n{tx.describe()}\n")
    print(f"From the first to the second: {decoupled.diff(coupled)}.\n")

    data, results = digits(), []
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for order in ("coupled", "decoupled"):
            task = progress.add_task(f"{order}, {chosen.grid**2 * chosen.seeds} runs", total=chosen.epochs)
            tick = functools.partial(progress.advance, task)
            results.append(sweep(order, chosen.grid, chosen.seeds, chosen.epochs, data, tick))

    console.print(table(results))
    for words in (*map(in_words, results), comparison(*results)):
        print(f"\n{words}")
    draw(results, chosen.output)
    runs = 2 * chosen.grid**2 * chosen.seeds
    print(f"\n{runs} runs in {time.perf_counter() - began:.0f} s; picture: {chosen.output}")


if __name__ == "__main__":
    main()
