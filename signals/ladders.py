"""Take-profit ladders, and what each would have made of a recorded path.

Knows nothing of stores, folds or which ladder is better. R counts from the entry in the trade's direction.
Letters: L levels, n trades, B bars of all paths.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from market.compiled import compiled
from market.errors import ConfigError
from signals.excursions import TradeOutcome

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LARGEST_LEVEL = 100.0


@dataclass(frozen=True)
class Ladder:
    """Close `fractions[i]` of the position at `levels[i]` R from the entry; the rest runs to the rule's own
    exit.

    Levels rise, fractions lie in [0, 1] and add up to 1 or less. Once level `break_even_after` (its place,
    from 0) is reached, the stop of what is left moves to the entry; None leaves it. A fraction of 0 is a
    level that only moves the stop. `Ladder()` is the rule's own exit. ConfigError for anything else.
    """

    levels: tuple[float, ...] = ()
    fractions: tuple[float, ...] = ()
    break_even_after: int | None = None

    def __post_init__(self) -> None:
        for name in ("levels", "fractions"):
            values = getattr(self, name)
            if not isinstance(values, tuple | list) or not all(_is_finite(value) for value in values):
                raise ConfigError(f"ladder {name}", values, "give a row of finite numbers")
            object.__setattr__(self, name, tuple(float(value) for value in values))
        rising = all(low < high for low, high in zip((0.0, *self.levels), self.levels, strict=False))
        if not rising or any(level > LARGEST_LEVEL for level in self.levels):
            mend = f"give rising multiples of R above 0, up to {LARGEST_LEVEL:g}"
            raise ConfigError("ladder levels", self.levels, mend)
        if len(self.fractions) != len(self.levels):
            raise ConfigError("ladder fractions", self.fractions, f"give {len(self.levels)}, one per level")
        if any(not 0.0 <= part <= 1.0 for part in self.fractions) or math.fsum(self.fractions) > 1.0 + 1e-12:
            raise ConfigError("ladder fractions", self.fractions, "give shares of 0 to 1, in all 1 or less")
        after = self.break_even_after
        if after is not None and (type(after) is not int or not 0 <= after < len(self.levels)):
            raise ConfigError(
                "ladder break_even_after",
                after,
                f"give None or the place of one of {len(self.levels)} levels",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "levels": list(self.levels),
            "fractions": list(self.fractions),
            "break_even_after": self.break_even_after,
        }

    def __str__(self) -> str:
        if not self.levels:
            return "the rule's own exit"
        parts = [
            f"{part:.0%} at {level:g} R" for level, part in zip(self.levels, self.fractions, strict=True)
        ]
        moved = self.break_even_after
        return ", ".join(parts) + (
            f", stop to entry after {self.levels[moved]:g} R" if moved is not None else ""
        )


def grid() -> tuple[Ladder, ...]:
    """The candidates that are compared: the rule's own exit first, then 41 ladders of one or two levels."""
    singles = (0.5, 1.0, 1.5, 2.0, 3.0)
    pairs = ((0.5, 1.5), (1.0, 2.0), (1.0, 3.0), (1.5, 3.0))
    return (
        Ladder(),
        *(Ladder((level,), (0.0,), 0) for level in singles[:4]),
        *(
            Ladder((level,), (part,), after)
            for level, part, after in product(singles, (0.25, 0.5), (None, 0))
        ),
        *(Ladder((level,), (1.0,)) for level in singles),
        *(Ladder(pair, (1 / 3, 1 / 3), after) for pair, after in product(pairs, (None, 0, 1))),
    )


@dataclass(frozen=True, eq=False)
class Paths:
    """Many outcomes as flat arrays: `path` float64[B, 4], trade i's bars being `start[i]` to `start[i + 1] -
    1` (int64[n + 1]); `stop_r`, `target_r`, `cost_r` float64[n]."""

    path: FloatArray
    start: IntArray
    stop_r: FloatArray
    target_r: FloatArray
    cost_r: FloatArray

    @classmethod
    def of(cls, outcomes: Sequence[TradeOutcome]) -> "Paths":
        """The paths of `outcomes`, in their order."""
        sizes = [len(outcome.path) for outcome in outcomes]
        return cls(
            np.concatenate([outcome.path for outcome in outcomes]) if outcomes else np.zeros((0, 4)),
            np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            *(np.array([getattr(o, name) for o in outcomes]) for name in ("stop_r", "target_r", "cost_r")),
        )


def realised_r(ladder: Ladder, paths: Paths) -> FloatArray:
    """Net R of each trade under `ladder`, float64[n].

    Inside a bar the price is taken to go open, adverse extreme, favourable extreme, close. So: an open at or
    beyond the stop, a level or the target fills at that open; else the stop comes first, also in a bar that
    touches a level too; then levels in rising order, each at its price, then the target; what is left of a
    path without either ends at its last close. A stop that moves to the entry within a bar waits for what
    follows: that bar's close (at or below the entry: filled at the entry) or the next bar. With `Ladder()`
    this is the outcome of `signals.outcomes.label`, bit for bit.

    Costs: every unit is entered once and left once, on whichever step, so each step pays its fraction of the
    exit's costs and the sum is the trade's `cost_r`. That a smaller order has a smaller impact is left out,
    which favours no ladder; a fee per order, however small, would speak against ladders and must be added to
    `cost_r` by who pays one.
    """
    after = -1 if ladder.break_even_after is None else ladder.break_even_after
    levels, fractions = np.array(ladder.levels), np.array(ladder.fractions)
    return np.asarray(
        _gross(levels, fractions, after, paths.path, paths.start, paths.stop_r, paths.target_r) - paths.cost_r
    )


@compiled()
def _gross(
    levels: FloatArray,
    fractions: FloatArray,
    after: int,
    path: FloatArray,
    start: IntArray,
    stop_r: FloatArray,
    target_r: FloatArray,
) -> FloatArray:
    result = np.empty(stop_r.size)
    for trade in range(stop_r.size):
        stop, target = stop_r[trade], target_r[trade]
        left, banked, reached = 1.0, 0.0, 0
        for bar in range(start[trade], start[trade + 1]):
            opened, adverse = path[bar, 0], path[bar, 1]
            favourable, close = path[bar, 2], path[bar, 3]
            if opened <= stop or opened >= target:
                banked += left * opened
                left = 0.0
                break
            while reached < levels.size and opened >= levels[reached]:
                part = min(left, fractions[reached])
                banked += part * opened
                left -= part
                if reached == after:
                    stop = max(stop, 0.0)
                reached += 1
            if adverse <= stop:
                banked += left * stop
                left = 0.0
                break
            while reached < levels.size and favourable >= levels[reached] and levels[reached] < target:
                part = min(left, fractions[reached])
                banked += part * levels[reached]
                left -= part
                if reached == after:
                    stop = max(stop, 0.0)
                reached += 1
            if favourable >= target:
                banked += left * target
                left = 0.0
                break
            if close <= stop:
                banked += left * stop
                left = 0.0
                break
        if left > 0.0:
            banked += left * path[start[trade + 1] - 1, 3]
        result[trade] = banked
    return result


def _is_finite(value: object) -> bool:
    return (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )
