"""Tables by number of axes, by depth and by width, and how long tables print."""

import json
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import chainax as cx
import chainax.extend as cxe
import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

MODEL: Any = {
    "scale": np.float32(0.5),
    "embed": {"table": np.ones((4, 3), np.float32)},
    "block_0": {"kernel": np.ones((3, 3), np.float32), "bias": np.ones(3, np.float32)},
    "block_1": {"kernel": np.full((3, 3), 2, np.float32), "bias": np.ones(3, np.float32)},
    "head": np.ones((3, 2), np.float32),
}
NARROW = jax.tree.map(lambda p: p[..., :1] if np.ndim(p) else p, MODEL)
ZEROS = jax.tree.map(np.zeros_like, MODEL)
ONES = jax.tree.map(np.ones_like, MODEL)


def factors(table: Any, params: Any) -> dict[str, float]:
    """The number of each parameter, as the engine has it."""
    tx = cx.scale(table)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params))
    flat, _ = jax.tree.flatten_with_path(updates)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): float(u.ravel()[0]) for path, u in flat}


# By the number of axes


def test_by_ndim_is_what_by_leaf_writes_out() -> None:
    """The same steps, for a rule that is bound to no model and prints in a line."""
    short = cx.adamw(0.1, weight_decay=cx.by_ndim({0: 0.3, 1: 0.0}, default=cx.linear_schedule(0.1, 0.2, 2)))
    long = cx.adamw(
        0.1,
        weight_decay=cx.by_leaf(
            MODEL, lambda path, p: {0: 0.3, 1: 0.0}.get(np.ndim(p), cx.linear_schedule(0.1, 0.2, 2))
        ),
    )
    runs = []
    for tx in (short, long):
        params, state = MODEL, tx.init(MODEL)
        for _ in range(3):
            params, state = tx.step(params, state, ONES)
        runs.append((params, state))
    chex.assert_trees_all_equal(*runs)
    assert "λ=by_ndim({0: 0.3, 1: 0}, default=linear_schedule(0.1, 0.2, 2))" in short.describe(MODEL)


def test_stacked_axes_do_not_count() -> None:
    """A scanned stack of flax's has one more axis than the layers in it, and its biases have no decay either."""

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.linear = nnx.Linear(3, 3, rngs=rngs)

    @nnx.split_rngs(splits=2)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def stack(rngs: nnx.Rngs) -> Block:
        return Block(rngs)

    params = nnx.to_pure_dict(nnx.state({"blocks": stack(nnx.Rngs(0)), "last": Block(nnx.Rngs(1))}, nnx.Param))
    assert params["blocks"]["linear"]["bias"].shape == (2, 3)
    params = jax.tree.map(jnp.ones_like, params)
    rule = cx.by_ndim({1: 0.0}, default=1.0, stacked={"^blocks/": 1})
    assert factors(rule, params) == {
        f"{part}/linear/{name}": x for part in ("blocks", "last") for name, x in (("bias", 0.0), ("kernel", 1.0))
    }
    assert factors(cx.by_ndim({1: 0.0}, default=1.0), params)["blocks/linear/bias"] == 1.0
    with pytest.warns(cx.ChainWarning, match="the pattern 'layers' in `stacked` decides for no parameter"):
        cx.scale(cx.by_ndim({1: 0.0}, default=1.0, stacked={"layers": 1})).init(params)


def test_a_number_of_axes_that_no_parameter_has_is_silent() -> None:
    """The rule is for all models."""
    cx.scale(cx.by_ndim({0: 0.0, 5: 0.0}, default=1.0)).init({"w": jnp.ones((2, 2))})


