import hashlib
import json
import multiprocessing
import os
import resource
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import event

from journal.group import WouldWait
from journal.schema import GENESIS, chained_hash
from journal.store import Journal
from market.errors import InputError

SPAWN = multiprocessing.get_context("spawn")


def url(folder):
    return f"sqlite:///{folder}/journal/journal.db"


@pytest.fixture
def journal(tmp_path):
    ticks = iter(range(1_000, 100_000))
    with closing(Journal(url(tmp_path), "replica-1", clock=lambda: next(ticks))) as journal:
        yield journal


def fill(journal, count, prefix="d"):
    return [journal.append("decision", f"{prefix}{n}", {"size": n}) for n in range(1, count + 1)]


def found(journal):
    return [(fault.kind, fault.sequence, fault.record_id) for fault in journal.verify()]


def tamper(folder, *statements):
    """What somebody with the file and a little patience can do."""
    with closing(sqlite3.connect(folder / "journal" / "journal.db")) as connection, connection:
        connection.execute("DROP TRIGGER IF EXISTS records_refuse_update")
        connection.execute("DROP TRIGGER IF EXISTS records_refuse_delete")
        for statement in statements:
            connection.execute(statement)


def test_an_appended_record_comes_back_by_its_id(journal):
    written = journal.append("decision", "d1", {"size": 1.25, "rule": "none", "ladder": [0, 0.25]})
    assert journal.get("d1") == written
    assert (written.writer, written.sequence, written.time) == ("replica-1", 1, 1_000)
    assert written.previous == GENESIS
    assert written.payload == {"size": 1.25, "rule": "none", "ladder": [0, 0.25]}


def test_records_are_chained_in_order(journal):
    first, second, third = fill(journal, 3)
    assert [record.sequence for record in (first, second, third)] == [1, 2, 3]
    assert (second.previous, third.previous) == (first.hash, second.hash)
    assert journal.verify() == []


def test_each_writer_has_its_own_chain_and_reads_all(tmp_path, journal):
    fill(journal, 2)
    with closing(Journal(url(tmp_path), "replica-2")) as other:
        record = other.append("outcome", "o1", {"net_r": -1.0})
        assert (record.sequence, record.previous) == (1, GENESIS)
        assert other.get("d2").writer == "replica-1"
        assert other.verify() == []


def test_a_chain_goes_on_after_the_writer_comes_back(tmp_path, journal):
    last = fill(journal, 2)[-1]
    with closing(Journal(url(tmp_path), "replica-1")) as again:
        record = again.append("model", "m1", {"version": 3})
    assert (record.sequence, record.previous) == (3, last.hash)


def test_the_same_record_twice_is_one_record(tmp_path, journal):
    first = journal.append("decision", "d1", {"a": 1, "b": 2})
    assert journal.append("decision", "d1", {"b": 2, "a": 1}) == first
    with closing(Journal(url(tmp_path), "replica-2")) as other:
        assert other.append("decision", "d1", {"a": 1, "b": 2}) == first
        assert other.append("decision", "d2", {}).sequence == 1


@pytest.mark.parametrize(
    ("kind", "payload"), [("decision", {"a": 2}), ("outcome", {"a": 1}), ("decision", {"a": 1.0})]
)
def test_the_same_id_for_something_else_is_refused(journal, kind, payload):
    journal.append("decision", "d1", {"a": 1})
    with pytest.raises(InputError, match="record_id: got 'd1'; is already journaled as another decision"):
        journal.append(kind, "d1", payload)


def test_many_are_written_in_the_order_given(journal):
    batch = [("decision", "b", {"n": 1}), ("decision", "a", {"n": 2}), ("decision", "b", {"n": 1})]
    got = journal.append_many(batch)
    assert [(record.record_id, record.sequence) for record in got] == [("b", 1), ("a", 2), ("b", 1)]
    assert journal.append_many(batch) == got
    assert journal.append_many([]) == []
    assert journal.verify() == []


