"""What the engine asks of a link, and all that it knows of one.

`Link`, `Leafwise` and `Treewise` in the facade declare and document these names for authors of links; here they
stand once more, with their types, so that nothing in the engine imports what is built upon it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeGuard, TypeVar

import jax

from ..values.types import Params, PyTree, Scalar, Scalars, Updates

if TYPE_CHECKING:
    from .rounding import Rounding
    from .state import State
    from .step_info import StepInfo
    from .storage import storage


class ChainLike(Protocol):
    """Whatever has links: a chain, or a link by itself."""

    @property
    def links(self) -> Links: ...


class LinkLike(ChainLike, Protocol):
    """What is asked of every link."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    _leaves: ClassVar[tuple[str, ...]]
    _static: ClassVar[tuple[str, ...]]
    _numbers: ClassVar[tuple[str, ...]]

    @property
    def slots(self) -> tuple[str, ...]: ...
    @property
    def nonnegative(self) -> tuple[str, ...]: ...
    @property
    def absent(self) -> Mapping[str, str | None]: ...
    @property
    def equation(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def bounds_size(self) -> bool: ...
    @property
    def hides_infinite(self) -> bool: ...
    @property
    def refuses_nonfinite(self) -> bool: ...
    @property
    def fixes_norm(self) -> bool: ...
    @property
    def inner_updates_differ(self) -> bool: ...
    @property
    def undoes_scale(self) -> bool: ...
    @property
    def reads_params(self) -> bool: ...
    @property
    def needs_all_updates(self) -> bool: ...
    @property
    def treewise(self) -> bool: ...
    @property
    def joins(self) -> str: ...
    @property
    def factor_field(self) -> str: ...
    @property
    def decay_field(self) -> str: ...
    @property
    def extra(self) -> tuple[str, ...]: ...
    @property
    def knows_shards(self) -> bool: ...
    @property
    def per_example(self) -> bool: ...
    @property
    def no_reverse_mode(self) -> str: ...
    @property
    def final_rounding(self) -> Rounding | None: ...
    @property
    def inner(self) -> Mapping[str, ChainLike]: ...

    def visit(self, visit: Visit, params: Params, entry: PyTree) -> dict[str, PyTree]: ...


class LeafwiseLike(LinkLike, Protocol):
    """What is asked of a link that treats every leaf alone."""

    @property
    def scaling(self) -> bool: ...
    @property
    def can_reject(self) -> bool: ...
    @property
    def lagged(self) -> tuple[str, ...]: ...
    @property
    def reads_grads(self) -> bool: ...
    @property
    def random(self) -> bool: ...
    @property
    def formats(self) -> storage | None: ...

    def init_leaf(self, p: jax.Array) -> dict[str, jax.Array] | None: ...
    def init_global_state(self) -> dict[str, jax.Array]: ...
    def update_global_state(self, at: StepInfo) -> dict[str, jax.Array]: ...
    def accepts(self, at: StepInfo) -> jax.Array: ...
    def scalars(self, at: StepInfo) -> Scalars: ...
    def leaf(self, u: jax.Array, slot: SimpleNamespace, p: jax.Array, scalars: Scalars, /) -> Any: ...


class RandomLike(LeafwiseLike, Protocol):
    """What is asked of a link that draws random numbers."""

    @property
    def seed(self) -> Any: ...


class ScalingLike(LeafwiseLike, Protocol):
    """What is asked of a link that multiplies all updates by one number."""

    def factor(self, at: StepInfo) -> Scalar: ...


class TreewiseLike(LinkLike, Protocol):
    """What is asked of a link that sees the whole tree."""

    @property
    def moves_params(self) -> bool: ...
    @property
    def widens(self) -> bool: ...

    def init_tree(self, params: Params) -> PyTree: ...
    def update_tree(self, updates: Updates, state: PyTree, params: Params, at: StepInfo) -> tuple[Updates, PyTree]: ...
    def step_tree(self, params: Params, state: PyTree, updates: Updates, at: StepInfo) -> tuple[Params, PyTree]: ...


Links: TypeAlias = dict[str, Any]
"""Links by name, in order."""
LeafwiseRun: TypeAlias = dict[str, LeafwiseLike]
"""Links that treat every leaf alone, by name, in order."""

L = TypeVar("L", bound=LinkLike)


def is_leafwise(link: LinkLike) -> TypeGuard[LeafwiseLike]:
    """Whether the link treats every leaf alone."""
    return not link.treewise


def is_treewise(link: LinkLike) -> TypeGuard[TreewiseLike]:
    """Whether the link sees the whole tree."""
    return link.treewise


def is_random(link: LinkLike) -> TypeGuard[RandomLike]:
    """Whether the link draws random numbers for every leaf."""
    return is_leafwise(link) and link.random


def is_scaling(link: LinkLike) -> TypeGuard[ScalingLike]:
    """Whether the link multiplies all updates by one number."""
    return is_leafwise(link) and link.scaling


Visit: TypeAlias = "Callable[[Any, Params, State], dict[str, PyTree]]"
"""What is done with a chain within a link, given its parameters and its state. It returns trees like the parameters, by
name."""
