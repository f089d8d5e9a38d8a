"""Flax's training states with chains: linen's `TrainState` and nnx's `Optimizer`, which call `step`.

Flax's own classes accept chains too, but they add updates that are already rounded. These pass the parameters to the
chain, so that `apply_update` can round them and links get the extra arguments that they read. This module needs flax,
and `import chainax` does not import it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.nnx.training.optimizer import to_opt_state
from flax.training import train_state

from .core.engine.checks import check_entries
from .core.engine.state import State
from .core.facade.transformation import Transformation
from .core.values.boxes import unboxed
from .core.values.contents import is_array
from .core.values.tree import show
from .core.values.types import Params, Updates

__all__ = ["Optimizer", "TrainState"]

M = TypeVar("M")


class TrainState(train_state.TrainState):
    """`flax.training.train_state.TrainState` for a chain. It may be subclassed in the same way, to add fields.

    >>> import chainax as cx, jax.numpy as jnp
    >>> from chainax.flax import TrainState
    >>> params = grads = {"scale": jnp.ones((), jnp.bfloat16)}
    >>> tx = cx.chain(cx.sgd(1e-3), cx.apply_update("kahan"))
    >>> state = TrainState.create(apply_fn=None, params=params, tx=tx)
    >>> for _ in range(100):
    ...     state = state.apply_gradients(grads=grads)
    >>> state.params["scale"].item()  # with rounding to nearest it would still be 1
    0.8984375
    """

    opt_state: State = struct.field(pytree_node=True)  # pyright: ignore[reportIncompatibleVariableOverride]
    """The chain's state, which `recorded`, `read_average` and others read."""
    tx: Transformation = struct.field(pytree_node=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    """The chain, a constant of compiled functions. To edit it, replace it together with the state::

        edited = state.tx.replace("scale_by_lr", learning_rate=1e-4)
        state = state.replace(tx=edited, opt_state=edited.adopt(state.params, state.opt_state, old=state.tx)[0])
    """

    @classmethod
    def create(cls, *, apply_fn: Callable[..., Any] | None, params: Params, tx: Transformation, **fields: Any) -> Self:
        """A new instance, with the chain's first state. ``fields`` are those that a subclass adds.

        Errors: ``TypeError`` for a ``tx`` that is not a chain; those of `Transformation.init`.
        """
        _check_chain("TrainState.create", tx)
        return super().create(apply_fn=apply_fn, params=params, tx=tx, **fields)

    def apply_gradients(self, *, grads: Updates, **others: Any) -> Self:
        """The state after a step: `Transformation.step` with these gradients.

        ``others`` are new values of fields that a subclass adds, and extra arguments that the chain reads, such as
        ``value``, the loss.

        Errors: those of `Transformation.step`, and ``TypeError`` for a field with the name of an extra argument.
        """
        fields = {field.name for field in dataclasses.fields(self)}
        for name, link in self.tx.links.items():
            if both := fields & {*link.extra}:
                raise TypeError(
                    f"{type(self).__name__} has a field {min(both)!r}, and link {name!r} reads an extra argument of "
                    "that name: rename the field"
                )
        extra = {name: x for name, x in others.items() if name not in fields}
        params, opt_state = self.tx.step(_trained(self.params), self.opt_state, _trained(grads), **extra)
        if _overwrites(grads):
            params = {"params": params, OVERWRITE_WITH_GRADIENT: grads[OVERWRITE_WITH_GRADIENT]}
        replaced = {name: x for name, x in others.items() if name in fields}
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **replaced)


