"""Prebuilt optimizers. Each is a chain of links, to be used as it is or edited.

Arguments of type ``HyperLike`` may be numbers, schedules or tables such as `by_path`; those of type
``float`` must be numbers. ``weight_decay=None`` omits the decay link; any number, including 0, adds it.
The links document the meaning and range of each argument. For optimizers that exist in ``torch.optim``,
the defaults are PyTorch's, and therefore not always Optax's: `adamw` decays by 1e-2 instead of 1e-4, the decay
of `rmsprop` is 0.99 instead of 0.9, and `adagrad` starts at 0 instead of 0.1.

Optimizers that treat each matrix as a whole have three arguments more. ``matrices`` says where the matrices of a
parameter are, ``over`` names mesh axes along which devices share them, and ``adam`` is a `by_path` table of chains for
the parameters that are no matrices. Their ``weight_decay`` is decoupled, and scaled by the learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from .core.facade.chain import chain
from .core.values.contents import code
from .core.values.errors import explained
from .core.values.hyper import HyperLike
from .core.values.matrices import matrices
from .core.values.own_steps import own_steps
from .core.values.schedule import Schedule, as_schedule
from .core.values.tables import Table, by_path
from .core.values.types import HyperValue, Scalar
from .core.values.value import Range, check_number
from .schedules.basic import (
    bias_corrected_schedule,
    half_life_schedule,
    inverse_sqrt_schedule,
    inverse_time_decay_schedule,
    linear_schedule,
    polynomial_schedule,
    warmup_schedule,
)
from .transforms.averages.average import ema_params, swa
from .transforms.averages.schedule_free import schedule_free
from .transforms.clipping.blocks import clip_by_block_rms, scale_by_param_block_rms
from .transforms.clipping.clip import clip, clip_by_global_norm
from .transforms.clipping.layerwise import scale_by_lars, scale_by_trust_ratio
from .transforms.decay import add_decayed_weights, decay_after_step
from .transforms.gradients.noise import add_noise
from .transforms.matrices.adaptive_muon import scale_by_adago, scale_by_adamuon, scale_by_normuon
from .transforms.matrices.apollo import scale_by_apollo, scale_by_conda, scale_by_fira
from .transforms.matrices.came import scale_by_came
from .transforms.matrices.dion import scale_by_dion
from .transforms.matrices.kl import scale_by_kl_shampoo, scale_by_kl_soap
from .transforms.matrices.muon import scale_by_muon
from .transforms.matrices.polar import Iteration, newton_schulz
from .transforms.matrices.psgd import PUBLISHED, scale_by_psgd_kron, scale_by_psgd_quad
from .transforms.matrices.scion import scale_by_lmo
from .transforms.matrices.shampoo import scale_by_shampoo
from .transforms.matrices.soap import scale_by_soap
from .transforms.matrices.splus import scale_by_asgo, scale_by_racs, scale_by_splus
from .transforms.momentum.dual import scale_by_madgrad, scale_by_optimistic_gradient
from .transforms.momentum.ema import ema, trace
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
from .transforms.preconditioners.curvature import scale_by_sophia
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
from .transforms.preconditioners.sign import scale_by_lion, scale_by_rprop, scale_by_sign
from .transforms.step_size.betting import scale_by_cocob
from .transforms.step_size.dadapt import scale_by_dadapt_adam, scale_by_dadapt_sgd, scale_by_prodigy
from .transforms.step_size.distance import scale_by_dog, scale_by_dowg, scale_by_ldog
from .transforms.step_size.linesearch import scale_by_zoom_linesearch
from .transforms.step_size.loss import scale_by_momo, scale_by_momo_adam
from .transforms.step_size.polyak import scale_by_polyak
from .transforms.step_size.scale import scale, scale_by_lr
from .transforms.wrappers.graft import graft
from .transforms.wrappers.lowrank import scale_by_galore
from .transforms.wrappers.partition import partition

ARGUMENTS = {
    "adam": "chains by path for parameters that are no matrices, such as by_path({'embed|bias': adamw(1e-3)})",
    "b3": "decay of the averages that estimate the rate, in [0, 1), or None for √b2",
    "bias_correction": "whether the mean square is divided by 1 − βᵗ",
    "centered": "whether to divide by the standard deviation in place of the root mean square",
    "constrained": "whether a weight decay of 1 keeps parameters within the ball",
    "debias": "what the correction of the bias is for, 'rate' or 'square'",
    "exclude": "pattern of paths without weight decay",
    "alpha": "exponent of the fall of the rate",
    "max_learning_rate": "the largest learning rate, at which the decay is weight_decay",
    "oracles": "links by path for parameters with another norm, such as by_path({'bias': scale_by_lmo('rows')})",
    "t0": "steps before the average begins",
    "unnormalized": "pattern of paths of layers that no normalization follows",
    "warmup_steps": "steps in which the rate rises, in [0, ∞)",
}
"""What arguments mean that go to no field of a link as they are. `tests/stubs.py` takes the others from the links."""

STEPS = Range(low=0.0, steps=True)
"""The range of a number of warm-up steps."""


# SGD


@explained
def sgd(
    learning_rate: HyperLike,
    *,
    momentum: HyperLike | None = None,
    dampening: HyperLike = 0.0,
    nesterov: bool = False,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Stochastic gradient descent, with PyTorch's momentum. Robbins & Monro 1951; Polyak 1964.

    ``weight_decay`` is coupled (L2): it is added before the momentum. ``nesterov`` looks ahead in the update; to
    take the gradient at the look-ahead point instead, use momentum without it and `chain.lookahead`.
    """
    if momentum is None and (nesterov or dampening != 0):
        raise ValueError("`sgd`: nesterov and dampening need momentum, which is None")
    if nesterov and isinstance(momentum, (int, float)) and momentum == 0:
        raise ValueError(
            "`sgd`: nesterov needs momentum above 0, got 0: leave nesterov out, or use trace(0.0, nesterov=True)"
        )
    return chain(
        _decay(weight_decay),
        None if momentum is None else trace(momentum, dampening, nesterov=nesterov),
        scale_by_lr(learning_rate),
    )


@explained
def sgd_sutskever(learning_rate: HyperLike, *, momentum: HyperLike = 0.9) -> chain:
    """Momentum SGD with the learning rate inside the sum: b ← μb + αg, θ ← θ − b. Sutskever et al. 2013.

    Differs from `sgd` if the learning rate changes: here each gradient keeps the rate of its own step.
    """
    return chain(scale_by_lr(learning_rate), trace(momentum))


@explained
def sgd_ema(learning_rate: HyperLike, *, decay: HyperLike = 0.9) -> chain:
    """SGD on a moving average of gradients: m ← βm + (1−β)g, θ ← θ − αm."""
    return chain(ema(decay), scale_by_lr(learning_rate))


@explained
def noisy_sgd(
    learning_rate: HyperLike, *, eta: HyperLike = 0.01, gamma: HyperLike = 0.55, seed: int | jax.Array = 0
) -> chain:
    """SGD with Gaussian noise of decreasing variance. Neelakantan et al. 2015, arXiv:1511.06807.

    The variance is ``eta`` at the first step, and decreases as t^−``gamma``.
    """
    return chain(add_noise(eta, gamma, seed), scale_by_lr(learning_rate))


