"""The repository holds the files its README shows, and none of them knows the machine it was written on."""

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "market", "features", "signals", "envs", "policies", "journal", "narratives", "mlops", "evaluation",
    "tuning", "serving", "cli", "benchmarks", "tests",
)  # fmt: skip
TREE = re.compile(r"^```text tree\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"(?P<indent> *)(?P<path>\S+)(?: {2,}(?P<what>\S.*))?")
# Apart from the slashes, so that this file does not find itself.
WORK, HOME = "work", "root"
MACHINE = re.compile(rf"(?<![\w.~$}}*/-])/(?:{WORK}|{HOME})(?:/|\b(?![\w-]))")


def files_on_disk() -> list[str]:
    """Every file git tracks or would track, as a path from the root."""
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip(f"not a git checkout: {listing.stderr.strip()}")
    return sorted({name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()})


def tree_of(readme: str) -> dict[str, str]:
    """What the README's tree says of each file: path or pattern -> sentence.

    The tree is the block fenced as ```text tree. A line is `PATH  SENTENCE`, two or more spaces between; a
    PATH that ends in / is a heading, its sentence optional; the indented lines below it are relative to it.
    """
    block = TREE.search(readme)
    assert block, "README.md has no block that starts with ```text tree"
    tree: dict[str, str] = {}
    folder = ""
    for line in filter(str.strip, block[1].splitlines()):
        parts = LINE.fullmatch(line.rstrip())
        assert parts, f"README tree: write PATH, two spaces, SENTENCE instead of {line!r}"
        if parts["path"].endswith("/"):
            folder = parts["path"]
            continue
        assert parts["what"], f"README tree: {line.strip()!r} says nothing of the file"
        path = (folder if parts["indent"] else "") + parts["path"]
        assert path not in tree, f"README tree: {path} is there twice"
        tree[path] = parts["what"]
    return tree


def test_readme_tree_equals_the_files_on_disk() -> None:
    tree = tree_of((ROOT / "README.md").read_text())
    files = [file for file in files_on_disk() if not file.endswith("__init__.py")]
    patterns = [path for path in tree if "*" in path]
    unnamed = [file for file in files if file not in tree and not any(fnmatch(file, p) for p in patterns)]
    absent = [path for path in tree if not any(fnmatch(file, path) for file in files)]
    assert not unnamed, f"on the disk but not in the README's tree: {unnamed}"
    assert not absent, f"in the README's tree but not on the disk: {absent}"


def test_tree_reader_follows_headings_and_refuses_a_line_without_a_sentence() -> None:
    readme = "# x\n```text tree\nballast.py  the command line\nmarket/\n  bars.py    the bars\n```\n"
    assert tree_of(readme) == {"ballast.py": "the command line", "market/bars.py": "the bars"}
    with pytest.raises(AssertionError, match="says nothing"):
        tree_of("```text tree\nballast.py\n```\n")


@pytest.mark.parametrize("package", PACKAGES)
def test_package_marker_is_an_empty_file(package: str) -> None:
    assert (ROOT / package / "__init__.py").read_bytes() == b""


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    found = []
    for file in files_on_disk():
        for number, line in enumerate((ROOT / file).read_text(errors="ignore").splitlines(), 1):
            if MACHINE.search(line):
                found.append(f"{file}:{number}: {line.strip()}")
    assert not found


@pytest.mark.parametrize("text", [f"cd /{WORK}/main", f"'/{HOME}/.cache'", f"HOME=/{HOME}"])
def test_machine_folders_are_recognised(text: str) -> None:
    assert MACHINE.search(text)


@pytest.mark.parametrize(
    "text", ["framework/x", f"a/{WORK}/b", f"~/{WORK}/x", f"/{WORK}ers/1", f"{{BASE}}/{HOME}/"]
)
def test_other_paths_are_not_taken_for_machine_folders(text: str) -> None:
    assert not MACHINE.search(text)
