"""A training run in RLlib's terms: environment, network, sampler, learner and replay of the new API stack.

Knows nothing of scores or checkpoints. The three parts, environment, module and algorithm, do not know each
other: another environment or module goes with the same algorithm.
"""

from collections.abc import Callable
from typing import Any

import ray
from gymnasium.vector import VectorEnv
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env

from envs.observation import OBSERVATION_FIELDS
from envs.signal_table import SignalTable
from envs.sizing_env import SizingVectorEnv
from policies.modules import MaskedDQN, MaskedPPO, standardisation
from tuning.config import DQNSettings, FineTuneSettings, PPOSettings, TrainConfig
from tuning.dqn import ArrayDQN
from tuning.learner import ArrayDQNLearner, ArrayPPOLearner
from tuning.ppo import ArrayPPO
from tuning.rollout import ArrayEnvRunner
from tuning.samplers import ANSWER_WITHIN

NO_CLIP = float("inf")


def rllib_config(table: SignalTable, config: TrainConfig, total: int, seed: int) -> AlgorithmConfig:
    """The configuration of a run of `total` environment steps on `table`.

    Registers the environment, and puts the table into Ray's object store, where remote samplers find it too.
    Raises ConfigError for an algorithm that is not trained.
    """
    settings = config.learning
    width = observed(config)
    if isinstance(settings, DQNSettings):
        algorithm = dqn_config(settings, width, total, seed)
        module = sizing_module(MaskedDQN, table, config, settings.hidden)
    else:
        algorithm = ppo_config(settings, total)
        module = sizing_module(MaskedPPO, table, config, settings.hidden)
    return assembled(algorithm, settings, sizing_environment(table, config), module, seed)


def observed(config: TrainConfig) -> int:
    """The numbers in one observation."""
    return len(OBSERVATION_FIELDS) - (not config.session.session_left)


def sizing_environment(table: SignalTable, config: TrainConfig) -> str:
    """The name under which RLlib finds the vector environment of `table`."""
    stream = ray.put(table)

    def environment(context: dict[str, Any]) -> SizingVectorEnv:
        return SizingVectorEnv(
            ray.get(stream),
            config.limits,
            context["num_envs"],
            config.session,
            counterfactual=config.algo == "dqn" and config.dqn.counterfactual,
        )

    # Runs side by side on one cluster each have their own.
    return registered(f"ballast-sizing-{stream.hex()}", environment)


def registered(name: str, environment: Callable[[dict[str, Any]], VectorEnv[Any, Any, Any]]) -> str:
    """Give RLlib a vector environment, made from a mapping that holds ``num_envs``; returns its name."""
    register_env(name, environment)
    return name


def sizing_module(
    kind: type[Any], table: SignalTable, config: TrainConfig, hidden: tuple[int, ...], **more: Any
) -> RLModuleSpec:
    """A module of policies.modules whose inputs are standardised by `table`; `more`: keys of RLlib's own."""
    mean, scale = standardisation(table.market, observed(config))
    return RLModuleSpec(
        module_class=kind,
        model_config={
            "fcnet_hiddens": list(hidden),
            "fcnet_activation": "relu",
            "mean": mean.tolist(),
            "scale": scale.tolist(),
            "allow_skip": config.limits.allow_skip,
            **more,
        },
    )


def dqn_config(settings: DQNSettings, width: int, total: int, seed: int) -> DQNConfig:
    """The algorithm alone: DQN over `total` environment steps of `width` observed numbers."""
    return (
        DQNConfig(algo_class=ArrayDQN)
        .env_runners(rollout_fragment_length=1)
        .training(
            learner_class=ArrayDQNLearner,
            lr=[[0, settings.learning_rate], [total, settings.final_learning_rate]],
            gamma=settings.gamma,
            train_batch_size=settings.train_batch_size,
            training_intensity=settings.training_intensity,
            num_steps_sampled_before_learning_starts=settings.learning_starts,
            target_network_update_freq=settings.target_update,
            tau=settings.target_rate,
            epsilon=[[0, settings.epsilon], [total, settings.final_epsilon]],
            double_q=settings.double_q,
            dueling=False,
            td_error_loss_fn="mse",  # outcomes are skewed: a Huber loss learns something near their median
            replay_buffer_config={
                "type": "EpisodeReplayBuffer",  # the one kind RLlib lets pass; ArrayDQN makes its own
                "capacity": settings.replay_capacity,
                "width": width,
                "seed": seed,
            },
        )
    )


def ppo_config(settings: PPOSettings | FineTuneSettings, total: int) -> PPOConfig:
    """The algorithm alone: PPO over `total` environment steps, of any observation and action space."""
    return (
        PPOConfig(algo_class=ArrayPPO)
        .env_runners(rollout_fragment_length="auto")
        .training(
            learner_class=ArrayPPOLearner,
            lr=[[0, settings.learning_rate], [total, settings.final_learning_rate]],
            gamma=settings.gamma,
            lambda_=settings.lambda_,
            train_batch_size=settings.train_batch_size,
            num_epochs=settings.epochs,
            minibatch_size=settings.minibatch_size,
            clip_param=settings.clip,
            entropy_coeff=settings.entropy,
            vf_loss_coeff=settings.value_loss,
            vf_clip_param=NO_CLIP if settings.value_clip is None else settings.value_clip,
            grad_clip=settings.grad_clip,
            use_kl_loss=settings.use_kl,
        )
    )


def assembled(
    algorithm: AlgorithmConfig,
    settings: DQNSettings | PPOSettings | FineTuneSettings,
    environment: str,
    module: RLModuleSpec,
    seed: int,
) -> AlgorithmConfig:
    """The whole configuration: an algorithm, the environment of that name, and the module it trains."""
    return (
        algorithm.environment(environment)
        .env_runners(
            env_runner_cls=ArrayEnvRunner,
            num_env_runners=settings.env_runners,
            num_envs_per_env_runner=settings.environments,
            gym_env_vectorize_mode="vector_entry_point",
        )
        .fault_tolerance(restart_failed_env_runners=True, env_runner_health_probe_timeout_s=ANSWER_WITHIN)
        # Neither means anything for tiers; a continuous action is clamped by the environment's own guardrail.
        .environment(normalize_actions=False, clip_actions=False)
        .rl_module(rl_module_spec=module)
        .reporting(min_sample_timesteps_per_iteration=settings.report_every, min_time_s_per_iteration=None)
        .debugging(seed=seed, log_level="ERROR")
    )
