"""PSGD against kron-torch, pytorch_optimizer and a transcription of PSGD-QUAD; whitening, and updates that fail."""

import contextlib
import inspect
import io
from collections.abc import Iterator
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import pytorch_optimizer
from chainax.transforms.matrices.psgd import PUBLISHED
from libraries import run_pytorch_optimizer
from reference import STEPS, Tree, check_run, log, problem, run_numpy, settings, uniform
from registry import WORDS, quickly

SHAPES = {"square": (4, 4), "wide": (3, 7), "tall": (6, 2), "vector": (5,)}


def pattern(xp: Any, M: Any) -> Any:
    """What stands in for noise, so that three libraries can draw the same: it depends on the matrix in a rough way."""
    size = abs(M).max()
    count = xp.arange(int(np.prod(M.shape)), dtype=M.dtype).reshape(M.shape)
    return 1.5 * xp.sin(5 * M / xp.where(size > 0, size, xp.ones_like(size)) + count)


@cxe.transform
class patterned_kron(cx.scale_by_psgd_kron):
    """Kron with `pattern` for noise."""

    def noise(self, key: jax.Array, M: jax.Array) -> jax.Array:
        """The pattern."""
        return pattern(jnp, M)


@cxe.transform
class patterned_quad(cx.scale_by_psgd_quad):
    """QUAD with `pattern` for noise."""

    def noise(self, key: jax.Array, M: jax.Array) -> jax.Array:
        """The pattern."""
        return pattern(jnp, M)


