"""BERT's AdamWeightDecay and MXNet's two Adams against transcriptions of the published code in NumPy."""

import re
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import (
    STEPS,
    Tree,
    assert_agree,
    check_against_numpy,
    check_run,
    distance,
    log,
    problem,
    run,
    run_numpy,
    settings,
    uniform,
)

RATE = {"learning_rate": log(1e-4, 1e-2)}
ADAM = {"b1": uniform(0.0, 0.99), "b2": uniform(0.5, 0.999), "eps": log(1e-8, 1e-3)}

# BERT

MODEL = {
    "bert/layer_0/dense/kernel": (4, 3),
    "bert/layer_0/dense/bias": (3,),
    "bert/layer_0/LayerNorm/gamma": (3,),
    "bert/layer_0/attention/layer_norm/scale": (),
    "bert/embeddings": (2, 3, 2),
    "bert/empty": (0, 3),
}
EXCLUDED = ("LayerNorm", "layer_norm", "bias")


def nested(flat: Tree) -> Tree:
    """``{"a/b": x}`` as ``{"a": {"b": x}}``."""
    tree: Tree = {}
    for name, x in flat.items():
        *folders, last = name.split("/")
        here = tree
        for folder in folders:
            here = here.setdefault(folder, {})
        here[last] = x
    return tree


def bert_rate(k: int, peak: float, warmup_steps: float, total_steps: float) -> float:
    """Linear warm-up; then linear decay to 0, counted from the first step of all."""
    return peak * k / warmup_steps if k < warmup_steps else peak * (1 - min(k, total_steps) / total_steps)


def bert(
    params: Tree,
    grads: Tree,
    learning_rate: float,
    warmup_steps: float,
    total_steps: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    max_norm: float = 1.0,
    excluded: tuple = EXCLUDED,
) -> Tree:
    """The published optimizer: clip by global norm, moments without bias correction, decay by name."""
    params, m, v = dict(params), dict.fromkeys(params, 0.0), dict.fromkeys(params, 0.0)
    trajectory: dict[str, list] = {name: [] for name in params}
    for k in range(STEPS):
        norm = np.sqrt(sum(np.sum(g[k] ** 2) for g in grads.values()))
        for name, theta in params.items():
            g = grads[name][k] * max_norm / max(norm, max_norm)
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g**2
            update = m[name] / (np.sqrt(v[name]) + eps)
            if not any(re.search(pattern, name) for pattern in excluded):
                update = update + weight_decay * theta
            params[name] = theta - bert_rate(k, learning_rate, warmup_steps, total_steps) * update
            trajectory[name].append(params[name])
    return {name: np.stack(points) for name, points in trajectory.items()}


BERT = {
    "learning_rate": log(1e-3, 1e-2),
    **ADAM,
    "weight_decay": log(1e-2, 1.0),
    "warmup_steps": lambda rng: float(rng.integers(1, 40)),
    "total_steps": lambda rng: float(rng.integers(60, 150)),
}


def test_bert_agrees_with_numpy(x64: None) -> None:
    """Every setting of the schedule, also one that ends before the run does."""
    for i, h in enumerate(settings(BERT)):
        params, grads = problem(seed=i, shapes=MODEL)
        theirs = nested(bert(params, grads, **h))
        check_run(cx.bert_adamw(**h), nested(params), nested(grads), theirs, constant_too=i == 0)


def test_bert_defaults(x64: None) -> None:
    """β = (0.9, 0.999), ε = 1e-6, λ = 0.01, and the published list of exclusions; no warm-up is allowed."""
    params, grads = problem(seed=0, shapes=MODEL)
    published = {"b1": 0.9, "b2": 0.999, "eps": 1e-6, "weight_decay": 0.01}
    for warmup in (0, 10):
        theirs = bert(params, grads, 5e-5, warmup, 200, **published)
        tx = cx.bert_adamw(total_steps=200, warmup_steps=warmup)
        assert_agree(run(tx, nested(params), nested(grads)), nested(theirs), 1e-9)


