"""The short way to a size: whoever takes it gets what the application's own way would have said."""

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from journal.group import WouldWait
from journal.records import DecisionRecord
from serving.direct import Direct
from serving.guard import Guard
from serving.json_route import JSON
from serving.keys import Keys
from serving.refusals import Unavailable
from serving.sizing_desk import SizingDesk
from serving.sizing_service import LARGEST_DIRECT_BODY, sizing_api
from tests.serving_bundles import bar_rows, request, saved
from tests.serving_client import ask
from tests.test_serving_batch import commits, requests
from tests.test_serving_json_route import BODIES
from tests.test_serving_services import journal, sizing_desk

OWN_WAY: Final = f"{JSON}; charset=utf-8"  # which the short way leaves to others


async def _behind(scope: Scope, receive: Receive, send: Send) -> None:
    """Says that it was asked, and what."""
    body = (await receive()).get("body", b"")
    await PlainTextResponse(b"behind:" + body)(scope, receive, send)


def answering(home: Path, body: bytes | None) -> Guard:
    """Answers all it is given with `body`."""

    async def answer(_: bytes) -> bytes | None:
        return body

    return Guard(Direct(_behind, answer, 10), keys=lambda: Keys(home, {}))


@pytest.mark.parametrize("path", ["", "/", "/sizing", "/sizing/"])
def test_a_body_at_the_root_is_answered(home: Path, path: str) -> None:
    root = "/sizing" if "sizing" in path else ""
    answer = ask(
        answering(home, b"[1]"), "POST", path, root=root, content=b"{}", headers={"content-type": JSON}
    )
    assert (answer.status_code, answer.content) == (200, b"[1]")
    assert (answer.headers["content-type"], answer.headers["content-length"]) == (JSON, "3")


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type"),
    [
        ("PUT", "/", b"{}", JSON),
        ("POST", "/batch", b"{}", JSON),
        ("POST", "/", b"{}", "text/plain"),
        ("POST", "/", b"{}", OWN_WAY),
        ("POST", "/", b"", JSON),
        ("POST", "/", b"[1,2,3,4,5]", JSON),
    ],
)
def test_all_else_goes_on_as_it_came(
    home: Path, method: str, path: str, body: bytes, content_type: str
) -> None:
    answer = ask(answering(home, b"[1]"), method, path, content=body, headers={"content-type": content_type})
    assert answer.content == b"behind:" + body


def test_what_is_not_answered_goes_on_with_its_body(home: Path) -> None:
    answer = ask(answering(home, None), "POST", "/", content=b"{}", headers={"content-type": JSON})
    assert answer.content == b"behind:{}"


def test_a_body_in_parts_goes_on_whole() -> None:
    async def all_of_it(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        await PlainTextResponse(body)(scope, receive, send)

    async def asked() -> list[Message]:
        parts = iter((b"[1", b"]"))
        sent: list[Message] = []

        async def receive() -> Message:
            part = next(parts)
            return {"type": "http.request", "body": part, "more_body": part != b"]"}

        async def send(message: Message) -> None:
            sent.append(message)

        async def never(_: bytes) -> bytes | None:
            raise AssertionError("half a body was answered")

        headers = [(b"content-type", JSON.encode())]
        scope = {"type": "http", "method": "POST", "path": "/", "root_path": "", "headers": headers}
        await Direct(all_of_it, never, 10)(scope, receive, send)
        return sent

    assert asyncio.run(asked())[1]["body"] == b"[1]"


def both_ways(api: FastAPI, body: bytes) -> list[tuple[int, Any]]:
    """What each way answers, but for the decision's id."""
    answers = []
    for content_type in (JSON, OWN_WAY):
        answer = ask(api, "POST", "/", content=body, headers={"content-type": content_type})
        said = answer.json()
        said.pop("decision_id", None)
        answers.append((answer.status_code, said))
    return answers


@pytest.mark.parametrize("body", [body for body, _ in BODIES.values()], ids=BODIES)
def test_every_body_gets_the_answer_of_the_applications_own_way(home: Path, body: bytes) -> None:
    short, own = both_ways(sizing_api(sizing_desk(home)), body)
    assert short == own


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"reserve": {"key": "one", "seconds": 60}},
        {"market": {"features": None, "bars": bar_rows(120)}},
        {"account": {"equity": 1.0}},
        {"limits": {"max_position": 0.25}},
    ],
    ids=["plain", "reserved", "bars", "drawdown", "limits"],
)
def test_every_kind_of_request_gets_the_answer_of_the_applications_own_way(
    home: Path, more: Mapping[str, Any]
) -> None:
    short, own = both_ways(
        sizing_api(sizing_desk(home, saved(home, seed=3))), json.dumps(request(**more)).encode()
    )
    assert short[0] == 200
    assert short == own


