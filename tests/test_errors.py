"""Mistakes, and what they are told: the link, the field, what came, and the remedy."""

import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chainax import chains
from chainax.core.facade.order import warn_of_ascent
from chainax.core.values.names import OTHER_NAMES

PARAMS = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
TX = cx.chain(cx.clip_by_global_norm(1.0), cx.scale_by_adam(), cx.add_decayed_weights(0.1), cx.scale_by_lr(1e-3))
STATE = TX.init(PARAMS)
NARROW = jax.tree.map(lambda p: p[..., :2], PARAMS)
CONFIG = cx.to_config(TX)
AVERAGED = cx.chain(cx.ema_params(0.9), slow=cx.ema_params(0.99))
NESTED = cx.chain(cx.restart(cx.ema_params(0.9), 3), cx.ema_params(0.99))
EMPTY = cx.chain().init(PARAMS)
SKIPPING = cx.chain(cx.skip_large_updates(1.0)).init(PARAMS)


SHAPES = jax.eval_shape(lambda: PARAMS)
LBFGS = cx.lbfgs().init(PARAMS)
KAHAN = cx.chain(cx.sgd(0.1), cx.apply_update("kahan"))
MASK = {"dense": {"kernel": True, "bias": False}}


def loss(params: Any) -> jax.Array:
    """Whose gradient is the parameters."""
    return sum((0.5 * jnp.sum(p**2) for p in jax.tree.leaves(params)), jnp.zeros(()))


def donated(call: Callable[[Any, Any], Any]) -> Any:
    """``call`` on parameters and a state that a step has reused."""
    params, state = jax.tree.map(jnp.copy, (PARAMS, STATE))
    cx.make_step(TX)(params, state, PARAMS)
    return call(params, state)


READERS: dict[str, Callable[[Any, Any], Any]] = {
    "apply_updates(params, updates)": lambda p, s: cx.apply_updates(p, PARAMS),
    "adopt(params, state)": lambda p, s: TX.adopt(PARAMS, s),
    "add_param_group(params, state)": lambda p, s: TX.add_param_group(PARAMS, s),
    "state_dict(state)": lambda p, s: TX.state_dict(s),
    "hyperparams(state, params)": lambda p, s: TX.hyperparams(s),
    "lookahead(params, state)": lambda p, s: TX.lookahead(PARAMS, s),
    "offload(state)": lambda p, s: cx.offload(s),
    "loss_scale(state)": lambda p, s: cx.loss_scale(s),
    "metrics(tx, state)": lambda p, s: cx.metrics(TX, s),
    "flush(tx, params, state)": lambda p, s: cx.flush(TX, PARAMS, s),
    "read_average(tx, params, state)": lambda p, s: cx.read_average(TX, PARAMS, s),
    "schedule_free_eval_params(tx, params, state)": lambda p, s: cx.schedule_free_eval_params(TX, PARAMS, s),
    "value_and_grad_from_state(tx, value_fn, params, state)": lambda p, s: cx.value_and_grad_from_state(
        TX, jnp.sum, PARAMS, s
    ),
}
"""Calls on parameters or on a state, by the name that errors give them."""


@pytest.mark.parametrize("call", READERS)
def test_donated_arrays_are_named(call: str) -> None:
    """Whatever reads them, and what to do instead."""
    where = "'dense/bias' of params" if call.startswith("apply") else "'step' of state"
    words = f"`{call}` got a deleted array at {where}: it was donated to an earlier step"
    with pytest.raises(RuntimeError, match=re.escape(words)):
        donated(READERS[call])


def flushed(tx: Any, **extra: Any) -> Any:
    """The flush of a fresh state."""
    return cx.flush(tx, PARAMS, tx.init(PARAMS), **extra)


