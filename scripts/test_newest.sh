#!/usr/bin/env bash
# The default tests with the newest of everything: Python 3.13, and what a plain `pip install` resolves today, no lock.
# Made anew in .venv-newest/ each time; `.venv` stays as it is. PYTHON=... chooses the interpreter. Arguments go to
# pytest: `bash scripts/test_newest.sh -k onnx`. KEEP=1 runs in the environment of the last time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# pyenv's `python3.13` is there, but does not run, where another version is the chosen one; so its own is asked for, too.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.13 "$(pyenv prefix 3.13 2>/dev/null || true)/bin/python3.13"; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python 3.13 was found, so nothing was tested; install it, or point PYTHON at one." >&2
    exit 1
}

if [ -z "${KEEP:-}" ] || [ ! -x .venv-newest/bin/python ]; then
    python="$(find_python)"
    echo "Setting up .venv-newest with $("$python" --version) ..."
    "$python" -m venv --clear .venv-newest
    .venv-newest/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
fi
.venv-newest/bin/python - <<'EOF'
import sys
from importlib.metadata import version

names = ("jax", "flax", "orbax-checkpoint", "grain", "numpy", "pandas", "scipy", "onnx")
print(f"Python {sys.version.split()[0]}:", ", ".join(f"{name} {version(name)}" for name in names))
EOF
.venv-newest/bin/python -m pytest -n auto --dist loadfile "$@"
