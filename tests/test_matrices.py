"""Matrices among the parameters: words, forms, buckets, and links that treat each matrix as a whole."""

import functools
import re
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import MATRIX_LINKS

# Words


def numbered(*shape: int) -> np.ndarray:
    """Different numbers."""
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


CASES = (
    (cx.matrices(), (4, 3), lambda x: [x[None]]),
    (cx.matrices("out, in"), (4, 3), lambda x: [x.T[None]]),
    (cx.matrices("h w in, out"), (2, 3, 4, 5), lambda x: [x.reshape(1, 24, 5)]),
    (cx.matrices("out, in h w"), (5, 4, 2, 3), lambda x: [x.reshape(1, 5, 24).transpose(0, 2, 1)]),
    (cx.matrices("in, head size"), (4, 2, 3), lambda x: [x.reshape(1, 4, 6)]),
    (cx.matrices("in, _head size"), (4, 2, 3), lambda x: [x.transpose(1, 0, 2)]),
    (cx.matrices("in, _head*size", head=2), (4, 6), lambda x: [x.reshape(4, 2, 3).transpose(1, 0, 2)]),
    (cx.matrices("in, 3*out"), (4, 6), lambda x: [x.reshape(4, 3, 2).transpose(1, 0, 2)]),
    (cx.matrices("_layer in, out"), (5, 4, 3), lambda x: [x]),
    (cx.matrices("_layer in, 3*out"), (5, 4, 6), lambda x: [
        x.reshape(5, 4, 3, 2).transpose(0, 2, 1, 3).reshape(15, 4, 2)]),
    (cx.matrices("in, q+k+v", q=4, k=1), (3, 7), lambda x: [x[None, :, :4], x[None, :, 4:5], x[None, :, 5:]]),
    (cx.matrices("q+k, in", k=1), (3, 4), lambda x: [x[None, :2].transpose(0, 2, 1), x[None, 2:].transpose(0, 2, 1)]),
    (cx.matrices("_head*size, in", head=2), (6, 4), lambda x: [x.reshape(2, 3, 4).transpose(0, 2, 1)]),
    (cx.matrices("_layer in, q+k", k=1), (2, 3, 5), lambda x: [x[..., :4], x[..., 4:]]),
    (cx.matrices(", out"), (4,), lambda x: [x[None, None]]),
    (cx.matrices("in,"), (4,), lambda x: [x[None, :, None]]),
    (cx.matrices(","), (), lambda x: [x[None, None, None]]),
    (cx.matrices(",", "in, out"), (4, 3), lambda x: [x[None]]),
)  # fmt: skip
"""Words, a shape, and the matrices of a parameter of that shape, block by block."""


