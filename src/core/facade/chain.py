"""The chain: links by name, in order."""

from __future__ import annotations

import keyword
import operator
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey

from ..engine.protocol import LinkLike
from ..engine.storage import Format, storage
from ..values.contents import code, is_array, same
from ..values.errors import did_you_mean
from ..values.tables import Keyed
from ..values.types import Scalar
from ..values.value import fill, register
from ..values.warning import warn
from . import order
from .edits import Change, Edits, edited, parts, paths, renumbered, unused
from .link import Link, Treewise
from .parts import all_links
from .saving import VERSION_KEY
from .transformation import Transformation

T = TypeVar("T", bound=Transformation)

FormatLike: TypeAlias = Format | Keyed | str

RESERVED = ("step", "born", VERSION_KEY)
"""Keys of a stored state that are not links."""


@register
class chain(Transformation):
    """Links applied one after the other: an optimizer.

    The links of chains among the arguments are inserted in their place; ``None`` is skipped. A link is named after its
    type (``scale_by_adam``, a second one ``scale_by_adam_2``) unless passed by keyword.

    Errors: ``TypeError`` for an argument that is not a link, ``ValueError`` for a duplicate name. Warns
    (`ChainWarning`) about an order that is almost certainly a mistake, such as weight decay after the sign flip.

    >>> import chainax as cx
    >>> tx = cx.chain(cx.scale_by_adam(), cx.add_decayed_weights(0.1), cx.scale_by_lr(1e-3))
    >>> tx.move("add_decayed_weights", before="scale_by_adam")
    chain(add_decayed_weights(0.1), scale_by_adam(), scale_by_lr(0.001))
    """

    names: tuple[str, ...]
    values: tuple[Link, ...]

    _static = ("names",)
    _leaves = ("values",)

    def __init__(self, /, *links: Transformation | None, **named: Transformation | None) -> None:
        pairs: list[tuple[str, Link]] = []
        for link in links:
            pairs += renumbered(parts(link), [n for n, _ in pairs])
        for name, link in named.items():
            held = parts(link)
            pairs += [(name, held[0][1])] if len(held) == 1 else [(f"{name}_{n}", one) for n, one in held]
        self._fill(pairs)

    def _fill(self, pairs: Iterable[tuple[str, Link]]) -> None:
        pairs = list(pairs)
        names = [name for name, _ in pairs]
        for name in names:
            if not name.isidentifier() or keyword.iskeyword(name) or name in RESERVED:
                raise ValueError(
                    f"a link's name must be an identifier, and none of {', '.join(RESERVED)}, got {name!r}"
                )
            if names.count(name) > 1:
                raise ValueError(f"two links of the chain are named {name!r}: give one another name by keyword")
        ends = {name: last for name, link in pairs if (last := order.ending(name, link))}
        if ends and list(ends) != names[-1:]:
            name, last = next(iter(ends.items()))
            which = repr(name) if last == name else f"{name!r} holds {last!r}, which"
            raise ValueError(f"{which} says how the chain ends: it must be the last link, and the only such one")
        late = [name for name, link in pairs[1:] if link.per_example]
        if late:
            raise ValueError(
                f"{late[0]!r} reduces an axis of examples: it must be the first link, and the only such one"
            )
        fill(self, names=tuple(names), values=tuple(link for _, link in pairs))
        for problem in order.problems(self.links):
            warn(problem)

    def _stored(self, wanted: storage, default: FormatLike | None) -> chain:
        return self._of((name, link._stored(wanted, default)) for name, link in self.links.items())

    @classmethod
    def _of(cls, pairs: Iterable[tuple[str, Link]]) -> chain:
        new = object.__new__(cls)
        new._fill(pairs)
        return new

    @property
    def links(self) -> dict[str, Link]:
        return dict(zip(self.names, self.values))

    # Reading

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Link]:
        return iter(self.values)

    @overload
    def __getitem__(self, key: str | int) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> chain: ...
    def __getitem__(self, key: str | int | slice) -> Any:
        """One link, by name, path or index, or a chain of those in a slice.

        A type checker cannot know the class of the link with some name, so ``tx["scale_by_lr"].learning_rate``
        type-checks as ``Any``: write ``assert isinstance(link, scale_by_lr)`` for more.
        """
        if isinstance(key, slice):
            return self._of(list(self.links.items())[key])
        return super().__getitem__(key) if isinstance(key, str) else self.values[operator.index(key)]

    def _contents(self) -> str:
        return f"the chain is {' → '.join(self.names) or 'empty'}"

    def _linked(self) -> Iterator[tuple[str, Any]]:
        return paths(self.links)

    def _edit(self, change: Change) -> chain:
        return edited(self, change)

    # As a value

    def __repr__(self) -> str:
        return f"chain({', '.join(self._arguments())})"

    def __str__(self) -> str:
        if len(line := repr(self)) <= 88:
            return line
        return "chain(\n" + "".join(f"    {argument},\n" for argument in self._arguments()) + ")"

    def _arguments(self) -> list[str]:
        arguments, keywords, seen = [], False, []
        for name, link in self.links.items():
            keywords = keywords or unused(type(link).__name__, seen) != name
            arguments.append(f"{name}={link!r}" if keywords else repr(link))
            seen.append(name)
        return arguments

    def tree_flatten_with_keys(self) -> tuple[Iterable[tuple[Any, Link]], tuple[str, ...]]:
        return [(GetAttrKey(name), link) for name, link in self.links.items()], self.names

    @classmethod
    def tree_unflatten(cls, aux: tuple[object, ...], children: Iterable[object]) -> chain:
        new = object.__new__(chain)
        fill(new, names=aux, values=tuple(children))
        return new


