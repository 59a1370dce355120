"""The three applications over HTTP, in this process and without Ray: answers, records, refusals."""

import asyncio
import json
import re
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from envs.guardrails import TIERS, Limits
from features.spec import FEATURE_NAMES, fingerprint
from journal.records import DecisionRecord, SignalRecord, signal_id
from journal.store import Journal
from mlops.versions import ModelVersion, write_export
from narratives.chooser import Chooser
from narratives.narrator import Narrator
from serving.answers import FeaturesAnswer, NarrativeAnswer, SizingAnswer
from serving.feature_desk import FeatureDesk
from serving.feature_service import feature_api
from serving.limits_file import LimitsFolder
from serving.narrative_desk import NarrativeDesk
from serving.narrative_service import narrative_api
from serving.position_sizer import NO_MODEL, PositionSizer, feature_row
from serving.schemas import SIZING_EXAMPLE, SizingRequest, bars_of, nanoseconds
from serving.sizing_desk import REFUSED, SizingDesk
from serving.sizing_service import sizing_api
from tests.fake_model import FakeModel
from tests.serving_bundles import bar_rows, bundle, fine_tuned_bundle, request, saved
from tests.serving_client import ask
from tests.test_narratives_facts import DECISION


def sizing_desk(home: Path, folder: Path | None = None, status: str = "STAGING") -> SizingDesk:
    desk = SizingDesk()
    desk.deploy(
        {
            "home": str(home),
            "bundle": None if folder is None else str(folder),
            "digest": None if folder is None else folder.name,
            "status": status,
        }
    )
    assert desk.refused is None
    return desk


def journal(home: Path) -> Journal:
    return Journal(f"sqlite:///{home}/journal/journal.db", "a-test")


