"""The candidates of the price predictor: a multinomial logit, boosted trees, a small perceptron.

Each learns three classes from 31 features and answers from flat arrays; scikit-learn and torch are imported
only while they learn. Knows nothing of time, folds or calibration. Letters: N rows, F = 31 features, K = 3
classes, C scikit-learn's inverse regularisation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from features.scaling import Normaliser
from features.spec import FEATURE_NAMES
from market.errors import DataError
from signals.boosted_trees import BoostedTrees
from signals.outcome_logit import fit_logits

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CLASSES = ("down", "flat", "up")
REGULARISATIONS = (0.0001, 0.001, 0.01, 0.1)
ROUNDS = (15, 40, 100)
HIDDEN = 32
BATCH = 256
STEP_SIZE = 1e-3
WEIGHT_DECAY = 0.05
# Standardised features are held within this many deviations: beyond, a straight line only extrapolates.
FARTHEST = 5.0


class PriceModel(Protocol):
    """Scores whose softmax are the probabilities of CLASSES."""

    def scores(self, x: FloatArray) -> FloatArray:
        """Scores float64[N, 3] of finite rows float64[N, 31]."""
        ...

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Every attribute by name."""
        ...


class Candidate(NamedTuple):
    """One way to learn: its kind, and the setting it was learned with (C, rounds or epochs)."""

    kind: str
    setting: float


@dataclass(frozen=True, eq=False)
class DenseLayers:
    """Standardised features through one or two affine layers, tanh between: a logit, or a perceptron.

    `mean` and `scale` float64[31]; `hidden_weight` float64[31, H] and `hidden_bias` [H] (H = 0: no hidden
    layer, the logit); `weight` float64[H or 31, 3], `bias` float64[3].
    """

    mean: FloatArray
    scale: FloatArray
    hidden_weight: FloatArray
    hidden_bias: FloatArray
    weight: FloatArray
    bias: FloatArray

    def scores(self, x: FloatArray) -> FloatArray:
        """See `PriceModel`."""
        z = np.clip((x - self.mean) / self.scale, -FARTHEST, FARTHEST)
        if self.hidden_bias.size:
            z = np.tanh(z @ self.hidden_weight + self.hidden_bias)
        return np.asarray(z @ self.weight + self.bias, dtype=np.float64)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See `PriceModel`."""
        return {name: getattr(self, name) for name in _LAYERS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Back from `to_arrays`, bit for bit. Raises DataError for an array that is missing, misshapen or not
        finite."""
        if set(arrays) != set(_LAYERS):
            raise DataError("price model, arrays", sorted(arrays), f"give {', '.join(_LAYERS)}")
        plain = {name: np.array(arrays[name], dtype=np.float64) for name in _LAYERS}
        features, hidden = len(FEATURE_NAMES), plain["hidden_bias"].size
        shapes: dict[str, tuple[int, ...]] = {
            "mean": (features,),
            "scale": (features,),
            "hidden_weight": (features, hidden),
            "hidden_bias": (hidden,),
            "weight": (hidden or features, len(CLASSES)),
            "bias": (len(CLASSES),),
        }
        for name, values in plain.items():
            if values.shape != shapes[name] or not np.isfinite(values).all():
                raise DataError(
                    f"price model, {name}", values, f"give finite numbers of shape {shapes[name]}"
                )
        if not (plain["scale"] > 0.0).all():
            raise DataError("price model, scale", plain["scale"], "every scale must be above 0")
        return cls(**plain)


_LAYERS = tuple(DenseLayers.__dataclass_fields__)


