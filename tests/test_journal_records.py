import json
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from envs.guardrails import TIERS, Limits
from features.spec import FEATURE_NAMES, fingerprint
from journal.records import (
    PAYLOADS,
    AccountSnapshot,
    DecisionRecord,
    OutcomeRecord,
    SignalRecord,
    outcome_id,
    same_signal,
    signal_id,
)
from journal.schema import KINDS, canonical
from journal.store import Journal
from market.errors import DataError, InputError

DIGEST = "a" * 64
SIGNAL = SignalRecord(
    symbol="EURUSD",
    side="long",
    time=1_767_621_600_000_000_000,
    price=1.105,
    stop=1.102,
    take_profit=1.111,
    features=dict.fromkeys(FEATURE_NAMES, 0.1),
    feature_fingerprint=fingerprint(),
)
DECISION = DecisionRecord(
    signal_id=signal_id(SIGNAL),
    account_id="default",
    account=AccountSnapshot(
        equity=100_000.0, peak_equity=104_000.0, open_risk_pct=0.01, daily_risk_used_pct=0.01
    ),
    limits=Limits(),
    limits_source="built-in defaults",
    limits_digest=DIGEST,
    symbol="EURUSD",
    side="long",
    action="SMALL",
    multiplier=0.5,
    proposed_multiplier=0.5,
    rule_tier="STANDARD",
    rule_cap=1.25,
    binding_rule="none",
    source="model",
    propensity=1.0,
    bundle=DIGEST,
    model_status="PRODUCTION",
    model_fault=None,
    base_risk=0.01,
    risk_fraction=0.005,
    observation={"trend_strength": 0.4, "win_rate_recent": None},
    ladder=tuple(
        {
            "action": name,
            "size": 0.25 * i,
            "value": None if i == 5 else 0.1 * i,
            "legal": i < 5,
            "blocked_by": None if i < 5 else "max_position",
        }
        for i, name in enumerate(TIERS)
    ),
    out_of_distribution=False,
    expected_utility=0.01,
    latency_ms=0.4,
)
OUTCOME = OutcomeRecord(
    signal_id=signal_id(SIGNAL), gross_r=2.0, cost_r=0.05, impact_r=0.01, exit_time=1_767_625_200_000_000_000
)


def test_every_kind_of_record_has_its_payload():
    assert tuple(PAYLOADS) == KINDS


def test_payloads_come_back_from_the_journal_as_they_went_in(tmp_path):
    with closing(Journal(f"sqlite:///{tmp_path}/journal.db", "w")) as journal:
        sent = [(SIGNAL, signal_id(SIGNAL)), (DECISION, "d1"), (OUTCOME, outcome_id(signal_id(SIGNAL)))]
        written = journal.append_many([payload.to_entry(name) for payload, name in sent])
        for (payload, name), record in zip(sent, written, strict=True):
            assert type(payload).of(record) == payload
            assert type(payload).of(journal.get(name)) == payload


def test_the_ladder_gives_mask_and_values():
    assert DECISION.mask == (True, True, True, True, True, False)
    assert DECISION.values[:2] == (0.0, 0.1)
    assert DECISION.values[5] is None


def test_a_second_outcome_of_a_signal_is_refused_and_the_same_again_is_not(tmp_path):
    with closing(Journal(f"sqlite:///{tmp_path}/journal.db", "w")) as journal:
        name = outcome_id(OUTCOME.signal_id)
        first = journal.append_many([OUTCOME.to_entry(name)])
        assert journal.append_many([OUTCOME.to_entry(name)]) == first
        with pytest.raises(InputError, match="already journaled as another outcome"):
            journal.append_many([OUTCOME.model_copy(update={"gross_r": -1.0}).to_entry(name)])


def test_a_signals_id_covers_all_that_it_holds():
    other = {"symbol": "GBPUSD", "side": "short", "time": 5, "price": 1.2, "confidence": 0.5}
    others = [SIGNAL.model_copy(update={name: value}) for name, value in other.items()]
    assert len({signal_id(signal) for signal in (SIGNAL, *others)}) == 1 + len(other)


def test_ids_of_signals_rise_with_time() -> None:
    moments = [0, 999_999_999, 10**9, SIGNAL.time, SIGNAL.time + 10**6, 9_183_110_400_000_000_000]
    names = [signal_id(SIGNAL.model_copy(update={"time": moment})) for moment in moments]
    assert names == sorted(names)
    assert {len(name) for name in names} == {77}


def test_an_id_that_an_earlier_version_gave_still_names_its_signal() -> None:
    name, other = signal_id(SIGNAL), signal_id(SIGNAL.model_copy(update={"price": 1.2}))
    earlier = name[-64:]
    assert same_signal(name, name)
    assert same_signal(name, earlier)
    assert same_signal(earlier, name)
    assert not same_signal(name, other)
    assert not same_signal(other, earlier)
    assert not same_signal(name, f"{0:012x}-{earlier}")  # a time that it never had


@given(st.floats(min_value=1e-300, max_value=1e300), st.floats(-1e300, 1e300))
def test_what_is_read_back_is_written_as_the_same_text(price, feature):
    signal = SIGNAL.model_copy(update={"price": price, "features": {"mom_5": feature}})
    text = canonical(signal.model_dump(mode="json"))
    assert canonical(SignalRecord.model_validate(json.loads(text)).model_dump(mode="json")) == text


@pytest.mark.parametrize(
    ("payload", "field", "value"),
    [
        (SIGNAL, "price", float("nan")),
        (SIGNAL, "features", {"mom_5": float("inf")}),
        (SIGNAL, "extra", 1),
        (DECISION, "propensity", 0.0),
        (DECISION, "multiplier", 1.6),
        (DECISION, "bundle", "not a digest"),
        (DECISION, "ladder", ()),
        (OUTCOME, "mae_r", 0.5),
        (OUTCOME, "exit_time", "2026-01-05"),
    ],
)
def test_a_payload_that_cannot_be_is_refused(payload, field, value):
    with pytest.raises(ValidationError, match=field):
        type(payload).model_validate({**payload.model_dump(), field: value})


def test_a_record_of_another_kind_or_version_is_refused_by_its_id(tmp_path):
    with closing(Journal(f"sqlite:///{tmp_path}/journal.db", "w")) as journal:
        record = journal.append("decision", "d1", {"size": 1})
    with pytest.raises(DataError, match="record_id: got 'd1'; give the id of a signal, not a decision"):
        SignalRecord.of(record)
    with pytest.raises(DataError, match=r"d1\.signal_id: got .*; was written by another version"):
        DecisionRecord.of(record)
