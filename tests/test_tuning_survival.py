"""Whatever is killed with -9 in training or in a search: it goes on or is resumed, and nothing stays."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray._private.utils
from optuna.trial import TrialState
from ray.cluster_utils import Cluster
from ray.job_submission import JobStatus, JobSubmissionClient

from market.errors import ConfigError
from mlops.registry import read_export
from tests.test_project_tree import ROOT
from tests.test_tuning_jobs import cluster as job_cluster  # noqa: F401 (a fixture)
from tests.test_tuning_tune import processes_with
from tuning import samplers
from tuning.experiment import Experiment
from tuning.jobs import submit, wait
from tuning.samplers import Samplers

SECONDS = 240  # for an event on a crowded machine
PLACE: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

# A training on the oracle market, without the stages before it: each line of its output is a number of steps.
ORACLE = """
import sys
from pathlib import Path
from envs import oracle_market
from tuning.config import parse
from tuning.sizer import train_sizer

algo, steps, folder = sys.argv[1:]
table = oracle_market.market("L1", 2_000, edge=1.0, seed=1)
limits, session = oracle_market.limits("L1"), oracle_market.session("L1")
sizes = {"train_batch_size": 320, "minibatch_size": 64} if algo == "ppo" else {"learning_starts": 200}
asked = {"env_runners": 2, "env_steps": int(steps), "environments": 8, "report_every": 640, **sizes}
config = parse({"algo": algo, "limits": limits.model_dump(), "session": session.model_dump(), algo: asked})
train_sizer(table, None, config, Path(folder), lambda done, total, score: print(done, flush=True))
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a driver that makes a cluster of its own, unless `more` names one."""
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return inherited | {"BALLAST_HOME": str(home), "COLUMNS": "200"} | more


def until(condition: Callable[[], Any], driver: subprocess.Popen[str] | None = None) -> Any:
    """Wait for what holds as a truth, as long as the driver runs, and return it."""
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert driver is None or driver.poll() is None, driver.stderr and driver.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def samplers_of(home: Path) -> list[int]:
    """Processes that sample for the driver of that home."""
    found = []
    for pid in processes_with(home):
        try:
            if b"ArrayEnvRunner" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:  # gone meanwhile
            continue
    return found


@contextmanager
def training(algo: str, steps: int, home: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The driver of a training with two remote samplers; killed at the end, if it still runs."""
    program = [sys.executable, "-c", ORACLE, algo, str(steps), str(home / "work")]
    driver = subprocess.Popen(program, env=environment(home, **more), **PLACE)
    try:
        yield driver
    finally:
        driver.kill()
        driver.communicate()


