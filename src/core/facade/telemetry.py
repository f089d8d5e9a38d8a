"""What can be read from a chain and its state during a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from ..engine import checks
from ..engine.checks import REMEDY
from ..engine.protocol import ChainLike, LinkLike, Links
from ..engine.state import State
from ..values.errors import PlainKeyError
from ..values.hyper import by_path, evaluate, pick
from ..values.tree import compute_dtype, dtype_of, flatten, is_trainable, widest
from ..values.types import HyperValue, Params, PyTree, Scalar

Inner = tuple[str, Links, Params, State]
"""A chain within a link: its key in the link's entry of the state, its links, its parameters and its state."""


def hyperparams(links: Links, state: State, params: Params) -> dict[str, dict]:
    """See `Transformation.hyperparams`."""
    found: dict[str, dict] = {}
    for name, link in links.items():
        held = within(name, link, state, params)
        inner = {key: hyperparams(its_links, its_state, its_params) for key, its_links, its_params, its_state in held}
        numbers = {
            field.name: _number(f"{name}.{field.name}", getattr(link, field.name), state, params)
            for field in dataclasses.fields(link)
            if "range" in field.metadata
        }
        if both := {**numbers, **{key: of for key, of in inner.items() if of}}:
            found[name] = both
    return found


def _number(where: str, x: HyperValue, state: State, params: Params) -> Scalar | dict[str, Scalar]:
    """The value of a hyperparameter at the next step, or the values of a table's entries."""
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
    """The chains that a link holds, with the parameters as each chain sees them, or ``None`` if ``params`` is."""
    if not link.inner:
        return
    if name not in state.links:
        raise PlainKeyError(f"The state is not of this chain: it lacks {name}. {REMEDY}")
    entry, found = state.links[name], []

    def record(tx: ChainLike, inner_params: Params, inner_state: State) -> dict[str, PyTree]:
        found.append((tx.links, None if params is None else inner_params, inner_state))
        return {}

    link.visit(record, params, entry)
    for links, inner_params, inner_state in found:
        yield next(key for key, x in entry.items() if x is inner_state), links, inner_params, inner_state


def warn_of_unmatched(links: Links, params: Params, state: State) -> None:
    """`checks.warn_of_unmatched` for a chain and the chains within it, which may see other parameters."""
    checks.warn_of_unmatched(links, params)
    for name, link in links.items():
        for _, inner, inner_params, inner_state in within(name, link, state, params):
            warn_of_unmatched(inner, inner_params, inner_state)
