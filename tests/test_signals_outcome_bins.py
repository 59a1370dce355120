import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.errors import DataError
from signals.outcome_bins import bin_edges, bins_of


def triple_barrier(count: int, seed: int = 0) -> np.ndarray:
    """Stops near -1, targets near 2 (costs smear both) and trades that ran out of time in between."""
    random = np.random.default_rng(seed)
    kind = random.choice(3, count, p=[0.5, 0.3, 0.2])
    smear = 0.05 * random.random(count)
    return np.where(kind == 0, -1 - smear, np.where(kind == 1, 2 - smear, random.uniform(-0.9, 1.9, count)))


def test_stop_like_and_target_like_trades_have_bins_of_their_own():
    r = triple_barrier(3000)
    edges = bin_edges(r)
    assert 0.0 in edges
    assert -1.0 < edges[0] < -0.3
    assert 1.2 < edges[-1] < 1.95
    means = [r[bins_of(r, edges) == number].mean() for number in range(len(edges) + 1)]
    assert means[0] == pytest.approx(-1.0, abs=0.06)
    assert means[-1] == pytest.approx(1.95, abs=0.06)
    assert 4 <= len(means) <= 6


@given(st.integers(100, 700), st.integers(0, 50))
def test_every_bin_has_enough_rows_and_none_spans_zero(count, seed):
    r = triple_barrier(count, seed)
    edges = bin_edges(r)
    assert (np.diff(edges) > 0).all()
    assert 0.0 in edges
    rows = np.bincount(bins_of(r, edges), minlength=len(edges) + 1)
    fewest = max(20, int(0.02 * count))
    losses = int(np.searchsorted(edges, 0.0)) + 1
    for side in (rows[:losses], rows[losses:]):
        assert len(side) == 1 or side.min() >= fewest


def test_edges_part_the_groups_with_the_least_variance():
    r = np.concatenate(
        (np.full(300, -1.0), np.full(40, -0.2), np.full(60, 0.5), np.full(50, 1.0), np.full(99, 3.0))
    )
    assert bin_edges(r).tolist() == [-0.6, 0.0, 0.75, 2.0]


def test_groups_that_only_costs_keep_apart_are_one():
    r = np.concatenate((np.linspace(-1.15, -1.0, 200), np.linspace(1.9, 2.0, 200)))
    assert bin_edges(r).tolist() == [0.0]


def test_a_trade_that_ends_at_nothing_has_not_won():
    assert bins_of(np.array([-0.5, 0.0, 1e-12]), np.array([0.0])).tolist() == [0, 0, 1]


@pytest.mark.parametrize("r", [np.full(200, -1.0), np.full(200, 2.0)])
def test_trades_that_all_end_alike_are_refused(r):
    with pytest.raises(DataError, match="wins"):
        bin_edges(r)
