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
import jax
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


def test_readme_runs_as_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    """The README's Python blocks, one after the other, with nothing else; a reader's JAX promotes ranks."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    scope: dict[str, Any] = {}
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("error")
        for block in blocks:
            exec(block, scope)
    assert len(blocks) == 2
    assert scope["state"].step == 200
    assert scope["loss"](scope["params"]) < 1e-4
    said = capsys.readouterr().out
    assert said.index("weight decay: decoupled") < said.index("weight decay: coupled (L2")
    assert said.endswith("add_decayed_weights is moved after clip_by_global_norm\n")


def test_only_jax_is_needed_to_import() -> None:
    """Importing chainax brings in none of the libraries that tests and examples use."""
    forbidden = ("optax", "chex", "flax", "equinox", "torch", "matplotlib", "sklearn", "rich")
    code = f"import sys, chainax; print([m for m in {forbidden} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_import_brings_in_nothing_else() -> None:
    """After jax, no module from outside the library and the standard library: these took most of the time."""
    code = """
import sys, jax
before = set(sys.modules)
import chainax
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - {"chainax"} - set(sys.stdlib_module_names)))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_classes_of_the_library_are_declared_as_users_must() -> None:
    """Importing the library does not check its own classes, to be quick; here it does, and all of them pass."""
    code = """
import importlib.util, sys
spec = importlib.util.find_spec("chainax")
sys.modules["chainax"] = chainax = importlib.util.module_from_spec(spec)  # not executed yet
from chainax.core.values import declared
checked, check = [], declared.check_class
declared.is_own = lambda cls: False
declared.check_class = lambda cls: checked.append(cls.__name__) or check(cls)
spec.loader.exec_module(chainax)
print(len(chainax.core.values.value.TYPES) - len(set(checked)), len(checked))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    unchecked, checked = map(int, run.stdout.split())
    assert unchecked < 15, "plain values have no contract"
    assert checked > 150


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
    """And its stub, and the mark that it has types; of everything else it has nothing."""
    ours = {path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*.py*") if path.suffix != ".pyc"}
    ours |= {Path("py.typed")}
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
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({**options, "reportUnknownMemberType": False, "reportMissingTypeStubs": False})
    )
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
