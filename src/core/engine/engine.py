"""The engine: what `init`, `update` and `step` do, for any chain.

It takes every leaf with an update through every link (`walk`, `leaf`), and handles everything that links share: the
step count, schedules, tables by path, the dtype of arithmetic, storage of slots, and rounding of parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.interpreters.partial_eval import DynamicJaxprTracer
from jax.tree_util import tree_leaves

from ..values.contents import is_array
from ..values.tree import dtype_of, flatten, is_trainable, widened, widest
from ..values.types import Extra, Leaf, Params, PyTree, Updates
from ..values.value import make
from .checks import STEP, check_arguments, check_buffers, check_pair
from .elementwise import is_elementwise, leaf_functions, without_shape
from .frozen import Frozen, freeze
from .hooks import blamed, check_first_global_state
from .leaf import added
from .moving import Tree
from .offload import fetched_first, returned
from .placement import abstract, initialized, mesh_of, shapes
from .protocol import LeafwiseLike, Links, is_leafwise, is_matrixwise, is_treewise
from .recompiling import Uses
from .slots import init_leaf, resolve
from .state import State
from .walk import Walk


def init(links: Links, params: Params) -> State:
    """See `Transformation.init`; the methods of the same names document the functions that follow."""
    make = functools.partial(_init, links)
    return make(params) if mesh_of(params) is None else initialized(make, params)


def abstract_state(links: Links, params: Params) -> State:  # noqa: D103
    return abstract(functools.partial(_init, links), params)


def state_shapes(links: Links, params: Params) -> State:
    """The state with a `jax.ShapeDtypeStruct` in place of each array, as it would be traced."""
    return shapes(functools.partial(_init, links), params)


def _init(links: Links, params: Params) -> State:
    flat = flatten(params)
    count = jnp.zeros((), jnp.int32)
    entries: dict[str, PyTree] = {}
    dtype = widest(dtype_of(p) for p in flat.leaves if is_trainable(p))
    for name, link in links.items():
        if is_treewise(link):
            resolved = resolve(link, name, None, count, dtype)
            with blamed(name):
                entry = resolved.init_tree(params if link.moves_params else widened(params))
            if type(entry) is not tuple or entry:
                entries[name] = entry
        if not is_leafwise(link):
            continue
        keeps = link.slots or is_matrixwise(link)  # a parameter that is no matrix is refused
        leaves = [init_leaf(link, name, path, p, count) for path, p in flat.items() if keeps]
        entry = {s: flat.build([leaf and leaf[s] for leaf in leaves]) for s in link.slots}
        with blamed(name):
            global_state = check_first_global_state(name, link, link.init_global_state())
        if entry := {**entry, **global_state}:
            entries[name] = entry
    return State(count, entries, {})


def update(  # noqa: D103
    links: Links, updates: Updates, state: State, params: Params, extra: Extra
) -> tuple[Updates, State]:
    return _walk(links, updates, state, params, extra, apply=False)


def step(  # noqa: D103
    links: Links, params: Params, state: State, grads: Updates, extra: Extra
) -> tuple[Params, State]:
    if params is None and grads is not None:
        raise TypeError(f"`step` moves the parameters: call tx.{STEP}")
    return _walk(links, grads, state, params, extra, apply=True)


def leaf_is_elementwise(name: str, link: LeafwiseLike, *trees: PyTree) -> bool:
    """Whether a link's leaf function is elementwise and the same for all of these trees, each with a single leaf."""
    links = {name: make(type(link), **{**vars(link), "storage": None}) if link.formats else link}
    extra = {x: jax.ShapeDtypeStruct((), jnp.float32) for x in link.extra}
    seen = set()
    for params in trees:
        shape = next(p.shape for p in flatten(params).leaves if p is not None)
        with jax.disable_jit(False):  # without jit the jaxpr would contain no leaf function
            begun, state = jax.make_jaxpr(functools.partial(init, links), return_shape=True)(params)
            jaxpr = jax.make_jaxpr(functools.partial(update, links))(params, state, params, extra)
        functions = [begun.jaxpr, *leaf_functions(jaxpr.jaxpr)]
        if not all(is_elementwise(function, shape) for function in functions):
            return False
        seen.add(tuple(without_shape(function, shape) for function in functions))
    return len(seen) == 1


