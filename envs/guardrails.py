"""The trader's limits as one pure function: a proposed size in, an allowed size and the rule that bound it
out.

Knows nothing of models, markets or storage. Everything is array-shaped over N accounts, each of which is
judged by itself, and total: for every input whatsoever, NaN and infinity included, ``0 <= allowed <= min(rule
cap, 1.5)``.
"""

from collections.abc import Sequence
from math import nan
from numbers import Real
from operator import attrgetter
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from market.compiled import compiled

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
RISK_UNITS: Final = 10.0**RISK_DECIMALS


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
LIMIT_FIELDS: Final = tuple(Limits.model_fields)
PLAIN: Final = frozenset((float, bool))  # known to be numbers without asking
BASE_RISK, POSITION, EXPOSURE, DAILY_RISK, DRAWDOWN, GAP_FACTOR, OPEN_TRADES, MULTIPLE, ALLOW_SKIP = range(9)
AnyLimits = Limits | Floats  # one for all accounts, or of each its own, as `limit_rows` gives them


class Account(NamedTuple):
    """N accounts as the limits see them; scalars stand for one account."""

    equity: npt.ArrayLike  # in any currency unit
    peak_equity: npt.ArrayLike  # the same unit
    open_risk: npt.ArrayLike  # fraction of equity between entry and stop, summed over open trades
    daily_risk_used: npt.ArrayLike  # fraction of equity that today's trades have opened
    open_trades: npt.ArrayLike = 0


AnyAccount = Account | Floats  # or as `account_columns` gives it


class Bounded(NamedTuple):
    """What a cap made of N proposals."""

    multiplier: Floats  # [N], 0 <= multiplier <= cap
    binding: Codes  # [N], index into RULES; NONE where the proposal stood


class Guarded(NamedTuple):
    """What the limits made of a proposal, for N accounts."""

    multiplier: Floats  # [N], see Bounded
    binding: Codes  # [N]
    cap: Floats  # [N], the largest multiplier the limits allow
    cap_rule: Codes  # [N], the rule that sets the cap


def limit_rows(limits: Sequence[Limits]) -> Floats:
    """Limits as numbers, float64[N, 9] in the order of LIMIT_FIELDS; NaN for what is no number.

    A model built past validation may hold anything: `cap` finds the NaN, and leaves nothing.
    """
    numbers = {key: _numbers(each) for key, each in {id(each): each for each in limits}.items()}
    return np.array([numbers[id(each)] for each in limits], dtype=np.float64)


def as_rows(limits: AnyLimits) -> Floats:
    """`limit_rows` of limits that may be rows already."""
    return limits if isinstance(limits, np.ndarray) else limit_rows([limits])


def account_columns(account: AnyAccount) -> Floats:
    """The five numbers of N accounts, float64[5, N]."""
    if isinstance(account, np.ndarray):
        return account
    columns = np.empty((len(account), np.broadcast(*account).size))
    for column, value in zip(columns, account, strict=True):
        column[:] = value
    return columns


def cap(account: AnyAccount, limits: AnyLimits) -> tuple[Floats, Codes]:
    """The largest allowed multiplier of each account, float64[N] in [0, 1.5], and the index in RULES that
    sets it.

    The drawdown rule holds back `gap_factor` times all open risk, the new trade's included, above the floor
    ``peak * (1 - max_drawdown)``, so that even a gap through every stop ends above it.
    """
    columns, rows = account_columns(account), as_rows(limits)
    largest, rule = np.empty(columns.shape[1]), np.empty(columns.shape[1], dtype=np.int8)
    fill_caps(columns, rows, largest, rule)
    return largest, rule


def allowed(cap: Floats, limits: AnyLimits) -> Bools:
    """The action mask, bool[N, 6]: a tier is legal when its size is within the cap; SKIP always is, unless
    the operator switched vetoes off and another tier is legal."""
    mask = np.empty((len(cap), len(SIZES)), dtype=np.bool_)
    fill_masks(cap, as_rows(limits), mask)
    return mask


def floor_to_tier(multiplier: Floats) -> npt.NDArray[np.int64]:
    """The index of the largest tier at or below each multiplier, int64[N]."""
    tier = np.empty(len(multiplier), dtype=np.int64)
    _floor_to_tier(multiplier, tier)
    return tier


def guard(
    proposed: npt.ArrayLike,
    account: Account,
    limits: AnyLimits,
    *,
    snap: npt.ArrayLike = True,
    out_of_distribution: npt.ArrayLike = False,
) -> Guarded:
    """The allowed size of each proposal under `limits`, and the rule that bound it.

    `proposed`: [N] multipliers of the base position from any source. A proposal that is no size at all (NaN,
    infinite, negative) is no advice: the rule's STANDARD stands in for it. `out_of_distribution`: [N] flags;
    such advice may lower the rule's size, never raise it. `snap`, for all or [N]: floor the outcome to a
    legal tier (a tiers-only policy); False leaves a fine-tuned size as it is, clamped to the cap itself.
    """
    largest, cap_rule = cap(account, limits)
    size, binding = bound(
        proposed, largest, cap_rule, limits, snap=snap, out_of_distribution=out_of_distribution
    )
    return Guarded(size, binding, np.resize(largest, len(size)), np.resize(cap_rule, len(size)))


