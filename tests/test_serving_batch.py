"""Many signals sized in one request: the same sizes, one transaction, all or none."""

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from features.spec import FEATURE_NAMES
from journal.records import PAYLOADS, DecisionRecord, SignalRecord, signal_id
from journal.schema import canonical
from market.errors import InputError
from serving.answers import BatchAnswer
from serving.schemas import MOST_REQUESTS, SizingRequest
from serving.sizing_desk import SizingDesk, signal_entry
from serving.sizing_service import LARGEST_BATCH_BODY, sizing_api
from tests.serving_bundles import bar_rows, request, saved
from tests.serving_client import ask
from tests.test_serving_services import journal, sizing_desk


def requests(count: int) -> list[dict[str, Any]]:
    """Different signals: the example at `count` confidences."""
    return [request(signal={"confidence": i / count}) for i in range(count)]


def commits(desk: SizingDesk) -> list[str]:
    """Grows by one with every transaction that the desk's journal, its table made, commits."""
    seen: list[str] = []
    with desk.journal._database.transaction(write=True):
        pass
    desk.journal._database.close()  # connections that it keeps are opened anew, and seen then

    def trace(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_trace_callback(lambda said: seen.append(said) if said == "COMMIT" else None)

    event.listen(desk.journal._database.engine, "checkout", trace)
    return seen


def test_a_batch_is_answered_as_its_requests_are_one_by_one(home: Path) -> None:
    api = sizing_api(sizing_desk(home, saved(home, seed=3)))
    wanted = [*requests(5), request(market={"features": None, "bars": bar_rows(120)})]
    answer = ask(api, "POST", "/sizing/batch", root="/sizing", json={"requests": wanted})
    assert answer.status_code == 200
    sizes = BatchAnswer.model_validate(answer.json()).answers
    assert len({size.decision_id for size in sizes}) == 6
    for size, one in zip(answer.json()["answers"], wanted, strict=True):
        alone = ask(api, "POST", "/", json=one).json()
        assert {**size, "decision_id": ""} == {**alone, "decision_id": ""}


def test_a_batch_is_journaled_in_one_transaction(home: Path) -> None:
    desk = sizing_desk(home)
    seen = commits(desk)
    answer = ask(sizing_api(desk), "POST", "/batch", json={"requests": requests(20)})
    assert answer.status_code == 200
    assert len(seen) == 1
    records = list(journal(home).read())
    assert [record.kind for record in records] == ["signal", "decision"] * 20
    for size in answer.json()["answers"]:
        DecisionRecord.of(journal(home).get(size["decision_id"]))


def test_one_unsound_request_refuses_the_whole_batch_and_journals_nothing(home: Path) -> None:
    desk = sizing_desk(home)
    too_late = request(
        market={"features": None, "bars": bar_rows(120)}, signal={"timestamp": "2026-01-05T13:59:59Z"}
    )
    for body, field in (
        ([*requests(2), request(signal={"stop": 2.0})], "requests.2.signal.stop"),
        ([*requests(3), too_late], "requests.3.market.bars"),
    ):
        answer = ask(sizing_api(desk), "POST", "/batch", json={"requests": body})
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)
    assert not (home / "journal").exists()


@pytest.mark.parametrize("count", [0, MOST_REQUESTS + 1])
def test_a_batch_holds_at_least_one_and_at_most_1024_requests(home: Path, count: int) -> None:
    answer = ask(sizing_api(sizing_desk(home)), "POST", "/batch", json={"requests": [request()] * count})
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "requests"
    assert answer.json()["error"]["value"] == count
    assert len(answer.content) < 400


def test_the_largest_batch_fits_the_body_whatever_its_numbers(home: Path) -> None:
    longest = dict.fromkeys(FEATURE_NAMES, -1.2345678901234567e-101)
    full = request(
        market={"features": longest},
        signal={"symbol": "A" * 32, "strategy_id": "s" * 64, "confidence": 0.12345678901234567},
        account={"win_rate_recent": 0.12345678901234567},
        account_id="a" * 64,
        limits={"max_position": 0.012345678901234567, "rule_cap": 1.2345678901234567},
    )
    assert MOST_REQUESTS * len(json.dumps(full, separators=(",", ":"))) < LARGEST_BATCH_BODY


def test_a_batch_that_cannot_be_journaled_is_not_answered(home: Path) -> None:
    (home / "journal").write_text("in the way")
    answer = ask(sizing_api(sizing_desk(home)), "POST", "/batch", json={"requests": requests(2)})
    assert (answer.status_code, answer.json()["error"]["field"]) == (503, "journal")


def test_the_batch_is_documented_with_its_cap(home: Path) -> None:
    document = ask(sizing_api(sizing_desk(home)), "GET", "/openapi.json").json()
    assert {"200", "401", "413", "422", "429"} <= document["paths"]["/batch"]["post"]["responses"].keys()
    listed = document["components"]["schemas"]["SizingBatch"]["properties"]["requests"]
    assert (listed["minItems"], listed["maxItems"]) == (1, MOST_REQUESTS)


def test_what_is_journaled_is_what_the_typed_records_would_have_written(home: Path) -> None:
    (home / "limits").mkdir()
    (home / "limits" / "broken.json").write_text("{")
    desk = sizing_desk(home, saved(home, seed=3))
    body = [
        request(),
        request(limits={"rule_cap": 0.6, "max_open_trades": 3}, account={"win_rate_recent": 0.5}),
        request(signal={"entry": None, "strategy_id": "a", "side": "short", "stop": 1.2, "take_profit": 1.0}),
        request(market={"features": None, "bars": bar_rows(120)}, account={"equity": 100_000}),
        request(account_id="broken"),
        request(reserve={"key": "one", "seconds": 5}),
        request(market={"features": {"mom_5": 1e300}}),
    ]
    answer = ask(sizing_api(desk), "POST", "/batch", json={"requests": body})
    assert answer.status_code == 200, answer.text
    records = list(journal(home).read())
    assert Counter(record.kind for record in records) == {"signal": 4, "decision": len(body)}
    for record in records:
        payload = PAYLOADS[record.kind].of(record)
        assert canonical(payload.model_dump(mode="json")) == record.text
        if isinstance(payload, SignalRecord):
            assert signal_id(payload) == record.record_id


def test_an_entry_of_plain_json_refuses_what_its_record_would(home: Path) -> None:
    signal = SizingRequest.model_validate(request()).signal
    _, _, text = signal_entry(signal, dict.fromkeys(FEATURE_NAMES, 0.0), None)
    plain = json.loads(text)
    assert SignalRecord.plain_entry("s", plain) == ("signal", "s", text)
    with pytest.raises(InputError, match=r"payload\.price: got nan; give a finite number"):
        SignalRecord.plain_entry("s", plain | {"price": float("nan")})
    with pytest.raises(InputError, match=r"payload\.features\.mom_5: got inf"):
        SignalRecord.plain_entry("s", plain | {"features": plain["features"] | {"mom_5": float("inf")}})
    for other in (plain | {"more": 1}, {name: plain[name] for name in plain if name != "stop"}):
        with pytest.raises(ValueError, match="signal: other fields"):
            SignalRecord.plain_entry("s", other)
