"""Rollouts are what RLlib's own runner would have sampled: the same steps, metrics and care."""

import os
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.tune.registry import register_env

from envs.guardrails import Limits
from envs.sizing_env import Session, SizingVectorEnv
from market.errors import ConfigError
from tests.test_envs_sizing_env import table_of as stream
from tuning.rollout import ArrayEnvRunner, Rollout

ENVIRONMENTS = 3


class Counting(gym.Env[np.ndarray[Any, Any], Any]):
    """Episode e of environment n: 1 + (2n + 3e) mod 5 steps; terminated in even environments, truncated in
    odd ones.

    It observes environment, episode, step and last action, and pays by all of them.
    """

    def __init__(self, number: int, actions: gym.Space[Any] | None = None) -> None:
        self.number, self.episode = number, -1
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = actions or gym.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.episode, self.step_number = self.episode + 1, 0
        return self.observe(0.0), {}

    def observe(self, action: float) -> np.ndarray[Any, Any]:
        return np.array([self.number, self.episode, self.step_number, action], dtype=np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.step_number += 1
        moved = float(np.sum(action))
        over = self.step_number > (2 * self.number + 3 * self.episode) % 5
        terminated = over and self.number % 2 == 0
        reward = 0.25 * self.number + self.episode - 0.5 * self.step_number + moved / 8.0
        return self.observe(moved), reward, terminated, over and not terminated, {"ignored": action}


class Failing(Counting):
    """Fails once, at the 6th step of any."""

    steps = 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        Failing.steps += 1
        if Failing.steps == 6 * ENVIRONMENTS - 1:
            raise OSError("the exchange is closed")
        return super().step(action)


def vector(
    context: dict[str, Any], kind: type[Counting] = Counting, actions: gym.Space[Any] | None = None
) -> SyncVectorEnv:
    numbers = range(context["num_envs"])
    return SyncVectorEnv([lambda n=number: kind(n, actions) for number in numbers])


def same_step(context: dict[str, Any]) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: Counting(0)], autoreset_mode=AutoresetMode.SAME_STEP)


BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


def config(fragment: int = 4, runner: type[SingleAgentEnvRunner] = ArrayEnvRunner, **env: Any) -> PPOConfig:
    register_env("counting", lambda context: vector(context, **env))
    return (
        PPOConfig()
        .environment("counting")
        .env_runners(
            env_runner_cls=runner,
            num_env_runners=0,
            num_envs_per_env_runner=ENVIRONMENTS,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=fragment,
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[8], vf_share_layers=False))
        .debugging(seed=3, log_level="ERROR")
    )


def runner_of(settings: AlgorithmConfig) -> SingleAgentEnvRunner:
    settings.validate()
    return settings.env_runner_cls(config=settings, worker_index=0)


def one(rollouts: list[Rollout]) -> Rollout:
    (rollout,) = rollouts
    return rollout


@pytest.mark.parametrize("actions", [None, BOX])
def test_fragments_equal_environments_stepped_one_by_one(actions: gym.Space[Any] | None) -> None:
    runner = runner_of(config(fragment=3, actions=actions))
    references = [Counting(n) for n in range(ENVIRONMENTS)]
    expected = [reference.reset()[0] for reference in references]
    over = [False] * ENVIRONMENTS
    for _ in range(12):
        rollout = one(runner.sample())
        assert len(rollout) == rollout.env_steps() == rollout.valid.sum() >= 3 * ENVIRONMENTS
        for step in range(len(rollout.actions)):
            for n, reference in enumerate(references):
                np.testing.assert_allclose(rollout.observations[step, n], expected[n], rtol=1e-6)
                assert rollout.valid[step, n] != over[n]
                if over[n]:
                    expected[n], over[n] = reference.reset()[0], False
                    continue
                action = np.clip(rollout.actions[step, n], -1, 1) if actions else rollout.actions[step, n]
                expected[n], reward, terminated, truncated, _ = reference.step(action)
                assert rollout.rewards[step, n] == pytest.approx(reward, rel=1e-6)
                assert (rollout.terminated[step, n], rollout.truncated[step, n]) == (terminated, truncated)
                over[n] = terminated or truncated
        np.testing.assert_allclose(rollout.observations[-1], expected, rtol=1e-6)


