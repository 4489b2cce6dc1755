"""The viewer of a scan's page in a browser: slices, windows, contours, nodules, zoom."""

from __future__ import annotations

import numpy as np
import pages
import pytest
from browsing import CANDIDATE, CHOSEN, COLUMNS, COUNT, ROWS, SHADE, Open, point_at, shows

from lungjax.prediction.outputs import html_report


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
    for key, (name, (low, high)) in zip("123", html_report.WINDOWS_HU.items(), strict=True):
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


def test_a_page_without_nodules(open_page: Open):
    page = open_page(changed={"nodules": [], "candidates": []})
    shows(page, 7)
    assert page.locator("#next").is_disabled()
    page.keyboard.press("n")
    shows(page, 7)
