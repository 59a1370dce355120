"""Evaluation end to end without Ray: walk-forward, the locked part counted, the gate, the evidence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

import tuning.evaluate
from evaluation.locked_test import key_of, looks
from market.errors import ConfigError, InputError
from mlops.evidence import Evidence
from mlops.registry import Registry
from tests.headless_browser import shown
from tuning.config import parse
from tuning.evaluate import Evaluation, Request, configuration_of, evaluate, read_oracle_lines, registered
from tuning.final_test import seen_by
from tuning.study import study
from tuning.train import start

DATA = "synthetic:regimes?bars=3000&seed=1"
CONFIG = parse({"data": DATA, "algo": "plugin", "least_trades": 50, "advised_trades": 50, "folds": 2})


class Listener:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def working(self, stage: str, done: int, total: int) -> None:
        self.said.append(stage)

    def stage(self, name: str, note: str, *, resumed: bool) -> None:
        self.said.append(f"{name}: {note}")

    def warning(self, text: str) -> None:
        self.warned.append(text)

    def progress(self, done: int, total: int, score: float) -> None:
        pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    """A home with one registered plug-in, and its evaluation on the locked part."""
    home = tmp_path_factory.mktemp("home")
    start(CONFIG, home, Listener(), resume=False).run("rl_sizer")
    opened = registered(home, 1)
    return home, evaluate(Request(configuration_of(opened, None), opened, final=True), home, Listener())


def test_a_bundle_is_judged_on_the_locked_part_and_its_evidence_fits_the_registry(
    trained: tuple[Path, Evaluation],
) -> None:
    home, evaluation = trained
    judged = evaluation.judged
    assert judged is not None
    version = Registry(home).version(1)
    kept = Evidence.load(judged.path, version.digest)
    assert kept.verdict == judged.verdict
    assert kept.champion is None
    assert kept.figures["held_out.signals"] == evaluation.final.comparison.signals  # type: ignore[union-attr]
    assert kept.figures["held_out.vs_rule.mean"] == pytest.approx(
        evaluation.final.comparison.row("meta-label plug-in").versus_reference.mean  # type: ignore[union-attr]
    )
    if not judged.verdict.passed:
        with pytest.raises(InputError, match="gate is shut"):
            Registry(home).promote(1, kept)


def test_what_was_not_measured_fails_and_says_so(trained: tuple[Path, Evaluation]) -> None:
    judged = trained[1].judged
    assert judged is not None
    synthetic = next(one for one in judged.criteria if one.name == "synthetic")
    assert not synthetic.passed
    assert "not measured" in synthetic.text
    by_name = {one.name: one for one in judged.criteria}
    assert by_name["limits"].passed
    assert by_name["model_card"].passed
    assert by_name["pbo"].text == "nothing was chosen: a single configuration"


def test_each_opening_of_the_locked_part_is_counted_before_it_is_seen(
    trained: tuple[Path, Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, evaluation = trained
    key = key_of(study(CONFIG).digests, CONFIG.rule, CONFIG.costs.model_dump())
    before = looks(home, key)
    assert evaluation.looks == before

    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(tuning.evaluate, "final_of_bundle", killed)
    opened = registered(home, 1)
    with pytest.raises(RuntimeError, match="killed"):
        evaluate(Request(CONFIG, opened, final=True), home, Listener())
    assert looks(home, key) == before + 1


def test_without_final_nothing_of_the_locked_part_is_looked_at(
    trained: tuple[Path, Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the folds learn is tested in test_tuning_folds: here they are fitted already."""
    home, with_final = trained
    seen = study(CONFIG)
    spoiled = seen.trades.gross_r.copy()
    spoiled[seen.locked] = 99.0
    late = seen.late.gross_r.copy()
    late[seen.locked] = 99.0
    other = replace(seen, trades=replace(seen.trades, gross_r=spoiled), late=replace(seen.late, gross_r=late))
    monkeypatch.setattr(tuning.evaluate, "study", lambda config: other)
    without = evaluate(Request(CONFIG), home, Listener())
    assert without.walked.to_dict() == with_final.walked.to_dict()
    assert without.folds == with_final.folds
    assert (without.final, without.judged) == (None, None)
    assert "Locked test" not in without.page.read_text().split("<script")[0]


