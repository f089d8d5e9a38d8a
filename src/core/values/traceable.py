"""What to write in place of Python code that needs the value of a traced number."""

from __future__ import annotations

import dis
from pathlib import Path

import jax
import jax.numpy as jnp

_JAX = str(Path(jax.__file__).parent)

NEEDS_VALUE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""The errors of code that needs the value of a traced number."""


def traceable(error: Exception) -> str:
    """What to write in place of the code that raised one of `NEEDS_VALUE`."""
    name = _called(error)
    if name in ("min", "max"):
        return f"use jnp.{name}imum in place of {name}"
    if name in ("float", "int", "bool"):
        return f"leave {name}() out and compute with the step itself, an array"
    if hasattr(jnp, name):
        return f"use jnp.{name}"
    if isinstance(error, jax.errors.TracerIntegerConversionError) and not name:
        return "for an item of a list write jnp.array(list)[step]"
    return "use jnp.where, join_schedules or step_schedule"


def _called(error: Exception) -> str:
    """The name of the function whose call raised, in the last frame outside JAX. Empty if it was not a call."""
    tb = last = error.__traceback__
    while tb is not None:
        last = last if tb.tb_frame.f_code.co_filename.startswith(_JAX) else tb
        tb = tb.tb_next
    loaded: dict[object, str] = {}  # the name loaded last, by the line and column where its expression begins
    for instruction in dis.get_instructions(last.tb_frame.f_code) if last else ():
        begin = instruction.positions and instruction.positions[::2]
        if last and instruction.offset == last.tb_lasti:
            return loaded.get(begin, "") if instruction.opname.startswith("CALL") else ""
        if instruction.opname.startswith("LOAD") and isinstance(instruction.argval, str):
            loaded[begin] = instruction.argval
    return ""
