"""The trader's limits as one pure function: a proposed size in, an allowed size and the rule that bound it
out.

Knows nothing of models, markets or storage. Everything is array-shaped over N accounts, and total: for every
input whatsoever, NaN and infinity included, ``0 <= allowed <= min(rule cap, 1.5)``.
"""

from math import isfinite
from numbers import Real
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]

TIERS: Final = ("SKIP", "MICRO", "SMALL", "STANDARD", "MODERATE", "AGGRESSIVE")
SIZES: Final[Floats] = np.array([0.0, 0.25, 0.5, 1.0, 1.25, 1.5])
SIZES.setflags(write=False)
STANDARD: Final = 3  # the rule's own tier: what is answered when no model has a valid say
LARGEST_SIZE: Final = 1.5

RULES: Final = (
    "none",
    "rule_cap",
    "max_position",
    "max_exposure",
    "max_daily_risk",
    "max_drawdown",
    "max_open_trades",
    "invalid_account",
    "invalid_limits",
    "invalid_proposal",
    "out_of_distribution",
    "skip_not_allowed",
)
NONE, RULE_CAP, MAX_POSITION, MAX_EXPOSURE, MAX_DAILY_RISK, MAX_DRAWDOWN, MAX_OPEN_TRADES = range(7)
INVALID_ACCOUNT, INVALID_LIMITS, INVALID_PROPOSAL, OUT_OF_DISTRIBUTION, SKIP_NOT_ALLOWED = range(7, 12)

RISK_DECIMALS: Final = (
    12  # risk is counted to 1e-12 of equity, so that 0.06 - 0.05 leaves exactly one 0.01 unit
)


class Limits(BaseModel):
    """One account's risk limits, as the operator configured them; fractions are of current equity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base_risk: float = Field(
        default=0.01, gt=0, le=0.5, description="equity risked between entry and stop at 1x"
    )
    max_position: float = Field(default=0.02, ge=0, le=1, description="largest risk of one position")
    max_exposure: float = Field(default=0.06, ge=0, le=1, description="largest sum of open risk")
    max_daily_risk: float = Field(default=0.05, ge=0, le=1, description="risk that one UTC day may open")
    max_drawdown: float = Field(
        default=0.20, gt=0, lt=1, description="loss from peak equity never to be passed"
    )
    gap_factor: float = Field(
        default=1.5, ge=1, le=10, description="loss beyond the stop assumed for open risk"
    )
    max_open_trades: int = Field(default=32, ge=1, le=1024, description="positions open at once")
    rule_cap: float = Field(
        default=LARGEST_SIZE, ge=0, le=LARGEST_SIZE, description="largest multiplier of the base"
    )
    allow_skip: bool = Field(
        default=True, description="whether a model may veto a trade that the limits permit"
    )

    def tightened(self, by: "Limits | TighterLimits | None") -> Self:
        """These limits with every value of `by` that is stricter; a looser one changes nothing."""
        if by is None:
            return self
        asked = {name: getattr(by, name) for name in TIGHTENABLE}
        stricter = {
            name: min(getattr(self, name), value) for name, value in asked.items() if value is not None
        }
        return self.model_copy(update=stricter)


class TighterLimits(BaseModel):
    """What a request may ask for on top of the operator's limits: only ever less."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_position: float | None = Field(
        default=None, ge=0, le=1, description="largest risk of one position, fraction of equity"
    )
    max_exposure: float | None = Field(
        default=None, ge=0, le=1, description="largest sum of open risk, fraction of equity"
    )
    max_daily_risk: float | None = Field(
        default=None, ge=0, le=1, description="risk that one UTC day may open, fraction of equity"
    )
    max_drawdown: float | None = Field(
        default=None, gt=0, lt=1, description="loss from peak equity never to be passed, fraction of the peak"
    )
    max_open_trades: int | None = Field(default=None, ge=1, le=1024, description="positions open at once")
    rule_cap: float | None = Field(
        default=None, ge=0, le=LARGEST_SIZE, description="largest multiplier of the base position"
    )


TIGHTENABLE: Final = tuple(TighterLimits.model_fields)


class Account(NamedTuple):
    """N accounts as the limits see them; scalars stand for one account."""

    equity: npt.ArrayLike  # in any currency unit
    peak_equity: npt.ArrayLike  # the same unit
    open_risk: npt.ArrayLike  # fraction of equity between entry and stop, summed over open trades
    daily_risk_used: npt.ArrayLike  # fraction of equity that today's trades have opened
    open_trades: npt.ArrayLike = 0


class Guarded(NamedTuple):
    """What the limits made of a proposal, for N accounts."""

    multiplier: Floats  # [N], 0 <= multiplier <= cap
    binding: Codes  # [N], index into RULES; NONE where the proposal stood
    cap: Floats  # [N], the largest multiplier the limits allow
    cap_rule: Codes  # [N], the rule that sets the cap


