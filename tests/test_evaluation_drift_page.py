"""The drift report in a real browser and on the terminal: charts drawn, no script error, nothing fetched."""

import json
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import Select

from evaluation.drift_page import print_drift, write_drift
from features.spec import index
from mlops.drift import DriftReport, check, unwatched
from mlops.drift_baseline import NoBaseline
from mlops.drift_streams import Results
from tests.drift_worlds import seen, trained
from tests.headless_browser import fetched, marks, shown

CHARTS = ("ratio-0", "ratio-1", "spread-0", "spread-1", "mix", "performance")


@cache
def drifted() -> DriftReport:
    now = seen("later")
    assert now.results is not None
    rows = now.markets["SYNTHETIC"].copy()
    rows[:, index("rsi_norm")] += 1.0
    worse = Results(now.results.d - 1.0, now.results.r)
    return check(trained(), replace(now, markets={"SYNTHETIC": rows}, results=worse, notes=("a <b>note",)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("drift") / "drift.html"
    write_drift(drifted(), place)
    return place


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_chart_is_drawn_without_a_script_error(
    browser: Chrome, page: Path, width: int, scheme: str
) -> None:
    assert shown(browser, page, width, scheme) == []
    assert {chart: marks(browser, chart) > 0 for chart in CHARTS} == dict.fromkeys(CHARTS, True)
    assert marks(browser, "ratio-0") == (12 if width == 390 else 33)
    assert marks(browser, "mix") == 12
    higher = "const [place] = arguments; return place.querySelector('svg').clientHeight > place.clientHeight"
    for chart in CHARTS:
        assert not browser.execute_script(higher, browser.find_element("id", chart)), chart
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_page_fetches_nothing(browser: Chrome, page: Path) -> None:
    browser.get_log("performance")
    shown(browser, page)
    assert fetched(browser) == []


def test_another_column_can_be_looked_at(browser: Chrome, page: Path) -> None:
    assert shown(browser, page) == []
    title = "return document.querySelector('#spread-0 .xtitle').textContent"
    assert browser.execute_script(title) == "rsi_norm"  # what drifted comes first
    Select(browser.find_element("id", "spread-column-0")).select_by_visible_text("hour_sin")
    assert browser.execute_script(title) == "hour_sin"
    assert browser.get_log("browser") == []


def test_a_model_without_a_baseline_still_makes_a_page(browser: Chrome, tmp_path: Path) -> None:
    place = tmp_path / "none.html"
    write_drift(unwatched(None, "a test", NoBaseline("baseline", None, "train again")), place)
    assert shown(browser, place) == []
    assert "No baseline" in browser.title


def test_the_figures_lie_beside_the_page_as_json(page: Path) -> None:
    told = json.loads(page.with_suffix(".json").read_text())
    assert told["alarm"] is True
    assert len(told["streams"][0]["findings"]) == 33
    assert "&lt;b&gt;note" in page.read_text()


def test_the_terminal_shows_what_drifted_first_and_every_alarm() -> None:
    screen = StringIO()
    print_drift(drifted(), Console(file=screen, width=150))
    lines = screen.getvalue().splitlines()
    first = next(line for line in lines if "rsi_norm" in line)
    assert lines.index(first) == 3
    assert sum(line.startswith("ALARM") for line in lines) == len(drifted().alarms) == 2
    assert "a <b>note" in screen.getvalue()


def test_on_a_narrow_terminal_no_figure_is_cut_off() -> None:
    screen = StringIO()
    print_drift(drifted(), Console(file=screen, width=80))
    assert "…" not in screen.getvalue()


def test_without_an_alarm_the_terminal_says_so() -> None:
    screen = StringIO()
    print_drift(check(trained(), seen("later")), Console(file=screen, width=150))
    assert "No drift" in screen.getvalue()
    assert "ALARM" not in screen.getvalue()


def test_statistics_of_a_report_are_finite_numbers() -> None:
    for stream in drifted().streams:
        for finding in stream.findings:
            assert np.isfinite([*finding.statistics.values(), *finding.limits.values()]).all()
