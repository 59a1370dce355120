"""What became of each signal: the triple-barrier outcome in R, beside what trading it costs.

Knows nothing of sizes or accounts: everything is per unit of planned risk (1 R = the distance from the signal
bar's close to the stop), for a trader too small to move the market beyond the stated impact. The barriers are
those of Lopez de Prado (2018, ch. 3).
"""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES, WARMUP
from market.bars import Bars
from market.compiled import compiled
from market.errors import DataError
from signals.signal_frame import Signals
from signals.trades import REASONS, STOP, TARGET, TIME, Dropped, Trades, pool, trade_fields, trade_ranks

# Trades and what is done with them belong to the vocabulary of outcomes, whoever imports them.
__all__ = [
    "REASONS",
    "STOP",
    "TARGET",
    "TIME",
    "Costs",
    "Dropped",
    "Trades",
    "label",
    "pool",
    "trade_fields",
    "trade_ranks",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_VOID, _UNRESOLVED = -1, -2


class Costs(BaseModel):
    """What a trade costs, in basis points (1/10,000) of the traded value.

    `fee_bps`, `slippage_bps` and `impact_bps` are paid on each side, `spread_bps` (the whole spread) once per
    round trip. `impact_bps` is the slippage caused by a position of 1 x the base size and grows with the
    square root of the size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fee_bps: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    spread_bps: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    slippage_bps: float = Field(default=0.3, ge=0, allow_inf_nan=False)
    impact_bps: float = Field(default=0.3, ge=0, allow_inf_nan=False)

    def in_r(self, price: FloatArray, stop_distance: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Costs at any size, and impact at 1x, of N signals in R: float64[N] each.

        The traded value is price / stop distance times what is risked. `price` is the close of the signal
        bar, so that the costs are known when the size is chosen, in training as in serving.
        """
        fixed, impact = np.empty(len(price)), np.empty(len(price))
        fill_costs(price, stop_distance, *self.in_bps(), fixed, impact)
        return fixed, impact

    def in_bps(self) -> tuple[float, float]:
        """Costs of a round trip at any size, and impact at 1x, in basis points of the traded value."""
        return 2.0 * (self.fee_bps + self.slippage_bps) + self.spread_bps, 2.0 * self.impact_bps


@compiled(error_model="numpy")
def fill_costs(
    price: FloatArray,
    stop_distance: FloatArray,
    fixed_bps: float,
    impact_bps: float,
    fixed: FloatArray,
    impact: FloatArray,
) -> None:
    """Fill in `fixed` and `impact`."""
    for i in range(len(price)):
        leverage = price[i] / stop_distance[i] / 1e4
        fixed[i], impact[i] = fixed_bps * leverage, impact_bps * leverage


@compiled()
def _settle(
    open_: FloatArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    bar: IntArray,
    side: npt.NDArray[np.int8],
    stop: FloatArray,
    take_profit: FloatArray,
    max_hold: npt.NDArray[np.int32],
    distance: FloatArray,
    delay: int,
    reason: npt.NDArray[np.int8],
    exit_bar: IntArray,
    gross_r: FloatArray,
    mfe_r: FloatArray,
    mae_r: FloatArray,
) -> None:
    """Walk each trade forward bar by bar; the rules are those of `label`."""
    for row in range(bar.size):
        entry_bar = bar[row] + 1 + delay
        if entry_bar >= close.size:
            reason[row] = _UNRESOLVED
            continue
        sign = float(side[row])
        entry = open_[entry_bar]
        to_stop = sign * (stop[row] - entry)
        to_target = sign * (take_profit[row] - entry)
        if to_stop >= 0.0 or to_target <= 0.0:
            reason[row] = _VOID
            continue
        reason[row] = _UNRESOLVED
        best = 0.0
        worst = 0.0
        last_bar = entry_bar + max_hold[row] - 1
        for now in range(entry_bar, min(last_bar + 1, close.size)):
            at_open = sign * (open_[now] - entry)
            up = sign * ((high[now] if sign > 0.0 else low[now]) - entry)
            down = sign * ((low[now] if sign > 0.0 else high[now]) - entry)
            if at_open <= to_stop or at_open >= to_target:
                reason[row] = STOP if at_open <= to_stop else TARGET
                gained = at_open
                best = max(best, at_open)
                worst = min(worst, at_open)
            elif down <= to_stop:
                reason[row] = STOP
                gained = to_stop
                best = max(best, at_open)
                worst = min(worst, to_stop)
            elif up >= to_target:
                reason[row] = TARGET
                gained = to_target
                best = max(best, to_target)
                worst = min(worst, down)
            else:
                best = max(best, up)
                worst = min(worst, down)
                if now < last_bar:
                    continue
                reason[row] = TIME
                gained = sign * (close[now] - entry)
            exit_bar[row] = now
            gross_r[row] = gained / distance[row]
            mfe_r[row] = best / distance[row]
            mae_r[row] = worst / distance[row]
            break


def label(
    bars: Bars, signals: Signals, costs: Costs, features: FloatArray | None = None, delay: int = 0
) -> Trades:
    """The outcome of each of `signals` on `bars`, costs beside it.

    Entry at the open of the bar after the signal bar (`delay` bars later still, for a stress test). Then, bar
    by bar, the entry bar included: an open at or beyond the stop or the target fills at that open; else a bar
    that touches the stop fills at the stop, also if it touches the target too; else a touch of the target
    fills at the target; else, in bar entry + max_hold - 1, the trade ends at the close. On the bar of a stop
    the favourable range counts as unseen (the stop came first), on the bar of a target the adverse range
    counts as seen: both excursions err to the trade's disadvantage.

    Costs are those of `Costs.in_r` at the close of the signal bar.

    Left out, and counted in `dropped`: signals before the features' warm-up (bar < 100), signals whose entry
    open lies at or beyond stop or target, trades still open at the end of the data. `features` float64[n, 31]
    spares computing them again. Raises DataError for features of another shape or a negative delay.
    """
    if delay < 0:
        raise DataError("delay", delay, "give zero or more bars")
    matrix = FeaturePipeline().matrix(bars) if features is None else features
    if matrix.shape != (len(bars), len(FEATURE_NAMES)):
        raise DataError(
            "features shape", matrix.shape, f"give one row of {len(FEATURE_NAMES)} features per bar"
        )
    early = signals.bar < WARMUP - 1
    count = len(signals)
    distance = np.abs(bars.close[signals.bar] - signals.stop)
    reason = np.empty(count, dtype=np.int8)
    exit_bar = np.zeros(count, dtype=np.int64)
    gross_r, mfe_r, mae_r = np.zeros(count), np.zeros(count), np.zeros(count)
    _settle(
        bars.open,
        bars.high,
        bars.low,
        bars.close,
        signals.bar,
        signals.side,
        signals.stop,
        signals.take_profit,
        signals.max_hold,
        distance,
        delay,
        reason,
        exit_bar,
        gross_r,
        mfe_r,
        mae_r,
    )
    settled = np.flatnonzero(~early & (reason >= 0))
    bar = signals.bar[settled]
    entry_bar = bar + 1 + delay
    cost_r, impact_r = costs.in_r(bars.close[bar], distance[settled])
    return Trades(
        symbols=(bars.symbol,),
        symbol=np.zeros(settled.size, dtype=np.int32),
        bar=bar,
        signal_time=bars.time[bar] + bars.interval,
        entry_time=bars.time[entry_bar],
        exit_time=bars.time[exit_bar[settled]] + bars.interval,
        side=signals.side[settled],
        close=bars.close[bar],
        level=signals.level[settled],
        stop=signals.stop[settled],
        take_profit=signals.take_profit[settled],
        confidence=signals.confidence[settled],
        stop_distance=distance[settled],
        gross_r=gross_r[settled],
        cost_r=cost_r,
        impact_r=impact_r,
        mfe_r=mfe_r[settled],
        mae_r=mae_r[settled],
        reason=reason[settled],
        holding=(exit_bar[settled] - entry_bar + 1).astype(np.int32),
        features=np.ascontiguousarray(matrix[bar]),
        dropped=Dropped(
            warm_up=int(np.sum(early)),
            unresolved=int(np.sum(~early & (reason == _UNRESOLVED))),
            void=int(np.sum(~early & (reason == _VOID))),
        ),
    )
