"""chainax: composable gradient transformations for JAX. An optimizer is a chain of links, and a value.

This module is the API for training scripts; `chainax.extend` is the API for authors of links, schedules and formats.
`chainax.flax` has its training states, and `chainax.torch` hands runs over from PyTorch and to it.

    chains           chain, store, make_step, apply_updates, to_config, from_config, from_optax
    hyperparameters  a number, a schedule or a table: by_path, by_ndim, by_depth, by_width, by_leaf
    schedules        warmup_cosine_decay_schedule, linear_schedule, join_schedules, from_function, ...
    optimizers       adamw, adam, sgd, lion, lamb, adafactor, prodigy, schedule_free_adamw, lbfgs, ...
    links            scale_by_adam, trace, clip_by_global_norm, add_decayed_weights, scale_by_lr, ema_params,
                     skip_nonfinite, dynamic_loss_scale, record, ...
    wrappers         accumulate, partition, freeze, restart, pack, ...
    low precision    int8, float8, int4, apply_update, offload
    experiments      grid, sample, sweep, successive_halving, rate_range, commutator, orders, compare, plot
    tools            minimize, hutchinson, metrics

`dir(chainax)` lists everything, `__all__` groups it, and ``help`` of a name shows its equation and hyperparameters.
"""

import importlib
from typing import TYPE_CHECKING

