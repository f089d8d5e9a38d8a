"""Chains: building, reading, editing, comparing."""

from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

TX = cx.chain(cx.clip_by_global_norm(1.0), cx.scale_by_adam(), cx.add_decayed_weights(0.1), cx.scale_by_lr(1e-3))
NAMES = ("clip_by_global_norm", "scale_by_adam", "add_decayed_weights", "scale_by_lr")
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}


def test_names_are_types_numbered_or_given() -> None:
    """Names come from types; repeated ones are numbered; keywords name; nested chains are spliced."""
    inner = cx.chain(cx.scale(2.0), decay=cx.add_decayed_weights(0.1))
    tx = cx.chain(cx.scale(1.0), None, inner, last=cx.scale_by_lr(0.1))
    assert tx.names == ("scale", "scale_2", "decay", "last")
    assert repr(tx) == "chain(scale(1), scale(2), decay=add_decayed_weights(0.1), last=scale_by_lr(0.1))"
    assert eval(repr(tx), dict(vars(cx))) == tx
    assert cx.chain(head=inner).names == ("head_scale", "head_decay")


def test_reading() -> None:
    """By name, place and slice; `in`, `len`, iteration."""
    assert len(TX) == 4
    assert TX["scale_by_adam"] == TX[1] == TX[-3] == cx.scale_by_adam()
    assert list(TX) == [TX[name] for name in NAMES]
    assert TX[1:3] == cx.chain(cx.scale_by_adam(), cx.add_decayed_weights(0.1))
    assert "scale_by_adam" in TX
    assert cx.scale_by_lr(1e-3) in TX
    assert cx.scale_by_lr(1e-2) not in TX
    assert "trace" not in TX


EDITS: dict[str, tuple[Any, str]] = {
    "move before": (
        TX.move("add_decayed_weights", before="scale_by_adam"),
        "add_decayed_weights is moved after clip_by_global_norm",
    ),
    "move to the front": (
        TX.move("add_decayed_weights", before="clip_by_global_norm"),
        "add_decayed_weights is moved to the front",
    ),
    "move after": (
        TX.move("clip_by_global_norm", after="add_decayed_weights"),
        "clip_by_global_norm is moved after add_decayed_weights",
    ),
    "insert": (TX.insert(cx.trace(0.9), after="scale_by_adam"), "trace(0.9) is added after scale_by_adam"),
    "insert by name": (
        TX.insert(cx.clip(0.1), before="scale_by_lr", name="bound"),
        "bound=clip(0.1) is added after add_decayed_weights",
    ),
    "replace fields": (TX.replace("scale_by_adam", b2=0.95), "scale_by_adam.b2: 0.999 → 0.95"),
    "replace a link": (
        TX.replace("scale_by_adam", cx.scale_by_rms()),
        "scale_by_adam() is removed\nscale_by_rms() is added after clip_by_global_norm",
    ),
    "a schedule": (
        TX.replace("scale_by_lr", learning_rate=cx.linear_schedule(1.0, 0.0, 10)),
        "scale_by_lr.learning_rate: 0.001 → linear_schedule(1, 0, 10)",
    ),
    "remove": (
        TX.remove("clip_by_global_norm", "add_decayed_weights"),
        "clip_by_global_norm(1) is removed\nadd_decayed_weights(0.1) is removed",
    ),
    "rename": (
        TX.rename(add_decayed_weights="decay"),
        "add_decayed_weights(0.1) is removed\ndecay=add_decayed_weights(0.1) is added after scale_by_adam",
    ),
    "nothing": (TX.replace("scale_by_adam", b2=0.999), "no difference"),
}


def test_diff_tells_apart_what_prints_alike() -> None:
    """Keys and stacks print without their numbers, and functions without what they do."""
    ours, theirs = (cx.chain(cx.add_noise(0.1, seed=jax.random.key(seed))) for seed in (0, 1))
    assert ours.diff(theirs) == "add_noise.seed: key<fry>[] → another key<fry>[]"
    ours, theirs = (cx.chain(cx.scale(jnp.array([x, 0.1]))) for x in (0.1, 0.2))
    assert ours.diff(theirs) == "scale.step_size: float32[2] → another float32[2]"


