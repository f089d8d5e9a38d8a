"""Argument types of the examples. An invalid option ends the program with status 2 and a line that says why."""

import argparse
import math
import os
import pathlib
from collections.abc import Callable


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type: an integer of at least ``low``."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {low}, got {text!r}")
        return number

    return parse


def positive(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number


def file_in(*endings: str) -> Callable[[str], pathlib.Path]:
    """An argparse type: the path of a file with one of these endings that can be written."""
    words = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))

    def parse(text: str) -> pathlib.Path:
        path = pathlib.Path(text)
        if path.suffix not in endings:
            raise argparse.ArgumentTypeError(f"must end in {words}, got {text!r}")
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise argparse.ArgumentTypeError(f"cannot write to {text!r}: is the directory there, and writable?")
        return path

    return parse


def folder(text: str) -> pathlib.Path:
    """An argparse type: a directory that can be written to, or made."""
    path = pathlib.Path(text)
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write to {text!r}: is it a directory, and writable?")
    return path


picture, page = file_in(".png", ".pdf", ".svg"), file_in(".html")
