"""Which links commute: facts that can be worked out by hand, and what is measured against them."""

from collections.abc import Sequence
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import order_table
import pytest
from chainax.laboratory.commutator import Commutator
from chainax.laboratory.trajectory import period, quiet, relative_difference, setting
from registry import KINDS, LINKS, given, in_pairs

EXACTLY, ROUNDING, DIFFER, UNDETERMINED = "commute exactly", "commute to rounding", "differ", "undetermined"
LR = cx.scale_by_lr(0.5)
G = np.array([[0.25, -4.0, 1.5], [0.01, 0.5, -2.0]], np.float32)  # sums of rows and columns are not 0
P = np.array([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]], np.float32)


def of(*links: Any, **options: Any) -> Commutator:
    """The commutator of the first two links of a chain."""
    tx = cx.chain(*links)
    return cx.commutator(tx, *list(tx.links)[:2], **options)


def one(*links: Any, grads: Sequence[np.ndarray] = (G,), params: np.ndarray = P) -> Commutator:
    """The same for a single parameter and given gradients."""
    return of(*links, params={"w": params}, grads=[{"w": jnp.asarray(g)} for g in grads])


def apart(x: Any, y: Any) -> float:
    """‖x − y‖ / max(‖x‖, ‖y‖), in float64."""
    x, y = (np.asarray(z, np.float64) for z in (x, y))
    return float(np.linalg.norm(x - y) / max(np.linalg.norm(x), np.linalg.norm(y)))


COMMUTING = {
    "a power of two and any scale": (EXACTLY, (cx.scale(2.0), cx.scale(0.3))),
    "two scales": (ROUNDING, (cx.scale(0.7), cx.scale(0.3))),
    "trace and a constant rate": (ROUNDING, (cx.trace(0.9), cx.scale_by_lr(0.1))),
    "trace and a power of two": (EXACTLY, (cx.trace(0.9), cx.scale(4.0))),
    "two momenta: linear recursions with constant coefficients": (ROUNDING, (cx.trace(0.9), cx.ema(0.7))),
    "Nesterov's momentum is linear too": (ROUNDING, (cx.trace(0.9, nesterov=True), cx.ema(0.7))),
    "the mean of a row and a momentum": (ROUNDING, (cx.centralize(), cx.trace(0.9))),
    "the mean of a row and a scale": (ROUNDING, (cx.centralize(), cx.scale(0.3))),
    "the mean of a row and a power of two": (EXACTLY, (cx.centralize(), cx.scale(2.0))),
    "Adam is odd": (EXACTLY, (cx.scale(-1.0), cx.scale_by_adam())),
    "Lion is odd": (EXACTLY, (cx.scale(-1.0), cx.scale_by_lion())),
    "a clip by value is odd": (EXACTLY, (cx.scale(-1.0), cx.clip(0.5))),
    "a clip by norm is odd": (EXACTLY, (cx.scale(-1.0), cx.clip_by_global_norm(1.0))),
    "of two clips the smaller decides": (ROUNDING, (cx.clip_by_global_norm(1.0), cx.clip_by_global_norm(0.3))),
    "a decay and another penalty": (ROUNDING, (cx.add_decayed_weights(0.1), cx.add_l1(0.1))),
    "a decay and another pull": (ROUNDING, (cx.decay_to_init(0.1), cx.add_decayed_weights(0.3))),
    "what watches": (EXACTLY, (cx.record("norm"), cx.scale_by_adam())),
    "what is frozen in part": (
        EXACTLY,
        (cx.partition(cx.by_path({"bias": cx.freeze()}, default=cx.scale(0.5))), cx.scale(0.3)),
    ),
    "int8 in blocks and a power of two": (EXACTLY, (cx.store(cx.trace(0.9), cx.int8()), cx.scale(2.0))),
}


