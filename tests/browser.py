"""Chromium, where it is installed, driven by playwright, where that is installed too."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
NEEDS_BROWSER = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed")
PATIENCE = 30_000  # milliseconds


@contextmanager
def open_tab(width: int = 1280, height: int = 1200, **options: Any) -> Iterator[Any]:
    """A tab of playwright; the test is skipped without playwright.

    Args:
        options: of playwright's `new_page`, such as color_scheme='dark'.
    """
    reason = "playwright, which drives the browser, is not installed"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=FLAGS)
        tab = browser.new_page(viewport={"width": width, "height": height}, **options)
        tab.set_default_timeout(PATIENCE)
        yield tab
        browser.close()
