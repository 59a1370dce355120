"""The append-only journal in a database: records go in durably, come out by id, and can be verified.

Knows nothing of what a decision or an outcome holds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final, Literal

from sqlalchemy import Connection, insert, select

from journal.chain import Fault, chain_faults
from journal.database import Database
from journal.schema import GENESIS, KINDS, Record, canonical, chained_hash, checked_name, metadata, records
from market.errors import InputError

LARGEST_BATCH: Final = 10_000  # one transaction holds the write lock, and its ids go into one query

Entry = tuple[str, str, Mapping[str, Any]]  # kind, record id, payload


class Journal:
    """One writer's door to the journal at an SQLAlchemy `url`; readers see the records of all writers.

    A record is durable before `append` returns. With SQLite (WAL) and `synchronous="NORMAL"` that means it
    survives the death of this process; `"FULL"` also makes it survive the loss of power, at one disk flush
    per transaction. Another database brings its own setting. The file and its table are made by the first
    append, never by a reader. Threads may share a Journal. `clock` gives nanoseconds since 1970, UTC.
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

    def append(self, kind: str, record_id: str, payload: Mapping[str, Any]) -> Record:
        """Journal one record; see `append_many`."""
        return self.append_many([(kind, record_id, payload)])[0]

    def append_many(self, entries: Sequence[Entry]) -> list[Record]:
        """Journal all entries in one transaction, all or none, and return their records in the order given.

        An entry that is already there (same id, kind and payload, by whichever writer) gives the record that
        exists, so a retry writes nothing twice. The same id with another kind or payload is an `InputError`,
        as is a payload that is not plain JSON.
        """
        if len(entries) > LARGEST_BATCH:
            raise InputError("entries", len(entries), f"give at most {LARGEST_BATCH} at a time")
        wanted = [_checked_entry(*entry) for entry in entries]
        with self._connection(write=True) as connection:
            known = _stored(connection, [record_id for _, record_id, _ in wanted])
            sequence, previous = _head(connection, self.writer)
            rows: list[dict[str, Any]] = []
            for kind, record_id, payload in wanted:
                if record_id in known:
                    _check_same(known[record_id], kind, payload)
                    continue
                sequence, moment = sequence + 1, self._clock()
                digest = chained_hash(self.writer, sequence, kind, record_id, moment, payload, previous)
                fields = (self.writer, sequence, kind, record_id, moment, payload, previous, digest)
                known[record_id] = dict(zip(records.c.keys(), fields, strict=True))
                rows.append(known[record_id])
                previous = digest
            if rows:
                connection.execute(insert(records), rows)
        return [_record(known[record_id]) for _, record_id, _ in wanted]

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

    def verify(self) -> list[Fault]:
        """Every altered, missing or reordered record of every writer; an empty list when the chains hold.

        The chain alone cannot tell that the newest records of a writer were cut off, nor that a whole tail
        was rewritten with new hashes: that takes a copy of its head kept elsewhere.
        """
        faults: list[Fault] = []
        with self._connection(write=False) as connection:
            ordered = connection.execute(select(records).order_by(records.c.writer, records.c.sequence))
            for writer, rows in groupby(ordered.yield_per(1000), key=lambda row: str(row.writer)):
                faults += chain_faults(writer, rows, partial(_links, connection, writer))
        return faults

    def close(self) -> None:
        """Give the database connections back."""
        self._database.close()


def _checked_kind(kind: str) -> str:
    if kind not in KINDS:
        raise InputError("kind", kind, f"give one of {', '.join(KINDS)}")
    return kind


def _checked_entry(kind: str, record_id: str, payload: Mapping[str, Any]) -> tuple[str, str, str]:
    return _checked_kind(kind), checked_name("record_id", record_id, 200), canonical(payload)


def _check_same(stored: Mapping[str, Any], kind: str, payload: str) -> None:
    if (stored["kind"], stored["payload"]) != (kind, payload):
        mend = f"is already journaled as another {stored['kind']}; give a new id, or the payload first sent"
        raise InputError("record_id", stored["record_id"], mend)


def _stored(connection: Connection, record_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = connection.execute(select(records).where(records.c.record_id.in_(record_ids))).mappings()
    return {row["record_id"]: dict(row) for row in rows}


def _head(connection: Connection, writer: str) -> tuple[int, str]:
    """The sequence and hash that the writer's next record follows."""
    newest = select(records.c.sequence, records.c.hash).where(records.c.writer == writer)
    row = connection.execute(newest.order_by(records.c.sequence.desc()).limit(1)).first()
    return (0, GENESIS) if row is None else (row.sequence, row.hash)


def _record(row: Mapping[str, Any]) -> Record:
    return Record(**{**row, "payload": json.loads(row["payload"])})


def _links(connection: Connection, writer: str) -> Iterable[tuple[str, str]]:
    """The hash that each of the writer's records claims, and the hash it claims to follow."""
    pairs = connection.execute(select(records.c.hash, records.c.previous).where(records.c.writer == writer))
    return ((row.hash, row.previous) for row in pairs)
