"""`drift` on the terminal: exit code 0 where the model fits, 1 on an alarm, 2 refused; what it leaves."""

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ballast
from features.spec import index
from journal.store import Journal
from market.errors import ConfigError, DataError
from mlops.drift_baseline import path_of
from mlops.drift_metrics import FILE
from mlops.versions import ModelVersion, write_export
from tests.drift_journals import write
from tests.drift_worlds import model, trained
from tests.test_mlops_alerts import Desk, desk  # noqa: F401 (a fixture)

BARS = "synthetic:regimes?bars=9000&seed=5&minutes=60"


@pytest.fixture
def digest(home: Path) -> str:
    """A registered STAGING model with a baseline."""
    root = home / "bundles"
    found = model().save(root)
    staged = ModelVersion(
        1, found, root / found, "STAGING", datetime(2026, 1, 1, tzinfo=UTC), aliases=("staging",)
    )
    write_export(home, [staged])
    replace(trained(), about=trained().about.model_copy(update={"bundle": found})).save(home)
    return found


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(ballast.app, ["drift", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def drift(home: Path, digest: str) -> None:
    """Make the training rows look otherwise than they were."""
    known = trained()
    rows = known.markets["SYNTHETIC"].copy()
    rows[:, index("rsi_norm")] -= 1.0
    about = known.about.model_copy(update={"bundle": digest})
    replace(known, about=about, markets={"SYNTHETIC": rows}).save(home)


def test_bars_that_the_model_fits_end_with_zero_and_leave_page_figures_and_metrics(
    home: Path, digest: str
) -> None:
    code, said = run("--data", BARS)
    assert code == 0, said
    assert "No drift" in said
    (page,) = (home / "reports").glob("drift-*.html")
    told = json.loads(page.with_suffix(".json").read_text())
    assert (told["alarm"], told["bundle"], told["source"]) == (False, digest, BARS)
    assert "ballast_drift_alarm" in (home / FILE).read_text()


def test_drifted_bars_end_with_one_and_tell_the_webhook_once(
    home: Path,
    digest: str,
    desk: Desk,  # noqa: F811
) -> None:
    drift(home, digest)
    code, said = run("1", "--data", BARS, "--webhook", desk.url)
    assert code == 1
    assert "ALARM  features of SYNTHETIC have drifted: rsi_norm" in said
    assert "secret" not in said
    code, said = run("--data", BARS, "--webhook", desk.url)
    assert code == 1
    assert "webhook told 0 minutes ago already" in said
    (told,) = desk.got
    assert told["alarms"][0].startswith("features of SYNTHETIC")
    assert (told["version"], told["status"], told["bundle"]) == (1, "STAGING", digest)


def test_a_webhook_that_fails_changes_nothing_else(
    home: Path,
    digest: str,
    desk: Desk,  # noqa: F811
) -> None:
    drift(home, digest)
    desk.answers = [500] * 3
    code, said = run("--data", BARS, "--webhook", desk.url)
    assert code == 1
    assert "webhook not reached: it answered 500" in said
    assert list((home / "reports").glob("drift-*.html"))


def test_no_baseline_is_an_alarm(home: Path, digest: str) -> None:
    path_of(home, digest).unlink()
    code, said = run("--data", BARS)
    assert code == 1
    assert "ALARM  no baseline" in said
    assert "ballast_drift_baseline{" in (home / FILE).read_text()


def test_the_homes_journal_is_checked_where_no_bars_are_given(home: Path, digest: str) -> None:
    (home / "journal").mkdir()
    with closing(Journal(f"sqlite:///{home}/journal/journal.db", "w")) as journal:
        write(journal, digest)
    code, said = run()
    assert code == 0, said
    assert "predictions of signals" in said
    assert "performance" in said


@pytest.mark.parametrize(
    ("words", "error", "part"),
    [
        (["--data", BARS, "--journal", "sqlite:///x.db"], ConfigError, "give one of them"),
        (["7", "--data", BARS], ConfigError, "choose one of 1"),
        (["--data", BARS, "--webhook", "desk"], ConfigError, "--webhook"),
        (["--data", "synthetic:regimes?bars=200&seed=5"], DataError, "100 rows, give at least 360"),
    ],
)
def test_what_cannot_be_checked_is_refused_and_leaves_nothing(
    home: Path, digest: str, words: list[str], error: type[Exception], part: str
) -> None:
    with pytest.raises(error, match=part):
        run(*words)
    assert not (home / "reports").exists()
    assert not (home / FILE).exists()


def test_without_a_model_it_says_to_train_one(home: Path) -> None:
    with pytest.raises(ConfigError, match="train one"):
        run("--data", BARS)
