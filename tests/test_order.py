"""What the order of two links means: each order keeps what both links promise, or a warning says what it breaks.

The promises are facts about a chain of the two links and a descent, each tried on a bowl: that a decay shrinks the
parameters, that the learning rate scales the step, that an average is one of the parameters, and so on.
"""

import functools
import itertools
import math
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.core.facade.order import ROLES, problems
from registry import LINKS, edited, given, in_pairs, links_of

LINK_OF: dict[str, cxe.Link] = {
    "loss_scale": cx.dynamic_loss_scale(4.0, growth_interval=1.0),
    "gradient": cx.sharpness_aware(1e-3),
    "guard": cx.skip_nonfinite(),
    "clean": cx.zero_nans(),
    "clip": cx.clip_by_global_norm(0.05),
    "noise": cx.add_noise(1e-6),
    "decay": cx.add_decayed_weights(0.1),
    "penalty": cx.add_l1(0.1),
    "accumulate": cx.trace(0.9),
    "precondition": cx.scale_by_rms(0.5),
    "align": cx.cautious(),
    "scale": cx.scale(2.0),
    "descend": cx.scale_by_lr(0.1),
    "search": cx.scale_by_backtracking_linesearch(5, decrease_factor=0.4, max_learning_rate=4.0, store_grad=True),
    "decay_after": cx.decay_after_step(1e-5),
    "project": cx.keep_params_nonnegative(),
    "average": cx.ema_params(0.0),
    "record": cx.record("norm"),
    "other": cx.centralize(),
    # Of other roles, but known to the rules.
    "scale that undoes scales": cx.scale_by_trust_ratio(),
    "clip that hides infinity": cx.clip(0.05),
}
START = np.array([5.0, 4.0])
STEEP = np.array([1.0, 0.5])


def loss(p: Any) -> jax.Array:
    """A bowl whose lowest point is 0."""
    return 0.5 * jnp.sum(jnp.asarray(STEEP, p.dtype) * jnp.square(p))


def run(tx: Any, gradients: list[Any], start: Any = START, there: Any = None) -> Iterator[tuple]:
    """Parameters and state after each step. The gradients, ``None`` for the bowl's own, are scaled as the loss is.

    Those of ``grad_fn`` are the same, or ``there``; behind a loss scale they are of the loss itself.
    """
    p, names = jnp.asarray(start, jnp.float32), list(tx.links)
    state = tx.init(p)
    both = "sharpness_aware" in names and "dynamic_loss_scale" in names
    inside = both and names.index("sharpness_aware") > names.index("dynamic_loss_scale")
    for g in gradients:
        value, true = jax.value_and_grad(loss)(p)
        g = true if g is None else jnp.asarray(g, p.dtype)
        scale = cx.loss_scale(state) if "dynamic_loss_scale" in names else jnp.ones(())
        again = jnp.asarray(g if there is None else there, p.dtype) * (jnp.ones(()) if inside else scale)
        known = {"value": value, "grad": true, "value_fn": loss, "grad_fn": lambda x, again=again: again}
        read = {name for link in tx.links.values() for name in link.extra}
        p, state = tx.step(p, state, scale * g, **{n: known[n] for n in read})
        yield p, state


def moves(tx: Any, gradients: list[Any], **options: Any) -> np.ndarray:
    """By how much each step moves the parameters."""
    points = [options.get("start", START), *(p for p, _ in run(tx, gradients, **options))]
    return np.diff(np.asarray(points, np.float64), axis=0)


SLOPE = START * STEEP


def descends(tx: Any) -> bool:
    """Twice the learning rate is about twice the step, downhill."""
    doubled = tx.replace("scale_by_lr", learning_rate=0.2)
    once, twice = (moves(t, [10 * SLOPE], start=10 * START)[0] for t in (tx, doubled))
    return bool(np.all((twice - once) / once > 0.4) and np.all(once < 0))


def ignores_scale(tx: Any) -> bool:
    """A hundred times the gradient is no more than a few times the step."""
    small, large = (moves(tx, [c * SLOPE, c * SLOPE])[1] for c in (0.01, 1.0))
    return bool(np.all(np.abs(large) < 5 * np.abs(small)))


