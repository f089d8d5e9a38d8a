"""Whether two links may change places: both orders run side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ..core.facade.link import Leafwise, transform
from ..core.facade.order import ending
from ..core.facade.transformation import Transformation
from ..core.values.types import Params, Updates
from .trajectory import ROUNDING, Run, Setting, accumulates, quiet, setting, total

Verdict = Literal["commute exactly", "commute to rounding", "differ", "undetermined"]
IDENTITIES = ("record", "average")
"""The roles of links that never change an update, so that it says nothing if they do not."""


class Commutator(NamedTuple):
    """How much two orders of a chain differ, as `commutator` measures it. It prints as a few lines."""

    a: str
    b: str
    verdict: Verdict
    updates: float
    """The relative difference of the updates: the root mean square of those of the parameters."""
    states: float
    """The same for the slots. 0 without any."""
    where: dict[str, float]
    """The relative difference of the updates by the path of the parameter, largest first."""
    slots: dict[str, float]
    """The relative difference of each slot by link, slot and path, ``"scale_by_adam/mu/kernel"``, largest first."""
    swapped: Any
    """The chain in the other order."""
    warnings: tuple[str, ...] = ()
    """What the library says of the other order."""
    reason: str = ""
    """Why the verdict is ``"undetermined"``, else empty."""

    def __str__(self) -> str:
        names = f"{self.a} and {self.b}"
        states = self.states > ROUNDING
        far = f"states differ by {shown(self.states)}{_which(self.slots)}"
        if self.verdict == "differ":
            lines = [f"{names} do not commute: updates differ by {shown(self.updates)}{_most(self.where)}"]
            lines += [f"the {far}"] if states else []
        elif self.verdict == "undetermined":
            lines = [f"this run does not tell whether {names} commute: {self.reason}"]
        else:
            lines = [f"{names} {self.verdict}"]
            if states:
                agree = self.verdict.replace("commute", "agree")
                lines = [f"with {names} swapped, the updates {agree}, but the {far}"]
        return "\n".join([*lines, *(f"of the other order the library warns: {text}" for text in self.warnings)])


def commutator(
    tx: Transformation,
    a: str,
    b: str,
    params: Params = None,
    *,
    grads: Sequence[Updates] | Callable[[Params], Updates] | None = None,
    steps: int | None = None,
    seed: int = 0,
    **extra: Any,
) -> Commutator:
    """Let links ``a`` and ``b`` of ``tx`` change places, run both orders, and measure how much their updates differ.

    ``a`` and ``b`` are names or paths of two links in one chain, such as ``"partition/default/scale_by_adam"``. Links
    between them stay. Each order has its own parameters and state. The update is what ``tx.update`` returns, and
    `apply_updates` adds it; in a chain with `apply_update` it is what ``tx.step`` adds.

    ``params`` are by default a matrix, a vector and a scalar, or two matrices if a link transforms matrices; they may
    be shapes (`jax.ShapeDtypeStruct`) for random numbers. Gradients are random by default: normally distributed, with
    global norms from 0.03 to 30, so that the thresholds of clips are exceeded at some steps only. ``grads`` is instead
    a list of trees, one a step, or a JAX function of the parameters. ``steps`` is by default the length of the list,
    or 8, or what `accumulate` and `apply_every` need to step twice, if that is at most 100. ``seed`` is that of
    parameters and gradients. ``extra`` holds arguments that links read, the same at each step; those that are not
    given are made from the loss 1 + 1/t + gᵀ(x − θ) + 2‖x − θ‖², whose gradient is g at the parameters θ of step t.
    Memory is needed for parameters and state ``steps`` times.

    The difference of an array is the norm over all steps and coordinates, relative to the larger of the two norms. It
    is measured in float64, with the parameters, gradients and state converted. The verdict is about the updates:

    - ``"differ"``: the difference of some parameter exceeds 1e-10, however small it is otherwise.
    - ``"commute exactly"``: it does not, and in the dtypes of the parameters all updates are bitwise equal, computed
      operation by operation. (A compiler may round differently in each order.)
    - ``"commute to rounding"``: it does not, but bits differ.
    - ``"undetermined"``: it does not, but the run is no evidence, for the ``reason`` that it gives: updates are all 0
      or not finite, an accumulation steps less than twice, or one of the two links does nothing in either order. That
      is measured: it passes on what it gets, and the updates are the same without it. It may be a clip whose threshold
      is never reached, or a guard that rejects nothing: give ``grads`` for which it acts. Links that only watch, such
      as `record` and `ema_params`, are taken to commute.

    In float64 all that is part of the algorithm stays: formats of slots such as `int8`, and iterations in bfloat16.
    Only `apply_update` rounds nothing there. Random links draw the same numbers in both orders. Where rounding decides,
    as for the sign of a sum that should be 0, or for eigenvectors of equal eigenvalues, the verdict may be ``"differ"``
    for orders that are the same on paper.

    Errors: ``KeyError`` for an unknown link; ``ValueError`` for links of two chains, and for an order that cannot be
    built, such as one with `apply_update` before another link; ``TypeError`` for gradients that do not match.

    >>> import chainax as cx
    >>> cx.commutator(cx.chain(cx.trace(0.9), cx.scale_by_lr(0.1)), "trace", "scale_by_lr").verdict
    'commute to rounding'
    >>> print(cx.commutator(cx.chain(cx.scale(2.0), cx.scale_by_sign(), cx.scale_by_lr(0.1)), "scale", "scale_by_sign"))
    scale and scale_by_sign do not commute: updates differ by 50 %
    """
    where = setting("commutator", tx, params, grads, steps, seed, extra)
    other, warned = quiet(lambda: swapped(tx, a, b))
    ours, theirs = measured("commutator", where, tx), measured("commutator", where, other)
    updates, slots = ours.apart(theirs)
    verdict: Verdict = "differ"
    reason = ""
    if max(updates.values()) <= ROUNDING:
        if reason := doubt(where, tx, ours, idle(where, tx, ours, (a, b)), lambda: idle(where, other, theirs, (a, b))):
            verdict = "undetermined"
        else:
            same = where.run(tx, double=False).equals(where.run(other, double=False))
            verdict = "commute exactly" if same else "commute to rounding"
    return Commutator(a, b, verdict, total(updates), total(slots), updates, slots, other, warned, reason)


def swapped(tx: Transformation, a: str, b: str) -> Any:
    """The chain with two of its links in each other's place."""
    for path in (a, b):
        tx[path]
    (where, _, own_a), (other, _, own_b) = (path.rpartition("/") for path in (a, b))
    if a == b or where != other:
        what = f"{a!r} twice" if a == b else f"{a!r} and {b!r}, which are in different chains"
        raise ValueError(f"`commutator` takes two links of one chain, got {what}")
    where = f"{where}/" if where else ""

    def change(at: str, pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        if at != where:
            return pairs
        links = dict(pairs)
        names = [{own_a: own_b, own_b: own_a}.get(name, name) for name, _ in pairs]
        return [(name, links[name]) for name in names]

    return tx._edit(change)


def measured(name: str, where: Setting, tx: Transformation) -> Run:
    """The run in float64. An error of the gradient's function says so."""
    try:
        return where.run(tx, double=True)
    except Exception as e:
        if callable(where.grads) or where.extra:
            e.add_note(f"`{name}` runs chains in float64, so `grads` and extra arguments must accept that.")
        raise


# Whether a run is evidence


@transform
class _probe(Leafwise):
    """Keep the update that passes here."""

    slots = ("seen",)
    equation = "u ← u"
    knows_shards = True

    def leaf(self, u, slot, p, scalars):
        return u, {"seen": u}


def doubt(
    where: Setting, tx: Transformation, run: Run, idle: Collection[str], still: Callable[[], Collection[str]]
) -> str:
    """Why it says nothing that another order has the updates of ``run``, or nothing.

    ``idle`` are the moved links that do nothing in ``tx``, and ``still()`` those that do nothing in the other order.
    """
    steps = f"{where.steps} steps" if where.steps > 1 else "1 step"
    moved = [np.any(x.reshape(len(x), -1) != 0, axis=1).sum() for x in run.updates.values()]
    if not all(np.isfinite(x).all() for x in run.updates.values()):
        return "updates are not finite"
    if not any(moved):
        return f"all updates are 0 in {steps}"
    if 1 in moved and accumulates(tx):
        return f"an accumulation steps only once in {steps}"
    both = [path for path in idle if path in still()] if idle else []
    if both:
        return f"{' and '.join(both)} {'do' if len(both) > 1 else 'does'} nothing in {steps}"
    return ""


def idle(where: Setting, tx: Transformation, run: Run, paths: Sequence[str]) -> list[str]:
    """Those of the links that pass on each update as it is, and without which the updates of ``run`` are the same.

    Either alone is not enough: of two clips the larger is redundant, and one that rejects steps changes no update
    that it passes on.
    """
    fixed = [path for path in paths if tx[path].per_example or ending(path, tx[path])]  # which have one place
    paths = [path for path in paths if path not in fixed and tx[path].role not in IDENTITIES]
    names = {path: f"probe_{i}" for i, path in enumerate(paths)}

    def change(at: str, pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        probed = []
        for name, link in pairs:
            probe = names.get(at + name)
            around = [(f"{probe}_{side}", _probe()) for side in ("in", "out")] if probe else []
            probed += [*around[:1], (name, link), *around[1:]]
        return probed

    seen = measured("commutator", where, quiet(lambda: tx._edit(change))[0]).slots
    found = []
    for path, name in names.items():
        before = {key: x for key, x in seen.items() if f"{name}_in/" in key}
        after = {key: seen[key.replace(f"{name}_in/", f"{name}_out/")] for key in before}
        if all(np.array_equal(x, after[key], equal_nan=True) for key, x in before.items()):
            without = measured("commutator", where, quiet(lambda path=path: tx.remove(path))[0])
            if max(without.apart(run)[0].values()) <= ROUNDING:
                found.append(path)
    return found


# As text


def shown(x: float) -> str:
    """A relative difference for people."""
    return f"{100 * x:.0f} %" if x >= 0.1 else f"{100 * x:.2g} %" if x >= 1e-3 else f"{x:.1e}"


def _most(differences: dict[str, float]) -> str:
    """Where the differences are largest, unless they are alike everywhere."""
    if len(differences) < 2 or max(differences.values()) < 1.05 * min(differences.values()):
        return ""
    path, far = next(iter(differences.items()))
    return f", most in {path!r} ({shown(far)})"


def _which(differences: dict[str, float]) -> str:
    """The slots that differ, by link and slot: three at most."""
    own = (path.rpartition("/links/")[2] for path, far in differences.items() if far > ROUNDING)
    slots = dict.fromkeys("/".join(path.split("/")[:2]) for path in own)
    return f" ({', '.join([*slots][:3])}{', …' if len(slots) > 3 else ''})"
