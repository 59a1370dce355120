"""Bars come out of real databases unchanged, and nothing goes in; no error shows a password."""

import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import psycopg
import pytest
from sqlalchemy import make_url

from market.errors import DataError
from market.sources import load
from market.synthetic import regimes

BARS = regimes(150, seed=11, symbol="BARS")


def rows(symbol: str | None = None) -> pd.DataFrame:
    table = BARS.frame().reset_index()
    return table if symbol is None else table.assign(symbol=symbol)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """A database file with tables `bars` (text timestamps, in no order), `ticks` (epoch) and a view."""
    path = tmp_path / "a folder" / "marke#t?.db"
    path.parent.mkdir()
    table = rows()
    with closing(sqlite3.connect(path)) as connection:
        written = table.assign(timestamp=table["timestamp"].astype(str)).sample(frac=1, random_state=0)
        written.to_sql("bars", connection, index=False)
        epoch = table["timestamp"].astype("int64") // 1_000_000_000
        both = pd.concat([table.assign(timestamp=epoch, symbol=name) for name in ("A", "B")])
        both.to_sql("ticks", connection, index=False)
        connection.execute("CREATE VIEW early AS SELECT * FROM bars WHERE timestamp < '2000-01-03'")
        connection.commit()
    return f"sqlite:///{quote(str(path))}"


def test_a_sqlite_table_gives_the_bars_that_were_put_in(sqlite):
    assert load(f"{sqlite}?table=bars")[0].digest() == BARS.digest()


def test_a_sqlite_table_with_a_symbol_column_is_several_markets(sqlite):
    found = load(f"{sqlite}?table=ticks")
    assert [bars.symbol for bars in found] == ["A", "B"]
    for bars in found:
        np.testing.assert_array_equal(bars.time, BARS.time)
        np.testing.assert_array_equal(bars.close, BARS.close)


def test_a_view_and_a_query_read_like_a_table(sqlite):
    query = quote("SELECT * FROM bars WHERE timestamp < '2000-01-03 00:00' AND timestamp LIKE '2000-%'")
    by_query, by_view = load(f"{sqlite}?query={query}")[0], load(f"{sqlite}?table=early")[0]
    assert (by_query.symbol, by_view.symbol) == ("QUERY", "EARLY")
    assert len(by_query) == len(by_view) == 48
    np.testing.assert_array_equal(by_query.close, BARS.close[:48])


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM bars",
        "DROP TABLE bars",
        "INSERT INTO bars SELECT * FROM bars",
        "SELECT 1; DELETE FROM bars",
        "CREATE TABLE new (x)",
        "PRAGMA user_version = 7",
        "VACUUM",
        "ATTACH 'new.db' AS new",
    ],
)
def test_a_sqlite_source_can_only_read(query, sqlite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = next(tmp_path.rglob("*.db"))
    before = path.read_bytes()
    with pytest.raises(DataError):
        load(f"{sqlite}?query={quote(query)}")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_sqlite_file_is_not_made(tmp_path):
    with pytest.raises(DataError, match="no such database file"):
        load(f"sqlite:///{tmp_path}/new.db?table=bars")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_text("this is no database, but long enough to be looked at " * 20)
    with pytest.raises(DataError, match="file is not a database"):
        load(f"sqlite:///{tmp_path}/x.db?table=bars")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("table=nix", r"table: got 'nix'; no such table; there are bars, early, ticks"),
        ("table=bars;DROP TABLE bars", "no such table"),
        ("query=SELECT nix FROM bars", "no such column: nix"),
        ("query=SELECT close FROM bars", "column timestamp: got 'missing'.*the columns are close"),
        ("query=SELECT * FROM bars WHERE 0", "give at least one bar"),
        ("", "name one table or one query"),
        ("table=", "name one table or one query"),
        ("table=bars&query=SELECT 1", "name one table or one query"),
        ("table=bars&table=ticks", "name one table or one query"),
        ("table=bars&mode=rwc", "unknown options for SQLite"),
    ],
)
def test_a_wrong_sqlite_source_is_told_what_exists(options, message, sqlite):
    with pytest.raises(DataError, match=message):
        load(f"{sqlite}?{options}")


