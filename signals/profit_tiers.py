"""The profit-tier optimizer: which take-profit ladder recorded trades speak for, and whether that is proven.

Knows nothing of bars, rules or sizes. Letters: n trades in order of signal time, d the paired difference in
net R per trade between the ladder chosen without the trade and the current one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from market.errors import ConfigError, DataError
from market.splits import purged_folds
from signals.excursions import TradeOutcome
from signals.ladders import Ladder, Paths, grid, realised_r
from signals.outcome_store import OutcomeStore

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST_OUTCOMES = 200
FOLDS = 5
LEVEL = 0.95
REPLICATIONS = 2000


@dataclass(frozen=True)
class OptimizationReport:
    """What `TierOptimizer.optimize` found, in net R per trade.

    `gain` is the mean of d over `outcomes` trades, each held out when its ladder was chosen, `low` and `high`
    its 95 % interval (None where no fold chose another ladder than the current one). `chosen` is the ladder
    to use: the current one unless low > 0. `best` has the highest mean over all trades, `best_gain` over the
    current ladder: hindsight, which flatters. `by_fold` are the ladders the folds chose, `candidates` every
    ladder with its mean over all trades.
    """

    outcomes: int
    current: Ladder
    current_r: float
    chosen: Ladder
    adopted: bool
    gain: float
    low: float | None
    high: float | None
    block: int
    best: Ladder
    best_gain: float
    by_fold: tuple[Ladder, ...]
    candidates: tuple[tuple[Ladder, float], ...]
    seed: int

    @property
    def verdict(self) -> str:
        """In words, which ladder to use and why."""
        if self.low is None or self.high is None:
            return f"keeps {self.current}: no ladder looked better ({self.outcomes:,} trades)"
        found = f"{self.gain:+.4f} R per trade held out, 95 % interval {self.low:+.4f} to {self.high:+.4f}"
        if self.adopted:
            return f"adopts {self.chosen}: {found} ({self.outcomes:,} trades)"
        return f"keeps {self.current}: not proven better, {found} ({self.outcomes:,} trades)"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        ladders = {name: getattr(self, name).to_dict() for name in ("current", "chosen", "best")}
        numbers = ("outcomes", "current_r", "adopted", "gain", "low", "high", "block", "best_gain", "seed")
        return {name: getattr(self, name) for name in numbers} | {
            **ladders,
            "verdict": self.verdict,
            "by_fold": [ladder.to_dict() for ladder in self.by_fold],
            "candidates": [{**ladder.to_dict(), "mean_net_r": mean} for ladder, mean in self.candidates],
        }


class TierOptimizer:
    """Learns from recorded outcomes which ladder to take profits by."""

    def __init__(
        self, store: OutcomeStore, ladder: Ladder | None = None, candidates: Sequence[Ladder] | None = None
    ) -> None:
        """`ladder` is the current one (None: the rule's own exit), `candidates` what it is compared with
        (None: `ladders.grid()`)."""
        self.store = store
        self.ladder = Ladder() if ladder is None else ladder
        others = grid() if candidates is None else candidates
        self.candidates = tuple(dict.fromkeys((self.ladder, *others)))

    def record_outcome(self, outcome: TradeOutcome) -> bool:
        """Store one settled trade durably; False if it was stored before. DataError: see `OutcomeStore`."""
        return self.store.append((outcome,)) == 1

    def record_outcomes(self, outcomes: Sequence[TradeOutcome]) -> int:
        """Store many settled trades durably in one write (a backfill); how many were new."""
        return self.store.append(outcomes)

    def optimize(self, folds: int = FOLDS, seed: int = 0) -> OptimizationReport:
        """The ladder to use from now on; does not change `self.ladder`.

        Each of `folds` blocks of time is scored with the ladder of highest mean net R over the other trades,
        those that overlap the block left out. The gain over the current ladder is the mean of d, its interval
        the percentile one of a stationary bootstrap over trades in time order (Politis & Romano 1994). Block
        length: Politis & White 2004, but no less than the number of trades open at once. Unless the whole
        interval lies above zero, the current ladder stays; else the one with the highest mean over all trades
        is adopted. Deterministic by `seed`.

        Raises DataError for fewer than 200 outcomes or too few different times for the folds; ConfigError for
        fewer than two folds or a negative seed.
        """
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigError("seed", seed, "give a whole number, at least 0")
        outcomes = sorted(self.store.all(), key=lambda outcome: (outcome.signal_time, outcome.trade_id))
        if len(outcomes) < FEWEST_OUTCOMES:
            mend = f"record at least {FEWEST_OUTCOMES} settled trades; until then the current ladder stays"
            raise DataError("recorded outcomes", len(outcomes), mend)
        paths = Paths.of(outcomes)
        net = np.stack([realised_r(ladder, paths) for ladder in self.candidates])
        signal_time = np.array([outcome.signal_time for outcome in outcomes], dtype=np.int64)
        exit_time = np.array([outcome.exit_time for outcome in outcomes], dtype=np.int64)
        d = np.zeros(len(outcomes))
        by_fold = []
        for train, test in purged_folds(signal_time, exit_time, folds):
            # argmax takes the first of equals, and the current ladder is the first.
            choice = int(np.argmax(net[:, train].mean(axis=1)))
            by_fold.append(self.candidates[choice])
            d[test] = net[choice, test] - net[0, test]
        low, high, block = _interval(d, signal_time, exit_time, seed)
        adopted = low is not None and low > 0.0
        means = net.mean(axis=1)
        best = int(np.argmax(means))
        return OptimizationReport(
            outcomes=len(outcomes),
            current=self.ladder,
            current_r=float(means[0]),
            chosen=self.candidates[best] if adopted else self.ladder,
            adopted=adopted,
            gain=float(d.mean()),
            low=low,
            high=high,
            block=block,
            best=self.candidates[best],
            best_gain=float(means[best] - means[0]),
            by_fold=tuple(by_fold),
            candidates=tuple(zip(self.candidates, means.tolist(), strict=True)),
            seed=seed,
        )


def _interval(
    d: FloatArray, signal_time: IntArray, exit_time: IntArray, seed: int
) -> tuple[float | None, float | None, int]:
    """The interval of the mean of d float64[n], None where d is constant, and the mean block length."""
    if np.ptp(d) == 0.0:
        return None, None, 1
    from arch.bootstrap import StationaryBootstrap, optimal_block_length

    # Trades open at once share their market: a block holds at least as many.
    together = float(np.mean(np.searchsorted(signal_time, exit_time) - np.arange(len(d))))
    length = float(optimal_block_length(d)["stationary"].iloc[0])
    block = round(min(max(length if np.isfinite(length) else 1.0, together, 1.0), len(d) / 10))
    bootstrap = StationaryBootstrap(block, d, seed=np.random.default_rng(seed))
    means = np.array([sample[0][0].mean() for sample in bootstrap.bootstrap(REPLICATIONS)])
    low, high = np.quantile(means, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
    return float(low), float(high), block
