"""What a retraining starts: commands here or on a cluster, a real training, the evidence found."""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from journal.location import open_journal
from market.errors import ConfigError, InputError
from mlops.changes import appender
from mlops.evidence import Evidence, Verdict
from mlops.registry import Registry
from mlops.retraining import FOLDER, Plan, Retraining, Unfinished
from mlops.versions import ModelVersion, read_export
from tuning.attempts import Here, OnCluster, configuration, judge, launcher, train_candidate
from tuning.config import parse

CONFIG = {
    "data": "synthetic:regimes?bars=4000&seed=3",
    "algo": "plugin",
    "predictor": {"epochs": 0},
    "least_trades": 50,
    "advised_trades": 50,
}


class Recorded:
    """A runner that remembers what it was given, and does `instead`."""

    def __init__(self, instead: Any = lambda: None) -> None:
        self.given: list[tuple[list[str], str, bool]] = []
        self.instead = instead

    def __call__(self, words: list[str], name: str, *, begun: bool) -> None:
        self.given.append((list(words), name, begun))
        self.instead()


def passing(version: ModelVersion, champion: str | None = None) -> Evidence:
    return Evidence(bundle=version.digest, figures={}, verdict=Verdict(passed=True), champion=champion)


def test_a_model_is_trained_by_a_process_of_its_own_judged_and_made_live(home: Path) -> None:
    """The whole of it, but for the judge, who takes longer."""

    def judged(version: ModelVersion) -> Evidence:
        assert version.status == "TRAINING"
        return passing(version)

    launch = launcher(home, lambda: parse(CONFIG), Here())
    retraining = Retraining(Registry(home), Plan(promote=True), launch, judged, appender(home, FOLDER))
    outcome = retraining.check(asked=True)
    assert (outcome.result, outcome.version) == ("promoted", 1), outcome.detail
    (version,) = read_export(home)
    assert version.status == "PRODUCTION"
    journal = open_journal(home, "reader", os.environ)
    assert [record.payload["action"] for record in journal.read("model")] == [
        "registered",
        "staged",
        "promoted",
    ]
    started, ended = journal.read("trigger")
    assert (started.payload["event"], ended.payload["event"]) == ("started", "succeeded")
    assert ended.payload["trained"] == version.digest
    assert journal.verify() == []
    assert configuration(home, None, {"seed": 7}) == parse(CONFIG, {"seed": 7})


def test_a_second_process_for_one_attempt_waits_for_the_first(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = threading.Event()
    idle = SimpleNamespace(run=lambda mode: ran.set())
    monkeypatch.setattr("tuning.attempts.Training", lambda *arguments: idle)
    second = threading.Thread(target=train_candidate, args=(parse(CONFIG), home, "a", None))
    (home / FOLDER).mkdir()
    with FileLock(home / FOLDER / "a.lock"):
        second.start()
        assert not ran.wait(0.2)
    second.join(60)
    assert ran.is_set()


def test_an_attempt_keeps_the_configuration_it_began_with(home: Path) -> None:
    run = Recorded()
    configs = iter((parse({"seed": 1}), parse({"seed": 2})))
    launch = launcher(home, lambda: next(configs), run)
    for _ in range(2):
        with pytest.raises(InputError, match="ended without a registered version"):
            launch("a")
    path = home / FOLDER / "a.json"
    assert parse(path).seed == 1
    words = ["train-candidate", "a", str(path)]
    assert run.given == [(words, "ballast-train-a", False), (words, "ballast-train-a", True)]


def test_the_judge_takes_the_evidence_that_the_evaluation_left_and_no_older_one(home: Path) -> None:
    version = ModelVersion(3, "a" * 64, home, "TRAINING", datetime.now(UTC))
    old = Evidence(
        bundle=version.digest,
        figures={},
        verdict=Verdict(passed=True),
        created=datetime(2020, 1, 1, tzinfo=UTC),
    )
    old.save(home / "evidence" / "old.json")
    idle = Recorded()
    with pytest.raises(InputError, match="evaluate left none for version 3"):
        judge(home, ["--folds", "6"], idle)(version)
    assert idle.given[0][0] == ["evaluate", "3", "--final", "--folds", "6"]
    new = passing(version)
    assert judge(home, [], Recorded(lambda: new.save(home / "evidence" / "new.json")))(version) == new


def test_a_command_that_fails_here_is_an_error_with_its_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="registry: got 'exit code 2'"):
        Here()(["registry", "show", "1"], "x", begun=False)
    assert "refused version" in capfd.readouterr().err


