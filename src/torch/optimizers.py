"""The optimizers of ``torch.optim`` as data: their links, what these keep, and their hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.facade.chain import chain
from ..core.facade.link import Link
from ..core.values.contents import brief, same
from ..core.values.errors import PlainKeyError, did_you_mean
from ..core.values.matrices import matrices
from ..core.values.own_steps import own_steps
from ..core.values.tables import by_leaf
from ..core.values.tree import flatten, is_trainable, show
from ..core.values.types import Params
from ..schedules.basic import inverse_time_decay_schedule
from ..transforms.decay import add_decayed_weights
from ..transforms.matrices.muon import scale_by_muon
from ..transforms.matrices.polar import newton_schulz
from ..transforms.momentum.ema import trace
from ..transforms.preconditioners.adam import scale_by_adam, scale_by_amsgrad, scale_by_nadam
from ..transforms.preconditioners.adaptive import scale_by_adamax, scale_by_radam
from ..transforms.preconditioners.rms import scale_by_adadelta, scale_by_adagrad, scale_by_rms, scale_by_stddev
from ..transforms.step_size.scale import scale, scale_by_lr
from ..transforms.wrappers.partition import freeze, partition
from .arrays import to_array
from .files import Member, Names, OptimizerState, members
from .layouts import SAME, layout


class Kind(NamedTuple):
    """An optimizer of ``torch.optim``, at one setting of its flags."""

    name: str
    link: type[Link]
    """The link with its slots."""
    entries: dict[str, str]
    """The entry of PyTorch's state for each slot."""
    fields: dict[str, str]
    """The hyperparameter of PyTorch's group for each field that is a number; ``betas 0`` is the first of a pair."""
    others: dict[str, Any]
    """All else in a group, with PyTorch's defaults; flags of this kind have its values."""
    flags: tuple[str, ...] = ()
    """What in ``others`` distinguishes this kind from others of the same name."""
    momentum: bool = False
    """Whether the momentum follows the link."""
    decoupled: bool | None = False
    """Whether the weight decay is decoupled; ``None`` if the group says so."""
    counts: bool = True
    """Whether PyTorch counts the steps."""
    statics: tuple[str, ...] = ()
    """The fields that are no numbers, but are in the group."""


_MOMENTS = {"mu": "exp_avg", "nu": "exp_avg_sq"}
_BETAS = {"b1": "betas 0", "b2": "betas 1"}
_ADAM = {**_BETAS, "eps": "eps"}
_LOOPS = {"maximize": False, "foreach": None, "differentiable": False}
_FUSED = {**_LOOPS, "capturable": False, "fused": None}

KINDS = (
    Kind("Adam", scale_by_adam, _MOMENTS, _ADAM, {**_FUSED, "amsgrad": False}, ("amsgrad",), decoupled=None),
    Kind(
        "Adam",
        scale_by_amsgrad,
        {**_MOMENTS, "nu_max": "max_exp_avg_sq"},
        _ADAM,
        {**_FUSED, "amsgrad": True},
        ("amsgrad",),
        decoupled=None,
    ),
    Kind(
        "NAdam",
        scale_by_nadam,
        {**_MOMENTS, "mu_product": "mu_product"},
        {**_ADAM, "momentum_decay": "momentum_decay"},
        {**_LOOPS, "capturable": False},
        decoupled=None,
    ),
    Kind("RAdam", scale_by_radam, _MOMENTS, _ADAM, {**_LOOPS, "capturable": False}, decoupled=None),
    Kind("Adamax", scale_by_adamax, {"mu": "exp_avg", "nu": "exp_inf"}, _ADAM, {**_LOOPS, "capturable": False}),
    Kind(
        "RMSprop",
        scale_by_rms,
        {"nu": "square_avg"},
        {"decay": "alpha", "eps": "eps"},
        {**_LOOPS, "capturable": False, "centered": False},
        ("centered",),
        momentum=True,
    ),
    Kind(
        "RMSprop",
        scale_by_stddev,
        {"nu": "square_avg", "mu": "grad_avg"},
        {"decay": "alpha", "eps": "eps"},
        {**_LOOPS, "capturable": False, "centered": True},
        ("centered",),
        momentum=True,
    ),
    Kind(
        "Adagrad",
        scale_by_adagrad,
        {"sum": "sum"},
        {"eps": "eps", "initial_accumulator_value": "initial_accumulator_value"},
        {**_LOOPS, "fused": None},
    ),
    Kind(
        "Adadelta",
        scale_by_adadelta,
        {"nu": "square_avg", "delta": "acc_delta"},
        {"rho": "rho", "eps": "eps"},
        {**_LOOPS, "capturable": False},
    ),
    Kind(
        "SGD",
        trace,
        {"trace": "momentum_buffer"},
        {"momentum": "momentum", "dampening": "dampening"},
        {**_LOOPS, "fused": None},
        counts=False,
        statics=("nesterov",),
    ),
    Kind(
        "Muon",
        scale_by_muon,
        {"mu": "momentum_buffer"},
        {"momentum": "momentum", "eps": "eps"},
        {},
        decoupled=True,
        counts=False,
        statics=("nesterov", "sizing", "iteration"),
    ),
)

