"""What links and chains have in common: init, update and step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..engine import engine
from ..engine.checks import INIT, STEP, UPDATE, check_buffers, check_params, check_roles
from ..engine.protocol import Links
from ..engine.state import State
from ..values.tree import show
from ..values.value import Value
from . import describe, saving, telemetry
from .order import warn_of_ascent
from .saving import Report


class Transformation(Value):
    """Anything with ``init``, ``update`` and ``step``: a link, or a chain of them."""

    @property
    def links(self) -> Links:
        """The links by name, in order."""
        raise NotImplementedError

    def init(self, params: Any) -> State:
        """The state before the first step, for parameters in any pytree.

        Leaves that are not floating-point or complex arrays get no slots and are never changed. A
        parameter whose gradient is ``None`` at some step is left alone at that step, slots and all; its
        bias corrections count the step, so one that is frozen at first should join by `add_param_group`.

        Warns (`ChainWarning`) of a `by_path` pattern that decides for no parameter.
        """
        check_params(INIT, self.links, params)
        state = engine.init(self.links, params)
        jax.eval_shape(lambda: telemetry.warn_of_unmatched(self.links, params, state))  # without copying the parameters
        return state

    def update(self, updates: Any, state: State, params: Any = None, **extra: Any) -> tuple[Any, State]:
        """Turn gradients into updates, as in Optax: to be added to the parameters by `apply_updates`.

        ``updates`` has the tree and shapes of ``params``; the result has their dtypes too. Links that
        read the parameters need ``params``. Training loops should call `step`: it is faster, and
        keeps the update in float32 until it meets the parameter.

        Errors: ``TypeError`` for missing parameters, trees that do not match (the message says
        where), extra arguments that no link reads and those that are missing; ``KeyError`` for the
        state of another chain.
        """
        check_buffers(UPDATE, grads=updates, state=state, params=params)
        return engine.update(self.links, updates, state, params, extra)

    def step(self, params: Any, state: State, grads: Any, **extra: Any) -> tuple[Any, State]:
        """Update the parameters: `update` and `apply_updates` in one pass over the leaves.

        Jit it with ``donate_argnums=(0, 1)``, or call `make_step`: the argument order is the one in
        which JAX reuses the buffers of parameters and state. ``extra`` is what the links read besides, by
        name: ``value``, the loss, or ``grad_fn``. Errors: those of `update`. Warns (`ChainWarning`) of a chain
        of several links of which none flips the sign of the update.

        Sharded parameters keep their shardings, on a mesh with explicit or automatic axes. Under
        `jax.shard_map` each device has a part of them, which JAX's types show: norms of the whole tree are then
        added up over the devices, random draws differ from part to part, and links that compute with
        a whole leaf, such as `scale_by_trust_ratio`, are refused with ``TypeError``. With ``check_vma=False`` the
        types show nothing: norms are those of the part, and draws are the same on all devices.

        For a complex parameter, ``jax.grad`` returns the conjugate of the direction of ascent. Conjugate it for
        `step` and `update`, and in ``grad_fn``; PyTorch's gradients are conjugated already. The argument ``grad``
        of line searches is what JAX returns, and `minimize` conjugates by itself.

        >>> import chainax as cx, jax.numpy as jnp
        >>> tx, z = cx.sgd(0.5), jnp.array(3 + 4j)
        >>> grads = jax.grad(lambda z: jnp.abs(z - 1j) ** 2)(z)
        >>> params, _ = tx.step(z, tx.init(z), jax.tree.map(jnp.conj, grads))
        >>> complex(params)  # the minimum, where sgd(0.5) is Newton's step
        1j
        """
        check_buffers(STEP, params=params, state=state, grads=grads)
        warn_of_ascent(self.links)
        return engine.step(self.links, params, state, grads, extra)

    def lookahead(self, params: Any, state: State, **extra: Any) -> Any:
        """Where the parameters would coast to if the next gradient were zero.

        With momentum this is Nesterov's look-ahead point θ − αμb, at which his gradient is taken:
        ``grads = grad(loss)(tx.lookahead(params, state))`` (Nesterov 1983; Sutskever et al. 2013).
        """
        check_roles("lookahead(params, state)", params=params, state=state)
        check_buffers("lookahead(params, state)", params=params, state=state)
        return engine.lookahead(self.links, params, state, extra)

    def describe(self, params: Any = None) -> str:
        """The equations, hyperparameters, kind of weight decay and size of the state, as a table.

        With ``params``, the state's size is that for these parameters; else for float32. It then says, too, how
        much of it is for parameters whose learning rate is 0, and which chain with `freeze` has no state for them.
        """
        check_roles("describe(params)", params=params)
        return describe.describe(self.links, params)

    def hyperparams(self, state: State, params: Any = None) -> dict[str, Any]:
        """The numbers that the next step will use, by link and field: schedules and tables resolved.

        Of a `by_path` table, the number of each path; without ``params`` that of each pattern, and
        ``"default"``. Constants stay Python numbers. The chains in other links follow by the keys of
        their states, and count their own steps. Links without hyperparameters are left out.

        >>> import chainax as cx
        >>> tx = cx.adamw(cx.linear_schedule(0.0, 1.0, 4), weight_decay=cx.by_path({"bias": 0.0}, default=0.1))
        >>> state = tx.init({"bias": jax.numpy.ones(3)})
        >>> numbers = tx.hyperparams(state._replace(step=jax.numpy.array(3)))
        >>> numbers["add_decayed_weights"], numbers["scale_by_lr"]["learning_rate"].item()
        ({'weight_decay': {'bias': 0.0, 'default': 0.1}}, 0.75)
        """
        check_roles("hyperparams(state, params)", state=state, params=params)
        check_buffers("hyperparams(state, params)", state=state)
        return telemetry.hyperparams(self.links, state, params)

    # State that follows checkpoints, edited chains and growing models

    def state_dict(self, state: State) -> dict[str, np.ndarray]:
        """The state as a flat dict of NumPy arrays: ``"step"``, ``"scale_by_adam/mu/encoder/kernel"``, ...

        Errors: ``ValueError`` if two parameters have the same path, as ``{"a/b": x, "a": {"b": y}}`` have.
        """
        check_roles("state_dict(state)", state=state)
        check_buffers("state_dict(state)", state=state)
        return saving.state_dict(state)

    def load_state_dict(self, params: Any, arrays: Mapping[str, Any], *, strict: bool = True) -> tuple[State, Report]:
        """The state for ``params`` with the arrays that `state_dict` returned, and a report of what matched.

        Entries are found by link, slot and path, so links may have been swapped, inserted or removed
        in between. Arrays are converted to the dtype that the slot has here. What a stranger wrote is to be read by
        ``np.load(file, allow_pickle=False)``: a pickle runs any code.
        With ``strict`` the shapes of the parameters will do, as of ``jax.eval_shape``.

        Errors: with ``strict``, ``KeyError`` unless all entries match; the message lists those that do not.
        """
        call = "load_state_dict(params, arrays)"
        if strict:  # then nothing is left as `init` makes it
            params = jax.tree.map(_zeros, params)
        check_params(call, self.links, params, arrays=arrays)
        swapped = isinstance(params, Mapping) and "step" in params and "step" not in arrays
        if swapped or not isinstance(arrays, Mapping):
            raise TypeError(f"`{call}` got {show(arrays)} as arrays: give the dict that tx.state_dict(state) returned")
        return saving.load_state_dict(self.links, params, arrays, strict=strict)

    def adopt(self, params: Any, state: State) -> tuple[State, Report]:
        """Carry the state of another chain over to this one: what both have is kept, the rest begins at this step.

        Bias corrections and first-step rules of fresh slots count from here; schedules count on.
        """
        check_params("adopt(params, state)", self.links, params, state=state)
        check_buffers("adopt(params, state)", state=state)
        return saving.adopt(self.links, params, state)

    def add_param_group(self, params: Any, state: State) -> State:
        """The state for ``params`` that have gained (or lost) leaves in mid-training, as `adopt` makes it.

        Give the whole new tree. Parameters that were there keep their slots; new ones get fresh slots,
        which begin at this step, as those of a parameter group added to a PyTorch optimizer.
        """
        check_params("add_param_group(params, state)", self.links, params, state=state)
        check_buffers("add_param_group(params, state)", state=state)
        return saving.add_param_group(self.links, params, state)

    def axes(self) -> Any:
        """For ``jax.vmap(f, in_axes=(tx.axes(), ...))``: 0 for stacked hyperparameters, else ``None``.

        >>> import chainax as cx
        >>> tx = cx.stack([cx.sgd(0.1), cx.sgd(0.2)])
        >>> jax.vmap(lambda tx, x: tx["scale_by_lr"].learning_rate * x, (tx.axes(), None))(tx, 10.0).tolist()
        [1.0, 2.0]
        """
        return jax.tree.map(lambda x: 0 if np.ndim(x) else None, self)


def make_step(tx: Transformation, *, donate: bool = True) -> Any:
    """``tx.step`` compiled: ``step(params, state, grads, **extra) -> (params, state)``.

    With ``donate`` the buffers of the parameters and the state that you pass are reused for those that
    you get back, and cannot be read afterwards. In a process forked after JAX has run, a step hangs: spawn processes.
    Errors: those of `Transformation.update`, and ``RuntimeError`` for arrays that were donated before.

    >>> import chainax as cx
    >>> tx = cx.sgd(0.5)
    >>> step, params = cx.make_step(tx), jax.numpy.array(1.0)
    >>> step(params, tx.init(params), jax.numpy.array(1.0))[0].item()
    0.5
    """
    check_roles("make_step(tx)", tx=tx)
    return _Step(jax.jit(tx.step, donate_argnums=(0, 1) if donate else ()))


class _Step:
    """A compiled step, whose error for arrays that were donated says which they are."""

    compiled: Any = None

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled

    def __call__(self, params: Any, state: State, grads: Any, **extra: Any) -> tuple[Any, State]:
        try:
            return self.compiled(params, state, grads, **extra)
        except (RuntimeError, ValueError):
            check_buffers(STEP, params=params, state=state, grads=grads)
            raise

    def __getattr__(self, name: str) -> Any:  # lower, trace
        return getattr(self.compiled, name)


def _zeros(x: Any) -> Any:
    """An array in place of its shape."""
    if not isinstance(x, jax.ShapeDtypeStruct):
        return x
    return jnp.zeros(x.shape, x.dtype, device=x.sharding)
