"""Where feature streams rest between requests: one row each, replaced by compare-and-set on the bars seen.

Knows nothing of features: a state is bytes, an answer is text. Any replica finds what any other has left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from journal.database import Database, NothingWritten
from market.errors import InputError

STREAMS_VARIABLE: Final = "BALLAST_STREAMS"  # an SQLAlchemy URL; BALLAST_HOME/streams/streams.db where unset
MOST_OF_ONE: Final = 1_000  # streams of one owner
MOST: Final = 10_000  # streams of a home, some 6 kB each
IDLE_DAYS: Final = 30  # a stream that nobody has fed for so long is gone
_DAY: Final = 86_400_000_000_000  # ns

_tables = MetaData()
_streams = Table(
    "feature_streams",
    _tables,
    Column("owner", String(64), primary_key=True),
    Column("stream", String(64), primary_key=True),
    Column("seen", BigInteger, nullable=False),
    Column("fed", BigInteger, nullable=False),  # ns since 1970, UTC
    Column("latest", String(64), nullable=False),
    Column("answer", Text, nullable=False),
    Column("state", LargeBinary, nullable=False),
)
Index("feature_streams_by_time", _streams.c.fed)


class Kept(NamedTuple):
    """A stream as it rests: `latest` is the digest of its latest update, `answer` what that was answered."""

    seen: int
    latest: str
    answer: str
    state: bytes
    fed: int = 0  # ns since 1970, UTC; the store's own to set


class TooMany(InputError):
    """A stream that would be one more than may be kept; nothing was stored."""


class StreamStore:
    """The streams of a home in the database at an SQLAlchemy `url`, SQLite or PostgreSQL.

    Each belongs to an `owner`: another's stream of the same id is another stream. What the database refuses
    is an `InputError` of the field `streams`. Threads and processes may share the streams.
    """

    def __init__(self, url: str, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._database, self._clock = Database(url, _tables, "streams"), clock

    def find(self, owner: str, stream: str) -> Kept | None:
        """The stream as it rests, None where there is none or it has been idle for 30 days."""
        columns = [_streams.c[name] for name in Kept._fields]
        alive = and_(_is(owner, stream), _streams.c.fed >= self._oldest())
        try:
            with self._database.transaction(write=False) as connection:
                row = connection.execute(select(*columns).where(alive)).one_or_none()
        except NothingWritten:
            return None
        return None if row is None else Kept(*row)

    def put(self, owner: str, stream: str, before: Kept | None, kept: Kept) -> bool:
        """Replace `before` by `kept` if it still rests there (None: if nothing does); whether it did.

        Raises `TooMany` for a new stream beyond 1,000 of the owner or 10,000 of the home, idle ones not
        counted.
        """
        values = kept._replace(fed=self._clock())._asdict()
        with self._database.transaction(write=True) as connection:
            if before is not None:
                # The moment besides the count: a stream that was deleted and begun anew may have the same.
                unchanged = and_(
                    _is(owner, stream), _streams.c.seen == before.seen, _streams.c.fed == before.fed
                )
                return connection.execute(update(_streams).where(unchanged).values(values)).rowcount == 1
            self._database.take_turn(connection)  # or two might both be the last one that may be
            connection.execute(delete(_streams).where(_streams.c.fed < self._oldest()))
            if connection.scalar(select(_streams.c.seen).where(_is(owner, stream))) is not None:
                return False
            count = select(func.count()).select_from(_streams)
            for counted, most, whose in (
                (count.where(_streams.c.owner == owner), MOST_OF_ONE, "this key"),
                (count, MOST, "this home"),
            ):
                if (connection.scalar(counted) or 0) >= most:
                    mend = f"{whose} has {most:,} streams, as many as it may: DELETE one first"
                    raise TooMany("stream_id", stream, mend)
            connection.execute(insert(_streams), {"owner": owner, "stream": stream, **values})
            return True

    def drop(self, owner: str, stream: str) -> None:
        """Forget the stream, whether there is one or not."""
        with self._database.transaction(write=True) as connection:
            connection.execute(delete(_streams).where(_is(owner, stream)))

    def _oldest(self) -> int:
        return self._clock() - IDLE_DAYS * _DAY


def open_streams(home: Path, environment: Mapping[str, str]) -> StreamStore:
    """The streams of `home`."""
    return StreamStore(environment.get(STREAMS_VARIABLE) or f"sqlite:///{home / 'streams' / 'streams.db'}")


def _is(owner: str, stream: str) -> ColumnElement[bool]:
    return and_(_streams.c.owner == owner, _streams.c.stream == stream)
