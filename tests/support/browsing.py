"""What tests do and see on an open page of `pages.scan`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pages

Open = Callable[..., Any]
"""The fixture `open_page`."""
ROWS, COLUMNS = pages.SHAPE[1:]
CHOSEN, OTHER, CANDIDATE = (255, 216, 77), (86, 180, 233), (201, 167, 255)
OUR_OWN = "Multiple readback operations"
"""What Chromium says of the tests' own looking at the canvas."""
COUNT = """(colour) => {
  const canvas = document.getElementById("canvas");
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) count += colour.every((value, n) => Math.abs(data[i + n] - value) < 3);
  return count;
}"""
SHADE = """([row, column, rows, columns]) => {
  const canvas = document.getElementById("canvas");
  const scale = Math.min(canvas.width / columns, canvas.height / rows);
  const x = (canvas.width - columns * scale) / 2 + column * scale;
  const y = (canvas.height - rows * scale) / 2 + row * scale;
  return [...canvas.getContext("2d").getImageData(Math.floor(x), Math.floor(y), 1, 1).data.slice(0, 3)];
}"""


def shows(page: Any, slice_number: int) -> None:
    """Waits until the canvas shows this slice, from 1 on, and all that names it agrees."""
    page.wait_for_selector(f'canvas[data-slice="{slice_number}"]', timeout=5000)
    assert page.locator("#where").inner_text() == f"Slice {slice_number} of 12"
    assert page.locator("#slice").input_value() == str(slice_number)
    assert f"Slice {slice_number} of 12" in page.locator("#canvas").get_attribute("aria-label")


def point_at(page: Any, row: int, column: int, shape: tuple[int, ...] = pages.SHAPE) -> str:
    """What the page says of the voxel under the mouse."""
    _, rows, columns = shape
    box = page.locator("#canvas").bounding_box()
    scale = min(box["width"] / columns, box["height"] / rows)
    x = box["x"] + (box["width"] - columns * scale) / 2 + (column + 0.5) * scale
    y = box["y"] + (box["height"] - rows * scale) / 2 + (row + 0.5) * scale
    page.mouse.move(x, y)
    return page.locator("#reading").inner_text()
