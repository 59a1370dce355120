"""What the 31 features are: names, formulas, ranges, sources, warm-up, fingerprint. Knows nothing of how they
are computed.

Letters: bar t has closed; C, H, L, V are its close, high, low and volume, r_t = ln(C_t / C_{t-1}), TR the
true range; every window ends at t. A feature of kind FIR depends on its window only and has the same bits
from any first bar; IIR is recursive (Wilder, exponential averages; seeds as in TA-Lib) and forgets its start;
`swing` remembers the last four confirmed swings of each side.
"""

from __future__ import annotations

import ast
import hashlib
import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

# The longest window has 100 returns, so 101 closes; until then every feature of a row is NaN.
WARMUP = 101
_STEP = Path(__file__).with_name("step.py")
_ROOT_19 = math.sqrt(19.0)  # the farthest one of 20 values can lie, in deviations (Samuelson 1968)
_BAND = _ROOT_19 / 4.0
_SWINGS = "Dow; Williams 1995: fractals of 2 bars"


class Feature(NamedTuple):
    """One feature: `first` bars for a first value, the closed range `low`..`high`, the `neutral` value of a
    0/0 (or None)."""

    name: str
    category: str
    kind: str
    first: int
    low: float
    high: float
    neutral: float | None
    formula: str
    source: str


def _momentum(bars: int) -> Feature:
    bound = math.sqrt(50.0)
    formula = f"ln(C_t / C_t-{bars}) / (s sqrt {bars}), s = sqrt(mean of r^2 over 50)"
    source = "Moskowitz, Ooi, Pedersen 2012: time-series momentum in units of ex-ante volatility"
    return Feature(f"mom_{bars}", "momentum", "FIR", 51, -bound, bound, 0.0, formula, source)


def _lagged_return(lag: int) -> Feature:
    formula = f"r_t-{lag - 1}: the one-bar log return {lag - 1} bars ago"
    return Feature(f"ret_{lag}", "returns", "FIR", 6, -math.inf, math.inf, None, formula, "log returns")


def _calendar(name: str, low: float, formula: str) -> Feature:
    return Feature(name, "calendar", "FIR", 1, low, 1.0, None, formula, "cyclical encoding")


def _share(name: str, formula: str) -> Feature:
    return Feature(name, "structure", "swing", 5, 0.0, 1.0, 0.5, formula, _SWINGS)


