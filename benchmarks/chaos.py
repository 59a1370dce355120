"""What kills, swaps, overload and bad clients cost under load: `python -m benchmarks.chaos [--quick]`.

Prints progress to stderr and one JSON line to stdout. A server of its own on loopback, two replicas of each
application, eight clients that ask for some 150 sizes a second in all and ask again what was not answered.
What overload and bad clients were answered themselves is in `answers`.
"""

import argparse
import asyncio
import http.client
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks._chaos_audit import audit
from benchmarks._chaos_load import Load
from benchmarks._sizing_market import saved, sizing_market
from serving.keys import add
from serving.launch import Server, port_to_serve_on, processes_of, start
from serving.rollout import KEY_VARIABLE, await_replicas
from serving.schemas import SIZING_EXAMPLE

CLIENTS: Final = 8
OVERLOAD: Final = 1_500  # requests a second, ten times those of the clients
CONNECTIONS: Final = 400  # that they come on; two replicas hold 192 requests
SLOW: Final = 300
WRITE_LOCK: Final = "120 120"  # the byte of a -shm file that an SQLite writer holds, as /proc/locks shows it


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def processes(server: Server, name: str) -> list[int]:
    """The server's processes that have `name` in their command line."""
    found = []
    for number in processes_of(server.folder):
        with suppress(OSError):
            if name.encode() in Path(f"/proc/{number}/cmdline").read_bytes():
                found.append(number)
    return found


def kill(server: Server, name: str) -> None:
    """Kill one process of that name as nothing can prevent."""
    os.kill(processes(server, name)[0], signal.SIGKILL)


def kill_writer(server: Server, home: Path) -> None:
    """Kill the replica that holds the journal's write lock, while it holds it."""
    lock = (home / "journal" / "journal.db-shm").stat().st_ino
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        if (writer := _holder(lock)) is None or writer not in processes_of(server.folder):
            continue
        os.kill(writer, signal.SIGSTOP)  # or its transaction might end while it is looked at
        if _holder(lock) == writer:
            os.kill(writer, signal.SIGKILL)
            return
        os.kill(writer, signal.SIGCONT)
    raise RuntimeError("no transaction was met within a minute")


def _holder(file: int) -> int | None:
    """The process that holds the write lock of the journal whose -shm file has this number."""
    for line in Path("/proc/locks").read_text().splitlines():
        if line.endswith(f":{file} {WRITE_LOCK}") and " WRITE " in line:
            return int(line.split()[4])
    return None


def swap_and_roll_back(server: Server, first: Path, second: Path, times: int) -> None:
    """Put the second bundle in the place of the first, and the first back."""
    for _ in range(times):
        server.swap(second, "PRODUCTION")
        server.swap(first, "PRODUCTION")


def _post(path: str, key: str | None, length: int, more: str = "") -> bytes:
    named = "" if key is None else f"authorization: Bearer {key}\r\n"
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{named}{more}"
        f"content-length: {length}\r\n\r\n"
    ).encode()


