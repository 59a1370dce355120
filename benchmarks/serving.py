"""What a size costs, in process and over HTTP: `python -m benchmarks.serving [--quick]`.

Prints progress to stderr and one JSON line to stdout. In process each figure is the fastest of many rounds:
what else runs on the machine only ever adds to it. Over HTTP the endpoints are asked in turn, one round after
the other, by one client and by more and more at once, until a deployment of two replicas lets no more in;
figures are medians over rounds of what one round says of both: `/sizing` journals every decision, `/empty`
does nothing, each on `--replicas` of the same Serve; the third is the application of /sizing under uvicorn
alone, in one process. No signal is asked about twice. What an endpoint can take is the most that it answers
at any number of clients. Clients and servers share the machine. Everything listens on loopback and is
stopped.
"""

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks._serving_load import HOST, Served, Target, load, load_for
from benchmarks._sizing_market import SizingMarket, saved, sizing_market
from envs.guardrails import Limits
from serving.cluster import Config, deployed, fetch, push
from serving.launch import Server, free_port, port_to_serve_on, start
from serving.limits_file import OperatorLimits
from serving.position_sizer import PositionSizer
from serving.schemas import SizingBatch, SizingRequest
from serving.sizing_desk import SizingDesk

BATCH: Final = 256
CLIENTS: Final = (8, 16, 32, 64)  # at once
START_SECONDS: Final = 120.0


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def fastest(rounds: int, times: int, once: Callable[[], object]) -> float:
    """Seconds of `once`, the mean of `times` runs in the fastest of `rounds`."""
    once()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(times):
            once()
        taken.append((time.perf_counter() - started) / times)
    return min(taken)


def in_process(market: SizingMarket, home: Path, rounds: int) -> dict[str, Any]:
    """One sizing, and batches of 256 at the desk, without a record and journaled in one transaction."""
    asked = SizingRequest.model_validate(market.requests(1)[0])
    row, account = asked.market.feature_row(), asked.account.account()
    limits = OperatorLimits.of(Limits())  # as a trading loop keeps them: their digest is made once
    assert row is not None
    sizer = PositionSizer(market.bundle, "STAGING")
    one = fastest(rounds, 50, lambda: sizer.get_sizing_recommendation(asked.signal, row, account, limits))
    desk = SizingDesk()
    folder = saved(market, home)
    desk.deploy({"home": str(home), "bundle": str(folder), "digest": folder.name, "status": "STAGING"})
    bodies = market.requests(BATCH * (rounds + 1))
    batches = [
        SizingBatch.model_validate({"requests": bodies[first : first + BATCH]})
        for first in range(0, len(bodies), BATCH)
    ]
    sizes = fastest(rounds, 1, lambda: desk.sizes(batches[0].requests))
    waiting = iter(batches)  # signals that are journaled already would cost less
    recorded = fastest(rounds, 1, lambda: desk.decide_all(next(waiting)))
    desk.journal.close()
    figures = {
        "inprocess_sizing_us": round(1e6 * one, 1),
        "batch256_ms": round(1e3 * sizes, 2),
        "batch256_journaled_ms": round(1e3 * recorded, 2),
    }
    say(str(figures))
    return figures


def with_empty(config: Config) -> Config:
    """What a cluster serves, and beside it `/empty`, deployed exactly as /sizing is."""
    empty = copy.deepcopy(next(each for each in config["applications"] if each["name"] == "sizing"))
    empty |= {"name": "empty", "route_prefix": "/empty", "import_path": "benchmarks._empty_app:empty"}
    (deployment,) = empty["deployments"]
    deployment |= {"name": "Empty", "user_config": None}
    return config | {"applications": [*config["applications"], empty]}


