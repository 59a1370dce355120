"""Trade signals in, sizes out: the model's advice through the trader's limits, in this process.

Composed of the very functions that training used. Knows nothing of Ray, HTTP, journals or files. Each signal
is sized by itself, whatever others are sized with it. Whatever the features hold and whatever the model does,
the size lies in [0, cap]; where the model has no valid say, the rule's STANDARD stands in for it.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import inf, isfinite, nan
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from envs.account import NANOSECONDS_PER_DAY
from envs.guardrails import BASE_RISK, NONE, RULES, TIERS, Account, Limits, TighterLimits
from envs.observation import OBSERVATION_FIELDS, Situation, since_review
from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES, WARMUP
from market.bars import Bars
from market.errors import DataError, first_line
from policies.baselines import best_and_free
from policies.bundle import PolicyBundle
from policies.decision import ladder
from serving import arithmetic
from serving.arithmetic import FAILED, FAULTS, SOUND, UNSERVED, Judged, Known, Near, Said, Seen, Worth
from serving.limits_file import OperatorLimits
from serving.schemas import Signal
from signals.fields import POOLED, VolatilityRanks
from signals.outcome_model import NOTHING_LEARNED
from signals.outcomes import Costs

Floats = npt.NDArray[np.float64]

NO_MODEL: Final = "no model is served"
NOT_USED: Final = ", not used: "  # between a model's status and why it has no say
LONGEST_STATUS: Final = 60  # narratives print it
DEFAULT_CONFIDENCE: Final = 0.5  # of a rule that states none, in training as here
OF_THE_MODEL: Final = ("volatility_regime", "signal_confidence", "session_left")  # what it alone can tell
NO_RANKS: Final = VolatilityRanks({POOLED: np.array([0.0, 1.0])})  # stand in where no bundle brings any
COUNT: Final = len(FEATURE_NAMES)
NOTHING_KNOWN: Final = Known(
    tuple(NO_RANKS.curves),
    tuple(NOTHING_LEARNED),
    tuple(Worth(np.zeros((1, 0)), 0.0, 0.0, nan, np.ones(1))),
    tuple(Near(np.zeros(COUNT), np.ones(COUNT), np.zeros((COUNT, COUNT)), inf)),
)


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
        self._known = NOTHING_KNOWN if bundle is None else _known(bundle)
        self._ranks = NO_RANKS if bundle is None else bundle.ranks
        # What PPO's network says of the tiers are log odds, not utilities.
        self._valued = bundle is not None and bundle.meta.algo != "ppo"

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
        rows = np.array(list(map(self._row, asking, operators)), dtype=np.float64)
        market = np.array([feature_row(one.market) for one in asking])
        curve = self._ranks.curve_of([one.signal.symbol for one in asking])
        seen = arithmetic.look(self._known, rows, market, curve)
        said, errors = self._say(seen)
        snaps = self.bundle is not None and self._policy.snaps
        judged = arithmetic.judge(self._known, rows, market, seen, said, snaps)
        columns = (
            asking,
            operators,
            judged.tolist(),
            seen.observation.tolist(),
            said.values.tolist(),
            said.wanted.tolist(),
            seen.mask.tolist(),
            seen.largest.tolist(),
            seen.cap_rule.tolist(),
            rows[:, arithmetic.ACCOUNTS + BASE_RISK].tolist(),
            map(errors.get, range(len(asking))),
        )
        return list(map(self._recommendation, *columns))

    def _row(self, asking: Asking, operator: OperatorLimits) -> tuple[Any, ...]:
        """What `arithmetic.look` takes of one signal, but for its features."""
        signal, rate, elapsed = asking.signal, asking.win_rate_recent, nan
        if self.bundle is not None:
            meta = self.bundle.meta
            elapsed = since_review(signal.time, meta.session_days)
            rate = meta.prior_win_rate if rate is None else rate
        return (
            *asking.account,
            *operator.numbers(asking.tighter),
            signal.direction,
            signal.price,
            signal.price if signal.entry is None else signal.entry,
            signal.stop,
            signal.take_profit,
            DEFAULT_CONFIDENCE if signal.confidence is None else signal.confidence,
            nan if rate is None else rate,
            elapsed,
        )

    def _say(self, seen: Seen) -> tuple[Said, dict[int, Exception]]:
        """What the policy says of each row, and why it failed of some."""
        if self.bundle is None:
            return Said.nothing(len(seen.largest), UNSERVED), {}
        return self._tried(_situation(self.bundle, seen))

    def _tried(self, situation: Situation) -> tuple[Said, dict[int, Exception]]:
        """Whatever a policy does wrong is its fault for no other row than the one that it is about."""
        count = len(situation.cap)
        try:
            return self._ask(situation), {}
        except Exception as error:  # rule-first: the rule answers
            if count == 1:
                return Said.nothing(1, FAILED), {0: error}
        said, errors = Said.nothing(count, FAILED), dict[int, Exception]()
        for row in range(count):
            alone, failed = self._tried(situation.take(slice(row, row + 1)))
            for column, value in zip(said, alone, strict=True):
                column[row] = value[0]
            if failed:
                errors[row] = failed[0]
        return said, errors

    def _ask(self, situation: Situation) -> Said:
        """What the policy says of a situation; ValueError for another shape than its own."""
        count = len(situation.cap)
        values = self._policy.values(situation)
        proposed, wanted = self._policy.pick(values, situation)
        sound = np.zeros(count, dtype=np.int64)
        said = Said(_floats(values), _floats(proposed), _floats(wanted), sound)
        shapes = said.values.shape, said.proposed.shape, said.wanted.shape
        if shapes != (situation.mask.shape, (count,), (count,)):
            raise ValueError(f"the policy gives values and sizes of the shapes {shapes}")
        return said

    def _recommendation(
        self,
        asking: Asking,
        operator: OperatorLimits,
        numbers: list[float],
        observation: list[float],
        values: list[float],
        wanted: float,
        legal: list[bool],
        largest: float,
        cap_rule: int,
        base_risk: float,
        error: Exception | None,
    ) -> Recommendation:
        """One signal, and what the model and the guardrail made of it, in words."""
        multiplier, tier, rule_tier, binding, free_binding, fault, outside, utility = Judged(*numbers)
        action, signal, status, why = TIERS[int(tier)], asking.signal, self.status, None
        sound = fault == SOUND
        seen: dict[str, float | None] = dict(zip(OBSERVATION_FIELDS, observation, strict=True))
        if not sound:
            seen = _without_model(seen, asking.win_rate_recent)
            if fault != UNSERVED:
                short = why = FAULTS[int(fault)]
                if fault == FAILED and error is not None:
                    short = type(error).__name__
                    why = f"{short}: {first_line(error)}"
                status = f"{status}{NOT_USED}{short}"
        if operator.limits is None:
            base_risk = 0.0
        details = {
            "symbol": signal.symbol,
            "side": signal.side,
            "action": action,
            "multiplier": multiplier,
            "proposed_multiplier": wanted if sound else None,
            "rule_tier": TIERS[int(rule_tier)],
            "rule_cap": largest,
            # A policy that is shown what is legal asks for no more: what binds its free choice has bound it.
            "binding_rule": RULES[int(free_binding if binding == NONE else binding)],
            "source": "model" if sound else "rule",
            "propensity": 1.0,  # every policy that a bundle can hold is deterministic
            "model_status": status[:LONGEST_STATUS],
            "model_fault": why,
            "base_risk": base_risk,
            "risk_fraction": multiplier * base_risk,
            "observation": seen,
            "ladder": ladder(values if sound and self._valued else None, legal, RULES[cap_rule]),
            "bundle": self.digest,
            "limits_source": operator.source,
            "limits_digest": operator.digest,
            "out_of_distribution": outside == 1.0 if sound else None,
            "expected_utility": utility if sound else None,
        }
        return Recommendation(action, multiplier, details)


def warm() -> None:
    """Compile what sizes are made with, or load it from the disk: the first request would wait for it."""
    rows = np.zeros((1, arithmetic.WIDTH)), np.zeros((1, COUNT))
    seen = arithmetic.look(NOTHING_KNOWN, *rows, np.zeros(1, dtype=np.int64))
    best_and_free(np.zeros(seen.mask.shape), seen.mask)
    arithmetic.judge(NOTHING_KNOWN, *rows, seen, Said.nothing(1, UNSERVED), False)


def _known(bundle: PolicyBundle) -> Known:
    """All that a bundle knows but for its policy."""
    meta, model, near = bundle.meta, bundle.outcome_model, bundle.support
    fixed_bps, impact_bps = Costs(**meta.costs).in_bps()
    return Known(
        tuple(bundle.ranks.curves),
        tuple(model.answering),
        tuple(
            Worth(
                model.outcome_r[None],
                fixed_bps,
                impact_bps,
                meta.session_days * NANOSECONDS_PER_DAY,
                np.array([meta.k * meta.base_risk]),
            )
        ),
        tuple(Near(near.mean, near.scale, near.precision, near.limit)),
    )


def _situation(bundle: PolicyBundle, seen: Seen) -> Situation:
    """What the policy is shown. What only sizers look at that no bundle holds is unknown: NaN."""
    unknown = _unknown(len(seen.largest))
    return Situation(
        observation=seen.observation,
        mask=seen.mask,
        cap=seen.largest,
        probability=seen.probability,
        outcome_r=bundle.outcome_model.outcome_r,
        cost_r=seen.cost_r,
        impact_r=seen.impact_r,
        volatility_ratio=unknown,
        settled_kelly=unknown,
        settled_optimal=unknown,
        k=bundle.meta.k,
        base_risk=bundle.meta.base_risk,
    )


@lru_cache(64)
def _unknown(count: int) -> Floats:
    unknown = np.full(count, nan)
    unknown.setflags(write=False)
    return unknown


def _without_model(seen: Mapping[str, float | None], rate: float | None) -> dict[str, float | None]:
    """An observation as far as it is known without a bundle; what is unknown or not finite is None."""
    known = {**seen, **dict.fromkeys(OF_THE_MODEL), "win_rate_recent": rate}
    return {name: value if value is not None and isfinite(value) else None for name, value in known.items()}


def _floats(given: npt.ArrayLike) -> Floats:
    return np.ascontiguousarray(given, dtype=np.float64)