@pytest.mark.parametrize(("words", "shape", "expected"), CASES, ids=[repr(words) for words, _, _ in CASES])
def test_words_name_the_matrices(words: Any, shape: Any, expected: Any) -> None:
    """And the way back gives the parameter."""
    x, form = numbered(*shape), words.form(shape)
    stacks = form.stacks(jnp.asarray(x))
    for got, want in zip(stacks, expected(x), strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(form.leaf(stacks), x)
    assert [(block.m, block.n) for block in form.blocks] == [stack.shape[1:] for stack in stacks]


@pytest.mark.parametrize(
    ("make", "text"),
    (
        (lambda: cx.matrices("in out"), "needs words with one comma, such as \"in, out\", got 'in out'"),
        (lambda: cx.matrices("in, out, x"), "needs words with one comma"),
        (lambda: cx.matrices("in, 3+?"), "'\\?' in 'in, 3\\+\\?' is neither a name nor a number from 1"),
        (lambda: cx.matrices("in, in"), "names 'in' twice"),
        (lambda: cx.matrices("a+b, c+d"), "divides two axes into unequal parts"),
        (lambda: cx.matrices(["in, out"]), "takes words, matrices"),
        (lambda: cx.matrices("in, 0*out"), "'0' in 'in, 0\\*out' is neither a name nor a number from 1"),
        (lambda: cx.matrices("in, _q+k"), "a sum is of names"),
        (lambda: cx.matrices("in out, x"), "has 'in' and 'out' on one side"),
        (lambda: cx.matrices("in, out", "out, in"), "'out, in' is for as many axes as words before it"),
        (lambda: cx.by_path({"w": "in, out"}), "write matrices\\('in, out'\\)"),
        (lambda: cx.matrices("in, _head*size", heads=3), r"no axis of .* is named 'heads' \(did you mean 'head'\?\)"),
        (lambda: cx.matrices("in, head", head=0), "must be a whole number from 1"),
        (lambda: cx.scale_by_muon(matrices=3), 'must be matrices\\("in, out"\\), other words, or by_path'),
        (lambda: cx.scale_by_muon(over=3), "`scale_by_muon.over` must name axes of a mesh"),
    ),
)
def test_bad_words(make: Any, text: str) -> None:
    """They say what is wrong."""
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(
    ("words", "shape", "text"),
    (
        (cx.matrices("in, _head*size", head=4), (8, 6), "has an axis of 6, which is not _head\\*size with 4"),
        (cx.matrices("in, _head*size"), (8, 6), "does not say how an axis of 6 is divided into _head\\*size"),
        (cx.matrices("in, q+k", q=9), (8, 6), "has an axis of 6, which is not q\\+k with 9"),
        (cx.matrices("in, q+k", q=2, k=2), (8, 6), "has an axis of 6"),
        (cx.matrices(), (3, 3, 2, 4), "and 'w', float32\\[3, 3, 2, 4\\], has 4 axes.*matrices\\(\"h w in, out\"\\)"),
        (cx.matrices(), (3,), "has 1 axes.*partition\\(by_path\\({'w': adamw\\(...\\)}, default=...\\)\\)"),
    ),
)
def test_a_parameter_without_fitting_words_is_refused(words: Any, shape: Any, text: str) -> None:
    """By `init`, with its path and what to write; and by `update`, which leaves the state as it was."""
    tx, params = cx.scale_by_muon(matrices=words), {"w": jnp.ones(shape)}
    with pytest.raises(TypeError, match=text):
        tx.init(params)
    state = cx.scale_by_muon(matrices=cx.matrices(",", ", out", "in, out", "h w in, out")).init(params)
    with pytest.raises(TypeError, match=text):
        tx.update(params, state, params)


def test_a_link_without_slots_refuses_at_once() -> None:
    """`init` looks at the parameters, also if there is nothing to initialize."""
    with pytest.raises(TypeError, match="transforms matrices, and 'w'"):
        cx.orthogonalize().init({"w": jnp.ones(3)})


def test_words_are_values() -> None:
    """Compared, printed as code, stored as JSON, chosen by path."""
    words = cx.by_path({"qkv": cx.matrices("in, q+k", q=2)}, default=cx.matrices("in, out", "h w in, out"))
    tx = cx.scale_by_muon(matrices=words)
    assert eval(repr(tx), vars(cx)) == cx.from_config(cx.to_config(tx)) == tx != cx.scale_by_muon()
    assert cx.scale_by_muon(matrices="out, in") == cx.scale_by_muon(matrices=cx.matrices("out, in"))


# A link with every kind of slot


@cxe.transform
class whiten(cxe.Matrixwise):
    """Momentum, divided by root mean squares and by a root of row products, with slots of all kinds."""

    b1: cxe.Hyper = cxe.hyper("β", "decay", default=0.9, high=1.0)

    slots = ("mu", "nu", "products", "count")
    matrix_slots = ("nu",)
    factors = ("products", "count")
    nonnegative = ("nu",)
    decomposes = True
    role = "precondition"
    equation = "m ← βm + u"

    def init_matrix(self, m, n, dtype):
        return {"products": jnp.eye(m, dtype=dtype), "count": jnp.zeros((), dtype)}

    def leaf(self, u, slot, p, scalars):
        mu = self.b1 * slot.mu + u
        return mu, {"mu": mu}

    def matrix(self, M, slot, scalars):
        products = self.b1 * slot.products + M @ M.T
        nu = self.b1 * slot.nu + M * M
        values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(products))
        new = vectors @ ((vectors.T @ (M / (jnp.sqrt(nu) + 1))) / jnp.sqrt(values)[:, None])
        return new, {"nu": nu, "products": products, "count": slot.count + 1}

    def size(self, m, n):
        return m / n


