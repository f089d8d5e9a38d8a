"""The state of an edited optimizer: what each edit keeps, and the next step."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import chainax as cx
import chainax.extend as cxe
import chex
import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

BEFORE = 6
rng = np.random.default_rng(0)


def draw(like: Any = None) -> Any:
    """Random parameters, or gradients."""
    shapes = {"bias": (4,), "embed": (4, 6), "kernel": (6, 4), "scale": (4,)}
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


PARAMS, GRADS = draw(), [draw() for _ in range(BEFORE + 3)]


@functools.cache
def compiled(tx: Any) -> Any:
    """The function of the updates."""
    return jax.jit(tx.update)


@functools.cache
def followed(tx: Any, steps: int) -> Any:
    """See `follow`."""
    return follow(tx, {**PARAMS}, steps)


def follow(tx: Any, params: Any = PARAMS, steps: int = BEFORE) -> Any:
    """The state after steps with the same parameters, so that it depends on the gradients alone."""
    if params is PARAMS:
        return followed(tx, steps)
    state = tx.init(params)
    for grads in GRADS[:steps]:
        _, state = compiled(tx)(like(params, grads), state, params)
    return state


def like(params: Any, grads: Any) -> Any:
    """The gradients of these parameters."""
    return {name: grads[name] for name in params}


def updates_of(tx: Any, state: Any, params: Any = PARAMS, times: int = 1) -> Any:
    """The updates of the next step. ``times`` is the number of micro-batches that it takes, of one gradient."""
    updates = None
    for _ in range(times):
        updates, state = compiled(tx)(like(params, GRADS[BEFORE]), state, params)
    return updates


RATE = cx.linear_schedule(0.1, 0.01, 20)
BASE = cx.chain(cx.clip_by_global_norm(1e3), cx.scale_by_adam(), cx.add_decayed_weights(0.1), cx.scale_by_lr(RATE))
ADAM = cx.chain(cx.scale_by_adam(), cx.scale_by_lr(RATE))
MATRICES = cx.matrices("in, out", ", out")
SOAP = cx.chain(cx.scale_by_soap(matrices=MATRICES), cx.scale_by_lr(0.1))
LBFGS = cx.chain(cx.scale_by_lbfgs(memory_size=2), cx.scale_by_lr(0.1))
OPTAX = cx.chain(cx.from_optax(optax.trace(0.9)), cx.scale_by_lr(0.1))
GUARDED = cx.chain(cx.dynamic_loss_scale(4.0, growth_interval=2), cx.skip_nonfinite(), cx.record("norm"), ADAM)
AVERAGED = cx.chain(ADAM, cx.ema_params(0.9))


def groups(tx: Any, pattern: str = "kernel|embed") -> cx.chain:
    """The same chain for two groups."""
    return cx.chain(cx.partition(cx.by_path({pattern: tx}, default=tx)))


def within(name: str, tx: str = "tx") -> str:
    """The beginning of the names of the arrays of a chain in a wrapper."""
    return f"{name}/{tx}/links/"


def blocks(form: Any, block: int = 4) -> Any:
    """A format of small blocks."""
    return form(block=block, min_size=0)


class Edit(NamedTuple):
    """A chain, what it becomes, and what must be kept."""

    old: Any
    new: Any
    names: Callable[[str], str] | None = lambda name: name
    """The new name of an array of the old state, which must be kept bit for bit; ``None`` if none must."""
    keeps: str = "/(mu|nu)/"
    """A pattern of the arrays that are compared."""
    like: Any = None
    """The chain that makes the next step, where it was there from the start: the old one by default."""
    rtol: float = 1e-6
    """0 for bit for bit; ``inf`` where the edit changes the next step."""
    times: tuple[int, int] = (1, 1)
    """The micro-batches of a step, in the old chain and in the new."""


def into(prefix: str) -> Callable[[str], str]:
    """The name of what goes into a wrapper."""
    return lambda name: prefix + name


def out_of(prefix: str) -> Callable[[str], str]:
    """The name of what comes out of a wrapper."""
    return lambda name: name.removeprefix(prefix)


def by_group(name: str) -> str:
    """The name of what goes into `groups`."""
    return within("partition", "kernel|embed" if name.endswith(("kernel", "embed")) else "default") + name


def out_of_groups(name: str) -> str:
    """The inverse."""
    return name.partition("/links/")[2]


ADAM_LIKE = ("amsgrad", "nesterov_adam", "radam", "ademamix", "stable_adam", "uncorrected_adam")
EDITS = {
    "nothing": Edit(BASE, BASE, rtol=0),
    # the chain
    "moved": Edit(BASE, BASE.move("add_decayed_weights", before="scale_by_adam"), rtol=np.inf),
    "inserted": Edit(BASE, BASE.insert(cx.ema_params(0.9), after="scale_by_lr"), rtol=0),
    "removed": Edit(BASE, BASE.remove("clip_by_global_norm")),
    "renamed": Edit(BASE, BASE.rename(scale_by_adam="pre"), lambda name: name.replace("scale_by_adam", "pre"), rtol=0),
    "named after its class": Edit(
        BASE.rename(scale_by_adam="pre"), BASE, lambda name: name.replace("pre", "scale_by_adam"), rtol=0
    ),
    "a second trace in front": Edit(
        cx.chain(cx.trace(0.9), cx.scale_by_lr(0.1)),
        cx.chain(cx.trace(0.5), cx.trace(0.9), cx.scale_by_lr(0.1)),
        lambda name: name.replace("trace/", "trace_2/", 1),
        "trace/",
        rtol=np.inf,
    ),
    "traces exchanged": Edit(
        cx.chain(a=cx.trace(0.9), b=cx.trace(0.5)),
        cx.chain(b=cx.trace(0.5), a=cx.trace(0.9)),
        keeps="trace/",
        rtol=np.inf,
    ),
    "a constant that becomes a schedule": Edit(ADAM.replace("scale_by_lr", learning_rate=0.1), ADAM, like=ADAM, rtol=0),
    "a decay": Edit(ADAM.replace("scale_by_adam", b2=0.9), ADAM, rtol=np.inf),
    "a mask": Edit(
        BASE,
        BASE.replace("add_decayed_weights", weight_decay=cx.by_path({"bias": 0.0}, default=0.1)),
        like=BASE.replace("add_decayed_weights", weight_decay=cx.by_path({"bias": 0.0}, default=0.1)),
    ),
    # relatives
    **{
        f"Adam to {name}": Edit(
            ADAM,
            ADAM.replace("scale_by_adam", getattr(cx, f"scale_by_{name}")()),
            lambda own, name=name: own.replace("adam", name),
            like=None
            if name in ("amsgrad", "ademamix")
            else ADAM.replace("scale_by_adam", getattr(cx, f"scale_by_{name}")()),
            rtol=np.inf if name in ("amsgrad", "ademamix") else 1e-6,
        )
        for name in ADAM_LIKE
    },
    "Adam to NAdam": Edit(
        ADAM,
        ADAM.replace("scale_by_adam", cx.scale_by_nadam()),
        lambda name: name.replace("adam", "nadam"),
        like=ADAM.replace("scale_by_adam", cx.scale_by_nadam()),
        rtol=0.02,
    ),
    "NAdam to Adam": Edit(
        ADAM.replace("scale_by_adam", cx.scale_by_nadam()),
        ADAM,
        lambda name: name.replace("nadam", "adam"),
        like=ADAM,
    ),
    "Adam to Lion": Edit(
        ADAM,
        ADAM.replace("scale_by_adam", cx.scale_by_lion()),
        lambda name: name.replace("adam", "lion"),
        "/mu/",
        rtol=np.inf,
    ),
    "Adam to RMSprop": Edit(
        ADAM,
        ADAM.replace("scale_by_adam", cx.scale_by_debiased_rms()),
        lambda name: name.replace("adam", "debiased_rms"),
        "/nu/",
        like=ADAM.replace("scale_by_adam", cx.scale_by_debiased_rms()),
    ),
    "a mean that is corrected": Edit(
        cx.chain(cx.ema(0.9)),
        cx.chain(cx.debiased_ema(0.9)),
        lambda name: f"debiased_{name}",
        "ema/ema/",
        like=cx.chain(cx.debiased_ema(0.9)),
    ),
    # wrappers
    "accumulate put on": Edit(BASE, cx.accumulate(BASE, 2), into(within("accumulate")), times=(1, 2)),
    "accumulate taken off": Edit(cx.accumulate(BASE, 2), BASE, out_of(within("accumulate")), times=(2, 1)),
    "every": Edit(cx.accumulate(BASE, 2), cx.accumulate(BASE, 3), times=(2, 3), keeps="/(mu|nu|sum)/|step"),
    "partition put on": Edit(ADAM, groups(ADAM), by_group, rtol=0),
    "partition taken off": Edit(groups(ADAM), ADAM, out_of_groups, rtol=0),
    "a group's pattern": Edit(groups(ADAM), groups(ADAM, "embed"), None, rtol=0),
    "groups in another order": Edit(
        cx.partition(cx.by_path({"bias": BASE, "embed": ADAM}, default=ADAM)),
        cx.partition(cx.by_path({"embed": ADAM, "bias": BASE}, default=ADAM)),
        rtol=0,
    ),
    "pack put on": Edit(BASE, cx.pack(BASE), None),
    "pack taken off": Edit(cx.pack(BASE), BASE, None),
    "other packs": Edit(cx.pack(ADAM, max_leaves=3), cx.pack(ADAM, max_size=4), None),
    "flatten put on": Edit(BASE, cx.flatten(BASE), None),
    "flatten taken off": Edit(cx.flatten(BASE), BASE, None),
    "flatten to pack": Edit(cx.flatten(ADAM), cx.pack(ADAM), None),
    "NAdam packed": Edit(cx.nadam(0.1), cx.pack(cx.nadam(0.1)), None),
    "NAdam unpacked": Edit(cx.pack(cx.nadam(0.1)), cx.nadam(0.1), None),
    "conditionally_transform put on": Edit(
        ADAM, cx.conditionally_transform(ADAM, lambda k: k >= 0), into(within("conditionally_transform"))
    ),
    "conditionally_mask taken off": Edit(
        cx.conditionally_mask(ADAM, lambda k: k >= 0), ADAM, out_of(within("conditionally_mask"))
    ),
    "restart put on": Edit(ADAM, cx.restart(ADAM, 100), into(within("restart"))),
    "restart taken off": Edit(cx.restart(ADAM, 100), ADAM, out_of(within("restart"))),
    "graft put on": Edit(ADAM, cx.graft(ADAM, cx.scale(1.0)), into(within("graft", "direction")), rtol=np.inf),
    "mechanize put on": Edit(ADAM, cx.mechanize(ADAM), into(within("mechanize")), rtol=np.inf),
    "schedule_free taken off": Edit(
        cx.schedule_free(cx.chain(cx.scale_by_rms(), cx.scale_by_lr(0.1))),
        cx.chain(cx.scale_by_rms(), cx.scale_by_lr(0.1)),
        out_of(within("schedule_free")),
        rtol=np.inf,
    ),
    "galore renamed": Edit(
        cx.chain(cx.scale_by_galore(cx.scale_by_adam(), rank=2)),
        cx.chain(low=cx.scale_by_galore(cx.scale_by_adam(), rank=2)),
        lambda name: name.replace("scale_by_galore", "low", 1),
        "/(mu|nu|projector)/",
        rtol=0,
    ),
    "wrappers in wrappers": Edit(BASE, cx.accumulate(groups(cx.pack(BASE)), 2), None, times=(1, 2), rtol=1e-5),
    "out of wrappers in wrappers": Edit(
        cx.chain(cx.restart(groups(cx.flatten(BASE)), 100)), cx.accumulate(BASE, 1), None, rtol=1e-5
    ),
    # other links
    "guards, records and a wrapper": Edit(
        GUARDED,
        cx.chain(GUARDED[:3], cx.restart(ADAM, 100)),
        lambda name: name if "adam" not in name else within("restart") + name,
        "mu|nu|loss_scale|growth_tracker|consecutive|norm",
    ),
    "averages of parameters": Edit(AVERAGED, cx.restart(AVERAGED, 100), into(within("restart")), "/(mu|nu|average)/"),
    "a matrix link": Edit(SOAP, groups(SOAP), by_group, "scale_by_soap", rtol=1e-5),
    "a whole-tree link": Edit(LBFGS, cx.restart(LBFGS, 100), into(within("restart")), "scale_by_lbfgs"),
    "a foreign link": Edit(OPTAX, cx.restart(OPTAX, 100), into(within("restart")), "from_optax", rtol=0),
    # formats: float32 is exact, and what is read from codes is what the old chain reads
    "float32 from bfloat16": Edit(cx.store(BASE, "bfloat16"), BASE),
    "float32 from int8": Edit(cx.store(BASE, blocks(cx.int8)), BASE, None),
    "float32 from int4": Edit(cx.store(BASE, blocks(cx.int4)), BASE, None),
    "bfloat16 from float32": Edit(BASE, cx.store(BASE, "bfloat16"), None, rtol=np.inf),
    "int8 from float32": Edit(BASE, cx.store(BASE, blocks(cx.int8)), None, rtol=np.inf),
    "int8 in a wrapper": Edit(
        cx.store(ADAM, blocks(cx.int8)),
        cx.restart(cx.store(ADAM, blocks(cx.int8)), 100),
        into(within("restart")),
        rtol=0,
    ),
}


LONG = (
    *(f"Adam to {name}" for name in ADAM_LIKE[2:]),
    *("traces exchanged", "groups in another order", "other packs", "flatten to pack", "NAdam unpacked"),
    *("conditionally_mask taken off", "restart taken off", "float32 from int4", "out of wrappers in wrappers"),
)


@pytest.mark.parametrize("name", [pytest.param(x, marks=[pytest.mark.long] * (x in LONG)) for x in EDITS])
def test_an_edit_keeps_what_it_can(name: str) -> None:
    """Bit for bit, or to the error of the codes; and the next step is that of the run without the edit."""
    edit = EDITS[name]
    old, new = edit.old, edit.new
    state = follow(old)
    adopted, _ = new.adopt(PARAMS, state, old=old)
    assert_like(adopted, new.init(PARAMS))
    before, after = old.state_dict(state), new.state_dict(adopted)
    compared = [n for n in before if re.search(edit.keeps, n) and not n.startswith("born/")]
    assert compared
    new_name = edit.names
    if new_name is not None:
        for own in compared:
            np.testing.assert_array_equal(after[new_name(own)], before[own], err_msg=own)
    if edit.rtol < np.inf:
        whole = edit.like or old
        expected = updates_of(whole, follow(whole) if edit.like else state, times=edit.times[0])
        got = updates_of(new, adopted, times=edit.times[1])
        chex.assert_trees_all_close(got, expected, rtol=edit.rtol, atol=0 if edit.rtol == 0 else 1e-7)
    chex.assert_trees_all_equal(new.load_state_dict(PARAMS, after)[0], adopted)


def assert_like(state: Any, first: Any) -> None:
    """Raise unless a state has the structure, shapes and dtypes of a first one, but for what joined."""

    def shapes(state: Any) -> Any:
        return {n: (x.shape, x.dtype) for n, x in cx.sgd(0.1).state_dict(state).items() if "born/" not in n}

    assert shapes(state) == shapes(first)


def test_slots_are_rounded_once() -> None:
    """To the nearest bfloat16, and to codes within 1% of the largest number of their block."""
    state = follow(ADAM)
    narrow, _ = cx.store(ADAM, "bfloat16").adopt(PARAMS, state, old=ADAM)
    coded, _ = cx.store(ADAM, blocks(cx.int8)).adopt(PARAMS, state, old=ADAM)
    for slot in ("mu", "nu"):
        wide, kept = state.links["scale_by_adam"][slot]["embed"], coded.links["scale_by_adam"][slot]["embed"]
        np.testing.assert_array_equal(narrow.links["scale_by_adam"][slot]["embed"], wide.astype(jnp.bfloat16))
        largest = np.abs(wide).reshape(-1, 4).max(-1)
        np.testing.assert_allclose(kept["scale"], largest, rtol=1e-6)
        error = np.abs(blocks(cx.int8).widen(kept, wide.shape, slot == "mu") - wide).reshape(-1, 4)
        assert (error <= 0.01 * largest[:, None]).all()


# What the state alone tells


KNOWN_BY_NAME = (
    "inserted",
    "renamed",
    "Adam to amsgrad",
    "accumulate put on",
    "accumulate taken off",
    "partition put on",
    "pack put on",
    "wrappers in wrappers",
    "int8 from float32",
)


@pytest.mark.parametrize("name", KNOWN_BY_NAME)
def test_names_tell_where_links_are_named_after_their_classes(name: str) -> None:
    """Without the old chain the result is the same, by `adopt` and by `load_state_dict`."""
    old, new = EDITS[name].old, EDITS[name].new
    state = follow(old)
    adopted, _ = new.adopt(PARAMS, state, old=old)
    chex.assert_trees_all_equal(new.adopt(PARAMS, state)[0], adopted)
    chex.assert_trees_all_equal(new.load_state_dict(PARAMS, old.state_dict(state), strict=False)[0], adopted)
    chex.assert_trees_all_equal(new.load_state_dict(PARAMS, old.state_dict(state), strict=False, old=old)[0], adopted)


LOST = {
    "a name that says nothing": (
        ADAM.rename(scale_by_adam="pre"),
        ADAM,
        r"loses pre/mu/bias, .*pass the chain .* old=",
    ),
    "codes": (cx.store(ADAM, blocks(cx.int8)), ADAM, r"loses scale_by_adam/mu/bias/int8, .*stored in codes, .* old="),
    "packs": (cx.pack(ADAM), ADAM, r"loses pack/tx/.*float32\[8\] for float32\[4\]\). If another chain .* old="),
}


@pytest.mark.parametrize("name", LOST)
def test_what_the_state_does_not_tell_is_named(name: str) -> None:
    """The warning says which slots are lost, and that the old chain would tell; with it, all are kept."""
    old, new, message = LOST[name]
    state = follow(old, steps=1)
    with pytest.warns(cx.ChainWarning, match=message):
        new.adopt(PARAMS, state)
    _, report = new.adopt(PARAMS, state, old=old)
    assert not report.missing


# Losses


def warned_of(old: Any, new: Any, params: Any = PARAMS, **known: Any) -> str:
    """The warning, which names every slot that is lost."""
    with pytest.warns(cx.ChainWarning) as caught:
        new.adopt(params, follow(old, steps=1), old=old, **known)
    (warning,) = caught
    return str(warning.message)


def test_lost_moments_are_named() -> None:
    """Where another slot is lacking, the shape is another, or two links could take them."""
    lion = ADAM.replace("scale_by_adam", cx.scale_by_lion())
    text = warned_of(lion, ADAM)
    assert all(f"scale_by_lion/mu/{path}" in text for path in PARAMS)
    assert "goes with 'nu', which could not be loaded" in text
    text = warned_of(ADAM, cx.chain(cx.scale_by_galore(ADAM, rank=2), cx.scale(1.0)))
    assert "scale_by_adam/mu/kernel" in text
    assert "scale_by_adam/mu/bias" not in text
    assert "they belong to gradients in another basis" in text
    text = warned_of(*(cx.chain(cx.scale_by_galore(ADAM, rank=rank), cx.scale(1.0)) for rank in (2, 3)))
    assert "they do not fit (float32[4, 2] for float32[4, 3])" in text
    two = cx.chain(a=cx.trace(0.9), b=cx.trace(0.5))
    text = warned_of(two, cx.chain(cx.trace(0.7)))
    assert "a/trace/bias, b/trace/bias" in text
    assert "several links could go on with them" in text


def test_what_is_removed_on_purpose_is_in_the_report_alone() -> None:
    """Adam's moments are nothing to momentum, nor to a frozen group."""
    state = follow(ADAM, steps=1)
    _, report = cx.sgd(0.1, momentum=0.9).adopt(PARAMS, state, old=ADAM)
    assert "scale_by_adam/mu/bias" in report.unexpected
    frozen = cx.partition(cx.by_path({"bias": cx.freeze()}, default=ADAM))
    _, report = frozen.adopt(PARAMS, state, old=ADAM)
    assert report.unexpected == ["scale_by_adam/mu/bias", "scale_by_adam/nu/bias"]


