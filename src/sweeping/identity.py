"""What a training function and its arguments are, so that results of others are not taken for theirs."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import hashlib
import inspect
import pickle
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from ..core.values.contents import code, is_array, is_key

ADDRESS = re.compile(" at 0x[0-9a-f]+")
PLAIN = (str, bytes, int, float, complex, bool, type(None), enum.Enum, np.dtype, type)


def train_name(train: Any) -> str:
    """The module and the name of a function, or of an object's class."""
    train = _inner(train)
    named = train if hasattr(train, "__qualname__") else type(train)
    return f"{named.__module__}.{named.__qualname__}"


def source_of(x: Any) -> str:
    """The source of a function, or of an object's class; empty if it is not at hand."""
    x = _inner(x)
    try:
        return textwrap.dedent(inspect.getsource(x if inspect.isroutine(x) or isinstance(x, type) else type(x)))
    except (OSError, TypeError):
        return ""


def _inner(x: Any) -> Any:
    while isinstance(x, functools.partial):
        x = x.func
    return inspect.unwrap(x) if callable(x) else x


def digest(x: Any) -> str:
    """A hash of a function or an argument, which is the same in another process.

    Of arrays it has the contents. Of functions it has the source without comments and layout, defaults, closures, and
    what they name in their own module: functions, arrays and plain values. Of other objects it has the fields.

    Errors: ``TypeError`` for an object of which nothing is known but its type.
    """
    found = hashlib.sha256()
    for part in _parts(x, set()):
        found.update(part)
        found.update(b"\0")
    return found.hexdigest()


def _parts(x: Any, seen: set[int]) -> Iterator[bytes]:
    leaves, structure = jax.tree.flatten(x, is_leaf=lambda y: y is None)
    yield ADDRESS.sub("", str(structure)).encode()
    for leaf in leaves:
        if isinstance(leaf, Tracer):
            yield b"a traced value"
        elif is_array(leaf):
            data = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
            yield f"{data.dtype}{data.shape}".encode() + np.ascontiguousarray(data).tobytes()
        elif isinstance(leaf, PLAIN):
            yield f"{type(leaf).__name__} {leaf!r}".encode()
        elif id(leaf) not in seen:
            seen.add(id(leaf))
            yield from _of_object(leaf, seen)


def _of_object(x: Any, seen: set[int]) -> Iterator[bytes]:
    yield train_name(x).encode()
    if isinstance(x, functools.partial):
        yield from _parts((x.func, x.args, x.keywords), seen)
    elif isinstance(inner := _inner(x), types.MethodType):
        yield from _parts((inner.__func__, inner.__self__), seen)
    elif isinstance(inner, types.FunctionType):
        yield from _of_function(inner, seen)
    elif isinstance(x, types.ModuleType | types.BuiltinFunctionType | np.ufunc):
        pass
    elif dataclasses.is_dataclass(x) or hasattr(x, "__dict__"):
        yield _parsed(source_of(x)).encode()
        names = [f.name for f in dataclasses.fields(x)] if dataclasses.is_dataclass(x) else list(vars(x))
        yield from _parts({name: getattr(x, name, None) for name in sorted(names)}, seen)
    else:
        try:
            yield pickle.dumps(x)
        except Exception:
            raise TypeError(
                f"a folder cannot tell {code(x)} from others of its type in another process: pass arrays, plain "
                "values, or objects with fields"
            ) from None


def _of_function(f: types.FunctionType, seen: set[int]) -> Iterator[bytes]:
    source = "" if f.__name__ == "<lambda>" or f.__code__.co_filename == "<string>" else source_of(f)
    yield _parsed(source).encode() if source else _compiled(f.__code__)
    yield from _parts((f.__defaults__, f.__kwdefaults__), seen)
    for cell in f.__closure__ or ():
        try:
            yield from _parts(cell.cell_contents, seen)
        except ValueError:  # not yet filled
            continue
    for name in sorted(_names(f.__code__)):
        x = f.__globals__.get(name)
        own = callable(x) and getattr(_inner(x), "__module__", None) == f.__module__
        if own or (not callable(x) and all(is_array(y) or isinstance(y, PLAIN) for y in jax.tree.leaves(x))):
            yield name.encode()
            yield from _parts(x, seen)


def _names(c: types.CodeType) -> set[str]:
    """The names of globals and attributes in a function, and in those within it."""
    inner = (_names(x) for x in c.co_consts if isinstance(x, types.CodeType))
    return set(c.co_names).union(*inner)


def _compiled(c: types.CodeType) -> bytes:
    """The code of a function without its lines.

    The source of a lambda is the whole statement that it stands in, and what was typed into a prompt may have none.
    """
    inner = b"".join(_compiled(x) if isinstance(x, types.CodeType) else repr(x).encode() for x in c.co_consts)
    return c.co_code + inner + repr((c.co_names, c.co_varnames)).encode()


def _parsed(source: str) -> str:
    """Source without comments and layout, if it can be parsed alone."""
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:
        return source
