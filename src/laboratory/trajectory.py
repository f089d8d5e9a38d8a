"""Runs of a chain on given or random gradients, in any precision, and how far two of them are apart."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..core.engine.engine import apply_updates
from ..core.engine.state import State
from ..core.facade.order import ending
from ..core.facade.transformation import Transformation
from ..core.values.contents import code
from ..core.values.tree import dtype_of, flatten, is_trainable, widened
from ..core.values.types import Params, PyTree, Updates
from ..core.values.value import check_count
from ..core.values.warning import ChainWarning
from ..transforms.wrappers.accumulate import accumulate, apply_every

STEPS = 8
MOST_STEPS = 100
"""Steps that are run at most, unless more are asked for, so that an accumulation steps twice."""
ROUNDING = 1e-10
"""The largest relative difference in float64 that counts as rounding."""
EXAMPLES = (1.0, 0.5)
"""The gradients of examples as multiples of the gradient, for a chain that reduces an axis of them."""

Grads = Sequence[Updates] | Callable[[Params], Updates]


class Setting(NamedTuple):
    """What chains are run on."""

    params: Params
    grads: Grads
    steps: int
    extra: Mapping[str, Any]

    def run(self, tx: Transformation, *, double: bool) -> Run:
        """The chain from its initial state, in float64 or in the dtypes of the parameters.

        Operations run one by one: most chains share them, while each chain would be compiled for itself. So bits do not
        depend on what the compiler fuses.
        """
        with jax.enable_x64(True) if double else contextlib.nullcontext(), jax.disable_jit(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ChainWarning)  # about orders, which are compared here and not used
            params = _in_double(self.params) if double else jax.tree.map(jnp.asarray, self.params)
            state, updates, slots = tx.init(params), _Series(), _Series()
            for count in range(1, self.steps + 1):
                params, state, update = _step(tx, params, state, self.gradient(params, count), count, self.extra)
                updates.append("", update)
                for link, entry in state.links.items():
                    slots.append(link, entry)
        return Run(updates.stacked(), slots.stacked())

    def gradient(self, params: Params, count: int) -> Updates:
        """The gradient of a step in the parameters' dtypes; ``None`` for what has no gradient."""
        if callable(self.grads):
            with jax.disable_jit(False):
                grads = self.grads(params)
        else:
            grads = self.grads[count - 1]
        flat = flatten(params)
        pairs = zip(flat.line_up(f"The gradients of step {count}", grads), flat.leaves)
        return flat.build([None if g is None or not is_trainable(p) else jnp.asarray(g, p.dtype) for g, p in pairs])


class _Series:
    """Arrays of all steps by path."""

    def __init__(self) -> None:
        self.arrays: dict[str, list[np.ndarray]] = {}

    def append(self, where: str, tree: PyTree) -> None:
        for path, x in flatten(tree).items():
            if x is not None:
                is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
                array = np.asarray(jax.random.key_data(x) if is_key else x)
                self.arrays.setdefault(f"{where}/{path}".strip("/"), []).append(array)

    def stacked(self) -> dict[str, np.ndarray]:
        return {path: np.stack(arrays) for path, arrays in self.arrays.items()}


class Run(NamedTuple):
    """The updates of all steps by the path of the parameter, and the slots after each by link, slot and path."""

    updates: dict[str, np.ndarray]
    slots: dict[str, np.ndarray]

    def apart(self, other: Run) -> tuple[dict[str, float], dict[str, float]]:
        """The relative differences of updates, and of slots."""
        return _apart(self.updates, other.updates), _apart(self.slots, other.slots)

    def equals(self, other: Run) -> bool:
        """Whether all updates are bitwise equal."""
        return all(x.tobytes() == other.updates[path].tobytes() for path, x in self.updates.items())


