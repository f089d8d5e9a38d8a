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

# Written by tests/stubs.py: do not edit.

from typing import Any

import jax
import numpy as np

from . import flax as flax
from . import torch as torch
from .core.values.warning import ChainWarning as ChainWarning
from .laboratory.commutator import Commutator as Commutator
from .laboratory.comparison import Comparison as Comparison
from .sweeping.halving import Halving as Halving
from .transforms.step_size.minimize import Minimum as Minimum
from .laboratory.orders import Orders as Orders
from .sweeping.rate_range import RateRange as RateRange
from .core.facade.saving import Report as Report
from .core.values.schedule import Schedule as Schedule
from .core.engine.state import State as State
from .core.engine.engine import apply_updates as apply_updates
from .core.values.tables import by_leaf as by_leaf
from .core.values.tables import by_ndim as by_ndim
from .core.values.tables import by_path as by_path
from .core.facade.chain import chain as chain
from .laboratory.commutator import commutator as commutator
from .laboratory.compare import compare as compare
from . import extend as extend
from .transforms.wrappers.accumulate import flush as flush
from .core.facade.config import from_config as from_config
from .core.values.tree import global_norm as global_norm
from .sweeping.grid import grid as grid
from .transforms.preconditioners.curvature import hutchinson as hutchinson
from .transforms.guards import loss_scale as loss_scale
from .core.facade.transformation import make_step as make_step
from .core.values.matrices import matrices as matrices
from .transforms.telemetry import metrics as metrics
from .transforms.step_size.minimize import minimize as minimize
from .core.engine.offload import offload as offload
from .laboratory.orders import orders as orders
from .plotting import plot as plot
from .sweeping.rate_range import rate_range as rate_range
from .transforms.averages.average import read_average as read_average
from .transforms.telemetry import record as record
from .transforms.telemetry import recorded as recorded
from .transforms.wrappers.zero1 import reduce_grads as reduce_grads
from .transforms.wrappers.zero1 import reduced_specs as reduced_specs
from .sweeping.sample import sample as sample
from .transforms.averages.schedule_free import schedule_free_eval_params as schedule_free_eval_params
from .schedules.cycles import sgdr_schedule as sgdr_schedule
from .core.facade.chain import stack as stack
from .core.facade.chain import store as store
from .sweeping.halving import successive_halving as successive_halving
from .sweeping.sweep import sweep as sweep
from .core.facade.config import to_config as to_config
from .transforms.step_size.linesearch import value_and_grad_from_state as value_and_grad_from_state
from .schedules.basic import warmup_constant_schedule as warmup_constant_schedule
from .schedules.basic import warmup_exponential_decay_schedule as warmup_exponential_decay_schedule
from .transforms.wrappers.accumulate import accumulate as _accumulate
from .transforms.wrappers.accumulate import accumulate_weighted as _accumulate_weighted
from .transforms.clipping.clip import adaptive_grad_clip as _adaptive_grad_clip
from .transforms.wrappers.sharpness import adaptive_sharpness_aware as _adaptive_sharpness_aware
from .transforms.gradients.modifiers import add_cautious_decay as _add_cautious_decay
from .transforms.decay import add_decayed_weights as _add_decayed_weights
from .transforms.preconditioners.adam_momentum import add_gradient_change as _add_gradient_change
from .transforms.decay import add_l1 as _add_l1
from .transforms.gradients.noise import add_noise as _add_noise
from .transforms.wrappers.accumulate import apply_every as _apply_every
from .transforms.apply import apply_update as _apply_update
from .schedules.basic import bias_corrected_schedule as _bias_corrected_schedule
from .core.values.rules import by_depth as _by_depth
from .core.values.rules import by_width as _by_width
from .transforms.gradients.modifiers import cautious as _cautious
from .transforms.gradients.center import centralize as _centralize
from .sweeping.ranges import choice as _choice
from .transforms.clipping.clip import clip as _clip
from .transforms.clipping.per_example import clip_blocks_per_example as _clip_blocks_per_example
from .transforms.clipping.blocks import clip_by_block_rms as _clip_by_block_rms
from .transforms.clipping.clip import clip_by_global_norm as _clip_by_global_norm
from .transforms.clipping.per_example import clip_per_example as _clip_per_example
from .core.engine.blocks import companded8 as _companded8
from .transforms.wrappers.conditional import conditionally_mask as _conditionally_mask
from .transforms.wrappers.conditional import conditionally_transform as _conditionally_transform
from .core.values.schedule import constant_schedule as _constant_schedule
from .schedules.cycles import cosine_annealing_schedule as _cosine_annealing_schedule
from .schedules.basic import cosine_decay_schedule as _cosine_decay_schedule
from .schedules.cycles import cosine_onecycle_schedule as _cosine_onecycle_schedule
from .transforms.telemetry import counted_clip_by_global_norm as _counted_clip_by_global_norm
from .schedules.cycles import cyclic_schedule as _cyclic_schedule
from .transforms.momentum.ema import debiased_ema as _debiased_ema
from .transforms.decay import decay_after_step as _decay_after_step
from .transforms.gradients.modifiers import decay_to_init as _decay_to_init
from .transforms.clipping.per_example import differentially_private_aggregate as _differentially_private_aggregate
from .transforms.guards import dynamic_loss_scale as _dynamic_loss_scale
from .transforms.momentum.ema import ema as _ema
from .transforms.averages.average import ema_params as _ema_params
from .schedules.basic import exponential_decay as _exponential_decay
from .transforms.wrappers.reshape import flatten as _flatten
from .core.engine.blocks import float8 as _float8
from .transforms.wrappers.partition import freeze as _freeze
from .core.values.schedule import from_function as _from_function
from .transforms.wrappers.foreign import from_optax as _from_optax
from .transforms.wrappers.graft import graft as _graft
from .transforms.gradients.modifiers import grams as _grams
from .transforms.gradients.modifiers import grokfast as _grokfast
from .schedules.basic import half_life_schedule as _half_life_schedule
from .core.engine.blocks import int4 as _int4
from .core.engine.blocks import int8 as _int8
from .schedules.basic import inverse_sqrt_schedule as _inverse_sqrt_schedule
from .schedules.basic import inverse_time_decay_schedule as _inverse_time_decay_schedule
from .core.values.schedule import join_schedules as _join_schedules
from .transforms.gradients.center import keep_params_nonnegative as _keep_params_nonnegative
from .schedules.cycles import linear_onecycle_schedule as _linear_onecycle_schedule
from .schedules.basic import linear_schedule as _linear_schedule
from .sweeping.ranges import log_uniform as _log_uniform
from .transforms.step_size.betting import mechanize as _mechanize
from .schedules.basic import multiplicative_schedule as _multiplicative_schedule
from .transforms.matrices.polar import newton_schulz as _newton_schulz
from .transforms.clipping.layerwise import normalize_by_block_norm as _normalize_by_block_norm
from .transforms.clipping.blocks import normalize_by_update_norm as _normalize_by_update_norm
from .schedules.cycles import onecycle_momentum_schedule as _onecycle_momentum_schedule
from .schedules.cycles import onecycle_schedule as _onecycle_schedule
from .transforms.gradients.modifiers import orthogonal_grad as _orthogonal_grad
from .transforms.matrices.muon import orthogonalize as _orthogonalize
from .core.values.own_steps import own_steps as _own_steps
from .transforms.wrappers.reshape import pack as _pack
from .transforms.wrappers.partition import partition as _partition
from .schedules.basic import piecewise_constant_schedule as _piecewise_constant_schedule
from .schedules.cycles import piecewise_interpolate_schedule as _piecewise_interpolate_schedule
from .transforms.matrices.polar import polar_express as _polar_express
from .schedules.basic import polynomial_schedule as _polynomial_schedule
from .core.values.schedule import power as _power
from .core.values.schedule import product as _product
from .transforms.matrices.attention import qk_clip as _qk_clip
from .core.values.schedule import quotient as _quotient
from .sweeping.ranges import randint as _randint
from .transforms.step_size.plateau import reduce_on_plateau as _reduce_on_plateau
from .transforms.wrappers.conditional import restart as _restart
from .schedules.basic import rex_schedule as _rex_schedule
from .transforms.step_size.scale import scale as _scale
from .transforms.preconditioners.adaptive import scale_by_acprop as _scale_by_acprop
from .transforms.preconditioners.rms import scale_by_adadelta as _scale_by_adadelta
from .transforms.matrices.adaptive_muon import scale_by_adago as _scale_by_adago
from .transforms.preconditioners.rms import scale_by_adagrad as _scale_by_adagrad
from .transforms.preconditioners.adam import scale_by_adam as _scale_by_adam
from .transforms.preconditioners.adaptive import scale_by_adam_mini as _scale_by_adam_mini
from .transforms.preconditioners.adaptive import scale_by_adamax as _scale_by_adamax
from .transforms.matrices.adaptive_muon import scale_by_adamuon as _scale_by_adamuon
from .transforms.preconditioners.adam_momentum import scale_by_adan as _scale_by_adan
from .transforms.preconditioners.adam_momentum import scale_by_ademamix as _scale_by_ademamix
from .transforms.preconditioners.adam_momentum import scale_by_adopt as _scale_by_adopt
from .transforms.preconditioners.adam import scale_by_amsgrad as _scale_by_amsgrad
from .transforms.matrices.apollo import scale_by_apollo as _scale_by_apollo
from .transforms.matrices.splus import scale_by_asgo as _scale_by_asgo
from .transforms.step_size.linesearch import scale_by_backtracking_linesearch as _scale_by_backtracking_linesearch
from .transforms.preconditioners.adaptive import scale_by_belief as _scale_by_belief
from .transforms.matrices.came import scale_by_came as _scale_by_came
from .transforms.step_size.betting import scale_by_cocob as _scale_by_cocob
from .transforms.matrices.apollo import scale_by_conda as _scale_by_conda
from .transforms.step_size.dadapt import scale_by_dadapt_adam as _scale_by_dadapt_adam
from .transforms.step_size.dadapt import scale_by_dadapt_sgd as _scale_by_dadapt_sgd
from .transforms.preconditioners.rms import scale_by_debiased_rms as _scale_by_debiased_rms
from .transforms.preconditioners.rms import scale_by_debiased_stddev as _scale_by_debiased_stddev
from .transforms.matrices.dion import scale_by_dion as _scale_by_dion
from .transforms.step_size.distance import scale_by_dog as _scale_by_dog
from .transforms.step_size.distance import scale_by_dowg as _scale_by_dowg
from .transforms.preconditioners.factored import scale_by_factored_rms as _scale_by_factored_rms
from .transforms.matrices.apollo import scale_by_fira as _scale_by_fira
from .transforms.wrappers.lowrank import scale_by_galore as _scale_by_galore
from .transforms.matrices.kl import scale_by_kl_shampoo as _scale_by_kl_shampoo
from .transforms.matrices.kl import scale_by_kl_soap as _scale_by_kl_soap
from .transforms.preconditioners.adam_momentum import scale_by_laprop as _scale_by_laprop
from .transforms.clipping.layerwise import scale_by_lars as _scale_by_lars
from .transforms.preconditioners.lbfgs import scale_by_lbfgs as _scale_by_lbfgs
from .transforms.step_size.distance import scale_by_ldog as _scale_by_ldog
from .transforms.preconditioners.sign import scale_by_lion as _scale_by_lion
from .transforms.matrices.scion import scale_by_lmo as _scale_by_lmo
from .transforms.step_size.scale import scale_by_lr as _scale_by_lr
from .transforms.momentum.dual import scale_by_madgrad as _scale_by_madgrad
from .transforms.step_size.loss import scale_by_momo as _scale_by_momo
from .transforms.step_size.loss import scale_by_momo_adam as _scale_by_momo_adam
from .transforms.matrices.muon import scale_by_muon as _scale_by_muon
from .transforms.preconditioners.adam import scale_by_nadam as _scale_by_nadam
from .transforms.preconditioners.adam_momentum import scale_by_nesterov_adam as _scale_by_nesterov_adam
from .transforms.matrices.adaptive_muon import scale_by_normuon as _scale_by_normuon
from .transforms.momentum.dual import scale_by_optimistic_gradient as _scale_by_optimistic_gradient
from .transforms.clipping.blocks import scale_by_param_block_norm as _scale_by_param_block_norm
from .transforms.clipping.blocks import scale_by_param_block_rms as _scale_by_param_block_rms
from .transforms.step_size.polyak import scale_by_polyak as _scale_by_polyak
from .transforms.step_size.dadapt import scale_by_prodigy as _scale_by_prodigy
from .transforms.matrices.psgd import scale_by_psgd_kron as _scale_by_psgd_kron
from .transforms.matrices.psgd import scale_by_psgd_quad as _scale_by_psgd_quad
from .transforms.matrices.splus import scale_by_racs as _scale_by_racs
from .transforms.preconditioners.adaptive import scale_by_radam as _scale_by_radam
from .transforms.preconditioners.sign import scale_by_refined_lion as _scale_by_refined_lion
from .transforms.preconditioners.rms import scale_by_rms as _scale_by_rms
from .transforms.preconditioners.sign import scale_by_rprop as _scale_by_rprop
from .transforms.preconditioners.adaptive import scale_by_running_norm as _scale_by_running_norm
from .transforms.matrices.shampoo import scale_by_shampoo as _scale_by_shampoo
from .transforms.preconditioners.sign import scale_by_sign as _scale_by_sign
from .transforms.preconditioners.adam_momentum import scale_by_simplified_ademamix as _scale_by_simplified_ademamix
from .transforms.preconditioners.factored import scale_by_sm3 as _scale_by_sm3
from .transforms.preconditioners.sign import scale_by_smooth_lion as _scale_by_smooth_lion
from .transforms.matrices.soap import scale_by_soap as _scale_by_soap
from .transforms.preconditioners.curvature import scale_by_sophia as _scale_by_sophia
from .transforms.matrices.splus import scale_by_splus as _scale_by_splus
from .transforms.preconditioners.adaptive import scale_by_stable_adam as _scale_by_stable_adam
from .transforms.preconditioners.rms import scale_by_stddev as _scale_by_stddev
from .transforms.clipping.layerwise import scale_by_trust_ratio as _scale_by_trust_ratio
from .transforms.preconditioners.adam import scale_by_uncorrected_adam as _scale_by_uncorrected_adam
from .transforms.preconditioners.adaptive import scale_by_yogi as _scale_by_yogi
from .transforms.step_size.linesearch import scale_by_zoom_linesearch as _scale_by_zoom_linesearch
from .transforms.averages.schedule_free import schedule_free as _schedule_free
from .transforms.wrappers.sharpness import sharpness_aware as _sharpness_aware
from .transforms.guards import skip_large_updates as _skip_large_updates
from .transforms.guards import skip_loss_spikes as _skip_loss_spikes
from .transforms.guards import skip_nonfinite as _skip_nonfinite
from .transforms.averages.average import slow_weights as _slow_weights
from .core.values.spec import spec as _spec
from .transforms.wrappers.reshape import split_complex as _split_complex
from .schedules.basic import step_schedule as _step_schedule
from .transforms.averages.average import swa as _swa
from .core.values.schedule import total as _total
from .transforms.momentum.ema import trace as _trace
from .sweeping.ranges import uniform as _uniform
from .schedules.cycles import warm_restarts_schedule as _warm_restarts_schedule
from .schedules.basic import warmup_cosine_decay_schedule as _warmup_cosine_decay_schedule
from .schedules.basic import warmup_schedule as _warmup_schedule
from .schedules.cycles import warmup_stable_decay_schedule as _warmup_stable_decay_schedule
from .transforms.wrappers.zero1 import zero1 as _zero1
from .transforms.gradients.center import zero_nans as _zero_nans
from .core.values.hyper import HyperLike
from .transforms.matrices.polar import Iteration

__version__: str
__all__ = ['chain', 'stack', 'store', 'make_step', 'apply_updates', 'State', 'Report', 'to_config', 'from_config', 'ChainWarning', 'by_depth', 'by_leaf', 'by_ndim', 'by_path', 'by_width', 'spec', 'Schedule', 'bias_corrected_schedule', 'constant_schedule', 'cosine_annealing_schedule', 'cosine_decay_schedule', 'cosine_onecycle_schedule', 'cyclic_schedule', 'exponential_decay', 'from_function', 'half_life_schedule', 'inverse_sqrt_schedule', 'inverse_time_decay_schedule', 'join_schedules', 'linear_onecycle_schedule', 'linear_schedule', 'multiplicative_schedule', 'onecycle_momentum_schedule', 'onecycle_schedule', 'own_steps', 'piecewise_constant_schedule', 'piecewise_interpolate_schedule', 'polynomial_schedule', 'power', 'product', 'quotient', 'rex_schedule', 'sgdr_schedule', 'step_schedule', 'total', 'warm_restarts_schedule', 'warmup_constant_schedule', 'warmup_cosine_decay_schedule', 'warmup_exponential_decay_schedule', 'warmup_schedule', 'warmup_stable_decay_schedule', 'acprop', 'adabelief', 'adadelta', 'adafactor', 'adagrad', 'adam', 'adam_mini', 'adamax', 'adamaxw', 'adamc', 'adamw', 'adamw_independent', 'adamw_paper', 'adan', 'ademamix', 'adopt', 'amsgrad', 'asgd', 'bert_adamw', 'cocob', 'dadapt_adamw', 'dadapt_sgd', 'dog', 'dowg', 'fromage', 'galore_adamw', 'lamb', 'laprop', 'lars', 'lbfgs', 'ldog', 'lion', 'madgrad', 'mars_adamw', 'momo', 'momo_adam', 'mxnet07_adam', 'mxnet_adam', 'nadam', 'nadamw', 'noisy_sgd', 'novograd', 'optimistic_adam', 'optimistic_gradient_descent', 'polyak_sgd', 'prodigy', 'radam', 'radamw', 'rmsprop', 'rprop', 'schedule_free_adamw', 'schedule_free_sgd', 'sgd', 'sgd_ema', 'sgd_sutskever', 'sign_sgd', 'signum', 'simplified_ademamix', 'sm3', 'sophia', 'stable_adamw', 'yogi', 'adago', 'adamuon', 'apollo', 'apollo_mini', 'asgo', 'came', 'conda', 'dion', 'fira', 'kl_shampoo', 'kl_soap', 'kron', 'muon', 'normuon', 'quad', 'racs', 'scion', 'shampoo', 'soap', 'splus', 'add_gradient_change', 'scale_by_acprop', 'scale_by_adadelta', 'scale_by_adagrad', 'scale_by_adam', 'scale_by_adam_mini', 'scale_by_adamax', 'scale_by_adan', 'scale_by_ademamix', 'scale_by_adopt', 'scale_by_amsgrad', 'scale_by_belief', 'scale_by_debiased_rms', 'scale_by_debiased_stddev', 'scale_by_factored_rms', 'scale_by_laprop', 'scale_by_lbfgs', 'scale_by_lion', 'scale_by_nadam', 'scale_by_nesterov_adam', 'scale_by_radam', 'scale_by_refined_lion', 'scale_by_rms', 'scale_by_rprop', 'scale_by_running_norm', 'scale_by_sign', 'scale_by_simplified_ademamix', 'scale_by_sm3', 'scale_by_smooth_lion', 'scale_by_sophia', 'scale_by_stable_adam', 'scale_by_stddev', 'scale_by_uncorrected_adam', 'scale_by_yogi', 'matrices', 'newton_schulz', 'orthogonalize', 'polar_express', 'qk_clip', 'scale_by_adago', 'scale_by_adamuon', 'scale_by_apollo', 'scale_by_asgo', 'scale_by_came', 'scale_by_conda', 'scale_by_dion', 'scale_by_fira', 'scale_by_kl_shampoo', 'scale_by_kl_soap', 'scale_by_lmo', 'scale_by_muon', 'scale_by_normuon', 'scale_by_psgd_kron', 'scale_by_psgd_quad', 'scale_by_racs', 'scale_by_shampoo', 'scale_by_soap', 'scale_by_splus', 'debiased_ema', 'ema', 'scale_by_madgrad', 'scale_by_optimistic_gradient', 'trace', 'adaptive_grad_clip', 'clip', 'clip_blocks_per_example', 'clip_by_block_rms', 'clip_by_global_norm', 'clip_per_example', 'differentially_private_aggregate', 'normalize_by_block_norm', 'normalize_by_update_norm', 'scale_by_lars', 'scale_by_param_block_norm', 'scale_by_param_block_rms', 'scale_by_trust_ratio', 'add_noise', 'cautious', 'centralize', 'grams', 'grokfast', 'keep_params_nonnegative', 'orthogonal_grad', 'zero_nans', 'add_cautious_decay', 'add_decayed_weights', 'add_l1', 'decay_after_step', 'decay_to_init', 'reduce_on_plateau', 'scale', 'scale_by_backtracking_linesearch', 'scale_by_cocob', 'scale_by_dadapt_adam', 'scale_by_dadapt_sgd', 'scale_by_dog', 'scale_by_dowg', 'scale_by_ldog', 'scale_by_lr', 'scale_by_momo', 'scale_by_momo_adam', 'scale_by_polyak', 'scale_by_prodigy', 'scale_by_zoom_linesearch', 'ema_params', 'read_average', 'schedule_free', 'schedule_free_eval_params', 'slow_weights', 'swa', 'dynamic_loss_scale', 'loss_scale', 'skip_large_updates', 'skip_loss_spikes', 'skip_nonfinite', 'counted_clip_by_global_norm', 'record', 'recorded', 'metrics', 'accumulate', 'accumulate_weighted', 'adaptive_sharpness_aware', 'apply_every', 'conditionally_mask', 'conditionally_transform', 'flatten', 'flush', 'freeze', 'from_optax', 'graft', 'mechanize', 'pack', 'partition', 'restart', 'scale_by_galore', 'sharpness_aware', 'split_complex', 'zero1', 'apply_update', 'companded8', 'float8', 'int4', 'int8', 'offload', 'minimize', 'Minimum', 'value_and_grad_from_state', 'hutchinson', 'global_norm', 'reduce_grads', 'reduced_specs', 'grid', 'sample', 'uniform', 'log_uniform', 'randint', 'choice', 'sweep', 'successive_halving', 'Halving', 'rate_range', 'RateRange', 'plot', 'commutator', 'Commutator', 'orders', 'Orders', 'compare', 'Comparison', 'extend']

class accumulate(_accumulate):
    """Let a chain take one step for several micro-batches, on the mean of their gradients.

    Between steps only the sum of gradients, in float32 or wider, is updated, and neither the parameters nor the
    chain's state. The chain's schedules count its own steps. A micro-batch with nonfinite gradients is
    excluded from the mean: it counts as one of the ``every``, and in ``skipped`` of the
    state. If all of them are excluded there is no step. Put `dynamic_loss_scale`, which must see them,
    before this link; a micro-batch that it rejects does not count.

    A parameter whose gradient is ``None`` at the last micro-batch does not change. The chain receives the extra
    arguments of the last micro-batch. If the data end before the last micro-batch of a step, take it by `flush`.

    Equation: ū = mean of u over the micro-batches,  u ← tx(ū) at the last of them, else 0

    Args:
        tx: the chain that takes the steps
        every: micro-batches per step: a whole number, or a schedule of the steps taken
    """
    def __init__(self, tx: Any, every: Any) -> None: ...

class accumulate_weighted(_accumulate_weighted):
    """Like `accumulate`, with a mean weighted by the extra argument ``weight``.

    If the gradient of a micro-batch is a mean over tokens, pass their number, and the step is that for
    the mean over all tokens. A micro-batch of weight 0 does not count; one whose weight is negative or
    not finite is excluded.

    Equation: ū = Σwu / Σw over the micro-batches,  u ← tx(ū) at the last of them, else 0

    Args:
        tx: the chain that takes the steps
        every: micro-batches per step: a whole number, or a schedule of the steps taken
    """
    def __init__(self, tx: Any, every: Any) -> None: ...

class adaptive_grad_clip(_adaptive_grad_clip):
    """Clip each unit's gradient in proportion to its weights. Brock et al. 2021, arXiv:2102.06171, equation 3.

    A unit's weights extend along all axes but the last; along the first axis only in a leaf with three axes
    [in, heads, size]; and along all axes if at most one is longer than 1. ``axis`` overrides this, except for leaves of
    the last kind that lack the axis. A complex leaf has an additional last axis of size 2.

    Equation: u ← u·min(1, λ·max(‖θ‖, ε)/‖u‖) for each unit

    Args:
        clipping: the largest norm, as a multiple of the norm of the weights (λ), in [0, ∞)
        eps: lower bound on the norm of the weights (ε), in [0, ∞). Default: 0.001
        axis: axes along which a unit's weights extend. Default: None
    """
    def __init__(self, clipping: HyperLike, eps: HyperLike = 0.001, axis: Any = None) -> None: ...

class adaptive_sharpness_aware(_adaptive_sharpness_aware):
    """Like `sharpness_aware`, but farther for large parameters. Kwon et al. 2021, arXiv:2102.11600, Algorithm 1.

    T = |θ| + η makes the step invariant to shifting a factor from one layer to the next. The published
    code has T = 1 for biases; the paper does not.

    Equation: u ← ∇f(θ + ρT²u/‖Tu‖),  T = |θ| + η

    Args:
        rho: how far to go uphill, relative to the parameters (ρ), in [0, ∞). Default: 0.5
        eta: added to the size of a parameter (η), in [0, ∞). Default: 0.01
    """
    def __init__(self, rho: HyperLike = 0.5, eta: HyperLike = 0.01) -> None: ...

class add_cautious_decay(_add_cautious_decay):
    """Decay parameters only where the step shrinks them. Chen et al. 2025, arXiv:2510.12402.

    Equation: u ← u + λθ where uθ ≥ 0

    Args:
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞)
    """
    def __init__(self, weight_decay: HyperLike) -> None: ...

class add_decayed_weights(_add_decayed_weights):
    """Add a multiple of the parameters to the update. Its position in the chain determines the kind of decay.

    Before the preconditioner: L2 regularization, coupled (the gradient of ½λ‖θ‖²). Between it and
    `scale_by_lr`: decoupled, as in AdamW. Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2.

    Equation: u ← u + λθ

    Args:
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞)
    """
    def __init__(self, weight_decay: HyperLike) -> None: ...

