"""What is compiled is kept on disk for as long as no module that it is made of changes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pytest
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher

from features.step import step
from market import compiled as subject
from market.compiled import compiled, made_of

ROOT = Path(__file__).parents[1]
LIMITS = "LIMIT = {limit}\n"
PART = """
from market.compiled import compiled
from rules.limits import LIMIT

@compiled()
def part(x):
    return min(x, LIMIT)
"""
WHOLE = """
from market.compiled import compiled
from rules.part import part

@compiled()
def whole(x):
    return 2.0 * part(x)
"""
RUN = """
from rules.part import part
from rules.whole import whole
print(part(9.0), whole(9.0), sum(part.stats.cache_hits.values()), sum(whole.stats.cache_hits.values()))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own, in which LIMIT and two functions lie in three files."""
    for package, modules in {"market": ("__init__.py", "compiled.py"), "rules": ()}.items():
        (tmp_path / package).mkdir()
        for module in modules:
            shutil.copy(ROOT / package / module, tmp_path / package)
    (tmp_path / "rules" / "part.py").write_text(PART)
    (tmp_path / "rules" / "whole.py").write_text(WHOLE)
    return tmp_path


def limited(project: Path, limit: float) -> None:
    (project / "rules" / "limits.py").write_text(LIMITS.format(limit=limit))


def ran(project: Path, program: str = RUN) -> str:
    """What is printed: both answers, and how often each function was found on the disk."""
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_is_kept_is_used_until_a_constant_of_another_file_changes(project: Path) -> None:
    limited(project, 1.5)
    assert ran(project) == "1.5 3.0 0 0"
    assert ran(project) == "1.5 3.0 1 1"
    limited(project, 1.25)
    assert ran(project) == "1.25 2.5 0 0"
    limited(project, 1.5)
    assert ran(project) == "1.5 3.0 1 1"


def test_nothing_is_kept_of_files_that_change_while_a_process_runs(project: Path) -> None:
    limited(project, 1.5)
    changes = "from rules import limits\nimport market.compiled, time, pathlib\ntime.sleep(0.05)\n"
    changes += f"pathlib.Path(limits.__file__).write_text({LIMITS.format(limit=1.25)!r})\n"
    assert ran(project, changes + RUN) == "1.5 3.0 0 0"  # what it had imported
    assert ran(project) == "1.25 2.5 0 0"


def test_a_module_is_made_of_all_that_it_imports_and_they_import() -> None:
    def names(module: str) -> set[str]:
        return {str(file.relative_to(ROOT)) for file in made_of(ROOT / module)}

    assert names("market/compiled.py") == {"market/compiled.py"}
    assert names("envs/guardrails.py") == {"envs/guardrails.py", "market/compiled.py"}
    assert names("envs/rewards.py") == {*names("envs/guardrails.py"), "envs/rewards.py", "market/errors.py"}
    assert {"tuning/updates.py", "tuning/dense.py"} <= names("tuning/updates.py")
    assert {"policies/support.py", "signals/outcome_trees.py", *names("envs/rewards.py")} <= names(
        "serving/arithmetic.py"
    )


def kernels() -> Iterator[Dispatcher]:
    for package in ("market", "features", "signals", "envs", "policies", "evaluation", "tuning", "serving"):
        for module in iter_modules([str(ROOT / package)]):
            names = vars(import_module(f"{package}.{module.name}"))
            yield from (value for value in names.values() if isinstance(value, Dispatcher))


def test_whatever_the_project_keeps_on_disk_is_kept_under_all_it_is_made_of() -> None:
    kept = {kernel for kernel in kernels() if not isinstance(kernel._cache, NullCache)}
    kept.remove(step)  # imports nothing of the project: its own file says all
    assert len(kept) > 50
    assert {type(kernel._cache) for kernel in kept} == {subject._Kept}


@pytest.mark.parametrize(("model", "quotient"), [("numpy", np.inf), ("python", None)])
def test_division_by_zero_is_as_said(model: str, quotient: float | None) -> None:
    @compiled(error_model=model)  # type: ignore[arg-type]
    def divided(x: float) -> float:
        return x / (x - x)

    if quotient is None:
        with pytest.raises(ZeroDivisionError):
            divided(1.0)
    else:
        assert divided(1.0) == quotient
