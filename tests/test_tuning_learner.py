"""The compiled Learners compute what RLlib's own do: the same losses, weights and checkpoints."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.learner.general_advantage_estimation import compute_value_targets
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from envs import oracle_market
from envs.observation import CAP_COLUMN
from market.errors import ConfigError
from policies.modules import MaskedDQN, MaskedPPO, SizingPPO
from tuning.advantages import advantages, standardised
from tuning.config import parse
from tuning.dqn import train_batch
from tuning.learner import ArrayDQNLearner, ArrayPPOLearner
from tuning.rllib_config import rllib_config
from tuning.rollout import Rollout

WIDTH, ROWS = 12, 320
OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (WIDTH,), np.float32)
TIERS = gym.spaces.Discrete(6)
BAND = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
STEPS = {"num_env_steps_sampled_lifetime": 100}


def model_config(**more: Any) -> dict[str, Any]:
    random = np.random.default_rng(5)
    return {
        "fcnet_hiddens": [64, 32],
        "fcnet_activation": "relu",
        "mean": random.normal(size=WIDTH).astype(np.float32).tolist(),
        "scale": random.uniform(0.5, 2.0, WIDTH).astype(np.float32).tolist(),
        "allow_skip": True,
    } | more


def learner_of(kind: type[Learner], settings: AlgorithmConfig, actions: gym.Space[Any]) -> Learner:
    settings.observation_space, settings.action_space = OBSERVATIONS, actions
    spaces = {DEFAULT_MODULE_ID: (OBSERVATIONS, actions)}
    spec = settings.get_multi_rl_module_spec(spaces=spaces, inference_only=False)
    built = kind(config=settings, module_spec=spec)
    built.build()
    return built


def ppo(actions: gym.Space[Any] = TIERS, model: dict[str, Any] | None = None, **training: Any) -> PPOConfig:
    module = MaskedPPO if actions is TIERS else SizingPPO
    more = {"free_log_std": actions is not TIERS} | (model or {})
    defaults = {"lr": 3e-3, "grad_clip": 0.5, "use_kl_loss": False, "entropy_coeff": 0.01, "clip_param": 0.1}
    return (
        PPOConfig()
        .training(**(defaults | training))
        .rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=model_config(**more)))
        .debugging(seed=1)
    )


def dqn(**training: Any) -> DQNConfig:
    defaults = {"lr": 3e-3, "td_error_loss_fn": "mse", "dueling": False, "target_network_update_freq": 10**9}
    return (
        DQNConfig()
        .training(**(defaults | training))
        .rl_module(rl_module_spec=RLModuleSpec(module_class=MaskedDQN, model_config=model_config()))
        .debugging(seed=1)
    )


def pair(
    ours: type[Learner], stock: type[Learner], settings: AlgorithmConfig, actions: gym.Space[Any] = TIERS
) -> tuple[Learner, Learner]:
    """Two learners with the same weights, target networks included."""
    one, other = (learner_of(kind, settings.copy(), actions) for kind in (ours, stock))
    other.module.set_state(one.module.get_state())
    return one, other


def observations(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, WIDTH)).astype(np.float32)
    rows[:, CAP_COLUMN] = random.uniform(0.0, 1.2, count)
    return rows


def ppo_columns(learner: Learner, seed: int = 0) -> dict[str, torch.Tensor]:
    """Steps of a policy a little other than the learner's, so that ratios are clipped now and then."""
    random = np.random.default_rng(seed)
    rows = torch.from_numpy(observations(ROWS, seed))
    module = learner.module[DEFAULT_MODULE_ID]
    with torch.no_grad():
        inputs = module.forward_train({"obs": rows})["action_dist_inputs"]
        inputs = inputs + 0.2 * torch.from_numpy(random.normal(size=inputs.shape).astype(np.float32))
        law = module.get_exploration_action_dist_cls().from_logits(inputs)
        torch.manual_seed(seed)
        actions = law.sample()
        return {
            "obs": rows,
            "actions": actions,
            "action_logp": law.logp(actions),
            "action_dist_inputs": inputs,
            "advantages": torch.from_numpy(random.normal(size=ROWS).astype(np.float32)),
            "value_targets": torch.from_numpy(random.normal(size=ROWS).astype(np.float32)),
        }


