"""The prebuilt optimizers: each one a chain of links, to be used as it is or edited.

What all share: ``learning_rate`` and the other numbers may be numbers, schedules or `by_path`
tables. ``weight_decay=None`` leaves the decay link out; a number, 0 included, puts it in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .core.chain import chain
from .core.hyper import HyperLike, by_path
from .core.schedule import Schedule
from .schedules import bias_corrected_schedule, inverse_time_decay_schedule, polynomial_schedule, warmup_schedule
from .transforms.adam import scale_by_adam, scale_by_amsgrad, scale_by_nadam, scale_by_uncorrected_adam
from .transforms.clip import clip, clip_by_global_norm
from .transforms.decay import add_decayed_weights, decay_after_step
from .transforms.momentum import ema, trace
from .transforms.rms import scale_by_adadelta, scale_by_adagrad, scale_by_rms, scale_by_stddev
from .transforms.scale import scale, scale_by_lr


def sgd(
    learning_rate: HyperLike,
    *,
    momentum: HyperLike | None = None,
    dampening: HyperLike = 0.0,
    nesterov: bool = False,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Stochastic gradient descent, with PyTorch's momentum. Robbins & Monro 1951; Polyak 1964.

    ``weight_decay`` is L2: it enters before the momentum. ``nesterov`` looks ahead in the update; to
    take the gradient at the look-ahead point instead, use plain momentum and `chain.lookahead`.
    """
    if momentum is None and (nesterov or dampening != 0):
        raise ValueError("`sgd`: nesterov and dampening need momentum, which is None")
    return chain(
        _decay(weight_decay),
        None if momentum is None else trace(momentum, dampening, nesterov=nesterov),
        scale_by_lr(learning_rate),
    )


def sgd_sutskever(learning_rate: HyperLike, *, momentum: HyperLike = 0.9) -> chain:
    """Momentum with the learning rate inside: b ← μb + αg, θ ← θ − b. Sutskever et al. 2013.

    Differs from `sgd` where the learning rate changes: here a gradient keeps the rate it came with.
    """
    return chain(scale_by_lr(learning_rate), trace(momentum))


def sgd_ema(learning_rate: HyperLike, *, decay: HyperLike = 0.9) -> chain:
    """Momentum as a moving average: m ← βm + (1−β)g, θ ← θ − αm."""
    return chain(ema(decay), scale_by_lr(learning_rate))