class add_gradient_change(_add_gradient_change):
    """Add a multiple of the update's change, as MARS does. Yuan et al. 2024, arXiv:2411.10438, Algorithm 2.

    The approximate form: the previous update replaces the gradient of this batch at the previous
    parameters. The first update is compared with 0, as in the published code.

    Equation: c = u + γ·β₁/(1−β₁)·(u − u₋),  u₋ ← u,  u ← c

    Args:
        b1: decay of the mean that follows (β₁), in [0, 1). Default: 0.95
        gamma: fraction of the change that is added; 0 adds none (γ), in [0, ∞). Default: 0.025
    """
    def __init__(self, b1: HyperLike = 0.95, gamma: HyperLike = 0.025) -> None: ...

class add_l1(_add_l1):
    """Add the gradient of λ‖θ‖₁, which is λ·sign(θ). Tibshirani 1996.

    At θ = 0 the subgradient is 0, where ``jax.grad(jnp.abs)(0.0)`` is 1.

    Equation: u ← u + λ·sign(θ)

    Args:
        l1: weight of the penalty (λ), in [0, ∞)
    """
    def __init__(self, l1: HyperLike) -> None: ...

class add_noise(_add_noise):
    """Add Gaussian noise with decreasing variance. Neelakantan et al. 2015, arXiv:1511.06807, section 2.

    The noise depends on ``seed``, the step and the parameter's path, and is the same for any sharding, but for leaves
    with slots in codes on a mesh with explicit axes. ``vmap`` over a stack of seeds or keys gives the noise of separate
    runs.

    Equation: u ← u + N(0, η/t^γ)

    Args:
        eta: variance of the noise at the first step (η), in [0, ∞). Default: 0.01
        gamma: how fast the variance falls (γ), in [0, ∞). Default: 0.55
        seed: seed of the noise. Default: 0
    """
    def __init__(self, eta: HyperLike = 0.01, gamma: HyperLike = 0.55, seed: Any = 0) -> None: ...

class apply_every(_apply_every):
    """Sum up updates; pass on the sum at every k-th step, and 0 at the others. Links before it run at every step.

    Equation: s ← s + u,  u ← s and s ← 0 if t mod k = 0, else u ← 0

    Args:
        k: steps per sum (k), in [1, ∞). Default: 1
    """
    def __init__(self, k: HyperLike = 1) -> None: ...

class apply_update(_apply_update):
    """Specify how `step` rounds parameters that are stored in less than float32. Put this link last in a chain.

    Without this link `step` rounds to nearest, and loses updates below 1/256 of a bfloat16 parameter.

    - ``"stochastic"``: up or down, with probabilities that make the mean exact. Keeps no state. The random numbers
      depend on ``seed``, the step and the parameter's path, but not on the sharding, except for leaves with slots in
      codes on a mesh with explicit axes.
    - ``"kahan"``: the rounding error is kept in the parameter's dtype (2 bytes per parameter), and is
      added at the next step. Kahan 1965; Zamirai et al. 2020, arXiv:2010.06192.
    - ``"ecc"``: the same in 8 bits, as a fraction of the largest possible error: with bfloat16, 3 bytes for
      16 bits of mantissa.
    - ``"master"``: the state has a float32 copy of the parameters (4 bytes). Micikevicius et al. 2018,
      arXiv:1710.03740. If you change a parameter yourself, the copy is replaced by the new value.
    - a `Rounding` of your own.

    All links of the chain see the sum of the parameter and its rounding residual. Parameters in float32 or wider are
    not affected. Use the chain with `step`: `update` does not know how the update is applied.

    Equation: θ ← round(θ + u)

    Args:
        rounding: the rounding. Default: 'nearest'
        seed: seed of a random rounding. Default: 0
    """
    def __init__(self, rounding: Any = 'nearest', seed: Any = 0) -> None: ...

class bias_corrected_schedule(_bias_corrected_schedule):
    """α·√(1−β₂ᵗ)/(1−β₁ᵗ) with t = k + 1: MXNet's learning rate, which includes Adam's bias correction.

    Kingma & Ba 2015, arXiv:1412.6980, end of section 2.

    Args:
        learning_rate: α, a schedule or a number
        b1: β₁, decay of the mean, in [0, 1). Default: 0.9
        b2: β₂, decay of the mean square, in [0, 1). Default: 0.999
    """
    def __init__(self, learning_rate: HyperLike, b1: float | jax.Array | np.ndarray = 0.9, b2: float | jax.Array | np.ndarray = 0.999) -> None: ...

class by_depth(_by_depth):
    """``value`` times a power of ``decay`` for each layer below the top. Clark et al. 2020, arXiv:2003.10555.

    Layer-wise decay of the learning rate in fine-tuning, as BEiT and MAE have it: the exponent of layer i of L, counted
    from 0, is L − i. That of parameters whose path matches ``bottom``, the embeddings, is L + 1, and that of all
    others, the head and the last normalization, is 0. ``layer`` is a regular expression with the number of the layer as
    its group. As a factor it goes into the chain by ``tx.insert(scale(by_depth(0.75, layers=12)),
    before="scale_by_lr")``; with the rate as ``value`` it is itself a learning rate.

    Errors: ``KeyError`` for a layer from ``layers`` on. Warns (`ChainWarning`) if no path has the number of a layer, as
    when `jax.lax.scan` or ``flax.nnx.vmap`` stacks layers in one array, which has one factor.

    Args:
        decay: factor from a layer to the one below, in (0, 1]
        layers: the number of layers, a whole number from 1
        value: what the factors multiply. Default: 1
        layer: where a path has the number of its layer. Default: '(?i:layer|block)s?[_/.]?(\\\\d+)'
        bottom: paths of what lies below the layers. Default: '(?i:(?<!un)embed|patch|cls_token|wte|wpe)'
    """
    def __init__(self, decay: Any, layers: int, value: Any = 1, layer: str = '(?i:layer|block)s?[_/.]?(\\d+)', bottom: str = '(?i:(?<!un)embed|patch|cls_token|wte|wpe)') -> None: ...

class by_width(_by_width):
    """``value`` times the factor of the maximal update parametrization. Yang et al. 2022, arXiv:2203.03466, Table 3.

    μP: with it the best learning rate of a narrow model is that of a wide one. ``base_shapes`` describes a model that
    is narrower and otherwise the same: its parameters, arrays or as returned by ``jax.eval_shape``, or a dict of shapes
    by pattern. Where the widths are equal, all factors are 1. If a parameter has r times the inputs and s times the
    outputs that it has in the base model, the factor depends on ``rule``:

    - ``"adam"``: 1/r, for the rates of Adam and all optimizers whose updates do not grow with the gradient.
    - ``"sgd"``: s/r, for the rates of SGD, with momentum or without.
    - ``"decay"``: r, for a decoupled weight decay that is multiplied by a rate with the factors of ``"adam"``.
    - ``"init"``: 1/√r where only the inputs grow, as in the last layer, else 1. For parameters as initialized with a
      variance of 1/inputs (``lecun_normal``); an embedding's must not depend on the width.

    For rates, insert ``scale(by_width(base_shapes))`` before the weight decay, which then needs no factor.

    The last axis is taken as the outputs and all others as the inputs. For other parameters name them in ``matrices``,
    in the words of `matrices`, by path if need be: ``"in, head size"`` for queries of several heads, ``", head size"``
    for their bias.

    Errors: ``KeyError`` for a parameter that is not in the base model, has another number of axes there, or several
    input axes that grow; ``TypeError`` in `jax.shard_map`, where each device has a part of a parameter; ``ValueError``
    in `flatten` and `scale_by_galore`, whose chains see other shapes. Warns (`ChainWarning`) about a pattern that no
    path matches.

    Args:
        base_shapes: the parameters of the base model, or {pattern: shape}
        value: what the factors multiply. Default: 1
        rule: what the factors are for, one of 'adam', 'sgd', 'decay', 'init'. Default: 'adam'
        matrices: the axes of inputs and outputs. Default: None
    """
    def __init__(self, base_shapes: Any, value: Any = 1, rule: str = 'adam', matrices: Any = None) -> None: ...

class cautious(_cautious):
    """Move only where update and gradient agree in sign. Liang et al. 2024, arXiv:2411.16085, Algorithm 1.

    The remaining coordinates of a leaf, out of n, are scaled up by the inverse of their fraction. The published
    code has ξ = 0 and c = 1e-3 instead of the paper's ξ = 1 and c = 0. Place it before `scale_by_lr`.

    Equation: φ = 1 where ug > 0, else 0,  u ← φu·n / max(Σφ + ξ, cn)

    Args:
        xi: added to the number of remaining coordinates (ξ), in [0, ∞). Default: 1
        floor: lower bound on the fraction (c), in [0, ∞). Default: 0
    """
    def __init__(self, xi: HyperLike = 1, floor: HyperLike = 0) -> None: ...

class centralize(_centralize):
    """Subtract the mean of each unit's gradient. Yong et al. 2020, arXiv:2004.01461, equation 1.

    A unit's weights extend along all axes but ``axis``, which is the last for kernels [in, out] or
    [height, width, in, out]. Use axis 0 for kernels [out, in], as Optax does.
    Leaves with fewer than two axes are unchanged. A complex leaf has an additional last axis of size 2.

    Equation: u ← u − mean(u) for each unit

    Args:
        axis: axis that indexes the units. Default: -1
    """
    def __init__(self, axis: int = -1) -> None: ...

class choice(_choice):
    """Values of a list, each as likely as another: numbers, schedules, formats or links. For `sample`.

    In a table of ranges, a plain list means the same.

    Args:
        values: the values, at least one
    """
    def __init__(self, values: Any) -> None: ...

class clip(_clip):
    """Clip every coordinate to [−c, c].

    Equation: u ← min(max(u, −c), c)

    Args:
        max_delta: the largest magnitude; ∞ for no bound (c), in [0, ∞)
    """
    def __init__(self, max_delta: HyperLike) -> None: ...

class clip_blocks_per_example(_clip_blocks_per_example):
    """Clip each example's gradient leaf by leaf, and average over the examples. McMahan et al. 2018, arXiv:1812.06210.

    The first link of a chain, for gradients ``(B, *shape)``. The bounds imply a global norm of at most c.
    They are equal, or with ``uniform=False`` proportional to the square root of the leaf's size.

    Args:
        max_norm: the largest norm of one example's gradients (c), in [0, ∞)
        uniform: give each leaf the same bound. Default: True
    """
    def __init__(self, max_norm: HyperLike, uniform: bool = True) -> None: ...

class clip_by_block_rms(_clip_by_block_rms):
    """Scale a leaf down if its RMS exceeds a bound. Shazeer & Stern 2018, arXiv:1804.04235, section 6.

    Equation: u ← u·min(1, d/RMS(u))

    Args:
        threshold: the largest root mean square; ∞ for no bound (d), in [0, ∞)
    """
    def __init__(self, threshold: HyperLike) -> None: ...

class clip_by_global_norm(_clip_by_global_norm):
    """Scale all updates down if their global norm exceeds a bound. Pascanu et al. 2013, arXiv:1211.5063.

    The norm is accumulated in float32 or better. A NaN gradient makes every update NaN; an infinite
    norm (a gradient over 1.8e19 in float32) makes finite updates 0 and infinite ones NaN.

    Equation: u ← u·min(1, c/‖u‖)

    Args:
        max_norm: the largest global norm; ∞ for no bound (c), in [0, ∞)
    """
    def __init__(self, max_norm: HyperLike) -> None: ...

class clip_per_example(_clip_per_example):
    """Clip the global norm of each example's gradients, and average over the examples.

    The first link of a chain. Gradients have a leading axis of examples, ``(B, *shape)``, as returned by
    ``jax.vmap(jax.grad(loss), (None, 0))(params, batch)``.

    Equation: u ← mean over examples i of uᵢ·min(1, c/‖uᵢ‖)

    Args:
        max_norm: the largest norm of one example's gradients (c), in [0, ∞)
    """
    def __init__(self, max_norm: HyperLike) -> None: ...

class companded8(_companded8):
    """Evenly spaced 8-bit codes of a companded number: no table, hence fast.

    Signed numbers are companded by y = 2x/(1 + |x|), which gives small numbers more codes; numbers without a sign by
    the square root, which is what a second moment is used for, in 256 levels without a zero.

    Args:
        block: numbers that share a scale, a whole number from 2 to 1048576. Default: 256
        min_size: leaves of fewer numbers stay in float32, a whole number from 0. Default: 4096
    """
    def __init__(self, block: int = 256, min_size: int = 4096) -> None: ...

class conditionally_mask(_conditionally_mask):
    """Run a chain if a condition holds. Otherwise the update is 0, and nothing moves.

    The condition is a schedule, or a function from the number of steps so far to a bool. With ``argument``,
    the extra argument of that name, a bool, must be true as well. If the chain does not run, neither its state
    nor its step counter changes: its schedules count the steps at which it runs.

    Equation: u ← tx(u) if c ≠ 0, else 0

    Args:
        tx: the chain
        condition: the chain runs if this is not 0: a schedule, or a function of the step (c). Default: 1
        argument: name of an extra argument that must be true as well. Default: ''
    """
    def __init__(self, tx: Any, condition: HyperLike = 1, argument: str = '') -> None: ...

class conditionally_transform(_conditionally_transform):
    """Run a chain if a condition holds. Otherwise pass on the update unchanged.

    Conditions and step counts are as for `conditionally_mask`.

    Equation: u ← tx(u) if c ≠ 0, else u

    Args:
        tx: the chain
        condition: the chain runs if this is not 0: a schedule, or a function of the step (c). Default: 1
        argument: name of an extra argument that must be true as well. Default: ''
    """
    def __init__(self, tx: Any, condition: HyperLike = 1, argument: str = '') -> None: ...

class constant_schedule(_constant_schedule):
    """The same number at every step.

    Args:
        value: the number
    """
    def __init__(self, value: float | jax.Array | np.ndarray) -> None: ...

class cosine_annealing_schedule(_cosine_annealing_schedule):
    """A cosine wave: half a period down, half a period up, and so on. PyTorch's ``CosineAnnealingLR``.

    Args:
        init_value: value at step 0 and at every second extremum
        half_period: steps between extrema: PyTorch's T_max, in [1, ∞)
        end_value: value at the other extrema. Default: 0
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, half_period: float | jax.Array | np.ndarray, end_value: float | jax.Array | np.ndarray = 0) -> None: ...

class cosine_decay_schedule(_cosine_decay_schedule):
    """Half a cosine from ``init_value`` to ``alpha·init_value``, constant after that.

    Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5. `cosine_annealing_schedule` rises again.

    Args:
        init_value: value at step 0
        decay_steps: length of the decay, in steps, in [0, ∞)
        alpha: the last value, as a fraction of the first. Default: 0
        exponent: the power to which the cosine is raised, in [0, ∞). Default: 1
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, decay_steps: float | jax.Array | np.ndarray, alpha: float | jax.Array | np.ndarray = 0, exponent: float | jax.Array | np.ndarray = 1) -> None: ...

class cosine_onecycle_schedule(_cosine_onecycle_schedule):
    """Optax's one-cycle schedule: half a cosine up to the peak, and half a cosine down.

    Smith & Topin 2018, arXiv:1708.07120. The peak is at ``pct_start`` of the steps, rounded down to a step.
    PyTorch's is `onecycle_schedule`.

    Args:
        transition_steps: length of the cycle, in steps, in [1, ∞)
        peak_value: the largest value
        pct_start: fraction of the steps up to the peak, in [0, 1]. Default: 0.3
        div_factor: ratio of the peak to the first value, in (0, ∞). Default: 25
        final_div_factor: ratio of the first value to the last, in (0, ∞). Default: 10000
    """
    def __init__(self, transition_steps: float | jax.Array | np.ndarray, peak_value: float | jax.Array | np.ndarray, pct_start: float | jax.Array | np.ndarray = 0.3, div_factor: float | jax.Array | np.ndarray = 25, final_div_factor: float | jax.Array | np.ndarray = 10000) -> None: ...

class counted_clip_by_global_norm(_counted_clip_by_global_norm):
    """`clip_by_global_norm` that counts: `recorded` reads ``clip_rate``, the fraction of steps that it clipped.

    Rejected steps count too. For other clips, compare the norms of a `record` before and after.

    Equation: u ← u·min(1, c/‖u‖)

    Args:
        max_norm: the largest global norm; ∞ for no bound (c), in [0, ∞)
    """
    def __init__(self, max_norm: HyperLike) -> None: ...

class cyclic_schedule(_cyclic_schedule):
    """A triangle wave between two values. Smith 2017, arXiv:1506.01186, section 3. PyTorch's ``CyclicLR``.

    ``scale`` multiplies the height: a number, or a schedule that counts completed cycles from 0 (PyTorch's
    functions count them from 1), or steps. PyTorch's ``triangular2`` is ``scale=exponential_decay(1, 1, 0.5)``, its
    ``exp_range`` is ``scale=exponential_decay(1, 1, gamma), scale_by="step"``. For the inverse cycle of the
    momentum write ``cyclic_schedule(max_momentum, base_momentum, ...)``.

    Args:
        init_value: value at the start of each cycle
        peak_value: value at the top of the first cycle
        step_size_up: steps on the way up, in [1, ∞). Default: 2000
        step_size_down: steps on the way down, by default as many as up, in [1, ∞). Default: None
        scale: factor of the height. Default: 1
        scale_by: what the scale counts, one of 'cycle', 'step'. Default: 'cycle'
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, peak_value: float | jax.Array | np.ndarray, step_size_up: float | jax.Array | np.ndarray = 2000, step_size_down: Any = None, scale: HyperLike = 1, scale_by: str = 'cycle') -> None: ...

class debiased_ema(_debiased_ema):
    """Average updates exponentially, with bias correction: the numerator of Adam.

    Equation: m ← βm + (1−β)u,  u ← m̂

    Args:
        decay: decay of the mean (β), in [0, 1)
    """
    def __init__(self, decay: HyperLike) -> None: ...

class decay_after_step(_decay_after_step):
    """Shrink the parameters in a separate step after the main one: θ ← θ − λ(θ + u).

    Place it after `scale_by_lr`, which then does not scale it: the decay is independent of the
    learning rate. With a schedule for λ it is the second optimizer of decoupling by "two optimizers",
    and the last step of MXNet 0.7's Adam.

    Equation: u ← u − λ(θ + u)

    Args:
        rate: fraction that is removed at each step (λ), in [0, 1]
    """
    def __init__(self, rate: HyperLike) -> None: ...

class decay_to_init(_decay_to_init):
    """Pull parameters towards their initial values. Li et al. 2018, arXiv:1802.01483: L2-SP.

    Equation: u ← u + λ(θ − θ₀)

    Args:
        weight_decay: multiple of the distance that is added (λ), in [0, ∞)
    """
    def __init__(self, weight_decay: HyperLike) -> None: ...

class differentially_private_aggregate(_differentially_private_aggregate):
    """Clip each example's gradients, add noise, and average. Abadi et al. 2016, arXiv:1607.00133, Algorithm 1.

    The first link of a chain, for gradients ``(B, *shape)``. The noise depends only on ``seed`` and the step: a
    private run needs a secret seed. Compute the privacy budget with an accountant for the same σ.

    Equation: u ← (Σᵢ uᵢ·min(1, C/‖uᵢ‖) + σC·z)/B over B examples i,  z ~ N(0, 1)

    Args:
        l2_norm_clip: the largest norm of one example's gradients (C), in [0, ∞)
        noise_multiplier: standard deviation of the noise on the sum, in units of C (σ), in [0, ∞)
        seed: seed of the noise. Default: 0
    """
    def __init__(self, l2_norm_clip: HyperLike, noise_multiplier: HyperLike, seed: Any = 0) -> None: ...

class dynamic_loss_scale(_dynamic_loss_scale):
    """Divide by the loss scale, reject steps that overflow, and adapt the scale. Place it first.

    Micikevicius et al. 2018, arXiv:1710.03740, section 3.2, with the rule of PyTorch's GradScaler. Take the
    gradient of ``loss * loss_scale(state)``, with the loss in float32. Only `sharpness_aware` comes before it;
    its ``grad_fn`` must then return gradients of the scaled loss too. Departs from PyTorch, whose scale reaches 0 after
    143 bad steps and then rejects nothing: here it does not fall below ``min_scale``, or below its first value if that
    is smaller; and a step whose gradients overflow only when divided is rejected too.

    Equation: u ← u/s, no step unless all of that is finite,  s from s₀: ← γs after n steps in a row, ← max(βs, min(s, s_min)) otherwise

    Args:
        init_scale: the first scale (s₀), in [0, ∞). Default: 65536
        growth_factor: factor by which the scale grows (γ), in [1, ∞). Default: 2
        backoff_factor: factor of the scale after an overflow (β), in [0, 1). Default: 0.5
        growth_interval: finite steps in a row before it grows (n), in [1, ∞). Default: 2000
        min_scale: the smallest scale (s_min), in [0, ∞). Default: 1
    """
    def __init__(self, init_scale: float | jax.Array | np.ndarray = 65536, growth_factor: HyperLike = 2, backoff_factor: HyperLike = 0.5, growth_interval: HyperLike = 2000, min_scale: HyperLike = 1) -> None: ...

class ema(_ema):
    """Average updates exponentially from 0, without bias correction. Optax's ``ema`` is `debiased_ema`.

    Equation: m ← βm + (1−β)u,  u ← m

    Args:
        decay: decay of the mean (β), in [0, 1)
    """
    def __init__(self, decay: HyperLike) -> None: ...

class ema_params(_ema_params):
    """Exponential moving average of the parameters, with bias correction.

    After t steps, the parameters of i steps ago have the weight (1−β)βⁱ/(1−βᵗ). Without ``debias`` the average starts
    at the first parameters, which then have the weight βᵗ⁻¹, as in PyTorch's AveragedModel. With a decay of 1, as at
    the end of BYOL's schedule, the average stops moving; with ``debias`` it is the limit, in which all weights are
    equal.

    Args:
        decay: decay of the average (β), in [0, 1]
        debias: correct the bias of the first steps. Default: True
    """
    def __init__(self, decay: HyperLike, debias: bool = True) -> None: ...

class exponential_decay(_exponential_decay):
    """init·rate^(k/T). PyTorch's ``ExponentialLR`` if T = 1. With ``staircase`` it changes only every T steps.

    Args:
        init_value: value at step 0
        transition_steps: T, the steps in which the value is multiplied by the rate, in [1, ∞)
        decay_rate: the factor, in [0, ∞)
        transition_begin: the step at which the decay begins, in [0, ∞). Default: 0
        staircase: decay at multiples of T only. Default: False
        end_value: bound of the decay (or growth), if any. Default: None
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, transition_steps: float | jax.Array | np.ndarray, decay_rate: float | jax.Array | np.ndarray, transition_begin: float | jax.Array | np.ndarray = 0, staircase: bool = False, end_value: Any = None) -> None: ...

class flatten(_flatten):
    """Pass all parameters of a dtype to a chain as one vector: fewer and larger operations, and norms over all leaves.

    The chain sees ``{"float32": vector}``, so tables by path can only match dtypes, and those by shape are refused. The
    copies do not pay off for large leaves, and they gather sharded ones. The state cannot be adapted when parameters
    are added or removed.

    Equation: u ← tx(u), all of u as one vector

    Args:
        tx: the chain
    """
    def __init__(self, tx: Any) -> None: ...

class float8(_float8):
    """8-bit floats with 3 bits of mantissa, 2⁻⁹ to 448 (e4m3). Micikevicius et al. 2022, arXiv:2209.05433.

    Args:
        block: numbers that share a scale, a whole number from 2 to 1048576. Default: 256
        min_size: leaves of fewer numbers stay in float32, a whole number from 0. Default: 4096
    """
    def __init__(self, block: int = 256, min_size: int = 4096) -> None: ...

class freeze(_freeze):
    """Do not change the parameters, whatever the gradients. In a `partition`, they also get no state.

    Equation: u ← 0
    """
    def __init__(self) -> None: ...

class from_function(_from_function):
    """A Python function of the step as a schedule. PyTorch's ``LambdaLR`` is ``rate * from_function(f)``.

    Links and schedules wrap plain functions automatically.
    The function takes the number of steps so far as a traced scalar, int32 (int64 under ``jax_enable_x64``), and
    returns a scalar. It must not depend on anything else that changes: it is traced once and reused, outside ``jit``
    too.

    Args:
        function: from the number of steps to a number
    """
    def __init__(self, function: Any) -> None: ...

class from_optax(_from_optax):
    """An Optax ``GradientTransformation``, or any object with the same ``init`` and ``update``, as a link.

    Its state is part of the chain's state, unchanged. Since it consists of closures, it cannot be compared, written as
    JSON or swept; everything else works.

    It receives ``None`` in place of leaves that are not trained, such as integers and PRNG keys, and of parameters
    without a gradient at a step. Its state for the latter is kept: the leaves for them in those trees of its state that
    have the structure of the parameters. If no parameter has a gradient it is not called.

    Equation: u ← update(u)

    Args:
        transformation: an object with init(params) and update(updates, state, params)
        arguments: names of extra arguments that its update takes. Default: ()
        role: its purpose, such as precondition, one of 'loss_scale', 'gradient', 'guard', 'clean', 'clip', 'noise', 'decay', 'penalty', 'accumulate', 'precondition', 'align', 'scale', 'descend', 'search', 'decay_after', 'project', 'average', 'record', 'apply', 'other'. Default: 'other'
    """
    def __init__(self, transformation: Any, arguments: Any = (), role: str = 'other') -> None: ...

class graft(_graft):
    """Resize each leaf of one chain's update to the norm of another's. Agarwal et al. 2020, arXiv:2002.11803.

    Both chains get the same updates. ``graft(scale_by_shampoo(), scale_by_adagrad())`` takes learning rates of Adagrad.
    An update of 0 stays 0. ``matrices`` gives norms to each matrix of a leaf, such as the layers of a stack, in place
    of one to the leaf. Put the learning rate, the decay and guards into the outer chain.

    Equation: u ← direction(u)·‖magnitude(u)‖ / ‖direction(u)‖

    Args:
        direction: the chain whose direction is taken
        magnitude: the chain whose norm is taken
        matrices: the matrices of a leaf that have norms of their own. Default: None
    """
    def __init__(self, direction: Any, magnitude: Any, matrices: Any = None) -> None: ...