def test_a_command_here_ends_with_whoever_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    class Stopped(Exception):
        pass

    class Process:
        def __init__(self, command: list[str]) -> None:
            self.signals: list[str] = []
            started.append(self)

        def wait(self, seconds: float | None = None) -> int:
            if not self.signals:
                raise Stopped
            return -15

        def poll(self) -> int | None:
            return -15 if self.signals else None

        def terminate(self) -> None:
            self.signals.append("terminate")

    monkeypatch.setattr("tuning.attempts.subprocess.Popen", Process)
    with pytest.raises(Stopped):
        Here()(["registry", "list"], "x", begun=False)
    assert started[0].signals == ["terminate"]


class Cluster:
    """What `tuning.jobs` gives and takes, without a cluster."""

    def __init__(self, status: str = "SUCCEEDED", jobs: tuple[str, ...] = ()) -> None:
        self.status, self.jobs = status, list(jobs)
        self.submitted: list[tuple[list[str], Path, dict[str, str]]] = []
        self.broken: Exception | None = None

    def client(self, address: str) -> "Cluster":
        if address == "nowhere":
            raise ConfigError("address", address, "give the URL of a running cluster's dashboard")
        return self

    def list_jobs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(submission_id=name) for name in self.jobs]

    def submit(
        self,
        cluster: "Cluster",
        words: list[str],
        folder: Path,
        *,
        environment: dict[str, str],
        submission_id: str,
    ) -> str:
        self.submitted.append((words, folder, environment))
        self.jobs.append(submission_id)
        return submission_id

    def wait(self, cluster: "Cluster", job: str, **more: Any) -> SimpleNamespace:
        if self.broken is not None:
            raise self.broken
        return SimpleNamespace(status=self.status, message="exited with 1")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    for name in ("client", "submit", "wait"):
        monkeypatch.setattr(f"tuning.jobs.{name}", getattr(cluster, name))
    return cluster


def test_a_job_is_submitted_once_and_followed_again_after_a_crash(cluster: Cluster, tmp_path: Path) -> None:
    run = OnCluster("http://head:8265", tmp_path / "home", tmp_path)
    run(["evaluate", "3"], "ballast-evaluate-3", begun=False)
    run(["evaluate", "3"], "ballast-evaluate-3", begun=True)
    (submitted,) = cluster.submitted
    assert submitted == (
        ["python", "-m", "ballast", "evaluate", "3"], tmp_path, {"BALLAST_HOME": str(tmp_path / "home")},
    )  # fmt: skip


def test_a_job_that_fails_is_an_error_and_one_lost_sight_of_is_to_be_asked_for_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    run = OnCluster("http://head:8265", tmp_path, tmp_path)
    cluster.status = "FAILED"
    with pytest.raises(InputError, match=r"job a: got 'FAILED'.*exited with 1"):
        run(["train"], "a", begun=False)
    cluster.broken = ConnectionError("connection refused")
    with pytest.raises(Unfinished, match="job a at http://head:8265: connection refused"):
        run(["train"], "a", begun=True)
    away = OnCluster("nowhere", tmp_path, tmp_path)
    with pytest.raises(Unfinished):
        away(["train"], "a", begun=True)
    with pytest.raises(ConfigError, match="running cluster"):
        away(["train"], "a", begun=False)


def test_without_any_version_there_is_no_configuration_to_take(home: Path) -> None:
    with pytest.raises(ConfigError, match="no version is registered"):
        configuration(home, None, {})
