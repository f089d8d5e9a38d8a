"""What ``state_dict()`` of PyTorch's optimizers returns, by the paths of the parameters here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from ..core.values.contents import brief
from ..core.values.tree import show
from .arrays import by_path_of
from .layouts import layout

OptimizerState: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""What ``optimizer.state_dict()`` returns; several of them if several optimizers share the parameters."""

Names: TypeAlias = Sequence[str] | Sequence[Sequence[str]]
"""PyTorch's names of the parameters, in the order of an optimizer's parameters, or in lists by group."""


class Member(NamedTuple):
    """A parameter of an optimizer of PyTorch."""

    name: str
    file: int
    """Which of the states it is in."""
    where: str
    """Its group, for errors."""
    group: Mapping[str, Any]
    state: Mapping[str, Any]
    """What the optimizer keeps for it, by entry; empty before its first step."""


def members(given: OptimizerState, names: Names | None, layout: layout) -> tuple[dict[str, Member], list[str]]:
    """The parameters by path, and the keys of entries that belong to none of them.

    Errors: ``TypeError`` for anything but such states; ``ValueError`` for names that do not fit them.
    """
    files: list[Any] = list(given) if isinstance(given, (list, tuple)) and given else [given]
    groups, left = [], []
    for i, file in enumerate(files):
        at = f"optimizer_state[{i}]" if len(files) > 1 else "optimizer_state"
        groups += [(i, f"{at}['param_groups'][{k}]", file, group) for k, group in enumerate(_groups(file, at))]
        own = {key for *_, group in groups for key in group["params"]}
        left += [f"{at}['state'][{key!r}]" for key in file["state"] if key not in own]
    found: dict[str, Member] = {}
    named = _named([group for *_, group in groups], names)
    for (i, where, file, group), own in zip(groups, named):
        for name, key in zip(own, group["params"]):
            state = file["state"].get(key, {})
            if not isinstance(state, Mapping):
                raise TypeError(f"the state of {name!r} must be a dict of tensors, got {show(state)}")
            kept = {entry: x for entry, x in state.items() if x is not None}  # SGD may keep None for its buffer
            found[name] = Member(name, i, where, group, kept)
    paths = by_path_of(layout, [name for own in named for name in own], "the names of the parameters")
    return {path: found[name] for path, name in paths.items()}, left


def _groups(file: Any, at: str) -> Iterator[Mapping[str, Any]]:
    """The groups of a state, checked."""
    if not isinstance(file, Mapping) or not {"state", "param_groups"} <= file.keys():
        got = (
            f"a dict with {', '.join(map(repr, list(file)[:5]))}" if isinstance(file, Mapping) and file else show(file)
        )
        raise TypeError(
            f"{at} must be the dict with 'state' and 'param_groups' that optimizer.state_dict() returns, got {got}; a "
            "checkpoint may hold it under a key of its own"
        )
    if not isinstance(file["state"], Mapping) or not isinstance(file["param_groups"], (list, tuple)):
        raise TypeError(f"{at}['state'] must be a dict and {at}['param_groups'] a list, as optimizer.state_dict() has")
    for k, group in enumerate(file["param_groups"]):
        if not isinstance(group, Mapping) or not isinstance(group.get("params"), (list, tuple)):
            raise TypeError(f"{at}['param_groups'][{k}] must be a dict with a list 'params', got {brief(group)}")
        yield group


def _named(groups: list[Mapping[str, Any]], names: Names | None) -> list[list[str]]:
    """The names of the parameters of each group: those in the groups, or those given."""
    sizes = [len(group["params"]) for group in groups]
    own = [list(_own_names(group)) for group in groups]
    if names is None:
        if any(len(some) != n for some, n in zip(own, sizes)):
            raise ValueError(
                "the optimizer's state has no names of the parameters, or not all: pass names=[name for name, _ in "
                "model.named_parameters()], in the order of the optimizer's parameters"
            )
        return own
    split, flat = in_groups(names)
    got: Any = len(split[0]) if flat else [len(some) for some in split]
    if got != (sum(sizes) if flat else sizes):
        raise ValueError(
            f"the optimizer's state has {sum(sizes)} parameters in groups of {sizes}, and `names` has {got}: give a "
            "name for each, in the order of the optimizer's parameters"
        )
    if flat:
        ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
        split = [split[0][end - n : end] for end, n in zip(ends, sizes)]
    for some, more in zip(own, split):
        if some and list(some) != list(more):
            a, b = next((a, b) for a, b in zip(some, more) if a != b)
            raise ValueError(
                f"`names` has {b!r} for the parameter that the optimizer's state names {a!r}: leave out names"
            )
    return split


def in_groups(names: Names) -> tuple[list[list[str]], bool]:
    """The names by group, and whether they were given without groups, as one list."""
    given: list[Any] = list(names) if isinstance(names, (list, tuple)) else [None]
    flat = all(isinstance(name, str) for name in given)
    groups = [given] if flat else given
    if not all(isinstance(group, (list, tuple)) and all(isinstance(x, str) for x in group) for group in groups):
        raise TypeError(f"`names` must be a list of names, or a list for each group, got {brief(names)}")
    return [list[str](group) for group in groups], flat


def _own_names(group: Mapping[str, Any]) -> Sequence[str]:
    """The names in a group; the keys of a state may be names too, as that of distributed checkpoints."""
    keys = group["params"]
    return keys if keys and all(isinstance(key, str) for key in keys) else group.get("param_names") or ()
