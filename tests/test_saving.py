"""What a stored state may hold, whose memory it is, and what a state does with what joins later."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import quickly
from stored_chains import RECIPES, params, step

TX = cx.chain(cx.scale_by_adam(), cx.scale_by_lr(0.1))
P = {"a": jnp.ones(4), "b": jnp.full(4, 2.0)}
G = {"a": jnp.linspace(-1.0, 1.0, 4), "b": jnp.ones(4)}


def after_one_step(tx: Any, p: Any = P, g: Any = G) -> cx.State:
    """The state."""
    return tx.step(p, tx.init(p), g, **given(tx))[1]


def given(tx: Any) -> dict[str, Any]:
    """The loss, if the chain reads it."""
    return {"value": jnp.ones(())} if any("value" in link.extra for link in tx.links.values()) else {}


def test_a_stored_state_has_a_version() -> None:
    """That of a later chainax is refused; without one it is the first."""
    arrays = TX.state_dict(after_one_step(TX))
    assert arrays["chainax"] == 1
    for later in (2, 1.5, "1", np.ones(2)):
        with pytest.raises(
            ValueError, match=r"the state has version .*, but this chainax reads versions up to 1: upgrade chainax"
        ):
            TX.load_state_dict(P, {**arrays, "chainax": later})
    del arrays["chainax"]
    TX.load_state_dict(P, arrays)


def test_a_loaded_state_owns_its_memory(tmp_path: Path) -> None:
    """Writing the next checkpoint over the file that it came from changes nothing."""
    big = {"w": jnp.ones(4096)}  # aligned, so that JAX would look into the file
    state = after_one_step(TX, big, big)
    files = {}
    for i, (name, x) in enumerate(TX.state_dict(state).items()):
        files[name] = np.lib.format.open_memmap(tmp_path / f"{i}.npy", mode="w+", dtype=x.dtype, shape=x.shape)
        files[name][...] = x
    loaded, _ = TX.load_state_dict(big, files)
    for file in files.values():
        file[...] = 77
    chex.assert_trees_all_equal(loaded, state)


def test_an_adopted_state_owns_its_memory() -> None:
    """A step that donates the old state leaves the new one readable."""
    state = after_one_step(TX)
    adopted, _ = TX.insert(cx.trace(0.9), after="scale_by_adam").adopt(P, state)
    before = jax.tree.map(np.array, adopted)
    cx.make_step(TX)(jax.tree.map(jnp.copy, P), state, G)
    assert state.step.is_deleted()
    chex.assert_trees_all_equal(adopted, before)


STORED = cx.store(TX, nu=cx.float8(block=4, min_size=0))
CODED = cx.store(TX, mu=cx.int8(block=4, min_size=0))
GUARDED = cx.chain(cx.dynamic_loss_scale(4.0), cx.skip_nonfinite(), TX)
PLATEAU = cx.chain(cx.reduce_on_plateau(), TX)
STRUCTURED = np.zeros(4, [("x", np.float32)])
ODD = {
    "a step of NaN": (TX, "step", np.nan),
    "a step below 0": (TX, "step", -1),
    "a step beyond int32": (TX, "step", 2**31),
    "part of a step": (TX, "step", 2.7),
    "several steps": (TX, "step", np.zeros(2, np.int32)),
    "complex moments": (TX, "scale_by_adam/mu/a", np.full(4, 1j)),
    "words": (TX, "scale_by_adam/mu/a", np.full(4, "1.0")),
    "records": (TX, "scale_by_adam/mu/a", STRUCTURED),
    "objects": (TX, "scale_by_adam/mu/a", np.full(4, None)),
    "times": (TX, "scale_by_adam/mu/a", np.zeros(4, "m8[s]")),
    "a mean beyond float32": (TX, "scale_by_adam/mu/a", np.full(4, 1e300)),
    "a mean square beyond float32": (TX, "scale_by_adam/nu/a", np.full(4, 1e300)),
    "an infinite mean": (TX, "scale_by_adam/mu/a", np.full(4, np.inf)),
    "a negative mean square": (TX, "scale_by_adam/nu/a", np.array([1.0, 1.0, -1.0, 1.0])),
    "NaN": (TX, "scale_by_adam/nu/a", np.full(4, np.nan)),
    "a negative scale": (STORED, "scale_by_adam/nu/a/scale", np.array([-1.0])),
    "a negative scale of means": (CODED, "scale_by_adam/mu/a/scale", np.array([-1.0])),
    "a negative scale of the loss": (GUARDED, "dynamic_loss_scale/loss_scale", -5.0),
    "a negative count of good steps": (GUARDED, "dynamic_loss_scale/growth_tracker", -5),
    "a negative count of refusals": (GUARDED, "skip_nonfinite/consecutive", -5),
    "a negative scale of the rate": (PLATEAU, "reduce_on_plateau/scale", -5.0),
    "a negative count of micro-batches": (cx.accumulate(TX, 3), "accumulate/count", -5),
    "a negative estimate": (cx.prodigy(), "scale_by_prodigy/estimate", -5.0),
    "an infinite scale": (STORED, "scale_by_adam/nu/a/scale", np.array([np.inf])),
    "a code of NaN": (STORED, "scale_by_adam/nu/a/float8", np.array([127, 0, 0, 0])),
    "a code beyond 8 bits": (STORED, "scale_by_adam/nu/a/float8", np.array([300, 0, 0, 0])),
    "a start after the end": (TX, "born/scale_by_adam/a", 5),
    "a start more steps ago than can be counted": (TX, "born/scale_by_adam/a", -(2**31)),
    "two starts": (TX, "born/scale_by_adam/a", np.zeros(2, np.int32)),
}


@pytest.mark.parametrize("what", ODD)
def test_what_no_step_has_stored_is_refused(what: str) -> None:
    """By name under ``strict``; else it begins anew, and the next step is finite."""
    tx, name, value = ODD[what]
    arrays = {**tx.state_dict(after_one_step(tx)), name: value}
    with pytest.raises(KeyError, match=rf"mismatched: .*{name} \("):
        tx.load_state_dict(P, arrays)
    state, report = tx.load_state_dict(P, arrays, strict=False)
    assert any(found.startswith(f"{name} (") for found in report.mismatched)
    assert finite(tx.step(P, state, G, **given(tx)))


def test_each_part_of_a_complex_mean_square_is_looked_at() -> None:
    """Complex numbers are ordered by their real parts."""
    p = {"c": jnp.ones(2, jnp.complex64)}
    arrays = {**TX.state_dict(TX.init(p)), "scale_by_adam/nu/c": np.full(2, 1 - 5j, np.complex64)}
    with pytest.raises(KeyError, match=r"scale_by_adam/nu/c \(numbers below 0"):
        TX.load_state_dict(p, arrays)


def test_an_infinite_mean_square_is_no_reason_to_lose_a_run() -> None:
    """It comes of a gradient over 1.8e19, and stops its coordinate alone."""
    arrays = TX.state_dict(after_one_step(TX, P, {**G, "a": jnp.full(4, 1e30)}))
    state, _ = TX.load_state_dict(P, arrays)
    assert np.isinf(state.links["scale_by_adam"]["nu"]["a"]).all()
    assert finite(TX.step(P, state, G)[0])


def finite(tree: Any) -> bool:
    """Whether all numbers are."""
    return all(np.isfinite(np.asarray(x, np.float64)).all() for x in jax.tree.leaves(tree))


MUTATIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "NaN": lambda x: np.full(x.shape, np.nan),
    "infinite": lambda x: np.full(x.shape, np.inf),
    "huge": lambda x: np.full(x.shape, 1e300),
    "negated": lambda x: -x.astype(np.float64) - 1,
    "shifted": lambda x: x.astype(np.float64) + 0.5,
    "all bits": lambda x: np.full(x.shape, np.iinfo(x.dtype).max if x.dtype.kind in "iu" else -1),
    "zeros": np.zeros_like,
    "shortened": lambda x: x.ravel()[:-1] if x.size else x[None],
    "doubled": lambda x: np.stack([x, x]),
    "missing": lambda x: None,
}
MUTATED = ("nadam", "int4", "guards", "schedule_free", "loss", "lbfgs", "mechanize")


@pytest.mark.parametrize("name", MUTATED)
def test_a_mutated_entry_is_refused_or_harmless(name: str) -> None:
    """Each array of a state, changed in each way: the state is refused in short, or the next step is finite."""
    tx, p = RECIPES[name].tx(), params(RECIPES[name].dtype)
    follow = quickly(lambda p, state: step(tx, p, state))
    state = tx.init(p)
    for _ in range(3):
        p, state = follow(p, state)
    arrays, errors = tx.state_dict(state), []
    for entry, x in arrays.items():
        for mutation, change in MUTATIONS.items():
            changed = {**arrays, entry: change(x)}
            try:
                loaded, _ = tx.load_state_dict(p, {name: x for name, x in changed.items() if x is not None})
            except (KeyError, ValueError) as error:
                errors.append(str(error))
            else:
                assert finite(follow(p, loaded)[0]), (entry, mutation)
    assert len(errors) > 2 * len(arrays)
    assert max(map(len, errors)) < 1000


# Names


KEYS = ("joined_proj", "joined_0a1b2c3d", "joined_", "step", "links", "born", "chainax", "0", "é", "scale", "int8", "a")


def tree_of(rng: np.random.Generator, depth: int = 2) -> Any:
    """A tree with such keys, of two levels or three."""
    keys = rng.choice(KEYS, size=rng.integers(2, 4), replace=False)
    return {str(key): tree_of(rng, depth - 1) if depth and rng.random() < 0.4 else jnp.ones(8) for key in keys}


LOADED = (
    TX,
    cx.store(TX, cx.int8(block=4, min_size=0)),
    cx.accumulate(TX, 2),
    cx.chain(links=cx.trace(0.9)),
    cx.from_optax(optax.trace(0.9)),
    cx.schedule_free_sgd(0.1),
)


@pytest.mark.parametrize("seed", range(6))
def test_loading_is_the_inverse_of_storing_whatever_the_keys(seed: int) -> None:
    """Of modules, and of dicts of arrays."""
    tx, p = LOADED[seed], tree_of(np.random.default_rng(seed))
    state = tx.init(p)._replace(step=jnp.array(3, jnp.int32))
    arrays = tx.state_dict(state)
    chex.assert_trees_all_equal(tx.load_state_dict(p, arrays)[0], state)
    chex.assert_trees_all_equal(tx.load_state_dict(p, state._asdict())[0], state)
    chex.assert_trees_all_equal(tx.adopt(p, state)[0], state)


def test_packs_of_other_parameters_are_still_refused() -> None:
    """Also where a parameter is named like a pack."""
    tx, p = cx.pack(TX), {"joined_0a1b2c3d": jnp.ones(3), "b": jnp.ones(3)}
    arrays = tx.state_dict(tx.init(p))
    chex.assert_trees_all_equal(tx.load_state_dict(p, arrays)[0], tx.init(p))
    with pytest.raises(KeyError, match="'pack' stores the slots of several parameters as one array"):
        tx.load_state_dict({"b": jnp.ones(3), "c": jnp.ones(3)}, arrays)


# What joins later


def test_a_link_that_joins_has_one_start() -> None:
    """Not one for each parameter, which would take a trace each."""
    p = {str(i): jnp.ones(2) for i in range(50)}
    state = TX.init(p)._replace(step=jnp.array(7, jnp.int32))
    tx = TX.insert(cx.debiased_ema(0.9), before="scale_by_adam")
    state, _ = tx.adopt(p, state)
    assert state.born == {"debiased_ema/": 7}
    jaxpr = str(jax.make_jaxpr(tx.step)(p, state, p))
    assert jaxpr.count("expm1") == str(jax.make_jaxpr(tx.step)(p, tx.init(p), p)).count("expm1")
    followed = tx.state_dict(tx.step(p, state, p)[1])
    assert tx.load_state_dict(p, followed)[0].born == {"debiased_ema/": 7}
    # A parameter that joins later still counts from its own start.
    grown = {**p, "new": jnp.ones(2)}
    state = tx.add_param_group(grown, tx.step(p, state, p)[1])
    assert {name: int(k) for name, k in state.born.items()} == {
        "debiased_ema/": 7,
        "debiased_ema/new": 8,
        "scale_by_adam/new": 8,
    }
    means = tx.step(grown, state, grown)[1].links["debiased_ema"]["ema"]
    np.testing.assert_allclose([means["0"], means["new"]], [[0.19] * 2, [0.1] * 2], rtol=1e-6)


def late(tx: Any, steps: int = 10, **extra: Any) -> tuple[Any, Any, Any, Any]:
    """A chain to which a parameter has come: parameters and state then, gradients of 1, and a step to take."""
    old = {"old": jnp.zeros(3)}
    follow = jax.jit(lambda p, state, g: tx.step(p, state, g, **extra))
    p, state = old, tx.init(old)
    for _ in range(steps):
        p, state = follow(p, state, {"old": jnp.ones(3)})
    p = {**p, "new": jnp.zeros(3)}
    return p, tx.add_param_group(p, state), {"old": jnp.ones(3), "new": jnp.ones(3)}, follow


@pytest.mark.parametrize("warmup", (0, 5))
def test_the_mean_of_a_late_parameter_begins_when_it_joins(warmup: int) -> None:
    """As if it had been alone, on the schedule of the run."""
    rate = cx.linear_schedule(0.01, 0.1, warmup) if warmup else 0.1
    tx = cx.schedule_free(cx.sgd(rate))
    p, state, g, follow = late(tx, 20)
    alone = cx.schedule_free(cx.sgd(0.1))
    lone, fresh = {"new": jnp.zeros(3)}, alone.init({"new": jnp.zeros(3)})
    for _ in range(10):
        p, state = follow(p, state, g)
        lone, fresh = alone.step(lone, fresh, {"new": jnp.ones(3)})
    np.testing.assert_allclose(p["new"], lone["new"], rtol=1e-4)
    ours, theirs = cx.schedule_free_eval_params(tx, p, state), cx.schedule_free_eval_params(alone, lone, fresh)
    np.testing.assert_allclose(ours["new"], theirs["new"], rtol=1e-4)
    np.testing.assert_allclose(ours["new"], -0.55, rtol=1e-4)  # the mean of −0.1, −0.2, ..., −1


@pytest.mark.parametrize("warmup", (0, 5))
def test_the_rate_of_a_late_parameter_is_corrected_for_its_own_start(warmup: int) -> None:
    """Schedule-free AdamW, whose bias correction stands in the rate, and so in the weights of the mean."""
    tx, alone = cx.schedule_free_adamw(0.1, warmup_steps=warmup), cx.schedule_free_adamw(0.1)
    p, state, g, follow = late(tx, 20)
    lone, fresh = {"new": jnp.zeros(3)}, alone.init({"new": jnp.zeros(3)})
    for _ in range(10):
        p, state = follow(p, state, g)
        lone, fresh = alone.step(lone, fresh, {"new": jnp.ones(3)})
    np.testing.assert_allclose(p["new"], lone["new"], rtol=1e-5)
    ours, theirs = cx.schedule_free_eval_params(tx, p, state), cx.schedule_free_eval_params(alone, lone, fresh)
    np.testing.assert_allclose(ours["new"], theirs["new"], rtol=1e-5)


@pytest.mark.parametrize("make", (cx.prodigy, cx.dadapt_adamw))
def test_a_late_parameter_has_a_bias_correction_of_its_own(make: Callable) -> None:
    """Its first step is as long as the estimate; corrected like the others it would be 3 times as long."""
    tx = make(estim_lr0=0.1, debias=True, eps=1e-12)
    p, state, g, follow = late(tx, 30)
    (link,) = (name for name in tx.links if name != "scale_by_lr")
    distance = state.links[link]["estimate"]
    moved, _ = follow(p, state, g)
    np.testing.assert_allclose(p["new"] - moved["new"], np.full(3, distance), rtol=1e-4)


def test_the_metric_of_a_late_parameter_is_corrected_for_its_own_start() -> None:
    """MoMo-Adam: a mean square of one gradient g is g², which the common correction would make 0.03 g²."""
    tx = cx.momo_adam(1e-2, eps=1e-12)
    p, state, g, follow = late(tx, 30, value=100.0)
    moved, _ = follow(p, state, g)
    whole = 1 - 0.9**31  # how much of its gradient the old parameter's mean holds
    np.testing.assert_allclose((p["new"] - moved["new"]) / (p["old"] - moved["old"]), (1 - 0.9) / whole, rtol=1e-4)


def test_joining_is_no_motion() -> None:
    """L-BFGS takes no pair from 0 to where a parameter stands when it joins."""
    tx = cx.chain(cx.scale_by_lbfgs(memory_size=3), cx.scale_by_lr(0.1))
    follow = jax.jit(tx.step)
    p, curvature = {"old": jnp.ones(2)}, jnp.array([1.0, 2.0])
    state = tx.init(p)
    for _ in range(3):
        p, state = follow(p, state, {"old": curvature * p["old"]})
    p = {**p, "new": jnp.full(2, 5.0)}
    state = tx.add_param_group(p, state)
    _, state = follow(p, state, jax.tree.map(lambda x: curvature * x, p))
    assert not np.any(state.links["scale_by_lbfgs"]["s"]["new"])
    assert not np.any(state.links["scale_by_lbfgs"]["y"]["new"])
    assert np.any(state.links["scale_by_lbfgs"]["s"]["old"])


def test_the_curvature_of_a_late_parameter_is_estimated_at_once() -> None:
    """That of the others when it is due."""
    tx = cx.sophia(1e-2, update_interval=10)
    hessian = {"old": jnp.full(3, 4.0)}
    p, state = {"old": jnp.zeros(3)}, tx.init({"old": jnp.zeros(3)})
    for _ in range(3):
        p, state = tx.step(p, state, {"old": jnp.ones(3)}, hessian=hessian)
    before = state.links["scale_by_sophia"]["nu"]["old"]
    p = {**p, "new": jnp.zeros(3)}
    state = tx.add_param_group(p, state)
    _, state = tx.step(p, state, jax.tree.map(jnp.ones_like, p), hessian={**hessian, "new": jnp.full(3, 4.0)})
    np.testing.assert_allclose(state.links["scale_by_sophia"]["nu"]["new"], 0.04, rtol=1e-5)
    np.testing.assert_array_equal(state.links["scale_by_sophia"]["nu"]["old"], before)


def test_a_foreign_state_with_a_count_cannot_take_a_parameter_in() -> None:
    """Optax's Adam would correct the newcomer's moments by the count of the run."""
    p, grown = {"old": jnp.ones(3)}, {"old": jnp.ones(3), "new": jnp.ones(3)}
    for foreign, refused in ((optax.scale_by_adam(), True), (optax.clip(1.0), False)):
        tx = cx.chain(cx.from_optax(foreign), cx.scale_by_lr(0.1))
        state = tx.init(p)._replace(step=jnp.array(3, jnp.int32))
        if refused:
            with pytest.raises(
                KeyError, match=r"what 'from_optax' keeps of the whole tree does not fit the new parameters"
            ):
                tx.add_param_group(grown, state)
        else:
            tx.add_param_group(grown, state)
