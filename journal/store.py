"""The append-only journal in a database: records go in durably, come out by id, and can be verified.

Knows nothing of what a decision or an outcome holds.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from sqlalchemy import select
from sqlalchemy.engine.interfaces import DBAPICursor

from journal.anchors import Seen, anchor, heads
from journal.chain import Finding
from journal.database import Database, Taken
from journal.group import Group, WouldWait
from journal.inspection import Inspection, inspect
from journal.schema import (
    GENESIS,
    KINDS,
    Canonical,
    Record,
    canonical,
    chained_hash,
    checked_name,
    metadata,
    records,
    say_the_same,
)
from market.errors import InputError

LARGEST_BATCH: Final = 10_000  # one transaction holds the write lock
ANCHOR_SECONDS: Final = 60.0  # a writer that writes looks this often where the others stand
ANCHOR_RECORDS: Final = 1_000  # and after so many records of its own
REMEMBERED: Final = 4_096  # records, some 9 MB, that a writer which does not wait need not look up

Entry = tuple[str, str, Mapping[str, Any] | Canonical]  # kind, record id, payload
Checked = tuple[str, str, str]  # kind, record id, canonical payload


class Journal:
    """One writer's door to the journal at an SQLAlchemy `url`; readers see the records of all writers.

    A record is durable, as `Database` says, before `append` returns. The file and its table are made by the
    first append, never by a reader. Threads may share a Journal: what they append at once is one transaction.
    With its first record, then every `ANCHOR_SECONDS` or `ANCHOR_RECORDS` and when it is closed, a writer
    also journals where the others stand. While one is open no copy may be put in the database's place: what
    it knows to be journaled it does not look up each time. `clock` gives nanoseconds since 1970, UTC.
    """

    def __init__(
        self,
        url: str,
        writer: str,
        *,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.writer = checked_name("writer", writer, 128)
        self._clock = clock
        self._database = Database(url, metadata, "journal", synchronous=synchronous)
        self._connection = self._database.transaction
        self._insert = f"INSERT INTO records ({_COLUMNS}) VALUES ({self._database.places(len(records.c))})"
        self._group: Group[list[Checked], list[Record]] = Group(self._write)
        # Where the chain stood when this writer last left it, None where it must look, and the latest records
        # that are journaled to its knowledge.
        self._head: tuple[int, str] | None = None
        self._known: OrderedDict[str, Record] = OrderedDict()
        self._seen: dict[str, Seen] = {}  # the heads of others that this writer has journaled
        self._anchor_after = 0.0  # by time.monotonic
        self._unanchored = 0  # records of this writer since

    def append(self, kind: str, record_id: str, payload: Mapping[str, Any]) -> Record:
        """Journal one record; see `append_many`."""
        return self.append_many([(kind, record_id, payload)])[0]

    def append_many(self, entries: Sequence[Entry], *, wait: bool = True) -> list[Record]:
        """Journal all entries in one transaction, all or none, and return their records in the order given.

        An entry that is already there (same id, kind and payload, by whichever writer) gives the record that
        exists, so a retry writes nothing twice. The same id with another kind or payload is an `InputError`,
        as is a payload that is not plain JSON. Without `wait`, WouldWait where another writes just now, or
        wrote one of them first.
        """
        if len(entries) > LARGEST_BATCH:
            raise InputError("entries", len(entries), f"give at most {LARGEST_BATCH} at a time")
        wanted = [_checked_entry(*entry) for entry in entries]
        return self._group.ask(wanted, wait=wait) if wanted else []

    def _write(
        self, requests: Sequence[list[Checked]], wait: bool = True, *, last: bool = False
    ) -> list[list[Record] | Exception]:
        """Write all requests in one transaction, but for those that contradict what is journaled.

        `last`: it is this writer's last, so that the others' heads are due. Who waits looks first what is
        there; who does not takes it that all is new that this writer does not know, and finds out.
        """
        answers: list[list[Record] | Exception] = []
        ids = [record_id for wanted in requests for _, record_id, _ in wanted]
        looks = True
        try:
            with self._database.turn(wait=wait) as cursor:
                head, self._head = (None if wait else self._head), None  # until it is certain what came of it
                looks = head is None
                known = self._stored(cursor, ids) if looks else self._remembered(ids)
                chain = _Chain(self.writer, *(head or self._journaled_head(cursor)), self._clock)
                for wanted in requests:
                    try:
                        new = _new(wanted, known)
                    except InputError as error:
                        answers.append(error)
                        continue
                    known |= {entry[1]: chain.link(*entry) for entry in new}
                    answers.append([known[record_id] for _, record_id, _ in wanted])
                written = len(chain.records)
                seen = self._anchored(cursor, chain) if last or self._anchor_due(written) else None
                if chain.records:
                    cursor.executemany(self._insert, chain.records)
        except Taken as error:
            if looks:
                raise
            raise WouldWait from error
        # Only now is it there: nothing of this is known before.
        self._head = chain.sequence, chain.previous
        self._remember(known)
        self._unanchored += written
        if seen is not None:
            self._unanchored, self._anchor_after = 0, time.monotonic() + ANCHOR_SECONDS
            self._seen |= seen
        return answers

    def _remembered(self, record_ids: Sequence[str]) -> dict[str, Record]:
        """Those that this writer knows of, by id."""
        known = self._known
        return {record_id: known[record_id] for record_id in record_ids if record_id in known}

    def _remember(self, records: Mapping[str, Record]) -> None:
        for record_id, record in records.items():
            self._known[record_id] = record
            self._known.move_to_end(record_id)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _stored(self, cursor: DBAPICursor, record_ids: Sequence[str]) -> dict[str, Record]:
        """Those that are journaled already, by id."""
        found: dict[str, Record] = {}
        for first in range(0, len(record_ids), LARGEST_BATCH):
            some = record_ids[first : first + LARGEST_BATCH]
            there = f"SELECT {_COLUMNS} FROM records WHERE record_id IN ({self._database.places(len(some))})"
            cursor.execute(there, some)
            found |= {record.record_id: record for record in map(Record._make, cursor.fetchall())}
        return found

    def _journaled_head(self, cursor: DBAPICursor) -> tuple[int, str]:
        """The sequence and hash that this writer's next record follows."""
        place = self._database.places(1)
        last = f"SELECT sequence, hash FROM records WHERE writer = {place} ORDER BY sequence DESC LIMIT 1"
        cursor.execute(last, [self.writer])
        found: tuple[int, str] | None = cursor.fetchone()
        return (0, GENESIS) if found is None else found

    def _anchor_due(self, written: int) -> bool:
        """Whether others' heads are to be journaled with so many records that are being written."""
        late = written > 0 and time.monotonic() >= self._anchor_after
        return late or self._unanchored + written >= ANCHOR_RECORDS

    def _anchored(self, cursor: DBAPICursor, chain: _Chain) -> dict[str, Seen]:
        """Link a record of the others' heads to `chain`, where there are new ones; those that it holds."""
        said = anchor(heads(cursor), self._seen, self.writer)
        if said is None:
            return {}
        record_id = f"anchor-{self.writer}-{chain.sequence + 1}"
        chain.link(said.kind, record_id, canonical(said.model_dump(mode="json")))
        return {name: Seen(head.sequence, head.hash) for name, head in said.heads.items()}

    def get(self, record_id: str) -> Record:
        """The record of that id, whichever writer wrote it; an unknown id is an `InputError`."""
        with self._connection(write=False) as connection:
            found = connection.execute(select(records).where(records.c.record_id == record_id)).first()
        if found is None:
            raise InputError("record_id", record_id, "give the id of a journaled record")
        return Record(*found)

    def read(self, *kinds: str) -> Iterator[Record]:
        """All records of these kinds (of every kind where none is given), writer by writer in chain order.

        They are those of one moment, read as they are asked for.
        """
        for kind in kinds:
            _checked_kind(kind)
        ordered = select(records).order_by(records.c.writer, records.c.sequence)
        wanted = ordered.where(records.c.kind.in_(kinds)) if kinds else ordered
        with self._connection(write=False) as connection:
            for row in connection.execute(wanted).yield_per(1000):
                yield Record(*row)

    def verify(self) -> list[Finding]:
        """Every altered, missing or reordered record of every writer; an empty list when the chains hold.

        Records that were cut off the end of a writer's chain, or written anew there, are found by what other
        writers say of it: see `Inspection.unanchored` for those that no other has seen yet.
        """
        return self.inspect().faults

    def inspect(self) -> Inspection:
        """See `journal.inspection`."""
        with self._connection(write=False) as connection:
            return inspect(connection)

    def deepest(self) -> int:
        """The most calls of `append_many` that shared one transaction since the last call of this."""
        return self._group.deepest()

    def close(self) -> None:
        """Journal where the others stand now, if this writer ever wrote, and give the connections back."""
        if self._anchor_after:
            with suppress(InputError):  # worth a try, no more: every record that was answered for is there
                self._write([], last=True)
        self._database.close()


