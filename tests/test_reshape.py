"""Chains that see the parameters in another form: one vector for all, or two real arrays for a complex one."""

from types import SimpleNamespace
from typing import Any

import chainax as cx
import chainax.extend as cxe
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax
from reference import Tree, assert_agree, problem, run

BLOCKWISE = cx.chain(cx.clip_by_block_rms(0.1), cx.adam(1e-2))


def test_flatten_agrees_with_optax(x64: None) -> None:
    """What a link does to a leaf it does to all of them together."""
    params, grads = problem(seed=0)
    theirs = run_optax(
        lambda: optax.flatten(optax.chain(optax.clip_by_block_rms(0.1), optax.adam(1e-2))), {}, params, grads
    )
    ours = run(cx.flatten(BLOCKWISE), params, grads)
    assert_agree(ours, theirs, 1e-9)
    assert any(np.max(np.abs(ours[n] - x), initial=0.0) > 1e-3 for n, x in run(BLOCKWISE, params, grads).items())


def test_flatten_changes_nothing_elementwise(x64: None) -> None:
    """Adam with decay on one vector is Adam on the leaves, and so it is behind a link and before one."""
    params, grads = problem(seed=0)
    expected = run(cx.adamw(1e-2), params, grads)
    assert_agree(run(cx.flatten(cx.adamw(1e-2)), params, grads), expected, 1e-12)
    assert_agree(run(cx.chain(cx.scale(2.0), cx.flatten(cx.adamw(1e-2, eps=2e-8))), params, grads), expected, 1e-12)


def test_flatten_makes_a_vector_of_each_dtype() -> None:
    """Whole numbers and holes are left out; bfloat16 goes with float32, in which it is computed."""
    params = {
        "a": jnp.ones((2, 3)),
        "b": jnp.ones(4, jnp.bfloat16),
        "c": jnp.ones((2, 2), jnp.complex64),
        "d": jnp.ones(()),
        "n": jnp.arange(2),
        "hole": None,
    }
    tx = cx.flatten(cx.adam(0.5))
    state = tx.init(params)
    mu = state.links["flatten"]["tx"].links["scale_by_adam"]["mu"]
    assert {name: (x.shape, x.dtype.name) for name, x in mu.items()} == {
        "float32": ((11,), "float32"),
        "complex64": ((4,), "complex64"),
    }
    moved, _ = tx.step(params, state, {**params, "n": None})
    plain, _ = cx.adam(0.5).step(params, cx.adam(0.5).init(params), {**params, "n": None})
    chex.assert_trees_all_close(moved, plain)
    chex.assert_trees_all_equal_dtypes(moved, params)


def test_flatten_needs_all_updates() -> None:
    """A vector has no holes."""
    tx, params = cx.flatten(cx.sgd(0.1)), {"a": jnp.ones(2), "b": jnp.ones(3)}
    with pytest.raises(
        TypeError, match=r"'flatten' has no update at 'b', float32\[3\], and a vector cannot have holes: exclude"
    ):
        tx.step(params, tx.init(params), {"a": jnp.ones(2), "b": None})


@pytest.mark.parametrize("wrap", (cx.flatten, cx.pack, cx.split_complex))
def test_arguments_that_are_no_trees(wrap: Any) -> None:
    """A bool is none, even where there is a single parameter."""
    tx, p = wrap(cx.conditionally_mask(cx.sgd(0.5), argument="ok")), jnp.ones(3)
    moved, _ = tx.step(p, tx.init(p), p, ok=True)
    np.testing.assert_allclose(moved, 0.5)


def alike(seed: int, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """Eight leaves, of which three have one shape, two have another, one is large, and two have none."""
    shapes = {"bias_0": (3,), "bias_1": (3,), "kernel_0": (2, 2), "scale_0": (3,), "kernel_1": (2, 2), "large": (5, 5)}
    rng = np.random.default_rng(seed)
    tree = {name: rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3) for name, shape in shapes.items()}
    tree |= {"scalar": rng.normal(), "temperature": rng.normal()}
    return {
        name: jnp.asarray(x + 1j * x**2 if jnp.issubdtype(dtype, jnp.complexfloating) else x, dtype)
        for name, x in tree.items()
    }


