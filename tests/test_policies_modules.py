"""The masked Q network: the guardrail's own mask, no infinity in training, an exact export."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from envs.guardrails import LARGEST_SIZE, SIZES, Limits, allowed
from envs.observation import CAP_COLUMN
from policies.baselines import best_legal
from policies.modules import MaskedDQN, MaskedPPO, SizingPPO, export, standardisation
from tuning.dqn import train_batch


def spaces(width: int) -> dict[str, gym.Space[Any]]:
    return {
        "observation_space": gym.spaces.Box(-1.0, 1.0, (width,)),
        "action_space": gym.spaces.Discrete(6),
    }


def model_config(width: int, allow_skip: bool = True) -> dict[str, Any]:
    random = np.random.default_rng(5)
    return {
        "fcnet_hiddens": [64, 32],
        "fcnet_activation": "relu",
        "head_fcnet_hiddens": [],
        "head_fcnet_activation": "relu",
        "mean": random.normal(size=width).astype(np.float32).tolist(),
        "scale": random.uniform(0.2, 2.0, width).astype(np.float32).tolist(),
        "allow_skip": allow_skip,
    }


def module(width: int = 12, allow_skip: bool = True, epsilon: float = 0.0) -> MaskedDQN:
    torch.manual_seed(1)
    defaults = DQNConfig().training(epsilon=epsilon, dueling=False)._model_config_auto_includes
    spec = RLModuleSpec(
        module_class=MaskedDQN, model_config=defaults | model_config(width, allow_skip), **spaces(width)
    )
    built = spec.build()
    assert isinstance(built, MaskedDQN)
    return built


def observations(count: int, width: int = 12, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    rows = np.random.default_rng(seed).uniform(-1.0, 1.0, (count, width)).astype(np.float32)
    rows[:, CAP_COLUMN] = np.random.default_rng(seed + 1).uniform(0.0, 1.0, count)
    return rows


def q_values(built: MaskedDQN, rows: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return built.compute_q_values({Columns.OBS: torch.from_numpy(rows)})["qf_preds"].numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("width", [11, 12])
def test_export_equals_the_module_on_a_thousand_observations(width: int) -> None:
    built, rows = module(width), observations(1_000, width)
    inside, outside = q_values(built, rows), export(built)(rows)
    legal = np.isfinite(inside)
    np.testing.assert_allclose(outside[legal], inside[legal], rtol=0, atol=1e-6)
    chosen = best_legal(outside.astype(np.float64), legal)
    np.testing.assert_array_equal(chosen, best_legal(inside.astype(np.float64), legal))


def test_exported_layers_have_the_configured_shapes() -> None:
    assert [weight.shape for weight in export(module()).weights] == [(64, 12), (32, 64), (6, 32)]


@pytest.mark.parametrize("allow_skip", [True, False])
def test_mask_is_the_guardrails_for_every_cap(allow_skip: bool) -> None:
    caps = np.concatenate([np.linspace(0.0, LARGEST_SIZE, 2_001), [0.25, 0.5, 1.0, 1.25, 1.5]])
    caps = caps[np.abs(caps[:, None] - [0.25, 0.5, 1.0, 1.25, 1.5]).min(axis=1) != 1e-7]
    rows = observations(len(caps))
    rows[:, CAP_COLUMN] = caps / LARGEST_SIZE
    mask = np.isfinite(q_values(module(allow_skip=allow_skip), rows))
    np.testing.assert_array_equal(mask, allowed(caps, Limits(allow_skip=allow_skip)))


def test_forbidden_values_are_minus_infinity_and_one_is_always_finite() -> None:
    for allow_skip in (True, False):
        values = q_values(module(allow_skip=allow_skip), observations(500))
        assert np.all(np.isneginf(values[~np.isfinite(values)]))
        assert np.isfinite(values).any(axis=1).all()


def test_exploration_draws_every_legal_tier_and_no_other() -> None:
    rows = np.repeat(observations(1), 4_000, axis=0)
    rows[:, CAP_COLUMN] = np.linspace(0.0, 1.5, 4_000).clip(0.0, 1.0)
    built = module(epsilon=1.0)
    actions = built.forward_exploration({Columns.OBS: torch.from_numpy(rows)}, t=0)[Columns.ACTIONS].numpy()
    mask = allowed(LARGEST_SIZE * rows[:, CAP_COLUMN].astype(np.float64) + 1e-6, Limits())
    assert mask[np.arange(4_000), actions].all()
    assert set(actions) == set(range(6))


def test_inference_takes_the_best_legal_tier() -> None:
    built, rows = module(), observations(300)
    actions = built.forward_inference({Columns.OBS: torch.from_numpy(rows)})[Columns.ACTIONS].numpy()
    np.testing.assert_array_equal(actions, q_values(built, rows).argmax(axis=1))


@pytest.mark.parametrize("double_q", [True, False])
def test_update_stays_finite_where_next_states_forbid_everything_but_skip(double_q: bool) -> None:
    """Infinite values meet the target's zeros at terminal states: 0 x inf must not reach a weight."""
    config = (
        DQNConfig()
        .training(double_q=double_q, dueling=False, td_error_loss_fn="mse", gamma=1.0)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=MaskedDQN, model_config=model_config(12)))
        .learners(num_learners=0)
    )
    config.observation_space, config.action_space = spaces(12).values()
    spec = config.get_multi_rl_module_spec(
        spaces={DEFAULT_MODULE_ID: tuple(spaces(12).values())}, inference_only=False
    )
    learner = DQNTorchLearner(config=config, module_spec=spec)
    learner.build()
    rows, following = observations(256), observations(256, seed=7)
    following[::2, CAP_COLUMN] = 0.0
    batch = train_batch(
        {
            "obs": rows,
            "new_obs": following,
            "actions": np.zeros(256, dtype=np.int64),
            "rewards": np.ones(256, dtype=np.float32),
            "terminateds": np.arange(256) % 3 == 0,
        }
    )
    trained = learner.module[DEFAULT_MODULE_ID]
    before = [weight.detach().clone() for weight in trained.parameters()]
    learner.update(batch=batch, timesteps={"num_env_steps_sampled_lifetime": 1})
    after = list(trained.parameters())
    assert all(bool(torch.isfinite(weight).all()) for weight in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_state_of_a_module_carries_its_standardisation() -> None:
    one, other = module(), module()
    with torch.no_grad():
        for weight in [*other.parameters(), *other.buffers()]:
            weight.add_(1.0)
    other.set_state(one.get_state())
    rows = observations(50)
    np.testing.assert_array_equal(export(other)(rows), export(one)(rows))


def test_standardisation_covers_market_columns_and_leaves_the_account_alone() -> None:
    market = np.random.default_rng(0).normal(3.0, 2.0, (5_000, 12)).astype(np.float32)
    market[:, 4] = 0.7  # a field that never varied
    mean, scale = standardisation(market, 12)
    np.testing.assert_allclose(mean[[0, 1, 2, 3, 5, 7]], 3.0, atol=0.2)
    np.testing.assert_allclose(scale[[0, 1, 2, 3, 5, 7]], 2.0, atol=0.1)
    np.testing.assert_array_equal(mean[[6, 8, 9, 10, 11]], 0.0)
    np.testing.assert_array_equal(scale[[4, 6, 8, 9, 10, 11]], 1.0)
    assert len(standardisation(market, 11)[0]) == 11


def policy(allow_skip: bool = True) -> MaskedPPO:
    torch.manual_seed(1)
    more = model_config(12, allow_skip) | {"vf_share_layers": False}
    built = RLModuleSpec(module_class=MaskedPPO, model_config=more, **spaces(12)).build()
    assert isinstance(built, MaskedPPO)
    return built


def logits(built: MaskedPPO, rows: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, Any]:
    return built.forward_inference({Columns.OBS: torch.from_numpy(rows)})["action_dist_inputs"].numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("allow_skip", [True, False])
def test_policy_is_masked_and_exported_like_the_q_network(allow_skip: bool) -> None:
    built, rows = policy(allow_skip), observations(1_000)
    inside, outside = logits(built, rows), export(built)(rows)
    legal = built.legal(torch.from_numpy(rows)).numpy()
    np.testing.assert_array_equal(legal, module(allow_skip=allow_skip).legal(torch.from_numpy(rows)).numpy())
    assert np.isneginf(inside[~legal]).all()
    np.testing.assert_allclose(outside[legal], inside[legal], rtol=0, atol=1e-6)
    chosen = best_legal(outside.astype(np.float64), legal)
    np.testing.assert_array_equal(chosen, SIZES[inside.argmax(axis=1)])
    assert [weight.shape for weight in export(built).weights] == [(64, 12), (32, 64), (6, 32)]


def test_policy_draws_tiers_by_their_probabilities_and_knows_them() -> None:
    built = policy()
    for weight in built.pi.parameters():
        torch.nn.init.normal_(weight, std=2.0)
    rows = np.repeat(observations(1), 40_000, axis=0)
    rows[:, CAP_COLUMN] = 0.7
    drawn = built.forward_exploration({Columns.OBS: torch.from_numpy(rows)}, t=0)
    law = built.get_exploration_action_dist_cls().from_logits(drawn["action_dist_inputs"])
    probabilities = torch.softmax(drawn["action_dist_inputs"][0], dim=-1).numpy()
    assert 0.05 < probabilities.max() < 0.95
    shares = np.bincount(drawn["actions"].numpy(), minlength=6) / len(rows)
    np.testing.assert_allclose(shares, probabilities, atol=4 * 0.5 / np.sqrt(len(rows)))
    np.testing.assert_array_equal(shares[probabilities == 0.0], 0.0)
    torch.testing.assert_close(drawn["action_logp"], law.logp(drawn["actions"]))


def test_exploration_is_greedy_but_for_its_share_of_even_draws() -> None:
    built = module(epsilon=0.4)
    rows = np.repeat(observations(1), 40_000, axis=0)
    rows[:, CAP_COLUMN] = 1.0 / LARGEST_SIZE  # four legal tiers
    best = int(q_values(built, rows[:1]).argmax())
    actions = built.forward_exploration({Columns.OBS: torch.from_numpy(rows)}, t=0)[Columns.ACTIONS].numpy()
    expected = np.array([0.1, 0.1, 0.1, 0.1, 0.0, 0.0])
    expected[best] += 0.6
    np.testing.assert_allclose(np.bincount(actions, minlength=6) / 40_000, expected, atol=0.01)


def test_continuous_policy_standardises_and_exports_its_mean() -> None:
    more = model_config(12) | {"fcnet_hiddens": [64], "vf_share_layers": False, "free_log_std": True}
    band = spaces(12) | {"action_space": gym.spaces.Box(-1.0, 1.0, (1,))}
    built = RLModuleSpec(module_class=SizingPPO, model_config=more, **band).build()
    rows = observations(200)
    mean = built.forward_inference({Columns.OBS: torch.from_numpy(rows)})["action_dist_inputs"][:, 0]
    np.testing.assert_allclose(export(built)(rows)[:, 0], mean.detach().numpy(), atol=1e-6)
    assert [weight.shape for weight in export(built).weights] == [(64, 12), (1, 64)]
    values = built.compute_values({Columns.OBS: torch.from_numpy(rows)})
    assert values.shape == (200,)
    shifted = torch.from_numpy(rows) * built.input_scale + built.input_mean
    torch.testing.assert_close(built.standard(shifted), torch.from_numpy(rows), rtol=1e-4, atol=1e-5)
