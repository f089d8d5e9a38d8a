"""Parameter groups by path, groups that join in mid-training, and state that is stored and loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import chainax as cx
import chainax.extend as cxe
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import (
    STEPS,
    Case,
    Tree,
    assert_agree,
    check_run,
    distance,
    log,
    problem,
    run,
    run_torch,
    settings,
    torch_names,
    uniform,
)
from registry import quickly

# Groups by path

RATE = {"learning_rate": log(1e-3, 1e-2), "weight_decay": log(1e-3, 1e-1)}
ADAM = {**RATE, "b1": uniform(0.0, 0.99), "b2": uniform(0.5, 0.999), "eps": log(1e-10, 1e-3)}
GROUP = ["matrix", "scalar"]
REST = ["vector", "cube", "empty"]

CASES = {
    "sgd": Case(cx.sgd, "SGD", {**RATE, "momentum": uniform(0.05, 0.95), "dampening": uniform(0.0, 1.0)}),
    "adagrad": Case(cx.adagrad, "Adagrad", {**RATE, "eps": log(1e-10, 1e-3)}),
    "rmsprop": Case(cx.rmsprop, "RMSprop", {**RATE, "decay": uniform(0.5, 0.99), "momentum": uniform(0.05, 0.9)}),
    "adadelta": Case(cx.adadelta, "Adadelta", {**RATE, "rho": uniform(0.5, 0.99), "eps": log(1e-8, 1e-4)}),
    "adam": Case(cx.adam, "Adam", ADAM),
    "amsgrad": Case(cx.amsgrad, "Adam", ADAM, torch_static={"amsgrad": True}),
    "nadam": Case(cx.nadam, "NAdam", {**ADAM, "momentum_decay": log(1e-3, 1e-1)}),
    "adamw": Case(cx.adamw, "AdamW", ADAM),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_by_path_is_a_parameter_group(case: Case, x64: None) -> None:
    """Every field may differ by path, as it may by group in PyTorch."""
    pairs = zip(settings(case.ranges), settings(case.ranges, seed=1))
    for i, (group, rest) in enumerate(pairs):
        params, grads = problem(seed=i)
        groups = [(GROUP, torch_names(group)), (REST, torch_names(rest))]
        theirs = run_torch(case.torch, groups, params, grads, **case.torch_static)
        tx = case.chain(**{name: cx.by_path({"matrix|^scalar$": group[name]}, default=rest[name]) for name in group})
        check_run(tx, params, grads, theirs, constant_too=i == 0)


def test_a_group_may_have_a_schedule(x64: None) -> None:
    """A number for some paths and a schedule for the others; a rate of 0 freezes what it matches."""
    params, grads = problem(seed=0)
    falling = cx.linear_schedule(1e-2, 0.0, STEPS)
    ours = run(cx.adam(cx.by_path({"matrix": 1e-3, "cube": 0.0}, default=falling)), params, grads)
    fixed = run_torch("Adam", [(list(params), {})], params, grads, lr=1e-3)
    fell = run_torch("Adam", [(list(params), {})], params, grads, rate=lambda k: 1e-2 * (1 - k / STEPS))
    frozen = np.broadcast_to(params["cube"], (STEPS, 2, 3, 2))
    assert_agree(ours, {**fell, "matrix": fixed["matrix"], "cube": frozen}, 1e-9)


def test_an_initial_value_may_differ_by_path(x64: None) -> None:
    """Slots too may start as their group says, which PyTorch takes from the optimizer alone."""
    params, grads = problem(seed=0)
    ours = run(cx.adagrad(0.01, initial_accumulator_value=cx.by_path({"matrix": 0.5}, default=0.1)), params, grads)
    for names, start in ((["matrix"], 0.5), ([n for n in params if n != "matrix"], 0.1)):
        some = [{n: tree[n] for n in names} for tree in (params, grads)]
        theirs = run_torch("Adagrad", [(names, {})], *some, lr=0.01, initial_accumulator_value=start)
        assert_agree({n: ours[n] for n in names}, theirs, 1e-9)


# Groups that join

JOINS = {40: ["matrix", "scalar"], 70: ["cube"]}
LATE = {name: k for k, names in JOINS.items() for name in names}
JOINING = {
    "sgd": (CASES["sgd"], {"momentum": 0.9, "dampening": 0.5, "weight_decay": 1e-2}),
    "adam": (CASES["adam"], {"b1": 0.8, "b2": 0.99, "eps": 1e-6, "weight_decay": 1e-2}),
    "amsgrad": (CASES["amsgrad"], {"b1": 0.8, "b2": 0.99, "eps": 1e-6, "weight_decay": 1e-2}),
    "nadam": (CASES["nadam"], {"b1": 0.8, "b2": 0.99, "eps": 1e-6, "weight_decay": 1e-2, "momentum_decay": 0.05}),
    "adagrad": (CASES["adagrad"], {"lr_decay": 0.1, "eps": 1e-6, "weight_decay": 1e-2}),
}
FROZEN = {"None": lambda tree, k: {n: x if LATE.get(n, 0) <= k else None for n, x in tree.items()}}
FROZEN["missing"] = lambda tree, k: {n: x for n, x in tree.items() if LATE.get(n, 0) <= k}


@quickly
def train(tx: cx.chain, params: Tree, state: cx.State, grads: Tree) -> tuple[Tree, cx.State, Tree]:
    """Some steps from a state on: the parameters and state that they end with, and the trajectory."""

    def step(carry: tuple, g: Tree) -> tuple:
        p, state = tx.step(*carry, g)
        return (p, state), p

    (params, state), trajectory = jax.lax.scan(step, (params, state), grads)
    return params, state, trajectory


def grow(tx: cx.chain, params: Tree, grads: Tree, frozen: Callable) -> tuple[Tree, cx.State]:
    """The trajectory of a model whose layers join as `JOINS` says, and the last state."""
    trajectory: dict[str, list] = {n: [np.broadcast_to(p, (LATE.get(n, 0), *p.shape))] for n, p in params.items()}
    start = jax.tree.map(jnp.asarray, params)
    params = frozen(start, 0)
    state = tx.init(params)
    for begin, end in ((0, 40), (40, 70), (70, STEPS)):
        if begin in JOINS:
            params = frozen({**start, **{n: p for n, p in params.items() if p is not None}}, begin)
            state = joined(tx, params, state, JOINS[begin])
        some = frozen({n: g[begin:end] for n, g in grads.items()}, begin)
        params, state, points = train(tx, params, state, some)
        for n, p in points.items():
            trajectory[n] += [p] if p is not None else []
    return {n: np.concatenate(points) for n, points in trajectory.items()}, state


def joined(tx: cx.chain, params: Tree, state: cx.State, new: list[str]) -> cx.State:
    """`add_param_group`, with its promise checked: new slots are fresh, the others are untouched."""
    after, fresh = tx.add_param_group(params, state), tx.init(params)
    assert int(after.step) == int(state.step)
    for link, slots in after.links.items():
        for slot, tree in slots.items():
            for name, x in tree.items():
                source = fresh if name in new else state
                chex.assert_trees_all_equal(x, source.links[link][slot].get(name))
    return after


@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize(("case", "hyper"), JOINING.values(), ids=JOINING)
def test_a_group_that_joins_agrees_with_torch(case: Case, hyper: dict, frozen: Callable, x64: None) -> None:
    """Bias corrections and first steps begin anew for what joins; the learning rate's schedule counts on."""
    params, grads = problem(seed=0)
    first = [n for n in params if n not in LATE]
    given = torch_names(hyper) | case.torch_static
    theirs = run_torch(
        case.torch, [(first, {})], params, grads, rate=lambda k: 1e-2 * (1 - k / 200), joins=JOINS, **given
    )
    tx = case.chain(cx.linear_schedule(1e-2, 0.0, 200), **hyper)
    ours, state = grow(tx, params, grads, frozen)
    assert_agree(ours, theirs, 1e-9)
    assert {n.split("/", 1)[1]: int(k) for n, k in state.born.items()} == LATE


