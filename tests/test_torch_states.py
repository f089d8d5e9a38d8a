"""Runs that are handed over, from PyTorch to chainax and back: parameters, optimizers and their states."""

from collections.abc import Callable, Iterator
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_reference import torch_iterations
from reference import log, settings, uniform
from registry import quickly
from torch_files import FLAX

torch = pytest.importorskip("torch")

SHAPES = {"conv.weight": (4, 3, 2, 2), "fc.weight": (5, 4), "fc.bias": (5,), "embed.weight": (6, 3)}
GROUPS = [["conv.weight", "fc.weight"], ["fc.bias", "embed.weight"]]
HALF = 20

RANGES = {"lr": log(1e-3, 3e-2), "weight_decay": log(1e-3, 1e-1), "eps": log(1e-9, 1e-3)}
BETAS = {**RANGES, "b1": uniform(0.5, 0.95), "b2": uniform(0.8, 0.999)}
SGD = {"lr": log(1e-3, 1e-1), "weight_decay": log(1e-3, 1e-1)}
MOMENTUM = {**SGD, "momentum": uniform(0.3, 0.95)}
OPTIMIZERS: dict[str, tuple[str, dict, dict]] = {
    "Adam": ("Adam", BETAS, {}),
    "AMSGrad": ("Adam", BETAS, {"amsgrad": True}),
    "AMSGradW": ("AdamW", BETAS, {"amsgrad": True}),
    "AdamW": ("AdamW", BETAS, {}),
    "plain SGD": ("SGD", SGD, {}),
    "SGD": ("SGD", {**MOMENTUM, "dampening": uniform(0.0, 0.9)}, {}),
    "Nesterov": ("SGD", MOMENTUM, {"nesterov": True}),
    "climbing": ("SGD", MOMENTUM, {"maximize": True}),
    "RMSprop": ("RMSprop", {**RANGES, "alpha": uniform(0.8, 0.99)}, {}),
    "RMSprop with everything": (
        "RMSprop",
        {**RANGES, "alpha": uniform(0.8, 0.99), "momentum": uniform(0.3, 0.9)},
        {"centered": True},
    ),
    "Adagrad": ("Adagrad", RANGES, {"initial_accumulator_value": 0.1}),
    "Adagrad with decay": ("Adagrad", RANGES, {"lr_decay": 0.05}),
    "Adadelta": ("Adadelta", {**RANGES, "lr": log(0.1, 1.0), "eps": log(1e-6, 1e-2), "rho": uniform(0.8, 0.99)}, {}),
    "NAdam": ("NAdam", {**BETAS, "momentum_decay": log(1e-3, 1e-2)}, {}),
    "NAdamW": ("NAdam", BETAS, {"decoupled_weight_decay": True}),
    "RAdam": ("RAdam", BETAS, {}),
    "RAdamW": ("RAdam", BETAS, {"decoupled_weight_decay": True}),
    "Adamax": ("Adamax", BETAS, {}),
    "Muon": ("Muon", {**MOMENTUM, "eps": log(1e-9, 1e-6)}, {}),
    "Muon as Moonshot's": (
        "Muon",
        {**MOMENTUM, "eps": log(1e-9, 1e-6)},
        {"adjust_lr_fn": "match_rms_adamw", "nesterov": False, "ns_steps": 4, "ns_coefficients": (3.0, -4.0, 2.0)},
    ),
}
"""Class, ranges of the settings of each group, and flags of all."""


