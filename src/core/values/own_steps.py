"""Schedules that count a parameter's own steps, from where it joined the run."""

from __future__ import annotations

from typing import TypeGuard

import jax

from .numerics import Steps
from .schedule import Schedule, counted, to_schedule, value_at
from .types import HyperValue
from .value import number, value


@value
class own_steps(Schedule):
    """Count a schedule by each parameter's own steps, from when it joined the run by `add_param_group`.

    The schedule counts the run's steps for parameters that were there from the start, in whole-tree links, in
    `hyperparams`, and when it is called. A chain counts a parameter's own steps from its first slot for that parameter,
    so a chain without slots counts the run's steps.

    >>> import chainax as cx
    >>> tx, one = cx.sgd(cx.own_steps(cx.linear_schedule(2.0, 1.0, 1)), momentum=0.0), jax.numpy.ones(())
    >>> _, state = tx.update({"w": one}, tx.init({"w": one}))
    >>> updates, _ = tx.update({"w": one, "b": one}, tx.add_param_group({"w": one, "b": one}, state))
    >>> updates["w"].item(), updates["b"].item()
    (-1.0, -2.0)
    """

    schedule: HyperValue = number("the schedule", check=to_schedule)

    phrase = "{schedule}, by each parameter's own steps"

    @counted
    def at(self, k):
        return value_at(self.schedule, k)


def has_own_steps(x: HyperValue) -> bool:
    """Whether a field depends on when a parameter joined the run."""
    return any(isinstance(s, own_steps) for s in jax.tree.leaves(x, is_leaf=_is_own))


def after_own(x: Schedule, steps: Steps) -> Schedule:
    """The schedule with each `own_steps` in it replaced by its value after ``steps`` steps."""
    return jax.tree.map(lambda s: s(steps) if _is_own(s) else s, x, is_leaf=_is_own)


def _is_own(x: object) -> TypeGuard[own_steps]:
    return isinstance(x, own_steps)
