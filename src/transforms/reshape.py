"""Chains that see the parameters in another form."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core import engine, tree
from ..core.hyper import chosen
from ..core.link import Leafwise, transform
from ..core.storage import cast, formats_of
from ..core.tree import Flat, compute_dtype, dtype_of, is_trainable, show, slot_dtype
from ..core.value import child, static
from .vector import conj
from .wrappers import Look, Wrapper, all_links, begin, passed_on, restored


class Reshaped(Wrapper):
    """A wrapper whose chain sees the parameters in another form."""

    moves_params = False  # the chain's own parameters are copies

    def there(self, leaves: list[Any], flat: Flat) -> Any:
        """Leaves that belong to ``flat``, in the chain's form."""
        raise NotImplementedError

    def back(self, form: Any, flat: Flat) -> Any:
        """The inverse of `there`, with holes for what does not move."""
        raise NotImplementedError

    def init_tree(self, params):
        flat = tree.flatten(params)
        return {"tx": begin(self.tx, self.there(flat.leaves, flat))}

    def update_tree(self, updates, state, params, at):
        flat = tree.flatten(updates if params is None else params)
        us = flat.line_up("The updates", updates)
        mine = None if params is None else self.there(flat.leaves, flat)
        extra = {name: self.carried(name, x, flat) for name, x in passed_on(self.tx, at, None).items()}
        new, inner = self.tx.update(self.there(us, flat), state["tx"], mine, **extra)
        return restored(self.back(new, flat), updates), {"tx": inner}

    def carried(self, name: str, x: Any, flat: Flat) -> Any:
        """An extra argument in the chain's form: functions of the parameters, and trees like them."""
        if callable(x):
            result = "value" if name == "value_fn" else ""
            return lambda form: self.carried(result, x(restored(self.back(form, flat), flat.build(flat.leaves))), flat)
        alike = jax.tree.structure(x, is_leaf=_is_hole) == flat.treedef
        return self.there(flat.line_up(f"The leaves of {name!r}", x), flat) if alike and name != "value" else x

    def look(self, look: Look, params: Any, entry: Any) -> dict[str, Any]:
        flat = tree.flatten(params)
        found = look(self.tx, self.there(flat.leaves, flat), entry["tx"])
        return {name: self.back(form, flat) for name, form in found.items()}


@transform
class flatten(Reshaped):
    """Show a chain all parameters of a dtype as one vector: fewer and larger operations, and norms of leaves over all.

    The chain sees ``{"float32": vector}``, so by its path it knows the dtype alone. The copies that this
    takes do not pay for large leaves, and they gather sharded ones.
    """

    tx: Any = child("the chain")

    equation = "u ← tx(u), all of u as one vector"

    def there(self, leaves, flat):
        return {name: _joined(self, leaves, flat, group) for name, group in self._groups(flat).items()}

    def back(self, form, flat):
        leaves = [None] * len(flat.leaves)
        for name, group in self._groups(flat).items():
            _separate(form[name], leaves, flat, group)
        return flat.build(leaves)

    def _groups(self, flat: Flat) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = {}
        for i, x in enumerate(flat.leaves):
            if is_trainable(x):
                groups.setdefault(slot_dtype(dtype_of(x)).name, []).append(i)
        return groups


