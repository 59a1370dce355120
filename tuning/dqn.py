"""RLlib's DQN with updates fed from arrays: the same loss, network and target rule, without an object per
sampled step.

Knows nothing of sizing; what it trains is in its configuration.
"""

from typing import Any

from ray.rllib.algorithms.dqn import DQN
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TD_ERROR_KEY,
    TIMERS,
)

from tuning.learner import one_step
from tuning.log_folder import OwnFolder
from tuning.replay import TransitionReplay
from tuning.samplers import Samplers


class ArrayDQN(OwnFolder, Samplers, DQN):
    """DQN over a `tuning.replay.TransitionReplay`.

    Each round samples one fragment of every environment, then makes ``training_intensity`` times as many
    steps of replay, in batches of ``train_batch_size``.
    """

    def _create_local_replay_buffer_if_necessary(self, config: Any) -> TransitionReplay:
        settings = config["replay_buffer_config"]
        return TransitionReplay(settings["capacity"], settings["width"], settings["seed"])

    def training_step(self) -> None:
        """See `ray.rllib.algorithms.algorithm.Algorithm.training_step`."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            rollouts, sampled = synchronous_parallel_sample(
                worker_set=self.env_runner_group,
                concat=True,
                sample_timeout_s=self.config.sample_timeout_s,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
        if not rollouts:
            return
        self.metrics.aggregate(sampled, key=ENV_RUNNER_RESULTS)
        self.local_replay_buffer.add(rollouts)
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
        if steps < self.config.num_steps_sampled_before_learning_starts:
            return
        size = self.config.total_train_batch_size
        arrived = sum(len(rollout) for rollout in rollouts)
        updates = max(1, round(self.config.training_intensity * arrived / size))
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                batch=train_batch(self.local_replay_buffer.sample(updates * size)),
                minibatch_size=size,
                num_epochs=1,
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps},
            )
        for result in results:
            for figures in result.values():
                figures.pop(TD_ERROR_KEY, None)  # one number per replayed step: too much for a log
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group,
                policies=set(results[0]) - {ALL_MODULES},
                global_vars=None,
                inference_only=True,
            )


def train_batch(columns: dict[str, Any]) -> MultiAgentBatch:
    """Sampled columns, [N, ...] each, as what a Learner takes."""
    batch = SampleBatch(one_step(columns))
    return MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=len(columns["rewards"]))
