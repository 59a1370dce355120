"""The three applications on a real Ray Serve behind HAProxy: one server for the whole module."""

import hashlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

import cli.registry
from features.spec import FEATURE_NAMES
from market.errors import ConfigError
from mlops.drift_metrics import write_metrics
from mlops.registry import Registry
from policies.bundle import BundleError
from serving.client import BallastClient, Refused
from serving.launch import Server, free_port, port_to_serve_on, processes_of, start
from serving.schemas import FeaturesRequest, NarrativeRequest, SizingRequest, StreamUpdate
from tests.serving_bundles import bar_rows, request, saved
from tests.test_mlops_drift_metrics import report
from tests.test_serving_telemetry import EXPORTED, queried

pytestmark = pytest.mark.timeout(400)

KEY = "key-7f3a-of-a-desk"
OWN_LABELS = {"application", "action", "binding_rule", "source", "request", "code", "kind", "writer"}


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
    home = tmp_path_factory.mktemp("home")
    write_metrics(home, report(True))
    return home


def free_port_to_serve_on() -> int:
    """One that has free beside it all that serving needs."""
    while True:
        with suppress(ConfigError):
            return port_to_serve_on(free_port())


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    port = free_port_to_serve_on()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
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


def test_a_connection_keeps_to_one_replica_and_others_go_to_all(client: httpx.Client, server: Server) -> None:
    for name in ("features", "sizing", "narratives"):
        # Some rounds: a connection may have to be opened again. By turns no round would have one alone.
        rounds = [{client.get(f"/{name}/healthz").json()["replica"] for _ in range(10)} for _ in range(5)]
        assert 1 in map(len, rounds)
        others = {httpx.get(f"{server.url}/{name}/healthz").json()["replica"] for _ in range(30)}
        assert len(others) == 2


def test_a_stream_is_carried_on_by_whichever_replica_is_asked(server: Server) -> None:
    rows = bar_rows(130)
    replicas, seen = set(), 0
    while seen < 130:
        bars = rows[:110] if seen == 0 else rows[seen : seen + 1]
        update = StreamUpdate.model_validate({"symbol": "EURUSD", "bars": bars, "seen": seen})
        with BallastClient(server.url) as loop:  # another connection, to either replica
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


@pytest.mark.parametrize("stated", [True, False])
def test_large_body_is_refused_stated_or_not(server: Server, stated: bool) -> None:
    body = b"x" * 3_000_000

    def answered() -> int | None:
        """None where the server hung up while the body was still on its way: the answer may be lost then."""
        content = body if stated else iter([body[:1_000_000]] * 3)
        try:
            return httpx.post(f"{server.url}/sizing", content=content).status_code
        except httpx.TransportError:
            return None

    assert {answered() for _ in range(5)} - {None} == {413}
    assert httpx.get(f"{server.url}/sizing/healthz").status_code == 200


