"""The progress of a sweep. The bar needs rich: ``pip install "chainax[sweep]"``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Tell = Callable[[str, int], None]
"""Takes what is being done now, and the number of chains finished since the last call."""


@contextlib.contextmanager
def progress_bar(total: int, show: bool) -> Iterator[Tell]:
    """A bar drawn by rich, or a line of text without it. Nothing if standard error is not a terminal."""
    if not show:
        yield lambda what, count: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield _Line(total).tell
        return
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not (console.is_terminal or console.is_jupyter)) as bar:
        task = bar.add_task("sweep", total=total)
        yield lambda what, count: bar.update(task, description=what, advance=count)


class _Line:
    """Progress without rich."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def tell(self, what: str, count: int) -> None:
        self.done += count
        if sys.stderr.isatty():
            end = "\n" if self.done == self.total else ""
            print(f"\r{self.done}/{self.total} chains, {what}", end=end, file=sys.stderr, flush=True)
