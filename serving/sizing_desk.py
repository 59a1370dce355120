"""From a sizing request to a journaled decision.

Knows nothing of Ray or HTTP: the arithmetic is the sizer's, the record the journal's.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from envs.guardrails import Limits
from features.spec import FEATURE_NAMES, fingerprint
from journal.budget import RiskBudget
from journal.location import open_budget
from journal.records import (
    AccountSnapshot,
    BarsSeen,
    DecisionRecord,
    ReserveRecord,
    SignalRecord,
    signal_id,
)
from journal.store import Entry
from market.bars import Bars, iso
from market.errors import DataError, InputError
from policies.bundle import open_bundle
from serving.answers import SizingAnswer
from serving.challenger import Arm, Challenger, opened, shadow_entry
from serving.desk import Deployed, Desk, decision_of, journaled
from serving.drift_readings import DriftReadings
from serving.limits_file import LimitsFolder
from serving.outcome_report import report_outcome
from serving.position_sizer import PositionSizer, feature_row
from serving.refusals import Conflict, NotFound, Unavailable
from serving.reservations import Step, closed, entered, held, moved, standing, told
from serving.schemas import OutcomeReport, Signal, SizingBatch, SizingRequest, bars_of
from serving.telemetry import JOURNAL_WAIT, Reading

Floats = npt.NDArray[np.float64]

NO_STATUS: Final = "no registry status"
REFUSED: Final = "the model was refused"
ANSWERED: Final = set(SizingAnswer.model_fields) & set(DecisionRecord.model_fields)
NOTHING: Final = Limits(max_daily_risk=0.0, max_exposure=0.0)  # where the operator's limits are unusable


class _Sized(NamedTuple):
    """An answer, and what must be journaled before it is given."""

    answer: dict[str, Any]
    entries: list[Entry]


class SizingDesk(Desk):
    """A desk with a sizer, which a deployment replaces while it answers."""

    def __init__(self) -> None:
        super().__init__("sizing")
        self.sizer = PositionSizer(None)
        self.challenger: Challenger | None = None
        self.challenger_refused: dict[str, Any] | None = None
        self._drift = DriftReadings()
        self._limits: LimitsFolder | None = None
        self._budget: RiskBudget | None = None

    def deploy(self, config: Mapping[str, Any]) -> None:
        """See `Desk.deploy`. Without an old model the rule answers, and says that one was refused."""
        super().deploy(config)
        if self.refused and self.sizer.bundle is None:
            self.sizer = PositionSizer(None, REFUSED)

    def take(self, deployed: Deployed) -> None:
        """See `Desk.take`: the old bundle goes when the new one is whole and answers as it was recorded.

        A challenger that cannot be opened is left out and told in the health: it holds nothing up.
        """
        sizer = PositionSizer(None)
        if deployed.bundle is not None and deployed.digest is not None:
            bundle = open_bundle(deployed.bundle.parent, deployed.digest)
            sizer = PositionSizer(bundle, deployed.status or NO_STATUS, deployed.digest)
        before = self._home
        super().take(deployed)
        if self._home != before:
            self._limits, self._budget = None, None
        self.sizer, self.challenger, self.challenger_refused = sizer, None, None
        if (challenged := deployed.challenger) is not None:
            found = opened(challenged.bundle, challenged.digest, challenged.status, challenged.share)
            if isinstance(found, Challenger):
                self.challenger = found
            else:
                why = {"digest": challenged.digest, "field": found.field, "mend": found.mend}
                self.challenger_refused = why

    @property
    def budget(self) -> RiskBudget:
        """The risk budget of this home."""
        if self._budget is None:
            self._budget = open_budget(self.home, os.environ)
        return self._budget

    @property
    def limits(self) -> LimitsFolder:
        """The operator's limits of this home."""
        if self._limits is None:
            self._limits = LimitsFolder(self.home)
        return self._limits

    def decide(self, request: SizingRequest) -> dict[str, Any]:
        """The answer to `request`, already journaled; Unavailable where it cannot be journaled."""
        started, reserves = time.perf_counter(), request.reserve is not None
        answers = self._journaled(lambda: [self._size(request)], reserves=reserves)
        self.telemetry.sized([(request.account_id, answers[0])], started, "one")
        return answers[0]

    def decide_all(self, batch: SizingBatch) -> list[dict[str, Any]]:
        """The answers to all requests, already journaled in one transaction: all of them or none.

        What is refused names the request by its number, from 0.
        """
        started = time.perf_counter()
        reserves = any(request.reserve is not None for request in batch.requests)
        answers = self._journaled(lambda: list(self._all(batch)), reserves=reserves)
        accounts = [request.account_id for request in batch.requests]
        self.telemetry.sized(list(zip(accounts, answers, strict=True)), started, "batch")
        return answers

    def report(self, decision_id: str, outcome: OutcomeReport) -> dict[str, Any]:
        """See `report_outcome`; what was reserved for the decision is settled, or released if unused."""
        said = report_outcome(self.journal, decision_id, outcome)
        decision = decision_of(self.journal, decision_id)
        return said | {"reservation": told(closed(self.budget, decision))}

    def reserved(self, decision_id: str, step: Step) -> dict[str, Any] | None:
        """The decision's reservation after `step`; see `moved`."""
        return told(moved(self.budget, decision_of(self.journal, decision_id), step))

    def _all(self, batch: SizingBatch) -> Iterator[_Sized]:
        for number, request in enumerate(batch.requests):
            try:
                yield self._size(request)
            except InputError as error:
                kind = Conflict if isinstance(error, Conflict) else DataError
                raise kind(f"requests.{number}.{error.field}", error.value, error.mend) from error

    def _journaled(self, size: Callable[[], list[_Sized]], *, reserves: bool) -> list[dict[str, Any]]:
        """The answers of `size`, once all are journaled."""
        try:
            sized = size()
            self._write(sized)
        except Unavailable:
            if not reserves:
                raise
            # The same request, sent twice, may have been journaled meanwhile: then its answer is this one's.
            sized = size()
            self._write(sized)
        return [one.answer for one in sized]

    def _write(self, sized: list[_Sized]) -> None:
        started = time.perf_counter()
        journaled(self.journal, [entry for one in sized for entry in one.entries])
        self.telemetry.took(JOURNAL_WAIT, started)

    def _size(self, request: SizingRequest) -> _Sized:
        started = time.perf_counter()
        signal, account = request.signal, request.account
        row, bars = request.market.feature_row(), None
        if row is None:
            bars = bars_of(signal.symbol, request.market.bars or [])
            if bars.time[-1] > signal.time:
                seen = iso(int(bars.time[-1]))
                raise DataError(
                    "market.bars", seen, f"end at the signal bar: the signal is known at {iso(signal.time)}"
                )
            row = feature_row(bars)
        limits = self.limits.of(request.account_id)
        sizer, other, arm = self._arms(signal)
        record = signal_record(signal, row, bars)
        signal_digest = signal_id(record)

        def size(use: ReserveRecord | None, by: PositionSizer = sizer) -> dict[str, Any]:
            return by.get_sizing_recommendation(
                signal,
                row,
                entered(account.account(), use),
                limits,
                tighter=request.limits,
                win_rate_recent=account.win_rate_recent,
            ).details

        use, reservation = None, {}
        if request.reserve is None:
            decision_id, details = str(uuid.uuid4()), size(None)
        else:
            decision_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"ballast:reserve:{request.reserve.key}"))
            if (answered := self._answered(decision_id, signal_digest, request)) is not None:
                return _Sized(answered, [])
            in_force = NOTHING if limits.limits is None else limits.limits.tightened(request.limits)
            details, use, made = held(self.budget, request.account_id, request.reserve, in_force, size)
            reservation = {"reservation": told(made)}
        decision = DecisionRecord(
            signal_id=signal_digest,
            account_id=request.account_id,
            account=AccountSnapshot(**account.model_dump()),
            limits=limits.limits,
            tighter=request.limits,
            arm=arm,
            reserve=use,
            latency_ms=1000.0 * (time.perf_counter() - started),
            **details,
        )
        entries = [record.to_entry(decision.signal_id), decision.to_entry(decision_id)]
        if other is not None:
            resting: Arm = "champion" if arm == "challenger" else "challenger"
            entries.append(shadow_entry(decision_id, resting, other, lambda: size(use, other)))
        return _Sized({"decision_id": decision_id, **details, **reservation}, entries)

    def _arms(self, signal: Signal) -> tuple[PositionSizer, PositionSizer | None, Arm | None]:
        """Who answers the signal, who sizes it in the shadow, and which of the two the first is."""
        sizer, challenger = self.sizer, self.challenger
        if challenger is None:
            return sizer, None, None
        if challenger.answers(signal):
            return challenger.sizer, sizer, "challenger"
        return sizer, challenger.sizer, "champion"

    def _answered(self, decision_id: str, signal: str, request: SizingRequest) -> dict[str, Any] | None:
        """The answer that the request's key has already been given, None where there is none.

        Conflict where the key names another request, or what was reserved is gone.
        """
        try:
            found = decision_of(self.journal, decision_id)
        except NotFound:
            return None
        assert request.reserve is not None
        assert found.reserve is not None
        now = {
            "signal": (signal, found.signal_id),
            "account": (AccountSnapshot(**request.account.model_dump()), found.account),
            "account_id": (request.account_id, found.account_id),
            "limits": (request.limits, found.tighter),
            "reserve.seconds": (request.reserve.seconds, found.reserve.seconds),
        }
        differing = ", ".join(name for name, (asked, known) in now.items() if asked != known)
        if differing:
            raise Conflict("reserve.key", request.reserve.key, f"it names a request of another {differing}")
        said = found.model_dump(mode="json", include=ANSWERED)
        reservation = told(standing(self.budget, found))
        return {"decision_id": decision_id, **said, "reservation": reservation}

    def readings(self) -> list[Reading]:
        """See `Desk.readings`."""
        return super().readings() + self._drift.of(self.home)

    def health(self) -> dict[str, Any]:
        """See `Desk.health`."""
        return super().health() | {
            "model_status": self.sizer.status,
            "bundle": self.sizer.digest,
            "challenger": None if self.challenger is None else self.challenger.health(),
            "challenger_refused": self.challenger_refused,
        }


def signal_record(signal: Signal, row: Floats, bars: Bars | None) -> SignalRecord:
    """What is journaled of `signal` and its features float64[31]; `bars` where they came from bars."""
    return SignalRecord(
        time=signal.time,
        features=dict(zip(FEATURE_NAMES, row.tolist(), strict=True)),
        feature_fingerprint=fingerprint(),
        bars=None if bars is None else BarsSeen(count=len(bars), digest=bars.digest()),
        **signal.model_dump(exclude={"timestamp"}),
    )
