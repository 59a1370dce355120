"""The report's terminal table, its page as text, and the figures beside it."""

import errno
import json
import os
import re
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from envs.guardrails import Limits
from evaluation.backtest import Path as Backtest
from evaluation.backtest import run
from evaluation.comparison import Comparison, compare
from evaluation.page import plain
from evaluation.report import MOST_POINTS, LearningCurve, print_table, write_html
from policies.baselines import FixedSize, baselines
from tests.synthetic_signals import table

SIGNALS = table(300)
META = {
    "data": "sample:demo",
    "trades": {"train": 2310, "select": 412, "test": 300},
    "limits": Limits().model_dump(),
    "seed": 0,
    "bundle": None,
    "score": float("nan"),
}


@cache
def made() -> tuple[Comparison, tuple[Backtest, ...]]:
    policies = (*baselines(), FixedSize(0.25, "RL sizer"))
    paths = tuple(run(policy, SIGNALS, Limits(), 28.0) for policy in policies)
    return compare(paths, SIGNALS, symbols=("EURUSD", "GOOGL", "NASDAQ"), replications=100), paths


def written(folder: Path, **changed: Any) -> tuple[str, dict[str, Any]]:
    comparison, paths = made()
    page = folder / "reports" / "one.html"
    write_html(comparison, paths, SIGNALS, META, page, **changed)
    return page.read_text(), json.loads(page.with_suffix(".json").read_text(), parse_constant=pytest.fail)


def printed(width: int) -> str:
    console = Console(width=width, file=StringIO())
    print_table(made()[0], console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 105, 130])
