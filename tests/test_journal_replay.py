"""Decisions made by the desk come out of the journal again, or what differs is named."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from envs.guardrails import Limits
from journal.records import DecisionRecord
from journal.replay import Difference, changed_limits, replay
from journal.schema import chained_hash
from journal.store import Journal
from market.errors import DataError, InputError
from serving import what_if
from serving.again import request as request_of
from serving.limits_file import LimitsFolder
from serving.schemas import SizingRequest
from serving.what_if import changes
from tests.serving_bundles import bar_rows, fine_tuned_bundle, request, saved
from tests.test_serving_services import journal, sizing_desk


def decide(home: Path, folder: Path | None = None, **changed: object) -> str:
    asked = SizingRequest.model_validate(request(**changed))
    return str(sizing_desk(home, folder).decide(asked)["decision_id"])


def again(home: Path, decision_id: str, door: Journal | None = None):
    bundles = home / "bundles"
    return replay(
        door or journal(home), decision_id, lambda signal, made: request_of(bundles, signal, made).size()
    )


def fields(found) -> set[str]:
    return {difference.field for difference in found.differences}


@pytest.mark.parametrize("seed", range(4))
def test_a_models_decision_comes_out_identical(home, seed):
    folder = saved(home, seed)
    (home / "limits").mkdir()
    (home / "limits" / "mine.json").write_text('{"max_position": 0.011, "allow_skip": false}')
    for changed in (
        {},
        {"market": {"features": None, "bars": bar_rows(150, seed)}},
        {"account_id": "mine", "limits": {"max_exposure": 0.03}, "account": {"win_rate_recent": 0.7}},
        {"signal": {"side": "short", "stop": 1.11, "take_profit": 1.09, "confidence": 0.9}},
        {"account": {"open_risk_pct": 1.0}},
    ):
        found = again(home, decide(home, folder, **changed))
        assert found.identical, found.differences
        assert found.now is not None
        assert found.now["multiplier"] == found.decision.multiplier


def test_decisions_of_the_rule_and_of_a_fine_tune_come_out_identical(home):
    root = home / "bundles"
    fine = root / fine_tuned_bundle(0, favourite=3).save(root)
    (home / "limits").mkdir()
    (home / "limits" / "broken.json").write_text("{")
    for name in (decide(home), decide(home, fine), decide(home, fine, account_id="broken")):
        found = again(home, name)
        assert found.identical, found.differences


def test_features_far_from_any_training_come_out_identical(home):
    far = {"features": {"atr_ratio": 0.9, "vol_spike": 1e6}}
    found = again(home, decide(home, saved(home, 1), market=far))
    assert found.decision.source == "rule" or found.decision.out_of_distribution
    assert found.identical, found.differences


def test_a_bundle_that_is_gone_is_named(home):
    folder = saved(home)
    name = decide(home, folder)
    shutil.rmtree(folder)
    found = again(home, name)
    assert fields(found) == {"bundle"}
    assert found.now is None
    assert found.differences[0].journaled == folder.name
    assert "give the digest of a bundle that is there" in str(found.differences[0].now)


def test_a_bundle_that_was_altered_is_named(home):
    folder = saved(home)
    name = decide(home, folder)
    file = folder / "policy.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    found = again(home, name)
    assert fields(found) == {"bundle.digest"}
    assert "were altered" in str(found.differences[0].now)


def test_another_code_that_computes_another_size_is_named_field_by_field(home):
    folder = saved(home, favourite=4)
    name = decide(home, folder)
    bundles = home / "bundles"

    def other(signal, made):
        details = json.loads(json.dumps(request_of(bundles, signal, made).size()))
        details["multiplier"] = 0.25
        details["ladder"][2]["legal"] = False
        return details | {"propensity": 0.9}

    found = replay(journal(home), name, other)
    assert set(found.differences) == {
        Difference("multiplier", 1.25, 0.25),
        Difference("ladder.2.legal", True, False),
        Difference("propensity", 1.0, 0.9),
    }


def test_features_that_have_another_definition_now_are_named(home, monkeypatch):
    name = decide(home)
    monkeypatch.setattr("journal.replay.fingerprint", lambda: "another")
    assert fields(again(home, name)) == {"feature_fingerprint"}


def forge(home: Path, record_id: str, change, *, hashed: bool, renamed: str | None = None) -> None:
    """Alter a record's payload in the file, and its id, its hash made to fit or not."""
    with closing(sqlite3.connect(home / "journal" / "journal.db")) as connection, connection:
        connection.execute("DROP TRIGGER IF EXISTS records_refuse_update")
        find = "SELECT * FROM records WHERE record_id = ?"
        row = list(connection.execute(find, [record_id]).fetchone())
        payload = json.loads(row[5])
        change(payload)
        row[5] = json.dumps(payload, sort_keys=True, separators=(",", ":"))
        row[3] = renamed or record_id
        digest = chained_hash(*row[:7]) if hashed else row[7]
        connection.execute(
            "UPDATE records SET record_id = ?, payload = ?, hash = ? WHERE record_id = ?",
            [row[3], row[5], digest, record_id],
        )


