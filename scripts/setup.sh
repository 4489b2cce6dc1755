# shellcheck shell=bash
# Makes .venv with the locked dependencies and lungjax itself; sourced by demo.sh and test.sh, quick when done.
# Python: `python3` where that is 3.11 or later, or else the newest of python3.13 .. python3.11; PYTHON=... chooses another.
# python3.14 comes last: of the locked packages one, pyjpegls, has no wheel for it, so pip needs a C compiler there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.14 python; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "lungjax needs Python 3.11 or later; install it, or point PYTHON at it." >&2
    exit 1
}

# The stamp names what was installed: a changed lock file or pyproject.toml installs again.
stamp="$(cat requirements.lock pyproject.toml | cksum)"
if [ "$(cat .venv/stamp 2>/dev/null)" != "$stamp" ]; then
    python="$(find_python)"
    echo "Setting up .venv with $("$python" --version) ..."
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    echo "$stamp" > .venv/stamp
fi
