"""The built wheel holds every module and data file of ours, nothing else, and works without the checkout."""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.test_project_tree import PACKAGES, ROOT

INSTALLED = [package for package in PACKAGES if package not in ("benchmarks", "tests")]


def run(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools leaves its build folders beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "ballast.py"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source, cwd=folder)
    return next(folder.glob("ballast-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel and today's dependencies, but not the checkout.

    A .pth file lends it this environment's site-packages: as .pth files found there are not read again, an
    editable installation of the checkout stays invisible.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=folder,
    )
    own = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    (own / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_wheel_holds_every_module_and_data_file_and_nothing_else(wheel: Path) -> None:
    expected = {"ballast.py"}
    for package in INSTALLED:
        files = (
            file for file in (ROOT / package).rglob("*") if file.is_file() and "__pycache__" not in file.parts
        )
        expected |= {str(file.relative_to(ROOT)) for file in files}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected


def test_wheel_carries_the_licence(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    licence = next(name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
    assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_every_module_of_the_installed_wheel_imports_away_from_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in INSTALLED
        for file in sorted((ROOT / package).rglob("*.py"))
    ]
    program = f"""
import importlib, pathlib
for name in {[*modules, "ballast"]!r}:
    file = pathlib.Path(importlib.import_module(name).__file__).resolve()
    assert file.is_relative_to({str(installed.parent.resolve())!r}), (name, file)
"""
    run(installed / "python", "-c", program, cwd=tmp_path)


def test_installed_command_prints_its_help(installed: Path, tmp_path: Path) -> None:
    assert "demo" in run(installed / "ballast", "--help", cwd=tmp_path)


def test_packages_of_the_project_file_are_those_of_the_tree() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(named) == sorted(INSTALLED)
