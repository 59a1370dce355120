"""A run's copy in BALLAST_STORAGE: what another machine needs to go on with it, and its bundle.

Of a run that is what came before the sizer, the sizer's checkpoints and the sizer. Stages that leave
something elsewhere in the home (predictors, reports, a version of the registry) are done again where it is
taken up.
"""

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from market.errors import ConfigError
from market.storage import Storage, storage
from policies.bundle import BUNDLES
from tuning.checkpoints import PREFIX
from tuning.run_folder import CONFIG_FILE, RUNS

HELD: Final = ("load", "features", "outcomes", "outcome_model", "sizer")
WORK: Final = "sizer.work"
EVERY_S: Final = 60.0  # between two copies of checkpoints, at least


class Mirror:
    """The copy of one run; without BALLAST_STORAGE, or for a run that is none of the home's own, nothing."""

    def __init__(self, home: Path, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder, self.warn = folder, warn
        self._kept: Storage | None = storage() if folder.is_relative_to(home / RUNS) else None
        self._key = folder.relative_to(home).as_posix() if self._kept is not None else ""
        self._there: set[str] | None = None
        self._copied: tuple[str, ...] = ()
        self._at = -math.inf

    def stage(self, name: str) -> None:
        """A stage is done: see that the copy has it. ConfigError where it cannot be kept."""
        if self._kept is None or name not in HELD:
            return
        if self._there is None:
            self._there = set(self._kept.names(self._key))
        for part in (CONFIG_FILE, name):
            if f"{self._key}/{part}" not in self._there:
                self._kept.put(f"{self._key}/{part}", self.folder / part)
                self._there.add(f"{self._key}/{part}")
        if name == "sizer":
            self._kept.drop(f"{self._key}/{WORK}")

    def bundle(self, root: Path, digest: str) -> None:
        """Keep a bundle below `root`. ConfigError where it cannot be kept."""
        if self._kept is not None:
            self._kept.put(f"{BUNDLES}/{digest}", root / digest)

    def checkpoint(self, *, last: bool = False) -> None:
        """Training goes on: copy the newest checkpoint now and then, and the `last` one at once.

        A failure is a warning, no more.
        """
        work = self.folder / WORK
        if self._kept is None or (not last and time.monotonic() < self._at + EVERY_S):
            return
        newest = tuple(sorted(path.name for path in work.rglob(f"{PREFIX}*")))
        if not newest or newest == self._copied:
            return
        self._at = time.monotonic()
        try:
            self._kept.put(f"{self._key}/{WORK}", work)
            self._copied = newest
        except ConfigError as error:
            self.warn(f"this checkpoint is on this machine alone: {error}")


def recall(home: Path, config_digest: str) -> None:
    """Fetch the newest run of a configuration, unless the home has it, or a newer one, or none is kept."""
    kept = storage()
    if kept is None:
        return
    ending = f"-{config_digest[:8]}"
    runs = {name.split("/")[1] for name in kept.names(RUNS)}
    newest = max((run for run in runs if run.endswith(ending)), default="")
    if newest <= max((path.name for path in (home / RUNS).glob(f"*{ending}")), default=""):
        return
    (home / RUNS).mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=home / RUNS))
    try:
        for name in kept.names(f"{RUNS}/{newest}"):
            kept.get(name, draft / name.removeprefix(f"{RUNS}/{newest}/"))
        draft.chmod(0o755)
        os.rename(draft, home / RUNS / newest)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