def mask(params: Any) -> Any:
    """A weight-decay mask as Optax takes it."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "out of range": (
        lambda: cx.scale_by_adam(b1=1.5),
        ValueError,
        "`scale_by_adam.b1` must lie in [0, 1), got 1.5",
    ),
    "negative learning rate": (
        lambda: cx.sgd(-0.1),
        ValueError,
        "`scale_by_lr.learning_rate` must lie in [0, ∞), got -0.1",
    ),
    "not a number": (lambda: cx.adamw("1e-3"), ValueError, "`scale_by_lr.learning_rate` must be a number"),
    "NaN": (lambda: cx.scale(float("nan")), ValueError, "`scale.step_size` must lie in (-∞, ∞), got float('nan')"),
    "a flag": (lambda: cx.adamw(1e-3, weight_decay=True), ValueError, "`add_decayed_weights.weight_decay`"),
    "a dict for by_path": (
        lambda: cx.adamw(1e-3, weight_decay={"bias": 0.0}),
        ValueError,
        "`add_decayed_weights.weight_decay` must be a number, a schedule or a table, got a dict: write "
        "by_path({'bias': 0}, default=0)",
    ),
    "a mask function": (
        lambda: cx.add_decayed_weights(mask),
        ValueError,
        "by_path({pattern: number}, default=...)",
    ),
    "a number in a table out of range": (
        lambda: cx.scale_by_adam(b2=cx.by_path({"bias": 2.0}, default=0.9)),
        ValueError,
        "`scale_by_adam.b2`: `by_path['bias']` must lie in [0, 1), got 2",
    ),
    "no regular expression": (lambda: cx.by_path({"(": 0.0}), ValueError, "'(' is no regular expression"),
    "unmatched path": (
        lambda: cx.adamw(1e-3, weight_decay=cx.by_path({"bias": 0.0})).init(PARAMS),
        KeyError,
        "`add_decayed_weights.weight_decay`: no pattern of by_path({'bias': 0}) matches parameter 'dense/kernel'",
    ),
    "unknown field": (
        lambda: cx.scale_by_adam(beta1=0.9),
        TypeError,
        "`scale_by_adam` has no argument 'beta1': write b1=0.9; its arguments are b1, b2, eps",
    ),
    "missing field": (lambda: cx.trace(), TypeError, "momentum"),
    "assignment": (
        lambda: setattr(TX[1], "b1", 0.5),
        AttributeError,
        "`scale_by_adam` is a value and cannot be changed: use .replace(b1=0.5)",
    ),
    "fields at odds": (
        lambda: cx.sgd(0.1, momentum=0.9, dampening=0.5, nesterov=True),
        ValueError,
        "`trace.nesterov` needs dampening = 0, got 0.5",
    ),
    "no share of the mean": (
        lambda: cx.schedule_free(cx.sgd(0.1), b1=0.0),
        ValueError,
        "`schedule_free.b1` must be above 0: x could not be recovered from y",
    ),
    "a mean weighed by several rates": (
        lambda: cx.schedule_free(cx.adam(cx.by_path({"bias": 0.1}, default=0.2))),
        ValueError,
        "`schedule_free` weighs steps by one learning rate, got by_path({'bias': 0.1}, default=0.2) in 'scale_by_lr': "
        "put scale(by_path(...)) before it for the ratios",
    ),
    "no mean to evaluate at": (
        lambda: cx.schedule_free_eval_params(TX, PARAMS, STATE),
        KeyError,
        "no schedule_free link moves the parameters, so there is no mean: see schedule_free(chain)",
    ),
    "no bets": (
        lambda: cx.mechanize(cx.sgd(1.0), betas=()),
        ValueError,
        "`mechanize.betas` must have a number for each bet, got none",
    ),
    "one bet out of range": (
        lambda: cx.mechanize(cx.sgd(1.0), betas=(0.9, 1.5)),
        ValueError,
        "`mechanize.betas[1]` must lie in [0, 1], got 1.5",
    ),
    "a way to correct bias that is none": (
        lambda: cx.schedule_free_adamw(debias="mean"),
        ValueError,
        "`schedule_free_adamw.debias` must be 'rate' or 'square', got 'mean'",
    ),
    "a loss that is not given": (
        lambda: cx.momo().step(PARAMS, cx.momo().init(PARAMS), PARAMS),
        TypeError,
        "Link 'scale_by_momo' reads 'value': call tx.step(params, state, grads, value=value), "
        "with value, grads = jax.value_and_grad(loss)(params)",
    ),
    "a word that is none of several": (
        lambda: cx.amsgrad(debias="later"),
        ValueError,
        "`scale_by_amsgrad.debias` must be one of 'after', 'before', 'never', got 'later'",
    ),
    "swapped arguments of a schedule": (
        lambda: cx.cosine_decay_schedule(100, 1e-3),
        ValueError,
        "`cosine_decay_schedule.decay_steps` must be a number of steps, 0 or at least 1, got 0.001: it is not a "
        "fraction of the run; the arguments are cosine_decay_schedule(init_value, decay_steps, alpha, exponent)",
    ),
    "a share of the run": (
        lambda: cx.constant_schedule(1.0).then(0.1, at=0.5),
        ValueError,
        "`join_schedules.boundaries[0]` must be a number of steps, 0 or at least 1, got 0.5",
    ),
    "a warm-up of a share of the run": (
        lambda: cx.ademamix(warmup_steps=0.5),
        ValueError,
        "`ademamix.warmup_steps` must be a number of steps, 0 or at least 1, got 0.5",
    ),
    "a raw key for a seed": (
        lambda: cx.add_noise(0.1, seed=jax.random.PRNGKey(0)),
        ValueError,
        "`add_noise.seed` got uint32 numbers in pairs, such as the raw keys of jax.random.PRNGKey: give "
        "jax.random.key(0)",
    ),
    "a schedule for the number of steps": (
        lambda: cx.minimize(cx.lbfgs(), jnp.sum, jnp.ones(3), max_steps=cx.constant_schedule(3.0)),
        ValueError,
        "`minimize.max_steps` must be a whole number or an integer array, got constant_schedule(3)",
    ),
    "True for a number of pairs": (
        lambda: cx.scale_by_lbfgs(memory_size=True),
        ValueError,
        "`scale_by_lbfgs.memory_size` must be a whole number from 1, got True",
    ),
    "a rate divided by nothing": (
        lambda: cx.sgd(cx.onecycle_schedule(100, 0.1, div_factor=0.0)),
        ValueError,
        "`onecycle_schedule.div_factor` must lie in (0, ∞), got 0",
    ),
    "axes from the back": (
        lambda: cx.adam_mini(block_axes=(-1,)),
        ValueError,
        "`scale_by_adam_mini.block_axes` must be a tuple of axes, counted from the front, got (-1,)",
    ),
    "a negative warm-up": (
        lambda: cx.ademamix(warmup_steps=-5),
        ValueError,
        "`ademamix.warmup_steps` must lie in [0, ∞), got -5",
    ),
    "nesterov without momentum": (
        lambda: cx.sgd(0.1, momentum=0.0, nesterov=True),
        ValueError,
        "`sgd`: nesterov needs momentum above 0, got 0: leave nesterov out",
    ),
    "nesterov alone": (lambda: cx.sgd(0.1, nesterov=True), ValueError, "need momentum"),
    "a class in a chain": (lambda: cx.chain(cx.scale_by_adam), TypeError, "call it, scale_by_adam(...)"),
    "an Optax link in a chain": (lambda: cx.chain(optax.scale(1.0)), TypeError, "from_optax"),
    "a number in a chain": (lambda: cx.chain(0.1), TypeError, "a chain is made of links and chains, got 0.1"),
    "a name twice": (
        lambda: cx.chain(cx.scale(1.0), scale=cx.scale(2.0)),
        ValueError,
        "two links of the chain are named 'scale'",
    ),
    "unknown link": (
        lambda: TX["scale_by_adma"],
        KeyError,
        "no link named 'scale_by_adma' (did you mean 'scale_by_adam'?); "
        "the chain is clip_by_global_norm → scale_by_adam → add_decayed_weights → scale_by_lr",
    ),
    "nowhere to move": (lambda: TX.move("scale_by_adam"), TypeError, "say where: before= or after="),
    "nothing to replace with": (lambda: TX.replace("scale_by_adam"), TypeError, "another link or fields to change"),
    "missing params": (
        lambda: TX.update(PARAMS, STATE),
        TypeError,
        "Link 'add_decayed_weights' reads the parameters: call tx.update(grads, state, params)",
    ),
    "a tree with a leaf missing": (
        lambda: TX.step(PARAMS, STATE, {"dense": {"kernel": jnp.ones((2, 3))}}),
        TypeError,
        "The updates do not have the tree of the parameters: at 'dense/bias' the parameters have float32[3], "
        "the other tree has nothing",
    ),
    "a tree with a leaf more": (
        lambda: TX.step(PARAMS, STATE, {**PARAMS, "head": jnp.ones(2)}),
        TypeError,
        "at 'head' the parameters have nothing, the other tree has float32[2]",
    ),
    "another shape": (
        lambda: TX.step(PARAMS, STATE, {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(3)}}),
        TypeError,
        "The update at 'dense/kernel' has shape [3, 2], the parameter [2, 3]",
    ),
    "integer gradients": (
        lambda: TX.step(PARAMS, STATE, jax.tree.map(lambda p: p.astype(int), PARAMS)),
        TypeError,
        "The update at 'dense/bias' is int32[3], where the parameter is float32[3]",
    ),
    "another chain's state": (
        lambda: TX.step(PARAMS, cx.sgd(0.1, momentum=0.9).init(PARAMS), PARAMS),
        KeyError,
        "it lacks scale_by_adam and it holds trace. Carry it over with adopt(params, state, old=...)",
    ),
    "a state that is none": (
        lambda: TX.step(PARAMS, None, PARAMS),
        TypeError,
        "`step(params, state, grads)` got None as state: state must be what tx.init(params) or the last step returned",
    ),
    "state of other parameters": (
        lambda: TX.step(NARROW, STATE, NARROW),
        TypeError,
        "the state belongs to other parameters",
    ),
    "a parameter that joined": (
        lambda: TX.step(
            {**PARAMS, "head": jnp.ones(2)}, TX.init({**PARAMS, "head": None}), {**PARAMS, "head": jnp.ones(2)}
        ),
        TypeError,
        "for parameter 'head' (float32[2]): if it has joined since init, call add_param_group(params, state)",
    ),
    "unknown extra argument": (
        lambda: TX.step(PARAMS, STATE, PARAMS, value=1.0),
        TypeError,
        "Unknown extra argument 'value'; this chain accepts none",
    ),
    "missing extra argument": (
        lambda: cx.from_optax(optax.polyak_sgd(), arguments=("value",)).update(PARAMS, STATE, PARAMS),
        TypeError,
        "Link 'from_optax' reads 'value': call tx.update(grads, state, params, value=value)",
    ),
    "a stack of rates without vmap": (
        lambda: cx.sgd(jnp.ones(3)).step(PARAMS, cx.sgd(1.0).init(PARAMS), PARAMS),
        ValueError,
        "`scale_by_lr.learning_rate` must be a scalar where it is used, got float32[3]",
    ),
    "stacking different chains": (
        lambda: cx.stack([cx.sgd(0.1), cx.adam(0.1)]),
        ValueError,
        "chain 1 differs from chain 0",
    ),
    "update to the wrong tree": (lambda: cx.apply_updates(PARAMS, {"dense": 1.0}), TypeError, "at 'dense"),
    "an update where the parameters have a hole": (
        lambda: TX.step({**PARAMS, "b": None}, STATE, {**PARAMS, "b": jnp.ones(2)}),
        TypeError,
        "The update at 'b' is float32[2], where the parameters have None",
    ),
    "a schedule that asks for the step's value": (
        lambda: cx.sgd(lambda k: 0.1 if k < 10 else 0.01),
        ValueError,
        "use jnp.where, join_schedules or step_schedule",
    ),
    **{
        f"a schedule that calls {name}": (
            lambda function=function: cx.sgd(function),
            ValueError,
            f"asks for the step's value, which is traced: {words}",
        )
        for name, function, words in (
            ("math.cos", lambda k: 0.1 * math.cos(k), "use jnp.cos"),
            ("np.sqrt", lambda k: 0.1 / np.sqrt(k + 1), "use jnp.sqrt"),
            ("min", lambda k: 1.0 - 0.1 * min(k, 9), "use jnp.minimum in place of min"),
            ("max", lambda k: 0.1 * max(1 - k, 0), "use jnp.maximum in place of max"),
            ("float", lambda k: 0.1 / (1 + float(k)), "leave float() out and compute with the step itself, an array"),
            ("int", lambda k: 0.1 ** int(k), "leave int() out and compute with the step itself, an array"),
            ("no function but a list", lambda k: [0.1, 0.01][k], "for an item of a list write jnp.array(list)[step]"),
        )
    },
    "a table of words": (lambda: cx.by_path({"a": "b"}), ValueError, "`by_path['a']` must be a number"),
    "a complex rate": (lambda: cx.sgd(jnp.array([1j, 2])), ValueError, "got an array of complex64"),
    "a keyword for a name": (lambda: cx.chain(**{"lambda": cx.scale(1.0)}), ValueError, "got 'lambda'"),
    "a comparison with no chain": (lambda: TX.diff("adam"), TypeError, "diff compares with another chain or link"),
    "part of a micro-batch": (
        lambda: cx.accumulate(cx.sgd(0.1), 2.5),
        ValueError,
        "`accumulate.every` must be a whole number, got 2.5",
    ),
    "no micro-batch": (
        lambda: cx.accumulate(cx.sgd(0.1), 0),
        ValueError,
        "`accumulate.every` must lie in [1, ∞), got 0",
    ),
    "a length by path": (
        lambda: cx.accumulate(cx.sgd(0.1), cx.by_path({"bias": 2}, default=1)),
        ValueError,
        "`accumulate.every` must be a number or a schedule, got by_path({'bias': 2}, default=1)",
    ),
    "a length that is no whole number": (
        lambda: cx.accumulate(cx.sgd(0.1), jnp.array(2.5)),
        ValueError,
        "`accumulate.every` must be a whole number, got jnp.float32(2.5)",
    ),
    "a stack of lengths without vmap": (
        lambda: cx.accumulate(cx.sgd(0.1), jnp.arange(1, 3)).step(
            PARAMS, cx.accumulate(cx.sgd(0.1), 2).init(PARAMS), PARAMS
        ),
        ValueError,
        "`accumulate.every` must be a scalar where it is used, got int32[2]",
    ),
    "a step for every": (
        lambda: cx.accumulate(cx.sgd(0.1), True),
        ValueError,
        "`accumulate.every` must be a number in [1, ∞), got True",
    ),
    "no chain to wrap": (lambda: cx.flatten(None), TypeError, "`flatten.tx` must be a link or a chain, got None"),
    "a function to wrap": (
        lambda: cx.flatten(cx.sgd),
        TypeError,
        "`flatten.tx`: a chain is made of links and chains, got sgd",
    ),
    "a class to wrap": (lambda: cx.flatten(cx.scale_by_adam), TypeError, "`flatten.tx`: a chain is made of links, got"),
    "an axis of examples inside": (
        lambda: cx.accumulate(cx.chain(cx.clip_per_example(1.0), cx.sgd(0.1)), 2),
        ValueError,
        "`accumulate.tx`: 'clip_per_example' reduces an axis of examples, so it must come before the link that holds "
        "the chain: chain(clip_per_example(1), accumulate(...))",
    ),
    "a loss scale that sees no overflow": (
        lambda: cx.accumulate_weighted(cx.flatten(cx.chain(mine=cx.dynamic_loss_scale(), sgd=cx.sgd(0.1))), 2),
        ValueError,
        "`accumulate_weighted.tx`: 'mine' would see no overflow, since accumulate_weighted excludes such "
        "micro-batches, and its scale would only grow: put it before accumulate_weighted: chain(dynamic_loss_scale(), "
        "accumulate_weighted(...))",
    ),
    "rounding inside of a vector": (
        lambda: cx.flatten(cx.chain(cx.sgd(0.1), cx.apply_update("kahan"))),
        ValueError,
        "`flatten.tx`: 'apply_update' says how parameters are rounded, but flatten moves them by an update: "
        "put it at the end of the outer chain: chain(flatten(...), apply_update(rounding='kahan'))",
    ),
    "rounding in the middle of a chain": (
        lambda: cx.chain(cx.accumulate(cx.chain(cx.sgd(0.1), cx.apply_update("kahan")), 2), cx.scale(0.5)),
        ValueError,
        "'accumulate' holds 'apply_update', which says how the chain ends: it must be the last link",
    ),
    "rounding where a condition does not look": (
        lambda: cx.conditionally_transform(cx.accumulate(cx.chain(cx.sgd(0.1), cx.apply_update("kahan")), 2)),
        ValueError,
        "`conditionally_transform.tx`: 'apply_update' in 'accumulate' cannot round updates that bypass the chain: "
        "put the condition inside: accumulate(conditionally_transform(...))",
    ),
    "rounding of the same name where a condition does not look": (
        lambda: cx.conditionally_transform(
            cx.chain(r=cx.accumulate(cx.chain(cx.sgd(0.1), r=cx.apply_update("kahan")), 2))
        ),
        ValueError,
        "`conditionally_transform.tx`: 'r' in 'r' cannot round",
    ),
    "a dict for a partition": (
        lambda: cx.partition({"bias": cx.freeze()}),
        ValueError,
        "`partition.table` must be by_path({pattern: chain}, default=chain), got {'bias': freeze()}",
    ),
    "an unknown statistic": (
        lambda: cx.record("norm", "mean"),
        ValueError,
        "`record` keeps norm, rms, max, param_norm, ratio, got 'mean'",
    ),
    "a statistic twice": (lambda: cx.record("max", "max"), ValueError, "`record` was given 'max' twice"),
    "a list of groups": (
        lambda: cx.recorded(TX, STATE, by=["kernel"]),  # pyright: ignore[reportArgumentType]
        ValueError,
        "`recorded` takes by='path', a table {pattern: group} or None, got ['kernel']",
    ),
    "a group without its part of the path": (
        lambda: cx.recorded(cx.record(), cx.record().init(PARAMS), by={"kernel": r"\1"}),
        ValueError,
        "`recorded`: 'kernel': '\\\\1' is not a pattern and its group: invalid group reference 1",
    ),
    "hyperparameters of what is no state": (
        lambda: TX.hyperparams({"step": 0}),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`hyperparams(state, params)` got dict as state",
    ),
    "hyperparameters of another chain's state": (
        lambda: cx.accumulate(cx.sgd(0.1), 2).hyperparams(STATE),
        KeyError,
        "The state is not of this chain: it lacks accumulate. Carry it over with adopt(params, state, old=...)",
    ),
    "a number in a partition": (
        lambda: cx.partition(cx.by_path({"bias": 0.1})),
        TypeError,
        "`partition.table`: `by_path['bias']`: a chain is made of links and chains, got 0.1",
    ),
    "a group that is named like the default": (
        lambda: cx.partition(cx.by_path({"default": cx.freeze()}, default=cx.sgd(0.1))),
        ValueError,
        "'default' names the default's state: write the pattern as '(default)'",
    ),
    "a parameter without a chain": (
        lambda: cx.partition(cx.by_path({"bias": cx.freeze()})).init(PARAMS),
        KeyError,
        "`partition.table`: no pattern of by_path({'bias': freeze()}) matches parameter 'dense/kernel': add one, or",
    ),
    "a vector with a hole": (
        lambda: cx.flatten(cx.sgd(0.1)).step(
            PARAMS, cx.flatten(cx.sgd(0.1)).init(PARAMS), {"dense": {"kernel": None, "bias": jnp.ones(3)}}
        ),
        TypeError,
        "Link 'flatten' has no update at 'dense/kernel', float32[2, 3], and a vector cannot have holes: exclude",
    ),
    "a guard out of sight": (
        lambda: cx.mechanize(cx.chain(cx.accumulate(cx.chain(cx.skip_nonfinite(), cx.sgd(1.0)), 2))),
        ValueError,
        "`mechanize.tx`: 'skip_nonfinite' rejects steps inside another link, where mechanize cannot see it: put it at",
    ),
    "two leaves of one path": (
        lambda: cx.by_leaf({"a/b": jnp.ones(2), "a": {"b": jnp.ones(2)}}, lambda path, p: 1.0),
        ValueError,
        "`by_leaf`: 2 parameters have the path 'a/b': rename one",
    ),
    "examples behind another link": (
        lambda: cx.chain(cx.scale(1.0), cx.clip_per_example(1.0)),
        ValueError,
        "'clip_per_example' reduces an axis of examples: it must be the first link, and the only such one",
    ),
    "the state of another link of the same name": (
        lambda: cx.chain(pre=cx.scale_by_adam()).update(PARAMS, cx.chain(pre=cx.scale_by_amsgrad()).init(PARAMS)),
        KeyError,
        "link 'pre' keeps mu, nu, the state has mu, nu, nu_max under its name. Carry it over with adopt",
    ),
    "other statistics": (
        lambda: cx.record("norm", "max").update(PARAMS, cx.record("norm").init(PARAMS)),
        KeyError,
        "The state is not of this chain: link 'record' keeps",
    ),
    "another dtype of slots": (
        lambda: cx.adam(1e-3).step(PARAMS, cx.store(cx.adam(1e-3), "bfloat16").init(PARAMS), PARAMS),
        TypeError,
        "Slot 'mu' of link 'scale_by_adam' is bfloat16[3] at 'dense/bias', where the parameter is float32[3] and the "
        "slot float32[3]: the state belongs to other parameters, or was stored in another format",
    ),
    "another way to round": (
        lambda: cx.chain(cx.scale(-1.0), cx.apply_update("ecc")).step(
            PARAMS, cx.chain(cx.scale(-1.0), cx.apply_update("kahan")).init(PARAMS), PARAMS
        ),
        KeyError,
        "link 'apply_update' keeps correction, the state has compensation under its name",
    ),
    "a narrow parameter that joins": (
        lambda: cx.apply_update("master").step(
            {"w": jnp.ones(2, jnp.bfloat16)},
            cx.apply_update("master").init({"w": None}),
            {"w": jnp.ones(2, jnp.bfloat16)},
        ),
        TypeError,
        "The state has no slot 'weights' of link 'apply_update' for parameter 'w' (bfloat16[2]): if it has joined",
    ),
    "a condition that asks for the step": (
        lambda: cx.conditionally_mask(cx.sgd(0.1), lambda k: bool(k > 3)),
        ValueError,
        "asks for the step's value, which is traced",
    ),
    "a condition that is no number": (
        lambda: cx.conditionally_transform(cx.sgd(0.1), lambda k: [k]),
        ValueError,
        "returns a list, not a number",
    ),
    "a condition by path": (
        lambda: cx.conditionally_mask(cx.sgd(0.1), cx.by_path({"bias": 0.0}, default=1.0)).init(PARAMS),
        ValueError,
        "`conditionally_mask.condition` cannot be by_path: the link treats the whole tree at once",
    ),
    "a function for an argument's name": (
        lambda: cx.conditionally_mask(cx.sgd(0.1), argument=mask),
        ValueError,
        "`conditionally_mask.argument` must be the name of an argument, got",
    ),
    "no average": (
        lambda: cx.read_average(TX, PARAMS, STATE),
        KeyError,
        "the chain keeps no average of the parameters: append ema_params(0.999) to it",
    ),
    "one of two averages": (
        lambda: cx.read_average(AVERAGED, PARAMS, AVERAGED.init(PARAMS)),
        KeyError,
        "several links keep an average: say which by name= one of ema_params, slow",
    ),
    "one of two averages of a name": (
        lambda: cx.read_average(NESTED, PARAMS, NESTED.init(PARAMS)),
        KeyError,
        "several links keep an average: say which by name= one of ema_params, restart/ema_params",
    ),
    "an unknown average": (
        lambda: cx.read_average(AVERAGED, PARAMS, AVERAGED.init(PARAMS), "slo"),
        KeyError,
        "no link 'slo' keeps an average (did you mean 'slow'?); those that do are ema_params, slow",
    ),
    "config: malformed links": (
        lambda: cx.from_config({"chainax": 1, "type": "chain", "links": 5}),
        ValueError,
        "malformed",
    ),
    "config: a type that is no name": (
        lambda: cx.from_config({"chainax": 1, "type": ["x"]}),
        ValueError,
        "must be a name",
    ),
    "config: an empty float": (
        lambda: cx.from_config({"chainax": 1, "type": "scale", "step_size": {"type": "float"}}),
        ValueError,
        "`float` needs the field 'value' at step_size",
    ),
    "config: unknown type": (
        lambda: cx.from_config({"chainax": 1, "type": "scale_by_adm"}),
        ValueError,
        "unknown type 'scale_by_adm' (did you mean 'scale_by_adam'?)",
    ),
    "config: unknown field": (
        lambda: cx.from_config({**cx.to_config(cx.scale(1.0)), "beta": 1}),
        ValueError,
        "`scale` has no field 'beta'; its fields are step_size",
    ),
    "config: missing field": (
        lambda: cx.from_config({"chainax": 1, "type": "scale"}),
        ValueError,
        "`scale` needs the field 'step_size'",
    ),
    "config: unknown version": (
        lambda: cx.from_config({**CONFIG, "chainax": 99}),
        ValueError,
        "reads configurations of version 1, got version 99",
    ),
    "config: a function": (
        lambda: cx.to_config(cx.sgd(lambda k: 0.1)),
        TypeError,
        "scale_by_lr.learning_rate: the function",
    ),
    "a table by path for the whole tree": (
        lambda: cx.skip_large_updates(cx.by_path({"bias": 1.0}, default=2.0)).step(PARAMS, SKIPPING, PARAMS),
        ValueError,
        "`skip_large_updates.max_norm` cannot be by_path: the link treats the whole tree at once",
    ),
    "an axis that a leaf has not": (
        lambda: cx.chain(cx.centralize(axis=2)).update(PARAMS, EMPTY),
        ValueError,
        "`centralize.axis` is 2, but an update of shape [2, 3] has no such axis",
    ),
    "an axis that a kernel has not": (
        lambda: cx.chain(cx.adaptive_grad_clip(0.1, axis=(0, 2))).update(PARAMS, EMPTY, PARAMS),
        ValueError,
        "`adaptive_grad_clip.axis` is (0, 2), but an update of shape [2, 3] has no such axis: "
        "give such leaves their own link, by partition(by_path({pattern: adaptive_grad_clip(...)}, default=...))",
    ),
    "no loss scale": (lambda: cx.loss_scale(STATE), KeyError, "no loss scales: put one dynamic_loss_scale() first"),
    "a loss scale of 0": (lambda: cx.dynamic_loss_scale(0), ValueError, "init_scale` must be positive, got 0"),
    "half a seed": (
        lambda: cx.add_noise(seed=0.5),
        ValueError,
        "`add_noise.seed` must be a whole number, got 0.5: give an int of 64 bits, an array of integers or a key, such "
        "as jax.random.key(0)",
    ),
    "a seed by path": (
        lambda: cx.apply_update("stochastic", cx.by_path({"bias": 1}, default=2)),
        ValueError,
        "`apply_update.seed` must be a whole number, got by_path({'bias': 1}, default=2)",
    ),
    "a seed that no generator takes": (
        lambda: cx.differentially_private_aggregate(1.0, 1.0, 2**63),
        ValueError,
        "`differentially_private_aggregate.seed` must be a whole number, got 9223372036854775808",
    ),
    "a stack of seeds without vmap": (
        lambda: cx.chain(cx.add_noise(seed=jnp.arange(3))).update(PARAMS, EMPTY),
        ValueError,
        "`add_noise.seed` must be a scalar where it is used, got int32[3]: for a number by path write by_path(",
    ),
    "config: a key": (
        lambda: cx.to_config(cx.noisy_sgd(0.1, seed=jax.random.key(0))),
        TypeError,
        "add_noise.seed: a PRNG key has no plain form: give a whole number, such as seed=0",
    ),
    "part of a step": (
        lambda: cx.minimize(cx.sgd(0.1), jnp.sum, jnp.ones(2), max_steps=2.5),  # pyright: ignore[reportArgumentType]
        ValueError,
        "`minimize.max_steps` must be a whole number, got 2.5",
    ),
    "half a refusal": (
        lambda: cx.skip_nonfinite(2.5),
        ValueError,
        "`skip_nonfinite.max_consecutive` must be a whole number or None, got 2.5",
    ),
    "examples of different number": (
        lambda: cx.chain(cx.clip_per_example(1.0)).update({"a": jnp.ones((4, 3)), "b": jnp.ones((5, 2))}, EMPTY),
        TypeError,
        "The updates have 4 and 5 examples: give all the same number",
    ),
    "no axis of examples": (
        lambda: cx.chain(cx.clip_per_example(1.0)).update({"a": jnp.ones(())}, EMPTY),
        TypeError,
        "The update at 'a' is a scalar, where a first axis of examples is expected",
    ),
    "the loss beside the gradients": (
        lambda: TX.step(PARAMS, STATE, jax.value_and_grad(loss)(PARAMS)),
        TypeError,
        "The updates are a pair, as jax.value_and_grad(loss) returns: write value, grads = "
        "jax.value_and_grad(loss)(params), and pass grads alone",
    ),
    "the loss beside the gradients, without parameters": (
        lambda: cx.adam(1e-3).update(jax.value_and_grad(loss)(PARAMS), cx.adam(1e-3).init(PARAMS)),
        TypeError,
        "write value, grads = jax.value_and_grad(loss)(params)",
    ),
    "the loss beside the gradient of a lone array": (
        lambda: cx.sgd(0.1).step(jnp.ones(3), EMPTY, jax.value_and_grad(loss)(jnp.ones(3))),
        TypeError,
        "write value, grads = jax.value_and_grad(loss)(params)",
    ),
    "the loss beside the gradients of examples": (
        lambda: cx.clip_per_example(1.0).update((1.0, jax.tree.map(lambda p: p[None], PARAMS)), EMPTY, PARAMS),
        TypeError,
        "write value, grads = jax.value_and_grad(loss)(params)",
    ),
    "gradients beside what else the loss returned": (
        lambda: cx.apply_updates(PARAMS, (PARAMS, {"accuracy": 0.5})),
        TypeError,
        "write grads, aux = jax.grad(loss, has_aux=True)(params), and pass grads alone",
    ),
    "donated parameters in a step": (
        lambda: donated(lambda p, s: cx.make_step(TX)(p, STATE, PARAMS)),
        RuntimeError,
        "`step(params, state, grads)` got a deleted array at 'dense/bias' of params: it was donated to an earlier "
        "step, which has reused its memory. Go on with what that step returned, params, state = step(params, state, "
        "grads), or compile it by make_step(tx, donate=False)",
    ),
    "a donated state in a step outside of jit": (
        lambda: donated(lambda p, s: TX.step(PARAMS, s, PARAMS)),
        RuntimeError,
        "`step(params, state, grads)` got a deleted array at 'step' of state",
    ),
    "donated parameters as gradients": (
        lambda: donated(lambda p, s: TX.update(p, STATE, PARAMS)),
        RuntimeError,
        "`update(grads, state, params)` got a deleted array at 'dense/bias' of grads",
    ),
    "donated parameters in init": (
        lambda: donated(lambda p, s: TX.init(p)),
        RuntimeError,
        "`init(params)` got a deleted array at 'dense/bias' of params",
    ),
    "a list of links": (
        lambda: cx.chain([cx.scale_by_adam(), cx.scale_by_lr(0.1)]),
        TypeError,
        "got [scale_by_adam(), scale_by_lr(0.1)]: write chain(*links)",
    ),
    "a list of links in a wrapper": (
        lambda: cx.accumulate((cx.scale_by_adam(), cx.scale_by_lr(0.1)), 2),
        TypeError,
        "`accumulate.tx`: a chain is made of links and chains, got (scale_by_adam(), scale_by_lr(0.1)): write "
        "chain(*links)",
    ),
    "a dict of links": (
        lambda: cx.chain({"adam": cx.scale_by_adam()}),
        TypeError,
        "got {'adam': scale_by_adam()}: write chain(**links)",
    ),
    "a link that is not named": (
        lambda: TX.replace(learning_rate=0.1),
        TypeError,
        "replace needs the name of a link: tx.replace('scale_by_lr', learning_rate=0.1)",
    ),
    "links that are not named": (
        lambda: TX.replace(lr=0.1, betas=0.8),
        TypeError,
        "tx.replace('scale_by_lr', learning_rate=0.1) and tx.replace('scale_by_adam', b1=0.8)",
    ),
    "a link of a chain within": (
        lambda: cx.chain(cx.flatten(cx.accumulate(cx.sgd(0.1), 2))).replace(learning_rate=0.2),
        TypeError,
        "replace needs the name of a link: tx.replace('flatten/accumulate/scale_by_lr', learning_rate=0.2)",
    ),
    "a field of a link within": (
        lambda: cx.accumulate(cx.adamw(0.1), 2).replace(b2=0.9),
        TypeError,
        "`accumulate` has no field 'b2'; its fields are tx, every. For a link that it holds, write "
        "tx.replace('scale_by_adam', b2=0.9)",
    ),
    "a field of a link within a link of a chain": (
        lambda: cx.chain(cx.accumulate(cx.adamw(0.1), 2)).replace("accumulate", b2=0.9),
        TypeError,
        "its fields are tx, every. For a link that it holds, write tx.replace('accumulate/scale_by_adam', b2=0.9)",
    ),
    "a link within without its path": (
        lambda: cx.chain(cx.accumulate(cx.adamw(0.1), 2)).move("scale_by_adam", before="accumulate"),
        KeyError,
        "no link named 'scale_by_adam' (did you mean 'accumulate/scale_by_adam'?); the chain is accumulate",
    ),
    "one of several links within": (
        lambda: cx.partition(cx.by_path({"a": cx.sgd(0.1)}, default=cx.sgd(0.2))).remove("scale_by_lr"),
        KeyError,
        "no link named 'scale_by_lr' (did you mean 'a/scale_by_lr' or 'default/scale_by_lr'?); `partition` holds "
        "a/scale_by_lr, default/scale_by_lr",
    ),
    "a link of a link without links": (
        lambda: cx.scale_by_adam().remove("scale_by_lr"),
        KeyError,
        "no link named 'scale_by_lr'; `scale_by_adam` holds no chain",
    ),
    "a link by index": (
        lambda: cx.accumulate(cx.sgd(0.1), 2)[0],  # pyright: ignore[reportArgumentType]
        TypeError,
        "the links that `accumulate` holds are taken by name, got 0",
    ),
    "a field by position": (
        lambda: cx.scale_by_adam().replace("b2", 0.9),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`scale_by_adam` takes its fields by name: replace(b2=0.9)",
    ),
    "the name of the link itself": (
        lambda: cx.scale_by_adam().replace("scale_by_adam", b2=0.9),
        TypeError,
        "`scale_by_adam` is a link, and the name is for links of a chain: write replace(b2=0.9)",
    ),
    "a link into itself": (
        lambda: cx.chain(cx.accumulate(cx.sgd(0.1), 2)).move("accumulate", before="accumulate/scale_by_lr"),
        ValueError,
        "cannot move 'accumulate' before or after 'accumulate/scale_by_lr', which it holds",
    ),
    "what a wrapper refuses, by an edit": (
        lambda: cx.chain(cx.accumulate(cx.sgd(0.1), 2)).insert(
            cx.dynamic_loss_scale(), before="accumulate/scale_by_lr"
        ),
        ValueError,
        "`accumulate.tx`: 'dynamic_loss_scale' would see no overflow",
    ),
    "a field that no link has": (
        lambda: TX.replace(nothing=0.1),
        TypeError,
        "replace needs the name of a link: one of clip_by_global_norm, scale_by_adam, add_decayed_weights, scale_by_lr",
    ),
    "another library's names": (
        lambda: cx.adamw(lr=1e-3, betas=(0.8, 0.9)),
        TypeError,
        "`adamw` has no argument 'lr': write learning_rate=0.001, and no argument 'betas': write b1=0.8, b2=0.9; its "
        "arguments are learning_rate, b1, b2, eps, eps_root, weight_decay",
    ),
    "another library's name in replace": (
        lambda: TX.replace("scale_by_lr", lr=0.1),
        TypeError,
        "`scale_by_lr` has no field 'lr': write learning_rate=0.1; its fields are learning_rate",
    ),
    "another library's name of an extra argument": (
        lambda: cx.polyak_sgd().step(PARAMS, EMPTY, PARAMS, loss=1.0),
        TypeError,
        "Unknown extra argument 'loss': write value=1; this chain accepts value",
    ),
    "arguments by position": (
        lambda: cx.sgd(0.1, 0.9),
        TypeError,
        "`sgd` takes learning_rate by position, and the others by name: write sgd(0.1, momentum=0.9)",
    ),
    "a pair by position": (
        lambda: cx.adam(1e-3, (0.8, 0.9), eps=1e-6),
        TypeError,
        "write adam(0.001, b1=0.8, b2=0.9, eps=1e-06)",
    ),
    "parameters for an optimizer": (
        lambda: cx.adam(PARAMS, 1e-3),
        TypeError,
        "write adam(0.001); the parameters go to tx.init(params)",
    ),
    "parameters for a learning rate": (
        lambda: cx.adam(PARAMS),
        ValueError,
        "`scale_by_lr.learning_rate` must be a number, a schedule or a table, got a dict of arrays: parameters go to "
        "tx.init(params)",
    ),
    "an argument by position where none is": (lambda: cx.cocob(90.0), TypeError, "write cocob(alpha=90)"),
    "a mask by name": (
        lambda: cx.add_decayed_weights(0.1, mask=MASK),
        TypeError,
        "`add_decayed_weights` has no argument 'mask': to decay some parameters only, write "
        "weight_decay=by_path({'bias|norm': 0.0}, default=0.1) or weight_decay=by_ndim({1: 0.0}, default=0.1)",
    ),
    "a mask of booleans": (
        lambda: cx.adamw(1e-3, weight_decay=MASK),
        ValueError,
        "`add_decayed_weights.weight_decay` must be a number, a schedule or a table, got a dict of booleans. In "
        "place of a mask write by_path({'bias|norm': 0.0}, default=0.1) or by_ndim({1: 0.0}, default=0.1)",
    ),
    "a mask of booleans in a list": (
        lambda: cx.add_decayed_weights([True, False]),
        ValueError,
        "got a list of booleans",
    ),
    "a tree of numbers": (
        lambda: cx.add_decayed_weights({"dense": {"kernel": 0.1, "bias": 0.0}}),
        ValueError,
        "write by_path({'^dense/bias$': 0, '^dense/kernel$': 0.1})",
    ),
    "an empty table": (lambda: cx.sgd({}), ValueError, "got a dict: choose by path or shape, with by_path("),
    "a mask of boolean arrays": (
        lambda: cx.sgd({"a": jnp.array(True)}),
        ValueError,
        "got a dict of booleans. In place",
    ),
    "many numbers": (
        lambda: cx.sgd({str(i): 0.1 for i in range(1000)}),
        ValueError,
        "got a dict: choose by path or shape, with by_path({'bias|norm': 0.0}, default=0.1) or by_ndim(",
    ),
    "rounding by an update": (
        lambda: KAHAN.update(PARAMS, EMPTY, PARAMS),
        TypeError,
        "Link 'apply_update' rounds the parameters itself: call tx.step(params, state, grads) in place of update. "
        "flax's TrainState and nnx.Optimizer call update; those that call step: from chainax.flax import Optimizer, "
        "TrainState",
    ),
    "rounding in Optax": (
        lambda: cx.partition(cx.by_path({"bias": KAHAN}, default=KAHAN)).to_optax(),
        TypeError,
        "`to_optax`: Link 'apply_update' rounds the parameters itself: call tx.step(params, state, grads) in place of "
        "update. flax's TrainState and nnx.Optimizer call update; those that call step: from chainax.flax import "
        "Optimizer, TrainState",
    ),
    "a stack of rates in init": (
        lambda: cx.sgd(jnp.ones(3)).init(PARAMS),
        ValueError,
        "`scale_by_lr.learning_rate` must be a scalar where it is used, got float32[3]: for a number by path write "
        "by_path({pattern: number}, default=number), and map over a stack of settings by "
        "jax.vmap(train, in_axes=(tx.axes(),))(tx)",
    ),
    "a stack of rates in a table within": (
        lambda: cx.accumulate(cx.sgd(cx.by_path({"bias": jnp.ones(3)}, default=0.1)), 2).init(PARAMS),
        ValueError,
        "must be a scalar where it is used, got float32[3]",
    ),
    "a line search without its arguments in a step": (
        lambda: cx.lbfgs().step(PARAMS, LBFGS, PARAMS),
        TypeError,
        "Link 'scale_by_zoom_linesearch' reads 'value', 'grad', 'value_fn': call tx.step(params, state, grads, "
        "value=value, grad=grads, value_fn=loss), with value, grads = jax.value_and_grad(loss)(params)",
    ),
    "a line search without its arguments in an update": (
        lambda: cx.lbfgs().update(PARAMS, LBFGS, PARAMS, value=1.0),
        TypeError,
        "reads 'grad', 'value_fn': call tx.update(grads, state, params, value=value, grad=grads, value_fn=loss), with",
    ),
    "extra arguments without parameters": (
        lambda: cx.chain(cx.scale_by_polyak(), TX).update(PARAMS, STATE, value=1.0),
        TypeError,
        "reads the parameters: call tx.update(grads, state, params, value=value)",
    ),
    "no parameters for a step": (
        lambda: TX.step(None, STATE, PARAMS),
        TypeError,
        "`step` moves the parameters: call tx.step(params, state, grads)",
    ),
    "adopting parameters": (
        lambda: TX.adopt(STATE, PARAMS),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`adopt(params, state)` got State as params and dict as state: state must be what tx.init(params) or the last "
        "step returned",
    ),
    "adding a state to the parameters": (
        lambda: TX.add_param_group(STATE, PARAMS),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`add_param_group(params, state)` got State as params and dict as state",
    ),
    "a step of a state": (
        lambda: TX.step(STATE, PARAMS, PARAMS),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`step(params, state, grads)` got State as params and dict as state",
    ),
    "a compiled step of a state": (
        lambda: cx.make_step(TX)(STATE, PARAMS, PARAMS),
        TypeError,
        "`step(params, state, grads)` got State as params and dict as state",
    ),
    "an update in a step's order": (
        lambda: TX.update(PARAMS, PARAMS, STATE),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`update(grads, state, params)` got State as params and dict as state",
    ),
    "a state as gradients": (
        lambda: TX.update(STATE, STATE, PARAMS),
        TypeError,
        "`update(grads, state, params)` got State as grads: params must be the tree of arrays to be trained",
    ),
    "a look ahead from a state": (
        lambda: TX.lookahead(STATE, PARAMS),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`lookahead(params, state)` got State as params and dict as state",
    ),
    "a compiled step of no chain": (
        lambda: cx.make_step(STATE),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`make_step(tx)` got State as tx: tx must be a chain or a link",
    ),
    "saving parameters": (
        lambda: TX.state_dict(PARAMS),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`state_dict(state)` got dict as state",
    ),
    "loading parameters": (
        lambda: TX.load_state_dict(TX.state_dict(STATE), PARAMS),
        TypeError,
        "`load_state_dict(params, arrays)` got dict as arrays: give the dict that tx.state_dict(state) returned",
    ),
    "loading a state": (
        lambda: TX.load_state_dict(PARAMS, STATE),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`load_state_dict(params, arrays)` got State as arrays",
    ),
    "loading a file's name": (
        lambda: TX.load_state_dict(PARAMS, "state.npz"),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`load_state_dict(params, arrays)` got str as arrays",
    ),
    "describing a state": (lambda: TX.describe(STATE), TypeError, "`describe(params)` got State as params"),
    "an average of a state": (
        lambda: cx.read_average(AVERAGED, STATE, PARAMS),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`read_average(tx, params, state)` got State as params and dict as state",
    ),
    "an average in another chain's state": (
        lambda: cx.read_average(cx.ema_params(0.9), PARAMS, STATE),
        KeyError,
        "The state is not of this chain (ema_params): it lacks ema_params and it holds scale_by_adam. Carry it over",
    ),
    "a mean of a state": (
        lambda: cx.schedule_free_eval_params(cx.schedule_free_sgd(), STATE, PARAMS),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`schedule_free_eval_params(tx, params, state)` got State as params and dict as state",
    ),
    "a value from a state of another chain": (
        lambda: cx.value_and_grad_from_state(cx.lbfgs(), loss, PARAMS, STATE),
        KeyError,
        "The state is not of this chain (scale_by_lbfgs → scale_by_lr → scale_by_zoom_linesearch): it lacks",
    ),
    "a value from no function": (
        lambda: cx.value_and_grad_from_state(cx.lbfgs(), PARAMS, loss, LBFGS),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`value_fn` must be a function of the parameters, got dict",
    ),
    "the minimum of a tree": (
        lambda: cx.minimize(cx.lbfgs(), PARAMS, loss),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`value_fn` must be a function of the parameters, got dict",
    ),
    "statistics of a chain": (
        lambda: cx.recorded(STATE, TX),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`recorded(tx, state)` got State as tx and chain as state",
    ),
    "the state before the chain, for metrics": (
        lambda: cx.metrics(STATE, TX),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`metrics(tx, state)` got State as tx and chain as state",
    ),
    "the metrics of another chain's state": (
        lambda: cx.metrics(cx.chain(cx.skip_nonfinite(), cx.sgd(0.1)), STATE),
        KeyError,
        "The state is not of this chain (skip_nonfinite → scale_by_lr): it lacks skip_nonfinite and it holds "
        "scale_by_adam. Carry it over with adopt(params, state, old=...), or start over with init(params)",
    ),
    "offloaded parameters": (
        lambda: cx.offload(PARAMS),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`offload(state)` got dict as state",
    ),
    "no parameters": (
        lambda: TX.init(None),
        TypeError,
        "`init(params)` got None as params: params must be the tree of arrays to be trained",
    ),
    "an object for parameters": (lambda: TX.init(object()), TypeError, "`init(params)` got object as params"),
    "a name for parameters": (lambda: cx.sgd(0.1).init("params.npz"), TypeError, "`init(params)` got str as params"),
    "a function for parameters": (lambda: TX.init(loss), TypeError, "`init(params)` got function as params"),
    "the chain for parameters": (lambda: TX.init(TX), TypeError, "`init(params)` got chain as params"),
    "the state for parameters": (lambda: TX.init(STATE), TypeError, "`init(params)` got State as params"),
    "shapes for parameters": (
        lambda: TX.init(SHAPES),
        TypeError,
        "`init(params)` got a jax.ShapeDtypeStruct at 'dense/bias' of params, where it needs an array: for the shapes "
        "of its result call jax.eval_shape(tx.init, params)",
    ),
    "shapes in a step": (
        lambda: TX.step(PARAMS, jax.eval_shape(TX.init, PARAMS), PARAMS),
        TypeError,
        "`step(params, state, grads)` got a jax.ShapeDtypeStruct at 'step' of state, where it needs an array: for the "
        "shapes of its result call jax.eval_shape(tx.step, params, state, grads)",
    ),
    "shapes in an update": (
        lambda: TX.update(SHAPES, STATE, PARAMS),
        TypeError,
        "call jax.eval_shape(tx.update, grads, state, params)",
    ),
    "no window to flush": (
        lambda: cx.flush(TX, PARAMS, STATE),
        ValueError,
        "`flush(tx, params, state)`: no link of chain(clip_by_global_norm(1), scale_by_adam(), "
        "add_decayed_weights(0.1), scale_by_lr(0.001)) is an accumulate, so no step is pending",
    ),
    "a window in the middle": (
        lambda: flushed(cx.chain(cx.accumulate(cx.adam(1e-3), 2), cx.scale(0.5))),
        TypeError,
        "`flush` needs 'accumulate' to end its chain, but 'scale' follows: move that into the inner chain, "
        "accumulate(chain(..., scale(0.5)), ...)",
    ),
    "a window in a mean": (
        lambda: flushed(cx.schedule_free(cx.accumulate(cx.sgd(0.1), 2))),
        TypeError,
        "`flush` cannot take a step for 'schedule_free', which changes the steps of its chain: write "
        "accumulate(schedule_free(...), every)",
    ),
    "a flush without its arguments": (
        lambda: flushed(cx.accumulate(cx.polyak_sgd(), 2)),
        TypeError,
        "Link 'scale_by_polyak' reads 'value': call flush(tx, params, state, value=value), with value, grads = "
        "jax.value_and_grad(loss)(params)",
    ),
    "a flush with a function in another form": (
        lambda: flushed(cx.flatten(cx.accumulate(cx.sharpness_aware(), 2)), grad_fn=loss),
        TypeError,
        "`flush` cannot pass a function of the parameters to the chain in 'flatten', which sees them in another form",
    ),
    "a flush of a state": (
        lambda: cx.flush(TX, STATE, PARAMS),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`flush(tx, params, state)` got State as params and dict as state",
    ),
    "loading what does not match": (
        lambda: TX.load_state_dict(PARAMS, cx.sgd(0.1, momentum=0.9).init(PARAMS)._asdict()),
        KeyError,
        "missing: scale_by_adam/mu/dense/bias",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_explained(mistake: str) -> None:
    """Each mistake raises the right kind of error, with the right words; nothing has changed."""
    make, kind, words = MISTAKES[mistake]
    before = jax.tree.map(jnp.copy, (PARAMS, STATE))
    with pytest.raises(kind) as caught:
        make()
    assert words in str(caught.value)
    chex.assert_trees_all_equal(before, (PARAMS, STATE))


REMEDIES: dict[str, tuple[str, dict[str, Any]]] = {  # what a mistake is told to write, and the names it stands for
    "a dict for by_path": ("by_path({'bias': 0}, default=0)", {}),
    "a tree of numbers": ("by_path({'^dense/bias$': 0, '^dense/kernel$': 0.1})", {}),
    "a mask of booleans": ("by_ndim({1: 0.0}, default=0.1)", {}),
    "the loss beside the gradients": ("value, grads = jax.value_and_grad(loss)(params)", {}),
    "a list of links": ("chain(*links)", {"links": list(TX)}),
    "a dict of links": ("chain(**links)", {"links": TX.links}),
    "a link that is not named": ("tx.replace('scale_by_lr', learning_rate=0.1)", {}),
    "a link of a chain within": (
        "tx.replace('flatten/accumulate/scale_by_lr', learning_rate=0.2)",
        {"tx": cx.chain(cx.flatten(cx.accumulate(cx.sgd(0.1), 2)))},
    ),
    "a field of a link within": ("tx.replace('scale_by_adam', b2=0.9)", {"tx": cx.accumulate(cx.adamw(0.1), 2)}),
    "a field by position": ("replace(b2=0.9)", {"replace": cx.scale_by_adam().replace}),
    "the name of the link itself": ("replace(b2=0.9)", {"replace": cx.scale_by_adam().replace}),
    "arguments by position": ("sgd(0.1, momentum=0.9)", {}),
    "a pair by position": ("adam(0.001, b1=0.8, b2=0.9, eps=1e-06)", {}),
    "an argument by position where none is": ("cocob(alpha=90)", {}),
    "donated parameters in a step": ("make_step(tx, donate=False)", {}),
    "missing params": ("tx.update(grads, state, params)", {}),
    "rounding by an update": ("from chainax.flax import Optimizer, TrainState", {}),
    "a stack of rates in init": (
        "jax.vmap(train, in_axes=(tx.axes(),))(tx)",
        {"tx": cx.stack([cx.sgd(0.1), cx.sgd(0.2)]), "train": lambda tx: tx.step(PARAMS, tx.init(PARAMS), PARAMS)},
    ),
    "a line search without its arguments in a step": (
        "tx.step(params, state, grads, value=value, grad=grads, value_fn=loss)",
        {"tx": cx.lbfgs(), "state": LBFGS},
    ),
    "shapes for parameters": ("jax.eval_shape(tx.init, params)", {"params": SHAPES}),
    "shapes in an update": ("jax.eval_shape(tx.update, grads, state, params)", {"grads": SHAPES}),
}


def names(**more: Any) -> dict[str, Any]:
    """What a reader of a message has at hand."""
    given = {"tx": TX, "params": PARAMS, "state": STATE, "grads": PARAMS, "loss": loss, "value": loss(PARAMS)}
    return {**vars(cx), "jax": jax, **given, **more}


@pytest.mark.parametrize("mistake", REMEDIES)
def test_remedy_runs(mistake: str) -> None:
    """What the message shows is code, and runs."""
    make, kind, _ = MISTAKES[mistake]
    code, given = REMEDIES[mistake]
    with pytest.raises(kind) as caught:
        make()
    assert code in str(caught.value)
    exec(code, names(**given))


SAME = {"MultiSteps": "accumulate", "apply_if_finite": "skip_nonfinite", "lookahead": "slow_weights"} | {
    "StepLR": "step_schedule",
    "LinearLR": "linear_schedule",
    "ExponentialLR": "exponential_decay",
    "CosineAnnealingLR": "cosine_annealing_schedule",
    "CosineAnnealingWarmRestarts": "warm_restarts_schedule",
    "OneCycleLR": "onecycle_schedule",
}
"""Those of other libraries whose names here are others."""


def of_other_libraries() -> Iterator[tuple[Any, str]]:
    """Functions and classes here, and the arguments that they have elsewhere and not here."""
    torch = pytest.importorskip("torch")
    ours = {name.replace("_", ""): item for name, item in vars(cx).items() if callable(item)}
    for module in (torch.optim, torch.optim.lr_scheduler, optax, optax.contrib):
        for name, theirs in vars(module).items():
            here = ours.get(SAME.get(name, name).replace("_", "").lower())
            if here is None or here is cx.global_norm or not (inspect.isfunction(theirs) or inspect.isclass(theirs)):
                continue
            known = inspect.signature(here).parameters
            for argument in inspect.signature(theirs).parameters:
                if argument not in known and (argument in OTHER_NAMES or module is torch.optim):
                    yield here, argument


def test_names_of_other_libraries_are_known() -> None:
    """Every argument of PyTorch's optimizers, and those of others that the table has, is told what to write."""
    seen = set()
    for here, argument in of_other_libraries():
        with pytest.raises(TypeError) as caught:
            here(**{argument: (0.8, 0.9)})
        assert re.match(rf"`{here.__name__}` has no argument '{argument}': \w", str(caught.value)), str(caught.value)
        seen.add(argument)
    assert {"lr", "betas", "alpha", "foreach", "etas", "history_size", "T_max", "mask", "nesterov", "inner"} <= seen
    assert len(seen) > 50


