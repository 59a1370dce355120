"""Serve as a rollout sees it, in this process: its REST interface in front of real sizing desks."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any

from ray.serve.schema import ServeDeploySchema

from serving.cluster import APPLICATIONS, desired
from serving.sizing_desk import SizingDesk

TOKEN = "of the cluster"


class FakeServe:
    """Replicas of /sizing for a home, told what to serve by PUT; it answers GET as Serve does."""

    def __init__(self, home: Path, port: int, replicas: int) -> None:
        self.config = desired(home, None, None, host="127.0.0.1", port=port, replicas=replicas)
        self.desks = [SizingDesk() for _ in range(replicas)]
        self.told: list[dict[str, Any]] = []  # the configurations that were put
        self.on_its_way: Callable[[], object] = lambda: None  # happens between a PUT and the replicas
        self.deaf: list[SizingDesk] = []  # replicas that hear nothing
        self._turns = cycle(self.desks)
        self._deploy()

    def put(self, config: dict[str, Any]) -> None:
        ServeDeploySchema.model_validate(config)
        self.told.append(config)
        self.config = config
        self.on_its_way()
        self._deploy()

    def details(self) -> dict[str, Any]:
        running = [{"state": "UPDATING" if desk in self.deaf else "RUNNING"} for desk in self.desks]
        running.append({"state": "STOPPING"})
        return {
            "proxy_location": self.config["proxy_location"],
            "http_options": self.config["http_options"],
            "applications": {
                each["name"]: {
                    "deployed_app_config": each,
                    "deployments": {each["deployments"][0]["name"]: {"replicas": running}},
                }
                for each in self.config["applications"]
            },
        }

    def health(self) -> dict[str, Any]:
        return next(self._turns).health()

    def _deploy(self) -> None:
        (user_config,) = (
            each["deployments"][0]["user_config"]
            for each in self.config["applications"]
            if each["name"] == "sizing"
        )
        for desk in self.desks:
            if desk not in self.deaf:
                desk.deploy(user_config)


@contextmanager
def fake_serve(home: Path, replicas: int = 2, key: str | None = None) -> Iterator[tuple[str, FakeServe]]:
    """A running one, and its address; with `key`, its health page asks for it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == APPLICATIONS:
                self._answer(TOKEN, serve.details)
            elif self.path == "/sizing/healthz":
                self._answer(key, serve.health)

        def do_PUT(self) -> None:
            config = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._answer(TOKEN, lambda: serve.put(config))

        def _answer(self, secret: str | None, answer: Callable[[], Any]) -> None:
            known = secret is None or self.headers.get("authorization") == f"Bearer {secret}"
            body = json.dumps(answer() if known else {}).encode()
            self.send_response(200 if known else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serve = FakeServe(home, server.server_port, replicas)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", serve
        finally:
            server.shutdown()
            thread.join()