def test_parameters_of_one_pack_began_at_one_step() -> None:
    """One bias correction for all of them: a pack of others begins anew."""
    few = {"bias": PARAMS["bias"], "kernel": PARAMS["kernel"]}
    state = ADAM.add_param_group(PARAMS, ADAM.init(few)._replace(step=jnp.array(3)))
    tx = cx.pack(ADAM)
    with pytest.warns(cx.ChainWarning, match=r"loses scale_by_adam/mu/bias, .*joined at different steps"):
        adopted, _ = tx.adopt(PARAMS, state, old=ADAM)
    assert {name: int(k) for name, k in adopted.links["pack"]["tx"].born.items()} == {
        "scale_by_adam/bias": 3,
        "scale_by_adam/embed": 3,
    }


# Parameters


def test_a_layer_that_is_unfrozen_begins_there() -> None:
    """The others go on; its own first step is Adam's first."""
    old = cx.partition(cx.by_path({"embed": cx.freeze()}, default=cx.adam(0.1)))
    state = follow(old)
    adopted, report = cx.adam(0.1).adopt(PARAMS, state, old=old)
    assert report.missing == ["scale_by_adam/mu/embed", "scale_by_adam/nu/embed"]
    assert {name: int(k) for name, k in adopted.born.items()} == {"scale_by_adam/embed": BEFORE}
    updates, expected = updates_of(cx.adam(0.1), adopted), updates_of(old, state)
    chex.assert_trees_all_close(jnp.abs(updates.pop("embed")), jnp.full((4, 6), 0.1), rtol=1e-4)
    del expected["embed"]
    chex.assert_trees_all_equal(updates, expected)


