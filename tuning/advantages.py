"""Generalised advantage estimation over a whole rollout at once (Schulman et al. 2016).

Knows nothing of networks: the values of all observations are given.
"""

import numpy as np
import numpy.typing as npt

from tuning.rollout import Rollout

Rows = npt.NDArray[np.float32]

LEAST_DEVIATION = 1e-4  # RLlib's: advantages that hardly differ are not blown up


def advantages(rollout: Rollout, values: Rows, gamma: float, lambda_: float) -> Rows:
    """The advantage of every step, float32[T, N], from the values float32[T+1, N] of all observations.

    After a terminated step there is nothing; a truncated one, and the rollout's end, go on with the value of
    the true last observation, but no advantage is carried over either. Rows that are not valid hold no
    meaning.
    """
    goes_on = 1.0 - rollout.terminated.astype(np.float32)
    carries = (gamma * lambda_ * goes_on * ~rollout.truncated).astype(np.float32)
    result = rollout.rewards + np.float32(gamma) * goes_on * values[1:] - values[:-1]
    for step in range(len(result) - 2, -1, -1):
        result[step] += carries[step] * result[step + 1]
    return result


def standardised(values: Rows) -> Rows:
    """Mean 0 and deviation 1, as RLlib's own estimation makes them."""
    return np.asarray((values - values.mean()) / max(LEAST_DEVIATION, values.std()), dtype=np.float32)
