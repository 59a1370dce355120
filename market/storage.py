"""A second place for what must outlive a machine: files and folders, each packed into one object below a URL.

An object is there whole or not at all, which a folder in an object store never is. Knows nothing of what is
kept.
"""

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from market.errors import ConfigError, first_line
from market.home import write_atomically

VARIABLE: Final = "BALLAST_STORAGE"
SUFFIX: Final = ".tar"


@dataclass(frozen=True)
class Storage:
    """Objects below `root` of one of pyarrow's file systems. A method that fails raises ConfigError."""

    url: str
    files: Any  # pyarrow.fs.FileSystem
    root: str

    def put(self, name: str, path: Path) -> None:
        """Keep the file or folder `path` as `name`, which may hold slashes, in place of what was there."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as packed:
            packed.add(path, arcname="content")
        with self._told():
            if self.files.type_name == "local":
                write_atomically(Path(self._path(name)), content.getvalue())
            else:
                with self.files.open_output_stream(self._path(name)) as stream:
                    stream.write(content.getbuffer())

    def get(self, name: str, path: Path) -> bool:
        """Put what is kept as `name` to `path`, whole; False where nothing is. What is at `path` stays."""
        from pyarrow.fs import FileType

        with self._told():
            if self.files.get_file_info(self._path(name)).type == FileType.NotFound:
                return False
            with self.files.open_input_stream(self._path(name)) as stream:
                content = stream.read()
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=path.parent))
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as packed:
                packed.extractall(draft, filter="data")
            if not path.exists():
                os.rename(draft / "content", path)
        except (tarfile.TarError, OSError) as error:
            if not path.exists():  # another process was not faster either
                raise ConfigError(VARIABLE, f"{self.url}: {name}", f"put it there again ({error})") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return True

    def drop(self, name: str) -> None:
        """Keep `name` no longer; nothing happens where it is not kept."""
        from pyarrow.fs import FileType

        with self._told():
            if self.files.get_file_info(self._path(name)).type != FileType.NotFound:
                self.files.delete_file(self._path(name))

    def names(self, prefix: str) -> list[str]:
        """What is kept below the folder `prefix`, sorted."""
        from pyarrow.fs import FileSelector

        folder = f"{self.root}/{prefix}"
        with self._told():
            found = self.files.get_file_info(FileSelector(folder, allow_not_found=True, recursive=True))
        paths = (info.path for info in found if info.path.endswith(SUFFIX))
        return sorted(path.removeprefix(f"{self.root}/").removesuffix(SUFFIX) for path in paths)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}{SUFFIX}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            mend = f"see that it is there and may be written to ({first_line(error)})"
            raise ConfigError(VARIABLE, self.url, mend) from None


def storage() -> Storage | None:
    """What BALLAST_STORAGE names, such as ``s3://bucket/folder`` or ``file:///mnt/folder``; None where unset.

    ``s3://…?endpoint_override=…&scheme=http`` names a server that speaks S3. Raises ConfigError for any other
    kind of URL, and for one that holds credentials: those belong in the environment or the machine's role.
    """
    from pyarrow.fs import FileSystem

    url = os.environ.get(VARIABLE)
    if not url:
        return None
    parts = urlsplit(url)
    if "@" in parts.netloc:
        hidden = f"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}"
        raise ConfigError(
            VARIABLE, hidden, "leave the credentials to AWS_ACCESS_KEY_ID or the machine's role"
        )
    mend = "give a URL such as s3://bucket/folder or file:///absolute/folder"
    try:
        files, root = FileSystem.from_uri(url)
    except (OSError, ValueError, NotImplementedError) as error:
        raise ConfigError(VARIABLE, url, f"{mend} ({first_line(error)})") from None
    if not root.strip("/"):
        raise ConfigError(VARIABLE, url, mend)
    return Storage(url, files, root.rstrip("/"))
