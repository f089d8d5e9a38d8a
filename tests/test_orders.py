"""The orders of a chain: which there are, what they are called, and which are merged."""

import re
from typing import Any

import chainax as cx
import jax.numpy as jnp
import numpy as np
import order_table
import pytest

CLIP, ADAM, DECAY, LR = (
    cx.clip_by_global_norm(1.0),
    cx.scale_by_adam(),
    cx.add_decayed_weights(0.1),
    cx.scale_by_lr(0.1),
)
PARAMS = {"w": np.array([[1.0, -2.0], [0.5, 3.0]], np.float32), "b": np.array([0.5, -0.25], np.float32)}


@pytest.fixture(scope="module")
def adamw() -> cx.Orders:
    """Those of AdamW with a clip."""
    return cx.orders(cx.chain(CLIP, ADAM, DECAY, LR), ["add_decayed_weights", "clip_by_global_norm"], PARAMS)


def test_orders_of_adamw(adamw: cx.Orders) -> None:
    """Behind the rate neither can stand. In front of it clip, decay and Adam have 3! orders, none like another."""
    assert dict(adamw) == {
        "decoupled, clip before scale_by_adam": cx.chain(CLIP, ADAM, DECAY, LR),
        "coupled, clip before the decay": cx.chain(CLIP, DECAY, ADAM, LR),
        "decoupled, clip before the decay": cx.chain(ADAM, CLIP, DECAY, LR),
        "coupled, clip before scale_by_adam": cx.chain(DECAY, CLIP, ADAM, LR),
        "decoupled, clip before scale_by_lr": cx.chain(ADAM, DECAY, CLIP, LR),
        "coupled, clip before scale_by_lr": cx.chain(DECAY, ADAM, CLIP, LR),
    }
    assert adamw.original == next(iter(adamw))
    assert set(adamw.same.values()) == {()}
    same, *others = adamw.differences.values()
    assert same == 0
    assert min(others) > 0.01


def test_they_print_as_a_table(adamw: cx.Orders) -> None:
    """A line each, and none for what is not there."""
    head, first, *others = str(adamw).splitlines()
    assert re.split("  +", head) == ["name", "updates differ by", "order"]
    assert re.split("  +", first)[1:] == [
        "the original",
        "clip_by_global_norm → scale_by_adam → add_decayed_weights → scale_by_lr",
    ]
    assert len(others) == 5
    assert all(re.search(r"  \d[\d.]* %  ", line) for line in others)
    assert repr(adamw).startswith("Orders('decoupled, clip before scale_by_adam', ")


def test_they_can_be_swept(adamw: cx.Orders) -> None:
    """By name."""

    def train(tx: Any) -> Any:
        p = jnp.ones(2)
        return tx.step(p, tx.init(p), p)[0]

    table = cx.sweep(train, adamw, progress=False)
    assert table["name"].tolist() == list(adamw)
    assert table["result"].shape == (6, 2)


NAMES: dict[str, tuple[Any, Any, list[str]]] = {
    "one decay": (cx.chain(ADAM, DECAY, LR), None, ["decoupled", "coupled"]),
    "one clip": (cx.chain(CLIP, ADAM, LR), None, ["before scale_by_adam", "before scale_by_lr"]),
    "L2": (cx.chain(cx.clip(0.01), DECAY, LR), ["add_decayed_weights"], ["decoupled", "L2"]),
    "independent": (cx.chain(ADAM, LR, cx.decay_after_step(0.1)), None, ["independent"]),
    "of one kind": (
        cx.chain(DECAY, cx.trace(0.9), ADAM, LR),
        None,
        ["before trace", "before scale_by_adam", "before scale_by_lr"],
    ),
    "beside the decay": (
        cx.chain(CLIP, DECAY, ADAM, LR),
        ["clip_by_global_norm"],
        ["before the decay", "before scale_by_adam", "before scale_by_lr"],
    ),
    "two of a kind": (
        cx.chain(ADAM, DECAY, cx.chain(other=cx.add_decayed_weights(0.2)), LR),
        ["other"],
        ["decoupled", "coupled"],
    ),
    "in a link": (
        cx.accumulate(cx.chain(ADAM, DECAY, LR), 2),
        ["accumulate/add_decayed_weights"],
        ["decoupled", "coupled"],
    ),
}


@pytest.mark.parametrize("what", NAMES)
def test_names(what: str) -> None:
    """As short as they can be."""
    tx, move, names = NAMES[what]
    tx = cx.chain(tx)
    found = cx.orders(tx, move, PARAMS)
    assert list(found) == names
    assert found[names[0]] == tx


