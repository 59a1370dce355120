"""How often the gate lets luck through, and how often skill: `python -m benchmarks.gate [--quick]`.

Plants whole searches: trials on the signals that choose the best of them, that one on as many held-out
signals, and walk-forward folds with three seeds. Each goes through `evaluation.gate.judge` with the figures
that real ones get. Prints progress to stderr and one JSON line to stdout. Limits, synthetic suite,
calibration and model card are granted: they are not about luck.

Noise is the hardest there is: sizes know nothing, and outcomes are worth exactly nothing on average, so that
no trial is truly worse than the rule either. Trials are independent, and signals of a day share half of their
luck. Skill is on the oracle market: a trial believes each signal's true log-odds plus an error of its own.
Uniform: every trial as near the optimum as the outcome model fitted to 20,000 trades; varied: from the
optimum to nearly none. Beside these stand, to show where the gate loses its sight, uniform skill of half the
optimum (weak), and uniform skill on a third of the signals (few). The rule at 1x is the champion; the plug-in
is one more sizer of noise, or of the uniform kind.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr
from scipy.stats import binomtest, ttest_1samp

from envs.guardrails import SIZES, STANDARD
from envs.oracle_market import market
from envs.rewards import expected_table
from evaluation.gate import CARD_FIELDS, Calibration, Figures, Ratio, criteria
from evaluation.gate_figures import held_out, search

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Tiers = Callable[[np.random.Generator, float], Integers]

SIGNALS_PER_DAY: Final = 6
FOLDS: Final = 5
SEEDS: Final = 3
ALPHA: Final = 0.05
DAY_LUCK: Final = 0.5  # share of the variance of a signal's luck that its day decides, in the noise
FITTED: Final = 0.15  # error of log-odds that leaves 0.92 of the optimum, as the fitted outcome model does
HALF: Final = 0.5  # error that leaves half of it
WORST: Final = 1.0  # error that leaves an eighth of it
GRANTED: Final = Figures(
    breaches=0,
    synthetic={task: Ratio(ratio=1.0, baseline=1.0) for task in ("L1", "L2", "L3")},
    calibration=Calibration(
        reference="champion", ece=0.0, log_loss=0.0, reference_ece=0.0, reference_log_loss=0.0
    ),
    card=dict.fromkeys(CARD_FIELDS, True),
)


@dataclass(frozen=True)
class Amount:
    """How much is planted."""

    noise: int  # searches
    skill: int  # searches of each kind
    trials: int
    signals: int  # that choose; as many are held out, and as many in the folds
    replications: int


FULL: Final = Amount(noise=400, skill=200, trials=40, signals=1_500, replications=1_000)
QUICK: Final = Amount(noise=40, skill=20, trials=40, signals=1_500, replications=300)


@dataclass(frozen=True)
class Stream:
    """n signals, and how a sizer of a given error sizes them."""

    utility: Floats  # [n, 6], realised
    r: Floats  # [n], net R at 1x
    tiers: Tiers  # random numbers, error -> int64[n]
    base_risk: float
    expected: Floats | None = None  # [n, 6]


@dataclass(frozen=True)
class Sized:
    """One sizer's result, as `gate_figures.held_out` takes it."""

    utility: Floats
    net_r: Floats


