"""Averages of the parameters against Optax, PyTorch and pytorch_optimizer."""

from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from agreement import pytorch_optimizer
from reference import STEPS, Tree, assert_agree, problem, run
from registry import quickly

ADAM = cx.adam(1e-2)


def averages(tx: cx.chain, params: Tree, grads: Tree) -> tuple[Tree, Tree]:
    """The trajectories of the parameters and of their average."""

    def step(carry: tuple, g: Tree) -> tuple:
        p, state = tx.step(*carry, g)
        return (p, state), (p, cx.read_average(tx, p, state))

    return quickly(lambda p, g: jax.lax.scan(step, (p, tx.init(p)), g)[1])(*jax.tree.map(jnp.asarray, (params, grads)))


def torch_averages(points: Tree, average: Any, steps: Any = range(STEPS)) -> dict[str, list]:
    """What an AveragedModel keeps of a trajectory, if it is updated after these steps."""
    torch = pytest.importorskip("torch")
    model = torch.nn.ParameterDict({n: torch.nn.Parameter(torch.tensor(np.asarray(x[0]))) for n, x in points.items()})
    averaged = torch.optim.swa_utils.AveragedModel(model, **average(torch.optim.swa_utils))
    seen: dict[str, list] = {n: [] for n in points}
    for k in range(STEPS):
        with torch.no_grad():
            for n, x in points.items():
                model[n].copy_(torch.tensor(np.asarray(x[k])))
        if k in steps:
            averaged.update_parameters(model)
        for n in points:
            seen[n].append(averaged.module[n].detach().numpy().copy())
    return seen


# Exponential


@pytest.mark.parametrize("decay", (0.0, 0.9, 0.999))
def test_ema_agrees_with_optax(decay: float, x64: None) -> None:
    """The same as `optax.ema` of the parameters, corrected for its start at 0; the parameters pass as they are."""
    params, grads = problem(seed=0)
    points, ours = averages(cx.chain(ADAM, cx.ema_params(decay)), params, grads)
    assert_agree(points, run(ADAM, params, grads, closed_over=True), 1e-12)
    tx = optax.ema(decay, debias=True)
    with jax.numpy_dtype_promotion("standard"):
        step = quickly(lambda p, state: tx.update(p, state))
        state, seen = tx.init({n: x[0] for n, x in points.items()}), []
        for k in range(STEPS):
            average, state = step({n: x[k] for n, x in points.items()}, state)
            seen.append(average)
    assert_agree(ours, {n: np.stack([s[n] for s in seen]) for n in params}, 1e-9)


@pytest.mark.parametrize("decay", (0.9, 1.0))
def test_ema_agrees_with_torch(decay: float, x64: None) -> None:
    """Without the correction it is that of AveragedModel, which begins at the first parameters it is given."""
    points, ours = averages(cx.chain(ADAM, cx.ema_params(decay, debias=False)), *problem(seed=0))
    theirs = torch_averages(points, lambda utils: {"multi_avg_fn": utils.get_ema_multi_avg_fn(decay)})
    assert_agree(ours, {n: np.stack(x) for n, x in theirs.items()}, 1e-9)


def test_ema_without_decay_is_the_mean(x64: None) -> None:
    """The limit of the corrected average at β = 1, as a number, traced, and where a schedule arrives there."""
    params, grads = problem(seed=0)
    tx = cx.chain(ADAM, cx.ema_params(1.0))
    points, ours = averages(tx, params, grads)
    counts = {n: np.arange(1, STEPS + 1).reshape(-1, *[1] * (x.ndim - 1)) for n, x in points.items()}
    assert_agree(ours, {n: np.cumsum(np.asarray(x), 0) / counts[n] for n, x in points.items()}, 1e-12)
    rising = cx.linear_schedule(0.9, 1.0, 50)
    for schedule, finite in ((cx.constant_schedule(1.0), ours), (rising, None)):
        _, traced = averages(cx.chain(ADAM, cx.ema_params(schedule)), params, grads)
        assert_agree(traced, traced if finite is None else finite, 1e-12)


def test_ema_takes_a_schedule_and_a_table(x64: None) -> None:
    """A decay that changes makes an average of weights that still add up to 1; by path it is another one."""
    rising = cx.linear_schedule(0.5, 0.99, 50)
    tx = cx.chain(cx.sgd(0.0), cx.ema_params(cx.by_path({"cube": 0.0}, default=rising)))
    params, grads = problem(seed=0)
    points, ours = averages(tx, params, grads)
    assert_agree(ours, points, 1e-12)


# Plain


