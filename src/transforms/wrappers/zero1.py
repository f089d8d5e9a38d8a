"""State and arithmetic of a step spread over mesh axes along which the parameters are replicated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ...core.engine import engine
from ...core.facade.link import transform
from ...core.values import tree
from ...core.values.spec import axes_in, axes_of_kind, check_axes, only
from ...core.values.tree import Flat, names_of
from ...core.values.types import Leaf, Params, PyTree, Updates
from ...core.values.value import child, derived, static
from ...core.values.warning import warn
from ..shared.layout import Layout, check_specs, mesh_around, platform
from ..shared.wrappers import forwarded_arguments
from .reshape import Reshaped

MESH = "call init and step under jax.set_mesh(mesh)"
"""What to do without a mesh."""


@transform
class zero1(Reshaped):
    """Spread the state and the arithmetic of a chain over mesh axes that replicate the parameters. ZeRO stage 1.

    Rajbhandari et al. 2020, arXiv:1910.02054, section 5.1. Parameters stay as they are, sharded along other axes or
    not. Within the link, each of them and its gradient are divided along ``over`` as well, a mesh axis or several one
    after the other: XLA reduces the gradients to shards, each device updates its own, and the new parameters are
    gathered, those of up to 65536 numbers together. Results are those of the chain.

    The mesh is that of the parameters, or of `jax.set_mesh`. Along explicit axes, JAX types carry the layout. Along
    automatic axes they do not: there ``specs`` says how the parameters are sharded, as a table of `PartitionSpec`s by
    path, replicated by default. A jitted step would gather a parameter that lies otherwise. Pass
    ``out_shardings=tx.state_sharding(params)`` to a jitted ``init``.

    A parameter of which no axis is a multiple of the number of shards stays in one piece: ``describe(params)`` names
    it. Links outside of this one see whole updates, so put `clip_by_global_norm` within. XLA's TPU compiler makes an
    all-reduce of a reduce-scatter along an axis that spans all devices or along several axes: ``step`` warns, and
    `reduce_grads` avoids it.

    Errors: ``ValueError`` for axes that the mesh does not have, and for a parameter that is not sharded as ``specs``
    says. Warns (`ChainWarning`) if nothing is spread: without a mesh, unless there is one device only, and within
    `jax.shard_map` over these axes.

    >>> import chainax as cx
    >>> tx = cx.zero1(cx.adamw(1e-3), over="data")
    >>> params = {"w": jnp.ones((8, 4))}
    >>> with jax.set_mesh(jax.make_mesh((jax.device_count(),), ("data",))):
    ...     state = tx.init(jax.device_put(params, P()))
    >>> [*state.links["zero1"]["tx"].links["scale_by_adam"]["mu"]["w"].sharding.spec]
    ['data', None]
    """

    tx: Any = child("the chain")
    over: Any = static("the mesh axis, or a tuple of axes", default="data", check=check_axes)
    specs: Any = static(
        "the shardings along automatic axes, by_path({pattern: P(...)}, default=P())", default=None, check=check_specs
    )

    moves_params = True

    @derived
    def equation(self) -> str:
        return f"u ← tx(u), each device a part along {' and '.join(names_of(self.over))}"

    def step_tree(self, params, state, updates, at):
        flat = tree.flatten(params)
        layout, us = self.layout(flat), flat.line_up("The updates", updates)
        self._warn_of_all_reduces(layout, us)
        extra = forwarded_arguments(self.tx, at.extra, params)
        extra = {name: self.carried(name, x, flat, []) for name, x in extra.items()}
        mine = layout.apart(flat.leaves)
        inner = layout.kept(self.tx, mine, state["tx"])
        new, inner = engine.step(self.tx.links, mine, inner, layout.apart(us), extra)
        new = layout.home(flat.line_up("The parameters", new))
        return new, {**state, "tx": layout.kept(self.tx, mine, inner)}

    def update_tree(self, updates, state, params, at):
        flat = tree.flatten(updates if params is None else params)
        layout = self.layout(flat)
        self._warn_of_all_reduces(layout, flat.line_up("The updates", updates))
        mine = layout.shapes(flat.build(flat.leaves))
        state = {**state, "tx": layout.kept(self.tx, mine, state["tx"])}
        new, state = super().update_tree(updates, state, params, at)
        return new, {**state, "tx": layout.kept(self.tx, mine, state["tx"])}

    def to_view(self, leaves, flat, groups):
        return self.layout(flat).apart(leaves)

    def from_view(self, view, flat, groups):
        return self.layout(flat).home(flat.line_up("The leaves", view))

    def seen_within(self, params: Params) -> dict[str, Params]:
        return {"tx": self.layout(tree.flatten(params)).shapes(params)}

    def remarks(self, params: Params) -> Iterator[str]:
        flat = tree.flatten(params)
        if mesh_around(flat.leaves) is None:
            yield f"zero1: without a mesh nothing is spread: {MESH}"
            return
        whole: dict[str, list[str]] = {}
        for i, place in self.layout(flat).places.items():
            if place.why:
                whole.setdefault(place.why, []).append(f"{flat.paths[i]} {list(jnp.shape(flat.leaves[i]))}")
        for why, paths in whole.items():
            few = ", ".join(paths[:5]) + (f" and {len(paths) - 5} others" if len(paths) > 5 else "")
            yield f"zero1: not spread, since {why}: {few}"

    def layout(self, flat: Flat) -> Layout:
        """Where the leaves lie outside, and within."""
        over, manual = names_of(self.over), jax.sharding.get_abstract_mesh().manual_axes
        if divided := [name for name in over if name in manual]:
            warn(f"zero1 spreads nothing over {divided[0]!r} within jax.shard_map over this axis: call step outside")
            return Layout(None, flat, {})
        layout = Layout.of("zero1", mesh_around(flat.leaves), flat, over, self.specs)
        if layout.mesh is None and jax.device_count() > 1:
            warn(f"zero1 spreads nothing over {self.over!r} without a mesh: {MESH}")
        return layout

    def _warn_of_all_reduces(self, layout: Layout, us: list[Leaf]) -> None:
        """Warn if XLA's TPU compiler will not reduce the gradients by a reduce-scatter, as far as types say."""
        mesh, over = layout.mesh, names_of(self.over)
        if mesh is None or platform(mesh) != "tpu" or not {*over} <= {*axes_of_kind(mesh, AxisType.Explicit)}:
            return
        sizes = [mesh.shape[name] for name in over if mesh.shape[name] > 1]
        specs = [jax.typeof(u).sharding.spec for u in us if isinstance(u, Tracer)]
        reduced = any(name in (*axes_in(spec), *getattr(spec, "unreduced", ())) for spec in specs for name in over)
        if not reduced and (len(sizes) > 1 or sizes == [mesh.size]):
            along = "several axes" if len(sizes) > 1 else "an axis that spans all devices"
            warn(
                f"zero1: XLA's TPU compiler reduces gradients along {along} by all-reduces, which move twice the bytes "
                f"of reduce-scatters: average them by cx.reduce_grads(grads, over={self.over!r}) in jax.shard_map"
            )


