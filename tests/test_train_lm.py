"""The example that trains a language model: its options, and runs that are interrupted, killed and resumed."""

import contextlib
import importlib
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import chainax as cx
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from registry import QUICK, quickly

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
TINY = ("--layers", "1", "--width", "16", "--batch", "2")
STRICT = {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"}


def quick_flags() -> str:
    """What makes XLA compile faster, for another process."""
    return " ".join(f"--{option}={str(choice).lower()}" for option, choice in QUICK.items())


@pytest.fixture(scope="module")
def train_lm() -> Iterator[ModuleType]:
    """The example as a module, compiled quickly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        module = importlib.import_module("train_lm")
        quick = ModuleType("jax")
        quick.__dict__.update(jax.__dict__, jit=quickly)
        patch.setattr(module, "jax", quick)
        compiled, steps = module.compiled, {}

        def shared(tx: cx.chain, params: Any, state: Any, text: Any, *numbers: int) -> Any:
            """The compiled step, once for runs that differ only in where they begin."""
            key = repr((tx, jax.tree.map(lambda x: (jax.typeof(x), x.sharding), (params, state)), numbers))
            if key not in steps:
                steps[key] = compiled(tx, params, state, text, *numbers)
            return steps[key]

        patch.setattr(module, "compiled", shared)
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        yield module


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Where the runs of this process draw."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(train_lm, folder) -> Callable[..., str]:
    """Train a tiny network in this process, and return what is printed."""

    def run(*arguments: str, status: int = 0) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.chdir(folder):
            assert train_lm.main([*TINY, *arguments]) == status
        return said.getvalue()

    return run


def losses(said: str) -> list[float]:
    """Held-out losses in order, to four digits."""
    return [float(x) for x in re.findall(r"held-out ([\d.]+)", said)]


def final(said: str) -> float:
    """The last held-out loss, to four digits after the point."""
    return float(re.findall(r"held-out loss after \d+ steps: ([\d.]+)", said)[0])


def started(*arguments: str, directory: pathlib.Path, code: str = "") -> subprocess.Popen[str]:
    """The example in a process of its own. ``code`` is run before it."""
    script = str(EXAMPLES / "train_lm.py")
    program = f"import sys; sys.argv[0] = {script!r}; sys.path.insert(0, {str(EXAMPLES)!r}); import train_lm\n{code}\n"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", f"{program}sys.exit(train_lm.main())", *TINY, *arguments],
        cwd=directory,
        env={k: v for k, v in os.environ.items() if k != "MPLBACKEND"} | STRICT | {"XLA_FLAGS": quick_flags()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def saved(folder: pathlib.Path, step: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The bytes of all arrays of a checkpoint by path, and what is written beside them."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree: Any = checkpointer.metadata(folder / str(step) / "run").item_metadata
        like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree.tree)
        arrays = checkpointer.restore(folder / str(step) / "run", like)
    about = json.loads((folder / str(step) / "about" / "metadata").read_text())
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in leaves}, about


def assert_same_run(folder: pathlib.Path, other: pathlib.Path, step: int) -> None:
    """Parameters, state, chain and curves are the same to the last bit."""
    (arrays, about), (others, about_other) = saved(folder, step), saved(other, step)
    assert len(arrays) > 20
    assert arrays == others
    assert about == about_other
    assert len(about["curves"]["loss"]) == step


# Runs


@pytest.fixture(scope="module")
def whole(run) -> str:
    """What a run on one device prints."""
    return run("--steps", "40", "--rate", "0.02", "--output", "whole.png")


def test_trains_and_draws(whole, folder):
    """The loss falls, lines say so, and the picture is drawn."""
    said = whole
    assert "weight decay: decoupled (after the preconditioner)" in said
    lines = [line for line in said.splitlines() if line.startswith("step ")]
    shape = r"step \d+/40  held-out [\d.]+  loss [\d.]+  rate [\de.-]+  norm [\d.]+  [\d,]+ tokens/s"
    assert len(lines) == 10
    assert all(re.fullmatch(shape, line) for line in lines)
    assert losses(said)[0] > losses(said)[-1] == round(final(said), 3)
    assert 2.5 < final(said) < 4.0  # nats; chance is 4.6
    assert (folder / "whole.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        ("--optimizer muon --order coupled", "'default': weight decay: coupled (L2: it passes through scale_by_muon)"),
        (
            "--optimizer lion --state int8 --bf16 kahan --width 32 --order independent",
            "decay: independent (a step of its",
        ),
        ("--optimizer momo", "scale_by_momo"),
    ),
)
def test_optimizers_train(run, arguments, words):
    """Other optimizers, orders and formats of parameters and state. Momo also reads the loss."""
    said = run("--steps", "10", *arguments.split())
    assert words in said
    assert ("in int8()" in said) == ("rounding='kahan'" in said) == ("int8" in arguments)
    assert 2.5 < final(said) < 4.7  # nats; chance is 4.6


@pytest.mark.parametrize("shard", ("fsdp", "zero1"))
def test_devices_do_not_change_the_losses(run, train_lm, whole, monkeypatch, shard):
    """Parameters and state, or the state alone, are divided among two devices, and the losses stay the same."""
    seen, compiled = [], train_lm.compiled
    monkeypatch.setattr(train_lm, "compiled", lambda *a: (seen.append(a), compiled(*a))[1])
    said = run("--steps", "40", "--rate", "0.02", "--devices", "2", "--shard", shard)
    np.testing.assert_allclose(losses(said), losses(whole), rtol=1e-3)  # printed to three digits after the point
    assert final(said) == pytest.approx(final(whole), rel=1e-4)
    ((_, params, state, *_),) = seen
    halves = [{x.sharding.shard_shape(x.shape) != x.shape for x in jax.tree.leaves(tree)} for tree in (params, state)]
    assert [True in of for of in halves] == [shard == "fsdp", True]


# Checkpoints


STEPS = ("--steps", "30", "--every", "7", "--optimizer", "adamw", "--bf16", "stochastic")


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory) -> pathlib.Path:
    """The checkpoints of a whole run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(*STEPS, "--checkpoint", str(folder))
    return folder


def test_a_killed_run_goes_on_to_the_last_bit(run, uninterrupted, tmp_path):
    """Killed at step 17, a run goes on from its checkpoint of step 14."""
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    code = (
        "import os, signal; compiled = train_lm.compiled; train_lm.compiled = lambda *a: "
        f"(lambda step: lambda p, s, i: {kill} if i == 17 else step(p, s, i))(compiled(*a))"
    )
    folder = tmp_path / "run"
    process = started(*STEPS, "--checkpoint", str(folder), directory=tmp_path, code=code)
    said, wrong = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, wrong
    assert "step 15/30" in said
    run(*STEPS, "--checkpoint", str(folder), "--resume")
    assert_same_run(uninterrupted, folder, 30)
    assert sorted(path.name for path in folder.iterdir()) == ["28", "30"]


def test_interrupted_by_ctrl_c(run, uninterrupted, tmp_path):
    """SIGINT ends a run between two steps, with a checkpoint, status 130 and the command that goes on."""
    code = (
        "import time; compiled = train_lm.compiled; train_lm.compiled = lambda *a: "
        "(lambda step: lambda p, s, i: (time.sleep(0.3 * (i > 5)), step(p, s, i))[1])(compiled(*a))"
    )
    folder = tmp_path / "run"
    process = started(*STEPS, "--checkpoint", str(folder), directory=tmp_path, code=code)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step 6/30"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said, wrong = process.communicate(timeout=300)
    assert process.returncode == 130, wrong
    assert wrong == ""
    ((done, command),) = re.findall(r"Interrupted after step (\d+) of 30; go on with: (.*)", said)
    assert 6 <= int(done) < 30
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert done in [path.name for path in folder.iterdir()]
    python, script, *arguments = shlex.split(command)
    assert (python, script, arguments[-1]) == ("python", str(EXAMPLES / "train_lm.py"), "--resume")
    run(*arguments)
    assert_same_run(uninterrupted, folder, 30)


def test_another_optimizer_adopts_the_state(run, uninterrupted, tmp_path):
    """A run that is resumed with more steps and the decay elsewhere keeps its moments."""
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    more = "--steps", "31", "--bf16", "stochastic", "--order", "independent", "--checkpoint", str(folder), "--resume"
    said = run(*more)
    assert "and adopts its state:\nadd_decayed_weights" in said
    before, after = (saved(folder, step)[0] for step in (30, 31))
    assert before.keys() == after.keys()
    mean = next(name for name in before if "mu" in name and "mlp_in" in name)
    old, new = (np.frombuffer(of[mean], np.float32) for of in (before, after))
    assert np.corrcoef(old, new)[0, 1] > 0.9
    assert len(saved(folder, 31)[1]["curves"]["loss"]) == 31


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ("--steps 30 --bf16 stochastic", "holds a run at step 30: give --resume, or another directory"),
        ("--steps 30 --resume", "has dtype bfloat16, got float32"),
        ("--steps 30 --bf16 stochastic --seed 2 --resume", "has seed 1, got 2"),
    ),
)
def test_a_checkpoint_of_another_run_is_refused(refused, uninterrupted, arguments, message):
    """A run is not overwritten, nor resumed with what changes its parameters or its batches."""
    assert message in refused(*arguments.split(), "--checkpoint", str(uninterrupted))


