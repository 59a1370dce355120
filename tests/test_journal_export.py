from contextlib import closing

import pandas as pd
import pyarrow.parquet as pq
import pytest

from journal import export as module
from journal.export import export
from journal.records import NarrativeRecord, outcome_id, signal_id
from journal.store import Journal
from market.errors import ConfigError, DataError
from tests.test_journal_records import DECISION, OUTCOME, SIGNAL

NARRATIVE = NarrativeRecord(
    narrative="trade_rationale", decision_id="d1", text="…", writer="template", facts={"a": [1, {"b": None}]}
)


@pytest.fixture
def journal(tmp_path):
    with closing(
        Journal(f"sqlite:///{tmp_path}/journal.db", "w", clock=lambda: 1_767_621_600_000_000_001)
    ) as j:
        name = signal_id(SIGNAL)
        j.append_many([SIGNAL.to_entry(name), DECISION.to_entry("d1"), OUTCOME.to_entry(outcome_id(name))])
        j.append_many([DECISION.to_entry("d2"), NARRATIVE.to_entry("n1")])
        yield j


def test_each_kind_is_one_file_that_pandas_reads(tmp_path, journal):
    counts = export(journal.read(), tmp_path / "out")
    assert counts == {"signal": 1, "decision": 2, "outcome": 1, "narrative": 1}
    assert {file.name for file in (tmp_path / "out").iterdir()} == {f"{kind}.parquet" for kind in counts}
    decisions = pd.read_parquet(tmp_path / "out" / "decision.parquet")
    assert decisions["record_id"].tolist() == ["d1", "d2"]
    assert decisions["multiplier"].tolist() == [0.5, 0.5]
    assert decisions["account.equity"].tolist() == [100_000.0] * 2
    assert decisions["limits.max_exposure"].tolist() == [0.06] * 2
    assert decisions["ladder"][0][5] == DECISION.ladder[5].model_dump()
    assert dict(decisions["observation"][0])["trend_strength"] == 0.4
    assert decisions["journaled"][0] == pd.Timestamp(1_767_621_600_000_000_001, tz="UTC")
    signals = pd.read_parquet(tmp_path / "out" / "signal.parquet")
    assert dict(signals["features"][0]) == SIGNAL.features
    assert signals["time"][0] == pd.Timestamp(SIGNAL.time, tz="UTC")
    outcomes = pq.read_table(tmp_path / "out" / "outcome.parquet").to_pylist()
    assert outcomes[0]["signal_id"] == signal_id(SIGNAL)
    assert outcomes[0]["gross_r"] == 2.0
    assert outcomes[0]["entry_time"] is None
    assert pd.read_parquet(tmp_path / "out" / "narrative.parquet")["facts"][0] == '{"a": [1, {"b": null}]}'


def test_more_records_than_are_held_at_once_are_all_written(tmp_path, journal, monkeypatch):
    monkeypatch.setattr(module, "GROUP", 7)
    journal.append_many([DECISION.to_entry(f"more{number}") for number in range(30)])
    assert export(journal.read(), tmp_path / "out")["decision"] == 32
    assert len(pd.read_parquet(tmp_path / "out" / "decision.parquet")) == 32


def test_a_record_that_does_not_read_back_leaves_no_folder(tmp_path, journal):
    journal.append("decision", "strange", {"size": 1})
    before = set(tmp_path.iterdir())
    with pytest.raises(DataError, match="was written by another version"):
        export(journal.read(), tmp_path / "out")
    assert set(tmp_path.iterdir()) == before


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path, journal):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="give a folder that does not exist yet"):
        export(journal.read(), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_by_name(tmp_path, journal):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"folder: got .*; give a folder that can be made"):
        export(journal.read(), tmp_path / "file" / "out")


def test_no_records_make_an_empty_folder(tmp_path):
    assert export([], tmp_path / "out") == {}
