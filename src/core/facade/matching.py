"""Which link of an edited chain goes on with the slots of which link of the old one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..engine.matrices import form_of
from ..engine.protocol import LinkLike, is_matrixwise
from ..values.schedule import Schedule
from ..values.tables import Table
from ..values.tree import flatten
from ..values.types import Leaf
from ..values.value import TYPES
from .parts import Part, Place, Scope
from .views import View


class Holding:
    """A link in a chain, and what the chain's state holds for it."""

    def __init__(self, place: Place, prefix: str, name: str, kind: type | None, link: LinkLike | None) -> None:
        self.place, self.prefix, self.name = place, prefix, name
        self.kind = kind
        """The link's class; ``None`` if it is not known."""
        self.link = link
        """``None`` if only the state is known."""
        self.projected: Mapping[str, list[type]] = {}
        """For outermost parameters the classes of the wrappers that show their updates in another basis."""
        self.view: View | None = None
        self.leaves: dict[str, list[Part]] = {}
        """For each of the outermost parameters the parts that hold its slots."""
        self.whole: Part | None = None

    @property
    def head(self) -> str:
        """What the names of the link's arrays begin with."""
        return f"{self.prefix}links/{self.name}/" if self.prefix else f"{self.name}/"

    @property
    def all_paths(self) -> list[str | None]:
        """The outermost parameters of which the link has slots, and ``None`` if it has a state for the whole tree."""
        return [*self.leaves, *([None] if self.whole else [])]

    def members(self, part: Part) -> tuple[str, ...]:
        """The outermost parameters of which a part has the slots."""
        assert part.path is not None
        return (part.path,) if self.view is None else self.view.members[part.path]

    @property
    def depends_on_step(self) -> bool:
        """Whether a hyperparameter is a schedule."""
        fields = (getattr(self.link, field) for field in self.link._leaves) if self.link else ()
        entries = (x.labelled().values() if isinstance(x, Table) else [x] for x in fields)
        return any(isinstance(x, Schedule) for own in entries for x in own)


def holdings(root: Scope) -> list[Holding]:
    """The links of a chain and of the chains within it."""
    found = []
    for scope in root.within():
        view, projected = View(scope), _projected(scope)
        own = {name: Holding(scope.place, scope.prefix, name, type(x), x) for name, x in scope.links.items()}
        for holding in own.values():
            holding.projected = projected
        for part in scope.parts():
            holding = own[part.link_name]
            holding.view = view
            if part.path is None:
                holding.whole = part
            for path in () if part.path is None else holding.members(part):
                holding.leaves.setdefault(path, []).append(part)
        found += own.values()
    return found


def _projected(scope: Scope) -> dict[str, list[type]]:
    """See `Holding.projected`."""
    found: dict[str, list[type]] = {}
    while scope.parent is not None:
        cls: Any = type(scope.parent.links[scope.place[-1][0]])
        scope = scope.parent
        if not hasattr(cls, "projects"):
            continue
        members = View(scope).members
        for path in (path for path, p in flatten(scope.params).items() if cls.projects(p)):
            for outer in members[path]:
                found.setdefault(outer, []).append(cls)
    return found


def holdings_by_name(names: Iterable[str], params: Mapping[str, Leaf]) -> list[Holding]:
    """The links whose arrays have these names, as far as names tell. ``params`` are the parameters by path."""
    names, paths = list(names), params.keys()
    chains = [name.removesuffix("step") for name in names if name.endswith("/step")]
    chains = [prefix for prefix in chains if any(name.startswith(f"{prefix}links/") for name in names)]
    found: dict[tuple[str, str], Holding] = {}
    slots: dict[tuple[str, str], dict[str | None, dict[str, Any]]] = {}
    for name in names:
        prefix = max((prefix for prefix in chains if name.startswith(prefix)), key=len, default="")
        head, _, rest = name.removeprefix(prefix).partition("/") if prefix else ("links", "", name)
        link, _, own = rest.partition("/")
        if not own or head != "links" or (not prefix and link == "born"):
            continue
        key = prefix, link
        if key not in found:
            words = prefix.split("/")[:-1]
            place = tuple((words[i], words[i + 1]) for i in range(0, len(words), 3))
            found[key] = Holding(place, prefix, link, _class_of(link), None)
            around: list[Any] = [cls for name, _ in place if hasattr(cls := _class_of(name), "projects")]
            kinds = {path: [cls for cls in around if cls.projects(p)] for path, p in params.items()}
            found[key].projected = {path: classes for path, classes in kinds.items() if classes}
        slot, _, path = own.partition("/")
        of_codes, _, code = path.rpartition("/")
        kept = slots.setdefault(key, {})
        if path in paths:
            kept.setdefault(path, {})[slot] = name
        elif of_codes in paths:
            kept.setdefault(of_codes, {}).setdefault(slot, {})[code] = name
        else:
            kept.setdefault(None, {})[own] = name
    for key, holding in found.items():
        for path, own in slots[key].items():
            part: Any = Part(holding.place, holding.prefix, holding.name, None, path, None, own)  # pyright: ignore[reportArgumentType]
            if path is None:
                holding.whole = part
            else:
                holding.leaves[path] = [part]
    return list(found.values())


def _class_of(name: str) -> type | None:
    """The class after which a link is named, if there is one."""
    found = [cls for own in (name, re.sub(r"_\d+$", "", name)) for cls in TYPES.get(own, {}).values()]
    return found[0] if len({*found}) == 1 else None


