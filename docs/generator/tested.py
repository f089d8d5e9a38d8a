"""What each optimizer and link is compared with, by the file of the tests that does it."""

from __future__ import annotations

import re

TESTED = {
    "test_sgd.py": {"sgd": "`torch.optim.SGD`; NumPy", "sgd_sutskever sgd_ema": "NumPy"},
    "test_noise.py": {"noisy_sgd add_noise": "its distribution; Optax"},
    "test_dual.py": {
        "madgrad": "pytorch_optimizer",
        "asgd": "`torch.optim.ASGD`, points and means",
        "optimistic_gradient_descent optimistic_adam": "Optax; NumPy",
    },
    "test_rms.py": {
        "adagrad": "`torch.optim.Adagrad`",
        "rmsprop": "`torch.optim.RMSprop`; Optax (`eps_root`, `initial_scale`, `bias_correction`)",
        "adadelta": "`torch.optim.Adadelta`",
    },
    "test_adam.py": {
        "adam": "`torch.optim.Adam`",
        "amsgrad": "`torch.optim.Adam(amsgrad=True)`",
        "nadam": "`torch.optim.NAdam`",
        "adamw": "`torch.optim.AdamW`",
    },
    "test_decay.py": {
        "adamw_paper adamw_independent": "NumPy",
        "add_decayed_weights": "NumPy",
        "add_l1": "`jax.grad` of the loss with λ‖θ‖₁ in it",
    },
    "test_bert_mxnet.py": {"bert_adamw mxnet_adam mxnet07_adam": "the published code, in NumPy"},
    "test_adaptive.py": {
        "adamax adamaxw": "`torch.optim.Adamax`; Optax",
        "nadamw novograd adabelief adopt": "Optax",
        "radam radamw": "`torch.optim.RAdam`, both decays; Optax (`eps_root`)",
        "acprop adam_mini": "NumPy",
        "yogi": "Optax; NumPy",
        "stable_adamw laprop mars_adamw": "NumPy; pytorch_optimizer",
        "adan": "pytorch_optimizer; Optax (where β₂ = ½)",
        "ademamix simplified_ademamix": "Optax; pytorch_optimizer",
    },
    "test_sign.py": {
        "sign_sgd signum": "Optax; pytorch_optimizer",
        "lion scale_by_smooth_lion scale_by_refined_lion": "Optax",
        "rprop": "`torch.optim.Rprop`",
    },
    "test_layerwise.py": {
        "lars lamb fromage": "Optax; pytorch_optimizer",
        "scale_by_trust_ratio": "Optax",
        "normalize_by_block_norm": "NumPy",
    },
    "test_factored.py": {"adafactor": "`torch.optim.Adafactor`; Optax", "sm3": "Optax; pytorch_optimizer"},
    "test_lowrank.py": {"galore_adamw": "NumPy; Optax; pytorch_optimizer"},
    "test_curvature.py": {"sophia": "NumPy; pytorch_optimizer", "hutchinson": "the Hessian"},
    "test_lbfgs.py": {"lbfgs minimize": "SciPy's L-BFGS-B; torch; Optax; dense BFGS in NumPy"},
    "test_linesearch.py": {
        "scale_by_zoom_linesearch scale_by_backtracking_linesearch": "Optax; the conditions that they promise"
    },
    "test_sharpness.py": {"sharpness_aware adaptive_sharpness_aware": "NumPy; Optax; pytorch_optimizer"},
    "test_polyak.py": {"polyak_sgd": "Optax"},
    "test_loss.py": {"momo momo_adam": "NumPy; Optax"},
    "test_distance.py": {"dog ldog dowg": "Optax"},
    "test_dadapt.py": {
        "dadapt_sgd dadapt_adamw": "NumPy; pytorch_optimizer",
        "prodigy": "NumPy; Optax; pytorch_optimizer",
    },
    "test_betting.py": {"cocob": "Optax", "mechanize": "NumPy; Optax"},
    "test_plateau.py": {"reduce_on_plateau": "torch's `ReduceLROnPlateau`; Optax"},
    "test_schedule_free.py": {"schedule_free schedule_free_sgd schedule_free_adamw": "NumPy; Optax; pytorch_optimizer"},
    "test_average.py": {
        "ema_params": "Optax; torch's `AveragedModel`",
        "swa": "torch's `AveragedModel`",
        "slow_weights": "Optax's `lookahead`; pytorch_optimizer",
    },
    "test_muon.py": {"muon": "`torch.optim.Muon`; Optax"},
    "test_polar.py": {"newton_schulz polar_express": "the published table; NumPy"},
    "test_adaptive_muon.py": {"normuon adamuon": "pytorch_optimizer", "adago": "NumPy"},
    "test_scion.py": {"scion": "pytorch_optimizer; HeavyBall"},
    "test_dion.py": {"dion": "NumPy"},
    "test_attention.py": {"qk_clip": "pytorch_optimizer; NumPy"},
    "test_soap.py": {"soap": "pytorch_optimizer", "kl_soap kl_shampoo": "HeavyBall"},
    "test_shampoo.py": {"shampoo": "pytorch_optimizer; NumPy"},
    "test_splus.py": {"splus": "pytorch_optimizer", "asgo racs": "NumPy"},
    "test_psgd.py": {"kron": "kron-torch; pytorch_optimizer", "quad": "NumPy"},
    "test_came.py": {"came": "pytorch_optimizer"},
    "test_apollo.py": {"apollo apollo_mini fira conda": "NumPy; pytorch_optimizer"},
    "test_graft.py": {"graft": "the norms of one chain and the directions of the other"},
    "test_blocks.py": {
        "clip": "NumPy",
        "clip_by_global_norm clip_by_block_rms adaptive_grad_clip": "Optax",
        "normalize_by_update_norm scale_by_param_block_norm scale_by_param_block_rms": "Optax",
        "zero_nans ema debiased_ema trace keep_params_nonnegative": "Optax",
        "centralize": "Optax; pytorch_optimizer",
    },
    "test_per_example.py": {
        "clip_per_example clip_blocks_per_example": "Optax",
        "differentially_private_aggregate": "Optax; the noise by its distribution",
    },
    "test_modifiers.py": {
        "orthogonal_grad grokfast cautious grams adamc": "pytorch_optimizer",
        "add_cautious_decay decay_to_init": "NumPy",
    },
    "test_guards.py": {
        "skip_nonfinite": "Optax's `apply_if_finite`",
        "skip_large_updates": "the run without those steps",
        "skip_loss_spikes": "NumPy",
        "dynamic_loss_scale": "`torch.amp.GradScaler`, in float32",
    },
    "test_telemetry.py": {"record counted_clip_by_global_norm": "NumPy"},
    "test_accumulate.py": {
        "accumulate accumulate_weighted flush": "one step on the mean; Optax's `MultiSteps`",
        "apply_every": "Optax",
    },
    "test_partition.py": {"partition freeze": "Optax"},
    "test_conditional.py": {"conditionally_transform conditionally_mask": "Optax", "restart": "runs in pieces"},
    "test_reshape.py": {
        "flatten": "Optax",
        "pack": "the same chain without it",
        "split_complex": "the problem in real numbers",
    },
    "test_foreign.py": {"from_optax": "Optax itself"},
    "test_zero1.py": {"zero1": "the step on one device"},
    "test_storage.py": {"int8 int4 float8": "torchao, codes and scales to the last bit"},
    "test_rounding.py": {"apply_update": "the run in float32"},
}
"""By file and names, the reference. `tests/test_site.py` looks into each file for the names and the libraries."""

LIBRARIES = {
    "torch": "torch",
    "Optax": "optax",
    "pytorch_optimizer": "pytorch_optimizer",
    "HeavyBall": "heavyball",
    "kron-torch": "kron_torch",
    "NumPy": r"\bnp\.",
    "SciPy": "scipy",
    "torchao": "torchao",
}
"""The libraries that a reference may name, and what the source of a test that uses one contains."""


def references(name: str) -> list[tuple[str, str]]:
    """What the tests compare an optimizer or a link with, and the files that do."""
    return [(text, file) for file, rows in TESTED.items() for names, text in rows.items() if name in names.split()]


def libraries(reference: str) -> list[str]:
    """What the source of a test contains that compares with this."""
    return [sign for library, sign in LIBRARIES.items() if re.search(rf"(?<![\w-]){library}(?![\w-])", reference)]
