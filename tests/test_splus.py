"""SPlus against pytorch_optimizer; ASGO and RACS against the papers' algorithms in NumPy."""

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

SHAPES = {"square": (4, 4), "wide": (3, 4), "tall": (4, 3)}
RATE = {"learning_rate": log(1e-3, 1e-1)}
DECAYS = {"b1": uniform(0.0, 0.99), "b2": uniform(0.5, 0.999)}


def test_splus_agrees_with_pytorch_optimizer(x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hyperparameter, with decompositions in float64, and the average. ε changes no eigenvector."""
    library, torch = pytorch_optimizer(), pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x)
    for i, hyper in enumerate(settings({**RATE, **DECAYS, "ema_decay": uniform(0.5, 0.99)}, count=5)):
        params, grads = problem(seed=i, shapes=SHAPES)
        every, made = 2 + 3 * i, []

        def new(groups: Any, hyper: Any = hyper, every: int = every, made: list[Any] = made) -> Any:
            betas, rate = (hyper["b1"], hyper["b2"]), hyper["ema_decay"]
            given = {"lr": hyper["learning_rate"], "betas": betas, "ema_rate": rate, "inverse_steps": every}
            made.append(library.SPlus(groups, **given, weight_decay=0.0, eps=1e-30))
            return made[0]

        theirs = run_pytorch_optimizer(new, params, grads)
        tx = cx.splus(**hyper, update_every=jnp.int32(every))
        check_run(tx, params, grads, theirs)
        last, state = quickly(lambda p, grads, tx=tx: train(tx, p, grads))(params, grads)
        made[0].eval()
        average = {n: group["params"][0].detach().numpy() for n, group in zip(params, made[0].param_groups)}
        assert_agree(cx.read_average(tx, last, state), average, 1e-9)


def train(tx: Any, params: Any, grads: Any) -> Any:
    """The last parameters and the last state."""
    return jax.lax.scan(lambda carry, g: (tx.step(*carry, g), None), (params, tx.init(params)), grads)[0]


def numpy_asgo(
    theta: Any, g: Any, t: int, memory: dict, learning_rate: float, b1: float, b2: float, eps: float, every: int
) -> Any:
    """The practical variant, with the rows as inputs."""
    m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    V = memory["V"] = b2 * memory.get("V", 0.0) + (1 - b2) * g @ g.T
    if (t - 1) % every == 0:
        values, Q = np.linalg.eigh(V)
        memory["root"] = Q * np.sqrt(np.maximum(values, 0)) @ Q.T + eps * np.eye(len(V))
    return theta - learning_rate * np.linalg.solve(memory["root"], m)


def test_asgo_agrees_with_numpy(x64: None) -> None:
    """Every hyperparameter; the columns are those of the transpose. The statistics have full rank."""
    for i, hyper in enumerate(settings({**RATE, **DECAYS, "eps": log(1e-3, 1e-1)}, count=5)):
        params, grads = problem(seed=i, shapes={"square": (4, 4), "wide": (3, 5)})
        every = 1 + 3 * i
        theirs = run_numpy(numpy_asgo, params, grads, **hyper, every=every)
        link = {name: x for name, x in hyper.items() if name != "learning_rate"}
        link = cx.scale_by_asgo(**link, update_every=jnp.int32(every))
        tx = cx.chain(link, cx.scale_by_lr(hyper["learning_rate"]))
        check_run(tx, params, grads, theirs)
        if i == 0:
            turned = [{n: x.swapaxes(-1, -2) for n, x in tree.items()} for tree in (params, grads, theirs)]
            check_run(tx.replace("scale_by_asgo", sides="columns"), *turned)
            both = [{**tree, "tall": other["wide"]} for tree, other in zip((params, grads, theirs), turned)]
            check_run(tx.replace("scale_by_asgo", sides="shorter"), *both)


def numpy_racs(
    theta: Any, g: Any, t: int, memory: dict, learning_rate: float, decay: float, gamma: float, rounds: int
) -> Any:
    """Algorithm 1, with the fixed point of Proposition 3."""
    Q, S = np.eye(len(g)), np.eye(g.shape[1])
    for _ in range(rounds):
        S = np.diag(np.diag(g.T @ Q @ g)) / np.sum(Q**2)
        Q = np.diag(np.diag(g @ S @ g.T)) / np.sum(S**2)
    Q = memory["Q"] = decay * memory.get("Q", 0.0) + (1 - decay) * Q
    S = memory["S"] = decay * memory.get("S", 0.0) + (1 - decay) * S
    u = np.diag(np.diag(Q) ** -0.5) @ g @ np.diag(np.diag(S) ** -0.5)
    norm = np.linalg.norm(u)
    u = u * (gamma / max(norm / memory["norm"], gamma) if t > 1 else 1.0)
    memory["norm"] = np.linalg.norm(u)
    return theta - learning_rate * u


RACS = {**RATE, "decay": uniform(0.5, 0.99), "gamma": uniform(1.0, 1.2)}


def racs(learning_rate: Any, **hyper: Any) -> cx.chain:
    """The link and the rate."""
    return cx.chain(cx.scale_by_racs(**hyper), cx.scale_by_lr(learning_rate))


@pytest.mark.parametrize("rounds", (1, 5))
def test_racs_agrees_with_numpy(rounds: int, x64: None) -> None:
    """The paper's algorithm. pytorch_optimizer has the means of rows and columns in place of the fixed point."""
    for i, hyper in enumerate(settings(RACS, count=5)):
        params, grads = problem(seed=i, shapes=SHAPES)
        grads = {n: np.where(g == 0, 1e-3, g) for n, g in grads.items()}
        theirs = run_numpy(numpy_racs, params, grads, **hyper, rounds=rounds)
        check_run(racs(**hyper, rounds=rounds), params, grads, theirs)


# Properties


def test_racs_ignores_the_scale_of_the_loss(x64: None) -> None:
    """And where the squares have rank one, the first update has one size."""
    params, grads = problem(seed=0, shapes=SHAPES)
    larger = {n: 1e4 * g for n, g in grads.items()}
    assert_agree(run(racs(0.1), params, grads), run(racs(0.1), params, larger), 1e-9)
    g = jnp.outer(jnp.array([1.0, -3.0, 1e-4]), jnp.array([2.0, 1e3]))
    u, _ = cx.scale_by_racs(decay=0.0).update(g, cx.scale_by_racs().init(g))
    np.testing.assert_allclose(u, jnp.sign(g), rtol=1e-9)


def test_racs_limits_the_growth() -> None:
    """The norm of an update is at most γ times that before."""
    rng = np.random.default_rng(0)
    grads = jnp.asarray(rng.normal(size=(20, 4, 3)) * 10.0 ** rng.integers(-3, 3, size=(20, 1, 1)), jnp.float32)
    link = cx.scale_by_racs(gamma=1.1)

    def step(state: Any, g: Any) -> Any:
        u, state = link.update(g, state)
        return state, jnp.linalg.norm(u)

    _, norms = quickly(lambda: jax.lax.scan(step, link.init(grads[0]), grads))()
    ratio = norms[1:] / norms[:-1]
    assert np.all(ratio <= 1.1 * (1 + 1e-5))
    assert np.sum(np.abs(ratio - 1.1) < 1e-5) > 3


def test_the_size_of_splus() -> None:
    """The singular values of an update: those of a sign, times 2/(m + n)."""
    g = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 4)), jnp.float32)
    link = cx.scale_by_splus()
    u, state = g[0], link.init(g[0])
    for x in g:
        u, state = link.update(x, state)
    np.testing.assert_allclose(jnp.linalg.norm(u), 2 / 10 * np.sqrt(24), rtol=1e-5)
    first, _ = link.update(g[0], link.init(g[0]))
    np.testing.assert_allclose(first, 0.2 * np.sign(g[0]), rtol=1e-6)


