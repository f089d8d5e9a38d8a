"""Where the matrices of a parameter are, and the first values of the slots that belong to them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..values.matrices import Block, Form
from ..values.spec import axes_in, padded
from ..values.tables import Table, pick
from ..values.tree import shards, show, slot_dtype
from ..values.types import DType, Leaf
from .protocol import MatrixwiseLike


def form_of(name: str, link: MatrixwiseLike, path: str, p: Leaf) -> Form:
    """Where the matrices of a parameter are. Raises ``TypeError`` if that is not said, or not supported."""
    words = link.matrices
    if isinstance(words, Table):
        _, words = pick(f"{name}.matrices", words, path, jnp.shape(p))
    shape, dtype = jnp.shape(p), jnp.result_type(p)
    if jnp.issubdtype(dtype, jnp.complexfloating) and not link.takes_complex:
        raise TypeError(
            f"Link {name!r} does not take complex parameters, and {path!r} is {show(p)}: write "
            f"split_complex({name}(...)), which treats real and imaginary parts as two matrices, or give it to another "
            "chain by partition"
        )
    try:
        return words.form(shape)
    except ValueError as e:
        example = _EXAMPLES.get(len(shape), "..., ...")
        raise TypeError(
            f"Link {name!r} transforms matrices, and {path!r}, {show(p)}, {e}. Name its rows and columns, "
            f'{name}(matrices=by_path({{{path!r}: matrices("{example}")}}, default=...)), or give it to another '
            f"chain, partition(by_path({{{path!r}: adamw(...)}}, default=...))"
        ) from None


_EXAMPLES = {0: ",", 1: ", out", 2: "in, out", 3: "_layer in, out", 4: "h w in, out"}
"""Words for parameters with so many axes, for errors."""


def first_factors(name: str, link: MatrixwiseLike, path: str, p: Leaf) -> dict[str, jax.Array]:
    """The first slots of a parameter that have other axes than it has."""
    form, dtype = form_of(name, link, path, p), slot_dtype(p.dtype)
    if not link.factors:
        return {}
    each = [first_of_block(name, link, block, dtype) for block in form.blocks]
    return {s: _placed(form.slot([made[s] for made in each]), form, p) for s in link.factors}


def first_of_block(name: str, link: MatrixwiseLike, block: Block, dtype: DType) -> dict[str, jax.Array]:
    """The first ``factors`` of the matrices of one shape in a parameter, each as a stack."""
    made = link.init_matrix(block.m, block.n, dtype)
    if not isinstance(made, dict) or made.keys() != {*link.factors}:
        got = tuple(made) if isinstance(made, dict) else show(made)
        raise TypeError(f"Link {name!r} declares the factors {link.factors} but its init_matrix makes {got}")
    return {s: jnp.broadcast_to(x, (block.number, *jnp.shape(x))) for s, x in made.items()}


def _placed(x: jax.Array, form: Form, p: Leaf) -> jax.Array:
    """A first slot, sharded as the axes that number the matrices are, and along the parameter's other mesh axes.

    The latter, if the length allows, since n × n numbers on each device may be more than the parameter has there.
    """
    typed = jax.typeof(p).sharding
    if not any(typed.spec):
        return x
    sharding = typed if isinstance(p, Tracer) else p.sharding
    entries, block = padded(sharding.spec, p.ndim), form.blocks[0]
    spec: list[Any] = [None] * x.ndim
    plain = not form.ends and block.expanded == p.shape
    if plain:
        spec[: len(block.batch)] = [entries[i] for i in block.batch]
    rest = tuple(name for name in axes_in(entries) if name not in axes_in(spec))
    axis = len(block.batch) if not form.ends else 0
    if rest and axis < x.ndim and x.shape[axis] % shards(rest, sharding.mesh.shape) == 0:
        spec[axis] = rest
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, P(*spec)))