def solve_from_the_right(x: Any, a: Any) -> Any:
    """XA⁻¹ in the dtype of both; the libraries compute it in float32."""
    torch = pytest.importorskip("torch")
    return torch.linalg.solve_triangular(a, x.reshape(-1, x.shape[-1]), upper=True, left=False).reshape(x.shape)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """PyTorch without its compiler, and with `pattern` for noise."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "randn_like", lambda x, **_: pattern(torch, x))
    torch.compiler.set_stance("force_eager")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for small matrices, several cost 10 ms a call
    yield torch
    torch.set_num_threads(threads)
    torch.compiler.set_stance("default")


KRON = {"learning_rate": log(1e-3, 1e-1), "momentum": uniform(0.0, 0.95), "precond_lr": log(1e-2, 0.3)}
SIDES = (
    ({}, {}),
    ({"max_size": 4}, {"max_size_triangular": 4}),
    ({"max_skew": 1.0}, {"memory_save_mode": "smart_one_diag"}),
    ({"max_skew": 0.0}, {"memory_save_mode": "all_diag"}),
)


def kron(learning_rate: float, **hyper: Any) -> cx.chain:
    """Kron with `pattern`."""
    return cx.chain(patterned_kron(matrices=WORDS, **hyper), cx.scale_by_lr(learning_rate))


class At:
    """A source of random numbers that are 0 every so many times, and else 1."""

    def __init__(self, every: int) -> None:
        self.every, self.times = every, 0

    def random(self) -> float:
        """The next number."""
        self.times += 1
        return float(self.times % self.every > 0)


@pytest.mark.parametrize(("sides", "theirs"), SIDES, ids=("triangular", "short", "square", "diagonal"))
def test_kron_agrees_with_kron_torch(
    sides: dict[str, Any], theirs: dict[str, Any], torch: Any, monkeypatch: pytest.MonkeyPatch, x64: None
) -> None:
    """Updates every fourth step, balanced every third time.

    The library adds the noise to the momentum itself, in place, so that it reaches the parameters too; the published
    psgd_torch does not, and neither does a copy.
    """
    library = pytest.importorskip("kron_torch.kron")
    update = library._update_precond
    monkeypatch.setattr(library, "_solve_triangular_right", solve_from_the_right)
    monkeypatch.setattr(library, "_update_precond", lambda Q, exprs, G, *rest: update(Q, exprs, G.clone(), *rest))

    for i, hyper in enumerate(settings(KRON, count=2 if sides else 5)):
        params, grads = problem(seed=i, shapes=SHAPES)
        names = {"lr": hyper["learning_rate"], "b1": hyper["momentum"], "precond_lr": hyper["precond_lr"], **theirs}

        def new(groups: Any, names: Any = names) -> Any:
            opt = library.Kron(groups, preconditioner_update_probability=0.3, precond_dtype=torch.float64, **names)
            opt.rng = At(12)
            return opt

        with contextlib.redirect_stdout(io.StringIO()):
            expected = run_pytorch_optimizer(new, params, grads)
        damping = float(np.sqrt(np.finfo(np.float32).eps))
        ours = kron(**hyper, precond_update_prob=0.3, balance_interval=3, damping=damping, **sides)
        check_run(ours, params, grads, expected)


def test_kron_agrees_with_pytorch_optimizer(torch: Any, monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    """It has no damping, and adds 10⁻⁶ to the root mean square, here 0."""
    library = pytorch_optimizer()
    module = inspect.getmodule(library.Kron)
    monkeypatch.setattr(module, "solve_triangular_right", solve_from_the_right)
    step = inspect.unwrap(library.Kron.step)
    consts = tuple(0.0 if c == 1e-6 else c for c in step.__code__.co_consts)
    assert consts != step.__code__.co_consts
    monkeypatch.setattr(step, "__code__", step.__code__.replace(co_consts=consts))
    for i, hyper in enumerate(settings({k: v for k, v in KRON.items() if k != "precond_lr"}, count=5)):
        params, grads = problem(seed=i, shapes={"wide": (3, 5), "vector": (4,)})
        names = {"lr": hyper["learning_rate"], "momentum": hyper["momentum"], "precondition_dtype": torch.float64}
        expected = run_pytorch_optimizer(
            lambda groups, n=names: library.Kron(groups, balance_prob=0, **n), params, grads
        )
        check_run(kron(**hyper, damping=0.0), params, grads, expected)


def test_updates_fall_to_three_percent() -> None:
    """The published schedule, and the steps at which updates are due by kron-torch's rule."""
    library = pytest.importorskip("kron_torch")
    torch, probability = pytest.importorskip("torch"), library.precond_update_prob_schedule()
    theirs = probability._schedule_fn(torch.arange(6000.0))
    np.testing.assert_allclose(PUBLISHED(jnp.arange(6000)), theirs.numpy(), rtol=1e-5)

    tx = cx.scale_by_psgd_kron(max_skew=0.0, precond_update_prob=cx.linear_schedule(1.0, 0.03, 60))
    g = jnp.eye(2)

    def step(state: Any, _: None) -> Any:
        _, state = tx.update(g, state)
        return state, state.links["scale_by_psgd_kron"]["steps_since_update"]

    _, steps = quickly(lambda state: jax.lax.scan(step, state, None, 200))(tx.init(g))
    expected, waited = [], 0
    for k in range(200):
        waited = 0 if waited + 1 >= 1 / (1 - 0.97 * min(k, 60) / 60) else waited + 1
        expected.append(waited)
    np.testing.assert_array_equal(steps, expected)


# QUAD

QUAD = {
    "learning_rate": log(1e-3, 1e-1),
    "momentum": uniform(0.0, 0.95),
    "precond_lr": uniform(0.4, 0.9),
    "noise_scale": log(1e-9, 1e-3),
}


