"""From settled trades to the tables that train, select and test a sizer: splits, outcome model, risk
aversion, support.

Everything is fitted on training rows alone. Knows nothing of RLlib.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from envs.rewards import win_chance
from envs.signal_table import SignalTable, trades_table
from features.spec import index as feature_index
from market.errors import DataError
from market.splits import time_split
from policies.support import Support
from signals.calibration import calibration_report
from signals.fields import POOLED, VolatilityRanks
from signals.kelly import calibrate_k
from signals.outcome_model import OutcomeModel, cross_fitted
from signals.trades import Trades, trade_fields, trade_ranks
from tuning.config import TrainConfig
from tuning.run_folder import Arrays

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OutcomeFit:
    """What is known about outcomes from the training trades."""

    model: OutcomeModel
    ranks: VolatilityRanks
    probability: Floats  # [n, J], all trades; training rows by models that had not seen them
    k: float
    k_from: str
    calibration: dict[str, float]

    def to_files(self) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """As array files by name, and facts, for a run folder."""
        ranks = {symbol: np.asarray(values) for symbol, values in self.ranks.to_dict().items()}
        arrays = {
            "model": self.model.to_arrays(),
            "ranks": ranks,
            "probability": {"probability": self.probability},
        }
        return arrays, {"k": self.k, "k_from": self.k_from, "calibration": self.calibration}

    @classmethod
    def from_files(cls, arrays: Callable[[str], Arrays], facts: Mapping[str, Any]) -> Self:
        """The inverse of `to_files`; `arrays` reads the file of a name."""
        return cls(
            model=OutcomeModel.from_arrays(arrays("model")),
            ranks=VolatilityRanks.from_dict(arrays("ranks")),
            probability=arrays("probability")["probability"],
            k=facts["k"],
            k_from=facts["k_from"],
            calibration=facts["calibration"],
        )


@dataclass(frozen=True)
class Split:
    """Rows of the pooled trades, in time order, purged so that no trade of an earlier part ends inside a
    later one.
    """

    train: Integers
    select: Integers
    test: Integers


@dataclass(frozen=True)
class Prepared:
    """The three tables and what a bundle keeps beside the policy."""

    train: SignalTable
    select: SignalTable
    test: SignalTable
    train_fields: Floats  # [n_train, 6]
    support: Support
    prior_win_rate: float
    volatility_median: dict[str, float]


def split(trades: Trades, config: TrainConfig) -> Split:
    """The time-ordered split; DataError below the least number of training trades."""
    if len(trades) == 0:
        raise DataError("training trades", 0, _too_few(config))
    train, select, test = time_split(trades.signal_time, trades.exit_time, config.fractions)
    if len(train) < config.least_trades:
        raise DataError("training trades", len(train), _too_few(config))
    return Split(train, select, test)


def _too_few(config: TrainConfig) -> str:
    return (
        f"a sizer needs at least {config.least_trades}: pool more markets (--data sample:demo) "
        "or bring longer history; until then rule-only sizing is used (STANDARD within the limits)"
    )


def fit_outcomes(trades: Trades, parts: Split, config: TrainConfig) -> OutcomeFit:
    """Fit the outcome model on the training trades and cross-fit its probabilities there."""
    train = trades.take(parts.train)
    ranks = trade_ranks(train)
    fields = trade_fields(trades, ranks)
    # Fitted on gross R: costs differ from market to market and are known at the signal, so they are charged
    # afterwards.
    rows = (fields[parts.train], train.gross_r, train.signal_time, train.exit_time, config.folds)
    model = OutcomeModel.fit(*rows)
    probability = model.probability(fields)
    probability[parts.train] = cross_fitted(*rows)
    fixed_cost = float(np.median(train.cost_r + train.impact_r))
    if config.k is not None:
        k, k_from = config.k, "set in the configuration"
    else:
        k, k_from = calibrate_k(
            probability[parts.train], model.outcome_r - fixed_cost, config.limits.base_risk
        )
    return OutcomeFit(
        model, ranks, probability, k, k_from, _calibration(train, probability[parts.train], model)
    )


def _calibration(train: Trades, probability: Floats, model: OutcomeModel) -> dict[str, float]:
    """Out-of-fold figures of p(win), a win being positive net R at 1x."""
    stated = win_chance(probability, model.outcome_r, train.cost_r + train.impact_r)
    report = calibration_report(stated, train.net_r > 0.0)
    return {
        "trades": float(report.rows),
        "base_rate": report.base_rate,
        "expected_calibration_error": report.expected_calibration_error,
        "brier": report.brier,
        "base_brier": report.base_brier,
        "log_loss": report.log_loss,
        "base_log_loss": report.base_log_loss,
        "log_loss_skill": model.log_loss_skill,
        "shrink": float(model.shrink[0]),  # 0: no skill found in who wins, every signal gets the base rate
    }


def tables(trades: Trades, parts: Split, fit: OutcomeFit, config: TrainConfig) -> Prepared:
    """Compose the signal tables; statistics of settled signals run over the whole stream, each causal at its
    signal.
    """
    train = trades.take(parts.train)
    support = Support.fit(train.features)
    median = volatility_medians(train)
    prior = float(np.mean(train.net_r > 0.0))
    fields = trade_fields(trades, fit.ranks)
    whole = stream(
        trades,
        config,
        fields=fields,
        probability=fit.probability,
        outcome_r=fit.model.outcome_r,
        support=support,
        medians=median,
        prior_win_rate=prior,
        k=fit.k,
    )
    return Prepared(
        train=whole.take(parts.train),
        select=whole.take(parts.select),
        test=whole.take(parts.test),
        train_fields=fields[parts.train],
        support=support,
        prior_win_rate=prior,
        volatility_median=median,
    )


def stream(
    trades: Trades,
    config: TrainConfig,
    *,
    fields: Floats,
    probability: Floats,
    outcome_r: Floats,
    support: Support,
    medians: dict[str, float],
    prior_win_rate: float,
    k: float,
) -> SignalTable:
    """The signal table of all trades, as what was fitted sees them: `fields` float64[n, 6], `probability`
    float64[n, J] over `outcome_r` float64[J].
    """
    return trades_table(
        trades,
        signal_fields=fields,
        probability=probability,
        outcome_r=outcome_r,
        medians=medians,
        out_of_distribution=support.outside(trades.features),
        k=k,
        base_risk=config.limits.base_risk,
        reward=config.reward,
        prior_win_rate=prior_win_rate,
    )


def volatility_medians(train: Trades) -> dict[str, float]:
    """Training median of atr_ratio by symbol, and pooled under "*" for symbols unseen in training."""
    atr_ratio = train.features[:, feature_index("atr_ratio")]
    medians = {POOLED: float(np.median(atr_ratio))}
    for number, symbol in enumerate(train.symbols):
        rows = atr_ratio[train.symbol == number]
        if len(rows):
            medians[symbol] = float(np.median(rows))
    return medians