def scraped(server: Server) -> dict[tuple[str, str], float]:
    """The sum over replicas of each metric, by its name and the values of its own labels."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for family in text_string_to_metric_families(httpx.get(server.metrics).text):
        for sample in family.samples:
            own = [value for name, value in sorted(sample.labels.items()) if name in OWN_LABELS]
            found[sample.name, " ".join(own)] += sample.value
    return found


def settled(server: Server) -> dict[tuple[str, str], float]:
    """`scraped`, once what was asked before is all told."""
    counts: list[dict[tuple[str, str], float]] = [{}, scraped(server)]
    while counts[-1] != counts[-2]:
        time.sleep(2.5)  # a flush and a report are a second apart each
        found = scraped(server)
        counts.append({key: value for key, value in found.items() if key[0].startswith("ray_ballast_dec")})
    return found


def test_known_requests_are_found_in_the_metrics(client: httpx.Client, server: Server) -> None:
    def now() -> dict[tuple[str, str], float]:
        found = scraped(server)
        return {key: found[key] - before[key] for key in expected}

    expected = {
        ("ray_ballast_decisions_total", "STANDARD sizing none rule"): 12.0,
        ("ray_ballast_sizing_seconds_count", "sizing one"): 7.0,
        ("ray_ballast_sizing_seconds_count", "sizing batch"): 1.0,
        ("ray_ballast_journal_wait_seconds_count", "sizing"): 8.0,
        ("ray_ballast_journal_wait_seconds_count", "narratives"): 1.0,
        ("ray_ballast_refusals_total", "sizing 422"): 2.0,
        ("ray_ballast_refusals_total", "sizing 413"): 1.0,
        ("ray_ballast_refusals_total", "features 422"): 1.0,
        ("ray_ballast_features_seconds_count", "features bars"): 1.0,
        ("ray_ballast_narratives_total", "narratives trade_rationale template"): 1.0,
        ("ray_ballast_narrative_seconds_count", "narratives"): 1.0,
    }
    before = settled(server)
    sizes = [client.post("/sizing", json=request()).json() for _ in range(7)]
    client.post("/sizing/batch", json={"requests": [request()] * 5})
    client.post("/sizing", json={})
    client.post("/sizing", content="{")
    # Refused before all is sent: the answer may be lost with the rest.
    with suppress(httpx.RemoteProtocolError):
        client.post("/sizing", content=b"x" * 3_000_000)
    client.post("/features", json={"bars": bar_rows(100)})
    client.post("/features", json={"bars": bar_rows(150)})
    client.post("/narratives", json={"kind": "trade_rationale", "decision_id": sizes[0]["decision_id"]})
    deadline = time.monotonic() + 60.0
    while now() != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    assert now() == expected
    names = {name for name, _ in scraped(server)}
    unseen = {"ray_ballast_narrative_fallbacks_total"}  # nothing fell back
    while queried() - names != unseen and time.monotonic() < deadline:  # Serve tells its own now and then
        time.sleep(0.5)
        names |= {name for name, _ in scraped(server)}
    assert queried() - names == unseen, "a panel of the dashboard stays empty"
    ours = {name for name in names if name.startswith("ray_ballast_") and not name.endswith("_created")}
    assert ours <= EXPORTED
    alarms = "ray_ballast_drift_alarm", "sizing"
    while (seen := scraped(server)[alarms]) != 2.0 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert seen == 2.0, "each replica has read the newest check"


def test_each_size_has_one_line_beside_serves_log(client: httpx.Client, server: Server) -> None:
    answered = client.post("/sizing/batch", json={"requests": [request(account_id="mine")] * 3}).json()
    wanted = [size["decision_id"] for size in answered["answers"]]
    deadline = time.monotonic() + 30.0
    while (found := lines_of(server, wanted[-1])) == [] and time.monotonic() < deadline:
        time.sleep(0.2)
    (line,) = found
    assert (line["message"], line["application"], line["action"]) == ("decision", "sizing", "STANDARD")
    assert line["account"] != "mine"
    for decision_id in wanted:
        assert len(lines_of(server, decision_id)) == 1


def lines_of(server: Server, decision_id: str) -> list[dict[str, Any]]:
    """The lines of our logs with that id."""
    files = [file for file in logs(server) if file.name.endswith(".ballast.log")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines if decision_id in line]


def logs(server: Server) -> list[Path]:
    (folder,) = server.folder.glob("session_2*/logs")
    return [server.folder / "ray.log", *(file for file in folder.rglob("*") if file.is_file())]


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
    hashed = hashlib.sha256(KEY.encode()).hexdigest()
    (home / "keys.json").write_text(json.dumps({"keys": [{"name": "desk", "sha256": hashed}]}))
    for path in ("/sizing/docs", "/features/openapi.json", "/narratives/healthz"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"authorization": f"Bearer {KEY}"}).status_code == 200
    assert client.post("/sizing", json=request()).status_code == 401


def test_no_key_and_no_token_is_in_any_log(client: httpx.Client, server: Server, home: Path) -> None:
    headers = {"x-api-key": KEY}
    wrong = "wrong-key-91c4"
    assert client.post("/sizing", json=request(), headers={"x-api-key": wrong}).status_code == 401
    assert client.post("/sizing", json=request(**{KEY: KEY}), headers=headers).status_code == 422
    assert client.post(f"/sizing?key={KEY}", content=KEY, headers=headers).status_code == 422
    last = client.post("/sizing", json=request(), headers=headers).json()["decision_id"]
    deadline = time.monotonic() + 30.0
    while not lines_of(server, last) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert lines_of(server, last)
    assert server.token is not None
    for secret in (KEY, wrong, server.token):
        assert [file.name for file in logs(server) if secret.encode() in file.read_bytes()] == []