@pytest.fixture
def double(x64: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Double precision in both libraries; NAdam's running product has PyTorch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", iterated)
    yield
    torch.set_default_dtype(before)


def iterated(matrix: Any, coefficients: tuple, steps: int, eps: float) -> Any:
    """Newton–Schulz iterations in double precision; ε is added to the norm."""
    return torch_iterations(eps, (coefficients,) * steps)(matrix)


class Problem:
    """A loss whose gradient at step k is a(θ − θ*) + noise of that step, for both libraries."""

    def __init__(self, seed: int, shapes: dict[str, tuple] = SHAPES, groups: list[list[str]] = GROUPS) -> None:
        rng, dtype = np.random.default_rng(seed), jax.dtypes.canonicalize_dtype(np.float64)
        self.groups = groups
        self.names = [name for group in groups for name in group]
        self.start, self.target, self.noise = (
            {name: rng.normal(size=(*more, *shapes[name])).astype(dtype) for name in self.names}
            for more in ((), (), (2 * HALF,))
        )
        paths = [FLAX.path(name) for name in self.names]
        tree: dict[str, dict] = {}
        for name, path in zip(self.names, paths):
            module, leaf = path.split("/")
            tree.setdefault(module, {})[leaf] = jnp.zeros(FLAX.forward(path, self.start[name]).shape)
        self.tree = tree

    def here(self, arrays: dict[str, Any]) -> Any:
        """The arrays as a tree of chainax's side."""
        return cx.torch.load_params(self.tree, arrays, layout=FLAX)

    def there(self, params: Any) -> dict[str, np.ndarray]:
        """The inverse."""
        return cx.torch.params_dict(params, self.names, layout=FLAX)

    def torch(self, new: Callable[[list], Any], params: dict, steps: range, state: Any = None) -> tuple[dict, Any]:
        """The parameters after some steps of PyTorch's optimizer, and the optimizer."""
        leaves = {name: torch.nn.Parameter(torch.from_numpy(np.array(x))) for name, x in params.items()}
        optimizer = new([[(name, leaves[name]) for name in group] for group in self.groups])
        if state is not None:
            optimizer.load_state_dict(state)
        for k in steps:
            for name, p in leaves.items():
                p.grad = 0.3 * (p.detach() - torch.from_numpy(self.target[name])) + torch.from_numpy(
                    self.noise[name][k]
                )
            optimizer.step()
        return {name: p.detach().numpy().copy() for name, p in leaves.items()}, optimizer

    def chainax(self, tx: cx.chain, params: Any, state: Any, steps: range) -> tuple[Any, Any]:
        """The parameters and the state after some steps of a chain."""
        paths = {FLAX.path(name): name for name in self.names}
        noise = by_leaf_path(
            params, lambda path: np.stack([FLAX.forward(path, self.noise[paths[path]][k]) for k in steps])
        )
        target = by_leaf_path(params, lambda path: FLAX.forward(path, self.target[paths[path]]))
        return run(tx, params, state, target, noise)


def by_leaf_path(tree: Any, of: Callable[[str], np.ndarray]) -> Any:
    """A tree of what ``of`` returns for the path of each leaf."""
    return jax.tree.map_with_path(lambda path, _: of(jax.tree_util.keystr(path, simple=True, separator="/")), tree)


@quickly
def run(tx: cx.chain, params: Any, state: Any, target: Any, noise: Any) -> tuple[Any, Any]:
    """The chain is an argument, so that all its settings share a compilation."""

    def step(carry: tuple, e: Any) -> tuple:
        p, s = carry
        return tx.step(p, s, jax.tree.map(lambda p, t, e: 0.3 * (p - t) + e, p, target, e)), None

    return jax.lax.scan(step, (params, state), noise)[0]


def torch_settings(hyper: dict[str, float]) -> dict[str, Any]:
    """Settings by PyTorch's names."""
    own = {key: x for key, x in hyper.items() if key not in ("b1", "b2")}
    return {**own, "betas": (hyper["b1"], hyper["b2"])} if "b1" in hyper else own


def optimizer_of(name: str, seed: int) -> Callable[[list], Any]:
    """What makes the optimizer, with other settings for each group."""
    cls, ranges, flags = OPTIMIZERS[name]
    drawn = [torch_settings(hyper) for hyper in settings(ranges, 2, seed)]

    def new(groups: list) -> Any:
        return getattr(torch.optim, cls)([{"params": g, **own} for g, own in zip(groups, drawn)], **drawn[0], **flags)

    return new


def problem_of(name: str, seed: int) -> Problem:
    """Muon is for matrices."""
    if OPTIMIZERS[name][0] != "Muon":
        return Problem(seed)
    return Problem(seed, {"fc.weight": (5, 4), "out.weight": (3, 6)}, [["fc.weight"], ["out.weight"]])


def wide(tx: cx.chain) -> cx.chain:
    """Muon with its iterations in double precision, as those of the reference."""
    return tx.replace("scale_by_muon", dtype=None) if "scale_by_muon" in tx.names else tx


def assert_near(a: dict, b: dict, atol: float = 1e-9) -> None:
    """Nowhere farther apart than this."""
    for name in b:
        np.testing.assert_allclose(a[name], b[name], atol=atol, rtol=0, err_msg=name)


def hand_over(name: str, seed: int, atol: float) -> None:
    """Half by PyTorch and half by chainax, and the other way, is the run of PyTorch."""
    problem, new, cls = problem_of(name, seed), optimizer_of(name, seed), OPTIMIZERS[name][0]
    whole, _ = problem.torch(new, problem.start, range(2 * HALF))
    half, optimizer = problem.torch(new, problem.start, range(HALF))
    saved = optimizer.state_dict()
    assert all(np.abs(whole[n] - half[n]).max() > 1e-4 for n in whole)
    # from PyTorch
    params = problem.here(half)
    made = cx.torch.from_optimizer(cls, params, saved, layout=FLAX)
    tx = wide(made)
    step = None if any("step" in kept for kept in saved["state"].values()) else HALF
    state, report = cx.torch.load_state_dict(tx, params, saved, layout=FLAX, step=step)
    assert not any(report[1:])
    moved, after = problem.chainax(tx, params, state, range(HALF, 2 * HALF))
    assert after.step == 2 * HALF
    assert_near(problem.there(moved), whole, atol)
    # to PyTorch
    params, state = problem.chainax(tx, problem.here(problem.start), tx.init(params), range(HALF))
    written = cx.torch.state_dict(made, params, state, problem.groups, layout=FLAX, as_tensor=torch.from_numpy)
    moved, _ = problem.torch(new, problem.there(params), range(HALF, 2 * HALF), written)
    assert_near(moved, whole, atol)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_is_handed_over(name: str, double: None) -> None:
    """At random settings, which differ by group."""
    for seed in range(2):
        hand_over(name, seed, 1e-9)


@pytest.mark.parametrize("name", ("AdamW", "SGD", "RMSprop with everything"))
def test_a_run_in_single_precision_is_handed_over(name: str) -> None:
    """Within 1e-6, which is some ten units in the last place."""
    hand_over(name, 0, 1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_comes_back_bit_by_bit(name: str) -> None:
    """From PyTorch, to it, and again: every array, every hyperparameter, and nothing else. In single precision."""
    problem, new = problem_of(name, 7), optimizer_of(name, 7)
    half, optimizer = problem.torch(new, problem.start, range(HALF))
    saved, params = optimizer.state_dict(), problem.here(half)
    tx = cx.torch.from_optimizer(OPTIMIZERS[name][0], params, saved, layout=FLAX)
    state, _ = cx.torch.load_state_dict(tx, params, saved, layout=FLAX, step=HALF)
    written = cx.torch.state_dict(tx, params, state, problem.groups, layout=FLAX)
    assert written["state"].keys() == saved["state"].keys()
    for key, kept in saved["state"].items():
        kept = {entry: x for entry, x in kept.items() if x is not None}
        assert written["state"][key].keys() == kept.keys()
        for entry, x in kept.items():
            np.testing.assert_array_equal(written["state"][key][entry], x.numpy())
            assert written["state"][key][entry].dtype == x.numpy().dtype
    assert len(written["param_groups"]) == 2
    for ours, theirs in zip(written["param_groups"], saved["param_groups"]):
        assert ours.keys() == theirs.keys()
        for key in theirs.keys() - {"foreach", "fused"}:
            assert np.asarray(ours[key] == theirs[key]).all() or key == "adjust_lr_fn", key
    again, _ = cx.torch.load_state_dict(tx, params, written, layout=FLAX, step=HALF)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"plain SGD"}))