def moved(tx: Any, dtype: Any = jnp.float32) -> Any:
    """The parameters and the state after four steps under `make_step`."""
    step, params = cx.make_step(tx), alike(0, dtype)
    state = tx.init(params)
    for i in range(4):
        params, state = step(params, state, alike(i + 1, dtype))
    return params, state


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16, jnp.complex64))
@pytest.mark.parametrize(
    "tx",
    (
        cx.sgd(0.1, momentum=0.9),
        cx.adamw(0.1),
        cx.chain(cx.clip_by_global_norm(1.0), cx.adamw(0.1, weight_decay=cx.by_path({"bias": 0.0}, default=0.3))),
        cx.lion(0.1),
        cx.store(cx.adamw(0.1), "bfloat16"),
    ),
    ids=repr,
)
def test_pack_changes_nothing_elementwise(tx: Any, dtype: Any) -> None:
    """Whatever stands in one pack moves as it does alone."""
    packed = cx.pack(tx, max_leaves=2, max_size=24)
    rtol, atol = (1e-2, 1e-4) if dtype == jnp.bfloat16 else (1e-5, 1e-6)
    chex.assert_trees_all_close(moved(packed, dtype)[0], moved(tx, dtype)[0], rtol=rtol, atol=atol)


def test_packs() -> None:
    """Equal shapes share a pack unless a table tells them apart; large, whole-numbered and lone leaves stay."""

    def slots(tx: Any) -> Any:
        params = {**alike(0), "count": jnp.arange(3), "hole": None}
        return jax.tree.map(jnp.shape, tx.init(params).links["pack"]["tx"].links["trace"]["trace"])

    def shapes(**packs: Any) -> Any:
        return {
            **dict.fromkeys((*alike(0), "count", "hole")),
            "large": (5, 5),
            "scalar": (),
            "temperature": (),
            **packs,
        }

    assert slots(cx.pack(cx.trace(0.9))) == shapes(bias_0=(9,), kernel_0=(8,))
    assert slots(cx.pack(cx.trace(0.9), max_leaves=2)) == shapes(bias_0=(6,), scale_0=(3,), kernel_0=(8,))
    assert slots(cx.pack(cx.trace(0.9), max_size=3)) == shapes(bias_0=(9,), kernel_0=(2, 2), kernel_1=(2, 2))
    by_path = cx.trace(cx.by_path({"bias": 0.5}, default=0.9))
    assert slots(cx.pack(by_path)) == shapes(bias_0=(6,), scale_0=(3,), kernel_0=(8,))
    narrow = cx.by_path({"scale": "bfloat16"}, default="float32")
    assert slots(cx.pack(cx.store(cx.trace(0.9), trace=narrow))) == shapes(bias_0=(6,), scale_0=(3,), kernel_0=(8,))
    blocks = cx.by_path({"bias": "float32"}, default=cx.int8())
    kept = shapes(bias_0=(6,), scale_0=(3,), kernel_0=(2, 2), kernel_1=(2, 2))
    assert slots(cx.pack(cx.store(cx.trace(0.9), trace=blocks))) == kept


