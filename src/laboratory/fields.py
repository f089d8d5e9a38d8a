"""The numbers that vary within an order, and what a reader calls them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..core.facade.chain import chain
from ..core.facade.transformation import Transformation
from ..sweeping.columns import settings_of
from ..sweeping.grid import names_in, parts_of

RATES = ("learning_rate", "step_size")
TEXTS = ("name", "links")
"""Columns of a table that are no fields."""


def varying(chains: Sequence[Transformation]) -> dict[str, np.ndarray]:
    """The numbers in which the chains differ, by path, ``[chain]``.

    Of fields that are proportional to each other, such as one learning rate for two groups of parameters, only the
    first is kept.
    """
    kept: dict[str, np.ndarray] = {}
    for name, x in settings_of([""] * len(chains), chains).items():
        if name in TEXTS or not np.issubdtype(x.dtype, np.number) or np.isnan(x).any() or len({*x.tolist()}) < 2:
            continue
        if not any(_proportional(x, y) for y in kept.values()):
            kept[name] = x
    return kept


def _proportional(x: np.ndarray, y: np.ndarray) -> bool:
    return np.allclose(x / np.abs(x).max(), y / np.abs(y).max(), rtol=1e-6, atol=0)


def rate_of(fields: Iterable[str]) -> str | None:
    """The learning rate among the paths of fields: that of the first link that has one."""
    return next((name for name in fields if {*names_in(name)} & {*RATES}), None)


def labels(tx: Transformation, fields: Iterable[str]) -> dict[str, str]:
    """The fields' short names: those of the hyperparameters, or as much of the paths as tells them apart.

    >>> import chainax as cx
    >>> tx = cx.adamw(cx.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100))
    >>> labels(tx, ["scale_by_lr.learning_rate.peak_value", "add_decayed_weights.weight_decay"]).values()
    dict_values(['learning_rate', 'weight_decay'])
    """
    names = list(fields)
    hyper = {name: _hyperparameter(tx, name) for name in names}
    short = {name: (name[start:] if end is None else name[start:end]) for name, (start, end) in hyper.items()}
    twice = {x for x, n in Counter(short.values()).items() if n > 1}
    short = {name: name[hyper[name][0] :] if x in twice else x for name, x in short.items()}
    twice = {x for x, n in Counter(short.values()).items() if n > 1}
    return {name: name if x in twice else x for name, x in short.items()}


def _hyperparameter(tx: Any, path: str) -> tuple[int, int | None]:
    """Where the name of the innermost link's field begins in a path, and where it ends."""
    found, at, x = (path.rfind(".") + 1, None), 0, tx
    while at < len(path):
        parts = parts_of(x) or {}
        key = next((k for k in sorted(parts, key=len, reverse=True) if f"{path[at:]}.".startswith(f"{k}.")), None)
        if key is None:
            break
        if isinstance(x, Transformation) and not isinstance(x, chain):
            found = at, at + len(key)
        x, at = parts[key], at + len(key) + 1
    return found


def setting(chains: Sequence[Transformation], i: int) -> str:
    """One of several settings in words, with as few digits as distinguish its values from the others'."""
    columns = settings_of([""] * len(chains), chains)
    fields = varying(chains)
    others = [x for name, x in columns.items() if name != "name"]
    if not fields or not all(np.issubdtype(x.dtype, np.number) and not np.isnan(x).any() for x in others):
        return str(columns["name"][i])
    texts, short = [], labels(chains[0], fields)
    for field, x in fields.items():
        distinct = len({*x.tolist()})
        digits = next(d for d in range(3, 18) if len({f"{v:.{d}g}" for v in x.tolist()}) == distinct)
        texts.append(f"{short[field]}={x[i]:.{digits}g}")
    return ", ".join(texts)
