"""Contexts to narrate: decisions as the guardrail makes them, markets and periods, drawn at random.

Knows nothing of texts.
"""

from typing import Any

import numpy as np

from envs.guardrails import RULES, SIZES, TIERS, Account, Limits, allowed, bound, cap, floor_to_tier
from narratives.contexts import MarketFeatures

Context = dict[str, Any]


def decision(draw: np.random.Generator) -> Context:
    """One sizing decision's details, of any account and any proposal, valid or not."""
    limits = Limits(
        base_risk=draw.choice([0.005, 0.0075, 0.01, 0.02]),
        rule_cap=draw.choice([0.5, 1.0, 1.5], p=[0.1, 0.2, 0.7]),
        allow_skip=bool(draw.random() < 0.8),
    )
    drawdown, open_risk, used = draw.beta(1, 6) * 0.25, draw.beta(1, 4) * 0.07, draw.beta(1, 4) * 0.06
    equity = -1.0 if draw.random() < 0.02 else 1.0 - drawdown
    account = Account(equity, 1.0, open_risk, used, int(draw.integers(0, 8)))
    largest, cap_rule = cap(account, limits)
    by_model, snap = bool(draw.random() < 0.85), bool(draw.random() < 0.8)
    values = draw.normal(0, 0.05, len(SIZES))
    proposed = 1.0
    if by_model:
        proposed = float("nan") if draw.random() < 0.03 else float(SIZES[int(values.argmax())])
        proposed *= 1.0 if snap else float(draw.uniform(0.85, 1.0))
    strange = bool(draw.random() < 0.05)
    guarded = bound([proposed], largest, cap_rule, limits, snap=snap, out_of_distribution=strange)
    multiplier, mask = float(guarded.multiplier[0]), allowed(largest, limits)[0]
    observation = {
        "trend_strength": draw.beta(2, 4),
        "volatility_regime": draw.random(),
        "momentum_score": float(np.clip(draw.normal(0, 0.4), -1, 1)),
        "signal_confidence": draw.beta(5, 7),
        "entry_quality": float(np.clip(draw.normal(0, 0.5), -1, 1)),
        "risk_reward_ratio": float(np.clip(draw.normal(0, 0.5), -1, 1)),
        "current_exposure_pct": min(open_risk / 0.06, 1.0),
        "win_rate_recent": draw.beta(6, 8),
        "drawdown_pct": min(drawdown / 0.2, 1.0),
        "max_position_pct": float(largest[0]) / 1.5,
        "remaining_daily_risk": max(1 - used / 0.05, 0.0),
        "session_left": draw.random(),
    }
    rungs = zip(TIERS, SIZES, values, mask, strict=True)
    return {
        "symbol": str(draw.choice(["EURUSD", "NASDAQ", "US500", "BRK.B", "GC=F"])),
        "side": str(draw.choice(["long", "short"])),
        "action": TIERS[int(floor_to_tier(np.array([multiplier]))[0])],
        "multiplier": multiplier,
        "proposed_multiplier": None if np.isnan(proposed) else proposed,
        "rule_cap": float(largest[0]),
        "binding_rule": RULES[guarded.binding[0]],
        "source": "model" if by_model else "rule",
        "model_status": str(draw.choice(["PRODUCTION", "STAGING"])) if by_model else "none",
        "base_risk": limits.base_risk,
        "risk_fraction": multiplier * limits.base_risk,
        "observation": observation,
        "ladder": [
            {
                "action": action,
                "size": float(size),
                "value": float(value) if by_model else None,
                "legal": bool(legal),
                "blocked_by": None if legal else RULES[cap_rule[0]],
            }
            for action, size, value, legal in rungs
        ],
    }


def market(draw: np.random.Generator) -> Context:
    """One market's features."""
    features = {name: float(np.clip(draw.normal(0, 0.4), -1, 1)) for name in MarketFeatures.model_fields}
    features |= {name: float(draw.normal(0, 1.2)) for name in ("mom_5", "mom_20", "vol_spike")}
    shares = ("range_position", "higher_highs", "lower_lows", "trend_strength", "adx_norm")
    features |= {name: float(draw.random()) for name in shares}
    widths = {"atr_ratio": float(draw.gamma(2, 0.002)), "bb_width": float(draw.gamma(2, 0.01))}
    features |= widths | {"vol_ratio_5_20": float(draw.gamma(9, 0.11))}
    return {"symbol": str(draw.choice(["EURUSD", "NASDAQ", "US500"])), "features": features}


def performance(draw: np.random.Generator) -> Context:
    """One period's closed trades."""
    trades = int(draw.choice([0, 1, 7, 63, 1234]))
    wins = int(draw.binomial(trades, draw.random()))
    mean = float(draw.normal(0, 0.3))
    return {
        "symbol": None if draw.random() < 0.3 else "EURUSD",
        "trades": trades,
        "win_rate": wins / trades if trades else 0.0,
        "mean_r": mean,
        "total_r": mean * trades,
        "max_drawdown": float(draw.beta(1, 9)) * (trades > 1),
        "average_multiplier": float(draw.uniform(0.25, 1.5)),
        "period": str(draw.choice(["last week", "last 30 days", "2017-01 to 2017-06"])),
    }
