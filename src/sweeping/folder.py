"""A sweep's results in a folder: written batch by batch, and read when the sweep is called again.

``index.json`` has the chains as configurations, the parts of the sweep with the number of runs at once in each, what
was trained on what, and versions. Each part has a folder with one ``.npz`` a batch, so a batch is there or it is not.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ..core.facade.config import from_config, to_config
from ..core.values.contents import code
from ..core.values.warning import ChainWarning, warn
from .devices import available
from .identity import digest, source_of, train_name

VERSION = 1

Run = tuple[int, int | None]
"""One call of the training function: the index of a chain, and a seed, ``None`` if it takes none."""
Row = dict[str, np.ndarray]
"""The results of a run by name."""


class Part(NamedTuple):
    """Runs of one structure that are compiled together, at most so many at once (see `layout`)."""

    number: int
    runs: list[Run]
    most: int


class Folder:
    """An open folder."""

    def __init__(self, path: pathlib.Path, index: dict[str, Any]) -> None:
        self.path, self.index = path, index
        self._keys = {json.dumps(x, sort_keys=True): i for i, x in enumerate(index["chains"])}

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Folder:
        """Open a folder. Errors: ``FileNotFoundError`` without an index, ``ValueError`` for one that is no index."""
        path = pathlib.Path(path)
        file = path / INDEX
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist: {path} is not the folder of a sweep")
        try:
            index = json.loads(file.read_text(encoding="utf-8"))
            version = index["version"]
            if version == VERSION and (missing := FIELDS - index.keys()):
                raise KeyError(*sorted(missing))
        except (ValueError, KeyError, TypeError) as e:
            raise ValueError(f"{file} is not the index of a sweep: {type(e).__name__}: {e}") from None
        if version != VERSION:
            raise ValueError(f"{file} has version {code(version)}, and this chainax reads version {VERSION}")
        return cls(path, index)

    @classmethod
    @contextlib.contextmanager
    def writing(cls, caller: str, path: str | os.PathLike[str], identity: dict[str, Any]) -> Iterator[Folder]:
        """Open a folder for a training function and arguments, or create it. No other process may write to it.

        Errors: ``ValueError`` if its results are of another function, other arguments or other settings of JAX;
        ``RuntimeError`` while another process writes to it. Warns of other versions than those that it was begun with.
        """
        where = f"`{caller}.folder`"
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"{where} must be a path, got {code(path)}")
        path = pathlib.Path(path)
        if path.exists() and not path.is_dir():
            raise ValueError(f"{where} {str(path)!r} is a file: give the name of a folder")
        where += f" {str(path)!r}"
        path.mkdir(parents=True, exist_ok=True)
        with _alone(where, path):
            if (path / INDEX).exists():
                folder = cls.read(path)
                folder._check(where, identity)
            elif any(x.name not in (LOCK, _partial(path / INDEX).name) for x in path.iterdir()):
                raise ValueError(f"{where} has other files in it: give a new folder")
            else:
                folder = cls(path, {"version": VERSION, **identity, "chains": [], "parts": []})
                folder.save()
            yield folder

    def _check(self, where: str, identity: dict[str, Any]) -> None:
        """Raise unless the results in the folder are of this function, these arguments and these settings."""
        remedy = "give another folder, or delete this one"
        if self.index["digest"] != identity["digest"]:
            same = " (whose source, closure or globals differ)" if self.index["train"] == identity["train"] else ""
            raise ValueError(f"{where} has results of another `train`, {self.index['train']}{same}: {remedy}")
        if self.index["arguments"] != identity["arguments"]:
            pairs = zip(self.index["arguments"], identity["arguments"])
            which = [str(i) for i, (a, b) in enumerate(pairs) if a != b] or ["their number"]
            raise ValueError(f"{where} has results for other arguments (args: {', '.join(which)}): {remedy}")
        if changed := _changed(self.index["settings"], identity["settings"]):
            raise ValueError(
                f"{where} has results with other settings of JAX ({changed}): set them as then, or {remedy}"
            )
        if changed := _changed(self.index["versions"], identity["versions"]):
            warn(f"{where} was begun with others ({changed}): rows may differ")

    # Runs

    def add_chains(self, chains: Sequence[Any]) -> list[int]:
        """The numbers of these chains in the folder, to which those that are new are added."""
        found = []
        for tx in chains:
            config = to_config(tx)
            key = json.dumps(config, sort_keys=True)
            if key not in self._keys:
                self._keys[key] = len(self._keys)
                self.index["chains"].append(config)
            found.append(self._keys[key])
        return found

    def chain(self, number: int) -> Any:
        """One of the chains in the folder. Its order was warned about when it was first swept."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ChainWarning)
            return from_config(self.index["chains"][number])

    def parts(self) -> list[Part]:
        """Those that were begun."""
        return [
            Part(i, [(c, seed) for c, seed in part["runs"]], part["most"]) for i, part in enumerate(self.index["parts"])
        ]

    def begin(self, runs: Sequence[Run], most: int) -> Part:
        """Add a part."""
        self.index["parts"].append({"runs": [list(run) for run in runs], "most": most})
        self.save()
        return self.parts()[-1]

    def rows(self, part: Part) -> dict[Run, Row]:
        """The results of the runs of a part that are done."""
        found: dict[Run, Row] = {}
        for file in sorted(self._of(part).glob("*.npz")):
            which, columns = self._load(file)
            for k, i in enumerate(which):
                found[part.runs[i]] = {name: x[k] for name, x in columns.items()}
        return found

    def _load(self, file: pathlib.Path) -> tuple[list[int], dict[str, np.ndarray]]:
        try:
            with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            which, columns = found.pop(RUNS).tolist(), {}
            for key, x in found.items():  # NumPy stores the dtypes of JAX, such as bfloat16, as bytes
                dtype, _, name = key.partition(":")
                columns[name] = x.view(np.dtype(dtype))
        except Exception as e:
            raise ValueError(f"{file} cannot be read ({e}): delete it, and its runs are made anew") from None
        return which, columns

    def add(self, part: Part, which: Sequence[int], rows: Sequence[Row]) -> None:
        """Write a batch: the results of some runs of a part, by their places in it."""
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        folder = self._of(part)
        folder.mkdir(exist_ok=True)
        with _replaced(folder / f"{which[0]:06d}.npz") as file:
            arrays = {f"{x.dtype}:{name}": x for name, x in columns.items()}
            np.savez(file, allow_pickle=False, **{RUNS: np.array(which)}, **arrays)

    def _of(self, part: Part) -> pathlib.Path:
        return self.path / f"part-{part.number:04d}"

    def save(self) -> None:
        """Write the index."""
        write_json(self.path / INDEX, self.index)


