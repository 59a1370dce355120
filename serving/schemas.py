"""What the three applications accept: typed, bounded, with examples and units.

Knows nothing of HTTP. Every number is a JSON number and finite; nothing unknown passes.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from envs.guardrails import Account, TighterLimits
from features.spec import FEATURE_NAMES, FEATURES, WARMUP
from market.bars import Bars
from market.errors import DataError

MOST_BARS: Final = 5000
MOST_REQUESTS: Final = 1024  # of a batch
MOST_CONTEXT: Final = 64  # entries of a narrative's context
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
EARLIEST, LATEST = EPOCH, datetime(2261, 1, 1, tzinfo=UTC)  # what 64-bit nanoseconds hold
ACCOUNT_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


def _text_time(value: object, info: ValidationInfo) -> object:
    """A time is text (or already a datetime): a bare number could be seconds, milliseconds or a mistake."""
    if isinstance(value, str | datetime):
        return value
    raise DataError(
        str(info.field_name), value, "give ISO 8601 text with a time zone, such as 2026-01-05T14:00:00Z"
    )


def _plain_numbers(value: object) -> object:
    """Limits are numbers: text and truth values would otherwise be read as some."""
    for name, item in value.items() if isinstance(value, dict) else ():
        if not (item is None or isinstance(item, int | float)) or isinstance(item, bool):
            raise DataError(name, item, "give a number")
    return value


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Cost = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Whole = Annotated[int, Field(strict=True)]
Price = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=1e15)]
Share = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
# As strict as narratives are: a symbol goes into their sentences as it is.
Symbol = Annotated[str, Field(pattern=r"^[A-Za-z0-9^][A-Za-z0-9._:/=^-]{0,31}$")]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Time = Annotated[AwareDatetime, BeforeValidator(_text_time)]


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since 1970, UTC, exact to the microsecond that a datetime holds."""
    return (moment - EPOCH) // MICROSECOND * 1000


def in_range(field: str, value: datetime) -> datetime:
    """`value`, if 64-bit nanoseconds hold it; DataError otherwise."""
    if not EARLIEST <= value <= LATEST:
        raise DataError(field, value.isoformat(), "give a time from 1970 to 2260")
    return value


class Strict(BaseModel):
    """A model that refuses unknown fields, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Signal(Strict):
    """One signal of the trader's rule. Prices are in the market's own unit."""

    symbol: Annotated[Symbol, StringConstraints(to_upper=True)] = Field(
        description="the market's name; upper and lower case are the same"
    )
    side: Literal["long", "short"] = Field(description="which way the trade would go")
    timestamp: Time = Field(
        description="when the signal is known: the close of the signal bar, ISO 8601 with a time zone"
    )
    price: Price = Field(description="close of the signal bar")
    stop: Price = Field(description="where the trade is given up; 1 R is the distance from price to stop")
    take_profit: Price = Field(description="where the trade has won")
    entry: Price | None = Field(
        default=None, description="the rule's reference level, such as the broken channel; absent: price"
    )
    confidence: Share | None = Field(
        default=None, description="the rule's own confidence, 0 to 1; absent: 0.5"
    )
    strategy_id: Name | None = Field(default=None, description="kept with the decision, not looked at")

    @field_validator("timestamp")
    @classmethod
    def _in_range(cls, value: datetime) -> datetime:
        return in_range("timestamp", value)

    @model_validator(mode="after")
    def _right_side(self) -> Self:
        below, above = ("stop", "take_profit") if self.side == "long" else ("take_profit", "stop")
        if getattr(self, below) >= self.price:
            raise DataError(
                below,
                getattr(self, below),
                f"give a {below} below the price {self.price:g} of a {self.side} signal",
            )
        if getattr(self, above) <= self.price:
            raise DataError(
                above,
                getattr(self, above),
                f"give a {above} above the price {self.price:g} of a {self.side} signal",
            )
        return self

    @property
    def direction(self) -> int:
        """+1 for long, -1 for short."""
        return 1 if self.side == "long" else -1

    @property
    def time(self) -> int:
        """`timestamp` in ns since 1970, UTC."""
        return nanoseconds(self.timestamp)


class Bar(Strict):
    """One bar; prices in the market's own unit."""

    timestamp: Time = Field(
        description="the bar's own timestamp, which labels its open; rising from bar to bar"
    )
    open: Price = Field(description="first price")
    high: Price = Field(description="highest price, no less than open and close")
    low: Price = Field(description="lowest price, no more than open and close")
    close: Price = Field(description="last price")
    volume: Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)] = Field(
        default=0.0, description="traded volume in any unit that stays the same; absent: 0"
    )

    @field_validator("timestamp")
    @classmethod
    def _in_range(cls, value: datetime) -> datetime:
        return in_range("timestamp", value)


