"""The memory that parameters and a state take on each device, computed from shapes before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, SingleDeviceSharding

from ..engine import engine
from ..engine.blocks import int8
from ..engine.protocol import ChainLike
from ..engine.state import State
from ..engine.storage import storage
from ..values.spec import axes_in, spread
from ..values.text import aligned
from ..values.tree import dtype_of, flatten, is_trainable
from ..values.types import Leaf, Params, PyTree
from .parts import all_links

AS_IT_IS, HALF, CODES, OFFLOADED = "as it is", "store(tx, 'bfloat16')", "store(tx, int8())", "offload(state)"
PARAMS, SCALES, OTHERS, TOTAL = "parameters", "scales of codes", "counters and other scalars", "total"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Memory(NamedTuple):
    """Bytes a device: for a chain as it is and for what could be done, by parameters, slots and the rest.

    The parameters come first, then the slots of each link, as ``"link.slot"``. It prints as a table.
    """

    columns: dict[str, dict[str, int]]
    """Bytes by row, for each column."""

    def total(self, column: str = AS_IT_IS) -> int:
        """All bytes of a column."""
        return sum(self.columns[column].values())

    def __str__(self) -> str:
        rows = list(dict.fromkeys(row for column in self.columns.values() for row in column))
        rows = sorted(rows, key=lambda row: {SCALES: 1, OTHERS: 2}.get(row, 0))
        power = min(int(math.log(max(1, *map(self.total, self.columns)), 1024)), len(UNITS) - 1)

        def shown(bytes_: int | None) -> str:
            return "" if bytes_ is None else f"{bytes_ / 1024**power:,.{2 if power else 0}f}"

        cells = [[f"{UNITS[power]} a device", *self.columns]]
        cells += [[row, *(shown(column.get(row)) for column in self.columns.values())] for row in rows]
        cells += [[TOTAL, *(shown(self.total(column)) for column in self.columns)]]
        return aligned(cells)

    __repr__ = __str__


def memory(tx: Any, params: Params) -> Memory:
    """See `Transformation.memory`."""
    params = _shapes(params)
    columns = {AS_IT_IS: _bytes(tx, params)}
    coded = tx._stored(storage(), int8())
    for name, stored in ((HALF, tx._stored(storage(), "bfloat16")), (CODES, coded)):
        columns[name] = _bytes(stored, params)
    over, apart = _spread(params)
    reduces = any(link.per_example for link in tx.links.values())  # such a link cannot be within another
    if over and not reduces and not _holds(tx, "zero1"):
        names = repr(over[0] if len(over) == 1 else over)
        for name, spread_chain in (
            (f"zero1(tx, over={names})", tx),
            (f"zero1(store(tx, int8()), over={names})", coded),
        ):
            columns[name] = {**_bytes(spread_chain, apart), PARAMS: columns[AS_IT_IS][PARAMS]}
            columns[name][OTHERS] += 4  # its own counter of steps
    columns[OFFLOADED] = {row: n if row in (PARAMS, OTHERS) else 0 for row, n in columns[AS_IT_IS].items()}
    return Memory(columns)


def _holds(tx: ChainLike, kind: str) -> bool:
    """Whether a link of this class is in the chain, or in one that it holds."""
    return any(type(link).__name__ == kind for _, link in all_links(tx))


def _shapes(params: Params) -> Params:
    """The trained parameters as shapes with shardings: on one device if none has a mesh."""
    flat = flatten(params)
    here = SingleDeviceSharding(jax.local_devices()[0])

    def shape(p: Leaf) -> Leaf:
        if not is_trainable(p):
            return None
        return jax.ShapeDtypeStruct(np.shape(p), dtype_of(p), sharding=getattr(p, "sharding", None) or here)

    return flat.build([shape(p) for p in flat.leaves])


def _spread(params: Params) -> tuple[tuple[str, ...], Params]:
    """The mesh axes along which no parameter is sharded, and the parameters divided along them, as by `zero1`."""
    leaves = [p for p in jax.tree.leaves(params) if isinstance(p.sharding, NamedSharding)]
    if not leaves:
        return (), params
    sizes = leaves[0].sharding.mesh.shape
    used = {name for p in leaves for name in axes_in(p.sharding.spec)}
    over = tuple(name for name, n in sizes.items() if n > 1 and name not in used)
    if len({*leaves[0].sharding.mesh.axis_types}) > 1:
        return (), params  # `zero1` takes axes of one kind, and needs to be told how the others are used

    def apart(p: Any) -> Any:
        if not isinstance(p.sharding, NamedSharding):
            return p
        spec, _ = spread(p.shape, p.sharding.spec, over, sizes)
        return jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=NamedSharding(p.sharding.mesh, spec))

    return over, jax.tree.map(apart, params)


def _bytes(tx: ChainLike, params: Params) -> dict[str, int]:
    """Bytes a device of the parameters and the state."""
    found = {PARAMS: sum(map(_of_array, jax.tree.leaves(params)))}
    state = engine.abstract_state(tx.links, params)
    for row, n in [*_rows(state), (OTHERS, _of_array(state.step))]:
        found[row] = found.get(row, 0) + n
    return found


def _rows(state: State, prefix: str = "") -> Iterator[tuple[str, int]]:
    """The rows of a state and of the states within, and bytes."""
    for name, entry in state.links.items():
        for key, x in entry.items() if type(entry) is dict else [("", entry)]:
            label = f"{prefix}{name}{'.' if key else ''}{key}"
            for part in jax.tree.leaves(x, is_leaf=lambda x: isinstance(x, State) or _is_coded(x)):
                if isinstance(part, State):
                    yield from _rows(part, f"{prefix}{name}/")
                    yield OTHERS, _of_array(part.step)
                elif _is_coded(part):
                    yield from ((SCALES if key == "scale" else label, _of_array(a)) for key, a in part.items())
                else:
                    yield label if part.ndim else OTHERS, _of_array(part)


def _is_coded(x: PyTree) -> bool:
    """Whether this is a slot in codes: arrays of codes of 8 bits, and their scales."""
    if not isinstance(x, dict) or len(x) != 2 or "scale" not in x:
        return False
    return any(isinstance(a, jax.ShapeDtypeStruct) and a.dtype.itemsize == 1 for a in x.values())


def _of_array(x: Any) -> int:
    """Bytes a device."""
    shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
    return math.prod(shape) * x.dtype.itemsize
