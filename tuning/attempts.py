"""The processes behind a retraining: an attempt's training, then its evaluation, here or as Ray jobs.

Knows nothing of when to train again, nor of verdicts.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from filelock import FileLock

from market.errors import ConfigError, InputError, first_line
from market.home import VARIABLE, write_atomically
from mlops.evidence import Evidence, newest
from mlops.retraining import FOLDER, Judge, Launch, Unfinished
from mlops.versions import ModelVersion, read_export
from policies.bundle import open_bundle
from tuning.config import TrainConfig, parse
from tuning.run_folder import RunFolder
from tuning.train import Listener, Result, Training

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

SECONDS_TO_STOP: Final = 30  # between SIGTERM and SIGKILL: time to write a checkpoint


class Runner(Protocol):
    """Runs one command of Ballast to its end."""

    def __call__(self, words: Sequence[str], name: str, *, begun: bool) -> None:
        """Run ``python -m ballast WORDS``, known as `name`; with `begun` it may run, or have run, already.

        Raises `InputError` where it failed, `Unfinished` where it was lost sight of.
        """
        ...


class Here:
    """Commands as processes of this machine; they speak on the terminal, and end with whoever waits here."""

    def __call__(self, words: Sequence[str], name: str, *, begun: bool) -> None:
        """See `Runner`."""
        process = subprocess.Popen([sys.executable, "-m", "ballast", *words])
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(SECONDS_TO_STOP)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if code:
            raise InputError(words[0], f"exit code {code}", "see what it said before")


class OnCluster:
    """Commands as jobs of the Ray cluster whose dashboard is at `address`; they go on when nobody waits.

    A job runs in a copy of `working_dir`, with this BALLAST_HOME, which all nodes share.
    """

    def __init__(self, address: str, home: Path, working_dir: Path) -> None:
        self._address, self._home, self._working_dir = address, home, working_dir

    def __call__(self, words: Sequence[str], name: str, *, begun: bool) -> None:
        """See `Runner`."""
        from tuning.jobs import client  # Ray is slow to import

        try:
            details = self._followed(client(self._address), words, name)
        except ConfigError as error:
            if not begun or error.field != "address":
                raise
            raise Unfinished(str(error)) from error
        except OSError as error:  # also what Ray's client raises where nobody answers
            raise Unfinished(f"job {name} at {self._address}: {first_line(error)}") from error
        if details.status != "SUCCEEDED":
            message = (details.message or "no reason given").strip()
            raise InputError(f"job {name}", str(details.status), f"see `ray job logs {name}` ({message})")

    def _followed(self, cluster: JobSubmissionClient, words: Sequence[str], name: str) -> JobDetails:
        from tuning.jobs import submit, wait

        if all(job.submission_id != name for job in cluster.list_jobs()):
            arguments = ["python", "-m", "ballast", *words]
            environment = {VARIABLE: str(self._home)}
            submit(cluster, arguments, self._working_dir, environment=environment, submission_id=name)
        return wait(cluster, name, timeout_s=float("inf"), every_s=2.0)


def launcher(home: Path, config: Callable[[], TrainConfig], run: Runner) -> Launch:
    """Trains `config`, as it is when an attempt is launched first, by `run`."""

    def launch(attempt: str) -> int:
        path = home / FOLDER / f"{attempt}.json"
        begun = path.exists()
        if not begun:
            write_atomically(path, config().model_dump_json(indent=1).encode())
        run(["train-candidate", attempt, str(path)], f"ballast-train-{attempt}", begun=begun)
        folder = _folder(home, attempt, parse(path))
        if not folder.done("register"):
            raise InputError(
                "run", str(folder.folder), "ended without a registered version: see what it said"
            )
        return int(folder.facts("register")["version"])

    return launch


def judge(home: Path, options: Sequence[str], run: Runner) -> Judge:
    """Evaluates a version by `run`, on its locked test part and with `options` of `evaluate`."""

    def judged(version: ModelVersion) -> Evidence:
        folder = home / "evidence"
        before = set(folder.rglob("*.json"))
        name = f"ballast-evaluate-{version.version}-{secrets.token_hex(4)}"
        run(["evaluate", str(version.version), "--final", *options], name, begun=False)
        if set(folder.rglob("*.json")) == before:
            raise InputError("evidence", str(folder), f"evaluate left none for version {version.version}")
        return newest(folder, version.digest)

    return judged


def train_candidate(config: TrainConfig, home: Path, attempt: str, listener: Listener) -> Result:
    """Train an attempt, or go on with it, and register what comes out as TRAINING: it is still to be judged.

    One process at a time: one whose parent was killed is waited for.
    """
    folder = _folder(home, attempt, config)
    (home / FOLDER).mkdir(parents=True, exist_ok=True)
    with FileLock(home / FOLDER / f"{attempt}.lock"):
        training = Training(config, folder, home, listener)
        training.status = "TRAINING"
        return training.run("all")


def configuration(home: Path, source: Path | None, overrides: Mapping[str, Any]) -> TrainConfig:
    """The configuration in the file `source`, else that of what is in production, else of the newest version;
    `overrides` by dotted key. ConfigError where there is none.
    """
    if source is not None:
        return parse(source, overrides)
    versions = read_export(home)
    if not versions:
        raise ConfigError("--config", None, "no version is registered whose configuration could be taken")
    chosen = next((version for version in versions if version.status == "PRODUCTION"), versions[-1])
    meta = open_bundle(chosen.path.parent, chosen.digest).meta
    return parse(meta.training["config"], overrides)


def _folder(home: Path, attempt: str, config: TrainConfig) -> RunFolder:
    """The run of an attempt, whose name is a time as other runs' names are."""
    return RunFolder.named(home, attempt, config.digest(), config.model_dump(mode="json"))