@pytest.mark.parametrize(("start", "every"), ((1, 1), (10, 1), (30, 7), (99, 5)))
def test_swa_agrees_with_torch(start: int, every: int, x64: None) -> None:
    """From the start on the same as AveragedModel, updated at the same steps; before it, the parameters."""
    points, ours = averages(cx.chain(ADAM, cx.swa(start, every)), *problem(seed=0))
    theirs = torch_averages(points, lambda utils: {}, range(start - 1, STEPS, every))
    for n in points:
        expected = np.concatenate([points[n][: start - 1], np.stack(theirs[n])[start - 1 :]])
        np.testing.assert_allclose(ours[n], expected, rtol=0, atol=1e-9)


def test_swa_from_the_beginning_counts_where_training_begins(x64: None) -> None:
    """The paper's average begins with the weights that it is given."""
    params, grads = problem(seed=0)
    points, ours = averages(cx.chain(ADAM, cx.swa(0, 10)), params, grads)
    last = {n: np.mean([params[n], *points[n][9::10]], axis=0) for n in params}
    assert_agree({n: x[-1] for n, x in ours.items()}, last, 1e-9)


# Slow weights


def lookahead(tx: Any, params: Tree, grads: Tree) -> tuple[Tree, Tree]:
    """The trajectories of Optax's fast and slow weights."""

    def step(carry: tuple, g: Tree) -> tuple:
        p, state = carry
        u, state = tx.update(g, state, p)
        p: Any = optax.apply_updates(p, u)
        return (p, state), (p.fast, p.slow)

    with jax.numpy_dtype_promotion("standard"):
        start = optax.LookaheadParams.init_synced(jax.tree.map(jnp.asarray, params))
        return quickly(lambda p, g: jax.lax.scan(step, (p, tx.init(p)), g)[1])(start, grads)


@pytest.mark.parametrize("reset", (False, True))
def test_slow_weights_agree_with_optax(reset: bool, x64: None) -> None:
    """Fast and slow weights; beginning anew at a synchronization is a link of its own."""
    params, grads = problem(seed=0)
    theirs = lookahead(optax.lookahead(optax.adam(1e-2), 6, 0.3, reset_state=reset), params, grads)
    fast = cx.restart(ADAM, 6) if reset else ADAM
    ours = averages(cx.chain(fast, cx.slow_weights(6, 0.3)), params, grads)
    assert_agree(ours[0], theirs[0], 1e-9)
    assert_agree(ours[1], theirs[1], 1e-9)


def test_slow_weights_agree_with_pytorch_optimizer(x64: None) -> None:
    """And with the default period and step size."""
    library, torch = pytorch_optimizer(), pytest.importorskip("torch")
    params, grads = problem(seed=0)
    leaves = {n: torch.nn.Parameter(torch.tensor(p)) for n, p in params.items()}
    adam = torch.optim.Adam(leaves.values(), lr=1e-2, foreach=False)
    tx = library.Lookahead(adam, k=6, alpha=0.5, pullback_momentum="none")
    points: dict[str, list] = {n: [] for n in params}
    for k in range(STEPS):
        for n, p in leaves.items():
            p.grad = torch.tensor(grads[n][k])
        tx.step()
        for n, p in leaves.items():
            points[n].append(p.detach().numpy().copy())
    ours = run(cx.chain(ADAM, cx.slow_weights()), params, grads)
    assert_agree(ours, {n: np.stack(x) for n, x in points.items()}, 1e-9)


# Reading


def test_the_average_is_in_the_parameters_dtype() -> None:
    """It is kept in float32, of what the parameters are before they are rounded."""
    params = {"w": jnp.ones(2, jnp.bfloat16), "n": jnp.arange(2), "hole": None}
    tx = cx.chain(cx.sgd(1.0), cx.ema_params(0.5))
    state = tx.init(params)
    chex.assert_trees_all_equal(cx.read_average(tx, params, state), params)
    moved, state = tx.step(params, state, {"w": jnp.full(2, 1e-3, jnp.bfloat16), "n": None, "hole": None})
    assert moved["w"].tolist() == [1.0, 1.0]
    average = state.links["ema_params"]["average"]["w"]
    np.testing.assert_allclose(average, 1 - np.float32(jnp.bfloat16(1e-3)), rtol=1e-6)
    read = cx.read_average(tx, moved, state)
    assert read["w"].dtype == jnp.bfloat16
    chex.assert_trees_all_equal(read["n"], params["n"])
    assert read["hole"] is None


def test_the_average_of_a_stored_slot() -> None:
    """An average that is kept in 8 bits is read as what it stands for."""
    params = {"w": jnp.linspace(-1.0, 1.0, 4096).reshape(64, 64), "c": jnp.ones((64, 64), jnp.complex64)}
    tx = cx.store(cx.chain(cx.sgd(0.0), cx.ema_params(0.5)), average=cx.int8())
    state = tx.init(params)
    assert isinstance(state.links["ema_params"]["average"]["w"], dict)
    _, state = tx.step(params, state, params)
    chex.assert_trees_all_close(cx.read_average(tx, params, state), params, atol=0.02)


