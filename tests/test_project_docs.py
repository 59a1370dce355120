"""What the pages under docs/ tell a user to type does run."""

import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from evaluation.lookahead import analyse
from features.spec import WARMUP
from market.sources import load
from signals.rules import Rule, checked, rule_names
from tests.serving_bundles import bar_rows
from tests.serving_client import Here, three_applications
from tests.test_project_tree import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(page: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run the page's Python blocks, one after the other."""
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text())
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return names


def test_the_models_page_runs_from_bars_to_a_ladder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    names = run("models.md", {})
    np.testing.assert_array_equal(names["row"], names["table"].iloc[-1].to_numpy())
    np.testing.assert_allclose(names["p"][-1], names["now"], rtol=0, atol=1e-14)
    assert np.isnan(names["p"][: WARMUP - 1]).all()
    assert (home / "outcomes" / "my-desk.jsonl").exists()
    assert names["report"].outcomes == len(names["trades"])


def test_the_journal_page_writes_a_signal_and_its_outcome(home: Path) -> None:
    names = run("journal.md", {})
    assert names["inspection"].records == 2
    assert (home / "journal" / "journal.db").exists()


def test_the_rule_of_the_data_page_is_a_rule_and_does_not_look_ahead() -> None:
    every_tenth = run("data.md", {"__name__": "my_rules"})["EveryTenth"]()
    assert isinstance(every_tenth, Rule)
    (bars,) = load("sample:googl")
    assert len(checked(every_tenth.generate(bars), bars)) > 200
    assert analyse(bars, every_tenth, cuts=3).clean


def test_the_budget_page_spends_what_it_says(tmp_path: Path) -> None:
    assert run("budget.md", {"home": tmp_path})["used"].exposure == 0


def test_the_narratives_page_tells_a_period() -> None:
    assert "12 trades were closed" in run("narratives.md", {})["narrative"].text


def test_the_client_page_goes_from_a_size_to_its_outcome_and_along_a_stream(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Here(three_applications(home))
    monkeypatch.setattr(
        httpx.HTTPTransport, "handle_request", lambda _, request: here.handle_request(request)
    )
    bars = bar_rows(153)
    names = run("client.md", {"bars": bars[:150]})
    assert names["size"].reservation.key == "EURUSD-2026-01-05T14"
    assert "EURUSD" in names["reason"]
    assert names["found"].bars_seen == 150
    with names["BallastClient"]() as ballast:
        again = names["carry_on"](ballast, "EURUSD-1h", "EURUSD", bars[:150])
        assert again == names["found"]
        longer = names["carry_on"](ballast, "EURUSD-1h", "EURUSD", bars)
    assert longer.bars_seen == 153


def test_the_data_page_names_every_built_in_rule() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    for name in rule_names():
        assert f"`{name}`" in page


def test_the_evaluation_page_names_every_criterion_of_the_gate() -> None:
    verdict = run("evaluation.md", {})["verdict"]
    page = (ROOT / "docs" / "evaluation.md").read_text()
    assert not verdict.passed
    for reason in verdict.reasons:
        assert f"`{reason.removeprefix('failed ').split(':')[0]}`" in page
