"""Laws that hold for every link and every chain.

A law is tried on the whole registry, one value after the other, so that the laws share what they compile for a value.
Those that cost most are tried on the values that bring a link of their own, and are `long` but for those that use
the engine in a way that is new.
"""

import collections
import contextlib
import functools
import json
import math
import pickle
import warnings
from types import SimpleNamespace
from typing import Any, NamedTuple

import chainax as cx
import chainax.extend as cxe
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import registry
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import KINDS, LINK_CLASSES, LINKS, REGISTRY, edited, grads, links_of, quickly, tree


def over(values: tuple) -> Any:
    """Over these values, on a long leg of the suite; else over those that use the engine in a way that is new."""
    rows = [pytest.param(tx, id=repr(tx), marks=() if tx in KINDS else pytest.mark.long) for tx in values]
    return pytest.mark.parametrize("tx", rows, scope="module")


every = pytest.mark.parametrize("tx", REGISTRY, ids=repr, scope="module")
every_link = pytest.mark.parametrize("tx", LINKS, ids=repr)
every_if_long, every_class = over(REGISTRY), over(LINK_CLASSES)
every_dtype = pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64))
every_format = pytest.mark.parametrize("form", ("bfloat16", cx.int8(block=4, min_size=0)), ids=repr)
close = functools.partial(chex.assert_trees_all_close, rtol=2e-5, atol=1e-6)
# A β₂ of 0.999 that is traced is rounded to float32, and 1 − β₂ is then off by 1.3e-5 of itself.
close_traced = functools.partial(chex.assert_trees_all_close, rtol=2e-5, atol=1e-4)


class Run(NamedTuple):
    """A short training run by `make_step`: what stands before and after every step, and what the compiler did."""

    params: tuple[Any, ...]
    states: tuple[Any, ...]
    traces: int
    donated: bool


@functools.lru_cache(maxsize=2)
def compiled(tx: Any) -> Run:
    """The run with the chain closed over, shared by the laws that compare with it."""
    step, params = cx.make_step(tx), tree(0)
    state, donated, trail = tx.init(params), [], []
    for i in range(3):
        trail.append(jax.tree.map(jnp.copy, (params, state)))
        old = params["layer"]["kernel"]
        params, state = step(params, state, grads(i + 1))
        donated.append(old.is_deleted())
    ps, states = zip(*trail, (params, state))
    return Run(ps, states, step._cache_size(), all(donated))


def interpreted(tx: Any, params: Any, *gradients: Any) -> Any:
    """The parameters and the state after these gradients, op by op."""
    with jax.disable_jit():
        state = tx.init(params)
        for g in gradients:
            params, state = tx.step(params, state, g)
    return params, state


def small(seed: int) -> Any:
    """The matrix and the vector of `tree`, and what is not trained."""
    return {name: x for name, x in tree(seed).items() if name not in ("scalar", "empty")}


def small_grads(seed: int) -> Any:
    """Gradients for `small`."""
    return {**small(seed), "steps": None}


def halved(tx: Any) -> Any:
    """The same chain with other numbers."""
    return jax.tree.map(lambda x: 0.5 * x, tx)


def avals(x: Any) -> Any:
    """Shapes, dtypes and weak types."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), x)


def check_avals(tx: Any, params: Any, gradients: Any) -> Any:
    """State and parameters keep tree, shapes, dtypes and weak types; gives back the state's shapes."""
    state = jax.eval_shape(tx.init, params)
    moved, after = jax.eval_shape(tx.step, params, state, gradients)
    assert avals(after) == avals(state)
    assert avals(moved) == avals(jax.eval_shape(lambda: params))
    return state


