"""Links that change what an optimizer does, against pytorch_optimizer and transcriptions of the papers in NumPy."""

from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from libraries import run_pytorch_optimizer
from reference import STEPS, Ranges, assert_agree, check_against_numpy, check_run, log, problem, run, settings, uniform

RATE = {"learning_rate": log(1e-3, 1e-1)}
BETAS = {"b1": uniform(0.1, 0.99), "b2": uniform(0.5, 0.999)}
DECAY = {"weight_decay": log(1e-2, 1.0)}

# pytorch_optimizer


def cautious_lion(learning_rate: Any, b1: Any, b2: Any, weight_decay: Any) -> cx.chain:
    """Lion with the paper's caution."""
    return cx.chain(
        cx.scale_by_lion(b1, b2), cx.cautious(), cx.add_decayed_weights(weight_decay), cx.scale_by_lr(learning_rate)
    )


def grams(learning_rate: Any, b1: Any, b2: Any, weight_decay: Any) -> cx.chain:
    """The paper's optimizer."""
    tx = cx.adamw(learning_rate, b1=b1, b2=b2, eps=1e-6, weight_decay=weight_decay)
    return tx.insert(cx.grams(), after="scale_by_adam")


def decoupled(learning_rate: Any, b1: Any, b2: Any, weight_decay: Any) -> dict[str, Any]:
    """The same hyperparameters by their names there."""
    return {"lr": learning_rate, "betas": (b1, b2), "weight_decay": weight_decay, "weight_decouple": True}


def test_cautious_agrees_with_pytorch_optimizer(x64: None) -> None:
    """Behind Lion, with the decay beyond it."""
    library = pytest.importorskip("pytorch_optimizer")
    for i, hyper in enumerate(settings({**RATE, **BETAS, **DECAY}, count=5)):
        params, grads = problem(seed=i)
        given = {**decoupled(**hyper), "cautious": True, "foreach": False}
        theirs = run_pytorch_optimizer(lambda groups, given=given: library.Lion(groups, **given), params, grads)
        check_run(cautious_lion(**hyper), params, grads, theirs, constant_too=i == 0)


def test_grams_agrees_with_pytorch_optimizer(x64: None) -> None:
    """Behind Adam."""
    library = pytest.importorskip("pytorch_optimizer")
    for i, hyper in enumerate(settings({**RATE, **BETAS, **DECAY}, count=5)):
        params, grads = problem(seed=i)
        given = {**decoupled(**hyper), "eps": 1e-6}
        theirs = run_pytorch_optimizer(lambda groups, given=given: library.Grams(groups, **given), params, grads)
        check_run(grams(**hyper), params, grads, theirs, constant_too=i == 0)


def test_orthogonal_grad_agrees_with_pytorch_optimizer(x64: None) -> None:
    """Before momentum; a leaf of one coordinate has no other direction and stays."""
    torch, library = pytest.importorskip("torch"), pytest.importorskip("pytorch_optimizer")

    def project(leaves: list[Any]) -> None:
        library.base.optimizer.BaseOptimizer.apply_orthogonal_gradients([p for p in leaves if p.numel()], eps=1e-30)

    for i, rate in enumerate((1e-3, 1e-1)):
        params, grads = problem(seed=i)

        def new(groups: list[Any], rate: float = rate) -> Any:
            return torch.optim.SGD(groups, lr=rate, momentum=0.9)

        theirs = run_pytorch_optimizer(new, params, grads, filtered=project)
        tx = cx.sgd(rate, momentum=0.9).insert(cx.orthogonal_grad(), before="trace")
        check_run(tx, params, grads, theirs, constant_too=i == 0)
        np.testing.assert_array_equal(run(tx, params, grads)["scalar"], np.full(STEPS, params["scalar"]))


