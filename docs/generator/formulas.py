"""The links' equations, lines of Unicode such as ``u ← m̂ / (√v̂ + ε)``, as MathML, which browsers render themselves."""

from __future__ import annotations

import re
import unicodedata
from html import escape
from typing import NamedTuple

FUNCTIONS = frozenset(
    ["max", "min", "sign", "diag", "tanh", "clip", "mean", "triu", "round", "RMS", "NaN", "tx", "Re", "Im"]
)
"""Words that are set as the names of functions."""
SHORT_WORDS = frozenset(["of", "if", "or", "is", "in", "at", "by", "no", "as", "on", "tx", "Re", "Im"])
"""Words of two letters. Any other two letters are a product, and three or more are a word."""
TOKEN = re.compile(
    r"""(?P<word>-?[A-Za-z]{{3,}}(?:[-'’][A-Za-z]+)*|\b(?:{})\b)
      | (?P<number>\d+(?:\.\d+)?|½)
      | (?P<letter>[^\W\d_][\u0302\u0304\u0332]?|[∇∞])
      | (?P<times>·)
      | (?P<operator>[←=+−<>≤≥≠~±,:;])
      | (?P<root>[√∛])
      | (?P<divide>/)
      | (?P<open>\()
      | (?P<close>\))
      | (?P<bar>[‖|])
      | (?P<script>[\^_′*])""".format("|".join(sorted(SHORT_WORDS))),
    re.VERBOSE,
)
ACCENTS = {"\u0302": ("mover", "^"), "\u0304": ("mover", "¯"), "\u0332": ("munder", "_")}


SPACE = '<mspace width="0.25em"/>'


class Token(NamedTuple):
    """A piece of an equation, and whether a space precedes it."""

    kind: str
    text: str
    spaced: bool


class Node(NamedTuple):
    """A piece of MathML. ``bare`` is the same without its parentheses, for fractions, roots and exponents."""

    kind: str
    markup: str
    bare: str
    spaced: bool


def statements(equation: str) -> list[str]:
    """The statements of an equation, which a comma or a semicolon and two spaces separate."""
    return [part.rstrip(",;") for part in re.split(r"(?<=[,;])  +", equation.strip())]


def mathml(equation: str) -> str:
    """A block of MathML for each statement.

    Errors: ``ValueError`` for a character that is not understood, and for parentheses that do not match.

    >>> mathml("u ← u / √s")
    '<math display="block"><mi>u</mi><mo>←</mo><mfrac><mi>u</mi><msqrt><mi>s</mi></msqrt></mfrac></math>'
    """
    return "\n".join(f'<math display="block">{Parser(part).whole()}</math>' for part in statements(equation))


def inline(symbol: str) -> str:
    """A symbol within text."""
    return f"<math>{Parser(symbol).whole()}</math>"


def tokens(text: str) -> list[Token]:
    """The tokens of a statement. Raised and lowered characters have the kinds ``super`` and ``sub``."""
    text = "".join(unicodedata.normalize("NFD", c) if c.isalpha() else c for c in text)
    found, at = [], 0
    while rest := text[at:].lstrip():
        start = len(text) - len(rest)
        kind = {"<super>": "super", "<sub>": "sub"}.get(unicodedata.decomposition(rest[0]).partition(" ")[0])
        match = TOKEN.match(text, start)
        if kind is None and (match is None or match.lastgroup is None):
            raise ValueError(f"cannot set {rest[0]!r} of {text!r}: add it to `TOKEN`")
        piece, kind = (rest[0], kind) if kind else (match[0], match.lastgroup)  # pyright: ignore[reportOptionalSubscript, reportOptionalMemberAccess]
        found.append(Token(str(kind), piece, start > at))
        at = start + len(piece)
    return found


def row(parts: list[str]) -> str:
    """One element for several."""
    return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"


def leaf(text: str) -> str:
    """The element for a number, a letter or an operator."""
    tag = "mn" if text[0].isdigit() or text == "½" else "mi" if text[0].isalpha() or text in "∇∞" else "mo"
    return f"<{tag}>{escape(text)}</{tag}>"


