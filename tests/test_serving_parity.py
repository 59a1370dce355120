"""What is answered over HTTP is what a trading loop gets in its own process, to the last bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.spec import FEATURE_NAMES, FEATURES
from narratives.narrator import Narrator
from policies.bundle import PolicyBundle
from serving.limits_file import LimitsFolder
from serving.narrative_desk import NarrativeDesk
from serving.narrative_service import narrative_api
from serving.position_sizer import NO_MODEL, PositionSizer
from serving.schemas import SizingRequest, bars_of
from serving.sizing_desk import SizingDesk
from serving.sizing_service import sizing_api
from tests.serving_bundles import bar_rows, bundle, fine_tuned_bundle, request
from tests.serving_client import ask

COUNT = 40


def requests(seed: int) -> list[dict[str, Any]]:
    """Requests of every kind: long and short, features and bars, near and beyond what limits allow."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(COUNT):
        side = 1.0 if random.random() < 0.5 else -1.0
        price = float(np.exp(random.normal(0.0, 2.0)))
        width = price * float(random.uniform(0.001, 0.2))
        features = {
            feature.name: float(
                np.clip(random.normal(0.0, 3.0 if number % 4 == 0 else 0.5), feature.low, feature.high)
            )
            for feature in FEATURES
        }
        signal = {
            "symbol": ["EURUSD", "GOOGL"][number % 2],
            "side": "long" if side > 0 else "short",
            "price": price,
            "stop": price - side * width,
            "take_profit": price + side * width * float(random.uniform(0.5, 4.0)),
            "entry": price * float(random.uniform(0.99, 1.01)) if number % 3 else None,
            "confidence": float(random.random()) if number % 3 == 1 else None,
        }
        signal["take_profit"] = max(signal["take_profit"], 1e-9)
        equity = float(random.uniform(1e3, 1e6))
        account = {
            "equity": equity,
            "peak_equity": equity * float(random.uniform(0.9, 1.3)),
            "open_risk_pct": float(random.choice([0.0, 0.01, 0.05, 0.0599999, 0.2])),
            "daily_risk_used_pct": float(random.choice([0.0, 0.02, 0.045])),
            "open_trades": int(random.integers(0, 40)),
            "win_rate_recent": float(random.random()) if number % 2 else None,
        }
        bars = bar_rows(120, seed=number) if number % 10 == 9 else None
        market = {"features": None, "bars": bars} if bars else {"features": features}
        limits = {"max_exposure": 0.03} if number % 5 == 0 else None
        made.append(request(signal=signal, account=account, market=market, limits=limits))
    return made


BUNDLES = [None, bundle(5), bundle(2, algo="plugin"), fine_tuned_bundle(7)]


@pytest.mark.parametrize("served", BUNDLES, ids=["rule", "dqn", "plugin", "fine-tuned"])
def test_sizes_over_http_are_those_of_the_position_sizer(home: Path, served: PolicyBundle | None) -> None:
    desk = SizingDesk()
    digest = None if served is None else served.save(home / "bundles")
    folder = None if digest is None else str(home / "bundles" / digest)
    desk.deploy({"home": str(home), "bundle": folder, "digest": digest, "status": "STAGING"})
    assert desk.refused is None
    sizer = PositionSizer(served, NO_MODEL if served is None else "STAGING", digest)
    api, limits, bodies = sizing_api(desk), LimitsFolder(home).of("default"), requests(1)
    batch = ask(api, "POST", "/batch", json={"requests": bodies}).json()["answers"]
    for body, of_batch in zip(bodies, batch, strict=True):
        answer = ask(api, "POST", "/", json=body)
        assert answer.status_code == 200, answer.text
        asked = SizingRequest.model_validate(body)
        row = asked.market.feature_row()
        _, multiplier, details = sizer.get_sizing_recommendation(
            asked.signal,
            bars_of(asked.signal.symbol, asked.market.bars or []) if row is None else row,
            asked.account.account(),
            limits,
            tighter=asked.limits,
            win_rate_recent=asked.account.win_rate_recent,
        )
        said = answer.json()
        assert said.pop("decision_id") != of_batch.pop("decision_id")
        # As text: equal floats could still be written otherwise, and True equals 1.
        assert json.dumps(said) == json.dumps(of_batch) == json.dumps(details)
        assert said["multiplier"] == multiplier
    assert len({one["multiplier"] for one in batch}) > 1
    assert len({one["binding_rule"] for one in batch}) > 2


def test_narratives_over_http_are_those_of_the_narrator(home: Path) -> None:
    sizing, telling, narrator = SizingDesk(), NarrativeDesk(), Narrator()
    for desk in (sizing, telling):
        desk.deploy({"home": str(home)})
    api = narrative_api(telling)
    told = set()
    for body in requests(2)[:12]:
        size = sizing.decide(SizingRequest.model_validate(body))
        contexts = dict.fromkeys(("trade_rationale", "risk_assessment"), size)
        if body["market"]["features"] is not None:
            features = {name: body["market"]["features"][name] for name in FEATURE_NAMES}
            contexts["market_narrative"] = {"symbol": size["symbol"], "features": features}
        for kind, context in contexts.items():
            here = getattr(narrator, f"generate_{kind}")(context).model_dump(mode="json")
            for asked in ({"decision_id": size["decision_id"]}, {"context": context}):
                answer = ask(api, "POST", "/", json={"kind": kind, **asked})
                assert answer.status_code == 200, answer.text
                assert answer.json() == {"decision_id": asked.get("decision_id"), **here}
            told.add(here["text"])
    assert len(told) > 12
    period = {"trades": 3, "win_rate": 1 / 3, "mean_r": 0.1, "total_r": 0.3, "max_drawdown": 0.02}
    context = {**period, "average_multiplier": 1.0, "period": "May"}
    here = narrator.generate_performance_summary(context).model_dump(mode="json")
    body = {"kind": "performance_summary", "context": context}
    assert ask(api, "POST", "/", json=body).json() == {"decision_id": None, **here}