WRAPS = {"bare": lambda tx: tx, "pack": cx.pack, "groups": lambda tx: groups(tx, "kernel")}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_parameter_is_renamed(wrap: Any) -> None:
    """Its slots follow `paths`, wherever they are; without it a warning says what to pass."""
    paths = {"embed": "first", "scale": "gain"}
    tx = wrap(ADAM)
    params = {paths.get(path, path): p for path, p in PARAMS.items()}
    state = follow(tx)
    for known in ({"old": tx}, {"old": None}) if wrap is not cx.pack else ({"old": tx},):
        adopted, _ = tx.adopt(params, state, paths=paths, **known)
        expected = {paths.get(path, path): u for path, u in updates_of(tx, state).items()}
        got, _ = tx.update({paths.get(path, path): g for path, g in GRADS[BEFORE].items()}, adopted, params)
        chex.assert_trees_all_close(got, expected, rtol=1e-6)
    if wrap is not cx.pack:
        with pytest.warns(cx.ChainWarning, match=r"loses .*/mu/embed.*pass paths="):
            tx.adopt(params, state, old=tx)


class Layer(equinox.Module):
    """The parameters in a module of Equinox."""

    kernel: jax.Array
    bias: jax.Array


def test_parameters_in_another_container() -> None:
    """dict → nnx → Equinox: the paths are the same."""
    leaves = {"kernel": PARAMS["kernel"], "bias": PARAMS["bias"]}
    module = nnx.Linear(6, 4, rngs=nnx.Rngs(0))
    trees = leaves, nnx.state(module, nnx.Param), Layer(**leaves)
    state = follow(BASE, leaves)
    for tree in trees[1:]:
        state, report = BASE.adopt(tree, state, old=BASE)
        assert not any(report[1:])
        chex.assert_trees_all_equal(BASE.init(tree)._replace(step=state.step, links=state.links), state)
    np.testing.assert_array_equal(
        state.links["scale_by_adam"]["mu"].kernel, follow(BASE, leaves).links["scale_by_adam"]["mu"]["kernel"]
    )