class Optimizer(nnx.Optimizer[M]):
    """`flax.nnx.Optimizer` for a chain.

    ``wrt`` selects the variables to train, and must be the filter that `nnx.grad` was given. ``opt_state`` is the state
    to go on from, as `Transformation.adopt` and `Transformation.load_state_dict` return it; by default a new one. To
    edit the chain of a run::

        params = nnx.state(model, nnx.Param)
        edited = optimizer.tx.insert(cx.clip(1.0), before="scale_by_adam")
        opt_state, report = edited.adopt(params, optimizer.opt_state, old=optimizer.tx)
        optimizer = Optimizer(model, edited, wrt=nnx.Param, opt_state=opt_state)

    Numbers of the chain are constants of functions compiled by `nnx.jit`, except for those that are arrays.

    Errors: ``TypeError`` for a ``tx`` that is not a chain; those of `Transformation.init`.

    >>> import chainax as cx, jax.numpy as jnp
    >>> from chainax.flax import Optimizer
    >>> from flax import nnx
    >>> model = nnx.Linear(1, 1, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    >>> tx = cx.chain(cx.adamw(1e-4), cx.apply_update("stochastic"))
    >>> optimizer = Optimizer(model, tx, wrt=nnx.Param)
    >>> grads = nnx.grad(lambda model: jnp.sum(model(jnp.ones((1, 1), jnp.bfloat16))))(model)
    >>> optimizer.update(model, grads)
    >>> optimizer.opt_state.step[...].item()
    1
    """

    tx: Transformation  # pyright: ignore[reportIncompatibleVariableOverride]
    opt_state: State

    def __init__(
        self, model: M, tx: Transformation, *, wrt: Any, graph: bool | None = None, opt_state: State | None = None
    ) -> None:
        _check_chain("Optimizer", tx)
        super().__init__(model, optax.identity(), wrt=wrt, graph=graph)
        self.tx = nnx.data(tx) if any(map(is_array, jax.tree.leaves(tx))) else tx
        state = tx.init(nnx.state(model, wrt, graph=graph)) if opt_state is None else opt_state
        check_entries(tx.links, unboxed(state), None)
        self.opt_state = nnx.data(jax.tree.map(_boxed, state, is_leaf=_is_variable))
        self.step[...] = jnp.asarray(state.step[...], jnp.uint32)

    def update(self, model: M, grads: Updates, /, **extra: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step in place: `Transformation.step` moves the parameters of ``model`` and this state.

        ``extra`` holds the extra arguments that the chain reads, such as ``value``, the loss. Functions among them, as
        ``grad_fn``, take the parameters as ``nnx.state(model, wrt)`` without variables; ``nnx.merge(graphdef, params,
        others)`` makes a model of them. Returns nothing, in place of the updates: `record` measures them.

        Errors: those of `Transformation.step`. Model and state are then as before.
        """
        params = nnx.as_pure(nnx.state(model, self.wrt, graph=self.graph))
        updates = nnx.as_pure(nnx.state(grads, self.wrt, graph=self.graph))
        params, state = self.tx.step(params, nnx.as_pure(self.opt_state), updates, **nnx.as_pure(extra))
        nnx.update(model, params)
        nnx.update(self.opt_state, nnx.state(state, graph=self.graph))
        self.step[...] += 1


def _check_chain(call: str, tx: object) -> None:
    if not isinstance(tx, Transformation):
        remedy = "write cx.from_optax(tx), or use flax's own class" if hasattr(tx, "update") else "give it a chain"
        raise TypeError(f"`{call}` got {show(tx)} as tx: {remedy}")


def _is_variable(x: object) -> bool:
    return isinstance(x, nnx.Variable)


def _boxed(x: Any) -> Any:
    """A part of a state as nnx's variables. Those for a slot like a parameter have the metadata of the parameter's.

    A variable for each array: nnx makes a `State` of a dict in a variable, such as the codes of a slot.
    """
    if not _is_variable(x):
        return nnx.OptArray(x)
    value, names = x.get_value(), x.get_metadata().get("out_sharding")
    if isinstance(value, jax.Array) and (names is None or len(names) == value.ndim):
        return to_opt_state(x)
    return jax.tree.map(nnx.OptArray, value)


def _overwrites(tree: Params) -> bool:
    """Whether the tree has parameters whose gradient is their next value, as those of linen's fp8 layers."""
    return isinstance(tree, Mapping) and OVERWRITE_WITH_GRADIENT in tree


def _trained(tree: Params) -> Params:
    """The part of a tree that the chain moves."""
    return tree["params"] if _overwrites(tree) else tree
