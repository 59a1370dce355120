"""A stage is there whole or not at all, and a resumed run finds what it left."""

import json
from pathlib import Path

import numpy as np
import pytest

from market.errors import ConfigError
from tuning.run_folder import RunFolder


def test_a_finished_stage_gives_back_its_arrays_bit_for_bit(tmp_path: Path) -> None:
    run = RunFolder.start(tmp_path, "abcdef0123", {"seed": 1})
    values = np.random.default_rng(0).normal(size=100)
    assert not run.done("load")
    run.write("load", {"bars": {"values": values, "symbol": np.array("EURUSD")}}, {"note": "one market"})
    assert run.done("load")
    assert np.array_equal(run.arrays("load", "bars")["values"], values)
    assert str(run.arrays("load", "bars")["symbol"]) == "EURUSD"
    assert run.facts("load") == {"note": "one market"}
    assert run.names("load") == ("bars",)


def test_a_run_that_has_nothing_to_keep_leaves_no_folder(tmp_path: Path) -> None:
    RunFolder.start(tmp_path, "abcdef0123", {"seed": 1})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="--resume"):
        RunFolder.latest(tmp_path, "abcdef0123")


def test_a_stage_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    run = RunFolder.start(tmp_path, "abcdef0123", {})
    with pytest.raises(ValueError, match="JSON"):
        run.write("load", {"bars": {"values": np.zeros(3)}}, {"note": float("nan")})
    assert not run.done("load")
    assert sorted(path.name for path in run.folder.iterdir()) == ["config.json"]


def test_arrays_that_would_need_pickle_are_refused(tmp_path: Path) -> None:
    run = RunFolder.start(tmp_path, "abcdef0123", {})
    with pytest.raises(ValueError, match=r"pickle|[Oo]bject"):
        run.write("load", {"bars": {"values": np.array([{}], dtype=object)}}, {})
    assert not run.done("load")


def test_finishing_a_stage_clears_its_working_folder(tmp_path: Path) -> None:
    run = RunFolder.start(tmp_path, "abcdef0123", {})
    (run.work("sizer") / "checkpoint").write_text("half")
    run.write("sizer", {}, {"note": ""})
    assert not (run.folder / "sizer.work").exists()


def test_resuming_takes_the_newest_run_of_the_same_configuration(tmp_path: Path) -> None:
    first, second = (RunFolder.start(tmp_path, "abcdef0123", {"run": i}) for i in range(2))
    assert first.folder != second.folder
    for run in (second, first, RunFolder.start(tmp_path, "other00000", {})):
        run.write("load", {}, {})
    found = RunFolder.latest(tmp_path, "abcdef0123")
    assert json.loads((found.folder / "config.json").read_text()) == {"run": 1}


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave --resume out"):
        RunFolder.latest(tmp_path, "abcdef0123")
