"""What is read from the files of PyTorch, and written for them: optimizers, names, layouts, and mistakes."""

import math
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pages import DOCS
from test_docs import blocks, defined, missing, run
from torch_files import FLAX, MODEL, PARAMS, load, save, saved_by

torch = pytest.importorskip("torch")

PREBUILT = {
    "Adam": cx.adam(),
    "AdamW": cx.adamw(),
    "NAdam": cx.nadam(),
    "RAdam": cx.radam(),
    "Adamax": cx.adamax(),
    "RMSprop": cx.rmsprop(),
    "Adagrad": cx.adagrad(),
    "Adadelta": cx.adadelta(),
    "SGD": cx.sgd(1e-3),
}


@pytest.mark.parametrize("name", PREBUILT)
def test_defaults_make_the_prebuilt_chain(name: str) -> None:
    """And the chain of its own groups is the chain again."""
    assert cx.torch.from_optimizer(name, PARAMS, saved_by(name), layout=FLAX) == PREBUILT[name]
    assert cx.torch.from_optimizer(name, PARAMS, save(PREBUILT[name]), layout=FLAX) == PREBUILT[name]


def test_flags_make_other_links() -> None:
    """Each of them; and numbers that are 0 in all groups make none."""
    of = cx.torch.from_optimizer

    def made(cls: str, *groups: dict[str, Any], **given: Any) -> cx.chain:
        return of(cls, PARAMS, saved_by(cls, *groups, **given), layout=FLAX)

    assert made("Adam", amsgrad=True) == cx.amsgrad()
    assert made("Adam", weight_decay=0.1, decoupled_weight_decay=True) == cx.adamw(weight_decay=0.1)
    assert made("SGD", lr=0.1, momentum=0.9, nesterov=True) == cx.sgd(0.1, momentum=0.9, nesterov=True)
    assert made("SGD", lr=0.1, maximize=True) == cx.chain(cx.scale(-1.0), cx.sgd(0.1))
    assert made("RMSprop", centered=True, momentum=0.5) == cx.rmsprop(centered=True, momentum=0.5)
    assert made("Adagrad", lr_decay=0.1) == cx.adagrad(lr_decay=0.1)
    assert made("Adam", lr=torch.tensor(0.5)) == cx.adam(0.5)
    kernels, biases = {"params": "weight"}, {"params": "bias"}
    assert made("Adam", kernels, biases) == cx.adam()
    table = cx.by_path({"^(fc/bias)$": 0.0, "^(fc/kernel)$": 0.1})
    assert made("AdamW", {**kernels, "weight_decay": 0.1}, {**biases, "weight_decay": 0.0}) == cx.adamw(
        weight_decay=table
    )
    assert made("Adam", {**kernels, "amsgrad": True}, biases) == cx.chain(
        cx.partition(cx.by_path({"^(fc/bias)$": cx.adam(), "^(fc/kernel)$": cx.amsgrad()}))
    )
    matrix = {"fc.weight": (2, 3)}
    assert made("Muon", shapes=matrix) == cx.chain(
        cx.partition(cx.by_path({"^(fc/bias)$": cx.freeze(), "^(fc/kernel)$": cx.muon(dtype="bfloat16")}))
    )
    there = {"fc": {"weight": jnp.ones((2, 3))}}
    assert of("Muon", there, saved_by("Muon", shapes=matrix)) == cx.muon(dtype="bfloat16", matrices="out, in")


FRESH = {"Adam": cx.adam(), "Adagrad": cx.adagrad(), "NAdam": cx.nadam()}
FRESH["SGD"] = cx.sgd(0.1, momentum=0.9, dampening=0.5)


@pytest.mark.parametrize("name", FRESH)
def test_a_state_before_the_first_step(name: str) -> None:
    """PyTorch begins with it as without it: SGD's first update is not dampened, and Adagrad has its sum."""
    tx, results = FRESH[name], []
    written = cx.torch.state_dict(tx, (start := {"w": jnp.ones(2)}), tx.init(start), ["w"], as_tensor=torch.from_numpy)
    for saved in (None, written):
        p = torch.nn.Parameter(torch.ones(2))
        given = {key: x for key, x in written["param_groups"][0].items() if key not in ("params", "param_names")}
        given.pop("decoupled_weight_decay" if name == "Adam" else "", None)
        optimizer = getattr(torch.optim, name)([("w", p)], **given)
        assert written["state"].keys() == optimizer.state_dict()["state"].keys()
        if saved is not None:
            optimizer.load_state_dict(saved)
        for k in range(2):
            p.grad = torch.tensor([1.0, -k])
            optimizer.step()
        results.append(p.detach())
    assert torch.equal(*results)


@pytest.mark.parametrize("cls", ("AdamW", "SGD", "RMSprop", "Adagrad", "Muon"))
def test_a_run_before_its_first_step_is_loaded(cls: str) -> None:
    """It goes on as from ``init``, as what `state_dict` writes of that does."""
    shapes = {"fc.weight": (2, 3)} if cls == "Muon" else MODEL
    params = {"fc": {"kernel": jnp.ones((3, 2))}} if cls == "Muon" else PARAMS
    given = {"momentum": 0.9} if cls in ("SGD", "RMSprop") else {}
    saved = saved_by(cls, steps=0, shapes=shapes, **given)
    tx = cx.torch.from_optimizer(cls, params, saved, layout=FLAX)
    start = tx.init(params)
    written = cx.torch.state_dict(tx, params, start, list(shapes), layout=FLAX)
    for file in (saved, written):
        for step in (None, 0):
            state, report = cx.torch.load_state_dict(tx, params, file, layout=FLAX, step=step)
            assert not any(report[1:])
            assert jax.tree.structure(state) == jax.tree.structure(start)
            assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state, start))


