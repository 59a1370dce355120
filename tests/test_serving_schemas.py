"""What a request may hold."""

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from features.spec import FEATURE_NAMES
from market.errors import DataError
from serving.schemas import (
    MOST_BARS,
    SIZING_EXAMPLE,
    FeaturesRequest,
    NarrativeRequest,
    SizingRequest,
    bars_of,
    nanoseconds,
)
from tests.serving_bundles import bar_rows, request


def refusal_of(body: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        SizingRequest.model_validate(body)
    first = caught.value.errors()[0]
    cause = first.get("ctx", {}).get("error")
    return f"{'.'.join(map(str, first['loc']))}: {cause or first['msg']}"


def test_example_is_a_valid_request() -> None:
    asked = SizingRequest.model_validate(json.loads(json.dumps(SIZING_EXAMPLE)))
    assert asked.account_id == "default"
    assert asked.signal.direction == 1
    assert asked.signal.time == 1_767_621_600_000_000_000


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1.1", True, None, [1.1], 10**400])
@pytest.mark.parametrize(
    "place", [("signal", "price"), ("account", "equity"), ("market", "features", "mom_5")]
)
def test_numbers_are_finite_json_numbers(place: tuple[str, ...], value: object) -> None:
    body: Any = value
    for name in reversed(place):
        body = {name: body}
    assert ".".join(place) in refusal_of(request(**body))


@pytest.mark.parametrize("place", ["signal", "market", "account", "limits", None])
def test_unknown_fields_are_refused(place: str | None) -> None:
    changed = {"surprise": 1} if place is None else {place: {"surprise": 1}}
    assert "surprise" in refusal_of(request(**changed))


@pytest.mark.parametrize(
    ("side", "stop", "take_profit", "named"),
    [
        ("long", 1.2, 1.3, "stop: got 1.2; give a stop below"),
        ("long", 1.0, 1.1, "take_profit: got 1.1; give a take_profit above"),
        ("long", 1.105, 1.3, "stop: got 1.105"),
        ("short", 1.0, 1.05, "stop: got 1.0; give a stop above"),
        ("short", 1.2, 1.3, "take_profit: got 1.3; give a take_profit below"),
    ],
)
def test_stop_and_target_lie_on_their_sides(side: str, stop: float, take_profit: float, named: str) -> None:
    assert named in refusal_of(request(signal={"side": side, "stop": stop, "take_profit": take_profit}))


@pytest.mark.parametrize(
    "timestamp",
    ["2026-01-05T14:00:00", 1_767_621_600, "1600-01-01T00:00:00Z", "9000-01-01T00:00:00Z", "soon"],
)
def test_timestamp_is_text_with_a_zone_and_in_range(timestamp: object) -> None:
    assert "signal.timestamp" in refusal_of(request(signal={"timestamp": timestamp}))


def test_nanoseconds_are_exact_and_independent_of_the_zone() -> None:
    first = SizingRequest.model_validate(request(signal={"timestamp": "2026-01-05T14:00:00.123457Z"}))
    second = SizingRequest.model_validate(request(signal={"timestamp": "2026-01-05T16:00:00.123457+02:00"}))
    assert nanoseconds(first.signal.timestamp) == 1_767_621_600_123_457_000
    assert first.signal.time == second.signal.time


def test_market_is_features_or_bars_and_not_both() -> None:
    body = request()
    body["market"] = {}
    assert "give either features or bars" in refusal_of(body)
    body = request(market={"bars": bar_rows(101)})
    assert "give either features or bars" in refusal_of(body)


def test_features_are_exactly_the_31() -> None:
    body = request()
    del body["market"]["features"]["choppiness"]
    assert "market.features.choppiness" in refusal_of(body)
    asked = SizingRequest.model_validate(request(market={"features": {"mom_5": 2.5}}))
    row = asked.market.feature_row()
    assert row is not None
    assert row.shape == (len(FEATURE_NAMES),)
    assert row[FEATURE_NAMES.index("mom_5")] == 2.5


@pytest.mark.parametrize("count", [0, 1, 100])
def test_too_few_bars_are_refused(count: int) -> None:
    with pytest.raises(ValidationError, match="at least 101"):
        FeaturesRequest.model_validate({"bars": bar_rows(count) if count else []})


def test_too_many_bars_are_refused_before_they_are_read() -> None:
    with pytest.raises(ValidationError, match=f"at most {MOST_BARS}"):
        FeaturesRequest.model_validate({"bars": ["no bar"] * (MOST_BARS + 1)})


def test_bars_that_break_a_rule_name_row_column_and_value() -> None:
    rows = bar_rows(101)
    rows[7]["high"] = rows[7]["low"] / 2
    asked = FeaturesRequest.model_validate({"symbol": "eurusd", "bars": rows})
    with pytest.raises(DataError, match=r"EURUSD row 7.*high"):
        bars_of(asked.symbol, asked.bars)


@pytest.mark.parametrize("account_id", ["", "../other", "a/b", ".hidden", "a.json", "a" * 65, "a\n", "naïve"])
def test_account_id_can_not_become_a_path(account_id: str) -> None:
    assert refusal_of(request(account_id=account_id)).startswith("account_id")


@pytest.mark.parametrize("field", ["open_risk_pct", "daily_risk_used_pct", "win_rate_recent"])
def test_shares_in_percent_are_refused(field: str) -> None:
    assert f"account.{field}" in refusal_of(request(account={field: 2.0}))


@pytest.mark.parametrize(
    "limits", [{"base_risk": 0.001}, {"rule_cap": 2.0}, {"max_position": "0.01"}, {"allow_skip": False}]
)
def test_request_can_ask_for_tighter_limits_only(limits: dict[str, object]) -> None:
    assert refusal_of(request(limits=limits)).startswith("limits")


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "trade_rationale"},
        {"kind": "trade_rationale", "decision_id": "a", "context": {}},
        {"kind": "performance_summary", "decision_id": "a"},
        {"kind": "poem", "context": {}},
        {"kind": "trade_rationale", "decision_id": "a b"},
        {"kind": "market_narrative", "context": {str(i): i for i in range(65)}},
    ],
)
def test_narrative_request_is_a_decision_or_a_context(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NarrativeRequest.model_validate(body)
