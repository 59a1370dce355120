"""The chaos benchmark counts right: what its clients tell, what its audit finds, whom it kills."""

import copy
import os
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks import chaos
from benchmarks._chaos_audit import audit
from benchmarks._chaos_load import Answered, Client, Tally
from serving.schemas import SizingRequest
from serving.sizing_desk import SizingDesk
from tests.serving_bundles import request


@pytest.fixture
def answered(home: Path) -> list[Answered]:
    """Six sizes of one account, every second one reserved."""
    desk, found = SizingDesk(), []
    desk.deploy({"home": str(home)})
    for number in range(6):
        key = f"chaos-{number}" if number % 2 else None
        reserve = {"key": key, "seconds": 3_600.0} if key else None
        asked = SizingRequest.model_validate(request(account_id="desk-0", reserve=reserve))
        found.append(Answered("desk-0", key, desk.decide(asked)))
    return found


def test_audit_of_a_whole_journal_and_budget_finds_nothing(home: Path, answered: list[Answered]) -> None:
    assert audit(home, answered, []) == (6, 6, 0, 0, 0, 0)
    assert audit(home, answered[:3], ["chaos-3", "chaos-5", "never-made"]) == (3, 6, 0, 0, 0, 0)


def changed(one: Answered, **values: Any) -> Answered:
    return Answered(one.account, one.key, copy.deepcopy(one.size) | values)


@pytest.mark.parametrize(
    ("number", "values", "field"),
    [
        (0, {"decision_id": "never-written"}, "acknowledged_lost"),
        (0, {"multiplier": 0.5}, "acknowledged_lost"),
        (0, {"rule_cap": 0.9}, "limit_breaches"),
        (1, {"reservation": None}, "budget_differences"),
        (1, {"reservation": {"state": "reserved", "risk": 0.011}}, "budget_differences"),
        (1, {"reservation": {"state": "released", "risk": 0.01}}, "budget_differences"),
    ],
)
def test_audit_finds_what_is_not_as_it_was_told(
    home: Path, answered: list[Answered], number: int, values: dict[str, Any], field: str
) -> None:
    answered[number] = changed(answered[number], **values)
    found = audit(home, answered, [])._asdict()
    assert found[field] > 0
    others = {"acknowledged_lost", "chain_faults", "limit_breaches", "budget_differences"} - {field}
    assert all(found[name] == 0 for name in others)


def test_audit_finds_a_reservation_that_nobody_was_told_of(home: Path, answered: list[Answered]) -> None:
    assert audit(home, answered[:5], []).budget_differences == 1


def test_audit_finds_a_broken_chain_and_a_size_above_its_cap(home: Path, answered: list[Answered]) -> None:
    with sqlite3.connect(home / "journal" / "journal.db") as database:
        for (trigger,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute(
            """UPDATE records SET payload = replace(payload, '"multiplier":1.0', '"multiplier":1.6')
            WHERE record_id = ?""",
            [answered[0].size["decision_id"]],
        )
    found = audit(home, answered, [])
    assert (found.acknowledged_lost, found.chain_faults, found.limit_breaches) == (1, 1, 1)


@pytest.fixture
def answers() -> list[int]:
    return []


@pytest.fixture
def url(answers: list[int]) -> Iterator[str]:
    """A server that gives `answers` one after the other, 0 being a connection that is closed."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if not (status := answers.pop(0)):
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("content-length", "2")
            self.send_header("retry-after", "0")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("given", "counts", "why"),
    [
        ([200], (1, 0, 0, 0), {}),
        ([429, 0, 200], (1, 2, 1, 0), {"429": 1, "RemoteDisconnected": 1}),
        ([503, 422], (1, 2, 0, 1), {"503": 1, "422": 1}),
    ],
)
def test_client_asks_again_until_it_is_answered_or_refused_for_good(
    url: str, answers: list[int], given: list[int], counts: tuple[int, ...], why: dict[str, int]
) -> None:
    answers += given
    client, tally = Client(url, "key"), Tally()
    assert (client.ask("/sizing", b"{}", tally) is not None) == (given[-1] == 200)
    client.close()
    assert (tally.sent, tally.failed, tally.retried, tally.lost) == counts
    assert dict(tally.why) == why
    assert answers == []


def test_silence_is_the_longest_time_without_an_answer_within_the_fault() -> None:
    assert Tally(answered=[3.0, 1.0, 9.5, 12.0]).figures(0.5, 10.0)["silence_s"] == 6.5
    assert Tally().figures(0.0, 7.0)["silence_s"] == 7.0


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="tells locks by Linux's /proc/locks")
def test_the_writer_is_whoever_is_in_the_middle_of_a_transaction(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "j.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (x)")
    lock = (tmp_path / "j.db-shm").stat().st_ino
    assert chaos._holder(lock) is None
    connection.execute("BEGIN IMMEDIATE")
    assert chaos._holder(lock) == os.getpid()
    connection.execute("COMMIT")
    assert chaos._holder(lock) is None
    connection.close()
