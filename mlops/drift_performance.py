"""Whether sizing does worse than it did before it was let out: recent paired differences, and realised R.

Knows nothing of features or models. Declares: d, realised utility per signal of the model's size less that of
1x, in R; r, net R per signal at 1x.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from arch.bootstrap import StationaryBootstrap, optimal_block_length

from market.errors import DataError
from mlops.drift_limits import STEPS

Floats = npt.NDArray[np.float64]

LEVEL: Final = 0.005  # share of windows that lie below the band though nothing has changed
IN_A_ROW: Final = 2  # windows below the band until it is an alarm
REPLICATIONS: Final = 2_000
LEAST_WINDOWS: Final = 2  # that must fit side by side into the signals before
DELTA: Final = 0.0005  # of ADWIN: with its usual 0.002 it alone cries wolf in 1 % of checks


class Band(NamedTuple):
    """Where the mean of a window of d lies while nothing has changed."""

    mean: float  # of d before
    low: float
    high: float
    window: int


class Performance(NamedTuple):
    """The newest window beside the band, and the newest change of realised R that ADWIN found in it."""

    mean: float  # of d in the newest window
    band: Band
    below: bool  # the newest windows in a row lie below the band
    changed: int | None  # signals since ADWIN found a change; None: no change in the newest window
    r_before: float  # mean of r before
    r_now: float  # mean of r since that change, of the newest window where there is none

    @property
    def worse(self) -> bool:
        """Whether either is for the worse."""
        return self.below or (self.changed is not None and self.r_now < self.r_before)


def band(d: Floats, window: int, seed: int = 0) -> Band:
    """The band of means of `window` signals that float64[n] of d gives; DataError for under two windows.

    Stationary bootstrap (Politis and Romano 1994), its mean block that of Politis and White 2004; a window's
    mean is set against the mean of another resampled history, for the mean of d before is a sample too.
    """
    if window < 1 or len(d) < LEAST_WINDOWS * window:
        raise DataError("signals before", len(d), f"windows of {window} need {LEAST_WINDOWS * window}")
    length = float(optimal_block_length(d)["stationary"].iloc[0]) if np.ptp(d) > 0.0 else 1.0
    block = round(min(max(length, 1.0), len(d)))
    bootstrap = StationaryBootstrap(block, d, seed=np.random.default_rng(seed))
    histories = np.stack([sample[0][0] for sample in bootstrap.bootstrap(REPLICATIONS)])
    gaps = histories[:, :window].mean(axis=1) - np.roll(histories.mean(axis=1), 1)
    low, high = d.mean() + np.quantile(gaps, [LEVEL, 1.0 - LEVEL])
    return Band(float(d.mean()), float(low), float(high), window)


def performance(before: tuple[Floats, Floats], now: tuple[Floats, Floats], window: int) -> Performance:
    """Judge the newest of `now` by `before`, each d and r, float64[n], in order of time.

    DataError where there is less than two windows before, or not a window and a step now.
    """
    d, r = now
    step = max(1, window // STEPS)
    needed = window + step * (IN_A_ROW - 1)
    if len(d) < needed:
        raise DataError("settled signals", len(d), f"give at least {needed}, or a smaller window")
    known = band(before[0], window)
    means = [float(d[len(d) - step * i - window : len(d) - step * i].mean()) for i in range(IN_A_ROW)]
    changed = change(before[1], r, window)
    return Performance(
        mean=means[0],
        band=known,
        below=max(means) < known.low,
        changed=changed,
        r_before=float(before[1].mean()),
        r_now=float(r[-(window if changed is None else changed + 1) :].mean()),
    )


def change(before: Floats, now: Floats, window: int) -> int | None:
    """How many signals ago ADWIN (Bifet and Gavalda 2007) last found the mean of r changed; None: not within
    the newest `window` of float64[n]."""
    from river.drift import ADWIN  # a second to import

    detector = ADWIN(delta=DELTA, clock=1)  # looks after every signal, not every 32
    found = None
    for i, value in enumerate([*before.tolist(), *now.tolist()]):
        detector.update(value)
        if detector.drift_detected:
            found = i
    ago = None if found is None else len(before) + len(now) - 1 - found
    return ago if ago is not None and ago < min(window, len(now)) else None
