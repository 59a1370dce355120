"""A seeded signal stream for tests: overlapping trades of three symbols, with a true outcome model."""

from typing import Any

import numpy as np

from envs.signal_table import SignalTable, signal_table

HOUR = 3_600_000_000_000
START = 365 * 28 * 3 * 24 * HOUR  # review windows of 3, 28 and 365 days all begin here
OUTCOME_R = np.array([-1.0, 0.2, 2.0])


def stream(signals: int, seed: int = 0, edge: float = 1.0, **changed: Any) -> dict[str, Any]:
    """Arguments for `signal_table`; `edge` scales how much p varies, `changed` replaces arguments."""
    random = np.random.default_rng(seed)
    fields = random.uniform(-1.0, 1.0, size=(signals, 6))
    fields[:, [0, 1, 3]] = np.abs(fields[:, [0, 1, 3]])
    score = edge * (fields[:, 0] - 0.5 + 0.6 * fields[:, 2])
    logits = np.stack([0.35 - score, np.full(signals, -0.9), -0.35 + score], axis=1)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    outcome = np.array([random.choice(3, p=row) for row in probability])
    time = START + np.cumsum(random.integers(0, 20, size=signals)) * HOUR
    arguments: dict[str, Any] = {
        "time": time,
        "exit_time": time + random.integers(1, 72, size=signals) * HOUR,
        "symbol": random.integers(0, 3, size=signals).astype(np.int32),
        "signal_fields": fields,
        "gross_r": OUTCOME_R[outcome] + random.normal(0.0, 0.05, size=signals),
        "cost_r": random.uniform(0.01, 0.06, size=signals),
        "impact_r": random.uniform(0.0, 0.04, size=signals),
        "probability": probability,
        "outcome_r": OUTCOME_R.copy(),
        "volatility_ratio": np.exp(random.normal(0.0, 0.4, size=signals)),
        "out_of_distribution": random.random(signals) < 0.02,
        "k": 8.0,
        "base_risk": 0.01,
        "prior_win_rate": 0.4,
    }
    return arguments | changed


def table(signals: int, seed: int = 0, edge: float = 1.0, **changed: Any) -> SignalTable:
    """The signal table of `stream`."""
    return signal_table(**stream(signals, seed, edge, **changed))
