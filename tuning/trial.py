"""One trial of a search: the sizer trained with one sample's settings, seed after seed, reported as it goes.

Knows nothing of how samples are drawn or trials are stopped. A trial stopped early has spent one seed only.
"""

import os
import shutil
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from ray import tune

from envs.guardrails import TIERS
from envs.signal_table import SignalTable
from market import home
from market.errors import ConfigError
from policies.hybrid import Network
from tuning import checkpoints
from tuning.config import TrainConfig
from tuning.experiment import PERTURBATIONS, PLAN_FILE, Experiment, Found, Plan, Row, standing
from tuning.scoring import Walk, greedy_score, greedy_walk
from tuning.sizer import best_network, total_steps, train_sizer

WORK: Final = "work-"  # the folder of one seed's training within a checkpoint
ENDING_S: Final = 120  # for a trial to let go of its process; after Tune's own two seconds the next is lost


def run_trial(
    sample: dict[str, Any], plan: Plan, folder: Path, train: SignalTable, select: SignalTable
) -> None:
    """What Ray Tune runs: train the seeds one after another, and report after every score.

    The score is `tuning.scoring.greedy_score` on `select`. `folder` is the experiment's. A checkpoint holds
    the work of the seed in training; finished seeds are known by the networks in the experiment.
    """
    if not (folder / PLAN_FILE).exists():  # on a node that came after the search had begun
        raise ConfigError(home.VARIABLE, str(folder), "mount one folder there on every node of the cluster")
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = str(ENDING_S)
    name = tune.get_context().get_trial_id()
    experiment = Experiment(folder)
    experiment.begin(name, sample)
    experiment.forgive(name)
    rows = experiment.trial(name).rows
    # Tune ends the process of a trial that it stops. What then stays lies in the directory that Tune made for
    # the trial, which goes with the session's.
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as work:
        spent = rows[-1]["seconds"] if rows else 0.0
        trial = _Trial(name, experiment, plan, sample, select, Path(work), spent)
        trial.origin = rows[-1].get("origin") if rows else None
        if checkpoint := tune.get_checkpoint():
            holder = Path(checkpoint.path).parent.name  # Tune's folder of the trial that wrote it
            trial.origin = holder if holder != name else trial.origin
            with checkpoint.as_directory() as kept:
                shutil.copytree(kept, work, dirs_exist_ok=True)
        try:
            for number in range(plan.seeds):
                trial.train(number, train)
        except Exception as error:
            cause: BaseException = error
            while (deeper := cause.__cause__ or cause.__context__) is not None:
                cause = deeper
            experiment.fail(name, f"{type(cause).__name__}: {cause}\n\n{traceback.format_exc()}")
            raise


@dataclass
class _Trial:
    name: str
    experiment: Experiment
    plan: Plan
    sample: dict[str, Any]
    select: SignalTable
    work: Path
    seconds: float  # what was spent on it before this process took it up
    began: float = field(default_factory=time.monotonic)
    done: list[float] = field(default_factory=list)
    walk: Walk | None = None
    attached: str = ""  # the checkpoint of the sizer that Tune was given last
    origin: str | None = None  # the trial whose work was taken over last
    generation: int = 0  # perturbations come to so far, in population-based training

    def train(self, number: int, train: SignalTable) -> None:
        """Train the seed `number`, unless that was done before."""
        found = self.experiment.found(self.name, number)
        if found is not None and found.finished:
            self.done.append(found.score)
            return
        config = self.plan.trained(self.sample, number)
        folder = self.work / f"{WORK}{number}"
        if self.plan.scheduler == "pbt":
            # Another trial's work, or this one's own from before its settings were changed.
            checkpoints.adopt(folder, {"config": config.digest()})
            if newest := checkpoints.newest(folder, {}):
                checkpoint, state = newest
                self.advance(state["steps"], total_steps(train, config))
                found = Found(best_network(checkpoint), state["best_score"], finished=False)
                self.experiment.keep(self.name, number, found)
        seed = _Seed(self, number, config, folder, found)
        network, _ = train_sizer(train, self.select, config, folder, seed.progress, observe=seed.observe)
        score = greedy_score(network, self.select, config.limits, config.session)
        self.experiment.keep(self.name, number, Found(network, score, finished=True))
        self.done.append(score)
        shutil.rmtree(folder)
        self.report(number, config.seed, seed.total, seed.total, score, None)

    def advance(self, saved: int, total: int) -> None:
        """Count perturbations by the steps of what can be handed on; at the end nothing would come after."""
        if saved < total:
            self.generation = max(self.generation, saved * (PERTURBATIONS + 1) // total)

    def report(
        self, number: int, seed: int, steps: int, total: int, score: float, running: float | None
    ) -> None:
        """Tell Tune, and the experiment's history, how the trial stands."""
        objective, worst = standing(self.done, running)
        row: Row = {
            "env_steps": number * total + steps,
            "seed": seed,
            "score": score,
            "objective": objective,
            "worst": worst,
            "seeds_done": len(self.done),
            "seconds": self.seconds + time.monotonic() - self.began,
        }
        if self.walk is not None:
            shares = np.bincount(self.walk.tier, minlength=len(TIERS)) / len(self.walk.tier)
            row["tiers"] = dict(zip(TIERS, shares.tolist(), strict=True))
        newest = max((path.name for path in self.work.glob(f"{WORK}*/{checkpoints.PREFIX}*")), default="")
        if self.plan.scheduler == "pbt":
            self.advance(int(newest.removeprefix(checkpoints.PREFIX) or 0), total)
            row["generation"] = self.generation
            if self.origin is not None:
                row["origin"] = self.origin
        self.experiment.record(self.name, row)
        fresh = f"{number}/{newest}" if newest else ""
        # A seed's end is kept too: what lies behind it need not be.
        if fresh != self.attached:
            self.attached = fresh
            tune.report(row, checkpoint=tune.Checkpoint.from_directory(self.work))
        else:
            tune.report(row)


@dataclass
class _Seed:
    trial: _Trial
    number: int
    config: TrainConfig
    folder: Path
    found: Found | None
    total: int = 0
    network: Network | None = None

    def observe(self, network: Network) -> None:
        """See `tuning.sizer.train_sizer`."""
        trial = self.trial
        trial.walk = greedy_walk(network, trial.select, self.config.limits, self.config.session)
        score = float(trial.walk.expected.mean())
        if self.found is None or score > self.found.score:
            self.found = Found(network, score, finished=False)
            trial.experiment.keep(trial.name, self.number, self.found)

    def progress(self, done: int, total: int, score: float) -> None:
        """See `tuning.sizer.train_sizer`."""
        assert self.trial.walk is not None
        assert self.found is not None
        self.total = total
        # A seed is at its end only when its training has returned.
        steps = min(done, total - 1)
        current = float(self.trial.walk.expected.mean())
        self.trial.report(self.number, self.config.seed, steps, total, current, self.found.score)