class _Chain:
    """A writer's chain as it grows: from its head on, the records that are new."""

    def __init__(self, writer: str, sequence: int, previous: str, clock: Callable[[], int]) -> None:
        self.records: list[Record] = []
        self.sequence, self.previous = sequence, previous  # of the last one
        self._writer, self._clock = writer, clock

    def link(self, kind: str, record_id: str, payload: str) -> Record:
        """One more record."""
        self.sequence += 1
        start = (self._writer, self.sequence, kind, record_id, self._clock(), payload, self.previous)
        self.previous = chained_hash(*start)
        record = Record(*start, self.previous)
        self.records.append(record)
        return record


def _checked_kind(kind: str) -> str:
    if kind not in KINDS:
        raise InputError("kind", kind, f"give one of {', '.join(KINDS)}")
    return kind


def _checked_entry(kind: str, record_id: str, payload: Mapping[str, Any] | Canonical) -> Checked:
    text = payload if isinstance(payload, Canonical) else canonical(payload)
    return _checked_kind(kind), checked_name("record_id", record_id, 200), str(text)


def _new(wanted: list[Checked], known: Mapping[str, Record]) -> list[Checked]:
    """The entries of one request that are not journaled yet; `InputError` for one that is, as another."""
    new: dict[str, Checked] = {}
    for entry in wanted:
        record_id = entry[1]
        known_as = known.get(record_id)
        there = (
            new.setdefault(record_id, entry)
            if known_as is None
            else (known_as.kind, record_id, known_as.text)
        )
        if there != entry and not (there[0] == entry[0] and say_the_same(there[2], entry[2])):
            mend = f"is already journaled as another {there[0]}; give a new id, or the payload first sent"
            raise InputError("record_id", record_id, mend)
    return list(new.values())


_COLUMNS: Final = ", ".join(records.c.keys())
