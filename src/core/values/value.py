"""Values: frozen dataclasses that are pytrees, print as code, and compare by their contents."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
import numbers
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import GetAttrKey, register_pytree_with_keys_class

from .contents import brief, code, hashable, is_array, same
from .declared import CONTRACTS, check_class, check_decorator, check_hooks
from .errors import explained, unknown_field

T = TypeVar("T", bound="Value")
R = TypeVar("R")

TYPES: dict[str, dict[str, type[Value]]] = {}
"""Every value class by name and module: `from_config` looks classes up here."""

if TYPE_CHECKING:

    class Number:
        """What a type checker sees of a numeric field: it accepts numbers and arrays, and reads as an operand."""

        def __get__(self, instance: object, owner: object) -> Any: ...
        def __set__(self, instance: object, value: float | jax.Array | np.ndarray) -> None: ...

else:
    Number = object

if TYPE_CHECKING:

    def derived(method: Callable[[Any], R]) -> R:
        """A property that overrides a class constant, such as an equation that depends on a field."""
        ...

else:
    derived = property


Check = Callable[[str, Any, Any], Any]
"""Takes a field's full name, what was passed for it and its `Range` (``None`` without one). Returns what to store."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a field accepts: ``low <= x < high``.

    ``closed`` includes ``high``, ``open`` excludes ``low``, ``optional`` accepts ``None``. A field that counts
    ``steps`` rejects numbers between 0 and 1, which are most likely fractions of the run or meant for another field.
    """

    symbol: str = ""
    low: float = -math.inf
    high: float = math.inf
    closed: bool = False
    open: bool = False
    steps: bool = False
    optional: bool = False

    def __str__(self) -> str:
        low = "[" if math.isfinite(self.low) and not self.open else "("
        high = "]" if self.closed and math.isfinite(self.high) else ")"
        none = " or None" if self.optional else ""
        return f"{low}{self.low:g}, {self.high:g}{high}{none}".replace("inf", "∞")

    def admits(self, x: float) -> bool:
        above = self.low < x or (x == self.low and not self.open and math.isfinite(x))
        return above and (x < self.high or (self.closed and x == self.high))


def number(
    doc: str = "",
    *,
    default: Any = dataclasses.MISSING,  # by keyword: PEP 681
    symbol: str = "",
    low: float = -math.inf,
    high: float = math.inf,
    closed: bool = False,
    open: bool = False,
    steps: bool = False,
    optional: bool = False,
    kw_only: bool = False,
    check: Check | None = None,
) -> Any:
    """A numeric field: a Python number or a scalar array, and a leaf of the pytree. See `Range` for the limits."""
    limits = Range(symbol, low, high, closed, open, steps, optional)
    metadata = {"range": limits, "doc": doc, "leaf": True, "check": check or check_number}
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


def static(
    doc: str = "",
    *,
    default: Any = dataclasses.MISSING,
    one_of: tuple = (),
    least: int | None = None,
    most: int | None = None,
    check: Callable[[str, Any, Any], Any] | None = None,
) -> Any:
    """A static field: part of the pytree's structure, hashed by ``jit``.

    With ``least`` it is an integer from ``least`` to ``most``.
    """
    metadata = {"doc": doc, "one_of": one_of, "least": least, "most": most, "check": check}
    return dataclasses.field(default=default, metadata=metadata)


def child(
    doc: str = "",
    *,
    default: Any = dataclasses.MISSING,
    check: Check | None = None,
) -> Any:
    """A child of the pytree that the engine does not evaluate: another value, a tuple of values, or a seed."""
    return dataclasses.field(default=default, metadata={"doc": doc, "leaf": True, "check": check})


class Value:
    """Base class of all values. Decorate subclasses with `value`."""

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    decorator: ClassVar[str] = "value"
    """The decorator of the subclasses."""
    _leaves: ClassVar[tuple[str, ...]] = ()
    _static: ClassVar[tuple[str, ...]] = ()
    _numbers: ClassVar[tuple[str, ...]] = ()
    """The leaves that are numbers, schedules or tables of these."""

    if not TYPE_CHECKING:

        def __init__(self, *args: object, **kwargs: object) -> None:
            raise TypeError(_undecorated(type(self)))

    def __post_init__(self) -> None:
        if "_leaves" not in vars(type(self)):
            raise TypeError(_undecorated(type(self)))
        for field in dataclasses.fields(self):
            where = f"{type(self).__name__}.{field.name}"
            x, limits = getattr(self, field.name), field.metadata.get("range")
            if check := field.metadata.get("check"):
                try:
                    fill(self, **{field.name: check(where, x, limits)})
                except ValueError as e:
                    if limits is None or not limits.steps:
                        raise
                    names = ", ".join(f.name for f in dataclasses.fields(self))
                    raise ValueError(f"{e}; the arguments are {type(self).__name__}({names})") from None
            elif one_of := field.metadata.get("one_of"):
                if x not in one_of:
                    raise ValueError(f"`{where}` must be one of {', '.join(map(repr, one_of))}, got {brief(x)}")
                fill(self, **{field.name: one_of[one_of.index(x)]})  # True for 1
            elif (least := field.metadata.get("least")) is not None:
                fill(self, **{field.name: check_count(where, x, least, field.metadata["most"])})
        self.check()

    def check(self) -> None:
        """Raise ``ValueError`` for fields that are incompatible with each other. Called when the value is built."""

    def replace(self, **fields: object) -> Self:
        """A copy with some fields changed.

        >>> import chainax as cx
        >>> cx.scale_by_adam().replace(b2=0.95)
        scale_by_adam(b2=0.95)
        """
        if not dataclasses.is_dataclass(self):
            raise TypeError(f"`{type(self).__name__}` has no fields to replace: make a new one")
        known = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in fields:
            if name not in known:
                raise TypeError(unknown_field(type(self).__name__, name, known, fields[name]))
        return type(self)(**{**known, **fields})

    def __setattr__(self, name: str, value: object) -> None:
        fields = getattr(type(self), "__dataclass_fields__", ())
        remedy = f"use .replace({name}={code(value)})" if name in fields else "use its methods"
        raise AttributeError(f"`{type(self).__name__}` is a value and cannot be changed: {remedy} for a changed copy")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"`{type(self).__name__}` is a value and cannot be changed: {name!r} stays")

    def __repr__(self) -> str:
        arguments = []
        for field in dataclasses.fields(self):
            x = getattr(self, field.name)
            if not field.repr:
                continue
            if field.default is dataclasses.MISSING:
                arguments.append(code(x))
            elif not same(x, field.default):
                arguments.append(f"{field.name}={code(x)}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(same(getattr(self, n), getattr(other, n)) for n in (*self._static, *self._leaves))

    def __hash__(self) -> int:
        contents = (getattr(self, name) for name in (*self._static, *self._leaves))
        return hash((type(self), *map(hashable, contents)))

    def tree_flatten_with_keys(self) -> tuple[Iterable[tuple[Any, object]], tuple[object, ...]]:
        children = [(GetAttrKey(name), getattr(self, name)) for name in self._leaves]
        return children, tuple(getattr(self, name) for name in self._static)

    @classmethod
    def tree_unflatten(cls, aux: tuple[object, ...], children: Iterable[object]) -> Self:
        # Without __init__: JAX also unflattens tracers, None and placeholder objects, which must not be checked.
        return make(cls, **dict(zip(cls._static, aux)), **dict(zip(cls._leaves, children)))


def make(cls: type[R], **fields: object) -> R:
    """An instance with these fields, unchecked."""
    new = object.__new__(cls)
    fill(new, **fields)
    return new


def fill(new: object, **fields: object) -> None:
    """Set fields of a value that is under construction."""
    new.__dict__.update(fields)


@dataclass_transform(frozen_default=True, field_specifiers=(number, static, child))
def value(cls: type[T]) -> type[T]:
    """Make a subclass of `Value` a frozen dataclass and a pytree.

    Fields declared with `number`, `hyper` or `child` are children of the pytree; `static` fields are part of its
    structure. Raises ``TypeError`` for invalid declarations or hooks.
    """
    check_decorator(cls, "value")
    has_contract = any(base in CONTRACTS for base in cls.__mro__)
    if has_contract:
        check_class(cls)
    cls = frozen(cls)
    if has_contract:
        check_hooks(cls)
    return cls


def frozen(cls: type[T]) -> type[T]:
    """`value` without its checks."""
    cls = dataclasses.dataclass(init=False, eq=False, repr=False)(cls)  # compiling methods would make imports slow
    fields = dataclasses.fields(cls)
    for f in fields:
        if "doc" not in f.metadata:
            raise TypeError(f"declare the field `{cls.__name__}.{f.name}` by hyper, number, child or static")
    cls._leaves = tuple(f.name for f in fields if f.metadata.get("leaf"))
    cls._static = tuple(f.name for f in fields if not f.metadata.get("leaf"))
    cls._numbers = tuple(f.name for f in fields if "range" in f.metadata)
    init = vars(cls).get("__init__") or _initializer(fields)
    cls.__init__, cls.__doc__ = explained(init, cls.__name__), _documented(cls)
    return register(cls)


def register(cls: type[T]) -> type[T]:
    """Register a subclass of `Value` as a pytree, and by name for `from_config`."""
    TYPES.setdefault(cls.__name__, {})[cls.__module__] = cls
    return register_pytree_with_keys_class(cls)


def each(check: Check) -> Check:
    """The check of a field that holds a tuple, whose entries are checked by ``check``."""

    def check_all(where: str, xs: object, limits: Range) -> tuple:
        if isinstance(xs, (str, bytes)) or not isinstance(xs, Iterable):
            raise ValueError(f"`{where}` must be a tuple, got {brief(xs)}")
        return tuple(check(f"{where}[{i}]", x, limits) for i, x in enumerate(xs))

    return check_all


def check_count(where: str, x: object, least: int, most: int | None) -> int:
    """``x`` as a Python integer. Raises unless it is an integer within bounds."""
    if not isinstance(x, (int, np.integer)) or isinstance(x, bool) or x < least:
        raise ValueError(
            f"`{where}` must be a whole number from {least}, got {x if isinstance(x, float) else brief(x)}"
        )
    if most is not None and x > most:
        raise ValueError(f"`{where}` must be {most} at most, got {brief(x)}")
    return int(x)


def check_number(where: str, x: Any, limits: Range) -> Any:
    """``x`` as the field stores it. Raises unless it is a number that ``limits`` accept."""
    if x is None and limits.optional:
        return None
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, numbers.Real) and not isinstance(x, bool):
        try:
            x = float(x)
        except OverflowError:  # an integer beyond the largest float
            x = math.inf if x > 0 else -math.inf  # pyright: ignore[reportOperatorIssue]
        if limits.steps and 0 < x < 1:
            least = "0 or at least 1" if limits.low <= 0 else "at least 1"
            raise ValueError(
                f"`{where}` must be a number of steps, {least}, got {code(x)}: it is not a fraction of the run"
            )
        if not limits.admits(x):
            raise ValueError(f"`{where}` must lie in {limits}, got {code(x)}")
        return x
    if is_array(x):  # may be traced, or stacked for vmap: the shape is checked where the number is used
        x = jnp.asarray(x)
        if x.ndim == 0 and not isinstance(x, Tracer):
            check_number(where, x.item(), limits)
        if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
            raise ValueError(f"`{where}` must be a number, got an array of {x.dtype}")
        return x
    raise ValueError(f"`{where}` must be a number in {limits}, got {brief(x)}")


def _initializer(fields: Iterable[dataclasses.Field]) -> Callable[..., None]:
    """The ``__init__`` of a value with these fields."""
    signature = inspect.Signature(
        [
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *(
                inspect.Parameter(
                    f.name,
                    inspect.Parameter.KEYWORD_ONLY if f.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    default=inspect.Parameter.empty if f.default is dataclasses.MISSING else f.default,
                    annotation=f.type,
                )
                for f in sorted(fields, key=lambda f: bool(f.kw_only))
            ),
        ]
    )

    def __init__(self: Any, *args: object, **kwargs: object) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        fill(self, **dict(itertools.islice(bound.arguments.items(), 1, None)))
        self.__post_init__()

    __init__.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    return __init__


def meaning(field: dataclasses.Field[Any]) -> str:
    """What a declared field means, and the values that it accepts."""
    doc, limits, one_of = (field.metadata.get(key) for key in ("doc", "range", "one_of"))
    least, most = (field.metadata.get(key) for key in ("least", "most"))
    if limits and math.isfinite(limits.low):
        return f"{doc}, in {limits}"
    if limits and limits.optional:
        return f"{doc}, or None"
    if one_of and {*map(type, one_of)} != {bool}:
        return f"{doc}, one of {', '.join(map(repr, one_of))}"
    if least is not None:
        return f"{doc}, a whole number from {least}" + ("" if most is None else f" to {most}")
    return doc or ""


def _undecorated(cls: type[Value]) -> str:
    """The message for an instance of a class without its decorator."""
    return f"`{cls.__name__}` is not decorated: write @{cls.decorator} above its class"


def _documented(cls: type) -> str:
    """The docstring, followed by the equation and the declared fields."""
    lines = []
    for field in dataclasses.fields(cls):
        limits = field.metadata.get("range")
        default = "" if field.default is dataclasses.MISSING else f" = {code(field.default)}"
        symbol = f" ({limits.symbol})" if limits and limits.symbol else ""
        lines.append(f"    {field.name}{symbol}{default}: {meaning(field)}")
    told = getattr(cls, "equation", "")  # which may depend on the fields
    equation = f"\n\nEquation: {told}" if told and isinstance(told, str) else ""
    fields = "\n\nFields:\n" + "\n".join(lines) if lines else ""
    return inspect.cleandoc(cls.__dict__.get("__doc__") or "") + equation + fields
