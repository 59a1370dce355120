"""The baseline file: whole or not at all, every bit checked; without it there is an alarm, not silence."""

from pathlib import Path

import numpy as np
import pytest

from market.errors import InputError
from mlops.drift_baseline import MOST_ROWS, NoBaseline, baseline, open_baseline, path_of
from tests.drift_worlds import DIGEST, trained


def test_what_was_saved_is_opened_bit_for_bit(home: Path) -> None:
    known = trained()
    assert known.save(home) == path_of(home, DIGEST)
    opened = open_baseline(home, DIGEST)
    assert opened.about == known.about
    assert opened.markets.keys() == {"SYNTHETIC"}
    np.testing.assert_array_equal(opened.markets["SYNTHETIC"], known.markets["SYNTHETIC"][-MOST_ROWS:])
    for name in ("symbol", "features", "size", "values"):
        np.testing.assert_array_equal(getattr(opened.signals, name), getattr(known.signals, name))
    np.testing.assert_array_equal(opened.results.d, known.results.d)
    assert [path.name for path in (home / "drift").iterdir()] == [f"{DIGEST}.safetensors"]


def test_no_file_is_no_baseline_and_says_what_to_do(home: Path) -> None:
    with pytest.raises(NoBaseline, match="train again: bundle dddddddddddd was registered without"):
        open_baseline(home, DIGEST)


@pytest.mark.parametrize("place", [0, 200, -1])
def test_one_flipped_bit_anywhere_is_no_baseline(home: Path, place: int) -> None:
    path = trained().save(home)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(NoBaseline):
        open_baseline(home, DIGEST)


def test_half_a_file_is_no_baseline(home: Path) -> None:
    path = trained().save(home)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(NoBaseline, match="train again"):
        open_baseline(home, DIGEST)


def test_the_baseline_of_another_bundle_is_none(home: Path) -> None:
    path = trained().save(home)
    path.rename(path_of(home, "e" * 64))
    with pytest.raises(NoBaseline, match="altered"):
        open_baseline(home, "e" * 64)


def test_a_baseline_of_other_features_is_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained().save(home)
    monkeypatch.setattr("mlops.drift_baseline.fingerprint", lambda: "0" * 64)
    with pytest.raises(NoBaseline, match="other features"):
        open_baseline(home, DIGEST)


def test_a_failed_write_leaves_the_old_baseline(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = trained()
    known.save(home)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        known.save(home)
    monkeypatch.undo()
    assert open_baseline(home, DIGEST).about == known.about
    assert len(list((home / "drift").iterdir())) == 1


def test_rows_that_are_no_features_make_no_baseline() -> None:
    known = trained()
    results = (known.results, "a test")
    broken = known.markets["SYNTHETIC"].copy()
    broken[7, 3] = np.nan
    for rows in (broken, broken[:, :5]):
        with pytest.raises(InputError, match="baseline SYNTHETIC"):
            baseline(DIGEST, "a test", {"SYNTHETIC": rows}, known.signals, results)