Edits._chain_of = chain._of


def stack(chains: Iterable[T]) -> T:
    """Stack the hyperparameters of chains with the same structure, for ``jax.vmap(f, in_axes=(tx.axes(), ...))``.

    Hyperparameters with the same value in all chains remain Python numbers, which are compile-time constants; the
    others become arrays of shape ``(number of chains,)``.

    Errors: ``ValueError`` unless the chains have the same links and static fields, and at least one number.

    >>> import chainax as cx
    >>> grid = cx.stack([cx.adamw(lr) for lr in (1e-4, 1e-3, 1e-2)])
    >>> jax.vmap(lambda tx, p: tx.lookahead(p, tx.init(p)), (grid.axes(), None))(grid, 1.0).shape
    (3,)
    """
    chains = list(chains)
    if not chains:
        raise ValueError("stack needs at least one chain")
    structure = jax.tree.structure(chains[0])
    for i, tx in enumerate(chains):
        if jax.tree.structure(tx) != structure:
            raise ValueError(
                f"chains must have the same links and static fields to be stacked; chain {i} differs from chain 0: "
                f"{chains[0]!r} against {tx!r}"
            )

    if not jax.tree.leaves(chains[0]):
        raise ValueError(f"{chains[0]!r} has no numbers to be stacked")
    alike = all(tx == chains[0] for tx in chains)  # then all numbers are stacked, since vmap needs an axis

    def join(*numbers: Scalar) -> Scalar:
        if not alike and all(same(n, numbers[0]) for n in numbers):
            return numbers[0]
        if any(is_array(n) for n in numbers):
            return jnp.stack([jnp.asarray(n) for n in numbers])
        return jnp.asarray(np.array(numbers), jax.dtypes.canonicalize_dtype(np.float64))

    return jax.tree.map(join, *chains)


def store(tx: T, /, default: FormatLike | None = None, **slots: FormatLike) -> T:
    """The same link or chain with its slots stored in other formats between steps.

    A format is the name of a dtype, `int8`, `int4`, `float8`, `companded8`, or `by_path` or `by_ndim` of these.
    ``default`` is the format of slots that are not named. All arithmetic stays in float32. Links that see the whole
    tree at once, such as `scale_by_prodigy`, keep their slots as they are, and a `ChainWarning` names them. The sums,
    projectors and gradients that wrappers and line searches keep stay as they are without a warning.

    Errors: ``ValueError`` for a slot that no link has, and for an unknown format.

    >>> import chainax as cx
    >>> cx.store(cx.adam(1e-3), mu="bfloat16", nu=cx.int8(block=128))
    chain(store(scale_by_adam(), mu='bfloat16', nu=int8(block=128)), scale_by_lr(0.001))
    """
    if not isinstance(tx, Transformation):
        raise TypeError(f"store takes a link or a chain, got {code(tx)}")
    wanted, links = storage(**slots), [link for _, link in all_links(tx)]
    storable = [link for link in links if "storage" in type(link)._static]
    known = sorted({slot for link in storable for slot in link.slots})
    for slot in wanted.slots:
        if slot not in known:
            raise ValueError(
                f"no link has a slot {slot!r}{did_you_mean(slot, known)}; those of {code(tx)} are "
                f"{', '.join(known) or 'none'}"
            )
    kept = {type(x).__name__: None for x in links if _keeps_as_it_is(x) and (x.slots or not storable)}
    if kept and default is not None:
        warn(f"store: no format applies to the state of {', '.join(map(repr, kept))}: it is kept as it is")
    return tx._stored(wanted, default)


def _keeps_as_it_is(link: LinkLike) -> bool:
    """Whether the link has a state of its own that is not stored by slot."""
    return isinstance(link, Treewise) and type(link).init_tree is not Treewise.init_tree and not link.inner
