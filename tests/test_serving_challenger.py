"""A challenger sizes every request, answers some days, and can never fail an answer."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cli.shadow
from evaluation.shadow import shadow_reports
from journal.records import DecisionRecord, ShadowRecord, shadow_id
from serving.challenger import Challenger
from serving.position_sizer import PositionSizer
from serving.schemas import Signal
from serving.sizing_desk import SizingDesk
from serving.sizing_service import sizing_api
from tests.serving_bundles import bundle, request, saved
from tests.serving_client import ask
from tests.test_serving_outcome_report import REPORT
from tests.test_serving_services import journal


def challenged(home: Path, folder: Path | None, challenger: Path | None, share: float = 0.0) -> SizingDesk:
    def named(path: Path | None, status: str) -> dict[str, Any]:
        return {"bundle": path and str(path), "digest": path and path.name, "status": status}

    desk = SizingDesk()
    against = named(challenger, "STAGING") | {"share": share}
    desk.deploy({"home": str(home), **named(folder, "PRODUCTION"), "challenger": against})
    assert desk.refused is None
    return desk


def sized(desk: SizingDesk, **changed: Any) -> tuple[dict[str, Any], DecisionRecord, ShadowRecord]:
    answer = ask(sizing_api(desk), "POST", "/", json=request(**changed))
    assert answer.status_code == 200, answer.text
    records = journal(desk.home)
    decision_id = answer.json()["decision_id"]
    return (
        answer.json(),
        DecisionRecord.of(records.get(decision_id)),
        ShadowRecord.of(records.get(shadow_id(decision_id))),
    )


def test_the_challenger_is_journaled_and_never_answered(home: Path) -> None:
    champion, challenger = saved(home, 0, favourite=5), saved(home, 1, favourite=1)
    answer, decision, shadow = sized(challenged(home, champion, challenger))
    assert (answer["multiplier"], answer["bundle"], decision.arm) == (1.5, champion.name, "champion")
    assert (shadow.arm, shadow.bundle, shadow.model_status) == ("challenger", challenger.name, "STAGING")
    assert (shadow.multiplier, shadow.action, shadow.source) == (0.25, "MICRO", "model")


def test_the_challenger_may_be_the_rule_and_it_sees_the_limits(home: Path) -> None:
    desk = challenged(home, saved(home, 0, favourite=5), None)
    _, _, shadow = sized(desk, limits={"rule_cap": 0.6})
    assert (shadow.bundle, shadow.source, shadow.multiplier, shadow.binding_rule) == (
        None, "rule", 0.5, "rule_cap",
    )  # fmt: skip


def test_with_the_whole_share_it_answers_and_the_champion_is_in_the_shadow(home: Path) -> None:
    champion, challenger = saved(home, 0, favourite=5), saved(home, 1, favourite=1)
    answer, decision, shadow = sized(challenged(home, champion, challenger, share=1.0))
    assert (answer["multiplier"], answer["bundle"], decision.arm) == (0.25, challenger.name, "challenger")
    assert (shadow.arm, shadow.bundle, shadow.multiplier) == ("champion", champion.name, 1.5)


def test_days_and_symbols_fall_to_one_arm_whole_and_to_the_challenger_by_its_share() -> None:
    one, other = (Challenger(PositionSizer(None, "rule", name * 64), 0.3) for name in "ab")
    base = request()["signal"]

    def arms(challenger: Challenger, hour: int) -> list[bool]:
        return [
            challenger.answers(
                Signal(**base | {"symbol": symbol, "timestamp": f"2026-{month:02}-{day:02}T{hour:02}:00:00Z"})
            )
            for symbol in ("EURUSD", "GBPUSD", "GOOGL")
            for month in range(1, 13)
            for day in range(1, 29)
        ]

    assert arms(one, 0) == arms(one, 23)
    assert abs(sum(arms(one, 0)) / len(arms(one, 0)) - 0.3) < 0.05
    assert arms(one, 0) != arms(other, 0)


def test_a_challenger_that_fails_is_recorded_and_touches_no_answer(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = challenged(home, saved(home, 0, favourite=5), saved(home, 1))
    assert desk.challenger is not None

    def fails(*_: object, **__: object) -> None:
        raise MemoryError("no room\nfor it")

    monkeypatch.setattr(desk.challenger.sizer, "recommend_all", fails)
    answer, _, shadow = sized(desk)
    assert answer["multiplier"] == 1.5
    assert (shadow.multiplier, shadow.model_fault) == (None, "MemoryError: no room")


def test_a_challenger_that_cannot_be_opened_holds_nothing_up(home: Path) -> None:
    champion, challenger = saved(home, 0, favourite=5), saved(home, 1)
    (challenger / "bundle.json").write_bytes(b"{}")
    desk = challenged(home, champion, challenger)
    answer = ask(sizing_api(desk), "POST", "/", json=request()).json()
    assert (answer["multiplier"], answer["bundle"]) == (1.5, champion.name)
    health = ask(sizing_api(desk), "GET", "/healthz").json()
    assert health["challenger"] is None
    assert health["challenger_refused"]["digest"] == challenger.name
    assert "altered" in health["challenger_refused"]["mend"]


def test_a_batch_has_its_shadows_too(home: Path) -> None:
    desk = challenged(home, saved(home, 0, favourite=5), saved(home, 1, favourite=1))
    body = {"requests": [request(signal={"confidence": i / 4}) for i in range(4)]}
    ask(sizing_api(desk), "POST", "/batch", json=body)
    assert [record.payload["multiplier"] for record in journal(home).read("shadow")] == [0.25] * 4


def test_the_report_pairs_both_sizes_with_what_came_of_the_signal(home: Path) -> None:
    desk = challenged(home, saved(home, 0, favourite=5), saved(home, 1, favourite=1), share=0.5)
    api = sizing_api(desk)
    waiting = ""
    for day in range(1, 25):
        moment = {"timestamp": f"2026-01-{day:02}T14:00:00Z"}
        for confidence in (0.2, 0.8):
            body = request(signal=moment | {"confidence": confidence})
            decision = ask(api, "POST", "/", json=body).json()["decision_id"]
            ask(api, "POST", "/", json=body)  # asked again: it counts once
            outcome = REPORT | {"gross_r": 1.0 if confidence < 0.5 else -0.5, "cost_r": 0.0, "impact_r": 0.0}
            outcome |= {"exit_time": "2026-02-06T09:00:00Z", "entry_time": None}
            if (day, confidence) == (23, 0.8):
                waiting = decision
            else:
                ask(api, "POST", f"/{decision}/outcome", json=outcome)
    (found,) = shadow_reports(journal(home))
    assert (found.champion, found.challenger) == (bundle_digest(home, 0, 5), bundle_digest(home, 1, 1))
    assert (found.days, found.signals, found.waiting_day) == (22, 44, "2026-01-23")
    assert found.waiting == (waiting,)
    assert 0 < found.answered < 48
    assert found.answered % 2 == 0
    # 1.25 R less won and 0.625 R less lost, in whichever arm the answer was.
    assert found.mean == pytest.approx(-0.3125)
    assert found.low < -0.3125 < found.high
    assert (found.failed, found.clipped) == (0, 0)
    printed = CliRunner().invoke(cli.shadow.app, ["report"], env={"COLUMNS": "200"})
    assert printed.exit_code == 0, printed.output
    assert "-0.3125" in printed.output
    assert f"days from 2026-01-23 on wait for 1 outcomes of it: {waiting}" in printed.output


def bundle_digest(home: Path, seed: int, favourite: int) -> str:
    return bundle(seed, favourite).save(home / "bundles")
