"""What the compilers for TPUs and GPUs make of a step, on a machine that has neither. Nothing is executed.

Compiles the recipes of the benchmark, and rows of storage, rounding and wrappers, for one chip of each kind, chainax
beside Optax, and writes ``benchmarks/compiled/devices.json`` and ``devices.md``. Needs the compilers in ``.venv/aot``,
where ``make aot`` puts them. No figure is a time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

HERE = pathlib.Path(__file__).parent
COMPILERS = HERE.parent / ".venv" / "aot"
RESULTS = HERE / "compiled" / "devices.json"
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_LIBRARY_PATH": str(COMPILERS / "libtpu" / "libtpu.so"),
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "none",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""What the compilers need, to run where there is no device."""

TPUS = {"v5e": "v5e:1x1", "v5p": "v5p:2x2x1"}
"""Chips, and the smallest topology of each."""

CHIPS, SLICES = 16, {"v5e": "4x4", "v5p": "2x2x4"}
"""Among how many chips leaves are split, and the topology of so many."""

SPLITS = {"gpt2_fsdp": "fsdp", "gpt2_tensor": "tensor"}
"""How the leaves of a workload are split: along the first axis that can be, or matrices along the last."""

DEVICES = {
    "leaf": ("v5e", "v5p", "H100", "A100"),
    "eight": ("v5e",),  # XLA's GPU compiler ignores host memory where there is no GPU
    "small": ("v5e", "H100"),
    "gpt2": ("v5e", "H100"),
    "gpt2_fsdp": ("v5e",),
    "gpt2_tensor": ("v5e",),
}
"""The chips for which each workload is compiled."""