@pytest.mark.parametrize("edit", EDITS)
def test_edit_and_diff(edit: str) -> None:
    """Each edit gives a new chain, which `diff` describes; the old one is as it was, and the new one steps."""
    edited, words = EDITS[edit]
    assert TX.names == NAMES
    assert TX.diff(edited) == words
    assert (edited == TX) == (words == "no difference")
    assert eval(repr(edited), dict(vars(cx))) == edited
    edited.step(PARAMS, edited.init(PARAMS), PARAMS)


def test_replaced_link_keeps_a_given_name() -> None:
    """A name that was given stays with the place, one that came from the type goes with the link."""
    assert cx.chain(main=cx.scale_by_adam()).replace("main", cx.scale_by_rms()).names == ("main",)
    assert TX.replace("scale_by_adam", cx.scale_by_rms()).names[1] == "scale_by_rms"


def test_edits_that_leave_the_state_as_it_was() -> None:
    """Swapping links, a schedule for a number, and stateless links keep the state's structure."""
    structure = jax.tree.structure(TX.init(PARAMS))
    for edit in ("move before", "a schedule", "remove", "insert by name", "replace fields"):
        assert jax.tree.structure(EDITS[edit][0].init(PARAMS)) == structure


def test_one_link_is_a_transformation() -> None:
    """A lone link steps like the chain of it."""
    link = cx.scale_by_lr(0.1)
    moved, state = link.step(PARAMS, link.init(PARAMS), PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure(cx.chain(link).init(PARAMS))
    assert moved["b"].tolist() == pytest.approx([0.9] * 3)
    assert "scale_by_lr" in link.describe()


DECAYS = {
    "none": cx.adam(1e-3),
    "coupled (L2: it passes through scale_by_adam)": cx.adam(1e-3, weight_decay=0.1),
    "decoupled (after the preconditioner), scaled by the learning rate": cx.adamw(1e-3),
    "decoupled (after the preconditioner), scaled by the learning rate but not by scale": cx.adamw_paper(1.0),
    "independent (a step of its own after the main one), not scaled by scale_by_lr": cx.adamw_independent(1e-3),
    "L2 (the same as ½λ‖θ‖² in the loss), scaled by the learning rate": cx.sgd(0.1, weight_decay=0.1),
    "coupled (L2: it passes through trace)": cx.sgd(0.1, momentum=0.9, weight_decay=0.1),
    "decoupled (after the momentum), scaled by the learning rate": cx.chain(
        cx.trace(0.9), cx.add_decayed_weights(0.1), cx.scale_by_lr(0.1)
    ),
}


@pytest.mark.parametrize("kind", DECAYS)
def test_describe_says_what_the_order_amounts_to(kind: str) -> None:
    """The kind of weight decay is read off the order of the links."""
    assert f"weight decay: {kind}\n" in DECAYS[kind].describe()


def test_describe_counts_the_state() -> None:
    """Bytes a parameter, from the arrays that `init` would make."""
    assert cx.adamw(1e-3).describe().endswith("state: 2 slots, 8 bytes a parameter")
    assert cx.amsgrad(1e-3).describe().endswith("state: 3 slots, 12 bytes a parameter")
    assert cx.sgd(1e-3).describe().endswith("state: 0 slots, 0 bytes a parameter")
    assert cx.adamw(1e-3).describe(PARAMS).endswith("8 bytes a parameter, 72 bytes in all")
    table = cx.adamw(1e-3, weight_decay=cx.by_path({"b": 0.0, "w": 0.1}))
    assert "λ=by_path({'b': 0, 'w': 0.1})" in table.describe()


def test_stack_keeps_what_is_shared() -> None:
    """Numbers that all chains share stay Python numbers; the others become arrays with axis 0."""
    grid = cx.stack([cx.adamw(lr) for lr in (0.1, 0.2)])
    assert grid["scale_by_adam"] == cx.scale_by_adam()
    assert grid["scale_by_lr"].learning_rate.tolist() == pytest.approx([0.1, 0.2])
    assert grid.axes()["scale_by_lr"].learning_rate == 0
    assert grid.axes()["scale_by_adam"].b1 is None
    assert hash(grid) == hash(cx.stack([cx.adamw(lr) for lr in (0.1, 0.2)]))
    assert grid == cx.stack([cx.adamw(lr) for lr in (0.1, 0.2)])
    assert grid != cx.stack([cx.adamw(lr) for lr in (0.1, 0.3)])


TABLE = cx.by_path({"b": 0.1}, default=0.5)
TABLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "adagrad": (lambda x: cx.adagrad(x, lr_decay=0.5), {"b": 0.1, "w": 0.5}),
    "bert rate": (lambda x: cx.bert_adamw(x, total_steps=9, warmup_steps=1), {"b": 0.1, "w": 0.5}),
    "bert decay": (
        lambda x: cx.bert_adamw(0.1, total_steps=9, warmup_steps=1, weight_decay=x, exclude="^w$"),
        {"b": 0.1, "w": 0.0},
    ),
    "mxnet": (lambda x: cx.mxnet_adam(x, weight_decay=0.1), {"b": 0.1, "w": 0.5}),
    "mxnet 0.7": (lambda x: cx.mxnet07_adam(0.1, weight_decay=x), {"b": 0.1, "w": 0.5}),
}