def multi_agent(columns: dict[str, torch.Tensor]) -> MultiAgentBatch:
    return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(dict(columns))}, env_steps=ROWS)


def dqn_batch(seed: int = 0) -> MultiAgentBatch:
    random = np.random.default_rng(seed)
    following = observations(ROWS, seed + 1)
    following[::5, CAP_COLUMN] = 0.0
    return train_batch(
        {
            "obs": observations(ROWS, seed),
            "new_obs": following,
            "actions": random.integers(6, size=ROWS),  # forbidden ones among them
            "rewards": random.normal(size=ROWS).astype(np.float32),
            "terminateds": random.random(ROWS) < 0.2,
        }
    )


def assert_same_weights(one: Learner, other: Learner) -> None:
    ours, theirs = one.module.get_state()[DEFAULT_MODULE_ID], other.module.get_state()[DEFAULT_MODULE_ID]
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=1e-5, err_msg=name)


def assert_same_figures(ours: Any, theirs: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = float(theirs[DEFAULT_MODULE_ID][name].peek())
        assert float(ours[DEFAULT_MODULE_ID][name].peek()) == pytest.approx(value, rel=1e-4, abs=1e-5), name


CUTS = [{}, {"minibatch_size": 80, "num_epochs": 3}, {"minibatch_size": 96, "num_epochs": 2}]
PPO_FIGURES = (
    "policy_loss",
    "vf_loss",
    "vf_loss_unclipped",
    "vf_explained_var",
    "entropy",
    "mean_kl_loss",
    "total_loss",
    "gradients_default_optimizer_global_norm",
    "curr_entropy_coeff",
    "default_optimizer_learning_rate",
)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("actions", [TIERS, BAND])
@pytest.mark.parametrize(
    "training",
    [
        {},
        {"use_kl_loss": True, "kl_coeff": 0.5, "kl_target": 0.002, "entropy_coeff": 0.0},
        # No step's error lies on the very edge of this clip, where rounding would decide.
        {"vf_clip_param": 0.7, "vf_loss_coeff": 0.3, "grad_clip": None},
        {"lr": [[0, 3e-3], [200, 1e-3]], "entropy_coeff": [[0, 0.1], [200, 0.0]]},
    ],
)
def test_ppo_learns_what_rllibs_own_learner_learns(
    training: dict[str, Any], actions: gym.Space[Any], cut: dict[str, int]
) -> None:
    ours, stock = pair(ArrayPPOLearner, PPOTorchLearner, ppo(actions, **training), actions)
    assert ours._compiles()
    for seed in range(2):
        columns = ppo_columns(ours, seed)
        if not cut:  # RLlib's own batch has a mask where it went through its connectors, and then minibatches
            columns |= {"loss_mask": torch.ones(ROWS, dtype=torch.bool)}
        figures = ours.update(batch=multi_agent(columns), timesteps=STEPS, **cut)
        theirs = stock.update(batch=multi_agent(columns), timesteps=STEPS, **cut)
        assert_same_weights(ours, stock)
        names = PPO_FIGURES if ours.config.grad_clip else tuple(n for n in PPO_FIGURES if "norm" not in n)
        assert_same_figures(figures, theirs, names)
        if training.get("use_kl_loss"):
            assert_same_figures(figures, theirs, ("curr_kl_coeff",))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("training", [{}, {"double_q": False, "gamma": 0.9}, {"grad_clip": 0.1, "lr": 0.01}])
def test_dqn_learns_what_rllibs_own_learner_learns(training: dict[str, Any], cut: dict[str, int]) -> None:
    settings = dqn(**training)
    ours, stock = pair(ArrayDQNLearner, DQNTorchLearner, settings)
    assert ours._compiles()
    names = ("qf_loss", "qf_mean", "qf_max", "qf_min", "td_error_mean", "total_loss")
    for seed in range(3):
        figures = ours.update(batch=dqn_batch(seed), timesteps=STEPS, **cut)
        theirs = stock.update(batch=dqn_batch(seed), timesteps=STEPS, **cut)
        assert_same_weights(ours, stock)
        assert_same_figures(figures, theirs, names)


def test_target_network_follows_rllibs_rule() -> None:
    ours, stock = pair(ArrayDQNLearner, DQNTorchLearner, dqn(target_network_update_freq=50))
    for steps in (40, 60, 100, 109, 110):
        for learner in (ours, stock):
            learner.update(batch=dqn_batch(steps), timesteps={"num_env_steps_sampled_lifetime": steps})
        assert_same_weights(ours, stock)
        following = all(
            torch.equal(a, b)
            for main, target in ours.module[DEFAULT_MODULE_ID].get_target_network_pairs()
            for a, b in zip(main.parameters(), target.parameters(), strict=True)
        )
        assert following == (steps in (60, 110))


@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_state_goes_over_to_rllibs_own_learner_and_back(kind: str) -> None:
    ours_class, stock_class = (
        (ArrayPPOLearner, PPOTorchLearner) if kind == "ppo" else (ArrayDQNLearner, DQNTorchLearner)
    )
    settings = ppo() if kind == "ppo" else dqn()
    ours, stock = pair(ours_class, stock_class, settings)

    def learn(learner: Learner, seed: int) -> None:
        batch = multi_agent(columns[seed]) if kind == "ppo" else dqn_batch(seed)
        learner.update(batch=batch, timesteps=STEPS, minibatch_size=64)

    columns = [ppo_columns(ours, seed) for seed in range(3)] if kind == "ppo" else []
    learn(ours, 0)
    stock.set_state(ours.get_state())
    for learner in (ours, stock):
        learn(learner, 1)
    assert_same_weights(ours, stock)
    again = learner_of(ours_class, settings.copy(), TIERS)
    again.set_state(stock.get_state())
    for learner in (again, stock):
        learn(learner, 2)
    assert_same_weights(again, stock)


def test_epochs_are_permutations_one_after_another_and_the_last_minibatch_is_filled_up() -> None:
    learner = learner_of(ArrayPPOLearner, ppo(), TIERS)
    order = learner._order(10, 24, True)
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert not np.array_equal(order[:10], np.arange(10))
    assert len(set(order[20:])) == 4
    np.testing.assert_array_equal(learner._order(4, 10, False), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1])


