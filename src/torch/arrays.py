"""PyTorch's tensors as NumPy arrays and back, by their methods: torch itself is not imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.engine.processes import gathered, placed
from ..core.values.errors import PlainKeyError, did_you_mean
from ..core.values.tree import flatten, show
from ..core.values.types import DType, Params
from .layouts import SAME, layout

AsTensor = Callable[[np.ndarray], Any] | None
"""What makes a tensor of an array, such as ``torch.from_numpy``; ``None`` leaves the array."""


def to_array(what: str, x: Any) -> np.ndarray:
    """A tensor, or any other array, as a NumPy array. Tensors in bfloat16 or float8 become float32.

    Errors: ``TypeError``, which names ``what`` it is.
    """
    try:
        for method in ("detach", "cpu"):
            x = getattr(x, method)() if hasattr(x, method) else x
        if str(getattr(x, "dtype", "")).startswith(("torch.bfloat16", "torch.float8")):
            x = x.float()
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as e:
        raise TypeError(f"{what} is no array: {e}") from None
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == np.bool_):
        raise TypeError(f"{what} must be an array of numbers, got {show(array) if array.shape else repr(x)[:100]}")
    return array


def to_tensor(x: np.ndarray, as_tensor: AsTensor) -> Any:
    """A copy of the array, as a tensor of its dtype if ``as_tensor`` makes tensors."""
    x = np.array(x, order="C")
    if as_tensor is None:
        return x
    return as_tensor(x.astype(np.float32)).bfloat16() if x.dtype == jnp.bfloat16 else as_tensor(x)


def by_path_of(layout: layout, names: Iterable[str], where: str) -> dict[str, str]:
    """The names of parameters in PyTorch by their paths here. ``where`` they come from is for the error."""
    found: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{where} must be strings, such as 'encoder.weight', got {name!r}")
        path = layout.path(name)
        if path in found:
            raise ValueError(f"{where}: {found[path]!r} and {name!r} both become {path!r}: change layout(names=...)")
        found[path] = name
    return found


def fit(path: str, x: np.ndarray, like: Any, layout: layout) -> tuple[np.ndarray, str]:
    """The array with the axes that it has at the path, and what is wrong with its shape; ``""`` if nothing is."""
    try:
        moved = layout.forward(path, x)
    except ValueError as e:
        return x, str(e)
    shape = tuple(np.shape(like))
    if moved.shape == shape:
        return moved, ""
    problem = f"{list(x.shape)}, which becomes {list(moved.shape)}, for {list(shape)}"
    if moved.shape == x.shape:
        problem = f"{list(x.shape)} for {list(shape)}"
        if sorted(x.shape) == sorted(shape):
            problem += f"; permute its axes by layout(axes={{'{path.rpartition('/')[2]}': chainax.torch.KERNELS}})"
    return moved, problem


def load_params(params: Params, arrays: Mapping[str, Any], *, layout: layout = SAME) -> Params:
    """Parameters like ``params``, with the numbers of a PyTorch model's ``state_dict()``.

    ``params`` may be shapes, as from ``jax.eval_shape``. Arrays are converted to its dtypes, and lie where its arrays
    lie. ``layout`` says which parameter is which.

    Errors: ``KeyError`` unless there is one entry for each parameter, and none besides; ``ValueError`` for other shapes
    and kinds of numbers. All say which entry it is.

    >>> import numpy as np, chainax as cx
    >>> params = {"dense": {"kernel": jax.numpy.zeros((3, 2)), "bias": jax.numpy.zeros(2)}}
    >>> flax = cx.torch.layout({r"weight$": "kernel"}, {"kernel": cx.torch.KERNELS})
    >>> loaded = cx.torch.load_params(params, {"dense.weight": np.ones((2, 3)), "dense.bias": np.ones(2)}, layout=flax)
    >>> loaded["dense"]["kernel"].shape
    (3, 2)
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"load_params needs the dict that model.state_dict() returns, got {show(arrays)}")
    flat = flatten(params)
    names = by_path_of(layout, arrays, "the names of the arrays")
    here = [path for path, leaf in flat.items() if leaf is not None]
    check_names(here, names, "the arrays")
    return flat.build(
        [leaf if leaf is None else _loaded(path, leaf, names, arrays, layout) for path, leaf in flat.items()]
    )


def check_names(paths: Iterable[str], names: Mapping[str, str], what: str) -> None:
    """Raise unless ``names`` has a name for each path, and no others."""
    paths = dict.fromkeys(paths)
    missing = [path for path in paths if path not in names]
    unexpected = [path for path in names if path not in paths]
    if not missing and not unexpected:
        return
    lines = [f"{what} do not match the parameters"]
    if missing:
        close = did_you_mean(missing[0], names)
        lines.append(f"for {', '.join(map(repr, missing[:20]))} there is no name{close}")
    if unexpected:
        each = ", ".join(f"{names[path]!r} becomes {path!r}" for path in unexpected[:20])
        lines.append(f"{each}, and there is no such parameter")
    raise PlainKeyError("; ".join(lines) + ": change layout(names=...), or leave out what is not for the other side")


def _loaded(path: str, leaf: Any, names: Mapping[str, str], arrays: Mapping[str, Any], layout: layout) -> jax.Array:
    name = names[path]
    x, problem = fit(path, to_array(repr(name), arrays[name]), leaf, layout)
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    if not problem and _kind(x.dtype) > _kind(dtype):
        problem = f"{x.dtype} for {dtype}"
    if problem:
        raise ValueError(f"{name!r}, here {path!r}: {problem}")
    sharding = getattr(leaf, "sharding", None)
    if sharding is None or not getattr(leaf, "committed", True):
        return jnp.array(x, dtype)
    return placed(x, dtype, sharding)


def _kind(dtype: DType) -> int:
    """0 for flags, and more for numbers that include those before; −1 for what is no number."""
    kinds = (np.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    return next((i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind)), -1)


def params_dict(
    params: Params, names: Iterable[str], *, layout: layout = SAME, as_tensor: AsTensor = None
) -> dict[str, Any]:
    """The parameters by their names in PyTorch, for ``model.load_state_dict``. The inverse of `load_params`.

    ``names`` are those of PyTorch's model, ``list(model.state_dict())``. The result has NumPy arrays, or what
    ``as_tensor`` makes of them; PyTorch wants ``torch.from_numpy``.

    Errors: ``KeyError`` unless ``names`` has one for each parameter.
    """
    flat = flatten(params)
    leaves = {path: leaf for path, leaf in flat.items() if leaf is not None}
    found = by_path_of(layout, names, "`names`")
    check_names(leaves, found, "`names`")
    return {
        name: to_tensor(layout.backward(path, np.asarray(gathered(name, leaves[path]))), as_tensor)
        for path, name in found.items()
    }
