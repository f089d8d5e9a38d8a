"""A comparison that takes a while: ``python long_sweep.py FOLDER``. Prints its table as a hash, and what it says."""

import hashlib
import signal
import sys
import time

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np

X = jax.random.normal(jax.random.key(0), (16, 4))


def train(tx, seed):
    """The loss after a few steps, and a pause on the host for every run."""

    def loss(w):
        return jnp.mean((jnp.tanh(X @ w) - jnp.sin(X.sum(axis=1))) ** 2)

    def step(run, _):
        w, state = run
        return tx.step(w, state, jax.grad(loss)(w)), loss(w)

    w = jax.random.normal(jax.random.key(seed), (4,))
    (w, _), losses = jax.lax.scan(step, (w, tx.init(w)), length=5)
    paused = jax.pure_callback(pause, jax.ShapeDtypeStruct((), jnp.float32), losses[0], vmap_method="sequential")
    return {"loss": loss(w), "losses": losses + paused}


def pause(x):
    """0 after a twentieth of a second."""
    time.sleep(0.05)
    return 0 * np.asarray(x)


def main(folder):
    """Eight settings in two orders, six seeds, and fresh ones: 24 batches of four."""
    adamw = cx.adamw(0.1)
    orders = {"decoupled": adamw, "coupled": adamw.move("add_decayed_weights", before="scale_by_adam")}
    values = {"scale_by_lr.learning_rate": [0.01, 0.1], "add_decayed_weights.weight_decay": [0.01, 0.1]}
    grids = {name: cx.grid(tx, values) for name, tx in orders.items()}
    found = cx.compare(train, grids, seeds=6, fresh=6, folder=folder, batch_size=2)
    numbers = hashlib.sha256()
    for name, x in {**found.table, **found.fresh}.items():
        numbers.update(f"{name} {x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes())
    print(numbers.hexdigest())
    print(found)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which processes in the background of a shell ignore
    main(sys.argv[1])
