"""The interface of a link, as far as the engine knows it.

`Link`, `Leafwise` and `Treewise` in the facade declare and document these names for authors of links. They are
repeated here, with their types, so that the engine need not import the facade.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeGuard, TypeVar

import jax

from ..values.tree import Names
from ..values.types import DType, Leaf, Params, PyTree, Scalar, Scalars, Updates

if TYPE_CHECKING:
    from .rounding import Rounding
    from .state import State
    from .step_info import StepInfo
    from .storage import storage


class ChainLike(Protocol):
    """A chain or a link."""

    @property
    def links(self) -> Links: ...


class LinkLike(ChainLike, Protocol):
    """Any link."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]
    _leaves: ClassVar[tuple[str, ...]]
    _static: ClassVar[tuple[str, ...]]
    _numbers: ClassVar[tuple[str, ...]]

    @property
    def slots(self) -> tuple[str, ...]: ...
    @property
    def nonnegative(self) -> tuple[str, ...]: ...
    @property
    def absent(self) -> Mapping[str, str | float | None]: ...
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
    def orthogonalizes(self) -> bool: ...
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
    def matrixwise(self) -> bool: ...
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
    def seen_within(self, params: Params) -> dict[str, Params]: ...
    def remarks(self, params: Params) -> Iterator[str]: ...
    def after_rejection(self, entry: PyTree) -> PyTree: ...
    def metrics(self, entry: PyTree) -> Mapping[str, Scalar]: ...


class LeafwiseLike(LinkLike, Protocol):
    """A link that transforms each leaf independently."""

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
    @property
    def leaf_slots(self) -> tuple[str, ...]: ...

    def init_leaf(self, p: jax.Array) -> dict[str, jax.Array] | None: ...
    def init_global_state(self) -> dict[str, jax.Array]: ...
    def update_global_state(self, at: StepInfo) -> dict[str, jax.Array]: ...
    def accepts(self, at: StepInfo) -> jax.Array: ...
    def scalars(self, at: StepInfo) -> Scalars: ...
    def leaf(self, u: jax.Array, slot: SimpleNamespace, p: Leaf, scalars: Scalars, /) -> PyTree: ...


class MatrixwiseLike(LeafwiseLike, Protocol):
    """A link that transforms each matrix as a whole."""

    @property
    def matrices(self) -> Any: ...
    @property
    def over(self) -> Names: ...
    @property
    def matrix_slots(self) -> tuple[str, ...]: ...
    @property
    def factors(self) -> tuple[str, ...]: ...
    @property
    def either_way(self) -> bool: ...
    @property
    def decomposes(self) -> bool: ...
    @property
    def takes_complex(self) -> bool: ...

    def init_matrix(self, m: int, n: int, dtype: DType, /) -> dict[str, jax.Array]: ...
    def matrix(self, M: jax.Array, slot: SimpleNamespace, scalars: Scalars, /) -> PyTree: ...
    def size(self, m: int, n: int, /) -> Scalar: ...


class RandomLike(LeafwiseLike, Protocol):
    """A link that draws random numbers."""

    @property
    def seed(self) -> jax.Array | int: ...


class RoundingLike(LinkLike, Protocol):
    """A link that ends a chain and specifies how parameters are rounded."""

    @property
    def final_rounding(self) -> Rounding: ...
    @property
    def seed(self) -> jax.Array | int: ...


class ScalingLike(LeafwiseLike, Protocol):
    """A link that multiplies all updates by one number."""

    def factor(self, at: StepInfo) -> Scalar: ...


class TreewiseLike(LinkLike, Protocol):
    """A link that sees the whole tree."""

    @property
    def moves_params(self) -> bool: ...
    @property
    def widens(self) -> bool: ...
    @property
    def undoes_itself(self) -> bool: ...

    def init_tree(self, params: Params) -> PyTree: ...
    def update_tree(self, updates: Updates, state: PyTree, params: Params, at: StepInfo) -> tuple[Updates, PyTree]: ...
    def step_tree(self, params: Params, state: PyTree, updates: Updates, at: StepInfo) -> tuple[Params, PyTree]: ...


Links: TypeAlias = Mapping[str, LinkLike]
"""Links by name, in order."""
LeafwiseRun: TypeAlias = dict[str, LeafwiseLike]
"""Links that transform each leaf independently, by name, in order."""

L = TypeVar("L", bound=LinkLike)


def is_leafwise(link: LinkLike) -> TypeGuard[LeafwiseLike]:
    """Whether the link transforms each leaf independently."""
    return not link.treewise


def is_treewise(link: LinkLike) -> TypeGuard[TreewiseLike]:
    """Whether the link sees the whole tree."""
    return link.treewise


def is_matrixwise(link: LinkLike) -> TypeGuard[MatrixwiseLike]:
    """Whether the link transforms each matrix as a whole."""
    return link.matrixwise


def is_random(link: LinkLike) -> TypeGuard[RandomLike]:
    """Whether the link draws random numbers for every leaf."""
    return is_leafwise(link) and link.random


def is_rounding(link: LinkLike) -> TypeGuard[RoundingLike]:
    """Whether the link specifies how parameters are rounded."""
    return link.final_rounding is not None


def is_scaling(link: LinkLike) -> TypeGuard[ScalingLike]:
    """Whether the link multiplies all updates by one number."""
    return is_leafwise(link) and link.scaling


Visit: TypeAlias = "Callable[[ChainLike, Params, State], dict[str, PyTree]]"
"""A function of a link's inner chain, its parameters and its state. It returns trees like the parameters, by name."""
