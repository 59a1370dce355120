"""The two environments are one environment, they pass Gymnasium's checks, and nothing in them sees the
future.
"""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.account import NANOSECONDS_PER_DAY
from envs.guardrails import SIZES, Limits
from envs.observation import OBSERVATION_FIELDS, review_window, session_left
from envs.signal_table import SignalTable, signal_table
from envs.sizing_env import Episodes, Session, SizingEnv, SizingVectorEnv
from market.errors import DataError

HOUR = NANOSECONDS_PER_DAY // 24


def table_of(signals: int, seed: int = 0, hours_between: int = 5, reward: str = "expected") -> SignalTable:
    """A stream with overlapping trades and random outcomes."""
    random = np.random.default_rng(seed)
    time = np.cumsum(random.integers(1, 2 * hours_between, signals)) * HOUR + 1_500_000_000 * 10**9
    won = random.random(signals) < 0.4
    probability = random.dirichlet(np.ones(3), signals)
    return signal_table(
        time=time,
        exit_time=time + random.integers(1, 100, signals) * HOUR,
        symbol=np.zeros(signals, dtype=np.int32),
        signal_fields=random.uniform(0.0, 1.0, (signals, 6)),
        gross_r=np.where(won, 2.0, -1.0) + random.normal(0, 0.1, signals),
        cost_r=np.full(signals, 0.03),
        impact_r=np.full(signals, 0.01),
        probability=probability,
        outcome_r=np.array([-1.0, 0.0, 2.0]),
        volatility_ratio=np.ones(signals),
        out_of_distribution=random.random(signals) < 0.1,
        k=8.0,
        base_risk=0.01,
        reward=reward,  # type: ignore[arg-type]
        prior_win_rate=0.4,
    )


def test_gymnasium_finds_no_fault() -> None:
    check_env(SizingEnv(table_of(200), Limits()), skip_render_check=True)


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(max_daily_risk=0.015, max_exposure=0.03), Limits(max_drawdown=0.05)]
)
def test_one_account_and_many_give_equal_numbers_step_for_step(limits: Limits) -> None:
    table, random = table_of(600), np.random.default_rng(1)
    first = random.integers(0, 500, 16)
    drawdown = random.uniform(0, 0.8 * limits.max_drawdown, 16)
    many = SizingVectorEnv(table, limits, 16)
    rows, _ = many.reset(seed=3, options={"first": first, "drawdown": drawdown})
    alone = [SizingEnv(table, limits) for _ in first]
    for i, env in enumerate(alone):
        row, info = env.reset(options={"first": first[i], "drawdown": drawdown[i]})
        assert (row == rows[i]).all()
        assert (info["action_mask"] == many.action_masks()[i]).all()
    over = np.zeros(16, dtype=bool)
    while not over.all():
        tiers = random.integers(0, 6, 16)
        rows, rewards, terminated, truncated, _ = many.step(tiers)
        assert not truncated.any()
        for i in np.flatnonzero(~over):
            row, reward, ended, _, _ = alone[i].step(tiers[i])
            assert (row == rows[i]).all()
            assert reward == rewards[i]
            assert ended == terminated[i]
        over |= terminated


def test_an_account_that_ended_starts_again_on_the_next_step() -> None:
    env = SizingVectorEnv(table_of(50), Limits(), 4, Session(days=2))
    env.reset(seed=0)
    ends = 0
    for _ in range(100):
        before = env.episodes.over.copy()
        _, rewards, terminated, _, _ = env.step(np.full(4, 3))
        assert (rewards[before] == 0).all()
        assert not (terminated & before & (env.episodes.end - env.episodes.row > 0)).any()
        ends += int(terminated.sum())
    assert ends > 10


def test_the_same_seed_gives_the_same_episodes() -> None:
    def play(seed: int) -> np.ndarray:
        env = SizingVectorEnv(table_of(300), Limits(), 8)
        rows = [env.reset(seed=seed)[0]]
        rows += [env.step(np.full(8, 5))[0] for _ in range(60)]
        return np.stack(rows)

    assert (play(5) == play(5)).all()
    assert (play(5) != play(6)).any()


def test_observations_stay_in_their_space() -> None:
    env = SizingVectorEnv(table_of(2000), Limits(max_drawdown=0.1), 32)
    env.reset(seed=0)
    random = np.random.default_rng(0)
    for _ in range(200):
        rows, _, _, _, _ = env.step(random.integers(0, 6, 32))
        assert env.observation_space.contains(rows)


def test_the_reward_is_the_utility_of_the_size_after_the_guardrail() -> None:
    table = table_of(30)
    env = SizingEnv(table, Limits(rule_cap=0.6))
    env.reset(options={"first": 4})
    _, reward, _, _, info = env.step(np.int64(5))
    assert info["multiplier"] == 0.5
    assert reward == table.reward[4, 2]


def test_a_forbidden_tier_is_floored_to_a_legal_one_and_never_rejected() -> None:
    env = SizingEnv(table_of(30), Limits(max_daily_risk=0.0))
    env.reset(options={"first": 0})
    assert env.action_masks().tolist() == [True] + [False] * 5
    _, reward, _, _, info = env.step(np.int64(5))
    assert (reward, info["multiplier"]) == (0.0, 0.0)


