"""Outcomes reported back over HTTP: journaled once, contradicted never."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from journal.history import settled
from journal.records import OutcomeRecord, signal_id_of
from serving import sizing_desk as desks
from serving.answers import OutcomeAnswer
from serving.schemas import OutcomeReport
from serving.sizing_service import sizing_api
from tests.serving_bundles import request, saved
from tests.serving_client import ask
from tests.test_serving_services import journal, sizing_desk

REPORT: dict[str, Any] = OutcomeReport.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index, call-overload]
EXIT = 1_767_690_000_000_000_000  # 2026-01-06T09:00Z


def sized(api: FastAPI, **changed: Any) -> str:
    return str(ask(api, "POST", "/", json=request(**changed)).json()["decision_id"])


def test_an_outcome_is_journaled_under_its_signal(home: Path) -> None:
    api = sizing_api(sizing_desk(home))
    decision = sized(api)
    answer = ask(api, "POST", f"/sizing/{decision}/outcome", root="/sizing", json=REPORT)
    assert answer.status_code == 200, answer.text
    said = OutcomeAnswer.model_validate(answer.json())
    outcome = OutcomeRecord.of(journal(home).get(said.outcome_id))
    assert (outcome.decision_id, outcome.signal_id) == (decision, said.signal_id)
    assert (outcome.gross_r, outcome.cost_r, outcome.exit_time, outcome.reason) == (
        1.98,
        0.05,
        EXIT,
        "target",
    )


def test_skipped_signals_have_outcomes_too_and_the_history_reads_them(home: Path) -> None:
    api = sizing_api(sizing_desk(home, saved(home, favourite=0)))
    skipped = ask(api, "POST", "/", json=request()).json()
    assert skipped["multiplier"] == 0.0
    assert ask(api, "POST", f"/{skipped['decision_id']}/outcome", json=REPORT).status_code == 200
    trades = settled(f"sqlite:///{home}/journal/journal.db").trades
    assert (trades.gross_r.tolist(), trades.exit_time.tolist()) == ([1.98], [EXIT])


def test_a_repeated_outcome_changes_nothing_even_from_many_clients_at_once(home: Path) -> None:
    apis = [sizing_api(sizing_desk(home)) for _ in range(2)]
    decisions = [sized(apis[0], account_id=name) for name in ("mine", "yours")]
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda i: ask(apis[i % 2], "POST", f"/{decisions[i % 2]}/outcome", json=REPORT), range(16)
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["outcome_id"] for answer in answers}) == 1
    assert len(list(journal(home).read("outcome"))) == 1


def test_a_signal_has_one_outcome_though_an_earlier_version_named_it_otherwise(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = sizing_api(sizing_desk(home))
    with monkeypatch.context() as earlier:
        earlier.setattr(desks, "signal_id_of", lambda time, text: signal_id_of(time, text)[-64:])
        before = sized(api)
    now = sized(api)
    first = ask(api, "POST", f"/{before}/outcome", json=REPORT).json()
    again = ask(api, "POST", f"/{now}/outcome", json=REPORT)
    assert (again.status_code, again.json()["outcome_id"]) == (200, first["outcome_id"])
    assert ask(api, "POST", f"/{now}/outcome", json=REPORT | {"gross_r": 1.5}).status_code == 409
    assert len(list(journal(home).read("outcome"))) == 1
    history = settled(f"sqlite:///{home}/journal/journal.db")
    assert history.trades.gross_r.tolist() == [1.98]
    assert any("have no outcome yet" in note for note in history.notes)


def test_another_outcome_is_a_conflict_that_names_what_differs(home: Path) -> None:
    api = sizing_api(sizing_desk(home))
    path = f"/{sized(api)}/outcome"
    ask(api, "POST", path, json=REPORT)
    answer = ask(api, "POST", path, json=REPORT | {"gross_r": -1.0, "reason": "stop"})
    assert answer.status_code == 409
    assert answer.json()["error"] == {
        "field": "gross_r",
        "value": -1.0,
        "mend": "another outcome of this signal is journaled: "
        "gross_r is 1.98 there, reason is 'target' there",
    }
    (outcome,) = journal(home).read("outcome")
    assert outcome.payload["gross_r"] == 1.98


@pytest.mark.parametrize("decision", ["2f6c1d0e", "a record of another kind"])
def test_an_unknown_decision_is_not_found(home: Path, decision: str) -> None:
    api = sizing_api(sizing_desk(home))
    if decision != "2f6c1d0e":
        decision = str(journal(home).append("model", "model-1", {}).record_id)
    answer = ask(api, "POST", f"/{decision}/outcome", json=REPORT)
    assert (answer.status_code, answer.json()["error"]["field"]) == (404, "decision_id")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"gross_r": "much"}, "gross_r"),
        ({"cost_r": -0.1}, "cost_r"),
        ({"mae_r": 0.1}, "mae_r"),
        ({"exit_time": "2026-01-05T13:00:00Z", "entry_time": None}, "exit_time"),
        ({"exit_time": "2026-01-05T14:30:00Z"}, "exit_time"),
        ({"entry_time": "2026-01-05T13:00:00Z"}, "entry_time"),
        ({"exit_time": "2600-01-01T00:00:00Z"}, "exit_time"),
        ({"exit_time": 1_767_690_000}, "exit_time"),
        ({"reason": "boredom"}, "reason"),
        ({"signal_id": "a" * 64}, "signal_id"),
    ],
)
def test_an_outcome_that_cannot_be_is_refused(home: Path, changed: dict[str, Any], field: str) -> None:
    api = sizing_api(sizing_desk(home))
    answer = ask(api, "POST", f"/{sized(api)}/outcome", json=REPORT | changed)
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field), answer.text
    assert list(journal(home).read("outcome")) == []


def test_an_outcome_that_cannot_be_journaled_is_not_acknowledged(home: Path) -> None:
    desk = sizing_desk(home)
    api = sizing_api(desk)
    decision = sized(api)
    desk.journal.close()
    (home / "journal" / "journal.db").write_bytes(b"no database at all" * 100)
    answer = ask(api, "POST", f"/{decision}/outcome", json=REPORT)
    assert (answer.status_code, answer.json()["error"]["field"]) == (503, "journal")
