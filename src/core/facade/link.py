"""What a link is: slots, scalars and a leaf function. The engine owns everything else."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from ..engine.protocol import Visit
from ..engine.step_info import StepInfo
from ..engine.storage import storage
from ..values import tree
from ..values.hyper import by_path, hyper
from ..values.numerics import is_zero, mul
from ..values.value import child, number, static, value
from .order import ROLES
from .transformation import Transformation

L = TypeVar("L", bound="Link")


class Link(Transformation):
    """One transformation in a chain. Derive from `Leafwise`, or from `Treewise` for the exceptions."""

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


class Leafwise(Link):
    """A link that treats every leaf alone, once its scalars are known.

    A subclass writes at most these: `init_leaf` (if slots do not start at zero), `scalars`, `leaf`.
    In all three a hyperparameter such as ``self.b1`` is already the number for this step and path.
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
        """The slots' first values for the parameter ``p``; ``None`` if it needs none.

        A slot has the shape of ``p``, or any other that depends on that shape alone; for complex ``p``
        count a last axis of 2 more.
        """
        return {name: slot_like(p) for name in self.slots}

    def init_global_state(self) -> dict[str, jax.Array]:
        """Scalars that the link remembers for the whole tree, by name; none by default."""
        return {}

    def update_global_state(self, at: StepInfo) -> dict[str, jax.Array]:
        """The next ``at.global_state``, kept also where the step is not taken, unless by a link of an earlier pass."""
        return at.global_state

    def accepts(self, at: StepInfo) -> jax.Array:
        """Whether the step may be taken; where not, parameters and state stay as they are, memories excepted."""
        raise NotImplementedError

    @property
    def formats(self) -> storage | None:
        """How the slots are stored, if not as they are."""
        return vars(self).get("storage")

    def __repr__(self) -> str:
        plain = super().__repr__()
        return f"store({plain}, {self.formats.arguments()})" if self.formats else plain

    def scalars(self, at: StepInfo) -> Any:
        """Numbers that all leaves share, computed once a step."""
        return None

    def leaf(self, u: jax.Array, slot: SimpleNamespace, p: jax.Array, scalars: Any, /) -> Any:
        """The update and the next slots: ``u, {"mu": m}``; without slots, only ``u``.

        All arrays have the parameter's shape (complex ones a last axis of 2 more) and are real,
        float32 or wider. Must be elementwise, or at least treat the axes alike.
        """
        raise NotImplementedError


class Scaling(Leafwise):
    """A link that multiplies all updates by one number.

    The engine knows what that does to a norm, so links that need one may follow in the same pass.
    """

    scaling = True

    def factor(self, at: StepInfo) -> Any:
        """The number, for this step."""
        raise NotImplementedError

    def scalars(self, at):
        return self.factor(at)

    def leaf(self, u, slot, p, scalars) -> Any:
        return mul(scalars, u)


class Treewise(Link):
    """A link that needs whole matrices or whole trees. Its state is any tree of arrays."""

    treewise = True
    moves_params: bool = False
    """Whether the link, where it ends a chain, moves the parameters itself, by `step_tree`."""
    widens: bool = False
    """Whether `update_tree` gets updates as they come, and widens them itself."""

    def init_tree(self, params: Any) -> Any:
        """The first state; an empty tree for none."""
        return ()

    def update_tree(self, updates: Any, state: Any, params: Any, at: StepInfo) -> tuple[Any, Any]:
        """Transform a tree of updates. They and ``params`` (which may be ``None``) are float32 or wider."""
        raise NotImplementedError

    def step_tree(self, params: Any, state: Any, updates: Any, at: StepInfo) -> tuple[Any, Any]:
        """Move the parameters, which come as they are: returns them and the next state."""
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
    """Turn a subclass of `Leafwise` or `Treewise` into a link: a frozen dataclass that is a pytree.

    Hyperparameters are declared by `hyper`, what shapes the computation by `static`.

    >>> import chainax as cx
    >>> @cx.transform
    ... class squash(cx.Leafwise):
    ...     '''Bound every coordinate softly.'''
    ...     equation = "u ← tanh(u)"
    ...     def leaf(self, u, slot, p, scalars):
    ...         return jax.numpy.tanh(u)
    >>> cx.chain(squash(), cx.scale_by_lr(0.1))
    chain(squash(), scale_by_lr(0.1))
    """
    if not issubclass(cls, (Leafwise, Treewise)):
        raise TypeError(f"`{cls.__name__}` must derive from Leafwise or Treewise to be a link")
    if isinstance(cls.role, str) and cls.role not in ROLES:
        raise ValueError(f"`{cls.__name__}.role` must be one of {', '.join(ROLES)}, got {cls.role!r}")
    for name in inspect.get_annotations(cls):
        if any(inspect.isfunction(vars(base).get(name)) for base in cls.__mro__[1:]):
            raise TypeError(f"`{cls.__name__}.{name}` would hide the method {name!r} of its base: rename the field")
    if not isinstance(cls.slots, (tuple, property)):
        raise TypeError(f"`{cls.__name__}.slots` must be a tuple of names, got {cls.slots!r}")
    if issubclass(cls, Leafwise) and isinstance(cls.slots, tuple) and cls.slots and not hasattr(cls, "storage"):
        cls.__annotations__ = {**inspect.get_annotations(cls), "storage": Any}
        cls.storage = dataclasses.field(default=None, kw_only=True, repr=False, metadata=_STORED)  # pyright: ignore[reportAttributeAccessIssue]
    return value(cls)