def setting(
    name: str,
    tx: Transformation,
    params: Params,
    grads: Grads | None,
    steps: int | None,
    seed: int,
    extra: Mapping[str, Any],
    default: int = STEPS,
) -> Setting:
    """What the arguments of the function ``name`` mean. Raises for what cannot be run.

    ``default`` steps are raised to what accumulations in ``tx`` need to step twice.
    """
    if not isinstance(tx, Transformation):
        raise TypeError(f"`{name}.tx` must be a chain or a link that holds chains, got {code(tx)}")
    if steps is not None:
        check_count(f"{name}.steps", steps, 1, None)
    rng = np.random.default_rng(check_count(f"{name}.seed", seed, 0, None))
    if params is None:
        matrices = any(link.matrixwise for _, link in tx._linked())
        shapes = {"kernel": (4, 3), "head": (3, 2)} if matrices else {"kernel": (4, 3), "bias": (3,), "scale": ()}
        params = {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in shapes.items()}
    params = jax.tree.map(lambda p: _drawn(p, rng) if isinstance(p, jax.ShapeDtypeStruct) else p, params)
    if not any(is_trainable(p) for p in jax.tree.leaves(params)):
        raise ValueError(f"`{name}.params` has no floating-point array, got {code(params)}")
    if grads is None or callable(grads):
        if steps is None:
            needed = 2 * period(tx)
            steps = max(default, needed) if needed <= MOST_STEPS else default
        return Setting(params, list(random_gradients(params, steps, rng)) if grads is None else grads, steps, extra)
    if not isinstance(grads, Sequence) or not grads:
        raise TypeError(
            f"`{name}.grads` must be a list of trees like the parameters, one a step, or a function of the parameters, "
            f"got {code(grads)}"
        )
    if steps is not None and steps > len(grads):
        raise ValueError(f"`{name}.steps` must be {len(grads)} at most, since `grads` has as many, got {steps}")
    return Setting(params, grads, len(grads) if steps is None else steps, extra)


def period(tx: Transformation) -> int:
    """The steps from one update to the next, by the accumulations in ``tx``; 1 without any.

    A number that changes during training, such as a schedule, counts as 1.
    """
    periods: dict[str, int] = {}
    for path, link in _with_holder(tx):
        own = link.every if isinstance(link, accumulate) else link.k if isinstance(link, apply_every) else 1
        own = int(own) if isinstance(own, int | float) else 1
        around = (n for at, n in reversed(periods.items()) if not at or path.startswith(f"{at}/"))
        periods[path] = own * next(around, 1)
    return max(periods.values())


def accumulates(tx: Transformation) -> bool:
    """Whether a link sums up gradients or updates over several steps."""
    return any(isinstance(link, accumulate | apply_every) for _, link in _with_holder(tx))


def _with_holder(tx: Transformation) -> Iterator[tuple[str, Any]]:
    """``tx`` itself and its links with their paths, each behind the link that holds it."""
    yield "", tx
    yield from tx._linked()


def random_gradients(params: Params, steps: int, rng: np.random.Generator) -> Iterator[Updates]:
    """Gradients of normally distributed numbers. Leaves differ in size by up to 10, steps by up to 1000.

    The global norms are 10^x with x spread evenly over [-1.5, 1.5), in a random order that begins in the middle: the
    thresholds of clips are exceeded at some steps and not at others.
    """
    flat = flatten(params)
    moving = [is_trainable(p) for p in flat.leaves]
    sizes = 10.0 ** rng.uniform(-1, 0, len(moving))
    spread = [0.0, *rng.permutation(np.linspace(-1.5, 1.5, steps, endpoint=False))[: steps - 1]]
    for exponent in spread:
        drawn = [size * _normal(p, rng) if moves else None for p, size, moves in zip(flat.leaves, sizes, moving)]
        norm = np.sqrt(sum(np.vdot(x, x).real for x in drawn if x is not None)) or 1.0
        factor = 10.0**exponent / norm
        leaves = [x if x is None else np.asarray(factor * x, dtype_of(p)) for x, p in zip(drawn, flat.leaves)]
        yield flat.build(leaves)


def _normal(p: Any, rng: np.random.Generator) -> np.ndarray:
    x = np.asarray(rng.normal(size=np.shape(p)))
    return x + 1j * rng.normal(size=x.shape) if jnp.issubdtype(dtype_of(p), jnp.complexfloating) else x


def _drawn(shape: jax.ShapeDtypeStruct, rng: np.random.Generator) -> np.ndarray:
    """Random numbers where only a shape is known, and zeros for integers."""
    return np.asarray(_normal(shape, rng) if is_trainable(shape) else np.zeros(shape.shape), shape.dtype)


def _in_double(tree: PyTree) -> PyTree:
    """The tree with its floating-point and complex leaves in float64 and complex128."""

    def wide(x: Any) -> Any:
        if not is_trainable(x):
            return x
        return jnp.asarray(x, jnp.complex128 if jnp.issubdtype(dtype_of(x), jnp.complexfloating) else jnp.float64)

    return jax.tree.map(wide, tree)


