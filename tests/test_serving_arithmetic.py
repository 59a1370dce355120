"""The compiled loops of a size: kept on disk for as long as nothing that they are composed of changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from envs.guardrails import Account, Limits, limit_rows
from policies.baselines import _best
from serving import arithmetic
from serving.arithmetic import FAILED, FAULTS, SOUND, UNSERVED, Judged, Said
from serving.position_sizer import NOTHING_KNOWN, PositionSizer, warm
from serving.schemas import SizingRequest
from tests.serving_bundles import bundle, request

ROOT = Path(__file__).parents[1]
COPIED = ("market", "features", "signals", "envs", "policies", "serving", "journal", "narratives", "mlops")
SIZES_ONE = """
import numpy as np
from envs.guardrails import Account, Limits, limit_rows
from envs.observation import observe
from serving import arithmetic
from serving.position_sizer import NOTHING_KNOWN
signal = (1.0, 100.0, 100.0, 99.0, 102.0, 0.5, 0.5, 0.0)
row = np.array([(1.0, 1.0, 0.0, 0.0, 0.0, *limit_rows([Limits()])[0], *signal)])
# Has numba keep by itself what `look` is composed of.
observe(np.zeros((1, 12), np.float32), Account(1.0, 1.0, 0.0, 0.0), np.ones(1), Limits(), 0.5)
seen = arithmetic.look(NOTHING_KNOWN, row, np.zeros((1, 31)), np.zeros(1, dtype=np.int64))
hits = sum(arithmetic._look.stats.cache_hits.values())
print(seen.largest[0], seen.observation[0, 9], hits)
"""


@pytest.mark.long
def test_a_rule_that_was_changed_is_not_answered_by_what_was_compiled_before(tmp_path: Path) -> None:
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))

    def largest() -> list[str]:
        """The cap of one size, its share of the largest, and how often the compiler was not needed."""
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-c", SIZES_ONE]
        ran = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return ran.stdout.split()

    assert largest() == ["1.5", "1.0", "0"]
    assert largest() == ["1.5", "1.0", "1"]
    rules = tmp_path / "envs" / "guardrails.py"
    text = rules.read_text()
    assert "LARGEST_SIZE: Final = 1.5\n" in text
    rules.write_text(text.replace("LARGEST_SIZE: Final = 1.5\n", "LARGEST_SIZE: Final = 1.25\n"))
    assert largest() == ["1.25", "1.0", "0"]  # the share is worked out in another file


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
