"""The gate: which figures a model must show before it may be promoted, and the verdict on them.

Knows nothing of how figures are measured (gate_figures.py does that) or of the registry. A figure that is
missing or undefined never passes. Utilities are R per signal; differences are the candidate's less another's
on the same signals.
"""

import operator
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from market.errors import ConfigError
from mlops.evidence import Evidence, Verdict


def _defined(value: Any) -> Any:
    """None in place of a number that is none."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


Figure = Annotated[float | None, BeforeValidator(_defined)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Thresholds(_Frozen):
    """What the figures are held against; docs/evaluation.md says why these."""

    plug_in_kept: float = Field(
        0.5, ge=0, le=1, description="share of the plug-in's gain over the rule that must be kept, proven"
    )
    spa: float = Field(0.05, gt=0, lt=1, description="SPA p-value must be below")
    pbo: float = Field(0.2, gt=0, lt=1, description="probability of backtest overfitting must be below")
    drawdown_ratio: float = Field(1.1, ge=1, description="p95 max drawdown, of the champion's, at most")
    folds: int = Field(5, ge=1, description="walk-forward folds at least")
    seeds: int = Field(3, ge=1, description="seeds of each fold at least, where the sizer draws numbers")
    fold_tolerance: float = Field(
        0.05,
        ge=0,
        description="R per signal that a fold's median seed may lose to the rule; what a trade costs",
    )
    synthetic_tolerance: float = Field(
        0.01, ge=0, description="share of the optimum that may be lost on the stored baseline"
    )
    log_loss_tolerance: float = Field(0.005, ge=0, description="nats above the reference's log loss")
    ece_tolerance: float = Field(0.01, ge=0, description="above the reference's calibration error")


class Difference(_Frozen):
    """A mean difference and its one-sided 95 % lower bound by resampled days."""

    mean: Figure
    lower: Figure


class HeldOut(_Frozen):
    """Candidate, champion, rule at 1x and plug-in on the same signals, which chose none of them."""

    signals: int
    days: int
    vs_champion: Difference  # the rule is the champion where no model is in production yet
    vs_rule: Difference
    vs_plug_in: Difference  # reported
    plug_in_share: float  # of the plug-in's gain over the rule that `kept` is about
    kept: Difference  # candidate less (rule + share x (plug-in less rule))
    drawdown_p95: Figure  # 95th percentile of the max drawdown of resampled histories
    champion_drawdown_p95: Figure


class Search(_Frozen):
    """The trials that the candidate was chosen from, on the signals that chose it, against the champion."""

    tried: int = Field(ge=1)  # all trials ever begun, those stopped early or lost included
    compared: int = Field(ge=1)  # those that left a network
    spa: Figure
    pbo: Figure
    probabilistic_sharpe: Figure = None  # of the selected one; reported, like the two below
    deflated_sharpe: Figure = None
    deflated_sharpe_effective: Figure = None
    effective_trials: Figure = None


class Calibration(_Frozen):
    """The candidate's outcome model on held-out signals, beside what it must not be worse than."""

    reference: str  # "champion", or "base rates" where no model is in production
    ece: Figure
    log_loss: Figure
    reference_ece: Figure  # of base rates: the 95th percentile that a perfectly calibrated model would show
    reference_log_loss: Figure


class Ratio(_Frozen):
    """Share of the optimum reached on one task of the oracle market, and the stored one."""

    ratio: Figure
    baseline: Figure


class Skill(_Frozen):
    """Sizing-skill attribution (attribution.py); reported."""

    gained_r: Figure
    low: Figure
    p_value: Figure


class Figures(_Frozen):
    """All that the gate looks at; what is None or empty was not measured, and fails."""

    held_out: HeldOut | None = None
    search: Search | None = None
    folds: tuple[tuple[Figure, ...], ...] = ()  # [fold][seed], mean difference to the rule out of sample
    seeded: bool = True  # False: the sizer draws no numbers, so one seed says all
    breaches: int | None = None  # decisions that a limit forbade; see breaches.py
    synthetic: dict[str, Ratio] = Field(default_factory=dict)  # by task; see synthetic_suite.py
    calibration: Calibration | None = None
    card: dict[str, bool] = Field(default_factory=dict)  # is each field of the model card there?
    skill: Skill | None = None


@dataclass(frozen=True)
class Criterion:
    """One demand of the gate, and how the candidate stands with it."""

    name: str
    passed: bool
    text: str  # figure and threshold, or why there is no figure