# Options


@pytest.fixture
def refused(train_lm, run, monkeypatch, capsys) -> Callable[..., str]:
    """The one line that says what is wrong with the options, which ends the program with status 2 before training."""
    monkeypatch.setattr(train_lm, "train", lambda *_: pytest.fail("trained"))

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            run(*arguments)
        assert ended.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return refused


@pytest.mark.filterwarnings("ignore:store. no format applies")
@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ("--optimizer adanw", "argument --optimizer: module 'chainax' has no attribute 'adanw' (did you mean 'adan'?)"),
        ("--optimizer scale_by_adam", "argument --optimizer: 'scale_by_adam' is no prebuilt optimizer, such as adamw"),
        ("--optimizer lars", "argument --optimizer: 'lars' has no default learning rate: give --rate"),
        ("--optimizer cocob --rate 1", "argument --optimizer: 'cocob' takes no learning rate: leave --rate out"),
        ("--optimizer adamc --rate 1", "missing a required argument: 'max_learning_rate'"),
        ("--optimizer sophia", "Link 'scale_by_sophia' reads 'hessian'"),
        (
            "--optimizer prodigy --order decoupled",
            "argument --optimizer: --order needs --decay too, except for adamw, muon, lion, soap",
        ),
        ("--optimizer madgrad --order decoupled --decay 1", "no link named 'scale_by_lr'"),
        ("--optimizer nowhere.json", "nowhere.json: No such file or directory"),
        ("--optimizer momo --state int8", "momo keeps no state that --state could store: leave --state out"),
        ("--rate 0", "argument --rate: must be a number above 0, got '0'"),
        ("--rate nan", "argument --rate: must be a number above 0, got 'nan'"),
        ("--order late", "argument --order: invalid choice: 'late'"),
        ("--decay 0.1", "argument --decay: needs --order too"),
        ("--resume", "argument --resume: needs --checkpoint too"),
        ("--devices 9 --batch 9", "argument --devices: there are 8, got 9"),
        ("--devices 3", "argument --batch: must be a multiple of 3 devices, got 2"),
        ("--shard fsdp", "argument --shard: needs --devices of at least 2"),
        ("--width 30", "argument --width: must be a multiple of 4, got 30"),
    ),
)
def test_bad_options(refused, arguments, message):
    """One line says what is wrong and with which option."""
    assert message in refused(*arguments.split())


