"""Hyperparameters: in every field of every link, a number, a schedule or a table by path.

Every field is tried op by op, which costs no compilation, in the link as the registry has it. What the compiler makes
of the forms of a number is tried on one field of each kind of link.
"""

import functools
import json
import pickle
import re
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.core.values.hyper import check_hyper, check_whole
from registry import REGISTRY, given, in_pairs, kind, links_of

INSTANCES = {type(link): link for tx in reversed(REGISTRY) for link in links_of(tx)}
LINKS: tuple[Any, ...] = tuple(
    x for x in vars(cx).values() if isinstance(x, type) and issubclass(x, cxe.Link) and x._leaves
)
NUMBERS = tuple((cls, f.name) for cls in LINKS for f in cls.__dataclass_fields__.values() if "range" in f.metadata)
FIELDS = tuple((cls, name) for cls, name in NUMBERS if cls.__dataclass_fields__[name].type != "Number")
FIXED = tuple(pair for pair in NUMBERS if pair not in FIELDS)
CHECKS = {(cls, name): cls.__dataclass_fields__[name].metadata["check"] for cls, name in FIELDS}
REAL = tuple(pair for pair in FIELDS if CHECKS[pair] is not check_whole)
STRICT = tuple(pair for pair in FIELDS if CHECKS[pair] is check_hyper)

PARAMS = {
    "v": np.array([[0.3, -2.0, 1.5], [0.8, -0.1, 0.6]], np.float32),
    "w": np.array([[-0.7, 1.1, 0.2], [0.4, -1.3, 0.9]], np.float32),
}
GRADS = tuple(jax.tree.map(lambda p, s=s: 2 * np.sin(3 * p + s).astype(p.dtype), PARAMS) for s in range(12))
LOSSES = (1.0, 0.5, 4.0) * 4


def over(fields):
    """Over these fields."""
    ids = [f"{cls.__name__}-{name}" for cls, name in fields]
    return pytest.mark.parametrize(("cls", "field"), fields, ids=ids)


def one_of_each_kind():
    """The first field of each kind of link."""
    found = {}
    for cls, field in REAL:
        found.setdefault(kind(instance(cls)), (cls, field))
    return tuple(found.values())


def instance(cls):
    """The link as the registry has it."""
    return INSTANCES[cls] if cls in INSTANCES else cls()


def build(cls, field, value):
    """The link with one hyperparameter as given."""
    return instance(cls).replace(**{field: value})


def within(cls, field, *above):
    """Numbers in the field's range: these much above its lower end, or above 0 if it has none."""
    limits = cls.__dataclass_fields__[field].metadata["range"]
    low = limits.low if np.isfinite(limits.low) else 0.0
    numbers = [low + x for x in above if limits.admits(low + x)]
    return numbers if (cls, field) in REAL else [int(x) for x in numbers if x.is_integer()]


def two(cls, field):
    """Two numbers for the field, exact in binary as are their mean and their differences from 1."""
    return within(cls, field, *((0.25, 0.5) if (cls, field) in REAL else (0.0, 2.0)))


def by_step(cls, field):
    """A schedule from the one to the other, and its numbers at the first three steps."""
    first, last = two(cls, field)
    return cx.linear_schedule(first, last, 2), (first, type(first)((first + last) / 2), last)


