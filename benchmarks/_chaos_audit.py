"""What journal and budget hold after the chaos, beside what clients were told.

Knows nothing of the faults.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from benchmarks._chaos_load import Answered
from envs.guardrails import LARGEST_SIZE, Limits
from journal.budget import GRAIN
from journal.location import open_budget, open_journal


class Audit(NamedTuple):
    """All but the first two are 0 where nothing went wrong."""

    acknowledged: int  # decisions that clients were told
    journaled: int  # decisions in the journal: what died before its answer and was asked again is there twice
    acknowledged_lost: int  # told, but not in the journal, or there with another size
    chain_faults: int
    limit_breaches: int  # sizes above their cap, accounts above their limits
    budget_differences: int  # told reservations that the budget does not hold as told, and sums that differ


def audit(home: Path, answered: Sequence[Answered], given_up: Sequence[str]) -> Audit:
    """Compare what clients were told, all under the built-in limits, with the journal and budget of `home`.

    `given_up`: reserve keys that were never answered; what they hold is nobody's.
    """
    with closing(open_journal(home, "audit", os.environ)) as journal:
        faults = len(journal.inspect().faults)
        decisions = {record.record_id: record.payload for record in journal.read("decision")}
    lost = 0
    for one in answered:
        found = decisions.get(one.size["decision_id"])
        lost += found is None or any(
            found[name] != one.size[name] for name in ("multiplier", "action", "symbol")
        )
    told = [one.size for one in answered]
    breaches = sum(
        not 0.0 <= size["multiplier"] <= min(size["rule_cap"], LARGEST_SIZE)
        for size in (*decisions.values(), *told)
    )
    over, differing = _budget(home, answered, given_up)
    return Audit(len(answered), len(decisions), lost, faults, breaches + over, differing)


def _budget(home: Path, answered: Sequence[Answered], given_up: Sequence[str]) -> tuple[int, int]:
    """Accounts above their limits, and reservations or sums that are not as they were told."""
    limits = Limits()
    keys: dict[str, dict[str, Decimal]] = defaultdict(
        dict
    )  # by account: what each key was told that it holds
    over = differing = 0
    with closing(open_budget(home, os.environ)) as budget:
        for one in answered:
            if one.key is None:
                continue
            held, made = one.size["reservation"], budget.find(one.key)
            if held is None:
                differing += made is not None and made.state == "reserved"
                continue
            keys[one.account][one.key] = Decimal(repr(held["risk"]))
            differing += made is None or made.state != held["state"] or _apart(made.risk, held["risk"])
        for key in given_up:
            made = budget.find(key)
            if made is not None and made.state == "reserved":
                keys[made.account][key] = made.risk
        for account, risks in keys.items():
            used = budget.used(account)
            over += used.daily_risk > Decimal(repr(limits.max_daily_risk))
            over += used.exposure > Decimal(repr(limits.max_exposure))
            differing += _apart(used.exposure, float(sum(risks.values())))
    return over, differing


def _apart(exact: Decimal, told: float) -> bool:
    """Whether they differ by more than sums of numbers of 64 bits may."""
    return abs(exact - Decimal(repr(told))) > 100 * GRAIN
