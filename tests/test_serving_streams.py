"""Feature streams over HTTP, carried on by whichever replica is asked: bits, order, repetition, bounds."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine, make_url, text

import features.stream
from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES, fingerprint
from serving import stream_store
from serving.answers import StreamAnswer
from serving.feature_desk import FeatureDesk
from serving.feature_service import feature_api
from serving.refusals import OutOfStep
from serving.schemas import FeaturesRequest, StreamUpdate, bars_of
from serving.stream_store import Kept, StreamStore, TooMany
from tests.serving_bundles import bar_rows
from tests.serving_client import ask

ROWS = bar_rows(260)
DAY = 86_400_000_000_000


def desk(home: Path) -> FeatureDesk:
    made = FeatureDesk()
    made.deploy({"home": str(home)})
    assert made.refused is None
    return made


@cache
def api_of(made: FeatureDesk) -> FastAPI:
    return feature_api(made)


def update(
    first: int, last: int, rows: list[dict[str, Any]] = ROWS, symbol: str = "EURUSD"
) -> dict[str, Any]:
    return {"symbol": symbol, "bars": rows[first:last], "seen": first}


def post(made: FeatureDesk, body: dict[str, Any], key: str = "", name: str = "a") -> httpx.Response:
    headers = {"x-api-key": key} if key else {}
    return ask(api_of(made), "POST", f"/streams/{name}", json=body, headers=headers)


def test_alternating_replicas_give_the_bits_of_the_batch(home: Path) -> None:
    desks = [desk(home), desk(home)]
    rows = FeaturesRequest.model_validate({"bars": ROWS}).bars
    matrix = FeaturePipeline().matrix(bars_of("EURUSD", rows))
    cuts = [0, 1, 2, 60, 100, *range(101, 121), 190, 191, 260]
    for number, (first, last) in enumerate(pairwise(cuts)):
        answer = post(desks[number % 2], update(first, last))
        assert answer.status_code == 200, answer.text
        found = StreamAnswer.model_validate(answer.json())
        assert (found.bars_seen, found.bars_needed) == (last, max(101 - last, 0))
        assert (found.symbol, found.stream_id, found.fingerprint) == ("EURUSD", "a", fingerprint())
        assert answer.json() == ask(api_of(desks[0]), "GET", "/streams/a").json()
        if last < 101:
            assert answer.json()["features"] is None
        else:
            row = np.array([answer.json()["features"][name] for name in FEATURE_NAMES])
            assert row.tobytes() == matrix[last - 1].tobytes()
    whole = ask(api_of(desks[0]), "POST", "/", json={"symbol": "EURUSD", "bars": ROWS}).json()
    assert whole["features"] == answer.json()["features"]


def test_an_update_sent_again_is_answered_as_it_was_and_seen_once(home: Path) -> None:
    desks = [desk(home), desk(home)]
    post(desks[0], update(0, 101))
    first = post(desks[0], update(101, 104))
    again = post(desks[1], update(101, 104))
    assert (again.status_code, again.content) == (200, first.content)
    assert post(desks[1], update(104, 105)).json()["bars_seen"] == 105


def test_other_bars_in_the_place_of_seen_ones_are_refused_with_the_number_of_bars_seen(home: Path) -> None:
    one = desk(home)
    post(one, update(0, 101))
    post(one, update(101, 102))
    other = [*ROWS[:101], {**ROWS[101], "volume": 7.0}]
    for body in (update(101, 102, other), update(0, 101), update(103, 104), update(0, 1)):
        answer = post(one, body)
        assert answer.status_code == 409
        assert answer.json()["error"] == {
            "field": "seen",
            "value": body["seen"],
            "mend": "the stream has seen 102 bars: send those that follow them, with seen 102",
            "bars_seen": 102,
        }
    assert post(one, update(102, 103)).status_code == 200


def test_of_two_concurrent_updates_one_is_taken_and_the_other_told_to_look(home: Path) -> None:
    """Both read the stream before either writes: the second to write must notice."""
    slow, quick = desk(home), desk(home)
    post(slow, update(0, 101))
    other = [*ROWS[:101], {**ROWS[101], "volume": 7.0}, *ROWS[102:]]
    put = slow.streams.put

    def overtaken(*given: Any) -> bool:
        assert post(quick, update(101, 102, other)).status_code == 200
        return put(*given)

    slow.streams.put = overtaken  # type: ignore[method-assign]
    lost = post(slow, update(101, 102))
    assert (lost.status_code, lost.json()["error"]["bars_seen"]) == (409, 102)
    slow.streams.put = put  # type: ignore[method-assign]
    answer = post(slow, update(102, 103, other))
    rows = FeaturesRequest.model_validate({"bars": other}).bars
    matrix = FeaturePipeline().matrix(bars_of("EURUSD", rows))
    assert list(answer.json()["features"].values()) == matrix[102].tolist()


@pytest.mark.parametrize("begun", [True, False])
def test_the_same_update_sent_twice_at_once_has_one_answer(home: Path, begun: bool) -> None:
    slow, quick = desk(home), desk(home)
    first = 101 if begun else 0
    if begun:
        post(slow, update(0, 101))
    put, answers = slow.streams.put, list[httpx.Response]()

    def overtaken(*given: Any) -> bool:
        answers.append(post(quick, update(first, first + 2)))
        return put(*given)

    slow.streams.put = overtaken  # type: ignore[method-assign]
    late = post(slow, update(first, first + 2))
    assert (late.status_code, late.content) == (200, answers[0].content)


def test_many_threads_feed_one_stream_and_no_bar_is_seen_twice(home: Path) -> None:
    desks = [desk(home) for _ in range(2)]
    body = StreamUpdate.model_validate(update(0, 120))
    desks[0].feed("", "a", body)
    lost: list[int] = []

    def go(worker: int) -> int:
        taken = 0
        while True:
            seen = desks[worker % 2].stream("", "a")["bars_seen"]
            if seen >= 140:
                return taken
            # Each thread has volumes of its own, so that no two updates are equal.
            row = {**ROWS[seen], "volume": float(worker)}
            try:
                desks[worker % 2].feed(
                    "", "a", StreamUpdate.model_validate({"symbol": "EURUSD", "bars": [row], "seen": seen})
                )
                taken += 1
            except OutOfStep:
                lost.append(seen)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(go, range(4))) == 20
    assert all(120 <= seen < 140 for seen in lost)


def test_a_stream_that_is_not_there_is_begun_at_zero_and_only_there(home: Path) -> None:
    one = desk(home)
    assert ask(api_of(one), "GET", "/streams/a").status_code == 404
    answer = post(one, update(5, 6))
    assert (answer.status_code, answer.json()["error"]["bars_seen"]) == (409, 0)
    assert post(one, update(0, 3)).json()["bars_needed"] == 98
    for _ in range(2):
        gone = ask(api_of(one), "DELETE", "/streams/a")
        assert (gone.status_code, gone.content) == (204, b"")
    assert ask(api_of(one), "GET", "/streams/a").status_code == 404
    assert post(one, update(0, 3)).status_code == 200


def test_bad_bars_leave_the_stream_as_it_was(home: Path) -> None:
    one = desk(home)
    post(one, update(0, 101))
    earlier = {"symbol": "EURUSD", "bars": [ROWS[50]], "seen": 101}
    swapped = {"symbol": "EURUSD", "bars": [{**ROWS[101], "low": 2.0}], "seen": 101}
    for body in (earlier, swapped):
        answer = post(one, body)
        assert answer.status_code == 422
        assert answer.json()["error"]["field"].startswith("EURUSD row ")
    wrong = post(one, update(101, 102, symbol="GBPUSD"))
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (409, "symbol")
    assert "bars_seen" not in wrong.json()["error"]
    assert ask(api_of(one), "GET", "/streams/a").json()["bars_seen"] == 101


def test_one_key_neither_reads_nor_feeds_nor_deletes_anothers_stream(home: Path) -> None:
    keys = [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in ("mine", "yours")]
    (home / "keys.json").write_text(json.dumps({"keys": keys}))
    one = desk(home)
    assert post(one, update(0, 101), "mine").status_code == 200
    assert post(one, update(0, 5), "yours").json()["bars_seen"] == 5
    assert post(one, update(101, 102), "mine").json()["bars_seen"] == 102
    ask(api_of(one), "DELETE", "/streams/a", headers={"x-api-key": "yours"})
    for key, status in (("mine", 200), ("yours", 404)):
        found = ask(api_of(one), "GET", "/streams/a", headers={"x-api-key": key})
        assert found.status_code == status


def test_a_stream_of_other_features_is_refused_until_it_is_begun_anew(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = desk(home)
    with monkeypatch.context() as before:
        before.setattr(features.stream, "fingerprint", lambda: "0" * 64)
        post(one, update(0, 101))
    for answer in (post(one, update(101, 102)), ask(api_of(one), "GET", "/streams/a")):
        assert answer.status_code == 409
        assert answer.json()["error"] == {
            "field": "stream_id",
            "value": "a",
            "mend": "the features are defined otherwise since: DELETE it and send its bars again from seen 0",
        }
    assert ask(api_of(one), "DELETE", "/streams/a").status_code == 204
    assert post(one, update(0, 101)).status_code == 200


def test_a_damaged_state_is_refused_not_used(home: Path) -> None:
    one = desk(home)
    post(one, update(0, 101))
    with create_engine(f"sqlite:///{home}/streams/streams.db").begin() as connection:
        connection.execute(text("UPDATE feature_streams SET state = zeroblob(3000)"))
    answer = post(one, update(101, 102))
    assert answer.status_code == 409
    assert "its state cannot be used" in answer.json()["error"]["mend"]


def test_a_store_that_cannot_be_used_is_no_fault_of_the_request(home: Path) -> None:
    (home / "streams").write_text("in the way")
    answer = post(desk(home), update(0, 1))
    assert (answer.status_code, answer.json()["error"]["field"]) == (503, "streams")


@pytest.mark.parametrize("name", ["", ".hidden", "a b", "a" * 65, "ä"])
def test_an_id_is_a_short_plain_name(home: Path, name: str) -> None:
    assert post(desk(home), update(0, 1), name=name).status_code in (404, 422)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """An empty database, of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{home}/streams.db"
        return
    server_url = request.getfixturevalue("postgres_url")
    with psycopg.connect(server_url.replace("+psycopg", ""), autocommit=True) as server:
        server.execute("DROP DATABASE IF EXISTS streams_test WITH (FORCE)")
        server.execute("CREATE DATABASE streams_test")
        yield make_url(server_url).set(database="streams_test").render_as_string(hide_password=False)
        server.execute("DROP DATABASE streams_test WITH (FORCE)")


