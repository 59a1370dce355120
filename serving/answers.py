"""What the three applications answer: typed, with units, for their documents and their tests.

Knows nothing of HTTP or of how an answer comes about.
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from envs.guardrails import RULES, TIERS
from serving.schemas import Features, Strict

Tier = Annotated[str, Field(json_schema_extra={"enum": list(TIERS)})]
Rule = Annotated[str, Field(json_schema_extra={"enum": list(RULES)})]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class LadderRung(Strict):
    """One of the six sizes at this decision."""

    action: Tier = Field(description="its name")
    size: float = Field(description="multiple of the base position")
    value: float | None = Field(description="value to the model in R-utility; null where no model spoke")
    legal: bool = Field(description="whether the limits allow it now")
    blocked_by: str | None = Field(description="the limit that forbids it")


class ReservationAnswer(Strict):
    """What the account's risk budget holds for a decision."""

    key: str = Field(description="names the trade for good")
    state: Literal["reserved", "committed", "settled", "released", "expired"] = Field(
        description="held, an open trade, a closed one, given back, or given back by time"
    )
    risk: float = Field(description="of the UTC day's risk, fraction of equity")
    exposure: float = Field(description="of the open exposure, fraction of equity")
    expires: str = Field(description="when it is given back if it is not committed, UTC")


class SizingAnswer(Strict):
    """The size, the rule that bound it and everything that it came from."""

    decision_id: str = Field(description="journaled under this id; POST /narratives takes it")
    symbol: str = Field(description="the market's name, in upper case")
    side: Literal["long", "short"] = Field(description="as asked")
    action: Tier = Field(description="largest tier at or below the multiplier")
    multiplier: float = Field(ge=0, le=1.5, description="what may be traded, in units of the base position")
    proposed_multiplier: float | None = Field(
        description="what the model would do without limits; null where it has no valid say"
    )
    rule_tier: Tier = Field(description="what the rule alone would have taken: STANDARD under these limits")
    rule_cap: float = Field(ge=0, le=1.5, description="largest multiplier that the limits allow")
    binding_rule: Rule = Field(description="what changed the advice; none where it stood")
    source: Literal["model", "rule"] = Field(
        description="who proposed; rule is STANDARD, where no model has a valid say"
    )
    propensity: float = Field(
        gt=0, le=1, description="probability of this action in this situation: 1, as no policy draws"
    )
    model_status: str = Field(
        max_length=60, description="registry status of the bundle, or in short why the rule answered"
    )
    model_fault: str | None = Field(
        description="in full why a model that is served was not used; null where it was"
    )
    base_risk: float = Field(description="equity fraction risked at 1x; 0 where the limits are unusable")
    risk_fraction: float = Field(description="equity fraction that this size risks between price and stop")
    observation: dict[str, float | None] = Field(
        description="what the policy sees, docs/observation.md; null where only a model could tell"
    )
    ladder: list[LadderRung] = Field(min_length=6, max_length=6, description="the six sizes, smallest first")
    bundle: str | None = Field(description="SHA-256 of the policy bundle")
    limits_source: str = Field(description="file of the operator's limits, or why they cannot be used")
    limits_digest: str | None = Field(description="SHA-256 of the operator's limits")
    out_of_distribution: bool | None = Field(
        description="whether the features lie outside the training data; null without a model"
    )
    expected_utility: float | None = Field(
        description="R-utility expected of this size under the outcome model"
    )
    reservation: ReservationAnswer | None = Field(
        default=None, description="only where the request said reserve; null where the size is 0"
    )


class BatchAnswer(Strict):
    """The sizes of a batch."""

    answers: list[SizingAnswer] = Field(description="one for each request, in the order given")


class OutcomeAnswer(Strict):
    """An outcome that is journaled, by this report or by an equal one before it."""

    outcome_id: str = Field(description="journaled under this id")
    decision_id: str = Field(description="as in the path")
    signal_id: str = Field(
        description="time and SHA-256 of the signal: decisions about the same one share its outcome"
    )
    reservation: ReservationAnswer | None = Field(
        description="settled where the trade was committed, else released; null where nothing was reserved"
    )


class FeaturesAnswer(Strict):
    """The features at the last bar."""

    symbol: str = Field(description="the market's name, in upper case")
    timestamp: str = Field(description="of the last bar, as given, in UTC")
    features: Features = Field(description="at the last bar")
    bars_seen: int = Field(
        description="swing features remember without end: more bars, nearer to the full history"
    )
    fingerprint: Sha256 = Field(description="of the feature definitions; a bundle refuses others")


