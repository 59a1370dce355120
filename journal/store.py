"""The append-only journal in a database: records go in durably, come out by id, and can be verified.

Knows nothing of what a decision or an outcome holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from sqlalchemy import Connection, bindparam, insert, select

from journal.anchors import Seen, anchor, heads
from journal.chain import Finding
from journal.database import Database
from journal.group import Group
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
)
from market.errors import InputError

LARGEST_BATCH: Final = 10_000  # one transaction holds the write lock
ANCHOR_SECONDS: Final = 60.0  # a writer that writes looks this often where the others stand
ANCHOR_RECORDS: Final = 1_000  # and after so many records of its own

Entry = tuple[str, str, Mapping[str, Any] | Canonical]  # kind, record id, payload
Checked = tuple[str, str, str]  # kind, record id, canonical payload
Row = dict[str, Any]  # by the names of the table's columns


class Journal:
    """One writer's door to the journal at an SQLAlchemy `url`; readers see the records of all writers.

    A record is durable, as `Database` says, before `append` returns. The file and its table are made by the
    first append, never by a reader. Threads may share a Journal: what they append at once is one transaction.
    With its first record, then every `ANCHOR_SECONDS` or `ANCHOR_RECORDS` and when it is closed, a writer
    also journals where the others stand. `clock` gives nanoseconds since 1970, UTC.
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
        self._group: Group[list[Checked], list[Row]] = Group(self._write)
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
        as is a payload that is not plain JSON. Without `wait`, WouldWait where another writes just now.
        """
        if len(entries) > LARGEST_BATCH:
            raise InputError("entries", len(entries), f"give at most {LARGEST_BATCH} at a time")
        wanted = [_checked_entry(*entry) for entry in entries]
        return [_record(row) for row in self._group.ask(wanted, wait=wait)] if wanted else []

    def _write(
        self, requests: Sequence[list[Checked]], wait: bool = True, *, last: bool = False
    ) -> list[list[Row] | Exception]:
        """Write all requests in one transaction, but for those that contradict what is journaled.

        `last`: it is this writer's last, so that the others' heads are due.
        """
        answers: list[list[Row] | Exception] = []
        with self._connection(write=True, wait=wait) as connection:
            self._database.take_turn(connection)
            known = _stored(connection, [record_id for wanted in requests for _, record_id, _ in wanted])
            chain = _Chain(self.writer, *_head(connection, self.writer), self._clock)
            for wanted in requests:
                try:
                    new = _new(wanted, known)
                except InputError as error:
                    answers.append(error)
                    continue
                known |= {record_id: chain.link(kind, record_id, text) for kind, record_id, text in new}
                answers.append([known[record_id] for _, record_id, _ in wanted])
            seen = self._anchored(connection, chain, last)
            if chain.rows:
                connection.execute(insert(records), chain.rows)
        self._seen |= seen
        return answers

    def _anchored(self, connection: Connection, chain: _Chain, last: bool) -> dict[str, Seen]:
        """Link a record of the others' heads to `chain` where one is due; the heads that it holds."""
        self._unanchored += len(chain.rows)
        late = bool(chain.rows) and time.monotonic() >= self._anchor_after
        if not (last or late or self._unanchored >= ANCHOR_RECORDS):
            return {}
        self._unanchored, self._anchor_after = 0, time.monotonic() + ANCHOR_SECONDS
        said = anchor(heads(connection), self._seen, self.writer)
        if said is None:
            return {}
        record_id = f"anchor-{self.writer}-{chain.sequence + 1}"
        chain.link(said.kind, record_id, canonical(said.model_dump(mode="json")))
        return {name: Seen(head.sequence, head.hash) for name, head in said.heads.items()}

    def get(self, record_id: str) -> Record:
        """The record of that id, whichever writer wrote it; an unknown id is an `InputError`."""
        with self._connection(write=False) as connection:
            known = _stored(connection, [record_id])
        if record_id not in known:
            raise InputError("record_id", record_id, "give the id of a journaled record")
        return _record(known[record_id])

    def read(self, *kinds: str) -> Iterator[Record]:
        """All records of these kinds (of every kind where none is given), writer by writer in chain order.

        They are those of one moment, read as they are asked for.
        """
        for kind in kinds:
            _checked_kind(kind)
        ordered = select(records).order_by(records.c.writer, records.c.sequence)
        wanted = ordered.where(records.c.kind.in_(kinds)) if kinds else ordered
        with self._connection(write=False) as connection:
            for row in connection.execute(wanted).yield_per(1000).mappings():
                yield _record(dict(row))

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
    """A writer's chain as it grows: from its head on, the rows that are new."""

    def __init__(self, writer: str, sequence: int, previous: str, clock: Callable[[], int]) -> None:
        self.rows: list[Row] = []
        self.sequence = sequence
        self._writer, self._previous, self._clock = writer, previous, clock

    def link(self, kind: str, record_id: str, payload: str) -> Row:
        """The row of one more record."""
        self.sequence += 1
        start = (self._writer, self.sequence, kind, record_id, self._clock(), payload, self._previous)
        self._previous = chained_hash(*start)
        self.rows.append(dict(zip(_COLUMNS, (*start, self._previous), strict=True)))
        return self.rows[-1]


def _checked_kind(kind: str) -> str:
    if kind not in KINDS:
        raise InputError("kind", kind, f"give one of {', '.join(KINDS)}")
    return kind


def _checked_entry(kind: str, record_id: str, payload: Mapping[str, Any] | Canonical) -> Checked:
    text = payload if isinstance(payload, Canonical) else canonical(payload)
    return _checked_kind(kind), checked_name("record_id", record_id, 200), str(text)


def _new(wanted: list[Checked], known: Mapping[str, Row]) -> list[Checked]:
    """The entries of one request that are not journaled yet; `InputError` for one that is, as another."""
    new: dict[str, Checked] = {}
    for entry in wanted:
        record_id = entry[1]
        row = known.get(record_id)
        there = new.setdefault(record_id, entry) if row is None else (row["kind"], record_id, row["payload"])
        if there != entry:
            mend = f"is already journaled as another {there[0]}; give a new id, or the payload first sent"
            raise InputError("record_id", record_id, mend)
    return list(new.values())


_COLUMNS: Final = tuple(records.c.keys())
# Built once: with each append it would cost as much as to write the record.
_STORED: Final = select(records).where(records.c.record_id.in_(bindparam("ids", expanding=True)))
_HEAD: Final = (
    select(records.c.sequence, records.c.hash)
    .where(records.c.writer == bindparam("writer"))
    .order_by(records.c.sequence.desc())
    .limit(1)
)


def _stored(connection: Connection, record_ids: Sequence[str]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for first in range(0, len(record_ids), LARGEST_BATCH):
        some = record_ids[first : first + LARGEST_BATCH]
        rows = connection.execute(_STORED, {"ids": some}).mappings()
        found |= {row["record_id"]: dict(row) for row in rows}
    return found


def _head(connection: Connection, writer: str) -> tuple[int, str]:
    """The sequence and hash that the writer's next record follows."""
    row = connection.execute(_HEAD, {"writer": writer}).first()
    return (0, GENESIS) if row is None else (row.sequence, row.hash)


def _record(row: Mapping[str, Any]) -> Record:
    return Record(**{"text" if name == "payload" else name: value for name, value in row.items()})
