"""The signal table against direct formulas, and proof that no row knows what had not yet happened."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.guardrails import SIZES
from envs.observation import OBSERVATION_FIELDS
from envs.signal_table import signal_table
from market.errors import DataError
from tests.synthetic_signals import HOUR, START, stream, table

WIN_RATE = OBSERVATION_FIELDS.index("win_rate_recent")
CONFIDENCE = OBSERVATION_FIELDS.index("signal_confidence")


def utility_written_out(m: float, r: float, k: float, b: float) -> float:
    return math.log(1.0 + k * b * m * r) / (k * b)


def test_both_utility_tables_equal_the_formula_written_out() -> None:
    made = stream(40, seed=5)
    built = signal_table(**made)
    k, b = made["k"], made["base_risk"]
    for i in range(40):
        for s, m in enumerate(SIZES):
            cost = made["cost_r"][i] + made["impact_r"][i] * math.sqrt(m)
            realised = utility_written_out(m, made["gross_r"][i] - cost, k, b)
            expected = sum(
                p * utility_written_out(m, r - cost, k, b)
                for p, r in zip(made["probability"][i], made["outcome_r"], strict=True)
            )
            assert built.realised[i, s] == pytest.approx(realised, abs=1e-12)
            assert built.expected[i, s] == pytest.approx(expected, abs=1e-12)


def test_training_is_paid_expected_utility_or_the_excess_over_1x() -> None:
    assert np.array_equal(table(30).reward, table(30).expected)
    excess = table(30, reward="excess")
    assert np.array_equal(excess.reward, excess.realised - excess.realised[:, [3]])


def test_confidence_is_the_chance_of_an_outcome_that_pays_its_own_costs() -> None:
    built = table(
        2,
        probability=np.array([[0.5, 0.2, 0.3], [0.5, 0.2, 0.3]]),
        cost_r=np.array([0.05, 0.15]),
        impact_r=np.array([0.05, 0.10]),
    )
    assert built.market[:, CONFIDENCE] == pytest.approx([0.5, 0.3])  # the middle bin pays 0.2 R before costs


def test_the_rules_own_confidence_is_not_observed() -> None:
    made = stream(20)
    other = made["signal_fields"].copy()
    other[:, 3] = 0.123
    assert np.array_equal(table(20).market, table(20, signal_fields=other).market)


def test_win_rate_and_kelly_by_hand() -> None:
    """Signals an hour apart, each settled half an hour later: 12 winners of 2 R, then 8 losers of 1 R."""
    outcomes = np.array([2.0] * 12 + [-1.0] * 8 + [2.0])
    n = len(outcomes)
    time = START + np.arange(n) * HOUR
    built = table(
        n,
        time=time,
        exit_time=time + HOUR // 2,
        gross_r=outcomes,
        cost_r=np.zeros(n),
        impact_r=np.zeros(n),
        prior_win_rate=0.4,
    )
    rate = 0.4
    for i in range(n):
        assert built.market[i, WIN_RATE] == pytest.approx(rate, abs=1e-6)
        rate += 2.0 / 21.0 * ((outcomes[i] > 0.0) - rate)
    assert np.all(np.isnan(built.settled_kelly[:20]))
    assert built.settled_kelly[20] == pytest.approx(0.6 / 1.0 - 0.4 / 2.0)


@pytest.mark.parametrize(("outcome", "fraction"), [(1.0, 1.0), (-1.0, 0.0)])
def test_a_stream_of_one_kind_has_an_extreme_kelly_fraction(outcome: float, fraction: float) -> None:
    time = START + np.arange(30) * HOUR
    built = table(30, time=time, exit_time=time + 1, gross_r=np.full(30, outcome), cost_r=np.zeros(30))
    assert built.settled_kelly[-1] == fraction


def test_optimal_f_by_vinces_own_arithmetic() -> None:
    """Over f in hundredths, the highest product of 1 + f R / |worst|, as Vince (1990) searches for it."""
    outcomes = np.array([2.0] * 12 + [-1.0] * 11 + [-1.5, 0.3])
    n = len(outcomes)
    time = START + np.arange(n + 1) * HOUR
    built = table(
        n + 1,
        time=time,
        exit_time=time + 1,
        gross_r=np.append(outcomes, 0.0),
        cost_r=0 * time,
        impact_r=0 * time,
    )
    f = np.arange(1, 1_000) / 1_000
    vince = f[np.argmax(np.prod(1.0 + f[:, None] * outcomes / 1.5, axis=1))]
    assert built.settled_optimal[n] * 1.5 == pytest.approx(vince, abs=0.001)
    assert np.all(np.isnan(built.settled_optimal[:20]))


def test_optimal_f_without_an_edge_is_nothing_and_never_risks_ruin() -> None:
    time = START + np.arange(41) * HOUR
    loses = table(41, time=time, exit_time=time + 1, gross_r=np.tile([-1.0, 0.5], 21)[:41])
    assert loses.settled_optimal[40] == pytest.approx(0.0, abs=1e-9)
    wins = table(41, time=time, exit_time=time + 1, gross_r=np.where(np.arange(41) == 3, -4.0, 9.0))
    assert 0.1 < wins.settled_optimal[40] < 0.25


def test_an_outcome_counts_from_the_moment_it_is_settled_and_not_before() -> None:
    time = np.array([START, START + HOUR, START + HOUR])
    for exit_time, rate in ((START + HOUR, 0.4 + 2.0 / 21.0 * 0.6), (START + HOUR + 1, 0.4)):
        built = table(
            3,
            time=time,
            exit_time=np.array([exit_time, START + 9 * HOUR, START + 9 * HOUR]),
            gross_r=np.full(3, 2.0),
        )
        assert built.market[1, WIN_RATE] == pytest.approx(rate, abs=1e-6)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), cut=st.integers(30, 149))
def test_rows_up_to_a_moment_ignore_every_outcome_settled_after_it(seed: int, cut: int) -> None:
    made = stream(150, seed=seed)
    before = signal_table(**made)
    random = np.random.default_rng(seed + 1)
    now = made["time"][cut]
    future = made["exit_time"] > now
    changed: dict[str, Any] = dict(made)
    changed["gross_r"] = np.where(future, random.choice([-1.0, 3.0], size=150), made["gross_r"])
    changed["cost_r"] = np.where(made["time"] > now, 0.5, made["cost_r"])
    changed["exit_time"] = np.where(
        future, np.maximum(now, made["time"]) + random.integers(1, 500, size=150) * HOUR, made["exit_time"]
    )
    after = signal_table(**changed)
    seen = made["time"] <= now
    assert np.array_equal(after.market[seen], before.market[seen])
    assert np.array_equal(after.settled_kelly[seen], before.settled_kelly[seen], equal_nan=True)
    assert np.array_equal(after.settled_optimal[seen], before.settled_optimal[seen], equal_nan=True)
    assert np.array_equal(after.expected[seen], before.expected[seen])


def test_the_statistics_do_follow_outcomes_once_they_are_settled() -> None:
    made = stream(150)
    before = signal_table(**made)
    after = signal_table(**(made | {"gross_r": -np.abs(made["gross_r"])}))
    assert not np.array_equal(after.market[:, WIN_RATE], before.market[:, WIN_RATE])
    assert np.nanmax(after.settled_kelly) == 0.0


def test_take_gives_the_rows_in_the_order_asked_for() -> None:
    whole = table(50)
    rows = np.array([7, 3, 40])
    part = whole.take(rows)
    assert len(part) == 3
    assert np.array_equal(part.time, whole.time[rows])
    assert np.array_equal(part.market, whole.market[rows])
    assert np.array_equal(part.expected, whole.expected[rows])
    assert np.array_equal(part.outcome_r, whole.outcome_r)
    assert (part.k, part.base_risk) == (whole.k, whole.base_risk)


def test_an_empty_stream_is_refused() -> None:
    made = stream(5)
    empty = {name: v[:0] if isinstance(v, np.ndarray) and len(v) == 5 else v for name, v in made.items()}
    with pytest.raises(DataError, match="at least once"):
        signal_table(**empty)


def test_an_unordered_stream_is_refused_with_its_row() -> None:
    time = stream(5)["time"].copy()
    time[3] = time[0] - 1
    with pytest.raises(DataError, match=r"signals\.time: got 3"):
        table(5, time=time)


@pytest.mark.parametrize("name", ["gross_r", "cost_r", "signal_fields", "probability"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_refused(name: str, value: float) -> None:
    broken = stream(5)[name].copy()
    broken.flat[2] = value
    with pytest.raises(DataError, match="non-finite"):
        table(5, **{name: broken})
