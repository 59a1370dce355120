"""The search for better training settings: trials through Ray Tune on tables prepared once.

Trials are scored on the select part; the test part is never handed to one. Knows nothing of terminals: what
happens is told to a `SearchListener`.
"""

import json
import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Final, Protocol

import numpy as np
import optuna
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from market.errors import ConfigError, DataError
from market.home import write_atomically
from tuning.cluster import connected
from tuning.experiment import (
    BEST_FILE,
    LOST_ATTRIBUTE,
    TRIAL_ATTRIBUTE,
    TRIALS,
    Experiment,
    Plan,
    Trial,
    best_of,
)
from tuning.population import InStep
from tuning.prepare import Prepared
from tuning.sizer import total_steps
from tuning.train import Listener, Training
from tuning.trial import run_trial
from tuning.trial_utilities import write_utilities

GRACE: Final = 0.25  # share of the first seed's steps before a trial may be stopped
REDUCTION: Final = 3  # one of so many goes on
TRIAL_BYTES: Final = 900_000_000  # of a trial's process beside its replay: PyTorch, RLlib, the tables
TRANSITION_BYTES: Final = 160
DEATHS: Final = 3  # of a trial's process, after each of which it goes on from its last checkpoint
SNAPSHOT_S: Final = 10.0  # between two records of the search that --resume can go on from


class SearchListener(Listener, Protocol):
    """Whoever follows a search."""

    def searching(self, done: int, total: int, running: int, best: float | None) -> None:
        """How many trials have ended, are there in all and are running; the best objective so far."""
        ...

    def trial(self, trial: Trial) -> None:
        """A trial has ended: finished, stopped early, or failed."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a search has come to."""

    experiment: Experiment
    trials: tuple[Trial, ...]
    best: Trial | None  # the highest objective among those whose seeds are all trained
    config: Path | None  # the best trial's configuration, as `ballast train --config` takes it
    rule: float  # mean realised utility per signal of the select part, in R: the rule at 1x
    plug_in: float  # the same of the meta-label plug-in


def search(experiment: Experiment, home: Path, listener: SearchListener, *, resume: bool) -> Outcome:
    """Run the experiment's trials, or with `resume` those that are left, and sum up.

    On SIGINT or SIGTERM the state of the search is written, and the process exits with 128 and the signal's
    number. Raises ConfigError where a trial does not fit into the resources, or the experiment is running
    elsewhere.
    """
    with experiment.alone(), connected(len(os.sched_getaffinity(0)), home):
        plan = experiment.plan
        _slots(plan)
        prepared = _prepare(experiment, plan, home, listener)
        _Telling.begin(listener, plan.trials, experiment)
        tuner = _tuner(experiment, plan, prepared, resume=resume)
        with _quiet(), _stoppable() as stopped:
            results = tuner.fit()
        if stopped:
            listener.warning("stopped; --resume goes on with the trials that are left")
            raise SystemExit(128 + stopped[0])
        if plan.scheduler == "asha":
            experiment.fail_orphans()
        _name_losses(experiment, results, listener)
        return _sum_up(experiment, plan, prepared)


def _prepare(experiment: Experiment, plan: Plan, home: Path, listener: Listener) -> Prepared:
    experiment.data.folder.mkdir(exist_ok=True)
    prepared = Training(plan.config, experiment.data, home, listener).prepare()
    if not len(prepared.select):
        raise DataError("select trades", 0, "give more data, or a larger second share in fractions")
    return prepared