def bound(
    proposed: npt.ArrayLike,
    largest: Floats,
    cap_rule: Codes,
    limits: AnyLimits,
    *,
    snap: npt.ArrayLike = True,
    out_of_distribution: npt.ArrayLike = False,
) -> Bounded:
    """`guard` for a cap already computed by `cap`: float64[N] and its rule int8[N].

    N caps bound any multiple of N proposals: the second N are the same accounts' again.
    """
    size = np.array(proposed, dtype=np.float64, ndmin=1)
    count = max(len(size), len(largest))
    if len(size) != count:
        size = np.full(count, size)
    binding = np.empty(count, dtype=np.int8)
    fill_bounds(size, _flags(out_of_distribution), largest, cap_rule, as_rows(limits), _flags(snap), binding)
    return Bounded(size, binding)


def _flags(given: npt.ArrayLike) -> Bools:
    return np.ascontiguousarray(given, dtype=np.bool_)


@compiled(error_model="numpy")
def fill_caps(accounts: Floats, limits: Floats, largest: Floats, rule: Codes) -> None:
    """Fill in `largest` and `rule`."""
    for i in range(len(largest)):
        equity, peak = accounts[0, i], accounts[1, i]
        open_risk, used, trades = accounts[2, i], accounts[3, i], accounts[4, i]
        own = limits[i % len(limits)]
        if not _usable(own):
            largest[i], rule[i] = 0.0, INVALID_LIMITS
            continue
        valid = 0.0 < equity < np.inf and np.isfinite(peak)
        if not (valid and 0.0 <= open_risk < np.inf and 0.0 <= used < np.inf and 0.0 <= trades < np.inf):
            largest[i], rule[i] = 0.0, INVALID_ACCOUNT
            continue
        surplus = 1.0 - (1.0 - own[DRAWDOWN]) * (max(peak, equity) / equity)
        rooms = (
            own[POSITION],
            own[EXPOSURE] - open_risk,
            own[DAILY_RISK] - used,
            surplus / own[GAP_FACTOR] - open_risk,
        )
        least, binding = min(own[MULTIPLE], LARGEST_SIZE), RULE_CAP
        for number, room in enumerate(rooms):
            room = np.rint(room * RISK_UNITS) / RISK_UNITS
            room = room if room > 0.0 else 0.0
            multiple = room / own[BASE_RISK]
            if multiple * own[BASE_RISK] > room:
                multiple = np.nextafter(multiple, 0.0)
            if multiple < least:
                least, binding = multiple, MAX_POSITION + number
        if trades >= own[OPEN_TRADES] and least > 0.0:
            least, binding = 0.0, MAX_OPEN_TRADES
        largest[i], rule[i] = least, binding


@compiled()
def fill_masks(cap: Floats, limits: Floats, mask: Bools) -> None:
    """Fill in `mask`."""
    for i in range(len(cap)):
        for tier in range(len(SIZES)):
            mask[i, tier] = cap[i] >= SIZES[tier]
        if limits[i % len(limits), ALLOW_SKIP] == 0.0:
            mask[i, 0] = not mask[i, 1]


@compiled()
def fill_bounds(
    size: Floats,
    strange: Bools,
    largest: Floats,
    cap_rule: Codes,
    limits: Floats,
    snap: Bools,
    binding: Codes,
) -> None:
    """Turn proposals, `size`, into sizes and fill in what bound them; all else is taken in turn."""
    standard, least = SIZES[STANDARD], SIZES[1]
    for i in range(len(size)):
        own, rule = size[i], NONE
        most, most_rule = largest[i % len(largest)], cap_rule[i % len(cap_rule)]
        is_strange, snaps = strange[i % len(strange)], snap[i % len(snap)]
        if not (np.isfinite(own) and own >= 0.0):
            own, rule = standard, INVALID_PROPOSAL
        if is_strange and own > standard:
            own, rule = standard, OUT_OF_DISTRIBUTION
        vetoes = limits[i % len(limits), ALLOW_SKIP] != 0.0
        if not vetoes and own < least and most >= least:
            own, rule = least, SKIP_NOT_ALLOWED
        capped = own > most
        if capped:
            own, rule = most, most_rule
        if is_strange and not snaps:
            # The rule alone would have been floored to a tier: a size between two may not lie above that one.
            by_rule = SIZES[tier_below(min(standard, most))]
            if own > by_rule:
                own, rule = by_rule, (rule if capped else OUT_OF_DISTRIBUTION)
        size[i], binding[i] = SIZES[tier_below(own)] if snaps else own, rule


@compiled()
def _floor_to_tier(multiplier: Floats, tier: npt.NDArray[np.int64]) -> None:
    """Fill in `tier`."""
    for i in range(len(multiplier)):
        tier[i] = tier_below(multiplier[i])


@compiled()
def tier_below(size: float) -> int:
    """The index of the largest of SIZES at or below `size`; 0 below all of them, and of what is no number."""
    below = 0
    for tier in range(1, len(SIZES)):
        if SIZES[tier] <= size:
            below = tier
    return below


@compiled()
def _usable(own: Floats) -> bool:
    """Whether every limit is a number in its range."""
    for number in own:
        if not (np.isfinite(number) and number >= 0.0):
            return False
    return bool(own[BASE_RISK] > 0.0 and own[GAP_FACTOR] >= 1.0)


def _numbers(limits: Limits) -> list[float]:
    return [value if type(value) in PLAIN else _number(value) for value in _GET(limits)]


_GET: Final = attrgetter(*LIMIT_FIELDS)


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, Real) else nan
    except OverflowError:
        return nan
