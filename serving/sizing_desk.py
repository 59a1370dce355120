"""From a sizing request to a journaled decision.

Knows nothing of Ray or HTTP: the arithmetic is the sizer's, the record the journal's.
"""

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from uuid_utils import uuid7

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
    same_signal,
    signal_id_of,
)
from journal.schema import Canonical
from journal.store import Entry
from market.bars import Bars, iso
from market.errors import DataError, InputError
from policies.bundle import open_bundle
from serving.answers import SizingAnswer
from serving.challenger import Arm, Challenger, opened, shadow_entry
from serving.desk import Deployed, Desk, decision_of
from serving.drift_readings import DriftReadings
from serving.limits_file import LimitsFolder, OperatorLimits
from serving.outcome_report import report_outcome
from serving.position_sizer import Asking, PositionSizer, feature_row
from serving.refusals import Conflict, NotFound, Unavailable
from serving.reservations import Held, Step, closed, entered, give_back, held, moved, standing, told
from serving.schemas import OutcomeReport, Reserve, Signal, SizingBatch, SizingRequest, bars_of
from serving.telemetry import Reading

Floats = npt.NDArray[np.float64]

NO_STATUS: Final = "no registry status"
REFUSED: Final = "the model was refused"
ANSWERED: Final = set(SizingAnswer.model_fields) & set(DecisionRecord.model_fields)
NOTHING: Final = Limits(max_daily_risk=0.0, max_exposure=0.0)  # where the operator's limits are unusable


class Case(NamedTuple):
    """A request, and all that it is sized with."""

    request: SizingRequest
    row: Floats  # [31]
    bars: Bars | None  # where the features came from bars
    limits: OperatorLimits
    sizer: PositionSizer
    other: PositionSizer | None  # who sizes it in the shadow
    arm: Arm | None  # which of the two the first is

    @property
    def features(self) -> Mapping[str, float]:
        """By name: as they were given, if they were."""
        given = self.request.market.features
        return dict(zip(FEATURE_NAMES, self.row.tolist(), strict=True)) if given is None else vars(given)

    def asking(self, use: ReserveRecord | None = None) -> Asking:
        """What a sizer is asked, where the risk budget counts `use` as used."""
        asked = self.request
        account = entered(asked.account.account(), use)
        return Asking(
            asked.signal, self.row, account, self.limits, asked.limits, asked.account.win_rate_recent
        )

    def size(self, use: ReserveRecord | None) -> dict[str, Any]:
        """The answer's details."""
        return self.sizer.recommend_all([self.asking(use)])[0].details


class _Sized(NamedTuple):
    """An answer, and what must be journaled before it is given."""

    answer: dict[str, Any]
    entries: list[Entry]


class Draft(NamedTuple):
    """A size that nobody may be told of before it is journaled."""

    sized: _Sized
    account_id: str
    started: float  # when it was asked for, on time.perf_counter()


