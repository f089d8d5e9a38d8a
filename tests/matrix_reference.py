"""What the reference tests of matrix links share: shapes, and Newton–Schulz iterations in float64."""

from typing import Any

import numpy as np
import pytest
from libraries import run_pytorch_optimizer
from reference import Tree, problem

SHAPES = {"square": (5, 5), "wide": (3, 8), "tall": (7, 4)}
JORDAN = ((3.4445, -4.7750, 2.0315),) * 5
NANOGPT = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def matrix_problem(seed: int) -> tuple[Tree, Tree]:
    """Matrices of three shapes, inputs by outputs, and ill-scaled gradients."""
    return problem(seed, SHAPES)


def turned(tree: Tree) -> Tree:
    """The matrices, outputs by inputs, as PyTorch has them; and back."""
    return {n: np.ascontiguousarray(np.swapaxes(x, -1, -2)) for n, x in tree.items()}


def through_svd(G: np.ndarray, table: Any, eps: float = 1e-7, margin: float = 1.0) -> np.ndarray:
    """The iterations, applied to the singular values alone."""
    U, s, V = np.linalg.svd(G, full_matrices=False)
    x = s / (margin * np.sqrt(np.sum(s**2)) + eps)
    for a, b, c in table:
        x = a * x + b * x**3 + c * x**5
    return U @ np.diag(x) @ V


def torch_iterations(eps: float = 0.0, table: Any = JORDAN) -> Any:
    """The iterations in float64 for a torch matrix, in place of a library's own in bfloat16; ε is added to the norm."""

    def iterated(G: Any, *_: Any, **__: Any) -> Any:
        X = G.double().mT if G.size(-2) > G.size(-1) else G.double()
        X = X / (X.norm() + eps)
        for a, b, c in table:
            A = X @ X.mT
            X = a * X + (b * A + c * A @ A) @ X
        return X.mT if G.size(-2) > G.size(-1) else X

    return iterated


def run_turned(new: Any, params: Tree, grads: Tree, **each: Any) -> Tree:
    """The trajectory of a torch optimizer on the transposed matrices, each in a group with the settings ``each``."""
    pytest.importorskip("torch")
    groups = {n: dict(each) for n in params}
    return turned(run_pytorch_optimizer(new, turned(params), turned(grads), groups=groups))
