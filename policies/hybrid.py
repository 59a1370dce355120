"""The learned policy at inference: tiers by a network, or sizes fine-tuned around them, in NumPy alone.

Knows nothing of RLlib or torch: it is the arithmetic of the exported weights.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from envs.fine_tune import fine_tuned
from envs.observation import Situation
from policies.baselines import best_legal

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """A dense ReLU network in float32 over standardised inputs."""

    mean: Rows  # [inputs]
    scale: Rows  # [inputs], > 0
    weights: tuple[Rows, ...]  # [out, in] each
    biases: tuple[Rows, ...]  # [out] each

    def __call__(self, rows: Rows) -> Rows:
        """float32[N, inputs or more] -> float32[N, outputs]; columns past `inputs` are not looked at.

        One row at a time: a product of many may add up in another order for every number of rows.
        """
        hidden = ((rows[:, : len(self.mean)] - self.mean) / self.scale)[:, None]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(np.matmul(hidden, weight.T) + bias, 0.0)
        return np.asarray((np.matmul(hidden, self.weights[-1].T) + self.biases[-1])[:, 0], dtype=np.float32)

    def to_arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Named arrays for a bundle."""
        layers = {f"{i}/weight": weight for i, weight in enumerate(self.weights)}
        layers |= {f"{i}/bias": bias for i, bias in enumerate(self.biases)}
        return {"mean": self.mean, "scale": self.scale, **layers}

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[np.float32]]) -> Self:
        """The inverse of `to_arrays`."""
        depth = sum(name.endswith("/weight") for name in arrays)
        return cls(
            arrays["mean"],
            arrays["scale"],
            tuple(arrays[f"{i}/weight"] for i in range(depth)),
            tuple(arrays[f"{i}/bias"] for i in range(depth)),
        )


@dataclass(frozen=True)
class TierPolicy:
    """The legal tier of the highest output, Q value or logit: deterministic, one forward pass."""

    network: Network
    name: str = "RL sizer"
    snaps: bool = True

    def values(self, situation: Situation) -> Floats:
        """See `ValuePolicy.values`."""
        return self.network(situation.observation).astype(np.float64)

    def pick(self, values: Floats, situation: Situation) -> Floats:
        """See `ValuePolicy.pick`."""
        return best_legal(values, situation.mask)

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        return self.choose(situation.observation, situation.mask)

    def choose(self, rows: Rows, mask: npt.NDArray[np.bool_]) -> Floats:
        """`size` from observations float32[N, 11 or 12] and legal tiers bool[N, 6], all that it looks at."""
        return best_legal(self.network(rows).astype(np.float64), mask)


@dataclass(frozen=True)
class FineTunedPolicy:
    """A tier of `tiers`, fine-tuned within `band` by a second network's mean action: as deterministic."""

    tiers: TierPolicy
    network: Network  # one output, the action in [-1, 1]
    band: float
    name: str = "RL sizer, fine-tuned"
    snaps: bool = False

    def values(self, situation: Situation) -> Floats:
        """Values of the tiers; see `ValuePolicy.values`."""
        return self.tiers.values(situation)

    def pick(self, values: Floats, situation: Situation) -> Floats:
        """See `ValuePolicy.pick`."""
        return self._tuned(self.tiers.pick(values, situation), situation.observation)

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        return self.choose(situation.observation, situation.mask)

    def choose(self, rows: Rows, mask: npt.NDArray[np.bool_]) -> Floats:
        """See `TierPolicy.choose`."""
        return self._tuned(self.tiers.choose(rows, mask), rows)

    def _tuned(self, tier: Floats, rows: Rows) -> Floats:
        return fine_tuned(tier, self.network(rows)[:, 0], self.band)
