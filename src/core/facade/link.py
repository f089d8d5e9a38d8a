"""The base classes of links. A link declares slots, scalars and a leaf function; the engine does everything else."""

from __future__ import annotations

import dataclasses
import inspect
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar, dataclass_transform, final

import jax

from ..engine.protocol import Visit
from ..engine.rounding import Rounding
from ..engine.step_info import StepInfo
from ..engine.storage import check_storage, storage
from ..values.declared import check_decorator, check_hooks, contract
from ..values.hyper import hyper
from ..values.numerics import mul
from ..values.tables import Keyed
from ..values.tree import slot_like
from ..values.types import Leaf, Params, PyTree, Scalar, Scalars, Updates
from ..values.value import child, frozen, number, static
from .declared import check_class
from .edits import chains_within
from .holes import shield
from .transformation import Transformation

L = TypeVar("L", bound="Link")


@contract()
class Link(Transformation):
    """One transformation in a chain. Derive from `Leafwise` or, if that does not suffice, from `Treewise`.

    The attributes below are declarations. A class sets those that differ from the default, without an annotation, as in
    ``slots = ("mu",)``. A declaration that depends on fields is a property. `transform` checks all of them.
    """

    decorator = "transform"
    slots: tuple[str, ...] = ()
    """Names of the arrays that the link keeps for each parameter. For a `Treewise` link they are keys of its state,
    which is then a dict, and each holds a tree like the parameters."""
    nonnegative: tuple[str, ...] = ()
    """Slots, and other entries of the state, that hold no negative numbers. `int8` has finer codes for such slots."""
    absent: Mapping[str, str | float | None] = {}
    """For states that lack a slot or another entry, such as older ones: the slot to copy, a number, or ``None`` for the
    value that `init` gives. If any other slot is missing, all slots of the link are initialized again."""
    holds: Mapping[str, str] = {}
    """What slots hold, such as ``{"nu": "E[u²]"}``: in `Transformation.adopt`, a link of another class goes on with the
    slots that hold the same. Not inherited, since a subclass may keep something else under the same name."""
    meanings: Mapping[str, object] = {}
    """For slots whose meaning depends on fields: a value that tells it. Where it differs, `adopt` begins anew."""
    pending: str = ""
    """The entry that counts what the link holds back for a later step; `Transformation.adopt` warns if that is lost."""
    equation: str = ""
    """The effect of the leaf function on the update ``u`` of a parameter ``θ``, as a line of mathematics."""
    role: str = "other"
    """The purpose of the link: one of ``ROLES`` in ``core/facade/order.py``. Descriptions and warnings about the order
    depend on it."""
    bounds_size: bool = False
    """Whether the link compares the size of the updates with a fixed bound."""
    hides_infinite: bool = False
    """Whether the link makes infinite updates finite."""
    refuses_nonfinite: bool = False
    """Whether the step is rejected if an update is infinite or NaN."""
    fixes_norm: bool = False
    """Whether the link's output always has the same norm, as that of a sign does."""
    orthogonalizes: bool = False
    """Whether the singular values of each matrix of the output are about 1, so that its norm says nothing."""
    inner_updates_differ: bool = False
    """Whether the chains that the link holds receive other updates than it does: a mean, a projection or a subset."""
    undoes_scale: bool = False
    """Whether the result does not change if all updates are multiplied by a number, as when they are divided by their
    norm."""
    reads_params: bool = False
    """Whether the parameters must be passed to ``update``."""
    needs_all_updates: bool = False
    """Whether all updates must be known before the first leaf is computed, as for a global norm."""
    treewise: bool = False
    matrixwise: bool = False
    joins: str = ""
    """If several parameters share one slot array: the prefix of a key in the link's entry of the state. The rest of the
    key identifies the set of parameters, and stored slots are loaded only if the key is the same."""
    factor_field: str = ""
    """The field that is a factor of all updates, if there is one: they are 0 if it is 0, and flipped if it is
    negative."""
    decay_field: str = ""
    """The field that is a weight decay, if there is one. There is no decay if it is 0."""
    extra: tuple[str, ...] = ()
    """Names of the extra arguments of ``update`` that the link reads, as ``at.extra[name]``."""
    knows_shards: bool = False
    """Whether the link is correct if `jax.shard_map` gives each device a part of a leaf: sums over a leaf must be added
    up over the devices. Elementwise leaf functions need not declare this."""
    per_example: bool = False
    """Whether the updates have a leading axis of examples. This link, which must be the first, reduces it."""
    no_reverse_mode: str = ""
    """Why reverse-mode derivatives, and so hypergradients, do not pass through the link, if they do not."""
    final_rounding: Rounding | None = None
    """How the chain that the link ends rounds parameters, if the link specifies it: see `apply_update`. Such a link
    keeps only the residual, and has a field ``seed: Any = prng_seed(...)`` if the rounding is random."""

    @property
    def links(self) -> dict[str, Link]:
        return {type(self).__name__: self}

    @property
    def inner(self) -> dict[str, Transformation]:
        """The chains that the link holds, by field, or by key for the chains of a table."""
        return {held.key: held.tx for held in chains_within(self)}

    def visit(self, visit: Visit, params: Params, entry: PyTree) -> dict[str, PyTree]:
        """Call ``visit(chain, params, state)`` for each chain that the link holds, with the parameters as it sees them.

        ``entry`` is the link's entry of the state, which holds the states of the chains. Returns the trees that
        ``visit`` returned, by name, in the form of the link's own parameters.
        """
        return {}

    def _stored(self, wanted: storage, default: Any) -> Link:
        def within(x: object) -> object:
            if isinstance(x, Keyed):
                return x if x.of_numbers else x.map(lambda _, entry: within(entry))
            return x._stored(wanted, default) if isinstance(x, Transformation) else x

        return self.replace(**{field: within(getattr(self, field)) for field in self._leaves}) if self.inner else self

    def seen_within(self, params: Params) -> dict[str, Params]:
        """The parameters as each chain that the link holds sees them, by its name in `inner`, for `describe`.

        ``params`` are arrays or shapes, and so is the result. By default only links that move the parameters know.
        """
        return {name: params for name in self.inner if name in self._leaves and getattr(self, "moves_params", False)}

    def remarks(self, params: Params) -> Iterator[str]:
        """Lines for ``describe(params)`` about what the link cannot do for these parameters, arrays or shapes."""
        return iter(())

    def after_rejection(self, entry: PyTree) -> PyTree:
        """The link's entry of the state after a step that a link of the chain has rejected.

        ``entry`` is that before the step, with the next global state. By default it is returned. A link whose entry
        describes the last step, as that of `record` does, notes there that this step has not been taken. Structure,
        shapes and dtypes must not change.
        """
        return entry

    def metrics(self, entry: PyTree) -> Mapping[str, Scalar]:
        """The numbers for a log in the link's entry of the state, scalars by short names. Called by `chainax.metrics`.

        ``entry`` is that after the step. A link without an entry is not asked. By default there are none.
        """
        return {}