@every_if_long
@every_dtype
def test_avals_never_change(tx: Any, dtype: Any) -> None:
    """State and parameters keep tree, shapes, dtypes and weak types, under `update` and under `step`."""
    params, gradients = tree(0, dtype), grads(1, dtype)
    if dtype == jnp.complex64 and any(link.matrixwise and not link.takes_complex for link in links_of(tx)):
        with pytest.raises(TypeError, match="write split_complex"):
            check_avals(tx, params, gradients)
        return
    state = check_avals(tx, params, gradients)
    updates, after = jax.eval_shape(tx.update, gradients, state, params)
    assert avals(after) == avals(state)
    assert avals(updates) == avals(jax.eval_shape(lambda: {**params, "steps": None}))


@every
def test_slots_are_float32_for_low_precision(tx: Any) -> None:
    """Slots of bfloat16 parameters are float32: 0.999·ν rounds back to ν in bfloat16. Counts are whole numbers."""
    state = jax.eval_shape(tx.init, tree(0, jnp.bfloat16))
    floats = {x.dtype for x in jax.tree.leaves(state.links) if jnp.issubdtype(x.dtype, jnp.inexact)}
    others = {x.dtype for x in jax.tree.leaves(state.links)} - floats
    assert floats <= {jnp.dtype(jnp.float32)}
    assert others <= {jnp.dtype(jnp.int32), jnp.dtype(jnp.bool)}


@every_if_long
def test_jit_equals_no_jit(tx: Any) -> None:
    """Compiled and interpreted op by op, the results agree."""
    run = compiled(tx)
    close((run.params[3], run.states[3]), interpreted(tx, tree(0), *(grads(i + 1) for i in range(3))))


@every_if_long
def test_step_is_update_then_apply(tx: Any) -> None:
    """In float32, where nothing is rounded in between, `step` equals `update` with `apply_updates`."""
    run = compiled(tx)
    for i in range(2):
        updates, after = tx.update(grads(i + 1), run.states[i], run.params[i])
        close((cx.apply_updates(run.params[i], updates), after), (run.params[i + 1], run.states[i + 1]))


@every_if_long
def test_no_retrace_and_step_donates(tx: Any) -> None:
    """One trace serves all steps, and the buffers of parameters and state are reused."""
    run = compiled(tx)
    assert run.traces == 1
    assert run.donated
    assert int(run.states[3].step) == 3


@every_if_long
def test_scan_of_a_chain_passed_as_an_argument(tx: Any) -> None:
    """A run as one `scan`, in which a `cond` skips a step, of traced hyperparameters: as the run step by step.

    Other numbers do not trace again.
    """
    traces, gradients = 0, [small_grads(i + 1) for i in range(3)]
    stacked = jax.tree.map(lambda *g: jnp.stack(g), *gradients)

    @quickly
    def train(tx: Any) -> Any:
        nonlocal traces
        traces += 1

        def body(carry: Any, x: Any) -> Any:
            return jax.lax.cond(x[0] != 1, lambda: tx.step(*carry, x[1]), lambda: carry), None

        return jax.lax.scan(body, (small(0), tx.init(small(0))), (jnp.arange(3), stacked))[0]

    for one in (tx, halved(tx)):
        close_traced(train(one), interpreted(one, small(0), gradients[0], gradients[2]))
    assert traces == 1


@every_class
def test_vmap_over_hyperparameters_equals_separate_runs(tx: Any) -> None:
    """A stack of chains trained by one `vmap` is the chains trained one by one."""
    chains, gradients = (tx, halved(tx)), [small_grads(i + 1) for i in range(2)]
    if not jax.tree.leaves(tx):
        with pytest.raises(ValueError, match="has no numbers to be stacked"):
            cx.stack(chains)
        return
    grid, stacked = cx.stack(chains), jax.tree.map(lambda *g: jnp.stack(g), *gradients)

    def train(tx: Any) -> Any:
        start = small(0), tx.init(small(0))
        return jax.lax.scan(lambda carry, g: (tx.step(*carry, g), None), start, stacked)[0]

    together = quickly(lambda: jax.vmap(train, (grid.axes(),))(grid))()
    for i, one in enumerate(chains):
        close_traced(jax.tree.map(lambda x, i=i: x[i], together), interpreted(one, small(0), *gradients))


