"""APOLLO, Fira and Conda against transcriptions of the papers and pytorch_optimizer; rotations, growth, failures."""

import inspect
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import fall_on_a_matrix, pytorch_optimizer
from libraries import run_pytorch_optimizer
from reference import Tree, check_run, log, problem, run_numpy, settings, uniform
from registry import WORDS, quickly

SHAPES = {"square": (4, 4), "wide": (3, 7), "tall": (6, 2), "vector": (5,)}
ADAM = {"learning_rate": log(1e-4, 1e-2), "b1": uniform(0.0, 0.99), "b2": uniform(0.5, 0.999), "eps": log(1e-8, 1e-3)}
GROWTH = {**ADAM, "norm_growth": uniform(1.0, 1.2)}


def build(link: Any, learning_rate: float, **hyper: Any) -> cx.chain:
    """A chain of the link, for parameters of any number of axes."""
    return cx.chain(link(matrices=WORDS, **hyper), cx.scale_by_lr(learning_rate))


def dense(seed: int, shapes: dict[str, tuple]) -> tuple[Tree, Tree]:
    """A problem without gradients of 0: for a column of them the references divide 0 by 0."""
    params, grads = problem(seed, shapes)
    return params, {n: np.where(g == 0, 0.01, g) for n, g in grads.items()}


def pattern(xp: Any, X: Any, rank: int) -> Any:
    """What stands in for a random projection of the rows of X: it depends on all its numbers."""
    m = X.shape[0]
    return xp.sin(xp.arange(rank * m, dtype=X.dtype) + X.sum()).reshape(rank, m)


@cxe.transform
class patterned_apollo(cx.scale_by_apollo):
    """APOLLO with `pattern` for the random projection."""

    def draw(self, key: jax.Array, X: jax.Array) -> jax.Array:
        """The pattern."""
        return pattern(jnp, X, min(self.rank, len(X)))


def turned(rule: Any) -> Any:
    """A rule for wide matrices, for all matrices and vectors."""

    def either(
        theta: Any, g: Any, t: int, memory: dict, learning_rate: float, b1: float, b2: float, **more: Any
    ) -> Any:
        X = g[None] if g.ndim == 1 else g.T if g.shape[0] > g.shape[1] else g
        u = rule(X, t, memory, b1=b1, b2=b2, **more) * np.sqrt(1 - b2**t) / (1 - b1**t)
        u = u[0] if g.ndim == 1 else u.T if g.shape[0] > g.shape[1] else u
        return theta - learning_rate * u

    return either


def moments(R: Any, memory: dict, b1: float, b2: float, eps: float) -> Any:
    """Adam's quotient, without bias correction."""
    m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * R
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * R**2
    return m / (np.sqrt(v) + eps)


def limited(u: Any, memory: dict, growth: float) -> Any:
    """The update, if its norm has not grown too much."""
    size = np.linalg.norm(u)
    if "size" in memory and size / memory["size"] > growth:
        u = u / size * growth * memory["size"]
    memory["size"] = np.linalg.norm(u)
    return u


@turned
def numpy_apollo(
    G: Any,
    t: int,
    memory: dict,
    b1: float,
    b2: float,
    eps: float,
    norm_growth: float,
    scale: float,
    rank: int,
    gap: int,
    scale_type: str,
) -> Any:
    """Algorithm 1 of Zhu et al. 2024."""
    if (t - 1) % gap == 0:
        memory["P"] = pattern(np, G, min(rank, len(G)))
    R = memory["P"] @ G
    psi = moments(R, memory, b1, b2, eps)
    axis = 0 if scale_type == "channel" else None
    s = np.linalg.norm(psi, axis=axis) / np.linalg.norm(R, axis=axis)
    return scale * limited(G * s, memory, norm_growth)