def run(*links, grads=GRADS[:3]):
    """The parameters after each step, by the same link or by one for each step, and the last state."""
    links = links * (len(grads) // len(links))
    params, state = PARAMS, links[0].init(PARAMS)
    trail = []
    for link, g, loss in zip(links, grads, LOSSES):
        extra = given(link).extra(params, g)
        if "value" in extra:
            extra["value"] = loss
        params, state = link.step(params, state, in_pairs(link).examples(g) if link.per_example else g, **extra)
        trail.append(params)
    return trail, state


def interpreted(*links):
    """The same, op by op."""
    with jax.disable_jit():
        return run(*links)


def assert_same(one, other, rtol=1e-6, atol=1e-7):
    """Equal up to the rounding of hyperparameters that are traced to float32."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), one, other)


def takes_tables(link):
    """Whether leaves may have numbers of their own: not in a link that treats the whole tree at once."""
    return not (link.treewise or link.init_global_state())


def test_all_links_are_here():
    """The table is taken from the public names, and no link's field is missed."""
    assert {cx.scale_by_adam, cx.clip_by_global_norm, cx.trace, cx.scale_by_lr, cx.sharpness_aware} <= set(LINKS)
    assert (cx.scale_by_nadam, "momentum_decay") in FIELDS
    assert {cls.__dataclass_fields__[name].type for cls, name in FIXED} == {"Number"}
    assert len(FIELDS) > 20 * len(FIXED)


# What may be given


@over(one_of_each_kind())
def test_every_form_of_a_number(cls, field):
    """A number, a schedule, a function and a table by path that come to the same do the same."""
    v, w = two(cls, field)
    expected = run(build(cls, field, v))
    assert build(cls, field, np.float32(v)) == build(cls, field, v)
    forms = [jnp.float32(v), cx.constant_schedule(v), lambda step: v, lambda step: jnp.where(step < 0, w, v)]
    if takes_tables(instance(cls)):
        forms += [cx.by_path({"w": v}, default=v), cx.by_path({"w": cx.constant_schedule(v)}, default=lambda step: v)]
    for form in forms:
        assert_same(run(build(cls, field, form)), expected)


@pytest.mark.long
@over(FIELDS)
def test_every_field_has_an_effect(cls, field):
    """Some number makes another run than the least one, and a traced number makes the run of a Python number.

    Where a few steps show nothing, a longer run may, or one in which a gradient overflows.
    """
    if "value_fn" in instance(cls).extra:
        pytest.skip("the numbers of a line search act on functions that are made for them")
    numbers = within(cls, field, 0.25, 0.0, 0.0625, 0.5, 1.0, 2.0, 8.0, 100.0)

    def differs(grads):
        runs = jax.vmap(lambda x: run(build(cls, field, x), grads=grads))(jnp.array(numbers))
        expected = run(build(cls, field, numbers[0]), grads=grads)
        assert_same(jax.tree.map(lambda x: x[0], runs), expected, rtol=1e-5, atol=1e-6)
        return any(not np.array_equal(x[0], y, equal_nan=True) for x in jax.tree.leaves(runs) for y in x[1:])

    overflow = GRADS[0], jax.tree.map(lambda g: np.inf * g, GRADS[1]), GRADS[2]
    with jax.disable_jit():
        assert differs(GRADS[:4]) or differs(GRADS) or differs(overflow)


@pytest.mark.long
@over(FIELDS)
def test_schedule_is_the_number_of_each_step(cls, field):
    """A schedule is read anew at every step, while the slots go on."""
    schedule, _ = by_step(cls, field)
    assert_same(interpreted(build(cls, field, schedule)), number_by_number(cls, field))


@functools.cache
def number_by_number(cls, field):
    """The run of links that hold the schedule's numbers, one for each step."""
    return interpreted(*(build(cls, field, x) for x in by_step(cls, field)[1]))


@pytest.mark.long
@over(REAL)
def test_table_by_path_is_two_runs(cls, field):
    """Each parameter moves as if its number were everyone's; a link that treats the whole tree refuses the table.

    A norm is of the updates, whatever the bounds. A pattern that matches nothing warns, and the
    warning shows what paths look like.
    """
    (schedule, numbers), link = by_step(cls, field), instance(cls)
    table = cx.by_path({"w": numbers[0]}, default=schedule)
    if not takes_tables(link):
        with pytest.raises(ValueError, match=f"`{cls.__name__}.{field}` cannot be by_path"):
            interpreted(build(cls, field, table))
        return
    trail, state = interpreted(build(cls, field, table))
    alone = {"w": interpreted(build(cls, field, numbers[0])), "v": number_by_number(cls, field)}
    for path, (own_trail, own_state) in alone.items():
        assert_same([params[path] for params in trail], [params[path] for params in own_trail])
        for slot in link.slots:
            entry, own = (s.links[cls.__name__][slot][path] for s in (state, own_state))
            assert_same(entry, own)
    typo = cx.chain(mine=build(cls, field, cx.by_path({"typo": numbers[0]}, default=numbers[0])))
    message = f"`mine.{field}`: the pattern 'typo' decides for no parameter; .* 'v', 'w'"
    with pytest.warns(cx.ChainWarning, match=message):
        typo.init(PARAMS)


@pytest.mark.long
@over(REAL)
def test_double_precision(cls, field, x64):
    """Parameters in float64 have their schedules and tables evaluated in float64."""
    first, last = within(cls, field, 0.1, 0.7)
    params, grads = (jax.tree.map(lambda x: x.astype(np.float64), tree) for tree in (PARAMS, GRADS[0]))
    form = cx.linear_schedule(first, last, 2)
    if takes_tables(instance(cls)):
        form = cx.by_path({"w": form}, default=first)

    def one_step(number):
        link = build(cls, field, number)
        own = in_pairs(link).examples(grads) if link.per_example else grads
        return link.update(own, link.init(params), params, **given(link).extra(params, grads))

    with jax.disable_jit():
        updates, state = one_step(form)
        assert updates["w"].dtype == jnp.float64
        assert_same((updates, state), one_step(first), rtol=1e-13, atol=0.0)


def test_numbers_as_argument_compile_once():
    """Numbers inside schedules and tables are inputs of a function that takes the chain as an argument."""
    traces = 0

    @jax.jit
    def first_update(tx):
        nonlocal traces
        traces += 1
        return tx.update(GRADS[0], tx.init(PARAMS), PARAMS)[0]

    for rate in (0.1, 0.2):
        tx = cx.scale_by_lr(cx.by_path({"w": cx.linear_schedule(rate, 0.0, 9)}, default=2 * rate))
        updates = first_update(tx)
        np.testing.assert_allclose(updates["w"], -rate * GRADS[0]["w"], rtol=1e-6)
        np.testing.assert_allclose(updates["v"], -2 * rate * GRADS[0]["v"], rtol=1e-6)
    assert traces == 1


# Tables by path


def test_first_pattern_found_decides():
    """Patterns are searched for anywhere in the path, in the order of the table."""
    params = {"encoder": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "norm": [jnp.ones(2)], "head": jnp.ones(2)}
    table = cx.by_path({"bias|norm/0$": 0.0, "^encoder/": 1.0, "kernel": 2.0}, default=3.0)
    with pytest.warns(cx.ChainWarning, match="the pattern 'kernel' decides for no parameter"):
        state = cx.add_decayed_weights(table).init(params)
    updates, _ = cx.add_decayed_weights(table).update(jax.tree.map(jnp.zeros_like, params), state, params)
    factors = jax.tree.map(lambda u: u[0].item(), updates)
    assert factors == {"encoder": {"kernel": 1.0, "bias": 0.0}, "norm": [0.0], "head": 3.0}


def test_a_table_may_be_made_leaf_by_leaf():
    """By shape, by dtype or by another tree; names that are regular expressions match themselves alone."""
    params = {"a.b": jnp.ones((2, 2)), "aXb": jnp.ones(2), "n": np.arange(3), "hole": None, "w": [jnp.ones(1)] * 2}
    mask = {"a.b": True, "aXb": False, "n": False, "hole": None, "w": [True, False]}
    table = cx.by_leaf(params, lambda path, p: 0.5 if p.ndim > 1 else 1.0)
    assert table == cx.by_path({r"^(a\.b)$": 0.5, "^(aXb|w/0|w/1)$": 1.0})
    assert cx.by_leaf(jax.eval_shape(lambda: {"w": jnp.ones(2)}), lambda path, p: len(p.shape)) == cx.by_path(
        {"^(w)$": 1}
    )
    chosen = dict(zip(["a.b", "aXb", "hole", "n", "w/0", "w/1"], jax.tree.leaves(mask, is_leaf=lambda x: x is None)))
    tx = cx.scale(cx.by_leaf(params, lambda path, p: float(chosen[path])))
    updates, _ = tx.update({**params, "n": None}, tx.init(params), params)
    assert [x.sum() for x in jax.tree.leaves(updates)] == [4, 0, 1, 0]
    with pytest.raises(ValueError, match="`by_path` needs a table"):
        cx.by_leaf({"n": np.arange(3)}, lambda path, p: 1.0)


def test_each_pattern_is_compiled_once(monkeypatch):
    """However many there are, where Python itself remembers 512; for numbers, formats, chains and groups alike."""
    compiler: Any = re._compiler  # pyright: ignore[reportAttributeAccessIssue]
    compilations, compile = [], compiler.compile
    monkeypatch.setattr(compiler, "compile", lambda *args: compilations.append(args) or compile(*args))
    params = {f"leaf_{i}_of_{x}": np.ones(2, np.float32) for i in range(300) for x in ("these", "those")}
    patterns = [f"^{path}$" for path in params]
    rates = {pattern: i / 1000 for i, pattern in enumerate(patterns)}
    formats = {pattern: ("bfloat16", "float16")[i % 2] for i, pattern in enumerate(patterns)}
    tx = cx.chain(
        cx.record("max"), cx.store(cx.trace(cx.by_path(rates)), cx.by_path(formats)), cx.scale(cx.by_path(rates))
    )
    state = tx.init(params)
    assert cx.partition(cx.by_path(dict.fromkeys(patterns, cx.freeze()))).init(params)
    assert cx.recorded(tx, state, dict.fromkeys(patterns, "all"))
    assert len(compilations) == len(patterns)


def test_unmatched_path_is_an_error():
    """Without a default each parameter needs a pattern; leaves that are not trained need none."""
    tx = cx.scale(cx.by_path({"w": 0.1}))
    with pytest.raises(KeyError, match=r"`scale.step_size`: no pattern of .* matches parameter 'v': add one"):
        tx.init(PARAMS)
    with pytest.raises(KeyError, match="matches parameter 'v'"):
        tx.update(GRADS[0], cx.scale(0.1).init(PARAMS))
    params = {"w": PARAMS["w"], "v": np.arange(3), "u": None}
    updates, _ = tx.update({**params, "v": None}, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], 0.1 * PARAMS["w"], rtol=1e-6)


