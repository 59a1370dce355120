import json
import math
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from market.errors import InputError
from mlops.evidence import Evidence, Verdict, newest

BUNDLE, OTHER = "a" * 64, "b" * 64


def evidence(**changes):
    fields = {
        "bundle": BUNDLE,
        "figures": {"vs_rule.lower": 0.012, "spa": 0.03},
        "verdict": Verdict(passed=True, reasons=("beats the rule",)),
        "created": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return Evidence(**(fields | changes))


def test_saved_evidence_loads_as_it_was(tmp_path):
    path = tmp_path / "reports" / "evidence.json"
    evidence().save(path)
    loaded = Evidence.load(path, bundle=BUNDLE)
    assert loaded == evidence()
    assert loaded.digest == evidence().digest
    assert [file.name for file in path.parent.iterdir()] == ["evidence.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": OTHER},
        {"figures": {"vs_rule.lower": 0.012, "spa": 0.031}},
        {"verdict": Verdict(passed=False, reasons=("beats the rule",))},
        {"verdict": Verdict(passed=True)},
        {"champion": OTHER},
        {"created": datetime(2026, 1, 3, tzinfo=UTC)},
    ],
)
def test_the_digest_covers_every_field(change):
    assert evidence(**change).digest != evidence().digest


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": "abc"},
        {"bundle": "A" * 64},
        {"figures": {"sharpe": math.nan}},
        {"figures": {"sharpe": math.inf}},
        {"champion": "the rule"},
        {"created": datetime(2026, 1, 2)},
        {"surprise": 1},
    ],
)
def test_evidence_that_is_none_is_refused(change):
    with pytest.raises(ValidationError):
        evidence(**change)


def test_a_refusal_without_a_reason_is_refused():
    with pytest.raises(ValidationError, match="needs a reason"):
        Verdict(passed=False)


def test_a_verdict_is_true_or_false_and_nothing_like_it():
    with pytest.raises(ValidationError):
        Verdict(passed="yes", reasons=("why not",))


def test_evidence_for_another_bundle_is_refused(tmp_path):
    path = tmp_path / "evidence.json"
    evidence().save(path)
    with pytest.raises(InputError, match=f"got '{BUNDLE}'; give the evidence for bundle {OTHER}"):
        Evidence.load(path, bundle=OTHER)


@pytest.mark.parametrize("key", ["figures", "verdict", "bundle", "champion", "created"])
def test_an_altered_file_is_refused(tmp_path, key):
    path = tmp_path / "evidence.json"
    evidence(verdict=Verdict(passed=False, reasons=("lost to the rule",))).save(path)
    content = json.loads(path.read_text())
    content["evidence"][key] = {
        "figures": {"vs_rule.lower": 9.0},
        "verdict": {"passed": True, "reasons": ["lost to the rule"]},
        "bundle": OTHER,
        "champion": OTHER,
        "created": "2027-01-01T00:00:00Z",
    }[key]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="was altered after it was saved"):
        Evidence.load(path)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("", "Invalid JSON"),
        ("[]", "the file"),
        ('{"digest": "x"}', "evidence: Field required"),
        ('{"digest": "x", "evidence": {"bundle": "short"}}', "evidence.bundle: String should match"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(tmp_path, content, cause):
    path = tmp_path / "evidence.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"give a whole evidence file .*{cause}"):
        Evidence.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="give a file that can be read"):
        Evidence.load(tmp_path / "none.json")


def test_the_newest_evidence_for_a_bundle_is_found_among_all_there_is(tmp_path):
    folder = tmp_path / "evidence"
    with pytest.raises(InputError, match=f"holds none for bundle {BUNDLE}: evaluate it first"):
        newest(folder, BUNDLE)
    for day in (3, 5, 4):
        evidence(created=datetime(2026, 1, day, tzinfo=UTC)).save(folder / f"{day}.json")
    evidence(bundle=OTHER, created=datetime(2026, 1, 9, tzinfo=UTC)).save(folder / "inner" / "other.json")
    (folder / "broken.json").write_text("{")
    assert newest(folder, BUNDLE).created.day == 5
    assert newest(folder, OTHER).created.day == 9
    with pytest.raises(InputError, match=r"broken\.json"):
        newest(folder, "c" * 64)
