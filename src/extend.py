"""The API for authors of links, schedules and formats. `chainax` is the API for training scripts.

`transform` has an example of a link; `Leafwise`, `Matrixwise` and `Treewise` document the parts of one.
"""

from .core.engine.rounding import Rounding, ecc, kahan, master, nearest, stochastic
from .core.engine.step_info import StepInfo
from .core.engine.storage import Format, storage
from .core.facade.link import Leafwise, Link, Scaling, Treewise, slot_like, transform
from .core.facade.matrixwise import Matrixwise
from .core.values.hyper import Hyper, HyperLike, OptionalHyper, hyper, prng_seed, whole
from .core.values.numerics import sqrt
from .core.values.tables import Table
from .core.values.value import child, number, static, value
from .transforms.shared.vector_link import VectorInfo, VectorLink
from .transforms.shared.wrappers import Wrapper

# fmt: off
__all__ = [  # noqa: RUF022 - a table of contents
    # links: base classes, and what their hooks receive
    "transform", "Leafwise", "Matrixwise", "Scaling", "Treewise", "Link", "StepInfo", "slot_like",
    # links that treat the parameters as one vector
    "VectorLink", "VectorInfo",
    # links that hold a chain
    "Wrapper",
    # hyperparameters of links, and the types of fields and arguments that hold one
    "hyper", "Hyper", "OptionalHyper", "HyperLike", "whole", "prng_seed", "Table",
    # values, such as schedules, and their fields: numbers, constants, and chains in a link
    "value", "number", "static", "child",
    # formats of the slots
    "Format", "storage",
    # ways to round the parameters
    "Rounding", "nearest", "stochastic", "kahan", "ecc", "master",
    # functions with the derivatives that optimizers need
    "sqrt",
]
# fmt: on
