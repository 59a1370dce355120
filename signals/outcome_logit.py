"""One quadratic multinomial logit: its terms, its fit, and the choice of how far to trust it.

Knows nothing of R: it tells classes apart. Letters: x are the six fields, C scikit-learn's inverse
regularisation, s the shrinkage of the logits towards the base rates, N rows, T = 27 terms, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

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
        raw = _expanded(x, center, scale)
        return cls(center, scale, raw.mean(axis=0), _deviation(raw))

    def terms(self, x: FloatArray) -> FloatArray:
        """The terms float64[N, T]: the six fields, their squares and products, each standardised."""
        return (_expanded(x, self.center, self.scale) - self.term_center) / self.term_scale


class Logit(NamedTuple):
    """Weights float64[T, K], intercept float64[K] and log base rates float64[K] of K classes."""

    coefficient: FloatArray
    intercept: FloatArray
    base: FloatArray


class Choice(NamedTuple):
    """C and s, and the summed log loss (nats) of such a choice, and of the base rates, on blocks it was not
    made on."""

    regularisation: float
    shrink: float
    loss: float
    base_loss: float


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


def choose(x: FloatArray, classes: IntArray, count: int, splits: Folds) -> Choice:
    """C and s by log loss over `splits`, for fields x float64[N, 6] and classes int64[N] (-1: the row takes
    no part).

    The loss reported for a block is that of the C and s which the other blocks would have chosen: an honest
    figure. Unless its mean gain over the base rates exceeds its standard error over the blocks (Breiman,
    Friedman, Olshen & Stone 1984), s is 0: in a market without skill, about one choice in ten passes.
    """
    # loss[fold, C, s]: summed over the fold's test rows. s = 0 is the base rate of the fold's training rows.
    loss = np.zeros((len(splits), len(REGULARISATIONS), SHRINKAGES.size))
    for fold, (train, test) in enumerate(splits):
        train, test = train[classes[train] >= 0], test[classes[test] >= 0]
        scaling = Scaling.fit(x[train]) if train.size else None
        if scaling is None or test.size == 0 or count == 1:
            continue
        unseen = scaling.terms(x[test])
        logits = fit_logits(scaling.terms(x[train]), classes[train], count, REGULARISATIONS)
        happened = (np.arange(test.size), classes[test])
        for number, logit in enumerate(logits):
            full = log_softmax(unseen @ logit.coefficient + logit.intercept)
            for step, shrink in enumerate(SHRINKAGES):
                loss[fold, number, step] = -shrunk(full, logit.base, float(shrink))[happened].sum()
    total = loss.sum(axis=0)
    best = np.unravel_index(int(np.argmin(total)), total.shape)
    honest = np.array([part.flat[int(np.argmin(total - part))] for part in loss])
    gain = loss[:, 0, 0] - honest
    proven = gain.mean() > gain.std(ddof=1) / np.sqrt(len(splits))
    shrink = float(SHRINKAGES[best[1]]) if proven else 0.0
    return Choice(REGULARISATIONS[int(best[0])], shrink, float(honest.sum()), float(total[0, 0]))


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log probabilities float64[N, K] of logits float64[N, K]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


def shrunk(log_probability: FloatArray, base: FloatArray, shrink: float) -> FloatArray:
    """Log probabilities float64[N, K] moved in logits: s of the way from the base rates float64[K] to what
    was given."""
    return log_softmax(base + shrink * (log_probability - base))


def _expanded(x: FloatArray, center: FloatArray, scale: FloatArray) -> FloatArray:
    z = np.clip((x - center) / scale, -FARTHEST, FARTHEST)
    return np.concatenate((z, z[:, _LEFT] * z[:, _RIGHT]), axis=1)


def _deviation(values: FloatArray) -> FloatArray:
    """Standard deviation per column; 1 where a column never moves (numerically), so that it stays at zero."""
    deviation = values.std(axis=0)
    return np.where(deviation > 1e-9, deviation, 1.0)
