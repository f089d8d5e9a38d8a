"""Conditions on traced values, without copies of what passes through them.

On CPUs all of them are ``lax.cond``: a branch works in the memory of its operands. XLA's GPU compiler copies
whatever passes through a condition, once in the branch that returns it as it is and once behind the condition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

T = TypeVar("T")

Leaves: TypeAlias = list[Any]


def cond(predicate: jax.Array | bool, yes: Callable[[], T], no: Callable[[], T]) -> T:
    """``lax.cond``, for results that are small or expensive to compute.

    Outside ``jit`` it calls one branch directly, without the trace that ``lax.cond`` makes.
    """
    if isinstance(predicate, Tracer):
        return lax.cond(predicate, yes, no)
    return yes() if predicate else no()


def choose(
    predicate: jax.Array | bool,
    yes: Callable[[jax.Array | None], T],
    no: Callable[[], T],
    undone: Callable[[T], T] | None = None,
) -> T:
    """`cond` for a ``yes`` that runs at nearly every step, or costs nothing, such as zeros.

    On devices other than CPUs both branches run, and the choice is made leaf by leaf, in the kernels that compute the
    leaves. (XLA's CPU compiler would copy every slot.) ``yes`` gets a bool array that is True where its result is
    dropped, or ``None`` if it never is. NaN in a dropped result does not leak, but NaN in its derivatives would: see
    `zero_where`. ``undone`` returns what replaces a dropped result, ``no()`` by default. Arrays that it returns as they
    are in the result are not chosen again.
    """
    if not isinstance(predicate, Tracer):
        return yes(None) if predicate else no()
    branch = lax.platform_dependent(predicate, cpu=jnp.array, default=jnp.ones_like)
    dropped = lax.platform_dependent(predicate, cpu=jnp.zeros_like, default=jnp.logical_not)

    def chosen() -> T:
        made = yes(dropped)
        old = undone(made) if undone else no()
        return jax.tree.map(lambda a, b: a if a is b else lax.select(dropped, a, b), old, made)

    return lax.cond(branch, chosen, no)


def zero_where(dropped: jax.Array | None, tree: T) -> T:
    """The arrays, or zeros where the result is dropped, from which a step computes finite numbers and derivatives."""
    return tree if dropped is None else jax.tree.map(lambda x: lax.select(dropped, jnp.zeros_like(x), x), tree)


def in_place(
    predicate: jax.Array | bool, start: Callable[[], T], yes: Callable[[T], T], no: Callable[[T], T] = lambda old: old
) -> T:
    """``yes(start())`` or ``no(start())`` in the memory of ``start()``, for branches that run at some steps only.

    On devices other than CPUs a branch is the body of a loop that runs once or not at all, since XLA updates in place
    what a loop carries. Derivatives are those of the condition. A branch must read what it replaces from its argument;
    arrays that it closes over are copied.
    """
    if not isinstance(predicate, Tracer):
        return yes(start()) if predicate else no(start())
    first, like = jax.make_jaxpr(start, return_shape=True)()
    then = [jax.make_jaxpr(f, return_shape=True)(like) for f in (yes, no)]
    if any(x.out_avals != first.out_avals or x.effects or made != like for x, made in then):
        # Let `lax.cond` convert weak types, order effects, or raise its error.
        return lax.cond(predicate, lambda: yes(start()), lambda: no(start()))
    jaxprs = [first, *(x for x, _ in then)]

    def branches(predicate: jax.Array, consts: list[Leaves]) -> Leaves:
        first, *then = map(_function, jaxprs, consts)
        return lax.cond(predicate, *(functools.partial(lambda f: f(*first()), f) for f in then))

    def loops(predicate: jax.Array, consts: list[Leaves]) -> Leaves:
        first, *then = map(_function, jaxprs, consts)
        leaves = first()
        for runs, f, x in zip((predicate, ~predicate), then, jaxprs[1:]):
            leaves = leaves if x.jaxpr.outvars == x.jaxpr.invars else _at_most_once(runs, f, leaves)
        return leaves

    @jax.custom_jvp  # a loop has no reverse-mode derivative
    def run(predicate: jax.Array, consts: list[Leaves]) -> Leaves:
        return lax.platform_dependent(predicate, consts, cpu=branches, default=loops)

    run.defjvp(lambda primals, tangents: jax.jvp(branches, primals, tangents))
    return jax.tree.unflatten(jax.tree.structure(like), run(predicate, [x.consts for x in jaxprs]))


def _function(closed: Any, consts: Leaves) -> Callable[..., Leaves]:
    """The function of a closed jaxpr, with other constants."""
    from jax.extend.core import ClosedJaxpr, jaxpr_as_fun  # here, since importing it is slow

    return jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, consts))


def _at_most_once(runs: jax.Array, f: Callable[..., Leaves], leaves: Leaves) -> Leaves:
    """``f(*leaves)`` if it ``runs``, as a loop."""
    # The end is computed from the beginning, so that it varies along the same axes of a mesh.
    return lax.while_loop(lambda x: x[0], lambda x: (x[0] ^ x[0], f(*x[1])), (runs, leaves))[1]
