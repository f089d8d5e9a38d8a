"""The chains that move the parameters, and the names of what they keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..core.engine.checks import REMEDY
from ..core.engine.protocol import Links
from ..core.engine.state import State
from ..core.facade.telemetry import within
from ..core.values.errors import PlainKeyError
from ..core.values.tree import flatten, is_trainable
from ..core.values.types import Leaf, Params
from ..transforms.step_size.scale import scale
from ..transforms.wrappers.partition import partition
from .optimizers import ENTRIES


class Chain(NamedTuple):
    """A chain, or one within a `partition`."""

    links: Links
    params: Mapping[str, Leaf]
    """The parameters that it sees, by path."""
    prefix: str
    """The prefix of its names in the state."""
    moves: bool
    """Whether it moves the parameters itself."""
    climbs: bool
    """Whether the gradients have changed their sign before."""

    def slot(self, link: str, slot: str, path: str) -> str:
        """The name of a slot in `Transformation.state_dict`."""
        return "/".join(filter(None, (f"{self.prefix}{'links/' if self.prefix else ''}{link}", slot, path)))

    def born(self, link: str, path: str) -> str:
        """The name of the step at which a parameter joined."""
        return f"{self.prefix}born/{link}/{path}"


def chains_within(
    links: Links, params: Params, state: State, prefix: str = "", *, climbs: bool = False
) -> Iterator[Chain]:
    """A chain, and those within it.

    Errors: ``ValueError`` for links whose state PyTorch's optimizers do not have, and for slots in codes.
    """
    moves = True
    seen = {path: leaf for path, leaf in flatten(params).items() if leaf is not None and is_trainable(leaf)}
    for name, link in links.items():
        inner = isinstance(link, partition)
        if name not in state.links and (inner or type(link) in ENTRIES):
            raise PlainKeyError(f"The state is not of this chain: it lacks {name}. {REMEDY}")
        if name in state.links and not inner and type(link) not in ENTRIES:
            remedy = (
                f"hand over the chain that it holds, tx[{name!r}].{next(iter(link.inner))}"
                if link.inner
                else f"if the others are one, hand over tx.remove({name!r}); tx.adopt(params, state) then adds the link"
            )
            raise ValueError(f"no optimizer of torch.optim keeps what link {name!r} keeps: {remedy}")
        for slot in ENTRIES.get(type(link), ()):
            if any(x is not None and path not in seen for path, x in flatten(state.links[name][slot]).items()):
                raise ValueError(
                    f"link {name!r} stores {slot!r} in codes, which PyTorch's optimizers do not: hand over a chain "
                    "whose slots are stored as they are, or in a dtype such as store(tx, 'bfloat16')"
                )
        climbs = climbs or (type(link) is scale and isinstance(link.step_size, float) and link.step_size < 0)
        if inner:
            moves = False
            try:
                held = list(within(name, link, state, params))
            except KeyError as e:
                raise PlainKeyError(f"The state is not of this chain: {name!r} lacks {e}. {REMEDY}") from None
            for key, its_links, its_params, its_state in held:
                start = f"{prefix}{'links/' if prefix else ''}{name}/{key}/"
                yield from chains_within(its_links, its_params, its_state, start, climbs=climbs)
    yield Chain(links, seen, prefix, moves and bool(links), climbs)
