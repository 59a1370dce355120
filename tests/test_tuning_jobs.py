"""Jobs on a real cluster: a head of its own on loopback, started and ended by this module alone."""

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
from ray.job_submission import JobStatus, JobSubmissionClient

from market.errors import ConfigError
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
