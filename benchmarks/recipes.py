"""What is done to them: the same optimizer in the words of each library.

Every number is closed over, so that it is a compile-time constant for both JAX libraries.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

EXEMPT = "bias|norm|ln_"  # what `clip_adamw_groups` does not decay
DECAY, MOMENTUM = 0.1, 0.9
ADAM: dict[str, Any] = {"b1": 0.9, "b2": 0.95, "eps": 1e-8}
LION: dict[str, Any] = {"b1": 0.9, "b2": 0.99}
STORED = {"adamw_int8": "int8", "adamw_companded8": "companded8"}  # the formats of the state


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One row of every table. ``reads``: how often at the least the gradient is read in a step.

    "groups" in a title: no decay on bias and norm. "state": how both moments are stored, if not in float32.
    "packed": chainax's own packs of small leaves against what the others do anyway.
    """

    name: str
    title: str
    learning_rate: float
    reads: int = 1
    eager: bool = False

    @property
    def optimizer(self) -> str:
        """Which optimizer it is, jitted or not, packed or not."""
        return self.name.removeprefix("eager_").removesuffix("_packed")

    @property
    def packed(self) -> bool:
        """Whether chainax packs small leaves."""
        return self.name.endswith("_packed")


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("sgd", "SGD", 1e-2),
        Recipe("momentum", "momentum", 5e-3),
        Recipe("adamw", "AdamW", 1e-2),
        Recipe("adamw_int8", "AdamW, int8 state", 2.0**-7),
        Recipe("adamw_companded8", "AdamW, companded8 state", 2.0**-7),
        Recipe("clip_adamw", "clip + AdamW", 2.0**-7, reads=2),
        Recipe("clip_adamw_groups", "clip + AdamW, groups", 2.0**-7, reads=2),
        Recipe("adamw_packed", "AdamW, packed", 1e-2),
        Recipe("clip_adamw_packed", "clip + AdamW, packed", 2.0**-7, reads=2),
        Recipe("clip_adamw_groups_packed", "clip + AdamW, groups, packed", 2.0**-7, reads=2),
        Recipe("lamb", "LAMB", 1e-1),
        Recipe("lion", "Lion", 2.0**-7),
        Recipe("adafactor", "Adafactor", 2e-1),
        Recipe("eager_adamw", "AdamW, eager", 1e-2, eager=True),
        Recipe("eager_clip_adamw", "clip + AdamW, eager", 2.0**-7, reads=2, eager=True),
    )
}


class Missing(Exception):
    """The library has no such optimizer."""


def in_chainax(recipe: Recipe, learning_rate: float, max_norm: float) -> Any:
    """The recipe as a chain."""
    import chainax as cx

    rate, name = learning_rate, recipe.optimizer
    if name in ("lamb", "lion", "adafactor"):
        factory = getattr(cx, name, None)
        if factory is None:
            raise Missing(f"chainax has no {name}")
        options: dict[str, Any] = {"lamb": {**ADAM, "weight_decay": DECAY}, "lion": {**LION, "weight_decay": DECAY}}
        return factory(rate, **options.get(name, {}))
    clip = cx.clip_by_global_norm(max_norm)
    groups = cx.by_path({EXEMPT: 0.0}, default=DECAY)
    if name in STORED:
        return cx.store(cx.adamw(rate, **ADAM, weight_decay=DECAY), getattr(cx, STORED[name])())
    tx = {
        "sgd": lambda: cx.sgd(rate),
        "momentum": lambda: cx.sgd(rate, momentum=MOMENTUM),
        "adamw": lambda: cx.adamw(rate, **ADAM, weight_decay=DECAY),
        "clip_adamw": lambda: cx.chain(clip, cx.adamw(rate, **ADAM, weight_decay=DECAY)),
        "clip_adamw_groups": lambda: cx.chain(clip, cx.adamw(rate, **ADAM, weight_decay=groups)),
    }[name]()
    return cx.pack(tx) if recipe.packed else tx


def in_optax(recipe: Recipe, learning_rate: float, max_norm: float) -> Any:
    """The recipe in Optax, with the first moment in float32 wherever Optax offers that; the second it does not."""
    import jax.numpy as jnp
    import optax

    if recipe.optimizer in STORED:
        raise Missing("optax stores no state in 8 bits")
    rate, wide = learning_rate, jnp.float32

    def adamw(**more: Any) -> Any:
        return optax.adamw(rate, **ADAM, weight_decay=DECAY, mu_dtype=wide, **more)

    def decayed(params: dict[str, Any]) -> dict[str, bool]:
        return {path: not re.search(EXEMPT, path) for path in params}

    clip = optax.clip_by_global_norm(max_norm)
    return {
        "sgd": lambda: optax.sgd(rate),
        "momentum": lambda: optax.sgd(rate, momentum=MOMENTUM, accumulator_dtype=wide),
        "adamw": adamw,
        "clip_adamw": lambda: optax.chain(clip, adamw()),
        "clip_adamw_groups": lambda: optax.chain(clip, adamw(mask=decayed)),
        "lamb": lambda: optax.lamb(rate, **ADAM, weight_decay=DECAY),
        "lion": lambda: optax.lion(rate, **LION, weight_decay=DECAY, mu_dtype=wide),
        "adafactor": lambda: optax.adafactor(rate),
    }[recipe.optimizer]()


def in_torch(recipe: Recipe, learning_rate: float, tensors: dict[str, Any]) -> Any:
    """The recipe as a fused torch optimizer. Its `clip_grad_norm_` is called before it, by whoever steps it."""
    import torch

    if recipe.optimizer in STORED:
        raise Missing("torch stores no state in 8 bits")
    rate, everything = learning_rate, list(tensors.values())
    if recipe.optimizer in ("sgd", "momentum"):
        # On the CPU, torch 2.13's fused SGD leaves most of a bfloat16 array as it was: pytorch/pytorch#191763.
        broken = everything[0].device.type == "cpu" and everything[0].dtype == torch.bfloat16
        momentum = MOMENTUM if recipe.optimizer == "momentum" else 0.0
        return torch.optim.SGD(everything, rate, momentum=momentum, **{"foreach" if broken else "fused": True})
    if recipe.optimizer not in ("adamw", "clip_adamw", "clip_adamw_groups"):
        raise Missing(f"torch has no fused {recipe.optimizer}")
    groups: list[dict[str, Any]] = [{"params": everything}]
    if recipe.optimizer == "clip_adamw_groups":
        exempt = [t for path, t in tensors.items() if re.search(EXEMPT, path)]
        decayed = [t for path, t in tensors.items() if not re.search(EXEMPT, path)]
        groups = [{"params": decayed}] + [{"params": exempt, "weight_decay": 0.0}] * bool(exempt)
    return torch.optim.AdamW(
        groups, rate, betas=(ADAM["b1"], ADAM["b2"]), eps=ADAM["eps"], weight_decay=DECAY, fused=True
    )