def bounds(tx: Any) -> bool:
    """A thousand times the gradient is no more than a few times the step."""
    small, large = (moves(tx, [c * SLOPE])[0] for c in (1.0, 1000.0))
    return bool(np.linalg.norm(large) < 10 * np.linalg.norm(small))


def shrinks(name: str) -> Callable[[Any], bool]:
    """With the link the parameters come nearer to 0 than without, where no gradient speaks against it."""

    def promise(tx: Any) -> bool:
        g = (1e-6 if "cautious" in tx.links else 0.0) * SLOPE
        with_it, without = (moves(t, [g], start=10 * START)[0] for t in (tx, tx.remove(name)))
        return bool(np.all(with_it - without < -1e-5))

    return promise


def remembers(tx: Any) -> bool:
    """The second step depends on the first gradient."""
    firsts = np.array([[0.005, 0.02], [0.02, 0.005]])
    one, other = (moves(tx, [first, 0.005 * SLOPE], start=10 * START)[1] for first in firsts)
    return bool(np.linalg.norm(one - other) > 1e-4)


def agrees(tx: Any) -> bool:
    """What a momentum would carry on against the gradient is held back."""
    if "trace" not in tx.links:
        return True
    gradients = [np.array([1.0, 1.0]), np.array([-0.1, 1.0])]
    held, carried = (moves(t, gradients, start=10 * START)[1][0] for t in (tx, tx.remove("cautious")))
    return bool(abs(held) < 0.5 * abs(carried) or held > 0)


def is_noisy(tx: Any) -> bool:
    """Another seed, another step."""
    seeds = [tx.replace("add_noise", seed=seed) for seed in (0, 1)]
    one, other = (moves(t, [0.005 * SLOPE] * 2)[1] for t in seeds)
    return bool(np.linalg.norm(one - other) > 1e-5 * np.linalg.norm(one))


def multiplies(tx: Any) -> bool:
    """Twice the factor is about twice the step, unless another link goes by proportions."""
    if {"scale_by_rms", "scale_by_trust_ratio", "clip", "clip_by_global_norm"} & tx.links.keys():
        return True
    once, twice = (moves(t, [SLOPE])[0] for t in (tx, tx.replace("scale", step_size=4.0)))
    return bool(np.all((twice - once) / once > 0.5))


def cleans(tx: Any) -> bool:
    """A NaN stops its coordinate for one step, and no other."""
    first, second = moves(tx, [np.array([np.nan, SLOPE[1]]), SLOPE])
    return bool(np.all(np.isfinite([first, second])) and first[1] < 0 and second[0] < 0)


def refuses(tx: Any) -> bool:
    """An infinite gradient moves nothing, the count included."""
    p, state = next(run(tx, [np.array([np.inf, SLOPE[1]])]))
    return bool(np.all(p == START) and state.step == 0)


def undoes_the_loss_scale(tx: Any) -> bool:
    """The run with scaled gradients is that without them, also when the scale has changed; an overflow lowers it."""
    plain = tx.remove("dynamic_loss_scale")
    same = np.allclose(moves(tx, [SLOPE] * 3), moves(plain, [SLOPE] * 3), rtol=1e-4, atol=1e-6)
    bad = [np.array([x, 1.0]) for x in (np.inf, np.nan)]
    states = [next(run(tx, [g]))[1] for g in bad]
    if "sharpness_aware" in tx.links:
        states += [next(run(tx, [SLOPE], there=g))[1] for g in bad]
    return bool(same and all(cx.loss_scale(state) == 2.0 for state in states))


def stays_nonnegative(tx: Any) -> bool:
    """However large the gradient, and however near to 0."""
    fast = tx.replace("scale_by_lr", learning_rate=10.0)
    return all(bool(jnp.all(p >= 0)) for p, _ in run(fast, [1000 * SLOPE] * 3, start=1e-3 * START))