@pytest.mark.parametrize("hashed", [True, False])
def test_limits_that_were_altered_in_the_journal_are_named(home, hashed):
    name = decide(home)
    forge(home, name, lambda payload: payload["limits"].update(max_position=0.005), hashed=hashed)
    found = fields(again(home, name))
    assert {"limits_digest", "rule_cap", "multiplier", "action"} <= found
    assert ("record" in found) == (not hashed)


def test_a_signal_that_was_altered_in_the_journal_is_named(home):
    name = decide(home, saved(home, 2))
    signal = DecisionRecord.of(journal(home).get(name)).signal_id
    forge(home, signal, lambda payload: payload["features"].update(mom_20=-2.0), hashed=True)
    assert {"signal_id", "observation.momentum_score"} <= fields(again(home, name))


def test_a_signal_under_the_id_that_an_earlier_version_gave_comes_out_identical(home):
    name = decide(home, saved(home, 2))
    signal = DecisionRecord.of(journal(home).get(name)).signal_id
    forge(home, name, lambda payload: payload.update(signal_id=signal[-64:]), hashed=True)
    forge(home, signal, lambda payload: None, hashed=True, renamed=signal[-64:])
    found = again(home, name)
    assert found.decision.signal_id == signal[-64:]
    assert found.identical, found.differences


def test_limits_that_the_operator_changed_since_are_told_and_change_nothing(home):
    name = decide(home)
    (home / "limits").mkdir()
    (home / "limits" / "default.json").write_text('{"max_exposure": 0.04}')
    found = again(home, name)
    assert found.identical
    now = LimitsFolder(home).of("default").limits
    assert changed_limits(found.decision, now) == (Difference("limits.max_exposure", 0.06, 0.04),)
    assert changed_limits(found.decision, Limits()) == ()
    assert changed_limits(found.decision, None)[0].field == "limits"


def test_an_id_that_is_no_decision_is_refused(home):
    name = decide(home)
    signal = DecisionRecord.of(journal(home).get(name)).signal_id
    with pytest.raises(DataError, match="give the id of a decision, not a signal"):
        again(home, signal)
    with pytest.raises(InputError, match="give the id of a journaled record"):
        again(home, "unknown")


def journaled(home: Path, name: str):
    found = again(home, name)
    return request_of(home / "bundles", found.signal, found.decision)


def test_the_smallest_changes_that_flip_a_models_tier_are_those_of_brute_force(home):
    body, folder = request(), saved(home, 3)
    asked = journaled(home, decide(home, folder))
    chosen = asked.size()["action"]
    found = {change.field: change for change in changes(asked)}
    assert {name.partition(".")[0] for name in found} == {"features", "signal", "account", "limits"}
    shares = [change.share for change in found.values()]
    assert shares == sorted(shares)
    # Each flips the tier, and a little less of it does not.
    for field in what_if._fields(asked):
        if (change := found.get(field.name)) is None:
            continue
        less = change.value - np.sign(change.value - change.now) * (
            1 if field.whole else 1e-6 * (field.high - field.low)
        )
        assert field.put(change.value).size()["action"] == change.action != chosen
        assert field.put(less).size()["action"] == chosen, field.name
    # None nearer is found by looking at many values, each in a request as a trader would send it.
    sizer = sizing_desk(home, folder).sizer
    places = {
        "account.daily_risk_used_pct": ("account", np.linspace(0.0, 0.05, 251)),
        "account.open_risk_pct": ("account", np.linspace(0.0, 0.06, 251)),
        "account.win_rate_recent": ("account", np.linspace(0.0, 1.0, 251)),
        "signal.take_profit": ("signal", np.linspace(1.105 + 0.006 / 4, 1.105 + 4 * 0.006, 251)),
    }
    flips = 0
    for field, (part, grid) in places.items():
        name = field.partition(".")[2]
        now = body[part].get(name, asked.sizer.bundle.meta.prior_win_rate)
        others = []
        for value in grid:
            sent = SizingRequest.model_validate(request(**{part: {name: float(value)}}))
            action = sizer.get_sizing_recommendation(
                sent.signal,
                sent.market.feature_row(),
                sent.account.account(),
                Limits(),
                win_rate_recent=sent.account.win_rate_recent,
            ).action
            if action != chosen:
                others.append(value)
        assert (field in found) == bool(others), field
        if others:
            flips += 1
            nearest = min(abs(value - now) for value in others)
            assert nearest - (grid[1] - grid[0]) <= abs(found[field].value - now) <= nearest + 1e-9
    assert flips >= 2


def test_without_a_model_only_account_and_limits_can_flip_the_tier(home):
    found = changes(journaled(home, decide(home)))
    assert found
    assert {change.field.partition(".")[0] for change in found} == {"account", "limits"}