@pytest.mark.parametrize(
    ("text", "message"),
    (
        ("{", "chain.json: Expecting property name"),
        ('{"chainax": 1, "type": "scale_by_lr", "learning_rate": 0.1}', "chain.json: must hold a chain"),
        (
            '{"chainax": 1, "type": "chain", "links": [{"name": "a", "type": "scale_by_adam", "b1": 2}]}',
            "chain.json: `scale_by_adam.b1` must lie in [0, 1), got 2",
        ),
        (
            '{"chainax": 1, "type": "chain", "links": [{"name": "a", "type": "scale_by_adamm"}]}',
            "chain.json: unknown type 'scale_by_adamm' at a",
        ),
    ),
)
def test_bad_files(refused, tmp_path, text, message):
    """The file is named, and what is wrong in it."""
    path = tmp_path / "chain.json"
    path.write_text(text)
    assert message in refused("--optimizer", str(path))


def test_a_file_is_the_optimizer_that_it_holds(train_lm, tmp_path):
    """A chain goes through a file, and is edited like one that is made by name."""
    path, tx = tmp_path / "chain.json", cx.chain(cx.clip_by_global_norm(1.0), cx.adamw(0.1))
    path.write_text(json.dumps(cx.to_config(tx)))
    assert train_lm.from_file(path) == tx
    assert train_lm.with_decay(tx, "coupled", 0.5).names == (
        "clip_by_global_norm",
        "add_decayed_weights",
        "scale_by_adam",
        "scale_by_lr",
    )