@pytest.mark.filterwarnings("ignore:.*decides for no parameter")
@pytest.mark.parametrize("name", TABLES)
def test_tables_go_into_prebuilt_schedules(name: str) -> None:
    """Where a chain makes a schedule of its argument, it makes one of each entry of a table."""
    build, numbers = TABLES[name]
    grads = jax.tree.map(lambda p: 0.01 * p, PARAMS)  # below the clip, which would mix the leaves
    for path, number in numbers.items():
        moved = [PARAMS, PARAMS]
        for i, tx in enumerate((build(TABLE), build(number))):
            state = tx.init(PARAMS)
            for _ in range(3):
                moved[i], state = tx.step(moved[i], state, grads)
        assert moved[0][path].tolist() == moved[1][path].tolist()
        assert moved[0][path].tolist() != PARAMS[path].tolist()


def steps_from(tx: Any, state: Any, params: Any, grads: Any) -> float:
    """How far one step moves the first parameter."""
    moved, _ = tx.step(params, state, grads)
    return float(abs(jax.tree.leaves(moved)[0] - jax.tree.leaves(params)[0]).max())


def test_slots_that_begin_late_count_from_their_own_start() -> None:
    """Adam's first step is the learning rate: for a link put in late, a resized and a joined parameter."""
    params, grads = {"a": jnp.zeros(3)}, {"a": jnp.ones(3)}
    late = cx.sgd(0.1).init(params)._replace(step=jnp.array(1000))
    tx = cx.adam(0.1)
    inserted, report = tx.adopt(params, late)
    assert report.matched == ["step"]
    assert steps_from(tx, inserted, params, grads) == pytest.approx(0.1, rel=1e-4)
    wider, wide_grads = {"a": jnp.zeros(5)}, {"a": jnp.ones(5)}
    lost = r"loses scale_by_adam/mu/a, .*they do not fit \(float32\[3\] for float32\[5\]\)"
    with pytest.warns(cx.ChainWarning, match=lost):
        resized = tx.add_param_group(wider, tx.init(params)._replace(step=jnp.array(1000)))
    assert steps_from(tx, resized, wider, wide_grads) == pytest.approx(0.1, rel=1e-4)
    again, report = tx.load_state_dict(wider, tx.state_dict(resized))
    assert not report.missing
    assert steps_from(tx, again, wider, wide_grads) == pytest.approx(0.1, rel=1e-4)
    # what carried over counts on: at step 1001 Adam's moments of zero make a step of (1−β₁)/√(1−β₂)
    kept, _ = tx.adopt(params, tx.init(params)._replace(step=jnp.array(100_000)))
    assert kept.born == {}
    assert steps_from(tx, kept, params, grads) == pytest.approx(0.1 * 0.1 / 0.001**0.5, rel=1e-3)