def noise_stream(n: int, seed: int) -> Stream:
    """Outcomes of mean zero for any size: a win of rr has the chance 1 / (1 + rr); utility is R itself."""
    random = np.random.default_rng(seed)
    rr = random.uniform(1.0, 3.0, n)
    day = np.repeat(random.normal(size=n // SIGNALS_PER_DAY + 1), SIGNALS_PER_DAY)[:n]
    luck = ndtr(np.sqrt(DAY_LUCK) * day + np.sqrt(1.0 - DAY_LUCK) * random.normal(size=n))
    r = np.where(luck < 1.0 / (1.0 + rr), rr, -1.0)
    return Stream(SIZES * r[:, None], r, lambda draws, _: draws.integers(0, len(SIZES), n), base_risk=0.01)


def skill_stream(n: int, seed: int) -> Stream:
    """The oracle market at edge 1, with beliefs that err by normal noise on the log-odds."""
    table = market("L1", n, edge=1.0, seed=seed)
    truth = np.log(table.probability[:, 1] / table.probability[:, 0])

    def tiers(draws: np.random.Generator, error: float) -> Integers:
        win = 1.0 / (1.0 + np.exp(-truth - error * draws.normal(size=n)))
        believed = np.stack([1.0 - win, win], axis=1)
        worth = expected_table(
            believed, table.outcome_r, table.cost_r, table.impact_r, table.k, table.base_risk
        )
        return np.asarray(np.argmax(worth, axis=1), dtype=np.int64)

    r = table.gross_r - table.cost_r
    return Stream(table.realised, r, tiers, table.base_risk, table.expected)


def planted(
    stream: Stream, errors: Floats, amount: Amount, seed: int
) -> tuple[Figures, Figures, dict[str, float]]:
    """One search's figures, those of the same search without held-out signals, and what is known of it.

    `errors`: float64[trials]. Signals of `stream` come in three equal parts: that choose, held out, folds.
    """
    random = np.random.default_rng(seed)
    n = amount.signals
    rows = np.arange(3 * n)
    days = rows // SIGNALS_PER_DAY
    choosing, held, folded = rows[:n], rows[n : 2 * n], rows[2 * n :]

    def sized(tiers: Integers, part: Integers) -> Sized:
        return Sized(stream.utility[part, tiers[part]], SIZES[tiers[part]] * stream.r[part])

    trials = [stream.tiers(random, error) for error in errors]
    utility = np.stack([sized(tiers, choosing).utility for tiers in trials], axis=1)
    selected = int(np.argmax(utility.mean(axis=0)))
    rule, plug_in = np.full(len(rows), STANDARD), stream.tiers(random, FITTED)
    options: dict[str, Any] = {"replications": amount.replications, "seed": seed}

    def judged_on(part: Integers) -> Figures:
        champion = sized(rule, part)
        return GRANTED.model_copy(
            update={
                "held_out": held_out(
                    sized(trials[selected], part),
                    champion,
                    champion,
                    sized(plug_in, part),
                    days[part],
                    stream.base_risk,
                    **options,
                ),
                "search": found,
                "folds": folds,
            }
        )

    found = search(utility, sized(rule, choosing).utility, days[choosing], len(trials), selected, **options)
    retrained = [stream.tiers(random, float(errors[selected])) for _ in range(SEEDS)]
    gained = [sized(tiers, folded).utility - sized(rule, folded).utility for tiers in retrained]
    parts = [[float(part.mean()) for part in np.array_split(one, FOLDS)] for one in gained]
    folds = tuple(zip(*parts, strict=True))
    best = utility[:, selected] - sized(rule, choosing).utility
    known = {"naive": float(ttest_1samp(best, 0.0, alternative="greater").pvalue < ALPHA)}
    if stream.expected is not None:
        worth = stream.expected[rows, trials[selected]].mean()
        known["ratio"] = float(worth / stream.expected.max(axis=1).mean())
    return judged_on(held), judged_on(choosing), known


def measure(
    kind: str, make: Callable[[int, int], Stream], spread: tuple[float, float], count: int, amount: Amount
) -> dict[str, Any]:
    """Pass rates of `count` searches whose trials' errors lie evenly within `spread`."""
    passed: list[dict[str, bool]] = []
    reused, known = [], []
    errors = np.linspace(*spread, amount.trials)
    for number in range(count):
        stream = make(3 * amount.signals, 10_000 + number)
        figures, again, told = planted(stream, errors, amount, 20_000 + number)
        passed.append({one.name: one.passed for one in criteria(figures)})
        reused.append(all(one.passed for one in criteria(again)))
        known.append(told)
        if (number + 1) % 20 == 0 or number + 1 == count:
            through = sum(all(one.values()) for one in passed)
            print(f"{kind}: {through} of {number + 1} passed", file=sys.stderr, flush=True)
    about_luck = ("vs_rule", "vs_plug_in", "drawdown", "spa", "pbo", "folds")
    return {
        **rate(sum(all(one.values()) for one in passed), count),
        "reused": rate(sum(reused), count),
        "by_criterion": {
            name: round(float(np.mean([one[name] for one in passed])), 4) for name in about_luck
        },
        **{name: round(float(np.mean([one[name] for one in known])), 4) for name in known[0]},
    }


def rate(passed: int, count: int) -> dict[str, Any]:
    """A share with Wilson's 95 % interval (Wilson 1927)."""
    interval = binomtest(passed, count).proportion_ci(method="wilson")
    return {
        "passed": passed,
        "of": count,
        "rate": round(passed / count, 4),
        "interval": [round(float(interval.low), 4), round(float(interval.high), 4)],
    }


def benchmark(amount: Amount) -> dict[str, Any]:
    """All kinds of searches. `skill_pass_rate` is the lower of the two kinds."""
    noise = measure("noise", noise_stream, (0.0, 0.0), amount.noise, amount)
    uniform = measure("uniform skill", skill_stream, (FITTED, FITTED), amount.skill, amount)
    varied = measure("varied skill", skill_stream, (0.0, WORST), amount.skill, amount)
    weak = measure("weak skill", skill_stream, (HALF, HALF), amount.skill // 2, amount)
    less = replace(amount, signals=amount.signals // 3)
    few = measure("skill on few signals", skill_stream, (FITTED, FITTED), amount.skill // 2, less)
    return {
        "noise_pass_rate": noise["rate"],
        "skill_pass_rate": min(uniform["rate"], varied["rate"]),
        "trials": amount.trials,
        "signals": amount.signals,
        "noise": noise,
        "skill_uniform": uniform,
        "skill_varied": varied,
        "skill_weak": weak,
        "skill_few": few,
    }


def main() -> None:
    """Measure, and print the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer searches")
    print(json.dumps(benchmark(QUICK if parser.parse_args().quick else FULL)))


if __name__ == "__main__":
    main()