def adagrad(
    learning_rate: HyperLike = 1e-2,
    *,
    lr_decay: float | None = None,
    initial_accumulator_value: HyperLike = 0.0,
    eps: HyperLike = 1e-10,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adagrad. Duchi, Hazan & Singer 2011, JMLR 12. ``weight_decay`` is coupled (L2).

    ``lr_decay`` divides a constant learning rate by 1 + (t−1)·lr_decay, as in PyTorch.
    """
    rate = learning_rate
    if lr_decay is not None:
        rate = _per_entry(lambda rate: inverse_time_decay_schedule(1.0, lr_decay) * rate, learning_rate)
    return chain(
        _decay(weight_decay),
        scale_by_adagrad(initial_accumulator_value, eps),
        scale_by_lr(rate),
    )


def rmsprop(
    learning_rate: HyperLike = 1e-2,
    *,
    decay: HyperLike = 0.99,
    eps: HyperLike = 1e-8,
    centered: bool = False,
    momentum: HyperLike | None = None,
    weight_decay: HyperLike | None = None,
) -> chain:
    """RMSprop. Tieleman & Hinton 2012; ``centered``: Graves 2013, arXiv:1308.0850.

    As in PyTorch: ε outside the root, momentum on the scaled gradient, ``weight_decay`` coupled (L2).
    """
    return chain(
        _decay(weight_decay),
        scale_by_stddev(decay, eps) if centered else scale_by_rms(decay, eps),
        None if momentum is None else trace(momentum),
        scale_by_lr(learning_rate),
    )


def adadelta(
    learning_rate: HyperLike = 1.0,
    *,
    rho: HyperLike = 0.9,
    eps: HyperLike = 1e-6,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adadelta. Zeiler 2012, arXiv:1212.5701, Algorithm 1. ``weight_decay`` is coupled (L2)."""
    return chain(_decay(weight_decay), scale_by_adadelta(rho, eps), scale_by_lr(learning_rate))


def adam(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adam. Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1. ``weight_decay`` is coupled (L2): see `adamw`."""
    return chain(_decay(weight_decay), scale_by_adam(b1, b2, eps), scale_by_lr(learning_rate))


def amsgrad(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adam with a mean square that never falls. Reddi et al. 2018, arXiv:1904.09237. ``weight_decay`` is L2."""
    return chain(_decay(weight_decay), scale_by_amsgrad(b1, b2, eps), scale_by_lr(learning_rate))


def nadam(
    learning_rate: HyperLike = 2e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    momentum_decay: HyperLike = 4e-3,
    weight_decay: HyperLike | None = None,
) -> chain:
    """Adam with Nesterov momentum. Dozat 2016. ``weight_decay`` is coupled (L2)."""
    return chain(_decay(weight_decay), scale_by_nadam(b1, b2, eps, momentum_decay), scale_by_lr(learning_rate))


def adamw(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike = 1e-2,
) -> chain:
    """Adam with decoupled weight decay. Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2.

    Departs from the paper as PyTorch does: the decay is multiplied by the learning rate too. For the
    paper's own form see `adamw_paper`, for one that no rate scales `adamw_independent`.

    >>> import chainax as cx
    >>> print(cx.adamw(1e-3).describe())
    scale_by_adam        m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  u ← m̂ / (√v̂ + ε)   β₁=0.9  β₂=0.999  ε=1e-08
    add_decayed_weights  u ← u + λθ                                                  λ=0.01
    scale_by_lr          u ← −αu                                                     α=0.001
    weight decay: decoupled (after the preconditioner), scaled by the learning rate
    state: 2 slots, 8 bytes a parameter
    """
    return chain(scale_by_adam(b1, b2, eps), add_decayed_weights(weight_decay), scale_by_lr(learning_rate))


def adamw_paper(
    schedule: HyperLike,
    *,
    learning_rate: HyperLike = 1e-3,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike = 1e-2,
) -> chain:
    """AdamW as published: θ ← θ − ηₜ(α·m̂/(√v̂+ε) + λθ). Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2.

    ``schedule`` is the multiplier ηₜ of both terms, ``learning_rate`` the α of the first alone.
    """
    return chain(
        scale_by_adam(b1, b2, eps),
        scale(learning_rate),
        add_decayed_weights(weight_decay),
        scale_by_lr(schedule),
    )


def adamw_independent(
    learning_rate: HyperLike = 1e-3,
    *,
    b1: HyperLike = 0.9,
    b2: HyperLike = 0.999,
    eps: HyperLike = 1e-8,
    weight_decay: HyperLike = 1e-5,
) -> chain:
    """Adam, then θ ← θ − λθ as a plain-SGD step of its own, which the learning rate does not scale."""
    return chain(scale_by_adam(b1, b2, eps), scale_by_lr(learning_rate), decay_after_step(weight_decay))


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
    """BERT's AdamWeightDecayOptimizer. Devlin et al. 2019, arXiv:1810.04805, the published code.

    No bias correction; no decay where ``exclude`` is found in the parameter's path; gradients clipped
    by global norm; linear warm-up, then linear decay to 0 that counts from the first step.
    """

    def rate(peak: float) -> Schedule:
        return warmup_schedule(polynomial_schedule(peak, 0.0, 1.0, total_steps), warmup_steps, restart=False)

    given = weight_decay if isinstance(weight_decay, by_path) else by_path({}, default=weight_decay)
    return chain(
        clip_by_global_norm(max_norm),
        scale_by_uncorrected_adam(b1, b2, eps),
        add_decayed_weights(by_path({exclude: 0.0, **given.table}, default=given.default)),
        scale_by_lr(_per_entry(rate, learning_rate)),
    )


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
    """MXNet's Adam, from 0.8 on: coupled decay, added after rescaling and before clipping.

    The bias correction is in the learning rate, so ε is not scaled by it. Chen et al. 2015,
    arXiv:1512.01274, the published code.
    """
    return chain(
        scale(rescale_grad),
        _decay(weight_decay),
        None if clip_gradient is None else clip(clip_gradient),
        scale_by_uncorrected_adam(b1, b2, eps),
        scale_by_lr(_per_entry(lambda rate: bias_corrected_schedule(rate, b1, b2), learning_rate)),
    )


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
    """MXNet 0.7's Adam: as `mxnet_adam`, but θ ← θ − αₜλθ follows the step, with the bias-corrected αₜ."""
    rate = bias_corrected_schedule(learning_rate, b1, b2)
    decay = None if weight_decay is None else _per_entry(lambda decay: rate * decay, weight_decay)
    return chain(
        scale(rescale_grad),
        None if clip_gradient is None else clip(clip_gradient),
        scale_by_uncorrected_adam(b1, b2, eps),
        scale_by_lr(rate),
        None if decay is None else decay_after_step(decay),
    )


def _decay(weight_decay: HyperLike | None) -> add_decayed_weights | None:
    return None if weight_decay is None else add_decayed_weights(weight_decay)


def _per_entry(schedule: Callable[[Any], Schedule], x: Any) -> Any:
    """The schedule made of a number, or of each number in a table."""
    return x.map(lambda _, entry: schedule(entry)) if isinstance(x, by_path) else schedule(x)
