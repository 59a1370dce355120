"""The serving benchmark: its load counts what a server does, its own application is deployed as /sizing."""

import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from benchmarks import serving
from benchmarks._empty_app import empty_api
from benchmarks._serving_load import Served, Target, load, load_for
from benchmarks._sizing_market import SizingMarket, saved, sizing_market
from policies.bundle import open_bundle
from serving.cluster import CONFIG
from serving.schemas import SizingBatch
from tests.serving_client import ask


class Counts(BaseHTTPRequestHandler):
    """Answers every third request with 503, and hangs up on paths that say so."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar = itertools.count(1)
    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        number = next(self.asked)
        if self.path == "/hangs-up":
            self.close_connection = True
            return
        self.send_response(503 if number % 3 == 0 else 200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Counts.asked, Counts.bodies = itertools.count(1), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counts)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def market() -> SizingMarket:
    return sizing_market()


def test_every_request_is_counted_as_answered_or_failed(port: int) -> None:
    served = load(Target(port, "/"), itertools.cycle([b"1", b"2", b"3", b"4"]), 2, lambda: True, least=30)
    assert (len(served.latencies), served.failed) == (40, 20)
    assert len(Counts.bodies) == 60
    assert set(Counts.bodies) == {b"1", b"2", b"3", b"4"}
    assert served.per_second == 40 / served.seconds


def test_a_server_that_hangs_up_is_a_failure_and_is_asked_again(port: int) -> None:
    served = load(Target(port, "/hangs-up"), itertools.repeat(b"1"), 1, lambda: True, least=5)
    assert (len(served.latencies), served.failed) == (0, 5)


def test_load_ends_with_its_time(port: int) -> None:
    assert (
        len(load_for(Target(port, "/"), itertools.repeat(b"1"), 3, 0.0).latencies) == 2
    )  # one each, the third is a 503


def test_ratios_are_those_of_one_round_and_the_most_is_that_of_any_number_of_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates = {
        8: {"sizing": [1, 10, 30, 90], "empty": [1, 20, 40, 100], "uvicorn": [1, 5, 15, 45]},
        64: {"sizing": [1, 50, 60, 70], "empty": [1, 20, 30, 100], "uvicorn": [1, 40, 10, 10]},
    }
    coming = {count: {name: iter(each) for name, each in of.items()} for count, of in rates.items()}

    def answered(target: Target, bodies: Iterator[bytes], clients: int, seconds: float) -> Served:
        if clients == 1:
            return Served(1.0, [{"sizing": 0.003, "empty": 0.001, "uvicorn": 0.002}[target.path]] * 3, 0)
        return Served(1.0, [0.0] * next(coming[clients][target.path]), 1)

    monkeypatch.setattr(serving, "load_for", answered)
    figures = serving.compared(
        {name: Target(0, name) for name in rates[8]}, itertools.repeat(b""), [8, 64], 3, 1.0
    )
    assert figures["sizing_vs_empty"] == {8: 0.75, 64: 2.0}
    assert figures["most_vs_empty"] == 60 / 40
    assert figures["most_vs_uvicorn"] == 60 / 15
    assert figures["p50_over_empty_ms"] == 2.0
    assert figures["requests_per_s"] == {
        "sizing": {8: 30, 64: 60},
        "empty": {8: 40, 64: 30},
        "uvicorn": {8: 15, 64: 10},
    }
    assert figures["failed"] == 24


def test_the_empty_application_is_deployed_exactly_as_sizing_is() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    before = json.dumps(config)
    wider = serving.with_empty(config)
    assert json.dumps(config) == before
    ServeDeploySchema.model_validate(wider)
    by_name = {each["name"]: each for each in wider["applications"]}
    assert set(by_name) == {"features", "sizing", "narratives", "empty"}
    sizing, empty = (by_name[name]["deployments"][0] for name in ("sizing", "empty"))
    assert {name for name in sizing if sizing[name] != empty[name]} == {"name", "user_config"}


def test_the_empty_endpoint_answers_any_body_with_nothing() -> None:
    for path in ("/empty", "/empty/"):
        answer = ask(empty_api(), "POST", path, root="/empty", content=b"not JSON")
        assert (answer.status_code, answer.json()) == (200, {})


def test_the_market_has_a_bundle_that_opens_and_requests_that_are_sound(
    market: SizingMarket, tmp_path: Path
) -> None:
    folder = saved(market, tmp_path)
    opened = open_bundle(folder.parent, folder.name)
    assert opened.network is not None
    assert [weight.shape for weight in opened.network.weights] == [(64, 12), (32, 64), (6, 32)]
    bodies = market.requests(300)
    SizingBatch.model_validate({"requests": bodies})
    assert len({json.dumps(body["signal"]) for body in bodies}) == 300
    endless = [json.loads(body) for body in itertools.islice(market.bodies(), 1_200)]
    assert endless[:300] == bodies
    assert len({json.dumps(body["signal"]) for body in endless}) == 1_200
    SizingBatch.model_validate({"requests": endless[-100:]})


def test_in_process_figures_are_there_and_the_batches_journaled(market: SizingMarket, tmp_path: Path) -> None:
    figures = serving.in_process(market, tmp_path, 1)
    assert set(figures) == {"inprocess_sizing_us", "batch256_ms", "batch256_journaled_ms"}
    assert min(figures.values()) > 0.0
    assert (tmp_path / "journal" / "journal.db").exists()
