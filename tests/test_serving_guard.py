"""The door: keys on every path, an end to every body."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from starlette.types import Message

from serving.guard import SLOW_BODIES, Guard
from serving.keys import KEYS_VARIABLE, Keys
from tests.serving_client import ask

HASHED = hashlib.sha256(b"secret").hexdigest()
BEARER = {"authorization": "Bearer secret"}


def keys_file(home: Path, *keys: str) -> Path:
    path = home / "keys.json"
    entries = [
        {"name": f"key {i}", "sha256": hashlib.sha256(key.encode()).hexdigest()} for i, key in enumerate(keys)
    ]
    path.write_text(json.dumps({"keys": entries}))
    return path


def guarded(keys: Keys, largest_body: int = 100) -> FastAPI:
    api = FastAPI()
    api.add_middleware(Guard, keys=lambda: keys, largest_body=largest_body)

    @api.post("/length")
    async def length(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    return api


def test_without_keys_no_key_is_asked_for(home: Path) -> None:
    keys = Keys(home, {})
    assert not keys.required()
    assert ask(guarded(keys), "POST", "/length", content=b"abc").text == "3"


@pytest.mark.parametrize("path", ["/length", "/docs", "/redoc", "/openapi.json", "/nowhere", "/"])
def test_key_is_asked_for_on_every_path_documents_included(home: Path, path: str) -> None:
    keys_file(home, "secret")
    api = guarded(Keys(home, {}))
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic secret"},
        {"x-api-key": ""},
    ):
        answer = ask(api, "GET", path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["field"] == "key"
    assert ask(api, "GET", path, headers=BEARER).status_code in (200, 404, 405)


@pytest.mark.parametrize("headers", [BEARER, {"authorization": "bearer secret"}, {"x-api-key": "secret"}])
def test_key_comes_as_bearer_or_in_its_own_header(home: Path, headers: dict[str, str]) -> None:
    keys = Keys(home, {KEYS_VARIABLE: f" {HASHED.upper()} , {'0' * 64}"})
    assert ask(guarded(keys), "POST", "/length", headers=headers).status_code == 200


def test_keys_are_several_and_revocable_while_running(home: Path) -> None:
    keys_file(home, "secret", "other")
    keys = Keys(home, {})
    found = [keys.find(key) for key in (b"secret", b"other", b"third", b"")]
    assert [key and key.name for key in found] == ["key 0", "key 1", None, None]
    keys_file(home, "other").touch()
    assert [keys.find(key) is not None for key in (b"secret", b"other")] == [False, True]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"keys": []}', '{"keys": [{"name": "a", "sha256": "secret"}]}']
)
def test_keys_file_that_cannot_be_used_shuts_the_door(home: Path, content: str) -> None:
    (home / "keys.json").write_text(content)
    keys = Keys(home, {})
    assert keys.required()
    assert not keys.find(b"secret")
    assert ask(guarded(keys), "POST", "/length", headers=BEARER).status_code == 401


def test_keys_file_that_vanishes_shuts_the_door(home: Path) -> None:
    path = keys_file(home, "secret")
    keys = Keys(home, {})
    assert keys.find(b"secret")
    path.unlink()
    assert keys.required()
    assert not keys.find(b"secret")


def test_keys_file_written_later_counts(home: Path) -> None:
    keys = Keys(home, {})
    assert not keys.required()
    keys_file(home, "secret")
    assert keys.required()
    assert keys.find(b"secret")


@pytest.mark.parametrize(("size", "status"), [(0, 200), (100, 200), (101, 413), (10_000, 413)])
def test_body_ends_at_the_cap(home: Path, size: int, status: int) -> None:
    answer = ask(guarded(Keys(home, {})), "POST", "/length", content=b"x" * size)
    assert answer.status_code == status
    if status == 200:
        assert answer.text == str(size)
    else:
        assert answer.json()["error"] == {"field": "body", "mend": "send at most 100 bytes"}


@pytest.mark.parametrize(("chunks", "status"), [(10, 200), (11, 413), (1000, 413)])
def test_body_without_a_stated_length_ends_at_the_cap(home: Path, chunks: int, status: int) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(chunks):
            yield b"x" * 10

    assert ask(guarded(Keys(home, {})), "POST", "/length", content=body()).status_code == status


class Wire:
    """A connection whose every message is counted."""

    def __init__(self, chunks: int) -> None:
        self.left, self.read, self.sent = chunks, 0, list[Message]()

    async def receive(self) -> Message:
        self.read += 1
        self.left -= 1
        return {"type": "http.request", "body": b"x" * 10, "more_body": self.left > 0}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


def drive(guard: Guard, wire: Wire, headers: list[tuple[bytes, bytes]], kind: str = "http") -> None:
    scope: dict[str, Any] = {"type": kind, "method": "POST", "path": "/length", "headers": headers}
    asyncio.run(guard(scope, wire.receive, wire.send))


async def unreachable(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the application was reached")


@pytest.mark.parametrize("length", [b"101", b"9" * 5000])
def test_too_large_a_stated_length_is_refused_unread(home: Path, length: bytes) -> None:
    wire = Wire(1000)
    drive(Guard(unreachable, lambda: Keys(home, {}), 100), wire, [(b"content-length", length)])
    assert (wire.read, wire.sent[0]["status"]) == (0, 413)


def test_too_large_a_stream_is_read_no_further_than_the_cap(home: Path) -> None:
    wire = Wire(1000)
    drive(Guard(unreachable, lambda: Keys(home, {}), 100), wire, [])
    assert (wire.read, wire.sent[0]["status"]) == (11, 413)


def test_without_a_key_nothing_is_read(home: Path) -> None:
    keys_file(home, "secret")
    wire = Wire(1000)
    drive(Guard(unreachable, lambda: Keys(home, {}), 100), wire, [])
    assert (wire.read, wire.sent[0]["status"]) == (0, 401)


@pytest.mark.parametrize("length", [b"-1", b"ten", b"", b"1e3"])
def test_length_that_is_no_number_is_refused(home: Path, length: bytes) -> None:
    wire = Wire(1)
    drive(Guard(unreachable, lambda: Keys(home, {}), 100), wire, [(b"content-length", length)])
    assert wire.sent[0]["status"] == 400


def test_a_few_slow_bodies_are_waited_for_and_the_others_hold_no_place(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as many as are waited for: half of them come whole when the other half have been sent away."""
    monkeypatch.setattr("serving.guard.SOON", 0.05)
    sent, reached = dict[int, Message](), list[bytes]()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        reached.append((await receive())["body"])

    async def drive_all() -> None:
        guard, refused = Guard(application, lambda: Keys(home, {})), asyncio.Event()

        async def one(number: int) -> None:
            parts = asyncio.Queue[Message]()
            parts.put_nowait({"type": "http.request", "body": b"half ", "more_body": True})

            async def receive() -> Message:
                if parts.empty():
                    await refused.wait()
                    parts.put_nowait({"type": "http.request", "body": b"%d" % number, "more_body": False})
                return parts.get_nowait()

            async def send(message: Message) -> None:
                sent.setdefault(number, message)
                if len(sent) == SLOW_BODIES:
                    refused.set()

            await guard({"type": "http", "headers": []}, receive, send)

        await asyncio.gather(*(one(number) for number in range(2 * SLOW_BODIES)))
        quick = Wire(3)
        await guard({"type": "http", "headers": []}, quick.receive, quick.send)

    asyncio.run(drive_all())
    assert {message["status"] for message in sent.values()} == {429}
    headers = dict(sent[next(iter(sent))]["headers"])
    assert (headers[b"retry-after"], headers[b"connection"]) == (b"1", b"close")
    whole = {b"half %d" % number for number in range(2 * SLOW_BODIES) if number not in sent}
    assert len(whole) == SLOW_BODIES
    assert set(reached) == whole | {b"x" * 30}


def test_websocket_is_closed(home: Path) -> None:
    wire = Wire(1)
    drive(Guard(unreachable, lambda: Keys(home, {})), wire, [], kind="websocket")
    assert wire.sent == [{"type": "websocket.close", "code": 1008}]
