"""The three applications on a real Ray Serve behind HAProxy: one server for the whole module."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import cli.registry
from features.spec import FEATURE_NAMES
from mlops.registry import Registry
from policies.bundle import BundleError
from serving.client import BallastClient, Refused
from serving.launch import Server, processes_of, start
from serving.schemas import FeaturesRequest, NarrativeRequest, SizingRequest, StreamUpdate
from tests.serving_bundles import bar_rows, request, saved

pytestmark = pytest.mark.timeout(400)


def commands_of(server: Server) -> dict[int, str]:
    """Command lines of the server's processes by their ids."""
    numbers = processes_of(server.folder)
    files = [Path("/proc") / str(number) / "cmdline" for number in numbers]
    return {
        n: file.read_bytes().replace(b"\0", b" ").decode() for n, file in zip(numbers, files, strict=True)
    }


def replicas_of(server: Server) -> set[int]:
    return {number for number, command in commands_of(server).items() if "ServeReplica" in command}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = start(home, port=port, replicas=2)
    try:
        assert any("haproxy" in command for command in commands_of(running).values())
        yield running
    finally:
        running.stop()
    assert processes_of(running.folder) == []
    assert not running.folder.exists()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        yield client


def test_without_a_model_the_rules_tier_is_answered(client: httpx.Client) -> None:
    answer = client.post("/sizing", json=request())
    assert answer.status_code == 200
    size = answer.json()
    assert (size["action"], size["multiplier"], size["source"]) == ("STANDARD", 1.0, "rule")
    assert size["model_status"] == "no model is served"


def test_three_endpoints_answer_one_after_the_other(client: httpx.Client) -> None:
    features = client.post("/features", json={"symbol": "EURUSD", "bars": bar_rows(150)}).json()
    assert list(features["features"]) == list(FEATURE_NAMES)
    assert features["bars_seen"] == 150
    size = client.post("/sizing", json=request(market={"features": features["features"]})).json()
    story = client.post("/narratives", json={"kind": "trade_rationale", "decision_id": size["decision_id"]})
    assert story.status_code == 200
    assert "EURUSD" in story.json()["text"]
    told = {"kind": "trade_rationale", "decision_id": size["decision_id"], "stream": True}
    with client.stream("POST", "/narratives", json=told) as events:
        assert events.headers["content-type"] == "text/event-stream; charset=utf-8"
        *pieces, last = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
    assert "".join(piece["text"] for piece in pieces) == last["text"] == story.json()["text"]
    assert client.get("/sizing/models").json() == []


def test_documents_and_health_are_served(client: httpx.Client) -> None:
    for name in ("features", "sizing", "narratives"):
        assert client.get(f"/{name}/healthz").json()["status"] == "ok"
        assert client.get(f"/{name}/docs").status_code == 200
        document = client.get(f"/{name}/openapi.json").json()
        assert document["servers"] == [{"url": f"/{name}"}]


def test_a_stream_is_carried_on_by_whichever_replica_is_asked(server: Server) -> None:
    rows = bar_rows(130)
    replicas, seen = set(), 0
    while seen < 130:
        bars = rows[:110] if seen == 0 else rows[seen : seen + 1]
        update = StreamUpdate.model_validate({"symbol": "EURUSD", "bars": bars, "seen": seen})
        with BallastClient(server.url) as loop:  # a connection may stay with its replica
            streamed = loop.feed_stream("a", update)
            replicas.add(loop.features_health().replica)
        seen = streamed.bars_seen
    assert len(replicas) == 2
    with BallastClient(server.url) as loop:
        whole = loop.features(FeaturesRequest.model_validate({"symbol": "EURUSD", "bars": rows}))
        assert streamed.features == whole.features
        loop.drop_stream("a")
        size = loop.size(SizingRequest.model_validate(request()))
        story = NarrativeRequest(kind="trade_rationale", decision_id=size.decision_id)
        assert "EURUSD" in loop.narrate(story).text
        with pytest.raises(Refused, match="no such stream"):
            loop.stream("a")


def nan(body: dict[str, Any]) -> str:
    return json.dumps(body).replace("1.105", "NaN", 1)