def test_adopt_works_under_jit_and_refuses_colliding_paths() -> None:
    """State can be carried over inside of a compiled function; names that collide are an error."""
    tx = cx.adam(0.1)
    state = jax.jit(lambda s: tx.adopt(PARAMS, s)[0])(tx.init(PARAMS))
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(PARAMS))
    colliding = {"a/b": jnp.ones(2), "a": {"b": jnp.ones(2)}}
    with pytest.raises(ValueError, match="two arrays of the state have the name"):
        tx.adopt(colliding, tx.init(colliding))


@pytest.mark.parametrize("tx", (cx.nadam(0.1), cx.accumulate(cx.ema_params(0.9), 2), cx.lbfgs()), ids=repr)
def test_abstract_params_will_do(tx: Any) -> None:
    """`load_state_dict` needs only shapes and dtypes, as a restore has, where all entries match."""
    abstract = jax.eval_shape(lambda: PARAMS)
    state = tx.init(PARAMS)
    chex.assert_trees_all_equal(tx.load_state_dict(abstract, tx.state_dict(state))[0], state)
    with pytest.raises(TypeError, match=r"got a jax.ShapeDtypeStruct at 'b' of params, where it needs an array$"):
        tx.load_state_dict(abstract, tx.state_dict(state), strict=False)


STILL = {"lora": jnp.ones((4, 4)), "embed": jnp.ones((8, 4)), "head": jnp.ones(4), "steps": 3}
RATES: dict[str, tuple[Any, int, str]] = {  # the learning rate, the bytes in vain, and what has none
    "the default": (cx.by_path({"lora": 0.1}, default=0.0), 288, "partition(by_path({'lora': tx}, default=freeze()))"),
    "a pattern": (
        cx.by_path({"lora": 0.0}, default=cx.linear_schedule(0.1, 1.0, 10)),
        128,
        "partition(by_path({'lora': freeze()}, default=tx.replace('scale_by_lr', learning_rate=linear_schedule(0.1, 1, "
        "10))))",
    ),
    "a later pattern": (
        cx.by_path({"head": 0.1, "lora": 0.2, "h|e": 0.0}),
        256,
        "partition(by_path({'head|lora': tx.replace('scale_by_lr', learning_rate=by_path({'head': 0.1, 'lora': 0.2})), "
        "'h|e': freeze()}))",
    ),
    "everywhere": (0.0, 416, "freeze()"),
    "every entry": (cx.by_path({"lora": 0.0}, default=0.0), 416, "freeze()"),
}


@pytest.mark.parametrize("kind", RATES)
def test_state_for_what_never_moves_is_described(kind: str) -> None:
    """How many bytes there are, and a chain with which the others move as before, without them."""
    rate, size, code = RATES[kind]
    tx = cx.adamw(rate)
    line = f"{size} of these bytes belong to parameters whose learning rate is 0; {code} keeps none for them"
    assert tx.describe(STILL).splitlines()[-1] == line
    assert "learning rate is 0" not in tx.describe()
    instead = eval(code, {**vars(cx), "tx": tx})
    counter = 4 if "partition" in code else 0  # of the chain within
    assert instead.describe(STILL).endswith(f", {416 - size + counter} bytes in all")
    grads = {**STILL, "steps": None}
    moved, expected = (chain.step(STILL, chain.init(STILL), grads)[0] for chain in (instead, tx))
    chex.assert_trees_all_equal(moved, expected)


def test_what_never_moves_within_another_link() -> None:
    """The sum of `accumulate` counts too. Where nothing is kept, or something else moves them, nothing is said."""
    tx = cx.accumulate(cx.adamw(RATES["the default"][0]), 2)
    assert "432 of these bytes belong to parameters whose learning rate is 0" in tx.describe(STILL)
    decayed = cx.adamw_independent(RATES["the default"][0])
    for silent in (cx.sgd(0.0), cx.adamw(cx.constant_schedule(0.0)), cx.adamw(jnp.array(0.1)), cx.adamw(0.1), decayed):
        assert silent.describe(STILL).splitlines()[-1].startswith("state: ")


def test_stack_of_equal_chains_has_an_axis() -> None:
    """A grid of one setting, or of the same one for many seeds, can be mapped over too."""
    grid = cx.stack([cx.sgd(0.1)])
    moved = jax.vmap(lambda tx, p: tx.step(p, tx.init(p), p)[0], (grid.axes(), None))(grid, PARAMS)
    assert moved["b"].shape == (1, 3)


