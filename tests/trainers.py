"""What each process of `test_processes` runs: ``trainers.py TASK FOLDER PORT PROCESSES INDEX``."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.core.values.tree import flatten
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

DEVICES = 4
"""The number of devices of all processes together."""
STEPS, SAVED_EVERY, KILLED_AT = 50, 10, 25

Train = tuple[Any, Any, Any]
"""Parameters, state and the losses."""


class Combination(NamedTuple):
    """A chain, and how it is trained."""

    tx: Any
    spec: P
    """Of each parameter: replicated, or sharded (FSDP). The examples are always sharded."""
    kind: AxisType
    in_bits: bool = False
    """Whether the parameters are bfloat16, and the first matrix so large that its slots are stored in codes."""
    given: bool = False
    """Whether the gradients are handed in, rather than computed from the loss."""
    processes: tuple[int, ...] = (2, 4)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters."""
        width = 1024 if self.in_bits else 16
        return {"in": (8, width), "bias": (width,), "out": (width, 2)}

    @property
    def dtype(self) -> Any:
        """The dtype of the parameters."""
        return jnp.bfloat16 if self.in_bits else jnp.float32


REPLICATED, SHARDED, EXPLICIT, AUTO = P(), P("data"), AxisType.Explicit, AxisType.Auto
clipped_adamw = cx.chain(cx.clip_by_global_norm(0.5), cx.adamw(1e-2))
in_codes = cx.chain(
    cx.store(cx.scale_by_adam(), cx.companded8()),
    cx.add_decayed_weights(1e-2),
    cx.scale_by_lr(1e-2),
    cx.apply_update("stochastic"),
)
COMBINATIONS = {
    "replicated, clip and AdamW": Combination(clipped_adamw, REPLICATED, EXPLICIT),
    "sharded, clip and AdamW": Combination(clipped_adamw, SHARDED, EXPLICIT),
    "ZeRO-1, clip and AdamW": Combination(cx.zero1(clipped_adamw, over="data"), REPLICATED, EXPLICIT),
    "sharded, LAMB": Combination(cx.lamb(1e-2), SHARDED, AUTO),
    "sharded, Adafactor": Combination(cx.adafactor(1e-2, min_dim_size_to_factor=4), SHARDED, EXPLICIT, processes=(2,)),
    "sharded, codes, gradients given": Combination(in_codes, SHARDED, EXPLICIT, in_bits=True, given=True),
    "replicated, codes, gradients given": Combination(in_codes, REPLICATED, AUTO, True, True, processes=(2,)),
    "sharded, codes": Combination(in_codes, SHARDED, AUTO, in_bits=True, processes=(2,)),
}
RESUMED = "sharded, clip and AdamW"
"""The combination of which a process is killed."""


