"""Compare three places of the weight decay, for AdamW and for Muon, on a small transformer language model.

Coupled: before the preconditioner. Decoupled: behind it, scaled by the learning rate. Independent: a step of its own.
Each of the six groups has as many settings, rates by decays around the best of a few trial runs, and all settings of
all groups start from the same seeds, which determine the initial parameters and the batches. The network and the
text are those of `transformer.py`, with 2 layers of width 32; only hidden matrices decay, in all groups. `cx.compare`
chooses the settings, trains the best of each group from further seeds, and tests the differences of these runs.

Prints the comparison, and writes it to ``lm_orders.html``. All runs take about twenty minutes on two idle cores. They
are short, so that the decay has little time to act: they say nothing about runs of many passes over a text.
"""

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
from arguments import at_least, folder, page
from train_lm import with_decay
from transformer import MATRICES, OTHERS, initial_params, language_reference, loss, random_batch

LAYERS, WIDTH, BATCH = 2, 32, 8
POINTS = 10  # of a curve
RATES = {"AdamW": (8e-3, 6.4e-2), "Muon": (1e-2, 8e-2)}
DECAYS = {  # for each order, as their meanings differ
    "coupled": {"AdamW": (0.3, 100.0), "Muon": (1e-5, 1e-2)},
    "decoupled": {"AdamW": (0.5, 32.0), "Muon": (0.05, 3.0)},
    "independent": {"AdamW": (0.03, 1.0), "Muon": (2e-4, 1e-2)},
}


# The optimizers


def without_decay(name: str, rate: float, steps: int) -> cx.chain:
    """AdamW for all parameters, or Muon for the hidden matrices, with updates of AdamW's size."""
    schedule = cx.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps)
    adamw = cx.adamw(schedule, b2=0.95, weight_decay=None)
    if name == "AdamW":
        return adamw
    others = cx.by_path({OTHERS: adamw})
    return cx.muon(schedule, weight_decay=None, sizing="rms", matrices=MATRICES, adam=others)


def groups(steps: int, size: int) -> dict[str, list[cx.chain]]:
    """For each optimizer and order, ``size`` rates times ``size`` decays."""
    return {
        f"{name}, {order}": [
            with_decay(without_decay(name, rate, steps), order, decay)
            for rate in np.geomspace(*RATES[name], size).tolist()
            for decay in np.geomspace(*decays[name], size).tolist()
        ]
        for name in RATES
        for order, decays in DECAYS.items()
    }


# Training


def train(tx: cx.chain, seed: Any, text: jax.Array, held_out: jax.Array, size: int, steps: int) -> dict[str, jax.Array]:
    """The held-out loss at the end of a run, and at points along it."""
    first, batches = jax.random.split(jax.random.key(seed))
    params = initial_params(first, size, LAYERS, WIDTH)

    def step(run: Any, i: jax.Array) -> tuple[Any, None]:
        params, state = run
        batch = random_batch(jax.random.fold_in(batches, i), text, BATCH)
        return tx.step(params, state, jax.grad(loss)(params, batch)), None

    def interval(run: Any, steps: jax.Array) -> tuple[Any, jax.Array]:
        run, _ = jax.lax.scan(step, run, steps)
        return run, loss(run[0], held_out)

    _, losses = jax.lax.scan(interval, (params, tx.init(params)), jnp.arange(steps).reshape(POINTS, -1))
    return {"loss": losses[-1], "losses": losses}


# The command line


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all settings from all seeds, print the comparison, and write the report."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--steps", type=at_least(1), default=200, metavar="N", help=f"a multiple of {POINTS}")
    parser.add_argument("--grid", type=at_least(2), default=4, metavar="N", help="rates, and decays, of each group")
    parser.add_argument("--seeds", type=at_least(2), default=4, metavar="N", help="runs of each setting")
    parser.add_argument("--fresh", type=at_least(2), default=12, metavar="N", help="further runs of each best setting")
    parser.add_argument("--folder", type=folder, metavar="DIR", help="keeps finished runs; go on from there")
    parser.add_argument("--output", type=page, default="lm_orders.html", metavar="PATH", help="where to report")
    chosen, began = parser.parse_args(arguments), time.perf_counter()
    if chosen.steps % POINTS:
        parser.error(f"argument --steps: must be a multiple of {POINTS}, got {chosen.steps}")
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)  # which share the settings
    text, settings = language_reference(), groups(chosen.steps, chosen.grid)
    constants = jnp.asarray(text.train), jnp.asarray(text.held_out[::2]), text.size, chosen.steps
    found = cx.compare(train, settings, *constants, seeds=chosen.seeds, fresh=chosen.fresh, folder=chosen.folder)
    print(found)
    found.report(chosen.output)
    runs = found.scores.size + len(settings) * chosen.fresh
    print(f"\n{runs} runs in {time.perf_counter() - began:.0f} s; report: {chosen.output}")


if __name__ == "__main__":
    main()
