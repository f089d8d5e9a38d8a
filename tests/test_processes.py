"""Training by several processes: they start here on one machine, and `trainers` is what each of them runs."""

import functools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from trainers import COMBINATIONS, DEVICES, RESUMED, results

pytestmark = pytest.mark.long

LIMIT_S = 300
"""The time that all processes of a run may take, in seconds."""


def run(task: str, folder: Path, processes: int, *, killed: bool = False) -> None:
    """`run_once`, and once more if gloo lost patience, which it does after 30 s of waiting for a process."""
    try:
        run_once(task, folder, processes, killed=killed)
    except AssertionError as e:
        if not re.search(r"(?i)gloo.*time(d )?-?out|timed out waiting", str(e)):
            raise
        run_once(task, folder, processes, killed=killed)


def run_once(task: str, folder: Path, processes: int, *, killed: bool) -> None:
    """Run ``processes``. All must succeed or, if one is ``killed``, the last, which ends the run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={DEVICES // processes}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    worker = str(Path(__file__).with_name("trainers.py"))
    logs = [folder / f"{task}-{i}.log" for i in range(processes)]
    children, codes = [], []
    end = time.monotonic() + LIMIT_S
    try:
        for i, log in enumerate(logs):
            arguments = [sys.executable, worker, task, str(folder), str(port), str(processes), str(i)]
            with log.open("w") as out:
                children.append(subprocess.Popen(arguments, env=environment, stdout=out, stderr=out))
        while time.monotonic() < end:
            codes = [child.poll() for child in children]  # the last one last: others fail when it is killed
            if codes[-1] == -signal.SIGKILL if killed else codes == [0] * processes:
                return
            if any(code is not None and (killed or code) for code in codes):
                break
            time.sleep(0.1)
    finally:
        for child in children:
            child.kill()
            child.wait()
    texts = "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in logs)
    raise AssertionError(f"the exit codes are {codes} (None: still running, and ended)\n{texts}")


def load(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file."""
    with np.load(file, allow_pickle=False) as stored:
        return dict(stored)


def mesh(kind: AxisType) -> Mesh:
    """As many devices of this process."""
    return jax.make_mesh((DEVICES,), ("data",), axis_types=(kind,), devices=jax.devices()[:DEVICES])


@functools.cache
def of_one_process(name: str) -> dict[str, np.ndarray]:
    """The result without a mesh, on one device; or, if each shard draws its own numbers, on as many devices."""
    how = COMBINATIONS[name]
    return results(how, mesh(how.kind) if how.given else None)


def without_losses(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters and state."""
    return {name: x for name, x in result.items() if name != "losses"}


def assert_equal(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    """All arrays bit for bit."""
    assert got.keys() == want.keys()
    for name, x in got.items():
        np.testing.assert_array_equal(x, want[name], err_msg=name, strict=True)


def assert_close(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    """All arrays within 1e-6 of their largest number."""
    assert got.keys() == want.keys()
    for name, x in got.items():
        np.testing.assert_allclose(x, want[name], rtol=0, atol=1e-6 * np.max(np.abs(want[name])), err_msg=name)


def check(folder: Path, name: str, processes: int) -> None:
    """Float32 equals one process, and so do few bits for the same gradients. Trained, their loss is within 1 %."""
    want, how = of_one_process(name), COMBINATIONS[name]
    first, *others = (load(folder / f"{name}-{processes}-{i}.npz") for i in range(processes))
    losses = first.pop("losses"), want["losses"]
    if how.given:
        assert_equal(first, without_losses(want))
        assert first["scale_by_adam/mu/in/companded8"].dtype == np.int8
    elif how.in_bits:
        np.testing.assert_allclose(*losses, rtol=1e-2)
    else:
        assert_close({**first, "losses": losses[0]}, want)
    if not how.given:
        assert losses[0][-1] < 0.8 * losses[0][0]
    for other in others:  # `state_dict` gives all of it to every process
        assert_equal(without_losses(other), first)


def test_several_processes_train_as_one_and_resume(tmp_path: Path) -> None:
    """Two and four. At the end one of the four is killed; two resume what they began, and end where one process does.

    One test, because each start of a process costs seconds.
    """
    run("killed", tmp_path, 4, killed=True)
    run("resumed", tmp_path, 2)
    for name, how in COMBINATIONS.items():
        for processes in how.processes:
            try:
                check(tmp_path, name, processes)
            except AssertionError as e:
                e.add_note(f"in {name!r}, by {processes} processes")
                raise
    for i in range(2):
        assert_close(load(tmp_path / f"resumed-{i}.npz"), without_losses(of_one_process(RESUMED)))