def test_what_else_may_depend_on_the_number_of_axes() -> None:
    """Chains in a partition, formats of slots and the words of matrices."""
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3), "conv": jnp.ones((2, 2, 2, 3))}
    tx = cx.partition(cx.by_ndim({1: cx.sgd(0.5), 4: cx.freeze()}, default=cx.sgd(0.25)))
    state = tx.init(params)
    assert list(state.links["partition"]) == ["1", "default"]
    moved, _ = tx.step(params, state, params)
    assert [float(moved[n].ravel()[0]) for n in ("b", "conv", "w")] == [0.5, 1.0, 0.75]
    assert cx.from_config(json.loads(json.dumps(cx.to_config(tx)))) == tx
    assert "'1'\n" in tx.describe(params)

    stored = cx.store(cx.adam(0.1), mu=cx.by_ndim({1: "float32"}, default="bfloat16"))
    state = stored.init(params)
    assert {n: x.dtype for n, x in state.links["scale_by_adam"]["mu"].items()} == {
        "b": jnp.float32,
        "conv": jnp.bfloat16,
        "w": jnp.bfloat16,
    }
    loaded, _ = stored.load_state_dict(params, stored.state_dict(state))
    chex.assert_trees_all_equal(loaded, state)

    words = cx.by_ndim({4: cx.matrices("h w in, out"), 1: cx.matrices(", out")}, default=cx.matrices("in, out"))
    same = cx.matrices("in, out", "h w in, out", ", out")
    grads = jax.tree.map(lambda p: jnp.sin(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)
    ours, theirs = (
        cx.scale_by_muon(matrices=m).update(grads, cx.scale_by_muon(matrices=m).init(params)) for m in (words, same)
    )
    chex.assert_trees_all_equal(ours, theirs)


def test_shardings_may_depend_on_the_number_of_axes() -> None:
    """Those along automatic axes, which types do not carry: the state lies as by a table of paths."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    specs = {"w": P(None, "model"), "b": P()}
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    params = jax.device_put({"w": jnp.ones((16, 16)), "b": jnp.ones(16)}, shardings)
    tables = (cx.by_ndim({2: specs["w"]}, default=P()), cx.by_path(specs))
    with jax.set_mesh(mesh):
        ours, theirs = (cx.zero1(cx.trace(0.9), "data", specs=table).state_sharding(params) for table in tables)
    assert ours == theirs
    assert "model" in str(ours)


def test_a_complex_slot_counts_the_axes_of_its_parameter() -> None:
    """Not the additional axis of real and imaginary parts, when stored and when loaded."""
    params = {"w": jnp.ones((16, 16), jnp.complex64), "b": jnp.ones(256, jnp.complex64)}
    tx = cx.store(cx.trace(0.9), cx.by_ndim({1: "float32"}, default=cx.int8(min_size=0)))
    params, state = tx.update(params, tx.init(params), params)
    assert isinstance(state.links["trace"]["trace"]["w"], dict)
    assert not isinstance(state.links["trace"]["trace"]["b"], dict)
    loaded, _ = tx.load_state_dict(params, tx.state_dict(state))
    chex.assert_trees_all_equal(loaded, state)


def test_packs_hold_leaves_that_would_be_treated_alike() -> None:
    """A matrix in a pack would have one axis, so it stays outside; without a choice by shape it is packed."""
    params = {n: jnp.ones(shape) for n, shape in (("a", (3,)), ("b", (3,)), ("v", (2, 2)), ("w", (2, 2)))}
    tx = cx.sgd(0.1, weight_decay=cx.by_ndim({1: 0.0}, default=0.5))
    packed = cx.pack(tx)
    grads = jax.tree.map(jnp.zeros_like, params)
    chex.assert_trees_all_equal(
        packed.step(params, packed.init(params), grads)[0], tx.step(params, tx.init(params), grads)[0]
    )
    seen = cx.pack(cx.chain(cx.trace(0.9), cx.scale(cx.by_ndim({1: 0.0}, default=0.5)))).init(params)
    assert {n: x is not None for n, x in seen.links["pack"]["tx"].links["trace"]["trace"].items()} == {
        "a": True,
        "b": False,
        "v": True,
        "w": True,
    }
    no_vectors = cx.pack(cx.chain(cx.trace(0.9), cx.scale(cx.by_ndim({2: 0.5}))))
    assert no_vectors.init({n: params[n] for n in "vw"}).links["pack"].keys() == {"tx"}


def test_where_shapes_are_others() -> None:
    """A chain that sees one vector refuses a rule by shape; one on shards sees the shapes of the parameters."""
    rule = cx.by_ndim({1: 0.0}, default=0.1)
    with pytest.raises(
        ValueError, match=r"`flatten.tx`: 'add_decayed_weights' has by_ndim in 'weight_decay', .* one v"
    ):
        cx.flatten(cx.adamw(0.1, weight_decay=rule))
    width = cx.chain(cx.scale_by_adam(), cx.scale(cx.by_width({"w": (2, 2)})))
    with pytest.raises(ValueError, match=r"`scale_by_galore.tx`: 'scale' has by_width in 'step_size', .* projected"):
        cx.scale_by_galore(width)
    cx.scale_by_galore(cx.scale(rule))
    mesh = jax.make_mesh((8,), ("data",))
    step = jax.shard_map(
        lambda p: width.update(p, width.init(p))[0],
        mesh=jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)),
        in_specs=P("data"),
        out_specs=P("data"),
    )
    with pytest.raises(
        TypeError, match=r"`scale.step_size`: by_width reads the lengths of axes, but 'w' may be a part"
    ):
        step({"w": jnp.ones((16, 2))})
    params = {"w": jnp.ones((16, 2)), "b": jnp.ones(16)}
    tx = cx.chain(cx.add_decayed_weights(rule), cx.scale(cx.by_width({"w": (16, 2), "b": (2,)}, rule="sgd")))
    spread = cx.zero1(tx, "data")
    with jax.set_mesh(mesh):
        state = jax.jit(spread.init)(params)
        ours = jax.jit(spread.update)(params, state, params)[0]
    chex.assert_trees_all_close(ours, tx.update(params, tx.init(params), params)[0])


# By depth


def test_by_depth_is_a_table_written_by_hand() -> None:
    """The exponents are those of BEiT's code: L + 1 for embeddings, L − i for layer i, 0 for the rest."""
    rate, decay, n = cx.linear_schedule(0.1, 0.2, 2), 0.75, 2
    by_hand = {"embed": rate * decay**3, "block_0": rate * decay**2, "block_1": rate * decay}
    chains = (
        cx.adamw(cx.by_depth(decay, layers=n, value=rate)),
        cx.adamw(cx.by_path(by_hand, default=rate)),
        cx.adamw(rate).insert(cx.scale(cx.by_depth(decay, layers=n)), before="scale_by_lr"),
    )
    runs = []
    for tx in chains:
        params, state = MODEL, tx.init(MODEL)
        for _ in range(3):
            params, state = tx.step(params, state, ONES)
        runs.append(params)
    chex.assert_trees_all_close(runs[0], runs[1], rtol=1e-6)
    chex.assert_trees_all_close(runs[0], runs[2], rtol=1e-6)
    assert not np.allclose(runs[0]["embed"]["table"], runs[0]["head"][0, 0])


@pytest.mark.parametrize(
    ("path", "exponent"),
    (
        ("encoder/layer_11/dense/kernel", 1),
        ("transformer/blocks/0/attention/kernel", 12),
        ("Transformer/encoderblock_3/LayerNorm_0/scale", 9),
        ("params/patch_embedding/kernel", 13),
        ("cls_token", 13),
        ("LayerNorm_0/scale", 0),
        ("head/bias", 0),
        ("tok_embeddings/weight", 13),
        ("unembed/kernel", 0),
    ),
)
def test_layers_are_found_by_number(path: str, exponent: int) -> None:
    """In names that flax, transformers and timm give."""
    assert cx.by_depth(0.5, layers=12).choose(path, ()) == exponent


def test_other_names_of_layers() -> None:
    """GPT-2's blocks; a rule that finds no layer warns, since it would do nothing, and a layer too many is an error."""
    params = {"wte": jnp.ones(1), "h": [jnp.ones(1), jnp.ones(1)], "ln_f": jnp.ones(1)}
    found = factors(cx.by_depth(0.5, layers=2, layer=r"^h/(\d+)"), params)
    assert found == {"wte": 0.125, "h/0": 0.25, "h/1": 0.5, "ln_f": 1.0}
    with pytest.warns(cx.ChainWarning, match="finds the number of a layer in no path; the paths are like"):
        cx.scale(cx.by_depth(0.5, layers=2)).init(params)
    with pytest.raises(KeyError, match=r"`scale.step_size`: parameter 'h/1' is in layer 1, and .* give layers=2 or mo"):
        cx.scale(cx.by_depth(0.5, layers=1, layer=r"^h/(\d+)")).init(params)


# By width


def mlp(width: int) -> nn.Module:
    """Four layers of flax's, initialized with a variance of 1/inputs."""

    class MLP(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> list[jax.Array]:
            seen = []
            for i, n in enumerate((width, width, width)):
                x = nn.Dense(n, name=f"layer_{i}")(x)
                seen.append(x)
                x = nn.relu(x)
            return [*seen, nn.Dense(4, name="out")(x)]

    return MLP()


WIDTHS = (64, 256, 1024)
BATCH = jax.random.normal(jax.random.key(1), (16, 8)), jax.random.randint(jax.random.key(2), (16,), 0, 4)


def changes(make: Callable[[Any], Any], rescale: bool, width: int) -> np.ndarray:
    """The size of the change of each layer's output in three steps."""
    model, (x, labels) = mlp(width), BATCH
    base = jax.eval_shape(mlp(WIDTHS[0]).init, jax.random.key(0), x)
    first = model.init(jax.random.key(0), x)
    if rescale:
        init = cx.scale(cx.by_width(base, rule="init"))
        first = init.update(first, init.init(first))[0]
    tx = make(base)

    def loss(params: Any) -> jax.Array:
        logits = model.apply(params, x)[-1]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()

    @jax.jit
    def run(params: Any) -> Any:
        state = tx.init(params)
        for _ in range(3):
            params, state = tx.step(params, state, jax.grad(loss)(params))
        outputs: Any = zip(model.apply(params, x), model.apply(first, x))
        return [jnp.sqrt(jnp.mean((a - b) ** 2)) for a, b in outputs]

    return np.array(run(first))


def slopes(make: Callable[[Any], Any], rescale: bool) -> np.ndarray:
    """The exponents of the width in the changes of the layers' outputs."""
    sizes = np.log([changes(make, rescale, width) for width in WIDTHS])
    return np.polyfit(np.log(WIDTHS), sizes, 1)[0]


MUP = {
    "adamw": (
        lambda base: cx.adamw(5e-3).insert(cx.scale(cx.by_width(base)), after="scale_by_adam"),
        lambda base: cx.adamw(5e-3),
    ),
    "sgd": (
        lambda base: cx.sgd(0.1).insert(cx.scale(cx.by_width(base, rule="sgd")), before="scale_by_lr"),
        lambda base: cx.sgd(0.1),
    ),
}


@pytest.mark.parametrize("kind", MUP)
def test_coordinate_check(kind: str) -> None:
    """As the paper's Figure 5: changes do not depend on the width, and without the rule the wide model's are larger.

    Appendix D.1 calls this the way to verify an implementation.
    """
    with_rule, without = MUP[kind]
    assert np.abs(slopes(with_rule, True)).max() < 0.2
    assert slopes(without, False).max() > 0.3


def test_factors_of_the_table() -> None:
    """Table 3 at 4 times the width, where the outputs of the first layer grow twice as much."""
    base = {"in": jnp.ones((3, 8)), "bias": jnp.ones(8), "mid": jnp.ones((8, 8)), "out": jnp.ones((8, 5))}
    wide = {"in": jnp.ones((3, 64)), "bias": jnp.ones(64), "mid": jnp.ones((64, 32)), "out": jnp.ones((32, 5))}
    expected = {
        "adam": {"in": 1, "bias": 1, "mid": 1 / 8, "out": 1 / 4},
        "sgd": {"in": 8, "bias": 8, "mid": 4 / 8, "out": 1 / 4},
        "decay": {"in": 1, "bias": 1, "mid": 8, "out": 4},
        "init": {"in": 1, "bias": 1, "mid": 1, "out": 1 / 2},
    }
    for rule, of in expected.items():
        assert factors(cx.by_width(base, rule=rule), wide) == of
        assert set(factors(cx.by_width(base, 0.5, rule=rule), base).values()) == {0.5}


def test_decay_does_not_depend_on_the_width() -> None:
    """With the factors in the rate, the decay has the inverse ones: the product is that of `scale` before the decay."""
    base, wide = ({"w": jnp.ones((n, n))} for n in (2, 4))
    rate = cx.by_width(base, cx.linear_schedule(0.1, 0.2, 2))
    one = cx.adamw(rate, weight_decay=cx.by_width(base, 0.1, rule="decay"))
    two = cx.adamw(rate.value, weight_decay=0.1).insert(cx.scale(cx.by_width(base)), after="scale_by_adam")
    runs = []
    for tx in (one, two):
        params, state = wide, tx.init(wide)
        for _ in range(3):
            params, state = tx.step(params, state, jax.tree.map(jnp.ones_like, wide))
        runs.append(params)
    chex.assert_trees_all_close(*runs, rtol=1e-6)


def attention(heads: int, size: int, width: int) -> dict[str, jax.Array]:
    """The parameters of flax's attention."""
    shapes = {"query": (width, heads, size), "query_bias": (heads, size), "out": (heads, size, width)}
    return {name: jnp.ones(shape) for name, shape in shapes.items()}


def test_axes_of_attention() -> None:
    """Larger heads need no words. For more heads the axes are ambiguous, and the error says what to write."""
    base = attention(4, 8, 32)
    assert factors(cx.by_width(base), attention(4, 16, 64)) == {"query": 0.5, "query_bias": 1.0, "out": 0.5}
    more = attention(8, 8, 64)
    with pytest.raises(KeyError, match=r"several axes of 'query' but the last grow from \(32, 4, 8\) to \(64, 8, 8\)"):
        cx.scale(cx.by_width(base)).init({"query": more["query"]})
    words = cx.by_path({"query$": cx.matrices("in, head size"), "bias": cx.matrices(", head size")})
    table = cx.by_width(base, matrices=words)
    assert factors(table, more) == {"query": 0.5, "query_bias": 1.0, "out": 0.5}
    assert cx.from_config(json.loads(json.dumps(cx.to_config(cx.scale(table))))) == cx.scale(table)
    per_head = cx.by_width(base, matrices=cx.by_path({"query$": cx.matrices("in, _head size")}))
    with pytest.raises(KeyError, match="numbers matrices by an axis of 'query' that grows with the width"):
        cx.scale(per_head).init({"query": more["query"]})


def test_a_group_is_not_warned_of_the_patterns_of_another() -> None:
    """The base model and a mask may cover all groups; a pattern that matches nowhere is still named."""
    base = {"in": jnp.ones((3, 8)), "mid": jnp.ones((8, 8)), "bias": jnp.ones(8)}

    def in_groups(pattern: str) -> Any:
        decay = cx.add_decayed_weights(cx.by_path({pattern: 0.0}, default=0.1))
        own = cx.chain(cx.scale(cx.by_width(base)), decay, cx.scale_by_lr(0.1))
        return cx.partition(cx.by_path({"in": own}, default=own))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_groups("bias").init(base)
    with pytest.warns(cx.ChainWarning, match="the pattern 'bais' decides for no parameter"):
        in_groups("bais").init(base)


def test_a_pattern_called_default() -> None:
    """Its number and that of the default are both there."""
    params = {"default": jnp.ones(3), "w": jnp.ones((2, 2))}
    tx = cx.scale(cx.by_path({"default": 2.0}, default=3.0))
    state = tx.init(params)
    assert cx.metrics(tx, state) == {"step_size/default": 2.0, "step_size/(default)": 3.0}
    assert tx.hyperparams(state)["scale"]["step_size"] == {"default": 2.0, "(default)": 3.0}


def test_base_shapes_are_short() -> None:
    """Layers that differ in their number share a pattern; those with other shapes keep their own."""
    params = {f"layer_{i}": {"w": jnp.ones((2, 2)), "v": jnp.ones(2 + i)} for i in range(3)}
    table = cx.by_width(jax.eval_shape(lambda: params))
    assert repr(table) == (
        r"by_width({'^layer_0/v$': (2,), '^layer_1/v$': (3,), '^layer_2/v$': (4,), '^layer_\\d+/w$': (2, 2)})"
    )
    assert set(factors(table, params).values()) == {1.0}
    with pytest.warns(cx.ChainWarning, match=r"'\^layer_2/v\$' of the base shapes matches no parameter"):
        cx.scale(table).init({n: params[n] for n in ("layer_0", "layer_1")})


# A table of one's own


@cxe.value
class by_size(cxe.Table):
    """One number for leaves of more than ``limit`` numbers, and another for the rest."""

    limit: int = cxe.static("the size of the largest small leaf", least=0)
    small: Any = cxe.number("the entry of small leaves")
    large: Any = cxe.number("the entry of large leaves")

    reads_ndim = reads_sizes = True

    def choose(self, path: str, shape: tuple[int, ...]) -> str:
        """Which of the two."""
        return "large" if math.prod(shape) > self.limit else "small"

    def entry(self, choice: str) -> Any:
        """Its number."""
        return getattr(self, choice)

    def labelled(self) -> dict[str, Any]:
        """Both."""
        return {"small": self.small, "large": self.large}

    def map(self, change: Callable[[str, Any], Any]) -> "by_size":
        """With others."""
        return self.replace(**{name: change(name, x) for name, x in self.labelled().items()})


def test_a_table_of_ones_own() -> None:
    """It goes wherever a hyperparameter does, and through JSON."""
    tx, params = cx.add_decayed_weights(by_size(4, 0.0, 0.5)), {"w": jnp.ones((3, 3)), "b": jnp.ones(3)}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert [float(updates[n].ravel()[0]) for n in ("w", "b")] == [0.5, 0.0]
    assert tx.hyperparams(tx.init(params))["add_decayed_weights"]["weight_decay"] == {"small": 0.0, "large": 0.5}
    assert cx.from_config(json.loads(json.dumps(cx.to_config(tx)))) == tx
    with pytest.raises(ValueError, match=r"`add_decayed_weights.weight_decay`: `large` must lie in \[0, ∞\), got -1"):
        cx.add_decayed_weights(by_size(4, 0.0, -1.0))
    with pytest.raises(ValueError, match="has by_size in 'weight_decay', which reads the shapes"):
        cx.flatten(tx)


# Laws


TABLES = {
    "by_path": cx.by_path({"bias": 0.25, "block": cx.linear_schedule(0.5, 1.0, 4)}, default=2.0),
    "by_ndim": cx.by_ndim({0: 0.25, 1: cx.linear_schedule(0.5, 1.0, 4)}, default=2.0, stacked={"head": 1}),
    "by_depth": cx.by_depth(0.5, layers=2, value=cx.linear_schedule(0.5, 1.0, 4), bottom="embed|scale"),
    "by_width": cx.by_width(NARROW, cx.linear_schedule(0.5, 1.0, 4), rule="decay"),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_is_a_value(table: Any) -> None:
    """It prints as the code that makes it, compares, hashes, pickles, passes through JSON, and is a pytree."""
    tx = cx.chain(cx.scale_by_adam(), cx.scale(table))
    copies = (
        eval(repr(tx), vars(cx)),
        pickle.loads(pickle.dumps(tx)),
        cx.from_config(json.loads(json.dumps(cx.to_config(tx)))),
        jax.tree.unflatten(jax.tree.structure(tx), jax.tree.leaves(tx)),
    )
    assert all(copy == tx and hash(copy) == hash(tx) for copy in copies)
    others = [other for other in TABLES.values() if other is not table] + [jax.tree.map(lambda x: x + 1, table)]
    assert all(cx.scale(other) != cx.scale(table) for other in others)
    assert len({hash(cx.scale(other)) for other in TABLES.values()}) == len(TABLES)
    assert 0 < len(str(table)) <= 300


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_hyperparams_say_what_the_engine_does(table: Any) -> None:
    """With parameters a number for each of them, and without them a few."""
    tx = cx.scale(table)
    _, state = tx.update(ONES, tx.init(MODEL))
    updates, _ = tx.update(ONES, state)
    told = tx.hyperparams(state, MODEL)["scale"]["step_size"]
    flat, _ = jax.tree.flatten_with_path(updates)
    assert told == {jax.tree_util.keystr(p, simple=True, separator="/"): u.ravel()[0] for p, u in flat}
    few = tx.hyperparams(state)["scale"]["step_size"]
    assert 1 <= len(few) <= 4
    assert all(isinstance(label, str) for label in few)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_numbers_in_tables_are_differentiable(table: Any, x64: None) -> None:
    """Hypergradients through three steps against differences, and a stack of settings by vmap."""
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), MODEL)
    tx = cx.chain(cx.trace(0.5), cx.scale_by_lr(table))

    def loss(tx: Any) -> jax.Array:
        p, state = params, tx.init(params)
        for _ in range(3):
            p, state = tx.step(p, state, p)
        return sum((jnp.sum(jnp.square(x)) for x in jax.tree.leaves(p)), jnp.zeros(()))

    tx = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tx)
    with jax.disable_jit():
        found = jax.grad(loss)(tx)
        direction = jax.tree.map(lambda x: jnp.where(x == jnp.round(x), 0.0, 1.0), tx)  # not lengths of schedules
        h = 1e-6
        ends = [loss(jax.tree.map(lambda x, d, s=s: x + s * h * d, tx, direction)) for s in (1, -1)]
    slope = sum(float(jnp.sum(g * d)) for g, d in zip(jax.tree.leaves(found), jax.tree.leaves(direction)))
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-5)


