"""Schedule-free learning against the paper in NumPy, Optax and pytorch_optimizer."""

import warnings
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax, run_pytorch_optimizer
from reference import STEPS, Tree, assert_agree, check_run, log, problem, run, settings, uniform

SGD = {"learning_rate": log(1e-2, 1.0), "b1": uniform(0.3, 0.98), "weight_decay": log(1e-3, 1e-1)}
ADAMW = {**SGD, "learning_rate": log(1e-3, 1e-1), "b2": uniform(0.5, 0.999), "eps": log(1e-8, 1e-2)}


def three_points(
    params: Tree,
    grads: Tree,
    direction: Callable[..., Any],
    learning_rate: float,
    b1: float,
    warmup_steps: float,
    weight_decay: float,
    power: float = 2.0,
    **hyper: Any,
) -> tuple[Tree, Tree]:
    """The paper's Algorithm 1 with x, y and z as they stand there: the trajectories of y and of x."""
    ys, xs = {}, {}
    for name, start in params.items():
        x = y = z = start
        memory: dict[str, Any] = {}
        total, here, mean = 0.0, [], []
        for t in range(1, STEPS + 1):
            u, correction = direction(grads[name][t - 1], t, memory, **hyper)
            rate = learning_rate * correction * min(1, t / max(warmup_steps, 1))
            z = z - rate * (u + weight_decay * y)
            total += rate**power
            c = rate**power / total
            x = (1 - c) * x + c * z
            y = (1 - b1) * z + b1 * x
            here.append(y)
            mean.append(x)
        ys[name], xs[name] = np.stack(here), np.stack(mean)
    return ys, xs


def plain(g: Any, t: int, memory: dict) -> tuple[Any, float]:
    """The gradient."""
    return g, 1.0


def rms(g: Any, t: int, memory: dict, b2: float, eps: float) -> tuple[Any, float]:
    """Algorithm 1's direction, and what it multiplies the rate by."""
    memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g**2
    return g / (np.sqrt(memory["v"]) + eps), np.sqrt(1 - b2**t)


def both(tx: cx.chain, params: Tree, grads: Tree) -> tuple[Tree, Tree]:
    """The trajectories of the parameters and of their mean."""

    def step(carry: tuple, g: Tree) -> tuple:
        p, state = tx.step(*carry, g)
        return (p, state), (p, cx.schedule_free_eval_params(tx, p, state))

    params = jax.tree.map(jnp.asarray, params)
    return jax.jit(lambda p, g: jax.lax.scan(step, (p, tx.init(p)), g)[1])(params, grads)


PAPER: dict[str, tuple[Callable[..., cx.chain], Callable[..., Any], dict[str, Any]]] = {
    "sgd": (cx.schedule_free_sgd, plain, SGD),
    "adamw": (cx.schedule_free_adamw, rms, ADAMW),
}


@pytest.mark.parametrize("warmup_steps", (0.0, 1.0, 7.0))
@pytest.mark.parametrize("name", PAPER)
def test_agrees_with_the_paper(name: str, warmup_steps: float, x64: None) -> None:
    """Both y, where the gradients are taken, and x, where the model is evaluated."""
    build, direction, ranges = PAPER[name]
    for i, hyper in enumerate(settings({**ranges, "weight_lr_power": uniform(0.0, 3.0)}, 2)):
        params, grads = problem(seed=i)
        given = {**hyper, "power": hyper["weight_lr_power"], "warmup_steps": warmup_steps}
        given.pop("weight_lr_power")
        ys, xs = three_points(params, grads, direction, **given)
        points, means = both(build(**hyper, warmup_steps=warmup_steps), params, grads)
        assert_agree(points, ys, 1e-9)
        assert_agree(means, xs, 1e-9)


def test_defaults_and_numbers_that_are_traced(x64: None) -> None:
    """β = 0.9, p = 2, and for Adam 0.0025, 0.999 and 1e-8; as an argument of ``jit`` too."""
    params, grads = problem(seed=3)
    shared = {"b1": 0.9, "warmup_steps": 0, "weight_decay": 0.0}
    expected, _ = three_points(params, grads, plain, 1.0, **shared)
    check_run(cx.schedule_free_sgd(), params, grads, expected, constant_too=True)
    expected, _ = three_points(params, grads, rms, 2.5e-3, **shared, b2=0.999, eps=1e-8)
    assert_agree(run(cx.schedule_free_adamw(), params, grads, closed_over=True), expected, 1e-9)


