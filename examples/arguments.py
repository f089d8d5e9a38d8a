"""Argument types of the examples. An invalid option ends the program with status 2 and a line that says why."""

import argparse
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


def picture(text: str) -> pathlib.Path:
    """An argparse type: the path of a picture that can be written."""
    path = pathlib.Path(text)
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"must end in .png, .pdf or .svg, got {text!r}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write to {text!r}: is the directory there, and writable?")
    return path
