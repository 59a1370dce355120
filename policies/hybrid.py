"""The learned policy at inference: tiers by a network, or sizes fine-tuned around them, in NumPy alone.

Knows nothing of RLlib or torch: it is the arithmetic of the exported weights.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from envs.fine_tune import fine_tuned
from envs.observation import Situation
from market.compiled import compiled
from market.errors import DataError
from policies.baselines import best_and_free, best_legal

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """A dense ReLU network in float32 over standardised inputs."""

    mean: Rows  # [inputs]
    scale: Rows  # [inputs], > 0
    weights: tuple[Rows, ...]  # [out, in] each
    biases: tuple[Rows, ...]  # [out] each

    def __post_init__(self) -> None:
        """Raises DataError for layers that do not fit together."""
        outputs = [len(self.mean), *(len(bias) for bias in self.biases)]
        fitting = list(zip(outputs[1:], outputs[:-1], strict=True))
        shapes = [weight.shape for weight in self.weights]
        if shapes != fitting or self.scale.shape != self.mean.shape:
            raise DataError("network weights", shapes, f"give {fitting}, as means and biases have it")

    def __call__(self, rows: Rows) -> Rows:
        """float32[N, inputs or more] -> float32[N, outputs]; columns past `inputs` are not looked at."""
        if rows.shape[1] < len(self.mean):
            raise DataError("observation", rows.shape, f"give at least {len(self.mean)} columns")
        result = np.empty((len(rows), len(self.biases[-1])), dtype=np.float32)
        _forward(rows, self.mean, self.scale, *self._layers, result)
        return result

    @cached_property
    def _layers(self) -> tuple[npt.NDArray[np.int64], Rows]:
        """How wide each layer is, inputs first; then layer by layer its biases and its weights [in, out]."""
        widths = np.array([len(self.mean), *(len(bias) for bias in self.biases)])
        parts = zip(self.biases, self.weights, strict=True)
        return widths, np.concatenate([part for bias, weight in parts for part in (bias, weight.T.ravel())])

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


@compiled(error_model="numpy")
def _forward(
    rows: Rows, mean: Rows, scale: Rows, widths: npt.NDArray[np.int64], layers: Rows, result: Rows
) -> None:
    """Fill in `result`, one row at a time: what is said of it is the same whatever others stand beside it."""
    hidden, following = np.empty((2, widths.max()), dtype=np.float32)
    for row in range(len(rows)):
        for i in range(widths[0]):
            hidden[i] = (rows[row, i] - mean[i]) / scale[i]
        start = 0
        for layer in range(1, len(widths)):
            width = widths[layer]
            following[:width] = layers[start : start + width]
            start += width
            for i in range(widths[layer - 1]):
                given, weights = hidden[i], layers[start : start + width]
                for j in range(width):
                    following[j] += given * weights[j]
                start += width
            if layer < len(widths) - 1:
                for j in range(width):
                    following[j] = following[j] if not following[j] < 0.0 else np.float32(0.0)  # NaN stays
            hidden, following = following, hidden
        for j in range(widths[-1]):
            result[row, j] = hidden[j]


@dataclass(frozen=True)
class TierPolicy:
    """The legal tier of the highest output, Q value or logit: deterministic, one forward pass."""

    network: Network
    name: str = "RL sizer"
    snaps: bool = True

    def values(self, situation: Situation) -> Floats:
        """See `ValuePolicy.values`."""
        return self.network(situation.observation).astype(np.float64)

    def pick(self, values: Floats, situation: Situation) -> tuple[Floats, Floats]:
        """See `ValuePolicy.pick`."""
        return best_and_free(values, situation.mask)

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

    def pick(self, values: Floats, situation: Situation) -> tuple[Floats, Floats]:
        """See `ValuePolicy.pick`."""
        legal, free = self.tiers.pick(values, situation)
        return self._tuned(legal, situation.observation), self._tuned(free, situation.observation)

    def size(self, situation: Situation) -> Floats:
        """See `Policy.size`."""
        return self.choose(situation.observation, situation.mask)

    def choose(self, rows: Rows, mask: npt.NDArray[np.bool_]) -> Floats:
        """See `TierPolicy.choose`."""
        return self._tuned(self.tiers.choose(rows, mask), rows)

    def _tuned(self, tier: Floats, rows: Rows) -> Floats:
        return fine_tuned(tier, self.network(rows)[:, 0], self.band)