def test_sweeps_go_into_tables() -> None:
    """A grid over fields of a table; the columns are the fields that differ."""
    tx = cx.sgd(cx.by_depth(0.5, layers=2, value=0.1, bottom="embed|scale"))
    chains = cx.grid(tx, {"scale_by_lr.learning_rate.decay": [0.5, 0.75]})
    assert [tx["scale_by_lr"].learning_rate.decay for tx in chains] == [0.5, 0.75]
    ndim = cx.grid(
        cx.add_decayed_weights(cx.by_ndim({1: 0.0}, default=0.1, stacked={"h": 1})), {"weight_decay.default": [1, 2]}
    )
    assert ndim[1].weight_decay == cx.by_ndim({1: 0.0}, default=2, stacked={"h": 1})
    stack = cx.stack(chains)
    steps = jax.vmap(lambda tx: tx.update(ONES, tx.init(MODEL))[0]["embed"]["table"][0, 0], in_axes=(stack.axes(),))(
        stack
    )
    np.testing.assert_allclose(steps, [-0.1 * 0.5**3, -0.1 * 0.75**3], rtol=1e-6)


# Long tables


def test_long_tables_print_in_short() -> None:
    """The summary counts leaves; the code, and JSON, have them all."""
    params = {f"layer_{i}": {"kernel": np.ones((2, 2)), "bias": np.ones(2)} for i in range(74)}
    params["a|b"] = {"(c)": np.ones(2)}
    table = cx.by_leaf(params, lambda path, p: 0.1 if p.ndim > 1 else 0.0)
    assert str(table) == "by_path(<149 leaves: 0 ×75, 0.1 ×74>)"
    tx = cx.add_decayed_weights(table)
    assert "λ=by_path(<149 leaves: 0 ×75, 0.1 ×74>)" in tx.describe(params)
    assert eval(repr(tx), vars(cx)) == tx
    assert cx.from_config(json.loads(json.dumps(cx.to_config(tx)))) == tx
    labels = tx.hyperparams(tx.init(params))["add_decayed_weights"]["weight_decay"]
    assert [len(label) < 80 for label in labels] == [True, True]
    assert [label[-11:] for label in labels] == ["(75 leaves)", "(74 leaves)"]
    with pytest.raises(KeyError, match=r"no pattern of by_path\(<149 leaves: 0 ×75, 0.1 ×74>\) matches parameter 'x'"):
        tx.init({"x": np.ones(2, np.float32)})
    many = cx.by_path({f"a_rather_long_pattern_number_{i}": float(i) for i in range(9)}, default=0.0)
    assert str(many) == "by_path(<9 entries: 0 ×1, 1 ×1, 2 ×1, 3 ×1, 4 ×1, 5 ×1, ...>, default=0)"
    wide = cx.by_width({f"a_rather_long_pattern_number_{i}": (i,) for i in range(9)})
    assert str(wide) == "by_width(base_shapes=<9 patterns>, value=1, rule='adam', matrices=None)"