def test_groups_of_a_partition() -> None:
    """A link moves within its own chain; two of them in all combinations."""
    inner = cx.chain(ADAM, DECAY, LR)
    tx = cx.chain(cx.partition(cx.by_path({"b": inner}, default=inner)))
    paths = ["partition/b/add_decayed_weights", "partition/default/add_decayed_weights"]
    found = cx.orders(tx, paths, PARAMS)
    assert len(found) == 4
    assert found.original == next(iter(found))
    one = cx.orders(tx, paths[:1], PARAMS)
    assert list(one) == ["decoupled", "coupled"]
    moved = cx.chain(DECAY, ADAM, LR)
    assert one["coupled"] == cx.chain(cx.partition(cx.by_path({"b": moved}, default=inner)))


def test_what_comes_to_the_same_is_merged() -> None:
    """A centralization commutes with momentum and rate; the original is kept, and the others follow by distance."""
    center, trace = cx.centralize(), cx.trace(0.9)
    found = cx.orders(cx.chain(center, trace, LR), ["centralize"], PARAMS)
    assert dict(found) == {"before trace": cx.chain(center, trace, LR)}
    assert found.same == {"before trace": (cx.chain(trace, center, LR), cx.chain(trace, LR, center))}
    assert [re.split("  +", line)[-1] for line in str(found).splitlines()[1:]] == [
        "centralize → trace → scale_by_lr",
        "trace → centralize → scale_by_lr",
        "trace → scale_by_lr → centralize",
    ]


INNER = cx.chain(CLIP, ADAM, DECAY, LR)


@pytest.mark.parametrize("tx", (cx.accumulate(INNER, 8), cx.chain(INNER, cx.apply_every(8))), ids=("inner", "summed"))
def test_orders_of_what_has_not_stepped_are_not_merged(tx: Any) -> None:
    """5 steps of 8 show nothing, and the table says so; by default there are as many as two sums need."""
    few = cx.orders(tx, params=PARAMS, steps=5)
    assert len(few) == 6
    assert set(few.same.values()) == {()}
    assert few.undetermined == dict.fromkeys([*few][1:], "all updates are 0 in 5 steps")
    *rows, note = str(few).splitlines()
    assert [re.split("  +", row)[1] for row in rows] == ["updates differ by", "the original", *["undetermined"] * 5]
    assert note == f"not merged, since all updates are 0 in 5 steps: {', '.join(map(repr, [*few][1:]))}"


def test_orders_within_an_accumulation_are_measured() -> None:
    """Over two of its steps, unless told otherwise."""
    found = cx.orders(cx.accumulate(INNER, 4), ["add_decayed_weights"], PARAMS)
    assert not found.undetermined
    assert set(found.same.values()) == {()}
    assert min(far for name, far in found.differences.items() if name != found.original) > 0.01


def test_a_link_that_does_nothing_tells_nothing() -> None:
    """A decay of 0 at any place; but the places of the clip differ, whatever the decay."""
    none = cx.add_decayed_weights(0.0)
    found = cx.orders(cx.chain(CLIP, ADAM, none, LR), ["add_decayed_weights", "clip_by_global_norm"], PARAMS)
    assert len(found) == 6
    assert set(found.undetermined.values()) == {"add_decayed_weights does nothing in 5 steps"}
    assert len(found.undetermined) == 4
    late = cx.add_decayed_weights(cx.piecewise_constant_schedule(0.0, {100: 1.0}))
    assert list(cx.orders(cx.chain(ADAM, late, LR), params=PARAMS).undetermined) == ["coupled"]


def test_an_active_link_moves_past_one_that_does_nothing() -> None:
    """It is merged, since only the moved link must act."""
    found = cx.orders(cx.chain(cx.clip(9.0), cx.trace(0.9), LR), ["trace"], PARAMS, grads=[PARAMS] * 2)
    assert not found.undetermined
    assert [len(same) for same in found.same.values()] == [2]


def test_links_with_one_place_stay() -> None:
    """What reduces the axis of examples is first, and what rounds is last."""
    tx = cx.chain(cx.clip_per_example(1.0), cx.trace(0.9), cx.centralize(), LR, cx.apply_update("kahan"))
    found = cx.orders(tx, ["clip_per_example", "centralize", "apply_update"], PARAMS)
    assert [len(same) for same in found.same.values()] == [2]
    assert not found.undetermined


