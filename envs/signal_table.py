"""The signal stream as the arrays that every step of an environment or a backtest reads.

Built once, before training; knows nothing of accounts. Rows are in time order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from envs.observation import Situation, market_observation
from envs.rewards import expected_table, expected_utility, net_r, realised_table, utility, win_chance
from market.compiled import compiled
from market.errors import DataError
from signals.trades import Trades, volatility_ratio

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SETTLED_WINDOW: Final = 100  # settled signals behind the trailing Kelly fraction
SETTLED_LEAST: Final = 20
WIN_RATE_SPAN: Final = 20  # settled signals in the exponential average of winners
RewardName = Literal["expected", "excess"]


@dataclass(frozen=True)
class SignalTable:
    """n signals in time order, with everything about them that no account can change."""

    time: Integers  # [n], ns: when the signal is known
    exit_time: Integers  # [n], ns: when its trade is over
    symbol: npt.NDArray[np.int32]  # [n]
    market: npt.NDArray[np.float32]  # [n, 12], account columns zero
    gross_r: Floats  # [n]
    cost_r: Floats  # [n]
    impact_r: Floats  # [n]
    probability: Floats  # [n, J]
    outcome_r: Floats  # [J], or [n, J] where each signal has outcomes of its own
    realised: Floats  # [n, 6], utility of each size on what happened
    expected: Floats  # [n, 6], utility of each size under the outcome model
    reward: Floats  # [n, 6], what training pays
    volatility_ratio: Floats  # [n]
    settled_kelly: Floats  # [n]
    settled_optimal: Floats  # [n]
    out_of_distribution: npt.NDArray[np.bool_]  # [n]
    k: float | Floats  # one for all, or [n] where tables of several were joined
    base_risk: float

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: Integers) -> "SignalTable":
        """The given rows, in the given order."""
        single = {"k": np.ndim(self.k) == 0, "outcome_r": self.outcome_r.ndim == 1}
        shared = {"base_risk", *(name for name, one in single.items() if one)}
        per_signal = {f.name for f in fields(self)} - shared
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return SignalTable(
            **{name: value[rows] if name in per_signal else value for name, value in values.items()}
        )

    def outcomes(self, rows: Integers | slice) -> Floats:
        """Gross R of each outcome of the given rows, float64[J], or float64[N, J] where each has its own."""
        return self.outcome_r if self.outcome_r.ndim == 1 else self.outcome_r[rows]

    @staticmethod
    def joined(tables: Sequence["SignalTable"]) -> "SignalTable":
        """Tables end to end; each signal keeps the k and the outcomes of its table.

        Raises DataError for tables of different base risk: what is 1x in one is not in another.
        """
        first = tables[0]
        for table in tables:
            if table.base_risk != first.base_risk:
                raise DataError("base_risk", table.base_risk, f"give all tables {first.base_risk}")
        outcomes = max(table.probability.shape[1] for table in tables)
        wide = [table._widened(outcomes) for table in tables]
        names = [f.name for f in fields(first) if f.name != "base_risk"]
        values: dict[str, Any] = {
            name: np.concatenate([getattr(table, name) for table in wide]) for name in names
        }
        return replace(first, **values)

    def _widened(self, outcomes: int) -> "SignalTable":
        """With k and outcomes of its own for each signal, and impossible outcomes added up to that number."""
        law = np.broadcast_to(self.outcome_r, self.probability.shape)
        missing = ((0, 0), (0, outcomes - law.shape[1]))
        k = np.array(np.broadcast_to(self.k, len(self)))
        padded = np.pad(self.probability, missing), np.pad(law, missing)
        return replace(self, k=k, probability=padded[0], outcome_r=padded[1])

    def situation(
        self,
        rows: Integers | slice,
        observation: npt.NDArray[np.float32],
        mask: npt.NDArray[np.bool_],
        cap: Floats,
    ) -> Situation:
        """What a policy sees of the given rows, all of one k, in accounts that leave `mask` and `cap`."""
        return Situation(
            observation=observation,
            mask=mask,
            cap=cap,
            probability=self.probability[rows],
            outcome_r=self.outcomes(rows),
            cost_r=self.cost_r[rows],
            impact_r=self.impact_r[rows],
            volatility_ratio=self.volatility_ratio[rows],
            settled_kelly=self.settled_kelly[rows],
            settled_optimal=self.settled_optimal[rows],
            k=float(np.unique(np.broadcast_to(self.k, len(self))[rows]).item()),
            base_risk=self.base_risk,
        )

    def utility_of(self, multiplier: Floats, rows: Integers | slice, *, realised: bool) -> Floats:
        """Utility in R of one size for each of the given rows, float64[N] from float64[N]: what became of it,
        or what the outcome model expects. The columns of `realised` and `expected` are this at the six sizes.
        """
        costs = self.cost_r[rows], self.impact_r[rows]
        k = np.broadcast_to(self.k, len(self))[rows]
        if realised:
            return utility(multiplier, net_r(multiplier, self.gross_r[rows], *costs), k, self.base_risk)
        law = self.probability[rows], self.outcomes(rows)
        return expected_utility(multiplier[:, None], *law, *costs, k, self.base_risk)[:, 0]


def signal_table(
    *,
    time: Integers,
    exit_time: Integers,
    symbol: npt.NDArray[np.int32],
    signal_fields: Floats,
    gross_r: Floats,
    cost_r: Floats,
    impact_r: Floats,
    probability: Floats,
    outcome_r: Floats,
    volatility_ratio: Floats,
    out_of_distribution: npt.NDArray[np.bool_],
    k: float,
    base_risk: float,
    reward: RewardName = "expected",
    prior_win_rate: float,
) -> SignalTable:
    """Precompute a stream's observations, utilities and rewards.

    Shapes as in `SignalTable`; `signal_fields` is float64[n, 6] of signals.fields. `reward`: "expected" pays
    the utility expected under the outcome model; "excess" pays the realised utility less that of 1x. Raises
    DataError for an empty or unordered stream and for non-finite numbers.
    """
    if len(time) == 0:
        raise DataError("signals", 0, "give bars on which the rule fires at least once")
    if np.any(np.diff(time) < 0):
        raise DataError("signals.time", int(np.argmax(np.diff(time) < 0)) + 1, "sort the signals by time")
    if np.any(exit_time < time):
        row = int(np.argmax(exit_time < time))
        raise DataError(
            "signals.exit_time", int(exit_time[row]), f"no trade ends before its signal (row {row})"
        )
    if not (0.0 < k < np.inf and 0.0 < base_risk < 1.0):
        raise DataError(
            "k and base_risk", (k, base_risk), "give a finite k above zero and a base risk between 0 and 1"
        )
    numbers = {
        "gross_r": gross_r,
        "cost_r": cost_r,
        "impact_r": impact_r,
        "fields": signal_fields,
        "probability": probability,
        "outcome_r": outcome_r,
        "volatility_ratio": volatility_ratio,
    }
    for name, values in numbers.items():
        if not np.all(np.isfinite(values)):
            raise DataError(f"signals.{name}", "a non-finite number", "check the bars and the rule's stops")
    at_1x = net_r(1.0, gross_r, cost_r, impact_r)
    win_rate, kelly = settled_statistics(time, exit_time, at_1x, prior_win_rate)
    realised = realised_table(gross_r, cost_r, impact_r, k, base_risk)
    expected = expected_table(probability, outcome_r, cost_r, impact_r, k, base_risk)
    return SignalTable(
        time=time,
        exit_time=exit_time,
        symbol=symbol,
        market=market_observation(
            signal_fields, win_chance(probability, outcome_r, cost_r + impact_r), win_rate
        ),
        gross_r=gross_r,
        cost_r=cost_r,
        impact_r=impact_r,
        probability=probability,
        outcome_r=outcome_r,
        realised=realised,
        expected=expected,
        reward=expected if reward == "expected" else realised - realised[:, 3:4],
        volatility_ratio=volatility_ratio,
        settled_kelly=kelly,
        settled_optimal=settled_optimal(time, exit_time, at_1x),
        out_of_distribution=out_of_distribution,
        k=k,
        base_risk=base_risk,
    )


def trades_table(
    trades: Trades,
    *,
    signal_fields: Floats,
    probability: Floats,
    outcome_r: Floats,
    medians: Mapping[str, float],
    out_of_distribution: npt.NDArray[np.bool_],
    k: float,
    base_risk: float,
    prior_win_rate: float,
    reward: RewardName = "expected",
) -> SignalTable:
    """The table of settled trades; `medians` as in `signals.trades.volatility_ratio`, the rest, and what is
    raised, as in `signal_table`.
    """
    return signal_table(
        time=trades.signal_time,
        exit_time=trades.exit_time,
        symbol=trades.symbol,
        signal_fields=signal_fields,
        gross_r=trades.gross_r,
        cost_r=trades.cost_r,
        impact_r=trades.impact_r,
        probability=probability,
        outcome_r=outcome_r,
        volatility_ratio=volatility_ratio(trades, medians),
        out_of_distribution=out_of_distribution,
        k=k,
        base_risk=base_risk,
        prior_win_rate=prior_win_rate,
        reward=reward,
    )


def settled_statistics(
    time: Integers, exit_time: Integers, net: Floats, prior: float
) -> tuple[Floats, Floats]:
    """At each signal: the recent win rate and the Kelly fraction of the signals settled by then, skipped ones
    included.

    Outcomes do not depend on size, so both belong to the stream, not to an account. `net`: float64[n], net R
    at 1x. The win rate is an exponential average that starts from `prior`; the Kelly fraction is ``p/L -
    (1-p)/W`` (Thorp 2006) over the last 100 settled signals, in units of equity per R, NaN below 20.
    """
    by_exit = np.argsort(exit_time, kind="stable")
    settled_before = np.searchsorted(exit_time[by_exit], time, side="right")
    outcomes = net[by_exit]
    alpha = 2.0 / (WIN_RATE_SPAN + 1.0)
    rates = np.empty(len(net) + 1)
    kelly = np.full(len(net) + 1, np.nan)
    rates[0] = prior
    for i, won in enumerate(outcomes > 0.0):
        rates[i + 1] = rates[i] + alpha * (won - rates[i])
        if i + 1 >= SETTLED_LEAST:
            kelly[i + 1] = _kelly(outcomes[max(0, i + 1 - SETTLED_WINDOW) : i + 1])
    return rates[settled_before], kelly[settled_before]


def _kelly(outcomes: Floats) -> float:
    """Two-point Kelly fraction of a sample of outcomes in R."""
    wins, losses = outcomes[outcomes > 0.0], -outcomes[outcomes <= 0.0]
    if len(losses) == 0 or losses.mean() <= 0.0:
        return 1.0
    if len(wins) == 0:
        return 0.0
    share = len(wins) / len(outcomes)
    return float(np.clip(share / losses.mean() - (1.0 - share) / wins.mean(), 0.0, 1.0))


def settled_optimal(time: Integers, exit_time: Integers, net: Floats) -> Floats:
    """At each signal: the fraction of equity per R that would have compounded the last 100 settled signals
    most, float64[n], NaN below 20 of them.

    It maximises ``prod(1 + g R)``. Vince's optimal f (1990) is this g times the worst loss, the unit in which
    he counts a stake: the stake is the same.
    """
    by_exit = np.argsort(exit_time, kind="stable")
    settled_before = np.searchsorted(exit_time[by_exit], time, side="right")
    return _optimal(net[by_exit])[settled_before]


@compiled()
def _optimal(outcomes: Floats) -> Floats:
    """After each of the first 0 to n outcomes: see `settled_optimal`. The slope of log growth falls in g."""
    best = np.full(len(outcomes) + 1, np.nan)
    for count in range(SETTLED_LEAST, len(outcomes) + 1):
        window = outcomes[max(0, count - SETTLED_WINDOW) : count]
        worst = window.min()
        low, high = 0.0, 1.0 if worst >= -1.0 else -1.0 / worst
        for _ in range(40):
            middle = 0.5 * (low + high)
            slope = 0.0
            for outcome in window:
                slope += outcome / (1.0 + middle * outcome)
            if slope > 0.0:
                low = middle
            else:
                high = middle
        best[count] = low
    return best
