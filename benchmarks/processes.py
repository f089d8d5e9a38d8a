"""The libraries at work, each in a process of its own that does what it is told over a pipe."""

from __future__ import annotations

import gc
import re
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import sweep
from recipes import RECIPES, Recipe, in_chainax, in_optax, in_torch
from workloads import Workload

PERTURBATION = 1.5  # of the learning rate, where the check of agreement is itself checked


class Library(ABC):
    """One library and one workload. The methods without an underscore are what the parent asks for."""

    def __init__(self, workload: Workload, dtype: str, perturbed: bool) -> None:
        self.workload, self.dtype, self.perturbed = workload, dtype, perturbed
        self.held: dict[str, dict[str, Any]] = {}
        self._drop()

    # What differs from library to library

    @abstractmethod
    def _load(self, recipe: Recipe, dtype: str) -> None:
        """Make the parameters, the gradients and the state."""

    @abstractmethod
    def _step(self, factor: float | None = None) -> None:
        """Take one step, with a copy of the gradients times ``factor`` if given; need not wait for it."""

    @abstractmethod
    def _wait(self) -> None:
        """Wait for what was begun."""

    @abstractmethod
    def _parameters(self) -> dict[str, Any]: ...
    @abstractmethod
    def _numpy(self, x: Any) -> np.ndarray: ...
    @abstractmethod
    def _state_bytes(self) -> int: ...
    @abstractmethod
    def _copiers(self, bytes_: int) -> list[Any]:
        """Functions that read so many bytes and write as many, elsewhere and in place; they need not wait."""

    @abstractmethod
    def device(self) -> str:
        """The name of the accelerator; empty if there is none."""

    @abstractmethod
    def lower(self, name: str) -> dict[str, float]:
        """What tracing and lowering the recipe's step took and gave. Raises `Missing` if the library has it not."""

    @abstractmethod
    def compile(self, name: str) -> dict[str, float]:
        """Prepare the recipe for `run` and `start`; says what `lower` does, and what compiling took and gave."""

    def sweep(self, how: str, points: list[tuple[float, float]], steps: int) -> tuple[float, list[float]]:
        """Train a small network once for each (learning rate, weight decay); seconds in all, and the last losses."""
        return sweep.timed(how, points, steps)

    # What does not

    def run(self, name: str, factors: Sequence[float], dtype: str, keep: str) -> None:
        """Take one step for each factor, from the start, and keep the parameters under the name ``keep``."""
        recipe = RECIPES[name]
        self._load(recipe, dtype)
        for factor in factors:
            self._step(factor)
        self._wait()
        self.held[keep] = dict(self._parameters())
        self._drop()

    def leaf(self, keep: str, path: str) -> np.ndarray:
        """One of the parameters that were kept, in float32."""
        return self._numpy(self.held[keep][path])

    def start(self, name: str, seconds: float) -> dict[str, float]:
        """Load a recipe for `turn`, which will take about so many seconds."""
        self._load(RECIPES[name], self.dtype)
        self._many(2)
        one = self._many(1)
        self.steps = max(1, min(1000, round(seconds / one)))
        self.warm = one < 0.5
        return {"state_bytes": self._state_bytes()}

    def turn(self) -> float:
        """Seconds a step, over a batch of steps after an untimed one that finds the caches cold."""
        if self.warm:
            self._many(1)
        return self._many(self.steps) / self.steps

    def copy(self, bytes_: int) -> float:
        """Bytes a second, read and written, in the best of three times five copies of a large array."""
        best, times = 0.0, 5

        def copies(copy: Any) -> float:
            start = time.perf_counter()
            for _ in range(times):
                copy()
            self._wait()
            return time.perf_counter() - start

        for copy in self._copiers(bytes_):
            copies(copy)
            best = max(best, 2 * bytes_ * times / min(copies(copy) for _ in range(3)))
        self._drop()
        return best

    def stop(self) -> None:
        """Free what `run` and `start` hold."""
        self.held.clear()
        self._drop()

    def _many(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            self._step()
        self._wait()
        return time.perf_counter() - start

    def _rate(self, recipe: Recipe) -> float:
        return recipe.learning_rate * (PERTURBATION if self.perturbed else 1)

    def _drop(self) -> None:
        self.params: Any = None
        self.grads: Any = None
        self.state: Any = None
        self.copied: Any = None
        gc.collect()


class Jax(Library):
    """What the JAX libraries share: ``step(params, state, grads) -> (params, state)``, jitted and donated."""

    def _load(self, recipe: Recipe, dtype: str) -> None:
        import jax
        import jax.numpy as jnp

        shapes = self.workload.shapes
        self.params = {path: jnp.array(self.workload.parameter(path, dtype)) for path in shapes}
        self.grads = {path: jnp.array(self.workload.gradient(path, dtype)) for path in shapes}
        self.state = jax.jit(self.tx.init)(self.params)

    def _step(self, factor: float | None = None) -> None:
        grads = self.grads if factor is None else {path: g * factor for path, g in self.grads.items()}
        self.params, self.state = self.run_step(self.params, self.state, grads)

    def _wait(self) -> None:
        import jax

        jax.block_until_ready((self.params, self.state, self.copied))

    def _parameters(self) -> dict[str, Any]:
        return self.params

    def _numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x).astype(np.float32)

    def _state_bytes(self) -> int:
        import jax

        return sum(x.nbytes for x in jax.tree.leaves(self.state))

    def _copiers(self, bytes_: int) -> list[Any]:
        import jax
        import jax.numpy as jnp

        # Negations, so that they cannot be left out, into the buffer of an argument that is donated for it.
        elsewhere = jax.jit(lambda into, x: -x, donate_argnums=0, keep_unused=True)
        in_place = jax.jit(lambda x: -x, donate_argnums=0)
        self.copied, x = jnp.zeros(bytes_ // 4), jnp.ones(bytes_ // 4)

        def copy() -> None:
            self.copied = elsewhere(self.copied, x)

        def negate() -> None:
            self.copied = in_place(self.copied)

        return [copy, negate]

    def lower(self, name: str) -> dict[str, float]:
        """Trace and lower with every cache empty; the eager call has nothing to lower."""
        return self._lower(RECIPES[name])[1]

    def compile(self, name: str) -> dict[str, float]:
        """`lower`, compile, and read what XLA says of the result."""
        lowered, facts = self._lower(RECIPES[name])
        if lowered is None:
            return facts
        start = time.perf_counter()
        compiled = lowered.compile()
        end = time.perf_counter()
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
        return facts | {
            "compile": end - start,
            "hlo_bytes": cost["bytes accessed"],
            "temporary_bytes": memory.temp_size_in_bytes,
            "copies": len(re.findall(r"^\s*(?:ROOT )?\S+ = .*? copy\(", compiled.as_text(), re.MULTILINE)),
            "kernels": kernels(compiled.as_text()),
        }

    def _lower(self, recipe: Recipe) -> tuple[Any, dict[str, float]]:
        import jax

        self.tx = self._optimizer(recipe)
        self.run_step = self._eager() if recipe.eager else self._jitted()
        jax.clear_caches()
        gc.collect()
        if recipe.eager:
            return None, {}
        params = {path: jax.ShapeDtypeStruct(shape, self.dtype) for path, shape in self.workload.shapes.items()}
        state = jax.eval_shape(self.tx.init, params)
        jax.clear_caches()  # of whatever init shares with the step
        start = time.perf_counter()
        traced = self.run_step.trace(params, state, params)
        between = time.perf_counter()
        lowered = traced.lower()
        end = time.perf_counter()
        return lowered, {
            "trace": between - start,
            "lower": end - between,
            "trace_and_lower": end - start,
            "equations": equations(traced.jaxpr.jaxpr),
        }

    def device(self) -> str:
        """The name of the accelerator; empty if there is none."""
        import jax

        device = jax.devices()[0]
        return "" if device.platform == "cpu" else device.device_kind

    @abstractmethod
    def _optimizer(self, recipe: Recipe) -> Any: ...
    @abstractmethod
    def _jitted(self) -> Any: ...
    @abstractmethod
    def _eager(self) -> Any: ...


class Chainax(Jax):
    """``cx.make_step``; eagerly, ``tx.step``."""

    def _optimizer(self, recipe: Recipe) -> Any:
        return in_chainax(recipe, self._rate(recipe), self.workload.max_norm)

    def _jitted(self) -> Any:
        import chainax as cx

        return cx.make_step(self.tx)

    def _eager(self) -> Any:
        return self.tx.step


class Optax(Jax):
    """`update` and `apply_updates` in one jit, with the argument order that lets XLA reuse every donated buffer."""

    def _optimizer(self, recipe: Recipe) -> Any:
        return in_optax(recipe, self._rate(recipe), self.workload.max_norm)

    def _jitted(self) -> Any:
        import jax

        return jax.jit(self._eager(), donate_argnums=(0, 1))

    def _eager(self) -> Any:
        import optax

        def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
            updates, state = self.tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        return step


class Torch(Library):
    """`clip_grad_norm_` where there is a clip, then a fused optimizer's ``step``; on the GPU if torch has one."""

    def lower(self, name: str) -> dict[str, float]:
        """Nothing is lowered here."""
        import torch

        in_torch(RECIPES[name], 0.0, {"weight": torch.zeros(1)})
        return {}

    def compile(self, name: str) -> dict[str, float]:
        """Nothing is compiled here."""
        return self.lower(name)

    def _load(self, recipe: Recipe, dtype: str) -> None:
        import torch

        self.clips = recipe.reads == 2
        self.on = "cuda" if torch.cuda.is_available() else "cpu"
        at = {"device": self.on, "dtype": getattr(torch, dtype.split(" in ")[-1])}
        shapes = self.workload.shapes

        def tensor(x: np.ndarray) -> Any:
            return torch.tensor(x.astype(np.float32)).to(**at)

        self.params = {path: tensor(self.workload.parameter(path, dtype)) for path in shapes}
        self.grads = {path: tensor(self.workload.gradient(path, dtype)) for path in shapes}
        for path, p in self.params.items():
            p.grad = self.grads[path]
        self.optimizer = in_torch(recipe, self._rate(recipe), self.params)

    def _step(self, factor: float | None = None) -> None:
        import torch

        if factor is not None:
            for path, p in self.params.items():
                p.grad = self.grads[path] * factor
        if self.clips:
            torch.nn.utils.clip_grad_norm_(list(self.params.values()), self.workload.max_norm)
        self.optimizer.step()

    def _wait(self) -> None:
        import torch

        if self.on == "cuda":
            torch.cuda.synchronize()

    def _parameters(self) -> dict[str, Any]:
        return self.params

    def _numpy(self, x: Any) -> np.ndarray:
        return x.detach().float().cpu().numpy()

    def _state_bytes(self) -> int:
        tensors = (x for of in self.optimizer.state.values() for x in of.values() if hasattr(x, "numel"))
        return sum(x.numel() * x.element_size() for x in tensors)

    def _copiers(self, bytes_: int) -> list[Any]:
        import torch

        self.on = "cuda" if torch.cuda.is_available() else "cpu"
        into, x = (make(bytes_ // 4, device=self.on) for make in (torch.zeros, torch.ones))
        return [lambda: into.copy_(x), lambda: into.neg_()]

    def _drop(self) -> None:
        self.optimizer: Any = None
        super()._drop()

    def device(self) -> str:
        """The name of the accelerator; empty if there is none."""
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


LIBRARIES: dict[str, type[Library]] = {"chainax": Chainax, "optax": Optax, "torch": Torch}


def serve(pipe: Connection, name: str, workload: Workload, dtype: str, perturbed: bool) -> None:
    """Do what the pipe says, until it ends."""
    library = LIBRARIES[name](workload, dtype, perturbed)
    while True:
        try:
            method, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((None, getattr(library, method)(*arguments)))
        except Exception as e:
            pipe.send(((type(e).__name__, str(e), traceback.format_exc()), None))


def equations(jaxpr: Any) -> int:
    """Equations of a jaxpr and of those within it, each counted once however often it is called."""
    seen: dict[int, Any] = {}

    def walk(jaxpr: Any) -> None:
        if id(jaxpr) not in seen:
            seen[id(jaxpr)] = jaxpr
            for eqn in jaxpr.eqns:
                for inner in _inner(list(eqn.params.values())):
                    walk(inner)

    walk(jaxpr)
    return sum(len(jaxpr.eqns) for jaxpr in seen.values())


def _inner(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _inner(value)
        elif hasattr(value, "eqns"):
            yield value.jaxpr if hasattr(value, "jaxpr") else value


def kernels(hlo: str) -> int:
    """Instructions of the entry computation that do something: what is left to dispatch after fusion."""
    entry = re.sub(r"/\*.*?\*/", "", hlo[hlo.index("\nENTRY") :].split("\n}")[0])  # of tuples: /*index=5*/
    idle = ("parameter", "tuple", "get-tuple-element", "constant", "bitcast")
    names = re.findall(r"^\s*(?:ROOT )?\S+ = (?:\([^=]*?\)|\S+) ([a-z\-]+)\(", entry, re.MULTILINE)
    return sum(name not in idle for name in names)
