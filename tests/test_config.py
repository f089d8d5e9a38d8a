"""Configurations: those of strangers, which may hold anything, and those of types that share a name."""

import copy
import json
import random
import re
import sys
import time
import types
import warnings
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import pytest
from chainax.core.values import value
from registry import REGISTRY, SCHEDULES, links_of
from stored_chains import FOLDER

STORED = [json.loads(file.read_text()) for file in sorted((FOLDER / "0").glob("*.json"))]
CONFIGS = [*STORED, *({"chainax": 1, "type": "scale", "step_size": cx.to_config(s)} for s in SCHEDULES[:-1])]
PARAMS = {"dense": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}}


def rate(x: Any) -> dict[str, Any]:
    """The configuration of a link with anything for its number."""
    return {"chainax": 1, "type": "scale", "step_size": x}


def table(*patterns: Any) -> dict[str, Any]:
    """That of a link with a table by path."""
    return rate({"type": "by_path", "table": [[pattern, 0.1] for pattern in patterns], "default": 0.2})


def nested(depth: int) -> Any:
    """A list in a list in a list, without recursion."""
    x: Any = 1.0
    for _ in range(depth):
        x = [x]
    return x


def array(dtype: Any, shape: Any, value: Any) -> dict[str, Any]:
    """That of a link with an array for its number."""
    return rate({"type": "array", "dtype": dtype, "shape": shape, "value": value})


LOOP: dict[str, Any] = rate(None)
LOOP["step_size"] = LOOP
LAUGHS: Any = [1.0] * 10
for _ in range(12):
    LAUGHS = [LAUGHS] * 10

SIMPLER = "nests repetitions or alternatives, or has too many of them, and could take very long to match: simplify it"
ATTACKS: dict[str, tuple[Any, str]] = {
    "a number beyond floats": (rate(10**400), "`scale.step_size` must lie in (-∞, ∞), got float('inf')"),
    "a number beyond text": (rate(-(10**5000)), "`scale.step_size` must lie in (-∞, ∞), got float('-inf')"),
    "a number beyond its dtype": (array("int8", [1], [300]), "Python integer 300 out of bounds for int8"),
    "a number beyond int32": (array("int32", [1], [10**30]), "malformed: OverflowError"),
    "an array of structures": (array("f8,f8", [1], [1]), "an array cannot have the dtype 'f8,f8' at step_size"),
    "an array of objects": (array("O", [1], [1]), "an array cannot have the dtype 'O' at step_size"),
    "an array of another size": (array("float32", [10**9], [1.0]), "must have as many numbers as its shape says"),
    "an array of texts": (array("float32", [1], ["1"]), "must have as many numbers as its shape says"),
    "a shape that is none": (array("float32", [-1, -1], [1.0]), "can only specify one unknown dimension"),
    "a long text for a number": (rate("1" * 10**7), "the configuration is too large"),
    "a text for a number": (rate("x" * 900), "`scale.step_size` must be a number in (-∞, ∞), got 'xxx"),
    "a long type": ({"chainax": 1, "type": "x" * 10**5}, "unknown type 'xxx"),
    "a long field": ({**rate(1.0), "x" * 10**5: 1}, "`scale` has no field 'xxx"),
    "a long float": (rate({"type": "float", "value": "x" * 10**5}), "could not convert string to float: 'xxx"),
    "a long version": ({"chainax": "1" * 10**5}, "reads configurations of version 1, got version '111"),
    "no dict": (["x" * 10**7], "is a dict with the key 'chainax', got a list"),
    "no version": ({"x" * 10**7: 1}, "is a dict with the key 'chainax', got one without it"),
    "lists in lists": (rate(nested(100_000)), "the configuration is too large"),
    "lists of lists": (rate(LAUGHS), "more than 50000 parts, 200000 characters or 64 levels"),
    "itself": (LOOP, "the configuration is too large"),
    "many links": (
        {"chainax": 1, "type": "chain", "links": [{"name": f"x{i}", "type": "scale_by_sign"} for i in range(9000)]},
        "a chain of more than 1000 links",
    ),
    "a long name": (
        {"chainax": 1, "type": "chain", "links": [{"name": "x" * 2000, "type": "scale_by_sign"}]},
        "or with longer names",
    ),
    "no text for a pattern": (table(3), "a pattern must be a string at step_size, got 3"),
    "a huge repetition": (table("a{99999999999}"), "is no regular expression at step_size: the repetition number is"),
    "parentheses": (table("(" * 5000 + ")" * 5000), "((..." + "' is no regular expression"[:0]),
    "a repeated repetition": (table("(a+)+$"), SIMPLER),
    "a repeated alternation": (table("(a|ab)*c"), SIMPLER),
    "a lazily repeated alternation": (table("(?:a|ab)+?c"), SIMPLER),
    "a repetition that looks ahead": (table("(?:(?=a*b))*c"), SIMPLER),
    "a counted repetition": (table("((a{0,90}){0,90}){0,90}"), SIMPLER),
    "a repeated condition": (table("(a)((?(1)b|c))*"), SIMPLER),
    "repetitions in a row": (table("a*a*a*a*a*b"), SIMPLER),
    "options in a row": (table("a?" * 30 + "a" * 30), SIMPLER),
    "alternations in a row": (table("(ab|ab)" * 20), SIMPLER),
    "repetitions of the same": (table(r"\w*\w*\w*\w*\x00"), SIMPLER),
    "a long pattern": (table(r"^\w*\w*(" + "|".join(f"a{i}" for i in range(10_500)) + ")$"), SIMPLER),
    **{
        f"{kind}.{field}={number}": ({"chainax": 1, "type": kind, **fields, field: number}, "at most, got ")
        for number in (10**12, 10**30)
        for kind, field, fields in (
            ("scale_by_lbfgs", "memory_size", {}),
            ("int8", "block", {}),
            ("multiplicative_schedule", "transition_steps", {"init_value": 1.0, "factor": 1.0}),
        )
    },
    "a seed of 100 bits": ({"chainax": 1, "type": "add_noise", "seed": 10**30}, "give an int of 64 bits"),
}


