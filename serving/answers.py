"""What the three applications answer: typed, with units, for their documents and their tests.

Knows nothing of HTTP or of how an answer comes about.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from envs.guardrails import RULES, TIERS
from serving.schemas import Features, Strict

Tier = Annotated[str, Field(json_schema_extra={"enum": list(TIERS)})]
Rule = Annotated[str, Field(json_schema_extra={"enum": list(RULES)})]


class LadderRung(Strict):
    """One of the six sizes at this decision."""

    action: Tier
    size: float = Field(description="multiple of the base position")
    value: float | None = Field(description="value to the model in R-utility; null where no model spoke")
    legal: bool = Field(description="whether the limits allow it now")
    blocked_by: str | None = Field(description="the limit that forbids it")


class ReservationAnswer(Strict):
    """What the account's risk budget holds for a decision."""

    key: str
    state: Literal["reserved", "committed", "settled", "released", "expired"]
    risk: float = Field(description="of the UTC day's risk, fraction of equity")
    exposure: float = Field(description="of the open exposure, fraction of equity")
    expires: str = Field(description="when it is given back if it is not committed, UTC")


class SizingAnswer(Strict):
    """The size, the rule that bound it and everything that it came from."""

    decision_id: str = Field(description="journaled under this id; POST /narratives takes it")
    symbol: str
    side: Literal["long", "short"]
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
    ladder: list[LadderRung] = Field(min_length=6, max_length=6)
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

    outcome_id: str
    decision_id: str
    signal_id: str = Field(
        description="SHA-256 of the signal: decisions about the same one share its outcome"
    )
    reservation: ReservationAnswer | None = Field(
        description="settled where the trade was committed, else released; null where nothing was reserved"
    )


class FeaturesAnswer(Strict):
    """The features at the last bar."""

    symbol: str
    timestamp: str = Field(description="of the last bar, as given, in UTC")
    features: Features
    bars_seen: int = Field(
        description="swing features remember without end: more bars, nearer to the full history"
    )
    fingerprint: str = Field(description="of the feature definitions; a bundle refuses others")


class Refusal(Strict):
    """What was wrong with a request."""

    field: str
    value: Any = None
    mend: str


class RefusalAnswer(Strict):
    """The body of every answer that is no success."""

    error: Refusal


class NarrativeAnswer(Strict):
    """A narrative and what it stands on."""

    decision_id: str | None
    kind: str
    text: str
    facts: dict[str, Any] = Field(
        description="every value the text may use, with its unit and the display it must have"
    )
    writer: str = Field(description="who wrote it: template, or a language model")
