"""The smallest change of one number that flips a choice.

Knows nothing of what is chosen, nor of what the number is.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

STEPS: Final = 64  # looks to each side; a choice that holds on less than such a step may be passed over
PRECISION: Final = 1e-9  # of the range, to which the place of the flip is found


class Flip(NamedTuple):
    """Where the choice becomes another one."""

    value: float
    choice: str


def nearest_flip(
    choose: Callable[[float], str], start: float, low: float, high: float, *, whole: bool = False
) -> Flip | None:
    """The value nearest to `start` in [low, high] at which `choose` answers otherwise than at `start`.

    It looks at `STEPS` places to each side, and halves the first step that changes the answer until the place
    is found to `PRECISION` of the range. `whole`: only whole numbers can be chosen. None where nothing flips.
    """
    chosen = choose(start)
    found: list[Flip] = []
    for end in (low, high):
        nearest = min((abs(flip.value - start) for flip in found), default=np.inf)
        same = start
        for place in _places(start, end, whole):
            if abs(same - start) > nearest:
                break
            if choose(place) != chosen:
                found.append(_halved(choose, chosen, same, place, PRECISION * (high - low), whole))
                break
            same = place
    return min(found, key=lambda flip: abs(flip.value - start), default=None)


def _places(start: float, end: float, whole: bool) -> Iterator[float]:
    """Places from `start` to `end`, without the first."""
    places = np.linspace(start, end, STEPS + 1)[1:]
    last = start
    for place in np.rint(places) if whole else places:
        if place != last:
            last = float(place)
            yield last


def _halved(
    choose: Callable[[float], str], chosen: str, same: float, other: float, width: float, whole: bool
) -> Flip:
    """The flip between `same`, where `chosen` is the answer, and `other`, where it is not."""
    choice = choose(other)
    while abs(other - same) > (1.0 if whole else width):
        middle = float(np.rint((same + other) / 2)) if whole else (same + other) / 2
        if middle in (same, other):
            break
        answer = choose(middle)
        if answer == chosen:
            same = middle
        else:
            other, choice = middle, answer
    return Flip(other, choice)