@every
def test_value_round_trips(tx: Any) -> None:
    """Pickle, JSON and `repr` give the same value back, with the same hash."""
    config = json.loads(json.dumps(cx.to_config(tx)))
    copies = pickle.loads(pickle.dumps(tx)), cx.from_config(config), eval(repr(tx), {**vars(cx), **vars(registry)})
    for copy in copies:
        assert copy == tx
        assert hash(copy) == hash(tx)
    leaves, treedef = jax.tree.flatten(tx)
    assert jax.tree.unflatten(treedef, leaves) == tx
    assert all(isinstance(leaf, float) for leaf in leaves)


@every_if_long
def test_complex_equals_split_real(tx: Any) -> None:
    """A complex parameter behaves as its real and imaginary parts side by side, as in PyTorch."""
    if any(link.treewise for link in tx.links.values()):
        pytest.skip("a whole-tree link gets complex numbers as they are")
    if any(link.matrixwise for link in tx.links.values()):
        pytest.skip("a complex matrix is one matrix: see test_matrices.py")
    if any(getattr(getattr(link, field), "reads_ndim", False) for link in tx.links.values() for field in link._leaves):
        pytest.skip("parts side by side have an axis more")
    params, gradients = ({"layer": tree(i, jnp.complex64)["layer"]} for i in (0, 1))
    split = functools.partial(jax.tree.map, lambda z: jnp.stack([z.real, z.imag], -1))
    together, _ = interpreted(tx, params, gradients, gradients)
    parts, _ = interpreted(tx, split(params), split(gradients), split(gradients))
    close(split(together), parts)


@every_if_long
def test_leaves_do_not_mix(tx: Any) -> None:
    """What is not float stays; each leaf of the tree gets what it gets in a tree of its own."""
    params = compiled(tx).params[3]
    chex.assert_trees_all_equal(params["steps"], jnp.arange(3))
    assert params["hole"] is None
    if any(link.needs_all_updates or link.treewise for link in tx.links.values()):
        pytest.skip("a link that needs the whole tree mixes the leaves by design")
    alone, _ = interpreted(tx, *({"layer": x["layer"]} for x in (tree(0), *(grads(i + 1) for i in range(3)))))
    close(alone["layer"], params["layer"])


@every_if_long
def test_slots_without_negative_numbers_are_declared(tx: Any) -> None:
    """A slot is `nonnegative` exactly if a run shows no negative number in it: such slots have finer 8-bit codes.

    Those of whole-tree links, and those of another shape than the parameter, are not stored in codes, and need no
    declaration.
    """
    for name, link in tx.links.items():
        for slot in link.slots:
            trees = [state.links[name][slot] for state in compiled(tx).states]
            never = all(bool((x >= 0).all()) for x in jax.tree.leaves(trees))
            codes = not link.treewise and trees[0]["layer"]["kernel"].shape == (4, 3)
            assert never if slot in link.nonnegative else not (never and codes), f"{name}.{slot}"