def test_every_entry_is_needed_and_checked(name: str) -> None:
    """Without any one of them, or with another shape in its place, the error names it."""
    problem, new = problem_of(name, 8), optimizer_of(name, 8)
    half, optimizer = problem.torch(new, problem.start, range(2))
    saved, params = optimizer.state_dict(), problem.here(half)
    tx = cx.torch.from_optimizer(OPTIMIZERS[name][0], params, saved, layout=FLAX)
    for i, parameter in enumerate(problem.names):
        assert saved["state"][i]
        for entry in saved["state"][i]:
            own = {key: x for key, x in saved["state"][i].items() if key != entry}
            for changed, kind in ((own, "missing"), ({**own, entry: torch.ones(3, 1)}, "mismatched")):
                file = {**saved, "state": {**saved["state"], i: changed}}
                with pytest.raises(KeyError, match=f"\n{kind}: {parameter}: {entry}"):
                    cx.torch.load_state_dict(tx, params, file, layout=FLAX, step=HALF)


# Runs that are not plain


def test_two_optimizers_share_the_parameters(double: None) -> None:
    """Muon and AdamW, one chain here; each gets its own state back."""
    shapes = {"fc.weight": (5, 4), "out.weight": (3, 6), "fc.bias": (5,)}
    problem = Problem(0, shapes, [["fc.weight", "out.weight"], ["fc.bias"]])

    class Both:
        """What the loop of a user does."""

        def __init__(self, groups: list) -> None:
            self.all = torch.optim.Muon(groups[0], lr=0.02), torch.optim.AdamW(groups[1], lr=0.01, weight_decay=0.1)

        def step(self) -> None:
            for one in self.all:
                one.step()

        def state_dict(self) -> list:
            return [one.state_dict() for one in self.all]

        def load_state_dict(self, states: list) -> None:
            for one, state in zip(self.all, states):
                one.load_state_dict(state)

    whole, _ = problem.torch(Both, problem.start, range(2 * HALF))
    half, both = problem.torch(Both, problem.start, range(HALF))
    params, saved = problem.here(half), both.state_dict()
    made = cx.torch.from_optimizer(["Muon", "AdamW"], params, saved, layout=FLAX)
    muon = cx.muon(0.02, adam=cx.by_path({"bias": cx.adamw(0.01, weight_decay=0.1)}))
    for tx in (muon, exact(made)):
        state, report = cx.torch.load_state_dict(tx, params, saved, layout=FLAX)
        assert not any(report[1:])
        assert state.step == HALF  # AdamW says it for both
        moved, _ = problem.chainax(tx, params, state, range(HALF, 2 * HALF))
        assert_near(problem.there(moved), whole)
        start = problem.here(problem.start)
        params, state = problem.chainax(tx, start, tx.init(start), range(HALF))
        written = [
            cx.torch.state_dict(tx, params, state, group, layout=FLAX, as_tensor=torch.from_numpy)
            for group in problem.groups
        ]
        moved, _ = problem.torch(Both, problem.there(params), range(HALF, 2 * HALF), written)
        assert_near(moved, whole)
        with pytest.raises(ValueError, match="has parameters of Adam and Muon: make a state of each on its own"):
            cx.torch.state_dict(tx, params, state, problem.names, layout=FLAX)
        params = problem.here(half)


