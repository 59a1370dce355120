"""The command line: what is refused is one line with field, value and mend, and exit code 2."""

import io
import socket
import subprocess
import sys
from email.message import Message
from pathlib import Path
from unittest.mock import Mock
from urllib.error import HTTPError

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import ballast
import cli.training
from cli.console import ConsoleListener, console
from cli.demo import _post
from market.errors import ConfigError, InputError
from tests.test_project_tree import ROOT
from tuning.config import TrainConfig, parse, preset
from tuning.experiment import Trial
from tuning.finished import Finished
from tuning.seeds import Spread, Trained
from tuning.train import Result, Training


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """Run a command that must be refused; returns what it says."""
    monkeypatch.setattr(sys, "argv", ["ballast", *words])
    with pytest.raises(SystemExit) as stopped:
        ballast.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.fixture
def bars(tmp_path: Path) -> pd.DataFrame:
    random = np.random.default_rng(0)
    close = 100.0 * np.exp(np.cumsum(random.normal(0, 0.01, 300)))
    times = pd.date_range("2024-01-01", periods=300, freq="D", tz="UTC")
    return pd.DataFrame(
        {
            "timestamp": times,
            "open": close,
            "high": close * 1.01,
            "low": close * 0.99,
            "close": close,
            "volume": 1.0,
        }
    )