@contract(can_reject="accepts")
class Leafwise(Link):
    """A link that transforms each leaf independently, once its scalars are known.

    A subclass defines `leaf` and, if needed, `init_leaf` (if slots do not start at zero), `scalars` and the hooks of
    its global state. In all of them a hyperparameter such as ``self.b1`` is the number for this step and path: a
    Python float, or a scalar of the dtype in which the leaf is computed. They run while JAX traces the step.

    `leaf` is not called for parameters whose gradient is ``None`` at a step, nor for leaves that are not
    floating-point or complex: they and their slots do not change.
    """

    scaling: bool = False
    """Whether the link multiplies all updates by one number: see `Scaling`."""
    can_reject: bool = False
    """Whether `accepts` may reject the step."""
    lagged: tuple[str, ...] = ()
    """Slots whose previous value is read by the update or by another slot. They are written last, so that XLA need not
    copy them."""
    reads_grads: bool = False
    """Whether the leaf function reads ``slot.grad``, the gradient that entered the chain (or left its `per_example`
    link)."""
    random: bool = False
    """Whether the leaf function reads ``slot.key``, a PRNG key for this step and leaf. Needs a field
    ``seed: Any = prng_seed(...)``."""

    def init_leaf(self, p: jax.Array) -> dict[str, jax.Array] | None:
        """The first values of the slots for one parameter. Called by ``init`` for each floating-point or complex leaf.

        Args:
            p: the parameter as passed to ``init``, in its own shape and dtype; under ``jax.eval_shape`` a tracer.

        Returns: an array for each name in ``slots``, or ``None`` if this parameter needs none. A slot is float32 or
        wider and has the shape of ``p``, as by `slot_like`, the default, or any other shape that depends only on the
        shape and dtype of ``p``. For complex ``p``, slots of its shape are complex; slots of other shapes are real, and
        the shape of ``p`` counts as having an additional last axis of 2. Names other than those in ``slots`` are an
        error.
        """
        return {name: slot_like(p) for name in self.slots}

    def init_global_state(self) -> dict[str, jax.Array]:
        """Scalars that the link keeps for the whole tree, by name; none by default. Called once, by ``init``."""
        return {}

    def update_global_state(self, at: StepInfo) -> dict[str, jax.Array]:
        """The next ``at.global_state``. Called once per step, after `accepts` and before `scalars`.

        `scalars` still sees the old global state. The new one is kept even if the step is rejected, unless a link of
        an earlier run rejected it.

        Args:
            at: the step, for the whole tree; ``at.accepted`` is what `accepts` returned.

        Returns: all entries of ``at.global_state`` and no others, with unchanged shapes.
        """
        return at.global_state

    def accepts(self, at: StepInfo) -> jax.Array:
        """Whether to take the step. Called once per step, before all leaves, if ``can_reject``.

        Args:
            at: the step, for the whole tree.

        Returns: a boolean scalar. If it is False, neither the parameters nor the state change, except for global
        states.
        """
        raise NotImplementedError

    @property
    def leaf_slots(self) -> tuple[str, ...]:
        """The slots that `leaf` gets and returns: all of them, except for `Matrixwise` links."""
        return self.slots

    @property
    def formats(self) -> storage | None:
        """The storage formats of the slots, if any."""
        return vars(self).get("storage")

    def __repr__(self) -> str:
        plain = super().__repr__()
        return f"store({plain}, {self.formats.arguments()})" if self.formats else plain

    def _stored(self, wanted: storage, default: Any) -> Leafwise:
        if "storage" not in type(self)._static:
            return self
        old = self.formats.table if self.formats else {}
        new = {slot: wanted.table.get(slot, default) for slot in self.slots}
        new = {**old, **{slot: form for slot, form in new.items() if form is not None}}
        return self.replace(storage=storage(**new)) if new else self

    def scalars(self, at: StepInfo) -> Scalars:
        """Numbers that leaves share. Called once per step for each group of leaves with the same hyperparameters.

        Args:
            at: the step, as these leaves see it. ``at.global_norm()`` and ``at.all_finite()`` need
                ``needs_all_updates``, and ``at.extra[name]`` needs the name in ``extra``.

        Returns: any tree of scalar arrays and Python numbers, which is passed to `leaf`; ``None`` by default.
        """
        return None

    @abstractmethod
    def leaf(self, u: jax.Array, slot: SimpleNamespace, p: Leaf, scalars: Scalars, /) -> PyTree:
        """Transform the update of one leaf. Traced once for all leaves of one shape, dtype and group.

        Args:
            u: the update, real, in float32, or in float64 if the parameter is. Complex numbers are pairs along a
                last axis of 2.
            slot: the slots by name, such as ``slot.mu``, in that dtype; also ``slot.grad`` (with ``reads_grads``) and
                ``slot.key`` (with ``random``).
            p: the parameter, with the shape and dtype of ``u``; ``None`` if ``update`` was called without parameters,
                which ``reads_params`` forbids.
            scalars: what `scalars` returned.

        Returns: the update or, with slots, the update and a dict of all slots: ``u, {"mu": m}``. Shapes must not
        change; slots are stored in the dtypes that they had. Must be elementwise, or at least treat all axes alike.
        """
        raise NotImplementedError