_GPU = """gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
threads_per_core_limit: 2048 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
registers_per_core_limit: 65536 registers_per_block_limit: 65536 thread_dim_limit_x: 1024 thread_dim_limit_y: 1024
thread_dim_limit_z: 64 shared_memory_per_core: {shared} core_count: {cores} fpus_per_core: {fpus}
memory_bandwidth: {bandwidth} l2_cache_size: {cache} clock_rate_ghz: {clock} device_memory_size: {memory}
shared_memory_per_block_optin: {optin} cuda_compute_capability {{ major: {major} }} }} platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 7 }} runtime_version {{ major: 12 minor: 8 }} device_description_str: "{name}" """
GPUS = {
    "H100": _GPU.format(
        name="NVIDIA H100 80GB HBM3", major=9, cores=132, fpus=128, clock=1.98, shared=233472, optin=232448,
        bandwidth=3352320000000, cache=52428800, memory=84942979072,
    ),
    "A100": _GPU.format(
        name="NVIDIA A100-SXM4-80GB", major=8, cores=108, fpus=64, clock=1.41, shared=167936, optin=166912,
        bandwidth=2039000000000, cache=41943040, memory=84942979072,
    ),
}  # fmt: skip
"""Chips, as their data sheets describe them."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One step: what is compiled, in each library that has it."""

    name: str
    title: str
    chainax: Callable[[float], Any]
    """The optimizer, given the norm to clip to."""
    optax: Callable[[float], Any] | None = None
    dtype: str = "float32"
    workloads: tuple[str, ...] = ("leaf",)
    offloaded: bool = False
    """Whether the slots lie in host memory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compile what the options say, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--devices", nargs="+", choices=[*TPUS, *GPUS], default=[*TPUS, *GPUS])
    add("--workloads", nargs="+", choices=list(TITLES), default=list(DEVICES))
    add("--rows", nargs="+", metavar="ROW", help="default: all")
    add("--list", action="store_true", help="only name the rows")
    options = parser.parse_args(argv)
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    if not ready():  # the compilers are loaded when JAX begins, so it begins again with them
        return again(sys.argv)
    rows = [row for row in all_rows() if options.rows is None or row.name in options.rows]
    if options.list:
        print("\n".join(f"{row.name:24}{row.title}" for row in rows))
        return 0
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"rows": {}}
    found["versions"] = versions()
    for workload in options.workloads:
        for row in rows:
            for device in options.devices if workload in row.workloads else ():
                if device not in DEVICES[workload]:
                    continue
                for library, facts in measured(row, workload, device).items():
                    found["rows"].setdefault(f"{workload} {row.name}", {}).setdefault(device, {})[library] = facts
                    print(f"{workload:12}{device:6}{row.name:24}{library:8}{_line(facts)}", flush=True)
                _write(found)
    return 0


def missing() -> str:
    """Why nothing can be compiled here; empty if it can."""
    if sys.platform != "linux":
        return "the compilers for TPU and GPU run on Linux only"
    from importlib.metadata import version

    if not COMPILERS.exists():
        return f"{COMPILERS} is not there: call `make aot`, which installs the compilers"
    if not (COMPILERS / f"jax_cuda12_plugin-{version('jax')}.dist-info").exists():
        return f"{COMPILERS} is for another jax: delete it and call `make aot`"
    return ""


def ready() -> bool:
    """Whether this process was started with the compilers."""
    return str(COMPILERS) in sys.path and os.environ.get("TPU_LIBRARY_PATH") == ENVIRONMENT["TPU_LIBRARY_PATH"]


def environment() -> dict[str, str]:
    """The environment variables of a process that can compile for devices that are not there."""
    path = os.pathsep.join(filter(None, (str(COMPILERS), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": path}


def again(argv: list[str]) -> int:
    """Begin again with the compilers."""
    os.execve(sys.executable, [sys.executable, *argv], environment())


def versions() -> dict[str, str]:
    """The compilers and libraries that the figures are of."""
    from importlib.metadata import version

    return {name: version(name) for name in ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "optax")}


def all_rows() -> list[Row]:
    """The recipes of the benchmark, and what else has a figure to keep."""
    import chainax as cx
    import jax.numpy as jnp
    import optax
    from recipes import ADAM, DECAY, LION, RECIPES, Missing, in_chainax, in_optax

    def recipe(name: str) -> Row:
        made = RECIPES[name]

        def in_other(norm: float) -> Any:
            try:
                return in_optax(made, made.learning_rate, norm)
            except Missing:
                return None

        return Row(name, made.title, lambda norm: in_chainax(made, made.learning_rate, norm), in_other)

    def adamw(*more: Any) -> Any:
        return cx.chain(cx.adamw(1e-2, **ADAM, weight_decay=DECAY), *more)

    def theirs() -> Any:
        return optax.adamw(1e-2, **ADAM, weight_decay=DECAY)

    def fourth(step: Any, **_: Any) -> Any:
        return step % 4 == 3

    def rounded(name: str) -> Row:
        return Row(f"adamw_{name}", f"bfloat16 AdamW, {name}", lambda _: adamw(cx.apply_update(name)), None, "bfloat16")

    def guarded(norm: float) -> Any:
        return cx.chain(cx.skip_nonfinite(), cx.clip_by_global_norm(norm), adamw())

    def guarded_in_optax(norm: float) -> Any:
        inner = optax.chain(optax.clip_by_global_norm(norm), theirs())
        return optax.apply_if_finite(inner, 10)

    int8 = cx.store(adamw(), cx.int8())
    formats = ("int8", "companded8", "float8", "int4")
    stored = [
        Row(f"{name}_{fmt}", f"{title}, {fmt} state", lambda _, tx=tx, fmt=fmt: cx.store(tx(), getattr(cx, fmt)()))
        for name, title, tx in (("adamw", "AdamW", adamw), ("lion", "Lion", lambda: cx.lion(1e-2, **LION)))
        for fmt in formats
        if f"{name}_{fmt}" not in RECIPES
    ]
    rows = [
        *(recipe(name) for name, r in RECIPES.items() if not r.eager),
        Row("guard_clip_adamw", "skip_nonfinite + clip + AdamW", guarded, guarded_in_optax),
        Row("guard_adamw_int8", "skip_nonfinite + AdamW, int8 state", lambda _: cx.chain(cx.skip_nonfinite(), int8)),
        *stored,
        Row("adamw_bfloat16_slots", "AdamW, bfloat16 slots", lambda _: cx.store(adamw(), "bfloat16")),
        *map(rounded, ("nearest", "stochastic", "kahan", "ecc", "master")),
        Row(
            "accumulate",
            "AdamW, 4 micro-batches",
            lambda _: cx.accumulate(adamw(), 4),
            lambda _: optax.MultiSteps(theirs(), 4, should_skip_update_fn=optax.skip_not_finite),
        ),
        Row(
            "guard_accumulate",
            "loss scale + AdamW, 4 micro-batches",
            lambda _: cx.chain(cx.dynamic_loss_scale(), cx.accumulate(adamw(), 4)),
        ),
        Row(
            "conditionally_mask",
            "AdamW at every fourth step",
            lambda _: cx.conditionally_mask(adamw(), fourth),
            lambda _: optax.conditionally_mask(theirs(), fourth),
        ),
        Row(
            "conditionally_transform",
            "AdamW at every fourth step, else the gradient",
            lambda _: cx.conditionally_transform(adamw(), fourth),
            lambda _: optax.conditionally_transform(theirs(), fourth),
        ),
        Row("restart", "AdamW, restarted", lambda _: cx.restart(adamw(), 1000)),
        Row(
            "schedule_free_adamw",
            "schedule-free AdamW",
            lambda _: cx.schedule_free_adamw(1e-2),
            lambda _: optax.contrib.schedule_free_adamw(1e-2),
        ),
        Row(
            "guarded_schedule_free",
            "schedule-free RMSprop, guard inside",
            lambda _: cx.schedule_free(cx.chain(cx.skip_nonfinite(), cx.scale_by_rms(), cx.scale_by_lr(1e-2))),
        ),
        Row(
            "adamw_bfloat16",
            "bfloat16 AdamW, float32 slots",
            lambda _: adamw(),
            lambda _: optax.adamw(1e-2, **ADAM, weight_decay=DECAY, mu_dtype=jnp.float32),
            "bfloat16",
        ),
        Row("adamw_on_device", "AdamW, slots on the device", lambda _: adamw(), workloads=("eight",)),
        Row("adamw_offloaded", "AdamW, slots on the host", lambda _: adamw(), workloads=("eight",), offloaded=True),
    ]
    coded = [row.name for row in stored] + ["adamw_int8", "adamw_companded8"]
    more = {
        "gpt2": ("sgd", "momentum", "adamw", "clip_adamw", "guard_clip_adamw", "lion", "lamb", "adafactor", *coded),
        "gpt2_fsdp": ("adamw", "lamb", "adafactor", *coded),
        "gpt2_tensor": ("lamb", "adafactor"),
        "small": ("adamw", "clip_adamw", "guard_clip_adamw", "adamw_packed", "accumulate", "lamb"),
    }
    for name in (name for names in more.values() for name in names):
        if name not in {row.name for row in rows}:
            raise ValueError(f"no row is named {name!r}")
    return [
        dataclasses.replace(row, workloads=(*row.workloads, *(w for w, names in more.items() if row.name in names)))
        for row in rows
    ]


def shapes(workload: str) -> dict[str, tuple[int, ...]]:
    """The parameters by path: one leaf of 32M, eight of 2M, GPT-2 small, or 200 leaves of 1024."""
    from workloads import gpt2, one_leaf

    return {
        "leaf": one_leaf,
        "eight": lambda: {f"layer_{i}/weight": (2048, 1024) for i in range(8)},
        **dict.fromkeys(("gpt2", *SPLITS), gpt2),
        "small": lambda: {f"layer_{i}/{name}": (1024,) for i in range(100) for name in ("weight", "bias")},
    }[workload]()


def measured(
    row: Row, workload: str, device: str, libraries: Sequence[str] = ("chainax", "optax")
) -> dict[str, dict[str, float]]:
    """The facts of a row by library, for those that have it."""
    of = shapes(workload)
    norm = 0.2 * math.sqrt(sum(map(math.prod, of.values())))
    makers = {"chainax": row.chainax, "optax": row.optax or (lambda _: None)}
    made = {library: make(norm) for library, make in makers.items() if library in libraries}
    steps = {library: tx.step if library == "chainax" else _step_in_optax(tx) for library, tx in made.items() if tx}
    return {
        library: compiled(
            step, made[library].init, of, row.dtype, device, offloaded=row.offloaded, split=SPLITS.get(workload, "")
        )
        for library, step in steps.items()
    }


def _step_in_optax(tx: Any) -> Callable[..., Any]:
    import optax

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def compiled(
    step: Callable[..., Any],
    init: Callable[[Any], Any],
    of: dict[str, tuple[int, ...]],
    dtype: str,
    device: str,
    *,
    offloaded: bool = False,
    split: str = "",
) -> dict[str, float]:
    """A donated step compiled for one chip, or for those among which the leaves are split.

    The figures are bytes a parameter of those that a chip has, and counts.
    """
    import jax
    from hlo import Module

    where = placement(device, split, mesh=offloaded)  # without a mesh, abstract arrays do not know their memory

    def placed(tree: Any, memory: str = "device") -> Any:
        def on(x: Any) -> Any:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where(x.shape).with_memory_kind(memory))

        return jax.tree.map(on, tree)

    params = placed({path: jax.ShapeDtypeStruct(shape, dtype) for path, shape in of.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of donated buffers that a library does not reuse
        state = placed(jax.eval_shape(init, params))
        if offloaded:
            state = state._replace(links=placed(state.links, "pinned_host"))
        outputs = jax.tree.map(lambda x: x.sharding, (params, state)) if split else None
        step = jax.jit(step, donate_argnums=(0, 1), out_shardings=outputs)
        made = step.lower(params, state, params).compile()
    memory: Any = made.memory_analysis()
    module = Module(made.as_text() or "")
    size = sum(map(math.prod, of.values())) / (CHIPS if split else 1)
    return {
        "arguments": memory.argument_size_in_bytes / size,
        "temporaries": memory.temp_size_in_bytes / size,
        "peak": (memory.peak_memory_in_bytes - memory.host_argument_size_in_bytes) / size,
        "traffic": module.traffic() / size,
        "idle": module.idle_traffic() / size,
        "kernels": module.kernels(),
        "copies": module.count("copy"),
        "gathers": module.count("gather"),
        "all-gathers": module.collectives("all-gather"),
    }


def placement(device: str, split: str, mesh: bool) -> Callable[[tuple[int, ...]], Any]:
    """The sharding of an array of a shape: on one chip, or split among several along an axis that they divide."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    devices = chips(device, CHIPS if split else 1)
    if not split and not mesh:
        return lambda shape: jax.sharding.SingleDeviceSharding(devices[0])
    every = jax.sharding.Mesh(devices, "x")

    def where(shape: tuple[int, ...]) -> Any:
        axes = {"": (), "fsdp": range(len(shape)), "tensor": range(max(1, len(shape) - 1), len(shape))}[split]
        axis = next((i for i in axes if shape[i] % CHIPS == 0), None)
        return NamedSharding(every, PartitionSpec(*(() if axis is None else (*[None] * axis, "x"))))

    return where


