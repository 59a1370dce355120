"""What the journal's records hold, one typed payload for each kind.

Knows nothing of where they are kept. Times are nanoseconds since 1970, UTC; risks are fractions of equity;
R is the distance from the signal bar's close to the stop. A later version only ever adds optional fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, StrictInt, ValidationError

from envs.guardrails import LARGEST_SIZE, Limits, TighterLimits
from journal.schema import Canonical, Record, canonical, canonical_of_plain
from market.errors import DataError

NANOSECONDS: Final = "ns since 1970, UTC"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hex")]
RecordId = Annotated[str, Field(min_length=1, max_length=200)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Time = Annotated[StrictInt, NANOSECONDS]
Price = Annotated[FiniteFloat, Field(gt=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Positive = Annotated[FiniteFloat, Field(ge=0)]
Size = Annotated[FiniteFloat, Field(ge=0, le=LARGEST_SIZE, description="multiple of the base position")]


class Payload(BaseModel):
    """What every payload is: frozen, nothing unknown in it, every number finite. `kind` names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str]

    def to_entry(self, record_id: str) -> tuple[str, str, Mapping[str, Any]]:
        """As `Journal.append_many` takes it."""
        return self.kind, record_id, self.model_dump(mode="json")

    @classmethod
    def plain_entry(cls, record_id: str, plain: dict[str, Any]) -> tuple[str, str, Canonical]:
        """`to_entry` of what was validated where it came from: every field by name, in plain JSON.

        Only names and numbers are looked at, a tenth of the work: ValueError for other names than the
        fields', InputError for a number that is not finite.
        """
        fields = cls.__pydantic_fields__.keys()  # what `model_fields` gives, which asks first whom it is for
        if plain.keys() != fields:
            raise ValueError(f"{cls.kind}: other fields, {sorted(plain.keys() ^ fields)}")
        return cls.kind, record_id, canonical_of_plain(plain)

    @classmethod
    def of(cls, record: Record) -> Self:
        """The payload of a record of this kind; DataError for another kind or version."""
        if record.kind != cls.kind:
            raise DataError(
                "record_id", record.record_id, f"give the id of a {cls.kind}, not a {record.kind}"
            )
        try:
            return cls.model_validate_json(record.text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join([record.record_id, *map(str, first["loc"])])
            mend = f"was written by another version of Ballast: read it with that one ({first['msg']})"
            raise DataError(place, first["input"], mend) from error


class _Part(BaseModel):
    """A part of a payload."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BarsSeen(_Part):
    """The bars that features were computed from."""

    count: StrictInt
    digest: Digest


class SignalRecord(Payload):
    """One signal of the trader's rule and the market at its bar: what became of it is found by its id.

    The same signal sized for several accounts, or sent again, is one record: see `signal_id`.
    """

    kind = "signal"

    symbol: Name
    side: Literal["long", "short"]
    time: Time  # when the signal is known: the close of its bar
    price: Price  # close of the signal bar
    stop: Price
    take_profit: Price
    entry: Price | None = None  # the rule's reference level; None: price
    confidence: Share | None = None  # the rule's own; None: it states none
    strategy_id: Name | None = None
    features: dict[str, FiniteFloat]  # by the names of features.spec
    feature_fingerprint: str  # of the definitions that they follow
    bars: BarsSeen | None = None  # None where the features were given


def signal_id(signal: SignalRecord) -> str:
    """The id of a signal: 12 hex digits of its time, in ms since 1970, and the SHA-256 of all that it holds.

    What is new thus comes side by side in the database's index, not a page of it for each signal.
    """
    return signal_id_of(signal.time, canonical(signal.model_dump(mode="json")))


def signal_id_of(time: int, text: Canonical) -> str:
    """The id of the signal of that time whose record is `text`."""
    return f"{time // 1_000_000:012x}-{hashlib.sha256(text.encode()).hexdigest()}"


def same_signal(one: str, other: str) -> bool:
    """Whether two ids name one signal, though either may be an earlier one: the SHA-256 alone."""
    return one == other or (one[-64:] == other[-64:] and min(len(one), len(other)) == 64)


class AccountSnapshot(_Part):
    """The account as the request gave it."""

    equity: Price
    peak_equity: Price
    open_risk_pct: Share
    daily_risk_used_pct: Share
    open_trades: Annotated[StrictInt, Field(ge=0)] = 0
    win_rate_recent: Share | None = None


class ReserveRecord(_Part):
    """The reservation that a request asked for, and what the risk budget had left for it to use.

    `daily_risk` and `exposure` count as used beside the account's own figures, the larger of the two each.
    """

    key: RecordId
    seconds: Annotated[FiniteFloat, Field(gt=0)]
    daily_risk: Share
    exposure: Share


class RungRecord(_Part):
    """One of the six sizes, as policies.decision.Rung has it."""

    action: Name
    size: Size
    value: FiniteFloat | None
    legal: bool
    blocked_by: Name | None


class DecisionRecord(Payload):
    """A size, everything that was answered with it and everything that it came from.

    The market and the signal are in the record of `signal_id`, written in the same transaction. `propensity`
    is the probability with which the policy, shown this observation and mask, takes `action`: 1 for all that
    are served (the plug-in and a Q network take the best legal tier, PPO its likeliest, a fine-tune its mean,
    the rule its own), less only for a policy that draws.
    """

    kind = "decision"

    signal_id: RecordId
    account_id: Name
    account: AccountSnapshot
    limits: Limits | None  # the operator's, before `tighter`; None where they could not be used
    limits_source: str
    limits_digest: Digest | None
    tighter: TighterLimits | None = None  # what the request asked for
    symbol: Name
    side: Literal["long", "short"]
    action: Name  # the largest tier at or below `multiplier`
    multiplier: Size
    proposed_multiplier: FiniteFloat | None  # before the limits; None where no model had a valid say
    rule_tier: Name  # what the rule alone would have taken: STANDARD, under the same limits
    rule_cap: Size
    binding_rule: Name
    source: Literal["model", "rule"]
    propensity: Annotated[FiniteFloat, Field(gt=0, le=1)]
    bundle: Digest | None
    model_status: str
    model_fault: str | None
    base_risk: Share
    risk_fraction: Share
    observation: dict[str, FiniteFloat | None]  # by the names of envs.observation
    ladder: Annotated[tuple[RungRecord, ...], Field(min_length=6, max_length=6)]
    out_of_distribution: bool | None
    expected_utility: FiniteFloat | None
    arm: Literal["champion", "challenger"] | None = None  # who answered; None without a challenger
    reserve: ReserveRecord | None = None  # None where nothing was to be reserved
    latency_ms: Positive  # from the request's arrival at the desk to this record, its commit not included

    @property
    def mask(self) -> tuple[bool, ...]:
        """Which of the six tiers were legal."""
        return tuple(rung.legal for rung in self.ladder)

    @property
    def values(self) -> tuple[float | None, ...]:
        """The policy's value of each tier in R-utility; None where it gives none."""
        return tuple(rung.value for rung in self.ladder)


class ShadowRecord(Payload):
    """What the arm that did not answer a decision would have answered, the same account and limits given.

    Write it under `shadow_id`. Where it had no answer only `model_fault` says why.
    """

    kind = "shadow"

    decision_id: RecordId
    arm: Literal["champion", "challenger"]  # whose answer this would have been
    bundle: Digest | None  # None: the rule
    model_status: str
    model_fault: str | None = None
    source: Literal["model", "rule"] | None = None
    action: Name | None = None
    multiplier: Size | None = None  # None where it failed
    proposed_multiplier: FiniteFloat | None = None
    binding_rule: Name | None = None


def shadow_id(decision: str) -> str:
    """The record id of what was sized in the shadow of the decision of that id."""
    return f"shadow-{decision}"


class OutcomeRecord(Payload):
    """What became of a signal, traded or skipped: it is the same at every size, but for impact.

    Net R at size m is gross_r - cost_r - impact_r * sqrt(m), as in signals.trades. A signal has one outcome:
    write it under `outcome_id`.
    """

    kind = "outcome"

    signal_id: RecordId
    decision_id: RecordId | None = None  # by which it was reported, if by one
    gross_r: FiniteFloat
    cost_r: Positive
    impact_r: Positive
    entry_time: Time | None = None
    exit_time: Time  # when the outcome is known
    reason: Literal["stop", "target", "time"] | None = None
    holding: Annotated[StrictInt, Field(ge=1)] | None = None  # bars, that of the entry included
    mfe_r: Positive | None = None
    mae_r: Annotated[FiniteFloat, Field(le=0)] | None = None


def outcome_id(signal: str) -> str:
    """The record id of the one outcome of the signal of that id, by its SHA-256: see `same_signal`."""
    return f"outcome-{signal[-64:]}"


class FillRecord(Payload):
    """What the market made of a decision: one execution."""

    kind = "fill"

    decision_id: RecordId
    role: Literal["entry", "exit"]
    time: Time
    price: Price
    quantity: Annotated[FiniteFloat, Field(gt=0)]  # units of the instrument
    fee: FiniteFloat = 0.0  # account currency; below zero for a rebate


class NarrativeRecord(Payload):
    """A text that was told, and the facts it stands on."""

    kind = "narrative"

    narrative: Literal["market_narrative", "trade_rationale", "risk_assessment", "performance_summary"]
    decision_id: RecordId | None
    text: str
    writer: str
    facts: dict[str, JsonValue]


class ModelRecord(Payload):
    """A change in the registry."""

    kind = "model"

    action: Literal["registered", "promoted", "rolled_back", "staged", "archived", "pruned"]
    version: Annotated[StrictInt, Field(ge=1)]
    digest: Digest  # of its bundle
    replaced_version: Annotated[StrictInt, Field(ge=1)] | None = None  # what was in production before
    replaced_digest: Digest | None = None
    evidence: Digest | None = None  # of the evidence it stands on
    override: str | None = None  # the reason given instead


class TriggerRecord(Payload):
    """Something that drift monitoring or retraining noticed, did or left alone."""

    kind = "trigger"

    cause: Literal["drift", "schedule", "new_data", "manual"]
    event: Literal["alarm", "started", "succeeded", "failed", "refused", "skipped"]
    detail: str  # in words: which check and why
    figures: dict[str, FiniteFloat] = {}
    bundle: Digest | None = None  # the model it is about
    trained: Digest | None = None  # the model that came of it
    job: str | None = None  # where it runs


class Head(_Part):
    """The newest record of a writer."""

    sequence: Annotated[StrictInt, Field(ge=1)]
    hash: Digest


class AnchorRecord(Payload):
    """The heads of other writers' chains, as this writer saw them."""

    kind = "anchor"

    heads: dict[str, Head]


PAYLOADS: Final[Mapping[str, type[Payload]]] = {
    payload.kind: payload
    for payload in (
        SignalRecord,
        DecisionRecord,
        OutcomeRecord,
        FillRecord,
        NarrativeRecord,
        ModelRecord,
        TriggerRecord,
        AnchorRecord,
        ShadowRecord,
    )
}
