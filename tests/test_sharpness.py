"""Sharpness-aware minimization against NumPy, Optax and pytorch_optimizer; and the invariance that ASAM is made for."""

import warnings
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import STEPS, Ranges, Tree, assert_agree, descend, distance, log, problem, settings, uniform

SHAPES = {"matrix": (4, 3), "scalar": (), "vector": (5,)}


def loss(x: Tree) -> jax.Array:
    """A bowl with waves, whose curvature differs from place to place."""
    return sum((jnp.sum(0.5 * jnp.square(p) + 0.1 * jnp.cos(3 * p)) for p in x.values()), jnp.zeros(()))


def slope(x: np.ndarray) -> np.ndarray:
    """Its gradient, for all coordinates in one vector."""
    return x - 0.3 * np.sin(3 * x)


def start(seed: int) -> Tree:
    """Where the runs begin."""
    return {name: 2 * p for name, p in problem(seed, SHAPES)[0].items()}


def follow(tx: cx.chain, params: Tree) -> Tree:
    """The trajectory of a chain that reads ``grad_fn``, on the loss."""

    def step(carry: tuple, _: None) -> tuple:
        grad = jax.grad(loss)
        params, state = tx.step(*carry, grad(carry[0]), grad_fn=grad)
        return (params, state), params

    def run(tx: cx.chain, params: Tree) -> Tree:
        return jax.lax.scan(step, (params, tx.init(params)), None, STEPS)[1]

    return jax.jit(run)(tx, jax.tree.map(jnp.asarray, params))


def numpy_sam(params: Tree, rate: float, momentum: float, perturb: Callable) -> Tree:
    """Algorithm 1 of either paper, with momentum: all coordinates in one vector."""
    sizes = np.cumsum([p.size for p in params.values()])[:-1]
    w, b, points = np.concatenate([np.ravel(p) for p in params.values()]), 0.0, []
    for _ in range(STEPS):
        b = momentum * b + slope(w + perturb(w, slope(w)))
        w = w - rate * b
        points.append(w)
    parts = np.split(np.stack(points), sizes, axis=1)
    return {name: part.reshape(STEPS, *p.shape) for (name, p), part in zip(params.items(), parts)}


RANGES: Ranges = {"rate": log(1e-2, 1e-1), "momentum": uniform(0.0, 0.9), "rho": log(0.02, 1.0), "eta": log(1e-3, 0.1)}


def test_agrees_with_numpy(x64: None) -> None:
    """Both links, in front of momentum."""
    for i, h in enumerate(settings(RANGES, 5)):
        rho, eta, momentum, rate = h["rho"], h["eta"], h["momentum"], h["rate"]
        sgd = cx.sgd(rate, momentum=momentum)

        def sam(w: np.ndarray, g: np.ndarray, rho: float = rho) -> np.ndarray:
            return rho * g / np.linalg.norm(g)

        def asam(w: np.ndarray, g: np.ndarray, rho: float = rho, eta: float = eta) -> np.ndarray:
            T = np.diag(np.abs(w) + eta)
            return rho * T @ T @ g / np.linalg.norm(T @ g)

        for link, perturb in ((cx.sharpness_aware(rho), sam), (cx.adaptive_sharpness_aware(rho, eta), asam)):
            ours = follow(cx.chain(link, sgd), start(i))
            assert_agree(ours, numpy_sam(start(i), rate, momentum, perturb), 1e-9)
            plain = descend(sgd, loss, start(i))[0]
            assert distance(ours, plain) > 1e-4


@pytest.mark.parametrize(
    ("inner", "theirs"),
    ((cx.sgd(0.05, momentum=0.9), optax.sgd(0.05, momentum=0.9)), (cx.adam(0.02), optax.adam(0.02))),
    ids=("sgd", "adam"),
)
def test_agrees_with_optax(inner: cx.chain, theirs: Any, x64: None) -> None:
    """With Optax's SAM in its opaque mode, around the same optimizer."""
    uphill = optax.chain(optax.contrib.normalize(), optax.sgd(0.1))
    reference = optax.contrib.sam(theirs, uphill, opaque_mode=True)

    def step(carry: tuple, _: None) -> tuple:
        params, state = carry
        updates, state = reference.update(jax.grad(loss)(params), state, params, grad_fn=lambda p, _: jax.grad(loss)(p))
        params = optax.apply_updates(params, updates)
        return (params, state), params

    params = jax.tree.map(jnp.asarray, start(0))
    with jax.numpy_dtype_promotion("standard"):
        expected = jax.jit(lambda p: jax.lax.scan(step, (p, reference.init(p)), None, STEPS)[1])(params)
    assert_agree(follow(cx.chain(cx.sharpness_aware(0.1), inner), start(0)), expected, 1e-9)


