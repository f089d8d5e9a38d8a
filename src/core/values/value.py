"""Values: frozen dataclasses that are pytrees, print as code, and compare by what they hold."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import GetAttrKey, register_pytree_with_keys_class

from .names import OTHER_NAMES

T = TypeVar("T", bound="Value")
P = ParamSpec("P")
R = TypeVar("R")

TYPES: dict[str, dict[str, type[Value]]] = {}
"""Every value class by its name and its module, which is how a stored configuration finds it again."""

if TYPE_CHECKING:

    class Number:
        """What a type checker sees of a numeric field: wide where it is set, an operand where it is read."""

        def __get__(self, instance: object, owner: object) -> Any: ...
        def __set__(self, instance: object, value: float | jax.Array | np.ndarray) -> None: ...

else:
    Number = object

if TYPE_CHECKING:

    def derived(method: Callable[[Any], R]) -> R:
        """A property in place of what is a constant in the base class, as for an equation that depends on a field."""
        ...

else:
    derived = property


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a field admits: ``low <= x < high``.

    ``closed`` admits ``high`` too, ``open`` not ``low``. A field that counts ``steps`` admits nothing between 0 and 1,
    which would be a share of the run, or a number that was meant for another field.
    ``optional`` fields admit ``None`` too.
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
    default: Any = dataclasses.MISSING,  # by keyword, which is where type checkers look for it
    symbol: str = "",
    low: float = -math.inf,
    high: float = math.inf,
    closed: bool = False,
    open: bool = False,
    steps: bool = False,
    optional: bool = False,
    kw_only: bool = False,
    check: Callable[[str, Any, Range], Any] | None = None,
) -> Any:
    """A numeric field: a Python number or a scalar array, and a leaf of the pytree. For the limits see `Range`."""
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
    """A field that shapes the computation: part of the pytree's structure, hashed by ``jit``.

    With ``least`` it is a whole number from there, up to ``most``.
    """
    metadata = {"doc": doc, "one_of": one_of, "least": least, "most": most, "check": check}
    return dataclasses.field(default=default, metadata=metadata)


def child(
    doc: str = "",
    *,
    default: Any = dataclasses.MISSING,
    check: Callable[[str, Any, Any], Any] | None = None,
) -> Any:
    """A child of the pytree that the engine does not evaluate: another value, a tuple of them, a seed."""
    return dataclasses.field(default=default, metadata={"doc": doc, "leaf": True, "check": check})


class PlainKeyError(KeyError):
    """A KeyError that shows its message as it is, where Python shows it quoted."""

    def __str__(self) -> str:
        return self.args[0]


class Value:
    """Base of every chainax value. Subclasses are made by the `value` decorator."""

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    _leaves: ClassVar[tuple[str, ...]] = ()
    _static: ClassVar[tuple[str, ...]] = ()
    _numbers: ClassVar[tuple[str, ...]] = ()
    """Those of the leaves that are numbers, schedules or tables of these."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            where = f"{type(self).__name__}.{field.name}"
            given, limits = getattr(self, field.name), field.metadata.get("range")
            if check := field.metadata.get("check"):
                try:
                    fill(self, **{field.name: check(where, given, limits)})
                except ValueError as e:
                    if limits is None or not limits.steps:
                        raise
                    names = ", ".join(f.name for f in dataclasses.fields(self))
                    raise ValueError(f"{e}; the arguments are {type(self).__name__}({names})") from None
            elif one_of := field.metadata.get("one_of"):
                if given not in one_of:
                    raise ValueError(f"`{where}` must be one of {', '.join(map(repr, one_of))}, got {brief(given)}")
                fill(self, **{field.name: one_of[one_of.index(given)]})  # True for 1
            elif (least := field.metadata.get("least")) is not None:
                fill(self, **{field.name: check_count(where, given, least, field.metadata["most"])})
        self.check()

    def check(self) -> None:
        """Raise ``ValueError`` for fields that do not go together. Called once, when built."""

    def replace(self, **fields: Any) -> Self:
        """The same value with some fields changed.

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

    def __setattr__(self, name: str, value: Any) -> None:
        fields = getattr(type(self), "__dataclass_fields__", ())
        remedy = f"use .replace({name}={code(value)})" if name in fields else "use its methods"
        raise AttributeError(f"`{type(self).__name__}` is a value and cannot be changed: {remedy} for a changed copy")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"`{type(self).__name__}` is a value and cannot be changed: {name!r} stays")

    def __repr__(self) -> str:
        arguments = []
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            if not field.repr:
                continue
            if field.default is dataclasses.MISSING:
                arguments.append(code(given))
            elif not same(given, field.default):
                arguments.append(f"{field.name}={code(given)}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(same(getattr(self, n), getattr(other, n)) for n in (*self._static, *self._leaves))

    def __hash__(self) -> int:
        contents = (getattr(self, name) for name in (*self._static, *self._leaves))
        return hash((type(self), *map(_hashable, contents)))

    def tree_flatten_with_keys(self) -> tuple[Iterable[tuple[Any, Any]], Any]:
        children = [(GetAttrKey(name), getattr(self, name)) for name in self._leaves]
        return children, tuple(getattr(self, name) for name in self._static)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Iterable[Any]) -> Self:
        # Not __init__: tracers, None and placeholders of any kind pass through here unchecked.
        return make(cls, **dict(zip(cls._static, aux)), **dict(zip(cls._leaves, children)))


def make(cls: type[R], **fields: Any) -> R:
    """An instance with these fields, unchecked."""
    new = object.__new__(cls)
    fill(new, **fields)
    return new


def fill(new: object, **fields: Any) -> None:
    """Set fields of a value that nobody holds yet."""
    new.__dict__.update(fields)


@dataclass_transform(frozen_default=True, field_specifiers=(number, static, child))
def value(cls: type[T], **options: Any) -> type[T]:
    """Turn a subclass of `Value` into a frozen dataclass that is a pytree.

    Fields declared by `number`, `hyper` or `child` are children of the pytree; all others are part
    of its structure.
    """
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=False, **options)(cls)
    del cls.__setattr__, cls.__delattr__  # those of Value have clearer errors
    fields = dataclasses.fields(cls)
    for f in fields:
        if "doc" not in f.metadata:
            raise TypeError(f"declare the field `{cls.__name__}.{f.name}` by hyper, number, child or static")
    cls._leaves = tuple(f.name for f in fields if f.metadata.get("leaf"))
    cls._static = tuple(f.name for f in fields if not f.metadata.get("leaf"))
    cls._numbers = tuple(f.name for f in fields if "range" in f.metadata)
    if "__init__" in cls.__dict__ and options.get("init", True):
        cls.__init__ = explained(cls.__init__, cls.__name__)
        cls.__doc__ = _documented(cls)
    return register(cls)


def register(cls: type[T]) -> type[T]:
    """Make a subclass of `Value` a pytree, and known by its name to `from_config`."""
    TYPES.setdefault(cls.__name__, {})[cls.__module__] = cls
    return register_pytree_with_keys_class(cls)


def same(a: Any, b: Any) -> bool:
    """Equality that also works on fields that hold arrays."""
    if a is b:
        return True
    if type(a) is tuple and type(b) is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    if is_array(a) or is_array(b):
        if not (is_array(a) and is_array(b)) or isinstance(a, Tracer) or isinstance(b, Tracer):
            return False
        x, y = _data(a), _data(b)
        return x.shape == y.shape and x.dtype == y.dtype and is_key(a) == is_key(b) and bool(np.all(x == y))
    return type(a) is type(b) and bool(a == b)


def code(x: Any) -> str:
    """``x`` as the code that makes it."""
    if isinstance(x, float):
        if not math.isfinite(x):
            return f"float('{x}')"
        return str(int(x)) if x.is_integer() and abs(x) < 1e15 else repr(x)
    if isinstance(x, Tracer):
        return f"traced {x.dtype}{list(x.shape)}"
    if is_array(x):
        return f"jnp.{x.dtype}({code(shortest(x))})" if x.ndim == 0 and not is_key(x) else f"{x.dtype}{list(x.shape)}"
    if isinstance(x, tuple):
        return f"({', '.join(map(code, x))}{',' if len(x) == 1 else ''})"
    if isinstance(x, Mapping):
        return f"{{{', '.join(f'{key!r}: {code(entry)}' for key, entry in x.items())}}}"
    if inspect.isfunction(x):
        return x.__qualname__
    return repr(x)


def brief(x: Any) -> str:
    """``x`` as code, cut short for a message."""
    text = code(x)
    return text if len(text) <= 200 else f"{text[:200]}..."


def each(check: Callable[[str, Any, Range], Any]) -> Callable[[str, Any, Range], tuple]:
    """The check of a field that holds several of what ``check`` admits."""

    def check_all(where: str, xs: Any, limits: Range) -> tuple:
        if isinstance(xs, (str, bytes)) or not isinstance(xs, Iterable):
            raise ValueError(f"`{where}` must be a tuple, got {brief(xs)}")
        return tuple(check(f"{where}[{i}]", x, limits) for i, x in enumerate(xs))

    return check_all


def shortest(x: Any) -> Any:
    """A scalar array as the shortest Python number that gives it again in its dtype; all else as it is."""
    if not is_array(x) or isinstance(x, Tracer) or x.ndim or is_key(x):
        return x
    return type(x.item())(str(np.asarray(x)[()]))


def is_array(x: Any) -> bool:
    """Whether ``x`` is a JAX array, traced or not, or a NumPy array."""
    return isinstance(x, (jax.Array, np.ndarray))


def is_key(x: Any) -> bool:
    """Whether an array holds PRNG keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _data(x: Any) -> np.ndarray:
    """The numbers in an array, also of keys."""
    return np.asarray(jax.random.key_data(x) if is_key(x) else x)