def bars_of(symbol: str, rows: list[Bar]) -> Bars:
    """The validated bars of `symbol`; DataError naming row, column and value."""
    return Bars.from_arrays(
        symbol,
        np.array([nanoseconds(bar.timestamp) for bar in rows], dtype=np.int64),
        [bar.open for bar in rows],
        [bar.high for bar in rows],
        [bar.low for bar in rows],
        [bar.close for bar in rows],
        [bar.volume for bar in rows],
    )


BarList = Annotated[list[Bar], Field(min_length=WARMUP, max_length=MOST_BARS)]

Features: Final = create_model(
    "Features",
    __base__=Strict,
    __doc__=f"The {len(FEATURE_NAMES)} features at the signal bar, as POST /features gives them.",
    **{feature.name: (Number, Field(description=feature.formula)) for feature in FEATURES},  # type: ignore[call-overload]
)


_IN_ORDER: Final = itemgetter(*FEATURE_NAMES)


class Market(Strict):
    """The market at the signal: `features`, or the `bars` to compute them from, the signal bar last."""

    features: Features | None = Field(
        default=None, description="all of them at the signal bar, as POST /features gives them"
    )
    bars: BarList | None = Field(
        default=None, description="oldest first; 1,000 or more give swing features their full memory"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.features is None) == (self.bars is None):
            given = "neither" if self.features is None else "both"
            raise DataError("market", given, "give either features or bars")
        return self

    def feature_row(self) -> npt.NDArray[np.float64] | None:
        """The given features, float64[31] in the order of `FEATURE_NAMES`; None where bars were given."""
        if self.features is None:
            return None
        return np.array(_IN_ORDER(vars(self.features)))


class AccountState(Strict):
    """The account as the trading loop sees it now. What is called `pct` is a fraction: 0.02 is 2 %."""

    equity: Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)] = Field(
        description="settled equity, any currency"
    )
    peak_equity: Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)] = Field(
        description="highest settled equity since your last review, same currency; below equity, it is equity"
    )
    open_risk_pct: Share = Field(
        description="risk from entry to stop summed over open trades, fraction of equity"
    )
    daily_risk_used_pct: Share = Field(description="risk opened since 00:00 UTC, fraction of equity")
    open_trades: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = Field(
        default=0, description="positions open now"
    )
    win_rate_recent: Share | None = Field(
        default=None,
        description="20-signal average of settled winners, skipped ones included; absent: as in training",
    )

    def account(self) -> Account:
        """As the guardrail takes it."""
        return Account(
            self.equity, self.peak_equity, self.open_risk_pct, self.daily_risk_used_pct, self.open_trades
        )


def example_bars(count: int) -> list[JsonValue]:
    """`count` hourly bars of a made-up market, as JSON."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        {
            "timestamp": (first + timedelta(hours=hour)).isoformat(),
            "open": 1.1,
            "high": 1.102 + hour % 5 / 10_000,
            "low": 1.099,
            "close": 1.1 + hour % 7 / 10_000,
            "volume": 100.0 + hour % 3,
        }
        for hour in range(count)
    ]


_FEATURE_EXAMPLE = dict.fromkeys(FEATURE_NAMES, 0.0) | {
    "atr_ratio": 0.0012,
    "trend_strength": 0.41,
    "mom_20": 0.9,
}
_SIGNAL_EXAMPLE = {
    "symbol": "EURUSD",
    "side": "long",
    "timestamp": "2026-01-05T14:00:00Z",
    "price": 1.1050,
    "stop": 1.1020,
    "take_profit": 1.1110,
    "entry": 1.1045,
}
_ACCOUNT_EXAMPLE = {
    "equity": 100_000.0,
    "peak_equity": 104_000.0,
    "open_risk_pct": 0.01,
    "daily_risk_used_pct": 0.01,
    "open_trades": 1,
}
SIZING_EXAMPLE: Final[dict[str, Any]] = {
    "signal": _SIGNAL_EXAMPLE,
    "market": {"features": _FEATURE_EXAMPLE},
    "account": _ACCOUNT_EXAMPLE,
    "account_id": "default",
}


class Reserve(Strict):
    """Have the size held in the account's risk budget before it is answered."""

    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")] = Field(
        description="names the trade for good, over all accounts: the same request gets the same answer"
    )
    seconds: Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=86_400)] = Field(
        default=60.0, description="how long it is held if it is not committed"
    )


class SizingRequest(Strict):
    """One signal to be sized."""

    model_config = ConfigDict(json_schema_extra={"examples": [SIZING_EXAMPLE]})

    signal: Signal = Field(description="what the trader's rule proposes")
    market: Market = Field(description="the market at the signal bar: features, or the bars to compute them")
    account: AccountState = Field(description="the account as it stands now")
    account_id: str = Field(
        default="default", pattern=ACCOUNT_ID, description="names the operator's limits file"
    )
    limits: Annotated[TighterLimits | None, BeforeValidator(_plain_numbers)] = Field(
        default=None, description="only ever tighter than the operator's; a looser value changes nothing"
    )
    reserve: Reserve | None = Field(
        default=None,
        description="lower the size to what the account's risk budget has left, and hold it there",
    )


