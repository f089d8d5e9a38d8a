"""The examples run, strictly and with warnings as errors, and what they say follows from what they measure."""

import importlib
import os
import pathlib
import re
import runpy
import subprocess
import sys
from types import ModuleType

import jax
import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
SHARED = {"arguments.py", "checkpoints.py", "transformer.py"}  # modules of the examples, no programs
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
def low_precision() -> ModuleType:
    """The example as a module."""
    return load("low_precision")


@pytest.fixture(scope="module")
def muon() -> ModuleType:
    """The example as a module."""
    return load("muon")


@pytest.fixture(scope="module")
def transformer() -> ModuleType:
    """The network and the text of some examples."""
    return load("transformer")


# Their options

OPTIONS = [
    (path.name, option, kind)
    for path in sorted(EXAMPLES.glob("*.py"))
    for option, kind in re.findall(r'add_argument\(\s*"(--[\w-]+)", (?:type=)?(\w+)', path.read_text())
]
BAD = {  # for each kind of option, what is refused, and the words for it
    "at_least": (("-3", "0", "2.5", "many"), r"must be an integer of at least \d, got '{}'"),
    "positive": (("-3", "0", "nan", "inf", "many"), r"must be a number above 0, got '{}'"),
    "choices": (("many",), r"invalid choice: '{}' \(choose from .*\)"),
    "picture": ((), ""),
    "page": ((), ""),
    "folder": ((), ""),
    "metavar": ((), ""),  # a name or a path, which the example's own tests are about
    "action": ((), ""),
}