class Problem:
    """A regression by a network of two layers, on the devices of all processes or, without a mesh, on one."""

    def __init__(self, how: Combination, mesh: Mesh | None) -> None:
        self.how, self.mesh = how, mesh
        rng = np.random.default_rng(0)
        self.numbers = {name: rng.normal(size=shape) / shape[0] ** 0.5 for name, shape in how.shapes.items()}
        self.x, self.y = self.put(rng.normal(size=(16, 8)), SHARDED), self.put(10 * rng.normal(size=(16, 2)), SHARDED)

    def put(self, numbers: np.ndarray, spec: P, dtype: Any = jnp.float32) -> jax.Array:
        """Numbers that each process has."""
        if self.mesh is None:
            return jnp.array(numbers, dtype)
        where = NamedSharding(self.mesh, spec)
        return jax.make_array_from_callback(numbers.shape, where, lambda index: np.array(numbers[index], dtype))

    def params(self, numbers: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """The parameters."""
        return {name: self.put(numbers[name], self.how.spec, self.how.dtype) for name in self.how.shapes}

    def loss(self, params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        """The mean square of the error. Sharded parameters are gathered first."""
        p = {name: self.everywhere(x).astype(jnp.float32) for name, x in params.items()}
        hidden = jnp.tanh(x @ p["in"] + jnp.expand_dims(p["bias"], 0))
        return jnp.mean(jnp.square(hidden @ p["out"] - y))

    def everywhere(self, x: jax.Array) -> jax.Array:
        """The array on all devices."""
        if self.mesh is None:
            return x
        move = jax.sharding.reshard if self.how.kind == EXPLICIT else jax.lax.with_sharding_constraint
        return move(x, NamedSharding(self.mesh, P()))

    def gradients(self) -> Any:
        """Gradients for all steps, the same on any devices."""
        rng = np.random.default_rng(1)
        spec = P(None, *self.how.spec)
        drawn = {name: rng.normal(size=(STEPS, *shape)) for name, shape in self.how.shapes.items()}
        return {name: self.put(g, spec, self.how.dtype) for name, g in drawn.items()}

    def step(self, x: Any, y: Any, params: Any, state: Any, grads: Any = None) -> Train:
        """A step, and the loss before it."""
        loss, own = jax.value_and_grad(self.loss)(params, x, y)
        return *self.how.tx.step(params, state, own if grads is None else grads), loss

    def trained(self) -> Train:
        """All steps, compiled as one."""

        def run(x: Any, y: Any, params: Any, state: Any, grads: Any) -> Train:
            def step(carry: Any, grads: Any) -> tuple[Any, jax.Array]:
                params, state, loss = self.step(x, y, *carry, grads)
                return (params, state), loss

            (params, state), losses = jax.lax.scan(step, (params, state), grads, STEPS)
            return params, state, losses

        params = self.params(self.numbers)
        grads = self.gradients() if self.how.given else None
        return jax.jit(run)(self.x, self.y, params, self.how.tx.init(params), grads)


def arrays(how: Combination, params: Any, state: Any) -> dict[str, np.ndarray]:
    """Parameters and state as NumPy arrays, in every process."""
    whole = {
        name: np.asarray(multihost_utils.process_allgather(p, tiled=True), np.float32) for name, p in params.items()
    }
    return {f"params/{name}": x for name, x in whole.items()} | how.tx.state_dict(state)


def results(how: Combination, mesh: Mesh | None) -> dict[str, np.ndarray]:
    """What a combination has trained."""
    params, state, losses = Problem(how, mesh).trained()
    return {"losses": np.asarray(losses), **arrays(how, params, state)}


def train_all(folder: Path, mesh: Callable[[AxisType], Mesh], name: str) -> None:
    """Train all combinations, one file each."""
    for combination, how in COMBINATIONS.items():
        if jax.process_count() in how.processes:
            np.savez(folder / f"{combination}-{name}.npz", **results(how, mesh(how.kind)))


def stepwise(folder: Path, mesh: Mesh, first: int, killed: bool) -> dict[str, np.ndarray]:
    """Train from a checkpoint on, or from the beginning, and save checkpoints. One process may be killed."""
    how = COMBINATIONS[RESUMED]
    problem, file = Problem(how, mesh), folder / "checkpoint.npz"
    if first:
        with np.load(file, allow_pickle=False) as stored:
            saved = dict(stored)
        params = problem.params({name: saved.pop(f"params/{name}") for name in how.shapes})
        state, _ = how.tx.load_state_dict(params, saved)
        assert int(state.step) == first
    else:
        params = problem.params(problem.numbers)
        state = how.tx.init(params)
    step = jax.jit(problem.step, donate_argnums=(2, 3))
    for i in range(first, STEPS):
        if killed and i == KILLED_AT and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        params, state, loss = step(problem.x, problem.y, params, state)
        loss.block_until_ready()  # so that no process is ahead of the others by a step
        if (i + 1) % SAVED_EVERY == 0:
            saved = arrays(how, params, state)
            if jax.process_index() == 0:
                np.savez(folder / "unfinished.npz", **saved)
                (folder / "unfinished.npz").rename(file)
    return arrays(how, params, state)


def use_the_state(mesh: Mesh) -> None:
    """All that reads or makes a state outside ``jit``, where no process can read it all."""
    rate, shape = cx.linear_schedule(1.0, 0.0, 4), (8, 1024)
    tx = cx.chain(cx.store(cx.scale_by_adam(), cx.companded8()), cx.scale_by_lr(rate))
    where = NamedSharding(mesh, SHARDED)
    params = {"w": jax.make_array_from_callback(shape, where, lambda index: np.ones(shape, np.float32)[index])}
    state = tx.init(params)
    assert lies_as_derived(tx, params, state)
    assert not state.links["scale_by_adam"]["mu"]["w"]["companded8"].is_fully_addressable
    params, state = tx.step(params, state, params)
    assert "companded8': int8[8, 1024]" in repr(state)
    assert "2.03 bytes a parameter" in tx.describe(params)
    assert tx.hyperparams(state, params)["scale_by_lr"]["learning_rate"].item() == 0.75

    saved = tx.state_dict(state)
    for given in (saved, by_name(state)):
        loaded, report = tx.load_state_dict(params, given)
        assert {*report.matched} == {*by_name(state)}
        assert report == (report.matched, [], [], [])
        assert lies_as_derived(tx, params, loaded)
        jax.tree.map(same_shards, loaded, state)
    scale = "scale_by_adam/mu/w/scale"
    _, report = tx.load_state_dict(params, {**saved, scale: -saved[scale]}, strict=False)
    assert f"{scale} (scales below 0)" in report.mismatched
    _, report = tx.load_state_dict(params, {**saved, scale: np.inf * saved[scale]}, strict=False)
    assert f"{scale} (numbers that are not finite)" in report.mismatched

    after = tx.insert(cx.trace(0.9), after="scale_by_adam")
    adopted, report = after.adopt(params, state)
    assert report.missing == ["trace/trace/w"]
    assert adopted.born["trace/"].sharding.is_equivalent_to(state.step.sharding, 0)
    again, _ = after.load_state_dict(params, after.state_dict(adopted))
    jax.tree.map(same_shards, again, adopted)
    both = {**params, "new": params["w"] + 1}
    _, grown = cx.make_step(tx)(both, tx.add_param_group(both, state), jax.tree.map(jnp.ones_like, both))
    assert tx.state_dict(grown)["born/scale_by_adam/new"] == 1
    assert grown.step.item() == 2
    with pytest.raises(RuntimeError, match="donated to an earlier step"):
        tx.init(both)

    far = SingleDeviceSharding(jax.devices()[-1])
    if far.is_fully_addressable:
        return
    step = jax.make_array_from_single_device_arrays((), far, [], dtype=jnp.int32)
    with pytest.raises(ValueError, match="the array 'step' lies on devices of other processes only: call this in the"):
        tx.state_dict(state._replace(step=step))
    local = tx.abstract_state({"w": np.ones(shape, np.float32)})
    assert local.step.sharding.is_fully_addressable


def by_name(state: Any) -> dict[str, jax.Array]:
    """The arrays of a state of one chain, as they lie, by the names of `state_dict`."""
    found = {path: x for path, x in flatten(state).items() if x is not None}
    return {name.removeprefix("links/"): x for name, x in found.items()}


def lies_as_derived(tx: Any, params: Any, state: Any) -> bool:
    """Whether the state lies where `state_sharding` says."""
    same = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, tx.state_sharding(params))
    return all(jax.tree.leaves(same))


def same_shards(x: jax.Array, y: jax.Array) -> None:
    """Raise unless this process has the same numbers of both."""
    assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
    for ours, theirs in zip(x.addressable_shards, y.addressable_shards):
        np.testing.assert_array_equal(np.asarray(ours.data), np.asarray(theirs.data))


def main(task: str, folder: Path, port: str, processes: int, index: int) -> None:
    """Take part in a run of several processes."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, index, initialization_timeout=60)
    assert jax.device_count() == DEVICES

    def mesh(kind: AxisType) -> Mesh:
        return jax.make_mesh((DEVICES,), ("data",), axis_types=(kind,))

    train_all(folder, mesh, f"{processes}-{index}")
    if task == "killed":
        stepwise(folder, mesh(EXPLICIT), 0, killed=True)
    else:
        use_the_state(mesh(EXPLICIT))
        np.savez(folder / f"resumed-{index}.npz", **stepwise(folder, mesh(EXPLICIT), 20, killed=False))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