@pytest.mark.parametrize(("rank", "gap", "scale_type"), ((2, 7, "channel"), (1, 7, "tensor"), (3, 1000, "channel")))
def test_apollo_agrees_with_numpy(rank: int, gap: int, scale_type: str, x64: None) -> None:
    """Every hyperparameter. pytorch_optimizer's is another: it scales the projected gradient, and projects it back."""
    for i, hyper in enumerate(settings({**GROWTH, "scale": uniform(0.1, 2.0)}, count=5)):
        params, grads = dense(seed=i, shapes=SHAPES)
        expected = run_numpy(numpy_apollo, params, grads, **hyper, rank=rank, gap=gap, scale_type=scale_type)
        ours = build(patterned_apollo, **hyper, rank=rank, update_proj_gap=gap, scale_type=scale_type)
        check_run(ours, params, grads, expected)


@turned
def numpy_fira(
    G: Any,
    t: int,
    memory: dict,
    b1: float,
    b2: float,
    eps: float,
    norm_growth: float,
    rank: int,
    gap: int,
) -> Any:
    """Algorithm 1 of Chen et al. 2024."""
    if (t - 1) % gap == 0:
        memory["P"] = np.linalg.svd(G, full_matrices=False)[0][:, :rank]
    P = memory["P"]
    R = P.T @ G
    psi = moments(R, memory, b1, b2, eps)
    S = (G - P @ R) * np.linalg.norm(psi, axis=0) / np.linalg.norm(R, axis=0)
    return P @ psi + limited(S, memory, norm_growth)


@turned
def numpy_conda(G: Any, t: int, memory: dict, b1: float, b2: float, eps: float, gap: int) -> Any:
    """Algorithm 1 of Wang et al. 2025."""
    m = memory["M"] = b1 * memory.get("M", 0.0) + (1 - b1) * G
    if (t - 1) % gap == 0:
        memory["P"] = np.linalg.svd(m, full_matrices=False)[0]
    P = memory["P"]
    v = memory["V"] = b2 * memory.get("V", 0.0) + (1 - b2) * (P.T @ G) ** 2
    return P @ (P.T @ m / (np.sqrt(v) + eps))


def test_fira_agrees_with_numpy(x64: None) -> None:
    """Projections that change, where the mean must not count, for new vectors may have either sign."""
    shapes = {n: shape for n, shape in SHAPES.items() if n != "vector"}  # nothing is left out of a vector but rounding
    for i, hyper in enumerate(settings({**GROWTH, "b1": lambda rng: 0.0}, count=5)):
        params, grads = dense(seed=i, shapes=shapes)
        expected = run_numpy(numpy_fira, params, grads, **hyper, rank=1, gap=7)
        check_run(build(cx.scale_by_fira, **hyper, rank=1, update_proj_gap=7), params, grads, expected)


def test_conda_agrees_with_numpy(x64: None) -> None:
    """Projections that change; their signs do not count."""
    for i, hyper in enumerate(settings(ADAM, count=5)):
        params, grads = problem(seed=i, shapes=SHAPES)
        expected = run_numpy(numpy_conda, params, grads, **hyper, gap=7)
        check_run(build(cx.scale_by_conda, **hyper, update_proj_gap=7), params, grads, expected)


def exact(self: Any, weights: Any, projection_type: str, from_random_matrix: bool = False) -> Any:
    """The singular vectors in the dtype of the matrix; the library computes them in float32."""
    torch = pytest.importorskip("torch")
    u, _, vh = torch.linalg.svd(weights, full_matrices=False)
    return vh[: self.rank] if projection_type == "right" else u[:, : self.rank]


