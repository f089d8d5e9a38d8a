"""QK-clip: attention logits are bounded by the projections that make them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...core.facade.link import Treewise, transform
from ...core.values.contents import code
from ...core.values.errors import PlainKeyError
from ...core.values.hyper import Hyper, hyper
from ...core.values.matrices import check_matrices, matrices
from ...core.values.tables import Keyed, by_path, pick
from ...core.values.tree import Flat, flatten, show
from ...core.values.value import static


def _check_powers(where: str, x: Any, limits: None) -> by_path:
    if not isinstance(x, by_path) or not x.of_numbers or x.default not in (None, 0):
        raise ValueError(
            f"`{where}` must be by_path of numbers, and 0 by default, such as by_path({{'query': 0.5, 'key': 0.5}}), "
            f"got {code(x)}"
        )
    return by_path(x.table, default=0.0).map(lambda label, power: _check_power(f"{where}`: `{label}", power))


def _check_power(where: str, x: Any) -> float:
    if not isinstance(x, float) or not 0 <= x <= 1:
        raise ValueError(f"`{where}` must be a number in [0, 1], got {code(x)}")
    return x


@transform
class qk_clip(Treewise):
    """Shrink the query and key projections of heads with large logits. Kimi Team 2025, arXiv:2507.20534, Algorithm 1.

    ``update`` and ``step`` require ``max_logits``: the largest attention logit of each head in the batch, or of all. It
    is an array, or a tree of arrays whose paths begin those of the parameters, ``{"layer_0/attention": logits}``;
    ``None`` clips nothing, and neither do logits that are not finite: `skip_nonfinite` rejects such steps. Place the
    link after `scale_by_lr`.

    ``powers`` has the power of s by path: 1/2 for queries and keys, and 1 for the rotary part of queries if all heads
    share that of the keys. Other parameters are unchanged. ``matrices`` says which axis of a projection numbers the
    heads, after that of the layers if these are in one array; the logits have these axes. If several query heads, one
    after the other, share a key, it has the smallest s of them.

    Errors: ``KeyError`` for a projection without logits, ``TypeError`` if their shape is not that of the heads.

    >>> import jax.numpy as jnp, chainax as cx
    >>> tx = cx.chain(cx.scale_by_lr(0.1), cx.qk_clip(cx.by_path({"query": 0.5, "key": 0.5})))
    >>> params = {"query": jnp.ones((1, 2, 1)), "key": jnp.ones((1, 2, 1))}
    >>> zeros = {"query": jnp.zeros((1, 2, 1)), "key": jnp.zeros((1, 2, 1))}
    >>> params, _ = tx.step(params, tx.init(params), zeros, max_logits=jnp.array([50.0, 400.0]))
    >>> params["query"].ravel().tolist()
    [1.0, 0.5]
    """

    powers: Any = static("by_path({pattern: power of s})", check=_check_powers)
    max_logit: Hyper = hyper("τ", "the largest logit that is not reduced", default=100.0, open=True)
    matrices: Any = static("the axes of each projection", default=matrices("in, _head size"), check=check_matrices)

    equation = "s = τ / max(τ, largest logit),  u ← s^p·(θ + u) − θ for each head"
    role = "project"
    reads_params = True
    extra = ("max_logits",)

    def update_tree(self, updates, state, params, at):
        if at.extra["max_logits"] is None:
            return updates, state
        flat, logits = flatten(params), flatten(at.extra["max_logits"])
        us = flat.line_up("The updates", updates)
        for i, (path, p) in enumerate(flat.items()):
            k = self.powers.find(path)
            if us[i] is not None and k < len(self.powers.entries):
                s = self.shares(path, p, logits)
                # As in θ ← sᵖ(θ + u), and exactly u where s = 1.
                us[i] = us[i] + (s ** self.powers.entries[k] - 1).astype(p.dtype) * (p + us[i])
        return flat.build(us), state

    def shares(self, path: str, p: jax.Array, logits: Flat) -> jax.Array:
        """The s of each number of a projection."""
        words = self.matrices
        if isinstance(words, Keyed):
            _, words = pick("qk_clip.matrices", words, path, p.shape)
        try:
            form = words.form(p.shape)
        except ValueError as e:
            raise TypeError(
                f"Link 'qk_clip' finds no heads in {path!r}, {show(p)}, which {e}: name its axes, "
                'qk_clip(..., matrices=matrices("in, _head size"))'
            ) from None
        if form.ends:
            raise TypeError(f"Link 'qk_clip' cannot clip parts of a parameter, and {words!r} divides {path!r}")
        (block,) = form.blocks
        known = {at: x for at, x in logits.items() if x is not None and f"{path}/".startswith(at and f"{at}/")}
        if not known:
            raise PlainKeyError(
                f"Link 'qk_clip' clips {path!r}, but max_logits has nothing at the beginning of this path: "
                f"its paths are {', '.join(map(repr, logits.paths))}"
            )
        largest = jnp.asarray(known[max(known, key=len)], p.real.dtype)
        heads, got = block.lengths, largest.shape
        if got and not heads:
            example = ""
            if p.ndim == 3:
                example = ', such as "in, _head size"'
            elif p.ndim == 2 and len(got) == 1 and p.shape[1] % got[0] == 0:
                example = f', matrices("in, _head*size", head={got[0]})'
            raise TypeError(
                f"Link 'qk_clip' finds no heads in {path!r}, {show(p)}, of {words!r}, for max_logits {show(largest)}: "
                f"name their axis in qk_clip(..., matrices=...), after an underscore{example}"
            )
        if got:
            if len(got) != len(heads) or got[:-1] != heads[:-1] or got[-1] % heads[-1]:
                raise TypeError(
                    f"Link 'qk_clip' needs max_logits of shape {list(heads)} for {path!r}, got {show(largest)}"
                )
            largest = largest.reshape(*heads, -1).max(-1)
        largest = jnp.broadcast_to(largest, heads)
        s = self.max_logit / jnp.maximum(self.max_logit, largest)
        s = jnp.where(jnp.isfinite(largest), s, 1.0)
        axes = [n if i in block.batch else 1 for i, n in enumerate(block.expanded)]
        return jnp.broadcast_to(s.reshape(axes), block.expanded).reshape(p.shape)
