"""One walk over the tree, run by run.

A chain is cut into *runs*. Within a run each leaf passes through all links in one compiled function:
widened to float32 once, transformed, and rounded once. A link that must see the whole tree first (a
global norm) begins a run; a `Treewise` link is a run of its own.
"""

from __future__ import annotations

import functools
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..values.hyper import as_key, by_path, evaluate, pick, table_choices
from ..values.own_steps import has_own_steps
from ..values.tree import (
    Flat,
    all_finite,
    compute_dtype,
    cond,
    dtype_of,
    global_norm,
    is_trainable,
    max_abs,
    shard_axes,
    show,
    slot_dtype,
    to_real,
    widest,
)
from ..values.value import make
from .checks import unshardable
from .leaf import NOTHING, Plan, freeze, key_of_leaf, leaf_function, mixing_link
from .protocol import LeafwiseLike, LinkLike, Links
from .rounding import precise, turn
from .state import State
from .step_info import StepInfo
from .storage import cast, formats_of


def runs_of(links: Links) -> Iterator[Links]:
    """Consecutive links that one pass over the leaves can serve; at least one run, if an empty one."""
    run: Links = {}
    for name, link in links.items():
        alone = link.treewise or any(before.treewise for before in run.values())
        # What scales all leaves alike scales their norm too, so it need not end a run.
        if run and (alone or (link.needs_all_updates and not all(map(_is_uniform, run.values())))):
            yield run
            run = {}
        run[name] = link
    yield run


def _is_uniform(link: Any) -> bool:
    fields = (getattr(link, field) for field in link._leaves) if link.scaling else ()
    return link.scaling and not any(isinstance(x, by_path) or has_own_steps(x) for x in fields)


class _Updates:
    """The whole tree of updates before a link: the leaves at the start of its run, times a number."""

    def __init__(self, leaves: list[Any]) -> None:
        self.leaves = leaves
        self.factor: Any = 1.0
        self._cache: dict[str, jax.Array] = {}
        self._own: dict[str, jax.Array] = {}

    @property
    def _unscaled(self) -> bool:
        return isinstance(self.factor, float) and self.factor == 1

    def norm(self) -> jax.Array:
        if "norm" not in self._cache:
            self._cache["norm"] = global_norm(self.leaves)
        whole = self._cache["norm"]
        return whole if self._unscaled else whole * jnp.abs(self.factor)

    def finite(self) -> jax.Array:
        known = self._cache if self._unscaled else self._own
        if "finite" not in known:
            # Squares of finite numbers may overflow, which is rare enough to look again then.
            look = (lambda: all_finite(self.leaves)) if self._unscaled else self._largest_fits
            known["finite"] = cond(jnp.isfinite(self.norm()), lambda: jnp.array(True), look)
        return known["finite"]

    def _largest_fits(self) -> jax.Array:
        largest = max_abs(self.leaves)
        return jnp.isfinite(largest * jnp.abs(jnp.asarray(self.factor, largest.dtype)))

    def scaled(self, factor: Any) -> _Updates:
        new = _Updates(self.leaves)
        new._cache, new.factor = self._cache, factor if self._unscaled else self.factor * factor
        return new


