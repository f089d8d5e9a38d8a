"""The arrays of a state of another chain, as the links of this one would have stored them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..engine import engine
from ..engine.protocol import Links
from ..engine.storage import Format
from ..values.errors import PlainKeyError
from ..values.tree import dtype_of, flatten, from_real, slot_dtype
from ..values.warning import ChainWarning
from .arrays import Array, ArrayLike, named, rounded_slot, widened_slot
from .matching import Holding, Matching, common_slots, holdings, holdings_by_name, same_matrices
from .parts import Part, Scope, under_old_paths
from .views import Leaves

UNREADABLE = "stored in codes, which the old chain can read: pass it as old="
AMBIGUOUS = "several links could go on with them: give the links the names that they had"
OTHER_BASIS = "they belong to gradients in another basis"
OTHER_MATRICES = "they belong to other rows and columns"
OTHER_STARTS = "parameters that now share an array joined at different steps"


class Carrying:
    """The arrays of an old state under the names that they have in the state of an edited chain."""

    def __init__(
        self,
        root: Scope,
        news: Mapping[str, Array],
        arrays: Mapping[str, ArrayLike],
        old: Links | None,
        paths: Mapping[str, str],
    ) -> None:
        self.news, self.old_arrays, self.knows_chain = news, arrays, old is not None
        self.arrays: dict[str, ArrayLike] = {} if old is not None else dict(arrays)
        """The arrays by their new names."""
        self.used: set[str] = set()
        """The old names of those that have new ones."""
        self.why: dict[str, str] = {}
        """Why slots of a part, here the name of its first array, were not carried over."""
        self._old_paths = {new: path for path, new in paths.items()}
        self._lifted: dict[tuple[int, str], Leaves] = {}
        self._chains: dict[str, str] = {}
        """For each chain the prefix of the old one whose steps it continues to count."""
        self.exact_chains: set[str] = set()
        """The prefixes of chains with arrays that have their names already."""
        self.exact: set[str] = set()
        """The names of parts that have them already."""
        self._partly_exact: set[int] = set()
        flat = flatten(root.params)
        new, self.paths = holdings(root), flat.paths
        self._params = {self.old_path(path): p for path, p in flat.items()}
        self._holdings = {(holding.prefix, holding.name): holding for holding in new}
        if old is None:
            self._take_exact(new, paths)
            left = [name for name in arrays if name not in self.exact]
            theirs = holdings_by_name(left, self._params)
        else:
            scope = self._scope_of(old, root)
            theirs = holdings(scope)
            self._check_old(scope, theirs)
            theirs = self._present(theirs)
        for path, now in paths.items():
            if not any(path in holding.leaves for holding in theirs):
                raise PlainKeyError(f"paths renames {path!r} to {now!r}, but the state has no slot of {path!r}")
        self.matching = Matching(new, theirs, self.old_path)
        self._carry(root)

    def holding_of(self, part: Part) -> Holding:
        return self._holdings[part.prefix, part.link_name]

    def old_path(self, path: str) -> str:
        return self._old_paths.get(path, path)

    def _scope_of(self, old: Links, root: Scope) -> Scope:
        """The old chain, with the shapes of its state for the parameters under their old names."""
        params = under_old_paths(root.params, self._old_paths)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ChainWarning)  # that chain has given its warnings
            state = engine.state_shapes(old, params)
        return Scope(old, params, state, jax.tree.unflatten(jax.tree.structure(state), list(named(state))))

    def _check_old(self, scope: Scope, old: list[Holding]) -> None:
        """Raise if the state lacks a step count of the old chain, or has its slots in another format."""
        lacking = [name for one in scope.within() if (name := f"{one.prefix}step") not in self.old_arrays]
        stems = {*self.old_arrays, *(name.rpartition("/")[0] for name in self.old_arrays)}
        for holding in old:
            for part in (part for parts in holding.leaves.values() for part in parts):
                for slot in part.slots:
                    names = part.names(slot)
                    if f"{holding.head}{slot}/{part.path}" in stems:
                        lacking += [name for name in names if name not in self.old_arrays]
        if lacking:
            raise PlainKeyError(
                f"the state is not of the chain in old=: it lacks {', '.join(map(repr, lacking[:3]))}. Pass the chain "
                "whose init and step made it, with its formats and groups"
            )

    def _present(self, old: list[Holding]) -> list[Holding]:
        """The same links, with the parts that the state has."""
        for holding in old:
            for path, parts in [*holding.leaves.items()]:
                holding.leaves[path] = [part for part in parts if any(n in self.old_arrays for n in part.all_names)]
                if not holding.leaves[path]:
                    del holding.leaves[path]
        return old

    def _take_exact(self, new: list[Holding], paths: Mapping[str, str]) -> None:
        """Leave arrays that have their names already, and the parts of which they are, out of the matching."""
        moved = {*paths, *paths.values()}
        for holding in new:
            for path, parts in [*holding.leaves.items()]:
                if path not in moved and any(name in self.old_arrays for part in parts for name in part.all_names):
                    self.exact |= {name for part in parts for name in part.all_names}
                    self.exact_chains.add(holding.prefix)
                    self._partly_exact.add(id(holding))
                    del holding.leaves[path]
                elif path in moved:
                    for name in (name for part in parts for name in part.all_names):
                        self.arrays.pop(name, None)
            if holding.whole and any(name in self.old_arrays for name in holding.whole.all_names):
                self.exact |= {*holding.whole.all_names}
                self.exact_chains.add(holding.prefix)
                holding.whole = None

    # Slots

    def _carry(self, root: Scope) -> None:
        for holding in self.matching.new:
            source = self.matching.of(holding, None)
            if source is not None:
                self._carry_whole(holding, source)
            apart: dict[str, Part] = {}
            for part in _parts_of(holding):
                if not self._same_basis(holding, part):
                    self.why[part.all_names[0]] = OTHER_BASIS
                elif not self._carry_alone(holding, part):
                    apart[part.path or ""] = part
            if apart:
                self._carry_viewed(holding, apart)
        for scope in root.within():
            self._carry_step(scope)
        for holding in self.matching.new:
            self._carry_births(holding)

    def _carry_whole(self, holding: Holding, source: Holding) -> None:
        assert holding.whole is not None
        joins = holding.link.joins if holding.link else ""
        for name in holding.whole.all_names:
            own = name.removeprefix(holding.head)
            key, _, path = own.partition("/")
            for old in (source.head + own, f"{source.head}{key}/{self.old_path(path)}"):
                if old in self.old_arrays:
                    self._take(name, self.old_arrays[old], [old])
                    break
            else:
                if self.knows_chain and joins and own.startswith(joins):  # the name says which parameters share arrays
                    others = [n for n in self.old_arrays if n.startswith(source.head + joins)]
                    self._take(name, self.news[name], others)

    def _sources(self, holding: Holding, part: Part) -> list[Holding] | None:
        found = [self.matching.of(holding, path) for path in holding.members(part)]
        return None if None in found or not found else found  # pyright: ignore[reportReturnType]

    def _same_basis(self, holding: Holding, part: Part) -> bool:
        """Whether the updates of all members of a part had the same basis in the old chain."""
        sources = ((path, self.matching.of(holding, path)) for path in holding.members(part))
        return all(
            source is None or holding.projected.get(path) == source.projected.get(self.old_path(path))
            for path, source in sources
        )

    def _carry_alone(self, holding: Holding, part: Part) -> bool:
        """Carry the slots of a part over if they were a part before. Returns False if a view must convert them."""
        sources = self._sources(holding, part)
        if sources is None:
            return True
        members = tuple(map(self.old_path, holding.members(part)))
        source = sources[0]
        same = [
            x
            for x in source.leaves[members[0]]
            if x.path == self.old_path(part.path or "") and source.members(x) == members
            if x.shape == part.shape or not any(view and view.reshapes for view in (holding.view, source.view))
        ]
        if not same or any(x is not source for x in sources):
            return False
        if not same_matrices(part, same[0]):
            self.why[part.all_names[0]] = OTHER_MATRICES
            return True
        for slot, own in (common_slots(holding, source) or {}).items():
            self._convert(same[0], own, part, slot)
        return True

    def _carry_viewed(self, holding: Holding, parts: Mapping[str, Part]) -> None:
        """Carry slots over that belonged to other parts, by way of the form that the outermost parameters have."""
        parts = {path: part for path, part in parts.items() if self._starts_agree(holding, part)}
        for slot in holding.link.slots if holding.link else ():
            found: Leaves = {}
            names: dict[str, list[str]] = {}
            for part in parts.values():
                for path in holding.members(part):
                    source = self.matching.of(holding, path)
                    own = (common_slots(holding, source) or {}).get(slot) if source else None
                    if source is None or own is None:
                        continue
                    lifted, old = self._outward(source, own), self.old_path(path)
                    if old in lifted:
                        found[path] = lifted[old]
                    names[path] = [n for x in source.leaves[old] for n in x.names(own)]
            low = holding.view.inward(found) if found and holding.view else found
            for path, part in parts.items():
                members = holding.members(part)
                old = [name for member in members for name in names.get(member, ())]
                if all(member in found for member in members):
                    self._put(part, slot, low[path], old)
                elif old and isinstance(part.slots[slot], str):  # a number for each leaf, the same for all of them
                    name, x = part.slots[slot], self.old_arrays.get(old[0])
                    if x is not None and np.shape(x) == self.news[name].shape == ():
                        self._take(name, x, old)

    def _starts_agree(self, holding: Holding, part: Part) -> bool:
        """Whether the bias corrections of all members of a part count from one step."""
        births = {self._birth(holding, path) for path in holding.members(part)}
        if len(births) > 1:
            self.why[part.all_names[0]] = OTHER_STARTS
        return len(births) <= 1

    def _outward(self, source: Holding, slot: str) -> Leaves:
        """A slot of an old link by the old paths of the outermost parameters."""
        key = id(source), slot
        if key not in self._lifted:
            view, leaves = source.view, {}
            seen = self._params if view is None else dict(flatten(view.scope.params).items())
            for part in _parts_of(source):
                x, path = self._wide(part, slot), part.path or ""
                like = seen[path]
                if x is not None and np.shape(x) == np.shape(like) + (2,) * jnp.iscomplexobj(like):
                    leaves[path] = from_real(x, slot_dtype(dtype_of(like)))
            if view is not None:
                leaves = view.outward(leaves)
            self._lifted[key] = leaves
        return self._lifted[key]

    def _wide(self, part: Part, slot: str) -> jax.Array | None:
        """A stored slot in float32 or wider, complex numbers as pairs; ``None`` if it is not there."""
        names = part.slots.get(slot)
        if names is None or not all(map(self._is_number, jax.tree.leaves(names))):
            return None
        if isinstance(names, dict) and part.link is None:
            return None
        kept = jax.tree.map(self._array, names)
        form, signed = _format(part, slot)
        return widened_slot(kept, form, part.shape, signed)

    def _array(self, name: str) -> Array:
        x = self.old_arrays[name]
        return x if hasattr(x, "dtype") else np.asarray(x)

    def _is_number(self, name: str) -> bool:
        if name not in self.old_arrays:
            return False
        dtype = self._array(name).dtype
        return jnp.issubdtype(dtype, jnp.number) and dtype.type is not np.void

    def _convert(self, old: Part, own: str, part: Part, slot: str) -> None:
        """Carry one slot over: as it is if both links store it alike, otherwise by way of float32."""
        source, target = old.slots.get(own), part.slots.get(slot)
        names = jax.tree.leaves(source)
        if target is None or not names or any(name not in self.old_arrays for name in names):
            return
        codes = isinstance(source, dict)
        if codes and old.link is None and not (isinstance(target, dict) and source.keys() == target.keys()):
            self.why[part.all_names[0]] = UNREADABLE
            return
        alike = jax.tree.structure(source) == jax.tree.structure(target)
        if alike and (not codes or old.link is None or _format(old, own) == _format(part, slot)):
            pairs = dict(zip(jax.tree.leaves(target), names))
            x, y = self._array(names[0]), self.news[next(iter(pairs))]
            as_is = codes or not self._is_number(names[0]) or _dtype(x) == _dtype(y)
            if as_is or np.shape(x) not in (part.shape, part.shape[:-1]):
                for a, b in pairs.items():
                    self._take(a, self.old_arrays[b], [b])
                return
        x = self._wide(old, own)
        if x is not None and np.shape(x) == part.shape:
            self._put(part, slot, x, names)
        elif x is not None and isinstance(target, str):
            self._take(target, x, names)  # which does not fit, as the report will say

    def _put(self, part: Part, slot: str, x: jax.Array, old: list[str]) -> None:
        """Store a slot in the format in which the link of ``part`` stores it."""
        target, (form, signed) = part.slots[slot], _format(part, slot)
        like = self.news[target].dtype if isinstance(target, str) else None
        kept = rounded_slot(x, form, signed, like)
        for name, y in zip(jax.tree.leaves(target), jax.tree.leaves(kept)):
            self._take(name, y, old)

    def _take(self, name: str, x: ArrayLike, old: list[str]) -> None:
        self.arrays[name] = x
        self.used.update(old)

    # Steps

    def _carry_step(self, scope: Scope) -> None:
        """A chain goes on with the count of the old chain from which its links come, or else of the chain around it."""
        own = [holding for holding in self.matching.new if holding.prefix == scope.prefix]
        prefix = scope.prefix if scope.prefix in self.exact_chains else self.matching.chain_of(own)
        if prefix is None and f"{scope.prefix}step" in self.old_arrays:
            prefix = scope.prefix
        if prefix is None and scope.place:
            name, key = scope.place[-1]
            around = next(h for h in self.matching.new if h.name == name and h.prefix == scope.prefix_around)
            sources = self.matching.all_of(around)
            prefix = next((p for x in sources if f"{(p := f'{x.head}{key}/')}step" in self.old_arrays), None)
        if prefix is None:
            prefix = self._chains.get(scope.prefix_around, "")
        self._chains[scope.prefix] = prefix
        if f"{prefix}step" in self.old_arrays:
            self._take(f"{scope.prefix}step", self.old_arrays[f"{prefix}step"], [f"{prefix}step"])

    def _birth(self, holding: Holding, path: str | None) -> tuple[str, str] | None:
        """The prefix of the old chain, and the name of the step at which the slots of a parameter began, if later."""
        source = self.matching.of(holding, path)
        if source is None:
            return None
        part = source.leaves[self.old_path(path)][0] if path is not None else None
        for own in (part.path if part else "", ""):
            if (name := f"{source.prefix}born/{source.name}/{own}") in self.old_arrays:
                return source.prefix, name
        return source.prefix, ""

    def _carry_births(self, holding: Holding) -> None:
        births: dict[str, tuple[str, str] | None] = {}
        for part in _parts_of(holding):
            births[part.path or ""] = self._birth(holding, holding.members(part)[0])
        if not births and holding.whole:
            births[""] = self._birth(holding, None)
        found = {birth for birth in births.values() if birth is not None}
        head = f"{holding.prefix}born/{holding.name}/"
        common = (
            id(holding) not in self._partly_exact
            and len(found) == 1
            and not any(name and not name.endswith("/") for _, name in found)
        )
        for path, birth in ({"": next(iter(found))} if common else births).items():
            began = None if birth is None else self._began(holding, *birth)
            if birth is not None and began is not None:
                self._take(head + path, began, [birth[1]])

    def _began(self, holding: Holding, prefix: str, name: str) -> ArrayLike | None:
        """The step at which slots would have begun if they had always been counted by their new chain.

        It is negative for slots that have taken more steps than that chain.
        """
        own, began = self._chains[holding.prefix], self.old_arrays.get(name)
        if own == prefix:
            return began
        steps = [self.old_arrays.get(f"{p}step") for p in (own, prefix)]
        if any(step is None for step in steps):
            return began
        since = _since(*steps, 0 if began is None else began)
        unknown = isinstance(since, Tracer) or not since.is_fully_addressable
        return since if unknown or int(since) else None


def _parts_of(holding: Holding) -> Iterator[Part]:
    return iter({id(part): part for parts in holding.leaves.values() for part in parts}.values())


def _format(part: Part, slot: str) -> tuple[Format | None, bool]:
    """The format in which a part's slot is stored, and whether it may hold negative numbers."""
    formats = getattr(part.link, "formats", None)
    form = formats.of(slot, part.path, np.shape(part.param)) if formats is not None and part.path is not None else None
    return form, part.link is None or slot not in part.link.nonnegative


def _dtype(x: Array) -> Any:
    return jax.dtypes.canonicalize_dtype(x.dtype)


@jax.jit  # which takes arrays that lie on devices of several processes too
def _since(total: ArrayLike, counted: ArrayLike, began: ArrayLike) -> jax.Array:
    total, counted, began = (jnp.asarray(x, jnp.int32) for x in (total, counted, began))
    return total - counted + began
