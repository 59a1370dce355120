import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from market.errors import DataError
from signals.boosted_trees import DEPTH, LEAF, NO_TREES, RIDGE
from signals.outcome_trees import (
    FEWEST_ROWS_PER_LEAF,
    LEARNING_RATE,
    LEAVES,
    ROUNDS,
    grow,
    log_probability,
    restored,
)


def trades(classes: int, count: int = 900, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Fields float64[count, 6] and classes that lean on two of them."""
    random = np.random.default_rng(seed)
    x = random.uniform(-1.0, 1.0, (count, 6))
    score = np.outer(x[:, 0] * np.sign(x[:, 2]), np.arange(classes)) + random.gumbel(size=(count, classes))
    return x, np.argmax(score, axis=1)


def base_of(y: np.ndarray) -> np.ndarray:
    return np.log(np.bincount(y) / len(y))


def theirs(x: np.ndarray, y: np.ndarray, rounds: int) -> HistGradientBoostingClassifier:
    learner = HistGradientBoostingClassifier(
        learning_rate=LEARNING_RATE,
        max_iter=rounds,
        max_depth=DEPTH,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=FEWEST_ROWS_PER_LEAF,
        l2_regularization=RIDGE,
        early_stopping=False,
        random_state=0,
    )
    return learner.fit(x, y)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_every_stop_of_one_growth_answers_as_scikit_learns_own_probabilities(classes: int):
    x, y = trades(classes)
    asked = np.random.default_rng(1).uniform(-2.0, 2.0, (2000, 6))
    grown = grow(x, y, base_of(y), ROUNDS)
    assert len(grown) == len(ROUNDS)
    for rounds, trees in zip(ROUNDS, grown, strict=True):
        inner = np.flatnonzero(trees.feature != LEAF)
        assert inner.size > rounds, "trees without a split would prove nothing"
        # On the thresholds themselves <= decides.
        asked[np.arange(inner.size) % 2000, trees.feature[inner]] = trees.threshold[inner]
        ours = np.exp(log_probability(trees, asked))
        np.testing.assert_allclose(ours, theirs(x, y, rounds).predict_proba(asked), rtol=0, atol=1e-12)
        np.testing.assert_allclose(ours.sum(axis=1), 1.0, atol=1e-12)


def test_a_single_class_needs_no_trees():
    arrays = NO_TREES.to_arrays() | {"baseline": np.zeros(1)}
    with pytest.raises(DataError, match="classes: got 1; give trees only where there are two"):
        restored(arrays, 1, 0)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_row_with_nan_gives_nan_and_leaves_its_neighbours_alone(classes: int):
    x, y = trades(classes)
    (trees,) = grow(x, y, base_of(y), (10,))
    for column in range(6):
        asked = x[:3].copy()
        asked[1, column] = np.nan
        stated = log_probability(trees, asked)
        assert np.isnan(stated[1]).all()
        np.testing.assert_array_equal(stated[[0, 2]], log_probability(trees, x[[0, 2]]))


@pytest.mark.parametrize(("classes", "kept"), [(2, [0]), (3, [0, 2]), (3, [1])])
def test_rows_that_lack_a_class_give_the_base_rates_that_were_handed_in(classes: int, kept: list[int]):
    x, y = trades(classes)
    rows = np.isin(y, kept)
    base = base_of(y)
    for trees in grow(x[rows], y[rows], base, ROUNDS):
        assert trees.root.size == 0
        stated = log_probability(trees, x[:5])
        np.testing.assert_allclose(stated, np.tile(base, (5, 1)), rtol=0, atol=1e-15)


@pytest.mark.parametrize("classes", [2, 3])
def test_trees_come_back_bit_for_bit_and_only_as_what_they_are(classes: int):
    x, y = trades(classes)
    (trees,) = grow(x, y, base_of(y), (10,))
    arrays = {name: values.copy() for name, values in trees.to_arrays().items()}
    back = restored(arrays, classes, 10)
    np.testing.assert_array_equal(log_probability(back, x), log_probability(trees, x))
    for other_classes, rounds in ((classes + 1, 10), (classes, 9), (classes, 0)):
        with pytest.raises(DataError, match="trees, scores and trees"):
            restored(arrays, other_classes, rounds)
    with pytest.raises(DataError, match="trees, feature"):
        restored({**arrays, "feature": np.where(arrays["feature"] == LEAF, LEAF, 6)}, classes, 10)