class grams(_grams):
    """Take the magnitude from the update and the sign from the gradient. Cao et al. 2024, arXiv:2412.17107.

    Place it before `scale_by_lr`.

    Equation: u ← |u|·sign(g)
    """
    def __init__(self) -> None: ...

class grokfast(_grokfast):
    """Amplify the slow part of the gradient. Lee et al. 2024, arXiv:2405.20233, Algorithm 2. Place it first.

    Equation: μ ← αμ + (1−α)u, μ₁ = u₁,  u ← u + λμ

    Args:
        decay: decay of the mean (α), in [0, 1). Default: 0.98
        lamb: multiple of the mean that is added (λ), in [0, ∞). Default: 2
    """
    def __init__(self, decay: HyperLike = 0.98, lamb: HyperLike = 2) -> None: ...

class half_life_schedule(_half_life_schedule):
    """A decay β whose time constant, −1/log β, grows linearly.

    Pagliardini et al. 2024, arXiv:2409.03137, the scheduler of β₃ in section 3. At a β of 0 at either end, the
    derivatives with respect to it are infinite, and replaced by 0.

    Args:
        init_value: β until the transition begins, in [0, 1)
        end_value: β when it has ended, in [0, 1)
        transition_steps: its length, in steps, in [0, ∞)
        transition_begin: the step at which it begins. Default: 0
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, end_value: float | jax.Array | np.ndarray, transition_steps: float | jax.Array | np.ndarray, transition_begin: float | jax.Array | np.ndarray = 0) -> None: ...

class int4(_int4):
    """4-bit codes, two to a byte. Li et al. 2023, arXiv:2309.01507.

    Signed slots use the dynamic map. Slots without negative numbers use 1/16, 2/16, ..., 1. This map
    has no zero, since a second moment rounded to 0 would make the step infinite.

    Args:
        block: numbers that share a scale, a whole number from 2 to 1048576. Default: 128
        min_size: leaves of fewer numbers stay in float32, a whole number from 0. Default: 4096
    """
    def __init__(self, block: int = 128, min_size: int = 4096) -> None: ...

class int8(_int8):
    """8-bit codes of the dynamic map. Dettmers et al. 2022, arXiv:2110.02861, section 2.1.

    Seven decades, each with twice as many values as the one below. Slots without negative
    numbers use an unsigned map.

    Args:
        block: numbers that share a scale, a whole number from 2 to 1048576. Default: 256
        min_size: leaves of fewer numbers stay in float32, a whole number from 0. Default: 4096
    """
    def __init__(self, block: int = 256, min_size: int = 4096) -> None: ...

class inverse_sqrt_schedule(_inverse_sqrt_schedule):
    """Linear warm-up to ``peak_value``, then peak·√(warmup/t). Vaswani et al. 2017, arXiv:1706.03762, equation 3.

    The paper's rate for a model of width d is ``inverse_sqrt_schedule((d * warmup) ** -0.5, warmup, first_step=1)``.
    With ``init_value = peak_value`` the warm-up is flat, as in T5: Raffel et al. 2020, arXiv:1910.10683, 3.1.2.

    Args:
        peak_value: value when the warm-up ends
        warmup_steps: length of the warm-up, in steps, in [0, ∞)
        init_value: value at t = 0. Default: 0
        first_step: t at the first update: the paper counts from 1, in [0, ∞). Default: 0
    """
    def __init__(self, peak_value: float | jax.Array | np.ndarray, warmup_steps: float | jax.Array | np.ndarray, init_value: float | jax.Array | np.ndarray = 0, first_step: float | jax.Array | np.ndarray = 0) -> None: ...

class inverse_time_decay_schedule(_inverse_time_decay_schedule):
    """init / (1 + rate·k). PyTorch's ``lr_decay`` of Adagrad; Robbins & Monro 1951.

    Args:
        init_value: value at step 0
        decay_rate: growth of the denominator per step, in [0, ∞)
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, decay_rate: float | jax.Array | np.ndarray) -> None: ...

class join_schedules(_join_schedules):
    """Schedules one after another, each counting from its own boundary. PyTorch's ``SequentialLR``.

    Args:
        schedules: the schedules or numbers, in order
        boundaries: the steps at which the second, third, ... begin, in [0, ∞)
    """
    def __init__(self, schedules: Any, boundaries: Any) -> None: ...

class keep_params_nonnegative(_keep_params_nonnegative):
    """Clip parameters that would become negative to 0. Place it after `scale_by_lr`.

    For complex parameters this applies to both parts.

    Equation: u ← max(u, −θ)
    """
    def __init__(self) -> None: ...

class linear_onecycle_schedule(_linear_onecycle_schedule):
    """Optax's linear one-cycle schedule: up to the peak, back to the first value, then down to the last.

    Smith & Topin 2018, arXiv:1708.07120. The peak is at ``pct_start`` of the steps, rounded down to a step, and the
    return to the first value at ``pct_final``. PyTorch's is `onecycle_schedule`.

    Args:
        transition_steps: length of the cycle, in steps, in [1, ∞)
        peak_value: the largest value
        pct_start: fraction of the steps up to the peak, in [0, 1]. Default: 0.3
        pct_final: fraction of the steps up to the return to the first value, in [0, 1]. Default: 0.85
        div_factor: ratio of the peak to the first value, in (0, ∞). Default: 25
        final_div_factor: ratio of the first value to the last, in (0, ∞). Default: 10000
    """
    def __init__(self, transition_steps: float | jax.Array | np.ndarray, peak_value: float | jax.Array | np.ndarray, pct_start: float | jax.Array | np.ndarray = 0.3, pct_final: float | jax.Array | np.ndarray = 0.85, div_factor: float | jax.Array | np.ndarray = 25, final_div_factor: float | jax.Array | np.ndarray = 10000) -> None: ...

class linear_schedule(_linear_schedule):
    """Linear from one value to another, constant before and after. PyTorch's ``LinearLR``.

    Args:
        init_value: value until the transition begins
        end_value: value when it has ended
        transition_steps: its length, in steps, in [0, ∞)
        transition_begin: the step at which it begins, in [0, ∞). Default: 0
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, end_value: float | jax.Array | np.ndarray, transition_steps: float | jax.Array | np.ndarray, transition_begin: float | jax.Array | np.ndarray = 0) -> None: ...

class log_uniform(_log_uniform):
    """Numbers from ``low`` to ``high`` whose logarithms are uniform. For `sample`.

    For what is known up to a factor: learning rates, decays, and distances such as 1 − β.

    Args:
        low: the least number, in (0, ∞)
        high: the largest, in (0, ∞)
    """
    def __init__(self, low: float | jax.Array | np.ndarray, high: float | jax.Array | np.ndarray) -> None: ...

class mechanize(_mechanize):
    """Tune the scale of a chain's updates by betting on it. Cutkosky et al. 2023, arXiv:2306.00144, Algorithm 1.

    The chain has the learning rate 1, or a schedule with the peak 1. The initial parameters are not stored: the
    update is the change of SΔ. ``clipped`` is Optax's form: no bet loses or wins more than the largest
    before it, R may be negative, and m and s start at ε and s₀.

    Args:
        tx: the chain whose updates are scaled
        weight_decay: weight of the parameters in the bet (λ), in [0, ∞). Default: 0.01
        eps: added to the denominators (ε), in [0, ∞). Default: 1e-08
        s_init: initial scale (s₀), in [0, ∞). Default: 1e-08
        betas: decays of the statistics, one for each bet (β), in [0, 1]. Default: (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
        clipped: whether bets are clipped. Default: False
    """
    def __init__(self, tx: Any, weight_decay: HyperLike = 0.01, eps: HyperLike = 1e-08, s_init: HyperLike = 1e-08, betas: Any = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999), clipped: bool = False) -> None: ...

class multiplicative_schedule(_multiplicative_schedule):
    """init·factor(1)·factor(2)·…·factor(k), where k stops at ``transition_steps``. PyTorch's ``MultiplicativeLR``.

    Each evaluation takes ``transition_steps`` multiplications. For a constant factor use `exponential_decay`,
    for factors at a few steps `piecewise_constant_schedule`.

    Args:
        init_value: value at step 0
        factor: the factor of each step: a schedule, a function of the step or a number
        transition_steps: the last step with a factor of its own, a whole number from 0 to 1000000
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, factor: HyperLike, transition_steps: int) -> None: ...

class newton_schulz(_newton_schulz):
    """Newton–Schulz iterations with the coefficients of Jordan et al. 2024, or any others.

    ``coefficients`` has a row for each step; the last is repeated. With the default, singular values above about 0.01
    become numbers between 0.68 and 1.13 in five steps.

    Args:
        steps: the number of steps, a whole number from 1. Default: 5
        coefficients: a row of three for each step; the last is repeated. Default: ((3.4445, -4.775, 2.0315),)
    """
    def __init__(self, steps: int = 5, coefficients: Any = ((3.4445, -4.775, 2.0315),)) -> None: ...

class normalize_by_block_norm(_normalize_by_block_norm):
    """Divide each leaf by its norm. Yu et al. 2017, arXiv:1707.04822, Algorithm 1, with a leaf for a block.

    Equation: u ← u / (‖u‖ + ε), 0 if that is 0/0

    Args:
        eps: added to the norm (ε), in [0, ∞). Default: 0
    """
    def __init__(self, eps: HyperLike = 0) -> None: ...

class normalize_by_update_norm(_normalize_by_update_norm):
    """Scale all updates to a fixed global norm. Hazan et al. 2015, arXiv:1507.02030, Algorithm 1, has ε = 0.

    Equation: u ← γu / (‖u‖ + ε)

    Args:
        scale_factor: the resulting norm (γ), in [0, ∞). Default: 1
        eps: added to the norm (ε), in [0, ∞). Default: 1e-06
    """
    def __init__(self, scale_factor: HyperLike = 1, eps: HyperLike = 1e-06) -> None: ...

class onecycle_momentum_schedule(_onecycle_momentum_schedule):
    """The momentum, or β₁, of PyTorch's ``OneCycleLR``: low where `onecycle_schedule` is high.

    Args:
        total_steps: length T of the cycle, the last step included, in [1, ∞)
        base_momentum: the minimum, when the rate is at its peak. Default: 0.85
        max_momentum: the first and the last value. Default: 0.95
        pct_start: fraction of the steps up to the peak, in [0, 1]. Default: 0.3
        interpolate_type: shape of each phase, one of 'linear', 'cosine'. Default: 'cosine'
        three_phase: return when the rate does. Default: False
    """
    def __init__(self, total_steps: float | jax.Array | np.ndarray, base_momentum: float | jax.Array | np.ndarray = 0.85, max_momentum: float | jax.Array | np.ndarray = 0.95, pct_start: float | jax.Array | np.ndarray = 0.3, interpolate_type: str = 'cosine', three_phase: bool = False) -> None: ...

class onecycle_schedule(_onecycle_schedule):
    """The learning rate of PyTorch's ``OneCycleLR``. Its momentum is `onecycle_momentum_schedule`.

    Smith & Topin 2018, arXiv:1708.07120, with three linear phases (``three_phase``). The
    peak is at step pct_start·T − 1, which may be fractional; the last value is reached at step T − 1 and kept.

    Args:
        total_steps: length T of the cycle, the last step included, in [1, ∞)
        peak_value: the largest value
        pct_start: fraction of the steps up to the peak, in [0, 1]. Default: 0.3
        div_factor: ratio of the peak to the first value, in (0, ∞). Default: 25
        final_div_factor: ratio of the first value to the last, in (0, ∞). Default: 10000
        interpolate_type: shape of each phase, one of 'linear', 'cosine'. Default: 'cosine'
        three_phase: decay to the first value, then to the last. Default: False
    """
    def __init__(self, total_steps: float | jax.Array | np.ndarray, peak_value: float | jax.Array | np.ndarray, pct_start: float | jax.Array | np.ndarray = 0.3, div_factor: float | jax.Array | np.ndarray = 25, final_div_factor: float | jax.Array | np.ndarray = 10000, interpolate_type: str = 'cosine', three_phase: bool = False) -> None: ...

class orthogonal_grad(_orthogonal_grad):
    """Remove the component parallel to the parameter. Prieto et al. 2025, arXiv:2501.04697: ⊥Grad.

    As in the published code, the remainder is rescaled to the norm of the gradient, leaf by leaf.
    A gradient parallel to its parameter, such as any gradient with a single coordinate, becomes 0.
    Place it first.

    Equation: v = u − (uᵀθ/θᵀθ)θ,  u ← v·‖u‖/‖v‖
    """
    def __init__(self) -> None: ...

class orthogonalize(_orthogonalize):
    """Replace each matrix UΣVᴴ by its polar factor UVᴴ: `scale_by_muon` without momentum.

    Put it after another momentum or preconditioner. The settings are those of `scale_by_muon`.

    Args:
        eps: added to the norm (ε), in [0, ∞). Default: 1e-07
        iteration: the polynomials that orthogonalize. Default: newton_schulz()
        sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'spectral'
        dtype: the dtype of the iterations, one of None, 'float32', 'bfloat16', 'float16'. Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, eps: HyperLike = 1e-07, iteration: Any = ..., sizing: str = 'spectral', dtype: str | None = None, *, matrices: Any = ..., over: Any = None) -> None: ...

class own_steps(_own_steps):
    """Count a schedule by each parameter's own steps, from when it joined the run by `add_param_group`.

    The schedule counts the run's steps for parameters that were there from the start, in whole-tree links, in
    `hyperparams`, and when it is called. A chain counts a parameter's own steps from its first slot for that parameter,
    so a chain without slots counts the run's steps.

    Args:
        schedule: the schedule
    """
    def __init__(self, schedule: Any) -> None: ...

class pack(_pack):
    """Pass small leaves to a chain in packs: many leaves of one shape as one vector, in the place of the first.

    For CPUs: a thousand biases and scales then need only fifty sets of slots and kernels. Elsewhere it costs more than
    it saves, since each step copies gradients, parameters and updates into packs and out of them, and ``init`` warns:
    AdamW on 200 leaves of 1024 moves 40 bytes a parameter in 212 kernels on an H100 and 297 in 866 on a TPU v5e,
    without packs 28 in 18 and 28 in 400. `flatten` would copy large leaves too, and takes long to compile.

    Leaves that a table such as `by_path` in the chain distinguishes never share a pack. Scalars are not packed, nor are
    leaves about which a table would decide otherwise as vectors, as `by_ndim` does about matrices, and leaves whose
    slots `store` keeps in blocks, such as `int8`: a block holds numbers of one leaf, and those of small leaves stay in
    float32. Whole-tree links also see packs instead of leaves, so put `scale_by_galore` outside. The state cannot be
    adapted when parameters are added or removed.

    Errors: ``TypeError`` from ``init`` if a link computes with several numbers of a leaf, as for its norm, and
    from ``update`` if a packed leaf has no update; ``KeyError`` if a state of other packs is loaded. Warns
    (`ChainWarning`) from ``init`` if there are packs and the parameters are not on a CPU, or, under ``jit``, if JAX's
    default backend is not one.

    Equation: u ← tx(u), small leaves of u in packs

    Args:
        tx: the chain
        max_leaves: the largest number of leaves in a pack. Default: 20
        max_size: the size of the largest leaf that is packed. Default: 16384
    """
    def __init__(self, tx: Any, max_leaves: int = 20, max_size: int = 16384) -> None: ...

class partition(_partition):
    """Assign parameters to chains by path, by `by_path`, or by the number of their axes, by `by_ndim`.

    A chain sees only the parameters of its group: global norms are those of the group, and
    guards reject the step for the group alone. Paths, also in tables by path, are those of the whole tree.
    To pass on the updates of a group unchanged, use ``chain()``.

    Errors: ``KeyError`` for a parameter that no pattern matches, if there is no default. Warns
    (`ChainWarning`) about a pattern that decides for no parameter.

    Equation: u ← tx(u), by the parameter's path

    Args:
        table: by_path({pattern: chain}, default=chain), or by_ndim
    """
    def __init__(self, table: Any) -> None: ...

class piecewise_constant_schedule(_piecewise_constant_schedule):
    """Multiplied by a factor at each of the given steps.

    PyTorch's ``MultiStepLR``, with ``[(step, gamma) for step in milestones]``. Pairs may repeat a step, which a dict
    cannot.

    Args:
        init_value: value at step 0
        boundaries_and_scales: the factors by step: a dict or pairs, in [0, ∞)
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, boundaries_and_scales: Any) -> None: ...

class piecewise_interpolate_schedule(_piecewise_interpolate_schedule):
    """Interpolated, linearly or by half cosines, between values that are multiplied by factors at the given steps.

    Args:
        interpolate_type: shape of each piece, one of 'linear', 'cosine'
        init_value: value at step 0
        boundaries_and_scales: the factors by their step: a dict, or pairs, in [0, ∞)
    """
    def __init__(self, interpolate_type: str, init_value: float | jax.Array | np.ndarray, boundaries_and_scales: Any) -> None: ...

class polar_express(_polar_express):
    """The quintics that bring singular values in [``lowest``, 1] nearest to 1. Amsel et al. 2025, arXiv:2505.16932.

    Algorithm 1, with coefficients that are computed when the value is built, by Remez' exchange. As in the published
    code, each polynomial but the last is made for arguments that may be ``1 + safety`` times too large, and no interval
    begins below ``cushion`` times its end.

    Args:
        steps: the number of steps, a whole number from 1 to 20. Default: 5
        lowest: the smallest singular value that is brought to 1. Default: 0.001
        safety: how much larger than expected singular values may be. Default: 0.02
        cushion: the least ratio of the ends of an interval. Default: 0.02
    """
    def __init__(self, steps: int = 5, lowest: float = 0.001, safety: float = 0.02, cushion: float = 0.02) -> None: ...

class polynomial_schedule(_polynomial_schedule):
    """Polynomial decay: end + (init − end)·(1 − k/T)^power. PyTorch's ``PolynomialLR``.

    Args:
        init_value: value until the transition begins
        end_value: value when it has ended
        power: the exponent; 1 is linear, in [0, ∞)
        transition_steps: its length T, in steps, in [0, ∞)
        transition_begin: the step at which it begins, in [0, ∞). Default: 0
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, end_value: float | jax.Array | np.ndarray, power: float | jax.Array | np.ndarray, transition_steps: float | jax.Array | np.ndarray, transition_begin: float | jax.Array | np.ndarray = 0) -> None: ...

class power(_power):
    """One schedule or number raised to the power of another. At base 0, infinite derivatives are replaced by 0.

    A learning-rate range test (Smith 2017, arXiv:1506.01186, section 3.3) over five decades:

    Args:
        base: a schedule or a number, in [0, ∞)
        exponent: a schedule or a number
    """
    def __init__(self, base: Any, exponent: Any) -> None: ...

class product(_product):
    """The product of schedules and numbers.

    PyTorch's ``ChainedScheduler``, if one factor starts at the learning rate and the others at 1, as in
    ``step_schedule(rate, 30) * exponential_decay(1.0, 1, 0.99)``. ``CosineAnnealingLR`` in such a chain differs: it
    subtracts ``eta_min`` from the rate of the whole chain, and resets the other factors at its minimum.

    Errors: ``ValueError`` unless every factor is a schedule, a function of the step or a number.

    Args:
        factors: schedules or numbers
    """
    def __init__(self, factors: Any) -> None: ...

class qk_clip(_qk_clip):
    """Shrink the query and key projections of heads with large logits. Kimi Team 2025, arXiv:2507.20534, Algorithm 1.

    ``update`` and ``step`` require ``max_logits``: the largest attention logit of each head in the batch, or of all. It
    is an array, or a tree of arrays whose paths begin those of the parameters, ``{"layer_0/attention": logits}``;
    ``None`` clips nothing, and neither do logits that are not finite: `skip_nonfinite` rejects such steps. Place the
    link after `scale_by_lr`.

    ``powers`` has the power of s by path: 1/2 for queries and keys, and 1 for the rotary part of queries if all heads
    share that of the keys. Other parameters are unchanged. ``matrices`` says which axis of a projection numbers the
    heads, after that of the layers if these are in one array; the logits have these axes. If several query heads, one
    after the other, share a key, it has the smallest s of them.

    Errors: ``KeyError`` for a projection without logits, ``TypeError`` if their shape is not that of the heads.

    Equation: s = τ / max(τ, largest logit),  u ← s^p·(θ + u) − θ for each head

    Args:
        powers: by_path({pattern: power of s})
        max_logit: the largest logit that is not reduced (τ), in (0, ∞). Default: 100
        matrices: the axes of each projection. Default: matrices('in, _head size')
    """
    def __init__(self, powers: Any, max_logit: HyperLike = 100, matrices: Any = ...) -> None: ...

class quotient(_quotient):
    """One schedule or number divided by another.

    Args:
        dividend: a schedule or a number
        divisor: a schedule or a number, not 0
    """
    def __init__(self, dividend: Any, divisor: Any) -> None: ...

class randint(_randint):
    """Whole numbers from ``low`` to ``high`` − 1, each as likely as another, as ``jax.random.randint``. For `sample`.

    Args:
        low: the least number
        high: one above the largest
    """
    def __init__(self, low: int, high: int) -> None: ...

class reduce_on_plateau(_reduce_on_plateau):
    """Reduce the scale when a value has stopped improving, as PyTorch's ReduceLROnPlateau does.

    ``update`` and ``step`` require ``value``. The link averages ``accumulation_size`` values,
    such as those of an epoch, and acts on the mean at once: the last step of an epoch already has the new scale.
    The state holds it as ``scale``. PyTorch's ``eps`` is 0 here. Optax's ``patience`` is larger by 1. The margin is a
    fraction of the best value's magnitude. PyTorch and Optax compare with best·(1 ∓ τ): there a constant negative
    value improves on itself, and the scale is never reduced. A value that is not finite is never an improvement.

    Args:
        reduction_factor: factor of the scale (γ), in [0, 1). Default: 0.1
        patience: values without improvement that are tolerated (P), in [0, ∞). Default: 10
        threshold: required improvement over the best value (τ), in [0, ∞). Default: 0.0001
        cooldown: values after a reduction that do not count (C), in [0, ∞). Default: 0
        min_scale: the smallest scale (s_min), in [0, ∞). Default: 0
        accumulation_size: updates whose values are averaged (n), in [1, ∞). Default: 1
        mode: whether smaller or larger values are better, one of 'min', 'max'. Default: 'min'
        threshold_mode: whether τ is relative or absolute, one of 'rel', 'abs'. Default: 'rel'
    """
    def __init__(self, reduction_factor: HyperLike = 0.1, patience: HyperLike = 10, threshold: HyperLike = 0.0001, cooldown: HyperLike = 0, min_scale: HyperLike = 0, accumulation_size: HyperLike = 1, mode: str = 'min', threshold_mode: str = 'rel') -> None: ...

class restart(_restart):
    """Initialize a chain's state again after every k-th step: its slots and its step count.

    This happens at the start of the next step, so links that keep a copy of the parameters copy their values then.

    Equation: tx starts over if (t−1) mod k = 0,  u ← tx(u)

    Args:
        tx: the chain
        every: steps from one start to the next (k), in [1, ∞)
    """
    def __init__(self, tx: Any, every: HyperLike) -> None: ...

class rex_schedule(_rex_schedule):
    """Almost constant at first, steep at the end. Chen et al. 2021, arXiv:2107.04197.

    end + (init − end)·z / (½ + ½z), where z is the remaining fraction. ``end_value`` is not in the paper.

    Args:
        init_value: value at step 0
        decay_steps: length of the decay, in steps, in [0, ∞)
        end_value: the last value. Default: 0
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, decay_steps: float | jax.Array | np.ndarray, end_value: float | jax.Array | np.ndarray = 0) -> None: ...

class scale(_scale):
    """Multiply the update by a number.

    Equation: u ← γu

    Args:
        step_size: the factor (γ)
    """
    def __init__(self, step_size: HyperLike) -> None: ...

class scale_by_acprop(_scale_by_acprop):
    """Divide each gradient by the deviation of the previous ones. Zhuang et al. 2021, arXiv:2110.05454, Algorithm 2.

    This makes numerator and denominator independent. As in the published code, the bias is corrected and
    the first update is the gradient itself. Optax uses the previous m, so its s is
    1/β₁² times as large.

    Equation: u₊ = u / (√ŝ + ε), or u where s = 0,  m ← β₁m + (1−β₁)u,  s ← β₂s + (1−β₂)(u−m)² + ε̄,  u ← u₊,  ε̄ = ε if not given

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean squared deviation (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-16
        eps_root: added to the mean square at every step; None for ε (ε̄), in [0, ∞) or None. Default: None
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-16, *, eps_root: HyperLike | None = None) -> None: ...

class scale_by_adadelta(_scale_by_adadelta):
    """Scale by the RMS of past steps divided by that of gradients. Zeiler 2012, arXiv:1212.5701, Algorithm 1.

    Equation: s ← ρs + (1−ρ)u²,  Δ = √(a+ε)/√(s+ε)·u,  a ← ρa + (1−ρ)Δ²,  u ← Δ

    Args:
        rho: decay of both mean squares (ρ), in [0, 1). Default: 0.9
        eps: floor of both roots, inside them (ε), in [0, ∞). Default: 1e-06
    """
    def __init__(self, rho: HyperLike = 0.9, eps: HyperLike = 1e-06) -> None: ...

class scale_by_adago(_scale_by_adago):
    """Muon with AdaGrad's step size for each matrix. Zhang et al. 2025, arXiv:2509.02981, Algorithm 1.

    The paper bounds the learning rate times the factor from below, so its lower bound is the learning rate times
    ``floor`` here.

    Args:
        momentum: decay of the momentum (β), in [0, 1). Default: 0.95
        gamma: bound on the norm of a gradient (γ), in [0, ∞). Default: 10
        floor: lower bound on the factor (c), in [0, ∞). Default: 0.01
        initial_accumulator_value: sum of squares at the start (v₀), in (0, ∞). Default: 1e-12
        eps: added to the norm (ε), in [0, ∞). Default: 1e-07
        iteration: the polynomials that orthogonalize. Default: newton_schulz()
        sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'none'
        dtype: the dtype of the iterations, one of None, 'float32', 'bfloat16', 'float16'. Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, momentum: HyperLike = 0.95, gamma: HyperLike = 10, floor: HyperLike = 0.01, initial_accumulator_value: HyperLike = 1e-12, eps: HyperLike = 1e-07, iteration: Any = ..., sizing: str = 'none', dtype: str | None = None, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_adagrad(_scale_by_adagrad):
    """Divide by the root of the sum of all squares. Duchi, Hazan & Singer 2011, JMLR 12, diagonal version.

    Equation: s ← s + u² from s₀,  u ← u / (√(s+ε̄) + ε)

    Args:
        initial_accumulator_value: initial sum (s₀), in [0, ∞). Default: 0
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-10
        eps_root: added to the sum, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, initial_accumulator_value: HyperLike = 0, eps: HyperLike = 1e-10, eps_root: HyperLike = 0) -> None: ...

class scale_by_adam(_scale_by_adam):
    """Scale each coordinate to unit size. Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1.

    Equation: m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  u ← m̂ / (√(v̂+ε̄) + ε)

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, *, eps_root: HyperLike = 0) -> None: ...

