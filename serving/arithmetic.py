"""The arithmetic of N sizes in two compiled loops, with the policy between them: what is seen of signals and
accounts, and what becomes of what the policy says.

Composed of the very functions that training and evaluation call; each signal is judged by itself, to the last
bit. Knows nothing of bundles, nor of how an answer is worded.
"""

from math import nan
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from envs.guardrails import (
    INVALID_ACCOUNT,
    INVALID_LIMITS,
    LIMIT_FIELDS,
    SIZES,
    STANDARD,
    Account,
    fill_bounds,
    fill_caps,
    fill_masks,
    tier_below,
)
from envs.observation import OBSERVATION_FIELDS, fill_account_columns, fill_market_columns, fill_session_left
from envs.rewards import fill_expected_utilities, fill_win_chances
from market.compiled import compiled
from policies.support import fill_distances
from signals.fields import SIGNAL_FIELDS, Curves, fill_fields
from signals.outcome_model import Answering, fill_probability
from signals.outcomes import fill_costs

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]

Plain = tuple[Any, ...]  # a NamedTuple's fields: a call with the NamedTuple itself takes twice as long

ACCOUNTS: Final = len(Account._fields)  # numbers that a row of `look` begins with, those of the limits after
TOLD: Final = ACCOUNTS + len(LIMIT_FIELDS)  # where those of the signal begin:
WIDTH: Final = TOLD + 8
SIDE, CLOSE, LEVEL, STOP, TARGET, CONFIDENCE, WIN_RATE, ELAPSED = range(TOLD, WIDTH)

FAULTS: Final = (
    None,
    "nothing may be risked",
    "the policy failed",
    "no model is served",
    "a feature is not finite",
    "the observation is not finite",
    "p is not finite",
    "a value is not finite",
    "the size is not finite",
    "the size is negative",
)
SOUND, NOTHING_TO_RISK, FAILED, UNSERVED, STRANGE_FEATURE, STRANGE_OBSERVATION = range(6)
STRANGE_P, STRANGE_VALUE, STRANGE_SIZE, NEGATIVE_SIZE = range(6, 10)


class Worth(NamedTuple):
    """What outcomes and trades are worth."""

    outcome_r: Floats  # [1, J], gross R of each bin
    fixed_bps: float  # costs in 1/10,000 of a trade's value, at any size
    impact_bps: float  # at 1x
    session: float  # ns of the operator's review window
    scale: Floats  # [1], Kelly divisor times base risk


class Near(NamedTuple):
    """How near to the training rows features must be; see `policies.support.Support`."""

    mean: Floats
    scale: Floats
    precision: Floats
    limit: float


class Known(NamedTuple):
    """What a model knows, apart from its policy."""

    ranks: Plain  # Curves
    answering: Plain  # Answering
    worth: Plain  # Worth
    near: Plain  # Near


class Seen(NamedTuple):
    """What is seen of N signals and accounts."""

    observation: Rows  # [N, 12]
    mask: Bools  # [N, 6], the tiers within the limits
    largest: Floats  # [N], what the limits leave the account
    cap_rule: Codes  # [N], index in RULES of what sets it
    probability: Floats  # [N, J]
    cost_r: Floats  # [N]
    impact_r: Floats  # [N]

    @classmethod
    def empty(cls, count: int, outcomes: int) -> Self:
        """To be filled in."""
        floats = np.empty((3, count))
        return cls(
            np.zeros((count, len(OBSERVATION_FIELDS)), dtype=np.float32),
            np.empty((count, len(SIZES)), dtype=np.bool_),
            floats[0],
            np.empty(count, dtype=np.int8),
            np.empty((count, outcomes)),
            floats[1],
            floats[2],
        )


class Said(NamedTuple):
    """What the policy says of them."""

    values: Floats  # [N, 6]
    proposed: Floats  # [N], among the legal tiers
    wanted: Floats  # [N], before the limits
    faults: Ints  # [N], index in FAULTS

    @classmethod
    def nothing(cls, count: int, fault: int) -> Self:
        """Because of `fault`."""
        return cls(
            np.full((count, len(SIZES)), nan),
            np.full(count, nan),
            np.full(count, nan),
            np.full(count, fault, dtype=np.int64),
        )


class Judged(NamedTuple):
    """What becomes of one of them: a row of `judge`'s answer."""

    multiplier: float
    tier: float  # index in TIERS of the largest at or below it
    rule_tier: float  # what the rule alone would have taken
    binding: float  # index in RULES
    free_binding: float  # of what the model would do without limits
    fault: float  # index in FAULTS of the first that holds
    outside: float  # 1 where the features lie outside the training data
    utility: float  # in R, expected under the outcome model


JUDGED: Final = len(Judged._fields)
SIZE, TIER, RULE_TIER, BINDING, FREE_BINDING, FAULT, OUTSIDE, UTILITY = range(JUDGED)


def look(known: Known, rows: Floats, market: Floats, curve: Ints) -> Seen:
    """What `rows` float64[N, WIDTH] and their features `market` float64[N, 31] look like.

    `curve`: see `VolatilityRanks.curve_of`.
    """
    seen = Seen.empty(len(rows), known.worth[0].shape[1])
    _look(rows, market, curve, known.ranks, known.answering, known.worth, tuple(seen))
    return seen


