"""Small bundles and requests for the tests of serving: random weights, real arithmetic."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs.signal_table import SignalTable
from features.spec import FEATURE_NAMES, fingerprint
from policies.bundle import BundleMeta, PolicyBundle
from policies.hybrid import Network
from policies.support import Support
from serving.schemas import SIZING_EXAMPLE
from signals.fields import VolatilityRanks
from signals.outcome_model import OutcomeModel
from tests.synthetic_signals import table

COSTS = {"fee_bps": 0.5, "spread_bps": 1.0, "slippage_bps": 0.5, "impact_bps": 0.5}
HOUR = 3_600_000_000_000


def network(seed: int, favourite: int | None = None) -> Network:
    """12-16-6 at random; with `favourite`, that tier is the best everywhere, then its neighbours."""
    random = np.random.default_rng(seed)
    bias = random.normal(size=6).astype(np.float32)
    if favourite is not None:
        bias -= 1000.0 * np.abs(np.arange(6) - favourite).astype(np.float32)
    return Network(
        mean=np.zeros(12, dtype=np.float32),
        scale=np.ones(12, dtype=np.float32),
        weights=(
            random.normal(size=(16, 12)).astype(np.float32),
            random.normal(size=(6, 16)).astype(np.float32),
        ),
        biases=(random.normal(size=16).astype(np.float32), bias),
    )


def outcome_model(seed: int = 0) -> OutcomeModel:
    """Fitted on 400 random trades with a little skill in them."""
    random = np.random.default_rng(seed)
    fields = random.uniform(-1.0, 1.0, size=(400, 6))
    r = np.where(random.random(400) < 0.4 + 0.2 * fields[:, 2], 2.0, -1.0) + random.normal(0.0, 0.1, size=400)
    time = np.arange(400) * 24 * HOUR
    return OutcomeModel.fit(fields, r, time, time + HOUR)


def fine_network(seed: int, always: float | None = None) -> Network:
    """12-16-1 at random; with `always`, that action everywhere."""
    random = np.random.default_rng(seed + 1_000)
    weight, bias = 0.1 * random.normal(size=(1, 16)), random.normal(size=1)
    if always is not None:
        weight, bias = np.zeros((1, 16)), np.array([always])
    return Network(
        mean=np.zeros(12, dtype=np.float32),
        scale=np.ones(12, dtype=np.float32),
        weights=(random.normal(size=(16, 12)).astype(np.float32), weight.astype(np.float32)),
        biases=(random.normal(size=16).astype(np.float32), bias.astype(np.float32)),
    )


FINE_TUNE = {
    "band": 0.15,
    "served": True,
    "mean_difference": 0.01,
    "lower_bound": 0.001,
    "signals": 400,
    "days": 90,
}


def fine_tuned_bundle(
    seed: int = 0, favourite: int | None = None, always: float | None = None, **changed: Any
) -> PolicyBundle:
    """`bundle` whose tiers are fine-tuned by `fine_network`."""
    changed = {"algo": "dqn+ppo", "fine_tune": FINE_TUNE} | changed
    return bundle(seed, favourite, fine_tune_network=fine_network(seed, always), **changed)


def bundle(
    seed: int = 0,
    favourite: int | None = None,
    algo: str = "dqn",
    fine_tune_network: Network | None = None,
    **changed: Any,
) -> PolicyBundle:
    """A bundle with golden vectors; `changed` replaces fields of its meta."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(200, len(FEATURE_NAMES)))
    atr_ratio = np.linspace(0.0005, 0.003, 101)
    meta: dict[str, Any] = {
        "algo": algo,
        "feature_fingerprint": fingerprint(),
        "rule": "donchian",
        "symbols": ("EURUSD",),
        "costs": COSTS,
        "base_risk": 0.01,
        "k": 8.0,
        "k_from": "a test",
        "session_days": 28.0,
        "prior_win_rate": 0.4,
        "volatility_median": {"*": 0.0015, "EURUSD": 0.0012},
        "training_limits": {},
        "training": {"seed": seed},
        "calibration": {},
    }
    plain = PolicyBundle(
        meta=BundleMeta(**(meta | changed)),
        outcome_model=outcome_model(seed),
        ranks=VolatilityRanks({"*": atr_ratio, "EURUSD": atr_ratio / 2}),
        support=Support.fit(features),
        network=None if algo == "plugin" else network(seed, favourite),
        golden={},
        fine_tune=fine_tune_network,
    )
    signals: SignalTable = table(80, seed)
    return plain.with_golden(signals, random.uniform(-1.0, 1.0, size=(80, 6)))


def saved(home: Path, seed: int = 0, favourite: int | None = None) -> Path:
    """The folder of a bundle saved below `home`."""
    root = home / "bundles"
    return root / bundle(seed, favourite).save(root)


def request(**changed: Any) -> dict[str, Any]:
    """The example request with `changed` merged in, dicts into dicts."""
    return _merged(copy.deepcopy(SIZING_EXAMPLE), changed)


def _merged(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in new.items():
        inner = old.get(name)
        old[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return old


def bar_rows(count: int, seed: int = 0, last: int = 1_767_621_600) -> list[dict[str, Any]]:
    """Hourly bars around 1.1, as JSON, the last one at `last` (seconds; 2026-01-05T14:00Z)."""
    random = np.random.default_rng(seed)
    close = 1.1 * np.exp(np.cumsum(random.normal(0.0, 0.001, size=count)))
    opened = np.concatenate([[1.1], close[:-1]])
    spread = np.abs(random.normal(0.0, 0.0005, size=count))
    stamps = np.datetime64(last, "s") - np.arange(count)[::-1] * np.timedelta64(1, "h")
    return [
        {
            "timestamp": f"{stamps[i]}Z",
            "open": float(opened[i]),
            "high": float(max(opened[i], close[i]) * (1.0 + spread[i])),
            "low": float(min(opened[i], close[i]) * (1.0 - spread[i])),
            "close": float(close[i]),
            "volume": 100.0 + i,
        }
        for i in range(count)
    ]
