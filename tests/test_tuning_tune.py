"""Searches on a small stream: scored on the select part alone, kept, survived, and refused where too wide."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from envs.signal_table import SignalTable
from evaluation.backtest import run
from market.errors import ConfigError
from policies.baselines import FixedSize, PlugIn
from policies.hybrid import TierPolicy
from tests.synthetic_signals import table
from tests.test_project_tree import ROOT
from tuning import tune
from tuning.config import TrainConfig, parse
from tuning.experiment import PERTURBATIONS, Experiment, Plan, Trial, plan_of, standing
from tuning.scoring import greedy_score
from tuning.search import read_space
from tuning.sizer import train_sizer

TRAIN, SELECT = table(1_500, seed=1), table(300, seed=2)
TINY = {
    "env_steps": 1_200,
    "environments": 16,
    "learning_starts": 200,
    "report_every": 200,
    "checkpoint_every": 400,
}
SPACE = {
    "dqn.learning_rate": {"kind": "loguniform", "low": 1e-4, "high": 1e-2},
    "dqn.hidden": {"kind": "choice", "values": [[8], [16, 8]]},
}


HOLDER = """
import sys
from pathlib import Path
from tuning.experiment import Experiment

with Experiment(Path(sys.argv[1])).alone():
    print("held", flush=True)
    sys.stdin.read()
"""


class Untouchable:
    """A table that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"somebody asked the test part for {name}")


class Tables:
    """What `Training.prepare` would return."""

    train: SignalTable = TRAIN
    select: SignalTable = SELECT
    test = Untouchable()


class Recorder:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.ended: list[Trial] = []
        self.counts: list[tuple[int, int, int, float | None]] = []

    def working(self, stage: str, done: int, total: int) -> None:
        pass

    def stage(self, name: str, note: str, *, resumed: bool) -> None:
        pass

    def warning(self, text: str) -> None:
        pass

    def progress(self, done: int, total: int, score: float) -> None:
        raise AssertionError("trials report through Tune")

    def searching(self, done: int, total: int, running: int, best: float | None) -> None:
        self.counts.append((done, total, running, best))

    def trial(self, trial: Trial) -> None:
        self.ended.append(trial)


def plan(trials: int, seeds: int | None = None, scheduler: str = "asha", **dqn: object) -> Plan:
    config = parse({"dqn": {**TINY, **dqn}})
    return plan_of(config, read_space(SPACE, config), trials=trials, seeds=seeds, scheduler=scheduler)


def searched(home: Path, asked: Plan) -> tuple[tune.Outcome, Recorder]:
    """Search on the small tables, without bars."""
    told = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "_prepare", lambda *rest: Tables())
        return tune.search(Experiment.start(home, "small", asked), home, told, resume=False), told


@pytest.fixture(scope="module")
def finished(
    ray_cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tune.Outcome, Recorder, Path]:
    home = tmp_path_factory.mktemp("home")
    return *searched(home, plan(4, 2)), home


def test_every_trial_is_told_counted_and_in_the_study(
    finished: tuple[tune.Outcome, Recorder, Path],
) -> None:
    outcome, told, _ = finished
    names = {trial.name for trial in outcome.trials}
    assert len(names) == 4
    assert {trial.name for trial in told.ended} == names
    assert told.counts[-1][:3] == (4, 4, 0)
    study = outcome.experiment.study()
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 4
    assert sorted(trial.value or 0.0 for trial in study.trials) == pytest.approx(
        sorted(trial.objective or 0.0 for trial in outcome.trials)
    )


def test_finished_trial_reports_the_median_and_the_worst_of_its_seeds(
    finished: tuple[tune.Outcome, Recorder, Path],
) -> None:
    outcome, _, _ = finished
    whole = [trial for trial in outcome.trials if trial.finished]
    assert whole
    for trial in whole:
        found = [outcome.experiment.found(trial.name, number) for number in range(2)]
        scores = [one.score for one in found if one is not None and one.finished]
        assert len(scores) == 2
        assert trial.rows[-1]["objective"] == pytest.approx(np.median(scores))
        assert trial.rows[-1]["worst"] == min(scores)
        assert {row["seed"] for row in trial.rows} == {0, 1}
        steps = [row["env_steps"] for row in trial.rows]
        assert steps == sorted(set(steps))
        assert steps[-1] == 2 * TINY["env_steps"]


def test_objective_never_falls_while_a_seed_is_trained(
    finished: tuple[tune.Outcome, Recorder, Path],
) -> None:
    for trial in finished[0].trials:
        for done in (0, 1):
            told = [row["objective"] for row in trial.rows if row["seeds_done"] == done]
            assert told == sorted(told)


