"""What the price predictor's walk-forward figures were, each beside that of the base rates.

Knows nothing of how probabilities were made. Log losses are in nats per row. K = 3 classes.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from signals.calibration import CalibrationReport, calibration_report
from signals.price_models import CLASSES

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_SMALLEST = 1e-12


class Scores(NamedTuple):
    """Figures of some rows; `direction_*` concern only the `direction_rows` that went up or down, and P(up |
    not flat): telling quiet from lively bars is no skill there."""

    rows: int
    log_loss: float
    base_log_loss: float
    direction_rows: int
    direction_log_loss: float
    direction_base_log_loss: float

    @classmethod
    def of(cls, p: FloatArray, base: FloatArray, y: IntArray) -> Self:
        """Figures of probabilities p and base rates float64[n, 3] for what happened, y int64[n]."""
        moved = y != 1
        up = (y[moved] == 2).astype(np.float64)
        return cls(
            len(y),
            _loss(p, y),
            _loss(base, y),
            int(moved.sum()),
            _direction_loss(p[moved], up),
            _direction_loss(base[moved], up),
        )


class CandidateScore(NamedTuple):
    """A candidate with its best setting and shrinkage, in hindsight over all tested rows: only for
    comparing."""

    kind: str
    setting: float
    shrink: float
    log_loss: float


@dataclass(frozen=True)
class PredictorReport:
    """Walk-forward figures of a price predictor, all on rows after those it was fitted, chosen and calibrated
    on.

    `all_markets` and `markets` give log loss beside the base rates that each market had shown until then;
    `brier` is summed over the classes, beside that of the same base rates; `expected_calibration_error` is
    the mean over the classes of `reliability`; `gain` is the mean gain in log loss per row over the folds and
    `gain_error` its standard error. `kept` names the candidate that was refitted on all rows, `shrink` how
    far its logits stand from the base rates (0: no proven skill, every row gets the base rates).
    """

    horizon: int
    thresholds: dict[str, float]
    seed: int
    epochs: int
    kept: str
    setting: float
    shrink: float
    candidates: tuple[CandidateScore, ...]
    all_markets: Scores
    markets: dict[str, Scores]
    brier: float
    base_brier: float
    expected_calibration_error: float
    gain: float
    gain_error: float
    reliability: dict[str, CalibrationReport]

    @property
    def verdict(self) -> str:
        """In words, whether the features told the classes apart, and up from down."""
        scores = self.all_markets
        found = f"log loss {scores.log_loss:.4f} beside base rates {scores.base_log_loss:.4f}"
        direction = (
            f"direction {scores.direction_log_loss:.4f} beside {scores.direction_base_log_loss:.4f}"
            if scores.direction_rows
            else "no direction"
        )
        said = (
            f"{self.kept} kept, shrinkage {self.shrink:.2f}"
            if self.shrink > 0
            else "no proven skill: base rates"
        )
        return f"{said} ({found}; {direction})"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts, for JSON."""
        plain = asdict(self)
        plain["verdict"] = self.verdict
        plain["candidates"] = [candidate._asdict() for candidate in self.candidates]
        plain["all_markets"] = self.all_markets._asdict()
        plain["markets"] = {symbol: scores._asdict() for symbol, scores in self.markets.items()}
        for diagram in plain["reliability"].values():
            diagram |= {name: diagram[name].tolist() for name in ("stated", "happened", "group")}
        return plain


def brier(p: FloatArray, y: IntArray) -> float:
    """Mean squared distance of p float64[n, 3] to what happened, summed over the classes (Brier 1950)."""
    happened = y[:, None] == np.arange(len(CLASSES))
    return float(np.mean(np.sum((p - happened) ** 2, axis=1)))


def reliability(p: FloatArray, y: IntArray) -> dict[str, CalibrationReport]:
    """The reliability of each class's own probability."""
    return {name: calibration_report(p[:, number], y == number) for number, name in enumerate(CLASSES)}


def _loss(p: FloatArray, y: IntArray) -> float:
    return float(-np.mean(np.log(np.maximum(p[np.arange(len(y)), y], _SMALLEST)))) if len(y) else 0.0


def _direction_loss(p: FloatArray, up: FloatArray) -> float:
    if not len(up):
        return 0.0
    chance = np.clip(p[:, 2] / np.maximum(p[:, 0] + p[:, 2], _SMALLEST), _SMALLEST, 1.0 - _SMALLEST)
    return float(-np.mean(up * np.log(chance) + (1.0 - up) * np.log(1.0 - chance)))
