"""The command line, by its function; and once as it is called."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import chainax as cx
import jax
import pytest
from chainax.command_line import COMMANDS, main
from chainax.core.values.value import Value

ADAMW = cx.chain(cx.clip_by_global_norm(1.0), cx.adamw(1e-3))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a chain, or anything, as JSON into the working directory, and returns the name of the file."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: Any) -> str:
        config = cx.to_config(content) if isinstance(content, Value) else content
        Path(name).write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
        return name

    return write


def test_describe(file, capsys):
    """Prints what the method returns."""
    assert main(["describe", file("a.json", ADAMW)]) == 0
    assert capsys.readouterr() == (ADAMW.describe() + "\n", "")


def test_a_warning_about_the_order_goes_to_stderr(file, capsys):
    """Once, with the file."""
    tx = {"type": "chain", "chainax": 1, "links": []}
    for name, link in (("lr", cx.scale_by_lr(0.1)), ("decay", cx.add_decayed_weights(0.1))):
        config = cx.to_config(link)
        del config["chainax"]
        tx["links"].append({"name": name, **config})
    assert main(["describe", file("a.json", tx)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("lr")
    assert err.startswith("a.json: warning: 'decay' comes after 'lr' has flipped the sign")
    assert len(err.splitlines()) == 1


def test_diff(file, capsys):
    """As diff(1) does: nothing and 0 for equal chains, the differences and 1 for others."""
    a, b = file("a.json", ADAMW), file("b.json", cx.adamw(1e-4))
    assert main(["diff", a, file("c.json", ADAMW)]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["diff", a, b]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["clip_by_global_norm(1) is removed", "scale_by_lr.learning_rate: 0.001 → 0.0001"]
    assert err == ""


def test_orders(file, capsys):
    """Of all decays and clips, or of those named."""
    a = file("a.json", ADAMW)
    assert main(["orders", a, "--move", "add_decayed_weights"]) == 0
    assert capsys.readouterr().out == str(cx.orders(ADAMW, ["add_decayed_weights"])) + "\n"
    assert main(["orders", file("b.json", cx.chain(cx.clip(1.0), cx.scale(2.0), cx.scale_by_lr(0.1)))]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("before scale_by_lr  ")


BAD: dict[str, tuple[Any, str]] = {
    "field": (
        {"chainax": 1, "type": "chain", "links": [{"name": "a", "type": "scale_by_adam", "b3": 1}]},
        "`scale_by_adam` has no field 'b3'; its fields are b1, b2, eps, eps_root, storage at a",
    ),
    "type": ({"chainax": 1, "type": "scale_by_adm"}, "unknown type 'scale_by_adm' (did you mean 'scale_by_adam'"),
    "value": ({"chainax": 1, "type": "scale_by_lr", "learning_rate": -1.0}, "`scale_by_lr.learning_rate` must lie in"),
    "version": ({"chainax": 2}, "this chainax reads configurations of version 1, got version 2"),
    "other": ({"learning_rate": 0.1}, "a chainax configuration is a dict with the key 'chainax', got one without it"),
    "list": ([1], "a chainax configuration is a dict with the key 'chainax', got a list"),
    "text": ("tx = 3", "not JSON: Expecting value: line 1 column 1 (char 0)"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "schedule": (
        cx.linear_schedule(1.0, 0.0, 5),
        "holds linear_schedule(1, 0, 5), which is neither a chain nor a link",
    ),
}


def quick(tx: Any, seed: Any) -> Any:
    """The rate, with a little noise."""
    return tx["scale_by_lr"].learning_rate + 0.01 * jax.random.normal(jax.random.key(seed))


def test_report(tmp_path, monkeypatch, capsys):
    """Writes the page of a folder, there or elsewhere; what is no comparison is told in a line, with status 1."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    cx.compare(quick, {"sgd": cx.sgd(0.1), "adam": cx.adam(0.2)}, seeds=6, folder="runs", progress=False)
    assert main(["report", "runs"]) == 0
    assert capsys.readouterr().out == f"{Path('runs/report.html')}\n"
    assert main(["report", "runs", "--output", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert page == Path("runs/report.html").read_text(encoding="utf-8")
    assert "sgd is better than adam" in page
    capsys.readouterr()
    for arguments, words in (
        (["nothing"], "index.json does not exist: nothing is not the folder of a sweep"),
        (["runs", "--output", "page.txt"], "must end in .html, got 'page.txt'"),
        (["runs", "--output", "nowhere/page.html"], "there is no folder 'nowhere'"),
    ):
        assert main(["report", *arguments]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("python -m chainax report: ")
        assert words in said.err
        assert said.err.count("\n") == 1


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("command", ("describe", "orders", "diff"))
def test_bad_files(what, command, file, capsys):
    """One line that names the file and, where one is known, the key; no traceback."""
    content, message = BAD[what]
    good = [file("good.json", ADAMW)] if command == "diff" else []
    assert main([command, *good, file("bad.json", content)]) == (2 if command == "diff" else 1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"python -m chainax {command}: bad.json: {message}")
    assert len(err.splitlines()) == 1


def test_files_that_cannot_be_read(file, capsys):
    """A missing one, a folder, and bytes that are no text."""
    Path("bytes.json").write_bytes(b"\xff\xfe")
    for name, why in (
        (".", "Is a directory"),
        ("no.json", "No such file or directory"),
        ("bytes.json", "not text in UTF-8"),
    ):
        assert main(["describe", name]) == 1
        assert capsys.readouterr().err == f"python -m chainax describe: {name}: {why}\n"


def test_orders_that_cannot_be_made(file, capsys):
    """For a name that is not there, and a chain without anything to move."""
    assert main(["orders", file("a.json", ADAMW), "--move", "adam"]) == 1
    assert capsys.readouterr().err.startswith("python -m chainax orders: a.json: no link named 'adam'")
    assert main(["orders", file("b.json", cx.adam(0.1))]) == 1
    assert "b.json: `orders.move` is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", ([], ["describe"], ["diff", "a.json"], ["explain", "a.json"], ["describe", "--x", "a"])
)
def test_usage(argv, capsys):
    """Exit code 2, and how it is used."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m chainax")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, capsys):
    """Of each subcommand, that begins as it is called."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"example: python -m chainax {command} " in " ".join(capsys.readouterr().out.split())


def test_the_module_is_a_program():
    """It lists its subcommands."""
    done = subprocess.run([sys.executable, "-m", "chainax", "--help"], capture_output=True, text=True, check=True)
    assert all(f"\n    {command} " in done.stdout for command in COMMANDS)
    assert "example: python -m chainax describe adamw.json" in done.stdout