@pytest.mark.parametrize("fact", COMMUTING)
def test_links_that_commute(fact: str) -> None:
    """By bits where no operation rounds differently, else to rounding."""
    verdict, links = COMMUTING[fact]
    descends = any(link.role == "descend" for link in links)
    measured = of(*links, None if descends else LR, steps=4)
    assert (measured.verdict, measured.reason) == (verdict, "")
    assert measured.updates <= 1e-10
    assert (measured.updates > 0) <= (verdict == ROUNDING)


N = 4 * 3 + 3 + 1  # the default parameters
DIFFERING = {
    "a sign loses what is before it": (1 - 1 / 2, (cx.scale(2.0), cx.scale_by_sign())),
    "whatever the factor": (1 - 1 / 5, (cx.scale(5.0), cx.scale_by_sign())),
    "Adam without ε as well": (1 - 1 / 2, (cx.scale(2.0), cx.scale_by_adam(eps=0.0))),
    "Lion": (1 - 1 / 2, (cx.scale(2.0), cx.scale_by_lion())),
    "a clip before signs, and a clip of their norm √n": (
        1 - 1 / N**0.5,
        (cx.clip_by_global_norm(1.0), cx.scale_by_sign()),
    ),
    "a clip by value after signs": (1 - 0.25, (cx.clip(0.25), cx.scale_by_sign())),
    "Adam and a decay": (None, (cx.scale_by_adam(), cx.add_decayed_weights(0.1))),
    "a mean of rows and a decay of what has one": (None, (cx.centralize(), cx.add_decayed_weights(0.1))),
}


@pytest.mark.parametrize("fact", DIFFERING)
def test_links_that_do_not(fact: str) -> None:
    """By as much as theory says, where it says it."""
    far, links = DIFFERING[fact]
    measured = of(*links, LR, steps=3)
    assert measured.verdict == DIFFER
    assert measured.updates > 1e-3
    if far is not None:
        assert measured.updates == pytest.approx(far, rel=1e-9)
        assert set(measured.where) == {"kernel", "bias", "scale"}
        assert [*measured.where.values()] == pytest.approx([far] * 3, rel=1e-9)


DECAY, CLIP = cx.add_decayed_weights(0.1), cx.clip_by_global_norm(1.0)
IDLE = (cx.add_decayed_weights(0.0), cx.scale_by_adam(), LR)
NAN = np.full_like(G, np.nan)
STOP = cx.chain(other=cx.scale_by_lr(0.0))
INNER = cx.chain(cx.scale(2.0), cx.trace(0.9), LR)
VACUOUS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "no decay": ("add_decayed_weights does nothing in 2 steps", cx.chain(*IDLE), {}),
    "a threshold that is never reached": (
        "clip does nothing in 2 steps",
        cx.chain(cx.clip(9.0), cx.scale(2.0)),
        {"params": P, "grads": [G / 2, G]},
    ),
    "neither acts": ("clip and scale do nothing in 2 steps", cx.chain(cx.clip(9.0), cx.scale(1.0)), {"grads": [G, G]}),
    "what rejects nothing": ("skip_nonfinite does nothing in 2 steps", cx.chain(cx.skip_nonfinite(), CLIP), {}),
    "no rate": ("all updates are 0 in 2 steps", cx.chain(DECAY, cx.scale_by_adam(), STOP), {}),
    "all frozen": ("all updates are 0 in 2 steps", cx.chain(cx.freeze(), CLIP), {}),
    "nothing to act on": (
        "all updates are 0 in 1 step",
        cx.chain(DECAY, CLIP, LR),
        {"params": 0 * P, "grads": [0 * G]},
    ),
    "NaN": ("updates are not finite", cx.chain(cx.scale(2.0), LR), {"params": P, "grads": [G, NAN]}),
    "no step yet": ("all updates are 0 in 2 steps", cx.accumulate(INNER, 10), {}),
    "one step": ("an accumulation steps only once in 2 steps", cx.accumulate(INNER, 2), {}),
    "no sum yet": ("all updates are 0 in 2 steps", cx.chain(cx.clip(0.1), DECAY, cx.apply_every(8)), {}),
}


