"""A ring of transitions from which training draws uniformly, held as arrays and seeded.

Knows nothing of learning. RLlib's own episode buffer keeps one Python object per episode, copies it on
arrival, builds another per sampled step, and draws from a generator that nobody can seed; this one gives the
same uniform draw by indexing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.rllib.utils.replay_buffers.base import ReplayBufferInterface

from tuning.rollout import Rollout

Arrays = dict[str, npt.NDArray[Any]]


class TransitionReplay(ReplayBufferInterface):
    """The last `capacity` transitions of any number of environments, one step each."""

    def __init__(self, capacity: int, width: int, seed: int) -> None:
        """`width`: numbers in one observation; `seed`: of the draws."""
        self.capacity = capacity
        self.random = np.random.default_rng(seed)
        self.added = 0
        self.columns: Arrays = {
            "obs": np.zeros((capacity, width), dtype=np.float32),
            "new_obs": np.zeros((capacity, width), dtype=np.float32),
            "actions": np.zeros(capacity, dtype=np.int64),
            "rewards": np.zeros(capacity, dtype=np.float32),
            "terminateds": np.zeros(capacity, dtype=np.bool_),
        }

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, rollouts: Sequence[Rollout], **kwargs: Any) -> None:
        """Append the steps of rollouts, oldest first; beyond the capacity the oldest transitions are
        overwritten.
        """
        for rollout in rollouts:
            columns = rollout.transitions()
            arrived = len(columns["actions"])
            self.added += arrived
            kept = min(arrived, self.capacity)
            rows = (self.added - kept + np.arange(kept)) % self.capacity
            for name, column in columns.items():
                self.columns[name][rows] = column[len(column) - kept :]

    def sample(self, num_items: int | None = None, **kwargs: Any) -> Arrays:
        """`num_items` transitions drawn uniformly with replacement: columns by RLlib's names, [num_items,
        ...] each.
        """
        rows = self.random.integers(len(self), size=num_items)
        return {name: column[rows] for name, column in self.columns.items()}

    def get_state(self) -> dict[str, Any]:
        """All that `set_state` needs to go on with the same draws."""
        stored = {name: column[: len(self)].copy() for name, column in self.columns.items()}
        return {"columns": stored, "added": self.added, "random": self.random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take the state of a buffer of the same capacity and width."""
        for name, column in state["columns"].items():
            self.columns[name][: len(column)] = column
        self.added = state["added"]
        self.random.bit_generator.state = state["random"]
