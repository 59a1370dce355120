"""The six numbers about a signal that the outcome model reads, all known at the close of the signal bar.

Knows nothing of outcomes or of the account: the account's own fields join them in the observation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from features.spec import FEATURE_NAMES, index
from market.compiled import compiled
from market.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SIGNAL_FIELDS = (
    "trend_strength",
    "volatility_regime",
    "momentum_score",
    "rule_confidence",
    "entry_quality",
    "risk_reward_ratio",
)
POOLED = "*"
QUANTILES = 101
FEWEST_ROWS = 50
ATR_RATIO, TREND_STRENGTH, MOM_20 = map(index, ("atr_ratio", "trend_strength", "mom_20"))


class Curves(NamedTuple):
    """The quantiles of all symbols, one curve after another."""

    start: IntArray  # [symbols + 1], where each curve begins and the last one ends
    quantiles: FloatArray  # rising along each curve
    shares: FloatArray  # of training rows below each of them


@dataclass(frozen=True)
class VolatilityRanks:
    """Where a market's atr_ratio stood among the training rows: one sorted float64[Q] of quantiles per
    symbol.

    The key "*" holds the pooled quantiles, which answer for a symbol that training had not seen (or saw in
    fewer than 50 rows).
    """

    quantiles: Mapping[str, FloatArray]

    def __post_init__(self) -> None:
        if POOLED not in self.quantiles:
            raise DataError(
                "volatility quantiles", sorted(self.quantiles), f"add the pooled quantiles under {POOLED!r}"
            )
        for symbol, values in self.quantiles.items():
            if (
                values.ndim != 1
                or values.size < 2
                or not np.all(np.isfinite(values))
                or np.any(np.diff(values) < 0)
            ):
                raise DataError(
                    f"volatility quantiles of {symbol}", values, "give two or more finite, rising numbers"
                )

    @classmethod
    def fit(cls, symbols: Sequence[str], symbol: npt.NDArray[np.integer], atr_ratio: FloatArray) -> Self:
        """Quantiles of atr_ratio float64[n] for each of `symbols`, `symbol` int[n] being the index of a row's
        symbol.

        Give training rows only. Raises DataError where no finite value is left.
        """
        finite = np.isfinite(atr_ratio)
        if not np.any(finite):
            raise DataError("atr_ratio", atr_ratio, "give at least one row after the features' warm-up")
        shares = np.linspace(0.0, 1.0, QUANTILES)
        groups = {POOLED: atr_ratio[finite]}
        for number, name in enumerate(symbols):
            rows = atr_ratio[finite & (symbol == number)]
            if rows.size >= FEWEST_ROWS:
                groups[name] = rows
        return cls({name: np.quantile(rows, shares) for name, rows in groups.items()})

    def rank(self, symbol: str | Sequence[str], atr_ratio: FloatArray) -> FloatArray:
        """Share of training rows below atr_ratio float64[N], in [0, 1]; NaN stays NaN.

        `symbol`: of all rows, or N of them.
        """
        ranks = np.empty(len(atr_ratio))
        _ranks(atr_ratio, self.curve_of(symbol), self.curves, ranks)
        return ranks

    def curve_of(self, symbol: str | Sequence[str]) -> IntArray:
        """The number of the curve that answers for `symbol`, one or N of them: int64[1 or N]."""
        numbers, pooled = self._numbers, self._numbers[POOLED]
        symbols = (symbol,) if isinstance(symbol, str) else symbol
        return np.array([numbers.get(name, pooled) for name in symbols], dtype=np.int64)

    @cached_property
    def curves(self) -> Curves:
        """What ranks are read off."""
        sizes = [values.size for values in self.quantiles.values()]
        return Curves(
            np.cumsum([0, *sizes]),
            np.concatenate(list(self.quantiles.values())),
            np.concatenate([np.linspace(0.0, 1.0, size) for size in sizes]),
        )

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.quantiles)}

    def to_dict(self) -> dict[str, list[float]]:
        """Plain lists, for JSON."""
        return {name: values.tolist() for name, values in self.quantiles.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Sequence[float] | FloatArray]) -> Self:
        """Back from `to_dict`, bit for bit. Raises DataError for quantiles that are not finite and rising."""
        return cls({name: np.asarray(values, dtype=np.float64) for name, values in plain.items()})


def signal_fields(
    symbol: str | Sequence[str],
    features: FloatArray,
    side: npt.NDArray[np.integer],
    close: FloatArray,
    level: FloatArray,
    stop: FloatArray,
    take_profit: FloatArray,
    confidence: FloatArray,
    ranks: VolatilityRanks,
) -> FloatArray:
    """SIGNAL_FIELDS of N signals of one symbol, or of N, float64[N, 6], each within [-1, 1].

    `features` float64[N, 31] are the rows of the signal bars; prices are in the market's unit, `confidence`
    in [0, 1]; a NaN feature gives a NaN field. trend_strength is feature 29 (Kaufman's efficiency ratio);
    volatility_regime the rank of atr_ratio; momentum_score tanh(mom_20) in the trade's direction;
    entry_quality the way the close has gone from the rule's level towards the target, in ATR14 (0 on a market
    without range); risk_reward_ratio the planned target over the planned stop distance, less 2. Raises
    DataError for rows of other features.
    """
    if features.shape[1] != len(FEATURE_NAMES):
        raise DataError("features", features.shape, f"give rows of {len(FEATURE_NAMES)}")
    fields = np.empty((len(features), len(SIGNAL_FIELDS)))
    plan = np.asarray(side, dtype=np.float64), close, level, stop, take_profit, confidence
    fill_fields(np.ascontiguousarray(features), *plan, ranks.curve_of(symbol), ranks.curves, fields)
    return fields


@compiled(error_model="numpy")
def fill_fields(
    features: FloatArray,
    side: FloatArray,
    close: FloatArray,
    level: FloatArray,
    stop: FloatArray,
    take_profit: FloatArray,
    confidence: FloatArray,
    curve: IntArray,
    curves: Curves,
    fields: FloatArray,
) -> None:
    """Fill in `fields`; a single `curve` is that of all rows."""
    for i in range(len(fields)):
        atr_ratio = features[i, ATR_RATIO]
        atr = atr_ratio * close[i]
        moved = side[i] * (close[i] - level[i]) / atr if atr != 0.0 else 0.0
        planned = abs(take_profit[i] - close[i]) / abs(close[i] - stop[i])
        fields[i, 0] = features[i, TREND_STRENGTH]
        fields[i, 1] = _rank(atr_ratio, curve[i % len(curve)], curves)
        fields[i, 2] = np.tanh(features[i, MOM_20]) * side[i]
        fields[i, 3] = confidence[i]
        fields[i, 4] = _within(moved)
        fields[i, 5] = _within(planned - 2.0)


@compiled()
def _ranks(atr_ratio: FloatArray, curve: IntArray, curves: Curves, ranks: FloatArray) -> None:
    """Fill in `ranks`; see `fill_fields`."""
    for i in range(len(ranks)):
        ranks[i] = _rank(atr_ratio[i], curve[i % len(curve)], curves)


@compiled()
def _rank(value: float, curve: int, curves: Curves) -> float:
    """The share below `value` on one of the curves, straight between its quantiles; NaN stays NaN."""
    if np.isnan(value):
        return value
    start, quantiles, shares = curves
    first, end = start[curve], start[curve + 1]
    above = first + np.searchsorted(quantiles[first:end], value, side="right")
    if above == first:
        return 0.0
    if above == end:
        return 1.0
    low = above - 1
    slope = (shares[above] - shares[low]) / (quantiles[above] - quantiles[low])
    return float(slope * (value - quantiles[low]) + shares[low])


@compiled()
def _within(value: float) -> float:
    """`value` held within [-1, 1]; NaN stays NaN."""
    return 1.0 if value > 1.0 else -1.0 if value < -1.0 else value
