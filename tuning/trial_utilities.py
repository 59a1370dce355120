"""What every trial of a search made of each select signal, and how many trials there truly were.

Knows nothing of Ray, nor of what is concluded from it.
"""

import io
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from envs.signal_table import SignalTable
from evaluation.backtest import Path, run
from market.errors import DataError
from market.home import write_atomically
from policies.baselines import FixedSize, PlugIn
from policies.decision import Policy
from policies.hybrid import TierPolicy
from tuning.experiment import UTILITIES_FILE, Experiment, best_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrialUtilities:
    """The trials of a search that left a network, on n select signals; utilities in R per signal."""

    realised: Floats  # [n, trials], mean over a trial's seeds
    expected: Floats  # [n, trials], the same under the outcome model
    rule: Floats  # [n], realised: the rule at 1x
    plug_in: Floats  # [n], realised
    time: npt.NDArray[np.int64]  # [n], ns
    names: tuple[str, ...]
    finished: npt.NDArray[np.bool_]  # [trials], whether all its seeds were trained
    tried: int  # all trials ever begun, those stopped early, failed or lost included
    selected: int | None  # the column of the search's best trial; None where none was finished


def trial_utilities(experiment: Experiment) -> TrialUtilities:
    """Read what the search wrote when it summed up; DataError where it has not."""
    path = experiment.folder / UTILITIES_FILE
    mend = f"let the search end: ballast tune --name {experiment.name} --resume"
    if not path.exists():
        raise DataError(f"experiment {experiment.name}", f"no {UTILITIES_FILE}", mend)
    with np.load(path, allow_pickle=False) as file:
        kept = dict(file)
    if "expected" not in kept:  # written before expected utilities were kept
        raise DataError(f"{path.name}, expected", None, mend)
    names = tuple(str(name) for name in kept["trial"])
    best = best_of(experiment.trials())
    return TrialUtilities(
        realised=kept["utility"],
        expected=kept["expected"],
        rule=kept["rule"],
        plug_in=kept["plug_in"],
        time=kept["time"],
        names=names,
        finished=kept["finished"],
        tried=int(kept["tried"]),
        selected=names.index(best.name) if best is not None else None,
    )


def write_utilities(experiment: Experiment, select: SignalTable) -> TrialUtilities:
    """Walk every network found through `select`; keep what came of it beside the rule's and the plug-in's.

    The file holds what tests for the luck of many trials need: ``utility`` and ``expected`` [signals,
    trials], realised and under the outcome model, the mean over a trial's seeds, and ``by_seed`` [signals,
    trials, seeds], realised, NaN where a seed was not begun; ``rule`` and ``plug_in`` [signals]; ``time``
    [signals]; and of the trials ``trial``, ``sample`` and ``config`` (JSON), ``seeds`` [trials, seeds],
    ``score`` [trials, seeds], ``finished``; ``tried``, all trials ever begun, also those without a network.
    """
    plan, trials = experiment.plan, experiment.trials()

    def walk(policy: Policy) -> Path:
        return run(policy, select, plan.config.limits, plan.config.session.days)

    with_network = [trial for trial in trials if experiment.found(trial.name, 0) is not None]
    shape = (len(select), len(with_network), plan.seeds)
    by_seed, expected = np.full(shape, np.nan), np.full(shape, np.nan)
    score = np.full(shape[1:], np.nan)
    for column, trial in enumerate(with_network):
        for number in range(plan.seeds):
            found = experiment.found(trial.name, number)
            if found is not None:
                path = walk(TierPolicy(found.network))
                by_seed[:, column, number], expected[:, column, number] = path.utility, path.expected
                score[column, number] = found.score
    configs = [plan.trained(trial.sample).model_dump_json() for trial in with_network]
    seeds = plan.config.seed + np.arange(plan.seeds)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        utility=np.nanmean(by_seed, axis=2) if with_network else by_seed[:, :, 0],
        expected=np.nanmean(expected, axis=2) if with_network else expected[:, :, 0],
        by_seed=by_seed,
        rule=walk(FixedSize(1.0, "rule 1x")).utility,
        plug_in=walk(PlugIn()).utility,
        time=select.time,
        trial=np.array([trial.name for trial in with_network], dtype=np.str_),
        sample=np.array([json.dumps(trial.sample) for trial in with_network], dtype=np.str_),
        config=np.array(configs, dtype=np.str_),
        seeds=np.tile(seeds, (len(with_network), 1)),
        score=score,
        finished=np.array([trial.finished for trial in with_network], dtype=np.bool_),
        tried=np.int64(len(trials)),
    )
    write_atomically(experiment.folder / UTILITIES_FILE, buffer.getvalue())
    return trial_utilities(experiment)