def test_what_the_environment_tells_of_other_actions_holds_the_step_taken_among_them() -> None:
    def telling(context: dict[str, Any]) -> SizingVectorEnv:
        return SizingVectorEnv(
            stream(300), Limits(), context["num_envs"], Session(days=4), counterfactual=True
        )

    register_env("telling", telling)
    runner = runner_of(config(fragment=40).environment("telling"))
    rollout = one(runner.sample())
    told = rollout.alternatives
    assert told is not None
    assert {name: array.shape[:3] for name, array in told.items()} == dict.fromkeys(
        ("legal", "rewards", "observations"), (len(rollout.actions), ENVIRONMENTS, 6)
    )
    step, account = np.nonzero(rollout.valid)
    action = rollout.actions[step, account]
    np.testing.assert_allclose(
        told["rewards"][step, account, action], rollout.rewards[step, account], rtol=1e-6
    )
    np.testing.assert_array_equal(
        told["observations"][step, account, action], rollout.observations[1:][step, account]
    )
    assert len(rollout) == runner.get_metrics()["num_env_steps_sampled"], "counted as more than was sized"
    assert len(rollout.transitions()["actions"]) == told["legal"][rollout.valid].sum() > len(rollout)


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("actions", [None, BOX])
def test_steps_and_metrics_are_those_of_rllibs_own_runner(
    actions: gym.Space[Any] | None, explore: bool
) -> None:
    ours = runner_of(config(fragment=1, actions=actions).env_runners(explore=explore))
    torch.manual_seed(11)
    rollouts = [one(ours.sample()) for _ in range(20)]
    figures = ours.get_metrics()
    stock = config(fragment=1, runner=SingleAgentEnvRunner, actions=actions).env_runners(explore=explore)
    stock = runner_of(stock)
    stock.module.set_state(ours.module.get_state())
    torch.manual_seed(11)
    episodes = [episode for _ in range(20) for episode in stock.sample()]
    theirs = stock.get_metrics()
    seen: dict[tuple[float, ...], tuple[Any, ...]] = {}
    for episode in episodes:
        for t in range(len(episode)):
            done = t == len(episode) - 1 and episode.is_terminated
            extra = (episode.get_extra_model_outputs("action_logp", t),) if explore else ()
            seen[tuple(episode.get_observations(t)[:3])] = (
                *np.ravel(episode.get_actions(t)),
                *episode.get_observations(t + 1),
                np.float32(episode.get_rewards(t)),
                done,
                *extra,
            )
    steps = 0
    for rollout in rollouts:
        assert (rollout.logp is not None) == explore
        columns = rollout.transitions()
        for i, key in enumerate(columns["obs"]):
            stock_step = seen[tuple(key[:3])]
            ours_step = (
                *np.ravel(columns["actions"][i]),
                *columns["new_obs"][i],
                columns["rewards"][i],
                columns["terminateds"][i],
                *([] if rollout.logp is None else [rollout.logp[rollout.valid][i]]),
            )
            np.testing.assert_allclose(ours_step, stock_step, rtol=1e-6, atol=1e-6)
            steps += 1
    assert steps == len(seen)
    names = set(theirs) - {"timers"}
    measured = {name for name in names if not isinstance(theirs[name], dict)}
    measured -= {name for name in measured if "timer" in name or "duration" in name or "connector" in name}
    measured -= {name for name in measured if name.startswith(("env_to_module", "module_to_env"))}
    measured -= {"sample", "time_between_sampling"}
    assert {"episode_return_mean", "episode_len_max", "num_env_steps_sampled_lifetime"} <= measured
    for name in measured:
        assert figures[name].peek() == pytest.approx(theirs[name].peek(), rel=1e-12), name
    for name in ("agent_episode_return_mean", "module_episode_return_mean", "num_module_steps_sampled"):
        for part, value in theirs[name].items():
            assert figures[name][part].peek() == pytest.approx(value.peek(), rel=1e-12)
    assert figures["episode_duration_sec_mean"].peek() > 0.0
    assert {"sample", "weights_seq_no"} <= set(figures)


