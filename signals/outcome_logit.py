"""One quadratic multinomial logit: its terms, its fit, and how its answers are moved towards base rates.

Knows nothing of R: it tells classes apart. Letters: x are the six fields, C scikit-learn's inverse
regularisation, s the shrinkage of the logits towards the base rates, N rows, T = 27 terms, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from market.compiled import compiled
from signals.fields import SIGNAL_FIELDS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Folds = Sequence[tuple[IntArray, IntArray]]

REGULARISATIONS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SHRINKAGES = np.linspace(0.0, 1.0, 21)
# Standardised fields are held within this many deviations: outside the training cloud a quadratic only
# extrapolates.
FARTHEST = 3.0
_LEFT, _RIGHT = np.triu_indices(len(SIGNAL_FIELDS))
TERMS = len(SIGNAL_FIELDS) + _LEFT.size


class Scaling(NamedTuple):
    """How fields become terms: means and deviations of the fields float64[6] and of the terms float64[T]."""

    center: FloatArray
    scale: FloatArray
    term_center: FloatArray
    term_scale: FloatArray

    @classmethod
    def fit(cls, x: FloatArray) -> Self:
        """Means and deviations of training fields x float64[N, 6]."""
        center, scale = x.mean(axis=0), _deviation(x)
        raw = cls(center, scale, np.zeros(TERMS), np.ones(TERMS)).terms(x)
        return cls(center, scale, raw.mean(axis=0), _deviation(raw))

    def terms(self, x: FloatArray) -> FloatArray:
        """The terms float64[N, T]: the six fields, their squares and products, each standardised."""
        terms = np.empty((len(x), TERMS))
        _terms(x, *self, terms)
        return terms


class Logit(NamedTuple):
    """Weights float64[T, K], intercept float64[K] and log base rates float64[K] of K classes."""

    coefficient: FloatArray
    intercept: FloatArray
    base: FloatArray


def fit_logits(
    terms: FloatArray, classes: IntArray, count: int, regularisations: Sequence[float]
) -> list[Logit]:
    """One logit for each C on terms float64[N, T] and classes int64[N] below `count`, each starting from the
    one before."""
    from sklearn.linear_model import LogisticRegression

    in_class = np.bincount(classes, minlength=count)
    # Half a trade more in each class: one that is empty in a fold stays possible.
    base = np.log((in_class + 0.5) / (classes.size + 0.5 * count))
    present = np.flatnonzero(in_class)
    if present.size < 2:
        return [Logit(np.zeros((terms.shape[1], count)), base, base)] * len(regularisations)
    learner = LogisticRegression(solver="newton-cholesky", warm_start=True)
    fitted = []
    for regularisation in regularisations:
        learner.set_params(C=regularisation).fit(terms, classes)
        weights, constant = learner.coef_.T, learner.intercept_
        if present.size == 2:
            # Two classes come as one column of log odds; half of it on either side is the same softmax.
            weights, constant = np.hstack((-weights, weights)) / 2.0, np.append(-constant, constant) / 2.0
        coefficient, intercept = np.zeros((terms.shape[1], count)), base + np.logaddexp.reduce(constant)
        coefficient[:, present], intercept[present] = weights, constant
        fitted.append(Logit(coefficient, intercept, base))
    return fitted


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log probabilities float64[N, K] of logits float64[N, K]."""
    result = np.array(logits, dtype=np.float64, order="C")
    normalise(result, np.array([logits.shape[1]]))
    return result


def shrunk(log_probability: FloatArray, base: FloatArray, shrink: float) -> FloatArray:
    """Log probabilities float64[N, K] moved in logits: `shrink` of the way from the base rates float64[K] to
    what was given."""
    result = np.array(log_probability, dtype=np.float64, order="C")
    shrink_towards(result, base, np.full(len(base), shrink))
    normalise(result, np.array([len(base)]))
    return result


@compiled()
def normalise(logits: FloatArray, ends: IntArray) -> None:
    """Turn logits into log probabilities.

    Several questions may stand side by side: `ends` int64[Q] says before which column each of them ends.
    """
    for row in range(len(logits)):
        first = 0
        for end in ends:
            largest, total = logits[row, first], 0.0
            for column in range(first + 1, end):
                largest = np.maximum(largest, logits[row, column])  # NaN, where there is one
            for column in range(first, end):
                logits[row, column] -= largest
                total += np.exp(logits[row, column])
            whole = np.log(total)
            for column in range(first, end):
                logits[row, column] -= whole
            first = end


@compiled()
def shrink_towards(log_probability: FloatArray, base: FloatArray, shrink: FloatArray) -> None:
    """Move what is given towards `base`, where it is not normalised any more."""
    for row in range(len(log_probability)):
        for column in range(len(base)):
            moved = shrink[column] * (log_probability[row, column] - base[column])
            log_probability[row, column] = base[column] + moved


@compiled()
def fill_logits(
    x: FloatArray,
    center: FloatArray,
    scale: FloatArray,
    term_center: FloatArray,
    term_scale: FloatArray,
    coefficient: FloatArray,
    intercept: FloatArray,
    logits: FloatArray,
) -> None:
    """Fill in what weights float64[T, K] and intercept float64[K] say of fields x float64[N, 6].

    Each row is added up by itself: what is said of it is the same whatever others stand beside it.
    """
    terms = np.empty((1, len(term_center)))
    for row in range(len(x)):
        _terms(x[row : row + 1], center, scale, term_center, term_scale, terms)
        logits[row] = intercept
        for term in range(terms.shape[1]):
            own = terms[0, term]
            for column in range(logits.shape[1]):
                logits[row, column] += own * coefficient[term, column]


@compiled(error_model="numpy")
def _terms(
    x: FloatArray,
    center: FloatArray,
    scale: FloatArray,
    term_center: FloatArray,
    term_scale: FloatArray,
    terms: FloatArray,
) -> None:
    """Fill in `terms`."""
    width = x.shape[1]
    for row in range(len(x)):
        for column in range(width):
            z = (x[row, column] - center[column]) / scale[column]
            terms[row, column] = FARTHEST if z > FARTHEST else -FARTHEST if z < -FARTHEST else z
        for term in range(len(_LEFT)):
            terms[row, width + term] = terms[row, _LEFT[term]] * terms[row, _RIGHT[term]]
        for term in range(terms.shape[1]):
            terms[row, term] = (terms[row, term] - term_center[term]) / term_scale[term]


def _deviation(values: FloatArray) -> FloatArray:
    """Standard deviation per column; 1 where a column never moves (numerically), so that it stays at zero."""
    deviation = values.std(axis=0)
    return np.where(deviation > 1e-9, deviation, 1.0)
