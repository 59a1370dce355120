"""Imports: each package is ours, and the core needs neither Ray nor the optional parts."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_project_tree import PACKAGES, ROOT

CORE = ("market", "features", "signals", "envs", "policies", "journal", "narratives", "mlops", "evaluation")
CORE_OF_SERVING = (
    "serving.position_sizer",
    "serving.client",
    "serving.sizing_desk",
    "serving.narrative_desk",
    "serving.feature_desk",
)
NEEDS_RAY = {"policies.modules"}


def modules_of(package: str) -> list[str]:
    return sorted(
        f"{package}.{file.stem}" for file in (ROOT / package).glob("*.py") if file.stem != "__init__"
    )


def import_without(blocked: set[str], modules: list[str]) -> subprocess.CompletedProcess[str]:
    """Import `modules` in a fresh process in which `blocked` packages fail as if not installed."""
    program = f"""
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
sys.meta_path.insert(0, Blocker())
for module in {modules!r}:
    importlib.import_module(module)
"""
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", [*PACKAGES, "ballast"])
def test_package_is_imported_from_this_repository(name: str) -> None:
    file = importlib.import_module(name).__file__
    assert file is not None
    assert Path(file).resolve().is_relative_to(ROOT)


def test_core_imports_with_ray_blocked() -> None:
    modules = [module for package in CORE for module in modules_of(package) if module not in NEEDS_RAY]
    result = import_without({"ray"}, [*modules, *CORE_OF_SERVING])
    assert result.returncode == 0, result.stderr


def test_blocking_ray_stops_a_module_that_needs_it() -> None:
    result = import_without({"ray"}, sorted(NEEDS_RAY))
    assert "ModuleNotFoundError: blocked: ray" in result.stderr


def test_every_module_imports_without_the_optional_parts() -> None:
    modules = [
        module
        for package in PACKAGES
        if package not in ("benchmarks", "tests")
        for module in modules_of(package)
    ]
    result = import_without({"llama_cpp", "talib", "hypothesis"}, [*modules, "ballast"])
    assert result.returncode == 0, result.stderr


def test_command_line_names_neither_ray_nor_torch() -> None:
    """import-linter knows packages only, and `ballast.py` is a module: its own imports are read here."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / "ballast.py").read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert imported & {"ray", "torch"} == set()
    assert imported & set(PACKAGES), "the command line wires our packages: not one import of theirs was found"
