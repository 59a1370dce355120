"""The append-only journal in a database: records go in durably, come out by id, and can be verified.

Knows nothing of what a decision or an outcome holds.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from journal.chain import Fault, chain_faults
from journal.schema import GENESIS, KINDS, Record, canonical, chained_hash, metadata, records
from market.errors import InputError

LARGEST_BATCH: Final = 10_000  # one transaction holds the write lock, and its ids go into one query
BUSY_SECONDS: Final = 30.0

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
        self.writer = _checked_name("writer", writer, 128)
        if synchronous not in ("NORMAL", "FULL"):
            raise InputError("synchronous", synchronous, "give NORMAL or FULL")
        self._clock = clock
        self._engine, self._file = _engine(url, synchronous)
        self._writing = self._engine.execution_options(immediate=True)
        self._ready = False

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
        self._engine.dispose()

    @contextmanager
    def _connection(self, *, write: bool) -> Iterator[Connection]:
        """A transaction, committed at the end; what the database refuses becomes an `InputError`."""
        place = self._engine.url.render_as_string(hide_password=True)
        if self._file is not None and not write and not self._file.exists():
            raise InputError("journal", place, "give a journal that exists; nothing was ever written here")
        try:
            if write and self._file is not None and not self._ready:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            with (self._writing if write else self._engine).begin() as connection:
                if write and not self._ready:
                    metadata.create_all(connection)
                yield connection
            self._ready = self._ready or write
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise InputError("journal", place, f"{_mend(str(cause))} ({cause})") from error


def _engine(url: str, synchronous: str) -> tuple[Engine, Path | None]:
    """An engine for `url` and, for SQLite, the file it opens."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InputError("journal", url, "give a URL such as sqlite:////absolute/journal.db") from None
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed), None
    # A relative file would vanish with a submitted job's working folder, and memory with the process.
    file = Path(parsed.database or "")
    if not file.is_absolute():
        raise InputError("journal", url, "give an absolute file: sqlite:////absolute/journal.db")
    engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS})

    def prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is deferred: two writers would deadlock
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")

    def begin(connection: Connection) -> None:
        # A writer takes the lock before it reads the chain's head, so that no other can take the same place.
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine, file


def _checked_name(field: str, value: object, longest: int) -> str:
    if not (isinstance(value, str) and value.isprintable() and value.strip() and len(value) <= longest):
        raise InputError(field, value, f"give 1 to {longest} printable characters")
    return value


def _checked_kind(kind: str) -> str:
    if kind not in KINDS:
        raise InputError("kind", kind, f"give one of {', '.join(KINDS)}")
    return kind


def _checked_entry(kind: str, record_id: str, payload: Mapping[str, Any]) -> tuple[str, str, str]:
    return _checked_kind(kind), _checked_name("record_id", record_id, 200), canonical(payload)


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


def _mend(message: str) -> str:
    if "full" in message:
        return "free some disk space; nothing was written, all earlier records stand"
    if "locked" in message or "busy" in message:
        return "another process holds the journal's lock; try again"
    if "not a database" in message or "malformed" in message or "no such table" in message:
        return "this is not a whole journal: put a copy back in its place, and verify it"
    return "the database refused; nothing was written"