def test_shares_of_the_six_tiers_are_reported_with_every_score(
    finished: tuple[tune.Outcome, Recorder, Path],
) -> None:
    rows = [row for trial in finished[0].trials for row in trial.rows]
    assert all(sum(row["tiers"].values()) == pytest.approx(1.0) for row in rows)
    assert {tuple(row["tiers"]) for row in rows} == {
        ("SKIP", "MICRO", "SMALL", "STANDARD", "MODERATE", "AGGRESSIVE")
    }


def test_trials_are_scored_on_the_select_part_alone(
    finished: tuple[tune.Outcome, Recorder, Path],
) -> None:
    outcome, _, _ = finished  # the test part raises where anybody looks at it
    config = outcome.experiment.plan.config
    for trial in outcome.trials:
        found = outcome.experiment.found(trial.name, 0)
        assert found is not None
        assert found.score == greedy_score(found.network, SELECT, config.limits, config.session)
        assert found.score != greedy_score(found.network, TRAIN, config.limits, config.session)


def test_best_configuration_trains_the_same_network_as_the_trial_did(
    finished: tuple[tune.Outcome, Recorder, Path], tmp_path: Path
) -> None:
    outcome, _, _ = finished
    assert outcome.best is not None
    assert outcome.config is not None
    assert outcome.best.objective == max(t.objective or 0.0 for t in outcome.trials if t.finished)
    config = parse(outcome.config)
    network, _ = train_sizer(TRAIN, SELECT, config, tmp_path, lambda *news: None)
    found = outcome.experiment.found(outcome.best.name, 0)
    assert found is not None
    for name, weights in network.to_arrays().items():
        np.testing.assert_array_equal(weights, found.network.to_arrays()[name])


def test_utilities_file_holds_what_every_network_made_of_the_select_part(
    finished: tuple[tune.Outcome, Recorder, Path],
) -> None:
    outcome, _, _ = finished
    config = outcome.experiment.plan.config
    with np.load(outcome.experiment.folder / "utilities.npz", allow_pickle=False) as file:
        kept = dict(file)

    def realised(policy: Any) -> Any:
        return run(policy, SELECT, config.limits, config.session.days).utility

    np.testing.assert_array_equal(kept["time"], SELECT.time)
    np.testing.assert_array_equal(kept["rule"], realised(FixedSize(1.0, "rule 1x")))
    np.testing.assert_array_equal(kept["plug_in"], realised(PlugIn()))
    assert (outcome.rule, outcome.plug_in) == (kept["rule"].mean(), kept["plug_in"].mean())
    assert kept["tried"] == 4
    assert kept["utility"].shape == (len(SELECT), 4)
    assert kept["by_seed"].shape == (len(SELECT), 4, 2)
    np.testing.assert_array_equal(kept["seeds"], [[0, 1]] * 4)
    for column, trial in enumerate(outcome.trials):
        assert kept["trial"][column] == trial.name
        assert json.loads(kept["sample"][column]) == trial.sample
        assert TrainConfig.model_validate_json(kept["config"][column]).dqn.env_steps == TINY["env_steps"]
        assert kept["finished"][column] == trial.finished
        for number in range(2):
            found = outcome.experiment.found(trial.name, number)
            if found is None:
                assert np.isnan(kept["by_seed"][:, column, number]).all()
            else:
                own = realised(TierPolicy(found.network))
                np.testing.assert_array_equal(kept["by_seed"][:, column, number], own)
        np.testing.assert_allclose(kept["utility"][:, column], np.nanmean(kept["by_seed"][:, column], axis=1))