LINKS = (cx.scale_by_muon, whiten)
every = pytest.mark.parametrize("link", LINKS)


@pytest.fixture
def x64():
    """With float64."""
    with jax.enable_x64(True):
        yield


def draw(seed: int, **shapes: tuple[int, ...]) -> dict[str, jax.Array]:
    """Arrays of these shapes, of different sizes."""
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=s) * 10.0 ** rng.integers(-3, 3)) for name, s in shapes.items()}


def run(tx: Any, params: Any, steps: int = 3, seed: int = 1) -> tuple[Any, Any]:
    """The parameters and the state after some steps."""
    state, step = tx.init(params), jax.jit(tx.step)
    for i in range(steps):
        params, state = step(params, state, draw(seed + i, **{k: p.shape for k, p in params.items()}))
    return params, state


def close(got: Any, want: Any, tol: float = 1e-12) -> None:
    """Compare all arrays, relative to the largest number of each."""
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tol * max(1e-300, float(jnp.max(jnp.abs(y), initial=0))))


@every
def test_buckets_are_leaf_by_leaf(link: Any, x64: None) -> None:
    """What a matrix becomes does not depend on the others: square ones, wide and tall ones of one shape."""
    shapes: dict[str, tuple[int, ...]] = {"a": (4, 6), "b": (6, 4), "c": (4, 6), "d": (4, 4), "e": (6, 4), "f": (0, 4)}
    tx, params = cx.chain(link(), cx.scale_by_lr(0.1)), draw(0, **shapes)
    together, state = run(tx, params)
    step = jax.jit(tx.step)
    for name in shapes:
        alone, own = {name: params[name]}, tx.init({name: params[name]})
        for i in range(3):
            alone, own = step(alone, own, {name: draw(1 + i, **shapes)[name]})
        close(alone[name], together[name])
        for slot, of in own.links[link.__name__].items():
            close(of[name], state.links[link.__name__][slot][name])


@every
@pytest.mark.parametrize(
    ("words", "shape", "parts"),
    (
        ("_layer in, out", (3, 4, 6), lambda x: [x[i] for i in range(3)]),
        ("in, _head size", (4, 2, 3), lambda x: [x[:, i] for i in range(2)]),
        ("in, 3*out", (4, 12), lambda x: jnp.split(x, 3, 1)),
        ("in, q+k+v", (4, 8), lambda x: jnp.split(x, (4, 6), 1)),
        ("out, in", (6, 4), lambda x: [x.T]),
        ("h w in, out", (2, 3, 1, 4), lambda x: [x.reshape(6, 4)]),
    ),
)
def test_words_are_separate_matrices(link: Any, words: str, shape: Any, parts: Any, x64: None) -> None:
    """Layers, heads and blocks in one array, and turned axes, move as matrices of their own."""
    sizes = {"q": 4, "k": 2, "v": 2} if "+" in words else {}
    tx = cx.chain(link(matrices=cx.matrices(words, **sizes)), cx.scale_by_lr(0.1))
    plain = cx.chain(link(), cx.scale_by_lr(0.1))
    params = draw(0, w=shape)
    apart = dict(enumerate(parts(params["w"])))
    state, own = tx.init(params), plain.init(apart)
    for i in range(3):
        g = draw(1 + i, w=shape)
        params, state = tx.step(params, state, g)
        apart, own = plain.step(apart, own, dict(enumerate(parts(g["w"]))))
    close(dict(enumerate(parts(params["w"]))), apart)


