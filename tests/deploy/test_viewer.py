"""The page of a scan in a browser: by mouse, keys and touch, in the dark, on a phone."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
from PIL import Image

from lungjax.deploy import report, training
from lungjax.lidc.formats import lidc

Open = Callable[..., Any]
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


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a page of `pages.scan` from the disk; in the end nothing was fetched, and nothing complained."""
    said: list[str] = []
    contexts = []

    def open_page(*, changed: dict[str, Any] | None = None, **device: Any) -> Any:
        hu, mask = pages.scan()
        path = report.write(tmp_path / "report.html", hu=hu, mask=mask, report=pages.report(**(changed or {})))
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **device})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: None if OUR_OWN in message.text else said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: None if request.url == path.as_uri() else said.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("canvas[data-slice]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


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


def test_the_pointer_reads_the_scan_s_own_hu(open_page: Open):
    page = open_page()
    hu, _ = pages.scan()
    rng = np.random.default_rng(2)
    page.locator("#viewer").focus()
    page.keyboard.press("Home")
    for number in range(pages.SHAPE[0]):
        shows(page, number + 1)
        places = [(30, 42), *zip(rng.integers(8, 52, 4), rng.integers(14, 70, 4), strict=True)]
        for row, column in places:  # The first goes beyond what a page keeps, at either end.
            value = hu[number, row, column]
            said = "≤ -1024" if value <= -1024 else "≥ 3071" if value >= 3071 else str(value)
            assert point_at(page, row, column) == f"row {row}, column {column}: {said} HU"
        page.keyboard.press("ArrowUp")
    assert point_at(page, 5, 1) == "row 5, column 1: air, not stored"


def test_slices_turn_by_keys_wheel_slider_and_mouse(open_page: Open):
    page = open_page()
    shows(page, 5)  # The first nodule's.
    for key, expected in (
        *(("ArrowUp", 6), ("ArrowRight", 7), ("ArrowDown", 6), ("ArrowLeft", 5), ("End", 12), ("ArrowUp", 12)),
        *(("PageDown", 2), ("PageUp", 12), ("Home", 1), ("PageDown", 1)),
    ):
        page.keyboard.press(key)
        shows(page, expected)
    point_at(page, 30, 42)
    page.mouse.wheel(0, -100)
    shows(page, 2)
    page.mouse.wheel(0, 100)
    shows(page, 1)
    page.locator("#slice").focus()
    page.keyboard.press("ArrowRight")
    shows(page, 2)
    page.locator("#slice").fill("9")
    shows(page, 9)
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 50, box["y"] + 300 + box["height"] / 6)  # A sixth of its height, two slices of twelve.
    page.mouse.up()
    shows(page, 7)
    assert page.evaluate("window.scrollY") == 0


def test_windows(open_page: Open):
    """Grey is where the HU lie between the window's ends: soft tissue of 40 HU at the body's rim, column 15."""
    page = open_page()
    page.keyboard.press("Home")
    shows(page, 1)
    hu, _ = pages.scan()
    row = 30
    column = int(np.flatnonzero(hu[0, row] == 40)[1])
    for key, (name, (low, high)) in zip("123", report.WINDOWS_HU.items(), strict=True):
        for way in ("click", "key"):
            page.keyboard.press("1" if key != "1" else "2")
            page.get_by_role("button", name=name).click() if way == "click" else page.keyboard.press(key)
            shade = page.evaluate(SHADE, [row + 0.5, column + 0.5, ROWS, COLUMNS])
            assert shade == pytest.approx([255 * min(max((40 - low) / (high - low), 0), 1)] * 3, abs=2), (name, way)
            pressed = page.locator('[data-window][aria-pressed="true"]')
            assert pressed.all_inner_texts() == [name]


def test_contours_lie_on_the_edges_of_the_mask(open_page: Open):
    page = open_page()
    shows(page, 5)
    _, mask = pages.scan()
    plane = mask[4] > 0
    for row in range(18, 28):
        for column in range(28, 39):  # The side above each pixel, and the one before it.
            sides = {
                (0.0, 0.5): plane[row, column] != plane[row - 1, column],
                (0.5, 0.0): plane[row, column] != plane[row, column - 1],
            }
            for (down, aside), edge in sides.items():
                at = [row + down, column + aside, ROWS, COLUMNS]
                shade = np.array(page.evaluate(SHADE, at))
                assert (np.abs(shade - CHOSEN).max() < 60) == edge, (row, column, down)
            inside = page.evaluate(SHADE, [row + 0.5, column + 0.5, ROWS, COLUMNS])
            assert len(set(inside)) == 1  # Grey.


