"""docs/scaling.md: its programs run, each after the code at the top of the page, and its table is the stored one."""

import re
from pathlib import Path
from typing import Any

import jax
import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
HEAD, *SECTIONS = PAGE.split("\n## ")


def code_of(text: str) -> str:
    """The code of a section."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M))


PROGRAMS = {text.partition("\n")[0]: code_of(text) for text in SECTIONS if code_of(text)}


@pytest.mark.parametrize("title", PROGRAMS)
def test_programs_run_as_written(title: str) -> None:
    """Under JAX's usual promotion of dtypes and ranks."""
    scope: dict[str, Any] = {"__name__": "scaling"}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(code_of(HEAD).replace('jax.config.update("jax_num_cpu_devices", 8)', ""), scope)
        exec(PROGRAMS[title], scope)


def test_programs_are_short() -> None:
    """At most 40 lines each, without the code at the top."""
    assert max(len(code.splitlines()) for code in PROGRAMS.values()) <= 40
    assert len(code_of(HEAD).splitlines()) <= 40
