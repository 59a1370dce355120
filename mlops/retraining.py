"""When to train again and what becomes of it: reasons in, one attempt at a time, a verdict out.

Knows nothing of how a model is trained or judged: what launches and who judges are passed in. What is live
changes through the registry's own gate alone. A process may die anywhere: the next check goes on from there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from filelock import FileLock, Timeout
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from journal.records import TriggerRecord
from market.errors import InputError, first_line
from market.home import write_atomically
from mlops.changes import Append
from mlops.evidence import BundleDigest, Evidence, first_fault
from mlops.registry import Registry
from mlops.versions import ModelVersion, read_export

FOLDER: Final = "retraining"
STARTS: Final = 3  # of one attempt whose process was killed each time; then it has failed
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

Cause = Literal["drift", "schedule", "new_data", "manual"]
Result = Literal[
    "nothing",  # calls for training
    "waiting",  # for the interval to pass
    "busy",  # another process is at it
    "unfinished",  # lost sight of
    "failed",
    "unchanged",  # the very model that is live came out
    "shut",  # the gate
    "refused",  # by the registry, though it passed the gate
    "passed",
    "promoted",
]
EVENTS: Final[dict[Result, Literal["failed", "refused", "succeeded"]]] = {
    "failed": "failed",
    "shut": "refused",
    "refused": "refused",
    "unchanged": "succeeded",
    "passed": "succeeded",
    "promoted": "succeeded",
}

Launch = Callable[[str], int]  # the attempt's name -> the number of the version registered
Judge = Callable[[ModelVersion], Evidence]
Callback = Callable[[TriggerRecord], object]


class Unfinished(Exception):
    """Raised by what launches when it lost sight of a training that may go on: to be asked again."""


@dataclass(frozen=True)
class Source:
    """What may call for training: `ask`, told when the last training was, gives its reasons."""

    cause: Cause
    ask: Callable[[datetime], Sequence[str]]


@dataclass(frozen=True)
class Plan:
    """Train when `every` has passed since the last time, if said, and never before `minimum` has; `promote`
    what passes the gate, or leave that to somebody.
    """

    every: timedelta | None = None
    minimum: timedelta = timedelta(hours=6)
    promote: bool = False


class Outcome(BaseModel):
    """What a check came to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    result: Result
    detail: str
    version: int | None = None

    @property
    def good(self) -> bool:
        """Whether all is as it should be: nothing failed, nothing was refused."""
        return self.result in ("nothing", "waiting", "busy", "unchanged", "passed", "promoted")