def _tuner(experiment: Experiment, plan: Plan, prepared: Prepared, *, resume: bool) -> tune.Tuner:
    train, select = prepared.train, prepared.select
    bundles = [{"CPU": 1.0, "memory": float(_trial_bytes(plan))}]
    bundles += [{"CPU": 1.0}] * plan.config.learning.env_runners
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, plan=plan, folder=experiment.folder, train=train, select=select),
        tune.PlacementGroupFactory(bundles),
    )
    path = str(experiment.folder / TRIALS)
    if resume and tune.Tuner.can_restore(path):
        tuner = tune.Tuner.restore(path, trainable, resume_unfinished=True, resume_errored=True)
        if plan.scheduler == "asha":
            results = tuner.get_results()
            experiment.fail_orphans({Path(results[i].path).name for i in range(len(results))})
        return tuner
    experiment.clear_trials()
    asha = plan.scheduler == "asha"
    if asha:
        experiment.fail_orphans()
    # Population-based training draws from the global generators.
    random.seed(plan.config.seed)
    np.random.seed(plan.config.seed)  # noqa: NPY002
    return tune.Tuner(
        trainable,
        param_space={} if asha else plan.space.build(),
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="max",
            num_samples=-1
            if asha
            else plan.trials,  # the study counts: Tune's count may be older than a kill
            search_alg=_study_search(experiment, plan) if asha else None,
            scheduler=_scheduler(plan, total_steps(train, plan.config)),
            max_concurrent_trials=_slots(plan) if asha else None,
            reuse_actors=True,  # a new process would import PyTorch and RLlib again
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=TRIALS,
            storage_path=str(experiment.folder),
            callbacks=[_Telling()],
            # What is handed on must still be there when the other trial's turn comes, a perturbation later.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1 if asha else 10),
            failure_config=tune.FailureConfig(max_failures=DEATHS),
            sync_config=tune.SyncConfig(sync_period=int(SNAPSHOT_S)),
            verbose=0,
        ),
    )


def _study_search(experiment: Experiment, plan: Plan) -> OptunaSearch:
    experiment.study()  # made here, before anything runs beside
    return _StudySearch(
        plan.trials,
        space=OptunaSearch.convert_search_space(plan.space.build()),
        metric="objective",
        mode="max",
        sampler=optuna.samplers.TPESampler(seed=plan.config.seed),
        study_name=experiment.name,
        storage=optuna.storages.RDBStorage(experiment.study_url),
    )


class _StudySearch(OptunaSearch):
    """Optuna's sampler, with the study as its memory: what Tune kept may be older, or gone with a kill.

    The study knows which of Tune's trials each of its own is. A trial that ended after Tune's last snapshot
    may report again: the study has it.
    """

    def __init__(self, most: int, **options: Any) -> None:
        self.most = most
        super().__init__(**options)

    def suggest(self, trial_id: str) -> Any:
        begun = [one for one in self._trials() if LOST_ATTRIBUTE not in one.user_attrs]
        if len(begun) >= self.most:
            # Tune keeps that a search has finished, and would not ask again after a kill.
            return Searcher.FINISHED if all(one.state.is_finished() for one in begun) else None
        sample = super().suggest(trial_id)
        self._ot_trials[trial_id].set_user_attr(TRIAL_ATTRIBUTE, trial_id)
        return sample

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._recall(trial_id)
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            super().on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._recall(trial_id)
        super().on_trial_complete(trial_id, result, error)

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        study: optuna.Study = self._ot_study  # type: ignore[assignment]
        return study.get_trials(deepcopy=False)

    def _recall(self, trial_id: str) -> None:
        if trial_id in self._ot_trials:
            return
        for one in self._trials():
            if one.user_attrs.get(TRIAL_ATTRIBUTE) == trial_id:
                study: optuna.Study = self._ot_study  # type: ignore[assignment]
                self._ot_trials[trial_id] = optuna.trial.Trial(study, one._trial_id)


def _scheduler(plan: Plan, steps: int) -> ASHAScheduler | InStep:
    """`steps`: environment steps of one seed."""
    if plan.scheduler == "asha":
        return ASHAScheduler(
            time_attr="env_steps",
            max_t=plan.seeds * steps,
            grace_period=max(1, round(GRACE * steps)),
            reduction_factor=REDUCTION,
        )
    return InStep(
        time_attr="generation",
        perturbation_interval=1,
        synch=True,
        hyperparam_mutations=plan.space.mutations(),
        custom_explore_fn=plan.space.clamp,
    )


def _trial_bytes(plan: Plan) -> int:
    """Memory that one trial may come to need, by the largest replay of its space."""
    domain = plan.space.root.get("dqn.replay_capacity")
    capacity = max(domain.examples) if domain is not None else plan.config.dqn.replay_capacity
    return TRIAL_BYTES + int(capacity) * TRANSITION_BYTES