def test_a_size_that_waits_for_another_writer_holds_nothing_else_up(home: Path) -> None:
    desk = sizing_desk(home)
    desk.decide(SizingRequest.model_validate(request()))
    with closing(sqlite3.connect(home / "journal" / "journal.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        async def both() -> tuple[httpx.Response, bool, httpx.Response]:
            transport = httpx.ASGITransport(app=sizing_api(desk))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                sizing = asyncio.create_task(client.post("/", json=request()))
                await asyncio.sleep(0.2)
                health = await client.get("/healthz")
                waits = not sizing.done()
                other.execute("COMMIT")
                return health, waits, await sizing

        health, waits, size = asyncio.run(both())
    assert (health.status_code, waits, size.status_code) == (200, True, 200)
    DecisionRecord.of(journal(home).get(size.json()["decision_id"]))


@pytest.mark.parametrize("with_bars", [False, True])
def test_only_what_takes_long_is_sized_in_another_thread_than_the_loops(
    home: Path, monkeypatch: pytest.MonkeyPatch, with_bars: bool
) -> None:
    desk = sizing_desk(home)
    desk.decide(SizingRequest.model_validate(request()))
    threads = []
    size = PositionSizer.recommend_all
    monkeypatch.setattr(
        PositionSizer,
        "recommend_all",
        lambda *given: threads.append(threading.current_thread()) or size(*given),
    )
    market = {"market": {"features": None, "bars": bar_rows(120)}} if with_bars else {}
    assert ask(sizing_api(desk), "POST", "/", json=request(**market)).status_code == 200
    assert [thread is threading.main_thread() for thread in threads] == [not with_bars]


@pytest.mark.parametrize("path", ["/sizing", "/sizing/"])
def test_size_is_answered_and_journaled_first(home: Path, path: str) -> None:
    folder = saved(home, favourite=4)
    desk = sizing_desk(home, folder)
    answer = ask(sizing_api(desk), "POST", path, root="/sizing", json=request(account={"open_trades": 2}))
    assert answer.status_code == 200
    size = SizingAnswer.model_validate(answer.json())
    assert (size.action, size.multiplier, size.source) == ("MODERATE", 1.25, "model")
    assert (size.model_status, size.bundle) == ("STAGING", folder.name)
    record = journal(home).get(size.decision_id)
    assert (record.kind, record.writer) == ("decision", desk.writer)
    said = answer.json()
    del said["decision_id"]
    assert said.items() <= record.payload.items()
    decision = DecisionRecord.of(record)
    assert (decision.account.open_trades, decision.propensity, decision.limits) == (2, 1.0, Limits())
    assert decision.mask == tuple(rung["legal"] for rung in said["ladder"])
    signal = journal(home).get(decision.signal_id)
    assert (signal.kind, signal.sequence, record.sequence) == ("signal", 1, 2)
    assert signal_id(SignalRecord.of(signal)) == decision.signal_id
    assert SignalRecord.of(signal).features == SIZING_EXAMPLE["market"]["features"]
    assert SignalRecord.of(signal).feature_fingerprint == fingerprint()


def test_one_signal_sized_for_two_accounts_is_one_signal_and_two_decisions(home: Path) -> None:
    desk = sizing_desk(home)
    records = [
        journal(home).get(desk.decide(SizingRequest.model_validate(request(account_id=name)))["decision_id"])
        for name in ("mine", "yours")
    ]
    assert [record.sequence for record in records] == [2, 3]
    assert records[0].payload["signal_id"] == records[1].payload["signal_id"]


def test_record_alone_gives_the_size_again(home: Path) -> None:
    folder = saved(home, seed=3)
    body = request(market={"features": None, "bars": bar_rows(300)}, limits={"max_exposure": 0.03})
    answer = ask(sizing_api(sizing_desk(home, folder)), "POST", "/", json=body).json()
    decision = DecisionRecord.of(journal(home).get(answer["decision_id"]))
    signal = SignalRecord.of(journal(home).get(decision.signal_id))
    assert signal.time == nanoseconds(datetime(2026, 1, 5, 14, tzinfo=UTC))
    again = SizingRequest.model_validate(
        {
            "signal": {
                **request()["signal"],
                **signal.model_dump(include={"symbol", "side", "price", "stop", "take_profit", "entry"}),
            },
            "market": {"features": signal.features},
            "account": decision.account.model_dump(),
            "limits": decision.tighter,
        }
    )
    row = again.market.feature_row()
    assert row is not None
    _, multiplier, details = PositionSizer(bundle(3), "STAGING", folder.name).get_sizing_recommendation(
        again.signal,
        row,
        again.account.account(),
        LimitsFolder(home).of(decision.account_id),
        tighter=again.limits,
    )
    assert decision.limits == Limits()
    assert multiplier == answer["multiplier"]
    assert details.items() <= decision.model_dump(mode="json").items()
    assert signal.bars is not None
    assert signal.bars.count == 300


def test_in_process_and_http_give_the_same(home: Path) -> None:
    folder = saved(home, seed=5)
    answer = ask(sizing_api(sizing_desk(home, folder)), "POST", "/", json=request()).json()
    asked = SizingRequest.model_validate(request())
    row = asked.market.feature_row()
    assert row is not None
    details = (
        PositionSizer(bundle(5), "STAGING", folder.name)
        .get_sizing_recommendation(
            asked.signal, row, asked.account.account(), LimitsFolder(home).of("default")
        )
        .details
    )
    assert answer == {"decision_id": answer["decision_id"], **details}


def test_fine_tuned_size_is_served_and_is_one_size_for_identical_requests(home: Path) -> None:
    root = home / "bundles"
    folder = root / fine_tuned_bundle(0, favourite=3).save(root)
    api = sizing_api(sizing_desk(home, folder))
    answers = [ask(api, "POST", "/", json=request()).json() for _ in range(20)]
    assert len({answer["multiplier"] for answer in answers}) == 1
    first = SizingAnswer.model_validate(answers[0])
    assert 0.85 <= first.multiplier <= 1.15
    assert first.multiplier not in (0.85, 1.0, 1.15)
    assert (first.source, first.action) == ("model", "STANDARD" if first.multiplier >= 1.0 else "SMALL")
    assert [rung.action for rung in first.ladder if rung.value is not None] == list(TIERS)


def test_without_a_model_the_rule_answers_and_says_so(home: Path) -> None:
    desk = sizing_desk(home)
    api = sizing_api(desk)
    answer = ask(api, "POST", "/", json=request()).json()
    assert (answer["action"], answer["source"], answer["model_status"]) == ("STANDARD", "rule", NO_MODEL)
    assert ask(api, "GET", "/healthz").json() == {
        "status": "ok", "replica": desk.writer, "refused": None, "model_status": NO_MODEL, "bundle": None,
        "challenger": None, "challenger_refused": None,
    }  # fmt: skip


def test_broken_limits_file_answers_nothing_may_be_risked(home: Path) -> None:
    (home / "limits").mkdir()
    (home / "limits" / "desk-a.json").write_text("{")
    api = sizing_api(sizing_desk(home, saved(home, favourite=5)))
    answer = ask(api, "POST", "/", json=request(account_id="desk-a")).json()
    assert (answer["multiplier"], answer["binding_rule"]) == (0.0, "invalid_limits")
    assert answer["limits_source"].startswith("limits/desk-a.json cannot be used")
    assert ask(api, "POST", "/", json=request()).json()["multiplier"] == 1.5


def test_operators_limits_bind_and_are_named(home: Path) -> None:
    (home / "limits").mkdir()
    (home / "limits" / "desk-a.json").write_text('{"max_position": 0.005}')
    api = sizing_api(sizing_desk(home, saved(home, favourite=5)))
    answer = ask(api, "POST", "/", json=request(account_id="desk-a")).json()
    assert (answer["multiplier"], answer["binding_rule"]) == (0.5, "max_position")
    assert (answer["proposed_multiplier"], answer["limits_source"]) == (1.5, "limits/desk-a.json")


def test_hot_swap_takes_the_new_bundle_and_an_unsound_one_leaves_the_old(home: Path) -> None:
    first, second = saved(home, 0, favourite=1), saved(home, 1, favourite=5)
    desk = sizing_desk(home, first)
    api = sizing_api(desk)
    assert ask(api, "POST", "/", json=request()).json()["action"] == "MICRO"
    third = saved(home, 2)
    content = bytearray((third / "policy.safetensors").read_bytes())
    content[-1] ^= 1
    (third / "policy.safetensors").write_bytes(content)
    desk.deploy({"home": str(home), "bundle": str(third), "digest": third.name, "status": "PRODUCTION"})
    assert desk.refused is not None
    assert desk.refused["field"] == "bundle.digest"
    assert ask(api, "GET", "/healthz").json()["refused"] == desk.refused
    assert ask(api, "POST", "/", json=request()).json()["bundle"] == first.name
    desk.deploy({"home": str(home), "bundle": str(second), "digest": second.name, "status": "PRODUCTION"})
    answer = ask(api, "POST", "/", json=request()).json()
    assert (answer["action"], answer["model_status"], answer["bundle"]) == (
        "AGGRESSIVE",
        "PRODUCTION",
        second.name,
    )
    assert ask(api, "GET", "/healthz").json()["refused"] is None


def test_first_bundle_that_is_unsound_leaves_the_rule_and_says_so(home: Path) -> None:
    folder = saved(home)
    shutil.rmtree(folder)
    desk = SizingDesk()
    desk.deploy({"home": str(home), "bundle": str(folder), "digest": folder.name, "status": "STAGING"})
    answer = ask(sizing_api(desk), "POST", "/", json=request()).json()
    assert (answer["action"], answer["source"], answer["model_status"]) == ("STANDARD", "rule", REFUSED)


@pytest.mark.parametrize(
    "config",
    [
        {"home": "relative"},
        {"bundle": "/somewhere/abc"},
        {"bundle": "/somewhere/abc", "digest": "abd"},
        {"digest": "abc"},
        {"alias": "production"},
        {"home": 7},
        {"status": "two\nlines"},
    ],
)
def test_deployment_that_is_not_resolved_is_refused(home: Path, config: dict[str, object]) -> None:
    desk = sizing_desk(home, saved(home, favourite=1))
    desk.deploy(config)
    assert desk.refused is not None
    assert ask(sizing_api(desk), "POST", "/", json=request()).json()["action"] == "MICRO"


def test_without_a_journal_there_is_no_size(home: Path) -> None:
    (home / "journal").write_text("in the way")
    answer = ask(sizing_api(sizing_desk(home)), "POST", "/", json=request())
    assert answer.status_code == 503
    assert answer.json()["error"]["field"] == "journal"
    assert "multiplier" not in answer.text


def test_replicas_and_threads_share_one_journal(home: Path) -> None:
    desks = [sizing_desk(home) for _ in range(2)]
    asked = SizingRequest.model_validate(request())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: desks[i % 2].decide(asked), range(64)))
    assert len({answer["decision_id"] for answer in answers}) == 64
    assert len({json.dumps({**answer, "decision_id": ""}) for answer in answers}) == 1
    assert journal(home).verify() == []
    assert {journal(home).get(answer["decision_id"]).writer for answer in answers} == {
        desk.writer for desk in desks
    }


