"""Hyperparameters and statistics, read out along a run."""

import functools
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import REGISTRY, grads, tree

ALL = ("norm", "rms", "max", "param_norm", "ratio")
LINE = cx.linear_schedule(0.5, 0.1, 4)  # 0.5, 0.4, 0.3, 0.2, 0.1
PARAMS = {"block_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "head": jnp.full(4, 2.0)}
GRADS = jax.tree.map(lambda p: p / 2, PARAMS)

avals = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype, x.weak_type))


def after(tx: Any, steps: int, params: Any = PARAMS, gradients: Any = GRADS, **extra: Any) -> tuple[Any, cx.State]:
    """Parameters and state after some steps."""
    state = tx.init(params)
    for _ in range(steps):
        params, state = tx.step(params, state, gradients, **extra)
    return params, state


def expected(updates: list[Any], params: list[Any]) -> dict[str, Any]:
    """The statistics of some leaves together, in float64 and by their definitions."""

    def reals(leaves: list[Any]) -> np.ndarray:
        wide = [np.asarray(x, np.complex128).ravel() for x in leaves]
        parts = [[x.real, x.imag] if jnp.iscomplexobj(y) else [x.real] for x, y in zip(wide, leaves)]
        return np.concatenate([p for of in parts for p in of])

    u, p = reals(updates), reals(params)
    norm, param_norm = np.linalg.norm(u), np.linalg.norm(p)
    return {
        "norm": norm,
        "rms": np.sqrt(np.mean(u**2)) if u.size else 0.0,
        "max": max(np.abs(u), default=0.0),
        "param_norm": param_norm,
        "ratio": norm / param_norm if param_norm else 0.0,
    }


def half_sign(x: Any) -> np.ndarray:
    """Half the sign, of real and imaginary parts alike."""
    wide = np.asarray(x, np.complex128)
    signs = np.sign(wide.real) + 1j * np.sign(wide.imag)
    return (signs if jnp.iscomplexobj(x) else signs.real) / 2


