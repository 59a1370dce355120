"""What the desks tell: counts, times, lines and gauges, without Ray; nothing secret is among them."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlops.drift_metrics import FILE, write_metrics
from serving.drift_readings import PERIOD, DriftReadings
from serving.narrative_desk import NarrativeDesk
from serving.narrative_service import narrative_api
from serving.refusals import told
from serving.sizing_desk import SizingDesk
from serving.sizing_service import sizing_api
from serving.telemetry import METRICS, REFUSALS, Labels, Line, Metric, Reading
from tests.serving_bundles import request
from tests.serving_client import ask
from tests.test_mlops_drift_metrics import report
from tests.test_project_tree import ROOT

EXPORTED = {
    f"ray_{metric.name}{suffix}"
    for metric in METRICS
    for suffix in {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}[
        metric.kind
    ]
}
# Of Serve's own; tests/test_serving_live.py sees them scraped.
SERVES = {"ray_serve_num_http_error_requests_total", "ray_serve_deployment_replica_healthy"}


class Heard:
    """A listener that keeps all."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Labels]] = Counter()
        self.seconds: list[tuple[str, Labels, float]] = []
        self.gauges: dict[str, float] = {}
        self.lines: list[tuple[str, Line]] = []

    def count(self, metric: Metric, labels: Labels, by: float) -> None:
        assert len(labels) == len(metric.labels)
        self.counts[metric.name, labels] += by  # type: ignore[assignment]

    def observe(self, metric: Metric, labels: Labels, seconds: Sequence[float]) -> None:
        assert len(labels) == len(metric.labels)
        self.seconds += [(metric.name, labels, each) for each in seconds]

    def gauge(self, metric: Metric, labels: Labels, value: float) -> None:
        self.gauges[metric.name] = value

    def line(self, moment: float, message: str, fields: Line) -> None:
        assert moment > 1.7e9
        self.lines.append((message, fields))


def heard_of(desk: Any, home: Path) -> Heard:
    desk.deploy({"home": str(home)})
    desk.telemetry.listener = heard = Heard()
    return heard


def flush(desk: Any) -> None:
    desk.telemetry.flush(desk.readings())


def test_each_size_is_counted_by_tier_rule_and_source_and_has_one_line(home: Path) -> None:
    desk = SizingDesk()
    heard, api = heard_of(desk, home), sizing_api(desk)
    one = ask(api, "POST", "/", json=request(account_id="mine")).json()
    capped = request(limits={"max_exposure": 0.0})
    two = ask(api, "POST", "/batch", json={"requests": [request(), capped]}).json()["answers"]
    flush(desk)
    assert heard.counts == {
        ("ballast_decisions", ("STANDARD", "none", "rule")): 2,
        ("ballast_decisions", (two[1]["action"], two[1]["binding_rule"], "rule")): 1,
    }
    assert two[1]["multiplier"] == 0.0
    assert [message for message, _ in heard.lines] == ["decision"] * 3
    lines = [line for _, line in heard.lines]
    assert [line["decision_id"] for line in lines] == [size["decision_id"] for size in (one, *two)]
    for line, size in zip(lines, (one, *two), strict=True):
        assert all(size[name] == value for name, value in line.items() if name in size and name != "bundle")
    assert lines[0]["account"] != lines[1]["account"] == lines[2]["account"]
    times = [(name, labels) for name, labels, _ in heard.seconds]
    assert times.count(("ballast_sizing_seconds", ("one",))) == 1
    assert times.count(("ballast_sizing_seconds", ("batch",))) == 1
    assert times.count(("ballast_journal_wait_seconds", ())) == 2
    first = next(seconds for name, labels, seconds in heard.seconds if labels == ("one",))
    assert lines[0]["latency_ms"] == pytest.approx(1000 * first, abs=0.001)
    assert heard.gauges["ballast_journal_queue"] == 1
    flush(desk)
    assert (len(heard.lines), heard.gauges["ballast_journal_queue"]) == (3, 0), "told twice"


