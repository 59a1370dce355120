"""Fine-tuning pays what it adds to the tiers, no more and no less, and stays within its band and the cap."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.fine_tune import fine_tuned
from envs.fine_tune_env import FineTuneVectorEnv
from envs.guardrails import LARGEST_SIZE, SIZES, Limits
from envs.signal_table import SignalTable
from envs.sizing_env import Episodes, Session, SizingVectorEnv
from policies.baselines import best_legal
from tests.synthetic_signals import table

BAND = 0.15
TIGHT = Limits(max_daily_risk=0.02, max_exposure=0.03, max_drawdown=0.1)


def largest(rows: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return best_legal(np.tile(np.arange(6.0), (len(rows), 1)), mask)


def by_trend(rows: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Large where the trend is strong, SKIP where it is weak."""
    return best_legal(-np.abs(np.arange(6.0) - 6.0 * rows[:, :1]), mask)


def env(signals: SignalTable, limits: Limits = TIGHT, accounts: int = 8, **changed: Any) -> FineTuneVectorEnv:
    arguments: dict[str, Any] = {"choose": by_trend, "band": BAND, "session": Session(days=20.0)}
    return FineTuneVectorEnv(signals, limits, accounts, **(arguments | changed))


@given(st.sampled_from(SIZES.tolist()), st.floats(allow_nan=False), st.floats(min_value=0.0, max_value=0.5))
def test_size_stays_within_the_band_and_under_the_largest(tier: float, a: float, band: float) -> None:
    size = fine_tuned(np.array([tier]), a, band)[0]
    assert size <= LARGEST_SIZE
    assert (size == 0.0) == (tier == 0.0)
    assert tier == 0.0 or size >= SIZES[1]
    assert abs(size - tier) <= band * tier + 1e-12


def test_band_ends_are_reached_and_an_action_that_is_no_number_gives_none() -> None:
    assert fine_tuned(np.array([1.0, 1.0, 1.5]), [1.0, -7.0, 1.0], BAND).tolist() == [1.15, 0.85, 1.5]
    assert np.isnan(fine_tuned(np.array([1.0, 0.0]), np.nan, BAND)).tolist() == [True, False]


@pytest.mark.parametrize("realised", [False, True])
@pytest.mark.parametrize("per_signal", [False, True])
def test_utility_of_a_size_equals_the_table_at_the_six_sizes(realised: bool, per_signal: bool) -> None:
    signals = table(300)
    if per_signal:
        signals = table(300, outcome_r=np.tile(signals.outcome_r, (300, 1)) + signals.cost_r[:, None])
    wanted = signals.realised if realised else signals.expected
    rows = np.arange(40, 240)
    for i, size in enumerate(SIZES):
        utility = signals.utility_of(np.full(200, size), rows, realised=realised)
        np.testing.assert_array_equal(utility, wanted[rows, i])


def test_continuous_sizes_take_the_step_of_tiers_where_they_are_tiers() -> None:
    signals, random = table(400), np.random.default_rng(2)
    by_tier, by_size = Episodes(signals, TIGHT, 16, Session()), Episodes(signals, TIGHT, 16, Session())
    for episodes in (by_tier, by_size):
        episodes.start(np.ones(16, dtype=bool), np.arange(16) * 10, np.linspace(0.0, 0.08, 16))
    for _ in range(60):
        assert (by_tier.look() == by_size.look()).all()
        legal = np.argmax(np.where(by_tier.mask, random.random((16, 6)), -1.0), axis=1)
        paid = by_tier.act(legal)
        np.testing.assert_array_equal(by_size.act_size(SIZES[legal], realised=False), paid)
        assert (by_tier.multiplier == by_size.multiplier).all()


def test_no_fine_tune_earns_nothing_and_is_the_tiers_own_walk() -> None:
    signals = table(300)
    tuned, tiers = env(signals), SizingVectorEnv(signals, TIGHT, 8, Session(days=20.0))
    rows, _ = tuned.reset(seed=4)
    others, _ = tiers.reset(seed=4)
    for _ in range(200):
        assert (rows == others).all()
        wanted = np.searchsorted(SIZES, by_trend(others, tiers.action_masks()))
        rows, reward, over, truncated, _ = tuned.step(np.zeros((8, 1), dtype=np.float32))
        others, _, ended, _, _ = tiers.step(wanted)
        assert (reward == 0.0).all()
        assert (over == ended).all()
        assert not truncated.any()


