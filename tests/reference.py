"""What the reference tests share: a problem, and its trajectory by chainax, PyTorch and NumPy.

Trees are dicts from names to arrays. A *trajectory* has the parameters after every step along a new
first axis, so that comparing two of them compares all steps, the first included.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import quickly

Tree = dict[str, Any]
Draw = Callable[[np.random.Generator], float]
Ranges = dict[str, Draw]

SHAPES = {"matrix": (4, 3), "vector": (5,), "scalar": (), "cube": (2, 3, 2), "empty": (0, 3)}
STEPS = 100
SETTINGS = 20
TOLERANCE = {np.float64: 1e-9, np.float32: 1e-5}


def problem(seed: int, shapes: dict[str, tuple] = SHAPES) -> tuple[Tree, Tree]:
    """Parameters in (−1, 1), and a stack of gradients whose size differs by coordinate and over time.

    A tenth of the gradients is 0. All numbers are exact in float32.
    """
    rng = np.random.default_rng(seed)
    params, grads = {}, {}
    for name, shape in shapes.items():
        params[name] = rng.uniform(-1, 1, shape).astype(np.float32).astype(np.float64)
        size = 10 ** rng.uniform(-2, 0.3, shape)
        swell = np.exp(np.sin(np.arange(STEPS) / 7 + rng.uniform(0, 6))).reshape(-1, *(1 for _ in shape))
        kept = rng.uniform(size=(STEPS, *shape)) > 0.1
        g = (rng.normal(size=(STEPS, *shape)) + 0.3) * size * swell * kept
        grads[name] = g.astype(np.float32).astype(np.float64)
    return params, grads


def uniform(low: float, high: float) -> Draw:
    """A hyperparameter drawn evenly from [low, high)."""
    return lambda rng: float(rng.uniform(low, high))


def log(low: float, high: float) -> Draw:
    """A hyperparameter whose logarithm is drawn evenly."""
    return lambda rng: float(np.exp(rng.uniform(np.log(low), np.log(high))))


def settings(ranges: Ranges, count: int = SETTINGS, seed: int = 0) -> list[dict[str, float]]:
    """Random hyperparameters, the same at every run."""
    rng = np.random.default_rng(seed)
    return [{name: draw(rng) for name, draw in ranges.items()} for _ in range(count if ranges else 1)]


# Trajectories


def follow(tx: cx.chain, params: Tree, grads: Tree) -> Tree:
    """The trajectory of a chain on given gradients; closed over by ``jit``, its numbers are constants."""

    def step(carry: tuple, g: Tree) -> tuple:
        p, state = tx.step(*carry, g)
        return (p, state), p

    return jax.lax.scan(step, (params, tx.init(params)), grads)[1]


traced = quickly(follow)
"""`follow` with the chain as an argument: its numbers are traced, and chains of one structure share a compilation."""


def run(tx: cx.chain, params: Tree, grads: Tree, dtype: Any = np.float64, *, closed_over: bool = False) -> Tree:
    """The trajectory of a chain, computed in ``dtype``."""
    params, grads = jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, grads))
    return quickly(lambda p, g: follow(tx, p, g))(params, grads) if closed_over else traced(tx, params, grads)


@functools.partial(quickly, static_argnames=("loss", "lookahead"))
def descend(tx: cx.chain, loss: Callable[[Tree], Any], params: Tree, *, lookahead: bool = False) -> tuple[Tree, Tree]:
    """The trajectory of a chain on a loss, and the points at which the gradients were taken."""

    def step(carry: tuple, _: None) -> tuple:
        at = tx.lookahead(*carry) if lookahead else carry[0]
        p, state = tx.step(*carry, jax.grad(loss)(at))
        return (p, state), (p, at)

    params = jax.tree.map(jnp.asarray, params)
    return jax.lax.scan(step, (params, tx.init(params)), None, STEPS)[1]


def run_numpy(rule: Callable[..., Any], params: Tree, grads: Tree, **hyper: Any) -> Tree:
    """The trajectory of ``rule(theta, g, t, memory, **hyper) -> theta``, one leaf after the other."""
    out = {}
    for name, theta in params.items():
        memory: dict[str, Any] = {}
        points = [theta := rule(theta, grads[name][t - 1], t, memory, **hyper) for t in range(1, STEPS + 1)]
        out[name] = np.stack(points)
    return out


def run_torch(
    optimizer: str,
    groups: list[tuple[list[str], dict[str, Any]]],
    params: Tree,
    grads: Tree | Callable[[Tree], Tree],
    dtype: Any = np.float64,
    *,
    rate: Callable[[int], float] | None = None,
    joins: dict[int, list[str]] | None = None,
    **hyper: Any,
) -> Tree:
    """The trajectory of a ``torch.optim`` optimizer.

    ``grads`` is a stack or a function of the parameters, ``groups`` are names with their own
    hyperparameters, ``rate(k)`` is the learning rate after k steps, and ``joins[k]`` names the
    parameters that are added as a group after k steps.
    """
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # NAdam's running product has the default dtype
    try:
        leaves = {n: torch.nn.Parameter(torch.tensor(p.astype(dtype))) for n, p in params.items()}
        new = getattr(torch.optim, optimizer)
        own = [{"params": [leaves[n] for n in names], **of} for names, of in groups]
        opt = new(own, foreach=False, **hyper)
        trajectory: dict[str, list] = {n: [] for n in params}
        for k in range(STEPS):
            if joins and k in joins:
                opt.add_param_group({"params": [leaves[n] for n in joins[k]]})
            if rate:
                for group in opt.param_groups:
                    group["lr"] = rate(k)
            now = {n: p.detach().numpy().copy() for n, p in leaves.items()}
            g = grads(now) if callable(grads) else {n: g[k] for n, g in grads.items()}
            for n, p in leaves.items():
                p.grad = torch.tensor(np.asarray(g[n], dtype))
            opt.step()
            for n, p in leaves.items():
                trajectory[n].append(p.detach().numpy().copy())
    finally:
        torch.set_default_dtype(before)
    return {n: np.stack(points) for n, points in trajectory.items()}


def torch_names(hyper: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters by their names in ``torch.optim``."""
    renamed = {"learning_rate": "lr", "decay": "alpha"}
    out = {renamed.get(k, k): v for k, v in hyper.items() if k not in ("b1", "b2")}
    return {**out, "betas": (hyper["b1"], hyper["b2"])} if "b1" in hyper else out


