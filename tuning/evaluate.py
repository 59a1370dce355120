"""A configuration evaluated by walk-forward, on the trades before its locked test part.

Knows nothing of terminals, pages or registries.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evaluation.walk_forward import Tested, bounds, walk_forward
from features.spec import fingerprint
from signals.outcome_model import FEWEST_ROWS
from tuning.cluster import connected
from tuning.config import TrainConfig
from tuning.folds import FoldFits, too_small
from tuning.run_folder import RunFolder
from tuning.study import Study
from tuning.train import Listener

FOLDER: Final = "evaluations"
LEAST_TRAIN: Final = round(1.25 * FEWEST_ROWS)  # the outcome model's own least, after purging and selection


@dataclass(frozen=True)
class Walked:
    """Walk-forward, and why no sizer was trained, where none was."""

    tested: Tested
    fits: FoldFits
    left_out: str | None


def walk(
    config: TrainConfig, study: Study, home: Path, listener: Listener, folds: int, seeds: Sequence[int]
) -> Walked:
    """Fit and test every fold; what an interrupted evaluation of the same data has finished is taken up."""
    trades, late = study.open_part()
    rows = bounds(trades.signal_time, trades.exit_time, folds, LEAST_TRAIN)
    small = too_small(trades, rows, config)
    learns = config.algo != "plugin" and not small
    left_out = None
    if small:
        counts = ", ".join(f"{count:,} in fold {number + 1}" for number, count in small.items())
        left_out = (
            f"no sizer is trained: {counts} are fewer training trades than least_trades, "
            f"{config.least_trades}. Pool more markets (--data sample:demo) or bring longer history."
        )
    key = {"config": config.digest(), "folds": folds, "data": study.digests, "features": fingerprint()}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = RunFolder(home / FOLDER / name, config.model_dump(mode="json"))
    fits = FoldFits(trades, late, config, folder, listener, learns)

    def told(number: int, seed: int) -> None:
        listener.working(f"fold {number + 1}/{folds}", 0, 0)

    with _ray(config, learns):
        tested = walk_forward(rows, fits, config.limits, config.session.days, seeds, told)
    return Walked(tested, fits, left_out)


def _ray(config: TrainConfig, learns: bool) -> AbstractContextManager[None]:
    """One Ray for all folds."""
    if not learns:
        return nullcontext()
    runners = config.fine_tune.env_runners if config.algo == "dqn+ppo" else 0
    return connected(1 + max(config.learning.env_runners, runners))