class _Unseen:
    """In place of `_Updates`, for a link that did not ask for them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def norm(self) -> jax.Array:
        raise TypeError(f"Link {self.name!r} asks for the global norm: declare needs_all_updates = True in its class")

    finite = norm

    def scaled(self, factor: Any) -> _Unseen:
        return self


class Walk:
    """One walk over the tree: who the leaves are, and the scalars that groups of them share."""

    def __init__(
        self,
        flat: Flat,
        moves: list[bool],
        ps: list[Any],
        us: list[Any],
        state: State,
        extra: dict[str, Any],
        links: Links,
        has_params: bool,
        trace: Any,
    ) -> None:
        self.flat, self.moves, self.ps, self.us, self.state, self.extra = flat, moves, ps, us, state, extra
        self.has_params = has_params
        # The step counts from the new counter: reading the old one after it would cost XLA a copy.
        self.number = _next(state.step)
        self.count = jax.lax.sub(self.number, np.int32(1))
        self.outs = [dtype_of(u if p is None else p) if m else None for m, u, p in zip(moves, us, ps)]
        self.dtypes = [compute_dtype(out) if m else None for m, out in zip(moves, self.outs)]
        self.links = {n: link for n, link in links.items() if link.role != "apply"}
        self.ending = next(((n, link) for n, link in links.items() if link.role == "apply"), None)
        self.rests = self._rests()
        self.verdicts: list[jax.Array] = []
        self.fresh: dict[tuple, Any] = {}
        self.mixing: dict[tuple, str | None] = {}
        self.fused = leaf_function(trace)
        self.entries = dict(state.links)

    def through(self, params: Any, *, apply: bool) -> tuple[list[Any], State]:
        """Take all leaves through all links, unless a link refuses the step."""
        runs = list(runs_of(self.links))
        updates = None
        if not any(link.treewise for link in runs[0].values()):
            updates = self._updates(self.us)
            self._remember(runs[0], updates)
        verdicts, self.verdicts = self.verdicts, []
        us, number = self._unless_refused(verdicts, lambda: self._take(runs, updates, params, apply=apply), apply=apply)
        return us, State(number, self.entries, self.state.born)

    def _take(self, runs: list[Links], updates: _Updates | None, params: Any, *, apply: bool) -> tuple[list, jax.Array]:
        """Take the leaves through the runs, of which the first may have been asked about ``updates`` already."""
        us = self.us
        for run in runs:
            last = run is runs[-1]
            name, link = next(iter(run.items()), ("", None))
            if link is None or not link.treewise:
                if run is not runs[0]:
                    updates = self._updates(us)
                    self._remember(run, updates)
                us = self.through_leaves(run, us, updates or self._updates(us), last=last, apply=apply)
            elif last and apply and link.moves_params:
                us = self.move_tree(name, link, us, params)
            else:
                us = self.through_tree(name, link, us)
                if link.per_example:
                    self.us = us
                if last:
                    us = [self._finished(i, u, apply) if m else u for i, (m, u) in enumerate(zip(self.moves, us))]
        if self.ending and apply:
            self._keep_rests()
        if self.verdicts:  # of links behind the first run, which know the step when it is made
            made, self.entries = self.entries, dict(self.state.links)
            for name, entry in made.items():
                if memory := _memory(self.links.get(name), entry):
                    self.entries[name] = {**self.entries[name], **memory}
            return self._unless_refused(self.verdicts, lambda: (us, self.number), apply=apply, entries=made)
        return us, self.number

    def _unless_refused(
        self, verdicts: list[Any], take: Callable[[], Any], *, apply: bool, entries: Any = None
    ) -> tuple[list[Any], jax.Array]:
        """What ``take`` returns if all verdicts are for it; else no step. ``entries`` are the state's with the step.

        A condition, not a choice leaf by leaf: for that XLA's CPU compiler copies every slot.
        """
        if not verdicts:
            return take()
        before = self.entries

        def moving(us: list[Any]) -> list[Any]:
            return [u for u, m in zip(us, self.moves) if m]

        def taken() -> Any:
            self.entries = dict(before)
            us, number = take()
            done, self.entries = entries or self.entries, before
            return moving(us), number, done

        def refused() -> Any:
            still = [jnp.asarray(p) if apply else jnp.zeros(jnp.shape(u), out) for p, u, out in zip(*ends)]
            return still, self.count, before

        ends = moving(self.ps), moving(self.us), moving(self.outs)
        ok = functools.reduce(jnp.logical_and, verdicts)
        done, number, self.entries = cond(ok, taken, refused)
        done = iter(done)
        return [next(done) if m else u for m, u in zip(self.moves, self.us)], number

    def _updates(self, us: list[Any]) -> _Updates:
        return _Updates([u for u, m in zip(us, self.moves) if m])

    def through_leaves(self, run: Links, us: list[Any], updates: _Updates, *, last: bool, apply: bool) -> list:
        slots = {
            name: {s: self._slot_leaves(name, s, self.entries[name][s]) for s in link.slots}
            for name, link in run.items()
            if link.slots
        }
        groups: dict[tuple, tuple] = {}
        out = list(us)
        keys = {name: self._key(name, link.seed) for name, link in run.items() if link.random}
        reads = any(link.reads_grads for link in run.values())
        for i, path in enumerate(self.flat.paths):
            if not self.moves[i]:
                continue
            dtype, late = self.dtypes[i], path in self.joined
            like = self.ps[i] if self.ps[i] is not None else us[i]
            formats = formats_of(run.items(), path)
            key = (dtype, path if late else None, table_choices(run.items(), path), formats)
            if key not in groups:
                groups[key] = self._group(run, path, dtype, updates, formats)
            plan, traced = groups[key]
            target = self.outs[i] if last else slot_dtype(self.outs[i])
            mine = {name: {s: leaves[i] for s, leaves in of.items()} for name, of in slots.items()}
            self._check_slots(run, path, like, mine)
            given: dict[str, Any] = (
                {"keys": {name: self._key_of_leaf(k, i) for name, k in keys.items()}} if keys else {}
            )
            if reads:
                given["grad"] = self.us[i]
            if any(isinstance(form, cast) and not signed for _, _, form, signed in formats):
                given["turn"] = self.turn
            if plan.lagged:
                given["never"] = self.never
            plan = plan._replace(out=target, apply=last and apply)
            plan, given = self._with_rest(i, plan, given)
            if axes := shard_axes(us[i]):
                alike = plan, jnp.shape(us[i]), axes
                if alike not in self.mixing:
                    self.mixing[alike] = mixing_link(plan, traced, us[i], self.ps[i], mine, given)
                if mixing := self.mixing[alike]:
                    raise TypeError(unshardable(mixing, path, axes))
            out[i], mine, rest = self.fused(plan, traced, us[i], self.ps[i], mine, given)
            self.rests[i] = rest if plan.apply else self.rests[i]
            for name, of in mine.items():
                for s, leaf in of.items():
                    slots[name][s][i] = leaf
        for name, of in slots.items():
            self.entries[name] = {**self.entries[name], **{s: self.flat.build(leaves) for s, leaves in of.items()}}
        return out

    def through_tree(self, name: str, link: Any, us: list[Any]) -> list:
        wide = us
        if not link.widens:
            wide = [jnp.asarray(u, slot_dtype(dtype_of(u))) if m else u for m, u in zip(self.moves, us)]
        self._check_shards(name, link, us)
        link, at = self._whole(name, link, wide)
        whole = self.flat.build([self._precise(i, p) for i, p in enumerate(self.ps)]) if self.has_params else None
        with jax.named_scope(name):
            updates, entry = link.update_tree(self.flat.build(wide), self.entries.get(name, ()), whole, at)
        self._enter(name, entry)
        new = self.flat.line_up(f"The updates that link {name!r} returned", updates)
        for path, moved, u, w in zip(self.flat.paths, self.moves, new, wide):
            if moved and (u is None or jnp.shape(u) != jnp.shape(w)[link.per_example :]):
                raise TypeError(f"Link {name!r} turned the update of {path!r}, {show(w)}, into {show(u)}")
        return new

    def move_tree(self, name: str, link: Any, us: list[Any], params: Any) -> list:
        if self.ending:
            raise TypeError(
                f"Link {name!r} moves the parameters itself: put {self.ending[0]!r} into the chain it wraps"
            )
        self._check_shards(name, link, us)
        link, at = self._whole(name, link, us)
        with jax.named_scope(name):
            params, entry = link.step_tree(params, self.entries.get(name, ()), self.flat.build(us), at)
        self._enter(name, entry)
        return self.flat.line_up(f"The parameters that link {name!r} returned", params)

    def _whole(self, name: str, link: Any, us: list[Any]) -> tuple[Any, StepInfo]:
        """A whole-tree link with numbers for fields, and what it may know of the step."""
        dtype = widest(d for d in self.dtypes if d)
        updates = self._updates(us)
        link = resolve(link, name, None, self.count, dtype)
        prefix, late = f"{name}/", {}
        for key, began in self.state.born.items():
            if key.startswith(prefix) and key != prefix:
                late[key.removeprefix(prefix)] = self.number - began
        return link, StepInfo(self._age(name, ""), dtype, updates, self.extra, {}, late)

    def _check_shards(self, name: str, link: Any, us: list[Any]) -> None:
        for path, u, moved in zip(self.flat.paths, us, self.moves):
            if moved and not link.knows_shards and (axes := shard_axes(u)):
                raise TypeError(unshardable(name, path, axes))

    def _enter(self, name: str, entry: Any) -> None:
        if name in self.entries:
            self.entries[name] = jax.tree.map(_like, entry, self.entries[name])

    def _group(self, run: Links, path: str, dtype: Any, updates: _Updates, formats: Any) -> tuple[Plan, list[Any]]:
        own = self.count - self.joined[path] if path in self.joined else None
        links = [resolve(link, name, path, self.count, dtype, own) for name, link in run.items()]
        scalars = []
        for name, link in zip(run, links):
            seen = updates if link.needs_all_updates else _Unseen(name)
            at = StepInfo(self._age(name, path), dtype, seen, self.extra, _memory(link, self.state.links.get(name)))
            with jax.named_scope(name):
                scalars.append(link.scalars(at))
            if link.scaling:
                updates = updates.scaled(scalars[-1])
        frozen, traced = freeze((links, scalars))
        lagged = tuple((name, slot) for name, link in run.items() for slot in link.lagged)
        return Plan(frozen, tuple(run), dtype, formats, lagged), traced

    @functools.cached_property
    def joined(self) -> dict[str, jax.Array]:
        """The steps taken before each parameter that came late: when the first of its slots began."""
        found: dict[str, jax.Array] = {}
        for key, began in self.state.born.items():
            path = key.partition("/")[2]
            if path:
                found[path] = jnp.minimum(found[path], began) if path in found else began
        return found

    def _age(self, name: str, path: str) -> jax.Array:
        """t = 1, 2, ... since the slots of this link and leaf began."""
        began = self.state.born.get(f"{name}/{path}", self.state.born.get(f"{name}/"))
        return self.number if began is None else self.number - began

    def _remember(self, run: Links, updates: _Updates) -> None:
        """Ask the links that judge or remember the step, once for the whole tree."""
        memories = {name: _memory(link, self.state.links.get(name)) for name, link in run.items()}
        asked = [name for name, link in run.items() if link.can_reject or memories[name]]
        if not asked:
            return
        dtype = widest(d for d in self.dtypes if d)
        for name, link in run.items():
            if name not in asked and not _is_uniform(link):
                continue
            link, memory = resolve(link, name, None, self.count, dtype), memories[name]
            seen = updates if link.needs_all_updates else _Unseen(name)
            at = StepInfo(self.number, dtype, seen, self.extra, memory)
            with jax.named_scope(name):
                if link.can_reject:
                    at.accepted = link.accepts(at)
                    self.verdicts.append(at.accepted)
                if memory:
                    self.entries[name] = {
                        **self.entries[name],
                        **jax.tree.map(_like, link.update_global_state(at), memory),
                    }
                if link.scaling:
                    updates = updates.scaled(link.factor(at))

    # What is left over from rounding the parameters

    def _rests(self) -> list[Any]:
        if self.ending is None or not self.ending[1].slots:
            return [None] * len(self.ps)
        name, (slot,) = self.ending[0], self.ending[1].slots
        rests = self._slot_leaves(name, slot, self.state.links[name][slot])
        for path, p, rest, out in zip(self.flat.paths, self.ps, rests, self.outs):
            if rest is None and out is not None and _is_narrow(out):
                raise TypeError(_no_slot(name, slot, path, p))
        return rests

    def _with_rest(self, i: int, plan: Plan, given: dict[str, Any]) -> tuple[Plan, dict[str, Any]]:
        if self.ending is None or self.outs[i] is None or not _is_narrow(self.outs[i]):
            return plan, given
        name, link = self.ending
        if link.rounding == "stochastic" and plan.apply:
            given = {**given, "round": self._key_of_leaf(self._key(name, link.seed), i)}
        rest = {} if self.rests[i] is None else {"rest": self.rests[i]}
        return plan._replace(rounding=link.rounding), {**given, **rest}

    def _precise(self, i: int, p: Any) -> Any:
        if not is_trainable(p):
            return p
        if self.rests[i] is None or not self.ending:
            return jnp.asarray(p, slot_dtype(dtype_of(p)))
        return precise(self.ending[1].rounding, p, self.rests[i], jnp.float32)

    def _keep_rests(self) -> None:
        name, link = self.ending or ("", None)
        for slot in link.slots if link else ():
            self.entries[name] = {slot: self.flat.build(self.rests)}

    def _finished(self, i: int, u: Any, apply: bool) -> Any:
        plan = Plan(NOTHING, (), self.dtypes[i], out=self.outs[i], apply=apply)
        plan, given = self._with_rest(i, plan, {})
        out, _, rest = self.fused(plan, [], u, self.ps[i], {}, given)
        self.rests[i] = rest if apply else self.rests[i]
        return out

    def _key(self, name: str, seed: Any) -> jax.Array:
        of_step = jax.random.fold_in(as_key(f"{name}.seed", seed), self.number)
        return jax.random.fold_in(of_step, zlib.crc32(name.encode()))

    def _key_of_leaf(self, key: jax.Array, i: int) -> jax.Array:
        return key_of_leaf(key, self.flat.paths[i], self._namesakes[i], shard_axes(self.us[i]))

    @functools.cached_property
    def _namesakes(self) -> list[int]:
        """How many leaves before each have a path of the same checksum, such as the same path."""
        sums = [zlib.crc32(path.encode()) for path in self.flat.paths]
        seen: Counter[int] = Counter()
        return [seen.update((x,)) or seen[x] - 1 for x in sums]

    @functools.cached_property
    def turn(self) -> jax.Array:
        """The step's share in rounding slots."""
        return turn(self.number)

    @functools.cached_property
    def never(self) -> jax.Array:
        """False, which XLA's CPU compiler does not know."""
        below = functools.partial(jax.lax.lt, y=jnp.zeros_like(self.number))
        return jax.lax.platform_dependent(self.number, cpu=below, default=functools.partial(jnp.zeros_like, dtype=bool))

    # Slots

    def _slot_leaves(self, name: str, slot: str, tree: Any) -> list[Any]:
        return list(self.flat.line_up(f"The slots {slot!r} of link {name!r}", tree))

    def _check_slots(self, run: Links, path: str, like: Any, mine: dict[str, dict[str, Any]]) -> None:
        # Gradients alone may be of another dtype than the parameters.
        dtypes = [slot_dtype(dtype_of(like))] if self.has_params else {x.dtype for x in jax.tree.leaves(mine)}
        usual = [(shape, dtype) for shape in ((), jnp.shape(like)) for dtype in dtypes]
        for name, of in mine.items():
            for slot, x in of.items():
                if x is None:
                    raise TypeError(_no_slot(name, slot, path, like))
                if run[name].formats is not None or isinstance(x, dict) or (x.shape, x.dtype) not in usual:
                    self._check_shape(run[name], name, slot, path, like, x)

    def _check_shape(self, link: Any, name: str, slot: str, path: str, like: Any, x: Any) -> None:
        def avals(slots: Any) -> Any:
            return jax.tree.map(lambda a: (jnp.shape(a), a.dtype), slots)

        key = name, jnp.shape(like), dtype_of(like), formats_of([(name, link)], path)
        if key not in self.fresh:
            count, p = jnp.zeros((), jnp.int32), jax.ShapeDtypeStruct(*key[1:3])
            self.fresh[key] = jax.eval_shape(lambda p: init_leaf(link, name, path, p, count), p) or {}
        made = self.fresh[key].get(slot)
        if avals(made) != avals(x):
            raise TypeError(
                f"Slot {slot!r} of link {name!r} is {_shown(x)} at {path!r}, where the parameter is {show(like)} and "
                f"the slot {_shown(made)}: the state belongs to other parameters, or was stored in another format"
            )


