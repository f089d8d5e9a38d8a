"""Runs of PyTorch continued in JAX, and runs of JAX in PyTorch. Neither direction imports torch.

    model       load_params, params_dict: the parameters
    optimizer   from_optimizer: its chain; load_state_dict, state_dict: its state
    layout      names and axes of the parameters there and here; KERNELS, TRANSPOSED_KERNELS

Tensors are read by their methods, and made by the function that you pass, ``torch.from_numpy``.
"""

from .arrays import load_params, params_dict
from .exporting import state_dict
from .layouts import KERNELS, TRANSPOSED_KERNELS, layout
from .loading import load_state_dict
from .optimizers import from_optimizer

__all__ = [
    "KERNELS",
    "TRANSPOSED_KERNELS",
    "from_optimizer",
    "layout",
    "load_params",
    "load_state_dict",
    "params_dict",
    "state_dict",
]
