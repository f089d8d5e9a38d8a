"""The state of a chain: named, one step counter, and arrays of the kind that checkpoints hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax.tree_util import DictKey, SequenceKey, tree_flatten_with_path

from ..values.tree import show

SHOWN = 8
"""How many entries of a container are printed."""


class State(NamedTuple):
    """What a chain remembers between steps.

    ``links[link][slot]`` is a tree like the parameters, with ``None`` where a leaf has no slot. Links
    without state do not appear. A `Treewise` link's entry is whatever tree it keeps. Arrays print as their
    dtype and shape, and large containers as their first entries.

    >>> import chainax as cx
    >>> cx.sgd(0.1, momentum=0.9).init({"kernel": jax.numpy.ones((2, 3)), "bias": None})
    State(step=int32[], links={'trace': {'trace': {'bias': None, 'kernel': float32[2, 3]}}}, born={})
    """

    step: jax.Array
    """How many updates were made; an int32 scalar."""
    links: dict[str, Any]
    born: dict[str, jax.Array]
    """The step at which late arrivals began: ``link/`` for a link inserted in mid-run, ``link/path`` for a parameter
    added later. Empty if everything began with the run."""

    def __repr__(self) -> str:
        return _shown(self)


def _shown(x: Any) -> str:
    """A tree, one container after the other, without the numbers in its arrays: those may be many, or deleted."""
    children, _ = tree_flatten_with_path(x, is_leaf=lambda y: y is not x)
    if x is None or (children and not children[0][0]):
        return show(x) if hasattr(x, "dtype") else repr(x)
    entries = [_named(path[0]) + _shown(child) for path, child in children[:SHOWN]]
    if len(children) > SHOWN:
        entries.append(f"... and {len(children) - SHOWN} more")
    start, end = {dict: "{}", list: "[]", tuple: "()"}.get(type(x), (f"{type(x).__name__}(", ")"))
    return start + ", ".join(entries) + end


def _named(key: Any) -> str:
    if isinstance(key, DictKey):
        return f"{key.key!r}: "
    return "" if isinstance(key, SequenceKey) else f"{str(key).lstrip('.')}="
