"""Warnings that point at the caller's line."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path

import jax

PACKAGES = (str(Path(__file__).parents[2]), str(Path(jax.__file__).parent), contextlib.__file__)


class ChainWarning(UserWarning):
    """A chain whose order is almost certainly a mistake, or a setting that has no effect."""


def warn(text: str) -> None:
    """Warn at the innermost line outside chainax and JAX. Long texts are truncated."""
    frame, level = sys._getframe(1), 2
    while frame.f_code.co_filename.startswith(PACKAGES) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    warnings.warn(text if len(text) <= 1000 else f"{text[:1000]}...", ChainWarning, stacklevel=level)
