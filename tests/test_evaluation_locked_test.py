"""Looks at a locked test part are counted, whoever looks, and none is lost."""

import multiprocessing
from pathlib import Path

import pytest

from evaluation.locked_test import FOLDER, key_of, looks, record_look
from market.errors import InputError

KEY = key_of({"EURUSD": "ab" * 32}, "donchian", {"fee_bps": 0.2})


def test_each_look_counts_and_is_on_the_disk_when_its_number_is_known(home: Path) -> None:
    assert looks(home, KEY) == 0
    assert [record_look(home, KEY, {"command": "evaluate"}) for _ in range(3)] == [1, 2, 3]
    assert looks(home, KEY) == 3
    assert len((home / FOLDER / f"{KEY}.jsonl").read_text().splitlines()) == 3


def test_other_bars_rules_or_costs_have_a_part_of_their_own() -> None:
    others = [
        key_of({"EURUSD": "cd" * 32}, "donchian", {"fee_bps": 0.2}),
        key_of({"EURUSD": "ab" * 32}, "donchian?lookback=55", {"fee_bps": 0.2}),
        key_of({"EURUSD": "ab" * 32}, "donchian", {"fee_bps": 0.3}),
    ]
    assert len({KEY, *others}) == 4
    assert key_of({"B": "1", "A": "2"}, "r", {}) == key_of({"A": "2", "B": "1"}, "r", {})


def look_often(home: Path) -> None:
    for _ in range(20):
        record_look(home, KEY, {})


def test_four_processes_at_once_lose_no_look(home: Path) -> None:
    processes = [
        multiprocessing.get_context("fork").Process(target=look_often, args=(home,)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert looks(home, KEY) == 80


@pytest.mark.parametrize("damage", [b"", b"{", b'{"look": 5}\n'])
def test_a_damaged_record_is_refused_rather_than_counted_from_anew(home: Path, damage: bytes) -> None:
    for _ in range(2):
        record_look(home, KEY, {})
    path = home / FOLDER / f"{KEY}.jsonl"
    path.write_bytes(damage + path.read_bytes().splitlines(keepends=True)[1])
    before = path.read_bytes()
    with pytest.raises(InputError, match="locked test"):
        record_look(home, KEY, {})
    assert path.read_bytes() == before
