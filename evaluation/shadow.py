"""A challenger beside the champion on the signals that both have sized: the paired difference in R.

Knows nothing of how they sized. What counts is what the market made of each size, whichever was answered:
outcomes do not depend on it but for impact. Declares: d, the challenger's net R less the champion's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np

from envs.rewards import net_r
from evaluation.confidence_sequence import sequence
from journal.records import DecisionRecord, OutcomeRecord, ShadowRecord
from journal.schema import Record
from journal.store import Journal

DAY: Final = 86_400_000_000_000  # ns
LARGEST: Final = 5.0  # R: a larger difference counts as this, because an interval needs bounds


class Pair(NamedTuple):
    """One signal that both have sized."""

    day: int  # UTC, since 1970
    decision_id: str
    champion: float  # multiplier
    challenger: float | None  # None where it failed
    outcome: OutcomeRecord | None  # None where it is not known yet


@dataclass(frozen=True)
class ShadowReport:
    """One challenger against one champion; digests are None for the rule. Differences are R per signal.

    A day counts once the outcomes of all its signals are known, and of all days before it: otherwise trades
    that end early would be counted first. `mean` and its 95 % interval (`low`, `high`), which holds whenever
    one looks, are over days, each the mean of its signals.
    """

    champion: str | None
    challenger: str | None
    signals: int  # in the days that count
    days: int
    answered: int  # of all signals, by the challenger
    failed: int  # of all signals, where the challenger had no answer: it counts as what the champion did
    mean: float | None
    low: float
    high: float
    clipped: int
    waiting: tuple[str, ...]  # decisions of the first day that does not count yet, whose outcome is awaited
    waiting_day: str | None


def shadow_reports(journal: Journal) -> list[ShadowReport]:
    """A report for each pair of champion and challenger in the journal, the newest one last.

    A signal that an account asked about again counts once.
    """
    shadows: dict[str, ShadowRecord] = {}
    decisions: list[tuple[Record, DecisionRecord]] = []
    outcomes: dict[str, OutcomeRecord] = {}
    times: dict[str, int] = {}
    for record in journal.read("signal", "decision", "shadow", "outcome"):
        if record.kind == "signal":
            times[record.record_id] = int(record.payload["time"])
        elif record.kind == "shadow":
            shadow = ShadowRecord.of(record)
            shadows[shadow.decision_id] = shadow
        elif record.kind == "outcome":
            outcome = OutcomeRecord.of(record)
            outcomes[outcome.signal_id] = outcome
        else:
            decisions.append((record, DecisionRecord.of(record)))
    found: dict[tuple[str | None, str | None], list[Pair]] = {}
    answered: dict[tuple[str | None, str | None], int] = {}
    seen = set()
    for record, decision in sorted(decisions, key=lambda each: each[0].time):
        shadow_of = shadows.get(record.record_id)
        if shadow_of is None:
            continue
        lead = decision.arm == "challenger"
        bundles = (shadow_of.bundle, decision.bundle) if lead else (decision.bundle, shadow_of.bundle)
        asked = (decision.account_id, decision.signal_id, bundles)
        if asked in seen:
            continue
        seen.add(asked)
        sizes = (shadow_of.multiplier, decision.multiplier)
        champion, challenger = sizes if lead else sizes[::-1]
        if champion is None:  # the champion failed in the shadow: there is nothing to compare with
            continue
        day = times[decision.signal_id] // DAY
        pair = Pair(day, record.record_id, champion, challenger, outcomes.get(decision.signal_id))
        found.setdefault(bundles, []).append(pair)
        answered[bundles] = answered.get(bundles, 0) + lead
    return [_report(bundles, pairs, answered[bundles]) for bundles, pairs in found.items()]


def _report(bundles: tuple[str | None, str | None], pairs: list[Pair], answered: int) -> ShadowReport:
    means, counted, clipped = [], 0, 0
    waiting: tuple[str, ...] = ()
    waiting_day = None
    for day, group in groupby(sorted(pairs, key=lambda pair: pair.day), key=lambda pair: pair.day):
        of_day = list(group)
        waiting = tuple(pair.decision_id for pair in of_day if pair.outcome is None)
        if waiting:
            waiting_day = datetime.fromtimestamp(day * DAY / 1e9, UTC).date().isoformat()
            break
        d = np.array(list(_differences(of_day)))
        clipped += int((np.abs(d) > LARGEST).sum())
        means.append(float(np.mean(np.clip(d, -LARGEST, LARGEST))))
        counted += len(of_day)
    low, high = sequence(np.array(means), -LARGEST, LARGEST)
    return ShadowReport(
        champion=bundles[0],
        challenger=bundles[1],
        signals=counted,
        days=len(means),
        answered=answered,
        failed=sum(pair.challenger is None for pair in pairs),
        mean=float(np.mean(means)) if means else None,
        low=low,
        high=high,
        clipped=clipped,
        waiting=waiting,
        waiting_day=waiting_day,
    )


def _differences(pairs: Iterable[Pair]) -> Iterable[float]:
    """d of each pair, its outcome being known."""
    for pair in pairs:
        assert pair.outcome is not None
        law = pair.outcome.gross_r, pair.outcome.cost_r, pair.outcome.impact_r
        mine, theirs = pair.champion if pair.challenger is None else pair.challenger, pair.champion
        yield float(mine * net_r(mine, *law) - theirs * net_r(theirs, *law))
