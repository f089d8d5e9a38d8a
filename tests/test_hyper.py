"""Hyperparameters: in every numeric field of every link, a number, a schedule or a table by path."""

import dataclasses
import functools
import json
import pickle

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

LINKS = tuple(
    x for x in vars(cx).values() if isinstance(x, type) and issubclass(x, cx.Leafwise) and x is not cx.Leafwise
)
FIELDS = tuple((cls, field) for cls in LINKS for field in cls._leaves)
V, W = 0.25, 0.5  # in the range of every hyperparameter, and exact in binary, as are their differences from 1

PARAMS = {"v": np.array([0.3, -2.0, 1.5], np.float32), "w": np.array([-0.7, 1.1, 0.2], np.float32)}
GRADS = tuple(jax.tree.map(lambda p, s=s: np.sin(3 * p + s).astype(p.dtype), PARAMS) for s in range(3))

every_field = pytest.mark.parametrize(("cls", "field"), FIELDS, ids=lambda x: getattr(x, "__name__", x))


def build(cls, field, value):
    """A link with one hyperparameter as given, and the others at `W` where they have no default."""
    required = {f: W for f, spec in cls.__dataclass_fields__.items() if spec.default is dataclasses.MISSING}
    return cls(**{**required, field: value})


def run(*links):
    """The updates of three steps, by the same link or by one for each step, and the last state."""
    links = links * (3 // len(links))
    state = links[0].init(PARAMS)
    updates = []
    for link, grads in zip(links, GRADS, strict=True):
        update, state = link.update(grads, state, PARAMS)
        updates.append(update)
    return updates, state


def assert_same(one, other, rtol=1e-6, atol=1e-7):
    """Equal up to the rounding of hyperparameters that are traced to float32."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), one, other)


def differ(one, other):
    """Whether the hyperparameter had an effect."""
    return not all(
        np.allclose(a, b, rtol=1e-3) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def test_all_links_are_here():
    """The table is taken from the public names, and no link's field is missed."""
    assert {cx.scale_by_adam, cx.clip_by_global_norm, cx.trace, cx.scale_by_lr} <= set(LINKS)
    assert (cx.scale_by_nadam, "momentum_decay") in FIELDS


# What may be given


def constant_function(step):
    """A bare Python function of the step that returns a Python number."""
    return V


@every_field
def test_every_form_of_a_number(cls, field):
    """A number, a schedule, a function and a table by path that come to the same do the same."""
    expected = run(build(cls, field, V))
    for form in (
        cx.constant_schedule(V),
        constant_function,
        lambda step: jnp.where(step < 0, W, V),
        cx.by_path({"w": V}, default=V),
        cx.by_path({"w": cx.constant_schedule(V)}, default=constant_function),
        np.float32(V),
        jnp.float32(V),
    ):
        assert_same(run(build(cls, field, form)), expected)
    assert differ(run(build(cls, field, W)), expected)


@every_field
def test_schedule_is_the_number_of_each_step(cls, field):
    """A schedule is read anew at every step, while the slots go on."""
    schedule = cx.linear_schedule(V, W, 2)
    expected = run(*(build(cls, field, float(schedule(k))) for k in range(3)))
    assert_same(run(build(cls, field, schedule)), expected)
    assert_same(run(build(cls, field, cx.by_path({"w": schedule}, default=schedule))), expected)


@every_field
def test_table_by_path_is_two_runs(cls, field):
    """Each parameter moves as if its number were everyone's. (A norm is of the updates, whatever the bounds.)"""
    schedule = cx.linear_schedule(W, V, 2)
    updates, state = run(build(cls, field, cx.by_path({"w": V}, default=schedule)))
    alone = {"w": run(build(cls, field, V)), "v": run(build(cls, field, schedule))}
    for path, (own_updates, own_state) in alone.items():
        assert_same([u[path] for u in updates], [u[path] for u in own_updates])
        for slot in cls.slots:
            entry, own = (s.links[cls.__name__][slot][path] for s in (state, own_state))
            assert_same(entry, own)


@every_field
def test_double_precision(cls, field, x64):
    """Parameters in float64 have their schedules and tables evaluated in float64."""
    params, grads = (jax.tree.map(lambda x: x.astype(np.float64), tree) for tree in (PARAMS, GRADS[0]))
    expected, tx = (
        build(cls, field, 0.1),
        build(cls, field, cx.by_path({"w": cx.linear_schedule(0.1, 0.7, 2)}, default=0.1)),
    )
    update, state = tx.update(grads, tx.init(params), params)
    assert update["w"].dtype == jnp.float64
    assert_same((update, state), expected.update(grads, expected.init(params), params), rtol=1e-13, atol=0.0)


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


@every_field
def test_pattern_that_matches_nothing_warns(cls, field):
    """The warning names link, field and pattern, and shows what paths look like."""
    tx = cx.chain(mine=build(cls, field, cx.by_path({"typo": V}, default=V)))
    with pytest.warns(
        cx.ChainWarning, match=f"`mine.{field}`: the pattern 'typo' decides for no parameter; .* 'v', 'w'"
    ):
        tx.init(PARAMS)


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


@every_field
@pytest.mark.parametrize("bad", (True, "0.1", [0.1], None, float("nan"), 1j, np.array([True]), cx.scale(1.0)), ids=repr)
def test_what_is_no_hyperparameter(cls, field, bad):
    """The error names link and field when the link is built, alone or in a table."""
    with pytest.raises(ValueError, match=f"`{cls.__name__}.{field}` must"):
        build(cls, field, bad)
    with pytest.raises(ValueError, match=rf"`{cls.__name__}.{field}: by_path\['w'\]` must|`by_path\['w'\]` must"):
        build(cls, field, cx.by_path({"w": bad}, default=V))


@every_field
def test_number_out_of_range(cls, field):
    """A number outside the field's range is an error that gives the range, also in a table."""
    limits = cls.__dataclass_fields__[field].metadata["range"]
    outside = [x for x in (limits.low - 1, limits.high + 1, float("inf")) if np.isfinite(x) or x == np.inf]
    for bad in outside:
        for value in (bad, cx.by_path({"w": bad}, default=V), cx.by_path({"w": V}, default=bad)):
            with pytest.raises(ValueError, match=rf"`{cls.__name__}.{field}.*` must lie in [\[(]"):
                build(cls, field, value)


@every_field
@pytest.mark.parametrize(
    "mask",
    (lambda params: jax.tree.map(lambda p: p.ndim > 1, params), lambda params: params["w"], lambda params: {"w": True}),
    ids=("tree of bools", "raises", "dict"),
)
def test_mask_function_is_no_schedule(cls, field, mask):
    """A function of the parameters, which elsewhere is silently called on the step, points to by_path."""
    with pytest.raises(ValueError, match=rf"`{cls.__name__}.{field}`: .* called on a step it .* write by_path\("):
        build(cls, field, mask)


@every_field
def test_plain_dict_points_to_by_path(cls, field):
    """A dict of patterns is all but a table."""
    with pytest.raises(ValueError, match=rf"`{cls.__name__}.{field}`.* by_path\({{'w': 0.25}}"):
        build(cls, field, {"w": V})


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
    np.testing.assert_allclose(updates["w"], -np.outer([0.1, 0.2], GRADS[0]["w"]), rtol=1e-6)
