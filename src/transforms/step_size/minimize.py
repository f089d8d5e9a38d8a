"""Minimization: a chain run to convergence in one compiled loop."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...core.engine.checks import check_roles
from ...core.engine.state import State
from ...core.facade.chain import chain
from ...core.facade.link import Link
from ...core.facade.parts import all_links
from ...core.values.contents import code
from ...core.values.hyper import check_whole, integer
from ...core.values.schedule import Schedule
from ...core.values.types import Params, PyTree, Updates
from ...core.values.value import Range
from ..shared.vector import Space, conj
from .linesearch import LineSearch, ValueFn, check_function, value_and_grad, value_and_grad_from_state


def _limit(max_steps: jax.Array | int) -> jax.Array | int:
    limit = check_whole("minimize.max_steps", max_steps, Range(low=0.0))
    if isinstance(limit, Schedule):
        raise ValueError(f"`minimize.max_steps` must be a whole number or an integer array, got {code(max_steps)}")
    return integer(limit)


class Minimum(NamedTuple):
    """The result of `minimize`: the last parameters, with the value and gradient there, and the state."""

    params: Params
    value: jax.Array
    grad: Updates
    state: State


def minimize(
    tx: chain | Link,
    value_fn: ValueFn,
    params: Params,
    *,
    max_steps: int | jax.Array = 1000,
    tolerance: float = 1e-6,
) -> Minimum:
    """Minimize a function with a chain, until no coordinate of the gradient exceeds ``tolerance``.

    At most ``max_steps`` steps are tried, including those that a guard rejects. The run ends early if it cannot
    make progress: if the value or gradient is NaN, or if a line search fails and the next search would repeat it.
    Check ``grad`` for convergence, and ``state`` for why a search failed. The
    run is one ``lax.while_loop``, which can be compiled with the surrounding code. Links receive the extra arguments
    ``value``, ``grad``, ``value_fn`` and ``grad_fn`` if they read them.

    >>> import chainax as cx
    >>> rosenbrock = lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    >>> found = cx.minimize(cx.lbfgs(), rosenbrock, jax.numpy.array([-1.2, 1.0]))
    >>> [round(x, 3) for x in found.params.tolist()]
    [1.0, 1.0]
    """
    check_function(value_fn)
    check_roles("minimize(tx, value_fn, params)", tx=tx, params=params)
    space, limit = Space(params), _limit(max_steps)

    def f(trained: Params) -> jax.Array:
        return value_fn(space.fill_holes(trained))

    start = jax.tree.map(jnp.asarray, space.drop_holes())
    state = tx.init(start)
    first = Minimum(start, *value_and_grad_from_state(tx, f, start, state), state)

    def unfinished(run: tuple[jax.Array, Minimum, jax.Array]) -> jax.Array:
        tried, at, stuck = run
        return (tried < limit) & _exceeds(at.grad, tolerance) & ~_is_nan((at.value, at.grad)) & ~stuck

    def descend(run: tuple[jax.Array, Minimum, jax.Array]) -> tuple[jax.Array, Minimum, jax.Array]:
        tried, at, _ = run
        new = _descend(tx, f, at)
        return tried + 1, new, _is_stuck(tx, at, new)

    _, end, _ = jax.lax.while_loop(unfinished, descend, (jnp.zeros((), jnp.int32), first, jnp.array(False)))
    return end._replace(params=space.fill_holes(end.params))


def _descend(tx: chain | Link, f: ValueFn, at: Minimum) -> Minimum:
    known = {"value": at.value, "grad": at.grad, "value_fn": f, "grad_fn": lambda p: conj(value_and_grad(f, p)[1])}
    read = {name for link in tx.links.values() for name in link.extra}
    extra = {name: x for name, x in known.items() if name in read}
    params, state = tx.step(at.params, at.state, conj(at.grad), **extra)
    return Minimum(params, *value_and_grad_from_state(tx, f, params, state), state)


def _is_stuck(tx: chain | Link, before: Minimum, after: Minimum) -> jax.Array:
    """Whether a search failed, and everything that the next step depends on is unchanged.

    The state of the searches may change if they had no shorter step to try.
    """
    searches = [name for name, link in tx.links.items() if isinstance(link, LineSearch)]
    scheduled = any(isinstance(x, Schedule) for x in jax.tree.leaves(tx, is_leaf=lambda x: isinstance(x, Schedule)))
    if not searches or scheduled or any(getattr(link, "random", False) for _, link in all_links(tx)):
        return jnp.array(False)
    failed = jnp.stack([after.state.links[name]["failed"] for name in searches])

    def unchanged() -> jax.Array:
        own = [_same(before.state.links[name], after.state.links[name]) for name in searches]
        others = ((at.params, {n: x for n, x in at.state.links.items() if n not in searches}) for at in (before, after))
        return _same(*others) & jnp.all((failed == 2) | jnp.stack(own))

    return jax.lax.cond(jnp.all(failed > 0), unchanged, lambda: jnp.array(False))


def _same(a: PyTree, b: PyTree) -> jax.Array:
    """Whether two trees are equal, where NaN equals NaN."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
    same = [jnp.all((x == y) | ((x != x) & (y != y))) for x, y in pairs]
    return functools.reduce(jnp.logical_and, same, jnp.array(True))


def _is_nan(tree: PyTree) -> jax.Array:
    return functools.reduce(jnp.logical_or, [jnp.any(jnp.isnan(x)) for x in jax.tree.leaves(tree)])


def _exceeds(gradient: Updates, tolerance: float) -> jax.Array:
    """Whether any coordinate exceeds the tolerance. NaN does not."""
    leaves = [jnp.any(jnp.abs(g) > tolerance) for g in jax.tree.leaves(gradient)]
    return functools.reduce(jnp.logical_or, leaves, jnp.array(False))
