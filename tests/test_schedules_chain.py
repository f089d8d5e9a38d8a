"""Schedules as hyperparameters: rate and momentum change together, as PyTorch's schedulers have them."""

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import STEPS, Tree, assert_agree, follow, problem, run

torch = pytest.importorskip("torch")
lr_scheduler = torch.optim.lr_scheduler

ONE_CYCLE = {"pct_start": 0.37, "div_factor": 7.0, "final_div_factor": 30.0, "base_momentum": 0.8, "max_momentum": 0.97}
RATE = cx.onecycle_schedule(STEPS, 0.1, 0.37, 7.0, 30.0)
MOMENTUM = cx.onecycle_momentum_schedule(STEPS, 0.8, 0.97, 0.37)


def one_cycle(optimizer):
    """The scheduler that `RATE` and `MOMENTUM` are."""
    return lr_scheduler.OneCycleLR(optimizer, 0.1, STEPS, **ONE_CYCLE)


def triangles(optimizer):
    """Five cycles, the last of them cut short."""
    return lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, 13, 10, base_momentum=0.7, max_momentum=0.95)


def by_torch(optimizer, scheduler, params: Tree, grads: Tree, **hyper) -> Tree:
    """The trajectory of a ``torch.optim`` optimizer with a scheduler, in float64."""
    leaves = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in params.items()}
    opt = getattr(torch.optim, optimizer)(leaves.values(), lr=0.1, foreach=False, **hyper)
    schedule = scheduler(opt)
    trajectory = {name: [] for name in params}
    for k in range(STEPS):
        for name, p in leaves.items():
            p.grad = torch.tensor(grads[name][k])
        opt.step()
        schedule.step()
        for name, p in leaves.items():
            trajectory[name].append(p.detach().numpy().copy())
    return {name: np.stack(points) for name, points in trajectory.items()}


CASES = {
    "SGD, one cycle": (cx.sgd(RATE, momentum=MOMENTUM), "SGD", one_cycle, {"momentum": 0.9}),
    "SGD, one cycle, Nesterov and decay": (
        cx.sgd(RATE, momentum=MOMENTUM, nesterov=True, weight_decay=0.01),
        *("SGD", one_cycle, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ),
    "AdamW, one cycle in β₁": (
        cx.adamw(RATE, b1=MOMENTUM, b2=0.98, weight_decay=0.01),
        *("AdamW", one_cycle, {"betas": (0.9, 0.98), "weight_decay": 0.01}),
    ),
    "SGD, triangles": (
        cx.sgd(cx.cyclic_schedule(0.01, 0.1, 13, 10), momentum=cx.cyclic_schedule(0.95, 0.7, 13, 10)),
        *("SGD", triangles, {"momentum": 0.9}),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rate_and_momentum_are_pytorchs(case, x64):
    """The same parameters at every step of a whole cycle, in float64, closed over and as an argument."""
    tx, optimizer, scheduler, hyper = CASES[case]
    params, grads = problem(seed=0)
    expected = by_torch(optimizer, scheduler, params, grads, **hyper)
    for closed_over in (False, True):
        assert_agree(run(tx, params, grads, closed_over=closed_over), expected, 1e-9)


def test_hypergradients_of_a_cycle(x64):
    """The derivatives of a run by the cycle's numbers are its finite differences: the cycle itself can be learned."""
    start = jax.tree.map(jnp.asarray, problem(seed=0, shapes={"vector": (3,)}))

    @jax.jit
    def end(tx):
        return sum(follow(tx, *start)["vector"][-1] ** 2)

    tx = CASES["SGD, one cycle"][0]
    numbers, structure = jax.tree.flatten(tx)
    slopes = jax.jit(jax.grad(lambda xs: end(jax.tree.unflatten(structure, xs))))(numbers)
    for i, slope in enumerate(slopes):
        h = 1e-6 * (numbers[i] or 1.0)
        up, down = (
            end(jax.tree.unflatten(structure, [*numbers[:i], numbers[i] + d, *numbers[i + 1 :]])) for d in (h, -h)
        )
        np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=1e-5, atol=1e-9)
        assert slope != 0
