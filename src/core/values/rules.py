"""Tables by rule: factors that follow from the depth of a parameter's layer, or from its width."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .contents import brief, code
from .errors import PlainKeyError
from .matrices import check_matrices, matrices
from .schedule import number_or_schedule
from .tables import Keyed, Shape, Table, check_pattern, compiled, first_match, shapes_of
from .types import HyperValue
from .value import make, number, static, value


class Rule(Table):
    """A table whose entries are the field ``value`` times a factor for each parameter."""

    value: Any

    def entry(self, choice: Any) -> HyperValue:
        factor = self.factor(choice)
        return self.value if isinstance(factor, (int, float)) and factor == 1 else self.value * factor

    def factor(self, choice: Any) -> Any:
        """The factor for what `choose` returned."""
        return choice

    def map(self, change):
        return make(type(self), **{**vars(self), "value": change(f"{type(self).__name__}.value", self.value)})

    def summary(self) -> str:
        shown = [f"{f.name}={_short(getattr(self, f.name))}" for f in dataclasses.fields(self)]  # pyright: ignore[reportArgumentType]
        return f"{type(self).__name__}({', '.join(shown)})"


def _check_layer(where: str, x: Any, limits: None) -> str:
    check_pattern(where, x)
    if compiled(x).groups != 1:
        raise ValueError(f"`{where}` must have one group, around the layer's number, as in 'block_(\\d+)', got {x!r}")
    return x


def _check_bottom(where: str, x: Any, limits: None) -> str:
    check_pattern(where, x)
    return x


@value
class by_depth(Rule):
    """``value`` times a power of ``decay`` for each layer below the top. Clark et al. 2020, arXiv:2003.10555.

    Layer-wise decay of the learning rate in fine-tuning, as BEiT and MAE have it: the exponent of layer i of L, counted
    from 0, is L − i. That of parameters whose path matches ``bottom``, the embeddings, is L + 1, and that of all
    others, the head and the last normalization, is 0. ``layer`` is a regular expression with the number of the layer as
    its group. As a factor it goes into the chain by ``tx.insert(scale(by_depth(0.75, layers=12)),
    before="scale_by_lr")``; with the rate as ``value`` it is itself a learning rate.

    Errors: ``KeyError`` for a layer from ``layers`` on. Warns (`ChainWarning`) if no path has the number of a layer, as
    when `jax.lax.scan` or ``flax.nnx.vmap`` stacks layers in one array, which has one factor.

    >>> import jax, chainax as cx
    >>> tx, ones = cx.scale(cx.by_depth(0.5, layers=2)), jax.numpy.ones(())
    >>> updates = {"embed": ones, "layer_0": ones, "layer_1": ones, "head": ones}
    >>> jax.tree.map(float, tx.update(updates, tx.init(updates))[0])
    {'embed': 0.125, 'head': 1.0, 'layer_0': 0.25, 'layer_1': 0.5}
    """

    decay: Any = number("factor from a layer to the one below", low=0.0, high=1.0, closed=True, open=True)
    layers: int = static("the number of layers", least=1)
    value: HyperValue = number("what the factors multiply", default=1.0, check=number_or_schedule)
    layer: str = static(
        "where a path has the number of its layer", default=r"(?i:layer|block)s?[_/.]?(\d+)", check=_check_layer
    )
    bottom: str = static(
        "paths of what lies below the layers", default=r"(?i:(?<!un)embed|patch|cls_token|wte|wpe)", check=_check_bottom
    )

    @property
    def expressions(self) -> tuple[str, ...]:
        return self.layer, self.bottom

    def choose(self, path: str, shape: Shape) -> int:
        i = self._number(path)
        if i is None:
            return self.layers + 1 if compiled(self.bottom).search(path) else 0
        if i >= self.layers:
            raise PlainKeyError(
                f"parameter {path!r} is in layer {i}, and by_depth has layers={self.layers}, counted from 0: "
                f"give layers={i + 1} or more"
            )
        return self.layers - i

    def factor(self, choice: int) -> Any:
        return self.decay**choice

    def labelled(self) -> dict[str, HyperValue]:
        layers = {f"layer {i}": self.entry(self.layers - i) for i in range(self.layers)}
        return {"bottom": self.entry(self.layers + 1), **layers, "top": self.entry(0)}

    def unmatched(self, shapes: Mapping[str, Shape]) -> Iterator[str]:
        if all(self._number(path) is None for path in shapes):
            yield f"the pattern {self.layer!r} finds the number of a layer in no path"

    def _number(self, path: str) -> int | None:
        found = compiled(self.layer).search(path)
        return int(found[1]) if found and found[1] else None


RULES = ("adam", "sgd", "decay", "init")
"""What `by_width` may be the factor of."""


def _check_shapes(where: str, x: Any, limits: None) -> tuple[tuple[str, Shape], ...]:
    """Shapes by pattern, of a table {pattern: shape} or of a tree of arrays or shapes."""
    if isinstance(x, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in x):
        x = dict(x)
    if isinstance(x, Mapping) and x and all(map(_is_shape, x.values())):
        for pattern in x:
            check_pattern(where, pattern)
        return tuple((pattern, tuple(map(int, shape))) for pattern, shape in x.items())
    shapes = shapes_of(x)
    if not shapes:
        raise ValueError(
            f"`{where}` must be the parameters of the model at its base width, such as "
            f"jax.eval_shape(model.init, key, batch), or {{pattern: shape}}, got {brief(x)}"
        )
    return tuple(_compact(shapes).items())


def _is_shape(x: object) -> bool:
    return isinstance(x, (tuple, list)) and all(isinstance(n, (int, np.integer)) and n >= 0 for n in x)


def _compact(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes by pattern. Paths that differ in numbers alone share one, if their shapes are equal."""
    alike: dict[str, list[str]] = {}
    for path in shapes:
        alike.setdefault("^" + re.sub(r"\d+", lambda _: r"\d+", re.escape(path)) + "$", []).append(path)
    found: dict[str, Shape] = {}
    for pattern, paths in alike.items():
        one = len(paths) > 1 and len({shapes[path] for path in paths}) == 1
        found |= {pattern: shapes[paths[0]]} if one else {f"^{re.escape(path)}$": shapes[path] for path in paths}
    return found


