"""64 settings of AdamW (learning rate × weight decay) on a small problem, end to end with compilation."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np

FEATURES, HIDDEN, EXAMPLES = 32, 32, 256
RATES, DECAYS = np.geomspace(1e-4, 1e-2, 8), np.geomspace(1e-3, 1, 8)
POINTS = [(float(rate), float(decay)) for rate in RATES for decay in DECAYS]
STEPS = 100
TOLERANCE = 1e-3  # of the last losses, relative

# which library, and what is done
WAYS = {
    "chainax": ("chainax", "cx.stack, one jit of a vmap over the chain"),
    "optax": ("optax", "one jit for each setting, with the setting in the closure"),
    "optax_vmap": ("optax", "one jit of a vmap over a function that builds the optimizer from two tracers"),
    "torch": ("torch", "a loop for each setting, fused AdamW, one thread, nothing compiled"),
}


def timed(how: str, points: list[tuple[float, float]], steps: int) -> tuple[float, list[float]]:
    """Seconds from the settings to the last losses, with every cache of compiled code empty at the start."""
    if how != "torch":
        import jax

        jax.clear_caches()
    gc.collect()
    start = time.perf_counter()
    losses = _HOW[how](points, steps)
    return time.perf_counter() - start, [float(x) for x in losses]


@functools.cache
def _problem() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((EXAMPLES, FEATURES), np.float32)
    y = np.sin(x[:, :4].sum(axis=1)).astype(np.float32)
    w = rng.standard_normal((FEATURES, HIDDEN), np.float32) / np.float32(FEATURES**0.5)
    v = rng.standard_normal(HIDDEN, np.float32) / np.float32(HIDDEN**0.5)
    return x, y, {"w": w, "b": np.zeros(HIDDEN, np.float32), "v": v}


def _train(init: Callable, step: Callable, steps: int) -> Any:
    """The loss after training, in JAX; ``step(params, state, grads)``."""
    import jax
    import jax.numpy as jnp

    x, y, start = _problem()

    def loss(params: dict[str, Any]) -> Any:
        return jnp.mean(jnp.square(jnp.tanh(x @ params["w"] + params["b"][None]) @ params["v"] - y))

    def body(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        return step(params, state, jax.grad(loss)(params)), None

    params = jax.tree.map(jnp.asarray, start)
    (params, _), _ = jax.lax.scan(body, (params, init(params)), length=steps)
    return loss(params)


def _chainax(points: list[tuple[float, float]], steps: int) -> Any:
    import chainax as cx
    import jax

    grid = cx.stack([cx.adamw(rate, weight_decay=decay) for rate, decay in points])
    train = jax.vmap(lambda tx: _train(tx.init, tx.step, steps), in_axes=(grid.axes(),))
    return np.asarray(jax.jit(train)(grid))


def _optax_run(rate: Any, decay: Any, steps: int) -> Any:
    import optax

    tx = optax.adamw(rate, weight_decay=decay)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return _train(tx.init, step, steps)


def _optax(points: list[tuple[float, float]], steps: int) -> Any:
    import jax

    return [jax.jit(functools.partial(_optax_run, rate, decay, steps))() for rate, decay in points]


def _optax_vmap(points: list[tuple[float, float]], steps: int) -> Any:
    import jax

    rates, decays = np.array(points, np.float32).T
    return np.asarray(jax.jit(jax.vmap(functools.partial(_optax_run, steps=steps)))(rates, decays))


def _torch(points: list[tuple[float, float]], steps: int) -> Any:
    import torch

    torch.set_num_threads(1)  # the arrays are so small that threads would only wait for each other
    x, y, start = _problem()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features, targets = torch.tensor(x, device=device), torch.tensor(y, device=device)

    def run(rate: float, decay: float) -> float:
        w, b, v = (torch.tensor(start[name], device=device, requires_grad=True) for name in ("w", "b", "v"))
        optimizer = torch.optim.AdamW((w, b, v), rate, weight_decay=decay, fused=True)

        def loss() -> torch.Tensor:
            return (torch.tanh(features @ w + b) @ v - targets).square().mean()

        for _ in range(steps):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        return loss().item()

    return [run(rate, decay) for rate, decay in points]


_HOW: dict[str, Callable] = {"chainax": _chainax, "optax": _optax, "optax_vmap": _optax_vmap, "torch": _torch}
