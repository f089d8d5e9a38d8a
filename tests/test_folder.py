"""Sweeps that are kept in a folder: killed, interrupted, extended, and never mixed up."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.sweeping.folder import Folder, identity_of, write_json
from chainax.sweeping.identity import _parsed, digest

ADAMW = cx.adamw(1e-3)
CHAINS = [*cx.grid(ADAMW, {"scale_by_lr.learning_rate": [1e-3, 1e-2, 0.1]}), cx.sgd(0.1), cx.sgd(0.2)]
START = jnp.array([0.5, -1.0, 2.0])


def train(tx: Any, seed: Any, start: Any) -> dict[str, Any]:
    """A step along a random gradient, in results of several dtypes and shapes."""
    params, _ = tx.step(start, tx.init(start), jax.random.normal(jax.random.key(seed), start.shape))
    return {"loss": jnp.sum(params), "file": {"x": params.astype(jnp.bfloat16)}, "seed": seed, "good": seed > 0}


def unseeded(tx: Any, start: Any) -> Any:
    """One step."""
    return tx.step(start, tx.init(start), jnp.cos(start))[0]


def files(path: pathlib.Path) -> set[pathlib.Path]:
    """The batches in a folder."""
    return set(path.rglob("*.npz"))


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """To the last bit, dtypes included."""
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name])


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each batch had that was written."""
    counts, add = [], Folder.add

    def counted(self: Folder, part: Any, which: list[int], rows: list[Any]) -> None:
        counts.append(len(rows))
        add(self, part, which, rows)

    monkeypatch.setattr(Folder, "add", counted)
    return counts


@pytest.mark.parametrize(("f", "seeds"), ((train, 4), (unseeded, None)), ids=("seeds", "no seeds"))
def test_a_folder_changes_nothing(tmp_path: pathlib.Path, added: list[int], f: Any, seeds: Any) -> None:
    """The table is that of a sweep without one, whatever is missing when it is called again."""
    whole = cx.sweep(f, CHAINS, START, seeds=seeds, batch_size=2)
    equal(cx.sweep(f, CHAINS, START, seeds=seeds, batch_size=2, folder=tmp_path), whole)
    runs = len(CHAINS) * (seeds or 1)
    assert sum(added) == runs
    before = files(tmp_path)
    for file in sorted(before)[1::2]:
        file.unlink()
    equal(cx.sweep(f, CHAINS, START, seeds=seeds, batch_size=7, folder=tmp_path), whole)  # the size is the folder's
    assert files(tmp_path) == before
    del added[:]
    equal(cx.sweep(f, CHAINS, START, seeds=seeds, folder=tmp_path), whole)
    assert added == []


def test_chains_and_seeds_are_added(tmp_path: pathlib.Path, added: list[int]) -> None:
    """Only what is missing runs; other orders and subsets come from the folder."""
    cx.sweep(train, CHAINS[:4], START, seeds=3, folder=tmp_path)
    assert sum(added) == 12
    more = cx.sweep(train, CHAINS[::-1], START, seeds=[4, 2, 1, 0], folder=tmp_path)
    assert sum(added) == 12 + 4 + 4
    assert more["seed"].tolist() == [[4, 2, 1, 0]] * 5
    expected = cx.sweep(train, CHAINS[::-1], START, seeds=[4, 2, 1, 0])
    assert list(more) == list(expected)
    np.testing.assert_allclose(more["loss"], expected["loss"], rtol=1e-6)
    few = cx.sweep(train, {"one": CHAINS[4], "two": CHAINS[4]}, START, seeds=[2], folder=tmp_path)
    assert sum(added) == 20
    assert few["loss"].tolist() == [more["loss"][0, 1:2].tolist()] * 2


def test_a_part_that_was_begun_goes_on_as_it_was(tmp_path: pathlib.Path, added: list[int]) -> None:
    """With the chains that it was begun with, also if the new call has others or fewer."""
    whole = cx.sweep(train, CHAINS[:3], START, seeds=4, batch_size=5, folder=tmp_path)
    sorted(files(tmp_path))[-1].unlink()
    del added[:]
    again = cx.sweep(train, CHAINS[2:], START, seeds=4, folder=tmp_path)
    assert sum(added) == 12 // 3 + 2 * 4
    np.testing.assert_array_equal(again["loss"][0], whole["loss"][2])


