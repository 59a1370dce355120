"""The main job as stages, on synthetic bars with the plug-in as policy: no Ray needed."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from envs.guardrails import SIZES
from features.spec import fingerprint
from market.errors import ConfigError, DataError
from mlops.drift_baseline import open_baseline
from mlops.registry import Registry, read_export
from policies.bundle import open_bundle
from signals.outcome_model import STAGES as ANSWERED
from signals.predictor_file import FOLDER, open_predictor
from tuning.config import TrainConfig
from tuning.train import MODES, STAGES, Result, Training, start

BARS = "synthetic:regimes?bars=8000&seed=3"
SMALL = {"data": BARS, "least_trades": 100, "predictor": {"epochs": 1}}


class Recorder:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, bool]] = []
        self.notes: dict[str, str] = {}
        self.warnings: list[str] = []
        self.begun: list[tuple[str, int, int]] = []

    def working(self, stage: str, done: int, total: int) -> None:
        self.begun.append((stage, done, total))

    def stage(self, name: str, note: str, *, resumed: bool) -> None:
        self.stages.append((name, resumed))
        self.notes[name] = note

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def progress(self, done: int, total: int, score: float) -> None:
        raise AssertionError("the plug-in trains nothing")


def config(**changed: object) -> TrainConfig:
    return TrainConfig.model_validate(SMALL | {"algo": "plugin"} | changed)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Training, Result, Recorder]:
    home, told = tmp_path_factory.mktemp("home"), Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BALLAST_STORAGE", f"file://{home}-kept")
        training = start(config(), home, told, resume=False)
        return home, training, training.run("all"), told


def test_all_runs_the_stages_in_order_and_names_the_training_trades(
    finished: tuple[Path, Training, Result, Recorder],
) -> None:
    _, _, result, told = finished
    assert told.stages == [(stage, False) for stage in STAGES]
    assert [stage for stage, _, total in told.begun if not total] == list(STAGES)
    assert ("predictor", 0, 1) in told.begun
    assert result.comparison is not None
    assert "train" in told.notes["outcomes"]
    assert any("training trades" in warning for warning in told.warnings)


def test_the_bundle_opens_and_is_registered_as_staging(
    finished: tuple[Path, Training, Result, Recorder],
) -> None:
    home, _, result, _ = finished
    assert result.bundle is not None
    bundle = open_bundle(home / "bundles", result.bundle)
    assert bundle.meta.algo == "plugin"
    (version,) = read_export(home)
    assert (version.digest, version.status) == (result.bundle, "STAGING")
    lineage = version.lineage
    assert lineage is not None
    assert (lineage.config, lineage.features) == (config().digest(), fingerprint())
    assert (lineage.seeds, lineage.parent) == ((config().seed,), None)
    assert re.fullmatch("[0-9a-f]{64}", lineage.data)


def test_a_training_that_begins_with_a_model_in_production_has_that_as_its_parent(
    finished: tuple[Path, Training, Result, Recorder], tmp_path: Path
) -> None:
    home, _, result, _ = finished
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    Registry(copy).promote(1, override="it is the only one")
    another = config().model_copy(update={"k": 9.0})
    start(another, copy, Recorder(), resume=False).run("rl_sizer")
    first, second = (version.lineage for version in read_export(copy))
    assert first is not None
    assert second is not None
    assert second.parent == result.bundle
    assert second.data == first.data
    assert second.config != first.config


def test_a_registered_model_has_its_training_rows_as_baseline(
    finished: tuple[Path, Training, Result, Recorder],
) -> None:
    home, training, result, _ = finished
    assert result.bundle is not None
    known = open_baseline(home, result.bundle)
    rows = training.folder.arrays("features", "features-0000")["features"][100:]
    kept = known.markets["SYNTHETIC"]
    assert 0.6 * len(rows) < len(kept) < 0.75 * len(rows)  # the training part of 70 %
    np.testing.assert_array_equal(kept, rows[: len(kept)])
    counts = training.folder.facts("outcomes")["counts"]
    assert len(known.signals) == counts["train"]
    assert len(known.results.d) == counts["test"]
    assert known.about.results == "test part"
    assert set(np.unique(known.signals.size)) <= set(SIZES)


def test_the_report_is_written_and_whole(finished: tuple[Path, Training, Result, Recorder]) -> None:
    _, _, result, _ = finished
    assert result.report is not None
    page = result.report.read_text()
    assert page.rstrip().endswith("</html>")
    assert "What the price predictor knows" in page
    assert list(json.loads(result.report.with_suffix(".json").read_text())["predictors"]) == ["SYNTHETIC"]


def test_a_resumed_run_goes_on_after_the_last_finished_stage(
    finished: tuple[Path, Training, Result, Recorder], tmp_path: Path
) -> None:
    home, training, result, _ = finished
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    run = copy / "runs" / training.folder.folder.name
    for stage in ("evaluate", "register"):
        shutil.rmtree(run / stage)
    told = Recorder()
    again = start(config(), copy, told, resume=True).run("all")
    assert told.stages == [(stage, stage not in ("evaluate", "register")) for stage in STAGES]
    assert again.bundle == result.bundle
    assert [version.version for version in read_export(copy)] == [1]


def test_a_run_is_taken_up_on_another_machine_from_its_copy(
    finished: tuple[Path, Training, Result, Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _, result, _ = finished
    monkeypatch.setenv("BALLAST_STORAGE", f"file://{home}-kept")
    told = Recorder()
    again = start(config(), tmp_path, told, resume=True).run("rl_sizer")
    assert again.bundle == result.bundle
    assert told.stages == [(stage, stage != "register") for stage in MODES["rl_sizer"]]
    assert [version.digest for version in read_export(tmp_path)] == [result.bundle]
    assert open_bundle(tmp_path / "bundles", str(result.bundle)).meta.algo == "plugin"


def test_checkpoint_of_a_training_that_was_asked_to_end_is_copied_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = start(config(algo="dqn"), tmp_path, Recorder(), resume=False)
    copied: list[bool] = []
    monkeypatch.setattr(training.mirror, "checkpoint", lambda *, last=False: copied.append(last))

    def asked_to_end(*arguments: object) -> None:
        raise SystemExit(143)

    monkeypatch.setattr("tuning.sizer.train_sizer", asked_to_end)
    with pytest.raises(SystemExit):
        training._train_network(SimpleNamespace(train=None, select=None))  # type: ignore[arg-type]
    assert copied == [True]


def test_a_run_with_features_of_another_definition_is_not_resumed(
    finished: tuple[Path, Training, Result, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _, _, _ = finished
    monkeypatch.setattr("tuning.train.fingerprint", lambda: "another")
    with pytest.raises(ConfigError, match=r"feature_fingerprint: got '[0-9a-f]{64}'.*leave --resume out"):
        start(config(), home, Recorder(), resume=True)


def test_two_runs_of_one_configuration_make_one_bundle_and_one_version(
    finished: tuple[Path, Training, Result, Recorder],
) -> None:
    home, _, result, _ = finished
    again = start(config(), home, Recorder(), resume=False).run("rl_sizer")
    assert again.bundle == result.bundle
    assert len(read_export(home)) == 1


def test_the_price_predictor_answers_as_it_did_when_it_was_fitted(
    finished: tuple[Path, Training, Result, Recorder],
) -> None:
    home, training, _, told = finished
    saved = open_predictor("SYNTHETIC", home / FOLDER)
    (bars,) = training.finished.markets()
    p = saved.predictor.predict(bars)
    assert np.isfinite(p[100:]).all()
    assert saved.about.data == bars.digest()
    report = training.folder.facts("predictor")["reports"]["SYNTHETIC"]
    assert (saved.about.horizon, saved.about.verdict) == (report["horizon"], report["verdict"])
    assert "SYNTHETIC" in told.notes["predictor"]


def test_which_outcome_model_was_kept_is_told_in_the_note_the_report_and_the_bundle(
    finished: tuple[Path, Training, Result, Recorder],
) -> None:
    home, _, result, told = finished
    assert result.bundle is not None
    assert result.report is not None
    bundle = open_bundle(home / "bundles", result.bundle)
    compared = bundle.outcome_model.compared
    assert compared in told.notes["outcome_model"]
    assert (
        json.loads(result.report.with_suffix(".json").read_text())["provenance"]["outcome_model"] == compared
    )
    assert bundle.meta.outcome_model["log_loss"] == bundle.outcome_model.candidates
    assert bundle.meta.outcome_model["kept"] == dict(zip(ANSWERED, bundle.outcome_model.kept, strict=True))


def test_the_profit_tiers_are_judged_on_trades_before_the_test_part(
    finished: tuple[Path, Training, Result, Recorder],
) -> None:
    home, training, _, _ = finished
    (path,) = (home / "outcomes").glob("training-*.jsonl")
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    trades, rows = training.finished.trades()
    assert len(stored) == len(rows.train) + len(rows.select)
    assert max(one["signal_time"] for one in stored) < trades.signal_time[rows.test].min()


@pytest.mark.parametrize("changed", [{"fractions": (0.3, 0.1, 0.6)}, {"costs": {"fee_bps": 2.0}}])
def test_the_profit_tiers_of_a_run_are_judged_on_its_own_trades(
    home: Path, changed: dict[str, object]
) -> None:
    """Other costs of the same trades, or what another run trained on and this one tests on, take no part."""
    for settings in ({}, changed):
        training = start(config(**settings), home, Recorder(), resume=False)
        training.run("tier_optimizer")
        judged = training.folder.facts("profit_tiers")["report"]["outcomes"]
        _, rows = training.finished.trades()
        assert judged == len(rows.train) + len(rows.select)


def test_too_few_trades_are_refused_and_the_rule_is_named(home: Path) -> None:
    told = Recorder()
    with pytest.raises(DataError, match="rule-only sizing is used"):
        start(config(data="sample:googl", least_trades=500), home, told, resume=False).run("all")
    assert not (home / "bundles").exists()
    assert [stage for stage, _ in told.stages] == ["load", "features"]


def test_an_unknown_mode_is_refused_before_anything_is_done(home: Path) -> None:
    with pytest.raises(ConfigError, match="--mode"):
        start(config(), home, Recorder(), resume=False).run("everything")


def test_no_trade_of_a_later_part_is_seen_by_an_earlier_one(
    finished: tuple[Path, Training, Result, Recorder],
) -> None:
    _, training, _, _ = finished
    trades, rows = training.finished.trades()
    first_test = trades.signal_time[rows.test].min()
    assert trades.exit_time[rows.train].max() < trades.signal_time[rows.select].min()
    assert trades.exit_time[rows.select].max() < first_test


def test_probabilities_of_training_rows_come_from_models_that_had_not_seen_them(
    finished: tuple[Path, Training, Result, Recorder],
) -> None:
    _, training, _, _ = finished
    _, rows = training.finished.trades()
    fit = training.finished.outcome_fit()
    trades, _ = training.finished.trades()
    from signals.trades import trade_fields

    own = fit.model.probability(trade_fields(trades, fit.ranks))
    assert np.array_equal(own[rows.test], fit.probability[rows.test])
    assert not np.array_equal(own[rows.train], fit.probability[rows.train])


def test_the_run_keeps_its_configuration(finished: tuple[Path, Training, Result, Recorder]) -> None:
    _, training, _, _ = finished
    kept = json.loads((training.folder.folder / "config.json").read_text())
    assert TrainConfig.model_validate(kept) == config()


@pytest.mark.long
def test_fine_tune_is_compared_beside_its_tiers_and_said_of_in_bundle_and_registry(
    finished: tuple[Path, Training, Result, Recorder], tmp_path: Path, ray_cluster: str
) -> None:
    small = {"env_steps": 600, "environments": 16, "report_every": 300}
    batches = {"train_batch_size": 320, "minibatch_size": 64}
    home, told = tmp_path / "home", Recorder()
    told.progress = lambda done, total, score: None  # type: ignore[method-assign]
    asked = config(algo="dqn+ppo", dqn=small | {"learning_starts": 200}, fine_tune=small | batches)
    result = start(asked, home, told, resume=False).run("all")
    assert result.bundle is not None
    assert result.comparison is not None
    opened = open_bundle(home / "bundles", result.bundle)
    figures = opened.meta.fine_tune
    assert figures is not None
    assert (opened.fine_tune is not None) == figures.served == opened.policy().name.endswith("fine-tuned")
    assert str(figures) in told.notes["sizer"]
    names = [row.figures.name for row in result.comparison.rows]
    assert {"RL sizer", "RL sizer, fine-tuned"} <= set(names)
    assert result.comparison.learned == opened.policy().name
    (version,) = read_export(home)
    assert version.tags["fine_tune"] == str(figures)
    assert start(asked, home, Recorder(), resume=True).run("all").bundle == result.bundle