OWN_RATES = {
    "asgd": (
        cx.asgd(0.05, lambd=0.5, alpha=0.7, t0=10.0, weight_decay=1e-2),
        ("ASGD", {"lr": 0.05, "lambd": 0.5, "alpha": 0.7, "t0": 10.0, "weight_decay": 1e-2}),
    ),
    "asgd by path": (
        cx.asgd(cx.by_path({"matrix|vector": 0.05, "absent": 0.7}, default=0.05), lambd=0.5),
        ("ASGD", {"lr": 0.05, "lambd": 0.5}),
    ),
    "adafactor": (
        cx.adafactor(
            cx.own_steps(cx.inverse_sqrt_schedule(0.5, 4, 0.5, first_step=1)), min_dim_size_to_factor=1
        ).replace("scale_by_factored_rms", factored="last"),
        ("Adafactor", {"lr": 0.5, "eps": (1e-15, 1e-3)}),
    ),
}


@pytest.mark.filterwarnings("ignore:.*decides for no parameter")
@pytest.mark.parametrize(("tx", "theirs"), OWN_RATES.values(), ids=OWN_RATES)
def test_a_rate_that_the_optimizer_makes_counts_from_where_a_group_joins(
    tx: cx.chain, theirs: tuple, x64: None
) -> None:
    """Where PyTorch computes the rate of a parameter's own steps, so does the chain."""
    params, grads = ({n: x for n, x in tree.items() if n != "empty"} for tree in problem(seed=0))
    name, given = theirs
    first = [n for n in params if n not in LATE]
    expected = run_torch(name, [(first, {})], params, grads, joins=JOINS, **given)
    assert_agree(grow(tx, params, grads, FROZEN["missing"])[0], expected, 1e-9)


