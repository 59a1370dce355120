"""The synthetic suite compares like with like, and has no figure where there is none."""

from typing import Any

import pytest

from evaluation.synthetic_suite import baselines, ratios
from market.errors import DataError


def line(task: str = "L1", ratio: Any = (0.99, 0.97, 0.98), **changed: Any) -> dict[str, Any]:
    whole = {"task": task, "algo": "dqn", "reward": "expected", "edge": 1.0, "settings": {"dqn.gamma": 0.0}}
    return whole | {"ratio": list(ratio)} | changed


def test_median_seed_stands_beside_the_worst_stored_one() -> None:
    found = ratios([line(ratio=[0.9, 0.99, 0.95])], [line(), line("L2")])
    assert (found["L1"].ratio, found["L1"].baseline) == (0.95, 0.97)


def test_every_task_is_asked_for() -> None:
    found = ratios([line(), line("L3")], [line(), line("L2"), line("L3")])
    assert list(found) == ["L1", "L2", "L3"]
    assert (found["L2"].ratio, found["L2"].baseline) == (None, None)
    assert all(one.ratio is None for one in ratios([]).values())


@pytest.mark.parametrize(
    "other", [{"algo": "ppo"}, {"reward": "realised"}, {"edge": 2.0}, {"settings": {"dqn.gamma": 0.5}}]
)
def test_baseline_of_another_configuration_is_none(other: dict[str, Any]) -> None:
    found = ratios([line()], [line(**other)])["L1"]
    assert (found.ratio, found.baseline) == (0.98, None)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([{"task": "L1"}], "benchmarks.oracle"),
        ([line(ratio=[])], "benchmarks.oracle"),
        ([line(), line()], "one line for each task"),
        ([line(), line("L2", algo="ppo")], "one algorithm"),
    ],
)
def test_lines_that_say_nothing_are_refused(lines: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        ratios(lines, [])


def test_stored_lines_are_measured_ones_of_every_task() -> None:
    stored = baselines()
    kept = {(one["algo"], one["task"]) for one in stored}
    assert {(algo, task) for algo in ("dqn", "plugin") for task in ("L1", "L2", "L3")} <= kept
    assert len(kept) == len(stored)
    for one in stored:
        assert len(one["ratio"]) >= 3
        own = ratios([one], stored)[one["task"]]
        assert own.baseline == min(one["ratio"])
