"""What a candidate would have earned on the signals that a journal holds, before it sizes anything.

The main estimate replays the account under the candidate: outcomes do not depend on size, so any other size
can be looked up. Two estimators that trust the logged propensities instead check it; they answer "not
identified" where these say nothing of the candidate's choices. RLlib's own are not used: those of 2.60 weigh
an action drawn anew where the logged one belongs. Knows nothing of terminals. Declares: n decisions in time
order; w, the weight of a decision: 1 / propensity where the candidate takes what was taken, else 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from envs.guardrails import Account, Limits, allowed, bound, cap
from envs.observation import observe, review_left
from envs.signal_table import SignalTable
from evaluation.backtest import run
from evaluation.comparison import NANOSECONDS_PER_DAY
from evaluation.resampling import interval
from journal.history import Asked
from journal.records import DecisionRecord
from market.errors import DataError
from policies.bundle import PolicyBundle
from signals.trades import Trades

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LEAST_EFFECTIVE: Final = (
    50.0  # independent decisions' worth of weight below which a weighted mean is an anecdote
)
SAME_SIZE: Final = 1e-9
WIN_RATE: Final = 7  # column of win_rate_recent
NO_LIMITS: Final = Limits.model_construct(base_risk=nan)  # the guardrail answers 0 to these


@dataclass(frozen=True)
class Logged:
    """n decisions as they were taken, and what the candidate would have taken in the same situations.

    Utilities are in R per signal. `modelled` are a model's, `reward` is what came of the size taken.
    """

    day: Integers  # [n], UTC
    propensity: Floats  # [n], of the size taken, in (0, 1]
    taken: Floats  # [n], multiplier
    chosen: Floats  # [n], the candidate's multiplier
    reward: Floats  # [n]
    modelled_taken: Floats  # [n]
    modelled_chosen: Floats  # [n]

    @property
    def weight(self) -> Floats:
        """w, float64[n]."""
        return np.where(np.abs(self.taken - self.chosen) <= SAME_SIZE, 1.0 / self.propensity, 0.0)


class Estimate(NamedTuple):
    """A mean utility in R per signal with its 95 % interval; no number where it is not identified."""

    name: str
    value: float | None
    low: float | None  # None also with fewer than 20 days
    high: float | None
    note: str


@dataclass(frozen=True)
class OffPolicy:
    """The estimates for one candidate, the main one first."""

    account: str
    signals: int
    days: int
    estimates: tuple[Estimate, ...]
    notes: tuple[str, ...]


def off_policy(
    bundle: PolicyBundle,
    trades: Trades,
    account: str,
    asked: Sequence[Asked],
    *,
    replications: int = 2_000,
    seed: int = 0,
) -> OffPolicy:
    """What the bundle's policy would have earned on the trades that `account` asked about.

    The replay starts a fresh account under the newest limits journaled. Raises DataError where nothing was
    asked, or no limits could ever be used.
    """
    if not asked:
        raise DataError("decisions", 0, f"account {account!r} asked about no settled signal yet")
    in_force = [one.decision.limits for one in asked if one.decision.limits is not None]
    if not in_force:
        raise DataError("limits", None, f"no decision of account {account!r} had limits that could be used")
    limits = in_force[-1]
    seen = trades.take(np.array([one.row for one in asked]))
    table = bundle.table_of(seen, limits.base_risk)
    decisions = [one.decision for one in asked]
    logged = logged_decisions(bundle, table, decisions)
    replayed = run(bundle.policy(), table, limits, bundle.meta.session_days).utility
    gained = replayed - logged.reward
    notes = []
    if any(other != limits for other in in_force):
        notes.append("limits changed on the way: the replay is under the newest")
    if "journal" in bundle.meta.training.get("data_digests", {}):
        notes.append("the candidate was trained on a journal: what it has seen there flatters every figure")
    return OffPolicy(
        account=account,
        signals=len(table),
        days=len(np.unique(logged.day)),
        estimates=(
            _mean("replay", replayed, logged.day, replications, seed, "the candidate, its own account"),
            _mean("journaled decisions", logged.reward, logged.day, replications, seed, "what was decided"),
            _mean(
                "replay over journaled", gained, logged.day, replications, seed, "paired, signal by signal"
            ),
            snips(logged, replications, seed),
            doubly_robust(logged, replications, seed),
        ),
        notes=tuple(notes),
    )


def snips(logged: Logged, replications: int, seed: int) -> Estimate:
    """The self-normalised weighted mean, sum(w reward) / sum(w) (Swaminathan and Joachims 2015)."""
    note, identified = _support(logged)
    if not identified:
        return Estimate("SNIPS", None, None, None, note)
    w = logged.weight
    value = float(np.average(logged.reward, weights=w))
    low, high = interval(logged.reward, logged.day, replications, seed, w)
    return Estimate("SNIPS", value, low, high, note)


def doubly_robust(logged: Logged, replications: int, seed: int) -> Estimate:
    """The model's value of the candidate's sizes, put right by its weighted error on the sizes taken.

    Unbiased where either the model or the propensities are (Dudik, Langford and Li 2011).
    """
    note, identified = _support(logged)
    if not identified:
        return Estimate("doubly robust", None, None, None, note)
    d = logged.modelled_chosen + logged.weight * (logged.reward - logged.modelled_taken)
    return _mean("doubly robust", d, logged.day, replications, seed, note)


def logged_decisions(bundle: PolicyBundle, table: SignalTable, decisions: Sequence[DecisionRecord]) -> Logged:
    """The decisions about the rows of `table`, one each, beside what the bundle's policy answers to them."""
    taken = np.array([decision.multiplier for decision in decisions])
    chosen = np.array([_answer(bundle, table, row, decision) for row, decision in enumerate(decisions)])
    return Logged(
        day=table.time // NANOSECONDS_PER_DAY,
        propensity=np.array([decision.propensity for decision in decisions]),
        taken=taken,
        chosen=chosen,
        reward=table.utility_of(taken, slice(None), realised=True),
        modelled_taken=table.utility_of(taken, slice(None), realised=False),
        modelled_chosen=table.utility_of(chosen, slice(None), realised=False),
    )