def test_an_open_trade_shows_nothing_of_its_outcome() -> None:
    table = table_of(300)
    flipped = replace(table, gross_r=-table.gross_r)
    for chosen in (table, flipped):
        env = SizingEnv(chosen, Limits(), Session(days=60))
        row, _ = env.reset(options={"first": 0})
        rows = [row]
        while chosen.time[len(rows)] < chosen.exit_time[: len(rows)].min():
            rows.append(env.step(np.int64(3))[0])
        if chosen is table:
            expected = np.stack(rows)
    assert len(rows) > 1
    assert (np.stack(rows) == expected).all()


def test_the_observation_carries_the_cap_so_that_the_mask_can_be_read_from_it() -> None:
    env = SizingVectorEnv(table_of(500), Limits(max_daily_risk=0.03), 16)
    rows, _ = env.reset(seed=0)
    random = np.random.default_rng(0)
    for _ in range(50):
        caps = 1.5 * rows[:, OBSERVATION_FIELDS.index("max_position_pct")].astype(float)
        assert ((caps[:, None] + 1e-6 >= SIZES) == env.action_masks()).all()
        rows, *_ = env.step(random.integers(0, 6, 16))


def test_without_the_twelfth_field_the_layout_has_eleven() -> None:
    env = SizingEnv(table_of(100), Limits(), Session(session_left=False))
    row, _ = env.reset(seed=0)
    assert row.shape == env.observation_space.shape == (11,)


def test_session_left_counts_down_to_zero() -> None:
    day = NANOSECONDS_PER_DAY
    assert session_left(np.array([0, day, 2 * day, 3 * day]), 2.0).tolist() == [1.0, 0.5, 0.0, 0.0]


def test_an_empty_or_unordered_stream_is_refused() -> None:
    with pytest.raises(DataError, match="fires at least once"):
        table_of(0)
    good = table_of(10)
    with pytest.raises(DataError, match="sort the signals"):
        signal_table(
            time=good.time[::-1].copy(),
            exit_time=good.exit_time,
            symbol=good.symbol,
            signal_fields=np.zeros((10, 6)),
            gross_r=good.gross_r,
            cost_r=good.cost_r,
            impact_r=good.impact_r,
            probability=good.probability,
            outcome_r=good.outcome_r,
            volatility_ratio=good.volatility_ratio,
            out_of_distribution=good.out_of_distribution,
            k=8.0,
            base_risk=0.01,
            prior_win_rate=0.4,
        )


def test_review_windows_follow_one_another_from_the_epoch() -> None:
    days = np.array([0, 7, 14, 27, 28, 35]) * NANOSECONDS_PER_DAY
    window, elapsed = review_window(days, 28.0)
    assert window.tolist() == [0, 0, 0, 0, 1, 1]
    assert session_left(elapsed, 28.0).tolist() == pytest.approx([1.0, 0.75, 0.5, 1 / 28, 1.0, 0.75])


def test_whole_days_start_every_episode_with_the_first_signal_of_a_day() -> None:
    table, random = table_of(400), np.random.default_rng(0)
    days = table.time // NANOSECONDS_PER_DAY
    every = np.ones(64, dtype=np.bool_)
    for whole in (True, False):
        episodes = Episodes(table, Limits(), 64, Session(days=1, whole_days=whole))
        episodes.start_anywhere(every, random)
        rows = episodes.row
        firsts = (rows == 0) | (days[rows] != days[rows - 1])
        assert firsts.all() == whole
        assert len(set(rows)) > 16


@pytest.mark.parametrize(
    ("limits", "session"),
    [(Limits(max_daily_risk=0.02, max_drawdown=0.1), Session(days=6)), (Limits(allow_skip=False), Session())],
)
def test_every_alternative_is_what_taking_that_tier_brings(limits: Limits, session: Session) -> None:
    env = SizingVectorEnv(table_of(400, hours_between=3), limits, 16, session, counterfactual=True)
    plain = SizingVectorEnv(env.episodes.table, limits, 16, session)
    env.reset(seed=0)
    plain.reset(seed=0)
    random, ended, forbidden = np.random.default_rng(0), 0, 0
    for _ in range(60):
        going_on = ~env.episodes.over
        taken = []
        for tier in range(6):
            other = deepcopy(plain)
            taken.append(other.step(np.full(16, tier)))
        actions = random.integers(0, 6, 16)
        mask = env.action_masks()
        stepped, as_ever = env.step(actions), plain.step(actions)
        told = stepped[4]
        for tier, (rows, rewards, over, _, _) in enumerate(taken):
            np.testing.assert_array_equal(told["rewards"][going_on, tier], rewards[going_on])
            np.testing.assert_array_equal(told["observations"][going_on, tier], rows[going_on])
            np.testing.assert_array_equal(stepped[2][going_on], over[going_on])
        np.testing.assert_array_equal(told["legal"], mask)
        for mine, theirs in zip(stepped[:4], as_ever[:4], strict=True):
            np.testing.assert_array_equal(mine, theirs)
        ended, forbidden = ended + int(stepped[2].sum()), forbidden + int((~mask).sum())
    assert ended > 0
    assert forbidden > 0