ENTRIES: dict[type, dict[str, str]] = {kind.link: kind.entries for kind in KINDS}
"""For the slots of each link PyTorch's entries."""

NAMES = (*dict.fromkeys(kind.name for kind in KINDS), "AdamW")
"""The optimizers that can be read and written."""

SIGNS = {
    "momentum_decay": ("NAdam",),
    "amsgrad": ("Adam",),
    "centered": ("RMSprop",),
    "lr_decay": ("Adagrad",),
    "rho": ("Adadelta",),
    "ns_steps": ("Muon",),
    "dampening": ("SGD",),
    "decoupled_weight_decay": ("RAdam",),
    "betas": ("RAdam", "Adamax"),  # RAdam's of earlier versions
}
"""The first of these keys in a group tells which optimizer wrote it."""

SIZINGS = {None: "spectral", "original": "spectral", "match_rms_adamw": "rms"}
"""The field ``sizing`` of Muon's link, by PyTorch's ``adjust_lr_fn``."""


def from_optimizer(
    optimizer: str | Sequence[str],
    params: Params,
    optimizer_state: OptimizerState,
    *,
    names: Names | None = None,
    layout: layout = SAME,
) -> chain:
    """The chain that is a ``torch.optim`` optimizer, with the hyperparameters of its ``state_dict()``.

    ``optimizer`` is its class, which PyTorch does not save: "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop",
    "Adagrad", "Adadelta", "SGD" or "Muon". ``params`` are the parameters, or their shapes. Hyperparameters that differ
    by group become tables by path, groups that differ in a flag become chains in a `partition`, and parameters in no
    group are frozen. Of two optimizers give both classes and both states. The learning rate is the one that PyTorch's
    scheduler has set last: `replace` it with a schedule.

    The flags ``foreach``, ``fused``, ``capturable`` and ``differentiable`` choose PyTorch's implementation, and what an
    optimizer does not read, such as a scheduler's ``initial_lr``, is nothing to it: both are left out. ``maximize``
    becomes a link ``scale(-1.0)``. Muon's iterations are in bfloat16, as PyTorch's are.

    Errors: ``KeyError`` for another optimizer's groups, and for parameters that are not in ``params``.

    >>> import numpy as np, chainax as cx
    >>> group = {"lr": 0.1, "momentum": 0.9, "dampening": 0, "nesterov": False, "weight_decay": 0, "params": [0]}
    >>> saved = {"state": {}, "param_groups": [group]}
    >>> cx.torch.from_optimizer("SGD", {"w": np.ones(3)}, saved, names=["w"])
    chain(trace(0.9), scale_by_lr(0.1))
    """
    classes: list[Any] = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
    for name in classes:
        if not isinstance(name, str):
            like = getattr(name, "__name__", "")
            raise TypeError(
                f"`optimizer` must be the name of a class, or a list of names: write from_optimizer("
                f"{like if like in NAMES else 'AdamW'!r}, params, optimizer_state), got {brief(name)}"
            )
        if name not in NAMES:
            hint = did_you_mean(name, NAMES)
            raise ValueError(f"`optimizer` must be one of {', '.join(NAMES)}, got {name!r}{hint}")
    found, _ = members(optimizer_state, names, layout)
    if len(classes) != (n := 1 if isinstance(optimizer_state, Mapping) else len(optimizer_state)):
        raise ValueError(f"`optimizer` must name a class for each of {n} states, got {classes}")
    flat = flatten(params)
    trained = [path for path, leaf in flat.items() if leaf is not None and is_trainable(leaf)]
    if unknown := [path for path in found if path not in trained]:
        raise PlainKeyError(
            f"{found[unknown[0]].name!r} becomes {unknown[0]!r}, and there is no such parameter"
            f"{did_you_mean(unknown[0], trained)}: change layout(names=...)"
        )
    together: dict[tuple, dict[str, Member]] = {}
    for path, member in found.items():
        together.setdefault(_flags(classes[member.file], member), {})[path] = member
    chains: dict[str, chain] = {}
    for flags, some in together.items():
        tree = flat.build([leaf if path in some else None for path, leaf in flat.items()])
        chains |= dict.fromkeys(some, _chain(dict(flags), tree, some, layout))
    if len(together) == 1 and len(found) == len(trained):
        return next(iter(chains.values()))
    return chain(partition(by_leaf(params, lambda path, _: chains.get(path, freeze()))))


def written_by(group: Mapping[str, Any]) -> tuple[str, ...]:
    """The optimizers that write such a group; none if its keys tell nothing."""
    return next((names for key, names in SIGNS.items() if key in group), ())