@pytest.mark.parametrize("last", [("decision", "d0", {"n": 9}), ("decision", "d9", {"n": float("nan")})])
def test_a_batch_with_one_bad_entry_writes_nothing(journal, last):
    journal.append("decision", "d0", {"n": 0})
    with pytest.raises(InputError):
        journal.append_many([("decision", "d1", {"n": 1}), last])
    with pytest.raises(InputError, match="give the id of a journaled record"):
        journal.get("d1")
    assert journal.append("decision", "d2", {}).sequence == 2


@pytest.mark.parametrize(
    ("kind", "record_id", "message"),
    [
        (
            "dream",
            "d1",
            "kind: got 'dream'; give one of signal, decision, outcome, fill, narrative, model, trigger, ",
        ),
        ("decision", "", "record_id: got ''; give 1 to 200 printable characters"),
        ("decision", "a\nb", "printable"),
        ("decision", "x" * 201, "1 to 200"),
        ("decision", 7, "printable"),
    ],
)
def test_a_bad_entry_is_refused_by_name(journal, kind, record_id, message):
    with pytest.raises(InputError, match=message):
        journal.append(kind, record_id, {})


def test_too_many_entries_at_once_are_refused(journal):
    with pytest.raises(InputError, match="entries: got 10001; give at most 10000"):
        journal.append_many([("decision", "d1", {})] * 10_001)


def test_the_largest_batch_is_taken_whole(journal):
    got = journal.append_many([("decision", f"d{n}", {"n": n}) for n in range(10_000)])
    assert got[-1].sequence == 10_000
    assert journal.verify() == []


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("no url", "give a URL such as"),
        ("sqlite:///relative.db", "give an absolute file"),
        ("sqlite://", "give an absolute file"),
        ("sqlite:///:memory:", "give an absolute file"),
    ],
)
def test_a_journal_that_would_vanish_is_refused(address, message):
    with pytest.raises(InputError, match=message):
        Journal(address, "w")


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(InputError, match="writer: got ' '"):
        Journal(url(tmp_path), " ")
    with pytest.raises(InputError, match="synchronous: got 'OFF'; give NORMAL or FULL"):
        Journal(url(tmp_path), "w", synchronous="OFF")


@pytest.mark.parametrize(("setting", "level"), [("NORMAL", 1), ("FULL", 2)])
def test_the_database_runs_in_wal_mode_with_the_durability_asked_for(tmp_path, setting, level):
    with closing(Journal(url(tmp_path), "w", synchronous=setting)) as journal:
        journal.append("decision", "d1", {})
        with journal._database.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level
            assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 8000
            assert connection.exec_driver_sql("PRAGMA cache_size").scalar() == -32768


def test_reading_makes_no_file(tmp_path):
    with closing(Journal(url(tmp_path), "w")) as journal:
        for attempt in (journal.verify, lambda: journal.get("d1")):
            with pytest.raises(InputError, match="nothing was ever written"):
                attempt()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "journal" / "journal.db"
    file.parent.mkdir()
    file.write_bytes(b"not a database, but long enough to look like one" * 100)
    before = file.read_bytes()
    with closing(Journal(url(tmp_path), "w")) as journal:
        for attempt in (journal.verify, lambda: journal.append("decision", "d1", {})):
            with pytest.raises(InputError, match="not a whole journal: put a copy back"):
                attempt()
    assert file.read_bytes() == before


def test_a_full_disk_is_refused_and_earlier_records_stand(journal):
    journal.append("decision", "d1", {})
    with journal._database.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(InputError, match="free some disk space; nothing was written"):
        journal.append("decision", "d2", {"text": "x" * 100_000})
    assert journal.verify() == []
    assert journal.append("decision", "d3", {}).sequence == 2


@pytest.mark.parametrize("change", ["UPDATE records SET payload = '{}'", "DELETE FROM records"])
def test_the_table_refuses_to_be_changed(tmp_path, journal, change):
    fill(journal, 1)
    with (
        closing(sqlite3.connect(tmp_path / "journal" / "journal.db")) as connection,
        pytest.raises(sqlite3.DatabaseError, match="append-only"),
    ):
        connection.execute(change)