def test_one_optimizer_before_its_first_step() -> None:
    """Beside another that has taken some, what it should have kept is missing."""
    weight, bias = ({name: MODEL[name]} for name in MODEL)
    tx = cx.chain(cx.partition(cx.by_path({"bias": cx.adam()}, default=cx.sgd(0.1, momentum=0.9))))
    late = [saved_by("SGD", shapes=weight, momentum=0.9, steps=0), saved_by("Adam", shapes=bias)]
    with pytest.raises(KeyError, match=r"missing: fc.weight: momentum_buffer$"):
        load(tx, late)
    fresh = [saved_by("SGD", shapes=weight, momentum=0.9, steps=0), saved_by("Adam", shapes=bias, steps=0)]
    assert load(tx, fresh)[0].step == 0


def test_what_a_scheduler_adds_is_left_out() -> None:
    """And the rate is the one that it has set."""
    saved = saved_by("SGD", lr=0.1)
    saved["param_groups"][0] |= {"initial_lr": 0.1, "lr": 0.025, "name": "all"}
    assert cx.torch.from_optimizer("SGD", PARAMS, saved, layout=FLAX) == cx.sgd(0.025)


def test_a_schedule_is_written_as_its_next_number() -> None:
    """A group has one number; each parameter of a table its own."""
    tx = cx.sgd(cx.by_path({"bias": cx.linear_schedule(1.0, 0.0, 4)}, default=0.5), momentum=0.9)
    state = tx.init(PARAMS)._replace(step=jnp.array(3))
    saved = cx.torch.state_dict(tx, PARAMS, state, [["fc.bias"], ["fc.weight"]], layout=FLAX)
    assert [group["lr"] for group in saved["param_groups"]] == [0.25, 0.5]
    own = tx.replace("scale_by_lr", learning_rate=cx.own_steps(cx.linear_schedule(1.0, 0.0, 4)))
    joined = state._replace(born={"trace/fc/bias": jnp.array(2)})
    late = cx.torch.state_dict(own, PARAMS, joined, [["fc.bias"], ["fc.weight"]], layout=FLAX)
    assert [group["lr"] for group in late["param_groups"]] == [0.75, 0.25]
    assert [group["params"] for group in saved["param_groups"]] == [[0], [1]]
    assert [group["param_names"] for group in saved["param_groups"]] == [["fc.bias"], ["fc.weight"]]


# Files of other kinds


def test_a_parameter_without_a_gradient() -> None:
    """PyTorch keeps nothing for it: an error, and on request a start from zero."""
    saved = saved_by("Adam")
    del saved["state"][1]
    with pytest.raises(KeyError, match=r"missing: fc.bias: exp_avg, fc.bias: exp_avg_sq"):
        load(cx.adam(), saved)
    state, report = load(cx.adam(), saved, strict=False)
    assert report.matched == ["fc.weight: exp_avg", "fc.weight: exp_avg_sq"]
    assert {name: int(k) for name, k in state.born.items()} == {"scale_by_adam/fc/bias": 3}
    written = cx.torch.state_dict(cx.adam(), PARAMS, state, list(MODEL), layout=FLAX)
    assert list(written["state"]) == [0]


@pytest.mark.parametrize("dtype", ("bfloat16", "float16", "complex64"))
def test_other_dtypes(dtype: str) -> None:
    """Parameters and moments in them, with a gradient and views of conjugates."""
    shapes = {"w": (2, 3)}
    p = torch.nn.Parameter((torch.ones(2, 3) / 3).to(getattr(torch, dtype)))
    optimizer = torch.optim.Adam([("w", p)], lr=0.1)
    for _ in range(3):
        p.grad = torch.full_like(p, 0.7 + 0.1j if dtype == "complex64" else 0.7)
        optimizer.step()
    saved = optimizer.state_dict()
    params = cx.torch.load_params({"w": jnp.zeros(shapes["w"], dtype)}, {"w": p})
    back = cx.torch.params_dict(params, ["w"], as_tensor=torch.from_numpy)
    assert back["w"].dtype == p.dtype
    assert torch.equal(back["w"], p)
    tx = cx.adam(0.1)
    state, _ = cx.torch.load_state_dict(tx, params, saved)
    written = cx.torch.state_dict(tx, params, state, ["w"], as_tensor=torch.from_numpy)
    optimizer.load_state_dict(written)
    for entry, x in saved["state"][0].items():
        assert torch.equal(optimizer.state_dict()["state"][0][entry], x)


