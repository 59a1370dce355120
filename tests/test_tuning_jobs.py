"""Jobs on a real cluster, the main job among them: a head of its own on loopback, for this module alone."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from market.errors import ConfigError
from mlops.registry import read_export
from policies.bundle import open_bundle
from policies.hybrid import TierPolicy
from tests.test_project_tree import ROOT
from tuning.jobs import client, submit, wait

# A head in a process of its own, all of whose processes end with it; `ray stop` would end everybody's. The
# agent that starts jobs gets a port of its own: left alone it wants the same in every cluster of a machine,
# and where another has it no job ever starts. `ray start` has an option for it, `ray.init` none. Its folder
# says where it is: where a machine has several clusters, a job is sent to the one that is named there.
HEAD = """
import functools, sys, ray
from ray._private.parameter import RayParams
from ray._private.utils import write_ray_address
folder, port, agent_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
RayParams.__init__ = functools.partialmethod(RayParams.__init__, dashboard_agent_listen_port=agent_port)
head = ray.init(address="local", num_cpus=2, object_store_memory=80_000_000, include_dashboard=True,
                dashboard_host="127.0.0.1", dashboard_port=port, log_to_driver=False, _temp_dir=folder)
write_ray_address(head.address_info["address"], folder)
print("up", flush=True)
sys.stdin.read()
ray.shutdown()
"""

SMALL = {
    "data": "synthetic:regimes?bars=6000&seed=3",
    "least_trades": 100,
    "predictor": {"epochs": 0},
    "dqn": {"env_steps": 1500, "report_every": 500, "learning_starts": 200, "hidden": [8]},
}
SMALLEST = SMALL | {"data": "synthetic:regimes?bars=3000&seed=3", "least_trades": 50}


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def await_agent(cluster: JobSubmissionClient) -> None:
    """The agent that starts jobs comes up after the rest of the head; until then every job is refused."""
    deadline = time.monotonic() + 120
    while True:
        try:
            wait(cluster, cluster.submit_job(entrypoint="true"), timeout_s=120)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


@pytest.fixture(scope="module")
def cluster() -> Iterator[JobSubmissionClient]:
    ports = free_ports(3)
    surroundings = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # Jobs find `python` on the path of the head, which users start from the environment they installed into.
    surroundings["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    with tempfile.TemporaryDirectory(prefix="bl-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        head = subprocess.Popen(
            [sys.executable, "-c", HEAD, folder, *map(str, ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=surroundings,
        )
        try:
            assert head.stdout is not None
            assert head.stdout.readline() == b"up\n"
            cluster = client(f"http://127.0.0.1:{ports[0]}")
            await_agent(cluster)
            yield cluster
        finally:
            head.communicate(timeout=60)
            assert head.returncode is not None


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / ".venv").mkdir(parents=True)
    (folder / ".venv" / "large").write_text("x")
    (folder / "hello.py").write_text(
        "import os, sys\n"
        "print(sys.argv[1:], os.environ['GREETING'], sorted(os.listdir()), flush=True)\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    return folder


def test_job_runs_in_a_copy_without_the_virtual_environment(
    cluster: JobSubmissionClient, project: Path
) -> None:
    job = submit(
        cluster, ["python", "hello.py", "0", "two words"], project, environment={"GREETING": "good day"}
    )
    log: list[str] = []
    ended = wait(cluster, job, timeout_s=250, follow=log.append)
    assert ended.status == JobStatus.SUCCEEDED
    assert "['0', 'two words'] good day ['hello.py']" in "".join(log)


def test_failed_job_ends_with_its_own_exit_code(cluster: JobSubmissionClient, project: Path) -> None:
    job = submit(
        cluster, ["python", "hello.py", "3"], project, environment={"GREETING": ""}, submission_id="again"
    )
    ended = wait(cluster, job, timeout_s=250)
    assert (job, ended.status, ended.driver_exit_code) == ("again", JobStatus.FAILED, 3)
    with pytest.raises(ConfigError, match="submission_id"):
        submit(cluster, ["python", "hello.py", "0"], project, submission_id="again")


def test_job_that_outlasts_the_patience_of_its_follower_goes_on_until_stopped(
    cluster: JobSubmissionClient, project: Path
) -> None:
    (project / "sleep.py").write_text(
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    print('checkpoint', flush=True)\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    job = submit(cluster, ["python", "sleep.py"], project)
    with pytest.raises(TimeoutError, match=job):
        wait(cluster, job, timeout_s=0.1)
    log: list[str] = []

    def stop_when_ready(text: str) -> None:
        log.append(text)
        if "ready" in text:
            cluster.stop_job(job)

    ended = wait(cluster, job, timeout_s=250, follow=stop_when_ready)
    assert ended.status == JobStatus.STOPPED
    assert "checkpoint" in "".join(log)


def test_missing_working_directory_is_refused(cluster: JobSubmissionClient, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="working_dir"):
        submit(cluster, ["true"], tmp_path / "none")


def test_no_cluster_at_the_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="address"):
        client("http://127.0.0.1:9")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(SMALLEST, id="few bars"),
        pytest.param({"dqn": SMALL["dqn"]}, id="bars of the demo, compiled", marks=pytest.mark.long),
    ],
)
def test_a_submitted_training_is_found_in_the_registry_from_outside(
    cluster: JobSubmissionClient, home: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(settings))
    job = [sys.executable, "-m", "ballast", "train", "--mode", "rl_sizer", "--config", str(config)]
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    # A job runs in a copy of the checkout: to compile for that alone takes longer than few bars do without.
    interpreted = str(int(settings is SMALLEST))
    variables = json.dumps({"env_vars": {"BALLAST_HOME": str(home), "NUMBA_DISABLE_JIT": interpreted}})
    words = [*ray, "job", "submit", "--address", cluster.get_address(), "--runtime-env-json", variables]
    hidden = ("RAY_ADDRESS", "BALLAST_HOME")
    done = subprocess.run(
        [*words, "--working-dir", ".", "--", *job],
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
    assert bundle.meta.training["config"]["dqn"]["env_steps"] == 1500


def run_as_a_job(
    cluster: JobSubmissionClient, home: Path, config: Path, *words: str, patience: float
) -> tuple[JobDetails, str]:
    """What became of a submitted `ballast WORDS` with that configuration, and its log."""
    command = [sys.executable, "-m", "ballast", *words, "--config", str(config)]
    job = submit(cluster, command, ROOT, environment={"BALLAST_HOME": str(home), "COLUMNS": "200"})
    ended = wait(cluster, job, timeout_s=patience)
    return ended, cluster.get_job_logs(job)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_search_and_an_evaluation_are_submitted_like_a_training(
    cluster: JobSubmissionClient, home: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SMALL))
    for words in (
        ("tune", "--trials", "2", "--name", "small"),
        ("evaluate", "--algo", "plugin", "--folds", "5", "--seeds", "1"),
    ):
        ended, log = run_as_a_job(cluster, home, config, *words, patience=250)
        assert ended.status == JobStatus.SUCCEEDED, log
    assert (home / "experiments" / "small" / "best.json").exists()
    assert list((home / "reports").glob("*.html"))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_submitted_retraining_has_the_cluster_train_and_judge(
    cluster: JobSubmissionClient, home: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SMALL | {"algo": "plugin"}))
    words = ["retrain", "--now", "--judge-with", "--folds 5 --seeds 1", "--cluster", cluster.get_address()]
    ended, said = run_as_a_job(cluster, home, config, *words, patience=500)
    assert ended.driver_exit_code == 1, said  # so little data cannot pass the gate
    assert "the gate is shut for version 1" in said
    assert [version.status for version in read_export(home)] == ["ARCHIVED"]
    begun = [str(other.entrypoint) for other in cluster.list_jobs()]
    assert all(any(word in entrypoint for entrypoint in begun) for word in ("train-candidate", "evaluate"))
