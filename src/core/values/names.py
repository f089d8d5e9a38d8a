"""What the arguments of other libraries are called here: PyTorch's, Optax's, Keras's and those of common trainers."""

_DECAYED = (
    "to decay some parameters only, write weight_decay=by_path({'bias|norm': 0.0}, default=0.1) or "
    "weight_decay=by_leaf(params, lambda path, p: 0.1 if p.ndim > 1 else 0.0)"
)
_STORED = "write store(tx, 'bfloat16') for the chain tx"
_CLIPPED = "write chain(clip_by_global_norm(1.0), tx) for the chain tx"
_MOMENTUM = "the momentum has a schedule of its own, as onecycle_momentum_schedule(total_steps=1000)"
_FUSED = "leave it out: every step is one fused function, which can be differentiated"
_MINIMIZED = "write minimize(lbfgs(), loss, params, max_steps=1000, tolerance=1e-6)"

OTHER_NAMES: dict[str, tuple[str, ...]] = {
    # learning rates and schedules
    "lr": ("learning_rate", "max_learning_rate", "init_value", "peak_value"),
    "learning_rate": ("step_size", "init_value", "peak_value", "the chain that the link holds has the learning rate"),
    "schedule": ("learning_rate",),
    "lr_scheduler": ("learning_rate",),
    "max_lr": ("peak_value", "max_learning_rate"),
    "base_lr": ("init_value",),
    "min_lr": ("end_value", "min_scale"),
    "eta_min": ("end_value", "give the last value as a share of the first, alpha=eta_min / init_value"),
    "T_max": ("half_period", "decay_steps"),
    "T_0": ("period",),
    "T_mult": ("factor",),
    "total_iters": ("transition_steps",),
    "milestones": ("write boundaries_and_scales={30: 0.1, 80: 0.1}",),
    "gamma": ("decay_rate", "factor"),
    "factor": ("reduction_factor",),
    "anneal_strategy": ("interpolate_type",),
    "start_factor": ("give the first value itself, init_value",),
    "end_factor": ("give the last value itself, end_value",),
    "epochs": ("give the number of all steps, total_steps",),
    "steps_per_epoch": ("give the number of all steps, total_steps",),
    "cycle_momentum": (_MOMENTUM,),
    "base_momentum": (_MOMENTUM,),
    "max_momentum": (_MOMENTUM,),
    "last_epoch": ("leave it out: the state counts the steps",),
    "verbose": ("leave it out: print tx.hyperparams(state)",),
    # moments
    "betas": ("b1", "b2", "b3"),
    "beta": ("b1", "momentum", "decay"),
    "beta1": ("b1",),
    "beta2": ("b2", "decay"),
    "beta3": ("b3",),
    "beta_1": ("b1",),
    "beta_2": ("b2", "decay"),
    "alpha": ("decay",),
    "decay": ("momentum", "rho"),
    "rho": ("decay",),
    "epsilon": ("eps",),
    "nesterov": ("Nesterov's momentum is a field of trace, and Adam's form of it are nadam and nadamw",),
    "amsgrad": ("write amsgrad(1e-3)",),
    "debias": ("write debiased_ema(0.9)",),
    "bias_correction": ("debias", "write scale_by_debiased_rms(0.99)"),
    "bias_correction_mu": ("debias",),
    "bias_correction_nu": ("debias",),
    "use_bias_correction": ("debias",),
    # weight decay
    "wd": ("weight_decay",),
    "weight_decay_rate": ("weight_decay",),
    "mask": (_DECAYED,),
    "weight_decay_mask": (_DECAYED,),
    "decoupled_weight_decay": ("the decay of adamw, nadamw and radamw is decoupled",),
    # single optimizers
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("min_step_size", "max_step_size"),
    "history_size": ("memory_size",),
    "max_iter": (_MINIMIZED,),
    "max_eval": (_MINIMIZED,),
    "tolerance_grad": (_MINIMIZED,),
    "tolerance_change": (_MINIMIZED,),
    "line_search_fn": ("leave it out: lbfgs ends in a line search with the strong Wolfe conditions",),
    "linesearch": ("write lbfgs().replace('scale_by_zoom_linesearch', scale_by_backtracking_linesearch())",),
    "beta2_decay": ("give it without its sign, decay_rate=0.8",),
    "clip_threshold": ("clipping_threshold", "gamma"),
    "d": ("clipping_threshold",),
    "d0": ("estim_lr0",),
    "d_coef": ("estim_lr_coef",),
    "key": ("write seed=0, a whole number",),
    "num_betas": ("give the numbers themselves, betas=(0.9, 0.99, 0.999)",),
    "max_squared_norm": ("give its root, max_norm",),
    # chains in links
    "inner": ("tx", "a guard holds no chain, but stands at the front of one: write chain(skip_nonfinite(), tx)"),
    "fast_optimizer": ("write chain(tx, slow_weights()) for the chain tx",),
    "opt": ("tx",),
    "optimizer": ("tx", "leave it out: a schedule stands in the place of a learning rate"),
    "base_optimizer": ("tx",),
    "every_k_schedule": ("every",),
    "k": ("every",),
    "should_transform_fn": ("condition",),
    "forward_extra_args": ("leave it out: a chain gets the arguments that its links read",),
    "max_consecutive_errors": ("max_consecutive",),
    "transforms": ("write partition(by_path({'embed': adam(1e-4)}, default=adamw(1e-3)))",),
    "param_labels": ("write partition(by_path({'embed': adam(1e-4)}, default=adamw(1e-3)))",),
    # what is a link or a function here
    "params": ("leave it out: the parameters go to tx.init(params)",),
    "maximize": ("write chain(scale(-1.0), tx) for the chain tx",),
    "clipnorm": (_CLIPPED,),
    "global_clipnorm": (_CLIPPED,),
    "max_grad_norm": (_CLIPPED,),
    "clipvalue": ("write chain(clip(1.0), tx) for the chain tx",),
    "use_ema": ("write chain(tx, ema_params(0.999)) for the chain tx",),
    "gradient_accumulation_steps": ("write accumulate(tx, 4) for the chain tx",),
    "mu_dtype": (_STORED,),
    "accumulator_dtype": (_STORED,),
    "state_dtype": (_STORED,),
    "dtype_momentum": (_STORED,),
    "foreach": (_FUSED,),
    "fused": (_FUSED,),
    "capturable": (_FUSED,),
    "differentiable": (_FUSED,),
    # extra arguments of a step
    "loss": ("value",),
    "loss_fn": ("value_fn",),
    "closure": ("value_fn",),
}
"""For the name of an argument elsewhere, the names that it may have here: a chain or link has some of them. Several
values, as those of ``betas``, belong to these names in order. Where none of them exists, a sentence says what to do."""
