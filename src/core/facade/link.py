"""What a link is: slots, scalars and a leaf function. The engine owns everything else."""

from __future__ import annotations

import dataclasses
import inspect
from abc import abstractmethod
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, TypeVar, dataclass_transform, final

import jax
import jax.numpy as jnp

from ..engine.protocol import Visit
from ..engine.rounding import Rounding
from ..engine.step_info import StepInfo
from ..engine.storage import storage
from ..values import tree
from ..values.hyper import by_path, hyper
from ..values.numerics import is_zero, mul
from ..values.value import child, number, static, value
from .declared import check_class, check_hooks, contract
from .holes import shield
from .transformation import Transformation

L = TypeVar("L", bound="Link")


@contract
class Link(Transformation):
    """One transformation in a chain. Derive from `Leafwise`, or from `Treewise` for the exceptions.

    What follows are declarations: a class sets those that differ, ``slots = ("mu",)``, without an annotation, and a
    property takes the place of one that depends on fields. They are checked by `transform`.
    """

    slots: tuple[str, ...] = ()
    """Names of what the link keeps for every parameter. Those of a `Treewise` link are keys of its state, which is then
    a dict, and each holds a tree like the parameters."""
    nonnegative: tuple[str, ...] = ()
    """Slots, and other entries of the state, that hold no negative numbers. `int8` has finer codes for such slots."""
    absent: Mapping[str, str | None] = {}
    """For states that were stored before a slot, or another entry, existed: the slot that it starts as a copy of, or
    ``None`` to start it as `init` does. Any other missing slot makes the link start afresh."""
    equation: str = ""
    """What the leaf function does to the update ``u`` of a parameter ``θ``, as a line of mathematics."""
    role: str = "other"
    """What the link is for: one of `order.ROLES`. The order of roles gives a chain its meaning."""
    bounds_size: bool = False
    """Whether the link compares the size of the updates with a bound of its own."""
    hides_infinite: bool = False
    """Whether infinite updates leave the link as finite ones."""
    refuses_nonfinite: bool = False
    """Whether no step is taken where an update is infinite or NaN."""
    fixes_norm: bool = False
    """Whether all updates leave the link with one norm, as a sign does."""
    inner_updates_differ: bool = False
    """Whether the chains that the link holds get other updates than it does: a mean, a projection or some of them."""
    undoes_scale: bool = False
    """Whether a factor that all updates come with does not change the result, as where they are divided by their
    norm."""
    reads_params: bool = False
    """Whether the parameters must be passed to ``update``."""
    needs_all_updates: bool = False
    """Whether the whole tree of updates must be known before the first leaf, as for a global norm."""
    treewise: bool = False
    joins: str = ""
    """If several parameters share one slot array: the first letters of a key in the link's entry of the state that
    identifies them. Its other letters differ from one set of parameters to the next, and stored slots are loaded for
    parameters of the same key only."""
    factor_field: str = ""
    """The field that is a factor of all updates, if there is one: where it is 0 they are 0, where it is negative they
    are turned round."""
    decay_field: str = ""
    """The field that is a weight decay, if there is one: where it is 0 there is none."""
    extra: tuple[str, ...] = ()
    """Names of the extra arguments of ``update`` that the link reads, as ``at.extra[name]``."""
    knows_shards: bool = False
    """Whether the link is right where `jax.shard_map` gives each device a part of a leaf: what it sums over a leaf's
    numbers is added up over the devices. Leaf functions that treat every number alone need not say so."""
    per_example: bool = False
    """Whether the updates come with a leading axis of examples, which this link, the first, reduces."""
    no_reverse_mode: str = ""
    """Why reverse-mode derivatives, and so hypergradients, do not pass through the link, if they do not."""
    final_rounding: Rounding | None = None
    """How the chain that the link ends rounds parameters, if the link says so: see `apply_update`. Such a link keeps
    nothing but the residual, and has a field ``seed: Any = prng_seed(...)`` where the rounding is random."""

    @property
    def links(self) -> dict[str, Link]:
        return {type(self).__name__: self}

    @property
    def inner(self) -> dict[str, Transformation]:
        """The chains that the link holds, by field, or by pattern where they stand in a table."""
        found: dict[str, Transformation] = {}
        for field in self._leaves:
            given = getattr(self, field)
            if isinstance(given, Transformation):
                found[field] = given
            elif isinstance(given, by_path) and not given.of_numbers:
                found |= given.table | ({} if given.default is None else {"default": given.default})
        return found

    def visit(self, visit: Visit, params: Any, entry: Any) -> dict[str, Any]:
        """Call ``visit(chain, params, state)`` for each chain that the link holds, with the parameters as it sees them.

        ``entry`` is the link's entry of the state, and holds the chains' states. Returns the trees that ``visit``
        returns, by name, in the form of the link's own parameters.
        """
        return {}