def test_bars_beyond_the_signal_are_refused(home: Path) -> None:
    body = request(
        market={"features": None, "bars": bar_rows(120)}, signal={"timestamp": "2026-01-05T13:59:59Z"}
    )
    answer = ask(sizing_api(sizing_desk(home)), "POST", "/", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"] == {
        "field": "market.bars",
        "value": "2026-01-05T14:00:00+00:00",
        "mend": "end at the signal bar: the signal is known at 2026-01-05T13:59:59+00:00",
    }


def test_models_come_from_the_registrys_export(home: Path) -> None:
    api = sizing_api(sizing_desk(home))
    assert ask(api, "GET", "/models").json() == []
    folder = saved(home)
    version = ModelVersion(
        version=1,
        digest=folder.name,
        path=folder,
        status="STAGING",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        aliases=("staging",),
    )
    write_export(home, [version])
    (found,) = ask(api, "GET", "/models").json()
    assert (found["version"], found["digest"], found["status"]) == (1, folder.name, "STAGING")
    assert "path" not in found


def test_features_are_those_of_the_pipeline(home: Path) -> None:
    desk = FeatureDesk()
    desk.deploy({"home": str(home)})
    rows = bar_rows(140)
    answer = ask(
        feature_api(desk), "POST", "/features", root="/features", json={"symbol": "eurusd", "bars": rows}
    )
    assert answer.status_code == 200
    found = FeaturesAnswer.model_validate(answer.json())
    assert (found.symbol, found.bars_seen, found.fingerprint) == ("EURUSD", 140, fingerprint())
    parsed = SizingRequest.model_validate(request(market={"features": None, "bars": rows})).market.bars or []
    row = feature_row(bars_of("EURUSD", parsed))
    assert answer.json()["features"] == dict(zip(FEATURE_NAMES, row.tolist(), strict=True))
    assert np.isfinite(row).all()


