"""The values that every law is tried on: links, prebuilt chains, schedules and storage formats."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
from chainax.core.engine.blocks import Blocks
from chainax.core.facade.transformation import Transformation
from chainax.core.values.value import TYPES


@cxe.transform
class recenter(cxe.Treewise):
    """Subtract a moving average of the mean over the whole tree: a whole-tree link with a state."""

    decay: cxe.Hyper = cxe.hyper("ρ", "decay of the average", default=0.9, high=1.0)

    equation = "c ← ρc + (1−ρ)·mean(u),  u ← u − c"

    def init_tree(self, params: Any) -> Any:
        """The average starts at 0."""
        return {"center": jnp.zeros(())}

    def update_tree(self, updates: Any, state: Any, params: Any, at: cxe.StepInfo) -> tuple[Any, Any]:
        """Subtract the average."""
        floats = [x for x in jax.tree.leaves(updates) if jnp.issubdtype(x.dtype, jnp.floating)]
        mean = sum((x.sum() for x in floats), jnp.zeros(())) / max(1, sum(x.size for x in floats))
        center = self.decay * state["center"] + (1 - self.decay) * mean
        return jax.tree.map(lambda x: x - center if jnp.issubdtype(x.dtype, jnp.floating) else x, updates), {
            "center": center
        }


@cxe.value
class given(Transformation):
    """A chain with the extra arguments that it reads: those of 1 + gᵀ(x − θ) + 2‖x − θ‖², whose gradient at θ is g."""

    tx: Any = cxe.child("the chain")

    @property
    def links(self) -> dict[str, cxe.Link]:
        """Those of the chain."""
        return self.tx.links

    def init(self, params: Any) -> cx.State:
        """As the chain does."""
        return self.tx.init(params)

    def update(self, updates: Any, state: cx.State, params: Any = None, **extra: Any) -> tuple[Any, cx.State]:
        """As the chain does."""
        return self.tx.update(updates, state, params, **self.extra(params, updates), **extra)

    def step(self, params: Any, state: cx.State, grads: Any, **extra: Any) -> tuple[Any, cx.State]:
        """As the chain does."""
        return self.tx.step(params, state, grads, **self.extra(params, grads), **extra)

    def extra(self, params: Any, grads: Any) -> dict[str, Any]:
        """The extra arguments that the links read."""

        def each(f: Any, there: Any) -> Any:
            def one(g: Any, x: Any, y: Any) -> Any:
                return None if g is None else f(jnp.asarray(g, y.dtype), y - jnp.asarray(x, y.dtype))

            return jax.tree.map(one, grads, params, there, is_leaf=lambda g: g is None)

        def rise(g: jax.Array, d: jax.Array) -> jax.Array:
            return jnp.sum((jnp.conj(g) * d).real + 2 * (jnp.conj(d) * d).real)

        known = {
            "value": 1.0,
            "weight": 2.0,
            "grad": jax.tree.map(jnp.conj, grads),
            "value_fn": lambda there: sum(jax.tree.leaves(each(rise, there)), jnp.ones(())),
            "grad_fn": lambda there: each(lambda g, d: g + 4 * d, there),
            "max_logits": 400.0,
            "hessian": each(lambda g, d: jnp.full_like(g, 4 + 4j if jnp.iscomplexobj(g) else 4), params),
        }
        return {name: known[name] for link in self.links.values() for name in link.extra}


@cxe.value
class in_pairs(given):
    """A chain that reduces an axis of examples, with two examples of each gradient."""

    def update(self, updates: Any, state: cx.State, params: Any = None, **extra: Any) -> tuple[Any, cx.State]:
        """As the chain does."""
        return self.tx.update(self.examples(updates), state, params, **extra)

    def step(self, params: Any, state: cx.State, grads: Any, **extra: Any) -> tuple[Any, cx.State]:
        """As the chain does."""
        return self.tx.step(params, state, self.examples(grads), **extra)

    def examples(self, grads: Any) -> Any:
        """Each gradient, and its half."""
        return jax.tree.map(lambda g: jnp.stack([g, g / 2]), grads)


WORDS = cx.matrices(",", ", out", "in, out", "_layer in, out", "h w in, out")
"""Parameters of any number of axes as matrices.

