"""One trade signal in, one size out: the model's advice through the trader's limits, in this process.

Composed of the very functions that training used. Knows nothing of Ray, HTTP, journals or files. Whatever the
features hold and whatever the model does, the size lies in [0, cap]; where the model has no valid say, the
rule's STANDARD stands in for it.
"""

from collections.abc import Mapping
from math import nan
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from envs.guardrails import (
    INVALID_ACCOUNT,
    INVALID_LIMITS,
    NONE,
    RULES,
    SIZES,
    STANDARD,
    TIERS,
    Account,
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
from serving.advice import Advice, NoAdvice, advise, known_without_model, utility_of
from serving.limits_file import OperatorLimits
from serving.schemas import Signal
from signals.outcomes import Costs

Floats = npt.NDArray[np.float64]

NO_MODEL: Final = "no model is served"
NOT_USED: Final = ", not used: "  # between a model's status and why it has no say
LONGEST_STATUS: Final = 60  # narratives print it
# Limits that the guardrail recognises as unusable: it answers 0 and says invalid_limits.
UNUSABLE: Final = Limits.model_construct(base_risk=nan)


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
    if isinstance(market, Mapping):
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
        `win_rate_recent`: the account's average of settled winners, the training rate where absent. Raises
        DataError for features of another shape or too few bars; never for what the numbers are.
        """
        operator = limits if isinstance(limits, OperatorLimits) else OperatorLimits.of(limits)
        in_force = UNUSABLE if operator.limits is None else operator.limits.tightened(tighter)
        row = feature_row(market)
        largest, cap_rule = cap(account, in_force)
        mask = allowed(largest, in_force)
        advice: Advice | None = None
        status, fault = self.status, None
        try:
            if self.bundle is not None:
                if cap_rule[0] in (INVALID_ACCOUNT, INVALID_LIMITS):
                    raise NoAdvice("nothing may be risked")
                about = (signal, row, account, in_force, largest, mask, win_rate_recent)
                advice = advise(self.bundle, self._policy, self._costs, *about)
        except NoAdvice as reason:
            status, fault = f"{self.status}{NOT_USED}{reason}", str(reason)
        except Exception as error:  # rule-first: whatever a model does wrong, the rule answers
            status = f"{self.status}{NOT_USED}{type(error).__name__}"
            fault = f"{type(error).__name__}: {first_line(error)}"
        # Three proposals in one call: what is answered, what the model would do without limits, and the rule.
        standard = float(SIZES[STANDARD])
        guarded = bound(
            [standard] * 3 if advice is None else [advice.proposed, advice.wanted, standard],
            largest,
            cap_rule,
            in_force,
            snap=advice is None or self._policy.snaps,
            out_of_distribution=[advice is not None and advice.outside, False, False],
        )
        tiers = floor_to_tier(guarded.multiplier).tolist()
        multiplier = float(guarded.multiplier[0])
        # A policy that is shown what is legal asks for no more: what binds its free choice has bound it.
        binding = guarded.binding[0] if guarded.binding[0] != NONE else guarded.binding[1]
        base_risk = 0.0 if operator.limits is None else in_force.base_risk
        if advice is None:
            observation = known_without_model(signal, row, account, in_force, largest, win_rate_recent)
        else:
            observation = dict(zip(OBSERVATION_FIELDS, advice.situation.observation[0].tolist(), strict=True))
        rungs = ladder(None if advice is None else advice.values, mask[0], RULES[int(cap_rule[0])])
        action = TIERS[tiers[0]]
        details = {
            "symbol": signal.symbol,
            "side": signal.side,
            "action": action,
            "multiplier": multiplier,
            "proposed_multiplier": None if advice is None else advice.wanted,
            "rule_tier": TIERS[tiers[2]],
            "rule_cap": float(largest[0]),
            "binding_rule": RULES[int(binding)],
            "source": "rule" if advice is None else "model",
            "propensity": 1.0,  # every policy that a bundle can hold is deterministic
            "model_status": status[:LONGEST_STATUS],
            "model_fault": fault,
            "base_risk": base_risk,
            "risk_fraction": multiplier * base_risk,
            "observation": observation,
            "ladder": [vars(rung).copy() for rung in rungs],
            "bundle": self.digest,
            "limits_source": operator.source,
            "limits_digest": operator.digest,
            "out_of_distribution": None if advice is None else advice.outside,
            "expected_utility": None if advice is None else utility_of(multiplier, advice.situation),
        }
        return Recommendation(action, multiplier, details)