@contract()
class Scaling(Leafwise):
    """A link that multiplies all updates by one number: a subclass defines `factor`.

    The engine knows its effect on a norm, so links that need a norm may follow in the same pass.
    """

    scaling = True

    @abstractmethod
    def factor(self, at: StepInfo) -> Scalar:
        """The number for this step, a Python number or a scalar array; ``at`` as in `Leafwise.scalars`."""
        raise NotImplementedError

    @final
    def scalars(self, at):
        return self.factor(at)

    def leaf(self, u, slot, p, scalars, /) -> PyTree:
        return mul(scalars, u)


@contract(moves_params="step_tree")
class Treewise(Link):
    """A link that needs entire matrices or the whole tree at once: a subclass defines `update_tree`.

    If it keeps a state, it defines `init_tree` too. Hyperparameters are numbers, as for `Leafwise`, but cannot
    be tables. Use `VectorLink` for links that treat all parameters as one vector.

    Unless it declares ``sees_holes``, all trees passed to its hooks have holes in the same places: ``None``, which
    ``jax.tree.map`` skips, for leaves that are not floating-point or complex, and for those without a gradient at this
    step. The engine fills in the missing leaves of the results: such a parameter does not change, nor do its slots, the
    trees of the state that ``slots`` names. If no parameter has a gradient, the link is not called.
    """

    treewise = True
    moves_params: bool = False
    """Whether the link, as the last of a chain, moves the parameters itself, by `step_tree`."""
    widens: bool = False
    """Whether `update_tree` receives the updates in their own dtypes and widens them itself."""
    undoes_itself: bool = False
    """Whether the link returns its old state, and from `step_tree` the old parameters, where ``at.dropped`` (a bool
    array, or ``None`` for False) says that a link before it has rejected the step. By default the engine chooses
    between the old and the new arrays, which must be kept side by side if the link changes them in a condition."""
    sees_holes: bool = False
    """Whether the hooks receive unmodified trees, integers included, and handle missing gradients themselves."""

    def init_tree(self, params: Params) -> PyTree:
        """The first state. Called by ``init``.

        Args:
            params: the parameters in float32 or wider (in their own dtypes with ``moves_params``), ``None`` for other
                leaves.

        Returns: any tree of arrays, empty by default. With ``slots`` it is a dict, and for each of them has a tree like
        the parameters. Do not return the arrays of ``params`` themselves: a donated step frees their memory.
        """
        return ()

    @abstractmethod
    def update_tree(self, updates: Updates, state: PyTree, params: Params, at: StepInfo) -> tuple[Updates, PyTree]:
        """Transform the updates of all parameters. Called once per step.

        Args:
            updates: a tree like the parameters, in float32 or wider (unless ``widens``); complex leaves are complex.
            state: what `init_tree` or the last step returned, in the dtypes of the former.
            params: the parameters in float32 or wider; ``None`` if ``update`` was called without them, which
                ``reads_params`` forbids.
            at: the step. ``at.of(path)`` is the step of a parameter that may have joined later.

        Returns: the updates, with unchanged shapes, and the next state, with the structure and the shapes of
        ``state``. It is stored in the dtypes of ``state``.
        """
        raise NotImplementedError

    def step_tree(self, params: Params, state: PyTree, updates: Updates, at: StepInfo) -> tuple[Params, PyTree]:
        """Move the parameters. Called by ``step`` instead of `update_tree` if the link is the last of the chain.

        Only with ``moves_params``. ``params`` and ``updates`` are unmodified trees, ``None`` and integers included;
        ``state`` and ``at`` as in `update_tree`. Returns the parameters, in their dtypes, and the next state.
        """
        raise NotImplementedError