def test_slots_stored_in_bfloat16_and_in_codes() -> None:
    """A dtype is rounded to; codes are refused, here and there."""
    narrow = cx.store(cx.adam(), "bfloat16")
    state, _ = load(narrow, saved_by("Adam"))
    assert state.links["scale_by_adam"]["mu"]["fc"]["kernel"].dtype == jnp.bfloat16
    written = cx.torch.state_dict(narrow, PARAMS, state, list(MODEL), layout=FLAX, as_tensor=torch.from_numpy)
    assert written["state"][0]["exp_avg"].dtype == torch.bfloat16
    coded = cx.store(cx.adam(), mu=cx.int8(block=2, min_size=0))
    for call in (lambda: load(coded, saved_by("Adam")), lambda: save(coded)):
        with pytest.raises(ValueError, match="link 'scale_by_adam' stores 'mu' in codes, which PyTorch's optimizers"):
            call()


def test_names_of_a_distributed_checkpoint() -> None:
    """Its keys are the names; those of an optimizer without names are given, flat or by group."""
    saved, tx = saved_by("Adam", {"params": "weight"}, {"params": "bias"}), cx.adam()
    expected, _ = load(tx, saved)
    keyed = {"state": dict(zip(MODEL, saved["state"].values())), "param_groups": [{"params": [name]} for name in MODEL]}
    nameless = {**saved, "param_groups": [{"params": group["params"]} for group in saved["param_groups"]]}
    for given, names in (
        (keyed, None),
        (nameless, list(MODEL)),
        (nameless, [[name] for name in MODEL]),
        (saved, list(MODEL)),
        ([saved], None),
    ):
        state, _ = load(tx, given, names=names)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state, expected))


def test_parameters_on_a_mesh_stay_there() -> None:
    """Parameters and slots lie where the given ones lie."""
    mesh = jax.make_mesh((2,), ("data",))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    shapes = {"w": jax.ShapeDtypeStruct((4, 3), jnp.float32, sharding=where)}
    saved = saved_by("Adam", shapes={"w": (4, 3)})
    params = cx.torch.load_params(shapes, {"w": torch.arange(12.0).reshape(4, 3)})
    assert params["w"].sharding == where
    state, _ = cx.torch.load_state_dict(cx.adam(), params, saved)
    assert state.links["scale_by_adam"]["mu"]["w"].sharding.is_equivalent_to(where, 2)
    written = cx.torch.state_dict(cx.adam(), params, state, ["w"])
    np.testing.assert_array_equal(written["state"][0]["exp_avg"], saved["state"][0]["exp_avg"])


def test_links_beside_the_optimizer() -> None:
    """Those without a state are nothing to a loaded one; an average is added by ``adopt``."""
    clipped = cx.chain(cx.clip_by_global_norm(1.0), cx.adam())
    state, _ = load(clipped, saved_by("Adam"))
    assert state.step == 3
    averaged = cx.chain(cx.adam(), cx.ema_params(0.9))
    state, _ = load(averaged.remove("ema_params"), saved_by("Adam"))
    adopted, report = averaged.adopt(PARAMS, state)
    assert len(report.matched) == 5
    assert adopted.links["ema_params"]
    written = cx.torch.state_dict(averaged.remove("ema_params"), PARAMS, adopted, list(MODEL), layout=FLAX)
    assert written["state"][0]["step"] == 3


# Layouts


