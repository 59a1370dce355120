"""The main job as users submit it: on a running cluster, then found in the registry from outside the job."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from mlops.registry import read_export
from policies.bundle import open_bundle
from policies.hybrid import TierPolicy
from tests.test_project_tree import ROOT
from tests.test_tuning_jobs import cluster  # noqa: F401 (a fixture)
from tuning.jobs import submit, wait


@pytest.mark.timeout(600)
def test_a_submitted_training_is_found_in_the_registry_from_outside(
    cluster: JobSubmissionClient,  # noqa: F811
    home: Path,
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.json"
    settings = {"env_steps": 3000, "report_every": 1000, "checkpoint_every": 2000}
    config.write_text(json.dumps({"dqn": settings}))
    job = [sys.executable, "-m", "ballast", "train", "--mode", "rl_sizer", "--config", str(config)]
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    variables = json.dumps({"env_vars": {"BALLAST_HOME": str(home)}})
    submit = [*ray, "job", "submit", "--address", cluster.get_address(), "--runtime-env-json", variables]
    hidden = ("RAY_ADDRESS", "BALLAST_HOME")
    done = subprocess.run(
        [*submit, "--working-dir", ".", "--", *job],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (version,) = read_export(home)
    assert version.status == "STAGING"
    assert str(version.digest) in done.stdout
    bundle = open_bundle(home / "bundles", version.digest)
    assert isinstance(bundle.policy(), TierPolicy)
    assert bundle.meta.training["config"]["dqn"]["env_steps"] == 3000


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_search_and_an_evaluation_are_submitted_like_a_training(
    cluster: JobSubmissionClient,  # noqa: F811
    home: Path,
    tmp_path: Path,
) -> None:
    settings = {
        "data": "synthetic:regimes?bars=6000&seed=3",
        "least_trades": 100,
        "predictor": {"epochs": 0},
        "dqn": {"env_steps": 1500, "report_every": 500, "learning_starts": 200, "hidden": [8]},
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps(settings))

    def done(*words: str) -> str:
        command = [sys.executable, "-m", "ballast", *words, "--config", str(config)]
        job = submit(cluster, command, ROOT, environment={"BALLAST_HOME": str(home), "COLUMNS": "200"})
        ended = wait(cluster, job, timeout_s=250)
        log = cluster.get_job_logs(job)
        assert ended.status == JobStatus.SUCCEEDED, log
        return log

    done("tune", "--trials", "2", "--name", "small")
    assert (home / "experiments" / "small" / "best.json").exists()
    done("evaluate", "--algo", "plugin", "--folds", "5", "--seeds", "1")
    assert list((home / "reports").glob("*.html"))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_submitted_retraining_has_the_cluster_train_and_judge(
    cluster: JobSubmissionClient,  # noqa: F811
    home: Path,
    tmp_path: Path,
) -> None:
    settings = {
        "data": "synthetic:regimes?bars=6000&seed=3",
        "algo": "plugin",
        "least_trades": 100,
        "predictor": {"epochs": 0},
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps(settings))
    words = ["--now", "--config", str(config), "--judge-with", "--folds 5 --seeds 1"]
    command = [sys.executable, "-m", "ballast", "retrain", *words, "--cluster", cluster.get_address()]
    job = submit(cluster, command, ROOT, environment={"BALLAST_HOME": str(home), "COLUMNS": "200"})
    ended = wait(cluster, job, timeout_s=500)
    said = cluster.get_job_logs(job)
    assert ended.driver_exit_code == 1, said  # so little data cannot pass the gate
    assert "the gate is shut for version 1" in said
    assert [version.status for version in read_export(home)] == ["ARCHIVED"]
    begun = [str(other.entrypoint) for other in cluster.list_jobs()]
    assert all(any(word in entrypoint for entrypoint in begun) for word in ("train-candidate", "evaluate"))
