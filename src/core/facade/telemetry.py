"""What can be read out of a chain and its state along a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ..engine import checks
from ..engine.checks import REMEDY
from ..engine.protocol import ChainLike, LinkLike, Links
from ..engine.state import State
from ..values.errors import PlainKeyError
from ..values.hyper import by_path, evaluate, pick
from ..values.tree import compute_dtype, dtype_of, flatten, is_trainable, widest
from ..values.types import HyperValue, Params, PyTree

Inner = tuple[str, Links, Params, State]
"""A chain within a link: its key in the link's entry of the state, the chain, its parameters and its state."""


def hyperparams(links: Links, state: State, params: Params) -> dict[str, Any]:
    """See `Transformation.hyperparams`."""
    found = {}
    for name, link in links.items():
        inner = {key: hyperparams(inner, own, its) for key, inner, its, own in within(name, link, state, params)}
        numbers = {
            field.name: _number(f"{name}.{field.name}", getattr(link, field.name), state, params)
            for field in dataclasses.fields(link)
            if "range" in field.metadata
        }
        if both := {**numbers, **{key: of for key, of in inner.items() if of}}:
            found[name] = both
    return found


def _number(where: str, x: HyperValue, state: State, params: Params) -> Any:
    """What a hyperparameter comes to at the next step; of a table, what each entry does."""
    if params is None:
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
        if not isinstance(x, by_path):
            return evaluate(where, x, state.step, dtype)
        entries = x.table if x.default is None else {**x.table, "default": x.default}
        return {pattern: evaluate(where, entry, state.step, dtype) for pattern, entry in entries.items()}
    dtypes = {path: dtype_of(p) for path, p in flatten(params).items() if is_trainable(p)}
    if not isinstance(x, by_path):
        return evaluate(where, x, state.step, widest(dtypes.values()))
    return {
        path: evaluate(where, pick(where, x, path)[1], state.step, compute_dtype(dtype))
        for path, dtype in dtypes.items()
    }


def within(name: str, link: LinkLike, state: State, params: Params = None) -> Iterator[Inner]:
    """The chains that a link holds, with their parameters as it shows them, and ``None`` for none."""
    if not link.inner:
        return
    if name not in state.links:
        raise PlainKeyError(f"The state is not of this chain: it lacks {name}. {REMEDY}")
    entry, seen = state.links[name], []

    def see(tx: ChainLike, its: Params, own: State) -> dict[str, PyTree]:
        seen.append((tx.links, None if params is None else its, own))
        return {}

    link.visit(see, params, entry)
    for links, its, own in seen:
        yield next(key for key, x in entry.items() if x is own), links, its, own


def warn_of_unmatched(links: Links, params: Params, state: State) -> None:
    """`checks.warn_of_unmatched` for a chain, and for those within, which may see other parameters."""
    checks.warn_of_unmatched(links, params)
    for name, link in links.items():
        for _, inner, its, own in within(name, link, state, params):
            warn_of_unmatched(inner, its, own)