from . import extend
from .chains import (
    acprop,
    adabelief,
    adadelta,
    adafactor,
    adago,
    adagrad,
    adam,
    adam_mini,
    adamax,
    adamaxw,
    adamc,
    adamuon,
    adamw,
    adamw_independent,
    adamw_paper,
    adan,
    ademamix,
    adopt,
    amsgrad,
    apollo,
    apollo_mini,
    asgd,
    asgo,
    bert_adamw,
    came,
    cocob,
    conda,
    dadapt_adamw,
    dadapt_sgd,
    dion,
    dog,
    dowg,
    fira,
    fromage,
    galore_adamw,
    kl_shampoo,
    kl_soap,
    kron,
    lamb,
    laprop,
    lars,
    lbfgs,
    ldog,
    lion,
    madgrad,
    mars_adamw,
    momo,
    momo_adam,
    muon,
    mxnet07_adam,
    mxnet_adam,
    nadam,
    nadamw,
    noisy_sgd,
    normuon,
    novograd,
    optimistic_adam,
    optimistic_gradient_descent,
    polyak_sgd,
    prodigy,
    quad,
    racs,
    radam,
    radamw,
    rmsprop,
    rprop,
    schedule_free_adamw,
    schedule_free_sgd,
    scion,
    sgd,
    sgd_ema,
    sgd_sutskever,
    shampoo,
    sign_sgd,
    signum,
    simplified_ademamix,
    sm3,
    soap,
    sophia,
    splus,
    stable_adamw,
    yogi,
)
from .core.engine.blocks import companded8, float8, int4, int8
from .core.engine.engine import apply_updates
from .core.engine.offload import offload
from .core.engine.state import State
from .core.facade.chain import chain, stack, store
from .core.facade.config import from_config, to_config
from .core.facade.saving import Report
from .core.facade.transformation import make_step
from .core.values.matrices import matrices
from .core.values.own_steps import own_steps
from .core.values.rules import by_depth, by_width
from .core.values.schedule import (
    Schedule,
    constant_schedule,
    from_function,
    join_schedules,
    power,
    product,
    quotient,
    total,
)
from .core.values.spec import spec
from .core.values.tables import by_leaf, by_ndim, by_path
from .core.values.tree import global_norm
from .core.values.warning import ChainWarning
from .laboratory.commutator import Commutator, commutator
from .laboratory.compare import compare
from .laboratory.comparison import Comparison
from .laboratory.orders import Orders, orders
from .plotting import plot
from .schedules.basic import (
    bias_corrected_schedule,
    cosine_decay_schedule,
    exponential_decay,
    half_life_schedule,
    inverse_sqrt_schedule,
    inverse_time_decay_schedule,
    linear_schedule,
    multiplicative_schedule,
    piecewise_constant_schedule,
    polynomial_schedule,
    rex_schedule,
    step_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    warmup_schedule,
)
from .schedules.cycles import (
    cosine_annealing_schedule,
    cosine_onecycle_schedule,
    cyclic_schedule,
    linear_onecycle_schedule,
    onecycle_momentum_schedule,
    onecycle_schedule,
    piecewise_interpolate_schedule,
    sgdr_schedule,
    warm_restarts_schedule,
    warmup_stable_decay_schedule,
)
from .sweeping.grid import grid
from .sweeping.halving import Halving, successive_halving
from .sweeping.ranges import choice, log_uniform, randint, uniform
from .sweeping.rate_range import RateRange, rate_range
from .sweeping.sample import sample
from .sweeping.sweep import sweep
from .transforms.apply import apply_update
from .transforms.averages.average import ema_params, read_average, slow_weights, swa
from .transforms.averages.schedule_free import schedule_free, schedule_free_eval_params
from .transforms.clipping.blocks import (
    clip_by_block_rms,
    normalize_by_update_norm,
    scale_by_param_block_norm,
    scale_by_param_block_rms,
)
from .transforms.clipping.clip import adaptive_grad_clip, clip, clip_by_global_norm
from .transforms.clipping.layerwise import normalize_by_block_norm, scale_by_lars, scale_by_trust_ratio
from .transforms.clipping.per_example import clip_blocks_per_example, clip_per_example, differentially_private_aggregate
from .transforms.decay import add_decayed_weights, add_l1, decay_after_step
from .transforms.gradients.center import centralize, keep_params_nonnegative, zero_nans
from .transforms.gradients.modifiers import (
    add_cautious_decay,
    cautious,
    decay_to_init,
    grams,
    grokfast,
    orthogonal_grad,
)
from .transforms.gradients.noise import add_noise
from .transforms.guards import dynamic_loss_scale, loss_scale, skip_large_updates, skip_loss_spikes, skip_nonfinite
from .transforms.matrices.adaptive_muon import scale_by_adago, scale_by_adamuon, scale_by_normuon
from .transforms.matrices.apollo import scale_by_apollo, scale_by_conda, scale_by_fira
from .transforms.matrices.attention import qk_clip
from .transforms.matrices.came import scale_by_came
from .transforms.matrices.dion import scale_by_dion
from .transforms.matrices.kl import scale_by_kl_shampoo, scale_by_kl_soap
from .transforms.matrices.muon import orthogonalize, scale_by_muon
from .transforms.matrices.polar import newton_schulz, polar_express
from .transforms.matrices.psgd import scale_by_psgd_kron, scale_by_psgd_quad
from .transforms.matrices.scion import scale_by_lmo
from .transforms.matrices.shampoo import scale_by_shampoo
from .transforms.matrices.soap import scale_by_soap
from .transforms.matrices.splus import scale_by_asgo, scale_by_racs, scale_by_splus
from .transforms.momentum.dual import scale_by_madgrad, scale_by_optimistic_gradient
from .transforms.momentum.ema import debiased_ema, ema, trace
from .transforms.preconditioners.adam import scale_by_adam, scale_by_amsgrad, scale_by_nadam, scale_by_uncorrected_adam
from .transforms.preconditioners.adam_momentum import (
    add_gradient_change,
    scale_by_adan,
    scale_by_ademamix,
    scale_by_adopt,
    scale_by_laprop,
    scale_by_nesterov_adam,
    scale_by_simplified_ademamix,
)
from .transforms.preconditioners.adaptive import (
    scale_by_acprop,
    scale_by_adam_mini,
    scale_by_adamax,
    scale_by_belief,
    scale_by_radam,
    scale_by_running_norm,
    scale_by_stable_adam,
    scale_by_yogi,
)
from .transforms.preconditioners.curvature import hutchinson, scale_by_sophia
from .transforms.preconditioners.factored import scale_by_factored_rms, scale_by_sm3
from .transforms.preconditioners.lbfgs import scale_by_lbfgs
from .transforms.preconditioners.rms import (
    scale_by_adadelta,
    scale_by_adagrad,
    scale_by_debiased_rms,
    scale_by_debiased_stddev,
    scale_by_rms,
    scale_by_stddev,
)
from .transforms.preconditioners.sign import (
    scale_by_lion,
    scale_by_refined_lion,
    scale_by_rprop,
    scale_by_sign,
    scale_by_smooth_lion,
)
from .transforms.step_size.betting import mechanize, scale_by_cocob
from .transforms.step_size.dadapt import scale_by_dadapt_adam, scale_by_dadapt_sgd, scale_by_prodigy
from .transforms.step_size.distance import scale_by_dog, scale_by_dowg, scale_by_ldog
from .transforms.step_size.linesearch import (
    scale_by_backtracking_linesearch,
    scale_by_zoom_linesearch,
    value_and_grad_from_state,
)
from .transforms.step_size.loss import scale_by_momo, scale_by_momo_adam
from .transforms.step_size.minimize import Minimum, minimize
from .transforms.step_size.plateau import reduce_on_plateau
from .transforms.step_size.polyak import scale_by_polyak
from .transforms.step_size.scale import scale, scale_by_lr
from .transforms.telemetry import counted_clip_by_global_norm, metrics, record, recorded
from .transforms.wrappers.accumulate import accumulate, accumulate_weighted, apply_every, flush
from .transforms.wrappers.conditional import conditionally_mask, conditionally_transform, restart
from .transforms.wrappers.foreign import from_optax
from .transforms.wrappers.graft import graft
from .transforms.wrappers.lowrank import scale_by_galore
from .transforms.wrappers.partition import freeze, partition
from .transforms.wrappers.reshape import flatten, pack, split_complex
from .transforms.wrappers.sharpness import adaptive_sharpness_aware, sharpness_aware
from .transforms.wrappers.zero1 import reduce_grads, reduced_specs, zero1

