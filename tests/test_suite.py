"""The suite itself: which of its long cases are tried."""

from conftest import SHARE, left_out

TESTS = [f"tests/test_laws.py::test_{i}" for i in range(40)]


def test_a_fifth_of_the_long_cases_is_tried() -> None:
    """Of each test, and each value by some of the tests; tests with few cases are tried whole."""
    cases = {test: [f"{test}[value {i}]" for i in range(20)] for test in TESTS}
    dropped = left_out(case for own in cases.values() for case in own)
    for test in TESTS:
        assert len([case for case in cases[test] if case not in dropped]) == 20 // SHARE
    for i in range(20):
        assert 0 < sum(f"{test}[value {i}]" not in dropped for test in TESTS) < len(TESTS)
    assert left_out([*TESTS, *(f"few[{i}]" for i in range(SHARE - 1))]) == set()
