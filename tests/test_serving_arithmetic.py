"""The compiled loops of a size."""

import numpy as np

from envs.guardrails import Account, Limits, limit_rows
from policies.baselines import _best
from serving import arithmetic
from serving.arithmetic import FAILED, FAULTS, SOUND, UNSERVED, Judged, Said
from serving.position_sizer import NOTHING_KNOWN, PositionSizer, warm
from serving.schemas import SizingRequest
from tests.serving_bundles import bundle, request


def rows(*accounts: Account) -> np.ndarray:
    signal = (1.0, 100.0, 100.0, 99.0, 102.0, 0.5, 0.5, 0.0)
    return np.array([(*account, *limit_rows([Limits()])[0], *signal) for account in accounts])


def test_whatever_is_wrong_with_what_the_policy_says_the_rules_size_stands_in() -> None:
    sound, broke = Account(1.0, 1.0, 0.0, 0.0, 0), Account(-1.0, 1.0, 0.0, 0.0, 0)
    told, market = rows(sound, sound, sound, broke, broke), np.zeros((5, 31))
    seen = arithmetic.look(NOTHING_KNOWN, told, market, np.zeros(5, dtype=np.int64))
    seen.observation[:] = 0.0  # without a model some of it is not known
    faults = np.array([SOUND, FAILED, UNSERVED, FAILED, UNSERVED])
    said = Said(np.zeros((5, 6)), np.full(5, 1.5), np.full(5, 1.5), faults)
    judged = [
        Judged(*row) for row in arithmetic.judge(NOTHING_KNOWN, told, market, seen, said, True).tolist()
    ]
    assert [one.multiplier for one in judged] == [1.5, 1.0, 1.0, 0.0, 0.0]
    assert [FAULTS[int(one.fault)] for one in judged] == [
        None,
        "the policy failed",
        "no model is served",
        "nothing may be risked",
        "no model is served",
    ]


def test_warming_up_compiles_what_a_size_takes() -> None:
    warm()
    compiled = arithmetic._look, arithmetic._judge, _best
    before = [len(loop.signatures) for loop in compiled]
    assert 0 not in before
    asked = SizingRequest.model_validate(request())
    row = asked.market.feature_row()
    assert row is not None
    sizer = PositionSizer(bundle(0), "STAGING")
    answer = sizer.get_sizing_recommendation(asked.signal, row, asked.account.account(), Limits())
    assert answer.details["source"] == "model"
    assert [len(loop.signatures) for loop in compiled] == before