def test_table_is_a_value():
    """It prints as the code that makes it, compares, hashes, pickles and passes through JSON."""
    table = cx.by_path({"bias|norm": 0.0, "w": cx.linear_schedule(0.1, 0.0, 9)}, default=0.1)
    tx = cx.add_decayed_weights(table)
    copies = (
        eval(repr(tx), vars(cx)),
        pickle.loads(pickle.dumps(tx)),
        cx.from_config(json.loads(json.dumps(cx.to_config(tx)))),
    )
    assert all(copy == tx and hash(copy) == hash(tx) for copy in copies)
    for other in (
        cx.by_path({"bias|norm": 0.0, "w": cx.linear_schedule(0.1, 0.0, 9)}),
        cx.by_path({"w": cx.linear_schedule(0.1, 0.0, 9), "bias|norm": 0.0}, default=0.1),
        cx.by_path({"bias|norm": 0.1, "w": cx.linear_schedule(0.1, 0.0, 9)}, default=0.1),
    ):
        assert other != table


# Bad input


@over(STRICT)
def test_what_is_no_hyperparameter(cls, field):
    """The error names link and field when the link is built, for the field alone or for an entry of a table.

    A function of the parameters, which elsewhere is silently called on the step, points to by_path,
    and so does a dict of patterns.
    """
    where, v = f"`{cls.__name__}.{field}`", two(cls, field)[0]
    none = () if cls.__dataclass_fields__[field].metadata["range"].optional else (None,)
    for bad in (True, "0.1", [0.1], *none, float("nan"), 1j, np.array([True]), cx.scale(1.0)):
        with pytest.raises(ValueError, match=f"{where} must"):
            build(cls, field, bad)
        with pytest.raises(ValueError, match=rf"{where}: `?by_path\['w'\]` must|`by_path\['w'\]` must"):
            build(cls, field, cx.by_path({"w": bad}, default=v))
    for mask in (
        lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
        lambda params: params["w"],
        lambda params: {"w": True},
    ):
        with pytest.raises(ValueError, match=rf"{where}: .* called on a step it .* write by_path\("):
            build(cls, field, mask)
    with pytest.raises(ValueError, match=rf"{where}.* by_path\({{'w': "):
        build(cls, field, {"w": v})


