"""Train a small language model with any optimizer of chainax, and see what the library does along the way.

The network and its text, 313 thousand characters of Python 3.11's language reference, are those of `transformer.py`.
Some ways to call this program:

    python examples/train_lm.py --optimizer muon
    python examples/train_lm.py --optimizer my_chain.json --order coupled --decay 0.001
    python examples/train_lm.py --optimizer lion --state int8 --bf16 kahan
    python examples/train_lm.py --devices 4 --shard fsdp
    python examples/train_lm.py --checkpoint run --every 100          # Ctrl-C at any time, and then
    python examples/train_lm.py --checkpoint run --every 100 --resume

Read it from the top: the optimizer is made and edited as a value, placed on devices, compiled into a step, saved with
its configuration, and resumed bit for bit; an optimizer that was edited in between adopts the state. Batches depend on
the seed and the number of the step alone. Prints the losses, and draws them in ``train_lm.png``.
"""

import argparse
import contextlib
import inspect
import json
import os
import pathlib
import shlex
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
from arguments import at_least, folder, picture, positive
from checkpoints import Checkpoints, interruptible
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformer import CONTEXT, HEADS, MATRICES, OTHERS, Text, initial_params, language_reference, loss, random_batch

RATES = {"adamw": 5e-3, "muon": 0.02, "lion": 5e-4, "soap": 5e-3}  # others have the library's defaults
DECAYS = {"coupled": 1e-3, "decoupled": 0.1, "independent": 5e-4}  # for these four
FORMATS = {"int8": cx.int8(), "int4": cx.int4(), "float8": cx.float8(), "companded8": cx.companded8()}
ROUNDINGS = ("nearest", "stochastic", "kahan", "ecc", "master")
READ_EVERY = 10  # steps, so that the loop does not wait for the device at each of them


# The optimizer: a value, made by a function of its name or from a file, and edited