class _Shadowed(NamedTuple):
    """What is still to be sized by the other arm, and where its record goes."""

    decision_id: str
    sizer: PositionSizer
    arm: Arm
    asking: Asking
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
        started = time.perf_counter()
        (answer,) = self._journaled([request], numbered=False)
        self.telemetry.sized("one", [(started, [(request.account_id, answer)])])
        return answer

    def drafts(self, asked: Sequence[tuple[SizingRequest, float]]) -> list[Draft]:
        """Sizes for requests without a reservation. With each comes its moment on time.perf_counter()."""
        began = time.perf_counter()
        cases = self._cases([request for request, _ in asked], numbered=False)
        sized = self._size(cases, began, numbered=False)
        return [
            Draft(one, request.account_id, started)
            for one, (request, started) in zip(sized, asked, strict=True)
        ]

    def record(self, drafts: Sequence[Draft], *, wait: bool = True) -> list[dict[str, Any]]:
        """The answers, journaled in one transaction.

        Unavailable where they cannot be journaled; without `wait`, WouldWait where they cannot be at once.
        """
        if not drafts:
            return []
        self.write(_entries([draft.sized for draft in drafts]), wait=wait)
        sizes = [(draft.started, [(draft.account_id, draft.sized.answer)]) for draft in drafts]
        self.telemetry.sized("one", sizes)
        return [draft.sized.answer for draft in drafts]

    def decide_all(self, batch: SizingBatch) -> list[dict[str, Any]]:
        """The answers to all requests, already journaled in one transaction: all of them or none.

        What is refused names the request by its number, from 0.
        """
        started = time.perf_counter()
        answers = self._journaled(batch.requests, numbered=True)
        accounts = [request.account_id for request in batch.requests]
        self.telemetry.sized("batch", [(started, [*zip(accounts, answers, strict=True)])])
        return answers

    def sizes(self, requests: Sequence[SizingRequest]) -> list[dict[str, Any]]:
        """What the answers to `requests` say of their sizes; nothing is reserved and nothing journaled."""
        return _sizes([(case.sizer, case.asking()) for case in self._cases(requests, numbered=True)])

    def report(self, decision_id: str, outcome: OutcomeReport) -> dict[str, Any]:
        """See `report_outcome`; what was reserved for the decision is settled, or released if unused."""
        said = report_outcome(self.journal, decision_id, outcome)
        decision = decision_of(self.journal, decision_id)
        return said | {"reservation": told(closed(self.budget, decision))}

    def reserved(self, decision_id: str, step: Step) -> dict[str, Any] | None:
        """The decision's reservation after `step`; see `moved`."""
        return told(moved(self.budget, decision_of(self.journal, decision_id), step))

    def _journaled(self, requests: Sequence[SizingRequest], *, numbered: bool) -> list[dict[str, Any]]:
        """The answers, once all are journaled."""
        started = time.perf_counter()
        cases = self._cases(requests, numbered=numbered)
        try:
            sized = self._size(cases, started, numbered=numbered)
            self.write(_entries(sized))
        except Unavailable:
            if all(request.reserve is None for request in requests):
                raise
            # The same request, sent twice, may have been journaled meanwhile: then its answer is this one's.
            sized = self._size(cases, started, numbered=numbered)
            self.write(_entries(sized))
        for request, one in zip(requests, sized, strict=True):
            if request.reserve is not None and one.answer["reservation"] is None:
                give_back(self.budget, request.reserve.key)
        return [one.answer for one in sized]

    def _size(self, cases: Sequence[Case], started: float, *, numbered: bool) -> list[_Sized]:
        """The answers and their records; `started` is when the requests began to be looked at."""
        at_once = iter(
            _sizes([(case.sizer, case.asking()) for case in cases if case.request.reserve is None])
        )
        sized: list[_Sized] = []
        shadowed: list[_Shadowed] = []
        for case in cases:
            signal = signal_entry(case.request.signal, case.features, case.bars)
            use, reservation = None, {}
            if case.request.reserve is None:
                decision_id, details = str(uuid7()), next(at_once)
            else:
                decision_id = _id_of(case.request.reserve)
                try:
                    answered = self._answered(decision_id, signal[1], case.request)
                    if answered is not None:
                        sized.append(_Sized(answered, []))
                        continue
                    details, use, made = self._held(case, case.request.reserve)
                except InputError as error:
                    if numbered:
                        raise _of_request(len(sized), error) from error
                    raise
                reservation = {"reservation": told(made)}
            latency_ms = 1000.0 * (time.perf_counter() - started)
            entries = [signal, decision_entry(decision_id, case, signal[1], details, use, latency_ms)]
            sized.append(_Sized({"decision_id": decision_id, **details, **reservation}, entries))
            if case.other is not None:
                resting: Arm = "champion" if case.arm == "challenger" else "challenger"
                shadowed.append(_Shadowed(decision_id, case.other, resting, case.asking(use), entries))
        if shadowed:
            _size_in_shadow(shadowed)
        return sized

    def _held(self, case: Case, reserve: Reserve) -> Held:
        """The size that is left for the request in its account's risk budget, held there."""
        asked, limits = case.request, case.limits.limits
        in_force = NOTHING if limits is None else limits.tightened(asked.limits)
        return held(self.budget, asked.account_id, reserve, in_force, case.size)

    def _cases(self, requests: Sequence[SizingRequest], *, numbered: bool) -> list[Case]:
        """All that the requests are sized with; DataError for bars that go on beyond the signal."""
        limits: dict[str, OperatorLimits] = {}
        cases: list[Case] = []
        try:
            for request in requests:
                row, bars = _market(request)
                account = request.account_id
                if account not in limits:
                    limits[account] = self.limits.of(account)
                cases.append(Case(request, row, bars, limits[account], *self._arms(request.signal)))
        except InputError as error:
            if numbered:
                raise _of_request(len(cases), error) from error
            raise
        return cases

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
        known = signal if same_signal(signal, found.signal_id) else found.signal_id
        now = {
            "signal": (signal, known),
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


def _market(request: SizingRequest) -> tuple[Floats, Bars | None]:
    """The features at the signal bar, float64[31], and the bars where they came from bars.

    DataError for bars that go on beyond the signal.
    """
    row, signal = request.market.feature_row(), request.signal
    if row is not None:
        return row, None
    bars = bars_of(signal.symbol, request.market.bars or [])
    if bars.time[-1] > signal.time:
        seen = iso(int(bars.time[-1]))
        raise DataError(
            "market.bars", seen, f"end at the signal bar: the signal is known at {iso(signal.time)}"
        )
    return feature_row(bars), bars


def _entries(sized: Sequence[_Sized]) -> list[Entry]:
    return [entry for one in sized for entry in one.entries]


def _sizes(asked: Sequence[tuple[PositionSizer, Asking]]) -> list[dict[str, Any]]:
    """What each sizer answers to what it is asked, in the order given."""
    numbers: dict[PositionSizer, list[int]] = {}
    for number, (sizer, _) in enumerate(asked):
        numbers.setdefault(sizer, []).append(number)
    details: list[dict[str, Any]] = [{}] * len(asked)
    for sizer, own in numbers.items():
        for number, answer in zip(own, sizer.recommend_all([asked[one][1] for one in own]), strict=True):
            details[number] = answer.details
    return details


def _size_in_shadow(shadowed: Sequence[_Shadowed]) -> None:
    """Add the record of what the other arm would have answered to each; whatever goes wrong is recorded."""
    sizes: list[dict[str, Any] | Exception]
    try:
        sizes = [*_sizes([(one.sizer, one.asking) for one in shadowed])]
    except Exception as error:
        sizes = [error] * len(shadowed)
    for one, size in zip(shadowed, sizes, strict=True):
        one.entries.append(shadow_entry(one.decision_id, one.arm, one.sizer, size))


def _id_of(reserve: Reserve) -> str:
    """The one decision id of a reservation's key."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"ballast:reserve:{reserve.key}"))


def _of_request(number: int, error: InputError) -> InputError:
    """What was refused, named by the request's number within its batch."""
    kind = Conflict if isinstance(error, Conflict) else DataError
    return kind(f"requests.{number}.{error.field}", error.value, error.mend)


def signal_entry(
    signal: Signal, features: Mapping[str, float], bars: Bars | None
) -> tuple[str, str, Canonical]:
    """What is journaled of `signal` and its features; `bars` where they came from bars."""
    seen = None if bars is None else BarsSeen(count=len(bars), digest=bars.digest()).model_dump(mode="json")
    plain = {
        **vars(signal),
        "time": signal.time,
        "features": features,
        "feature_fingerprint": fingerprint(),
        "bars": seen,
    }
    del plain["timestamp"]  # which is the time
    kind, _, text = SignalRecord.plain_entry("", plain)
    return kind, signal_id_of(plain["time"], text), text


def decision_entry(
    decision_id: str,
    case: Case,
    signal: str,
    details: Mapping[str, Any],
    use: ReserveRecord | None,
    latency_ms: float,
) -> Entry:
    """What is journaled of a decision about the signal of that id."""
    asked, limits = case.request, case.limits.limits
    plain = {
        "signal_id": signal,
        "account_id": asked.account_id,
        "account": vars(asked.account),
        "limits": None if limits is None else vars(limits),
        "tighter": None if asked.limits is None else vars(asked.limits),
        "arm": case.arm,
        "reserve": None if use is None else vars(use),
        "latency_ms": latency_ms,
        **details,
    }
    return DecisionRecord.plain_entry(decision_id, plain)
