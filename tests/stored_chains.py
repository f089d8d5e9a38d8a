"""Chains of every kind whose states and configurations are stored in ``stored/``, and how they were made.

``python tests/stored_chains.py VERSION`` writes a folder of that name: for each chain its configuration as JSON, its
state in mid-run as an npz of `state_dict`, as flax's bytes and as an Orbax checkpoint (zipped), and the parameters
then and two steps later. A folder is made once, by the code that is the last to write this version, and never again:
what is in it must load for ever.
"""

import json
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import chainax as cx
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

FOLDER = pathlib.Path(__file__).parent / "stored"
BEFORE, AFTER = 3, 2  # steps that were taken when the state was stored, and that follow


class Recipe(NamedTuple):
    """A chain, the dtype of its parameters, and the links that join it in mid-run."""

    tx: Callable[[], Any]
    dtype: Any = jnp.float32
    joins: Callable[[Any], Any] | None = None
    first: Callable[[], Any] | None = None
    """The chain as version 0 wrote it, where it is made otherwise today."""
    plain: bool = True
    """Whether the chain has a configuration: one that is made of closures has none."""


def blocks(form: Callable[..., Any]) -> Any:
    """A format of small blocks."""
    return form(block=8, min_size=0)


def edited(tx: Any) -> Any:
    """The chain with a momentum in front, which begins when it joins."""
    return tx.insert(cx.debiased_ema(0.9), before="scale_by_adam")


