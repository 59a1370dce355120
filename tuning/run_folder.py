"""A training run on disk: one folder, one sub-folder per finished stage, each there whole or not at all.

Knows nothing of what the stages compute. Arrays are .npz without pickle; everything else is JSON.
"""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from market.errors import ConfigError
from market.home import write_atomically

Arrays = dict[str, npt.NDArray[Any]]
CONFIG_FILE = "config.json"
RUNS = "runs"


@dataclass(frozen=True)
class RunFolder:
    """The state of one run; two runs of one configuration are two folders."""

    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)  # to be written with the first stage

    @classmethod
    def start(cls, home: Path, config_digest: str, config: Mapping[str, Any]) -> Self:
        """A new run under ``home/runs``, named by its start time (UTC) and its configuration.

        Nothing is written before the first stage has something to keep: what is refused leaves no trace.
        """
        return cls.named(home, datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f"), config_digest, config)

    @classmethod
    def named(cls, home: Path, name: str, config_digest: str, config: Mapping[str, Any]) -> Self:
        """The run of that name and configuration under ``home/runs``, begun or not."""
        return cls(home / RUNS / f"{name}-{config_digest[:8]}", config)

    @classmethod
    def latest(cls, home: Path, config_digest: str) -> Self:
        """The newest run of this configuration; ConfigError where there is none to resume."""
        runs = sorted((home / RUNS).glob(f"*-{config_digest[:8]}"))
        if not runs:
            raise ConfigError(
                "--resume", config_digest[:8], "no run of this configuration yet; leave --resume out"
            )
        return cls(runs[-1])

    def within(self, name: str, config: Mapping[str, Any]) -> Self:
        """A run of its own in this one's folder."""
        return type(self)(self.folder / name, config)

    @property
    def name(self) -> str:
        """Name of the run; of one within another, after that one's."""
        own, outer = self.folder.name, self.folder.parent.name
        return own if outer == RUNS else f"{outer}-{own}"

    def done(self, stage: str) -> bool:
        """Whether the stage has finished."""
        return (self.folder / stage).is_dir()

    def work(self, stage: str) -> Path:
        """A folder for what an unfinished stage needs to resume (checkpoints)."""
        self._open()
        path = self.folder / f"{stage}.work"
        path.mkdir(exist_ok=True)
        return path

    def write(self, stage: str, arrays: Mapping[str, Arrays], facts: Mapping[str, Any]) -> None:
        """Finish a stage: ``<name>.npz`` for each of `arrays`, and ``facts.json``.

        What it needed to resume goes, and what killed processes left of it.
        """
        self._open()
        draft = Path(tempfile.mkdtemp(prefix=f".{stage}-", dir=self.folder))
        try:
            for name, group in arrays.items():
                buffer = io.BytesIO()
                np.savez(buffer, allow_pickle=False, **group)
                write_atomically(draft / f"{name}.npz", buffer.getvalue())
            write_atomically(draft / "facts.json", json.dumps(facts, indent=1, allow_nan=False).encode())
            os.replace(draft, self.folder / stage)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        for left in [self.folder / f"{stage}.work", *self.folder.glob(f".{stage}-*")]:
            shutil.rmtree(left, ignore_errors=True)

    def share(self, stage: str, other: "RunFolder") -> None:
        """Have a stage that another run has finished, if not here already; a link where there can be one."""
        if self.done(stage):
            return
        self._open()
        draft = Path(tempfile.mkdtemp(prefix=f".{stage}-", dir=self.folder))
        try:
            for path in (other.folder / stage).iterdir():
                _link(path, draft / path.name)
            os.replace(draft, self.folder / stage)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def arrays(self, stage: str, name: str) -> Arrays:
        """The arrays of a finished stage."""
        with np.load(self.folder / stage / f"{name}.npz", allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def names(self, stage: str) -> tuple[str, ...]:
        """Names of the array files of a finished stage, sorted."""
        return tuple(sorted(path.stem for path in (self.folder / stage).glob("*.npz")))

    def facts(self, stage: str) -> dict[str, Any]:
        """The facts of a finished stage."""
        facts: dict[str, Any] = json.loads((self.folder / stage / "facts.json").read_bytes())
        return facts

    def _open(self) -> None:
        """Have the folder on the disk, with its configuration."""
        path = self.folder / CONFIG_FILE
        if not path.exists():
            write_atomically(path, json.dumps(self.config, indent=1, allow_nan=False).encode())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
