"""Behaviour cloning before PPO: the network takes its teacher's tiers, and PPO goes on from there."""

from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from envs import oracle_market
from envs.guardrails import SIZES, Limits
from envs.signal_table import SignalTable
from envs.sizing_env import Session
from policies.modules import MaskedPPO, export
from tests.synthetic_signals import table as overlapping
from tuning.config import TrainConfig, parse
from tuning.rllib_config import sizing_module
from tuning.sizer import train_sizer
from tuning.warm_start import Teacher, demonstrated, imitate

LIMITS, SESSION = oracle_market.limits("L1"), oracle_market.session("L1")
TIGHT = {
    "limits": Limits(max_daily_risk=0.02, max_exposure=0.025).model_dump(),
    "session": Session(days=20.0).model_dump(),
}


@cache
def stream(seed: int = 1) -> SignalTable:
    return oracle_market.market("L1", 20_000, edge=1.0, seed=seed)


def config(**ppo: object) -> TrainConfig:
    own = {"limits": LIMITS.model_dump(), "session": SESSION.model_dump(), "algo": "ppo"}
    return parse({**own, "ppo": {"gamma": 0.0, **ppo}})


def module(asked: TrainConfig, signals: SignalTable) -> MaskedPPO:
    torch.manual_seed(0)
    spec = sizing_module(MaskedPPO, signals, asked, asked.ppo.hidden)
    width = 12
    spec = RLModuleSpec(
        module_class=MaskedPPO,
        model_config=PPOConfig()._model_config_auto_includes | spec.model_config,
        observation_space=gym.spaces.Box(-1.0, 1.0, (width,)),
        action_space=gym.spaces.Discrete(6),
    )
    built = spec.build()
    assert isinstance(built, MaskedPPO)
    return built


def agreement(built: MaskedPPO, teacher: Teacher, signals: SignalTable, asked: TrainConfig) -> float:
    rows, tiers = demonstrated(teacher, signals, asked)
    with torch.no_grad():
        legal = built.legal(torch.from_numpy(rows)).numpy()
    return float(np.mean(np.argmax(np.where(legal, export(built)(rows), -np.inf), axis=1) == tiers))


@pytest.mark.parametrize("teacher", ["plugin", "rule"])
def test_network_agrees_with_its_teacher_on_fresh_states(teacher: Teacher) -> None:
    asked, signals, fresh = config(), stream(), stream(2)
    if teacher == "rule":  # 1x for every signal would be no lesson: limits that bind make one of it
        asked, signals, fresh = parse(TIGHT), overlapping(4_000), overlapping(4_000, seed=2)
    built = module(asked, signals)
    assert agreement(built, teacher, fresh, asked) < 0.8
    imitate(built, *demonstrated(teacher, signals, asked), seed=0)
    reached = agreement(built, teacher, fresh, asked)
    assert reached > 0.9, f"{reached:.3f} of fresh states"


def test_demonstrations_are_legal_and_the_rule_is_clamped_1x() -> None:
    tight = parse(TIGHT)
    signals = overlapping(600)
    rows, tiers = demonstrated("rule", signals, tight)
    cap = 1.5 * rows[:, 9].astype(np.float64) + 1e-6
    assert len(rows) > 300
    assert (SIZES[tiers] <= cap).all()
    assert (tiers <= 3).all()
    clamped = np.maximum(np.searchsorted(SIZES, np.minimum(cap, 1.0), side="right") - 1, 0)
    assert (tiers == clamped).all()
    assert len(np.unique(tiers)) > 2
    again = demonstrated("rule", signals, tight)
    assert all((a == b).all() for a, b in zip((rows, tiers), again, strict=True))
    rows, tiers = demonstrated("plugin", signals, tight)
    assert (SIZES[tiers] <= 1.5 * rows[:, 9].astype(np.float64) + 1e-6).all()


def test_same_seed_gives_the_same_network_and_no_global_draw_is_used() -> None:
    asked = config()
    demonstration = demonstrated("plugin", stream(), asked)

    def weights(seed: int) -> list[Any]:
        built = module(asked, stream())
        before = torch.get_rng_state()
        imitate(built, *(part[:3_000] for part in demonstration), seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        return list(export(built).weights)

    first, again, other = weights(1), weights(1), weights(2)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_training_starts_from_what_was_imitated(ray_cluster: str, tmp_path: Path) -> None:
    small = {"env_steps": 300, "environments": 16, "train_batch_size": 320, "minibatch_size": 64}
    scores = {}
    for start in ("none", "plugin"):
        asked = config(**small, report_every=300, warm_start=start)
        _, curve = train_sizer(stream(), None, asked, tmp_path / start, lambda *news: None)
        scores[start] = curve[0][1]
    optimum = float(stream().expected.max(axis=1).mean())
    assert scores["plugin"] >= 0.9 * optimum
    assert scores["none"] < 0.8 * optimum