def _answer(bundle: PolicyBundle, table: SignalTable, row: int, decision: DecisionRecord) -> float:
    """The size that the bundle's policy would have had in the account of the decision."""
    meta, policy, told = bundle.meta, bundle.policy(), decision.account
    limits = NO_LIMITS if decision.limits is None else decision.limits.tightened(decision.tighter)
    account = Account(
        told.equity, told.peak_equity, told.open_risk_pct, told.daily_risk_used_pct, told.open_trades
    )
    largest, rule = cap(account, limits)
    at = slice(row, row + 1)
    market = table.market[at].copy()
    # As it would have been told: the account's own win rate, or that of the training signals.
    market[:, WIN_RATE] = meta.prior_win_rate if told.win_rate_recent is None else told.win_rate_recent
    left = review_left(table.time[at], meta.session_days)
    observation = observe(market, account, largest, limits, left)
    seen = table.situation(at, observation, allowed(largest, limits), largest)
    # Served, it is told nothing of what the signals before have come to.
    situation = seen._replace(settled_kelly=np.array([nan]), settled_optimal=np.array([nan]))
    strange = table.out_of_distribution[at]
    proposed = policy.size(situation)
    return float(
        bound(proposed, largest, rule, limits, snap=policy.snaps, out_of_distribution=strange).multiplier[0]
    )


def _support(logged: Logged) -> tuple[str, bool]:
    """What the propensities support, in words, and whether that is enough.

    A decision taken for certain says nothing of another size. A policy that draws is taken to draw from all
    legal sizes.
    """
    w = logged.weight
    blind = int(np.sum((w == 0.0) & (logged.propensity >= 1.0)))
    effective = float(w.sum() ** 2 / np.sum(w**2)) if w.any() else 0.0
    if blind:
        share = f"{blind:,} of {len(w):,} decisions were certain to be other than the candidate's"
        return f"not identified: {share}", False
    if effective < LEAST_EFFECTIVE:
        return f"not identified: worth {effective:.0f} decisions, fewer than {LEAST_EFFECTIVE:.0f}", False
    return f"worth {effective:,.0f} of {len(w):,} decisions", True


def _mean(name: str, d: Floats, day: Integers, replications: int, seed: int, note: str) -> Estimate:
    low, high = interval(d, day, replications, seed)
    return Estimate(name, float(np.mean(d)), low, high, note)
