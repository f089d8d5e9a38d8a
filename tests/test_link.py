"""Writing a link of one's own: what a user sees, and what the engine checks."""

from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest


@cxe.transform
class halve(cxe.Leafwise):
    """Halve the update, and count how often."""

    factor: cxe.Hyper = cxe.hyper("h", "the factor", default=0.5)

    slots = ("count",)
    equation = "u ← hu"

    def leaf(self, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
        """Halve."""
        return self.factor * u, {"count": slot.count + 1}


@cxe.transform
class center(cxe.Treewise):
    """Subtract the mean over the whole tree: a link that needs all leaves at once."""

    weight: cxe.Hyper = cxe.hyper("w", "how much of the mean", default=1.0)

    equation = "u ← u − w·mean(u)"

    def update_tree(self, updates: Any, state: Any, params: Any, at: cxe.StepInfo) -> Any:
        """Subtract the mean."""
        leaves = jax.tree.leaves(updates)
        mean = sum(x.sum() for x in leaves) / sum(x.size for x in leaves)
        return jax.tree.map(lambda x: x - self.weight * mean, updates), state


def test_a_link_of_ones_own() -> None:
    """It is a value with all that goes with it, and composes with the others."""
    tx = cx.chain(halve(), cx.scale_by_lr(1.0))
    assert repr(tx) == "chain(halve(), scale_by_lr(1))"
    assert cx.from_config(cx.to_config(tx)) == tx
    assert "h=0.5" in tx.describe()
    assert "factor (h) = 0.5: the factor, in [0, ∞)" in (halve.__doc__ or "")
    params, state = tx.step(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))
    np.testing.assert_array_equal(params, [0.5, 0.5])
    np.testing.assert_array_equal(state.links["halve"]["count"], [1.0, 1.0])


