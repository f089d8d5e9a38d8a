#!/bin/sh
# Run the suite on the newest Python at hand, with the newest jax that it can have.
# torch is left out there, so the tests against it are skipped; and so are those marked `long`: they run on the main
# environment.
set -eu
main=$("$PYTHON_OF_VENV" -c 'import sys; print(sys.version_info[1])')
newest=
for minor in 14 13 12; do
    [ "$minor" -gt "$main" ] || break
    for candidate in "python3.$minor" $(command -v pyenv >/dev/null && ls -d "$(pyenv root)"/versions/3.$minor.*/bin/python3 2>/dev/null || true); do
        if "$candidate" -c 'import ensurepip, ssl' 2>/dev/null; then newest=$candidate && break 2; fi
    done
done
if [ -z "$newest" ]; then
    echo "newest: no Python newer than 3.$main at hand, so nothing more to test"
    exit 0
fi
bin=.venv-newest/bin
[ -x $bin/python ] || "$newest" -m venv .venv-newest
$bin/python -m pip install -q --disable-pip-version-check --upgrade --config-settings editable_mode=strict -e ".[newest]"
$bin/python -c 'import sys, jax; print(f"newest: Python {sys.version.split()[0]}, jax {jax.__version__}")'
$bin/python -m pytest -n "${1:-2}" --dist worksteal -m "not long" -q