def check_count(where: str, x: Any, least: int, most: int | None) -> int:
    """``x`` as a Python integer; raises unless it is a whole number within bounds."""
    if not isinstance(x, (int, np.integer)) or isinstance(x, bool) or x < least:
        raise ValueError(f"`{where}` must be a whole number from {least}, got {brief(x)}")
    if most is not None and x > most:
        raise ValueError(f"`{where}` must be {most} at most, got {brief(x)}")
    return int(x)


def check_number(where: str, x: Any, limits: Range) -> Any:
    """``x`` as it is stored; raises unless it is a number that ``limits`` admits."""
    if x is None and limits.optional:
        return None
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, numbers.Real) and not isinstance(x, bool):
        try:
            x = float(x)
        except OverflowError:  # a whole number beyond the largest float
            x = math.inf if x > 0 else -math.inf  # pyright: ignore[reportOperatorIssue]
        if limits.steps and 0 < x < 1:
            least = "0 or at least 1" if limits.low <= 0 else "at least 1"
            raise ValueError(
                f"`{where}` must be a number of steps, {least}, got {code(x)}: it is not a fraction of the run"
            )
        if not limits.admits(x):
            raise ValueError(f"`{where}` must lie in {limits}, got {code(x)}")
        return x
    if is_array(x):  # perhaps traced, or stacked for vmap: its shape is checked where it is used
        x = jnp.asarray(x)
        if x.ndim == 0 and not isinstance(x, Tracer):
            check_number(where, x.item(), limits)
        if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
            raise ValueError(f"`{where}` must be a number, got an array of {x.dtype}")
        return x
    raise ValueError(f"`{where}` must be a number in {limits}, got {brief(x)}")


