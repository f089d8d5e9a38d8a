"""The package as it is delivered: examples in docstrings, the door, and what type checkers see."""

import ast
import doctest
import functools
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


def test_public_names_are_documented() -> None:
    """Whatever comes through the door has a docstring, and so have its public methods."""
    for name, item in vars(cx).items():
        if name.startswith("_") or inspect.ismodule(item) or item in (object, float):
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
    assert len(blocks) == 7
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


def test_imports_run_one_way() -> None:
    """`chains` may import `transforms`, `transforms` may import `core`, and not the other way round."""
    middle = ("curves", "schedules", "cycles", "plotting", "sweeping", "transforms")
    layers = {"core": 0, **dict.fromkeys(middle, 1), "chains": 2}
    for path in (ROOT / "src").rglob("*.py"):
        mine = path.relative_to(ROOT / "src").parts[0].removesuffix(".py")
        if mine == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                names = (node.module or "").split(".") + [alias.name for alias in node.names]
                theirs = (
                    [layers[n] for n in names if n in layers]
                    if node.level == len(path.relative_to(ROOT / "src").parts)
                    else []
                )
                assert all(other <= layers[mine] for other in theirs), path


def test_only_jax_is_needed_to_import() -> None:
    """Importing chainax brings in none of the libraries that tests and examples use."""
    forbidden = ("optax", "chex", "flax", "equinox", "torch", "matplotlib", "sklearn", "rich")
    code = f"import sys, chainax; print([m for m in {forbidden} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_array_is_made_on_import() -> None:
    """Importing does not start a JAX backend, so that users can still configure it."""
    code = "import chainax, jax._src.xla_bridge as b; print(b.backends_are_initialized())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_type_checker_sees_the_installed_package(tmp_path: Path) -> None:
    """Installed as a user would, from a wheel, `tests/user_code.py` has the types that its comments claim."""
    pytest.importorskip("pyright")
    for part in ("src", "pyproject.toml", "README.md", "LICENSE"):  # building leaves files behind
        copy = shutil.copytree if part == "src" else shutil.copy
        (tmp_path / "chainax").mkdir(exist_ok=True)
        copy(ROOT / part, tmp_path / "chainax" / part)
    target = tmp_path / "site"
    run = functools.partial(subprocess.run, capture_output=True, text=True)
    run([sys.executable, "-m", "pip", "install", "--no-deps", "--target", target, tmp_path / "chainax"], check=True)
    source = (ROOT / "tests" / "user_code.py").read_text()
    (tmp_path / "user_code.py").write_text(source)
    options = {"include": ["user_code.py"], "extraPaths": [str(target)], "typeCheckingMode": "strict"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({**options, "reportUnknownMemberType": False}))
    checked = run([sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", tmp_path])
    lines = source.splitlines()
    wrong = {i + 1 for i, line in enumerate(lines) if line.endswith("# error")}
    reported = {
        int(line.split("user_code.py:")[1].split(":")[0])
        for line in checked.stdout.splitlines()
        if re.search(r":\d+ - error", line)
    }
    assert reported == wrong, checked.stdout