def test_primal_averaging(x64: None) -> None:
    """At β = 1 gradients are taken at the mean itself."""
    params, grads = problem(seed=3)
    expected = three_points(params, grads, plain, 0.1, b1=1.0, warmup_steps=0, weight_decay=0.0)
    points, means = both(cx.schedule_free_sgd(0.1, b1=1.0), params, grads)
    for ours, theirs in ((points, expected[0]), (means, expected[1]), (points, means)):
        assert_agree(ours, theirs, 1e-9)


def optax_sgd(**hyper: Any) -> Any:
    """By Optax."""
    return optax.contrib.schedule_free_sgd(**hyper)


def optax_adamw(**hyper: Any) -> Any:
    """By Optax."""
    return optax.contrib.schedule_free_adamw(**hyper)


def square(**hyper: Any) -> cx.chain:
    """The published code's bias correction."""
    return cx.schedule_free_adamw(**hyper, debias="square")


@pytest.mark.parametrize(
    ("build", "theirs", "ranges"),
    ((cx.schedule_free_sgd, optax_sgd, SGD), (square, optax_adamw, ADAMW)),
    ids=("sgd", "adamw"),
)
def test_agrees_with_optax(build: Any, theirs: Any, ranges: Any, x64: None) -> None:
    """At a constant rate: during a warm-up Optax weighs a step by the rate of the next."""
    for i, hyper in enumerate(settings(ranges, 5)):
        params, grads = problem(seed=i)
        expected = run_optax(theirs, hyper, params, grads)
        check_run(build(**hyper), params, grads, expected, constant_too=i == 0)