def test_a_batch_is_a_tenth_unless_told(tmp_path: pathlib.Path, added: list[int]) -> None:
    """So that little is lost; but no device is left idle."""
    chains = [cx.sgd(rate) for rate in np.geomspace(0.01, 1, 40)]
    cx.sweep(unseeded, chains, START, folder=tmp_path / "a")
    assert added == [8] * 5  # a tenth is 4, and there are 8 devices
    del added[:]
    with jax.default_device(jax.devices()[0]):
        cx.sweep(unseeded, chains, START, folder=tmp_path / "b")
    assert added == [4] * 10


# What a folder is of


def with_another_step(tx: Any, start: Any) -> Any:
    """Another function."""
    return tx.step(start, tx.init(start), jnp.sin(start))[0]


def test_other_results_are_refused(tmp_path: pathlib.Path) -> None:
    """Another training function, other contents of an array, another constant: the folder is left as it is."""
    cx.sweep(unseeded, CHAINS[:1], START, folder=tmp_path)
    before = (tmp_path / "index.json").read_bytes()
    with pytest.raises(ValueError, match=r"has results of another `train`, .*unseeded: give another folder"):
        cx.sweep(with_another_step, CHAINS[:1], START, folder=tmp_path)
    with pytest.raises(ValueError, match=r"results for other arguments \(args: 0\)"):
        cx.sweep(unseeded, CHAINS[:1], START + 1, folder=tmp_path)
    assert (tmp_path / "index.json").read_bytes() == before


def test_other_settings_of_jax_are_refused(tmp_path: pathlib.Path) -> None:
    """In double precision the rows are others, of another dtype."""
    cx.sweep(unseeded, CHAINS[:1], START, folder=tmp_path)
    with jax.enable_x64(True), pytest.raises(ValueError, match=r"other settings of JAX .jax_enable_x64 False → True"):
        cx.sweep(unseeded, CHAINS[:1], START, folder=tmp_path)


def test_comments_and_layout_change_nothing() -> None:
    """The source is compared as Python reads it."""
    assert _parsed("def f(x):\n    return x + 1\n") == _parsed("def f(x):  # one more\n    return (x\n        + 1)\n")
    assert _parsed("def f(x):\n    return x + 1\n") != _parsed("def f(x):\n    return x + 2\n")


class Holder:
    """An argument without a text of its own, with a method that trains."""

    def __init__(self, x: Any) -> None:
        self.x = x

    def train(self, tx: Any) -> Any:
        """What it holds."""
        return self.x


@dataclasses.dataclass(frozen=True)
class Model:
    """A callable value, as in flax."""

    width: int

    def __call__(self, x: Any) -> Any:
        """So wide."""
        return self.width * x


def closing_over(x: Any) -> Any:
    """A function that has ``x`` in its closure."""

    def inner(tx: Any) -> Any:
        return x

    return inner


def with_default(x: Any) -> Any:
    """A function that has ``x`` as a default."""
    return lambda tx, x=x: x


