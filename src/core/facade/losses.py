"""The warnings about what an edit loses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from jax.core import Tracer

from ..values.warning import warn
from .arrays import ArrayLike
from .carrying import AMBIGUOUS, Carrying
from .matching import Holding, common_slots
from .parts import Part

SHOWN = 8
OLD = "old="


def warn_of_losses(
    call: str,
    carrying: Carrying,
    parts: Iterable[Part],
    kept: Iterable[str],
    mismatched: Iterable[str],
) -> None:
    """Warn of slots that begin anew although the old state has what they hold, and say why.

    ``kept`` are the names of the arrays that were loaded, ``mismatched`` those that did not fit, with the reason.
    """
    gone = functools.cache(functools.partial(_of_gone, carrying)) if call != "add_param_group" else lambda *_: []
    kept, reasons = {*kept}, {}
    for text in mismatched:
        name, _, reason = text.rpartition(" (")
        reasons[name] = f"({reason}"
    lost: dict[str, dict[str, None]] = {}
    details: dict[str, str] = {}
    for part in parts:
        names = part.all_names
        if part.path is None or not names or any(name in kept for name in names):
            continue
        for why, old in _of_part(carrying, part, names, reasons, gone):
            details.setdefault(why, next((f" {reasons[name]}" for name in names if name in reasons), ""))
            lost.setdefault(why, {}).update(dict.fromkeys(old))
    for why, names in lost.items():
        known = carrying.knows_chain or OLD in why or call == "add_param_group"
        hint = "" if known else f". If another chain stored the state, pass it: {OLD}..."
        few = ", ".join([*names][:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        warn(f"`{call}` loses {few}, and the slots of their links begin anew: {why}{details[why]}{hint}")


def warn_of_pending(call: str, carrying: Carrying, unexpected: Iterable[str]) -> None:
    """Warn of what a link of the old chain has held back for a later step, and no link goes on with."""
    lost = {*unexpected}
    for holding in carrying.matching.old:
        name = f"{holding.head}{getattr(holding.kind, 'pending', '')}"
        count = carrying.old_arrays[name] if name in lost else 0
        if not isinstance(count, Tracer) and np.any(np.asarray(count) > 0):
            warn(
                f"`{call}` loses what {holding.name!r} has gathered for its next step ({name} is {np.asarray(count)}): "
                "take that step before, by flush(old, params, state)"
            )


def _of_part(
    carrying: Carrying, part: Part, names: list[str], reasons: Mapping[str, str], gone: Callable[..., list[str]]
) -> Iterator[tuple[str, list[str]]]:
    """For a part that begins anew: reasons, and the names of the old arrays that are lost for each."""
    why = carrying.why.get(names[0]) or ("they do not fit" if any(name in reasons for name in names) else "")
    if any(name in carrying.old_arrays and name in carrying.exact for name in names):
        yield why, [name for name in names if name in carrying.old_arrays]
        return
    holding = carrying.holding_of(part)
    old: list[str] = []
    for path in holding.members(part):
        source = carrying.matching.of(holding, path)
        theirs = [source] if source is not None else [*carrying.matching.lost(holding, path)]
        old += [name for one in theirs for name in _slots(carrying, holding, one, path)]
        why = why or (AMBIGUOUS if source is None else "")
    if old:
        yield why or "the state has not all slots that their links need", old
    elif unknown := _of_unknown_link(carrying, part):
        yield f"their link may be of another kind: pass the chain that the state is of, {OLD}...", unknown
    else:
        slot, name = next(((slot, x) for slot, x in part.slots.items() if isinstance(x, str)), ("", ""))
        if name and (old := gone(holding, slot, carrying.news[name].shape)):
            yield "no parameter has their path: if some were renamed, pass paths={'old/path': 'new/path'}", old


def _slots(carrying: Carrying, holding: Holding, source: Holding, path: str) -> Iterator[str]:
    for own in (common_slots(holding, source) or {}).values():
        for part in source.leaves[carrying.old_path(path)]:
            yield from (name for name in part.names(own) if name in carrying.old_arrays)


def _of_unknown_link(carrying: Carrying, part: Part) -> list[str]:
    """Arrays of a link whose class is not known, with all slots that are missing."""
    for old in carrying.matching.old:
        for own in old.leaves.get(carrying.old_path(part.path or ""), ()) if old.kind is None else ():
            if part.slots.keys() <= own.slots.keys():
                return [name for slot in part.slots for name in own.names(slot)]
    return []


def _of_gone(carrying: Carrying, holding: Holding, slot: str, shape: tuple[int, ...]) -> list[str]:
    """Arrays of the same link, slot and shape, of parameters that are no longer there."""
    heads = {source.head for path in holding.all_paths if (source := carrying.matching.of(holding, path)) is not None}
    heads |= {holding.head} if holding.prefix in carrying.exact_chains else set()
    paths = {carrying.old_path(path) for path in carrying.paths}

    def is_gone(old: str, x: ArrayLike, head: str) -> bool:
        path = old.removeprefix(f"{head}{slot}/")
        return path != old and path not in paths and old not in carrying.used and np.shape(x) == shape

    return [old for head in heads for old, x in carrying.old_arrays.items() if is_gone(old, x, head)]