@pytest.mark.parametrize("case", VACUOUS)
def test_vacuous_evidence_is_no_verdict(case: str) -> None:
    """Equal updates show nothing if they are all 0 or NaN, or if a link does nothing."""
    reason, tx, options = VACUOUS[case]
    a, b = list(dict(tx._linked()))[:2]
    measured = cx.commutator(tx, a, b, **{"params": P, **({} if options else {"steps": 2}), **options})
    assert (measured.verdict, measured.reason) == (UNDETERMINED, reason)
    assert str(measured) == f"this run does not tell whether {a} and {b} commute: {reason}"


def test_a_guard_commutes_where_it_rejects() -> None:
    """A clip turns what is infinite into NaN, so that the guard skips the step behind it as well."""
    grads = [G, np.where(G > 1, np.inf, G).astype(np.float32), G]
    measured = one(cx.skip_nonfinite(), CLIP, grads=grads)
    assert (measured.verdict, measured.reason) == (EXACTLY, "")


@pytest.mark.parametrize("wrap", ("accumulate", "apply_every", "both"))
def test_an_accumulation_steps_twice(wrap: str) -> None:
    """By default, so that it shows that a decay and a momentum differ, which the first step does not."""
    tx = cx.chain(DECAY, cx.trace(0.9), LR, *(() if wrap == "accumulate" else (cx.apply_every(3),)))
    tx = tx if wrap == "apply_every" else cx.accumulate(tx, 2 if wrap == "both" else 6)
    found = cx.commutator(tx, "add_decayed_weights", "trace", P)
    assert found.verdict == DIFFER
    assert period(tx) == (3 if wrap == "apply_every" else 6)


def test_few_long_accumulations_are_run() -> None:
    """At most 100 steps, unless more are asked for."""
    measured = cx.commutator(cx.accumulate(INNER, 51), "scale", "trace", P)
    assert measured.reason == "all updates are 0 in 8 steps"


def test_the_decay_of_plain_sgd_has_three_places() -> None:
    """One update, −α(g + λθ), if λ is changed with the place. A plain swap flips the sign of the decay instead."""
    rate, lam = 0.5, 0.125
    decay, lr = cx.add_decayed_weights(lam), cx.scale_by_lr(rate)
    at = setting("test", cx.chain(), {"w": P}, [{"w": G}] * 3, None, 0, {})

    def run(*links: Any) -> np.ndarray:
        return at.run(quiet(lambda: cx.chain(*links))[0], double=True).updates["w"]

    before = run(decay, lr)
    with pytest.raises(ValueError, match="weight_decay` must lie in"):
        cx.add_decayed_weights(-rate * lam)
    negative = cx.from_function(lambda count: -rate * lam)  # only a schedule can be negative
    assert apart(before, run(lr, cx.add_decayed_weights(negative))) < 1e-10
    # A decay after the step shrinks the step as well, by 1 − αλ: the rate makes up for it.
    after = cx.decay_after_step(rate * lam)
    assert apart(before, run(cx.scale_by_lr(rate / (1 - rate * lam)), after)) < 1e-7  # the rate in float32

    g, theta = G.astype(np.float64), P.astype(np.float64)
    np.testing.assert_allclose(run(lr, after)[0], -rate * g - rate * lam * (theta - rate * g), rtol=1e-12)
    np.testing.assert_allclose(before[0], -rate * g - rate * lam * theta, rtol=1e-12)
    np.testing.assert_allclose(run(lr, decay)[0], -rate * g + lam * theta, rtol=1e-12)
    measured = one(decay, lr, grads=[G])
    assert measured.updates == pytest.approx(apart(before[0], run(lr, decay)[0]), rel=1e-12)
    assert measured.verdict == DIFFER


def test_a_decay_behind_the_rate_grows() -> None:
    """−αλθ against +λθ: 1 + α for a gradient of 0."""
    zero = np.zeros_like(G)
    measured = one(cx.add_decayed_weights(0.1), LR, grads=[zero])
    assert measured.updates == pytest.approx(1.5)
    assert len(measured.warnings) == 1
    assert "makes weights grow" in measured.warnings[0]


