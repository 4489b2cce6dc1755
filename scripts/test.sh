#!/usr/bin/env bash
# Sets up, then runs all tests but the slow ones. Arguments go to pytest: `bash scripts/test.sh -m slow`.
# LUNGJAX_REAL_DATA=FOLDER adds the tests on real data.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m pyright
.venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
