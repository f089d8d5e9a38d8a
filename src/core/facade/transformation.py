"""What links and chains have in common: init, update and step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from ..engine import engine
from ..engine.checks import INIT, STEP, UPDATE, check_buffers, check_params, check_roles, rounds_itself
from ..engine.protocol import Links
from ..engine.state import State
from ..engine.storage import storage
from ..values.boxes import as_trained, unboxed
from ..values.contents import code
from ..values.tree import show
from ..values.types import Leaf, Params, Updates
from . import describe, saving, telemetry
from .arrays import ArrayLike
from .differences import differences
from .edits import Edits
from .memory import Memory, memory
from .order import ending, warn_of_ascent
from .saving import Report

if TYPE_CHECKING:
    import optax


class Transformation(Edits):
    """Anything with ``init``, ``update`` and ``step``: a link, or a chain of them."""

    def init(self, params: Params) -> State:
        """The state before the first step, for parameters in any pytree.

        Leaves that are not floating-point or complex arrays get no slots and never change. If the gradient of a
        parameter is ``None`` at some step, that step changes neither the parameter nor its slots. Its bias corrections
        still count the step, so add a parameter that is frozen at first by `add_param_group`.

        Outside ``jit``, slots of sharded parameters lie where `state_sharding` says, and step counters on all devices
        of the mesh. Under ``jit``, pass ``out_shardings=tx.state_sharding(params)``.

        Warns (`ChainWarning`) about a pattern in a table such as `by_path` that decides for no parameter.
        """
        check_params(INIT, self.links, params)
        state = engine.init(self.links, params)
        jax.eval_shape(lambda: telemetry.warn_of_unmatched(self.links, params, state))  # without copying the parameters
        return state

    def state_sharding(self, params: Params) -> Any:
        """The sharding of each array of the state, for ``jax.jit(tx.init, out_shardings=tx.state_sharding(params))``.

        ``params`` are the parameters, or `jax.ShapeDtypeStruct`s with shardings; their mesh may have explicit or
        automatic axes. Returns a tree like the state, with shardings in place of arrays. Each axis of a slot is sharded
        as the axis of the parameter that it follows, also if the slot has fewer axes or is stored in codes; scalars are
        on all devices.

        Errors: ``ValueError`` for shapes without a sharding, for parameters on several meshes, and for tracers on
        automatic axes, whose sharding is not known.

        >>> import chainax as cx
        >>> from jax.sharding import NamedSharding, PartitionSpec as P
        >>> where = NamedSharding(jax.make_mesh((1, 1), ("data", "model")), P("data", "model"))
        >>> params = {"w": jax.ShapeDtypeStruct((512, 512), "float32", sharding=where)}
        >>> state = cx.adafactor(1e-3).state_sharding(params)
        >>> [*state.links["scale_by_factored_rms"]["nu_row"]["w"].spec], [*state.step.spec]
        (['data'], [])
        """
        return jax.tree.map(lambda x: x.sharding, self.abstract_state(params))

    def abstract_state(self, params: Params) -> State:
        """The state with a `jax.ShapeDtypeStruct` in place of each array, with shardings: what Orbax restores into.

        ``params`` and errors as for `state_sharding`. Without a mesh, the sharding is that of the first parameter.
        ``born`` is empty: add the names of the checkpoint if links or parameters have joined.
        """
        call = "abstract_state(params)"
        check_roles(call, params=params)
        return engine.abstract_state(self.links, params)

    def memory(self, params: Params) -> Memory:
        """The bytes that parameters and state take on each device, as a table: a plan before anything is allocated.

        ``params`` are the parameters, or `jax.ShapeDtypeStruct`s, with shardings if there is a mesh. Beside the chain
        as it is, columns show what `store` in bfloat16 and in `int8` would take, `zero1` along the axes of the mesh
        that replicate all parameters, and `offload`, between two steps. Rows are the parameters, the slots and
        residuals of each link, the scales of codes, and counters. Gradients and activations are not part of it.

        Errors: ``ValueError`` for parameters on several meshes.

        >>> import chainax as cx
        >>> plan = cx.adamw(1e-3).memory({"w": jax.ShapeDtypeStruct((1024, 1024), "float32")})
        >>> plan.columns["as it is"]["scale_by_adam.mu"], plan.total("store(tx, 'bfloat16')")
        (4194304, 8388612)
        """
        check_roles("memory(params)", params=params)
        return memory(self, params)

    def update(self, updates: Updates, state: State, params: Params = None, **extra: Any) -> tuple[Updates, State]:
        """Turn gradients into updates, as in Optax. Add them to the parameters by `apply_updates`.

        ``updates`` has the tree and shapes of ``params``; the result has their dtypes too. Links that
        read the parameters need ``params``. Training loops should call `step`: it is faster, and it
        keeps the update in float32 until it is added to the parameter.

        Errors: ``TypeError`` for missing parameters, for trees that do not match (the message says
        where), and for extra arguments that are missing or that no link reads; ``KeyError`` for the
        state of another chain.
        """
        check_buffers(UPDATE, grads=updates, state=state, params=params)
        return engine.update(self.links, updates, state, params, extra)

    def step(self, params: Params, state: State, grads: Updates, **extra: Any) -> tuple[Params, State]:
        """Update the parameters: `update` and `apply_updates` in one pass over the leaves.

        Jit it with ``donate_argnums=(0, 1)``, or call `make_step`: with this order of arguments and results JAX
        reuses the buffers of parameters and state. ``extra`` holds the other arguments that the links read, by
        name, such as ``value``, the loss, or ``grad_fn``. Errors: those of `update`. Warns (`ChainWarning`) about a
        chain of several links if none of them flips the sign of the update.

        Sharded parameters keep their shardings, on a mesh with explicit or automatic axes. Under
        `jax.shard_map` each device has a part of them, which JAX tracks in the types: norms over all parameters are
        then summed over the devices, each part gets its own random numbers, and links that compute with
        rows or columns of a leaf, such as `scale_by_factored_rms`, raise ``TypeError``. With ``check_vma=False`` JAX
        does not track this: norms are those of the part, random numbers are the same on all devices, and a
        `ChainWarning` says so.

        For a complex parameter, ``jax.grad`` returns the conjugate of the direction of ascent. Conjugate it for
        `step` and `update`, and in ``grad_fn``; PyTorch's gradients are already conjugated. The argument ``grad``
        of line searches is what JAX returns, and `minimize` conjugates by itself.

        >>> import chainax as cx, jax.numpy as jnp
        >>> tx, z = cx.sgd(0.5), jnp.array(3 + 4j)
        >>> grads = jax.grad(lambda z: jnp.abs(z - 1j) ** 2)(z)
        >>> params, _ = tx.step(z, tx.init(z), jax.tree.map(jnp.conj, grads))
        >>> complex(params)  # the minimum: here sgd(0.5) takes Newton's step
        1j
        """
        check_buffers(STEP, params=params, state=state, grads=grads)
        warn_of_ascent(self.links)
        return engine.step(self.links, params, state, grads, extra)

    def to_optax(self) -> optax.GradientTransformationExtraArgs:
        """The chain as Optax's type, for ``optax.chain``, ``optax.MultiSteps``, ``nnx.Optimizer`` and type checkers.

        When the program runs these accept chains as they are, except for chains that read extra arguments, which only
        reach transformations of this type. As is usual there, `update` ignores those that the chain does not read.

        Errors: ``TypeError`` for a chain with `apply_update`, which rounds the parameters itself;
        ``ModuleNotFoundError`` without Optax.

        >>> import chainax as cx, optax
        >>> tx = optax.chain(optax.zero_nans(), cx.adamw(1e-3).to_optax())
        """
        try:
            import optax
        except ModuleNotFoundError as e:
            raise ModuleNotFoundError("`to_optax` needs Optax: pip install optax", name=e.name) from None
        if last := next(filter(None, (ending(*pair) for pair in self.links.items())), None):
            raise TypeError(f"`to_optax`: {rounds_itself(last, {})}")
        read = {name for link in self.links.values() for name in link.extra}

        def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
            return self.update(updates, state, params, **{name: x for name, x in extra.items() if name in read})

        return optax.GradientTransformationExtraArgs(self.init, update)  # pyright: ignore[reportArgumentType]

    def lookahead(self, params: Params, state: State, **extra: Any) -> Params:
        """The parameters after a step with zero gradients.

        With momentum this is Nesterov's look-ahead point θ − αμb. His method takes the gradient there:
        ``grads = grad(loss)(tx.lookahead(params, state))`` (Nesterov 1983; Sutskever et al. 2013).
        """
        check_roles("lookahead(params, state)", params=params, state=state)
        check_buffers("lookahead(params, state)", params=params, state=state)
        state = unboxed(state)
        trained = as_trained(params, state)
        return trained.put_back(engine.lookahead(self.links, trained.params, state, trained.arguments(extra)))

    def describe(self, params: Params = None) -> str:
        """The equations, hyperparameters, kind of weight decay and size of the state, as a table.

        With ``params``, the size is that of the state for these parameters, otherwise for float32. It then also
        reports how much of the state belongs to parameters with learning rate 0, and a chain with `freeze` that keeps
        no state for them.
        """
        check_roles("describe(params)", params=params)
        return describe.describe(self.links, params)

    def hyperparams(self, state: State, params: Params = None) -> dict[str, dict]:
        """The numbers that the next step will use, by link and field, with schedules and tables evaluated.

        A table gives a number for each path or, without ``params``, for each of its entries, such as each pattern of
        `by_path` and ``"default"``. Constants remain Python numbers. Chains within links are listed under the keys of
        their states, and count their own steps. Links without hyperparameters are omitted.

        >>> import chainax as cx
        >>> tx = cx.adamw(cx.linear_schedule(0.0, 1.0, 4), weight_decay=cx.by_path({"bias": 0.0}, default=0.1))
        >>> state = tx.init({"bias": jax.numpy.ones(3)})
        >>> numbers = tx.hyperparams(state._replace(step=jax.numpy.array(3)))
        >>> numbers["add_decayed_weights"], numbers["scale_by_lr"]["learning_rate"].item()
        ({'weight_decay': {'bias': 0.0, 'default': 0.1}}, 0.75)
        """
        check_roles("hyperparams(state, params)", state=state, params=params)
        check_buffers("hyperparams(state, params)", state=state)
        state = unboxed(state)
        return telemetry.hyperparams(self.links, state, params if params is None else as_trained(params, state).params)

    def diff(self, other: Transformation) -> str:
        """The differences of ``other``, one per line. Links are matched by name, those within links by path.

        >>> import chainax as cx
        >>> print(cx.adam(1e-3).diff(cx.adamw(1e-4)))
        add_decayed_weights(0.01) is added after scale_by_adam
        scale_by_lr.learning_rate: 0.001 → 0.0001
        """
        if not isinstance(other, Transformation):
            raise TypeError(f"diff compares with another chain or link, got {code(other)}")
        return "\n".join(differences(self.links, other.links)) or "no difference"

    # State that follows checkpoints, edited chains and growing models

    def state_dict(self, state: State) -> dict[str, np.ndarray]:
        """The state as a flat dict of NumPy arrays: ``"step"``, ``"scale_by_adam/mu/encoder/kernel"``, ...

        With parameters sharded over several processes, all processes must call this, also those that do not write the
        file: arrays are gathered one by one, each on every device while it is copied, and every process gets the whole
        state. For a state too large for that, save the arrays of ``state`` shard by shard, as Orbax does.

        Errors: ``ValueError`` if two parameters have the same path, as in ``{"a/b": x, "a": {"b": y}}``, and for arrays
        that lie on devices of other processes only.
        """
        check_roles("state_dict(state)", state=state)
        check_buffers("state_dict(state)", state=state)
        return saving.state_dict(state)

    def load_state_dict(
        self,
        params: Params,
        arrays: Mapping[str, ArrayLike],
        *,
        strict: bool = True,
        old: Transformation | None = None,
        paths: Mapping[str, str] | None = None,
    ) -> tuple[State, Report]:
        """The state for ``params`` with the arrays that `state_dict` returned, and a report of what matched.

        ``arrays`` may also be the nested dict of a state that Orbax or flax restored without a target, on any devices.
        Entries are matched by link, slot and path, so links may have been swapped, inserted or removed
        in between. Arrays are converted to the dtype of the slot, and lie as `state_sharding` says, so the number of
        devices and processes may have changed. All processes that share the parameters must call this, with the same
        arrays. Read untrusted files by ``np.load(file, allow_pickle=False)``: a pickle can run any code.
        With ``strict``, ``params`` may be shapes, as from ``jax.eval_shape``. ``old`` and ``paths`` are those of
        `adopt`. Without them, ``strict`` requires the names that this chain gives to its arrays.

        Errors: with ``strict``, ``KeyError`` unless all entries match; the message lists those that do not.
        """
        call = "load_state_dict(params, arrays)"
        if strict:  # no entry keeps the value that `init` gives it, so shapes are enough
            params = jax.tree.map(_zeros, params)
        check_params(call, self.links, params, arrays=arrays)
        swapped = isinstance(params, Mapping) and "step" in params and "step" not in arrays
        if swapped or not isinstance(arrays, Mapping):
            raise TypeError(f"`{call}` got {show(arrays)} as arrays: give the dict that tx.state_dict(state) returned")
        links = _links_of(call, old)
        return saving.load_state_dict(self.links, params, arrays, strict=strict, old=links, paths=paths)

    def adopt(
        self,
        params: Params,
        state: State,
        *,
        old: Transformation | None = None,
        paths: Mapping[str, str] | None = None,
    ) -> tuple[State, Report]:
        """The state of an edited optimizer, and a report of what it has kept from the ``state`` of another chain.

        Slots are matched by the class of their link, their name and the path of their parameter, in whatever link the
        chain lies and under whatever name: a chain may have been put into a wrapper or taken out of one, and groups may
        have changed. A link of another class goes on with the slots that hold the same (`Link.holds`), as AMSGrad does
        with Adam's. Slots are converted between formats and, for `pack`, `flatten` and `split_complex`, between forms
        of the parameters. What is new is initialized as by `init`, and what no link needs is dropped. A parameter may
        lie in another container under the same path; ``paths`` maps the old paths of renamed parameters to the new.

        Pass the chain that the state is of as ``old``. Without it, names alone say what an array is: those of links
        that are named otherwise than their class are then only found under their own name, codes only in their own
        format, and slots of links without state, such as schedules, do not count.

        A chain continues to count the steps of the old chain from which most of its links come, and so do its
        schedules. Bias corrections of slots that come from elsewhere count on from the steps that these slots have
        seen; those of new slots begin. Within `accumulate` a step is an update, and outside a micro-batch: a chain that
        is put into it or taken out of it counts its updates on. Call `flush` before `accumulate` is taken out, since
        the sum of the pending gradients goes with it.

        Warns (`ChainWarning`) of slots that begin anew although the state has what they hold, with their names and the
        reason. Slots whose link was removed are only in the report.

        Errors: ``KeyError`` if the state is not of the chain ``old``, or a path in ``paths`` is unknown.

        >>> import chainax as cx
        >>> old, params = cx.adam(1e-3), {"w": jnp.ones(2)}
        >>> params, state = old.step(params, old.init(params), {"w": jnp.ones(2)})
        >>> tx = cx.accumulate(old.replace("scale_by_adam", cx.scale_by_amsgrad()), every=2)
        >>> state, report = tx.adopt(params, state, old=old)
        >>> state.links["accumulate"]["tx"].links["scale_by_amsgrad"]["nu"]["w"]
        Array([0.001, 0.001], dtype=float32)
        """
        call = "adopt(params, state)"
        check_params(call, self.links, params, state=state)
        check_buffers(call, state=state)
        return saving.adopt(self.links, params, state, old=_links_of(call, old), paths=paths)

    def add_param_group(self, params: Params, state: State) -> State:
        """The state for ``params`` that have gained or lost leaves during training.

        Pass the entire new tree. Existing parameters keep their slots; new ones get new slots, whose bias
        corrections count from this step, as for a parameter group added to a PyTorch optimizer.
        """
        check_params("add_param_group(params, state)", self.links, params, state=state)
        check_buffers("add_param_group(params, state)", state=state)
        return saving.add_param_group(self.links, params, state)

    def _stored(self, wanted: storage, default: Any) -> Self:
        """The same with its slots in the ``wanted`` formats, and in ``default`` those that have none: see `store`."""
        raise NotImplementedError

    def axes(self) -> Self:
        """For ``jax.vmap(f, in_axes=(tx.axes(), ...))``: 0 for stacked hyperparameters, otherwise ``None``.

        >>> import chainax as cx
        >>> tx = cx.stack([cx.sgd(0.1), cx.sgd(0.2)])
        >>> jax.vmap(lambda tx, x: tx["scale_by_lr"].learning_rate * x, (tx.axes(), None))(tx, 10.0).tolist()
        [1.0, 2.0]
        """
        return jax.tree.map(lambda x: 0 if np.ndim(x) else None, self)


def make_step(tx: Transformation, *, donate: bool = True) -> Step:
    """``tx.step`` compiled: ``step(params, state, grads, **extra) -> (params, state)``.

    With ``donate`` the results reuse the buffers of the parameters and the state that you pass, which you cannot read
    afterwards. A step hangs in a process that was forked after JAX has run: spawn processes instead.
    Errors: those of `Transformation.update`, and ``RuntimeError`` for arrays that were donated to an earlier step.

    >>> import chainax as cx
    >>> tx = cx.sgd(0.5)
    >>> step, params = cx.make_step(tx), jax.numpy.array(1.0)
    >>> step(params, tx.init(params), jax.numpy.array(1.0))[0].item()
    0.5
    """
    check_roles("make_step(tx)", tx=tx)
    return Step(jax.jit(tx.step, donate_argnums=(0, 1) if donate else ()))


class Step:
    """A compiled step, as `make_step` returns it. Its error for donated arrays says which they are."""

    jitted: jax.stages.Wrapped

    def __init__(self, jitted: jax.stages.Wrapped) -> None:
        self.jitted = jitted

    def __call__(self, params: Params, state: State, grads: Updates, **extra: Any) -> tuple[Params, State]:
        try:
            return self.jitted(params, state, grads, **extra)
        except (RuntimeError, ValueError):
            check_buffers(STEP, params=params, state=state, grads=grads)
            raise

    def lower(self, params: Params, state: State, grads: Updates, **extra: Any) -> jax.stages.Lowered:
        """The step lowered for these arguments, as by ``jax.jit(tx.step).lower``."""
        return self.jitted.lower(params, state, grads, **extra)

    def __getattr__(self, name: str) -> Any:
        """What else a jitted function has, such as ``trace``."""
        if name == "jitted":  # not set yet, as while unpickling
            raise AttributeError(name)
        return getattr(self.jitted, name)


def _links_of(call: str, old: object) -> Links | None:
    """The links of the chain passed as ``old``."""
    if old is None or isinstance(old, Transformation):
        return None if old is None else old.links
    raise TypeError(f"`{call}` got {show(old)} as old: old must be the chain that made the state, a chain or a link")


def _zeros(x: Leaf) -> Leaf:
    """Zeros if ``x`` is only a shape."""
    if not isinstance(x, jax.ShapeDtypeStruct):
        return x
    return jnp.zeros(x.shape, x.dtype, device=x.sharding)