def test_contours_are_switched_on_and_off(open_page: Open):
    page = open_page()
    button = page.get_by_role("button", name="Contours")
    for switch in (button.click, lambda: page.keyboard.press("c")):
        assert page.evaluate(COUNT, CHOSEN) > 100
        switch()
        assert page.evaluate(COUNT, CHOSEN) == 0
        assert button.get_attribute("aria-pressed") == "false"
        switch()
        assert button.get_attribute("aria-pressed") == "true"
        assert page.evaluate(COUNT, CHOSEN) > 100


def test_nodules_are_jumped_to(open_page: Open):
    page = open_page()
    page.get_by_role("button", name="Show nodule 2, score 0.90").click()
    shows(page, 9)  # 8.5, counted from 1.
    assert page.locator("tr.chosen").count() == 1
    assert "; nodule 2" in page.locator("#canvas").get_attribute("aria-label")
    for press, expected in (("n", 5), ("n", 9), ("p", 5), ("p", 9)):
        page.keyboard.press(press)
        shows(page, expected)
    for name, expected in (("Nodule →", 5), ("← Nodule", 9)):
        page.get_by_role("button", name=name).click()
        shows(page, expected)
    page.keyboard.press("ArrowLeft")
    shows(page, 8)
    assert page.evaluate(COUNT, CANDIDATE) == 0
    page.get_by_text("1 below the threshold").click()  # While they are listed, they are ringed.
    for _ in range(100):  # The browser tells the page a moment later.
        if page.evaluate(COUNT, CANDIDATE) > 20:
            break
        page.wait_for_timeout(50)
    assert page.evaluate(COUNT, CANDIDATE) > 20
    page.locator('[data-mark="2"]').click()
    shows(page, 7)
    assert page.evaluate(COUNT, CHOSEN) > 20  # A dashed ring, for it has no outline.
    page.keyboard.press("n")
    shows(page, 5)
    page.keyboard.press("ArrowUp")  # The scan has the focus.
    shows(page, 6)


def test_zoom_keeps_the_nodule_in_view(open_page: Open):
    page = open_page()
    before = page.evaluate(COUNT, CHOSEN)
    for text in ("Zoom 2x", "Zoom 4x"):
        page.keyboard.press("z")
        assert page.locator("#zoom").inner_text() == text
    assert page.evaluate(COUNT, CHOSEN) > 2.5 * before
    page.locator("#zoom").click()
    assert page.locator("#zoom").inner_text() == "Zoom 1x"
    assert page.evaluate(COUNT, CHOSEN) == before