# Steps


def test_a_rate_goes_on_where_a_group_changes() -> None:
    """It is that of the next step, not of the first."""
    tx = cx.partition(cx.by_path({"bias": ADAM}, default=ADAM))
    new = cx.partition(cx.by_path({"bias|scale": ADAM}, default=ADAM))
    state, _ = new.adopt(PARAMS, follow(tx), old=tx)
    for group in ("bias|scale", "default"):
        rates = new.hyperparams(state)["partition"][group]["scale_by_lr"]
        np.testing.assert_allclose(rates["learning_rate"], 0.1 - BEFORE * 0.09 / 20, rtol=1e-6)


def test_accumulate_counts_updates_within_and_micro_batches_outside() -> None:
    """A momentum that stays outside keeps the count of its own steps when the inner chain comes out."""
    means, rate = cx.debiased_ema(0.9), cx.scale_by_lr(RATE)
    old = cx.chain(means, cx.accumulate(cx.chain(cx.scale_by_adam(), rate), 3))
    new = cx.chain(means, cx.scale_by_adam(), rate)
    before = follow(old)
    state, _ = new.adopt(PARAMS, before, old=old)
    assert int(state.step) == 2  # six micro-batches are two updates
    assert {name: int(k) for name, k in state.born.items()} == {"debiased_ema/": -4}
    alone = cx.chain(means)
    after, goes_on = (
        alone.update(GRADS[BEFORE], s._replace(links={"debiased_ema": s.links["debiased_ema"]}), PARAMS)[0]
        for s in (state, before)
    )
    chex.assert_trees_all_equal(after, goes_on)
    arrays = new.state_dict(state)
    chex.assert_trees_all_equal(new.load_state_dict(PARAMS, arrays)[0], state)
    with pytest.raises(KeyError, match=r"born/debiased_ema/ \(numbers below -2.14748e\+09\)"):
        new.load_state_dict(PARAMS, {**arrays, "born/debiased_ema/": np.int32(-(2**31))})
    inserted = cx.chain(means, cx.accumulate(cx.chain(cx.debiased_ema(0.5), cx.scale_by_adam(), rate), 3))
    back, _ = inserted.adopt(PARAMS, state, old=new)
    inner = back.links["accumulate"]["tx"]
    assert (int(back.step), int(inner.step)) == (2, 2)
    assert {name: int(k) for name, k in inner.born.items()} == {"debiased_ema/": 2}


