"""Adafactor and SM3 against PyTorch, Optax and pytorch_optimizer; what they keep, and what they bound."""

import functools
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from agreement import check_against_optax, check_against_pytorch_optimizer, fall_on_a_matrix, without
from libraries import run_optax
from reference import TOLERANCE, assert_agree, check_run, distance, log, problem, run, run_torch, settings, uniform

RATE = {"learning_rate": log(1e-3, 1e-1)}
ADAFACTOR = {
    "learning_rate": log(1e-3, 2e-2),
    "decay_rate": uniform(0.1, 1.0),
    "clipping_threshold": log(1.0, 1.5),
    "min_scale": log(1e-3, 1.0),
    "weight_decay": log(1e-3, 1e-1),
}

# Adafactor against PyTorch, which factors the last two axes, and caps the rate


def last_axes(**hyper: Any) -> cx.chain:
    """Adafactor as in PyTorch."""
    return cx.adafactor(min_dim_size_to_factor=1, **hyper).replace("scale_by_factored_rms", factored="last")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_adafactor_agrees_with_torch(dtype: Any) -> None:
    """Every hyperparameter. PyTorch bounds the estimate from below by ε₁², and divides 0 by 0 on an empty leaf."""
    with jax.enable_x64(dtype is np.float64):
        for i, hyper in enumerate(settings(ADAFACTOR)):
            params, grads = (without(("empty",), tree) for tree in problem(seed=i))
            given = {
                "lr": hyper["learning_rate"],
                "beta2_decay": -hyper["decay_rate"],
                "eps": (1e-15, hyper["min_scale"]),
                "d": hyper["clipping_threshold"],
                "weight_decay": hyper["weight_decay"],
            }
            theirs = run_torch("Adafactor", [(list(params), {})], params, grads, dtype, **given)
            check_run(last_axes(**hyper), params, grads, theirs, dtype, constant_too=i == 0)


@pytest.mark.parametrize("peak", (1e-2, 0.5))
def test_relative_step_agrees_with_torch(peak: float, x64: None) -> None:
    """By default the rate is min(10⁻², 1/√t); another peak falls from t = 4 on."""
    params, grads = (without(("empty",), tree) for tree in problem(seed=0))
    theirs = run_torch("Adafactor", [(list(params), {})], params, grads, lr=peak, eps=(1e-15, 1e-3))
    rate = None if peak == 1e-2 else cx.inverse_sqrt_schedule(peak, peak**-2, peak, first_step=1)
    check_run(last_axes(learning_rate=rate), params, grads, theirs)


def test_default_rate_falls() -> None:
    """10⁻² up to t = 10⁴, then 1/√t."""
    rate: Any = vars(cx.adafactor()["scale_by_lr"])["learning_rate"]
    steps = np.array([0, 9_998, 9_999, 39_999])
    np.testing.assert_allclose(rate(jnp.asarray(steps)), np.minimum(1e-2, 1 / np.sqrt(steps + 1)), rtol=1e-6)


# Adafactor against Optax, which factors the largest two axes

SIZES = {"learning_rate": log(1e-3, 1e-1), "decay_rate": uniform(0.1, 1.0), "eps": log(1e-30, 1e-3)}
OPTIONS = {**SIZES, "clipping_threshold": log(0.3, 3.0), "momentum": uniform(0.0, 0.99), "weight_decay": log(1e-3, 0.1)}


def beta(k: Any, c: Any) -> Any:
    """The decay of the means, which Optax computes in float32."""
    return 1 - (k + jnp.float64(1)) ** -c


def optax_adafactor(
    size: int, learning_rate: Any, decay_rate: Any, eps: Any, decay_rate_fn: Any = beta, **options: Any
) -> Any:
    """Optax's chain, in float64 and with a weight decay that the rate scales."""
    rms = optax.scale_by_factored_rms(True, decay_rate, options.get("decay_offset", 0), size, eps, decay_rate_fn)
    links = [rms, optax.clip_by_block_rms(options.get("clipping_threshold", 1.0))]
    links += [optax.scale_by_learning_rate(learning_rate, flip_sign=False), optax.scale_by_param_block_rms()]
    if "momentum" in options:
        links += [optax.ema(options["momentum"], debias=False)]
        links += [optax.add_decayed_weights(learning_rate * options["weight_decay"])]
    return optax.chain(*links, optax.scale(-1))


