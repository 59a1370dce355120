"""What a desk would have journaled of the signals on later bars, for the tests of drift."""

from features.spec import FEATURE_NAMES
from journal.records import OutcomeRecord, Payload, outcome_id, signal_id
from journal.store import Journal
from tests.drift_worlds import seen
from tests.test_journal_records import DECISION, SIGNAL

HOUR = 3_600_000_000_000


def entries(digest: str, count: int | None = None) -> list[tuple[str, str, Payload]]:
    """Signal, decision and outcome of the newest `count` signals, the newest first: (kind, id, payload)."""
    signals, results = seen("later").signals, seen("later").results
    assert signals is not None
    assert results is not None
    found: list[tuple[str, str, Payload]] = []
    for i in reversed(range(len(signals))):
        signal = SIGNAL.model_copy(
            update={
                "symbol": "SYNTHETIC",
                "time": SIGNAL.time + i * HOUR,
                "features": dict(zip(FEATURE_NAMES, signals.features[i].tolist(), strict=True)),
            }
        )
        name = signal_id(signal)
        rungs = tuple(
            rung.model_copy(update={"value": value})
            for rung, value in zip(DECISION.ladder, signals.values[i].tolist(), strict=True)
        )
        decision = DECISION.model_copy(
            update={
                "signal_id": name,
                "symbol": "SYNTHETIC",
                "proposed_multiplier": float(signals.size[i]),
                "multiplier": 0.0,  # an account without room
                "bundle": digest,
                "ladder": rungs,
            }
        )
        outcome = OutcomeRecord(
            signal_id=name,
            gross_r=float(results.r[i]) + 0.05,
            cost_r=0.05,
            impact_r=0.0,
            exit_time=signal.time + HOUR,
        )
        found += [
            ("signal", name, signal),
            ("decision", f"decision-{i}", decision),
            ("outcome", outcome_id(name), outcome),
        ]
    return found[: None if count is None else 3 * count]


def write(journal: Journal, digest: str) -> None:
    journal.append_many([payload.to_entry(name) for _, name, payload in entries(digest)])