def test_moments_that_move_to_a_chain_of_fewer_steps_keep_their_count() -> None:
    """Eight micro-batches are two steps of the inner chain, and the bias of eight is corrected."""
    rate = cx.scale_by_lr(0.1)
    old = cx.chain(cx.scale_by_adam(), cx.accumulate(cx.chain(cx.trace(0.0), rate), 4))
    new = old.move("scale_by_adam", before="accumulate/trace")
    params, grads = {"w": jnp.zeros(3)}, {"w": jnp.asarray([1.0, 2.0, 3.0])}
    state = old.init(params)
    for _ in range(8):
        _, state = old.step(params, state, grads)
    state, _ = new.adopt(params, state, old=old)
    for _ in range(4):
        params, state = new.step(params, state, grads)
    np.testing.assert_allclose(params["w"], -0.1, rtol=1e-6)


def test_a_link_that_moves_between_chains_keeps_its_count() -> None:
    """Of two links that come together, one began later by the count of the other."""
    ema, adam = cx.debiased_ema(0.9), cx.scale_by_adam()
    old = cx.chain(cx.accumulate(ema, 3), adam, cx.scale_by_lr(RATE))
    new = cx.chain(ema, adam, cx.scale_by_lr(RATE))
    state, _ = new.adopt(PARAMS, follow(old), old=old)
    assert int(state.step) == BEFORE
    assert {name: int(k) for name, k in state.born.items()} == {"debiased_ema/": 4}  # it has taken two steps
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    expected = state.links["debiased_ema"]["ema"]["bias"] * 0.9 / (1 - 0.9**3)
    np.testing.assert_allclose(
        cx.chain(ema).update(zeros, state._replace(links={"debiased_ema": state.links["debiased_ema"]}))[0]["bias"],
        expected,
        rtol=1e-5,
    )