def test_other_architectures_and_losses_take_rllibs_own_way() -> None:
    plain = ppo_columns(learner_of(ArrayPPOLearner, ppo(), TIERS))
    for model in ({"fcnet_activation": "tanh"}, {"vf_share_layers": True}):
        ours, stock = pair(ArrayPPOLearner, PPOTorchLearner, ppo(model=model))
        assert not ours._compiles()
        for learner in (ours, stock):
            learner.update(batch=multi_agent(plain), timesteps=STEPS, minibatch_size=80, num_epochs=2)
        assert_same_weights(ours, stock)
    ours, stock = pair(ArrayDQNLearner, DQNTorchLearner, dqn(td_error_loss_fn="huber"))
    assert not ours._compiles()
    for learner in (ours, stock):
        learner.update(batch=dqn_batch(), timesteps=STEPS, minibatch_size=80)
    assert_same_weights(ours, stock)


def test_minibatch_whose_gradient_is_not_finite_is_passed_over() -> None:
    learner = learner_of(ArrayPPOLearner, ppo(), TIERS)
    columns = ppo_columns(learner)
    columns["advantages"][100] = torch.nan
    learner.update(batch=multi_agent(columns), timesteps=STEPS, minibatch_size=80)
    state = learner.module.get_state()[DEFAULT_MODULE_ID]
    assert all(np.isfinite(value).all() for value in state.values())
    (step,) = {int(each["step"]) for each in learner.get_optimizer(DEFAULT_MODULE_ID).state.values()}
    assert step == 3


