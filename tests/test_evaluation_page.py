"""The report in a real browser: charts drawn, no script error, nothing fetched, fit for a phone."""

from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

from envs.guardrails import Limits
from evaluation.backtest import run
from evaluation.comparison import compare
from evaluation.report import LearningCurve, write_html
from policies.baselines import FixedSize, baselines
from tests.headless_browser import fetched, marks, set_scheme, shown
from tests.synthetic_signals import table
from tests.test_evaluation_report import predictor_figures

SIZERS = len(baselines()) + 1
CHARTS = (
    "versus-reference",
    "versus-plug-in",
    "equity",
    "sizes",
    "reliability",
    "learning",
    "predictor-0",
    "predictor-1",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    signals = table(300)
    policies = (*baselines(), FixedSize(0.25, "RL sizer"))
    paths = [run(policy, signals, Limits(), 28.0) for policy in policies]
    place = tmp_path_factory.mktemp("report") / "report.html"
    write_html(
        compare(paths, signals, replications=100),
        paths,
        signals,
        {"data": "synthetic", "digest": "0123456789abcdef" * 4},
        place,
        learning=LearningCurve(np.arange(1.0, 9.0), np.linspace(0.0, 0.1, 8)),
        reliability=(signals.probability[:, 2], signals.gross_r > 1.0),
        predictors={"EURUSD": predictor_figures(0.4), "BTC/USDT": predictor_figures(0.0)},
    )
    return place


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_chart_is_drawn_without_a_script_error(
    browser: Chrome, page: Path, width: int, scheme: str
) -> None:
    assert shown(browser, page, width, scheme) == []
    assert {chart: marks(browser, chart) > 0 for chart in CHARTS} == dict.fromkeys(CHARTS, True)
    assert marks(browser, "equity") == 2 * SIZERS  # equity and drawdown of each


def test_a_script_error_would_be_seen(browser: Chrome, page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace('id="data">{', 'id="data">{,', 1))
    complaints = shown(browser, broken)
    assert len(complaints) == 1
    assert "Uncaught SyntaxError" in complaints[0]["message"]
    assert marks(browser, "equity") == 0


def test_one_sizer_on_three_signals_still_makes_a_page(browser: Chrome, tmp_path: Path) -> None:
    signals = table(3)
    paths = [run(FixedSize(1.0, "rule 1x"), signals, Limits(), 28.0)]
    place = tmp_path / "small.html"
    write_html(compare(paths, signals), paths, signals, {}, place)
    assert shown(browser, place) == []
    assert marks(browser, "equity") == 2


def test_the_page_fetches_nothing(browser: Chrome, page: Path) -> None:
    browser.get_log("performance")
    shown(browser, page)
    assert fetched(browser) == []


def test_a_phone_scrolls_down_but_never_sideways(browser: Chrome, page: Path) -> None:
    shown(browser, page, 390)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert browser.execute_script("return document.documentElement.scrollHeight") > 2000


def test_the_charts_follow_the_readers_light_or_dark_setting(browser: Chrome, page: Path) -> None:
    ink = "return getComputedStyle(document.querySelector('#equity .xtick text')).fill"
    shown(browser, page, scheme="light")
    light = browser.execute_script(ink)
    set_scheme(browser, "dark")
    WebDriverWait(browser, 30).until(lambda found: found.execute_script(ink) != light)
    assert marks(browser, "equity") == 2 * SIZERS


def test_the_learned_sizer_is_drawn_thickest_and_on_top(browser: Chrome, page: Path) -> None:
    shown(browser, page)
    lines = "[...document.querySelectorAll('#equity .js-line')]"
    widths = browser.execute_script(f"return {lines}.map((line) => parseFloat(line.style.strokeWidth))")
    assert widths[SIZERS - 1] == max(widths)
    assert widths.count(max(widths)) == 2


def test_a_name_in_the_legend_hides_and_shows_its_curves(browser: Chrome, page: Path) -> None:
    shown(browser, page)
    first = "document.querySelector('#equity-legend button')"
    assert browser.execute_script(f"return {first}.textContent") == "RL sizer"
    browser.execute_script(f"{first}.click()")
    WebDriverWait(browser, 30).until(lambda found: marks(found, "equity") == 2 * SIZERS - 2)
    assert browser.execute_script(f"return {first}.ariaPressed") == "false"
    browser.execute_script(f"{first}.click()")
    WebDriverWait(browser, 30).until(lambda found: marks(found, "equity") == 2 * SIZERS)
