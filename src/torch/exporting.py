"""The state of a PyTorch optimizer from that of a chain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ..core.engine.checks import check_params
from ..core.engine.protocol import LinkLike
from ..core.engine.state import State
from ..core.facade.transformation import Transformation
from ..core.values.contents import code, same
from ..core.values.errors import PlainKeyError, did_you_mean
from ..core.values.hyper import evaluate
from ..core.values.own_steps import own_steps
from ..core.values.schedule import product
from ..core.values.tables import Shape, Table, pick
from ..core.values.types import Params
from ..schedules.basic import inverse_time_decay_schedule
from ..transforms.decay import add_decayed_weights
from ..transforms.matrices.muon import scale_by_muon
from ..transforms.matrices.polar import newton_schulz
from ..transforms.momentum.ema import trace
from ..transforms.step_size.scale import scale, scale_by_lr
from ..transforms.wrappers.partition import partition
from .arrays import AsTensor, by_path_of, to_tensor
from .chains import Chain, chains_within
from .files import Names, in_groups
from .layouts import SAME, layout
from .optimizers import KINDS, SIZINGS, Kind

CALL = "chainax.torch.state_dict(tx, params, state, names)"

SGD = next(i for i, kind in enumerate(KINDS) if kind.link is trace)

Param: TypeAlias = tuple[str, Shape]
"""The path and the shape of a parameter."""

FREE = ("initial_scale", "storage", "matrices", "over", "dtype")
"""Fields that PyTorch's optimizers do not have, and whose values make no other optimizer of the state."""


class Match(NamedTuple):
    """A chain as an optimizer of PyTorch: its links by what they are there, with their names."""

    kind: Kind
    roles: dict[str, tuple[str, Any]]


def state_dict(
    tx: Transformation,
    params: Params,
    state: State,
    names: Names,
    *,
    layout: layout = SAME,
    as_tensor: AsTensor = None,
) -> dict[str, Any]:
    """The state as that of a ``torch.optim`` optimizer, for its ``load_state_dict``. The inverse of `load_state_dict`.

    ``names`` are PyTorch's names of the optimizer's parameters, in its order; give a list for each of its groups, if it
    has several. Parameters of other optimizers are left out: of a `partition`, such as that of Muon and AdamW, each
    optimizer gets its own. Hyperparameters are those of the next step, so a schedule becomes its present number: give
    PyTorch's scheduler the steps so far. ``as_tensor`` makes tensors of the NumPy arrays; PyTorch wants
    ``torch.from_numpy``. The groups have the names, so PyTorch wants names for groups that are added later too.

    Errors: ``KeyError`` for names of no parameter, and for parameters without a name of a chain that has named ones;
    ``ValueError`` for a chain that is no optimizer of PyTorch, and for hyperparameters that differ within a group.

    >>> import chainax as cx
    >>> tx, params = cx.sgd(0.1, momentum=0.9), {"w": jax.numpy.ones(2)}
    >>> params, state = tx.step(params, tx.init(params), params)
    >>> cx.torch.state_dict(tx, params, state, ["w"])["state"]
    {0: {'momentum_buffer': array([1., 1.], dtype=float32)}}
    """
    check_params(CALL, tx.links if isinstance(tx, Transformation) else {}, params, tx=tx, state=state)
    arrays = tx.state_dict(state)
    chains = list(chains_within(tx.links, params, state))
    for name, link in ((name, link) for chain in chains if not chain.moves for name, link in chain.links.items()):
        if not isinstance(link, partition):
            raise ValueError(f"torch.optim has nothing in the place of link {name!r}: {_without(name)}")
    groups, _ = in_groups(names)
    if not all(groups) or not groups:
        raise ValueError("`names` must have a name for each parameter of the optimizer, and no empty group")
    paths = by_path_of(layout, [name for group in groups for name in group], "`names`")
    path_of = {name: path for path, name in paths.items()}
    owners = {path: chain for chain in chains if chain.moves for path in chain.params}
    for path, name in paths.items():
        if path not in owners:
            raise PlainKeyError(
                f"{name!r} becomes {path!r}, and the chain moves no such parameter{did_you_mean(path, owners)}: change "
                "layout(names=...), or leave it out"
            )
    written = {owners[path].prefix: name for path, name in paths.items()}
    for path, chain in owners.items():
        if path not in paths and chain.prefix in written:
            raise PlainKeyError(
                f"`names` has {written[chain.prefix]!r}, whose chain moves {path!r} too, but no name for that: give "
                "all, as [name for name, _ in model.named_parameters()] has them"
            )
    matches = {chain.prefix: _match(tx, chain) for chain in chains if chain.prefix in written}
    if len(kinds := {match.kind.name for match in matches.values()}) > 1:
        raise ValueError(f"`names` has parameters of {' and '.join(sorted(kinds))}: make a state of each on its own")
    kept, saved, index = dict[int, Any](), [], 0
    for group in groups:
        settings: dict[str, Any] = {}
        for name in group:
            path = path_of[name]
            chain = owners[path]
            match = matches[chain.prefix]
            taken = _steps(match, chain, path, arrays)
            own = _settings(match, (path, np.shape(chain.params[path])), arrays[f"{chain.prefix}step"], taken, layout)
            settings = settings or own
            if differ := [key for key in own if not same(own[key], settings.get(key))]:
                raise ValueError(
                    f"{differ[0]} is {code(settings.get(differ[0]))} for {group[0]!r} and {code(own[differ[0]])} for "
                    f"{name!r}, which are in one group: give `names` in groups, [[{group[0]!r}, ...], [{name!r}, ...]]"
                )
            if entry := _entry(match, chain, path, taken, arrays, layout):
                kept[index] = {key: to_tensor(x, as_tensor) for key, x in entry.items()}
            index += 1
        own_indices = list(range(index - len(group), index))
        saved.append({**settings, "params": own_indices, "param_names": list(group)})
    return {"state": kept, "param_groups": saved}


