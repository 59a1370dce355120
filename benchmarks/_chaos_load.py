"""A trading loop's client, as plain as may be: it keeps its connection and asks again until it is answered.

Knows nothing of what is done to the service meanwhile.
"""

import http.client
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

from serving.schemas import SIZING_EXAMPLE

TIMEOUT: Final = 10.0  # seconds for one attempt
PATIENCE: Final = 90.0  # seconds until a request is given up
AGAIN: Final = {404, 408, 429, 500, 502, 503, 504}  # a proxy that was just started knows no route yet: 404
PAUSE: Final = 0.1  # seconds before it asks again, where the answer names none


@dataclass
class Tally:
    """What became of the requests that were begun during one fault."""

    sent: int = 0  # requests, however often each was tried
    failed: int = 0  # attempts without an answer of 200
    retried: int = 0  # requests that needed more than one attempt, and were answered
    lost: int = 0  # requests given up, or refused for good
    why: Counter[str] = field(default_factory=Counter)  # of the failed
    answered: list[float] = field(default_factory=list)  # when, by time.monotonic
    slowest: float = 0.0  # seconds from a request's first attempt to its answer

    def figures(self, started: float, ended: float) -> dict[str, Any]:
        """As the benchmark prints them; `silence_s` is the longest time in which nothing was answered."""
        moments = [started, *sorted(moment for moment in self.answered if moment < ended), ended]
        silence = max(later - earlier for earlier, later in pairwise(moments))
        return {
            "sent": self.sent,
            "failed": self.failed,
            "retried": self.retried,
            "lost": self.lost,
            "why": dict(self.why),
            "silence_s": round(silence, 2),
            "slowest_s": round(self.slowest, 2),
        }


class Client:
    """One connection, for one thread."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._connection: http.client.HTTPConnection | None = None

    def attempt(self, path: str, body: bytes) -> tuple[int, bytes, float]:
        """Status (0 without an answer), body or reason, and the seconds that the answer asks to wait."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
            self._connection.request("POST", path, body, self._headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read(), float(answer.headers.get("retry-after", PAUSE))
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return 0, type(error).__name__.encode(), PAUSE

    def ask(self, path: str, body: bytes, tally: Tally) -> dict[str, Any] | None:
        """The answer, however often it must be asked for; None where it was given up."""
        started, attempts = time.monotonic(), 0
        tally.sent += 1
        while time.monotonic() - started < PATIENCE:
            attempts += 1
            status, content, wait = self.attempt(path, body)
            if status == 200:
                now = time.monotonic()
                tally.answered.append(now)
                tally.retried += attempts > 1
                tally.slowest = max(tally.slowest, now - started)
                answer: dict[str, Any] = json.loads(content)
                return answer
            tally.failed += 1
            tally.why[str(status) if status else content.decode()] += 1
            if status and status not in AGAIN:
                break
            time.sleep(wait)
        tally.lost += 1
        return None

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True)
class Answered:
    """A size that was acknowledged: the request's account and key (None without), and the answer."""

    account: str
    key: str | None
    size: dict[str, Any]


class Load:
    """Threads that ask for sizes, `rate` a second each at the most; every second one is reserved.

    A reserved one has a key of its own, so that asking again cannot spend twice. Twelve requests share an
    account, which is more than its budget holds.
    """

    def __init__(self, url: str, key: str, rate: float = 25.0) -> None:
        self._url, self._key, self._pause = url, key, 1.0 / rate
        self._lock = threading.Lock()  # of these four
        self._number = 0
        self.tally = Tally()
        self.answered: list[Answered] = []
        self.given_up: list[str] = []  # keys
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, threads: int) -> None:
        """Begin to ask."""
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more; returns once every request is answered or given up."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def begin(self) -> Tally:
        """What is asked from now on is counted anew, here."""
        with self._lock:
            self.tally = Tally()
            return self.tally

    def _run(self, seed: int) -> None:
        pauses, client = random.Random(seed), Client(self._url, self._key)
        while not self._stop.wait(self._pause * pauses.uniform(0.5, 1.5)):
            with self._lock:
                self._number += 1
                number, tally = self._number, self.tally
            account, key = f"desk-{number // 12}", f"chaos-{number}" if number % 2 else None
            asked: dict[str, Any] = SIZING_EXAMPLE | {"account_id": account}
            if key is not None:
                asked["reserve"] = {"key": key, "seconds": 86_000}
            mine = Tally()
            size = client.ask("/sizing", json.dumps(asked).encode(), mine)
            with self._lock:
                _add(tally, mine)
                if size is not None:
                    self.answered.append(Answered(account, key, size))
                elif key is not None:
                    self.given_up.append(key)
        client.close()


def _add(tally: Tally, more: Tally) -> None:
    tally.sent += more.sent
    tally.failed += more.failed
    tally.retried += more.retried
    tally.lost += more.lost
    tally.why += more.why
    tally.answered += more.answered
    tally.slowest = max(tally.slowest, more.slowest)
