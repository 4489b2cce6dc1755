"""One self-contained HTML file: nothing is fetched, and no text that it shows can run.

Scripts and styles run by their digest in the page's own Content-Security-Policy, so that even a text that slipped
through unescaped would stay text; and the policy forbids every request but those for pictures within the file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

_HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
"""


def write(path: Path, *, title: str, body: Iterable[str], script: str | None = None) -> Path:
    """Writes the page under a temporary name and renames it.

    Args:
      path: the HTML file; its folder must exist.
      title: plain text.
      body: HTML, written piece by piece, for a scan's is long; every text in it is escaped already.
      script: JavaScript that runs once the body is there.

    Returns:
      `path`.
    """
    style = resources.files("lungjax.evaluation.plots").joinpath("page.css").read_text(encoding="utf-8")
    allowed = "'none'" if script is None else _digest(script)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(_HEAD.format(policy=policy, title=escape(title), style=style))
            file.writelines(body)
            file.write("" if script is None else f"<script>{script}</script>\n")
            file.write("</body>\n</html>\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def text(value: Any) -> str:
    """Anything as escaped text; a dash for None."""
    return "-" if value is None else escape(str(value))


def number(value: float | None, form: str = ".3f") -> str:
    """A figure in Python's format `form`; a dash for None."""
    return "-" if value is None else format(value, form)


def data(name: str, content: Any) -> str:
    """JSON for a script to read. `<` is written as an escape: nothing in it can end the element."""
    safe = json.dumps(content, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{escape(name)}">{safe}</script>\n'


def pairs(rows: Mapping[str, Any]) -> str:
    """A list of names and values."""
    lines = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows.items())
    return f"<dl>{lines}</dl>\n"


def table(label: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls sideways where the screen is narrow; the first cell of a row heads it.

    Args:
      label: what it shows, plain text.
      head: plain text.
      rows: cells as HTML, escaped already.
    """
    heads = "".join(f'<th scope="col">{text(one)}</th>' for one in head)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>\n'
        for first, *rest in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(label)}"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>\n{lines}</tbody></table></div>\n"
    )


def picture(png: Path, alt: str, *, chart: bool = False) -> str:
    """A PNG within the page; a `chart` is shown inverted in the dark."""
    content = base64.b64encode(png.read_bytes()).decode()
    kind = ' class="chart"' if chart else ""
    return f'<figure{kind}><img alt="{text(alt)}" src="data:image/png;base64,{content}"></figure>\n'


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