@contextmanager
def plain_server(home: Path, bundle: Path) -> Iterator[int]:
    """The port of /sizing's application under uvicorn alone, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks._plain_server", str(home), str(bundle), str(port)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE)
    try:
        _await(lambda: fetch(f"http://{HOST}:{port}/healthz")[0] == 200)
        yield port
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def compared(
    targets: dict[str, Target], bodies: Iterator[bytes], clients: Sequence[int], rounds: int, seconds: float
) -> dict[str, Any]:
    """`/sizing` beside the others: requests per second of `clients` at once, the median latency of one."""
    rates: dict[str, dict[int, list[float]]] = {name: {count: [] for count in clients} for name in targets}
    halves: dict[str, list[float]] = {name: [] for name in targets}
    failed = 0
    for number in range(rounds + 1):
        for count in (1, *clients):
            for name, target in targets.items():
                served = load_for(target, bodies, count, seconds)
                failed += served.failed
                if number == 0:  # warms up
                    continue
                if count == 1:
                    halves[name].append(1e3 * median(served.latencies))
                else:
                    rates[name][count].append(served.per_second)
        say(f"round {number} of {rounds}: " + _told(rates, halves))
    by_clients = {name: {count: median(each) for count, each in of.items()} for name, of in rates.items()}
    most = {name: max(of.values()) for name, of in by_clients.items()}
    return {
        "sizing_vs_empty": {
            count: round(_between(rates["sizing"][count], rates["empty"][count]), 2) for count in clients
        },
        "most_vs_empty": round(most["sizing"] / most["empty"], 2),
        "most_vs_uvicorn": round(most["sizing"] / most["uvicorn"], 2),
        "p50_over_empty_ms": round(
            median(own - other for own, other in zip(halves["sizing"], halves["empty"], strict=True)), 2
        ),
        "requests_per_s": {
            name: {count: round(rate) for count, rate in of.items()} for name, of in by_clients.items()
        },
        "p50_ms": {name: round(median(half), 2) for name, half in halves.items()},
        "failed": failed,
    }


def _between(own: list[float], others: list[float]) -> float:
    return median(one / other for one, other in zip(own, others, strict=True))


def _told(rates: dict[str, dict[int, list[float]]], halves: dict[str, list[float]]) -> str:
    return ", ".join(
        f"{name} p50 {halves[name][-1]:.2f} ms, "
        + " ".join(f"{each[-1]:,.0f}" for each in of.values())
        + "/s"
        for name, of in rates.items()
        if halves[name]
    )


def swapped(server: Server, target: Target, folders: list[Path], bodies: Iterator[bytes]) -> Served:
    """What became of the requests while the bundles were swapped in one after the other."""
    done = threading.Event()
    answers: list[Served] = []
    asking = threading.Thread(target=lambda: answers.append(load(target, bodies, 4, done.is_set)))
    asking.start()
    try:
        for folder in folders:
            server.swap(folder, "STAGING")
            time.sleep(1.0)
    finally:
        done.set()
        asking.join()
    return answers[0]


def over_http(
    market: SizingMarket, folder: Path, replicas: int, clients: Sequence[int], rounds: int, seconds: float
) -> dict[str, Any]:
    """All that is measured on a running Serve."""
    home, plain_home = folder / "served", folder / "plain"
    bundle, other = saved(market, home), saved(sizing_market(seed=1), home)
    bodies = market.bodies()
    port = port_to_serve_on(None)
    with start(home, bundle=bundle, status="STAGING", port=port, replicas=replicas, say=say) as server:
        push(server.dashboard, with_empty(deployed(server.dashboard, server.token)), server.token)
        empty = Target(port, "/empty")
        _await(lambda: load(empty, bodies, 1, lambda: True).failed == 0)
        with plain_server(plain_home, saved(market, plain_home)) as plain_port:
            targets = {
                "empty": empty,
                "sizing": Target(port, "/sizing"),
                "uvicorn": Target(plain_port, "/"),
            }
            figures = compared(targets, bodies, clients, rounds, seconds)
        served = swapped(server, targets["sizing"], [other, bundle], bodies)
    say(f"two swaps: {len(served.latencies):,} answered, {served.failed} failed")
    return figures | {"swap_failures": served.failed, "swap_requests": len(served.latencies)}


def _await(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not reached():
        if time.monotonic() > end:
            raise SystemExit("a server does not come up: is the machine out of memory or processors?")
        time.sleep(0.2)


def main() -> None:
    """Run all measurements and print their figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--replicas", type=int, default=2, help="of each endpoint under Serve (default 2)")
    parser.add_argument(
        "--clients", type=int, nargs="+", default=CLIENTS, help="at once (default 8 16 32 64)"
    )
    asked = parser.parse_args()
    if min(asked.clients) < 2:
        parser.error("--clients: give numbers from 2 on; one alone is asked in any case")
    quick = asked.quick
    market = sizing_market()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = in_process(market, folder / "desk", 10 if quick else 60)
        rounds, seconds = (2, 0.5) if quick else (5, 2.0)
        figures |= over_http(market, folder, asked.replicas, asked.clients, rounds, seconds)
    print(json.dumps(figures | {"replicas": asked.replicas}))


if __name__ == "__main__":
    main()