def read(config: Any) -> tuple[Any, float]:
    """The value or the error that comes of a configuration, and the seconds that it took."""
    begun = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cx.ChainWarning)
            found = cx.from_config(config)
    except (ValueError, KeyError) as e:
        found = e
    return found, time.process_time() - begun


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused(attack: str) -> None:
    """In a moment, in few words that say what and where."""
    config, words = ATTACKS[attack]
    found, seconds = read(config)
    assert isinstance(found, ValueError)
    assert words in str(found)
    assert len(str(found)) <= 600
    assert found.__suppress_context__ or found.__context__ is None  # which would repeat the input
    assert seconds < 2


@pytest.mark.parametrize(
    "pattern",
    (
        *(
            "bias|norm",
            r"layer_\d+/(q|k|v)_proj",
            r".*encoder.*layer_\d+.*bias",
            r"(layer|block)_\d+/.*(kernel|weight)$",
        ),
        *(
            "(ab){3}",
            "a{2,4}",
            "(?i:embed)",
            "(?!.*bias).*kernel",
            r"^(a)/\1$",
            "^(" + "|".join(map(str, range(3000))) + ")$",
        ),
    ),
    ids=lambda pattern: pattern[:20],
)
def test_patterns_that_people_write_are_read(pattern: str) -> None:
    """What `to_config` writes of such tables, by_leaf's long ones too, comes back."""
    tx = cx.scale(cx.by_path({pattern: 0.1}, default=0.2))
    assert cx.from_config(json.loads(json.dumps(cx.to_config(tx)))) == tx


def test_tables_in_code_may_repeat() -> None:
    """Only those of configurations are refused."""
    tx, params = (
        cx.scale(cx.by_path({"(layer_[0-9]+/)+bias": 0.5}, default=1.0)),
        {"layer_10/layer_2/bias": jnp.ones(1)},
    )
    assert tx.update(params, tx.init(params))[0]["layer_10/layer_2/bias"] == 0.5


def test_warnings_are_short() -> None:
    """Also of what is long itself."""
    tx = cx.scale(cx.by_path({"x" * 10**5: 0.1}, default=1.0))
    with pytest.warns(cx.ChainWarning, match="the pattern 'xxx") as caught:
        tx.init(PARAMS)
    assert len(str(caught[0].message)) < 1100


def test_warnings_stay_warnings() -> None:
    """Where they are errors, an odd order is not taken for a malformed configuration."""
    config = cx.to_config(cx.adamw(0.1))
    with pytest.raises(cx.ChainWarning, match="makes weights grow"):
        cx.from_config({**config, "links": [*reversed(config["links"])]})


