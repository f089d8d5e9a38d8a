"""The examples run, strictly and with warnings as errors, and what they say follows from what they measure."""

import importlib
import os
import pathlib
import re
import runpy
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
STRICT = {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"}


def run(name: str, *arguments: str, directory: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run an example as a user does, away from the checkout and without a terminal."""
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"} | STRICT | {"PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


def held_out_errors(output: str) -> list[float]:
    """In percent, in order of appearance."""
    return [float(x) for x in re.findall(r"held-out error: ([\d.]+)%", output)]


def load(name: str) -> ModuleType:
    """An example as a module. Examples may import each other, as they lie in one directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def decay_order() -> ModuleType:
    """The example as a module."""
    return load("decay_order")


@pytest.fixture(scope="module")
def low_precision() -> ModuleType:
    """The example as a module."""
    return load("low_precision")


# Their options

OPTIONS = [
    (path.name, option, kind)
    for path in sorted(EXAMPLES.glob("*.py"))
    for option, kind in re.findall(r'add_argument\(\s*"(--[\w-]+)", type=(\w+)', path.read_text())
]


@pytest.mark.parametrize("name", sorted({name for name, *_ in OPTIONS}))
def test_numbers_out_of_range_end_before_training(name, monkeypatch, capsys):
    """Every number that an example takes: what is too small or no number is refused in a line, with status 2."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for option, kind in ((option, kind) for of, option, kind in OPTIONS if of == name):
        assert kind in ("at_least", "picture")
        for bad in ("-3", "0", "2.5", "many") if kind == "at_least" else ():
            monkeypatch.setattr(sys, "argv", [name, option, bad])
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(EXAMPLES / name), run_name="__main__")
            assert ended.value.code == 2
            said = capsys.readouterr()
            assert said.out == ""
            assert re.search(rf"argument {option}: must be an integer of at least \d, got '{bad}'$", said.err.strip())


def test_every_example_is_among_them():
    """None reads its arguments in another way."""
    assert {name for name, *_ in OPTIONS} == {path.name for path in EXAMPLES.glob("*.py")} - {"arguments.py"}
    assert all(
        path.read_text().count("add_argument(") == len([n for n, *_ in OPTIONS if n == path.name])
        for path in EXAMPLES.glob("*.py")
    )


# The loops


def test_swap_order_says_what_the_move_changes(tmp_path):
    """Both orders train, and the chains and their difference are shown."""
    done = run("swap_order.py", "--steps", "60", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    decoupled, coupled = held_out_errors(done.stdout)
    assert decoupled < 20  # percent; chance is 90
    assert coupled != decoupled
    assert "weight decay: decoupled (after the preconditioner)" in done.stdout
    assert "weight decay: coupled (L2: it passes through scale_by_adam)" in done.stdout
    assert "add_decayed_weights is moved after clip_by_global_norm" in done.stdout


@pytest.mark.parametrize("name", ("flax_nnx.py", "equinox_loop.py"))
def test_other_libraries_train_with_a_chain(name, tmp_path):
    """Flax NNX and Equinox take a chain, tables by path included."""
    done = run(name, "--steps", "60", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    (error,) = held_out_errors(done.stdout)
    assert error < 20  # percent; chance is 90
    assert "λ=by_path({'bias': 0}, default=0.1)" in done.stdout


# Sweeps and hypergradients


def test_sweep_prints_both_orders(tmp_path):
    """Two structures, two traces; the best setting is one of the table's, and small grids come out whole."""
    done = run("sweep.py", "--size", "2", "--steps", "60", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = re.findall(r"^│ [\d.]+ +│ +([\d.]+)% +│ +([\d.]+)% +│$", done.stdout, flags=re.MULTILINE)
    errors = [float(error) for row in rows for error in row]
    assert len(errors) == 8
    best = [float(x) for x in re.findall(r"best held-out error: ([\d.]+)%", done.stdout)]
    assert best == [min(errors[:4]), min(errors[4:])]
    assert max(best) < 20  # percent; chance is 90
    assert errors[:4] != errors[4:]
    assert "scale_by_adam → add_decayed_weights → scale → scale_by_lr, weight_decay=" in done.stdout
    assert "8 runs of 60 steps" in done.stdout
    assert "`train` was traced 2 times" in done.stdout


def test_hypergradients_tunes_and_compares(tmp_path):
    """The slopes agree with finite differences, and the tuned loss is the lower one."""
    done = run("hypergradients.py", "--steps", "20", "--outer-steps", "5", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    apart = re.findall(r"^│ (?:learning rate|weight decay) +│.*│ +(\S+) +│$", done.stdout, flags=re.MULTILINE)[:2]
    assert len(apart) == 2
    assert all(float(x) < 1e-6 for x in apart)
    ((before, after),) = re.findall(r"validation loss │ ([\d.]+) +│ ([\d.]+)", done.stdout)
    assert float(after) < float(before)


# The order of the weight decay


def test_decay_order_trains_both_grids_and_draws_them(tmp_path):
    """A small grid comes out as a table and a picture, and nothing else is written."""
    picture = tmp_path / "picture.png"
    done = run(
        "decay_order.py",
        *["--grid", "2", "--seeds", "2", "--epochs", "2", "--output"],
        str(picture),
        directory=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]
    assert "weight decay: coupled (L2: it passes through scale_by_adam)" in done.stdout
    assert "weight decay: decoupled (after the preconditioner)" in done.stdout
    assert "add_decayed_weights is moved to the front" in done.stdout
    rows = re.findall(r"^ +[\d.]+ │.*?([\d.]+)% ±.*?([\d.]+)% ±", done.stdout, flags=re.MULTILINE)
    assert len(rows) == 2
    assert all(0 < float(error) < 100 for row in rows for error in row)
    assert "16 runs in" in done.stdout


def valley(module: ModuleType, order: str, steepness: float, depth: float = 0.3, seeds: int = 3):
    """A grid of errors whose best decay goes as rate^steepness."""
    rates, decays = np.geomspace(1e-2, 1, 9), np.geomspace(1e-4, 1, 9)
    best = -2 + steepness * (np.log10(rates) + 1)
    errors = 0.1 + depth * np.abs(np.log10(decays)[None, :] - best[:, None])
    return module.Result(order, (), rates, decays, np.stack([errors + 1e-4 * s for s in range(seeds)], axis=-1))


@pytest.mark.parametrize(
    ("steepness", "words"),
    ((-1, "the smaller the best weight decay"), (0, "hardly depends"), (1, "the larger the best weight decay")),
)
@pytest.mark.parametrize("order", ("coupled", "decoupled"))
def test_the_words_follow_from_the_grid(decay_order, order, steepness, words):
    """Grids with a known slope are said to have that slope, whichever the order."""
    result = valley(decay_order, order, steepness)
    said = decay_order.in_words(result)
    assert words in said
    assert f"({order})" in said
    (measured,) = re.findall(r"has slope ([+-][\d.]+)", said)
    assert float(measured) == pytest.approx(steepness, abs=0.1)
    assert (decay_order.cost_of_keeping(result) > 0.01) == (steepness != 0)


def test_the_lower_error_is_named_and_a_tie_is_a_tie(decay_order):
    """The comparison goes by the errors, not by the names."""
    bad, good = valley(decay_order, "coupled", 0), valley(decay_order, "decoupled", 0)
    good = good._replace(errors=good.errors / 2)
    assert "the decoupled order gets 5.0%" in decay_order.comparison(bad, good)
    swapped = bad._replace(errors=good.errors), good._replace(errors=bad.errors)
    assert "the coupled order gets 5.0%" in decay_order.comparison(*swapped)
    assert "no more than chance" in decay_order.comparison(bad, good._replace(errors=bad.errors))


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ("--grid 1", "argument --grid: must be an integer of at least 2, got '1'"),
        ("--grid x", "argument --grid: must be an integer of at least 2, got 'x'"),
        ("--seeds 0", "argument --seeds: must be an integer of at least 1, got '0'"),
        ("--epochs -3", "argument --epochs: must be an integer of at least 1, got '-3'"),
        ("--output nowhere/a.png", "argument --output: cannot write to 'nowhere/a.png'"),
        ("--output picture", "argument --output: must end in .png, .pdf or .svg, got 'picture'"),
        ("--depth 3", "unrecognized arguments: --depth 3"),
    ),
)
def test_bad_options_end_before_training(decay_order, monkeypatch, capsys, arguments, message):
    """One line says what is wrong and with which option; the exit status is 2."""
    monkeypatch.setattr(decay_order, "sweep", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit) as ended:
        decay_order.main(arguments.split())
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_bad_option_is_status_2_for_the_shell(tmp_path):
    """The same, seen from outside."""
    done = run("decay_order.py", "--grid", "1", directory=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "at least 2" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_explains_the_options(decay_order, capsys):
    """Every option is listed, with its default."""
    with pytest.raises(SystemExit) as ended:
        decay_order.main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for option in ("--grid", "--seeds", "--epochs", "--output"):
        assert re.search(rf"{option} \w+ .*\(default: ", " ".join(out.split("options:")[1].split())), option


# Fewer bytes a parameter

WAYS = {  # and the bytes of each, counted by hand for one layer of width 64 whose norms, 0.3 %, stay in float32
    "nothing": 12.0,
    "bfloat16, nearest": 10.0,
    "bfloat16, stochastic": 10.0,
    "bfloat16, Kahan": 12.0,
    "bfloat16, ECC": 11.0,
    "state in int8": 4 + 2 * (1 + 4 / 256),
    "state in companded8": 4 + 2 * (1 + 4 / 256),
    "state in int4": 4 + 2 * (1 / 2 + 4 / 128),
}


def test_low_precision_trains_in_every_way(tmp_path):
    """A tiny network comes out as a table, in words and as a picture, and nothing else is written."""
    done = run(
        "low_precision.py",
        *["--steps", "10", "--seeds", "2", "--layers", "1", "--width", "64", "--output", "picture.png"],
        directory=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    rows = re.findall(r"^ (\S.*?) +│ +([\d.]+) │ +([\d.]+) ± [\d.]+ │(.*)", done.stdout, flags=re.MULTILINE)
    assert [name for name, *_ in rows] == list(WAYS)
    plain = float(rows[0][2])
    assert 2.5 < plain < 4.2  # nats; chance is 4.6, and the text another with every Python
    for name, held, loss, change in rows:
        assert float(held) == pytest.approx(WAYS[name], abs=0.06)
        assert float(loss) == pytest.approx(plain, abs=0.2)
        assert bool(re.search(r"[+-][\d.]+ ± [\d.]+", change)) == (name != "nothing")
        assert (f"\n{name}: " in done.stdout) == (name != "nothing")
    assert len({loss for _, _, loss, _ in rows}) > 4  # the ways differ
    assert "16 runs in" in done.stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    (
        ((0.001, 0.002, 0.003), "+0.0020, worse with every seed; within"),
        ((-0.2, -0.1, -0.3), "-0.2000, better with every seed; beyond"),
        ((0.5, 0.2, -0.1), "+0.2000, better or worse, depending on the seed; beyond"),
    ),
)
def test_the_words_follow_from_the_losses(low_precision, changes, words):
    """The change is taken seed by seed, and measured by the spread of the seeds."""
    losses = np.array([[5.0, 2.0], [5.0, 2.1], [5.0, 2.2]])
    base = low_precision.Result("float32", np.array([0, 9]), losses, 12.0)
    other = low_precision.Result("other", base.steps, losses + np.array([[0, c] for c in changes]), 10.0)
    said = low_precision.in_words(other, base)
    assert said == f"other: {words} the ±0.1000 by which float32 differs between seeds."


def test_nothing_that_is_held_out_is_trained_on(low_precision):
    """No held-out window is part of the training text, in which paragraphs are not repeated."""
    text = low_precision.language_reference()
    trained = text.train.astype(np.uint8).tobytes()
    assert text.size < 256
    assert len(trained) > 200_000
    seen = [window.astype(np.uint8).tobytes() in trained for window in text.held_out]
    assert sum(seen) <= 1  # the rule of a table
    assert text.held_out.shape == (low_precision.HELD_OUT, low_precision.CONTEXT + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ("--seeds 1", "argument --seeds: must be an integer of at least 2, got '1'"),
        ("--width 30", "argument --width: must be a multiple of 4, got 30"),
        ("--output nowhere/a.png", "argument --output: cannot write to 'nowhere/a.png'"),
    ),
)
def test_bad_options_of_low_precision(low_precision, monkeypatch, capsys, arguments, message):
    """As those of the other."""
    monkeypatch.setattr(low_precision, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit) as ended:
        low_precision.main(arguments.split())
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