def _memory(link: Any, entry: Any) -> dict[str, Any]:
    """What a link remembers for the whole tree, out of its entry of the state."""
    if link is None or link.treewise or not isinstance(entry, dict):
        return {}
    return {k: x for k, x in entry.items() if k not in link.slots}


def init_leaf(link: LeafwiseLike, name: str, path: str, p: Any, count: jax.Array) -> dict[str, Any] | None:
    """The first slots of one parameter, as they are stored; ``None`` where it has none."""
    formats = link.formats
    if not is_trainable(p):
        if formats is not None and p is not None:
            formats.refuse(name, path, p)
        return None
    p = p if isinstance(p, jax.ShapeDtypeStruct) else jnp.asarray(p)
    dtype = compute_dtype(p.dtype)
    slots = resolve(link, name, path, count, dtype).init_leaf(p)
    if slots is None:
        return None
    if set(slots) != set(link.slots):
        raise TypeError(f"Link {name!r} declares the slots {link.slots} but its init_leaf makes {tuple(slots)}")
    if formats is None:
        return slots
    for slot, x in slots.items():
        form = formats.of(slot, path)
        if form is not None and x.shape == p.shape and x.size >= form.min_size:
            # Behind a barrier, or XLA would encode constant slots at compile time, for half a minute.
            wide = jax.lax.optimization_barrier(to_real(x, dtype).astype(jnp.float32))
            slots[slot] = form.keep(wide, slot not in link.nonnegative)
    return slots