def averages(tx: Any) -> bool:
    """The average of the last parameters alone is the parameters, also where the step is large or NaN."""
    return all(
        np.allclose(state.links["ema_params"]["average"], p, rtol=1e-6, equal_nan=True)
        for g in (SLOPE, 1000 * SLOPE, np.array([np.nan, 1.0]))
        for p, state in run(tx, [g, g])
    )


def finds_the_step(tx: Any) -> bool:
    """The value that it kept is that of the parameters, and no higher than before; at first it is lower."""
    kept = [float(loss(START))]
    for p, state in run(tx, [None] * 3):
        kept.append(float(state.links["scale_by_backtracking_linesearch"]["value"]))
        if not math.isclose(kept[-1], float(loss(p)), rel_tol=1e-5):
            return False
    return kept[1] < kept[0] and all(later <= before for before, later in itertools.pairwise(kept))


def keeps_its_statistics(tx: Any) -> bool:
    """The norm of what has passed."""
    *_, (_, state) = run(tx, [SLOPE, SLOPE])
    return float(cx.recorded(tx, state)["record"]["norm"]) > 0


PROMISES: dict[str, Callable[[Any], bool]] = {
    "loss_scale": undoes_the_loss_scale,
    "guard": refuses,
    "clean": cleans,
    "clip": bounds,
    "noise": is_noisy,
    "decay": shrinks("add_decayed_weights"),
    "penalty": shrinks("add_l1"),
    "accumulate": remembers,
    "precondition": ignores_scale,
    "scale": multiplies,
    "align": agrees,
    "descend": descends,
    "search": finds_the_step,
    "decay_after": shrinks("decay_after_step"),
    "project": stays_nonnegative,
    "average": averages,
    "record": keeps_its_statistics,
    "scale that undoes scales": ignores_scale,
    "clip that hides infinity": bounds,
}


LATE = ("search", "decay_after", "project", "average")  # roles that stand behind a descent


def chains(first: str, second: str) -> Iterator[tuple[list[str], Any]]:
    """The two links in this order, with a descent where it belongs; with two, if this order has no such place."""
    late = [LINK_OF[name].role in LATE for name in (first, second)]
    places = {(False, False): (2,), (False, True): (1,), (True, True): (0,), (True, False): (0, 2)}[late[0], late[1]]
    pairs = [[first, second]]
    if "descend" not in pairs[0]:
        pairs = [[*pairs[0][:i], "descend", *pairs[0][i:]] for i in places]
    for names in pairs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield names, cx.chain(*(LINK_OF[name] for name in names))


def test_every_role_has_a_link_here() -> None:
    """But for the end of a chain, which can stand nowhere else."""
    assert {link.role for link in LINK_OF.values()} == ROLES.keys() - {"apply"}


@pytest.mark.parametrize("first", LINK_OF)
def test_an_order_keeps_what_its_links_promise_or_warns(first: str) -> None:
    """Both ways round: where there is no warning all promises hold, and where there is one, one is broken."""
    with jax.disable_jit():
        for second in LINK_OF:
            if LINK_OF[first].role == LINK_OF[second].role:
                continue
            for names, tx in chains(first, second):
                broken = [name for name in names if name in PROMISES and not PROMISES[name](tx)]
                assert bool(broken) == bool(problems(tx.links)), (names, broken, problems(tx.links))


MOVED = re.compile(r"move '(\w+)' (before|after|to the front)( '(\w+)')?")


def remedied(tx: cx.chain, problem: str) -> cx.chain:
    """The chain with one problem's remedy."""
    if "remove one of them" in problem:
        return tx.remove("zero_nans")
    found = MOVED.search(problem)
    assert found, problem
    name, how, _, other = found.groups()
    return tx.move(name, **({"before": tx.names[0]} if other is None else {how: other}))


@pytest.mark.parametrize("first", LINK_OF)
def test_every_remedy_helps(first: str) -> None:
    """Done one after the other, as often as there is something to do, they leave a chain without a warning."""
    for second in LINK_OF:
        if LINK_OF[first].role != LINK_OF[second].role:
            for _, tx in chains(first, second):
                for _ in range(4):
                    found = problems(tx.links)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        tx = remedied(tx, found[0]) if found else tx
                assert not problems(tx.links)


