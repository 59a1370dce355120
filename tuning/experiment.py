"""A search on disk: its plan, its prepared data, what every trial reported, the networks found, the study.

Knows nothing of Ray. Trials write here directly: a page can be made of a search that runs or was killed.
"""

import io
import json
import re
import shutil
import statistics
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from market.errors import ConfigError
from market.home import write_atomically
from policies.hybrid import Network
from tuning.config import TrainConfig, parse
from tuning.run_folder import RunFolder
from tuning.search import Space

if TYPE_CHECKING:
    import optuna

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
PLAN_FILE: Final = "plan.json"
BEST_FILE: Final = "best.json"
UTILITIES_FILE: Final = "utilities.npz"
TRIAL_ATTRIBUTE: Final = "trial"  # of a trial in the study: its name
LOST_ATTRIBUTE: Final = "lost"  # of one that no process will go on with, so that another takes its place
PERTURBATIONS: Final = 5  # in population-based training, with a part of the steps before and after each
TRIALS: Final = "trials"  # Ray Tune's own folder, and TensorBoard's

Row = dict[str, Any]


class Plan(BaseModel):
    """What is searched, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TrainConfig = Field(description="what all trials share")
    space: Space
    trials: int = Field(20, ge=1, le=10_000)
    seeds: int = Field(2, ge=1, le=100, description="trainings of each trial, one after the other")
    scheduler: Literal["asha", "pbt"] = "asha"

    def trained(self, sample: Mapping[str, Any], number: int = 0) -> TrainConfig:
        """The configuration of a trial's training `number`: its seed is that many above the plan's."""
        config = self.space.config(self.config, sample)
        return config.model_copy(update={"seed": config.seed + number})


def plan_of(
    config: TrainConfig, space: Space, *, trials: int | None, seeds: int | None, scheduler: str | None
) -> Plan:
    """A search from what a user gives; ConfigError for what cannot be searched so."""
    given = {"trials": trials, "seeds": seeds, "scheduler": scheduler}
    values = {key: value for key, value in given.items() if value is not None}
    if scheduler == "pbt":
        if seeds not in (None, 1):
            raise ConfigError(
                "--seeds", seeds, "give 1: population-based training changes settings while a seed trains"
            )
        values["seeds"] = 1
        if trials == 1:
            raise ConfigError("--trials", 1, "give 2 or more: population-based training hands work on")
        kept = space.without_structure()
        if not kept.root:
            raise ConfigError("--space", sorted(space.root), "give a key that a running trial can change")
        space = kept
        learning = config.learning
        # Two checkpoints between perturbations: often enough to be in time, and no more than Tune keeps.
        every = max(learning.report_every, learning.env_steps // (PERTURBATIONS + 1) // 2)
        config = parse({}, {f"{config.learner}.checkpoint_every": every}, config)
    try:
        return Plan(config=config, space=space, **values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"--{first['loc'][0]}", first["input"], first["msg"].lower()) from None


@dataclass(frozen=True)
class Found:
    """The best network of one training of a trial so far."""

    network: Network
    score: float  # mean expected utility per signal of the select part, in R
    finished: bool


@dataclass(frozen=True)
class Trial:
    """What is known of one trial."""

    name: str
    sample: dict[str, Any]  # by dotted key
    rows: tuple[Row, ...]  # as reported, in the order of their steps
    finished: bool  # whether all its seeds were trained to the end
    error: str | None  # in its first line the cause, then the traceback

    @property
    def objective(self) -> float | None:
        """The last one reported, or None before the first."""
        return self.rows[-1]["objective"] if self.rows else None

    @property
    def origin(self) -> str | None:
        """The trial whose work this one took over last, in population-based training."""
        return self.rows[-1].get("origin") if self.rows else None

    @property
    def standing(self) -> str:
        """In words: how it ended, and how well it does."""
        if self.error is not None:
            return f"failed: {self.error.splitlines()[0]}"
        if not self.rows:
            return "not scored yet"
        last = self.rows[-1]
        ended = "finished" if self.finished else f"at {last['env_steps']:,} steps"
        score = f"{ended}, {last['objective']:+.4f} R (worst seed {last['worst']:+.4f})"
        return f"{score}, its work from {self.origin}" if self.origin else score


@dataclass(frozen=True)
class Experiment:
    """One search under ``home/experiments``."""

    folder: Path

    @classmethod
    def start(cls, home: Path, name: str | None, plan: Plan) -> Self:
        """A new one; ConfigError where `name` is taken or no name. Without a name it is that of its start."""
        if name is None:
            name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{plan.config.digest()[:8]}"
        _well_formed(name)
        experiment = cls(home / "experiments" / name)
        if experiment.folder.exists():
            raise ConfigError(
                "--name", name, "there is one already: --resume goes on with it, or give another name"
            )
        content = plan.model_dump_json(indent=1).encode()
        write_atomically(experiment.folder / PLAN_FILE, content)
        return experiment

    @classmethod
    def open(cls, home: Path, name: str | None) -> Self:
        """The one of that name, or the newest; ConfigError where there is none."""
        if name is not None:
            _well_formed(name)
        root = home / "experiments"
        plans = sorted(root.glob(f"*/{PLAN_FILE}"), key=lambda path: path.stat().st_mtime_ns)
        known = [path.parent.name for path in plans]
        if not known or (name is not None and name not in known):
            listed = f"give one of {', '.join(known[-10:])}" if known else "none has been started yet"
            raise ConfigError("experiment", name, listed)
        return cls(root / (name or known[-1]))

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.folder.name

    @property
    def plan(self) -> Plan:
        """What was asked for at its start."""
        return Plan.model_validate_json((self.folder / PLAN_FILE).read_bytes())

    @property
    def data(self) -> RunFolder:
        """The stages before the sizer, finished once for all trials."""
        return RunFolder(self.folder / "data")

    @property
    def study_url(self) -> str:
        """Address of the study's database, as Optuna and optuna-dashboard take it."""
        return f"sqlite:///{self.folder / 'optuna.db'}"

    @property
    def board(self) -> Path:
        """The folder that TensorBoard reads."""
        return self.folder / TRIALS

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else runs this search during the block; ConfigError where somebody does."""
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                "experiment", self.name, "it is running: wait for its end, or stop it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    # --- what trials leave ---

    def begin(self, trial: str, sample: Mapping[str, Any]) -> None:
        """Keep what a trial was given; a changed sample is the trial's from now on."""
        content = json.dumps(dict(sample), allow_nan=False).encode()
        write_atomically(self.folder / "history" / f"{trial}.json", content)

    def record(self, trial: str, row: Row) -> None:
        """Add a row to a trial's history."""
        with (self.folder / "history" / f"{trial}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def fail(self, trial: str, error: str) -> None:
        """Keep why a trial came to nothing."""
        write_atomically(self.folder / "history" / f"{trial}.error", error.encode())

    def forgive(self, trial: str) -> None:
        """Forget why a trial came to nothing: it goes on."""
        (self.folder / "history" / f"{trial}.error").unlink(missing_ok=True)

    def trials(self) -> tuple[Trial, ...]:
        """All trials that have begun, in the order of their names."""
        paths = sorted((self.folder / "history").glob("*.json"))
        return tuple(self.trial(path.stem) for path in paths)

    def trial(self, name: str) -> Trial:
        """One that has begun."""
        folder = self.folder / "history"
        rows: list[Row] = []
        lines = folder / f"{name}.jsonl"
        for line in lines.read_text(encoding="utf-8").splitlines() if lines.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:  # cut short by a kill
                continue
            # A resumed trial goes back to its checkpoint, and one that takes over another's work to that
            # one's: what it reports again replaces what was lost.
            while rows and rows[-1]["env_steps"] >= row["env_steps"]:
                rows.pop()
            rows.append(row)
        error = folder / f"{name}.error"
        seeds = self.plan.seeds
        return Trial(
            name=name,
            sample=json.loads((folder / f"{name}.json").read_bytes()),
            rows=tuple(rows),
            finished=bool(rows) and rows[-1]["seeds_done"] == seeds,
            error=error.read_text(encoding="utf-8") if error.exists() else None,
        )

    def keep(self, trial: str, number: int, found: Found) -> None:
        """Keep the best network of a trial's training `number`."""
        buffer = io.BytesIO()
        facts = {"score": np.float64(found.score), "finished": np.bool_(found.finished)}
        np.savez(buffer, allow_pickle=False, **found.network.to_arrays(), **facts)
        write_atomically(self._network(trial, number), buffer.getvalue())

    def found(self, trial: str, number: int) -> Found | None:
        """What `keep` was given last, or None."""
        path = self._network(trial, number)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        score, finished = float(arrays.pop("score")), bool(arrays.pop("finished"))
        return Found(Network.from_arrays(arrays), score, finished)

    def _network(self, trial: str, number: int) -> Path:
        return self.folder / "networks" / f"{trial}-{number}.npz"

    # --- the study ---

    def study(self) -> "optuna.Study":
        """Optuna's study of the search, made by one process alone: two at once break its file."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with FileLock(self.folder / ".study.lock"):
            return optuna.create_study(
                storage=self.study_url, study_name=self.name, direction="maximize", load_if_exists=True
            )

    def fail_orphans(self, alive: Collection[str] = ()) -> int:
        """Mark as failed, and count, what the study holds as running and is none of the trials `alive`."""
        from optuna.trial import Trial as Begun
        from optuna.trial import TrialState

        study = self.study()
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        orphans = [one for one in running if one.user_attrs.get(TRIAL_ATTRIBUTE) not in alive]
        for orphan in orphans:
            Begun(study, orphan._trial_id).set_user_attr(LOST_ATTRIBUTE, True)
            study.tell(orphan.number, state=TrialState.FAIL)
        return len(orphans)

    def clear_trials(self) -> None:
        """Remove what trials left, for a search that starts over before Tune had kept anything of it."""
        for name in (TRIALS, "history", "networks"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


def best_of(trials: Collection[Trial]) -> Trial | None:
    """The one with the highest objective among those whose seeds are all trained; None where none is."""
    candidates = [trial for trial in trials if trial.finished and trial.objective is not None]
    return max(candidates, key=lambda trial: trial.objective or 0.0, default=None)


def standing(done: list[float], running: float | None) -> tuple[float, float]:
    """A trial's objective and its worst seed: median and least of the finished seeds' scores.

    While the first seed is trained it stands for itself, by its best network so far.
    """
    scores = done or ([running] if running is not None else [])
    return statistics.median(scores), min(scores)


def _well_formed(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError("--name", name, "give letters, digits, dots, dashes and underscores, at most 80")
