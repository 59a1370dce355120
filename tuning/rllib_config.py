"""A training run in RLlib's terms: environment, network, learner and replay of the new API stack.

Knows nothing of scores or checkpoints.
"""

from typing import Any

import ray
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env

from envs.observation import OBSERVATION_FIELDS
from envs.signal_table import SignalTable
from envs.sizing_env import SizingVectorEnv
from policies.modules import MaskedDQN, standardisation
from tuning.config import TrainConfig
from tuning.dqn import ArrayDQN
from tuning.rollout import ArrayEnvRunner


def rllib_config(table: SignalTable, config: TrainConfig, total: int, seed: int) -> DQNConfig:
    """The configuration of a run of `total` environment steps on `table`.

    Registers the environment, and puts the table into Ray's object store, where remote samplers find it too.
    """
    settings = config.dqn
    stream = ray.put(table)

    def environment(context: dict[str, Any]) -> SizingVectorEnv:
        return SizingVectorEnv(ray.get(stream), config.limits, context["num_envs"], config.session)

    name = f"ballast-sizing-{stream.hex()}"  # runs side by side on one cluster each have their own
    register_env(name, environment)
    width = len(OBSERVATION_FIELDS) - (not config.session.session_left)
    mean, scale = standardisation(table.market, width)
    module = RLModuleSpec(
        module_class=MaskedDQN,
        model_config={
            "fcnet_hiddens": list(settings.hidden),
            "fcnet_activation": "relu",
            "mean": mean.tolist(),
            "scale": scale.tolist(),
            "allow_skip": config.limits.allow_skip,
        },
    )
    return (
        DQNConfig(algo_class=ArrayDQN)
        .environment(name)
        .env_runners(
            env_runner_cls=ArrayEnvRunner,
            num_env_runners=settings.env_runners,
            num_envs_per_env_runner=settings.environments,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=1,
        )
        # Neither means anything for tiers, and looking after it took RLlib longer than the step itself.
        .environment(normalize_actions=False, clip_actions=False)
        .training(
            lr=[[0, settings.learning_rate], [total, settings.final_learning_rate]],
            gamma=settings.gamma,
            train_batch_size=settings.train_batch_size,
            training_intensity=settings.training_intensity,
            num_steps_sampled_before_learning_starts=settings.learning_starts,
            target_network_update_freq=settings.target_update,
            epsilon=[[0, settings.epsilon], [total, settings.final_epsilon]],
            double_q=settings.double_q,
            dueling=False,
            td_error_loss_fn="mse",  # outcomes are skewed: a Huber loss learns something near their median
            replay_buffer_config={
                "type": "tuning.replay.TransitionReplay",
                "capacity": settings.replay_capacity,
                "width": width,
                "seed": seed,
            },
        )
        .rl_module(rl_module_spec=module)
        .reporting(min_sample_timesteps_per_iteration=settings.report_every, min_time_s_per_iteration=None)
        .debugging(seed=seed, log_level="ERROR")
    )
