"""Phase two: what a fine-tune learns is what it is paid for, and it is served on proof alone."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from envs import oracle_market
from envs.oracle_score import walk
from envs.rewards import realised_table
from envs.signal_table import SignalTable
from market.errors import ConfigError
from policies.hybrid import FineTunedPolicy, Network, TierPolicy
from tests.serving_bundles import fine_network
from tests.test_tuning_sizer import fixed_size
from tuning.config import TrainConfig, parse
from tuning.fine_tune import fine_tune, judged
from tuning.scoring import fine_tuned_score, greedy_score

LIMITS, SESSION = oracle_market.limits("L1"), oracle_market.session("L1")
SMALL = {
    "env_steps": 1_500,
    "environments": 16,
    "train_batch_size": 320,
    "minibatch_size": 64,
    "report_every": 300,
    "checkpoint_every": 600,
}


@cache
def stream(seed: int = 1, signals: int = 6_000) -> SignalTable:
    return oracle_market.market("L1", signals, edge=1.0, seed=seed)


def config(**settings: object) -> TrainConfig:
    own = {"limits": LIMITS.model_dump(), "session": SESSION.model_dump(), "algo": "dqn+ppo"}
    return parse({**own, "fine_tune": {"gamma": 0.0, **settings}})


def quiet(done: int, total: int, score: float) -> None:
    pass


def digest(network: Network) -> str:
    arrays = network.to_arrays()
    return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


def always(action: float, tier: int = 3) -> FineTunedPolicy:
    return FineTunedPolicy(TierPolicy(fixed_size(tier)), fine_network(0, action), 0.15)


def test_learns_to_move_a_fixed_size_toward_the_optimum(ray_cluster: str, tmp_path: Path) -> None:
    """1x for every signal leaves much to gain within a band of half: the optimum shrinks most, grows some."""
    asked = config(env_steps=60_000, band=0.5, environments=64, train_batch_size=4_096, minibatch_size=512)
    policy, figures, curve = fine_tune(stream(), stream(2), fixed_size(3), asked, tmp_path, quiet)
    fresh = stream(3)
    tuned = walk(policy.size, "L1", fresh, snap=policy.snaps).expected.mean()
    rule = greedy_score(fixed_size(3), fresh, LIMITS, SESSION)
    sizes = np.linspace(0.5, 1.5, 21)
    worth = [fresh.utility_of(np.full(len(fresh), size), slice(None), realised=False) for size in sizes]
    best = np.max(worth, axis=0).mean()
    assert (tuned - rule) / (best - rule) >= 0.85
    assert figures.served
    assert figures.lower_bound is not None
    assert 0.0 < figures.lower_bound < figures.mean_difference
    assert curve[-1][0] >= 60_000
    assert [weight.shape for weight in policy.network.weights] == [(64, 12), (1, 64)]


def test_judgement_is_paired_realised_and_net_of_costs() -> None:
    table = stream(2)
    figures = judged(always(1.0), table, config())
    larger = table.utility_of(np.full(len(table), 1.15), slice(None), realised=True)
    assert figures.mean_difference == pytest.approx(np.mean(larger - table.realised[:, 3]), abs=1e-7)
    assert (figures.signals, figures.days, figures.band) == (6_000, 1_000, 0.15)
    costly = replace(table, cost_r=table.cost_r + 0.1)
    costs = costly.gross_r, costly.cost_r, costly.impact_r
    costly = replace(costly, realised=realised_table(*costs, costly.k, costly.base_risk))
    assert judged(always(1.0), costly, config()).mean_difference < figures.mean_difference - 0.01


def test_fine_tune_is_served_only_where_its_lower_bound_is_above_zero() -> None:
    """On this market 1x loses on average, so that smaller is better and larger is worse."""
    table = stream(2)
    smaller, same, larger = (judged(always(action), table, config()) for action in (-1.0, 0.0, 1.0))
    assert smaller.served
    assert not same.served
    assert (same.mean_difference, same.lower_bound) == (0.0, 0.0)
    assert not larger.served
    assert larger.mean_difference < 0.0


def test_few_days_prove_nothing() -> None:
    few = stream(2).take(np.arange(60))
    figures = judged(always(-1.0), few, config())
    assert (figures.lower_bound, figures.served) == (None, False)
    assert "too few days" in str(figures)


def test_score_of_no_fine_tune_is_that_of_the_tiers() -> None:
    for tier in (0, 2, 5):
        alone = greedy_score(fixed_size(tier), stream(), LIMITS, SESSION)
        assert fine_tuned_score(always(0.0, tier), stream(), LIMITS, SESSION) == pytest.approx(
            alone, rel=1e-12
        )


def test_repeats_itself_resumes_and_refuses_the_checkpoint_of_other_tiers(
    ray_cluster: str, tmp_path: Path
) -> None:
    asked = config(**SMALL)

    def trained(folder: str, tier: int = 3, progress: object = quiet) -> tuple[str, list[int]]:
        tables = stream(), stream(2, 600)
        made = fine_tune(*tables, fixed_size(tier), asked, tmp_path / folder, progress)  # type: ignore[arg-type]
        return digest(made.policy.network), [steps for steps, _ in made.curve]

    first, again = trained("first"), trained("again")
    assert first == again

    def fail(done: int, total: int, score: float) -> None:
        if done >= 1_200:
            raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"):
        trained("resumed", progress=fail)
    told: list[int] = []
    _, steps = trained("resumed", progress=lambda done, total, score: told.append(done))
    assert told[0] > 600
    assert steps == sorted(set(steps))
    assert steps[-1] >= 1_500
    with pytest.raises(ConfigError, match=r"checkpoint\.tiers"):
        trained("resumed", tier=2)


@pytest.mark.long
def test_two_remote_samplers_fine_tune_too(ray_cluster: str, tmp_path: Path) -> None:
    asked = config(**(SMALL | {"env_runners": 2, "env_steps": 900}))
    made = fine_tune(stream(), stream(2, 600), fixed_size(3), asked, tmp_path, quiet)
    assert made.curve[-1][0] >= 900
