import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.flips import STEPS, nearest_flip


def bands(edges, names):
    """A choice that is constant between `edges`."""
    return lambda value: names[int(np.searchsorted(edges, value, side="right"))]


@given(
    st.lists(st.integers(1, 19), min_size=0, max_size=6, unique=True),
    st.lists(st.sampled_from("abc"), min_size=7, max_size=7),
    st.floats(0.0, 20.0),
)
def test_it_finds_the_flip_that_brute_force_finds(edges, names, start):
    """The bands are wider than a step, so none can be passed over."""
    choose = bands(sorted(edges), names)
    grid = np.linspace(0.0, 20.0, 20_001)
    found = np.array(names)[np.searchsorted(sorted(edges), grid, side="right")]
    others = grid[found != choose(start)]
    flip = nearest_flip(choose, start, 0.0, 20.0)
    if others.size == 0:
        assert flip is None
        return
    assert flip is not None
    assert flip.choice == choose(flip.value) != choose(start)
    assert abs(flip.value - start) == pytest.approx(np.abs(others - start).min(), abs=2e-3)


def test_the_flip_is_found_to_the_precision_asked_for():
    flip = nearest_flip(bands([1 / 3], "ab"), 0.0, 0.0, 1.0)
    assert flip is not None
    assert flip.choice == "b"
    assert 1 / 3 <= flip.value < 1 / 3 + 1e-8


def test_whole_numbers_stay_whole():
    asked = []

    def choose(value):
        asked.append(value)
        return "a" if value < 700 else "b"

    flip = nearest_flip(choose, 2.0, 0.0, 1_000.0, whole=True)
    assert flip == (700.0, "b")
    assert all(value == round(value) for value in asked)


def test_where_nothing_flips_there_is_none_and_few_questions_are_asked():
    asked = []
    assert nearest_flip(lambda value: asked.append(value) or "a", 0.5, 0.0, 1.0) is None
    assert len(asked) == 1 + 2 * STEPS


def test_a_start_at_the_end_of_its_range_looks_to_the_other_side_only():
    flip = nearest_flip(bands([0.25], "ab"), 1.0, 0.0, 1.0)
    assert flip is not None
    assert flip.choice == "a"
    assert flip.value == pytest.approx(0.25, abs=1e-8)
