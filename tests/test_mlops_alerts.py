"""Webhooks against a real server that answers, fails, hangs, trickles or is not there."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from market.errors import ConfigError
from mlops import alerts
from mlops.alerts import Webhook, deliver


class Desk(ThreadingHTTPServer):
    """A webhook's other end: remembers what it was told, behaves as `answers` says, one after the other."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[dict[str, Any]] = []
        self.answers: list[int | str] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Desk

    def do_POST(self) -> None:
        assert self.headers["Content-Type"] == "application/json"
        assert self.headers["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answer = self.server.answers.pop(0) if self.server.answers else 200
        if answer == "hang":
            self.server.released.wait(30)
        elif answer == "trickle":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.server.released.wait(0.1):
                self.wfile.write(b"X-More: 1\r\n")
        elif answer == "nonsense":
            self.wfile.write(b"\x00\x01 no http\r\n\r\n")
        else:
            self.send_response(int(answer))
            if answer == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(alerts, "PAUSE", 0.01)
    monkeypatch.setattr(alerts, "TIMEOUT", 0.3)
    server = Desk()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def test_an_alarm_arrives_once_as_json(desk: Desk) -> None:
    assert deliver(desk.url, {"alarms": ["drift"], "bundle": "d"}) is None
    assert desk.got == [{"alarms": ["drift"], "bundle": "d"}]


def test_a_server_that_fails_twice_is_told_at_the_third_attempt(desk: Desk) -> None:
    desk.answers = [500, 503]
    assert deliver(desk.url, {}) is None
    assert len(desk.got) == 3


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ([500] * 9, "it answered 500"),
        ([302] * 9, "it answered 302"),
        (["nonsense"] * 9, ""),
        (["hang"] * 9, ""),
    ],
)
def test_a_server_that_never_accepts_is_given_up_after_three_attempts(
    desk: Desk, answers: list[int | str], fault: str
) -> None:
    desk.answers = answers
    said = deliver(desk.url, {})
    assert said is not None
    assert fault in said
    assert len(desk.got) == 3


def test_a_server_that_trickles_is_left_at_the_deadline(desk: Desk) -> None:
    desk.answers = ["trickle"] * 9
    said = deliver(desk.url, {}, deadline=0.6)
    assert said == "no answer within 0.6 s"
    assert len(desk.got) == 1


def test_nobody_listening_is_said_and_raises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "PAUSE", 0.01)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        hook = Webhook(f"http://127.0.0.1:{taken.getsockname()[1]}", tmp_path / "told.json")
        assert hook.tell("drift", {}).startswith("webhook not reached: ")
    assert not (tmp_path / "told.json").exists()


def test_the_same_alarm_is_told_again_only_after_the_cooldown(desk: Desk, tmp_path: Path) -> None:
    hook = Webhook(desk.url, tmp_path / "told.json", cooldown=60.0)
    now = time.time()
    assert hook.tell("drift", {}, now) == "webhook told"
    again = Webhook(desk.url, tmp_path / "told.json", cooldown=60.0)  # another process
    assert again.tell("drift", {}, now + 59.0) == "webhook told 1 minutes ago already"
    assert again.tell("performance", {}, now + 59.0) == "webhook told"
    assert again.tell("drift", {}, now + 60.0) == "webhook told"
    assert len(desk.got) == 3
    assert "secret" not in (tmp_path / "told.json").read_text()


def test_an_alarm_that_did_not_arrive_has_no_cooldown(desk: Desk, tmp_path: Path) -> None:
    hook = Webhook(desk.url, tmp_path / "told.json")
    desk.answers = [500, 500, 500]
    assert "500" in hook.tell("drift", {})
    assert hook.tell("drift", {}) == "webhook told"


def test_a_clock_that_stepped_back_and_a_broken_note_silence_nothing(desk: Desk, tmp_path: Path) -> None:
    note = tmp_path / "told.json"
    hook = Webhook(desk.url, note, cooldown=60.0)
    hook.tell("drift", {}, 1_000_000.0)
    assert hook.tell("drift", {}, 1.0) == "webhook told"
    note.write_text("{")
    assert hook.tell("drift", {}, 2.0) == "webhook told"


def test_a_note_that_cannot_be_written_breaks_nothing(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    hook = Webhook(desk.url, tmp_path / "file" / "told.json")
    assert "told again" in hook.tell("drift", {})


@pytest.mark.parametrize("url", ["ftp://desk/x", "file:///etc/passwd", "desk", "http://", "http://[x"])
def test_what_is_no_web_address_is_refused_without_showing_it(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--webhook") as refusal:
        Webhook(url, tmp_path / "told.json")
    assert "passwd" not in str(refusal.value)
