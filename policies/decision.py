"""What every sizing policy answers to, and what a decision holds.

Knows nothing of how a policy was made or where its answer goes.
"""

from collections.abc import Sequence
from typing import Final, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from envs.guardrails import RULES, SIZES, SKIP_NOT_ALLOWED, TIERS
from envs.observation import Situation

Floats = npt.NDArray[np.float64]

NO_VALUES: Final = (None,) * len(TIERS)  # of a policy that values no sizes


class Policy(Protocol):
    """A sizer of N pending signals at once."""

    @property
    def name(self) -> str:
        """A short name for tables."""
        ...

    @property
    def snaps(self) -> bool:
        """Whether its sizes are tiers, to be floored to a legal one; otherwise they are clamped to the cap as
        they are.
        """
        ...

    def size(self, situation: Situation) -> Floats:
        """Proposed multipliers, float64[N], before the guardrail."""
        ...


class ValuePolicy(Policy, Protocol):
    """A policy that also values all six sizes."""

    def values(self, situation: Situation) -> Floats:
        """Value of each size in R-utility, float64[N, 6], legal or not."""
        ...

    def pick(self, values: Floats, situation: Situation) -> tuple[Floats, Floats]:
        """`size` of a situation whose `values` are known already, and what it would be if all were legal."""
        ...


class Rung(TypedDict):
    """One of the six sizes, as it stood at a decision: plain JSON."""

    action: str
    size: float
    value: float | None  # None where the policy values no sizes
    legal: bool
    blocked_by: str | None


# As they are where the policy values none and the limits allow all.
_RUNGS: Final = tuple(
    Rung(action=action, size=size, value=None, legal=True, blocked_by=None)
    for action, size in zip(TIERS, SIZES.tolist(), strict=True)
)


def ladder(values: Sequence[float] | None, legal: Sequence[bool], cap_rule: str) -> list[Rung]:
    """The six rungs of one decision, from six values or None and the six tiers' legality."""
    rungs = [rung.copy() for rung in _RUNGS]  # sooner done than writing each out
    for rung, value, is_legal in zip(rungs, values or NO_VALUES, legal, strict=True):
        rung["value"] = value
        if not is_legal:
            rung["legal"] = False
            rung["blocked_by"] = RULES[SKIP_NOT_ALLOWED] if rung["size"] == 0.0 else cap_rule
    return rungs