def test_gradients_and_steps_of_ones_own() -> None:
    """A clip that they never reach is undetermined, and one that they reach has its places."""
    tx = cx.chain(cx.clip(1.0), cx.trace(0.5), LR)
    small = {name: np.full_like(p, 0.01) for name, p in PARAMS.items()}
    large = {name: np.full_like(p, 0.75) for name, p in PARAMS.items()}
    found = cx.orders(tx, params=PARAMS, grads=[small] * 3)
    assert list(found.undetermined) == ["before scale_by_lr"]
    assert found.undetermined["before scale_by_lr"] == "clip does nothing in 3 steps"
    assert not cx.orders(tx, params=PARAMS, grads=[large] * 3).undetermined
    assert cx.orders(tx, params=PARAMS, grads=[large] * 3, steps=1).undetermined
    assert not cx.orders(tx, params=PARAMS, grads=lambda p: p, steps=2).undetermined
    with pytest.raises(ValueError, match=r"`orders\.steps` must be 3 at most"):
        cx.orders(tx, params=PARAMS, grads=[small] * 3, steps=4)
    with pytest.raises(TypeError, match=r"`orders\.grads` must be a list of trees"):
        cx.orders(tx, params=PARAMS, grads=small)


def test_the_closest_stands_for_a_class_without_the_original() -> None:
    """A scale commutes with the momentum and with the rate, and not with the decay and Adam between them."""
    trace, halve = cx.trace(0.9), cx.scale(0.5)
    found = cx.orders(cx.chain(trace, DECAY, halve, ADAM, LR), ["scale"], PARAMS)
    assert dict(found) == {
        "before scale_by_adam": cx.chain(trace, DECAY, halve, ADAM, LR),
        "before the decay": cx.chain(trace, halve, DECAY, ADAM, LR),
        "before scale_by_lr": cx.chain(trace, DECAY, ADAM, halve, LR),
    }
    assert found.same == {
        "before scale_by_adam": (),
        "before the decay": (cx.chain(halve, trace, DECAY, ADAM, LR),),
        "before scale_by_lr": (cx.chain(trace, DECAY, ADAM, LR, halve),),
    }


def test_a_mistake_is_kept_if_it_is_the_original() -> None:
    """Beside what was meant; and no warning comes from within."""
    with pytest.warns(cx.ChainWarning, match="it makes weights grow"):
        tx = cx.chain(ADAM, LR, DECAY)
    found = cx.orders(tx, params=PARAMS)
    assert list(found) == ["after the sign flip", "decoupled", "coupled"]
    assert found["after the sign flip"] == tx


def test_twins_are_one_order() -> None:
    """Two links that are equal do not make twice as many."""
    tx = cx.chain(CLIP, cx.chain(other=CLIP), ADAM, LR)
    assert (
        len(cx.orders(tx, ["clip_by_global_norm", "other"], PARAMS))
        == len(cx.orders(cx.chain(CLIP, ADAM, LR), params=PARAMS)) + 1
    )  # one before Adam, none, or both: two before it are one clip


ADAMW = cx.chain(ADAM, DECAY, LR)
MISTAKES = (
    (TypeError, r"`orders\.tx` must be a chain or a link that holds chains, got 3", 3, None),
    (KeyError, "no link named 'adam'", ADAMW, ["adam"]),
    (TypeError, r"`orders\.move` must be a list of links' names, got 'scale_by_adam': write", ADAMW, "scale_by_adam"),
    (ValueError, r"`orders\.move` is empty, or the chain has no weight decay", cx.chain(ADAM, LR), None),
    (
        ValueError,
        r"`orders\.move`: 5 links have more than 60 orders: move fewer",
        cx.chain(*(cx.clip(x) for x in (1.0, 2.0, 3.0, 4.0, 5.0)), ADAM, LR),
        None,
    ),
)


@pytest.mark.parametrize(("kind", "match", "tx", "move"), MISTAKES)
def test_mistakes(kind: Any, match: str, tx: Any, move: Any) -> None:
    """Each is told in a sentence."""
    with pytest.raises(kind, match=match):
        cx.orders(tx, move)


# The page


ROWS = {line.split("`")[1]: line for line in order_table.PAGE.read_text(encoding="utf-8").splitlines() if "| `" in line}


def test_the_page_has_every_optimizer_and_link() -> None:
    """And its text is that of the generator."""
    assert [*ROWS] == [*order_table.optimizers(), *order_table.links()]
    text = order_table.PAGE.read_text(encoding="utf-8")
    assert text == order_table.written(ROWS.values())


@pytest.mark.parametrize(
    "name", ("adamw", "lars", "sgd", "sgd_ema", "sign_sgd", "add_l1(0.1)", "clip(0.5)", "scale(2)")
)
def test_rows_of_the_page(name: str) -> None:
    """A sample, measured anew."""
    tx = {**order_table.optimizers(), **order_table.links()}[name]
    assert order_table.row(name, tx, order_table.where()) == ROWS[name]
