"""Configuration of the documentation site; `bash scripts/docs.sh` builds it into workdir/site."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx

import lungjax

project = "lungjax"
author = "The lungjax maintainers"
version = release = lungjax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["**.ipynb_checkpoints"]
myst_heading_anchors = 3

# The notebook's outputs are stored in it: a test executes it, so building the site needs no model and no minute.
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "lungjax"
html_static_path = ["static"]
html_css_files = ["lungjax.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False

# Nothing is fetched from elsewhere, so that the site works without a network.
html_theme_options = {"footer_icons": []}
nb_ipywidgets_js = {}


_INTERVAL = re.compile(r"\[([^\[\],]{1,8}), ([^\[\],]{1,8})\]")


def _keep_intervals_together(app: Sphinx, doctree: nodes.document) -> None:
    """In a narrow column `0.759 [0.700, 0.810]` becomes two lines, the value and its interval, and not three."""
    for text in list(doctree.findall(nodes.Text)):
        if not isinstance(text.parent, (nodes.literal, nodes.literal_block)):
            text.parent.replace(text, nodes.Text(_INTERVAL.sub("[\\1,\N{NO-BREAK SPACE}\\2]", text.astext())))


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", _keep_intervals_together)
