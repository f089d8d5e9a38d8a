"""Links that refuse steps, and the scale of the loss, against Optax, torch.amp and NumPy."""

from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chainax.core.engine.runs import runs_of
from libraries import run_optax
from reference import STEPS, Tree, assert_agree, follow, problem, run, traced
from registry import quickly

BAD = np.random.default_rng(0).choice([0.0, 0.0, 0.0, np.nan, np.inf, -np.inf], STEPS)
BAD[40:46] = np.nan  # six in a row


def spoiled(params: Tree, grads: Tree, by: np.ndarray = BAD) -> tuple[Tree, Tree]:
    """The problem, where in bad steps one coordinate of one leaf is not finite."""
    grads = {n: g.copy() for n, g in grads.items()}
    grads["vector"][:, 2] += by
    return params, grads


def guarded(*guards: Any) -> cx.chain:
    """Adam with momentum and decay behind guards."""
    return cx.chain(*guards, cx.adamw(0.1, eps=1e-6, weight_decay=0.1))


def final(tx: cx.chain, params: Tree, grads: Tree, **extra: Any) -> tuple[Tree, cx.State]:
    """Parameters and state after all steps."""

    @jax.jit
    def train(params: Tree, grads: Tree, extra: Tree) -> Any:
        def step(carry: tuple, given: tuple) -> tuple:
            return tx.step(*carry, given[0], **given[1]), None

        return jax.lax.scan(step, (params, tx.init(params)), (grads, extra))[0]

    return train(params, grads, extra)


# Steps that are not finite, or too large


@pytest.mark.parametrize("limit", (None, 5, 2, 0))
def test_skip_nonfinite_agrees_with_optax(limit: int | None, x64: None) -> None:
    """A refused step leaves parameters, moments and the count of steps; after ``limit`` in a row they are taken."""
    params, grads = spoiled(*problem(seed=0))

    def build() -> Any:
        inner = optax.adamw(0.1, eps=1e-6, weight_decay=0.1)
        return optax.apply_if_finite(inner, max_consecutive_errors=10**6 if limit is None else limit)

    theirs = run_optax(build, {}, params, grads)
    ours = traced(guarded(cx.skip_nonfinite(limit)), *jax.tree.map(jnp.asarray, (params, grads)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), ours, theirs)
    assert np.isfinite(theirs["vector"][-1]).all() == (limit is None)


def test_the_limit_may_be_data(x64: None) -> None:
    """A stack of limits is the runs one by one."""
    params, grads = jax.tree.map(jnp.asarray, spoiled(*problem(seed=0)))
    limits = jnp.array([5, 2, 0])
    together = guarded(cx.skip_nonfinite(limits))
    paths = quickly(jax.vmap(follow, (together.axes(), None, None)))(together, params, grads)
    for i, limit in enumerate((5, 2, 0)):
        alone = traced(guarded(cx.skip_nonfinite(limit)), params, grads)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=0, atol=1e-9), paths, alone)


def test_skip_nonfinite_counts(x64: None) -> None:
    """The state says how many steps were refused, and how many of the last ones."""
    params, grads = spoiled(*problem(seed=0))
    _, state = final(guarded(cx.skip_nonfinite()), params, grads)
    memory = state.links["skip_nonfinite"]
    assert int(memory["skipped"]) == np.sum(BAD != 0)
    assert int(state.step) == STEPS - np.sum(BAD != 0)
    in_a_row = STEPS - 1 - max(np.flatnonzero(BAD == 0))
    assert int(memory["consecutive"]) == in_a_row


def test_finite_is_asked_of_what_reaches_the_guard() -> None:
    """Links before it that scale all updates alike may make them infinite, or NaN, where gradients are not."""
    for tx, extra in (
        (cx.chain(cx.scale(1e38), cx.skip_nonfinite()), {}),
        (cx.chain(cx.scale_by_polyak(), cx.skip_nonfinite()), {"value": jnp.array(jnp.nan)}),
    ):
        x = jnp.array([1.0, 2.0])
        moved, state = tx.step(x, tx.init(x), jnp.array([1e2, 1.0]), **extra)
        np.testing.assert_array_equal(moved, x)
        assert state.links["skip_nonfinite"]["skipped"] == 1
    tx = cx.chain(cx.scale(0.5), cx.skip_nonfinite(), cx.sgd(0.1))
    assert jax.jit(lambda p: tx.step(p, tx.init(p), 1.0)[0])(jnp.array(1.0)) == jnp.float32(0.95)
    fine = cx.chain(cx.scale(1e30), cx.skip_nonfinite(), cx.scale(1e-30))  # its norm overflows, no number does
    moved, _ = fine.step(jnp.zeros(2), fine.init(jnp.zeros(2)), jnp.array([1e2, 1.0]))
    np.testing.assert_allclose(moved, [1e2, 1.0], rtol=1e-6)


COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)


@pytest.mark.parametrize("inner", (cx.sgd(0.1, momentum=0.9), cx.accumulate(cx.sgd(0.1), 2)), ids=("links", "wrapper"))
def test_a_guard_outside_of_jit_compiles_once(inner: Any) -> None:
    """Also if the loss comes as a Python number."""
    tx, x = cx.chain(cx.skip_nonfinite(), cx.skip_loss_spikes(), inner), {"w": jnp.arange(3.0)}
    state, counts = tx.init(x), []
    for i in range(5):
        before = len(COMPILED)
        x, state = tx.step(x, state, {"w": jnp.ones(3)}, value=1.0 + i)
        counts.append(len(COMPILED) - before)
    assert counts[0] > 0
    assert counts[3:] == [0, 0]


def test_a_norm_that_overflows_is_finite() -> None:
    """Squares over 3e38 do not make a finite gradient a bad one."""
    tx = cx.chain(cx.skip_nonfinite(), cx.scale_by_lr(1.0))
    g = jnp.array([3e38, 1.0])
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], -g)


def test_skip_large_updates_is_the_run_without_them(x64: None) -> None:
    """The same as if steps over the bound, or with NaN, had never been."""
    params, grads = spoiled(*problem(seed=0), np.where(np.arange(STEPS) % 7 == 0, np.nan, 0.0))
    norms = np.sqrt(sum(np.sum(g**2, tuple(range(1, g.ndim))) for g in grads.values()))
    bound = np.nanmedian(norms)
    good = norms <= bound
    ours, state = final(guarded(cx.skip_large_updates(bound)), params, grads)
    theirs, _ = final(guarded(), params, {n: g[good] for n, g in grads.items()})
    assert_agree(ours, theirs, 1e-12)
    assert int(state.links["skip_large_updates"]["skipped"]) == np.sum(~good)
    assert 0 < np.sum(good) < STEPS


def test_guards_refuse_together() -> None:
    """One refusal is enough; each guard counts its own, and what others remember goes on."""
    tx = cx.chain(cx.skip_nonfinite(), cx.skip_large_updates(2.0), cx.scale_by_adam(), cx.scale_by_lr(0.1))
    params = jnp.ones(3)
    state = tx.init(params)
    for size in (1.0, 5.0, jnp.nan, 0.5):
        params, state = tx.step(params, state, jnp.array([size, 0.0, 0.0]))
    assert state.step == 2
    assert state.links["skip_nonfinite"]["skipped"] == 1
    assert state.links["skip_large_updates"]["skipped"] == 2


@pytest.mark.parametrize("first", (cx.trace(0.9), cx.from_optax(optax.trace(0.9))), ids=("leafwise", "whole tree"))
@pytest.mark.parametrize("step", ("step", "update"))
def test_a_guard_behind_other_links_undoes_them(first: Any, step: str) -> None:
    """It knows its verdict when they have run: their slots are then as before, and its own memory is kept."""
    tx = cx.chain(cx.skip_nonfinite(), first, cx.skip_large_updates(2.0), cx.scale_by_lr(1.0))
    params, state, momentum, expected, refused = jnp.zeros(2), tx.init(jnp.zeros(2)), 0.0, 0.0, 0
    for size in (1.0, 1.5, np.nan, 0.5, 3.0, 0.2):
        g = jnp.array([size, 0.0])
        if step == "step":
            params, state = tx.step(params, state, g)
        else:
            updates, state = tx.update(g, state, params)
            params = params + updates
        if np.isfinite(size) and 0.9 * momentum + size <= 2:
            momentum = 0.9 * momentum + size
            expected -= momentum
        else:
            refused += np.isfinite(size)
        np.testing.assert_allclose(params, [expected, 0.0], rtol=1e-6)
        np.testing.assert_allclose(jax.tree.leaves(state.links[tx.names[1]])[0], [momentum, 0.0], rtol=1e-6)
    assert refused == state.links["skip_large_updates"]["skipped"] == 2
    assert state.links["skip_nonfinite"]["skipped"] == 1
    assert state.step == 3