@pytest.mark.parametrize("realised", [False, True])
def test_rewards_sum_to_what_the_fine_tune_adds_over_whole_episodes(realised: bool) -> None:
    """Limits bind on the way: what a larger size takes from later signals is charged."""
    signals = table(120)

    def walked(a: float) -> tuple[float, float]:
        episodes = Episodes(signals, TIGHT, 1, Session(days=3_000.0))
        episodes.start(np.ones(1, dtype=bool), np.array([0]), np.zeros(1))
        total = expected = 0.0
        while not episodes.over[0]:
            tier = largest(episodes.look(), episodes.mask)
            expected += signals.utility_of(
                np.minimum(fine_tuned(tier, a, BAND), episodes.cap), episodes.row, realised=realised
            )[0]
            total += episodes.act_size(fine_tuned(tier, a, BAND), realised=realised)[0]
        return total, expected

    for a in (-1.0, 0.4, 1.0):
        tuned = env(signals, accounts=1, choose=largest, session=Session(days=3_000.0), realised=realised)
        tuned.reset(options={"first": [0]})
        total, over = 0.0, np.zeros(1, dtype=bool)
        while not over[0]:
            _, reward, over, _, _ = tuned.step(np.full((1, 1), a, dtype=np.float32))
            total += reward[0]
        assert total == pytest.approx(walked(np.float32(a))[0] - walked(0.0)[0], abs=1e-9)
        assert total != 0.0


def test_size_never_passes_the_cap_and_skip_stays_skip() -> None:
    signals, random = table(400), np.random.default_rng(1)
    tuned = env(signals)
    tuned.reset(seed=0)
    skipped = moved = 0
    for _ in range(300):
        cap, over = tuned.episodes.cap[:8].copy(), tuned.episodes.over[:8].copy()
        tiers = by_trend(tuned._seen[:8], tuned.episodes.mask[:8])
        tuned.step(random.uniform(-3.0, 3.0, (8, 1)).astype(np.float32))
        size = tuned.episodes.multiplier[:8]
        assert (size <= np.minimum(cap, LARGEST_SIZE)).all()
        assert (size[tiers == 0.0] == 0.0).all()
        assert (size[over] == 0.0).all()
        skipped += int(np.count_nonzero(tiers == 0.0))
        moved += int(np.count_nonzero((size > 0.0) & ~np.isin(size, SIZES)))
    assert skipped > 50
    assert moved > 200


def test_strange_signal_is_sized_at_most_1x() -> None:
    strange = table(60, out_of_distribution=np.ones(60, dtype=bool))
    tuned = env(strange, Limits(), choose=largest)
    tuned.reset(seed=0)
    for _ in range(30):
        tuned.step(np.ones((8, 1), dtype=np.float32))
        assert tuned.episodes.multiplier.max() <= 1.0


def test_same_seed_gives_the_same_episodes() -> None:
    def play(seed: int) -> np.ndarray[Any, Any]:
        tuned = env(table(300))
        rows = [tuned.reset(seed=seed)[0]]
        rows += [tuned.step(np.full((8, 1), 0.5))[0] for _ in range(60)]
        return np.stack(rows)

    assert (play(5) == play(5)).all()
    assert (play(5) != play(6)).any()


def test_account_that_ended_starts_again_on_the_next_step_with_its_twin() -> None:
    tuned = env(table(50), session=Session(days=2.0), accounts=4)
    tuned.reset(seed=0)
    ends = 0
    for _ in range(100):
        before = tuned.episodes.over[:4].copy()
        _, rewards, over, _, _ = tuned.step(np.ones((4, 1), dtype=np.float32))
        assert (rewards[before] == 0.0).all()
        for figures in (tuned.episodes.row, tuned.episodes.end, tuned.episodes.over):
            assert (figures[:4] == figures[4:]).all()
        ends += int(over.sum())
    assert ends > 10