def test_pack_warns_where_it_costs_more_than_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each `init`, which names where the parameters lie or might lie, and the remedy. No packs, no warning."""
    tx, params = cx.pack(cx.sgd(0.1, momentum=0.9)), {"a": jnp.ones(3), "b": jnp.ones(3)}

    def warned(init: Any) -> str:
        with pytest.warns(cx.ChainWarning) as seen:
            init(params)
        assert [w.filename for w in seen] == [__file__]
        return str(seen[0].message)

    jax.jit(tx.init)(params)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    tx.init(params)  # the parameters lie on a CPU
    assert "On this 'gpu' each step copies" in warned(jax.jit(lambda p: tx.init(p)))
    tpu = SimpleNamespace(platform="tpu")
    monkeypatch.setattr(type(params["a"].sharding), "device_set", property(lambda _: [tpu]))
    message = warned(tx.init)
    assert "On this 'tpu' each step copies" in message
    assert "tx = cx.pack(tx) if jax.default_backend() == 'cpu' else tx" in message
    tx.init({"a": jnp.ones(3), "b": jnp.ones(4)})


def test_packs_of_a_partition() -> None:
    """A table is asked, and a link judged, only for the parameters that they are for."""
    groups = cx.by_path(
        {"bias|scale": cx.adamw(0.1, weight_decay=cx.by_path({"scale|bias": 0.1}))}, default=cx.lamb(0.1)
    )
    tx, params = cx.partition(groups), {"bias": jnp.ones(3), "scale": jnp.ones(3), "large": jnp.ones((5, 5))}
    chex.assert_trees_all_close(*(t.step(params, t.init(params), params)[0] for t in (cx.pack(tx), tx)), rtol=1e-6)
    kernels = {**params, "kernel_0": jnp.ones((2, 2)), "kernel_1": jnp.ones((2, 2))}
    with pytest.raises(TypeError, match="'scale_by_trust_ratio' computes with several numbers of 'kernel_0'"):
        cx.pack(tx).init(kernels)
    apart = cx.partition(cx.by_path({"bias": cx.sgd(0.1)}, default=cx.sgd(0.5)))
    chex.assert_trees_all_close(
        *(t.step(params, t.init(params), params)[0] for t in (cx.pack(apart), apart)), rtol=1e-6
    )
    stored = cx.pack(cx.store(cx.trace(0.9), trace=cx.by_path({"bias|scale|large": "bfloat16"})))
    stored.init({**params, "count": jnp.arange(3)})


def test_parameters_of_two_dtypes_share_a_pack() -> None:
    """In float32, in which both are computed."""
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(3)}
    tx = cx.chain(cx.sgd(0.5), cx.ema_params(0.0))
    packed = cx.pack(tx)
    moved, state = packed.step(params, packed.init(params), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, params)
    chex.assert_trees_all_close(moved, tx.step(params, tx.init(params), params)[0])
    mean = cx.read_average(packed, moved, state)
    chex.assert_trees_all_close(mean, moved)


def test_averages_of_some_packs() -> None:
    """Parameters of which no average is kept are read as they are."""
    params = {"bias_0": jnp.ones(3), "bias_1": jnp.ones(3), "kernel_0": jnp.ones((2, 2)), "kernel_1": jnp.ones((2, 2))}
    averaged = cx.chain(cx.sgd(0.5), cx.ema_params(0.5, debias=False))
    tx = cx.partition(cx.by_path({"bias": averaged}, default=cx.sgd(0.5)))
    means = []
    for t in (tx, cx.pack(tx)):
        moved, state = t.step(params, t.init(params), params)
        means.append(cx.read_average(t, moved, state))
    chex.assert_trees_all_close(*means)


@pytest.mark.parametrize("wrap", (cx.pack, cx.flatten))
def test_joined_slots_are_given_to_no_other_parameters(wrap: Any) -> None:
    """A state of joined slots goes back to the parameters that it is of, and a checkpoint of others is refused."""
    tx, params = wrap(cx.trace(0.9)), {"a": jnp.ones(3), "b": jnp.ones(3)}
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    loaded, report = tx.load_state_dict(params, tx.state_dict(state))
    chex.assert_trees_all_equal(loaded, state)
    assert not report.missing
    others = {"a": jnp.ones(3), "c": jnp.ones(3)}
    for follow in (
        lambda: tx.load_state_dict(others, tx.state_dict(state), strict=False),
        lambda: tx.adopt({**params, "ab": jnp.ones(3)}, state),
        lambda: tx.add_param_group({**params, "ab": jnp.ones(3)}, state),
    ):
        with pytest.raises(KeyError, match=f"'{wrap.__name__}' stores the slots of several parameters as one array"):
            follow()


@pytest.mark.parametrize(
    "tx",
    (
        cx.polyak_sgd(),
        cx.chain(cx.adam(0.1), cx.reduce_on_plateau(0.5, patience=0)),
        cx.chain(cx.skip_loss_spikes(sigmas=1.0, warmup=2), cx.adam(0.1)),
    ),
    ids=repr,
)
def test_pack_passes_values_on(tx: Any) -> None:
    """Links that must be given the loss are given it, and see the norm of all."""

    def last(tx: Any) -> Any:
        step, params = cx.make_step(tx), alike(0)
        state = tx.init(params)
        for i, loss in enumerate((3.0, 2.0, 90.0, 2.5)):
            params, state = step(params, state, alike(i + 1), value=loss)
        return params

    chex.assert_trees_all_close(last(cx.pack(tx, max_leaves=2, max_size=24)), last(tx), rtol=1e-5, atol=1e-6)


@cxe.transform
class decay_of_matrices(cxe.Leafwise):
    """Computes with the shape of a leaf."""

    equation = "u ← u + 0.1θ for matrices"
    reads_params = True

    def leaf(self, u, slot, p, scalars):
        return u + 0.1 * p if p.ndim > 1 else u


@cxe.transform
class scale_by_first_norm(cxe.Leafwise):
    """Begins with the norm of a leaf."""

    slots = ("size",)
    equation = "u ← u·‖θ₀‖"

    def init_leaf(self, p):
        return {"size": jnp.sqrt(jnp.sum(jnp.square(p)))}

    def leaf(self, u, slot, p, scalars):
        return u * slot.size, {"size": slot.size}


@cxe.transform
class scale_by_place(cxe.Leafwise):
    """Computes with the place of a number in its leaf."""

    equation = "u ← iu"

    def leaf(self, u, slot, p, scalars):
        return u * np.arange(u.size, dtype=np.float32).reshape(u.shape)


@pytest.mark.parametrize(
    "link",
    (
        cx.clip_by_block_rms(1.0),
        scale_by_first_norm(),
        scale_by_place(),
        cx.centralize(),
        cx.scale_by_factored_rms(min_dim_size_to_factor=2),
        decay_of_matrices(),
    ),
    ids=repr,
)
def test_pack_refuses_what_is_of_a_leaf(link: Any) -> None:
    """A pack is no leaf: a link that mixes a leaf's numbers, or asks for its shape, would compute something else."""
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}
    message = f"Link 'pack': '{type(link).__name__}' computes with several numbers of 'a', as for a norm, or with its"
    with pytest.raises(TypeError, match=message):
        cx.pack(cx.chain(link, cx.scale_by_lr(0.1))).init(params)
    with jax.disable_jit(), pytest.raises(TypeError, match=message):
        cx.pack(cx.chain(link, cx.scale_by_lr(0.1))).init(params)
    cx.pack(cx.chain(link, cx.scale_by_lr(0.1)), max_size=3).init(params)