def test_layouts_of_real_layers() -> None:
    """Linear, convolutional, grouped, depthwise and transposed: flax computes what PyTorch does."""
    nn = pytest.importorskip("flax.linen")
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 5)).astype(np.float32)
    layers = {
        "linear": (torch.nn.Linear(5, 3), nn.Dense(3), x[:, 0, 0]),
        "conv1": (torch.nn.Conv1d(4, 6, 3), nn.Conv(6, (3,), padding="VALID"), x[..., 0]),
        "conv2": (torch.nn.Conv2d(4, 6, (3, 2)), nn.Conv(6, (3, 2), padding="VALID"), x),
        "grouped": (
            torch.nn.Conv2d(4, 6, 3, groups=2),
            nn.Conv(6, (3, 3), padding="VALID", feature_group_count=2),
            x,
        ),
        "depthwise": (
            torch.nn.Conv2d(4, 8, 3, groups=4),
            nn.Conv(8, (3, 3), padding="VALID", feature_group_count=4),
            x,
        ),
        "conv3": (torch.nn.Conv3d(4, 2, 2), nn.Conv(2, (2, 2, 2), padding="VALID"), x[..., None] + np.ones(3, "f")),
        "transposed": (
            torch.nn.ConvTranspose2d(4, 6, (3, 2)),
            nn.ConvTranspose(6, (3, 2), padding="VALID", transpose_kernel=True),
            x,
        ),
    }
    rules = cx.torch.layout(
        {"^": "params.", "weight$": "kernel"},
        {"transposed/kernel": cx.torch.TRANSPOSED_KERNELS, "kernel": cx.torch.KERNELS},
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for name, (theirs, ours, inputs) in layers.items():
            last = np.moveaxis(inputs, 1, -1)  # the channels
            params = jax.eval_shape(ours.init, jax.random.key(0), last)
            weights = {f"{name}.{key}": p for key, p in theirs.state_dict().items()}
            params = {"params": {name: params["params"]}}
            loaded = cx.torch.load_params(params, weights, layout=rules)
            result = ours.apply({"params": loaded["params"][name]}, last)
            expected = theirs(torch.from_numpy(inputs)).detach().numpy()
            np.testing.assert_allclose(np.moveaxis(result, -1, 1), expected, atol=1e-5, err_msg=name)
            back = cx.torch.params_dict(loaded, list(weights), layout=rules, as_tensor=torch.from_numpy)
            assert all(torch.equal(back[key], p) for key, p in weights.items())


def test_equinox_layouts() -> None:
    """Its axes are PyTorch's, but for the bias of a convolution: axes of length 1 come and go."""
    rules = cx.torch.layout(axes={r"conv/bias": "out -> out 1 1"})
    params = {"conv": {"weight": jnp.zeros((4, 3, 2, 2)), "bias": jnp.zeros((4, 1, 1))}}
    conv = torch.nn.Conv2d(3, 4, 2)
    weights = {f"conv.{key}": p for key, p in conv.state_dict().items()}
    loaded = cx.torch.load_params(params, weights, layout=rules)
    assert not loaded["conv"]["bias"].committed  # as the zeros were
    np.testing.assert_array_equal(loaded["conv"]["bias"][:, 0, 0], conv.bias.detach())
    back = cx.torch.params_dict(loaded, list(weights), layout=rules, as_tensor=torch.from_numpy)
    assert all(torch.equal(back[key], p) for key, p in weights.items())
    saved = saved_by("SGD", shapes={name: p.shape for name, p in weights.items()}, lr=0.1, momentum=0.9)
    tx = cx.sgd(0.1, momentum=0.9)
    state, _ = cx.torch.load_state_dict(tx, params, saved, layout=rules, step=3)
    assert state.links["trace"]["trace"]["conv"]["bias"].shape == (4, 1, 1)
    written = cx.torch.state_dict(tx, params, state, list(weights), layout=rules)
    assert written["state"][1]["momentum_buffer"].shape == (4,)


def test_a_layout_is_a_value() -> None:
    """It compares, prints as code and is written as a configuration."""
    assert eval(repr(FLAX), {"layout": cx.torch.layout}) == FLAX
    assert cx.from_config(cx.to_config(FLAX)) == FLAX
    assert cx.torch.layout() != FLAX
    assert [FLAX.path(name) for name in ("conv.weight", "fc.weight", "fc.bias", "embed.weight")] == [
        "conv/kernel",
        "fc/kernel",
        "fc/bias",
        "embed/embedding",
    ]


# Mistakes


def broken(change: Callable[[dict], Any], cls: str = "Adam", **given: Any) -> Any:
    """A saved state after a change in place."""
    saved = saved_by(cls, **given)
    change(saved)
    return saved


def kernels_of(*words: str) -> Any:
    """A layout with other words for kernels."""
    return cx.torch.layout({"weight$": "kernel"}, {"kernel": words} if words else {})


ADAM, MATCH = cx.adam(), "the state of PyTorch's optimizer does not match this chain"
NO_AXES = r"fc.weight: exp_avg \(\[2, 3\] for \[3, 2\]; permute its axes by layout\(axes=\{'kernel': chainax.torch.KERN"
MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # foreign
    "Adam's for SGD": (
        lambda: load(cx.sgd(0.1, momentum=0.9), saved_by("Adam")),
        KeyError,
        r"missing: fc.bias: momentum_buffer.*\n.*\['param_groups'\]\[0\] \(of torch.optim.Adam, the chain is SGD\), "
        r"fc.weight: exp_avg, .*\nchainax.torch.from_optimizer makes the chain of that optimizer",
    ),
    "SGD's for Adam": (lambda: load(ADAM, saved_by("SGD", lr=0.1, momentum=0.9)), KeyError, "fc.weight: momentum_buf"),
    "RAdam's for Adam": (lambda: load(ADAM, saved_by("RAdam")), KeyError, r"of torch.optim.RAdam, the chain is Adam"),
    "Adam's for AMSGrad": (lambda: load(cx.amsgrad(), saved_by("Adam")), KeyError, "missing: fc.bias: max_exp_avg_sq"),
    "AMSGrad's for Adam": (
        lambda: load(ADAM, saved_by("Adam", amsgrad=True)),
        KeyError,
        "unexpected: .*max_exp_avg_sq",
    ),
    "another model's": (
        lambda: load(ADAM, saved_by("Adam", shapes={"enc.weight": (2, 3), "fc.bias": (2,)})),
        KeyError,
        r"missing: fc/kernel \(which no parameter of PyTorch becomes\)\nunexpected: enc.weight \(which becomes "
        r"'enc/kernel': the chain moves no such parameter\)\nlayout\(names=",
    ),
    "a model": (
        lambda: load(ADAM, {"fc.weight": torch.ones(2, 3)}),
        TypeError,
        r"optimizer_state must be the dict with 'state' and 'param_groups' .*, got a dict with 'fc.weight'",
    ),
    "nothing": (lambda: load(ADAM, None), TypeError, "got None"),
    "no groups": (
        lambda: load(ADAM, {"state": {}, "param_groups": [3]}),
        TypeError,
        r"\['param_groups'\]\[0\] must be",
    ),
    "no dict of states": (
        lambda: load(ADAM, {"state": [], "param_groups": []}),
        TypeError,
        r"\['state'\] must be a dict",
    ),
    "a tensor as a state": (
        lambda: load(ADAM, broken(lambda s: s["state"].update({0: 3}))),
        TypeError,
        "the state of 'fc.weight' must be a dict of tensors, got int",
    ),
    # truncated
    "a parameter is missing": (
        lambda: load(ADAM, broken(lambda s: s["state"].pop(1))),
        KeyError,
        f"{MATCH}.*\nmissing: fc.bias: exp_avg, fc.bias: exp_avg_sq",
    ),
    "an entry is missing": (
        lambda: load(ADAM, broken(lambda s: s["state"][0].pop("exp_avg_sq"))),
        KeyError,
        "missing: fc.weight: exp_avg_sq",
    ),
    "a step is missing": (
        lambda: load(ADAM, broken(lambda s: s["state"][0].pop("step"))),
        KeyError,
        "missing: fc.weight: step",
    ),
    "a state of no parameter": (
        lambda: load(ADAM, broken(lambda s: s["state"].update({7: {}}))),
        KeyError,
        r"unexpected: optimizer_state\['state'\]\[7\]",
    ),
    "no steps": (
        lambda: load(cx.sgd(0.1, momentum=0.9), saved_by("SGD", lr=0.1, momentum=0.9)),
        ValueError,
        r"does not say how many steps .*: pass step=1000",
    ),
    "no steps, nor anything else": (lambda: load(cx.sgd(0.1), saved_by("SGD", lr=0.1)), ValueError, "step=1000"),
    "plain SGD's for momentum": (
        lambda: load(cx.sgd(0.1, momentum=0.9), saved_by("SGD", lr=0.1)),
        KeyError,
        "missing: fc.bias: momentum_buffer, fc.weight: momentum_buffer",
    ),
    "a run that has begun": (
        lambda: load(ADAM, saved_by("Adam", steps=0), step=2),
        KeyError,
        "missing: fc.bias: exp_avg, fc.weight: exp_avg",
    ),
    "steps before the first": (
        lambda: load(ADAM, saved_by("Adam", steps=0), step=-1),
        ValueError,
        "`step` must be a whole number from 0, got -1",
    ),
    "Adam's before its first step for SGD": (
        lambda: load(cx.sgd(0.1, momentum=0.9), saved_by("Adam", steps=0)),
        KeyError,
        r"\['param_groups'\]\[0\] \(of torch.optim.Adam, the chain is SGD\)",
    ),
    "too few steps": (lambda: load(ADAM, saved_by("Adam"), step=2), ValueError, "`step` must be a whole number from 3"),
    # mismatched
    "no transposition": (
        lambda: cx.torch.load_state_dict(ADAM, PARAMS, saved_by("Adam"), layout=kernels_of()),
        KeyError,
        NO_AXES,
    ),
    "other axes": (
        lambda: cx.torch.load_state_dict(ADAM, PARAMS, saved_by("Adam"), layout=kernels_of("a b c -> c b a")),
        KeyError,
        r"fc.weight: exp_avg \(has 2 axes, and the words for 'fc/kernel' in `layout.axes`, 'a b c -> c b a',",
    ),
    "another shape": (
        lambda: load(ADAM, saved_by("Adam", shapes={"fc.weight": (2, 4), "fc.bias": (2,)})),
        KeyError,
        r"fc.weight: exp_avg \(\[2, 4\], which becomes \[4, 2\], for \[3, 2\]\)",
    ),
    "half a step": (
        lambda: load(ADAM, broken(lambda s: s["state"][0].update(step=torch.tensor(2.5)))),
        KeyError,
        r"fc.weight: step \(must be a whole number of steps, got 2.5\)",
    ),
    "steps of each number": (
        lambda: load(ADAM, broken(lambda s: s["state"][0].update(step=torch.ones(2)))),
        KeyError,
        r"fc.weight: step \(must be a whole number of steps, got \[2\]\)",
    ),
    "NaN": (
        lambda: load(ADAM, broken(lambda s: s["state"][1]["exp_avg"].fill_(math.nan))),
        KeyError,
        r"fc.bias: exp_avg \(numbers that are not finite\)",
    ),
    "negative squares": (
        lambda: load(ADAM, broken(lambda s: s["state"][1]["exp_avg_sq"].fill_(-1.0))),
        KeyError,
        r"fc.bias: exp_avg_sq \(numbers below 0\)",
    ),
    "text": (
        lambda: load(ADAM, broken(lambda s: s["state"][0].update(exp_avg="abc"))),
        TypeError,
        "'exp_avg' of 'fc.weight' must be an array of numbers, got 'abc'",
    ),
    "a sparse tensor": (
        lambda: load(ADAM, broken(lambda s: s["state"][0].update(exp_avg=torch.ones(2, 3).to_sparse()))),
        TypeError,
        "'exp_avg' of 'fc.weight' is no array: ",
    ),
    "NaN of a name in parentheses": (
        lambda: cx.torch.load_state_dict(
            ADAM,
            {"conv": jnp.ones(2), "conv (1)": jnp.ones(2)},
            broken(lambda s: s["state"][1]["exp_avg"].fill_(math.nan), shapes={"conv": (2,), "conv (1)": (2,)}),
        ),
        KeyError,
        r"mismatched: conv \(1\): exp_avg \(numbers that are not finite\), conv \(1\): exp_avg_sq \(it goes with 'mu'",
    ),
    # names
    "no names": (
        lambda: load(ADAM, {**saved_by("Adam"), "param_groups": [{"params": [0, 1]}]}),
        ValueError,
        r"has no names of the parameters, or not all: pass names=\[name for name, _ in model.named_parameters\(\)\]",
    ),
    "too many names": (
        lambda: load(ADAM, saved_by("Adam"), names=["a", "b", "c"]),
        ValueError,
        r"has 2 parameters in groups of \[2\], and `names` has 3",
    ),
    "names in other groups": (lambda: load(ADAM, saved_by("Adam"), names=[["a"], ["b"]]), ValueError, r"has \[1, 1\]"),
    "names that are not those": (
        lambda: load(ADAM, saved_by("Adam"), names=["fc.bias", "fc.weight"]),
        ValueError,
        "`names` has 'fc.bias' for the parameter that the optimizer's state names 'fc.weight'",
    ),
    "two names of a path": (
        lambda: load(ADAM, saved_by("Adam", shapes={"fc.weight": (2, 3), "fc.kernel": (2, 3)})),
        ValueError,
        r"'fc.weight' and 'fc.kernel' both become 'fc/kernel': change layout\(names=",
    ),
    "names that are numbers": (
        lambda: save(ADAM, [1, 2]),
        TypeError,
        "`names` must be a list of names, or a list for each group, got .1, 2",
    ),
    # chains
    "no chain": (lambda: load(PARAMS, saved_by("Adam")), TypeError, "as tx"),
    "maximize": (
        lambda: load(ADAM, saved_by("Adam", maximize=True)),
        ValueError,
        r"\['param_groups'\]\[0\] has maximize=True, and the chain minimizes: write chain\(scale\(-1.0\), tx\)",
    ),
    "an average": (
        lambda: load(cx.chain(ADAM, cx.ema_params(0.9)), saved_by("Adam")),
        ValueError,
        r"no optimizer of torch.optim keeps what link 'ema_params' keeps: .*tx.remove\('ema_params'\); tx.adopt\(",
    ),
    "a wrapper": (
        lambda: load(cx.accumulate(ADAM, every=2), saved_by("Adam")),
        ValueError,
        r"what link 'accumulate' keeps: hand over the chain that it holds, tx\['accumulate'\].tx",
    ),
    "Optax's maximum": (
        lambda: load(cx.amsgrad(debias="before"), saved_by("Adam", amsgrad=True)),
        ValueError,
        r"'scale_by_amsgrad' has debias='before': write tx.replace\('scale_by_amsgrad', debias='after'\)",
    ),
    # from_optimizer
    "another class": (
        lambda: cx.torch.from_optimizer("SGD", PARAMS, saved_by("Adam"), layout=FLAX),
        KeyError,
        r"\['param_groups'\]\[0\] is of torch.optim.Adam, not of SGD",
    ),
    "Adam for AdamW": (
        lambda: cx.torch.from_optimizer("AdamW", PARAMS, saved_by("Adam"), layout=FLAX),
        KeyError,
        "has decoupled_weight_decay=False: it is Adam's, not AdamW's",
    ),
    "an unknown class": (
        lambda: cx.torch.from_optimizer("adam", PARAMS, saved_by("Adam")),
        ValueError,
        r"`optimizer` must be one of Adam, .*, got 'adam' \(did you mean 'Adam'\?\)",
    ),
    "a class itself": (
        lambda: cx.torch.from_optimizer(torch.optim.Adam, PARAMS, saved_by("Adam")),
        TypeError,
        r"`optimizer` must be the name of a class, .*: write from_optimizer\('Adam', params, optimizer_state\), got",
    ),
    "a list of classes": (
        lambda: cx.torch.from_optimizer([torch.optim.Adam], PARAMS, [saved_by("Adam")]),
        TypeError,
        r"write from_optimizer\('Adam', ",
    ),
    "a class for two": (
        lambda: cx.torch.from_optimizer("Adam", PARAMS, [saved_by("Adam"), saved_by("Adam", shapes={"b": (2,)})]),
        ValueError,
        "must name a class for each of 2 states",
    ),
    "an unknown parameter": (
        lambda: cx.torch.from_optimizer("Adam", PARAMS, saved_by("Adam")),
        KeyError,
        r"'fc.weight' becomes 'fc/weight', and there is no such parameter.*change layout\(names=",
    ),
    "a key is missing": (
        lambda: cx.torch.from_optimizer("Adam", PARAMS, broken(lambda s: s["param_groups"][0].pop("eps")), layout=FLAX),
        KeyError,
        r"\['param_groups'\]\[0\] has no 'eps', which torch.optim.Adam has",
    ),
    "two rates": (
        lambda: cx.torch.from_optimizer(
            "Adam", PARAMS, broken(lambda s: s["param_groups"][0].update(lr=torch.ones(2))), layout=FLAX
        ),
        ValueError,
        r"\['lr'\] must be a number, got float32\[2\]",
    ),
    "one beta": (
        lambda: cx.torch.from_optimizer(
            "Adam", PARAMS, broken(lambda s: s["param_groups"][0].update(betas=0.9)), layout=FLAX
        ),
        ValueError,
        r"\['betas'\] must be a tuple of numbers, got 0.9",
    ),
    # state_dict
    "a clip": (
        lambda: save(cx.chain(cx.clip_by_global_norm(1.0), ADAM)),
        ValueError,
        r"torch.optim.Adam has nothing in the place of link 'clip_by_global_norm': write the state of tx.remove\(",
    ),
    "a clip before a partition": (
        lambda: save(cx.chain(cx.clip_by_global_norm(1.0), cx.partition(cx.by_path({"b": ADAM}, default=ADAM)))),
        ValueError,
        r"torch.optim has nothing in the place of link 'clip_by_global_norm': write the state of tx.remove\(",
    ),
    "Muon's inputs for outputs": (
        lambda: save(cx.muon(), ["w"], {"w": jnp.ones((2, 3))}),
        ValueError,
        r"`scale_by_muon.matrices` = matrices\('in, out'\) takes for outputs at 'w' what PyTorch takes for inputs",
    ),
    "a decay in the wrong place": (
        lambda: save(cx.chain(cx.trace(0.9), cx.add_decayed_weights(0.1), cx.scale_by_lr(0.1))),
        ValueError,
        "torch.optim.SGD has nothing in the place of link 'add_decayed_weights': its weight decay is coupled",
    ),
    "two decays": (
        lambda: save(cx.chain(cx.add_decayed_weights(0.1), cx.adamw())),
        ValueError,
        "has two weight decays, so it is no optimizer of torch.optim",
    ),
    "no rate": (lambda: save(cx.chain(cx.scale_by_adam())), ValueError, "has no link scale_by_lr"),
    "Lion": (lambda: save(cx.lion(1e-3)), ValueError, "no optimizer of torch.optim keeps what link 'scale_by_lion'"),
    "a field that Adam lacks": (
        lambda: save(cx.adam(eps_root=1e-3)),
        ValueError,
        "torch.optim.Adam has nothing like `scale_by_adam.eps_root` = 0.001: it is 0 there",
    ),
    "a scale": (
        lambda: save(cx.chain(cx.scale(2.0), ADAM)),
        ValueError,
        "torch.optim.Adam has nothing like `scale.step_size` = 2: it is -1 there",
    ),
    "Muon's other sizes": (
        lambda: save(cx.muon(sizing="mup"), ["w"], {"w": jnp.ones((2, 3))}),
        ValueError,
        "torch.optim.Muon has no `scale_by_muon.sizing` = 'mup'",
    ),
    "Muon's other iterations": (
        lambda: save(cx.muon(iteration=cx.polar_express()), ["w"], {"w": jnp.ones((2, 3))}),
        ValueError,
        r"torch.optim.Muon has no `scale_by_muon.iteration` = polar_express\(\)",
    ),
    "two rates in a group": (
        lambda: save(cx.adam(cx.by_path({"bias": 1e-4}, default=1e-3))),
        ValueError,
        r"lr is 0.001 for 'fc.weight' and 0.0001 for 'fc.bias', which are in one group: give `names` in groups, ",
    ),
    "a name of no parameter": (
        lambda: save(ADAM, ["fc.weigth"]),
        KeyError,
        r"'fc.weigth' becomes 'fc/weigth', and the chain moves no such parameter",
    ),
    "a name is missing": (
        lambda: save(ADAM, ["fc.weight"]),
        KeyError,
        r"`names` has 'fc.weight', whose chain moves 'fc/bias' too, but no name for that: give all, as \[name for ",
    ),
    "a name is missing in a partition": (
        lambda: save(
            cx.chain(cx.partition(cx.by_path({"b": cx.sgd(0.1)}, default=ADAM))),
            ["x"],
            {"x": jnp.ones(2), "y": jnp.ones(2), "b": jnp.ones(2)},
        ),
        KeyError,
        "`names` has 'x', whose chain moves 'y' too, but no name for that",
    ),
    "one name": (lambda: save(ADAM, "fc.weight"), TypeError, "`names` must be a list of names"),
    "no names at all": (lambda: save(ADAM, []), ValueError, "`names` must have a name for each parameter"),
    "the state of another chain": (
        lambda: cx.torch.state_dict(ADAM, PARAMS, cx.lion(0.1).init(PARAMS), list(MODEL), layout=FLAX),
        KeyError,
        "The state is not of this chain: it lacks scale_by_adam",
    ),
    "the state of another partition": (
        lambda: cx.torch.state_dict(
            cx.chain(cx.partition(cx.by_path({"b": ADAM}, default=ADAM))),
            PARAMS,
            cx.chain(cx.partition(cx.by_path({"a": ADAM}, default=ADAM))).init({"a": jnp.ones(2), "b": jnp.ones(2)}),
            list(MODEL),
        ),
        KeyError,
        "The state is not of this chain: 'partition' lacks 'b'",
    ),
    # parameters
    "a parameter of no name": (
        lambda: cx.torch.load_params(PARAMS, {"fc.weight": torch.ones(2, 3)}, layout=FLAX),
        KeyError,
        "the arrays do not match the parameters; for 'fc/bias' there is no name",
    ),
    "a name of no parameter here": (
        lambda: cx.torch.params_dict(PARAMS, [*MODEL, "bn.mean"], layout=FLAX),
        KeyError,
        "`names` do not match the parameters; 'bn.mean' becomes 'bn/mean', and there is no such parameter",
    ),
    "a parameter of another shape": (
        lambda: cx.torch.load_params(PARAMS, {"fc.weight": torch.ones(2, 4), "fc.bias": torch.ones(2)}, layout=FLAX),
        ValueError,
        r"'fc.weight', here 'fc/kernel': \[2, 4\], which becomes \[4, 2\], for \[3, 2\]",
    ),
    "complex numbers for real ones": (
        lambda: cx.torch.load_params({"w": jnp.ones(2)}, {"w": torch.ones(2, dtype=torch.complex64)}),
        ValueError,
        "'w', here 'w': complex64 for float32",
    ),
    "a list of parameters": (lambda: cx.torch.load_params(PARAMS, [1]), TypeError, "needs the dict that model.state_"),
    # layouts
    "no expression": (
        lambda: cx.torch.layout({"(": "a"}),
        ValueError,
        r"`layout.names`: '\(' is no regular expression",
    ),
    "no such group": (lambda: cx.torch.layout({"a": r"\1"}), ValueError, r"`layout.names`: .* cannot replace 'a'"),
    "a pattern in bytes": (
        lambda: cx.torch.layout(axes={b"kernel": cx.torch.KERNELS}),
        ValueError,
        "`layout.axes`: a pattern must be a string, got b'kernel'",
    ),
    "no table": (lambda: cx.torch.layout("abc"), ValueError, "`layout.names` must be a table by regular expression"),
    "an axis is lost": (
        lambda: cx.torch.layout(axes={"kernel": "a b -> b"}),
        ValueError,
        "`layout.axes`: `kernel` must name the same axes on both sides of an arrow, each once",
    ),
    "words for as many axes": (
        lambda: cx.torch.layout(axes={"kernel": ("a b -> b a", "c d -> c d")}),
        ValueError,
        "'c d -> c d' is for as many axes as words before it",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake: str) -> None:
    """The entry, what came, and the remedy."""
    call, error, words = MISTAKES[mistake]
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value).__name__ in (error.__name__, "PlainKeyError")
    assert re.search(words, str(caught.value), flags=re.S), str(caught.value)


