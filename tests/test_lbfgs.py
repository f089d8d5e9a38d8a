"""L-BFGS against dense BFGS matrices in NumPy, PyTorch and Optax; whole runs against SciPy's L-BFGS-B."""

import functools
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from reference import STEPS, Tree, assert_agree, check_run, problem
from sklearn.datasets import load_breast_cancer

# The link, on given gradients


def flat(tree: Tree, axes: int = 0) -> np.ndarray:
    """The tree as one vector, after so many axes."""
    return np.concatenate([x.reshape(*x.shape[:axes], -1) for x in tree.values()], axis=-1)


def unflat(vectors: np.ndarray, like: Tree) -> Tree:
    """The inverse of `flat`, for a stack of vectors."""
    ends = np.cumsum([x.size for x in like.values()])[:-1]
    parts = np.split(vectors, ends, axis=1)
    return {name: part.reshape(len(part), *x.shape) for (name, x), part in zip(like.items(), parts)}


def dense(params: Tree, grads: Tree, rate: float, m: int, scaled: bool) -> Tree:
    """Nocedal & Wright's (7.16) to (7.20) with matrices: H ← VᵀHV + ρssᵀ for the last m pairs with sᵀy > 0."""
    x, gradients, pairs, points = flat(params), flat(grads, 1), [], []
    x_before = x
    for k, g in enumerate(gradients):
        if k and (s := x - x_before) @ (y := g - gradients[k - 1]) > 0:
            pairs = [*pairs, (s, y)][-m:]
        gamma = 1 / max(1, np.linalg.norm(g))
        if pairs:
            s, y = pairs[-1]
            gamma = s @ y / (y @ y)
        H = (gamma if scaled else 1.0) * np.eye(x.size)
        for s, y in pairs:
            V = np.eye(x.size) - np.outer(y, s) / (s @ y)
            H = V.T @ H @ V + np.outer(s, s) / (s @ y)
        x_before, x = x, x - rate * H @ g
        points.append(x)
    return unflat(np.stack(points), params)


@pytest.mark.parametrize(("m", "rate", "scaled"), ((1, 0.3, True), (3, 0.3, True), (10, 0.3, True), (4, 1e-6, False)))
def test_agrees_with_dense_matrices(m: int, rate: float, scaled: bool, x64: None) -> None:
    """On gradients that are no function's, so that about half of the pairs have no positive curvature."""
    params, grads = problem(seed=m)
    tx = cx.lbfgs(rate, memory_size=m, scale_init_precond=scaled).remove("scale_by_zoom_linesearch")
    check_run(tx, params, grads, dense(params, grads, rate, m, scaled))


CURVATURE = np.logspace(-1, 0.5, 24)


def bowl_gradient(params: Tree, steepness: float) -> Tree:
    """The gradient of a quadratic whose minimum is at 0.3."""
    x = steepness * (flat(params) - 0.3) * CURVATURE[: flat(params).size]
    return {name: part[0] for name, part in unflat(x[None], params).items()}


def follow_bowl(tx: cx.chain, params: Tree, steepness: float) -> Tree:
    """The trajectory of a chain on the quadratic."""
    step, state, points = jax.jit(tx.step), tx.init(params), []
    for _ in range(STEPS):
        params, state = step(params, state, bowl_gradient(jax.tree.map(np.asarray, params), steepness))
        points.append(params)
    return jax.tree.map(lambda *xs: np.stack(xs), *points)


