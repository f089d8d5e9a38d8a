"""The report of a comparison that lies in a folder."""

from __future__ import annotations

import os
import pathlib

from .comparison import Comparison


def report_folder(folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Write the page of a saved comparison, by default ``report.html`` within its folder, and return its path.

    Errors: those of ``Comparison.load`` and of ``Comparison.report``.
    """
    found = Comparison.load(folder)
    return found.report(pathlib.Path(folder) / "report.html" if output is None else output)