def test_what_the_learners_would_pass_over_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_learners"):
        learner_of(ArrayPPOLearner, ppo().learners(num_learners=2), TIERS)
    with pytest.raises(ConfigError, match="learner_connector"):
        learner_of(ArrayPPOLearner, ppo().learners(learner_connector=lambda *_: []), TIERS)
    with pytest.raises(ConfigError, match="n_step"):
        learner_of(ArrayDQNLearner, dqn(n_step=3), TIERS)
    learner = learner_of(ArrayPPOLearner, ppo(), TIERS)
    with pytest.raises(ConfigError, match="explore"):
        learner.update(episodes=[replace(rollout(), logp=None)], timesteps=STEPS)


def small_config(algo: str, **more: Any) -> AlgorithmConfig:
    limits, session = oracle_market.limits("L1"), oracle_market.session("L1")
    small = {"hidden": [8], "environments": 8, "report_every": 400, "train_batch_size": 64} | more
    small |= {"learning_starts": 50} if algo == "dqn" else {"minibatch_size": 32}
    config = parse(
        {"algo": algo, algo: small, "limits": limits.model_dump(), "session": session.model_dump()}
    )
    return rllib_config(oracle_market.market("L1", 500, edge=1.0, seed=1), config, 2_000, seed=0)


@pytest.mark.parametrize("algo", ["dqn", "ppo"])
def test_restored_algorithm_goes_on_with_weights_moments_and_schedules(
    ray_cluster: str, tmp_path: Path, algo: str
) -> None:
    settings = small_config(algo)
    one, other = settings.copy().build_algo(), settings.copy().build_algo()
    try:
        first = one.train()
        one.save_to_path(str(tmp_path / "saved"))
        other.restore_from_path(str(tmp_path / "saved"))
        ours, theirs = (each.learner_group._learner.get_state() for each in (one, other))
        for part in ("rl_module", "optimizer"):
            for a, b in zip(tree.flatten(ours[part]), tree.flatten(theirs[part]), strict=True):
                np.testing.assert_array_equal(a, b)
        second = other.train()
        steps = [r["num_env_steps_sampled_lifetime"] for r in (first, second)]
        rates = [r["learners"][DEFAULT_MODULE_ID]["default_optimizer_learning_rate"] for r in (first, second)]
        assert steps[1] >= steps[0] + 400
        assert 0.0 < rates[1] < rates[0]
    finally:
        one.stop()
        other.stop()


@pytest.mark.long
def test_one_remote_learner_learns_too(ray_cluster: str) -> None:
    algorithm = small_config("ppo").learners(num_learners=1, num_cpus_per_learner=0).build_algo()
    try:
        learned = algorithm.train()["learners"][DEFAULT_MODULE_ID]
        assert np.isfinite(learned["total_loss"])
    finally:
        algorithm.stop()


