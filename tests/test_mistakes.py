"""What an author of links can do wrong, each with the message that says what to write instead."""

import dataclasses
import re
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import pytest

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([0.5])}
HOLED = {"a": PARAMS["a"], "b": None}


def passed(self: Any, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
    """A leaf function that changes nothing."""
    return u


def kept(self: Any, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
    """The same, with the slot ``mu``."""
    return u, {"mu": slot.mu}


def left(self: Any, updates: Any, state: Any, params: Any, at: Any) -> Any:
    """An `update_tree` that changes nothing."""
    return updates, state


def make(base: Any, body: dict[str, Any]) -> Any:
    """The class ``wrong``, a link with this body; fields are annotated by ``FIELDS``."""
    fields = body.pop("FIELDS", {})
    return cxe.transform(type("wrong", (base,), {"__doc__": "Wrong.", "__annotations__": fields, **body}))


LEAF, SLOT = {"leaf": passed}, {"leaf": kept, "slots": ("mu",)}
TREE = {"update_tree": left}

DECLARED = {
    "slots that are a string": (
        cxe.Leafwise,
        SLOT | {"slots": "mu"},
        TypeError,
        "must be a tuple of names, got 'mu': write slots = ('mu',)",
    ),
    "slots that are a list": (cxe.Leafwise, SLOT | {"slots": ["mu"]}, TypeError, "write slots = ('mu',)"),
    "slots that are numbers": (
        cxe.Leafwise,
        SLOT | {"slots": (1,)},
        TypeError,
        "`wrong.slots` must be a tuple of names, got (1,)",
    ),
    "a slot twice": (cxe.Leafwise, SLOT | {"slots": ("mu", "mu")}, ValueError, "`wrong.slots` names 'mu' twice"),
    "a slot that is no name": (
        cxe.Leafwise,
        SLOT | {"slots": ("m u",)},
        ValueError,
        "must hold identifiers, got 'm u'",
    ),
    "a slot named as the gradient": (
        cxe.Leafwise,
        SLOT | {"slots": ("grad",)},
        ValueError,
        "may not name grad, key, got 'grad'",
    ),
    "slot for slots": (
        cxe.Leafwise,
        LEAF | {"slot": ("mu",)},
        TypeError,
        "`wrong.slot` is unknown: did you mean 'slots'?",
    ),
    "need_all_updates": (
        cxe.Leafwise,
        LEAF | {"need_all_updates": True},
        TypeError,
        "did you mean 'needs_all_updates'?",
    ),
    "read_params": (cxe.Leafwise, LEAF | {"read_params": True}, TypeError, "did you mean 'reads_params'?"),
    "scalar for scalars": (cxe.Leafwise, LEAF | {"scalar": lambda self, at: 1.0}, TypeError, "did you mean 'scalars'?"),
    "leafs for leaf": (cxe.Leafwise, {"leafs": passed}, TypeError, "did you mean 'leaf'?"),
    "nonnegative names nothing": (
        cxe.Leafwise,
        SLOT | {"nonnegative": ("mus",)},
        ValueError,
        "`wrong.nonnegative` names 'mus' (did you mean 'mu'?); its slots are mu",
    ),
    "lagged names nothing": (cxe.Leafwise, SLOT | {"lagged": ("nu",)}, ValueError, "`wrong.lagged` names 'nu'"),
    "absent names nothing": (cxe.Leafwise, SLOT | {"absent": {"nu": None}}, ValueError, "`wrong.absent` names 'nu'"),
    "absent copies nothing": (
        cxe.Leafwise,
        SLOT | {"absent": {"mu": "nu"}},
        ValueError,
        "`wrong.absent` names 'nu'",
    ),
    "absent is a tuple": (
        cxe.Leafwise,
        SLOT | {"absent": ("mu",)},
        TypeError,
        "`wrong.absent` must be a dict, got ('mu',)",
    ),
    "an unknown role": (cxe.Leafwise, LEAF | {"role": "scales"}, ValueError, "got 'scales' (did you mean 'scale'?)"),
    "a role that is no string": (cxe.Leafwise, LEAF | {"role": 3}, TypeError, "`wrong.role` must be a string, got 3"),
    "an equation that is no string": (
        cxe.Leafwise,
        LEAF | {"equation": ("u ← u",)},
        TypeError,
        "`wrong.equation` must be a string",
    ),
    "a flag that is a number": (
        cxe.Leafwise,
        LEAF | {"reads_params": 1},
        TypeError,
        "`wrong.reads_params` must be True or False, got 1",
    ),
    "extra that is a string": (cxe.Leafwise, LEAF | {"extra": "value"}, TypeError, "write extra = ('value',)"),
    "extra that step has": (
        cxe.Leafwise,
        LEAF | {"extra": ("params",)},
        ValueError,
        "`wrong.extra` may not name params, state, grads, updates, got 'params'",
    ),
    "a declaration with a type": (
        cxe.Leafwise,
        LEAF | {"slots": ("mu",), "FIELDS": {"slots": tuple}},
        TypeError,
        "`wrong.slots` is a declaration, not a field: write slots = ('mu',), without a type",
    ),
    "a plain field": (
        cxe.Leafwise,
        LEAF | {"b1": 0.9, "FIELDS": {"b1": float}},
        TypeError,
        "declare the field `wrong.b1` by hyper, number, child or static",
    ),
    "no leaf": (
        cxe.Leafwise,
        {},
        TypeError,
        "`wrong` needs the method 'leaf' of its base Leafwise: def leaf(self, u, slot, p, scalars)",
    ),
    "no factor": (
        cxe.Scaling,
        {},
        TypeError,
        "`wrong` needs the method 'factor' of its base Scaling: def factor(self, at)",
    ),
    "no update_tree": (cxe.Treewise, {}, TypeError, "`wrong` needs the method 'update_tree' of its base Treewise: def"),
    "no update_vector": (cxe.VectorLink, {}, TypeError, "def update_vector(self, u, state, x, at)"),
    "scaling without Scaling": (
        cxe.Leafwise,
        LEAF | {"scaling": True},
        TypeError,
        "is declared by deriving from Scaling",
    ),
    "scalars of a scaling": (
        cxe.Scaling,
        {"factor": lambda self, at: 2.0, "scalars": lambda self, at: 2.0},
        TypeError,
        "`wrong.scalars` would replace what Scaling does",
    ),
    "update_tree of a vector link": (
        cxe.VectorLink,
        TREE,
        TypeError,
        "`wrong.update_tree` would replace what VectorLink does",
    ),
    "a leaf without p": (
        cxe.Leafwise,
        {"leaf": lambda self, u, slot: u},
        TypeError,
        "`wrong.leaf` must take the arguments def leaf(self, u, slot, p, scalars)",
    ),
    "scalars without at": (
        cxe.Leafwise,
        LEAF | {"scalars": lambda self: 1.0},
        TypeError,
        "`wrong.scalars` must take the arguments def scalars(self, at)",
    ),
    "a leaf that is a number": (
        cxe.Leafwise,
        {"leaf": 1.0},
        TypeError,
        "`wrong.leaf` must be a method, def leaf(self, u, slot, p, scalars), got 1",
    ),
    "update as in Optax": (
        cxe.Treewise,
        TREE | {"update": left},
        TypeError,
        "`wrong.update` would hide an attribute of its base: write 'update_tree'",
    ),
    "init as in Optax": (
        cxe.Leafwise,
        LEAF | {"init": lambda self, p: p},
        TypeError,
        "`wrong.init` would hide an attribute of its base: write 'init_leaf'",
    ),
    "leaf in a Treewise link": (
        cxe.Treewise,
        TREE | LEAF,
        TypeError,
        "`wrong.leaf` has no effect here: it is for classes that derive from Leafwise",
    ),
    "moves_params in a Leafwise link": (cxe.Leafwise, LEAF | {"moves_params": True}, TypeError, "derive from Treewise"),
    "can_reject without accepts": (
        cxe.Leafwise,
        LEAF | {"can_reject": True},
        TypeError,
        "`wrong.can_reject` is True, but there is no method 'accepts'",
    ),
    "accepts without can_reject": (
        cxe.Leafwise,
        LEAF | {"accepts": lambda self, at: True},
        TypeError,
        "`wrong.accepts` would never be called: declare can_reject = True",
    ),
    "moves_params without step_tree": (
        cxe.Treewise,
        TREE | {"moves_params": True},
        TypeError,
        "there is no method 'step_tree'",
    ),
    "step_tree without moves_params": (
        cxe.Treewise,
        TREE | {"step_tree": left},
        TypeError,
        "declare moves_params = True",
    ),
    "random without a seed": (
        cxe.Leafwise,
        LEAF | {"random": True},
        TypeError,
        "give it the field seed: Any = prng_seed(",
    ),
    "a global state that is never begun": (
        cxe.Leafwise,
        LEAF | {"update_global_state": lambda self, at: {}},
        TypeError,
        "write init_global_state(self)",
    ),
    "init_leaf without slots": (
        cxe.Leafwise,
        LEAF | {"init_leaf": lambda self, p: {}},
        TypeError,
        "`wrong.init_leaf` makes slots, but the class declares none",
    ),
    "slots without init_tree": (
        cxe.Treewise,
        TREE | {"slots": ("mu",)},
        TypeError,
        "write init_tree(self, params), which makes it",
    ),
}


@pytest.mark.parametrize("mistake", DECLARED)
def test_a_class_that_cannot_be_meant_is_refused(mistake: str) -> None:
    """When it is made: the message names the class, the attribute and the remedy."""
    base, body, error, words = DECLARED[mistake]
    with pytest.raises(error, match=re.escape(words)):
        make(base, dict(body))


def is_field(x: Any) -> bool:
    """Whether ``x`` declares a field of a class."""
    return isinstance(x, dataclasses.Field)


def make_value(base: Any, body: dict[str, Any]) -> Any:
    """The class ``wrong``, a value with this body, whose fields are annotated."""
    fields = {name: Any for name, x in body.items() if is_field(x)}
    return cxe.value(type("wrong", (base,), {"__doc__": "Wrong.", "__annotations__": fields, **body}))


AT = {"at": lambda self, k: 0 * k}
NARROW = {"keep": lambda self, x, signed: {"wrong": x.astype(jnp.int8)}}
WIDE = {"widen": lambda self, kept, shape, signed: kept["wrong"].astype(jnp.float32)}
ROUND = {"rounded": lambda self, theta, u, dtype, key: ((theta + u).astype(dtype), None)}

VALUES = {
    "a schedule without at": (
        cx.Schedule,
        {"__call__": lambda self, k: 0 * k},
        "`wrong` needs the method 'at' of its base Schedule: def at(self, k)",
    ),
    "a format without keep": (
        cxe.Format,
        {"encode": NARROW["keep"], "decode": WIDE["widen"]},
        "`wrong` needs the method 'keep' of its base Format: def keep(self, x, signed)",
    ),
    "a format without widen": (cxe.Format, NARROW, "def widen(self, kept, shape, signed)"),
    "a rounding without rounded": (
        cxe.Rounding,
        {"round": ROUND["rounded"]},
        "`wrong` needs the method 'rounded' of its base Rounding: def rounded(self, theta, u, dtype, key)",
    ),
    "a slot without init_residual": (
        cxe.Rounding,
        ROUND | {"slot": "e"},
        "`wrong.slot` is 'e', but there is no method 'init_residual': write it, or remove slot",
    ),
    "init_residual without a slot": (
        cxe.Rounding,
        ROUND | {"init_residual": lambda self, p: p},
        "`wrong.init_residual` would never be called: declare slot = ...",
    ),
    "slots for slot": (cxe.Rounding, ROUND | {"slots": ("e",)}, "`wrong.slots` is unknown: did you mean 'slot'?"),
    "phrases for phrase": (cx.Schedule, AT | {"phrases": "half"}, "did you mean 'phrase'?"),
    "a phrase that is no string": (cx.Schedule, AT | {"phrase": 1}, "`wrong.phrase` must be a string, got 1"),
    "at without k": (
        cx.Schedule,
        {"at": lambda self: 0.5},
        "`wrong.at` must take the arguments def at(self, k)",
    ),
    "keep without signed": (
        cxe.Format,
        WIDE | {"keep": lambda self, x: {}},
        "`wrong.keep` must take the arguments def keep(self, x, signed)",
    ),
    "rounded without key": (
        cxe.Rounding,
        {"rounded": lambda self, theta, u, dtype: u},
        "`wrong.rounded` must take the arguments def rounded(self, theta, u, dtype, key)",
    ),
    "a hyperparameter of a schedule": (
        cx.Schedule,
        AT | {"rate": cxe.hyper("r", "the rate", default=0.1)},
        "`wrong.rate` has a symbol, as hyperparameters of links do: declare it by number(doc, ...)",
    ),
    "value on a link": (cxe.Leafwise, LEAF, "`wrong` is a Link: decorate it with transform"),
    "value on a wrapper": (
        cxe.Wrapper,
        {"tx": cxe.child("the chain")},
        "`wrong` is a Link: decorate it with transform",
    ),
}


@pytest.mark.parametrize("mistake", VALUES)
def test_a_value_that_cannot_be_meant_is_refused(mistake: str) -> None:
    """Schedules, formats and roundings are checked when the class is made, as links are."""
    base, body, words = VALUES[mistake]
    with pytest.raises(TypeError, match=re.escape(words)):
        make_value(base, dict(body))


@pytest.mark.parametrize(
    ("base", "body", "decorator"),
    ((cx.Schedule, AT, "value"), (cxe.Leafwise, LEAF, "transform")),
    ids=("value", "link"),
)
def test_a_class_is_decorated_once(base: Any, body: dict[str, Any], decorator: str) -> None:
    """An instance of a class without its decorator is refused, and so is a second decorator."""
    plain = type("wrong", (base,), {"__doc__": "Wrong.", **body})
    for arguments in ((), (1.0,)):
        with pytest.raises(TypeError, match=f"`wrong` is not decorated: write @{decorator} above its class"):
            plain(*arguments)
    made = getattr(cxe, decorator)(plain)
    for again in (cxe.value, cxe.transform):
        with pytest.raises(TypeError, match=r"`wrong` is decorated twice|must derive from Leafwise or Treewise"):
            again(made)
    derived = type("derived", (made,), {})
    with pytest.raises(TypeError, match=f"`derived` is not decorated: write @{decorator} above its class"):
        derived()


@pytest.mark.parametrize("constant", (0.5, True, jnp.array(True), jnp.array(0.5)), ids=repr)
def test_a_schedule_that_returns_a_constant_is_told(constant: Any) -> None:
    """Its values have the shape of the steps, and are floating-point numbers."""
    schedule = make_value(cx.Schedule, {"at": lambda self, k: constant})()
    with pytest.raises(TypeError, match=re.escape("`wrong.at` must return a floating-point array of the shape of k")):
        schedule(jnp.arange(3))


@pytest.mark.parametrize(
    ("body", "words"),
    (
        (
            WIDE | {"keep": lambda self, x, signed: x},
            "`wrong.keep` must return a dict with the codes under 'wrong', got",
        ),
        (WIDE | {"keep": lambda self, x, signed: {"codes": x}}, "under 'wrong', got a dict of codes"),
        (
            NARROW | {"widen": lambda self, kept, shape, signed: kept["wrong"].astype(jnp.bfloat16)},
            "`wrong.widen` must return float32[2], got bfloat16[2]",
        ),
    ),
    ids=("bare", "key", "dtype"),
)
def test_a_format_that_does_not_keep_its_contract_is_told(body: dict[str, Any], words: str) -> None:
    """The key of the codes, and what they are widened to; a note names the link."""
    tx = cx.store(cx.trace(0.9), make_value(cxe.Format, dict(body))())
    params = {"a": jnp.ones(2)}
    with pytest.raises(TypeError, match=re.escape(words)) as raised:
        tx.update(params, tx.init(params), params)
    assert "raised in link 'trace' of the chain" in raised.value.__notes__


GLOBAL = {"init_global_state": lambda self: {"count": jnp.zeros(())}}
MISSPELT = {"leaf": lambda self, u, slot, p, s: (u / slot.mu_, {"mu": slot.mu}), "slots": ("mu",)}

RETURNED = {
    "a slot that is not declared": (
        cxe.Leafwise,
        MISSPELT,
        AttributeError,
        "there is no slot 'mu_' (did you mean 'mu'?); the link has mu: declare slots = ('mu', 'mu_')",
    ),
    "a gradient that is not asked for": (
        cxe.Leafwise,
        {"leaf": lambda self, u, slot, p, s: u * slot.grad},
        AttributeError,
        "declare reads_grads = True",
    ),
    "a key that is not asked for": (
        cxe.Leafwise,
        {"leaf": lambda self, u, slot, p, s: u * slot.key},
        AttributeError,
        "declare random = True",
    ),
    "an argument that is not declared": (
        cxe.Leafwise,
        LEAF | {"scalars": lambda self, at: at.extra["value"]},
        KeyError,
        "at.extra has no 'value': declare extra = ('value',)",
    ),
    "a tuple without slots": (
        cxe.Leafwise,
        {"leaf": lambda self, u, slot, p, s: (u, {})},
        TypeError,
        "returned a tuple, but the link has no slots",
    ),
    "no slots": (
        cxe.Leafwise,
        SLOT | {"leaf": passed},
        TypeError,
        "The leaf of link 'wrong' must return the update and a dict of its slots ('mu',)",
    ),
    "another slot": (
        cxe.Leafwise,
        SLOT | {"leaf": lambda self, u, slot, p, s: (u, {"nu": u})},
        TypeError,
        "declares the slots ('mu',) but its leaf returned ('nu',)",
    ),
    "a slot of None": (
        cxe.Leafwise,
        SLOT | {"leaf": lambda self, u, slot, p, s: (u, {"mu": None})},
        TypeError,
        "turned its slot 'mu' of float32[2] into None",
    ),
    "a slot of another shape": (
        cxe.Leafwise,
        SLOT | {"leaf": lambda self, u, slot, p, s: (u, {"mu": u[:1]})},
        TypeError,
        "turned its slot 'mu' of float32[2] into float32[1]",
    ),
    "an update of another dtype": (
        cxe.Leafwise,
        {"leaf": lambda self, u, slot, p, s: u > 0},
        TypeError,
        "turned an update of float32[2] into bool[2]",
    ),
    "an update of None": (
        cxe.Leafwise,
        {"leaf": lambda self, u, slot, p, s: None},
        TypeError,
        "turned an update of float32[2] into None",
    ),
    "first slots that are a list": (
        cxe.Leafwise,
        SLOT | {"init_leaf": lambda self, p: [p]},
        TypeError,
        "declares the slots ('mu',) but its init_leaf makes list",
    ),
    "first slots of another name": (
        cxe.Leafwise,
        SLOT | {"init_leaf": lambda self, p: {"m": p}},
        TypeError,
        "declares the slots ('mu',) but its init_leaf makes ('m',)",
    ),
    "a first slot that is a number": (
        cxe.Leafwise,
        SLOT | {"init_leaf": lambda self, p: {"mu": 0.0}},
        TypeError,
        "must make an array of slot 'mu', got float",
    ),
    "a slot whose shape depends on values": (
        cxe.Leafwise,
        SLOT | {"init_leaf": lambda self, p: {"mu": p[p > 0]}},
        IndexError,
        "Array boolean indices must be concrete",
    ),
    "scalars that are a function": (
        cxe.Leafwise,
        LEAF | {"scalars": lambda self, at: {"f": jnp.tanh}},
        TypeError,
        "The scalars of link 'wrong' must be arrays and numbers, got PjitFunction at 'f'",
    ),
    "a factor that is a set": (
        cxe.Scaling,
        {"factor": lambda self, at: {1.0}},
        TypeError,
        "The scalars of link 'wrong' must be arrays and numbers, got set",
    ),
    "a verdict on every number": (
        cxe.Leafwise,
        LEAF | {"can_reject": True, "accepts": lambda self, at: jnp.ones(2, bool)},
        TypeError,
        "must return a boolean scalar, got bool[2]",
    ),
    "a verdict that is a norm": (
        cxe.Leafwise,
        LEAF | {"can_reject": True, "needs_all_updates": True, "accepts": lambda self, at: at.global_norm()},
        TypeError,
        "must return a boolean scalar, got float32[]",
    ),
    "no verdict": (
        cxe.Leafwise,
        LEAF | {"can_reject": True, "accepts": lambda self, at: None},
        TypeError,
        "must return a boolean scalar, got None",
    ),
    "all_finite that is not asked for": (
        cxe.Leafwise,
        LEAF | {"can_reject": True, "accepts": lambda self, at: at.all_finite()},
        TypeError,
        "Link 'wrong' asks whether all updates are finite: declare needs_all_updates = True in its class",
    ),
    "a slot and a global state of one name": (
        cxe.Leafwise,
        SLOT | {"init_global_state": lambda self: {"mu": jnp.zeros(())}},
        TypeError,
        "Link 'wrong' has 'mu' among its slots and in its global state: rename one of them",
    ),
    "a global state that is an array": (
        cxe.Leafwise,
        LEAF | {"init_global_state": lambda self: jnp.zeros(())},
        TypeError,
        "must return a dict of scalars, got float32[]",
    ),
    "a global count of halves": (
        cxe.Leafwise,
        LEAF
        | {"init_global_state": lambda self: {"n": jnp.zeros((), jnp.int32)}}
        | {"update_global_state": lambda self, at: {"n": at.global_state["n"].astype(jnp.float32) + 0.5}},
        TypeError,
        "turned 'n' of its global state, int32[], into float32[], which would be truncated",
    ),
    "another global state": (
        cxe.Leafwise,
        LEAF | GLOBAL | {"update_global_state": lambda self, at: {"n": jnp.ones(())}},
        TypeError,
        "must return count, as its init_global_state does, got n",
    ),
    "a global state of another shape": (
        cxe.Leafwise,
        LEAF | GLOBAL | {"update_global_state": lambda self, at: {"count": jnp.ones(2)}},
        TypeError,
        "turned 'count' of its global state, float32[], into float32[2]",
    ),
    "a nonnegative entry that is none": (
        cxe.Leafwise,
        LEAF | GLOBAL | {"nonnegative": ("counts",)},
        ValueError,
        "`wrong.nonnegative` names 'counts' (did you mean 'count'?); the state has count",
    ),
    "updates alone": (
        cxe.Treewise,
        {"update_tree": lambda self, u, s, p, at: u},
        TypeError,
        "`wrong.update_tree` must return the updates and the next state, got a dict",
    ),
    "updates of another tree": (
        cxe.Treewise,
        {"update_tree": lambda self, u, s, p, at: (u["a"], s)},
        TypeError,
        "The updates that `wrong` returned do not have the tree of the parameters",
    ),
    "updates of another shape": (
        cxe.Treewise,
        {"update_tree": lambda self, u, s, p, at: (jax.tree.map(jnp.sum, u), s)},
        TypeError,
        "Link 'wrong' turned the update of 'a', float32[2], into float32[]",
    ),
    "another state": (
        cxe.Treewise,
        {"init_tree": lambda self, p: {"n": jnp.ones(())}, "update_tree": lambda self, u, s, p, at: (u, {"m": s["n"]})},
        TypeError,
        "must return a state like the one that it got, with n, but returned m",
    ),
    "a state of another shape": (
        cxe.Treewise,
        {
            "init_tree": lambda self, p: {"n": jnp.ones(())},
            "update_tree": lambda self, u, s, p, at: (u, {"n": jnp.ones(2)}),
        },
        TypeError,
        "at 'n' that is float32[], and not float32[2]",
    ),
    "a slot that init_tree does not make": (
        cxe.Treewise,
        TREE | {"slots": ("mu",), "init_tree": lambda self, p: {"mu_": p}},
        TypeError,
        "declares the slots ('mu',), which are keys of its state, but its init_tree makes mu_ (did you mean 'mu_'?)",
    ),
    "a count of halves": (
        cxe.Treewise,
        {
            "init_tree": lambda self, p: {"n": jnp.zeros((), jnp.int32)},
            "update_tree": lambda self, u, s, p, at: (u, {"n": s["n"].astype(jnp.float32) + 0.5}),
        },
        TypeError,
        "Link 'wrong' turned 'n' of its state, int32[], into float32[], which would be truncated",
    ),
    "a vector link's count of halves": (
        cxe.VectorLink,
        {
            "init_vector": lambda self, x: {"n": 0},
            "update_vector": lambda self, u, s, x, at: (u, {"n": s["n"].astype(jnp.float32) + 0.5}),
        },
        TypeError,
        "Link 'wrong' turned 'n' of its state, int32[], into float32[], which would be truncated",
    ),
    "an array alone": (
        cxe.Treewise,
        {"update_tree": lambda self, u, s, p, at: u["a"]},
        TypeError,
        "must return the updates and the next state, got float32[2]",
    ),
    "a tuple for a first vector": (
        cxe.VectorLink,
        {"slots": ("mu",), "init_vector": lambda self, x: {"mu": tuple(x)}, "update_vector": left},
        TypeError,
        "must return 'mu' as a list of 2 arrays, one per parameter, got a tuple",
    ),
    "a vector that is no slot": (
        cxe.VectorLink,
        {"init_vector": lambda self, x: {"mu": x}, "update_vector": left},
        TypeError,
        "returned 'mu', a list of arrays: if that is a vector, declare slots = ('mu',)",
    ),
    "a first state that is a vector": (
        cxe.VectorLink,
        {"init_vector": lambda self, x: x, "update_vector": left},
        TypeError,
        "must return a dict, got a list",
    ),
    "a vector that is too short": (
        cxe.VectorLink,
        {"update_vector": lambda self, u, s, x, at: (u[:1], s)},
        TypeError,
        "must return the updates as a list of 2 arrays, one per parameter, got 1 of them",
    ),
    "a vector of another shape": (
        cxe.VectorLink,
        {"update_vector": lambda self, u, s, x, at: ([a.sum() for a in u], s)},
        TypeError,
        "must return the updates of 'a' as float32[2], got float32[]",
    ),
    "a vector alone": (
        cxe.VectorLink,
        {"update_vector": lambda self, u, s, x, at: u},
        TypeError,
        "must return a vector and the next state, got a list",
    ),
    "a vector's other state": (
        cxe.VectorLink,
        {"slots": ("mu",), "update_vector": lambda self, u, s, x, at: (u, {})},
        TypeError,
        "with mu, but returned nothing",
    ),
}

SAID = ("updates of another", "a nonnegative", "a count", "a vector link's count")
NOTED = {name for name in RETURNED if not name.startswith(SAID)}
"""What the engine finds while it calls the link; the rest it finds when the link has returned, and says its name."""


@pytest.mark.parametrize("mistake", RETURNED)
def test_a_hook_that_does_not_keep_its_contract_is_told(mistake: str) -> None:
    """At the first step or before it: the message says what came and what must come, and a note names the link."""
    base, body, error, words = RETURNED[mistake]
    tx = cx.chain(make(base, dict(body))(), cx.scale_by_lr(0.1))
    with pytest.raises(error, match=re.escape(words)) as raised:
        jax.jit(lambda p: tx.step(p, tx.init(p), p))(PARAMS)
    if mistake in NOTED:
        assert "raised in link 'wrong' of the chain" in raised.value.__notes__
    else:
        assert "wrong" in str(raised.value)


REMEDIES = {
    "a choice in Python": (
        cxe.Leafwise,
        {"leaf": lambda self, u, slot, p, s: u if u.sum() > 0 else -u},
        "its hooks are traced: choose what depends on an array by jnp.where",
    ),
    "a misspelt global state": (
        cxe.Leafwise,
        LEAF | GLOBAL | {"scalars": lambda self, at: at.global_state["counts"]},
        "its global state has count (did you mean 'count'?)",
    ),
    "parameters that are not asked for": (
        cxe.Leafwise,
        {"leaf": lambda self, u, slot, p, s: u + 0.1 * p},
        "update was called without parameters: a link that uses them declares reads_params = True",
    ),
    "a tree of parameters that is not asked for": (
        cxe.Treewise,
        {"update_tree": lambda self, u, s, p, at: (p["a"], s)},
        "update was called without parameters: a link that uses them declares reads_params = True",
    ),
}


@pytest.mark.parametrize("mistake", REMEDIES)
def test_a_note_has_the_remedy_for_an_error_of_a_hook(mistake: str) -> None:
    """Where the error is Python's or JAX's own."""
    base, body, words = REMEDIES[mistake]
    tx = make(base, dict(body))()
    with pytest.raises((TypeError, KeyError, jax.errors.ConcretizationTypeError)) as raised:
        tx.update(PARAMS, tx.init(PARAMS))
    assert {"raised in link 'wrong' of the chain", words} <= {*raised.value.__notes__}


def test_a_rounding_that_asks_for_no_key_is_told() -> None:
    """Without ``random`` there is none."""
    body = {"rounded": lambda self, theta, u, dtype, key: (jax.random.bits(key, theta.shape).astype(dtype), None)}
    tx, params = cx.apply_update(make_value(cxe.Rounding, body)()), {"a": jnp.ones(2, jnp.bfloat16)}
    with pytest.raises(TypeError) as raised:
        tx.step(params, tx.init(params), params)
    assert "the key is None: a rounding that uses it declares random = True" in raised.value.__notes__


CHAIN = {"tx": cxe.child("the chain"), "FIELDS": {"tx": Any}}
UPDATES = TREE | {"moves_params": False}


def test_a_wrapper_that_updates_only_says_so() -> None:
    """The remedy for an inherited declaration is to declare the other value."""
    with pytest.raises(TypeError, match=r"no method 'step_tree': write it, or declare moves_params = False"):
        make(cxe.Wrapper, CHAIN | TREE)


def test_the_chain_of_a_wrapper_is_named_tx() -> None:
    """Another name is refused: one that is taken when the class is made, one that is free when it is built."""
    with pytest.raises(TypeError, match=r"`wrong.inner` would hide an attribute of its base: rename the field"):
        make(cxe.Wrapper, UPDATES | {"inner": cxe.child("the chain"), "FIELDS": {"inner": Any}})
    other = make(cxe.Wrapper, UPDATES | {"other": cxe.child("the chain"), "FIELDS": {"other": Any}})
    with pytest.raises(TypeError, match=re.escape('`wrong` needs the chain in a field named tx: Any = child("the ch')):
        other(cx.sgd(0.1))


def test_the_state_of_a_wrapper() -> None:
    """By default it is that of the chain, under "tx", and another is refused."""
    tx = make(cxe.Wrapper, CHAIN | UPDATES)(cx.trace(0.9))
    assert list(tx.init(PARAMS).links["wrong"]) == ["tx"]
    for state, got in (((), "a tuple"), ({"inner": ()}, "a dict of inner")):
        tx = make(cxe.Wrapper, CHAIN | UPDATES)(cx.trace(0.9))
        with pytest.raises(TypeError, match=f"must return a dict with the chain's state under 'tx', got {got}"):
            tx.visit(lambda *args: {}, PARAMS, state)


def naive(**body: Any) -> Any:
    """An `update_tree` as one would write it first, with momentum."""

    def update_tree(self: Any, updates: Any, state: Any, params: Any, at: Any) -> Any:
        mu = jax.tree.map(lambda m, u, p: 0.5 * m + u + 0.1 * p, state["mu"], updates, params)
        return mu, {**state, "mu": mu}

    def init_tree(self: Any, params: Any) -> Any:
        return {"mu": jax.tree.map(jnp.zeros_like, params)}

    return make(cxe.Treewise, {"update_tree": update_tree, "init_tree": init_tree, "reads_params": True, **body})


def test_a_naive_tree_map_meets_no_holes() -> None:
    """Parameters without a gradient and integers are left as they are, and so are their slots."""
    params = {**PARAMS, "n": jnp.arange(2), "none": None}
    tx = naive(slots=("mu",))()
    state = tx.init(params)
    first, state = tx.update({**PARAMS, "n": None, "none": None}, state, params)
    second, after = tx.update({**HOLED, "n": None, "none": None}, state, params)
    np.testing.assert_allclose(first["b"], [0.55], rtol=1e-6)
    np.testing.assert_allclose(second["a"], 0.5 * first["a"] + 1.1 * PARAMS["a"], rtol=1e-6)
    assert second["b"] is None
    np.testing.assert_array_equal(after.links["wrong"]["mu"]["b"], state.links["wrong"]["mu"]["b"])
    moved, _ = tx.step(params, state, {**HOLED, "n": None, "none": None})
    np.testing.assert_array_equal(moved["b"], params["b"])
    np.testing.assert_array_equal(moved["n"], params["n"])


def test_a_step_without_gradients_does_not_call_the_link() -> None:
    """The mean of no updates is no number: `update_tree` is not asked for it, and the state stays."""

    def centered(self: Any, updates: Any, state: Any, params: Any, at: Any) -> Any:
        leaves = jax.tree.leaves(updates)
        mean = sum(x.sum() for x in leaves) / sum(x.size for x in leaves)
        return jax.tree.map(lambda u: u - mean, updates), state

    tx = make(cxe.Treewise, {"update_tree": centered})()
    none = dict.fromkeys(PARAMS)
    assert tx.update(none, tx.init(PARAMS), PARAMS)[0] == none


def test_a_tree_in_the_state_that_is_no_slot_is_told() -> None:
    """It does not fit the updates as soon as one is missing: the message has the path and the declaration."""
    tx = naive()()
    with pytest.raises(TypeError, match=re.escape("The update at 'b' is None")) as raised:
        tx.update(HOLED, tx.init(PARAMS), PARAMS)
    assert "declare slots = ('mu',)" in str(raised.value)


@cxe.transform
class scale_by_global_rms(cxe.VectorLink):
    """Divide by the root of the mean square of all updates so far, times the distance from the start."""

    slots = ("start", "mu")
    equation = "u ← ‖θ − θ₀‖u/√v"
    knows_shards = True
    reads_params = True

    def init_vector(self, x: Any) -> Any:
        """Begin at the parameters."""
        return {"start": x, "square": 0.0}

    def update_vector(self, u: Any, state: Any, x: Any, at: Any) -> Any:
        """Divide."""
        square = state["square"] + at.dot(u, u)
        distance = at.norm([a - b for a, b in zip(x + at.still_params(), state["start"] + at.still("start"))])
        mu = [0.5 * m + a for m, a in zip(state["mu"], u)]
        return [(1 + distance) * m / jnp.sqrt(square) for m in mu], {**state, "mu": mu, "square": square}


def test_a_link_over_vectors() -> None:
    """In NumPy it is the same; integers, holes and other dtypes do not come to it."""
    tx = scale_by_global_rms()
    params = {"a": jnp.array([3.0, 4.0], jnp.bfloat16), "b": jnp.array([1.0 + 1.0j]), "n": jnp.arange(2)}
    grads = {"a": jnp.array([1.0, 2.0], jnp.bfloat16), "b": jnp.array([2.0 + 0.0j]), "n": None}
    state = tx.init(params)
    assert {k: jax.tree.map(lambda x: x.dtype.name, v) for k, v in state.links["scale_by_global_rms"].items()} == {
        "start": {"a": "float32", "b": "float32", "n": None},
        "mu": {"a": "float32", "b": "float32", "n": None},
        "square": "float32",
    }
    params = {**params, "b": params["b"] + 2}  # a distance of 2
    updates, after = tx.update(grads, state, params)
    np.testing.assert_allclose(updates["a"].astype(jnp.float32), np.array([1.0, 2.0]), rtol=1e-2)
    np.testing.assert_allclose(updates["b"], [2.0], rtol=1e-6)
    # "b" has no gradient now, but its distance counts.
    updates, last = tx.update({**grads, "b": None}, after, params)
    np.testing.assert_allclose(updates["a"].astype(jnp.float32), 3 * np.array([1.5, 3.0]) / np.sqrt(14), rtol=1e-2)
    assert updates["b"] is None
    entry, before = last.links["scale_by_global_rms"], after.links["scale_by_global_rms"]
    np.testing.assert_array_equal(entry["mu"]["b"], before["mu"]["b"])
    assert entry["square"] == 14