_STORED = {"doc": "the formats of the slots: see `store`", "check": check_storage}


@dataclass_transform(frozen_default=True, field_specifiers=(hyper, number, static, child))
def transform(cls: type[L]) -> type[L]:
    """Turn a subclass of `Leafwise`, `Scaling`, `Treewise` or `VectorLink` into a link: a frozen pytree dataclass.

    Declare hyperparameters with `hyper`, and settings that change the structure of the computation with `static`.

    Errors: ``TypeError`` or ``ValueError`` for invalid declarations or hooks, such as slots that are not a tuple of
    names, a misspelt declaration, or a hook with other arguments than the engine passes.

    >>> import chainax as cx
    >>> from chainax.extend import Leafwise, transform
    >>> @transform
    ... class squash(Leafwise):
    ...     '''Squash each coordinate into (−1, 1).'''
    ...     equation = "u ← tanh(u)"
    ...     def leaf(self, u, slot, p, scalars):
    ...         return jax.numpy.tanh(u)
    >>> cx.chain(squash(), cx.scale_by_lr(0.1))
    chain(squash(), scale_by_lr(0.1))
    """
    if not issubclass(cls, (Leafwise, Treewise)):
        raise TypeError(f"`{cls.__name__}` must derive from Leafwise or Treewise to be a link")
    check_decorator(cls, "transform")
    check_class(cls)
    if issubclass(cls, Leafwise) and isinstance(cls.slots, tuple) and cls.slots and not hasattr(cls, "storage"):
        cls.__annotations__ = {**inspect.get_annotations(cls), "storage": storage | None}
        cls.storage = dataclasses.field(default=None, kw_only=True, repr=False, metadata=_STORED)  # pyright: ignore[reportAttributeAccessIssue]
    if issubclass(cls, Treewise) and not cls.sees_holes:
        shield(cls)
    made = frozen(cls)
    if inspect.getattr_static(cls, "final_rounding") is None:  # otherwise it only rounds
        check_hooks(made)
    return made