def test_the_table_fits_its_terminal_and_cuts_nothing_off(width: int) -> None:
    text = printed(width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    for row in made()[0].rows:
        assert row.figures.name in text
        assert f"{row.figures.mean_utility:+z.3f}" in text


def test_a_wider_terminal_shows_more_columns() -> None:
    assert "vs meta-label plug-in" not in printed(80)
    assert "vs meta-label plug-in" in printed(105)
    assert "net R" not in printed(105)
    assert "net R" in printed(130)


def test_the_verdict_and_every_caveat_stand_below_the_table() -> None:
    text = " ".join(printed(130).split())
    assert made()[0].verdict in text
    assert made()[0].caveats
    for caveat in made()[0].caveats:
        assert caveat in text


def test_the_page_carries_all_it_needs_and_asks_nobody_for_more(tmp_path: Path) -> None:
    html, _ = written(tmp_path)
    assert "default-src 'none'" in html
    assert not re.search(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)\s*=", html)
    assert "@import" not in re.sub(r"<script.*?</script>", "", html, flags=re.S)
    assert len(html.encode()) < 5_400_000


def test_the_page_says_the_verdict_and_names_every_sizer_and_symbol_without_scripts(tmp_path: Path) -> None:
    html, _ = written(tmp_path)
    text = re.sub(r"<script.*?</script>", "", html, flags=re.S)
    assert f"<h1>{made()[0].headline}</h1>" in text
    for name in (*(row.figures.name for row in made()[0].rows), "EURUSD", "GOOGL", "NASDAQ"):
        assert name in text
    assert "train 2310 · select 412 · test 300" in text


def test_the_figures_beside_the_page_are_those_of_the_comparison(tmp_path: Path) -> None:
    _, document = written(tmp_path)
    assert document["comparison"] == json.loads(json.dumps(made()[0].to_dict()))
    assert document["provenance"]["score"] is None
    assert document["learning"] is None
    assert document["reliability"] is None
    path = made()[1][0]
    assert document["curves"][path.name]["equity"] == pytest.approx(path.equity.tolist(), abs=1e-6)


def test_learning_and_reliability_appear_where_they_are_given(tmp_path: Path) -> None:
    p = SIGNALS.probability[:, 2]
    won = SIGNALS.gross_r > 1.0
    curve = LearningCurve(np.array([1_000.0, 2_000.0]), np.array([0.1, np.nan]))
    html, document = written(tmp_path, learning=curve, reliability=(p, won))
    assert 'id="learning"' in html
    assert 'id="reliability"' in html
    assert document["learning"]["score"] == [0.1, None]
    reliability = document["reliability"]
    text = " ".join(html.split())
    for name, base in (("log_loss", "base_log_loss"), ("brier", "base_brier")):
        assert f"{reliability[name]:.4f}, the base rate alone {reliability[base]:.4f}" in text
    assert sum(reliability["group"]) == 300
    for low, share, high in zip(
        reliability["low"], reliability["happened"], reliability["high"], strict=True
    ):
        assert 0.0 <= low <= share <= high <= 1.0
    without, _ = written(tmp_path)
    assert 'id="learning"' not in without
    assert 'id="reliability"' not in without


def test_the_figures_of_price_predictors_stand_beside_those_of_their_base_rates(tmp_path: Path) -> None:
    markets = {"BTC/USDT": predictor_figures(0.4), "NOISE": predictor_figures(0.0)}
    html, document = written(tmp_path, predictors=markets)
    assert document["predictors"] == markets
    text = " ".join(re.sub(r"<script.*?</script>|<[^>]+>", " ", html, flags=re.S).split())
    assert "BTC/USDT trees 1.0100 1.0900 0.6100 0.6600 0.6900 0.6930 1.2 % +0.0800 ± 0.0200 1,234" in text
    assert "NOISE base rates 1.0100" in text
    assert html.count('id="predictor-') == 2
    assert 'id="predictor-' not in written(tmp_path)[0]
    assert 'id="predictor-' not in written(tmp_path, predictors={})[0]


def predictor_figures(shrink: float) -> dict[str, Any]:
    """What `PredictorReport.to_dict` gives, as far as the page reads it."""
    diagram = {"stated": [0.2, 0.4], "happened": [0.25, 0.35], "group": [617, 617]}
    return {
        "kept": "trees",
        "shrink": shrink,
        "all_markets": {
            "rows": 1234,
            "log_loss": 1.01,
            "base_log_loss": 1.09,
            "direction_log_loss": 0.69,
            "direction_base_log_loss": 0.693,
        },
        "brier": 0.61,
        "base_brier": 0.66,
        "expected_calibration_error": 0.012,
        "gain": 0.08,
        "gain_error": 0.02,
        "reliability": {"down": diagram, "flat": diagram, "up": diagram},
    }


def test_wilson_intervals_by_hand(tmp_path: Path) -> None:
    """Ten groups of ten, each with 3 winners: Wilson's interval of 3 in 10 is 0.1078 to 0.6032."""
    won = np.tile(np.arange(10) < 3, 10)
    _, document = written(tmp_path, reliability=(np.repeat(np.linspace(0.2, 0.4, 10), 10), won))
    assert document["reliability"]["low"] == pytest.approx([0.1078] * 10, abs=1e-4)
    assert document["reliability"]["high"] == pytest.approx([0.6032] * 10, abs=1e-4)


def test_names_cannot_bring_markup_or_scripts_into_the_page(tmp_path: Path) -> None:
    evil = "</script ><script>alert(1)</script ><b>"
    policies = (FixedSize(1.0, "rule 1x"), FixedSize(0.5, evil))
    paths = [run(policy, SIGNALS, Limits(), 28.0) for policy in policies]
    page = tmp_path / "page.html"
    write_html(compare(paths, SIGNALS, replications=50), paths, SIGNALS, {evil: evil}, page)
    html = page.read_text()
    assert "<script>alert(1)" not in html
    assert len(re.findall(r"</script", html)) == 3
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', html)
    assert embedded is not None
    assert json.loads(embedded[1]) == json.loads(page.with_suffix(".json").read_text())
    assert json.loads(embedded[1])["provenance"] == {evil: evil}


def test_a_long_curve_is_thinned_and_keeps_its_ends_and_its_depth(tmp_path: Path) -> None:
    long = table(6_000, edge=0.0)
    random = np.random.default_rng(0)
    equity = np.exp(np.concatenate([[0.0], np.cumsum(random.normal(0.0, 0.01, size=6_000))]))
    short, _ = made()
    path = Backtest("rule 1x", *(np.zeros(6_000),) * 5, np.arange(6_001) * 10**9, equity, np.zeros(6_000))
    write_html(short, [path], long, {}, tmp_path / "long.html")
    curve = json.loads((tmp_path / "long.json").read_text())["curves"]["rule 1x"]
    assert len(curve["equity"]) <= MOST_POINTS
    assert curve["time_ms"] == sorted(curve["time_ms"])
    assert (curve["equity"][0], curve["equity"][-1]) == pytest.approx((equity[0], equity[-1]), abs=1e-6)
    assert (min(curve["equity"]), max(curve["equity"])) == pytest.approx(
        (equity.min(), equity.max()), abs=1e-6
    )


def test_a_full_disk_leaves_the_old_page_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html, document = written(tmp_path)
    folder = tmp_path / "reports"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_html(*made(), SIGNALS, {"data": "another"}, folder / "one.html")
    assert sorted(file.name for file in folder.iterdir()) == ["one.html", "one.json"]
    assert (folder / "one.html").read_text() == html
    assert json.loads((folder / "one.json").read_text()) == document


def test_values_become_json_types() -> None:
    value = {
        1: np.float32(0.5),
        "a": np.array([1.0, np.inf]),
        "b": (True, None, np.int64(3)),
        "c": Path("/x"),
    }
    assert plain(value) == {"1": 0.5, "a": [1.0, None], "b": [True, None, 3], "c": "/x"}