@pytest.mark.parametrize("adaptive", (False, True))
def test_agrees_with_pytorch_optimizer(adaptive: bool, x64: None) -> None:
    """Whose adaptive SAM has η = 0. It takes the norm in float32, which is good for 1e-8."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizers = pytest.importorskip("pytorch_optimizer")
    leaves = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in start(1).items()}
    sam = optimizers.SAM(list(leaves.values()), torch.optim.SGD, rho=0.2, adaptive=adaptive, lr=0.05, momentum=0.5)

    def closure() -> Any:
        value: Any = sum((0.5 * p**2 + 0.1 * torch.cos(3 * p)).sum() for p in leaves.values())
        sam.zero_grad()
        value.backward()
        return value

    points = []
    for _ in range(STEPS):
        closure()
        sam.step(closure)
        points.append({name: p.detach().numpy().copy() for name, p in leaves.items()})
    expected = jax.tree.map(lambda *xs: np.stack(xs), *points)
    link = cx.adaptive_sharpness_aware(0.2, 0.0) if adaptive else cx.sharpness_aware(0.2)
    assert_agree(follow(cx.chain(link, cx.sgd(0.05, momentum=0.5)), start(1)), expected, 1e-8)


def test_only_the_adaptive_link_sees_no_rescaling(x64: None) -> None:
    """Two factors of a product may be scaled by c and 1/c: ASAM then looks at points of the same loss, SAM does not."""

    def product(x: Tree) -> jax.Array:
        return jnp.square(x["a"] * x["b"] - 1)

    def loss_there(link: Any, c: float) -> float:
        x, seen = {"a": jnp.array(2.0 * c), "b": jnp.array(0.7 / c)}, []
        tx = cx.chain(link, cx.sgd(0.1))
        tx.step(x, tx.init(x), jax.grad(product)(x), grad_fn=lambda p: seen.append(p) or jax.grad(product)(p))
        return float(product(seen[0]))

    adaptive, plain = cx.adaptive_sharpness_aware(0.1, 0.0), cx.sharpness_aware(0.1)
    np.testing.assert_allclose(loss_there(adaptive, 1.0), loss_there(adaptive, 5.0), rtol=1e-12)
    assert abs(loss_there(plain, 1.0) - loss_there(plain, 5.0)) > 0.1


def test_holes_stay_and_zero_gradients_look_nowhere() -> None:
    """What has no gradient is neither moved nor perturbed; at a stationary point the gradient is taken there."""
    params = {"a": jnp.array([1.0, -2.0], jnp.bfloat16), "b": jnp.ones(2), "n": jnp.arange(2)}
    grads = {"a": jnp.array([3.0, 4.0], jnp.bfloat16), "b": None, "n": None}
    for link, reach in ((cx.sharpness_aware(0.5), [0.3, 0.4]), (cx.adaptive_sharpness_aware(0.5, 0.0), None)):
        tx, seen = cx.chain(link, cx.sgd(1.0)), []

        def grad_fn(p: Any, seen: list = seen) -> Any:
            seen.append(p)
            return {**p, "b": 7 * p["b"]}

        moved, _ = tx.step(params, tx.init(params), grads, grad_fn=grad_fn)
        away = seen[0]["a"] - params["a"].astype(jnp.float32)
        np.testing.assert_allclose(away, reach or [0.5 * 3 / 73**0.5, 0.5 * 16 / 73**0.5], rtol=1e-5)
        assert seen[0]["b"].tolist() == moved["b"].tolist() == [1.0, 1.0]
        assert seen[0]["n"].tolist() == moved["n"].tolist() == [0, 1]
        np.testing.assert_allclose(moved["a"].astype(jnp.float32), -away, rtol=1e-2)
        tx.step(params, tx.init(params), jax.tree.map(jnp.zeros_like, grads), grad_fn=grad_fn)
        np.testing.assert_array_equal(seen[1]["a"], params["a"].astype(jnp.float32))


def test_a_grad_fn_of_another_tree_is_a_mistake() -> None:
    """The error says whose tree it is, and where it differs."""
    x = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = cx.chain(cx.sharpness_aware(), cx.sgd(0.1))
    with pytest.raises(TypeError, match=r"The gradients that grad_fn returned do not have .* at 'b'"):
        tx.step(x, tx.init(x), x, grad_fn=lambda p: {"a": p["a"]})


@pytest.mark.parametrize("link", (cx.sharpness_aware(0.3), cx.adaptive_sharpness_aware(0.5)), ids=repr)
def test_loss_scale_comes_second(link: Any) -> None:
    """With both gradients scaled the run is that without a scale, and an overflow in either refuses the step.

    The other way round, with a ``grad_fn`` that is not scaled, the run is the same too, but an overflow there is not
    seen; and a ``grad_fn`` of the other kind makes the steps as many times too long or too short as the scale is.
    """
    scale, sgd = cx.dynamic_loss_scale(1024.0), cx.sgd(0.1)
    second = cx.chain(link, scale, sgd)
    with pytest.warns(cx.ChainWarning, match="and 'dynamic_loss_scale' before it cannot detect an overflow in it"):
        first = cx.chain(scale, link, sgd)

    def run(tx: cx.chain, steps: int, scaled: bool = False) -> Tree:
        params = jax.tree.map(jnp.asarray, start(0))
        state = tx.init(params)

        def times(by: Any) -> Callable:
            return jax.grad(lambda x: loss(x) * by)

        for _ in range(steps):
            by = 1.0 if "dynamic_loss_scale" not in tx else cx.loss_scale(state)
            params, state = tx.step(params, state, times(by)(params), grad_fn=times(by if scaled else 1.0))
        return params

    plain = run(cx.chain(link, sgd), 5)
    assert distance(run(second, 5, scaled=True), plain) < 1e-6
    assert distance(run(first, 5), plain) < 1e-6
    moved = [
        run(tx, 1, scaled)["vector"] - start(0)["vector"]
        for tx, scaled in ((second, True), (second, False), (first, True))
    ]
    np.testing.assert_allclose(moved[1], moved[0] / 1024, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(moved[2], moved[0] * 1024, rtol=1e-5)

    params = jax.tree.map(jnp.asarray, start(0))
    good, bad = jax.grad(loss)(params), jax.tree.map(lambda p: jnp.full_like(p, jnp.inf), params)
    for grads, there, tx, seen in (
        (bad, jax.grad(loss), second, True),
        (good, lambda x: bad, second, True),
        (bad, jax.grad(loss), first, True),
        (good, lambda x: bad, first, False),
    ):
        _, state = tx.step(params, tx.init(params), grads, grad_fn=there)
        assert cx.loss_scale(state) == (512.0 if seen else 1024.0)