class StreamAnswer(Strict):
    """Where a stream stands: the features at the last bar that it has seen."""

    stream_id: str = Field(description="as in the path")
    symbol: str = Field(description="the market's name, in upper case")
    timestamp: str = Field(description="of the last bar, as given, in UTC")
    features: Features | None = Field(
        description="at the last bar, the bits of POST / for all bars; null where bars are needed"
    )
    bars_seen: int = Field(description="bars that the stream has seen: `seen` of the next update")
    bars_needed: int = Field(description="bars still to come before there are features; 0 where there are")
    fingerprint: Sha256 = Field(description="of the feature definitions; a bundle refuses others")


class Refusal(Strict):
    """What was wrong with a request."""

    field: str = Field(description="the place of what is wrong, dotted")
    value: Any = Field(default=None, description="what was seen there, if it is short")
    mend: str = Field(description="what to do about it")
    bars_seen: int | None = Field(
        default=None, description="only where a stream is elsewhere: bars that it has seen"
    )


class RefusalAnswer(Strict):
    """The body of every answer that is no success."""

    error: Refusal = Field(description="the first fault that was found")


class NarrativeAnswer(Strict):
    """A narrative and what it stands on."""

    decision_id: str | None = Field(description="as asked; null where a context was given")
    kind: str = Field(description="as asked")
    text: str = Field(description="plain English")
    facts: dict[str, Any] = Field(
        description="every value the text may use, with its unit and the display it must have"
    )
    writer: str = Field(description="who wrote it: template, or a language model")


class LineageAnswer(Strict):
    """What a bundle was made of."""

    data: str = Field(description="digest of all bars it was trained on")
    features: str = Field(description="digest of the definition of the features")
    config: str = Field(description="digest of the training's configuration")
    seeds: tuple[int, ...] = Field(description="all that were trained, though one was registered")
    parent: str | None = Field(description="SHA-256 of the bundle it was to replace or started from")


class ModelAnswer(Strict):
    """One registered version."""

    version: int = Field(description="counts from 1")
    digest: Sha256 = Field(description="SHA-256 of the bundle")
    status: Literal["TRAINING", "STAGING", "PRODUCTION", "ARCHIVED"] = Field(
        description="where it stands on its way to production"
    )
    created: AwareDatetime = Field(description="when it was registered, UTC")
    tags: dict[str, str] = Field(description="what was noted of it")
    metrics: dict[str, float] = Field(
        description="its figures, in R multiples unless the name says otherwise"
    )
    aliases: tuple[Literal["production", "previous", "staging"], ...] = Field(
        description="what it holds alone"
    )
    evidence: str | None = Field(description="digest of the evidence it was last promoted on")
    override: str | None = Field(description="why it was promoted without evidence")
    lineage: LineageAnswer | None = Field(description="what it was made of, where that was told")


class RefusedDeployment(Strict):
    """A deployment that was not taken over; what was served before is served still."""

    digest: str | None = Field(description="SHA-256 of the bundle that was to be served")
    field: str = Field(description="the place of what is wrong, dotted")
    mend: str = Field(description="what to do about it")


class ChallengerHealth(Strict):
    """Who sizes every request beside the bundle that is served."""

    digest: str | None = Field(description="SHA-256 of its bundle; null for the rule")
    status: str = Field(description="its status, as it was deployed")
    share: float = Field(ge=0, le=1, description="of days x symbols that it answers")


class Health(Strict):
    """The replica that was asked is there."""

    status: Literal["ok"] = Field(description="it answers")
    replica: str = Field(description="which one: its name as a writer of the journal")
    refused: RefusedDeployment | None = Field(description="why the last deployment was not taken over")


class FeaturesHealth(Health):
    """The replica that was asked is there, and which features it computes."""

    fingerprint: Sha256 = Field(description="of the feature definitions")


class NarrativesHealth(Health):
    """The replica that was asked is there, and who writes."""

    writer: str = Field(description="template, or a language model and its mode")
    fallbacks: dict[str, int] = Field(
        description="texts that the model did not write to their end, by reason: "
        "timeout, ungrounded, unavailable, error"
    )


class SizingHealth(Health):
    """The replica that was asked is there, and what it answers from."""

    model_status: str = Field(description="registry status of the bundle, or in short why the rule answers")
    bundle: str | None = Field(description="SHA-256 of the policy bundle; null where the rule answers")
    challenger: ChallengerHealth | None = Field(description="who sizes beside it")
    challenger_refused: RefusedDeployment | None = Field(description="why a challenger was not taken over")
