"""Bars from SQLite or PostgreSQL, read-only. Knows nothing of who keeps the tables.

A source is a SQLAlchemy URL with `table=NAME` (or `SCHEMA.NAME`) or `query=SELECT …` among its query
parameters; these are taken out before connecting. No error shows a password.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from sqlalchemy import URL, Connection, Engine, create_engine, inspect, make_url, select, table, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from market.bars import Bars
from market.errors import DataError, first_line
from market.frames import bars_from_frame

_WANTED = (
    "give sqlite:///PATH?table=NAME or postgresql+psycopg://USER@HOST/DATABASE?table=NAME, "
    "or query=SELECT … instead of the table"
)
_CONNECT_SECONDS = "10"
_SESSION = "-c default_transaction_read_only=on -c timezone=UTC"


def load_sql(source: str) -> tuple[Bars, ...]:
    """Bars per symbol from the table or query of a URL, ordered by timestamp; `DataError` where that fails.

    A result without a `symbol` column is one symbol, named by its table, or `QUERY`.
    """
    try:
        url = make_url(source)
    except (ArgumentError, ValueError):
        # The text may hold a password, so not even a part of it is shown.
        raise DataError("source", "a database URL that cannot be parsed", _WANTED) from None
    options = dict(url.query)
    name, query = options.pop("table", None), options.pop("query", None)
    shown = f"{url.drivername}://{url.host or ''}/{url.database or ''}"
    if (name is None) == (query is None) or not isinstance(name or query, str):
        raise DataError("source", shown, f"name one table or one query; {_WANTED}")
    engine = _engine(url.set(query=options), shown)
    try:
        with engine.connect() as connection:
            frame = _table(connection, shown, str(name)) if name else _query(connection, shown, str(query))
    except (SQLAlchemyError, sqlite3.Error) as error:
        said = first_line(getattr(error, "orig", None) or error)
        # The original error is not chained: it may show the whole URL.
        raise DataError("source", shown, f"cannot be read: {_without_secrets(said, url)}") from None
    return bars_from_frame(frame, str(name).rpartition(".")[2] if name else "QUERY", sort=True)


def _engine(url: URL, shown: str) -> Engine:
    """An engine whose sessions can only read."""
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        path = Path(url.database or "")
        if not path.is_file():
            raise DataError("source", shown, f"no such database file; {_WANTED}")
        if url.query:
            raise DataError("source", ", ".join(url.query), f"unknown options for SQLite; {_WANTED}")
        address = f"file:{quote(str(path.resolve()))}?mode=ro"
        return create_engine("sqlite://", creator=lambda: _opened(address), poolclass=NullPool)
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        options = dict(url.query)
        options.setdefault("connect_timeout", _CONNECT_SECONDS)
        options["options"] = f"{options.get('options', '')} {_SESSION}".strip()
        return create_engine(url.set(drivername="postgresql+psycopg", query=options), poolclass=NullPool)
    raise DataError("source", shown, _WANTED)


def _opened(address: str) -> sqlite3.Connection:
    """A read-only connection that cannot attach, and by that create, another file."""
    connection = sqlite3.connect(address, uri=True)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    return connection


def _table(connection: Connection, shown: str, name: str) -> pd.DataFrame:
    schema, _, bare = name.rpartition(".")
    there = inspect(connection)
    names = sorted(there.get_table_names(schema or None) + there.get_view_names(schema or None))
    if bare not in names:
        raise DataError(
            f"source {shown} table", name, f"no such table; there are {', '.join(names) or 'none'}"
        )
    rows = connection.execute(select(text("*")).select_from(table(bare, schema=schema or None)))
    return pd.DataFrame(rows.fetchall(), columns=list(rows.keys()))


def _query(connection: Connection, shown: str, query: str) -> pd.DataFrame:
    # The text goes to the driver as it is (no colon or percent sign starts a parameter), and in PostgreSQL to
    # a server-side cursor, which takes one SELECT: a second statement could make the session writable again.
    only = connection.execution_options(no_parameters=True, stream_results=True)
    rows = only.exec_driver_sql(query)
    if not rows.returns_rows:
        raise DataError(f"source {shown} query", query, "give a SELECT that returns rows")
    return pd.DataFrame(rows.fetchall(), columns=list(rows.keys()))


def _without_secrets(said: str, url: URL) -> str:
    secrets = [url.password, *(value for key, value in url.query.items() if "password" in key.lower())]
    for secret in secrets:
        for form in {str(secret), quote(str(secret), safe="")} if secret else ():
            said = said.replace(form, "***")
    return said