def _step(
    tx: Transformation, params: Params, state: State, grads: Updates, count: int, extra: Mapping[str, Any]
) -> tuple[Params, State, Updates]:
    """One step: the new parameters and state, and the update."""
    links = tx.links
    read = {name for link in links.values() for name in link.extra}
    made = {name: make(params, grads, count) for name, make in SYNTHETIC.items() if name in read - extra.keys()}
    extra = {**made, **extra}
    if next((link.per_example for link in links.values()), False):
        grads = jax.tree.map(lambda g: jnp.stack([g * np.asarray(x, g.dtype) for x in EXAMPLES]), grads)
    if any(ending(*pair) for pair in links.items()):  # its rounding is part of the step
        moved, state = tx.step(params, state, grads, **extra)
        updates = _where_trainable(jnp.subtract, widened(moved), widened(params))
    else:
        updates, state = tx.update(grads, state, params, **extra)
        moved = apply_updates(params, updates)
        updates = _where_trainable(lambda u, p: u, updates, params)
    return moved, state, updates


def _where_trainable(function: Callable[[Any, Any], Any], updates: PyTree, params: Params) -> PyTree:
    def one(u: Any, p: Any) -> Any:
        return function(u, p) if u is not None and is_trainable(p) else None

    return jax.tree.map(one, updates, params, is_leaf=lambda u: u is None)


# The synthetic loss 1 + 1/t + gᵀ(x − θ) + 2‖x − θ‖², whose gradient at the parameters θ of step t is g


def _each(function: Callable[[Any, Any], Any], params: Params, grads: Updates, there: Params) -> PyTree:
    """A function of g and x − θ, for each parameter that has a gradient."""

    def one(g: Any, p: Any, x: Any) -> Any:
        return None if g is None else function(g, jnp.asarray(x, p.dtype) - p)

    return jax.tree.map(one, grads, params, there, is_leaf=lambda g: g is None)


def _loss(params: Params, grads: Updates, count: int) -> Any:
    dtype = jnp.finfo(next(p.dtype for p in jax.tree.leaves(params) if is_trainable(p))).dtype
    return jnp.asarray(1 + 1 / count, dtype)


def _loss_at(params: Params, grads: Updates, count: int) -> Callable[[Params], Any]:
    def rise(g: Any, d: Any) -> Any:
        return jnp.sum((jnp.conj(g) * d).real + 2 * (jnp.conj(d) * d).real)

    def loss(there: Params) -> Any:
        value = _loss(params, grads, count)
        return sum((x.astype(value.dtype) for x in jax.tree.leaves(_each(rise, params, grads, there))), value)

    return loss


def _curvature(g: Any, d: Any) -> Any:
    return jnp.full_like(g, 4 + 4j if jnp.iscomplexobj(g) else 4)


SYNTHETIC: Mapping[str, Callable[[Params, Updates, int], Any]] = {
    "value": _loss,
    "value_fn": _loss_at,
    "grad": lambda params, grads, count: jax.tree.map(jnp.conj, grads),
    "grad_fn": lambda params, grads, count: lambda there: _each(lambda g, d: g + 4 * d, params, grads, there),
    "hessian": lambda params, grads, count: _each(_curvature, params, grads, params),
    "weight": lambda params, grads, count: 2.0,
    "max_logits": lambda params, grads, count: 400.0,
}
"""The extra arguments that links of the library read, made from parameters, gradients and the number of the step."""


# Distances


def _apart(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """For each array the norm of the difference, relative to the larger one, with the largest first."""
    found = {path: relative_difference(x, theirs[path]) for path, x in ours.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def relative_difference(x: np.ndarray, y: np.ndarray) -> float:
    """‖x − y‖ / max(‖x‖, ‖y‖), and 0 if they are equal. Infinite if one is not finite where they differ."""
    x, y = (z.astype(np.complex128 if np.iscomplexobj(z) else np.float64) for z in (x, y))
    differ = (x != y) & ~(np.isnan(x) & np.isnan(y))
    if not differ.any():
        return 0.0
    if not (np.isfinite(x[differ]).all() and np.isfinite(y[differ]).all()):
        return float("inf")
    largest = max(np.linalg.norm(z[np.isfinite(z)]) for z in (x, y))
    return float(np.linalg.norm(x[differ] - y[differ]) / largest)


def total(differences: Mapping[str, float]) -> float:
    """The root mean square of relative differences, in which all arrays count alike."""
    values = list(differences.values())
    return float(np.sqrt(np.mean(np.square(values)))) if values else 0.0


def quiet(build: Callable[[], Any]) -> tuple[Any, tuple[str, ...]]:
    """What ``build`` returns, and the texts of the `ChainWarning` that it issued. Others are passed on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        built = build()
    for other in itertools.filterfalse(lambda w: issubclass(w.category, ChainWarning), caught):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return built, tuple(str(w.message) for w in caught if issubclass(w.category, ChainWarning))