@pytest.mark.parametrize("name", ("Fira", "Conda"))
def test_agrees_with_pytorch_optimizer(name: str, monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    """One projection, for it changes them at other steps. Fira adds 10⁻⁸ to norms that it divides by, here 0."""
    library = pytorch_optimizer()
    optimizer = getattr(library, name)
    module = inspect.getmodule(optimizer)
    monkeypatch.setattr(vars(module)["GaLoreProjector"], "get_orthogonal_matrix", exact)
    step = inspect.unwrap(optimizer.step)
    consts = tuple(0.0 if c == 1e-8 else c for c in step.__code__.co_consts)
    assert (consts != step.__code__.co_consts) == (name == "Fira")
    monkeypatch.setattr(step, "__code__", step.__code__.replace(co_consts=consts))
    link = {"Fira": cx.scale_by_fira, "Conda": cx.scale_by_conda}[name]
    rank = {"rank": 2} if name == "Fira" else {}
    for i, hyper in enumerate(settings(ADAM, count=5)):
        params, grads = dense(seed=i, shapes={"wide": (4, 7), "tall": (6, 3)})
        names = {"lr": hyper["learning_rate"], "betas": (hyper["b1"], hyper["b2"]), "eps": hyper["eps"]}
        low = {**rank, "update_proj_gap": 1000, "scale": 1.0, "projection_type": "std"}
        theirs = run_pytorch_optimizer(
            lambda groups, n=names: optimizer(groups, foreach=False, **n),
            params,
            grads,
            groups=dict.fromkeys(params, low),
        )
        check_run(build(link, **hyper, **rank, update_proj_gap=1000), params, grads, theirs)


# Properties

EACH = (
    cx.scale_by_apollo(rank=2, update_proj_gap=3),
    cx.scale_by_fira(rank=2, update_proj_gap=3),
    cx.scale_by_conda(update_proj_gap=3),
)
each = pytest.mark.parametrize("link", EACH, ids=lambda link: type(link).__name__)


def trail(link: Any, grads: jax.Array) -> tuple[jax.Array, Tree]:
    """The updates and the slots at all steps."""

    def step(state: Any, g: jax.Array) -> tuple:
        u, state = link.update(g, state)
        return state, (u, state.links[type(link).__name__])

    return quickly(lambda g: jax.lax.scan(step, link.init(g[0]), g)[1])(grads)


def draws(*shape: int) -> jax.Array:
    """Random gradients."""
    return jax.random.normal(jax.random.key(0), shape)


@each
def test_projections_change_every_gap(link: Any) -> None:
    """At steps 1, 4, 7."""
    P = trail(link, draws(8, 4, 5))[1]["projector"]
    assert [k + 1 for k in range(1, 8) if (P[k] != P[k - 1]).any()] == [4, 7]


@pytest.mark.parametrize("link", EACH[1:], ids=lambda link: type(link).__name__)
def test_updates_turn_with_the_gradient(link: Any, x64: None) -> None:
    """Rotated rows are the same problem; for Adam they are another."""
    g = jnp.asarray(draws(8, 4, 7), jnp.float64)
    Q = jnp.linalg.qr(jnp.asarray(draws(4, 4), jnp.float64))[0]
    link = link.replace(update_proj_gap=1000)  # Fira's mean keeps its signs for as long as the projection stays
    np.testing.assert_allclose(trail(link, Q @ g)[0], Q @ trail(link, g)[0], atol=1e-10)
    adam = cx.scale_by_adam()
    assert float(jnp.abs(trail(adam, Q @ g)[0] - Q @ trail(adam, g)[0]).max()) > 0.1


def test_apollo_scales_columns() -> None:
    """Along the longer side, or all numbers alike."""
    g = draws(3, 4, 7)
    for x in (g, g.mT):
        ratio = trail(EACH[0], x)[0] / x
        ratio = ratio if x is g else ratio.mT
        np.testing.assert_allclose(ratio, jnp.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-4)
        assert float(jnp.ptp(ratio[-1, 0])) > 0.01
    ratio = trail(EACH[0].replace(scale_type="tensor"), g)[0] / g
    np.testing.assert_allclose(ratio, jnp.broadcast_to(ratio[:, :1, :1], ratio.shape), rtol=1e-4)


@pytest.mark.parametrize("link", EACH[:2], ids=lambda link: type(link).__name__)
def test_norms_grow_slowly(link: Any) -> None:
    """By a hundredth a step, as they would not without the bound; and after zeros at any rate."""
    g = draws(30, 4, 7)
    size = trail(link, g)[1]["last_norm"]
    assert float((size[1:] / size[:-1]).max()) <= 1.0101
    free = trail(link.replace(norm_growth=np.inf), g)[1]["last_norm"]
    assert float((free[1:] / free[:-1]).max()) > 1.1
    us, slots = trail(link, jnp.concatenate([g[:1], jnp.zeros((2, 4, 7)), g]))
    assert float(slots["last_norm"][3]) > 0.1
    assert bool(jnp.isfinite(us).all())


@each
def test_a_matrix_without_gradients_at_first(link: Any) -> None:
    """Zeros give zeros; the projection is there when the first gradient comes, between two changes."""
    us, _ = trail(link.replace(update_proj_gap=1000), jnp.concatenate([jnp.zeros((4, 4, 3)), draws(1, 4, 3)]))
    assert not us[:4].any()
    assert float(jnp.abs(us[4]).max()) > 0.1
    tx, params = link.replace(update_proj_gap=1000), {"a": draws(4, 3), "b": draws(4, 3)}
    state = tx.init(params)
    _, state = tx.update({"a": params["a"], "b": None}, state)
    u, _ = tx.update(params, state)
    assert float(jnp.abs(u["b"]).max()) > 0.1


@pytest.mark.parametrize("link", EACH[:2], ids=lambda link: type(link).__name__)
def test_a_column_of_zeros_stays(link: Any) -> None:
    """Where the factor is 0/0."""
    us, _ = trail(link, draws(3, 4, 7).at[:, :, 2].set(0.0))
    assert bool(jnp.isfinite(us).all())
    assert not us[:, :, 2].any()
    assert us[:, :, 3].all()


@pytest.mark.parametrize("link", EACH[1:], ids=lambda link: type(link).__name__)
def test_failed_decompositions_are_counted(link: Any) -> None:
    """A NaN at a step that renews the projection leaves it as it was."""
    slots = trail(link, draws(5, 4, 7).at[3, 1, 1].set(jnp.nan))[1]
    np.testing.assert_array_equal(slots["projector"][3], slots["projector"][2])
    assert slots["failures"].tolist()[:4] == [0, 0, 0, 1]


def test_they_descend_on_a_matrix() -> None:
    """Three directions of twelve are enough, though the projection stays: what it leaves out moves too."""
    rate = cx.cosine_decay_schedule(0.1, 600)
    for link in (cx.scale_by_apollo(rank=3), cx.scale_by_fira(rank=3), cx.scale_by_conda()):
        assert fall_on_a_matrix(cx.chain(link, cx.scale_by_lr(rate)), 600) < 0.01, link


def test_projections_depend_on_the_seed() -> None:
    """And differ by matrix."""
    link, g = cx.scale_by_apollo(rank=2), {"a": draws(4, 7), "b": draws(4, 7)}
    first, again, other = (
        link.replace(seed=seed).update(g, link.replace(seed=seed).init(g))[1].links["scale_by_apollo"]["projector"]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first["a"], again["a"])
    assert (first["a"] != other["a"]).all()
    assert (first["a"] != first["b"]).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    (
        ({"rank": 0}, "rank` must be a whole number from 1, got 0"),
        ({"update_proj_gap": 2.0}, r"update_proj_gap` must be a whole number, got 2\.0"),
        ({"scale_type": "row"}, "scale_type` must be one of 'channel', 'tensor', got 'row'"),
    ),
)
def test_bad_input(fields: dict[str, Any], message: str) -> None:
    """The error says what came, and what is expected."""
    with pytest.raises(ValueError, match=message):
        cx.scale_by_apollo(**fields)
