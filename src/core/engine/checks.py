"""What the engine checks, and the errors that say where and why."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import all_leaves, tree_leaves

from ..values.contents import is_array
from ..values.errors import PlainKeyError, did_you_mean, renamed
from ..values.hyper import by_path, not_a_scalar, pick
from ..values.tree import dtype_of, flatten, is_trainable, shard_axes, show, widened
from ..values.types import DType, Extra, Leaf, Params, Updates
from ..values.value import Value
from ..values.warning import warn
from .protocol import LinkLike, Links
from .state import State

REMEDY = "Carry it over with adopt(params, state), or begin anew with init(params)"
"""For a state of another chain."""


INIT, STEP, UPDATE = "init(params)", "step(params, state, grads)", "update(grads, state, params)"

AS_ARGUMENT = {"grad": "grads", "value_fn": "loss", "grad_fn": "jax.grad(loss)"}
"""What a training loop passes as an extra argument, where that has another name there."""


MEANT = {
    "tx": "tx must be a chain or a link",
    "state": "state must be what tx.init(params) or the last step returned",
    "params": "params must be the tree of arrays to be trained",
}
"""What arguments of these names are for."""


@contextlib.contextmanager
def blamed(name: str) -> Iterator[None]:
    """The code of one link: its operations bear the link's name in profiles, and so do exceptions that it raises."""
    try:
        with jax.named_scope(name):
            yield
    except Exception as e:
        note = f"raised in link {name!r} of the chain"
        if note not in getattr(e, "__notes__", ()):
            e.add_note(note)
        raise


class LeafSlots(SimpleNamespace):
    """The slots of one leaf, as `Leafwise.leaf` reads them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # which Python asks for
            raise AttributeError(name)
        remedy = {"grad": "reads_grads = True", "key": "random = True"}.get(name)
        if remedy is None:
            known = [slot for slot in vars(self) if slot not in ("grad", "key")]
            remedy = f"slots = {(*known, name)!r}"
            name = f"{name!r}{did_you_mean(name, known)}; the link has {', '.join(known) or 'none'}"
        raise AttributeError(f"there is no slot {name}: declare {remedy} in its class")


def check_roles(call: str, **given: Any) -> None:
    """Raise unless the arguments named ``state``, and no others, are states, and one named ``tx`` is a chain."""
    wrong = {
        name: show(x)
        for name, x in given.items()
        if isinstance(x, State) != (name == "state") or (name == "tx" and not _is_chain(x))
    }
    if wrong:
        name = next(name for name in ("state", "tx", *wrong) if name in wrong)
        got = " and ".join(f"{what} as {name}" for name, what in wrong.items())
        raise TypeError(f"`{call}` got {got}: {MEANT.get(name, MEANT['params'])}")


def check_params(call: str, links: Links, params: Any, **given: Any) -> None:
    """Raise unless the links can make a state for these parameters. ``given`` is for `check_roles`."""
    check_roles(call, params=params, **given)
    if not _is_tree(params) or (_is_chain(params) and params.links == links):
        raise TypeError(f"`{call}` got {show(params)} as params: {MEANT['params']}")
    check_buffers(call, params=params)
    for path, x in flatten(links).items():
        if is_array(x) and x.ndim:
            raise ValueError(not_a_scalar(path.replace("/", "."), x))


def check_buffers(call: str, **given: Any) -> None:
    """Raise for shapes in place of arrays, and for arrays that were donated."""
    for name, tree in given.items():
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
            raise TypeError(
                f"Link {name!r} rounds the parameters itself: call {_with(f'tx.{STEP}', extra)} in place of update. "
                "flax's TrainState calls update: there write params, opt_state = tx.step(ts.params, ts.opt_state, "
                "grads), and ts.replace(step=ts.step + 1, params=params, opt_state=opt_state)"
            )
        if link.reads_params and params is None and updates is not None:
            raise TypeError(f"Link {name!r} reads the parameters: call {_with(f'tx.{UPDATE}', extra)}")
    check_entries(links, state, params)


def check_state(call: str, tx: Any, params: Any, state: Any) -> None:
    """Raise unless the state is one of this chain, and all arrays are still there. For functions of these three."""
    check_roles(call, tx=tx, params=params, state=state)
    check_buffers(call, params=params, state=state)
    check_entries(tx.links, state, params)


def check_extra(call: str, links: Iterable[tuple[str, Any]], extra: dict[str, Any]) -> None:
    """Raise unless the extra arguments of a call are those that the links read."""
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
    """A call with these extra arguments, as a training loop has it."""
    passed = "".join(f", {name}={AS_ARGUMENT.get(name, name)}" for name in extra)
    return f"{call[:-1]}{passed})"


def check_entries(links: Links, state: State, params: Any) -> None:
    """Raise unless the state is one of these links."""
    missing = [n for n, link in links.items() if n not in state.links and (link.slots or _keeps_state(link, params))]
    unknown = [n for n in state.links if n not in links]
    if missing or unknown:
        parts = [f"it lacks {', '.join(missing)}"] * bool(missing) + [f"it holds {', '.join(unknown)}"] * bool(unknown)
        raise PlainKeyError(
            f"The state is not of this chain ({' → '.join(links) or 'no links'}): {' and '.join(parts)}. {REMEDY}"
        )
    for name, entry in state.links.items():
        _check_entry(name, links[name], entry)


def check_pair(updates: Any, like: Any) -> None:
    """Raise if gradients, which should be ``like`` this tree, came in a pair with the loss or with auxiliary data."""
    if type(updates) is not tuple or len(updates) != 2 or like is None or _fits(updates, like):
        return
    for part, both, call in (
        (updates[1], "value, grads", "jax.value_and_grad(loss)"),
        (updates[0], "grads, aux", "jax.grad(loss, has_aux=True)"),
    ):
        if _fits(part, like):
            raise TypeError(
                f"The updates are a pair, as {call} returns it: write {both} = {call}(params), and pass grads alone"
            )


def _fits(tree: Any, like: Any) -> bool:
    """Whether the leaves of two trees have the same shapes, but for leading axes."""
    ours, theirs = flatten(tree), flatten(like)
    shapes = [(np.shape(x), np.shape(y)) for x, y in zip(ours.leaves, theirs.leaves)]
    return ours.treedef == theirs.treedef and all(x[len(x) - len(y) :] == y for x, y in shapes)


def _check_entry(name: str, link: Any, entry: Any) -> None:
    """Raise unless a link's entry has its slots, and what it remembers."""
    for field in ("nonnegative", "absent") if isinstance(entry, dict) else ():
        for key in getattr(link, field):
            if key not in entry and key not in link.slots:
                raise ValueError(
                    f"`{type(link).__name__}.{field}` names {key!r}{did_you_mean(key, entry)}; the state has "
                    f"{', '.join(entry)}"
                )
    if link.treewise or (isinstance(entry, dict) and entry.keys() == {*link.slots}):
        return
    expected = [*link.slots, *jax.eval_shape(link.init_global_state)]
    if not isinstance(entry, dict) or entry.keys() != {*expected}:
        found = ", ".join(entry) if isinstance(entry, dict) else show(entry)
        raise PlainKeyError(
            f"The state is not of this chain: link {name!r} keeps {', '.join(expected) or 'nothing'}, the state has "
            f"{found} under its name. {REMEDY}"
        )