def _check_words(where: str, x: Any, limits: None) -> Any:
    return None if x is None else check_matrices(where, x)


@value
class by_width(Rule):
    """``value`` times the factor of the maximal update parametrization. Yang et al. 2022, arXiv:2203.03466, Table 3.

    μP: with it the best learning rate of a narrow model is that of a wide one. ``base_shapes`` describes a model that
    is narrower and otherwise the same: its parameters, arrays or as returned by ``jax.eval_shape``, or a dict of shapes
    by pattern. Where the widths are equal, all factors are 1. If a parameter has r times the inputs and s times the
    outputs that it has in the base model, the factor depends on ``rule``:

    - ``"adam"``: 1/r, for the rates of Adam and all optimizers whose updates do not grow with the gradient.
    - ``"sgd"``: s/r, for the rates of SGD, with momentum or without.
    - ``"decay"``: r, for a decoupled weight decay that is multiplied by a rate with the factors of ``"adam"``.
    - ``"init"``: 1/√r where only the inputs grow, as in the last layer, else 1. For parameters as initialized with a
      variance of 1/inputs (``lecun_normal``); an embedding's must not depend on the width.

    For rates, insert ``scale(by_width(base_shapes))`` before the weight decay, which then needs no factor.

    The last axis is taken as the outputs and all others as the inputs. For other parameters name them in ``matrices``,
    in the words of `matrices`, by path if need be: ``"in, head size"`` for queries of several heads, ``", head size"``
    for their bias.

    Errors: ``KeyError`` for a parameter that is not in the base model, has another number of axes there, or several
    input axes that grow; ``TypeError`` in `jax.shard_map`, where each device has a part of a parameter; ``ValueError``
    in `flatten` and `scale_by_galore`, whose chains see other shapes. Warns (`ChainWarning`) about a pattern that no
    path matches.

    >>> import jax, chainax as cx
    >>> base = {"in": jax.numpy.ones((3, 8)), "mid": jax.numpy.ones((8, 8)), "out": jax.numpy.ones((8, 2))}
    >>> wide = {"in": jax.numpy.ones((3, 16)), "mid": jax.numpy.ones((16, 16)), "out": jax.numpy.ones((16, 2))}
    >>> tx = cx.adamw(1e-3).insert(cx.scale(cx.by_width(base)), after="scale_by_adam")
    >>> factors = tx.hyperparams(tx.init(wide), wide)["scale"]["step_size"]
    >>> {path: float(x) for path, x in factors.items()}
    {'in': 1.0, 'mid': 0.5, 'out': 0.5}
    """

    base_shapes: Any = static("the parameters of the base model, or {pattern: shape}", check=_check_shapes)
    value: HyperValue = number("what the factors multiply", default=1.0, check=number_or_schedule)
    rule: str = static("what the factors are for", default="adam", one_of=RULES)
    matrices: Any = static("the axes of inputs and outputs", default=None, check=_check_words)

    reads_ndim = reads_sizes = True

    @property
    def expressions(self) -> tuple[str, ...]:
        words = self.matrices.expressions if isinstance(self.matrices, Table) else ()
        return *(pattern for pattern, _ in self.base_shapes), *words

    def choose(self, path: str, shape: Shape) -> float:
        patterns = tuple(pattern for pattern, _ in self.base_shapes)
        i = first_match(patterns)(path)
        if i == len(patterns):
            raise PlainKeyError(f"the base shapes of by_width have no parameter {path!r}: give those of the same model")
        r, s = self._growth(path, shape, self.base_shapes[i][1])
        factors = {"adam": 1 / r, "sgd": s / r, "decay": r, "init": 1 / math.sqrt(r) if s == 1 else 1.0}
        return factors[self.rule]

    def _growth(self, path: str, shape: Shape, base: Shape) -> tuple[float, float]:
        """How many times the inputs and the outputs are those of the base model."""
        if len(shape) != len(base):
            raise PlainKeyError(f"parameter {path!r} has the shape {shape}, and {base} in the base model of by_width")
        words = self.matrices
        if isinstance(words, Keyed):
            words = words.entry(words.index(path, shape))
        if isinstance(words, matrices):
            try:
                (mine,), (theirs,) = (words.form(x).blocks for x in (shape, base))
            except ValueError as e:
                raise PlainKeyError(f"by_width finds no inputs and outputs in {path!r}: {e}") from None
            if mine.lengths != theirs.lengths:
                raise PlainKeyError(f"{words!r} numbers matrices by an axis of {path!r} that grows with the width")
            return _ratio(mine.m, theirs.m), _ratio(mine.n, theirs.n)
        remedy = f'say which are inputs, by_width(..., matrices=by_path({{{path!r}: matrices("in, head size")}}))'
        if sum(a != b for a, b in zip(shape[:-1], base[:-1])) > 1:
            raise PlainKeyError(f"several axes of {path!r} but the last grow from {base} to {shape}: {remedy}")
        if shape[:-2] != base[:-2] and shape[-2:] == base[-2:]:
            raise PlainKeyError(
                f"the first axes of {path!r} grow from {base} to {shape}, and the last two do not: if they number "
                f"layers, give the base model as many; otherwise {remedy}"
            )
        inputs, outputs = (math.prod(x[:-1]) for x in (shape, base)), (x[-1] if x else 1 for x in (shape, base))
        return _ratio(*inputs), _ratio(*outputs)

    def labelled(self) -> dict[str, HyperValue]:
        return {"base": self.value}

    def unmatched(self, shapes: Mapping[str, Shape]) -> Iterator[str]:
        for pattern, _ in self.base_shapes:
            if not any(compiled(pattern).search(path) for path in shapes):
                yield f"the pattern {pattern!r} of the base shapes matches no parameter"

    def __repr__(self) -> str:
        plain = super().__repr__()
        return plain.replace(code(self.base_shapes), code(dict(self.base_shapes)), 1)


def _ratio(n: int, base: int) -> float:
    return n / base if base else 1.0


def _short(x: object) -> str:
    text = brief(x) if not isinstance(x, tuple) else f"<{len(x)} patterns>"
    return text if len(text) <= 60 else f"{text[:57]}..."