def unknown_field(kind: str, name: str, known: Iterable[str], *given: Any) -> str:
    """The message for a field that a value does not have; ``given`` is what was passed for it, if that is known."""
    known = list(known)
    hint = renamed(name, known, *given) or did_you_mean(name, known)
    return f"`{kind}` has no field {brief(name)}{hint}; its fields are {', '.join(known) or 'none'}"


def renamed(name: str, known: Iterable[str], *given: Any) -> str:
    """What to write here for a name of another library's, or nothing."""
    names = here(name, known)
    if not names:
        return next((f": {text}" for text in OTHER_NAMES.get(name, ()) if " " in text), "")
    several = given and isinstance(given[0], (tuple, list))
    if not given:
        return f": here that is {', '.join(names)}"
    pairs = zip(names, given[0] if several else given)
    return f": write {', '.join(f'{n}={code(x)}' for n, x in pairs)}"


def here(name: str, known: Iterable[str]) -> list[str]:
    """Those of the known names that stand for ``name``, which may be another library's."""
    known = list(known)
    return [n for n in (name, *OTHER_NAMES.get(name, ())) if n in known]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest known name, or nothing."""
    close = difflib.get_close_matches(name[:100], list(known), n=1)  # which takes long for long names
    return f" (did you mean {close[0]!r}?)" if close else ""


def explained(f: Callable[P, R], kind: str = "") -> Callable[P, R]:
    """A function, or the ``__init__`` of the class ``kind``, with errors for wrong arguments that say what to write."""
    signature = inspect.signature(f)

    @functools.wraps(f)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as e:
            name, parameters = kind or f.__name__, list(signature.parameters.values())[bool(kind) :]
            names = [p.name for p in parameters]
            wrong = _unknown(name, names, kwargs) or ("" if kind else _not_by_position(name, parameters, args, kwargs))
            raise TypeError(wrong or f"`{name}({', '.join(names)})`: {e}") from None
        return f(*args, **kwargs)

    return call


def _unknown(name: str, names: list[str], kwargs: dict[str, Any]) -> str:
    """What is wrong with a call that has arguments of other names."""
    wrong = [
        f"{given!r}{renamed(given, names, x) or did_you_mean(given, names)}"
        for given, x in kwargs.items()
        if given not in names
    ]
    has = f"; its arguments are {', '.join(names) or 'none'}"
    return f"`{name}` has no argument {', and no argument '.join(wrong)}{has}" if wrong else ""


def _not_by_position(name: str, parameters: list[inspect.Parameter], args: tuple, kwargs: dict[str, Any]) -> str:
    """What is wrong with a call that has too many arguments without names."""
    first = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    others = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if len(args) <= len(first) or not others:
        return ""
    trained = isinstance(args[0], (Mapping, list, tuple))  # as PyTorch's optimizers take them
    args = args[trained:]
    more = [x for given in args[len(first) :] for x in (given if isinstance(given, tuple) else (given,))]
    named = {**dict(zip(others, more)), **kwargs}
    call = ", ".join([*map(code, args[: len(first)]), *(f"{n}={code(x)}" for n, x in named.items())])
    takes = f"{', '.join(first)} by position, and the others by name" if first else "all arguments by name"
    also = "; the parameters go to tx.init(params)" if trained else ""
    return f"`{name}` takes {takes}: write {name}({call}){also}"


def _documented(cls: type) -> str:
    """The docstring, with the hyperparameters that the fields declare."""
    lines = []
    for field in dataclasses.fields(cls):
        limits, doc = field.metadata.get("range"), field.metadata.get("doc", "")
        default = "" if field.default is dataclasses.MISSING else f" = {code(field.default)}"
        symbol = f" ({limits.symbol})" if limits and limits.symbol else ""
        within = f", in {limits}" if limits and math.isfinite(limits.low) else ""
        lines.append(f"    {field.name}{symbol}{default}: {doc}{within}")
    equation = f"\n\nEquation: {cls.equation}" if getattr(cls, "equation", "") else ""
    fields = "\n\nFields:\n" + "\n".join(lines) if lines else ""
    return inspect.cleandoc(cls.__dict__.get("__doc__") or "") + equation + fields


def _hashable(x: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(map(_hashable, x))
    if is_array(x) and not isinstance(x, Tracer):
        return x.shape, str(x.dtype), tuple(np.ravel(_data(x)).tolist())  # as numbers: 0.0 and -0.0 are equal
    return id(x) if isinstance(x, Tracer) else x
