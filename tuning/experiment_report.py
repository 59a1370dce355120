"""An experiment's folder as the figures of its page, whether the search has ended, runs or was killed.

Knows nothing of Ray or of how the page looks.
"""

import json
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from envs.guardrails import TIERS
from evaluation.comparison import NANOSECONDS_PER_DAY, Difference
from evaluation.experiment_page import Axis, Score, Search, Status, TrialRow, write_experiment
from evaluation.resampling import interval
from tuning.experiment import BEST_FILE, UTILITIES_FILE, Experiment, Plan, Trial
from tuning.search import Choice, Domain, Space

LEAST_FOR_IMPORTANCE: Final = 10  # trials with a value, below which importance is noise
REPLICATIONS: Final = 1_000
Arrays = dict[str, Any]


def write_report(experiment: Experiment) -> Path:
    """Write ``report.html`` into the experiment's folder, and return its path."""
    path = experiment.folder / "report.html"
    write_experiment(read(experiment), path)
    return path


def read(experiment: Experiment) -> Search:
    """What the folder holds of the search at this moment."""
    plan, best = experiment.plan, experiment.folder / BEST_FILE
    utilities = _utilities(experiment)
    importance, note = _importance(experiment, plan)
    signals = {"select_signals": len(utilities["time"])} if utilities else {}
    return Search(
        name=experiment.name,
        trials=[_row(trial, plan, utilities) for trial in experiment.trials()],
        asked=plan.trials,
        seeds=plan.seeds,
        scheduler=plan.scheduler,
        axes=[_axis(key, domain) for key, domain in plan.space.root.items()],
        importance=importance,
        importance_note=note,
        provenance={
            "data": plan.config.data,
            "rule": plan.config.rule,
            "algo": plan.config.algo,
            "env_steps_a_seed": plan.config.learning.env_steps,
            "seed": plan.config.seed,
            **signals,
            "limits": plan.config.limits.model_dump(),
            "space": {key: _words(domain) for key, domain in plan.space.root.items()},
        },
        config=str(best) if best.exists() else None,
    )


def _utilities(experiment: Experiment) -> Arrays:
    path = experiment.folder / UTILITIES_FILE
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _row(trial: Trial, plan: Plan, utilities: Arrays) -> TrialRow:
    last = trial.rows[-1] if trial.rows else {}
    status: Status = "unfinished"
    if trial.error is not None:
        status = "failed"
    elif trial.finished:
        status = "finished"
    elif trial.name in utilities.get("trial", ()):  # the search is over
        status = "stopped early"
    return TrialRow(
        name=trial.name,
        settings={key: _setting(plan.space, key, value) for key, value in trial.sample.items()},
        status=status,
        objective=last.get("objective"),
        worst=last.get("worst"),
        versus_rule=_versus(trial, "rule", "rule 1x", utilities),
        versus_plug_in=_versus(trial, "plug_in", "meta-label plug-in", utilities),
        seconds=last.get("seconds", 0.0),
        scores=[
            Score(row["seed"], row["env_steps"], row["score"], row.get("tiers", dict.fromkeys(TIERS, 0.0)))
            for row in trial.rows
        ],
        error=trial.error.splitlines()[0] if trial.error is not None else None,
        origin=trial.origin,
    )


def _versus(trial: Trial, reference: str, name: str, utilities: Arrays) -> Difference | None:
    if trial.name not in utilities.get("trial", ()):
        return None
    (column,) = np.flatnonzero(utilities["trial"] == trial.name)
    d = utilities["utility"][:, column] - utilities[reference]
    low, high = interval(d, utilities["time"] // NANOSECONDS_PER_DAY, REPLICATIONS, 0)
    return Difference(name, float(np.mean(d)), low, high)


def _setting(space: Space, key: str, sampled: Any) -> float | str:
    value = space.value(key, sampled)
    return json.dumps(value) if isinstance(space.root[key], Choice) else float(value)


def _axis(key: str, domain: Domain) -> Axis:
    if isinstance(domain, Choice):
        return Axis(key, None, None, [json.dumps(value) for value in domain.values], logarithmic=False)
    return Axis(key, domain.low, domain.high, (), logarithmic=domain.kind in ("loguniform", "lograndint"))


def _importance(experiment: Experiment, plan: Plan) -> tuple[dict[str, float] | None, str]:
    """Each key's share of the variance of the objective between trials (fANOVA: Hutter, Hoos and
    Leyton-Brown 2014), or why there is none.
    """
    if plan.scheduler != "asha":
        return (
            None,
            "Population-based training changes settings on the way: no single one can be held to account.",
        )
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    study = experiment.study()
    scored = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    if scored < LEAST_FOR_IMPORTANCE:
        return None, f"{scored} trials have a score: importance is noise below {LEAST_FOR_IMPORTANCE}."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except (RuntimeError, ValueError) as error:
        return None, f"Optuna finds no importance: {error}"
    note = (
        f"Share of the differences between {scored} trials that each setting explains (fANOVA); "
        "a trial stopped early counts with the score it had."
    )
    return {key: float(share) for key, share in found.items()}, note


def _words(domain: Domain) -> str:
    values = domain.model_dump(exclude={"kind"})
    return f"{domain.kind} " + " ".join(f"{name} {value}" for name, value in values.items())