def test_a_checkpoint_needs_a_directory(refused, tmp_path):
    """A file in its place, or above it, is named before anything is trained."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        assert f"argument --checkpoint: cannot write to '{path}'" in refused("--checkpoint", str(path))


def test_orbax_is_asked_for_by_name(refused, monkeypatch):
    """Without Orbax, the error says how to get it."""
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    assert 'needs Orbax: pip install "chainax[examples]"' in refused("--checkpoint", "run")


# The orders of the decay


@pytest.fixture(scope="module")
def lm_orders(train_lm) -> Iterator[ModuleType]:
    """The experiment as a module, on a smaller network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        module = importlib.import_module("lm_orders")
        for name, value in (("LAYERS", 1), ("WIDTH", 16), ("BATCH", 2)):
            patch.setattr(module, name, value)
        yield module


def test_groups_differ_in_the_place_of_the_decay(lm_orders):
    """Six groups of as many settings, with what the chains say of their decay."""
    groups = lm_orders.groups(100, 2)
    kinds = {"coupled": "coupled (L2", "decoupled": "decoupled (after", "independent": "independent (a step of its own"}
    assert [*groups] == [f"{name}, {order}" for name in ("AdamW", "Muon") for order in kinds]
    for name, chains in groups.items():
        assert len({repr(tx) for tx in chains}) == 4
        assert f"weight decay: {kinds[name.partition(', ')[2]]}" in chains[0].describe()
        assert ("scale_by_muon" in chains[0].describe()) == name.startswith("Muon")


def test_runs_of_the_orders_are_paired(lm_orders):
    """Runs of one seed begin alike whatever the chain, and those of another seed do not."""
    text = np.resize(np.arange(7, dtype=np.int32), 500)
    held_out = text[None, : 64 + 1]

    def twice(tx: cx.chain) -> dict[str, jax.Array]:
        return jax.lax.map(lambda seed: lm_orders.train(tx, seed, text, held_out, 7, 10), jax.numpy.arange(2))

    still, moving = (jax.device_get(quickly(twice)(cx.sgd(rate))) for rate in (0.0, 0.5))
    for of in (still, moving):
        assert of["losses"].shape == (2, 10)  # seed, point
        np.testing.assert_array_equal(of["losses"][:, -1], of["loss"])
    np.testing.assert_array_equal(still["losses"], np.broadcast_to(still["loss"][:, None], (2, 10)))
    assert still["loss"][0] != still["loss"][1]
    assert np.all(moving["loss"] < still["loss"])
