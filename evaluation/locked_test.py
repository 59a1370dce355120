"""How often the locked test part of some data has been looked at: each look makes the next one worth less.

Knows nothing of what was looked for. One file of JSON lines for each combination of bars, rule and costs; a
look is on the disk before its figures are anywhere.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from market.errors import InputError

FOLDER: Final = "locked_tests"


def key_of(digests: Mapping[str, str], rule: str, costs: Mapping[str, float]) -> str:
    """What names a locked part: the digests of its bars by symbol, the signal rule and the costs."""
    canonical = json.dumps([dict(digests), rule, dict(costs)], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def record_look(home: Path, key: str, by: Mapping[str, Any]) -> int:
    """Count a look, durably, and return how many there have been, this one included.

    `by`: who looked, in JSON types. Any number of processes may look at once. InputError where the record was
    damaged: how often the part was looked at is then unknown.
    """
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.jsonl"
    with FileLock(folder / f".{key}.lock"):
        count = len(_looks(path))
        line = json.dumps({"look": count + 1, "time": datetime.now(UTC).isoformat(), **by}, allow_nan=False)
        size = path.stat().st_size if count else 0
        with path.open("ab", buffering=0) as file:
            try:
                file.write(line.encode() + b"\n")
                os.fsync(file.fileno())
            except OSError:  # a full disk must not leave half a line for the next look to stumble over
                file.truncate(size)
                raise
    return count + 1


def looks(home: Path, key: str) -> int:
    """How many looks have been counted. InputError as `record_look`."""
    return len(_looks(home / FOLDER / f"{key}.jsonl"))


def _looks(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    found: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or entry.get("look") != number:
            mend = (
                f"line {number} is no look number {number}: restore the file, or keep other data for a test"
            )
            raise InputError("locked test", str(path), mend)
        found.append(entry)
    return found
