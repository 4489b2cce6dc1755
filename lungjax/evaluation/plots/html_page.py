"""One self-contained HTML file: nothing is fetched, and no text that it shows can run.

Pages are Jinja2 templates that escape all they are given. Scripts and styles run by their digest in the page's own
Content-Security-Policy, so that even a text that slipped through unescaped would stay text; and the policy forbids
every request but those for pictures within the file.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("lungjax", ""),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=lambda value: "-" if value is None else value,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.policies["json.dumps_kwargs"] = {"allow_nan": False}


def write(path: Path, template: str, *, title: str, script: str | None = None, **shown: Any) -> Path:
    """Writes the page under a temporary name and renames it.

    Args:
      path: the HTML file; its folder must exist.
      template: file within the package lungjax, which extends `evaluation/plots/page.html`.
      title: of the page.
      script: JavaScript that runs once the body is there.
      shown: what the template names; every text in it is escaped, None is a dash.

    Returns:
      `path`.
    """
    style = resources.files("lungjax.evaluation.plots").joinpath("page.css").read_text(encoding="utf-8")
    allowed = "'none'" if script is None else _digest(script)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    pieces = _TEMPLATES.get_template(template).generate(
        title=title, policy=policy, style=Markup(style), script=None if script is None else Markup(script), **shown
    )
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.writelines(pieces)  # One by one, for the page of a scan is long.
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def number(value: float | None, form: str = ".3f") -> str:
    """A figure in Python's format `form`; a dash for None."""
    return "-" if value is None else format(value, form)


_TEMPLATES.filters["number"] = number


def inline(png: Path) -> str:
    """The URL of a PNG within the page."""
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}"


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