def chips(device: str, count: int) -> Any:
    """The first chips of a topology of that kind."""
    from jax.experimental import topologies

    if device in TPUS:
        name = TPUS[device] if count == 1 else f"{device}:{SLICES[device]}"
        return topologies.get_topology_desc(name, platform="tpu").devices[:count]
    shape = f"1x1x{count}"
    return topologies.get_topology_desc(platform="cuda", target_config=GPUS[device], topology=shape).devices


COLUMNS = {
    "arguments": 1,
    "temporaries": 2,
    "peak": 1,
    "traffic": 1,
    "kernels": 0,
    "copies": 0,
    "gathers": 0,
    "all-gathers": 0,
}
"""What is counted, and with how many decimals it is shown."""

ABOUT = """\
# What the compilers for TPUs and GPUs make of a step

`make aot` writes this file: do not change it by hand. **Nothing here was executed, and nothing is a time.** The \
compilers for the devices ran on a machine that has none of them ({versions}). Each cell is chainax, then Optax \
where it has the same. Bytes are bytes a parameter of one donated step: arguments are parameters, state and \
gradients; temporaries come on top of them; peak is the most that is allocated at once; traffic is what the kernels \
read from and write to main memory, counted in the optimized HLO, with a TPU's padding. Kernels are those of one \
step, with the longer branch of a condition, and without what a TPU computes with a single number; copies and gathers \
are counted wherever they stand. On several chips, all bytes are those of one chip per parameter that it holds."""

