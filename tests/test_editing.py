"""Edits of links within links, by path, and the differences that they make."""

from collections.abc import Iterator
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import pytest
from registry import REGISTRY

ADAMW = cx.adamw(1e-3)
DECAY, ADAM, RATE = cx.add_decayed_weights(0.01), cx.scale_by_adam(), cx.scale_by_lr(1e-3)
TX = cx.chain(cx.clip_by_global_norm(1.0), cx.accumulate(ADAMW, 4))
FIRST, SECOND = cx.scale_by_lr(0.1), cx.adam(0.2)
GROUPS = cx.partition(cx.by_path({"bias": FIRST, "a/b": SECOND}, default=ADAMW))
GRAFT = cx.graft(direction=ADAMW, magnitude=cx.sgd(0.1))


def accumulated(*links: Any, **named: Any) -> cx.chain:
    """`TX` with another chain within."""
    return cx.chain(cx.clip_by_global_norm(1.0), cx.accumulate(cx.chain(*links, **named), 4))


def grouped(bias: Any = FIRST, second: Any = SECOND, default: Any = ADAMW) -> cx.partition:
    """`GROUPS` with other chains."""
    return cx.partition(cx.by_path({"bias": bias, "a/b": second}, default=default))


EDITS: dict[str, tuple[Any, Any, Any, str]] = {
    "replace fields": (
        TX,
        TX.replace("accumulate/scale_by_adam", b2=0.95),
        accumulated(cx.scale_by_adam(b2=0.95), DECAY, RATE),
        "accumulate/scale_by_adam.b2: 0.999 → 0.95",
    ),
    "replace a link": (
        TX,
        TX.replace("accumulate/scale_by_adam", cx.scale_by_rms()),
        accumulated(cx.scale_by_rms(), DECAY, RATE),
        "scale_by_adam() is removed from accumulate\nscale_by_rms() is added at the front of accumulate",
    ),
    "replace by a chain": (
        TX,
        TX.replace("accumulate/scale_by_adam", cx.chain(cx.scale_by_rms(), cx.trace(0.9))),
        accumulated(cx.scale_by_rms(), cx.trace(0.9), DECAY, RATE),
        "scale_by_adam() is removed from accumulate\nscale_by_rms() is added at the front of accumulate\n"
        "trace(0.9) is added after accumulate/scale_by_rms",
    ),
    "move": (
        TX,
        TX.move("accumulate/add_decayed_weights", before="accumulate/scale_by_adam"),
        accumulated(DECAY, ADAM, RATE),
        "accumulate/add_decayed_weights is moved to the front of accumulate",
    ),
    "move out": (
        TX,
        TX.move("accumulate/add_decayed_weights", after="clip_by_global_norm"),
        cx.chain(cx.clip_by_global_norm(1.0), DECAY, cx.accumulate(cx.adam(1e-3), 4)),
        "add_decayed_weights(0.01) is added after clip_by_global_norm\n"
        "add_decayed_weights(0.01) is removed from accumulate",
    ),
    "move in": (
        TX,
        TX.move("clip_by_global_norm", before="accumulate/scale_by_adam"),
        cx.chain(cx.accumulate(cx.chain(cx.clip_by_global_norm(1.0), ADAMW), 4)),
        "clip_by_global_norm(1) is removed\nclip_by_global_norm(1) is added at the front of accumulate",
    ),
    "insert": (
        TX,
        TX.insert(cx.trace(0.9), after="accumulate/scale_by_adam", name="momentum"),
        accumulated(ADAM, momentum=cx.trace(0.9), add_decayed_weights=DECAY, scale_by_lr=RATE),
        "momentum=trace(0.9) is added after accumulate/scale_by_adam",
    ),
    "insert what is there": (
        TX,
        TX.insert(cx.add_decayed_weights(0.1), before="accumulate/scale_by_adam"),
        accumulated(add_decayed_weights_2=cx.add_decayed_weights(0.1), **ADAMW.links),
        "add_decayed_weights_2=add_decayed_weights(0.1) is added at the front of accumulate",
    ),
    "remove": (
        TX,
        TX.remove("accumulate/add_decayed_weights", "clip_by_global_norm"),
        cx.chain(cx.accumulate(cx.adam(1e-3), 4)),
        "clip_by_global_norm(1) is removed\nadd_decayed_weights(0.01) is removed from accumulate",
    ),
    "rename": (
        TX,
        TX.rename(**{"accumulate/add_decayed_weights": "decay"}),
        accumulated(ADAM, decay=DECAY, scale_by_lr=RATE),
        "add_decayed_weights(0.01) is removed from accumulate\n"
        "decay=add_decayed_weights(0.01) is added after accumulate/scale_by_adam",
    ),
    "a field of the wrapper": (
        TX,
        TX.replace("accumulate", every=8),
        cx.chain(TX[0], cx.accumulate(ADAMW, 8)),
        "accumulate.every: 4 → 8",
    ),
    "in a group": (
        GROUPS,
        GROUPS.replace("default/scale_by_adam", b1=0.8).replace("a/b/scale_by_lr", learning_rate=0.3),
        grouped(second=cx.adam(0.3), default=cx.adamw(1e-3, b1=0.8)),
        "partition/a/b/scale_by_lr.learning_rate: 0.2 → 0.3\npartition/default/scale_by_adam.b1: 0.9 → 0.8",
    ),
    "between groups": (
        GROUPS,
        GROUPS.move("default/add_decayed_weights", before="bias/scale_by_lr"),
        grouped(bias=cx.chain(DECAY, cx.scale_by_lr(0.1)), default=cx.adam(1e-3)),
        "add_decayed_weights(0.01) is added at the front of partition/bias\n"
        "add_decayed_weights(0.01) is removed from partition/default",
    ),
    "a lone link within": (
        GROUPS,
        GROUPS.replace("bias/scale_by_lr", cx.scale(-0.1)),
        grouped(bias=cx.scale(-0.1)),
        "scale_by_lr(0.1) is removed from partition/bias\nscale(-0.1) is added at the front of partition/bias",
    ),
    "of two chains": (
        GRAFT,
        GRAFT.remove("direction/add_decayed_weights").replace("magnitude/scale_by_lr", learning_rate=0.2),
        cx.graft(direction=cx.adam(1e-3), magnitude=cx.sgd(0.2)),
        "add_decayed_weights(0.01) is removed from graft/direction\n"
        "graft/magnitude/scale_by_lr.learning_rate: 0.1 → 0.2",
    ),
    "deep": (
        cx.chain(cx.accumulate(GROUPS, 2)),
        cx.chain(cx.accumulate(GROUPS, 2)).remove("accumulate/partition/default/add_decayed_weights"),
        cx.chain(cx.accumulate(grouped(default=cx.adam(1e-3)), 2)),
        "add_decayed_weights(0.01) is removed from accumulate/partition/default",
    ),
    "another pattern": (
        cx.partition(cx.by_path({"a": cx.sgd(0.1)})),
        cx.partition(cx.by_path({"b": cx.sgd(0.1)})),
        cx.partition(cx.by_path({"b": cx.sgd(0.1)})),
        "partition.table: by_path({'a': chain(scale_by_lr(0.1))}) → by_path({'b': chain(scale_by_lr(0.1))})",
    ),
    "a chain of the link": (
        cx.accumulate(RATE, 2),
        cx.accumulate(cx.chain(RATE), 2),
        cx.accumulate(cx.chain(RATE), 2),
        "accumulate.tx: scale_by_lr(0.001) → chain(scale_by_lr(0.001))",
    ),
    "nothing": (TX, TX.replace("accumulate/scale_by_adam", b2=0.999), TX, "no difference"),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_by_path(name: str) -> None:
    """They make the value that is written out, which `diff` describes, and which prints and is stored as any other."""
    before, edited, wanted, words = EDITS[name]
    assert edited == wanted
    assert repr(edited) == repr(wanted)
    assert before.diff(edited) == words
    assert (edited == before) == (words == "no difference")
    assert eval(repr(edited), dict(vars(cx))) == edited
    assert cx.from_config(cx.to_config(edited)) == edited


def test_edits_leave_the_value_itself() -> None:
    """It is frozen, so what the edits above were made of is as it was."""
    assert accumulated(ADAM, DECAY, RATE) == TX
    assert grouped() == GROUPS
    assert cx.graft(direction=cx.adamw(1e-3), magnitude=cx.sgd(0.1)) == GRAFT


def test_a_link_is_edited_as_in_a_chain() -> None:
    """With the paths of the links that it holds; what comes out is a link again."""
    link = cx.accumulate(ADAMW, 4)
    assert link["scale_by_adam"] == ADAM
    assert "scale_by_adam" in link
    assert ADAM in link
    assert "accumulate" not in link
    for edit in (
        lambda tx, at: tx.replace(f"{at}scale_by_adam", b2=0.9),
        lambda tx, at: tx.replace(f"{at}scale_by_adam", cx.scale_by_rms()),
        lambda tx, at: tx.move(f"{at}add_decayed_weights", before=f"{at}scale_by_adam"),
        lambda tx, at: tx.insert(cx.trace(0.9), after=f"{at}scale_by_adam"),
        lambda tx, at: tx.remove(f"{at}add_decayed_weights"),
        lambda tx, at: tx.rename(**{f"{at}add_decayed_weights": "decay"}),
    ):
        edited = edit(link, "")
        assert edited != link
        assert edit(cx.chain(link), "accumulate/") == cx.chain(edited)
        assert link.diff(edited) == cx.chain(link).diff(cx.chain(edited))
    assert link.replace(every=2) == cx.accumulate(ADAMW, 2)
    assert ADAM.diff(cx.scale_by_adam(b2=0.9)) == "scale_by_adam.b2: 0.999 → 0.9"


def test_an_edited_chain_is_stepped() -> None:
    """What is moved into another chain acts there: here the decay comes before Adam."""
    tx, params = TX.replace("accumulate", every=1), {"w": jnp.full(3, 2.0)}
    edited = tx.move("accumulate/add_decayed_weights", before="accumulate/scale_by_adam")
    zero = jax.tree.map(jnp.zeros_like, params)
    for chain, step in ((tx, 1e-3 * 0.01 * 2), (edited, 1e-3)):  # the share of the weight, and a whole step of Adam
        moved, _ = chain.step(params, chain.init(params), zero)
        assert (params["w"] - moved["w"]).tolist() == pytest.approx([step] * 3, rel=1e-2)


def walked(tx: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The links of a chain and of the chains within, by path, from `Link.inner`."""
    for name, link in tx.links.items():
        yield where + name, link
        for key, inner in link.inner.items():
            lone = len(link.inner) == 1 and getattr(link, key, None) is inner
            yield from walked(inner, f"{where}{name}/{'' if lone else key + '/'}")


@pytest.mark.filterwarnings("ignore::chainax.ChainWarning")
@pytest.mark.parametrize("tx", REGISTRY, ids=repr)
def test_every_link_has_a_path(tx: Any) -> None:
    """It is found there, and may be replaced by itself; renamed, it is the only difference."""
    chain = cx.chain(**tx.links)
    for path, link in walked(chain):
        assert chain[path] is link
        assert chain.replace(path, link) == chain
        holder, _, name = path.rpartition("/")
        renamed = chain.rename(**{path: "another"})
        assert len(chain.diff(renamed).splitlines()) == 2
        back = renamed.rename(**{f"{holder}/another".removeprefix("/"): name})
        assert [p for p, _ in walked(back)] == [p for p, _ in walked(chain)]
        assert back[path] == link


ALONE = {
    "accumulate": lambda: cx.accumulate(cx.scale_by_lr(0.1), 2).remove("scale_by_lr"),
    "graft": lambda: cx.graft(cx.scale_by_adam(), cx.scale(1.0)).remove("direction/scale_by_adam"),
    "partition": lambda: cx.partition(cx.by_path({"b": cx.scale(2.0)}, default=cx.scale(1.0))).remove("b/scale"),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_chain_of_one_link_may_become_empty(name: str) -> None:
    """As other chains may."""
    assert any(tx == cx.chain() for tx in ALONE[name]().inner.values())


def test_one_path_for_two_links_is_refused() -> None:
    """Patterns may contain what separates names."""
    inner = cx.chain(b=cx.accumulate(cx.chain(c=cx.scale(3.0)), 2))
    tx = cx.chain(cx.partition(cx.by_path({"a": inner, "a/b": cx.chain(c=cx.scale(5.0))}, default=cx.scale(1.0))))
    with pytest.raises(KeyError, match="several links have the path 'partition/a/b/c'"):
        tx["partition/a/b/c"]