def read_to(steps: int, driver: subprocess.Popen[str]) -> int:
    """Read what the driver says until it has come to so many steps."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.strip().isdecimal() and int(line) >= steps:  # Ray speaks there too
            return int(line)
    raise AssertionError(driver.stderr and driver.stderr.read())


def curve(home: Path) -> list[int]:
    """The steps of a finished training's curve, which must be in order and without repeats."""
    steps = [json.loads(line)["steps"] for line in (home / "work" / "curve.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    return steps


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("algo", ["dqn", "ppo"])
def test_training_goes_on_when_one_sampler_and_then_all_are_killed(algo: str, tmp_path: Path) -> None:
    with training(algo, 8_000, tmp_path) as driver:
        read_to(640, driver)
        first = samplers_of(tmp_path)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        reached = read_to(2_500, driver)
        for pid in samplers_of(tmp_path):
            os.kill(pid, signal.SIGKILL)
        read_to(reached + 640, driver)
        assert not set(first) & set(samplers_of(tmp_path))
        _, complaints = driver.communicate(timeout=SECONDS)
        assert driver.returncode == 0, complaints
    assert curve(tmp_path)[-1] >= 8_000
    (saved,) = (tmp_path / "work").glob("steps-*")
    state = json.loads((saved / "state.json").read_text())
    assert state["steps"] == curve(tmp_path)[-1]
    if algo == "dqn":
        assert state["replay"]["added"] == state["steps"]  # what was lost is not counted as sampled
    until(lambda: not processes_with(tmp_path))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without processors, and whatever nodes are added."""
    monkeypatch.setenv("BALLAST_HOME", str(tmp_path))
    monkeypatch.setattr(ray._private.utils, "write_ray_address", lambda *rest, **more: None)  # nobody else's
    head = {"num_cpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def kill_node(node: Any) -> None:
    """The node's own daemon, with -9; its workers end with it."""
    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_training_goes_on_when_a_node_with_its_samplers_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """First with the samplers that are left, then, when those have gone as well, with those of a new node."""
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
    with training("dqn", 8_000, tmp_path, RAY_ADDRESS=cluster.address) as driver:
        read_to(640, driver)
        kill_node(nodes[0])
        reached = read_to(2_500, driver)
        kill_node(nodes[1])
        cluster.add_node(num_cpus=2, object_store_memory=80_000_000)
        read_to(reached + 640, driver)
        _, complaints = driver.communicate(timeout=SECONDS)
        assert driver.returncode == 0, complaints
    assert curve(tmp_path)[-1] >= 8_000


class Group:
    """What RLlib's group of samplers tells of itself."""

    def __init__(self, remote: int, alive: int) -> None:
        self.remote, self.alive, self.asked = remote, alive, 0

    def num_remote_workers(self) -> int:
        return self.remote

    def num_healthy_remote_workers(self) -> int:
        return self.alive

    def probe_unhealthy_env_runners(self) -> list[int]:
        self.asked += 1
        return []


def looking_after(monkeypatch: pytest.MonkeyPatch, **changed: float) -> Samplers:
    for name, value in changed.items():
        monkeypatch.setattr(samplers, name, value)
    algorithm = Samplers.__new__(Samplers)
    algorithm.config = type("Online", (), {"is_online": True})()
    return algorithm


def test_a_dead_sampler_is_asked_after_now_and_then_while_others_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    algorithm, group = looking_after(monkeypatch), Group(2, 1)
    for _ in range(50):
        assert algorithm.restore_env_runners(group) == []
    assert group.asked == 1


def test_without_any_sampler_training_gives_up_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = looking_after(monkeypatch, PATIENCE=0.05, ANSWER_WITHIN=0.01)
    algorithm.restore_env_runners(Group(2, 0))
    algorithm.restore_env_runners(Group(2, 1))  # one was back meanwhile: patience starts anew
    time.sleep(0.06)
    algorithm.restore_env_runners(Group(2, 0))
    time.sleep(0.06)
    with pytest.raises(ConfigError, match=r"env_runners: got '2 lost'.*--resume"):
        algorithm.restore_env_runners(Group(2, 0))
    for _ in range(3):
        algorithm.restore_env_runners(Group(0, 0))  # a training that samples in its own process
        time.sleep(0.03)


TRAIN = [sys.executable, "-m", "ballast", "train", "--mode", "rl_sizer", "--config"]


def small(folder: Path, **changed: Any) -> list[str]:
    """The command of a small training with everything before it; `changed` are keys of its DQN."""
    path = folder / "config.yaml"
    dqn = {"env_steps": 6_000, "environments": 16, "report_every": 500, "checkpoint_every": 1_000}
    dqn |= {"learning_starts": 200, "hidden": [8], **changed}
    settings = {"data": "synthetic:regimes?bars=6000&seed=3", "least_trades": 100, "dqn": dqn}
    path.write_text(json.dumps(settings))
    return [*TRAIN, str(path)]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_command_leaves_no_process_and_is_resumed_from_its_checkpoint(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = small(tmp_path)
    driver = subprocess.Popen(command, env=environment(home), **PLACE)
    until(lambda: list(home.glob("runs/*/sizer.work/steps-*")), driver)
    assert len(processes_with(home)) > 1  # Ray's own
    driver.kill()
    driver.communicate()
    until(lambda: not processes_with(home))
    (run,) = (home / "runs").iterdir()
    (saved,) = (run / "sizer.work").glob("steps-*")
    kept = json.loads((saved / "state.json").read_text())["curve"]
    (run / "sizer.work" / ".draft-killed").mkdir()  # as a kill in the middle of a checkpoint leaves it
    (run / ".sizer-killed").mkdir()  # and of a stage

    resumed = subprocess.run([*command, "--resume"], env=environment(home), **PLACE)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert resumed.stdout.count("from the resumed run") == 4
    facts = json.loads((run / "sizer" / "facts.json").read_text())
    assert facts["curve"][: len(kept)] == kept
    steps = [step for step, _ in facts["curve"]]
    assert steps == sorted(set(steps))
    assert 6_000 <= steps[-1] < 6_500
    assert [path.name for path in run.iterdir() if path.name.startswith(".") or "work" in path.name] == []
    (version,) = read_export(home)
    again = subprocess.run([*command, "--resume"], env=environment(home), **PLACE)
    assert again.returncode == 0, again.stderr
    assert [one.digest for one in read_export(home)] == [version.digest]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_stopped_job_writes_a_checkpoint_that_another_job_goes_on_from(
    job_cluster: JobSubmissionClient,  # noqa: F811
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    # No checkpoint on its own: the one that is there was written because of the stop.
    command = small(tmp_path, checkpoint_every=10**6)
    variables = {"BALLAST_HOME": str(home)}
    job = submit(job_cluster, command, ROOT, environment=variables)

    def scored() -> bool:
        assert not job_cluster.get_job_status(job).is_terminal(), job_cluster.get_job_logs(job)
        return any(path.read_text() for path in home.glob("runs/*/sizer.work/curve.jsonl"))

    until(scored)
    job_cluster.stop_job(job)
    ended = wait(job_cluster, job, timeout_s=SECONDS)
    assert ended.status == JobStatus.STOPPED, job_cluster.get_job_logs(job)
    (saved,) = home.glob("runs/*/sizer.work/steps-*")
    kept = json.loads((saved / "state.json").read_text())["curve"]
    assert kept
    assert kept[-1][0] < 6_000
    assert not read_export(home)

    resumed = submit(job_cluster, [*command, "--resume"], ROOT, environment=variables)
    ended = wait(job_cluster, resumed, timeout_s=SECONDS)
    assert ended.status == JobStatus.SUCCEEDED, job_cluster.get_job_logs(resumed)
    (path,) = home.glob("runs/*/sizer/facts.json")
    facts = json.loads(path.read_text())
    assert facts["curve"][: len(kept)] == kept
    assert facts["curve"][-1][0] >= 6_000
    assert len(read_export(home)) == 1


# A search on small tables, without the stages before it, that stops no trial early.
SEARCH = """
import sys
from pathlib import Path
from tests.test_tuning_tune import Recorder, Tables, plan
from tuning import tune
from tuning.experiment import Experiment

home, trials, seeds, steps = Path(sys.argv[1]), *map(int, sys.argv[2:])
tune._prepare, tune.GRACE = lambda *rest: Tables(), seeds
experiment = Experiment.start(home, "small", plan(trials, seeds, env_steps=steps))
tune.search(experiment, home, Recorder(), resume=False)
"""
STEPS = 4_000  # of each seed in a search


@contextmanager
def searching(home: Path, trials: int, seeds: int, **more: str) -> Iterator[subprocess.Popen[str]]:
    """The driver of a search; killed at the end, if it still runs."""
    program = [sys.executable, "-c", SEARCH, str(home), str(trials), str(seeds), str(STEPS)]
    driver = subprocess.Popen(program, env=environment(home, **more), **PLACE)
    try:
        yield driver
    finally:
        driver.kill()
        driver.communicate()


def trainers_of(home: Path) -> dict[str, int]:
    """Of each trial the process that trains it for the driver of that home: Tune gives it a folder."""
    found = {}
    for pid in processes_with(home):
        try:
            folder = Path(f"/proc/{pid}/cwd").readlink()
        except OSError:  # gone meanwhile
            continue
        if folder.parent.name == "working_dirs":
            found[folder.name] = pid
    return found


def told(home: Path) -> dict[str, list[int]]:
    """Of each trial the steps of every row it ever wrote but the last, also of those it has lost since."""
    folder = home / "experiments" / "small" / "history"
    lines = {path.stem: path.read_text().splitlines() for path in folder.glob("*.jsonl")}
    return {name: [json.loads(line)["env_steps"] for line in found[:-1]] for name, found in lines.items()}


def in_training(home: Path, trials: int) -> bool:
    """Whether so many trials are behind a checkpoint that Tune has taken."""
    return sum(bool(steps) and steps[-1] >= 800 for steps in told(home).values()) == trials


def check_search(home: Path, trials: int, seeds: int) -> None:
    """What a search that was struck has come to: everything counted once, nothing begun anew."""
    experiment = Experiment(home / "experiments" / "small")
    done = experiment.trials()
    assert [(trial.finished, trial.error) for trial in done] == [(True, None)] * trials
    study = experiment.study().trials
    assert [one.state for one in study] == [TrialState.COMPLETE] * trials
    objectives = {trial.name: trial.objective for trial in done}
    assert {one.user_attrs["trial"]: one.value for one in study} == objectives
    for trial in done:
        steps = [row["env_steps"] for row in trial.rows]
        assert steps == sorted(set(steps))
        assert steps[-1] == seeds * STEPS
        assert told(home)[trial.name].count(steps[0]) == 1
        first = [row["objective"] for row in trial.rows if not row["seeds_done"]]
        assert first == sorted(first)
    with np.load(experiment.folder / "utilities.npz") as file:
        assert file["tried"] == trials
        assert list(file["trial"]) == [trial.name for trial in done]
        assert file["finished"].all()
        assert np.isfinite(file["by_seed"]).all()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_search_goes_on_when_a_trial_and_then_all_are_killed(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    with searching(tmp_path, 2, 2, TMPDIR=str(tmp_path / "tmp")) as driver:
        until(lambda: in_training(tmp_path, 2), driver)
        (struck, pid), (_, other) = trainers_of(tmp_path).items()
        before = len(told(tmp_path)[struck])
        os.kill(other, signal.SIGSTOP)  # or it would be at its end before the struck one is back
        os.kill(pid, signal.SIGKILL)
        until(lambda: len(told(tmp_path)[struck]) > before + 4, driver)
        again = trainers_of(tmp_path)
        assert again[struck] != pid
        for pid in again.values():
            os.kill(pid, signal.SIGKILL)
        _, complaints = driver.communicate(timeout=SECONDS)
        assert driver.returncode == 0, complaints
    check_search(tmp_path, 2, 2)
    until(lambda: not processes_with(tmp_path))
    left = list((tmp_path / "tmp").rglob("state.json"))
    assert left == []  # no checkpoint outside Ray's session


@pytest.mark.long
@pytest.mark.timeout(600)
def test_search_goes_on_when_a_node_with_its_trials_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """The trials wait for another node, and go on there from their checkpoints."""
    room: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80_000_000, "memory": 4_000_000_000}
    node = cluster.add_node(**room)
    with searching(tmp_path, 2, 1, RAY_ADDRESS=cluster.address) as driver:
        until(lambda: in_training(tmp_path, 2), driver)
        first = trainers_of(tmp_path)
        kill_node(node)
        until(lambda: not set(first.values()) & set(trainers_of(tmp_path).values()), driver)
        assert not any(trial.finished for trial in Experiment(tmp_path / "experiments" / "small").trials())
        cluster.add_node(**room)
        _, complaints = driver.communicate(timeout=SECONDS)
        assert driver.returncode == 0, complaints
    check_search(tmp_path, 2, 1)
