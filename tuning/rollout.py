"""RLlib's environment runner over arrays: T steps of N environments in one block.

Declares: T, steps of a rollout; N, environments. Knows nothing of sizing, nor of how an algorithm learns from
a rollout. RLlib's own runner keeps one Python object per environment and sends every step through a chain of
connectors; whatever needs those is refused here.
"""

import logging
import time
from dataclasses import dataclass
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import DEFAULT_AGENT_ID, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.env_runner import NUM_ENV_STEP_FAILURES_LIFETIME
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils import force_list
from ray.rllib.utils.metrics import (
    ENV_STEP_TIMER,
    EPISODE_DURATION_SEC_MEAN,
    EPISODE_LEN_MAX,
    EPISODE_LEN_MEAN,
    EPISODE_LEN_MIN,
    EPISODE_RETURN_MAX,
    EPISODE_RETURN_MEAN,
    EPISODE_RETURN_MIN,
    RLMODULE_INFERENCE_TIMER,
)
from ray.rllib.utils.spaces.space_utils import clip_action, unsquash_action

from market.compiled import compiled
from market.errors import ConfigError

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

EPISODE_CALLBACKS: Final = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")
DECIDED: Final = (Columns.ACTIONS, Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS)
ALTERNATIVES: Final = ("legal", "rewards", "observations")  # [N, actions, ...], in the info of a step
FIRST_ROWS: Final = 64  # of a rollout whose length is not known beforehand

logger = logging.getLogger("ray.rllib")


@dataclass(frozen=True, eq=False)
class Rollout:
    """T steps of N environments. RLlib takes it where it takes an episode: it can tell its steps."""

    observations: Array  # float32[T+1, N, ...]; after a step that ended an episode, its true last observation
    actions: Array  # [T, N, ...], as drawn from the policy
    rewards: npt.NDArray[np.float32]  # [T, N]
    terminated: Bools  # [T, N]
    truncated: Bools  # [T, N]
    valid: Bools  # [T, N]; False where an environment was reset, or its step is not to be learned from
    weights_seq_no: int  # of the policy that acted
    logp: npt.NDArray[np.float32] | None = None  # [T, N], of the actions; a stochastic policy's alone
    action_dist_inputs: npt.NDArray[np.float32] | None = None  # [T, N, ...], the same
    alternatives: dict[str, Array] | None = None  # what other actions would have brought, if told: see below

    def __len__(self) -> int:
        return int(np.count_nonzero(self.valid))

    def env_steps(self) -> int:
        """Steps taken; resets are none."""
        return len(self)

    def agent_steps(self) -> int:
        """The same, for RLlib."""
        return len(self)

    def transitions(self) -> dict[str, Array]:
        """Its steps in time order: columns by RLlib's names, [steps, ...] each.

        Where the environment told them, all legal actions of a step take the place of the one taken.
        """
        valid = self.valid
        if self.alternatives is not None:
            chosen = self.alternatives["legal"] & valid[..., None]
            step, account, action = np.nonzero(chosen)
            return {
                Columns.OBS: self.observations[step, account],
                Columns.NEXT_OBS: self.alternatives["observations"][chosen],
                Columns.ACTIONS: action,
                Columns.REWARDS: self.alternatives["rewards"][chosen].astype(np.float32),
                Columns.TERMINATEDS: self.terminated[step, account],
            }
        return {
            Columns.OBS: self.observations[:-1][valid],
            Columns.NEXT_OBS: self.observations[1:][valid],
            Columns.ACTIONS: self.actions[valid],
            Columns.REWARDS: self.rewards[valid],
            Columns.TERMINATEDS: self.terminated[valid],
        }


