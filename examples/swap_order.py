"""Train a small network on digits with AdamW, move one link of the chain, and train again."""

import argparse

import chainax as cx
import jax
import jax.numpy as jnp
from arguments import at_least
from sklearn.datasets import load_digits

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=at_least(1), default=300, help="steps of training (default: %(default)s)")
steps = parser.parse_args().steps
x, y = load_digits(return_X_y=True)
x, y, half = jnp.asarray(x / 16, jnp.float32), jnp.asarray(y), len(y) // 2


def logits(params, x):  # noqa: D103
    return jax.nn.relu(x @ params["hidden"]) @ params["out"]


def loss(params, x, y):  # noqa: D103
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(params, x)), y[:, None], axis=1))


def held_out_error(tx):
    """The held-out error after training with the chain ``tx`` on the first half of the digits."""
    shapes = {"hidden": (64, 64), "out": (64, 10)}
    params = {name: jax.random.normal(jax.random.key(len(name)), shape) / 8 for name, shape in shapes.items()}
    state, step, gradient = tx.init(params), cx.make_step(tx), jax.jit(jax.grad(loss))
    for _ in range(steps):
        params, state = step(params, state, gradient(params, x[:half], y[:half]))
    return jnp.mean(logits(params, x[half:]).argmax(axis=-1) != y[half:])


rate = cx.warmup_cosine_decay_schedule(0.0, 1e-2, steps // 10, steps)
tx = cx.chain(cx.clip_by_global_norm(1.0), cx.scale_by_adam(b2=0.95), cx.add_decayed_weights(0.1), cx.scale_by_lr(rate))
coupled = tx.move("add_decayed_weights", before="scale_by_adam")
for order in (tx, coupled):
    print(f"{order.describe()}\nheld-out error: {held_out_error(order):.1%}\n")
print(f"The difference: {tx.diff(coupled)}.")
