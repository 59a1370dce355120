"""Installing: the menu of `make`, the pins, and the promise that a required part is never skipped."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_project_tree import ROOT

TARGETS = ["install", "demo", "test", "check", "bench", "serve", "llm", "clean"]


def pins() -> dict[str, str]:
    lines = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#"))
    pairs = (line.split("==") for line in lines)
    return {canonicalize_name(name): version for name, version in pairs}


def test_bare_make_prints_one_line_for_each_target() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    menu = subprocess.run(
        ["make"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[:2] for line in menu.splitlines()] == [["make", target] for target in TARGETS]


def test_every_dependency_is_pinned_to_a_version_it_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    for requirement in map(Requirement, wanted):
        version = pins()[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_pins_are_plain_versions_that_any_index_can_serve() -> None:
    text = (ROOT / "constraints.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)] == []
    assert pins()["torch"] == "2.13.0"
    assert pins()["ray"] == "2.60.0"


@pytest.mark.parametrize("required", [False, True])
def test_skip_is_a_failure_where_all_parts_are_required(tmp_path: Path, required: bool) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    skip = "pytest.skip('no such part', allow_module_level=True)"
    (tmp_path / "test_in_a_test.py").write_text(f"import pytest\ndef test_part(): {skip}\n")
    fixture = f"@pytest.fixture\ndef part(): {skip}\n"
    (tmp_path / "test_in_a_fixture.py").write_text(f"import pytest\n{fixture}def test_part(part): pass\n")
    (tmp_path / "test_at_import.py").write_text(f"import pytest\n{skip}\ndef test_part(): pass\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BALLAST_REQUIRE_ALL": str(int(required))}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none of them has a part in this
    options = [
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        "-rs",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
    ]
    command = [sys.executable, "-m", "pytest", *options, "."]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.stdout.count("no such part") >= 3
    closing = "1 failed, 2 errors" if required else "3 skipped"
    assert closing in result.stdout.splitlines()[-1]
    assert (result.returncode == 1) == required