def candidates(epochs: int) -> tuple[Candidate, ...]:
    """All ways that are compared; a perceptron only where `epochs` > 0, stopped after a quarter, half and all
    of them."""
    perceptrons = sorted({max(1, epochs // 4), max(1, epochs // 2), epochs}) if epochs > 0 else []
    return (
        *(Candidate("logit", c) for c in REGULARISATIONS),
        *(Candidate("trees", rounds) for rounds in ROUNDS),
        *(Candidate("mlp", stop) for stop in perceptrons),
    )


def learn(x: FloatArray, y: IntArray, wanted: Sequence[Candidate], seed: int) -> list[PriceModel]:
    """A model for each of `wanted`, in that order, from rows x float64[N, 31] and classes y int64[N].

    Every class must be among y. Deterministic by `seed`. Candidates of one kind share their work: trees and
    perceptrons of fewer rounds or epochs are the same learning, looked at earlier.
    """
    learned: dict[Candidate, PriceModel] = {}
    settings = {kind: [c.setting for c in wanted if c.kind == kind] for kind in ("logit", "trees", "mlp")}
    if settings["logit"]:
        models = _logits(x, y, settings["logit"])
        learned |= zip([Candidate("logit", c) for c in settings["logit"]], models, strict=True)
    if settings["trees"]:
        grown = BoostedTrees.fit(x, y, int(max(settings["trees"])), seed)
        learned |= {Candidate("trees", n): grown.first_rounds(int(n)) for n in settings["trees"]}
    if settings["mlp"]:
        learned |= {
            Candidate("mlp", stop): model
            for stop, model in _perceptrons(x, y, [int(n) for n in settings["mlp"]], seed).items()
        }
    return [learned[candidate] for candidate in wanted]


def restored(kind: str, arrays: Mapping[str, npt.NDArray[Any]]) -> PriceModel:
    """The model of a kind from its `to_arrays`. Raises DataError for arrays that are none."""
    if kind == "trees":
        trees = BoostedTrees.from_arrays(arrays, len(FEATURE_NAMES))
        if trees.baseline.size != len(CLASSES):
            raise DataError("trees, baseline", trees.baseline, f"give {len(CLASSES)} numbers")
        return trees
    return DenseLayers.from_arrays(arrays)


def _standardised(x: FloatArray) -> tuple[Normaliser, FloatArray]:
    normaliser = Normaliser.fit(x)
    return normaliser, np.clip(normaliser.apply(x), -FARTHEST, FARTHEST)


def _logits(x: FloatArray, y: IntArray, regularisations: Sequence[float]) -> list[DenseLayers]:
    normaliser, z = _standardised(x)
    none = np.zeros((x.shape[1], 0))
    return [
        DenseLayers(normaliser.mean, normaliser.scale, none, np.zeros(0), logit.coefficient, logit.intercept)
        for logit in fit_logits(z, y, len(CLASSES), regularisations)
    ]


def _perceptrons(x: FloatArray, y: IntArray, stops: Sequence[int], seed: int) -> dict[int, DenseLayers]:
    """One hidden layer learned by AdamW (Loshchilov & Hutter 2019), looked at after each of `stops` epochs.

    Runs on one thread and leaves torch's thread count and global generator as they were.
    """
    import torch

    normaliser, z = _standardised(x)
    order = np.random.default_rng(seed)
    threads = torch.get_num_threads()
    seen: dict[int, DenseLayers] = {}
    try:
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            rows, classes = torch.from_numpy(z), torch.from_numpy(np.array(y, dtype=np.int64))
            hidden = torch.nn.Linear(x.shape[1], HIDDEN, dtype=torch.float64)
            out = torch.nn.Linear(HIDDEN, len(CLASSES), dtype=torch.float64)
            network = torch.nn.Sequential(hidden, torch.nn.Tanh(), out)
            learner = torch.optim.AdamW(network.parameters(), lr=STEP_SIZE, weight_decay=WEIGHT_DECAY)
            for epoch in range(1, max(stops) + 1):
                shuffled = order.permutation(len(z))
                for start in range(0, len(z), BATCH):
                    part = torch.from_numpy(shuffled[start : start + BATCH])
                    learner.zero_grad()
                    loss = torch.nn.functional.cross_entropy(network(rows[part]), classes[part])
                    loss.backward()  # type: ignore[no-untyped-call]
                    learner.step()
                if epoch in stops:
                    first, second = (
                        [array.detach().numpy().copy() for array in (layer.weight.T, layer.bias)]
                        for layer in (hidden, out)
                    )
                    seen[epoch] = DenseLayers(normaliser.mean, normaliser.scale, *first, *second)
    finally:
        torch.set_num_threads(threads)
    return seen
