"""The gate's figures are those of the functions that are tested elsewhere, each in its place."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from evaluation.attribution import Attribution
from evaluation.gate import CARD_FIELDS
from evaluation.gate_figures import calibration, card, held_out, search, skill
from evaluation.overfitting import backtest_overfitting, deflated_sharpe, spa_p_value
from evaluation.resampling import drawdown_p95, lower_bound
from market.errors import DataError
from policies.bundle import BundleMeta
from signals.calibration import calibration_report

DAYS = np.repeat(np.arange(100), 2)
N = len(DAYS)


@dataclass(frozen=True)
class Sized:
    utility: np.ndarray
    net_r: np.ndarray


def sized(seed: int, mean: float = 0.0) -> Sized:
    random = np.random.default_rng(seed)
    return Sized(random.normal(mean, 1.0, N), random.normal(mean, 1.0, N))


def meta(**changed: Any) -> BundleMeta:
    whole: dict[str, Any] = {
        "algo": "dqn",
        "feature_fingerprint": "f",
        "rule": "donchian",
        "symbols": ("EURUSD",),
        "costs": {"fee_bps": 0.5},
        "base_risk": 0.01,
        "k": 8.0,
        "k_from": "1x-neutral",
        "session_days": 28.0,
        "prior_win_rate": 0.4,
        "volatility_median": {"*": 0.001},
        "training_limits": {"base_risk": 0.01},
        "training": {
            "data": "sample:eurusd",
            "data_digests": {"EURUSD": "d"},
            "trades": {"train": 500},
            "config": {"seed": 0},
        },
        "calibration": {"ece": 0.05},
        "outcome_model": {"log_loss": {"logit": 1.2}},
    }
    return BundleMeta(**(whole | changed))


def test_candidate_is_compared_with_each_of_the_three_on_the_same_days() -> None:
    candidate, champion, rule, plug_in = (sized(seed, 0.1 * seed) for seed in (3, 2, 1, 4))
    options = {"replications": 200, "seed": 3}
    found = held_out(candidate, champion, rule, plug_in, DAYS, 0.01, **options)
    for other, difference in (
        (champion, found.vs_champion),
        (rule, found.vs_rule),
        (plug_in, found.vs_plug_in),
    ):
        d = candidate.utility - other.utility
        assert difference.mean == pytest.approx(d.mean())
        assert difference.lower == lower_bound(d, DAYS, 200, 3)
    halfway = 0.5 * (rule.utility + plug_in.utility)
    assert found.kept.mean == pytest.approx(np.mean(candidate.utility - halfway))
    assert found.drawdown_p95 == drawdown_p95(candidate.net_r, DAYS, 0.01, 200, 3)
    assert found.champion_drawdown_p95 == drawdown_p95(champion.net_r, DAYS, 0.01, 200, 3)
    assert (found.signals, found.days, found.plug_in_share) == (N, 100, 0.5)


def test_share_of_the_plug_ins_gain_is_the_one_asked_for() -> None:
    candidate, rule, plug_in = (sized(seed) for seed in (1, 2, 3))
    found = held_out(candidate, rule, rule, plug_in, DAYS, 0.01, plug_in_share=0.8, replications=50)
    wanted = rule.utility + 0.8 * (plug_in.utility - rule.utility)
    assert found.kept.mean == pytest.approx(np.mean(candidate.utility - wanted))
    assert found.vs_champion == found.vs_rule


def test_few_days_leave_bounds_undefined() -> None:
    found = held_out(*(sized(seed) for seed in range(4)), np.arange(N) % 19, 0.01, replications=50)
    assert found.vs_rule.lower is None
    assert found.drawdown_p95 is None


def test_search_is_judged_against_the_champion_with_all_its_trials() -> None:
    random = np.random.default_rng(0)
    champion = random.normal(size=N)
    utility = champion[:, None] + random.normal(0.3, 1.0, size=(N, 6))
    found = search(utility, champion, DAYS, 30, 2, replications=200, seed=1)
    d = utility - champion[:, None]
    assert (found.tried, found.compared) == (30, 6)
    assert found.spa == spa_p_value(d, DAYS, 1, 200)
    assert found.pbo == backtest_overfitting(d, DAYS)
    assert found.deflated_sharpe == deflated_sharpe(d, DAYS, 2, 30)
    assert found.effective_trials is not None
    assert 6.0 < found.effective_trials <= 30.0
    assert found.probabilistic_sharpe > found.deflated_sharpe_effective >= found.deflated_sharpe


def test_single_configuration_is_a_search_of_one() -> None:
    random = np.random.default_rng(0)
    found = search(random.normal(1.0, 1.0, (N, 1)), np.zeros(N), DAYS, 1, 0, replications=100)
    assert found.spa < 0.05
    assert found.pbo is None
    assert found.effective_trials is None
    assert found.deflated_sharpe == found.probabilistic_sharpe


def test_fewer_trials_than_columns_are_a_lie() -> None:
    with pytest.raises(DataError, match="count all trials: 6"):
        search(np.zeros((N, 6)), np.zeros(N), DAYS, 5, 0)


def test_champion_and_candidate_are_calibrated_on_the_same_outcomes() -> None:
    random = np.random.default_rng(0)
    p = random.uniform(0.2, 0.8, 2_000)
    won = random.random(2_000) < p
    found = calibration(p, won, np.clip(p + 0.15, 0, 1), base_rate=0.5)
    assert found.reference == "champion"
    assert found.ece == calibration_report(p, won).expected_calibration_error
    assert found.ece < found.reference_ece
    assert found.log_loss < found.reference_log_loss


def test_without_a_champion_a_calibrated_model_is_within_its_noise_nineteen_times_in_twenty() -> None:
    inside = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        p = random.beta(4, 6, 150)
        found = calibration(p, random.random(150) < p, None, base_rate=0.4, seed=seed)
        inside += found.ece <= found.reference_ece
    assert 88 <= inside <= 100
    assert found.reference == "base rates"


def test_without_a_champion_a_biased_model_is_not_calibrated_and_worse_than_base_rates() -> None:
    random = np.random.default_rng(1)
    truth = random.uniform(0.35, 0.45, 1_000)
    won = random.random(1_000) < truth
    found = calibration(truth + 0.3, won, None, base_rate=0.4)
    assert found.ece > 0.2 > found.reference_ece
    assert found.log_loss > found.reference_log_loss
    base = -(won.mean() * np.log(0.4) + (1 - won.mean()) * np.log(0.6))
    assert found.reference_log_loss == pytest.approx(base)


def test_card_of_a_trained_bundle_is_complete() -> None:
    assert card(meta()) == dict.fromkeys(CARD_FIELDS, True)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"training": {**meta().training, "data_digests": {}}}, "data digests"),
        ({"training": {**meta().training, "config": {}}}, "configuration and seed"),
        ({"symbols": ()}, "symbols"),
        ({"costs": {}}, "costs"),
        ({"calibration": {}}, "calibration"),
        ({"outcome_model": {}}, "outcome model"),
        ({"k_from": ""}, "risk aversion k"),
    ],
)
def test_card_names_what_is_empty(changed: dict[str, Any], name: str) -> None:
    assert [field for field, there in card(meta(**changed)).items() if not there] == [name]


def test_skill_is_taken_from_the_attribution() -> None:
    found = skill(Attribution(10, 5, 0.5, 1.0, 0.5, 0.05, None, None, 0.2, 1))
    assert (found.gained_r, found.low, found.p_value) == (0.05, None, 0.2)
