#!/usr/bin/env bash
# Builds the documentation into workdir/site: a warning is an error, links within it are followed, others looked at.
# Then open workdir/site/index.html; it needs no network.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
rm -rf workdir/site
.venv/bin/python -m sphinx --quiet --fail-on-warning --fresh-env --doctree-dir workdir/site-doctrees docs workdir/site
.venv/bin/python scripts/check_links.py workdir/site README.md CHANGELOG.md CONTRIBUTING.md lungjax/weights/*/README.md
