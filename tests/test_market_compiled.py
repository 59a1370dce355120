"""What is compiled is kept on disk for as long as nothing that it is made of changes, in whichever file."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import FunctionType

import pytest
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher

from market import compiled as subject
from market.compiled import made_of

ROOT = Path(__file__).parents[1]
LIMITS = "LIMIT = {limit}\n"
PART = """
from limits import LIMIT
from market.compiled import compiled

@compiled()
def part(x):
    return min(x, LIMIT)
"""
WHOLE = """
from market.compiled import compiled
from part import part

@compiled()
def whole(x):
    return 2.0 * part(x)
"""
RUN = """
from part import part
from whole import whole
print(part(9.0), whole(9.0), sum(part.stats.cache_hits.values()), sum(whole.stats.cache_hits.values()))
"""


def test_what_is_kept_is_used_until_a_constant_of_another_file_changes(tmp_path: Path) -> None:
    def answers(limit: float) -> str:
        (tmp_path / "limits.py").write_text(LIMITS.format(limit=limit))
        places = os.pathsep.join([str(tmp_path), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", RUN]
        ran = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return ran.stdout.strip()

    (tmp_path / "part.py").write_text(PART)
    (tmp_path / "whole.py").write_text(WHOLE)
    assert answers(1.5) == "1.5 3.0 0 0"
    assert answers(1.5) == "1.5 3.0 1 1"
    assert answers(1.25) == "1.25 2.5 0 0"
    assert answers(1.5) == "1.5 3.0 1 1"


SOURCE = """
from typing import NamedTuple
import math
import numba
import numpy as np

LIMIT, ROWS, PAIR = 1.5, np.array([1.0, 2.0]), (1, 2.0)

class Worth(NamedTuple):
    first: float
    second: float

@numba.njit(error_model="numpy")
def part(x):
    return x * LIMIT + math.pi

def whole(x):
    def inner(y):
        return y + ROWS[0] + PAIR[1]
    return part(x) + inner(Worth(x, 2.0).first) + np.abs(x)
"""


def whole_of(source: str) -> FunctionType:
    space: dict[str, object] = {"__name__": "space"}
    exec(source, space)
    function = space["whole"]
    assert isinstance(function, FunctionType)
    return function


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT, ROWS, PAIR = 1.5", "LIMIT, ROWS, PAIR = 1.25"),
        ("LIMIT, ROWS, PAIR = 1.5", "LIMIT, ROWS, PAIR = np.float32(1.5)"),
        ("[1.0, 2.0]", "[1.0, 2.5]"),
        ("[1.0, 2.0]", "[[1.0, 2.0]]"),
        ("np.array([1.0, 2.0])", "np.array([1.0, 2.0], dtype=np.float32)"),
        ("(1, 2.0)", "(1, 2.5)"),
        ("(1, 2.0)", "(1.0, 2.0)"),
        ("x * LIMIT", "x / LIMIT"),
        ("math.pi", "math.e"),
        ('error_model="numpy"', 'error_model="python"'),
        ("first: float\n    second: float", "second: float\n    first: float"),
        ("y + ROWS[0]", "y + ROWS[1]"),
        ("y + ROWS[0]", "y - ROWS[0]"),
        ("Worth(x, 2.0)", "Worth(x, 2.5)"),
        ("np.abs", "np.sqrt"),
    ],
)
def test_any_change_of_what_a_function_names_is_another_function(old: str, new: str) -> None:
    assert old in SOURCE
    changed = SOURCE.replace(old, new)
    assert made_of(whole_of(changed)) != made_of(whole_of(SOURCE))


def test_what_a_function_does_not_name_is_no_part_of_it() -> None:
    moved = "\n\n# a comment\nOTHER = 3\n" + SOURCE.replace("def part(x):", "def part(x):  # twice")
    assert made_of(whole_of(moved)) == made_of(whole_of(SOURCE))


def test_what_a_function_closes_over_is_part_of_it() -> None:
    def times(factor: float) -> FunctionType:
        return lambda x: x * factor

    assert made_of(times(1.5)) == made_of(times(1.5)) != made_of(times(1.25))


@pytest.mark.parametrize("value", ["[1.0, 2.0]", "{'a': 1}", "Path", "subprocess", "lambda x: x"])
def test_what_could_change_unseen_is_refused(value: str) -> None:
    source = (
        f"import subprocess\nfrom pathlib import Path\nLIMIT = {value}\n\ndef whole(x):\n    return LIMIT\n"
    )
    with pytest.raises(TypeError, match="LIMIT: a compiled function would keep an old copy"):
        made_of(whole_of(source))


def kernels() -> Iterator[Dispatcher]:
    for package in ("market", "features", "signals", "envs", "policies", "evaluation", "tuning", "serving"):
        for module in iter_modules([str(ROOT / package)]):
            names = vars(import_module(f"{package}.{module.name}"))
            yield from (value for value in names.values() if isinstance(value, Dispatcher))


def test_whatever_the_project_keeps_on_disk_is_looked_up_by_all_it_is_made_of() -> None:
    kept = [kernel for kernel in kernels() if not isinstance(kernel._cache, NullCache)]
    assert len(kept) > 50
    for kernel in kept:
        assert isinstance(kernel._cache, subject._Kept), kernel
        assert len(made_of(kernel.py_func)) == 64
