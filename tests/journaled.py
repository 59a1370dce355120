"""Trades as a journal holds them: signals, outcomes and decisions as records, for tests."""

from contextlib import closing

import numpy as np

from envs.guardrails import SIZES, TIERS, Limits
from features.spec import FEATURE_NAMES, fingerprint
from journal.records import (
    AccountSnapshot,
    DecisionRecord,
    OutcomeRecord,
    RungRecord,
    SignalRecord,
    outcome_id,
    signal_id,
)
from journal.store import Journal
from signals.trades import REASONS

BATCH = 2_000


def signal_of(trades, row, **changed):
    """The signal of one row."""
    fields = {
        "symbol": trades.symbols[trades.symbol[row]],
        "side": "long" if trades.side[row] > 0 else "short",
        "time": int(trades.signal_time[row]),
        "price": float(trades.close[row]),
        "stop": float(trades.stop[row]),
        "take_profit": float(trades.take_profit[row]),
        "entry": float(trades.level[row]),
        "confidence": float(trades.confidence[row]),
        "strategy_id": "donchian",
        "features": dict(zip(FEATURE_NAMES, trades.features[row].tolist(), strict=True)),
        "feature_fingerprint": fingerprint(),
    }
    return SignalRecord(**fields | changed)


def outcome_of(trades, row, signal, **changed):
    """What became of it."""
    fields = {
        "signal_id": signal_id(signal),
        "gross_r": float(trades.gross_r[row]),
        "cost_r": float(trades.cost_r[row]),
        "impact_r": float(trades.impact_r[row]),
        "entry_time": int(trades.entry_time[row]),
        "exit_time": int(trades.exit_time[row]),
        "reason": REASONS[trades.reason[row]],
        "holding": int(trades.holding[row]),
        "mfe_r": float(trades.mfe_r[row]),
        "mae_r": float(trades.mae_r[row]),
    }
    return OutcomeRecord(**fields | changed)


def decision_of(signal, tier, propensity=1.0, *, limits=None, account="desk", **changed):
    """A decision of an account that has nothing open, all six tiers legal."""
    fields = {
        "signal_id": signal_id(signal),
        "account_id": account,
        "account": AccountSnapshot(
            equity=1.0, peak_equity=1.0, open_risk_pct=0.0, daily_risk_used_pct=0.0, win_rate_recent=0.4
        ),
        "limits": limits or Limits(max_position=1.0, max_exposure=1.0, max_daily_risk=1.0),
        "limits_source": "a test",
        "limits_digest": None,
        "symbol": signal.symbol,
        "side": signal.side,
        "action": TIERS[tier],
        "multiplier": float(SIZES[tier]),
        "proposed_multiplier": float(SIZES[tier]),
        "rule_tier": "STANDARD",
        "rule_cap": 1.5,
        "binding_rule": "none",
        "source": "model",
        "propensity": propensity,
        "bundle": "a" * 64,
        "model_status": "PRODUCTION",
        "model_fault": None,
        "base_risk": 0.01,
        "risk_fraction": 0.01 * float(SIZES[tier]),
        "observation": {},
        "ladder": tuple(
            RungRecord(action=name, size=float(size), value=None, legal=True, blocked_by=None)
            for name, size in zip(TIERS, SIZES, strict=True)
        ),
        "out_of_distribution": False,
        "expected_utility": None,
        "latency_ms": 1.0,
    }
    return DecisionRecord(**fields | changed)


def write(url, entries, writer="desk"):
    """Journal the entries in batches; with no entries, nothing."""
    with closing(Journal(url, writer)) as journal:
        for start in range(0, len(entries), BATCH):
            journal.append_many(entries[start : start + BATCH])


def entries_of(trades, rows=None, **changed):
    """Signals and outcomes of the rows (all by default), as `Journal.append_many` takes them."""
    entries = []
    for row in range(len(trades)) if rows is None else np.asarray(rows).tolist():
        signal = signal_of(trades, row, **changed)
        name = signal_id(signal)
        entries += [signal.to_entry(name), outcome_of(trades, row, signal).to_entry(outcome_id(name))]
    return entries
