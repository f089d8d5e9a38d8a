"""Edits of chains, and of links that hold chains, by the names and paths of links. Every edit returns a new value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

from ..engine.protocol import LinkLike, Links
from ..values.contents import code
from ..values.errors import PlainKeyError, did_you_mean, here, unknown_field
from ..values.tables import Keyed
from ..values.value import Value

Pairs: TypeAlias = list[tuple[str, Any]]
"""Links with their names, in order."""
Change: TypeAlias = Callable[[str, Pairs], Pairs]
"""A change of one chain. Takes what precedes its names in the paths of its links, and its links; returns the new ones.
"""


class Edits(Value):
    """What links and chains have in common as containers of links.

    A link within a link has a path: ``"accumulate/scale_by_adam"``, or ``"partition/bias/scale_by_lr"`` if the outer
    one holds several chains, with the field or the pattern of the chain. Paths begin at the value whose method is
    called: for a link with the links that it holds.
    """

    _chain_of: ClassVar[Callable[[Pairs], Any]]
    """Makes a chain. Set by the module of `chain`, which imports this one."""

    @property
    def links(self) -> Links:
        """The links by name, in order."""
        raise NotImplementedError

    def _linked(self) -> Iterator[tuple[str, Any]]:
        """Each link with its path."""
        return _paths_within(self, "")

    def _paths(self) -> dict[str, Any]:
        """The links by path."""
        return dict(self._linked())

    def _edit(self, change: Change) -> Self:
        """The same with ``change`` applied to each chain."""
        return _edited_within(self, change, "")

    # Reading

    def __contains__(self, item: object) -> bool:
        paths = self._paths()
        return item in (paths if isinstance(item, str) else paths.values())

    def __getitem__(self, path: str) -> Any:
        """One link, by name or path.

        >>> import chainax as cx
        >>> cx.chain(cx.accumulate(cx.adam(1e-3), every=4))["accumulate/scale_by_lr"]
        scale_by_lr(0.001)
        """
        if not isinstance(path, str):
            raise TypeError(f"the links that `{type(self).__name__}` holds are taken by name, got {code(path)}")
        paths = self._paths()
        if sum(path == own for own, _ in self._linked()) > 1:
            raise PlainKeyError(f"several links have the path {path!r}: rename one of them in its own chain")
        if path not in paths:
            ends = [repr(p) for p in paths if p.endswith(f"/{path}")]
            hint = f" (did you mean {' or '.join(ends[:3])}?)" if ends else did_you_mean(path, paths)
            raise PlainKeyError(f"no link named {path!r}{hint}; {self._contents()}")
        return paths[path]

    def _contents(self) -> str:
        return f"`{type(self).__name__}` holds {', '.join(self._paths()) or 'no chain'}"

    # Editing

    def move(self, name: str, *, before: str | None = None, after: str | None = None) -> Self:
        """A copy with one link moved, within its chain or into that of ``before`` or ``after``.

        >>> import chainax as cx
        >>> tx = cx.chain(cx.clip_by_global_norm(1.0), cx.accumulate(cx.adam(1e-3), every=4))
        >>> tx.move("clip_by_global_norm", before="accumulate/scale_by_adam")
        chain(accumulate(chain(clip_by_global_norm(1), scale_by_adam(), scale_by_lr(0.001)), 4))
        """
        link = self[name]
        if name in (before, after):
            raise ValueError(f"cannot move {name!r} before or after itself")
        anchor, own = self._anchor(before, after), _own(name)
        if anchor.startswith(f"{name}/"):
            raise ValueError(f"cannot move {name!r} before or after {anchor!r}, which it holds")

        def change(where: str, pairs: Pairs) -> Pairs:
            others = [(n, v) for n, v in pairs if where + n != name]
            return _placed(where, others, lambda taken: [(unused(own, taken), link)], before, after)

        return self._edit(change)

    def insert(
        self, link: Edits, *, before: str | None = None, after: str | None = None, name: str | None = None
    ) -> Self:
        """A copy with a link, or the links of a chain, inserted before or after the link at a path."""
        new = parts(link)
        if name is not None and len(new) != 1:
            raise ValueError(f"a name is for one link, got {len(new)} links and the name {name!r}")
        self._anchor(before, after)

        def named(taken: list[str]) -> Pairs:
            return [(name, new[0][1])] if name else renumbered(new, taken)

        return self._edit(lambda where, pairs: _placed(where, pairs, named, before, after))

    def replace(self, name: str = "", link: Edits | None = None, /, **fields: Any) -> Self:
        """A copy with some fields changed: those of this link, or of the link at a path; or with another link there.

        The new link takes over the name, unless the old link was named after its type. A link may also be replaced by
        the links of a chain.

        >>> import chainax as cx
        >>> cx.adam(1e-3).replace("scale_by_adam", b2=0.95)
        chain(scale_by_adam(b2=0.95), scale_by_lr(0.001))
        >>> cx.accumulate(cx.adam(1e-3), every=4).replace("scale_by_adam", cx.scale_by_rms())
        accumulate(chain(scale_by_rms(), scale_by_lr(0.001)), 4)
        """
        if not name:
            return self._with_fields(fields)
        old = self._replaced(name, link, fields)
        if (link is None) == (not fields):
            raise TypeError("replace takes either another link or fields to change, such as b2=0.95")
        changed = old._with_fields(fields, f"{name}/") if link is None else old
        new = [] if link is None else parts(link)
        keeps = len(new) == 1 and _own(name) != type(old).__name__

        def change(where: str, pairs: Pairs) -> Pairs:
            if not _is_at(where, name):
                return pairs
            if link is None:
                return [(n, changed if where + n == name else v) for n, v in pairs]
            at = next(i for i, (n, _) in enumerate(pairs) if where + n == name)
            others = [n for n, _ in pairs if where + n != name]
            put = [(pairs[at][0], new[0][1])] if keeps else renumbered(new, others)
            return pairs[:at] + put + pairs[at + 1 :]

        return self._edit(change)

    def remove(self, *names: str) -> Self:
        """A copy without these links."""
        for name in names:
            self[name]
        return self._edit(lambda where, pairs: [(n, v) for n, v in pairs if where + n not in names])

    def rename(self, **names: str) -> Self:
        """A copy with links renamed: ``tx.rename(add_decayed_weights="decay")``. The state is keyed by names.

        A path is passed as ``tx.rename(**{"accumulate/add_decayed_weights": "decay"})``.
        """
        for name in names:
            self[name]
        return self._edit(lambda where, pairs: [(names.get(where + n, n), v) for n, v in pairs])

    def _anchor(self, before: str | None, after: str | None) -> str:
        if (before is None) == (after is None):
            raise TypeError(f"say where: before= or after= one of {', '.join(self._paths())}")
        self[anchor := before or after or ""]
        return anchor

    def _with_fields(self, fields: Mapping[str, Any], where: str = "") -> Self:
        """A copy with fields of this value changed; for a chain, which has none, an error.

        ``where`` precedes the paths of the links within in the outermost value.
        """
        known = [*self._static, *self._leaves] if dataclasses.is_dataclass(self) else []
        unknown = [field for field in fields if field not in known]
        if known and not unknown:
            return super().replace(**fields)
        paths = {where + path: link for path, link in self._paths().items()}
        calls = " and ".join(filter(None, (" or ".join(_calls(paths, {field: fields[field]})) for field in unknown)))
        if not dataclasses.is_dataclass(self):
            raise TypeError(f"replace needs the name of a link: {calls or 'one of ' + ', '.join(paths)}")
        if not calls:
            return super().replace(**fields)
        text = unknown_field(type(self).__name__, unknown[0], known)
        raise TypeError(f"{text}. For a link that it holds, write {calls}")

    def _replaced(self, name: object, link: object, fields: Mapping[str, Any]) -> Any:
        """The link that `replace` is to change. Raises for a call that takes a link for a chain."""
        own = type(self).__name__
        if name in (*self._static, *self._leaves) and name not in self._paths() and not fields:
            raise TypeError(f"`{own}` takes its fields by name: replace({name}={code(link)})")
        if name == own and fields and dataclasses.is_dataclass(self) and name not in self._paths():
            arguments = ", ".join(f"{n}={code(x)}" for n, x in fields.items())
            raise TypeError(f"`{own}` is a link, and the name is for links of a chain: write replace({arguments})")
        return self[name]  # pyright: ignore[reportArgumentType]


# Chains within links


class Held(NamedTuple):
    """A chain that a link holds."""

    field: str
    key: str
    """The field, or the pattern of the chain in a table."""
    segment: str
    """What stands between the names of the link and of those in the chain, in their paths."""
    tx: Any


def chains_within(link: Any) -> Iterator[Held]:
    """The chains that a link holds."""
    fields = {field: getattr(link, field) for field in link._leaves}
    alone = sum(isinstance(x, Edits) for x in fields.values()) == 1
    for field, x in fields.items():
        if isinstance(x, Edits):
            yield Held(field, field, "" if alone else f"{field}/", x)
        elif isinstance(x, Keyed) and not x.of_numbers:
            yield from (Held(field, key, f"{key}/", tx) for key, tx in x.named.items() if isinstance(tx, Edits))


def _paths_within(link: Any, where: str) -> Iterator[tuple[str, LinkLike]]:
    for held in chains_within(link):
        yield from paths(held.tx.links, where + held.segment)


def paths(links: Links, where: str = "") -> Iterator[tuple[str, LinkLike]]:
    """The links of a chain by path, and those within each of them."""
    for name, link in links.items():
        yield where + name, link
        yield from _paths_within(link, f"{where}{name}/")


def edited(tx: Any, change: Change, where: str = "") -> Any:
    """A chain, or a link in place of one, with ``change`` applied to it and to the chains within; itself if all stay.

    A chain is made once all its links are, so that only the final order is checked.
    """
    old = [*tx.links.items()]
    new = change(where, [(name, _edited_within(link, change, f"{where}{name}/")) for name, link in old])
    if len(new) == len(old) and all(a == b and x is y for (a, x), (b, y) in zip(new, old)):
        return tx
    was_link = any(link is tx for _, link in old)
    if was_link and len(new) == 1 and new[0][0] == type(new[0][1]).__name__:
        return new[0][1]
    return Edits._chain_of(new)


def _edited_within(link: Any, change: Change, where: str) -> Any:
    held = [*chains_within(link)]
    new = {x.key: edited(x.tx, change, where + x.segment) for x in held}
    fields = {}
    for field in {x.field for x in held if new[x.key] is not x.tx}:
        old = getattr(link, field)
        if isinstance(old, Keyed):
            entries = [new.get(key, entry) for key, entry in zip(old.named, old.entries)]
            fields[field] = old.filled(entries, None if old.default is None else new.get("default", old.default))
        else:
            fields[field] = new[field]
    return Value.replace(link, **fields) if fields else link


# Names


def parts(link: object) -> Pairs:
    """The links of an argument of `chain`, with their names."""
    if link is None:
        return []
    if isinstance(link, Edits):
        return [*link.links.items()]
    if isinstance(link, type) and issubclass(link, Edits):
        raise TypeError(f"a chain is made of links, got the class {link.__name__}: call it, {link.__name__}(...)")
    remedy = ""
    if hasattr(link, "init"):
        remedy = "; wrap an Optax transformation in from_optax"
    elif isinstance(link, Mapping):
        remedy = ": write chain(**links)"
    elif isinstance(link, (list, tuple, Iterator)):
        remedy = ": write chain(*links)"
    raise TypeError(f"a chain is made of links and chains, got {code(link)}{remedy}")


def unused(name: str, taken: Iterable[str]) -> str:
    """The name, with a number if it is taken."""
    taken = list(taken)
    new, i = name, 2
    while new in taken:
        new, i = f"{name}_{i}", i + 1
    return new


def renumbered(new: Pairs, taken: Iterable[str]) -> Pairs:
    """The links with names that are not taken."""
    taken, pairs = list(taken), []
    for name, link in new:
        pairs.append((unused(name, taken), link))
        taken.append(pairs[-1][0])
    return pairs


def _own(path: str) -> str:
    """The name of the link at a path."""
    return path.rpartition("/")[2]


def _is_at(where: str, path: str) -> bool:
    """Whether ``where`` precedes the name of the link in its path."""
    return path == where + _own(path)


def _placed(
    where: str, pairs: Pairs, new: Callable[[list[str]], Pairs], before: str | None, after: str | None
) -> Pairs:
    """The links with new ones, a function of the names that are taken, before or after one of them if it is here."""
    anchor = before or after or ""
    if not _is_at(where, anchor):
        return pairs
    names = [n for n, _ in pairs]
    at = names.index(_own(anchor)) + (after is not None)
    return pairs[:at] + new(names) + pairs[at:]


def _calls(links: Mapping[str, LinkLike], fields: Mapping[str, object]) -> Iterator[str]:
    """Calls that change these fields, or those with other libraries' names, in links by path."""
    for path, link in links.items():
        known = [*link._static, *link._leaves]
        changes = [f"{n}={code(x)}" for field, x in fields.items() for n in here(field, known)[:1]]
        if changes:
            yield f"tx.replace({path!r}, {', '.join(changes)})"
