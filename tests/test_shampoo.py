"""Shampoo against pytorch_optimizer and NumPy: sums, averages, roots, blocks; and failures."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import pytorch_optimizer
from libraries import run_pytorch_optimizer
from reference import assert_agree, check_run, log, problem, run, run_numpy, settings, uniform
from registry import quickly

SHAPES = {"square": (4, 4), "wide": (3, 5), "tall": (5, 3), "vector": (5,)}
WORDS = cx.matrices(", out", "in, out")
RANGES = {"learning_rate": log(1e-3, 1e-1), "eps": log(1e-6, 1e-1)}


def shampoo(learning_rate: Any, **hyper: Any) -> cx.chain:
    """The link and the rate."""
    return cx.chain(cx.scale_by_shampoo(**hyper, matrices=WORDS), cx.scale_by_lr(learning_rate))


def test_agrees_with_pytorch_optimizer(x64: None) -> None:
    """The first paper's Algorithm 1, and for vectors its Algorithm 2; with roots from the first step on."""
    library = pytorch_optimizer()
    for i, hyper in enumerate(settings(RANGES, count=5)):
        params, grads = problem(seed=i, shapes=SHAPES)
        given = {"lr": hyper["learning_rate"], "matrix_eps": hyper["eps"]}
        theirs = run_pytorch_optimizer(lambda groups, given=given: library.Shampoo(groups, **given), params, grads)
        check_run(shampoo(update_every=jnp.int32(1), **hyper), params, grads, theirs)


def test_blocks_agree_with_pytorch_optimizer(x64: None) -> None:
    """Of 2 × 2, with averages and with sums. There ε decays with the averages, so it is 0 for these."""
    library = pytorch_optimizer()
    for b2, eps, every, grouping in ((1.0, 1e-4, 3, 0), (0.9, 0.0, 1, 0), (1.0, 1e-2, 4, 1), (1.0, 1e-2, 1, 2)):
        params, grads = problem(seed=every, shapes={"square": (4, 4), "wide": (4, 6), "small": (2, 2)})
        grads = {n: g + 0.01 * np.random.default_rng(0).normal(size=g.shape) for n, g in grads.items()}  # of full rank

        def new(groups: Any, b2: float = b2, eps: float = eps, every: int = every, grouping: int = grouping) -> Any:
            opt = library.ScalableShampoo(
                groups,
                lr=0.01,
                betas=(0.0, 0.5),
                matrix_eps=eps,
                preconditioning_compute_steps=every,
                start_preconditioning_step=1,
                block_size=2,
                pre_conditioner_type=grouping,
                shape_interpretation=False,
                nesterov=False,
                use_svd=True,
                graft_type=0,
            )
            for group in opt.param_groups:
                group["step"] = every - 1  # its steps with new roots are every, 2·every, ...
                group["betas"] = 0.0, b2  # which its check does not let be 1
            return opt

        tx = shampoo(
            0.01, b2=b2, eps=eps, update_every=every, block_size=2, sides=("both", "rows", "columns")[grouping]
        )
        check_run(tx, params, grads, run_pytorch_optimizer(new, params, grads))


