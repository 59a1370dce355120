"""The oracle benchmark measures what it says, for any algorithm the configuration accepts."""

import json
import sys
from typing import Any

import pytest

from benchmarks import oracle as benchmark
from benchmarks.oracle import Sizes, Yardstick, main
from envs.oracle_market import Task, market
from envs.oracle_solution import oracle
from policies.baselines import FixedSize, PlugIn

KEYS = {"task", "algo", "reward", "ratio", "skill", "realised", "env_steps", "seconds", "seconds_to_095"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "QUICK", Sizes(train=3_000, select=1_200, test=2_400, fitted=2_000))
    steps = {"dqn.env_steps": 2_000, "ppo.env_steps": 2_000, "fine_tune.env_steps": 2_000}
    monkeypatch.setattr(benchmark, "QUICK_PRESET", {**steps, "dqn.report_every": 500})


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[dict[str, Any], str]:
    monkeypatch.setattr(sys, "argv", ["oracle", "--quick", "--seeds", "1", *options])
    main()
    printed = capsys.readouterr()
    return json.loads(printed.out.splitlines()[-1]), printed.err


@pytest.mark.parametrize("task", ["L1", "L2", "L3"])
def test_oracle_measures_one_and_the_rule_has_no_skill(task: Task) -> None:
    plan = oracle(task, edge=1.0, fineness=5)
    yardstick = Yardstick.of(plan, task, market(task, 2_400, edge=1.0, seed=1))
    assert yardstick.measure(plan.size, snap=True) == {"ratio": 1.0, "skill": 1.0, "realised": 1.0}
    rule = yardstick.measure(FixedSize(1.0, "rule 1x").size, snap=True)
    assert rule["skill"] == 0.0
    assert rule["ratio"] < 0.3


@pytest.mark.parametrize(("reward", "table_reward"), [("expected", "expected"), ("realised", "excess")])
def test_learner_trains_through_the_code_of_real_data(
    ray_cluster: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reward: str,
    table_reward: str,
) -> None:
    seen: list[Any] = []

    def recorded(train: Any, select: Any, config: Any, folder: Any, progress: Any) -> Any:
        seen.append((train, select, config))
        return train_sizer(train, select, config, folder, progress)

    train_sizer = benchmark.train_sizer
    monkeypatch.setattr(benchmark, "train_sizer", recorded)
    figures, progress = run(
        monkeypatch, capsys, "--task", "L2", "--reward", reward, "--set", "dqn.environments=16"
    )
    ((train, select, config),) = seen
    assert set(figures) >= KEYS
    assert figures["ratio"][0] > -0.5
    assert figures["env_steps"][0] >= 2_000
    assert progress.count("steps") >= 4
    assert (config.dqn.environments, config.reward, config.session.whole_days) == (16, table_reward, True)
    assert (train.reward == train.expected).all() == (reward == "expected")
    assert not (train.gross_r[:100] == select.gross_r[:100]).all(), "chosen on the signals it learned from"


@pytest.mark.long
def test_fine_tune_is_measured_beside_its_tiers_with_the_verdict(
    ray_cluster: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--set", "fine_tune.train_batch_size=512", "--set", "fine_tune.minibatch_size=128")
    figures, _ = run(monkeypatch, capsys, "--algo", "dqn+ppo", "--set", "fine_tune.band=0.01", *small)
    assert set(figures) >= KEYS
    assert figures["fine_tune_steps"][0] >= 2_000
    assert figures["ratio_fine_tuned"] != figures["ratio"]
    # 1 % of a size moves no utility by more than some 2 %
    assert figures["ratio_fine_tuned"][0] == pytest.approx(figures["ratio"][0], abs=0.03)
    assert figures["served"] == [figures["select_lower_bound"][0] > 0.0]


@pytest.mark.long
def test_masked_ppo_is_measured_too(
    ray_cluster: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--set", "ppo.train_batch_size=512", "--set", "ppo.minibatch_size=128")
    figures, _ = run(monkeypatch, capsys, "--algo", "ppo", "--set", "ppo.warm_start=plugin", *small)
    assert set(figures) >= KEYS
    assert figures["ratio"][0] > 0.5


def test_plug_in_is_fitted_on_outcomes_and_gains_from_planning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, _ = run(monkeypatch, capsys, "--task", "L2", "--algo", "plugin")
    assert set(figures) >= KEYS
    assert figures["settings"] == {}, "a preset of an algorithm that takes no part"
    assert 0.3 < figures["ratio"][0] < 0.84, "myopic under the true law reaches 0.84"
    assert figures["ratio"][0] < figures["ratio_planned"][0] < 1.0


def test_true_probabilities_make_the_plug_in_the_myopic_optimum() -> None:
    yardstick = Yardstick.of(oracle("L1", 1.0, fineness=5), "L1", market("L1", 2_400, edge=1.0, seed=1))
    assert yardstick.measure(PlugIn().size, snap=True)["ratio"] == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("options", [("--algo", "sarsa"), ("--set", "dqn.gama=1"), ("--edge", "nan")])
def test_what_is_refused_is_one_line_and_exit_code_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, capsys, *options)
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert options[1].split("=")[0] in printed.err.splitlines()[-1]
    assert "Traceback" not in printed.err