@explained
def asgd(
    learning_rate: HyperLike = 1e-2,
    *,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Averaged SGD, as in PyTorch. Polyak & Juditsky 1992. `read_average` returns the average.

    ``lambd`` is a weight decay that also sets the rate, α/(1 + λαk)^alpha after k steps of the parameter; α must
    therefore be a number or a table. The average is over the parameters from step ``t0`` + 2 on.
    """

    def decaying(rate: Scalar) -> Schedule:
        return rate * own_steps(inverse_time_decay_schedule(1.0, lambd * rate)) ** alpha

    return chain(
        _decay(weight_decay),
        add_decayed_weights(lambd),
        scale_by_lr(_per_entry(decaying, learning_rate)),
        swa(t0 + 2),
    )


@explained
def optimistic_gradient_descent(learning_rate: HyperLike, *, alpha: HyperLike = 1.0, beta: HyperLike = 1.0) -> chain:
    """SGD on extrapolated gradients. Daskalakis et al. 2018, arXiv:1711.00141, equation 7."""
    return chain(scale_by_optimistic_gradient(alpha, beta), scale_by_lr(learning_rate))


# Adagrad, RMSprop, Adadelta


@explained
def adagrad(
    learning_rate: HyperLike = 1e-2,
    *,
    lr_decay: float | None = None,
    initial_accumulator_value: HyperLike = 0.0,
    eps: HyperLike = 1e-10,
    eps_root: HyperLike = 0.0,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adagrad: divide by the root of the sum of squared gradients. Duchi, Hazan & Singer 2011, JMLR 12.

    ``lr_decay`` divides the learning rate by 1 + (t−1)·lr_decay, as in PyTorch; t counts a parameter's own steps.
    ``weight_decay`` is coupled (L2).
    """
    rate = learning_rate
    if lr_decay is not None:
        rate = _per_entry(lambda rate: own_steps(inverse_time_decay_schedule(1.0, lr_decay)) * rate, learning_rate)
    return chain(
        _decay(weight_decay),
        scale_by_adagrad(initial_accumulator_value, eps, eps_root),
        scale_by_lr(rate),
    )


@explained
def rmsprop(
    learning_rate: HyperLike = 1e-2,
    *,
    decay: HyperLike = 0.99,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    initial_scale: HyperLike = 0.0,
    centered: bool = False,
    bias_correction: bool = False,
    momentum: HyperLike | None = None,
    weight_decay: HyperLike | None = None,
) -> chain:
    """RMSprop: divide by the root mean square of gradients. Tieleman & Hinton 2012.

    ``centered`` divides by the standard deviation: Graves 2013, arXiv:1308.0850.
    As in PyTorch, ε is outside the root, momentum is on the scaled gradient, and ``weight_decay`` is coupled (L2).
    Optax has ``eps_root=1e-8`` and ``eps=0``.
    """
    if bias_correction:
        scaling = scale_by_debiased_stddev if centered else scale_by_debiased_rms
    else:
        scaling = scale_by_stddev if centered else scale_by_rms
    return chain(
        _decay(weight_decay),
        scaling(decay, eps, initial_scale, eps_root),
        None if momentum is None else trace(momentum),
        scale_by_lr(learning_rate),
    )


@explained
def adadelta(
    learning_rate: HyperLike = 1.0,
    *,
    rho: HyperLike = 0.9,
    eps: HyperLike = 1e-6,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adadelta: steps as large as past steps. Zeiler 2012, arXiv:1212.5701, Algorithm 1.

    ``weight_decay`` is coupled (L2).
    """
    return chain(_decay(weight_decay), scale_by_adadelta(rho, eps), scale_by_lr(learning_rate))


@explained
def madgrad(
    learning_rate: HyperLike = 1e-2,
    *,
    momentum: HyperLike = 0.9,
    eps: HyperLike = 1e-6,
    weight_decay: HyperLike | None = None,
) -> chain:
    """MADGRAD: dual averaging with cube-root scaling. Defazio & Jelassi 2021, arXiv:2101.11075, Algorithm 1.

    ``weight_decay`` is coupled (L2).
    """
    return chain(_decay(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))


# Adam


@explained
def adam(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adam: divide the mean gradient by its root mean square. Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1.

    ``weight_decay`` is coupled (L2); in `adamw` it is decoupled.
    """
    return chain(_decay(weight_decay), scale_by_adam(b1, b2, eps, eps_root=eps_root), scale_by_lr(learning_rate))


@explained
def amsgrad(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    debias: str = "after",
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adam with a mean square that never decreases. Reddi et al. 2018, arXiv:1904.09237.

    ``debias`` is "after" in PyTorch, "before" in Optax, and "never" in the paper. ``weight_decay`` is coupled (L2).
    """
    return chain(
        _decay(weight_decay), scale_by_amsgrad(b1, b2, eps, debias, eps_root=eps_root), scale_by_lr(learning_rate)
    )


@explained
def nadam(
    learning_rate: HyperLike = 2e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    momentum_decay: HyperLike = 4e-3,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adam with Nesterov momentum. Dozat 2016. ``weight_decay`` is coupled (L2)."""
    return chain(
        _decay(weight_decay), scale_by_nadam(b1, b2, eps, momentum_decay, eps_root=eps_root), scale_by_lr(learning_rate)
    )


@explained
def adamax(
    learning_rate: HyperLike = 2e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adam with a decaying maximum for the root mean square. Kingma & Ba 2015, arXiv:1412.6980, Algorithm 2.

    ``weight_decay`` is coupled (L2); in `adamaxw` it is decoupled.
    """
    return chain(_decay(weight_decay), scale_by_adamax(b1, b2, eps), scale_by_lr(learning_rate))


@explained
def radam(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Rectified Adam: no scaling until the mean square is reliable. Liu et al. 2020, arXiv:1908.03265, Algorithm 2.

    ``weight_decay`` is coupled (L2); in `radamw` it is decoupled.
    """
    return chain(_decay(weight_decay), scale_by_radam(b1, b2, eps, eps_root=eps_root), scale_by_lr(learning_rate))


# Adam with decoupled weight decay


@explained
def adamw(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    weight_decay: HyperLike | None = 1e-2,
) -> chain:
    """Adam with decoupled weight decay. Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2.

    Departs from the paper as PyTorch does: the decay is multiplied by the learning rate too. `adamw_paper` has the
    paper's form, and `adamw_independent` a decay that the learning rate does not scale.

    >>> import chainax as cx
    >>> print(cx.adamw(1e-3).describe())
    scale_by_adam        m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  u ← m̂ / (√(v̂+ε̄) + ε)   β₁=0.9  β₂=0.999  ε=1e-08  ε̄=0
    add_decayed_weights  u ← u + λθ                                                      λ=0.01
    scale_by_lr          u ← −αu                                                         α=0.001
    weight decay: decoupled (after the preconditioner), scaled by the learning rate
    state: 2 slots, 8 bytes a parameter
    """
    return chain(scale_by_adam(b1, b2, eps, eps_root=eps_root), _decay(weight_decay), scale_by_lr(learning_rate))


@explained
def adamw_paper(
    schedule: HyperLike,
    *,
    learning_rate: HyperLike = 1e-3,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = 1e-2,
) -> chain:
    """AdamW as published: θ ← θ − ηₜ(α·m̂/(√v̂+ε) + λθ). Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2.

    ``schedule`` is the multiplier ηₜ of both terms, ``learning_rate`` the α of the first alone.
    """
    return chain(
        scale_by_adam(b1, b2, eps),
        scale(learning_rate),
        _decay(weight_decay),
        scale_by_lr(schedule),
    )


@explained
def adamw_independent(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = 1e-5,
) -> chain:
    """Adam, then a separate decay step θ ← θ − λθ, which the learning rate does not scale."""
    after = None if weight_decay is None else decay_after_step(weight_decay)
    return chain(scale_by_adam(b1, b2, eps), scale_by_lr(learning_rate), after)


@explained
def adamc(
    learning_rate: HyperLike,
    *,
    max_learning_rate: float,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: float = 1e-2,
    unnormalized: str | None = None,
) -> chain:
    """AdamW with a decay proportional to the learning rate. Defazio 2025, arXiv:2506.02285.

    λ is multiplied by α/``max_learning_rate``, except for parameters whose path matches ``unnormalized``:
    the paper's correction is for layers followed by a normalization, so not for the last layer.
    """
    corrected = weight_decay * as_schedule("adamc.learning_rate", learning_rate) / max_learning_rate
    decay = corrected if unnormalized is None else by_path({unnormalized: weight_decay}, default=corrected)
    return chain(scale_by_adam(b1, b2, eps), add_decayed_weights(decay), scale_by_lr(learning_rate))


@explained
def adamaxw(
    learning_rate: HyperLike = 2e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = 1e-2,
) -> chain:
    """`adamax` with decoupled weight decay."""
    return chain(scale_by_adamax(b1, b2, eps), _decay(weight_decay), scale_by_lr(learning_rate))


@explained
def nadamw(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    weight_decay: HyperLike | None = 1e-2,
) -> chain:
    """AdamW with Nesterov momentum, without a schedule. Dozat 2016; `nadam` has his schedule."""
    return chain(
        scale_by_nesterov_adam(b1, b2, eps, eps_root=eps_root), _decay(weight_decay), scale_by_lr(learning_rate)
    )


@explained
def radamw(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    weight_decay: HyperLike | None = 1e-2,
) -> chain:
    """`radam` with decoupled weight decay."""
    return chain(scale_by_radam(b1, b2, eps, eps_root=eps_root), _decay(weight_decay), scale_by_lr(learning_rate))


# Adam in other libraries


@explained
def bert_adamw(
    learning_rate: float | by_path = 5e-5,
    *,
    total_steps: float,
    warmup_steps: float,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-6,
    weight_decay: HyperLike = 0.01,
    exclude: str = "LayerNorm|layer_norm|bias",
    max_norm: HyperLike = 1.0,
) -> chain:
    """BERT's AdamWeightDecayOptimizer with its clip and schedule. Devlin et al. 2019, arXiv:1810.04805, published code.

    No bias correction; no decay for parameters whose path matches ``exclude``; gradients clipped
    by global norm; linear warm-up, then linear decay to 0, which counts from the first step.
    """

    def rate(peak: float) -> Schedule:
        return warmup_schedule(polynomial_schedule(peak, 0.0, 1.0, total_steps), warmup_steps, restart=False)

    decay = weight_decay if isinstance(weight_decay, by_path) else by_path({}, default=weight_decay)
    return chain(
        clip_by_global_norm(max_norm),
        scale_by_uncorrected_adam(b1, b2, eps),
        add_decayed_weights(by_path({exclude: 0.0, **decay.table}, default=decay.default)),
        scale_by_lr(_per_entry(rate, learning_rate)),
    )


@explained
def mxnet_adam(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = None,
    rescale_grad: HyperLike = 1.0,
    clip_gradient: HyperLike | None = None,
) -> chain:
    """MXNet's Adam since 0.8: coupled decay, added after rescaling and before clipping.

    The bias correction is in the learning rate, so it does not scale ε. Chen et al. 2015,
    arXiv:1512.01274, published code.
    """
    return chain(
        scale(rescale_grad),
        _decay(weight_decay),
        None if clip_gradient is None else clip(clip_gradient),
        scale_by_uncorrected_adam(b1, b2, eps),
        scale_by_lr(_per_entry(lambda rate: own_steps(bias_corrected_schedule(1.0, b1, b2)) * rate, learning_rate)),
    )


@explained
def mxnet07_adam(
    learning_rate: float | Schedule = 1e-3,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = None,
    rescale_grad: HyperLike = 1.0,
    clip_gradient: HyperLike | None = None,
) -> chain:
    """MXNet 0.7's Adam: like `mxnet_adam`, but θ ← θ − αₜλθ follows the step, with the bias-corrected rate αₜ."""
    rate = own_steps(bias_corrected_schedule(1.0, b1, b2)) * learning_rate
    decay = None if weight_decay is None else _per_entry(lambda decay: rate * decay, weight_decay)
    return chain(
        scale(rescale_grad),
        None if clip_gradient is None else clip(clip_gradient),
        scale_by_uncorrected_adam(b1, b2, eps),
        scale_by_lr(rate),
        None if decay is None else decay_after_step(decay),
    )


# Variants of Adam: the denominator


@explained
def adabelief(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-16,
    eps_root: HyperLike | None = None,
    weight_decay: HyperLike | None = None,
) -> chain:
    """AdaBelief: Adam divided by the deviation from the mean. Zhuang et al. 2020, arXiv:2010.07468, Algorithm 2.

    ``weight_decay`` is decoupled.
    """
    return chain(scale_by_belief(b1, b2, eps, eps_root=eps_root), _decay(weight_decay), scale_by_lr(learning_rate))


@explained
def acprop(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-16,
    eps_root: HyperLike | None = None,
    weight_decay: HyperLike | None = None,
) -> chain:
    """ACProp: divide by the deviation of previous gradients. Zhuang et al. 2021, arXiv:2110.05454, Algorithm 2.

    ``weight_decay`` is decoupled.
    """
    return chain(scale_by_acprop(b1, b2, eps, eps_root=eps_root), _decay(weight_decay), scale_by_lr(learning_rate))


@explained
def yogi(
    learning_rate: HyperLike = 1e-2,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-3,
    initial_accumulator_value: HyperLike = 1e-6,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Yogi: Adam with a mean square that changes slowly. Zaheer et al. 2018, Algorithm 2, with bias correction.

    ``weight_decay`` is coupled (L2).
    """
    return chain(
        _decay(weight_decay),
        scale_by_yogi(b1, b2, eps, initial_accumulator_value),
        scale_by_lr(learning_rate),
    )


@explained
def stable_adamw(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.99,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = 1e-2,
) -> chain:
    """AdamW with Adafactor's update clipping. Wortsman et al. 2023, arXiv:2304.13013, Algorithm 2.

    Departs from the paper: only Adam's part is clipped, not the decay.
    """
    return chain(scale_by_stable_adam(b1, b2, eps), _decay(weight_decay), scale_by_lr(learning_rate))


@explained
def novograd(
    learning_rate: HyperLike = 1e-2,
    *,
    b1: HyperLike = 0.95,
    b2: HyperLike = 0.25,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    weight_decay: HyperLike | None = None,
) -> chain:
    """NovoGrad: momentum on gradients normalized leaf by leaf. Ginsburg et al. 2019, arXiv:1905.11286, Algorithm 1.

    ``weight_decay`` is added to the normalized gradient, before the momentum.
    """
    return chain(
        scale_by_running_norm(b2, eps, eps_root=eps_root),
        _decay(weight_decay),
        trace(b1),
        scale_by_lr(learning_rate),
    )


# Variants of Adam: the numerator


@explained
def adan(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.98,
    b2: HyperLike = 0.92,
    b3: HyperLike = 0.99,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adan: Nesterov momentum from an average of gradient changes. Xie et al. 2022, arXiv:2208.06677, Algorithm 1.

    ``weight_decay`` is decoupled; the paper's proximal form is equal to it with the rate α/(1+αλ).
    """
    return chain(scale_by_adan(b1, b2, b3, eps, eps_root=eps_root), _decay(weight_decay), scale_by_lr(learning_rate))


@explained
def laprop(
    learning_rate: HyperLike = 4e-4,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-15,
    weight_decay: HyperLike | None = None,
) -> chain:
    """LaProp: momentum on scaled gradients. Ziyin et al. 2020, arXiv:2002.04839, Algorithm 1.

    ``weight_decay`` is decoupled.
    """
    return chain(scale_by_laprop(b1, b2, eps), _decay(weight_decay), scale_by_lr(learning_rate))


@explained
def adopt(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.9999,
    eps: HyperLike = 1e-6,
    power: HyperLike | None = 0.25,
    clip_value_fn: HyperLike | None = None,
    weight_decay: HyperLike | None = None,
) -> chain:
    """ADOPT: Adam that converges for any b2. Taniguchi et al. 2024, arXiv:2411.02853.

    Scaled gradients are clipped to (t−1)^``power``, or to ``clip_value_fn``, a number or a schedule. With
    ``power=None`` and no ``clip_value_fn`` they are not clipped. ``weight_decay`` is decoupled.
    """
    return chain(scale_by_adopt(b1, b2, eps, power, clip_value_fn), _decay(weight_decay), scale_by_lr(learning_rate))


@explained
def ademamix(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: float = 0.9,
    b2: HyperLike = 0.999,
    b3: HyperLike = 0.9999,
    alpha: HyperLike = 5.0,
    warmup_steps: float = 0.0,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    weight_decay: HyperLike | None = None,
) -> chain:
    """AdEMAMix: Adam with a second, much slower mean. Pagliardini et al. 2024, arXiv:2409.03137, Algorithm 1.

    Over ``warmup_steps`` the weight ``alpha`` rises from 0 and ``b3`` from ``b1``; both must then be numbers or tables.
    ``weight_decay`` is decoupled.
    """
    if warmup_steps := check_number("ademamix.warmup_steps", warmup_steps, STEPS):  # the first is counted as 1
        length = max(1.0, warmup_steps - 1)
        alpha = _per_entry(lambda alpha: own_steps(linear_schedule(alpha / warmup_steps, alpha, length)), alpha)
        b3 = _per_entry(lambda b3: own_steps(half_life_schedule(b1, b3, warmup_steps, -1)), b3)
    return chain(
        scale_by_ademamix(b1, b2, eps, b3, alpha, eps_root=eps_root), _decay(weight_decay), scale_by_lr(learning_rate)
    )


@explained
def simplified_ademamix(
    learning_rate: HyperLike = 1e-4,
    *,
    b1: HyperLike = 0.99,
    b2: HyperLike = 0.95,
    alpha: HyperLike = 0.0,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Simplified AdEMAMix: Adam with a decaying sum and the newest gradient. Morwani et al. 2025, arXiv:2502.02431.

    ``weight_decay`` is decoupled.
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, eps, alpha, eps_root=eps_root),
        _decay(weight_decay),
        scale_by_lr(learning_rate),
    )


@explained
def mars_adamw(
    learning_rate: HyperLike = 3e-3,
    *,
    b1: HyperLike = 0.95,
    b2: HyperLike = 0.99,
    gamma: HyperLike = 0.025,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = 1e-2,
) -> chain:
    """AdamW on variance-reduced gradients: approximate MARS. Yuan et al. 2024, arXiv:2411.10438, Algorithm 2.

    Clips the global norm of the corrected gradients to 1, as in the paper. The published code clips each leaf's norm.
    """
    return chain(
        add_gradient_change(b1, gamma),
        clip_by_global_norm(1.0),
        scale_by_adam(b1, b2, eps),
        _decay(weight_decay),
        scale_by_lr(learning_rate),
    )


@explained
def optimistic_adam(
    learning_rate: HyperLike = 1e-3,
    *,
    alpha: HyperLike = 1.0,
    beta: HyperLike = 1.0,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    eps_root: HyperLike = 0.0,
) -> chain:
    """Adam with extrapolated updates: optimistic Adam. Daskalakis et al. 2018, arXiv:1711.00141, Algorithm 1.

    Optax uses `scale_by_nesterov_adam`, and does not extrapolate at the first step.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root=eps_root),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_lr(learning_rate),
    )


# Signs


@explained
def sign_sgd(learning_rate: HyperLike = 1e-4, *, weight_decay: HyperLike | None = None) -> chain:
    """SGD with the sign of each gradient. Bernstein et al. 2018, arXiv:1802.04434, Algorithm 1.

    ``weight_decay`` is decoupled.
    """
    return chain(scale_by_sign(), _decay(weight_decay), scale_by_lr(learning_rate))


@explained
def signum(
    learning_rate: HyperLike = 1e-4,
    *,
    momentum: HyperLike = 0.9,
    weight_decay: HyperLike | None = None,
) -> chain:
    """SGD with the sign of the mean gradient. Bernstein et al. 2018, arXiv:1802.04434, Algorithm 2.

    ``weight_decay`` is decoupled.
    """
    return chain(ema(momentum), scale_by_sign(), _decay(weight_decay), scale_by_lr(learning_rate))


@explained
def lion(
    learning_rate: HyperLike = 1e-4,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.99,
    weight_decay: HyperLike | None = 1e-3,
) -> chain:
    """Lion: SGD with the sign of a mean gradient. Chen et al. 2023, arXiv:2302.06675, Algorithm 2.

    Its steps are larger than AdamW's: the paper suggests a rate 3 to 10 times smaller, and a decay larger by the same.
    Optax's other modes are ``lion().replace("scale_by_lion", scale_by_smooth_lion())`` and `scale_by_refined_lion`.
    """
    return chain(scale_by_lion(b1, b2), _decay(weight_decay), scale_by_lr(learning_rate))


@explained
def rprop(
    learning_rate: HyperLike = 1e-2,
    *,
    eta_minus: HyperLike = 0.5,
    eta_plus: HyperLike = 1.2,
    min_step_size: HyperLike = 1e-6,
    max_step_size: HyperLike = 50.0,
) -> chain:
    """Rprop: a step size for each coordinate, for full-batch gradients. Riedmiller & Braun 1993; see `scale_by_rprop`.

    ``learning_rate`` is the initial step size.
    """
    return chain(
        scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size),
        scale_by_lr(1.0),
    )


# Norms of leaves


@explained
def lars(
    learning_rate: HyperLike,
    *,
    momentum: HyperLike = 0.9,
    nesterov: bool = False,
    weight_decay: HyperLike = 0.0,
    trust_coefficient: HyperLike = 1e-3,
    eps: HyperLike = 0.0,
) -> chain:
    """LARS: momentum SGD with a rate for each leaf. You et al. 2017, arXiv:1708.03888, Algorithm 1.

    The momentum sums steps, each with the rate of its own step. ``weight_decay`` is added before the trust ratio and
    the momentum.
    """
    return chain(
        scale_by_lars(trust_coefficient, weight_decay, eps),
        scale_by_lr(learning_rate),
        trace(momentum, nesterov=nesterov),
    )


@explained
def lamb(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-6,
    eps_root: HyperLike = 0.0,
    weight_decay: HyperLike | None = None,
) -> chain:
    """LAMB: AdamW with a trust ratio for each leaf. You et al. 2020, arXiv:1904.00962, Algorithm 2, with φ(z) = z.

    The trust ratio includes the decay.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root=eps_root),
        _decay(weight_decay),
        scale_by_trust_ratio(),
        scale_by_lr(learning_rate),
    )


@explained
def fromage(learning_rate: HyperLike = 1e-2, *, min_norm: HyperLike = 0.0) -> chain:
    """Fromage: steps relative to the norm of each leaf. Bernstein et al. 2020, arXiv:2002.03432, Algorithm 1.

    Optax has a ``min_norm`` of 1e-6.
    """
    return chain(
        scale_by_trust_ratio(min_norm=min_norm),
        scale_by_lr(learning_rate),
        decay_after_step(_per_entry(_back_to_the_sphere, learning_rate)),
    )


# Less memory


@explained
def adam_mini(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    block_axes: tuple[int, ...] = (),
    weight_decay: HyperLike | None = 1e-2,
) -> chain:
    """AdamW with one mean square for each block of a leaf. Zhang et al. 2025, arXiv:2406.16793, Algorithm 1.

    ``block_axes`` index the blocks of a leaf: see `scale_by_adam_mini`.
    """
    return chain(
        scale_by_adam_mini(b1, b2, eps, block_axes),
        _decay(weight_decay),
        scale_by_lr(learning_rate),
    )


@explained
def adafactor(
    learning_rate: HyperLike | None = None,
    *,
    decay_rate: HyperLike = 0.8,
    decay_offset: HyperLike = 0.0,
    b2: HyperLike | None = None,
    eps: HyperLike = 1e-30,
    min_dim_size_to_factor: int = 128,
    clipping_threshold: HyperLike | None = 1.0,
    min_scale: HyperLike | None = 1e-3,
    momentum: HyperLike | None = None,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adafactor: a factored second moment and relative steps. Shazeer & Stern 2018, arXiv:1804.04235, Algorithm 6.

    The default rate is the paper's min(10⁻², 1/√t). The rate is relative to the RMS of a parameter, or
    to ``min_scale`` if that is larger; with ``min_scale=None`` it is absolute. ``weight_decay``, which is not in the
    paper, is decoupled. ``momentum`` averages the update before the learning rate, the published code after it.
    The decay of the mean square is 1 − (t − ``decay_offset``)^−``decay_rate``, or ``b2``, a number or a schedule.
    """
    return chain(
        scale_by_factored_rms(decay_rate, eps, min_dim_size_to_factor, step_offset=decay_offset, b2=b2),
        None if clipping_threshold is None else clip_by_block_rms(clipping_threshold),
        None if min_scale is None else scale_by_param_block_rms(min_scale),
        None if momentum is None else ema(momentum),
        _decay(weight_decay),
        scale_by_lr(own_steps(inverse_sqrt_schedule(1e-2, 1e4, 1e-2, 1.0)) if learning_rate is None else learning_rate),
    )


@explained
def sm3(
    learning_rate: HyperLike = 0.1, *, momentum: HyperLike = 0.9, b2: HyperLike = 1.0, eps: HyperLike = 0.0
) -> chain:
    """SM3: Adagrad with a sum for each row and column. Anil et al. 2019, arXiv:1901.11150, SM3-II.

    The momentum is as in its section 5.
    """
    return chain(scale_by_sm3(eps, b2), ema(momentum), scale_by_lr(learning_rate))


@explained
def galore_adamw(
    learning_rate: HyperLike = 1e-2,
    *,
    rank: int = 128,
    update_proj_gap: HyperLike = 200,
    scale: HyperLike = 0.25,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = None,
) -> chain:
    """AdamW on low-rank gradients. Zhao et al. 2024, arXiv:2403.03507, Algorithm 2.

    ``weight_decay`` is decoupled, and acts on the full parameters, without the projection.
    """
    return chain(
        scale_by_galore(scale_by_adam(b1, b2, eps), rank, update_proj_gap, scale),
        _decay(weight_decay),
        scale_by_lr(learning_rate),
    )


# Curvature


@explained
def lbfgs(
    learning_rate: HyperLike = 1.0,
    *,
    memory_size: int = 10,
    scale_init_precond: bool = True,
) -> chain:
    """L-BFGS with a strong-Wolfe line search. Liu & Nocedal 1989; Nocedal & Wright 2006, Algorithms 7.4, 7.5 and 3.5.

    ``step`` requires ``value``, ``grad`` and ``value_fn``: see `value_and_grad_from_state` and
    `minimize`. The search starts at ``learning_rate``. For another search replace the last link;
    for a constant rate remove it, after which no extra arguments are required.
    """
    return chain(
        scale_by_lbfgs(memory_size, scale_init_precond),
        scale_by_lr(learning_rate),
        scale_by_zoom_linesearch(initial_guess_strategy="one"),
    )


@explained
def sophia(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.965,
    b2: HyperLike = 0.99,
    gamma: HyperLike = 0.01,
    eps: HyperLike = 1e-12,
    update_interval: HyperLike = 10,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Sophia: divide by the Hessian's diagonal, and clip. Liu et al. 2023, arXiv:2305.14342, Algorithm 3.

    ``step`` requires ``hessian``, an estimate of the diagonal: see `scale_by_sophia` and `hutchinson`.
    ``weight_decay`` is decoupled.
    """
    return chain(
        scale_by_sophia(b1, b2, gamma, eps, update_interval),
        _decay(weight_decay),
        scale_by_lr(learning_rate),
    )


# Step sizes from the loss


@explained
def polyak_sgd(
    max_learning_rate: HyperLike = 1.0,
    *,
    scaling: HyperLike = 1.0,
    f_min: HyperLike = 0.0,
    eps: HyperLike = 0.0,
) -> chain:
    """Gradient descent with Polyak's step size. Loizou et al. 2021, arXiv:2002.10542.

    ``step`` requires ``value``, the loss. ``scaling`` is the paper's 1/c. It also multiplies
    the bound: no step exceeds scaling·max_learning_rate·‖g‖.
    """
    return chain(scale_by_polyak(f_min, max_learning_rate, eps), scale_by_lr(scaling))


@explained
def momo(
    learning_rate: HyperLike = 1.0,
    *,
    b1: HyperLike = 0.9,
    lower_bound: HyperLike = 0.0,
    weight_decay: HyperLike = 0.0,
    adapt_lower_bound: bool = False,
) -> chain:
    """MoMo: momentum SGD with Polyak's step size. Schaipp et al. 2023, arXiv:2305.07583, Algorithm 1.

    ``step`` requires ``value``, the loss. ``learning_rate`` is the largest step size. ``weight_decay`` is proximal.
    """
    return chain(
        scale_by_momo(learning_rate, b1, lower_bound, weight_decay, adapt_lower_bound),
        scale_by_lr(1.0),
    )


@explained
def momo_adam(
    learning_rate: HyperLike = 1e-2,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    lower_bound: HyperLike = 0.0,
    weight_decay: HyperLike = 0.0,
    adapt_lower_bound: bool = False,
) -> chain:
    """MoMo-Adam: Adam with Polyak's step size. Schaipp et al. 2023, arXiv:2305.07583, Algorithm 2."""
    return chain(
        scale_by_momo_adam(learning_rate, b1, lower_bound, weight_decay, adapt_lower_bound, b2, eps),
        scale_by_lr(1.0),
    )


# No learning rate to tune


@explained
def dog(
    learning_rate: HyperLike = 1.0,
    *,
    r_eps: HyperLike = 1e-6,
    relative: bool = True,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Distance over gradients (DoG): SGD that finds its rate. Ivgi et al. 2023, arXiv:2302.12022.

    ``learning_rate`` multiplies that rate. Evaluate at an average of the parameters, as the paper does.
    ``weight_decay`` is coupled (L2).
    """
    return chain(_decay(weight_decay), scale_by_dog(r_eps, relative, eps), scale_by_lr(learning_rate))


@explained
def ldog(
    learning_rate: HyperLike = 1.0,
    *,
    r_eps: HyperLike = 1e-6,
    relative: bool = True,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = None,
) -> chain:
    """`dog` leaf by leaf: L-DoG. Ivgi et al. 2023, arXiv:2302.12022. ``weight_decay`` is coupled (L2)."""
    return chain(_decay(weight_decay), scale_by_ldog(r_eps, relative, eps), scale_by_lr(learning_rate))


@explained
def dowg(
    learning_rate: HyperLike = 1.0,
    *,
    r_eps: HyperLike = 1e-2,
    relative: bool = False,
    eps: HyperLike = 0.0,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Distance over weighted gradients: SGD that finds its rate. Khaled et al. 2023, arXiv:2305.16284, Algorithm 2.

    ``weight_decay`` is coupled (L2).
    """
    return chain(_decay(weight_decay), scale_by_dowg(r_eps, relative, eps), scale_by_lr(learning_rate))


@explained
def dadapt_sgd(
    learning_rate: HyperLike = 1.0,
    *,
    momentum: HyperLike = 0.9,
    estim_lr0: HyperLike = 1e-6,
    weight_decay: HyperLike | None = None,
) -> chain:
    """SGD with an estimated rate: D-Adaptation. Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 4.

    ``weight_decay`` is coupled (L2).
    """
    return chain(
        _decay(weight_decay),
        scale_by_dadapt_sgd(learning_rate, momentum, estim_lr0),
        scale_by_lr(1.0),
    )


@explained
def dadapt_adamw(
    learning_rate: HyperLike = 1.0,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    estim_lr0: HyperLike = 1e-6,
    weight_decay: HyperLike = 0.0,
    debias: bool = False,
) -> chain:
    """AdamW with an estimated rate: D-Adaptation. Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 5.

    ``weight_decay`` is decoupled and scaled by the estimated rate.
    """
    return chain(
        scale_by_dadapt_adam(learning_rate, b1, b2, eps, estim_lr0, weight_decay, debias),
        scale_by_lr(1.0),
    )


@explained
def prodigy(
    learning_rate: HyperLike = 1.0,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    b3: HyperLike | None = None,
    eps: HyperLike = 1e-8,
    estim_lr0: HyperLike = 1e-6,
    estim_lr_coef: HyperLike = 1.0,
    weight_decay: HyperLike = 0.0,
    debias: bool = False,
    safeguard_warmup: bool = False,
) -> chain:
    """AdamW with an estimated rate: Prodigy. Mishchenko & Defazio 2024, arXiv:2306.06101, Algorithm 4.

    ``b3=None`` is the paper's √b2. ``weight_decay`` is decoupled and scaled by the estimated rate.
    """
    decay = as_schedule("prodigy.b2", b2) ** 0.5 if b3 is None else b3
    return chain(
        scale_by_prodigy(
            learning_rate, b1, b2, decay, eps, estim_lr0, estim_lr_coef, weight_decay, debias, safeguard_warmup
        ),
        scale_by_lr(1.0),
    )


@explained
def cocob(*, alpha: HyperLike = 100.0, eps: HyperLike = 1e-8, weight_decay: HyperLike | None = None) -> chain:
    """COCOB: a bet on each coordinate, without a rate. Orabona & Tommasi 2017, arXiv:1705.07795, Algorithm 2.

    ``weight_decay`` is coupled (L2).
    """
    return chain(_decay(weight_decay), scale_by_cocob(alpha, eps), scale_by_lr(1.0))


# No schedule


@explained
def schedule_free_sgd(
    learning_rate: HyperLike = 1.0,
    *,
    warmup_steps: float = 0.0,
    b1: float = 0.9,
    weight_lr_power: float = 2.0,
    weight_decay: HyperLike | None = None,
) -> chain:
    """SGD with an average in place of a schedule. Defazio et al. 2024, arXiv:2405.15682.

    Evaluate at `schedule_free_eval_params`. ``weight_decay`` is coupled (L2).
    """
    base = chain(_decay(weight_decay), scale_by_lr(_warmed_up("schedule_free_sgd", learning_rate, warmup_steps)))
    return chain(schedule_free(base, b1, weight_lr_power))


@explained
def schedule_free_adamw(
    learning_rate: HyperLike = 2.5e-3,
    *,
    warmup_steps: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = None,
    weight_lr_power: float = 2.0,
    debias: str = "rate",
) -> chain:
    """AdamW with an average in place of a schedule. Defazio et al. 2024, arXiv:2405.15682, Algorithm 1.

    ``debias`` corrects the bias in the "rate", and hence in the weights of the average, as in the paper; or in the mean
    "square", as in later published code and in Optax. Evaluate at `schedule_free_eval_params`. ``weight_decay`` is
    decoupled.
    """
    if debias not in ("rate", "square"):
        raise ValueError(f"`schedule_free_adamw.debias` must be 'rate' or 'square', got {debias!r}")
    rate, square = _warmed_up("schedule_free_adamw", learning_rate, warmup_steps), debias == "square"
    base = chain(
        scale_by_debiased_rms(b2, eps) if square else scale_by_rms(b2, eps),
        _decay(weight_decay),
        scale_by_lr(rate if square else own_steps(bias_corrected_schedule(1.0, 0.0, b2)) * rate),
    )
    return chain(schedule_free(base, b1, weight_lr_power))


# Matrices

JORDAN = newton_schulz()
"""Jordan's iterations, which orthogonalize by default."""
IN_OUT = matrices("in, out")
"""Parameters of two axes, inputs by outputs."""
ADAGRAD = scale_by_adagrad()
"""What gives Shampoo's updates their norm by default."""


@explained
def muon(
    learning_rate: HyperLike = 1e-3,
    *,
    momentum: HyperLike = 0.95,
    nesterov: bool = True,
    debias: bool = False,
    weight_decay: HyperLike | None = 0.1,
    eps: HyperLike = 1e-7,
    iteration: Iteration = JORDAN,
    sizing: str = "spectral",
    dtype: str | None = None,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """Muon: orthogonalized momentum. Jordan et al. 2024. ``weight_decay`` is decoupled.

    ``adam`` has other chains for embeddings, heads and parameters that are no matrices, by path. With
    ``dtype="bfloat16"`` it is PyTorch's, and with ``debias``, which corrects the bias of the momentum, Optax's.

    >>> import jax, chainax as cx
    >>> tx = cx.muon(0.02, adam=cx.by_path({"embed|bias": cx.adamw(3e-4)}))
    >>> params = {"kernel": jax.numpy.ones((3, 2)), "bias": jax.numpy.ones(2)}
    >>> list(tx.init(params).links["partition"])
    ['embed|bias', 'default']
    """
    return _for_matrices(
        "muon",
        learning_rate,
        weight_decay,
        adam,
        scale_by_muon(
            momentum,
            eps,
            nesterov,
            debias,
            iteration=iteration,
            sizing=sizing,
            dtype=dtype,
            matrices=matrices,
            over=over,
        ),
    )


@explained
def normuon(
    learning_rate: HyperLike = 2e-2,
    *,
    momentum: HyperLike = 0.95,
    b2: HyperLike = 0.95,
    nesterov: bool = True,
    debias: bool = False,
    weight_decay: HyperLike | None = None,
    iteration: Iteration = JORDAN,
    sizing: str = "spectral",
    dtype: str | None = None,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """Muon with updates of equal size for all outputs. Li et al. 2025, arXiv:2510.05491. Arguments as for `muon`."""
    return _for_matrices(
        "normuon",
        learning_rate,
        weight_decay,
        adam,
        scale_by_normuon(
            momentum,
            nesterov=nesterov,
            debias=debias,
            iteration=iteration,
            sizing=sizing,
            dtype=dtype,
            b2=b2,
            matrices=matrices,
            over=over,
        ),
    )


@explained
def adamuon(
    learning_rate: HyperLike = 1e-3,
    *,
    momentum: HyperLike = 0.95,
    b2: HyperLike = 0.95,
    nesterov: bool = False,
    debias: bool = False,
    weight_decay: HyperLike | None = 0.1,
    iteration: Iteration = JORDAN,
    sizing: str = "rms",
    dtype: str | None = None,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """Muon divided by its root mean square. Si et al. 2025, arXiv:2507.11005. Arguments as for `muon`."""
    return _for_matrices(
        "adamuon",
        learning_rate,
        weight_decay,
        adam,
        scale_by_adamuon(
            momentum,
            nesterov=nesterov,
            debias=debias,
            iteration=iteration,
            sizing=sizing,
            dtype=dtype,
            b2=b2,
            matrices=matrices,
            over=over,
        ),
    )


@explained
def adago(
    learning_rate: HyperLike = 5e-2,
    *,
    momentum: HyperLike = 0.95,
    gamma: HyperLike = 10.0,
    floor: HyperLike = 1e-2,
    weight_decay: HyperLike | None = None,
    iteration: Iteration = JORDAN,
    sizing: str = "none",
    dtype: str | None = None,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """Muon with AdaGrad's step size. Zhang et al. 2025, arXiv:2509.02981. Arguments as for `muon`."""
    return _for_matrices(
        "adago",
        learning_rate,
        weight_decay,
        adam,
        scale_by_adago(
            momentum, gamma, floor, iteration=iteration, sizing=sizing, dtype=dtype, matrices=matrices, over=over
        ),
    )


@explained
def dion(
    learning_rate: HyperLike = 1e-2,
    *,
    momentum: HyperLike = 0.95,
    rank_fraction: float = 1.0,
    rank: int | None = None,
    weight_decay: HyperLike | None = 1e-2,
    sizing: str = "mup",
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """Orthonormal updates of low rank. Ahn et al. 2025, arXiv:2504.05295. ``adam`` is as for `muon`."""
    return _for_matrices(
        "dion",
        learning_rate,
        weight_decay,
        adam,
        scale_by_dion(momentum, rank_fraction, rank, sizing, matrices=matrices, over=over),
    )


@explained
def scion(
    learning_rate: HyperLike,
    *,
    momentum: HyperLike = 0.9,
    radius: HyperLike = 50.0,
    constrained: bool = True,
    iteration: Iteration = JORDAN,
    dtype: str | None = None,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    oracles: by_path | None = None,
) -> chain:
    """Steps towards the boundary of a norm's ball. Pethick et al. 2025, arXiv:2502.07529, Algorithms 1 and 2.

    The norm is the spectral one; ``oracles`` has others by path, such as ``by_path({"head": scale_by_lmo("sign",
    radius=3000.0), "bias": scale_by_lmo("rows", matrices=", out")})``. ``constrained`` keeps parameters within the
    balls, by a weight decay of 1, which is the paper's Scion; its unconstrained one has none.
    """
    spectral = scale_by_lmo("spectral", radius, iteration=iteration, dtype=dtype, matrices=matrices, over=over)
    return chain(
        ema(momentum),
        _beside(chain(spectral), "scion.oracles", oracles),
        _decay(1.0 if constrained else None),
        scale_by_lr(learning_rate),
    )


@explained
def soap(
    learning_rate: HyperLike = 3e-3,
    *,
    b1: HyperLike = 0.95,
    b2: HyperLike = 0.95,
    shampoo_beta: HyperLike = 0.95,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = 1e-2,
    update_every: HyperLike = 10,
    sides: str = "both",
    max_precond_dim: int = 10_000,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """Adam in the eigenbases of Shampoo's statistics. Vyas et al. 2024, arXiv:2409.11321, Algorithm 3.

    The decay is AdamW's; the published code shrinks the parameters after the step, and not at the first one.
    """
    link = scale_by_soap(
        b1, b2, shampoo_beta, eps, update_every, sides, max_precond_dim=max_precond_dim, matrices=matrices, over=over
    )
    return _for_matrices("soap", learning_rate, weight_decay, adam, link)


@explained
def shampoo(
    learning_rate: HyperLike = 1e-2,
    *,
    momentum: HyperLike = 0.9,
    nesterov: bool = False,
    b2: HyperLike = 1.0,
    eps: HyperLike = 1e-6,
    magnitude: Any = ADAGRAD,
    weight_decay: HyperLike | None = None,
    update_every: HyperLike = 10,
    block_size: int = 1024,
    sides: str = "both",
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """Shampoo in blocks, with the norm of another update. Anil et al. 2020, arXiv:2002.09018.

    ``magnitude`` is the chain whose update gives each matrix its norm; the learning rate is that of this chain. With
    ``None``, ``momentum=0`` and one block it is Gupta et al. 2018, arXiv:1802.09568, Algorithm 1.
    """
    link = scale_by_shampoo(b2, eps, None, update_every, block_size, sides, matrices=matrices, over=over)
    return _for_matrices(
        "shampoo",
        learning_rate,
        weight_decay,
        adam,
        link if magnitude is None else graft(link, magnitude, matrices=matrices),
        trace(momentum, nesterov=nesterov),
    )


@explained
def splus(
    learning_rate: HyperLike = 0.1,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    ema_decay: HyperLike | None = 0.999,
    weight_decay: HyperLike | None = None,
    update_every: HyperLike = 100,
    sides: str = "both",
    max_precond_dim: int = 10_000,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """The sign of the momentum in Shampoo's eigenbases, and an average. Frans et al. 2025, arXiv:2506.07254.

    Evaluate at `read_average`. The decay is not multiplied by 2/(m + n), as it is in pytorch_optimizer.
    """
    link = scale_by_splus(b1, b2, update_every, sides, max_precond_dim=max_precond_dim, matrices=matrices, over=over)
    tx = chain(link, _decay(weight_decay), scale_by_lr(learning_rate))
    return chain(_beside(tx, "splus.adam", adam), None if ema_decay is None else ema_params(ema_decay))


@explained
def kl_soap(
    learning_rate: HyperLike = 3e-3,
    *,
    b1: HyperLike = 0.95,
    b2: HyperLike = 0.95,
    shampoo_beta: HyperLike = 0.95,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = 1e-2,
    update_every: HyperLike = 10,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """SOAP with statistics that whiten each other. Lin et al. 2025, arXiv:2509.03378."""
    return _for_matrices(
        "kl_soap",
        learning_rate,
        weight_decay,
        adam,
        scale_by_kl_soap(b1, b2, shampoo_beta, eps, update_every, matrices=matrices, over=over),
    )


@explained
def kl_shampoo(
    learning_rate: HyperLike = 3e-3,
    *,
    b1: HyperLike = 0.9,
    shampoo_beta: HyperLike = 0.95,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = 1e-2,
    update_every: HyperLike = 10,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """Shampoo with statistics that whiten each other. Lin et al. 2025, arXiv:2509.03378."""
    return _for_matrices(
        "kl_shampoo",
        learning_rate,
        weight_decay,
        adam,
        scale_by_kl_shampoo(b1, shampoo_beta, eps, update_every=update_every, matrices=matrices, over=over),
    )


@explained
def asgo(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = None,
    update_every: HyperLike = 10,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """Shampoo of one side. An et al. 2025, arXiv:2503.20762."""
    return _for_matrices(
        "asgo",
        learning_rate,
        weight_decay,
        adam,
        scale_by_asgo(b1, b2, eps, update_every, matrices=matrices, over=over),
    )


@explained
def racs(
    learning_rate: HyperLike = 2e-2,
    *,
    decay: HyperLike = 0.9,
    gamma: HyperLike = 1.01,
    weight_decay: HyperLike | None = None,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """One number a row and one a column. Gong et al. 2025, arXiv:2502.07752."""
    return _for_matrices(
        "racs", learning_rate, weight_decay, adam, scale_by_racs(decay, gamma, matrices=matrices, over=over)
    )


@explained
def kron(
    learning_rate: HyperLike = 3e-4,
    *,
    momentum: HyperLike = 0.9,
    precond_lr: HyperLike = 0.1,
    precond_update_prob: HyperLike = PUBLISHED,
    weight_decay: HyperLike | None = None,
    max_size: int = 8192,
    max_skew: float = math.inf,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """PSGD with triangular Kronecker factors. Li 2015, 2018, arXiv:1512.04202, arXiv:1802.02780."""
    link = scale_by_psgd_kron(
        momentum, precond_lr, precond_update_prob, max_size=max_size, max_skew=max_skew, matrices=matrices, over=over
    )
    return _for_matrices("kron", learning_rate, weight_decay, adam, link)


@explained
def quad(
    learning_rate: HyperLike = 1e-3,
    *,
    momentum: HyperLike = 0.95,
    precond_lr: HyperLike = 0.7,
    weight_decay: HyperLike | None = 0.1,
    max_size: int = 8192,
    max_skew: float = 1.0,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """PSGD with symmetric Kronecker factors, without triangular solves: PSGD-QUAD, in Li's psgd_torch.

    The update is multiplied by 0.2, so that learning rates are those of Adam. ``weight_decay`` is decoupled, and scaled
    by the rate.
    """
    return _for_matrices(
        "quad",
        learning_rate,
        weight_decay,
        adam,
        scale_by_psgd_quad(momentum, precond_lr, max_size=max_size, max_skew=max_skew, matrices=matrices, over=over),
        scale(0.2),
    )


@explained
def came(
    learning_rate: HyperLike = 2e-4,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    b3: HyperLike = 0.9999,
    eps: HyperLike = 1e-30,
    eps_instability: HyperLike = 1e-16,
    clipping_threshold: HyperLike = 1.0,
    weight_decay: HyperLike | None = None,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """CAME: Adafactor, divided by the instability of its updates. Luo et al. 2023, arXiv:2307.02047, Algorithm 2."""
    return _for_matrices(
        "came",
        learning_rate,
        weight_decay,
        adam,
        scale_by_came(b1, b2, b3, eps, eps_instability, clipping_threshold, matrices=matrices, over=over),
    )


@explained
def apollo(
    learning_rate: HyperLike = 1e-2,
    *,
    rank: int = 256,
    update_proj_gap: HyperLike = 200,
    scale: HyperLike = 1.0,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-6,
    weight_decay: HyperLike | None = None,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """AdamW's scaling of columns, in a random projection. Zhu et al. 2024, arXiv:2412.05270, Algorithm 1."""
    return _for_matrices(
        "apollo",
        learning_rate,
        weight_decay,
        adam,
        scale_by_apollo(b1, b2, eps, rank, update_proj_gap, scale, matrices=matrices, over=over),
    )


@explained
def apollo_mini(
    learning_rate: HyperLike = 1e-2,
    *,
    update_proj_gap: HyperLike = 200,
    scale: HyperLike = 128**0.5,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-6,
    weight_decay: HyperLike | None = None,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """SGD's memory: APOLLO with one random direction and one factor a matrix. Zhu et al. 2024, arXiv:2412.05270."""
    return _for_matrices(
        "apollo_mini",
        learning_rate,
        weight_decay,
        adam,
        scale_by_apollo(b1, b2, eps, 1, update_proj_gap, scale, scale_type="tensor", matrices=matrices, over=over),
    )


@explained
def fira(
    learning_rate: HyperLike = 1e-3,
    *,
    rank: int = 128,
    update_proj_gap: HyperLike = 200,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-6,
    weight_decay: HyperLike | None = None,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """AdamW on low-rank gradients, the rest of them scaled alike. Chen et al. 2024, arXiv:2410.01623, Algorithm 1."""
    return _for_matrices(
        "fira",
        learning_rate,
        weight_decay,
        adam,
        scale_by_fira(b1, b2, eps, rank, update_proj_gap, matrices=matrices, over=over),
    )


@explained
def conda(
    learning_rate: HyperLike = 1e-3,
    *,
    update_proj_gap: HyperLike = 2000,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = None,
    matrices: matrices | by_path | str = IN_OUT,
    over: str | tuple[str, ...] | None = None,
    adam: by_path | None = None,
) -> chain:
    """AdamW in the singular directions of its mean. Wang et al. 2025, arXiv:2509.24218, Algorithm 1."""
    return _for_matrices(
        "conda",
        learning_rate,
        weight_decay,
        adam,
        scale_by_conda(b1, b2, eps, update_proj_gap, matrices=matrices, over=over),
    )


# Helpers


def _decay(weight_decay: HyperLike | None) -> add_decayed_weights | None:
    return None if weight_decay is None else add_decayed_weights(weight_decay)


def _warmed_up(name: str, learning_rate: HyperLike, warmup_steps: float) -> HyperLike:
    """The rate times t/T in the first T steps, where t is 1 at the first. ``name`` is the optimizer's, for errors."""
    warmup_steps = check_number(f"{name}.warmup_steps", warmup_steps, STEPS)
    if not warmup_steps:
        return learning_rate
    length = max(1.0, warmup_steps - 1)
    return as_schedule("learning_rate", learning_rate) * linear_schedule(1 / warmup_steps, 1.0, length)


def _per_entry(schedule: Callable[[Any], Schedule], x: HyperValue) -> Schedule | Table:
    """The schedule for a number, or the table of schedules for a table of numbers."""
    return x.map(lambda _, entry: schedule(entry)) if isinstance(x, Table) else schedule(x)


def _back_to_the_sphere(learning_rate: HyperValue) -> HyperValue:
    """1 − 1/√(1+η²) without cancellation: the fraction by which Fromage shrinks parameters after a step."""
    rate = as_schedule("fromage.learning_rate", learning_rate)
    length = (1 + rate * rate) ** 0.5
    return rate * rate / (length * (1 + length))


def _for_matrices(
    name: str, learning_rate: HyperLike, weight_decay: HyperLike | None, adam: by_path | None, *links: Any
) -> chain:
    """Links for matrices, a decoupled decay and the rate, beside the chains for other parameters in ``adam``."""
    return chain(_beside(chain(*links, _decay(weight_decay), scale_by_lr(learning_rate)), f"{name}.adam", adam))


def _beside(tx: chain, where: str, others: by_path | None) -> chain | partition:
    """The chain, except for parameters whose path matches a pattern of ``others``."""
    if others is None:
        return tx
    if not isinstance(others, by_path) or others.default is not None:
        raise ValueError(
            f"`{where}` must be by_path({{'embed|bias': adamw(1e-3)}}), chains by pattern without a default, "
            f"got {code(others)}"
        )
    return partition(by_path(others.table, default=tx))