def test_a_file_that_does_not_match_changes_nothing() -> None:
    """Neither the parameters, nor the file, nor a state that is there."""
    saved = broken(lambda s: s["state"][1]["exp_avg"].fill_(math.nan))
    params = jax.tree.map(jnp.copy, PARAMS)
    state = cx.adam().init(params)
    kept = [x for entry in saved["state"].values() for x in entry.values()]
    before = [np.array(np.asarray(x)) for x in (*jax.tree.leaves((params, state)), *kept)]
    with pytest.raises(KeyError):
        cx.torch.load_state_dict(cx.adam(), params, saved, layout=FLAX)
    for a, b in zip((*jax.tree.leaves((params, state)), *kept), before, strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)


def test_what_is_written_shares_no_memory() -> None:
    """PyTorch's optimizers write in place: neither the state here nor a written file changes with theirs."""
    tx = cx.sgd(0.1, momentum=0.9)
    state, _ = load(tx, saved_by("SGD", lr=0.1, momentum=0.9), step=3)
    written = cx.torch.state_dict(tx, PARAMS, state, list(MODEL), layout=FLAX, as_tensor=torch.from_numpy)
    before = np.array(state.links["trace"]["trace"]["fc"]["bias"])
    written["state"][1]["momentum_buffer"].fill_(9.0)
    np.testing.assert_array_equal(state.links["trace"]["trace"]["fc"]["bias"], before)


