"""Transformations of other libraries as links."""

from __future__ import annotations

from typing import Any

from ..core.link import Treewise, transform
from ..core.order import ROLES
from ..core.value import static


@transform
class from_optax(Treewise):
    """An Optax ``GradientTransformation`` (or anything with its ``init`` and ``update``) as a link.

    Its state appears in the chain's as it is. It cannot be compared, written as JSON or swept,
    since it is made of closures; everything else works.
    """

    transformation: Any = static("what has init(params) and update(updates, state, params)")
    arguments: tuple[str, ...] = static("names of the extra arguments to pass on to its update", default=())
    role: str = static("what it is for, such as precondition", default="other", one_of=tuple(ROLES))  # pyright: ignore[reportIncompatibleVariableOverride]

    equation = "u ← update(u)"

    def check(self) -> None:
        if not isinstance(self.arguments, tuple):
            raise ValueError(f"`from_optax.arguments` must be a tuple of names, got {self.arguments!r}")
        if not (callable(getattr(self.transformation, "init", None)) and hasattr(self.transformation, "update")):
            raise ValueError(f"`from_optax.transformation` must have init and update, got {self.transformation!r}")

    @property
    def extra(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.arguments

    def init_tree(self, params):
        return self.transformation.init(params)

    def update_tree(self, updates, state, params, at):
        passed = {name: at.extra[name] for name in self.arguments}
        return self.transformation.update(updates, state, params, **passed)
