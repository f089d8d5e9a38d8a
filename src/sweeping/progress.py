"""The progress of a sweep. The bar needs rich: ``pip install "chainax[sweep]"``."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Tell = Callable[[str, int], None]
"""Takes what is being done now, and the number of runs finished since the last call."""


@contextlib.contextmanager
def progress_bar(total: int, done: int, show: bool) -> Iterator[Tell]:
    """A bar with the time left, drawn by rich, or a line of text without it. Nothing if stderr is not a terminal.

    ``done`` of the runs were finished before.
    """
    if not show:
        yield lambda what, count: None
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        yield _Line(total, done).tell
        return
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    left = TextColumn("left"), TimeRemainingColumn()
    shown = console.is_terminal or console.is_jupyter
    with Progress(*columns, *left, console=console, disable=not shown, speed_estimate_period=3600) as bar:
        task = bar.add_task("sweep", total=total, completed=done)
        yield lambda what, count: bar.update(task, description=what, advance=count)


class _Line:
    """Progress without rich."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.before, self.began = total, done, done, time.monotonic()

    def tell(self, what: str, count: int) -> None:
        self.done += count
        if sys.stderr.isatty():
            new, left = self.done - self.before, ""
            if new and self.done < self.total:
                left = f", {(time.monotonic() - self.began) * (self.total - self.done) / new:.0f} s left"
            end = "\n" if self.done == self.total else ""
            print(f"\r{self.done}/{self.total} runs, {what}{left}", end=end, file=sys.stderr, flush=True)
