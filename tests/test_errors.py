"""Mistakes, and what they are told: the link, the field, what came, and the remedy."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

PARAMS = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
TX = cx.chain(cx.clip_by_global_norm(1.0), cx.scale_by_adam(), cx.add_decayed_weights(0.1), cx.scale_by_lr(1e-3))
STATE = TX.init(PARAMS)
NARROW = jax.tree.map(lambda p: p[..., :2], PARAMS)
CONFIG = cx.to_config(TX)
AVERAGED = cx.chain(cx.ema_params(0.9), slow=cx.ema_params(0.99))
NESTED = cx.chain(cx.restart(cx.ema_params(0.9), 3), cx.ema_params(0.99))
EMPTY = cx.chain().init(PARAMS)
SKIPPING = cx.chain(cx.skip_large_updates(1.0)).init(PARAMS)


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
        "`add_decayed_weights.weight_decay`: for a number by path write by_path({'bias': 0}, default=...)",
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
        "`scale_by_adam` has no field 'beta1'; its fields are b1, b2, eps",
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
        "`schedule_free.b1` must be above 0: without a share of x, x could not be found again",
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
        "Link 'scale_by_momo' reads 'value': call update(grads, state, params, value=...)",
    ),
    "a word that is none of several": (
        lambda: cx.amsgrad(debias="later"),
        ValueError,
        "`scale_by_amsgrad.debias` must be one of 'after', 'before', 'never', got 'later'",
    ),
    "swapped arguments of a schedule": (
        lambda: cx.cosine_decay_schedule(100, 1e-3),
        ValueError,
        "`cosine_decay_schedule.decay_steps` counts steps and must be 0 or at least 1, got 0.001, which may be a share "
        "of them; the arguments are cosine_decay_schedule(init_value, decay_steps, alpha, exponent)",
    ),
    "a share of the run": (
        lambda: cx.constant_schedule(1.0).then(0.1, at=0.5),
        ValueError,
        "`join_schedules.boundaries[0]` counts steps and must be 0 or at least 1, got 0.5",
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
        "`half_life_schedule.transition_steps` must lie in [0, ∞), got -5",
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
        "Link 'add_decayed_weights' reads the parameters: call update(grads, state, params).",
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
        "it lacks scale_by_adam and it holds trace. Carry it over with adopt(params, state)",
    ),
    "a state that is none": (lambda: TX.step(PARAMS, None, PARAMS), TypeError, "what init(params)"),
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
        "Unknown extra argument 'value': this chain accepts none",
    ),
    "missing extra argument": (
        lambda: cx.from_optax(optax.polyak_sgd(), arguments=("value",)).update(PARAMS, STATE, PARAMS),
        TypeError,
        "Link 'from_optax' reads 'value': call update(grads, state, params, value=...)",
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
        "`accumulate.every` must be a whole number, got 2.5",
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
        "`accumulate_weighted.tx`: 'mine' would see no overflow, since accumulate_weighted leaves such micro-batches "
        "out, and its scale would only grow: put it before: chain(dynamic_loss_scale(), accumulate_weighted(...))",
    ),
    "rounding inside of a vector": (
        lambda: cx.flatten(cx.chain(cx.sgd(0.1), cx.apply_update("kahan"))),
        ValueError,
        "`flatten.tx`: 'apply_update' says how parameters are rounded, but flatten moves them by an update: "
        "put it at the end of the chain outside: chain(flatten(...), apply_update(rounding='kahan'))",
    ),
    "rounding in the middle of a chain": (
        lambda: cx.chain(cx.accumulate(cx.chain(cx.sgd(0.1), cx.apply_update("kahan")), 2), cx.scale(0.5)),
        ValueError,
        "'accumulate' holds 'apply_update', which says how the chain ends: it must be the last link",
    ),
    "rounding where a condition does not look": (
        lambda: cx.conditionally_transform(cx.accumulate(cx.chain(cx.sgd(0.1), cx.apply_update("kahan")), 2)),
        ValueError,
        "`conditionally_transform.tx`: 'apply_update' in 'accumulate' cannot round what passes the chain by: put the "
        "condition inside: accumulate(conditionally_transform(...))",
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
        "`recorded`: 'kernel': '\\\\1' is no pattern and its group: invalid group reference 1",
    ),
    "hyperparameters of what is no state": (
        lambda: TX.hyperparams({"step": 0}),  # pyright: ignore[reportArgumentType]
        TypeError,
        "The state must be what init(params) or the last update returned, got dict",
    ),
    "hyperparameters of another chain's state": (
        lambda: cx.accumulate(cx.sgd(0.1), 2).hyperparams(STATE),
        KeyError,
        "The state is not of this chain: it lacks accumulate. Carry it over with adopt(params, state)",
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
        "Link 'flatten' has no update at 'dense/kernel', float32[2, 3], and a vector has no holes: leave the parameter",
    ),
    "a guard out of sight": (
        lambda: cx.mechanize(cx.chain(cx.accumulate(cx.chain(cx.skip_nonfinite(), cx.sgd(1.0)), 2))),
        ValueError,
        "`mechanize.tx`: 'skip_nonfinite' refuses steps inside another link, where mechanize cannot see it: put it at",
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
        "`adaptive_grad_clip.axis` is (0, 2), but an update of shape [2, 3] has no such axis: give its like a link "
        "of their own, by partition(by_path({pattern: adaptive_grad_clip(...)}, default=...))",
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
        "`add_noise.seed` must be a scalar where it is used, got int32[3]: map over a stack of values with jax.vmap",
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
    "loading what does not match": (
        lambda: TX.load_state_dict(PARAMS, cx.adam(1e-3).init(PARAMS)._asdict()),
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


ORDERS: dict[str, tuple[Callable[[], Any], str]] = {
    "decay after the sign flip": (
        lambda: TX.move("add_decayed_weights", after="scale_by_lr"),
        "move it before 'scale_by_lr', or use decay_after_step",
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
        "normalizes the learning rate away: move it before 'scale_by_lr'",
    ),
    "decay of the step before there is one": (
        lambda: cx.chain(cx.decay_after_step(0.1), cx.scale_by_lr(0.1)),
        "move it after 'scale_by_lr', or use add_decayed_weights",
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


def test_building_blocks_do_not_warn() -> None:
    """Parts of a chain, and chains edited by way of odd orders, are silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        part = cx.chain(cx.scale_by_adam(), cx.add_decayed_weights(0.1))
        cx.chain(cx.trace(0.9), part, cx.scale_by_lr(0.1), cx.decay_after_step(0.1))
        cx.chain(cx.scale_by_lr(0.1), cx.trace(0.9))  # Sutskever's momentum