# Comparisons


@dataclasses.dataclass(frozen=True)
class Case:
    """A chain that is to be the same as an optimizer of ``torch.optim``."""

    chain: Callable[..., cx.chain]
    torch: str
    ranges: Ranges
    static: dict[str, Any] = dataclasses.field(default_factory=dict)
    torch_static: dict[str, Any] = dataclasses.field(default_factory=dict)


def assert_agree(ours: Tree, theirs: Tree, atol: float) -> None:
    """Finite, of the same structure and shapes, and nowhere farther apart than ``atol``."""
    chex.assert_tree_all_finite(theirs)
    chex.assert_trees_all_equal_shapes(ours, theirs)
    chex.assert_trees_all_close(ours, theirs, atol=atol, rtol=0.0)


def check_run(
    tx: cx.chain, params: Tree, grads: Tree, expected: Tree, dtype: Any = np.float64, *, constant_too: bool = False
) -> None:
    """The chain has the expected trajectory as an argument of ``jit``, and on request closed over too."""
    for closed_over in (False, True) if constant_too else (False,):
        assert_agree(run(tx, params, grads, dtype, closed_over=closed_over), expected, TOLERANCE[dtype])


def distance(a: Tree, b: Tree) -> float:
    """The largest difference between two trees."""
    return max(float(np.max(np.abs(x - y), initial=0.0)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def check_against_torch(case: Case, dtype: Any) -> None:
    """At all settings with the chain as an argument of ``jit``; in float64 at the first closed over too."""
    with jax.enable_x64(dtype is np.float64):
        for i, hyper in enumerate(settings(case.ranges)):
            params, grads = problem(seed=i)
            given = torch_names({**hyper, **case.static}) | case.torch_static
            theirs = run_torch(case.torch, [(list(params), {})], params, grads, dtype, **given)
            tx = case.chain(**hyper, **case.static)
            check_run(tx, params, grads, theirs, dtype, constant_too=i == 0 and dtype is np.float64)


def check_against_numpy(build: Callable[..., cx.chain], rule: Callable[..., Any], ranges: Ranges) -> None:
    """As `check_against_torch`, in float64, with a transcription for reference."""
    for i, hyper in enumerate(settings(ranges)):
        params, grads = problem(seed=i)
        theirs = run_numpy(rule, params, grads, **hyper)
        tx = build(**hyper)
        check_run(tx, params, grads, theirs, constant_too=i == 0)
