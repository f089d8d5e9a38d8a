"""States in Orbax checkpoints: saved at once and in the background, restored on other devices and in edited chains."""

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import chainax as cx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from orbax.checkpoint import v1
from registry import quickly

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:Sharding info not provided"),  # of restoring without a target
]

KINDS = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}
SPECS = {"w": P("data", "model"), "bias": P("model"), "embed": P(None, "model")}
SHAPES = {"w": (64, 128), "bias": (128,), "embed": (16, 8)}


def problem(seed: int) -> dict[str, Any]:
    """Parameters or gradients, on one device."""
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}


def mesh_of(shape: tuple[int, int], kind: AxisType = AxisType.Explicit) -> jax.sharding.Mesh:
    """A mesh of the first devices."""
    count = shape[0] * shape[1]
    return jax.make_mesh(shape, ("data", "model"), axis_types=(kind, kind), devices=jax.devices()[:count])


def on(mesh: jax.sharding.Mesh, tree: dict[str, Any]) -> dict[str, jax.Array]:
    """The tree on the mesh."""
    return {name: jax.device_put(x, NamedSharding(mesh, SPECS[name])) for name, x in tree.items()}


def shapes_of(tree: Any) -> Any:
    """The tree with shapes, dtypes and shardings in place of arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def assert_same_bits(got: Any, want: Any) -> None:
    """One structure, and the same bytes in each array."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want)):
        assert (x.dtype, x.shape) == (y.dtype, y.shape), path
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), path


def assert_placed(got: Any, where: Any) -> None:
    """Each array lies on the devices of its sharding, as the sharding says."""
    is_there = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), got, where)
    assert all(jax.tree.leaves(is_there)), is_there


def save(path: Path, tree: Any) -> None:
    """Write a checkpoint."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def restore(path: Path, target: Any) -> Any:
    """Read a checkpoint into the target's structure, dtypes and shardings."""
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, target)


def restore_bare(path: Path) -> Any:
    """Read a checkpoint as NumPy arrays in dicts and lists, whatever devices it was saved from."""
    with ocp.StandardCheckpointer() as checkpointer:
        stored: Any = checkpointer.metadata(path).item_metadata
        return checkpointer.restore(path, jax.tree.map(lambda x: np.empty(x.shape, x.dtype), stored.tree))


def restore_as_saved(path: Path) -> Any:
    """Read a checkpoint as arrays on the devices that it was saved from, in dicts and lists."""
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path)


CHAINS = {
    "clip and AdamW": cx.chain(cx.clip_by_global_norm(1.0), cx.adamw(0.1)),
    "partition": cx.chain(
        cx.partition(
            cx.by_path(
                {
                    "^w": cx.store(cx.adamw(0.1), cx.int8()),
                    "bias": cx.accumulate(cx.sgd(0.1, momentum=0.9), 4),
                },
                default=cx.adafactor(0.1, min_dim_size_to_factor=8),
            )
        ),
        cx.ema_params(0.9),
    ),
}
every_chain = pytest.mark.parametrize("tx", CHAINS.values(), ids=CHAINS)


def trained(tx: Any, p: Any, state: Any, seeds: range, place: Callable = lambda x: x) -> tuple[Any, Any]:
    """Parameters and state after a step for each seed."""
    step = quickly(tx.step)
    for seed in seeds:
        p, state = step(p, state, place(problem(seed)))
    return p, state


# Saving


def saved_by_standard(path: Path, tree: Any) -> Callable[[], Any]:
    """By Orbax's checkpointer, in the background."""
    checkpointer = ocp.StandardCheckpointer()
    checkpointer.save(path, tree)
    return checkpointer.close


def saved_at_once(path: Path, tree: Any) -> Callable[[], Any]:
    """By Orbax's checkpointer without a thread."""
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(path, args=ocp.args.StandardSave(tree))
    return lambda: None


def saved_by_v1(path: Path, tree: Any) -> Callable[[], Any]:
    """By the functions of Orbax's next interface, at once."""
    v1.save(path, tree)
    return lambda: None


def saved_by_v1_async(path: Path, tree: Any) -> Callable[[], Any]:
    """By the functions of Orbax's next interface, in the background."""
    return v1.save_async(path, tree).result