def test_a_treewise_link() -> None:
    """It gets the whole tree in float32, between runs of leafwise links, with schedules resolved."""
    params = {"a": jnp.array([1.0, 3.0], jnp.bfloat16), "b": jnp.array(8.0), "i": jnp.arange(2)}
    grads = {**params, "i": None}
    tx = cx.chain(cx.scale(2.0), center(cx.linear_schedule(1.0, 0.0, 2)), cx.scale_by_lr(0.5))
    state, steps = tx.init(params), []
    for _ in range(2):
        updates, state = tx.update(grads, state, params)
        steps.append([*updates["a"].tolist(), updates["b"].item()])
        assert updates["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(steps, [[3.0, 1.0, -4.0], [1.0, -1.0, -6.0]])
    with pytest.raises(ValueError, match=r"`center.weight` cannot be by_path"):
        cx.chain(center(cx.by_path({"a": 1.0}, default=0.0))).init(params)


def test_a_leaf_must_keep_shape_and_slots() -> None:
    """What a leaf function returns is checked, and the link named."""

    @cxe.transform
    class shrink(cxe.Leafwise):
        """Drop an element."""

        equation = "u ← u"

        def leaf(self, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
            """Drop."""
            return u[1:]

    @cxe.transform
    class forget(cxe.Leafwise):
        """Return other slots than declared."""

        slots = ("mu",)
        equation = "u ← u"

        def leaf(self, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
            """Forget."""
            return u, {}

    for link, words in (
        (shrink(), r"Link 'shrink' turned an update of float32\[2\]"),
        (forget(), "Link 'forget' declares"),
    ):
        with pytest.raises(TypeError, match=words):
            link.update(jnp.ones(2), link.init(jnp.ones(2)))


def test_a_link_must_be_declared_rightly() -> None:
    """Base class and role are checked when the class is made."""
    with pytest.raises(TypeError, match=r"must derive from Leafwise or Treewise"):
        cxe.transform(type("loose", (), {}))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"`odd.role` must be one of"):
        cxe.transform(type("odd", (cxe.Leafwise,), {"role": "juggle"}))


def test_equal_leaves_share_one_trace() -> None:
    """A hundred equal leaves are traced once."""
    traced = 0

    @cxe.transform
    class count(cxe.Leafwise):
        """Count traces."""

        equation = "u ← u"

        def leaf(self, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
            """Count."""
            nonlocal traced
            traced += 1
            return u

    params = [jnp.ones(3)] * 100 + [jnp.ones(4)]
    jax.jit(count().step)(params, count().init(params), params)
    assert traced == 2


def test_init_is_not_called_by_unflatten() -> None:
    """A chain passes tracers, ``None`` and placeholders through as a pytree."""
    tx = cx.adamw(1e-3)
    holes = jax.tree.map(lambda x: None, tx)
    assert jax.tree.leaves(holes) == []
    assert jax.tree.map(lambda x: object(), tx).names == tx.names
    assert jax.tree_util.tree_leaves_with_path(tx)[0][0] == (
        jax.tree_util.GetAttrKey("scale_by_adam"),
        jax.tree_util.GetAttrKey("b1"),
    )


def test_what_a_link_returns_is_checked() -> None:
    """A slot of another shape, an update without its slots, a tree of other shapes, a norm not asked for."""

    @cxe.transform
    class grow(cxe.Leafwise):
        """Grow the slot."""

        slots = ("mu",)
        equation = "u ← u"

        def leaf(self, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
            """Grow."""
            return u, {"mu": jnp.concatenate([slot.mu, slot.mu])}

    @cxe.transform
    class omit(cxe.Leafwise):
        """Return the update only."""

        slots = ("mu",)
        equation = "u ← u"

        def leaf(self, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
            """Omit."""
            return u

    @cxe.transform
    class spread(cxe.Treewise):
        """Return other shapes."""

        equation = "u ← u"

        def update_tree(self, updates: Any, state: Any, params: Any, at: cxe.StepInfo) -> Any:
            """Spread."""
            return jax.tree.map(lambda x: x[None], updates), state

    @cxe.transform
    class peek(cxe.Leafwise):
        """Ask for the norm without saying so."""

        equation = "u ← u"

        def scalars(self, at: cxe.StepInfo) -> Any:
            """Ask."""
            return at.global_norm()

        def leaf(self, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
            """Pass on."""
            return u

    class bare(cxe.Leafwise):
        """Not decorated."""

    cases = (
        (grow(), r"Link 'grow' turned its slot 'mu' of float32\[2\] into float32\[4\]"),
        (omit(), r"The leaf of link 'omit' must return the update and a dict of its slots"),
        (spread(), r"Link 'spread' turned the update of '', float32\[2\], into float32\[1, 2\]"),
        (peek(), r"Link 'peek' asks for the global norm: declare needs_all_updates"),
    )
    for link, words in cases:
        with pytest.raises(TypeError, match=words):
            link.update(jnp.ones(2), link.init(jnp.ones(2)), jnp.ones(2))
    with pytest.raises(TypeError, match=r"`bare` is not decorated: write @transform above its class"):
        cx.chain(bare())
    with pytest.raises(TypeError, match=r"`loose.c` by hyper, number, child or static"):
        cxe.transform(type("loose", (cxe.Leafwise,), {"__annotations__": {"c": float}, "c": 0.5}))
    with pytest.raises(TypeError, match=r"`one.slots` must be a tuple"):
        cxe.transform(type("one", (cxe.Leafwise,), {"slots": "mu"}))


def test_whole_tree_state_keeps_its_dtype_and_is_missed() -> None:
    """For bfloat16 parameters `from_optax` works in float32; a state without its entry is an error."""
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    tx = cx.chain(cx.from_optax(optax.scale_by_adam()), cx.scale_by_lr(0.1))
    state = tx.init(params)
    with jax.numpy_dtype_promotion("standard"):
        _, after = tx.step(params, state, params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    with pytest.raises(KeyError, match="it lacks from_optax"):
        tx.step(params, cx.sgd(0.1).init(params), params)


@pytest.mark.parametrize("shape", ((), (1,), (2,), (3, 2)))
def test_a_real_update_of_a_complex_parameter_is_real(shape: tuple[int, ...]) -> None:
    """It moves the real part, as a complex update without an imaginary part would."""
    p, g = jnp.full(shape, 1 + 2j), jnp.full(shape, 0.5)
    tx = cx.chain(cx.scale_by_adam(), cx.scale_by_lr(0.1))
    for ours, theirs in (
        (cx.apply_updates(p, g), p + g.astype(p.dtype)),
        (tx.step(p, tx.init(p), g)[0], tx.step(p, tx.init(p), g.astype(p.dtype))[0]),
        (tx.update(g, tx.init(p), p)[0], tx.update(g.astype(p.dtype), tx.init(p), p)[0]),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_field_may_not_hide_a_method() -> None:
    """`axes` is what `vmap` asks a chain for, and `factor` what a scaling computes."""
    for base, name in ((cxe.Leafwise, "axes"), (cxe.Scaling, "factor")):
        body = {"__annotations__": {name: cxe.Hyper}, name: cxe.hyper("x", "a number", default=0.5)}
        with pytest.raises(TypeError, match=f"`hiding.{name}` would hide the method '{name}' of its base"):
            cxe.transform(type("hiding", (base,), body))


def test_whole_tree_links_get_the_parameters_even_if_none_moves() -> None:
    """A tree without floating-point leaves is a tree of parameters all the same."""
    seen = []

    @cxe.transform
    class see_params(cxe.Treewise):
        """Look at the parameters."""

        reads_params = True
        sees_holes = True

        def update_tree(self, updates: Any, state: Any, params: Any, at: cxe.StepInfo) -> Any:
            """Look."""
            seen.append(params)
            return updates, state

    tx, params = see_params(), {"n": 3, "hole": None}
    tx.step(params, tx.init(params), {"n": None, "hole": None})
    assert seen == [params]


def test_the_gradient_of_a_per_example_chain_is_the_reduced_one() -> None:
    """`cautious` reads the gradient; behind a link that reduces an axis of examples it has that axis no more."""
    params, examples = jnp.ones(3), jnp.array([[1.0, -2.0, 3.0], [1.0, 1.0, -1.0]])
    first = cx.clip_per_example(100.0)
    reduced, _ = first.update(examples, first.init(params), params)
    tx = cx.chain(first, cx.trace(0.9), cx.cautious())
    plain = cx.chain(cx.trace(0.9), cx.cautious())
    ours, _ = tx.update(examples, tx.init(params), params)
    np.testing.assert_array_equal(ours, plain.update(reduced, plain.init(params), params)[0])
