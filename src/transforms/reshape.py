"""Chains that see the parameters in another form."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core import tree
from ..core.link import transform
from ..core.tree import Flat, dtype_of, is_trainable, show, slot_dtype
from ..core.value import child
from .vector import conj
from .wrappers import Look, Wrapper, begin, passed_on, restored


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
        parts: dict[str, list[jax.Array]] = {}
        for path, x, like in zip(flat.paths, leaves, flat.leaves):
            if not is_trainable(like):
                continue
            if x is None:
                raise TypeError(
                    f"Link 'flatten' has no update at {path!r}, {show(like)}, and a vector has no holes: "
                    "leave the parameter out by partition(by_path({pattern: freeze()}, default=flatten(...)))"
                )
            dtype = slot_dtype(dtype_of(like))
            parts.setdefault(dtype.name, []).append(jnp.ravel(jnp.asarray(x, dtype)))
        return {name: jnp.concatenate(vectors) for name, vectors in parts.items()}

    def back(self, form, flat):
        done, out = dict.fromkeys(form, 0), []
        for like in flat.leaves:
            if not is_trainable(like):
                out.append(None)
                continue
            name, size = slot_dtype(dtype_of(like)).name, jnp.size(like)
            part = form[name][done[name] : done[name] + size]
            done[name] += size
            out.append(part.reshape(jnp.shape(like)))
        return flat.build(out)


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