def test_agrees_with_torch(x64: None) -> None:
    """Without a search. PyTorch divides the first step by max(1, ‖g‖₁), and drops pairs of sᵀy < 1e-10: not here."""
    torch = pytest.importorskip("torch")
    params, _ = problem(seed=0, shapes={"matrix": (3, 2), "vector": (4,)})
    leaves = {name: torch.nn.Parameter(torch.tensor(10 * p)) for name, p in params.items()}
    optimizer = torch.optim.LBFGS(
        leaves.values(), lr=0.05, max_iter=1, history_size=4, tolerance_grad=0, tolerance_change=0
    )
    start = {name: p.detach().numpy().copy() for name, p in leaves.items()}
    assert np.abs(flat(bowl_gradient(start, 1e-2))).sum() < 1

    def closure() -> Any:
        gradient = bowl_gradient({name: p.detach().numpy() for name, p in leaves.items()}, 1e-2)
        for name, p in leaves.items():
            p.grad = torch.tensor(gradient[name])
        return torch.zeros(())

    points = []
    for _ in range(STEPS):
        optimizer.step(closure)
        points.append({name: p.detach().numpy().copy() for name, p in leaves.items()})
    theirs = jax.tree.map(lambda *xs: np.stack(xs), *points)
    ours = follow_bowl(cx.lbfgs(0.05, memory_size=4).remove("scale_by_zoom_linesearch"), start, 1e-2)
    assert_agree(ours, theirs, 1e-9)


@pytest.mark.parametrize("scaled", (True, False))
def test_agrees_with_optax(scaled: bool, x64: None) -> None:
    """On a convex function, where Optax too keeps all pairs; the first step is Optax's as well."""
    params = {name: 30 * p for name, p in problem(seed=1, shapes={"matrix": (3, 2), "vector": (4,)})[0].items()}
    rate = 0.5 if scaled else 1.0
    reference = optax.chain(optax.scale_by_lbfgs(5, scaled), optax.scale(-rate))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        x, state, points, update = params, reference.init(params), [], jax.jit(reference.update)
        for _ in range(STEPS):
            updates, state = update(bowl_gradient(jax.tree.map(np.asarray, x), 1.0), state, x)
            x = optax.apply_updates(x, updates)
            points.append(x)
    theirs = jax.tree.map(lambda *xs: np.stack(xs), *points)
    tx = cx.lbfgs(rate, memory_size=5, scale_init_precond=scaled).remove("scale_by_zoom_linesearch")
    assert_agree(follow_bowl(tx, params, 1.0), theirs, 1e-9)


def test_pairs_without_positive_curvature_are_not_kept() -> None:
    """On −½‖x‖² every pair has sᵀy < 0: the update stays the gradient over max(1, its norm)."""
    tx = cx.chain(cx.scale_by_lbfgs(3), cx.scale_by_lr(0.1))
    params = jnp.array([3.0, 4.0])
    state = tx.init(params)
    for _ in range(5):
        updates, state = tx.update(-params, state, params)
        np.testing.assert_allclose(updates, 0.1 * params / jnp.linalg.norm(params), rtol=1e-5)
        params = params + updates
    assert not state.links["scale_by_lbfgs"]["rho"].any()


def test_a_bad_gradient_does_not_poison_the_memory() -> None:
    """A NaN gradient makes no pair; two steps later pairs are kept again."""
    tx, params = cx.scale_by_lbfgs(3), jnp.array([3.0, 4.0])
    updates, state = params, tx.init(params)
    for k, gradient in enumerate((1.0, jnp.nan, 2.0, 4.0)):
        updates, state = tx.update(gradient * params, state, params + k)
    assert jnp.isfinite(updates).all()
    assert [float(r) > 0 for r in state.links["scale_by_lbfgs"]["rho"]] == [True, False, False]


def test_complex_equals_split_real() -> None:
    """Complex parameters are pairs of reals, and a missing gradient stops its parameter alone."""
    tx = cx.chain(cx.scale_by_lbfgs(3), cx.scale_by_lr(0.3))
    z = {"a": jnp.array([1.0 + 2.0j, -1.0j]), "b": jnp.ones(2)}
    slope = jax.vmap(lambda a: jax.lax.complex(a.real * (2 + a.real), 3 * a.imag))
    split = {"re": z["a"].real, "im": z["a"].imag, "b": z["b"]}
    state, parts_state = tx.init(z), tx.init(split)
    for _ in range(4):
        z, state = tx.step(z, state, {"a": slope(z["a"]), "b": None})
        a = slope(jax.lax.complex(split["re"], split["im"]))
        split, parts_state = tx.step(split, parts_state, {"re": a.real, "im": a.imag, "b": None})
    np.testing.assert_allclose(z["a"], jax.lax.complex(split["re"], split["im"]), rtol=1e-5)
    assert z["b"].tolist() == [1.0, 1.0]