@pytest.mark.parametrize("change", ({"max_norm": 1e9}, {"excluded": ()}, {"excluded": ("LayerNorm", "bias")}))
def test_bert_clips_and_excludes(change: dict[str, Any], x64: None) -> None:
    """The reference without its clip, or without an exclusion, is another optimizer."""
    h = {"b1": 0.9, "b2": 0.999, "eps": 1e-6, "weight_decay": 0.5}
    params, grads = problem(seed=0, shapes=MODEL)
    ours = run(cx.bert_adamw(1e-2, total_steps=100, warmup_steps=10, **h), nested(params), nested(grads))
    theirs = bert(params, grads, 1e-2, 10, 100, **h)
    assert_agree(ours, nested(theirs), 1e-9)
    assert distance(ours, nested(bert(params, grads, 1e-2, 10, 100, **h, **change))) > 1e-2


# MXNet


def moved(theta: Any, g: Any, t: int, memory: dict, rate: float, b1: float, b2: float, eps: float) -> tuple[Any, float]:
    """Adam's step, and the learning rate with the bias correction in it."""
    m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g**2
    rate = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
    return theta - rate * m / (np.sqrt(v) + eps), rate


def clipped(g: Any, bound: float | None) -> Any:
    """``g`` within the bound, if there is one."""
    return g if bound is None else np.clip(g, -bound, bound)


def mxnet07(
    theta: Any,
    g: Any,
    t: int,
    memory: dict,
    learning_rate: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float = 0.0,
    rescale_grad: float = 1.0,
    clip_gradient: float | None = None,
) -> Any:
    """The decay acts on what the step has moved, at the corrected rate."""
    theta, rate = moved(theta, clipped(rescale_grad * g, clip_gradient), t, memory, learning_rate, b1, b2, eps)
    return theta - rate * weight_decay * theta


def mxnet(
    theta: Any,
    g: Any,
    t: int,
    memory: dict,
    learning_rate: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float = 0.0,
    rescale_grad: float = 1.0,
    clip_gradient: float | None = None,
) -> Any:
    """The decay is added to the rescaled gradient, and clipped with it."""
    g = clipped(rescale_grad * g + weight_decay * theta, clip_gradient)
    return moved(theta, g, t, memory, learning_rate, b1, b2, eps)[0]


OPTIONS = {
    "plain": {},
    "decay": {"weight_decay": log(1e-2, 1.0)},
    "all": {"weight_decay": log(1e-2, 1.0), "rescale_grad": log(0.1, 2.0), "clip_gradient": log(0.05, 0.5)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("build", "rule"), ((cx.mxnet_adam, mxnet), (cx.mxnet07_adam, mxnet07)))
def test_mxnet_agrees_with_numpy(build: Callable, rule: Callable, options: dict, x64: None) -> None:
    """Both place the rescaling, the clip and the decay as their code does."""
    check_against_numpy(build, rule, {**RATE, **ADAM, **options})


def test_the_two_mxnets_differ_by_their_decay(x64: None) -> None:
    """Without decay they are one."""
    params, grads = problem(seed=0)
    for decay, low, high in ((None, 0.0, 1e-12), (0.1, 1e-3, 1.0)):
        a, b = (run(build(1e-2, weight_decay=decay), params, grads) for build in (cx.mxnet_adam, cx.mxnet07_adam))
        assert low <= distance(a, b) <= high


def test_mxnet_takes_a_schedule(x64: None) -> None:
    """A schedule of the learning rate is corrected for bias as a number is."""
    params, grads = problem(seed=0)
    h = {"b1": 0.9, "b2": 0.99, "eps": 1e-4}
    for build, rule in ((cx.mxnet_adam, mxnet), (cx.mxnet07_adam, mxnet07)):
        tx = build(cx.linear_schedule(1e-2, 0.0, 50), weight_decay=0.1, **h)

        def scheduled(theta: Any, g: Any, t: int, memory: dict, rule: Callable = rule) -> Any:
            rate = 1e-2 * (1 - min(t - 1, 50) / 50)
            return rule(theta, g, t, memory, rate, **h, weight_decay=0.1)

        assert_agree(run(tx, params, grads), run_numpy(scheduled, params, grads), 1e-9)


def test_mxnet_epsilon_is_not_corrected(x64: None) -> None:
    """With a large ε the first step is α·√(1−β₂)·g/(√(1−β₂)·|g| + ε), which is not Adam's."""
    params = {"x": jnp.ones(3)}
    grads = {"x": jnp.array([0.5, -1.0, 2.0])}
    tx = cx.mxnet_adam(0.1, eps=0.1)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    root, g = np.sqrt(1e-3), np.array([0.5, -1.0, 2.0])
    assert_agree(updates, {"x": -0.1 * root * g / (root * np.abs(g) + 0.1)}, 1e-9)
