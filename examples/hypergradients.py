"""Tune a learning rate and a weight decay by gradient descent through whole training runs on digits.

An optimizer is a pytree, so ``jax.grad`` of a training run with respect to it returns a derivative for each
number in the chain, the hypergradients, from one forward and one backward pass
(Maclaurin, Duvenaud & Adams 2015, arXiv:1502.03492; Franceschi et al. 2017, arXiv:1703.01785). Another
chain then uses them for gradient descent on the logarithms of the numbers.

Prints the first hypergradients next to central finite differences, and then the numbers before and
after tuning, with the validation loss that was tuned, and the loss and error on digits that neither training nor
tuning has seen.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
from arguments import at_least
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits

HIDDEN, TRAINED_ON, VALIDATED_ON = 32, 100, 600
START = {"learning rate": 3e-3, "weight decay": 1.0}  # the first is too small, the second too large


class Data(NamedTuple):
    """Images as rows of 64 pixels, and their labels."""

    x: jax.Array
    y: jax.Array


def digits() -> tuple[Data, Data, Data]:
    """scikit-learn's 1797 digits, shuffled and divided into training, validation and test data."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    parts = np.split(order, (TRAINED_ON, TRAINED_ON + VALIDATED_ON))
    train, validate, test = (Data(jnp.asarray(x[part] / 16), jnp.asarray(y[part])) for part in parts)
    return train, validate, test


def initial_params() -> dict[str, jax.Array]:
    """Two layers without biases."""
    shapes = {"hidden": (64, HIDDEN), "out": (HIDDEN, 10)}
    return {name: jax.random.normal(jax.random.key(len(name)), shape) / 8 for name, shape in shapes.items()}


def logits(params: Any, x: jax.Array) -> jax.Array:
    """(n, 64) -> (n, 10). Smooth, since finite differences would not converge at the kinks of relu."""
    return jnp.tanh(x @ params["hidden"]) @ params["out"]


def loss(params: Any, data: Data) -> jax.Array:
    """The mean cross-entropy."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(params, data.x)), data.y[:, None], axis=1))


def error(params: Any, data: Data) -> jax.Array:
    """The fraction of misclassified images."""
    return jnp.mean(jnp.argmax(logits(params, data.x), axis=-1) != data.y)


def trained(tx: cx.chain, data: Data, steps: int) -> Any:
    """The parameters after a run of full-batch steps."""

    def step(run: Any, _: None) -> tuple[Any, None]:
        params, state = run
        return tx.step(params, state, jax.grad(loss)(params, data)), None

    params = initial_params()
    return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0][0]


def chain_of(logs: dict[str, jax.Array]) -> cx.chain:
    """AdamW, with the logarithms of its learning rate and weight decay as parameters."""
    return cx.adamw(jnp.exp(logs["learning rate"]), weight_decay=jnp.exp(logs["weight decay"]))


def validation_loss(logs: dict[str, jax.Array], train: Data, validate: Data, steps: int) -> jax.Array:
    """The objective of the tuning: the loss on the validation digits after a training run."""
    return loss(trained(chain_of(logs), train, steps), validate)


def central_differences(f: Callable[[Any], jax.Array], at: dict[str, jax.Array], h: float = 1e-4) -> dict[str, Any]:
    """The derivatives of ``f``, from two evaluations for each number."""
    return {name: (f({**at, name: x + h}) - f({**at, name: x - h})) / (2 * h) for name, x in at.items()}


def tune(objective: Callable[[Any], Any], logs: dict[str, jax.Array], outer_steps: int) -> dict[str, jax.Array]:
    """Minimize by Adam with hypergradients. ``objective`` returns a value and its gradient."""
    tx = cx.adam(cx.cosine_decay_schedule(0.5, outer_steps))
    state, console = tx.init(logs), Console(stderr=True)
    for _ in track(range(outer_steps), "tuning", console=console, disable=not console.is_terminal):
        _, slopes = objective(logs)
        logs, state = tx.step(logs, state, slopes)
    return logs


def comparison(slopes: dict[str, jax.Array], differences: dict[str, jax.Array]) -> Table:
    """Hypergradients next to finite differences."""
    printed = Table(
        "d loss / d log", "jax.grad", "central differences", "relative difference", title="slopes at the start"
    )
    for name, slope in slopes.items():
        apart = abs(differences[name] / slope - 1)
        printed.add_row(name, f"{slope:+.9f}", f"{differences[name]:+.9f}", f"{apart:.1e}")
    return printed


def main() -> None:
    """Compare, tune, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--steps", type=at_least(1), default=100, help="steps of each training run (default: %(default)s)"
    )
    parser.add_argument("--outer-steps", type=at_least(1), default=30, help="runs to tune with (default: %(default)s)")
    options, console, began = parser.parse_args(), Console(), time.perf_counter()
    jax.config.update("jax_enable_x64", True)  # finite differences need the precision

    train, validate, test = digits()
    value = jax.jit(functools.partial(validation_loss, train=train, validate=validate, steps=options.steps))
    objective = jax.jit(jax.value_and_grad(value))
    logs = {name: jnp.log(jnp.asarray(x)) for name, x in START.items()}
    console.print(comparison(objective(logs)[1], central_differences(value, logs)))

    tuned = tune(objective, logs, options.outer_steps)
    finish = jax.jit(lambda logs: trained(chain_of(logs), train, options.steps))
    before, after = finish(logs), finish(tuned)
    printed = Table("", "before", "after", title=f"{options.outer_steps} outer steps")
    for name in START:
        printed.add_row(name, f"{jnp.exp(logs[name]):.4g}", f"{jnp.exp(tuned[name]):.4g}")
    printed.add_row("validation loss", f"{loss(before, validate):.4f}", f"{loss(after, validate):.4f}")
    printed.add_row("held-out loss", f"{loss(before, test):.4f}", f"{loss(after, test):.4f}")
    printed.add_row("held-out error", f"{error(before, test):.1%}", f"{error(after, test):.1%}")
    console.print(printed)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