@pytest.mark.parametrize("size", (1, 3, 128))
@pytest.mark.parametrize("ranges", (SIZES, OPTIONS), ids=("plain", "all options"))
def test_adafactor_agrees_with_optax(size: int, ranges: Any, x64: None) -> None:
    """Every hyperparameter; (4, 3) and (2, 3, 2) factored, the first alone, and neither."""

    def ours(**hyper: Any) -> cx.chain:
        return cx.adafactor(min_dim_size_to_factor=size, **hyper)

    def theirs(**hyper: Any) -> Any:
        return optax_adafactor(size, **hyper)

    check_against_optax(ours, theirs, ranges)


def test_decay_offset_agrees_with_optax(x64: None) -> None:
    """Until then, where Optax divides 0 by 0 or takes the root of a negative number, the newest square counts alone."""

    def ours(**hyper: Any) -> cx.chain:
        return cx.adafactor(min_dim_size_to_factor=1, **hyper)

    def theirs(**hyper: Any) -> Any:
        return optax_adafactor(1, **hyper, decay_rate_fn=lambda k, c: beta(jnp.maximum(k, 0), c))

    check_against_optax(ours, theirs, {**SIZES, "decay_offset": lambda rng: float(rng.integers(1, 20))})


def test_decay_rate_function_agrees_with_optax(x64: None) -> None:
    """A schedule of the decay itself."""

    def ours(last: Any, **hyper: Any) -> cx.chain:
        return cx.adafactor(min_dim_size_to_factor=1, **hyper, b2=cx.linear_schedule(0.0, last, 50))

    def theirs(last: Any, **hyper: Any) -> Any:
        def line(k: Any, c: Any) -> Any:
            return last * jnp.minimum(k, 50).astype(jnp.float64) / 50

        return optax_adafactor(1, **hyper, decay_rate_fn=line)

    check_against_optax(ours, theirs, {**SIZES, "last": uniform(0.5, 0.999)})


def test_parts_of_adafactor_can_be_left_out(x64: None) -> None:
    """Without clipping and scaling it is the bare link; and each of the two makes a difference."""
    params, grads = problem(seed=0)
    bare = run(cx.adafactor(0.01, clipping_threshold=None, min_scale=None), params, grads)
    link = run(cx.chain(cx.scale_by_factored_rms(), cx.scale_by_lr(0.01)), params, grads)
    assert_agree(bare, link, 0.0)
    for part in ({"clipping_threshold": None, "min_scale": 1e-3}, {"clipping_threshold": 0.3, "min_scale": None}):
        assert distance(bare, run(cx.adafactor(0.01, **part), params, grads)) > 1e-2


# SM3


def optax_sm3(learning_rate: Any, momentum: Any, eps: Any, b2: float = 1.0) -> Any:
    """SM3 with its ε."""
    return optax.chain(optax.scale_by_sm3(momentum, b2, eps), optax.scale(-learning_rate))


def torch_sm3(library: Any, groups: Any, learning_rate: float, momentum: float) -> Any:
    """SM3 with sums, and without an ε that counts."""
    return library.SM3(groups, lr=learning_rate, momentum=momentum, beta=0.0, eps=1e-30, foreach=False)


SM3 = {**RATE, "momentum": uniform(0.0, 0.99), "eps": log(1e-10, 1e-2)}


def test_sm3_agrees_with_optax(x64: None) -> None:
    """Every hyperparameter. Optax takes neither scalars nor empty leaves."""
    check_against_optax(cx.sm3, optax_sm3, SM3, leave_out=("scalar", "empty"))


@pytest.mark.parametrize("b2", (0.0, 0.5, 0.99, 1.0))
def test_averaging_sm3_agrees_with_optax(b2: float, x64: None) -> None:
    """Squares averaged in place of summed; the form is the same for a traced β₂, and may change at 1."""
    (hyper,) = settings(SM3, count=1)
    params, grads = (without(("scalar", "empty"), tree) for tree in problem(seed=0))
    expected = run_optax(functools.partial(optax_sm3, b2=b2), hyper, params, grads)
    check_run(cx.sm3(**hyper, b2=b2), params, grads, expected, constant_too=True)