COLUMNS = {
    "kind": "'outcome'",
    "time": "5",
    "payload": "'{\"size\":9}'",
    "previous": "hash",
    "hash": "previous",
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("sequence", [1, 3, 5])
def test_an_altered_field_is_found_at_its_record(tmp_path, journal, column, sequence):
    fill(journal, 5)
    tamper(tmp_path, f"UPDATE records SET {column} = {COLUMNS[column]} WHERE sequence = {sequence}")
    assert found(journal) == [("altered", sequence, f"d{sequence}")]


def test_a_record_rewritten_with_a_fitting_hash_is_found_by_the_next(tmp_path, journal):
    records = fill(journal, 3)
    forged = chained_hash("replica-1", 2, "decision", "d2", records[1].time, '{"size":9}', records[0].hash)
    tamper(tmp_path, f"""UPDATE records SET payload = '{{"size":9}}', hash = '{forged}' WHERE sequence = 2""")
    assert found(journal) == [("altered", 2, "d2")]


@pytest.mark.parametrize(
    ("condition", "detail"),
    [
        ("sequence = 1", "no record has number 1"),
        ("sequence = 3", "no record has number 3"),
        ("sequence IN (2, 3, 4)", "no records have numbers 2 to 4"),
    ],
)
def test_a_missing_record_is_found(tmp_path, journal, condition, detail):
    fill(journal, 5)
    tamper(tmp_path, f"DELETE FROM records WHERE {condition}")
    assert [(fault.kind, fault.detail) for fault in journal.verify()] == [("missing", detail)]


def test_swapped_records_are_found_as_reordered(tmp_path, journal):
    fill(journal, 5)
    moves = [(2, 99), (4, 2), (99, 4)]
    tamper(tmp_path, *(f"UPDATE records SET sequence = {new} WHERE sequence = {old}" for old, new in moves))
    assert found(journal) == [("reordered", 2, "d4"), ("reordered", 4, "d2")]
    assert journal.verify()[0].detail == "was number 4"


def test_closing_the_gap_after_a_removal_is_found(tmp_path, journal):
    fill(journal, 4)
    tamper(
        tmp_path,
        "DELETE FROM records WHERE sequence = 2",
        "UPDATE records SET sequence = 2 WHERE sequence = 3",
        "UPDATE records SET sequence = 3 WHERE sequence = 4",
    )
    assert {fault.record_id for fault in journal.verify()} == {"d3", "d4"}


def test_one_writers_fault_is_not_blamed_on_another(tmp_path, journal):
    fill(journal, 3)
    with closing(Journal(url(tmp_path), "replica-2")) as other:
        fill(other, 3, prefix="e")
    tamper(tmp_path, "UPDATE records SET time = 1 WHERE record_id = 'e2'")
    assert [(fault.writer, fault.record_id) for fault in journal.verify()] == [("replica-2", "e2")]


def test_a_clock_that_goes_backwards_breaks_no_chain(tmp_path):
    ticks = iter([30, 10, 20])
    with closing(Journal(url(tmp_path), "w", clock=lambda: next(ticks))) as journal:
        assert [record.time for record in fill(journal, 3)] == [30, 10, 20]
        assert journal.verify() == []


def test_a_journal_of_the_first_format_is_read_verified_and_continued(tmp_path, journal):
    fill(journal, 3)
    digest, rows = GENESIS, []
    for number in range(1, 4):
        fields = ["ballast-journal-1", "replica-1", number, "decision", f"d{number}", number]
        text = f'{{"size":{number}e-05}}'
        previous, digest = (
            digest,
            hashlib.sha256(json.dumps([*fields, text, digest], separators=(",", ":")).encode()).hexdigest(),
        )
        rows.append(
            f"UPDATE records SET time = {number}, payload = '{text}', previous = '{previous}',"
            f" hash = '{digest}' WHERE sequence = {number}"
        )
    tamper(tmp_path, *rows)
    assert found(journal) == []
    assert journal.get("d3").gives_its_hash()
    assert journal.append("decision", "d1", {"size": 1e-5}).text == '{"size":1e-05}'
    with pytest.raises(InputError, match="already journaled as another decision"):
        journal.append("decision", "d1", {"size": 1.1e-5})
    assert journal.append("decision", "d4", {}).previous == digest
    assert found(journal) == []
    tamper(tmp_path, "UPDATE records SET payload = '{\"size\":5e-05}' WHERE sequence = 2")
    assert found(journal) == [("altered", 2, "d2")]


def test_records_of_one_kind_are_read_in_the_order_of_each_writers_chain(tmp_path, journal):
    fill(journal, 2)
    with closing(Journal(url(tmp_path), "replica-0")) as other:
        other.append_many([("outcome", "o1", {}), ("decision", "e1", {}), ("outcome", "o2", {})])
    assert [record.record_id for record in journal.read("decision")] == ["e1", "d1", "d2"]
    assert [record.record_id for record in journal.read("outcome", "model")] == ["o1", "o2"]
    assert [record.kind for record in journal.read()].count("anchor") == 1
    assert len(list(journal.read())) == 6
    with pytest.raises(InputError, match="kind: got 'dream'"):
        next(journal.read("dream"))


def test_threads_may_share_a_journal(journal):
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda n: journal.append("decision", f"d{n}", {"n": n}), range(80)))
    assert sorted(record.sequence for record in written) == list(range(1, 81))
    assert journal.verify() == []


