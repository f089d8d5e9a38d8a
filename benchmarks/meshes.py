"""What XLA's TPU compiler makes of training on 256 chips: bytes a chip, and collectives. Nothing is executed.

Compiles the strategies of ``docs/scaling.md`` for a v5e:16x16, each as one function from parameters, state and a batch
to the next parameters and state, and steps alone for a sharded GPT-2. Writes ``benchmarks/compiled/meshes.json`` and
``meshes.md``. ``make aot`` calls it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import aot

RESULTS = aot.HERE / "compiled" / "meshes.json"
LAYERS, WIDTH, INNER, VOCABULARY = 4, 1024, 4096, 32000
BATCH, LENGTH = 256, 512

DATA = 16
"""The chips along each axis of the torus."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to train."""

    name: str
    title: str
    axes: tuple[str, ...] = ("data", "model")
    fsdp: bool = False
    """Whether the parameters are sharded along the data axis too."""
    reduces: bool = False
    """Whether the program averages the gradients itself, by `reduce_grads`."""
    automatic: bool = False
    """Whether the axes are automatic."""
    chain: Callable[[Any], Any] = lambda tx: tx
    """The optimizer, made from clip + AdamW."""

    @property
    def data(self) -> tuple[str, ...]:
        """The axes along which the batch is sharded."""
        return tuple(name for name in self.axes if name != "model")


def rows() -> list[Row]:
    """The strategies."""
    import chainax as cx

    two = ("pod", "data")
    return [
        Row("dp", "data parallel", two),
        Row("dp_zero1", "data parallel, ZeRO-1 over two axes, `reduce_grads`", two, reduces=True,
            chain=lambda tx: cx.zero1(tx, over=two)),
        Row("fsdp", "FSDP and tensor-parallel", fsdp=True),
        Row("tensor", "tensor-parallel"),
        Row("tensor_zero1", "tensor-parallel, ZeRO-1", chain=lambda tx: cx.zero1(tx, over="data")),
        Row("tensor_zero1_int8", "tensor-parallel, ZeRO-1, int8 state in blocks of 64",
            chain=lambda tx: cx.zero1(cx.store(tx, cx.int8(block=64)), over="data")),
        Row("tensor_zero1_automatic", "tensor-parallel, ZeRO-1, automatic axes", automatic=True,
            chain=lambda tx: cx.zero1(tx, over="data", specs=cx.by_path(
                {f"{name}$": spec for name, spec in specs("model").items()}))),
        Row("tensor_int8", "tensor-parallel, int8 state in blocks of 64",
            chain=lambda tx: cx.store(tx, cx.int8(block=64))),
    ]  # fmt: skip


def shapes() -> dict[str, tuple[int, ...]]:
    """The parameters of a transformer of four layers, 84M."""
    found: dict[str, tuple[int, ...]] = {"embed": (VOCABULARY, WIDTH)}
    for i in range(LAYERS):
        each = {"norm": (WIDTH,), "mix": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH), "up": (WIDTH, INNER)}
        found |= {f"{i}/{name}": shape for name, shape in each.items()}
        found |= {f"{i}/up_bias": (INNER,), f"{i}/down": (INNER, WIDTH), f"{i}/down_bias": (WIDTH,)}
    return found


def specs(model: str | None) -> dict[str, Any]:
    """How each kind of parameter is sharded along the model axis."""
    from jax.sharding import PartitionSpec as P

    columns, row = P(None, model), P(model)
    return {"embed": row, "norm": P(), "mix": columns, "out": columns, "up": columns, "up_bias": row, "down": row,
            "down_bias": P()}  # fmt: skip


