"""RLlib's Learners for arrays: its schedules, checkpoints and names, around compiled updates.

A module that says by `dense()` which plain layers it is made of is trained by `tuning.updates`, in place on
its own weights and its optimizer's own state, and measured once per update instead of once per minibatch. Any
other module takes RLlib's own way. Knows nothing of environments.
"""

import logging
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.algorithms.dqn.dqn_learner import (
    QF_LOSS_KEY,
    QF_MAX_KEY,
    QF_MEAN_KEY,
    QF_MIN_KEY,
    TD_ERROR_MEAN_KEY,
)
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.ppo.ppo import (
    LEARNER_RESULTS_KL_KEY,
    LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY,
    LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY,
)
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import DEFAULT_OPTIMIZER, ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    MODULE_TRAIN_BATCH_SIZE_MEAN,
    NUM_ENV_STEPS_TRAINED,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
    WEIGHTS_SEQ_NO,
)
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from market.errors import ConfigError
from tuning.advantages import advantages, standardised
from tuning.dense import arrays_of, buffers, moments_of, net_of
from tuning.rollout import Rollout
from tuning.updates import Adam, DQNBatch, LogStd, PPOBatch, PPOLoss, dqn_updates, ppo_updates

Rows = npt.NDArray[np.float32]
Columns_ = dict[str, torch.Tensor]

NO_CLIP: Final = float("inf")

logger = logging.getLogger("ray.rllib")


