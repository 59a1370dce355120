"""How many decisions the journal takes, and what a kill costs: `python -m benchmarks.journal [--quick]`.

Prints progress to stderr and one JSON line to stdout. A decision is a signal and a decision record, made and
checked as the sizing desk makes them, and counts once it is durable. Rates are by the clock, so that other
programs on the machine slow them; `cpu_us` is what one decision costs all processes together.
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from benchmarks._budget import hammer
from benchmarks._journal_writers import Load, lost_after_kill, rate
from journal.store import Journal

PROCESSES: Final = 2
THREADS: Final = 16  # requests that a replica answers at once
KILLED: Final = 4
HAMMERING: Final = 4


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def speed(folder: Path, seconds: float) -> dict[str, Any]:
    """Decisions per second, as they come from many threads, from one thread a process, and in batches."""
    figures: dict[str, Any] = {}
    loads = {
        "decisions_per_s": Load(f"sqlite:///{folder}/threads.db", THREADS),
        "one_thread_per_s": Load(f"sqlite:///{folder}/one.db", 1),
        "batch64_per_s": Load(f"sqlite:///{folder}/batch.db", 1, batch=64),
        "full_sync_per_s": Load(f"sqlite:///{folder}/full.db", THREADS, synchronous="FULL"),
    }
    for name, load in loads.items():
        found = rate(load, PROCESSES, seconds)
        figures[name] = round(found.per_second)
        say(f"{name}: {found.per_second:,.0f}")
        if name == "decisions_per_s":
            figures["cpu_us"] = round(found.cpu_us)
    figures["group_commit_gain"] = round(figures["decisions_per_s"] / figures["one_thread_per_s"], 2)
    with closing(Journal(loads["decisions_per_s"].url, "reader")) as journal:
        started = time.perf_counter()
        inspection = journal.inspect()
        figures["verified_per_s"] = round(inspection.records / (time.perf_counter() - started))
        figures["faults"] = len(inspection.faults)
    return figures


def kills(folder: Path, rounds: int) -> dict[str, Any]:
    """What writers had acknowledged and the journal does not hold after kill -9, all rounds together."""
    acknowledged = lost = faults = 0
    load = Load(f"sqlite:///{folder}/killed.db", THREADS)
    for number in range(rounds):
        heard, missing, broken = lost_after_kill(load, KILLED, 1.0)
        acknowledged, lost, faults = acknowledged + heard, lost + missing, faults + broken
        say(f"kill {number + 1} of {rounds}: {heard:,} acknowledged, {missing} lost, {broken} faults")
    return {"acknowledged": acknowledged, "lost_after_kill": lost + faults}


def budget(folder: Path, seconds: float) -> dict[str, Any]:
    """What processes that hammer one account's risk budget after another got beyond it."""
    found = hammer(seconds, HAMMERING, f"sqlite:///{folder}/budget.db")
    said = f"{found.granted:,} trades granted, {found.refused:,} refused, {found.accounts:,} accounts"
    say(f"risk budget: {said}, overspent by {found.overspent}")
    return {"overspent": found.overspent, "budgeted_trades": found.granted}


def main() -> None:
    """Run all measurements and print their figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer kills")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        figures = speed(Path(name), 4.0 if quick else 20.0) | kills(Path(name), 1 if quick else 5)
        figures |= budget(Path(name), 5.0 if quick else 30.0)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