def _flags(name: str, member: Member) -> tuple:
    """The kind of a group, and whatever else makes another chain of it than other numbers would."""
    group, wanted = member.group, name.removesuffix("W")
    if (others := written_by(group)) and wanted not in others:
        raise PlainKeyError(f"{member.where} is of torch.optim.{' or '.join(others)}, not of {name}")
    kinds = [kind for kind in KINDS if kind.name == wanted]
    kind = next(k for k in kinds if all(bool(_item(member, name, flag)) == k.others[flag] for flag in k.flags))
    decoupled = kind.decoupled
    if decoupled is None:
        decoupled = bool(group.get("decoupled_weight_decay", name == "AdamW"))
    if name == "AdamW" and not decoupled:
        raise PlainKeyError(f"{member.where} has decoupled_weight_decay=False: it is Adam's, not AdamW's")
    flags: dict[str, Any] = {"name": name, "kind": KINDS.index(kind), "decoupled": decoupled}
    flags |= {"maximize": bool(group.get("maximize", False))}
    if kind.link is trace or kind.momentum:
        flags["momentum"] = _number(member, name, "momentum") != 0
    if kind.name in ("SGD", "Muon"):
        flags["nesterov"] = bool(_item(member, name, "nesterov"))
    if kind.name == "Adagrad":
        flags["lr_decay"] = _number(member, name, "lr_decay")
    if kind.name == "Muon":
        flags["steps"] = int(_number(member, name, "ns_steps"))
        flags["coefficients"] = tuple(_number(member, name, f"ns_coefficients {i}") for i in range(3))
        flags["sizing"] = _sizing(member, _item(member, name, "adjust_lr_fn"))
    return tuple(flags.items())


def _chain(flags: dict[str, Any], params: Params, some: dict[str, Member], layout: layout) -> chain:
    """The chain of the parameters whose groups have these flags; ``params`` are those alone."""
    kind, decoupled = KINDS[flags["kind"]], flags["decoupled"]

    def numbers(key: str) -> dict[str, float]:
        return {path: _number(member, flags["name"], key) for path, member in some.items()}

    def table(values: dict[str, Any]) -> Any:
        first = next(iter(values.values()))
        return first if all(same(x, first) for x in values.values()) else by_leaf(params, lambda path, _: values[path])

    fields: dict[str, Any] = {field: table(numbers(key)) for field, key in kind.fields.items()}
    rates, decays = numbers("lr"), numbers("weight_decay")
    decay = add_decayed_weights(table(decays)) if any(decays.values()) else None
    if drop := flags.get("lr_decay"):
        rates = {path: own_steps(inverse_time_decay_schedule(1.0, drop)) * rate for path, rate in rates.items()}
    if kind.link is trace:
        fields["nesterov"] = flags["nesterov"]
    if kind.link is scale_by_muon:
        fields |= {"nesterov": flags["nesterov"], "sizing": flags["sizing"], "dtype": "bfloat16"}
        fields["iteration"] = newton_schulz(flags["steps"], (flags["coefficients"],))
        fields["matrices"] = table({path: _orientation(path, layout) for path in some})
    has_momentum = flags.get("momentum", True)
    return chain(
        scale(-1.0) if flags["maximize"] else None,
        None if decoupled else decay,
        None if kind.link is trace and not has_momentum else kind.link(**fields),
        trace(table(numbers("momentum"))) if kind.momentum and has_momentum else None,
        decay if decoupled else None,
        scale_by_lr(table(rates)),
    )


def _orientation(path: str, layout: layout) -> matrices:
    """The words of a matrix at a path, which PyTorch has with the outputs first."""
    turned = layout.forward(path, np.broadcast_to(0.0, (2, 3))).shape == (3, 2)
    return matrices("in, out" if turned else "out, in")


def _item(member: Member, name: str, key: str) -> Any:
    """A hyperparameter of a group."""
    key, _, index = key.partition(" ")
    if key not in member.group:
        raise PlainKeyError(f"{member.where} has no {key!r}, which torch.optim.{name} has: is it another optimizer's?")
    x = member.group[key]
    if not index:
        return x
    if not isinstance(x, (tuple, list)) or len(x) <= int(index):
        raise ValueError(f"{member.where}[{key!r}] must be a tuple of numbers, got {brief(x)}")
    return x[int(index)]


def _number(member: Member, name: str, key: str) -> float:
    """A number of a group, which PyTorch may keep as a tensor."""
    where, x = f"{member.where}[{key.partition(' ')[0]!r}]", _item(member, name, key)
    array = to_array(where, x)
    if array.size != 1:
        raise ValueError(f"{where} must be a number, got {show(array)}")
    return float(array.item())


def _sizing(member: Member, adjust: Any) -> str:
    if adjust not in SIZINGS:
        known = ", ".join(map(repr, SIZINGS))
        raise ValueError(f"{member.where}['adjust_lr_fn'] must be one of {known}, got {brief(adjust)}")
    return SIZINGS[adjust]