def write_some(address, writer, count):
    with closing(Journal(address, writer)) as journal:
        for n in range(count):
            journal.append("decision", f"{writer}-{os.getpid()}-{n}", {"n": n})


def test_processes_that_start_at_once_lose_nothing(tmp_path):
    writers = ["a", "b", "c", "shared", "shared", "shared"]
    processes = [SPAWN.Process(target=write_some, args=(url(tmp_path), writer, 20)) for writer in writers]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 6
    with closing(Journal(url(tmp_path), "reader")) as journal:
        assert journal.verify() == []
    with closing(sqlite3.connect(tmp_path / "journal" / "journal.db")) as connection:
        counts = dict(
            connection.execute("SELECT writer, count(*) FROM records WHERE kind = 'decision' GROUP BY writer")
        )
    assert counts == {"a": 20, "b": 20, "c": 20, "shared": 60}


def test_no_acknowledged_decision_is_lost_when_writers_are_killed_under_load(tmp_path):
    from benchmarks._journal_writers import Load, lost_after_kill  # slow to import: not in every process

    acknowledged, lost, faults = lost_after_kill(Load(url(tmp_path), threads=4), processes=2, seconds=0.3)
    assert acknowledged > 0
    assert (lost, faults) == (0, 0)


def test_what_threads_append_at_once_is_one_transaction(journal, monkeypatch):
    groups = []
    write = journal._group._settle

    def slowly(asked, wait):
        groups.append(len(asked))
        time.sleep(0.001)  # while which the others come
        return write(asked, wait)

    monkeypatch.setattr(journal._group, "_settle", slowly)
    journal.append("decision", "first", {})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: journal.append("decision", f"d{n}", {"n": n}), range(400)))
    assert sum(groups) == 401
    assert len(groups) < 300
    assert journal.verify() == []


def test_who_does_not_wait_writes_at_once_or_not_at_all(tmp_path, journal):
    with pytest.raises(WouldWait):  # the file is still to be made
        journal.append_many([("decision", "d1", {})], wait=False)
    journal.append("decision", "d1", {})
    journal.append_many([("decision", "d2", {})], wait=False)
    with closing(sqlite3.connect(tmp_path / "journal" / "journal.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(WouldWait):
            journal.append_many([("decision", "d3", {})], wait=False)
        with ThreadPoolExecutor(1) as pool:  # who does wait still does
            patient = pool.submit(journal.append, "decision", "d4", {})
            with pytest.raises(TimeoutError):
                patient.result(0.1)
            other.execute("COMMIT")
            patient.result(30)
    journal.append_many([("decision", "d3", {})], wait=False)
    assert found(journal) == []
    assert [record.record_id for record in journal.read("decision")] == ["d1", "d2", "d4", "d3"]


def test_who_does_not_wait_keeps_one_connection_until_the_journal_is_closed(journal):
    journal.append("decision", "first", {})
    journal._database.close()  # what is open by now
    opened = []
    event.listen(journal._database.engine, "connect", lambda connection, _: opened.append(connection))
    for number in range(20):
        journal.append_many([("decision", f"d{number}", {})], wait=False)
    assert len(opened) == 1
    journal.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("SELECT 1")
    assert found(journal) == []


def test_one_threads_contradiction_refuses_nobody_elses_record(journal):
    journal.append("decision", "d", {"n": 0})
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(journal.append_many, [("decision", f"d{n}", {}), ("decision", "d", {"n": n})])
                   for n in range(40)]  # fmt: skip
    assert [future.exception() is None for future in futures] == [True] + [False] * 39
    assert [record.record_id for record in journal.read()] == ["d", "d0"]


@pytest.mark.parametrize("wait", [True, False])
def test_a_full_disk_refuses_one_record_and_takes_the_next_once_there_is_room(tmp_path, journal, wait):
    """The disk is full for this process: no file of it may grow."""
    fill(journal, 3)
    largest = max(file.stat().st_size for file in (tmp_path / "journal").iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 4096, hard))
    try:
        with pytest.raises(InputError, match="free some disk space; nothing was written, all earlier"):
            journal.append_many([("decision", "large", {"text": "x" * 1_000_000})], wait=wait)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [record.record_id for record in journal.read()] == ["d1", "d2", "d3"]
    assert journal.append("decision", "large", {"text": "x" * 1_000_000}).sequence == 4
    assert journal.verify() == []