def _steps(match: Match, chain: Chain, path: str, arrays: Mapping[str, np.ndarray]) -> int:
    """The steps that a parameter has taken."""
    name, _ = match.roles.get("link", ("", None))
    everyone = arrays.get(chain.born(name, ""), 0)
    return int(arrays[f"{chain.prefix}step"]) - int(arrays.get(chain.born(name, path), everyone))


def _entry(
    match: Match, chain: Chain, path: str, steps: int, arrays: Mapping[str, np.ndarray], layout: layout
) -> dict[str, np.ndarray]:
    """What PyTorch keeps for a parameter; nothing before its first step, unless the optimizer starts with it."""
    name, link = match.roles.get("link", ("", None))
    slots = {(name, slot): entry for slot, entry in match.kind.entries.items()} if link else {}
    if "momentum" in match.roles:
        slots[match.roles["momentum"][0], "trace"] = "momentum_buffer"
    if not slots or (not steps and match.kind.name != "Adagrad"):
        return {}
    entry = {"step": np.array(steps, np.float32)} if match.kind.counts else {}
    for (link_name, slot), key in slots.items():
        x = arrays[chain.slot(link_name, slot, path)]
        entry[key] = layout.backward(path, x) if x.ndim or not np.ndim(chain.params[path]) else x
    return entry


# Chains as optimizers


def _match(tx: Transformation, chain: Chain) -> Match:
    """The chain as an optimizer, or an error for the first link that none has in its place."""
    links = chain.links
    kinds = [kind for link in links.values() for kind in KINDS if type(link) is kind.link]
    kind = min(kinds, key=lambda kind: kind.link is trace, default=KINDS[SGD])
    roles: dict[str, type | None] = {
        "maximize": scale if "maximize" in kind.others else None,
        "coupled": None if kind.decoupled else add_decayed_weights,
        "link": kind.link if kinds else None,
        "momentum": trace if kind.momentum else None,
        "decoupled": None if kind.decoupled is False else add_decayed_weights,
        "rate": scale_by_lr,
    }
    left, found = list(roles), dict[str, tuple[str, Any]]()
    for name, link in links.items():
        role = next((role for role in left if type(link) is roles[role]), None)
        if role is None:
            remedy = _without(name)
            if isinstance(link, add_decayed_weights):
                remedy = f"its weight decay is {'decoupled' if kind.decoupled else 'coupled: the link is the first'}"
            raise ValueError(f"torch.optim.{kind.name} has nothing in the place of link {name!r}: {remedy}")
        left = left[left.index(role) + 1 :]
        found[role] = name, link
        _check_fields(kind, role, name, link)
    if "rate" not in found or {"coupled", "decoupled"} <= found.keys():
        what = "no link scale_by_lr" if "rate" not in found else "two weight decays"
        raise ValueError(f"the chain {code(tx)} has {what}, so it is no optimizer of torch.optim")
    return Match(kind, found)


def _without(name: str) -> str:
    """What to do about a link that no optimizer has."""
    return (
        f"write the state of tx.remove({name!r}), and do in the loop what it does, as torch.nn.utils.clip_grad_norm_ "
        "does for clip_by_global_norm"
    )