def _slots(plan: Plan) -> int:
    """How many trials the connected cluster holds at once; ConfigError where that is none."""
    processors = 1 + plan.config.learning.env_runners
    memory = _trial_bytes(plan)
    nodes = [
        node["Resources"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
    cpus = int(sum(node.get("CPU", 0.0) for node in nodes))
    roomy = sum(min(int(node.get("CPU", 0.0)), int(node.get("memory", 0.0) // memory)) for node in nodes)
    slots = min(cpus // processors, roomy)
    if slots < 1:
        seen = f"{cpus} processors, {max((n.get('memory', 0.0) for n in nodes), default=0.0) / 1e9:.1f} GB"
        needs = f"one trial needs {processors} and {memory / 1e9:.1f} GB"
        raise ConfigError(
            "resources",
            seen,
            f"{needs}: give less to dqn.env_runners or dqn.replay_capacity, or a larger cluster",
        )
    return slots


def _name_losses(experiment: Experiment, results: tune.ResultGrid, listener: SearchListener) -> None:
    """Keep, and tell, why Tune lost a trial that could not say so itself: its process died, say."""
    for i in range(len(results)):
        error: Any = results[i].error
        name = Path(results[i].path).name
        if error is None:
            continue
        if name not in {trial.name for trial in experiment.trials()}:
            experiment.begin(name, results[i].config or {})
        trial = experiment.trial(name)
        if not trial.finished and trial.error is None:
            # Where there was no exception Tune gives text: a heading, then the reason.
            text = isinstance(error, str)
            reason = error.partition("\n")[2].strip() or error if text else f"{type(error).__name__}: {error}"
            experiment.fail(name, reason)
            listener.trial(experiment.trial(name))


def _sum_up(experiment: Experiment, plan: Plan, prepared: Prepared) -> Outcome:
    """Utilities of every network on the select part, the best configuration, and how rule and plug-in do."""
    kept, trials = write_utilities(experiment, prepared.select), experiment.trials()
    best = best_of(trials)
    path = None
    if best is not None:
        path = experiment.folder / BEST_FILE
        content = json.dumps(plan.trained(best.sample).model_dump(mode="json"), indent=1, allow_nan=False)
        write_atomically(path, content.encode())
    return Outcome(experiment, trials, best, path, float(kept.rule.mean()), float(kept.plug_in.mean()))


class _Telling(tune.Callback):
    """What Tune does, told to this process's listener; the callback itself is pickled with the search."""

    listener: ClassVar[SearchListener]
    total: ClassVar[int]
    experiment: ClassVar[Experiment]
    best: ClassVar[float | None]
    ended: ClassVar[set[str]]

    @classmethod
    def begin(cls, listener: SearchListener, total: int, experiment: Experiment) -> None:
        """Whom to tell from now on."""
        cls.listener, cls.total, cls.experiment = listener, total, experiment
        cls.best, cls.ended = None, set()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """See `ray.tune.Callback`."""
        best = type(self).best
        type(self).best = result["objective"] if best is None else max(best, result["objective"])
        self._count(trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `ray.tune.Callback`."""
        self._ended(trials, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `ray.tune.Callback`."""
        self.experiment.begin(trial.trial_id, trial.config)  # its process may have died before that
        if self.experiment.trial(trial.trial_id).error is None:
            reason = (
                f"its process died (failure {trial.num_failures}): killed, out of memory, or its node lost"
            )
            self.experiment.fail(trial.trial_id, reason)
        self._ended(trials, trial)

    def _ended(self, trials: list[Any], trial: Any) -> None:
        self.ended.add(trial.trial_id)  # its status is still that of a running one
        self.listener.trial(self.experiment.trial(trial.trial_id))
        self._count(trials)

    def _count(self, trials: list[Any]) -> None:
        over = [trial.is_finished() or trial.trial_id in self.ended for trial in trials]
        running = sum(
            trial.status == "RUNNING" for trial, ended in zip(trials, over, strict=True) if not ended
        )
        self.listener.searching(sum(over), self.total, running, type(self).best)


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """SIGINT and SIGTERM end the search in order, and are listed; a second one ends the process."""
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    # Tune listens to SIGINT itself, without telling, and to SIGUSR1; until it does, that one must do no harm.
    variable = "TUNE_DISABLE_SIGINT_HANDLER"
    heard = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in heard}

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        signal.signal(number, before[signal.Signals(number)])
        signal.raise_signal(signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    for number in heard[:2]:
        signal.signal(number, stop)
    try:
        with _variable(variable, "1"):
            yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """An environment variable for the length of the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep notices of Ray Tune and Optuna about their own affairs off the terminal."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune", "optuna")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # the listener has been told of every failed trial
    try:
        # Tune's newer output prints at any verbosity.
        with _variable("RAY_AIR_NEW_OUTPUT", "0"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="optuna")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")
            warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