def identity_of(train: Any, args: Sequence[Any]) -> dict[str, Any]:
    """What a folder's results are of."""
    return {
        "train": train_name(train),
        "source": source_of(train),
        "digest": digest(train),
        "arguments": [digest(x) for x in args],
        "versions": versions(),
        "settings": settings_of_jax(),
    }


def versions() -> dict[str, str]:
    """What the last bits of a row may depend on."""
    here, package = available(), sys.modules[__name__.partition(".")[0]]
    return {
        "chainax": getattr(package, "__version__", "unknown"),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "devices": f"{len(here)} {here[0].device_kind}",
    }


def settings_of_jax() -> dict[str, str]:
    """The settings of JAX that results depend on."""
    names = "jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable"
    return {name: str(getattr(jax.config, name)) for name in names}


def _changed(old: dict[str, str], new: dict[str, str]) -> str:
    """What differs, as text; empty if nothing does."""
    return ", ".join(f"{name} {old.get(name)} → {new[name]}" for name in new if old.get(name) != new[name])


def write_json(path: pathlib.Path, data: Any) -> None:
    """Write a file as a whole, or not at all."""
    with _replaced(path) as file:
        file.write(json.dumps(data, indent=1, ensure_ascii=False).encode())


@contextlib.contextmanager
def _replaced(path: pathlib.Path) -> Iterator[Any]:
    """A file that takes its place once it is written."""
    partial = _partial(path)
    with open(partial, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _partial(path: pathlib.Path) -> pathlib.Path:
    """What a file is called while it is written."""
    return path.with_name(f".{path.name}.partial")


INDEX, LOCK, RUNS = "index.json", ".lock", "runs"
FIELDS = {"version", "train", "source", "digest", "arguments", "versions", "settings", "chains", "parts"}
"""Those of the index."""


@contextlib.contextmanager
def _alone(where: str, path: pathlib.Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process. Without effect where the system has none."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuntimeError(f"{where}: another process is writing to it") from None
        yield
