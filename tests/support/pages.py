"""A small scan with two nodules, its report, and a page read back: as text, and in a browser."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from lungjax.ct.scan import RATING_NAMES

SHAPE = (12, 60, 80)
SPACING_MM = (2.0, 0.8, 0.8)
NOTICE = "Research software, not a medical device."


def scan(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """HU and mask: a body of noisy lung with a rim of soft tissue, air around it, nodules 1 and 2 of 60 HU."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    radius = np.broadcast_to(np.hypot((y - 30) / 22, (x - 42) / 28), SHAPE)
    hu = np.where(radius < 1, -800, -1000) + rng.integers(-60, 60, SHAPE)
    hu[(radius < 1) & (radius > 0.85)] = 40
    hu[:, 30, 42] = np.linspace(-2000, 4000, SHAPE[0])  # Beyond both ends of what a page keeps.
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:6, 20:26, 30:37] = 1
    mask[4, 22, 33] = 0  # A hole.
    mask[8:10, 36:40, 50:53] = 2
    hu[mask > 0] = 60
    return hu.astype(np.int16), mask


def found(number: int, centre: tuple[float, float, float], slices: tuple[int, int], **changed: Any) -> dict[str, Any]:
    centre_mm = [centre[n] * SPACING_MM[n] - 20 for n in (2, 1, 0)]
    one = {"number": number, "centre_voxel": list(centre), "centre_mm": centre_mm, "slices": list(slices)}
    one |= {"volume_mm3": 1234.5, "longest_mm": 5.6, "perpendicular_mm": 4.8, "mean_hu": 60.0, "score": 0.9}
    one |= {"malignancy": 0.25, "mean_mm": 5.2, "fleischner_mm": 5, "type": "part-solid", "solid_mean_mm": 3.4}
    one |= {"side": "left", "zone": "upper", "pleura_mm": 7.5, "lung_rads": "2", "lung_rads_reason": "It is small"}
    rating = {"expected": 3.64, "standard_deviation": 0.87, "probabilities": [0.1, 0.1, 0.2, 0.4, 0.2]}
    return one | {"ratings": dict.fromkeys(RATING_NAMES, rating)} | changed


def report(**changed: Any) -> dict[str, Any]:
    """Of `scan`."""
    affine = [[0.8, 0, 0, -20], [0, 0.8, 0, -20], [0, 0, 2, -20], [0, 0, 0, 1]]
    whole = {
        "schema": 4,
        "lungjax": "0.1.0",
        "made": "2026-01-02T03:04:05Z",
        "notice": NOTICE,
        "model": {
            "name": "unet",
            "task": "segment",
            "step": 2500,
            "trained_on": "hu",
            "split_digest": "0123456789abcdef",
            "intensity": "hu",
            "window_hu": [-600.0, 1500.0],
        },
        "nodule_classifier": None,
        "scan": {
            "patient_id": "P-1",
            "series_uid": "1.2.3",
            "source": "here",
            "shape": list(SHAPE),
            "spacing_mm": list(SPACING_MM),
            "affine_lps": affine,
        },
        "refused": None,
        "warnings": ["Two slices are noisy."],
        "threshold": 0.5,
        "nodules": [found(1, (4.0, 22.5, 33.0), (3, 5)), found(2, (8.5, 37.5, 51.0), (8, 9), malignancy=None)],
        "candidates": [found(3, (6.0, 40.0, 30.0), (5, 7), score=0.2)],
        "lung_rads": {"category": "2", "reason": "nodule 1: It is small", "note": "By rule."},
        "patient": {
            "probability": 0.37,
            "reason": None,
            "calibration": None,
            "attention": [{"number": 1, "attention": 0.25}, {"number": 2, "attention": 0.75}],
            "meaning": "The opinion of readers.",
            "limits": ["Trained on marked nodules."],
            "model": None,
        },
    }
    return whole | changed


class Page(HTMLParser):
    """A page taken apart.

    Attributes:
      tags: (name, attributes) of every element that begins.
      blocks: text within each `<script>` and `<style>`, by its id, or its tag.
      text: all other text.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: dict[str, str] = {}
        self.text = ""
        self._inside: str | None = None
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " " if tag in ("th", "td", "dt", "dd") else ""
        if tag in ("script", "style"):
            self._inside = dict(attrs).get("id") or tag
            assert self._inside not in self.blocks
            self.blocks[self._inside] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is None:
            self.text += data
        else:
            self.blocks[self._inside] += data

    @property
    def scan(self) -> dict[str, Any]:
        return json.loads(self.blocks["scan"])

    def voxels(self) -> np.ndarray:
        """HU of the page's box, voxel for voxel, as JPEG-LS tells: the second implementation of what was packed."""
        top, bottom, left, right = self.scan["box"]
        height, width = bottom - top, right - left
        volume = []
        for number in range(self.scan["shape"][0]):
            content = zlib.decompress(base64.b64decode(self.blocks[f"v{number}"]))
            size = height * width
            assert len(content) == 2 * size
            plane = np.zeros((height + 1, width + 1), int)  # A row and a column of zeros before it.
            for at in range(size):
                row, column = divmod(at, width)
                folded = content[at] + 256 * content[size + at]
                rest = -(folded + 1) // 2 if folded % 2 else folded // 2
                a, b, c = plane[row + 1, column], plane[row, column + 1], plane[row, column]
                predicted = min(a, b) if c >= max(a, b) else max(a, b) if c <= min(a, b) else a + b - c
                plane[row + 1, column + 1] = predicted + rest
            volume.append(plane[1:, 1:] + self.scan["low_hu"])
        return np.stack(volume)

    def mask(self) -> np.ndarray:
        """uint8 of the scan's shape."""
        slices, rows, columns = self.scan["shape"]
        mask = np.zeros((slices, rows, columns), np.uint8)
        for number in range(slices):
            if f"m{number}" in self.blocks:
                content = zlib.decompress(base64.b64decode(self.blocks[f"m{number}"]))
                mask[number] = np.frombuffer(content, np.uint8).reshape(rows, columns)
        return mask


def assert_nothing_is_fetched(page: Page) -> None:
    """No element loads anything from outside the file, and the policy would forbid it."""
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "base", "form", "audio", "video"), tag
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert "style" not in attributes, (tag, attributes)
    assert "url(" not in page.blocks["style"]
    assert "@import" not in page.blocks["style"]
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    rules = dict(rule.split(maxsplit=1) for rule in str(policy).split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "unsafe" not in str(policy)
    assert "http" not in str(policy).replace("http-equiv", "")
