"""Line searches: how far to go along the update that reaches them, at the price of more evaluations.

``update`` and ``step`` must be given ``value`` and ``grad``, the function's value and gradient at the
parameters as ``jax.value_and_grad`` returns them, and ``value_fn``, the function itself, of the
parameters alone. It is called on parameters widened to float32 or better. Where the update does not
point downhill, or nothing lower is found, it becomes 0, and the state says so: of the last search,
``state.links[name]`` holds ``evaluations``, how many lengths were evaluated, ``failed``, 1 if no lower
point was found, and 2 if also no shorter step would move the parameters, and ``uphill``, 1 if the update
that came pointed uphill. Forward-mode derivatives pass through a search; reverse-mode ones, and so
hypergradients, do not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.engine.checks import check_roles, check_state
from ...core.engine.state import State
from ...core.facade.chain import chain
from ...core.facade.link import Link, Treewise, transform
from ...core.values.hyper import Hyper, check_whole, hyper, integer, whole
from ...core.values.numerics import sqrt
from ...core.values.schedule import Schedule
from ...core.values.tree import show
from ...core.values.value import Range, code, static
from ..shared.vector import Space, Vector, add, conj, dot, total
from ..shared.wrappers import all_links


class Point(NamedTuple):
    """A step length α, the value φ(α) there, and the slope φ′(α)."""

    alpha: jax.Array
    value: jax.Array
    slope: jax.Array


class Ray:
    """The function along the update: φ(α) = f(θ + αu)."""

    def __init__(self, updates: Any, params: Any, extra: dict[str, Any], dtype: Any) -> None:
        self.space, self.params, self.value_fn, self.dtype = Space(params), params, extra["value_fn"], dtype
        self.x, self.u = self.space.read(params), self.space.read(updates)
        self.gradient = self.space.read(conj(extra["grad"]), "The gradients passed as grad")
        value = jnp.asarray(extra["value"], dtype)
        self.start = Point(jnp.zeros((), dtype), value, dot(self.u, self.gradient, dtype))
        self.downhill = (self.start.slope < 0) & jnp.isfinite(value)

    def value(self, alpha: jax.Array) -> jax.Array:
        return self._value_at(add(self.x, alpha, self.u))

    def point(self, alpha: jax.Array) -> tuple[Point, Vector]:
        """The point, and the whole gradient there."""
        value, gradient = jax.value_and_grad(self._value_at)(add(self.x, alpha, self.u))
        return Point(alpha, value, dot(self.u, gradient, self.dtype)), gradient

    def moves(self, alpha: jax.Array) -> jax.Array:
        """Whether θ + αu, rounded, is another point than θ."""
        moved = add(self.x, alpha, self.u)
        return total([(new != x).astype(self.dtype) for new, x in zip(moved, self.x)], self.dtype) > 0

    def _value_at(self, x: Vector) -> jax.Array:
        return jnp.asarray(self.value_fn(self.space.write(x, self.params)), self.dtype)

    def scaled(self, alpha: jax.Array, updates: Any) -> Any:
        """αu, and 0 for α = 0 whatever u is."""
        return self.space.write([jnp.where(alpha == 0, 0.0, alpha.astype(u.dtype) * u) for u in self.u], updates)

    def kept(self, value: jax.Array, gradient: Vector) -> dict[str, Any]:
        """What `value_and_grad_from_state` reads."""
        return {"value": value, "grad": conj(self.space.write(gradient, self.space.drop_holes()))}


REPORT = ("evaluations", "failed", "uphill")
"""What the state holds of the last search, as whole numbers."""


class LineSearch(Treewise):
    """What the searches share."""

    role = "search"
    knows_shards = True
    sees_holes = True
    hides_infinite = True
    reads_params = True
    extra = ("value", "grad", "value_fn")
    nonnegative = REPORT
    absent = dict.fromkeys(REPORT)
    no_reverse_mode = "its loop has as many turns as the search needs, and JAX keeps no record of them"

    @staticmethod
    def _report(evaluations: Any = 0, failed: Any = 0, uphill: Any = 0) -> dict[str, Any]:
        return {name: jnp.asarray(x, jnp.int32) for name, x in zip(REPORT, (evaluations, failed, uphill))}

    @staticmethod
    def _nothing_kept(space: Space) -> dict[str, Any]:
        zeros = jax.tree.map(jnp.zeros_like, space.drop_holes())
        return {"value": jnp.full((), math.inf, space.dtype), "grad": zeros}


@transform
class scale_by_backtracking_linesearch(LineSearch):
    """Shorten the update until the function falls enough. Armijo 1966; Nocedal & Wright 2006, Algorithm 3.1.

    ``update`` and ``step`` must be given ``value``, ``grad`` and ``value_fn``. The next search begins at
    the last length times τ. With ``store_grad`` the gradient at the point
    found is computed, for `value_and_grad_from_state`.
    """

    max_backtracking_steps: Hyper = whole("n", "evaluations before it gives up", default=30)
    slope_rtol: Hyper = hyper("c", "the share of the fall that the slope promises", default=1e-4, high=1.0)
    decrease_factor: Hyper = hyper("ρ", "by which a length that is too long is multiplied", default=0.8, high=1.0)
    increase_factor: Hyper = hyper(
        "τ", "by which the last length is multiplied to begin with", default=1.5, low=1.0, closed=True
    )
    max_learning_rate: Hyper = hyper("α_max", "the largest length", default=1.0)
    store_grad: bool = static("whether value and gradient are kept", default=False, one_of=(False, True))

    equation = "α ← min(τα, α_max),  α ← ρα until f(θ+αu) ≤ f + cα·uᵀ∇f, for n lengths at most,  u ← αu"

    def init_tree(self, params):
        space = Space(params)
        kept = self._nothing_kept(space) if self.store_grad else {}
        return {"learning_rate": jnp.asarray(self.max_learning_rate, space.dtype), **kept, **self._report()}

    def update_tree(self, updates, state, params, at):
        ray = Ray(updates, params, at.extra, at.dtype)
        alpha = self._first(state["learning_rate"].astype(at.dtype))
        begin = jnp.ones((), jnp.int32), alpha, ray.value(alpha)
        too_long, shorten = functools.partial(self._too_long, ray), functools.partial(self._shorten, ray)
        steps, alpha, value = jax.lax.while_loop(too_long, shorten, begin)
        moves = ray.moves(alpha)
        found = jnp.where(self._falls(ray, alpha, value) & moves, alpha, 0.0)
        kept = {}
        if self.store_grad:
            point, gradient = ray.point(found)
            kept = ray.kept(point.value, gradient)
        failed = jnp.where(found > 0, 0, jnp.where(ray.downhill & ~moves, 2, 1))
        report = self._report(steps, failed, ray.start.slope > 0)
        return ray.scaled(found, updates), {"learning_rate": alpha, **kept, **report}

    def _first(self, last):
        """The length to begin with: with τ = ∞ the largest, also after one that was rounded to 0."""
        longest = jnp.asarray(self.max_learning_rate, last.dtype)
        longer = _at_most(self.increase_factor * last, longest)
        if isinstance(self.increase_factor, float):
            return longest if math.isinf(self.increase_factor) else longer
        return jnp.where(jnp.isinf(self.increase_factor), longest, longer)

    def _falls(self, ray, alpha, value):
        return ray.downhill & (value <= ray.start.value + self.slope_rtol * alpha * ray.start.slope)

    def _too_long(self, ray, search):
        steps, alpha, value = search
        return ray.downhill & (steps < integer(self.max_backtracking_steps)) & ~self._falls(ray, alpha, value)

    def _shorten(self, ray, search):
        steps, alpha, _ = search
        alpha = self.decrease_factor * alpha
        return steps + 1, alpha, ray.value(alpha)


class Bracket(NamedTuple):
    """A zoom search under way."""

    steps: jax.Array
    done: jax.Array
    alpha: jax.Array
    """The length to try next."""
    low: Point
    """The lowest point so far of those that fall enough."""
    high: Point
    """Between here and ``low`` lies a length that satisfies both conditions; at ∞ while no such point is known."""
    gradient: Vector
    """At ``low``."""


@transform
class scale_by_zoom_linesearch(LineSearch):
    """Find a length where the function is lower and flatter: the strong Wolfe conditions.

    ``update`` and ``step`` must be given ``value``, ``grad`` and ``value_fn``. Nocedal & Wright 2006,
    Algorithms 3.5 and 3.6, with cubic interpolation (3.59), and the bracket's
    midpoint where that leaves the bracket or has shrunk it too little (Moré & Thuente 1994). Departs
    from the book where differences of f are at most ε|f| and may be rounding: there the slope decides,
    by f′(α) ≤ (2c₁−1)f′ (Hager & Zhang 2005, the approximate Wolfe conditions). ε = 0 leaves that out.
    """

    max_linesearch_steps: Hyper = whole("n", "evaluations before the lowest point so far is taken", default=20)
    max_learning_rate: Hyper = hyper("α_max", "the largest length", default=math.inf, closed=True)
    increase_factor: Hyper = hyper("τ", "by which a length that is too short is multiplied", default=2.0, low=1.0)
    slope_rtol: Hyper = hyper("c₁", "the share of the fall that the slope promises", default=1e-4, high=1.0)
    curv_rtol: Hyper = hyper("c₂", "the share of the slope that may be left", default=0.9, high=1.0)
    approx_dec_rtol: Hyper = hyper("ε", "how much of the value is rounding", default=1e-6)
    initial_guess_strategy: str = static(
        "whether to begin at the last length found, or at 1 as suits quasi-Newton updates",
        default="keep",
        one_of=("keep", "one"),
    )

    equation = (
        "u ← αu,  f(α) ≤ f + c₁αf′ (or f ± ε|f| and f′(α) ≤ (2c₁−1)f′),  |f′(α)| ≤ c₂|f′|,  α ← min(τα, α_max),  "
        "for n lengths at most"
    )

    def check(self) -> None:
        c1, c2 = self.slope_rtol, self.curv_rtol
        if isinstance(c1, float) and isinstance(c2, float) and c1 >= c2:
            raise ValueError(
                "`scale_by_zoom_linesearch`: both conditions can be met for sure only if slope_rtol < curv_rtol, "
                f"got {code(c1)} and {code(c2)}"
            )

    def init_tree(self, params):
        space = Space(params)
        return {"learning_rate": jnp.ones((), space.dtype), **self._nothing_kept(space), **self._report()}

    def update_tree(self, updates, state, params, at):
        ray = Ray(updates, params, at.extra, at.dtype)
        last, one = state["learning_rate"].astype(at.dtype), jnp.ones((), at.dtype)
        guess = jnp.minimum(last if self.initial_guess_strategy == "keep" else one, self.max_learning_rate)
        nowhere = Point(*(jnp.full((), math.inf, at.dtype) for _ in Point._fields))
        begin = Bracket(jnp.zeros((), jnp.int32), ~ray.downhill, guess, ray.start, nowhere, ray.gradient)
        end = jax.lax.while_loop(self._unfinished, functools.partial(self._try, ray), begin)
        alpha = end.low.alpha
        last = jnp.where(alpha > 0, alpha, last)
        report = self._report(end.steps, alpha == 0, ray.start.slope > 0)
        return ray.scaled(alpha, updates), {"learning_rate": last, **ray.kept(end.low.value, end.gradient), **report}

    def _unfinished(self, search):
        return ~search.done & (search.steps < integer(self.max_linesearch_steps))

    def _try(self, ray, search):
        """Evaluate one length: the body of Algorithm 3.5 while ``high`` is at ∞, then that of 3.6."""
        start, low, high = ray.start, search.low, search.high
        trial, gradient = ray.point(search.alpha)
        change, noise = trial.value - start.value, self.approx_dec_rtol * jnp.abs(start.value)
        falls = change <= self.slope_rtol * trial.alpha * start.slope
        drowned = (noise > 0) & (jnp.abs(change) <= noise) & (trial.slope <= (2 * self.slope_rtol - 1) * start.slope)
        lowest = trial.value - low.value <= self.approx_dec_rtol * jnp.abs(low.value)  # or too near to it to tell
        good = (falls & lowest) | drowned
        flat = jnp.abs(trial.slope) <= -self.curv_rtol * start.slope
        rises = trial.slope * (high.alpha - low.alpha) >= 0  # from the trial towards the high end
        longest = jnp.isinf(high.alpha) & ~rises & (trial.alpha >= self.max_learning_rate)
        new_low = _choose(good, trial, low)
        new_high = _choose(good, _choose(rises, low, high), trial)
        longer = _at_most(self.increase_factor * trial.alpha, self.max_learning_rate)
        return Bracket(
            steps=search.steps + 1,
            done=good & (flat | longest),
            alpha=jnp.where(jnp.isinf(new_high.alpha), longer, _between(new_low, new_high, high.alpha - low.alpha)),
            low=new_low,
            high=new_high,
            gradient=[jnp.where(good, new, old) for new, old in zip(gradient, search.gradient)],
        )


def _choose(first: jax.Array, a: Point, b: Point) -> Point:
    return Point(*(jnp.where(first, x, y) for x, y in zip(a, b)))


def _at_most(alpha: Any, longest: Any) -> jax.Array:
    """The smaller one; of two that are equal the second, also in derivatives: so where the longest length is 0."""
    return jnp.where(alpha < longest, alpha, longest)


def _between(a: Point, b: Point, before: jax.Array) -> jax.Array:
    """The minimum of the cubic through two points and their slopes, (3.59), or else the midpoint."""
    width = b.alpha - a.alpha
    d1 = a.slope + b.slope + 3 * (a.value - b.value) / width
    d2 = jnp.sign(width) * sqrt(jnp.square(d1) - a.slope * b.slope)
    share = 1 - (b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2)
    # Not where it is NaN, nor twice running without the bracket shrinking to two thirds.
    trusted = (share > 0) & (share < 1) & (jnp.abs(width) <= 2 / 3 * jnp.abs(before))
    return a.alpha + width * jnp.where(trusted, share, 0.5)


def value_and_grad_from_state(
    tx: chain | Link, value_fn: Callable[[Any], jax.Array], params: Any, state: State
) -> tuple[jax.Array, Any]:
    """The value and gradient at ``params``: from the state if the last step's search has found them, else computed.

    A search keeps them if it is the chain's last link, so that nothing moves the parameters on; those of
    low-precision parameters as they are before they are rounded. The function must be that of the last
    step: if it changes with the batch, call ``jax.value_and_grad``. The gradient is ``None`` where a
    parameter is not a floating-point number.

    >>> import chainax as cx
    >>> tx, f = cx.lbfgs(), lambda x: jax.numpy.sum((x - 3) ** 2)
    >>> params = jax.numpy.zeros(2)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     value, grad = cx.value_and_grad_from_state(tx, f, params, state)
    ...     params, state = tx.step(params, state, grad, value=value, grad=grad, value_fn=f)
    >>> [round(x, 3) for x in params.tolist()]
    [3.0, 3.0]
    """
    _check_function(value_fn)
    check_state("value_and_grad_from_state(tx, value_fn, params, state)", tx, params, state)
    name, link = next(reversed(tx.links.items()), ("", None))
    if not isinstance(link, LineSearch) or "grad" not in state.links[name]:
        return _value_and_grad(value_fn, params)
    kept = state.links[name]["value"], state.links[name]["grad"]

    def compute() -> tuple[jax.Array, Any]:
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), _value_and_grad(value_fn, params), kept)

    return jax.lax.cond(jnp.isfinite(kept[0]), lambda: kept, compute)


def _value_and_grad(value_fn: Callable[[Any], jax.Array], params: Any) -> tuple[jax.Array, Any]:
    space = Space(params)
    return jax.value_and_grad(lambda drop_holes: value_fn(space.whole(drop_holes)))(space.drop_holes())


def _check_function(value_fn: Any) -> None:
    if not callable(value_fn):
        raise TypeError(f"`value_fn` must be a function of the parameters, got {show(value_fn)}")


def _limit(max_steps: Any) -> jax.Array | int:
    limit = check_whole("minimize.max_steps", max_steps, Range(low=0.0))
    if isinstance(limit, Schedule):
        raise ValueError(f"`minimize.max_steps` must be a whole number or an integer array, got {code(max_steps)}")
    return integer(limit)


class Minimum(NamedTuple):
    """Where `minimize` has come to."""

    params: Any
    value: jax.Array
    grad: Any
    state: State


def minimize(
    tx: chain | Link,
    value_fn: Callable[[Any], jax.Array],
    params: Any,
    *,
    max_steps: int | jax.Array = 1000,
    tolerance: float = 1e-6,
) -> Minimum:
    """Follow a chain down a function until no coordinate of the gradient exceeds ``tolerance``.

    At most ``max_steps`` steps are tried, those that a guard refuses among them. The run ends early where it
    cannot go on: at a value or gradient of NaN, and where a line search fails and the next would be the same,
    since nothing has changed. Whether it has arrived, ``grad`` says, and why a search failed, ``state``. The
    whole run is one ``lax.while_loop``, to be compiled with what is round it. Links get the extra arguments
    ``value``, ``grad``, ``value_fn`` and ``grad_fn`` if they read them.

    >>> import chainax as cx
    >>> rosenbrock = lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    >>> found = cx.minimize(cx.lbfgs(), rosenbrock, jax.numpy.array([-1.2, 1.0]))
    >>> [round(x, 3) for x in found.params.tolist()]
    [1.0, 1.0]
    """
    _check_function(value_fn)
    check_roles("minimize(tx, value_fn, params)", tx=tx, params=params)
    space, limit = Space(params), _limit(max_steps)

    def f(drop_holes: Any) -> jax.Array:
        return value_fn(space.whole(drop_holes))

    start = jax.tree.map(jnp.asarray, space.drop_holes())
    state = tx.init(start)
    first = Minimum(start, *value_and_grad_from_state(tx, f, start, state), state)

    def goes_on(turn: tuple) -> jax.Array:
        tried, at, stuck = turn
        return (tried < limit) & _exceeds(at.grad, tolerance) & ~_is_nan((at.value, at.grad)) & ~stuck

    def descend(turn: tuple) -> tuple:
        tried, at, _ = turn
        new = _descend(tx, f, at)
        return tried + 1, new, _is_stuck(tx, at, new)

    _, end, _ = jax.lax.while_loop(goes_on, descend, (jnp.zeros((), jnp.int32), first, jnp.array(False)))
    return end._replace(params=space.whole(end.params))


def _descend(tx: chain | Link, f: Callable[[Any], jax.Array], at: Minimum) -> Minimum:
    known = {"value": at.value, "grad": at.grad, "value_fn": f, "grad_fn": lambda p: conj(_value_and_grad(f, p)[1])}
    read = {name for link in tx.links.values() for name in link.extra}
    extra = {name: x for name, x in known.items() if name in read}
    params, state = tx.step(at.params, at.state, conj(at.grad), **extra)
    return Minimum(params, *value_and_grad_from_state(tx, f, params, state), state)


def _is_stuck(tx: chain | Link, before: Minimum, after: Minimum) -> jax.Array:
    """Whether a search has failed, and whatever the next step depends on is as it was before this one.

    The searches' own state may change if they had no shorter step to try.
    """
    searches = [name for name, link in tx.links.items() if isinstance(link, LineSearch)]
    scheduled = any(isinstance(x, Schedule) for x in jax.tree.leaves(tx, is_leaf=lambda x: isinstance(x, Schedule)))
    if not searches or scheduled or any(getattr(link, "random", False) for _, link in all_links(tx)):
        return jnp.array(False)
    failed = jnp.stack([after.state.links[name]["failed"] for name in searches])

    def unchanged() -> jax.Array:
        own = [_same(before.state.links[name], after.state.links[name]) for name in searches]
        rest = ((at.params, {n: x for n, x in at.state.links.items() if n not in searches}) for at in (before, after))
        return _same(*rest) & jnp.all((failed == 2) | jnp.stack(own))

    return jax.lax.cond(jnp.all(failed > 0), unchanged, lambda: jnp.array(False))


def _same(a: Any, b: Any) -> jax.Array:
    """Whether all numbers of two trees are equal, NaN to NaN."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
    same = [jnp.all((x == y) | ((x != x) & (y != y))) for x, y in pairs]
    return functools.reduce(jnp.logical_and, same, jnp.array(True))


def _is_nan(tree: Any) -> jax.Array:
    return functools.reduce(jnp.logical_or, [jnp.any(jnp.isnan(x)) for x in jax.tree.leaves(tree)])


def _exceeds(gradient: Any, tolerance: float) -> jax.Array:
    """Whether a coordinate does; NaN does not."""
    leaves = [jnp.any(jnp.abs(g) > tolerance) for g in jax.tree.leaves(gradient)]
    return functools.reduce(jnp.logical_or, leaves, jnp.array(False))
