"""Chromium without a screen, where there is one; phantom series, and a network that knows their nodules."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing
import chests
import numpy as np
import pages
import pytest

from lungjax.ct.scan import Scan
from lungjax.prediction import opening
from lungjax.prediction.outputs import html_report
from lungjax.preparation.formats import lidc

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="module")  # While it is open Playwright holds asyncio's loop, which other modules' tests need.
def browser() -> Iterator[Any]:
    """Playwright's, of an installed Chromium or Playwright's own; skips the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser test")
    with sync_api.sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, CHROMIUM)), None) or playwright.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip("no Chromium is installed: no browser test")
        root = ("--no-sandbox",) if os.geteuid() == 0 else ()  # As root its sandbox refuses to start.
        chromium = playwright.chromium.launch(executable_path=path, args=[*QUIET, *root])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[browsing.Open]:
    """Opens a page of `pages.scan` from the disk; in the end nothing was fetched, and nothing complained."""
    said: list[str] = []
    contexts = []

    def open_page(*, changed: dict[str, Any] | None = None, **device: Any) -> Any:
        hu, mask = pages.scan()
        path = html_report.write(tmp_path / "report.html", hu=hu, mask=mask, report=pages.report(**(changed or {})))
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **device})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: None if browsing.OUR_OWN in message.text else said.append(message.text))
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


@pytest.fixture(scope="session")
def dicom(phantom_dataset: Path) -> Path:
    """Two phantom series, with the readers' nodules."""
    return phantom_dataset.parent / "dicom"


@pytest.fixture(scope="session")
def read(dicom: Path) -> dict[str, Scan]:
    entries, _ = lidc.find(dicom)
    return {entry.key: lidc.read(entry) for entry in entries}


@pytest.fixture
def told(read: dict[str, Scan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> chests.Told:
    """Told what at least two readers marked; and of one scan's first nodule, that it is less probable."""
    truth = []
    for scan in read.values():
        bits = np.bitwise_count(scan.reader_bits()) >= 2
        truth.append((scan.voxels, np.where(bits, 0.9, 0.01)))
    trained = chests.untrained(tmp_path / "model")
    trained = dataclasses.replace(trained, seen={"slice_mm": [0.5, 5.0], "pixel_mm": [0.5, 5.0], "side_px": 64})
    told, open_model = chests.Told(truth, trained), opening.open_model
    monkeypatch.setattr(
        opening, "open_model", lambda name, **kept: told if Path(name).name == "model" else open_model(name, **kept)
    )
    return told