class scale_by_adam_mini(_scale_by_adam_mini):
    """Adam with one mean square for each block of a leaf. Zhang et al. 2025, arXiv:2406.16793, Algorithm 1.

    ``block_axes`` are the axes that index the blocks: (1,) gives a block for each output neuron of a kernel [in, out],
    or for each head of [model, head, key]; (0,) a block for each word of an embedding [word, model]. Leaves
    without such an axis are one block, which is the default for all.

    Equation: m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)·mean(u² in the block),  u ← m̂ / (√(v̂+ε̄) + ε)

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        block_axes: axes of a leaf that index its blocks. Default: ()
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, block_axes: Any = (), *, eps_root: HyperLike = 0) -> None: ...

class scale_by_adamax(_scale_by_adamax):
    """Adam with a decaying maximum in place of the root mean square. Kingma & Ba 2015, arXiv:1412.6980, Algorithm 2.

    Departs from the paper as PyTorch does: ε is added to each magnitude.

    Equation: m ← β₁m + (1−β₁)u,  v ← max(β₂v, |u| + ε),  u ← m̂ / v

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the maximum (β₂), in [0, 1). Default: 0.999
        eps: floor of the maximum (ε), in [0, ∞). Default: 1e-08
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08) -> None: ...

class scale_by_adamuon(_scale_by_adamuon):
    """Adam's division by the root mean square, of Muon's orthogonalized momentum. Si et al. 2025, arXiv:2507.11005.

    Algorithm 1 of the first version, with learning rates of AdamW's size. The second version orthogonalizes the
    momentum's sign: ``chain(ema(0.95, ...), scale_by_sign(), scale_by_adamuon(momentum=0.0))``.

    Args:
        momentum: decay of the momentum (β), in [0, 1). Default: 0.95
        eps: added to the norm (ε), in [0, ∞). Default: 1e-07
        nesterov: look ahead by one step. Default: False
        debias: correct the bias of the momentum. Default: False
        iteration: the polynomials that orthogonalize. Default: newton_schulz()
        sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'rms'
        dtype: the dtype of the iterations, one of None, 'float32', 'bfloat16', 'float16'. Default: None
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.95
        eps_rms: added to the root mean square, and to the norm (ε₂), in [0, ∞). Default: 1e-10
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, momentum: HyperLike = 0.95, eps: HyperLike = 1e-07, nesterov: bool = False, debias: bool = False, iteration: Any = ..., sizing: str = 'rms', dtype: str | None = None, b2: HyperLike = 0.95, eps_rms: HyperLike = 1e-10, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_adan(_scale_by_adan):
    """Nesterov momentum from an average of gradient changes. Xie et al. 2022, arXiv:2208.06677, Algorithm 1.

    The paper writes 1 − β for β. The bias is corrected as in the published code. Optax 0.2 weighs the change
    with 1−β₂, where the paper and the code have β₂.

    Equation: Δ = u − u₋, Δ₁ = 0,  m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)Δ,  n ← β₃n + (1−β₃)(u + β₂Δ)²,  u₋ ← u,  u ← (m̂ + β₂v̂) / (√(n̂+ε̄) + ε)

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.98
        b2: decay of the mean change, and its weight (β₂), in [0, 1). Default: 0.92
        b3: decay of the mean square (β₃), in [0, 1). Default: 0.99
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.98, b2: HyperLike = 0.92, b3: HyperLike = 0.99, eps: HyperLike = 1e-08, eps_root: HyperLike = 0) -> None: ...

class scale_by_ademamix(_scale_by_ademamix):
    """Adam with a second, much slower mean. Pagliardini et al. 2024, arXiv:2409.03137, Algorithm 1.

    The slow mean has no bias correction. The paper warms up α and β₃: see `ademamix`.

    Equation: m ← β₁m + (1−β₁)u,  l ← β₃l + (1−β₃)u,  v ← β₂v + (1−β₂)u²,  u ← (m̂ + αl) / (√(v̂+ε̄) + ε)

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        b3: decay of the slow mean (β₃), in [0, 1). Default: 0.9999
        alpha: weight of the slow mean (α), in [0, ∞). Default: 5
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, b3: HyperLike = 0.9999, alpha: HyperLike = 5, *, eps_root: HyperLike = 0) -> None: ...

class scale_by_adopt(_scale_by_adopt):
    """Average gradients scaled by the previous mean square. Taniguchi et al. 2024, arXiv:2411.02853.

    Clipped ADOPT, which converges for any β₂. The first gradient only initializes v, so the first update is 0.
    ``clip_value_fn`` sets the bound to a number or a schedule. Without it, ``power=None``
    disables clipping.

    Equation: m ← β₁m + (1−β₁)·clip(u / max(√v, ε), ±c),  v ← β₂v + (1−β₂)u², v₁ = u₁²,  u ← m, 0 at t=1,  c = (t−1)^p if not given

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.9999
        eps: floor of the root (ε), in [0, ∞). Default: 1e-06
        power: how fast the bound on a scaled gradient grows (p), in [0, ∞) or None. Default: 0.25
        clip_value_fn: bound on a scaled gradient (c), in [0, ∞) or None. Default: None
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.9999, eps: HyperLike = 1e-06, power: HyperLike | None = 0.25, clip_value_fn: HyperLike | None = None) -> None: ...

class scale_by_amsgrad(_scale_by_amsgrad):
    """Adam with a mean square that never falls. Reddi et al. 2018, arXiv:1904.09237, Algorithm 2.

    The bias is corrected "after" the maximum as in PyTorch, "before" it as in Optax, or "never"
    as in the paper.

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        debias: when the bias is corrected, one of 'after', 'before', 'never'. Default: 'after'
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, debias: str = 'after', *, eps_root: HyperLike = 0) -> None: ...

class scale_by_apollo(_scale_by_apollo):
    """Scale columns as Adam does in a random projection. Zhu et al. 2024, arXiv:2412.05270, Algorithm 1.

    P is r × m with variance 1/r, and is drawn anew every ``update_proj_gap`` steps, from the first on. With
    ``scale_type="tensor"`` a matrix has one factor; with ``rank=1`` that is APOLLO-Mini. The norm of the scaled
    gradient may grow by ``norm_growth`` a step, unless it was 0. The published code multiplies by the root of its
    ``scale``.

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-06
        rank: the number of random directions, at most the shorter side, a whole number from 1. Default: 256
        update_proj_gap: steps between two projections (k), in [1, ∞). Default: 200
        scale: factor of the update (α), in [0, ∞). Default: 1
        norm_growth: the largest growth of the norm in a step; ∞ for any (γ), in [1, ∞). Default: 1.01
        scale_type: what has a factor of its own, one of 'channel', 'tensor'. Default: 'channel'
        seed: seed of the projections. Default: 0
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-06, rank: int = 256, update_proj_gap: HyperLike = 200, scale: HyperLike = 1, norm_growth: HyperLike = 1.01, scale_type: str = 'channel', seed: Any = 0, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_asgo(_scale_by_asgo):
    """Divide the mean gradient by the root of the mean uuᵀ. An et al. 2025, arXiv:2503.20762, the practical variant.

    The rows, which are the inputs, have the statistics; with ``sides`` "columns" the outputs have them, with "shorter"
    the shorter side. A side of length 1 has none, and then the update is the mean. No bias is corrected, so the first
    root is 1/√(1−β₂) times too large, and is kept for k steps: warm the learning rate up. After gradients of 0 it is
    that of the mean eigenvalue, until a root is due. The state of an m × n matrix is one slot of its shape, 2m²
    numbers, and ``failures``: of roots that were not finite, in place of which the old one is kept.

    Equation: m ← β₁m + (1−β₁)u,  V ← β₂V + (1−β₂)uuᵀ,  u ← Pm,  P = (V^½ + εI)⁻¹ every k steps

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the statistics (β₂), in [0, 1). Default: 0.999
        eps: added to the root (ε), in [0, ∞). Default: 1e-08
        update_every: steps between two computations of the root (k), in [1, ∞). Default: 10
        sides: the side that has statistics, one of 'rows', 'columns', 'shorter'. Default: 'rows'
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, update_every: HyperLike = 10, sides: str = 'rows', *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_backtracking_linesearch(_scale_by_backtracking_linesearch):
    """Shorten the update until the function decreases enough. Armijo 1966; Nocedal & Wright 2006, Algorithm 3.1.

    ``update`` and ``step`` require ``value``, ``grad`` and ``value_fn``. The next search starts at
    τ times the last length. With ``store_grad`` the search also computes the gradient at the point
    it returns, for `value_and_grad_from_state`.

    Equation: α ← min(τα, α_max),  α ← ρα until f(θ+αu) ≤ f + cα·uᵀ∇f, for n lengths at most,  u ← αu

    Args:
        max_backtracking_steps: maximum number of evaluations (n), in [1, ∞). Default: 30
        slope_rtol: required fraction of the decrease that the slope predicts (c), in [0, 1). Default: 0.0001
        decrease_factor: factor of a length that is too long (ρ), in [0, 1). Default: 0.8
        increase_factor: factor from the last length to the first one tried (τ), in [1, ∞). Default: 1.5
        max_learning_rate: the largest length (α_max), in [0, ∞). Default: 1
        store_grad: whether the state holds value and gradient. Default: False
    """
    def __init__(self, max_backtracking_steps: HyperLike = 30, slope_rtol: HyperLike = 0.0001, decrease_factor: HyperLike = 0.8, increase_factor: HyperLike = 1.5, max_learning_rate: HyperLike = 1, store_grad: bool = False) -> None: ...

class scale_by_belief(_scale_by_belief):
    """Adam divided by the deviation of gradients from their mean. Zhuang et al. 2020, arXiv:2010.07468, Algorithm 2.

    Gradients close to their mean make large steps.

    Equation: m ← β₁m + (1−β₁)u,  s ← β₂s + (1−β₂)(u−m)² + ε̄,  u ← m̂ / (√ŝ + ε),  ε̄ = ε if not given

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean squared deviation (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-16
        eps_root: added to the mean square at every step; None for ε (ε̄), in [0, ∞) or None. Default: None
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-16, *, eps_root: HyperLike | None = None) -> None: ...

class scale_by_came(_scale_by_came):
    """Divide by factored second moments and by a factored instability. Luo et al. 2023, arXiv:2307.02047, Algorithm 2.

    The means of squares are kept by row (r) and by column (c); rcᵀ/mean(r) stands for those of the entries. Clipped to
    an RMS of ``clipping_threshold``, the divided update is averaged, and the average is divided by the root of its
    mean squared distance to the update, factored likewise. As in the published code, the update of a vector is the
    average itself, and no bias is corrected.

    Equation: r, c ← β₂-averages of row and column means of u² + ε₁,  u ← u / √(rcᵀ/mean(r)),  u ← u·min(1, d/RMS(u)),  m ← β₁m + (1−β₁)u,  r′, c′ ← β₃-averages of row and column means of (u−m)² + ε₂,  u ← m / √(r′c′ᵀ/mean(r′))

    Args:
        b1: decay of the mean update (β₁), in (0, 1). Default: 0.9
        b2: decay of the mean squares (β₂), in [0, 1). Default: 0.999
        b3: decay of the instability (β₃), in [0, 1). Default: 0.9999
        eps: added to the squares (ε₁), in [0, ∞). Default: 1e-30
        eps_instability: added to the instability (ε₂), in [0, ∞). Default: 1e-16
        clipping_threshold: the largest root mean square; ∞ for no bound (d), in (0, ∞). Default: 1
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, b3: HyperLike = 0.9999, eps: HyperLike = 1e-30, eps_instability: HyperLike = 1e-16, clipping_threshold: HyperLike = 1, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_cocob(_scale_by_cocob):
    """Bet on each coordinate. Orabona & Tommasi 2017, arXiv:1705.07795, Algorithm 2.

    Moves each coordinate to the point determined by the bet, even if other links have moved it. The paper does not
    define the step before the first nonzero gradient; with L = ε it is 0.

    Equation: L ← max(L, |u|) from ε,  G ← G + |u|,  R ← max(R − u(θ − θ₀), 0),  S ← S − u,  u ← θ − θ₀ − S(L + R)/(L·max(G + L, αL))

    Args:
        alpha: how much smaller the first bets are (α), in [0, ∞). Default: 100
        eps: lower bound on the gradient scale (ε), in [0, ∞). Default: 1e-08
    """
    def __init__(self, alpha: HyperLike = 100, eps: HyperLike = 1e-08) -> None: ...

class scale_by_conda(_scale_by_conda):
    """Adam in the singular directions of its mean. Wang et al. 2025, arXiv:2509.24218, Algorithm 1.

    P has the left singular vectors of the mean, renewed every ``update_proj_gap`` steps, from the first on. The mean
    square is not rotated with them. ``failures`` counts singular vectors that were not finite; the old ones are then
    kept. Derivatives treat P as constant. In a sweep it is computed at every step, since the state says whether a
    matrix, before its first gradient, has none.

    Equation: m ← β₁m + (1−β₁)u,  P ← left singular vectors of m every k steps,  v ← β₂v + (1−β₂)(Pᵀu)²,  u ← P(Pᵀm / (√v + ε))·√(1−β₂ᵗ)/(1−β₁ᵗ)

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        update_proj_gap: steps between two projections (k), in [1, ∞). Default: 2000
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, update_proj_gap: HyperLike = 2000, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_dadapt_adam(_scale_by_dadapt_adam):
    """Adam with an estimated rate. Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 5.

    The published code and Optax compute the product with s in the metric of the previous step, with the previous
    v; the paper in that of the current step. With ``debias`` the rate has Adam's bias correction, as in Optax.

    Args:
        learning_rate: multiple of the estimate (γ), in [0, ∞). Default: 1
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        estim_lr0: the first estimate (d₀), in [0, ∞). Default: 1e-06
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0
        debias: whether bias is corrected. Default: False
    """
    def __init__(self, learning_rate: HyperLike = 1, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, estim_lr0: HyperLike = 1e-06, weight_decay: HyperLike = 0, debias: bool = False) -> None: ...

class scale_by_dadapt_sgd(_scale_by_dadapt_sgd):
    """Dual averaging with an estimated rate, and momentum. Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 4.

    ‖g‖ is the norm of the first nonzero gradient.

    Equation: ρ = γd/‖g‖,  r ← r + ρuᵀs,  s ← s + ρu,  d ← max(d, 2r/‖s‖) from d₀,  u ← (1−β)(θ − θ₀ + s)

    Args:
        learning_rate: multiple of the estimate (γ), in [0, ∞). Default: 1
        momentum: weight of θ in the next θ (β), in [0, 1). Default: 0.9
        estim_lr0: the first estimate (d₀), in [0, ∞). Default: 1e-06
    """
    def __init__(self, learning_rate: HyperLike = 1, momentum: HyperLike = 0.9, estim_lr0: HyperLike = 1e-06) -> None: ...

class scale_by_debiased_rms(_scale_by_debiased_rms):
    """Divide by the bias-corrected root mean square: Adam without a mean.

    As in Optax, the correction is the same for any initial value.

    Equation: s ← ρs + (1−ρ)u² from s₀,  u ← u / (√(ŝ+ε̄) + ε)

    Args:
        decay: decay of the mean square (ρ), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        initial_scale: initial mean square (s₀), in [0, ∞). Default: 0
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, decay: HyperLike = 0.999, eps: HyperLike = 1e-08, initial_scale: HyperLike = 0, eps_root: HyperLike = 0) -> None: ...

class scale_by_debiased_stddev(_scale_by_debiased_stddev):
    """Divide by the standard deviation from bias-corrected moments, as in Optax.

    The deviation of a single gradient is 0, so the first step is u / (√ε̄ + ε).

    Equation: s ← ρs + (1−ρ)u² from s₀,  a ← ρa + (1−ρ)u,  u ← u / (√(ŝ−â²+ε̄) + ε)

    Args:
        decay: decay of the mean and the mean square (ρ), in [0, 1). Default: 0.99
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        initial_scale: initial mean square (s₀), in [0, ∞). Default: 0
        eps_root: added to the variance, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, decay: HyperLike = 0.99, eps: HyperLike = 1e-08, initial_scale: HyperLike = 0, eps_root: HyperLike = 0) -> None: ...

class scale_by_dion(_scale_by_dion):
    """Orthogonalize the largest part of the momentum, of low rank, and keep the rest.

    Ahn et al. 2025, arXiv:2504.05295, Algorithm 1, with r columns for an m × n matrix, m inputs and n outputs:
    ``rank_fraction`` of the smaller side, rounded up, but no more than ``rank``. The columns of Q are those of the last
    step, and random at first. A column of R that is 0, up to rounding, moves nothing and keeps its column of Q, where
    the paper divides by 0. Derivatives take P as constant.

    Args:
        momentum: what stays of the part that the update has (μ), in [0, 1). Default: 0.95
        rank_fraction: the rank, as a fraction of the smaller side. Default: 1
        rank: the largest rank. Default: None
        sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'mup'
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, momentum: HyperLike = 0.95, rank_fraction: float = 1, rank: int | None = None, sizing: str = 'mup', *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_dog(_scale_by_dog):
    """Scale by the distance from the start over the root sum of squares. Ivgi et al. 2023, arXiv:2302.12022, (DoG).

    The paper suggests r_ε relative to 1 + ‖θ₀‖: 1e-6, or 1e-4 with batch normalization.

    Args:
        r_eps: initial distance (r_ε), in [0, ∞). Default: 1e-06
        relative: multiply the initial distance by 1 + ‖θ₀‖. Default: True
        eps: floor of the denominator, inside the root (ε), in [0, ∞). Default: 1e-08
    """
    def __init__(self, r_eps: HyperLike = 1e-06, relative: bool = True, eps: HyperLike = 1e-08) -> None: ...

class scale_by_dowg(_scale_by_dowg):
    """`scale_by_dog` with each square weighted by the distance at its step. Khaled et al. 2023, arXiv:2305.16284.

    Algorithm 2. The published code adds ε = 1e-4, which the paper does not have.

    Args:
        r_eps: initial distance (r_ε), in [0, ∞). Default: 0.01
        relative: multiply the initial distance by 1 + ‖θ₀‖. Default: False
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 0
    """
    def __init__(self, r_eps: HyperLike = 0.01, relative: bool = False, eps: HyperLike = 0) -> None: ...

class scale_by_factored_rms(_scale_by_factored_rms):
    """Divide by a root mean square that is stored as row and column means.

    Shazeer & Stern 2018, arXiv:1804.04235, Algorithms 4 and 5, with the β₂ of section 7.2. The
    factored axes of a leaf are the two largest, as in Optax, or the last two, as in PyTorch; the
    paper has matrices only. Vectors, and leaves whose smaller factored axis has fewer than
    ``min_dim_size_to_factor`` entries, have a full mean square. ``b2`` sets the decay itself, such as a schedule that
    stays below 1. ``step_offset`` restarts its rise, for fine-tuning with the state of an earlier run.

    Equation: R ← βR + (1−β)(row means of u² + ε),  C ← βC + (1−β)(column means of u² + ε),  u ← u / √(RCᵀ/mean(R)),  β = 1 − max(t−t₀, 1)^(−c) if not given

    Args:
        decay_rate: how fast the decay of the means approaches 1 (c), in [0, ∞). Default: 0.8
        eps: added to the squares (ε), in [0, ∞). Default: 1e-30
        min_dim_size_to_factor: smallest size of an axis that is factored, a whole number from 1. Default: 128
        factored: which axes are factored, one of 'largest', 'last'. Default: 'largest'
        step_offset: steps that the decay does not count (t₀), in [0, ∞). Default: 0
        b2: decay of the means (β), in [0, 1) or None. Default: None
    """
    def __init__(self, decay_rate: HyperLike = 0.8, eps: HyperLike = 1e-30, min_dim_size_to_factor: int = 128, factored: str = 'largest', step_offset: HyperLike = 0, b2: HyperLike | None = None) -> None: ...

class scale_by_fira(_scale_by_fira):
    """Adam in leading singular directions, and the rest scaled alike. Chen et al. 2024, arXiv:2410.01623, Algorithm 1.

    P has the first r left singular vectors of the gradient, renewed every ``update_proj_gap`` steps, from the first
    on. Column j of what the projection leaves out is scaled as Adam scales column j of what it keeps. Its norm may
    grow by ``norm_growth`` a step, unless it was 0. ``failures`` counts singular vectors that were not finite;
    the old ones are then kept. Derivatives treat P as constant. In a sweep it is computed at every step, since the
    state says whether a matrix, before its first gradient, has none.

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-06
        rank: the number of directions, at most the shorter side, a whole number from 1. Default: 128
        update_proj_gap: steps between two projections (k), in [1, ∞). Default: 200
        norm_growth: the largest growth of the norm in a step; ∞ for any (γ), in [1, ∞). Default: 1.01
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-06, rank: int = 128, update_proj_gap: HyperLike = 200, norm_growth: HyperLike = 1.01, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_galore(_scale_by_galore):
    """Apply a chain to the gradients' leading singular directions. Zhao et al. 2024, arXiv:2403.03507, Algorithm 2.

    Matrices are projected, on the shorter side as in the paper or on the longer as in Optax; all other
    leaves pass through the chain unprojected. The state of an m × n matrix is that of the chain for r × n, plus
    the m × r projector. As in the paper, the chain's state is not rotated when the projector changes.
    Derivatives treat the projector as constant. In a sweep it is computed at every step, since the state says whether
    a matrix, before its first gradient, has none. The chain must not read the parameters: put weight decay after this
    link.

    Args:
        tx: the chain for the projected gradients
        rank: the number of directions, at most the shorter side, a whole number from 1. Default: 128
        update_proj_gap: steps between two projectors (k), in [1, ∞). Default: 200
        scale: factor of the update (α), in [0, ∞). Default: 0.25
        side: the projected side, one of 'shorter', 'longer'. Default: 'shorter'
    """
    def __init__(self, tx: Any, rank: int = 128, update_proj_gap: HyperLike = 200, scale: HyperLike = 0.25, side: str = 'shorter') -> None: ...