def test_metrics_keep_rllibs_window_of_the_latest_episodes() -> None:
    settings = config(fragment=40).reporting(metrics_num_episodes_for_smoothing=7)
    stock = config(fragment=40, runner=SingleAgentEnvRunner).reporting(metrics_num_episodes_for_smoothing=7)
    figures = []
    for each in (settings, stock):
        runner = runner_of(each)
        torch.manual_seed(0)
        runner.sample()
        figures.append(runner.get_metrics())
    ours, theirs = figures
    assert theirs["num_episodes"].peek() > 7
    for name in ("episode_len_mean", "episode_len_min", "episode_len_max", "episode_return_mean"):
        assert ours[name].peek() == pytest.approx(theirs[name].peek(), rel=1e-12), name


def test_asked_number_of_steps_is_sampled_and_no_round_more() -> None:
    runner = runner_of(config())
    for asked in (1, 7, 50):
        assert asked <= len(one(runner.sample(num_timesteps=asked))) < asked + ENVIRONMENTS


@pytest.mark.parametrize("asked", [1, 4, 11])
def test_asked_number_of_episodes_is_sampled_whole(asked: int) -> None:
    runner = runner_of(config())
    runner.sample()
    runner.get_metrics()
    rollout = one(runner.sample(num_episodes=asked, explore=False))
    ends = (rollout.terminated | rollout.truncated) & rollout.valid
    assert ends.sum() == asked == runner.get_metrics()["num_episodes"].peek()
    for n in range(ENVIRONMENTS):
        steps = rollout.observations[:-1, n, 2][rollout.valid[:, n]]
        assert len(steps) == 0 or (steps[0] == 0 and ends[rollout.valid[:, n], n][-1])


def test_complete_episodes_mode_returns_whole_episodes() -> None:
    settings = config().env_runners(batch_mode="complete_episodes")
    rollout = one(runner_of(settings).sample())
    assert ((rollout.terminated | rollout.truncated) & rollout.valid).sum() == ENVIRONMENTS


def test_same_seed_samples_the_same_and_another_seed_other_actions() -> None:
    def sampled(seed: int) -> Rollout:
        return one(runner_of(config(fragment=30).debugging(seed=seed)).sample())

    first, again, other = sampled(3), sampled(3), sampled(4)
    for column in ("observations", "actions", "rewards", "valid", "logp"):
        np.testing.assert_array_equal(getattr(first, column), getattr(again, column))
    assert not np.array_equal(first.actions, other.actions)


def test_random_actions_need_no_policy_and_come_from_the_action_space() -> None:
    rollout = one(runner_of(config(fragment=60)).sample(random_actions=True))
    assert set(np.unique(rollout.actions)) == {0, 1, 2, 3}
    assert rollout.logp is None


def test_failed_step_drops_unfinished_episodes_and_samples_all_that_was_asked() -> None:
    Failing.steps = 0
    settings = config(fragment=8, kind=Failing).fault_tolerance(restart_failed_sub_environments=True)
    runner = runner_of(settings)
    before, after = runner.sample()
    assert before.valid.any()
    assert not (before.valid & ~_followed_by_an_end(before)).any()
    assert len(after) >= 8 * ENVIRONMENTS
    np.testing.assert_array_equal(after.observations[0, :, 2], 0.0)
    figures = runner.get_metrics()
    ended = sum(int(((r.terminated | r.truncated) & r.valid).sum()) for r in (before, after))
    assert figures["num_episodes"].peek() == ended
    assert figures["num_env_steps_sampled"].peek() == len(after)
    assert figures["num_env_step_failures"].peek() == 1


def _followed_by_an_end(rollout: Rollout) -> np.ndarray[Any, np.dtype[np.bool_]]:
    ends = (rollout.terminated | rollout.truncated) & rollout.valid
    return np.maximum.accumulate(ends[::-1], axis=0)[::-1]  # type: ignore[no-any-return]