def test_narrative_is_counted_by_kind_and_writer_and_fallbacks_as_they_rise(home: Path) -> None:
    sizing, desk = SizingDesk(), NarrativeDesk()
    heard_of(sizing, home)
    heard, api = heard_of(desk, home), narrative_api(desk)
    size = ask(sizing_api(sizing), "POST", "/", json=request()).json()
    body = {"kind": "trade_rationale", "decision_id": size["decision_id"]}
    assert ask(api, "POST", "/", json=body).status_code == 200
    fallbacks = {"timeout": 2}
    desk.narrator.fallbacks = fallbacks  # type: ignore[attr-defined, unused-ignore]
    flush(desk)
    fallbacks["timeout"] = 5
    flush(desk)
    flush(desk)
    assert heard.counts == {
        ("ballast_narratives", ("trade_rationale", "template")): 1,
        ("ballast_narrative_fallbacks", ("timeout",)): 5,
    }
    assert [name for name, _, _ in heard.seconds] == [
        "ballast_journal_wait_seconds",
        "ballast_narrative_seconds",
    ]


def test_without_a_listener_nothing_is_kept(home: Path) -> None:
    desk = SizingDesk()
    desk.deploy({"home": str(home)})
    ask(sizing_api(desk), "POST", "/", json=request())
    desk.telemetry.listener = heard = Heard()
    flush(desk)
    assert not heard.counts
    assert not heard.lines


def test_refused_deployment_stands_in_its_gauge_until_another_is_taken(home: Path) -> None:
    desk = SizingDesk()
    heard = heard_of(desk, home)
    for config, stands in (
        ({"home": str(home)}, 0.0),
        ({"home": "relative"}, 1.0),
        ({"home": str(home)}, 0.0),
    ):
        desk.deploy(config)
        flush(desk)
        assert heard.gauges["ballast_deployment_refused"] == stands


@pytest.mark.parametrize(
    ("asked", "code", "field"),
    [
        ({"json": request(hunter2=1)}, 422, "*"),
        ({"json": request(account={"equity": "much"})}, 422, "account.equity"),
        ({"json": request(limits={"hunter2": "x"})}, 422, "limits.*"),
        ({"content": "{"}, 422, "body"),
        ({"content": b"x" * 3_000_000}, 413, "body"),
        ({"url": "/batch", "json": {"requests": [request(), request(signal={"stop": 9.0})]}}, 422,
         "requests.1.signal.stop"),
        ({"url": "/hunter2"}, 404, "path"),
    ],
)  # fmt: skip
def test_refusal_has_its_code_and_a_field_of_ours(
    home: Path, asked: dict[str, Any], code: int, field: str
) -> None:
    desk = SizingDesk()
    heard, path = heard_of(desk, home), asked.pop("url", "/")
    assert ask(sizing_api(desk), "POST", path, **asked).status_code == code
    flush(desk)
    assert heard.counts == {(REFUSALS.name, (str(code),)): 1}
    assert heard.lines == [("refusal", {"code": code, "field": field})]


def test_no_name_of_a_clients_choosing_is_logged() -> None:
    assert told("requests.3.market.features.mom_20") == "requests.3.market.features.mom_20"
    assert told("context.observation.hunter2") == "context.observation.*"
    assert told("sk-live-123") == "*"


def test_drift_is_read_from_the_newest_check_and_now_and_then_only(home: Path) -> None:
    now = [0.0]
    readings = DriftReadings(lambda: now[0])
    assert readings.of(home) == []
    write_metrics(home, report(True))
    assert readings.of(home) == [], "read again at once"
    now[0] += PERIOD
    found = {reading.metric.name: reading.value for reading in readings.of(home)}
    text = (home / FILE).read_text()
    assert found["ballast_drift_alarm"] == 1.0
    assert found.keys() == {metric.name for metric in METRICS if metric.name.startswith("ballast_drift")}
    for name, value in found.items():
        values = [float(v) for v in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)]
        assert value == (sum(values) if name == "ballast_drift_drifted_columns" else max(values))
    now[0] += PERIOD
    (home / FILE).write_text("no metrics at all {")
    assert readings.of(home) == []