class scale_by_kl_shampoo(_scale_by_kl_shampoo):
    """Divide the mean gradient by the roots of such statistics on both sides. Lin et al. 2025, arXiv:2509.03378.

    The statistics start as c times the identity, which counts as one gradient, so that the first step can already move
    the parameters; in HeavyBall it does not. The first updates are therefore proportional to the gradient, (1−β₁)u/c:
    clip the gradients before, or warm the learning rate up. The state is that of `scale_by_soap` without the mean
    square.

    Equation: m ← β₁m + (1−β₁)u,  u ← Qᴸ(QᴸᵀmQᴿ / √(λᴸλᴿᵀ))Qᴿᵀ,  λ = max(diag(QᵀLQ), ε), max(diag(QᵀRQ), ε),  L ← β₃L + (1−β₃)·uQᴿdiag(1/λᴿ)Qᴿᵀuᵀ/n,  R ← β₃R + (1−β₃)·uᵀQᴸdiag(1/λᴸ)Qᴸᵀu/m,  from cI,  Q ← the orthogonal factors of LQ and RQ every k steps

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        shampoo_beta: decay of the statistics (β₃), in [0, 1). Default: 0.95
        eps: floor of the eigenvalues (ε), in [0, ∞). Default: 1e-08
        init_scale: the eigenvalues of the first statistics (c), in [0, ∞). Default: 0.1
        update_every: steps between two changes of the bases (k), in [1, ∞). Default: 10
        sides: the sides that have statistics, one of 'both', 'shorter', 'rows', 'columns'. Default: 'both'
        max_precond_dim: the longest side that has statistics, a whole number from 0. Default: 10000
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, b1: HyperLike = 0.9, shampoo_beta: HyperLike = 0.95, eps: HyperLike = 1e-08, init_scale: HyperLike = 0.1, update_every: HyperLike = 10, sides: str = 'both', max_precond_dim: int = 10000, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_kl_soap(_scale_by_kl_soap):
    """SOAP with statistics of the gradient whitened by the other side's. Lin et al. 2025, arXiv:2509.03378.

    The averages are without bias: the first statistics are uuᵀ/n and uᵀu/m. ε is also the floor of the eigenvalues.

    Equation: m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)(QᴸᵀuQᴿ)²,  L ← β₃L + (1−β₃)·uQᴿdiag(1/max(λᴿ, ε))Qᴿᵀuᵀ/n,  R ← β₃R + (1−β₃)·uᵀQᴸdiag(1/max(λᴸ, ε))Qᴸᵀu/m,  λ = diag(QᵀLQ), diag(QᵀRQ),  u ← c·Qᴸ(QᴸᵀmQᴿ / (√v + ε))Qᴿᵀ,  c = √(1−β₂ᵗ⁻¹) / (1−β₁ᵗ⁻¹),  Q ← the orthogonal factors of LQ and RQ every k steps

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.95
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.95
        shampoo_beta: decay of the statistics (β₃), in [0, 1). Default: 0.95
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        update_every: steps between two changes of the bases (k), in [1, ∞). Default: 10
        sides: the sides that have statistics, one of 'both', 'shorter', 'rows', 'columns'. Default: 'both'
        max_precond_dim: the longest side that has statistics, a whole number from 0. Default: 10000
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, b1: HyperLike = 0.95, b2: HyperLike = 0.95, shampoo_beta: HyperLike = 0.95, eps: HyperLike = 1e-08, update_every: HyperLike = 10, sides: str = 'both', max_precond_dim: int = 10000, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_laprop(_scale_by_laprop):
    """Average scaled gradients, whereas Adam scales the average. Ziyin et al. 2020, arXiv:2002.04839, Algorithm 1.

    The two decays can then be chosen independently: no step exceeds 1/√(1−β₂).

    Equation: v ← β₂v + (1−β₂)u²,  m ← β₁m + (1−β₁)u / (√(v̂+ε̄) + ε),  u ← m̂

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, *, eps_root: HyperLike = 0) -> None: ...

class scale_by_lars(_scale_by_lars):
    """Add weight decay and scale both by one rate for each leaf. You et al. 2017, arXiv:1708.03888, Algorithm 1.

    The rate is 1 if ‖θ‖ or the denominator is 0, as in the published code. Optax divides by the
    norm of the sum, ‖u + λθ‖: for that use `add_decayed_weights` and `scale_by_trust_ratio`.

    Equation: u ← (u + λθ)·η‖θ‖ / (‖u‖ + λ‖θ‖ + ε), or u + λθ if ‖θ‖ or the divisor is 0

    Args:
        trust_coefficient: norm of a step, as a multiple of the parameter's norm (η), in [0, ∞). Default: 0.001
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0
        eps: added to the denominator (ε), in [0, ∞). Default: 0
    """
    def __init__(self, trust_coefficient: HyperLike = 0.001, weight_decay: HyperLike = 0, eps: HyperLike = 0) -> None: ...

class scale_by_lbfgs(_scale_by_lbfgs):
    """Multiply by an inverse Hessian estimated from the last m steps. Nocedal & Wright 2006, Algorithm 7.4.

    Pairs with nonpositive sᵀy, or with an infinite yᵀy, are discarded, so that H stays positive definite even without
    a line search. Before the first pair H₀ is I/max(1, ‖u‖), which the book leaves open. A gradient of
    ``None`` counts as 0. The state holds 2m + 2 arrays of each parameter's shape.

    Args:
        memory_size: the number of pairs in the state, a whole number from 1 to 10000. Default: 10
        scale_init_precond: start the recursion at the newest pair's scale instead of I. Default: True
    """
    def __init__(self, memory_size: int = 10, scale_init_precond: bool = True) -> None: ...

class scale_by_ldog(_scale_by_ldog):
    """`scale_by_dog` leaf by leaf. Ivgi et al. 2023, arXiv:2302.12022, (L-DoG).

    Args:
        r_eps: initial distance (r_ε), in [0, ∞). Default: 1e-06
        relative: multiply the initial distance by 1 + ‖θ₀‖. Default: True
        eps: floor of the denominator, inside the root (ε), in [0, ∞). Default: 1e-08
    """
    def __init__(self, r_eps: HyperLike = 1e-06, relative: bool = True, eps: HyperLike = 1e-08) -> None: ...

class scale_by_lion(_scale_by_lion):
    """The sign of a mean in which the newest update weighs more than in the stored mean.

    Chen et al. 2023, arXiv:2302.06675, Algorithm 2.

    Equation: c = β₁m + (1−β₁)u,  m ← β₂m + (1−β₂)u,  u ← sign(c)

    Args:
        b1: weight of the mean in the sign (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean (β₂), in [0, 1). Default: 0.99
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.99) -> None: ...

class scale_by_lmo(_scale_by_lmo):
    """The linear minimization oracle of a norm, with its sign flipped. Pethick et al. 2025, arXiv:2502.07529, Table 2.

    For an m × n matrix, with m inputs and n outputs, ``norm`` is "spectral" for hidden layers; "rows" for embeddings,
    and for biases with ``matrices=", out"``; "columns" or "sign" for the last layer. The paper's matrices are
    transposed, so its ColNorm is "rows" and its RowNorm "columns". Embeddings with the sign alone, without 1/m, are
    left to `scale_by_sign`. For convolutions of k × k taps, the paper has the "spectral" one divided by k once more.

    It keeps no momentum: put it after ``ema(0.9)``.

    Args:
        norm: the norm of the ball, one of 'spectral', 'rows', 'columns', 'sign'. Default: 'spectral'
        radius: radius of the ball (ρ), in [0, ∞). Default: 1
        eps: added to the denominator (ε), in [0, ∞). Default: 1e-08
        iteration: the polynomials that orthogonalize. Default: newton_schulz()
        dtype: the dtype of the iterations, one of None, 'float32', 'bfloat16', 'float16'. Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, norm: str = 'spectral', radius: HyperLike = 1, eps: HyperLike = 1e-08, iteration: Any = ..., dtype: str | None = None, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_lr(_scale_by_lr):
    """Multiply by the negative learning rate. Usually the last link of a chain.

    Equation: u ← −αu

    Args:
        learning_rate: length of the step (α), in [0, ∞)
    """
    def __init__(self, learning_rate: HyperLike) -> None: ...

class scale_by_madgrad(_scale_by_madgrad):
    """Step from the initial parameters by a weighted sum of gradients.

    Defazio & Jelassi 2021, arXiv:2101.11075, Algorithm 1. The learning rate is a weight in the sums, so
    no `scale_by_lr` follows. ``momentum`` is the paper's 1 − c. The published code also adds ε to the
    rate.

    Equation: λ = γ√t,  s ← s + λu,  ν ← ν + λu²,  u ← (1−μ)(θ₀ − s / (∛ν + ε) − θ)

    Args:
        learning_rate: weight of a gradient, divided by √t (γ), in [0, ∞)
        momentum: fraction of a step that is held back (μ), in [0, 1). Default: 0.9
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-06
    """
    def __init__(self, learning_rate: HyperLike, momentum: HyperLike = 0.9, eps: HyperLike = 1e-06) -> None: ...

class scale_by_momo(_scale_by_momo):
    """Momentum with Polyak's step size, from the means of losses and slopes. Schaipp et al. 2023, arXiv:2305.07583.

    Algorithm 1. θ moves to the minimum of the mean of the linear models, truncated at f*, plus
    ‖θ′ − θ‖²/2α + λ‖θ′‖²/2. This requires dividing τd by 1+αλ, which Optax omits. With ``adapt_lower_bound``
    f* is estimated from the losses so far, and is at least ``lower_bound`` (MoMo*). α and λ are fields
    because they are part of the model: the `scale_by_lr` after this link has the rate 1. ``update`` and ``step``
    require ``value``, the loss at the parameters.

    Args:
        learning_rate: the longest step (α), in [0, ∞). Default: 1
        b1: decay of the means (β₁), in [0, 1). Default: 0.9
        lower_bound: the lowest loss, or a bound below it (f*). Default: 0
        weight_decay: weight of ½‖θ‖² (λ), in [0, ∞). Default: 0
        adapt_lower_bound: whether f* is estimated. Default: False
    """
    def __init__(self, learning_rate: HyperLike = 1, b1: HyperLike = 0.9, lower_bound: HyperLike = 0, weight_decay: HyperLike = 0, adapt_lower_bound: bool = False) -> None: ...

class scale_by_momo_adam(_scale_by_momo_adam):
    """Adam with Polyak's step size, as `scale_by_momo`. Schaipp et al. 2023, arXiv:2305.07583, Algorithm 2.

    Args:
        learning_rate: the longest step (α), in [0, ∞). Default: 0.01
        b1: decay of the means (β₁), in [0, 1). Default: 0.9
        lower_bound: the lowest loss, or a bound below it (f*). Default: 0
        weight_decay: weight of ½‖θ‖² (λ), in [0, ∞). Default: 0
        adapt_lower_bound: whether f* is estimated. Default: False
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the metric, outside the root (ε), in [0, ∞). Default: 1e-08
    """
    def __init__(self, learning_rate: HyperLike = 0.01, b1: HyperLike = 0.9, lower_bound: HyperLike = 0, weight_decay: HyperLike = 0, adapt_lower_bound: bool = False, b2: HyperLike = 0.999, eps: HyperLike = 1e-08) -> None: ...

class scale_by_muon(_scale_by_muon):
    """Orthogonalize the momentum of each matrix. Jordan et al. 2024, "Muon: An optimizer for hidden layers".

    The momentum is a moving average, as in PyTorch; with Nesterov's it is averaged with the update once more.
    ``debias`` corrects the bias of both as Optax does. For an m × n matrix, with m inputs and n outputs, ``sizing``
    is "spectral" √max(1, n/m) as in PyTorch, "rms" 0.2√max(m, n), with which learning rates are those of AdamW (Liu et
    al. 2025, arXiv:2502.16982), "mup" √(n/m) (Bernstein & Newhouse 2024, arXiv:2410.21265), or "none". ``dtype`` is
    that of the iterations: the paper's is "bfloat16". By default they have the update's, which accelerators multiply in
    bfloat16 or TF32 too unless `jax.default_matmul_precision` is higher. Complex matrices keep their own.

    Args:
        momentum: decay of the momentum (β), in [0, 1). Default: 0.95
        eps: added to the norm (ε), in [0, ∞). Default: 1e-07
        nesterov: look ahead by one step. Default: True
        debias: correct the bias of the momentum. Default: False
        iteration: the polynomials that orthogonalize. Default: newton_schulz()
        sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'spectral'
        dtype: the dtype of the iterations, one of None, 'float32', 'bfloat16', 'float16'. Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, momentum: HyperLike = 0.95, eps: HyperLike = 1e-07, nesterov: bool = True, debias: bool = False, iteration: Any = ..., sizing: str = 'spectral', dtype: str | None = None, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_nadam(_scale_by_nadam):
    """Adam with Nesterov momentum on a schedule. Dozat 2016, "Incorporating Nesterov momentum into Adam".

    μₜ = β₁(1 − ½·0.96^(tψ)), and Π is the product of all μ so far.

    Equation: m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  μₜ = β₁(1 − ½·0.96^(tψ)),  Π ← Πμₜ,  u ← ((1−μₜ)/(1−Π)·u + μₜ₊₁/(1−Πμₜ₊₁)·m) / (√(v̂+ε̄) + ε)

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        momentum_decay: how fast the momentum rises to its limit (ψ), in [0, ∞). Default: 0.004
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, momentum_decay: HyperLike = 0.004, *, eps_root: HyperLike = 0) -> None: ...

class scale_by_nesterov_adam(_scale_by_nesterov_adam):
    """Adam with its mean taken one step ahead. Dozat 2016, "Incorporating Nesterov momentum into Adam".

    Departs from the paper as Optax does: the momentum has no schedule. `scale_by_nadam` has one.

    Equation: m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  u ← (β₁m/(1−β₁ᵗ⁺¹) + (1−β₁)u/(1−β₁ᵗ)) / (√(v̂+ε̄) + ε)

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, *, eps_root: HyperLike = 0) -> None: ...

class scale_by_normuon(_scale_by_normuon):
    """Muon with updates of equal size for all outputs of a layer. Li et al. 2025, arXiv:2510.05491, Algorithm 1.

    The orthogonalized momentum is divided by a root mean square that is kept for each output, and then brought back to
    its norm, as in the published code. In the paper the update's norm is 0.2√(mn), which it nearly is with
    ``sizing="rms"``.

    Args:
        momentum: decay of the momentum (β), in [0, 1). Default: 0.95
        eps: added to the norm (ε), in [0, ∞). Default: 1e-07
        nesterov: look ahead by one step. Default: True
        debias: correct the bias of the momentum. Default: False
        iteration: the polynomials that orthogonalize. Default: newton_schulz()
        sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'spectral'
        dtype: the dtype of the iterations, one of None, 'float32', 'bfloat16', 'float16'. Default: None
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.95
        eps_rms: added to the root mean square, and to the norm (ε₂), in [0, ∞). Default: 1e-10
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, momentum: HyperLike = 0.95, eps: HyperLike = 1e-07, nesterov: bool = True, debias: bool = False, iteration: Any = ..., sizing: str = 'spectral', dtype: str | None = None, b2: HyperLike = 0.95, eps_rms: HyperLike = 1e-10, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_optimistic_gradient(_scale_by_optimistic_gradient):
    """Extrapolate from the last two gradients. Daskalakis et al. 2018, arXiv:1711.00141, equation 7.

    Converges in games where gradient descent cycles. The update before the first is 0, as in the
    paper, or the first "itself", as in Optax.

    Args:
        alpha: weight of the update (α), in [0, ∞). Default: 1
        beta: weight of its change (β), in [0, ∞). Default: 1
        before: the update before the first, one of 'zero', 'itself'. Default: 'zero'
    """
    def __init__(self, alpha: HyperLike = 1, beta: HyperLike = 1, before: str = 'zero') -> None: ...

class scale_by_param_block_norm(_scale_by_param_block_norm):
    """Multiply a leaf by the norm of its parameter.

    Equation: u ← u·max(‖θ‖, ε)

    Args:
        min_scale: the smallest factor (ε), in [0, ∞). Default: 0.001
    """
    def __init__(self, min_scale: HyperLike = 0.001) -> None: ...

class scale_by_param_block_rms(_scale_by_param_block_rms):
    """Multiply a leaf by the RMS of its parameter. Shazeer & Stern 2018, arXiv:1804.04235, section 8.

    Equation: u ← u·max(RMS(θ), ε)

    Args:
        min_scale: the smallest factor (ε), in [0, ∞). Default: 0.001
    """
    def __init__(self, min_scale: HyperLike = 0.001) -> None: ...

class scale_by_polyak(_scale_by_polyak):
    """Scale by the suboptimality divided by the squared norm. Polyak 1969; Loizou et al. 2021, arXiv:2002.10542.

    The paper's SPS_max with c = 1; for another c scale by 1/c. ``update`` and ``step`` require
    ``value``, the loss whose gradient is taken. For a loss below f* the step ascends, as published.

    Equation: u ← u·min((f(θ) − f*) / (‖u‖² + ε), γ_max)

    Args:
        f_min: the lowest value, or a bound below it (f*). Default: 0
        max_learning_rate: the largest factor (γ_max), in [0, ∞). Default: 1
        eps: floor of the denominator (ε), in [0, ∞). Default: 0
    """
    def __init__(self, f_min: HyperLike = 0, max_learning_rate: HyperLike = 1, eps: HyperLike = 0) -> None: ...

class scale_by_prodigy(_scale_by_prodigy):
    """D-Adaptation with weights of d², which grows faster. Mishchenko & Defazio 2024, arXiv:2306.06101, Algorithm 4.

    The paper has β₃ = √β₂ and c = 1. With ``debias`` the rate has Adam's bias correction, as in Optax.
    With ``safeguard_warmup`` s does not contain γ, so that the small γ of a warm-up do not increase d.
    The published code uses the next d in εd, the paper the current one.

    Args:
        learning_rate: multiple of the estimate (γ), in [0, ∞). Default: 1
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        b3: decay of the sums in the estimate (β₃), in [0, 1). Default: 0.999499874937461
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        estim_lr0: the first estimate (d₀), in [0, ∞). Default: 1e-06
        estim_lr_coef: multiple of the estimate from the gradients (c), in [0, ∞). Default: 1
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0
        debias: whether bias is corrected. Default: False
        safeguard_warmup: omit γ in s. Default: False
    """
    def __init__(self, learning_rate: HyperLike = 1, b1: HyperLike = 0.9, b2: HyperLike = 0.999, b3: HyperLike = 0.999499874937461, eps: HyperLike = 1e-08, estim_lr0: HyperLike = 1e-06, estim_lr_coef: HyperLike = 1, weight_decay: HyperLike = 0, debias: bool = False, safeguard_warmup: bool = False) -> None: ...

class scale_by_psgd_kron(_scale_by_psgd_kron):
    """Whiten the momentum by triangular Kronecker factors. Li 2015, 2018, arXiv:1512.04202, arXiv:1802.02780.

    The preconditioner of an m × n matrix is a product of QᴸᵀQᴸ on its rows and QᴿᵀQᴿ on its columns, where Qᴸ (m × m)
    and Qᴿ (n × n) are upper triangular. They approach the inverse roots of the two covariances. A side longer than
    ``max_size``, or than ``max_skew`` times the other, has a diagonal Q of its length; a vector has only that.
    Departs from the published code in that nothing random decides when to update: an update is due 1/p steps after the
    last, as in kron-torch, and every ``balance_interval`` updates the largest entries of the two Q are made equal.
    Nor is the preconditioner updated while a matrix is zero, since it would grow without end. ``failures`` counts the
    updates that were not finite; they are dropped.

    Equation: m ← βm + (1−β)u;  at a fraction p of the steps  A = Qᴸ(m̂ + δ·mean|m̂|·V)Qᴿᵀ, B = Qᴸ⁻ᵀVQᴿ⁻¹, V ~ N(0, 1), Qᴸ ← Qᴸ − η·triu(AAᵀ−BBᵀ)/‖AAᵀ+BBᵀ‖·Qᴸ, Qᴿ likewise by AᵀA and BᵀB, balanced every k times;  u ← QᴸᵀQᴸm̂QᴿᵀQᴿ,  u ← u·min(1, d/RMS(u))

    Args:
        momentum: decay of the momentum (β), in [0, 1). Default: 0.9
        precond_lr: step size of the preconditioner (η), in [0, ∞). Default: 0.1
        precond_update_prob: fraction of the steps that update the preconditioner (p), in [0, 1]. Default: exponential_decay(1, 1000, 0.36787944117144233, transition_begin=500, end_value=0.03)
        damping: noise for the fit, relative to the mean size of an entry (δ), in [0, ∞). Default: 0.00034526698300124393
        clipping_threshold: the largest root mean square; ∞ for no bound (d), in [0, ∞). Default: 1.1
        balance_interval: updates of the preconditioner between two balancings (k), in [1, ∞). Default: 100
        max_size: the longest side with a matrix; longer ones have a diagonal, a whole number from 1. Default: 8192
        max_skew: the largest length of a side with a matrix, as a multiple of the other. Default: float('inf')
        seed: seed of the noise that the preconditioner is fitted with. Default: 0
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, momentum: HyperLike = 0.9, precond_lr: HyperLike = 0.1, precond_update_prob: HyperLike = ..., damping: HyperLike = 0.00034526698300124393, clipping_threshold: HyperLike = 1.1, balance_interval: HyperLike = 100, max_size: int = 8192, max_skew: float = ..., seed: Any = 0, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_psgd_quad(_scale_by_psgd_quad):
    """Whiten the momentum by symmetric Kronecker factors, without triangular solves: PSGD-QUAD, in Li's psgd_torch.

    The update is quadratic in 1 − s(S − n). The factors start at the multiples of the identity that bring the first
    gradient other than 0 to an RMS of 1, and the momentum starts at that of the first step. Sides that are long or
    skewed have a diagonal Q, and failures are counted, as in `scale_by_psgd_kron`. Every 100 steps the largest entries
    of the two Q are made equal. The published code also multiplies the learning rate by 0.2, as `quad` does.

    Equation: m ← βm + (1−β)u,  P = Qᴸ²(m + δN(0, 1))Qᴿ²,  S = PPᵀ,  L ← max(‖S‖ + n, 0.95L + 0.05(‖S‖ + n)),  Qᴸ ← symmetric part of (1 − s(S−n))Qᴸ(1 − s(S−n)), s = max(η/√(1+t/10⁴), η̲)/2L,  Qᴿ likewise by PᵀP and m;  u ← Qᴸ²mQᴿ²,  u ← u·min(1, d/RMS(u))

    Args:
        momentum: decay of the momentum (β), in [0, 1). Default: 0.95
        precond_lr: first step size of the preconditioner (η), in [0, ∞). Default: 0.7
        min_precond_lr: its smallest step size (η̲), in [0, ∞). Default: 0.3
        noise_scale: standard deviation of the noise for the fit (δ), in [0, ∞). Default: 1e-09
        clipping_threshold: the largest root mean square; ∞ for no bound (d), in [0, ∞). Default: 1.05
        max_size: the longest side with a matrix; longer ones have a diagonal, a whole number from 1. Default: 8192
        max_skew: the largest length of a side with a matrix, as a multiple of the other. Default: 1
        seed: seed of the noise that the preconditioner is fitted with. Default: 0
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, momentum: HyperLike = 0.95, precond_lr: HyperLike = 0.7, min_precond_lr: HyperLike = 0.3, noise_scale: HyperLike = 1e-09, clipping_threshold: HyperLike = 1.05, max_size: int = 8192, max_skew: float = 1, seed: Any = 0, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_racs(_scale_by_racs):
    """Divide by the roots of a scale for each row and one for each column. Gong et al. 2025, arXiv:2502.07752, RACS.

    qsᵀ is the matrix of rank one that the squares of the update are nearest to, found by ``rounds`` steps of the power
    iteration. The norm of the result grows by a factor of γ a step at most. The paper's α is part of the learning rate.
    pytorch_optimizer takes the plain means of rows and columns, whose product has the size of a fourth power, so that
    its updates depend on the scale of the loss.

    Equation: q ← βq + (1−β)q̂,  s ← βs + (1−β)ŝ,  ŝ = (u²)ᵀq̂/‖q̂‖², q̂ = u²ŝ/‖ŝ‖² in rounds from q̂ = 1,  u ← u / √(qsᵀ + ε),  u ← u·min(1, γφ/‖u‖) after the first step,  φ ← ‖u‖

    Args:
        decay: decay of the scales (β), in [0, 1). Default: 0.9
        gamma: the factor by which the norm may grow in a step (γ), in [1, ∞). Default: 1.01
        eps: added to the product of the scales, inside the root (ε), in [0, ∞). Default: 1e-30
        rounds: the number of power iterations, a whole number from 1. Default: 5
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, decay: HyperLike = 0.9, gamma: HyperLike = 1.01, eps: HyperLike = 1e-30, rounds: int = 5, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_radam(_scale_by_radam):
    """Adam that uses its denominator once it averages enough squares. Liu et al. 2020, arXiv:1908.03265, Algorithm 2.

    r is √((ρ−4)(ρ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρ)). The paper has ρ₀ = 4 and no ε; these are as in its
    code and PyTorch.

    Equation: m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  ρ∞ = 2/(1−β₂) − 1,  ρ = ρ∞ − 2tβ₂ᵗ/(1−β₂ᵗ),  u ← r·√(1−β₂ᵗ)·m̂ / (√(v+(1−β₂ᵗ)ε̄) + ε) if ρ > ρ₀ else m̂

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        threshold: the number of squares that is enough (ρ₀), in [4, ∞). Default: 5
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, threshold: HyperLike = 5, *, eps_root: HyperLike = 0) -> None: ...

class scale_by_refined_lion(_scale_by_refined_lion):
    """Lion with the mean clipped to ±1 for the sign: Optax's ``mode="refined"``.

    Equation: c = β₁m + (1−β₁)u,  m ← β₂m + (1−β₂)u,  u ← min(max(c, −1), 1)

    Args:
        b1: weight of the mean in the sign (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean (β₂), in [0, 1). Default: 0.99
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.99) -> None: ...

class scale_by_rms(_scale_by_rms):
    """Divide by the root mean square. Tieleman & Hinton 2012, Coursera lecture 6.5.

    ε is PyTorch's, ε̄ TensorFlow's and Optax's.

    Equation: s ← ρs + (1−ρ)u² from s₀,  u ← u / (√(s+ε̄) + ε)

    Args:
        decay: decay of the mean square (ρ), in [0, 1). Default: 0.99
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        initial_scale: initial mean square (s₀), in [0, ∞). Default: 0
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, decay: HyperLike = 0.99, eps: HyperLike = 1e-08, initial_scale: HyperLike = 0, eps_root: HyperLike = 0) -> None: ...

class scale_by_rprop(_scale_by_rprop):
    """A step size for each coordinate, which grows while the sign stays the same and shrinks when it changes.

    Riedmiller & Braun 1993, in the form that takes no step when the sign changes, and then forgets the sign:
    iRprop⁻ of Igel & Hüsken 2000, as in PyTorch.

    Equation: s = sign(u),  Δ ← min(max(Δ·(η₊ if ss₋ > 0 else η₋ if ss₋ < 0 else 1), Δ_min), Δ_max) from Δ₀,  s₋ ← 0 if ss₋ < 0 else s,  u ← Δs₋

    Args:
        step_size: the first step size (Δ₀), in [0, ∞). Default: 0.01
        eta_minus: factor when the sign changes (η₋), in [0, 1]. Default: 0.5
        eta_plus: factor while the sign stays the same (η₊), in [1, ∞). Default: 1.2
        min_step_size: the smallest step size (Δ_min), in [0, ∞). Default: 1e-06
        max_step_size: the largest step size (Δ_max), in [0, ∞). Default: 50
    """
    def __init__(self, step_size: HyperLike = 0.01, eta_minus: HyperLike = 0.5, eta_plus: HyperLike = 1.2, min_step_size: HyperLike = 1e-06, max_step_size: HyperLike = 50) -> None: ...

class scale_by_running_norm(_scale_by_running_norm):
    """Divide each leaf by its running norm. Ginsburg et al. 2019, arXiv:1905.11286: NovoGrad's second moment.

    Equation: v ← β₂v + (1−β₂)‖u‖², v₁ = ‖u₁‖²,  u ← u / (√(v+ε̄) + ε)

    Args:
        b2: decay of the mean squared norm (β₂), in [0, 1). Default: 0.25
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean squared norm, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b2: HyperLike = 0.25, eps: HyperLike = 1e-08, eps_root: HyperLike = 0) -> None: ...

