"""The metrics file and the Prometheus rules: each names metrics that are written, and fires as it should."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlops.drift import DriftReport, Stream, unwatched
from mlops.drift_baseline import NoBaseline
from mlops.drift_limits import Finding
from mlops.drift_metrics import FILE, write_metrics
from mlops.drift_performance import Band, Performance
from tests.test_project_tree import ROOT

RULES = ROOT / "deploy" / "prometheus" / "ballast.rules.yaml"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
FOUND = {"ks": 0.1, "psi": 0.1, "js": 0.1, "wasserstein": 0.1}


def report(alarm: bool, age: timedelta = timedelta(0)) -> DriftReport:
    finding = Finding("mom_5", FOUND, FOUND, 1.5 if alarm else 0.5, alarm, 0.0, 1.0, 0.5, [0.0], [0.0])
    stream = Stream("features", 'GO"LD', 900, 5_000, 300, (finding,), alarm)
    band = Band(0.1, 0.0, 0.2, 100)
    mean = -0.1 if alarm else 0.1
    performance = Performance(mean, band, below=alarm, changed=None, r_before=0.0, r_now=0.0)
    alarms = ("features have drifted",) if alarm else ()
    return DriftReport("d" * 64, "a test", alarms, (stream,), performance, created=NOW - age)


class Samples:
    """A metrics file, read as Prometheus reads it."""

    def __init__(self, text: str) -> None:
        self.by_name: dict[str, list[float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.by_name.setdefault(sample.name, []).append(sample.value)
        self.names = {family.name for family in text_string_to_metric_families(text)}


def written(home: Path, told: DriftReport) -> Samples:
    return Samples(write_metrics(home, told).read_text())


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Rule(Strict):
    alert: str = Field(pattern="^Ballast[A-Za-z]+$")
    expr: str
    for_: str | None = Field(None, alias="for", pattern=r"^\d+[smhd]$")
    labels: dict[str, str]
    annotations: dict[str, str]


class Group(Strict):
    name: str
    rules: list[Rule] = Field(min_length=1)


class RuleFile(Strict):
    groups: list[Group] = Field(min_length=1)


def rules() -> dict[str, Rule]:
    file = RuleFile.model_validate(yaml.safe_load(RULES.read_text()))
    found = [rule for group in file.groups for rule in group.rules]
    assert len({rule.alert for rule in found}) == len(found)
    return {rule.alert: rule for rule in found}


COMPARED = re.compile(r"(?P<now>time\(\) - )?(?P<name>ballast_\w+) (?P<sign>==|>) (?P<number>\d+)")
ABSENT = re.compile(r"absent\((?P<name>ballast_\w+)\)")


def fires(expression: str, samples: Samples, now: datetime = NOW) -> bool:
    """Whether Prometheus would fire, for the two forms that the rules have."""
    if absent := ABSENT.fullmatch(expression):
        return not samples.by_name.get(absent["name"])
    parts = COMPARED.fullmatch(expression)
    assert parts, f"teach this test to read {expression}"
    values = samples.by_name.get(parts["name"], [])
    seen = [now.timestamp() - value if parts["now"] else value for value in values]
    number = float(parts["number"])
    return any(value == number if parts["sign"] == "==" else value > number for value in seen)


def fired(samples: Samples, now: datetime = NOW) -> set[str]:
    return {name for name, rule in rules().items() if fires(rule.expr, samples, now)}


def test_every_metric_that_a_rule_names_is_written_and_every_rule_names_one(home: Path) -> None:
    known = written(home, report(False)).names
    for name, rule in rules().items():
        named = set(re.findall(r"ballast_\w+", rule.expr))
        assert named, name
        assert named <= known, name


@pytest.mark.parametrize("where", ["file", "group", "rule"])
def test_an_unknown_key_in_the_rules_would_be_refused(where: str) -> None:
    content: dict[str, Any] = yaml.safe_load(RULES.read_text())
    group = content["groups"][0]
    {"file": content, "group": group, "rule": group["rules"][0]}[where]["exprr"] = "x"
    with pytest.raises(ValidationError, match="exprr"):
        RuleFile.model_validate(content)


def test_a_drifted_report_fires_and_a_quiet_one_does_not(home: Path) -> None:
    assert fired(written(home, report(False))) == set()
    assert fired(written(home, report(True))) == {"BallastDrift", "BallastSizingWorse"}


def test_no_baseline_fires(home: Path) -> None:
    told = unwatched("d" * 64, "a test", NoBaseline("baseline", None, "train again"))
    now = told.created
    assert fired(written(home, told), now) == {"BallastDrift", "BallastDriftNoBaseline"}


def test_a_check_of_the_day_before_yesterday_and_none_at_all_fire(home: Path) -> None:
    assert fired(written(home, report(False, timedelta(days=2)))) == {"BallastDriftNotChecked"}
    assert fired(Samples("")) == {"BallastDriftMissing"}


def test_a_symbol_with_a_quote_in_it_is_still_a_metrics_file(home: Path) -> None:
    samples = written(home, report(True))
    assert samples.by_name["ballast_drift_ratio"] == [1.5]
    assert samples.by_name["ballast_drift_performance_r"] == [-0.1, 0.0, 0.2]


def test_a_failed_write_leaves_the_metrics_of_the_check_before(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_metrics(home, report(False))
    before = (home / FILE).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_metrics(home, report(True))
    assert (home / FILE).read_bytes() == before
    assert [path.name for path in (home / "metrics").iterdir()] == ["drift.prom"]