RECIPES = {
    "adamw": Recipe(
        lambda: cx.chain(
            cx.clip_by_global_norm(1.0),
            cx.scale_by_adam(b1=cx.linear_schedule(0.8, 0.9, 10)),
            cx.add_decayed_weights(cx.by_path({"bias|scale": 0.0}, default=0.1)),
            cx.scale_by_lr(cx.warmup_cosine_decay_schedule(0.0, 1e-2, 2, 10)),
        )
    ),
    "joined": Recipe(lambda: cx.adamw(1e-2), joins=edited),
    "sgd": Recipe(lambda: cx.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    "amsgrad": Recipe(lambda: cx.chain(cx.amsgrad(1e-2), cx.apply_update("kahan")), jnp.bfloat16),
    "nadam": Recipe(lambda: cx.chain(cx.nadam(1e-2), cx.apply_update("ecc")), jnp.bfloat16),
    "master": Recipe(lambda: cx.chain(cx.lion(1e-2), cx.apply_update("master")), jnp.bfloat16),
    "lamb": Recipe(lambda: cx.chain(cx.lamb(1e-2), cx.record("norm", "ratio"), cx.ema_params(0.9), cx.swa(1.0))),
    "adafactor": Recipe(lambda: cx.adafactor(momentum=0.9, min_dim_size_to_factor=2)),
    "sm3": Recipe(lambda: cx.sm3()),
    "asgd": Recipe(lambda: cx.asgd(0.1, lambd=0.01, t0=0.0)),
    "int8": Recipe(lambda: cx.store(cx.adamw(1e-2), blocks(cx.int8))),
    "int4": Recipe(lambda: cx.store(cx.adamw(1e-2), mu=blocks(cx.int4), nu=blocks(cx.companded8))),
    "float8": Recipe(lambda: cx.store(cx.adamw(1e-2), mu="bfloat16", nu=blocks(cx.float8))),
    "guards": Recipe(
        lambda: cx.chain(
            cx.dynamic_loss_scale(2.0, growth_interval=2),
            cx.skip_nonfinite(max_consecutive=2),
            cx.counted_clip_by_global_norm(1.0),
            cx.accumulate(cx.adam(1e-2), 2),
        )
    ),
    "groups": Recipe(
        lambda: cx.partition(
            cx.by_path({"embed": cx.adam(1e-2), "bias": cx.freeze()}, default=cx.sgd(0.1, momentum=0.9))
        )
    ),
    "nested": Recipe(lambda: cx.chain(cx.restart(cx.conditionally_mask(cx.adam(1e-2), cx.step_schedule(1.0, 2)), 4.0))),
    "pack": Recipe(lambda: cx.pack(cx.adamw(1e-2))),
    "flatten": Recipe(lambda: cx.flatten(cx.adamw(1e-2))),
    "schedule_free": Recipe(
        lambda: cx.schedule_free_adamw(1e-2, warmup_steps=2.0),
        first=lambda: cx.schedule_free(
            cx.chain(
                cx.scale_by_rms(0.999),
                cx.scale_by_lr(cx.bias_corrected_schedule(1e-2 * cx.linear_schedule(0.5, 1.0, 1.0), 0.0)),
            )
        ),
    ),
    "mechanize": Recipe(lambda: cx.chain(cx.mechanize(cx.adamw(1.0), s_init=0.1))),
    "prodigy": Recipe(lambda: cx.prodigy(estim_lr0=0.1, debias=True)),
    "dog": Recipe(lambda: cx.dog(r_eps=0.1)),
    "galore": Recipe(lambda: cx.galore_adamw(rank=2, update_proj_gap=2)),
    "lbfgs": Recipe(lambda: cx.lbfgs(memory_size=2)),
    "backtracking": Recipe(
        lambda: cx.chain(cx.scale_by_lr(0.5), cx.scale_by_backtracking_linesearch(store_grad=True)),
    ),
    "loss": Recipe(
        lambda: cx.chain(
            cx.skip_loss_spikes(warmup=1), cx.reduce_on_plateau(patience=0, cooldown=1), cx.momo_adam(1e-2)
        )
    ),
    "sophia": Recipe(lambda: cx.sophia(1e-2, update_interval=2)),
    "noise": Recipe(lambda: cx.chain(cx.add_noise(seed=1), cx.slow_weights(2.0), cx.sgd(0.1))),
    "optax": Recipe(lambda: cx.chain(cx.from_optax(optax.scale_by_adam()), cx.scale_by_lr(1e-2)), plain=False),
}


def params(dtype: Any) -> dict[str, Any]:
    """A tree of two levels; every size is a multiple of 2, as packs of 4-bit codes have it."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), dtype)

    return {"embed": draw(4, 6), "layer": {"kernel": draw(6, 4), "bias": draw(4)}, "scale": draw(4)}


def loss(p: Any) -> jax.Array:
    """A bowl, steeper along some coordinates, whose lowest point is not where the parameters begin."""
    leaves = jax.tree.leaves(p)
    return sum(
        (jnp.mean(jnp.arange(1.0, x.size + 1) * jnp.square(x.astype(jnp.float32).ravel() - 0.3)) for x in leaves),
        jnp.zeros(()),
    )


def step(tx: Any, p: Any, state: Any) -> tuple[Any, Any]:
    """One step down the bowl, with the extra arguments that the chain reads."""
    value, grad = jax.value_and_grad(loss)(p)
    known = {"value": value, "grad": grad, "value_fn": loss, "hessian": jax.tree.map(jnp.ones_like, p)}
    read = {name for link in tx.links.values() for name in link.extra}
    with jax.numpy_dtype_promotion("standard"):  # Optax's are not strict
        return jax.jit(tx.step, static_argnames="value_fn")(p, state, grad, **{n: known[n] for n in known if n in read})


def run(tx: Any, p: Any, state: Any, steps: int) -> tuple[Any, Any]:
    """Some steps."""
    for _ in range(steps):
        p, state = step(tx, p, state)
    return p, state


def begun(recipe: Recipe) -> tuple[Any, Any, Any]:
    """The chain, and parameters and state in mid-run."""
    tx, p = recipe.tx(), params(recipe.dtype)
    p, state = run(tx, p, tx.init(p), BEFORE)
    if recipe.joins is None:
        return tx, p, state
    tx = recipe.joins(tx)
    p, state = step(tx, p, tx.adopt(p, state)[0])
    return tx, p, state


def wide(tree: Any) -> dict[str, np.ndarray]:
    """Parameters by path, for an npz."""
    return {jax.tree_util.keystr(k, simple=True, separator="/"): np.asarray(x, np.float32) for k, x in _leaves(tree)}


def _leaves(tree: Any) -> Any:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def write(folder: pathlib.Path) -> None:
    """All recipes, in all formats."""
    folder.mkdir()
    for name, recipe in RECIPES.items():
        tx, p, state = begun(recipe)
        if recipe.plain:
            (folder / f"{name}.json").write_text(json.dumps(cx.to_config(tx)) + "\n")
        np.savez_compressed(folder / f"{name}.npz", **tx.state_dict(state))
        (folder / f"{name}.msgpack").write_bytes(flax.serialization.to_bytes(state))
        with tempfile.TemporaryDirectory() as scratch:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(pathlib.Path(scratch) / "state", state)
            shutil.make_archive(str(folder / f"{name}.orbax"), "zip", pathlib.Path(scratch) / "state")
        after, _ = run(tx, p, state, AFTER)
        np.savez_compressed(folder / f"{name}.params.npz", **wide(p))
        np.savez_compressed(folder / f"{name}.after.npz", **wide(after))


if __name__ == "__main__":
    write(FOLDER / sys.argv[1])
