"""Line searches: the conditions that they promise, on the functions made to break them; Optax; and the laws."""

import functools
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_laws
from chainax.transforms.step_size.linesearch import REPORT
from registry import REGISTRY, tree
from test_lbfgs import rosenbrock

EXACT = {"approx_dec_rtol": 0.0}


def search(link: Any, f: Callable, x: jax.Array, u: jax.Array) -> tuple[jax.Array, Any]:
    """One search of ``f`` from ``x`` along ``u``: the update, and what the link keeps."""
    value, grad = jax.value_and_grad(f)(x)
    updates, state = link.update(u, link.init(x), x, value=value, grad=grad, value_fn=f)
    return updates, state.links[type(link).__name__]


def evaluations(link: Any, f: Callable, x: float, u: float) -> int:
    """How often the function is called."""
    count = 0

    def counted(x: jax.Array) -> jax.Array:
        nonlocal count
        count += 1
        return f(x)

    with jax.disable_jit():
        search(link, counted, jnp.array(x), jnp.array(u))
    return count - 1  # without the one at the start


# Moré & Thuente 1994, ACM TOMS 20, section 5: their functions, from α₀ = 0.001, 0.1, 10 and 1000


def wiggly(a: jax.Array, beta: float = 0.01, waves: float = 39.0) -> jax.Array:
    """(5.3): |a − 1| rounded off, with many local minima."""
    bend = jnp.square(a - 1) / (2 * beta) + beta / 2
    plain = jnp.where(a <= 1 - beta, 1 - a, jnp.where(a >= 1 + beta, a - 1, bend))
    return plain + 2 * (1 - beta) / (waves * jnp.pi) * jnp.sin(waves * jnp.pi / 2 * a)


def two_bends(b1: float, b2: float) -> Callable:
    """(5.4): nearly flat between two sharp bends."""

    def gamma(b: float) -> float:
        return (1 + b**2) ** 0.5 - b

    return lambda a: gamma(b1) * jnp.sqrt(jnp.square(1 - a) + b2**2) + gamma(b2) * jnp.sqrt(jnp.square(a) + b1**2)