class Parser:
    """Turns a statement into MathML, from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.left = text, tokens(text)
        self.bars: list[str] = []

    def whole(self) -> str:
        """The statement."""
        parts = self.expression()
        if self.left:
            raise ValueError(f"{self.left[0].text!r} closes nothing in {self.text!r}")
        return "".join(parts)

    def expression(self, linear: bool = False) -> list[str]:
        """Everything up to what closes the group. ``linear`` keeps quotients on the line, as in exponents."""
        nodes: list[Node] = []
        while self.left and not self.at_end():
            token = self.left[0]
            if token.kind == "divide" and nodes and not linear:
                self.left.pop(0)
                above, below = self.numerator(nodes, token.spaced), self.factors()
                fraction = f"<mfrac>{above}{below}</mfrac>"
                nodes.append(Node("letter", fraction, fraction, False))
            elif self.at_word():
                nodes.append(self.words())
            else:
                if token.spaced and nodes and {nodes[-1].kind, token.kind}.isdisjoint(("operator", "text", "times")):
                    nodes.append(Node("text", SPACE, SPACE, False))
                nodes.append(self.atom())
        return [node.markup for node in nodes]

    def at_end(self) -> bool:
        """Whether the next token closes a group."""
        kind, text, _ = self.left[0]
        return kind == "close" or (kind == "bar" and self.bars[-1:] == [text])

    def at_word(self, inside: bool = False) -> bool:
        """Whether the next token is a word of a sentence; ``a`` may be one within a sentence."""
        kind, text, _ = self.left[0]
        if inside and text == "a":
            return self.left[1:2] != [] and self.left[1].kind == "word"
        return kind == "word" and text not in FUNCTIONS

    def words(self) -> Node:
        """Words in a row, with spaces around them."""
        said = [self.left.pop(0).text]
        while self.left and self.at_word(inside=True):
            said.append(self.left.pop(0).text)
        before = "" if said[0].startswith("-") else "&nbsp;"
        markup = f"<mtext>{before}{escape(' '.join(said))}&nbsp;</mtext>"
        return Node("text", markup, markup, True)

    def numerator(self, nodes: list[Node], loose: bool) -> str:
        """Takes from ``nodes`` what a stroke divides: the product before it, or a factor if there are no spaces."""
        taken: list[Node] = []
        while nodes and nodes[-1].kind not in ("text", "operator", *(() if loose else ("times",))):
            taken.insert(0, nodes.pop())
            if taken[0].spaced and not loose:
                break
        return taken[0].bare if len(taken) == 1 else row([node.markup for node in taken])

    def factors(self) -> str:
        """The factors that follow a stroke without a space between them."""
        found = [self.atom()]
        while (
            self.left
            and not self.left[0].spaced
            and self.left[0].kind in ["letter", "number", "word", "open", "bar", "root"]
        ):
            if self.at_end():
                break
            found.append(self.atom())
        return found[0].bare if len(found) == 1 else row([node.markup for node in found])

    def atom(self) -> Node:
        """One factor with its scripts, or an operator."""
        if not self.left:
            raise ValueError(f"{self.text!r} ends too early")
        kind, text, spaced = self.left.pop(0)
        bare = ""
        if kind in ("open", "bar"):
            markup, bare = self.group(text)
            bare = bare if kind == "open" else ""
        elif kind == "root":
            inside = self.atom().bare
            while text == "√" and self.left and self.left[0].kind == "open" and inside.startswith("<mi>m"):
                inside = row([inside, self.atom().markup])  # the root of max(m, n)
            markup = f"<msqrt>{inside}</msqrt>" if text == "√" else f"<mroot>{row([inside])}<mn>3</mn></mroot>"
        elif text[-1] in ACCENTS:
            tag, mark = ACCENTS[text[-1]]
            markup = f'<{tag}><mi>{text[:-1]}</mi><mo stretchy="false">{mark}</mo></{tag}>'
        else:
            markup = leaf(text)
        scripted = self.scripts(markup)
        return Node(kind, scripted, bare if bare and scripted == markup else scripted, spaced)

    def group(self, opening: str) -> tuple[str, str]:
        """A group between two signs, and what is between them."""
        self.bars.append(opening)
        inner = self.expression()
        if not self.left:
            raise ValueError(f"{opening!r} is never closed in {self.text!r}")
        closing = self.left.pop(0).text
        self.bars.pop()
        signs = [f"<mo>{opening}</mo>", f"<mo>{closing}</mo>"]
        if "<mfrac>" not in "".join(inner):  # without a math font, browsers make them too tall
            signs = [sign.replace("<mo>", '<mo stretchy="false">') for sign in signs]
        return row([signs[0], *inner, signs[1]]), row(inner)

    def scripts(self, base: str) -> str:
        """The base with what stands above and below it."""
        above, below = [], []
        while self.left and self.left[0].kind in ("super", "sub", "script"):
            kind, text, _ = self.left.pop(0)
            if kind != "script":
                plain = "⊤" if text == "ᵀ" else unicodedata.normalize("NFKC", text)
                (above if kind == "super" else below).append(leaf(plain))
            elif text in "′*":
                above.append(f"<mo>{text}</mo>")
            elif text == "_":
                below.append(leaf(self.left.pop(0).text))
            elif self.left[0].kind == "open":
                self.left.pop(0)
                above += self.expression(linear=True)
                self.left.pop(0)
            else:
                above.append(leaf(self.left.pop(0).text))
        if above and below:
            return f"<msubsup>{base}{row(below)}{row(above)}</msubsup>"
        if above:
            return f"<msup>{base}{row(above)}</msup>"
        return f"<msub>{base}{row(below)}</msub>" if below else base