def test_the_memory_lies_where_the_parameters_lie() -> None:
    """Each device holds its share of all m pairs."""
    where = NamedSharding(Mesh(np.array(jax.devices()), ("d",)), P("d"))
    state = cx.scale_by_lbfgs(3).init(jax.device_put(jnp.ones(16), where)).links["scale_by_lbfgs"]
    assert state["s"].sharding.is_equivalent_to(NamedSharding(where.mesh, P(None, "d")), 2)
    assert state["params"].sharding == where


def test_memory_size_must_be_positive() -> None:
    """A memory of nothing is a mistake."""
    with pytest.raises(ValueError, match=r"`scale_by_lbfgs.memory_size` must be a whole number from 1, got 0"):
        cx.scale_by_lbfgs(0)


# Whole runs


def rosenbrock(x: Any) -> Any:
    """The valley in 6 dimensions."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def cigar(x: Any) -> Any:
    """A quadratic of condition 10⁴, in axes that are not the coordinates'."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0]
    return 0.5 * (np.logspace(-2, 2, 20) * ((x - 1) @ basis) ** 2).sum()


@functools.cache
def clinic() -> tuple[np.ndarray, np.ndarray]:
    """Standardized measurements of 569 tumours, and −1 or 1 for their kind."""
    x, kind = load_breast_cancer(return_X_y=True)
    return (x - x.mean(0)) / x.std(0), 2.0 * kind - 1


def logistic(w: Any) -> Any:
    """Logistic regression with a small penalty."""
    x, y = clinic()
    return jnp.logaddexp(0.0, -y * (x @ w)).mean() + 0.5e-3 * (w**2).sum()


PROBLEMS = {
    "rosenbrock": (rosenbrock, [-1.2, 1.0] * 3),
    "cigar": (cigar, [0.0] * 20),
    "logistic": (logistic, [0.0] * 30),
}


