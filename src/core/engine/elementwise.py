"""Whether a traced function is elementwise: each number of its results depends on one number of each array."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from ..values.types import DType

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

ELEMENTWISE = frozenset(
    re.findall(
        r"\w+",
        """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e bitcast_convert_type
        broadcast_in_dim cbrt ceil clamp convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2
        expm1 floor ge gt igamma igammac imag integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg
        nextafter not optimization_barrier or pcast polygamma population_count pow pvary real reduce_precision
        regularized_incomplete_beta rem round rsqrt select_n sharding_constraint shift_left shift_right_arithmetic
        shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta""",
    )
)
"""The primitives that are elementwise on arrays of one shape."""

_NOT_IN_KERNELS = frozenset(
    re.findall(
        r"\w+",
        """acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt checkpoint cond copy cosh digamma erfc expm1
        igamma igammac imag lgamma optimization_barrier pcast polygamma pvary real reduce_precision
        regularized_incomplete_beta remat2 scan sharding_constraint sinh while zeta""",
    )
)
"""Those that Pallas does not compile for TPUs, and branches, loops and checkpoints."""


def is_elementwise(jaxpr: Jaxpr, shape: tuple[int, ...]) -> bool:
    """Whether every array of more than one number has the leaf's shape, and no operation mixes its numbers."""
    if any(_shape(v) == shape for v in jaxpr.constvars):  # a constant for each number of the leaf
        return False
    for e in jaxpr.eqns:
        inner = _jaxprs_in(e)
        draws = e.primitive.name.startswith("random")
        if not (inner or draws or e.primitive.name in ELEMENTWISE):
            return False
        if not all(is_elementwise(x, shape) for x in inner):
            return False
        sizes = {_shape(v) for v in e.outvars}
        if any(_shape(v) == shape for v in e.invars) and sizes != {shape}:
            return False
        if e.primitive.name == "random_bits" and sizes != {shape}:  # one draw for the leaf, not one for each tile
            return False
        if not inner and not draws and any(math.prod(size) > 1 for size in sizes - {shape}):
            return False
    return True


def fits_kernel(jaxpr: Jaxpr) -> bool:
    """Whether an elementwise function can be part of a kernel for a TPU."""
    variables = (*jaxpr.invars, *jaxpr.constvars, *(v for e in jaxpr.eqns for v in e.outvars))
    if any(_is_wide_or_float16(v) for v in variables):
        return False
    for e in jaxpr.eqns:
        name = e.primitive.name
        drawn = name == "random_bits" and e.params["bit_width"] == 32
        of_scalar = name == "pow" and _shape(e.outvars[0]) == ()
        if name in _NOT_IN_KERNELS or of_scalar or (name.startswith("random") and not drawn):
            return False
    return all(fits_kernel(inner) for e in jaxpr.eqns for inner in _jaxprs_in(e))


def _is_wide_or_float16(v: Var) -> bool:
    dtype = getattr(v.aval, "dtype", None)
    return dtype == jnp.float16 or (dtype is not None and dtype.itemsize == 8 and not _is_key(dtype))


def _is_key(dtype: DType) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def leaf_functions(jaxpr: Jaxpr) -> Iterator[Jaxpr]:
    """The jaxprs of the leaf functions that a jaxpr calls."""
    for e in jaxpr.eqns:
        for inner in _jaxprs_in(e):
            yield from [inner] if e.params.get("name") == "fused" else leaf_functions(inner)


def without_shape(jaxpr: Jaxpr | ClosedJaxpr, shape: tuple[int, ...]) -> str:
    """A jaxpr as text, on one line, with the leaf's shape masked."""
    text = jaxpr.pretty_print(use_color=False, width=1 << 30)
    return text.replace(f"[{','.join(map(str, shape))}]", "[*]").replace(str(shape), "(*)")


def _shape(v: Var | Literal) -> tuple[int, ...]:
    """The shape of a variable or constant; ``()`` for a token."""
    return getattr(v.aval, "shape", ())


def _jaxprs_in(equation: JaxprEqn) -> list[Jaxpr]:
    """The jaxprs that an equation calls."""
    from jax.extend.core import ClosedJaxpr, Jaxpr  # here, since importing it is slow

    found = (x for x in jax.tree.leaves(list(equation.params.values())) if isinstance(x, (ClosedJaxpr, Jaxpr)))
    return [x.jaxpr if isinstance(x, ClosedJaxpr) else x for x in found]
