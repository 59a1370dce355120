"""Signal rules: side, stop and target of a trade, from bars that have closed.

Knows nothing of outcomes, sizes or accounts. Every rule is one frozen model with one method; a signal belongs
to the bar whose timestamp it carries, is known at that bar's close, and is entered at the next bar's open.
"""

import importlib
import importlib.metadata
import inspect
from collections.abc import Mapping
from typing import Literal, Protocol, Self, runtime_checkable
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from market.bars import Bars
from market.errors import ConfigError
from signals.indicators import (
    average_true_range,
    directional_index,
    prior_highest,
    relative_strength,
    rolling_deviation,
    rolling_mean,
)
from signals.signal_file import SignalFile
from signals.signal_frame import Signals, checked, signal_frame

# Signals and checked belong to the vocabulary of rules, whoever imports them.
__all__ = [
    "DonchianBreakout",
    "MeanReversion",
    "MovingAverageCross",
    "Rule",
    "SignalFile",
    "Signals",
    "checked",
    "rule",
    "rule_names",
]

ENTRY_POINT_GROUP = "ballast.rules"
ATR_PERIOD = 14

FloatArray = npt.NDArray[np.float64]


@runtime_checkable
class Rule(Protocol):
    """What a rule is: a name and one method.

    `generate` gives the columns timestamp (UTC), symbol, side (+1 or -1), stop, take_profit and, if it likes,
    entry (the rule's reference level), max_hold (bars), confidence and strategy_id; no row may depend on a
    bar after its own. The caller passes the table through `checked`, which raises DataError for what cannot
    be traded.
    """

    @property
    def name(self) -> str: ...

    def generate(self, bars: Bars) -> pd.DataFrame: ...


class _Configured(BaseModel):
    """A rule's parameters: typed, frozen, and written into its name where they differ from the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def _named(self, base: str) -> str:
        changed = self.model_dump(exclude_defaults=True)
        return base + "?" * bool(changed) + "&".join(f"{key}={value}" for key, value in changed.items())


class DonchianBreakout(_Configured):
    """Trade in the direction in which the close first leaves the channel of the bars before it (R. Donchian;
    Faith 2003).

    Long when the close is above the highest high of the previous `lookback` bars and the bar before had not
    broken its own channel; short likewise below the lowest low. Stop and target lie `stop_atr` and
    `target_atr` times ATR14 from the close. The reference level is the broken channel.
    """

    lookback: int = Field(default=20, ge=2, le=100_000)
    stop_atr: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    target_atr: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    max_hold: int = Field(default=40, ge=1, le=1_000_000)

    @property
    def name(self) -> str:
        return self._named("donchian")

    def generate(self, bars: Bars) -> pd.DataFrame:
        """Signals of `bars` as a table (see `Rule`)."""
        upper = prior_highest(bars.high, self.lookback)
        lower = -prior_highest(-bars.low, self.lookback)
        direction = np.where(bars.close > upper, 1, 0) - np.where(bars.close < lower, 1, 0)
        # A bar without a full channel has not "not broken" it: the first bar that could break is the second
        # with a channel.
        known = np.isfinite(upper)
        fresh = _fresh(direction, known)
        level = np.where(direction > 0, upper, lower)
        return _bracketed(
            self.name, bars, fresh, direction, level, self.stop_atr, self.target_atr, self.max_hold
        )


class MeanReversion(_Configured):
    """Fade a stretched move back to its mean, with the long trend only.

    Trigger "rsi": RSI of `rsi_period` bars below `rsi_threshold` (above 100 minus it for shorts; Connors &
    Alvarez 2009, RSI2). Trigger "zscore": close more than `entry_deviations` population deviations from its
    mean over `mean_lookback` bars (Bollinger 2001). Longs need the close above its mean over `trend_lookback`
    bars, shorts below. Only the first bar of a stretch fires. Target: the mean over `mean_lookback`, if at
    least `minimum_target_atr` ATR14 away; stop `stop_atr` ATR14 away. The reference level is the band at
    `entry_deviations`.
    """

    trigger: Literal["rsi", "zscore"] = "rsi"
    rsi_period: int = Field(default=2, ge=2, le=1_000)
    rsi_threshold: float = Field(default=10.0, gt=0, lt=50)
    mean_lookback: int = Field(default=20, ge=2, le=100_000)
    entry_deviations: float = Field(default=2.0, gt=0, le=10)
    trend_lookback: int = Field(default=200, ge=2, le=100_000)
    stop_atr: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    minimum_target_atr: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    max_hold: int = Field(default=20, ge=1, le=1_000_000)

    @property
    def name(self) -> str:
        return self._named("mean_reversion")

    def generate(self, bars: Bars) -> pd.DataFrame:
        """Signals of `bars` as a table (see `Rule`)."""
        close = bars.close
        mean = rolling_mean(close, self.mean_lookback)
        deviation = rolling_deviation(close, self.mean_lookback)
        trend = rolling_mean(close, self.trend_lookback)
        if self.trigger == "rsi":
            strength = relative_strength(close, self.rsi_period)
            stretched_down, stretched_up = strength < self.rsi_threshold, strength > 100 - self.rsi_threshold
        else:
            reach = self.entry_deviations * deviation
            stretched_down, stretched_up = close < mean - reach, close > mean + reach
        direction = np.where(stretched_down & (close > trend), 1, 0) - np.where(
            stretched_up & (close < trend), 1, 0
        )
        atr = average_true_range(bars.high, bars.low, close, ATR_PERIOD)
        worthwhile = direction * (mean - close) >= self.minimum_target_atr * atr
        fresh = _fresh(direction, np.isfinite(trend)) & worthwhile
        level = mean - direction * self.entry_deviations * deviation
        row = np.flatnonzero(fresh)
        side = direction[row]
        stop = close[row] - side * self.stop_atr * atr[row]
        return signal_frame(bars, row, side, stop, mean[row], level[row], self.max_hold, self.name)


class MovingAverageCross(_Configured):
    """Follow the fast mean across the slow one while the market trends (Brock, Lakonishok & LeBaron 1992;
    ADX: Wilder 1978).

    Fires on the bar where the mean over `fast` bars passes the mean over `slow` bars, if ADX14 is at least
    `minimum_adx`. Stop and target as in `DonchianBreakout`. The reference level is the slow mean.
    """

    fast: int = Field(default=20, ge=1, le=100_000)
    slow: int = Field(default=50, ge=2, le=100_000)
    minimum_adx: float = Field(default=20.0, ge=0, le=100)
    stop_atr: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    target_atr: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    max_hold: int = Field(default=60, ge=1, le=1_000_000)

    @property
    def name(self) -> str:
        return self._named("moving_average_cross")

    @model_validator(mode="after")
    def _fast_is_faster(self) -> Self:
        if self.fast >= self.slow:
            raise ValueError(f"fast must be below slow, got {self.fast} and {self.slow}")
        return self

    def generate(self, bars: Bars) -> pd.DataFrame:
        """Signals of `bars` as a table (see `Rule`)."""
        fast = rolling_mean(bars.close, self.fast)
        slow = rolling_mean(bars.close, self.slow)
        above = np.where(fast > slow, 1, 0) - np.where(fast < slow, 1, 0)
        # Two means that touch and part on the same side have not crossed: a tie keeps the side it came from.
        last_told = np.maximum.accumulate(np.where(above != 0, np.arange(above.size), 0))
        direction = above[last_told]
        adx = directional_index(bars.high, bars.low, bars.close, ATR_PERIOD)
        fresh = _fresh(direction, np.isfinite(slow)) & (adx >= self.minimum_adx)
        return _bracketed(
            self.name, bars, fresh, direction, slow, self.stop_atr, self.target_atr, self.max_hold
        )


def _fresh(direction: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Rows where a direction starts: it is not zero, differs from the row before, and that row could already
    tell."""
    started = np.zeros(direction.size, dtype=np.bool_)
    started[1:] = (direction[1:] != 0) & (direction[1:] != direction[:-1]) & known[:-1]
    return started