class _ArrayLearner(TorchLearner):
    """What both Learners share; mixed into one of RLlib's torch Learners."""

    def build(self) -> None:
        """See `ray.rllib.core.learner.learner.Learner.build`."""
        if self.config.num_learners > 1:
            raise ConfigError("num_learners", self.config.num_learners, "give 0 or 1: one learner is enough")
        if self.config._learner_connector is not None:
            raise ConfigError("learner_connector", "a connector", "change the rollouts or the loss instead")
        super().build()
        self._random = np.random.default_rng(self.config.seed)
        self._threads: ThreadpoolController | None = None
        self._layers: Any = getattr(self._net, "dense", lambda: None)()

    def update(
        self,
        batch: MultiAgentBatch | SampleBatch | None = None,
        *,
        episodes: list[Rollout] | None = None,
        training_data: TrainingData | None = None,
        timesteps: dict[str, Any] | None = None,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        shuffle_batch_per_epoch: bool = False,
        _no_metrics_reduce: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Learn from a batch of RLlib's columns, or from rollouts; see
        `ray.rllib.core.learner.learner.Learner.update`.

        Minibatches are cut from one permutation per epoch after another (or from the batch as it lies, again
        and again); the last one is filled up from the next.
        """
        if training_data is None:
            training_data = TrainingData(batch=batch, episodes=episodes)
        training_data.validate()
        training_data.solve_refs()
        if training_data.episodes is not None:
            columns = self.columns_of(training_data.episodes)
        else:
            given = training_data.batch
            given = given if isinstance(given, SampleBatch) else given.policy_batches[DEFAULT_MODULE_ID]
            columns = {name: torch.as_tensor(given[name]) for name in given}
        count = len(columns[Columns.OBS])
        # One torch thread, one BLAS thread: the products are too small for two, and sums keep their order.
        with self._one_thread():
            if not self._compiles():
                stock = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, env_steps=count)
                return super().update(
                    batch=stock,
                    timesteps=timesteps,
                    num_epochs=num_epochs,
                    minibatch_size=minibatch_size,
                    shuffle_batch_per_epoch=shuffle_batch_per_epoch,
                    _no_metrics_reduce=_no_metrics_reduce,
                )
            self.before_gradient_based_update(timesteps=timesteps or {})
            self._weights_seq_no += 1
            size = minibatch_size or count
            updates = -(-num_epochs * count // size)
            figures = self.run_updates(
                columns, size, self._order(count, updates * size, shuffle_batch_per_epoch)
            )
        passed_over = figures.pop("passed_over")
        if passed_over:
            logger.warning("%d of %d minibatches had gradients that are not finite", passed_over, updates)
        self.metrics.log_dict(figures, key=DEFAULT_MODULE_ID, window=1)
        self._log_steps(size, updates)
        self.after_gradient_based_update(timesteps=timesteps or {})
        return None if _no_metrics_reduce else self.metrics.reduce()

    def _order(self, count: int, total: int, shuffle: bool) -> npt.NDArray[np.int64]:
        """The rows of all minibatches, one after another."""
        epochs = range(-(-total // count))
        parts = [self._random.permutation(count) if shuffle else np.arange(count) for _ in epochs]
        return np.concatenate(parts)[:total]

    def _compiles(self) -> bool:
        """Whether the compiled updates compute what this configuration asks for."""
        config = self.config
        return (
            self._layers is not None
            and (config.grad_clip is None or config.grad_clip_by == "global_norm")
            and not config._torch_grad_scaler_class
            and not config._torch_lr_scheduler_classes
            and not config.torch_compile_learner
            and self.device.type == "cpu"
        )

    @property
    def _net(self) -> Any:
        return self.module[DEFAULT_MODULE_ID].unwrapped()

    def _adam(self) -> tuple[torch.optim.Optimizer, Adam]:
        """RLlib's optimizer, and what the compiled one needs of it."""
        optimizer = self.get_optimizer(DEFAULT_MODULE_ID)
        (group,) = optimizer.param_groups
        clip = NO_CLIP if self.config.grad_clip is None else float(self.config.grad_clip)
        rate, betas = float(group["lr"]), (float(group["betas"][0]), float(group["betas"][1]))
        return optimizer, Adam(rate, betas, float(group["eps"]), clip)

    def _one_thread(self) -> Any:
        if self._threads is None:
            self._threads = ThreadpoolController()
        return self._threads.limit(limits=1)

    def _log_steps(self, size: int, updates: int) -> None:
        """RLlib's counts of what was trained on, once for all minibatches."""
        log, steps = self.metrics.log_value, size * updates
        log((DEFAULT_MODULE_ID, WEIGHTS_SEQ_NO), self._weights_seq_no, window=1)
        log((DEFAULT_MODULE_ID, MODULE_TRAIN_BATCH_SIZE_MEAN), size, reduce="mean")
        log((DEFAULT_MODULE_ID, NUM_MODULE_STEPS_TRAINED), steps, reduce="sum")
        for group, name in (
            (DEFAULT_MODULE_ID, NUM_MODULE_STEPS_TRAINED_LIFETIME),
            (ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME),
            (ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME),
        ):
            log((group, name), steps, reduce="lifetime_sum", with_throughput=True)
        for name in (NUM_MODULE_STEPS_TRAINED, NUM_ENV_STEPS_TRAINED):
            log((ALL_MODULES, name), steps, reduce="sum", with_throughput=True)


class ArrayPPOLearner(_ArrayLearner, PPOTorchLearner):
    """RLlib's PPO, its advantages and updates computed over whole arrays."""

    def columns_of(self, rollouts: list[Rollout]) -> Columns_:
        """The train batch of rollouts: every valid step with its advantage and value target."""
        parts = [self._columns_of(rollout) for rollout in rollouts]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        columns[Postprocessing.ADVANTAGES] = standardised(columns[Postprocessing.ADVANTAGES])
        return {name: torch.from_numpy(column) for name, column in columns.items()}

    def _columns_of(self, rollout: Rollout) -> dict[str, npt.NDArray[Any]]:
        if rollout.logp is None or rollout.action_dist_inputs is None:
            raise ConfigError("explore", False, "sample with exploration: PPO learns from the policy's draws")
        observations = np.require(rollout.observations, requirements="W")  # from afar it may not be
        with torch.no_grad():
            rows = torch.from_numpy(observations.reshape(-1, *observations.shape[2:]))
            values = self._net.compute_values({Columns.OBS: rows}).numpy().reshape(observations.shape[:2])
        advantage = advantages(rollout, values, self.config.gamma, self.config.lambda_)
        columns = {
            Columns.OBS: observations[:-1],
            Columns.ACTIONS: rollout.actions,
            Columns.ACTION_LOGP: rollout.logp,
            Columns.ACTION_DIST_INPUTS: rollout.action_dist_inputs,
            Postprocessing.ADVANTAGES: advantage,
            Postprocessing.VALUE_TARGETS: advantage + values[:-1],
        }
        return {name: column[rollout.valid] for name, column in columns.items()}

    def _compiles(self) -> bool:
        return bool(self.config.use_critic) and super()._compiles()

    def run_updates(self, columns: Columns_, size: int, order: npt.NDArray[np.int64]) -> dict[str, Any]:
        """One `tuning.updates.ppo_updates`; returns its figures by RLlib's names."""
        module, config = self._net, self.config
        actor_layers, critic_layers, free_log_std = self._layers
        optimizer, settings = self._adam()
        actor, critic = net_of(actor_layers, optimizer), net_of(critic_layers, optimizer)
        inputs, legal = _seen(module, columns[Columns.OBS])
        actions = columns[Columns.ACTIONS].numpy().astype(np.float32).reshape(len(inputs), -1)
        kl = float(self.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID]) if config.use_kl_loss else 0.0
        entropy = float(self.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].get_current_value())
        figures = ppo_updates(
            PPOBatch(
                inputs,
                legal,
                actions,
                _rows(columns[Columns.ACTION_LOGP]),
                _rows(columns[Columns.ACTION_DIST_INPUTS]),
                _rows(columns[Postprocessing.ADVANTAGES]),
                _rows(columns[Postprocessing.VALUE_TARGETS]),
            ),
            order,
            size,
            actor,
            critic,
            _log_std(free_log_std, optimizer),
            (
                buffers(size, actor.weights),
                buffers(size, actor.weights),
                buffers(size, critic.weights),
                buffers(size, critic.weights),
            ),
            PPOLoss(
                float(config.clip_param),
                float(config.vf_clip_param),
                float(config.vf_loss_coeff),
                entropy,
                kl,
            ),
            settings,
            _steps(optimizer),
        )
        _step(optimizer, len(order) // size - int(figures[8]))
        names = (
            POLICY_LOSS_KEY,
            VF_LOSS_KEY,
            LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY,
            LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY,
            ENTROPY_KEY,
            LEARNER_RESULTS_KL_KEY,
            self.TOTAL_LOSS_KEY,
            f"gradients_{DEFAULT_OPTIMIZER}_global_norm",
            "passed_over",
        )
        return dict(zip(names, figures.tolist(), strict=True))


class ArrayDQNLearner(_ArrayLearner, DQNTorchLearner):
    """RLlib's DQN, its updates computed over whole arrays."""

    def build(self) -> None:
        """See `ray.rllib.core.learner.learner.Learner.build`."""
        if self.config.n_step != 1:
            raise ConfigError(
                "n_step", self.config.n_step, "give 1: the replay holds transitions of one step"
            )
        super().build()

    def columns_of(self, rollouts: list[Rollout]) -> Columns_:
        """The transitions of rollouts, each counted alike; training draws from a replay instead."""
        parts = [rollout.transitions() for rollout in rollouts]
        return one_step({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def _compiles(self) -> bool:
        return self.config.td_error_loss_fn == "mse" and super()._compiles()

    def run_updates(self, columns: Columns_, size: int, order: npt.NDArray[np.int64]) -> dict[str, Any]:
        """One `tuning.updates.dqn_updates`; returns its figures by RLlib's names.

        Raises ConfigError for transitions of more than one step or of unequal weights.
        """
        if not (bool((columns["n_step"] == 1).all()) and bool((columns["weights"] == 1).all())):
            raise ConfigError("batch", "n_step or weights", "give transitions of one step that count alike")
        module = self._net
        online_layers, target_layers = self._layers
        optimizer, settings = self._adam()
        online, target = net_of(online_layers, optimizer), arrays_of(target_layers)
        if len(order) != len(columns[Columns.OBS]) or not np.array_equal(order, np.arange(len(order))):
            columns = {name: column[torch.from_numpy(order)] for name, column in columns.items()}
        inputs, legal = _seen(module, columns[Columns.OBS])
        following, following_legal = _seen(module, columns[Columns.NEXT_OBS])
        figures = dqn_updates(
            DQNBatch(
                inputs,
                following,
                legal,
                following_legal,
                columns[Columns.ACTIONS].numpy().astype(np.int64),
                _rows(columns[Columns.REWARDS]),
                columns[Columns.TERMINATEDS].numpy().astype(np.bool_),
            ),
            size,
            online,
            target,
            (
                buffers(size, online.weights),
                buffers(size, online.weights),
                buffers(size, online.weights),
                buffers(size, online.weights),
            ),
            float(self.config.gamma),
            bool(self.config.double_q),
            settings,
            _steps(optimizer),
        )
        _step(optimizer, len(order) // size - int(figures[6]))
        names = (
            QF_LOSS_KEY,
            QF_MEAN_KEY,
            QF_MAX_KEY,
            QF_MIN_KEY,
            TD_ERROR_MEAN_KEY,
            f"gradients_{DEFAULT_OPTIMIZER}_global_norm",
            "passed_over",
        )
        named = dict(zip(names, figures.tolist(), strict=True))
        return named | {self.TOTAL_LOSS_KEY: named[QF_LOSS_KEY]}


def one_step(columns: dict[str, npt.NDArray[Any]]) -> Columns_:
    """Sampled columns, [N, ...] each, as tensors; every transition is one step long and counts alike."""
    tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
    count = len(columns["rewards"])
    return tensors | {"n_step": torch.ones(count), "weights": torch.ones(count)}


def _seen(module: Any, observations: torch.Tensor) -> tuple[Rows, npt.NDArray[np.bool_]]:
    """What the module's networks take of observations, and which of its outputs are legal there."""
    with torch.no_grad():
        return (
            np.ascontiguousarray(module.standard(observations).numpy()),
            np.ascontiguousarray(module.legal(observations).numpy()),
        )


def _rows(tensor: torch.Tensor) -> Rows:
    return np.ascontiguousarray(tensor.numpy(), dtype=np.float32)


def _log_std(parameter: torch.nn.Parameter | None, optimizer: torch.optim.Optimizer) -> LogStd:
    if parameter is None:
        none = np.zeros(0, dtype=np.float32)
        return LogStd(none, none, none, none)
    values = parameter.detach().numpy()
    return LogStd(values, np.empty_like(values), *moments_of(parameter, optimizer))


def _steps(optimizer: torch.optim.Optimizer) -> int:
    """The steps that an Adam has taken: the same for all its parameters."""
    return int(next(iter(optimizer.state.values()))["step"])


def _step(optimizer: torch.optim.Optimizer, steps: int) -> None:
    for state in optimizer.state.values():
        state["step"] += steps