def test_pack_needs_all_updates() -> None:
    """A pack has no holes, and at least two leaves."""
    tx, params = cx.pack(cx.sgd(0.1)), alike(0)
    with pytest.raises(
        TypeError, match=r"'pack' has no update at 'kernel_1', float32\[2, 2\], and a pack cannot have holes"
    ):
        tx.step(params, tx.init(params), {**alike(1), "kernel_1": None})
    moved, _ = tx.step(params, tx.init(params), {**alike(1), "large": None})
    chex.assert_trees_all_equal(moved["large"], params["large"])
    with pytest.raises(ValueError, match=r"`pack.max_leaves` must be a whole number, at least 2, got 1"):
        cx.pack(cx.sgd(0.1), max_leaves=1)
    with pytest.raises(ValueError, match=r"`pack.max_size` must be a whole number, at least 1, got 'all'"):
        cx.pack(cx.sgd(0.1), max_size="all")


def test_updates_without_parameters() -> None:
    """A chain that does not read them need not be given them."""
    grads = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2)), "c": jnp.full(3, 1 + 2j, jnp.complex64)}
    for tx in (cx.flatten(cx.ema(0.5)), cx.pack(cx.ema(0.5)), cx.split_complex(cx.ema(0.5))):
        updates, _ = tx.update(grads, tx.init(grads))
        chex.assert_trees_all_close(updates, jax.tree.map(lambda g: g / 2, grads))


# Complex parameters


def bowl(params: Any) -> jax.Array:
    """A function of complex numbers with its minimum, 0, at (1+2i, 3)."""
    z = params["z"] - jnp.array([1 + 2j, 3.0])
    return jnp.sum(jnp.square(jnp.abs(z)) * jnp.array([1.0, 5.0])) + jnp.sum(jnp.square(z.real + z.imag))


def real_bowl(params: Tree) -> jax.Array:
    """The same of their parts."""
    return bowl({"z": jax.lax.complex(params["z"]["real"], params["z"]["imag"])})


@pytest.mark.parametrize("tx", (cx.adam(0.1), cx.lbfgs(), cx.chain(cx.sharpness_aware(0.1), cx.sgd(0.05))), ids=repr)
def test_split_complex_is_the_real_problem(tx: Any, x64: None) -> None:
    """Gradients, and functions that a link calls, are those of real and imaginary parts."""
    z = jnp.array([4 - 1j, -2 + 2j])
    real, start = cx.minimize(tx, real_bowl, {"z": {"real": z.real, "imag": z.imag}}, max_steps=15), {"z": z}
    ours = cx.minimize(cx.split_complex(tx), bowl, start, max_steps=15)
    assert int(ours.state.step) == int(real.state.step)
    assert_agree(
        {"z": ours.params["z"]}, {"z": jax.lax.complex(real.params["z"]["real"], real.params["z"]["imag"])}, 1e-9
    )
    assert float(ours.value) < 0.5 * float(bowl(start))


def test_flatten_passes_functions_on(x64: None) -> None:
    """L-BFGS and its line search see one vector, and find the same points."""
    start = {"z": jnp.array([4 - 1j, -2 + 2j])}
    ours, plain = (cx.minimize(tx, bowl, start, max_steps=15) for tx in (cx.flatten(cx.lbfgs()), cx.lbfgs()))
    assert_agree(ours.params, plain.params, 1e-9)
    lone = cx.minimize(cx.flatten(cx.lbfgs()), lambda x: jnp.square(x - 3), jnp.array(0.0))
    np.testing.assert_allclose(lone.params, 3.0, atol=1e-6)


def test_split_complex_shows_two_real_leaves() -> None:
    """By the paths of their parameter, and real ones as they are."""
    params = {"z": jnp.array([1 + 2j], jnp.complex64), "x": jnp.ones(2)}
    tx = cx.split_complex(cx.sgd(cx.by_path({"real": 0.5, "imag": 0.25}, default=1.0)))
    moved, state = tx.step(params, tx.init(params), {"z": jnp.array([4 + 4j], jnp.complex64), "x": jnp.ones(2)})
    chex.assert_trees_all_close(moved, {"z": jnp.array([-1 + 1j], jnp.complex64), "x": jnp.zeros(2)})
    still, _ = tx.step(moved, state, {"z": None, "x": jnp.ones(2)})
    chex.assert_trees_all_equal(still["z"], moved["z"])
