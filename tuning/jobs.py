"""Training as a job on a running Ray cluster: submitted, followed, stopped.

Knows nothing of what the entry point does. Thin over Ray's JobSubmissionClient, which reads RAY_AUTH_MODE and
the token from the environment.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import join
from typing import Final

from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from market.errors import ConfigError, first_line

# Ray leaves out what .gitignore and .rayignore name; this holds for a working directory that has neither.
EXCLUDES: Final = (
    ".git",
    ".venv",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    "htmlcov",
)
SECONDS_TO_STOP: Final = 30  # between SIGTERM and SIGKILL: time to write a checkpoint


def client(address: str) -> JobSubmissionClient:
    """A client of the cluster with its dashboard at `address`, such as ``http://127.0.0.1:8265``.

    Raises ConfigError where no cluster answers.
    """
    try:
        return JobSubmissionClient(address)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            "address", address, f"give the URL of a running cluster's dashboard ({first_line(error)})"
        ) from None


def submit(
    cluster: JobSubmissionClient,
    arguments: Sequence[str],
    working_dir: Path,
    *,
    environment: Mapping[str, str] | None = None,
    submission_id: str | None = None,
    processors: float | None = None,
) -> str:
    """Run the command `arguments` on the cluster, in a copy of `working_dir`, and return the job's id.

    `environment`: variables of the job beside the cluster's own; what a job keeps belongs under an absolute
    BALLAST_HOME, since its working directory vanishes with it. `processors`: logical ones to reserve, on any
    node; without them the job runs on the head. Raises ConfigError for a missing folder, or a submission id
    used before.
    """
    if not working_dir.is_dir():
        raise ConfigError("working_dir", str(working_dir), "give a folder that exists")
    if submission_id is not None and any(job.submission_id == submission_id for job in cluster.list_jobs()):
        raise ConfigError(
            "submission_id", submission_id, "this job was submitted before; give another id, or none"
        )
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(SECONDS_TO_STOP), **(environment or {})}
    return cluster.submit_job(
        entrypoint=join(arguments),
        submission_id=submission_id,
        entrypoint_num_cpus=processors,
        runtime_env={"working_dir": str(working_dir), "excludes": list(EXCLUDES), "env_vars": variables},
    )


def wait(
    cluster: JobSubmissionClient,
    job: str,
    *,
    timeout_s: float,
    every_s: float = 0.5,
    follow: Callable[[str], None] | None = None,
) -> JobDetails:
    """Poll until `job` has ended, for better or worse, and return what Ray knows of it.

    `follow` is given each new piece of the log. Raises TimeoutError after `timeout_s` seconds, and the
    job goes on.
    """
    end = time.monotonic() + timeout_s
    seen = 0
    while True:
        info = cluster.get_job_info(job)
        over = info.status.is_terminal()
        if follow is not None and info.status != JobStatus.PENDING:
            log = cluster.get_job_logs(job)
            if len(log) > seen:
                follow(log[seen:])
                seen = len(log)
        if over:
            return info
        if time.monotonic() > end:
            raise TimeoutError(f"job {job} is {info.status} after {timeout_s:g} s")
        time.sleep(every_s)