class ArrayEnvRunner(SingleAgentEnvRunner):
    """Samples rollouts from any vector environment that resets a finished episode on the step after its end.

    One policy forward per step. `sample` takes RLlib's own arguments and returns a list of `Rollout`: one, or
    one more for every failure of the environment on the way. Sampling a number of episodes keeps whole ones
    alone. Metrics have RLlib's names and values. Raises ConfigError for a configuration whose pieces would be
    passed over in silence.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        """See `ray.rllib.env.single_agent_env_runner.SingleAgentEnvRunner`."""
        _refuse(config)
        super().__init__(config=config, **kwargs)
        if self.module is not None:
            if self.module.is_stateful():
                raise ConfigError(
                    "rl_module_spec", type(self.module).__name__, "give a module without a recurrent state"
                )
            self.module.eval()  # once: RLlib would switch back and forth around every forward pass

    _needs_initial_reset: bool

    def make_env(self) -> None:
        """See `ray.rllib.env.env_runner.EnvRunner.make_env`."""
        super().make_env()
        mode = self.env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.NEXT_STEP:
            raise ConfigError(
                "environment.autoreset_mode", mode, "give a vector environment with AutoresetMode.NEXT_STEP"
            )
        space, actions = self.env.single_observation_space, self.env.single_action_space
        if not isinstance(space, gym.spaces.Box):
            raise ConfigError("environment.observation_space", space, "give a Box")
        if not isinstance(actions, gym.spaces.Box | gym.spaces.Discrete):
            raise ConfigError("environment.action_space", actions, "give a Box or a Discrete")

    def _reset_envs_and_episodes(self, explore: bool) -> None:
        seed = self._seed if self._needs_initial_reset else None
        observation, _ = self._try_env_reset(seed=seed)
        self._observation = np.asarray(observation, dtype=np.float32)
        self._over = np.zeros(self.num_envs, dtype=np.bool_)
        # What episodes have come to in earlier rollouts: length, return and seconds.
        self._so_far = np.zeros((3, self.num_envs))
        self._needs_initial_reset = False

    def _sample(
        self,
        *,
        num_timesteps: int = 0,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[Rollout]:
        if force_reset or num_episodes is not None or self._needs_initial_reset:
            self._reset_envs_and_episodes(explore)
        if num_episodes is not None:
            self._needs_initial_reset = True
        rollouts: list[Rollout] = []
        stepped = ended = row = 0
        rows = FIRST_ROWS if num_episodes is not None else -(-num_timesteps // self.num_envs) + 1
        asked = num_timesteps if num_episodes is None else num_episodes
        columns = _Columns(rows)
        columns.write(0, observations=self._observation)
        inside, acting = 0.0, 0.0
        with torch.inference_mode(), _one_thread():
            while (stepped if num_episodes is None else ended) < asked:
                before = time.perf_counter()
                decided = self._act(explore, random_actions, stepped)
                decided_at = time.perf_counter()
                outcome = self._step(decided[Columns.ACTIONS])
                after = time.perf_counter()
                acting, inside = acting + decided_at - before, inside + after - decided_at
                if outcome is None:
                    rollouts += self._close(columns, row, num_episodes, whole=True)
                    self._reset_envs_and_episodes(explore)
                    stepped = row = 0
                    columns = _Columns(rows)
                    columns.write(0, observations=self._observation)
                    continue
                observation, reward, terminated, truncated, told = outcome
                valid = ~self._over
                columns.write(
                    row,
                    **decided,
                    rewards=reward,
                    terminated=terminated,
                    truncated=truncated,
                    valid=valid,
                    seconds=np.asarray(after - before),
                    **told,
                )
                row += 1
                columns.write(row, observations=observation)
                self._observation, self._over = observation, (terminated | truncated) & valid
                stepped += int(np.count_nonzero(valid))
                ended += int(np.count_nonzero(self._over))
        rollouts += self._close(columns, row, num_episodes, whole=num_episodes is not None)
        if row:
            self.metrics.log_value(RLMODULE_INFERENCE_TIMER, acting / row)
            self.metrics.log_value(ENV_STEP_TIMER, inside / row)
        if stepped:
            self._log_env_steps(metric=self._metrics_num_try_env_step, num_steps=row)
            self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=stepped)
        self._increase_sampled_metrics(stepped, ended if num_episodes is None else min(ended, num_episodes))
        return rollouts

    def _act(self, explore: bool, random_actions: bool, stepped: int) -> dict[str, Array]:
        """The policy's actions on the last observation, with what it drew them from."""
        if random_actions:
            return {Columns.ACTIONS: self.env.action_space.sample()}
        batch = {Columns.OBS: torch.from_numpy(self._observation).to(self._device)}
        if explore:
            # RLlib's estimate of the steps that all runners have taken: schedules of exploration go by it.
            runners = self.config.num_env_runners or 1
            lifetime = (self.num_env_steps_sampled_lifetime // runners + stepped) * runners
            output = self.module.forward_exploration(batch, t=lifetime)
        else:
            output = self.module.forward_inference(batch)
        if Columns.ACTIONS not in output:
            inputs = output[Columns.ACTION_DIST_INPUTS]
            if not explore:
                law = self.module.get_inference_action_dist_cls().from_logits(inputs).to_deterministic()
                return {Columns.ACTIONS: law.sample().cpu().numpy()}
            law = self.module.get_exploration_action_dist_cls().from_logits(inputs)
            output[Columns.ACTIONS] = law.sample()
            output[Columns.ACTION_LOGP] = law.logp(output[Columns.ACTIONS])
        return {name: output[name].cpu().numpy() for name in DECIDED if name in output}

    def _step(self, actions: Array) -> tuple[Array, Floats, Bools, Bools, dict[str, Array]] | None:
        """One step of all environments, or None where it failed and the environment was made anew.

        Steps what lies under RLlib's wrapper, which makes a dictionary per environment and step.
        """
        space = self.env.single_action_space
        if isinstance(space, gym.spaces.Box):
            if self.config.normalize_actions:
                actions = unsquash_action(actions, space)
            elif self.config.clip_actions:
                actions = clip_action(actions, space)
        try:
            observation, reward, terminated, truncated, info = self.env.env.step(actions)
        except Exception as error:
            self.metrics.log_value(NUM_ENV_STEP_FAILURES_LIFETIME, 1, reduce="lifetime_sum")
            if not self.config.restart_failed_sub_environments:
                raise RuntimeError(f"a step of the environment failed: {error}") from error
            logger.exception("a step of the environment failed; it is made anew")
            self.make_env()
            return None
        told = {f"alternative {name}": info[name] for name in ALTERNATIVES if name in info}
        return np.asarray(observation, dtype=np.float32), reward, terminated, truncated, told

    def _close(
        self, columns: "_Columns", steps: int, most_episodes: int | None, *, whole: bool
    ) -> list[Rollout]:
        """The rollout of `steps` rows, after its finished episodes have entered the metrics.

        `whole`: only finished episodes are kept, `most_episodes` at most.
        """
        if steps == 0:
            return []
        valid, seconds = columns["valid"][:steps], columns["seconds"][:steps]
        rewards = columns["rewards"][:steps]
        terminated, truncated = columns["terminated"][:steps], columns["truncated"][:steps]
        step, account = np.nonzero((terminated | truncated) & valid)
        step, account = step[:most_episodes], account[:most_episodes]
        figures = _episodes(valid, terminated | truncated, rewards, seconds, self._so_far, len(step))
        self._log_episodes(*figures)
        if whole:
            last = np.full(self.num_envs, -1)
            last[account] = step  # in time order: the last one stays
            valid &= np.arange(steps)[:, None] <= last
            if not valid.any():
                return []
        told = {
            name: columns[key][:steps] for name in ALTERNATIVES if (key := f"alternative {name}") in columns
        }
        logp, inputs = (columns[name][:steps] if name in columns else None for name in DECIDED[1:])
        return [
            Rollout(
                columns["observations"][: steps + 1],
                columns[Columns.ACTIONS][:steps],
                rewards.astype(np.float32),
                terminated,
                truncated,
                valid,
                self._weights_seq_no,
                logp,
                inputs,
                told or None,
            )
        ]

    def _log_episodes(self, lengths: Floats, returns: Floats, seconds: Floats) -> None:
        """RLlib's episode metrics of many episodes at once."""
        if len(lengths) == 0:
            return
        self._log_episode_metrics(int(lengths[0]), float(returns[0]), float(seconds[0]))
        stats = self.metrics.stats
        window = stats[EPISODE_LEN_MEAN].values.maxlen  # older ones would fall out at once
        lengths, returns, seconds = (figures[1:][-window:] for figures in (lengths, returns, seconds))
        for names, figures in (
            ((EPISODE_LEN_MEAN, EPISODE_LEN_MIN, EPISODE_LEN_MAX), lengths.astype(np.int64)),
            ((EPISODE_RETURN_MEAN, EPISODE_RETURN_MIN, EPISODE_RETURN_MAX), returns),
            ((EPISODE_DURATION_SEC_MEAN,), seconds),
        ):
            for name in names:
                stats[name].values.extend(figures.tolist())
        stats["agent_episode_return_mean"][DEFAULT_AGENT_ID].values.extend(returns.tolist())
        stats["module_episode_return_mean"][DEFAULT_MODULE_ID].values.extend(returns.tolist())


class _Columns(dict[str, Array]):
    """Arrays by name that grow by the row."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def write(self, row: int, **values: Array) -> None:
        """Put `values`, [N, ...] each, into a row."""
        for name, value in values.items():
            array = self.get(name)
            if array is None:
                array = self[name] = np.empty((self.rows, *value.shape), dtype=value.dtype)
            elif row >= len(array):
                array = self[name] = np.concatenate([array, np.empty_like(array)])
            array[row] = value


class _one_thread:
    """One torch thread for the block: these products are too small for two."""

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        if self.before != 1:
            torch.set_num_threads(1)

    def __exit__(self, *failure: object) -> None:
        if self.before != 1:
            torch.set_num_threads(self.before)


def _refuse(config: Any) -> None:
    """Raise ConfigError for what a runner of arrays would pass over in silence."""
    if config.is_multi_agent:
        raise ConfigError("policies", sorted(config.policies), "train a single agent")
    if config.observation_filter not in (None, "NoFilter"):
        raise ConfigError(
            "observation_filter", config.observation_filter, "scale observations in the module instead"
        )
    for name in ("env_to_module_connector", "module_to_env_connector"):
        if getattr(config, f"_{name}") is not None:
            raise ConfigError(name, "a connector", "put what it does into the module or the environment")
    for name in EPISODE_CALLBACKS:
        own = any(
            getattr(kind, name) is not getattr(RLlibCallback, name)
            for kind in force_list(config.callbacks_class)
        )
        if own or getattr(config, f"callbacks_{name}") is not None:
            raise ConfigError(
                f"callbacks.{name}", "a callback", "use on_sample_end: it is given the rollouts"
            )


@compiled()
def _episodes(
    valid: Bools, over: Bools, rewards: Floats, seconds: Floats, so_far: Floats, count: int
) -> Floats:
    """Lengths, returns and seconds of the first `count` episodes to end, float64[3, count].

    `so_far`, float64[3, N]: what episodes had come to before; holds afterwards what the unfinished came to.
    """
    figures = np.zeros((3, count))
    ended = 0
    for t in range(valid.shape[0]):
        for n in range(valid.shape[1]):
            if valid[t, n]:
                so_far[0, n] += 1
                so_far[1, n] += rewards[t, n]
                so_far[2, n] += seconds[t]
                if over[t, n]:
                    if ended < count:
                        figures[:, ended] = so_far[:, n]
                    ended += 1
                    so_far[:, n] = 0.0
    return figures
