"""``python -m chainax``: see `command_line`."""

import io
import sys

from .command_line import main

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # equations have Greek letters
    sys.exit(main())
