"""A search for people: one HTML page of its trials that works without a network.

Knows nothing of how trials ran. Scores are expected utility per signal of the select part, in R.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from envs.guardrails import TIERS
from evaluation.comparison import Difference
from evaluation.page import plain, write_page

MOST_DRAWN: Final = 60  # trials with curves and lines on the page, the best ones
Status = Literal["finished", "stopped early", "failed", "unfinished"]


@dataclass(frozen=True)
class Score:
    """One score of a trial's training."""

    seed: int
    steps: int  # environment steps over all seeds so far
    score: float  # of the network at that moment
    tiers: Mapping[str, float]  # share of the select signals in each tier


@dataclass(frozen=True)
class TrialRow:
    """One trial."""

    name: str
    settings: Mapping[str, float | str]  # by dotted key; a choice as its text
    status: Status
    objective: float | None  # median over its seeds; None before the first score
    worst: float | None  # the least of its seeds
    versus_rule: Difference | None  # realised utility on the select part
    versus_plug_in: Difference | None
    seconds: float
    scores: Sequence[Score]
    error: str | None = None
    origin: str | None = None  # the trial whose work it took over last, in population-based training


@dataclass(frozen=True)
class Axis:
    """One searched key, as the page lays it out."""

    key: str
    low: float | None  # None for choices
    high: float | None
    choices: Sequence[str]  # in the order given; empty for ranges
    logarithmic: bool


@dataclass(frozen=True)
class Search:
    """All trials of one search, in any order."""

    name: str
    trials: Sequence[TrialRow]
    asked: int  # trials in the plan
    seeds: int
    scheduler: str
    axes: Sequence[Axis]
    importance: Mapping[str, float] | None  # share of each key; None where nothing can be said
    importance_note: str
    provenance: Mapping[str, object]
    config: str | None  # file of the best trial's configuration

    @property
    def ranked(self) -> tuple[TrialRow, ...]:
        """Trials with all their seeds first, the highest objective first; those without a score last."""

        def rank(trial: TrialRow) -> tuple[bool, bool, float, str]:
            score = trial.objective if trial.objective is not None else 0.0
            return trial.status != "finished", trial.objective is None, -score, trial.name

        return tuple(sorted(self.trials, key=rank))

    @property
    def best(self) -> TrialRow | None:
        """The finished trial of the highest objective."""
        return next((trial for trial in self.ranked if trial.status == "finished"), None)

    @property
    def headline(self) -> str:
        """What the search found, in one line."""
        if self.best is None:
            return "No trial has trained all its seeds yet"
        score = f"{self.best.objective:+z.4f} R per signal"
        if len(self.trials) == 1:
            return f"Trial {self.best.name}, the only one, has {score}"
        return f"Trial {self.best.name} leads {len(self.trials)} trials with {score}"

    @property
    def verdict(self) -> str:
        """How the best trial stands with the rule and the plug-in."""
        if self.best is None:
            return "There is nothing to compare."
        seeds = "one seed"
        if self.seeds > 1:
            seeds = f"the median of {self.seeds} seeds, worst {self.best.worst:+z.4f}"
        against = (self.best.versus_rule, self.best.versus_plug_in)
        clauses = " and ".join(f"{d.relation} {d.other} ({d})" for d in against if d is not None)
        realised = f" On what then happened it {clauses}." if clauses else ""
        return f"Expected utility after costs on the select part, {seeds}.{realised}"

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader must know before trusting it."""
        found = []
        ended = sum(trial.status != "unfinished" for trial in self.trials)
        if ended < self.asked:
            found.append(f"{ended} of {self.asked} trials have ended: --resume goes on with the others.")
        failed = sum(trial.status == "failed" for trial in self.trials)
        if failed:
            found.append(f"{failed} {'trial' if failed == 1 else 'trials'} failed; the table says why.")
        if self.best is not None and len(self.trials) > 1:
            found.append(
                f"The best of {len(self.trials)} was chosen on these very signals, which flatters it. "
                "The test part has not been looked at: train the configuration to see it there."
            )
        if self.scheduler == "pbt":
            found.append(
                "Population-based training changed settings on the way: the ones shown are a trial's last, "
                "and training with them from the start is another run. "
                "A curve jumps where its trial took over another's work."
            )
        return tuple(found)


def write_experiment(search: Search, path: Path) -> None:
    """Write the page to `path` and its figures beside it as `.json`; each appears whole, the page last."""
    drawn = [trial for trial in search.ranked if trial.scores][:MOST_DRAWN]
    document = {
        "name": search.name,
        "best": search.best.name if search.best is not None else None,
        "headline": search.headline,
        "verdict": search.verdict,
        "caveats": list(search.caveats),
        "tiers": list(TIERS),
        "trials": [_plain(trial) for trial in search.ranked],
        "drawn": [trial.name for trial in drawn],
        "axes": [asdict(axis) for axis in search.axes],
        "importance": search.importance,
        "provenance": search.provenance,
    }
    write_page(path, "experiment", plain(document), search=search, drawn=drawn)


def _plain(trial: TrialRow) -> dict[str, Any]:
    values = {name: value for name, value in vars(trial).items() if not name.startswith("versus")}
    differences = {"rule": trial.versus_rule, "plug_in": trial.versus_plug_in}
    for name, difference in differences.items():
        known = None if difference is None else asdict(difference) | {"relation": difference.relation}
        values[f"versus_{name}"] = known
    return values | {"scores": [asdict(score) for score in trial.scores]}
