"""Clients that ask an HTTP server on loopback as fast as they are answered, each over one connection.

Knows nothing of what is asked.
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final, NamedTuple

HOST: Final = "127.0.0.1"
TIMEOUT: Final = 30.0
HEADERS: Final = {"content-type": "application/json"}


class Target(NamedTuple):
    """Where to POST."""

    port: int
    path: str


class Served(NamedTuple):
    """What became of it."""

    seconds: float
    latencies: list[float]  # in seconds, of the requests that were answered with 200
    failed: int  # any other answer, or none

    @property
    def per_second(self) -> float:
        """Requests answered with 200 in a second."""
        return len(self.latencies) / self.seconds


def load(
    target: Target, bodies: Iterator[bytes], clients: int, until: Callable[[], bool], least: int = 1
) -> Served:
    """Have `clients` ask at once until `until` says so, at least `least` requests each; none is repeated
    when it fails. `bodies` do not end, and threads may share them.
    """
    latencies: list[list[float]] = [[] for _ in range(clients)]
    failed = [0] * clients

    def ask(number: int) -> None:
        with closing(http.client.HTTPConnection(HOST, target.port, timeout=TIMEOUT)) as connection:
            while len(latencies[number]) + failed[number] < least or not until():
                asked = time.perf_counter()
                try:
                    connection.request("POST", target.path, next(bodies), HEADERS)
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, http.client.HTTPException):
                    connection.close()  # the next request opens it again
                    failed[number] += 1
                    continue
                if answer.status == 200:
                    latencies[number].append(time.perf_counter() - asked)
                else:
                    failed[number] += 1

    started = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    return Served(seconds, [one for each in latencies for one in each], sum(failed))


def load_for(target: Target, bodies: Iterator[bytes], clients: int, seconds: float) -> Served:
    """`load` for some time."""
    end = time.perf_counter() + seconds
    return load(target, bodies, clients, lambda: time.perf_counter() >= end)