def test_untrusted_patterns_are_checked() -> None:
    """In all tables, as in by_path."""
    slow = r"(a+)+$"
    for table in (
        cx.by_ndim({1: 0.0}, default=1.0, stacked={slow: 1}),
        cx.by_depth(0.5, layers=2, layer=r"(\d+)", bottom=slow),
        cx.by_width({slow: (2,)}),
    ):
        with pytest.raises(ValueError, match="nests repetitions"):
            cx.from_config(cx.to_config(cx.scale(table)))


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no table": (lambda: cx.by_ndim(0.1), ValueError, r"`by_ndim` needs a table {number of axes: number}, got 0.1"),  # pyright: ignore[reportArgumentType]
    "a pattern for a number": (lambda: cx.by_ndim({"bias": 0.0}), ValueError, "must be a whole number from 0, got 'bi"),  # pyright: ignore[reportArgumentType]
    "a list of stacks": (
        lambda: cx.by_ndim({1: 0.0}, stacked=["blocks"]),  # pyright: ignore[reportArgumentType]
        ValueError,
        r"`by_ndim.stacked` must be {pattern: number of axes}",
    ),
    "an entry out of range": (
        lambda: cx.scale_by_adam(b1=cx.by_ndim({1: 1.5}, default=0.9)),
        ValueError,
        r"`scale_by_adam.b1`: `by_ndim\[1\]` must lie in \[0, 1\), got 1.5",
    ),
    "a table in a table": (
        lambda: cx.by_path({"a": 0.0}, default=cx.by_ndim({1: 0.0}, default=0.1)),
        ValueError,
        r"`by_path.default` must be a number or a schedule, got by_ndim\(",
    ),
    "no entry": (
        lambda: cx.scale(cx.by_ndim({1: 0.0})).init({"w": jnp.ones((2, 2))}),
        KeyError,
        r"`scale.step_size`: by_ndim\({1: 0}\) has no entry for 2 axes, as parameter 'w' has: add one, or a default",
    ),
    "fewer axes than stacked": (
        lambda: cx.scale(cx.by_ndim({1: 0.0}, 1.0, stacked={"w": 3})).init({"w": jnp.ones(2)}),
        KeyError,
        "parameter 'w' has 1 axes, fewer than the 3 in `by_ndim.stacked`",
    ),
    "a whole-tree link": (
        lambda: cx.conditionally_mask(cx.sgd(0.1), cx.by_ndim({1: 1.0}, 2.0)).init({"w": jnp.ones(2)}),
        ValueError,
        "`conditionally_mask.condition` cannot be by_ndim: the link treats the whole tree at once",
    ),
    "a decay over 1": (
        lambda: cx.by_depth(1.5, layers=2),
        ValueError,
        r"`by_depth.decay` must lie in \(0, 1\], got 1.5",
    ),
    "no layers": (lambda: cx.by_depth(0.9, layers=0), ValueError, "`by_depth.layers` must be a whole number from 1"),
    "no group": (
        lambda: cx.by_depth(0.9, layers=2, layer="block"),
        ValueError,
        "`by_depth.layer` must have one group, around the layer's number",
    ),
    "a table as value": (
        lambda: cx.by_depth(0.9, layers=2, value=cx.by_ndim({1: 0.0}, 0.1)),
        ValueError,
        "`by_depth.value` must be a number or a schedule, got by_ndim",
    ),
    "no shapes": (lambda: cx.by_width(3), ValueError, r"`by_width.base_shapes` must be the parameters .* got 3"),
    "another rule": (
        lambda: cx.by_width({"a": (2,)}, rule="lion"),
        ValueError,
        "`by_width.rule` must be one of 'adam'",
    ),
    "another model": (
        lambda: cx.scale(cx.by_width({"a": (2,)})).init({"b": jnp.ones(2)}),
        KeyError,
        "`scale.step_size`: the base shapes of by_width have no parameter 'b'",
    ),
    "other axes": (
        lambda: cx.scale(cx.by_width({"a": (2,)})).init({"a": jnp.ones((2, 2))}),
        KeyError,
        r"parameter 'a' has the shape \(2, 2\), and \(2,\) in the base model",
    ),
    "other words": (
        lambda: cx.scale(cx.by_width({"a": (2,)}, matrices="in, out")).init({"a": jnp.ones(4)}),
        KeyError,
        "by_width finds no inputs and outputs in 'a': has 1 axes",
    ),
}