MAKERS = {
    "object": Holder,
    "method": lambda x: Holder(x).train,
    "callable value": Model,
    "closure": closing_over,
    "closure over an array": lambda x: closing_over(np.full(3, x)),
    "closure over a function": lambda x: closing_over(closing_over(x)),
    "default": with_default,
    "partial": lambda x: functools.partial(unseeded, start=x),
    "jitted": lambda x: jax.jit(closing_over(x)),
    "key": jax.random.key,
    "tree": lambda x: {"a": (x, "x", None), "b": Holder(x)},
    "chain": lambda x: cx.sgd(float(x)),
    "lambda": lambda x: (lambda tx: 1.0) if x == 1 else (lambda tx: 2.0),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_equal_contents_are_equal(kind: str) -> None:
    """No address and no identity gets into the hash; and all contents do."""
    make = MAKERS[kind]
    assert digest(make(1)) == digest(make(1))
    assert digest(make(1)) != digest(make(2))


def test_functions_without_a_source_are_told_apart() -> None:
    """As those that were typed into a prompt."""
    one, same, other = ({}, {}, {})
    for scope, body in ((one, "return 1.0"), (same, "return 1.0"), (other, "return 2.0")):
        exec(f"def f(tx):\n    {body}\n", scope)
    assert digest(one["f"]) == digest(same["f"]) != digest(other["f"])


SCALE = 1.0


def scaled(x: Any) -> Any:
    """What a training function may call."""
    return SCALE * x


def by_global(tx: Any) -> Any:
    """It calls another."""
    return scaled(2.0)


def test_what_a_function_names_in_its_module_is_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number or a function that it reads, at any depth."""
    before = digest(by_global)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert digest(by_global) != before
    monkeypatch.undo()
    assert digest(by_global) == before
    monkeypatch.setitem(globals(), "scaled", by_global)
    assert digest(by_global) != before


class Opaque:
    """An object without fields that cannot be pickled."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        raise TypeError


def test_what_cannot_be_compared_is_refused(tmp_path: pathlib.Path) -> None:
    """An argument of which nothing is known but its type."""
    with pytest.raises(TypeError, match=r"a folder cannot tell .*Opaque.* from others of its type"):
        cx.sweep(lambda tx, _: 0.0, CHAINS[:1], Opaque(), folder=tmp_path)


# Other devices and dtypes


def test_a_part_goes_on_on_other_devices(tmp_path: pathlib.Path) -> None:
    """Whatever the number of devices was and is, no run is lost; a warning says that the last bits may differ."""
    chains = [cx.sgd(rate) for rate in np.geomspace(0.01, 1, 10)]
    whole = cx.sweep(unseeded, chains, START)["result"]
    for few, folder in ((True, tmp_path / "a"), (False, tmp_path / "b")):

        def call(few: bool, folder: pathlib.Path = folder) -> np.ndarray:
            with jax.default_device(jax.devices()[0] if few else None):
                return cx.sweep(unseeded, chains, START, folder=folder, batch_size=3)["result"]

        np.testing.assert_allclose(call(few), whole, rtol=1e-6)
        for file in sorted(files(folder))[1:]:
            file.unlink()
        with pytest.warns(cx.ChainWarning, match="was begun with others .devices .* rows may differ"):
            np.testing.assert_allclose(call(not few), whole, rtol=1e-6)


def test_runs_that_are_not_wanted_are_not_made(tmp_path: pathlib.Path, added: list[int]) -> None:
    """A part that was begun with many goes on with the batches of those that are asked for."""
    cx.sweep(train, CHAINS[:3], START, seeds=4, batch_size=8, folder=tmp_path)
    for file in sorted(files(tmp_path)):
        file.unlink()
    del added[:]
    cx.sweep(train, CHAINS[2:3], START, seeds=[3], folder=tmp_path)
    assert added == [6]  # the last of two batches


def test_dtypes_of_structures_must_agree(tmp_path: pathlib.Path) -> None:
    """Else one column would have two, and reading would mix them up."""

    def mixed(tx: Any) -> Any:
        return jnp.int32(1) if "scale_by_adam" in tx.names else jnp.float32(2)

    with pytest.raises(ValueError, match=r"same names, shapes and dtypes .* 'float32\[\]'.* 'int32\[\]'"):
        cx.sweep(mixed, CHAINS, folder=tmp_path)


def test_other_versions_are_told(tmp_path: pathlib.Path) -> None:
    """The rows of both may differ in the last bits."""
    cx.sweep(unseeded, CHAINS[:1], START, folder=tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index | {"versions": index["versions"] | {"jax": "0.4.0"}}))
    with pytest.warns(cx.ChainWarning, match=rf"jax 0\.4\.0 → {jax.__version__}\): rows may differ"):
        cx.sweep(unseeded, CHAINS[:1], START, folder=tmp_path)


def test_folders_of_others_are_refused(tmp_path: pathlib.Path) -> None:
    """One with other files, an index that is none, one of a later version, a batch that was cut off."""
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="has other files in it: give a new folder"):
        cx.sweep(unseeded, CHAINS[:1], START, folder=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    here = tmp_path / "sweep"
    cx.sweep(unseeded, CHAINS, START, folder=here)
    file = sorted(files(here))[0]
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match=rf"{file.name} cannot be read .* delete it, and its runs are made anew"):
        cx.sweep(unseeded, CHAINS, START, folder=here)
    (here / "index.json").write_text('{"version": 2}')
    with pytest.raises(ValueError, match="has version 2, and this chainax reads version 1"):
        cx.sweep(unseeded, CHAINS, START, folder=here)
    (here / "index.json").write_text('{"version": 1}')
    with pytest.raises(ValueError, match=r"index\.json is not the index of a sweep: KeyError: .*'chains'"):
        cx.sweep(unseeded, CHAINS, START, folder=here)
    (here / "index.json").write_text("{")
    with pytest.raises(ValueError, match=r"index\.json is not the index of a sweep"):
        cx.sweep(unseeded, CHAINS, START, folder=here)