@pytest.mark.parametrize("search", ("zoom", "backtracking"))
@pytest.mark.parametrize("name", PROBLEMS)
def test_finds_the_minimum_that_scipy_finds(name: str, search: str, x64: None) -> None:
    """To 1e-6 in every coordinate; the run is traced once, however long, and serves other starts."""
    (f, start), traces = PROBLEMS[name], 0

    def counted(x: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return f(x)

    tx = cx.lbfgs()
    if search == "backtracking":
        tx = tx.replace("scale_by_zoom_linesearch", cx.scale_by_backtracking_linesearch(store_grad=True))
    solve: Any = jax.jit(functools.partial(cx.minimize, tx, counted, tolerance=1e-9))
    found = solve(jnp.array(start))
    before = traces
    slope = jax.jit(jax.grad(f))
    theirs = scipy.optimize.minimize(
        jax.jit(f),
        start,
        jac=slope,
        method="L-BFGS-B",
        options={"ftol": 0, "gtol": 1e-9, "maxiter": 10_000, "maxfun": 10_000},
    )
    assert_agree(found.params, theirs.x, 1e-6)
    assert np.abs(found.grad).max() <= 1e-9
    np.testing.assert_allclose(found.grad, slope(found.params), atol=1e-12)
    assert 10 < found.state.step < 1000
    again = solve(found.params + 0.1)
    assert_agree(again.params, theirs.x, 1e-6)
    assert traces == before <= 6
    assert solve._cache_size() == 1


def test_a_quadratic_is_done_in_as_many_steps_as_dimensions(x64: None) -> None:
    """With exact line searches L-BFGS is a method of conjugate directions: n steps, and one to see it."""
    exact = cx.scale_by_zoom_linesearch(curv_rtol=1e-3, slope_rtol=1e-4, initial_guess_strategy="one")
    tx = cx.lbfgs(memory_size=5).replace("scale_by_zoom_linesearch", exact)
    curvature = jnp.array([1.0, 3.0, 10.0, 30.0])
    found = cx.minimize(tx, lambda x: 0.5 * jnp.sum(curvature * x**2), jnp.ones(4), tolerance=1e-5)
    assert found.state.step <= 5


# minimize


def test_minimize_takes_any_tree_and_any_chain() -> None:
    """Complex and Python numbers, holes, integers and functions; chains with a search, without one, and with SAM."""
    params = {"z": jnp.array(1.0 + 1.0j), "hole": None, "n": jnp.arange(2), "x": 3.0, "f": jnp.sin}

    def f(p: Any) -> jax.Array:
        away = p["z"] - jax.lax.complex(2.0, -1.0)
        return jnp.square(jnp.abs(away)) + jnp.square(p["x"] - 1.0)

    for tx in (cx.lbfgs(), cx.sgd(0.2), cx.polyak_sgd(), cx.chain(cx.sharpness_aware(1e-3), cx.sgd(0.2, momentum=0.3))):
        found = cx.minimize(tx, f, params, tolerance=3e-3, max_steps=200)
        np.testing.assert_allclose([found.params["z"], found.params["x"]], [2.0 - 1.0j, 1.0], atol=4e-3)
        assert found.params["f"] is jnp.sin
        assert found.params["hole"] is None
        chex.assert_trees_all_equal(found.params["n"], jnp.arange(2))
        assert found.state.step < 200


def test_minimize_stops(x64: None) -> None:
    """At the tolerance without a step, after ``max_steps``, and where the function is not a number."""
    assert cx.minimize(cx.lbfgs(), jnp.sum, jnp.ones(2), tolerance=1.0).state.step == 0
    assert cx.minimize(cx.sgd(0.1), jnp.sum, jnp.ones(2), max_steps=7).state.step == 7
    assert cx.minimize(cx.lbfgs(), lambda x: jnp.sum(jnp.sqrt(x)), -jnp.ones(2)).state.step == 0
    steps = jnp.array([2, 7])
    runs = jax.vmap(lambda n: cx.minimize(cx.sgd(0.1), jnp.sum, jnp.ones(2), max_steps=n).state.step)(steps)
    np.testing.assert_array_equal(runs, steps)


@pytest.mark.parametrize("tx", (cx.lbfgs(), cx.sgd(0.1), cx.chain(cx.skip_nonfinite(), cx.adam(0.1))), ids=repr)
@pytest.mark.parametrize(
    ("f", "start"),
    (
        (lambda x: jnp.sum(jnp.square(x)), [jnp.nan, 1.0]),  # one coordinate of the gradient is a number
        (lambda x: jnp.sum(jnp.log(x)), [-1.0, 1.0]),  # the whole gradient is
        (lambda x: jnp.sum(jnp.sqrt(x) + x), [-1.0, 1.0]),
    ),
)
def test_minimize_ends_where_there_are_no_numbers(tx: Any, f: Any, start: list[float]) -> None:
    """Without a step."""
    found = cx.minimize(tx, f, jnp.array(start), max_steps=50)
    assert found.state.step == 0
    assert all(int(entry.get("skipped", 0)) == 0 for entry in found.state.links.values())


@pytest.mark.parametrize(
    "search",
    (
        cx.scale_by_zoom_linesearch(approx_dec_rtol=0.0),
        cx.scale_by_backtracking_linesearch(2),
    ),
    ids=repr,
)
def test_minimize_ends_where_a_search_can_only_fail_again(search: Any) -> None:
    """Where rounding hides every fall, the search fails, and ten thousand more would too: the state says so."""
    tx = cx.lbfgs().replace("scale_by_zoom_linesearch", search)

    def f(x: jax.Array) -> jax.Array:
        exact = jnp.sum(jnp.array([1.0, 30.0]) * jnp.square(x))
        return exact + jax.lax.stop_gradient(jnp.round(exact) - exact)

    found = cx.minimize(tx, f, jnp.array([3.0, 1.0]), max_steps=10_000)
    assert 1 < found.state.step < 100
    assert found.state.links[tx.names[-1]]["failed"] > 0
    assert jnp.abs(found.grad).max() > 0


@pytest.mark.parametrize("before", (cx.scale_by_lr(0.1), cx.sgd(0.1, momentum=0.9), cx.lbfgs()), ids=repr)
def test_minimize_ends_where_the_gradient_lies(before: Any) -> None:
    """The search shrinks its first length from step to step, until no shorter one would move the parameters."""
    tx = cx.chain(*(x for x in before.links.values() if x.role != "search"), cx.scale_by_backtracking_linesearch())

    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(jax.lax.stop_gradient(2 * jnp.square(x)) - jnp.square(x))  # ‖x‖², with the slope −2x

    found = cx.minimize(tx, f, jnp.array([1.0, 2.0]), max_steps=10_000)
    assert 1 < found.state.step < 400
    np.testing.assert_array_equal(found.params, [1.0, 2.0])
    assert found.state.links["scale_by_backtracking_linesearch"]["failed"] == 2


def test_minimize_goes_on_where_the_next_search_is_another(x64: None) -> None:
    """Momentum points uphill now and then, and turns: a search that fails is no end while the state changes."""
    tx = cx.chain(cx.trace(0.9), cx.scale_by_lr(0.03), cx.scale_by_backtracking_linesearch())

    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.array([1.0, 30.0]) * jnp.square(x))

    def step(carry: tuple, _: None) -> tuple:
        value, grad = jax.value_and_grad(f)(carry[0])
        carry = tx.step(*carry, grad, value=value, grad=grad, value_fn=f)
        return carry, carry[1].links["scale_by_backtracking_linesearch"]["uphill"]

    start = jnp.array([1.0, 0.3])
    found = cx.minimize(tx, f, start, tolerance=1e-3, max_steps=1000)
    assert jnp.abs(found.grad).max() <= 1e-3
    uphill = jax.lax.scan(step, (start, tx.init(start)), None, int(found.state.step))[1]
    assert 0 < uphill.sum() < uphill.size


