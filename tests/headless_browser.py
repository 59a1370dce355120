"""A headless Chromium that opens a page in a colour scheme and width, and tells what it drew."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.support.ui import WebDriverWait


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Chrome]:
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("chromedriver is not installed (Debian: chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=ChromeService(driver))
    yield chrome
    chrome.quit()


def shown(browser: Chrome, page: Path, width: int = 1280, scheme: str = "light") -> list[dict[str, Any]]:
    """Open the page at a width and colour scheme; what the browser complained of."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 640}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    set_scheme(browser, scheme)
    browser.get_log("browser")
    browser.get(page.as_uri())
    WebDriverWait(browser, 30).until(
        lambda found: found.execute_script("return document.readyState") == "complete"
    )
    complaints: list[dict[str, Any]] = browser.get_log("browser")
    return complaints


def set_scheme(browser: Chrome, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def marks(browser: Chrome, chart: str) -> int:
    """How many lines, bars and points a chart has drawn."""
    drawn = f"#{chart} svg.main-svg :is(.point, .js-line, .errorbar)"
    return int(browser.execute_script("return document.querySelectorAll(arguments[0]).length", drawn))


def fetched(browser: Chrome) -> list[str]:
    """What pages asked a network for since the performance log was last read."""
    sent = [
        entry["message"]
        for entry in browser.get_log("performance")
        if "Network.requestWillBeSent" in entry["message"]
    ]
    return [message for message in sent if "file://" not in message and '"url":"data:' not in message]
