"""What every sizing policy answers to, and what a decision holds.

Knows nothing of how a policy was made or where its answer goes.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from envs.guardrails import SIZES, TIERS
from envs.observation import Situation

Floats = npt.NDArray[np.float64]


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


@dataclass(frozen=True)
class Rung:
    """One of the six sizes, as it stood at a decision."""

    action: str
    size: float
    value: float | None  # None where the policy values no sizes
    legal: bool
    blocked_by: str | None


@dataclass(frozen=True)
class Decision:
    """The answer to one signal."""

    action: str  # name of the largest tier at or below `multiplier`
    multiplier: float  # what may be traded, in units of the base position
    proposed_multiplier: float | None  # what was advised before the limits; None where nothing valid was
    rule_cap: float  # the largest multiplier the limits allowed
    binding_rule: str
    source: str  # "model" or "rule"
    ladder: tuple[Rung, ...]


def ladder(values: Floats | None, mask: npt.NDArray[np.bool_], cap_rule: str) -> tuple[Rung, ...]:
    """The six rungs of one decision: `values` float64[6] or None, `mask` bool[6]."""
    return tuple(
        Rung(
            action=name,
            size=float(size),
            value=None if values is None else float(values[i]),
            legal=bool(mask[i]),
            blocked_by=None if mask[i] else ("skip_not_allowed" if i == 0 else cap_rule),
        )
        for i, (name, size) in enumerate(zip(TIERS, SIZES, strict=True))
    )
