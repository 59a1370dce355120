"""Which answers one question about outcomes, a logit or trees, and how far it is to be trusted.

Knows nothing of R: it tells classes apart. Letters: x are the six fields, C scikit-learn's inverse
regularisation of the logit, s the shrinkage of the logits towards the base rates, N rows, K classes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from signals.outcome_logit import REGULARISATIONS, SHRINKAGES, Folds, Scaling, fit_logits, log_softmax, shrunk
from signals.outcome_trees import ROUNDS, grow, log_probability

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LOGITS = len(REGULARISATIONS)
_SETTINGS = _LOGITS + len(ROUNDS)


class Choice(NamedTuple):
    """The best C of the logit, the `rounds` of boosting (0: the logit answers) and s; and summed log losses
    in nats over the tested rows.

    `loss` is that of such a choice, on blocks it was not made on; `base_loss` that of the base rates;
    `logit_loss` and `trees_loss` those of each kind's best setting and s, by which they were compared.
    """

    regularisation: float
    rounds: int
    shrink: float
    loss: float
    base_loss: float
    logit_loss: float
    trees_loss: float


def choose(x: FloatArray, classes: IntArray, count: int, splits: Folds) -> Choice:
    """Kind, setting and s by log loss over `splits`, for fields x float64[N, 6] and classes int64[N] below K
    = `count` (-1: the row takes no part).

    A tie goes to the logit. The loss reported for a block is that of the kind, setting and s which the other
    blocks would have chosen: an honest figure. Unless its mean gain over the base rates exceeds its standard
    error over the blocks (Breiman, Friedman, Olshen & Stone 1984), s is 0 and the kind a logit: in a market
    without skill, about one choice in ten passes.
    """
    # loss[fold, setting, s]: summed over the fold's test rows. s = 0 is the base rate of the fold's training
    # rows, whatever the setting.
    loss = np.zeros((len(splits), _SETTINGS, SHRINKAGES.size))
    for fold, (train, test) in enumerate(splits):
        train, test = train[classes[train] >= 0], test[classes[test] >= 0]
        if train.size == 0 or test.size == 0 or count == 1:
            continue
        happened = (np.arange(test.size), classes[test])
        for setting, (stated, base) in enumerate(_stated(x[train], classes[train], count, x[test])):
            for step, shrink in enumerate(SHRINKAGES):
                loss[fold, setting, step] = -shrunk(stated, base, float(shrink))[happened].sum()
    total = loss.sum(axis=0)
    setting, step = (int(at) for at in np.unravel_index(int(np.argmin(total)), total.shape))
    honest = np.array([part.flat[int(np.argmin(total - part))] for part in loss])
    gain = loss[:, 0, 0] - honest
    proven = bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(splits)))
    by_setting = total.min(axis=1)
    return Choice(
        regularisation=REGULARISATIONS[int(np.argmin(by_setting[:_LOGITS]))],
        rounds=ROUNDS[setting - _LOGITS] if proven and setting >= _LOGITS else 0,
        shrink=float(SHRINKAGES[step]) if proven else 0.0,
        loss=float(honest.sum()),
        base_loss=float(total[0, 0]),
        logit_loss=float(by_setting[:_LOGITS].min()),
        trees_loss=float(by_setting[_LOGITS:].min()),
    )


def _stated(
    x: FloatArray, classes: IntArray, count: int, unseen: FloatArray
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Per setting, logits first, the log probabilities float64[M, K] of `unseen` float64[M, 6] after learning
    from x and classes, and the log base rates float64[K]."""
    scaling = Scaling.fit(x)
    terms = scaling.terms(unseen)
    logits = fit_logits(scaling.terms(x), classes, count, REGULARISATIONS)
    for logit in logits:
        yield log_softmax(terms @ logit.coefficient + logit.intercept), logit.base
    for trees in grow(x, classes, logits[0].base, ROUNDS):
        yield log_probability(trees, unseen), logits[0].base
