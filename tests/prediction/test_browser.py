"""The pages in a browser: on a phone, in the dark, by keyboard, of strangers, of a run, of a real scan."""

from __future__ import annotations

import base64
import gzip
import io
from pathlib import Path
from typing import Any

import nibabel.nifti1
import numpy as np
import pages
import pytest
from browsing import CHOSEN, COUNT, Open, point_at, shows
from PIL import Image

from lungjax.evaluation import run_report
from lungjax.prediction.outputs import html_report, html_voxels
from lungjax.preparation.formats import lidc


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_run(browser: Any, tmp_path: Path, scheme: str):
    """On a phone nothing sticks out; a chart's paper, white, is dark in the dark; nothing is fetched or complains."""
    (tmp_path / "config.json").write_text('{"steps": 10, "task": "segment", "data": {"path": "' + "long/" * 50 + '"}}')
    (tmp_path / "split.json").write_text('{"patients": {"P": "train"}, "digest": "d", "intensity": "hu"}')
    lines = [f'{{"step": {step}, "train/loss": {1 / step}, "val/dice": 0.5}}\n' for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    path = run_report.write(tmp_path)
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
    path = html_report.write(tmp_path / "report.html", hu=scan.voxels, mask=mask, report=said)
    assert path.stat().st_size < 30e6
    # What a page around a viewer of NIfTI files would hold, without that viewer: see html_report.py.
    top, bottom, left, right = html_voxels.box(scan.voxels)
    hu = np.clip(scan.voxels, html_voxels.LOW_HU, html_voxels.HIGH_HU)[:, top:bottom, left:right]
    low_hu, high_hu = html_report.WINDOWS_HU["Lung"]
    in_window = np.round((np.clip(hu, low_hu, high_hu) - low_hu) * (255 / (high_hu - low_hu))).astype(np.uint8)
    assert base64_size(hu) > 40e6
    assert base64_size(in_window) > 20e6
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


def base64_size(voxels: np.ndarray) -> int:
    """Bytes of a compressed NIfTI file in a page."""
    image = nibabel.nifti1.Nifti1Image(voxels.transpose(2, 1, 0), np.eye(4))
    return len(base64.b64encode(gzip.compress(image.to_bytes(), 9)))


def places(reading: Any, mask: np.ndarray) -> list[tuple[int, int, int]]:
    """Origin, size of the scan and size of the mask along each axis."""
    return list(zip(reading.origin, mask.shape, reading.mask.shape, strict=True))
