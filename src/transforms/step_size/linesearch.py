"""Line searches: choose how far to move along the update, at the cost of more function evaluations.

``update`` and ``step`` require ``value`` and ``grad``, the function's value and gradient at the
parameters as returned by ``jax.value_and_grad``, and ``value_fn``, the function itself, which takes only the
parameters. It is called on parameters in float32 or better. If the update does not
point downhill, or no lower point is found, the update becomes 0. The state reports on the last search:
``state.links[name]`` holds ``evaluations``, the number of lengths evaluated; ``failed``, 1 if no lower
point was found, and 2 if in addition no shorter step would move the parameters; and ``uphill``, 1 if the incoming
update pointed uphill. A search supports forward-mode differentiation, but not reverse mode, and hence no
hypergradients.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ...core.engine.checks import as_plain
from ...core.engine.state import State
from ...core.facade.chain import chain
from ...core.facade.link import Link, Treewise, transform
from ...core.values.boxes import reboxed
from ...core.values.contents import code
from ...core.values.hyper import Hyper, hyper, integer, whole
from ...core.values.numerics import sqrt
from ...core.values.tree import show
from ...core.values.types import DType, Extra, Params, Scalar, Updates
from ...core.values.value import static
from ..shared.vector import Space, Vector, add, conj, dot, total

ValueFn: TypeAlias = Callable[[Params], jax.Array]
"""The function to minimize."""


class Point(NamedTuple):
    """A step length α, the value φ(α) there, and the slope φ′(α)."""

    alpha: jax.Array
    value: jax.Array
    slope: jax.Array


class Ray:
    """The function along the update: φ(α) = f(θ + αu)."""

    def __init__(self, updates: Updates, params: Params, extra: Extra, dtype: DType) -> None:
        self.space, self.params, self.value_fn, self.dtype = Space(params), params, extra["value_fn"], dtype
        self.x, self.u = self.space.read(params), self.space.read(updates)
        self.gradient = self.space.read(conj(extra["grad"]), "The gradients passed as grad")
        value = jnp.asarray(extra["value"], dtype)
        self.start = Point(jnp.zeros((), dtype), value, dot(self.u, self.gradient, dtype))
        self.downhill = (self.start.slope < 0) & jnp.isfinite(value)

    def value(self, alpha: jax.Array) -> jax.Array:
        return self._value_at(add(self.x, alpha, self.u))

    def point(self, alpha: jax.Array) -> tuple[Point, Vector]:
        """The point at ``alpha``, and the gradient there."""
        value, gradient = jax.value_and_grad(self._value_at)(add(self.x, alpha, self.u))
        return Point(alpha, value, dot(self.u, gradient, self.dtype)), gradient

    def moves(self, alpha: jax.Array) -> jax.Array:
        """Whether θ + αu differs from θ after rounding."""
        moved = add(self.x, alpha, self.u)
        return total([(new != x).astype(self.dtype) for new, x in zip(moved, self.x)], self.dtype) > 0

    def _value_at(self, x: Vector) -> jax.Array:
        return jnp.asarray(self.value_fn(self.space.write(x, self.params)), self.dtype)

    def scaled(self, alpha: jax.Array, updates: Updates) -> Updates:
        """αu, and 0 for α = 0 even where u is not finite."""
        return self.space.write([jnp.where(alpha == 0, 0.0, alpha.astype(u.dtype) * u) for u in self.u], updates)

    def kept(self, value: jax.Array, gradient: Vector) -> dict[str, Any]:
        """The part of the state that `value_and_grad_from_state` reads."""
        return {"value": value, "grad": conj(self.space.write(gradient, self.space.drop_holes()))}


REPORT = ("evaluations", "failed", "uphill")
"""The integers that the state holds about the last search."""


class LineSearch(Treewise):
    """Base class of the line searches."""

    role = "search"
    knows_shards = True
    sees_holes = True
    hides_infinite = True
    reads_params = True
    extra = ("value", "grad", "value_fn")
    nonnegative = REPORT
    absent = dict.fromkeys(REPORT)
    no_reverse_mode = "the number of iterations of its loop is not known in advance, and JAX cannot reverse such a loop"

    def metrics(self, entry):
        length = jnp.where(entry["failed"] > 0, 0.0, entry["learning_rate"])
        return {"step_length": length, "evaluations": entry["evaluations"]}

    @staticmethod
    def _report(evaluations: Any = 0, failed: Any = 0, uphill: Any = 0) -> dict[str, Any]:
        return {name: jnp.asarray(x, jnp.int32) for name, x in zip(REPORT, (evaluations, failed, uphill))}

    @staticmethod
    def _unknown(space: Space) -> dict[str, Any]:
        zeros = jax.tree.map(jnp.zeros_like, space.drop_holes())
        return {"value": jnp.full((), math.inf, space.dtype), "grad": zeros}


@transform
class scale_by_backtracking_linesearch(LineSearch):
    """Shorten the update until the function decreases enough. Armijo 1966; Nocedal & Wright 2006, Algorithm 3.1.

    ``update`` and ``step`` require ``value``, ``grad`` and ``value_fn``. The next search starts at
    τ times the last length. With ``store_grad`` the search also computes the gradient at the point
    it returns, for `value_and_grad_from_state`.
    """

    max_backtracking_steps: Hyper = whole("n", "maximum number of evaluations", default=30)
    slope_rtol: Hyper = hyper("c", "required fraction of the decrease that the slope predicts", default=1e-4, high=1.0)
    decrease_factor: Hyper = hyper("ρ", "factor of a length that is too long", default=0.8, high=1.0)
    increase_factor: Hyper = hyper(
        "τ", "factor from the last length to the first one tried", default=1.5, low=1.0, closed=True
    )
    max_learning_rate: Hyper = hyper("α_max", "the largest length", default=1.0)
    store_grad: bool = static("whether the state holds value and gradient", default=False, one_of=(False, True))

    equation = "α ← min(τα, α_max),  α ← ρα until f(θ+αu) ≤ f + cα·uᵀ∇f, for n lengths at most,  u ← αu"

    def init_tree(self, params):
        space = Space(params)
        kept = self._unknown(space) if self.store_grad else {}
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
        """The first length to try. With τ = ∞ it is the largest, even if the last length was rounded to 0."""
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
    """The state of a zoom search."""

    steps: jax.Array
    done: jax.Array
    alpha: jax.Array
    """The next length to try."""
    low: Point
    """The lowest point so far with a sufficient decrease."""
    high: Point
    """A length between ``low`` and this point satisfies both conditions. At ∞ until such a point is known."""
    gradient: Vector
    """The gradient at ``low``."""


@transform
class scale_by_zoom_linesearch(LineSearch):
    """Find a length that satisfies the strong Wolfe conditions: the function is lower and flatter there.

    ``update`` and ``step`` require ``value``, ``grad`` and ``value_fn``. Nocedal & Wright 2006,
    Algorithms 3.5 and 3.6, with cubic interpolation (3.59), and bisection
    if that leaves the bracket or shrinks it too little (Moré & Thuente 1994). Departs
    from the book where differences of f are at most ε|f| and may be rounding errors: there the slope decides,
    by f′(α) ≤ (2c₁−1)f′ (Hager & Zhang 2005, the approximate Wolfe conditions). ε = 0 disables this.
    """

    max_linesearch_steps: Hyper = whole("n", "maximum number of evaluations", default=20)
    max_learning_rate: Hyper = hyper("α_max", "the largest length", default=math.inf, closed=True)
    increase_factor: Hyper = hyper("τ", "factor of a length that is too short", default=2.0, low=1.0)
    slope_rtol: Hyper = hyper("c₁", "required fraction of the decrease that the slope predicts", default=1e-4, high=1.0)
    curv_rtol: Hyper = hyper("c₂", "fraction of the slope that may remain", default=0.9, high=1.0)
    approx_dec_rtol: Hyper = hyper("ε", "relative rounding error of the value", default=1e-6)
    initial_guess_strategy: str = static(
        "start at the last length found, or at 1, which suits quasi-Newton updates",
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
                "`scale_by_zoom_linesearch`: both conditions can certainly be met only if slope_rtol < curv_rtol, "
                f"got {code(c1)} and {code(c2)}"
            )

    def init_tree(self, params):
        space = Space(params)
        return {"learning_rate": jnp.ones((), space.dtype), **self._unknown(space), **self._report()}

    def update_tree(self, updates, state, params, at):
        ray = Ray(updates, params, at.extra, at.dtype)
        last, one = state["learning_rate"].astype(at.dtype), jnp.ones((), at.dtype)
        guess = jnp.minimum(last if self.initial_guess_strategy == "keep" else one, self.max_learning_rate)
        unknown = Point(*(jnp.full((), math.inf, at.dtype) for _ in Point._fields))
        begin = Bracket(jnp.zeros((), jnp.int32), ~ray.downhill, guess, ray.start, unknown, ray.gradient)
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
        in_noise = (noise > 0) & (jnp.abs(change) <= noise) & (trial.slope <= (2 * self.slope_rtol - 1) * start.slope)
        lowest = trial.value - low.value <= self.approx_dec_rtol * jnp.abs(low.value)  # or within its rounding error
        good = (falls & lowest) | in_noise
        flat = jnp.abs(trial.slope) <= -self.curv_rtol * start.slope
        rises = trial.slope * (high.alpha - low.alpha) >= 0  # from the trial point towards the high end
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


def _at_most(alpha: jax.Array, longest: Scalar) -> jax.Array:
    """The minimum. If both are equal, as where the longest length is 0, derivatives are those of ``longest``."""
    return jnp.where(alpha < longest, alpha, longest)


def _between(a: Point, b: Point, before: jax.Array) -> jax.Array:
    """The minimum of the cubic through two points with their slopes, (3.59), or the midpoint if that is unusable."""
    width = b.alpha - a.alpha
    d1 = a.slope + b.slope + 3 * (a.value - b.value) / width
    d2 = jnp.sign(width) * sqrt(jnp.square(d1) - a.slope * b.slope)
    fraction = 1 - (b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2)
    # Not if it is NaN, or if the last step did not shrink the bracket to two thirds.
    trusted = (fraction > 0) & (fraction < 1) & (jnp.abs(width) <= 2 / 3 * jnp.abs(before))
    return a.alpha + width * jnp.where(trusted, fraction, 0.5)


def value_and_grad_from_state(
    tx: chain | Link, value_fn: ValueFn, params: Params, state: State
) -> tuple[jax.Array, Updates]:
    """The value and gradient at ``params``: from the state if the last step's search stored them, else computed.

    They are read from the state only if the search is the chain's last link, so that no later link moves the
    parameters. For low-precision parameters they are those before rounding. The function must be that of the last
    step: if it changes with the batch, call ``jax.value_and_grad``. The gradient is ``None`` for
    parameters that are not floating-point.

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
    check_function(value_fn)
    trained, state = as_plain("value_and_grad_from_state(tx, value_fn, params, state)", tx, params, state)

    def compute() -> tuple[jax.Array, Updates]:
        return value_and_grad(lambda moved: value_fn(trained.put_back(moved)), trained.params)

    name, link = next(reversed(tx.links.items()), ("", None))
    if isinstance(link, LineSearch) and "grad" in state.links[name]:
        kept = state.links[name]["value"], state.links[name]["grad"]
        value, grad = jax.lax.cond(
            jnp.isfinite(kept[0]),
            lambda: kept,
            lambda: jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), compute(), kept),
        )
    else:
        value, grad = compute()
    return value, reboxed(grad, trained.boxed)


def value_and_grad(value_fn: ValueFn, params: Params) -> tuple[jax.Array, Updates]:
    """The value and gradient with respect to the trainable parameters; ``None`` for all others."""
    space = Space(params)
    return jax.value_and_grad(lambda trained: value_fn(space.fill_holes(trained)))(space.drop_holes())


def check_function(value_fn: object) -> None:
    """Raise unless it is a function."""
    if not callable(value_fn):
        raise TypeError(f"`value_fn` must be a function of the parameters, got {show(value_fn)}")