def loss(row: Row, inside: bool) -> Callable[[dict[str, Any], Any], Any]:
    """The loss of a batch of tokens. ``inside`` a `jax.shard_map` along the data axes, they are not named."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec as P

    data = None if inside else row.data
    model = "model" if "model" in row.axes else None
    of = specs(model)

    def put(x: Any, *spec: Any) -> Any:
        move = jax.lax.with_sharding_constraint if row.automatic else jax.sharding.reshard
        return move(x, P(*spec))

    def product(formula: str, x: Any, w: Any, *spec: Any) -> Any:
        return put(jnp.einsum(formula, x, w), *spec) if row.automatic else jnp.einsum(
            formula, x, w, out_sharding=P(*spec))  # fmt: skip

    def normed(x: Any) -> Any:
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6)

    def f(p: dict[str, Any], tokens: Any) -> Any:
        if row.fsdp:  # each device needs all of a matrix to use it
            p = {name: put(x, *of[name.rpartition("/")[2]]) for name, x in p.items()}
        x = p["embed"][tokens] if row.automatic else p["embed"].at[tokens].get(out_sharding=P(data))
        for i in range(LAYERS):

            def w(name: str, i: int = i) -> Any:
                return p[f"{i}/{name}"]

            y = put(product("bsd,df->bsf", normed(x) * w("norm"), w("mix"), data, None, model), data)
            y = jnp.cumsum(jnp.tanh(y[..., :WIDTH]), 1) * y[..., WIDTH : 2 * WIDTH]  # in place of attention
            x = x + put(product("bsd,de->bse", y, w("out"), data, None, model), data)
            y = jax.nn.gelu(product("bsd,df->bsf", normed(x), w("up"), data, None, model) + w("up_bias"))
            x = x + product("bsf,fd->bsd", y, w("down"), data, None, None) + w("down_bias")
        logits = product("bsd,vd->bsv", normed(x), p["embed"], data, None, model)
        return jnp.mean(jax.nn.logsumexp(logits, -1))

    return f


def trained(row: Row) -> dict[str, Any]:
    """The facts of a function from parameters, state and a batch to the next parameters and state."""
    import chainax as cx
    import jax
    from chainax.core.values.spec import spread
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    kind = AxisType.Auto if row.automatic else AxisType.Explicit
    mesh = torus(row.axes, kind)
    of = specs("model" if "model" in row.axes else None)

    def place(name: str, shape: tuple[int, ...]) -> NamedSharding:
        if row.fsdp:
            return NamedSharding(mesh, spread(shape, of[name.rpartition("/")[2]], row.data, mesh.shape)[0])
        return NamedSharding(mesh, of[name.rpartition("/")[2]])

    params = {
        name: jax.ShapeDtypeStruct(shape, "float32", sharding=place(name, shape)) for name, shape in shapes().items()
    }
    tokens = jax.ShapeDtypeStruct((BATCH, LENGTH), "int32", sharding=NamedSharding(mesh, P(row.data)))
    tx = row.chain(cx.chain(cx.clip_by_global_norm(1.0), cx.adamw(1e-3)))

    def mean_grads(params: Any, tokens: Any) -> Any:
        mine = jax.lax.pcast(params, row.data, to="varying")
        return cx.reduce_grads(jax.grad(loss(row, True))(mine, tokens), row.data)

    def train(params: Any, state: Any, tokens: Any) -> Any:
        if not row.reduces:
            return tx.step(params, state, jax.grad(loss(row, False))(params, tokens))
        out = cx.reduced_specs(params, row.data)
        every = {name: P() for name in params}
        mapped = jax.shard_map(mean_grads, in_specs=(every, P(row.data)), out_specs=out, axis_names={*row.data})
        return tx.step(params, state, mapped(params, tokens))

    with jax.set_mesh(mesh):
        return compiled(train, tx, params, tokens, mesh)


def steps() -> dict[str, tuple[str, Any, str]]:
    """Steps alone, of GPT-2 with each leaf sharded along the first axis that 16 divides: title, chain and dtype."""
    import chainax as cx

    stochastic = cx.chain(cx.adamw(1e-3), cx.apply_update("stochastic"))
    return {
        "step_clip_adamw": ("clip + AdamW", cx.chain(cx.clip_by_global_norm(1.0), cx.adamw(1e-3)), "float32"),
        "step_lamb": ("LAMB", cx.lamb(1e-3), "float32"),
        "step_clip_lamb": ("clip + LAMB", cx.chain(cx.clip_by_global_norm(1.0), cx.lamb(1e-3)), "float32"),
        "step_stochastic": ("AdamW, stochastic rounding", stochastic, "bfloat16"),
        "step_int8": ("AdamW, int8 state", cx.store(cx.adamw(1e-3), cx.int8()), "float32"),
        "step_small_zero1": ("AdamW, ZeRO-1, 1000 leaves of 1024", cx.zero1(cx.adamw(1e-3)), "float32"),
    }


def stepped(name: str) -> dict[str, Any]:
    """The facts of a step alone."""
    import jax
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh, (_, tx, dtype) = torus(("data", "model"), AxisType.Explicit), steps()[name]
    small = name == "step_small_zero1"

    def place(shape: tuple[int, ...]) -> NamedSharding:
        axis = None if small else next((i for i, n in enumerate(shape) if n % DATA == 0), None)
        return NamedSharding(mesh, P() if axis is None else P(*[None] * axis, "data"))

    of = {f"leaf_{i}": (1024,) for i in range(1000)} if small else aot.shapes("gpt2")
    params = {path: jax.ShapeDtypeStruct(shape, dtype, sharding=place(shape)) for path, shape in of.items()}
    with jax.set_mesh(mesh):
        return compiled(tx.step, tx, params, params, mesh)


def torus(axes: tuple[str, ...], kind: Any) -> Any:
    """A mesh of the 256 chips."""
    import jax
    from jax.experimental import topologies

    devices = topologies.get_topology_desc("v5e:16x16", platform="tpu").devices
    return jax.make_mesh((DATA, DATA), axes, devices=devices, axis_types=(kind, kind))


def compiled(f: Callable[..., Any], tx: Any, params: Any, last: Any, mesh: Any) -> dict[str, Any]:
    """The facts of a donated function of parameters, state and ``last``."""
    import hlo
    import jax

    state = tx.abstract_state(params)
    outputs = jax.tree.map(lambda x: x.sharding, (params, state))
    made = jax.jit(f, donate_argnums=(0, 1), out_shardings=outputs).lower(params, state, last).compile()
    memory: Any = made.memory_analysis()
    moved = {}
    for op, axes, bytes_ in hlo.collectives(made.as_text() or "", DATA):
        kind = "scalars" if bytes_ <= 1024 else op
        along = " and ".join(mesh.axis_names[i] for i in axes)
        count, total = moved.setdefault(along, {}).get(kind, (0, 0))
        moved[along][kind] = (count + 1, total + bytes_)
    return {
        "parameters": on_a_chip(params),
        "state": on_a_chip(state),
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "collectives": moved,
    }


def on_a_chip(tree: Any) -> int:
    """The bytes of a tree of shapes on each chip."""
    import jax

    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


ABOUT = """\
`make aot` writes this table: do not change it by hand. **Nothing here was executed, and nothing is a time**: XLA's \
TPU compiler ({versions}) ran on a machine that has none. A v5e:16x16 is a torus of 256 chips with two axes of 16. \
The model is a transformer of 84M parameters in 29 leaves, in float32, trained with a clip by the global norm and \
AdamW on 256 sequences of 512 tokens. Megabytes a chip of parameters and state, and what the whole train step \
communicates along data axes: how many collectives, and the megabytes of the whole arrays that a chip gathers or \
reduces. Norms and other collectives of up to 1 KB count as scalars, along whichever axes."""