@pytest.mark.parametrize("link", (cx.scale_by_splus(update_every=1), cx.scale_by_asgo(update_every=1)), ids=repr)
def test_failed_decompositions_are_counted(link: Any) -> None:
    """The old basis or root is kept, and the update is finite."""
    grads = np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32)
    grads[2] *= 1e25
    name = type(link).__name__
    u, state, seen = grads[0], link.init(jnp.asarray(grads[0])), []
    step = quickly(link.update)
    for g in grads:
        u, state = step(jnp.asarray(g), state)
        seen.append(state.links[name])
    assert np.all(np.isfinite(u))
    for slot in ("QL", "QR") if name == "scale_by_splus" else ("P",):
        np.testing.assert_array_equal(seen[1][slot], seen[2][slot])
        assert np.any(seen[0][slot] != seen[1][slot])
    assert [int(of["failures"]) for of in seen] == [0, 0, 2 if name == "scale_by_splus" else 1]


@pytest.mark.parametrize("link", (cx.scale_by_splus(), cx.scale_by_asgo(), cx.scale_by_racs()), ids=repr)
@pytest.mark.parametrize("shape", ((1, 4), (4, 1), (3, 3)))
def test_zeros_at_first(link: Any, shape: tuple[int, int]) -> None:
    """No update, and what follows is finite."""
    state = link.init(jnp.zeros(shape))
    step = quickly(link.update)
    for k in range(4):
        u, state = step(jnp.full(shape, float(k > 1)), state)
        assert np.all(np.isfinite(u))
        assert bool(np.any(u != 0)) == (k > 1)


def test_bad_input() -> None:
    """The field, what came, and what it must be."""
    with pytest.raises(
        ValueError, match=r"`scale_by_asgo.sides` must be one of 'rows', 'columns', 'shorter', got 'both'"
    ):
        cx.scale_by_asgo(sides="both")
    with pytest.raises(ValueError, match=r"`scale_by_racs.rounds` must be a whole number from 1, got 0"):
        cx.scale_by_racs(rounds=0)
