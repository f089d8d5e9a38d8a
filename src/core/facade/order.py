"""What the order of a chain means, and which orders are almost certainly mistakes."""

from __future__ import annotations

from collections.abc import Iterator

from ..engine.protocol import LinkLike, Links
from ..values.numerics import is_zero
from ..values.types import HyperValue
from ..values.warning import warn

ROLES = {
    "loss_scale": "divides by the scale of the loss",
    "gradient": "takes a gradient of its own",
    "guard": "rejects steps",
    "clean": "replaces NaN",
    "clip": "bounds the update",
    "noise": "adds noise",
    "decay": "adds a share of the parameters",
    "penalty": "adds another function of the parameters",
    "accumulate": "accumulates updates: momentum",
    "precondition": "divides by the size of past updates, or takes the sign",
    "align": "compares the signs of update and gradient",
    "scale": "multiplies by a number",
    "descend": "flips the sign, so that the update points downhill",
    "search": "finds the length of the step by evaluating the loss",
    "decay_after": "shrinks the parameters after the step",
    "project": "keeps the parameters within bounds",
    "average": "averages the parameters",
    "record": "keeps statistics",
    "apply": "rounds the parameters: the end of a chain",
    "other": "none of these",
}
"""The purposes of links. They determine descriptions and warnings, and nothing that is computed."""


def ending(name: str, link: LinkLike) -> str | None:
    """The name of the link that specifies how parameters are rounded: this one, or one in a chain that it holds."""
    if link.final_rounding is not None:
        return name
    held = (ending(*pair) for tx in link.inner.values() for pair in tx.links.items())
    return next(filter(None, held), None)


class Rule:
    """An order that is almost certainly a mistake: a link with a tag of ``later`` after one with a tag of ``earlier``.

    ``words`` is the warning, with ``{later}`` and ``{earlier}`` for the links.
    """

    def __init__(self, later: str, earlier: str, words: str, remedy: str = "move {later} before {earlier}") -> None:
        self.later, self.earlier = frozenset(later.split()), frozenset(earlier.split())
        self.text = f"{words}: {remedy}"


CHANGES = "clip decay penalty accumulate precondition undoing align scale noise descend search"
"""Tags of links that change the size or the direction of an update."""
KEEPS_NORM = frozenset(("scale", "record", "guard", "nonfinite", "rejecting"))
"""Tags of links that preserve the property that all updates have the same norm."""
PROMISES = frozenset(("finite", "rejecting"))
"""Tags that guarantee something about all updates. Wrappers lose them, since their chains may see only some."""
NONLINEAR = "clip decay penalty accumulate precondition undoing noise clean decay_after project average"
"""Tags of links that are not linear: twice the gradient does not give twice the update."""

RULES = (
    Rule(
        "loss_scale",
        f"{NONLINEAR} align search bounding",
        "{later} divides by the scale of the loss, but {earlier} before it gets gradients that are still scaled",
        "move {later} to the front",
    ),
    Rule(
        "loss_scale",
        "loss_scale",
        "{later} divides by the scale of the loss again, as {earlier} has done before",
        "remove one of them",
    ),
    Rule(
        "gradient",
        "loss_scale",
        "{later} evaluates another gradient, and {earlier} before it cannot detect an overflow in it",
    ),
    Rule(
        "gradient",
        f"{NONLINEAR} scale descend search",
        "{later} takes a gradient of its own, so the effect of {earlier} before it is lost",
    ),
    Rule(
        "clean",
        "norm accumulate precondition search",
        "{later} comes after a NaN has already spread through {earlier}",
    ),
    Rule(
        "clean",
        "rejecting loss_scale",
        "{later} never gets a NaN, since {earlier} rejects such steps",
        "remove one of them",
    ),
    Rule(
        "nonfinite",
        "finite",
        "{later} looks for infinite updates after {earlier}, which makes them finite",
    ),
    Rule(
        "clip",
        "descend search",
        "{later} comes after {earlier} and bounds steps, whatever the learning rate",
    ),
    Rule(
        "precondition undoing",
        "descend search",
        "{later} comes after {earlier} and normalizes the learning rate away",
    ),
    Rule(
        "align",
        "descend search",
        "{later} compares the signs of update and gradient, but comes after {earlier} has flipped one of them",
    ),
    Rule(
        "decay penalty",
        "descend search",
        "{later} comes after {earlier} has flipped the sign, so it makes weights grow",
        "move {later} before {earlier}, or use decay_after_step, which the learning rate does not scale",
    ),
    Rule(
        "descend",
        "decay_after",
        "{earlier} decays the parameters that the step leads to, but comes before {later}, where there is no step yet",
        "move {earlier} after {later}, or use add_decayed_weights",
    ),
    Rule(
        "descend",
        "search",
        "{earlier} searches along the update, but comes before {later}, where the update still points uphill",
    ),
    Rule(
        "accumulate",
        "align",
        "{later} continues in directions that {earlier} has ruled out",
    ),
    Rule(
        "accumulate scale noise decay_after",
        "search",
        "{later} changes the step whose length {earlier} has found",
    ),
    Rule(
        f"{CHANGES} gradient",
        "project",
        "{earlier} bounds the parameters that the update leads to, but {later} after it changes the update",
    ),
    Rule(
        f"{CHANGES} gradient clean decay_after project",
        "average",
        "{earlier} averages the parameters that the update leads to, but {later} after it changes the update",
    ),
)
"""Which links must not follow which. ``tests/test_order.py`` shows that exactly these orders break a property."""