def exact(tx: cx.chain) -> cx.chain:
    """A partition whose Muon has its iterations in double precision."""
    return cx.chain(cx.partition(tx["partition"].table.map(lambda _, one: wide(one))))


@pytest.mark.parametrize("name", ("SGD", "Adagrad with decay", "NAdam"))
def test_parameters_that_joined_later(name: str, double: None) -> None:
    """A group that PyTorch has added in the middle counts its own steps, here and there."""
    problem, new = Problem(3), optimizer_of(name, 3)
    cls = OPTIMIZERS[name][0]
    quarter, late = HALF // 2, problem.groups[1]

    def torch_run(steps: range, params: dict, state: Any = None) -> tuple[dict, Any]:
        leaves = {n: torch.nn.Parameter(torch.from_numpy(np.array(x))) for n, x in params.items()}
        optimizer = new([[(n, leaves[n]) for n in group] for group in problem.groups])
        added: dict[str, Any] = {}
        if state is None:
            added = optimizer.param_groups.pop()
            for p in added["params"]:
                optimizer.state.pop(p, None)
        else:
            optimizer.load_state_dict(state)
        for k in steps:
            if k == quarter:
                optimizer.add_param_group({**added, "params": [(n, leaves[n]) for n in late]})
            for n, p in leaves.items():
                p.grad = 0.3 * (p.detach() - torch.from_numpy(problem.target[n])) + torch.from_numpy(
                    problem.noise[n][k]
                )
            optimizer.step()
        return {n: p.detach().numpy().copy() for n, p in leaves.items()}, optimizer

    whole, _ = torch_run(range(2 * HALF), problem.start)
    half, optimizer = torch_run(range(HALF), problem.start)
    params, saved = problem.here(half), optimizer.state_dict()
    tx = cx.torch.from_optimizer(cls, params, saved, layout=FLAX)
    state, _ = cx.torch.load_state_dict(tx, params, saved, layout=FLAX, step=HALF)
    if name != "SGD":  # which does not say when
        assert {int(k) for k in state.born.values()} == {quarter}
    moved, _ = problem.chainax(tx, params, state, range(HALF, 2 * HALF))
    assert_near(problem.there(moved), whole)
    written = cx.torch.state_dict(tx, params, state, problem.groups, layout=FLAX, as_tensor=torch.from_numpy)
    for key, kept in saved["state"].items():
        for entry, x in kept.items():
            assert torch.equal(written["state"][key][entry], x.to(written["state"][key][entry].dtype))
    moved, _ = torch_run(range(HALF, 2 * HALF), half, written)
    assert_near(moved, whole)
