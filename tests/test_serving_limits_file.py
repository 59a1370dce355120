"""The operator's limits: whose file counts, and what a broken one means."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from envs.guardrails import INVALID_LIMITS, Account, Limits, TighterLimits, cap, limit_rows
from market.errors import ConfigError
from serving.limits_file import BUILT_IN, LimitsFolder, OperatorLimits


def write(home: Path, name: str, content: object) -> Path:
    path = home / "limits" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_own_file_comes_before_the_default_file_and_that_before_the_built_in(home: Path) -> None:
    folder = LimitsFolder(home)
    assert folder.of("desk-a") == OperatorLimits.of(Limits(), BUILT_IN)
    write(home, "default", {"max_position": 0.015})
    found = folder.of("desk-a")
    assert found.source == "limits/default.json"
    assert found.limits == Limits(max_position=0.015)
    write(home, "desk-a", {"max_position": 0.005, "allow_skip": False})
    found = folder.of("desk-a")
    assert found.source == "limits/desk-a.json"
    assert found.limits == Limits(max_position=0.005, allow_skip=False)
    assert folder.of("desk-b").source == "limits/default.json"


def test_digest_is_of_the_values_and_not_of_the_text(home: Path) -> None:
    folder = LimitsFolder(home)
    write(home, "a", {"max_position": 0.01, "rule_cap": 1})
    write(home, "b", '{\n "rule_cap": 1.0,\n "max_position": 0.010 }')
    write(home, "c", {"max_position": 0.011})
    assert folder.of("a").digest == folder.of("b").digest != folder.of("c").digest


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"max_position": NaN}',
        '{"max_position": "0.01"}',
        '{"max_position": true}',
        '{"max_position": -1}',
        '{"max_posision": 0.01}',
        '{"rule_cap": 1.6}',
        "\ufffd" * 10,
        " " * 70_000 + "{}",
    ],
)
def test_file_that_cannot_be_used_gives_no_limits_and_never_the_defaults(home: Path, content: str) -> None:
    write(home, "default", {"max_position": 0.02})
    write(home, "desk-a", content)
    found = LimitsFolder(home).of("desk-a")
    assert found.limits is None
    assert found.digest is None
    assert found.source.startswith("limits/desk-a.json cannot be used")


def test_folder_in_place_of_a_file_gives_no_limits(home: Path) -> None:
    (home / "limits" / "desk-a.json").mkdir(parents=True)
    found = LimitsFolder(home).of("desk-a")
    assert (found.limits, found.source) == (None, "limits/desk-a.json cannot be read (Is a directory)")


def test_changed_file_counts_at_once_even_within_one_tick_of_the_clock(home: Path) -> None:
    folder = LimitsFolder(home)
    path = write(home, "desk-a", {"max_position": 0.010})
    stamp = path.stat().st_mtime_ns
    assert folder.of("desk-a").limits == Limits(max_position=0.010)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"max_position": 0.012}))
    os.utime(draft, ns=(stamp, stamp))
    draft.replace(path)
    assert folder.of("desk-a").limits == Limits(max_position=0.012)
    path.unlink()
    assert folder.of("desk-a").source == BUILT_IN


@pytest.mark.parametrize("account_id", ["../keys", "a/b", "", ".", "..", "a.b", "-a", "a" * 65, "a\n"])
def test_account_id_that_could_be_a_path_is_refused(home: Path, account_id: str) -> None:
    with pytest.raises(ConfigError, match="account_id"):
        LimitsFolder(home).of(account_id)


def test_numbers_of_limits_are_those_of_the_stricter_ones() -> None:
    limits, asked = Limits(max_position=0.015), TighterLimits(max_position=0.01, max_exposure=1.0)
    operator = OperatorLimits.of(limits)
    for tighter in (None, asked, None):  # what was made once is not what was tightened since
        given = operator.numbers(tighter)
        np.testing.assert_array_equal(given, limit_rows([limits.tightened(tighter)])[0])


@pytest.mark.parametrize("tighter", [None, TighterLimits(rule_cap=1.0)])
def test_limits_that_cannot_be_used_allow_nothing(tighter: TighterLimits | None) -> None:
    numbers = OperatorLimits(None, "limits/default.json cannot be read", None).numbers(tighter)
    largest, rule = cap(Account(100.0, 100.0, 0.0, 0.0), np.array([numbers]))
    assert (largest.tolist(), rule.tolist()) == ([0.0], [INVALID_LIMITS])