Links with bases are tried with ``sides="shorter"``: these are of full rank. Others have no unique basis.
"""
HEADS = cx.matrices(",", ", _head", "in, _head", "_layer in, _head", "h w in, _head")
"""The same, with a matrix for each output."""

LINKS = (
    cx.mechanize(cx.adamw(1.0), s_init=0.1),
    cx.scale_by_cocob(),
    cx.scale_by_dadapt_adam(estim_lr0=0.1, weight_decay=0.1),
    cx.scale_by_dadapt_sgd(estim_lr0=0.1),
    cx.scale_by_debiased_rms(),
    cx.scale_by_debiased_stddev(initial_scale=0.1, eps_root=1e-4),
    cx.scale_by_dog(0.1),
    cx.scale_by_dowg(),
    cx.scale_by_ldog(0.1),
    cx.scale_by_prodigy(estim_lr0=0.1, weight_decay=0.1, debias=True),
    cx.schedule_free(cx.chain(cx.scale_by_rms(), cx.scale_by_lr(cx.linear_schedule(0.0, 0.1, 2)))),
    given(cx.scale_by_momo(adapt_lower_bound=True, weight_decay=0.1)),
    given(cx.scale_by_momo_adam(weight_decay=0.1)),
    recenter(),
    cx.accumulate(cx.chain(cx.clip_by_global_norm(1.0), cx.sgd(0.1, momentum=0.9)), 2),
    cx.adaptive_grad_clip(0.1),
    cx.add_cautious_decay(0.1),
    cx.add_decayed_weights(0.1),
    cx.add_gradient_change(),
    cx.add_l1(0.1),
    cx.add_noise(),
    cx.apply_every(2.0),
    cx.cautious(),
    cx.centralize(),
    cx.clip(0.5),
    cx.clip_by_block_rms(0.5),
    cx.clip_by_global_norm(1.0),
    cx.conditionally_mask(cx.adam(0.1), cx.step_schedule(1.0, 2, 0.0)),
    cx.conditionally_transform(cx.ema(0.9), cx.step_schedule(1.0, 2, 0.0)),
    cx.counted_clip_by_global_norm(1.0),
    cx.debiased_ema(0.9),
    cx.decay_to_init(0.1),
    cx.dynamic_loss_scale(2.0, growth_interval=2, min_scale=0.25),
    cx.decay_after_step(0.01),
    cx.ema(0.9),
    cx.ema_params(0.9),
    cx.ema_params(0.9, debias=False),
    cx.flatten(cx.sgd(0.1, momentum=0.9)),
    cx.freeze(),
    cx.orthogonalize(matrices=WORDS),
    cx.pack(cx.sgd(0.1, momentum=0.9)),
    cx.partition(cx.by_path({"bias": cx.sgd(0.1, momentum=0.9)}, default=cx.scale(2.0))),
    cx.restart(cx.chain(cx.trace(0.9), cx.decay_to_init(0.1)), 2.0),
    cx.slow_weights(2.0),
    cx.split_complex(cx.sgd(0.1, momentum=0.9)),
    cx.swa(1.0, 2.0),
    cx.normalize_by_block_norm(),
    cx.graft(cx.scale_by_shampoo(eps=1.0, matrices=WORDS), cx.scale_by_adagrad(0.1)),
    cx.grams(),
    cx.grokfast(),
    cx.keep_params_nonnegative(),
    cx.normalize_by_update_norm(),
    cx.orthogonal_grad(),
    cx.record("norm", "rms", "max", "param_norm", "ratio"),
    cx.scale(2.0),
    cx.scale_by_acprop(eps_root=1e-8),
    cx.scale_by_adadelta(),
    cx.scale_by_adagrad(0.1),
    cx.scale_by_adago(matrices=WORDS),
    cx.scale_by_adam(),
    cx.scale_by_adam_mini(block_axes=(1,)),
    cx.scale_by_adamax(),
    cx.scale_by_adamuon(matrices=WORDS),
    cx.scale_by_adan(eps_root=1e-8),
    cx.scale_by_ademamix(),
    cx.scale_by_adopt(),
    cx.scale_by_amsgrad(),
    cx.scale_by_amsgrad(debias="before"),
    cx.scale_by_amsgrad(debias="never"),
    cx.scale_by_apollo(eps=0.1, rank=2, update_proj_gap=2, matrices=WORDS),
    cx.scale_by_asgo(b2=0.5, eps=10.0, update_every=2, sides="shorter", matrices=WORDS),
    cx.scale_by_belief(),
    cx.scale_by_came(b3=0.99, matrices=WORDS),
    cx.scale_by_conda(eps=0.1, update_proj_gap=2, matrices=WORDS),
    cx.scale_by_dion(rank_fraction=0.5, matrices=WORDS),
    cx.scale_by_factored_rms(min_dim_size_to_factor=2, step_offset=1),
    cx.scale_by_fira(rank=2, update_proj_gap=2, matrices=WORDS),
    cx.scale_by_galore(cx.scale_by_adam(), rank=2, update_proj_gap=2),
    cx.scale_by_kl_shampoo(sides="shorter", matrices=WORDS),
    cx.scale_by_kl_soap(sides="shorter", matrices=WORDS),
    cx.scale_by_laprop(),
    cx.scale_by_lars(weight_decay=0.1),
    cx.scale_by_lbfgs(),
    cx.scale_by_lion(),
    cx.scale_by_lmo(radius=2.0, matrices=WORDS),
    cx.scale_by_lmo("columns", matrices=WORDS),
    cx.scale_by_lmo("rows", matrices=WORDS),
    cx.scale_by_lmo("sign", matrices=WORDS),
    cx.scale_by_lr(0.1),
    cx.scale_by_madgrad(0.1),
    cx.scale_by_muon(matrices=WORDS),
    cx.scale_by_nadam(),
    cx.scale_by_nesterov_adam(),
    cx.scale_by_normuon(matrices=WORDS),
    cx.scale_by_optimistic_gradient(),
    cx.scale_by_optimistic_gradient(before="itself"),
    cx.scale_by_param_block_norm(),
    cx.scale_by_param_block_rms(),
    cx.scale_by_psgd_kron(matrices=WORDS),
    cx.scale_by_psgd_quad(matrices=WORDS),
    cx.scale_by_racs(matrices=WORDS),
    cx.scale_by_radam(),
    cx.scale_by_refined_lion(),
    cx.scale_by_rms(),
    cx.scale_by_rprop(),
    cx.scale_by_running_norm(),
    cx.scale_by_shampoo(eps=1.0, block_size=2, matrices=WORDS),
    cx.scale_by_sign(),
    cx.scale_by_simplified_ademamix(alpha=0.5),
    cx.scale_by_smooth_lion(),
    cx.scale_by_sm3(b2=0.9),
    cx.scale_by_soap(sides="shorter", matrices=WORDS),
    cx.scale_by_splus(sides="shorter", matrices=WORDS),
    cx.scale_by_stable_adam(),
    cx.scale_by_stddev(),
    cx.scale_by_trust_ratio(),
    cx.scale_by_uncorrected_adam(),
    cx.scale_by_yogi(),
    cx.skip_large_updates(50.0),
    cx.skip_nonfinite(),
    cx.skip_nonfinite(max_consecutive=2),
    cx.trace(0.9, 0.1),
    cx.trace(0.9, nesterov=True),
    cx.zero1(cx.chain(cx.clip_by_global_norm(1.0), cx.adam(0.1)), over="d"),
    cx.zero_nans(),
    given(cx.accumulate_weighted(cx.sgd(0.1, momentum=0.9), 2)),
    given(cx.adaptive_sharpness_aware()),
    given(cx.qk_clip(cx.by_path({"": 0.5}), matrices=HEADS)),
    given(cx.reduce_on_plateau(patience=0, cooldown=1)),
    given(cx.scale_by_polyak()),
    given(cx.scale_by_sophia(update_interval=2)),
    given(cx.sharpness_aware()),
    given(cx.skip_loss_spikes(warmup=1)),
    given(cx.chain(cx.scale_by_lr(0.5), cx.scale_by_backtracking_linesearch(store_grad=True))),
    given(cx.chain(cx.scale_by_lr(0.5), cx.scale_by_zoom_linesearch())),
    in_pairs(cx.clip_blocks_per_example(1.0, uniform=False)),
    in_pairs(cx.clip_per_example(1.0)),
    in_pairs(cx.differentially_private_aggregate(1.0, 0.1)),
)

CHAINS = (
    cx.chain(),
    cx.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    cx.sgd_sutskever(cx.cosine_decay_schedule(0.1, 100)),
    cx.sgd_ema(0.1),
    cx.adagrad(0.1, lr_decay=0.01),
    cx.rmsprop(0.01, centered=True, momentum=0.9),
    cx.adadelta(),
    cx.adam(cx.by_path({"bias": 1e-4}, default=1e-3), weight_decay=0.01),
    cx.amsgrad(1e-3),
    cx.nadam(1e-3),
    cx.adamw(cx.warmup_cosine_decay_schedule(0.0, 1e-3, 2, 10), b1=cx.linear_schedule(0.8, 0.9, 10)),
    cx.adamw_paper(cx.warm_restarts_schedule(1.0, 3, factor=2)),
    cx.adamw_independent(1e-3),
    cx.bert_adamw(1e-3, total_steps=100, warmup_steps=2),
    cx.mxnet_adam(1e-3, weight_decay=0.01, rescale_grad=0.5, clip_gradient=1.0),
    cx.mxnet07_adam(1e-3, weight_decay=0.01),
    cx.novograd(0.1, weight_decay=cx.by_ndim({1: 0.0}, default=0.01)),
    cx.mars_adamw(),
    cx.adafactor(momentum=0.9, min_dim_size_to_factor=2, weight_decay=0.01),
    cx.asgd(0.1, lambd=0.01, t0=0.0),
    cx.fromage(cx.cosine_decay_schedule(0.1, 100)),
    cx.ademamix(warmup_steps=2.0),
    cx.muon(0.02, matrices=WORDS),
    cx.muon(0.02, adam=cx.by_path({"bias": cx.adamw(1e-3)}), matrices=WORDS),
    cx.scion(1e-2, oracles=cx.by_path({"bias": cx.scale_by_lmo("rows", matrices=WORDS)}), matrices=WORDS),
    cx.chain(cx.scale_by_rms(), recenter(), cx.scale_by_lr(0.1)),
    cx.chain(z=cx.scale_by_rms(), y=cx.scale(2.0), x=cx.scale_by_lr(0.1)),
    cx.chain(cx.scale(2.0), cx.clip_by_global_norm(0.5), cx.scale_by_rms(), cx.clip(0.3), cx.scale_by_lr(0.1)),
)

REGISTRY = LINKS + CHAINS


def links_of(tx: Any) -> Iterator[Any]:
    """The links of a chain, and those of the chains inside them."""
    for link in tx.links.values():
        yield link
        for inner in link.inner.values():
            yield from links_of(inner)


MATRIX_LINKS = tuple({type(x): None for tx in REGISTRY for x in links_of(tx) if isinstance(x, cxe.Matrixwise)})
"""The classes of links that treat each matrix as a whole."""


def kind(link: Any) -> tuple[bool, ...]:
    """Which parts of the engine a link makes use of."""
    memory = not link.treewise and link.init_global_state()
    flags = ("treewise", "needs_all_updates", "reads_params", "reads_grads", "random", "can_reject", "scaling", "slots")
    flags += ("extra", "per_example", "moves_params")
    return (bool(memory), *(bool(getattr(link, flag, False)) for flag in flags))


def firsts(values: tuple, what: Callable[[Any], Any]) -> tuple:
    """The values one of whose links shows something that no link before it did."""
    seen, found = set(), []
    for tx in values:
        new = {what(link) for link in links_of(tx)} - seen
        seen |= new
        found += [tx] if new else []
    return tuple(found)


SCHEDULES = (
    cx.constant_schedule(0.3),
    cx.linear_schedule(1.0, 0.1, 7),
    cx.linear_schedule(0.0, 1.0, 20, transition_begin=5),
    cx.polynomial_schedule(1.0, 0.1, 2.0, 9),
    cx.polynomial_schedule(1.0, 0.1, 0.5, 9, transition_begin=2),
    cx.exponential_decay(1.0, 10, 0.9),
    cx.exponential_decay(1.0, 10, 0.9, staircase=True),
    cx.step_schedule(0.5, 7),
    cx.inverse_time_decay_schedule(1.0, 0.1),
    cx.cosine_decay_schedule(0.5, 50, 0.1),
    cx.warm_restarts_schedule(1.0, 10),
    cx.warm_restarts_schedule(1.0, 10, factor=2.0, end_value=0.1),
    cx.warm_restarts_schedule(1.0, 10, factor=1.5),
    cx.warmup_schedule(cx.cosine_decay_schedule(0.5, 30), 10, init_value=0.1),
    cx.warmup_schedule(cx.polynomial_schedule(1.0, 0.0, 1.0, 30, transition_begin=1), 5, restart=False),
    cx.warmup_cosine_decay_schedule(0.1, 1.0, 0, 60),
    cx.warmup_cosine_decay_schedule(0.01, 1.0, 10, 60, end_value=0.1),
    cx.join_schedules((0.5, cx.linear_schedule(1.0, 0.0, 7), cx.step_schedule(0.3, 4)), (4, 16)),
    cx.bias_corrected_schedule(cx.linear_schedule(1.0, 0.0, 30), b2=0.99),
    cx.exponential_decay(1.0, 10, 0.9, 3.5, end_value=0.8),
    cx.piecewise_constant_schedule(1.0, {5: 0.5, 16: 3.0}),
    cx.piecewise_interpolate_schedule("cosine", 1.0, ((5, 0.5), (16, 3.0))),
    cx.multiplicative_schedule(1.0, cx.linear_schedule(0.9, 1.0, 9.5), 20),
    cx.inverse_sqrt_schedule(1.0, 10, 0.1, first_step=1),
    cx.cosine_decay_schedule(0.5, 30, 0.1, exponent=0.5),
    cx.rex_schedule(1.0, 30, 0.1),
    cx.half_life_schedule(0.5, 0.75, 20, 3),
    cx.linear_onecycle_schedule(40, 1.0, 0.31, 0.86),
    cx.cosine_onecycle_schedule(40, 1.0, 0.31),
    cx.onecycle_schedule(40, 1.0, interpolate_type="linear", three_phase=True),
    cx.onecycle_momentum_schedule(40),
    cx.warmup_stable_decay_schedule(1.0, 5, 10, 21, 0.1, 0.01, decay="1-sqrt"),
    cx.cyclic_schedule(0.1, 1.0, 5, 7, scale=cx.exponential_decay(1.0, 1, 0.5)),
    cx.cosine_annealing_schedule(1.0, 10, 0.1),
    2.0 * cx.linear_schedule(1.0, 0.1, 7) * cx.cosine_decay_schedule(0.5, 50),
    1.5 - cx.cosine_decay_schedule(0.5, 50),
    cx.linear_schedule(1.0, 0.1, 20) / (cx.cosine_decay_schedule(0.5, 50) + 0.5),
    cx.linear_schedule(1.0, 0.2, 20) ** 0.5,
    2.0 ** cx.linear_schedule(-3.0, 1.0, 20),
    cx.own_steps(cx.cosine_decay_schedule(0.5, 30, 0.1)),
)

LINK_CLASSES = firsts(REGISTRY, type)
KINDS = firsts(LINK_CLASSES, kind)


def classes(base: type) -> dict[str, type]:
    """The library's own value classes of a kind, by name."""
    found = [cls for known in TYPES.values() for cls in known.values() if issubclass(cls, base)]
    return {cls.__name__: cls for cls in found if cls.__module__.startswith("chainax.")}