def lookahead(links: Links, params: Params, state: State, extra: Extra) -> Params:  # noqa: D103
    flat = flatten(params)
    zeros = flat.build([jnp.zeros_like(p) if is_trainable(p) else None for p in flat.leaves])
    return step(links, params, state, zeros, extra)[0]


def apply_updates(params: Params, updates: Updates) -> Params:
    """``params + updates``, leaf by leaf, added in float32 or better and rounded once to the parameter's dtype.

    Leaves that are not floating-point or complex, and those whose update is ``None``, are returned unchanged.

    Errors: ``TypeError``, with the path, if trees or shapes differ.
    """
    check_buffers("apply_updates(params, updates)", params=params, updates=updates)
    flat = flatten(params)
    check_pair(updates, params)
    tree = Tree.of(flat, flat.line_up("The updates", updates), flat.leaves, per_example=False)
    return tree.replaced(flat.leaves, [(leaf, added(leaf.update, leaf.param)) for leaf in tree.moving])


def _walk(
    links: Links, updates: Updates, state: State, params: Params, extra: Extra, *, apply: bool
) -> tuple[PyTree, State]:
    check_arguments(links, updates, state, params, extra, apply=apply)
    slots = (state.links[name][slot] for name, link in links.items() if not link.treewise for slot in link.slots)
    check_pair(updates, next(slots, None) if params is None else params)
    flat = flatten(updates if params is None else params)
    per_example = next((link.per_example for link in links.values()), False)
    # This drops the leaves without an update: None, float0, integers and keys.
    tree = Tree.of(flat, flat.line_up("The updates", updates), None if params is None else flat.leaves, per_example)
    leaves = tree.moving
    inputs = tree_leaves((tuple(links.values()), [(leaf.grad, leaf.param) for leaf in leaves], state, extra))
    if _is_eager(links, inputs, extra):
        # Outside jit the entire walk is compiled, so that it is one dispatch and not one for each leaf.
        # A compiled function accepts arrays only, so the other leaves are replaced by None.
        nones: list[Leaf] = [None] * len(tree.updates)
        grads = tree.replaced(nones, [(x, x.grad) for x in leaves])
        moving = None if params is None else tree.replaced(nones, [(x, x.param) for x in leaves])
        frozen, arrays = freeze(tuple(links.values()))
        count, (compiled, uses) = state.step, _compiled(frozen, tuple(links), apply)
        result, state = compiled(arrays, grads, state, moving, extra)
        uses.note(links, count, state.step)
        new = tree.flat.line_up("The result", result)
        moved = [new[leaf.place] for leaf in leaves]
    else:
        on_device = state._replace(links=fetched_first(links, state.links))
        trace = next((x._trace for x in inputs if isinstance(x, DynamicJaxprTracer)), None)
        moved, new_state = Walk(links, tree, on_device, extra, apply=apply, trace=trace).through()
        state = new_state._replace(links=returned(new_state.links, state.links))
    originals = tree.params if apply and tree.params is not None else tree.updates
    return tree.replaced(originals, zip(leaves, moved)), state


@functools.lru_cache(maxsize=64)  # each entry holds the code compiled for its constants; a partition may need many
def _compiled(frozen: Frozen, names: tuple[str, ...], apply: bool) -> tuple[Callable[..., tuple[PyTree, State]], Uses]:
    def walk(
        arrays: list[jax.Array], updates: Updates, state: State, params: Params, extra: Extra
    ) -> tuple[PyTree, State]:
        return _walk(dict(zip(names, frozen.thaw(arrays))), updates, state, params, extra, apply=apply)

    return jax.jit(walk), Uses(frozen)


def _is_eager(links: Links, inputs: list[Leaf], extra: Extra) -> bool:
    """Whether all inputs are concrete, and no link needs leaves without an update."""
    if jax.config.jax_disable_jit or any(link.treewise for link in links.values()):  # pyright: ignore[reportAttributeAccessIssue]
        return False
    return not any(isinstance(x, Tracer) for x in inputs) and all(
        is_array(x) or type(x) is float for x in tree_leaves(extra)
    )
