"""The warning for runs that compile every few steps, since their chain is edited."""

import warnings
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import pytest
from chainax.core.engine import recompiling
from chainax.flax import Optimizer
from flax import nnx

PARAMS = {"w": jnp.ones(3)}
TX = cx.sgd(1e-3, momentum=0.9, weight_decay=0.1)


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no other test had been told."""
    monkeypatch.setattr(recompiling, "_told", set())


def told(run: Callable[[], Any]) -> list[str]:
    """The warnings of a run."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    assert all(issubclass(w.category, cx.ChainWarning) and w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


def edited(edit: Callable[[int], Any], steps: int = 6, step: Callable[..., Any] | None = None) -> None:
    """A run whose chain is another one at each step."""
    params, state = PARAMS, edit(0).init(PARAMS)
    for i in range(steps):
        tx = edit(i)
        params, state = tx.step(params, state, PARAMS) if step is None else step(tx, params, state, PARAMS)


RATE = (
    "`scale_by_lr.learning_rate` changed 4 times within a few steps, and outside jit each new number compiles the step"
)
EDITS = {
    "the rate": (lambda i: TX.replace("scale_by_lr", learning_rate=0.1 + i), [RATE]),
    "two numbers": (
        lambda i: TX.replace("scale_by_lr", learning_rate=0.2 + i).replace("trace", momentum=0.5 + i / 20),
        ["`trace.momentum`, `scale_by_lr.learning_rate` changed"],
    ),
    "a schedule's number": (
        lambda i: TX.replace("scale_by_lr", learning_rate=cx.linear_schedule(0.3 + i, 0.0, 10)),
        ["`scale_by_lr.learning_rate.init_value` changed"],
    ),
    "a table's number": (
        lambda i: TX.replace("add_decayed_weights", weight_decay=cx.by_path({"w": 0.1 + i}, default=0.0)),
        ["`add_decayed_weights.weight_decay"],
    ),
    "an inner chain": (lambda i: cx.partition(cx.by_path({"w": cx.sgd(0.4 + i)}, default=cx.freeze())), [RATE]),
    "an array": (lambda i: TX.replace("scale_by_lr", learning_rate=jnp.asarray(0.1 + i)), []),
    "a schedule": (lambda i: TX.replace("scale_by_lr", learning_rate=cx.linear_schedule(0.5, 0.0, 10)), []),
    "now and then": (lambda i: TX.replace("scale_by_lr", learning_rate=0.6 + i // 11), []),
    "two phases": (lambda i: TX.replace("scale_by_lr", learning_rate=0.7 + i % 2), []),
    "another structure": (lambda i: cx.sgd(0.8 + i) if i % 2 else cx.sgd(0.8 + i, weight_decay=0.1), []),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_run_is_told_once(name: str) -> None:
    """What changes, if it compiles at every step, and nothing else."""
    edit, expected = EDITS[name]
    messages = told(lambda: edited(edit, 55 if name == "now and then" else 6))
    assert len(messages) == len(expected)
    assert all(message.startswith(start) for message, start in zip(messages, expected))


def test_the_remedy_takes_one_compilation() -> None:
    """The function of the message."""
    (message,) = told(lambda: edited(lambda i: cx.sgd(0.1 + i)))
    assert told(lambda: edited(lambda i: cx.sgd(1.1 + i))) == []  # once is enough
    step = eval(message.partition("compiled step, ")[2], {"jax": jax})
    assert told(lambda: edited(lambda i: cx.sgd(2.1 + i), step=step)) == []
    assert step._cache_size() == 1


def test_other_runs_are_not_told() -> None:
    """Sweeps, whose runs begin anew, and runs with other parameters."""

    def sweep() -> None:
        for i in range(6):
            edited(lambda _, i=i: cx.sgd(0.15 + i), 2)

    assert told(sweep) == []
    state = TX.init(PARAMS)
    assert (
        told(lambda: [TX.replace("trace", momentum=0.9 - i / 20).step(PARAMS, state, PARAMS) for i in range(6)]) == []
    )


def test_a_run_of_nnx_is_told() -> None:
    """Without `nnx.jit`, the state goes through variables."""
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    optimizer = Optimizer(model, cx.sgd(1e-3), wrt=nnx.Param)
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))

    def run() -> None:
        for i in range(6):
            optimizer.tx = cx.sgd(0.11 + i)
            optimizer.update(model, grads)

    (message,) = told(run)
    assert message.startswith(RATE)