def test_means_of_a_group_that_joins_agree_with_torch(x64: None) -> None:
    """ASGD's mean, too, begins t₀ steps after a parameter has joined."""
    torch = pytest.importorskip("torch")
    tx = cx.asgd(0.05, lambd=0.5, t0=10.0)
    p, state = {}, tx.init({})
    leaves: dict[str, Any] = {}
    opt: Any = None
    rng = np.random.default_rng(0)
    for k in range(60):
        if k in (0, 25):
            name, start = "ab"[k > 0], rng.normal(size=3)
            p = {**p, name: jnp.asarray(start)}
            state = tx.add_param_group(p, state)
            leaves[name] = torch.nn.Parameter(torch.tensor(start))
            group = {"params": [leaves[name]]}
            if opt is None:
                opt = torch.optim.ASGD([group], lr=0.05, lambd=0.5, t0=10.0, foreach=False)
            else:
                opt.add_param_group(group)
        g = {n: rng.normal(size=3) for n in p}
        p, state = tx.step(p, state, jax.tree.map(jnp.asarray, g))
        for n, leaf in leaves.items():
            leaf.grad = torch.tensor(g[n])
        opt.step()
    means = cx.read_average(tx, p, state)
    for n, leaf in leaves.items():
        np.testing.assert_allclose(p[n], leaf.detach().numpy(), atol=1e-6)  # its rate is a float32 number
        np.testing.assert_allclose(means[n], opt.state[leaf]["ax"].numpy(), atol=1e-6)
        assert distance(means[n], p[n]) > 1e-3


