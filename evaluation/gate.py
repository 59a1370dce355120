"""The gate: which figures a model must show before it may be promoted, and the verdict on them.

Knows nothing of how figures are measured (gate_figures.py does that) or of the registry. A figure that is
missing or undefined never passes. Utilities are R per signal; differences are the candidate's less another's
on the same signals.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
    "revision",
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
    raise NotImplementedError


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

    Every figure by dotted name (`held_out.vs_rule.lower`, `folds.0.seeds.2`); undefined ones are left out.
    """
    raise NotImplementedError
