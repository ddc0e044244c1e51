"""A headless Chromium that waits for what it looks for, and keeps a picture of each step."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE = 90  # seconds, on two loaded cores
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--force-color-profile=srgb", "--hide-scrollbars",
)  # fmt: skip
PASSING = (
    ElementClickInterceptedException,
    NoSuchElementException,
    StaleElementReferenceException,
)


@dataclass
class Browser:
    """A page of the UI at `address`, and the folder its pictures go to."""

    driver: webdriver.Chrome
    address: str
    out: Path
    num_pictures: int = 0

    def open(self, path: str) -> None:
        self.driver.get(self.address + path)

    def until(self, condition: Callable[[Any], Any], what: str, seconds: float = PATIENCE) -> Any:
        wait = WebDriverWait(self.driver, seconds, ignored_exceptions=PASSING)
        try:
            return wait.until(condition)
        except TimeoutException:
            page = f"{self.driver.current_url}\n{self.text()[:3000]}"
            raise AssertionError(f"not within {seconds} s: {what}; the page is {page}") from None

    def find(self, path: str, what: str | None = None, seconds: float = PATIENCE) -> WebElement:
        """A visible element by its XPath."""

        def found(driver: Any) -> WebElement | None:
            shown = [e for e in driver.find_elements(By.XPATH, path) if e.is_displayed()]
            return shown[0] if shown else None

        return self.until(found, what or path, seconds)

    def all(self, path: str) -> list[WebElement]:
        return self.driver.find_elements(By.XPATH, path)

    def click(self, path: str) -> None:
        def clicked(driver: Any) -> bool:
            self.find(path).click()
            return True

        self.until(clicked, f"a click on {path}")

    def hover(self, path: str) -> None:
        ActionChains(self.driver).move_to_element(self.find(path)).perform()

    def keys(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def expand_all_groups(self) -> None:
        chain = ActionChains(self.driver)
        chain.key_down(Keys.ALT).send_keys("e").key_up(Keys.ALT).perform()

    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    def shows(self, *texts: str, seconds: float = PATIENCE) -> None:
        """Wait until every text stands on the page."""
        for text in texts:
            self.until(lambda _, text=text: text in self.text(), f"the page says {text!r}", seconds)

    def picture(self, name: str) -> Path:
        self.num_pictures += 1
        path = self.out / f"{self.num_pictures:02d}-{name}.png"
        self.driver.save_screenshot(str(path))
        return path

    def requested_hosts(self) -> set[str]:
        """Hosts that the browser has asked for anything since the last look."""
        hosts = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                params = message["params"]
                asked = urlsplit(params.get("url") or params["request"]["url"])
                if asked.scheme in ("http", "https", "ws", "wss"):
                    hosts.add(asked.netloc)
        return hosts

    @contextlib.contextmanager
    def new_tab(self, opening: Callable[[], None]) -> Iterator[None]:
        """Inside: the tab that `opening` opens; after: the tab from before."""
        before, known = self.driver.current_window_handle, set(self.driver.window_handles)
        opening()
        self.until(lambda d: set(d.window_handles) - known, "a new tab")
        (opened,) = set(self.driver.window_handles) - known
        self.driver.switch_to.window(opened)
        try:
            yield
        finally:
            self.driver.close()
            self.driver.switch_to.window(before)


@contextlib.contextmanager
def chromium(address: str, out: Path, size: tuple[int, int] = (1400, 1000)) -> Iterator[Browser]:
    """A browser with a fresh profile, as of somebody who never saw the UI.

    Args:
        size: Of the window, in pixels.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for option in (*OPTIONS, f"--window-size={size[0]},{size[1]}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield Browser(driver, address, out)
    finally:
        driver.quit()
