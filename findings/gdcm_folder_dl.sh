#!/usr/bin/env bash
# A folder named `dl` beside a script breaks `import pydicom` where python-gdcm 3.2.6 is installed.
#
# Versions:  python-gdcm 3.2.6, pydicom 3.0.2.
# Behaviour: gdcm still looks for the module `dl` of Python 2 to set flags. Any folder of that name (for downloads, say) on
#            the path is a package to Python, which gdcm takes for that module: AttributeError, from `import pydicom`.
# Seen:      without the folder: imported
#            with it: AttributeError: module 'dl' has no attribute 'RTLD_NOW'
#
# Needs Python 3.11 or later (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check python-gdcm==3.2.6 pydicom==3.0.2
cd "$folder"
echo "import pydicom; print('imported')" > run.py
without="$(venv/bin/python run.py 2>&1 | tail -1)"
mkdir dl
with="$(venv/bin/python run.py 2>&1 | tail -1 || true)"
echo "without the folder: $without"
echo "with it: $with"
[ "$without" = "imported" ]
[ "$with" = "AttributeError: module 'dl' has no attribute 'RTLD_NOW'" ]
