"""Where a PyTorch parameter is in a JAX tree, and which of its axes is which there, as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..core.values.contents import brief
from ..core.values.tables import check_pattern, compiled
from ..core.values.value import Value, static, value

KERNELS = ("out in -> in out", "out in w -> w in out", "out in h w -> h w in out", "out in d h w -> d h w in out")
"""For the field ``axes`` of a `layout`: the kernels of linear layers and of convolutions, grouped and depthwise ones
too, as flax and Haiku have them."""

TRANSPOSED_KERNELS = ("in out w -> w out in", "in out h w -> h w out in", "in out d h w -> d h w out in")
"""The kernels of transposed convolutions, for flax's ``ConvTranspose`` with ``transpose_kernel=True``, and for
`jax.lax.conv_transpose` with it. Without it the kernels are flipped too, which a layout cannot do."""


class Axes(NamedTuple):
    """A permutation of axes in words, in which ``1`` is an axis of length 1."""

    before: tuple[str, ...]
    after: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' '.join(self.before)} -> {' '.join(self.after)}"

    @property
    def reversed(self) -> Axes:
        """From ``after`` to ``before``."""
        return Axes(self.after, self.before)

    def applied(self, x: np.ndarray) -> np.ndarray:
        """The array with its axes permuted; ``ValueError`` if it has others than ``before``."""
        if x.ndim != len(self.before) or any(n != 1 for n, name in zip(x.shape, self.before) if name == "1"):
            raise ValueError(f"has the shape {list(x.shape)}, which is not {' '.join(self.before)!r}")
        lengths = {name: n for name, n in zip(self.before, x.shape) if name != "1"}
        names = [*lengths]
        order = [names.index(name) for name in self.after if name != "1"]
        return x.reshape([*lengths.values()]).transpose(order).reshape([lengths.get(name, 1) for name in self.after])


def _axes(where: str, words: object) -> Axes:
    sides = [tuple(side.split()) for side in words.split("->")] if isinstance(words, str) else []
    if len(sides) == 2:
        before, after = ([name for name in side if name != "1"] for side in sides)
        if sorted(before) == sorted(after) == sorted({*before}) and all(map(str.isidentifier, before)):
            return Axes(*sides)
    raise ValueError(
        f'`{where}` must name the same axes on both sides of an arrow, each once, "out in -> in out", '
        f"got {brief(words)}"
    )


def _pairs(where: str, x: Any) -> tuple[tuple[str, Any], ...]:
    """A table by regular expression, as pairs."""
    items = x.items() if isinstance(x, Mapping) else x
    pairs = tuple(map(tuple, items)) if isinstance(items, Iterable) and not isinstance(items, str) else None
    if pairs is None or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"`{where}` must be a table by regular expression, got {brief(x)}")
    for pattern, _ in pairs:
        check_pattern(where, pattern)
    return pairs


def _check_names(where: str, x: Any, limits: None) -> tuple[tuple[str, str], ...]:
    pairs = _pairs(where, x)
    for pattern, replacement in pairs:
        try:
            compiled(pattern).sub(replacement, "")
        except (re.error, TypeError, IndexError) as e:
            raise ValueError(f"`{where}`: {brief(replacement)} cannot replace {pattern!r}: {e}") from None
    return pairs


def _check_axes(where: str, x: Any, limits: None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    checked = []
    for pattern, given in _pairs(where, x):
        words = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, (tuple, list)) else (given,)
        for side in zip(*(map(len, _axes(f"{where}`: `{pattern}", one)) for one in words)):
            if twice := [one for i, one in enumerate(words) if side[i] in side[:i]]:
                raise ValueError(f"`{where}`: {twice[0]!r} is for as many axes as words before it: choose by path")
        checked.append((pattern, words))
    return tuple(checked)


@value
class layout(Value):
    """Where the parameters of a PyTorch model are in a JAX tree, and how their axes are permuted.

    ``names`` are regular expressions and what replaces each in PyTorch's name of a parameter, one after the other; then
    dots become slashes, and the name must be the path of the parameter. ``axes`` are words by path: the first
    expression that is found in the path decides, and of several words those with as many axes as PyTorch's parameter
    hold. On both sides of the arrow the words name the axes, PyTorch's first; ``1`` is an axis of length 1. A path that
    no expression matches keeps its axes, as embeddings do.

    A square matrix looks the same transposed: no shape tells that its words are missing.

    >>> import chainax as cx
    >>> names = {r"layers\\.(\\d+)": r"layers_\\1", r"\\.weight$": ".kernel"}
    >>> flax = cx.torch.layout(names, {"kernel": cx.torch.KERNELS})
    >>> flax.path("layers.0.conv.weight")
    'layers_0/conv/kernel'
    """

    names: Any = static("replacements by regular expression, in order", default=(), check=_check_names)
    axes: Any = static("words by regular expression on the path", default=(), check=_check_axes)

    def path(self, name: str) -> str:
        """The path of a parameter, by its name in PyTorch."""
        for pattern, replacement in self.names:
            name = compiled(pattern).sub(replacement, name)
        return name.replace(".", "/")

    def forward(self, path: str, x: np.ndarray) -> np.ndarray:
        """PyTorch's parameter, or an array like it, with the axes that it has at the path.

        Errors: ``ValueError`` if there are words for the path, but none with as many axes.
        """
        return self._permuted(path, x, back=False)

    def backward(self, path: str, x: np.ndarray) -> np.ndarray:
        """The inverse of `forward`."""
        return self._permuted(path, x, back=True)

    def _permuted(self, path: str, x: np.ndarray, *, back: bool) -> np.ndarray:
        words = next((words for pattern, words in self.axes if compiled(pattern).search(path)), None)
        if words is None:
            return x
        known = [_axes("layout.axes", one) for one in words]
        known = [one.reversed if back else one for one in known]
        found = next((one for one in known if len(one.before) == x.ndim), None)
        if found is None:
            text = ", ".join(map(repr, words))
            raise ValueError(f"has {x.ndim} axes, and the words for {path!r} in `layout.axes`, {text}, name others")
        return found.applied(x)


SAME = layout()
"""PyTorch's names with slashes for dots, and its axes, as in Equinox."""
