"""The package as it is delivered: examples in docstrings, the door, and what type checkers see."""

import doctest
import importlib
import inspect
import json
import pkgutil
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import chainax as cx
import chainax.extend as cxe
import chex
import jax
import jax.numpy as jnp
import pytest

ROOT = Path(__file__).parent.parent
MODULES = [module.name for module in pkgutil.walk_packages(cx.__path__, "chainax.")]


@pytest.mark.parametrize("module", MODULES)
def test_doctests(module: str) -> None:
    """Every example in a docstring does what it says."""
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("door", (cx, cxe), ids=("main", "extend"))
def test_public_names_are_documented(door: Any) -> None:
    """Whatever comes through a door has a docstring, and so have its public methods."""
    for name in door.__all__:
        item = getattr(door, name)
        if item is float:  # `Hyper`, as it is when the program runs
            continue
        assert inspect.getdoc(item), name
        for method, member in vars(item).items() if inspect.isclass(item) else ():
            if inspect.isfunction(member) and not method.startswith(("_", "tree_")):
                assert inspect.getdoc(getattr(item, method)), f"{name}.{method}"


def test_readme_runs_as_written() -> None:
    """The README's Python blocks, one after the other, with the names that a reader would have."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    params = {"w": jnp.ones((3, 2)), "bias": jnp.zeros(2)}

    def loss(params: Any, batch: Any) -> jax.Array:
        return jnp.sum((batch @ params["w"] + params["bias"][None]) ** 2)

    def train(tx: Any) -> jax.Array:
        state, trained = tx.init(params), params
        for _ in range(2):
            trained, state = tx.step(trained, state, jax.grad(loss)(trained, jnp.ones((4, 3))))
        return loss(trained, jnp.ones((4, 3)))

    batch = jnp.ones((4, 3))
    scope: dict[str, Any] = {"params": params, "loss": loss, "train": train, "jnp": jnp, "batch": batch}
    scope.update(rates=(0.01, 0.1), decays=(0.0, 0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            exec(block, scope)
    assert len(blocks) == 8
    tx, state, closed, given = (scope[name] for name in ("tx", "state", "train_step", "train_step_with"))
    assert state.step == 1
    # An edit changes nothing in the function that closes over the chain, and takes no compilation in the other.
    before = closed(params, state, batch)
    scope["tx"] = still = tx.replace(
        "scale_by_lr", learning_rate=cx.warmup_cosine_decay_schedule(0.0, 0.0, 100, 10_000)
    )
    assert (before[0]["w"] != params["w"]).all()
    chex.assert_trees_all_equal(closed(params, state, batch), before)
    chex.assert_trees_all_close(given(tx, params, state, batch), before)
    chex.assert_trees_all_equal(given(still, params, state, batch)[0], params)
    assert given._cache_size() == 1
    assert scope["losses"].shape == (4,)
    assert "scale_by_quadratic_mean(eps=0)" in repr(scope["scale_by_quadratic_mean"](eps=0.0))


def test_only_jax_is_needed_to_import() -> None:
    """Importing chainax brings in none of the libraries that tests and examples use."""
    forbidden = ("optax", "chex", "flax", "equinox", "torch", "matplotlib", "sklearn", "rich")
    code = f"import sys, chainax; print([m for m in {forbidden} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_array_is_made_on_import() -> None:
    """Importing does not start a JAX backend, so that users can still configure it."""
    code = "import chainax, jax._src.xla_bridge as b; print(b.backends_are_initialized())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel unpacks to, built as a user's pip does but for the download of setuptools."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", folder / "chainax" / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):  # a copy, as building leaves files behind
        shutil.copy(ROOT / file, folder / "chainax")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", folder / "chainax"]
    subprocess.run(build, check=True, capture_output=True, cwd=folder)
    (built,) = folder.glob("*.whl")
    shutil.unpack_archive(built, folder / "site", format="zip")
    return folder / "site"


def test_the_wheel_has_every_module(wheel: Path) -> None:
    """And the mark that it has types; of everything else it has nothing."""
    ours = {path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*.py")} | {Path("py.typed")}
    assert {path.relative_to(wheel / "chainax") for path in (wheel / "chainax").rglob("*") if path.is_file()} == ours
    assert [path.name for path in wheel.iterdir() if path.suffix != ".dist-info"] == ["chainax"]


def test_every_module_of_the_wheel_can_be_imported(wheel: Path) -> None:
    """Where there is nothing else of chainax."""
    code = f"""
import sys, importlib, pkgutil
sys.path.insert(0, {str(wheel)!r})
import chainax
for module in pkgutil.walk_packages(chainax.__path__, "chainax."):
    assert importlib.import_module(module.name).__file__.startswith({str(wheel)!r}), module.name
    print(module.name)
"""
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, cwd=wheel)
    assert run.returncode == 0, run.stderr
    assert sorted(run.stdout.split()) == sorted(MODULES)


def test_type_checker_sees_the_installed_package(tmp_path: Path, wheel: Path) -> None:
    """From a wheel, as a user has it, `tests/user_code.py` has the types that its comments claim."""
    pytest.importorskip("pyright")
    source = (ROOT / "tests" / "user_code.py").read_text()
    (tmp_path / "user_code.py").write_text(source)
    options = {"include": ["user_code.py"], "extraPaths": [str(wheel)], "typeCheckingMode": "strict"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({**options, "reportUnknownMemberType": False}))
    pyright = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", tmp_path]
    checked = subprocess.run(pyright, capture_output=True, text=True, check=False)
    lines = source.splitlines()
    wrong = {i + 1 for i, line in enumerate(lines) if line.endswith("# error")}
    reported = {
        int(line.split("user_code.py:")[1].split(":")[0])
        for line in checked.stdout.splitlines()
        if re.search(r":\d+ - error", line)
    }
    assert reported == wrong, checked.stdout
