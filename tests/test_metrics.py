"""`metrics`: the numbers of the step just taken, against NumPy; and what a rejected step leaves of them."""

import re
from collections.abc import Callable
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import REGISTRY, tree

STEPS = 24
BAD = (5, 6, 13)  # the steps whose gradients are not finite
LINE, FALL = cx.linear_schedule(0.5, 0.1, 8), cx.exponential_decay(0.2, 1, 0.9)
PARAMS = {"bias": jnp.ones(2), "kernel": jnp.ones((2, 3))}
GRADS = jax.tree.map(lambda p: p / 2, PARAMS)
SCALARS = re.compile(r"[a-z][a-z0-9_]*")


def drawn(bad: tuple[int, ...] = BAD) -> dict[str, np.ndarray]:
    """Gradients of every step, some of them not finite."""
    rng = np.random.default_rng(0)
    grads = {name: rng.normal(size=(STEPS, *p.shape)).astype(np.float32) for name, p in PARAMS.items()}
    for step in bad:
        grads["kernel"][step, 0, 0] = np.inf
    return grads


def run(tx: Any, grads: Any, params: Any = PARAMS, **extra: Any) -> tuple[dict[str, np.ndarray], Any]:
    """The metrics and the parameters after every step, of one compiled run."""

    def step(carry: Any, xs: Any) -> Any:
        params, state = tx.step(*carry, xs[0], **xs[1])
        return (params, state), (cx.metrics(tx, state), params)

    found, moved = jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), (grads, extra))[1])()
    return {name: np.asarray(x, np.float64) for name, x in found.items()}, moved


def agree(found: dict[str, np.ndarray], wanted: dict[str, Any], rtol: float = 2e-6) -> None:
    """The same names, and the same numbers up to rounding in float32."""
    assert set(found) == set(wanted)
    for name, x in wanted.items():
        np.testing.assert_allclose(found[name], np.broadcast_to(x, STEPS), rtol=rtol, err_msg=name)


# Along a run


def test_a_run_with_overflows_agrees_with_numpy() -> None:
    """Loss scale, skipped steps, norms, clip rate and the rates of two groups, one of a table."""
    bias = cx.sgd(LINE)
    others = cx.chain(cx.scale_by_adam(b1=FALL), cx.scale_by_lr(cx.by_path({"kernel": FALL}, default=0.7)))
    tx = cx.chain(
        cx.dynamic_loss_scale(8.0, growth_interval=4),
        cx.record("norm", "max"),
        cx.counted_clip_by_global_norm(0.4),
        cx.partition(cx.by_path({"bias": bias}, default=others)),
    )
    grads = drawn()
    found, _ = run(tx, grads)

    scale, row, taken, cuts, wanted = 8.0, 0, 0, 0, []
    for t in range(STEPS):
        u = np.concatenate([g[t].ravel() for g in grads.values()]).astype(np.float64) / scale
        good = bool(np.isfinite(u).all())
        taken, cuts = taken + good, cuts + (np.linalg.norm(u) > 0.4)  # an infinite one too
        row = row + 1 if good else 0
        scale = scale * (0.5 if not good else 2.0 if row == 4 else 1.0)
        row %= 4
        fall = 0.2 * 0.9 ** (taken - 1)
        wanted.append(
            {
                "skipped": t + 1 - taken,
                "loss_scale": scale,
                "norm": np.linalg.norm(u) if good else np.nan,
                "max": np.abs(u).max() if good else np.nan,
                "clip_rate": cuts / (t + 1),
                "b1": fall,
                "partition/bias/scale_by_lr/learning_rate": 0.5 - 0.05 * min(taken - 1, 8),
                "partition/default/scale_by_lr/learning_rate/kernel": fall,
                "partition/default/scale_by_lr/learning_rate/default": 0.7,
            }
        )
    assert {0.1, 0.5, 0.7} & {round(x["clip_rate"], 1) for x in wanted}
    agree(found, {name: np.array([x[name] for x in wanted]) for name in wanted[0]})


