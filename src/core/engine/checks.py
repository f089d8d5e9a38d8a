"""Checks of the arguments of a call: parameters, updates, state and extra arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import all_leaves, tree_leaves

from ..values.boxes import Trained, as_trained, unboxed
from ..values.contents import is_array
from ..values.errors import PlainKeyError, did_you_mean, renamed
from ..values.hyper import not_a_scalar
from ..values.tables import Shape, Table, pick, shapes_of
from ..values.tree import dtype_of, flatten, is_trainable, shard_axes, show, untyped_axes, widened
from ..values.types import Extra, Leaf, Params, PyTree, Updates
from ..values.value import Value
from ..values.warning import warn
from .protocol import ChainLike, LinkLike, Links, is_leafwise, is_random, is_treewise
from .state import State

REMEDY = "Carry it over with adopt(params, state, old=...), or start over with init(params)"
"""What to do with a state that belongs to another chain."""

INIT, STEP, UPDATE = "init(params)", "step(params, state, grads)", "update(grads, state, params)"

AS_ARGUMENT = {"grad": "grads", "value_fn": "loss", "grad_fn": "jax.grad(loss)"}
"""The name that an extra argument usually has in a training loop, if it differs."""

MEANT = {
    "tx": "tx must be a chain or a link",
    "state": "state must be what tx.init(params) or the last step returned",
    "params": "params must be the tree of arrays to be trained",
}
"""What these arguments must be."""


def check_roles(call: str, **arguments: object) -> None:
    """Raise unless the arguments named ``state``, and no others, are states, and one named ``tx`` is a chain."""
    wrong = {
        name: show(x)
        for name, x in arguments.items()
        if isinstance(x, State) != (name == "state") or (name == "tx" and not _is_chain(x))
    }
    if wrong:
        name = next(name for name in ("state", "tx", *wrong) if name in wrong)
        got = " and ".join(f"{what} as {name}" for name, what in wrong.items())
        raise TypeError(f"`{call}` got {got}: {MEANT.get(name, MEANT['params'])}")


def check_params(call: str, links: Links, params: Params, **others: object) -> None:
    """Raise unless the links can make a state for these parameters. ``others`` are passed to `check_roles`."""
    check_roles(call, params=params, **others)
    if not _is_tree(params) or (_is_chain(params) and params.links == links):
        raise TypeError(f"`{call}` got {show(params)} as params: {MEANT['params']}")
    check_buffers(call, params=params)
    for path, x in flatten(links).items():
        if is_array(x) and x.ndim:
            raise ValueError(not_a_scalar(path.replace("/", "."), x))


def check_buffers(call: str, **trees: PyTree) -> None:
    """Raise for shapes in place of arrays, and for arrays that were donated."""
    for name, tree in trees.items():
        for x in tree_leaves(tree):
            if isinstance(x, Tracer):
                continue
            if isinstance(x, jax.ShapeDtypeStruct):
                remedy = f"for the shapes of its result call jax.eval_shape(tx.{call.replace('(', ', ')}"
                raise TypeError(
                    f"`{call}` got a jax.ShapeDtypeStruct at {_path(tree, x)!r} of {name}, where it needs an array"
                    + (f": {remedy}" if call in (INIT, STEP, UPDATE) else "")
                )
            if isinstance(x, jax.Array) and x.is_deleted():
                raise RuntimeError(
                    f"`{call}` got a deleted array at {_path(tree, x)!r} of {name}: it was donated to an earlier step, "
                    "which has reused its memory. Go on with what that step returned, params, state = step(params, "
                    "state, grads), or compile it by make_step(tx, donate=False)"
                )


def check_arguments(links: Links, updates: Updates, state: State, params: Params, extra: Extra, *, apply: bool) -> None:
    """Raise unless these links can work with these arguments."""
    call = STEP if apply else UPDATE
    check_roles(call, params=params, state=state, grads=updates)
    check_extra(f"tx.{call}", links.items(), extra)
    for name, link in links.items():
        if link.final_rounding is not None and not apply:
            raise TypeError(rounds_itself(name, extra))
        if link.reads_params and params is None and updates is not None:
            raise TypeError(f"Link {name!r} reads the parameters: call {_with(f'tx.{UPDATE}', extra)}")
    check_entries(links, state, params)
    if untyped_axes() and (name := next((n for n, link in links.items() if _depends_on_shards(link)), None)):
        warn_of_untyped(name)


def rounds_itself(name: str, extra: Iterable[str]) -> str:
    """The error for a loop that adds updates to the parameters, though a link rounds these."""
    return (
        f"Link {name!r} rounds the parameters itself: call {_with(f'tx.{STEP}', extra)} in place of update. flax's "
        "TrainState and nnx.Optimizer call update; those that call step: from chainax.flax import Optimizer, TrainState"
    )


def as_plain(call: str, tx: ChainLike, params: Params, state: State) -> tuple[Trained, State]:
    """The parameters and the state without boxes. Raises unless the state is of this chain and no array was donated."""
    check_roles(call, tx=tx, params=params, state=state)
    check_buffers(call, params=params, state=state)
    state = unboxed(state)
    trained = as_trained(params, state)
    check_entries(tx.links, state, trained.params)
    return trained, state


def check_extra(call: str, links: Iterable[tuple[str, LinkLike]], extra: Extra) -> None:
    """Raise unless the extra arguments of a call are exactly those that the links read."""
    accepted = {argument: name for name, link in links for argument in link.extra}
    for argument in extra:
        if argument not in accepted:
            takes = f"accepts {', '.join(accepted)}" if accepted else "accepts none"
            hint = renamed(argument, accepted, extra[argument]) or did_you_mean(argument, accepted)
            raise TypeError(f"Unknown extra argument {argument!r}{hint}; this chain {takes}")
    missing = [argument for argument in accepted if argument not in extra]
    if missing:
        computed = {"value", "grad"} & {*missing}
        how = ", with value, grads = jax.value_and_grad(loss)(params)" if computed else ""
        raise TypeError(
            f"Link {accepted[missing[0]]!r} reads {', '.join(map(repr, missing))}: call {_with(call, accepted)}{how}"
        )


def _with(call: str, extra: Iterable[str]) -> str:
    """The code of a call with these extra arguments."""
    passed = "".join(f", {name}={AS_ARGUMENT.get(name, name)}" for name in extra)
    return f"{call[:-1]}{passed})"


def check_entries(links: Links, state: State, params: Params) -> None:
    """Raise unless the state has an entry for each of these links that keeps one, and no others."""
    missing = [n for n, link in links.items() if n not in state.links and (link.slots or _keeps_state(link, params))]
    unknown = [n for n in state.links if n not in links]
    if missing or unknown:
        parts = [f"it lacks {', '.join(missing)}"] * bool(missing) + [f"it holds {', '.join(unknown)}"] * bool(unknown)
        raise PlainKeyError(
            f"The state is not of this chain ({' → '.join(links) or 'no links'}): {' and '.join(parts)}. {REMEDY}"
        )
    for name, entry in state.links.items():
        _check_entry(name, links[name], entry)


def check_pair(updates: Updates, like: PyTree) -> None:
    """Raise if the gradients came in a pair with the loss or auxiliary data. They should be a tree ``like`` this."""
    if type(updates) is not tuple or len(updates) != 2 or like is None or _fits(updates, like):
        return
    for part, both, call in (
        (updates[1], "value, grads", "jax.value_and_grad(loss)"),
        (updates[0], "grads, aux", "jax.grad(loss, has_aux=True)"),
    ):
        if _fits(part, like):
            raise TypeError(
                f"The updates are a pair, as {call} returns: write {both} = {call}(params), and pass grads alone"
            )


def _fits(tree: PyTree, like: PyTree) -> bool:
    """Whether two trees have the same structure and shapes, except for leading axes of ``tree``."""
    ours, theirs = flatten(tree), flatten(like)
    shapes = [(np.shape(x), np.shape(y)) for x, y in zip(ours.leaves, theirs.leaves)]
    return ours.treedef == theirs.treedef and all(x[len(x) - len(y) :] == y for x, y in shapes)


def _check_entry(name: str, link: LinkLike, entry: PyTree) -> None:
    """Raise unless a link's entry of the state holds its slots and its global state."""
    for field in ("nonnegative", "absent") if isinstance(entry, dict) else ():
        for key in getattr(link, field):
            if key not in entry and key not in link.slots:
                raise ValueError(
                    f"`{type(link).__name__}.{field}` names {key!r}{did_you_mean(key, entry)}; the state has "
                    f"{', '.join(entry)}"
                )
    if not is_leafwise(link) or (isinstance(entry, dict) and entry.keys() == {*link.slots}):
        return
    expected = [*link.slots, *jax.eval_shape(link.init_global_state)]
    if not isinstance(entry, dict) or entry.keys() != {*expected}:
        found = ", ".join(entry) if isinstance(entry, dict) else show(entry)
        raise PlainKeyError(
            f"The state is not of this chain: link {name!r} keeps {', '.join(expected) or 'nothing'}, the state has "
            f"{found} under its name. {REMEDY}"
        )


