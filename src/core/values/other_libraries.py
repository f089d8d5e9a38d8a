"""What the functions and classes of Optax and PyTorch are called here, for error messages and the documentation.

`names.OTHER_NAMES` is the same for the arguments of functions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

_UTILITY = "none: it serves no optimizer of chainax, and Optax's works beside it"

OTHER_LIBRARIES: dict[str, dict[str, str]] = {
    "optax": {
        # chains and groups
        "identity": "`cx.chain()`",
        "named_chain": "`cx.chain(first=cx.clip(1.0), second=cx.trace(0.9))`",
        "masked": "a table by path in a field: `cx.add_decayed_weights(cx.by_path({'bias|norm': 0.0}, default=0.1))`; "
        "round a chain: `cx.partition(cx.by_path({'bias|norm': cx.chain()}, default=tx))`",
        "multi_transform partition(param_labels=)": "groups: "
        "`cx.partition(cx.by_path({'embed': cx.adam(1e-4)}, default=cx.adamw(1e-3)))`",
        "selective_transform freeze(mask=)": "`cx.partition(cx.by_path({'embed': cx.freeze()}, default=tx))`",
        "set_to_zero": "`cx.freeze()`",
        "inject_hyperparams inject_stateful_hyperparams": "not needed: `tx.replace('scale_by_lr', learning_rate=1e-4)` "
        "edits, `tx.hyperparams(state)` reads",
        "stateless stateless_with_tree_map": "a link of your own, from `cx.extend.Leafwise`",
        "with_extra_args_support": "not needed: a chain passes on the arguments that its links read",
        # links
        "scale_by_learning_rate": "`cx.scale_by_lr(1e-3)`",
        "scale_by_schedule": "`cx.scale(cx.linear_schedule(0.0, 1.0, 1000))`",
        "scale_by_rss": "`cx.scale_by_adagrad()`",
        "scale_by_novograd": "`cx.chain(cx.scale_by_running_norm(), cx.trace(0.9))`",
        "scale_by_distance_over_gradients": "`cx.scale_by_ldog()`",
        "scale_by_rms(eps_in_sqrt=)": "`cx.scale_by_rms(eps=0.0, eps_root=1e-8)`",
        "scale_by_rms(bias_correction=)": "`cx.scale_by_debiased_rms()`",
        "scale_by_lion(mode=)": "`cx.scale_by_smooth_lion()`, `cx.scale_by_refined_lion()`",
        "adam(mu_dtype=)": "`cx.store(cx.adam(1e-3), mu='bfloat16')`",
        "ema": "`cx.debiased_ema(0.9)`; without the correction `cx.ema(0.9)`, of the parameters `cx.ema_params(0.999)`",
        "optimistic_adam optimistic_adam_v2": "`cx.optimistic_adam(1e-3)`, Optax's second with nesterov=False",
        "per_example_global_norm_clip": "`cx.clip_per_example(1.0)`",
        "per_example_layer_norm_clip": "`cx.clip_blocks_per_example(1.0)`",
        "measure_with_ema monitor snapshot": "`cx.record('norm')` in a chain, read by `cx.metrics` or `cx.recorded`",
        # wrappers
        "MultiSteps": "`cx.accumulate(tx, every=4)`, one step for the mean of 4 gradients",
        "microbatch microbatching": "none: Optax's splits the batch of a function, and works beside chainax; "
        "`cx.accumulate(tx, every=4)` takes 4 batches for a step",
        "apply_if_finite skip_not_finite ShouldSkipUpdateFunction": "`cx.chain(cx.skip_nonfinite(5), tx)`",
        "skip_large_updates": "`cx.chain(cx.skip_large_updates(10.0), tx)`",
        "lookahead LookaheadParams": "`cx.chain(tx, cx.slow_weights(6, 0.5))`, whose parameters are plain ones; "
        "`tx.lookahead` is Nesterov's point",
        "incremental_update": "the link `cx.ema_params(0.999)` at the end of a chain, read by `cx.read_average`",
        "periodic_update": "none: `jax.lax.cond` on `state.step` copies parameters now and then",
        # states and types
        "EmptyState init_empty_state": "not needed: a link without slots has no state",
        "*State ApplyEvery": "`state.links`: what each link keeps, by the link's name and the slot's",
        "MaskedNode": "`None`, as for everything that is not trained",
        "GradientTransformation* Transform*Fn OptState": "`cx.chain` is the type of chains, `cx.State` that of their "
        "states; `tx.to_optax()` is of Optax's type",
        "Params Updates": "not needed: any pytree",
        "MaskOrFn": "a table by path, `cx.by_path`, by the number of axes, `cx.by_ndim`, or by leaf, `cx.by_leaf`",
        "ScalarOrSchedule": "`cx.extend.HyperLike`",
        "WrappedSchedule": "not needed: states hold no schedules",
        "ZoomLinesearchInfo": "`state.links`: evaluations, failed and uphill, of the last search",
        # functions
        "tree_map_params": "not needed: in `state.links` each slot is a tree like the parameters",
        "safe_increment safe_int32_increment": "not needed: the state has one count of the steps, `state.step`",
        "bias_correction update_moment update_infinity_moment update_moment_per_elem_norm": "not needed: the leaf "
        "function of a link has one array, and writes m ← βm + (1−β)u as it stands",
        "safe_norm safe_root_mean_squares": "`cx.extend.sqrt`, a root with derivative 0 at 0",
        "matrix_inverse_pth_root power_iteration nnls multi_normal scale_gradient": _UTILITY,
        "*_loss ctc_loss_* *_divergence *_cross_entropy* cosine_distance cosine_similarity log_cosh ntxent "
        "smooth_labels squared_error": "none: a loss is a function of yours; Optax's fit any chain",
        "losses projections assignment perturbations second_order tree tree_utils experimental": _UTILITY,
    },
    "optax.schedules": {"StatefulSchedule": "none: a schedule is a function of the step; `tx.replace` sets numbers"},
    "optax.transforms": {
        "unitwise_clip unitwise_norm": "the link `cx.adaptive_grad_clip(0.01)`",
        "ConditionFn": "not needed: the condition of `cx.conditionally_transform` is a number or a schedule",
    },
    "optax.tree": {
        "get": "`state.links['scale_by_adam']['mu']`",
        "set": "`tx.replace` for hyperparameters, `state._replace` for what is kept",
        "norm": "`cx.global_norm`",
        "map_params": "not needed: in `state.links` each slot is a tree like the parameters",
    },
    "optax.contrib": {
        "sam": "`cx.chain(cx.sharpness_aware(0.05), tx)`",
        "normalize": "`cx.normalize_by_update_norm(eps=0.0)`",
        "galore": "`cx.galore_adamw(1e-3, rank=128)`",
        "dpsgd": "`cx.chain(cx.differentially_private_aggregate(1.0, 1.1, seed=0), cx.sgd(0.1))`",
        "hutchinson_estimator_diag_hessian": "`cx.hutchinson`, in the function that a step of `cx.sophia(1e-3)` "
        "takes as its argument hessian",
        "split_real_and_imaginary": "`cx.split_complex(tx)`",
        "muon": "`cx.partition(cx.by_ndim({2: cx.muon(1e-3, eps=1e-8, debias=True, weight_decay=None)}, "
        "default=cx.nadamw(1e-3, weight_decay=None)))`",
        "scale_by_muon": "`cx.scale_by_muon(debias=True, sizing='none')`",
        "GaLoreDimensionNumbers": "none: `cx.scale_by_galore(cx.scale_by_adam())` projects matrices",
        "MuonDimensionNumbers": "`cx.matrices('h w in, out')`, in the field matrices of a link",
    },
    "torch.optim": {
        "Adadelta": "`cx.adadelta(1.0)`",
        "Adafactor": "`cx.adafactor(1e-2)`",
        "Adagrad": "`cx.adagrad(1e-2)`",
        "Adam": "`cx.adam(1e-3)`",
        "AdamW": "`cx.adamw(1e-3)`",
        "Adamax": "`cx.adamax(2e-3)`",
        "ASGD": "`cx.asgd(1e-2)`",
        "LBFGS": "`cx.minimize(cx.lbfgs(), loss, params)`",
        "Muon": "`cx.muon(1e-3)`, rows as the inputs: `cx.muon(1e-3, matrices='out, in')` for PyTorch's layers",
        "NAdam": "`cx.nadam(2e-3)`",
        "RAdam": "`cx.radam(1e-3)`",
        "RMSprop": "`cx.rmsprop(1e-2)`",
        "Rprop": "`cx.rprop(1e-2)`",
        "SGD": "`cx.sgd(1e-2, momentum=0.9)`",
        "SparseAdam": "none: the gradients of JAX are dense; `cx.adam(1e-3)` moves all rows",
        "Adam(amsgrad=)": "`cx.amsgrad(1e-3)`",
        "SGD(maximize=)": "`cx.chain(cx.scale(-1.0), tx)`",
        "SGD(foreach=) SGD(fused=) Adam(capturable=) SGD(differentiable=)": "not needed: every step is one "
        "fused function, which can be differentiated",
        "Optimizer": "`cx.chain`",
    },
    "torch.optim.Optimizer": {
        "param_groups": "a table in any field: `cx.sgd(cx.by_path({'embed': 1e-4}, default=1e-2))`",
        "add_param_group": "`tx.add_param_group(params, state)`: new slots appear, the others keep theirs",
        "state_dict": "`tx.state_dict(state)`, named NumPy arrays; as PyTorch's own: "
        "`cx.torch.state_dict(tx, params, state, ['w', 'embed', 'bias'])`",
        "load_state_dict": "`tx.load_state_dict(params, arrays)`, with a report; of an edited optimizer: "
        "`tx.adopt(params, state, old=old)`; of PyTorch's own: `cx.torch.load_state_dict`",
        "zero_grad": "not needed: `jax.grad` returns new gradients, and nothing accumulates in place",
        "step": "`tx.step(params, state, grads)`",
        "step(closure=)": "not needed: take `jax.value_and_grad` where you want it, then step; Nesterov's point is "
        "`tx.lookahead(params, state)`",
        "register_*_hook": "none: a step is a function, which yours can call; a link of your own sees every update",
    },
    "torch.optim.lr_scheduler": {
        "LambdaLR": "`lr * cx.from_function(f)`",
        "MultiplicativeLR": "`cx.multiplicative_schedule(lr, factor, 1000)`",
        "ConstantLR": "`cx.join_schedules((lr * 0.1, lr), (n,))`",
        "StepLR": "`cx.step_schedule(lr, 30, 0.1)`",
        "MultiStepLR": "`cx.piecewise_constant_schedule(lr, {30: 0.1, 80: 0.1})`; pairs, if a milestone stands twice",
        "LinearLR": "`cx.linear_schedule(lr / 3, lr, n)`",
        "PolynomialLR": "`cx.polynomial_schedule(lr, 0.0, 1.0, n)`",
        "ExponentialLR": "`cx.exponential_decay(lr, 1, 0.9)`",
        "CosineAnnealingLR": "`cx.cosine_decay_schedule(lr, n)`; where it should climb again after n steps, "
        "`cx.cosine_annealing_schedule(lr, n)`",
        "CosineAnnealingWarmRestarts": "`cx.warm_restarts_schedule(lr, n)`",
        "CyclicLR": "`cx.cyclic_schedule(lr / 10, lr)`, and another for the momentum",
        "OneCycleLR": "`cx.onecycle_schedule(n, lr)`, for the momentum `cx.onecycle_momentum_schedule(n)`",
        "SequentialLR": "`a.then(b, at=n)`",
        "ChainedScheduler": "`a * b`, where b starts at 1; but PyTorch's cosine goes by the rate at hand",
        "ReduceLROnPlateau": "the link `cx.reduce_on_plateau()`",
        "LRScheduler": "`cx.Schedule`",
        "LRScheduler.step": "not needed: a schedule is a hyperparameter, and the state counts the steps",
        "LRScheduler.get_last_lr": "`tx.hyperparams(state)`",
    },
    "torch.optim.swa_utils": {
        "AveragedModel get_swa_avg_fn get_swa_multi_avg_fn get_ema_avg_fn get_ema_multi_avg_fn": "the link "
        "`cx.swa(start=100)` or `cx.ema_params(0.999)` at the end of a chain, read by `cx.read_average`",
        "SWALR": "`a.then(0.05, at=n)`",
        "update_bn": "none: run the model once more at `cx.read_average(tx, params, state)`",
    },
    "torch.nn.utils": {
        "clip_grad_norm_ clip_grad_norm clip_grads_with_norm_": "`cx.chain(cx.clip_by_global_norm(1.0), tx)`",
        "clip_grad_value_": "`cx.chain(cx.clip(1.0), tx)`",
        "get_total_norm": "`cx.global_norm(grads)`",
    },
    "torch.amp": {
        "GradScaler": "`cx.chain(cx.dynamic_loss_scale(), tx)`, and the loss times `cx.loss_scale(state)`",
        "autocast": "none: cast in the loss; a chain takes gradients of any floating-point dtype, and computes in "
        "float32",
    },
}
"""By module, and by the names in it, of which one row may have several, or patterns of them: what to write in their
place, where ``tx`` is a chain and ``lr`` a rate; ``(argument=)`` behind a name is for calls with it.
What stands in backticks is code that runs."""


def missing(name: str, known: Iterable[str], authors: Iterable[str]) -> str:
    """What to say of a name that `chainax` does not have, given the names in it and in `chainax.extend`."""
    start = f"module 'chainax' has no attribute {name!r}"
    if name in authors:
        return f"{start}: it is for authors, and in chainax.extend: write `from chainax.extend import {name}`"
    for module, rows in OTHER_LIBRARIES.items():
        for names, here in rows.items():
            if any(fnmatchcase(name, pattern) for pattern in names.split()):
                return f"{start}; for {module}.{name}: {here}"
    plain = {n.replace("_", "").lower(): n for n in known}
    close = difflib.get_close_matches(name.replace("_", "").lower()[:100], plain, n=1)
    return f"{start} (did you mean {plain[close[0]]!r}?)" if close else start
