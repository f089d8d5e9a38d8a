"""Warnings that point at the user's line."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

PACKAGE = str(Path(__file__).parent.parent)


class ChainWarning(UserWarning):
    """A chain that cannot be meant, or a part of it that has no effect."""


def warn(text: str) -> None:
    """Warn at the nearest line that is not chainax's own; of a text that is too long to be read, in its beginning."""
    frame, level = sys._getframe(1), 2
    while frame.f_code.co_filename.startswith(PACKAGE) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    warnings.warn(text if len(text) <= 1000 else f"{text[:1000]}...", ChainWarning, stacklevel=level)