def common_slots(new: Holding, old: Holding) -> dict[str, str] | None:
    """The slots of a new link, with those of the old one that hold the same; ``None`` if the links are not related."""
    slots = new.link.slots if new.link else ()
    if old.kind is type(new.link) or (old.link is None and old.name == new.name):
        ours, theirs = (getattr(x, "meanings", {}) if old.link else {} for x in (new.link, old.link))
        return {slot: slot for slot in slots if ours.get(slot) == theirs.get(slot)}
    holds = _holds(old)
    same = {slot: own for slot, what in _holds(new).items() for own, other in holds.items() if what == other}
    return same or None


def same_matrices(new: Part, old: Part) -> bool:
    """Whether slots of other shapes than the parameter's belong to the same matrices of it."""
    ours, theirs = new.link, old.link
    if not is_matrixwise(ours) or not ours.factors or theirs is None or not is_matrixwise(theirs):
        return True
    mine, other = (form_of(x.link_name, link, x.path or "", x.param) for x, link in ((new, ours), (old, theirs)))
    return mine == other


def _holds(holding: Holding) -> Mapping[str, str]:
    """What the class itself declares. If it depends on the link's fields, the link must be known."""
    declared = vars(holding.kind).get("holds", {}) if holding.kind else {}
    if isinstance(declared, property):
        return declared.__get__(holding.link) if holding.link is not None else {}
    return declared


Pairs = list[tuple[Holding, Holding]]
ROUNDS: tuple[Callable[[Holding, Holding], bool], ...] = (
    lambda new, old: new.link == old.link and new.name == old.name and new.place == old.place,
    lambda new, old: new.link == old.link,
    lambda new, old: new.name == old.name and new.place == old.place,
    lambda new, old: new.name == old.name and new.kind is old.kind,
    lambda new, old: new.name == old.name,
    lambda new, old: new.kind is old.kind,
    lambda new, old: True,
)
"""What related links have in common, from the surest sign to the weakest. A pair is matched if it is unique."""


def matched(new: Iterable[Holding], old: Iterable[Holding], *, once: bool = True) -> Pairs:
    """Related links in pairs. With ``once=False``, several new links may go on with one old link."""
    ours, theirs, found = list(new), list(old), []
    for same in ROUNDS:
        pairs = [(a, b) for a in ours for b in theirs if common_slots(a, b) is not None and same(a, b)]
        left, right = Counter(id(a) for a, _ in pairs), Counter(id(b) for _, b in pairs)
        sure = [(a, b) for a, b in pairs if left[id(a)] == 1 and (right[id(b)] == 1 or not once)]
        found += sure
        ours = [a for a in ours if not any(a is x for x, _ in sure)]
        theirs = [b for b in theirs if not once or not any(b is x for _, x in sure)]
    return found


class Matching:
    """The old link of each new link, for each parameter and for the whole tree."""

    def __init__(self, new: list[Holding], old: list[Holding], old_path: Callable[[str], str]) -> None:
        self.new, self.old, self.old_path = new, old, old_path
        self._by_path: dict[str, Pairs] = {}
        known: dict[tuple, Pairs] = {}
        for path in dict.fromkeys(path for holding in new for path in holding.leaves):
            sides = [h for h in new if path in h.leaves], [h for h in old if old_path(path) in h.leaves]
            key = tuple(id(h) for side in sides for h in (*side, None))
            if key not in known:
                known[key] = matched(*sides)
            self._by_path[path] = known[key]
        ours, theirs = [h for h in new if h.whole], [h for h in old if h.whole]
        self._whole = [(a, b) for a, b in matched(ours, theirs, once=False) if a.kind is b.kind or b.link is None]
        for holding in ours:  # together with the slots, if these have one source
            sources = {id(x): x for path in holding.leaves if (x := self.of(holding, path)) is not None}
            if len(sources) == 1 and (source := next(iter(sources.values()))).whole and source.kind is holding.kind:
                self._whole = [(a, b) for a, b in self._whole if a is not holding] + [(holding, source)]

    def of(self, new: Holding, path: str | None) -> Holding | None:
        """The old link whose slots of a parameter a new link goes on with."""
        pairs = self._whole if path is None else self._by_path.get(path, [])
        return next((b for a, b in pairs if a is new), None)

    def all_of(self, new: Holding) -> list[Holding]:
        """The old link that a new link goes on with for each of its parameters, or one without arrays, as it is."""
        if new.all_paths:
            return [x for path in new.all_paths if (x := self.of(new, path)) is not None]
        return [b for _, b in matched([new], [h for h in self.old if not h.all_paths], once=False)]

    def lost(self, new: Holding, path: str) -> Iterator[Holding]:
        """Old links whose slots of a parameter the new link could have gone on with, and which no other does."""
        taken = {id(b) for _, b in self._by_path.get(path, [])}
        for old in self.old:
            if id(old) not in taken and self.old_path(path) in old.leaves and common_slots(new, old) is not None:
                yield old

    def chain_of(self, new: Iterable[Holding]) -> str | None:
        """The prefix of the old chain from which most of a new chain's links come, if any come from one."""
        votes: Counter[str] = Counter()
        for holding in new:
            counts = bool(holding.all_paths) or holding.depends_on_step
            prefixes = Counter(source.prefix for source in self.all_of(holding)) if counts else None
            if prefixes:
                votes[prefixes.most_common(1)[0][0]] += 1
        most = [prefix for prefix, n in votes.items() if n == max(votes.values())]
        own = next((h.prefix for h in new), None)
        return own if own in most else next(iter(most), None)