def test_a_fault_in_a_database_is_named_like_any_other(sqlite, tmp_path):
    with closing(sqlite3.connect(next(tmp_path.rglob("*.db")))) as connection:
        connection.execute("UPDATE bars SET high = 'high' WHERE timestamp LIKE '2000-01-01 05%'")
        connection.execute("UPDATE bars SET volume = NULL WHERE timestamp LIKE '2000-01-01 07%'")
        connection.commit()
    with pytest.raises(DataError, match=r"column high: got 'high'.*2 of 150 rows fail"):
        load(f"{sqlite}?table=bars")


@pytest.fixture(scope="module")
def postgres(postgres_url: str) -> Iterator[str]:
    """A database of its own with `bars` (naive timestamps, decimals) and `desk.ticks` (zones, a symbol)."""
    with psycopg.connect(plain(postgres_url), autocommit=True) as server:
        server.execute("CREATE DATABASE market_test")
        url = make_url(postgres_url).set(database="market_test").render_as_string(hide_password=False)
        with psycopg.connect(plain(url)) as connection:
            prices = "open numeric, high numeric, low numeric, close numeric, volume numeric"
            connection.execute(f"CREATE TABLE bars (timestamp timestamp, {prices})")
            connection.execute("CREATE SCHEMA desk")
            connection.execute(f"CREATE TABLE desk.ticks (symbol text, timestamp timestamptz, {prices})")
            shuffled = BARS.frame().reset_index().sample(frac=1, random_state=0)
            with connection.cursor() as cursor:
                for row in shuffled.itertuples(index=False):
                    values = [repr(value) for value in row[1:]]
                    stamp = row[0].tz_localize(None).isoformat()
                    cursor.execute("INSERT INTO bars VALUES (%s, %s, %s, %s, %s, %s)", [stamp, *values])
                    there = row[0].tz_convert("Asia/Tokyo").isoformat()
                    cursor.execute(
                        "INSERT INTO desk.ticks VALUES ('T', %s, %s, %s, %s, %s, %s)", [there, *values]
                    )
        yield url
        server.execute("DROP DATABASE market_test WITH (FORCE)")


def plain(url: str) -> str:
    return url.replace("+psycopg", "")


def test_a_postgresql_table_gives_the_bars_that_were_put_in(postgres):
    assert load(f"{postgres}?table=bars")[0].digest() == BARS.digest()
    assert load(f"{plain(postgres)}?table=public.bars")[0].digest() == BARS.digest()


def test_postgresql_time_zones_are_the_same_instants(postgres):
    (bars,) = load(f"{postgres}?table=desk.ticks&options=-c%20timezone%3DAmerica/New_York")
    assert bars.symbol == "T"
    np.testing.assert_array_equal(bars.time, BARS.time)


def test_an_instant_that_a_query_makes_naive_is_utc_whatever_the_server_thinks(postgres):
    query = quote("SELECT timestamp::timestamp AS timestamp, open, high, low, close FROM desk.ticks")
    (bars,) = load(f"{postgres}?query={query}&options=-c%20timezone%3DAmerica/New_York")
    np.testing.assert_array_equal(bars.time, BARS.time)


def test_a_postgresql_query_is_taken_word_for_word(postgres):
    query = (
        "SELECT *, ':no %s parameter' AS note FROM bars "
        "WHERE timestamp::text LIKE '2000-01-01%' AND timestamp >= '2000-01-01 12:00:00';"
    )
    (bars,) = load(f"{postgres}?query={quote(query)}")
    np.testing.assert_array_equal(bars.close, BARS.close[12:24])


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM bars",
        "WITH gone AS (DELETE FROM bars RETURNING *) SELECT * FROM gone",
        "SELECT 1; DELETE FROM bars",
        "SELECT 1 AS a; COMMIT; BEGIN READ WRITE; DELETE FROM bars; COMMIT; SELECT 1 AS a",
        "COMMIT; BEGIN READ WRITE; DROP TABLE bars; COMMIT; SELECT 1 AS a",
        "SET default_transaction_read_only = off",
        "CREATE TABLE new (x int)",
        "SELECT * INTO new FROM bars",
    ],
)
def test_a_postgresql_source_can_only_read(query, postgres):
    with pytest.raises(DataError):
        load(f"{postgres}?query={quote(query)}")
    with psycopg.connect(plain(postgres)) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert tables == [("bars",)]
        assert connection.execute("SELECT count(*) FROM bars").fetchall() == [(150,)]


