"""What an optimized HLO module does, read from its text: kernels, memory traffic, copies and gathers."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = {
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8.0),
    **dict.fromkeys(("f32", "s32", "u32"), 4.0),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2.0),
    **dict.fromkeys(("s8", "u8", "pred", "f8e4m3fn", "f8e5m2"), 1.0),
    **dict.fromkeys(("s4", "u4"), 0.5),
}
_IN_PLACE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "partition-id",
    "replica-id",
    "after-all",
)
_ENDS = ("copy-done", "slice-done", "async-done", "all-reduce-done", "all-gather-done")
FREE = frozenset((*_IN_PLACE, *_ENDS, "opt-barrier"))
"""Operations that move no data, and the ends of asynchronous ones, which count where they begin."""

_ARRAY = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\](?:\{{([\d,]*)(?::([^}}]*))?\}})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)")


class Instruction(NamedTuple):
    """One line of a computation."""

    type: str
    op: str
    operands: tuple[str, ...]
    line: str


class Module:
    """The computations of a module, of which the entry's instructions are kernels, one each."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if head := _HEAD.match(line):
                current = self.computations.setdefault(head[2], {})
                self.entry = head[2] if head[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                name, kind, op, rest = found.groups()
                current[name] = Instruction(kind, op, tuple(re.findall(r"%([\w.\-]+)", rest.split("), ")[0])), line)

    def kernels(self) -> int:
        """How many kernels run: those of loops as often as XLA knows, of conditions those of the longer branch.

        What a TPU computes with a single number takes no kernel.
        """
        return round(self._total(self.entry, "kernels"))

    def traffic(self) -> float:
        """Bytes read from and written to a TPU's main memory, counted as `kernels` are; padding counts."""
        return self._total(self.entry, "traffic")

    def idle_traffic(self) -> float:
        """`traffic` with the shorter branch of each condition, and without loops of unknown length."""
        return self._total(self.entry, "idle")

    def count(self, op: str) -> int:
        """How often an operation stands anywhere in the module, within fusions too."""
        return len(re.findall(rf" {op}(?:-start)?\(", self.text))

    def collectives(self, op: str) -> int:
        """How many different ones there are. XLA may spread one over several fusions."""
        found = re.findall(rf" {op}(?:-start)?\(.*?channel_id=(\d+)", self.text)
        return len(set(found))

    def _total(self, name: str, what: str) -> float:
        return sum(self._cost(self.computations[name], x, what) for x in self.computations[name].values())

    def _cost(self, within: dict[str, Instruction], x: Instruction, what: str) -> float:
        if x.op == "while":
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', x.line)
            return (int(trips[1]) if trips else what != "idle") * self._total(_called(x.line, "body")[0], what)
        if x.op == "conditional":
            branches = _called(x.line, "branch_computations|true_computation|false_computation")
            return (min if what == "idle" else max)(self._total(branch, what) for branch in branches)
        if x.op == "call":
            return self._total(_called(x.line, "to_apply")[0], what)
        if x.op in FREE:
            return 0.0
        return float(not _is_scalar(x)) if what == "kernels" else _bytes_moved(within, x, self._sliced(x))

    def _sliced(self, x: Instruction) -> dict[int, float]:
        """The bytes that a fusion reads of the operands of which it takes slices alone, by their index."""
        inner = self.computations.get(next(iter(_called(x.line, "calls")), ""), {}) if x.op == "fusion" else {}
        found = {}
        for name, parameter in inner.items():
            users = [y for y in inner.values() if name in y.operands]
            if parameter.op == "parameter" and users and all(y.op in ("slice", "dynamic-slice") for y in users):
                index = int(re.search(r"parameter\((\d+)\)", parameter.line)[1])  # pyright: ignore[reportOptionalSubscript]
                found[index] = sum(size for y in users for size, _ in _arrays(y.type))
        return found


def _is_scalar(x: Instruction) -> bool:
    """Whether a TPU makes one number, or a tuple of them."""
    return ":T(" in x.type and all(not shape for _, shape, _, _ in _ARRAY.findall(x.type)) and x.op != "fusion"


def _called(line: str, key: str) -> list[str]:
    found = re.findall(rf"(?:{key})=\{{?((?:%[\w.\-]+(?:, )?)+)", line)
    return [name for names in found for name in re.findall(r"%([\w.\-]+)", names)]


def _bytes_moved(within: dict[str, Instruction], x: Instruction, sliced: dict[int, float]) -> float:
    """Those that an instruction moves through main memory. A copy that begins here counts once, as it is written."""
    if x.op.endswith("-start"):
        arrays = list(_arrays(x.type))
        if x.op == "copy-start":  # (destination, source, context)
            return sum(size for size, near in arrays[:2] if not near)
        return sum([size for size, near in arrays if near][:1])
    read = [
        min(sum(size for size, near in _arrays(within[name].type) if not near), sliced.get(i, math.inf))
        for i, name in enumerate(x.operands)
        if name in within
    ]
    return sum(read) + sum(size for size, near in _arrays(x.type) if not near)


@functools.lru_cache(maxsize=4096)
def _arrays(kind: str) -> tuple[tuple[float, bool], ...]:
    """The bytes of each array of a type, with a TPU's padding, and whether it lies in memory on the chip."""
    return tuple(_parse(kind))


def _parse(kind: str) -> Iterator[tuple[float, bool]]:
    for dtype, shape, order, layout in _ARRAY.findall(kind):
        dims = [int(n) for n in shape.split(",") if n]
        axes = [int(n) for n in order.split(",") if n]
        dims = [dims[i] for i in reversed(axes)] if len(axes) == len(dims) else dims
        tile = re.match(r"T\(([\d,]+)\)", layout)
        if tile and len(dims) >= len(sides := [int(n) for n in tile[1].split(",")]):
            lead, last = dims[: -len(sides)], dims[-len(sides) :]
            dims = lead + [-(-n // side) * side for n, side in zip(last, sides)]
        yield math.prod(dims) * BYTES[dtype], "S(" in layout


def collectives(text: str, side: int) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """The collectives of a module for a square of ``side`` × ``side`` chips.

    For each its kind, the axes of the square along which it moves data, and the bytes of the whole array that a chip
    gathers or reduces. What XLA's TPU compiler spreads over several fusions counts once, and an all-reduce within a
    fusion that keeps a slice of it counts as the reduce-scatter that it is.
    """
    module, seen = Module(text), set()
    for name, computation in module.computations.items():
        for x in computation.values():
            op = x.op.removesuffix("-start")
            if op not in ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"):
                continue
            channel = re.search(r"channel_id=(\d+)", x.line)
            groups = re.search(r"replica_groups=(mesh\S+ \{[^}]*\}|\{\{[^}]*\}|\S+)", x.line)
            key = (channel and channel[1], x.type) if name != module.entry else x.line
            if key in seen:
                continue
            seen.add(key)
            kind = "reduce-scatter" if op == "all-reduce" and name.startswith("all-reduce-scatter") else op
            axes, bytes_ = _axes(groups[1] if groups else "", side), sum(size for size, _ in _arrays(x.type))
            yield kind, axes, bytes_ * (side ** len(axes) if op == "reduce-scatter" else 1)


def _axes(groups: str, side: int) -> tuple[int, ...]:
    """The axes of a square of chips along which the groups of a collective lie."""
    if groups.startswith("mesh"):
        mesh, used = groups.split("]", 1)
        sizes = [int(n) for n in re.findall(r"=(\d+)", mesh)]
        found = set()
        for axis in map(int, re.findall(r"axis_(\d)", used)):
            stride = math.prod(sizes[axis + 1 :])
            found |= {0} if stride >= side else {1} if stride * sizes[axis] <= side else {0, 1}
        return tuple(sorted(found))
    if listed := re.match(r"\{\{([\d,]+)", groups):
        members = [int(n) for n in listed[1].split(",")]
        if len(members) > side:
            return 0, 1
        return (0,) if len(members) > 1 and members[1] - members[0] == side else (1,)
    if counted := re.match(r"\[(\d+),(\d+)\]<=\[[\d,]+\](T)?", groups):
        return (0, 1) if int(counted[2]) > side else (0,) if counted[3] else (1,)
    return 0, 1