def store(url: str, clock: list[int]) -> StreamStore:
    return StreamStore(url, clock=lambda: clock[0])


KEPT = Kept(1, "digest", "{}", b"state")


def test_streams_of_an_owner_and_of_a_home_are_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_store, "MOST_OF_ONE", 2)
    monkeypatch.setattr(stream_store, "MOST", 3)
    streams = store(url, [100 * DAY])
    assert all(streams.put("a", name, None, KEPT) for name in ("1", "2"))
    with pytest.raises(TooMany, match="this key has 2 streams"):
        streams.put("a", "3", None, KEPT)
    assert streams.put("b", "1", None, KEPT)
    with pytest.raises(TooMany, match="this home has 3 streams"):
        streams.put("b", "2", None, KEPT)
    assert not streams.put("a", "1", None, KEPT), "it is there already: that is no new one"
    streams.drop("a", "1")
    assert streams.put("b", "2", None, KEPT)


def test_an_idle_stream_is_gone_and_makes_room(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_store, "MOST", 1)
    now = [100 * DAY]
    streams = store(url, now)
    streams.put("a", "1", None, KEPT)
    now[0] += 30 * DAY
    kept = streams.find("a", "1")
    assert kept is not None
    assert kept == KEPT._replace(fed=100 * DAY)
    now[0] += 1
    assert streams.find("a", "1") is None
    assert streams.put("b", "1", None, KEPT)


def test_a_stream_begun_anew_meanwhile_is_another_one(url: str) -> None:
    now = [100 * DAY]
    streams = store(url, now)
    streams.put("a", "1", None, KEPT)
    before = streams.find("a", "1")
    streams.drop("a", "1")
    now[0] += 1
    streams.put("a", "1", None, KEPT)
    assert not streams.put("a", "1", before, KEPT._replace(seen=2))
    assert streams.put("a", "1", streams.find("a", "1"), KEPT._replace(seen=2))


def test_replicas_on_several_machines_share_a_database(
    home: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BALLAST_STREAMS", url)
    desks = [desk(home), desk(home)]
    bodies = [StreamUpdate.model_validate(update(*cut)) for cut in [(0, 101), (101, 102)]]
    for body in bodies:
        with ThreadPoolExecutor(2) as pool:  # the same update, sent twice at once
            answers = list(pool.map(lambda one: one.feed("", "a", body), desks))  # noqa: B023
        assert answers[0] == answers[1]
    assert desks[1].stream("", "a")["bars_seen"] == 102
    assert not (home / "streams").exists()
