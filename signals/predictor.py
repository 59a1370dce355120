"""The price predictor: calibrated probabilities that the price goes down, stays flat or goes up.

Knows nothing of trades, sizes or rules. Several candidates learn on the past of each of several walk-forward
folds; which of them is believed, and how far, is decided by rows that came after their training and before
the rows that are scored. Letters: N rows, s the shrinkage of the logits towards the base rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES
from features.tables import Source, read
from market.bars import Bars
from market.errors import ConfigError, DataError
from market.splits import walk_forward
from signals.outcome_logit import SHRINKAGES, log_softmax, shrunk
from signals.predictor_report import CandidateScore, PredictorReport, Scores, brier, reliability
from signals.price_models import CLASSES, Candidate, PriceModel, candidates, learn, restored
from signals.price_rows import Rows, labelled, log_base_rates, own_base_rates

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FOLDS = 5
FIRST_TRAIN = 0.3
FEWEST_ROWS_PER_CLASS = 30
# A gain must exceed this many of its standard errors over the folds, else the base rates are stated.
PROOF = 2.0
KINDS = ("logit", "trees", "mlp")
GOLDEN_ROWS = 64
GOLDEN_TOLERANCE = 1e-9


class OutOfFold(NamedTuple):
    """What the walk-forward stated: the tested `row` numbers int64[M], `p` and `base` float64[M, 3], `fold`
    int64[M]."""

    row: IntArray
    p: FloatArray
    base: FloatArray
    fold: IntArray


@dataclass(frozen=True, eq=False)
class PricePredictor:
    """P(down), P(flat), P(up) of a bar's 31 features, as flat arrays: it travels without pickle.

    `kind` is logit, trees or mlp; `base` float64[3] the log base rates of the training rows; `shrink` in [0,
    1] how far the model's logits stand from them (0: every row gets the base rates).
    """

    kind: str
    model: PriceModel
    base: FloatArray
    shrink: float

    @classmethod
    def fit(
        cls,
        markets: Bars | Sequence[Bars],
        horizon: int = 5,
        threshold: float | None = None,
        epochs: int = 20,
        seed: int = 0,
        folds: int = FOLDS,
    ) -> tuple[Self, PredictorReport]:
        """A predictor of the sign of the next `horizon` bars' log return beyond `threshold`, and its figures.

        `threshold` None: each market's own (see `price_rows.labelled`). `epochs` are those of the perceptron,
        0 leaves it out. The kept candidate and s have the best log loss over all tested rows; s is 0 unless
        the walk-forward gain over each market's own base rates exceeds twice its standard error. The model
        shipped is refitted on all rows. Deterministic by `seed`.

        Raises ConfigError for a horizon, threshold, epochs, seed or folds that cannot be used; DataError for
        bad bars, too few rows, or a class with fewer than 30 rows before the first test.
        """
        _whole("epochs", epochs, 0)
        _whole("seed", seed, 0)
        _whole("folds", folds, 2)
        rows = labelled([markets] if isinstance(markets, Bars) else markets, horizon, threshold)
        wanted = candidates(epochs)
        with _one_thread():
            losses, splits = _losses(rows, wanted, seed, folds)
            seen = _stated(rows, wanted, losses, splits)
            # Over all tested rows: what a user who starts today would choose.
            total = sum(part.loss.sum(axis=2) for part in losses)
            best = np.unravel_index(int(np.argmin(total)), np.shape(total))
            gains = _gains(rows, seen)
            error = float(gains.std(ddof=1) / np.sqrt(gains.size))
            proven = float(gains.mean()) > PROOF * error
            kept = wanted[int(best[0])]
            (model,) = learn(rows.x, rows.y, [kept], seed)
        shrink = float(SHRINKAGES[int(best[1])]) if proven else 0.0
        predictor = cls(kept.kind, model, log_base_rates(rows.y, len(CLASSES)), shrink)
        count = sum(part.loss.shape[2] for part in losses)
        compared = []
        for kind in dict.fromkeys(candidate.kind for candidate in wanted):
            own = [number for number, candidate in enumerate(wanted) if candidate.kind == kind]
            place = np.unravel_index(int(np.argmin(total[own])), np.shape(total[own]))
            found = wanted[own[int(place[0])]]
            figure = float(total[own][place]) / count
            compared.append(
                CandidateScore(kind, float(found.setting), float(SHRINKAGES[int(place[1])]), figure)
            )
        y = rows.y[seen.row]
        base = np.exp(seen.base)
        diagrams = reliability(seen.p, y)
        report = PredictorReport(
            horizon=int(horizon),
            thresholds=dict(zip(rows.symbols, rows.thresholds, strict=True)),
            seed=seed,
            epochs=epochs,
            kept=kept.kind,
            setting=float(kept.setting),
            shrink=shrink,
            candidates=tuple(compared),
            all_markets=Scores.of(seen.p, base, y),
            markets={
                symbol: Scores.of(seen.p[own_rows], base[own_rows], y[own_rows])
                for number, symbol in enumerate(rows.symbols)
                if (own_rows := rows.market[seen.row] == number).any()
            },
            brier=brier(seen.p, y),
            base_brier=brier(base, y),
            expected_calibration_error=float(
                np.mean([diagram.expected_calibration_error for diagram in diagrams.values()])
            ),
            gain=float(gains.mean()),
            gain_error=error,
            reliability=diagrams,
        )
        return predictor, report

    def predict(self, source: Source) -> FloatArray:
        """P(down), P(flat), P(up) after each bar, float64[n, 3]; NaN in each symbol's first 100 rows.

        `source` is whatever `FeaturePipeline.extract` takes; rows as it orders them (one symbol: as given).
        Raises DataError for bad bars.
        """
        pipeline = FeaturePipeline()
        return np.concatenate([self.probability(pipeline.matrix(bars)) for bars in read(source).bars])

    def probability(self, features: FloatArray) -> FloatArray:
        """Probabilities float64[N, 3] of feature rows float64[N, 31]; a row with NaN (warm-up) gives NaN.

        Raises DataError for another shape or an infinite feature.
        """
        x = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(FEATURE_NAMES):
            raise DataError("features shape", x.shape, f"give N rows of {len(FEATURE_NAMES)} features")
        if np.isinf(x).any():
            row, column = (int(at) for at in np.argwhere(np.isinf(x))[0])
            raise DataError(
                f"row {row}, feature {FEATURE_NAMES[column]}", float(x[row, column]), "give a finite number"
            )
        result = np.full((len(x), len(CLASSES)), np.nan)
        known = ~np.isnan(x).any(axis=1)
        result[known] = self._answers(x[known])
        return result

    def predict_row(self, features: FloatArray) -> FloatArray:
        """P(down), P(flat), P(up), float64[3], of one bar's features float64[31].

        Raises DataError for another shape or a feature that is not finite: before warm-up there is no answer.
        """
        x = np.asarray(features, dtype=np.float64)
        if x.shape != (len(FEATURE_NAMES),):
            raise DataError("features shape", x.shape, f"give one row of {len(FEATURE_NAMES)} features")
        finite = np.isfinite(x)
        if not finite.all():
            column = int(np.argmin(finite))
            mend = "give a finite number: features exist from the 101st bar on"
            raise DataError(f"feature {FEATURE_NAMES[column]}", float(x[column]), mend)
        return np.asarray(self._answers(x[None])[0])

    def _answers(self, x: FloatArray) -> FloatArray:
        if self.shrink == 0.0 or not len(x):
            return np.tile(np.exp(log_softmax(self.base[None])), (len(x), 1))
        return np.asarray(np.exp(shrunk(log_softmax(self.model.scores(x)), self.base, self.shrink)))

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything as numeric arrays: `kind` int64[1] (the place in KINDS), `base`, `shrink` and
        model/NAME."""
        own: dict[str, npt.NDArray[Any]] = {
            "kind": np.array([KINDS.index(self.kind)], dtype=np.int64),
            "base": self.base,
            "shrink": np.array([self.shrink]),
        }
        return own | {f"model/{name}": values for name, values in self.model.to_arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Back from `to_arrays`, bit for bit. Raises DataError for anything else."""
        own = {name: np.asarray(values) for name, values in arrays.items() if not name.startswith("model/")}
        if set(own) != {"kind", "base", "shrink"}:
            raise DataError("predictor arrays", sorted(own), "give kind, base, shrink and model/...")
        for name, shape in (("kind", (1,)), ("base", (len(CLASSES),)), ("shrink", (1,))):
            sound = own[name].shape == shape and own[name].dtype.kind in "iuf"
            if not sound or not np.isfinite(own[name]).all():
                raise DataError(f"predictor, {name}", own[name], f"give finite numbers of shape {shape}")
        kind, shrink = own["kind"][0].item(), float(own["shrink"][0])
        if kind not in range(len(KINDS)):
            raise DataError("predictor, kind", kind, f"give 0 to {len(KINDS) - 1}: {', '.join(KINDS)}")
        if not 0.0 <= shrink <= 1.0:
            raise DataError("predictor, shrink", shrink, "give a number from 0 to 1")
        parts = {
            name.removeprefix("model/"): values
            for name, values in arrays.items()
            if name.startswith("model/")
        }
        name = KINDS[int(kind)]
        return cls(name, restored(name, parts), np.array(own["base"], dtype=np.float64), shrink)

    def golden(self, features: FloatArray) -> dict[str, FloatArray]:
        """`rows` float64[M, 31], M <= 64 evenly spread finite rows of `features`, and `answers` float64[M,
        3]."""
        finite = np.flatnonzero(np.isfinite(features).all(axis=1))
        if not finite.size:
            raise DataError("golden rows", features.shape, "give at least one finite row of features")
        spread = np.unique(np.linspace(0, finite.size - 1, GOLDEN_ROWS).astype(np.int64))
        rows = np.ascontiguousarray(features[finite[spread]])
        return {"rows": rows, "answers": self.probability(rows)}

    def check_golden(self, golden: Mapping[str, FloatArray]) -> None:
        """Raises DataError unless this predictor gives the recorded answers."""
        answers = self.probability(golden["rows"])
        if answers.shape != golden["answers"].shape or not np.allclose(
            answers, golden["answers"], rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE
        ):
            raise DataError(
                "predictor, golden answers", "others than were recorded", "train again on this machine"
            )


class _FoldLoss(NamedTuple):
    """Log probabilities float64[candidates, n, 3] of one fold's test rows, and `loss` float64[candidates, s,
    n]; both by models that saw only rows settled before the fold."""

    log_p: FloatArray
    base: FloatArray
    loss: FloatArray


_Splits = list[tuple[IntArray, IntArray]]


def _losses(
    rows: Rows, wanted: Sequence[Candidate], seed: int, folds: int
) -> tuple[list[_FoldLoss], _Splits]:
    """The losses of every candidate and s on `folds` + 1 tests: the first serves to choose for the second."""
    splits = walk_forward(rows.known, rows.settled, folds + 1, FIRST_TRAIN)
    first = np.bincount(rows.y[splits[0][0]], minlength=len(CLASSES))
    if first.min() < FEWEST_ROWS_PER_CLASS:
        counted = dict(zip(CLASSES, first.tolist(), strict=True))
        mend = (
            f"give {FEWEST_ROWS_PER_CLASS} of each before the first test: another threshold, or longer bars"
        )
        raise DataError("training rows by class", counted, mend)
    found = []
    for train, test in splits:
        base = log_base_rates(rows.y[train], len(CLASSES))
        models = learn(rows.x[train], rows.y[train], wanted, seed)
        log_p = np.stack([log_softmax(model.scores(rows.x[test])) for model in models])
        happened = (np.arange(len(test)), rows.y[test])
        loss = np.array([[-shrunk(part, base, float(s))[happened] for s in SHRINKAGES] for part in log_p])
        found.append(_FoldLoss(log_p, base, loss))
    return found, splits


def _stated(
    rows: Rows, wanted: Sequence[Candidate], losses: Sequence[_FoldLoss], splits: _Splits
) -> OutOfFold:
    """What would have been stated in each fold but the first, by the candidate and s that had done best until
    then.

    A tested row counts towards the choice only if its label was known before the fold began.
    """
    parts = []
    for fold in range(1, len(splits)):
        test = splits[fold][1]
        start = rows.known[test].min()
        total = np.zeros((len(wanted), SHRINKAGES.size))
        for before in range(fold):
            known = rows.settled[splits[before][1]] < start
            total += losses[before].loss[:, :, known].sum(axis=2)
        number, step = (int(at) for at in np.unravel_index(int(np.argmin(total)), total.shape))
        here = losses[fold]
        p = np.exp(shrunk(here.log_p[number], here.base, float(SHRINKAGES[step])))
        base = own_base_rates(rows, splits[fold][0], test, len(CLASSES))
        parts.append((test, p, base, np.full(len(test), fold, dtype=np.int64)))
    return OutOfFold(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _gains(rows: Rows, seen: OutOfFold) -> FloatArray:
    """Mean gain in log loss over the own market's base rates, float64[folds]."""
    y = rows.y[seen.row]
    at = (np.arange(len(y)), y)
    gain = np.log(seen.p[at]) - seen.base[at]
    return np.array([gain[seen.fold == fold].mean() for fold in np.unique(seen.fold)])


def _whole(field: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(field, value, f"give a whole number, at least {least}")


def _one_thread() -> Any:
    """Matrices this small gain nothing from threads, and one thread always adds in one order."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(limits=1)
