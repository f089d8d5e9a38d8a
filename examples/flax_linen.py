"""Train a Flax linen module on digits, with parameters in bfloat16.

Prints for each way of rounding them the mean of the steps' losses at the end, and the error on the held-out half of the
digits. Rounding to nearest loses the small updates, Kahan summation keeps them.
"""

import argparse

import chainax as cx
import jax
import jax.numpy as jnp
from arguments import at_least
from chainax.flax import TrainState
from flax import linen as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Network(nn.Module):
    """One hidden layer: (n, 64) -> (n, 10)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The logits."""
        hidden = nn.relu(nn.Dense(64, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)(x))
        return nn.Dense(10, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)(hidden)


@jax.jit
def train_step(state: TrainState, x: jax.Array, y: jax.Array) -> tuple[TrainState, jax.Array]:
    """One step, and the loss before it."""

    def loss(params):
        logits = state.apply_fn({"params": params}, x).astype(jnp.float32)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))

    value, grads = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=grads), value


def main() -> None:
    """Train with both roundings, and print the held-out errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--steps", type=at_least(1), default=300, help="steps of training (default: %(default)s)")
    steps = parser.parse_args().steps

    images, labels = load_digits(return_X_y=True)
    data = train_test_split(jnp.float32(images / 16), jnp.int32(labels), test_size=0.5, random_state=0)
    train_x, test_x, train_y, test_y = map(jnp.asarray, data)

    model = Network()
    params = model.init(jax.random.key(0), train_x)["params"]
    for rounding in ("nearest", "kahan"):
        tx = cx.chain(cx.sgd(0.01, momentum=0.9), cx.apply_update(rounding))
        state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
        loss = jnp.inf
        for _ in range(steps):
            state, loss = train_step(state, train_x, train_y)
        error = jnp.mean(state.apply_fn({"params": state.params}, test_x).argmax(axis=-1) != test_y)
        print(f"{rounding:>7}: training loss: {loss:.4f}, held-out error: {error:.1%}")


if __name__ == "__main__":
    main()