@contract
class Leafwise(Link):
    """A link that treats every leaf alone, once its scalars are known.

    A subclass writes `leaf`, and at most `init_leaf` (if slots do not start at zero), `scalars` and the hooks of its
    global state. In all of them a hyperparameter such as ``self.b1`` is already the number for this step and path: a
    Python float, or a scalar of the dtype that the leaf is computed in. They run while JAX traces the step.

    A parameter whose gradient is ``None`` at a step, and what is not floating-point, does not come to `leaf`: it stays
    as it is, slots included.
    """

    scaling: bool = False
    """Whether the link multiplies all updates by one number: see `Scaling`."""
    can_reject: bool = False
    """Whether `accepts` may refuse the step."""
    lagged: tuple[str, ...] = ()
    """The slots of which the update, or another slot, is made as they were before the step, and not as they are after.
    They are written last, so that XLA need not copy them."""
    reads_grads: bool = False
    """Whether the leaf function reads ``slot.grad``, the gradient as it came into the chain (or out of its
    `per_example` link)."""
    random: bool = False
    """Whether the leaf function reads ``slot.key``, a PRNG key of this step and leaf. Needs a field
    ``seed: Any = prng_seed(...)``."""

    def init_leaf(self, p: jax.Array) -> dict[str, jax.Array] | None:
        """The slots' first values for one parameter. Called by ``init``, for every floating-point or complex leaf.

        Args:
            p: the parameter as it is, in its own shape and dtype; under ``jax.eval_shape`` a tracer.

        Returns an array for each name in ``slots``; ``None`` if this parameter needs none. A slot has the shape of
        ``p``, or any other that depends on shape and dtype alone, and float32 or wider: see `slot_like`, the default.
        For complex ``p`` slots of its shape are complex; of any other shape count a last axis of 2 more.
        Refused: other names than those in ``slots``.
        """
        return {name: slot_like(p) for name in self.slots}

    def init_global_state(self) -> dict[str, jax.Array]:
        """Scalars that the link keeps for the whole tree, by name; none by default. Called by ``init``, once."""
        return {}

    def update_global_state(self, at: StepInfo) -> dict[str, jax.Array]:
        """The next ``at.global_state``. Called once a step, after `accepts` and before `scalars`, which see the old.

        It is kept also where the step is not taken, unless a link of an earlier pass has refused it.

        Args:
            at: the step, for the whole tree; ``at.accepted`` is what `accepts` has returned.

        Returns the entries of ``at.global_state``, all of them and no others, in their shapes.
        """
        return at.global_state

    def accepts(self, at: StepInfo) -> jax.Array:
        """Whether the step may be taken. Called once a step, before all leaves, if ``can_reject``.

        Args:
            at: the step, for the whole tree.

        Returns a boolean scalar. Where it is False, parameters and state stay as they are, global states excepted.
        """
        raise NotImplementedError

    @property
    def formats(self) -> storage | None:
        """How the slots are stored, if not as they are."""
        return vars(self).get("storage")

    def __repr__(self) -> str:
        plain = super().__repr__()
        return f"store({plain}, {self.formats.arguments()})" if self.formats else plain

    def scalars(self, at: StepInfo) -> Any:
        """Numbers that leaves share. Called once a step for each group of leaves with the same hyperparameters.

        Args:
            at: the step, as these leaves see it. ``at.global_norm()`` and ``at.all_finite()`` need
                ``needs_all_updates``, and ``at.extra[name]`` needs the name in ``extra``.

        Returns any tree of scalar arrays and Python numbers, which is what `leaf` gets; ``None`` by default.
        """
        return None

    @abstractmethod
    def leaf(self, u: jax.Array, slot: SimpleNamespace, p: jax.Array, scalars: Any, /) -> Any:
        """One leaf's way through the link. Traced once for leaves of one shape, dtype and group.

        Args:
            u: the update, real, in float32, or float64 if the parameter has it. Complex numbers are pairs along a
                last axis of 2.
            slot: the slots by name, ``slot.mu``, of that dtype; also ``slot.grad`` (with ``reads_grads``) and
                ``slot.key`` (with ``random``).
            p: the parameter, of shape and dtype of ``u``; ``None`` where ``update`` was called without parameters,
                which ``reads_params`` forbids.
            scalars: what `scalars` has returned.

        Returns the update, and with slots a dict of all of them: ``u, {"mu": m}``. All keep their shapes; slots are
        stored in the dtypes that they had. Must be elementwise, or at least treat the axes alike.
        """
        raise NotImplementedError


@contract
class Scaling(Leafwise):
    """A link that multiplies all updates by one number: a subclass writes `factor`.

    The engine knows what that does to a norm, so links that need one may follow in the same pass.
    """

    scaling = True

    @abstractmethod
    def factor(self, at: StepInfo) -> Any:
        """The number for this step, a Python number or a scalar array; ``at`` as in `Leafwise.scalars`."""
        raise NotImplementedError

    @final
    def scalars(self, at):
        return self.factor(at)

    def leaf(self, u, slot, p, scalars, /) -> Any:
        return mul(scalars, u)