def rollout(steps: int = 9, accounts: int = 4, seed: int = 0) -> Rollout:
    """Episodes that end in either way, at either edge, in the middle, or not at all."""
    random = np.random.default_rng(seed)
    ends = np.zeros((steps, accounts), dtype=np.bool_)
    ends[[3, 8], 0] = ends[0, 1] = ends[[4, 6], 3] = True
    truncated = ends & (random.random(ends.shape) < 0.5)
    valid = np.ones_like(ends)
    valid[1:] = ~ends[:-1]
    return Rollout(
        observations((steps + 1) * accounts, seed).reshape(steps + 1, accounts, WIDTH),
        random.integers(6, size=ends.shape),
        random.normal(size=ends.shape).astype(np.float32),
        ends & ~truncated,
        truncated,
        valid,
        0,
        random.normal(size=ends.shape).astype(np.float32),
        random.normal(size=(*ends.shape, 6)).astype(np.float32),
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("gamma", "lambda_"), [(1.0, 1.0), (0.9, 0.8), (0.97, 0.0)])
def test_advantages_are_rllibs_episode_by_episode(seed: int, gamma: float, lambda_: float) -> None:
    sampled = rollout(seed=seed)
    values = np.random.default_rng(9).normal(size=(10, 4)).astype(np.float32)
    ours = advantages(sampled, values, gamma, lambda_)
    seen = np.zeros_like(sampled.valid)
    for n in range(4):
        first = 0
        while first < 9:
            if not sampled.valid[first, n]:
                first += 1
                continue
            over = (sampled.terminated | sampled.truncated)[first:, n]
            last = first + int(over.argmax()) if over.any() else 8
            rows = slice(first, last + 1)
            terminated = np.append(sampled.terminated[rows, n], False).astype(np.float32)
            cut = np.append(sampled.truncated[rows, n], False).astype(np.float32)
            cut[-2] = 1.0 - terminated[-2]
            lengthened = values[first : last + 2, n]
            targets = compute_value_targets(
                lengthened, np.append(sampled.rewards[rows, n], 0.0), terminated, cut, gamma, lambda_
            )
            np.testing.assert_allclose(ours[rows, n], (targets - lengthened)[:-1], atol=1e-5)
            seen[rows, n] = True
            first = last + 1
    np.testing.assert_array_equal(seen, sampled.valid)


def test_rollouts_become_valid_steps_with_standardised_advantages() -> None:
    learner = learner_of(ArrayPPOLearner, ppo(gamma=0.9, lambda_=0.8), TIERS)
    sampled = [rollout(), rollout(seed=3)]
    columns = {name: tensor.numpy() for name, tensor in learner.columns_of(sampled).items()}
    steps = sum(len(each) for each in sampled)
    assert {len(column) for column in columns.values()} == {steps}
    module = learner.module[DEFAULT_MODULE_ID]
    raw = []
    for each in sampled:
        with torch.no_grad():
            values = module.compute_values({"obs": torch.from_numpy(each.observations.reshape(-1, WIDTH))})
        values = values.numpy().reshape(10, 4)
        raw.append(advantages(each, values, 0.9, 0.8)[each.valid])
        targets = raw[-1] + values[:-1][each.valid]
        first = 0 if len(raw) == 1 else len(raw[0])
        np.testing.assert_allclose(columns["value_targets"][first : first + len(targets)], targets, rtol=1e-6)
    np.testing.assert_allclose(columns["advantages"], standardised(np.concatenate(raw)), rtol=1e-6)
    assert columns["advantages"].mean() == pytest.approx(0.0, abs=1e-6)
    assert columns["advantages"].std() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_array_equal(standardised(np.full(3, 2.0, dtype=np.float32)), 0.0)


@pytest.mark.long
@pytest.mark.parametrize("algo", ["dqn", "ppo"])
def test_algorithm_is_a_tune_trainable(ray_cluster: str, tmp_path: Path, algo: str) -> None:
    settings = small_config(algo)
    found = tune.Tuner(
        settings.algo_class,
        param_space=settings,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path), stop={"training_iteration": 2}, verbose=0, failure_config=None
        ),
    ).fit()
    (result,) = found
    assert result.error is None
    assert result.metrics["training_iteration"] == 2
    assert result.metrics["num_env_steps_sampled_lifetime"] >= 800
    learned = result.metrics["learners"][DEFAULT_MODULE_ID]
    assert np.isfinite(learned["total_loss"])
    assert result.metrics["env_runners"]["episode_len_mean"] == pytest.approx(30, abs=8)
