"""Sweep learning rate × weight decay × order of the links on digits, and print the best settings.

The two orders of the links are two structures. Each is compiled once and runs its grid in one `vmap`, divided
among all local devices.
Prints a table of held-out errors and the best settings for each order, and how often the training function
was traced.
"""

import argparse
import time
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
from arguments import at_least
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

RATE, DECAY = "scale_by_lr.learning_rate", "add_decayed_weights.weight_decay"
traces = 0


def logits(params: Any, x: jax.Array) -> jax.Array:
    """(n, 64) -> (n, 10)."""
    return jax.nn.relu(x @ params["hidden"]) @ params["out"]


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean cross-entropy."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(params, x)), y[:, None], axis=1))


def train(tx: cx.chain, data: tuple[jax.Array, ...], steps: int) -> dict[str, jax.Array]:
    """The final training loss and the held-out error: the columns of the table for each chain."""
    global traces
    traces += 1
    train_x, test_x, train_y, test_y = data
    shapes = {"hidden": (64, 64), "out": (64, 10)}
    params = {name: jax.random.normal(jax.random.key(len(name)), shape) / 8 for name, shape in shapes.items()}

    def step(run: Any, _: None) -> tuple[Any, None]:
        params, state = run
        return tx.step(params, state, jax.grad(loss)(params, train_x, train_y)), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    wrong = jnp.argmax(logits(params, test_x), axis=-1) != test_y
    return {"loss": loss(params, train_x, train_y), "error": jnp.mean(wrong)}


def shown(title: str, table: dict[str, np.ndarray]) -> Table:
    """Held-out errors: one row per learning rate α, one column per weight decay λ, the lowest in bold."""
    rates, decays = np.unique(table[RATE]), np.unique(table[DECAY])
    printed = Table("α \\ λ", *(f"{decay:.2g}" for decay in decays), title=title, title_justify="left")
    for rate in rates:
        cells = [table["error"][(table[RATE] == rate) & (table[DECAY] == decay)].item() for decay in decays]
        bold = ["[bold]{:.1%}[/]" if cell == table["error"].min() else "{:.1%}" for cell in cells]
        printed.add_row(f"{rate:.2g}", *(text.format(cell) for text, cell in zip(bold, cells, strict=True)))
    return printed


def main() -> None:
    """Sweep, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--size", type=at_least(2), default=6, help="learning rates, and weight decays (default: %(default)s)"
    )
    parser.add_argument("--steps", type=at_least(1), default=200, help="steps of training (default: %(default)s)")
    options, console, began = parser.parse_args(), Console(), time.perf_counter()

    images, labels = load_digits(return_X_y=True)
    images, labels = np.asarray(images / 16, np.float32), np.asarray(labels, np.int32)
    data = tuple(map(jnp.asarray, train_test_split(images, labels, train_size=256, random_state=0)))

    rates, decays = np.geomspace(3e-4, 0.1, options.size), np.geomspace(1e-4, 1.0, options.size)
    cosine = cx.cosine_decay_schedule(1.0, options.steps)
    decoupled = cx.chain(cx.scale_by_adam(), cx.add_decayed_weights(0.1), cx.scale(cosine), cx.scale_by_lr(1e-3))
    coupled = decoupled.move("add_decayed_weights", before="scale_by_adam")
    chains = [chain for tx in (decoupled, coupled) for chain in cx.grid(tx, {RATE: rates, DECAY: decays})]
    table = cx.sweep(train, chains, data, options.steps)

    for title, tx in ("decoupled", decoupled), ("coupled", coupled):
        of = table["links"] == " → ".join(tx.names)
        part = {name: column[of] for name, column in table.items()}
        console.print(shown(f"{title}: held-out error", part))
        best = part["error"].argmin()
        console.print(f"best held-out error: {part['error'][best]:.1%}, {part['name'][best]}\n", soft_wrap=True)
    seconds = time.perf_counter() - began
    print(f"{len(chains)} runs of {options.steps} steps in {seconds:.0f} s; `train` was traced {traces} times.")


if __name__ == "__main__":
    main()