WRAPPERS = (
    cx.mechanize(guarded(cx.skip_nonfinite()), s_init=0.1),
    cx.schedule_free(guarded(cx.skip_nonfinite())),
    cx.scale_by_galore(cx.chain(cx.skip_nonfinite(), cx.sgd(0.1, momentum=0.9)), rank=2, update_proj_gap=3, scale=1.0),
)


@pytest.mark.parametrize("tx", WRAPPERS, ids=lambda tx: type(tx).__name__)
def test_a_guard_within_a_link_holds_the_link_too(tx: Any, x64: None) -> None:
    """All parameters and the link's own memory are as if bad steps had never been, from the first on."""
    params, grads = problem(seed=0)
    bad = np.isin(np.arange(STEPS), (0, 1, 30, 31, 50, STEPS - 1))
    spoilt = {n: np.where(bad.reshape(-1, *(1 for _ in params[n].shape)), np.nan, g) for n, g in grads.items()}
    ours, state = final(tx, params, spoilt)
    theirs, expected = final(tx, params, {n: g[~bad] for n, g in grads.items()})
    name = type(tx).__name__
    kept, memory = state.links[name], state.links[name]["tx"].links["skip_nonfinite"]
    assert int(memory["skipped"]) == 6
    assert_agree(ours, theirs, 1e-12)
    assert_agree({**kept, "tx": None}, {**expected.links[name], "tx": None}, 1e-12)


def test_counters_are_whole_numbers() -> None:
    """A float32 would stop counting at 16.8 million."""
    state = cx.chain(cx.skip_nonfinite(), cx.dynamic_loss_scale(), cx.skip_loss_spikes()).init(jnp.ones(2))
    counters = ("skipped", "consecutive", "growth_tracker", "seen")
    found = [(k, x.dtype) for memory in state.links.values() for k, x in memory.items() if k in counters]
    assert len(found) == 6
    assert {dtype for _, dtype in found} == {jnp.dtype(jnp.int32)}


# Losses


def spikes(
    losses: np.ndarray, sigmas: float, window: float, warmup: int, tolerance: float
) -> tuple[np.ndarray, float, float]:
    """Which losses are taken, and the last mean and deviation: a plain mean, then an exponential one."""
    taken, counted = [], []
    mean = square = 0.0
    for loss in losses:
        bound = np.inf
        if len(counted) >= warmup:
            bound = mean + max(sigmas * np.sqrt(max(0.0, square - mean**2)), tolerance * abs(mean))
        taken.append(bool(np.isfinite(loss) and loss <= bound))
        if not np.isfinite(loss):
            continue
        counted.append(min(loss, bound))
        if len(counted) <= window:
            mean, square = np.mean(counted), np.mean(np.square(counted))
        else:
            mean += (counted[-1] - mean) / window
            square += (counted[-1] ** 2 - square) / window
    return np.array(taken), float(mean), float(np.sqrt(square - mean**2))


