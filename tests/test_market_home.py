"""State lies under one absolute folder, and files get there whole."""

import os
import threading
from pathlib import Path

import pytest

from market.errors import ConfigError
from market.home import home, write_atomically


def test_home_is_the_variable_and_is_made_on_demand(tmp_path, monkeypatch):
    monkeypatch.setenv("BALLAST_HOME", str(tmp_path / "a" / "b"))
    assert home() == tmp_path / "a" / "b"
    assert home().is_dir()


@pytest.mark.parametrize("value", [None, ""])
def test_home_without_the_variable_is_in_the_users_folder(value, tmp_path, monkeypatch):
    monkeypatch.delenv("BALLAST_HOME")
    if value is not None:
        monkeypatch.setenv("BALLAST_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".ballast"


@pytest.mark.parametrize("value", ["state", "./state", "../state"])
def test_a_relative_home_is_refused_and_not_made(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BALLAST_HOME", value)
    with pytest.raises(ConfigError, match=r"BALLAST_HOME: got .*give an absolute path"):
        home()
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_a_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BALLAST_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="BALLAST_HOME"):
        home()


def test_a_file_is_written_with_its_folder(tmp_path):
    write_atomically(tmp_path / "new" / "file.json", b"{}")
    assert (tmp_path / "new" / "file.json").read_bytes() == b"{}"
    assert os.listdir(tmp_path / "new") == ["file.json"]


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append("replace"), replace(old, new)))
    write_atomically(tmp_path / "file", b"x")
    assert order == ["fsync", "replace", "fsync"]


def test_readers_never_see_a_part_while_writers_race(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([65 + i]) * 200_000 for i in range(3)]
    write_atomically(path, contents[0])
    done = threading.Event()
    torn: list[int] = []

    def read() -> None:
        while not done.is_set():
            if (seen := Path(path).read_bytes()) not in contents:
                torn.append(len(seen))

    def write(content: bytes) -> None:
        for _ in range(15):
            write_atomically(path, content)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert torn == []
    assert os.listdir(tmp_path) == ["file"]