@pytest.mark.parametrize("saver", (saved_by_standard, saved_at_once, saved_by_v1, saved_by_v1_async))
@every_chain
def test_a_run_goes_on_bit_for_bit(tx: Any, saver: Callable, tmp_path: Path) -> None:
    """From parameters and state that were saved while the next step reused their memory."""
    mesh = mesh_of((4, 2))
    p = on(mesh, problem(0))
    step = cx.make_step(tx)
    with jax.set_mesh(mesh):
        state = tx.init(p)
        for seed in (1, 2):
            p, state = step(p, state, on(mesh, problem(seed)))
        target = {"params": shapes_of(p), "state": tx.abstract_state(p)}
        finish = saver(tmp_path / "run", {"params": p, "state": state})
        for seed in (3, 4):
            p, state = step(p, state, on(mesh, problem(seed)))
        finish()
        is_next = saver in (saved_by_v1, saved_by_v1_async)
        got = (v1.load if is_next else restore)(tmp_path / "run", target)
        assert_placed(got["state"], tx.state_sharding(p))
        assert int(got["state"].step) == 2
        again, after = got["params"], got["state"]
        for seed in (3, 4):
            again, after = step(again, after, on(mesh, problem(seed)))
    assert_same_bits((again, after), (p, state))


# Other devices


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    ("name", "shape"),
    (*((name, shape) for name in CHAINS for shape in ((2, 4), (2, 2))), ("clip and AdamW", (1, 1))),
    ids=str,
)
def test_on_another_mesh(name: str, shape: tuple[int, int], kind: AxisType, tmp_path: Path) -> None:
    """A state moves with a target and without one, within `jax.set_mesh` and without, and by `adopt`."""
    tx = CHAINS[name]
    p, state = saved_on_eight(tx, tmp_path / "run")
    second = mesh_of(shape, kind)
    there = on(second, problem(9))
    target = {"params": shapes_of(there), "state": tx.abstract_state(shapes_of(there))}
    for context in (contextlib.nullcontext, lambda: jax.set_mesh(second)):
        with context():
            got = restore(tmp_path / "run", target)
            loaded, report = tx.load_state_dict(got["params"], restore_bare(tmp_path / "run")["state"])
            as_saved, _ = tx.load_state_dict(got["params"], restore_as_saved(tmp_path / "run")["state"])
            adopted, _ = tx.adopt(got["params"], state)
            for one in (got["state"], loaded, as_saved, adopted):
                assert_same_bits(one, state)
                assert_placed(one, tx.state_sharding(there))
            assert report[1:] == ([], [], [])
    where = (jax.tree.map(lambda x: x.sharding, there), tx.state_sharding(there))
    moved = jax.device_put((p, state), where)
    with jax.set_mesh(second):
        want = quickly(tx.step)(*moved, on(second, problem(2)))
        assert_same_bits(quickly(tx.step)(got["params"], loaded, on(second, problem(2))), want)


def saved_on_eight(tx: Any, path: Path) -> tuple[Any, Any]:
    """Parameters and state after a step on eight devices, which are also saved."""
    mesh = mesh_of((4, 2))
    p = on(mesh, problem(0))
    with jax.set_mesh(mesh):
        p, state = quickly(tx.step)(p, tx.init(p), on(mesh, problem(1)))
    save(path, {"params": p, "state": state})
    return p, state


@every_chain
def test_on_one_device(tx: Any, tmp_path: Path) -> None:
    """Without a mesh."""
    _, state = saved_on_eight(tx, tmp_path / "run")
    p = jax.device_put(problem(0), jax.devices()[1])
    target = {"params": shapes_of(p), "state": tx.abstract_state(p)}
    got = restore(tmp_path / "run", target)
    for arrays in (restore_bare(tmp_path / "run"), restore_as_saved(tmp_path / "run")):
        loaded, _ = tx.load_state_dict(got["params"], arrays["state"])
        for one in (got["state"], loaded):
            assert_same_bits(one, state)
            assert {device for x in jax.tree.leaves(one) for device in x.devices()} == {jax.devices()[1]}
            quickly(tx.step)(got["params"], one, got["params"])


RESUME = """
import os, sys
count, path = int(sys.argv[1]), sys.argv[2]
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
import jax
jax.config.update("jax_numpy_dtype_promotion", "strict")
from test_orbax import CHAINS, digest, mesh_of, on, problem, restore, restore_bare, shapes_of
assert jax.device_count() == count
tx, p = CHAINS["partition"], problem(0)
if count > 1:
    p = on(mesh_of((count // 2, 2)), p)
got = restore(path, {"params": shapes_of(p), "state": tx.abstract_state(shapes_of(p))})
loaded, _ = tx.load_state_dict(got["params"], restore_bare(path)["state"])
tx.step(got["params"], got["state"], got["params"])
print(digest(got["state"]), digest(loaded))
"""


def digest(tree: Any) -> str:
    """A hash of all arrays."""
    return hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(tree))).hexdigest()


