"""Checks that every link of the documentation has a target, without a network.

    python scripts/check_links.py SITE [FILE.md ...]

SITE is a built site: each link of a page must lead to an existing file, and to an anchor in it. What a page loads
(scripts, styles, fonts, pictures) must be in the site, which has to work offline. A Markdown file's links must lead to
files of the repository. Of links to other sites only the form is checked. Prints a line for each problem; the exit code
is 1 if there is one.
"""

from __future__ import annotations

import argparse
import functools
import html.parser
import re
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

_LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "object": "data", "embed": "src"}
"""Attributes whose address a browser fetches by itself, as it does for a <link> to a style or a picture."""
_LOADING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "manifest"}
_IN_CSS = re.compile(r"""@import\s+["']([^"']+)|url\(\s*["']?([^"')]+)""")
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_INLINE_CODE = re.compile(r"`[^`\n]*`")
_IN_MARKDOWN = re.compile(r"""\]\(\s*<?([^)\s>]+)|<(?:img|a)\b[^>]*?\b(?:src|href)="([^"]+)""")


class _Page(html.parser.HTMLParser):
    """Addresses and anchors of a page.

    Attributes:
      links: addresses that a reader may follow.
      loaded: addresses that a browser fetches.
      anchors: the ids that a link may name.
    """

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and "href" in given:
            loads = _LOADING_LINKS & {*given.get("rel", "").lower().split()}
            (self.loaded if loads else self.links).append(given["href"])
        if tag in _LOADED and _LOADED[tag] in given:
            self.loaded.append(given[_LOADED[tag]])
        self.loaded += [one.split()[0] for one in given.get("srcset", "").split(",") if one.strip()]


@functools.cache
def _page(path: Path) -> _Page:
    return _Page(path.read_text(encoding="utf-8"))


def check_site(site: Path) -> Iterator[str]:
    """What is wrong with the links of a built site, a sentence each."""
    site = site.resolve()
    for path in sorted(site.rglob("*.html")):
        where = path.relative_to(site)
        for address in _page(path).links:
            if fault := _fault(address, path, site):
                yield f"{where}: {address}: {fault}"
        for address in _page(path).loaded:
            if fault := _loading_fault(address, path, site):
                yield f"{where}: {address}: {fault}"
    for path in sorted(site.rglob("*.css")):
        for groups in _IN_CSS.findall(path.read_text(encoding="utf-8")):
            address = "".join(groups)
            if fault := _loading_fault(address, path, site):
                yield f"{path.relative_to(site)}: {address}: {fault}"


def check_markdown(path: Path, root: Path) -> Iterator[str]:
    """What is wrong with the links of a Markdown file of the repository `root`, a sentence each."""
    text = _INLINE_CODE.sub("", _FENCED.sub("", path.read_text(encoding="utf-8")))
    for groups in _IN_MARKDOWN.findall(text):
        address = "".join(groups)
        if fault := _fault(address, path, root.resolve()):
            yield f"{path}: {address}: {fault}"


def _loading_fault(address: str, path: Path, root: Path) -> str | None:
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "data" or (not parts.scheme and not parts.netloc and not parts.path):
        return None
    if parts.scheme or parts.netloc:
        return "is loaded from another site; the documentation must work offline"
    return _fault(address, path, root)


def _fault(address: str, path: Path, root: Path) -> str | None:
    try:
        parts = urllib.parse.urlsplit(address)
    except ValueError as error:
        return f"is no address ({error})"
    if parts.scheme or parts.netloc:
        return _foreign_fault(parts)
    target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path.resolve()
    if not target.is_relative_to(root):
        return "leads out of the documentation"
    if target.is_dir() and target.joinpath("index.html").is_file():
        target = target / "index.html"
    if not target.exists():
        return "is not there"
    anchor = urllib.parse.unquote(parts.fragment)
    if anchor and target.suffix == ".html" and anchor not in _page(target).anchors:
        return f"{target.name} has no such anchor"
    if anchor and target.suffix == ".md" and anchor not in _headings(target):
        return f"{target.name} has no such heading"
    return None


def _foreign_fault(parts: urllib.parse.SplitResult) -> str | None:
    if parts.scheme == "mailto":
        return None if "@" in parts.path else "is no address of mail"
    if parts.scheme not in ("http", "https"):
        return f"has the scheme {parts.scheme!r}"
    host = parts.hostname or ""
    if "." not in host or re.search(r"\s", parts.geturl()) or not re.fullmatch(r"[a-z0-9.-]+", host):
        return "is no address of a site"
    return None


@functools.cache
def _headings(path: Path) -> set[str]:
    """The anchors that a Markdown file's headings get."""
    headings = re.findall(r"^#+\s+(.*?)\s*$", _FENCED.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks the links of the built documentation and of Markdown files.")
    parser.add_argument("site", type=Path, help="folder of a built site")
    parser.add_argument("files", nargs="*", type=Path, help="Markdown files of the repository")
    given = parser.parse_args()
    pages = len([*given.site.rglob("*.html")])
    if not pages:
        print(f"{given.site} holds no page; build the site first: bash scripts/docs.sh", file=sys.stderr)
        return 2
    wrong = [*check_site(given.site)]
    for path in given.files:
        wrong += check_markdown(path, Path.cwd())
    for line in wrong:
        print(line)
    print(f"{pages} pages and {len(given.files)} Markdown files: {len(wrong) or 'no'} broken links")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
