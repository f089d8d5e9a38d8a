"""Gradient accumulation against one step on the mean gradient, and against Optax."""

import re
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax
from reference import STEPS, Tree, assert_agree, follow, problem, run
from registry import quickly

K = 5
ADAMW = cx.chain(cx.clip_by_global_norm(1.0), cx.adamw(cx.linear_schedule(1e-2, 0.0, 20), weight_decay=0.1))


def held(params: Tree, stepped: Tree, lengths: np.ndarray) -> Tree:
    """The trajectory on micro-batches of a run that took a step after each of these numbers of them."""
    taken = np.repeat(np.arange(len(lengths)), lengths)  # steps taken before the micro-batch ...
    taken[np.cumsum(lengths) - 1] += 1  # ... and with it
    return {n: np.concatenate([params[n][None], stepped[n]])[taken] for n in params}


def means(grads: Tree, weights: np.ndarray) -> Tree:
    """The weighted mean gradients of every K."""

    def mean(g: np.ndarray) -> np.ndarray:
        w = weights.reshape(STEPS // K, K, *(1,) * (g.ndim - 1))
        return (g.reshape(STEPS // K, K, *g.shape[1:]) * w).sum(1) / w.sum(1)

    return {n: mean(g) for n, g in grads.items()}


@jax.jit
def weighted(params: Tree, grads: Tree, weights: jax.Array) -> tuple[Tree, cx.State]:
    """The trajectory of a weighted accumulation, and the last state."""
    tx = cx.accumulate_weighted(ADAMW, K)

    def step(carry: tuple, given: tuple) -> tuple:
        p, state = tx.step(*carry, given[0], weight=given[1])
        return (p, state), p

    (_, state), trajectory = jax.lax.scan(step, (params, tx.init(params)), (grads, weights))
    return trajectory, state


# The mean


def test_equals_one_step_on_the_mean(x64: None) -> None:
    """Parameters hold still in between; clip, moments and schedules see the mean gradients alone."""
    params, grads = problem(seed=0)
    stepped = run(ADAMW, params, means(grads, np.ones(STEPS)), closed_over=True)
    ours = run(cx.accumulate(ADAMW, K), params, grads)
    assert_agree(ours, held(params, stepped, np.full(STEPS // K, K)), 1e-9)


def test_agrees_with_optax(x64: None) -> None:
    """The same as MultiSteps, also where the number of micro-batches changes as training goes on."""
    params, grads = problem(seed=1)

    def length(k: Any) -> Any:
        return jnp.where(k < 7, 3, 5)

    for every, theirs in ((K, K), (length, length)):

        def build(n: Any = theirs) -> Any:
            return optax.MultiSteps(optax.adam(1e-2), n, accumulator_dtype=jnp.float64)

        expected = run_optax(build, {}, params, grads)
        assert_agree(run(cx.accumulate(cx.adam(1e-2), every), params, grads, closed_over=True), expected, 1e-9)


def test_the_length_may_be_data(x64: None) -> None:
    """A stack of lengths is the runs one by one, each with its schedules counting the steps that it takes."""
    params, grads = problem(seed=0)
    lengths = jnp.array([1, K])
    together = cx.accumulate(ADAMW, lengths)
    paths = quickly(jax.vmap(follow, (together.axes(), None, None)))(together, params, grads)
    for i, every in enumerate((1, K)):
        assert_agree(jax.tree.map(lambda x, i=i: x[i], paths), run(cx.accumulate(ADAMW, every), params, grads), 1e-9)


def test_a_schedule_of_the_length_counts_steps_taken(x64: None) -> None:
    """Three micro-batches each for the first steps, five for those after, as `step_schedule` says."""
    params, grads = problem(seed=0)
    tx = cx.accumulate(cx.sgd(0.1), cx.piecewise_constant_schedule(3.0, {10: 5 / 3}))
    lengths = np.array([3] * 10 + [5] * 14)
    ends = np.cumsum(lengths)
    mean = {n: np.stack([g[b - k : b].mean(0) for b, k in zip(ends, lengths)]) for n, g in grads.items()}
    stepped = run(cx.sgd(0.1), params, mean, closed_over=True)
    assert_agree(run(tx, params, grads, closed_over=True), held(params, stepped, lengths), 1e-9)


def test_tokens_weigh(x64: None) -> None:
    """With the numbers of tokens for weights, the step is that of the mean over all tokens."""
    params, grads = problem(seed=0)
    tokens = np.random.default_rng(0).integers(1, 1000, STEPS).astype(float)
    stepped = run(ADAMW, params, means(grads, tokens), closed_over=True)
    trajectory, _ = weighted(params, grads, jnp.asarray(tokens))
    assert_agree(trajectory, held(params, stepped, np.full(STEPS // K, K)), 1e-9)


def test_update_sums_to_step(x64: None) -> None:
    """In a chain that goes on after it, the updates in between are 0."""
    params, grads = problem(seed=0)
    ours = run(cx.chain(cx.accumulate(cx.adam(1e-2), K), cx.scale(0.5)), params, grads)
    assert_agree(ours, run(cx.accumulate(cx.adam(5e-3), K), params, grads), 1e-9)


def test_sums_in_float32_or_wider() -> None:
    """A bfloat16 gradient of 1/256 still counts beside one of 1, which bfloat16 sums would lose."""
    small = jnp.full(2, 1 / 256, jnp.bfloat16)
    grads = [jnp.ones(2, jnp.bfloat16)] + 7 * [small]
    tx, params = cx.accumulate(cx.sgd(8.0), 8), jnp.zeros(2, jnp.bfloat16)
    state = tx.init(params)
    assert state.links["accumulate"]["sum"].dtype == jnp.float32
    for g in grads:
        params, state = tx.step(params, state, g)
    np.testing.assert_array_equal(state.links["accumulate"]["sum"], 1 + 7 / 256)
    with jax.enable_x64(True):
        assert tx.init(jnp.zeros(2)).links["accumulate"]["sum"].dtype == jnp.float64


# Gradients that are not finite


def test_a_bad_micro_batch_is_left_out(x64: None) -> None:
    """The step is that on the mean of the others; Optax's accumulator stays NaN for ever, shown first."""
    params, grads = problem(seed=0)
    grads["vector"][7, 2] = np.nan
    grads["cube"][21, 0, 0, 1] = np.inf
    theirs = run_optax(lambda: optax.MultiSteps(optax.adam(1e-2), K), {}, params, grads)
    assert all(np.isnan(theirs[n][-1]).any() for n in ("vector", "cube"))
    good = np.ones(STEPS)
    good[[7, 21]] = 0
    clean = {n: np.nan_to_num(g, nan=0.0, posinf=0.0) for n, g in grads.items()}
    stepped = run(cx.adam(1e-2), params, means(clean, good), closed_over=True)
    ours = run(cx.accumulate(cx.adam(1e-2), K), params, grads, closed_over=True)
    assert_agree(ours, held(params, stepped, np.full(STEPS // K, K)), 1e-9)


def test_bad_weights_are_left_out(x64: None) -> None:
    """So are micro-batches whose weight is negative or not finite; weight 0 is no mistake."""
    params, grads = problem(seed=0)
    weights = np.ones(STEPS)
    weights[[3, 12, 13, 40]] = np.nan, -1.0, np.inf, 0.0
    trajectory, state = weighted(params, grads, jnp.asarray(weights))
    stepped = run(ADAMW, params, means(grads, np.where(weights == 1, 1.0, 0.0)), closed_over=True)
    assert_agree(trajectory, held(params, stepped, np.full(STEPS // K, K)), 1e-9)
    assert state.links["accumulate_weighted"]["skipped"] == 3


def test_without_a_good_micro_batch_there_is_no_step() -> None:
    """Parameters, moments and the count of steps stay; the next steps are taken as if nothing had been."""
    tx, params = cx.accumulate(cx.adamw(0.1), 2), jnp.ones(3)
    step = cx.make_step(tx, donate=False)
    once = params, tx.init(params)
    for _ in range(2):
        once = step(*once, jnp.ones(3))
    bad = once
    for _ in range(2):
        bad = step(*bad, jnp.full(3, jnp.nan))
    entry, before = bad[1].links["accumulate"], once[1].links["accumulate"]
    chex.assert_trees_all_equal((bad[0], entry["tx"]), (once[0], before["tx"]))
    assert entry["skipped"] == 2
    for _ in range(2):
        once, bad = step(*once, jnp.ones(3)), step(*bad, jnp.ones(3))
    chex.assert_trees_all_equal(bad[0], once[0])
    assert bad[1].links["accumulate"]["tx"].step == 2


def test_a_loss_scale_stands_before() -> None:
    """There it sees the overflow and falls; the micro-batch is not one of those that make a step."""
    for kind, extra in ((cx.accumulate, {}), (cx.accumulate_weighted, {"weight": 3.0})):
        tx, params = cx.chain(cx.dynamic_loss_scale(8.0, growth_interval=4), kind(cx.sgd(1.0), 2)), jnp.zeros(2)
        state, step, scales = tx.init(params), cx.make_step(tx, donate=False), []
        for size in (1.0, jnp.inf, 3.0, jnp.nan, 1.0, 1.0, 1.0, 1.0):
            scales.append(cx.loss_scale(state).item())
            params, state = step(params, state, jnp.full(2, size) * cx.loss_scale(state), **extra)
        assert scales == [8.0, 8.0, 4.0, 4.0, 2.0, 2.0, 2.0, 2.0]
        assert cx.loss_scale(state) == 4.0
        np.testing.assert_array_equal(params, [-4.0, -4.0])  # the means of 1 and 3, 1 and 1, 1 and 1
        entry = state.links[kind.__name__]
        assert (int(entry["tx"].step), int(entry["count"]), int(entry["skipped"])) == (3, 0, 0)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    """Where the last micro-batch has none there is no step, and what came before does not come up again."""
    tx, params = cx.accumulate(cx.sgd(1.0), 2), {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    state, one = tx.init(params), jnp.ones(2)
    for g in ({"a": one, "b": one}, {"a": one, "b": None}, {"a": one, "b": None}, {"a": one, "b": 3 * one}):
        params, state = tx.step(params, state, g)
    chex.assert_trees_all_equal(params, {"a": jnp.full(2, -2.0), "b": jnp.full(2, -1.5)})


# What a micro-step costs


def test_a_micro_step_touches_the_sum_alone() -> None:
    """Of 8 micro-batches 7 leave every other buffer as it was, bit for bit, with one add for each leaf."""
    tx, params = cx.accumulate(cx.adamw(1e-2), 8), {"w": jnp.array([-0.0, 1.0]), "b": jnp.ones(3)}
    step, state, grads = cx.make_step(tx, donate=False), tx.init(params), jax.tree.map(jnp.ones_like, params)
    for i in range(1, 17):
        new, after = step(params, state, grads)
        entry, before = after.links["accumulate"], state.links["accumulate"]
        same = jax.tree.map(
            lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), (new, entry["tx"]), (params, before["tx"])
        )
        assert all(jax.tree.leaves(same)) == (i % 8 != 0)
        np.testing.assert_array_equal(entry["sum"]["w"], (i - 1) % 8 + 1)
        params, state = new, after


def test_a_micro_step_needs_no_memory() -> None:
    """Compiled and donated, the step reuses all buffers and copies none.

    Beside them there is a byte a parameter: the flags of the second look that the engine takes at
    gradients whose norm overflows.
    """
    params = {name: jnp.ones((256, 256)) for name in "abcd"}
    tx = cx.accumulate(cx.adamw(1e-3), 8)
    state = tx.init(params)
    compiled = cx.make_step(tx).lower(params, state, params).compile()
    memory: Any = compiled.memory_analysis()
    count = 4 * 256 * 256
    assert memory.alias_size_in_bytes >= 16 * count  # parameters, sum, and two moments
    assert memory.temp_size_in_bytes < 1.1 * count
    assert not re.search(r"f32\[256,256\]\S* copy\(", compiled.as_text())


# A window that is not full

GUARD = cx.chain(cx.skip_nonfinite(), cx.record(), cx.accumulate(ADAMW, K))
IN_GROUPS = cx.by_path({"vector": cx.accumulate(ADAMW, K)}, default=cx.freeze())
FLUSHED: dict[str, tuple[Any, str]] = {  # the chain, and the leaf that is looked at, if not all
    "alone": (cx.accumulate(ADAMW, K), ""),
    "behind a guard, for a condition": (cx.conditionally_mask(cx.restart(GUARD, 1000), lambda k: k < 13), ""),
    "in a group": (cx.partition(IN_GROUPS), "vector"),
    "on a vector": (cx.flatten(cx.accumulate(cx.flatten(ADAMW), K)), ""),
    "in itself": (cx.accumulate(cx.accumulate(ADAMW, K), 1), ""),
    "around itself": (cx.accumulate(cx.accumulate(ADAMW, 1), K), ""),
}


def chunks(grads: Tree, *lengths: int, weights: np.ndarray | None = None) -> Tree:
    """The weighted means of these numbers of gradients, one after the other."""
    w, ends = np.ones(sum(lengths)) if weights is None else weights, np.cumsum(lengths)
    slices = [slice(end - n, end) for n, end in zip(lengths, ends)]
    return {n: np.stack([np.average(g[part], axis=0, weights=w[part]) for part in slices]) for n, g in grads.items()}


def flushed(tx: Any, params: Tree, grads: Tree, first: int, last: int, **extra: Any) -> tuple[Any, Any, Any]:
    """After the first micro-batches, after a flush there, and after some more: parameters and state."""

    def step(carry: tuple, given: tuple) -> tuple:
        return tx.step(*carry, given[0], **given[1]), None

    def through(carry: tuple, part: slice) -> tuple:
        return jax.lax.scan(step, carry, jax.tree.map(lambda g: jnp.asarray(g)[part], (grads, extra)))[0]

    @jax.jit
    def go(params: Tree) -> tuple[Any, Any, Any]:
        before = through((params, tx.init(params)), slice(first))
        after = cx.flush(tx, *before)
        return before, after, through(after, slice(first, first + last))

    return go(jax.tree.map(jnp.asarray, params))


@pytest.mark.parametrize("kind", FLUSHED)
def test_a_flush_is_the_step_on_the_mean_of_what_is_there(kind: str, x64: None) -> None:
    """Of three micro-batches as of five; and the next five make the next step, with the schedule's next number."""
    tx, leaf = FLUSHED[kind]
    params, grads = problem(seed=0, shapes={"vector": (5,)} if leaf else {"matrix": (4, 3), "vector": (5,)})
    before, (after, state), (later, _) = flushed(tx, params, grads, 13, 0 if "condition" in kind else 5)
    stepped = run(ADAMW, params, chunks(grads, 5, 5, 3, 5))
    for ours, taken in ((before[0], 2), (after, 3), (later, 3 if "condition" in kind else 4)):
        assert_agree(ours, {n: points[taken - 1] for n, points in stepped.items()}, 1e-9)
    assert state.step == before[1].step == 13


def test_a_flush_weighs_and_leaves_out(x64: None) -> None:
    """The mean is weighted by tokens, without a micro-batch that is not finite."""
    params, grads = problem(seed=0)
    grads["vector"][6, 2] = np.nan
    tokens = np.random.default_rng(0).integers(1, 1000, STEPS).astype(float)
    _, (ours, state), _ = flushed(cx.accumulate_weighted(ADAMW, K), params, grads, 8, 0, weight=tokens)
    clean, weights = {n: np.nan_to_num(g) for n, g in grads.items()}, np.where(np.arange(STEPS) == 6, 0, tokens)
    stepped = run(ADAMW, params, chunks(clean, 5, 3, weights=weights[:8]))
    assert_agree(ours, {n: points[-1] for n, points in stepped.items()}, 1e-9)
    entry = state.links["accumulate_weighted"]
    assert (int(entry["count"]), int(entry["tx"].step), int(entry["skipped"])) == (0, 2, 1)


def test_a_flush_without_a_micro_batch_does_nothing() -> None:
    """Before the first one, behind a full window, after a flush, and where all are left out; with donated buffers."""
    tx, params = cx.accumulate(cx.adamw(0.1), 2), {"w": jnp.array([-0.0, 1.0]), "none": None}
    flush = jax.jit(lambda params, state: cx.flush(tx, params, state), donate_argnums=(0, 1))
    step, bad = cx.make_step(tx), {"w": jnp.full(2, jnp.nan), "none": None}
    good = {"w": jnp.ones(2), "none": None}
    run = params, tx.init(params)
    for grads in ((), (good, good), (good,), (), (bad,)):
        for g in grads:
            run = step(*run, g)
        was = jax.tree.map(np.asarray, run)
        run = flush(*run)
        taken = len(grads) == 1 and grads[0] is good
        entry, before = run[1].links["accumulate"], was[1].links["accumulate"]
        assert entry["tx"].step == before["tx"].step + taken
        assert entry["count"] == 0
        same = jax.tree.map(
            lambda a, b: np.asarray(a).tobytes() == b.tobytes(), (run[0], entry["tx"]), (was[0], before["tx"])
        )
        assert all(jax.tree.leaves(same)) == (not taken)


def test_a_flush_reads_what_the_chain_reads() -> None:
    """The extra arguments are those of the chain that takes the step, and of no link before it."""
    tx, params = (
        cx.chain(cx.skip_loss_spikes(), cx.accumulate(cx.chain(cx.sharpness_aware(), cx.sgd(0.1)), 2)),
        jnp.ones(2),
    )
    given = {"value": 1.0, "grad_fn": lambda p: 2 * p}
    _, state = tx.step(params, tx.init(params), params, **given)
    moved, _ = cx.flush(tx, params, state, grad_fn=given["grad_fn"])
    base: Any = tx["accumulate"]
    expected, _ = base.tx.step(params, base.tx.init(params), params, grad_fn=given["grad_fn"])
    np.testing.assert_array_equal(moved, expected)


# The rest


def test_apply_every_agrees_with_optax(x64: None) -> None:
    """Adam runs at every step, and its updates are let out together."""
    params, grads = problem(seed=0)
    expected = run_optax(lambda: optax.chain(optax.adam(1e-2), optax.apply_every(4)), {}, params, grads)
    assert_agree(run(cx.chain(cx.adam(1e-2), cx.apply_every(4)), params, grads), expected, 1e-9)


def test_extra_arguments_are_those_of_the_last_micro_batch() -> None:
    """Polyak's step size is taken from the loss that comes with the gradient that completes the mean."""
    tx, params = cx.accumulate(cx.polyak_sgd(), 2), jnp.zeros(2)
    state = tx.init(params)
    for value in (7.0, 1.0):
        params, state = tx.step(params, state, jnp.ones(2), value=value)
    plain = cx.polyak_sgd()
    expected, _ = plain.step(jnp.zeros(2), plain.init(params), jnp.ones(2), value=1.0)
    np.testing.assert_allclose(params, expected)


def test_every_one_is_the_chain_itself(x64: None) -> None:
    """A micro-batch to a step changes nothing."""
    params, grads = problem(seed=0)
    assert_agree(run(cx.accumulate(ADAMW, 1), params, grads), run(ADAMW, params, grads), 1e-9)


def test_a_scan_over_micro_batches(x64: None) -> None:
    """Inside of `jax.lax.scan`, where a training loop puts it, nothing is different."""
    params, grads = problem(seed=0)
    tx = cx.accumulate(cx.adam(1e-2), K)
    chex.assert_trees_all_close(jax.jit(lambda p, g: follow(tx, p, g))(params, grads), run(tx, params, grads))
