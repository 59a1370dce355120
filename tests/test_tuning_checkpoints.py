"""A checkpoint is there whole or not at all, and is never taken for another run's."""

from pathlib import Path

import pytest

from market.errors import ConfigError
from tuning.checkpoints import adopt, clear, newest, save

IDENTITY = {"config": "c", "table": "t"}


def save_text(root: Path, steps: int, text: str) -> None:
    save(root, steps, {**IDENTITY, "steps": steps}, lambda draft: (draft / "text").write_text(text) and None)


def test_newest_is_the_one_of_most_steps_and_older_ones_are_gone(tmp_path: Path) -> None:
    for steps in (9, 10, 100):
        save_text(tmp_path, steps, str(steps))
    found = newest(tmp_path, IDENTITY)
    assert found is not None
    folder, state = found
    assert ((folder / "text").read_text(), state["steps"]) == ("100", 100)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_there_is_none_in_an_empty_or_missing_folder(tmp_path: Path) -> None:
    assert newest(tmp_path, IDENTITY) is None
    assert newest(tmp_path / "none", IDENTITY) is None


def test_a_failed_write_leaves_the_last_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    save_text(tmp_path, 1, "one")

    def fail(draft: Path) -> None:
        (draft / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, 2, IDENTITY, fail)
    found = newest(tmp_path, IDENTITY)
    assert found is not None
    assert found[1]["steps"] == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_draft_of_a_killed_process_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".draft-killed").mkdir()
    (tmp_path / ".draft-killed" / "state.json").write_text("{}")
    assert newest(tmp_path, IDENTITY) is None
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_saving_the_same_steps_again_replaces_the_checkpoint(tmp_path: Path) -> None:
    save_text(tmp_path, 5, "old")
    save_text(tmp_path, 5, "new")
    found = newest(tmp_path, IDENTITY)
    assert found is not None
    assert (found[0] / "text").read_text() == "new"


def test_checkpoint_of_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    save_text(tmp_path, 1, "one")
    with pytest.raises(ConfigError, match=r"checkpoint\.table: got 't'"):
        newest(tmp_path, {"config": "c", "table": "another"})


def test_adopted_checkpoint_is_one_of_the_new_identity_and_otherwise_the_same(tmp_path: Path) -> None:
    save_text(tmp_path, 1, "one")
    adopt(tmp_path, {"config": "mine"})
    found = newest(tmp_path, {"config": "mine", "table": "t"})
    assert found is not None
    assert ((found[0] / "text").read_text(), found[1]["steps"]) == ("one", 1)
    adopt(tmp_path / "none", {"config": "mine"})
    assert not (tmp_path / "none").exists()
