"""`retrain`: what it refuses, what it asks, how it exits, and how a watch ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import ballast
from cli.retrain import _sources
from journal.location import open_journal
from journal.records import OutcomeRecord, outcome_id
from market.errors import ConfigError, InputError
from mlops.retraining import Outcome, Retraining
from mlops.versions import ModelVersion, write_export
from tests.test_project_tree import ROOT
from tuning.config import TrainConfig, parse

CONFIG = {"data": "synthetic:regimes?bars=4000&seed=3", "algo": "plugin"}
Run = Callable[..., tuple[int, str, str]]
SEEN: list[Any] = []


def remember(record: Any) -> None:
    """What `--callback` is given in these tests."""
    SEEN.append(record)


@pytest.fixture
def config(home: Path) -> str:
    path = home / "config.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


@pytest.fixture
def retrain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run `retrain WORDS`; gives the exit code, what was printed and what was complained of."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ballast", "retrain", *words])
        with pytest.raises(SystemExit) as stopped:
            ballast.main()
        said = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, said.out, said.err

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each check comes to: an Outcome, or an error; the Retraining stands in place of those used up."""
    coming: list[Any] = []

    def check(retraining: Retraining, *, asked: bool = False) -> Outcome:
        result = coming.pop(0)
        coming.append((retraining, asked))
        if isinstance(result, BaseException):
            raise result
        assert isinstance(result, Outcome)
        return result

    monkeypatch.setattr(Retraining, "check", check)
    return coming


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --every, --new-bars, --new-trades, --drift or --now"),
        (["--every", "soon"], "--every: got 'soon'; give a whole number with s, m, h, d or w"),
        (["--now", "--min-interval", "0h"], "--min-interval: got '0h'"),
        (["--now", "--callback", "json:nothing"], "--callback: got 'json:nothing'; write MODULE:FUNCTION"),
        (["--now", "--callback", "json"], "--callback"),
        (["--now", "--algo", "sarsa"], "algo: got 'sarsa'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_checked(
    words: list[str], said: str, config: str, retrain: Run, checks: list[Any]
) -> None:
    code, _, err = retrain("--config", config, *words)
    assert code == 2
    assert said in err
    assert checks == []


def test_without_a_model_and_without_a_configuration_there_is_nothing_to_train(
    home: Path, retrain: Run
) -> None:
    code, _, err = retrain("--now")
    assert code == 2
    assert "no version is registered whose configuration could be taken" in err


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ("nothing", 0),
        ("waiting", 0),
        ("passed", 0),
        ("promoted", 0),
        ("shut", 1),
        ("failed", 1),
        ("refused", 1),
    ],
)
def test_one_check_exits_by_what_it_came_to(
    result: Any, code: int, config: str, retrain: Run, checks: list[Any]
) -> None:
    checks.append(Outcome(result=result, detail="so it was", version=3))
    assert retrain("--config", config, "--every", "1d")[0] == code
    ((retraining, asked),) = checks
    assert retraining.plan.every == timedelta(days=1)
    assert retraining.plan.minimum == timedelta(hours=6)
    assert (retraining.plan.promote, asked) == (False, False)


def test_options_reach_the_plan_and_callbacks_are_called(
    config: str, retrain: Run, checks: list[Any]
) -> None:
    checks.append(Outcome(result="passed", detail="so it was", version=3))
    words = ["--now", "--promote", "--min-interval", "90m", "--callback", f"{__name__}:remember"]
    code, out, _ = retrain("--config", config, *words)
    assert code == 0
    assert "ballast registry promote 3" in out
    ((retraining, asked),) = checks
    assert (retraining.plan.promote, retraining.plan.minimum, asked) == (True, timedelta(minutes=90), True)
    retraining.callbacks[0]("a record")
    assert SEEN == ["a record"]


def test_new_bars_and_newly_settled_trades_are_counted_since_the_last_training(home: Path) -> None:
    def chosen() -> TrainConfig:
        return parse(CONFIG)

    from market.sources import load

    (bars,) = load(CONFIG["data"])
    cut = datetime.fromtimestamp(int(bars.time[-101]) / 1e9, UTC)
    bars_source, trades_source = _sources(chosen, 100, 2, drift=False, data=None)
    assert bars_source.ask(cut) == ["100 new bars since the last training, of 100"]
    assert bars_source.ask(cut + timedelta(hours=1)) == []
    journal = open_journal(home, "settled", os.environ)
    before = datetime.now(UTC)
    for name in ("one", "two"):
        settled = OutcomeRecord(signal_id=name, gross_r=1.0, cost_r=0.1, impact_r=0.0, exit_time=1)
        journal.append(*settled.to_entry(outcome_id(name)))
    journal.close()
    assert trades_source.ask(before) == ["2 new settled trades since the last training, of 2"]
    assert trades_source.ask(datetime.now(UTC)) == []


def test_drift_without_anything_live_cannot_be_told(home: Path) -> None:
    (source,) = _sources(lambda: parse(CONFIG), None, None, drift=True, data=str(CONFIG["data"]))
    with pytest.raises(ConfigError, match="no such registered model: train one"):
        source.ask(datetime.now(UTC))
    digest = "a" * 64
    live = ModelVersion(1, digest, home / digest, "PRODUCTION", datetime.now(UTC), aliases=("production",))
    write_export(home, [live])
    (alarm,) = source.ask(datetime.now(UTC))
    assert "no baseline" in alarm


def test_a_watch_checks_until_sigterm_and_then_ends_with_0(home: Path, config: str) -> None:
    """In a process of its own: with a model of today there is nothing to do until it is stopped."""
    digest = "a" * 64
    write_export(
        home, [ModelVersion(1, digest, home / digest, "STAGING", datetime.now(UTC), aliases=("staging",))]
    )
    words = ["--watch", "--every", "1d", "--poll", "1s", "--config", config]
    process = subprocess.Popen(
        [sys.executable, "-m", "ballast", "retrain", *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert "nothing calls for training" in process.stdout.readline()
        time.sleep(0.1)
        process.terminate()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "", "")


def test_a_watch_goes_on_after_what_cannot_be_done_now_and_says_the_same_once(
    config: str, retrain: Run, checks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Outcome(result="nothing", detail="nothing calls for training")
    broken = InputError("journal", "here", "free some disk space")
    checks += [nothing, nothing, broken, broken, nothing, KeyboardInterrupt()]
    monkeypatch.setattr("cli.retrain.time.sleep", lambda seconds: None)
    code, out, err = retrain("--config", config, "--watch", "--now")
    assert code == 0
    assert out.count("nothing calls for training") == 2
    assert err.count("free some disk space") == 1
    assert [asked for _, asked in checks] == [True, False, False, False, False, False]