TITLES = {
    "leaf": "One leaf of 32M",
    "eight": "Eight leaves of 2M",
    "gpt2": "GPT-2 small, 124M in 148 leaves",
    "gpt2_fsdp": "GPT-2 small on 16 chips, its leaves split along the first axis that 16 divides",
    "gpt2_tensor": "GPT-2 small on 16 chips, its matrices split along the last axis",
    "small": "200 leaves of 1024",
}


def _write(found: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(markdown(found), encoding="utf-8")


def markdown(found: dict[str, Any]) -> str:
    """The tables of a workload and device each."""
    titles = {row.name: row.title for row in all_rows()}
    parts = [ABOUT.format(versions=", ".join(f"{k} {v}" for k, v in found["versions"].items()))]
    for workload, title in TITLES.items():
        for device in (*TPUS, *GPUS):
            body = list(_cells(found["rows"], workload, device, titles))
            if body:
                head = ["", *COLUMNS]
                rule = ["---", *("--:" for _ in COLUMNS)]
                lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]
                parts.append("\n".join((f"## {title}, {device}", "", *lines)))
    return "\n\n".join(parts) + "\n"


def _cells(rows: dict[str, Any], workload: str, device: str, titles: dict[str, str]) -> Iterator[list[str]]:
    for name, title in titles.items():
        facts = rows.get(f"{workload} {name}", {}).get(device)
        if facts:
            yield [title, *(" / ".join(_shown(of[column], column) for of in facts.values()) for column in COLUMNS)]


def _shown(x: float, column: str) -> str:
    return f"{x:.{COLUMNS[column]}f}"


def _line(facts: dict[str, float]) -> str:
    return "  ".join(f"{column} {_shown(x, column)}" for column, x in facts.items() if column in COLUMNS)


if __name__ == "__main__":
    sys.exit(main())
