"""The recorded path of a trade under its rule's own exit, bar by bar in R: what a take-profit ladder is
judged on.

Knows nothing of ladders or stores. 1 R is the distance from the signal bar's close to the stop, and R counts
from the entry, in the trade's direction. Letters: B bars, n trades.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from market.bars import Bars
from market.errors import DataError
from signals.trades import REASONS, STOP, TARGET, TIME, Trades

FloatArray = npt.NDArray[np.float64]

OPEN, ADVERSE, FAVOURABLE, CLOSE = 0, 1, 2, 3
COLUMNS = ("open", "adverse", "favourable", "close")
LONGEST_ID = 200
LONGEST_PATH = 1_000_000
LARGEST_R = 1e9
# What a recorded result may differ from its own path: arithmetic in prices against arithmetic in R.
TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class TradeOutcome:
    """One settled trade with its path up to the rule's own exit, also where a ladder had closed it earlier.

    `path` float64[B, 4] holds, for each bar from the entry bar to the exit bar, open, adverse extreme,
    favourable extreme and close in R from the entry (a short's adverse extreme is the bar's high). `stop_r` <
    0 and `target_r` > 0 are the rule's barriers, `gross_r` its own outcome, `reason` stop, target or time;
    `cost_r` >= 0 is every cost of the whole position, impact included. Times are int64 ns UTC.

    Checked on construction: DataError names the field, the value and the mend, also where the path does not
    lead to the stated outcome.
    """

    trade_id: str
    symbol: str
    signal_time: int
    exit_time: int
    stop_r: float
    target_r: float
    gross_r: float
    cost_r: float
    reason: str
    path: FloatArray = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("trade_id", "symbol"):
            text = getattr(self, name)
            if not isinstance(text, str) or not 0 < len(text) <= LONGEST_ID or not text.isprintable():
                raise self._fault(name, text, f"give printable text of 1 to {LONGEST_ID} characters")
        for name in ("signal_time", "exit_time"):
            value: Any = getattr(self, name)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or not -(2**63) < int(value) < 2**63:
                raise self._fault(name, value, "give whole nanoseconds since 1970, UTC")
            object.__setattr__(self, name, int(value))
        if self.exit_time < self.signal_time:
            raise self._fault("exit_time", self.exit_time, f"must not precede {self.signal_time}")
        for name in ("stop_r", "target_r", "gross_r", "cost_r"):
            object.__setattr__(self, name, self._number(name, getattr(self, name)))
        if self.stop_r >= 0.0:
            raise self._fault("stop_r", self.stop_r, "the stop lies below the entry: give a number below 0")
        if self.target_r <= 0.0:
            raise self._fault("target_r", self.target_r, "give a number above 0")
        if self.cost_r < 0.0:
            raise self._fault("cost_r", self.cost_r, "give a cost, 0 or more")
        if self.reason not in REASONS:
            raise self._fault("reason", self.reason, f"give one of {', '.join(REASONS)}")
        object.__setattr__(self, "path", self._checked_path())
        self._check_end()

    def _fault(self, name: str, value: object, mend: str) -> DataError:
        return DataError(f"outcome {self.trade_id!s:.60}, {name}", value, mend)

    def _number(self, name: str, value: Any) -> float:
        number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if number and -LARGEST_R <= value <= LARGEST_R:
            return float(value)
        raise self._fault(name, value, f"give a finite number of R, up to {LARGEST_R:g} either way")

    def _checked_path(self) -> FloatArray:
        try:
            given = np.asarray(self.path)
        except (TypeError, ValueError):
            raise self._fault("path", self.path, "give one row of four numbers per bar") from None
        if given.dtype.kind not in "iuf":
            raise self._fault("path", self.path, "give one row of four numbers per bar")
        path = np.array(given, dtype=np.float64, order="C")
        if path.ndim != 2 or path.shape[1] != len(COLUMNS) or not 0 < len(path) <= LONGEST_PATH:
            raise self._fault("path", path.shape, "give one row of open, adverse, favourable, close per bar")
        sound = np.isfinite(path).all(axis=1)
        with np.errstate(invalid="ignore"):
            sound &= path[:, ADVERSE] <= np.minimum(path[:, OPEN], path[:, CLOSE])
            sound &= path[:, FAVOURABLE] >= np.maximum(path[:, OPEN], path[:, CLOSE])
        if not sound.all():
            bar = int(np.argmin(sound))
            mend = "give finite numbers, adverse <= open and close <= favourable"
            raise self._fault(f"path bar {bar}", path[bar].tolist(), mend)
        path.flags.writeable = False
        return path

    def _check_end(self) -> None:
        """The stop-first walk of `signals.outcomes` over the path must end at its last bar as stated."""
        opened, adverse, favourable, close = self.path.T
        out = (adverse <= self.stop_r) | (favourable >= self.target_r)
        last = len(out) - 1
        if out[:last].any():
            bar = int(np.argmax(out))
            raise self._fault(f"path bar {bar}", self.path[bar].tolist(), "end the path where the rule exits")
        if opened[last] <= self.stop_r:
            reason, gross = STOP, opened[last]
        elif opened[last] >= self.target_r:
            reason, gross = TARGET, opened[last]
        elif adverse[last] <= self.stop_r:
            reason, gross = STOP, self.stop_r
        elif favourable[last] >= self.target_r:
            reason, gross = TARGET, self.target_r
        else:
            reason, gross = TIME, close[last]
        if self.reason != REASONS[reason]:
            raise self._fault("reason", self.reason, f"its path ends by {REASONS[reason]}")
        if abs(self.gross_r - gross) > TOLERANCE:
            mend = f"its path leads to {float(gross)!r}: what a fill differed from that belongs to cost_r"
            raise self._fault("gross_r", self.gross_r, mend)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; floats keep every bit."""
        names = [name for name in self.__dataclass_fields__ if name != "path"]
        return {name: getattr(self, name) for name in names} | {"path": self.path.tolist()}

    def to_json(self) -> str:
        """One line, the same for equal outcomes."""
        return json.dumps(self.to_dict(), allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_dict(cls, plain: object) -> Self:
        """Back from `to_dict`. Raises DataError for other keys or values."""
        names = set(cls.__dataclass_fields__)
        if not isinstance(plain, dict) or set(plain) != names:
            seen = sorted(map(str, plain)) if isinstance(plain, dict) else plain
            raise DataError("outcome", seen, f"give {', '.join(sorted(names))}")
        return cls(**plain)


def excursions(bars: Bars, trades: Trades, strategy: str = "rule") -> tuple[TradeOutcome, ...]:
    """The outcomes of those of `trades` that are on `bars`, with their paths, in the trades' order.

    The id is symbol:strategy:time of the signal bar:side, so that a backfill can be repeated. Raises
    DataError where `bars` are not those the trades were found on.
    """
    if bars.symbol not in trades.symbols:
        return ()
    number = trades.symbols.index(bars.symbol)
    found = []
    for row in np.flatnonzero(trades.symbol == number):
        entry_bar = int(np.searchsorted(bars.time, trades.entry_time[row]))
        end = entry_bar + int(trades.holding[row])
        known = end <= len(bars) and bars.time[entry_bar] == trades.entry_time[row]
        if not known or bars.close[trades.bar[row]] != trades.close[row]:
            raise DataError(
                f"trade row {row}, entry_time", int(trades.entry_time[row]), "give the bars it was found on"
            )
        side, distance = float(trades.side[row]), float(trades.stop_distance[row])
        entry = bars.open[entry_bar]
        part = slice(entry_bar, end)
        low, high = bars.low[part], bars.high[part]
        prices = (bars.open[part], *((low, high) if side > 0 else (high, low)), bars.close[part])
        found.append(
            TradeOutcome(
                trade_id=f"{bars.symbol}:{strategy}:{int(bars.time[trades.bar[row]])}:{int(side):+d}",
                symbol=bars.symbol,
                signal_time=int(trades.signal_time[row]),
                exit_time=int(trades.exit_time[row]),
                stop_r=float(side * (trades.stop[row] - entry) / distance),
                target_r=float(side * (trades.take_profit[row] - entry) / distance),
                gross_r=float(trades.gross_r[row]),
                cost_r=float(trades.cost_r[row] + trades.impact_r[row]),
                reason=REASONS[trades.reason[row]],
                path=np.stack([side * (price - entry) / distance for price in prices], axis=1),
            )
        )
    return tuple(found)
