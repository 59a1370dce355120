"""Gradient-boosted trees as flat arrays, answered by one compiled loop.

Knows nothing of prices or classes' meaning; scikit-learn grows the trees and is imported only there. Letters:
N rows, F features, K scores (one per class, but a single one, the log odds of the second, for two classes), T
trees (K per boosting round, round by round), M nodes of all trees.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from market.compiled import compiled
from market.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LEAF = -1
_FLOATING = frozenset(("baseline", "threshold", "value"))
LARGEST_LEAVES = 8
DEPTH = 3
LEARNING_RATE = 0.05
FEWEST_ROWS_PER_LEAF = 100
RIDGE = 10.0


@dataclass(frozen=True, eq=False)
class BoostedTrees:
    """Additive trees: raw score k = `baseline[k]` + the leaf values of trees k, k + K, k + 2K, ...

    `root` int64[T] is each tree's first node. Per node, [M]: `feature` int64 (LEAF = -1: an end), `threshold`
    float64, `left` and `right` int64 (node numbers, always beyond the node's own), `missing_left` int64 0 or
    1, `value` float64. A row goes left where its feature <= threshold; NaN goes where `missing_left` says.
    """

    baseline: FloatArray
    root: IntArray
    feature: IntArray
    threshold: FloatArray
    left: IntArray
    right: IntArray
    missing_left: IntArray
    value: FloatArray

    @classmethod
    def fit(
        cls,
        x: FloatArray,
        y: IntArray,
        rounds: int,
        seed: int,
        leaves: int = LARGEST_LEAVES,
        fewest: int = FEWEST_ROWS_PER_LEAF,
        rate: float = LEARNING_RATE,
    ) -> Self:
        """`rounds` of shallow trees by scikit-learn's HistGradientBoostingClassifier, x float64[N, F] and y
        int64[N], of at most `leaves` leaves with at least `fewest` rows in each, each scaled by `rate`.

        y must hold every class from 0 to its largest, two or more. Deterministic by `seed` on one thread.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier

        learner = HistGradientBoostingClassifier(
            learning_rate=rate,
            max_iter=rounds,
            max_depth=DEPTH,
            max_leaf_nodes=leaves,
            min_samples_leaf=fewest,
            l2_regularization=RIDGE,
            early_stopping=False,
            random_state=seed,
        )
        return cls.from_scikit_learn(learner.fit(x, y))

    @classmethod
    def from_scikit_learn(cls, learner: Any) -> Self:
        """The trees of a fitted HistGradientBoostingClassifier without categorical features.

        Reads scikit-learn's private attributes, there being no public ones: a test holds the answers equal.
        Raises DataError for a single class or categorical splits, whose trees mean something else.
        """
        trees = [tree.nodes for trees_of_round in learner._predictors for tree in trees_of_round]
        if len(learner.classes_) < 2:
            raise DataError("classes", len(learner.classes_), "give two or more classes of training rows")
        sizes = np.array([len(nodes) for nodes in trees], dtype=np.int64)
        root = np.concatenate(([0], np.cumsum(sizes)))[:-1].astype(np.int64)
        nodes = np.concatenate(trees)
        if np.any(nodes["is_categorical"]):
            raise DataError("trees", "categorical splits", "train on numbers only")
        ends = nodes["is_leaf"].astype(bool)
        shift = np.repeat(root, sizes)
        return cls(
            baseline=np.array(learner._baseline_prediction[0], dtype=np.float64),
            root=root,
            feature=np.where(ends, LEAF, nodes["feature_idx"]).astype(np.int64),
            threshold=np.where(ends, 0.0, nodes["num_threshold"]),
            left=np.where(ends, 0, nodes["left"] + shift).astype(np.int64),
            right=np.where(ends, 0, nodes["right"] + shift).astype(np.int64),
            missing_left=nodes["missing_go_to_left"].astype(np.int64),
            value=nodes["value"].astype(np.float64),
        )

    def first_rounds(self, rounds: int) -> Self:
        """The same model stopped after `rounds` of boosting."""
        trees = rounds * self.baseline.size
        nodes = int(self.root[trees]) if trees < self.root.size else self.feature.size
        columns = {name: getattr(self, name)[:nodes] for name in _PER_NODE}
        return type(self)(baseline=self.baseline, root=self.root[:trees], **columns)

    def scores(self, x: FloatArray) -> FloatArray:
        """Raw scores float64[N, K] of x float64[N, F]; NaN means missing.

        Their softmax gives probabilities; for K = 1 their logistic function that of the second class.
        """
        return tree_scores(
            np.ascontiguousarray(x, dtype=np.float64),
            self.baseline,
            self.root,
            self.feature,
            self.threshold,
            self.left,
            self.right,
            self.missing_left,
            self.value,
        )

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Every attribute by name."""
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], features: int) -> Self:
        """Back from `to_arrays`, bit for bit, for rows of F = `features`.

        Raises DataError for arrays that are missing, misshapen or not finite, and for nodes that point out of
        the arrays or back to an earlier node: whatever passes ends, for every row.
        """
        if set(arrays) != set(_NAMES):
            raise DataError("trees, arrays", sorted(arrays), f"give {', '.join(_NAMES)}")
        plain: dict[str, npt.NDArray[Any]] = {}
        for name in _NAMES:
            given = np.asarray(arrays[name])
            kind, dtype = ("f", np.float64) if name in _FLOATING else ("iu", np.int64)
            if given.ndim != 1 or given.dtype.kind not in kind or np.isnan(given).any():
                raise DataError(f"trees, {name}", given, f"give a row of {np.dtype(dtype).name}")
            plain[name] = np.array(given, dtype=dtype)
        _check_trees(plain, features)
        return cls(**plain)


_NAMES = tuple(BoostedTrees.__dataclass_fields__)
_NONE = np.zeros(0, dtype=np.int64)
NO_TREES = BoostedTrees(np.zeros(0), _NONE, _NONE, np.zeros(0), _NONE, _NONE, _NONE, np.zeros(0))
_PER_NODE = _NAMES[2:]


def _check_trees(plain: Mapping[str, npt.NDArray[Any]], features: int) -> None:
    count = plain["feature"].size
    for name in _PER_NODE:
        if plain[name].size != count:
            raise DataError(f"trees, {name}", plain[name].size, f"give {count} values, one per node")
    if not np.isfinite(plain["value"]).all() or not np.isfinite(plain["baseline"]).all():
        raise DataError("trees, value", plain["value"], "give finite numbers")
    classes, root = plain["baseline"].size, plain["root"]
    if classes < 1 or root.size % classes or np.any((root < 0) | (root >= count)):
        raise DataError("trees, root", root, f"give the first nodes of {classes} trees per round")
    if np.any((plain["feature"] < LEAF) | (plain["feature"] >= features)):
        raise DataError("trees, feature", plain["feature"], f"give {LEAF} or a number below {features}")
    inner = np.flatnonzero(plain["feature"] != LEAF)
    for name in ("left", "right"):
        if np.any((plain[name][inner] <= inner) | (plain[name][inner] >= count)):
            raise DataError(f"trees, {name}", plain[name], "give nodes that follow their parents")


@compiled()
def tree_scores(
    x: FloatArray,
    baseline: FloatArray,
    root: IntArray,
    feature: IntArray,
    threshold: FloatArray,
    left: IntArray,
    right: IntArray,
    missing_left: IntArray,
    value: FloatArray,
) -> FloatArray:
    """See `BoostedTrees.scores`."""
    classes = baseline.size
    result = np.empty((x.shape[0], classes))
    for row in range(x.shape[0]):
        for number in range(classes):
            result[row, number] = baseline[number]
        for tree in range(root.size):
            node = root[tree]
            while feature[node] >= 0:
                seen = x[row, feature[node]]
                goes_left = missing_left[node] == 1 if np.isnan(seen) else seen <= threshold[node]
                node = left[node] if goes_left else right[node]
            result[row, tree % classes] += value[node]
    return result
