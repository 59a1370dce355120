"""`journal` and `replay` on the terminal: what they say, and their exit codes."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ballast
from journal.store import Journal
from serving.schemas import SizingRequest
from tests.serving_bundles import request, saved
from tests.test_serving_services import sizing_desk


@pytest.fixture
def decision_id(home: Path) -> str:
    desk = sizing_desk(home, saved(home, 3))
    return str(desk.decide(SizingRequest.model_validate(request()))["decision_id"])


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(ballast.app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def change(home: Path, statement: str) -> None:
    with closing(sqlite3.connect(home / "journal" / "journal.db")) as connection, connection:
        for trigger in ("update", "delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS records_refuse_{trigger}")
        connection.execute(statement)


def test_a_whole_journal_verifies_and_tells_what_nobody_else_saw(home: Path, decision_id: str) -> None:
    code, said = run("journal", "verify")
    assert code == 0
    assert "2 records of 1 writers" in said
    assert "every chain holds" in said
    assert "the newest 2 records no other writer has seen yet" in said


def test_an_altered_record_is_named_and_the_exit_code_is_one(home: Path, decision_id: str) -> None:
    change(home, "UPDATE records SET time = 1 WHERE kind = 'decision'")
    code, said = run("journal", "verify")
    assert code == 1
    assert "not as it was written: 1 faults" in said
    assert decision_id[:8] in said


def test_a_clock_that_went_back_is_told_and_the_exit_code_stays_zero(home: Path) -> None:
    ticks = iter([9_000_000_000, 4_000_000_000])
    address = f"sqlite:///{home}/other.db"
    with closing(Journal(address, "w", clock=lambda: next(ticks))) as journal:
        journal.append("decision", "d1", {})
        journal.append("decision", "d2", {})
    code, said = run("journal", "verify", "--journal", address)
    assert code == 0
    assert "5 s behind" in said


def test_export_names_its_files(home: Path, decision_id: str, tmp_path: Path) -> None:
    code, said = run("journal", "export", tmp_path / "out")
    assert code == 0
    assert "signal.parquet  1 records" in said
    assert (tmp_path / "out" / "decision.parquet").is_file()


def test_a_decision_is_made_again_and_told_with_its_ladder(home: Path, decision_id: str) -> None:
    code, said = run("replay", decision_id)
    assert code == 0
    assert "identical" in said
    for tier in ("SKIP", "MICRO", "SMALL", "STANDARD", "MODERATE", "AGGRESSIVE"):
        assert tier in said
    assert "limits changed" not in said


def test_why_names_the_smallest_change_of_each_field(home: Path) -> None:
    """By the rule alone: its size depends on account and limits only."""
    decision = sizing_desk(home).decide(SizingRequest.model_validate(request()))
    code, said = run("replay", decision["decision_id"], "--why")
    assert code == 0
    assert "limits.max_position" in said
    assert "account.equity" in said


def test_a_decision_that_does_not_come_out_again_names_what_differs(home: Path, decision_id: str) -> None:
    change(home, "UPDATE records SET payload = replace(payload, '\"propensity\":1.0', '\"propensity\":0.5')")
    (home / "limits").mkdir()
    (home / "limits" / "default.json").write_text('{"max_exposure": 0.04}')
    code, said = run("replay", decision_id)
    assert code == 1
    assert "not the same" in said
    assert "propensity" in said
    assert "limits.max_exposure was 0.06, is 0.04" in said


@pytest.mark.parametrize("words", [["journal", "verify"], ["replay", "x"]])
def test_without_a_journal_the_refusal_is_one_line(
    home: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ballast", *words])
    with pytest.raises(SystemExit) as stopped:
        ballast.main()
    assert stopped.value.code == 2
    assert "nothing was ever written here" in capsys.readouterr().err
