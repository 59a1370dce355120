"""Boosted trees that answer one question about outcomes: how they are grown, and what they say.

Knows nothing of R, and nothing of how far the trees are to be trusted. Letters: x are the six fields, N rows,
K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from market.compiled import compiled
from market.errors import DataError
from signals.boosted_trees import NO_TREES, BoostedTrees
from signals.fields import SIGNAL_FIELDS
from signals.outcome_logit import log_softmax

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ROUNDS = (10, 40)
LEARNING_RATE = 0.1
LEAVES = 6
FEWEST_ROWS_PER_LEAF = 30
# Scikit-learn draws nothing from it here (it neither sets rows apart nor samples them); it must be given.
_SEED = 0


def grow(x: FloatArray, classes: IntArray, base: FloatArray, rounds: Sequence[int]) -> list[BoostedTrees]:
    """Trees after each of `rounds` of one growth, on fields x float64[N, 6] and classes int64[N] below K.

    `base` float64[K] are the log base rates: all that is said where the rows do not hold every class (a block
    of time may lack one), by a model without trees. Run it on one thread: more add up in another order.
    """
    if np.unique(classes).size < base.size:
        baseline = np.diff(base) if base.size == 2 else base
        return [replace(NO_TREES, baseline=baseline)] * len(rounds)
    grown = BoostedTrees.fit(x, classes, max(rounds), _SEED, LEAVES, FEWEST_ROWS_PER_LEAF, LEARNING_RATE)
    return [grown.first_rounds(stop) for stop in rounds]


def log_probability(trees: BoostedTrees, x: FloatArray) -> FloatArray:
    """Log probabilities float64[N, K] of fields x float64[N, 6]; a row with NaN gives NaN."""
    return log_softmax(logits(trees, x))


def logits(trees: BoostedTrees, x: FloatArray) -> FloatArray:
    """What `log_probability` is the softmax of, float64[N, K]."""
    scores = trees.scores(x)
    result = np.empty((len(x), max(scores.shape[1], 2)))
    place_scores(scores, x, 0, result)
    return result


@compiled()
def place_scores(scores: FloatArray, x: FloatArray, first: int, logits: FloatArray) -> None:
    """Fill in the columns of `logits` from `first` on with raw scores; a row of x with NaN gives NaN."""
    for row in range(len(scores)):
        unknown = np.isnan(x[row]).any()
        for column in range(scores.shape[1]):
            score = np.nan if unknown else scores[row, column]
            if scores.shape[1] == 1:
                # Two classes come as one column of log odds; half of it on either side is the same softmax.
                logits[row, first], logits[row, first + 1] = -score / 2.0, score / 2.0
            else:
                logits[row, first + column] = score


def restored(arrays: Mapping[str, npt.NDArray[Any]], classes: int, rounds: int) -> BoostedTrees:
    """Trees of K = `classes` and as many `rounds` from their `to_arrays`. Raises DataError for others."""
    if classes < 2:
        raise DataError(
            "trees, classes", classes, "give trees only where there are two classes to tell apart"
        )
    trees = BoostedTrees.from_arrays(arrays, len(SIGNAL_FIELDS))
    scores = 1 if classes == 2 else classes
    if trees.baseline.size != scores or trees.root.size != scores * rounds:
        seen = (trees.baseline.size, trees.root.size)
        raise DataError("trees, scores and trees", seen, f"give {scores} and {scores * rounds}")
    return trees
