# Makes .venv with the locked dependencies and lungjax itself; sourced by demo.sh and test.sh, quick when done.
# Python: the newest of python3.14 .. python3.11 or python3 that is 3.11 or later; PYTHON=... chooses another.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
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
