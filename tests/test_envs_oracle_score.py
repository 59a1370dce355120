"""Scores on the oracle market are exact, repeatable and those of the environment that trains."""

from functools import cache

import numpy as np
import pytest

from envs.guardrails import SIZES
from envs.observation import Situation
from envs.oracle_market import Task, best_tiers, limits, market, ratio, session, session_signals
from envs.oracle_score import walk
from envs.signal_table import SignalTable
from envs.sizing_env import SizingEnv
from policies.baselines import FixedSize, PlugIn, RandomLegal

TASKS: tuple[Task, ...] = ("L1", "L2", "L3")


@cache
def stream(task: Task) -> SignalTable:
    return market(task, 12_000, edge=1.0, seed=3)


@pytest.mark.parametrize("task", TASKS)
def test_same_policy_scored_twice_gives_the_same_numbers(task: Task) -> None:
    first, again = (walk(RandomLegal(1).size, task, stream(task)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first.multiplier, walk(RandomLegal(2).size, task, stream(task)).multiplier)


@pytest.mark.parametrize("task", TASKS)
def test_walk_equals_the_environment_step_by_step(task: Task) -> None:
    table, length = stream(task), session_signals(task)
    policy, env = RandomLegal(0), SizingEnv(table, limits(task), session(task))
    short = table.take(np.arange(3 * length + 2))
    seen: list[np.ndarray] = []

    def recording(situation: Situation) -> np.ndarray:
        size = policy.size(situation)
        seen.append(size)
        return size

    walked = walk(recording, task, short)
    assert len(walked.expected) == 3 * length, "signals that fill no episode take no part"
    for episode in range(3):
        _, info = env.reset(options={"first": [episode * length], "drawdown": [0.0]})
        for step in range(length):
            row = episode * length + step
            tier = int(np.searchsorted(SIZES, seen[step][episode]))
            assert info["action_mask"][tier]
            _, reward, over, _, info = env.step(np.int64(tier))
            assert walked.multiplier[row] == info["multiplier"]
            assert walked.expected[row] == pytest.approx(reward, rel=1e-12)
            assert walked.realised[row] == pytest.approx(table.realised[row, tier], rel=1e-12)
        assert over


def test_without_limits_the_score_is_that_of_the_closed_form() -> None:
    table = stream("L1")
    best = walk(PlugIn().size, "L1", table)
    np.testing.assert_array_equal(best.multiplier, SIZES[best_tiers(table)])
    half = walk(FixedSize(0.5, "half").size, "L1", table)
    assert half.expected.mean() / best.expected.mean() == pytest.approx(ratio(table, np.full(12_000, 2)))


def test_size_between_tiers_is_floored_where_sizes_are_tiers_and_scored_as_it_is_where_not() -> None:
    between = lambda situation: np.full(len(situation.cap), 0.6)  # noqa: E731
    table = stream("L1")
    snapped, free = (walk(between, "L1", table, snap=snap) for snap in (True, False))
    assert (snapped.multiplier == 0.5).all()
    assert (free.multiplier == 0.6).all()
    neighbours = [walk(FixedSize(m, "").size, "L1", table).expected.mean() for m in (0.5, 1.0)]
    assert min(neighbours) < free.expected.mean() < max(neighbours)


def test_realised_utility_scatters_around_the_expected() -> None:
    walked = walk(PlugIn().size, "L1", stream("L1"))
    noise = walked.realised - walked.expected
    assert abs(noise.mean()) < 4.0 * noise.std() / np.sqrt(len(noise))
    assert noise.std() > 0.1