def problems(links: Links) -> list[str]:
    """What is almost certainly a mistake in the order of these links, and how to correct it."""
    names, roles = list(links), _roles(links)
    found = []
    descents = [name for name, role in zip(names, roles) if role == "descend"]
    if len(descents) > 1:
        outcome = "climbs" if len(descents) % 2 == 0 else "descends by the product of the rates"
        found.append(
            f"{' and '.join(map(repr, descents))} each flip the sign, so the chain {outcome}: "
            "keep one; for a rate times a schedule write scale_by_lr(rate * schedule)"
        )
    first: dict[str, tuple[int, str]] = {}  # the first link with each tag
    for i, parts in enumerate(_parts(links)):
        broken = (
            rule.text.format(later=part, earlier=min(first[tag] for tag in before)[1])
            for part, tags in parts
            for rule in RULES
            if tags & rule.later and (before := rule.earlier & first.keys())
        )
        found += [*broken][:1]
        for part, tags in parts:
            for tag in tags:
                first.setdefault(tag, (i, part))
    found += [
        f"every update has the same norm after {fixing}, so {clip} only multiplies it by a number: "
        f"move {clip} before {fixing}, or remove it"
        for clip, fixing in _idle_clips(links)
    ]
    return found


def _parts(links: Links) -> Iterator[list[tuple[str, frozenset[str]]]]:
    """The name and tags of each link, or of the links in the chains that it holds."""
    for (name, link), role in zip(links.items(), _roles(links)):
        if link.inner:
            inside = (part for tx in link.inner.values() for parts in _parts(tx.links) for part in parts)
            yield [(f"{part} in {name!r}", tags - PROMISES) for part, tags in inside]
        else:
            yield [(repr(name), _tags(link, role))]


def _idle_clips(links: Links, fixing: str | None = None) -> Iterator[tuple[str, str]]:
    """The clips that have no effect, each with the earlier link that gives all updates one norm.

    Behind a link that orthogonalizes it may be any clip, since that norm is the same for each matrix too. ``fixing`` is
    a link before these. In the chain of a link only this one is considered, since others were found when that chain was
    made. Nothing is known about the output of a link that holds a chain.
    """
    orthogonal = False
    for (name, link), role in zip(links.items(), _roles(links)):
        if link.inner:
            chains = [] if link.inner_updates_differ or fixing is None else link.inner.values()
            for tx in chains:
                yield from ((f"{clip} in {name!r}", at) for clip, at in _idle_clips(tx.links, fixing) if at == fixing)
            fixing, orthogonal = None, False
            continue
        norms = role == "clip" or (link.bounds_size and link.fixes_norm)
        if fixing and ((role == "clip" and link.needs_all_updates) or (norms and orthogonal)):
            yield repr(name), fixing
        tags = _tags(link, role)
        kept = tags <= KEEPS_NORM
        fixing = repr(name) if "fixing" in tags else fixing if kept else None
        orthogonal = link.orthogonalizes or (orthogonal and kept)


def _tags(link: LinkLike, role: str) -> frozenset[str]:
    """The tags of a link, to which the rules refer."""
    flags = {
        "bounding": link.bounds_size,
        "finite": link.hides_infinite,
        "fixing": link.fixes_norm or link.orthogonalizes,
        "norm": link.bounds_size and not link.hides_infinite,
        "nonfinite": role == "guard" and link.needs_all_updates,
        "rejecting": link.refuses_nonfinite,
        "undoing": link.undoes_scale,
    }
    return frozenset({role} | {tag for tag, holds in flags.items() if holds})