HOSTILE = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        0.5,
        -0.0,
        1e308,
        1e-308,
        10**12,
        2**31,
        2**63,
        10**400,
        float("inf"),
        float("nan"),
    ),
    *("", "x", "float32", "bfloat16", "complex64", "default", "a" * 5000, "\x00", "(", "(a+)+", "chain", "kernel|bias"),
    *([], {}, [[]], [1.0, 2.0], [[0, 1.0]], {"type": "chain", "links": []}, {"type": "float", "value": "nan"}),
    *({"type": "scale", "step_size": 1.0}, {"type": "by_path", "table": [["a", 1.0]], "default": None}),
    *({"type": "constant_schedule", "value": 0.5}, {"type": "linear_schedule"}, {"type": []}, {"type": "storage"}),
    *({"type": "array", "dtype": "float64", "shape": [2], "value": [1, 2]}, {"type": "int8", "block": 10**18}),
    *({"type": "from_function", "function": "x"}, {"type": "from_optax", "transformation": "x"}, {"type": "record"}),
)


def places(x: Any) -> Any:
    """Every container in a configuration, with each of its keys."""
    for key in list(x) if isinstance(x, dict) else range(len(x)):
        yield x, key
        if isinstance(x[key], (dict, list)):
            yield from places(x[key])


def mutated(config: Any, rng: random.Random) -> Any:
    """A configuration in which one or two things are something else, gone, or there twice."""
    config = copy.deepcopy(config)
    for _ in range(rng.randint(1, 2)):
        container, key = rng.choice(list(places(config)))
        kind = rng.random()
        if type(container[key]) in (int, float) and kind < 0.9:
            container[key] = rng.choice([x for x in HOSTILE if type(x) in (int, float)])
        elif kind < 0.7:
            container[key] = copy.deepcopy(rng.choice(HOSTILE))
        elif kind < 0.8:
            container[key] = copy.deepcopy(rng.choice(list(places(rng.choice(CONFIGS))))[0])
        elif kind < 0.9:
            del container[key]
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        else:
            container[rng.choice(("x", "name", "default", "storage"))] = container[key]
        if not config:
            break
    return config