def test_tensorboard_finds_every_trial(finished: tuple[tune.Outcome, Recorder, Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    outcome, _, _ = finished
    for trial in outcome.trials:
        events = EventAccumulator(str(outcome.experiment.board / trial.name)).Reload()
        objective = [scalar.value for scalar in events.Scalars("ray/tune/objective")]
        assert objective == pytest.approx([row["objective"] for row in trial.rows], rel=1e-6)
        assert "ray/tune/tiers/SKIP" in events.Tags()["scalars"]


def test_finished_search_resumed_says_the_same_again(
    finished: tuple[tune.Outcome, Recorder, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, _, home = finished
    monkeypatch.setattr(tune, "_prepare", lambda *rest: Tables())
    again = tune.search(Experiment.open(home, None), home, Recorder(), resume=True)
    assert (again.best, again.trials) == (outcome.best, outcome.trials)
    assert len(outcome.experiment.study().trials) == 4


def test_name_that_is_taken_and_one_that_is_none_are_refused(
    finished: tuple[tune.Outcome, Recorder, Path],
) -> None:
    _, _, home = finished
    with pytest.raises(ConfigError, match="there is one already"):
        Experiment.start(home, "small", plan(1))
    with pytest.raises(ConfigError, match="small"):
        Experiment.open(home, "large")
    for name in ("../up", "", "a b", ".hidden"):
        with pytest.raises(ConfigError, match="--name"):
            Experiment.start(home, name, plan(1))
    assert [path.name for path in (home / "experiments").iterdir()] == ["small"]


def test_search_that_runs_elsewhere_is_refused(
    finished: tuple[tune.Outcome, Recorder, Path],
) -> None:
    outcome, _, home = finished
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(outcome.experiment.folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="it is running"):
            tune.search(outcome.experiment, home, Recorder(), resume=True)
    finally:
        holder.communicate(timeout=60)


@pytest.mark.parametrize(
    ("dqn", "needs"), [({"env_runners": 8}, "needs 9"), ({"replay_capacity": 10_000_000}, "GB")]
)
def test_trial_wider_than_the_resources_is_refused(
    ray_cluster: str, tmp_path: Path, dqn: dict[str, object], needs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "replay_capacity" in dqn:
        monkeypatch.setattr(tune, "TRANSITION_BYTES", 10**6)
    with pytest.raises(ConfigError, match=needs) as refused:
        searched(tmp_path, plan(1, 1, **dqn))
    assert "2 processors" in str(refused.value)
    assert not (tmp_path / "experiments" / "small" / "trials").exists()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"trials": 0}, "--trials"),
        ({"seeds": 0}, "--seeds"),
        ({"scheduler": "random"}, "--scheduler"),
        ({"scheduler": "pbt", "seeds": 2}, "--seeds"),
        ({"scheduler": "pbt", "trials": 1}, "--trials"),
    ],
)
def test_plan_that_cannot_be_is_refused(given: dict[str, Any], field: str) -> None:
    config = parse()
    asked = {"trials": None, "seeds": None, "scheduler": None, **given}
    with pytest.raises(ConfigError) as refused:
        plan_of(config, read_space(None, config), **asked)
    assert refused.value.field == field


@pytest.mark.long
def test_failed_trials_are_told_with_their_reason(
    ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tables, "train", replace(TRAIN, reward=TRAIN.reward[:, :2]))
    outcome, told = searched(tmp_path, plan(1, 1))
    assert (outcome.best, outcome.config) == (None, None)
    (trial,) = told.ended
    assert trial.error is not None
    assert "IndexError" in trial.standing
    assert [one.state for one in outcome.experiment.study().trials] == [TrialState.FAIL]
    assert not (outcome.experiment.folder / "best.json").exists()


def test_trial_whose_process_died_too_often_is_told_as_failed_even_if_it_never_began(tmp_path: Path) -> None:
    experiment, told = Experiment.start(tmp_path, "x", plan(2)), Recorder()
    tune._Telling.begin(told, 2, experiment)
    experiment.begin("spoke", {"dqn.hidden": "[8]"})
    experiment.fail("spoke", "IndexError: 7")
    for name in ("silent", "spoke"):
        trial = SimpleNamespace(
            trial_id=name, num_failures=4, config={"dqn.hidden": "[8]"}, status="RUNNING", is_finished=bool
        )
        tune._Telling().on_trial_error(1, [trial], trial)
    silent, spoke = told.ended
    assert silent.standing.startswith("failed: its process died (failure 4)")
    assert spoke.standing == "failed: IndexError: 7"
    assert told.counts[-1][:3] == (1, 2, 0)


@pytest.mark.long
def test_population_based_training_hands_a_checkpoint_on_at_every_perturbation(
    ray_cluster: str, tmp_path: Path
) -> None:
    idle, able = 1e-12, 3e-3
    config = parse({"dqn": {**TINY, "final_learning_rate": idle}})
    rates = {
        "dqn.learning_rate": {"kind": "choice", "values": [idle, able]},
        "dqn.hidden": SPACE["dqn.hidden"],
    }
    asked = plan_of(config, read_space(rates, config), trials=3, seeds=None, scheduler="pbt")
    outcome, told = searched(tmp_path, asked)  # three trials on two processors
    assert [(trial.finished, trial.error) for trial in outcome.trials] == [(True, None)] * 3
    assert {trial.name for trial in told.ended} == {trial.name for trial in outcome.trials}
    board = outcome.experiment.board
    handed = [json.loads(line) for line in (board / "pbt_global.txt").read_text().splitlines()]
    assert len(handed) == PERTURBATIONS  # each time the last of three
    assert handed[0][0].endswith("=0.0000")
    assert handed[0][4] == {"dqn.learning_rate": able}  # the first to give way is one that cannot learn
    assert all(trial.rows[-1]["objective"] > trial.rows[0]["objective"] for trial in outcome.trials)
    assert all(
        [row["env_steps"] for row in trial.rows] == sorted({row["env_steps"] for row in trial.rows})
        and trial.rows[-1]["env_steps"] == TINY["env_steps"]
        and {row["generation"] for row in trial.rows} == set(range(1, PERTURBATIONS + 1))
        for trial in outcome.trials
    )
    taken = [trial for trial in outcome.trials if trial.origin is not None]
    assert taken
    for trial in taken:
        assert set(trial.sample) == {"dqn.learning_rate"}  # layers cannot change on the way
        assert f"its work from {trial.origin}" in trial.standing
        own = (board / f"pbt_policy_{trial.name}.txt").read_text().splitlines()
        assert trial.sample == json.loads(own[-1])[-1]  # what it ended with
        first = next(row for row in trial.rows if "origin" in row)
        source = outcome.experiment.trial(first["origin"])
        handed_on = [row["objective"] for row in source.rows if row["env_steps"] < first["env_steps"]]
        assert first["objective"] >= handed_on[-1]  # the best network comes with the work


def test_trial_whose_process_died_is_named_with_the_reason(tmp_path: Path) -> None:
    experiment, told = Experiment.start(tmp_path, "x", plan(3)), Recorder()
    experiment.begin("ended", {})
    experiment.record("ended", {"env_steps": 9, "objective": 0.1, "worst": 0.1, "seeds_done": 2})
    experiment.begin("lost", {})
    results: Any = [
        SimpleNamespace(path="trials/ended", config={}, error=None),
        SimpleNamespace(path="trials/lost", config={}, error=RuntimeError("the process died")),
        SimpleNamespace(
            path="trials/never", config={"dqn.learning_rate": 0.1}, error="Failure # 1\nno room\n"
        ),
    ]
    tune._name_losses(experiment, results, told)
    named = [(trial.name, trial.error) for trial in told.ended]
    assert named == [("lost", "RuntimeError: the process died"), ("never", "no room")]
    assert experiment.trial("never").sample == {"dqn.learning_rate": 0.1}
    assert experiment.trial("ended").error is None


def test_standing_is_the_median_of_the_finished_seeds_or_the_running_first_one() -> None:
    assert standing([], 0.3) == (0.3, 0.3)
    assert standing([0.1], 0.9) == (0.1, 0.1)
    assert standing([0.1, 0.3, 0.2], None) == (0.2, 0.1)


def test_history_of_a_resumed_trial_forgets_what_was_lost(tmp_path: Path) -> None:
    experiment = Experiment.start(tmp_path, "x", plan(1))
    experiment.begin("t", {"dqn.learning_rate": 0.1, "dqn.hidden": "[8]"})
    for steps in (200, 400, 600, 400, 600):
        experiment.record("t", {"env_steps": steps, "objective": steps / 1e3, "worst": 0.0, "seeds_done": 0})
    with (experiment.folder / "history" / "t.jsonl").open("a") as file:
        file.write('{"env_steps": 8')
    (trial,) = experiment.trials()
    assert [row["env_steps"] for row in trial.rows] == [200, 400, 600]
    assert not trial.finished


def test_trial_the_study_knows_as_ended_may_report_again(tmp_path: Path) -> None:
    experiment = Experiment.start(tmp_path, "x", plan(1))
    search = tune._study_search(experiment, experiment.plan)
    search.suggest("t")
    experiment.study().tell(0, 1.0)
    search.on_trial_result("t", {"objective": 0.5, "training_iteration": 1})
    search.on_trial_complete("t", {"objective": 0.5, "training_iteration": 1})
    assert [trial.value for trial in experiment.study().trials] == [1.0]


def test_sampler_that_has_lost_its_memory_finds_its_trials_in_the_study(tmp_path: Path) -> None:
    experiment = Experiment.start(tmp_path, "x", plan(2))
    sample = tune._study_search(experiment, experiment.plan).suggest("t")
    assert set(sample) == set(SPACE)
    again = tune._study_search(experiment, experiment.plan)
    again.on_trial_result("t", {"objective": 0.5, "training_iteration": 1})
    again.on_trial_complete("t", {"objective": 0.75, "training_iteration": 2})
    assert [trial.value for trial in experiment.study().trials] == [0.75]
    assert set(again.suggest("u")) == set(SPACE)
    assert again.suggest("v") is None  # two were planned, and one of them is not over
    again.on_trial_complete("u", {"objective": 0.5, "training_iteration": 1})
    assert again.suggest("v") == "FINISHED"


def test_orphan_of_a_killed_search_is_marked_as_failed_and_another_takes_its_place(tmp_path: Path) -> None:
    experiment = Experiment.start(tmp_path, "x", plan(2))
    search = tune._study_search(experiment, experiment.plan)
    search.suggest("lives")
    search.suggest("lost")
    assert experiment.fail_orphans({"lives"}) == 1
    assert [trial.state for trial in experiment.study().trials] == [TrialState.RUNNING, TrialState.FAIL]
    assert set(search.suggest("in its place")) == set(SPACE)
    assert search.suggest("one too many") is None
    search.on_trial_complete("in its place", error=True)
    assert search.suggest("what failed by itself is not tried again with other settings") is None
    assert experiment.fail_orphans() == 1
    assert experiment.fail_orphans() == 0


def processes_with(home: Path) -> list[int]:
    """Processes, whoever started them, whose environment names this BALLAST_HOME."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"BALLAST_HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # gone, or somebody else's
            continue
    return found


def until(condition: Callable[[], bool], driver: subprocess.Popen[str] | None = None) -> None:
    """Wait for it, as long as the driver runs."""
    deadline = time.monotonic() + 240
    while not condition():
        assert driver is None or driver.poll() is None, driver.stderr and driver.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.long
@pytest.mark.timeout(900)  # four whole commands: minutes where the machine is busy
def test_search_stopped_and_then_killed_is_resumed_to_its_end(tmp_path: Path) -> None:
    """The whole command, in processes and clusters of its own."""
    home, config, space = tmp_path / "home", tmp_path / "config.json", tmp_path / "space.json"
    longer = TINY | {"env_steps": 2_400}
    config.write_text(json.dumps({"dqn": longer, "data": "synthetic:regimes?bars=16000&seed=3"}))
    space.write_text(json.dumps(SPACE))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"BALLAST_HOME": str(home), "COLUMNS": "200"}
    command = [sys.executable, "-m", "ballast", "tune", "--name", "killed"]
    asked = ["--config", str(config), "--space", str(space), "--trials", "3", "--seeds", "1"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    place: dict[str, Any] = {"cwd": ROOT, "env": environment}
    experiment = Experiment(home / "experiments" / "killed")

    def under_way() -> bool:
        """Whether Tune has kept the search, and a trial a checkpoint."""
        board = experiment.board
        return any(board.glob("experiment_state-*")) and any(board.glob("*/checkpoint_*/*"))

    driver = subprocess.Popen([*command, *asked], **place, **pipes)
    until(under_way, driver)
    driver.send_signal(signal.SIGTERM)
    said, complaints = driver.communicate(timeout=120)
    assert driver.returncode == 128 + signal.SIGTERM, complaints
    assert "Traceback" not in complaints
    assert "--resume goes on" in said
    assert not (experiment.folder / "best.json").exists()
    before = sum(len(trial.rows) for trial in experiment.trials())

    driver = subprocess.Popen([*command, "--resume"], **place, **pipes)
    until(lambda: sum(len(trial.rows) for trial in experiment.trials()) > before, driver)
    driver.kill()
    driver.communicate(timeout=120)
    assert TrialState.RUNNING in {trial.state for trial in experiment.study().trials}
    until(lambda: not processes_with(home))

    resumed = subprocess.run([*command, "--resume"], **place, capture_output=True, text=True, timeout=280)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert resumed.stdout.count("from the resumed run") == 4
    assert f"train --config {experiment.folder / 'best.json'}" in resumed.stdout.replace("\n", "")
    states = [trial.state for trial in experiment.study().trials]
    assert TrialState.RUNNING not in states
    assert states.count(TrialState.COMPLETE) == 3
    with np.load(experiment.folder / "utilities.npz") as file:
        assert file["tried"] >= 3
    steps = [row["env_steps"] for trial in experiment.trials() for row in trial.rows]
    assert max(steps) == longer["env_steps"]
    until(lambda: not processes_with(home))

    refused = subprocess.run([*command, "--resume", "--trials", "5"], **place, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--trials" in refused.stderr