@pytest.mark.parametrize("count", (4, 1))
def test_where_there_are_fewer_devices(count: int, tmp_path: Path) -> None:
    """In a process that does not have the devices of the one that saved."""
    _, state = saved_on_eight(CHAINS["partition"], tmp_path / "run")
    command = [sys.executable, "-c", RESUME, str(count), str(tmp_path / "run")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    assert run.stdout.split() == [digest(state)] * 2, run.stderr


def test_spread_over_data_and_back(tmp_path: Path) -> None:
    """`zero1` keeps the chain's state under its own name: it moves into the wrapper and out of it."""
    plain, mesh = CHAINS["clip and AdamW"], mesh_of((4, 2))
    spread, p = cx.zero1(plain, over="data"), problem(0)
    p = {name: jax.device_put(x, NamedSharding(mesh, P(None, *SPECS[name][1:]))) for name, x in p.items()}

    def place(tree: Any) -> Any:
        return {name: jax.device_put(x, p[name].sharding) for name, x in tree.items()}

    with jax.set_mesh(mesh):
        _, one = trained(plain, p, plain.init(p), range(1, 3), place)
        _, other = trained(spread, p, spread.init(p), range(1, 3), place)
        save(tmp_path / "plain", one)
        save(tmp_path / "spread", other)
        target, bare = restore(tmp_path / "plain", plain.abstract_state(p)), restore_bare(tmp_path / "plain")
        inside, _ = spread.adopt(p, cx.State(target.step, {"zero1": {"tx": target}}, {}))
        loaded, _ = spread.load_state_dict(p, {"step": bare["step"], "links": {"zero1": {"tx": bare}}})
        for state in (inside, loaded):
            assert_same_bits(state.links["zero1"]["tx"], one)
            assert_placed(state, spread.state_sharding(p))
            trained(spread, p, state, range(3, 4), place)
        target, bare = restore(tmp_path / "spread", spread.abstract_state(p)), restore_bare(tmp_path / "spread")
        outside, _ = plain.adopt(p, target.links["zero1"]["tx"])
        loaded, _ = plain.load_state_dict(p, bare["links"]["zero1"]["tx"])
        for state in (outside, loaded):
            assert_same_bits(state, other.links["zero1"]["tx"])
            assert_placed(state, plain.state_sharding(p))
            trained(plain, p, state, range(3, 4), place)
    local = inside.links["zero1"]["tx"].links["scale_by_adam"]["mu"]["w"].sharding.shard_shape((64, 128))
    assert local == (16, 64)


# Edited chains

ADAMW = cx.adamw(0.1)
EDITS = {
    "inserted": (ADAMW.insert(cx.ema_params(0.9), after="scale_by_lr"), ["ema_params/average/"], []),
    "removed": (ADAMW.remove("scale_by_adam"), [], ["scale_by_adam/mu/", "scale_by_adam/nu/"]),
    "swapped": (ADAMW.move("add_decayed_weights", before="scale_by_adam"), [], []),
    "replaced": (cx.sgd(0.1, momentum=0.9), ["trace/trace/"], ["scale_by_adam/mu/", "scale_by_adam/nu/"]),
}


@pytest.mark.parametrize(("edited", "missing", "unexpected"), EDITS.values(), ids=EDITS)
def test_an_edited_chain_keeps_what_it_has(edited: Any, missing: list, unexpected: list, tmp_path: Path) -> None:
    """And reports what it lacks. A state restored into the old chain's shapes is adopted with the same result."""
    mesh = mesh_of((4, 2))
    p = on(mesh, problem(0))
    with jax.set_mesh(mesh):
        _, state = trained(ADAMW, p, ADAMW.init(p), range(1, 3), lambda x: on(mesh, x))
        save(tmp_path / "run", state)
        new, report = edited.load_state_dict(p, restore_bare(tmp_path / "run"), strict=False)
        old = restore(tmp_path / "run", ADAMW.abstract_state(p))
        adopted, same = edited.adopt(p, old)
        assert {name.rpartition("/")[0] + "/" for name in report.missing} == set(missing)
        assert {name.rpartition("/")[0] + "/" for name in report.unexpected} == set(unexpected)
        assert report == same
        assert_same_bits(new, adopted)
        if "scale_by_adam" in new.links:
            assert_same_bits(new.links["scale_by_adam"], state.links["scale_by_adam"])
        assert int(new.step) == 2
        trained(edited, p, new, range(3, 4), lambda x: on(mesh, x))


@pytest.mark.parametrize("context", (False, True), ids=("without set_mesh", "set_mesh"))
def test_the_births_of_what_joined_move_too(context: bool, tmp_path: Path) -> None:
    """Those of a parameter and of a link, also within another chain, onto fewer devices."""
    first, second = mesh_of((4, 2)), mesh_of((2, 1))
    few = {"w": problem(0)["w"], "bias": problem(0)["bias"]}
    inner = cx.partition(cx.by_path({"bias": cx.adam(0.1)}, default=ADAMW))
    for tx in (ADAMW, inner):
        p = on(first, few)
        with jax.set_mesh(first):
            p, state = quickly(tx.step)(p, tx.init(p), on(first, {name: problem(1)[name] for name in few}))
            p = on(first, problem(0))
            state = tx.add_param_group(p, state)
            later = cx.chain(tx, cx.ema_params(0.9)) if tx is ADAMW else tx
            state, _ = later.adopt(p, state)
            p, state = quickly(later.step)(p, state, on(first, problem(2)))
        path = tmp_path / ("one" if tx is ADAMW else "groups")
        save(path, state)
        there = on(second, problem(0))
        with jax.set_mesh(second) if context else contextlib.nullcontext():
            loaded, report = later.load_state_dict(there, restore_bare(path))
            as_saved, _ = later.load_state_dict(there, restore_as_saved(path))
            for one in (loaded, as_saved, later.adopt(there, state)[0]):
                assert_same_bits(one, state)
                assert {x.sharding.mesh.size for x in jax.tree.leaves(one)} == {2}
                quickly(later.step)(there, one, there)
        assert any("born" in name and name.endswith("embed") for name in report.matched)
        if tx is ADAMW:  # with a target, which needs the names
            like = later.abstract_state(there)
            with ocp.StandardCheckpointer() as checkpointer:
                stored: Any = checkpointer.metadata(path).item_metadata
            like = like._replace(born=dict.fromkeys(stored.tree["born"], like.step))
            assert set(like.born) == {"scale_by_adam/embed", "ema_params/"}
            assert_same_bits(restore(path, like), state)


# Without a target


class Pair(NamedTuple):
    """A named tuple as parameters."""

    value: Any
    rest: Any


class Net(nnx.Module):
    """A module of flax, whose parameters are boxed."""

    def __init__(self) -> None:
        self.first = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        self.others = nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(1))])


