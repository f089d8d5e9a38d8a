"""The state of a chain: named, one step counter, and arrays of the kind that checkpoints hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax


class State(NamedTuple):
    """What a chain remembers between steps.

    ``links[link][slot]`` is a tree like the parameters, with ``None`` where a leaf has no slot. Links
    without state do not appear. A `Treewise` link's entry is whatever tree it keeps.
    """

    step: jax.Array
    """How many updates were made; an int32 scalar."""
    links: dict[str, Any]
    born: dict[str, jax.Array]
    """The step at which a link joined the chain, by ``link/``, and at which its slots for a parameter that joined later
    than it began, by ``link/path``. What began with the run is not named."""