# Slots of one shape that do not hold the same


def square(tree: Any) -> Any:
    """A vector and a square matrix."""
    return {"bias": tree["bias"], "kernel": tree["embed"][:, :4]}


def follow_square(tx: Any, steps: int = 3) -> Any:
    """As `follow`."""
    state = tx.init(square(PARAMS))
    for grads in GRADS[:steps]:
        _, state = compiled(tx)(square(grads), state, square(PARAMS))
    return state


WORDS, TURNED = (cx.by_path({"bias": cx.matrices(", out")}, default=cx.matrices(w)) for w in ("in, out", "out, in"))
OTHER_MEANINGS = {
    "galore taken off": (cx.scale_by_galore(cx.scale_by_adam(), rank=4), cx.scale_by_adam(), "another basis"),
    "galore put on": (cx.scale_by_adam(), cx.scale_by_galore(cx.scale_by_adam(), rank=4), "another basis"),
    "rows and columns exchanged": (
        cx.scale_by_shampoo(matrices=WORDS),
        cx.scale_by_shampoo(matrices=TURNED),
        "other rows and columns",
    ),
    "blocks along another axis": (
        cx.scale_by_adam_mini(block_axes=(1,)),
        cx.scale_by_adam_mini(block_axes=(0,)),
        "goes with 'nu', which could not be loaded",
    ),
}


@pytest.mark.parametrize("edit", OTHER_MEANINGS)
def test_slots_that_come_to_mean_something_else_begin_anew(edit: str) -> None:
    """Those of a square matrix, whose shape does not tell. The others go on, unless all blocks are others."""
    old, new, why = OTHER_MEANINGS[edit]
    params, state = square(PARAMS), follow_square(old)
    with pytest.warns(cx.ChainWarning, match=f"loses .*/kernel.* begin anew: .*{why}"):
        adopted, report = new.adopt(params, state, old=old)
    names = new.state_dict(adopted)
    first = new.state_dict(new.init(params))
    slots = [name for name in names if name.endswith("/kernel") and "born" not in name]
    assert slots
    for name in slots:
        np.testing.assert_array_equal(names[name], first[name], err_msg=name)
    assert any(name.endswith("/bias") for name in report.matched) == (edit != "blocks along another axis")


@pytest.mark.parametrize(
    ("old", "new"),
    (
        (cx.scale_by_galore(cx.pack(cx.scale_by_adam())), cx.pack(cx.scale_by_adam())),
        (cx.scale_by_galore(cx.pack(cx.scale_by_adam())), cx.scale_by_adam()),
        (cx.scale_by_adam(), cx.scale_by_galore(cx.pack(cx.scale_by_adam()))),
        (cx.scale_by_galore(cx.scale_by_adam()), cx.pack(cx.scale_by_adam())),
        (cx.scale_by_galore(cx.scale_by_adam()), cx.flatten(cx.scale_by_adam())),
    ),
    ids=repr,
)
def test_moments_of_a_projection_begin_anew_in_another_form(old: Any, new: Any) -> None:
    """Where leaves have other shapes within, too."""
    params = {"a": PARAMS["embed"][:, :4], "b": PARAMS["embed"]}
    state = old.init(params)
    _, state = compiled(old)(params, state, params)
    with pytest.warns(cx.ChainWarning, match="loses .* begin anew: they belong to gradients in another basis"):
        adopted, report = new.adopt(params, state, old=old)
    assert not report.mismatched
    names = {name: x for name, x in new.state_dict(adopted).items() if "/mu/" in name or "/nu/" in name}
    assert names
    for name, x in names.items():
        np.testing.assert_array_equal(x, 0, err_msg=name)


