"""Move the weight decay in a chain, and measure the effect on real digits.

The chain has two orders: AdamW as published, and the same links with the decay before Adam, which is Adam with L2
regularization. `cx.compare` trains a grid of learning rates × weight decays for each, from the same seeds, and the best
setting of each from further seeds, by which the two are compared.

Prints the equations of both chains and what the runs show, and draws two heat maps in ``decay_order.png``. These look
like figure 2 of Loshchilov & Hutter (2019, arXiv:1711.05101): in one order the best decay depends on the learning
rate, in the other it does not.

The setting makes the decay matter: there are few training digits, the hidden layer is normalized, as in the paper's
networks, and the initial weights are too large, so that a run has to forget them. Other settings give other results.
When a network without the normalization had time to memorize wrong labels, the best decay was constant for PyTorch's
form, with the decay before `scale`. Change the chain or the network, and measure.
"""

import argparse
import time
from typing import Any, NamedTuple

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
from arguments import at_least, picture
from sklearn.datasets import load_digits

TRAINED_ON, BATCH, HIDDEN, START = 256, 64, 64, 5.0
RATE, DECAY = "scale.step_size", "add_decayed_weights.weight_decay"
RATES = 2.0**-7, 2.0**-1  # from, to
DECAYS = {"coupled": (2.0**-15, 2.0**-4), "decoupled": (2.0**-13, 2.0**-2)}


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


def initial_params(seed: Any) -> dict[str, dict[str, jax.Array]]:
    """Two layers, with initial weights that are ``START`` times too large."""
    keys = jax.random.split(jax.random.split(jax.random.key(0), 1000)[seed])
    sizes = {"hidden": (64, HIDDEN), "out": (HIDDEN, 10)}
    return {
        name: {"kernel": START * jax.random.normal(k, size) * (2 / size[0]) ** 0.5, "bias": jnp.zeros(size[1])}
        for k, (name, size) in zip(keys, sizes.items(), strict=True)
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


def train(tx: cx.chain, seed: Any, data: Data, epochs: int) -> dict[str, jax.Array]:
    """The percentage of held-out digits that a network gets wrong. The seed is that of the initial weights."""

    def step(run: Any, batch: jax.Array) -> tuple[Any, None]:
        params, state = run
        return tx.step(params, state, jax.grad(loss)(params, data.train_x[batch], data.train_y[batch])), None

    shuffles = jax.random.split(jax.random.key(1), epochs)
    batches = jax.vmap(jax.random.permutation, (0, None))(shuffles, TRAINED_ON).reshape(-1, BATCH)
    params = initial_params(seed)
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), batches)
    return {"error": 100 * jnp.mean(jnp.argmax(logits(params, data.test_x), axis=-1) != data.test_y)}


def main() -> None:
    """Show both orders, train their grids, then print and draw what they show."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.description = "Move the weight decay in a chain, and measure the effect on real digits."
    parser.add_argument("--grid", type=at_least(2), default=12, metavar="N", help="N learning rates × N weight decays")
    parser.add_argument("--seeds", type=at_least(1), default=6, metavar="N", help="runs of each setting")
    parser.add_argument("--fresh", type=at_least(1), default=20, metavar="N", help="further runs of each best setting")
    parser.add_argument("--epochs", type=at_least(1), default=100, metavar="N", help="passes over the training digits")
    parser.add_argument("--output", type=picture, default="decay_order.png", metavar="PATH", help="where to draw")
    chosen, began = parser.parse_args(), time.perf_counter()

    schedule = cx.cosine_decay_schedule(1.0, chosen.epochs * (TRAINED_ON // BATCH))
    decoupled = cx.adamw_paper(schedule, learning_rate=0.05, weight_decay=0.01)
    coupled = decoupled.move("add_decayed_weights", before="scale_by_adam")
    print(f"AdamW:\n{decoupled.describe()}\n\nAdam with L2:\n{coupled.describe()}\n")
    print(f"From the first to the second: {decoupled.diff(coupled)}.\n")

    orders, n = {"coupled": coupled, "decoupled": decoupled}, chosen.grid
    grids = {
        order: cx.grid(tx, {RATE: np.geomspace(*RATES, n), DECAY: np.geomspace(*DECAYS[order], n)})
        for order, tx in orders.items()
    }
    options = {"seeds": chosen.seeds, "fresh": chosen.fresh, "softness": 1.0, "batch_size": n * n * chosen.seeds}
    measured = cx.compare(train, grids, digits(), chosen.epochs, **options)
    print(measured)
    measured.plot_heatmaps().savefig(chosen.output, dpi=150)
    runs = measured.scores.size + 2 * chosen.fresh
    print(f"\n{runs} runs in {time.perf_counter() - began:.0f} s; picture: {chosen.output}")


if __name__ == "__main__":
    main()