@pytest.mark.parametrize("count", [1, 100])
def test_too_few_bars_name_the_number(home: Path, count: int) -> None:
    desk = FeatureDesk()
    desk.deploy({"home": str(home)})
    answer = ask(feature_api(desk), "POST", "/", json={"bars": bar_rows(count)})
    assert answer.status_code == 422
    assert answer.json()["error"] == {"field": "bars", "value": count, "mend": "give at least 101"}


def test_narratives_tell_a_decision_made_by_another_replica(home: Path) -> None:
    decision = sizing_desk(home, saved(home, favourite=5)).decide(SizingRequest.model_validate(request()))
    desk = NarrativeDesk()
    desk.deploy({"home": str(home)})
    for kind in ("trade_rationale", "risk_assessment", "market_narrative"):
        body = {"kind": kind, "decision_id": decision["decision_id"]}
        answer = ask(narrative_api(desk), "POST", "/narratives", root="/narratives", json=body)
        assert answer.status_code == 200, answer.text
        told = NarrativeAnswer.model_validate(answer.json())
        assert "EURUSD" in told.text
        assert (told.kind, told.writer, told.decision_id) == (kind, "template", decision["decision_id"])
        assert told.facts["facts"]
    written = [record for record in journal(home).read("narrative") if record.writer == desk.writer]
    assert [record.payload["narrative"] for record in written] == [
        "trade_rationale",
        "risk_assessment",
        "market_narrative",
    ]
    assert written[-1].payload["text"] == told.text
    assert written[-1].payload["decision_id"] == decision["decision_id"]


def test_a_narrative_that_cannot_be_journaled_is_not_told(home: Path) -> None:
    (home / "journal").write_text("in the way")
    desk = NarrativeDesk()
    desk.deploy({"home": str(home)})
    context = {"trades": 0, "period": "this week"}
    answer = ask(narrative_api(desk), "POST", "/", json={"kind": "performance_summary", "context": context})
    assert answer.status_code == 503
    assert answer.json()["error"]["field"] == "journal"


def test_narratives_tell_a_given_context(home: Path) -> None:
    desk = NarrativeDesk()
    desk.deploy({"home": str(home)})
    context = {
        "trades": 12,
        "win_rate": 0.5,
        "mean_r": 0.1,
        "total_r": 1.2,
        "max_drawdown": 0.03,
        "average_multiplier": 0.8,
    }
    body = {"kind": "performance_summary", "context": {**context, "period": "this week"}}
    assert "12 trades" in ask(narrative_api(desk), "POST", "/", json=body).json()["text"]
    answer = ask(
        narrative_api(desk), "POST", "/", json={"kind": "trade_rationale", "context": {"symbol": "EURUSD"}}
    )
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "side"


