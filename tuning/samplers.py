"""Remote samplers that died, looked after without holding up those that live.

RLlib asks after dead ones before every round and waits for each answer: with one of two gone for good, a run
all but stands still. Knows nothing of what is trained.
"""

import math
import time
from typing import Any, Final

from ray.rllib.algorithms.algorithm import Algorithm

from market.errors import ConfigError

ANSWER_WITHIN: Final = 1.0  # seconds, of one that was dead
ASK_EVERY: Final = 10.0  # seconds, while others still sample
PATIENCE: Final = 300.0  # seconds without any sampler: a cluster may take minutes to bring a node


class Samplers(Algorithm):
    """Mixed into an RLlib Algorithm: training goes on with the samplers left, and with none it waits a while.

    Raises ConfigError where none has come back in time; what was trained is in the last checkpoint.
    """

    _asked = -math.inf
    _none_since: float | None = None

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """See `ray.rllib.algorithms.algorithm.Algorithm.restore_env_runners`."""
        remote, alive = env_runner_group.num_remote_workers(), env_runner_group.num_healthy_remote_workers()
        now = time.monotonic()
        if alive or not remote:
            self._none_since = None
            if alive < remote and now < self._asked + ASK_EVERY:
                return []
        restored: list[int] = super().restore_env_runners(env_runner_group)
        if alive < remote:
            self._asked = time.monotonic()
        if alive or restored or not remote:
            return restored
        self._none_since = self._none_since or now
        if now - self._none_since > PATIENCE:
            mend = f"none came back within {PATIENCE:g} s: bring the cluster's nodes back, then --resume"
            raise ConfigError("env_runners", f"{remote} lost", mend)
        time.sleep(ANSWER_WITHIN)
        return []
