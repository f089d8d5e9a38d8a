"""The command line: what a configuration file holds, how two differ, which orders a chain has; reports of folders."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .core.facade.config import from_config
from .core.facade.transformation import Transformation
from .core.values.contents import brief
from .laboratory.orders import orders
from .laboratory.report import report_folder
from .laboratory.trajectory import quiet


class BadFile(Exception):
    """A file that cannot be used. The message is a line for people."""


class Command(NamedTuple):
    """A subcommand: ``run`` takes the parsed arguments, prints, and returns the exit code."""

    about: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], Any]
    run: Callable[[argparse.Namespace], int]
    trouble: int = 1
    """The exit code for a file that cannot be used."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0, 1 for a file that cannot be used, 2 for wrong usage.

    ``diff`` returns 0 if the chains are equal, 1 if they differ and 2 for trouble, as the command of this name does.
    """
    parser = argparse.ArgumentParser(
        prog="python -m chainax",
        description="Tools for chains in JSON files, as `json.dump(cx.to_config(tx), file)` writes them, and for the "
        "folders of `cx.compare`.",
        epilog="example: " + COMMANDS["describe"].example,
    )
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        one = parsers.add_parser(
            name, help=command.about, description=command.about, epilog=f"example: {command.example}"
        )
        command.arguments(one)
    arguments = parser.parse_args(argv)
    command = COMMANDS[arguments.command]
    try:
        return command.run(arguments)
    except BadFile as e:
        print(f"{parser.prog} {arguments.command}: {e}", file=sys.stderr)
        return command.trouble


def read_chain(file: str) -> Transformation:
    """The chain or link in a file. Warnings about its order go to stderr; raises `BadFile`."""
    try:
        tx, warned = quiet(lambda: from_config(json.loads(Path(file).read_text(encoding="utf-8"))))
    except OSError as e:
        raise BadFile(f"{file}: {e.strerror or e}") from None
    except json.JSONDecodeError as e:
        raise BadFile(f"{file}: not JSON: {e}") from None
    except UnicodeDecodeError:
        raise BadFile(f"{file}: not text in UTF-8") from None
    except RecursionError:
        raise BadFile(f"{file}: nested too deeply") from None
    except ValueError as e:
        raise BadFile(f"{file}: {_one_line(e)}") from None
    if not isinstance(tx, Transformation):
        raise BadFile(f"{file}: holds {brief(tx)}, which is neither a chain nor a link")
    for text in warned:
        print(f"{file}: warning: {text}", file=sys.stderr)
    return tx


def _one_line(e: Exception) -> str:
    return " ".join(str(e).split()) or type(e).__name__


def _describe(arguments: argparse.Namespace) -> int:
    print(read_chain(arguments.config).describe())
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    a, b = read_chain(arguments.a), read_chain(arguments.b)
    if a == b:
        return 0
    print(a.diff(b))
    return 1


def _orders(arguments: argparse.Namespace) -> int:
    tx = read_chain(arguments.config)
    try:
        print(orders(tx, arguments.move))
    except (KeyError, TypeError, ValueError) as e:
        raise BadFile(f"{arguments.config}: {_one_line(e)}") from None
    return 0


def _report(arguments: argparse.Namespace) -> int:
    try:
        print(report_folder(arguments.folder, arguments.output))
    except (OSError, ValueError, ImportError) as e:
        raise BadFile(_one_line(e)) from None
    return 0


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="what `cx.compare(..., folder=FOLDER)` wrote")
    parser.add_argument("--output", metavar="PAGE.html", help="where to write (default: report.html in the folder)")


def _orders_arguments(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    parser.add_argument(
        "--move",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="links to move, by name or path (default: all weight decays and clips)",
    )


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.json")


def _two_configs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A.json")
    parser.add_argument("b", metavar="B.json")


COMMANDS = {
    "describe": Command(
        "print the equations, hyperparameters and kind of weight decay of a chain",
        "python -m chainax describe adamw.json",
        _config,
        _describe,
    ),
    "diff": Command(
        "print how B differs from A; the exit code is 0 if they are equal, else 1, and 2 for trouble",
        "python -m chainax diff old.json new.json",
        _two_configs,
        _diff,
        trouble=2,
    ),
    "orders": Command(
        "print all placements of some links but for mistakes, equivalent ones merged, and how much updates differ",
        "python -m chainax orders adamw.json --move add_decayed_weights clip_by_global_norm",
        _orders_arguments,
        _orders,
    ),
    "report": Command(
        "write the report of a comparison as one HTML page, and print where it is",
        "python -m chainax report runs/decay --output decay.html",
        _report_arguments,
        _report,
    ),
}
"""The subcommands, by name."""
