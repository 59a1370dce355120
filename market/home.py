"""Where Ballast keeps its state, and how a file gets there whole. Knows nothing of what the files mean."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from market.errors import ConfigError

VARIABLE = "BALLAST_HOME"


def home() -> Path:
    """The absolute folder of all state: `BALLAST_HOME`, or `~/.ballast` when that is unset or empty.

    Made on demand. A job may run in an unpacked copy of the repository that is deleted afterwards, so a
    relative value is a `ConfigError`, and so is a folder that cannot be made.
    """
    value = os.environ.get(VARIABLE) or "~/.ballast"
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise ConfigError(VARIABLE, value, "this user has no home folder: give an absolute path") from None
    if not path.is_absolute():
        raise ConfigError(VARIABLE, value, "give an absolute path")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(VARIABLE, value, f"give a folder that can be made ({error.strerror})") from error
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all, and have it on the disk before returning.

    The parent folder is made on demand. A reader sees the old file or the new one, never a part; an
    `OSError` leaves the old file untouched and no temporary file behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        with open(draft, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    # The new name itself lives in the folder, which has its own place in the disk's cache.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