def test_failed_step_is_raised_where_restarts_are_off() -> None:
    Failing.steps = 0
    with pytest.raises(RuntimeError, match="the exchange is closed"):
        runner_of(config(fragment=8, kind=Failing)).sample()


def test_state_carries_weights_and_steps_to_another_runner() -> None:
    one_runner, other = runner_of(config()), runner_of(config().debugging(seed=9))
    other.set_state(one_runner.get_state() | {"num_env_steps_sampled_lifetime": 500})
    for name, value in one_runner.module.get_state().items():
        np.testing.assert_array_equal(other.module.get_state()[name], value)
    assert other.get_state()["num_env_steps_sampled_lifetime"] == 500


@pytest.mark.long
def test_two_remote_runners_sample_evaluate_and_come_back_after_a_kill(ray_cluster: str) -> None:
    settings = (
        config()
        .env_runners(num_env_runners=2, num_cpus_per_env_runner=0)
        .fault_tolerance(restart_failed_env_runners=True)
        .evaluation(
            evaluation_num_env_runners=1,
            evaluation_duration=5,
            evaluation_config=AlgorithmConfig.overrides(num_cpus_per_env_runner=0),
        )
    )
    algorithm = settings.build_algo()
    try:
        group = algorithm.env_runner_group
        algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=algorithm.learner_group)
        sampled, figures = synchronous_parallel_sample(
            worker_set=group, concat=True, _uses_new_env_runners=True, _return_metrics=True
        )
        assert [type(rollout) for rollout in sampled] == [Rollout, Rollout]
        assert not np.array_equal(sampled[0].actions, sampled[1].actions)
        assert [len(r) for r in sampled] == [each["num_env_steps_sampled"].peek() for each in figures]
        assert algorithm.evaluate()["env_runners"]["num_episodes"] == 5
        group.foreach_env_runner(
            lambda runner: os._exit(1), remote_worker_ids=[1], local_env_runner=False, timeout_seconds=30
        )
        assert group.num_healthy_remote_workers() == 1
        for _ in range(10):  # on a busy machine the new process takes its time
            if group.num_healthy_remote_workers() < 2:
                algorithm.restore_env_runners(group)
        assert group.num_healthy_remote_workers() == 2
        after = group.foreach_env_runner(lambda runner: runner.sample(), local_env_runner=False)
        assert [len(one(each)) >= 4 * ENVIRONMENTS for each in after] == [True, True]
    finally:
        algorithm.stop()


def test_evaluation_in_the_local_runner_counts_steps_and_episodes(ray_cluster: str) -> None:
    algorithm = config().evaluation(evaluation_duration=4).build_algo()
    try:
        figures = algorithm.evaluate()["env_runners"]
        assert figures["num_episodes"] == 4
        assert figures["episode_len_min"] >= 1
    finally:
        algorithm.stop()


def refused(change: str) -> PPOConfig:
    settings = config()
    if change == "observation_filter":
        settings.observation_filter = "MeanStdFilter"
    elif change == "env_to_module_connector":
        settings.env_runners(env_to_module_connector=lambda env, spaces, device: [])
    elif change == "callbacks.on_episode_step":
        settings.callbacks(on_episode_step=lambda **news: None)
    elif change == "environment.observation_space":
        register_env(
            "counting",
            lambda context: gym.vector.SyncVectorEnv([lambda: gym.make("FrozenLake-v1")] * ENVIRONMENTS),
        )
    elif change == "environment.autoreset_mode":
        register_env("counting", same_step)
        settings.env_runners(num_envs_per_env_runner=1)
    elif change == "rl_module_spec":
        settings.rl_module(model_config=DefaultModelConfig(use_lstm=True, vf_share_layers=False))
    return settings


@pytest.mark.parametrize(
    "change",
    [
        "observation_filter",
        "env_to_module_connector",
        "callbacks.on_episode_step",
        "environment.observation_space",
        "environment.autoreset_mode",
        "rl_module_spec",
    ],
)
def test_what_an_array_runner_would_pass_over_is_refused(change: str) -> None:
    settings = refused(change)
    with pytest.raises(ConfigError, match=change):
        settings.env_runner_cls(config=settings, worker_index=0)
