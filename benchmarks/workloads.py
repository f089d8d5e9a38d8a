"""What is optimized: trees of arrays with real shapes and made-up numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import ml_dtypes
import numpy as np

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
PARAMETER, GRADIENT = 0.1, 1.0  # standard deviations

Shapes = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Workload:
    """A tree by path: a flat dict, which every library takes as it is."""

    name: str
    title: str
    shapes: Shapes

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def max_norm(self) -> float:
        """What gradients are clipped to: a fifth of their norm, so that all of `FACTORS` in `measure` are clipped."""
        return 0.2 * GRADIENT * math.sqrt(self.size)

    def parameter(self, path: str, dtype: str) -> np.ndarray:
        """The starting value of one leaf, rounded to ``dtype``."""
        return _rounded(self._normal(path, 0, PARAMETER), dtype)

    def gradient(self, path: str, dtype: str) -> np.ndarray:
        """The gradient of one leaf, rounded to ``dtype``. It stays the same from step to step.

        Nothing is near 0: there Adam's ε would let show that torch's norm is off by 3e-3 (in float32, on the CPU).
        """
        g = self._normal(path, 1, GRADIENT)
        return _rounded(g + np.copysign(np.float32(GRADIENT / 10), g), dtype)

    def _normal(self, path: str, kind: int, scale: float) -> np.ndarray:
        """The same normal numbers in every process, of which no more than a million are different."""
        shape = self.shapes[path]
        size = math.prod(shape)
        seed = [kind, list(self.shapes).index(path)]
        block = np.random.default_rng(seed).standard_normal(min(size, 1_000_003), np.float32)
        return np.resize(block * np.float32(scale), shape)


def _rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """As ``dtype``; ``"bfloat16 in float32"`` are bfloat16's numbers stored as float32."""
    for one in dtype.split(" in "):
        x = x.astype(DTYPES[one])
    return x


def one_leaf() -> Shapes:
    """32M elements in one array: bandwidth, and nothing else."""
    return {"weight": (32 * 1024, 1024)}


def gpt2(layers: int = 12, width: int = 768) -> Shapes:
    """GPT-2 as published: 124M parameters in 148 leaves, unless asked for another size."""
    shapes: Shapes = {"wte": (50257, width), "wpe": (1024, width)}
    for i in range(layers):
        for name, shape in {
            "ln_1/weight": (width,),
            "ln_1/bias": (width,),
            "attn/c_attn/weight": (width, 3 * width),
            "attn/c_attn/bias": (3 * width,),
            "attn/c_proj/weight": (width, width),
            "attn/c_proj/bias": (width,),
            "ln_2/weight": (width,),
            "ln_2/bias": (width,),
            "mlp/c_fc/weight": (width, 4 * width),
            "mlp/c_fc/bias": (4 * width,),
            "mlp/c_proj/weight": (4 * width, width),
            "mlp/c_proj/bias": (width,),
        }.items():
            shapes[f"h_{i}/{name}"] = shape
    return {**shapes, "ln_f/weight": (width,), "ln_f/bias": (width,)}


def lora() -> Shapes:
    """Rank-8 adapters of 32 layers, 7 matrices each: 448 equal leaves."""
    names = ("q", "k", "v", "o", "gate", "up", "down")
    return {f"layer_{i}/{n}/lora_{ab}": (4096, 8) for i in range(32) for n in names for ab in "ab"}


def convnet() -> Shapes:
    """480 leaves of 64 to 36k elements in the proportions of an EfficientNet: kernels, and norms twice as many."""
    shapes: Shapes = {}
    for i in range(160):
        channels = 64 * (1 + i // 32)  # 64 to 320
        kernel = ((3, 3, 1, channels), (1, 1, channels, 112), (1, 1, 112, channels), (5, 5, 1, channels))[i % 4]
        shapes[f"block_{i}/conv/weight"] = kernel
        shapes[f"block_{i}/norm/weight"] = shapes[f"block_{i}/norm/bias"] = (channels,)
    return shapes


def many() -> Shapes:
    """1000 leaves of 1024: overhead, and nothing else."""
    return {f"layer_{i}/{name}": (1024,) for i in range(500) for name in ("weight", "bias")}


def gpt2_1b() -> Shapes:
    """GPT-2 XL's width in 32 layers: a billion parameters."""
    return gpt2(32, 1600)


_MADE: dict[str, tuple[str, Callable[[], Shapes]]] = {
    "leaf": ("one leaf of 32M", one_leaf),
    "gpt2": ("GPT-2 small", gpt2),
    "lora": ("LoRA adapters", lora),
    "convnet": ("EfficientNet-like", convnet),
    "many": ("1000 leaves of 1024", many),
    "1b": ("GPT-2 XL's shapes, 1B", gpt2_1b),
}
NAMES = tuple(_MADE)
LARGE = ("1b",)  # for machines with 64 GB and more, when asked for


def workload(name: str, quick: bool = False) -> Workload:
    """The workload of that name; ``quick``: its first 12 leaves, no side longer than 32."""
    title, shapes = _MADE[name][0], _MADE[name][1]()
    if quick:
        shapes = {path: tuple(min(n, 32) for n in shape) for path, shape in list(shapes.items())[:12]}
    return Workload(name, title, shapes)