@every
def test_other_platforms_compute_batches(link: Any, x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function for TPUs and GPUs, run on this CPU, gives what the one for CPUs does."""
    from chainax.core.engine import matrix_pass

    params = draw(0, a=(4, 6), b=(6, 4), c=(4, 6))
    tx = cx.chain(link(), cx.scale_by_lr(0.1))
    here = run(tx, params)
    monkeypatch.setattr(matrix_pass, "by_platform", lambda default, on_cpu: default)
    jax.clear_caches()
    close(run(tx, params), here)


@every
def test_loops_of_a_few_leaves(link: Any, x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are leaves, or fewer: each matrix becomes the same. Decompositions stay in one loop."""
    from chainax.core.engine import matrix_pass

    params = draw(0, **dict.fromkeys("abcde", (3, 4)))
    tx = cx.chain(link(), cx.scale_by_lr(0.1))
    at_once = run(tx, params)
    monkeypatch.setattr(matrix_pass, "PART", 2)
    jax.clear_caches()
    close(run(tx, params), at_once)
    loops = []
    for part in (2, 5):
        monkeypatch.setattr(matrix_pass, "PART", part)
        jax.clear_caches()
        loops.append(str(jax.make_jaxpr(tx.step)(params, tx.init(params), params)).count("length=5"))
    assert (loops[0] < loops[1]) == (link is not whiten)


@pytest.mark.parametrize("over", (None, "x"))
def test_decompositions_are_no_batch(over: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one matrix at a time, where TPUs and GPUs would compute others as a batch; also where devices share them."""
    from chainax.core.engine import matrix_pass

    monkeypatch.setattr(matrix_pass, "by_platform", lambda default, on_cpu: default)
    tx, params = whiten(over=over), {name: jnp.ones((3, 4)) for name in "abcd"}
    with jax.set_mesh(jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))):
        text = str(jax.make_jaxpr(tx.update)(params, tx.init(params), params))
    decompositions = re.findall(r":f32(\[[\d,]*\]) \w+:f32\[[\d,]*\] = eigh", text)
    assert decompositions == ["[3,3]"]


@every
def test_a_missing_gradient_changes_nothing(link: Any) -> None:
    """Neither the matrix nor its slots."""
    params = draw(0, a=(4, 6), b=(4, 6))
    tx = cx.chain(link(), cx.scale_by_lr(0.1))
    state = tx.init(params)
    moved, after = tx.step(params, state, {"a": params["a"], "b": None})
    np.testing.assert_array_equal(moved["b"], params["b"])
    old, new = ([x.links[link.__name__][s]["b"] for s in link.slots] for x in (state, after))
    jax.tree.map(np.testing.assert_array_equal, new, old)
    assert not np.array_equal(moved["a"], params["a"])


@every
@pytest.mark.parametrize("form", ("bfloat16", cx.int8(block=4, min_size=0)), ids=repr)
def test_a_guard_keeps_all_slots(link: Any, form: Any) -> None:
    """In codes or not, if it rejects the step; jitted for CPUs, and as other platforms choose."""
    tx = cx.chain(cx.skip_nonfinite(), cx.store(link(), form), cx.scale_by_lr(0.1))
    params = jax.tree.map(jnp.float32, draw(0, a=(4, 8), b=(4, 8)))
    state = tx.init(params)
    params, state = jax.jit(tx.step)(params, state, params)
    bad = {**params, "a": params["a"].at[0, 0].set(jnp.nan)}
    moved, after = jax.jit(tx.step)(params, state, bad)
    jax.tree.map(
        np.testing.assert_array_equal, (moved, after.links[link.__name__]), (params, state.links[link.__name__])
    )


def test_factors_are_stored_as_they_are() -> None:
    """A format is for slots of the parameter's shape, also if a square matrix has factors of the same."""
    state = cx.store(whiten(), cx.int8(block=4, min_size=0)).init({"w": jnp.ones((4, 4))})
    slots = state.links["whiten"]
    assert isinstance(slots["mu"]["w"], dict)
    assert isinstance(slots["nu"]["w"], dict)
    assert slots["products"]["w"].shape == (4, 4)


def test_factors_have_the_axes_that_number_the_matrices() -> None:
    """One array for a parameter; a vector if its blocks differ in shape."""
    table = {"layers": cx.matrices("_layer in, out"), "qk": cx.matrices("in, q+k", q=3)}
    words = cx.by_path(table, default=cx.matrices())
    params = {"layers": jnp.ones((5, 4, 3)), "qk": jnp.ones((2, 4)), "w": jnp.ones((4, 3))}
    slots = whiten(matrices=words).init(params).links["whiten"]
    assert {k: x.shape for k, x in slots["products"].items()} == {"layers": (5, 4, 4), "qk": (8,), "w": (4, 4)}
    assert {k: x.shape for k, x in slots["count"].items()} == {"layers": (5,), "qk": (2,), "w": ()}


def test_a_state_of_other_words_is_refused() -> None:
    """The slots of other matrices do not fit."""
    params = {"w": jnp.ones((4, 6))}
    state = whiten(matrices="in, 2*out").init(params)
    with pytest.raises(TypeError, match="Slot 'products' of link 'whiten' is float32\\[2, 4, 4\\] at 'w'"):
        whiten().update(params, state, params)


def test_complex_matrices() -> None:
    """Muon's polar factor is UVᴴ: it turns with unitary matrices. A link that cannot refuses, with the remedy."""
    rng = np.random.default_rng(0)
    z = lambda *s: rng.normal(size=s) + 1j * rng.normal(size=s)  # noqa: E731
    g, (U, _), (V, _) = z(4, 6), np.linalg.qr(z(4, 4)), np.linalg.qr(z(6, 6))
    tx = cx.scale_by_muon(iteration=cx.newton_schulz(30, ((1.875, -1.25, 0.375),)), sizing="none")

    def step(g: Any) -> Any:
        g = {"w": jnp.asarray(g, jnp.complex64)}
        return np.asarray(tx.update(g, tx.init(g), g)[0]["w"])

    left, _, right = np.linalg.svd(g, full_matrices=False)
    np.testing.assert_allclose(step(g), left @ right, atol=1e-5)
    np.testing.assert_allclose(step(U @ g @ V), U @ step(g) @ V, atol=1e-5)
    with pytest.raises(TypeError, match=r"'whiten' does not take complex .* 'w' is complex64\[4, 6\].*split_complex"):
        whiten().init({"w": jnp.asarray(g, jnp.complex64)})
    params = {"w": jnp.asarray(g, jnp.complex64)}
    split = cx.chain(cx.split_complex(whiten()), cx.scale_by_lr(0.1))
    moved, _ = split.step(params, split.init(params), params)
    assert np.isfinite(moved["w"]).all()


@pytest.mark.parametrize(
    ("hook", "text"),
    (
        (lambda self, M, slot, scalars: (M.T, vars(slot)), r"turned an update of float32\[4, 6\] into float32\[6, 4\]"),
        (lambda self, M, slot, scalars: (M, {}), "must return the update and a dict of nu, products, count"),
        (lambda self, M, slot, scalars: slot.nothing, "no slot 'nothing'; the link has count, nu, products"),
    ),
)
def test_mistakes_of_authors(hook: Any, text: str) -> None:
    """They name the link."""
    bad: Any = cxe.transform(type("bad", (whiten,), {"matrix": hook, "__module__": __name__, "__doc__": "x"}))
    params = {"w": jnp.ones((4, 6))}
    with pytest.raises((TypeError, AttributeError), match=text):
        bad().update(params, bad().init(params), params)


@pytest.mark.parametrize(
    ("declared", "text"),
    (
        ({"matrix_slots": ("g",)}, "`bad.slots` must name all slots, also 'g'"),
        ({"matrix_slots": ("nu", "count")}, "`bad` has 'count' in matrix_slots and in factors"),
        ({"either_way": True}, "`bad.either_way` needs a link without factors"),
    ),
)
def test_declarations_that_contradict_each_other(declared: Any, text: str) -> None:
    """Refused when the class is made."""
    with pytest.raises(TypeError, match=text):
        type("bad", (whiten,), {**declared, "__module__": __name__, "__doc__": "x"})


def test_a_format_for_a_factor_warns() -> None:
    """By name it is said to have no effect; a format for all slots is for those of the parameter's shape."""
    with pytest.warns(cx.ChainWarning, match="'products' of 'whiten' has another shape than the parameter"):
        cx.store(whiten(), products="bfloat16")
    assert repr(cx.store(whiten(), "bfloat16")) == "store(whiten(), mu='bfloat16', nu='bfloat16')"


def test_factors_that_init_matrix_lacks() -> None:
    """Named at once."""
    hook = lambda self, m, n, dtype: {}  # noqa: E731
    bad: Any = cxe.transform(
        type("bad_first", (whiten,), {"init_matrix": hook, "__module__": __name__, "__doc__": "x"})
    )
    with pytest.raises(TypeError, match=r"declares the factors \('products', 'count'\) but its init_matrix makes \(\)"):
        bad().init({"w": jnp.ones((4, 6))})


# Meshes

SHAPES = {"a": (8, 16), "b": (16, 8), "c": (8, 16), "d": (8, 16), "heads": (16, 4, 8), "layers": (8, 8, 16)}
SPECS = {"a": P("x", "y"), "b": P("y", "x"), "heads": P("x", "y"), "layers": P("x", None, "y")}
WORDS = cx.by_path(
    {"heads": cx.matrices("in, _head size"), "layers": cx.matrices("_layer in, out")}, default=cx.matrices("in, out")
)
KINDS = {"explicit": AxisType.Explicit, "automatic": AxisType.Auto}


@functools.cache
def on_one_device(link: Any) -> Any:
    """Parameters after two steps."""
    tx, params = cx.chain(link(matrices=WORDS), cx.scale_by_lr(0.1)), jax.tree.map(jnp.float32, draw(0, **SHAPES))
    return run(tx, params, 2)[0]


@pytest.mark.long
@every
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("over", ("x", ("x", "y")))
def test_devices_share_the_matrices(link: Any, kind: str, over: Any) -> None:
    """Eight devices give what one does, counts that do not divide included; nothing moves."""
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(KINDS[kind],) * 2)
    tx = cx.chain(link(matrices=WORDS, over=over), cx.scale_by_lr(0.1))
    with jax.set_mesh(mesh):
        where = {name: NamedSharding(mesh, SPECS.get(name, P("x", "y"))) for name in SHAPES}
        params = jax.device_put(jax.tree.map(jnp.float32, draw(0, **SHAPES)), where)
        state, step = tx.init(params), jax.jit(tx.step)
        assert jax.tree.map(lambda x: x.sharding, state) == tx.state_sharding(params)
        for i in range(2):
            grads = jax.device_put(jax.tree.map(jnp.float32, draw(1 + i, **SHAPES)), where)
            new, after = step(params, state, grads)
            jax.tree.map(lambda x, y: x.sharding.is_equivalent_to(y.sharding, x.ndim) or 1 / 0, new, params)
            params, state = new, after
    close(params, on_one_device(link), 1e-5)


@pytest.mark.long
def test_devices_share_the_matrices_of_replicated_parameters() -> None:
    """Within `zero1`, which divides the state."""
    mesh = jax.make_mesh((8,), ("data",))
    tx = cx.zero1(cx.chain(cx.scale_by_muon(over="data", matrices=WORDS), cx.scale_by_lr(0.1)), over="data")
    with jax.set_mesh(mesh):
        params = jax.device_put(jax.tree.map(jnp.float32, draw(0, **SHAPES)), NamedSharding(mesh, P()))
        params, state = run(tx, params, 2)
    mu = state.links["zero1"]["tx"].links["scale_by_muon"]["mu"]["a"]
    assert mu.sharding.spec == P("data", None)
    close(params, on_one_device(cx.scale_by_muon), 1e-5)


def test_over_needs_a_mesh() -> None:
    """It is said that nothing is shared, and which axes there are."""
    params = {"w": jnp.ones((4, 6))}
    tx = cx.scale_by_muon(over="data")
    with pytest.warns(
        cx.ChainWarning, match=r"'scale_by_muon' shares nothing over 'data': call step under jax.set_mesh"
    ):
        tx.update(params, tx.init(params), params)
    with jax.set_mesh(jax.make_mesh((8,), ("x",))), pytest.raises(ValueError, match="the mesh has 'x'"):
        jax.jit(tx.update)(params, tx.init(params), params)


def test_a_part_of_a_matrix_is_refused() -> None:
    """Under `jax.shard_map` a device has rows only."""
    mesh, params = jax.make_mesh((8,), ("x",)), {"w": jnp.ones((8, 4))}
    tx = cx.scale_by_muon()

    def step(p: Any) -> Any:
        return tx.update(p, tx.init(p), p)[0]

    with pytest.raises(TypeError, match="'scale_by_muon' computes with several numbers of 'w' at once"):
        jax.shard_map(step, mesh=mesh, out_specs=P("x"))(jax.device_put(params, NamedSharding(mesh, P("x"))))


# Orders


@pytest.mark.parametrize(
    "clip",
    (cx.clip_by_global_norm(1.0), cx.clip_by_block_rms(1.0), cx.clip(1.0), cx.normalize_by_block_norm()),
    ids=repr,
)
def test_a_clip_behind_muon_warns(clip: Any) -> None:
    """It would divide the step by its own size. Before Muon it is what it is before Adam."""
    with pytest.warns(cx.ChainWarning, match="after 'scale_by_muon', so"):
        cx.chain(cx.scale_by_muon(), clip, cx.scale_by_lr(0.1))
    cx.chain(clip, cx.scale_by_muon(), cx.add_decayed_weights(0.1), cx.scale_by_lr(0.1))


def test_the_decay_of_a_muon_chain() -> None:
    """As for every preconditioner."""
    decay, rate = cx.add_decayed_weights(0.1), cx.scale_by_lr(0.1)
    assert "decoupled (after the preconditioner)" in cx.chain(cx.scale_by_muon(), decay, rate).describe()
    assert "it passes through scale_by_muon" in cx.chain(decay, cx.scale_by_muon(), rate).describe()


# Extreme gradients


SCALED = {
    "racs": cx.scale_by_racs(),
    "muon": cx.scale_by_muon(eps=1e-20),
    "lmo": cx.scale_by_lmo("rows", eps=1e-20),
    "adago": cx.scale_by_adago(),
    "dion": cx.scale_by_dion(),
}


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("scale", (1e-6, 1e10, 1e18))
def test_updates_do_not_depend_on_the_scale(name: str, scale: float) -> None:
    """Nor do they overflow on the way."""
    tx, g = SCALED[name], jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    want, got = (tx.update({"w": x}, tx.init({"w": x}), {"w": x})[0]["w"] for x in (1e3 * g, scale * g))
    if name == "adago" and scale < 1:
        pytest.skip("its step grows with the gradient up to a bound")
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("tx", (cx.scale_by_came(), cx.scale_by_racs()), ids=repr)
@pytest.mark.parametrize(
    "g", (np.zeros((3, 4)), np.outer((1.0, 2.0, 3.0), (1.0, 2.0, 3.0, 4.0))), ids=("zero", "rank 1")
)
def test_hypergradients_are_finite(tx: Any, g: Any) -> None:
    """Of gradients that are zero, and of rank 1."""
    w = {"w": jnp.asarray(g, jnp.float32)}

    def third(tx: Any) -> Any:
        state = tx.init(w)
        for _ in range(2):
            _, state = tx.update(w, state, w)
        return jnp.sum(tx.update(w, state, w)[0]["w"])

    assert all(np.isfinite(x) for x in jax.tree.leaves(jax.grad(third)(tx)))


# Sweeps


def test_a_sweep_holds_a_condition() -> None:
    """What a link does at some steps only is still a condition for many chains at once, since they count alike.

    Unless the condition depends on a number in which the chains differ: then both branches run.
    """

    @cxe.transform
    class rarely(cxe.Matrixwise):
        """Divide by the largest singular value of some step."""

        period: cxe.Hyper = cxe.hyper("k", "steps between two values", default=10.0)

        slots = ("largest",)
        factors = ("largest",)
        decomposes = True
        role = "precondition"
        equation = "u ← u/σ, of every k steps"

        def init_matrix(self, m, n, dtype):
            return {"largest": jnp.ones((), dtype)}

        def scalars(self, at):
            return at.phase(self.period, 1.0) < 1

        def matrix(self, M, slot, due):
            new = jax.lax.cond(due, lambda: jnp.linalg.norm(M, 2), lambda: slot.largest)
            return M / new, {"largest": new}

    def train(tx: Any) -> Any:
        params = {"w": jnp.eye(3)}
        state = tx.init(params)
        return jax.lax.fori_loop(0, 3, lambda i, c: tx.step(*c, {"w": jnp.eye(3)}), (params, state))[0]

    def conditions(*links: Any) -> int:
        tx = cx.stack([cx.chain(link, cx.scale_by_lr(rate)) for link, rate in zip(links, (0.1, 0.2))])
        return jax.jit(jax.vmap(train, (tx.axes(),))).lower(tx).as_text().count("stablehlo.case")

    assert conditions(rarely(), rarely()) == 1 + conditions(rarely(10.0), rarely(20.0))


@pytest.mark.long
@pytest.mark.parametrize("link", [cls for cls in MATRIX_LINKS if cls.decomposes], ids=lambda cls: cls.__name__)
def test_a_sweep_holds_the_conditions_of_links(link: Any) -> None:
    """Decompositions are made when they are due, also for gradients that differ, except where the docstring says so."""

    def train(tx: Any) -> Any:
        params = {"w": jnp.eye(4, 3)}
        return jax.lax.fori_loop(0, 3, lambda i, c: tx.step(*c, c[0]), (params, tx.init(params)))[0]

    def conditions(function: Any, tx: Any) -> int:
        return jax.jit(function).lower(tx).as_text().count("stablehlo.case")

    one, other = (cx.chain(link(), cx.scale_by_lr(rate)) for rate in (0.1, 0.2))
    stack = cx.stack([one, other])
    lost = conditions(train, one) - conditions(jax.vmap(train, (stack.axes(),)), stack)
    assert lost == (("In a sweep" in link.__doc__) and 1)


def test_decompositions_are_not_a_batch_on_tpus() -> None:
    """They run one after the other, where the iterations of a link without them are a batch."""
    params = {name: jnp.ones((8, 8)) for name in "abc"}

    def lowered(tx: Any) -> str:
        traced = jax.jit(tx.step).trace(params, tx.init(params), params)
        return traced.lower(lowering_platforms=("tpu",)).as_text()

    soap, muon = (lowered(cx.chain(link, cx.scale_by_lr(0.1))) for link in (cx.scale_by_soap(), cx.scale_by_muon()))
    decompositions = [line for line in soap.splitlines() if "custom_call @Qr" in line or "custom_call @Eigh" in line]
    assert decompositions
    assert not any("tensor<3x8x8xf32>" in line for line in decompositions)
    assert any("dot_general" in line and "tensor<3x8x8xf32>" in line for line in muon.splitlines())


@every
def test_slots_in_host_memory(link: Any) -> None:
    """Each is fetched, and returned to where it was; the numbers are those without."""
    params = jax.tree.map(jnp.float32, draw(0, a=(4, 6), b=(4, 6), c=(6, 4)))
    tx = cx.chain(link(), cx.scale_by_lr(0.1))
    state, step = tx.init(params), jax.jit(tx.step)
    expected, _ = step(params, state, params)
    moved, after = step(params, cx.offload(state), params)
    jax.tree.map(np.testing.assert_array_equal, moved, expected)
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(after.links) if x.ndim}
    assert kinds == {"pinned_host"}