def numpy_quad(
    theta: Any,
    g: Any,
    t: int,
    memory: dict,
    learning_rate: float,
    momentum: float,
    precond_lr: float,
    noise_scale: float,
    max_skew: float = 1.0,
) -> Any:
    """PSGD-QUAD as published in quad-torch 0.4.5, whose code fails on matrices: it calls math.max."""
    vector = g.ndim < 2
    g = g[None] if vector else g
    sizes, count = g.shape, g.size
    if t == 1:
        memory["m"] = g
        first = (np.mean(g**2) + noise_scale**2) ** (-1 / (4 if vector else 8))
        memory["Q"] = [
            np.eye(n) * first if n <= max_skew * count / n and not vector else np.full(n, first) for n in sizes
        ]
        memory["L"] = [0.0, 0.0]
        if vector:
            memory["Q"][0] = np.ones(1)
    m = memory["m"] = momentum * memory["m"] + (1 - momentum) * g
    Q = memory["Q"]
    if t % 100 == 0 and not vector:
        sizes_of = [np.abs(q).max() for q in Q]
        Q[:] = [q * np.sqrt(sizes_of[0] * sizes_of[1]) / size for q, size in zip(Q, sizes_of)]

    def whole(q: Any) -> Any:
        return q if q.ndim == 2 else np.diag(q)

    def preconditioned(x: Any) -> Any:
        left, right = map(whole, Q)
        return left @ left @ x @ right @ right

    rate = max(precond_lr / np.sqrt(1 + t / 10_000), 0.3)
    P = preconditioned(m + noise_scale * pattern(np, m))
    for i in (1,) if vector else (0, 1):
        S, q = (P @ P.T, P.T @ P)[i], Q[i]
        target = count / len(q)
        if q.ndim == 1:
            size = np.diag(S).max() + target
        else:
            row = S[np.argmax(np.sum(S * S, 1))]
            x = S @ row
            size = np.linalg.norm(S @ (x / np.linalg.norm(x))) + target
        memory["L"][i] = max(0.95 * memory["L"][i] + 0.05 * size, size)
        step = rate / (2 * memory["L"][i])
        if q.ndim == 1:
            Q[i] = q * (1 - step * (np.diag(S) - target)) ** 2
        else:
            q = q - step * (S @ q - target * q)
            q = q - step * (q @ S - target * q)
            Q[i] = (q + q.T) / 2
    u = preconditioned(m)
    u = u * 1.05 / max(np.sqrt(np.mean(u**2)), 1.05)
    return theta - learning_rate * (u[0] if vector else u)


@pytest.mark.parametrize("max_skew", (1.0, 10.0, 0.0))
def test_quad_agrees_with_numpy(max_skew: float, x64: None) -> None:
    """Symmetric and diagonal factors, also mixed, and the balancing of step 100."""
    for i, hyper in enumerate(settings(QUAD, count=5)):
        params, grads = problem(seed=i, shapes=SHAPES)
        expected = run_numpy(numpy_quad, params, grads, **hyper, max_skew=max_skew)
        rate = cx.scale_by_lr(hyper.pop("learning_rate"))
        ours = cx.chain(patterned_quad(matrices=WORDS, max_skew=max_skew, **hyper), rate)
        check_run(ours, params, grads, expected)


# Properties

BOTH = (cx.scale_by_psgd_kron(momentum=0.0, precond_update_prob=1.0), cx.scale_by_psgd_quad(momentum=0.0))
each = pytest.mark.parametrize("link", BOTH, ids=lambda link: type(link).__name__)


def trail(link: Any, grads: jax.Array) -> tuple[jax.Array, Tree]:
    """The updates at all steps, and the slots after the last."""

    def step(state: Any, g: jax.Array) -> tuple:
        u, state = link.update(g, state)
        return state, u

    state, us = quickly(lambda g: jax.lax.scan(step, link.init(g[0]), g))(grads)
    return us, state.links[type(link).__name__]