@pytest.mark.parametrize(
    ("path", "content", "field"),
    [
        ("/sizing", nan(request()), "signal.price"),
        ("/sizing", json.dumps(request(surprise=1)), "surprise"),
        ("/sizing", json.dumps(request(account={"equity": "much"})), "account.equity"),
        ("/sizing", json.dumps(request(signal={"stop": 2.0})), "signal.stop"),
        ("/sizing", json.dumps(request(account_id="../keys")), "account_id"),
        ("/features", json.dumps({"bars": bar_rows(100)}), "bars"),
        ("/narratives", json.dumps({"kind": "trade_rationale"}), "context"),
        ("/narratives", "{", "body"),
    ],
)
def test_bad_input_gets_422_with_field_and_mend(
    client: httpx.Client, path: str, content: str, field: str
) -> None:
    answer = client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["field"] == field
    assert answer.json()["error"]["mend"]
    assert len(answer.content) < 400


def test_large_body_is_refused_stated_or_not(client: httpx.Client) -> None:
    body = b"x" * 3_000_000
    assert client.post("/sizing", content=body).status_code == 413
    assert client.post("/sizing", content=iter([body[:1_000_000]] * 3)).status_code == 413
    assert client.get("/sizing/healthz").status_code == 200


def test_another_bundle_is_swapped_in_while_serving(client: httpx.Client, server: Server, home: Path) -> None:
    before = replicas_of(server)
    first, second = saved(home, 0, favourite=1), saved(home, 1, favourite=5)
    for folder, status, action in ((first, "STAGING", "MICRO"), (second, "PRODUCTION", "AGGRESSIVE")):
        server.swap(folder, status)
        size = client.post("/sizing", json=request()).json()
        assert (size["action"], size["model_status"], size["bundle"]) == (action, status, folder.name)
    third = saved(home, 2)
    (third / "bundle.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match="altered"):
        server.swap(third, "PRODUCTION")
    assert client.post("/sizing", json=request()).json()["bundle"] == second.name
    server.swap(None, None)
    assert client.post("/sizing", json=request()).json()["source"] == "rule"
    assert len(before) == 6
    assert replicas_of(server) == before, "a replica was started anew"


def test_no_request_fails_while_versions_are_promoted_and_rolled_back(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [saved(home, seed, favourite=tier) for seed, tier in ((0, 1), (1, 5))]
    registry = Registry(home)
    for folder in folders:
        registry.register(folder.name, folder)
    monkeypatch.setenv("BALLAST_HOME", str(home))
    monkeypatch.setenv("RAY_AUTH_TOKEN", str(server.token))
    stop, answers = threading.Event(), list[httpx.Response | Exception]()

    def load() -> None:
        with httpx.Client(base_url=server.url, timeout=30.0) as client:
            while not stop.wait(0.02):
                try:
                    answers.append(client.post("/sizing", json=request()))
                except httpx.HTTPError as error:
                    answers.append(error)

    clients = [threading.Thread(target=load) for _ in range(4)]
    for each in clients:
        each.start()
    try:
        for words in (
            ("promote", "1", "--override", "a test"),
            ("promote", "2", "--override", "a test"),
            ("rollback",),
            ("rollback",),
        ):
            swapped = CliRunner().invoke(cli.registry.app, [*words, "--serve", server.dashboard])
            assert swapped.exit_code == 0, swapped.output
            assert "2 of 2 replicas answer from it" in swapped.output
    finally:
        stop.set()
        for each in clients:
            each.join()
    failed = [answer for answer in answers if isinstance(answer, Exception) or answer.status_code != 200]
    assert failed == []
    sizes = [(answer.json()["bundle"], answer.json()["multiplier"]) for answer in answers]  # type: ignore[union-attr]
    # Before, after and between: each from one bundle whole, and both were seen.
    assert set(sizes) - {(None, 1.0)} == {(folders[0].name, 0.25), (folders[1].name, 1.5)}
    assert sizes[-1] == (folders[1].name, 1.5)


def test_a_key_is_asked_for_as_soon_as_there_is_a_keys_file(client: httpx.Client, home: Path) -> None:
    import hashlib

    hashed = hashlib.sha256(b"secret").hexdigest()
    (home / "keys.json").write_text(json.dumps({"keys": [{"name": "desk", "sha256": hashed}]}))
    for path in ("/sizing/docs", "/features/openapi.json", "/narratives/healthz"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"authorization": "Bearer secret"}).status_code == 200
    assert client.post("/sizing", json=request()).status_code == 401
