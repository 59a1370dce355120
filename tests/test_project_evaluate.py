"""`ballast evaluate`: what it refuses, what it asks for, and what it tells."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tuning.evaluate
from cli.console import console
from envs.guardrails import Limits
from evaluation.findings import by_fold, by_seed, find
from evaluation.gate import Figures, criteria, evidence, judge
from evaluation.walk_forward import walk_forward
from tests.test_evaluation_walk_forward import SEEDS, Fits, rows
from tests.test_project_cli import refused
from tuning.config import parse
from tuning.evaluate import Evaluation, Judged, Opened, Request


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--folds", "4", "--data", "sample:googl", "--algo", "plugin"), "--folds"),
        (("--experiment", "one"), "only a model is judged"),
        (("--oracle", "lines.jsonl"), "only a model is judged"),
        (("3",), "train one first"),
        (("3", "--algo", "ppo"), "the version says how it was made"),
        (("3", "--config", "my.yaml"), "the version says how it was made"),
        (("--data", "sample:bitcoin"), "got 'bitcoin'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(
    words: tuple[str, ...],
    said: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = " ".join(refused(capsys, monkeypatch, "evaluate", *words).split())
    assert said in text
    assert not list(home.rglob("*.html"))


def test_a_version_is_asked_for_with_its_own_configuration_and_its_verdict_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import ballast

    tested = walk_forward(rows(), Fits(), Limits(), 28.0, SEEDS)
    found = find(tested.paths, tested.table, tested.late_paths, tested.late, "RL sizer", Limits(), 28.0)
    figures = Figures(breaches=0)
    verdict = judge(figures)
    kept = evidence("ab" * 32, None, figures, verdict)
    judged = Judged(figures, criteria(figures), verdict, kept, home / "evidence" / "one.json")
    asked: list[Request] = []

    def evaluate(request: Request, place: Path, listener: Any) -> Evaluation:
        asked.append(request)
        page = place / "reports" / "page.html"
        return Evaluation(found, by_fold(tested), by_seed(tested), None, found, 3, judged, page)

    config = parse({"data": "sample:googl", "seed": 5}).model_dump(mode="json")
    meta = SimpleNamespace(training={"config": config})
    opened = Opened(2, "ab" * 32, SimpleNamespace(meta=meta))  # type: ignore[arg-type]
    monkeypatch.setattr(tuning.evaluate, "evaluate", evaluate)
    monkeypatch.setattr(tuning.evaluate, "registered", lambda place, number: opened)
    monkeypatch.setattr(
        sys, "argv", ["ballast", "evaluate", "2", "--final", "--seeds", "4", "--waive-synthetic", "no time"]
    )
    with console.capture() as captured, pytest.raises(SystemExit):
        ballast.main()
    text = captured.get()
    assert (asked[0].config.data, asked[0].config.seed) == ("sample:googl", 5)
    assert (asked[0].seeds, asked[0].final, asked[0].waived) == (4, True, {"synthetic": "no time"})
    for said in ("The gate stays shut", "look number 3", "spa", "not measured", "page.html", "one.json"):
        assert said in text
    assert "promote" not in text