CARD_FIELDS: Final = (
    "algo",
    "data",
    "data digests",
    "trades",
    "symbols",
    "rule",
    "costs",
    "risk aversion k",
    "training limits",
    "feature fingerprint",
    "configuration and seed",
    "outcome model",
    "calibration",
)
WAIVABLE: Final = ("synthetic",)


def criteria(
    figures: Figures, thresholds: Thresholds | None = None, waived: Mapping[str, str] | None = None
) -> tuple[Criterion, ...]:
    """Every criterion in a fixed order, passed or not.

    `waived`: why a criterion's missing figure is done without, by its name; only "synthetic" can be, and a
    figure that is there is judged all the same. ConfigError for any other name, or no reason.
    """
    limits, waived = thresholds or Thresholds(), waived or {}
    for name, reason in waived.items():
        if name not in WAIVABLE:
            raise ConfigError("waived", name, f"only {', '.join(WAIVABLE)} can be waived: measure the others")
        if not reason.strip():
            raise ConfigError(f"waived.{name}", reason, "say why the figure is done without")
    return (
        *_held_out(figures.held_out, limits),
        *_search(figures.search, limits),
        _breaches(figures.breaches),
        _folds(figures, limits),
        _synthetic(figures.synthetic, limits, waived.get("synthetic")),
        *_calibration(figures.calibration, limits),
        _card(figures.card),
    )


def judge(
    figures: Figures, thresholds: Thresholds | None = None, waived: Mapping[str, str] | None = None
) -> Verdict:
    """The verdict: passed where every criterion is. Its reasons are all criteria, failed ones first.

    Arguments and errors as `criteria`.
    """
    found = criteria(figures, thresholds, waived)
    ordered = sorted(found, key=lambda one: one.passed)
    reasons = tuple(f"{'passed' if one.passed else 'failed'} {one.name}: {one.text}" for one in ordered)
    return Verdict(passed=all(one.passed for one in found), reasons=reasons)


def evidence(bundle: str, champion: str | None, figures: Figures, verdict: Verdict) -> Evidence:
    """The evidence for the bundle of that digest against the champion's (None: the rule alone).

    Every figure by dotted name (`held_out.vs_rule.lower`, `folds.0.2` of fold and seed); undefined ones are
    left out, yes and no are 1 and 0.
    """
    named = dict(_flat("", figures.model_dump()))
    return Evidence(bundle=bundle, champion=champion, figures=named, verdict=verdict)


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, tuple):
        parts = [(str(i), part) for i, part in enumerate(value)]
    else:
        if isinstance(value, int | float):
            yield name, float(value)
        return
    for key, part in parts:
        yield from _flat(f"{name}.{key}" if name else key, part)


def _check(
    name: str, figure: float | None, demand: str, passes: Callable[[float], bool], form: str = "+.4f"
) -> Criterion:
    """A criterion about one figure; without it, not passed."""
    if figure is None:
        return Criterion(name, False, f"undefined: too few days, trials or outcomes; {demand}")
    return Criterion(name, passes(figure), f"{figure:{form}}, {demand}")


def _missing(name: str, what: str) -> Criterion:
    return Criterion(name, False, f"not measured: {what}")


def _held_out(found: HeldOut | None, limits: Thresholds) -> Iterator[Criterion]:
    names = ("vs_champion", "vs_rule", "vs_plug_in", "drawdown")
    if found is None:
        yield from (_missing(name, "nothing was held out") for name in names)
        return
    bound = "the lower bound of R per signal gained, must be above 0"
    positive = lambda low: low > 0.0  # noqa: E731
    yield _check("vs_champion", found.vs_champion.lower, bound, positive)
    yield _check("vs_rule", found.vs_rule.lower, bound, positive)
    if found.plug_in_share < limits.plug_in_kept:
        seen = f"measured for {found.plug_in_share:.0%} of the plug-in's gain on the rule"
        yield Criterion("vs_plug_in", False, f"{seen}, must be for {limits.plug_in_kept:.0%}")
    else:
        share = f"the lower bound of R per signal above {found.plug_in_share:.0%} of the plug-in's gain"
        yield _check("vs_plug_in", found.kept.lower, f"{share} on the rule, must be above 0", positive)
    reference = found.champion_drawdown_p95
    if reference is None:
        yield _check("drawdown", None, "the champion's is", positive)
        return
    most = limits.drawdown_ratio * reference
    demand = f"p95 max drawdown, must be at most {most:.4f}: {limits.drawdown_ratio:g} x the champion's"
    yield _check("drawdown", found.drawdown_p95, demand, lambda loss: loss <= most, ".4f")


