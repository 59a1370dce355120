"""The gate's figures for one bundle, gathered from walk-forward, the locked part and the search behind it.

Knows nothing of thresholds, nor of where evidence is kept.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation import gate_figures
from evaluation.comparison import NANOSECONDS_PER_DAY
from evaluation.findings import PLUG_IN, RULE, Findings, FoldRow
from evaluation.gate import Figures, Search
from evaluation.synthetic_suite import ratios
from market.errors import ConfigError, DataError
from market.splits import time_split
from policies.bundle import PolicyBundle
from tuning.config import TrainConfig
from tuning.experiment import Experiment
from tuning.final_test import FinalTest, champion_path, seen_by, stated, won
from tuning.study import Study
from tuning.trial_utilities import trial_utilities

Floats = npt.NDArray[np.float64]


def gate_figures_of(
    bundle: PolicyBundle,
    config: TrainConfig,
    found: Sequence[Findings],
    folds: Sequence[FoldRow],
    final: FinalTest,
    search: Search,
    oracle_lines: Sequence[Mapping[str, Any]],
) -> Figures:
    """All of them.

    `found`: on walk-forward's signals and on the locked ones. `oracle_lines`: what `benchmarks.oracle`
    printed for the bundle's algorithm, if it was run.
    """
    days = final.table.time // NANOSECONDS_PER_DAY
    subject = final.path(final.subject)
    return Figures(
        held_out=gate_figures.held_out(
            subject,
            final.champion,
            final.path(RULE),
            final.path(PLUG_IN),
            days,
            final.table.base_risk,
            seed=config.seed,
        ),
        search=search,
        folds=tuple(fold.gained for fold in folds),
        seeded=config.algo != "plugin",
        breaches=sum(one.breaches for one in found),
        synthetic=ratios(oracle_lines) if oracle_lines else {},
        calibration=gate_figures.calibration(
            stated(final.table),
            won(final.table),
            final.champion_stated,
            base_rate=bundle.meta.prior_win_rate,
            seed=config.seed,
        ),
        card=gate_figures.card(bundle.meta),
        skill=gate_figures.skill(found[-1].attribution),
    )


def search_of(
    experiment: Experiment | None,
    champion: PolicyBundle | None,
    bundle: PolicyBundle,
    study: Study,
    config: TrainConfig,
    final: FinalTest,
) -> Search:
    """What the bundle's search proves against the champion, on the select signals that chose it.

    Without an experiment nothing was chosen: a single configuration, on the locked signals. DataError for an
    experiment that has not been summed up, or whose signals are not those of `study`.
    """
    if experiment is None:
        d = final.path(final.subject).utility[:, None]
        days = final.table.time // NANOSECONDS_PER_DAY
        return gate_figures.search(d, final.champion.utility, days, 1, 0, seed=config.seed)
    found = trial_utilities(experiment)
    rows = time_split(study.trades.signal_time, study.trades.exit_time, config.fractions).select
    if not np.array_equal(study.trades.signal_time[rows], found.time):
        raise DataError("experiment", experiment.name, "its select signals are others: give its own --data")
    reference = found.rule
    if champion is not None:
        table = seen_by(bundle, study.trades, config).take(rows)
        reference = champion_path(champion, study, rows, table, config).utility
    column = _column(experiment, found.names, config)
    days = found.time // NANOSECONDS_PER_DAY
    return gate_figures.search(found.realised, reference, days, found.tried, column, seed=config.seed)


def experiment_of(config: TrainConfig, home: FilePath, name: str | None) -> Experiment | None:
    """The search that tried the configuration, or None: that of `name`, or else the newest that did.

    A model that was chosen among many must not pass for the only one: whoever does not name its search has it
    looked for. ConfigError where the one named did not try it.
    """
    if name is not None:
        experiment = Experiment.open(home, name)
        _trial_of(experiment, config)
        return experiment
    plans = sorted((home / "experiments").glob("*/plan.json"), key=lambda path: path.stat().st_mtime_ns)
    for plan in reversed(plans):
        experiment = Experiment(plan.parent)
        if _tried(experiment, config):
            return experiment
    return None


def _tried(experiment: Experiment, config: TrainConfig) -> list[str]:
    """The trials with this configuration, whatever the seed."""
    plan = experiment.plan
    return [
        trial.name
        for trial in experiment.trials()
        if plan.trained(trial.sample).model_copy(update={"seed": config.seed}) == config
    ]


def _trial_of(experiment: Experiment, config: TrainConfig) -> list[str]:
    found = _tried(experiment, config)
    if not found:
        mend = "none of its trials has the model's configuration: name the search that chose it"
        raise ConfigError("--experiment", experiment.name, mend)
    return found


def _column(experiment: Experiment, names: Sequence[str], config: TrainConfig) -> int:
    kept = [names.index(name) for name in _trial_of(experiment, config) if name in names]
    if not kept:
        raise DataError("experiment", experiment.name, "the model's own trial left no network there")
    return kept[0]