def prebuilt() -> list[Callable[..., cx.chain]]:
    """The functions that make an optimizer."""
    made = [item for item in vars(chains).values() if inspect.isfunction(item) and item.__module__ == "chainax.chains"]
    public = [f for f in made if not f.__name__.startswith("_")]
    assert len(public) > 50
    return public


def test_every_prebuilt_chain_explains_its_arguments() -> None:
    """And has the signature that its source has, for `help` and editors."""
    for f in prebuilt():
        with pytest.raises(TypeError, match=f"`{f.__name__}` has no argument 'nonsense'; its arguments are "):
            f(nonsense=1.0)
        assert "kwargs" not in inspect.signature(f).parameters


CODES = {
    code
    for row in OTHER_NAMES.values()
    for text in row
    for code in re.findall(r"(?:write|or) (\S+[({=].*?)(?: for the chain tx| or |, a whole|$)", text)
}


@pytest.mark.parametrize("code", sorted(CODES))
def test_what_stands_for_an_argument_runs(code: str) -> None:
    """What the table shows is code, too."""
    exec(code, names(tx=cx.rmsprop(1e-3, momentum=0.9)))


ORDERS: dict[str, tuple[Callable[[], Any], str]] = {
    "decay after the sign flip": (
        lambda: TX.move("add_decayed_weights", after="scale_by_lr"),
        "move 'add_decayed_weights' before 'scale_by_lr', or use decay_after_step",
    ),
    "two learning rates": (
        lambda: cx.chain(cx.sgd(0.1), cx.scale_by_lr(0.1)),
        "each flip the sign, so the chain climbs",
    ),
    "a negative scale and decay": (
        lambda: cx.chain(cx.scale_by_adam(), cx.scale(-1e-3), cx.add_decayed_weights(0.1)),
        "'add_decayed_weights' comes after 'scale' has flipped the sign",
    ),
    "a preconditioner after the descent": (
        lambda: TX.move("scale_by_adam", after="scale_by_lr"),
        "normalizes the learning rate away: move 'scale_by_adam' before 'scale_by_lr'",
    ),
    "decay of the step before there is one": (
        lambda: cx.chain(cx.decay_after_step(0.1), cx.scale_by_lr(0.1)),
        "move 'decay_after_step' after 'scale_by_lr', or use add_decayed_weights",
    ),
    "a loss scale behind a clip": (
        lambda: cx.chain(cx.clip_by_global_norm(1.0), cx.dynamic_loss_scale(1024.0), cx.sgd(1.0)),
        "move 'dynamic_loss_scale' to the front",
    ),
    "a loss scale that sees no overflow": (
        lambda: cx.chain(cx.zero_nans(), cx.dynamic_loss_scale(), cx.sgd(1.0)),
        "move 'dynamic_loss_scale' to the front",
    ),
    "a loss scale behind an optimizer": (
        lambda: cx.chain(cx.adamw(1e-3), cx.dynamic_loss_scale()),
        "move 'dynamic_loss_scale' to the front",
    ),
    "a clip behind the learning rate": (
        lambda: cx.chain(cx.adam(1e-3), cx.clip_by_global_norm(1.0)),
        "move 'clip_by_global_norm' before 'scale_by_lr'",
    ),
    "a norm behind the learning rate": (
        lambda: cx.chain(cx.sgd(1e-3), cx.normalize_by_update_norm()),
        "move 'normalize_by_update_norm' before 'scale_by_lr'",
    ),
    "a clip of signs": (
        lambda: cx.chain(cx.scale_by_lion(), cx.clip_by_global_norm(1.0), cx.scale_by_lr(1e-4)),
        "every update has the same norm after 'scale_by_lion', so 'clip_by_global_norm' only multiplies it by a "
        "number: move 'clip_by_global_norm' before 'scale_by_lion', or remove it",
    ),
    "a clip of signs, scaled": (
        lambda: cx.chain(cx.scale_by_sign(), cx.scale(2.0), cx.clip_by_global_norm(1.0), cx.scale_by_lr(1e-4)),
        "every update has the same norm after 'scale_by_sign'",
    ),
    "an average of parameters that are still to move": (
        lambda: cx.chain(cx.scale_by_adam(), cx.ema_params(0.999), cx.scale_by_lr(1e-3)),
        "move 'scale_by_lr' before 'ema_params'",
    ),
    "a loss scale in a wrapper, behind a clip": (
        lambda: cx.chain(cx.clip(1.0), cx.restart(cx.chain(cx.dynamic_loss_scale(1024.0), cx.sgd(1.0)), 9)),
        "'dynamic_loss_scale' in 'restart' divides by the scale of the loss, but 'clip' before it",
    ),
    "a clip in a wrapper, behind signs": (
        lambda: cx.chain(cx.scale_by_sign(), cx.flatten(cx.chain(cx.clip_by_global_norm(1.0), cx.sgd(1.0)))),
        "every update has the same norm after 'scale_by_sign', so 'clip_by_global_norm' in 'flatten' only",
    ),
    "a guard in a group, behind a clip": (
        lambda: cx.chain(
            cx.clip(1.0), cx.partition(cx.by_path({"bias": cx.sgd(0.1)}, default=cx.chain(cx.skip_nonfinite(), TX)))
        ),
        "'skip_nonfinite' in 'partition' looks for infinite updates after 'clip'",
    ),
    "two loss scales": (
        lambda: cx.chain(cx.dynamic_loss_scale(), cx.dynamic_loss_scale(), cx.sgd(1.0)),
        "'dynamic_loss_scale_2' divides by the scale of the loss again, as 'dynamic_loss_scale' has done before",
    ),
    "no descent in a wrapper, under step": (
        lambda: (tx := cx.restart(cx.chain(cx.clip(1.0), cx.trace(0.9)), 9)).step(PARAMS, tx.init(PARAMS), PARAMS),
        "no link of restart(clip → trace) flips the sign of the update",
    ),
    "no descent in a group, under step": (
        lambda: (tx := cx.partition(cx.by_path({"bias": cx.trace(0.9)}, default=cx.sgd(0.1)))).step(
            PARAMS, tx.init(PARAMS), PARAMS
        ),
        "no link of partition(trace) flips the sign of the update",
    ),
    "no descent, under step": (
        lambda: (tx := cx.chain(cx.trace(0.9), cx.add_decayed_weights(0.1))).step(PARAMS, tx.init(PARAMS), PARAMS),
        "no link of trace → add_decayed_weights flips the sign of the update, so `step` would climb: "
        "append scale_by_lr(rate), or scale(-1.0) for a rate of 1",
    ),
    "no descent, under make_step": (
        lambda: cx.make_step(tx := cx.chain(cx.trace(0.9), cx.scale(0.1)), donate=False)(
            PARAMS, tx.init(PARAMS), PARAMS
        ),
        "no link of trace → scale flips the sign of the update",
    ),
    "a pattern that decides for nothing": (
        lambda: cx.adamw(1e-3, weight_decay=cx.by_path({"biass": 0.0}, default=0.1)).init(PARAMS),
        "`add_decayed_weights.weight_decay`: the pattern 'biass' decides for no parameter; "
        "the paths are like 'dense/bias', 'dense/kernel'",
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_order_that_cannot_be_meant_warns(order: str) -> None:
    """The warning says what is wrong and what to write instead, and points at the line that made the chain."""
    make, words = ORDERS[order]
    with pytest.warns(cx.ChainWarning) as caught:
        make()
    assert words in str(caught[0].message)
    assert caught[0].filename == __file__
    first = make.__code__.co_firstlineno
    assert first <= caught[0].lineno <= max(line or 0 for *_, line in make.__code__.co_lines())


def test_prebuilt_chains_do_not_warn() -> None:
    """Their links stand in orders that are meant, and they descend."""
    for f in prebuilt():
        needed = [name for name, p in inspect.signature(f).parameters.items() if p.default is p.empty]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_of_ascent(f(**dict.fromkeys(needed, 1.0)).links)


def test_building_blocks_do_not_warn() -> None:
    """Parts of a chain, and chains edited by way of odd orders, are silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        part = cx.chain(cx.scale_by_adam(), cx.add_decayed_weights(0.1))
        cx.chain(cx.trace(0.9), part, cx.scale_by_lr(0.1), cx.decay_after_step(0.1))
        cx.chain(cx.scale_by_lr(0.1), cx.trace(0.9))  # Sutskever's momentum