FUNCTIONS: dict[str, tuple[Callable, float]] = {  # and the c₂ that Moré & Thuente ask for
    "5.1": (lambda a: -a / (jnp.square(a) + 2), 0.1),
    "5.2": (lambda a: (a + 0.004) ** 5 - 2 * (a + 0.004) ** 4, 0.1),
    "5.3": (wiggly, 0.1),
    "5.4 even": (two_bends(1e-3, 1e-3), 1e-3),
    "5.4 late": (two_bends(1e-2, 1e-3), 1e-3),
    "5.4 early": (two_bends(1e-3, 1e-2), 1e-3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_zoom_satisfies_the_strong_wolfe_conditions(name: str, x64: None) -> None:
    """Sufficient decrease and a flat slope, from starts that are too short and too long by factors of a thousand."""
    f, c2 = FUNCTIONS[name]
    c1 = c2 / 10
    link = cx.scale_by_zoom_linesearch(max_linesearch_steps=20, slope_rtol=c1, curv_rtol=c2, **EXACT)
    starts = jnp.array([1e-3, 1e-1, 1e1, 1e3])
    steps, kept = jax.jit(jax.vmap(lambda u: search(link, f, jnp.zeros(()), u)))(starts)
    slope = jax.grad(f)(0.0)
    for a, value, grad in zip(steps, kept["value"], kept["grad"]):
        assert a > 0
        assert f(a) <= f(0.0) + c1 * a * slope
        assert abs(jax.grad(f)(a)) <= c2 * abs(slope)
        np.testing.assert_allclose([value, grad], [f(a), jax.grad(f)(a)], atol=1e-12)


def test_conditions_hold_all_along_a_run(x64: None) -> None:
    """Every step of an L-BFGS run in the valley satisfies both conditions, and the state knows where it led."""
    tx = cx.lbfgs().replace("scale_by_zoom_linesearch", **EXACT)
    x = jnp.array([-1.2, 1.0, 0.5, 2.0])
    step, state, f = (
        jax.jit(functools.partial(tx.update, value_fn=rosenbrock)),
        tx.init(x),
        jax.value_and_grad(rosenbrock),
    )
    for _ in range(30):
        value, grad = f(x)
        u, state = step(grad, state, x, value=value, grad=grad)
        new_value, new_grad = f(x + u)
        assert new_value <= value + 1e-4 * grad @ u < value
        assert abs(new_grad @ u) <= 0.9 * abs(grad @ u)
        kept = state.links["scale_by_zoom_linesearch"]
        np.testing.assert_allclose(kept["value"], new_value, rtol=1e-12)
        np.testing.assert_allclose(kept["grad"], new_grad, rtol=1e-6)
        x = x + u


def test_interpolation_is_exact_on_a_cubic(x64: None) -> None:
    """One trial that is too long, and the next is the minimum of the cubic."""
    link = cx.scale_by_zoom_linesearch(curv_rtol=1e-3, **EXACT)
    cubic = lambda x: x**3 / 3 - x  # noqa: E731
    u, _ = search(link, cubic, jnp.array(0.0), jnp.array(3.0))
    np.testing.assert_allclose(u, 1.0, rtol=1e-12)
    assert evaluations(link, cubic, 0.0, 3.0) == 2
    assert evaluations(link, cubic, 0.0, 1.0) == 1


def test_where_the_search_begins(x64: None) -> None:
    """At 1, or where the last one ended; it doubles up to the bound, and takes the bound if that is still downhill."""
    far = lambda x: jnp.square(x - 8)  # noqa: E731
    link = cx.scale_by_zoom_linesearch(curv_rtol=0.1, **EXACT)
    u, kept = search(link, far, jnp.array(0.0), jnp.array(1.0))
    assert u == kept["learning_rate"] == 8
    assert evaluations(link, far, 0.0, 1.0) == 4  # 1, 2, 4, 8
    assert evaluations(link.replace(increase_factor=8.0), far, 0.0, 1.0) == 2
    assert search(link.replace(max_learning_rate=5.0), far, jnp.array(0.0), jnp.array(1.0))[0] == 5
    for strategy, rate in (("keep", 8.0), ("one", 1.0)):
        tx = link.replace(initial_guess_strategy=strategy, curv_rtol=0.99)
        state = link.init(jnp.array(0.0))
        state.links["scale_by_zoom_linesearch"]["learning_rate"] = jnp.array(8.0)
        value, grad = jax.value_and_grad(far)(0.0)
        updates, _ = tx.update(jnp.array(1.0), state, jnp.array(0.0), value=value, grad=grad, value_fn=far)
        assert updates == rate


ZOOM, BACKTRACKING = cx.scale_by_zoom_linesearch(), cx.scale_by_backtracking_linesearch(store_grad=True)


@pytest.mark.parametrize("link", (ZOOM, BACKTRACKING))
def test_a_search_that_finds_nothing_stays(link: Any) -> None:
    """Uphill, where nothing is lower within the steps, and where the value is not a number, the update is 0."""
    few = link.replace(**{next(f for f in link._leaves if f.endswith("_steps")): 3})
    for f, u in ((jnp.square, 1.0), (jnp.square, -1e9), (lambda x: x / 0.0, -1.0)):
        updates, kept = search(few, f, jnp.array(1.0), jnp.array(u))
        assert updates == 0
        assert kept["learning_rate"] > 0
        assert (kept["value"] == f(jnp.array(1.0))) | jnp.isinf(f(jnp.array(1.0)))


@pytest.mark.parametrize("link", (ZOOM, cx.scale_by_backtracking_linesearch()))
@pytest.mark.parametrize(
    ("f", "u", "failed", "uphill"),
    (
        (jnp.square, -1.0, 0, 0),
        (jnp.square, -300.0, 0, 0),
        (jnp.square, 1.0, 1, 1),
        (jnp.square, -1e18, 1, 0),
        (jnp.square, 0.0, 1, 0),
        (jnp.square, jnp.nan, 1, 0),
        (lambda x: x / 0.0, -1.0, 1, 0),
    ),
)
def test_the_state_says_how_the_search_went(link: Any, f: Callable, u: float, failed: int, uphill: int) -> None:
    """How often the function was evaluated, whether nothing lower was found, and whether the update pointed uphill."""
    updates, kept = search(link, f, jnp.array(1.0), jnp.array(u))
    assert (kept["failed"], kept["uphill"]) == (failed, uphill)
    assert bool(updates == 0) == bool(failed)
    assert kept["evaluations"] == evaluations(link, f, 1.0, u)
    assert {kept[name].dtype for name in ("evaluations", "failed", "uphill")} == {jnp.dtype(jnp.int32)}


def test_a_search_says_when_no_shorter_step_would_move() -> None:
    """Along a gradient that lies: 1 while the lengths tried are steps, 2 when rounding makes them none."""

    def f(x: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(2 * jnp.square(x)) - jnp.square(x)  # x², with the slope −2x

    assert search(BACKTRACKING, f, jnp.array(1.0), jnp.array(1.0))[1]["failed"] == 1
    updates, kept = search(BACKTRACKING, f, jnp.array(1.0), jnp.array(1e-9))
    assert kept["failed"] == 2
    assert updates == 0


@pytest.mark.parametrize("link", (ZOOM, BACKTRACKING))
def test_states_of_earlier_versions_load(link: Any) -> None:
    """What the state now says of the last search starts at 0."""
    params = jnp.array([1.0, 2.0])
    _, kept = search(link, lambda x: jnp.sum(jnp.square(x)), params, -params)
    assert kept["evaluations"] > 0
    tx = cx.chain(link)
    name = tx.names[0]
    state = tx.init(params)._replace(links={name: kept})
    stored = {k: x for k, x in tx.state_dict(state).items() if k.split("/")[-1] not in REPORT}
    stored.pop("chainax")  # version 0
    loaded, report = tx.load_state_dict(params, stored)
    assert sorted(report.missing) == sorted(f"{name}/{key}" for key in REPORT)
    np.testing.assert_array_equal(loaded.links[name]["learning_rate"], kept["learning_rate"])
    assert [int(loaded.links[name][key]) for key in REPORT] == [0, 0, 0]


@pytest.mark.parametrize("link", (ZOOM, BACKTRACKING.replace(decrease_factor=0.5)))
def test_values_that_are_no_numbers_are_too_far(link: Any) -> None:
    """A step across the edge of the domain, where the function is NaN or infinite, is shortened until it is within."""
    for f in (lambda x: x - jnp.log(x), lambda x: jnp.where(x > 0, x - jnp.log(jnp.abs(x)), jnp.inf)):
        updates, kept = search(link, f, jnp.array(3.0), jnp.array(-100.0))
        assert -3 < updates < 0
        assert kept["value"] < 3 - np.log(3)


def test_the_slope_decides_where_rounding_hides_the_fall() -> None:
    """A fall of 10⁻⁴ that rounding turns into a rise of 10⁻³: with ε the search still takes the right step."""

    def f(x: jax.Array) -> jax.Array:
        return 1e4 + 0.5 * jnp.sum(jnp.square(x)) + jnp.where(jnp.abs(x[0]) < 0.009, 1e-3, 0.0)

    x = jnp.array([1e-2, -1e-2])
    blind, _ = search(cx.scale_by_zoom_linesearch(**EXACT), f, x, -x)
    seeing, _ = search(cx.scale_by_zoom_linesearch(), f, x, -x)
    assert jnp.abs(blind).max() < 0.2 * 1e-2
    np.testing.assert_array_equal(seeing, -x)


# Backtracking


@pytest.mark.parametrize(
    "hyper",
    (
        {},
        {"decrease_factor": 0.5, "slope_rtol": 0.3, "increase_factor": 3.0},
        {"max_learning_rate": 1e-3},
        {"max_learning_rate": 2.0, "increase_factor": np.inf},
    ),
)
def test_backtracking_agrees_with_optax(hyper: dict[str, float], x64: None) -> None:
    """The lengths and points of a hundred steps of steepest descent."""
    tx = cx.chain(cx.scale_by_lr(1.0), cx.scale_by_backtracking_linesearch(max_backtracking_steps=50, **hyper))
    reference = optax.chain(optax.scale(-1.0), optax.scale_by_backtracking_linesearch(50, **hyper))
    x = y = jnp.array([-1.2, 1.0, 0.5, 2.0])
    state, theirs = tx.init(x), reference.init(y)
    step = jax.jit(functools.partial(tx.step, value_fn=rosenbrock))
    update = jax.jit(functools.partial(reference.update, value_fn=rosenbrock))
    f = jax.jit(jax.value_and_grad(rosenbrock))
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(100):
            value, grad = f(x)
            x, state = step(x, state, grad, value=value, grad=grad)
            value, grad = f(y)
            updates, theirs = update(grad, theirs, y, value=value, grad=grad)
            y = y + updates
            np.testing.assert_allclose(x, y, atol=1e-9)
            rate = state.links["scale_by_backtracking_linesearch"]["learning_rate"]
            np.testing.assert_allclose(rate, theirs[1].learning_rate, rtol=1e-9)


@pytest.mark.parametrize("traced", (False, True))
def test_a_search_that_begins_at_the_bound_forgets_the_last(traced: bool) -> None:
    """With an infinite factor, also where the last length was rounded to 0."""
    link = BACKTRACKING.replace(increase_factor=jnp.array(np.inf) if traced else np.inf, decrease_factor=0.0)
    x, f = jnp.array(1.0), lambda x: jnp.square(x)
    _, state = link.update(jnp.array(-8.0), link.init(x), x, value=f(x), grad=2 * x, value_fn=f)
    assert state.links["scale_by_backtracking_linesearch"]["learning_rate"] == 0
    updates, _ = link.update(jnp.array(-1.0), state, x, value=f(x), grad=2 * x, value_fn=f)
    assert updates == -1


@pytest.mark.parametrize("link", (ZOOM, BACKTRACKING.replace(decrease_factor=0.5)), ids=("zoom", "backtracking"))
def test_the_number_of_lengths_may_be_data(link: Any) -> None:
    """A stack of bounds is the searches one by one: with more lengths one gets farther."""
    field = next(f for f in link._leaves if f.endswith("_steps"))
    f, x = wiggly, jnp.array(-1.0)
    stack = link.replace(**{field: jnp.array([1, 2, 20])}, max_learning_rate=1.0)

    def one(link: Any) -> Any:
        return search(link, f, x, jnp.array(60.0))[0]

    together = jax.jit(jax.vmap(one, (stack.axes(),)))(stack)
    alone = [one(stack.replace(**{field: n})) for n in (1, 2, 20)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    assert len({round(float(u), 6) for u in together}) > 1


# The value and gradient at the next point


def test_value_and_gradient_from_the_state() -> None:
    """They are those that the last step's search found; before the first step, and where others move on, computed."""

    def other(x: jax.Array) -> jax.Array:
        return rosenbrock(x) + 100.0

    x = jnp.array([-1.2, 1.0])
    stored = cx.chain(cx.scale_by_lr(1e-3), BACKTRACKING)
    with pytest.warns(cx.ChainWarning, match="changes the step whose length"):
        moved_on = cx.chain(stored, cx.decay_after_step(0.1))
    unstored = stored.replace("scale_by_backtracking_linesearch", store_grad=False)
    for tx, kept in (
        (cx.lbfgs(), True),
        (stored, True),
        (moved_on, False),
        (unstored, False),
        (cx.scale_by_lbfgs(), False),
    ):
        state = tx.init(x)
        value, grad = cx.value_and_grad_from_state(tx, rosenbrock, x, state)
        np.testing.assert_allclose(value, rosenbrock(x), rtol=1e-6)
        np.testing.assert_allclose(grad, jax.grad(rosenbrock)(x), rtol=1e-6)
        known = {"value": value, "grad": grad, "value_fn": rosenbrock}
        extra = {name: known[name] for link in tx.links.values() for name in link.extra}
        y, state = tx.step(x, state, grad, **extra)
        assert (y != x).all()
        value, grad = cx.value_and_grad_from_state(tx, other, y, state)
        np.testing.assert_allclose(value, rosenbrock(y) + (0.0 if kept else 100.0), rtol=1e-5)
        np.testing.assert_allclose(grad, jax.grad(rosenbrock)(y), rtol=1e-4)
    assert cx.value_and_grad_from_state(cx.chain(), jnp.sum, jnp.ones(2), cx.chain().init(jnp.ones(2)))[0] == 2


def test_a_search_in_low_precision() -> None:
    """Parameters of bfloat16 are searched in float32, and only those with an update move."""
    params = {"a": jnp.array([1.0, -2.0], jnp.bfloat16), "b": jnp.ones(2), "n": jnp.arange(2)}

    def f(p: Any) -> jax.Array:
        assert p["a"].dtype == jnp.float32
        return jnp.sum(jnp.square(p["a"])) + jnp.sum(jnp.square(p["b"])) + 0.0 * p["n"].sum().astype(jnp.float32)

    tx = cx.chain(cx.scale_by_lr(1.0), ZOOM)
    grads = {"a": 2 * params["a"], "b": None, "n": None}
    grad = {**grads, "b": 2 * params["b"]}
    moved, state = tx.step(params, tx.init(params), grads, value=7.0, grad=grad, value_fn=f)
    assert moved["a"].dtype == jnp.bfloat16
    assert moved["a"].tolist() == [0.0, 0.0]
    assert moved["b"].tolist() == [1.0, 1.0]
    assert state.links["scale_by_zoom_linesearch"]["grad"]["b"].tolist() == [2.0, 2.0]


# Derivatives


def test_forward_derivatives_pass_through_a_search(x64: None) -> None:
    """The point found moves with the start as by finite differences; reverse mode refuses."""
    tx = cx.chain(cx.scale_by_lr(1.0), cx.scale_by_zoom_linesearch(curv_rtol=0.1))

    def found(x: jax.Array) -> jax.Array:
        f = lambda x: jnp.sum(jnp.array([1.0, 5.0]) * x**4)  # noqa: E731
        value, grad = jax.value_and_grad(f)(x)
        return tx.step(x, tx.init(x), grad, value=value, grad=grad, value_fn=f)[0]

    x, v, h = jnp.array([1.0, 0.7]), jnp.array([0.3, -0.2]), 1e-6
    slope = jax.jvp(found, (x,), (v,))[1]
    np.testing.assert_allclose(slope, (found(x + h * v) - found(x - h * v)) / (2 * h), rtol=1e-5)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(lambda x: found(x).sum())(x)


# Laws, which the registry tries

SEARCHES = [tx for tx in REGISTRY if any(link.no_reverse_mode for link in tx.links.values())]


@pytest.mark.parametrize("tx", SEARCHES, ids=repr)
def test_laws_are_tried_on_steps_that_move(tx: Any) -> None:
    """The length found is not 0, nor the one that was tried first."""
    run = test_laws.compiled(tx)
    assert (run.params[3]["layer"]["kernel"] != tree(0)["layer"]["kernel"]).all()
    rates = (s.links[list(tx.links)[-1]]["learning_rate"] for s in (run.states[0], run.states[3]))
    assert next(rates) > next(rates) > 0


# Mistakes


@pytest.mark.parametrize(
    ("make", "words"),
    (
        (
            lambda: cx.scale_by_zoom_linesearch(slope_rtol=0.5, curv_rtol=0.1),
            r"only if slope_rtol < curv_rtol, got 0.5 and 0.1",
        ),
        (
            lambda: cx.scale_by_zoom_linesearch(0),
            r"`scale_by_zoom_linesearch.max_linesearch_steps` must lie in \[1, ∞\), got 0",
        ),
        (
            lambda: cx.scale_by_backtracking_linesearch(2.5),
            r"max_backtracking_steps` must be a whole number, got 2\.5",
        ),
        (
            lambda: cx.scale_by_backtracking_linesearch(increase_factor=0.5),
            r"increase_factor` must lie in \[1, ∞\), got 0.5",
        ),
    ),
)
def test_mistakes_are_explained(make: Callable, words: str) -> None:
    """Settings with which no search can succeed."""
    with pytest.raises(ValueError, match=words):
        make()