def test_a_decay_and_a_momentum_part_at_the_second_step() -> None:
    """At the first the buffer is the update. At the second it has the decay of the old parameters: αμλθ."""
    zero, rate, mu, lam = np.zeros_like(G), 0.5, 0.9, 0.1
    links = cx.add_decayed_weights(lam), cx.trace(mu), LR
    first = one(*links, grads=[G])
    assert (first.verdict, first.updates, first.reason) == (UNDETERMINED, 0, "trace does nothing in 1 step")
    measured = one(*links, grads=[zero, zero])
    assert measured.updates == pytest.approx(mu / np.hypot(1, mu + 1 - rate * lam), rel=1e-6)  # float32 fields


def test_adam_divides_a_coupled_decay() -> None:
    """By the first step of Adam, a sign but for ε: against λθ if decoupled."""
    decay = 0.1 * P.astype(np.float64)
    measured = one(cx.add_decayed_weights(0.1), cx.scale_by_adam(), LR, grads=[np.zeros_like(G)])
    assert measured.updates == pytest.approx(apart(decay / (np.abs(decay) + 1e-8), decay), rel=1e-6)


def test_adamw_beside_numpy() -> None:
    """Both orders in float64, over several steps."""
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=P.shape).astype(np.float32) for _ in range(5)]

    def run(coupled: bool) -> np.ndarray:
        p, m, v, updates = P.astype(np.float64), 0.0, 0.0, []
        for t, g in enumerate(grads, 1):
            u = g + 0.25 * p if coupled else g.astype(np.float64)
            m, v = 0.5 * m + 0.5 * u, 0.75 * v + 0.25 * u**2
            u = (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.75**t)) + 2.0**-20)
            updates.append(-0.5 * (u if coupled else u + 0.25 * p))
            p = p + updates[-1]
        return np.stack(updates)

    adam = cx.scale_by_adam(b1=0.5, b2=0.75, eps=2.0**-20)
    measured = one(adam, cx.add_decayed_weights(0.25), LR, grads=grads)
    assert measured.updates == pytest.approx(apart(run(True), run(False)), rel=1e-12)


def test_a_scale_and_a_clip_by_value() -> None:
    """min(2g, 1) against 2·min(g, 1)."""
    measured = one(cx.scale(2.0), cx.clip(1.0))
    assert measured.updates == pytest.approx(apart(np.clip(2 * G, -1, 1), 2 * np.clip(G, -1, 1)), rel=1e-12)


@pytest.mark.parametrize(("norm", "far"), ((0.25, 0.0), (0.75, 1 / 3), (4.0, 0.5)))
def test_a_scale_and_a_clip_by_norm(norm: float, far: float) -> None:
    """They differ as far as the clip is active: min(2‖g‖, 1) against 2·min(‖g‖, 1)."""
    g = np.array([norm, 0.0], np.float32)
    measured = one(cx.scale(2.0), cx.clip_by_global_norm(1.0), grads=[g], params=P[0, :2])
    assert measured.updates == pytest.approx(far, abs=1e-12)
    assert measured.verdict == (DIFFER if far else UNDETERMINED)


def test_a_schedule_and_a_momentum() -> None:
    """The old gradient has the old rate or the new one: u₂ = −μα₁g₁ − α₂g₂ or −α₂(μg₁ + g₂)."""
    lr, mu = cx.scale_by_lr(cx.piecewise_constant_schedule(1.0, {1: 0.25})), 0.5
    rates = [1.0, 0.25]
    measured = one(cx.trace(mu), lr, grads=[G, G])
    a = [rates[0] * G, rates[1] * (mu * G + G)]
    b = [rates[0] * G, mu * rates[0] * G + rates[1] * G]
    assert measured.updates == pytest.approx(apart(a, b), rel=1e-12)


