import json
import subprocess
import sys
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from market.errors import InputError
from mlops.versions import TRANSITIONS, ModelVersion, check_transition, read_export, write_export

CREATED = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
VERSIONS = [
    ModelVersion(1, "a" * 64, Path("/b/a"), "ARCHIVED", CREATED, {"s": "1"}, {"m": 0.1}, ("previous",), "e"),
    ModelVersion(2, "b" * 64, Path("/b/b"), "PRODUCTION", CREATED, aliases=("production",)),
    ModelVersion(3, "c" * 64, Path("/b/c"), "STAGING", CREATED, aliases=("staging",)),
]


def test_the_export_reads_back_as_it_was_written(tmp_path):
    path = write_export(tmp_path, VERSIONS)
    assert path == tmp_path / "registry" / "export.json"
    assert read_export(tmp_path) == VERSIONS


def test_no_export_means_no_versions(tmp_path):
    assert read_export(tmp_path) == []


def test_an_export_of_what_stands_there_already_writes_nothing(tmp_path):
    path = write_export(tmp_path, VERSIONS)
    written = path.stat().st_ino
    write_export(tmp_path, VERSIONS)
    assert path.stat().st_ino == written
    write_export(tmp_path, VERSIONS[:1])
    assert path.stat().st_ino != written


def broken(change):
    created = CREATED.isoformat()
    versions = [
        {"version": 1, "digest": "a" * 64, "path": "/b/a", "status": "STAGING", "created": created},
        {"version": 2, "digest": "b" * 64, "path": "/b/b", "status": "STAGING", "created": created},
    ]
    document = {"layout": 1, "model": "ballast-sizer", "versions": versions}
    change(document, document["versions"])
    return json.dumps(document)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda d, v: d.update(layout=2), "layout"),
        (lambda d, v: d.update(model="other"), "model"),
        (lambda d, v: d.update(more=1), "more: Extra inputs"),
        (lambda d, v: d.pop("versions"), "versions: Field required"),
        (lambda d, v: v[1].pop("digest"), r"versions\.1\.digest: Field required"),
        (lambda d, v: v[0].update(digest="xyz"), r"versions\.0\.digest: String should match"),
        (lambda d, v: v[0].update(status="LIVE"), r"versions\.0\.status"),
        (lambda d, v: v[0].update(surprise=1), r"versions\.0\.surprise"),
        (lambda d, v: v[0].update(aliases=["champion"]), r"versions\.0\.aliases"),
        (lambda d, v: v[0].update(created="2026-01-02T00:00:00"), r"versions\.0\.created"),
        (lambda d, v: v[0].update(path="bundles/a"), "path of version 1 is not absolute"),
        (lambda d, v: v[1].update(version=1), "one version stands twice"),
        (lambda d, v: v[1].update(digest="a" * 64), "one digest stands twice"),
        (lambda d, v: [w.update(aliases=["staging"]) for w in v], "one alias stands twice"),
        (lambda d, v: v[0].update(aliases=["production"]), "version 1 is STAGING, its aliases say otherwise"),
        (lambda d, v: v[0].update(status="PRODUCTION"), "version 1 is PRODUCTION, its aliases say otherwise"),
    ],
)
def test_a_broken_export_is_refused_with_what_is_wrong(tmp_path, change, cause):
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "export.json").write_text(broken(change))
    with pytest.raises(InputError, match=f"registry export: got .*write it again .*{cause}"):
        read_export(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null"])
def test_an_export_that_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "export.json").write_bytes(content)
    with pytest.raises(InputError, match="write it again"):
        read_export(tmp_path)


def test_an_export_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "registry" / "export.json").mkdir(parents=True)
    with pytest.raises(InputError, match="make the file readable"):
        read_export(tmp_path)


def test_the_state_machine_is_exactly_this():
    moves = set()
    for version, target in product([VERSIONS[0], VERSIONS[1], VERSIONS[2]], TRANSITIONS):
        try:
            check_transition(version, target)
        except InputError:
            continue
        moves.add((version.status, target))
    assert moves == {
        ("STAGING", "PRODUCTION"),
        ("STAGING", "ARCHIVED"),
        ("PRODUCTION", "ARCHIVED"),
        ("ARCHIVED", "STAGING"),
    }


def test_a_model_in_training_cannot_go_live():
    training = ModelVersion(4, "d" * 64, Path("/b/d"), "TRAINING", CREATED)
    with pytest.raises(
        InputError, match="got 'PRODUCTION'; version 4 is TRAINING: from there only STAGING or"
    ):
        check_transition(training, "PRODUCTION")
    check_transition(training, "STAGING")


def test_reading_the_export_imports_neither_mlflow_nor_sqlalchemys_database_drivers(tmp_path):
    write_export(tmp_path, VERSIONS)
    program = (
        "import sys, pathlib\n"
        "from mlops.registry import read_export\n"
        f"assert len(read_export(pathlib.Path({str(tmp_path)!r}))) == 3\n"
        "print([name for name in ('mlflow', 'ray', 'alembic', 'torch') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
