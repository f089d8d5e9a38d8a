"""What sweeps, halvings and comparisons are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..core.facade.transformation import Transformation
from ..core.values.contents import code
from ..core.values.errors import did_you_mean


def is_whole(x: Any) -> bool:
    """Whether this is a whole number."""
    return isinstance(x, (int, np.integer)) and not isinstance(x, bool)


def seeds_of(where: str, seeds: Any) -> tuple[int, ...]:
    """The seeds: 0, 1, ... for a number of them.

    Errors: ``ValueError`` unless they are distinct whole numbers from 0 that fit into int32, and at least one.
    """
    found = range(int(seeds)) if is_whole(seeds) else list(seeds) if isinstance(seeds, Iterable) else None
    if not found or not all(is_whole(s) and 0 <= s < 2**31 for s in found) or len({*found}) < len(found):
        raise ValueError(
            f"`{where}` must be a number of seeds from 1, or a list of distinct whole numbers from 0 below 2**31, "
            f"got {code(seeds)}"
        )
    return tuple(map(int, found))


def check_chains(where: str, over: Any) -> None:
    """Raise unless this is a list of chains, or a table of them by name, with at least one."""
    if isinstance(over, Transformation):
        raise TypeError(f"`{where}` is one chain: give a list, such as cx.grid(tx, {{'link.field': [values]}}) makes")
    if not isinstance(over, Iterable):
        raise TypeError(f"`{where}` must be a list of chains or a table of them by name, got {code(over)}")
    pairs = list(over.items() if isinstance(over, Mapping) else enumerate(over))
    if not pairs:
        raise ValueError(f"`{where}` is empty: give at least one chain")
    for key, tx in pairs:
        if not isinstance(tx, Transformation):
            remedy = "; wrap an Optax transformation in from_optax" if hasattr(tx, "update") else ""
            if isinstance(tx, list | tuple) and not remedy:
                remedy = ": join such lists, or give them to `compare` or `successive_halving`, which take one an order"
                raise TypeError(f"`{where}[{key!r}]` must be a chain, got a {type(tx).__name__} of {len(tx)}{remedy}")
            raise TypeError(f"`{where}[{key!r}]` must be a chain, got {code(tx)}{remedy}")
        if any(np.ndim(x) for x in jax.tree.leaves(tx)):
            raise ValueError(
                f"`{where}[{key!r}]` is a stack of chains: give the chains one by one, `sweep` stacks them"
            )


def orders_of(where: str, over: Mapping[Any, Any]) -> dict[str, tuple[Transformation, ...]]:
    """The settings of each order. Raise unless all have the same number of them."""
    orders = {}
    for name, settings in over.items():
        if isinstance(settings, Mapping):
            text = f"`{where}[{name!r}]` must be a list of chains, got a table: give its values, list(table.values())"
            raise TypeError(text)
        settings = listed(settings)
        check_chains(f"{where}[{name!r}]", settings)
        orders[str(name)] = tuple(settings)
    if not orders:
        raise ValueError(f"`{where}` is empty: give at least one order")
    sizes = {name: len(settings) for name, settings in orders.items()}
    if len({*sizes.values()}) > 1:
        raise ValueError(
            f"`{where}` must have the same number of settings for each order, so that none is tuned more than another, "
            f"got {sizes}: `sample` draws any number of them"
        )
    return orders


def listed(settings: Any) -> Any:
    """A list of what can be run through once, such as a generator; anything else as it is."""
    if isinstance(settings, Transformation | Mapping) or not isinstance(settings, Iterable):
        return settings
    return list(settings)


def check_call(caller: str, train: Callable[..., Any], names: Sequence[str]) -> None:
    """Raise at once if ``train`` does not take a chain and these arguments: it would fail for every chain."""
    try:
        signature = inspect.signature(train)
    except ValueError:  # not every callable has a signature
        return
    try:
        signature.bind(*["tx", *names])
    except TypeError as e:
        raise TypeError(f"`{caller}.train` is called as train({', '.join(['tx', *names])}): {e}") from None


def metric_of(caller: str, shapes: Mapping[str, tuple[int, ...]], metric: str | None) -> str:
    """The name of the score among a run's results: by default the only single number, or ``"loss"``."""
    single = [name for name, shape in shapes.items() if not shape]
    if metric is None:
        if len(single) != 1 and "loss" not in single:
            told = f"one of {single}" if single else "which has no single number"
            raise ValueError(f"`{caller}.metric` must name the score among what `train` returns, {told}")
        return single[0] if len(single) == 1 else "loss"
    if metric not in single:
        hint = "not a single number a run" if metric in shapes else f"not among what `train` returns: {list(shapes)}"
        raise ValueError(f"`{caller}.metric`: {metric!r} is {hint}{did_you_mean(metric, single)}")
    return metric