FEATURES: tuple[Feature, ...] = (
    *(_momentum(bars) for bars in (5, 10, 20, 50)),
    *(_lagged_return(lag) for lag in (1, 2, 3, 4, 5)),
    Feature("atr_ratio", "volatility", "IIR", 15, 0.0, math.inf, None, "ATR14 / C", "Wilder 1978"),
    Feature("bb_position", "volatility", "FIR", 20, 0.5 - _BAND, 0.5 + _BAND, 0.5,
            "(C - lower) / (upper - lower), SMA20 +- 2 population deviations", "Bollinger 2001"),
    Feature("bb_width", "volatility", "FIR", 20, 0.0, math.inf, None,
            "(upper - lower) / SMA20", "Bollinger 2001: BandWidth"),
    Feature("range_position", "volatility", "FIR", 20, 0.0, 1.0, 0.5,
            "(C - LL20) / (HH20 - LL20)", "Lane: raw %K"),
    Feature("vol_ratio_5_20", "volume", "FIR", 20, 0.0, 4.0, 1.0, "SMA5(V) / SMA20(V)", "volume oscillator"),
    Feature("vol_trend", "volume", "FIR", 20, -1.0, 1.0, 0.0,
            "least-squares slope of V on time over 20 bars / SMA20(V) x 21/6", "linear regression"),
    Feature("vol_spike", "volume", "FIR", 20, -_ROOT_19, _ROOT_19, 0.0,
            "(V - SMA20(V)) / population deviation over 20 bars, bar t included", "z-score"),
    _share("higher_highs", "share of the steps between the last 4 confirmed swing highs that rose"),
    _share("lower_lows", "share of the steps between the last 4 confirmed swing lows that fell"),
    Feature("swing_position", "structure", "swing", 5, -1.0, 2.0, 0.5,
            "(C - lo) / (hi - lo) clipped; highest and lowest of the last 4 swing highs and lows", _SWINGS),
    Feature("rsi_norm", "oscillators", "IIR", 15, -1.0, 1.0, 0.0, "(RSI14 - 50) / 50", "Wilder 1978"),
    Feature("rsi_slope", "oscillators", "IIR", 20, -1.0, 1.0, 0.0,
            "(RSI14_t - RSI14_t-5) / 100", "Wilder 1978"),
    Feature("macd_norm", "oscillators", "IIR", 26, -math.inf, math.inf, 0.0,
            "(EMA12 - EMA26) / ATR14", "Appel 1979, in units of ATR"),
    Feature("macd_hist", "oscillators", "IIR", 34, -math.inf, math.inf, 0.0,
            "(MACD - EMA9(MACD)) / ATR14", "Appel 1979; Aspray 1986"),
    Feature("adx_norm", "oscillators", "IIR", 28, 0.0, 1.0, 0.0, "ADX14 / 100", "Wilder 1978"),
    Feature("adx_direction", "oscillators", "IIR", 15, -1.0, 1.0, 0.0,
            "(+DI - -DI) / (+DI + -DI)", "Wilder 1978: DX with its sign"),
    _calendar("hour_sin", -1.0, "sin(2 pi UTC second of the day / 86400)"),
    _calendar("hour_cos", -1.0, "cos(2 pi UTC second of the day / 86400)"),
    _calendar("day_of_week", 0.0, "(Monday 0 .. Sunday 6) / 6 in UTC"),
    Feature("trend_strength", "regime", "FIR", 21, 0.0, 1.0, 0.0,
            "|C_t - C_t-20| / sum of |C_t - C_t-1| over 20", "Kaufman 1995: efficiency ratio"),
    Feature("choppiness", "regime", "FIR", 15, 0.0, 1.0, 1.0,
            "ln(sum of TR over 14 / (HH14 - LL14)) / ln 14, clipped", "E. W. Dreiss (Burke, Futures, 1993)"),
    Feature("mean_reversion", "regime", "FIR", 101, 1.0 - 25.0 * 99.0 / 456.0, 1.0, 0.0,
            "1 - VR(5): overlapping, de-biased, 100 returns", "Lo, MacKinlay 1988: variance ratio"),
)  # fmt: skip

FEATURE_NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
CATEGORIES: dict[str, tuple[str, ...]] = {
    category: tuple(feature.name for feature in FEATURES if feature.category == category)
    for category in dict.fromkeys(feature.category for feature in FEATURES)
}
_INDEX = {name: position for position, name in enumerate(FEATURE_NAMES)}


def index(name: str) -> int:
    """The column of a feature; `KeyError` for a name that is none of the 31."""
    return _INDEX[name]


@cache
def fingerprint() -> str:
    """SHA-256 (hex) of what defines the features: two programs with the same fingerprint compute the same 31
    columns.

    Taken over the names in order, the warm-up and the constants and compiled functions of `features.step` as
    written, without comments, docstrings and layout: the same on every machine, and another one as soon as a
    formula changes.
    """
    return fingerprint_of(_STEP.read_text(encoding="utf-8"))


def fingerprint_of(source: str) -> str:
    """The fingerprint that the names and warm-up of this module have together with the source text of a
    `features.step`."""
    defining = [
        ast.unparse(_bare(node))
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) or (isinstance(node, ast.FunctionDef) and node.decorator_list)
    ]
    text = "\n".join(["ballast features 1", ",".join(FEATURE_NAMES), str(WARMUP), *defining])
    return hashlib.sha256(text.encode()).hexdigest()


def _bare(node: ast.stmt) -> ast.stmt:
    """The statement without its docstring, if it is a function that has one."""
    if isinstance(node, ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:]
    return node
