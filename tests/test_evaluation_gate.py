"""The gate passes only what has every figure, and names each one that fails with its threshold."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from evaluation.gate import CARD_FIELDS, Figures, Thresholds, criteria, evidence, judge
from market.errors import ConfigError
from mlops.evidence import Evidence

BUNDLE, CHAMPION = "a" * 64, "b" * 64
GAIN = {"mean": 0.05, "lower": 0.01}


def good(**changed: Any) -> dict[str, Any]:
    """Figures that pass every criterion; `changed` replaces values by dotted name."""
    figures: dict[str, Any] = {
        "held_out": {
            "signals": 400,
            "days": 200,
            "vs_champion": dict(GAIN),
            "vs_rule": dict(GAIN),
            "vs_plug_in": {"mean": -0.01, "lower": -0.03},
            "plug_in_share": 0.5,
            "kept": dict(GAIN),
            "drawdown_p95": 0.22,
            "champion_drawdown_p95": 0.2,
        },
        "search": {"tried": 40, "compared": 31, "spa": 0.049, "pbo": 0.19},
        "folds": [[0.02, -0.9, 0.03], [0.1, 0.1, 0.1], [-0.05, -0.05, 0.2], [0.0, 0.0, 0.0], [0.3, 0.2, 0.1]],
        "breaches": 0,
        "synthetic": {task: {"ratio": 0.98, "baseline": 0.99} for task in ("L1", "L2", "L3")},
        "calibration": {
            "reference": "champion",
            "ece": 0.03,
            "log_loss": 0.65,
            "reference_ece": 0.02,
            "reference_log_loss": 0.645,
        },
        "card": dict.fromkeys(CARD_FIELDS, True),
        "skill": {"gained_r": 0.02, "low": -0.01, "p_value": 0.2},
    }
    for name, value in changed.items():
        *path, last = name.split("__")
        part = figures
        for key in path:
            part = part[key]
        part[last] = value
    return figures


def failed(figures: dict[str, Any], **options: Any) -> dict[str, str]:
    """By name, the text of each criterion that is not passed."""
    return {one.name: one.text for one in criteria(Figures(**figures), **options) if not one.passed}


def test_figures_at_the_edge_of_every_threshold_pass() -> None:
    assert failed(good()) == {}
    verdict = judge(Figures(**good()))
    assert verdict.passed
    assert len(verdict.reasons) == 12
    assert all(reason.startswith("passed ") for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("change", "name", "figure", "threshold"),
    [
        ({"held_out__vs_champion": {"mean": 0.5, "lower": 0.0}}, "vs_champion", "+0.0000", "above 0"),
        ({"held_out__vs_rule": {"mean": 0.5, "lower": -0.001}}, "vs_rule", "-0.0010", "above 0"),
        ({"held_out__kept": {"mean": 0.5, "lower": -0.02}}, "vs_plug_in", "-0.0200", "50%"),
        ({"held_out__plug_in_share": 0.3}, "vs_plug_in", "30%", "50%"),
        ({"held_out__drawdown_p95": 0.221}, "drawdown", "0.2210", "at most 0.2200: 1.1 x"),
        ({"search__spa": 0.05}, "spa", "0.0500", "of 40 trials against the champion, must be below 0.05"),
        ({"search__pbo": 0.2}, "pbo", "0.2000", "below 0.2"),
        ({"breaches": 2}, "limits", "2 breaches", "must be 0"),
        ({"folds": [[0.1] * 3] * 4 + [[-0.051, -0.06, 0.5]]}, "folds", "-0.0510", "at least -0.05 (fold 5"),
        ({"folds": [[0.1] * 3] * 4}, "folds", "4 folds", "at least 5"),
        ({"folds": [[0.1] * 3] * 4 + [[0.1] * 2]}, "folds", "2 seeds", "at least 3"),
        ({"synthetic__L2": {"ratio": 0.9799, "baseline": 0.99}}, "synthetic", "L2 0.9799", "0.9800"),
        ({"calibration__log_loss": 0.6501}, "log_loss", "0.6501", "at most 0.6500: 0.005 above the champion"),
        ({"calibration__ece": 0.0301}, "ece", "0.0301", "at most 0.0300: 0.01 above the champion"),
        ({"card__rule": False}, "model_card", "lacks rule", "rule"),
    ],
)
def test_one_figure_that_fails_is_named_alone_with_its_threshold(
    change: dict[str, Any], name: str, figure: str, threshold: str
) -> None:
    found = failed(good(**change))
    assert list(found) == [name]
    assert figure in found[name]
    assert threshold in found[name]


def test_every_failure_is_told_and_not_only_the_first() -> None:
    worst = good(
        search__spa=0.5, search__pbo=0.9, breaches=1, held_out__vs_rule={"mean": -1.0, "lower": -1.0}
    )
    verdict = judge(Figures(**worst))
    assert not verdict.passed
    assert [reason.split(":")[0] for reason in verdict.reasons[:5]] == [
        "failed vs_rule",
        "failed spa",
        "failed pbo",
        "failed limits",
        "passed vs_champion",
    ]


def test_nothing_measured_passes_nothing() -> None:
    found = failed({})
    assert len(found) == 12
    assert all("not measured" in text or "no walk" in text or "lacks" in text for text in found.values())


@pytest.mark.parametrize("undefined", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("figure", "name"),
    [
        ("held_out__vs_champion__lower", "vs_champion"),
        ("held_out__vs_rule__lower", "vs_rule"),
        ("held_out__kept__lower", "vs_plug_in"),
        ("held_out__drawdown_p95", "drawdown"),
        ("held_out__champion_drawdown_p95", "drawdown"),
        ("search__spa", "spa"),
        ("search__pbo", "pbo"),
        ("synthetic__L1__ratio", "synthetic"),
        ("synthetic__L3__baseline", "synthetic"),
        ("calibration__ece", "ece"),
        ("calibration__reference_ece", "ece"),
        ("calibration__log_loss", "log_loss"),
        ("calibration__reference_log_loss", "log_loss"),
    ],
)
def test_a_figure_that_is_undefined_fails_with_the_reason(
    figure: str, name: str, undefined: float | None
) -> None:
    found = failed(good(**{figure: undefined}))
    assert list(found) == [name]
    assert "undefined" in found[name] or "no ratio" in found[name] or "no stored baseline" in found[name]


def test_a_seed_without_a_figure_fails_its_fold() -> None:
    assert "undefined" in failed(good(folds=[[0.1] * 3] * 4 + [[0.1, math.nan, 0.1]]))["folds"]


def test_a_task_of_the_synthetic_suite_that_got_worse_cannot_be_waived() -> None:
    missing = good(synthetic__L3={"ratio": None, "baseline": None})
    assert "synthetic" in failed(missing)
    reason = {"synthetic": "L3 takes an hour here"}
    assert failed(missing, waived=reason) == {}
    (told,) = [r for r in judge(Figures(**missing), waived=reason).reasons if "synthetic" in r]
    assert "L3 takes an hour here" in told
    assert failed({**missing, "synthetic": {}}, waived=reason) == {}
    worse = good(synthetic__L3={"ratio": None, "baseline": None}, synthetic__L1={"ratio": 0.5, "baseline": 1})
    assert list(failed(worse, waived=reason)) == ["synthetic"]


@pytest.mark.parametrize(("name", "reason"), [("spa", "I am in a hurry"), ("synthetic", "  ")])
def test_other_criteria_and_empty_reasons_are_no_waivers(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match="waived"):
        criteria(Figures(**good()), waived={name: reason})


def test_a_single_configuration_has_no_choice_to_be_overfitted() -> None:
    single = good(search={"tried": 1, "compared": 1, "spa": 0.01, "pbo": None})
    assert failed(single) == {}
    assert list(failed(good(search={"tried": 2, "compared": 1, "spa": 0.01, "pbo": None}))) == ["pbo"]


def test_a_sizer_that_draws_no_numbers_needs_one_seed() -> None:
    assert "folds" in failed(good(folds=[[0.1]] * 5))
    assert failed(good(folds=[[0.1]] * 5, seeded=False)) == {}


def test_thresholds_are_the_desks_own_to_set() -> None:
    assert list(failed(good(), thresholds=Thresholds(spa=0.01, fold_tolerance=0.0))) == ["spa", "folds"]
    with pytest.raises(ValidationError):
        Thresholds(spa=1.5)
    with pytest.raises(ValidationError):
        Thresholds().spa = 0.5  # type: ignore[misc]


def test_evidence_holds_every_defined_figure_by_its_dotted_name() -> None:
    figures = Figures(**good(search__pbo=None))
    found = evidence(BUNDLE, CHAMPION, figures, judge(figures))
    assert isinstance(found, Evidence)
    assert (found.bundle, found.champion, found.verdict.passed) == (BUNDLE, CHAMPION, False)
    assert found.figures["held_out.vs_rule.lower"] == 0.01
    assert found.figures["folds.0.1"] == -0.9
    assert found.figures["search.tried"] == 40.0
    assert found.figures["synthetic.L2.ratio"] == 0.98
    assert found.figures["card.rule"] == 1.0
    assert found.figures["skill.p_value"] == 0.2
    assert "search.pbo" not in found.figures
    assert evidence(BUNDLE, None, figures, judge(figures)).champion is None
