"""States of PyTorch's optimizers for the tests of `chainax.torch`."""

from typing import Any

import chainax as cx
import jax.numpy as jnp
import pytest

FLAX = cx.torch.layout({r"embed\.weight": "embed.embedding", r"\.weight$": ".kernel"}, {"kernel": cx.torch.KERNELS})
"""The layout of a flax model."""
PARAMS = {"fc": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
MODEL = {"fc.weight": (2, 3), "fc.bias": (2,)}


def saved_by(cls: str, *groups: dict[str, Any], steps: int = 3, shapes: dict[str, tuple] = MODEL, **given: Any) -> Any:
    """The state of an optimizer after some steps; ``groups`` have patterns of names, and their settings."""
    torch = pytest.importorskip("torch")
    leaves = {name: torch.nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    own = [
        {**group, "params": [(name, p) for name, p in leaves.items() if group["params"] in name]}
        for group in groups or ({"params": ""},)
    ]
    optimizer = getattr(torch.optim, cls)(own, **given)
    for k in range(steps):
        for p in leaves.values():
            p.grad = torch.full_like(p, k + 1.0)
        optimizer.step()
    return optimizer.state_dict()


def load(tx: cx.chain, saved: Any, **given: Any) -> Any:
    """The state of a chain for these parameters."""
    return cx.torch.load_state_dict(tx, PARAMS, saved, layout=FLAX, **given)


def save(tx: cx.chain, names: Any = tuple(MODEL), params: Any = PARAMS, **given: Any) -> Any:
    """The state of a chain before its first step, as PyTorch's."""
    return cx.torch.state_dict(tx, params, tx.init(params), names, layout=FLAX, **given)
