"""SOAP against pytorch_optimizer, KL-SOAP and KL-Shampoo against HeavyBall, and what happens at the edges."""

import itertools
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import pytorch_optimizer
from libraries import run_pytorch_optimizer
from reference import STEPS, Tree, assert_agree, check_run, distance, log, problem, run, settings, uniform
from registry import quickly

SHAPES = {"square": (4, 4), "wide": (3, 4), "tall": (4, 3)}
"""A side may be one longer than the other: the last eigenvector is then the only one that is orthogonal to the rest."""

SOAP = {
    "learning_rate": log(1e-3, 1e-1),
    "b1": uniform(0.0, 0.99),
    "b2": uniform(0.5, 0.999),
    "shampoo_beta": uniform(0.5, 0.999),
    "eps": log(1e-10, 1e-3),
}


class In64Bits:
    """The module `torch` in which float32 is float64, and a QR decomposition is of the matrix itself."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self.torch, name)

    def maximum(self, a: Any, b: Any) -> Any:
        """0 for HeavyBall's only use of it: what it adds to a matrix before QR."""
        return self.torch.zeros_like(a)


def soap(learning_rate: Any, **hyper: Any) -> cx.chain:
    """The link and the rate."""
    return cx.chain(cx.scale_by_soap(**hyper), cx.scale_by_lr(learning_rate))


def torch_soap(monkeypatch: Any, params: Tree, grads: Tree, every: int, **hyper: Any) -> Tree:
    """SOAP with decompositions in float64."""
    library = pytorch_optimizer()
    module = sys.modules["pytorch_optimizer.optimizer.soap"]
    if not isinstance(vars(module)["torch"], In64Bits):
        monkeypatch.setattr(module, "torch", In64Bits(vars(module)["torch"]))
    given = {"lr": hyper["learning_rate"], "betas": (hyper["b1"], hyper["b2"]), "precondition_frequency": every}
    given |= {name: hyper[name] for name in ("shampoo_beta", "eps")} | {"weight_decay": hyper.get("weight_decay", 0.0)}
    given |= {"max_precondition_dim": hyper.get("max_precond_dim", 10_000)}
    return run_pytorch_optimizer(lambda groups: library.SOAP(groups, **given), params, grads)


