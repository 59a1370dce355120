"""The same trades, each entered one bar later: what is left of them when an order comes late.

Knows nothing of how outcomes are found, nor of sizes.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from signals.trades import Trades


def late_entry(trades: Trades, late: Trades, until: int | None = None) -> Trades:
    """`trades` with the outcomes of `late`, row for row.

    `late`: `signals.outcomes.label` of the same signals with a delay, pooled alike. A trade that is not among
    them, its entry open lying beyond a barrier, or that ends at `until` (ns) or later, comes to nothing: 0 R
    without costs, over at its signal.
    """
    place: dict[tuple[float, ...], list[int]] = {}
    for row, key in enumerate(_keys(late)):
        place.setdefault(key, []).append(row)
    # Several strategies may give one signal twice: each takes one of the late ones, in their order.
    found = np.array([place[key].pop(0) if place.get(key) else -1 for key in _keys(trades)], dtype=np.int64)
    if until is not None:
        found[found >= 0] = np.where(late.exit_time[found[found >= 0]] < until, found[found >= 0], -1)
    entered = found >= 0

    taken: dict[str, Any] = {
        name: np.where(entered, getattr(late, name)[found], nothing) if len(late) else nothing
        for name, nothing in {
            **dict.fromkeys(("gross_r", "cost_r", "impact_r", "mfe_r", "mae_r"), np.zeros(len(trades))),
            "exit_time": trades.signal_time,
        }.items()
    }
    return replace(trades, **taken)


def _keys(trades: Trades) -> list[tuple[float, ...]]:
    names = np.array(trades.symbols)[trades.symbol].tolist()
    columns = (trades.bar, trades.side, trades.stop, trades.take_profit)
    return list(zip(names, *(column.tolist() for column in columns), strict=True))
