"""Tables as text."""

from __future__ import annotations

from collections.abc import Container, Sequence


def aligned(cells: Sequence[Sequence[str]], left: Container[int] = (0,)) -> str:
    """Rows of cells as lines, each column as wide as its longest cell; those in ``left`` are aligned to the left.

    >>> print(aligned([["link", "bytes"], ["trace", "4"]]))
    link   bytes
    trace      4
    """
    widths = [max(map(len, column)) for column in zip(*cells)]
    sides = [str.ljust if i in left else str.rjust for i in range(len(widths))]
    return "\n".join("  ".join(f(x, n) for f, x, n in zip(sides, row, widths)).rstrip() for row in cells)