def test_torch_is_not_imported() -> None:
    """By the module itself, nor by reading arrays; and ``import torch`` finds PyTorch."""
    code = """
import importlib.util, sys, numpy as np, chainax as cx, chainax.torch
kept = {"step": 3.0, "exp_avg": np.ones(2), "exp_avg_sq": np.ones(2)}
saved = {"state": {"w": kept}, "param_groups": [{"params": ["w"]}]}
state, _ = chainax.torch.load_state_dict(cx.adam(), {"w": np.ones(2, np.float32)}, saved)
chainax.torch.state_dict(cx.adam(), {"w": np.ones(2, np.float32)}, state, ["w"])
print("torch" in sys.modules)
print(importlib.util.find_spec("torch").origin == cx.torch.__file__)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "False\nFalse\n", result.stderr


# The page


def test_the_page_runs_as_written() -> None:
    """The section of docs/from_pytorch.md, from top to bottom; and the names in its text exist."""
    text = (DOCS / "from_pytorch.md").read_text(encoding="utf-8")
    section = text.partition("\n## Hand a run over\n")[2].partition("\n## ")[0]
    assert len(list(blocks(section))) == 5
    scope: dict[str, Any] = {}
    run(section, scope)
    assert scope["state"].step == 40
    assert scope["optimizer"].state_dict()["state"][0]["step"] == 60
    own = {name for language, code in blocks(section) if language == "python" for name in defined(code)}
    spans = set(re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", section, flags=re.S | re.M)))
    theirs = {"named_parameters", "foreach", "fused", "capturable", "differentiable", "maximize"}
    assert {span: wrong for span in spans - theirs if (wrong := missing(span.rstrip("="), own))} == {}
