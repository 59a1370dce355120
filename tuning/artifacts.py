"""Bars and trades as the named arrays that a run folder keeps, and back.

Knows nothing of stages.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from market.bars import Bars
from signals.trades import ROW_FIELDS, Dropped, Trades


def bars_to_arrays(bars: Bars) -> dict[str, Any]:
    """All columns by name, for a run folder."""
    columns = {name: getattr(bars, name) for name in ("time", "open", "high", "low", "close", "volume")}
    return {"symbol": np.array(bars.symbol), **columns}


def bars_from_arrays(arrays: dict[str, Any]) -> Bars:
    """The inverse of `bars_to_arrays`."""
    return Bars.from_arrays(**{**arrays, "symbol": str(arrays["symbol"])})


def trades_to_arrays(trades: Trades) -> dict[str, npt.NDArray[Any]]:
    """All columns by name, for a run folder."""
    columns = {name: getattr(trades, name) for name in ROW_FIELDS}
    return {**columns, "symbols": np.array(trades.symbols), "dropped": np.array(trades.dropped)}


def trades_from_arrays(arrays: dict[str, npt.NDArray[Any]]) -> Trades:
    """The inverse of `trades_to_arrays`."""
    return Trades(
        symbols=tuple(str(symbol) for symbol in arrays["symbols"]),
        dropped=Dropped(*(int(count) for count in arrays["dropped"])),
        **{name: arrays[name] for name in ROW_FIELDS},
    )
