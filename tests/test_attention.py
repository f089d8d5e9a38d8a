"""QK-clip against pytorch_optimizer, and that it bounds the logits."""

import importlib
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import pytorch_optimizer
from matrix_reference import torch_iterations
from reference import STEPS, Tree, assert_agree, log, problem, settings, uniform
from registry import quickly

HEADS, SIZE, INPUTS = 3, 2, 4
POWERS = cx.by_path({"query": 0.5, "key": 0.5, "rotary": 1.0})
ROLES = {"query": "query", "key": "key", "rotary": "query_rotary", "shared": "key_rotary", "value": None}
RANGES = {
    "learning_rate": log(1e-3, 1e-1),
    "momentum": uniform(0.0, 0.99),
    "max_logit": log(10.0, 100.0),
    "weight_decay": log(1e-3, 1.0),
    "alpha": uniform(0.0, 1.0),
}


def run_theirs(
    monkeypatch: pytest.MonkeyPatch, params: Tree, grads: Tree, logits: np.ndarray, alpha: float, **given: Any
) -> Tree:
    """The trajectory by pytorch_optimizer in float64, whose projections are [head·size, inputs]."""
    library = pytorch_optimizer()
    torch = pytest.importorskip("torch")
    module = importlib.import_module("pytorch_optimizer.optimizer.muon.base")
    monkeypatch.setattr(module, "zero_power_via_newton_schulz_5", torch_iterations(1e-7))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the logits are converted to float32

    def flat(x: np.ndarray) -> Any:
        return torch.tensor(np.ascontiguousarray(x.reshape(len(x), -1).T))

    leaves = {n: torch.nn.Parameter(flat(p)) for n, p in params.items()}
    each = [
        {"params": [p], "use_muon": True} | ({} if ROLES[n] is None else {"qk_clip": ROLES[n], "attention_name": "a"})
        for n, p in leaves.items()
    ]
    opt = library.MuonClip(each, qk_clip_alpha=alpha, foreach=False, **given)
    trajectory: Tree = {n: [] for n in params}
    for k in range(STEPS):
        for n, p in leaves.items():
            p.grad = flat(grads[n][k])
        opt.step(attention_max_logits={"a": torch.tensor(logits[k])})
        for n, p in leaves.items():
            trajectory[n].append(p.detach().numpy().T.reshape(params[n].shape).copy())
    return {n: np.stack(points) for n, points in trajectory.items()}


@quickly
def run_ours(tx: cx.chain, params: Tree, grads: Tree, logits: jax.Array) -> Tree:
    """The trajectory of a chain."""

    def step(carry: tuple, given: tuple) -> tuple:
        p, state = tx.step(*carry, given[0], max_logits=given[1])
        return (p, state), p

    return jax.lax.scan(step, (params, tx.init(params)), (grads, logits))[1]


def clipped_muon(learning_rate: Any, momentum: Any, weight_decay: Any, max_logit: Any, alpha: Any) -> cx.chain:
    """Kimi's MuonClip: Muon of AdamW's size with a sum for momentum, then the clip."""
    return cx.chain(
        cx.trace(momentum),
        cx.orthogonalize(sizing="rms", matrices="in, head size"),
        cx.add_decayed_weights(weight_decay),
        cx.scale_by_lr(learning_rate),
        cx.qk_clip(cx.by_path({"query": alpha, "key": 1 - alpha, "rotary": 1.0}), max_logit),
    )


