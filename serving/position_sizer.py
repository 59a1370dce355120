"""Trade signals in, sizes out: the model's advice through the trader's limits, in this process.

Composed of the very functions that training used. Knows nothing of Ray, HTTP, journals or files. Each signal
is sized by itself, whatever others are sized with it. Whatever the features hold and whatever the model does,
the size lies in [0, cap]; where the model has no valid say, the rule's STANDARD stands in for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from envs.guardrails import (
    BASE_RISK,
    INVALID_ACCOUNT,
    INVALID_LIMITS,
    NONE,
    RULES,
    SIZES,
    STANDARD,
    TIERS,
    Account,
    Codes,
    Limits,
    TighterLimits,
    allowed,
    bound,
    cap,
    floor_to_tier,
)
from envs.observation import OBSERVATION_FIELDS
from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES, WARMUP
from market.bars import Bars
from market.errors import DataError, first_line
from policies.bundle import PolicyBundle
from policies.decision import ladder
from serving.advice import Advice, Asked, advise, known_without_model, utilities
from serving.limits_file import OperatorLimits
from serving.schemas import Signal
from signals.outcomes import Costs

Floats = npt.NDArray[np.float64]

NO_MODEL: Final = "no model is served"
NOT_USED: Final = ", not used: "  # between a model's status and why it has no say
LONGEST_STATUS: Final = 60  # narratives print it


class Recommendation(NamedTuple):
    """The answer to one signal."""

    action: str  # the largest tier at or below `multiplier`
    multiplier: float  # what may be traded, in units of the base position
    details: dict[str, Any]  # plain JSON: serving.answers.SizingAnswer without the decision id


def feature_row(market: Mapping[str, float] | Floats | Bars) -> Floats:
    """The features at the signal bar, float64[31]: given by name, given in order, or of the last of 101 bars.

    Raises DataError for another shape, other names or too few bars.
    """
    if isinstance(market, Bars):
        if len(market) < WARMUP:
            raise DataError("bars", len(market), f"give at least {WARMUP} bars: the features need them")
        return np.asarray(FeaturePipeline().matrix(market)[-1], dtype=np.float64)
    if not isinstance(market, np.ndarray) and isinstance(market, Mapping):
        if set(market) != set(FEATURE_NAMES):
            strange = sorted(set(market) ^ set(FEATURE_NAMES))
            raise DataError(
                "features", strange, f"give exactly the {len(FEATURE_NAMES)} names of features.spec"
            )
        return np.array([market[name] for name in FEATURE_NAMES], dtype=np.float64)
    row = np.asarray(market, dtype=np.float64)
    if row.shape != (len(FEATURE_NAMES),):
        raise DataError(
            "features", row.shape, f"give {len(FEATURE_NAMES)} numbers in the order of features.spec"
        )
    return row


class Fault(NamedTuple):
    """Why a model that is served has no valid say."""

    short: str
    full: str


NOTHING_TO_RISK: Final = Fault("nothing may be risked", "nothing may be risked")


# What stands behind one size: what was wanted before the limits, the values of all six, whether the features
# lie outside the training rows, the utility, and the observation. All but the observation are None where no
# model has a valid say.
Says = tuple[float | None, list[float] | None, bool | None, float | None, Mapping[str, float | None]]


class Asking(NamedTuple):
    """What `PositionSizer.get_sizing_recommendation` is asked."""

    signal: Signal
    market: Mapping[str, float] | Floats | Bars
    account: Account
    limits: Limits | OperatorLimits
    tighter: TighterLimits | None = None
    win_rate_recent: float | None = None


class PositionSizer:
    """A policy bundle behind the guardrail; without one, the rule behind the guardrail.

    `status` is the bundle's registry status, or why there is none. Holds no state: threads may share it.
    """

    def __init__(
        self, bundle: PolicyBundle | None, status: str = NO_MODEL, digest: str | None = None
    ) -> None:
        self.bundle, self.status, self.digest = bundle, status, digest
        if bundle is not None:
            self._policy = bundle.policy()
            self._costs = Costs(**bundle.meta.costs)

    def get_sizing_recommendation(
        self,
        signal: Signal,
        market: Mapping[str, float] | Floats | Bars,
        account: Account,
        limits: Limits | OperatorLimits,
        *,
        tighter: TighterLimits | None = None,
        win_rate_recent: float | None = None,
    ) -> Recommendation:
        """The size of `signal`, a tier or a fine-tuned multiplier, never above what `limits` leave `account`.

        `market`: the features at the signal bar, by name or float64[31], or bars up to the signal bar.
        `win_rate_recent`: the account's average of settled winners, the training rate where absent.
        `OperatorLimits.of(limits)`, made once, spares every call the digest of its limits. Raises DataError
        for features of another shape or too few bars; never for what the numbers are.
        """
        return self.recommend_all([Asking(signal, market, account, limits, tighter, win_rate_recent)])[0]

    def recommend_all(self, asking: Sequence[Asking]) -> list[Recommendation]:
        """`get_sizing_recommendation` of each, to the last bit: none knows of the others."""
        if not asking:
            return []
        operators = [
            one.limits if isinstance(one.limits, OperatorLimits) else OperatorLimits.of(one.limits)
            for one in asking
        ]
        limits = np.array(
            [operator.numbers(one.tighter) for operator, one in zip(operators, asking, strict=True)]
        )
        account = np.array([one.account for one in asking], dtype=np.float64).T.copy()
        largest, cap_rule = cap(account, limits)
        asked = Asked(
            [one.signal for one in asking],
            np.array([feature_row(one.market) for one in asking]),
            account,
            limits,
            largest,
            allowed(largest, limits),
            [one.win_rate_recent for one in asking],
        )
        faults: dict[int, Fault] = {}
        consulted = self._consult(asked, cap_rule, faults)
        # Three proposals each: what is answered, what the model would do without limits, and the rule.
        count = len(asking)
        proposals, strange = np.full((3, count), SIZES[STANDARD]), np.zeros((3, count), dtype=np.bool_)
        snap = np.ones(count, dtype=np.bool_)
        for rows, advice in consulted:
            own = slice(None) if len(rows) == count else rows
            proposals[0, own], proposals[1, own] = advice.proposed, advice.wanted
            strange[0, own], snap[own] = advice.outside, self._policy.snaps
        guarded = bound(
            proposals.ravel(), largest, cap_rule, limits, snap=snap, out_of_distribution=strange.ravel()
        )
        multiplier = guarded.multiplier[:count]
        tier, binding = floor_to_tier(guarded.multiplier).tolist(), guarded.binding.tolist()
        columns = (
            asking,
            operators,
            _says(asked, consulted, multiplier),
            map(faults.get, range(count)),
            multiplier.tolist(),
            tier[:count],
            tier[2 * count :],
            binding[:count],
            binding[count : 2 * count],
            largest.tolist(),
            cap_rule.tolist(),
            asked.mask.tolist(),
            limits[:, BASE_RISK].tolist(),
        )
        return list(map(self._recommendation, *columns))

    def _consult(
        self, asked: Asked, cap_rule: Codes, faults: dict[int, Fault]
    ) -> list[tuple[list[int], Advice]]:
        """What the model says, of which rows; why it has no valid say of the others goes into `faults`."""
        if self.bundle is None:
            return []
        able = [rule not in (INVALID_ACCOUNT, INVALID_LIMITS) for rule in cap_rule.tolist()]
        faults.update({row: NOTHING_TO_RISK for row, is_able in enumerate(able) if not is_able})
        return self._advised(self.bundle, asked, [row for row, is_able in enumerate(able) if is_able], faults)

    def _advised(
        self, bundle: PolicyBundle, asked: Asked, rows: list[int], faults: dict[int, Fault]
    ) -> list[tuple[list[int], Advice]]:
        """`_consult` of these rows."""
        if not rows:
            return []
        try:
            advice = advise(bundle, self._policy, self._costs, asked.take(rows))
        except Exception as error:  # rule-first: whatever a model does wrong, the rule answers
            if len(rows) > 1:  # for none but the row that it is about
                return [one for row in rows for one in self._advised(bundle, asked, [row], faults)]
            kind = type(error).__name__
            faults[rows[0]] = Fault(kind, f"{kind}: {first_line(error)}")
            return []
        unsound = {row: Fault(why, why) for row, why in zip(rows, advice.faults, strict=True) if why}
        if not unsound:
            return [(rows, advice)]
        faults.update(unsound)
        return self._advised(bundle, asked, [row for row in rows if row not in unsound], faults)

    def _recommendation(
        self,
        asking: Asking,
        operator: OperatorLimits,
        says: Says,
        fault: Fault | None,
        multiplier: float,
        tier: int,
        rule_tier: int,
        binding: int,
        free_binding: int,  # of what the model would do without limits
        largest: float,
        cap_rule: int,
        legal: list[bool],
        base_risk: float,
    ) -> Recommendation:
        """One signal, and what the model and the guardrail made of it, in words."""
        action, signal = TIERS[tier], asking.signal
        status = self.status if fault is None else f"{self.status}{NOT_USED}{fault.short}"
        if operator.limits is None:
            base_risk = 0.0
        wanted, values, outside, utility, observation = says
        details = {
            "symbol": signal.symbol,
            "side": signal.side,
            "action": action,
            "multiplier": multiplier,
            "proposed_multiplier": wanted,
            "rule_tier": TIERS[rule_tier],
            "rule_cap": largest,
            # A policy that is shown what is legal asks for no more: what binds its free choice has bound it.
            "binding_rule": RULES[binding if binding != NONE else free_binding],
            "source": "rule" if wanted is None else "model",
            "propensity": 1.0,  # every policy that a bundle can hold is deterministic
            "model_status": status[:LONGEST_STATUS],
            "model_fault": None if fault is None else fault.full,
            "base_risk": base_risk,
            "risk_fraction": multiplier * base_risk,
            "observation": observation,
            "ladder": ladder(values, legal, RULES[cap_rule]),
            "bundle": self.digest,
            "limits_source": operator.source,
            "limits_digest": operator.digest,
            "out_of_distribution": outside,
            "expected_utility": utility,
        }
        return Recommendation(action, multiplier, details)


def _says(asked: Asked, consulted: list[tuple[list[int], Advice]], multiplier: Floats) -> list[Says]:
    """What stands behind each size, once it is known."""
    says: dict[int, Says] = {}
    for rows, advice in consulted:
        says.update(zip(rows, _by_model(advice, multiplier[rows]), strict=True))
    rest = [row for row in range(len(multiplier)) if row not in says]
    if rest:
        says.update(zip(rest, _by_rule(asked.take(rest)), strict=True))
    return [says[row] for row in range(len(multiplier))]


def _by_model(advice: Advice, multiplier: Floats) -> Iterator[Says]:
    """What the model says of each signal."""
    return zip(
        advice.wanted.tolist(),
        [None] * len(multiplier) if advice.values is None else advice.values.tolist(),
        advice.outside.tolist(),
        utilities(multiplier, advice.situation).tolist(),
        [dict(zip(OBSERVATION_FIELDS, row, strict=True)) for row in advice.situation.observation.tolist()],
        strict=True,
    )


def _by_rule(asked: Asked) -> list[Says]:
    """What is known of each signal that no model has a valid say of."""
    return [(None, None, None, None, known) for known in known_without_model(asked)]
