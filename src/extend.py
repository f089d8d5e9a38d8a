"""The door for authors of links, schedules, formats and ways to round. `chainax` is the one for training scripts.

>>> from chainax.extend import Hyper, Leafwise, hyper, transform
>>> @transform
... class soften(Leafwise):
...     "Bound every coordinate smoothly."
...     bound: Hyper = hyper("b", "the bound", default=1.0)
...     equation = "u ← b · tanh(u / b)"
...
...     def leaf(self, u, slot, p, scalars):
...         return self.bound * jax.numpy.tanh(u / self.bound)
>>> import chainax as cx, jax
>>> cx.chain(soften(), cx.scale_by_lr(0.1))
chain(
    soften(),
    scale_by_lr(0.1),
)
"""

from .core.engine.step_info import StepInfo
from .core.engine.storage import Format, storage
from .core.facade.link import Leafwise, Link, Scaling, Treewise, slot_like, transform
from .core.values.hyper import Hyper, HyperLike, OptionalHyper, hyper
from .core.values.numerics import sqrt
from .core.values.value import child, number, static, value

# fmt: off
__all__ = [  # noqa: RUF022 - a table of contents
    # links: what to derive from, and what their hooks are given
    "transform", "Leafwise", "Scaling", "Treewise", "Link", "StepInfo", "slot_like",
    # hyperparameters of links, and the types of fields and arguments that hold one
    "hyper", "Hyper", "OptionalHyper", "HyperLike",
    # values, as schedules are, and their fields: numbers, constants, and chains in a link
    "value", "number", "static", "child",
    # formats of the slots
    "Format", "storage",
    # ways to round the parameters
    # functions with the derivatives that optimizers need
    "sqrt",
]
# fmt: on