def test_grokfast_agrees_with_pytorch_optimizer(x64: None) -> None:
    """Before SGD. The first gradient starts the mean."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("pytorch_optimizer.optimizer.grokfast")
    for i, hyper in enumerate(settings({"decay": uniform(0.5, 0.99), "lamb": uniform(0.0, 5.0)}, count=5)):
        params, grads = problem(seed=i)
        means: dict[str, Any] = {}

        def amplify(leaves: list[Any], means: dict = means, hyper: dict = hyper) -> None:
            model = torch.nn.ParameterList(leaves)
            means.update(library.gradfilter_ema(model, means or None, alpha=hyper["decay"], lamb=hyper["lamb"]))

        theirs = run_pytorch_optimizer(lambda g: torch.optim.SGD(g, lr=0.01), params, grads, filtered=amplify)
        check_run(cx.chain(cx.grokfast(**hyper), cx.scale_by_lr(0.01)), params, grads, theirs, constant_too=i == 0)


def test_adamc_agrees_with_pytorch_optimizer(x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a falling rate, with layers that a normalization follows and one that none does."""
    library = pytest.importorskip("pytorch_optimizer")
    # It hides 1e-15 under the root, and scales ε by the correction of bias, so that ε has to be tiny.
    monkeypatch.setattr(library.base.optimizer.BaseOptimizer, "apply_ams_bound", staticmethod(root))
    for i, hyper in enumerate(settings({**RATE, **BETAS, **DECAY}, count=5)):
        params, grads = problem(seed=i)
        peak = hyper.pop("learning_rate")
        given = {**decoupled(peak, **hyper), "eps": 1e-14, "foreach": False}
        normalized = {n: {"normalized": n != "matrix"} for n in params}
        theirs = run_pytorch_optimizer(
            lambda groups, given=given: library.AdamC(groups, **given),
            params,
            grads,
            groups=normalized,
            rate=lambda k, peak=peak: peak * (1 - k / STEPS),
        )
        rate = cx.linear_schedule(peak, 0.0, STEPS)
        tx = cx.adamc(rate, max_learning_rate=peak, eps=1e-14, unnormalized="matrix", **hyper)
        check_run(tx, params, grads, theirs, constant_too=i == 0)


def root(ams_bound: bool, exp_avg_sq: Any, max_exp_avg_sq: Any, eps: float) -> Any:
    """√v + ε."""
    return exp_avg_sq.sqrt().add_(eps)


# NumPy, for what no library has, or not as the paper does


def adam(g: Any, t: int, memory: dict, b1: float, b2: float) -> Any:
    """Adam's direction."""
    m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g**2
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + 1e-6)


def published_caution(
    theta: Any, g: Any, t: int, memory: dict, learning_rate: float, b1: float, b2: float, weight_decay: float
) -> Any:
    """C-AdamW as its code was published: the mean of the mask is at least 1e-3. The decay comes last."""
    u = adam(g, t, memory, b1, b2)
    mask = (u * g > 0).astype(float)
    mask = mask / max(mask.mean(), 1e-3) if mask.size else mask
    return theta - learning_rate * (u * mask + weight_decay * theta)


def cautious_decay(
    theta: Any, g: Any, t: int, memory: dict, learning_rate: float, b1: float, b2: float, weight_decay: float
) -> Any:
    """Chen et al. 2025 on Adam. No library has it."""
    u = adam(g, t, memory, b1, b2)
    return theta - learning_rate * (u + weight_decay * (u * theta >= 0) * theta)


def decay_to_init(
    theta: Any, g: Any, t: int, memory: dict, learning_rate: float, b1: float, b2: float, weight_decay: float
) -> Any:
    """Adam with the gradient of ½λ‖θ − θ₀‖² added. No library has it."""
    return theta - learning_rate * adam(
        g + weight_decay * (theta - memory.setdefault("init", theta)), t, memory, b1, b2
    )


def on_adamw(change: Callable[[cx.chain, Any], cx.chain]) -> Callable[..., cx.chain]:
    """AdamW with a change, which is given the weight decay too."""

    def build(weight_decay: Any, **hyper: Any) -> cx.chain:
        return change(cx.adamw(**hyper, eps=1e-6, weight_decay=weight_decay), weight_decay)

    return build


NUMPY: dict[str, tuple[Callable[..., cx.chain], Callable[..., Any]]] = {
    "cautious": (on_adamw(lambda tx, _: tx.insert(cx.cautious(0.0, 1e-3), after="scale_by_adam")), published_caution),
    "add_cautious_decay": (
        on_adamw(lambda tx, decay: tx.replace("add_decayed_weights", cx.add_cautious_decay(decay))),
        cautious_decay,
    ),
    "decay_to_init": (
        on_adamw(
            lambda tx, decay: tx.remove("add_decayed_weights").insert(cx.decay_to_init(decay), before="scale_by_adam")
        ),
        decay_to_init,
    ),
}
RANGES: Ranges = {**RATE, **BETAS, **DECAY}


