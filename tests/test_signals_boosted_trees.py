import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.ensemble import HistGradientBoostingClassifier

from market.errors import DataError
from signals.boosted_trees import LEAF, BoostedTrees

FEATURES = 31


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Of raw scores float64[N, K], or of the one column of log odds that two classes have."""
    if scores.shape[1] > 1:
        return softmax(scores, axis=1)
    return np.hstack((expit(-scores), expit(scores)))


@pytest.fixture(scope="module", params=[3, 2], ids=["three classes", "two classes"])
def grown(request):
    random = np.random.default_rng(0)
    x = random.normal(size=(1500, FEATURES))
    x[random.random(x.shape) < 0.08] = np.nan
    y = np.where(np.nan_to_num(x[:, 0]) + np.isnan(x[:, 5]) + random.normal(0, 0.5, 1500) > 0.6, 2, 0)
    if request.param == 3:
        y[random.random(1500) < 0.3] = 1
    else:
        y //= 2
    learner = HistGradientBoostingClassifier(max_depth=4, max_iter=25, early_stopping=False, random_state=0)
    return learner.fit(x, y), x


def test_flat_trees_answer_as_scikit_learns_missing_values_included(grown):
    learner, x = grown
    trees = BoostedTrees.from_scikit_learn(learner)
    asked = np.random.default_rng(1).normal(size=(3000, FEATURES)) * 2
    asked[np.random.default_rng(2).random(asked.shape) < 0.15] = np.nan
    asked[0] = np.nan
    # On the thresholds themselves <= decides.
    inner = np.flatnonzero(trees.feature != LEAF)
    for row, node in enumerate(inner[:500]):
        asked[row, trees.feature[node]] = trees.threshold[node]
    for rows in (x, asked):
        ours = probabilities(trees.scores(rows))
        np.testing.assert_allclose(ours, learner.predict_proba(rows), rtol=0, atol=1e-12)
    assert set(np.unique(trees.missing_left[inner])) == {0, 1}, "both ways of a missing value occur"


@pytest.mark.parametrize("classes", [2, 3])
def test_trees_stopped_earlier_equal_trees_grown_for_fewer_rounds(classes: int):
    x = np.random.default_rng(3).normal(size=(1200, FEATURES))
    y = np.argmax(
        np.outer(x[:, 3], np.arange(classes)) + np.random.default_rng(4).normal(size=(1200, classes)), axis=1
    )
    long = BoostedTrees.fit(x, y, 30, seed=0)
    short = BoostedTrees.fit(x, y, 10, seed=0)
    assert not np.array_equal(long.scores(x), short.scores(x))
    np.testing.assert_array_equal(long.first_rounds(10).scores(x), short.scores(x))
    np.testing.assert_array_equal(long.first_rounds(30).scores(x), long.scores(x))


def test_trees_that_could_run_in_circles_or_out_of_bounds_are_refused(grown):
    arrays = BoostedTrees.from_scikit_learn(grown[0]).to_arrays()
    back = BoostedTrees.from_arrays(arrays, FEATURES)
    np.testing.assert_array_equal(back.scores(grown[1]), BoostedTrees(**arrays).scores(grown[1]))
    inner = int(np.flatnonzero(arrays["feature"] != LEAF)[1])
    for name, value in (
        ("left", inner),
        ("right", 0),
        ("left", 10**9),
        ("feature", FEATURES),
        ("feature", -2),
        ("root", -1),
        ("value", np.nan),
        ("value", np.inf),
        ("threshold", np.nan),
    ):
        wrong = {key: values.copy() for key, values in arrays.items()}
        wrong[name][inner] = value
        with pytest.raises(DataError, match=f"trees, {name}"):
            BoostedTrees.from_arrays(wrong, FEATURES)
    for broken in (
        {**arrays, "left": arrays["left"][:-1]},
        {**arrays, "baseline": np.zeros(2)},  # an odd number of trees
        {**arrays, "left": arrays["left"].astype(float)},
        {name: values for name, values in arrays.items() if name != "root"},
    ):
        with pytest.raises(DataError, match="trees, "):
            BoostedTrees.from_arrays(broken, FEATURES)


def test_two_classes_have_one_score_and_one_class_is_refused():
    x = np.random.default_rng(0).normal(size=(400, 4))
    y = (x[:, 0] > 0.2).astype(np.int64)
    trees = BoostedTrees.fit(x, y, 5, seed=0)
    assert trees.scores(x).shape == (400, 1)
    assert (trees.baseline.size, trees.root.size) == (1, 5)
    # Before the first tree, the log odds of the second class.
    none = trees.first_rounds(0)
    np.testing.assert_allclose(none.scores(x), np.log(y.mean() / (1 - y.mean())), rtol=1e-12)
    # The score is that of the second class: it is high where there are more of them.
    assert trees.scores(x[y == 1]).mean() > trees.scores(x[y == 0]).mean()
    with pytest.raises(DataError, match="classes: got 1"):
        BoostedTrees.fit(x, np.zeros(400, dtype=np.int64), 5, seed=0)
