"""The page docs/which_orders_matter.md: run this to write it."""

import importlib
import math
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import chainax as cx
import numpy as np
from chainax.core.facade.link import Link
from chainax.laboratory.commutator import shown
from chainax.laboratory.trajectory import ROUNDING, Setting, quiet, setting, total
from registry import LINKS, given

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "which_orders_matter.md"
DECAY, CLIP = cx.add_decayed_weights(0.1), cx.clip_by_global_norm(1.0)
STEPS = 10
LEFT_OUT = ("descend", "search", "decay_after", "project", "average")
ONE_PLACE, WARNS = "–", " (warns)"

INTRO = f"""# Which orders matter

How much the updates of two orders of a chain differ, for every prebuilt optimizer and for single links, by
[`commutator`](orders.md#does-it-matter-here): {STEPS} steps on two matrices of 6 × 4 and 4 × 3 standard normal numbers,
with random gradients whose global norms lie between 0.03 and 30, in float64. A figure is the norm of the difference of
the updates, relative to the larger of the two: 0 means that the orders are the same, 100 % that the difference is as
large as an update. `python tests/order_table.py` writes this page.

- **Decay**: `{DECAY!r}` stands first, or right before the learning rate. A weight decay of the
  optimizer's own is removed.
- **Clip**: `{CLIP!r}` stands first, or right before the learning rate. Clips of the optimizer's own
  are removed.
- **{ONE_PLACE}**: both are one place. **(warns)**: the library warns of one of the two orders.

How to read it:

- Most optimizers care, for both links. A momentum is enough: in `sgd_ema` a decay in front of it is averaged over past
  parameters, and a decay behind it is that of the present ones. With plain `sgd` there is one place.
- A decay commutes with links that add what does not depend on the update, such as the noise of `noisy_sgd`.
- A clip in front of signs, or of any link that only sees directions and keeps no sizes, changes nothing. Behind them it
  multiplies every step by the same number, which is the figure of `sign_sgd`, and the library warns. In `lars` and
  `rprop` that number is 1, since their steps are below the threshold.
- A clip commutes with links that keep the global norm, such as `orthogonal_grad` and `grams`.
- Links that watch or reject, such as `record` and `skip_nonfinite`, do not care.
- The figures are for this decay, this threshold and these gradients. A smaller decay gives smaller ones, and a clip
  that is never active gives 0: call `commutator` with your own parameters and gradients.

## Optimizers

| optimizer | decay | clip |
|---|---|---|
"""
LINKS_HEAD = """
## Links

Each link is followed by `scale_by_lr(0.1)`. Left out are links that hold a chain, reduce an axis of examples, flip the
sign, or belong behind the learning rate.

| link | decay | clip |
|---|---|---|
"""


def families() -> Any:
    """The module of the generator that knows the prebuilt optimizers."""
    folder = str(DOCS / "generator")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("families")


def optimizers() -> dict[str, Any]:
    """Each prebuilt optimizer, as the pages of the documentation show it."""
    return {name: families().example(name)[0] for name in sorted(cx.__all__) if families().is_chain(name)}


def links() -> dict[str, Any]:
    """A chain of each link and a learning rate, by the link as code."""
    found = {}
    for link in (x.tx if isinstance(x, given) else x for x in LINKS):
        if not isinstance(link, Link) or link.inner or link.per_example or link.role in LEFT_OUT:
            continue
        if type(link).__name__ in cx.__all__:
            link = link.replace(matrices=cx.matrices("in, out")) if hasattr(link, "matrices") else link
            found[repr(link)] = cx.chain(link, cx.scale_by_lr(0.1))
    return found


def where() -> Setting:
    """Two matrices, and the gradients of all runs."""
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in (("a", (6, 4)), ("b", (4, 3)))}
    return setting("order_table", cx.chain(), params, None, STEPS, 0, {})


def placed(tx: Any, link: Any, *, first: bool) -> Any:
    """The chain without links of this role, and with the link first or right before the learning rate."""
    gone = [path for path, old in tx._linked() if old.role in (link.role, f"{link.role}_after")]

    def change(at: str, pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        pairs = [(name, old) for name, old in pairs if at + name not in gone]
        rates = [i for i, (_, old) in enumerate(pairs) if old.role == "descend" and not old.inner]
        if not rates:
            return pairs
        i = 0 if first else rates[0]
        return [*pairs[:i], ("placed", link), *pairs[i:]]

    return tx._edit(change)


def cell(tx: Any, link: Any, at: Setting) -> str:
    """How far the two places of a link are apart."""
    pairs = [quiet(partial(placed, tx, link, first=first)) for first in (True, False)]
    a, b = (made for made, _ in pairs)
    if a == b:
        return ONE_PLACE
    far = total(at.run(a, double=True).apart(at.run(b, double=True))[0])
    assert math.isfinite(far), tx
    return ("0" if far <= ROUNDING else shown(far)) + (WARNS if any(told for _, told in pairs) else "")


def row(name: str, tx: Any, at: Setting) -> str:
    """The line of a chain."""
    return f"| `{name}` | {cell(tx, DECAY, at)} | {cell(tx, CLIP, at)} |"


def rows() -> Iterator[str]:
    """The lines of all chains."""
    at = where()
    for name, tx in {**optimizers(), **links()}.items():
        yield row(name, tx, at)


def written(lines: Iterable[str]) -> str:
    """The page with these lines."""
    lines = [f"{line}\n" for line in lines]
    count = len(optimizers())
    return "".join([INTRO, *lines[:count], LINKS_HEAD, *lines[count:]])


if __name__ == "__main__":
    PAGE.write_text(written(rows()), encoding="utf-8")