def streamed(answer: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """The events of an answer, by name and content."""
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", answer.text)
    return [(name, json.loads(content)) for name, content in found]


def test_streamed_pieces_are_the_whole_text_which_is_journaled(home: Path) -> None:
    desk = NarrativeDesk()
    desk.deploy({"home": str(home)})
    desk.narrator = Narrator(Chooser(FakeModel()))
    body = {"kind": "trade_rationale", "context": DECISION}
    plain = ask(narrative_api(desk), "POST", "/", json=body).json()
    for asked in (
        {"json": {**body, "stream": True}},
        {"json": body, "headers": {"accept": "text/event-stream"}},
    ):
        *pieces, (last, whole) = streamed(ask(narrative_api(desk), "POST", "/", **asked))
        assert len(pieces) > 10
        assert {name for name, _ in pieces} == {"piece"}
        assert (last, whole) == ("narrative", plain)
        assert "".join(piece["text"] for _, piece in pieces) == whole["text"]
    assert whole["writer"] == "fake constrained"
    assert [record.payload["text"] for record in journal(home).read("narrative")] == [whole["text"]] * 3
    in_process = Narrator(Chooser(FakeModel())).generate_trade_rationale(DECISION)
    assert in_process.model_dump(mode="json").items() <= plain.items()


def test_a_stream_is_refused_before_it_begins_and_says_when_it_cannot_be_journaled(home: Path) -> None:
    desk = NarrativeDesk()
    desk.deploy({"home": str(home)})
    refused = ask(
        narrative_api(desk),
        "POST",
        "/",
        json={"kind": "trade_rationale", "context": {"symbol": "EURUSD"}, "stream": True},
    )
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "side")
    (home / "journal").write_text("in the way")
    body = {"kind": "trade_rationale", "context": DECISION, "stream": True}
    *_, (last, content) = streamed(ask(narrative_api(desk), "POST", "/", json=body))
    assert (last, content["error"]["field"]) == ("error", "journal")


def test_health_tells_who_writes_and_what_the_template_wrote_instead(home: Path) -> None:
    desk = NarrativeDesk()
    desk.deploy({"home": str(home)})
    assert ask(narrative_api(desk), "GET", "/healthz").json()["writer"] == "template"
    desk.deploy({"home": str(home), "llm": {"path": str(home / "absent.gguf")}})
    assert desk.refused is not None
    assert desk.refused["field"] == "llm"
    assert ask(narrative_api(desk), "GET", "/healthz").json()["writer"] == "template"
    fresh = NarrativeDesk()
    fresh.deploy({"home": str(home), "llm": {"path": str(home / "absent.gguf")}})
    body = {"kind": "trade_rationale", "context": DECISION}
    assert ask(narrative_api(fresh), "POST", "/", json=body).json()["writer"] == "template"
    health = ask(narrative_api(fresh), "GET", "/healthz").json()
    assert health["fallbacks"] == {"unavailable": 1}
    assert health["refused"]["field"] == "llm"
    fresh.deploy({"home": str(home), "llm": {"mode": "bold"}})
    assert fresh.refused is not None
    assert fresh.refused["field"] == "user_config.llm.mode"


def test_unknown_decision_is_not_found_with_and_without_a_journal(home: Path) -> None:
    desk = NarrativeDesk()
    desk.deploy({"home": str(home)})
    body = {"kind": "trade_rationale", "decision_id": "2f6c1d0e"}
    for _ in range(2):
        answer = ask(narrative_api(desk), "POST", "/", json=body)
        assert answer.status_code == 404
        assert answer.json()["error"]["field"] == "decision_id"
        journal(home).append("model", "2f6c1d0e", {"a": "record of another kind"})


def test_every_application_documents_its_requests_answers_and_refusals(home: Path) -> None:
    desks = sizing_desk(home), FeatureDesk(), NarrativeDesk()
    apis = sizing_api(desks[0]), feature_api(desks[1]), narrative_api(desks[2])
    for api in apis:
        document = ask(api, "GET", "/openapi.json").json()
        assert {"200", "401", "413", "422", "429"} <= document["paths"]["/"]["post"]["responses"].keys()
        assert all(path.startswith("/") for path in document["paths"])


def test_the_documents_page_needs_no_network(home: Path) -> None:
    for api in (sizing_api(sizing_desk(home)), feature_api(FeatureDesk()), narrative_api(NarrativeDesk())):
        page = ask(api, "GET", "/docs", root="/mounted").text
        places = re.findall(r'(?:src|href)="([^"]*)"', page)
        assert len(places) >= 3
        for place in places:
            assert place.startswith("/mounted/"), place
            assert ask(api, "GET", place.removeprefix("/mounted")).status_code == 200


def test_keys_guard_every_application(home: Path) -> None:
    (home / "keys.json").write_text(json.dumps({"keys": [{"name": "a", "sha256": "0" * 64}]}))
    narrator, features = NarrativeDesk(), FeatureDesk()
    for desk in (narrator, features):
        desk.deploy({"home": str(home)})
    for api in (sizing_api(sizing_desk(home)), feature_api(features), narrative_api(narrator)):
        for path in ("/", "/healthz", "/docs", "/openapi.json", "/models"):
            assert ask(api, "GET", path).status_code == 401
