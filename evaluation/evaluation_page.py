"""An evaluation for people: one HTML page, the verdict first, that works without a network.

Knows nothing of how anything was computed. The page's own figures lie beside it as JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from envs.guardrails import SIZES, TIERS
from evaluation.backtest import Path
from evaluation.findings import Findings, FoldRow, SeedRow
from evaluation.gate import Criterion, Figures
from evaluation.page import plain, write_page
from evaluation.report import curve, reliability_figures
from evaluation.robustness import COST_FACTORS

Floats = npt.NDArray[np.float64]

EVALUATION: Final = "evaluation"


@dataclass(frozen=True)
class Part:
    """One stretch of signals: walk-forward's, or the locked ones."""

    title: str
    findings: Findings
    paths: Sequence[Path]
    stated: Floats  # [n], probability of a win
    won: npt.NDArray[np.bool_]  # [n], at 1x after costs


@dataclass(frozen=True)
class Page:
    """What the page is of: `folds` and `seeds` of the first part; without a verdict no `criteria`."""

    parts: Sequence[Part]
    folds: Sequence[FoldRow]
    seeds: Sequence[SeedRow]
    criteria: Sequence[Criterion]
    figures: Figures | None  # what the criteria are about
    left_out: str | None
    looks: int

    @property
    def headline(self) -> str:
        """The gate's verdict where there is one, else how the subject stands with rule and plug-in."""
        if not self.criteria:
            return self.parts[0].findings.comparison.headline
        failed = [one.name for one in self.criteria if not one.passed]
        if not failed:
            return f"The gate opens: all {len(self.criteria)} criteria passed"
        return f"The gate stays shut: {len(failed)} of {len(self.criteria)} criteria failed"

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader must know before trusting it."""
        found = [] if self.left_out is None else [self.left_out]
        if self.looks > 1:
            found.append(
                f"The locked part of this data has been looked at {self.looks} times: the more often, the "
                "less its figures are a test."
            )
        found += [f"{part.title}: {text}" for part in self.parts for text in part.findings.comparison.caveats]
        return tuple(found)


def write_evaluation(page: Page, meta: Mapping[str, object], path: FilePath) -> None:
    """Write the page to `path` and its figures beside it as `.json`; each appears whole, the page last.

    `meta`: provenance by name, any JSON types.
    """
    document = {
        "headline": page.headline,
        "caveats": list(page.caveats),
        "criteria": [asdict(one) for one in page.criteria],
        "figures": None if page.figures is None else page.figures.model_dump(mode="json"),
        "looks": page.looks,
        "folds": [asdict(fold) | {"median": fold.median, "worst": fold.worst} for fold in page.folds],
        "seeds": [_seed(seed) for seed in page.seeds],
        "cost_factors": list(COST_FACTORS),
        "sizes": dict(zip(TIERS, SIZES.tolist(), strict=True)),
        "provenance": plain(meta),
        "parts": [
            {
                "title": part.title,
                **plain(part.findings.to_dict()),
                "curves": {one.name: curve(one) for one in part.paths},
                "reliability": reliability_figures(part.stated, part.won),
            }
            for part in page.parts
        ],
    }
    write_page(path, EVALUATION, document, scripts=("sizers.js",), page=page)


def _seed(seed: SeedRow) -> dict[str, Any]:
    values: dict[str, Any] = {"seed": seed.seed, "mean_utility": seed.mean_utility}
    for name in ("versus_rule", "versus_plug_in"):
        difference = getattr(seed, name)
        values[name] = difference and asdict(difference) | {"relation": difference.relation}
    return values
