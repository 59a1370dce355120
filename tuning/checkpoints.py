"""Checkpoints of a training run: one folder each, there whole or not at all, the newest one found again.

Knows nothing of networks: what a checkpoint holds is written into its folder by the caller.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from market.errors import ConfigError
from market.home import write_atomically

STATE_FILE: Final = "state.json"
PREFIX: Final = "steps-"
DRAFT: Final = ".draft-"


def save(root: Path, steps: int, state: Mapping[str, Any], write: Callable[[Path], None]) -> None:
    """Add the checkpoint of `steps` environment steps; remove older ones, and drafts of a killed process.

    `write` fills a draft folder; `state` is kept beside as JSON. The checkpoint appears by one rename.
    """
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=root))
    try:
        write(draft)
        (draft / STATE_FILE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
        for path in draft.rglob("*"):
            _sync(path)
        target = root / f"{PREFIX}{steps:012d}"
        shutil.rmtree(target, ignore_errors=True)
        os.replace(draft, target)
        _sync(root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    for old in [*_all(root)[:-1], *_drafts(root)]:
        shutil.rmtree(old)


def newest(root: Path, identity: Mapping[str, str]) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint's folder and state, or None where there is none.

    Its state must hold every value of `identity`: ConfigError names the first that differs.
    """
    found = _all(root)
    if not found:
        return None
    state: dict[str, Any] = json.loads((found[-1] / STATE_FILE).read_text(encoding="utf-8"))
    for name, value in identity.items():
        if state.get(name) != value:
            mend = f"this checkpoint is of another run (here: {value}); start afresh, or in another folder"
            raise ConfigError(f"checkpoint.{name}", state.get(name), mend)
    return found[-1], state


def adopt(root: Path, identity: Mapping[str, str]) -> None:
    """Make the newest checkpoint one of `identity`: a run goes on with another's work, its settings its own.

    Nothing happens where there is no checkpoint.
    """
    for folder in _all(root)[-1:]:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        content = json.dumps(state | dict(identity), allow_nan=False)
        write_atomically(folder / STATE_FILE, content.encode())


def clear(root: Path) -> None:
    """Remove every checkpoint, and drafts that a killed process left."""
    for path in [*_all(root), *_drafts(root)]:
        shutil.rmtree(path)


def _all(root: Path) -> list[Path]:
    return sorted(root.glob(f"{PREFIX}*"))


def _drafts(root: Path) -> list[Path]:
    return list(root.glob(f"{DRAFT}*"))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
