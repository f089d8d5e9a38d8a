"""Chains that run only at some steps, or start over at some."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...core.engine import engine
from ...core.engine.state import State
from ...core.engine.step_info import StepInfo
from ...core.facade.link import transform
from ...core.facade.order import ending
from ...core.values.conditions import choose
from ...core.values.hyper import Hyper, check_hyper, hyper
from ...core.values.schedule import Schedule, from_function
from ...core.values.types import Params, PyTree, TreeDef
from ...core.values.value import Range, Value, child, derived, number, static, value
from ..shared.wrappers import ConditionalWrapper, Wrapper, as_chains_return, forwarded_arguments


@value
class predicate(from_function):
    """A function from the step to a bool, as a schedule of 1 and 0. Links wrap plain functions in it themselves."""

    def check(self) -> None:
        try:
            yes_or_no = jax.eval_shape(self.function, jax.ShapeDtypeStruct((), jnp.int32))
        except Exception:
            yes_or_no = None
        if (getattr(yes_or_no, "shape", None), getattr(yes_or_no, "dtype", None)) != ((), jnp.bool_):
            super().check()


def check_condition(where: str, x: Any, limits: Range) -> Any:
    """``x`` as a hyperparameter; functions of the step may return bools."""
    if callable(x) and not isinstance(x, (Value, Schedule)):
        try:
            return predicate(x)
        except ValueError as e:
            raise ValueError(f"`{where}`: {e}") from e.__cause__
    return check_hyper(where, x, limits)


def condition() -> Any:
    """The field for the steps at which a chain runs."""
    return number(
        "the chain runs if this is not 0: a schedule, or a function of the step",
        default=1.0,
        symbol="c",
        check=check_condition,
    )


@transform
class conditionally_mask(ConditionalWrapper):
    """Run a chain if a condition holds. Otherwise the update is 0, and nothing moves.

    The condition is a schedule, or a function from the number of steps so far to a bool. With ``argument``,
    the extra argument of that name, a bool, must be true as well. If the chain does not run, neither its state
    nor its step counter changes: its schedules count the steps at which it runs.
    """

    tx: Any = child("the chain")
    condition: Hyper = condition()
    argument: str = static("name of an extra argument that must be true as well", default="")

    equation = "u ← tx(u) if c ≠ 0, else 0"

    def check(self) -> None:
        super().check()
        if not isinstance(self.argument, str):
            raise ValueError(f"`{type(self).__name__}.argument` must be the name of an argument, got {self.argument!r}")

    @derived
    def extra(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().extra, *([self.argument] if self.argument else []))))

    def decide(self, updates, state, at):
        holds = jnp.asarray(self.condition != 0)
        return state, holds & jnp.asarray(at.extra[self.argument]).astype(bool) if self.argument else holds


@transform
class conditionally_transform(conditionally_mask):
    """Run a chain if a condition holds. Otherwise pass on the update unchanged.

    Conditions and step counts are as for `conditionally_mask`.

    >>> import chainax as cx
    >>> tx, g = cx.conditionally_transform(cx.clip(1.0), lambda k: k < 1), jax.numpy.array(3.0)
    >>> first, state = tx.update(g, tx.init(g))
    >>> first.item(), tx.update(g, state)[0].item()
    (1.0, 3.0)
    """

    equation = "u ← tx(u) if c ≠ 0, else u"
    undoes_itself = False  # at the other steps the parameters move too

    def check(self) -> None:
        super().check()
        for name, link in self.tx.links.items():
            if link.final_rounding is None and (inside := ending(name, link)):
                raise ValueError(
                    f"`conditionally_transform.tx`: {inside!r} in {name!r} cannot round updates that bypass the chain: "
                    f"put the condition inside: {type(link).__name__}(conditionally_transform(...))"
                )

    def idle_step(self, params, updates, inner, at):
        # The chain's last link still determines how parameters are rounded. The chain's count does not advance, so
        # its random numbers are drawn for the negative of this link's count, which no other step has.
        last = {name: link for name, link in self.tx.links.items() if link.final_rounding is not None}
        residuals = {name: inner.links[name] for name in last if name in inner.links}
        alone = State(-at.count, residuals, {})
        params, after = engine.step(last, params, alone, updates, {})
        return params, inner._replace(links={**inner.links, **after.links})

    def idle_update(self, updates, params):
        return as_chains_return(updates, params)


@transform
class restart(Wrapper):
    """Initialize a chain's state again after every k-th step: its slots and its step count.

    This happens at the start of the next step, so links that keep a copy of the parameters copy their values then.
    """

    tx: Any = child("the chain")
    every: Hyper = hyper("k", "steps from one start to the next", low=1.0)

    equation = "tx starts over if (t−1) mod k = 0,  u ← tx(u)"
    reads_params = True

    def step_tree(self, params, state, updates, at):
        inner = self.renewed(state["tx"], params, at)
        params, inner = engine.step(self.tx.links, params, inner, updates, forwarded_arguments(self.tx, at.extra))
        return params, {"tx": inner}

    def update_tree(self, updates, state, params, at):
        inner = self.renewed(state["tx"], params, at)
        updates, inner = self.tx.update(updates, inner, params, **forwarded_arguments(self.tx, at.extra))
        return updates, {"tx": inner}

    def renewed(self, state: State, params: Params, at: StepInfo) -> State:
        """The chain's state before the step."""
        due = (at.count > 1) & (at.phase(self.every, 1.0) < 1)

        def first(_: jax.Array | None) -> State:
            new = _with_born_of(engine.init(self.tx.links, params), state)
            return new if _avals(new) == _avals(state) else state  # then the engine raises an error that says why

        return choose(due, first, lambda: state)


def _with_born_of(new: PyTree, old: PyTree) -> PyTree:
    """A first state with the ``born`` of an old one at 0, so that parameters that joined late start with the others."""
    if isinstance(new, State) and isinstance(old, State):
        return State(new.step, _with_born_of(new.links, old.links), jax.tree.map(jnp.zeros_like, old.born))
    if type(new) is dict and type(old) is dict:  # not the containers of parameters, which may be other dict types
        return {name: _with_born_of(new.get(name), x) for name, x in old.items()}
    return new


def _avals(state: State) -> tuple[TreeDef, list]:
    """The structure, shapes and dtypes of a state."""
    leaves, treedef = jax.tree.flatten(state)
    return treedef, [(jnp.shape(x), x.dtype) for x in leaves]