def check_leaf(path: str, u: Leaf, p: Leaf, has_params: bool, examples: bool = False) -> bool:
    """Whether the leaf moves. Raises if the update does not fit the parameter.

    With ``examples``, the update has an additional leading axis.
    """
    if has_params and p is None and u is not None:
        raise TypeError(f"The update at {path!r} is {show(u)}, where the parameters have None")
    if p is not None and not is_trainable(p):
        return False
    if u is None:
        return False
    if not is_trainable(u):
        if p is None:
            return False
        raise TypeError(f"The update at {path!r} is {show(u)}, where the parameter is {show(p)}")
    shape = jnp.shape(u)
    if examples and not shape:
        raise TypeError(f"The update at {path!r} is a scalar, where a first axis of examples is expected")
    if p is not None and shape[examples:] != jnp.shape(p):
        more = " after the axis of examples" if examples else ""
        raise TypeError(f"The update at {path!r} has shape {list(shape)}, the parameter {list(jnp.shape(p))}{more}")
    if p is not None and jnp.iscomplexobj(u) and not jnp.iscomplexobj(p):
        raise TypeError(f"The update at {path!r} is complex, the parameter is not")
    if p is not None and (axes := [axis for axis in shard_axes(u) if axis not in shard_axes(p)]):
        raise TypeError(
            f"The update at {path!r} differs from device to device along {axes[0]!r}, the parameter does not: "
            f"average the gradients first, jax.lax.pmean(grads, {axes[0]!r})"
        )
    return True


