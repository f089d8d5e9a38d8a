"""One walk over the leaves with an update, run by run.

A chain is divided into runs. Within a run, one compiled function takes a leaf through all links: it is widened to
float32 once, transformed, and rounded once. A `Treewise` link is a run by itself.
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Trace

from ..values.conditions import choose
from ..values.tables import table_choices
from ..values.tree import dtype_of, is_trainable, shard_axes, show, slot_dtype, untyped_axes, widest
from ..values.types import Extra, Leaf, Params
from .checks import check_tables_of_shards, unshardable, warn_of_untyped
from .entries import Entries, after_rejection, encoded_places, global_state, like, merged, with_encoded, with_entry
from .frozen import freeze
from .hooks import NO_PARAMS, blamed, check_global_state, check_scalars, check_verdict
from .keys import Keys
from .leaf import leaf_function, mixing_link
from .matrix_pass import MatrixPass
from .moving import MovingLeaf, Tree
from .offload import Transfers, fetched
from .plan import LeafInputs, Plan
from .protocol import (
    L,
    LeafwiseRun,
    LinkLike,
    Links,
    TreewiseLike,
    is_leafwise,
    is_matrixwise,
    is_random,
    is_rounding,
    is_scaling,
    is_treewise,
)
from .rounding import golden_dither
from .runs import AllUpdates, runs_of, scales_uniformly, seen_by
from .slots import SlotChecks, no_slot, resolve
from .small import SharedScalars
from .state import State, next_count
from .step_info import StepInfo
from .storage import Stored, cast, formats_of

Taken: TypeAlias = tuple[list[Leaf], Entries, jax.Array]
"""The result of a step: updates or parameters, entries of the state, and the count."""


class Walk:
    """One walk: the values that all leaves share, and how the leaves pass through the links."""

    def __init__(
        self,
        links: Links,
        tree: Tree,
        state: State,
        extra: Extra,
        *,
        apply: bool,
        trace: Trace | None,
    ) -> None:
        self.links = {name: link for name, link in links.items() if not is_rounding(link)}
        self.ending = next(((name, link) for name, link in links.items() if is_rounding(link)), None)
        self.tree, self.state, self.extra, self.apply = tree, state, extra, apply
        # The step reads only the new counter: if it read the old one later, XLA would copy it.
        self.number = next_count(state.step)
        self.count = jax.lax.sub(self.number, np.int32(1))
        self.widest = widest(leaf.dtype for leaf in tree.moving)
        self.residuals = self._residuals()
        self.function = leaf_function(trace)
        self.keys = Keys(self.number, tree.flat.paths)
        self._slot_checks = SlotChecks()
        self._mixing: dict[tuple, str | None] = {}

    def through(self) -> tuple[list[Leaf], State]:
        """Take the leaves with an update through all links, unless a link rejects the step.

        Returns their updates, or with ``apply`` their parameters, and the next state.
        """
        runs = list(runs_of(self.links))
        last = [*runs[-1].values()][-1:]
        if any(is_matrixwise(x) or (is_treewise(x) and not (self.apply and x.moves_params)) for x in last):
            runs.append({})  # to round the updates, or to apply them
        entries = self.state.links
        values, entries, number = self._take(runs, self.tree.moving, entries, entries)
        return values, State(number, entries, self.state.born)

    def _take(
        self,
        runs: list[Links],
        leaves: list[MovingLeaf],
        entries: Entries,
        rejected: Entries,
        dropped: jax.Array | None = None,
    ) -> Taken:
        """Take the leaves through these runs. ``rejected`` are the entries in case a link rejects the step.

        ``dropped`` says whether one has done so before, and the results will be dropped.
        """
        run, *later = runs
        leafwise = {name: link for name, link in run.items() if is_leafwise(link)}
        updates = AllUpdates([leaf.update for leaf in leaves])
        verdicts, global_states = self._verdicts(leafwise, updates)
        entries, rejected = merged(entries, global_states), merged(rejected, global_states)

        def taken(leaves: list[MovingLeaf], updates: AllUpdates, dropped: jax.Array | None) -> Taken:
            treewise = next(((name, link) for name, link in run.items() if is_treewise(link)), None)
            if treewise is None:
                moved, made = self._through_leaves(leafwise, leaves, entries, updates, dropped, not later)
            else:
                through = self._through_tree if later else self._move_tree
                moved, made = through(*treewise, leaves, entries, dropped)
            if later:
                return self._take(later, moved, made, rejected, dropped)
            return [x.update for x in moved], made, self.number

        def not_taken() -> Taken:
            kept = after_rejection(self.links, rejected)
            if self.apply:
                return [jnp.asarray(leaf.param) for leaf in leaves], kept, self.count
            return [jnp.zeros_like(leaf.grad, leaf.out) for leaf in leaves], kept, self.count

        if not verdicts:
            return taken(leaves, updates, dropped)

        def chosen(now: jax.Array | None) -> Taken:
            either = now if dropped is None or now is None else dropped | now
            own = encoded_places(entries, leafwise, self.tree.flat)  # they make their updates 0 themselves
            zeroed = [leaf if leaf.place in own else leaf.zero_where(now) for leaf in leaves]
            return taken(zeroed, updates.zero_where(now), either)

        def undone(new: Taken) -> Taken:
            values, kept, count = not_taken()
            own = [name for run in runs for name, link in run.items() if is_treewise(link) and link.undoes_itself]
            kept = {**kept, **{n: new[1][n] for n in own if n in kept}}
            for run in runs:  # leaves with slots in codes keep their old values themselves
                end = self.apply and run is runs[-1]
                more = dict([self.ending]) if end and self.ending else {}
                kept, encoded = with_encoded(kept, new[1], run, more, self.tree.flat)
                if end:
                    values = [b if leaf.place in encoded else a for leaf, a, b in zip(leaves, values, new[0])]
            kept = after_rejection(self.links, kept)  # also of the leaves that kept their old slots themselves
            return new[0] if self.apply and any(name in own for name in runs[-1]) else values, kept, count

        return choose(functools.reduce(jnp.logical_and, verdicts), chosen, not_taken, undone)

    def _verdicts(self, run: LeafwiseRun, updates: AllUpdates) -> tuple[list[jax.Array], Entries]:
        """Ask the links that may reject the step or keep a global state, once for the whole tree.

        Returns their verdicts, and the next global states by link.
        """
        verdicts, global_states = [], {}
        olds = {name: global_state(link, self.state.links.get(name)) for name, link in run.items()}
        asked = {name for name, link in run.items() if link.can_reject or olds[name]}
        for name, link in run.items() if asked else ():
            if name not in asked and not scales_uniformly(link):
                continue
            link, old = resolve(link, name, None, self.count, self.widest), olds[name]
            at = StepInfo(self.number, self.widest, seen_by(name, link, updates), self.extra, old)
            with blamed(name, keys=old):
                if link.can_reject:
                    at.accepted = check_verdict(name, link.accepts(at))
                    verdicts.append(at.accepted)
                if old:
                    new = check_global_state(name, link.update_global_state(at), old)
                    global_states[name] = jax.tree.map(like, new, old)
                if is_scaling(link):
                    updates = updates.scaled(link.factor(at))
        return verdicts, global_states

    # Leafwise links

    def _through_leaves(
        self,
        run: LeafwiseRun,
        leaves: list[MovingLeaf],
        entries: Entries,
        updates: AllUpdates,
        dropped: Leaf,
        last: bool,
    ) -> tuple[list[MovingLeaf], Entries]:
        apply, moved = last and self.apply, []
        slots = {name: self._line_up_slots(name, link, entries) for name, link in run.items() if link.slots}
        residuals = list(self.residuals)
        keys = {name: self.keys.of_link(name, link.seed) for name, link in run.items() if is_random(link)}
        reads_grads = any(link.reads_grads for link in run.values())
        groups: dict[tuple, tuple[Plan, list[jax.Array]]] = {}
        plans: list[tuple[Plan, list[jax.Array]]] = []
        transfers, shared = Transfers(self.function), SharedScalars(self.function)
        encoded = encoded_places(entries, run, self.tree.flat)
        for leaf in leaves:
            path, shape = leaf.path, leaf.shape
            formats = formats_of(run.items(), path, shape)
            choices = table_choices(run.items(), path, shape)
            group = leaf.dtype, path if path in self.joined else None, choices, formats
            if group not in groups:
                groups[group] = self._plan(run, leaf, updates, formats)
            plan, arrays = groups[group]
            plans.append(groups[group])
            stored = {name: {s: of[leaf.place] for s, of in mine.items()} for name, mine in slots.items()}
            self._slot_checks.check(
                run, path, leaf.update if leaf.param is None else leaf.param, stored, self.tree.params is not None
            )
            own = {name: {s: mine[s] for s in run[name].leaf_slots} for name, mine in stored.items()}
            dithers = any(isinstance(form, cast) and not signed for _, _, form, signed in formats)
            inputs = LeafInputs(
                leaf.update,
                leaf.param,
                own,
                grad=leaf.grad if reads_grads else None,
                keys={name: self.keys.of_leaf(key, leaf) for name, key in keys.items()},
                dither=self.dither if dithers else None,
                dropped=dropped.astype(np.int32) if dropped is not None and leaf.place in encoded else None,
                opaque_false=self.opaque_false if plan.lagged else None,
            )
            plan = plan._replace(out=leaf.out if last else slot_dtype(leaf.out), apply=apply)
            plan, inputs = self._with_rounding(plan, inputs, leaf)
            self._check_elementwise(run, plan, arrays, inputs, path)
            transfers(plan, shared(plan, arrays, inputs), inputs)
        for leaf, done in zip(leaves, transfers.done):
            moved.append(leaf._replace(update=done.leaf))
            for name, of in done.slots.items():
                for s, x in of.items():
                    slots[name][s][leaf.place] = x
            if apply and done.residual is not None:
                residuals[leaf.place] = done.residual
        for name, link in [*run.items()][-1:]:
            if is_matrixwise(link):
                own = {s: slots[name][s] for s in link.slots if s not in link.leaf_slots}
                key = functools.partial(self.keys.of_leaf, keys[name]) if is_random(link) else None
                moved = MatrixPass(name, moved, plans)(own, key, self.dither, dropped, encoded)
        if apply and self.ending and self.ending[1].slots:
            slots[self.ending[0]] = dict.fromkeys(self.ending[1].slots, residuals)
        build = self.tree.flat.build
        return moved, merged(entries, {name: {s: build(x) for s, x in of.items()} for name, of in slots.items()})

    def _plan(
        self, run: LeafwiseRun, leaf: MovingLeaf, updates: AllUpdates, formats: tuple
    ) -> tuple[Plan, list[jax.Array]]:
        """The plan for the leaves that share their scalars with this one, and its arrays."""
        path, dtype = leaf.path, leaf.dtype
        own = self.count - self.joined[path] if path in self.joined else None
        links = [resolve(link, name, (path, leaf.shape), self.count, dtype, own) for name, link in run.items()]
        scalars = []
        for name, link in zip(run, links):
            old = global_state(link, self.state.links.get(name))
            at = StepInfo(self._age(name, path), dtype, seen_by(name, link, updates), self.extra, old)
            with blamed(name, keys=old):
                scalars.append(check_scalars(name, link.scalars(at)))
            if link.scaling:
                updates = updates.scaled(scalars[-1])
        frozen, arrays = freeze((links, scalars))
        lagged = tuple((name, slot) for name, link in run.items() for slot in link.lagged)
        return Plan(frozen, tuple(run), dtype, formats, lagged), arrays

    def _check_elementwise(
        self, run: LeafwiseRun, plan: Plan, arrays: list[jax.Array], inputs: LeafInputs, path: str
    ) -> None:
        """Raise if each device has only a part of the leaf and a link computes with several of its numbers at once."""
        axes = shard_axes(inputs.u)
        if not (axes or untyped_axes()):
            return
        check_tables_of_shards(run, path)
        alike = plan, jnp.shape(inputs.u), axes
        if alike not in self._mixing:
            self._mixing[alike] = mixing = mixing_link(plan, arrays, inputs)
            if mixing and not axes:
                warn_of_untyped(mixing)
        if axes and (mixing := self._mixing[alike]):
            raise TypeError(unshardable(mixing, path, axes))

    # Whole-tree links

    def _through_tree(
        self, name: str, link: TreewiseLike, leaves: list[MovingLeaf], entries: Entries, dropped: jax.Array | None
    ) -> tuple[list[MovingLeaf], Entries]:
        wide = [u if link.widens else jnp.asarray(u, slot_dtype(dtype_of(u))) for u in (x.update for x in leaves)]
        self._check_shards(name, link, leaves)
        link, at = self._for_tree(name, link, wide, dropped)
        tree, params = self.tree.replaced(self.tree.updates, zip(leaves, wide)), self._precise_params()
        with blamed(name, NO_PARAMS if params is None else ""):
            updates, entry = link.update_tree(tree, entries.get(name, ()), params, at)
        new, moved = self.tree.flat.line_up(f"The updates that link {name!r} returned", updates), []
        for leaf, w in zip(leaves, wide):
            u = new[leaf.place]
            if u is None or jnp.shape(u) != jnp.shape(w)[link.per_example :]:
                raise TypeError(f"Link {name!r} turned the update of {leaf.path!r}, {show(w)}, into {show(u)}")
            moved.append(leaf._replace(update=u, grad=u if link.per_example else leaf.grad))
        return moved, with_entry(entries, name, entry)

    def _move_tree(
        self, name: str, link: TreewiseLike, leaves: list[MovingLeaf], entries: Entries, dropped: jax.Array | None
    ) -> tuple[list[MovingLeaf], Entries]:
        """Let the last link of the chain move the parameters itself."""
        if self.ending:
            raise TypeError(
                f"Link {name!r} moves the parameters itself: put {self.ending[0]!r} into the chain that it wraps"
            )
        self._check_shards(name, link, leaves)
        us = [leaf.update for leaf in leaves]
        link, at = self._for_tree(name, link, us, dropped)
        params, updates = (
            self.tree.flat.build(self.tree.params or []),
            self.tree.replaced(self.tree.updates, zip(leaves, us)),
        )
        with blamed(name):
            params, entry = link.step_tree(params, entries.get(name, ()), updates, at)
        new = self.tree.flat.line_up(f"The parameters that link {name!r} returned", params)
        return [leaf._replace(update=new[leaf.place]) for leaf in leaves], with_entry(entries, name, entry)

    def _for_tree(self, name: str, link: L, us: list[Leaf], dropped: jax.Array | None) -> tuple[L, StepInfo]:
        """A whole-tree link with numbers in place of schedules, and its `StepInfo`."""
        link = resolve(link, name, None, self.count, self.widest)
        prefix, late = f"{name}/", {}
        for key, began in self.state.born.items():
            if key.startswith(prefix) and key != prefix:
                late[key.removeprefix(prefix)] = self.number - began
        at = StepInfo(self._age(name, ""), self.widest, AllUpdates(us), self.extra, {}, late)
        at.dropped = dropped
        return link, at

    def _check_shards(self, name: str, link: LinkLike, leaves: list[MovingLeaf]) -> None:
        for leaf in () if link.knows_shards else leaves:
            if axes := shard_axes(leaf.update):
                raise TypeError(unshardable(name, leaf.path, axes))

    # Steps and keys

    @functools.cached_property
    def joined(self) -> dict[str, jax.Array]:
        """For each parameter that joined late, the number of steps before its first slot was initialized."""
        found: dict[str, jax.Array] = {}
        for key, began in self.state.born.items():
            path, late = key.partition("/")[2], jnp.maximum(began, 0)
            if path:
                found[path] = jnp.minimum(found[path], late) if path in found else late
        return found

    def _age(self, name: str, path: str) -> jax.Array:
        """t = 1, 2, ... since the slots of this link and leaf were initialized."""
        began = self.state.born.get(f"{name}/{path}", self.state.born.get(f"{name}/"))
        return self.number if began is None else self.number - began

    @functools.cached_property
    def dither(self) -> jax.Array:
        """The threshold for rounding slots at this step."""
        return golden_dither(self.number)

    @functools.cached_property
    def opaque_false(self) -> jax.Array:
        """A False that XLA's CPU compiler cannot fold."""
        below = functools.partial(jax.lax.lt, y=jnp.zeros_like(self.number))
        return jax.lax.platform_dependent(self.number, cpu=below, default=functools.partial(jnp.zeros_like, dtype=bool))

    # Slots and residuals

    def _line_up_slots(self, name: str, link: LinkLike, entries: Entries) -> dict[str, list[Stored]]:
        """The slots of a link for all leaves, as lists that may be modified."""
        line_up = self.tree.flat.line_up
        return {s: list(line_up(f"The slots {s!r} of link {name!r}", entries[name][s])) for s in link.slots}

    def _residuals(self) -> list[Leaf]:
        """The residuals of the last step's rounding, of all leaves."""
        name, link = self.ending or ("", None)
        slots = list(self._line_up_slots(name, link, self.state.links).values()) if link and link.slots else []
        return slots[0] if slots else [None] * len(self.tree.updates)

    def _with_rounding(self, plan: Plan, inputs: LeafInputs, leaf: MovingLeaf) -> tuple[Plan, LeafInputs]:
        """The plan and the inputs of a leaf, completed for its rounding."""
        if self.ending is None or jnp.finfo(leaf.out).bits >= 32:
            return plan, inputs
        (name, link), residual = self.ending, self.residuals[leaf.place]
        if link.slots and residual is None:
            raise TypeError(no_slot(name, link.slots[0], leaf.path, leaf.param))
        random = plan.apply and link.final_rounding.random
        key = self.keys.of_leaf(self.keys.of_link(name, link.seed), leaf) if random else None
        plan = plan._replace(rounding=link.final_rounding, ending=name)
        return plan, inputs._replace(residual=residual, rounding_key=key)

    def _precise_params(self) -> Params:
        """All parameters with their residuals, in float32 or better; ``None`` if none were passed."""

        def precise(p: Leaf, residual: Leaf) -> Leaf:
            if not is_trainable(p):
                return p
            if residual is None or self.ending is None:
                return jnp.asarray(p, slot_dtype(dtype_of(p)))
            with blamed(self.ending[0]):
                return self.ending[1].final_rounding.precise(p, residual, jnp.dtype(jnp.float32))

        params = self.tree.params
        return None if params is None else self.tree.flat.build([*map(precise, params, fetched(self.residuals))])
