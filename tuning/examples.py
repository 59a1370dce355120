"""The newest signal of a run as a request, for showing what the endpoints answer.

Knows nothing of HTTP.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from market.bars import COLUMNS, Bars
from signals.trades import Trades

HISTORY: Final = 1000  # bars sent along: swing and recursive features have settled by then


@dataclass(frozen=True)
class Example:
    """One signal with the bars up to it and a sound account, as JSON-able values of the HTTP interface."""

    bars: list[dict[str, Any]]
    signal: dict[str, Any]
    account: dict[str, Any]


def newest_signal(markets: tuple[Bars, ...], trades: Trades) -> Example:
    """The last of `trades`, on the market it came from."""
    last = trades.take(np.array([len(trades) - 1]))
    symbol = trades.symbols[int(last.symbol[0])]
    (bars,) = (market for market in markets if market.symbol == symbol)
    row = int(last.bar[0])
    history = bars.window(max(0, row + 1 - HISTORY), row + 1)
    return Example(
        bars=[
            {
                "timestamp": _iso(int(history.time[i])),
                **{name: float(getattr(history, name)[i]) for name in COLUMNS},
            }
            for i in range(len(history))
        ],
        signal={
            "symbol": symbol,
            "side": "long" if last.side[0] > 0 else "short",
            "timestamp": _iso(int(last.signal_time[0])),
            "price": float(last.close[0]),
            "stop": float(last.stop[0]),
            "take_profit": float(last.take_profit[0]),
            "entry": float(last.level[0]),
        },
        account={
            "equity": 98_000.0,
            "peak_equity": 100_000.0,
            "open_risk_pct": 0.01,
            "daily_risk_used_pct": 0.01,
            "open_trades": 1,
        },
    )


def _iso(time: int) -> str:
    return datetime.fromtimestamp(time / 1e9, UTC).isoformat().replace("+00:00", "Z")