def test_the_floor_of_adam_is_seen_at_its_size() -> None:
    """Behind a normalization only ε knows of a scale: with ε = 0 they commute, with 1e-8 they differ by about that."""
    g = G.astype(np.float64)
    for eps in (0.0, 1e-8):
        tail = cx.normalize_by_update_norm(eps=0.0)
        measured = one(cx.scale(2.0), cx.scale_by_adam(eps=eps), tail)
        if not eps:
            assert measured.verdict == EXACTLY
            continue
        units = [u / np.linalg.norm(u) for u in (2 * g / (np.abs(2 * g) + eps), g / (np.abs(g) + eps))]
        assert measured.updates == pytest.approx(apart(*units), rel=1e-4)
        assert 1e-8 < measured.updates < 1e-6
        assert measured.verdict == DIFFER
        assert "updates differ by " in str(measured)


def test_centered_parameters_stay_centered() -> None:
    """Then a decay has no mean to lose, and commutes with the centralization."""
    centered = P - P.mean(axis=0, keepdims=True)
    links = cx.centralize(), cx.add_decayed_weights(0.25), LR
    assert one(*links, grads=[G, G]).verdict == DIFFER
    assert one(*links, grads=[G, G], params=centered.astype(np.float32)).updates < 1e-7  # centered to float32


def test_formats_are_part_of_the_algorithm() -> None:
    """A momentum in bfloat16 commutes with a power of two, and with 3 only to the format's rounding."""
    stored = cx.store(cx.trace(0.9), trace="bfloat16")
    assert of(stored, cx.scale(2.0), LR, steps=4).verdict == EXACTLY
    measured = of(stored, cx.scale(3.0), LR, steps=4)
    assert measured.verdict == DIFFER
    assert 1e-5 < measured.updates < 2**-8


def test_states_may_differ_though_updates_do_not() -> None:
    """A scale behind the momentum leaves the buffer half as large."""
    measured = of(cx.scale(2.0), cx.trace(0.9), LR, steps=3)
    assert (measured.verdict, measured.updates, measured.states) == (EXACTLY, 0.0, 0.5)
    assert measured.slots == {"trace/trace/kernel": 0.5, "trace/trace/bias": 0.5, "trace/trace/scale": 0.5}
    assert str(measured) == (
        "with scale and trace swapped, the updates agree exactly, but the states differ by 50 % (trace/trace)"
    )
    assert str(of(cx.scale(2.0), cx.scale(0.5), LR, steps=2)) == "scale and scale_2 commute exactly"


def test_slots_of_inner_chains_are_named_by_link() -> None:
    """And not by where the state keeps them."""
    tx = cx.accumulate(cx.chain(cx.clip(0.1), cx.scale(2.0), cx.scale_by_adam(), LR), 1)
    text = str(cx.commutator(tx, "clip", "scale", P, steps=2))
    assert "\nthe states differ by " in text
    assert text.endswith(("(scale_by_adam/mu, scale_by_adam/nu)", "(scale_by_adam/nu, scale_by_adam/mu)"))


def test_links_between_stay() -> None:
    """Only the two change places, and keep their names."""
    tx = cx.chain(first=cx.scale(2.0), middle=cx.trace(0.9), last=cx.scale_by_lr(0.1))
    swapped = cx.commutator(tx, "last", "first", steps=1).swapped
    assert swapped == cx.chain(last=cx.scale_by_lr(0.1), middle=cx.trace(0.9), first=cx.scale(2.0))


@pytest.mark.parametrize("path", ("accumulate", "partition/bias", "partition/default"))
def test_links_within_links(path: str) -> None:
    """By their paths; the other groups do not notice."""
    inner = cx.chain(cx.clip(1e-4), cx.scale(2.0), LR)
    tx = cx.accumulate(inner, 2) if path == "accumulate" else cx.partition(cx.by_path({"bias": inner}, default=inner))
    measured = cx.commutator(cx.chain(tx), f"{path}/clip", f"{path}/scale", steps=4)
    moved = {"bias"} if "bias" in path else {"kernel", "scale"} if "default" in path else {"bias", "kernel", "scale"}
    assert {name for name, far in measured.where.items() if far} == moved
    assert measured.verdict == DIFFER