def test_sm3_agrees_with_pytorch_optimizer(x64: None) -> None:
    """The paper's form, in which 0/0 is 0; scalars too."""
    check_against_pytorch_optimizer(cx.sm3, torch_sm3, {**RATE, "momentum": uniform(0.1, 0.99)}, leave_out=("empty",))


def test_sm3_bounds_the_sum_of_squares(x64: None) -> None:
    """The bounds are never below Adagrad's sums, and on vectors they are these sums. Anil et al. 2019, claim 2."""
    params, grads = problem(seed=0)
    tx = cx.scale_by_sm3()
    state = tx.init(params)
    for k in range(10):
        _, state = tx.update({n: g[k] for n, g in grads.items()}, state, params)
    rows, columns = np.split(state.links["scale_by_sm3"]["nu"]["matrix"], [4])
    sums = {n: np.square(g[:10]).sum(0) for n, g in grads.items()}
    assert np.all(np.minimum(rows[:, None], columns[None]) >= sums["matrix"])
    assert np.any(np.minimum(rows[:, None], columns[None]) > 1.1 * sums["matrix"])
    np.testing.assert_allclose(state.links["scale_by_sm3"]["nu"]["vector"], sums["vector"], rtol=1e-12)


def test_they_descend_on_a_matrix() -> None:
    """To a millionth of the loss and less, with a row and a column in place of a matrix."""
    rate = cx.cosine_decay_schedule(0.1, 1000)
    assert fall_on_a_matrix(cx.adafactor(rate, min_dim_size_to_factor=2), 1000) < 1e-6
    assert fall_on_a_matrix(cx.sm3(0.3), 1000) < 1e-6


# What they keep


@pytest.mark.parametrize(
    ("link", "numbers"),
    (
        (cx.scale_by_factored_rms(), 300 + 200 + 1),
        (cx.scale_by_factored_rms(min_dim_size_to_factor=201), 300 * 200 + 2),
        (cx.scale_by_sm3(), 300 + 200),
    ),
    ids=repr,
)
def test_size_of_the_state(link: cxe.Link, numbers: int) -> None:
    """A row and a column for a matrix, or a number each."""
    state = jax.eval_shape(link.init, jnp.zeros((300, 200)))
    assert sum(x.size for x in jax.tree.leaves(state.links)) == numbers


def test_factored_axes() -> None:
    """A stack of matrices is factored on its largest two axes, or on its last two."""
    p = jnp.zeros((7, 2, 5))
    for factored, shapes in (("largest", ((2, 5), (7, 2))), ("last", ((7, 2), (7, 5)))):
        slots = cx.scale_by_factored_rms(min_dim_size_to_factor=2, factored=factored).init(p).links
        of = slots["scale_by_factored_rms"]
        assert (of["nu_row"].shape, of["nu_col"].shape) == shapes


def test_a_rank_one_square_is_factored_exactly(x64: None) -> None:
    """Where u² = rcᵀ, the factored mean is the mean itself: the first update is the sign."""
    r, c = jnp.array([1.0, 4.0, 9.0]), jnp.array([0.25, 16.0])
    u = jnp.sqrt(r[:, None] * c[None]) * jnp.array([[1.0, -1.0]])
    tx = cx.scale_by_factored_rms(min_dim_size_to_factor=2)
    got, _ = tx.update(u, tx.init(u))
    np.testing.assert_allclose(got, jnp.sign(u), rtol=1e-12)


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
def test_a_row_of_zeros_does_not_move(dtype: Any) -> None:
    """Rows and columns without gradients keep ε = 1e-30 in float32, and divide 0 by it."""
    p = jnp.zeros((4, 4), dtype)
    u = p.at[1, 2].set(3.0)
    tx = cx.scale_by_factored_rms(min_dim_size_to_factor=2)
    got, state = tx.update(u, tx.init(p))
    assert np.all(np.isfinite(got))
    assert np.all(np.asarray(got == 0) == np.asarray(u == 0))
    assert all(np.all(x >= 0) and np.all(np.isfinite(x)) for x in jax.tree.leaves(state))
