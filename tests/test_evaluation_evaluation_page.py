"""The evaluation's page: the verdict first, every figure in it beside it as JSON, drawn by a real browser."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver import Chrome

from envs.guardrails import Limits
from evaluation.evaluation_page import Page, Part, write_evaluation
from evaluation.findings import PLUG_IN, by_fold, by_seed, find
from evaluation.gate import Criterion, Figures, Search
from evaluation.walk_forward import WalkForward, walk_forward
from tests.headless_browser import fetched, marks, shown
from tests.test_evaluation_walk_forward import SEEDS, Fits, rows

CHARTS = (
    "versus-reference",
    "versus-plug-in",
    "equity",
    "sizes",
    "skill",
    "costs",
    "late",
    "regimes",
    "years",
)
CRITERIA = (
    Criterion("vs_rule", True, "+0.0200, must be above 0"),
    Criterion("spa", False, "0.3000, must be below 0.05"),
)


def part(title: str, tested: WalkForward) -> Part:
    subject = tested.paths[0].name if tested.learned else PLUG_IN
    found = find(
        tested.paths, tested.table, tested.late_paths, tested.late, subject, Limits(), 28.0, ("A", "B", "C")
    )
    won = tested.table.gross_r > 0.0
    return Part(title, found, tested.paths, tested.table.market[:, 3].astype(np.float64), won)


def page_of(criteria: tuple[Criterion, ...] = CRITERIA, *, learns: bool = True) -> Page:
    tested = walk_forward(rows(), Fits(learns=learns), Limits(), 28.0, SEEDS)
    parts = [part("Walk-forward", tested), part("Locked test", tested)]
    left_out = None if learns else "No sizer was trained."
    search = Search(tried=20, compared=17, spa=0.3, pbo=0.4, deflated_sharpe=0.125)
    figures = Figures(search=search) if criteria else None
    return Page(parts, by_fold(tested), by_seed(tested), criteria, figures, left_out, looks=2)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation") / "evaluation.html"
    write_evaluation(page_of(), {"data": "synthetic", "digest": "0123456789abcdef" * 4}, path)
    return path


@pytest.fixture(scope="module")
def document(written: Path) -> dict[str, Any]:
    return json.loads(written.with_suffix(".json").read_text(), parse_constant=pytest.fail)


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", html, flags=re.S).split())


def test_the_verdict_comes_first_and_each_criterion_says_why(written: Path) -> None:
    html = written.read_text()
    assert "<h1>The gate stays shut: 1 of 2 criteria failed</h1>" in html
    text = text_of(html)
    for criterion in CRITERIA:
        assert f"{criterion.text}" in text
    assert "looked at 2 times" in text
    assert "best of 20 trials, all that were ever begun; 17 of them left a network" in text
    assert "Deflated Sharpe 0.125 with 20 trials" in text


def test_without_a_verdict_the_headline_says_how_the_sizer_stands() -> None:
    page = page_of(())
    assert page.headline == page.parts[0].findings.comparison.headline
    passed = page_of((CRITERIA[0],))
    assert passed.headline == "The gate opens: all 1 criteria passed"


def test_folds_and_seeds_are_the_differences_of_their_paths(document: dict[str, Any]) -> None:
    tested = walk_forward(rows(), Fits(), Limits(), 28.0, SEEDS)
    rule = tested.baselines[0].utility
    for number, fold in enumerate(document["folds"]):
        own = tested.fold == number
        gained = [float(np.mean((path.utility - rule)[own])) for path in tested.learned]
        assert fold["gained"] == pytest.approx(gained)
        assert (fold["median"], fold["worst"]) == (
            pytest.approx(np.median(gained)),
            pytest.approx(min(gained)),
        )
    for seed, path in zip(document["seeds"], tested.learned, strict=True):
        assert seed["versus_rule"]["mean"] == pytest.approx(np.mean(path.utility - rule))
    weights = [fold["signals"] / len(rule) for fold in document["folds"]]
    whole = sum(w * fold["gained"][0] for w, fold in zip(weights, document["folds"], strict=True))
    assert whole == pytest.approx(document["seeds"][0]["versus_rule"]["mean"])


def test_the_figures_beside_the_page_are_complete(document: dict[str, Any]) -> None:
    first = document["parts"][0]
    assert first["breaches"] == 0
    assert {row["name"] for row in first["stress"]} == set(first["curves"])
    assert len(first["regimes"]) == 3
    assert set(first["late"]) <= set(first["curves"])
    assert document["criteria"][1] == {"name": "spa", "passed": False, "text": "0.3000, must be below 0.05"}


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_chart_is_drawn_without_a_script_error(
    browser: Chrome, written: Path, width: int, scheme: str
) -> None:
    browser.get_log("performance")
    assert shown(browser, written, width, scheme) == []
    charts = ["folds", *(f"{chart}-{place}" for chart in CHARTS for place in (0, 1))]
    assert {chart: marks(browser, chart) > 0 for chart in charts} == dict.fromkeys(charts, True)
    assert fetched(browser) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_where_nothing_learned_the_plug_in_is_judged(browser: Chrome, tmp_path: Path) -> None:
    page = page_of((), learns=False)
    write_evaluation(page, {}, tmp_path / "page.html")
    assert "No sizer was trained." in text_of((tmp_path / "page.html").read_text())
    assert shown(browser, tmp_path / "page.html") == []
    assert marks(browser, "folds") > 0
    assert marks(browser, "equity-0") == 4  # the rule and the plug-in, equity and drawdown