@transform
class pack(Reshaped):
    """Show a chain small leaves in packs: many leaves of one shape as one vector, in the place of the first of them.

    A thousand biases and scales then take fifty sets of slots and their kernels; `flatten` would copy large
    leaves too, and takes long to compile. Leaves that a `by_path` in the chain tells apart never share a pack.

    Nor do leaves whose slots `store` keeps in blocks, such as `int8`: a block holds numbers of one leaf, and
    those of small leaves stay in float32. Links that treat the tree as a whole see packs for leaves, too:
    `scale_by_galore` belongs outside.

    Errors: ``TypeError`` from ``init`` if a link computes with several numbers of a leaf, as for its norm, and
    from ``update`` if a packed leaf has no update.

    >>> import chainax as cx
    >>> tx = cx.pack(cx.adamw(1e-3))
    >>> state = tx.init({"a": jnp.ones(3), "b": jnp.ones(3), "c": jnp.ones((5, 5))})
    >>> jax.tree.map(jnp.shape, state.links["pack"]["tx"].links["scale_by_adam"]["mu"])
    {'a': (6,), 'b': None, 'c': (5, 5)}
    """

    tx: Any = child("the chain")
    leaves: int = static("leaves in a pack, at most", default=20)
    max_size: int = static("numbers in a leaf that is packed, at most", default=16384)

    equation = "u ← tx(u), small leaves of u in packs"

    def check(self) -> None:
        super().check()
        for field, least in ("leaves", 2), ("max_size", 1):
            given = getattr(self, field)
            if not isinstance(given, int) or given < least:
                raise ValueError(f"`pack.{field}` must be a whole number, at least {least}, got {given!r}")

    def init_tree(self, params):
        flat = tree.flatten(params)
        form = self.there(flat.leaves, flat)
        packed = flat.line_up("The packs", form)
        for first, *others in self._alike(flat).values():
            if others:
                self._check_links(flat, first, packed[first])
        return {"tx": begin(self.tx, form)}

    def there(self, leaves, flat):
        leaves = list(leaves)
        for pack in self._packs(flat):
            vector = _joined(self, leaves, flat, pack)
            for i in pack:
                leaves[i] = None
            leaves[pack[0]] = vector
        return flat.build(leaves)

    def back(self, form, flat):
        leaves = flat.line_up("The leaves", form)
        for pack in self._packs(flat):
            _separate(leaves[pack[0]], leaves, flat, pack)
        return flat.build(leaves)

    def _packs(self, flat: Flat) -> list[list[int]]:
        """The leaves that go together, by number."""
        groups = self._alike(flat).values()
        packs = (found[i : i + self.leaves] for found in groups for i in range(0, len(found), self.leaves))
        return [pack for pack in packs if len(pack) > 1]

    def _alike(self, flat: Flat) -> dict[Any, list[int]]:
        """The small leaves of each shape and dtype that every table of the chain treats alike."""
        links = list(all_links(self.tx))
        leafwise = [(name, link) for name, link in links if isinstance(link, Leafwise)]
        found: dict[Any, list[int]] = {}
        for i, (path, x) in enumerate(flat.items()):
            formats = formats_of(leafwise, path)
            blocks = any(not isinstance(form, cast) for _, _, form, _ in formats)
            if is_trainable(x) and 0 < jnp.size(x) <= self.max_size and not blocks:
                found.setdefault((jnp.shape(x), dtype_of(x), chosen(links, path), formats), []).append(i)
        return found

    def _check_links(self, flat: Flat, first: int, vector: jax.Array) -> None:
        shapes = jnp.shape(flat.leaves[first]), vector.shape
        probes = [jax.ShapeDtypeStruct(shape, compute_dtype(vector.dtype)) for shape in shapes]
        lone = [flat.build([x if i == first else None for i in range(len(flat.leaves))]) for x in probes]
        for name, link in all_links(self.tx):
            if isinstance(link, Leafwise) and not engine.treats_numbers_alone(name, link, *lone):
                raise TypeError(
                    f"Link 'pack': {name!r} computes with several numbers of {flat.paths[first]!r}, as for a norm, or "
                    "with its shape, and a pack is no leaf: put the link outside, or leave the parameter out by a "
                    "smaller max_size"
                )


@transform
class split_complex(Reshaped):
    """Show a chain every complex parameter as two real ones, ``real`` and ``imag``.

    Links that treat leaf by leaf need not be told: to them complex numbers are pairs of reals anyway.
    """

    tx: Any = child("the chain")

    equation = "u ← tx(Re u) + i·tx(Im u)"

    def there(self, leaves, flat):
        return flat.build(
            [_parts(x, dtype_of(like)) if _is_complex(like) else x for x, like in zip(leaves, flat.leaves)]
        )

    def back(self, form, flat):
        pairs = zip(flat.line_up("The leaves", form), flat.leaves)
        return flat.build([_whole(**x) if _is_complex(like) else x for x, like in pairs])

    def carried(self, name, x, flat):
        # JAX's gradient of a complex parameter is the conjugate of the gradient of its parts.
        return super().carried(name, conj(x) if name == "grad" else x, flat)


def _joined(link: flatten | pack, leaves: list[Any], flat: Flat, group: list[int]) -> jax.Array:
    """A group of leaves as one vector."""
    name, parts = type(link).__name__, []
    for i in group:
        like, x = flat.leaves[i], leaves[i]
        if x is None:
            whole = "pack" if isinstance(link, pack) else "vector"
            raise TypeError(
                f"Link {name!r} has no update at {flat.paths[i]!r}, {show(like)}, and a {whole} has no holes: "
                f"leave the parameter out by partition(by_path({{pattern: freeze()}}, default={name}(...)))"
            )
        parts.append(jnp.ravel(jnp.asarray(x, slot_dtype(dtype_of(like)))))
    return jnp.concatenate(parts)


def _separate(vector: jax.Array, leaves: list[Any], flat: Flat, group: list[int]) -> None:
    """Put the parts of a vector where its leaves stood."""
    done = 0
    for i in group:
        shape, size = jnp.shape(flat.leaves[i]), jnp.size(flat.leaves[i])
        leaves[i] = vector[done : done + size].reshape(shape)
        done += size


def _is_hole(x: Any) -> bool:
    return x is None


def _is_complex(x: Any) -> bool:
    return is_trainable(x) and jnp.iscomplexobj(x)


def _parts(x: Any, dtype: Any) -> dict[str, Any]:
    if x is None:
        return {"real": None, "imag": None}
    x = jnp.asarray(x, dtype)
    return {"real": x.real, "imag": x.imag}


def _whole(real: Any, imag: Any) -> Any:
    return None if real is None else jax.lax.complex(real, imag)
