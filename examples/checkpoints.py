"""Checkpoints of a run with Orbax, each with the chain that its state is of, and a Ctrl-C that loses nothing.

A chain is saved by `cx.to_config`. If the optimizer has been edited since, `tx.adopt` takes what the state has.
"""

import contextlib
import pathlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import chainax as cx


class Checkpoints:
    """The checkpoints of a run in a folder, the last two of which are kept."""

    def __init__(self, folder: pathlib.Path, about: dict[str, Any]) -> None:
        try:
            import orbax.checkpoint as ocp
        except ModuleNotFoundError:
            raise ModuleNotFoundError('--checkpoint needs Orbax: pip install "chainax[examples]"') from None
        self.ocp, self.folder, self.about = ocp, folder, about
        self.manager = ocp.CheckpointManager(folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2))

    def save(self, tx: cx.chain, params: Any, state: cx.State, curves: dict[str, list]) -> None:
        """Copy what a run needs in order to go on, and write it in the background."""
        done, save = len(curves["loss"]), self.ocp.args
        if self.manager.latest_step() != done:
            about = {**self.about, "chain": cx.to_config(tx), "born": [*state.born], "curves": curves}
            run = save.StandardSave({"params": params, "state": state})
            self.manager.save(done, args=save.Composite(run=run, about=save.JsonSave(about)))

    def restore(self, tx: cx.chain, params: Any) -> tuple[Any, cx.State, dict[str, list]]:
        """The last checkpoint, on the devices of ``params``. If the chain has changed, it adopts the state."""
        step, restore = self.manager.latest_step(), self.ocp.args
        about = self.manager.restore(step, args=restore.Composite(about=restore.JsonRestore()))["about"]
        for name, own in self.about.items():
            if about[name] != own:
                raise ValueError(f"the run in {self.folder} has {name} {about[name]}, got {own}")
        old = cx.from_config(about["chain"])
        target = old.abstract_state(params)
        target = target._replace(born=dict.fromkeys(about["born"], target.step))
        like = {"params": params, "state": target}
        run = self.manager.restore(step, args=restore.Composite(run=restore.StandardRestore(like)))["run"]
        if tx == old:
            return run["params"], run["state"], about["curves"]
        print(f"The optimizer is another than the checkpoint's, and adopts its state:\n{old.diff(tx)}\n")
        state, _ = tx.adopt(run["params"], run["state"], old=old)
        return run["params"], state, about["curves"]


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the loop ends between two steps. A second Ctrl-C ends the program."""
    stop = threading.Event()

    def on_signal(*_: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
