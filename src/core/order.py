"""What the order of a chain amounts to, and which orders cannot be meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .value import code, same

if TYPE_CHECKING:
    from .link import Link


def ending(name: str, link: Link) -> str | None:
    """The name of the link that says how parameters are rounded: this one, or one in a chain that it holds."""
    if link.role == "apply":
        return name
    held = (ending(*pair) for tx in link.inner.values() for pair in tx.links.items())
    return next(filter(None, held), None)


def problems(links: dict[str, Link]) -> list[str]:
    """What cannot be meant in this order, each with its remedy."""
    names, roles = list(links), _roles(links)
    descents = [n for n, r in zip(names, roles) if r == "descend"]
    found = []
    if len(descents) > 1:
        outcome = "climbs" if len(descents) % 2 == 0 else "descends by the product of the rates"
        found.append(
            f"{' and '.join(map(repr, descents))} each flip the sign, so the chain {outcome}: "
            "keep one; for a rate times a schedule write scale_by_lr(rate * schedule)"
        )
    if not descents:
        return found
    first = roles.index("descend")
    anchor = repr(names[first])
    for i, (name, role) in enumerate(zip(names, roles)):
        if role in ("decay", "penalty") and i > first:
            found.append(
                f"{name!r} comes after {anchor} has flipped the sign, so it makes weights grow: "
                f"move it before {anchor}, or use decay_after_step, which the learning rate does not scale"
            )
        if role == "precondition" and i > first:
            found.append(
                f"{name!r} comes after {anchor} and normalizes the learning rate away: move it before {anchor}"
            )
        if role == "decay_after" and i < first:
            found.append(
                f"{name!r} decays the parameters as moved by the step, but stands before {anchor}, "
                f"where there is no step yet: move it after {anchor}, or use add_decayed_weights"
            )
    return found


def penalties(links: dict[str, Link]) -> list[str]:
    """Which kind of weight decay, and of other penalties, the order amounts to: a line each."""
    names, roles = list(links), _roles(links)
    decays = [_kind(i, links) for i, role in enumerate(roles) if role in ("decay", "decay_after")]
    others = [n for n, r in zip(names, roles) if r not in ("decay", "decay_after", "penalty")]
    decays += [f"inside {n}, as its equation says" for n in others if _decays(links[n])]
    lines = [f"weight decay: {'; '.join(decays) or 'none'}"]
    return lines + [f"{names[i]}: {_kind(i, links)}" for i, role in enumerate(roles) if role == "penalty"]


def _decays(link: Link) -> bool:
    """Whether a link of another role has a weight decay of its own."""
    given = getattr(link, "weight_decay", None)
    return given is not None and not (isinstance(given, float) and given == 0)


def _roles(links: dict[str, Link]) -> list[str]:
    """What each link is for; a scale by a negative number is a descent, but at the front of one a turned gradient."""
    later = any(link.role == "descend" for link in links.values())

    def flips(i: int, link: Link) -> bool:
        factor = getattr(link, "step_size", None)
        negative = link.role == "scale" and isinstance(factor, float) and factor < 0
        return negative and not (i == 0 and later)

    return ["descend" if flips(i, link) else link.role for i, link in enumerate(links.values())]


def _kind(i: int, links: dict[str, Link]) -> str:
    names, roles = list(links), _roles(links)
    before, after = list(zip(names[:i], roles[:i])), list(zip(names[i + 1 :], roles[i + 1 :]))
    descents = [n for n, r in zip(names, roles) if r == "descend"]
    if roles[i] == "decay_after":
        constant = isinstance(getattr(links[names[i]], "rate", None), float)
        scaled = f", not scaled by {' or '.join(descents)}" if constant and descents else ", at a rate of its own"
        return f"independent (a step of its own after the main one){scaled}"
    if "descend" in roles[:i]:
        return "after the sign flip: it makes weights grow"
    unknown = [n for n, link in links.items() if link.treewise and link.role == "other"]
    if unknown:
        return f"unknown, since {unknown[0]} may be a preconditioner: say so by its role"
    for kind in ("precondition", "accumulate"):
        through = [n for n, r in after if r == kind]
        if through:
            return f"coupled ({'L2: ' if roles[i] == 'decay' else ''}it passes through {through[0]})"
    passed = {r for _, r in before}
    if "precondition" in passed:
        position = "decoupled (after the preconditioner)"
    elif "accumulate" in passed:
        position = "decoupled (after the momentum)"
    else:
        position = "L2 (the same as ½λ‖θ‖² in the loss)" if roles[i] == "decay" else "the same as in the loss"
    if not any(r == "descend" for _, r in after):
        return position
    rates = [n for n, r in before if r == "scale"]
    return f"{position}, scaled by the learning rate" + (f" but not by {', '.join(rates)}" if rates else "")


def differences(ours: dict[str, Link], theirs: dict[str, Link]) -> list[str]:
    """What is different in ``theirs``, a line each."""
    lines = [f"{_shown(name, link)} is removed" for name, link in ours.items() if name not in theirs]
    names = list(theirs)
    for i, (name, link) in enumerate(theirs.items()):
        if name not in ours:
            where = f"after {names[i - 1]}" if i else "at the front"
            lines.append(f"{_shown(name, link)} is added {where}")
    lines += _moves([n for n in ours if n in theirs], [n for n in theirs if n in ours])
    for name in (n for n in ours if n in theirs):
        a, b = ours[name], theirs[name]
        if type(a) is not type(b):
            lines.append(f"{name}: {a!r} → {b!r}")
            continue
        for field in (*a._static, *a._leaves):
            x, y = getattr(a, field), getattr(b, field)
            if not same(x, y):
                lines.append(f"{name}.{field}: {code(x)} → {code(y)}")
    return lines or ["no difference"]


def _moves(ours: list[str], theirs: list[str]) -> list[str]:
    """The fewest moves that turn one order into the other: all links but a longest common subsequence."""
    best: list[list[str]] = [[] for _ in range(len(theirs) + 1)]
    for name in ours:
        before = list(best)
        for j, other in enumerate(theirs):
            best[j + 1] = before[j] + [name] if name == other else max(before[j + 1], best[j], key=len)
    moved = [n for n in theirs if n not in best[-1]]
    return [f"{n} is moved {'after ' + theirs[i - 1] if (i := theirs.index(n)) else 'to the front'}" for n in moved]


def _shown(name: str, link: Link) -> str:
    return repr(link) if name == type(link).__name__ else f"{name}={link!r}"