def test_a_postgresql_session_is_read_only_even_for_a_function(postgres):
    with psycopg.connect(plain(postgres)) as connection:
        connection.execute("CREATE FUNCTION wipe() RETURNS int LANGUAGE sql AS 'DELETE FROM bars; SELECT 1'")
    with pytest.raises(DataError, match="cannot execute DELETE in a read-only transaction"):
        load(f"{postgres}?query={quote('SELECT wipe() AS a')}")


def test_a_missing_postgresql_table_lists_what_exists(postgres):
    with pytest.raises(DataError, match="got 'nix'; no such table; there are bars"):
        load(f"{postgres}?table=nix")
    with pytest.raises(DataError, match=r"got 'desk\.nix'; no such table; there are ticks"):
        load(f"{postgres}?table=desk.nix")


def test_no_connection_is_left_open(postgres):
    load(f"{postgres}?table=bars")
    with pytest.raises(DataError):
        load(f"{postgres}?query=SELECT")
    with psycopg.connect(plain(postgres)) as connection:
        others = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = 'market_test' AND pid <> pg_backend_pid()"
        )
        # A server process ends a moment after its client.
        for _ in range(100):
            count = connection.execute(others).fetchone()
            connection.rollback()
            if count == (0,):
                break
            connection.execute("SELECT pg_sleep(0.05)")
        assert count == (0,)


@pytest.mark.parametrize("change", ["password", "database", "port", "option", "parameter"])
def test_no_error_of_a_database_shows_the_password(change, postgres):
    url = make_url(postgres)
    wrong = {
        "password": url.set(password="pa55 w@rd"),
        "database": url.set(database="pa55"),
        "port": url.set(port=1),
        "option": url.update_query_dict({"pa55": "x"}),
        "parameter": url.set(password=None).update_query_dict({"password": "pa55 w@rd"}),
    }[change]
    source = wrong.update_query_dict({"table": "bars"}).render_as_string(hide_password=False)
    with pytest.raises(DataError) as caught:
        load(source)
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value)
    for secret in ("s3cret-w0rd", "pa55 w", "pa55%20w", "pa55+w"):
        assert secret not in shown


@pytest.mark.parametrize("source", ["db:5/x?table=a&", "db/x?table=a&sslpassword=pa55%20w@rd&"])
def test_a_password_in_a_drivers_own_message_is_blotted_out(source, monkeypatch):
    def refuse(*words: object, **options: object) -> None:
        raise psycopg.OperationalError(f"bad options {options}, that is pa55%20w%40rd")

    monkeypatch.setattr(psycopg, "connect", refuse)
    whole = f"postgresql://me:pa55%20w%40rd@{source}"
    with pytest.raises(DataError, match=r"bad options .*\*\*\*.*, that is \*\*\*") as caught:
        load(whole)
    assert "pa55" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "source",
    [
        "postgresql://me:pa55@host:port/db?table=x",
        "postgresql+asyncpg://me:pa55@host/db?table=x",
        "postgresql://me:pa55@host/db",
        "sqlite+pysqlcipher://me:pa55@/x.db?table=x",
        "postgresql+psycopg://me:pa55@[::1/db?table=x",
    ],
)
def test_a_source_that_cannot_be_used_shows_no_password(source):
    with pytest.raises(DataError) as caught:
        load(source)
    assert "pa55" not in "".join(traceback.format_exception(caught.value))