def test_gradients_of_a_function_follow_each_order() -> None:
    """For a bowl, one step of each: the second gradient is taken at the order's own parameters."""
    tx = cx.chain(cx.add_decayed_weights(0.5), cx.trace(0.5), cx.scale_by_lr(0.25))
    measured = cx.commutator(tx, "add_decayed_weights", "trace", P, grads=lambda p: 2 * p, steps=2)
    theta = P.astype(np.float64)
    first = -0.25 * 2.5 * theta
    second = -0.25 * 2.5 * (theta + first)
    coupled = [first, second + 0.5 * first]
    decoupled = [first, second - 0.25 * 0.5 * 2 * theta]
    assert measured.updates == pytest.approx(apart(coupled, decoupled), rel=1e-12)
    assert [*measured.where] == [""]


def test_noise_is_the_same_in_both_orders() -> None:
    """So a decay, which adds to it, commutes; a scale behind it does not."""
    assert one(cx.add_noise(), cx.add_decayed_weights(0.1)).updates < 1e-10
    assert one(cx.add_noise(), cx.scale(2.0)).verdict == DIFFER


def test_rounding_of_parameters_is_part_of_a_step() -> None:
    """A chain with `apply_update` can only be stepped; its update is what it adds."""
    tx = cx.chain(cx.trace(0.5), cx.scale_by_lr(0.25), cx.apply_update("kahan"))
    params = {"w": jnp.asarray(P, jnp.bfloat16)}
    assert cx.commutator(tx, "trace", "scale_by_lr", params).verdict == EXACTLY
    with pytest.raises(ValueError, match="it must be the last link"):
        cx.commutator(tx, "trace", "apply_update", params)


def test_integers_and_complex_numbers() -> None:
    """What is not trained has no difference, and complex numbers are compared as such."""
    params = {"z": jnp.asarray(P + 1j * G), "steps": jnp.arange(3)}
    measured = cx.commutator(cx.chain(cx.scale(2.0), cx.clip(0.25), LR), "scale", "clip", params)
    assert set(measured.where) == {"z"}
    assert measured.verdict == DIFFER


@pytest.mark.parametrize("sort", ("repeat", "seed"))
def test_runs_are_reproducible(sort: str) -> None:
    """By the seed."""
    tx = cx.chain(cx.clip(0.5), cx.scale(2.0), LR)
    a = cx.commutator(tx, "clip", "scale", seed=0)
    assert (a == cx.commutator(tx, "clip", "scale", seed=0 if sort == "repeat" else 1)) == (sort == "repeat")


def test_relative_differences() -> None:
    """Of what is not finite as well."""
    nan, inf = float("nan"), float("inf")
    pairs = (([3.0, 4.0], [3.0, 4.0], 0.0), ([3.0, 4.0], [0.0, 0.0], 1.0), ([nan, 1.0], [nan, 1.0], 0.0))
    pairs += (([inf, 1.0], [inf, 3.0], 2 / 3), ([nan, 1.0], [1.0, 1.0], inf), ([1.0], [-1.0], 2.0))
    for x, y, far in pairs:
        assert relative_difference(np.array(x), np.array(y)) == pytest.approx(far), (x, y)


def test_shapes_are_filled_with_random_numbers() -> None:
    """Those of a model that is not made yet; integers are zeros."""
    shapes = {"w": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), "steps": jax.ShapeDtypeStruct((), jnp.int32)}
    measured = cx.commutator(cx.chain(cx.scale_by_sign(), cx.add_decayed_weights(0.1), LR), *NAMES, shapes, steps=1)
    assert measured.verdict == DIFFER
    assert set(measured.where) == {"w"}


def test_matrices_by_default_if_a_link_needs_them() -> None:
    """Muon's links take no vectors."""
    measured = cx.commutator(cx.muon(0.1), "scale_by_muon", "add_decayed_weights", steps=1)
    assert set(measured.where) == {"kernel", "head"}


