"""What a link is: slots, scalars and a leaf function. The engine owns everything else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from . import tree
from .at import At
from .hyper import hyper
from .transformation import Transformation
from .value import child, number, static, value

L = TypeVar("L", bound="Link")

ROLES = ("clip", "decay", "penalty", "accumulate", "precondition", "scale", "descend", "decay_after", "other")


class Link(Transformation):
    """One transformation in a chain. Derive from `Leafwise`, or from `Treewise` for the exceptions."""

    slots: ClassVar[tuple[str, ...]] = ()
    """Names of the state arrays shaped like a parameter."""
    equation: ClassVar[str] = ""
    """What the leaf function does to the update ``u`` of a parameter ``θ``, as a line of mathematics."""
    role: ClassVar[str] = "other"
    """What the link is for; the order of roles gives a chain its meaning. One of clip, decay, penalty, accumulate
    (momentum), precondition, scale, descend, decay_after, other."""
    reads_params: ClassVar[bool] = False
    """Whether the parameters must be passed to ``update``."""
    needs_all_updates: ClassVar[bool] = False
    """Whether the whole tree of updates must be known before the first leaf, as for a global norm."""
    treewise: ClassVar[bool] = False
    extra: ClassVar[tuple[str, ...]] = ()
    """Names of the extra arguments of ``update`` that the link reads, as ``at.extra[name]``."""

    @property
    def links(self) -> dict[str, Link]:
        return {type(self).__name__: self}


class Leafwise(Link):
    """A link that treats every leaf alone, once its scalars are known.

    A subclass writes at most these: `init_leaf` (if slots do not start at zero), `scalars`, `leaf`.
    In all three a hyperparameter such as ``self.b1`` is already the number for this step and path.
    """

    def init_leaf(self, p: jax.Array) -> dict[str, jax.Array]:
        """The slots' first values for the parameter ``p``."""
        return {name: slot_like(p) for name in self.slots}

    def scalars(self, at: At) -> Any:
        """Numbers that all leaves share, computed once a step."""
        return None

    def leaf(self, u: jax.Array, slot: SimpleNamespace, p: jax.Array, scalars: Any, /) -> Any:
        """The update and the next slots: ``u, {"mu": m}``; without slots, only ``u``.

        All arrays have the parameter's shape (complex ones a last axis of 2 more) and are real,
        float32 or wider. Must be elementwise, or at least treat the axes alike.
        """
        raise NotImplementedError


class Treewise(Link):
    """A link that needs whole matrices or whole trees. Its state is any tree of arrays."""

    treewise = True

    def init_tree(self, params: Any) -> Any:
        """The first state; an empty tree for none."""
        return ()

    def update_tree(self, updates: Any, state: Any, params: Any, at: At) -> tuple[Any, Any]:
        """Transform a tree of updates. They and ``params`` (which may be ``None``) are float32 or wider."""
        raise NotImplementedError


def slot_like(p: jax.Array, fill: Any = 0.0) -> jax.Array:
    """A slot of the shape and sharding of ``p``, in float32 or better.

    For complex ``p`` both parts are ``fill``: complex parameters are treated as pairs of reals.
    """
    dtype = tree.slot_dtype(p.dtype)
    zeros = jnp.zeros_like(p, dtype=dtype)
    if isinstance(fill, float) and fill == 0:
        return zeros
    real = jnp.asarray(fill, tree.compute_dtype(p.dtype))
    return zeros + (jax.lax.complex(real, real) if jnp.issubdtype(dtype, jnp.complexfloating) else real)


@dataclass_transform(frozen_default=True, field_specifiers=(hyper, number, static, child))
def transform(cls: type[L]) -> type[L]:
    """Turn a subclass of `Leafwise` or `Treewise` into a link: a frozen dataclass that is a pytree.

    Hyperparameters are declared by `hyper`, what shapes the computation by `static`.

    >>> import chainax as cx
    >>> @cx.transform
    ... class scale_by_sign(cx.Leafwise):
    ...     '''Keep only the sign.'''
    ...     equation = "u ← sign(u)"
    ...     def leaf(self, u, slot, p, scalars):
    ...         return jax.numpy.sign(u)
    >>> cx.chain(scale_by_sign(), cx.scale_by_lr(0.1))
    chain(scale_by_sign(), scale_by_lr(0.1))
    """
    if not issubclass(cls, (Leafwise, Treewise)):
        raise TypeError(f"`{cls.__name__}` must derive from Leafwise or Treewise to be a link")
    if isinstance(cls.role, str) and cls.role not in ROLES:
        raise ValueError(f"`{cls.__name__}.role` must be one of {', '.join(ROLES)}, got {cls.role!r}")
    if not isinstance(cls.slots, tuple):
        raise TypeError(f"`{cls.__name__}.slots` must be a tuple of names, got {cls.slots!r}")
    return value(cls)
