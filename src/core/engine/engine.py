"""The engine: what `init`, `update` and `step` do, for any chain.

It takes every leaf through every link (`walk`, `leaf`), and owns everything that links share: the step
count, schedules, tables by path, the dtype of arithmetic, how slots are stored and parameters rounded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.interpreters.partial_eval import DynamicJaxprTracer
from jax.tree_util import tree_leaves

from ..values.contents import is_array
from ..values.tree import dtype_of, flatten, is_trainable, widened, widest
from .checks import STEP, as_parameter, check_arguments, check_buffers, check_leaf, check_pair
from .leaf import Frozen, added, freeze, is_elementwise, leaf_functions, less_shape
from .offload import fetched, returned
from .protocol import Links
from .state import State
from .walk import Walk, init_leaf, resolve


def init(links: Links, params: Any) -> State:
    """See `Transformation.init`; so with the next three."""
    flat = flatten(params)
    count = jnp.zeros((), jnp.int32)
    entries: dict[str, Any] = {}
    dtype = widest(dtype_of(p) for p in flat.leaves if is_trainable(p))
    for name, link in links.items():
        if link.treewise:
            entry = resolve(link, name, None, count, dtype).init_tree(params if link.moves_params else widened(params))
            if type(entry) is not tuple or entry:
                entries[name] = entry
            continue
        leaves = [init_leaf(link, name, path, p, count) for path, p in flat.items() if link.slots]
        entry = {s: flat.build([leaf and leaf[s] for leaf in leaves]) for s in link.slots}
        if entry := {**entry, **link.init_global_state()}:
            entries[name] = entry
    return State(count, entries, {})


def update(links: Links, updates: Any, state: State, params: Any, extra: dict[str, Any]) -> tuple[Any, State]:  # noqa: D103
    return _walk(links, updates, state, params, extra, apply=False)


def step(links: Links, params: Any, state: State, grads: Any, extra: dict[str, Any]) -> tuple[Any, State]:  # noqa: D103
    if params is None and grads is not None:
        raise TypeError(f"`step` moves the parameters: call tx.{STEP}")
    return _walk(links, grads, state, params, extra, apply=True)


def treats_numbers_alone(name: str, link: Any, *trees: Any) -> bool:
    """Whether a link's leaf function is elementwise, and one and the same, on trees of a single shape each."""
    links = {name: link.replace(storage=None) if link.formats else link}
    extra = {x: jax.ShapeDtypeStruct((), jnp.float32) for x in link.extra}
    seen = set()
    for params in trees:
        shape = next(p.shape for p in flatten(params).leaves if p is not None)
        with jax.disable_jit(False):  # or there would be no leaf function to look at
            begun, state = jax.make_jaxpr(functools.partial(init, links), return_shape=True)(params)
            jaxpr = jax.make_jaxpr(functools.partial(update, links))(params, state, params, extra)
        functions = [begun.jaxpr, *leaf_functions(jaxpr.jaxpr)]
        if not all(is_elementwise(function, shape) for function in functions):
            return False
        seen.add(tuple(less_shape(function, shape) for function in functions))
    return len(seen) == 1


def lookahead(links: Links, params: Any, state: State, extra: dict[str, Any]) -> Any:  # noqa: D103
    flat = flatten(params)
    zeros = flat.build([jnp.zeros_like(p) if is_trainable(p) else None for p in flat.leaves])
    return step(links, params, state, zeros, extra)[0]


def apply_updates(params: Any, updates: Any) -> Any:
    """``params + updates``, leaf by leaf, added in float32 or better and rounded once to the parameter's dtype.

    Leaves that are not floating-point or complex, and those whose update is ``None``, stay as they
    are. Errors: ``TypeError`` where trees or shapes differ, with the path.
    """
    check_buffers("apply_updates(params, updates)", params=params, updates=updates)
    flat = flatten(params)
    check_pair(updates, params)
    leaves = flat.line_up("The updates", updates)
    moves = [check_leaf(path, u, p, True) for path, u, p in zip(flat.paths, leaves, flat.leaves)]
    return flat.build([added(as_parameter(u, p), p) if m else p for m, u, p in zip(moves, leaves, flat.leaves)])


def _walk(
    links: Links, updates: Any, state: State, params: Any, extra: dict[str, Any], *, apply: bool
) -> tuple[Any, State]:
    check_arguments(links, updates, state, params, extra, apply=apply)
    flat = flatten(updates if params is None else params)
    ps = [None] * len(flat.leaves) if params is None else flat.leaves
    kept = (state.links[name][slot] for name, link in links.items() if not link.treewise for slot in link.slots)
    check_pair(updates, next(kept, None) if params is None else params)
    us = flat.line_up("The updates", updates)
    examples = next((link.per_example for link in links.values()), False)
    moves = [check_leaf(path, u, p, params is not None, examples) for path, u, p in zip(flat.paths, us, ps)]
    us = [as_parameter(u, p) if m else u for m, u, p in zip(moves, us, ps)]
    inputs = tree_leaves((tuple(links.values()), us, ps, state, extra))
    if _is_eager(links, inputs, extra):
        # Outside of jit the walk is compiled as a whole: one dispatch in place of one for each leaf.
        # A compiled function takes arrays only, so what does not move becomes a hole.
        def movers(leaves: list[Any]) -> Any:
            return flat.build([x if m else None for x, m in zip(leaves, moves)])

        frozen, traced = freeze(tuple(links.values()))
        whole = None if params is None else movers(ps)
        new, state = _compiled(frozen, tuple(links), apply)(traced, movers(us), state, whole, extra)
        us = [n if m else u for m, n, u in zip(moves, flat.line_up("The result", new), us)]
    else:
        near = state._replace(links=fetched(state.links))
        trace = next((x._trace for x in inputs if isinstance(x, DynamicJaxprTracer)), None)
        walk = Walk(flat, moves, ps, us, near, extra, links, params is not None, trace)
        us, new = walk.through(params, apply=apply)
        state = new._replace(links=returned(new.links, state.links))
    return flat.build([u if m or not apply else p for m, u, p in zip(moves, us, ps)]), state


@functools.lru_cache(maxsize=64)  # each holds what was compiled for these constants; a partition may have as many
def _compiled(frozen: Frozen, names: tuple[str, ...], apply: bool) -> Callable[..., tuple[Any, State]]:
    def walk(traced: list[Any], us: Any, state: State, ps: Any, extra: Any) -> tuple[Any, State]:
        return _walk(dict(zip(names, frozen.thaw(traced))), us, state, ps, extra, apply=apply)

    return jax.jit(walk)


def _is_eager(links: Links, inputs: list[Any], extra: dict[str, Any]) -> bool:
    """Whether everything is concrete, and nothing needs more of the tree than the leaves that move."""
    if jax.config.jax_disable_jit or any(link.treewise for link in links.values()):  # pyright: ignore[reportAttributeAccessIssue]
        return False
    return not any(isinstance(x, Tracer) for x in inputs) and all(
        is_array(x) or type(x) is float for x in tree_leaves(extra)
    )
