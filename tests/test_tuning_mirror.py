"""A run that lost its machine goes on elsewhere from BALLAST_STORAGE, and its bundle opens by digest."""

import shutil
from pathlib import Path

import pytest

from market.errors import ConfigError
from market.storage import storage
from policies.bundle import BundleError, open_bundle
from tests.s3_server import s3_url  # noqa: F401 (a fixture)
from tests.serving_bundles import saved
from tuning import checkpoints, mirror
from tuning.mirror import Mirror, recall
from tuning.run_folder import RunFolder


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BALLAST_STORAGE", f"file://{tmp_path}/kept")
    return tmp_path / "kept"


def test_bundle_that_was_kept_opens_by_its_digest_where_nothing_else_is(
    s3_url: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BALLAST_STORAGE", s3_url.replace("/ballast?", f"/{tmp_path.name}?"))
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere" / "bundles"
    bundle = saved(home)
    run = RunFolder.start(home, "d" * 64, {})
    Mirror(home, run.folder, pytest.fail).bundle(bundle.parent, bundle.name)
    shutil.rmtree(home)
    fetched = open_bundle(elsewhere, bundle.name)
    assert [path.name for path in elsewhere.iterdir()] == [bundle.name]
    monkeypatch.delenv("BALLAST_STORAGE")
    assert open_bundle(elsewhere, bundle.name).meta == fetched.meta
    with pytest.raises(BundleError, match="give the digest of a bundle that is there"):
        open_bundle(home / "bundles", bundle.name)


def checkpoint(work: Path, steps: int) -> None:
    checkpoints.save(work, steps, {}, lambda draft: (draft / "weights").write_text(str(steps)) and None)


def test_checkpoints_are_copied_at_most_once_a_minute_and_go_when_the_sizer_is_done(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(mirror.time, "monotonic", lambda: now)
    home = tmp_path / "home"
    run = RunFolder.start(home, "d" * 64, {"seed": 0})
    copy = Mirror(home, run.folder, pytest.fail)
    run.write("load", {}, {})
    copy.stage("load")
    work = run.work("sizer")
    copy.checkpoint()  # nothing to copy yet
    checkpoint(work, 10)
    copy.checkpoint()
    checkpoint(work, 20)
    copy.checkpoint()  # too early

    def steps(at: Path) -> list[str]:
        recall(at, "d" * 64)
        found = RunFolder.latest(at, "d" * 64)
        assert (found.folder / "config.json").read_bytes() == (run.folder / "config.json").read_bytes()
        return [path.name for path in (found.folder / "sizer.work").glob("*")]

    assert steps(tmp_path / "one") == ["steps-000000000010"]
    now += mirror.EVERY_S
    copy.checkpoint()
    assert steps(tmp_path / "two") == ["steps-000000000020"]
    checkpoint(work, 25)
    copy.checkpoint(last=True)
    assert steps(tmp_path / "last") == ["steps-000000000025"]
    run.write("sizer", {}, {"bundle": "x"})
    copy.stage("sizer")
    assert steps(tmp_path / "three") == []
    assert RunFolder.latest(tmp_path / "three", "d" * 64).facts("sizer") == {"bundle": "x"}
    assert [path.name for path in (tmp_path / "three" / "runs").iterdir()] == [run.folder.name]


def test_own_run_and_newer_ones_are_not_replaced_by_the_copy(kept: Path, tmp_path: Path) -> None:
    def begun(home: Path, note: str, copied: bool) -> RunFolder:
        run = RunFolder.start(home, "d" * 64, {})
        run.write("load", {}, {"note": note})
        if copied:
            Mirror(home, run.folder, pytest.fail).stage("load")
        return run

    home = tmp_path / "home"
    old = begun(home, "old", copied=True)
    recall(home, "d" * 64)
    assert RunFolder.latest(home, "d" * 64).folder == old.folder
    begun(home, "newer, not copied", copied=False)
    recall(home, "d" * 64)
    assert RunFolder.latest(home, "d" * 64).facts("load")["note"] == "newer, not copied"
    begun(tmp_path / "elsewhere", "newest", copied=True)
    recall(home, "e" * 64)
    assert RunFolder.latest(home, "d" * 64).facts("load")["note"] == "newer, not copied"
    recall(home, "d" * 64)
    assert RunFolder.latest(home, "d" * 64).facts("load")["note"] == "newest"


def test_storage_that_fails_stops_a_stage_but_only_warns_during_training(kept: Path, tmp_path: Path) -> None:
    warnings: list[str] = []
    run = RunFolder.start(tmp_path / "home", "d" * 64, {})
    copy = Mirror(tmp_path / "home", run.folder, warnings.append)
    run.write("load", {}, {})
    kept.write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match="BALLAST_STORAGE"):
        copy.stage("load")
    checkpoint(run.work("sizer"), 10)
    copy.checkpoint()
    assert len(warnings) == 1
    assert "this checkpoint is on this machine alone: BALLAST_STORAGE" in warnings[0]
    kept.unlink()
    copy.stage("load")
    assert storage().names("runs")[-1].endswith("/load")  # type: ignore[union-attr]


def test_searches_are_not_copied_and_without_storage_nothing_is(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = RunFolder(tmp_path / "home" / "experiments" / "one" / "data", {})
    data.write("load", {}, {})
    Mirror(tmp_path / "home", data.folder, pytest.fail).stage("load")
    assert not kept.exists()
    monkeypatch.delenv("BALLAST_STORAGE")
    run = RunFolder.start(tmp_path / "home", "d" * 64, {})
    run.write("load", {}, {})
    Mirror(tmp_path / "home", run.folder, pytest.fail).stage("load")
    recall(tmp_path / "home", "d" * 64)
    assert not kept.exists()
