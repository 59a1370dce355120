"""How far processes that hammer one account get beyond its risk budget, counted from what they were told."""

import multiprocessing
import tempfile
import time
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any, Final, NamedTuple

from envs.guardrails import Limits
from journal.budget import OverBudget, RiskBudget

EACH: Final = 0.001  # risk and exposure of every trade
DAILY, OPEN = 10, 5  # trades that fit into the day, or can be open at once: by turns, from account to account
MANY: Final = 1_000_000
LIMITS: Final = (
    Limits(max_daily_risk=DAILY * EACH, max_exposure=1.0),
    Limits(max_daily_risk=1.0, max_exposure=OPEN * EACH),
)


class Hammered(NamedTuple):
    """What became of it, over all accounts."""

    accounts: int
    granted: int  # trades
    refused: int  # for want of budget
    overspent: int  # trades beyond a budget


def overspent(seconds: float, processes: int, url: str | None = None) -> int:
    """Trades granted beyond a budget; 0 is expected. `url`: a SQLite file of its own where absent."""
    with tempfile.TemporaryDirectory() as folder:
        return hammer(seconds, processes, url or f"sqlite:///{folder}/budget.db").overspent


def hammer(seconds: float, processes: int, url: str, accounts: int = MANY) -> Hammered:
    """Let `processes` spend one account's budget until there is no more, then the next one's.

    They stop after `seconds`, or each of them once it has found so many `accounts` without budget. They
    reserve, commit, settle and release, send calls twice, and send some calls of one another.
    """
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(processes)
    doors = [spawn.Pipe(duplex=False) for _ in range(processes)]
    workers = [
        spawn.Process(target=_hammer, args=(url, number, (seconds, accounts), barrier, told))
        for number, (_, told) in enumerate(doors)
    ]
    for worker in workers:
        worker.start()
    for _, told in doors:
        told.close()  # so that the end of a worker is the end of its pipe
    answers = [heard.recv() for heard, _ in doors]
    for worker in workers:
        worker.join()
    trades: dict[tuple[int, str], str] = {}  # account and key -> how it ended; a key may be told by several
    for granted, _ in answers:
        trades |= granted
    touched = {account for account, _ in trades}
    excess = 0
    for account in touched:
        ends = [end for (number, _), end in trades.items() if number == account]
        spent = len(ends) - ends.count("released")
        excess += max((spent - DAILY) if account % 2 == 0 else (ends.count("committed") - OPEN), 0)
    return Hammered(len(touched), len(trades), sum(refused for _, refused in answers), excess)


def _hammer(url: str, number: int, until: tuple[float, int], barrier: Barrier, told: Connection) -> None:
    """Tell what this process was granted, by account and key, and how often it was refused."""
    granted: dict[tuple[int, str], str] = {}
    account = refused = calls = 0
    with closing(RiskBudget(url)) as budget:
        barrier.wait(120)
        end = time.monotonic() + until[0]
        while time.monotonic() < end and account < until[1]:
            calls += 1
            shared = calls % 5 == 0
            key = f"{account}-{calls if shared else (number, calls)}"
            amounts: dict[str, Any] = {"risk": EACH, "exposure": EACH, "limits": LIMITS[account % 2]}
            try:
                for _ in range(1 + calls % 2):
                    budget.reserve(f"account {account}", key, seconds=3_600, **amounts)
            except OverBudget:
                refused, account = refused + 1, account + 1
                continue
            granted[account, key] = _finish(budget, key, "keep" if shared else calls % 4)
    told.send((granted, refused))


def _finish(budget: RiskBudget, key: str, way: int | str) -> str:
    """Release the trade, settle it or keep it open, each step told twice; how it ended."""
    if way == 0:
        budget.release(key)
        return budget.release(key).state
    budget.commit(key)
    if way == 1:
        budget.settle(key)
        budget.settle(key)
    return budget.commit(key).state