def at_once(journal, record_id, payload):
    (record,) = journal.append_many([("decision", record_id, payload)], wait=False)
    return record


def test_who_does_not_wait_writes_nothing_twice(journal):
    fill(journal, 1)
    written = at_once(journal, "once", {"size": 1})
    assert at_once(journal, "once", {"size": 1}) == written
    assert at_once(journal, "d1", {"size": 1}).sequence == 1
    with pytest.raises(InputError, match="already journaled as another decision"):
        at_once(journal, "once", {"size": 2})
    assert at_once(journal, "next", {}).previous == written.hash
    assert [record.sequence for record in journal.read()] == [1, 2, 3]


def test_who_does_not_wait_is_sent_to_look_where_another_wrote_first(journal, tmp_path):
    """Whether it was the record or, under the same name, the chain that another went on with."""
    fill(journal, 1)
    at_once(journal, "d2", {})
    with closing(Journal(url(tmp_path), "replica-2")) as other:
        theirs = other.append("decision", "shared", {"size": 3})
    with pytest.raises(WouldWait):
        at_once(journal, "shared", {"size": 3})
    assert journal.append("decision", "shared", {"size": 3}) == theirs
    assert at_once(journal, "shared", {"size": 3}) == theirs
    with closing(Journal(url(tmp_path), "replica-1")) as twin:
        twin.append("decision", "twin", {})
    with pytest.raises(WouldWait):
        at_once(journal, "d3", {})
    assert at_once(journal, "d3", {}).sequence == 5  # it looks by itself now: after the twin's two records
    assert found(journal) == []


def test_an_old_record_is_known_again_once_it_was_looked_up(journal, monkeypatch):
    monkeypatch.setattr("journal.store.REMEMBERED", 2)
    fill(journal, 4)
    with pytest.raises(WouldWait):
        at_once(journal, "d1", {"size": 1})
    assert journal.append("decision", "d1", {"size": 1}).sequence == 1
    assert at_once(journal, "d1", {"size": 1}).sequence == 1
    assert at_once(journal, "d5", {}).sequence == 5
    assert at_once(journal, "d1", {"size": 1}).sequence == 1  # and of two the one that was asked for last
    assert at_once(journal, "d6", {}).sequence == 6
    assert at_once(journal, "d1", {"size": 1}).sequence == 1


def test_what_is_taken_otherwise_is_refused_and_not_tried_for_ever(journal, tmp_path):
    fill(journal, 1)
    refusal = "CREATE TRIGGER refuse BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'no'); END"
    tamper(tmp_path, refusal)
    with pytest.raises(WouldWait):
        at_once(journal, "d2", {})
    with pytest.raises(InputError, match="nothing was written"):
        journal.append("decision", "d2", {})
    tamper(tmp_path, "DROP TRIGGER refuse")
    assert journal.append("decision", "d3", {}).sequence == 2
    assert at_once(journal, "d2", {}).sequence == 3, "what was refused is not known to be there"
    assert journal.get("d2").sequence == 3
