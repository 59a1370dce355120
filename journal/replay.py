"""Make a journaled decision again, and say exactly what comes out otherwise.

Knows nothing of how sizes are made: what makes them is passed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from envs.guardrails import Limits
from features.spec import fingerprint
from journal.records import DecisionRecord, SignalRecord, same_signal, signal_id_of
from journal.schema import Canonical
from journal.store import Journal
from market.errors import InputError

MISSING: Final = "nothing"


class Sizing(Protocol):
    """What makes a decision again: the answer's fields by name, or `InputError` where it cannot be made."""

    def __call__(self, signal: SignalRecord, decision: DecisionRecord) -> Mapping[str, Any]:
        """The answer to the journaled request, from the bundle and the limits that the record names."""
        ...


@dataclass(frozen=True)
class Difference:
    """One field that is not as it was; `field` is dotted where it lies within another."""

    field: str
    journaled: object
    now: object


@dataclass(frozen=True)
class Replay:
    """A decision as journaled, and what is otherwise when it is made again."""

    decision_id: str
    signal: SignalRecord
    decision: DecisionRecord
    now: Mapping[str, Any] | None  # the answer made again; None where none could be made
    differences: tuple[Difference, ...]

    @property
    def identical(self) -> bool:
        """Whether everything came out the same."""
        return not self.differences


def replay(journal: Journal, decision_id: str, sizing: Sizing) -> Replay:
    """Make the decision of that id again with `sizing` and compare all that was answered.

    InputError for an id that is no decision's, or one whose signal is not journaled.
    """
    record = journal.get(decision_id)
    decision = DecisionRecord.of(record)
    signal_record = journal.get(decision.signal_id)
    signal = SignalRecord.of(signal_record)
    found = [
        Difference("record", f"{one.kind} {one.record_id}", "altered: it does not give its own hash")
        for one in (record, signal_record)
        if not one.gives_its_hash()
    ]
    named = signal_id_of(signal.time, Canonical(signal_record.text))
    if not same_signal(named, decision.signal_id):
        found.append(Difference("signal_id", decision.signal_id, named))
    if signal.feature_fingerprint != fingerprint():
        found.append(Difference("feature_fingerprint", signal.feature_fingerprint, fingerprint()))
    now: Mapping[str, Any] | None = None
    try:
        now = sizing(signal, decision)
    except InputError as error:
        found.append(Difference(error.field, decision.bundle, str(error)))
    else:
        journaled = decision.model_dump(mode="json")
        found += [one for name in now for one in _differences(name, journaled.get(name, MISSING), now[name])]
    return Replay(decision_id, signal, decision, now, tuple(found))


def changed_limits(decision: DecisionRecord, now: Limits | None) -> tuple[Difference, ...]:
    """What differs between the operator's limits of a decision and those `now`, which it owes nothing to.

    None stands for limits that cannot be used.
    """
    then, today = (None if one is None else one.model_dump(mode="json") for one in (decision.limits, now))
    return tuple(_differences("limits", then, today))


def _differences(field: str, journaled: Any, now: Any) -> Iterator[Difference]:
    """The innermost fields in which two JSON values differ."""
    if isinstance(journaled, Mapping) and isinstance(now, Mapping):
        for name in [*journaled, *(name for name in now if name not in journaled)]:
            yield from _differences(f"{field}.{name}", journaled.get(name, MISSING), now.get(name, MISSING))
    elif isinstance(journaled, list) and isinstance(now, list) and len(journaled) == len(now):
        for number, (one, other) in enumerate(zip(journaled, now, strict=True)):
            yield from _differences(f"{field}.{number}", one, other)
    elif journaled != now:
        yield Difference(field, journaled, now)
