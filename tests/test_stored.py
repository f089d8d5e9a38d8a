"""States and configurations that earlier versions have stored, which load for ever."""

import json
import pathlib
import zipfile
from typing import Any

import chainax as cx
import chex
import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from stored_chains import AFTER, FOLDER, RECIPES, params, run, wide

VERSIONS = sorted(folder.name for folder in FOLDER.iterdir() if folder.name.isdigit())
STORED = [(version, name) for version in VERSIONS for name in RECIPES if (FOLDER / version / f"{name}.npz").exists()]
every = pytest.mark.parametrize(("version", "name"), STORED)
pytestmark = pytest.mark.filterwarnings("ignore::chainax.ChainWarning")  # orders that were not warned of then


def arrays(version: str, name: str) -> dict[str, np.ndarray]:
    """What an npz holds."""
    with np.load(FOLDER / version / f"{name}.npz") as file:
        return dict(file)


def chain_of(name: str) -> Any:
    """The chain as it was when its state was stored."""
    tx, joins = RECIPES[name].tx(), RECIPES[name].joins
    return joins(tx) if joins else tx


def like_params(version: str, name: str) -> Any:
    """The parameters as they were when the state was stored."""
    start = params(RECIPES[name].dtype)
    stored = arrays(version, f"{name}.params")
    return jax.tree.map(lambda path, p: jax.numpy.asarray(stored[path], p.dtype), paths(start), start)


def paths(tree: Any) -> Any:
    """The tree with each leaf's path in its place."""
    return jax.tree_util.tree_map_with_path(lambda k, _: jax.tree_util.keystr(k, simple=True, separator="/"), tree)


def test_every_recipe_was_stored() -> None:
    """And by every version since it was there."""
    assert {name for _, name in STORED} == set(RECIPES)
    assert all((FOLDER / VERSIONS[-1] / f"{name}.npz").exists() for name in RECIPES)


def counting_the_run(tx: Any) -> Any:
    """The chain as version 0 wrote it, with schedules of the run's steps in place of `own_steps`."""

    def is_own(x: Any) -> bool:
        return isinstance(x, cx.own_steps)

    return jax.tree.map(lambda x: x.schedule if is_own(x) else x, tx, is_leaf=is_own)


@every
def test_configuration_loads(version: str, name: str) -> None:
    """The chain that was written is the chain that is made today, but for what is counted by parameter since."""
    file = FOLDER / version / f"{name}.json"
    assert file.exists() == RECIPES[name].plain
    if not RECIPES[name].plain:
        return
    tx = chain_of(name)
    if version == "0":
        first = RECIPES[name].first
        tx = cx.chain(first()) if first else counting_the_run(tx)
    assert cx.from_config(json.loads(file.read_text())) == tx


@every
def test_state_loads_and_goes_on(version: str, name: str, tmp_path: pathlib.Path) -> None:
    """From each format comes one and the same state, and the run goes on as it did."""
    tx, p, given = chain_of(name), like_params(version, name), arrays(version, name)
    state, report = tx.load_state_dict(p, given)
    assert sorted(report.matched) == sorted(given.keys() - {"chainax"})
    stored = (FOLDER / version / f"{name}.msgpack").read_bytes()
    with zipfile.ZipFile(FOLDER / version / f"{name}.orbax.zip") as file:
        file.extractall(tmp_path / "state")
    with ocp.StandardCheckpointer() as checkpointer:
        bare: Any = flax.serialization.msgpack_restore(stored), checkpointer.restore(tmp_path / "state")
        for nested in bare:
            chex.assert_trees_all_equal(tx.load_state_dict(p, {**nested, "chainax": int(version)})[0], state)
        if not report.missing:  # then the state has the form that it had
            like = jax.eval_shape(lambda: state)
            restored = flax.serialization.from_bytes(state, stored), checkpointer.restore(tmp_path / "state", like)
            chex.assert_trees_all_equal(*restored, state)
    narrow = RECIPES[name].dtype != jax.numpy.float32
    close = {"rtol": 2**-8 if narrow else 1e-5, "atol": 1e-6}
    chex.assert_trees_all_close(wide(run(tx, p, state, AFTER)[0]), arrays(version, f"{name}.after"), **close)