def cap(account: Account, limits: Limits) -> tuple[Floats, Codes]:
    """The largest allowed multiplier of each account, float64[N] in [0, 1.5], and the index in RULES that
    sets it.

    The drawdown rule holds back `gap_factor` times all open risk, the new trade's included, above the floor
    ``peak * (1 - max_drawdown)``, so that even a gap through every stop ends above it.
    """
    columns = np.empty((5, np.broadcast(*account).size))
    for column, value in zip(columns, account, strict=True):
        column[:] = value
    equity, peak, open_risk, used, trades = columns
    if not _usable(limits):
        return np.zeros(len(equity)), np.full(len(equity), INVALID_LIMITS, dtype=np.int8)
    valid = np.isfinite(columns).all(axis=0)
    valid &= (equity > 0) & (columns[2:] >= 0).all(axis=0)
    equity = np.where(valid, equity, 1.0)
    peak = np.maximum(np.where(valid, peak, 1.0), equity)
    with np.errstate(over="ignore"):
        surplus = 1.0 - (1.0 - limits.max_drawdown) * (peak / equity)
        room = np.empty((4, len(equity)))
        room[0] = limits.max_position
        room[1] = limits.max_exposure - open_risk
        room[2] = limits.max_daily_risk - used
        room[3] = surplus / limits.gap_factor - open_risk
        room = np.maximum(room.round(RISK_DECIMALS), 0.0)
        multiple = room / limits.base_risk
        multiple = np.where(multiple * limits.base_risk > room, np.nextafter(multiple, 0.0), multiple)
    candidates = np.empty((6, len(equity)))
    candidates[0] = min(limits.rule_cap, LARGEST_SIZE)
    candidates[1:5] = multiple
    candidates[5] = np.where(trades >= limits.max_open_trades, 0.0, np.inf)
    rule = candidates.argmin(axis=0)
    largest = candidates.min(axis=0)
    return (
        np.where(valid, largest, 0.0),
        np.where(valid, rule + RULE_CAP, INVALID_ACCOUNT).astype(np.int8),
    )


def allowed(cap: Floats, limits: Limits) -> Bools:
    """The action mask, bool[N, 6]: a tier is legal when its size is within the cap; SKIP always is, unless
    the operator switched vetoes off and another tier is legal."""
    mask: Bools = cap[:, None] >= SIZES
    if not limits.allow_skip:
        mask[:, 0] = ~mask[:, 1]
    return mask


def floor_to_tier(multiplier: Floats) -> npt.NDArray[np.int64]:
    """The index of the largest tier at or below each multiplier, int64[N]."""
    return np.maximum(SIZES.searchsorted(multiplier, side="right") - 1, 0)


def guard(
    proposed: npt.ArrayLike,
    account: Account,
    limits: Limits,
    *,
    snap: bool = True,
    out_of_distribution: npt.ArrayLike = False,
) -> Guarded:
    """The allowed size of each proposal under `limits`, and the rule that bound it.

    `proposed`: [N] multipliers of the base position from any source. A proposal that is no size at all (NaN,
    infinite, negative) is no advice: the rule's STANDARD stands in for it. `out_of_distribution`: [N] flags;
    such advice may lower the rule's size, never raise it. `snap`: floor the outcome to a legal tier (a tiers-
    only policy); False leaves a fine-tuned size as it is, clamped to the cap itself.
    """
    largest, cap_rule = cap(account, limits)
    return bound(proposed, largest, cap_rule, limits, snap=snap, out_of_distribution=out_of_distribution)


def bound(
    proposed: npt.ArrayLike,
    largest: Floats,
    cap_rule: Codes,
    limits: Limits,
    *,
    snap: bool = True,
    out_of_distribution: npt.ArrayLike = False,
) -> Guarded:
    """`guard` for a cap already computed by `cap`: float64[N] and its rule int8[N].

    A cap of one account bounds any number of proposals.
    """
    wanted = np.asarray(proposed, dtype=np.float64)
    strange = np.asarray(out_of_distribution, dtype=np.bool_)
    if not wanted.shape == strange.shape == largest.shape == cap_rule.shape:
        wanted, strange, largest, cap_rule = np.broadcast_arrays(wanted, strange, largest, cap_rule)
    binding = np.zeros(len(largest), dtype=np.int8)

    advised = np.isfinite(wanted) & (wanted >= 0.0)
    binding[~advised] = INVALID_PROPOSAL
    size = np.where(advised, wanted, SIZES[STANDARD])
    lowered = strange & (size > SIZES[STANDARD])
    binding[lowered] = OUT_OF_DISTRIBUTION
    size = np.where(lowered, SIZES[STANDARD], size)
    if not limits.allow_skip:
        vetoed = (size < SIZES[1]) & (largest >= SIZES[1])
        binding[vetoed] = SKIP_NOT_ALLOWED
        size = np.where(vetoed, SIZES[1], size)
    capped = size > largest
    binding[capped] = cap_rule[capped]
    size = np.where(capped, largest, size)
    if not snap and strange.any():
        # The rule alone would have been floored to a tier: a size between two may not lie above that one.
        by_rule = SIZES[floor_to_tier(np.minimum(SIZES[STANDARD], largest))]
        above = strange & (size > by_rule)
        binding[above & ~capped] = OUT_OF_DISTRIBUTION
        size = np.where(above, by_rule, size)
    if snap:
        size = SIZES[floor_to_tier(size)]
    return Guarded(size, binding, largest, cap_rule)


def _usable(limits: Limits) -> bool:
    """Whether every limit is a number in its range: a model built past validation may hold anything."""
    fractions = (
        limits.max_position,
        limits.max_exposure,
        limits.max_daily_risk,
        limits.max_drawdown,
        limits.rule_cap,
    )
    numbers = (*fractions, limits.base_risk, limits.gap_factor, limits.max_open_trades)
    return bool(
        all(map(_is_number, numbers))
        and min(fractions) >= 0
        and limits.base_risk > 0
        and limits.gap_factor >= 1
    )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and isfinite(value)
