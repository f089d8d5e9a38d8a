"""Muon on the matrices of a transformer of 12 layers, beside Optax: what compilers make of it, and how long they take.

Compiles the step for 8 chips (a v5e:2x4) with parameters sharded along one axis, and for this machine's CPU, where the
steps are also timed in turns. Writes ``benchmarks/compiled/matrices.json`` and ``matrices.md``. ``make aot`` calls it.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import aot

RESULTS = aot.HERE / "compiled" / "matrices.json"
LAYERS = 12
WIDTHS = {"v5e": 768, "cpu": 256}
COEFFICIENTS = (3.4445, -4.7750, 2.0315)

ROWS = {
    "v5e_over": "v5e: chainax, `over`",
    "v5e_explicit": "v5e: chainax, `over`, explicit axes",
    "v5e_replicated": "v5e: chainax, `over`, replicated parameters",
    "v5e_zero1": "v5e: chainax, `zero1` and `over`, replicated parameters",
    "v5e_buckets": "v5e: chainax",
    "v5e_optax": "v5e: Optax",
    "cpu_chainax": "CPU: chainax",
    "cpu_loop": "CPU: a loop over leaves, by hand",
    "cpu_optax": "CPU: Optax",
}


def shapes(width: int) -> dict[str, tuple[int, int]]:
    """The 72 matrices."""
    each = {"query": 1, "key": 1, "value": 1, "out": 1, "up": 4, "down": 4}
    sides = {name: (width, n * width) if name != "down" else (n * width, width) for name, n in each.items()}
    return {f"{i}/{name}": shape for i in range(LAYERS) for name, shape in sides.items()}


def chainax(**options: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions ``init`` and ``step``."""
    import chainax as cx

    tx = cx.chain(cx.scale_by_muon(**options), cx.scale_by_lr(0.02))
    return tx.init, tx.step


def replicated() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same, its state and arithmetic divided by `zero1`."""
    import chainax as cx

    tx = cx.zero1(cx.chain(cx.scale_by_muon(over="fsdp"), cx.scale_by_lr(0.02)), over="fsdp")
    return tx.init, tx.step


def optax() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same functions for Optax."""
    import optax

    tx = optax.contrib.muon(0.02, weight_decay=0.0)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return tx.init, step


def by_hand() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same functions, written for this purpose, leaf by leaf."""
    import jax
    import jax.numpy as jnp

    a, b, c = COEFFICIENTS

    def iterated(_: Any, X: Any) -> Any:
        A = X @ X.T
        return a * X + (b * A + c * (A @ A)) @ X

    @jax.jit
    def orthogonalized(M: Any) -> Any:
        tall = M.shape[0] > M.shape[1]
        X = M.T if tall else M
        X = jax.lax.fori_loop(0, 5, iterated, X / (jnp.linalg.norm(X) + 1e-7))
        return X.T if tall else X

    def step(params: Any, state: Any, grads: Any) -> Any:
        state = jax.tree.map(lambda m, g: 0.95 * m + 0.05 * g, state, grads)
        ahead = jax.tree.map(lambda m, g: 0.95 * m + 0.05 * g, state, grads)

        def moved(p: Any, u: Any) -> Any:
            return p - 0.02 * max(1.0, p.shape[1] / p.shape[0]) ** 0.5 * orthogonalized(u)

        return jax.tree.map(moved, params, ahead), state

    return lambda params: jax.tree.map(jnp.zeros_like, params), step


def of_row(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The functions of a row."""
    if name.endswith("optax"):
        return optax()
    if name.endswith("zero1"):
        return replicated()
    return (
        by_hand()
        if name.endswith("loop")
        else chainax(**({} if name in ("v5e_buckets", "cpu_chainax") else {"over": "fsdp"}))
    )


def for_tpu(name: str) -> dict[str, Any]:
    """The facts of a step for 8 chips."""
    import jax
    from jax.experimental import topologies
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    devices = topologies.get_topology_desc("v5e:2x4", platform="tpu").devices
    kind = AxisType.Explicit if name in ("v5e_explicit", "v5e_zero1") else AxisType.Auto
    mesh = jax.make_mesh((8,), ("fsdp",), devices=devices, axis_types=(kind,))
    where = NamedSharding(mesh, P() if name in ("v5e_replicated", "v5e_zero1") else P("fsdp"))
    params = {k: jax.ShapeDtypeStruct(s, "float32", sharding=where) for k, s in shapes(WIDTHS["v5e"]).items()}
    init, step = of_row(name)
    with jax.set_mesh(mesh):
        state = jax.eval_shape(init, params)
        if kind == AxisType.Auto:
            state = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(
                    x.shape, x.dtype, sharding=where if x.ndim == 2 else NamedSharding(mesh, P())
                ),
                state,
            )
        outputs = jax.tree.map(lambda x: x.sharding, (params, state))
        return compiled(jax.jit(step, donate_argnums=(0, 1), out_shardings=outputs), params, state)[0]


