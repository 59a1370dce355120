"""A database that others write to at the same time: SQLite in WAL mode with one writer, or PostgreSQL.

Knows nothing of what its tables hold.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from journal.group import WouldWait
from market.errors import InputError, first_line

BUSY_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 10
IMMEDIATE: Final = "immediate"  # of a connection: its next transaction writes
LARGEST_WAL: Final = 8_000  # pages of 4 kB, after which the -wal file beside the database is begun anew
SETTINGS: Final = (  # of every connection to SQLite
    # A batch changes a page or so for each record: with SQLite's own 1,000 pages a large one would wait for
    # the disk to take in what was changed, and 2 MB do not hold an index of ids that come in no order.
    f"wal_autocheckpoint={LARGEST_WAL}",
    "cache_size=-32768",  # kB
)
MOMENT_MS: Final = 20
ROWS: Final = 2_000  # of turns that do not wait, after which its pages are copied into the database
UNDEFINED_TABLE: Final = "42P01"  # as PostgreSQL says it


class NothingWritten(InputError):
    """A database that does not exist yet: nothing was ever written there."""


class Taken(InputError):
    """A constraint refused what was to be written: as a rule, another has written there first."""


class Database:
    """The tables of `tables` in the database at an SQLAlchemy `url`; errors call it by its `name`.

    What a transaction wrote is durable once it ends. With SQLite (WAL) and `synchronous="NORMAL"` that means
    it survives the death of this process; `"FULL"` also makes it survive the loss of power, at one disk flush
    per transaction. PostgreSQL does as its server is set up, and with `"FULL"` flushes in any case. The file
    and its tables are made by the first writing transaction, never by a reader. Threads may share a Database.
    """

    def __init__(
        self, url: str, tables: MetaData, name: str, *, synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    ) -> None:
        if synchronous not in ("NORMAL", "FULL"):
            raise InputError("synchronous", synchronous, "give NORMAL or FULL")
        self.engine, self._file = _engine(url, name, synchronous)
        self._place = self.engine.url.render_as_string(hide_password=True)
        self._tables, self._name, self._ready = tables, name, False
        self._kept: list[PoolProxiedConnection] = []  # that wait for nobody
        self._rows = 0  # that one of them had written when what they write was last copied
        self._copying = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._copied: Future[None] | None = None  # or is being copied just now
        driver = self.engine.dialect.loaded_dbapi
        self._errors = (SQLAlchemyError, driver.Error, OSError, UnicodeDecodeError)
        self._taken = driver.IntegrityError
        self._nothing = f"give a {name} that exists; nothing was ever written here"
        self._place_mark, self._turn = "?", "BEGIN IMMEDIATE"
        if self._file is None:
            self._place_mark, self._turn = "%s", f"SELECT pg_advisory_xact_lock({zlib.crc32(name.encode())})"

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """A transaction, committed at the end; what the database refuses becomes an `InputError`."""
        if self._file is not None and not write and not self._file.exists():
            raise NothingWritten(self._name, self._place, self._nothing)
        with self._refusals():
            if write and self._file is not None and not self._ready:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            with self.engine.connect() as connection:
                connection.info[IMMEDIATE] = write
                with connection.begin():
                    if write and not self._ready:
                        self._create(connection)
                    yield connection
            self._ready = self._ready or write

    @contextmanager
    def turn(self, *, wait: bool = True) -> Iterator[DBAPICursor]:
        """A writing transaction, begun when no other has its turn: the driver's own cursor.

        Statements are in the driver's style, with `places` where values go: what SQLAlchemy does for a small
        transaction costs several times what the database does. Without `wait`, WouldWait where another has
        its turn, on the first write, and always with PostgreSQL, whose every answer is waited for.
        """
        if not wait and not (self._ready and self._file is not None):
            raise WouldWait
        if not self._ready:
            with self.transaction(write=True):
                pass  # the tables are there
        try:
            connection = self.engine.raw_connection() if wait else self._at_once()
            try:
                cursor = connection.cursor()
                if wait:
                    cursor.execute(self._turn)
                else:
                    _begin_at_once(cursor)
                yield cursor
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
            finally:
                if wait:
                    connection.close()
                else:
                    self._keep(connection)
        except self._errors as error:
            raise self._refused(error) from error

    def _at_once(self) -> PoolProxiedConnection:
        """A connection to SQLite that waits for nobody, and is kept: a pool's would cost a quarter more."""
        try:
            return self._kept.pop()
        except IndexError:
            return self._apart("busy_timeout=0", "wal_autocheckpoint=0")

    def _apart(self, *settings: str) -> PoolProxiedConnection:
        """A connection to SQLite that no other turn gets, because it has settings of its own."""
        connection = self.engine.raw_connection()
        connection.detach()
        for setting in settings:
            connection.cursor().execute(f"PRAGMA {setting}")
        return connection

    def _keep(self, connection: PoolProxiedConnection) -> None:
        """Keep such a connection for the next turn."""
        self._kept.append(connection)
        driver = connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        if driver.total_changes - self._rows >= ROWS:
            self._rows = driver.total_changes
            self._copied = self._copying.submit(self._checkpoint)

    def _checkpoint(self) -> None:
        """Copy what turns that do not wait have written from the -wal file into the database.

        SQLite would have one turn in many do it, which takes it tens of milliseconds. While writers go on
        something is always left to copy, so that the file would grow for ever: when it is large they wait for
        the rest, but no longer than a moment for whoever still reads in it.
        """
        with suppress(*self._errors), closing(self._apart(f"busy_timeout={MOMENT_MS}")) as connection:
            cursor = connection.cursor()
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
            _, pages, _ = cursor.fetchone() or (0, 0, 0)
            if pages >= LARGEST_WAL:
                cursor.execute("PRAGMA wal_checkpoint(RESTART)")

    def places(self, count: int) -> str:
        """So many values in a statement of a `turn`."""
        return ",".join([self._place_mark] * count)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What the database refuses becomes an `InputError`."""
        try:
            yield
        except self._errors as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> InputError:
        """What to raise for what the database said."""
        driver_error = getattr(error, "orig", None) or error
        if getattr(driver_error, "sqlstate", None) == UNDEFINED_TABLE or self._unborn(driver_error):
            return NothingWritten(self._name, self._place, self._nothing)
        cause = first_line(driver_error)
        kind = Taken if isinstance(driver_error, self._taken) else InputError
        return kind(self._name, self._place, f"{_mend(cause, self._name)} ({cause})")

    def close(self) -> None:
        """Give the database connections back."""
        if self._copied is not None:
            self._copied.result()
        while self._kept:
            self._kept.pop().close()
        self.engine.dispose()

    def take_turn(self, connection: Connection) -> None:
        """Wait until no other transaction has a turn here; the turn ends with the transaction.

        SQLite's writing transactions come one after another by themselves.
        """
        if self._file is None:
            connection.exec_driver_sql(self._turn)

    def _unborn(self, error: BaseException) -> bool:
        """Whether an SQLite file was there without tables: its first writer is just making them."""
        if "no such table" not in str(error):
            return False
        with suppress(SQLAlchemyError), self.engine.connect() as connection:
            found = set(inspect(connection).get_table_names())
            return not found or self._tables.tables.keys() <= found
        return False

    def _create(self, connection: Connection) -> None:
        self.take_turn(connection)  # or two processes may both find no table yet
        self._tables.create_all(connection)


def _engine(url: str, name: str, synchronous: str) -> tuple[Engine, Path | None]:
    """An engine for `url` and, for SQLite, the file it opens."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password, so not even a part of it is shown.
        mend = f"give a URL such as sqlite:////absolute/{name}.db"
        raise InputError(name, "a URL that cannot be parsed", mend) from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise InputError(name, backend, "give the URL of a SQLite or PostgreSQL database")
    if backend != "sqlite":
        return _postgresql(parsed, synchronous), None
    # A relative file would vanish with a submitted job's working folder, and memory with the process.
    file = Path(parsed.database or "")
    if not file.is_absolute():
        raise InputError(name, url, f"give an absolute file: sqlite:////absolute/{name}.db")
    engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS})

    def prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is deferred: two writers would deadlock
        _use_wal(connection)
        for setting in (f"synchronous={synchronous}", *SETTINGS):
            connection.execute(f"PRAGMA {setting}")

    def begin(connection: Connection) -> None:
        # A writer takes the lock before it reads what it will change, so that no other can do the same.
        immediate = connection.info.pop(IMMEDIATE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine, file


def _begin_at_once(cursor: DBAPICursor) -> None:
    """Begin to write to SQLite; WouldWait where another is at it."""
    try:
        cursor.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # of which there are several kinds
            raise
        raise WouldWait from error


def _use_wal(connection: sqlite3.Connection) -> None:
    """Put the file into WAL mode, which it keeps. Of those who do so at once SQLite lets some not wait."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _postgresql(url: URL, synchronous: str) -> Engine:
    settings = f"-c lock_timeout={BUSY_SECONDS:.0f}s"
    if synchronous == "FULL":
        settings += " -c synchronous_commit=on"
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": CONNECT_SECONDS, "options": settings},
        pool_pre_ping=True,  # a server that was restarted costs no answer
    )


def _mend(message: str, name: str) -> str:
    if "full" in message or "No space" in message or "disk I/O error" in message:
        return "free some disk space; nothing was written, all earlier records stand"
    if "locked" in message or "busy" in message or "lock timeout" in message:
        return f"another process holds the {name}'s lock; try again"
    if (
        "not a database" in message
        or "malformed" in message
        or "no such table" in message
        or "codec" in message
    ):
        return f"this is not a whole {name}: put a copy back in its place, and verify it"
    return "the database refused; nothing was written"
