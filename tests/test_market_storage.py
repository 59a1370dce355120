"""What is kept outside a machine comes back byte for byte, from a folder and from a server that speaks S3."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from market.errors import ConfigError
from market.storage import Storage, storage
from tests.s3_server import s3_url  # noqa: F401 (a fixture)


@pytest.fixture(params=["file", "s3"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    if request.param == "file":
        url = f"file://{tmp_path}/storage"
    else:
        url = request.getfixturevalue("s3_url").replace("/ballast?", f"/{tmp_path.name}?")
    monkeypatch.setenv("BALLAST_STORAGE", url)
    found = storage()
    assert found is not None
    return found


def test_folders_and_files_come_back_whole_and_anew(kept: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "deep" / "bytes").write_bytes(bytes(range(256)) * 1000)
    (folder / "text").write_text("one")
    kept.put("runs/a/stage", folder)
    kept.put("runs/a/text", folder / "text")
    (folder / "text").write_text("two")
    kept.put("runs/a/stage", folder)
    kept.put("other", folder / "text")
    assert kept.names("runs") == ["runs/a/stage", "runs/a/text"]
    assert kept.get("runs/a/stage", tmp_path / "back" / "here")
    back = tmp_path / "back" / "here"
    assert (back / "deep" / "bytes").read_bytes() == bytes(range(256)) * 1000
    assert (back / "deep" / "empty").is_dir()
    assert (back / "text").read_text() == "two"
    assert kept.get("runs/a/text", tmp_path / "back" / "text")
    assert (tmp_path / "back" / "text").read_text() == "one"
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["here", "text"]


def test_what_is_there_stays_and_what_is_not_kept_is_said(kept: Storage, tmp_path: Path) -> None:
    assert kept.names("runs") == []
    assert not kept.get("runs/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    kept.drop("runs/none")
    (tmp_path / "given").write_text("new")
    (tmp_path / "mine").write_text("old")
    kept.put("one", tmp_path / "given")
    assert kept.get("one", tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "old"
    kept.drop("one")
    assert not kept.get("one", tmp_path / "gone")


def test_object_that_is_no_copy_is_refused_and_leaves_nothing(kept: Storage, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("x")
    kept.put("one", tmp_path / "given")
    with kept.files.open_output_stream(f"{kept.root}/one.tar") as stream:
        stream.write(b"half of a tar")
    with pytest.raises(ConfigError, match=r"BALLAST_STORAGE: .*: one'; put it there again"):
        kept.get("one", tmp_path / "back" / "one")
    assert list((tmp_path / "back").iterdir()) == []


def test_unset_there_is_no_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        monkeypatch.delenv("BALLAST_STORAGE", raising=False)
        if value is not None:
            monkeypatch.setenv("BALLAST_STORAGE", value)
        assert storage() is None


@pytest.mark.parametrize(
    "url", ["storage", "http://host/folder", "file://storage", "s3://", "s3://b/f?regoin=x"]
)
def test_other_urls_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BALLAST_STORAGE", url)
    with pytest.raises(ConfigError, match="give a URL such as s3://bucket/folder"):
        storage()


def test_credentials_in_the_url_are_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BALLAST_STORAGE", "s3://AKIA1:s3cr3t@bucket/folder")
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID") as refused:
        storage()
    assert "s3cr3t" not in str(refused.value)
    assert "AKIA1" not in str(refused.value)


def test_bucket_that_is_not_there_is_named(
    s3_url: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = s3_url.replace(urlsplit(s3_url).netloc, "no-such-bucket")
    monkeypatch.setenv("BALLAST_STORAGE", url)
    (tmp_path / "given").write_text("x")
    found = storage()
    assert found is not None
    with pytest.raises(ConfigError, match=r"no-such-bucket.*see that it is there and may be written to"):
        found.put("one", tmp_path / "given")
