"""What became of a decision's signal, reported back into the journal: once, however often it is sent.

Knows nothing of HTTP, nor of what the outcome is used for.
"""

from typing import Any

from journal.records import OutcomeRecord, SignalRecord, outcome_id, same_signal
from journal.store import Journal
from market.bars import iso
from market.errors import DataError, InputError
from serving.desk import decision_of, journaled
from serving.refusals import Conflict, Unavailable
from serving.schemas import OutcomeReport, nanoseconds


def report_outcome(journal: Journal, decision_id: str, report: OutcomeReport) -> dict[str, Any]:
    """Journal the outcome of the decision's signal and say under which id; a repetition changes nothing.

    A signal has one outcome: reported by another decision about it, it must be the same. NotFound for an
    unknown decision, Conflict naming what differs from an outcome that is already there, DataError for times
    that cannot be.
    """
    signal_id = decision_of(journal, decision_id).signal_id
    known = SignalRecord.of(journal.get(signal_id)).time
    entry = None if report.entry_time is None else nanoseconds(report.entry_time)
    ended = nanoseconds(report.exit_time)
    for field, moment, least in (("entry_time", entry, known), ("exit_time", ended, entry or known)):
        if moment is not None and moment < least:
            raise DataError(
                field, iso(moment), f"give a time from {iso(least)} on: nothing ends before it begins"
            )
    outcome = OutcomeRecord(
        signal_id=signal_id,
        decision_id=decision_id,
        entry_time=entry,
        exit_time=ended,
        **report.model_dump(exclude={"entry_time", "exit_time"}),
    )
    if not _is_there(journal, outcome):
        try:
            journaled(journal, [outcome.to_entry(outcome_id(signal_id))])
        except Unavailable:
            if not _is_there(journal, outcome):  # else an equal report was quicker
                raise
    return {"outcome_id": outcome_id(signal_id), "decision_id": decision_id, "signal_id": signal_id}


def _is_there(journal: Journal, outcome: OutcomeRecord) -> bool:
    """Whether this outcome is journaled, by whichever decision; Conflict where another one is."""
    try:
        record = journal.get(outcome_id(outcome.signal_id))
    except InputError:  # there is none, or the journal fails: to write will tell
        return False
    found = OutcomeRecord.of(record)
    if same_signal(found.signal_id, outcome.signal_id):
        found = found.model_copy(update={"signal_id": outcome.signal_id})
    differing = [
        name
        for name in OutcomeRecord.model_fields
        if name != "decision_id" and getattr(found, name) != getattr(outcome, name)
    ]
    if not differing:
        return True
    there = ", ".join(f"{name} is {getattr(found, name)!r} there" for name in differing)
    raise Conflict(
        differing[0],
        getattr(outcome, differing[0]),
        f"another outcome of this signal is journaled: {there}",
    )