@over(REAL)
def test_number_out_of_range(cls, field):
    """A number outside the field's range is an error that gives the range, also in a table."""
    limits, v = cls.__dataclass_fields__[field].metadata["range"], two(cls, field)[0]
    outside = [x for x in (limits.low - 1, limits.high + 1) if np.isfinite(x)]
    for bad in outside if limits.closed else [*outside, float("inf")]:
        for value in (bad, cx.by_path({"w": bad}, default=v), cx.by_path({"w": v}, default=bad)):
            with pytest.raises(ValueError, match=rf"`{cls.__name__}.{field}.*` must lie in [\[(]"):
                build(cls, field, value)


@over(tuple(pair for pair in FIELDS if pair not in REAL))
def test_what_is_no_whole_number(cls, field):
    """A Python or NumPy integer, an array of integers and a schedule are taken, and nothing else."""
    where, (v, w) = f"`{cls.__name__}.{field}`", two(cls, field)
    for bad in (2.5, 2.0, True, "2", jnp.array(2.5), jnp.array([1.0, 2.0]), cx.by_path({"w": v}, default=w)):
        with pytest.raises(ValueError, match=f"{where} must be a"):
            build(cls, field, bad)
    with pytest.raises(ValueError, match=rf"{where} must lie in \["):
        build(cls, field, -1)
    link = build(cls, field, w)
    assert link == build(cls, field, np.int64(w))
    assert f"{field}={w}" in repr(link)
    assert json.loads(json.dumps(cx.to_config(link)))[field] == w
    assert not any(isinstance(x, int) for x in jax.tree.leaves(link))
    stack = build(cls, field, jnp.array([v, w]))
    assert cx.from_config(json.loads(json.dumps(cx.to_config(stack)))) == stack
    assert getattr(stack.axes(), field) == 0