def ones(*shape: int) -> jax.Array:
    """An array."""
    return jnp.ones(shape)


TREES = {
    "array": ones(3),
    "containers": {"list": [ones(2), (ones(3), {}), [], None], "pair": Pair(ones(2), {"value": ones(1)}), "none": None},
    "keys": {
        "numbers": {2: ones(1), 10: ones(2)},
        "a/b": ones(2),
        "c.d": ones(3),
        "é ": ones(4),
        "links": {"links": ones(5)},
        "step": ones(6),
    },
    "many": [ones(i + 1) for i in range(12)],
    "dtypes": {"bfloat16": jnp.ones(3, jnp.bfloat16), "complex": jnp.ones(3, jnp.complex64), "int": jnp.arange(3)},
    "equinox": eqx.filter(eqx.nn.MLP(2, 2, 2, 1, key=jax.random.key(0)), eqx.is_inexact_array),
    "flax.nnx": nnx.state(Net(), nnx.Param),
    "nothing": {},
}


@pytest.mark.parametrize("p", TREES.values(), ids=TREES)
def test_every_tree_returns_from_dicts_and_lists(p: Any, tmp_path: Path) -> None:
    """Named tuples and classes return as dicts, tuples as lists, ``None`` and empty containers as they are."""
    tx = cx.chain(cx.adamw(0.1), cx.ema_params(0.9))
    grads = jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jnp.inexact) else None, p)
    p, state = tx.step(p, tx.init(p), grads)
    save(tmp_path / "run", {"state": state})
    bare = restore_bare(tmp_path / "run")["state"]
    assert type(bare) is dict
    assert bare.keys() == {"step", "links", "born"}
    assert_same_bits(tx.load_state_dict(p, bare)[0], state)
    assert_same_bits(restore(tmp_path / "run", {"state": tx.abstract_state(p)})["state"], state)
    v1.save(tmp_path / "v1", state)
    assert_same_bits(tx.load_state_dict(p, v1.load(tmp_path / "v1", restore_like(bare)))[0], state)


def restore_like(tree: Any) -> Any:
    """The tree with arrays to restore into."""
    return jax.tree.map(np.empty_like, tree)


def test_a_box_is_not_confused_with_a_key(tmp_path: Path) -> None:
    """A parameter may be named ``value``."""
    tx, p = cx.sgd(0.1, momentum=0.9), {"w": {"value": ones(3)}, "value": ones(2)}
    _, state = tx.step(p, tx.init(p), p)
    save(tmp_path / "run", state)
    assert_same_bits(tx.load_state_dict(p, restore_bare(tmp_path / "run"))[0], state)
    _, report = tx.load_state_dict({"v": ones(2)}, restore_bare(tmp_path / "run"), strict=False)
    assert report.unexpected == ["trace/trace/value", "trace/trace/w/value"]