def test_by_touch_on_a_phone(open_page: Open):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.getElementById('canvas').width") > 700  # As sharp as the screen.
    small = "[...document.querySelectorAll('button')].filter(b => b.offsetHeight && b.offsetHeight < 40).length"
    assert page.evaluate(small) == 0
    page.get_by_role("button", name="Show nodule 2, score 0.90").tap()
    shows(page, 9)
    box = page.locator("#canvas").bounding_box()
    assert box["y"] > -1  # The scan is in view again.
    fingers = page.context.new_cdp_session(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": across, "y": down} for across, down in points]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (x, y))
    for part in (0.1, 0.2, 0.25):
        touch("touchMove", (x, y - box["height"] * part))
    touch("touchEnd")
    shows(page, 12)  # A quarter of its height, three slices of twelve.


def test_in_the_dark_and_in_the_light(open_page: Open):
    """Text has a contrast of at least 7 to 1 against the page either way (WCAG 2.2, 1.4.6)."""
    for scheme, dark in (("light", False), ("dark", True)):
        page = open_page(color_scheme=scheme)
        style = "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
        ink, paper = (
            luminance([int(part) for part in colour.strip("rgb()").split(",")]) for colour in page.evaluate(style)
        )
        assert (paper < ink) == dark
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7


def luminance(rgb: list[int]) -> float:
    """Relative, as WCAG 2.2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_by_keyboard_alone(open_page: Open):
    """Tab reaches everything that can be used, each with a name and a visible focus."""
    page = open_page()
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        focus = "getComputedStyle(document.activeElement).outlineStyle"
        named = "(e => e.getAttribute('aria-label') || e.innerText)(document.activeElement)"
        if page.evaluate("document.activeElement === document.body"):
            continue
        assert page.evaluate(focus) == "solid"
        reached.append(page.evaluate(named))
    assert all(reached)
    for name in ("Bone", "Contours", "Zoom 1x", "Nodules", "Scan: arrow keys turn over the slices"):
        assert name in reached, name
    assert any("Slice" in name for name in reached)


def test_a_hostile_report_stays_text(open_page: Open):
    hostile = '</script><script>window.ran = 1</script><img src=x onerror="window.ran = 1">'
    scan = pages.report()["scan"] | {"patient_id": hostile, "source": hostile}
    nodule = pages.report()["nodules"][0] | {"number": hostile}
    page = open_page(changed={"scan": scan, "warnings": [hostile], "nodules": [nodule]})
    page.locator('[data-mark="0"]').click()
    assert page.locator("h1").inner_text() == f"Scan of {hostile}"
    assert page.evaluate("window.ran") is None
    assert page.locator("img").count() == 0


def test_a_page_without_nodules(open_page: Open):
    page = open_page(changed={"nodules": [], "candidates": []})
    shows(page, 7)
    assert page.locator("#next").is_disabled()
    page.keyboard.press("n")
    shows(page, 7)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_run(browser: Any, tmp_path: Path, scheme: str):
    """On a phone nothing sticks out; a chart's paper, white, is dark in the dark; nothing is fetched or complains."""
    (tmp_path / "config.json").write_text('{"steps": 10, "task": "segment", "data": {"path": "' + "long/" * 50 + '"}}')
    (tmp_path / "split.json").write_text('{"patients": {"P": "train"}, "digest": "d", "intensity": "hu"}')
    lines = [f'{{"step": {step}, "train/loss": {1 / step}, "val/dice": 0.5}}\n' for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    path = training.write(tmp_path)
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme, device_scale_factor=1)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: None if request.url.startswith("data:") else said.append(request.url))
    page.goto(path.as_uri())
    assert said == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("[...document.images].map((image) => image.naturalWidth > 300)") == [True, True]
    chart = Image.open(io.BytesIO(page.locator(".chart img").first.screenshot())).convert("L")
    assert (np.median(np.asarray(chart)) < 60) == (scheme == "dark")
    page.close()


def test_a_real_scan(browser: Any, real_data: Path, tmp_path: Path):
    """LIDC-IDRI-0003 with the readers' majority for nodules: the page's size, its first picture, its HU and sides."""
    (entry,), _ = lidc.find(real_data / "lidc-dicom" / "LIDC-IDRI" / "LIDC-IDRI-0003")
    scan = lidc.read(entry)
    mask = np.zeros(scan.voxels.shape, np.uint8)
    nodules = []
    for number, nodule in enumerate(scan.nodules, 1):
        votes = sum(np.pad(one.mask, [(o, s - o - m) for o, s, m in places(one, mask)]) for one in nodule.readings)
        mask[votes >= min(2, len(nodule.readings))] = number
        where = np.argwhere(mask == number)
        centre = tuple(where.mean(axis=0).tolist())
        nodules.append(pages.found(number, centre, (int(where[0, 0]), int(where[-1, 0]))))
    about = {"shape": list(mask.shape), "spacing_mm": list(scan.spacing_mm), "patient_id": scan.patient_id}
    said = pages.report(nodules=nodules, candidates=[], scan=pages.report()["scan"] | about)
    path = report.write(tmp_path / "report.html", hu=scan.voxels, mask=mask, report=said)
    assert path.stat().st_size < 30e6
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(path.as_uri())
    page.wait_for_selector("canvas[data-slice]", timeout=60_000)
    for number, one in enumerate(nodules, 1):
        page.locator(f'[data-mark="{number - 1}"]').click()
        middle = round(one["centre_voxel"][0])
        page.wait_for_selector(f'canvas[data-slice="{middle + 1}"]')
        assert page.evaluate(COUNT, CHOSEN) > 50
        for row, column in ((256, 256), (200, 130), (300, 400)):
            said = f"row {row}, column {column}: {scan.voxels[middle, row, column]} HU"
            assert point_at(page, row, column, mask.shape) == said
    page.close()


def places(reading: Any, mask: np.ndarray) -> list[tuple[int, int, int]]:
    """Origin, size of the scan and size of the mask along each axis."""
    return list(zip(reading.origin, mask.shape, reading.mask.shape, strict=True))
