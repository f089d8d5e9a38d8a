"""The table of contents: which pages are made from the library, and which names are on them."""

from __future__ import annotations

from typing import NamedTuple


class Page(NamedTuple):
    """A generated page: the modules whose public names it has, and the sections of ``chains.py`` or single chains."""

    file: str
    title: str
    about: str
    modules: str
    chains: tuple[str, ...] = ()


FAMILIES = (
    Page("sgd", "SGD and momentum", "Steps along the gradient, and means of it.", "transforms.momentum", ("SGD",)),
    Page(
        "adagrad",
        "Adagrad, RMSprop, Adadelta",
        "Each coordinate is divided by the size of its past gradients, without a momentum of its own.",
        "transforms.preconditioners.rms",
        ("Adagrad, RMSprop, Adadelta",),
    ),
    Page(
        "adam",
        "Adam",
        "The mean of the gradients, divided by the root of their mean square; with each kind of weight decay, and as "
        "other libraries have it. [Which order do I want?](../orders.md) compares the decays.",
        "transforms.preconditioners.adam",
        ("Adam", "Adam with decoupled weight decay", "Adam in other libraries"),
    ),
    Page(
        "adam_variants",
        "Variants of Adam",
        "Another denominator, or another numerator.",
        "transforms.preconditioners.adaptive transforms.preconditioners.adam_momentum",
        ("Variants of Adam: the denominator", "Variants of Adam: the numerator"),
    ),
    Page(
        "signs",
        "Signs: Lion, Signum, Rprop",
        "Every coordinate moves by the same length.",
        "transforms.preconditioners.sign",
        ("Signs",),
    ),
    Page(
        "norms",
        "Norms of leaves: LARS, LAMB",
        "The length of a step in proportion to the parameter's.",
        "transforms.clipping.layerwise",
        ("Norms of leaves",),
    ),
    Page(
        "memory",
        "Less memory: Adafactor, SM3, GaLore",
        "Second moments by row and column, or moments of a projection. "
        "For any optimizer's state in 8 or 4 bits see [low precision](../low_precision.md).",
        "transforms.preconditioners.factored transforms.wrappers.lowrank",
        ("Less memory",),
    ),
    Page(
        "muon",
        "Muon and its relatives",
        "The update of each matrix is made orthogonal, or bounded in another norm of matrices.",
        "transforms.matrices.muon transforms.matrices.adaptive_muon transforms.matrices.polar "
        "transforms.matrices.scion transforms.matrices.dion transforms.matrices.attention core.values.matrices",
        ("muon", "normuon", "adamuon", "adago", "scion", "dion"),
    ),
    Page(
        "shampoo",
        "Shampoo, SOAP and other matrix preconditioners",
        "Rows and columns of each matrix are mixed by statistics of past gradients.",
        "transforms.matrices transforms.wrappers.graft",
        ("Matrices",),
    ),
    Page(
        "curvature",
        "Curvature: L-BFGS, Sophia, line searches, sharpness",
        "Links that use more than one gradient at a point.",
        "transforms.preconditioners.curvature transforms.preconditioners.lbfgs transforms.step_size.linesearch "
        "transforms.step_size.minimize transforms.wrappers.sharpness",
        ("Curvature",),
    ),
    Page(
        "loss",
        "Step sizes from the loss",
        "The value of the loss decides how long a step is.",
        "transforms.step_size.loss transforms.step_size.polyak transforms.step_size.plateau",
        ("Step sizes from the loss",),
    ),
    Page(
        "no_rate",
        "No learning rate to tune: Prodigy, DoG",
        "The length of a step from what the run has seen.",
        "transforms.step_size.betting transforms.step_size.dadapt transforms.step_size.distance",
        ("No learning rate to tune",),
    ),
    Page(
        "averages",
        "Averages and schedule-free learning",
        "Links that keep another point beside the one that is trained: see [the guide](../averages.md).",
        "transforms.averages",
        ("No schedule",),
    ),
    Page(
        "decay",
        "Weight decay and learning rate",
        "One number that multiplies the update, and what is added to it.",
        "transforms.decay transforms.step_size.scale",
    ),
    Page(
        "clipping",
        "Clipping and normalization",
        "Bounds for updates, of each coordinate, leaf, example or of all.",
        "transforms.clipping",
    ),
    Page(
        "gradients",
        "Changes of the gradient or the update",
        "Links without an optimizer of their own.",
        "transforms.gradients",
    ),
    Page(
        "guards",
        "Guards and telemetry",
        "Steps that are refused, and numbers that are kept.",
        "transforms.guards transforms.telemetry",
    ),
    Page("wrappers", "Links that hold a chain", "They nest, and work with every optimizer.", "transforms.wrappers"),
    Page(
        "precision",
        "Formats and rounding",
        "How slots are stored and parameters rounded. [The guide](../low_precision.md) says what for.",
        "transforms.apply core.engine.blocks core.engine.offload",
    ),
)
"""A name belongs to the page with the longest module that it is in."""

FUNCTIONS = (
    Page(
        "chains",
        "Chains",
        "Chains, their steps, states and files; hyperparameters by path.",
        "core.facade core.engine core.values",
    ),
    Page(
        "schedules",
        "Schedules",
        "A schedule is a value, and goes wherever a number goes. Schedules add, multiply and follow one another.",
        "schedules core.values.schedule core.values.own_steps",
    ),
    Page(
        "experiments",
        "Sweeps, comparisons and plots",
        "Two guides say how to use them: [sweeps](../sweeps.md) and [comparisons of orders](../experiments.md).",
        "sweeping laboratory plotting",
    ),
)
AUTHORS = Page(
    "authors", "For authors: chainax.extend", "The base classes of links, and what their fields are made of.", "extend"
)
MODULES = ("flax", "torch")
"""Modules for users of another library, which are not imported with chainax. Each has a page if it is there."""
TYPES = {
    "Hyper": "The type of a field that holds a hyperparameter. In hooks it is a number.",
    "OptionalHyper": "The same for a field that may be `None`.",
    "HyperLike": "The type of an argument that becomes a hyperparameter: `float | jax.Array | Schedule | by_path`.",
}
"""What there is for type checkers only."""
