"""A greedy policy walked over a table: what it takes, what that is worth, and what the limits leave of it."""

import numpy as np
import pytest

from envs.guardrails import SIZES, Limits
from envs.sizing_env import Session
from policies.hybrid import Network
from tests.synthetic_signals import table
from tuning.scoring import greedy_score, greedy_walk

SIGNALS = table(400, out_of_distribution=np.zeros(400, dtype=np.bool_))
WIDE = Limits(max_position=1.0, max_exposure=1.0, max_daily_risk=1.0, max_drawdown=0.99, max_open_trades=64)


def always(tier: int) -> Network:
    """A network that ranks the tiers by their distance from one."""
    bias = -np.abs(np.arange(6, dtype=np.float32) - tier)
    zeros = np.zeros(12, dtype=np.float32)
    return Network(zeros, zeros + 1, (np.zeros((6, 12), dtype=np.float32),), (bias,))


@pytest.mark.parametrize("tier", range(6))
def test_walk_takes_the_tier_and_its_expected_utility(tier: int) -> None:
    walk = greedy_walk(always(tier), SIGNALS, WIDE, Session())
    assert (walk.tier == tier).all()
    np.testing.assert_array_equal(walk.expected, SIGNALS.expected[:, tier])
    assert greedy_score(always(tier), SIGNALS, WIDE, Session()) == walk.expected.mean()


def test_walk_takes_no_more_than_the_limits_leave() -> None:
    tight = WIDE.model_copy(update={"max_position": 0.005})  # of a base risk of 0.01
    walk = greedy_walk(always(5), SIGNALS, tight, Session())
    assert (SIZES[walk.tier] == 0.5).all()
    np.testing.assert_array_equal(walk.expected, SIGNALS.expected[:, 2])


def test_every_signal_is_walked_once_whatever_the_session() -> None:
    for days in (1.0, 3.0, 400.0):
        walk = greedy_walk(always(3), SIGNALS, WIDE, Session(days=days))
        np.testing.assert_array_equal(walk.expected, SIGNALS.expected[:, 3])
