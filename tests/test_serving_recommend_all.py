"""Many signals sized at once: each to the last bit as if it were alone, whatever stands beside it."""

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from envs.guardrails import Account, Limits, TighterLimits
from envs.observation import Situation
from features.spec import FEATURE_NAMES, index
from policies.bundle import PolicyBundle
from policies.hybrid import Network
from serving.limits_file import OperatorLimits
from serving.position_sizer import Asking, PositionSizer, Recommendation
from serving.schemas import Signal
from tests.serving_bundles import bundle, fine_tuned_bundle

SIZES_OF_BATCHES = (1, 2, 7, 256)
COUNT = max(SIZES_OF_BATCHES)


def network(outputs: int, seed: int) -> Network:
    """12-64-32-`outputs` at random: wide enough for BLAS to add in blocks."""
    random = np.random.default_rng(seed)
    shapes = [(64, 12), (32, 64), (outputs, 32)]
    return Network(
        mean=random.normal(0.0, 0.1, size=12).astype(np.float32),
        scale=random.uniform(0.5, 2.0, size=12).astype(np.float32),
        weights=tuple((random.normal(size=shape) / shape[1] ** 0.5).astype(np.float32) for shape in shapes),
        biases=tuple(random.normal(size=rows).astype(np.float32) for rows, _ in shapes),
    )


def skilled(plain: PolicyBundle) -> PolicyBundle:
    """With an outcome model that says something else of every signal."""
    return replace(plain, outcome_model=replace(plain.outcome_model, shrink=np.array([0.6, 0.3, 1.0])))


@cache
def sizers() -> dict[str, PositionSizer]:
    tiers = skilled(replace(bundle(0), network=network(6, 1)))
    tuned = skilled(replace(fine_tuned_bundle(0), network=network(6, 2), fine_tune=network(1, 3)))
    return {
        "tiers": PositionSizer(tiers, "STAGING", "d" * 64),
        "fine-tuned": PositionSizer(tuned, "STAGING", "d" * 64),
        "plug-in": PositionSizer(skilled(bundle(0, algo="plugin")), "STAGING", "d" * 64),
        "policy gradient": PositionSizer(skilled(bundle(1, algo="ppo")), "STAGING", "d" * 64),
        "rule": PositionSizer(None),
    }


@cache
def asked() -> list[Asking]:
    """Mixed symbols, sides, accounts and limits; among them what is out of range or cannot be used."""
    random = np.random.default_rng(0)
    asking = []
    for number in range(COUNT):
        long = bool(random.random() < 0.5)
        price, distance = float(np.exp(random.normal())), float(random.uniform(0.002, 0.05))
        move = price * distance * (1 if long else -1)
        signal = Signal(
            symbol=str(random.choice(["EURUSD", "GBPUSD", "GOOGL"])),
            side="long" if long else "short",
            timestamp=f"2026-0{1 + number % 9}-{10 + number % 19}T{10 + number % 14}:{10 + number % 50}:00Z",
            price=price,
            stop=price - move,
            take_profit=price + 2.0 * move,
            entry=None if number % 3 else price - 0.2 * move,
            confidence=None if number % 2 else float(random.random()),
        )
        row = random.normal(size=len(FEATURE_NAMES))
        row[index("atr_ratio")] = 0.002 * abs(row[index("atr_ratio")])
        account = Account(
            1.0, float(random.uniform(0.9, 1.2)), float(random.uniform(0, 0.05)), 0.01, number % 5
        )
        limits = OperatorLimits.of(
            Limits(max_position=float(random.uniform(0.005, 0.03)), allow_skip=bool(number % 4))
        )
        if number % 10 == 3:
            row[random.integers(len(row))] = random.choice([math.nan, math.inf, 1e300])
        if number % 10 == 4:
            row *= 50.0  # outside the training data
        if number % 10 == 5:
            account = account._replace(equity=-1.0)
        if number % 10 == 6:
            limits = OperatorLimits(None, "limits/desk.json cannot be used (x)", None)
        tighter = TighterLimits(rule_cap=float(random.uniform(0.2, 1.5))) if number % 3 == 0 else None
        rate = None if number % 2 else (math.nan if number % 20 == 8 else float(random.random()))
        asking.append(Asking(signal, row, account, limits, tighter, rate))
    return asking


def exact(answers: list[Recommendation]) -> list[str]:
    """Every digit of every answer."""
    return [json.dumps(answer) for answer in answers]


@pytest.mark.parametrize("size", SIZES_OF_BATCHES)
@pytest.mark.parametrize("name", ["tiers", "fine-tuned", "plug-in", "policy gradient", "rule"])
def test_a_batch_is_answered_to_the_last_bit_as_its_signals_alone(name: str, size: int) -> None:
    sizer = sizers()[name]
    alone = exact(
        [
            sizer.get_sizing_recommendation(
                one.signal,
                one.market,
                one.account,
                one.limits,
                tighter=one.tighter,
                win_rate_recent=one.win_rate_recent,
            )
            for one in asked()
        ]
    )
    together = [
        answer
        for first in range(0, COUNT, size)
        for answer in exact(sizer.recommend_all(asked()[first : first + size]))
    ]
    assert together == alone


def test_the_batch_holds_what_it_should() -> None:
    details = [answer.details for answer in sizers()["tiers"].recommend_all(asked())]
    assert {one["source"] for one in details} == {"model", "rule"}
    bound = {one["binding_rule"] for one in details}
    assert {"none", "max_position", "rule_cap", "invalid_account", "invalid_limits"} <= bound
    assert {True, False, None} == {one["out_of_distribution"] for one in details}
    assert len({one["multiplier"] for one in details}) > 4
    assert len({json.dumps(one["observation"]) for one in details}) == COUNT


class FailsOnOne:
    """The bundle's own policy, but for one symbol's signals."""

    snaps = True

    def __init__(self, sizer: PositionSizer, cap: float) -> None:
        self.own, self.cap = sizer._policy, cap

    def values(self, situation: Situation) -> np.ndarray:
        if (situation.cap == self.cap).any():
            raise ZeroDivisionError("of one signal")
        return self.own.values(situation)

    def pick(self, values: np.ndarray, situation: Situation) -> tuple[np.ndarray, np.ndarray]:
        return self.own.pick(values, situation)


def test_a_failure_over_one_signal_is_no_failure_over_the_others() -> None:
    plain = sizers()["tiers"]
    before = [answer.details for answer in plain.recommend_all(asked()[:32])]
    chosen = next(i for i, one in enumerate(before) if one["source"] == "model")
    failing = PositionSizer(plain.bundle, "STAGING", "d" * 64)
    failing._policy = FailsOnOne(failing, before[chosen]["rule_cap"])  # type: ignore[assignment]
    after = [answer.details for answer in failing.recommend_all(asked()[:32])]
    assert after[chosen]["model_fault"] == "ZeroDivisionError: of one signal"
    assert after[chosen]["source"] == "rule"
    others = [i for i, one in enumerate(before) if one["rule_cap"] != before[chosen]["rule_cap"]]
    assert len(others) > 20
    assert [json.dumps(after[i]) for i in others] == [json.dumps(before[i]) for i in others]


def test_nothing_asked_is_nothing_answered() -> None:
    assert sizers()["tiers"].recommend_all([]) == []