@over(FIXED)
def test_a_number_that_is_no_hyperparameter(cls, field):
    """A field that must be known when the state begins takes no schedule and no table."""
    for bad in (cx.constant_schedule(0.25), lambda step: 0.25, cx.by_path({"w": 0.25}, default=0.25)):
        with pytest.raises(ValueError, match=f"`{cls.__name__}.{field}` must"):
            build(cls, field, bad)


@pytest.mark.parametrize(
    ("make", "message"),
    (
        (lambda: cx.by_path({}), "`by_path` needs a table"),
        (lambda: cx.by_path([("w", 0.1)]), "`by_path` needs a table"),
        (lambda: cx.by_path({"(": 0.1}), r"`by_path`: '\(' is no regular expression"),
        (lambda: cx.by_path({3: 0.1}), "`by_path`: 3 is no regular expression"),
        (lambda: cx.by_path({"w": cx.by_path({"v": 0.1})}), r"`by_path\['w'\]` must be a number or a schedule"),
        (
            lambda: cx.by_path({"w": lambda p: p["v"]}),
            r"`by_path\['w'\]`: .* called on a step it raised .* write by_path\(",
        ),
        (
            lambda: cx.by_path({"w": 0.1}, default=lambda p: p["v"]),
            r"`by_path.default`: .* called on a step it raised .* write by_path\(",
        ),
    ),
)
def test_bad_tables(make, message):
    """Tables that cannot be meant are errors when built."""
    with pytest.raises(ValueError, match=message):
        make()


def test_stacked_number_outside_vmap():
    """An array of numbers is an error where one number is used, and the error says how to map over it."""
    tx = cx.scale_by_lr(jnp.array([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"`scale_by_lr.learning_rate` must be a scalar .* float32\[2\]: .*vmap"):
        tx.update(GRADS[0], tx.init(PARAMS))
    updates = jax.vmap(lambda tx: tx.update(GRADS[0], tx.init(PARAMS))[0])(tx)
    np.testing.assert_allclose(updates["w"], -np.multiply.outer([0.1, 0.2], GRADS[0]["w"]), rtol=1e-6)