@pytest.mark.parametrize("tx", LINK_CLASSES, ids=repr)
def test_lagged_slots_are_declared(tx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot is `lagged` exactly if others are made of its old value, and none of its new one.

    One that is made of the parameter cannot be: it would have to be written before the parameter, too.
    """
    found: dict[str, set[str]] = {}

    def spied(name: str, link: Any) -> Any:
        leaf = type(link).leaf

        def spy(self: Any, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
            def flat(p: Any, *slots: Any) -> Any:
                w, new = leaf(self, u, SimpleNamespace(**vars(slot) | dict(zip(own, slots))), p, scalars)
                return w, *(new[s] for s in own)

            own = self.leaf_slots
            jaxpr = jax.make_jaxpr(flat)(p, *(getattr(slot, s) for s in own)).jaxpr
            alike = [i for i, s in enumerate(own) if getattr(slot, s).shape == u.shape]
            found[name] = {own[i] for i in alike if is_lagged(jaxpr, i)}
            return leaf(self, u, slot, p, scalars)

        return spy

    for name, link in tx.links.items():
        if isinstance(link, cxe.Leafwise) and link.leaf_slots:
            monkeypatch.setattr(type(link), "leaf", spied(name, link))
    jax.eval_shape(tx.step, small(0), tx.init(small(0)), small_grads(1))
    for name, slots in found.items():
        assert slots == set(tx.links[name].lagged), name


def is_lagged(jaxpr: Any, i: int) -> bool:
    """Whether others are made of slot ``i``, none of what it becomes, and that not of the parameter."""
    old, new = jaxpr.invars[1 + i], jaxpr.outvars[1 + i]
    others = {x for x in jaxpr.outvars if not hasattr(x, "val")} - {new}
    computed = any(new in e.outvars for e in jaxpr.eqns)
    first = new in reached(jaxpr, jaxpr.invars[0], None) or (computed and others & reached(jaxpr, new, None))
    return new is not old and bool(others & reached(jaxpr, old, new)) and not first


def reached(jaxpr: Any, start: Any, barred: Any) -> set[Any]:
    """The variables made of ``start`` other than by way of ``barred``."""
    found = {start}
    for e in jaxpr.eqns:
        if any(x in found for x in e.invars if not hasattr(x, "val")):
            found |= {x for x in e.outvars if x is not barred}
    return found


@pytest.mark.long
@every_link
def test_links_that_read_the_parameters_say_so(tx: Any) -> None:
    """The updates and the state depend on the parameters exactly if a link says so; if none does, they may be left out.

    The two runs begin with one state, get the same gradients, and differ in the points at which they get them.
    """

    def loss(p: Any) -> jax.Array:
        return sum((jnp.sum(x**4) for x in jax.tree.leaves(p)), jnp.ones(()))

    def draw(seed: int, scale: float = 1.0) -> Any:
        return jax.tree.map(lambda x: scale * x, {"bias": waves(seed, 3), "kernel": waves(seed, 4, 3)})

    def run(points: list[Any]) -> Any:
        inside, state, trail = tx.tx if isinstance(tx, registry.given) else tx, tx.init(draw(0)), []
        for k, p in enumerate(points):
            g = draw(10 + k)
            known = {"value": 100.0, "weight": 2.0, "grad": g, "value_fn": loss, "grad_fn": jax.grad(loss)}
            known |= {"hessian": functools.partial(jax.tree.map, jnp.square), "max_logits": 400.0}
            extra = {name: known[name] for link in tx.links.values() for name in link.extra}
            g = tx.examples(g) if isinstance(tx, registry.in_pairs) else g
            u, state = inside.update(g, state, p, **extra)
            trail.append((u, state.links))
        return jax.tree.leaves(trail)

    reads = any(link.reads_params for link in tx.links.values())
    runs = [[draw(20 + k) for k in range(4)], [draw(30 + k, 10.0) for k in range(4)], *([] if reads else [[None] * 4])]
    with jax.disable_jit():
        first, *others = map(run, runs)
    for other in others:
        assert reads != all(np.array_equal(x, y, equal_nan=True) for x, y in zip(first, other, strict=True))


def in_format(tx: Any, form: Any) -> Any:
    """The value with its slots stored so, without the warning that names links to which no format applies."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "store: no format applies", cx.ChainWarning)
        return edited(tx, lambda tx: cx.store(tx, form))


@every_if_long
@every_format
def test_stored_slots(tx: Any, form: Any) -> None:
    """Slots in bfloat16 or in 8 bits are smaller and keep their avals; all else stays as it is."""
    stored = in_format(tx, form)
    slots = [{*link.slots} - {*getattr(link, "factors", ())} for link in links_of(tx) if "storage" in link._static]
    assert (stored == tx) != any(slots)
    if stored != tx:
        plain, state = (check_avals(x, small(0), small_grads(1)) for x in (tx, stored))
        assert (size(state) < size(plain)) == any(map(has_slots, links_of(tx)))


@every_class
@every_format
def test_stored_slots_make_finite_steps(tx: Any, form: Any) -> None:
    """Where numbers are rounded to a few bits, none becomes infinite."""
    stored = in_format(tx, form)
    if stored != tx:
        chex.assert_tree_all_finite(interpreted(stored, small(0), small_grads(1), small_grads(2)))


def has_slots(link: Any) -> bool:
    """Whether the link has slots of a parameter's shape."""
    entries = jax.eval_shape(link.init, {"bias": jnp.ones(12)}).links.values() if "storage" in link._static else ()
    own = [slot for slot in link.slots if slot not in getattr(link, "factors", ())]
    return any(entry[slot]["bias"].shape == (12,) for entry in entries for slot in own)


def size(state: Any) -> int:
    """Its bytes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


@every
@pytest.mark.parametrize("dtype", (jnp.bfloat16, jnp.float16))
def test_stochastic_rounding_may_follow(tx: Any, dtype: Any) -> None:
    """`apply_update` may end any chain, but for one that moves the parameters itself."""
    ended = edited(tx, lambda tx: cx.chain(tx, cx.apply_update("stochastic")))
    params, gradients = tree(0, dtype), grads(1, dtype)
    last = [*tx.links.values()][-1:]
    if any(link.treewise and link.moves_params for link in last):
        with pytest.raises(TypeError, match="put 'apply_update' into the chain that it wraps"):
            check_avals(ended, params, gradients)
    else:
        check_avals(ended, params, gradients)


def waves(seed: int, *shape: int) -> jax.Array:
    """Numbers of both signs; a matrix of them has full rank."""
    return jnp.sin(jnp.square(jnp.arange(seed, seed + math.prod(shape)).astype(jnp.float32))).reshape(shape)


@every_class
def test_sharding_is_derived(tx: Any) -> None:
    """Slots lie where their parameters lie, and a step on 8 devices equals one on a single device."""
    mesh = Mesh(np.array(jax.devices()), ("d",))
    params, gradients = ({"bias": waves(i, 16), "kernel": waves(i, 8, 3)} for i in (1, 2))
    where = {"bias": NamedSharding(mesh, P("d")), "kernel": NamedSharding(mesh, P("d", None))}
    sharded, sharded_grads = jax.device_put(params, where), jax.device_put(gradients, where)
    if isinstance(tx, cx.zero1):
        tx = tx.replace(specs=P("d"))  # automatic axes are not part of the types
    state = tx.init(sharded)
    for slots in (state.links[name][slot] for name, link in tx.links.items() for slot in link.slots):
        for name, p in params.items():
            slot = slots[name]  # None for a parameter that needs none
            assert slot is None or slot.shape != p.shape or slot.sharding == where[name]
    got, after = quickly(tx.step)(sharded, state, sharded_grads)
    close(got, interpreted(tx, params, gradients)[0])
    assert got["kernel"].sharding.is_equivalent_to(where["kernel"], 2)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


@every_class
def test_shard_map(tx: Any) -> None:
    """Data parallel under `shard_map`: gradients averaged over devices, parameters replicated."""
    mesh = Mesh(np.array(jax.devices()), ("d",))
    params = {"bias": waves(1, 5), "kernel": waves(1, 4, 3)}
    batches = jax.tree.map(lambda p: jnp.stack([p * i for i in range(8)]), params)

    def step(params: Any, state: Any, batch: Any) -> Any:
        g = jax.tree.map(lambda x: jax.lax.pmean(x[0], "d"), batch)
        return tx.step(params, state, g)

    state = tx.init(params)
    mapped = quickly(jax.shard_map(step, mesh=mesh, in_specs=(P(), P(), P("d")), out_specs=(P(), P())))
    mean = jax.tree.map(lambda b: b.mean(0), batches)
    close(mapped(params, state, batches), interpreted(tx, params, mean))


@every_class
def test_exports_for_every_platform(tx: Any) -> None:
    """The step lowers to StableHLO for CPU, CUDA and TPU on a machine that has none of the latter."""
    params, gradients = small(0), small_grads(1)
    state = tx.init(params)
    exported = jax.export.export(jax.jit(tx.step), platforms=("cpu", "cuda", "tpu"))(params, state, gradients)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    close(quickly(exported.call)(params, state, gradients), interpreted(tx, params, gradients))


def test_lagged_slots_cost_nothing_elsewhere() -> None:
    """What keeps XLA's CPU compiler from copying Lion's momentum is known to be false on a GPU or a TPU."""
    tx, params = cx.lion(0.1), {"kernel": waves(1, 4, 3)}

    def comparisons(platform: str) -> int:
        lowered = jax.jit(tx.step).trace(params, tx.init(params), params).lower(lowering_platforms=(platform,))
        return lowered.as_text().count("stablehlo.compare")

    assert comparisons("cuda") == comparisons("tpu") == comparisons("cpu") - 1


@every
def test_equation_names_every_hyperparameter(tx: Any) -> None:
    """The symbol of each hyperparameter stands in its link's equation, and `describe` shows its value."""
    for name, link in tx.links.items():
        for field in link.__dataclass_fields__.values():
            if "range" in field.metadata:
                symbol = field.metadata["range"].symbol
                assert symbol
                assert symbol in link.equation
                assert f"{symbol}=" in tx.describe()
        assert name in tx.describe()


@every_if_long
def test_differentiable_at_zero_gradients(tx: Any) -> None:
    """Hypergradients are finite even for coordinates whose gradient has always been exactly 0."""
    barred = any(link.no_reverse_mode for link in links_of(tx))
    gradient = jnp.zeros(2)
    params = {"bias": jnp.array([1.0, 2.0])}

    def loss(tx: Any, scale: jax.Array) -> jax.Array:
        moved, state = params, tx.init(params)
        for _ in range(2):
            moved, state = tx.step(moved, state, {"bias": gradient * scale})
        return jnp.sum(jnp.square(moved["bias"]))

    with pytest.raises(ValueError, match="Reverse-mode") if barred else contextlib.nullcontext():
        slopes = quickly(jax.grad(loss, argnums=(0, 1)))(tx, jnp.array(1.0))
        assert all(np.isfinite(x) for x in jax.tree.leaves(slopes))


def seen_from(state: cx.State, step: Any, gradients: np.ndarray) -> dict[str, float]:
    """The largest number of all updates for these gradients, and of each slot."""
    largest: dict[str, float] = collections.defaultdict(float)
    for g in gradients:
        u, state = step({"w": g}, state)
        for name, x in {"the update": u, **dict(*state.links.values())}.items():
            largest[name] = max(largest[name], float(jnp.max(jnp.abs(x["w"]))))
    return largest


@pytest.mark.parametrize("cls", registry.MATRIX_LINKS, ids=lambda cls: cls.__name__)
def test_a_late_first_gradient_begins_as_an_early_one(cls: type[cxe.Matrixwise]) -> None:
    """After a step without a gradient, or hundreds with zeros, no update and no slot is larger than without them.

    Up to a factor of 4. Bias corrections count the steps, so most updates are smaller than without them, but random
    projections are others. What begins from zeros and is divided by goes beyond every factor: to 1/ε. Hyperparameters
    are the defaults, since those of the registry have a larger ε.
    """
    link = cls()
    step = quickly(link.update)
    for size in (1e-2, 1e2):
        gradients = np.float32(size) * np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)
        start = link.init({"w": gradients[0]})
        early = seen_from(start, step, gradients)
        with jax.disable_jit():
            _, without = link.update({"w": None}, start)
        zeros = start
        for _ in range(300):
            _, zeros = step({"w": 0 * gradients[0]}, zeros)
        for first, state in {"no gradient": without, "zeros": zeros}.items():
            for name, most in seen_from(state, step, gradients).items():
                assert most <= 4 * early[name], f"{name} after {first}, with gradients of {size}"
