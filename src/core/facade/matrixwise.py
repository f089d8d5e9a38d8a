"""The base class of links that treat each matrix as a whole."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar, dataclass_transform

import jax

from ..engine.storage import storage
from ..values.declared import contract
from ..values.matrices import check_matrices, matrices
from ..values.spec import check_axes
from ..values.tree import slot_like
from ..values.types import DType, PyTree, Scalar, Scalars
from ..values.value import static
from ..values.warning import warn
from .link import Leafwise

T = TypeVar("T", bound=type)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(static,))
def _with_fields(cls: T) -> T:
    """Let subclasses inherit the fields of this base, which is no link itself."""
    return dataclasses.dataclass(init=False, eq=False, repr=False, kw_only=True)(cls)


def _check_over(where: str, x: object, limits: None) -> Any:
    return None if x is None else check_axes(where, x)


@contract()
@_with_fields
class Matrixwise(Leafwise):
    """A link that transforms each matrix as a whole. A subclass defines `matrix`; the engine applies it to all.

    The field ``matrices`` says where the matrices are in a parameter: see `matrices`. A parameter for which it does not
    is refused. First comes `leaf`, in the same pass as the links before this one and elementwise as theirs, then
    `matrix`, then the factor `size`. All other hooks are those of `Leafwise`.

    Slots are declared in ``slots``, as for other links. Those in ``matrix_slots`` and ``factors`` belong to `matrix`,
    the others to `leaf`.
    """

    matrices: Any = static("the rows and columns of each parameter", default=matrices(), check=check_matrices)
    over: Any = static("the mesh axes along which devices share the matrices", default=None, check=_check_over)

    matrixwise = True
    matrix_slots: ClassVar[tuple[str, ...]] = ()
    """The slots of the parameter's shape that `matrix` gets and returns, each in the shape of the matrix."""
    factors: ClassVar[tuple[str, ...]] = ()
    """The slots of other shapes that `matrix` gets and returns: see `init_matrix`."""
    either_way: ClassVar[bool] = False
    """Whether `matrix` turns the transpose into the transpose, so that tall matrices are passed to it as wide ones.
    Needs a link without ``factors``."""
    decomposes: ClassVar[bool] = False
    """Whether `matrix` contains decompositions, such as `jnp.linalg.eigh`: then it is applied to one matrix after the
    other, since XLA's TPU compiler takes many times as long for a batch of decompositions as for one. On CPUs do not
    use `jax.vmap` over chains with such links, but `sweep`: batches of LAPACK calls may block each other's threads."""
    takes_complex: ClassVar[bool] = False
    """Whether `matrix` is correct for complex matrices. Otherwise complex parameters are refused."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if other := [s for s in (*cls.matrix_slots, *cls.factors) if s not in cls.slots]:
            raise TypeError(f"`{cls.__name__}.slots` must name all slots, also {other[0]!r}")
        if both := [s for s in cls.matrix_slots if s in cls.factors]:
            raise TypeError(f"`{cls.__name__}` has {both[0]!r} in matrix_slots and in factors: keep one of them")
        if cls.either_way and cls.factors:
            raise TypeError(f"`{cls.__name__}.either_way` needs a link without factors: transpose in `matrix` instead")

    @property
    def leaf_slots(self) -> tuple[str, ...]:
        return tuple(s for s in self.slots if s not in (*self.matrix_slots, *self.factors))

    def _stored(self, wanted: storage, default: Any) -> Leafwise:
        if named := [s for s in self.factors if s in wanted.table]:
            warn(
                f"store: {named[0]!r} of {type(self).__name__!r} has another shape than the parameter, and is stored "
                "as it is"
            )
        kept = {slot: form for slot, form in wanted.table.items() if slot not in self.factors}
        kept = {slot: default for slot in self.leaf_slots + self.matrix_slots if default is not None} | kept
        return super()._stored(storage(**kept), None) if kept else self

    def init_leaf(self, p: jax.Array) -> dict[str, jax.Array] | None:
        """The first values of the slots of one parameter that have its shape: as in `Leafwise`, without ``factors``."""
        return {name: slot_like(p) for name in self.slots if name not in self.factors}

    def init_matrix(self, m: int, n: int, dtype: DType, /) -> dict[str, jax.Array]:
        """The first values of the ``factors`` of one matrix.

        Args:
            m: the number of rows, the inputs of the layer.
            n: the number of columns, its outputs.
            dtype: float32 or wider, and complex for complex parameters.

        Returns: an array of any shape for each name in ``factors``; the shapes may depend on m and n.
        """
        return {}

    def leaf(self, u: jax.Array, slot: SimpleNamespace, p: Any, scalars: Scalars, /) -> PyTree:
        """What happens elementwise before `matrix`, as for `Leafwise`: momentum, for example. By default nothing."""
        return u

    @abstractmethod
    def matrix(self, M: jax.Array, slot: SimpleNamespace, scalars: Scalars, /) -> PyTree:
        """Transform the update of one matrix. Traced once for all matrices of one shape, dtype and group.

        Args:
            M: the update that `leaf` returned, m × n, in float32 or wider; complex if the parameter is.
            slot: the slots in ``matrix_slots``, m × n, and those in ``factors``; also ``slot.key`` (with ``random``).
            scalars: what `scalars` returned.

        Returns: the update or, with such slots, the update and a dict of them. Shapes and dtypes must not change.
        """
        raise NotImplementedError

    def size(self, m: int, n: int, /) -> Scalar:
        """The factor of the update of an m × n matrix, applied after `matrix`. By default 1."""
        return 1.0
