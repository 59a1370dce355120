"""Processes that journal decisions as fast as they can, until their time is up or they are killed."""

import multiprocessing
import os
import resource
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple

import numpy as np
from uuid_utils import uuid7

from envs.guardrails import Limits
from features.spec import FEATURE_NAMES
from journal.store import Entry, Journal
from serving.limits_file import OperatorLimits
from serving.position_sizer import PositionSizer
from serving.schemas import SIZING_EXAMPLE, SizingRequest
from serving.sizing_desk import Case, decision_entry, signal_entry

SPAWN = multiprocessing.get_context("spawn")


class Load(NamedTuple):
    """How decisions are journaled."""

    url: str
    threads: int  # of each process, each waiting for its decision to be durable before it makes the next
    batch: int = 1  # decisions in one transaction
    synchronous: str = "NORMAL"


class Rate(NamedTuple):
    """What became of it."""

    per_second: float
    cpu_us: float  # of one decision, all processes together


def decisions() -> Iterator[list[Entry]]:
    """Signals and decisions without end, each made and checked as the sizing desk makes them."""
    request = SizingRequest.model_validate(SIZING_EXAMPLE)
    row, limits = request.market.feature_row(), Limits()
    assert row is not None
    sizer = PositionSizer(None)
    details = sizer.get_sizing_recommendation(request.signal, row, request.account.account(), limits).details
    told: dict[str, Any] = {"source": "model", "bundle": "0" * 64, "proposed_multiplier": 1.25}
    for number, rung in enumerate(details["ladder"]):
        rung["value"] = 0.0123456789 * number  # a model values the sizes: the record is as long as with one
    random = np.random.default_rng()
    case = Case(request, row, None, OperatorLimits.of(limits), sizer, None, None)
    while True:
        features = dict(zip(FEATURE_NAMES, random.normal(size=len(row)).tolist(), strict=True))
        signal = signal_entry(request.signal, features, None)
        yield [signal, decision_entry(str(uuid7()), case, signal[1], details | told, None, 0.1)]


def rate(load: Load, processes: int, seconds: float) -> Rate:
    """How many decisions `processes` journal together, for `seconds` after all have started."""
    barrier = SPAWN.Barrier(processes)
    doors = [SPAWN.Pipe(duplex=False) for _ in range(processes)]
    workers = [SPAWN.Process(target=_work, args=(load, seconds, barrier, told)) for _, told in doors]
    for worker in workers:
        worker.start()
    for _, told in doors:
        told.close()  # so that the end of a worker is the end of its pipe
    answers = [heard.recv() for heard, _ in doors]
    for worker in workers:
        worker.join()
    count = sum(made for made, _, _ in answers)
    cpu = sum(used for _, used, _ in answers)
    return Rate(count / max(took for _, _, took in answers), 1e6 * cpu / count)


def _work(load: Load, seconds: float, barrier: Barrier, told: Connection) -> None:
    made = [0] * load.threads
    with closing(_journal(load)) as journal:
        journal.append_many(next(decisions()))  # the file is there, everything is imported

        def work(thread: int) -> None:
            source = decisions()
            while time.perf_counter() < end:
                journal.append_many([entry for _ in range(load.batch) for entry in next(source)])
                made[thread] += load.batch

        barrier.wait(120)
        started, used = time.perf_counter(), _cpu_seconds()
        end = started + seconds
        threads = [threading.Thread(target=work, args=(number,)) for number in range(load.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told.send((sum(made), _cpu_seconds() - used, time.perf_counter() - started))


def lost_after_kill(load: Load, processes: int, seconds: float) -> tuple[int, int, int]:
    """Kill all `processes` under load after `seconds`: decisions acknowledged, those lost, faults found."""
    acknowledged: list[str] = []
    doors = [SPAWN.Pipe(duplex=False) for _ in range(processes)]
    workers = [SPAWN.Process(target=_tell, args=(load, told)) for _, told in doors]
    for worker in workers:
        worker.start()
    for _, told in doors:
        told.close()
    ears = [threading.Thread(target=_hear, args=(heard, acknowledged)) for heard, _ in doors]
    for ear in ears:
        ear.start()
    _wait_for_all(workers, acknowledged, seconds)
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
    for worker in workers:
        worker.join()
    for ear in ears:
        ear.join()
    with closing(Journal(load.url, "after")) as journal:
        there = {record.record_id for record in journal.read("decision")}
        return len(acknowledged), len(set(acknowledged) - there), len(journal.verify())


def _wait_for_all(workers: Sequence[BaseProcess], acknowledged: list[str], seconds: float) -> None:
    """Return `seconds` after every worker has had a decision acknowledged."""
    while len({name.partition(":")[0] for name in list(acknowledged)}) < len(workers):
        assert all(worker.is_alive() for worker in workers)
        time.sleep(0.01)
    time.sleep(seconds)


def _hear(heard: Connection, acknowledged: list[str]) -> None:
    with suppress(EOFError, OSError):  # the writer is dead, perhaps in the middle of a word
        while True:
            acknowledged.append(heard.recv())


def _tell(load: Load, told: Connection) -> None:
    """Journal decisions without end, and tell the id of each once it is durable."""
    journal, telling = _journal(load), threading.Lock()

    def work() -> None:
        for about, (kind, decision_id, payload) in decisions():
            name = f"{os.getpid()}:{decision_id}"
            journal.append_many([about, (kind, name, payload)])
            with telling:
                told.send(name)

    threads = [threading.Thread(target=work) for _ in range(load.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _journal(load: Load) -> Journal:
    full = load.synchronous == "FULL"
    return Journal(load.url, f"writer-{uuid.uuid4().hex}", synchronous="FULL" if full else "NORMAL")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