def check_leaf(path: str, u: Leaf, p: Leaf, has_params: bool, examples: bool = False) -> bool:
    """Whether the leaf moves; raises if update and parameter do not fit each other.

    With ``examples`` the update has a first axis more.
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
    """What a link is told that would take a shard for the whole of a parameter."""
    along = " and ".join(map(repr, axes))
    return (
        f"Link {name!r} computes with several numbers of {path!r} at once, and jax.shard_map gives each device only a "
        f"part of them, along {along}: call step outside of shard_map, where JAX shards it by itself, or "
        f"gather the parameter and its gradient first (jax.lax.all_gather)"
    )


def as_parameter(u: Leaf, p: Leaf) -> Leaf:
    """The update; one of real numbers for a complex parameter made complex."""
    return jnp.asarray(u, dtype_of(p)) if jnp.iscomplexobj(p) and not jnp.iscomplexobj(u) else u


def check_result(
    name: str, link: LinkLike, u: jax.Array, slots: dict[str, jax.Array], result: Any
) -> tuple[jax.Array, dict[str, Any]]:
    """What a leaf function returned, taken apart."""
    if not link.slots:
        if type(result) is tuple:
            raise TypeError(
                f"The leaf of link {name!r} returned a tuple, but the link has no slots: return the update alone, or "
                "declare slots in its class"
            )
        new_u, new = result, {}
    elif isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
        new_u, new = result
    else:
        raise TypeError(f"The leaf of link {name!r} must return the update and a dict of its slots {link.slots}")
    if getattr(new_u, "shape", None) != u.shape or new_u.dtype != u.dtype:
        raise TypeError(f"Link {name!r} turned an update of {show(u)} into {show(new_u)}: its leaf must keep both")
    if set(new) != set(link.slots):
        raise TypeError(f"Link {name!r} declares the slots {link.slots} but its leaf returned {tuple(new)}")
    for s, x in new.items():
        if not _is_number(x) or jnp.shape(x) != jnp.shape(slots[s]) or jnp.iscomplexobj(x):
            raise TypeError(f"Link {name!r} turned its slot {s!r} of {show(slots[s])} into {show(x)}")
    return new_u, new


def check_precise(name: str, theta: jax.Array, u: jax.Array) -> None:
    """Raise unless a rounding made of the parameter what its update can be added to."""
    if getattr(theta, "shape", None) != u.shape or theta.dtype != u.dtype:
        raise TypeError(f"The rounding of link {name!r} made {show(theta)} of a parameter, expected {show(u)}")


def check_rounded(name: str, result: Any, p: Leaf, residual: jax.Array | None, dtype: DType) -> tuple[jax.Array, Any]:
    """The parameter and the residual that a rounding returned, taken apart."""
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(f"The rounding of link {name!r} must return the parameter and its residual, or None for it")
    like = jax.ShapeDtypeStruct(jnp.shape(p), dtype)
    for what, new, old in zip(("parameter", "residual"), result, (like, residual)):
        if show(new) != show(old):
            raise TypeError(f"The rounding of link {name!r} returned {show(new)} as the {what}, expected {show(old)}")
    return result


def check_first_slots(name: str, link: LinkLike, slots: Any) -> dict[str, Any] | None:
    """What `init_leaf` returned."""
    if slots is None:
        return None
    if not isinstance(slots, dict) or slots.keys() != {*link.slots}:
        made = tuple(slots) if isinstance(slots, dict) else show(slots)
        raise TypeError(f"Link {name!r} declares the slots {link.slots} but its init_leaf makes {made}")
    for s, x in slots.items():
        if not is_array(x):
            raise TypeError(f"The init_leaf of link {name!r} must make an array of slot {s!r}, got {show(x)}")
    return slots


def check_scalars(name: str, scalars: Any) -> Any:
    """What `scalars` or `factor` returned."""
    for path, x in flatten(scalars).items():
        if not (x is None or _is_number(x) or isinstance(x, str)):
            where = f" at {path!r}" if path else ""
            raise TypeError(f"The scalars of link {name!r} must be arrays and numbers, got {show(x)}{where}")
    return scalars


def check_verdict(name: str, accepted: Any) -> Any:
    """What `accepts` returned."""
    if not _is_number(accepted) or jnp.shape(accepted) or jnp.result_type(accepted) != jnp.bool_:
        raise TypeError(
            f"The accepts of link {name!r} must return a boolean scalar, got {show(accepted)}: reduce it by jnp.all"
        )
    return accepted


def check_global_state(name: str, new: Any, old: dict[str, Any]) -> dict[str, Any]:
    """What `update_global_state` returned."""
    if not isinstance(new, dict) or new.keys() != old.keys():
        made = ", ".join(map(str, new)) or "nothing" if isinstance(new, dict) else show(new)
        raise TypeError(
            f"The update_global_state of link {name!r} must return {', '.join(old)}, as its init_global_state does, "
            f"got {made}"
        )
    for key, x in new.items():
        if not _is_number(x) or jnp.shape(x) != jnp.shape(old[key]):
            raise TypeError(f"Link {name!r} turned {key!r} of its global state, {show(old[key])}, into {show(x)}")
    return new


def _is_number(x: Any) -> bool:
    """Whether ``x`` is an array or a number."""
    return is_array(x) or isinstance(x, (numbers.Number, np.generic))


def warn_of_unmatched(links: Links, params: Any) -> None:
    """Warn of patterns that decide for no parameter: most often a mistyped weight-decay mask."""
    flat = flatten(params)
    for name, link in links.items():
        for field in link._leaves:
            table = getattr(link, field)
            if not isinstance(table, by_path):
                continue
            chosen = {pick(f"{name}.{field}", table, path)[0] for path, p in flat.items() if is_trainable(p)}
            for i, pattern in enumerate(table.patterns):
                if chosen and i not in chosen:
                    warn(
                        f"`{name}.{field}`: the pattern {pattern!r} decides for no parameter; the paths are like "
                        f"{', '.join(map(repr, flat.paths[:3]))}"
                    )


def _keeps_state(link: Any, params: Any) -> bool:
    """Whether a link has a state beside its slots, as far as can be known."""
    if not link.treewise:
        return bool(link.init_global_state())
    if params is None:
        return False
    like = params if link.moves_params else widened(params)
    return bool(jax.tree.leaves(jax.eval_shape(link.init_tree, like)))


def _is_tree(x: Any) -> bool:
    """Whether ``x`` is a container, an array or a number."""
    return x is not None and (not all_leaves([x]) or hasattr(x, "dtype") or isinstance(x, (int, float, complex)))


def _is_chain(x: Any) -> bool:
    return isinstance(x, Value) and hasattr(x, "links")


def _path(tree: Any, leaf: Any) -> str:
    return next(path for path, x in flatten(tree).items() if x is leaf)
