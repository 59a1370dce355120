"""The normaliser: fitted on training rows alone, exact on disk, and never dividing by zero."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from features.scaling import Normaliser
from features.spec import FEATURE_NAMES, index
from market.errors import DataError


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(5).normal(3.0, 2.0, size=(400, 31)) * np.geomspace(1e-6, 1e6, 31)


def test_training_rows_come_out_with_mean_0_and_deviation_1(rows: np.ndarray):
    normal = Normaliser.fit(rows).apply(rows)
    np.testing.assert_allclose(normal.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(normal.std(axis=0), 1.0, rtol=1e-12)


def test_rows_outside_training_leave_no_trace(rows: np.ndarray):
    fitted = Normaliser.fit(rows[:200])
    changed = rows.copy()
    changed[200:] = 1e9
    again = Normaliser.fit(changed[:200])
    assert fitted.mean.tobytes() == again.mean.tobytes()
    assert fitted.scale.tobytes() == again.scale.tobytes()
    assert fitted.rows == 200


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, 0.2588190451025207, -1e-7])
def test_a_constant_feature_gets_scale_1_and_becomes_exactly_0(rows: np.ndarray, constant: float):
    rows[:, index("hour_cos")] = constant  # daily bars
    fitted = Normaliser.fit(rows)
    assert fitted.scale[index("hour_cos")] == 1.0
    assert (fitted.apply(rows)[:, index("hour_cos")] == 0.0).all()


def test_one_row_is_enough():
    fitted = Normaliser.fit(np.full((1, 31), 0.1))
    assert (fitted.scale == 1.0).all()


def test_numbers_survive_json_to_the_bit(rows: np.ndarray):
    fitted = Normaliser.fit(rows)
    again = Normaliser.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again.mean.tobytes() == fitted.mean.tobytes()
    assert again.scale.tobytes() == fitted.scale.tobytes()
    assert again.rows == fitted.rows


def test_warm_up_rows_stay_nan_but_cannot_be_fitted(rows: np.ndarray):
    fitted = Normaliser.fit(rows)
    rows[7, 3] = np.nan
    assert np.isnan(fitted.apply(rows)[7, 3])
    with pytest.raises(DataError, match=f"training row 7, column {FEATURE_NAMES[3]}: got nan"):
        Normaliser.fit(rows)


@pytest.mark.parametrize("shape", [(0, 31), (5, 30), (31,), (2, 31, 1)])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]):
    with pytest.raises(DataError, match="rows"):
        Normaliser.fit(np.ones(shape))


DAMAGES: dict[str, Callable[[dict], object]] = {
    "no mapping": lambda stored: [],
    "missing key": lambda stored: {"rows": 1, "mean": stored["mean"]},
    "other key": lambda stored: stored | {"median": 1},
    "rows zero": lambda stored: stored | {"rows": 0},
    "rows true": lambda stored: stored | {"rows": True},
    "too few": lambda stored: stored | {"mean": stored["mean"][:30]},
    "numbers": lambda stored: stored | {"mean": [1.0] * 31},
    "no hex": lambda stored: stored | {"mean": ["x"] * 31},
    "nan": lambda stored: stored | {"mean": ["nan"] * 31},
    "overflow": lambda stored: stored | {"mean": ["0x1p99999"] * 31},
    "scale zero": lambda stored: stored | {"scale": ["0x0p0"] * 31},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_normaliser_is_refused(rows: np.ndarray, damage: str):
    with pytest.raises(DataError, match="normaliser"):
        Normaliser.from_dict(DAMAGES[damage](Normaliser.fit(rows).to_dict()))