def warn_of_ascent(links: Links) -> None:
    """Warn about a chain of several links if certainly none of them flips the sign of the update."""
    climbing = _climbing(links)
    if climbing is not None and sum(map(len, _parts(links))) > 1:
        warn(
            f"no link of {climbing} flips the sign of the update, so `step` would climb: "
            "append scale_by_lr(rate), or scale(-1.0) for a rate of 1"
        )


def _climbing(links: Links) -> str | None:
    """The names of the links if the update certainly points uphill: for links with chains, in at least one of these."""
    names = []
    for (name, link), role in zip(links.items(), _roles(links)):
        if link.inner:
            inside = [_climbing(tx.links) for tx in link.inner.values()]
            if not any(x is not None for x in inside):
                return None
            names.append(f"{name}({next(x for x in inside if x is not None)})")
        elif role in ("descend", "other") or (role == "scale" and not isinstance(_factor(link), float)):
            return None
        else:
            names.append(name)
    return " → ".join(names)


def penalties(links: Links) -> list[str]:
    """The kinds of weight decay and of other penalties that the order implies, one per line."""
    names, roles = list(links), _roles(links)
    decays = [_kind(i, links) for i, role in enumerate(roles) if role in ("decay", "decay_after")]
    others = [n for n, r in zip(names, roles) if r not in ("decay", "decay_after", "penalty")]
    decays += [f"inside {n}, as its equation says" for n in others if _decays(links[n])]
    lines = [f"weight decay: {'; '.join(decays) or 'none'}"]
    return lines + [f"{names[i]}: {_kind(i, links)}" for i, role in enumerate(roles) if role == "penalty"]


def _decays(link: LinkLike) -> bool:
    """Whether a link has a weight decay of its own, other than 0."""
    return bool(link.decay_field) and not is_zero(getattr(link, link.decay_field))


def _factor(link: LinkLike) -> HyperValue:
    """The factor by which a link multiplies updates: a Python number if it is constant, and 1 if there is none."""
    return getattr(link, link.factor_field) if link.factor_field else 1.0


def _roles(links: Links) -> list[str]:
    """The roles of links. A scale by a negative number is a descent, unless it comes first and a descent follows."""
    later = any(link.role == "descend" for link in links.values())

    def flips(i: int, link: LinkLike) -> bool:
        factor = _factor(link)
        negative = link.role == "scale" and isinstance(factor, float) and factor < 0
        return negative and not (i == 0 and later)

    return ["descend" if flips(i, link) else link.role for i, link in enumerate(links.values())]


def _kind(i: int, links: Links) -> str:
    """The kind of the weight decay or penalty that is the ``i``-th link."""
    names, roles = list(links), _roles(links)
    before, after = list(zip(names[:i], roles[:i])), list(zip(names[i + 1 :], roles[i + 1 :]))
    descents = [n for n, r in zip(names, roles) if r == "descend"]
    if roles[i] == "decay_after":
        link = links[names[i]]
        constant = bool(link.decay_field) and isinstance(getattr(link, link.decay_field), float)
        scaled = f", not scaled by {' or '.join(descents)}" if constant and descents else ", at a rate of its own"
        return f"independent (a step of its own after the main one){scaled}"
    if "descend" in roles[:i]:
        return "after the sign flip: it makes weights grow"
    unknown = [n for n, link in links.items() if link.treewise and link.role == "other"]
    if unknown:
        return f"unknown, since {unknown[0]} may be a preconditioner: say so by its role"
    for kind in ("precondition", "align", "accumulate"):
        through = [n for n, r in after if r == kind]
        if through:
            return f"coupled ({'L2: ' if roles[i] == 'decay' else ''}it passes through {through[0]})"
    passed = {r for _, r in before}
    if "precondition" in passed:
        position = "decoupled (after the preconditioner)"
    elif "accumulate" in passed:
        position = "decoupled (after the momentum)"
    elif changing := [n for n, r in before if r in ("gradient", "clip", "align", "other") or links[n].undoes_scale]:
        position = f"decoupled (after {changing[0]})"
    else:
        position = "L2 (the same as ½λ‖θ‖² in the loss)" if roles[i] == "decay" else "the same as in the loss"
    if not any(r == "descend" for _, r in after):
        return position
    rates = [n for n, r in before if r == "scale"]
    return f"{position}, scaled by the learning rate" + (f" but not by {', '.join(rates)}" if rates else "")
