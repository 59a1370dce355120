"""Sizes held in the risk budget before they are answered: never more than there is, whoever asks at once."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from envs.guardrails import Account, Limits
from journal.budget import RiskBudget
from journal.records import DecisionRecord, ReserveRecord, SignalRecord, signal_id_of
from serving import again
from serving import sizing_desk as desks
from serving.answers import BatchAnswer, ReservationAnswer, SizingAnswer
from serving.reservations import entered, held
from serving.schemas import Reserve
from serving.sizing_service import sizing_api
from tests.serving_bundles import fine_tuned_bundle, request, saved
from tests.serving_client import ask
from tests.test_serving_outcome_report import REPORT
from tests.test_serving_services import journal, sizing_desk

LIMITS = Limits()  # 5 % a day, 6 % open
FLAT = {"open_risk_pct": 0.0, "daily_risk_used_pct": 0.0, "open_trades": 0}


def reserving(key: str, *, seconds: float = 60.0, **changed: Any) -> dict[str, Any]:
    """The example for an account that says it has nothing open, to be reserved under `key`."""
    changed["account"] = FLAT | changed.get("account", {})
    return request(reserve={"key": key, "seconds": seconds}, **changed)


@pytest.fixture
def budget(home: Path) -> Iterator[RiskBudget]:
    with closing(RiskBudget(f"sqlite:///{home}/budget/budget.db")) as budget:
        yield budget


@pytest.fixture
def api(home: Path) -> FastAPI:
    return sizing_api(sizing_desk(home, saved(home, favourite=5)))  # always wants 1.5x, 1.5 % of equity


def used(budget: RiskBudget, account: str = "default") -> tuple[float, float]:
    found = budget.used(account)
    return float(found.daily_risk), float(found.exposure)


def test_the_size_that_is_answered_is_reserved(api: FastAPI, budget: RiskBudget) -> None:
    answer = ask(api, "POST", "/", json=reserving("EURUSD-1"))
    assert answer.status_code == 200, answer.text
    size = SizingAnswer.model_validate(answer.json())
    assert size.reservation is not None
    assert (size.multiplier, size.reservation.risk, size.reservation.exposure) == (1.5, 0.015, 0.015)
    assert (size.reservation.key, size.reservation.state) == ("EURUSD-1", "reserved")
    assert used(budget) == (0.015, 0.015)
    assert "reservation" not in ask(api, "POST", "/", json=request()).json()


def test_the_size_is_lowered_to_what_is_left_and_the_rule_named(api: FastAPI, budget: RiskBudget) -> None:
    budget.reserve("default", "earlier", risk=0.0425, exposure=0.01, limits=LIMITS)
    size = ask(api, "POST", "/", json=reserving("EURUSD-1")).json()
    assert (size["multiplier"], size["rule_cap"], size["binding_rule"]) == (0.5, 0.75, "max_daily_risk")
    assert size["proposed_multiplier"] == 1.5
    assert used(budget) == (0.0475, 0.015)
    budget.commit("earlier")
    nothing = ask(api, "POST", "/", json=reserving("EURUSD-2", limits={"max_exposure": 0.0175})).json()
    assert (nothing["multiplier"], nothing["reservation"]["exposure"]) == (0.25, 0.0025)
    nothing = ask(api, "POST", "/", json=reserving("EURUSD-3")).json()
    assert (nothing["action"], nothing["reservation"]) == ("SKIP", None)
    assert used(budget) == (0.05, 0.0175)


def test_what_the_account_says_counts_where_it_is_more(api: FastAPI, budget: RiskBudget) -> None:
    budget.reserve("default", "earlier", risk=0.01, exposure=0.01, limits=LIMITS)
    size = ask(api, "POST", "/", json=reserving("EURUSD-1", account={"daily_risk_used_pct": 0.045})).json()
    assert (size["multiplier"], size["binding_rule"]) == (0.5, "max_daily_risk")
    use = ReserveRecord(key="k", seconds=1.0, daily_risk=0.02, exposure=0.01)
    assert entered(Account(1.0, 1.0, 0.03, 0.01, 2), use) == Account(1.0, 1.0, 0.03, 0.02, 2)


def test_one_key_is_answered_and_spent_once(api: FastAPI, home: Path, budget: RiskBudget) -> None:
    body = reserving("EURUSD-1")
    first = ask(api, "POST", "/", json=body).json()
    other_replica = sizing_api(sizing_desk(home, saved(home, 1, favourite=1)))
    assert ask(api, "POST", "/", json=body).json() == first
    assert ask(other_replica, "POST", "/", json=body).json() == first
    assert used(budget) == (0.015, 0.015)
    assert len(list(journal(home).read("decision"))) == 1


def test_a_key_that_an_earlier_version_answered_is_answered_again(
    api: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(desks, "signal_id_of", lambda time, text: signal_id_of(time, text)[-64:])
        first = ask(api, "POST", "/", json=reserving("EURUSD-1")).json()
    assert ask(api, "POST", "/", json=reserving("EURUSD-1")).json() == first
    other = ask(api, "POST", "/", json=reserving("EURUSD-1", signal={"price": 1.106}))
    assert other.status_code == 409


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"signal": {"price": 1.106}}, "signal"),
        ({"account": {"equity": 90_000.0}}, "account"),
        ({"account_id": "other"}, "account_id"),
        ({"limits": {"rule_cap": 1.0}}, "limits"),
        ({"seconds": 30.0}, "reserve.seconds"),
    ],
)
def test_a_key_names_one_request(api: FastAPI, changed: dict[str, Any], named: str) -> None:
    ask(api, "POST", "/", json=reserving("EURUSD-1"))
    answer = ask(api, "POST", "/", json=reserving("EURUSD-1", **changed))
    assert answer.status_code == 409
    assert answer.json()["error"] == {
        "field": "reserve.key",
        "value": "EURUSD-1",
        "mend": f"it names a request of another {named}",
    }


def test_a_reservation_whose_answer_was_never_given_is_taken_up(api: FastAPI, budget: RiskBudget) -> None:
    budget.reserve("default", "EURUSD-1", risk=0.0125, exposure=0.0125, limits=LIMITS)
    budget.reserve("default", "others", risk=0.0375, exposure=0.0375, limits=LIMITS)  # nothing else is left
    size = ask(api, "POST", "/", json=reserving("EURUSD-1")).json()
    assert (size["multiplier"], size["reservation"]["risk"]) == (1.25, 0.0125)
    assert used(budget) == (0.05, 0.05)


def test_what_holds_less_than_is_wanted_now_bounds_the_size(api: FastAPI, budget: RiskBudget) -> None:
    budget.reserve("default", "EURUSD-1", risk=0.005, exposure=0.005, limits=LIMITS)
    size = ask(api, "POST", "/", json=reserving("EURUSD-1")).json()
    assert (size["multiplier"], size["reservation"]["risk"]) == (0.5, 0.005)
    assert used(budget) == (0.005, 0.005)


def test_a_request_that_is_made_again_is_sized_as_if_it_had_been_answered(
    home: Path, budget: RiskBudget
) -> None:
    """What the unanswered attempt holds is no reason to hold back: a model that looks at it would."""
    api = sizing_api(sizing_desk(home, saved(home, seed=3)))
    for number in range(4):
        plain = ask(api, "POST", "/", json=reserving(f"a-{number}", account_id="a")).json()
        risk = plain["risk_fraction"]
        if risk:
            budget.reserve("b", f"b-{number}", risk=risk, exposure=risk, limits=LIMITS)
        again = ask(api, "POST", "/", json=reserving(f"b-{number}", account_id="b")).json()
        assert [again[name] for name in ("multiplier", "observation", "binding_rule")] == [
            plain[name] for name in ("multiplier", "observation", "binding_rule")
        ]
    assert used(budget, "a") == used(budget, "b") > (0.0, 0.0)


def test_what_an_unanswered_attempt_held_goes_back_where_the_next_is_answered_with_nothing(
    home: Path, budget: RiskBudget
) -> None:
    skips = sizing_api(sizing_desk(home, saved(home, favourite=0)))
    budget.reserve("default", "EURUSD-1", risk=0.0125, exposure=0.0125, limits=LIMITS)
    for _ in range(2):
        size = ask(skips, "POST", "/", json=reserving("EURUSD-1")).json()
        assert (size["action"], size["reservation"]) == ("SKIP", None)
        found = budget.find("EURUSD-1")
        assert found is not None
        assert (found.state, used(budget)) == ("released", (0.0, 0.0))


def test_a_reservation_that_is_gone_is_not_answered_again(api: FastAPI, budget: RiskBudget) -> None:
    for key, gone in (("EURUSD-1", "released"), ("EURUSD-2", "expired")):
        body = reserving(key, seconds=0.2 if gone == "expired" else 60.0)
        decision = ask(api, "POST", "/", json=body).json()["decision_id"]
        if gone == "released":
            assert ask(api, "POST", f"/{decision}/reservation/release").status_code == 200
        while budget.find(key).state == "reserved":  # type: ignore[union-attr]
            time.sleep(0.02)
        answer = ask(api, "POST", "/", json=body)
        assert (answer.status_code, answer.json()["error"]["field"]) == (409, "reserve.key")
        assert gone in answer.json()["error"]["mend"]
        answer = ask(api, "POST", f"/{decision}/reservation/commit")
        assert (answer.status_code, answer.json()["error"]["field"]) == (409, "reserve.key")
        assert used(budget) == (0.0, 0.0)


def test_a_trade_is_committed_then_settled_by_its_outcome(api: FastAPI, budget: RiskBudget) -> None:
    decision = ask(api, "POST", "/", json=reserving("EURUSD-1")).json()["decision_id"]
    for _ in range(2):
        held_ = ask(api, "POST", f"/sizing/{decision}/reservation/commit", root="/sizing")
        assert ReservationAnswer.model_validate(held_.json()).state == "committed"
    assert used(budget) == (0.015, 0.015)
    for _ in range(2):
        answer = ask(api, "POST", f"/{decision}/outcome", json=REPORT)
        assert answer.json()["reservation"]["state"] == "settled"
    assert used(budget) == (0.015, 0.0)


def test_an_outcome_releases_what_never_became_a_trade(api: FastAPI, budget: RiskBudget) -> None:
    decision = ask(api, "POST", "/", json=reserving("EURUSD-1")).json()["decision_id"]
    answer = ask(api, "POST", f"/{decision}/outcome", json=REPORT)
    assert answer.json()["reservation"]["state"] == "released"
    assert used(budget) == (0.0, 0.0)


def test_a_decision_without_a_reservation_has_none_to_commit(api: FastAPI) -> None:
    decision = ask(api, "POST", "/", json=request()).json()["decision_id"]
    answer = ask(api, "POST", f"/{decision}/reservation/commit")
    assert (answer.status_code, answer.json()["error"]["field"]) == (404, "decision_id")
    assert ask(api, "POST", f"/{decision}/reservation/spend").status_code == 422


@pytest.mark.parametrize("fine_tuned", [False, True])
def test_many_clients_never_get_more_than_the_budget(
    home: Path, budget: RiskBudget, fine_tuned: bool
) -> None:
    root = home / "bundles"
    folder = root / fine_tuned_bundle(0, favourite=5).save(root) if fine_tuned else saved(home, favourite=5)
    apis = [sizing_api(sizing_desk(home, folder)) for _ in range(2)]
    # Thirteen decimals: what the limits leave is no whole number of the budget's grains.
    limits = {"max_daily_risk": 0.0456789012345, "max_exposure": 0.0456789012346}

    def client(number: int) -> Decimal:
        size = ask(apis[number % 2], "POST", "/", json=reserving(f"trade-{number}", limits=limits))
        assert size.status_code == 200, size.text
        made = size.json()["reservation"]
        assert (made is None) == (size.json()["multiplier"] == 0.0)
        if made is None:
            return Decimal(0)
        assert size.json()["risk_fraction"] <= made["risk"] < size.json()["risk_fraction"] + 2e-12
        committed = ask(apis[1], "POST", f"/{size.json()['decision_id']}/reservation/commit")
        assert committed.json()["state"] == "committed"
        return Decimal(repr(made["risk"]))

    with ThreadPoolExecutor(12) as pool:
        granted = sum(pool.map(client, range(36)), Decimal(0))
    assert budget.used("default")[1:] == (granted, granted)
    assert Decimal("0.0431") < granted <= Decimal("0.0456789012345")
    assert journal(home).verify() == []


def test_one_key_from_many_clients_at_once_is_one_decision(home: Path, budget: RiskBudget) -> None:
    apis = [sizing_api(sizing_desk(home, saved(home, favourite=5))) for _ in range(2)]
    for turn in range(3):
        body = reserving(f"EURUSD-{turn}")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i, body=body: ask(apis[i % 2], "POST", "/", json=body), range(8)))
        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
        assert all(answer.json() == answers[0].json() for answer in answers)
        assert used(budget) == ((turn + 1) * 0.015, (turn + 1) * 0.015)
    assert len(list(journal(home).read("decision"))) == 3


def test_a_batch_reserves_in_its_order(api: FastAPI, budget: RiskBudget) -> None:
    body = {"requests": [reserving(f"trade-{i}", signal={"confidence": i / 10}) for i in range(5)]}
    answer = ask(api, "POST", "/batch", json=body)
    sizes = BatchAnswer.model_validate(answer.json()).answers
    assert [size.multiplier for size in sizes] == [1.5, 1.5, 1.5, 0.5, 0.0]
    assert used(budget) == (0.05, 0.05)
    assert ask(api, "POST", "/batch", json=body).json() == answer.json()
    body["requests"][4] = reserving("trade-0")
    refused = ask(api, "POST", "/batch", json=body)
    assert (refused.status_code, refused.json()["error"]["value"]) == (422, "trade-0")
    body = {"requests": [reserving("trade-9"), reserving("trade-0", account_id="other")]}
    refused = ask(api, "POST", "/batch", json=body)
    assert (refused.status_code, refused.json()["error"]["field"]) == (409, "requests.1.reserve.key")


def test_a_reserved_decision_comes_out_of_the_journal_again(
    api: FastAPI, home: Path, budget: RiskBudget
) -> None:
    budget.reserve("default", "earlier", risk=0.0425, exposure=0.01, limits=LIMITS)
    answer = ask(api, "POST", "/", json=reserving("EURUSD-1")).json()
    decision = DecisionRecord.of(journal(home).get(answer["decision_id"]))
    signal = SignalRecord.of(journal(home).get(decision.signal_id))
    details = again.request(home / "bundles", signal, decision).size()
    assert answer == {**details, "decision_id": answer["decision_id"], "reservation": answer["reservation"]}
    assert (decision.account.daily_risk_used_pct, decision.reserve.daily_risk) == (0.0, 0.0425)  # type: ignore[union-attr]


def test_without_a_budget_there_is_no_size(api: FastAPI, home: Path) -> None:
    (home / "budget").write_text("in the way")
    answer = ask(api, "POST", "/", json=reserving("EURUSD-1"))
    assert (answer.status_code, answer.json()["error"]["field"]) == (503, "budget")
    assert "multiplier" not in answer.text
    assert ask(api, "POST", "/", json=request()).status_code == 200


def test_unusable_limits_reserve_nothing(api: FastAPI, home: Path) -> None:
    (home / "limits").mkdir()
    (home / "limits" / "default.json").write_text("{")
    answer = ask(api, "POST", "/", json=reserving("EURUSD-1")).json()
    assert (answer["multiplier"], answer["reservation"]) == (0.0, None)


def test_one_that_is_quicker_leaves_less(budget: RiskBudget) -> None:
    seen = []

    def size(use: ReserveRecord) -> dict[str, Any]:
        seen.append(use.daily_risk)
        if len(seen) == 1:
            budget.reserve("desk", "quicker", risk=0.04, exposure=0.04, limits=LIMITS)
        return {"risk_fraction": min(0.02, round(0.05 - use.daily_risk, 12))}

    found = held(budget, "desk", Reserve(key="slower"), LIMITS, size)
    assert seen == [0.0, 0.04]
    assert found.reservation is not None
    assert found.reservation.risk == Decimal("0.01")


@pytest.mark.parametrize(
    "reserve", [{"key": ""}, {"key": "two words"}, {"key": "a" * 129}, {"key": "a", "seconds": 0.0}]
)
def test_a_reserve_that_cannot_be_is_refused(api: FastAPI, reserve: dict[str, Any]) -> None:
    answer = ask(api, "POST", "/", json=request(reserve=reserve))
    assert answer.status_code == 422
    assert answer.json()["error"]["field"].startswith("reserve.")