def by_name(name: str, peak: float | None, steps: int) -> cx.chain:
    """A prebuilt optimizer, with a warm-up and a cosine if it takes a schedule."""
    make = getattr(cx, name)  # the error for an unknown name suggests another
    if not inspect.isfunction(make) or make.__module__ != cx.adamw.__module__:
        raise ValueError(f"{name!r} is no prebuilt optimizer, such as adamw")
    takes = inspect.signature(make).parameters
    if peak is not None and "learning_rate" not in takes:
        raise ValueError(f"{name!r} takes no learning rate: leave --rate out")
    own = takes["learning_rate"].default if "learning_rate" in takes else None
    peak = peak or RATES.get(name, own)
    if peak is inspect.Parameter.empty:
        raise ValueError(f"{name!r} has no default learning rate: give --rate")

    def schedule(peak: Any) -> Any:
        if peak is None or "warmup_steps" in takes:  # it has a schedule of its own
            return peak
        return cx.warmup_cosine_decay_schedule(0.0, peak, steps // 10, steps)

    beside = cx.adamw(schedule(RATES["adamw"]), b2=0.95, weight_decay=None)  # embeddings, norms and the head
    given = {
        "learning_rate": schedule(peak),
        "warmup_steps": steps // 10,
        "total_steps": steps,
        "matrices": MATRICES,
        "adam": cx.by_path({OTHERS: beside}),
    }
    return make(**{argument: x for argument, x in given.items() if argument in takes})


def from_file(path: pathlib.Path) -> cx.chain:
    """The optimizer in a file that holds ``json.dumps(cx.to_config(tx))``. Errors name the file, and what in it."""
    try:
        tx = cx.from_config(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as e:
        raise ValueError(f"{path}: {e.strerror if isinstance(e, OSError) else e}") from None
    if not isinstance(tx, cx.chain):
        raise ValueError(f"{path}: must hold a chain, got {tx}")
    return tx


def with_decay(tx: cx.chain, order: str, decay: float) -> cx.chain:
    """The weight decay at another place: before the preconditioner, before the learning rate, or after the step.

    It replaces the decay that the chain has. Only hidden matrices decay.
    """
    grouped = "partition" in tx  # embeddings, norms and the head apart
    where, main = ("partition/default/", tx["partition"].table.default) if grouped else ("", tx)
    roles = {where + name: link.role for name, link in main.links.items()}
    tx = tx.remove(*(path for path, role in roles.items() if role in ("decay", "decay_after")))
    amount = decay if grouped else cx.by_path({OTHERS: 0.0}, default=decay)
    rate = f"{where}scale_by_lr"
    if order == "independent":
        return tx.insert(cx.decay_after_step(amount), after=rate)
    first = next((path for path, role in roles.items() if role in ("precondition", "accumulate")), rate)
    return tx.insert(cx.add_decayed_weights(amount), before=first if order == "coupled" else rate)


def optimizer(chosen: argparse.Namespace) -> cx.chain:
    """The optimizer that the options ask for."""
    if chosen.optimizer.endswith(".json"):
        if chosen.rate is not None:
            raise ValueError(f"{chosen.optimizer} has a learning rate of its own: leave --rate out")
        tx = from_file(pathlib.Path(chosen.optimizer))
    else:
        tx = by_name(chosen.optimizer, chosen.rate, chosen.steps)
    if chosen.order:
        if chosen.decay is None and chosen.optimizer not in RATES:
            raise ValueError(f"--order needs --decay too, except for {', '.join(RATES)}")
        tx = with_decay(tx, chosen.order, chosen.decay or DECAYS[chosen.order])
    tx = tx.insert(cx.record("norm"), before=tx.names[0], name="gradient")
    if chosen.state:
        tx, plain = cx.store(tx, FORMATS[chosen.state]), tx
        if tx == plain:
            raise ValueError(f"{chosen.optimizer} keeps no state that --state could store: leave --state out")
    if chosen.bf16:
        tx = cx.chain(tx, cx.apply_update(chosen.bf16))
    return cx.chain(cx.zero1(tx, over="data")) if chosen.shard == "zero1" else tx


# Devices: shardings say how the parameters are divided, and the state follows them


def shardings(params: Any, mesh: Mesh, shard: str | None) -> Any:
    """The sharding of each parameter: in one piece on all devices or, for FSDP, along its longest axis."""

    def of(p: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [axis for axis, size in enumerate(p.shape) if size % mesh.size == 0]
        if shard != "fsdp" or not axes:
            return NamedSharding(mesh, P())
        longest = max(axes, key=lambda axis: p.shape[axis])
        return NamedSharding(mesh, P(*["data" if axis == longest else None for axis in range(p.ndim)]))

    return jax.tree.map(of, params)


# The step, compiled once


def compiled(tx: cx.chain, params: Any, state: Any, text: jax.Array, batch: int, seed: int) -> Callable[..., Any]:
    """``step(params, state, i) -> (params, state, numbers)``. What the chain cannot do is an error here."""
    reads_loss = any("value" in link.extra for link in tx.links.values())

    def step(params: Any, state: cx.State, text: jax.Array, i: jax.Array) -> tuple[Any, cx.State, dict[str, Any]]:
        windows = random_batch(jax.random.fold_in(jax.random.key(seed), i), text, batch)
        windows = jax.lax.with_sharding_constraint(windows, P("data"))
        value, grads = jax.value_and_grad(loss)(params, windows)
        params, state = tx.step(params, state, grads, **({"value": value} if reads_loss else {}))
        return params, state, {"loss": value, **cx.metrics(tx, state)}

    where = jax.tree.map(lambda x: x.sharding, (params, state))
    jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=(*where, None))
    run = jitted.lower(params, state, text, np.int32(0)).compile()
    return lambda params, state, i: run(params, state, text, np.int32(i))


def to_evaluate(tx: cx.chain, params: Any, state: cx.State) -> Any:
    """The parameters, or their average if the chain keeps one."""
    for read in (cx.read_average, cx.schedule_free_eval_params):
        with contextlib.suppress(KeyError):
            return read(tx, params, state)
    return params


def learning_rate(numbers: dict[str, Any]) -> Any:
    """That of the largest group of parameters, of those that a chain may have."""
    rates = {name: x for name, x in numbers.items() if "learning_rate" in name.split("/")}
    return rates[min(rates, key=lambda name: "default" not in name.split("/"))] if rates else np.nan


# The loop

Run = tuple[Callable[..., Any], Any, cx.State, dict[str, list], Checkpoints | None]
"""The step, parameters, state, and curves so far, with where they are saved."""


def begun(tx: cx.chain, chosen: argparse.Namespace, text: Text, mesh: Mesh) -> Run:
    """A new run, or the last checkpoint of one. What the chain cannot do or the checkpoint does not fit is an error."""
    dtype = jnp.bfloat16 if chosen.bf16 else jnp.float32

    def initial() -> Any:
        params = initial_params(jax.random.key(chosen.seed), text.size, chosen.layers, chosen.width)
        return jax.tree.map(lambda p: p.astype(dtype), params)

    params = jax.jit(initial, out_shardings=shardings(jax.eval_shape(initial), mesh, chosen.shard))()
    state = tx.init(params)  # lies where the parameters lie
    curves: dict[str, list] = {name: [] for name in ("loss", "rate", "norm", "held_out")}
    checkpoints = None
    if chosen.checkpoint:
        fixed = {name: getattr(chosen, name) for name in ("layers", "width", "batch", "seed")}
        about = {**fixed, "dtype": dtype.__name__, "characters": len(text.train)}
        checkpoints = Checkpoints(chosen.checkpoint, about)
        last = checkpoints.manager.latest_step()
        if last is not None and not chosen.resume:
            raise ValueError(f"{chosen.checkpoint} holds a run at step {last}: give --resume, or another directory")
        if last is not None:
            params, state, curves = checkpoints.restore(tx, params)
        elif chosen.resume:
            print(f"No checkpoint in {chosen.checkpoint} yet: the run begins at its first step.")
    placed = jax.device_put(text.train, NamedSharding(mesh, P()))
    step = compiled(tx, params, state, placed, chosen.batch, chosen.seed)
    return step, params, state, curves, checkpoints


def train(tx: cx.chain, run: Run, held_out: jax.Array, chosen: argparse.Namespace, stop: threading.Event) -> int:
    """Train to the last step, or until interrupted. Extends the curves, and returns the number of steps."""
    step, params, state, curves, checkpoints = run
    evaluate = jax.jit(lambda params, state: loss(to_evaluate(tx, params, state), held_out))
    console, unread = Console(highlight=False, soft_wrap=True), []
    columns = BarColumn(), TextColumn("{task.completed}/{task.total} {task.description}"), TimeRemainingColumn()
    done, began = len(curves["loss"]), time.perf_counter()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=chosen.steps, completed=done)
        ends = done >= chosen.steps
        while not ends:
            params, state, numbers = step(params, state, done)
            unread.append(numbers)
            done += 1
            last = done == chosen.steps
            ends = last or stop.is_set()
            measured, kept = last or done % max(1, chosen.steps // 10) == 0, ends or done % chosen.every == 0
            if not (measured or kept or done % READ_EVERY == 0):
                continue
            append(curves, jax.device_get(unread))
            speed = len(unread) * chosen.batch * CONTEXT / (time.perf_counter() - began)
            loss_now, rate, norm = (curves[name][-1] for name in ("loss", "rate", "norm"))
            said = f"loss {loss_now:.3f}  rate {rate:.2g}  norm {norm:.3g}  {speed:,.0f} tokens/s"
            bar.update(task, completed=done, description=said)
            if measured:
                curves["held_out"].append((done, float(evaluate(params, state))))
                bar.console.print(f"step {done}/{chosen.steps}  held-out {curves['held_out'][-1][1]:.3f}  {said}")
            if checkpoints and kept:
                checkpoints.save(tx, params, state, curves)
            unread, began = [], time.perf_counter()
    return done


def append(curves: dict[str, list], numbers: Sequence[dict[str, Any]]) -> None:
    """Append the numbers of some steps."""
    for of in numbers:
        norm = next(x for name, x in of.items() if name == "norm" or name.endswith("gradient/norm"))
        for name, x in (("loss", of["loss"]), ("norm", norm), ("rate", learning_rate(of))):
            curves[name].append(float(x))


def draw(curves: dict[str, list], title: str, path: pathlib.Path) -> None:
    """The losses and the learning rate over the steps."""
    fig = Figure(figsize=(8, 5), layout="constrained")
    losses, rates = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    steps = np.arange(1, len(curves["loss"]) + 1)
    losses.plot(steps, curves["loss"], color="C0", lw=0.8, label="training, one batch a step")
    losses.plot(*np.array(curves["held_out"]).T, "o-", color="C1", label="held out")
    rates.plot(steps, curves["rate"], color="C2")
    losses.set(title=title, ylabel="loss, nats a character")
    rates.set(xlabel="steps", ylabel="learning rate")
    losses.legend()
    fig.savefig(path, dpi=150)


# The command line


def options(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """Parse the options. An invalid one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--optimizer", metavar="NAME", default="adamw", help="prebuilt, or a .json file of to_config")
    parser.add_argument("--rate", type=positive, metavar="α", help="peak learning rate; each optimizer has its own")
    parser.add_argument("--order", choices=tuple(DECAYS), help="where a weight decay stands")
    parser.add_argument("--decay", type=positive, metavar="λ", help=f"with --order; if left out, {DECAYS}")
    parser.add_argument("--state", choices=tuple(FORMATS), help="format of the optimizer's state")
    parser.add_argument("--bf16", choices=ROUNDINGS, help="bfloat16 parameters, rounded so")
    parser.add_argument("--devices", type=at_least(1), default=1, metavar="N", help="of a CPU, virtual ones")
    parser.add_argument("--shard", choices=("fsdp", "zero1"), help="divide parameters and state, or the state alone")
    parser.add_argument("--steps", type=at_least(1), default=500, metavar="N", help="steps of the run")
    parser.add_argument("--batch", type=at_least(1), default=16, metavar="N", help=f"windows of {CONTEXT} characters")
    parser.add_argument("--layers", type=at_least(1), default=3, metavar="N", help="layers of the network")
    parser.add_argument("--width", type=at_least(HEADS), default=64, metavar="N", help=f"a multiple of {HEADS}")
    parser.add_argument("--seed", type=at_least(1), default=1, metavar="N", help="of parameters and batches")
    parser.add_argument("--checkpoint", type=folder, metavar="DIR", help="where to save the run")
    parser.add_argument("--every", type=at_least(1), default=100, metavar="N", help="steps between checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--output", type=picture, default="train_lm.png", metavar="PATH", help="where to draw")
    chosen = parser.parse_args(arguments)
    if chosen.width % HEADS:
        parser.error(f"argument --width: must be a multiple of {HEADS}, got {chosen.width}")
    if chosen.batch % chosen.devices:
        parser.error(f"argument --batch: must be a multiple of {chosen.devices} devices, got {chosen.batch}")
    for option, needed in (("decay", "order"), ("resume", "checkpoint")):
        if getattr(chosen, option) and not getattr(chosen, needed):
            parser.error(f"argument --{option}: needs --{needed} too")
    if chosen.shard and chosen.devices == 1:
        parser.error("argument --shard: needs --devices of at least 2")
    return chosen, parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, save, print and draw. Returns the exit status: 0, or 130 if interrupted."""
    chosen, parser = options(arguments)
    flag = f"--xla_force_host_platform_device_count={chosen.devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"  # before JAX looks for devices
    devices, text = jax.devices()[: chosen.devices], language_reference()
    if len(devices) < chosen.devices:
        parser.error(f"argument --devices: there are {len(devices)}, got {chosen.devices}")
    mesh = jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)
    with interruptible() as stop, jax.set_mesh(mesh):
        wrong = "argument --optimizer: "
        try:
            tx, wrong = optimizer(chosen), ""
            run = begun(tx, chosen, text, mesh)
        except (TypeError, ValueError, KeyError, AttributeError, ModuleNotFoundError) as e:
            parser.error(wrong + " ".join(str(e).split()))
        _, params, _, curves, checkpoints = run
        print(f"{tx.describe(params)}\n")
        done = train(tx, run, jnp.asarray(text.held_out), chosen, stop)
        if checkpoints:
            checkpoints.manager.close()  # which waits until all is written
    if done < chosen.steps:
        given = sys.argv[1:] if arguments is None else [*arguments]
        command = shlex.join([sys.argv[0], *given, *([] if chosen.resume else ["--resume"])])
        next_step = f"go on with: python {command}" if checkpoints else "without --checkpoint, nothing is saved"
        print(f"Interrupted after step {done} of {chosen.steps}; {next_step}")
        return 130
    size = sum(p.size for p in jax.tree.leaves(params))
    draw(curves, f"{chosen.optimizer}, {size:,} parameters", chosen.output)
    final = curves["held_out"][-1][1]
    print(f"held-out loss after {done} steps: {final:.4f} nats a character; picture: {chosen.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