def test_minimize_ends_though_a_guard_refuses() -> None:
    """Every attempt counts, so that a step that is refused for ever ends the run too."""
    tx = cx.chain(cx.skip_large_updates(1.0), cx.sgd(0.1))
    found = cx.minimize(tx, lambda x: jnp.sum(jnp.square(x)), jnp.array([3.0]), max_steps=5)
    assert found.params == 3.0
    assert found.state.step == 0
    assert found.state.links["skip_large_updates"]["skipped"] == 5


def test_minimize_in_mixed_precision(x64: None) -> None:
    """Each parameter in its own precision, scalars in the better one; no parameters are no work."""
    params = {"double": jnp.zeros(2), "single": jnp.zeros(3, jnp.float32)}

    def f(p: Any) -> jax.Array:
        return jnp.sum((p["double"] - 1) ** 4) + jnp.sum((p["single"] - 2) ** 2).astype(jnp.float64)

    found = cx.minimize(cx.lbfgs(), f, params, tolerance=1e-5)
    assert found.params["single"].dtype == jnp.float32
    np.testing.assert_allclose(found.params["single"], 2.0, rtol=1e-5)
    np.testing.assert_allclose(found.params["double"], 1.0, rtol=0.02)
    assert cx.minimize(cx.sgd(0.1), lambda p: jnp.ones(()), {"n": 3}).state.step == 0


def test_minimize_maps_over_starts(x64: None) -> None:
    """A batch of runs is the runs one by one."""
    solve = functools.partial(cx.minimize, cx.lbfgs(), rosenbrock, tolerance=1e-8)
    starts = jnp.array([[-1.2, 1.0, 0.5], [2.0, 2.0, 0.0]])
    together = jax.jit(jax.vmap(solve))(starts)
    for i, start in enumerate(starts):
        alone = jax.jit(solve)(start)
        assert together.state.step[i] == alone.state.step
        np.testing.assert_allclose(together.params[i], alone.params, rtol=1e-9)
