"""Where settled trades with their paths are kept: the protocol, and a file of JSON lines under BALLAST_HOME.

Knows nothing of ladders.
"""

import fcntl
import json
import os
import re
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Protocol

from market.errors import ConfigError, DataError
from market.home import home
from signals.excursions import TradeOutcome

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class OutcomeStore(Protocol):
    """Keeps outcomes durably, each trade once."""

    def append(self, outcomes: Sequence[TradeOutcome]) -> int:
        """Store those whose trade_id is new, on the disk before returning; how many they were.

        A trade stored before with the same content is passed over; DataError for one with another content,
        and then nothing of `outcomes` is stored.
        """
        ...

    def all(self) -> tuple[TradeOutcome, ...]:
        """Every stored outcome, in the order in which they came."""
        ...


class FileOutcomeStore:
    """An append-only file BALLAST_HOME/outcomes/NAME.jsonl, one outcome per line.

    Several processes may append: each holds a lock on the file while it reads what is new and writes. A last
    line without its end is what a crash left of a write that was never confirmed: reading passes over it, the
    next append cuts it off. Any other line that is no outcome is a DataError naming the line.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """`folder`: where the file lies, BALLAST_HOME/outcomes if absent."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError("outcome store name", name, "give up to 100 letters, digits, dots, - and _")
        self.path: Path = (folder or home() / "outcomes") / f"{name}.jsonl"
        self._lines: dict[str, str] = {}
        self._read = 0
        self._inode = -1

    def append(self, outcomes: Sequence[TradeOutcome]) -> int:
        """See `OutcomeStore`. A write that fails midway (OSError) is taken back."""
        made = not self.path.parent.is_dir() or not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk refused must not be tried again when the file is closed.
        with open(self.path, "a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = self._catch_up(file)
            fresh: dict[str, str] = {}
            for outcome in outcomes:
                line = outcome.to_json()
                stored = self._lines.get(outcome.trade_id) or fresh.get(outcome.trade_id)
                if stored is not None and stored != line:
                    mend = (
                        f"it is stored already with another content: give it an id of its own ({self.path})"
                    )
                    raise DataError("outcome trade_id", outcome.trade_id, mend)
                if stored is None:
                    fresh[outcome.trade_id] = line
            if fresh:
                file.truncate(end)  # what a crash left of a line
                try:
                    rest = memoryview("".join(f"{line}\n" for line in fresh.values()).encode())
                    while rest:
                        rest = rest[file.write(rest) :]
                    os.fsync(file.fileno())
                except BaseException:
                    os.ftruncate(file.fileno(), end)
                    raise
                self._lines |= fresh
                self._read = os.fstat(file.fileno()).st_size
        if made:
            self._sync_folders()
        return len(fresh)

    def all(self) -> tuple[TradeOutcome, ...]:
        """See `OutcomeStore`; none where the file is not there yet."""
        try:
            with open(self.path, "rb", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                self._catch_up(file)
        except FileNotFoundError:
            return ()
        return tuple(TradeOutcome.from_dict(json.loads(line)) for line in self._lines.values())

    def _catch_up(self, file: FileIO) -> int:
        """Read the whole lines that came since the last look; where they end."""
        status = os.fstat(file.fileno())
        if status.st_size < self._read or status.st_ino != self._inode:  # another file took its place
            self._lines, self._read, self._inode = {}, 0, status.st_ino
        file.seek(self._read)
        whole, _, _ = file.readall().rpartition(b"\n")
        if whole:
            found: dict[str, str] = {}
            for number, line in enumerate(whole.split(b"\n"), len(self._lines) + 1):
                try:
                    outcome = TradeOutcome.from_dict(json.loads(line))
                    if outcome.trade_id in self._lines or outcome.trade_id in found:
                        raise ValueError(f"trade_id {outcome.trade_id} is there twice")
                except (ValueError, RecursionError) as error:
                    raise DataError(
                        f"{self.path} line {number}", line[:100], f"restore it ({error})"
                    ) from None
                found[outcome.trade_id] = line.decode()
            self._lines |= found
            self._read += len(whole) + 1
        return self._read

    def _sync_folders(self) -> None:
        """A new name lives in its folder, which has its own place in the disk's cache."""
        for folder in (self.path.parent, self.path.parent.parent):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