def test_soap_agrees_with_pytorch_optimizer(x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hyperparameter; square, wide and tall matrices."""
    for i, hyper in enumerate(settings(SOAP, count=5)):
        params, grads = problem(seed=i, shapes=SHAPES)
        every = 1 + 3 * i
        theirs = torch_soap(monkeypatch, params, grads, every, **hyper)
        check_run(soap(update_every=jnp.int32(every), **hyper), params, grads, theirs)


@pytest.mark.parametrize("shape", ((4, 6), (6, 4)))
def test_one_sided_soap_agrees_with_pytorch_optimizer(
    shape: tuple[int, int], x64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A side that is too long has no statistics. Nor has it with the other side chosen by name."""
    (hyper,) = settings(SOAP, count=1)
    params, grads = problem(seed=0, shapes={"matrix": shape})
    theirs = torch_soap(monkeypatch, params, grads, 3, **hyper, max_precond_dim=4)
    for chosen in ({"max_precond_dim": 4}, {"sides": "shorter"}, {"sides": "rows" if shape[0] == 4 else "columns"}):
        tx = soap(update_every=3, **hyper, **chosen)
        check_run(tx, params, grads, theirs)
        slots = jax.eval_shape(tx.init, params).links["scale_by_soap"]
        kept = [slots[side]["matrix"].shape for side in ("L", "R", "QL", "QR")]
        assert kept == ([(4, 4), ()] * 2 if shape[0] == 4 else [(), (4, 4)] * 2)


def test_decay_of_pytorch_optimizer_comes_after_the_step(x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """θ ← (1 − αλ)(θ − αu), as in the published code, but not at the first step, when nothing moves.

    `soap` decays as AdamW does, at the first step too. The first step's decay is undone here.
    """
    (hyper,) = settings(SOAP, count=1)
    params, grads = problem(seed=0, shapes=SHAPES)
    rate = hyper["learning_rate"]
    theirs = torch_soap(monkeypatch, params, grads, 3, **hyper, weight_decay=0.1)
    after = cx.chain(*soap(update_every=3, **hyper).links.values(), cx.decay_after_step(0.1 * rate))
    start = {n: p / (1 - 0.1 * rate) for n, p in params.items()}
    check_run(after, start, grads, theirs)
    decoupled = soap(update_every=3, **hyper).insert(cx.add_decayed_weights(0.1), before="scale_by_lr")
    apart = distance(run(decoupled, start, grads), theirs)
    assert 1e-6 < apart < 0.1 * rate * np.sqrt(STEPS)


# The variants by Kullback and Leibler's divergence

KL_SOAP = {name: SOAP[name] for name in ("learning_rate", "b1", "b2", "shampoo_beta")}
KL_SHAMPOO = {"learning_rate": log(1e-3, 1e-2), "b1": uniform(0.0, 0.99), "shampoo_beta": uniform(0.5, 0.99)}
KL_SHAMPOO |= {"init_scale": log(1e-2, 1.0)}


@pytest.fixture
def heavyball(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """HeavyBall in float64, without its compiler, and without what it adds before QR."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("heavyball")
    monkeypatch.setattr(library.utils, "compile_mode", None)
    monkeypatch.setattr(library.utils, "torch", In64Bits(torch))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # the dtype of β to the power of a step
    yield library
    torch.set_default_dtype(before)


def slots_of(opt: Any, name: str) -> Any:
    """An entry of the state of HeavyBall's only parameter."""
    (state,) = (dict(s) for s in opt.state.values())
    inner = state if any(isinstance(k, str) for k in state) else state[0]
    return next(x for key, x in inner.items() if name in key)


def run_heavyball(opt: Any, p: Any, grads: Any, begin: Any) -> np.ndarray:
    """The trajectory of one parameter. ``begin()`` changes the state after the first step."""
    torch, trail = pytest.importorskip("torch"), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, g in enumerate(grads):
            p.grad = torch.tensor(g)
            opt.step()
            if k == 0:
                begin()
            trail.append(p.detach().numpy().copy())
    return np.stack(trail)


def options(hyper: dict[str, Any]) -> dict[str, Any]:
    """HeavyBall's names."""
    betas = hyper["b1"], hyper.get("b2", 0.9)
    known = {"lr": hyper["learning_rate"], "betas": betas, "shampoo_beta": hyper["shampoo_beta"], "eps": 1e-30}
    return {**known, "weight_decay": 0.0, "storage_dtype": "float64"}


def test_kl_soap_agrees_with_heavyball(heavyball: Any, x64: None) -> None:
    """A square matrix. HeavyBall begins with uuᵀ and uᵀu, in place of their means; the published code has the means."""
    torch = pytest.importorskip("torch")
    for i, hyper in enumerate(settings(KL_SOAP, count=5)):
        params, grads = problem(seed=i, shapes={"square": (4, 4)})
        grads = {"square": grads["square"][:60]}
        every = 1 + 3 * i
        p = torch.nn.Parameter(torch.tensor(params["square"]))
        opt = heavyball.KLSOAP([p], **options(hyper))
        opt.precond_schedule = lambda step, every=every: float(step > 1 and (step - 1) % every == 0)

        def begin(opt: Any = opt) -> None:
            for S in slots_of(opt, "GG"):
                S /= 4

        theirs = {"square": run_heavyball(opt, p, grads["square"], begin)}
        link = {name: x for name, x in hyper.items() if name != "learning_rate"}
        link = cx.scale_by_kl_soap(**link, eps=1e-30, update_every=jnp.int32(every))
        check_run(cx.chain(link, cx.scale_by_lr(hyper["learning_rate"])), params, grads, theirs)


def test_kl_shampoo_agrees_with_heavyball(heavyball: Any, x64: None) -> None:
    """HeavyBall skips a step, and its first bases are unit vectors, not eigenvectors: it is given these."""
    torch = pytest.importorskip("torch")
    for i, hyper in enumerate(settings(KL_SHAMPOO, count=5)):
        shapes = {name: SHAPES[name] for name in ("wide", "tall")}
        params, grads = problem(seed=i, shapes=shapes)
        grads = {name: g[:60] for name, g in grads.items()}
        every, theirs = 1 + 3 * i, {}
        for name in shapes:
            p = torch.nn.Parameter(torch.tensor(params[name]))
            opt = heavyball.KLShampoo([p], **options(hyper), init_factor=hyper["init_scale"], dampening=0.0)
            opt.precond_schedule = lambda step, every=every: float(step > 2 and (step - 2) % every == 0)
            p.grad = torch.tensor(grads[name][0])
            opt.step()

            def begin(opt: Any = opt) -> None:
                for Q, new in zip(slots_of(opt, "Q"), heavyball.utils.get_orthogonal_matrix(slots_of(opt, "GG"))):
                    Q.copy_(new)

            theirs[name] = run_heavyball(opt, p, grads[name], begin)
        link = {name: x for name, x in hyper.items() if name != "learning_rate"}
        link = cx.scale_by_kl_shampoo(**link, eps=1e-30, update_every=jnp.int32(every))
        check_run(cx.chain(link, cx.scale_by_lr(hyper["learning_rate"])), params, grads, theirs)


# Properties

LINKS = (cx.scale_by_soap(), cx.scale_by_kl_soap(), cx.scale_by_kl_shampoo())
every = pytest.mark.parametrize(
    "link", [link.replace(update_every=3) for link in LINKS], ids=lambda x: type(x).__name__
)


def updates(link: cxe.Link, grads: Any) -> Any:
    """The updates of the link for a stack of gradients of one matrix."""

    def step(state: Any, g: Any) -> Any:
        u, state = link.update(g, state)
        return state, u

    return quickly(lambda grads: jax.lax.scan(step, link.init(grads[0]), grads))(grads)


@every
def test_rotated_gradients_give_rotated_updates(link: cxe.Link, x64: None) -> None:
    """Adam's depend on the coordinates; these do not, since their bases turn with the gradients."""
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(12, 4, 3)) * np.array([1.0, 3.0, 0.1])
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (4, 3))
    _, u = updates(link, jnp.asarray(grads))
    _, turned = updates(link, jnp.asarray(left @ grads @ right))
    np.testing.assert_allclose(left @ np.asarray(u) @ right, turned, atol=1e-9)
    assert np.max(np.abs(u - turned)) > 0.1


@every
def test_bases_are_orthogonal_and_change_every_k_steps(link: cxe.Link) -> None:
    """At steps 1, 4, 7, ..., and to rounding."""
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(8, 5, 3)), jnp.float32)
    seen = [link.init(grads[0])]
    step = quickly(lambda state, g: link.update(g, state)[1])
    for g in grads:
        seen.append(step(seen[-1], g))
    name = type(link).__name__
    for side, n in (("QL", 5), ("QR", 3)):
        bases = [np.asarray(state.links[name][side]) for state in seen]
        np.testing.assert_allclose(bases[-1].T @ bases[-1], np.eye(n), atol=1e-5)
        changed = [k for k, (a, b) in enumerate(itertools.pairwise(bases), 1) if np.any(a != b)]
        assert changed == [1, 4, 7]


