"""What a caller hands in for each kind of narrative, checked.

Knows nothing of words. Unknown keys are left alone: a decision's details hold more than a narrative tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from market.errors import InputError

# Both go into a sentence as they are, so neither may hold a line break or a sentence of its own.
Symbol = Annotated[str, Field(pattern=r"^[A-Za-z0-9^][A-Za-z0-9._:/=^-]{0,31}$")]
Label = Annotated[str, Field(pattern=r"^\w[\w .,:/+()–-]{0,59}$")]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Multiple = Annotated[FiniteFloat, Field(ge=0)]


class _Context(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Rung(_Context):
    """One of the sizes a decision had to choose from; `value` is the policy's, None where it gives none."""

    action: Label
    size: Multiple
    value: FiniteFloat | None = None
    legal: bool
    blocked_by: Label | None = None


class DecisionDetails(_Context):
    """A sizing decision. Sizes are multiples of the base position, risks fractions of equity.

    `observation` holds the fields of envs.observation by name; None where a field is not known.
    """

    symbol: Symbol
    side: Literal["long", "short"]
    action: Label
    multiplier: Multiple
    proposed_multiplier: Multiple | None = None
    rule_cap: Multiple
    binding_rule: Label
    source: Literal["model", "rule"]
    model_status: Label
    base_risk: Share
    risk_fraction: Share
    observation: dict[str, FiniteFloat | None]
    ladder: tuple[Rung, ...] = ()


class MarketFeatures(_Context):
    """The features of features.spec that a market narrative tells of, in their units there."""

    mom_5: FiniteFloat
    mom_20: FiniteFloat
    atr_ratio: FiniteFloat
    bb_width: FiniteFloat
    range_position: FiniteFloat
    vol_ratio_5_20: FiniteFloat
    vol_trend: FiniteFloat
    vol_spike: FiniteFloat
    higher_highs: FiniteFloat
    lower_lows: FiniteFloat
    rsi_norm: FiniteFloat
    adx_norm: FiniteFloat
    adx_direction: FiniteFloat
    trend_strength: FiniteFloat
    mean_reversion: FiniteFloat


class MarketContext(_Context):
    """One symbol's newest closed bar as features."""

    symbol: Symbol
    features: MarketFeatures


class PerformanceContext(_Context):
    """What a period's closed trades came to: results in R, drawdown in equity, sizes in multiples.

    `symbol` None means all of them. Without trades the figures are not looked at.
    """

    symbol: Symbol | None = None
    trades: Annotated[int, Field(ge=0)]
    win_rate: Share | None = None
    mean_r: FiniteFloat | None = None
    total_r: FiniteFloat | None = None
    max_drawdown: Share | None = None
    average_multiplier: Multiple | None = None
    period: Label


_Checked = TypeVar("_Checked", bound=BaseModel)


def checked(model: type[_Checked], context: Mapping[str, Any]) -> _Checked:
    """`context` as a `model`; `InputError` naming the first field that is wrong."""
    if not isinstance(context, Mapping):
        raise InputError("context", context, "give a mapping of names to values")
    try:
        return model.model_validate(dict(context))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"]) or "context"
        seen = None if fault["type"] == "missing" else fault["input"]
        raise InputError(place, seen, f"{fault['msg'][:1].lower()}{fault['msg'][1:]}") from error