KINDS = ("reduce-scatter", "all-reduce", "all-gather", "scalars")


def markdown(found: dict[str, Any]) -> str:
    """The tables, from the stored facts."""
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("jax", "jaxlib", "libtpu"))
    titles = {row.name: row.title for row in rows()}
    ways = [_line(title, found["rows"][name]) for name, title in titles.items()]
    alone = [_line(title, found["rows"][name]) for name, (title, _, _) in steps().items()]
    head = f"| | parameters | state | {' | '.join(KINDS)} |\n|---|{'--:|' * (2 + len(KINDS))}"
    more = (
        "The step alone, of GPT-2 small (124M), each leaf and its gradient sharded along the first axis that 16 "
        "divides; in the last row, of 1000 replicated leaves:"
    )
    return "\n".join([ABOUT.format(versions=versions), "", head, *ways, "", more, "", head, *alone, ""])


def _line(title: str, facts: dict[str, Any]) -> str:
    moved: dict[str, tuple[int, float]] = {}
    for along, kinds in facts["collectives"].items():
        for kind, (count, bytes_) in kinds.items():
            if kind == "scalars" or along != "model":
                before = moved.get(kind, (0, 0.0))
                moved[kind] = before[0] + count, before[1] + bytes_
    cells = [_shown(kind, *moved[kind]) if kind in moved else "" for kind in KINDS]
    return f"| {title} | {facts['parameters'] / 1e6:,.1f} | {facts['state'] / 1e6:,.1f} | {' | '.join(cells)} |"


def _shown(kind: str, count: int, bytes_: float) -> str:
    return str(count) if kind == "scalars" else f"{count}: {bytes_ / 1e6:,.1f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Compile, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="default: all")
    options = parser.parse_args(argv)
    if reason := aot.missing():
        print(reason, file=sys.stderr)
        return 1
    if not aot.ready():
        return aot.again(sys.argv)
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"rows": {}}
    found["versions"] = aot.versions()
    jobs: dict[str, Callable[[], dict[str, Any]]] = {row.name: lambda row=row: trained(row) for row in rows()}
    jobs |= {name: lambda name=name: stepped(name) for name in steps()}
    for name, job in jobs.items():
        if options.rows is None or name in options.rows:
            found["rows"][name] = job()
            print(name, found["rows"][name], flush=True)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not {*jobs} - {*found["rows"]}:
        RESULTS.with_suffix(".md").write_text(markdown(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
