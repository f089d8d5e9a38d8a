"""Formats of slots between steps: narrower floats here, and codes in blocks in the module `blocks`.

Links compute in float32. The engine widens a slot before the leaf function and narrows it afterwards, by the `Format`
for that slot in the link's ``storage``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from ..values.contents import code
from ..values.declared import contract
from ..values.errors import did_you_mean
from ..values.tables import DTYPES, Keyed, Shape, by_path, pick
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


@register
class storage(Value):
    """The formats of a link's slots, as set by `store`."""

    slots: tuple[str, ...]
    formats: tuple[Format | Keyed, ...]

    _static = ("slots", "formats")

    def __init__(self, **formats: Format | Keyed | str) -> None:
        checked = {slot: _format(f"storage.{slot}", x) for slot, x in formats.items()}
        fill(self, slots=tuple(checked), formats=tuple(checked.values()))

    @property
    def table(self) -> dict[str, Format | Keyed]:
        """The formats by slot."""
        return dict(zip(self.slots, self.formats))

    def of(self, slot: str, path: str, shape: Shape) -> Format | None:
        """The format of this slot of the parameter with this path and shape; ``None`` if it is stored unchanged."""
        form = self.table.get(slot)
        return pick(f"storage.{slot}", form, path, shape)[1] if isinstance(form, Keyed) else form

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


def check_storage(where: str, x: object, limits: None) -> storage | None:
    """``x``. Raise ``ValueError`` unless it is what `store` sets."""
    if not (x is None or isinstance(x, storage)):
        raise ValueError(f"`{where}` is set by store(link, slot=format), got {x!r}")
    return x


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


def formats_of(links: Iterable[tuple[str, Any]], path: str, shape: Shape) -> tuple:
    """The formats in which leafwise links store the slots of a leaf: (link, slot, format, signed)."""
    found = []
    for name, link in links:
        if stored := link.formats:
            found += [(name, slot, stored.of(slot, path, shape), slot not in link.nonnegative) for slot in link.slots]
    return tuple(entry for entry in found if entry[2] is not None)


def _format(where: str, x: HyperValue) -> Format | Keyed:
    if isinstance(x, Keyed):
        return x.map(lambda label, entry: _format(f"{where}`: `{label}", entry))
    if isinstance(x, Format):
        return x
    if isinstance(x, str) and x in DTYPES:
        return cast(x)
    hint = did_you_mean(x, DTYPES) if isinstance(x, str) else ""
    raise ValueError(
        f"`{where}` must be one of {', '.join(map(repr, DTYPES))}, a format such as int8(), "
        f"or by_path or by_ndim of these, got {code(x)}{hint}"
    )