@every
def test_a_failed_decomposition_keeps_the_bases(link: cxe.Link) -> None:
    """Statistics with NaN have no basis; the failure is counted."""
    grads = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    name = type(link).__name__
    before, _ = updates(link, jnp.asarray(grads[:3]))
    grads[3, 0, 0] = np.nan
    after, _ = updates(link, jnp.asarray(grads))
    for slot in ("QL", "QR"):
        np.testing.assert_array_equal(before.links[name][slot], after.links[name][slot])
    assert (int(before.links[name]["failures"]), int(after.links[name]["failures"])) == (0, 1)


@every
@pytest.mark.parametrize("shape", ((1, 4), (4, 1), (4, 3)))
def test_zeros_at_first(link: cxe.Link, shape: tuple[int, int]) -> None:
    """No update, and what follows is finite: statistics of zeros have a basis too."""
    grads = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    grads[:4] = 0
    state, u = updates(link, jnp.asarray(grads))
    assert np.all(np.asarray(u[:4]) == 0)
    assert np.all(np.isfinite(u))
    assert np.any(np.asarray(u[4:]) != 0)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


def test_the_first_step_of_soap_moves_nothing() -> None:
    """It begins the statistics, and neither moment."""
    g = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    u, state = cx.scale_by_soap().update(g, cx.scale_by_soap().init(g))
    slots = state.links["scale_by_soap"]
    assert not np.any(u)
    assert not any(np.any(slots[slot]) for slot in ("mu", "nu"))
    np.testing.assert_allclose(slots["L"], 0.05 * g @ g.T, rtol=1e-5)


def test_bad_input() -> None:
    """The field, what came, and what it must be."""
    with pytest.raises(ValueError, match=r"`scale_by_soap.update_every` must lie in \[1, ∞\), got 0"):
        cx.scale_by_soap(update_every=0)
    with pytest.raises(
        ValueError, match=r"`scale_by_soap.sides` must be one of 'both', 'shorter', 'rows', 'columns', got"
    ):
        cx.scale_by_soap(sides="left")
    with pytest.raises(ValueError, match=r"`scale_by_kl_soap.max_precond_dim` must be a whole number from 0, got -1"):
        cx.scale_by_kl_soap(max_precond_dim=-1)
    with pytest.raises(TypeError, match=r"'bias', float32\[3\], has 1 axes"):
        cx.scale_by_soap().init({"bias": jnp.ones(3)})


def test_prebuilt() -> None:
    """`soap` is the link, the decay and the rate."""
    params, grads = problem(seed=0, shapes={"matrix": (4, 3)})
    parts = cx.chain(cx.scale_by_soap(), cx.add_decayed_weights(0.01), cx.scale_by_lr(3e-3))
    assert_agree(run(cx.soap(), params, grads, np.float32), run(parts, params, grads, np.float32), 0.0)
