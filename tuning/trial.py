"""One trial of a search: the sizer trained with one sample's settings, seed after seed, reported as it goes.

Knows nothing of how samples are drawn or trials are stopped. A trial stopped early has spent one seed only.
"""

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
from policies.hybrid import Network
from tuning import checkpoints
from tuning.config import TrainConfig
from tuning.experiment import Experiment, Found, Plan, Row, standing
from tuning.scoring import Walk, greedy_score, greedy_walk
from tuning.sizer import train_sizer

WORK: Final = "work-"  # the folder of one seed's training within a checkpoint


def run_trial(
    sample: dict[str, Any], plan: Plan, folder: Path, train: SignalTable, select: SignalTable
) -> None:
    """What Ray Tune runs: train the seeds one after another, and report after every score.

    The score is `tuning.scoring.greedy_score` on `select`. `folder` is the experiment's. A checkpoint holds
    the work of the seed in training; finished seeds are known by the networks in the experiment.
    """
    name = tune.get_context().get_trial_id()
    experiment = Experiment(folder)
    experiment.begin(name, sample)
    experiment.forgive(name)
    rows = experiment.trial(name).rows
    # Tune has moved this process into a folder of Ray's session, and what a kill leaves there goes with it.
    with tempfile.TemporaryDirectory(prefix="work-of-", dir=Path.cwd()) as work:
        spent = rows[-1]["seconds"] if rows else 0.0
        trial = _Trial(name, experiment, plan, sample, select, Path(work), spent)
        if checkpoint := tune.get_checkpoint():
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
        seed = _Seed(self, number, config, folder, found)
        network, _ = train_sizer(train, self.select, config, folder, seed.progress, observe=seed.observe)
        score = greedy_score(network, self.select, config.limits, config.session)
        self.experiment.keep(self.name, number, Found(network, score, finished=True))
        self.done.append(score)
        shutil.rmtree(folder)
        self.report(number, config.seed, seed.total, seed.total, score, None)

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
        self.experiment.record(self.name, row)
        newest = max((path.name for path in self.work.glob(f"{WORK}*/{checkpoints.PREFIX}*")), default="")
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
