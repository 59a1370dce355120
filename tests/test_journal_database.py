"""What many do to one database file at the same moment."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier

from journal.database import Database, _use_wal
from journal.schema import metadata

THREADS, FILES = 8, 60


def test_those_who_open_a_new_file_at_once_all_wait_for_its_wal_mode(tmp_path):
    """SQLite itself refuses some of them at once, whatever its busy timeout says."""
    together = Barrier(THREADS)

    def open_new(number):
        with closing(sqlite3.connect(tmp_path / f"{number}.db", timeout=30.0)) as connection:
            together.wait()
            _use_wal(connection)
            return connection.execute("PRAGMA journal_mode").fetchone()[0]

    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(FILES):
            assert set(pool.map(open_new, [number] * THREADS)) == {"wal"}


def test_who_does_not_wait_leaves_it_to_another_thread_to_empty_the_wal_file(tmp_path, monkeypatch):
    """SQLite's own checkpoint would come in the turn that filled the file, and take it long."""
    monkeypatch.setattr("journal.database.ROWS", 10)
    monkeypatch.setattr("journal.database.LARGEST_WAL", 40)
    file, threads = tmp_path / "journal" / "journal.db", set()
    database = Database(f"sqlite:///{file}", metadata, "journal")
    copy = database._checkpoint

    def copied():
        threads.add(threading.current_thread())
        copy()

    monkeypatch.setattr(database, "_checkpoint", copied)
    with database.turn():
        pass
    for number in range(300):
        with database.turn(wait=False) as cursor:
            row = ("w", number, "decision", f"d{number}", 0, "x" * 3000, "", "")
            cursor.execute(f"INSERT INTO records VALUES ({database.places(8)})", row)
        if number % 10 == 9:
            database._copied.result()
            assert file.with_name("journal.db-wal").stat().st_size < 100 * 4_120
    assert database._kept[0].cursor().execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    assert threading.main_thread() not in threads
    assert len(threads) == 1
    assert file.stat().st_size > 250 * 4_096, "it is in the database itself"
    database.close()


def test_a_reader_who_takes_long_holds_no_writer_up_where_the_wal_file_is_emptied(tmp_path, monkeypatch):
    monkeypatch.setattr("journal.database.ROWS", 1)
    monkeypatch.setattr("journal.database.LARGEST_WAL", 1)
    file = tmp_path / "journal" / "journal.db"
    database = Database(f"sqlite:///{file}", metadata, "journal")
    with database.turn():
        pass
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM records").fetchone() == (0,)
        for number in range(3):
            with database.turn(wait=False) as cursor:
                row = ("w", number, "decision", f"d{number}", 0, "{}", "", "")
                cursor.execute(f"INSERT INTO records VALUES ({database.places(8)})", row)
            database._copied.result()
        assert reader.execute("SELECT count(*) FROM records").fetchone() == (0,)
    database.close()
    with closing(sqlite3.connect(file)) as reader:
        assert reader.execute("SELECT count(*) FROM records").fetchone() == (3,)
