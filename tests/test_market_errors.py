"""Refusals say what was seen and how to mend it."""

import pickle

import numpy as np
import pytest

from market.errors import ConfigError, DataError, InputError


def test_an_error_reads_field_value_mend():
    assert str(ConfigError("folds", 1, "give at least 2")) == "folds: got 1; give at least 2"


def test_numpy_numbers_are_shown_as_plain_numbers():
    assert str(DataError("x", np.float64(1.5), "m")) == "x: got 1.5; m"


def test_long_values_are_cut_at_two_hundred_characters():
    shown = str(DataError("x", "a" * 10_000, "m")).removeprefix("x: got ").removesuffix("; m")
    assert len(shown) == 200
    assert shown.endswith("...")


@pytest.mark.parametrize("kind", [InputError, DataError, ConfigError])
def test_an_error_crosses_processes_whole(kind):
    error = pickle.loads(pickle.dumps(kind("x", [1, 2], "mend it")))
    assert (type(error), error.field, error.value, error.mend) == (kind, "x", [1, 2], "mend it")
    assert str(error) == "x: got [1, 2]; mend it"


def test_both_kinds_are_value_errors():
    assert issubclass(DataError, ValueError)
    assert issubclass(ConfigError, ValueError)