def test_a_second_loss_scale_breaks_what_both_promise() -> None:
    """The gradient is scaled once, and divided twice."""
    scale, sgd = cx.dynamic_loss_scale(4.0), cx.sgd(0.1)
    with pytest.warns(cx.ChainWarning, match="divides by the scale of the loss again"):
        tx = cx.chain(scale, scale, sgd)
    p, g = jnp.asarray(START, jnp.float32), jnp.asarray(SLOPE, jnp.float32)
    once, twice = (t.update(4 * g, t.init(p), p)[0] for t in (cx.chain(scale, sgd), tx))
    np.testing.assert_allclose(once, -0.1 * g, rtol=1e-6)
    np.testing.assert_allclose(twice, -0.1 * g / 4, rtol=1e-6)


def test_long_chains_are_checked_at_once() -> None:
    """In time that grows as the chain does."""
    tx, begun = cx.chain(**{f"link_{i}": cx.scale(1.0) for i in range(1000)}), time.process_time()
    assert not problems(tx.links)
    assert time.process_time() - begun < 1.0


def test_what_no_rule_can_tell_is_silent() -> None:
    """A clip of each coordinate behind a norm, a guard that gives up, a link of a role that nobody named."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cx.chain(cx.normalize_by_update_norm(), cx.clip(0.7), cx.scale_by_lr(0.1))
        clip, sgd = cx.clip_by_global_norm(1.0), cx.sgd(0.1)
        cx.chain(cx.restart(cx.chain(cx.scale_by_sign(), cx.trace(0.9)), 9), clip, sgd)
        cx.chain(cx.scale_by_sign(), cx.restart(cx.chain(cx.trace(0.9), clip, sgd), 9))
        cx.chain(cx.partition(cx.by_path({"a": cx.scale_by_sign()}, default=cx.trace(0.9))), clip, sgd)
        guarded = cx.chain(cx.skip_nonfinite(), sgd)
        cx.chain(cx.partition(cx.by_path({"a": guarded}, default=sgd)), cx.zero_nans())
        cx.chain(cx.partition(cx.by_path({"a": cx.clip(1.0)}, default=cx.chain())), guarded)
        cx.chain(cx.scale_by_sign(), cx.accumulate(cx.chain(clip, sgd), 4))  # a mean of signs is not a sign
        cx.chain(cx.skip_nonfinite(2), cx.zero_nans(), cx.scale_by_lr(0.1))
        tx = cx.chain(cx.clip(1.0), mine())
        assert tx.step(jnp.ones(()), tx.init(jnp.ones(())), jnp.ones(()))[0] < 1


@cxe.transform
class mine(cxe.Leafwise):
    """A descent whose author did not say what it is for."""

    equation = "u ← −u/10"

    def leaf(self, u, slot, p, scalars):
        return -0.1 * u


# What links declare for the rules


def update_trail(tx: Any, gradients: list[np.ndarray]) -> list[np.ndarray]:
    """The updates that a link makes of gradients, one after the other."""
    p = jnp.asarray([[0.5, -1.0], [2.0, 0.1]], jnp.float32)
    state, updates = tx.init(p), []
    for k, g in enumerate(gradients):
        u, state = tx.update(jnp.asarray(g, jnp.float32), state, p * (1 + 0.1 * k))
        updates.append(np.asarray(u))
    return updates


FACTORS = [(tx, name, link) for tx in LINKS for name, link in tx.links.items() if link.factor_field]
DECAYS = [(tx, name, link) for tx in LINKS for name, link in tx.links.items() if link.decay_field]


def with_field(tx: Any, name: str, field: str, x: float) -> Any:
    """The value with another number in a field of one link, and the extra arguments that it is given."""
    return edited(tx, lambda chain: cx.chain(**chain.links).replace(name, **{field: x}))


@pytest.mark.parametrize(("tx", "name", "link"), FACTORS, ids=lambda x: repr(x) if isinstance(x, cxe.Link) else "")
def test_factors_are_what_links_do(tx: Any, name: str, link: cxe.Link) -> None:
    """Where the factor is 0 no update is left."""
    p, g = jnp.ones(3), jnp.asarray([1.0, -2.0, 3.0])
    still = with_field(tx, name, link.factor_field, 0.0)
    assert not np.any(still.update(g, still.init(p), p)[0])
    assert np.any(tx.update(g, tx.init(p), p)[0])


@pytest.mark.parametrize(("tx", "name", "link"), DECAYS, ids=lambda x: repr(x) if isinstance(x, cxe.Link) else "")
def test_decays_are_what_links_do(tx: Any, name: str, link: cxe.Link) -> None:
    """From the same gradients, steps are others with a decay of 0.5 than with one of 0."""
    p, ends = jnp.asarray([1.0, -2.0, 3.0]), []
    for decay in (0.0, 0.5):
        changed = with_field(tx, name, link.decay_field, decay)
        state, updates = changed.init(p), []
        for g in jnp.asarray([[1.0, 1.0, 1.0], [2.0, -1.0, 1.0], [1.0, 0.5, 1.0]]):
            u, state = changed.update(g, state, p)
            updates.append(u)
        ends.append(np.stack(updates))
    assert np.any(np.abs(ends[0] - ends[1]) > 1e-6)


def test_every_weight_decay_is_declared() -> None:
    """What is called so is one, or a penalty."""
    links = [link for tx in LINKS for link in links_of(tx)]
    assert [x for x in links if hasattr(x, "weight_decay") and not x.decay_field and x.role != "penalty"] == []


@pytest.mark.parametrize(("factor", "climbs"), ((2.0, True), (-2.0, False), (cx.linear_schedule(-1.0, 0.0, 9), False)))
def test_a_factor_whose_sign_is_known_decides_the_direction(factor: Any, climbs: bool) -> None:
    """A negative one is a descent; of one that is a schedule nothing is said."""
    tx = cx.chain(cx.clip(1.0), cx.scale(factor))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tx.step(jnp.ones(3), tx.init(jnp.ones(3)), jnp.ones(3))
    assert bool(caught) == climbs


LONE = [tx for tx in LINKS if len(tx.links) == 1 and not next(iter(tx.links.values())).inner]


@pytest.mark.long
@pytest.mark.parametrize("tx", LONE, ids=repr)
def test_flags_are_what_links_do(tx: Any) -> None:
    """Whether a factor is passed on, whether the norm is always the same, whether infinite numbers come out finite."""
    (link,) = tx.links.values()
    if getattr(link, "can_reject", False) or link.role == "search" or isinstance(link, cx.freeze):
        pytest.skip("it refuses or finds steps, or there are none")
    rng = np.random.default_rng(0)
    gradients = [1.5**k * rng.normal(size=(2, 2)) for k in range(8)]
    with jax.disable_jit():
        small, large = (update_trail(tx, [c * g for g in gradients]) for c in (1.0, 64.0))
        bad = [np.where(np.eye(2) == 1, sign * np.inf, gradients[0]) for sign in (1, -1)]
        spoilt = [update_trail(tx, [*gradients, g, gradients[0]])[8:] for g in bad]
        rising = update_trail(tx, [10.0**e * g for e, g in zip((-4, -3, -2, -1, 0, 2, 3, 4), gradients)])
    norms = [np.linalg.norm(u) for u in (*small[1:], *large[1:], *rising[1:])]  # on both sides of every bound
    fixed = bool(np.ptp(norms) < 1e-2 * max(norms))
    assert link.fixes_norm == fixed, f"{link!r}: declare fixes_norm = {fixed}"
    assert not link.orthogonalizes or max(norms) < 2 * min(norms), f"{link!r}: remove orthogonalizes"
    bounded = link.bounds_size and not link.fixes_norm  # what is beyond the bound comes out as the bound
    if not bounded and link.role != "clip":
        undone = np.linalg.norm(large[-1]) < 16 * np.linalg.norm(small[-1])
        if undone:
            assert link.undoes_scale or link.role == "precondition", f"{link!r}: declare undoes_scale = True"
        else:
            assert not link.undoes_scale, f"{link!r}: remove undoes_scale"
            assert link.role != "precondition", f"{link!r}: a preconditioner divides by the scale, choose another role"
    hidden = any(np.isfinite(updates).all() for updates in spoilt)
    assert link.hides_infinite == hidden, f"{link!r}: declare hides_infinite = {hidden}"


# What is said of the weight decay


def with_decay(tx: Any, place: str) -> Any:
    """The link with a descent, and a decay ``before`` or ``behind`` it or ``nowhere``; ``None`` for a mistake."""

    def edit(tx: Any) -> Any:
        parts, roles = [tx], [link.role for link in tx.links.values()]
        if "descend" not in roles:
            parts.insert(roles[0] not in LATE, cx.scale_by_lr(0.1))
        if place != "nowhere":
            parts.insert(0 if place == "before" else parts.index(tx) + 1, cx.add_decayed_weights(1.0))
        return cx.chain(*parts)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            new = edited(tx, edit)
        except ValueError:  # it must be the first
            return None
    return None if problems(new.links) else new


def said_of_decay(tx: Any) -> str:
    """What `describe` says of it."""
    lines = (tx.tx if isinstance(tx, given) else tx).describe().splitlines()
    return "\n".join(line for line in lines if "weight decay: " in line)


def decayed_trail(tx: Any, share: float = 0.0) -> np.ndarray:
    """Four updates of a chain, from gradients of a loss with this share of ½‖θ‖². What it may ask has all of that."""
    start = {"bias": jnp.asarray([0.3, -0.7]), "kernel": jnp.asarray([[0.5, -1.0], [2.0, 0.1]])}
    state, updates = tx.init(start), []

    def loss(p: Any) -> Any:
        return sum(jnp.sum(jnp.sin(3 * x) + 0.5 * jnp.square(x)) for x in p.values())

    for k in range(4):
        rng, p = np.random.default_rng(k), {name: x * (1 + 0.1 * k) for name, x in start.items()}
        scale = cx.loss_scale(state) if "dynamic_loss_scale" in tx.links else 1.0
        noise = {name: jnp.asarray(rng.normal(size=x.shape), jnp.float32) for name, x in p.items()}
        g, whole = ({name: scale * (noise[name] + part * x) for name, x in p.items()} for part in (share, 1.0))
        known = {"value": 1.0, "weight": 2.0, "grad": whole, "value_fn": loss, "grad_fn": jax.grad(loss), "hessian": p}
        known["max_logits"] = 400.0
        extra = {n: known[n] for link in tx.links.values() for n in link.extra}
        g = tx.examples(g) if isinstance(tx, in_pairs) else g
        u, state = (tx.tx if isinstance(tx, given) else tx).update(g, state, p, **extra)
        updates.append(np.concatenate([u["bias"], u["kernel"].ravel()]))
    return np.stack(updates)


@pytest.mark.long
@pytest.mark.parametrize("tx", LINKS, ids=repr)
def test_what_is_said_of_a_decay_is_so(tx: Any) -> None:
    """Of a decay before a link and of one behind it the same is said exactly if they do the same.

    Where one is said to be as in the loss, it is.
    """
    if any(link.role == "decay" for link in tx.links.values()):
        pytest.skip("what is said is of both decays")
    chains = {place: made for place in ("before", "behind") if (made := with_decay(tx, place))}
    said = {place: said_of_decay(made) for place, made in chains.items()}
    if any("unknown" in line for line in said.values()):
        assert any(link.treewise and link.role == "other" for link in tx.links.values())
        return
    alike = functools.partial(np.allclose, rtol=1e-4, atol=1e-6)
    with jax.disable_jit():
        trails = {place: decayed_trail(made) for place, made in chains.items()}
        in_loss = decayed_trail(with_decay(tx, "nowhere"), share=1.0)
    for place, line in said.items():
        assert "the same as" not in line or "but not by" in line or alike(trails[place], in_loss), line
    if len(said) == 2:
        assert (said["before"] == said["behind"]) == alike(*trails.values()), said
