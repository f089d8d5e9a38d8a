"""Train an Equinox module on digits. A chain takes it whole: its floating-point arrays are the parameters.

Prints the chain, and the error on the held-out half of the digits.
"""

import argparse

import chainax as cx
import equinox as eqx
import jax
import jax.numpy as jnp
from arguments import at_least
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


@eqx.filter_value_and_grad
def loss_and_gradient(model: eqx.nn.MLP, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean cross-entropy."""
    logits = jax.vmap(model)(x)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))


def main() -> None:
    """Train, and print the held-out error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--steps", type=at_least(1), default=300, help="steps of training (default: %(default)s)")
    steps = parser.parse_args().steps

    images, labels = load_digits(return_X_y=True)
    data = train_test_split(jnp.float32(images / 16), jnp.int32(labels), test_size=0.5, random_state=0)
    train_x, test_x, train_y, test_y = map(jnp.asarray, data)

    decay = cx.by_path({"bias": 0.0}, default=0.1)
    tx = cx.adamw(cx.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 10, steps), weight_decay=decay)
    model = eqx.nn.MLP(64, 10, width_size=64, depth=1, key=jax.random.key(0))
    state = tx.init(model)

    @eqx.filter_jit
    def train_step(model, state):
        loss, gradient = loss_and_gradient(model, train_x, train_y)
        return *tx.step(model, state, gradient), loss

    loss = jnp.inf
    for _ in range(steps):
        model, state, loss = train_step(model, state)

    print(tx.describe(eqx.filter(model, eqx.is_inexact_array)))
    error = jnp.mean(jax.vmap(model)(test_x).argmax(axis=-1) != test_y)
    print(f"training loss: {loss:.4f}, held-out error: {error:.1%}")


if __name__ == "__main__":
    main()