def numpy_shampoo(
    theta: Any,
    g: Any,
    t: int,
    memory: dict,
    learning_rate: float,
    eps: float,
    b2: float,
    p: float,
    every: int,
    most: int,
) -> Any:
    """Roots of averages in blocks of nearly equal lengths, the last of which may be shorter."""
    m, n = (-(-size // -(-size // most)) for size in g.shape)
    u = np.zeros_like(g)
    for i in range(0, g.shape[0], m):
        for j in range(0, g.shape[1], n):
            block, own = g[i : i + m, j : j + n], memory.setdefault((i, j), {})
            for side, square in (("L", block @ block.T), ("R", block.T @ block)):
                own[side] = b2 * own.get(side, 0.0) + (1 - b2) * square
                if (t - 1) % every == 0:
                    values, Q = np.linalg.eigh(own[side])
                    own[f"P{side}"] = Q * (np.maximum(values, 0) + eps) ** (-1 / p) @ Q.T
            u[i : i + m, j : j + n] = own["PL"] @ block @ own["PR"]
    return theta - learning_rate * u


def test_agrees_with_numpy(x64: None) -> None:
    """Averages with an ε that stays, any root, and blocks that do not divide the matrix."""
    ranges = {**RANGES, "b2": uniform(0.5, 0.999), "p": uniform(1.0, 8.0)}
    for i, hyper in enumerate(settings(ranges, count=5)):
        params, grads = problem(seed=i, shapes={"matrix": (7, 5), "small": (2, 3)})
        every = 1 + 2 * i
        theirs = run_numpy(numpy_shampoo, params, grads, **hyper, every=every, most=3)
        given = {**{k: x for k, x in hyper.items() if k != "p"}, "exponent": hyper["p"]}
        check_run(shampoo(**given, block_size=3, update_every=jnp.int32(every)), params, grads, theirs)


def test_state_of_blocks() -> None:
    """2000 × 1500 in blocks of at most 1024 is 2 × 2 blocks of 1000 × 750."""
    of = jax.eval_shape(cx.scale_by_shampoo().init, jnp.zeros((2000, 1500))).links["scale_by_shampoo"]
    assert [of[slot].shape for slot in ("L", "PL", "R", "PR")] == [(4, 1000, 1000)] * 2 + [(4, 750, 750)] * 2
    assert of["failures"].shape == ()


# Properties


def trail(link: Any, grads: Any) -> Any:
    """The updates for a stack of gradients of one matrix, and the last state."""

    def step(state: Any, g: Any) -> Any:
        u, state = link.update(g, state)
        return state, u

    return quickly(lambda grads: jax.lax.scan(step, link.init(grads[0]), grads))(grads)


def test_roots_are_whitening(x64: None) -> None:
    """The first update of a full-rank matrix is its polar factor, and rotations of the gradient rotate updates."""
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(6, 4, 4)) * np.array([1.0, 3.0, 0.1, 1.0])
    left, right = (np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2))
    _, u = trail(cx.scale_by_shampoo(eps=0.0, update_every=2), jnp.asarray(grads))
    U, _, V = np.linalg.svd(grads[0])
    np.testing.assert_allclose(u[0], U @ V, atol=1e-9)
    _, turned = trail(cx.scale_by_shampoo(eps=0.0, update_every=2), jnp.asarray(left @ grads @ right))
    np.testing.assert_allclose(left @ np.asarray(u) @ right, turned, atol=1e-9)


def test_lower_rank_in_float32(x64: None) -> None:
    """Eigenvalues that are rounding errors are no divisors: the update stays within a few digits of float64's."""
    g = np.outer(np.arange(1.0, 9.0), np.arange(1.0, 7.0)).astype(np.float32)[None]
    _, wide = trail(cx.scale_by_shampoo(eps=1e-12), jnp.asarray(g, jnp.float64))
    _, narrow = trail(cx.scale_by_shampoo(eps=1e-12), jnp.asarray(g))
    np.testing.assert_allclose(narrow, wide, rtol=1e-3)


def test_failed_roots_are_kept_and_counted() -> None:
    """Statistics that overflow have no root: the update is made by the old ones, which are the identity at first."""
    grads = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    grads[2] *= 1e25
    link = cx.scale_by_shampoo(update_every=1, block_size=3)
    before, _ = trail(link, jnp.asarray(grads[:2]))
    after, u = trail(link, jnp.asarray(grads[:3]))
    assert np.all(np.isfinite(u))
    for slot in ("PL", "PR"):
        old, new = (state.links["scale_by_shampoo"][slot] for state in (before, after))
        np.testing.assert_array_equal(old, new)
    assert [int(s.links["scale_by_shampoo"]["failures"]) for s in (before, after)] == [0, 4]
    first, u = trail(link, jnp.asarray(grads[2:3]))
    np.testing.assert_array_equal(u[0], grads[2])
    assert int(first.links["scale_by_shampoo"]["failures"]) == 4