def resolve(link: LinkLike, name: str, path: str | None, count: Any, dtype: Any, own: Any = None) -> Any:
    """The link with numbers in place of schedules and tables by path, for a parameter that has taken ``own`` steps."""
    numbers = {}
    for field in link._numbers:
        given = getattr(link, field)
        if isinstance(given, by_path):
            if path is None:
                raise ValueError(f"`{name}.{field}` cannot be by_path: the link treats the whole tree at once")
            _, given = pick(f"{name}.{field}", given, path)
        numbers[field] = evaluate(f"{name}.{field}", given, count, dtype, own)
    return make(type(link), **{**vars(link), **numbers})


def _next(count: jax.Array) -> jax.Array:
    """One more, stopping at the largest int32 instead of wrapping round to a negative step."""
    count = jnp.asarray(count, jnp.int32)
    return jax.lax.select(jax.lax.eq(count, np.int32(np.iinfo(np.int32).max)), count, jax.lax.add(count, np.int32(1)))


def _like(new: Any, old: Any) -> Any:
    """``new`` in the dtype of ``old``, so that the state's avals stay."""
    return jnp.asarray(new, old.dtype) if hasattr(old, "dtype") and hasattr(new, "dtype") else new


def _is_narrow(dtype: Any) -> bool:
    """Whether parameters of this dtype are rounded at every step."""
    return jnp.finfo(dtype).bits < 32


def _no_slot(name: str, slot: str, path: str, p: Any) -> str:
    return (
        f"The state has no slot {slot!r} of link {name!r} for parameter {path!r} ({show(p)}): "
        "if it has joined since init, call add_param_group(params, state)"
    )


def _shown(x: Any) -> str:
    """A slot as it is stored: an array, or the arrays of a format."""
    return f"{{{', '.join(f'{k}: {show(v)}' for k, v in x.items())}}}" if isinstance(x, dict) else show(x)
