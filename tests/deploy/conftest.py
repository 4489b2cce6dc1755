"""Chromium without a screen, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

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
