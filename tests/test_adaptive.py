"""Adam's relatives against PyTorch, Optax, pytorch_optimizer, and transcriptions of the papers in NumPy."""

import functools
from collections.abc import Callable
from typing import Any

import chainax as cx
import chainax.extend as cxe
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from agreement import check_against_optax, pytorch_optimizer
from libraries import run_optax, run_pytorch_optimizer
from reference import (
    STEPS,
    TOLERANCE,
    Case,
    Ranges,
    Tree,
    assert_agree,
    check_against_numpy,
    check_against_torch,
    check_run,
    log,
    problem,
    run,
    settings,
    torch_names,
    uniform,
)

RATE = {"learning_rate": log(1e-4, 1e-2)}
ADAM = {**RATE, "b1": uniform(0.0, 0.99), "b2": uniform(0.5, 0.999), "eps": log(1e-10, 1e-3)}
TINY = {**ADAM, "eps": lambda rng: 1e-14}  # where libraries differ in what they multiply ε by
DECAY = {"weight_decay": log(1e-4, 1e-1)}
ROOT = {**ADAM, "eps_root": log(1e-8, 1e-2)}

# PyTorch

TORCH = {
    "adamax defaults": Case(cx.adamax, "Adamax", {}),
    "adamax": Case(cx.adamax, "Adamax", {**ADAM, **DECAY}),
    "radam defaults": Case(cx.radam, "RAdam", {}),
    "radam": Case(cx.radam, "RAdam", {**ADAM, **DECAY}),
    "radamw": Case(cx.radamw, "RAdam", {**ADAM, **DECAY}, torch_static={"decoupled_weight_decay": True}),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", TORCH.values(), ids=TORCH)
def test_agrees_with_torch(case: Case, dtype: Any) -> None:
    """Every hyperparameter, the decay, and the defaults mean what they mean in PyTorch."""
    check_against_torch(case, dtype)


# Optax


def optax_belief(learning_rate: Any, eps: Any, weight_decay: Any, eps_root: Any = None, **hyper: Any) -> Any:
    """AdaBelief, with the paper's single ε unless there are two."""
    belief = optax.scale_by_belief(**hyper, eps=eps, eps_root=eps if eps_root is None else eps_root)
    return optax.chain(belief, optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(learning_rate))


def yogi(eps_root: Any, **hyper: Any) -> cx.chain:
    """Yogi from 0: Optax starts the mean at v₀ too."""
    return cx.yogi(**hyper, initial_accumulator_value=0.0).replace("scale_by_yogi", eps_root=eps_root)


def optax_yogi(learning_rate: Any, **hyper: Any) -> Any:
    """Yogi from 0."""
    link = optax.scale_by_yogi(**hyper, initial_accumulator_value=0.0)
    return optax.chain(link, optax.scale_by_learning_rate(learning_rate))


def optax_adopt(power: Any, **hyper: Any) -> Any:
    """ADOPT with the bound on a power law."""
    return optax.contrib.adopt(**hyper, clip_value_fn=lambda t: t**power)


def adopt(bound: Any, **hyper: Any) -> cx.chain:
    """ADOPT with a bound that rises along a line."""
    return cx.adopt(**hyper, clip_value_fn=cx.linear_schedule(0.0, bound, 50))


def optax_adopt_on_a_line(bound: Any, **hyper: Any) -> Any:
    """The same in Optax."""
    return optax.contrib.adopt(**hyper, clip_value_fn=lambda k: bound * jnp.minimum(k, 50).astype(jnp.float64) / 50)


OPTAX: dict[str, tuple[Callable[..., cx.chain], Callable[..., Any], Ranges]] = {
    "adam": (cx.adam, optax.adam, ROOT),
    "adamw": (cx.adamw, optax.adamw, {**ROOT, **DECAY}),
    "adabelief": (cx.adabelief, optax_belief, {**ADAM, **DECAY}),
    "adabelief of two ε": (cx.adabelief, optax_belief, {**ROOT, **DECAY}),
    # Optax has the weight 1−β₂ where the paper has β₂, and PyTorch's ε is not corrected for bias.
    "adan": (cx.adan, optax.adan, {**ROOT, **DECAY, "b2": lambda rng: 0.5, "b3": uniform(0.5, 0.999)}),
    "radam": (cx.radam, optax.radam, {**ROOT, "eps": lambda rng: 0.0}),
    "adamaxw": (cx.adamaxw, optax.adamaxw, {**ADAM, **DECAY}),
    "nadamw": (cx.nadamw, optax.nadamw, {**ROOT, **DECAY}),
    "novograd": (cx.novograd, optax.novograd, {**ROOT, **DECAY}),
    "yogi": (yogi, optax_yogi, ROOT),
    "adopt": (cx.adopt, optax_adopt, {**ADAM, "power": uniform(0.0, 0.5)}),
    "adopt on a line": (adopt, optax_adopt_on_a_line, {**ADAM, "bound": log(0.3, 30.0)}),
    "adopt unclipped": (
        functools.partial(cx.adopt, power=None),
        functools.partial(optax.contrib.adopt, use_clipping=False),
        {**ADAM, "learning_rate": log(1e-6, 1e-4), "eps": log(1e-3, 1e-1)},
    ),
    "ademamix": (
        cx.ademamix,
        optax.contrib.ademamix,
        {**ROOT, **DECAY, "b3": uniform(0.9, 0.9999), "alpha": uniform(0.0, 8.0)},
    ),
    "simplified ademamix": (
        cx.simplified_ademamix,
        optax.contrib.simplified_ademamix,
        {**ROOT, **DECAY, "learning_rate": log(1e-5, 1e-3), "alpha": uniform(0.0, 8.0)},
    ),
    "amsgrad before": (functools.partial(cx.amsgrad, debias="before"), optax.amsgrad, ROOT),
    "amsgrad never": (
        functools.partial(cx.amsgrad, debias="never"),
        functools.partial(optax.amsgrad, bias_correction_mu=False, bias_correction_nu=False),
        ROOT,
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_agrees_with_optax(name: str, x64: None) -> None:
    """Every hyperparameter means what it means in Optax."""
    check_against_optax(*OPTAX[name])


# pytorch_optimizer


def adan_proximal(learning_rate: float, weight_decay: float, **hyper: float) -> cx.chain:
    """Adan with the paper's proximal decay, which shrinks the step too."""
    return cx.adan(learning_rate / (1 + learning_rate * weight_decay), **hyper, weight_decay=weight_decay)


ADAN = {**ADAM, "b2": uniform(0.0, 0.99), "b3": uniform(0.5, 0.999)}
MIX = {**ADAM, "b1": uniform(0.1, 0.99), "b3": uniform(0.99, 0.9999), "alpha": uniform(0.0, 8.0)}
MIX |= {"warmup_steps": lambda rng: float(rng.integers(1, 150))}
PYTORCH_OPTIMIZER: dict[str, tuple[Callable[..., cx.chain], str, Ranges, dict[str, Any]]] = {
    "adan": (cx.adan, "Adan", {**ADAN, **DECAY}, {"weight_decouple": True}),
    "adan proximal": (adan_proximal, "Adan", {**ADAN, **DECAY}, {}),
    "laprop": (cx.laprop, "LaProp", TINY, {}),
    "ademamix warm-up": (cx.ademamix, "AdEMAMix", {**MIX, **DECAY}, {"weight_decouple": True}),
    "stable_adamw": (cx.stable_adamw, "StableAdamW", {**TINY, "weight_decay": lambda rng: 0.0}, {}),
    "mars_adamw": (cx.mars_adamw, "MARS", {**TINY, **DECAY, "gamma": uniform(0.0, 0.1)}, {"optimize_1d": True}),
}


@pytest.mark.parametrize("name", PYTORCH_OPTIMIZER)
def test_agrees_with_pytorch_optimizer(name: str, x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hyperparameter means what it means there; MARS clips each leaf alone, so each is a tree of its own."""
    library = pytorch_optimizer()
    # It hides 1e-15 under the root of MARS and LaProp, beside ε.
    monkeypatch.setattr(library.base.optimizer.BaseOptimizer, "apply_ams_bound", staticmethod(root))
    ours, theirs, ranges, static = PYTORCH_OPTIMIZER[name]
    for i, hyper in enumerate(settings(ranges, count=5)):
        params, grads = problem(seed=i)
        given = {k: v for k, v in torch_names(hyper).items() if k not in ("b3", "warmup_steps")}
        given["betas"] = tuple(hyper[b] for b in ("b1", "b2", "b3") if b in hyper)
        if "warmup_steps" in hyper:
            given["t_alpha_beta3"] = hyper["warmup_steps"]
        new = functools.partial(getattr(library, theirs), foreach=False, **given, **static)
        expected = run_pytorch_optimizer(new, params, grads)
        for group in [[n] for n in params] if name == "mars_adamw" else [list(params)]:
            check_run(ours(**hyper), *({n: tree[n] for n in group} for tree in (params, grads, expected)))


def root(ams_bound: bool, exp_avg_sq: Any, max_exp_avg_sq: Any, eps: float) -> Any:
    """√v + ε."""
    assert not ams_bound
    return exp_avg_sq.sqrt().add_(eps)


# NumPy, for what no library has as the paper does


def mean(memory: dict, name: str, x: Any, decay: float) -> Any:
    """The next moving average, which starts at 0."""
    memory[name] = decay * memory.get(name, 0.0) + (1 - decay) * x
    return memory[name]


def numpy_yogi(
    theta: Any, g: Any, t: int, memory: dict, learning_rate: float, b1: float, b2: float, eps: float, v0: float
) -> Any:
    """Algorithm 2 of Zaheer et al. 2018, which libraries change: they start m at v₀, and correct for bias."""
    m = mean(memory, "m", g, b1)
    v = memory.get("v", np.full_like(g, v0))
    memory["v"] = v - (1 - b2) * np.sign(v - g**2) * g**2
    return theta - learning_rate * m / (np.sqrt(memory["v"]) + eps)


def numpy_debiased_yogi(
    theta: Any, g: Any, t: int, memory: dict, learning_rate: float, b1: float, b2: float, eps: float, v0: float
) -> Any:
    """The same with both moments corrected for bias."""
    m = mean(memory, "m", g, b1) / (1 - b1**t)
    v = memory.get("v", np.full_like(g, v0))
    memory["v"] = np.where(v > g**2, v - (1 - b2) * g**2, v + (1 - b2) * g**2)
    return theta - learning_rate * m / (np.sqrt(memory["v"] / (1 - b2**t)) + eps)


def numpy_laprop(
    theta: Any,
    g: Any,
    t: int,
    memory: dict,
    learning_rate: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
) -> Any:
    """Algorithm 1 of Ziyin et al. 2020. pytorch_optimizer scales ε by the correction of bias, and decays later."""
    n = mean(memory, "n", g**2, b2) / (1 - b2**t)
    m = mean(memory, "m", g / (np.sqrt(n) + eps), b1) / (1 - b1**t)
    return theta - learning_rate * (m + weight_decay * theta)


def numpy_acprop(
    theta: Any,
    g: Any,
    t: int,
    memory: dict,
    learning_rate: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    eps_root: float | None = None,
) -> Any:
    """Algorithm 2 of Zhuang et al. 2021, with bias corrected as in the authors' code. Optax centers otherwise."""
    s = memory.get("s", np.zeros_like(g))
    step = g / (np.sqrt(s / (1 - b2 ** (t - 1))) + eps) if t > 1 else g
    m = mean(memory, "m", g, b1)
    memory["s"] = b2 * s + (1 - b2) * (g - m) ** 2 + (eps if eps_root is None else eps_root)
    return theta - learning_rate * (step + weight_decay * theta)


def numpy_stable_adamw(
    theta: Any,
    g: Any,
    t: int,
    memory: dict,
    learning_rate: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
) -> Any:
    """Algorithm 2 of Wortsman et al. 2023, by its β̂, but with the decay at its full rate."""
    now1, now2 = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (b1, b2))
    m, v = mean(memory, "m", g, now1), mean(memory, "v", g**2, now2)
    rms = np.sqrt(np.mean(g**2 / np.maximum(v, eps**2))) if g.size else 0.0
    memory["clipped"] = memory.get("clipped", 0) + (rms > 1)
    return theta - learning_rate / max(1, rms) * m / (np.sqrt(v) + eps) - learning_rate * weight_decay * theta


def numpy_adam_mini(
    theta: Any,
    g: Any,
    t: int,
    memory: dict,
    learning_rate: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    axes: tuple[int, ...],
) -> Any:
    """Algorithm 1 of Zhang et al. 2025. pytorch_optimizer works in float32, and finds the blocks by names."""
    step, blocks = np.zeros_like(g), [slice(None) if i not in axes else None for i in range(g.ndim)]
    m = mean(memory, "m", g, b1) / (1 - b1**t)
    for index in np.ndindex(*(n for i, n in enumerate(g.shape) if i in axes)):
        numbers = iter(index)
        block = tuple(next(numbers) if b is None else b for b in blocks)
        if g[block].size:
            v = mean(memory, f"v{index}", np.sum(g[block] ** 2) / g[block].size, b2) / (1 - b2**t)
            step[block] = m[block] / (np.sqrt(v) + eps)
    return theta - learning_rate * (step + weight_decay * theta)


def start_yogi(learning_rate: Any, v0: Any, *, debias: bool, **hyper: Any) -> cx.chain:
    """Yogi in one of its two forms."""
    tx = cx.yogi(learning_rate, **hyper, initial_accumulator_value=v0)
    return tx.replace("scale_by_yogi", debias=debias)


YOGI = {**ADAM, "v0": log(1e-8, 1e-1)}
NUMPY: dict[str, tuple[Callable[..., cx.chain], Callable[..., Any], Ranges]] = {
    "yogi": (functools.partial(start_yogi, debias=False), numpy_yogi, YOGI),
    "yogi debiased": (functools.partial(start_yogi, debias=True), numpy_debiased_yogi, YOGI),
    "laprop": (cx.laprop, numpy_laprop, {**ADAM, **DECAY}),
    "acprop": (cx.acprop, numpy_acprop, {**ADAM, **DECAY}),
    "acprop of two ε": (cx.acprop, numpy_acprop, {**ROOT, **DECAY}),
    "stable_adamw": (cx.stable_adamw, numpy_stable_adamw, {**ADAM, **DECAY}),
} | {
    f"adam_mini {axes}": (
        functools.partial(cx.adam_mini, block_axes=axes),
        functools.partial(numpy_adam_mini, axes=axes),
        {**ADAM, **DECAY},
    )
    for axes in ((), (0,), (1,), (0, 2))
}


@pytest.mark.parametrize("name", NUMPY)
def test_agrees_with_numpy(name: str, x64: None) -> None:
    """Every hyperparameter means what it means in the paper."""
    check_against_numpy(*NUMPY[name])


def numpy_mars(
    params: Tree,
    grads: Tree,
    learning_rate: float,
    b1: float,
    b2: float,
    eps: float,
    gamma: float,
    weight_decay: float,
) -> Tree:
    """Algorithm 2 of Yuan et al. 2024: one norm for all, where pytorch_optimizer clips leaf by leaf."""
    names, last = list(params), dict.fromkeys(params, 0.0)
    memory: dict[str, dict] = {n: {} for n in names}
    params, trajectory = dict(params), {n: [] for n in names}
    for t in range(1, STEPS + 1):
        g = {n: grads[n][t - 1] for n in names}
        c = {n: g[n] + gamma * b1 / (1 - b1) * (g[n] - last[n]) for n in names}
        norm, last = np.sqrt(sum(np.sum(x**2) for x in c.values())), g
        for n in names:
            clipped = c[n] / max(1.0, norm)
            m = mean(memory[n], "m", clipped, b1) / (1 - b1**t)
            v = mean(memory[n], "v", clipped**2, b2) / (1 - b2**t)
            params[n] = params[n] - learning_rate * (m / (np.sqrt(v) + eps) + weight_decay * params[n])
            trajectory[n].append(params[n])
    return {n: np.stack(points) for n, points in trajectory.items()}


def test_mars_agrees_with_numpy(x64: None) -> None:
    """Every hyperparameter, and the clip of all leaves together."""
    for i, hyper in enumerate(settings({**ADAM, **DECAY, "gamma": uniform(0.0, 0.1)})):
        params, grads = problem(seed=i)
        check_run(cx.mars_adamw(**hyper), params, grads, numpy_mars(params, grads, **hyper), constant_too=i == 0)


# Properties


@pytest.mark.parametrize(
    ("link", "share"),
    (
        (cx.scale_by_uncorrected_adam, 0.001),
        (cx.scale_by_nadam, 1.0),
        (cx.scale_by_laprop, 1.0),
        (cx.scale_by_stable_adam, 1.0),
        (functools.partial(cx.scale_by_adam_mini, block_axes=(0,)), 1.0),
    ),
)
def test_eps_root_stands_inside_the_root(link: Any, share: float, x64: None) -> None:
    """In relatives of Adam that Optax does not have: at the first step v is a ``share`` of g²."""
    g, eps, eps_root = np.array([1e-3, -0.1, 2.0]), 1e-4, 1e-3
    u, inside = (
        tx.update(g, tx.init(g))[0] for tx in (cx.chain(link(eps=eps)), cx.chain(link(eps=eps, eps_root=eps_root)))
    )
    v = share * g**2
    np.testing.assert_allclose(inside / u, (np.sqrt(v) + eps) / (np.sqrt(v + eps_root) + eps), rtol=1e-9)


def test_acprop_begins_with_the_gradient_whatever_is_stored() -> None:
    """A code without a zero holds no first 0."""
    p = {"w": jnp.linspace(0.5, 1.0, 256)}
    for form in (cx.companded8(min_size=0), cx.int4(min_size=0), cx.int8(min_size=0)):
        tx = cx.store(cx.scale_by_acprop(), nu=form)
        chex.assert_trees_all_close(tx.update(p, tx.init(p))[0], p, rtol=1e-6)


def test_acprop_of_optax_has_another_variance(x64: None) -> None:
    """Its s is 1/β₁² times ours, so that after the first its steps are β₁ times as long."""
    params, grads = problem(seed=0)
    hyper = {"learning_rate": 0.01, "b1": 0.7, "b2": 0.99}
    floors = {"eps": 1e-6 / 0.7, "eps_root": 1e-6 / 0.7**2}
    ours = run(cx.acprop(**hyper, eps=1e-6), params, grads)
    theirs = run_optax(optax.contrib.acprop, {**hyper, **floors}, params, grads)
    moves, others = (jax.tree.map(lambda x: np.diff(x, axis=0), tree) for tree in (ours, theirs))
    assert_agree(jax.tree.map(lambda x: 0.7 * x, moves), others, 1e-9)


def test_acprop_takes_the_first_gradient_that_comes() -> None:
    """Whenever it comes: a leaf without one at the first step has no spread to divide by at the second."""
    tx, params = cx.scale_by_acprop(), {"a": jnp.ones(2), "b": jnp.ones(2)}
    g = jnp.array([0.5, -2.0])
    _, state = tx.update({"a": g, "b": None}, tx.init(params))
    updates, _ = tx.update({"a": g, "b": g}, state)
    np.testing.assert_array_equal(updates["b"], g)
    assert jnp.all(updates["a"] != g)


def test_stable_adamw_clips() -> None:
    """The gradients of the reference problem make the root mean square pass 1, and stay below it."""
    params, grads = problem(seed=0)
    clipped = dict.fromkeys(params, 0)
    for n, theta in params.items():
        memory: dict = {}
        for t in range(1, STEPS + 1):
            theta = numpy_stable_adamw(theta, grads[n][t - 1], t, memory, 1e-3, 0.9, 0.99, 1e-8, 0.0)
        clipped[n] = memory["clipped"]
    assert 10 < clipped["matrix"] < STEPS - 10


@pytest.mark.parametrize("b2", (0.0, 0.5, 0.9, 0.999, 0.99999))
def test_radam_counts_squares_in_float32(b2: float) -> None:
    """The length ρ of the average is right at all steps, where its definition would be off by up to 2e-3."""
    t = np.unique(np.logspace(0, 7, 300).astype(int)).astype(np.float64)
    expected = 2 / (1 - b2) - 1 - 2 * t * b2**t / -np.expm1(t * np.log(b2)) if b2 else np.ones_like(t)
    steps = jnp.asarray(t, jnp.float32)
    length = cx.scale_by_radam(b2=b2).length(cxe.StepInfo(steps, jnp.float32, None, {}, {}))
    np.testing.assert_allclose(length, expected, rtol=2e-5)


def test_adam_mini_with_blocks_of_one_is_adamw(x64: None) -> None:
    """A block for each coordinate is Adam."""
    params, grads = problem(seed=0)
    assert_agree(run(cx.adam_mini(block_axes=(0, 1, 2)), params, grads), run(cx.adamw(), params, grads), 1e-12)


def test_adam_mini_stores_a_number_a_block() -> None:
    """The mean squares of a kernel [in, out] are one for each output neuron, in float32."""
    tx = cx.scale_by_adam_mini(block_axes=(1,))
    state = jax.eval_shape(tx.init, {"kernel": jnp.ones((4, 3), jnp.bfloat16), "bias": jnp.ones(3)})
    assert {n: (x.shape, x.dtype) for n, x in state.links["scale_by_adam_mini"]["nu"].items()} == {
        "kernel": ((3,), jnp.float32),
        "bias": ((), jnp.float32),
    }


def test_ademamix_warms_tables_up() -> None:
    """With a warm-up, every entry of a table is warmed up."""
    tx = cx.ademamix(alpha=cx.by_path({"bias": 2.0}, default=8.0), warmup_steps=4)
    link: Any = tx["scale_by_ademamix"]
    assert [float(link.alpha.default(k)) for k in (0, 1, 3, 9)] == [2.0, 4.0, 8.0, 8.0]
    assert [float(link.alpha.table["bias"](k)) for k in (0, 3)] == [0.5, 2.0]
    constant: Any = cx.ademamix()["scale_by_ademamix"]
    assert (constant.b3, constant.alpha) == (0.9999, 5.0)


def test_half_life_schedule_is_differentiable_without_memory() -> None:
    """At β = 0, where −1/log β and its derivative have no value, derivatives are finite."""

    def total(start: jax.Array, end: jax.Array) -> jax.Array:
        return jnp.sum(cx.half_life_schedule(start, end, 4)(jnp.arange(6)))

    for start, end in ((0.0, 0.9), (0.9, 0.0), (0.0, 0.0), (0.5, 0.9)):
        slopes = jax.grad(total, (0, 1))(jnp.array(start), jnp.array(end))
        assert all(np.isfinite(x) for x in slopes)
