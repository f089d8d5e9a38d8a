"""Pieces of HTML. All text is escaped here, and nowhere else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #fff; --raised: #f5f6f8; --text: #1c2024; --quiet: #5a636d; --line: #d5d9df; --accent: #0b62a8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171a; --raised: #1f2428; --text: #e4e7ea; --quiet: #a2abb5; --line: #3a424a; --accent: #7cc0f5;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0.5rem 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.75rem; padding-top: 0.75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 0.5rem; }
h1, h2, h3, p, li, dd, summary { overflow-wrap: anywhere; }
p, ul { max-width: 46rem; }
.conclusion { font-size: 1.1rem; padding: 0.75rem 1rem; background: var(--raised); }
.conclusion { border-left: 4px solid var(--accent); }
caption { color: var(--quiet); font-size: 0.9rem; }
.scroll { overflow-x: auto; margin: 1rem 0; max-width: 100%; }
.tall { max-height: 32rem; overflow-y: auto; }
[tabindex]:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.4rem; }
th, td { padding: 0.35rem 0.9rem 0.35rem 0; text-align: left; vertical-align: top; white-space: nowrap; }
th, td { border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 600; }
tbody th { font-weight: 600; }
.number { text-align: right; }
.words { white-space: normal; min-width: 14rem; max-width: 30rem; }
th.words { min-width: 6rem; max-width: 16rem; }
figure { margin: 1rem 0; overflow-x: auto; }
img { display: block; max-width: 100%; min-width: 36rem; height: auto; }
img { background: #fff; padding: 0.5rem; border-radius: 6px; }
.code { background: var(--raised); border-radius: 6px; }
pre { margin: 0; padding: 0.75rem 1rem; width: max-content; font-size: 0.85rem; }
pre, code { font-family: ui-monospace, "DejaVu Sans Mono", Consolas, monospace; }
details { margin: 0.75rem 0; }
summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1.25rem; }
dt { color: var(--quiet); }
dd { margin: 0; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 0.5rem; } }
@media print { .scroll, .tall { overflow: visible; max-height: none; } }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, body: Sequence[str]) -> str:
    """A page that requests nothing: the style and the pictures are in it."""
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            f"<h1>{escape(title)}</h1>",
            *body,
            "</main>",
            "</body>",
            "</html>",
            "",
        )
    )


def heading(level: int, text: str) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph, with a class of the style sheet."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def bullets(lines: Sequence[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def terms(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of terms and what they are."""
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{escape(text)}</dd>' for term, text in pairs)}</dl>"


def code(text: str, label: str) -> str:
    """A block of code, which scrolls; ``label`` is for screen readers."""
    block = f"<pre><code>{escape(text)}</code></pre>"
    return f'<section class="scroll code" tabindex="0" aria-label="{escape(label)}">{block}</section>'


def folded(title: str, body: str) -> str:
    """Something that opens by a click."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def table(cells: Sequence[Sequence[str]], caption: str, words: Sequence[int] = (), tall: bool = False) -> str:
    """A table that scrolls, of a heading and rows, the first cell of each being its name.

    Columns of numbers are aligned to the right. ``words`` are columns whose cells may be wrapped.
    """
    head, *rows = cells
    kinds = ["words" if i in words else "number" if _numeric(x) else "" for i, x in enumerate(zip(*rows))]
    kinds = [f' class="{kind}"' if kind else "" for kind in kinds or [""] * len(head)]
    parts = [f'<section class="scroll{" tall" * tall}" tabindex="0" aria-label="{escape(caption)}">']
    parts += [f"<table><caption>{escape(caption)}</caption>", "<thead><tr>"]
    parts += [f'<th scope="col"{kind}>{escape(text)}</th>' for text, kind in zip(head, kinds)]
    parts.append("</tr></thead><tbody>")
    for first, *others in rows:
        parts.append(f'<tr><th scope="row"{kinds[0]}>{escape(first)}</th>')
        parts += [f"<td{kind}>{escape(text)}</td>" for text, kind in zip(others, kinds[1:])]
        parts.append("</tr>")
    return "".join([*parts, "</tbody></table></section>"])


def _numeric(column: Sequence[str]) -> bool:
    def is_number(text: str) -> bool:
        try:
            float(text)
        except ValueError:
            return False
        return True

    return any(map(is_number, column)) and all(is_number(x) or x in ("", "diverged", "unknown") for x in column)


def figure(drawn: Any, alt: str) -> str:
    """A matplotlib figure as an SVG within the page."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "chainax"}):  # the same picture gives the same bytes
        file = io.BytesIO()
        drawn.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    source = f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f'<figure tabindex="0"><img src="{source}" alt="{escape(alt)}"></figure>'