def test_a_plateau_and_a_schedule_agree_with_numpy() -> None:
    """The scale and the rate are those by which this step was multiplied, as the parameters show."""
    tx = cx.chain(cx.reduce_on_plateau(0.5, patience=1), cx.sgd(LINE))
    values = np.array([3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0] * 3, np.float32)
    grads = {name: np.ones_like(g) for name, g in drawn(()).items()}
    found, moved = run(tx, grads, value=values)
    best, bad, scale, scales = np.inf, 0, 1.0, []
    for value in values:
        bad = 0 if value < best * (1 - 1e-4) else bad + 1
        best = min(best, value)
        if bad > 1:
            scale, bad = scale / 2, 0
        scales.append(scale)
    rates = 0.5 - 0.05 * np.minimum(np.arange(STEPS), 8)
    agree(found, {"scale": scales, "learning_rate": rates})
    assert scale < 0.1
    steps = -np.diff(np.concatenate([[1.0], np.asarray(moved["bias"], np.float64)[:, 0]]))
    np.testing.assert_allclose(steps, np.array(scales) * rates, atol=3e-7)


def test_estimates_agree_with_numpy() -> None:
    """Of the distance, for Prodigy, D-Adaptation and DoG, and of the scale, for Mechanic."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(STEPS, 5)).astype(np.float32)

    def trail(tx: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
        def step(carry: Any, e: Any) -> Any:
            params, state = carry
            new, state = tx.step(params, state, params - 3 + e)
            return (new, state), (cx.metrics(tx, state), params)

        found, xs = jax.jit(lambda: jax.lax.scan(step, (jnp.ones(5), tx.init(jnp.ones(5))), noise)[1])()
        return found, np.asarray(xs, np.float64)

    found, xs = trail(cx.prodigy(1.0, weight_decay=0.0))
    d, r, s, estimates = 1e-6, 0.0, np.zeros(5), []
    for x, e in zip(xs, noise):
        g, b3 = x - 3 + e, 0.999**0.5
        r = b3 * r + d * d * g @ (xs[0] - x)
        s = b3 * s + d * d * g
        d = max(d, r / np.abs(s).sum())
        estimates.append(d)
    assert estimates[-1] > 10 * estimates[0]
    agree(found, {"estimate": estimates, "learning_rate": 1.0}, rtol=1e-3)

    for build, name in ((cx.dadapt_sgd, "estimate"), (cx.dadapt_adamw, "estimate"), (cx.dowg, "distance")):
        found, _ = trail(build())
        assert name in found
        assert found[name][-1] > found[name][0] > 0

    found, xs = trail(cx.dog())
    distances = np.maximum.accumulate(np.linalg.norm(xs - xs[0], axis=1))
    first = 1e-6 * (1 + np.linalg.norm(xs[0]))
    np.testing.assert_allclose(found["distance"], np.maximum(first, distances), rtol=1e-5)

    tx = cx.mechanize(cx.sgd(1.0), s_init=0.01)
    found, xs = trail(tx)
    sums = -np.cumsum(xs - 3 + noise, axis=0)[:-1]  # Δ, and θ − θ₀ = SΔ
    wanted = ((xs[1:] - xs[0]) * sums).sum(axis=1) / (sums * sums).sum(axis=1)
    np.testing.assert_allclose(found["scale"][:-1], wanted, rtol=1e-4)
    assert set(found) == {"scale", "learning_rate"}


def test_a_line_search_reports_the_length_of_this_step() -> None:
    """By the parameters: also 0 where it finds none, though the next search starts at the last length."""
    tx = cx.chain(cx.scale_by_lr(1.0), cx.scale_by_backtracking_linesearch())

    def f(x: Any) -> Any:
        return 2 * jnp.sum(x**2)

    params = jnp.array([1.0, -2.0])
    state = tx.init(params)
    for uphill in (False, False, True, False):
        grad = jax.grad(f)(params) * (-1 if uphill else 1)
        new, state = tx.step(params, state, grad, value=f(params), grad=jax.grad(f)(params), value_fn=f)
        found = cx.metrics(tx, state)
        length = float(jnp.linalg.norm(new - params) / jnp.linalg.norm(grad))
        assert float(found["step_length"]) == pytest.approx(length, rel=1e-5)
        assert (length == 0) == uphill
        assert float(found["evaluations"]) >= 1
        params = new


def test_accumulate_shows_the_last_step_of_its_chain() -> None:
    """Between steps too, and where a guard before it refuses a micro-batch."""
    inner = cx.chain(cx.record(), cx.sgd(LINE))
    tx = cx.chain(cx.skip_large_updates(100.0), cx.accumulate(inner, every=3))
    grads = drawn((4,))
    grads["bias"][10] = np.nan  # the guard refuses it; the infinite one too
    found, _ = run(tx, grads)
    done, pending, norm, wanted = 0, [], 0.0, []
    for t in range(STEPS):
        u = np.concatenate([g[t].ravel() for g in grads.values()]).astype(np.float64)
        pending += [u] if np.isfinite(u).all() else []
        if len(pending) == 3:
            norm, done, pending = np.linalg.norm(np.mean(pending, axis=0)), done + 1, []
        wanted.append((norm, 0.5 - 0.05 * max(done - 1, 0), (t >= 4) + (t >= 10)))
    norms, rates, skipped = np.array(wanted).T
    agree(
        found,
        {"norm": norms, "learning_rate": rates, "skip_large_updates/skipped": skipped, "accumulate/skipped": 0},
        rtol=1e-5,
    )


# Steps that are rejected

INSIDE: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "partition": (lambda tx: cx.partition(cx.by_path({"bias": cx.freeze()}, default=tx)), True),
    "flatten": (cx.flatten, True),
    "restart": (lambda tx: cx.restart(tx, 5), True),
    "deep": (lambda tx: cx.restart(cx.partition(cx.by_path({}, default=tx)), 5), True),
    "graft": (lambda tx: cx.graft(direction=cx.sgd(0.1), magnitude=tx), True),
    "accumulate": (lambda tx: cx.accumulate(tx, 1), False),
    "conditionally_transform": (lambda tx: cx.conditionally_transform(tx, lambda k: k < 1), False),
}


@pytest.mark.parametrize("device", ("cpu", "others"))
@pytest.mark.parametrize("name", INSIDE)
def test_a_rejected_step_leaves_no_statistics_within(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of chains that would have run; a chain that runs at some steps shows its last one."""
    if device == "others":  # where both branches run
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, default, **branches: default(*args))
    wrap, runs = INSIDE[name]
    tx = cx.chain(cx.skip_large_updates(100.0), wrap(cx.chain(cx.record(), cx.sgd(0.1))))
    params, state = tx.step(PARAMS, tx.init(PARAMS), GRADS)
    before = float(cx.metrics(tx, state)["norm"])
    assert before > 0
    same, rejected = tx.step(params, state, jax.tree.map(lambda g: 1e4 * g, GRADS))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), same, params))
    norm = float(cx.metrics(tx, rejected)["norm"])
    assert np.isnan(norm) if runs else norm == before
    assert jax.tree.structure(rejected) == jax.tree.structure(state)
    _, after = tx.step(params, rejected, GRADS)
    assert float(cx.metrics(tx, after)["norm"]) == before
    assert after.links["skip_large_updates"]["skipped"] == 1


