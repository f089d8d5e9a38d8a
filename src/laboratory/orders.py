"""All placements of some links, except those that are almost certainly mistakes, with equivalent ones merged."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..core.facade.order import penalties, warn_of_ascent
from ..core.facade.transformation import Transformation
from ..core.values.contents import code
from ..core.values.text import aligned
from ..core.values.types import Params, Updates
from .commutator import doubt, idle, measured, shown
from .trajectory import ROUNDING, Run, quiet, setting, total

MOVED = ("decay", "decay_after", "clip")
"""The roles of the links that are moved by default."""
STEPS = 5
MOST = 60
"""Orders that are measured at most."""

Order = dict[str, list[str]]
"""The names of the links of each chain, by what precedes them in their paths."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Orders(Mapping[str, Any]):
    """Chains by what is particular of their order, as `orders` makes them. It prints as a table."""

    chains: Mapping[str, Any]
    original: str
    """The name of the chain that `orders` was given."""
    same: Mapping[str, tuple[Any, ...]]
    """By name, the other chains with the same updates."""
    differences: Mapping[str, float]
    """By name, the relative difference of the updates from those of the original."""
    undetermined: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """By name, why an order whose updates were those of another was not merged with it: the run is no evidence."""

    def __getitem__(self, name: str) -> Any:
        return self.chains[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.chains)

    def __len__(self) -> int:
        return len(self.chains)

    def __repr__(self) -> str:
        return f"Orders({', '.join(map(repr, self))})"

    def __str__(self) -> str:
        rows = [("name", "updates differ by", "order")]
        for name, tx in self.items():
            far = shown(self.differences[name])
            if name == self.original:
                far = "the original"
            elif name in self.undetermined and self.differences[name] <= ROUNDING:
                far = "undetermined"
            rows.append((name, far, _arrows(tx)))
            rows += [("", "the same", _arrows(other)) for other in self.same[name]]
        names: dict[str, list[str]] = {}
        for name, reason in self.undetermined.items():
            names.setdefault(reason, []).append(repr(name))
        notes = [f"not merged, since {reason}: {', '.join(alike)}" for reason, alike in names.items()]
        return "\n".join([aligned(rows, left=range(3)), *notes])


def orders(
    tx: Transformation,
    move: Sequence[str] | None = None,
    params: Params = None,
    *,
    grads: Sequence[Updates] | Callable[[Params], Updates] | None = None,
    steps: int | None = None,
    seed: int = 0,
    **extra: Any,
) -> Orders:
    """All placements of some links of ``tx``, except mistakes, with equivalent ones merged, by name: for `sweep`, say.

    The links named in ``move`` (names or paths; by default all weight decays and clips) take every place in their
    chain, and the others keep their order. Left out are orders that cannot be built, and those that are almost
    certainly mistakes: those of which the library warns, except for ``tx`` itself. Orders with the same updates,
    exactly or to rounding, are merged: the one that is kept is ``tx`` or the one closest to it, and the others are in
    ``.same[name]``. That is measured in float64, with ``params``, ``grads``, ``steps``, ``seed`` and ``extra`` as for
    `commutator`: by default on a few small arrays, over 5 steps or what an accumulation needs to step twice. Orders
    that `commutator` would call undetermined, as when a moved clip is never active, are not merged;
    ``.undetermined`` has the reasons.

    A name has as few words as tell the orders apart: the kind of weight decay that `describe` prints, such as
    ``"coupled"``, and the link that a moved link stands before.

    Errors: ``KeyError`` for an unknown link; ``ValueError`` for no link, and for more than 60 orders; ``TypeError`` for
    gradients that do not match.

    >>> import chainax as cx
    >>> tx = cx.adamw(1e-3, weight_decay=0.1)
    >>> choices = cx.orders(tx, move=["add_decayed_weights"])
    >>> list(choices), choices["decoupled"] == tx
    (['decoupled', 'coupled'], True)
    """
    where = setting("orders", tx, params, grads, steps, seed, extra, default=STEPS)
    if move is None:
        move = movable(tx)
    if isinstance(move, str) or not isinstance(move, Iterable) or not all(isinstance(name, str) for name in move):
        raise TypeError(
            f"`orders.move` must be a list of links' names, got {code(move)}: write ['add_decayed_weights']"
        )
    move = list(dict.fromkeys(move))
    for name in move:
        tx[name]
    if not move:
        raise ValueError("`orders.move` is empty, or the chain has no weight decay and no clip: name the links to move")
    classes: list[_Class] = []
    for other in _placements(tx, move):
        new = _Class(measured("orders", where, other), [other])
        new.idle = functools.cache(functools.partial(idle, where, other, new.run, tuple(move)))
        for known in classes:
            if max(new.run.apart(known.run)[0].values()) > ROUNDING:
                continue
            moved = _shifted(_order(known.same[0]), _order(other), move)
            reason = doubt(where, tx, new.run, [path for path in new.idle() if path in moved], known.idle)
            if not reason:
                known.same.append(other)
                break
            new.reason = reason
        else:
            classes.append(new)
    named = dict(zip(_names([x.same[0] for x in classes], move), classes))
    return Orders(
        {name: x.same[0] for name, x in named.items()},
        next(iter(named)),
        {name: tuple(x.same[1:]) for name, x in named.items()},
        {name: total(x.run.apart(classes[0].run)[0]) for name, x in named.items()},
        {name: x.reason for name, x in named.items() if x.reason},
    )


@dataclasses.dataclass
class _Class:
    """Orders with the same updates."""

    run: Run
    same: list[Any]
    idle: Callable[[], list[str]] = list
    """The moved links that do nothing in the first of them."""
    reason: str = ""
    """Why it was not merged with one that has the same updates."""


