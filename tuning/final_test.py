"""The locked test part: a bundle, or a configuration trained on all that came before it, judged there.

Knows nothing of how often that was done, of terminals or pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from envs.signal_table import SignalTable
from evaluation.backtest import Path, run, run_all
from evaluation.findings import PLUG_IN, RULE
from evaluation.walk_forward import median_of
from market.errors import InputError
from market.splits import time_split
from policies.baselines import CONFIDENCE, baselines
from policies.bundle import PolicyBundle
from policies.planned import planned
from signals.trades import Trades, trade_fields
from tuning.config import TrainConfig
from tuning.folds import FoldFits
from tuning.prepare import stream
from tuning.study import Study

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

CHAMPION = "champion"


@dataclass(frozen=True)
class FinalTest:
    """Every policy on the locked signals, in one account each."""

    table: SignalTable  # [n]
    late: SignalTable  # [n]
    paths: tuple[Path, ...]  # the subject, the champion where one is in production, the baselines
    late_paths: tuple[Path, ...]
    subject: str
    champion_stated: Floats | None = None  # [n], the champion's probability of a win

    def path(self, name: str) -> Path:
        """The path of that name."""
        return next(path for path in self.paths if path.name == name)

    @property
    def champion(self) -> Path:
        """The champion's path; the rule's where no model is in production."""
        return next((path for path in self.paths if path.name == CHAMPION), self.path(RULE))


def final_of_bundle(
    bundle: PolicyBundle, champion: PolicyBundle | None, study: Study, config: TrainConfig
) -> FinalTest:
    """The bundle as it is, beside the champion as that is, each seeing the signals through its own models.

    Utilities of both are in the candidate's k. InputError for a champion of another signal rule: there are no
    signals in common.
    """
    split = time_split(study.trades.signal_time, study.trades.exit_time, config.fractions)
    whole, late = (seen_by(bundle, trades, config) for trades in (study.trades, study.late))
    table, late_table = whole.take(split.test), late.take(split.test)
    policy = bundle.policy()
    ahead = planned(whole.take(split.train), config.limits)
    others = [one for one in (*baselines(config.seed), ahead) if one.name != policy.name]
    paths, late_paths = (
        run_all((policy, *others), over, config.limits, config.session.days) for over in (table, late_table)
    )
    champion_stated = None
    if champion is not None:
        paths.insert(1, champion_path(champion, study, split.test, table, config))
        champion_stated = stated(seen_by(champion, study.trades, config).take(split.test))
    return FinalTest(table, late_table, tuple(paths), tuple(late_paths), policy.name, champion_stated)


def final_of_configuration(fits: FoldFits, study: Study, seeds: Sequence[int]) -> FinalTest:
    """Trained once more with each seed on all trades before the locked part; the median seed is the subject.

    `fits`: of all trades.
    """
    config = fits.config
    folds = [fits(0, study.open, study.locked, seed) for seed in (seeds if fits.learns else seeds[:1])]
    table, late = folds[0].table, folds[0].late
    policies = [fold.learned for fold in folds if fold.learned is not None]
    learned = run_all(policies, table, config.limits, config.session.days)
    chosen = [policies[median_of(learned)]] if learned else []
    paths, late_paths = (
        run_all((*chosen, *folds[0].baselines), over, config.limits, config.session.days)
        for over in (table, late)
    )
    return FinalTest(table, late, tuple(paths), tuple(late_paths), paths[0].name if learned else PLUG_IN)


def stated(table: SignalTable) -> Floats:
    """The outcome model's probability of a win, float64[n]."""
    return table.market[:, CONFIDENCE].astype(np.float64)


def won(table: SignalTable) -> npt.NDArray[np.bool_]:
    """Whether each signal paid at 1x, after costs, bool[n]."""
    return np.asarray(table.gross_r - table.cost_r - table.impact_r > 0.0)


def seen_by(bundle: PolicyBundle, trades: Trades, config: TrainConfig) -> SignalTable:
    """All trades as a bundle's own models see them."""
    fields = trade_fields(trades, bundle.ranks)
    return stream(
        trades,
        config,
        fields=fields,
        probability=bundle.outcome_model.probability(fields),
        outcome_r=bundle.outcome_model.outcome_r,
        support=bundle.support,
        medians=bundle.meta.volatility_median,
        prior_win_rate=bundle.meta.prior_win_rate,
        k=bundle.meta.k,
    )


def champion_path(
    champion: PolicyBundle, study: Study, rows: Integers, table: SignalTable, config: TrainConfig
) -> Path:
    """What the champion does with the signals of `table`, the given rows; utilities as of that table."""
    if champion.meta.base_risk != config.limits.base_risk:
        mend = f"its sizes are multiples of another base than {config.limits.base_risk}: retire it first"
        raise InputError("champion.base_risk", champion.meta.base_risk, mend)
    if champion.meta.rule != config.rule:
        mend = f"it cannot be compared on the signals of {config.rule}: retire it first, or evaluate its rule"
        raise InputError("champion.rule", champion.meta.rule, mend)
    own = seen_by(champion, study.trades, config).take(rows)
    path = run(champion.policy(), own, config.limits, config.session.days)
    return replace(
        path,
        name=CHAMPION,
        utility=table.utility_of(path.multiplier, slice(None), realised=True),
        expected=table.utility_of(path.multiplier, slice(None), realised=False),
    )