def _check_fields(kind: Kind, role: str, name: str, link: LinkLike) -> None:
    """Raise for settings that the optimizer does not have."""
    known = {"link": (*kind.fields, *kind.statics), "momentum": ("momentum",), "maximize": ()}
    named = known.get(role, ("learning_rate", "weight_decay"))
    for field in dataclasses.fields(link):
        x = getattr(link, field.name)
        plain = -1.0 if role == "maximize" else field.default
        if field.name not in (*named, *FREE) and not same(x, plain):
            raise ValueError(
                f"torch.optim.{kind.name} has nothing like `{name}.{field.name}` = {code(x)}: it is {code(plain)} there"
            )
    sizing, iteration = getattr(link, "sizing", None), getattr(link, "iteration", None)
    if role == "link" and isinstance(link, scale_by_muon):
        if sizing not in SIZINGS.values():
            raise ValueError(f"torch.optim.Muon has no `{name}.sizing` = {code(sizing)}: write 'spectral' or 'rms'")
        if not isinstance(iteration, newton_schulz) or len(iteration.coefficients) > 1:
            raise ValueError(f"torch.optim.Muon has no `{name}.iteration` = {code(iteration)}: write newton_schulz()")


def _settings(match: Match, at: Param, step: np.ndarray, taken: int, layout: layout) -> dict[str, Any]:
    """PyTorch's hyperparameters of a parameter after so many steps of the run, and of its own."""
    kind, roles = match
    settings = dict(kind.others)

    def number(role: str, field: str) -> float:
        if role not in roles:
            return 0.0
        name, link = roles[role]
        return _number(f"{name}.{field}", getattr(link, field), at, step, taken)

    for field, key in kind.fields.items():
        key, _, pair = key.partition(" ")
        x = number("link", field)
        settings[key] = (*settings.get(key, ()), x) if pair else x
    name, link = roles["rate"]
    rate = _held(f"{name}.learning_rate", link.learning_rate, at)
    if kind.name == "Adagrad":
        rate, settings["lr_decay"] = _without_decay(rate)
    settings["lr"] = _number(f"{name}.learning_rate", rate, at, step, taken)
    settings["weight_decay"] = number("coupled", "weight_decay") + number("decoupled", "weight_decay")
    if kind.momentum:
        settings["momentum"] = number("momentum", "momentum")
    if "maximize" in settings:
        settings["maximize"] = "maximize" in roles
    if kind.decoupled is None:
        settings["decoupled_weight_decay"] = "decoupled" in roles
    if kind.statics:
        link = roles["link"][1] if "link" in roles else trace(0.0)
        settings["nesterov"] = link.nesterov
    if isinstance(link, scale_by_muon):
        _check_words(*roles["link"], at, layout)
        settings |= {"ns_steps": link.iteration.steps, "ns_coefficients": link.iteration.coefficients[0]}
        settings["adjust_lr_fn"] = next(key for key, sizing in SIZINGS.items() if key and sizing == link.sizing)
    return settings


def _held(where: str, x: Any, at: Param) -> Any:
    """What a field holds for a parameter."""
    return pick(where, x, *at)[1] if isinstance(x, Table) else x


def _number(where: str, x: Any, at: Param, step: np.ndarray, taken: int) -> float:
    """A hyperparameter at the next step."""
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    return float(evaluate(where, _held(where, x, at), jnp.asarray(step), dtype, jnp.asarray(taken, jnp.int32)))


def _check_words(name: str, link: scale_by_muon, at: Param, layout: layout) -> None:
    """Raise if the rows of a matrix are not its inputs as PyTorch has them."""
    path, words = at[0], _held(f"{name}.matrices", link.matrices, at)
    (block, *_) = words.form(layout.forward(path, np.broadcast_to(0.0, (2, 3))).shape).blocks
    if (block.m, block.n) != (3, 2):
        raise ValueError(
            f"`{name}.matrices` = {words!r} takes for outputs at {path!r} what PyTorch takes for inputs: in a layer of "
            "PyTorch the outputs are the first axis; change layout(axes=...) or the words"
        )


def _without_decay(rate: Any) -> tuple[Any, float]:
    """The learning rate of Adagrad without its decay, and the decay."""
    factors = rate.factors if isinstance(rate, product) else (rate,)
    for i, factor in enumerate(factors):
        own = factor.schedule if isinstance(factor, own_steps) else None
        if isinstance(own, inverse_time_decay_schedule) and own.init_value == 1.0:
            rest = factors[:i] + factors[i + 1 :]
            return (rest[0] if len(rest) == 1 else product(rest)), float(own.decay_rate)
    return rate, 0.0
