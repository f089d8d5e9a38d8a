"""The state of a chain from that of a PyTorch optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from ..core.engine import engine
from ..core.engine.checks import check_params
from ..core.engine.state import State
from ..core.facade.saving import Report
from ..core.facade.transformation import Transformation
from ..core.values.errors import PlainKeyError
from ..core.values.types import Params
from ..core.values.value import check_count
from ..transforms.preconditioners.adam import scale_by_amsgrad
from .arrays import fit, to_array
from .chains import Chain, chains_within
from .files import Member, Names, OptimizerState, members
from .layouts import SAME, layout
from .optimizers import ENTRIES, KINDS, written_by

CALL = "chainax.torch.load_state_dict(tx, params, optimizer_state)"
SCALARS = ("mu_product",)
"""Slots that are a number for each parameter."""

COUNTS: dict[type, bool] = {kind.link: kind.counts for kind in KINDS}
"""Whether PyTorch's optimizer with the slots of a link counts the steps."""

NO_PATH = "which no parameter of PyTorch"

MOST = np.iinfo(np.int32).max


def load_state_dict(
    tx: Transformation,
    params: Params,
    optimizer_state: OptimizerState,
    *,
    names: Names | None = None,
    layout: layout = SAME,
    step: int | None = None,
    strict: bool = True,
) -> tuple[State, Report]:
    """The state of the chain ``tx`` that continues a run of a ``torch.optim`` optimizer, and a report of what matched.

    ``optimizer_state`` is what its ``state_dict()`` returned; give a list of several if several optimizers share the
    parameters, as Muon and AdamW do, where ``tx`` is a `partition`. ``names`` are PyTorch's names of the parameters in
    the optimizer's order, or in a list for each group; leave it out if the optimizer was made of
    ``model.named_parameters()``, and has saved them. Hyperparameters are those of ``tx``: `from_optimizer` makes a
    chain with the saved ones, and ``tx.diff`` of it shows what differs. ``step`` is the number of steps taken, which
    SGD and Muon do not save. A parameter that has taken fewer steps than others is one that joined later. A run that
    has not begun starts as by `init`.

    With ``strict=False`` entries that do not match are left out, and their slots start as by `init`: so start
    parameters that have had no gradient yet, of which PyTorch keeps nothing.

    Errors: ``KeyError`` unless all entries match, with ``strict``; the message lists those that do not. ``ValueError``
    for an unknown number of steps, for an optimizer that maximizes where the chain does not, and for links that keep
    what no optimizer of PyTorch does.

    >>> import numpy as np, chainax as cx
    >>> kept = {"step": np.float32(3.0), "exp_avg": np.ones(2), "exp_avg_sq": np.ones(2)}
    >>> saved = {"state": {0: kept}, "param_groups": [{"params": [0], "param_names": ["w"]}]}
    >>> state, report = cx.torch.load_state_dict(cx.adamw(1e-3), {"w": jax.numpy.ones(2)}, saved)
    >>> print(state.step, report)
    3 2 matched, 0 missing, 0 unexpected, 0 mismatched
    """
    check_params(CALL, tx.links if isinstance(tx, Transformation) else {}, params, tx=tx)
    found, left = members(optimizer_state, names, layout)
    chains = list(chains_within(tx.links, params, jax.eval_shape(lambda: engine.init(tx.links, params))))
    foreign = _foreign(chains, found)
    report = Report([], [], [*left, *foreign], [])
    counting = {
        path for chain in chains if any(COUNTS.get(type(x)) for x in chain.links.values()) for path in chain.params
    }
    steps = _steps(found, counting, report)
    begun = _has_begun(chains, found, steps, step)
    loadable, labels = _entries(chains, found, layout, report, begun=begun)
    if strict:  # before the state is made
        _raise_if_any(report, foreign)
    last = _last(steps, step) if begun else 0
    for chain in chains:
        _check(chain, found)
        loadable[f"{chain.prefix}step"] = np.array(last, np.int32)
        for name, link in chain.links.items():
            for path in chain.params if type(link) in ENTRIES else ():
                if (own := steps.get(path, last)) < last:
                    loadable[chain.born(name, path)] = np.array(last - own, np.int32)
    state, loaded = tx.load_state_dict(params, loadable, strict=False)
    matched = {*loaded.matched}
    report.matched.extend(label for name, label in labels.items() if name in matched)
    report.mismatched.extend(_renamed(loaded.mismatched, labels))
    if strict:
        _raise_if_any(report, foreign)
    return state, report


def _raise_if_any(report: Report, foreign: list[str]) -> None:
    if not any(report[1:]):
        return
    text = f"{report}"
    if foreign:
        text += "\nchainax.torch.from_optimizer makes the chain of that optimizer"
    elif NO_PATH in text:
        text += "\nlayout(names={regular expression: replacement}) makes paths of PyTorch's names"
    raise PlainKeyError(
        "the state of PyTorch's optimizer does not match this chain and these parameters (strict=False loads what "
        f"does): {text}"
    )


