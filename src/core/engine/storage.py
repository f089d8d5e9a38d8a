"""Formats of slots between steps: narrower floats, and 8-bit or 4-bit codes with a scale for each block.

Links compute in float32. The engine widens a slot before the leaf function and narrows it afterwards, by the `Format`
for that slot in the link's ``storage``.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..values.contents import code
from ..values.declared import contract
from ..values.errors import did_you_mean
from ..values.hyper import DTYPES, by_path, pick
from ..values.tree import show, to_real
from ..values.types import DType, HyperValue, Leaf
from ..values.value import Value, fill, register, static, value
from .rounding import saturated

Stored = jax.Array | dict[str, jax.Array]
"""What a format stores for a slot."""


@contract()
class Format(Value):
    """A format in which slots are stored. Subclasses define how arrays are narrowed and widened."""

    min_size: int = 0
    """Leaves with fewer numbers are stored unchanged."""

    @abstractmethod
    def keep(self, x: jax.Array, signed: bool) -> Stored:
        """Narrow ``x``, float32 of any shape. Returns a dict of arrays, one of them under the format's name.

        ``signed`` is whether the slot may hold negative numbers.
        """
        raise NotImplementedError

    @abstractmethod
    def widen(self, kept: Any, shape: tuple[int, ...], signed: bool) -> jax.Array:
        """The inverse of `keep`: the float32 array of this shape, up to rounding. ``kept`` is what `keep` returned."""
        raise NotImplementedError


@value
class cast(Format):
    """A narrower floating-point dtype, given by its name: ``store(tx, mu="bfloat16")``.

    Numbers are rounded to the nearest. Slots without negative numbers are deterministically dithered instead,
    so that they are correct on average over the steps: a mean square multiplied by 0.999 would
    otherwise never change, since the product rounds back. They are never rounded to 0. Magnitudes above the largest
    number of the dtype, 65504 in float16, are stored as that number.
    """

    dtype: str = static("the name of the dtype", one_of=DTYPES)

    def keep(self, x, signed):
        return saturated(x, self.dtype).astype(self.dtype)

    def widen(self, kept, shape, signed):
        return kept.astype(jnp.float32)

    def __repr__(self) -> str:
        return repr(self.dtype)


class Blocks(Format):
    """Codes with a float32 scale, the largest magnitude, for each block of consecutive numbers in row-major order.

    The last block is padded with zeros if the block size does not divide the leaf. Magnitudes above 2¹²⁶ are stored as
    2¹²⁶, so that the scale and its reciprocal are normal numbers. The codes do not depend on the sharding of the leaf.
    They are stored under the format's name, since the same code means different numbers in different formats.
    """

    block: int = static("numbers that share a scale", default=256, least=2, most=2**20)
    min_size: int = static("leaves of fewer numbers stay in float32", default=4096, least=0)

    per_code: ClassVar[int] = 1  # numbers per element of the array of codes
    largest: ClassVar[float] = 1.0  # the code value of the scale

    def check(self) -> None:
        if self.block % 2:
            raise ValueError(f"`{type(self).__name__}.block` must be an even whole number, got {self.block}")

    @abstractmethod
    def encode(self, x: jax.Array, signed: bool) -> jax.Array:
        """The codes of numbers of magnitude at most `largest`, in blocks along the last axis."""
        raise NotImplementedError

    @abstractmethod
    def decode(self, codes: jax.Array, signed: bool) -> jax.Array:
        """The numbers that the codes represent."""
        raise NotImplementedError

    def keep(self, x, signed):
        rows = self._rows(jnp.clip(x, -(2.0**126), 2.0**126))
        scale = jnp.maximum(jnp.max(jnp.abs(rows), -1), 1e-12)
        if self.largest != 1:  # not a constant, since XLA would multiply by its rounded reciprocal
            scale = scale / jnp.where(jnp.isnan(scale), scale, self.largest)
        codes = self.encode(rows / scale[..., None], signed)
        return {type(self).__name__: self._flat(codes, x.shape), "scale": scale}

    def widen(self, kept, shape, signed):
        rows = jax.eval_shape(self._rows, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
        codes = kept[type(self).__name__]
        short = math.prod(rows) // self.per_code - codes.size
        if short:
            codes = jnp.pad(codes.reshape(-1), (0, short))
        codes = codes.reshape(*rows[:-1], rows[-1] // self.per_code)
        x = self.decode(codes, signed) * kept["scale"][..., None]
        return x.reshape(-1)[: math.prod(shape)].reshape(shape) if x.size != math.prod(shape) else x.reshape(shape)

    def _rows(self, x: jax.Array) -> jax.Array:
        """``x`` in blocks along a new last axis. If they divide its rows, other axes and their sharding stay."""
        if x.ndim and x.shape[-1] % self.block == 0:
            return x.reshape(*x.shape[:-1], x.shape[-1] // self.block, self.block)
        flat = x.reshape(-1)
        return jnp.pad(flat, (0, -x.size % self.block)).reshape(-1, self.block)

    def _flat(self, codes: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The codes without padding, in the shape of the leaf, or flat if `per_code` does not divide its last axis."""
        if shape and shape[-1] % self.per_code == 0:
            shape = (*shape[:-1], shape[-1] // self.per_code)
        else:
            shape = (-(-math.prod(shape) // self.per_code),)
        flat = codes.reshape(-1)
        return (flat[: math.prod(shape)] if flat.size != math.prod(shape) else codes).reshape(shape)


@value
class int8(Blocks):
    """8-bit codes of the dynamic map. Dettmers et al. 2022, arXiv:2110.02861, section 2.1.

    Seven decades, each with twice as many values as the one below. Slots without negative
    numbers use an unsigned map.
    """

    block: int = static("numbers that share a scale", default=256, least=2, most=2**20)
    min_size: int = static("leaves of fewer numbers stay in float32", default=4096, least=0)

    def encode(self, x, signed):
        return nearest(x, dynamic_map(signed, 7, 8))

    def decode(self, codes, signed):
        return jnp.asarray(dynamic_map(signed, 7, 8))[codes]


@value
class int4(Blocks):
    """4-bit codes, two to a byte. Li et al. 2023, arXiv:2309.01507.

    Signed slots use the dynamic map. Slots without negative numbers use 1/16, 2/16, ..., 1. This map
    has no zero, since a second moment rounded to 0 would make the step infinite.
    """

    block: int = static("numbers that share a scale", default=128, least=2, most=2**20)
    min_size: int = static("leaves of fewer numbers stay in float32", default=4096, least=0)

    per_code = 2

    def encode(self, x, signed):
        codes = nearest(x, self._map(signed))
        return codes[..., 0::2] << 4 | codes[..., 1::2]

    def decode(self, codes, signed):
        pairs = jnp.stack([codes >> 4, codes & 15], -1).reshape(*codes.shape[:-1], 2 * codes.shape[-1])
        return jnp.asarray(self._map(signed))[pairs]

    def _map(self, signed: bool) -> np.ndarray:
        return dynamic_map(True, 3, 4) if signed else (np.arange(1, 17) / 16).astype(np.float32)


@value
class float8(Blocks):
    """8-bit floats with 3 bits of mantissa, 2⁻⁹ to 448 (e4m3). Micikevicius et al. 2022, arXiv:2209.05433."""

    block: int = static("numbers that share a scale", default=256, least=2, most=2**20)
    min_size: int = static("leaves of fewer numbers stay in float32", default=4096, least=0)

    largest = float(jnp.finfo(jnp.float8_e4m3fn).max)

    def keep(self, x, signed):
        if not supports_float8():
            raise ValueError(
                f"`float8` needs a backend with 8-bit floats, which {jax.default_backend()!r} lacks: use int8"
            )
        return super().keep(x, signed)

    def encode(self, x, signed):
        return jax.lax.bitcast_convert_type(x.astype(jnp.float8_e4m3fn), jnp.uint8)

    def decode(self, codes, signed):
        return jax.lax.bitcast_convert_type(codes, jnp.float8_e4m3fn).astype(jnp.float32)


@value
class companded8(Blocks):
    """Evenly spaced 8-bit codes of a companded number: no table, hence fast.

    Signed numbers are companded by y = 2x/(1 + |x|), which gives small numbers more codes; numbers without a sign by
    the square root, which is what a second moment is used for, in 256 levels without a zero.
    """

    block: int = static("numbers that share a scale", default=256, least=2, most=2**20)
    min_size: int = static("leaves of fewer numbers stay in float32", default=4096, least=0)

    def encode(self, x, signed):
        if not signed:
            return (jnp.clip(jnp.round(256 * jnp.sqrt(x)), 1, 256) - 1).astype(jnp.uint8)
        return jnp.round(127 * (2 * x / (1 + jnp.abs(x)))).astype(jnp.int8)

    def decode(self, codes, signed):
        y = codes.astype(jnp.float32)
        if not signed:
            return jnp.square((y + 1) / 256)
        return y / 127 / (2 - jnp.abs(y / 127))


@register
class storage(Value):
    """The formats of a link's slots, as set by `store`."""

    slots: tuple[str, ...]
    formats: tuple[Format | by_path, ...]

    _static = ("slots", "formats")

    def __init__(self, **formats: Format | by_path | str) -> None:
        checked = {slot: _format(f"storage.{slot}", x) for slot, x in formats.items()}
        fill(self, slots=tuple(checked), formats=tuple(checked.values()))

    @property
    def table(self) -> dict[str, Format | by_path]:
        """The formats by slot."""
        return dict(zip(self.slots, self.formats))

    def of(self, slot: str, path: str) -> Format | None:
        """The format of this slot of the parameter at ``path``; ``None`` if it is stored unchanged."""
        form = self.table.get(slot)
        return pick(f"storage.{slot}", form, path)[1] if isinstance(form, by_path) else form

    def refuse(self, name: str, path: str, p: Leaf) -> None:
        """Raise if a pattern matches this leaf, which has no slots."""
        for slot, form in self.table.items():
            if isinstance(form, by_path) and form.find(path) < len(form.patterns):
                raise TypeError(
                    f"`{name}.{slot}`: {form!r} gives a format to {path!r}, which is {show(p)} and has no slots"
                )

    def arguments(self) -> str:
        """The formats as arguments of `store`."""
        return ", ".join(f"{slot}={code(x)}" for slot, x in self.table.items())

    def __repr__(self) -> str:
        return f"storage({self.arguments()})"


def widened(x: Any, shape: tuple[int, ...], dtype: DType, form: Format | None = None, signed: bool = True) -> jax.Array:
    """A stored slot as a link gets it: real numbers of ``dtype``. ``shape`` is what ``form`` stored, for codes.

    Small leaves, and slots of another shape than the parameter's, are stored as they are whatever the format.
    """
    if form is None or not isinstance(x, dict):
        return to_real(x, dtype)
    wide, like = form.widen(x, shape, signed), jax.ShapeDtypeStruct(shape, jnp.float32)
    if show(wide) != show(like):
        raise TypeError(f"`{type(form).__name__}.widen` must return {show(like)}, got {show(wide)}")
    return wide.astype(dtype)


def narrowed(x: jax.Array, form: Format, signed: bool) -> Stored:
    """A slot as its format stores it."""
    kept, name = form.keep(x, signed), type(form).__name__
    if not isinstance(form, cast) and not (isinstance(kept, dict) and name in kept):
        got = f"a dict of {', '.join(map(str, kept))}" if isinstance(kept, dict) else show(kept)
        raise TypeError(f"`{name}.keep` must return a dict with the codes under {name!r}, got {got}")
    return kept


def formats_of(links: Iterable[tuple[str, Any]], path: str) -> tuple:
    """The formats in which leafwise links store the slots of a leaf: (link, slot, format, signed)."""
    found = []
    for name, link in links:
        if stored := link.formats:
            found += [(name, slot, stored.of(slot, path), slot not in link.nonnegative) for slot in link.slots]
    return tuple(entry for entry in found if entry[2] is not None)


def _format(where: str, x: HyperValue) -> Format | by_path:
    if isinstance(x, by_path):
        return x.map(lambda label, entry: _format(f"{where}`: `{label}", entry))
    if isinstance(x, Format):
        return x
    if isinstance(x, str) and x in DTYPES:
        return cast(x)
    hint = did_you_mean(x, DTYPES) if isinstance(x, str) else ""
    raise ValueError(
        f"`{where}` must be one of {', '.join(map(repr, DTYPES))}, a format such as int8(), "
        f"or by_path of these, got {code(x)}{hint}"
    )


# Maps from codes to numbers


@functools.cache
def dynamic_map(signed: bool, decades: int, bits: int) -> np.ndarray:
    """The sorted values of the dynamic map: decades of evenly spaced midpoints, 0, and 1.

    Computed in float32 as in the published code, so that codes represent the same numbers.
    """
    values: list[float] = [0.0, 1.0]
    for i in range(decades):
        edges = _linspace(0.1, 1.0, 2 ** (i + (bits - 1 - decades) + (not signed)) + 1)
        means = (edges[:-1] + edges[1:]) / np.float32(2)
        decade = np.float32(10.0 ** (i - decades + 1)) * means
        values += [*decade, *(-decade if signed else ())]
    return np.sort(np.array(values, np.float32))


def _linspace(start: float, stop: float, count: int) -> np.ndarray:
    """Evenly spaced float32 numbers, computed from the nearer end with a fused multiply-add."""
    a, b, n = np.float32(start), np.float32(stop), count - 1
    step, i = np.float64((b - a) / np.float32(n)), np.arange(count)  # the products are exact in float64
    return np.where(i < count // 2, a + step * i, b - step * (n - i)).astype(np.float32)


def nearest(x: jax.Array, values: np.ndarray) -> jax.Array:
    """The index of the nearest of the sorted ``values``, for |x| <= 1. Ties go to the upper one.

    The sign, the exponent and 7 bits of the mantissa define a cell, which contains at most one threshold:
    one table lookup and one comparison find the exact index.
    """
    thresholds, below = _cells(values.tobytes())
    cell = (jax.lax.bitcast_convert_type(x, jnp.uint32) >> 16).astype(jnp.int32)
    magnitude = jnp.clip((cell & 0x7FFF) - _LOWEST, 0, _CELLS - 1)
    base = jnp.asarray(below)[magnitude + (cell >> 15) * _CELLS]
    return base + (x >= jnp.asarray(thresholds)[base]).astype(jnp.uint8)


_LOWEST = (127 - 26) << 7  # the cell of 2⁻²⁶, below every threshold but those at 0
_CELLS = (127 << 7) - _LOWEST + 1  # up to the cell of 1


@functools.cache
def _cells(packed: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The smallest float32 that rounds up from each value, and for each cell, the thresholds at or below its start."""
    values = np.frombuffer(packed, np.float32)
    down, up = values[:-1], values[1:]
    thresholds = (down + (up - down) * np.float32(0.5)).astype(np.float32)

    def rises(x: np.ndarray) -> np.ndarray:  # in float32, where the difference is rounded
        return (x - down) >= (up - down) * np.float32(0.5)

    for _ in range(8):
        thresholds = np.where(rises(thresholds), thresholds, np.nextafter(thresholds, np.float32(np.inf)))
        lower = np.nextafter(thresholds, np.float32(-np.inf))
        thresholds = np.where(rises(lower), lower, thresholds)
    magnitudes = np.arange(_LOWEST, _LOWEST + _CELLS, dtype=np.uint32) << 16
    magnitudes[0] = 0
    starts = magnitudes.view(np.float32)
    ends = ((np.arange(_LOWEST, _LOWEST + _CELLS, dtype=np.uint32) << 16) | 0xFFFF).view(np.float32)
    low, high = np.concatenate([starts, -ends]), np.concatenate([ends, -starts])
    below = np.searchsorted(thresholds, low, side="right")
    if np.any(np.searchsorted(thresholds, high, side="right") - below > 1):
        raise AssertionError("two thresholds in one cell")
    return np.append(thresholds, np.float32(np.inf)), below.astype(np.uint8)


@functools.cache
def supports_float8() -> bool:
    """Whether the default backend compiles conversions to float8."""
    try:
        jax.jit(lambda x: x.astype(jnp.float8_e4m3fn).astype(jnp.float32)).lower(jnp.zeros(8)).compile()
    except Exception:
        return False
    return True
