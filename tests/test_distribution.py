"""The distributions as an index gets them: what they contain, their metadata, and tests from the unpacked source."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://github.com/someone/chainax"
SOURCES = ("benchmarks", "docs", "examples", "src", "tests")

pytestmark = pytest.mark.long


class Built(NamedTuple):
    """The archives, and the folders that they unpack to."""

    archives: list[Path]
    source: Path
    wheel: Path

    @property
    def metadata(self) -> Message:
        """That of the wheel."""
        (file,) = self.wheel.glob("*.dist-info/METADATA")
        return Parser().parsestr(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both distributions, as the workflow of a public repository makes them: the wheel from the unpacked source."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("distribution")
    skipped = shutil.ignore_patterns("__pycache__", ".*", "build", "dist", "site", "*.egg-info")
    shutil.copytree(ROOT, folder / "clone", ignore=skipped)
    shutil.copy(ROOT / ".gitignore", folder / "clone")
    run = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "clone"],
        env={**os.environ, "GITHUB_REPOSITORY": "someone/chainax", "GITHUB_SERVER_URL": "https://github.com"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (source,), (wheel,) = folder.glob("dist/*.tar.gz"), folder.glob("dist/*.whl")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "source", filter="data")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "wheel")
    (unpacked,) = (folder / "source").iterdir()
    return Built([source, wheel], unpacked, folder / "wheel")


def test_an_index_accepts_them(built: Built) -> None:
    """And renders their description."""
    pytest.importorskip("twine")
    check = [sys.executable, "-m", "twine", "check", "--strict", *built.archives]
    run = subprocess.run(check, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_the_source_has_all_files(built: Built) -> None:
    """All that the tests need."""
    left_out = ("__pycache__", "-quick.")

    def files(root: Path) -> set[str]:
        found = (path.relative_to(root) for name in SOURCES for path in (root / name).rglob("*") if path.is_file())
        return {str(path) for path in found if not any(part in str(path) for part in left_out)}

    assert files(built.source) == files(ROOT)
    assert (built.source / "Makefile").read_text() == (ROOT / "Makefile").read_text()


def test_links_of_the_readme_work_on_an_index(built: Built) -> None:
    """They are absolute, and lead to files of the release, pictures to their bytes; code is left as it is."""
    description = built.metadata.get_payload()
    assert isinstance(description, str)
    version = built.metadata["Version"]
    links = re.findall(rf"(!?)\[[^]]*\]\({REPOSITORY}/(raw|blob)/v{version}/([^)#]+)[^)]*\)", description)
    assert len(links) >= 5
    for picture, kind, target in links:
        assert (ROOT / target).exists(), target
        assert kind == ("raw" if picture else "blob")
    own = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
    assert code.findall(description) == code.findall(own)
    assert not re.search(r"\]\((?!https?:|#)", code.sub("", description)), "a relative link"


def test_metadata(built: Built) -> None:
    """The project's pages, and a classifier for each Python that the public workflow tests."""
    urls = dict(url.split(", ") for url in built.metadata.get_all("Project-URL", []))
    assert {*urls} == {"Source", "Documentation", "Changelog", "Issues"}
    assert all(url.startswith(REPOSITORY) for url in urls.values())
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    tested = set(re.findall(r'python: "(3\.\d+)"', workflow))
    classified = {c.rpartition(" ")[2] for c in built.metadata.get_all("Classifier", []) if "Python :: 3." in c}
    assert classified == tested
    assert built.metadata["Keywords"]


def test_tests_run_from_the_unpacked_source(built: Built) -> None:
    """All are collected, with the library from the wheel, and some of them pass."""
    path = os.pathsep.join([str(built.wheel), os.environ.get("PYTHONPATH", "")])

    def pytest_there(*options: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
        env = {**os.environ, "PYTHONPATH": path}
        run = subprocess.run(command, cwd=built.source, env=env, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout[-2000:]
        return run.stdout

    collected = pytest_there("--collect-only")
    assert int(re.findall(r"(\d+) tests collected", collected)[0]) > 10_000
    where = "import chainax; print(chainax.__file__)"
    assert "passed" in pytest_there("tests/test_decay.py")
    run = subprocess.run([sys.executable, "-c", where], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert run.stdout.decode().startswith(str(built.wheel))