def test_agrees_with_pytorch_optimizer(x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hyperparameter, for queries, keys, rotary queries, shared rotary keys and values."""
    shapes = dict.fromkeys(ROLES, (INPUTS, HEADS, SIZE))
    for i, hyper in enumerate(settings(RANGES, count=5)):
        params, grads = problem(i, shapes)
        logits = np.exp(np.random.default_rng(i).normal(3.5, 1.0, size=(STEPS, HEADS)))
        renamed = {"lr": hyper["learning_rate"], "qk_clip_threshold": hyper["max_logit"]}
        given = {n: hyper[n] for n in ("momentum", "weight_decay", "alpha")}
        expected = run_theirs(monkeypatch, params, grads, logits, **renamed, **given)
        assert_agree(run_ours(clipped_muon(**hyper), params, grads, jnp.asarray(logits)), expected, 1e-9)


# Properties


def logits_of(params: Tree, x: jax.Array) -> jax.Array:
    """The largest logit of each query head for these inputs [batch, in]; query heads share keys in groups."""
    q, k = jnp.einsum("bi,ihs->bhs", x, params["query"]), jnp.einsum("bi,ihs->bhs", x, params["key"])
    k = jnp.repeat(k, q.shape[1] // k.shape[1], 1)
    return jnp.einsum("bhs,chs->hbc", q, k).max((1, 2))


def weights(seed: int, keys: int = HEADS) -> Tree:
    """A query and a key projection."""
    rng = np.random.default_rng(seed)
    shapes = {"query": (INPUTS, HEADS, SIZE), "key": (INPUTS, keys, SIZE)}
    return {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in shapes.items()}


def clipped(params: Tree, logits: Any, powers: cx.by_path = POWERS, **given: Any) -> Tree:
    """The parameters after a step without gradients."""
    tx = cx.qk_clip(cx.by_path({n: x for n, x in powers.table.items() if n in params}), **given)
    zeros = jax.tree.map(jnp.zeros_like, params)
    return tx.step(params, tx.init(params), zeros, max_logits=logits)[0]


def test_logits_are_bounded() -> None:
    """Those above τ become τ, and the others stay, to the last bit of their projections."""
    params, x = weights(0), jnp.asarray(np.random.default_rng(1).normal(size=(8, INPUTS)), jnp.float32)
    before = logits_of(params, x)
    tau = float(jnp.sort(before)[1])  # one head is above it
    moved = clipped(params, before, max_logit=tau)
    np.testing.assert_allclose(logits_of(moved, x), jnp.minimum(before, tau), rtol=1e-5)
    for n, p in params.items():
        changed = np.any(np.asarray(moved[n] != p), axis=(0, 2))
        assert list(changed) == list(np.asarray(before > tau))


def test_shared_keys_are_bounded() -> None:
    """With fewer key heads, a key has the smallest s of its queries: the logits are τ or less."""
    params, x = weights(0, keys=1), jnp.asarray(np.random.default_rng(1).normal(size=(8, INPUTS)), jnp.float32)
    before = logits_of(params, x)
    tau = float(jnp.sort(before)[1])
    after = logits_of(clipped(params, before, max_logit=tau), x)
    assert np.all(after <= tau * (1 + 1e-5))
    assert np.all(after < before)
    np.testing.assert_allclose(after.max(), tau, rtol=1e-5)


def test_step_counts_too() -> None:
    """It is the parameter after the step that is shrunk, and `update` gives the difference."""
    params, grads = weights(0), weights(1)
    tx = cx.chain(cx.scale_by_lr(0.1), cx.qk_clip(cx.by_path({"query": 1.0})))
    u, _ = tx.update(grads, tx.init(params), params, max_logits=jnp.array([50.0, 200.0, 400.0]))
    s = jnp.array([1.0, 0.5, 0.25])[None, :, None]
    np.testing.assert_allclose(params["query"] + u["query"], s * (params["query"] - 0.1 * grads["query"]), rtol=1e-5)
    np.testing.assert_allclose(u["key"], -0.1 * grads["key"], rtol=1e-6)


def test_logits_by_layer() -> None:
    """A tree of logits, by the beginnings of the paths; one array for layers in one array; one number for all."""
    params = {f"layer_{i}": {"attention": weights(i)} for i in range(2)}
    logits = {"layer_0": {"attention": jnp.array([100.0, 400.0, 50.0])}, "layer_1/attention": jnp.full(3, 400.0)}
    powers = cx.by_path({"query": 1.0})
    tx = cx.qk_clip(powers)
    zeros = jax.tree.map(jnp.zeros_like, params)
    by_layer, _ = tx.step(params, tx.init(params), zeros, max_logits=logits)
    s = np.array([[1.0, 0.25, 1.0], [0.25, 0.25, 0.25]])
    for i in range(2):
        before, after = (x[f"layer_{i}"]["attention"]["query"] for x in (params, by_layer))
        np.testing.assert_allclose(after, before * s[i][None, :, None], rtol=1e-6)

    stacked = {"query": jnp.stack([params[f"layer_{i}"]["attention"]["query"] for i in range(2)])}
    words = "_layer in, _head size"
    together = clipped(stacked, jnp.array([[100.0, 400.0, 50.0], [400.0] * 3]), powers, matrices=words)
    np.testing.assert_allclose(together["query"], stacked["query"] * s[:, None, :, None], rtol=1e-6)
    fused = {"query": stacked["query"].reshape(2, INPUTS, -1)}
    words = cx.matrices("_layer in, _head*size", head=HEADS)
    flat = clipped(fused, jnp.array([[100.0, 400.0, 50.0], [400.0] * 3]), powers, matrices=words)
    np.testing.assert_allclose(flat["query"], together["query"].reshape(2, INPUTS, -1), rtol=1e-6)
    all_of_them = clipped(stacked, 400.0, powers, matrices="_layer in, _head size")
    np.testing.assert_allclose(all_of_them["query"], stacked["query"] / 4, rtol=1e-6)


def test_torch_layout() -> None:
    """Heads along the first axis of [head·size, in]."""
    p = {"query": jnp.ones((HEADS * SIZE, INPUTS))}
    words = cx.matrices("_head*out, in", head=HEADS)
    moved = clipped(p, jnp.array([50.0, 200.0, 400.0]), cx.by_path({"query": 1.0}), matrices=words)
    np.testing.assert_allclose(moved["query"][:, 0], [1, 1, 0.5, 0.5, 0.25, 0.25], rtol=1e-6)


def test_nothing_to_clip() -> None:
    """Without logits, or where they are not finite, the step is as if the link were not there."""
    params, grads = weights(0), weights(1)
    tx = cx.chain(cx.scale_by_lr(0.1), cx.qk_clip(cx.by_path({"query|key": 0.5})))
    plain, _ = cx.scale_by_lr(0.1).update(grads, cx.scale_by_lr(0.1).init(params))
    for logits in (None, jnp.array([jnp.nan, jnp.inf, -jnp.inf]), jnp.zeros(3)):
        u, _ = tx.update(grads, tx.init(params), params, max_logits=logits)
        assert all(np.all(u[n] == plain[n]) for n in params)


# Bad input


def test_errors() -> None:
    """The link, the path, what came and what is needed."""
    params = weights(0)
    query, tx = cx.by_path({"query": 1.0}), cx.qk_clip(cx.by_path({"query|key": 0.5}))
    state = tx.init(params)
    with pytest.raises(TypeError, match="max_logits"):
        tx.step(params, state, params)
    with pytest.raises(TypeError, match=r"needs max_logits of shape \[3\] for 'key', got float32\[2\]"):
        clipped(params, jnp.ones(2))
    with pytest.raises(KeyError, match=r"clips 'key', but max_logits has nothing .*its paths are 'keys', 'que'"):
        clipped(params, {"keys": jnp.ones(3), "que": jnp.ones(3)})
    with pytest.raises(TypeError, match=r"finds no heads in 'query', float32\[6, 4\], which has 2 axes"):
        clipped({"query": jnp.ones((6, 4))}, jnp.ones(3), query)
    for shape, words, named in (
        ((4, 6), "in, out", r', matrices\("in, _head\*size", head=2\)'),
        ((4, 5), "in, out", ""),
        ((4, 2, 3), "in, a b", ', such as "in, _head size"'),
        ((4, 2, 2, 3), "in, a b c", ""),
    ):
        found = r"finds no heads in 'query', float32\[.*\], of matrices\('in, .*'\), for max_logits float32\[2\]: "
        with pytest.raises(TypeError, match=rf"{found}name their axis in .*, after an underscore{named}\n"):
            clipped({"query": jnp.ones(shape)}, jnp.ones(2), query, matrices=words)
    with pytest.raises(TypeError, match="cannot clip parts of a parameter"):
        clipped({"query": jnp.ones((4, 6))}, jnp.ones(3), query, matrices=cx.matrices("in, q+k", q=4))
    with pytest.raises(ValueError, match=r"`qk_clip.powers` must be by_path of numbers, and 0 by default, .* got 0.5"):
        cx.qk_clip(0.5)
    with pytest.raises(ValueError, match=r"`qk_clip.powers` must be by_path of numbers, and 0 by default"):
        cx.qk_clip(cx.by_path({"query": 0.5}, default=1.0))
    with pytest.raises(ValueError, match=r"by_path\['query'\]` must be a number in \[0, 1\], got 2"):
        cx.qk_clip(cx.by_path({"query": 2.0}))
