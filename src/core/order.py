"""What the order of a chain amounts to, and which orders cannot be meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .value import code, same

if TYPE_CHECKING:
    from .link import Link


def problems(links: dict[str, Link]) -> list[str]:
    """What cannot be meant in this order, each with its remedy."""
    names, roles = list(links), [link.role for link in links.values()]
    descents = [n for n, r in zip(names, roles) if r == "descend"]
    found = []
    if len(descents) > 1:
        found.append(
            f"{' and '.join(map(repr, descents))} each flip the sign, so the chain "
            f"{'climbs' if len(descents) % 2 == 0 else 'descends by the product of the rates'}: keep one, and write "
            "scale(factor) or a product of schedules for the other"
        )
    first = roles.index("descend") if descents else len(roles)
    for i, (name, role) in enumerate(zip(names, roles)):
        if role == "decay" and i > first:
            found.append(
                f"{name!r} comes after {names[first]!r} has flipped the sign, so it makes weights grow: "
                f"move it before {names[first]!r}, or use decay_after_step, which the learning rate does not scale"
            )
        if role == "precondition" and i > first:
            found.append(
                f"{name!r} comes after {names[first]!r} and normalizes the learning rate away: "
                f"move it before {names[first]!r}"
            )
        if role == "decay_after" and i < first and descents:
            found.append(
                f"{name!r} decays the parameters as moved by the step, but stands before {names[first]!r}, "
                f"where there is no step yet: move it after {names[first]!r}, or use add_decayed_weights"
            )
    return found


def weight_decay(links: dict[str, Link]) -> str:
    """Which kind of weight decay the order amounts to."""
    names, roles = list(links), [link.role for link in links.values()]
    kinds = [_kind(i, names, roles) for i, role in enumerate(roles) if role in ("decay", "decay_after")]
    return "; ".join(kinds) or "none"


def _kind(i: int, names: list[str], roles: list[str]) -> str:
    if roles[i] == "decay_after":
        descents = [n for n, r in zip(names, roles) if r == "descend"]
        unscaled = f", not scaled by {' or '.join(descents)}" if descents else ""
        return f"independent (a step of its own after the main one){unscaled}"
    after = [(n, r) for n, r in zip(names[i + 1 :], roles[i + 1 :])]
    before = [(n, r) for n, r in zip(names[:i], roles[:i])]
    if "descend" in roles[:i]:
        return "after the sign flip: it makes weights grow"
    for kind in ("precondition", "accumulate"):
        through = [n for n, r in after if r == kind]
        if through:
            return f"coupled (L2: it passes through {through[0]})"
    position = (
        "decoupled (after the preconditioner)" if "precondition" in roles[:i] else "decoupled (after the momentum)"
    )
    if not {"precondition", "accumulate"} & {r for _, r in before}:
        position = "L2 (the same as ½λ‖θ‖² in the loss)"
    if not any(r == "descend" for _, r in after):
        return position
    rates = [n for n, r in before if r == "scale"]
    return f"{position}, scaled by the learning rate" + (f" but not by {', '.join(rates)}" if rates else "")


def differences(ours: dict[str, Link], theirs: dict[str, Link]) -> list[str]:
    """What is different in ``theirs``, a line each."""
    lines = [f"{link!r} is removed" for name, link in ours.items() if name not in theirs]
    names = list(theirs)
    for i, (name, link) in enumerate(theirs.items()):
        if name not in ours:
            where = f"after {names[i - 1]}" if i else "at the front"
            lines.append(f"{link!r} is added {where}")
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