@pytest.mark.parametrize(
    "hyper", ((6.0, 128.0, 64.0, 0.01), (2.0, 10.0, 5.0, 0.0), (3.0, 40.0, 1.0, 0.1), (2.5, 400.0, 8.0, 0.02))
)
def test_skip_loss_spikes_agrees_with_numpy(hyper: tuple) -> None:
    """On a falling, noisy loss with spikes, NaN, and a step up that lasts. No library has these statistics."""
    rng = np.random.default_rng(0)
    losses = 5 * np.exp(-np.arange(300) / 100) + 0.1 * rng.normal(size=300)
    losses[rng.choice(300, 12)] += 10 ** rng.uniform(-1, 3, 12)
    losses[rng.choice(300, 6)] = [np.nan, np.inf, -np.inf, np.nan, np.inf, np.nan]
    losses[220:] += 2.0
    losses = losses.astype(np.float32)
    taken, mean, deviation = spikes(losses.astype(float), *hyper)
    tx = cx.chain(cx.skip_loss_spikes(*hyper), cx.scale_by_lr(1.0))

    def step(carry: tuple, loss: jax.Array) -> tuple:
        moved, state = tx.step(*carry, jnp.ones(()), value=loss)
        return (moved, state), moved

    (_, state), path = jax.jit(lambda xs: jax.lax.scan(step, (jnp.zeros(()), tx.init(jnp.zeros(()))), xs))(losses)
    np.testing.assert_array_equal(np.diff(path, prepend=0.0) != 0, taken)
    memory = state.links["skip_loss_spikes"]
    assert int(memory["skipped"]) == np.sum(~taken)
    np.testing.assert_allclose(memory["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(memory["variance"]), deviation, rtol=1e-3)
    assert 6 <= np.sum(~taken) < 150
    assert np.mean(taken[-20:]) > 0.5


@pytest.mark.parametrize("warmup", (1, 3))
def test_the_warm_up_is_as_long_as_it_says(warmup: int) -> None:
    """A spike is taken as the last of its losses, and refused as the first behind it."""
    tx, p = cx.chain(cx.skip_loss_spikes(warmup=warmup)), jnp.zeros(())
    for before, taken in ((warmup - 1, True), (warmup, False)):
        state = tx.init(p)
        for loss in [1.0] * before + [100.0]:
            _, state = tx.update(p, state, value=loss)
        assert int(state.step) == before + taken


HUGE = (2e19, 3e38, 1e30)
POISONS: dict[str, list[float]] = {
    "one huge loss first": [2e19],
    "one huge loss in the warm-up": [1.0, 1.1, 2e19, 0.9],
    "huge and of both signs": [3e38, -3e38, 1e30, -2e19],
    "negative": [-1e30, -1e30],
    "squares that just fit": [9e18, -9e18, 1e18],
    "zeros": [0.0] * 20,
    "tiny": [1e-30] * 20,
    "nothing finite": [np.nan, np.inf, -np.inf] * 5,
    "all": [0.0, 3e38, np.nan, -np.inf, 0.0, 2e19, -3e38, np.inf, 1e-40],
}


@pytest.mark.parametrize("name", POISONS)
@pytest.mark.parametrize("warmup", (1.0, 8.0))
def test_no_loss_poisons_the_guard(name: str, warmup: float) -> None:
    """A thousand good steps after it all are taken, and a spike after those is refused again."""
    tx = cx.chain(cx.skip_loss_spikes(window=16.0, warmup=warmup), cx.scale_by_lr(1.0))
    good = 1 + 0.1 * np.random.default_rng(0).normal(size=3000)
    losses = jnp.asarray([*POISONS[name], *good, 100.0, 1.0], jnp.float32)

    def step(carry: tuple, loss: jax.Array) -> tuple:
        moved, state = tx.step(*carry, jnp.ones(()), value=loss)
        return (moved, state), (moved, state.links["skip_loss_spikes"])

    start = jnp.zeros(()), tx.init(jnp.zeros(()))
    _, (path, memory) = quickly(lambda xs: jax.lax.scan(step, start, xs))(losses)
    taken = np.diff(np.asarray(path), prepend=0.0) != 0
    assert np.isfinite(memory["mean"]).all()
    assert np.isfinite(memory["variance"]).all()
    assert taken[-1002:-2].all()
    np.testing.assert_array_equal(taken[-2:], [False, True])


def test_a_huge_loss_in_the_warm_up_is_as_if_it_had_not_been() -> None:
    """The warm-up begins anew behind it, and what is remembered is that of the losses since."""
    losses = 1 + 0.1 * np.random.default_rng(0).normal(size=50).astype(np.float32)
    tx = cx.skip_loss_spikes(warmup=4.0)

    def memory(losses: Any) -> Any:
        def step(state: Any, loss: Any) -> Any:
            return tx.update(jnp.ones(()), state, value=loss)[1], None

        return jax.lax.scan(step, tx.init(jnp.ones(())), losses)[0].links["skip_loss_spikes"]

    clean = memory(losses)
    for huge in HUGE:
        spoilt = memory(np.concatenate([losses[:2] + 5, np.float32([huge]), losses]))
        for name in ("mean", "variance", "seen"):
            np.testing.assert_allclose(spoilt[name], clean[name], rtol=1e-5)


GUARDS = {
    "skip_nonfinite": cx.skip_nonfinite(),
    "skip_nonfinite, at most 2": cx.skip_nonfinite(2),
    "skip_large_updates": cx.skip_large_updates(10.0),
    "skip_loss_spikes": cx.skip_loss_spikes(window=16.0, warmup=8.0),
    "dynamic_loss_scale": cx.dynamic_loss_scale(growth_interval=8),
    "reduce_on_plateau": cx.reduce_on_plateau(accumulation_size=3.0),
}
ODD = [0.0, 1.0, -1.0, 1e-30, 1e18, 2e19, -2e19, 3e38, -3e38, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("name", GUARDS)
def test_no_sequence_of_inputs_poisons_a_guard(name: str) -> None:
    """Whatever gradients and losses came, at most 600 good steps later its state is finite and every step is taken."""
    tx = cx.chain(GUARDS[name], cx.scale_by_lr(1.0))
    scale = name == "dynamic_loss_scale"

    def step(carry: tuple, given: Any) -> tuple:
        g, loss = given
        extra = {"value": loss} if GUARDS[name].extra else {}
        p, state = tx.step(jnp.zeros(()), carry[1], g * (cx.loss_scale(carry[1]) if scale else 1.0), **extra)
        return (p, state), p

    def train(odd: Any) -> Any:
        good = 1 + 0.1 * jnp.sin(jnp.arange(700.0))
        grads, losses = jnp.concatenate([odd[0], jnp.ones(700)]), jnp.concatenate([odd[1], good])
        (_, state), path = jax.lax.scan(step, (jnp.zeros(()), tx.init(jnp.zeros(()))), (grads, losses))
        return state.links[next(iter(tx.links))], path[-100:]

    rng = np.random.default_rng(0)
    odd = np.stack([rng.choice(ODD, (2, 30)) for _ in range(300)])
    odd[:100, :, :] = rng.choice([0.0, 2e19, np.nan, -3e38], (100, 2, 30))
    memory, path = quickly(jax.vmap(train))(jnp.asarray(odd, jnp.float32))
    first = GUARDS[name].init(jnp.zeros(())).links[next(iter(tx.links))]
    for key, x in memory.items():
        assert np.isfinite(x).all() or not np.isfinite(first[key]), key
    assert (np.asarray(path) != 0).all()


# The scale of the loss


OVERFLOWS = np.random.default_rng(1).uniform(size=400) < 0.1
OVERFLOWS[100:150] = False
SCALERS = (
    {"init_scale": 2.0**16, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 5},
    {"init_scale": 1000.0, "growth_factor": 1.5, "backoff_factor": 0.3, "growth_interval": 1},
    {"init_scale": 2.0**-10, "growth_factor": 4.0, "backoff_factor": 0.5, "growth_interval": 12, "min_scale": 2.0**-90},
)


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_dynamic_loss_scale_agrees_with_torch(scaler: dict[str, Any]) -> None:
    """The scale and the parameters after each of 400 scripted steps."""
    torch = pytest.importorskip("torch")
    target = np.linspace(-1, 1, 5).astype(np.float32)
    p = torch.nn.Parameter(torch.zeros(5))
    opt = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    amp = torch.amp.GradScaler("cpu", **{k: x for k, x in scaler.items() if k != "min_scale"})
    tx = cx.chain(cx.dynamic_loss_scale(**{k: float(x) for k, x in scaler.items()}), cx.sgd(0.1, momentum=0.9))
    ours = jnp.zeros(5)
    state = tx.init(ours)
    step = cx.make_step(tx)
    for overflow in OVERFLOWS:
        opt.zero_grad()
        amp.scale(torch.sum((p - torch.tensor(target)) ** 2)).backward()
        scale = cx.loss_scale(state)
        g = jax.grad(lambda x, s=scale: s * jnp.sum((x - target) ** 2))(ours)
        if overflow:
            p.grad[2], g = torch.inf, g.at[2].set(jnp.inf)
        amp.step(opt)
        amp.update()
        ours, state = step(ours, state, g)
        # PyTorch multiplies in double precision, which shows unless the factors are powers of two.
        np.testing.assert_allclose(cx.loss_scale(state), amp.get_scale(), rtol=2e-5 * (scaler["growth_factor"] == 1.5))
        np.testing.assert_allclose(ours, p.detach().numpy(), rtol=0, atol=1e-6)
    assert int(state.links["dynamic_loss_scale"]["skipped"]) == np.sum(OVERFLOWS)
    assert int(state.step) == np.sum(~OVERFLOWS)


def test_loss_scale_stops_short_of_infinity() -> None:
    """As PyTorch's does, it stays where it would overflow float32."""
    torch = pytest.importorskip("torch")
    p = torch.nn.Parameter(torch.zeros(1))
    amp = torch.amp.GradScaler("cpu", init_scale=2.0**124, growth_interval=1)
    tx = cx.chain(cx.dynamic_loss_scale(2.0**124, growth_interval=1), cx.scale_by_lr(0.1))
    state = tx.init(jnp.zeros(1))
    for _ in range(6):
        amp.scale(p.sum() * 0).backward()
        amp.step(torch.optim.SGD([p]))
        amp.update()
        _, state = tx.update(jnp.zeros(1), state)
        assert float(cx.loss_scale(state)) == amp.get_scale()
    assert cx.loss_scale(state) == 2.0**127


@pytest.mark.parametrize("bad", (np.nan, np.inf))
def test_loss_scale_survives_any_number_of_bad_steps(bad: float) -> None:
    """After 200 of them PyTorch's is 0 and takes NaN; here the first good step is taken, and those with NaN refused."""
    torch = pytest.importorskip("torch")
    p = torch.nn.Parameter(torch.ones(2))
    opt, amp = torch.optim.SGD([p], lr=0.1), torch.amp.GradScaler("cpu")
    tx = cx.chain(cx.dynamic_loss_scale(), cx.sgd(0.1))
    ours, state, step = jnp.ones(2), tx.init(jnp.ones(2)), cx.make_step(tx)
    for _ in range(200):
        amp.scale(p.sum() * bad).backward()
        amp.step(opt)
        amp.update()
        opt.zero_grad()
        ours, state = step(ours, state, jnp.full(2, bad) * cx.loss_scale(state))
    assert amp.get_scale() == 0
    assert cx.loss_scale(state) == 1
    for _ in range(3):
        moved, state = step(jnp.ones(2), state, jnp.ones(2) * cx.loss_scale(state))
        np.testing.assert_allclose(moved, 0.9, rtol=1e-6)
    still, state = step(jnp.ones(2), state, jnp.full(2, bad))
    np.testing.assert_array_equal(still, 1.0)


@pytest.mark.parametrize(
    ("first", "least", "last"), ((2.0**16, 4.0, 4.0), (0.25, 1.0, 0.25), (2.0**-120, 0.0, 2.0**-126), (1.0, 1.0, 1.0))
)
def test_loss_scale_has_a_floor(first: float, least: float, last: float) -> None:
    """``min_scale``, or where the scale began if that is lower; float32's smallest normal number in any case."""
    tx = cx.chain(cx.dynamic_loss_scale(first, min_scale=least, growth_interval=2), cx.sgd(0.1))
    state = tx.init(jnp.ones(2))
    for _ in range(20):
        _, state = tx.update(jnp.full(2, jnp.nan), state)
    assert cx.loss_scale(state) == last
    for _ in range(2):
        _, state = tx.update(jnp.ones(2) * last, state)
    assert cx.loss_scale(state) == 2 * last


def test_loss_scale_of_an_earlier_version_grows_out_of_0() -> None:
    """A state that was saved with a scale of 0 goes on at the floor."""
    tx, p = cx.chain(cx.dynamic_loss_scale(), cx.sgd(0.1)), jnp.ones(2)
    stored = tx.state_dict(tx.init(p)) | {"dynamic_loss_scale/loss_scale": np.float32(0)}
    state = tx.load_state_dict(p, stored)[0]
    for g in (0.0, jnp.nan):
        same, after = tx.step(p, state, jnp.full(2, g))
        np.testing.assert_array_equal(same, p)
        assert cx.loss_scale(after) == 1


def test_loss_scale_judges_what_it_has_divided() -> None:
    """A finite gradient that overflows when it is divided by the scale is refused, and so is 0/0."""
    p = jnp.ones(2)
    for scale, g in ((2.0**-10, 1e37), (2.0**-10, 1e35), (1.0, 3e38)):
        tx = cx.chain(cx.dynamic_loss_scale(scale), cx.sgd(1e-37))
        moved, state = jax.jit(tx.step)(p, tx.init(p), jnp.array([g, 1.0]))
        overflows = g / scale > float(np.finfo(np.float32).max)
        assert int(state.links["dynamic_loss_scale"]["skipped"]) == overflows
        assert jnp.isfinite(moved).all()
        assert (moved[0] == 1) == overflows


def test_loss_scale_saves_small_gradients() -> None:
    """In float16 a gradient of 1e-9 is 0, and with the scale it is not; the first scales overflow and fall."""
    x = jnp.full(4, 3e-3, jnp.float16)

    def loss(w: jax.Array) -> jax.Array:
        return jnp.sum((w * x * jnp.float16(1e-3)).astype(jnp.float32)) * 1e-3

    w = jnp.ones(4, jnp.float16)
    assert not jax.grad(loss)(w).any()
    tx = cx.chain(cx.dynamic_loss_scale(2.0**40), cx.scale_by_adam(), cx.scale_by_lr(0.01))
    state = tx.init(w)
    for _ in range(40):
        scale = cx.loss_scale(state)
        g = jax.grad(lambda w, s=scale: loss(w) * s)(w)
        w, state = tx.step(w, state, g)
    assert 0 < state.links["dynamic_loss_scale"]["skipped"] < 30
    assert jnp.all(w < 0.95)


def test_a_clip_behind_shares_the_pass(x64: None) -> None:
    """Guards and the unscaling cost no pass of their own, and the clip sees the unscaled norm."""
    params, grads = problem(seed=0)
    scaled = {n: 1024.0 * g for n, g in grads.items()}
    tail = (cx.clip_by_global_norm(0.5), cx.scale_by_adam(), cx.scale_by_lr(0.1))
    tx = cx.chain(cx.dynamic_loss_scale(1024.0), cx.skip_nonfinite(), *tail)
    assert len(list(runs_of(tx.links))) == 1
    assert_agree(run(tx, params, scaled), run(cx.chain(*tail), params, grads), 1e-12)


def test_loss_scale_is_found_wherever_the_link_is() -> None:
    """Under another name, and not mistaken for a parameter of the same name."""
    params = {"loss_scale": jnp.ones(2)}
    tx = cx.chain(cx.chain(mine=cx.dynamic_loss_scale(8.0)), cx.adam(0.1))
    assert cx.loss_scale(tx.init(params)) == 8.0
    with pytest.raises(KeyError, match="no loss scales: put one dynamic_loss_scale"):
        cx.loss_scale(cx.adam(0.1).init(params))


@pytest.mark.parametrize("rounding", (None, "kahan"))
def test_the_choice_on_accelerators_equals_the_condition(rounding: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a rejected step is undone leaf by leaf, with no NaN in it, and none in its derivatives."""
    dtype = jnp.float32 if rounding is None else jnp.bfloat16
    ending = None if rounding is None else cx.apply_update(rounding)
    tx = cx.chain(cx.skip_nonfinite(), cx.clip_by_global_norm(1.0), cx.adamw(1e-1), ending)
    start = {"a": jnp.array([1.0, -2.0], dtype), "b": jnp.array([0.5], dtype)}
    factors = jnp.array([1.0, jnp.nan, 3.0, jnp.inf, 0.5])

    def run(tx: Any, start: Any) -> Any:
        def one(carry: Any, factor: Any) -> Any:
            params, state = carry
            return tx.step(params, state, jax.tree.map(lambda p: p * factor.astype(p.dtype), start)), None

        return jax.lax.scan(one, (start, tx.init(start)), factors)[0]

    def norm(rate: Any) -> Any:
        return cx.global_norm(run(tx.replace("scale_by_lr", learning_rate=rate), start)[0])

    expected, slope = jax.jit(lambda: run(tx, start))(), jax.grad(norm)(0.1)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, default, **_: default(*args))
    jax.clear_caches()
    chosen = jax.jit(lambda: run(tx, start))()
    assert chosen[1].step == 3
    unit = 0.0 if rounding is None else 2.0**-16  # of the compensation, in bfloat16
    chex.assert_trees_all_close(chosen, expected, rtol=1e-6, atol=unit)
    np.testing.assert_allclose(jax.grad(norm)(0.1), slope, rtol=1e-5)
    assert np.isfinite(slope)