@pytest.mark.parametrize("mistake", ERRORS)
def test_mistakes(mistake: str) -> None:
    """The message names the link, the field, what came and what to write."""
    make, kind, message = ERRORS[mistake]
    with pytest.raises(kind, match=message):
        make()


def test_width_does_not_take_layers_for_inputs() -> None:
    """A model of more stacked layers than its base is refused."""
    table = cx.by_width({"w": jnp.ones((2, 8, 8))})
    with pytest.raises(KeyError, match="if they number layers, give the base model as many"):
        table.choose("w", (4, 8, 8))
    assert table.choose("w", (2, 16, 16)) == 0.5


def test_states_and_paths_have_whole_patterns() -> None:
    """Labels are shortened where they are shown, but not where they name what is stored."""
    params = {f"layer_{i}": {"kernel": jnp.ones(2), "bias": jnp.ones(2)} for i in range(12)}
    table = cx.by_leaf(params, lambda path, _: cx.sgd(0.1, momentum=0.9) if "kernel" in path else cx.sgd(0.2))
    tx = cx.partition(table)
    assert {*tx.inner} == {*table.patterns}
    assert all(f"partition/{pattern}/step" in tx.state_dict(tx.init(params)) for pattern in table.patterns)
    pattern = next(x for x in table.patterns if "kernel" in x)
    assert cx.chain(tx)[f"partition/{pattern}/scale_by_lr"] == cx.scale_by_lr(0.1)
    long = "|".join(f"layer_{i}" for i in range(12))
    assert [*cx.by_path({long: 1.0}).labelled()] == [f"{long[:60]}..."]