def test_slots_of_one_meaning_go_on() -> None:
    """Within a projection before and after; words that name the same matrices; Muon's momentum, by any words."""
    galore = cx.chain(cx.scale_by_galore(cx.scale_by_adam(), rank=4))
    same = cx.by_path({"bias": cx.matrices(", out")}, default=cx.matrices("a, b"))
    for old, new in (
        (galore, galore.insert(cx.clip(1.0), before="scale_by_galore")),
        (cx.scale_by_shampoo(matrices=WORDS), cx.scale_by_shampoo(matrices=same)),
        (cx.scale_by_muon(matrices=WORDS), cx.scale_by_muon(matrices=TURNED)),
        (cx.scale_by_amsgrad(debias="never"), cx.scale_by_amsgrad(debias="after")),
    ):
        report = new.adopt(square(PARAMS), follow_square(old), old=old)[1]
        assert not report.missing
        assert not report.unexpected


def test_a_maximum_of_other_numbers_begins_anew() -> None:
    """AMSGrad's of bias-corrected squares, ten times as large: the mean square takes its place, which is below."""
    old, new = (cx.scale_by_amsgrad(debias=when) for when in ("before", "after"))
    state = follow(old)
    slots = new.adopt(PARAMS, state, old=old)[0].links["scale_by_amsgrad"]
    chex.assert_trees_all_equal(slots["nu_max"], state.links["scale_by_amsgrad"]["nu"])
    chex.assert_trees_all_equal(slots["mu"], state.links["scale_by_amsgrad"]["mu"])


def test_a_group_without_slots_keeps_its_count() -> None:
    """Strict loading finds it under the new name of its partition."""
    tx = cx.chain(cx.partition(cx.by_path({"bias": cx.sgd(0.1, momentum=0.9)}, default=cx.sgd(0.2))))
    renamed, state = tx.rename(partition="groups"), follow(tx)
    loaded, report = renamed.load_state_dict(PARAMS, tx.state_dict(state), old=tx)
    assert not report.unexpected
    assert not report.missing
    assert int(loaded.links["groups"]["default"].step) == BEFORE


# Meshes and compiled functions


