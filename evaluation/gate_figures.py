"""The gate's figures, measured: held-out comparison, the search's own luck, calibration, model card.

Knows nothing of thresholds. Each function gives one part of `gate.Figures`.
"""

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from evaluation.attribution import Attribution
from evaluation.gate import CARD_FIELDS, Calibration, Difference, HeldOut, Search, Skill
from evaluation.overfitting import (
    backtest_overfitting,
    deflated_sharpe,
    effective_trials,
    probabilistic_sharpe,
    spa_p_value,
)
from evaluation.resampling import drawdown_p95, lower_bound
from market.errors import DataError
from policies.bundle import BundleMeta
from signals.calibration import calibration_report

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

REPLICATIONS: Final = 1_000


class Sized(Protocol):
    """What a sizer made of n signals; a `backtest.Path` is one."""

    @property
    def utility(self) -> Floats:
        """Realised utility, float64[n], R."""
        ...

    @property
    def net_r(self) -> Floats:
        """Net R times the size, float64[n]."""
        ...


def held_out(
    candidate: Sized,
    champion: Sized,
    rule: Sized,
    plug_in: Sized,
    days: Integers,
    base_risk: float,
    *,
    plug_in_share: float = 0.5,
    replications: int = REPLICATIONS,
    seed: int = 0,
) -> HeldOut:
    """The candidate against the three on the same n signals; `days` int64[n] as in resampling.py.

    `champion`: the rule where no model is in production. `plug_in_share`: `Thresholds.plug_in_kept`. Bounds
    and drawdowns are None with fewer than 20 days.
    """

    def difference(d: Floats) -> Difference:
        return Difference(mean=float(np.mean(d)), lower=lower_bound(d, days, replications, seed))

    halfway = rule.utility + plug_in_share * (plug_in.utility - rule.utility)
    vs_champion = difference(candidate.utility - champion.utility)
    return HeldOut(
        signals=len(days),
        days=len(np.unique(days)),
        vs_champion=vs_champion,
        vs_rule=vs_champion if champion is rule else difference(candidate.utility - rule.utility),
        vs_plug_in=difference(candidate.utility - plug_in.utility),
        plug_in_share=plug_in_share,
        kept=difference(candidate.utility - halfway),
        drawdown_p95=drawdown_p95(candidate.net_r, days, base_risk, replications, seed),
        champion_drawdown_p95=drawdown_p95(champion.net_r, days, base_risk, replications, seed),
    )


def search(
    utility: Floats,
    champion: Floats,
    days: Integers,
    tried: int,
    selected: int,
    *,
    replications: int = REPLICATIONS,
    seed: int = 0,
) -> Search:
    """What a search proves, from realised utilities of its trials float64[n, trials] and of the champion
    float64[n] on the signals that chose the column `selected`.

    `tried`: the true number of trials; see tuning/trial_utilities.py. One configuration: one column, 1.
    DataError for fewer trials than columns, and as `overfitting.spa_p_value`.
    """
    if tried < utility.shape[1]:
        raise DataError("tried", tried, f"count all trials: {utility.shape[1]} of them are compared")
    d = utility - champion[:, None]
    effective = effective_trials(d, days, tried)
    return Search(
        tried=tried,
        compared=d.shape[1],
        spa=spa_p_value(d, days, seed, replications),
        pbo=backtest_overfitting(d, days),
        probabilistic_sharpe=probabilistic_sharpe(d[:, selected], days),
        deflated_sharpe=deflated_sharpe(d, days, selected, tried),
        deflated_sharpe_effective=None
        if effective is None
        else deflated_sharpe(d, days, selected, effective),
        effective_trials=effective,
    )


def calibration(
    p: Floats, won: Bools, champion: Floats | None, *, base_rate: float, seed: int = 0
) -> Calibration:
    """The outcome model's probabilities of a win, float64[n], on held-out signals, bool[n], beside the
    champion's on the same signals, float64[n].

    Without a champion: log loss beside that of `base_rate`, the training share of winners; ECE beside what a
    model that is calibrated perfectly shows in one of twenty samples of this size (consistency resampling,
    Broecker and Smith 2007). DataError as `calibration_report`.
    """
    own = calibration_report(p, won, base_rate=base_rate)
    if champion is None:
        name, loss, error = "base rates", own.base_log_loss, _calibrated_error(p, own.group, seed)
    else:
        other = calibration_report(champion, won)
        name, loss, error = "champion", other.log_loss, other.expected_calibration_error
    return Calibration(
        reference=name,
        ece=own.expected_calibration_error,
        log_loss=own.log_loss,
        reference_ece=error,
        reference_log_loss=loss,
    )


def _calibrated_error(p: Floats, group: Integers, seed: int) -> float:
    """95th percentile of the calibration error where outcomes happen exactly as often as p says, in groups of
    the given sizes.
    """
    stated = np.sort(p)
    first = np.concatenate([[0], np.cumsum(group)[:-1]])
    random = np.random.default_rng(seed)
    happened = [np.add.reduceat(random.random(len(p)) < stated, first, dtype=np.int64) for _ in range(400)]
    gaps = np.abs(np.array(happened) - np.add.reduceat(stated, first))
    return float(np.quantile(gaps.sum(axis=1) / len(p), 0.95))


def card(meta: BundleMeta) -> dict[str, bool]:
    """Whether each of `gate.CARD_FIELDS` is filled in."""
    said = meta.training
    config = said.get("config") or {}
    filled = (
        meta.algo,
        said.get("data"),
        said.get("data_digests"),
        said.get("trades"),
        meta.symbols,
        meta.rule,
        meta.costs,
        meta.k_from,
        meta.training_limits,
        meta.feature_fingerprint,
        config.get("seed") is not None,
        meta.outcome_model,
        meta.calibration,
    )
    return {name: bool(value) for name, value in zip(CARD_FIELDS, filled, strict=True)}


def skill(found: Attribution) -> Skill:
    """An attribution, for the gate's report."""
    return Skill(gained_r=found.gained_r, low=found.low, p_value=found.p_value)