@pytest.mark.parametrize("eps", (0.0, 1e-6))
def test_zeros_at_first(eps: float) -> None:
    """No update and no root, which without ε would fail; then what follows is as without them, block by block.

    Where no root is due then, that of the mean eigenvalue stands for it.
    """
    grads = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    late = np.concatenate([np.zeros_like(grads[:2]), grads])
    late[2, 3:] = 0  # the second block begins a step later
    state, u = trail(cx.scale_by_shampoo(eps=eps, block_size=3, update_every=1), jnp.asarray(late))
    kept, held = trail(cx.scale_by_shampoo(eps=eps, block_size=3), jnp.asarray(late))
    for updates, after in ((u, state), (held, kept)):
        np.testing.assert_array_equal(updates[:2], 0)
        assert int(after.links["scale_by_shampoo"]["failures"]) == 0
    for block, first in ((slice(0, 3), 2), (slice(3, 6), 3)):
        _, alone = trail(cx.scale_by_shampoo(eps=eps, update_every=1), jnp.asarray(late[first:, block]))
        np.testing.assert_allclose(u[first:, block], alone, rtol=1e-4, atol=1e-5)
        mean = np.square(late[first, block]).sum() / 3 + eps
        np.testing.assert_allclose(held[first:, block], late[first:, block] / np.sqrt(mean), rtol=1e-5, atol=1e-6)


def test_epsilon_and_the_exponent_have_derivatives(x64: None) -> None:
    """Those of a diagonal matrix, whose roots are known; also through a root of an earlier step."""
    g = jnp.diag(jnp.array([2.0, 3.0]))

    def last(eps: Any, p: Any) -> Any:
        link = cx.scale_by_shampoo(eps=eps, exponent=p, update_every=2)
        _, state = link.update(g, link.init(g))
        return link.update(g, state)[0][0, 0]

    got = quickly(jax.grad(last, (0, 1)))(jnp.array(0.5), jnp.array(3.0))
    expected = jax.grad(lambda eps, p: 2.0 * (4.0 + eps) ** (-2 / p), (0, 1))(jnp.array(0.5), jnp.array(3.0))
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_bad_input() -> None:
    """The field, what came, and what it must be."""
    with pytest.raises(ValueError, match=r"`scale_by_shampoo.exponent` must lie in \(0, ∞\) or None, got 0"):
        cx.scale_by_shampoo(exponent=0)
    with pytest.raises(ValueError, match=r"`scale_by_shampoo.block_size` must be a whole number from 1, got 0"):
        cx.scale_by_shampoo(block_size=0)
    with pytest.raises(ValueError, match=r"`scale_by_shampoo.b2` must lie in \[0, 1\], got 1.5"):
        cx.scale_by_shampoo(b2=1.5)


@pytest.mark.parametrize(
    ("words", "apart"),
    (
        ("_layer in, out", lambda x: {"a": x[0], "b": x[1]}),
        (cx.matrices("in a, q+k", q=1), lambda x: {"a": x[..., :1].reshape(6, 1), "b": x[..., 1:].reshape(6, 2)}),
    ),
)
def test_layers_and_blocks_have_norms_of_their_own(words: Any, apart: Any, x64: None) -> None:
    """The updates of a stack, and of fused projections, are those of separate leaves: the graft is by matrix too."""
    sizes = np.array([1.0, 100.0])[:, None, None] * np.array([1.0, 10.0, 10.0])
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 3, 3)) * sizes)
    together, separate = (quickly(tx.update) for tx in (cx.shampoo(matrices=words), cx.shampoo()))
    state, own = cx.shampoo(matrices=words).init(grads[0]), cx.shampoo().init(apart(grads[0]))
    for g in grads:
        u, state = together(g, state)
        each, own = separate(apart(g), own)
        assert_agree(apart(u), each, 1e-9)


def test_prebuilt(x64: None) -> None:
    """`shampoo` grafts on Adagrad, and then has momentum; without both it is the link."""
    params, grads = problem(seed=0, shapes={"matrix": (4, 3)})
    parts = cx.chain(
        cx.graft(cx.scale_by_shampoo(), cx.scale_by_adagrad(), "in, out"), cx.trace(0.9), cx.scale_by_lr(0.01)
    )
    assert_agree(run(cx.shampoo(), params, grads), run(parts, params, grads), 0.0)
    bare = cx.shampoo(0.1, momentum=0.0, magnitude=None)
    assert_agree(run(bare, params, grads), run(shampoo(0.1), params, grads), 1e-12)