def test_anything_ends_in_a_value_or_a_short_error() -> None:
    """Thousands of configurations, each a stored one with some parts changed; what is read begins in a moment too."""
    rng, slowest, begun = random.Random(0), 0.0, 0
    for i in range(4000):
        config = mutated(rng.choice(CONFIGS), rng)
        found, seconds = read(config)
        slowest = max(slowest, seconds)
        if isinstance(found, Exception):
            assert len(str(found)) <= 600, config
            continue
        assert len(repr(found)) < 10**6
        if i % 4 or not hasattr(found, "init"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                state = jax.eval_shape(found.init, PARAMS)
            except (ValueError, KeyError, TypeError) as e:
                assert len(str(e)) <= 1000, config  # noqa: PT017
                continue
        begun += 1
        assert sum(x.size for x in jax.tree.leaves(state)) < 10**7, config
    assert slowest < 2
    assert begun > 50


def test_whole_numbers_are_bounded_where_they_are_computed_with() -> None:
    """However large a static number, the link is refused, or its state begins and its step is traced."""
    links = {type(link): link for tx in REGISTRY for link in links_of(tx)}
    tried = 0
    for cls, link in links.items():
        for field in cls._static:
            given = getattr(link, field)
            if type(given) is not int:
                continue
            for number in (10**4, 2**31 - 1, 2**31, 10**12, 10**30):
                tried += 1
                try:
                    changed = link.replace(**{field: number})
                except ValueError:
                    continue
                state = jax.eval_shape(changed.init, PARAMS)
                assert sum(x.size for x in jax.tree.leaves(state)) < 10**8, (cls, field, number)
    assert tried > 25


# Types that share a name


def module(name: str, default: float) -> Any:
    """A module of somebody's that defines the links `soft_clip` and `scale`, a schedule `float`, and nothing else."""
    made = types.ModuleType(name)
    sys.modules[name] = made
    source = f"""
import chainax as cx
import chainax.extend as cxe

@cxe.transform
class soft_clip(cxe.Leafwise):
    "Bound every coordinate."
    bound: cxe.Hyper = cxe.hyper("b", "bound", default={default})
    equation = "u ← min(u, b)"
    def leaf(self, u, slot, p, scalars):
        return u

@cxe.transform
class scale(soft_clip):
    "Not chainax's."

@cxe.value
class float(cx.Schedule):
    "Always as it is."
    value: cxe.Hyper = cxe.number("the number", default=0.5)
    def at(self, k):
        return self.value + 0 * k
"""
    exec(source, vars(made))
    return made


@pytest.fixture
def shared_names() -> Any:
    """Two modules whose types have the same names, one of them a name of chainax, one a word of configurations."""
    before = {name: dict(known) for name, known in value.TYPES.items()}
    yield module("theirs.one", 1.0), module("theirs.two", 2.0)
    value.TYPES.clear()
    value.TYPES.update(before)
    del sys.modules["theirs.one"], sys.modules["theirs.two"]


def test_types_may_share_a_name(shared_names: Any) -> None:
    """Each comes back as itself, and chainax's under its bare name, as it always did."""
    one, two = shared_names
    for tx in (
        one.soft_clip(),
        two.soft_clip(),
        one.scale(3.0),
        cx.scale(0.5),
        cx.scale(one.float()),
        cx.scale(two.float()),
    ):
        config = json.loads(json.dumps(cx.to_config(cx.chain(tx))))
        (back,) = cx.from_config(config)
        assert type(back) is type(tx)
        assert back == tx
    assert cx.to_config(cx.scale(0.5))["type"] == "scale"
    assert cx.to_config(two.soft_clip())["type"] == "theirs.two.soft_clip"
    assert [vars(link)["bound"] for link in cx.chain(one.soft_clip(), two.soft_clip())] == [1.0, 2.0]
    with pytest.raises(
        ValueError, match=re.escape("the type 'soft_clip' may be theirs.one.soft_clip or theirs.two.soft_clip")
    ):
        cx.from_config({"chainax": 1, "type": "soft_clip"})
    with pytest.raises(ValueError, match=re.escape("unknown type 'theirs.three.soft_clip'")):
        cx.from_config({"chainax": 1, "type": "theirs.three.soft_clip"})


def test_an_unshared_name_stays_bare(shared_names: Any) -> None:
    """As configurations were written before, so that a type may move to another module."""
    _, two = shared_names
    value.TYPES["soft_clip"].pop("theirs.one")
    assert cx.to_config(two.soft_clip()) == {"chainax": 1, "type": "soft_clip", "bound": 2.0}
    assert cx.from_config({"chainax": 1, "type": "soft_clip", "bound": 2.0}) == two.soft_clip()


# Arrays


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16, jnp.float16, jnp.int32))
def test_scalar_arrays_print_as_the_code_that_makes_them(dtype: Any) -> None:
    """And not as numbers, which they do not equal."""
    for number in (0.1, 1 / 3, 3, 123.4, 2e-3):
        tx = cx.chain(cx.scale(dtype(number)), cx.scale_by_lr(cx.linear_schedule(dtype(number), 0.0, 4)))
        assert eval(repr(tx), {**vars(cx), "jnp": jnp}) == tx
        plain = jax.tree.map(lambda x: float(x), tx)
        assert repr(plain) != repr(tx)
        before, after = plain.diff(tx).splitlines()[0].removeprefix("scale.step_size: ").split(" → ")
        assert before != after


def test_scalar_arrays_are_numbers_to_readers() -> None:
    """In what is said in words and in the labels of a sweep, which stand for the numbers."""
    half = jnp.float32(0.1)
    assert repr(cx.scale(half)) == "scale(jnp.float32(0.1))"
    assert cx.chain(cx.scale(0.1)).diff(cx.scale(half)) == "scale.step_size: 0.1 → jnp.float32(0.1)"
    assert "γ=0.1\n" in cx.scale(half).describe()
    assert cx.linear_schedule(half, 1.0, 4).describe() == "a line from 0.1 to 1 over 4 steps"
    chains = [cx.sgd(half), cx.sgd(cx.step_schedule(0.5, 2))]
    names = cx.sweep(lambda tx: 0.0, chains)["name"].tolist()
    assert names == ["learning_rate=0.1", "learning_rate=step_schedule(0.5, 2)"]
