"""A test of learning rates: one run in which the rate grows at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core.engine.checks import check_roles
from ..core.facade.transformation import Transformation
from ..core.values.contents import code
from ..core.values.tree import flatten, show
from ..core.values.types import Params, PyTree
from ..core.values.value import Range, check_number
from ..plotting import imported
from ..transforms.shared.vector import Space, conj
from ..transforms.step_size.linesearch import value_and_grad
from .grid import replaced


class RateRange(NamedTuple):
    """The result of `rate_range`, one entry a step. As text, it says what rate to take."""

    rates: np.ndarray
    """The rate of each step."""
    losses: np.ndarray
    """The loss of each batch, before its step: the first that a rate changes is the next one."""
    smoothed: np.ndarray
    """The running median over a twentieth of the steps, at least 5. Infinite where most are not finite."""

    @property
    def diverges_at(self) -> float | None:
        """The first rate at which the run has lost half of what it had gained, or ``None``.

        There the smoothed loss is infinite, or higher than the least before it by half of the descent from the first
        loss to that. The rise must also exceed a tenth of the least loss, and 8 standard errors of a median before it:
        the least of many medians is some 3 of them too low.
        """
        return float(self.rates[self._end]) if self._end < len(self.rates) else None

    @property
    def suggestion(self) -> float | None:
        """A tenth of the rate at which the run diverges, or ``None`` if it does not, or not within the range.

        The best constant rate is often between a half and a tenth of the largest stable one (Bengio 2012,
        arXiv:1206.5533, Section 3.1.1, says a half); the run passes that before it is seen to diverge.
        """
        diverges_at = self.diverges_at
        return diverges_at / 10 if diverges_at and diverges_at / 10 >= self.rates[0] else None

    @property
    def _end(self) -> int:
        """The number of steps before the run has diverged."""
        if not np.isfinite(first := self.losses[0]):
            return 0
        least = np.minimum.accumulate(self.smoothed)
        finite = np.isfinite(self.losses) & np.isfinite(self.smoothed)
        deviations = np.abs(np.subtract(self.losses, self.smoothed, where=finite, out=np.full(len(finite), np.inf)))
        width = _width(len(self.losses))
        errors = 1.25 * 1.48 * running_median(deviations, width) / width**0.5  # of a median, by the median deviation
        lowest = np.maximum.accumulate(np.where(self.smoothed == least, np.arange(len(least)), 0))
        error = np.maximum.accumulate(errors)[lowest]
        rise = np.subtract(self.smoothed, least, where=np.isfinite(least), out=np.full(len(least), np.inf))
        diverged = np.isinf(self.smoothed) | (rise > np.max([(first - least) / 2, abs(least) / 10, 8 * error], axis=0))
        return int(diverged.argmax()) if diverged.any() else len(self.rates)

    def __str__(self) -> str:
        lines = [f"{len(self.rates)} steps at rates from {self.rates[0]:.3g} to {self.rates[-1]:.3g}"]
        if not np.isfinite(self.losses[0]):
            return f"{lines[0]}\nthe loss is not finite before the first step"
        diverges_at, suggestion = self.diverges_at, self.suggestion
        lines.append(f"diverges at {diverges_at:.3g}" if diverges_at else "does not diverge: try a higher `high`")
        if suggestion:
            lines.append(f"suggestion: {suggestion:.3g}, a tenth of that")
        elif diverges_at:
            lines.append("no suggestion, as a tenth of that is below the range: try a lower `low`")
        return "\n".join(lines)

    def plot(self, ax: Any = None) -> Any:
        """Plot the losses against the rates, and return the matplotlib axes.

        Draws into ``ax``, or into the current axes. Vertical lines mark the suggestion and where the run diverges.
        The axis of losses ends at the largest before that.

        Errors: ``ImportError`` without matplotlib.
        """
        pyplot = imported("RateRange.plot")
        ax = pyplot.gca() if ax is None else ax
        ax.plot(self.rates, self.losses, alpha=0.3, label="loss")
        ax.plot(self.rates, self.smoothed, label="smoothed")
        for label, rate, style in (("diverges", self.diverges_at, ":"), ("suggestion", self.suggestion, "--")):
            if rate:
                ax.axvline(rate, color="black", linestyle=style, label=f"{label}: {rate:.3g}")
        shown = self.losses[: self._end]
        if len(shown := shown[np.isfinite(shown)]) and shown.min() < shown.max():
            margin = 0.05 * (shown.max() - shown.min())
            ax.set_ylim(shown.min() - margin, shown.max() + margin)
        ax.set_xscale("log")
        ax.set_xlabel("rate")
        ax.set_ylabel("loss")
        ax.legend()
        return ax


def rate_range(
    tx: Transformation,
    loss: Callable[[Params, PyTree], jax.Array],
    params: Params,
    batches: PyTree,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    field: str = "scale_by_lr.learning_rate",
) -> RateRange:
    """One run in which the rate grows by the same factor at every step, from ``low`` to ``high``.

    Smith 2017, arXiv:1506.01186, Section 3.3, with a geometric growth in place of the linear one. The run is one
    compiled loop of ``loss(params, batch)``, with a batch for each step: ``batches`` is a tree of arrays with the
    steps as first axis. The rate takes the place of the number, schedule or table in ``field`` (a path, as in `grid`);
    schedules in other fields run on. Links receive ``value``, ``grad``, ``value_fn`` and ``grad_fn`` if they read them.

    Give some hundred steps: with fewer, noise is hard to tell from divergence. The loss takes some steps to react to a
    rate, so ``diverges_at`` may come some steps after the limit of stability, and where gradients are noisy, somewhat
    before it. More steps, or a narrower range, bring it closer.

    Errors: ``TypeError`` for a ``tx`` that is not a chain and a ``loss`` that is not a function or not a scalar;
    ``ValueError`` for rates that do not increase from above 0 or that the field rejects, and for batches with
    different numbers of steps, or fewer than 3; those of `grid` for the field.

    >>> import chainax as cx
    >>> noise = 0.1 * jax.random.normal(jax.random.key(0), 300)
    >>> loss = lambda x, noise: 5 * (x - noise) ** 2  # its second derivative is 10: the limit of SGD is 2/10
    >>> print(cx.rate_range(cx.sgd(0.1), loss, jax.numpy.array(1.0), noise, low=1e-3))
    300 steps at rates from 0.001 to 1
    diverges at 0.228
    suggestion: 0.0228, a tenth of that
    """
    check_roles("rate_range(tx, loss, params, batches)", tx=tx, params=params)
    if not callable(loss):
        raise TypeError(f"`rate_range.loss` must be a function of the parameters and a batch, got {code(loss)}")
    positive = Range(low=0.0, open=True)
    low, high = check_number("rate_range.low", low, positive), check_number("rate_range.high", high, positive)
    if not low < high:
        raise ValueError(f"`rate_range.low` must be less than `rate_range.high`, got {low:g} and {high:g}")
    if field in tx.links:
        raise TypeError(
            f"`rate_range.field` must be the path of a number, such as 'scale_by_lr.learning_rate', got {field!r}"
        )
    for rate in (low, high):  # so that the field checks them
        replaced(tx, {field: rate})
    steps = _steps(batches)
    _check_scalar(loss, params, batches)
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    rates = np.geomspace(low, high, steps).astype(dtype)
    losses = np.asarray(jax.jit(_run(tx, loss, field))(params, batches, rates)).astype(float)
    return RateRange(rates, losses, running_median(losses, _width(steps)))


def _run(tx: Any, loss: Any, field: str) -> Callable[..., jax.Array]:
    """The losses, as a function of the first parameters, the batches and the rates."""

    def run(params: Params, batches: PyTree, rates: jax.Array) -> jax.Array:
        space = Space(params)

        def step(carry: Any, now: Any) -> Any:
            (params, state), (batch, rate) = carry, now
            chain = replaced(tx, {field: rate})

            def value_fn(trained: Params) -> jax.Array:
                return loss(space.fill_holes(trained), batch)

            value, grad = value_and_grad(value_fn, params)
            known = {"value": value, "grad": grad, "value_fn": value_fn}
            known["grad_fn"] = lambda p: conj(value_and_grad(value_fn, p)[1])
            read = {name for link in chain.links.values() for name in link.extra}
            extra = {name: x for name, x in known.items() if name in read}
            return chain.step(params, state, conj(grad), **extra), value

        start = jax.tree.map(jnp.asarray, space.drop_holes())
        return jax.lax.scan(step, (start, replaced(tx, {field: rates[0]}).init(start)), (batches, rates))[1]

    return run


def _check_scalar(loss: Any, params: Params, batches: PyTree) -> None:
    """Raise unless the loss of a batch is a real number."""
    value = jax.eval_shape(lambda params, batches: loss(params, jax.tree.map(lambda x: x[0], batches)), params, batches)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"`rate_range.loss` must return a real scalar, got {show(value)}")


def _steps(batches: PyTree) -> int:
    """The number of batches."""
    shapes = {path: np.shape(x) for path, x in flatten(batches).items()}
    counts = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(counts) != 1 or min(counts) < 3:
        got = f"shapes {', '.join(map(str, shapes.values()))}" if shapes else "no arrays"
        raise ValueError(
            f"`rate_range.batches` must be arrays with the steps as first axis, the same number, at least 3, got {got}"
        )
    return counts.pop()


def _width(steps: int) -> int:
    """The width of the windows."""
    return max(5, steps // 20)


def running_median(losses: np.ndarray, width: int) -> np.ndarray:
    """The medians over windows of ``width``, made odd, around each loss, reflected at the ends.

    A median rather than a mean: a single bad batch does not move it, and where losses only fall or only rise it is the
    loss itself, without a lag. What is not finite counts as infinite; from where no loss is finite on,
    so does the median.

    >>> running_median(np.array([3.0, 2.0, 90.0, 1.0, 4.0, np.nan]), 3).tolist()
    [2.0, 3.0, 2.0, 4.0, 4.0, inf]
    """
    losses, half = np.where(np.isfinite(losses), losses, np.inf), width // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(losses, half, mode="reflect"), 2 * half + 1)
    stays = np.logical_and.accumulate(np.isinf(losses[::-1]))[::-1]
    return np.where(stays, np.inf, np.median(windows, axis=-1))
