"""Grafting: the direction of one chain with the norms of another."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import pytorch_optimizer
from libraries import run_pytorch_optimizer
from reference import check_run, log, problem, run, run_numpy, settings, uniform

RANGES = {"learning_rate": log(1e-3, 1e-1), "momentum": uniform(0.0, 0.99), "b2": uniform(0.5, 0.99)}


def numpy_graft(theta: Any, g: Any, t: int, memory: dict, learning_rate: float, momentum: float, b2: float) -> Any:
    """The direction of RMSprop with momentum, and the norm of SGD's momentum, by leaf."""
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g**2
    m = memory["m"] = momentum * memory.get("m", 0.0) + g
    u = g / (np.sqrt(v) + 1e-8)
    size = np.sqrt(np.sum(u**2))
    return theta - learning_rate * u * (np.sqrt(np.sum(m**2)) / size if size else 0.0)


def test_agrees_with_numpy(x64: None) -> None:
    """Every kind of leaf; the states of both chains."""
    for i, hyper in enumerate(settings(RANGES, count=5)):
        params, grads = problem(seed=i)
        theirs = run_numpy(numpy_graft, params, grads, **hyper)
        tx = cx.graft(cx.scale_by_rms(hyper["b2"], 1e-8), cx.trace(hyper["momentum"]))
        check_run(cx.chain(tx, cx.scale_by_lr(hyper["learning_rate"])), params, grads, theirs)


@pytest.mark.parametrize("kind", ("SGD", "ADAGRAD", "RMSPROP", "SQRTN"))
def test_shampoo_agrees_with_pytorch_optimizer(kind: str, x64: None) -> None:
    """Blocks of 2 × 2, grafted in four ways, with momentum. There 1e-16 is added to the norm."""
    library = pytorch_optimizer()
    from pytorch_optimizer.optimizer.utils.graft import LayerWiseGrafting

    magnitude = {
        "SGD": cx.chain(),
        "ADAGRAD": cx.scale_by_adagrad(),
        "RMSPROP": cx.scale_by_rms(0.9, 1e-10),
        "SQRTN": cx.scale_by_sign(),
    }[kind]
    (hyper,) = settings({name: RANGES[name] for name in ("learning_rate", "momentum")}, count=1)
    params, grads = problem(seed=0, shapes={"square": (4, 4), "wide": (2, 6)})
    grads = {name: g[:60] for name, g in grads.items()}

    def new(groups: Any) -> Any:
        return library.ScalableShampoo(
            groups,
            lr=hyper["learning_rate"],
            betas=(hyper["momentum"], 0.9),
            matrix_eps=0.0,
            preconditioning_compute_steps=1,
            start_preconditioning_step=1,
            block_size=2,
            shape_interpretation=False,
            nesterov=False,
            use_svd=True,
            graft_type=getattr(LayerWiseGrafting, kind),
        )

    theirs = {n: x[:60] for n, x in run_pytorch_optimizer(new, params, padded(grads)).items()}
    link = cx.scale_by_shampoo(b2=0.9, eps=0.0, update_every=1, block_size=2)
    tx = cx.chain(cx.graft(link, magnitude), cx.trace(hyper["momentum"]), cx.scale_by_lr(hyper["learning_rate"]))
    check_run(tx, params, grads, theirs)


def padded(grads: Any) -> Any:
    """As many gradients as `run_pytorch_optimizer` takes steps."""
    return {n: np.concatenate([g, g[:40]]) for n, g in grads.items()}


def test_norms_by_matrix(x64: None) -> None:
    """A stack of layers has a norm for each of them, if its words say so, and one norm else."""
    rng = np.random.default_rng(0)
    g = jnp.asarray(rng.normal(size=(3, 4, 2)) * np.array([1.0, 10.0, 0.0])[:, None, None])
    table = cx.by_path({"stack": cx.matrices("_layer in, out")}, default=cx.matrices())
    tx = cx.graft(cx.scale_by_sign(), cx.scale(2.0), table)
    u, _ = tx.update({"stack": g, "one": g[0]}, tx.init({"stack": g, "one": g[0]}))
    layers = np.linalg.norm(g.reshape(3, -1), axis=1)
    np.testing.assert_allclose(np.linalg.norm(u["stack"].reshape(3, -1), axis=1), 2 * layers, rtol=1e-12)
    np.testing.assert_allclose(u["stack"][0], u["one"], rtol=1e-12)
    whole, _ = tx.replace(matrices=None).update({"stack": g}, tx.init({"stack": g}))
    np.testing.assert_allclose(np.abs(whole["stack"][:2]), np.linalg.norm(g) * 2 / 4, rtol=1e-12)


def test_of_itself_is_itself(x64: None) -> None:
    """And the chains may read the parameters."""
    params, grads = problem(seed=0)
    inner = cx.chain(cx.scale_by_adam(), cx.add_decayed_weights(0.1))
    check_run(
        cx.chain(cx.graft(inner, inner), cx.scale_by_lr(0.1)),
        params,
        grads,
        run(cx.chain(*inner.links.values(), cx.scale_by_lr(0.1)), params, grads),
    )


def test_half_precision_norms_are_float32() -> None:
    """In float16 the square of 300 is infinite."""
    g = jnp.full((100,), 300.0, jnp.float16)
    tx = cx.graft(cx.scale_by_sign(), cx.chain())
    u, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(u, 300.0, rtol=1e-3)


def test_bad_input() -> None:
    """Guards and rounding belong to the outer chain."""
    with pytest.raises(ValueError, match=r"`graft.direction`: 'skip_nonfinite' may reject steps: put it in the outer"):
        cx.graft(cx.chain(cx.skip_nonfinite(), cx.scale_by_adam()), cx.chain())
    with pytest.raises(ValueError, match=r"`graft.magnitude`: 'apply_update' rounds parameters: put it at the end"):
        cx.graft(cx.scale_by_adam(), cx.chain(cx.scale(1.0), cx.apply_update("stochastic")))
    with pytest.raises(TypeError, match=r"`graft.magnitude`: a chain is made of links and chains, got 'sgd'"):
        cx.graft(cx.scale_by_adam(), "sgd")
    with pytest.raises(ValueError, match=r"`graft.matrices` must be matrices\(\"in, out\"\)"):
        cx.graft(cx.scale_by_adam(), cx.chain(), matrices=3)


def test_state_and_description() -> None:
    """Each chain has its state; a chain of one is as good as a link."""
    tx = cx.graft(cx.scale_by_adam(), cx.scale_by_adagrad())
    state = jax.eval_shape(tx.init, jnp.zeros(3))
    assert list(state.links["graft"]) == ["direction", "magnitude"]
    assert "scale_by_adam" in tx.describe()
    assert "scale_by_adagrad" in tx.describe()