def test_a_gradient_that_refuses_float64_is_told_why() -> None:
    """Under strict promotion, which these tests use, a float32 constant in the loss does."""
    with pytest.raises(Exception, match="promotion") as caught:
        cx.commutator(ADAMW, "scale_by_adam", "scale_by_lr", P, grads=lambda p: p * jnp.ones((), jnp.float32))
    (note,) = [note for note in caught.value.__notes__ if "commutator" in note]
    assert note == "`commutator` runs chains in float64, so `grads` and extra arguments must accept that."


NAMES = ("scale_by_sign", "add_decayed_weights")
ADAMW = cx.adamw(1e-3)
MISTAKES = (
    (TypeError, r"`commutator\.tx` must be a chain or a link that holds chains, got 3", (3, "a", "b"), {}),
    (KeyError, "no link named 'adam'", (ADAMW, "adam", "scale_by_lr"), {}),
    (ValueError, "takes two links of one chain, got 'scale_by_lr' twice", (ADAMW, "scale_by_lr", "scale_by_lr"), {}),
    (
        ValueError,
        "got 'accumulate/scale_by_lr' and 'clip', which are in different chains",
        (cx.chain(cx.clip(1.0), cx.accumulate(ADAMW, 2)), "accumulate/scale_by_lr", "clip"),
        {},
    ),
    (ValueError, r"`commutator\.steps` must be a whole number from 1, got 0", None, {"steps": 0}),
    (ValueError, r"`commutator\.seed` must be a whole number from 0, got 0\.5", None, {"seed": 0.5}),
    (ValueError, r"`commutator\.steps` must be 1 at most, since `grads` has as many", None, {"grads": [P], "steps": 2}),
    (TypeError, r"`commutator\.grads` must be a list of trees", None, {"grads": P}),
    (ValueError, r"`commutator\.params` has no floating-point array, got \{\}", None, {"params": {}}),
    (TypeError, "The gradients of step 1 do not have the tree", None, {"params": {"w": P}, "grads": [{"v": P}]}),
    (TypeError, "Unknown extra argument 'value'", None, {"value": 1.0}),
)


@pytest.mark.parametrize(("kind", "match", "arguments", "options"), MISTAKES)
def test_mistakes(kind: Any, match: str, arguments: Any, options: dict[str, Any]) -> None:
    """Each is told in a sentence."""
    with pytest.raises(kind, match=match):
        cx.commutator(*(arguments or (ADAMW, "scale_by_adam", "scale_by_lr")), **options)


LISTED = {type(tx.values[0]) for tx in order_table.links().values()}
"""Links that the table of the documentation measures."""
KEPT = [link for link in KINDS if not getattr(link, "matrixwise", False)]
"""A link of each kind, but those of whole matrices, which take long."""


def plain(link: Any) -> Any:
    """The link without what supplies its arguments here."""
    return link.tx if isinstance(link, given) else link


SAMPLE = [link for link in LINKS if type(plain(link)) not in LISTED]


@pytest.mark.parametrize(
    "link",
    tuple(pytest.param(x, marks=() if x in KEPT else pytest.mark.long, id=repr(plain(x))[:40]) for x in SAMPLE),
)
def test_what_the_table_leaves_out_can_be_measured(link: Any) -> None:
    """With a scale behind it; its extra arguments are made. Examples must be reduced first."""
    tx, _ = quiet(lambda: cx.chain(plain(link), behind=cx.scale(3.0)))  # averages warn of it
    first, *_, last = tx.links
    if isinstance(link, in_pairs):
        with pytest.raises(ValueError, match="must be the first link"):
            cx.commutator(tx, first, last)
        return
    matrices = any(inner.matrixwise for _, inner in tx._linked())
    params = {"kernel": jax.ShapeDtypeStruct((3, 2), jnp.float32)} if matrices else None
    measured = cx.commutator(tx, first, last, params, steps=2)
    assert np.isfinite([measured.updates, measured.states, *measured.where.values(), *measured.slots.values()]).all()
    assert (measured.verdict == DIFFER) == (max(measured.where.values()) > 1e-10)
