"""Train a Flax NNX module on digits, and evaluate it at an average of its parameters.

Prints the chain, and the error on the held-out half of the digits.
"""

import argparse

import chainax as cx
import jax
import jax.numpy as jnp
from arguments import at_least
from chainax.flax import Optimizer
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Network(nnx.Module):
    """One hidden layer: (n, 64) -> (n, 10)."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 64, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The logits."""
        return self.out(nnx.relu(self.hidden(x)))


def loss(model: Network, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean cross-entropy."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(model(x)), y[:, None], axis=1))


@nnx.jit
def train_step(model: Network, optimizer: Optimizer, x: jax.Array, y: jax.Array) -> None:
    """One step, which updates model and optimizer in place, as usual in NNX."""
    optimizer.update(model, nnx.grad(loss)(model, x, y))


def main() -> None:
    """Train, and print the held-out error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--steps", type=at_least(1), default=300, help="steps of training (default: %(default)s)")
    steps = parser.parse_args().steps

    images, labels = load_digits(return_X_y=True)
    data = train_test_split(jnp.float32(images / 16), jnp.int32(labels), test_size=0.5, random_state=0)
    train_x, test_x, train_y, test_y = map(jnp.asarray, data)

    decay = cx.by_path({"bias": 0.0}, default=0.1)
    rate = cx.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 10, steps)
    tx = cx.chain(cx.adamw(rate, weight_decay=decay), cx.ema_params(0.95))
    model = Network(nnx.Rngs(0))
    optimizer = Optimizer(model, tx, wrt=nnx.Param)
    for _ in range(steps):
        train_step(model, optimizer, train_x, train_y)

    print(tx.describe(nnx.state(model, nnx.Param)))
    averaged = cx.read_average(tx, model, optimizer.opt_state)
    print(f"held-out error: {jnp.mean(averaged(test_x).argmax(axis=-1) != test_y):.1%}")


if __name__ == "__main__":
    main()
