"""A database that others write to at the same time: SQLite in WAL mode with one writer, or PostgreSQL.

Knows nothing of what its tables hold.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from market.errors import InputError

BUSY_SECONDS: Final = 30.0
_FIRST_USE: Final = 0x42414C4C  # the advisory lock under which PostgreSQL's tables are made


class Database:
    """The tables of `tables` in the database at an SQLAlchemy `url`; errors call it by its `name`.

    What a transaction wrote is durable once it ends. With SQLite (WAL) and `synchronous="NORMAL"` that means
    it survives the death of this process; `"FULL"` also makes it survive the loss of power, at one disk flush
    per transaction. Another database brings its own setting. The file and its tables are made by the first
    writing transaction, never by a reader. Threads may share a Database.
    """

    def __init__(
        self, url: str, tables: MetaData, name: str, *, synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    ) -> None:
        if synchronous not in ("NORMAL", "FULL"):
            raise InputError("synchronous", synchronous, "give NORMAL or FULL")
        self.engine, self._file = _engine(url, name, synchronous)
        self._writing = self.engine.execution_options(immediate=True)
        self._tables, self._name, self._ready = tables, name, False

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """A transaction, committed at the end; what the database refuses becomes an `InputError`."""
        place = self.engine.url.render_as_string(hide_password=True)
        if self._file is not None and not write and not self._file.exists():
            mend = f"give a {self._name} that exists; nothing was ever written here"
            raise InputError(self._name, place, mend)
        try:
            if write and self._file is not None and not self._ready:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            with (self._writing if write else self.engine).begin() as connection:
                if write and not self._ready:
                    self._create(connection)
                yield connection
            self._ready = self._ready or write
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise InputError(self._name, place, f"{_mend(str(cause), self._name)} ({cause})") from error

    def close(self) -> None:
        """Give the database connections back."""
        self.engine.dispose()

    def _create(self, connection: Connection) -> None:
        if self.engine.dialect.name == "postgresql":  # where two processes may both find no table yet
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_FIRST_USE})")
        self._tables.create_all(connection)


def _engine(url: str, name: str, synchronous: str) -> tuple[Engine, Path | None]:
    """An engine for `url` and, for SQLite, the file it opens."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InputError(name, url, f"give a URL such as sqlite:////absolute/{name}.db") from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise InputError(name, backend, "give the URL of a SQLite or PostgreSQL database")
    if backend != "sqlite":
        return create_engine(parsed), None
    # A relative file would vanish with a submitted job's working folder, and memory with the process.
    file = Path(parsed.database or "")
    if not file.is_absolute():
        raise InputError(name, url, f"give an absolute file: sqlite:////absolute/{name}.db")
    engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS})

    def prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is deferred: two writers would deadlock
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")

    def begin(connection: Connection) -> None:
        # A writer takes the lock before it reads what it will change, so that no other can do the same.
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine, file


def _mend(message: str, name: str) -> str:
    if "full" in message:
        return "free some disk space; nothing was written, all earlier records stand"
    if "locked" in message or "busy" in message:
        return f"another process holds the {name}'s lock; try again"
    if "not a database" in message or "malformed" in message or "no such table" in message:
        return f"this is not a whole {name}: put a copy back in its place, and verify it"
    return "the database refused; nothing was written"