def together(api: FastAPI, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    """The answers to what is asked in one turn of a loop."""

    async def asked() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(*(client.post("/", json=body) for body in bodies))

    return asyncio.run(asked())


def test_what_is_asked_for_at_once_is_one_transaction_and_a_refusal_is_one_clients_alone(home: Path) -> None:
    desk = sizing_desk(home, saved(home, seed=3))
    api = sizing_api(desk)
    wrong = request(signal={"stop": 2.0})
    asked = [*requests(3), wrong, *requests(5)]
    alone = [ask(api, "POST", "/", json=body) for body in asked]
    seen = commits(desk)
    answers = together(api, asked)
    assert len(seen) == 1
    assert [answer.status_code for answer in answers] == [200] * 3 + [422] + [200] * 5
    assert answers[3].json() == alone[3].json()
    for answer, same in zip(answers, alone, strict=True):
        if answer.status_code == 200:
            assert {**answer.json(), "decision_id": ""} == {**same.json(), "decision_id": ""}
            DecisionRecord.of(journal(home).get(answer.json()["decision_id"]))


def test_each_event_loop_has_its_own_gathering(home: Path) -> None:
    api = sizing_api(sizing_desk(home))
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, api, "POST", "/", json=request()) for _ in range(80)]
        assert {one.result(60).status_code for one in asked} == {200}
    assert len(list(journal(home).read("decision"))) == 80


def test_the_next_size_has_the_greater_id(home: Path) -> None:
    api = sizing_api(sizing_desk(home))
    ids = [ask(api, "POST", "/", json=request()).json()["decision_id"] for _ in range(5)]
    assert ids == sorted(set(ids))  # neighbours in the journal's index, which then changes in one place


def test_a_size_that_another_writer_holds_up_is_worked_out_once_and_answered(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, waits = sizing_desk(home), []
    plain, drafts = SizingDesk.record, SizingDesk.drafts

    def record(desk: SizingDesk, made: Any, *, wait: bool = True) -> Any:
        waits.append(wait)
        if not wait:
            raise WouldWait
        return plain(desk, made, wait=wait)

    worked_out = []
    monkeypatch.setattr(SizingDesk, "record", record)
    monkeypatch.setattr(SizingDesk, "drafts", lambda *asked: worked_out.append(1) or drafts(*asked))
    (answer,) = together(sizing_api(desk), [request()])
    assert (answer.status_code, waits, worked_out) == (200, [False, True], [1])
    journal(home).get(answer.json()["decision_id"])


def test_what_cannot_be_journaled_is_refused_by_the_applications_own_way(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = sizing_desk(home)

    def full(*_: Any, **__: Any) -> None:
        raise Unavailable("journal", "free some disk space")

    monkeypatch.setattr(desk, "write", full)
    for answer in together(sizing_api(desk), requests(2)):
        assert (answer.status_code, answer.json()["error"]["field"]) == (503, "journal")


def test_the_longest_request_with_features_takes_the_short_way_and_the_fewest_bars_do_not() -> None:
    assert len(json.dumps(request())) * 2 < LARGEST_DIRECT_BODY
    assert len(json.dumps(request(market={"features": None, "bars": bar_rows(101)}))) > LARGEST_DIRECT_BODY
