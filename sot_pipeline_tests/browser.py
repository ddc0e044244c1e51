"""Headless Chromium for the tests; they skip where there is none."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
_WAIT = 60  # seconds


@contextlib.contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A selenium driver that keeps the console's messages."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (*_ARGUMENTS, f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def open_report(browser: Any, html: str, folder: Path) -> float:
    """Show a report from a file and wait until its script is done; returns the seconds."""
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    start = time.perf_counter()
    browser.get(path.as_uri())
    ready = wait_for(browser, "return document.documentElement.dataset.ready")
    assert ready == "yes", browser.get_log("browser")
    return time.perf_counter() - start


def wait_for(browser: Any, script: str) -> Any:
    """What a script returns as soon as that is true."""
    end = time.monotonic() + _WAIT
    while time.monotonic() < end:
        if found := browser.execute_script(script):
            return found
        time.sleep(0.02)
    raise AssertionError(f"never true in {_WAIT} s: {script}")
