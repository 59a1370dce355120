import multiprocessing
import os
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import make_url

from journal.database import NothingWritten
from journal.store import Journal
from market.errors import InputError
from tests.postgres_server import PASSWORD

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def url(postgres_url):
    """An empty database of the real server."""
    plain = postgres_url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as server:
        server.execute("DROP DATABASE IF EXISTS journal_test WITH (FORCE)")
        server.execute("CREATE DATABASE journal_test")
    yield make_url(postgres_url).set(database="journal_test").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as server:
        server.execute("DROP DATABASE journal_test WITH (FORCE)")


def execute(url, *statements):
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def test_records_come_back_and_the_chain_holds(url):
    with closing(Journal(url, "a")) as a, closing(Journal(url.replace("+psycopg", ""), "b")) as b:
        first = a.append("decision", "d1", {"size": 1.25, "text": "µ\u0000"})
        assert a.append("decision", "d1", {"size": 1.25, "text": "µ\u0000"}) == first
        assert b.get("d1") == first
        assert b.append("outcome", "o1", {}).sequence == 1
        with pytest.raises(InputError, match="already journaled as another decision"):
            b.append("decision", "d1", {})
        assert [record.record_id for record in b.read("decision", "outcome")] == ["d1", "o1"]
        assert b.inspect().faults == []
        assert b.inspect().heads.keys() == {"a", "b"}


@pytest.mark.parametrize(
    "change", ["UPDATE records SET payload = '{}'", "DELETE FROM records", "TRUNCATE records"]
)
def test_the_table_refuses_to_be_changed(url, change):
    with closing(Journal(url, "a")) as journal:
        journal.append("decision", "d1", {})
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        execute(url, change)


def test_what_was_altered_or_cut_off_is_found(url):
    with closing(Journal(url, "a")) as a, closing(Journal(url, "b")) as b:
        for number in range(4):
            a.append("decision", f"d{number}", {"n": number})
        b.append("outcome", "o1", {})
        drop = "DROP TRIGGER records_refuse_change ON records"
        execute(url, drop, "UPDATE records SET payload = '{}' WHERE record_id = 'd1'")
        assert [(found.kind, found.record_id) for found in b.verify()] == [("altered", "d1")]
        execute(url, "DELETE FROM records WHERE writer = 'a' AND sequence >= 2")
        assert [(found.kind, found.sequence) for found in b.verify()] == [("missing", 2)]


def test_reading_an_empty_database_makes_nothing_and_says_so(url):
    with closing(Journal(url, "a")) as journal:
        for attempt in (journal.verify, lambda: journal.get("d1")):
            with pytest.raises(NothingWritten, match="nothing was ever written here"):
                attempt()


def test_no_error_shows_the_password(url):
    address = make_url(url).set(port=1).render_as_string(hide_password=False)
    with closing(Journal(address, "a")) as journal, pytest.raises(InputError) as caught:
        journal.append("decision", "d1", {})
    assert PASSWORD not in str(caught.value)
    assert "Connection refused" in str(caught.value)


@pytest.mark.parametrize(("setting", "level"), [("NORMAL", "off"), ("FULL", "on")])
def test_full_durability_overrules_the_servers_own_setting(url, setting, level):
    execute(url, "ALTER DATABASE journal_test SET synchronous_commit TO off")
    with (
        closing(Journal(url, "a", synchronous=setting)) as journal,
        journal._database.engine.connect() as connection,
    ):
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == level


def write_some(url, writer):
    with closing(Journal(url, writer)) as journal:
        for number in range(20):
            journal.append("decision", f"{os.getpid()}-{number}", {"n": number})
            journal.append("outcome", f"shared-{number}", {})


def test_processes_that_start_at_once_lose_nothing(url):
    processes = [SPAWN.Process(target=write_some, args=(url, name)) for name in ("a", "b", "b", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    with closing(Journal(url, "reader")) as journal:
        assert journal.verify() == []
        assert len(list(journal.read("decision"))) == 80
        assert len(list(journal.read("outcome"))) == 20


def test_no_acknowledged_decision_is_lost_when_writers_are_killed_under_load(url):
    from benchmarks._journal_writers import Load, lost_after_kill  # slow to import: not in every process

    acknowledged, lost, faults = lost_after_kill(Load(url, threads=4), processes=2, seconds=0.3)
    assert acknowledged > 0
    assert (lost, faults) == (0, 0)