def _bracketed(
    name: str,
    bars: Bars,
    fires: npt.NDArray[np.bool_],
    direction: npt.NDArray[np.int64],
    level: FloatArray,
    stop_atr: float,
    target_atr: float,
    max_hold: int,
) -> pd.DataFrame:
    """The table of signals with stop and target at multiples of ATR14 from the close."""
    atr = average_true_range(bars.high, bars.low, bars.close, ATR_PERIOD)
    row = np.flatnonzero(fires)
    side = direction[row]
    stop = bars.close[row] - side * stop_atr * atr[row]
    target = bars.close[row] + side * target_atr * atr[row]
    return signal_frame(bars, row, side, stop, target, level[row], max_hold, name)


BUILT_IN: Mapping[str, type[DonchianBreakout] | type[MeanReversion] | type[MovingAverageCross]] = {
    "donchian": DonchianBreakout,
    "mean_reversion": MeanReversion,
    "moving_average_cross": MovingAverageCross,
}


def rule_names() -> tuple[str, ...]:
    """The names `rule` knows: the built-in ones, then those that installed packages register."""
    return (
        *BUILT_IN,
        *sorted(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)),
    )


def rule(name: str) -> Rule:
    """The rule called `name`, parameters after a question mark: `donchian`,
    `donchian?lookback=55&max_hold=80`.

    `csv:PATH` reads the user's own signals; `plugin:MODULE:CLASS` imports a class; a third-party package
    registers its own names in the entry-point group `ballast.rules`. Raises ConfigError for a name or
    parameter it does not know.
    """
    if name.startswith("csv:"):
        return SignalFile(path=name.removeprefix("csv:"))
    base, _, query = name.partition("?")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    if query and len(parameters) != query.count("&") + 1:
        raise ConfigError("rule", name, "write parameters once each, as name?key=value&key=value")
    if base in BUILT_IN:
        try:
            return BUILT_IN[base].model_validate(parameters)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            known = ", ".join(BUILT_IN[base].model_fields)
            raise ConfigError(
                f"rule {base}, {field}", first["input"], f"{first['msg']}; parameters are {known}"
            ) from None
    return _third_party(name, base, parameters)


def _third_party(name: str, base: str, parameters: dict[str, str]) -> Rule:
    if base.startswith("plugin:"):
        module, _, attribute = base.removeprefix("plugin:").partition(":")
        try:
            loaded = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                "rule", name, f"write plugin:MODULE:CLASS that can be imported ({error})"
            ) from None
    else:
        points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=base)
        if not points:
            known = ", ".join(rule_names())
            raise ConfigError("rule", name, f"choose one of {known}, csv:PATH or plugin:MODULE:CLASS")
        loaded = next(iter(points)).load()
    try:
        made = (
            loaded(**{key: _literal(value) for key, value in parameters.items()})
            if inspect.isclass(loaded)
            else loaded
        )
    except (TypeError, ValueError) as error:
        raise ConfigError("rule", name, f"give parameters that the rule takes ({error})") from None
    if not isinstance(made, Rule):
        raise ConfigError("rule", name, "give a class with a name and a method generate(bars)")
    return made


def _literal(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