@pytest.mark.parametrize(("build", "name"), ((cx.schedule_free_sgd, "ScheduleFreeSGD"), (square, "ScheduleFreeAdamW")))
def test_agrees_with_pytorch_optimizer(build: Any, name: str, x64: None) -> None:
    """With a warm-up, which is from the first step on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("pytorch_optimizer")
    for i, h in enumerate(settings(SGD if name == "ScheduleFreeSGD" else ADAMW, 3)):
        params, grads = problem(seed=i)
        given = {"lr": h["learning_rate"], "weight_decay": h["weight_decay"], "warmup_steps": 10, "foreach": False}
        more = {"betas": (h["b1"], h["b2"]), "eps": h["eps"]} if "b2" in h else {"momentum": h["b1"]}
        expected = run_pytorch_optimizer(
            lambda groups, given=given, more=more: getattr(library, name)(groups, **given, **more), params, grads
        )
        check_run(build(**h, warmup_steps=10), params, grads, expected)


def test_wraps_any_chain(x64: None) -> None:
    """A clip and a decay by path among others: x is the mean of the points z that the chain goes through."""
    params, grads = problem(seed=4)
    inner = cx.chain(
        cx.clip_by_global_norm(1.0),
        cx.scale_by_adam(b1=0.0),
        cx.add_decayed_weights(cx.by_path({"vector": 0.0}, default=0.1)),
        cx.scale_by_lr(0.01),
    )
    tx, p = cx.schedule_free(inner, 0.8), jax.tree.map(jnp.asarray, params)
    state, z, x = tx.init(p), p, p
    alone = inner.init(p)
    for t in range(5):
        g = {name: jnp.asarray(g[t]) for name, g in grads.items()}
        updates, alone = inner.update(g, alone, p)
        p, state = tx.step(p, state, g)
        z = cx.apply_updates(z, updates)
        x = jax.tree.map(lambda a, b, t=t: a + (b - a) / (t + 1), x, z)
        assert_agree(cx.schedule_free_eval_params(tx, p, state), x, 1e-9)
        assert_agree(p, jax.tree.map(lambda a, b: 0.8 * a + 0.2 * b, x, z), 1e-9)


def test_a_rate_of_zero_has_no_weight() -> None:
    """A warm-up from 0 divides no 0 by 0, and its derivative is finite."""
    rate = cx.linear_schedule(0.0, 0.1, 2)

    def end(power: jax.Array) -> jax.Array:
        tx = cx.schedule_free(cx.chain(cx.scale_by_lr(rate)), weight_lr_power=power)
        p = jnp.array(1.0)
        state = tx.init(p)
        for _ in range(3):
            p, state = tx.step(p, state, p)
        return p

    value, slope = jax.value_and_grad(end)(jnp.array(2.0))
    assert 0.8 < value < 1.0
    assert jnp.isfinite(slope)
    assert slope != 0


def test_a_chain_without_a_rate_has_a_plain_mean() -> None:
    """Without `scale_by_lr` all steps weigh alike."""
    tx = cx.schedule_free(cx.chain(cx.scale(-0.5)))
    p = jnp.array(1.0)
    state = tx.init(p)
    for gradient in (1.0, 2.0, 3.0):
        p, state = tx.step(p, state, jnp.array(gradient))
    mean = np.mean([0.5, -0.5, -2.0])
    np.testing.assert_allclose(cx.schedule_free_eval_params(tx, p, state), mean, rtol=1e-6)


def test_low_precision_parameters_have_their_mean_in_their_dtype() -> None:
    """z is kept in float32, x comes in bfloat16 as the parameters do, and other leaves as they are."""
    tx = cx.schedule_free_sgd(0.1)
    params = {"w": jnp.ones(3, jnp.bfloat16), "steps": jnp.arange(2), "hole": None}
    params, state = tx.step(params, tx.init(params), {"w": jnp.ones(3, jnp.bfloat16), "steps": None, "hole": None})
    mean = cx.schedule_free_eval_params(tx, params, state)
    assert state.links["schedule_free"]["z"]["w"].dtype == jnp.float32
    assert mean["w"].dtype == jnp.bfloat16
    assert mean["hole"] is None
    np.testing.assert_array_equal(mean["steps"], jnp.arange(2))
    np.testing.assert_allclose(mean["w"].astype(jnp.float32), 0.9, rtol=1e-2)


def test_the_mean_of_what() -> None:
    """Of a link by which the parameters move: `mechanize` moves them farther than the chain that it holds."""
    for tx in (cx.adam(), cx.chain(cx.mechanize(cx.schedule_free_sgd()))):
        params = jnp.array(1.0)
        with pytest.raises(KeyError, match="no schedule_free link moves the parameters"):
            cx.schedule_free_eval_params(tx, params, tx.init(params))


FREE = cx.schedule_free_sgd(0.5, b1=0.5)
WITHIN = {
    "accumulate": cx.accumulate(FREE, 1),
    "accumulate in a chain": cx.chain(cx.clip_by_global_norm(1e9), cx.accumulate(FREE, 1)),
    "partition": cx.partition(cx.by_path({"w": FREE}, default=cx.freeze())),
    "two groups": cx.partition(cx.by_path({"w": FREE, "v": cx.schedule_free_sgd(0.5, b1=0.9)})),
    "pack": cx.pack(FREE),
    "None at init": FREE,
}


@pytest.mark.parametrize("name", WITHIN)
def test_the_mean_is_found_within_other_links(name: str) -> None:
    """Parameters that the link does not move are as they are, and not divided by β."""
    tx, g = WITHIN[name], jnp.ones(2)
    params: Any = {"w": jnp.ones(2), "v": jnp.full(2, 3.0)}
    gradients: Any = {"w": g, "v": g}
    if name == "None at init":
        gradients["v"] = None
        state = tx.init({**params, "v": None})
        tx_state = tx.init({"w": params["w"], "v": None})
        moving = {"w": params["w"], "v": None}
        for _ in range(2):
            moving, tx_state = tx.step(moving, tx_state, gradients)
        mean = cx.schedule_free_eval_params(tx, {**moving, "v": params["v"]}, tx_state)
        np.testing.assert_allclose(mean["v"], 3.0)
    else:
        state = tx.init(params)
        for _ in range(2):
            params, state = tx.step(params, state, gradients)
        mean = cx.schedule_free_eval_params(tx, params, state)
        np.testing.assert_allclose(mean["v"], 3.0 if name == "partition" else 2.25, rtol=1e-6)
    np.testing.assert_allclose(mean["w"], 0.25, rtol=1e-6)


def test_several_means_are_told_apart() -> None:
    """By the names of their links."""
    tx = cx.partition(cx.by_path({"w": cx.chain(a=FREE), "v": cx.chain(b=FREE)}))
    params = {"w": jnp.ones(2), "v": jnp.ones(2)}
    with pytest.raises(KeyError, match="several links keep a mean: say which by name= one of a, b"):
        cx.schedule_free_eval_params(tx, params, tx.init(params))
    assert cx.schedule_free_eval_params(tx, params, tx.init(params), name="b").keys() == params.keys()