def movable(tx: Transformation) -> list[str]:
    """The paths of the weight decays and clips of a chain and of those within it."""
    return [path for path, link in tx._linked() if link.role in MOVED]


def _placements(tx: Transformation, move: list[str]) -> list[Any]:
    """The chain, then its other orders but for mistakes, those first that are closest to it."""
    old = _order(tx)
    by_chain = [list(_arranged(names, [n for n in names if at + n in move])) for at, names in old.items()]
    found: list[tuple[int, Any]] = []
    seen = [tx]
    for arranged in itertools.product(*by_chain):
        order = dict(zip(old, arranged))
        if order == old:
            continue
        try:
            other, warned = quiet(lambda order=order: _checked(tx, order))
        except ValueError:
            continue
        if not warned and not any(_alike(other, x) for x in seen):
            found.append((sum(_inversions(old[at], names) for at, names in order.items()), other))
            seen.append(other)
            if len(seen) > MOST:
                raise ValueError(f"`orders.move`: {len(move)} links have more than {MOST} orders: move fewer")
    return [tx, *(other for _, other in sorted(found, key=lambda pair: pair[0]))]


def _order(tx: Transformation) -> Order:
    """The names of the links of each chain."""
    found: Order = {}
    for path, _ in tx._linked():
        head, _, own = path.rpartition("/")
        found.setdefault(f"{head}/" if head else "", []).append(own)
    return found


def _arranged(names: list[str], moved: list[str]) -> Iterator[list[str]]:
    """All orders of the names in which those that are not moved keep theirs."""
    others = [name for name in names if name not in moved]
    arranged = [others]
    for name in moved:
        arranged = [[*order[:i], name, *order[i:]] for order in arranged for i in range(len(order) + 1)]
    yield from arranged


def _shifted(old: Order, new: Order, move: list[str]) -> set[str]:
    """The paths of the moved links that stand before or behind others than they did."""
    pairs = ((at, a, b) for at, names in old.items() for a, b in itertools.combinations(names, 2))
    swapped = ((at, a, b) for at, a, b in pairs if new[at].index(a) > new[at].index(b))
    return {at + name for at, *both in swapped for name in both} & {*move}


def _inversions(old: list[str], new: list[str]) -> int:
    """The number of pairs of links whose order has changed."""
    places = [old.index(name) for name in new]
    return sum(a > b for a, b in itertools.combinations(places, 2))


def _checked(tx: Transformation, order: Order) -> Any:
    """The chain in another order. Warns as the library does, of each chain in it, and of an ascent."""

    def change(at: str, pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        links = dict(pairs)
        return [(name, links[name]) for name in order[at]]

    other = tx._edit(change)
    warn_of_ascent(other.links)
    return other


def _alike(a: Any, b: Any) -> bool:
    """Whether two chains are the same, apart from the names of their links."""
    return [*a.links.values()] == [*b.links.values()]


def _arrows(tx: Transformation) -> str:
    """The order of the links: of the chain, or of the chains within a link."""
    parts = []
    for at, names in _order(tx).items():
        parts.append(f"{at.removesuffix('/')}: {' → '.join(names)}" if at else " → ".join(names))
    return "; ".join(parts)


# Names


def _names(chains: list[Any], move: list[str]) -> list[str]:
    """For each chain the fewest words that tell it from the others; kinds of decay rather than places."""
    columns = sorted((c for path in move for c in _facets(chains, path)), key=lambda c: c.is_place)
    for count in range(1, len(columns) + 1):
        for chosen in itertools.combinations(columns, count):
            if len({tuple(column.texts[i] for column in chosen) for i in range(len(chains))}) == len(chains):
                alone = len(move) == 1
                return [", ".join(column.told(i, alone) for column in chosen) for i in range(len(chains))]
    return [_arrows(tx) for tx in chains]


@dataclasses.dataclass(frozen=True)
class _Facet:
    """What a moved link is in each chain: the kind of a weight decay, or its place."""

    subject: str
    texts: list[str]
    is_place: bool

    def told(self, i: int, alone: bool) -> str:
        return f"{self.subject} {self.texts[i]}" if self.is_place and not alone else self.texts[i]


def _facets(chains: list[Any], path: str) -> Iterator[_Facet]:
    """The kind of a link, if it is a weight decay, and its place."""
    head, _, own = path.rpartition("/")
    at = f"{head}/" if head else ""
    subject, kinds, places = _short(chains[0], at, own).removeprefix("the "), [], []
    for tx in chains:
        names = _order(tx)[at]
        links = {name: tx[at + name] for name in names}
        later = names[names.index(own) + 1 :]
        places.append(f"before {_short(tx, at, later[0])}" if later else "last")
        kinds.append(_kind(links, own))
    if all(kinds):
        yield _Facet(subject, kinds, False)
    yield _Facet(subject, places, True)


def _kind(links: dict[str, Any], own: str) -> str:
    """What `describe` calls the weight decay, without the explanation: "coupled", say."""
    decays = [name for name, link in links.items() if link.role in ("decay", "decay_after")]
    if own not in decays:
        return ""
    kind = penalties(links)[0].removeprefix("weight decay: ").split("; ")[decays.index(own)]
    return re.split(r" \(|[:,]", kind)[0]


def _short(tx: Any, at: str, own: str) -> str:
    """A link by its purpose if it is the only one of its chain with it, else by its name."""
    roles = [tx[at + name].role for name in _order(tx)[at]]
    role = tx[at + own].role
    return f"the {role}" if role in ("clip", "decay") and roles.count(role) == 1 else own