def _search(found: Search | None, limits: Thresholds) -> Iterator[Criterion]:
    if found is None:
        yield from (_missing(name, "the search's trials were not compared") for name in ("spa", "pbo"))
        return
    over = f"of {found.tried} trials" if found.tried > 1 else "of a single configuration"
    demand = f"SPA p-value {over} against the champion, must be below {limits.spa:g}"
    yield _check("spa", found.spa, demand, lambda p: p < limits.spa, ".4f")
    if found.tried == 1:
        yield Criterion("pbo", True, "nothing was chosen: a single configuration")
        return
    demand = f"probability that the selected trial does not beat the champion, must be below {limits.pbo:g}"
    yield _check("pbo", found.pbo, demand, lambda p: p < limits.pbo, ".4f")


def _breaches(found: int | None) -> Criterion:
    if found is None:
        return _missing("limits", "the path was not gone over")
    return Criterion("limits", found == 0, f"{found} breaches, must be 0")


def _folds(figures: Figures, limits: Thresholds) -> Criterion:
    folds, seeds = figures.folds, limits.seeds if figures.seeded else 1
    if not folds:
        return _missing("folds", "no walk-forward")
    if len(folds) < limits.folds:
        return Criterion("folds", False, f"{len(folds)} folds, must be at least {limits.folds}")
    if min(len(fold) for fold in folds) < seeds:
        least = min(len(fold) for fold in folds)
        return Criterion("folds", False, f"{least} seeds in a fold, must be at least {seeds}")
    if any(seed is None for fold in folds for seed in fold):
        return Criterion("folds", False, "undefined: a fold has a seed without a figure")
    medians = [statistics.median(seed for seed in fold if seed is not None) for fold in folds]
    below = [number for number, median in enumerate(medians, 1) if median < -limits.fold_tolerance]
    listed = " ".join(f"{median:+.4f}" for median in medians)
    demand = f"median R per signal on the rule, each must be at least {-limits.fold_tolerance:g}"
    failed = f" (fold {', '.join(map(str, below))} is not)" if below else ""
    return Criterion("folds", not below, f"{listed}, {demand}{failed}")


def _synthetic(found: Mapping[str, Ratio], limits: Thresholds, waived: str | None) -> Criterion:
    texts, failed, missing = [], False, not found
    for task, one in found.items():
        if one.ratio is None or one.baseline is None:
            lacking = "no ratio" if one.ratio is None else "no stored baseline of this configuration"
            texts.append(f"{task} {lacking}")
            missing = True
            continue
        least = one.baseline - limits.synthetic_tolerance
        failed |= one.ratio < least
        texts.append(f"{task} {one.ratio:.4f} of the optimum, must be at least {least:.4f}")
    text = "; ".join(texts) or "not measured: no task of the oracle market"
    if missing and waived:
        text = f"{text}; what is missing is waived: {waived}"
    return Criterion("synthetic", not failed and (not missing or waived is not None), text)


def _calibration(found: Calibration | None, limits: Thresholds) -> Iterator[Criterion]:
    names = ("log_loss", "ece")
    if found is None:
        yield from (_missing(name, "no held-out probabilities") for name in names)
        return
    tolerances = (limits.log_loss_tolerance, limits.ece_tolerance)
    figures = (found.log_loss, found.ece)
    references = (found.reference_log_loss, found.reference_ece)
    for name, figure, reference, tolerance in zip(names, figures, references, tolerances, strict=True):
        if reference is None:
            yield _check(name, None, f"that of the {found.reference} is", bool)
            continue
        most = reference + tolerance
        demand = f"must be at most {most:.4f}: {tolerance:g} above the {found.reference}"
        yield _check(name, figure, demand, partial(operator.ge, most), ".4f")


def _card(found: Mapping[str, bool]) -> Criterion:
    lacking = [name for name in CARD_FIELDS if not found.get(name, False)]
    text = f"lacks {', '.join(lacking)}" if lacking else f"all {len(CARD_FIELDS)} fields are there"
    return Criterion("model_card", not lacking, text)