@each
def test_updates_are_white(link: Any) -> None:
    """Correlated gradients of sizes from 0.01 to 30 come out with covariances near the identity, on both sides."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(4, 4)) * np.logspace(-1, 0.5, 4)[:, None], rng.normal(size=(5, 5)) * 0.1
    g = jnp.asarray(left @ rng.normal(size=(6000, 4, 5)) @ right.T, jnp.float32)
    us, slots = trail(link.replace(clipping_threshold=np.inf, max_skew=np.inf), g)
    for axes, other in (("kij,klj->il", 5), ("kij,kil->jl", 4)):
        values = np.linalg.eigvalsh(np.einsum(axes, us[-1500:], us[-1500:]) / (1500 * other))
        assert values.min() > 0.5, values
        assert values.max() < 2.0, values
    raw = np.linalg.eigvalsh(np.einsum("kij,klj->il", g, g))
    assert raw.max() > 100 * raw.min()
    assert slots["failures"] == 0


@each
def test_size_of_the_update(link: Any) -> None:
    """The root mean square is bounded, also where its square overflows."""
    for size in (1.0, 1e25):
        us, _ = trail(link, size * jax.random.normal(jax.random.key(0), (3, 4, 3)))
        assert float(jnp.sqrt(jnp.square(us).mean((1, 2))).max()) <= 1.1001
        assert float(jnp.abs(us).max()) > 0.1


@each
def test_zeros_change_no_factor(link: Any) -> None:
    """A matrix without a gradient stays at zero for as long as that lasts, and learns as fast afterwards."""
    g = jax.random.normal(jax.random.key(0), (10, 4, 3))
    us, slots = trail(link, jnp.concatenate([jnp.zeros((1200, 4, 3)), g]))
    assert not us[:1200].any()
    assert bool(jnp.isfinite(us).all())
    assert float(jnp.abs(us[1200:]).max()) > 0.1
    assert slots["failures"] == 0


@each
def test_failed_updates_are_dropped_and_counted(link: Any) -> None:
    """A NaN leaves the factors as they were."""
    g = jax.random.normal(jax.random.key(0), (3, 4, 3))
    _, before = trail(link, g[:2])
    _, after = trail(link, g.at[2, 1, 1].set(jnp.nan))
    for name in ("Q_row", "Q_col"):
        np.testing.assert_array_equal(before[name], after[name])
    assert after["failures"] == 1


@each
def test_noise_depends_on_the_seed(link: Any) -> None:
    """Not on anything else: the same seed gives the same factors."""
    g = jax.random.normal(jax.random.key(0), (3, 4, 3))
    rough = link.replace(**({"damping": 0.1} if type(link) is cx.scale_by_psgd_kron else {"noise_scale": 0.1}))
    (a, _), (b, _), (c, _) = (trail(rough.replace(seed=seed), g) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert float(jnp.abs(a - c).max()) > 1e-4


def test_factors_of_a_vector() -> None:
    """A vector has one diagonal, a scalar a number, a long side a diagonal."""
    tx = cx.scale_by_psgd_kron(matrices=WORDS, max_size=4)
    slots = tx.init({"row": jnp.ones(3), "scalar": jnp.ones(()), "column": jnp.ones((3, 1)), "long": jnp.ones((5, 3))})
    shapes = jax.tree.map(jnp.shape, slots.links["scale_by_psgd_kron"], is_leaf=lambda x: isinstance(x, jax.Array))
    assert shapes["Q_row"] == {"row": (), "scalar": (), "column": (3,), "long": (5,)}
    assert shapes["Q_col"] == {"row": (3,), "scalar": (1,), "column": (), "long": (3, 3)}


@pytest.mark.parametrize(
    ("fields", "message"),
    (
        ({"max_skew": -1.0}, r"max_skew` must be a number from 0, or math\.inf, got -1\.0"),
        ({"max_size": 0}, "max_size` must be a whole number from 1, got 0"),
        ({"precond_update_prob": 1.5}, r"precond_update_prob` must lie in \[0, 1\], got 1\.5"),
        ({"balance_interval": 0}, "balance_interval` must"),
    ),
)
def test_bad_input(fields: dict[str, Any], message: str) -> None:
    """The error says what came, and what is expected."""
    with pytest.raises(ValueError, match=message):
        cx.scale_by_psgd_kron(**fields)


def test_steps_are_those_of_the_reference() -> None:
    """The comparisons above are long enough for the balancing at step 100."""
    assert STEPS == 100
