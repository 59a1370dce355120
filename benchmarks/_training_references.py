"""The alternatives that `benchmarks.training` measures against, on the same environment, batch and networks.

Stock RLlib, Stable-Baselines3, and a bare torch loop that leaves nothing but the arithmetic. Knows nothing of
how they are timed.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from stable_baselines3 import PPO as StablePPO
from stable_baselines3.common.vec_env import VecEnv

from envs.sizing_env import Episodes, SizingVectorEnv, spaces
from tuning.config import DQNSettings, PPOSettings

Rows = npt.NDArray[np.float32]
Work = Callable[[], int]  # does some training or sampling and tells how many environment steps it took

STOCK_MODEL = {"fcnet_activation": "relu", "vf_share_layers": False}


class StableEnv(VecEnv):
    """The sizing environment as Stable-Baselines3 takes it: finished accounts start again within the step."""

    def __init__(self, env: SizingVectorEnv) -> None:
        self.episodes: Episodes = env.episodes
        self.random = np.random.default_rng(0)
        self.told: list[dict[str, Any]] = [{} for _ in range(env.num_envs)]
        super().__init__(env.num_envs, *spaces(env.episodes.session))

    def reset(self) -> Rows:
        """Start every account."""
        self.episodes.start_anywhere(np.ones(self.num_envs, dtype=np.bool_), self.random)
        return self.episodes.look()

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Hold the actions."""
        self.actions = actions

    def step_wait(self) -> tuple[Rows, npt.NDArray[Any], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Size one signal per account."""
        reward = self.episodes.act(self.actions)
        over = self.episodes.over.copy()
        if over.any():
            self.episodes.start_anywhere(over, self.random)
        return self.episodes.look(), reward, over, self.told

    def close(self) -> None:
        """Nothing to give back."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """None of the accounts has attributes of its own."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """See `get_attr`."""

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """See `get_attr`."""
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Never."""
        return [False] * self.num_envs


def stable_baselines(env: SizingVectorEnv, settings: PPOSettings, rounds: int) -> Work:
    """Stable-Baselines3's PPO: `rounds` batches a call."""
    net = list(settings.hidden)
    model = StablePPO(
        "MlpPolicy",
        StableEnv(env),
        learning_rate=settings.learning_rate,
        n_steps=settings.train_batch_size // env.num_envs,
        batch_size=settings.minibatch_size,
        n_epochs=settings.epochs,
        gamma=settings.gamma,
        gae_lambda=settings.lambda_,
        clip_range=settings.clip,
        ent_coef=settings.entropy,
        vf_coef=settings.value_loss,
        max_grad_norm=settings.grad_clip or np.inf,
        policy_kwargs={"net_arch": {"pi": net, "vf": net}, "activation_fn": torch.nn.ReLU},
        device="cpu",
        seed=0,
    )

    def learn() -> int:
        model.learn(rounds * settings.train_batch_size, reset_num_timesteps=False)
        return rounds * settings.train_batch_size

    return learn


def stock_ppo(ours: AlgorithmConfig, environments: int) -> PPOConfig:
    """RLlib's PPO with the numbers of `ours`, its own runner, learner and module."""
    return (
        PPOConfig()
        .environment(ours.env, normalize_actions=False, clip_actions=False)
        .env_runners(**_runners(environments))
        .training(
            lr=ours.lr,
            gamma=ours.gamma,
            lambda_=ours.lambda_,
            train_batch_size=ours.train_batch_size,
            num_epochs=ours.num_epochs,
            minibatch_size=ours.minibatch_size,
            clip_param=ours.clip_param,
            entropy_coeff=ours.entropy_coeff,
            vf_loss_coeff=ours.vf_loss_coeff,
            vf_clip_param=ours.vf_clip_param,
            grad_clip=ours.grad_clip,
            use_kl_loss=ours.use_kl_loss,
        )
        .rl_module(model_config=_model(ours))
        .reporting(
            min_sample_timesteps_per_iteration=ours.min_sample_timesteps_per_iteration,
            min_time_s_per_iteration=None,
        )
        .debugging(seed=0, log_level="ERROR")
    )


def stock_dqn(ours: AlgorithmConfig, settings: DQNSettings) -> DQNConfig:
    """RLlib's DQN with the numbers of `ours`, its own runner, learner, module and uniform replay."""
    return (
        DQNConfig()
        .environment(ours.env, normalize_actions=False, clip_actions=False)
        .env_runners(**_runners(settings.environments) | {"rollout_fragment_length": 1})
        .training(
            lr=ours.lr,
            gamma=ours.gamma,
            train_batch_size=ours.train_batch_size,
            training_intensity=ours.training_intensity,
            num_steps_sampled_before_learning_starts=ours.num_steps_sampled_before_learning_starts,
            target_network_update_freq=ours.target_network_update_freq,
            epsilon=ours.epsilon,
            double_q=ours.double_q,
            dueling=False,
            td_error_loss_fn="mse",
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": settings.replay_capacity},
        )
        .rl_module(model_config=_model(ours))
        .reporting(
            min_sample_timesteps_per_iteration=ours.min_sample_timesteps_per_iteration,
            min_time_s_per_iteration=None,
        )
        .debugging(seed=0, log_level="ERROR")
    )


def _runners(environments: int) -> dict[str, Any]:
    return {
        "env_runner_cls": SingleAgentEnvRunner,
        "num_env_runners": 0,
        "num_envs_per_env_runner": environments,
        "gym_env_vectorize_mode": "vector_entry_point",
    }


def _model(ours: AlgorithmConfig) -> dict[str, Any]:
    return STOCK_MODEL | {"fcnet_hiddens": ours.rl_module_spec.model_config["fcnet_hiddens"]}


def dense(sizes: list[int]) -> torch.nn.Sequential:
    """A dense ReLU network."""
    layers: list[torch.nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def bare_torch(env: SizingVectorEnv, settings: PPOSettings, rounds: int) -> Work:
    """PPO in plain eager torch on the bare environment: `rounds` batches a call.

    What is left when a framework costs nothing: one forward per step, tensors for the batch, one advantage
    pass, one backward per minibatch.
    """
    steps, accounts = settings.train_batch_size // env.num_envs, env.num_envs
    width = env.single_observation_space.shape[0]  # type: ignore[index]
    actor, critic = dense([width, *settings.hidden, 6]), dense([width, *settings.hidden, 1])
    parameters = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)
    observations = torch.zeros((steps + 1, accounts, width))
    actions = torch.zeros((steps, accounts), dtype=torch.int64)
    logp, rewards, ends = (torch.zeros((steps, accounts)) for _ in range(3))
    observations[0] = torch.from_numpy(env.reset(seed=0)[0])

    def sample() -> None:
        observations[0] = observations[-1]
        with torch.inference_mode():
            for step in range(steps):
                law = torch.log_softmax(actor(observations[step]), -1)
                drawn = torch.multinomial(law.exp(), 1)
                actions[step] = drawn[:, 0]
                logp[step] = law.gather(1, drawn)[:, 0]
                seen, reward, over, _, _ = env.step(drawn[:, 0].numpy())
                observations[step + 1] = torch.from_numpy(seen)
                rewards[step], ends[step] = torch.from_numpy(reward), torch.from_numpy(over)

    def batch() -> list[torch.Tensor]:
        with torch.no_grad():
            values = critic(observations)[..., 0]
            goes_on = 1.0 - ends
            advantage = rewards + settings.gamma * goes_on * values[1:] - values[:-1]
            for step in range(steps - 2, -1, -1):
                carried = settings.gamma * settings.lambda_ * goes_on[step]
                advantage[step] += carried * advantage[step + 1]
            targets = (advantage + values[:-1]).reshape(-1)
            advantage = (advantage - advantage.mean()) / advantage.std()
        flat = observations[:-1].reshape(-1, width)
        return [flat, actions.reshape(-1), logp.reshape(-1), advantage.reshape(-1), targets]

    def learn() -> int:
        for _ in range(rounds):
            sample()
            columns = batch()
            for _ in range(settings.epochs):
                for rows in torch.split(torch.randperm(len(columns[0])), settings.minibatch_size):
                    seen, drawn, old, advantage, target = (column[rows] for column in columns)
                    law = torch.log_softmax(actor(seen), -1)
                    ratio = torch.exp(law.gather(1, drawn[:, None])[:, 0] - old)
                    held = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip)
                    objective = torch.min(advantage * ratio, advantage * held).mean()
                    error = (critic(seen)[:, 0] - target).square().mean()
                    optimizer.zero_grad()
                    (settings.value_loss * error - objective).backward()
                    torch.nn.utils.clip_grad_norm_(parameters, settings.grad_clip or np.inf)
                    optimizer.step()
        return rounds * settings.train_batch_size

    return learn