__version__ = "0.1.0"

# fmt: off
__all__ = [  # noqa: RUF022 - a table of contents
    # chains, their steps, their states and their files
    "chain", "stack", "store", "make_step", "apply_updates", "State", "Report", "to_config", "from_config",
    "ChainWarning",
    # hyperparameters, formats, chains and shardings by path or shape
    "by_depth", "by_leaf", "by_ndim", "by_path", "by_width", "spec",
    # schedules, and how they are put together
    "Schedule", "bias_corrected_schedule", "constant_schedule", "cosine_annealing_schedule", "cosine_decay_schedule",
    "cosine_onecycle_schedule", "cyclic_schedule", "exponential_decay", "from_function", "half_life_schedule",
    "inverse_sqrt_schedule", "inverse_time_decay_schedule", "join_schedules", "linear_onecycle_schedule",
    "linear_schedule", "multiplicative_schedule", "onecycle_momentum_schedule", "onecycle_schedule", "own_steps",
    "piecewise_constant_schedule", "piecewise_interpolate_schedule", "polynomial_schedule", "power", "product",
    "quotient", "rex_schedule", "sgdr_schedule", "step_schedule", "total", "warm_restarts_schedule",
    "warmup_constant_schedule", "warmup_cosine_decay_schedule", "warmup_exponential_decay_schedule", "warmup_schedule",
    "warmup_stable_decay_schedule",
    # optimizers: prebuilt chains
    "acprop", "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adam_mini", "adamax", "adamaxw", "adamc",
    "adamw", "adamw_independent", "adamw_paper", "adan", "ademamix", "adopt", "amsgrad", "asgd", "bert_adamw", "cocob",
    "dadapt_adamw", "dadapt_sgd", "dog", "dowg", "fromage", "galore_adamw", "lamb", "laprop", "lars", "lbfgs", "ldog",
    "lion", "madgrad", "mars_adamw", "momo", "momo_adam", "mxnet07_adam", "mxnet_adam", "nadam", "nadamw", "noisy_sgd",
    "novograd", "optimistic_adam", "optimistic_gradient_descent", "polyak_sgd", "prodigy", "radam", "radamw", "rmsprop",
    "rprop", "schedule_free_adamw", "schedule_free_sgd", "sgd", "sgd_ema", "sgd_sutskever", "sign_sgd", "signum",
    "simplified_ademamix", "sm3", "sophia", "stable_adamw", "yogi",
    # optimizers that treat each matrix as a whole
    "adago", "adamuon", "apollo", "apollo_mini", "asgo", "came", "conda", "dion", "fira", "kl_shampoo", "kl_soap",
    "kron", "muon", "normuon", "quad", "racs", "scion", "shampoo", "soap", "splus",
    # links: preconditioners
    "add_gradient_change", "scale_by_acprop", "scale_by_adadelta", "scale_by_adagrad", "scale_by_adam",
    "scale_by_adam_mini", "scale_by_adamax", "scale_by_adan", "scale_by_ademamix", "scale_by_adopt", "scale_by_amsgrad",
    "scale_by_belief", "scale_by_debiased_rms", "scale_by_debiased_stddev", "scale_by_factored_rms", "scale_by_laprop",
    "scale_by_lbfgs", "scale_by_lion", "scale_by_nadam", "scale_by_nesterov_adam", "scale_by_radam",
    "scale_by_refined_lion", "scale_by_rms", "scale_by_rprop", "scale_by_running_norm", "scale_by_sign",
    "scale_by_simplified_ademamix", "scale_by_sm3", "scale_by_smooth_lion", "scale_by_sophia", "scale_by_stable_adam",
    "scale_by_stddev", "scale_by_uncorrected_adam", "scale_by_yogi",
    # links: preconditioners of whole matrices, and what they are made of
    "matrices", "newton_schulz", "orthogonalize", "polar_express", "qk_clip", "scale_by_adago", "scale_by_adamuon",
    "scale_by_apollo", "scale_by_asgo", "scale_by_came", "scale_by_conda", "scale_by_dion", "scale_by_fira",
    "scale_by_kl_shampoo", "scale_by_kl_soap", "scale_by_lmo", "scale_by_muon", "scale_by_normuon",
    "scale_by_psgd_kron", "scale_by_psgd_quad", "scale_by_racs", "scale_by_shampoo", "scale_by_soap",
    "scale_by_splus",
    # links: momentum
    "debiased_ema", "ema", "scale_by_madgrad", "scale_by_optimistic_gradient", "trace",
    # links: clipping and normalization
    "adaptive_grad_clip", "clip", "clip_blocks_per_example", "clip_by_block_rms", "clip_by_global_norm",
    "clip_per_example", "differentially_private_aggregate", "normalize_by_block_norm", "normalize_by_update_norm",
    "scale_by_lars", "scale_by_param_block_norm", "scale_by_param_block_rms", "scale_by_trust_ratio",
    # links: changes of the gradient or the update
    "add_noise", "cautious", "centralize", "grams", "grokfast", "keep_params_nonnegative", "orthogonal_grad",
    "zero_nans",
    # links: weight decay
    "add_cautious_decay", "add_decayed_weights", "add_l1", "decay_after_step", "decay_to_init",
    # links: the size of the step
    "reduce_on_plateau", "scale", "scale_by_backtracking_linesearch", "scale_by_cocob", "scale_by_dadapt_adam",
    "scale_by_dadapt_sgd", "scale_by_dog", "scale_by_dowg", "scale_by_ldog", "scale_by_lr", "scale_by_momo",
    "scale_by_momo_adam", "scale_by_polyak", "scale_by_prodigy", "scale_by_zoom_linesearch",
    # links: averages of the parameters, and how they are read
    "ema_params", "read_average", "schedule_free", "schedule_free_eval_params", "slow_weights", "swa",
    # links: guards that reject a step, and the scale of the loss
    "dynamic_loss_scale", "loss_scale", "skip_large_updates", "skip_loss_spikes", "skip_nonfinite",
    # links: telemetry, and how it is read
    "counted_clip_by_global_norm", "record", "recorded", "metrics",
    # links that hold a chain
    "accumulate", "accumulate_weighted", "adaptive_sharpness_aware", "apply_every", "conditionally_mask",
    "conditionally_transform", "flatten", "flush", "freeze", "from_optax", "graft", "mechanize", "pack", "partition",
    "restart", "scale_by_galore", "sharpness_aware", "split_complex", "zero1",
    # low precision: formats of the slots for `store`, rounding of the parameters
    "apply_update", "companded8", "float8", "int4", "int8", "offload",
    # functions of the loss and of trees
    "minimize", "Minimum", "value_and_grad_from_state", "hutchinson", "global_norm", "reduce_grads", "reduced_specs",
    # many chains at once, and pictures of schedules
    "grid", "sample", "uniform", "log_uniform", "randint", "choice", "sweep", "successive_halving", "Halving",
    "rate_range", "RateRange", "plot",
    # experiments on the order of links
    "commutator", "Commutator", "orders", "Orders", "compare", "Comparison",
    # for authors of links, schedules and formats
    "extend",
]
# fmt: on

if not TYPE_CHECKING:  # for a type checker, a module with `__getattr__` would have every name

    def __dir__() -> list[str]:
        return list(__all__)

    def __getattr__(name: str) -> object:
        if name in ("flax", "torch"):  # homes in other libraries, imported when they are asked for
            return importlib.import_module(f"{__name__}.{name}")
        from .core.values.other_libraries import missing  # here, so that importing chainax does not read the tables

        raise AttributeError(missing(name, __all__, extend.__all__))