@pytest.mark.parametrize("device", ("cpu", "others"))
@pytest.mark.parametrize("place", ("before", "after", "behind a whole-tree link", "beside codes"))
def test_a_rejected_step_leaves_no_statistics(place: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the record and the guard are in the chain; slots and averages stay."""
    if device == "others":
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, default, **branches: default(*args))
    params = {"w": jnp.ones((64, 128))}
    guard, adam = cx.skip_large_updates(1e3), cx.scale_by_adam()
    links = {
        "before": (cx.record(), adam, guard, cx.scale_by_lr(0.1)),
        "after": (guard, cx.clip(1e6), cx.record(), adam, cx.scale_by_lr(0.1)),
        "behind a whole-tree link": (guard, adam, cx.scale_by_dog(0.1), cx.record(), cx.scale_by_lr(1.0)),
        "beside codes": (guard, cx.record("norm", "ratio"), cx.store(adam, cx.int8()), cx.scale_by_lr(0.1)),
    }[place]
    tx = cx.chain(*links)
    moved, state = tx.step(params, tx.init(params), params)
    assert float(cx.metrics(tx, state)["norm"]) > 0
    huge = {"w": params["w"] * (jnp.inf if place == "before" else 1e8)}
    same, rejected = tx.step(moved, state, huge)
    found = cx.metrics(tx, rejected)
    assert float(found["skipped"]) == 1
    assert np.isnan(float(found["norm"]))
    assert np.isnan(float(cx.recorded(tx, rejected, "path")["record"]["norm"]["w"]))
    assert (same["w"] == moved["w"]).all()
    kept = [jax.tree.leaves(x.links["scale_by_adam"]) for x in (state, rejected)]
    assert all((a == b).all() for a, b in zip(*kept))


# Names


def test_names_are_short_and_told_apart_by_paths() -> None:
    """One of a name stands alone; two have their paths; tables have their patterns."""
    tx = cx.chain(first=cx.record("norm", "max"), scale=cx.scale(2.0), last=cx.chain(cx.record("norm"), cx.sgd(0.1)))
    _, state = tx.step(PARAMS, tx.init(PARAMS), GRADS)
    assert {name: pytest.approx(float(x)) for name, x in cx.metrics(tx, state).items()} == {
        "first/norm": 2**0.5,
        "max": 0.5,
        "step_size": 2.0,
        "last_record/norm": 8**0.5,
        "learning_rate": 0.1,
    }
    assert cx.metrics(cx.chain(), cx.chain().init(PARAMS)) == {}
    lone = cx.scale_by_lr(cx.by_path({"bias": 0.1}, default=LINE))
    assert cx.metrics(lone, lone.init(PARAMS)) == {"learning_rate/bias": 0.1, "learning_rate/default": 0.5}


def test_numbers_before_the_first_step_are_those_of_the_first() -> None:
    """So that a log may begin with them; nothing was recorded yet."""
    tx = cx.chain(cx.record(), cx.skip_nonfinite(), cx.sgd(LINE))
    assert cx.metrics(tx, tx.init(PARAMS)) == {"norm": 0.0, "skipped": 0, "learning_rate": 0.5}


def test_members_of_a_sweep_have_numbers_of_their_own() -> None:
    """Within `jax.vmap`, and afterwards from states that it has stacked."""
    grid = cx.stack([cx.chain(cx.skip_nonfinite(), cx.record(), cx.sgd(rate * LINE)) for rate in (1.0, 2.0)])

    def train(tx: Any) -> Any:
        params, state = tx.step(PARAMS, tx.init(PARAMS), GRADS)
        state = tx.step(params, state, jax.tree.map(lambda p: 3 * p, params))[1]
        return cx.metrics(tx, state), state

    found, state = jax.jit(jax.vmap(train, (grid.axes(),)))(grid)
    np.testing.assert_allclose(found["learning_rate"], [0.45, 0.9], rtol=1e-6)
    norms = 3 * 8**0.5 * (1 - 0.5 * np.array([0.5, 1.0]))
    np.testing.assert_allclose(found["norm"], norms, rtol=1e-6)
    constant = cx.chain(cx.skip_nonfinite(), cx.record(), cx.sgd(0.1))
    np.testing.assert_allclose(cx.metrics(constant, state)["norm"], norms, rtol=1e-6)


@pytest.mark.parametrize("tx", REGISTRY, ids=repr)
def test_every_chain_has_a_flat_dict_of_scalars(tx: Any) -> None:
    """With unique names that are identifiers behind the paths; eagerly as under jit."""
    state = jax.tree.map(lambda x: jnp.full(x.shape, 2, x.dtype), jax.eval_shape(tx.init, tree(0)))
    found = cx.metrics(tx, state)
    assert all(np.shape(x) == () for x in found.values())
    for name in found:
        segments = name.split("/")
        assert any(SCALARS.fullmatch(segment) for segment in segments)
        assert len(segments) == 1 or "tx" not in segments
    if found:
        under_jit = jax.jit(lambda state: cx.metrics(tx, state))(state)
        assert set(under_jit) == set(found)
        for name, x in found.items():
            np.testing.assert_allclose(under_jit[name], x, rtol=1e-6, err_msg=name)


def test_what_links_keep_is_among_the_metrics() -> None:
    """Every class with a hook of its own has numbers somewhere in the registry, and they are these."""
    names: dict[str, set[str]] = {}
    for tx in REGISTRY:
        state = jax.eval_shape(tx.init, tree(0))
        for name, link in tx.links.items():
            if type(link).metrics is not cxe.Link.metrics and type(link).__module__.startswith("chainax"):
                own = jax.eval_shape(link.metrics, state.links[name])
                names.setdefault(type(link).__name__, set()).update(own)
    searches = ("scale_by_backtracking_linesearch", "scale_by_zoom_linesearch")
    guards = ("accumulate", "accumulate_weighted", "skip_nonfinite", "skip_large_updates", "skip_loss_spikes")
    wanted = {
        "skipped": (*guards, "dynamic_loss_scale"),
        "loss_scale": ("dynamic_loss_scale",),
        **dict.fromkeys(("norm", "rms", "max", "param_norm", "ratio"), ("record",)),
        "clip_rate": ("counted_clip_by_global_norm",),
        "scale": ("reduce_on_plateau", "mechanize"),
        "estimate": ("scale_by_prodigy", "scale_by_dadapt_adam", "scale_by_dadapt_sgd"),
        "distance": ("scale_by_dog", "scale_by_dowg"),
        "bound": ("scale_by_momo",),
        **dict.fromkeys(("step_length", "evaluations"), searches),
    }
    assert {(link, name) for link, own in names.items() for name in own} == {
        (link, name) for name, links in wanted.items() for link in links
    }


# Mistakes of authors


@cxe.transform
class counts(cxe.Scaling):
    """A link with a global state, and metrics of its own."""

    made: Any = cxe.child("what its metrics return")

    role = "record"
    equation = "u ← u"

    def init_global_state(self) -> Any:
        """One number."""
        return {"count": jnp.zeros(())}

    def factor(self, at: cxe.StepInfo) -> Any:
        """None."""
        return 1.0

    def metrics(self, entry: Any) -> Any:
        """What was given."""
        return self.made(entry)


MISTAKES: dict[str, tuple[Any, str]] = {
    "no dict": (lambda entry: entry["count"], "The metrics of link 'counts' must be a dict of scalars by identifiers"),
    "no identifier": (lambda entry: {"a/b": 1.0}, "must be a dict of scalars by identifiers, got {'a/b': 1}"),
    "no scalar": (lambda entry: {"count": jnp.ones(2)}, "must be scalars, got float32[2] as 'count'"),
    "a string": (lambda entry: {"count": "one"}, "must be scalars, got"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_metrics_of_a_link_are_checked(mistake: str) -> None:
    """With the name of the link in the chain."""
    made, message = MISTAKES[mistake]
    tx = cx.chain(counts(made), cx.scale_by_lr(0.1))
    with pytest.raises(TypeError, match=re.escape(message)) as caught:
        cx.metrics(tx, tx.init(PARAMS))
    assert caught.value.__notes__ == ["raised in link 'counts' of the chain"]


def test_metrics_do_not_hide_fields_or_each_other() -> None:
    """A name that is a field of the link, and paths that coincide with a pattern."""

    @cxe.transform
    class hides(cxe.Scaling):
        """Has a field and a number of one name."""

        rate: cxe.Hyper = cxe.hyper("α", "a field")
        role = "record"
        equation = "u ← u α"

        def init_global_state(self) -> Any:
            return {"count": jnp.zeros(())}

        def factor(self, at: cxe.StepInfo) -> Any:
            return 1.0

        def metrics(self, entry: Any) -> Any:
            return {"rate": entry["count"]}

    with pytest.raises(TypeError, match="have 'rate', which is a field of the link: rename it"):
        cx.metrics(hides(0.1), hides(0.1).init(PARAMS))
    tx = cx.chain(learning_rate=cx.record(), other=cx.record(), last=cx.scale_by_lr(cx.by_path({"norm": LINE}, 0.1)))
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(tx.init, {"norm": jnp.ones(2)}))
    with pytest.raises(ValueError, match="two numbers called 'learning_rate/norm': rename 'last' in the chain"):
        cx.metrics(tx, state)


def test_a_stacked_state_has_stacked_numbers() -> None:
    """That of several models, as `jax.vmap` makes it."""
    tx = cx.sgd(cx.linear_schedule(0.0, 1.0, 4), momentum=0.9)
    params = {"w": jnp.ones((2, 3))}
    state = jax.vmap(tx.init)(params)
    for _ in range(3):
        params, state = jax.vmap(tx.step)(params, state, params)
    np.testing.assert_allclose(cx.metrics(tx, state)["learning_rate"], [0.5, 0.5])