def assert_recorded(found: Any, wanted: Any) -> None:
    """Equal names and numbers, up to rounding in float32."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    chex.assert_trees_all_close(jax.tree.map(np.float64, found), wanted, rtol=3e-6)


# Statistics


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16, jnp.complex64))
def test_statistics_agree_with_numpy(dtype: Any) -> None:
    """By leaf, by group and in whole, of leaves of any shape; before a link and behind it."""
    params, gradients = tree(0, dtype), grads(1, dtype)
    tx = cx.chain(cx.record(*ALL), cx.scale_by_sign(), cx.scale(0.5), end=cx.record(*ALL))
    _, state = tx.step(params, tx.init(params), gradients)
    signs = jax.tree.map(half_sign, gradients)
    places = {
        path: [leaf["layer"]["kernel"], leaf["layer"]["bias"], leaf["scalar"], leaf["empty"], leaf["scale"]]
        for path, leaf in (("p", params), ("record", gradients), ("end", signs))
    }
    paths = ("layer/kernel", "layer/bias", "scalar", "empty", "scale")

    def of(link: str, members: dict[str, list[int]]) -> dict[str, dict[str, Any]]:
        pairs = {
            name: expected([places[link][i] for i in at], [places["p"][i] for i in at]) for name, at in members.items()
        }
        return {s: {name: pair[s] for name, pair in pairs.items()} for s in ALL}

    everything = {"": [0, 1, 2, 3, 4]}
    by_leaf = {path: [i] for i, path in enumerate(paths)}
    groups = {"vectors": [1], "the layer": [0], "default": [2, 3, 4]}
    table = {"bias$": "vectors", r"(la)(yer)/": r"the \1\2"}
    for link in ("record", "end"):
        assert_recorded(cx.recorded(tx, state)[link], {s: x[""] for s, x in of(link, everything).items()})
        assert_recorded(cx.recorded(tx, state, "path")[link], of(link, by_leaf))
        assert_recorded(cx.recorded(tx, state, table)[link], of(link, groups))


def test_updates_pass_unchanged_and_only_what_is_asked_for_is_kept() -> None:
    """A record between any two links changes no update; its state is a scalar a leaf for each quantity."""
    links = [cx.clip_by_global_norm(1.0), cx.scale_by_adam(), cx.add_decayed_weights(0.1), cx.scale_by_lr(LINE)]
    tx = cx.chain(*(one for link in links for one in (cx.record("ratio", "rms"), link)), end=cx.record("max"))
    plain, _ = after(cx.chain(*links), 3)
    params, state = after(tx, 3)
    chex.assert_trees_all_close(params, plain, rtol=1e-6)
    assert set(state.links["record_3"]) == {"norm", "param_norm", "size"}
    assert set(state.links["end"]) == {"max"}
    assert tx.replace("end", statistics=("norm",))["end"] == cx.record()
    recorded = [slots for name, slots in state.links.items() if name != "scale_by_adam"]
    assert {(x.shape, x.dtype) for x in jax.tree.leaves(recorded)} == {((), jnp.dtype(jnp.float32))}
    norms = [found["ratio"] for name, found in cx.recorded(tx, state).items() if name != "end"]
    assert len({float(x) for x in norms}) == 4  # each its own place's
    assert cx.chain(cx.record()).update(GRADS, cx.chain(cx.record()).init(PARAMS))[0] is not None  # without params


def test_statistics_under_jit_scan_and_vmap() -> None:
    """Read out within a compiled run they are those of every step, and of every member of a sweep."""
    rates = (0.1, 0.2)

    def train(tx: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            params, state = tx.step(*carry, GRADS)
            return (params, state), (cx.recorded(tx, state, {"head": "head"})["record"], tx.hyperparams(state))

        return jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), length=3)[1]

    def build(rate: float) -> cx.chain:
        return cx.chain(cx.sgd(rate), cx.record("norm", "param_norm"))

    grid = cx.stack([build(rate) for rate in rates])
    found, numbers = jax.jit(jax.vmap(train, (grid.axes(),)))(grid)
    for i, rate in enumerate(rates):
        shrunk = 1 - 0.5 * rate * np.arange(3)
        np.testing.assert_allclose(found["norm"]["default"][i], [1.5 * rate] * 3, rtol=1e-6)
        np.testing.assert_allclose(found["param_norm"]["default"][i], 3 - 1.5 * rate * np.arange(3), rtol=1e-6)
        np.testing.assert_allclose(found["param_norm"]["head"][i], 4 * shrunk, rtol=1e-6)
        np.testing.assert_allclose(numbers["scale_by_lr"]["learning_rate"][i], [rate] * 3, rtol=1e-6)
    batched = jax.vmap(lambda tx: tx.init(PARAMS), (grid.axes(),), axis_size=2)(grid)
    assert cx.recorded(build(0.1), batched)["record"]["norm"].shape == (2,)


def test_statistics_are_of_the_last_step() -> None:
    """There are none of a refused step; a leaf without a gradient keeps its own."""
    tx = cx.chain(cx.skip_nonfinite(), cx.record(*ALL), cx.sgd(0.1))
    params, state = after(tx, 1)
    refused = tx.step(params, state, jax.tree.map(lambda g: g * jnp.nan, GRADS))[1]
    found = cx.recorded(tx, refused)
    assert_recorded(found["record"], dict.fromkeys(ALL, np.nan))
    assert found["skip_nonfinite"] == {"skipped": 1, "consecutive": 1}
    for before in (state, refused):
        _, later = tx.step(params, before, {**jax.tree.map(jnp.zeros_like, GRADS), "head": None})
        norms = {"block_0/bias": 0, "block_0/kernel": 0, "head": 2}
        assert_recorded(cx.recorded(tx, later, "path")["record"]["norm"], norms)
        assert float(cx.recorded(tx, later)["record"]["norm"]) == 2
    again = tx.step(params, refused, jax.tree.map(lambda g: g * jnp.nan, GRADS))[1]
    assert_recorded(cx.recorded(tx, again, "path")["record"]["norm"], dict.fromkeys(norms, np.nan))


def test_recorded_goes_into_other_links_and_lists_what_they_remember() -> None:
    """By the keys of the state; numbers for the whole tree beside them, of guards and of whole-tree links."""
    tx = cx.chain(
        cx.dynamic_loss_scale(4.0),
        cx.accumulate(cx.partition(cx.by_path({"head": cx.freeze()}, default=cx.chain(cx.record(), cx.sgd(0.1)))), 2),
    )
    _, state = after(tx, 3)
    found = cx.recorded(tx, state)
    assert found["dynamic_loss_scale"] == {"loss_scale": 4.0, "skipped": 0, "growth_tracker": 3}
    assert {k: float(x) for k, x in found["accumulate"].items() if k != "tx"} == {"count": 1, "skipped": 0, "weight": 1}
    assert_recorded(found["accumulate"]["tx"], {"partition": {"default": {"record": {"norm": 1.5 / 4}}}})
    assert cx.recorded(cx.adam(0.1), cx.adam(0.1).init(PARAMS)) == {}
    assert cx.recorded(cx.record(), cx.record().init({})) == {"record": {"norm": 0.0}}
    lone = cx.chain(cx.record(), cx.ema_params(0.9))
    _, state = lone.step(jnp.array(3.0), lone.init(jnp.array(3.0)), jnp.array(-2.0))
    assert cx.recorded(lone, state, "path") == {"record": {"norm": {"": 2.0}}}  # an average is no number of the tree


def test_a_record_before_the_clip_shares_its_pass() -> None:
    """On float32 gradients it reads nothing more than the clip does, and stores nothing."""
    params = {"kernel": jnp.ones((256, 512)), "bias": jnp.ones(1 << 16)}

    def cost(tx: Any) -> tuple[float, float]:
        state = tx.init(params)
        step: Any = jax.jit(tx.step, donate_argnums=(0, 1)).lower(params, state, params).compile()
        return step.cost_analysis()["bytes accessed"], step.memory_analysis().temp_size_in_bytes

    plain = cx.chain(cx.clip_by_global_norm(1.0), cx.adamw(0.1))
    accessed, temporary = cost(plain.insert(cx.record("norm"), before="clip_by_global_norm"))
    assert accessed <= cost(plain)[0] * 1.001
    assert temporary <= cost(plain)[1] * 1.1 + 1024


# How often a clip cuts


def test_clip_rate_is_the_share_of_steps_that_were_cut() -> None:
    """The counter's share is NumPy's, and the updates are those of the plain clip."""
    gradients = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    gradients[7] = np.nan  # refused: the clip has seen it, and did not cut it
    norms = np.linalg.norm(gradients, axis=1)

    def train(clip: Any) -> Any:
        tx = cx.chain(cx.skip_nonfinite(), clip, cx.sgd(0.1))

        def step(carry: Any, g: Any) -> Any:
            params, state = tx.step(*carry, g)
            return (params, state), (params, cx.recorded(tx, state))

        return jax.jit(lambda: jax.lax.scan(step, (jnp.ones(3), tx.init(jnp.ones(3))), gradients)[1])()

    counted, found = train(cx.counted_clip_by_global_norm(1.5))
    plain, _ = train(cx.clip_by_global_norm(1.5))
    np.testing.assert_array_equal(counted, plain)
    shares = np.cumsum(norms > 1.5) / np.arange(1, 101)
    assert 0.3 < shares[-1] < 0.7
    np.testing.assert_allclose(found["counted_clip_by_global_norm"]["clip_rate"], shares, rtol=1e-6)
    assert found["skip_nonfinite"]["skipped"].tolist() == [0.0] * 7 + [1.0] * 93


def test_records_round_a_clip_show_which_leaves_it_cuts() -> None:
    """So the share of steps is to be had for any clip, by leaf."""
    tx = cx.chain(before=cx.record("max"), clip=cx.clip_by_block_rms(0.8), after=cx.record("max"))
    gradients = {"a": jnp.array([[1.0, 1.0], [0.5, 0.5], [0.9, 0.9], [0.1, 0.1]]), "b": jnp.full((4, 2), 0.7)}

    def step(state: Any, g: Any) -> Any:
        _, state = tx.update(g, state, g)
        found = cx.recorded(tx, state, "path")
        return state, jax.tree.map(jnp.less, found["after"]["max"], found["before"]["max"])

    _, cuts = jax.lax.scan(step, tx.init({"a": jnp.ones(2), "b": jnp.ones(2)}), gradients)
    assert {path: float(jnp.mean(x.astype(jnp.float32))) for path, x in cuts.items()} == {"a": 0.5, "b": 0.0}


# Optax 0.2.8's monitor


def test_state_keeps_its_structure_where_the_monitor_of_optax_changes_it() -> None:
    """Its measurements are not there before the first update: no scan, and two compilations. Here neither."""
    gradients = jnp.ones((3, 2))

    def scan(tx: Any) -> Any:
        return jax.lax.scan(lambda state, g: (tx.update(g, state)[1], None), tx.init(gradients[0]), gradients)[0]

    def compilations(tx: Any) -> int:
        traces = []

        @jax.jit
        def update(g: Any, state: Any) -> Any:
            traces.append(state)
            return tx.update(g, state)

        state = tx.init(gradients[0])
        for g in gradients:
            _, state = update(g, state)
        return len(traces)

    theirs = optax.chain(optax.monitor({"norm": optax.tree.norm}), optax.scale(0.5))
    first = theirs.init(gradients[0])
    assert jax.tree.structure(first) != jax.tree.structure(theirs.update(gradients[0], first)[1])
    with pytest.raises(TypeError, match=r"scan body function carry.*structure"):
        scan(theirs)
    assert compilations(theirs) == 2

    ours = cx.chain(cx.record("norm", "rms", "max"), cx.counted_clip_by_global_norm(1.0), cx.scale(0.5))
    first = ours.init(gradients[0])
    assert avals(first) == avals(ours.update(gradients[0], first)[1]) == avals(scan(ours))
    assert float(cx.recorded(ours, scan(ours))["record"]["norm"]) == pytest.approx(2**0.5)
    assert compilations(ours) == 1


# Hyperparameters


def test_hyperparams_are_those_that_the_next_step_uses() -> None:
    """The rate read before a step is the one by which the parameters then move; no others are listed."""
    tx = cx.chain(cx.centralize(), cx.sgd(LINE))
    params, state = jnp.ones(2), tx.init(jnp.ones(2))
    for rate in (0.5, 0.4, 0.3, 0.2, 0.1, 0.1):
        numbers = tx.hyperparams(state)
        moved, state = tx.step(params, state, jnp.array([1.0, -1.0]))
        assert set(numbers) == {"scale_by_lr"}
        np.testing.assert_allclose(numbers["scale_by_lr"]["learning_rate"], rate, rtol=1e-6)
        np.testing.assert_allclose(params - moved, [rate, -rate], rtol=1e-5)
        params = moved


def test_constants_stay_numbers_and_traced_ones_work() -> None:
    """Outside of jit constants are what was given; of a chain that is an argument, all numbers are arrays."""
    tx = cx.adamw(LINE, b2=0.95)
    state = tx.init(PARAMS)
    numbers = tx.hyperparams(state)
    assert numbers["scale_by_adam"] == {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "eps_root": 0.0}
    assert numbers["scale_by_lr"]["learning_rate"].dtype == jnp.float32
    for argument in (False, True):
        read = jax.jit(type(tx).hyperparams) if argument else lambda tx, state: jax.jit(tx.hyperparams)(state)
        chex.assert_trees_all_close(read(tx, state), numbers)
    chex.assert_trees_all_close(jax.jit(tx.hyperparams)(state, PARAMS), numbers)


def test_hyperparams_of_tables_and_of_doubles(x64: None) -> None:
    """By pattern without parameters, by path with them; in the dtype in which the leaf is computed."""
    table = cx.by_path({"bias": 0.0, "head": LINE}, default=0.1)
    tx = cx.chain(cx.add_decayed_weights(table), cx.scale_by_lr(LINE))
    params = {"bias": jnp.ones(1, jnp.float32), "head": jnp.ones(1), "kernel": jnp.ones(1), "steps": jnp.arange(2)}
    state = tx.init(params)._replace(step=jnp.array(1, jnp.int32))
    numbers, by_leaf = tx.hyperparams(state), tx.hyperparams(state, params)
    assert numbers["add_decayed_weights"]["weight_decay"] == {"bias": 0.0, "head": 0.4, "default": 0.1}
    assert by_leaf["add_decayed_weights"]["weight_decay"] == {"bias": 0.0, "head": 0.4, "kernel": 0.1}
    rate = by_leaf["scale_by_lr"]["learning_rate"]
    assert (rate.dtype, float(rate)) == (jnp.float64, 0.4)
    narrow = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    assert tx.hyperparams(state, narrow)["scale_by_lr"]["learning_rate"].dtype == jnp.float32
    closed = cx.add_decayed_weights(cx.by_path({"bias": 0.0, "head": 0.2}))
    assert closed.hyperparams(state)["add_decayed_weights"]["weight_decay"] == {"bias": 0.0, "head": 0.2}
    with pytest.raises(KeyError, match=r"no pattern of .* matches parameter 'kernel'"):
        closed.hyperparams(state, params)


def test_hyperparams_of_chains_in_other_links() -> None:
    """They count the steps of their own, and see the paths that their links show them."""
    table = cx.by_path({"kernel": LINE, "bias": 0.2})
    tx = cx.chain(
        cx.scale(LINE),
        cx.accumulate(cx.partition(cx.by_path({"head": cx.freeze()}, default=cx.sgd(table))), 2),
    )
    params, state = after(tx, 4)
    inner = {"kernel": 0.3, "bias": 0.2}
    by_leaf = {"block_0/kernel": 0.3, "block_0/bias": 0.2}  # and no 'head', which no pattern matches

    def wanted(rates: dict[str, float]) -> Any:
        return {
            "scale": {"step_size": 0.1},
            "accumulate": {"tx": {"partition": {"default": {"scale_by_lr": {"learning_rate": rates}}}}},
        }

    for read in (tx.hyperparams, jax.jit(tx.hyperparams)):
        assert_recorded(read(state), wanted(inner))
        assert_recorded(read(state, params), wanted(by_leaf))
    vector = cx.flatten(cx.sgd(cx.by_path({"float32": 0.3})))
    found = vector.hyperparams(vector.init(PARAMS), PARAMS)
    assert found == {"flatten": {"tx": {"scale_by_lr": {"learning_rate": {"float32": 0.3}}}}}
    bets = cx.mechanize(cx.sgd(1.0)).hyperparams(cx.mechanize(cx.sgd(1.0)).init(PARAMS))["mechanize"]
    assert bets["betas"] == (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
    assert bets["tx"] == {"scale_by_lr": {"learning_rate": 1.0}}


@pytest.mark.parametrize("tx", REGISTRY, ids=repr)
def test_every_chain_can_be_read(tx: Any) -> None:
    """All numbers of a chain are among its hyperparameters, those of chains in its links too; all is read under jit."""
    params = tree(0)
    state = jax.eval_shape(tx.init, params)
    numbers = jax.eval_shape(tx.hyperparams, state)
    assert len(jax.tree.leaves(numbers)) == len(jax.tree.leaves(tx, is_leaf=lambda x: isinstance(x, cx.Schedule)))
    by_leaf = jax.eval_shape(tx.hyperparams, state, params)
    found = jax.eval_shape(lambda state: cx.recorded(tx, state, "path"), state)
    assert {x.shape for x in jax.tree.leaves((numbers, by_leaf, found))} <= {()}
