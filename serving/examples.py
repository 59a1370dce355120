"""What the applications answer to the examples of their documents, as recorded with no model served.

Knows nothing of the models in serving/answers.py but their names. A test asks again.
"""

from typing import Any, Final

Example = dict[str, Any]

SIZE: Final[Example] = {
    "decision_id": "2f6c1d0e-6b0e-4a3c-9f55-0a2f6a0f3f11",
    "symbol": "EURUSD",
    "side": "long",
    "action": "STANDARD",
    "multiplier": 1.0,
    "proposed_multiplier": None,
    "rule_tier": "STANDARD",
    "rule_cap": 1.5,
    "binding_rule": "none",
    "source": "rule",
    "propensity": 1.0,
    "model_status": "no model is served",
    "model_fault": None,
    "base_risk": 0.01,
    "risk_fraction": 0.01,
    "observation": {
        "trend_strength": 0.4099999964237213,
        "volatility_regime": None,
        "momentum_score": 0.7162978649139404,
        "signal_confidence": None,
        "entry_quality": 0.37707391381263733,
        "risk_reward_ratio": 7.416289804496046e-14,
        "current_exposure_pct": 0.1666666716337204,
        "win_rate_recent": None,
        "drawdown_pct": 0.19230769574642181,
        "max_position_pct": 1.0,
        "remaining_daily_risk": 0.800000011920929,
        "session_left": None,
    },
    "ladder": [
        {"action": action, "size": size, "value": None, "legal": True, "blocked_by": None}
        for action, size in (
            ("SKIP", 0.0),
            ("MICRO", 0.25),
            ("SMALL", 0.5),
            ("STANDARD", 1.0),
            ("MODERATE", 1.25),
            ("AGGRESSIVE", 1.5),
        )
    ],
    "bundle": None,
    "limits_source": "built-in defaults",
    "limits_digest": "c2c97a5ba077cae4f84a080a4f1a1cdf134c469fe255f5edcc97c7e5c61dd97b",
    "out_of_distribution": None,
    "expected_utility": None,
}
RESERVATION: Final[Example] = {
    "key": "EURUSD-1",
    "state": "committed",
    "risk": 0.01,
    "exposure": 0.01,
    "expires": "2026-01-05T14:01:00+00:00",
}
OUTCOME: Final[Example] = {
    "outcome_id": "outcome-80635ff335317105a360ee12c85d7a1db76a7c8461076e2c52b0e65094986def",
    "decision_id": "2f6c1d0e-6b0e-4a3c-9f55-0a2f6a0f3f11",
    "signal_id": "019b8e752300-80635ff335317105a360ee12c85d7a1db76a7c8461076e2c52b0e65094986def",
    "reservation": {**RESERVATION, "state": "settled"},
}
FEATURES: Final[Example] = {
    "symbol": "EURUSD",
    "timestamp": "2026-01-05T04:00:00+00:00",
    "features": {
        "mom_5": -0.3682296682446876,
        "mom_10": -0.5207080710093904,
        "mom_20": -0.09206160034832933,
        "mom_50": 0.058230160876341364,
        "ret_1": 9.089669596767778e-05,
        "ret_2": 9.090495892809713e-05,
        "ret_3": -0.0005453058391964525,
        "ret_4": 9.086365914205687e-05,
        "ret_5": 9.087191609687238e-05,
        "atr_ratio": 0.0029080564382463693,
        "bb_position": 0.37801249088143335,
        "bb_width": 0.0007450295930897732,
        "range_position": 0.35294117647060747,
        "vol_ratio_5_20": 0.9985141158989599,
        "vol_trend": 0.000182476994864576,
        "vol_spike": 0.062136976600120006,
        "higher_highs": 0.0,
        "lower_lows": 0.5,
        "swing_position": 0.5,
        "rsi_norm": -0.036797327929023176,
        "rsi_slope": -0.043202350339056284,
        "macd_norm": -0.005937053956084734,
        "macd_hist": -0.005166753147480924,
        "adx_norm": 1.0,
        "adx_direction": 1.0,
        "hour_sin": 0.8660254037844386,
        "hour_cos": 0.5000000000000001,
        "day_of_week": 0.0,
        "trend_strength": 0.02857142857142857,
        "choppiness": 0.9778727935032502,
        "mean_reversion": 0.6422446651566391,
    },
    "bars_seen": 101,
    "fingerprint": "2241ca651761f6498e7223491bcf2ae554fb4daf51f7302f32b1367ada15fee8",
}
STREAM: Final[Example] = {
    "stream_id": "EURUSD-1h",
    "symbol": "EURUSD",
    "timestamp": "2026-01-01T01:00:00+00:00",
    "features": None,
    "bars_seen": 2,
    "fingerprint": "2241ca651761f6498e7223491bcf2ae554fb4daf51f7302f32b1367ada15fee8",
    "bars_needed": 99,
}
NARRATIVE: Final[Example] = {
    "decision_id": None,
    "text": (
        "Results for all symbols (this week): 12 trades were closed, 50% of them at a profit. The result was "
        "+1.2 R in total, +0.1 R a trade on average. The average size was 0.8x, and the largest drawdown was "
        "3% of equity."
    ),
    "kind": "performance_summary",
    "facts": {
        "kind": "performance_summary",
        "facts": [
            {"name": "subject", "value": "all symbols", "unit": "text", "display": "all symbols"},
            {"name": "period", "value": "this week", "unit": "text", "display": "this week"},
            {"name": "trades", "value": 12, "unit": "trades", "display": "12 trades"},
            {"name": "win_rate", "value": 0.5, "unit": "share of trades", "display": "50%"},
            {"name": "mean_r", "value": 0.1, "unit": "R", "display": "+0.1 R"},
            {"name": "total_r", "value": 1.2, "unit": "R", "display": "+1.2 R"},
            {"name": "max_drawdown", "value": 0.03, "unit": "fraction of equity", "display": "3%"},
            {
                "name": "average_multiplier",
                "value": 0.8,
                "unit": "multiple of the base position",
                "display": "0.8x",
            },
        ],
        "reasons": [],
    },
    "writer": "template",
}
MODEL: Final[Example] = {
    "version": 3,
    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "status": "PRODUCTION",
    "created": "2026-01-03T09:30:00Z",
    "tags": {"algo": "dqn"},
    "metrics": {"vs_rule.mean": 0.012},
    "aliases": ["production"],
    "evidence": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
    "override": None,
    "lineage": None,
}
HEALTH: Final[Example] = {"status": "ok", "refused": None}
NARRATIVES_HEALTH: Final[Example] = {
    **HEALTH,
    "replica": "narratives-27079b47a43045e5845f3e202d4c840c",
    "writer": "template",
    "fallbacks": {},
}
FEATURES_HEALTH: Final[Example] = {
    **HEALTH,
    "replica": "features-fb6750c8134b4f55899cbf73202e2efe",
    "fingerprint": FEATURES["fingerprint"],
}
SIZING_HEALTH: Final[Example] = {
    **HEALTH,
    "replica": "sizing-5918f32aa96046aabd0e7335597d5e5e",
    "model_status": "no model is served",
    "bundle": None,
    "challenger": None,
    "challenger_refused": None,
}
REFUSAL: Final[Example] = {
    "error": {
        "field": "signal.stop",
        "value": 1.2,
        "mend": "give a stop below the price 1.105 of a long signal",
    }
}
ANSWERS: Final[dict[str, Example]] = {
    "SizingAnswer": SIZE,
    "BatchAnswer": {"answers": [SIZE]},
    "ReservationAnswer": RESERVATION,
    "OutcomeAnswer": OUTCOME,
    "FeaturesAnswer": FEATURES,
    "StreamAnswer": STREAM,
    "NarrativeAnswer": NARRATIVE,
    "ModelAnswer": MODEL,
    "NarrativesHealth": NARRATIVES_HEALTH,
    "FeaturesHealth": FEATURES_HEALTH,
    "SizingHealth": SIZING_HEALTH,
    "RefusalAnswer": REFUSAL,
}
