"""A policy network taught to take the tiers that a known policy would take, before PPO starts.

Behaviour cloning by cross-entropy (Pomerleau 1989), at states that the teacher visits on the training table.
Knows nothing of what comes after it. The value network learns nothing here.
"""

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from torch.nn.functional import cross_entropy

from envs.guardrails import SIZES, STANDARD, bound, floor_to_tier
from envs.signal_table import SignalTable
from envs.sizing_env import Episodes
from policies.modules import MaskedPPO
from tuning.config import TrainConfig

Rows = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Teacher = Literal["plugin", "rule"]

EPOCHS: Final = 30
BATCH: Final = 256
LEARNING_RATE: Final = 0.01  # falls to nothing in a straight line


def warm_start(algorithm: Algorithm, teacher: Teacher, table: SignalTable, config: TrainConfig) -> None:
    """Teach the algorithm's policy network; the same seed gives the same weights."""
    rows, tiers = demonstrated(teacher, table, config)

    def teach(learner: Any) -> None:
        imitate(learner.module[DEFAULT_MODULE_ID].unwrapped(), rows, tiers, config.seed)

    algorithm.learner_group.foreach_learner(teach)
    algorithm.env_runner_group.sync_weights(
        from_worker_or_learner_group=algorithm.learner_group, inference_only=True
    )


def demonstrated(teacher: Teacher, table: SignalTable, config: TrainConfig) -> tuple[Rows, Integers]:
    """What the teacher saw in episodes started at random, about as many as the table holds end to end, and
    the legal tiers it took: float32[M, 11 or 12] and int64[M].
    """
    random = np.random.default_rng(config.seed)
    length = Episodes(table, config.limits, 1, config.session).window_end - np.arange(len(table))
    count = round(len(table) / float(length.mean()))
    accounts = Episodes(table, config.limits, count, config.session)
    accounts.start_anywhere(np.ones(count, dtype=np.bool_), random)
    seen, taken = [], []
    while not accounts.over.all():
        observation, live = accounts.look(), ~accounts.over
        tiers = _tiers(teacher, accounts)
        seen.append(observation[live])
        taken.append(tiers[live])
        accounts.act(tiers)
    return np.concatenate(seen), np.concatenate(taken)


def _tiers(teacher: Teacher, accounts: Episodes) -> Integers:
    if teacher == "plugin":
        worth = accounts.table.expected[accounts.here()]
        return np.asarray(np.argmax(np.where(accounts.mask, worth, -np.inf), axis=1))
    rule = bound(SIZES[STANDARD], accounts.cap, accounts.cap_rule, accounts.limits)
    return floor_to_tier(rule.multiplier)


def imitate(module: MaskedPPO, rows: Rows, tiers: Integers, seed: int) -> None:
    """Change the policy network so that the likeliest legal tier of each row is the one given."""
    shuffled = torch.Generator().manual_seed(seed)
    observations, wanted = torch.from_numpy(rows), torch.from_numpy(tiers)
    policy = [*module.encoder.actor_encoder.parameters(), *module.pi.parameters()]
    optimizer = torch.optim.Adam(policy, lr=LEARNING_RATE)
    steps = EPOCHS * -(-len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(rows), generator=shuffled), BATCH):
            logits = module.forward_train({Columns.OBS: observations[chosen]})[Columns.ACTION_DIST_INPUTS]
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(logits, wanted[chosen]))
            optimizer.step()
            schedule.step()
    optimizer.zero_grad()