def unshardable(name: str, path: str, axes: tuple[str, ...]) -> str:
    """The error for a link that would mistake a shard for the entire parameter."""
    along = " and ".join(map(repr, axes))
    return (
        f"Link {name!r} computes with several numbers of {path!r} at once, but jax.shard_map gives each device only a "
        f"part of them, along {along}: call step outside shard_map, where JAX shards it automatically, or "
        f"gather the parameter and its gradient first (jax.lax.all_gather)"
    )


UNTYPED = "without check_vma, jax.shard_map does not say"
"""How a warning begins."""


def warn_of_untyped(name: str) -> None:
    """Warn that a link takes what is on a device for the whole, since types do not say otherwise."""
    along = " and ".join(map(repr, untyped_axes()))
    warn(
        f"{UNTYPED} which arrays are parts along {along}: norms, means and random numbers of link {name!r} are those "
        "of the part on each device. Unless parameters and gradients are the same on all devices, pass check_vma=True, "
        "the default of jax.shard_map, or use it in place of jax.pmap, which has no such types"
    )


def check_tables_of_shards(links: Links, path: str) -> None:
    """Raise if a table reads the lengths of axes in `jax.shard_map`, where each device has a part of a parameter."""
    for name, link in links.items():
        for field in link._leaves:
            table = getattr(link, field)
            if isinstance(table, Table) and table.reads_sizes:
                raise TypeError(
                    f"`{name}.{field}`: {type(table).__name__} reads the lengths of axes, but {path!r} may be a part "
                    "of a parameter in jax.shard_map: call step outside, or write by_leaf(params, ...)"
                )


def as_parameter(u: Leaf, p: Leaf) -> Leaf:
    """The update, converted to the parameter's dtype if only the parameter is complex."""
    return jnp.asarray(u, dtype_of(p)) if jnp.iscomplexobj(p) and not jnp.iscomplexobj(u) else u


def warn_of_unmatched(links: Links, params: Params, others: Mapping[str, Shape]) -> None:
    """Warn about patterns that decide for no parameter: most often a mistyped weight-decay mask.

    ``others`` are the shapes by path of the parameters around, such as those of other groups of a `partition`.
    """
    paths, shapes = flatten(params).paths, shapes_of(params)
    own = {*paths}
    everywhere = {path: shape for path, shape in others.items() if path in own} | shapes
    for name, link in links.items() if shapes else ():
        for field in (*link._leaves, *link._static):
            table = getattr(link, field)
            if not isinstance(table, Table):
                continue
            for path, shape in shapes.items():
                pick(f"{name}.{field}", table, path, shape)
            for what in table.unmatched(everywhere):
                warn(f"`{name}.{field}`: {what}; the paths are like {', '.join(map(repr, paths[:3]))}")


def _keeps_state(link: LinkLike, params: Params) -> bool:
    """Whether a link keeps more than its slots. False if only the parameters, which are ``None``, could tell."""
    if is_leafwise(link):
        return bool(link.init_global_state())
    if params is None or not is_treewise(link):
        return False
    like = params if link.moves_params else widened(params)
    return bool(jax.tree.leaves(jax.eval_shape(link.init_tree, like)))


def _depends_on_shards(link: LinkLike) -> bool:
    """Whether a link reads the types of the arrays to see of what they are parts. Those within it are asked later."""
    if is_treewise(link):
        return not link.inner
    ending = link.final_rounding is not None and link.final_rounding.random
    return link.needs_all_updates or link.knows_shards or is_random(link) or ending


def _is_tree(x: object) -> bool:
    """Whether ``x`` is a container, an array or a number."""
    return x is not None and (not all_leaves([x]) or hasattr(x, "dtype") or isinstance(x, (int, float, complex)))


def _is_chain(x: object) -> TypeGuard[ChainLike]:
    return isinstance(x, Value) and hasattr(x, "links")


def _path(tree: PyTree, leaf: Leaf) -> str:
    return next(path for path, x in flatten(tree).items() if x is leaf)