def test_a_chain_may_climb() -> None:
    """A scale by −1 at the front turns the gradients, without a warning, and the decay still shrinks weights."""
    climb = cx.chain(cx.scale(-1.0), cx.adamw(0.1))
    assert "weight decay: decoupled (after the preconditioner), scaled by the learning rate" in climb.describe()
    plain = cx.adamw(0.1)
    params, grads = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.25])
    ours, _ = climb.update(grads, climb.init(params), params)
    np.testing.assert_array_equal(ours, plain.update(-grads, plain.init(params), params)[0])


def test_describe_does_not_guess() -> None:
    """L1 is not L2, a foreign link may be a preconditioner, and a decay may have a rate of its own."""
    l1 = cx.chain(cx.add_l1(0.1), cx.scale_by_lr(0.1)).describe()
    assert "weight decay: none" in l1
    assert "add_l1: the same as in the loss, scaled by the learning rate" in l1
    foreign = cx.from_optax(optax.scale_by_adam())
    assert (
        "weight decay: unknown, since from_optax may be a preconditioner"
        in cx.chain(foreign, cx.add_decayed_weights(0.1), cx.scale_by_lr(0.1)).describe()
    )
    told = foreign.replace(role="precondition")
    assert "weight decay: decoupled" in cx.chain(told, cx.add_decayed_weights(0.1), cx.scale_by_lr(0.1)).describe()
    assert "at a rate of its own" in cx.mxnet07_adam(0.1, weight_decay=0.1).describe()
    assert "weight decay: inside scale_by_prodigy, as its equation says" in cx.prodigy(weight_decay=0.1).describe()
    assert "weight decay: none" in cx.prodigy().describe()
    masked = cx.from_optax(optax.masked(optax.scale_by_adam(), {"b": True, "w": False}))
    assert masked.describe().endswith("state: depends on the parameters: call describe(params)")
    assert masked.describe(PARAMS).endswith("28 bytes in all")  # two moments of 3 numbers, and Optax's own count
    assert "2 slots" in cx.stack([cx.adamw(0.1), cx.adamw(0.2)]).describe()


def test_equal_values_have_equal_hashes() -> None:
    """Also where numbers are equal in spite of their bits or types."""
    pairs = (
        (cx.scale(jnp.array(0.0)), cx.scale(jnp.array(-0.0))),
        (cx.trace(0.9, nesterov=1), cx.trace(0.9, nesterov=True)),
        (cx.scale(1), cx.scale(1.0)),
        (cx.scale(np.float32(0.5)), cx.scale(0.5)),
        (cx.sgd(np.array([0.5, 1.0])), cx.sgd(jnp.array([0.5, 1.0]))),
    )
    for a, b in pairs:
        assert a == b
        assert hash(a) == hash(b)
        assert cx.from_config(cx.to_config(a)) == a


def test_replace_by_a_chain_splices() -> None:
    """The links of a chain may take one link's place."""
    spliced = TX.replace("scale_by_adam", cx.chain(cx.scale_by_rms(), cx.trace(0.9)))
    assert spliced.names == ("clip_by_global_norm", "scale_by_rms", "trace", "add_decayed_weights", "scale_by_lr")


def test_hypergradients_are_finite_at_zero_decays() -> None:
    """β = 0 and rates of 0 are inside the range, and so must have derivatives."""
    chains = (
        cx.adam(0.1, b1=0.0, b2=0.0),
        cx.mxnet_adam(0.1, b1=0.0),
        cx.sgd(cx.exponential_decay(0.1, 1, 0.0)),
        cx.sgd(cx.step_schedule(0.1, 1, 0.0)),
    )
    for tx in chains:

        def moved(tx: Any) -> jax.Array:
            params, state = {"w": jnp.ones(2)}, tx.init({"w": jnp.ones(2)})
            for _ in range(2):
                params, state = tx.step(params, state, {"w": 0.1 * params["w"]})
            return params["w"].sum()

        assert all(jnp.isfinite(x) for x in jax.tree.leaves(jax.jit(jax.grad(moved))(tx)))