def stepped(tx: Any, params: Tree, g: Tree) -> tuple[Tree, cx.State]:
    """Parameters and state after two steps."""
    params = jax.tree.map(jnp.asarray, params)
    state, step = tx.init(params), cx.make_step(tx, donate=False)
    for _ in range(2):
        params, state = step(params, state, g)
    return params, state


def test_averages_within_other_links(x64: None) -> None:
    """They are found in wrapped chains, of groups, and of parameters in another form; others stay as they are."""
    params, grads = problem(seed=0)
    g = {n: x[0] for n, x in grads.items()}
    averaged = cx.chain(ADAM, cx.ema_params(0.5))
    expected = cx.read_average(averaged, *stepped(averaged, params, g))
    nested = (
        cx.accumulate(cx.flatten(averaged), 1),
        cx.partition(cx.by_path({"matrix": averaged}, default=averaged)),
        cx.split_complex(cx.conditionally_mask(averaged)),
    )
    for tx in nested:
        chex.assert_trees_all_close(cx.read_average(tx, *stepped(tx, params, g)), expected)
    tx = cx.partition(cx.by_path({"matrix": averaged}, default=ADAM))
    now, state = stepped(tx, params, g)
    read = cx.read_average(tx, now, state)
    chex.assert_trees_all_close(read, {**now, "matrix": expected["matrix"]})


def test_averages_count_steps_not_micro_batches() -> None:
    """In the chain that `accumulate` runs, the average moves with the parameters."""
    tx = cx.accumulate(cx.chain(cx.sgd(1.0), cx.swa(1)), 3)
    params, state = jnp.zeros(1), tx.init(jnp.zeros(1))
    for _ in range(6):
        params, state = tx.step(params, state, jnp.ones(1))
    assert (params.item(), cx.read_average(tx, params, state).item()) == (-2.0, -1.5)


def test_an_average_outlives_the_state() -> None:
    """Which the next step may reuse."""
    tx, p = cx.chain(cx.sgd(0.1), cx.ema_params(0.9)), {"w": jnp.ones(3)}
    state = tx.init(p)
    average = cx.read_average(tx, p, state)
    _, state = cx.make_step(tx)(p, state, {"w": jnp.ones(3)})
    np.testing.assert_array_equal(average["w"], np.ones(3))


def test_one_of_several_is_read_by_its_name() -> None:
    """That of its link."""
    tx, params = cx.chain(cx.sgd(1.0), cx.ema_params(0.0), slow=cx.swa(0)), jnp.ones(2)
    params, state = tx.step(params, tx.init(params), params)
    averages = [cx.read_average(tx, params, state, name) for name in ("ema_params", "slow")]
    np.testing.assert_allclose(averages, [[0.0, 0.0], [0.5, 0.5]])


def test_links_of_one_name_are_told_apart() -> None:
    """One outside keeps its name, and those in other links have that of each link before theirs."""
    deep = cx.restart(cx.chain(cx.conditionally_mask(cx.ema_params(1 / 2)), cx.ema_params(1 / 3)), 9.0)
    flat = cx.flatten(cx.chain(cx.scale_by_lr(1.0), cx.ema_params(1 / 4), cx.swa(0)))
    expected = {
        "flatten/ema_params": 1 / 4,
        "restart/ema_params": 1 / 3,
        "restart/conditionally_mask/ema_params": 1 / 2,
    }
    for last in ((), (cx.ema_params(0.0),)):
        tx, expected = cx.chain(flat, deep, *last), {**expected, **({"ema_params": 0.0} if last else {})}
        params = jnp.ones(2)
        state = tx.init(params)
        for _ in range(2):
            params, state = tx.step(params, state, jnp.ones(2))
        assert params.tolist() == [-1.0, -1.0]
        for name, decay in expected.items():  # of 0 and −1, after two steps
            np.testing.assert_allclose(cx.read_average(tx, params, state, name), -1 / (1 + decay), rtol=1e-6)
        np.testing.assert_allclose(cx.read_average(tx, params, state, "swa"), 0.0, atol=1e-6)
        with pytest.raises(KeyError, match=r"say which by name= one of .*flatten/ema_params, swa, restart/ema_params"):
            cx.read_average(tx, params, state)
    alone = cx.chain(cx.scale_by_lr(1.0), deep)
    with pytest.raises(KeyError, match=r"one of ema_params, conditionally_mask/ema_params$"):
        cx.read_average(alone, params, alone.init(params))
