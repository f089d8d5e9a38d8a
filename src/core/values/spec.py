"""How the axes of an array are sharded along those of a mesh, as a value that names axes and holds no mesh."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jax.sharding import AbstractMesh, AxisType, Mesh
from jax.sharding import PartitionSpec as P

from .contents import code
from .tree import Names, Sizes, names_of, shards
from .value import Value, static, value


def axes_in(entries: Iterable[Names]) -> tuple[str, ...]:
    """All mesh axes in a `PartitionSpec`."""
    return tuple(name for entry in entries for name in names_of(entry))


def axes_of_kind(mesh: Mesh | AbstractMesh, kind: AxisType) -> tuple[str, ...]:
    """The explicit, automatic or manual axes of a mesh."""
    return tuple(name for name, each in zip(mesh.axis_names, mesh.axis_types) if each == kind)


def padded(entries: Sequence[Names] | P, ndim: int) -> tuple[Names, ...]:
    """The entries of a `PartitionSpec`, one for each axis of the array."""
    return (*entries, *(None for _ in range(ndim - len(entries))))


def only(entries: Sequence[Names] | P, names: Iterable[str], ndim: int = 0) -> P:
    """A `PartitionSpec` without the mesh axes that are not among ``names``, for ``ndim`` axes or as many as it has."""
    names = {*names}
    kept = (tuple(name for name in names_of(entry) if name in names) for entry in padded(entries, ndim))
    return P(*(entry[0] if len(entry) == 1 else entry or None for entry in kept))


def check_axes(where: str, x: object, limits: None = None) -> str | tuple[str, ...]:
    """The name of a mesh axis, or a tuple of names."""
    names = (x,) if isinstance(x, str) else tuple(x) if isinstance(x, (tuple, list)) else ()
    if not names or not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
        raise ValueError(f"`{where}` must name axes of a mesh, such as 'data' or ('pod', 'data'), got {code(x)}")
    return names[0] if len(names) == 1 else names


def _check_entries(where: str, x: Any, limits: None) -> tuple[Names, ...]:
    entries = tuple(x) if isinstance(x, (tuple, list, P)) else (x,)
    return tuple(entry if entry is None or isinstance(entry, str) else check_axes(where, entry) for entry in entries)


@value
class spec(Value):
    """The mesh axes along which each axis of a parameter is sharded, as an entry of a `by_path` table.

    A `PartitionSpec` in a table becomes a value of this kind, which can be stored as JSON.

    >>> import chainax as cx
    >>> from jax.sharding import PartitionSpec as P
    >>> cx.by_path({"kernel": P(None, "model")}, default=P())
    by_path({'kernel': spec((None, 'model'))}, default=spec(()))
    """

    axes: Any = static("for each axis of the array a mesh axis, a tuple of them, or None", check=_check_entries)

    @property
    def partition(self) -> P:
        """The same as a `PartitionSpec`."""
        return P(*self.axes)


TILE = (8, 128)
"""The rows and columns of a tile in the memory of a TPU, which pads shards that are not multiples of it."""


def spread(
    shape: tuple[int, ...], home: P, over: Iterable[str], mesh: Sizes, free: Iterable[int] | None = None
) -> tuple[P, str]:
    """A `PartitionSpec` that also divides an array along the mesh axes ``over``, one after the other.

    Each takes an axis of the array that it divides: one that is in one piece if there is any, before others one whose
    shards are whole tiles, and among these the first. Only axes in ``free`` are divided, by default all. Returns the
    spec, and why it lacks some of ``over`` if it does.
    """
    entries, lacking = list(padded(home, len(shape))), []
    free = range(len(shape)) if free is None else free
    for name in over:
        if mesh[name] == 1 or name in axes_in(entries):
            continue
        fits = [i for i in free if shape[i] and shape[i] % (shards(entries[i], mesh) * mesh[name]) == 0]
        if not fits:
            lacking.append(name)
            continue
        tiles = {i: shards(entries[i], mesh) * mesh[name] * (1, *TILE)[max(0, i - len(shape) + 3)] for i in fits}
        best = min(fits, key=lambda i: (entries[i] is not None, shape[i] % tiles[i] != 0, i))
        entries[best] = (*names_of(entries[best]), name) if entries[best] is not None else name
    why = " and ".join(f"no axis is a multiple of the {mesh[name]} shards along {name!r}" for name in lacking)
    return P(*entries), why