FORMATS: dict[str, Any] = classes(Blocks)
"""The formats that store slots in blocks, as classes."""


def is_known(option: str, choice: Any) -> bool:
    """Whether the compiler at hand has the option."""
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options={option: choice}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


FAST = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": "0"}
QUICK = {option: choice for option, choice in FAST.items() if is_known(option, choice)}
"""Options of the compiler for what must be compiled, though not well: up to four times faster."""
quickly = functools.partial(jax.jit, compiler_options=QUICK)


def edited(tx: Any, edit: Callable[[Any], Any]) -> Any:
    """The value with another chain, given the same."""
    return tx.replace(tx=edit(tx.tx)) if isinstance(tx, given) else edit(tx)


Tree = dict[str, Any]


def tree(seed: int, dtype: Any = jnp.float32) -> Tree:
    """Parameters (or gradients) of mixed shapes and scales, with a path that excludes and a non-float leaf."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> jax.Array:
        x = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 2, size=shape)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            x = x + 1j * rng.normal(size=shape)
        return jnp.asarray(x, dtype)

    return {
        "layer": {"kernel": draw(4, 3), "bias": draw(3)},
        "scalar": draw(),
        "empty": draw(0, 3),
        "scale": draw(3),  # of the shape of another
        "steps": jnp.arange(3),
        "hole": None,
    }


def grads(seed: int, dtype: Any = jnp.float32) -> Tree:
    """Gradients for `tree`: none where a parameter is no floating-point number."""
    return {**tree(seed, dtype), "steps": None}