class scale_by_shampoo(_scale_by_shampoo):
    """Multiply by inverse roots of the sums of uuᵀ and uᵀu. Gupta et al. 2018, arXiv:1802.09568, Algorithm 1.

    As by Anil et al. 2020, arXiv:2002.09018, a large matrix is cut into blocks of at most ``block_size`` rows and
    columns, each with statistics of its own, and the roots are computed at the first of every ``update_every`` steps.
    The blocks of a matrix are equally long, to one row or column. With ``b2`` below 1 the statistics are moving
    averages; ε, which is added when a root is taken, then does not decay. A side of length 1 has no statistics, and p
    is 2 without those of the other side: for a vector it is Algorithm 2 with a tensor of order 1. With ``sides``
    "shorter" only the shorter side has statistics, with "rows" the inputs, with "columns" the outputs.

    The state of a block of m × n has 2m² + 2n² numbers, and each matrix a number of ``failures``: of roots that were
    not finite, in place of which the old ones are kept. The first are the identity; after gradients of 0, those of the
    mean eigenvalue, until roots are due.

    Equation: L ← β₂L + (1−β₂, or 1 if β₂ = 1)uuᵀ,  R ← β₂R + (1−β₂, or 1)uᵀu,  u ← PᴸuPᴿ,  Pᴸ = (L + εI)^(−1/p),  Pᴿ = (R + εI)^(−1/p) every k steps

    Args:
        b2: decay of the statistics; 1 for their sum (β₂), in [0, 1]. Default: 1
        eps: added to the eigenvalues of the statistics (ε), in [0, ∞). Default: 1e-06
        exponent: the root that is taken; by default twice the number of sides (p), in (0, ∞) or None. Default: None
        update_every: steps between two computations of the roots (k), in [1, ∞). Default: 10
        block_size: the most rows and columns of a block, a whole number from 1. Default: 1024
        sides: the sides that have statistics, one of 'both', 'shorter', 'rows', 'columns'. Default: 'both'
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, b2: HyperLike = 1, eps: HyperLike = 1e-06, exponent: HyperLike | None = None, update_every: HyperLike = 10, block_size: int = 1024, sides: str = 'both', *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_sign(_scale_by_sign):
    """Keep only the sign of each coordinate. Bernstein et al. 2018, arXiv:1802.04434, Algorithm 1.

    Equation: u ← sign(u)
    """
    def __init__(self) -> None: ...

class scale_by_simplified_ademamix(_scale_by_simplified_ademamix):
    """Adam with a decaying sum for a mean, plus a weighted newest gradient. Morwani et al. 2025, arXiv:2502.02431.

    Equation: m ← β₁m + u,  v ← β₂v + (1−β₂)u²,  u ← (m + αu) / (√(v̂+ε̄) + ε)

    Args:
        b1: decay of the sum (β₁), in [0, 1). Default: 0.99
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.95
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        alpha: weight of the newest gradient (α), in [0, ∞). Default: 0
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.99, b2: HyperLike = 0.95, eps: HyperLike = 1e-08, alpha: HyperLike = 0, *, eps_root: HyperLike = 0) -> None: ...

class scale_by_sm3(_scale_by_sm3):
    """Divide by the root of a bound on the sum of squares, kept by axis. Anil et al. 2019, arXiv:1901.11150, SM3-II.

    The sets that cover a leaf are its slices along each axis, and an entry's bound is the minimum over its
    slices. For a vector, where each entry has its own sum, SM3 is Adagrad. With β₂ < 1 squares are averaged, as in the
    published code and Optax; in pytorch_optimizer a slice's ν then never decreases.

    Equation: v = β₂·min over the slices of ν + (1−β₂, or 1 if β₂ = 1)·u²,  ν ← max of v in each slice,  u ← u / √(v + ε), 0 if that is 0/0

    Args:
        eps: added to the bound, inside the root (ε), in [0, ∞). Default: 0
        b2: decay of the bound (β₂), in [0, 1]. Default: 1
    """
    def __init__(self, eps: HyperLike = 0, b2: HyperLike = 1) -> None: ...

class scale_by_smooth_lion(_scale_by_smooth_lion):
    """Lion with tanh for the sign: Optax's ``mode="smooth"``.

    Equation: c = β₁m + (1−β₁)u,  m ← β₂m + (1−β₂)u,  u ← tanh(βc)

    Args:
        b1: weight of the mean in the sign (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean (β₂), in [0, 1). Default: 0.99
        smooth_beta: slope at 0 (β), in [0, ∞). Default: 1
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.99, smooth_beta: HyperLike = 1) -> None: ...

class scale_by_soap(_scale_by_soap):
    """Adam in the eigenbases of the moving averages of uuᵀ and uᵀu. Vyas et al. 2024, arXiv:2409.11321, Algorithm 3.

    As in the published code, the first step only begins the statistics and moves nothing, the bias is corrected as if
    the second step were Adam's first, and ε is added to the root before that. The mean is kept in the parameter's own
    coordinates, so that it need not be rotated when the bases change. A side that is longer than ``max_precond_dim``
    has no statistics, and the identity for a basis; so has a side of length 1. With ``sides`` "shorter" only the
    shorter side has statistics, with "rows" the inputs, with "columns" the outputs.

    The state of an m × n matrix has two slots of its shape, 2m² + 2n² numbers more, and ``failures``, the number of
    decompositions that were not finite: the bases are then kept as they were.

    Equation: m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)(QᴸᵀuQᴿ)²,  L ← β₃L + (1−β₃)uuᵀ,  R ← β₃R + (1−β₃)uᵀu,  u ← c·Qᴸ(QᴸᵀmQᴿ / (√v + ε))Qᴿᵀ,  c = √(1−β₂ᵗ⁻¹) / (1−β₁ᵗ⁻¹),  Q ← the orthogonal factors of LQ and RQ every k steps

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.95
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.95
        shampoo_beta: decay of the statistics (β₃), in [0, 1). Default: 0.95
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        update_every: steps between two changes of the bases (k), in [1, ∞). Default: 10
        sides: the sides that have statistics, one of 'both', 'shorter', 'rows', 'columns'. Default: 'both'
        max_precond_dim: the longest side that has statistics, a whole number from 0. Default: 10000
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, b1: HyperLike = 0.95, b2: HyperLike = 0.95, shampoo_beta: HyperLike = 0.95, eps: HyperLike = 1e-08, update_every: HyperLike = 10, sides: str = 'both', max_precond_dim: int = 10000, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_sophia(_scale_by_sophia):
    """Divide the mean gradient by the mean curvature, and clip. Liu et al. 2023, arXiv:2305.14342, Algorithm 3.

    ``update`` and ``step`` require ``hessian``: an estimate of the Hessian's diagonal, as a tree
    like the parameters, or a function of the parameters (in float32 or better) that returns one, such as
    `hutchinson`. It is read or called only at the first of every ``update_interval`` steps.
    Optax corrects the bias of m and divides by the previous curvature.

    Equation: m ← β₁m + (1−β₁)u,  h ← β₂h + (1−β₂)ĥ every k steps,  u ← min(max(m / max(γh, ε), −1), 1)

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.965
        b2: decay of the mean curvature (β₂), in [0, 1). Default: 0.99
        gamma: factor of the curvature in the denominator (γ), in [0, ∞). Default: 0.01
        eps: floor of the denominator (ε), in [0, ∞). Default: 1e-12
        update_interval: steps between two estimates (k), in [1, ∞). Default: 10
    """
    def __init__(self, b1: HyperLike = 0.965, b2: HyperLike = 0.99, gamma: HyperLike = 0.01, eps: HyperLike = 1e-12, update_interval: HyperLike = 10) -> None: ...

class scale_by_splus(_scale_by_splus):
    """The sign of the mean in the eigenbases of Shampoo's statistics. Frans et al. 2025, arXiv:2506.07254, Algorithm 1.

    As in the published code, new bases are used from the next step on: the first step is the sign itself. An m × n
    matrix is multiplied by 2/(m + n), with which one learning rate suits all widths. Sides without statistics, those
    longer than ``max_precond_dim`` or of length 1, have the identity for a basis. For vectors, and for matrices with
    a side that is too long, the published code has the factor 0.001. The average of the parameters is a link of its
    own, `ema_params`.

    Equation: m ← β₁m + (1−β₁)u,  L ← β₂L + (1−β₂)uuᵀ,  R ← β₂R + (1−β₂)uᵀu,  u ← 2/(m+n)·Qᴸ sign(QᴸᵀmQᴿ) Qᴿᵀ,  Q ← eigenvectors of L and R at the first step, and every k steps

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the statistics (β₂), in [0, 1). Default: 0.999
        update_every: steps between two changes of the bases (k), in [1, ∞). Default: 100
        sides: the sides that have statistics, one of 'both', 'shorter', 'rows', 'columns'. Default: 'both'
        max_precond_dim: the longest side that has statistics, a whole number from 0. Default: 10000
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, update_every: HyperLike = 100, sides: str = 'both', max_precond_dim: int = 10000, *, matrices: Any = ..., over: Any = None) -> None: ...

class scale_by_stable_adam(_scale_by_stable_adam):
    """Adam, scaled down leaf by leaf where v̂ lags behind the gradient. Wortsman et al. 2023, arXiv:2304.13013.

    StableAdamW, Algorithm 2, with Adafactor's update clipping: RMS is the root mean square of
    the leaf. Departs from it in that a decay that follows is not scaled down.

    Equation: m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  u ← m̂ / (r + ε) / max(1, RMS(u / max(r, ε))),  r = √(v̂+ε̄)

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, *, eps_root: HyperLike = 0) -> None: ...

class scale_by_stddev(_scale_by_stddev):
    """Divide by the standard deviation: centered RMSprop. Graves 2013, arXiv:1308.0850, equations 38-40.

    Departs from the paper as PyTorch does: ε is outside the root. A variance that is negative
    due to rounding counts as 0.

    Equation: s ← ρs + (1−ρ)u² from s₀,  a ← ρa + (1−ρ)u,  u ← u / (√(s−a²+ε̄) + ε)

    Args:
        decay: decay of the mean and the mean square (ρ), in [0, 1). Default: 0.99
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        initial_scale: initial mean square (s₀), in [0, ∞). Default: 0
        eps_root: added to the variance, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, decay: HyperLike = 0.99, eps: HyperLike = 1e-08, initial_scale: HyperLike = 0, eps_root: HyperLike = 0) -> None: ...

class scale_by_trust_ratio(_scale_by_trust_ratio):
    """Give a leaf's update the norm of its parameter. You et al. 2020, arXiv:1904.00962, section 3, with φ(z) = z.

    A leaf is unchanged if one of the norms is 0, as in the published code; in the paper its update would be
    0. ``min_norm`` is Optax's lower bound on both norms.

    Equation: u ← u·η·max(‖θ‖, n) / (max(‖u‖, n) + ε), or u if a norm is 0

    Args:
        min_norm: lower bound on both norms (n), in [0, ∞). Default: 0
        trust_coefficient: norm of the update, as a multiple of the parameter's norm (η), in [0, ∞). Default: 1
        eps: added to the norm of the update (ε), in [0, ∞). Default: 0
    """
    def __init__(self, min_norm: HyperLike = 0, trust_coefficient: HyperLike = 1, eps: HyperLike = 0) -> None: ...

class scale_by_uncorrected_adam(_scale_by_uncorrected_adam):
    """Adam without bias correction, as in BERT's AdamWeightDecay and MXNet's Adam.

    Devlin et al. 2019, arXiv:1810.04805, the published code. Early updates are up to (1−β₁)/√(1−β₂)
    times as large as Adam's, so it needs a warm-up.

    Equation: m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  u ← m / (√(v+ε̄) + ε)

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, *, eps_root: HyperLike = 0) -> None: ...

class scale_by_yogi(_scale_by_yogi):
    """Adam whose mean square changes by at most (1−β₂)u² per step. Zaheer et al. 2018, Algorithm 2.

    "Adaptive methods for nonconvex optimization", NeurIPS. Departs from it as Optax does: the bias is
    corrected; ``debias=False`` is the paper's form. Optax also starts the mean at v₀;
    here it starts at 0, as in the paper.

    Args:
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 0.001
        initial_accumulator_value: initial mean square (v₀), in [0, ∞). Default: 1e-06
        debias: correct the moments for bias. Default: True
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """
    def __init__(self, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 0.001, initial_accumulator_value: HyperLike = 1e-06, debias: bool = True, *, eps_root: HyperLike = 0) -> None: ...

class scale_by_zoom_linesearch(_scale_by_zoom_linesearch):
    """Find a length that satisfies the strong Wolfe conditions: the function is lower and flatter there.

    ``update`` and ``step`` require ``value``, ``grad`` and ``value_fn``. Nocedal & Wright 2006,
    Algorithms 3.5 and 3.6, with cubic interpolation (3.59), and bisection
    if that leaves the bracket or shrinks it too little (Moré & Thuente 1994). Departs
    from the book where differences of f are at most ε|f| and may be rounding errors: there the slope decides,
    by f′(α) ≤ (2c₁−1)f′ (Hager & Zhang 2005, the approximate Wolfe conditions). ε = 0 disables this.

    Equation: u ← αu,  f(α) ≤ f + c₁αf′ (or f ± ε|f| and f′(α) ≤ (2c₁−1)f′),  |f′(α)| ≤ c₂|f′|,  α ← min(τα, α_max),  for n lengths at most

    Args:
        max_linesearch_steps: maximum number of evaluations (n), in [1, ∞). Default: 20
        max_learning_rate: the largest length (α_max), in [0, ∞). Default: float('inf')
        increase_factor: factor of a length that is too short (τ), in [1, ∞). Default: 2
        slope_rtol: required fraction of the decrease that the slope predicts (c₁), in [0, 1). Default: 0.0001
        curv_rtol: fraction of the slope that may remain (c₂), in [0, 1). Default: 0.9
        approx_dec_rtol: relative rounding error of the value (ε), in [0, ∞). Default: 1e-06
        initial_guess_strategy: start at the last length found, or at 1, which suits quasi-Newton updates, one of 'keep', 'one'. Default: 'keep'
    """
    def __init__(self, max_linesearch_steps: HyperLike = 20, max_learning_rate: HyperLike = ..., increase_factor: HyperLike = 2, slope_rtol: HyperLike = 0.0001, curv_rtol: HyperLike = 0.9, approx_dec_rtol: HyperLike = 1e-06, initial_guess_strategy: str = 'keep') -> None: ...

class schedule_free(_schedule_free):
    """Take gradients between the point that a chain moves, z, and its mean, x. Defazio et al. 2024, arXiv:2405.15682.

    The parameters are y = (1−β)z + βx. Evaluate at x, which `schedule_free_eval_params` returns. The
    chain is Algorithm 1's step without momentum, with a constant learning rate after a warm-up. γ is
    the chain's learning rate, or 1 if it has none. Optax and the published code use the largest γ so far
    instead.

    Equation: z ← z + tx(u),  c = γ^p/Σγ^p,  x ← (1−c)x + cz,  θ ← (1−β)z + βx

    Args:
        tx: the chain that moves z
        b1: weight of the mean in the parameters (β), in [0, 1]. Default: 0.9
        weight_lr_power: power of the rate in the weight of a step (p), in [0, ∞). Default: 2
    """
    def __init__(self, tx: Any, b1: float | jax.Array | np.ndarray = 0.9, weight_lr_power: float | jax.Array | np.ndarray = 2) -> None: ...

class sharpness_aware(_sharpness_aware):
    """Take the gradient a distance ρ uphill. Foret et al. 2021, arXiv:2010.01412, Algorithm 1.

    Put this link first in a chain, and pass ``grad_fn``, the gradient of the loss on the same batch as a function of
    the parameters, to ``update`` and ``step``.

    Put `dynamic_loss_scale` second. Both gradients are then those of the scaled loss, which does not change
    the direction uphill, and an overflow in either causes the step to be rejected:

    In the other order ``grad_fn`` must return unscaled gradients, and their overflow goes unnoticed.

    Equation: u ← ∇f(θ + ρu/‖u‖)

    Args:
        rho: how far to go uphill (ρ), in [0, ∞). Default: 0.05
    """
    def __init__(self, rho: HyperLike = 0.05) -> None: ...

class skip_large_updates(_skip_large_updates):
    """Reject steps whose updates have a global norm that is too large or NaN.

    Equation: no step unless ‖u‖ ≤ c

    Args:
        max_norm: the largest global norm (c), in [0, ∞)
    """
    def __init__(self, max_norm: HyperLike) -> None: ...

class skip_loss_spikes(_skip_loss_spikes):
    """Reject steps whose loss l is far above the mean of recent losses.

    ``update`` and ``step`` require the loss as ``value``. Mean and variance are over all losses up to
    the n-th, and from then on exponential averages with decay 1 − 1/n. A rejected loss enters them as the
    highest acceptable loss: a spike does not widen the bound much, and a loss that stays
    high is accepted eventually. A loss that is not finite is always rejected, and does not enter them. A loss whose
    distance to the mean has no finite square, 10¹⁹ in float32, resets the statistics. A deviation whose square
    underflows, such as that of losses that were all 0, sets no bound.

    Equation: no step unless l ≤ c = m + max(kσ, τ|m|) or t ≤ w,  d = min(l, c) − m,  a = max(1/t, 1/n),  m ← m + ad,  σ² ← (1−a)(σ² + ad²)

    Args:
        sigmas: standard deviations above the mean that are accepted (k), in [0, ∞). Default: 6
        window: length of the average, in losses (n), in [1, ∞). Default: 128
        warmup: losses that are accepted before any is rejected (w), in [1, ∞). Default: 64
        tolerance: rise that is always accepted, relative to the mean (τ), in [0, ∞). Default: 0.01
    """
    def __init__(self, sigmas: HyperLike = 6, window: HyperLike = 128, warmup: HyperLike = 64, tolerance: HyperLike = 0.01) -> None: ...

class skip_nonfinite(_skip_nonfinite):
    """Reject steps whose updates are not all finite.

    After ``max_consecutive`` rejections in a row, further such steps are accepted.

    Equation: no step unless all of u is finite, or n were rejected in a row

    Args:
        max_consecutive: rejections in a row; None for no limit (n), in [0, ∞) or None. Default: None
    """
    def __init__(self, max_consecutive: HyperLike | None = None) -> None: ...

class slow_weights(_slow_weights):
    """Lookahead: pull the parameters back to an average of past ones. Zhang et al. 2019, arXiv:1907.08610.

    Algorithm 1: the parameters are its fast weights, and the average is its slow weights. Earlier links
    keep their state at a synchronization: to reset it there, wrap them in `restart`.

    Equation: φ ← φ + α(θ+u−φ), u ← φ − θ where t mod k = 0

    Args:
        sync_period: steps from one synchronization to the next (k), in [1, ∞). Default: 6
        slow_step_size: step size of the slow weights (α), in [0, 1]. Default: 0.5
    """
    def __init__(self, sync_period: HyperLike = 6, slow_step_size: HyperLike = 0.5) -> None: ...

class spec(_spec):
    """The mesh axes along which each axis of a parameter is sharded, as an entry of a `by_path` table.

    A `PartitionSpec` in a table becomes a value of this kind, which can be stored as JSON.

    Args:
        axes: for each axis of the array a mesh axis, a tuple of them, or None
    """
    def __init__(self, axes: Any) -> None: ...

class split_complex(_split_complex):
    """Pass each complex parameter to a chain as two real ones, ``real`` and ``imag``.

    `Leafwise` links do not need this: they always see complex numbers as pairs of reals.

    Equation: u ← tx(Re u) + i·tx(Im u)

    Args:
        tx: the chain
    """
    def __init__(self, tx: Any) -> None: ...

class step_schedule(_step_schedule):
    """Multiplied by γ every ``step_size`` steps. PyTorch's ``StepLR``.

    Args:
        init_value: value at step 0
        step_size: steps between the reductions, in [1, ∞)
        gamma: the factor, in [0, ∞). Default: 0.1
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, step_size: float | jax.Array | np.ndarray, gamma: float | jax.Array | np.ndarray = 0.1) -> None: ...

class swa(_swa):
    """Stochastic weight averaging: the mean of the parameters at some steps. Izmailov et al. 2018, arXiv:1803.05407.

    Algorithm 1. Averages the parameters after step ``start`` and after every ``every``-th step from then on. Until
    then the average equals the current parameters. With ``start=1`` this is Polyak–Ruppert averaging.

    Equation: θ̄ ← θ+u if t ≤ s;  θ̄ ← (n·θ̄ + θ+u)/(n+1) where n = (t−s)/c is whole

    Args:
        start: steps before the first average (s), in [0, ∞)
        every: steps between averaged parameters (c), in [1, ∞). Default: 1
    """
    def __init__(self, start: HyperLike, every: HyperLike = 1) -> None: ...

class total(_total):
    """The sum of schedules and numbers.

    Errors: ``ValueError`` unless every term is a schedule, a function of the step or a number.

    Args:
        terms: schedules or numbers
    """
    def __init__(self, terms: Any) -> None: ...

class trace(_trace):
    """Accumulate updates in a decaying sum. Polyak 1964; Sutskever et al. 2013.

    PyTorch's form: the first update is not dampened. Before `scale_by_lr` the learning
    rate multiplies the entire buffer; after it each gradient keeps the rate of its own step, which is
    Sutskever's form. With ``nesterov`` the update looks one step ahead, g + μb. To take
    the gradient at the look-ahead point instead, see `chain.lookahead`.

    Args:
        momentum: decay of the sum; 1 sums all updates (μ), in [0, 1]
        dampening: fraction of a new update that is dropped (τ), in [0, 1]. Default: 0
        nesterov: look one step ahead. Default: False
    """
    def __init__(self, momentum: HyperLike, dampening: HyperLike = 0, nesterov: bool = False) -> None: ...

class uniform(_uniform):
    """Numbers from ``low`` to ``high``, each as likely as another. For `sample`.

    Args:
        low: the least number
        high: the largest
    """
    def __init__(self, low: float | jax.Array | np.ndarray, high: float | jax.Array | np.ndarray) -> None: ...

class warm_restarts_schedule(_warm_restarts_schedule):
    """SGDR: a cosine decay with restarts, each period ``factor`` times as long as the previous one.

    Loshchilov & Hutter 2017, arXiv:1608.03983, section 3. PyTorch's ``CosineAnnealingWarmRestarts``.
    At ``factor`` 1 the derivative with respect to it is 0.

    Args:
        init_value: value at each restart
        period: length of the first period, in steps, in [1, ∞)
        factor: ratio of the lengths of successive periods, in [1, ∞). Default: 1
        end_value: value that each period decays to. Default: 0
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, period: float | jax.Array | np.ndarray, factor: float | jax.Array | np.ndarray = 1, end_value: float | jax.Array | np.ndarray = 0) -> None: ...

class warmup_cosine_decay_schedule(_warmup_cosine_decay_schedule):
    """Linear warm-up to ``peak_value``, then half a cosine to ``end_value``, constant after that.

    Args:
        init_value: value at step 0
        peak_value: value when the warm-up ends
        warmup_steps: length of the warm-up, in steps, in [0, ∞)
        decay_steps: length of warm-up and decay together, in steps, in (0, ∞)
        end_value: the last value. Default: 0
        exponent: the power to which the cosine is raised, in [0, ∞). Default: 1
    """
    def __init__(self, init_value: float | jax.Array | np.ndarray, peak_value: float | jax.Array | np.ndarray, warmup_steps: float | jax.Array | np.ndarray, decay_steps: float | jax.Array | np.ndarray, end_value: float | jax.Array | np.ndarray = 0, exponent: float | jax.Array | np.ndarray = 1) -> None: ...

class warmup_schedule(_warmup_schedule):
    """Linear warm-up to the start of another schedule, then that schedule.

    With ``restart`` the other schedule counts from the end of the warm-up; without it, from
    the first step, as in BERT.

    Args:
        after: the schedule or number that follows
        warmup_steps: length of the warm-up, in steps, in [0, ∞)
        init_value: value at step 0. Default: 0
        restart: count the other schedule from the end of the warm-up. Default: True
    """
    def __init__(self, after: HyperLike, warmup_steps: float | jax.Array | np.ndarray, init_value: float | jax.Array | np.ndarray = 0, restart: bool = True) -> None: ...

class warmup_stable_decay_schedule(_warmup_stable_decay_schedule):
    """WSD: a linear warm-up, a constant phase, and a decay that can start at any time.

    Hu et al. 2024, arXiv:2404.06395, section 4. Linear and 1 − √ decays: Hägele et al. 2024,
    arXiv:2405.18392. For any other decay write
    ``warmup_schedule(peak, warmup).then(decay, at=...)``.

    Args:
        peak_value: value of the constant phase
        warmup_steps: length of the warm-up, in steps, in [0, ∞)
        stable_steps: length of the constant phase, in steps, in [0, ∞)
        decay_steps: length of the decay, in steps, in [0, ∞)
        init_value: value at step 0. Default: 0
        end_value: value after the decay. Default: 0
        decay: shape of the decay, one of 'linear', 'cosine', '1-sqrt'. Default: 'linear'
    """
    def __init__(self, peak_value: float | jax.Array | np.ndarray, warmup_steps: float | jax.Array | np.ndarray, stable_steps: float | jax.Array | np.ndarray, decay_steps: float | jax.Array | np.ndarray, init_value: float | jax.Array | np.ndarray = 0, end_value: float | jax.Array | np.ndarray = 0, decay: str = 'linear') -> None: ...

