"""Serve on this machine: a Ray cluster of its own, the three applications, and nothing left when they stop.

Knows nothing of what the applications answer.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from filelock import FileLock, Timeout

from market.errors import ConfigError, InputError
from serving.cluster import (
    APPLICATIONS,
    PORTS,
    Config,
    desired,
    environment,
    fetch,
    own_ports,
    push,
    swap,
    token_of,
)
from serving.keys import Keys
from serving.rollout import KEY_VARIABLE, KeyNeeded, await_replicas

DEFAULT_PORT: Final = 8100
DASHBOARD_PORT: Final = 8265
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
START_SECONDS: Final = 240.0  # some 20 on two idle cores; a crowded machine takes its time
STOP_SECONDS: Final = 20.0


class StartError(InputError):
    """The applications did not come up; the value holds what Ray said."""


@dataclass
class Server:
    """Three running applications at `url` (`url`/sizing and so on); a context manager that stops them."""

    url: str
    dashboard: str  # Ray's, through which a running deployment is changed
    metrics: str  # where Prometheus asks
    token: str | None = field(repr=False)  # for the dashboard
    process: "subprocess.Popen[bytes]"
    folder: Path  # Ray's sessions and logs, gone when it stops

    def swap(self, bundle: Path | None, status: str | None) -> None:
        """Put another bundle, or none, behind /sizing; returns when it answers, or raises BundleError."""
        swap(self.dashboard, bundle, status, self.token)
        self.await_bundle(bundle)

    def await_bundle(self, bundle: Path | None) -> None:
        """Return once every replica of /sizing answers from `bundle`, or keys hide it; NotTaken otherwise."""
        with suppress(KeyNeeded):
            await_replicas(self.dashboard, self.url, bundle, self.token, os.environ.get(KEY_VARIABLE))

    def stop(self) -> None:
        """End every process that was started. May be called again."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        # Ray's own helpers end a moment after it; one that does not would hold its ports.
        deadline = time.monotonic() + STOP_SECONDS
        while left := processes_of(self.folder):
            if time.monotonic() > deadline:
                for number in left:
                    with suppress(ProcessLookupError):
                        os.kill(number, signal.SIGKILL)
            time.sleep(0.1)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(
    home: Path,
    *,
    bundle: Path | None = None,
    status: str | None = None,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    replicas: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> Server:
    """Start Ray and Serve for `home`; returns once all three applications answer.

    `bundle` is the folder of a policy bundle, None for the rule alone; `status` its registry status. One
    replica each is what two cores carry; a server takes two, so that no crash or code change is felt.
    `say` hears what is being waited for. ConfigError for a port in use, or for a host beyond loopback without
    API keys; BundleError for an unsound bundle; StartError where Ray or an application fails.
    """
    config = desired(home, bundle, status, host=host, port=port, replicas=replicas)
    if host not in LOOPBACK and not Keys(home, os.environ).required():
        raise ConfigError("host", host, "beyond loopback keys are a must: `keys add NAME` makes one")
    if (taken := _taken(host, port)) is not None:
        raise ConfigError("port", port, f"{taken} is in use: give another port")
    # Ray's sockets lie here and may have 107 characters in all. Only the owner may enter: the admin socket of
    # HAProxy would let anybody in.
    folder = Path(tempfile.mkdtemp(prefix="ballast-serve-", dir="/tmp"))
    surroundings = environment(os.environ, home, folder, port)
    shown_host = f"[{host}]" if ":" in host else host
    with _dashboard_port() as dashboard_port:
        metrics_port = own_ports(port)[-3]
        server = Server(
            f"http://{shown_host}:{port}",
            f"http://127.0.0.1:{dashboard_port}",
            f"http://127.0.0.1:{metrics_port}/metrics",
            token_of(surroundings),
            _cluster(folder, dashboard_port, metrics_port, surroundings),
            folder,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            say("Ray is starting")
            _wait(
                lambda: _ray_answers(server),
                deadline,
                "Ray does not come up: is the machine out of memory or processors?",
            )
            push(server.dashboard, config, server.token)
            say("the applications are starting")
            _wait(
                lambda: _all_answer(server, config),
                deadline,
                "the applications do not come up: is the machine out of memory or processors?",
            )
            server.await_bundle(bundle)
        except BaseException:
            server.stop()
            raise
    return server


def _cluster(
    folder: Path, dashboard_port: int, metrics_port: int, surroundings: dict[str, str]
) -> "subprocess.Popen[bytes]":
    """A Ray cluster in a process of its own."""
    command = [sys.executable, "-m", "serving.local_cluster", folder, dashboard_port, metrics_port]
    with (folder / "ray.log").open("wb") as log:
        return subprocess.Popen(
            [str(part) for part in command],
            env=surroundings,
            stdin=subprocess.PIPE,  # ends with this process, and the cluster with it
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is this process's to handle
        )


@contextmanager
def _dashboard_port() -> Iterator[int]:
    """Ray's usual port if nobody has it, nor is about to in a context like this one; else a free one."""
    lock = FileLock(Path(tempfile.gettempdir()) / f"ballast-dashboard-{os.getuid()}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield free_port()
        return
    try:
        yield DASHBOARD_PORT if _is_free("127.0.0.1", DASHBOARD_PORT) else free_port()
    finally:
        lock.release()


def port_to_serve_on(wanted: int | None) -> int:
    """`wanted`, or without a wish the first port from 8100 on that `start` can have.

    ConfigError where it cannot: better before a training than after it.
    """
    for port in range(DEFAULT_PORT, DEFAULT_PORT + PORTS) if wanted is None else [wanted]:
        if (taken := _taken("127.0.0.1", port)) is None:
            return port
    raise ConfigError("port", wanted, f"{taken} is in use: give another port")


@contextmanager
def serving(
    home: Path, digest: str | None, status: str, port: int, say: Callable[[str], None] = lambda text: None
) -> Iterator[Server]:
    """`start` for a bundle of this home, or for the rule alone (None), as a context."""
    bundle = None if digest is None else home / "bundles" / digest
    with start(home, bundle=bundle, status=status, port=port, say=say) as server:
        yield server


def processes_of(folder: Path) -> list[int]:
    """The processes of the cluster in `folder`, whose name they all inherit; none where there is no /proc."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if os.fsencode(folder) in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def _ray_answers(server: Server) -> bool:
    if server.process.poll() is not None:
        lines = (server.folder / "ray.log").read_text(errors="replace").strip().splitlines()
        raise StartError("ray", " | ".join(lines[-3:]), "Ray ended by itself: mend what it says")
    return fetch(f"{server.dashboard}{APPLICATIONS}", server.token, timeout=30.0)[0] == 200


def _all_answer(server: Server, config: Config) -> bool:
    """Whether every application answers; StartError as soon as one has failed for good."""
    names = [application["name"] for application in config["applications"]]
    # 401 is an answer too: keys are in force, and their hashes are all that is known here.
    if all(fetch(f"{server.url}/{name}/healthz")[0] in (200, 401) for name in names):
        return True
    code, body = fetch(f"{server.dashboard}{APPLICATIONS}", server.token)
    if code == 200:
        for name, state in json.loads(body)["applications"].items():
            if state["status"] == "DEPLOY_FAILED":
                raise StartError(name, state["message"], "cannot be served: mend what Ray says")
    return False


def _wait(reached: Callable[[], bool], deadline: float, otherwise: str) -> None:
    while not reached():
        if time.monotonic() > deadline:
            raise StartError("serve", "no answer", otherwise)
        time.sleep(0.2)


def _taken(host: str, port: int) -> int | None:
    """The first port in use among those that serving on `port` needs; None where all are free."""
    needs = ((host, port), *(("", own) for own in own_ports(port)[-3:]))
    return next((needed for where, needed in needs if not _is_free(where, needed)), None)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