@contract
class Treewise(Link):
    """A link that needs whole matrices or the whole tree at once: a subclass writes `update_tree`.

    Where it keeps anything, it writes `init_tree` too. Hyperparameters are numbers, as for `Leafwise`, and may not
    be ``by_path``. `VectorLink` is for links that treat all parameters as one vector.

    Unless it declares ``sees_holes``, all trees that its hooks get have ``None`` in the same places, which
    ``jax.tree.map`` passes over: where an optimizer acts on no parameter, as it is not floating-point, and where there
    is no gradient at this step. What it returns is completed: such a parameter stays as it is, and so do its slots,
    those trees of the state that ``slots`` names. Where no parameter has a gradient the link is not called.
    """

    treewise = True
    moves_params: bool = False
    """Whether the link, where it ends a chain, moves the parameters itself, by `step_tree`."""
    widens: bool = False
    """Whether `update_tree` gets updates as they come, and widens them itself."""
    sees_holes: bool = False
    """Whether the hooks get the trees as they are, integers included, and deal with missing gradients themselves."""

    def init_tree(self, params: Any) -> Any:
        """The first state. Called by ``init``.

        Args:
            params: the parameters in float32 or wider (as they are if ``moves_params``), ``None`` for other leaves.

        Returns any tree of arrays, empty by default. What ``slots`` names are keys of it, which is then a dict, and
        each holds a tree like the parameters. Arrays must not be ``params`` themselves: a donated step frees these.
        """
        return ()

    @abstractmethod
    def update_tree(self, updates: Any, state: Any, params: Any, at: StepInfo) -> tuple[Any, Any]:
        """Transform the updates of all parameters. Called once a step.

        Args:
            updates: a tree like the parameters, in float32 or wider (unless ``widens``); complex leaves are complex.
            state: what `init_tree` or the last step returned, in the same dtypes.
            params: the parameters in float32 or wider; ``None`` where ``update`` was called without them, which
                ``reads_params`` forbids.
            at: the step. ``at.of(path)`` is the step of a parameter that may have joined later.

        Returns the updates, with the shapes that they had, and the next state, with the structure and the shapes of
        ``state``: it is stored in the dtypes that it had.
        """
        raise NotImplementedError

    def step_tree(self, params: Any, state: Any, updates: Any, at: StepInfo) -> tuple[Any, Any]:
        """Move the parameters. Called in place of `update_tree` by ``step`` if the link ends the chain.

        Only with ``moves_params``. ``params`` and ``updates`` come as they are, ``None`` and integers included;
        ``state`` and ``at`` as in `update_tree`. Returns the parameters, in their dtypes, and the next state.
        """
        raise NotImplementedError


def slot_like(p: jax.Array, fill: Any = 0.0) -> jax.Array:
    """A slot of the shape and sharding of ``p``, in float32 or better.

    For complex ``p`` both parts are ``fill``: complex parameters are treated as pairs of reals.
    """
    dtype = tree.slot_dtype(p.dtype)
    zeros = jnp.zeros_like(p, dtype=dtype)
    if is_zero(fill):
        return zeros
    real = jnp.asarray(fill, tree.compute_dtype(p.dtype))
    return zeros + (jax.lax.complex(real, real) if jnp.issubdtype(dtype, jnp.complexfloating) else real)


def _check_storage(where: str, x: Any, limits: Any) -> Any:
    if not (x is None or isinstance(x, storage)):
        raise ValueError(f"`{where}` is set by store(link, slot=format), got {x!r}")
    return x


_STORED = {"doc": "how the slots are stored: see `store`", "check": _check_storage}


@dataclass_transform(frozen_default=True, field_specifiers=(hyper, number, static, child))
def transform(cls: type[L]) -> type[L]:
    """Turn a subclass of `Leafwise`, `Scaling`, `Treewise` or `VectorLink` into a link: a frozen pytree dataclass.

    Hyperparameters are declared by `hyper`, what shapes the computation by `static`.

    Errors: ``TypeError`` or ``ValueError`` for a class whose declarations or hooks cannot be meant, such as slots that
    are no tuple of names, a misspelt declaration, or a hook that takes other arguments than it is given.

    >>> import chainax as cx
    >>> from chainax.extend import Leafwise, transform
    >>> @transform
    ... class squash(Leafwise):
    ...     '''Bound every coordinate softly.'''
    ...     equation = "u ← tanh(u)"
    ...     def leaf(self, u, slot, p, scalars):
    ...         return jax.numpy.tanh(u)
    >>> cx.chain(squash(), cx.scale_by_lr(0.1))
    chain(squash(), scale_by_lr(0.1))
    """
    if not issubclass(cls, (Leafwise, Treewise)):
        raise TypeError(f"`{cls.__name__}` must derive from Leafwise or Treewise to be a link")
    check_class(cls)
    if issubclass(cls, Leafwise) and isinstance(cls.slots, tuple) and cls.slots and not hasattr(cls, "storage"):
        cls.__annotations__ = {**inspect.get_annotations(cls), "storage": Any}
        cls.storage = dataclasses.field(default=None, kw_only=True, repr=False, metadata=_STORED)  # pyright: ignore[reportAttributeAccessIssue]
    if issubclass(cls, Treewise) and not cls.sees_holes:
        shield(cls)
    made = value(cls)
    check_hooks(made)
    return made