def reduce_grads(grads: Updates, over: str | tuple[str, ...], specs: Any = None) -> Updates:
    """Average gradients over mesh axes in `jax.shard_map`, and leave each device its part of the means, for `zero1`.

    A reduce-scatter (`jax.lax.psum_scatter`) for each axis, one after the other; gradients of up to 65536 numbers
    share it. ``over`` and ``specs`` are those of `zero1`. Gradients that cannot be divided are averaged whole. The
    result lies as `reduced_specs` says. If the mesh has other axes, pass ``axis_names={*over}`` to `jax.shard_map`.

    Errors: ``ValueError`` for gradients that do not vary along ``over``: those with respect to parameters that do not
    vary are already summed by JAX, which is not noticed with ``check_vma=False``. Differentiate with respect to
    ``jax.lax.pcast(params, over, to="varying")``. Also for gradients that are parts along other axes, in a
    `jax.shard_map` over these too.

    >>> import chainax as cx
    >>> mesh, params = jax.make_mesh((jax.device_count(),), ("data",)), jnp.ones(8)
    >>> def grads_of(params, batch):
    ...     mine = jax.lax.pcast(params, "data", to="varying")
    ...     return cx.reduce_grads(jax.grad(lambda p: jnp.mean(batch @ p))(mine), over="data")
    >>> with jax.set_mesh(mesh):
    ...     batch = jax.device_put(jnp.ones((16, 8)), P("data"))
    ...     specs = cx.reduced_specs(params, over="data")
    ...     jax.shard_map(grads_of, in_specs=(P(), P("data")), out_specs=specs)(params, batch).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    names, specs = names_of(check_axes("reduce_grads.over", over)), check_specs("reduce_grads.specs", specs)
    mesh, flat = jax.sharding.get_abstract_mesh(), tree.flatten(grads)
    if lacking := [name for name in names if name not in mesh.manual_axes]:
        raise ValueError(f"reduce_grads averages along {lacking[0]!r} only within jax.shard_map over this axis")
    layout = Layout.of("reduce_grads", mesh, flat, names, specs, divide_sharded=False)
    _check_manual(layout, names)
    typed = tree.shard_axes(jax.lax.axis_index(names))  # none with check_vma=False
    for i in layout.places:
        if still := [name for name in typed if name not in tree.shard_axes(flat.leaves[i])]:
            raise ValueError(
                f"the gradient of {flat.paths[i]!r} is the same on all devices along {still[0]!r}, so JAX has already "
                f"summed it: differentiate with respect to jax.lax.pcast(params, {over!r}, to='varying')"
            )
    count = jax.lax.axis_size(names)  # divided by first, so that float16 does not overflow
    out = [x / count if i in layout.places else x for i, x in enumerate(flat.leaves)]
    return flat.build(layout.summed(names, out))


def _check_manual(layout: Layout, over: tuple[str, ...]) -> None:
    """Raise if `jax.shard_map` has divided gradients along other axes too: a part does not say of what it is one."""
    mesh = jax.sharding.get_abstract_mesh()
    others = [name for name in mesh.manual_axes if name not in over and mesh.shape[name] > 1]
    untyped = tree.untyped_axes()
    for i in layout.places if others else ():
        if untyped or {*others} & {*tree.shard_axes(layout.flat.leaves[i])}:
            raise ValueError(
                f"reduce_grads sees a part of {layout.flat.paths[i]!r} along {others[0]!r}: let jax.shard_map divide "
                f"arrays along {', '.join(map(repr, over))} alone, jax.shard_map(..., axis_names={set(over)!r})"
            )


def reduced_specs(params: Params, over: str | tuple[str, ...], specs: Any = None) -> PyTree:
    """The `PartitionSpec`s along ``over`` of what `reduce_grads` returns: the ``out_specs`` of its `jax.shard_map`."""
    names, specs = names_of(check_axes("reduced_specs.over", over)), check_specs("reduced_specs.specs", specs)
    flat = tree.flatten(params)
    layout = Layout.of("reduced_specs", mesh_around(flat.leaves), flat, names, specs, divide_sharded=False)
    if layout.mesh is None:
        raise ValueError("reduced_specs found no mesh: call it under jax.set_mesh(mesh)")
    places = layout.places
    return flat.build([only(places[i].apart, names) if i in places else P() for i in range(len(flat.leaves))])