def test_a_refusal_is_one_line_and_exit_code_two() -> None:
    command = [sys.executable, "-m", "ballast", "train", "--data", "sample:bitcoin"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "sample" in line
    assert "bitcoin" in line
    assert "eurusd" in line


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["train", "--data", "/nowhere/bars.csv"], ["/nowhere/bars.csv"]),
        (["train", "--mode", "everything", "--data", "sample:eurusd"], ["--mode", "everything", "rl_sizer"]),
        (["train", "--data", "sample:eurusd", "--resume"], ["--resume"]),
        (["train", "--preset", "fast"], ["preset", "fast", "default, owner"]),
        (["train", "--mode", "[/x]", "--data", "sample:eurusd"], ["got '[/x]'"]),
        (["train", "--data", "[red]bars.csv"], ["got '[red]bars.csv'"]),
        (["train", "--algo", "sarsa"], ["algo", "sarsa", "dqn+ppo"]),
        (["train", "--data", "synthetic:calm"], ["regimes"]),
        (["train", "--data", "sample:eurusd", "--rule", "astrology"], ["astrology", "donchian"]),
    ],
)
def test_what_cannot_be_is_refused(
    words: list[str],
    parts: list[str],
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = refused(capsys, monkeypatch, *words)
    for part in parts:
        assert part in said
    assert not (home / "bundles").exists()
    assert not (home / "runs").exists()


def test_too_few_training_trades_say_that_the_rule_alone_sizes(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused(capsys, monkeypatch, "train", "--data", "sample:googl")
    assert "rule-only sizing is used" in said
    assert not (home / "bundles").exists()


def test_a_missing_column_a_nan_and_an_unsorted_row_are_named(
    bars: pd.DataFrame,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "bars.csv"
    unsorted = bars.copy()
    unsorted.loc[[10, 11], "timestamp"] = unsorted.loc[[11, 10], "timestamp"].to_numpy()
    holed = bars.copy()
    holed.loc[7, "close"] = np.nan
    for frame, parts in (
        (bars.drop(columns="low"), ["low"]),
        (holed, ["close", "7"]),
        (unsorted, ["timestamp"]),
        (bars.head(100), ["100", "101"]),
    ):
        frame.to_csv(path, index=False)
        said = refused(capsys, monkeypatch, "train", "--data", str(path))
        for part in parts:
            assert part in said


def test_an_unknown_configuration_key_is_refused_with_its_path(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"limits": {"max_positon": 0.1}}')
    assert "limits.max_positon" in refused(capsys, monkeypatch, "train", "--config", str(path))


def test_preset_is_the_base_that_file_and_options_go_on_top_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TrainConfig] = []

    def remember(config: TrainConfig, mode: str, *, resume: bool, seeds: int) -> None:
        asked.append(config)
        raise ConfigError("enough", mode, "nothing is trained here")

    monkeypatch.setattr("cli.training.trained", remember)
    path = tmp_path / "config.json"
    path.write_text('{"dqn": {"gamma": 0.5}}')
    for words in (
        ["--preset", "owner", "--config", str(path), "--seed", "7"],
        ["--preset", "owner", "--algo", "dqn+ppo"],
        ["--episodes", "9"],
    ):
        monkeypatch.setattr(sys, "argv", ["ballast", "train", *words])
        with pytest.raises(SystemExit):
            ballast.main()
    owner, tuned, plain = asked
    assert owner == parse({"dqn": {"gamma": 0.5}, "seed": 7}, base=preset("owner"))
    assert owner.dqn.replay_capacity == 10_000
    assert tuned == parse({"algo": "dqn+ppo"}, base=preset("owner"))
    assert plain == parse({"dqn": {"episodes": 9}, "ppo": {"episodes": 9}})


def spread_shown(
    scores: list[tuple[float, float | None, float | None]], middle: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[list[str]], str]:
    """What the terminal shows of seeds 7, 8, ...: the table's rows as words, and all of it."""
    out = io.StringIO()
    monkeypatch.setattr("cli.training.console", Console(file=out, width=120))
    trained = tuple(Trained(7 + i, *row, Mock(spec=Training)) for i, row in enumerate(scores))
    spread = Spread(trained, trained[middle], Mock(spec=Result))
    monkeypatch.setattr("tuning.train.start", Mock())
    monkeypatch.setattr("tuning.seeds.train_seeds", lambda training, mode, count: spread)
    shown = cli.training.trained(parse(), "all", resume=False, seeds=len(scores))
    assert shown == (trained[middle].training, spread.result)
    lines = [line.split() for line in out.getvalue().splitlines()]
    names = {"best", "median", "worst", *(str(one.seed) for one in trained)}
    return [words for words in lines if words and words[0] in names], out.getvalue()


def test_several_seeds_are_shown_with_their_spread_and_the_median_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores: list[tuple[float, float | None, float | None]] = [
        (0.05, -0.02, 0.2), (0.03, 0.01, 0.1), (0.04, 0.0, 0.4)
    ]  # fmt: skip
    rows, said = spread_shown(scores, 2, monkeypatch)
    assert rows == [
        ["7", "+0.0500", "-0.0200", "+0.2000"],
        ["8", "+0.0300", "+0.0100", "+0.1000"],
        ["9", "+0.0400", "+0.0000", "+0.4000"],
        ["best", "+0.0500", "+0.0100", "+0.4000"],
        ["median", "+0.0400", "+0.0000", "+0.2000"],
        ["worst", "+0.0300", "-0.0200", "+0.1000"],
    ]
    assert "seed 9, the median on the select part, is registered; what the test part" in said


def test_of_two_seeds_without_an_evaluation_nothing_is_said_of_the_test_part(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, said = spread_shown([(0.05, None, None), (0.03, None, None)], 1, monkeypatch)
    assert [len(row) for row in rows] == [2] * 5
    assert rows[3] == ["median", "+0.0400"]
    assert "seed 8, the lower of the two in the middle on the select part, is registered" in said
    assert "test" not in said


def test_seeds_without_select_trades_are_refused(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = Mock(spec=Finished)
    finished.prepared.return_value = Mock(select=[])
    empty = Mock(spec=Training, config=parse(), finished=finished)
    monkeypatch.setattr("tuning.train.start", Mock(return_value=empty))
    said = refused(capsys, monkeypatch, "train", "--data", "sample:eurusd", "--seeds", "2")
    assert "select trades: got 0; give more data" in said.replace("\n", "")


def test_a_relative_home_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BALLAST_HOME", "here")
    assert "BALLAST_HOME" in refused(capsys, monkeypatch, "registry", "list")


def test_the_samples_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ballast", "sample"])
    with pytest.raises(SystemExit) as stopped:
        ballast.main()
    assert not stopped.value.code
    said = capsys.readouterr().out
    assert "EURUSD" in said
    assert "6,225" in said
    assert "sample:demo" in said
    assert "spacing" not in said


def test_the_data_report_of_ones_own_bars_tells_gaps_repeats_outliers_and_sessions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ballast", "sample", "--data", "sample:eurusd,googl"])
    monkeypatch.setattr(console, "width", 100)
    with pytest.raises(SystemExit) as stopped:
        ballast.main()
    assert not stopped.value.code
    said = capsys.readouterr().out
    for symbol in ("EURUSD", "GOOGL"):
        assert symbol in said
    for word in ("spacing", "session", "gaps", "missing after", "repeats", "outliers"):
        assert said.count(word) >= 2, word


def test_a_rule_that_sees_ahead_ends_with_exit_code_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prophet.py").write_text("def tomorrow(bars):\n    return bars.frame()['close'].shift(-1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for subject, code in (("plugin:prophet:tomorrow", 1), ("donchian", 0)):
        monkeypatch.setattr(
            sys, "argv", ["ballast", "lookahead", subject, "--data", "sample:googl", "--cuts", "4"]
        )
        with pytest.raises(SystemExit) as stopped:
            ballast.main()
        assert (stopped.value.code or 0) == code
    assert "looks ahead" in capsys.readouterr().out


def test_a_stage_at_work_shows_a_bar_on_a_terminal_and_nothing_in_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for terminal in (True, False):
        out = io.StringIO()
        monkeypatch.setattr("cli.console.console", Console(file=out, force_terminal=terminal, width=120))
        listener = ConsoleListener()
        listener.working("predictor", 0, 0)
        listener.working("predictor", 2, 6)
        assert listener.bar is not None
        listener.bar[0].refresh()
        listener.progress(3000, 60_000, 0.05)
        listener.bar[0].refresh()
        shown = out.getvalue()
        listener.stage("predictor", "six markets", resumed=False)
        assert ("2 / 6 markets" in shown) == terminal
        assert ("3,000 / 60,000 steps" in shown) == terminal
        if not terminal:
            assert out.getvalue() == "    predictor  six markets\n"


def test_brackets_in_what_is_told_are_text_and_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Symbols, paths and errors may hold any; taken for markup they would vanish, or end the command."""
    out = io.StringIO()
    monkeypatch.setattr("cli.console.console", Console(file=out, width=120))
    listener = ConsoleListener()
    listener.stage("load", "[red]X[/] 6,000 bars", resumed=True)
    listener.warning("no predictor for [/a]")
    trial = Trial("t1", {"dqn.hidden": "[/b]"}, (), finished=False, error="ValueError: [bold]no")
    listener.trial(trial)
    for told in ("[red]X[/] 6,000 bars", "(from the resumed run)", "[/a]", "[/b]", "[bold]no"):
        assert told in out.getvalue()


def test_an_empty_registry_says_how_a_version_gets_there(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ballast", "registry", "list"])
    with pytest.raises(SystemExit):
        ballast.main()
    assert "train" in capsys.readouterr().out
    assert "no version is registered yet" in refused(capsys, monkeypatch, "serve", "--version", "7")


def test_an_endpoint_that_refuses_or_is_silent_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(InputError, match="does not answer"):
            _post(f"http://127.0.0.1:{silent.getsockname()[1]}/sizing", {}, "sizing.json")
    refusal = HTTPError("", 422, "", Message(), io.BytesIO(b"give a number"))
    monkeypatch.setattr("urllib.request.urlopen", Mock(side_effect=refusal))
    with pytest.raises(InputError, match="got 422; give a number"):
        _post("http://127.0.0.1/sizing", {}, "sizing.json")