@pytest.mark.parametrize("name", NUMPY)
def test_agrees_with_numpy(name: str, x64: None) -> None:
    """Every hyperparameter means what it means in the paper, or in the published code."""
    check_against_numpy(*NUMPY[name], RANGES)


# Properties


def test_caution_never_goes_uphill(x64: None) -> None:
    """Each coordinate moves against its gradient or not at all, and the mean size of a step is kept."""
    params, grads = problem(seed=0)
    tx = cx.chain(cx.trace(0.9), cx.cautious(0.0), cx.scale_by_lr(0.1))
    path = run(tx, params, grads)
    plain = run(cx.chain(cx.trace(0.9), cx.scale_by_lr(0.1)), params, grads)
    uphill = 0
    for n, g in grads.items():
        moves = np.diff(np.asarray(path[n]), axis=0)
        assert np.all(moves * g[1:] <= 0)
        uphill += np.sum(np.diff(np.asarray(plain[n]), axis=0) * g[1:] > 0)
    assert uphill > 100


def test_caution_with_nothing_in_common() -> None:
    """Where no coordinate agrees nothing moves, with or without a floor."""
    g, turned = {"x": jnp.array([1.0, -1.0])}, {"x": jnp.array([-0.1, 0.1])}
    for link in (cx.cautious(), cx.cautious(0.0), cx.cautious(0.0, 1e-3)):
        tx = cx.chain(cx.trace(0.9), link)
        first, state = tx.update(g, tx.init(g))
        assert jnp.all(jnp.sign(first["x"]) == g["x"])
        np.testing.assert_array_equal(tx.update(turned, state)[0]["x"], [0.0, 0.0])


def test_orthogonal_grad_keeps_its_length_and_turns() -> None:
    """In float32: a right angle to the parameter, and the gradient's own length; of a parallel one nothing is left."""
    rng = np.random.default_rng(0)
    p, g = (jnp.asarray(rng.normal(size=(64, 48)), jnp.float32) for _ in range(2))
    tx = cx.chain(cx.orthogonal_grad())
    u, _ = tx.update(0.1 * g + p, tx.init(p), p)
    np.testing.assert_allclose(cx.global_norm(u), cx.global_norm(0.1 * g + p), rtol=1e-6)
    assert abs(jnp.sum(u * p) / cx.global_norm(u) / cx.global_norm(p)) < 1e-5
    for size in (1e-3, 0.7, 30.0):
        for n in (1, 3, 48):
            part = p[:n, :n]
            assert_agree(tx.update(size * part, tx.init(part), part)[0], jnp.zeros((n, n)), 0.0)
    assert_agree(tx.update(g, tx.init(p), jnp.zeros_like(p))[0], g, 1e-6)


def test_decay_to_init_keeps_its_own_copy() -> None:
    """Parameters can be donated: the state does not share their buffers, from the first step on."""
    params = {"x": jnp.arange(3.0)}
    tx = cx.chain(cx.decay_to_init(1.0), cx.scale_by_lr(0.5))
    step, state = cx.make_step(tx), tx.init(params)
    for _ in range(2):
        params, state = step(params, state, {"x": jnp.ones(3)})
    np.testing.assert_array_equal(state.links["decay_to_init"]["init"]["x"], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(params["x"], np.arange(3.0) - 0.75)


def test_the_gradient_is_that_which_came() -> None:
    """Links before change what is modified, not the gradient that it is compared with."""
    g, turned = {"x": jnp.array([3.0, -4.0, 1.0])}, {"x": jnp.array([-0.03, 0.0, 0.04])}
    tx = cx.chain(cx.clip_by_global_norm(1.0), cx.trace(0.5), cx.grams(), cx.scale_by_lr(1.0))
    _, state = tx.update(g, tx.init(g))
    u, _ = jax.jit(tx.update)(turned, state)
    clipped = np.array([3.0, -4.0, 1.0]) / np.sqrt(26.0)
    np.testing.assert_allclose(u["x"], [0.5 * clipped[0] - 0.03, 0.0, -(0.5 * clipped[2] + 0.04)], rtol=1e-6)