@pytest.mark.parametrize("kind", (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit), ids=str)
def test_zero1_is_put_on_and_taken_off(kind: Any) -> None:
    """Bit for bit, and the slots lie where those of a first state do."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        params = jax.device_put(PARAMS, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
        spread, state = cx.zero1(ADAM, over="data"), follow(ADAM, steps=1)
        inside, _ = spread.adopt(params, state, old=ADAM)
        where = spread.state_sharding(params)
        assert all(jax.tree.leaves(jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), inside, where)))
        outside, report = ADAM.adopt(params, inside, old=spread)
        assert not report.missing
        chex.assert_trees_all_equal(*(jax.tree.map(np.asarray, x) for x in (outside, state)))


def test_an_edit_may_be_compiled() -> None:
    """With packs, formats and births."""
    old, new = cx.accumulate(cx.store(ADAM, nu="bfloat16"), 2), cx.chain(cx.trace(0.9), cx.pack(ADAM))
    state = follow(old)
    adopted, _ = new.adopt(PARAMS, state, old=old)
    compiled = jax.jit(lambda p, s: new.adopt(p, s, old=old)[0])(PARAMS, state)
    chex.assert_trees_all_equal(compiled.links, adopted.links)
    assert int(compiled.step) == int(adopted.step)


def test_complex_parameters_are_split_and_joined() -> None:
    """Their slots are complex in one form and real in the other."""
    params = {"c": jnp.asarray([1 + 2j, 3 - 1j], jnp.complex64), "r": jnp.ones(2)}
    grads = {"c": jnp.asarray([0.5 - 1j, 2j], jnp.complex64), "r": jnp.ones(2)}
    plain, split = cx.chain(cx.trace(0.9)), cx.split_complex(cx.trace(0.9))
    _, state = plain.update(grads, plain.init(params), params)
    inside, report = split.adopt(params, state, old=plain)
    assert not report.missing
    assert inside.links["split_complex"]["tx"].links["trace"]["trace"]["c"]["imag"].tolist() == [-1.0, 2.0]
    chex.assert_trees_all_equal(plain.adopt(params, inside, old=split)[0], state)
    stored = cx.store(plain, blocks(cx.int8))
    coded, _ = stored.adopt(params, state, old=plain)
    back = plain.adopt(params, coded, old=stored)[0].links["trace"]["trace"]["c"]
    np.testing.assert_allclose(back, grads["c"], atol=0.05)


# Mistakes


WRONG = {
    "the new chain": (
        lambda s: ADAM.adopt(PARAMS, s, old=cx.sgd(0.1, momentum=0.9)),
        "the state is not of the chain in old= (trace → scale_by_lr): it holds scale_by_adam and lacks trace. Pass the",
    ),
    "a new path": (
        lambda s: ADAM.adopt(PARAMS, s, paths={"old": "bais"}),
        "paths renames 'old' to 'bais', but no parameter has this path (did you mean 'bias'?); they are",
    ),
    "an old path": (
        lambda s: ADAM.adopt(PARAMS, s, paths={"old": "bias"}),
        "paths renames 'old' to 'bias', but the state has no slot of 'old'",
    ),
    "a path that is left": (
        lambda s: ADAM.adopt(PARAMS, s, paths={"scale": "bias"}),
        "paths renames 'scale' to 'bias', but 'scale' is the path of a parameter still",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_said_of_an_edit_must_be_so(what: str) -> None:
    """The error names what does not fit."""
    call, message = WRONG[what]
    with pytest.raises(KeyError) as error:
        call(ADAM.init(PARAMS))
    assert message in str(error.value)


def test_the_old_chain_must_be_a_chain() -> None:
    """Not its state, nor its parameters."""
    state: Any = ADAM.init(PARAMS)
    with pytest.raises(TypeError, match=r"got State as old: old must be the chain that made the state"):
        ADAM.adopt(PARAMS, state, old=state)


def test_what_slots_hold_is_declared_by_each_class() -> None:
    """A subclass may keep something else; a slot that does not exist is refused."""

    @cxe.transform
    class scale_by_my_adam(cx.scale_by_adam):
        """Adam, but for what it keeps."""

    new = ADAM.replace("scale_by_adam", scale_by_my_adam())
    _, report = new.adopt(PARAMS, follow(ADAM, steps=1), old=ADAM)
    assert len(report.unexpected) == 8
    with pytest.raises(ValueError, match=r"`misspelt\.holds` names 'mean'; its slots are mu"):

        @cxe.transform
        class misspelt(cxe.Leafwise):
            """A link."""

            slots = ("mu",)
            holds = {"mean": "E[u]"}

            def leaf(self, u, slot, p, scalars):
                return u, {"mu": u}


OTHERS = {
    "float32 for codes": (cx.store(ADAM, blocks(cx.int8)), ADAM),
    "codes for float32": (ADAM, cx.store(ADAM, blocks(cx.int8))),
    "other codes": (cx.store(ADAM, blocks(cx.int8)), cx.store(ADAM, blocks(cx.int4))),
    "other groups": (groups(ADAM), groups(ADAM, "embed")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_wrong_old_chain_is_refused(name: str) -> None:
    """Its names are not those of the state."""
    made_by, said = OTHERS[name]
    state = follow(made_by)
    with pytest.raises(KeyError, match="the state is not of the chain in old=: it lacks"):
        ADAM.adopt(PARAMS, state, old=said)


def test_means_that_begin_elsewhere_are_not_taken_for_others() -> None:
    """An initial mean square of 1 is no mean of squares alone."""
    old, new = cx.chain(cx.scale_by_rms(initial_scale=1.0)), cx.chain(cx.scale_by_debiased_rms())
    adopted, report = new.adopt(PARAMS, follow(old), old=old)
    assert not any("nu" in name for name in report.matched)
    chex.assert_trees_all_equal(adopted.links, new.init(PARAMS).links)
    plain = cx.chain(cx.scale_by_rms())
    assert len([name for name in new.adopt(PARAMS, follow(plain), old=plain)[1].matched if "nu" in name]) == 4


def test_a_stacked_state_is_adopted_within_vmap() -> None:
    """Its counts are arrays, which is said; within `jax.vmap` it is a state like any other."""
    stacked = jax.vmap(lambda s: s)(jax.tree.map(lambda x: jnp.stack([x, x]), follow(ADAM)))
    params = jax.tree.map(lambda x: jnp.stack([x, x]), PARAMS)
    new = ADAM.replace("scale_by_adam", cx.scale_by_amsgrad())
    with pytest.raises(ValueError, match=r"the count 'step' .* adopted within jax\.vmap"):
        new.adopt(PARAMS, stacked, old=ADAM)
    one, _ = new.adopt(PARAMS, follow(ADAM), old=ADAM)
    got = jax.vmap(lambda p, s: new.adopt(p, s, old=ADAM)[0])(params, stacked)
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[1], got), one)


def test_wrappers_that_change_the_form_change_places() -> None:
    """The slots of a pack of parts become the parts of a pack."""
    params = {"z": jnp.full((3, 2), 1 + 2j), "y": jnp.full((3, 2), 1j)}
    old, new = cx.pack(cx.split_complex(cx.scale_by_adam())), cx.split_complex(cx.pack(cx.scale_by_adam()))
    state = old.init(params)
    for _ in range(3):
        _, state = old.update(params, state, params)
    adopted, _ = new.adopt(params, state, old=old)
    chex.assert_trees_all_close(new.update(params, adopted, params)[0], old.update(params, state, params)[0], rtol=1e-6)


def test_paths_are_a_dict_of_names() -> None:
    """Anything else is told the form."""
    for paths in (["w"], {"w": 3}):
        with pytest.raises(TypeError, match=r"paths must be a dict {'old/path': 'new/path'}"):
            ADAM.adopt(PARAMS, follow(ADAM), paths=paths)


@pytest.mark.parametrize("new", (ADAM, cx.accumulate_weighted(ADAM, 4)), ids=("taken off", "exchanged"))
@pytest.mark.parametrize("known", (True, False))
def test_a_pending_step_is_not_dropped_in_silence(new: Any, known: bool) -> None:
    """Of six micro-batches, two wait for the next step; after `flush` none do."""
    old = cx.accumulate(ADAM, 4)
    state, said = follow(old), {"old": old} if known else {}
    with pytest.warns(cx.ChainWarning, match=r"'accumulate' has gathered .* \(accumulate/count is 2\): .* by flush\("):
        new.adopt(PARAMS, state, **said)
    new.adopt(*cx.flush(old, PARAMS, state), **said)
    cx.accumulate(ADAM, 2).adopt(PARAMS, state, **said)