class Retraining:
    """Training again in the home of `registry`, when `plan` or `sources` call for it.

    `launch` trains under the name of an attempt and gives the number of the version registered; asked for the
    same attempt again, it goes on with it. `judge` gives the evidence for a version. Either may raise: the
    attempt has failed then, and nothing live has changed. `append` journals entries; each of `callbacks` is
    given every record, once more after a crash. `report` is told what went wrong beside an attempt.
    """

    def __init__(
        self,
        registry: Registry,
        plan: Plan,
        launch: Launch,
        judge: Judge,
        append: Append,
        *,
        sources: Sequence[Source] = (),
        callbacks: Sequence[Callback] = (),
        report: Callable[[str], object] = lambda text: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.registry, self.plan, self.sources, self.callbacks = registry, plan, sources, callbacks
        self._launch, self._judge, self._append, self._report = launch, judge, append, report
        self._clock = clock
        self._file = registry.home / FOLDER / "state.json"

    def check(self, *, asked: bool = False) -> Outcome:
        """Train again if anything calls for it, or somebody `asked` whatever the interval; have it judged.

        An attempt that was begun is ended first. Raises `InputError` where the state or the journal cannot be
        used: nothing is launched that cannot be journaled.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._file.with_name("lock"), timeout=0):
                state = self._read()
                self._set_right(state)
                attempt = state.attempt or self._begun(state, asked)
                return attempt if isinstance(attempt, Outcome) else self._ended(state, attempt)
        except Timeout:
            return Outcome(result="busy", detail="another process is training again")

    def _set_right(self, state: _State) -> None:
        """Let the last training be not after now, and not before one that somebody did by hand."""
        now, before = self._clock(), state.last
        versions = read_export(self.registry.home)
        if versions and versions[-1].version > state.newest:
            state.newest = versions[-1].version
            state.last = max(state.last, min(versions[-1].created, now))
        if state.last > now:
            self._report(f"the clock stepped back from {state.last} to {now}: intervals count from now on")
            state.last = now
        if state.last != before:
            self._write(state)

    def _begun(self, state: _State, asked: bool) -> _Attempt | Outcome:
        """A new attempt, or why there is none."""
        triggers, faults = self._triggers(state, asked)
        for fault in faults:
            self._tell_once(state, fault, "failed")
        if not triggers:
            if faults:
                return Outcome(result="failed", detail="; ".join(fault.detail for fault in faults))
            if state.told:
                state.told = ()
                self._write(state)
            return Outcome(result="nothing", detail="nothing calls for training")
        if not asked and self._clock() - state.last < self.plan.minimum:
            for trigger in triggers:
                self._tell_once(state, trigger, "skipped")
            said = "; ".join(trigger.detail for trigger in triggers)
            return Outcome(result="waiting", detail=f"trained {state.last}, too lately for: {said}")
        live = [one.digest for one in read_export(self.registry.home) if one.status == "PRODUCTION"]
        name = f"{self._clock():%Y%m%dT%H%M%S%f}r{secrets.token_hex(4)}"
        state.attempt = _Attempt(name=name, triggers=triggers, champion=live[0] if live else None)
        self._write(state)
        return state.attempt

    def _triggers(self, state: _State, asked: bool) -> tuple[list[_Trigger], list[_Trigger]]:
        """What calls for training now, and the sources that could not be asked."""
        found = [_Trigger(cause="manual", detail="asked for")] if asked else []
        faults = []
        if self.plan.every is not None and self._clock() - state.last >= self.plan.every:
            found.append(
                _Trigger(cause="schedule", detail=f"{self.plan.every} have passed since the last one")
            )
        for source in self.sources:
            try:
                found += [_Trigger(cause=source.cause, detail=text) for text in source.ask(state.last)]
            except Exception as error:
                faults.append(_Trigger(cause=source.cause, detail=f"{source.cause}: {_said(error)}"))
        return found, faults

    def _ended(self, state: _State, attempt: _Attempt) -> Outcome:
        """Carry an attempt through, as far as that was not done before, and tell of it."""
        for place, trigger in enumerate(attempt.triggers):
            self._tell(f"retrain-{attempt.name}-{place}", trigger.record("started", bundle=attempt.champion))
        if attempt.outcome is None:
            try:
                attempt.outcome = self._carried_out(state, attempt)
            except Unfinished as error:
                return Outcome(result="unfinished", detail=str(error))
            self._write(state)
        outcome = attempt.outcome
        record = TriggerRecord(
            cause=attempt.triggers[0].cause,
            event=EVENTS[outcome.result],
            detail=f"{outcome.result}: {outcome.detail}",
            figures=attempt.evidence.figures if attempt.evidence else {},
            bundle=attempt.champion,
            trained=attempt.trained,
        )
        self._tell(f"retrain-{attempt.name}-outcome", record)
        newest = [version.version for version in read_export(self.registry.home)][-1:]
        self._write(_State(last=self._clock(), newest=newest[0] if newest else 0))
        return outcome

    def _carried_out(self, state: _State, attempt: _Attempt) -> Outcome:
        """Train, judge, decide; each step is kept, so that none is done twice."""
        number = attempt.version
        try:
            if number is None:
                number = attempt.version = self._trained(state, attempt)
            version = self.registry.version(number)
            attempt.trained = version.digest
            self._write(state)
            if attempt.evidence is None:
                if version.status == "PRODUCTION":
                    detail = "the very model that is live came of it"
                    return Outcome(result="unchanged", detail=detail, version=number)
                evidence = self._judge(version)
                evidence.check_bundle(version.digest)
                attempt.evidence = evidence
                self._write(state)
        except Unfinished:
            raise
        except Exception as error:
            self._put_away(number)
            return Outcome(result="failed", detail=_said(error), version=number)
        result, detail = self._decided(version, attempt.evidence)
        return Outcome(result=result, detail=detail, version=number)

    def _trained(self, state: _State, attempt: _Attempt) -> int:
        """The number of the version that was trained; each start is counted, a process may die of it."""
        if attempt.starts >= STARTS:
            raise InputError("training", attempt.starts, "its process died each time it was started")
        attempt.starts += 1
        self._write(state)
        try:
            return self._launch(attempt.name)
        except (Unfinished, KeyboardInterrupt, SystemExit):  # it did not die
            attempt.starts -= 1
            self._write(state)
            raise

    def _decided(self, version: ModelVersion, evidence: Evidence) -> tuple[Result, str]:
        """Let the registry know of the verdict; what is live changes only where that is planned."""
        reasons = "; ".join(evidence.verdict.reasons)
        try:
            if not evidence.verdict.passed:
                self._put_away(version.version)
                return "shut", f"the gate is shut for version {version.version}: {reasons}"
            if version.status in ("TRAINING", "ARCHIVED"):
                self.registry.transition(version.version, "STAGING")
            if not self.plan.promote:
                return "passed", f"version {version.version} passed the gate and may be promoted"
            self.registry.promote(version.version, evidence)
        except InputError as error:
            return "refused", str(error)
        return "promoted", f"version {version.version} passed the gate and is live"

    def _put_away(self, number: int | None) -> None:
        """Archive a candidate that did not pass, or could not be judged."""
        waiting = [one.version for one in read_export(self.registry.home) if one.status == "TRAINING"]
        if number in waiting:
            self.registry.transition(number, "ARCHIVED")

    def _tell_once(self, state: _State, trigger: _Trigger, event: Literal["skipped", "failed"]) -> None:
        """Journal what stays so from check to check, the first time only."""
        told = f"{trigger.cause} {event}"
        if told not in state.told:
            self._tell(f"retrain-{secrets.token_hex(16)}", trigger.record(event))
            state.told = (*state.told, told)
            self._write(state)

    def _tell(self, record_id: str, record: TriggerRecord) -> None:
        self._append([record.to_entry(record_id)])
        for callback in self.callbacks:
            try:
                callback(record)
            except Exception as error:
                name = getattr(callback, "__qualname__", repr(callback))
                self._report(f"the callback {name} failed: {_said(error)}")

    def _read(self) -> _State:
        try:
            return _State.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return _State()
        except ValidationError as error:
            mend = f"remove it: the newest version counts as the last training then ({first_fault(error)})"
            raise InputError("retraining state", str(self._file), mend) from error

    def _write(self, state: _State) -> None:
        try:
            write_atomically(self._file, state.model_dump_json(indent=2).encode() + b"\n")
        except OSError as error:
            mend = f"see to the disk ({error.strerror}); what is live stays live"
            raise InputError("retraining state", str(self._file), mend) from error


def volume(count: Callable[[datetime], int], least: int, what: str) -> Callable[[datetime], Sequence[str]]:
    """A source's `ask` that calls for training once there are `least` new ones of `what`."""

    def ask(since: datetime) -> Sequence[str]:
        new = count(since)
        return [f"{new:,} new {what} since the last training, of {least:,}"] if new >= least else []

    return ask


class _Trigger(BaseModel):
    """A reason to train."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cause: Cause
    detail: str

    def record(
        self, event: Literal["started", "skipped", "failed"], bundle: str | None = None
    ) -> TriggerRecord:
        return TriggerRecord(cause=self.cause, event=event, detail=self.detail, bundle=bundle)


class _Attempt(BaseModel):
    """One training, as far as it has come."""

    model_config = ConfigDict(extra="forbid")

    name: str
    triggers: list[_Trigger]
    champion: BundleDigest | None  # in production when it began
    starts: int = 0
    version: int | None = None
    trained: BundleDigest | None = None
    evidence: Evidence | None = None
    outcome: Outcome | None = None


class _State(BaseModel):
    """The file's layout."""

    model_config = ConfigDict(extra="forbid")

    last: AwareDatetime = NEVER  # end of the last attempt, or when somebody else registered a version
    newest: int = 0  # the number of the newest version seen
    told: tuple[str, ...] = ()  # what is journaled once, however often it is seen
    attempt: _Attempt | None = None


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {first_line(error)}"