async def _answer(reader: asyncio.StreamReader) -> str:
    """Status of an answer, and whether it says when to ask again; its body is read too."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next((int(line[15:]) for line in head.splitlines() if line.startswith("content-length:")), None)
    if length is None:
        await reader.readuntil(b"0\r\n\r\n")  # in chunks
    else:
        await reader.readexactly(length)
    return head[9:12] + (" with Retry-After" if "retry-after:" in head else "")


async def _flood(server: Server, key: str, seconds: float) -> dict[str, int]:
    """Ask `OVERLOAD` times a second, none waiting for another; how often each answer came."""
    host, port = server.url.removeprefix("http://").split(":")
    asked = _post("/sizing", key, len(body := json.dumps(SIZING_EXAMPLE).encode())) + body
    seen: Counter[str] = Counter()

    async def one(end: float) -> None:
        while time.monotonic() < end:
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
                while (began := time.monotonic()) < end:
                    writer.write(asked)
                    seen[await asyncio.wait_for(_answer(reader), 10.0)] += 1
                    await asyncio.sleep(max(began + CONNECTIONS / OVERLOAD - time.monotonic(), 0.0))
                writer.close()
            except (OSError, asyncio.IncompleteReadError) as error:
                seen[type(error).__name__] += 1
                await asyncio.sleep(0.1)

    end = time.monotonic() + seconds
    await asyncio.gather(*(one(end) for _ in range(CONNECTIONS)))
    return dict(seen)


def slow_clients(server: Server, key: str | None, seconds: float) -> dict[str, int]:
    """Half-sent bodies on many connections, held for `seconds`; what became of them."""
    host, port = server.url.removeprefix("http://").split(":")
    connections = []
    for _ in range(SLOW):
        one = socket.create_connection((host, int(port)), timeout=10.0)
        one.sendall(_post("/sizing", key, 1_000) + b'{"signal": {')
        connections.append(one)
    time.sleep(seconds)
    seen: Counter[str] = Counter()
    for one in connections:
        one.settimeout(0.05)
        try:
            seen[one.recv(12).decode()[9:] or "closed"] += 1
        except TimeoutError:
            seen["open"] += 1
        except OSError as error:
            seen[type(error).__name__] += 1
        one.close()
    return dict(seen)


def large_bodies(server: Server, key: str, times: int) -> dict[str, int]:
    """Bodies of 20 MB, their length stated or in chunks, by turns; how often each answer came."""
    host, port = server.url.removeprefix("http://").split(":")
    chunk, seen = b"x" * 1_000_000, Counter[str]()
    for number in range(times):
        connection = http.client.HTTPConnection(host, int(port), timeout=30.0)
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        try:
            connection.request(
                "POST", "/sizing", chunk * 20 if number % 2 else iter([chunk] * 20), headers,
                encode_chunked=not number % 2,
            )  # fmt: skip
        except OSError:
            seen["closed while sending"] += (
                1  # it is answered before all is sent, and may be too late to read
            )
        try:
            seen[str(connection.getresponse().status)] += 1
        except (OSError, http.client.HTTPException) as error:
            seen[type(error).__name__] += 1
        connection.close()
    return dict(seen)


def run(home: Path, quick: bool) -> dict[str, Any]:
    """All faults one after the other, each with the same load, and what is found afterwards."""
    key = add(home, "chaos")
    os.environ[KEY_VARIABLE] = key
    first, second = (saved(sizing_market(seed), home) for seed in (0, 2))  # of unlike sizes
    calm, times = (2.5, 1) if quick else (15.0, 3)
    figures: dict[str, Any] = {}
    say("the server is starting")
    with start(home, bundle=first, status="PRODUCTION", port=port_to_serve_on(None), replicas=2) as server:
        load = Load(server.url, key)
        faults: dict[str, Callable[[], object]] = {
            "none": lambda: None,
            "replica": lambda: kill(server, "ServeReplica:sizing"),
            "proxy": lambda: kill(server, "haproxy"),
            "controller": lambda: kill(server, "ServeController"),
            "journal_writer": lambda: kill_writer(server, home),
            "swap": lambda: swap_and_roll_back(server, first, second, 2 * times),
            "overload": lambda: asyncio.run(_flood(server, key, 2 * calm)),
            "slow_without_key": lambda: slow_clients(server, None, calm),
            "slow_with_key": lambda: slow_clients(server, key, 2 * calm),
            "large_bodies": lambda: large_bodies(server, key, 10 * times),
        }
        load.start(CLIENTS)
        try:
            for name, fault in faults.items():
                repeats = times if name in ("replica", "proxy", "controller", "journal_writer") else 1
                tally, began = load.begin(), time.monotonic()
                for _ in range(repeats):
                    time.sleep(calm / 2)
                    seen = fault()
                    time.sleep(calm)
                    await_replicas(server.dashboard, server.url, first, server.token, key)
                figures[name] = {"times": repeats, "load": tally, "span": (began, time.monotonic())}
                if isinstance(seen, dict):
                    figures[name]["answers"] = seen
                say(f"{name}: {tally.sent:,} requests, {tally.lost} lost")
        finally:
            load.stop()
    for figure in figures.values():
        figure |= figure.pop("load").figures(*figure.pop("span"))
    return figures | audit(home, load.answered, load.given_up)._asdict()


def main() -> None:
    """Run all faults and print their figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each kill once, shorter")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(run(Path(name), quick)))


if __name__ == "__main__":
    main()
