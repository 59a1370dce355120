"""The main job as users submit it: on a running cluster, then found in the registry from outside the job."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray.job_submission import JobSubmissionClient

from mlops.registry import read_export
from policies.bundle import open_bundle
from policies.hybrid import TierPolicy
from tests.test_project_tree import ROOT
from tests.test_tuning_jobs import cluster  # noqa: F401 (a fixture)


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
