"""Strictness for every test: no implicit promotion of dtypes or ranks, and warnings are errors.

Of the cases of one test that are marked ``long``, a fifth is tried, and each test begins with another: so every law is
tried on a fifth of the values, and every value meets a fifth of the laws. ``pytest --all`` tries all of them.
"""

import collections
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def pyplot() -> Iterator[Any]:
    """Figures in memory, closed after the test."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


SHARE = 5


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option for all cases."""
    parser.addoption("--all", action="store_true", help="try all cases of the tests marked `long`, not every fifth")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out four fifths of the long cases, unless all are asked for or a test is named."""
    if config.getoption("--all") or any("::" in argument for argument in config.args):
        return
    dropped = left_out(item.nodeid for item in items if item.get_closest_marker("long"))
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in dropped])
    items[:] = [item for item in items if item.nodeid not in dropped]


def left_out(cases: Iterable[str]) -> set[str]:
    """Of the cases of each test all but every fifth; none of a test with fewer than five."""
    of: dict[str, list[str]] = collections.defaultdict(list)
    for case in cases:
        of[case.partition("[")[0]].append(case)
    return {
        case
        for test, own in of.items()
        if len(own) >= SHARE
        for i, case in enumerate(own)
        if (i + zlib.crc32(test.encode())) % SHARE
    }