@pytest.mark.parametrize("name", sorted({name for name, *_ in OPTIONS}))
def test_numbers_out_of_range_end_before_training(name, monkeypatch, capsys):
    """Whatever an example takes: what is too small, no number or no choice is refused in a line, with status 2."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for option, kind in ((option, kind) for of, option, kind in OPTIONS if of == name):
        values, words = BAD[kind]
        for bad in values:
            monkeypatch.setattr(sys, "argv", [name, option, bad])
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(EXAMPLES / name), run_name="__main__")
            assert ended.value.code == 2
            said = capsys.readouterr()
            assert said.out == ""
            assert re.search(rf"argument {option}: {words.format(bad)}$", said.err.strip())


def test_every_example_is_among_them():
    """None reads its arguments in another way."""
    assert {name for name, *_ in OPTIONS} == {path.name for path in EXAMPLES.glob("*.py")} - SHARED
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


def test_kahan_summation_trains_what_rounding_loses(tmp_path):
    """In a training state of linen, with bfloat16 parameters."""
    done = run("flax_linen.py", "--steps", "150", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    nearest, kahan = (float(x) for x in re.findall(r"training loss: ([\d.]+)", done.stdout))
    assert kahan < nearest - 0.01
    assert all(error < 20 for error in held_out_errors(done.stdout))  # percent; chance is 90


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
    """A small grid comes out in words and as a picture, and nothing else is written."""
    picture = tmp_path / "picture.png"
    done = run(
        "decay_order.py",
        *["--grid", "2", "--seeds", "2", "--fresh", "3", "--epochs", "2", "--output"],
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
    assert "error, mean of 3 fresh" in done.stdout
    assert "mean of 2 in tuning" in done.stdout
    rows = re.findall(
        r"^(coupled|decoupled) .*step_size=.* ([\d.]+)  [\d.]+ to [\d.]+  0 of 3 runs .*0 of 8 runs$", done.stdout, re.M
    )
    assert [name for name, _ in rows] == ["coupled", "decoupled"]
    assert all(0 < float(error) < 100 for _, error in rows)
    assert "not significant: 3 seeds cannot reach p <= 0.05, 6 or more can" in done.stdout
    assert len(re.findall(r"log\(best weight_decay\) against log\(step_size\) has slope [+-][\d.]+", done.stdout)) == 2
    assert "22 runs in" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ("--grid 1", "argument --grid: must be an integer of at least 2, got '1'"),
        ("--output nowhere/a.png", "argument --output: cannot write to 'nowhere/a.png'"),
        ("--output picture", "argument --output: must end in .png, .pdf or .svg, got 'picture'"),
        ("--depth 3", "unrecognized arguments: --depth 3"),
    ),
)
def test_bad_options_end_before_training(monkeypatch, capsys, arguments, message):
    """One line says what is wrong and with which option; the exit status is 2."""
    module = load("decay_order")
    monkeypatch.setattr(sys, "argv", ["decay_order.py", *arguments.split()])
    monkeypatch.setattr(module, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_bad_option_is_status_2_for_the_shell(tmp_path):
    """The same, seen from outside."""
    done = run("decay_order.py", "--grid", "1", directory=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "at least 2" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_explains_the_options(monkeypatch, capsys):
    """Every option is listed, with its default."""
    monkeypatch.setattr(sys, "argv", ["decay_order.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        load("decay_order").main()
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for option in ("--grid", "--seeds", "--fresh", "--epochs", "--output"):
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


# The transformer


def test_nothing_that_is_held_out_is_trained_on(transformer):
    """No held-out window is part of the training text, in which paragraphs are not repeated."""
    text = transformer.language_reference()
    trained = text.train.astype(np.uint8).tobytes()
    assert text.size < 256
    assert len(trained) > 200_000
    seen = [window.astype(np.uint8).tobytes() in trained for window in text.held_out]
    assert sum(seen) <= 1  # the rule of a table
    assert text.held_out.shape == (transformer.HELD_OUT, transformer.CONTEXT + 1)


def test_no_prediction_sees_what_follows(transformer):
    """Another last character changes the last prediction and no other."""
    params = transformer.initial_params(jax.random.key(0), 7, 2, 8)
    text = np.arange(3 * transformer.CONTEXT).reshape(3, -1) % 7
    other = text.copy()
    other[:, -1] += 1
    before, after = transformer.logits(params, text), transformer.logits(params, other % 7)
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])
    assert np.all(np.any(before[:, -1] != after[:, -1], axis=-1))


def test_batches_are_windows_of_the_text(transformer):
    """From one end to the other, and others with another key."""
    text = np.arange(transformer.CONTEXT + 3)
    batch = transformer.random_batch(jax.random.key(0), text, 64)
    assert batch.shape == (64, transformer.CONTEXT + 1)
    assert set(batch[:, 0].tolist()) == {0, 1, 2}
    assert np.all(np.diff(batch, axis=1) == 1)
    assert np.any(batch != transformer.random_batch(jax.random.key(1), text, 64))


def test_loss_and_accuracy_of_a_certain_network(transformer):
    """A network that always predicts character 2 with certainty."""
    params = jax.tree.map(np.zeros_like, transformer.initial_params(jax.random.key(0), 7, 1, 8))
    params["norm"][0], params["character"][:, 0], params["out"][0, 2] = 1, 1, 100
    batch = np.full((2, transformer.CONTEXT + 1), 2)
    np.testing.assert_allclose(transformer.loss_and_accuracy(params, batch), (0, 1), atol=1e-6)
    batch[1] = 3
    np.testing.assert_allclose(transformer.loss_and_accuracy(params, batch), (50 * 8**0.5, 0.5), rtol=1e-4)
    assert transformer.loss(params, batch) == transformer.loss_and_accuracy(params, batch)[0]


# Muon


def test_muon_is_tuned_compared_and_drawn(muon, tmp_path):
    """A short run comes out as two tables and a picture, and nothing else is written."""
    picture = tmp_path / "picture.png"
    done = run(
        "muon.py",
        *["--steps", "10", "--rates", "2", "--seeds", "2", "--output", str(picture)],
        directory=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]
    number = r" +([\d.]+)"
    columns = rf"{number} │{number} │{number} ± [\d.]+ │{number}% │ +(\d+|not reached) │{number} *$"
    rows = re.findall(rf"^ (\w+) +│{columns}", done.stdout, flags=re.MULTILINE)
    assert [name for name, *_ in rows] == [*muon.CANDIDATES]
    best = {}
    for name, rate, decay, loss, accuracy, steps, state in rows:
        assert float(rate) in muon.RATES
        assert float(decay) in muon.CANDIDATES[name][1]
        assert 2.5 < float(loss) < 4.2  # nats; chance is 4.6, and the text another with every Python
        assert 5 < float(accuracy) < 40
        assert float(state) == pytest.approx(BYTES[name], abs=0.06)
        assert name != "AdamW" or 0 < int(steps) <= 10
        assert f"{name}'s best learning rate is the {'smallest' if float(rate) == 2e-3 else 'largest'}" in done.stdout
        best[name] = loss
    orders = re.findall(r"^ (\S.* Muon.*?) +│ +([\d.]+) ± [\d.]+ │ +([+-][\d.]+)?", done.stdout, flags=re.MULTILINE)
    assert [order for order, *_ in orders] == ["λ = 0.1 behind Muon, as above", *muon.orders(tuned(muon))]
    assert orders[0][1:] == (best["Muon"], "")
    for _, loss, change in orders[1:]:
        assert float(change) == pytest.approx(float(loss) - float(best["Muon"]), abs=0.002)
    assert f"{len(muon.CANDIDATES) * 6 + 8} runs in" in done.stdout


BYTES = {  # of 147456 numbers in hidden matrices, 12·64² a layer, and 17728 others: 4 for each slot
    "AdamW": 8.0,
    "Muon": (147456 * 4 + 17728 * 8) / 165184,
    "SOAP": (147456 * 8 + 3 * 4 * (16 * 64**2 + 4 * (64**2 + 256**2)) + 17728 * 8) / 165184,
}


def tuned(module: ModuleType):
    """Muon with some setting."""
    return module.muon(module.schedule(1e-2, 100), 0.9)


def test_orders_of_muon_are_what_they_are_called(muon):
    """Each holds the links of Muon, and none changes what the other parameters have."""
    tx = tuned(muon)
    links = {name: other["partition"].table.default.names for name, other in muon.orders(tx).items()}
    assert list(links.values()) == [
        ("add_decayed_weights", "scale_by_muon", "scale_by_lr"),
        ("add_decayed_weights", "scale_by_muon", "scale_by_lr"),
        ("clip_by_global_norm", "scale_by_muon", "add_decayed_weights", "scale_by_lr"),
        ("scale_by_muon", "clip_by_global_norm", "add_decayed_weights", "scale_by_lr"),
    ]
    for name, other in muon.orders(tx).items():
        decay = other["partition"].table.default["add_decayed_weights"].weight_decay
        assert f"λ = {decay}" in name or "clip" in name
        assert other["partition"].table.table == tx["partition"].table.table


def test_steps_to_a_loss_and_the_ends_of_the_grid(muon):
    """Steps are counted on straight lines between the points of the mean curve."""
    curve = np.linspace(4, 2.2, muon.POINTS)  # by 0.2 every 10 steps, first at step 10
    losses = np.stack([curve - 0.5, curve + 0.5])

    def result(name, best):
        tuning = np.ones((3, 2))
        tuning[best, 1] = 0
        tuning[0, 0] = np.nan
        return muon.Result(name, np.array([1, 2, 3]), tuning, tuned(muon), losses, losses)

    assert [muon.steps_to(loss, result("a", 0), 100) for loss in (2.2, 2.3, 3.8)] == ["100", "95", "20"]
    assert muon.steps_to(2.1, result("a", 0), 100) == "not reached"
    assert result("a", 2).best == (2, 1)
    low, high = muon.edges([result("a", 0), result("b", 1), result("c", 2)])
    assert low.startswith("a's best learning rate is the smallest")
    assert high.startswith("c's best learning rate is the largest")


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ("--steps 15", "argument --steps: must be a multiple of 10, got 15"),
        ("--rates 1", "argument --rates: must be an integer of at least 2, got '1'"),
        ("--output nowhere/a.png", "argument --output: cannot write to 'nowhere/a.png'"),
    ),
)
def test_bad_options_of_muon(muon, monkeypatch, capsys, arguments, message):
    """As those of the others."""
    monkeypatch.setattr(muon, "compare", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit) as ended:
        muon.main(arguments.split())
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
