"""What many do to one database file at the same moment."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier

from journal.database import _use_wal

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