def _entries(
    chains: Iterable[Chain], found: Mapping[str, Member], layout: layout, report: Report, *, begun: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """What the slots of the chains are in PyTorch's state, by name, and what each is called there.

    Before the first step of the run, parameters of which nothing is kept are not missing.
    """
    arrays, labels, trained, read = dict[str, Any](), dict[str, str](), set[str](), set[tuple[str, str]]()
    for chain in chains:
        for path in chain.params if chain.moves else ():
            trained.add(path)
            if path not in found:
                report.missing.append(f"{path} ({NO_PATH} becomes)")
        slots = [
            (link, slot, entry)
            for link, one in chain.links.items()
            for slot, entry in ENTRIES.get(type(one), {}).items()
        ]
        for link, slot, entry in slots:
            for path, p in chain.params.items():
                if path not in found:
                    continue
                member = found[path]
                if not begun and not member.state:
                    continue
                label = f"{member.name}: {entry}"
                if entry not in member.state:
                    report.missing.append(label)
                    continue
                read.add((path, entry))
                x = to_array(f"{entry!r} of {member.name!r}", member.state[entry])
                like = np.broadcast_to(0.0, () if slot in SCALARS else np.shape(p))
                x, problem = (x, "") if not like.shape and not x.shape else fit(path, x, like, layout)
                if problem:
                    report.mismatched.append(f"{label} ({problem})")
                else:
                    name = chain.slot(link, slot, path)
                    arrays[name], labels[name] = x, label
    for path, member in found.items():
        if path not in trained:
            report.unexpected.append(f"{member.name} (which becomes {path!r}: the chain moves no such parameter)")
        else:
            others = (key for key in member.state if key != "step" and (path, key) not in read)
            report.unexpected.extend(f"{member.name}: {key}" for key in others)
    return arrays, labels


def _foreign(chains: Iterable[Chain], found: Mapping[str, Member]) -> list[str]:
    """The groups that another optimizer has written than the one that the chain is."""
    wrong = dict[str, str]()
    for chain in chains:
        kinds = {kind.name for link in chain.links.values() for kind in KINDS if type(link) is kind.link}
        for path in chain.params if kinds else ():
            others = written_by(found[path].group) if path in found else ()
            if others and not kinds & {*others}:
                wrong[found[path].where] = f"of torch.optim.{' or '.join(others)}, the chain is {' with '.join(kinds)}"
    return [f"{where} ({problem})" for where, problem in wrong.items()]


def _steps(found: Mapping[str, Member], counting: set[str], report: Report) -> dict[str, int]:
    """The steps that each parameter has taken, of those that say so."""
    steps: dict[str, int] = {}
    for path, member in found.items():
        if "step" not in member.state:
            if path in counting and member.state:
                report.missing.append(f"{member.name}: step")
            continue
        x = to_array(f"'step' of {member.name!r}", member.state["step"])
        if x.size == 1 and x.dtype.kind in "iuf" and 0 <= x.item() <= MOST and x.item() == int(x.item()):
            steps[path] = int(x.item())
        else:
            got = x.item() if x.size == 1 else list(x.shape)
            report.mismatched.append(f"{member.name}: step (must be a whole number of steps, got {got})")
    return steps


def _has_begun(
    chains: Iterable[Chain], found: Mapping[str, Member], steps: Mapping[str, int], step: int | None
) -> bool:
    """Whether the run has taken a step, as far as its state tells: before the first, PyTorch keeps next to nothing."""
    if any(member.state and steps.get(path) != 0 for path, member in found.items()):
        return True
    if step is not None:
        return check_count("step", step, 0, MOST) > 0
    # SGD without momentum keeps nothing after it either.
    silent = all(written_by(x.group) == ("SGD",) and not x.group.get("momentum") for x in found.values())
    return silent or not any(type(link) in ENTRIES for chain in chains for link in chain.links.values())


def _last(steps: Mapping[str, int], step: int | None) -> int:
    """The steps of the run."""
    if step is None and not steps:
        raise ValueError(
            "the optimizer's state does not say how many steps it has taken, as those of SGD and Muon: pass "
            f"step=1000, or as many as it has, to `{CALL}`"
        )
    most = max(steps.values(), default=0)
    if step is None:
        return most
    return check_count("step", step, most, MOST)


def _check(chain: Chain, found: Mapping[str, Member]) -> None:
    """Raise for settings that give the slots another meaning than PyTorch's."""
    for name, link in chain.links.items():
        if isinstance(link, scale_by_amsgrad) and link.debias == "before":
            raise ValueError(
                f"'max_exp_avg_sq' is the maximum of uncorrected squares, and {name!r} has debias='before': "
                f"write tx.replace({name!r}, debias='after')"
            )
    for path in chain.params if chain.moves else ():
        if path in found and found[path].group.get("maximize") and not chain.climbs:
            raise ValueError(
                f"{found[path].where} has maximize=True, and the chain minimizes: write chain(scale(-1.0), tx)"
            )


def _renamed(names: Iterable[str], labels: Mapping[str, str]) -> list[str]:
    """Entries, with what is wrong in parentheses, by what they are called in PyTorch's state."""
    found = []
    for text in names:
        name = max((name for name in labels if text.startswith(f"{name} (")), key=len, default="")
        found.append(f"{labels.get(name, name)}{text.removeprefix(name)}")
    return found
