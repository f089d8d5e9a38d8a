#!/bin/sh
# Run the suite on the newest Python at hand, with the newest jax that it can have.
# A file or two of each kind, without what is marked `long`: what another Python or another jax breaks is seen in these.
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
files="laws chain config saving stored package adam decay muon mesh processes rounding lbfgs flax sweep folder compare
    command_line"
$bin/python -m pytest -n "${1:-2}" --dist worksteal -m "not long" -q $(for f in $files; do echo "tests/test_$f.py"; done)