class zero1(_zero1):
    """Spread the state and the arithmetic of a chain over mesh axes that replicate the parameters. ZeRO stage 1.

    Rajbhandari et al. 2020, arXiv:1910.02054, section 5.1. Parameters stay as they are, sharded along other axes or
    not. Within the link, each of them and its gradient are divided along ``over`` as well, a mesh axis or several one
    after the other: XLA reduces the gradients to shards, each device updates its own, and the new parameters are
    gathered, those of up to 65536 numbers together. Results are those of the chain.

    The mesh is that of the parameters, or of `jax.set_mesh`. Along explicit axes, JAX types carry the layout. Along
    automatic axes they do not: there ``specs`` says how the parameters are sharded, as a table of `PartitionSpec`s by
    path, replicated by default. A jitted step would gather a parameter that lies otherwise. Pass
    ``out_shardings=tx.state_sharding(params)`` to a jitted ``init``.

    A parameter of which no axis is a multiple of the number of shards stays in one piece: ``describe(params)`` names
    it. Links outside of this one see whole updates, so put `clip_by_global_norm` within. XLA's TPU compiler makes an
    all-reduce of a reduce-scatter along an axis that spans all devices or along several axes: ``step`` warns, and
    `reduce_grads` avoids it.

    Errors: ``ValueError`` for axes that the mesh does not have, and for a parameter that is not sharded as ``specs``
    says. Warns (`ChainWarning`) if nothing is spread: without a mesh, unless there is one device only, and within
    `jax.shard_map` over these axes.

    Args:
        tx: the chain
        over: the mesh axis, or a tuple of axes. Default: 'data'
        specs: the shardings along automatic axes, by_path({pattern: P(...)}, default=P()). Default: None
    """
    def __init__(self, tx: Any, over: Any = 'data', specs: Any = None) -> None: ...

class zero_nans(_zero_nans):
    """Replace NaN by 0. Infinite numbers are unchanged. To skip the entire step, see `skip_nonfinite`.

    Equation: u ← 0 where u is NaN
    """
    def __init__(self) -> None: ...

