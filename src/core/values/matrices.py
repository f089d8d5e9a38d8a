"""Which axes of a parameter are the rows and columns of its matrices, as a value in words."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .contents import brief, code
from .errors import did_you_mean
from .tables import Keyed
from .value import Value, check_count, fill, register


class Block(NamedTuple):
    """Matrices of one shape in a parameter: all of them, or those in a part of one axis."""

    expanded: tuple[int, ...]
    """The shape of the part, with an axis for each factor of the words."""
    batch: tuple[int, ...]
    """The axes of ``expanded`` that number the matrices."""
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def _length(self, axes: tuple[int, ...]) -> int:
        return math.prod(self.expanded[i] for i in axes)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of the batch axes."""
        return tuple(self.expanded[i] for i in self.batch)

    @property
    def number(self) -> int:
        """The number of matrices."""
        return self._length(self.batch)

    @property
    def m(self) -> int:
        """The number of rows."""
        return self._length(self.rows)

    @property
    def n(self) -> int:
        """The number of columns."""
        return self._length(self.columns)

    @property
    def _order(self) -> tuple[int, ...]:
        return (*self.batch, *self.rows, *self.columns)

    def stack(self, x: jax.Array) -> jax.Array:
        """The matrices as one array [count, m, n]."""
        return _transposed(x.reshape(self.expanded), self._order).reshape(self.number, self.m, self.n)

    def unstack(self, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The inverse of `stack`: the part of the parameter, of this shape."""
        inverse = tuple(self._order.index(i) for i in range(len(self._order)))
        return _transposed(x.reshape([self.expanded[i] for i in self._order]), inverse).reshape(shape)


class Form(NamedTuple):
    """Where the matrices of a parameter are."""

    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    axis: int = 0
    """The axis of the parameter that is divided into parts, one for each block, if there are several blocks."""
    ends: tuple[int, ...] = ()
    """Where the parts end; empty for one block."""

    def stacks(self, x: jax.Array) -> list[jax.Array]:
        """The matrices of each block, [count, m, n]."""
        parts = jnp.split(x, self.ends[:-1], self.axis) if self.ends else [x]
        return [block.stack(part) for block, part in zip(self.blocks, parts)]

    def leaf(self, stacks: list[jax.Array]) -> jax.Array:
        """The inverse of `stacks`."""
        if not self.ends:
            return self.blocks[0].unstack(stacks[0], self.shape)
        lengths = (b - a for a, b in itertools.pairwise((0, *self.ends)))
        shapes = [(*self.shape[: self.axis], n, *self.shape[self.axis + 1 :]) for n in lengths]
        parts = (block.unstack(x, shape) for block, x, shape in zip(self.blocks, stacks, shapes))
        return jnp.concatenate([*parts], self.axis)

    def entries(self, x: jax.Array, shapes: list[tuple[int, ...]]) -> list[jax.Array]:
        """A slot with other axes than the parameter as a stack [count, ...] for each block; ``shapes`` are these."""
        if not self.ends:
            return [x.reshape(shapes[0])]
        ends = itertools.accumulate(map(math.prod, shapes))
        return [x[end - math.prod(shape) : end].reshape(shape) for shape, end in zip(shapes, ends)]

    def slot(self, entries: list[jax.Array]) -> jax.Array:
        """The inverse of `entries`: an array with the batch axes first, or a vector if there are several blocks."""
        if not self.ends:
            return entries[0].reshape(*self.blocks[0].lengths, *entries[0].shape[1:])
        return jnp.concatenate([x.reshape(-1) for x in entries])


@register
class matrices(Value):
    """Which axes of a parameter are the rows, and which the columns, of a matrix or of several.

    The words name the axes of the parameter in order, with a comma between the rows, which are the inputs of a layer,
    and the columns, its outputs. Names ``in`` and ``out`` say so themselves: PyTorch's layers are ``"out, in"``, and
    its fused projections ``"q+k+v, in"``. Other names do not: without these two, inputs come first. Several axes on a
    side are one: ``"h w in, out"`` for a convolution, ``"in, head size"``. The axes that number the matrices begin with
    ``_``: ``"_layer in, out"`` for layers in one array, ``"in, _head size"`` for a matrix a head. An axis may be
    divided: ``"in, 3*out"`` into three matrices, of which the parameter is made up side by side, ``"in, _head*size"``
    with ``head=12``, ``"in, q+k+v"`` with ``q=512, k=128, v=128`` into unequal ones. A side without names is one row or
    one column: ``", out"`` for a vector.

    Of several words, those with as many axes as the parameter hold: ``matrices("in, out", "h w in, out")``. ``sizes``
    are the lengths of names; a length may be missing if it follows from that of the axis.

    >>> import chainax as cx
    >>> cx.matrices("in, _head*size", head=4)
    matrices('in, _head*size', head=4)
    """

    words: tuple[str, ...]
    sizes: tuple[tuple[str, int], ...]

    _static = ("words", "sizes")

    def __init__(self, *words: str, **sizes: int) -> None:
        words = words or ("in, out",)
        if other := [x for x in words if not isinstance(x, str)]:
            raise ValueError(f'`matrices` takes words, matrices("in, out", "h w in, out"), got {brief(other[0])}')
        axes = [sum(map(len, _sides(text))) for text in words]
        if twice := [text for i, text in enumerate(words) if axes[i] in axes[:i]]:
            raise ValueError(f"`matrices`: {twice[0]!r} is for as many axes as words before it: choose by path")
        known = {name.lstrip("_") for text in words for axis in itertools.chain(*_sides(text)) for name in axis.names}
        if unknown := [name for name in sizes if name not in known]:
            raise ValueError(
                f"`matrices`: no axis of {', '.join(map(repr, words))} is named {unknown[0]!r}"
                f"{did_you_mean(unknown[0], known)}"
            )
        checked = {name: check_count(f"matrices({name})", n, 1, None) for name, n in sizes.items()}
        fill(self, words=words, sizes=tuple(checked.items()))

    def __repr__(self) -> str:
        arguments = [*map(code, self.words), *(f"{name}={n}" for name, n in self.sizes)]
        return f"matrices({', '.join(arguments)})"

    def form(self, shape: tuple[int, ...]) -> Form:
        """Where the matrices of a parameter of this shape are.

        Errors: ``ValueError`` if no words have as many axes, or if lengths do not fit.
        """
        return _form(self, shape)


def check_matrices(where: str, x: Any, limits: None = None) -> Any:
    """A field for `matrices`, or a table of them. Words alone are accepted too."""
    if isinstance(x, str):
        return matrices(x)
    for entry in (*x.entries, x.default) if isinstance(x, Keyed) else (x,):
        if not isinstance(entry, matrices) and not (isinstance(x, Keyed) and entry is None):
            raise ValueError(
                f'`{where}` must be matrices("in, out"), other words, or by_path of matrices, got {code(x)}'
            )
    return x


class Axis(NamedTuple):
    """One axis of a parameter in words: a product of names and whole numbers, or a sum of names."""

    names: tuple[str, ...]
    is_sum: bool


@functools.cache
def _sides(text: str) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """The axes before and behind the comma."""
    if text.count(",") != 1:
        raise ValueError(f'`matrices` needs words with one comma, such as "in, out", got {text!r}')
    left, right = (tuple(map(_axis, side.split())) for side in text.split(","))
    names = [name for axis in (*left, *right) for name in axis.names]
    for name in names:
        if not (name.isidentifier() or (name.isdigit() and int(name))):
            raise ValueError(f"`matrices`: {name!r} in {text!r} is neither a name nor a number from 1")
    for axis in (*left, *right):
        if axis.is_sum and any(map(_is_batch, axis.names)):
            raise ValueError(f"`matrices`: a sum is of names, each that of a matrix, got {'+'.join(axis.names)!r}")
    if twice := [name for i, name in enumerate(names) if name in names[:i] and not name.isdigit()]:
        raise ValueError(f"`matrices`: {text!r} names {twice[0]!r} twice")
    if sum(axis.is_sum for axis in (*left, *right)) > 1:
        raise ValueError(f"`matrices`: {text!r} divides two axes into unequal parts, which is not supported")
    if any({"in", "out"} <= {name for axis in side for name in axis.names} for side in (left, right)):
        raise ValueError(f"`matrices`: {text!r} has 'in' and 'out' on one side of the comma")
    return left, right


def _axis(text: str) -> Axis:
    return Axis(tuple(text.split("+")), True) if "+" in text else Axis(tuple(text.split("*")), False)


def _is_batch(name: str) -> bool:
    return name.startswith("_") or name.isdigit()


@functools.lru_cache(maxsize=4096)
def _form(words: matrices, shape: tuple[int, ...]) -> Form:
    found = [sides for sides in map(_sides, words.words) if sum(map(len, sides)) == len(shape)]
    if not found:
        raise ValueError(f"has {len(shape)} axes, and {words!r} names others")
    left, right = found[0]
    sizes, axes = dict(words.sizes), (*left, *right)
    lengths = [_lengths(axis, n, sizes) for axis, n in zip(axes, shape)]
    summed = next((i for i, axis in enumerate(axes) if axis.is_sum), None)
    before, after = ({name for axis in side for name in axis.names} for side in (left, right))
    turned = "out" in before or "in" in after
    if summed is None:
        return Form(shape, (_block(left, right, lengths, turned),))
    parts = lengths[summed]
    alone = Axis(("",), False)
    blocks = []
    for n in parts:
        lengths[summed] = (n,)
        one_left, one_right = (tuple(alone if axis.is_sum else axis for axis in side) for side in (left, right))
        blocks.append(_block(one_left, one_right, lengths, turned))
    return Form(shape, tuple(blocks), summed, tuple(itertools.accumulate(parts)))


def _block(left: tuple[Axis, ...], right: tuple[Axis, ...], lengths: list[tuple[int, ...]], turned: bool) -> Block:
    names = [[name for axis in side for name in axis.names] for side in (left, right)]
    numbered = list(enumerate(names[0] + names[1]))
    batch = tuple(i for i, name in numbered if _is_batch(name))
    sides = [
        tuple(i for i, name in some if not _is_batch(name))
        for some in (numbered[: len(names[0])], numbered[len(names[0]) :])
    ]
    rows, columns = reversed(sides) if turned else sides
    return Block(tuple(itertools.chain(*lengths)), batch, rows, columns)


def _lengths(axis: Axis, n: int, sizes: dict[str, int]) -> tuple[int, ...]:
    """The lengths of the names of an axis of length ``n``."""
    known = [int(name) if name.isdigit() else sizes.get(name.lstrip("_")) for name in axis.names]
    text = ("+" if axis.is_sum else "*").join(axis.names)
    if known.count(None) > 1:
        missing = axis.names[known.index(None)].lstrip("_")
        raise ValueError(f"does not say how an axis of {n} is divided into {text}: give {missing}=... to `matrices`")
    rest = [x for x in known if x is not None]
    if axis.is_sum:
        last = n - sum(rest)
        fits = last > 0 if None in known else last == 0
    else:
        last, left = divmod(n, math.prod(rest))
        fits = left == 0 if None in known else n == math.prod(rest)
    if not fits:
        raise ValueError(f"has an axis of {n}, which is not {text} with {', '.join(map(str, rest))}")
    return tuple(last if x is None else x for x in known)


def _transposed(x: jax.Array, order: tuple[int, ...]) -> jax.Array:
    return x if order == tuple(range(len(order))) else x.transpose(order)
