"""What can be read from a chain and its state during a run."""

from __future__ import annotations

import dataclasses
import numbers
from collections import Counter
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ..engine import checks
from ..engine.checks import REMEDY
from ..engine.hooks import blamed
from ..engine.protocol import ChainLike, LinkLike, Links
from ..engine.state import State
from ..values.contents import brief, is_array
from ..values.errors import PlainKeyError
from ..values.hyper import evaluate
from ..values.schedule import Schedule
from ..values.tables import Shape, Table, pick, shapes_of
from ..values.tree import compute_dtype, dtype_of, flatten, is_trainable, show, widest
from ..values.types import HyperValue, Params, PyTree, Scalar
from .edits import chains_within

Inner = tuple[str, Links, Params, State]
"""A chain within a link: its key in the link's entry of the state, its links, its parameters and its state."""


def hyperparams(links: Links, state: State, params: Params) -> dict[str, dict]:
    """See `Transformation.hyperparams`."""
    found: dict[str, dict] = {}
    for name, link in links.items():
        held = within(name, link, state, params)
        inner = {key: hyperparams(its_links, its_state, its_params) for key, its_links, its_params, its_state in held}
        own = {
            field.name: _number(f"{name}.{field.name}", getattr(link, field.name), state, params)
            for field in dataclasses.fields(link)
            if "range" in field.metadata
        }
        if both := {**own, **{key: of for key, of in inner.items() if of}}:
            found[name] = both
    return found


def _number(where: str, x: HyperValue, state: State, params: Params) -> Scalar | dict[str, Scalar]:
    """The value of a hyperparameter at the next step, or the values of a table's entries."""
    if jnp.ndim(state.step):  # of a state that `jax.vmap` has stacked
        return jax.vmap(lambda step: _number(where, x, state._replace(step=step), params))(state.step)
    if params is None:
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
        if not isinstance(x, Table):
            return evaluate(where, x, state.step, dtype)
        return {label: evaluate(where, entry, state.step, dtype) for label, entry in x.labelled().items()}
    trained = {path: p for path, p in flatten(params).items() if is_trainable(p)}
    if not isinstance(x, Table):
        return evaluate(where, x, state.step, widest(map(dtype_of, trained.values())))
    return {
        path: evaluate(where, pick(where, x, path, jnp.shape(p))[1], state.step, compute_dtype(dtype_of(p)))
        for path, p in trained.items()
    }


def metrics(links: Links, state: State) -> dict[str, Scalar]:
    """See `chainax.metrics`."""
    found = dict(_metrics(links, state, ""))
    places = Counter(name for _, name in found)
    flat: dict[str, Scalar] = {}
    for (path, name), x in found.items():
        key = name if places[name] == 1 else f"{path}/{name}"
        for full, one in [(f"{key}/{of}", y) for of, y in x.items()] if isinstance(x, dict) else [(key, x)]:
            if full in flat:
                holder = path.partition("/")[0]
                raise ValueError(f"`metrics` has two numbers called {full!r}: rename {holder!r} in the chain")
            flat[full] = one
    return flat


def _metrics(links: Links, state: State, where: str) -> Iterator[tuple[tuple[str, str], Scalar | dict[str, Scalar]]]:
    """The numbers of a chain by the path of their link and their name. A table has a number for each pattern."""
    checks.check_entries(links, state, None)
    last = state._replace(step=jnp.maximum(state.step - 1, 0))  # the hyperparameters of the step that was taken
    for name, link in links.items():
        path = where + name
        for field in link._numbers:
            x = getattr(link, field)
            if field == link.factor_field or _varies(x):
                yield (path, field), _number(f"{name}.{field}", x, last, None)
        if name in state.links:
            with blamed(name):
                own = _checked(name, link, link.metrics(state.links[name]), jnp.ndim(state.step))
            yield from (((path, key), x) for key, x in own.items())
        segments = {held.key: held.segment for held in chains_within(link)}
        for key, inner, _, its_state in within(name, link, state):
            yield from _metrics(inner, its_state, f"{path}/{segments.get(key, f'{key}/')}")


def _varies(x: object) -> bool:
    """Whether a hyperparameter is a schedule, or a table with one."""
    return isinstance(x, Schedule) or (isinstance(x, Table) and any(map(_varies, x.labelled().values())))


def _checked(name: str, link: LinkLike, found: object, ndim: int) -> dict[str, Scalar]:
    """What `Link.metrics` returned. The scalars of a state that `jax.vmap` has stacked have its axes."""
    if not isinstance(found, Mapping) or not all(isinstance(key, str) and key.isidentifier() for key in found):
        raise TypeError(f"The metrics of link {name!r} must be a dict of scalars by identifiers, got {brief(found)}")
    for key, x in found.items():
        if key in link._numbers:
            raise TypeError(f"The metrics of link {name!r} have {key!r}, which is a field of the link: rename it")
        if isinstance(x, bool) or not (isinstance(x, numbers.Real) or (is_array(x) and x.ndim == ndim)):
            raise TypeError(f"The metrics of link {name!r} must be scalars, got {show(x)} as {key!r}")
    return dict(found)


def within(name: str, link: LinkLike, state: State, params: Params = None) -> Iterator[Inner]:
    """The chains that a link holds, with the parameters as each chain sees them, or ``None`` if ``params`` is."""
    if link.inner and name not in state.links:
        raise PlainKeyError(f"The state is not of this chain: it lacks {name}. {REMEDY}")
    yield from inner_states(link, state.links.get(name), params)


def inner_states(link: LinkLike, entry: PyTree, params: Params = None) -> Iterator[Inner]:
    """`within`, for the link's entry of the state."""
    found: list[tuple[Links, Params, State]] = []
    if not link.inner:
        return

    def record(tx: ChainLike, inner_params: Params, inner_state: State) -> dict[str, PyTree]:
        found.append((tx.links, None if params is None else inner_params, inner_state))
        return {}

    link.visit(record, params, entry)
    for links, inner_params, inner_state in found:
        yield next(key for key, x in entry.items() if x is inner_state), links, inner_params, inner_state


def warn_of_unmatched(links: Links, params: Params, state: State, others: Mapping[str, Shape] | None = None) -> None:
    """`checks.warn_of_unmatched` for a chain and the chains within it, which may see other parameters."""
    others = shapes_of(params) if others is None else others
    checks.warn_of_unmatched(links, params, others)
    for name, link in links.items():
        for _, inner, inner_params, inner_state in within(name, link, state, params):
            warn_of_unmatched(inner, inner_params, inner_state, others)