def test_walk_forward_tests_only_what_is_over_before_the_locked_part_begins() -> None:
    seen = study(CONFIG)
    assert seen.trades.exit_time[seen.open].max() < seen.trades.signal_time[seen.locked].min()
    trades, late = seen.open_part()
    assert late.exit_time.max() < seen.trades.signal_time[seen.locked].min()
    assert len(seen.locked) / len(seen.trades) == pytest.approx(0.2, abs=0.02)
    assert np.array_equal(trades.signal_time, late.signal_time)


def test_other_bars_than_the_bundles_are_refused(trained: tuple[Path, Evaluation]) -> None:
    home, _ = trained
    opened = registered(home, 1)
    config = configuration_of(opened, "synthetic:regimes?bars=3000&seed=2")
    with pytest.raises(InputError, match="bars of"):
        evaluate(Request(config, opened), home, Listener())


def test_a_version_that_is_not_there_and_a_search_that_is_not_its_own_are_refused(
    trained: tuple[Path, Evaluation],
) -> None:
    home, _ = trained
    with pytest.raises(InputError, match="give one of 1"):
        registered(home, 7)
    opened = registered(home, 1)
    with pytest.raises(ConfigError, match="experiment"):
        evaluate(Request(CONFIG, opened, experiment="never-run"), home, Listener())


def test_the_same_evaluation_runs_once_at_a_time(trained: tuple[Path, Evaluation]) -> None:
    home, _ = trained
    (folder,) = (path for path in (home / "evaluations").iterdir() if path.is_dir())
    with FileLock(folder.with_suffix(".lock")), pytest.raises(ConfigError, match="being evaluated"):
        evaluate(Request(CONFIG), home, Listener())


def test_a_sizer_with_too_few_trades_is_left_out_and_the_page_says_so(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"algo": "dqn", "least_trades": 100_000, "advised_trades": 100_000})
    listener = Listener()
    evaluation = evaluate(Request(config), tmp_path, listener)
    assert evaluation.left_out is not None
    assert listener.warned == [evaluation.left_out]
    assert evaluation.walked.subject == "meta-label plug-in"
    assert "No sizer was trained" in evaluation.page.read_text()


def test_a_champion_is_walked_beside_the_candidate(trained: tuple[Path, Evaluation]) -> None:
    home, _ = trained
    registry = Registry(home)
    registry.promote(1, override="a first champion")
    first = registered(home, 1).bundle
    other = replace(first, meta=first.meta.model_copy(update={"k": 4.0}), golden={})
    whole = seen_by(other, study(CONFIG).trades, CONFIG)
    fields = np.zeros((len(whole), 6))
    digest = other.with_golden(whole, fields).save(home / "bundles")
    opened = registered(home, registry.register(digest, home / "bundles" / digest).version)
    evaluation = evaluate(Request(configuration_of(opened, None), opened, final=True), home, Listener())
    assert evaluation.judged is not None
    assert evaluation.judged.evidence.champion == registry.version(1).digest
    assert evaluation.final is not None
    row = evaluation.final.comparison.row("champion")
    assert row is not None
    assert evaluation.judged.figures.calibration.reference == "champion"  # type: ignore[union-attr]
    document = json.loads(evaluation.page.with_suffix(".json").read_text())
    assert document["provenance"]["champion"].startswith("version 1")


def test_the_page_of_a_judged_bundle_opens_without_a_script_error(
    browser: Any, trained: tuple[Path, Evaluation]
) -> None:
    assert shown(browser, trained[1].page) == []


@pytest.mark.parametrize("content", ["", "no json\n", "{broken\n"])
def test_oracle_lines_are_read_or_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lines"
    path.write_text(content)
    with pytest.raises(InputError, match="--oracle"):
        read_oracle_lines(path)
    path.write_text('progress\n{"task": "L1"}\n')
    assert read_oracle_lines(path) == ({"task": "L1"},)