def compiled(step: Any, params: Any, state: Any) -> tuple[dict[str, Any], Any]:
    """The facts of a jitted step, and the step compiled."""
    import hlo

    began = time.process_time()
    made = step.lower(params, state, params).compile()
    seconds = time.process_time() - began
    text, moved = made.as_text() or "", {}
    for op, _, bytes_ in hlo.collectives(text, 8):
        count, total = moved.get(op, (0, 0))
        moved[op] = (count + 1, total + bytes_)
    return {
        "seconds": seconds,
        "lines": len(text.splitlines()),
        "temporaries": made.memory_analysis().temp_size_in_bytes,
        "collectives": moved,
    }, made


def on_cpu(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The facts of steps for this machine. Of CPU seconds, the smallest of several that were taken in turns."""
    import jax
    import jax.numpy as jnp

    params = {k: jnp.ones(s) for k, s in shapes(WIDTHS["cpu"]).items()}
    keys = dict(zip(params, jax.random.split(jax.random.key(0), len(params))))
    grads = {k: jax.random.normal(keys[k], p.shape) for k, p in params.items()}
    found: dict[str, dict[str, Any]] = {}
    run = {}
    for name in [*names] * 3:
        jax.clear_caches()
        init, step = of_row(name)
        state = init(params)
        facts, made = compiled(jax.jit(step, donate_argnums=(0, 1)), params, state)
        found[name] = {**facts, "seconds": min(facts["seconds"], found.get(name, facts)["seconds"])}
        run[name] = made, state
    times: dict[str, list[float]] = {name: [] for name in run}
    for _ in range(9):
        for name, (made, state) in run.items():
            p, s = jax.block_until_ready(jax.tree.map(jnp.copy, (params, state)))
            began = time.process_time()
            jax.block_until_ready(made(p, s, grads))
            times[name].append(time.process_time() - began)
    return {name: {**facts, "step": min(times[name])} for name, facts in found.items()}


ABOUT = """\
`make aot` writes this table: do not change it by hand. The step of Muon on the 72 matrices of a transformer of 12 \
layers. For 8 TPUs, a v5e:2x4, with width {v5e}, each matrix sharded along its first axis: **nothing was executed**, \
XLA's compiler ({versions}) ran on a machine that has none. For its CPU with width {cpu}: compilations and \
steps took turns. CPU seconds of tracing, lowering and compiling; lines of optimized HLO; temporaries in MB a device; \
how many collectives of each kind, and the MB of their results on a device; CPU seconds of a step."""


def markdown(found: dict[str, Any]) -> str:
    """The table, from the stored facts."""
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("jax", "jaxlib", "libtpu"))
    head = "| | compiling | lines | temporaries | all-to-all | all-gather | others | step |\n|---|" + "--:|" * 7
    lines = [_line(title, found["rows"][name]) for name, title in ROWS.items() if name in found["rows"]]
    return "\n".join([ABOUT.format(versions=versions, **WIDTHS), "", head, *lines, ""])


def _line(title: str, facts: dict[str, Any]) -> str:
    moved = dict(facts["collectives"])
    cells = [_shown(moved.pop(kind, None)) for kind in ("all-to-all", "all-gather")]
    others = ", ".join(f"{kind} {_shown(each)}" for kind, each in moved.items())
    step = f"{facts['step']:.2f}" if "step" in facts else ""
    return (
        f"| {title} | {facts['seconds']:.1f} | {facts['lines']:,} | {facts['temporaries'] / 1e6:,.1f} | "
        f"{cells[0]} | {cells[1]} | {others} | {step} |"
    )


def _shown(moved: tuple[int, float] | None) -> str:
    return "" if moved is None else f"{moved[0]}: {moved[1] / 1e6:,.1f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Compile, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", metavar="ROW", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS, metavar="FILE")
    options = parser.parse_args(argv)
    if reason := aot.missing():
        print(reason, file=sys.stderr)
        return 1
    if not aot.ready():
        return aot.again(sys.argv)
    output = options.output
    found = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {"rows": {}}
    found["versions"] = aot.versions()
    on_this = [name for name in options.rows if name.startswith("cpu")]
    jobs: dict[tuple[str, ...], Callable[[], dict[str, Any]]] = {
        (name,): lambda name=name: {name: for_tpu(name)} for name in options.rows if name not in on_this
    }
    jobs |= {tuple(on_this): lambda: on_cpu(on_this)} if on_this else {}
    for job in jobs.values():
        for name, facts in job().items():
            found["rows"][name] = facts
            print(name, facts, flush=True)
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        output.with_suffix(".md").write_text(markdown(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