def acprop(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-16, eps_root: HyperLike | None = None, weight_decay: HyperLike | None = None) -> chain:
    """ACProp: divide by the deviation of previous gradients. Zhuang et al. 2021, arXiv:2110.05454, Algorithm 2.

    ``weight_decay`` is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean squared deviation (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-16
        eps_root: added to the mean square at every step; None for ε (ε̄), in [0, ∞) or None. Default: None
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def adabelief(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-16, eps_root: HyperLike | None = None, weight_decay: HyperLike | None = None) -> chain:
    """AdaBelief: Adam divided by the deviation from the mean. Zhuang et al. 2020, arXiv:2010.07468, Algorithm 2.

    ``weight_decay`` is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean squared deviation (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-16
        eps_root: added to the mean square at every step; None for ε (ε̄), in [0, ∞) or None. Default: None
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def adadelta(learning_rate: HyperLike = 1, *, rho: HyperLike = 0.9, eps: HyperLike = 1e-06, weight_decay: HyperLike | None = None) -> chain:
    """Adadelta: steps as large as past steps. Zeiler 2012, arXiv:1212.5701, Algorithm 1.

    ``weight_decay`` is coupled (L2).

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 1
        rho: decay of both mean squares (ρ), in [0, 1). Default: 0.9
        eps: floor of both roots, inside them (ε), in [0, ∞). Default: 1e-06
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def adafactor(learning_rate: HyperLike | None = None, *, decay_rate: HyperLike = 0.8, decay_offset: HyperLike = 0, b2: HyperLike | None = None, eps: HyperLike = 1e-30, min_dim_size_to_factor: int = 128, clipping_threshold: HyperLike | None = 1, min_scale: HyperLike | None = 0.001, momentum: HyperLike | None = None, weight_decay: HyperLike | None = None) -> chain:
    """Adafactor: a factored second moment and relative steps. Shazeer & Stern 2018, arXiv:1804.04235, Algorithm 6.

    The default rate is the paper's min(10⁻², 1/√t). The rate is relative to the RMS of a parameter, or
    to ``min_scale`` if that is larger; with ``min_scale=None`` it is absolute. ``weight_decay``, which is not in the
    paper, is decoupled. ``momentum`` averages the update before the learning rate, the published code after it.
    The decay of the mean square is 1 − (t − ``decay_offset``)^−``decay_rate``, or ``b2``, a number or a schedule.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: None
        decay_rate: how fast the decay of the means approaches 1 (c), in [0, ∞). Default: 0.8
        decay_offset: steps that the decay does not count (t₀), in [0, ∞). Default: 0
        b2: decay of the means (β), in [0, 1) or None. Default: None
        eps: added to the squares (ε), in [0, ∞). Default: 1e-30
        min_dim_size_to_factor: smallest size of an axis that is factored, a whole number from 1. Default: 128
        clipping_threshold: the largest root mean square; ∞ for no bound (d), in [0, ∞). Default: 1
        min_scale: the smallest factor (ε), in [0, ∞). Default: 0.001
        momentum: decay of the mean (β), in [0, 1). Default: None
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def adago(learning_rate: HyperLike = 0.05, *, momentum: HyperLike = 0.95, gamma: HyperLike = 10, floor: HyperLike = 0.01, weight_decay: HyperLike | None = None, iteration: Iteration = ..., sizing: str = 'none', dtype: str | None = None, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """Muon with AdaGrad's step size. Zhang et al. 2025, arXiv:2509.02981. Arguments as for `muon`.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.05
        momentum: decay of the momentum (β), in [0, 1). Default: 0.95
        gamma: bound on the norm of a gradient (γ), in [0, ∞). Default: 10
        floor: lower bound on the factor (c), in [0, ∞). Default: 0.01
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        iteration: the polynomials that orthogonalize. Default: newton_schulz()
        sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'none'
        dtype: the dtype of the iterations, one of None, 'float32', 'bfloat16', 'float16'. Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def adagrad(learning_rate: HyperLike = 0.01, *, lr_decay: float | None = None, initial_accumulator_value: HyperLike = 0, eps: HyperLike = 1e-10, eps_root: HyperLike = 0, weight_decay: HyperLike | None = None) -> chain:
    """Adagrad: divide by the root of the sum of squared gradients. Duchi, Hazan & Singer 2011, JMLR 12.

    ``lr_decay`` divides the learning rate by 1 + (t−1)·lr_decay, as in PyTorch; t counts a parameter's own steps.
    ``weight_decay`` is coupled (L2).

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.01
        lr_decay: growth of the denominator per step, in [0, ∞). Default: None
        initial_accumulator_value: initial sum (s₀), in [0, ∞). Default: 0
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-10
        eps_root: added to the sum, inside the root (ε̄), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def adam(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, weight_decay: HyperLike | None = None) -> chain:
    """Adam: divide the mean gradient by its root mean square. Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1.

    ``weight_decay`` is coupled (L2); in `adamw` it is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def adam_mini(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, block_axes: tuple[int, ...] = (), weight_decay: HyperLike | None = 0.01) -> chain:
    """AdamW with one mean square for each block of a leaf. Zhang et al. 2025, arXiv:2406.16793, Algorithm 1.

    ``block_axes`` index the blocks of a leaf: see `scale_by_adam_mini`.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        block_axes: axes of a leaf that index its blocks. Default: ()
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
    """

def adamax(learning_rate: HyperLike = 0.002, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = None) -> chain:
    """Adam with a decaying maximum for the root mean square. Kingma & Ba 2015, arXiv:1412.6980, Algorithm 2.

    ``weight_decay`` is coupled (L2); in `adamaxw` it is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.002
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the maximum (β₂), in [0, 1). Default: 0.999
        eps: floor of the maximum (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def adamaxw(learning_rate: HyperLike = 0.002, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = 0.01) -> chain:
    """`adamax` with decoupled weight decay.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.002
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the maximum (β₂), in [0, 1). Default: 0.999
        eps: floor of the maximum (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
    """

def adamc(learning_rate: HyperLike, *, max_learning_rate: float, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, weight_decay: float = 0.01, unnormalized: str | None = None) -> chain:
    """AdamW with a decay proportional to the learning rate. Defazio 2025, arXiv:2506.02285.

    λ is multiplied by α/``max_learning_rate``, except for parameters whose path matches ``unnormalized``:
    the paper's correction is for layers followed by a normalization, so not for the last layer.

    Args:
        learning_rate: length of the step (α), in [0, ∞)
        max_learning_rate: the largest learning rate, at which the decay is weight_decay
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
        unnormalized: pattern of paths of layers that no normalization follows. Default: None
    """

def adamuon(learning_rate: HyperLike = 0.001, *, momentum: HyperLike = 0.95, b2: HyperLike = 0.95, nesterov: bool = False, debias: bool = False, weight_decay: HyperLike | None = 0.1, iteration: Iteration = ..., sizing: str = 'rms', dtype: str | None = None, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """Muon divided by its root mean square. Si et al. 2025, arXiv:2507.11005. Arguments as for `muon`.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        momentum: decay of the momentum (β), in [0, 1). Default: 0.95
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.95
        nesterov: look ahead by one step. Default: False
        debias: correct the bias of the momentum. Default: False
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.1
        iteration: the polynomials that orthogonalize. Default: newton_schulz()
        sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'rms'
        dtype: the dtype of the iterations, one of None, 'float32', 'bfloat16', 'float16'. Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def adamw(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, weight_decay: HyperLike | None = 0.01) -> chain:
    """Adam with decoupled weight decay. Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2.

    Departs from the paper as PyTorch does: the decay is multiplied by the learning rate too. `adamw_paper` has the
    paper's form, and `adamw_independent` a decay that the learning rate does not scale.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
    """

def adamw_independent(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = 1e-05) -> chain:
    """Adam, then a separate decay step θ ← θ − λθ, which the learning rate does not scale.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: fraction that is removed at each step (λ), in [0, 1]. Default: 1e-05
    """

def adamw_paper(schedule: HyperLike, *, learning_rate: HyperLike = 0.001, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = 0.01) -> chain:
    """AdamW as published: θ ← θ − ηₜ(α·m̂/(√v̂+ε) + λθ). Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2.

    ``schedule`` is the multiplier ηₜ of both terms, ``learning_rate`` the α of the first alone.

    Args:
        schedule: length of the step (α), in [0, ∞)
        learning_rate: the factor (γ). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
    """

def adan(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.98, b2: HyperLike = 0.92, b3: HyperLike = 0.99, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, weight_decay: HyperLike | None = None) -> chain:
    """Adan: Nesterov momentum from an average of gradient changes. Xie et al. 2022, arXiv:2208.06677, Algorithm 1.

    ``weight_decay`` is decoupled; the paper's proximal form is equal to it with the rate α/(1+αλ).

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.98
        b2: decay of the mean change, and its weight (β₂), in [0, 1). Default: 0.92
        b3: decay of the mean square (β₃), in [0, 1). Default: 0.99
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def ademamix(learning_rate: HyperLike = 0.001, *, b1: float = 0.9, b2: HyperLike = 0.999, b3: HyperLike = 0.9999, alpha: HyperLike = 5, warmup_steps: float = 0, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, weight_decay: HyperLike | None = None) -> chain:
    """AdEMAMix: Adam with a second, much slower mean. Pagliardini et al. 2024, arXiv:2409.03137, Algorithm 1.

    Over ``warmup_steps`` the weight ``alpha`` rises from 0 and ``b3`` from ``b1``; both must then be numbers or tables.
    ``weight_decay`` is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        b3: decay of the slow mean (β₃), in [0, 1). Default: 0.9999
        alpha: weight of the slow mean (α), in [0, ∞). Default: 5
        warmup_steps: its length, in steps, in [0, ∞). Default: 0
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def adopt(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.9999, eps: HyperLike = 1e-06, power: HyperLike | None = 0.25, clip_value_fn: HyperLike | None = None, weight_decay: HyperLike | None = None) -> chain:
    """ADOPT: Adam that converges for any b2. Taniguchi et al. 2024, arXiv:2411.02853.

    Scaled gradients are clipped to (t−1)^``power``, or to ``clip_value_fn``, a number or a schedule. With
    ``power=None`` and no ``clip_value_fn`` they are not clipped. ``weight_decay`` is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.9999
        eps: floor of the root (ε), in [0, ∞). Default: 1e-06
        power: how fast the bound on a scaled gradient grows (p), in [0, ∞) or None. Default: 0.25
        clip_value_fn: bound on a scaled gradient (c), in [0, ∞) or None. Default: None
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def amsgrad(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, debias: str = 'after', weight_decay: HyperLike | None = None) -> chain:
    """Adam with a mean square that never decreases. Reddi et al. 2018, arXiv:1904.09237.

    ``debias`` is "after" in PyTorch, "before" in Optax, and "never" in the paper. ``weight_decay`` is coupled (L2).

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
        debias: when the bias is corrected, one of 'after', 'before', 'never'. Default: 'after'
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def apollo(learning_rate: HyperLike = 0.01, *, rank: int = 256, update_proj_gap: HyperLike = 200, scale: HyperLike = 1, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-06, weight_decay: HyperLike | None = None, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """AdamW's scaling of columns, in a random projection. Zhu et al. 2024, arXiv:2412.05270, Algorithm 1.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.01
        rank: the number of random directions, at most the shorter side, a whole number from 1. Default: 256
        update_proj_gap: steps between two projections (k), in [1, ∞). Default: 200
        scale: factor of the update (α), in [0, ∞). Default: 1
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-06
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def apollo_mini(learning_rate: HyperLike = 0.01, *, update_proj_gap: HyperLike = 200, scale: HyperLike = 11.313708498984761, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-06, weight_decay: HyperLike | None = None, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """SGD's memory: APOLLO with one random direction and one factor a matrix. Zhu et al. 2024, arXiv:2412.05270.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.01
        update_proj_gap: steps between two projections (k), in [1, ∞). Default: 200
        scale: factor of the update (α), in [0, ∞). Default: 11.313708498984761
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-06
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def asgd(learning_rate: HyperLike = 0.01, *, lambd: float = 0.0001, alpha: float = 0.75, t0: float = 1000000, weight_decay: HyperLike | None = None) -> chain:
    """Averaged SGD, as in PyTorch. Polyak & Juditsky 1992. `read_average` returns the average.

    ``lambd`` is a weight decay that also sets the rate, α/(1 + λαk)^alpha after k steps of the parameter; α must
    therefore be a number or a table. The average is over the parameters from step ``t0`` + 2 on.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.01
        lambd: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.0001
        alpha: exponent of the fall of the rate. Default: 0.75
        t0: steps before the average begins. Default: 1000000
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def asgo(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = None, update_every: HyperLike = 10, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """Shampoo of one side. An et al. 2025, arXiv:2503.20762.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the statistics (β₂), in [0, 1). Default: 0.999
        eps: added to the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        update_every: steps between two computations of the root (k), in [1, ∞). Default: 10
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def bert_adamw(learning_rate: float | by_path = 5e-05, *, total_steps: float, warmup_steps: float, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-06, weight_decay: HyperLike = 0.01, exclude: str = 'LayerNorm|layer_norm|bias', max_norm: HyperLike = 1) -> chain:
    """BERT's AdamWeightDecayOptimizer with its clip and schedule. Devlin et al. 2019, arXiv:1810.04805, published code.

    No bias correction; no decay for parameters whose path matches ``exclude``; gradients clipped
    by global norm; linear warm-up, then linear decay to 0, which counts from the first step.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 5e-05
        total_steps: its length T, in steps, in [0, ∞)
        warmup_steps: length of the warm-up, in steps, in [0, ∞)
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-06
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
        exclude: pattern of paths without weight decay. Default: 'LayerNorm|layer_norm|bias'
        max_norm: the largest global norm; ∞ for no bound (c), in [0, ∞). Default: 1
    """

def came(learning_rate: HyperLike = 0.0002, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, b3: HyperLike = 0.9999, eps: HyperLike = 1e-30, eps_instability: HyperLike = 1e-16, clipping_threshold: HyperLike = 1, weight_decay: HyperLike | None = None, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """CAME: Adafactor, divided by the instability of its updates. Luo et al. 2023, arXiv:2307.02047, Algorithm 2.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.0002
        b1: decay of the mean update (β₁), in (0, 1). Default: 0.9
        b2: decay of the mean squares (β₂), in [0, 1). Default: 0.999
        b3: decay of the instability (β₃), in [0, 1). Default: 0.9999
        eps: added to the squares (ε₁), in [0, ∞). Default: 1e-30
        eps_instability: added to the instability (ε₂), in [0, ∞). Default: 1e-16
        clipping_threshold: the largest root mean square; ∞ for no bound (d), in (0, ∞). Default: 1
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def cocob(*, alpha: HyperLike = 100, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = None) -> chain:
    """COCOB: a bet on each coordinate, without a rate. Orabona & Tommasi 2017, arXiv:1705.07795, Algorithm 2.

    ``weight_decay`` is coupled (L2).

    Args:
        alpha: how much smaller the first bets are (α), in [0, ∞). Default: 100
        eps: lower bound on the gradient scale (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def conda(learning_rate: HyperLike = 0.001, *, update_proj_gap: HyperLike = 2000, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = None, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """AdamW in the singular directions of its mean. Wang et al. 2025, arXiv:2509.24218, Algorithm 1.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        update_proj_gap: steps between two projections (k), in [1, ∞). Default: 2000
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def dadapt_adamw(learning_rate: HyperLike = 1, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, estim_lr0: HyperLike = 1e-06, weight_decay: HyperLike = 0, debias: bool = False) -> chain:
    """AdamW with an estimated rate: D-Adaptation. Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 5.

    ``weight_decay`` is decoupled and scaled by the estimated rate.

    Args:
        learning_rate: multiple of the estimate (γ), in [0, ∞). Default: 1
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        estim_lr0: the first estimate (d₀), in [0, ∞). Default: 1e-06
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0
        debias: whether bias is corrected. Default: False
    """

def dadapt_sgd(learning_rate: HyperLike = 1, *, momentum: HyperLike = 0.9, estim_lr0: HyperLike = 1e-06, weight_decay: HyperLike | None = None) -> chain:
    """SGD with an estimated rate: D-Adaptation. Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 4.

    ``weight_decay`` is coupled (L2).

    Args:
        learning_rate: multiple of the estimate (γ), in [0, ∞). Default: 1
        momentum: weight of θ in the next θ (β), in [0, 1). Default: 0.9
        estim_lr0: the first estimate (d₀), in [0, ∞). Default: 1e-06
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def dion(learning_rate: HyperLike = 0.01, *, momentum: HyperLike = 0.95, rank_fraction: float = 1, rank: int | None = None, weight_decay: HyperLike | None = 0.01, sizing: str = 'mup', matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """Orthonormal updates of low rank. Ahn et al. 2025, arXiv:2504.05295. ``adam`` is as for `muon`.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.01
        momentum: what stays of the part that the update has (μ), in [0, 1). Default: 0.95
        rank_fraction: the rank, as a fraction of the smaller side. Default: 1
        rank: the largest rank. Default: None
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
        sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'mup'
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def dog(learning_rate: HyperLike = 1, *, r_eps: HyperLike = 1e-06, relative: bool = True, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = None) -> chain:
    """Distance over gradients (DoG): SGD that finds its rate. Ivgi et al. 2023, arXiv:2302.12022.

    ``learning_rate`` multiplies that rate. Evaluate at an average of the parameters, as the paper does.
    ``weight_decay`` is coupled (L2).

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 1
        r_eps: initial distance (r_ε), in [0, ∞). Default: 1e-06
        relative: multiply the initial distance by 1 + ‖θ₀‖. Default: True
        eps: floor of the denominator, inside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def dowg(learning_rate: HyperLike = 1, *, r_eps: HyperLike = 0.01, relative: bool = False, eps: HyperLike = 0, weight_decay: HyperLike | None = None) -> chain:
    """Distance over weighted gradients: SGD that finds its rate. Khaled et al. 2023, arXiv:2305.16284, Algorithm 2.

    ``weight_decay`` is coupled (L2).

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 1
        r_eps: initial distance (r_ε), in [0, ∞). Default: 0.01
        relative: multiply the initial distance by 1 + ‖θ₀‖. Default: False
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def fira(learning_rate: HyperLike = 0.001, *, rank: int = 128, update_proj_gap: HyperLike = 200, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-06, weight_decay: HyperLike | None = None, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """AdamW on low-rank gradients, the rest of them scaled alike. Chen et al. 2024, arXiv:2410.01623, Algorithm 1.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        rank: the number of directions, at most the shorter side, a whole number from 1. Default: 128
        update_proj_gap: steps between two projections (k), in [1, ∞). Default: 200
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-06
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def fromage(learning_rate: HyperLike = 0.01, *, min_norm: HyperLike = 0) -> chain:
    """Fromage: steps relative to the norm of each leaf. Bernstein et al. 2020, arXiv:2002.03432, Algorithm 1.

    Optax has a ``min_norm`` of 1e-6.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.01
        min_norm: lower bound on both norms (n), in [0, ∞). Default: 0
    """

def galore_adamw(learning_rate: HyperLike = 0.01, *, rank: int = 128, update_proj_gap: HyperLike = 200, scale: HyperLike = 0.25, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = None) -> chain:
    """AdamW on low-rank gradients. Zhao et al. 2024, arXiv:2403.03507, Algorithm 2.

    ``weight_decay`` is decoupled, and acts on the full parameters, without the projection.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.01
        rank: the number of directions, at most the shorter side, a whole number from 1. Default: 128
        update_proj_gap: steps between two projectors (k), in [1, ∞). Default: 200
        scale: factor of the update (α), in [0, ∞). Default: 0.25
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def kl_shampoo(learning_rate: HyperLike = 0.003, *, b1: HyperLike = 0.9, shampoo_beta: HyperLike = 0.95, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = 0.01, update_every: HyperLike = 10, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """Shampoo with statistics that whiten each other. Lin et al. 2025, arXiv:2509.03378.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.003
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        shampoo_beta: decay of the statistics (β₃), in [0, 1). Default: 0.95
        eps: floor of the eigenvalues (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
        update_every: steps between two changes of the bases (k), in [1, ∞). Default: 10
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def kl_soap(learning_rate: HyperLike = 0.003, *, b1: HyperLike = 0.95, b2: HyperLike = 0.95, shampoo_beta: HyperLike = 0.95, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = 0.01, update_every: HyperLike = 10, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """SOAP with statistics that whiten each other. Lin et al. 2025, arXiv:2509.03378.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.003
        b1: decay of the mean (β₁), in [0, 1). Default: 0.95
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.95
        shampoo_beta: decay of the statistics (β₃), in [0, 1). Default: 0.95
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
        update_every: steps between two changes of the bases (k), in [1, ∞). Default: 10
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def kron(learning_rate: HyperLike = 0.0003, *, momentum: HyperLike = 0.9, precond_lr: HyperLike = 0.1, precond_update_prob: HyperLike = ..., weight_decay: HyperLike | None = None, max_size: int = 8192, max_skew: float = ..., matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """PSGD with triangular Kronecker factors. Li 2015, 2018, arXiv:1512.04202, arXiv:1802.02780.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.0003
        momentum: decay of the momentum (β), in [0, 1). Default: 0.9
        precond_lr: step size of the preconditioner (η), in [0, ∞). Default: 0.1
        precond_update_prob: fraction of the steps that update the preconditioner (p), in [0, 1]. Default: exponential_decay(1, 1000, 0.36787944117144233, transition_begin=500, end_value=0.03)
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        max_size: the longest side with a matrix; longer ones have a diagonal, a whole number from 1. Default: 8192
        max_skew: the largest length of a side with a matrix, as a multiple of the other. Default: float('inf')
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def lamb(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-06, eps_root: HyperLike = 0, weight_decay: HyperLike | None = None) -> chain:
    """LAMB: AdamW with a trust ratio for each leaf. You et al. 2020, arXiv:1904.00962, Algorithm 2, with φ(z) = z.

    The trust ratio includes the decay.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-06
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def laprop(learning_rate: HyperLike = 0.0004, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-15, weight_decay: HyperLike | None = None) -> chain:
    """LaProp: momentum on scaled gradients. Ziyin et al. 2020, arXiv:2002.04839, Algorithm 1.

    ``weight_decay`` is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.0004
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-15
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def lars(learning_rate: HyperLike, *, momentum: HyperLike = 0.9, nesterov: bool = False, weight_decay: HyperLike = 0, trust_coefficient: HyperLike = 0.001, eps: HyperLike = 0) -> chain:
    """LARS: momentum SGD with a rate for each leaf. You et al. 2017, arXiv:1708.03888, Algorithm 1.

    The momentum sums steps, each with the rate of its own step. ``weight_decay`` is added before the trust ratio and
    the momentum.

    Args:
        learning_rate: length of the step (α), in [0, ∞)
        momentum: decay of the sum; 1 sums all updates (μ), in [0, 1]. Default: 0.9
        nesterov: look one step ahead. Default: False
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0
        trust_coefficient: norm of a step, as a multiple of the parameter's norm (η), in [0, ∞). Default: 0.001
        eps: added to the denominator (ε), in [0, ∞). Default: 0
    """

def lbfgs(learning_rate: HyperLike = 1, *, memory_size: int = 10, scale_init_precond: bool = True) -> chain:
    """L-BFGS with a strong-Wolfe line search. Liu & Nocedal 1989; Nocedal & Wright 2006, Algorithms 7.4, 7.5 and 3.5.

    ``step`` requires ``value``, ``grad`` and ``value_fn``: see `value_and_grad_from_state` and
    `minimize`. The search starts at ``learning_rate``. For another search replace the last link;
    for a constant rate remove it, after which no extra arguments are required.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 1
        memory_size: the number of pairs in the state, a whole number from 1 to 10000. Default: 10
        scale_init_precond: start the recursion at the newest pair's scale instead of I. Default: True
    """

def ldog(learning_rate: HyperLike = 1, *, r_eps: HyperLike = 1e-06, relative: bool = True, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = None) -> chain:
    """`dog` leaf by leaf: L-DoG. Ivgi et al. 2023, arXiv:2302.12022. ``weight_decay`` is coupled (L2).

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 1
        r_eps: initial distance (r_ε), in [0, ∞). Default: 1e-06
        relative: multiply the initial distance by 1 + ‖θ₀‖. Default: True
        eps: floor of the denominator, inside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def lion(learning_rate: HyperLike = 0.0001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.99, weight_decay: HyperLike | None = 0.001) -> chain:
    """Lion: SGD with the sign of a mean gradient. Chen et al. 2023, arXiv:2302.06675, Algorithm 2.

    Its steps are larger than AdamW's: the paper suggests a rate 3 to 10 times smaller, and a decay larger by the same.
    Optax's other modes are ``lion().replace("scale_by_lion", scale_by_smooth_lion())`` and `scale_by_refined_lion`.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.0001
        b1: weight of the mean in the sign (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean (β₂), in [0, 1). Default: 0.99
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.001
    """

def madgrad(learning_rate: HyperLike = 0.01, *, momentum: HyperLike = 0.9, eps: HyperLike = 1e-06, weight_decay: HyperLike | None = None) -> chain:
    """MADGRAD: dual averaging with cube-root scaling. Defazio & Jelassi 2021, arXiv:2101.11075, Algorithm 1.

    ``weight_decay`` is coupled (L2).

    Args:
        learning_rate: weight of a gradient, divided by √t (γ), in [0, ∞). Default: 0.01
        momentum: fraction of a step that is held back (μ), in [0, 1). Default: 0.9
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-06
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def mars_adamw(learning_rate: HyperLike = 0.003, *, b1: HyperLike = 0.95, b2: HyperLike = 0.99, gamma: HyperLike = 0.025, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = 0.01) -> chain:
    """AdamW on variance-reduced gradients: approximate MARS. Yuan et al. 2024, arXiv:2411.10438, Algorithm 2.

    Clips the global norm of the corrected gradients to 1, as in the paper. The published code clips each leaf's norm.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.003
        b1: decay of the mean that follows (β₁), in [0, 1). Default: 0.95
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.99
        gamma: fraction of the change that is added; 0 adds none (γ), in [0, ∞). Default: 0.025
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
    """

def momo(learning_rate: HyperLike = 1, *, b1: HyperLike = 0.9, lower_bound: HyperLike = 0, weight_decay: HyperLike = 0, adapt_lower_bound: bool = False) -> chain:
    """MoMo: momentum SGD with Polyak's step size. Schaipp et al. 2023, arXiv:2305.07583, Algorithm 1.

    ``step`` requires ``value``, the loss. ``learning_rate`` is the largest step size. ``weight_decay`` is proximal.

    Args:
        learning_rate: the longest step (α), in [0, ∞). Default: 1
        b1: decay of the means (β₁), in [0, 1). Default: 0.9
        lower_bound: the lowest loss, or a bound below it (f*). Default: 0
        weight_decay: weight of ½‖θ‖² (λ), in [0, ∞). Default: 0
        adapt_lower_bound: whether f* is estimated. Default: False
    """

def momo_adam(learning_rate: HyperLike = 0.01, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, lower_bound: HyperLike = 0, weight_decay: HyperLike = 0, adapt_lower_bound: bool = False) -> chain:
    """MoMo-Adam: Adam with Polyak's step size. Schaipp et al. 2023, arXiv:2305.07583, Algorithm 2.

    Args:
        learning_rate: the longest step (α), in [0, ∞). Default: 0.01
        b1: decay of the means (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the metric, outside the root (ε), in [0, ∞). Default: 1e-08
        lower_bound: the lowest loss, or a bound below it (f*). Default: 0
        weight_decay: weight of ½‖θ‖² (λ), in [0, ∞). Default: 0
        adapt_lower_bound: whether f* is estimated. Default: False
    """

def muon(learning_rate: HyperLike = 0.001, *, momentum: HyperLike = 0.95, nesterov: bool = True, debias: bool = False, weight_decay: HyperLike | None = 0.1, eps: HyperLike = 1e-07, iteration: Iteration = ..., sizing: str = 'spectral', dtype: str | None = None, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """Muon: orthogonalized momentum. Jordan et al. 2024. ``weight_decay`` is decoupled.

    ``adam`` has other chains for embeddings, heads and parameters that are no matrices, by path. With
    ``dtype="bfloat16"`` it is PyTorch's, and with ``debias``, which corrects the bias of the momentum, Optax's.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        momentum: decay of the momentum (β), in [0, 1). Default: 0.95
        nesterov: look ahead by one step. Default: True
        debias: correct the bias of the momentum. Default: False
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.1
        eps: added to the norm (ε), in [0, ∞). Default: 1e-07
        iteration: the polynomials that orthogonalize. Default: newton_schulz()
        sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'spectral'
        dtype: the dtype of the iterations, one of None, 'float32', 'bfloat16', 'float16'. Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def mxnet07_adam(learning_rate: float | Schedule = 0.001, *, b1: float = 0.9, b2: float = 0.999, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = None, rescale_grad: HyperLike = 1, clip_gradient: HyperLike | None = None) -> chain:
    """MXNet 0.7's Adam: like `mxnet_adam`, but θ ← θ − αₜλθ follows the step, with the bias-corrected rate αₜ.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        rescale_grad: the factor (γ). Default: 1
        clip_gradient: the largest magnitude; ∞ for no bound (c), in [0, ∞). Default: None
    """

def mxnet_adam(learning_rate: HyperLike = 0.001, *, b1: float = 0.9, b2: float = 0.999, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = None, rescale_grad: HyperLike = 1, clip_gradient: HyperLike | None = None) -> chain:
    """MXNet's Adam since 0.8: coupled decay, added after rescaling and before clipping.

    The bias correction is in the learning rate, so it does not scale ε. Chen et al. 2015,
    arXiv:1512.01274, published code.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        rescale_grad: the factor (γ). Default: 1
        clip_gradient: the largest magnitude; ∞ for no bound (c), in [0, ∞). Default: None
    """

def nadam(learning_rate: HyperLike = 0.002, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, momentum_decay: HyperLike = 0.004, weight_decay: HyperLike | None = None) -> chain:
    """Adam with Nesterov momentum. Dozat 2016. ``weight_decay`` is coupled (L2).

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.002
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
        momentum_decay: how fast the momentum rises to its limit (ψ), in [0, ∞). Default: 0.004
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def nadamw(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, weight_decay: HyperLike | None = 0.01) -> chain:
    """AdamW with Nesterov momentum, without a schedule. Dozat 2016; `nadam` has his schedule.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
    """

def noisy_sgd(learning_rate: HyperLike, *, eta: HyperLike = 0.01, gamma: HyperLike = 0.55, seed: int | jax.Array = 0) -> chain:
    """SGD with Gaussian noise of decreasing variance. Neelakantan et al. 2015, arXiv:1511.06807.

    The variance is ``eta`` at the first step, and decreases as t^−``gamma``.

    Args:
        learning_rate: length of the step (α), in [0, ∞)
        eta: variance of the noise at the first step (η), in [0, ∞). Default: 0.01
        gamma: how fast the variance falls (γ), in [0, ∞). Default: 0.55
        seed: seed of the noise. Default: 0
    """

def normuon(learning_rate: HyperLike = 0.02, *, momentum: HyperLike = 0.95, b2: HyperLike = 0.95, nesterov: bool = True, debias: bool = False, weight_decay: HyperLike | None = None, iteration: Iteration = ..., sizing: str = 'spectral', dtype: str | None = None, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """Muon with updates of equal size for all outputs. Li et al. 2025, arXiv:2510.05491. Arguments as for `muon`.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.02
        momentum: decay of the momentum (β), in [0, 1). Default: 0.95
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.95
        nesterov: look ahead by one step. Default: True
        debias: correct the bias of the momentum. Default: False
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        iteration: the polynomials that orthogonalize. Default: newton_schulz()
        sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'spectral'
        dtype: the dtype of the iterations, one of None, 'float32', 'bfloat16', 'float16'. Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def novograd(learning_rate: HyperLike = 0.01, *, b1: HyperLike = 0.95, b2: HyperLike = 0.25, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, weight_decay: HyperLike | None = None) -> chain:
    """NovoGrad: momentum on gradients normalized leaf by leaf. Ginsburg et al. 2019, arXiv:1905.11286, Algorithm 1.

    ``weight_decay`` is added to the normalized gradient, before the momentum.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.01
        b1: decay of the sum; 1 sums all updates (μ), in [0, 1]. Default: 0.95
        b2: decay of the mean squared norm (β₂), in [0, 1). Default: 0.25
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean squared norm, inside the root (ε̄), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def optimistic_adam(learning_rate: HyperLike = 0.001, *, alpha: HyperLike = 1, beta: HyperLike = 1, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, eps_root: HyperLike = 0) -> chain:
    """Adam with extrapolated updates: optimistic Adam. Daskalakis et al. 2018, arXiv:1711.00141, Algorithm 1.

    Optax uses `scale_by_nesterov_adam`, and does not extrapolate at the first step.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        alpha: weight of the update (α), in [0, ∞). Default: 1
        beta: weight of its change (β), in [0, ∞). Default: 1
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
    """

def optimistic_gradient_descent(learning_rate: HyperLike, *, alpha: HyperLike = 1, beta: HyperLike = 1) -> chain:
    """SGD on extrapolated gradients. Daskalakis et al. 2018, arXiv:1711.00141, equation 7.

    Args:
        learning_rate: length of the step (α), in [0, ∞)
        alpha: weight of the update (α), in [0, ∞). Default: 1
        beta: weight of its change (β), in [0, ∞). Default: 1
    """

def polyak_sgd(max_learning_rate: HyperLike = 1, *, scaling: HyperLike = 1, f_min: HyperLike = 0, eps: HyperLike = 0) -> chain:
    """Gradient descent with Polyak's step size. Loizou et al. 2021, arXiv:2002.10542.

    ``step`` requires ``value``, the loss. ``scaling`` is the paper's 1/c. It also multiplies
    the bound: no step exceeds scaling·max_learning_rate·‖g‖.

    Args:
        max_learning_rate: the largest factor (γ_max), in [0, ∞). Default: 1
        scaling: length of the step (α), in [0, ∞). Default: 1
        f_min: the lowest value, or a bound below it (f*). Default: 0
        eps: floor of the denominator (ε), in [0, ∞). Default: 0
    """

def prodigy(learning_rate: HyperLike = 1, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, b3: HyperLike | None = None, eps: HyperLike = 1e-08, estim_lr0: HyperLike = 1e-06, estim_lr_coef: HyperLike = 1, weight_decay: HyperLike = 0, debias: bool = False, safeguard_warmup: bool = False) -> chain:
    """AdamW with an estimated rate: Prodigy. Mishchenko & Defazio 2024, arXiv:2306.06101, Algorithm 4.

    ``b3=None`` is the paper's √b2. ``weight_decay`` is decoupled and scaled by the estimated rate.

    Args:
        learning_rate: multiple of the estimate (γ), in [0, ∞). Default: 1
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        b3: decay of the averages that estimate the rate, in [0, 1), or None for √b2. Default: None
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        estim_lr0: the first estimate (d₀), in [0, ∞). Default: 1e-06
        estim_lr_coef: multiple of the estimate from the gradients (c), in [0, ∞). Default: 1
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0
        debias: whether bias is corrected. Default: False
        safeguard_warmup: omit γ in s. Default: False
    """

def quad(learning_rate: HyperLike = 0.001, *, momentum: HyperLike = 0.95, precond_lr: HyperLike = 0.7, weight_decay: HyperLike | None = 0.1, max_size: int = 8192, max_skew: float = 1, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """PSGD with symmetric Kronecker factors, without triangular solves: PSGD-QUAD, in Li's psgd_torch.

    The update is multiplied by 0.2, so that learning rates are those of Adam. ``weight_decay`` is decoupled, and scaled
    by the rate.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        momentum: decay of the momentum (β), in [0, 1). Default: 0.95
        precond_lr: first step size of the preconditioner (η), in [0, ∞). Default: 0.7
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.1
        max_size: the longest side with a matrix; longer ones have a diagonal, a whole number from 1. Default: 8192
        max_skew: the largest length of a side with a matrix, as a multiple of the other. Default: 1
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def racs(learning_rate: HyperLike = 0.02, *, decay: HyperLike = 0.9, gamma: HyperLike = 1.01, weight_decay: HyperLike | None = None, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """One number a row and one a column. Gong et al. 2025, arXiv:2502.07752.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.02
        decay: decay of the scales (β), in [0, 1). Default: 0.9
        gamma: the factor by which the norm may grow in a step (γ), in [1, ∞). Default: 1.01
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def radam(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, weight_decay: HyperLike | None = None) -> chain:
    """Rectified Adam: no scaling until the mean square is reliable. Liu et al. 2020, arXiv:1908.03265, Algorithm 2.

    ``weight_decay`` is coupled (L2); in `radamw` it is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def radamw(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, weight_decay: HyperLike | None = 0.01) -> chain:
    """`radam` with decoupled weight decay.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
    """

def rmsprop(learning_rate: HyperLike = 0.01, *, decay: HyperLike = 0.99, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, initial_scale: HyperLike = 0, centered: bool = False, bias_correction: bool = False, momentum: HyperLike | None = None, weight_decay: HyperLike | None = None) -> chain:
    """RMSprop: divide by the root mean square of gradients. Tieleman & Hinton 2012.

    ``centered`` divides by the standard deviation: Graves 2013, arXiv:1308.0850.
    As in PyTorch, ε is outside the root, momentum is on the scaled gradient, and ``weight_decay`` is coupled (L2).
    Optax has ``eps_root=1e-8`` and ``eps=0``.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.01
        decay: decay of the mean and the mean square (ρ), in [0, 1). Default: 0.99
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the variance, inside the root (ε̄), in [0, ∞). Default: 0
        initial_scale: initial mean square (s₀), in [0, ∞). Default: 0
        centered: whether to divide by the standard deviation in place of the root mean square. Default: False
        bias_correction: whether the mean square is divided by 1 − βᵗ. Default: False
        momentum: decay of the sum; 1 sums all updates (μ), in [0, 1]. Default: None
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def rprop(learning_rate: HyperLike = 0.01, *, eta_minus: HyperLike = 0.5, eta_plus: HyperLike = 1.2, min_step_size: HyperLike = 1e-06, max_step_size: HyperLike = 50) -> chain:
    """Rprop: a step size for each coordinate, for full-batch gradients. Riedmiller & Braun 1993; see `scale_by_rprop`.

    ``learning_rate`` is the initial step size.

    Args:
        learning_rate: the first step size (Δ₀), in [0, ∞). Default: 0.01
        eta_minus: factor when the sign changes (η₋), in [0, 1]. Default: 0.5
        eta_plus: factor while the sign stays the same (η₊), in [1, ∞). Default: 1.2
        min_step_size: the smallest step size (Δ_min), in [0, ∞). Default: 1e-06
        max_step_size: the largest step size (Δ_max), in [0, ∞). Default: 50
    """

def schedule_free_adamw(learning_rate: HyperLike = 0.0025, *, warmup_steps: float = 0, b1: float = 0.9, b2: float = 0.999, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = None, weight_lr_power: float = 2, debias: str = 'rate') -> chain:
    """AdamW with an average in place of a schedule. Defazio et al. 2024, arXiv:2405.15682, Algorithm 1.

    ``debias`` corrects the bias in the "rate", and hence in the weights of the average, as in the paper; or in the mean
    "square", as in later published code and in Optax. Evaluate at `schedule_free_eval_params`. ``weight_decay`` is
    decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.0025
        warmup_steps: steps in which the rate rises, in [0, ∞). Default: 0
        b1: weight of the mean in the parameters (β), in [0, 1]. Default: 0.9
        b2: decay of the mean square (ρ), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        weight_lr_power: power of the rate in the weight of a step (p), in [0, ∞). Default: 2
        debias: what the correction of the bias is for, 'rate' or 'square'. Default: 'rate'
    """

def schedule_free_sgd(learning_rate: HyperLike = 1, *, warmup_steps: float = 0, b1: float = 0.9, weight_lr_power: float = 2, weight_decay: HyperLike | None = None) -> chain:
    """SGD with an average in place of a schedule. Defazio et al. 2024, arXiv:2405.15682.

    Evaluate at `schedule_free_eval_params`. ``weight_decay`` is coupled (L2).

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 1
        warmup_steps: steps in which the rate rises, in [0, ∞). Default: 0
        b1: weight of the mean in the parameters (β), in [0, 1]. Default: 0.9
        weight_lr_power: power of the rate in the weight of a step (p), in [0, ∞). Default: 2
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def scion(learning_rate: HyperLike, *, momentum: HyperLike = 0.9, radius: HyperLike = 50, constrained: bool = True, iteration: Iteration = ..., dtype: str | None = None, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, oracles: by_path | None = None) -> chain:
    """Steps towards the boundary of a norm's ball. Pethick et al. 2025, arXiv:2502.07529, Algorithms 1 and 2.

    The norm is the spectral one; ``oracles`` has others by path, such as ``by_path({"head": scale_by_lmo("sign",
    radius=3000.0), "bias": scale_by_lmo("rows", matrices=", out")})``. ``constrained`` keeps parameters within the
    balls, by a weight decay of 1, which is the paper's Scion; its unconstrained one has none.

    Args:
        learning_rate: length of the step (α), in [0, ∞)
        momentum: decay of the mean (β), in [0, 1). Default: 0.9
        radius: radius of the ball (ρ), in [0, ∞). Default: 50
        constrained: whether a weight decay of 1 keeps parameters within the ball. Default: True
        iteration: the polynomials that orthogonalize. Default: newton_schulz()
        dtype: the dtype of the iterations, one of None, 'float32', 'bfloat16', 'float16'. Default: None
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        oracles: links by path for parameters with another norm, such as by_path({'bias': scale_by_lmo('rows')}). Default: None
    """

def sgd(learning_rate: HyperLike, *, momentum: HyperLike | None = None, dampening: HyperLike = 0, nesterov: bool = False, weight_decay: HyperLike | None = None) -> chain:
    """Stochastic gradient descent, with PyTorch's momentum. Robbins & Monro 1951; Polyak 1964.

    ``weight_decay`` is coupled (L2): it is added before the momentum. ``nesterov`` looks ahead in the update; to
    take the gradient at the look-ahead point instead, use momentum without it and `chain.lookahead`.

    Args:
        learning_rate: length of the step (α), in [0, ∞)
        momentum: decay of the sum; 1 sums all updates (μ), in [0, 1]. Default: None
        dampening: fraction of a new update that is dropped (τ), in [0, 1]. Default: 0
        nesterov: look one step ahead. Default: False
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def sgd_ema(learning_rate: HyperLike, *, decay: HyperLike = 0.9) -> chain:
    """SGD on a moving average of gradients: m ← βm + (1−β)g, θ ← θ − αm.

    Args:
        learning_rate: length of the step (α), in [0, ∞)
        decay: decay of the mean (β), in [0, 1). Default: 0.9
    """

def sgd_sutskever(learning_rate: HyperLike, *, momentum: HyperLike = 0.9) -> chain:
    """Momentum SGD with the learning rate inside the sum: b ← μb + αg, θ ← θ − b. Sutskever et al. 2013.

    Differs from `sgd` if the learning rate changes: here each gradient keeps the rate of its own step.

    Args:
        learning_rate: length of the step (α), in [0, ∞)
        momentum: decay of the sum; 1 sums all updates (μ), in [0, 1]. Default: 0.9
    """

def shampoo(learning_rate: HyperLike = 0.01, *, momentum: HyperLike = 0.9, nesterov: bool = False, b2: HyperLike = 1, eps: HyperLike = 1e-06, magnitude: Any = ..., weight_decay: HyperLike | None = None, update_every: HyperLike = 10, block_size: int = 1024, sides: str = 'both', matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """Shampoo in blocks, with the norm of another update. Anil et al. 2020, arXiv:2002.09018.

    ``magnitude`` is the chain whose update gives each matrix its norm; the learning rate is that of this chain. With
    ``None``, ``momentum=0`` and one block it is Gupta et al. 2018, arXiv:1802.09568, Algorithm 1.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.01
        momentum: decay of the sum; 1 sums all updates (μ), in [0, 1]. Default: 0.9
        nesterov: look one step ahead. Default: False
        b2: decay of the statistics; 1 for their sum (β₂), in [0, 1]. Default: 1
        eps: added to the eigenvalues of the statistics (ε), in [0, ∞). Default: 1e-06
        magnitude: the chain whose norm is taken. Default: scale_by_adagrad()
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        update_every: steps between two computations of the roots (k), in [1, ∞). Default: 10
        block_size: the most rows and columns of a block, a whole number from 1. Default: 1024
        sides: the sides that have statistics, one of 'both', 'shorter', 'rows', 'columns'. Default: 'both'
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def sign_sgd(learning_rate: HyperLike = 0.0001, *, weight_decay: HyperLike | None = None) -> chain:
    """SGD with the sign of each gradient. Bernstein et al. 2018, arXiv:1802.04434, Algorithm 1.

    ``weight_decay`` is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.0001
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def signum(learning_rate: HyperLike = 0.0001, *, momentum: HyperLike = 0.9, weight_decay: HyperLike | None = None) -> chain:
    """SGD with the sign of the mean gradient. Bernstein et al. 2018, arXiv:1802.04434, Algorithm 2.

    ``weight_decay`` is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.0001
        momentum: decay of the mean (β), in [0, 1). Default: 0.9
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def simplified_ademamix(learning_rate: HyperLike = 0.0001, *, b1: HyperLike = 0.99, b2: HyperLike = 0.95, alpha: HyperLike = 0, eps: HyperLike = 1e-08, eps_root: HyperLike = 0, weight_decay: HyperLike | None = None) -> chain:
    """Simplified AdEMAMix: Adam with a decaying sum and the newest gradient. Morwani et al. 2025, arXiv:2502.02431.

    ``weight_decay`` is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.0001
        b1: decay of the sum (β₁), in [0, 1). Default: 0.99
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.95
        alpha: weight of the newest gradient (α), in [0, ∞). Default: 0
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        eps_root: added to the mean square, inside the root (ε̄), in [0, ∞). Default: 0
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def sm3(learning_rate: HyperLike = 0.1, *, momentum: HyperLike = 0.9, b2: HyperLike = 1, eps: HyperLike = 0) -> chain:
    """SM3: Adagrad with a sum for each row and column. Anil et al. 2019, arXiv:1901.11150, SM3-II.

    The momentum is as in its section 5.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.1
        momentum: decay of the mean (β), in [0, 1). Default: 0.9
        b2: decay of the bound (β₂), in [0, 1]. Default: 1
        eps: added to the bound, inside the root (ε), in [0, ∞). Default: 0
    """

def soap(learning_rate: HyperLike = 0.003, *, b1: HyperLike = 0.95, b2: HyperLike = 0.95, shampoo_beta: HyperLike = 0.95, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = 0.01, update_every: HyperLike = 10, sides: str = 'both', max_precond_dim: int = 10000, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """Adam in the eigenbases of Shampoo's statistics. Vyas et al. 2024, arXiv:2409.11321, Algorithm 3.

    The decay is AdamW's; the published code shrinks the parameters after the step, and not at the first one.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.003
        b1: decay of the mean (β₁), in [0, 1). Default: 0.95
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.95
        shampoo_beta: decay of the statistics (β₃), in [0, 1). Default: 0.95
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
        update_every: steps between two changes of the bases (k), in [1, ∞). Default: 10
        sides: the sides that have statistics, one of 'both', 'shorter', 'rows', 'columns'. Default: 'both'
        max_precond_dim: the longest side that has statistics, a whole number from 0. Default: 10000
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def sophia(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.965, b2: HyperLike = 0.99, gamma: HyperLike = 0.01, eps: HyperLike = 1e-12, update_interval: HyperLike = 10, weight_decay: HyperLike | None = None) -> chain:
    """Sophia: divide by the Hessian's diagonal, and clip. Liu et al. 2023, arXiv:2305.14342, Algorithm 3.

    ``step`` requires ``hessian``, an estimate of the diagonal: see `scale_by_sophia` and `hutchinson`.
    ``weight_decay`` is decoupled.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.965
        b2: decay of the mean curvature (β₂), in [0, 1). Default: 0.99
        gamma: factor of the curvature in the denominator (γ), in [0, ∞). Default: 0.01
        eps: floor of the denominator (ε), in [0, ∞). Default: 1e-12
        update_interval: steps between two estimates (k), in [1, ∞). Default: 10
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """

def splus(learning_rate: HyperLike = 0.1, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, ema_decay: HyperLike | None = 0.999, weight_decay: HyperLike | None = None, update_every: HyperLike = 100, sides: str = 'both', max_precond_dim: int = 10000, matrices: matrices | by_path | str = ..., over: str | tuple[str, ...] | None = None, adam: by_path | None = None) -> chain:
    """The sign of the momentum in Shampoo's eigenbases, and an average. Frans et al. 2025, arXiv:2506.07254.

    Evaluate at `read_average`. The decay is not multiplied by 2/(m + n), as it is in pytorch_optimizer.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.1
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the statistics (β₂), in [0, 1). Default: 0.999
        ema_decay: decay of the average (β), in [0, 1]. Default: 0.999
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
        update_every: steps between two changes of the bases (k), in [1, ∞). Default: 100
        sides: the sides that have statistics, one of 'both', 'shorter', 'rows', 'columns'. Default: 'both'
        max_precond_dim: the longest side that has statistics, a whole number from 0. Default: 10000
        matrices: the rows and columns of each parameter. Default: matrices('in, out')
        over: the mesh axes along which devices share the matrices. Default: None
        adam: chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)}). Default: None
    """

def stable_adamw(learning_rate: HyperLike = 0.001, *, b1: HyperLike = 0.9, b2: HyperLike = 0.99, eps: HyperLike = 1e-08, weight_decay: HyperLike | None = 0.01) -> chain:
    """AdamW with Adafactor's update clipping. Wortsman et al. 2023, arXiv:2304.13013, Algorithm 2.

    Departs from the paper: only Adam's part is clipped, not the decay.

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.001
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.99
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01
    """

def yogi(learning_rate: HyperLike = 0.01, *, b1: HyperLike = 0.9, b2: HyperLike = 0.999, eps: HyperLike = 0.001, initial_accumulator_value: HyperLike = 1e-06, weight_decay: HyperLike | None = None) -> chain:
    """Yogi: Adam with a mean square that changes slowly. Zaheer et al. 2018, Algorithm 2, with bias correction.

    ``weight_decay`` is coupled (L2).

    Args:
        learning_rate: length of the step (α), in [0, ∞). Default: 0.01
        b1: decay of the mean (β₁), in [0, 1). Default: 0.9
        b2: decay of the mean square (β₂), in [0, 1). Default: 0.999
        eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 0.001
        initial_accumulator_value: initial mean square (v₀), in [0, ∞). Default: 1e-06
        weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: None
    """