class SizingBatch(Strict):
    """Signals to be sized at once: all are answered and journaled, or none."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"requests": [SIZING_EXAMPLE]}]})

    requests: Annotated[list[SizingRequest], Field(min_length=1, max_length=MOST_REQUESTS)] = Field(
        description="each as POST / takes it; of the others it knows only what they reserve before it"
    )

    @field_validator("requests")
    @classmethod
    def _keys_differ(cls, value: list[SizingRequest]) -> list[SizingRequest]:
        keys = [request.reserve.key for request in value if request.reserve is not None]
        for key, count in Counter(keys).items():
            if count > 1:
                raise DataError("reserve.key", key, f"{count} requests have it: a key names one trade")
        return value


class OutcomeReport(Strict):
    """What became of a signal, traded or skipped: a skipped one as if it had been traded at 1x.

    R is the distance from the signal's price to its stop. Net R at size m is gross_r - cost_r - impact_r *
    sqrt(m): the same outcome for every size.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "gross_r": 1.98,
                    "cost_r": 0.05,
                    "impact_r": 0.01,
                    "entry_time": "2026-01-05T15:00:00Z",
                    "exit_time": "2026-01-06T09:00:00Z",
                    "reason": "target",
                }
            ]
        }
    )

    gross_r: Number = Field(description="from entry to exit, in R, before all costs")
    cost_r: Cost = Field(description="fees, spread and slippage of the round trip, in R")
    impact_r: Cost = Field(description="slippage that the position itself caused, at 1x, in R; 0 if unknown")
    entry_time: Time | None = Field(default=None, description="ISO 8601 with a time zone")
    exit_time: Time = Field(description="when the outcome is known, ISO 8601 with a time zone")
    reason: Literal["stop", "target", "time"] | None = Field(default=None, description="what ended it")
    holding: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = Field(
        default=None, description="bars held, that of the entry included"
    )
    mfe_r: Cost | None = Field(default=None, description="best excursion up to the exit, in R")
    mae_r: Annotated[float, Field(strict=True, allow_inf_nan=False, le=0)] | None = Field(
        default=None, description="worst excursion up to the exit, in R"
    )

    @field_validator("entry_time", "exit_time")
    @classmethod
    def _in_range(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        return None if value is None else in_range(str(info.field_name), value)


class FeaturesRequest(Strict):
    """Bars to compute features from."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"symbol": "EURUSD", "bars": example_bars(WARMUP)}]}
    )

    symbol: Symbol = Field(
        default="UNNAMED", description="the market's name; upper and lower case are the same"
    )
    bars: BarList = Field(description=f"oldest first, {WARMUP} to {MOST_BARS}")


class StreamUpdate(Strict):
    """The next bars of a stream, each of which it sees once."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"symbol": "EURUSD", "bars": example_bars(2), "seen": 0}]}
    )

    symbol: Symbol = Field(description="the market's name, the same in every update of the stream")
    bars: Annotated[list[Bar], Field(min_length=1, max_length=MOST_BARS)] = Field(
        description=f"closed bars, oldest first, 1 to {MOST_BARS}, that follow what the stream has seen"
    )
    seen: Annotated[int, Field(strict=True, ge=0, le=2**53)] = Field(
        description="bars that the stream has seen before these: 0, then bars_seen of the last answer"
    )


class NarrativeRequest(Strict):
    """What to tell, and of what."""

    model_config = ConfigDict(
        ser_json_inf_nan="constants",  # a client's NaN is the service's to refuse, not null
        json_schema_extra={
            "examples": [
                {
                    "kind": "performance_summary",
                    "context": {
                        "period": "this week",
                        "trades": 12,
                        "win_rate": 0.5,
                        "mean_r": 0.1,
                        "total_r": 1.2,
                        "max_drawdown": 0.03,
                        "average_multiplier": 0.8,
                    },
                }
            ]
        },
    )

    kind: Literal["market_narrative", "trade_rationale", "risk_assessment", "performance_summary"] = Field(
        description="what is told: the market, why the size is what it is, its risk, or a period's results"
    )
    decision_id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")] | None = (
        Field(
            default=None,
            description="of an answer of POST /sizing; not for a performance_summary",
            examples=["2f6c1d0e-6b0e-4a3c-9f55-0a2f6a0f3f11"],
        )
    )
    context: Annotated[dict[str, Any], Field(max_length=MOST_CONTEXT)] | None = Field(
        default=None, description="what narratives/contexts.py lists for the kind, instead of a decision id"
    )
    stream: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="answer with server-sent events, as `Accept: text/event-stream` asks too"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.decision_id is None) == (self.context is None):
            given = "neither" if self.context is None else "both"
            raise DataError("context", given, "give either decision_id or context")
        if self.decision_id is not None and self.kind == "performance_summary":
            raise DataError(
                "decision_id", self.decision_id, "give the period's figures as context for this kind"
            )
        return self
