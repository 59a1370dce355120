"""What an evaluation looks at: the settled trades of a configuration's data, and where the locked ones begin.

Knows nothing of sizers or statistics.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.pipeline import FeaturePipeline
from market.sources import load
from market.splits import time_split
from signals.late_entry import late_entry
from signals.outcomes import label
from signals.rules import checked, rule
from signals.trades import Trades, pool
from tuning.config import TrainConfig

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Study:
    """Trades in time order, those of the locked test part last."""

    trades: Trades
    late: Trades  # the same, each entered one bar later
    digests: dict[str, str]  # of the bars, by symbol
    bars: dict[str, int]
    open: Integers  # rows before the locked part, over before it begins
    locked: Integers

    def __str__(self) -> str:
        bars = ", ".join(f"{symbol} {count:,}" for symbol, count in self.bars.items())
        return f"{bars} bars; {len(self.open):,} trades, and {len(self.locked):,} in the locked part"

    def open_part(self) -> tuple[Trades, Trades]:
        """Trades and their late entries before the locked part. A late entry that would end in it comes to
        nothing.
        """
        trades, late = self.trades.take(self.open), self.late.take(self.open)
        until = int(self.trades.signal_time[self.locked[0]])
        return trades, late_entry(trades, late, until)


def study(config: TrainConfig) -> Study:
    """Load, compute features, label. DataError where there are too few trades to be cut into three parts."""
    chosen, pipeline = rule(config.rule), FeaturePipeline()
    parts: list[Trades] = []
    delayed: list[Trades] = []
    digests, bars_of = {}, {}
    for bars in load(config.data):
        signals, matrix = checked(chosen.generate(bars), bars), pipeline.matrix(bars)
        parts.append(label(bars, signals, config.costs, matrix))
        delayed.append(label(bars, signals, config.costs, matrix, delay=1))
        digests[bars.symbol], bars_of[bars.symbol] = bars.digest(), len(bars)
    trades = pool(parts)
    split = time_split(trades.signal_time, trades.exit_time, config.fractions)
    begins = trades.signal_time[split.test].min()
    return Study(
        trades=trades,
        late=late_entry(trades, pool(delayed)),
        digests=digests,
        bars=bars_of,
        open=np.flatnonzero(trades.exit_time < begins),
        locked=split.test,
    )