def test_own_steps() -> None:
    """They nest in arithmetic and tables, count on for who was there, and end the pass before a norm."""
    rate = 0.5 * cx.own_steps(cx.linear_schedule(2.0, 1.0, 2)) + cx.linear_schedule(0.0, 4.0, 4)
    assert float(rate(3)) == 3.5
    one = jnp.ones(())
    for given, last in ((rate, 2.5), (cx.by_path({"a|b": rate}, default=1.0), 1.0)):
        tx = cx.chain(cx.trace(0.0), cx.scale(given), cx.clip_by_global_norm(4.0), cx.scale_by_lr(1.0))
        state = tx.init({"a": one, "c": one})
        for _ in range(2):
            _, state = tx.update({"a": one, "c": one}, state)
        three = dict.fromkeys("abc", one)
        updates, _ = tx.update(three, tx.add_param_group(three, state))
        expected = np.array([2.5, 3.0, last])
        expected *= -min(1, 4 / np.linalg.norm(expected))
        np.testing.assert_allclose([updates[n] for n in "abc"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"`own_steps\.schedule` must be a number"):
        cx.own_steps("x")


FACTORS = {
    "a table": (cx.by_path({"a": 10.0}, default=1.0), {"a": 10.0, "b": 1.0}),
    "a table of schedules": (cx.by_path({"a": cx.linear_schedule(4.0, 6.0, 2)}, default=0.5), {"a": 5.0, "b": 0.5}),
    "own steps": (cx.own_steps(cx.linear_schedule(2.0, 6.0, 2)), {"a": 4.0, "b": 2.0}),
    "a schedule": (cx.linear_schedule(2.0, 4.0, 2), {"a": 3.0, "b": 3.0}),
}


@pytest.mark.parametrize(("factor", "numbers"), FACTORS.values(), ids=FACTORS)
def test_a_norm_behind_a_factor_for_each_parameter(factor: Any, numbers: dict, x64: None) -> None:
    """It is that of the scaled updates, for a clip and for a guard, at the second step of one parameter and not all.

    The factor comes first, where one for all would need no pass of its own.
    """
    g = {"a": np.array([3.0, -4.0]), "b": np.array([[0.5], [2.0]])}
    u = {name: numbers[name] * x for name, x in g.items()}
    norm = np.sqrt(sum(np.sum(x**2) for x in u.values()))
    first, second = {"a": jnp.asarray(g["a"])}, jax.tree.map(jnp.asarray, g)

    def run(behind: cxe.Link) -> tuple[Tree, cx.State]:
        tx = cx.chain(cx.scale(factor), behind, cx.trace(0.0))
        _, state = tx.update(jax.tree.map(jnp.zeros_like, first), tx.init(first))
        return tx.update(second, tx.add_param_group(second, state))

    for bound in (0.9 * norm, 1.1 * norm):
        clipped, _ = run(cx.clip_by_global_norm(bound))
        for name, x in clipped.items():
            np.testing.assert_allclose(x, u[name] * min(1.0, bound / norm), rtol=1e-12)
        assert int(run(cx.skip_large_updates(bound))[1].step) == 1 + (norm <= bound)


@pytest.mark.parametrize(("case", "hyper"), JOINING.values(), ids=JOINING)
def test_a_group_that_joins_is_not_as_if_it_had_been_there(case: Case, hyper: dict, x64: None) -> None:
    """Without the step at which it was born a parameter would get other corrections."""
    params, grads = problem(seed=0)
    tx = case.chain(1e-2, **hyper)
    early, late = (FROZEN["missing"](jax.tree.map(jnp.asarray, params), k) for k in (0, 40))
    _, state, _ = train(tx, early, tx.init(early), {n: grads[n][:40] for n in early})
    state = tx.add_param_group(late, state)
    some = {n: grads[n][40:70] for n in late}
    young = train(tx, late, state, some)[2]
    old = train(tx, late, state._replace(born={}), some)[2]
    assert_agree({n: young[n] for n in early}, {n: old[n] for n in early}, 0.0)
    assert all(distance(young[n], old[n]) > 1e-4 for n in JOINS[40])


# Stored state

TX = cx.chain(cx.clip_by_global_norm(1.0), cx.scale_by_adam(), cx.add_decayed_weights(0.1), cx.scale_by_lr(1e-2))
STORED = {
    "adamw": TX,
    "sgd": cx.sgd(cx.cosine_decay_schedule(1e-2, 80), momentum=0.9, dampening=0.5),
    "nadam": cx.nadam(),
    "amsgrad": cx.amsgrad(weight_decay=0.1),
    "adadelta": cx.adadelta(),
    "rmsprop": cx.rmsprop(centered=True, momentum=0.9),
    "bert": cx.bert_adamw(1e-2, total_steps=80, warmup_steps=10, exclude="vector|scalar"),
}


def problem32() -> tuple[Tree, Tree]:
    """A problem as float32 arrays of JAX."""
    return jax.tree.map(jnp.float32, problem(seed=0))


def halfway(tx: cx.chain) -> tuple[Tree, cx.State, Tree]:
    """Parameters and state after half of the steps, and the gradients of the other half."""
    params, grads = problem32()
    params, state, _ = train(tx, params, tx.init(params), {n: g[:50] for n, g in grads.items()})
    return params, state, {n: g[50:] for n, g in grads.items()}


def names(tx: cx.chain, state: cx.State) -> list[str]:
    """The names of a state's arrays."""
    return [name for name in tx.state_dict(state) if name != "chainax"]


@pytest.mark.parametrize("tx", STORED.values(), ids=STORED)
def test_resuming_is_the_uninterrupted_run(tx: cx.chain, tmp_path: Path) -> None:
    """Bit for bit, through a file of NumPy arrays."""
    params, state, grads = halfway(tx)
    np.savez(tmp_path / "state.npz", **tx.state_dict(state))
    with np.load(tmp_path / "state.npz") as file:
        loaded, report = tx.load_state_dict(params, dict(file))
    assert report == (names(tx, state), [], [], [])
    chex.assert_trees_all_equal(loaded, state, strict=True)
    chex.assert_trees_all_equal(train(tx, params, loaded, grads), train(tx, params, state, grads))


def test_a_lone_array_is_loaded_whole() -> None:
    """Its path is empty: it did not join, and counts from the beginning."""
    tx, p = cx.adam(0.1), jnp.ones(3)
    _, state = tx.step(p, tx.init(p), p)
    loaded, report = tx.load_state_dict(p, tx.state_dict(state))
    chex.assert_trees_all_equal(loaded, state, strict=True)
    assert report.matched == names(tx, state)
    assert tx.load_state_dict(p, tx.state_dict(loaded))[0].born == {}


def test_a_link_without_arrays_has_no_birth() -> None:
    """Its entry of the state is empty, and empty it comes back."""
    tx, p = cx.chain(cx.from_optax(optax.masked(optax.identity(), {"w": True})), cx.sgd(0.1)), {"w": jnp.ones(3)}
    frozen = cx.partition(cx.by_path({".*": cx.freeze()}))
    for one in (tx, frozen):
        state = one.step(p, one.init(p), p)[1]
        chex.assert_trees_all_equal(one.load_state_dict(p, one.state_dict(state))[0], state, strict=True)


WRAPPED = {
    "coded": (lambda tx: cx.store(tx, cx.int8(min_size=0)), lambda state: state),
    "accumulate": (lambda tx: cx.accumulate(tx, 1), lambda state: state.links["accumulate"]["tx"]),
    "partition": (
        lambda tx: cx.partition(cx.by_path({"old|new": tx})),
        lambda state: state.links["partition"]["old|new"],
    ),
    "wrapped twice": (
        lambda tx: cx.accumulate(cx.chain(cx.restart(tx, 100.0)), 1),
        lambda state: state.links["accumulate"]["tx"].links["restart"]["tx"],
    ),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_parameter_joins_wherever_its_slots_are(kind: str, x64: None) -> None:
    """In codes, in wrappers and in wrappers of wrappers: its first step is Adam's first, and loads as it was saved."""
    wrap, inner = WRAPPED[kind]
    tx, g = wrap(cx.adam(0.1)), jnp.linspace(0.5, 1.0, 256)
    params = {"old": jnp.ones(256)}
    state = tx.init(params)
    for _ in range(5):
        params, state = tx.step(params, state, {"old": g})
    params = {**params, "new": jnp.ones(256)}
    state = tx.add_param_group(params, state)
    assert inner(state).born == {"scale_by_adam/new": 5}
    params, state = cx.make_step(tx)(params, state, {"old": g, "new": g})
    np.testing.assert_allclose(params["new"], 0.9, rtol=1e-2 if kind == "coded" else 1e-6)
    loaded, report = tx.load_state_dict(params, tx.state_dict(state))
    chex.assert_trees_all_equal(loaded, state, strict=True)
    assert not report.unexpected


def test_a_whole_tree_link_that_joins_counts_from_there() -> None:
    """Its first step is the first: MoMo takes the loss whole then."""
    tx, p = cx.chain(cx.scale_by_momo(0.1), cx.scale_by_lr(1.0)), {"w": jnp.ones(3)}
    begun = cx.chain(cx.scale_by_lr(1.0))
    late = begun.init(p)._replace(step=jnp.array(1000))
    state, _ = tx.adopt(p, late)
    assert state.born == {"scale_by_momo/": 1000}
    args = {"w": jnp.array([0.5, 1.0, 2.0])}
    chex.assert_trees_all_close(
        tx.step(p, state, args, value=2.0)[0], tx.step(p, tx.init(p), args, value=2.0)[0], rtol=1e-6
    )


def test_resuming_remembers_who_joined(x64: None) -> None:
    """The step of birth is part of what is stored."""
    params, grads = problem(seed=0)
    tx = cx.adam(1e-2)
    _, state = grow(tx, params, grads, FROZEN["missing"])
    params = jax.tree.map(jnp.asarray, params)
    loaded, _ = tx.load_state_dict(params, tx.state_dict(state))
    chex.assert_trees_all_equal(loaded, state, strict=True)
    assert {n.split("/", 1)[1]: int(k) for n, k in loaded.born.items()} == LATE


def test_a_strict_load_names_what_does_not_match() -> None:
    """Missing, unexpected and mismatched arrays all stand in the message."""
    params, state, _ = halfway(TX)
    arrays = TX.state_dict(state)
    arrays["other/mu/matrix"] = arrays.pop("scale_by_adam/mu/matrix")
    arrays["scale_by_adam/nu/vector"] = np.zeros(6)
    with pytest.raises(KeyError) as error:
        TX.load_state_dict(params, arrays)
    for line in (
        "missing: scale_by_adam/mu/matrix",
        "unexpected: other/mu/matrix",
        "mismatched: scale_by_adam/nu/vector (float64[6] for float32[5])",
    ):
        assert any(found.startswith(line) for found in str(error.value).splitlines())
    loaded, report = TX.load_state_dict(params, arrays, strict=False)
    assert (report.missing, report.unexpected) == (["scale_by_adam/mu/matrix"], ["other/mu/matrix"])
    for path in ("matrix", "vector"):  # a mean without its mean square, and a mean square without its mean
        assert not any(np.any(loaded.links["scale_by_adam"][slot][path]) for slot in ("mu", "nu"))
        assert int(loaded.born[f"scale_by_adam/{path}"]) == 50
    assert not any(np.shares_memory(x, y) for x in jax.tree.leaves(loaded) for y in arrays.values())
    chex.assert_trees_all_equal(loaded.links["scale_by_adam"]["nu"]["cube"], arrays["scale_by_adam/nu/cube"])


def slots(*names: str) -> list[str]:
    """The names of the arrays of these slots."""
    return [f"{name}/{path}" for name in names for path in ("cube", "empty", "matrix", "scalar", "vector")]


MOMENTS = slots("scale_by_adam/mu", "scale_by_adam/nu")
NAMED = TX.rename(scale_by_adam="precondition")
EDITS = {
    "swapped": (TX, TX.move("add_decayed_weights", before="scale_by_adam"), ["step", *MOMENTS], [], []),
    "scheduled": (
        TX,
        TX.replace("scale_by_lr", learning_rate=cx.linear_schedule(1e-2, 0, 9)),
        ["step", *MOMENTS],
        [],
        [],
    ),
    "stateless inserted": (TX, TX.insert(cx.clip(1.0), before="scale_by_adam"), ["step", *MOMENTS], [], []),
    "stateful inserted": (
        TX,
        TX.insert(cx.trace(0.9), after="scale_by_adam"),
        ["step", *MOMENTS],
        slots("trace/trace"),
        [],
    ),
    "removed": (TX, TX.remove("scale_by_adam"), ["step"], [], MOMENTS),
    "replaced": (
        NAMED,
        NAMED.replace("precondition", cx.scale_by_amsgrad()),
        ["step", *slots("precondition/mu", "precondition/nu")],
        slots("precondition/nu_max"),
        [],
    ),
}


@pytest.mark.parametrize(("before", "after", "matched", "missing", "unexpected"), EDITS.values(), ids=EDITS)
def test_an_edited_chain_keeps_what_it_can(
    before: cx.chain, after: cx.chain, matched: list, missing: list, unexpected: list
) -> None:
    """The report says what was kept, what begins anew and what was left out, and the state is that."""
    params, state, grads = halfway(before)
    first = {n: g[0] for n, g in grads.items()}
    loaded, report = after.load_state_dict(params, before.state_dict(state), strict=False)
    assert [sorted(names) for names in report] == [sorted(matched), sorted(missing), sorted(unexpected), []]
    old, new, fresh = before.state_dict(state), after.state_dict(loaded), after.state_dict(after.init(params))
    births = [name for name in new if name.startswith("born/")]  # of links whose slots all begin here
    links = [{name.split("/")[0] for name in names} for names in (missing, matched)]
    assert {name.split("/")[1] for name in births} == links[0] - links[1]
    assert sorted(new) == sorted(["chainax", *matched, *missing, *births])
    chex.assert_trees_all_equal({n: new[n] for n in matched}, {n: old[n] for n in matched})
    first_values = {n: new[n.replace("nu_max", "nu")] if "nu_max" in n else fresh[n] for n in missing}
    chex.assert_trees_all_equal({n: new[n] for n in missing}, first_values)
    chex.assert_trees_all_equal((loaded, report), after.adopt(params, state))
    chex.assert_trees_all_equal_shapes(jax.eval_shape(after.step, params, loaded, first), (params, loaded))
    if missing or unexpected:
        with pytest.raises(KeyError, match=(missing + unexpected)[0]):
            after.load_state_dict(params, before.state_dict(state))
    else:
        after.load_state_dict(params, before.state_dict(state))