def test_a_total_that_is_read_is_told_by_its_rise_alone() -> None:
    desk = SizingDesk()
    desk.telemetry.listener = heard = Heard()
    for total in (3.0, 3.0, 2.0, 4.0):  # a narrator that is replaced begins anew
        desk.telemetry.flush([Reading(REFUSALS, total, ("422",))])
    assert heard.counts == {(REFUSALS.name, ("422",)): 5}


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "ballast.json").read_text())
    return loaded


def queried() -> set[str]:
    """The metric names in the dashboard's queries."""
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    queries += [
        variable["query"]["query"]
        for variable in dashboard()["templating"]["list"]
        if variable["type"] == "query"
    ]
    assert queries
    return {name for query in queries for name in re.findall(r"\bray_[a-z0-9_]+", query)}


def test_dashboard_asks_for_metrics_that_exist_and_for_each_of_ours() -> None:
    assert queried() - EXPORTED == SERVES
    for metric in METRICS:
        assert any(name.startswith(f"ray_{metric.name}") for name in queried()), (
            f"{metric.name} is on no panel"
        )


def test_panels_have_ids_titles_and_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < 24


def test_the_observability_page_has_every_metric_with_its_labels_and_no_other() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    rows = dict(re.findall(r"^\| `ray_(ballast_\w+)` \| ([^|]*) \|", page, re.MULTILINE))
    shown = {
        metric.name + ("_total" if metric.kind == "counter" else ""): ", ".join(
            f"`{name}`" for name in metric.labels
        )
        for metric in METRICS
    }
    assert {name: labels.strip() for name, labels in rows.items()} == shown


def test_the_observability_page_names_every_field_of_a_line(home: Path) -> None:
    desk = SizingDesk()
    heard, api = heard_of(desk, home), sizing_api(desk)
    ask(api, "POST", "/", json=request())
    ask(api, "POST", "/", json={})
    flush(desk)
    page = (ROOT / "docs" / "observability.md").read_text()
    for message, line in heard.lines:
        assert f"`{message}`" in page
        assert all(f"`{name}`" in page for name in line)


def test_neither_keys_nor_passwords_are_told_or_logged(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import hashlib

    secrets = ("key-7f3a", "wrong-key-91", "pw-5d2e", "odd-name-44")
    caplog.set_level("DEBUG")
    caplog.set_level("WARNING", logger="httpx")  # this test's own client
    desk = SizingDesk()
    heard, api = heard_of(desk, home), sizing_api(desk)
    monkeypatch.setenv("BALLAST_JOURNAL", f"postgresql://desk:{secrets[2]}@127.0.0.1:9/ballast")
    hashed = hashlib.sha256(secrets[0].encode()).hexdigest()
    (home / "keys.json").write_text(json.dumps({"keys": [{"name": "desk", "sha256": hashed}]}))
    good, bad = ({"authorization": f"Bearer {key}"} for key in secrets[:2])
    codes = [
        ask(api, "POST", "/", json=request(), headers=bad).status_code,
        ask(api, "POST", "/", json=request(), headers=good).status_code,
        ask(api, "POST", "/", json=request(**{secrets[3]: secrets[0]}), headers=good).status_code,
        ask(api, "POST", f"/?key={secrets[0]}", content=secrets[0], headers=good).status_code,
        ask(api, "POST", f"/{secrets[3]}/outcome", json={}, headers=good).status_code,
        ask(api, "GET", f"/{secrets[3]}", headers=good).status_code,
    ]
    assert codes == [401, 503, 422, 422, 422, 404]
    flush(desk)
    all_told = json.dumps([heard.lines, [*map(str, heard.counts)], caplog.text])
    assert [line["code"] for _, line in heard.lines] == codes
    assert [secret for secret in secrets if secret in all_told] == []