def test_what_is_no_folder_is_refused(tmp_path: pathlib.Path) -> None:
    """A file, and what is no path; but the trace of a process that was killed at its very beginning does not matter."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`sweep.folder` '.*file' is a file: give the name of a folder"):
        cx.sweep(unseeded, CHAINS[:1], START, folder=tmp_path / "file")
    with pytest.raises(TypeError, match=r"`sweep.folder` must be a path, got 3"):
        cx.sweep(unseeded, CHAINS[:1], START, folder=3)  # type: ignore[arg-type]
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".index.json.partial").write_text("{")
    cx.sweep(unseeded, CHAINS[:1], START, folder=tmp_path / "begun")


def test_chains_without_a_configuration_are_refused(tmp_path: pathlib.Path) -> None:
    """A Python function has no plain form, so it could not be found again."""
    with pytest.raises(TypeError, match=r"scale_by_lr\.learning_rate: the function .* has no plain form"):
        cx.sweep(
            unseeded, [cx.sgd(cx.from_function(lambda k: 0.1 / (1.0 + k.astype(jnp.float32))))], START, folder=tmp_path
        )


def test_two_processes_do_not_write_at_once(tmp_path: pathlib.Path) -> None:
    """The second one is told."""
    with (
        Folder.writing("sweep", tmp_path, identity_of(unseeded, (START,))),
        pytest.raises(RuntimeError, match="another process is writing"),
    ):
        cx.sweep(unseeded, CHAINS[:1], START, folder=tmp_path)
    cx.sweep(unseeded, CHAINS[:1], START, folder=tmp_path)


def test_nothing_is_half_written(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, the index is the old one."""
    file = tmp_path / "index.json"
    write_json(file, {"a": 1})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 1}


# Killed and interrupted

PROGRAM = pathlib.Path(__file__).parent / "long_sweep.py"


def start(folder: pathlib.Path) -> subprocess.Popen[str]:
    """The program, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def stopped(folder: pathlib.Path, batches: int, how: signal.Signals) -> tuple[int, str]:
    """Stop it once it has written so many batches. The exit code and what it said."""
    process = start(folder)
    deadline = time.monotonic() + 240
    while len(files(folder)) < batches:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    _, said = process.communicate(timeout=240)
    return process.returncode, said


def finished(folder: pathlib.Path) -> str:
    """What it prints at its end."""
    process = start(folder)
    out, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return out


def test_killed_and_interrupted_runs_go_on(tmp_path: pathlib.Path) -> None:
    """By SIGKILL and by Ctrl-C, while the seeds run that tune and those that score: the same to the last bit."""
    whole = finished(tmp_path / "whole")
    here = tmp_path / "here"
    code, _ = stopped(here, 3, signal.SIGKILL)
    assert code == -signal.SIGKILL
    left = {file: hashlib.sha256(file.read_bytes()).digest() for file in files(here)}
    assert 3 <= len(left) < 24
    code, said = stopped(here, len(left) + 4, signal.SIGINT)
    assert code != 0
    kept = len(files(here))
    assert "KeyboardInterrupt" in said
    assert f"keeps {2 * kept} of 48 runs: call `compare` again to go on." in said
    stopped(here, 26, signal.SIGKILL)  # among the fresh seeds
    assert finished(here) == whole
    assert {file: hashlib.sha256(file.read_bytes()).digest() for file in left} == left


def test_ctrl_c_within_a_callback_is_told(tmp_path: pathlib.Path) -> None:
    """JAX reports it as an error of the computation; what is done is kept all the same."""
    seen: list[float] = []

    def pause(x: Any) -> Any:
        seen.append(float(x))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return np.asarray(x)

    def slow(tx: Any, x: Any) -> Any:
        rate = jnp.asarray(tx["scale_by_lr"].learning_rate, jnp.float32)
        return jax.pure_callback(pause, jax.ShapeDtypeStruct((), jnp.float32), rate, vmap_method="sequential")

    with jax.default_device(jax.devices()[0]), pytest.raises(KeyboardInterrupt) as stopped:
        cx.sweep(slow, [cx.sgd(rate) for rate in (0.1, 0.2, 0.3, 0.4)], START, batch_size=1, folder=tmp_path)
    assert stopped.value.__notes__ == [f"{tmp_path} keeps 2 of 4 runs: call `sweep` again to go on."]