def judge(known: Known, rows: Floats, market: Floats, seen: Seen, said: Said, snaps: bool) -> Floats:
    """What becomes of `said`, float64[N, JUDGED]: where it is faulty the rule's STANDARD stands in.

    `snaps`: see `policies.decision.Policy`.
    """
    judged = np.empty((len(rows), JUDGED))
    _judge(rows, market, known.worth, known.near, tuple(seen), tuple(said), snaps, judged)
    return judged


@compiled(error_model="numpy")
def _look(
    rows: Floats,
    market: Floats,
    curve: Ints,
    ranks: Plain,
    answering: Plain,
    of_worth: Plain,
    filled: Plain,
) -> None:
    worth, seen = Worth(*of_worth), Seen(*filled)
    limits, told = rows[:, ACCOUNTS:TOLD].copy(), rows.T.copy()
    fill_caps(told, limits, seen.largest, seen.cap_rule)
    fill_masks(seen.largest, limits, seen.mask)
    close, stop, fields = told[CLOSE], told[STOP], np.empty((len(rows), len(SIGNAL_FIELDS)))
    plan = told[SIDE], close, told[LEVEL], stop, told[TARGET], told[CONFIDENCE]
    fill_fields(market, *plan, curve, Curves(*ranks), fields)
    fill_probability(fields, Answering(*answering), seen.probability)
    # The entry price is not known yet: the close of the signal bar stands in for it.
    distance = np.abs(close - stop)
    fill_costs(close, distance, worth.fixed_bps, worth.impact_bps, seen.cost_r, seen.impact_r)
    chance = np.empty(len(rows))
    fill_win_chances(seen.probability, worth.outcome_r, seen.cost_r + seen.impact_r, chance)
    fill_market_columns(fields, chance, told[WIN_RATE], seen.observation)
    fill_session_left(told[ELAPSED], worth.session)
    fill_account_columns(seen.observation, told, limits, seen.largest, told[ELAPSED])


@compiled(error_model="numpy")
def _judge(
    rows: Floats,
    market: Floats,
    of_worth: Plain,
    of_near: Plain,
    of_seen: Plain,
    of_said: Plain,
    snaps: bool,
    judged: Floats,
) -> None:
    worth, near, seen, said = Worth(*of_worth), Near(*of_near), Seen(*of_seen), Said(*of_said)
    count = len(rows)
    limits, distance = rows[:, ACCOUNTS:TOLD].copy(), np.empty(count)
    fill_distances(market, near.mean, near.scale, near.precision, distance)
    # Three proposals each: what is answered, what the model would do without limits, and the rule.
    sizes, strange = np.full(3 * count, SIZES[STANDARD]), np.zeros(3 * count, dtype=np.bool_)
    snap = np.ones(count, dtype=np.bool_)
    for row in range(count):
        fault = _first_fault(row, market, seen, said)
        judged[row, FAULT] = fault
        if fault == SOUND:
            sizes[row], sizes[count + row] = said.proposed[row], said.wanted[row]
            strange[row], snap[row] = distance[row] > near.limit, snaps
    binding = np.empty(3 * count, dtype=np.int8)
    fill_bounds(sizes, strange, seen.largest, seen.cap_rule, limits, snap, binding)
    multiplier, utility = sizes[:count].reshape((-1, 1)), np.empty((count, 1))
    law = seen.probability, worth.outcome_r, seen.cost_r, seen.impact_r
    fill_expected_utilities(multiplier, *law, worth.scale, utility)
    for row in range(count):
        judged[row, SIZE] = sizes[row]
        judged[row, TIER] = tier_below(sizes[row])
        judged[row, RULE_TIER] = tier_below(sizes[2 * count + row])
        judged[row, BINDING], judged[row, FREE_BINDING] = binding[row], binding[count + row]
        judged[row, OUTSIDE], judged[row, UTILITY] = strange[row], utility[row, 0]


@compiled()
def _first_fault(row: int, market: Floats, seen: Seen, said: Said) -> int:
    """Which of FAULTS is the first that a row has."""
    if said.faults[row] == UNSERVED:
        return UNSERVED
    if seen.cap_rule[row] == INVALID_ACCOUNT or seen.cap_rule[row] == INVALID_LIMITS:
        return NOTHING_TO_RISK
    if said.faults[row] != SOUND:
        return int(said.faults[row])
    if not np.isfinite(market[row]).all():
        return STRANGE_FEATURE
    if not np.isfinite(seen.observation[row]).all():
        return STRANGE_OBSERVATION
    if not np.isfinite(seen.probability[row]).all():
        return STRANGE_P
    if not np.isfinite(said.values[row]).all():
        return STRANGE_VALUE
    if not (np.isfinite(said.proposed[row]) and np.isfinite(said.wanted[row])):
        return STRANGE_SIZE
    return NEGATIVE_SIZE if min(said.proposed[row], said.wanted[row]) < 0.0 else SOUND
