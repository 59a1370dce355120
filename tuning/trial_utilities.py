"""What every trial of a search made of each select signal, and how many trials there truly were.

Knows nothing of Ray, nor of what is concluded from it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuning.experiment import Experiment

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrialUtilities:
    """The trials of a search that left a network, on n select signals; utilities in R per signal."""

    realised: Floats  # [n, trials], mean over a trial's seeds
    expected: Floats  # [n, trials], the same under the outcome model
    rule: Floats  # [n], realised: the rule at 1x
    plug_in: Floats  # [n], realised
    time: npt.NDArray[np.int64]  # [n], ns
    names: tuple[str, ...]
    finished: npt.NDArray[np.bool_]  # [trials], whether all its seeds were trained
    tried: int  # all trials ever begun, those stopped early, failed or lost included
    selected: int | None  # the column of the search's best trial; None where none was finished


def trial_utilities(experiment: Experiment) -> TrialUtilities:
    """Read what the search wrote when it summed up; DataError where it has not, or before this was kept."""
    raise NotImplementedError
