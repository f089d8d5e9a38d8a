"""What compiling `init` costs: XLA computes with constants at compile time, number by number."""

import math
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import pytest
from chainax.core.engine.elementwise import ELEMENTWISE
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from registry import LINK_CLASSES

SIMPLIFIED = {
    "broadcast_in_dim",
    "reshape",
    "slice",
    "squeeze",
    "concatenate",
    "pad",
    "transpose",
    "iota",
    "reduce_sum",
}
"""What XLA's algebra makes constants of, on arrays that are one number repeated."""
LEAVES = {"matrix": jax.ShapeDtypeStruct((64, 96), jnp.float32), "cube": jax.ShapeDtypeStruct((8, 32, 16), jnp.float32)}


def folded(jaxpr: Jaxpr, constant: list[bool], most: int = 1024) -> tuple[list[str], list[bool]]:
    """The reductions, and other operations that mix numbers, of constant arrays with more than ``most`` numbers.

    ``constant`` says which inputs are. Also returns which outputs are.
    """
    known = dict(zip(jaxpr.invars, constant)) | dict.fromkeys(jaxpr.constvars, True)
    found: list[str] = []
    for e in jaxpr.eqns:
        of = [isinstance(v, Literal) or known[v] for v in e.invars]
        name = e.primitive.name
        inner = [x for x in jax.tree.leaves(list(e.params.values())) if isinstance(x, (ClosedJaxpr, Jaxpr))]
        for x in (getattr(x, "jaxpr", x) for x in inner):
            takes = len(x.invars)  # of a condition or a loop the last
            own = of[len(of) - takes :] if takes <= len(of) else [all(of)] * takes
            found += folded(x, own, most)[0]
        mixes = not inner and name not in SIMPLIFIED | ELEMENTWISE
        large = any(math.prod(getattr(v.aval, "shape", ())) > most for v in e.invars)
        if mixes and large and all(of):
            found.append(name)
        known |= dict.fromkeys(e.outvars, all(of) and name != "optimization_barrier")
    return found, [isinstance(v, Literal) or known[v] for v in jaxpr.outvars]


@cxe.transform
class slow_to_compile(cxe.Leafwise):
    """A link whose first slot is the largest of many zeros, by row."""

    slots = ("nu",)
    equation = "as it is"

    def init_leaf(self, p):
        return {"nu": jnp.max(jnp.zeros_like(p), axis=1)}

    def leaf(self, u, slot, p, scalars):
        return u, {"nu": slot.nu}


def of_init(tx: Any) -> list[str]:
    """What compiling `init` would compute of arrays as large as the leaves."""
    jaxpr = jax.make_jaxpr(tx.init)(LEAVES)
    return folded(jaxpr.jaxpr, [False] * len(jaxpr.in_avals))[0]


@pytest.mark.parametrize("tx", LINK_CLASSES, ids=repr)
@pytest.mark.filterwarnings("ignore:.*decides for no parameter")
def test_init_computes_nothing_of_large_constants(tx: Any) -> None:
    """The first slots are repeated numbers, or sums of them, or made of the parameters."""
    assert not of_init(tx)


def test_it_would_be_found() -> None:
    """A maximum over zeros takes the compiler 4 s for a million of them."""
    assert of_init(cx.chain(slow_to_compile(), cx.scale_by_lr(0.1))) == ["reduce_max"] * 2
