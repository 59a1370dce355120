"""How far off-policy estimates lie from a known truth: `python -m benchmarks.off_policy [--quick]`.

A logger takes the rule's 1x and, three times in ten, any of the six sizes alike; the candidate is the oracle
market's optimum. From the same logged signals its value is estimated by replay, by plain importance weights
(IPS), by SNIPS, by the doubly robust estimator with a model that knows base rates only, and by the formula of
RLlib 2.60. Bias and spread are over the repeats, in R per signal; `cover` is the share of 95 % intervals that
hold the truth.
"""

import json
import sys
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from envs.guardrails import SIZES, STANDARD
from envs.oracle_market import best_tiers, market
from envs.rewards import expected_utility
from envs.signal_table import SignalTable
from evaluation.off_policy import Logged, doubly_robust, snips
from evaluation.resampling import interval

Floats = npt.NDArray[np.float64]

SIGNALS: Final = 2_000
EXPLORED: Final = 0.3
REPEATS, QUICK_REPEATS = 200, 50
STRETCHES: Final = 20
REPLICATIONS: Final = 400


def logged(table: SignalTable, random: np.random.Generator) -> Logged:
    """The logger's decisions on the table, beside the optimum's."""
    n, tiers = len(table), len(SIZES)
    tier = np.where(random.random(n) < EXPLORED, random.integers(0, tiers, n), STANDARD)
    propensity = np.where(tier == STANDARD, 1.0 - EXPLORED, 0.0) + EXPLORED / tiers
    taken, chosen = SIZES[tier], SIZES[best_tiers(table)]
    return Logged(
        day=table.time // 86_400_000_000_000,
        propensity=propensity,
        taken=taken,
        chosen=chosen,
        reward=table.utility_of(taken, slice(None), realised=True),
        modelled_taken=_plain(table, taken),
        modelled_chosen=_plain(table, chosen),
    )


def _plain(table: SignalTable, size: Floats) -> Floats:
    """Utility expected by who knows no more than how often signals win."""
    won = np.full(len(table), np.mean(table.gross_r > 0.0))
    law = np.stack([1.0 - won, won], axis=1), table.outcome_r
    costs = table.cost_r, table.impact_r
    return expected_utility(size[:, None], *law, *costs, table.k, table.base_risk)[:, 0]


def simulate(repeats: int, covered: int, seed: int = 0) -> dict[str, float]:
    """The estimators' figures over `repeats` logs, their intervals' over the first `covered` of them.

    The signals of a log are one of twenty stretches of the market, by turns; which of them win, and what the
    logger draws, is new in every log.
    """
    whole = market("L1", STRETCHES * SIGNALS, 1.0, seed)
    truth = float(np.mean(whole.expected[np.arange(len(whole)), best_tiers(whole)]))
    stretches = [whole.take(rows) for rows in np.split(np.arange(len(whole)), STRETCHES)]
    values: list[dict[str, float]] = []
    held: list[dict[str, bool]] = []
    for repeat in range(repeats):
        random = np.random.default_rng([seed, repeat])
        table = stretches[repeat % STRETCHES]
        won = random.random(SIGNALS) < table.probability[:, 1]
        table = replace(table, gross_r=np.where(won, table.outcome_r[:, 1], -1.0))
        log = logged(table, random)
        replay = table.utility_of(log.chosen, slice(None), realised=True)
        # A sure policy gives its own draw probability 1, whatever was logged.
        plain = {"ips": log.weight * log.reward, "rllib": log.reward / log.propensity, "replay": replay}
        values.append({name: float(np.mean(each)) for name, each in plain.items()})
        replications = REPLICATIONS if repeat < covered else 1
        bounds: dict[str, tuple[float | None, float | None]] = {}
        bounds["replay"] = interval(replay, log.day, replications, seed)
        for name, estimator in (("snips", snips), ("dr", doubly_robust)):
            estimate = estimator(log, replications, seed)
            values[-1][name] = _known(estimate.value)
            bounds[name] = estimate.low, estimate.high
        if repeat < covered:
            held.append({name: _known(low) <= truth <= _known(high) for name, (low, high) in bounds.items()})
    figures = {"truth": truth}
    for name in values[0]:
        found = [each[name] for each in values]
        figures |= {f"{name}_bias": float(np.mean(found)) - truth, f"{name}_sd": float(np.std(found, ddof=1))}
    figures |= {f"{name}_cover": float(np.mean([each[name] for each in held])) for name in held[0]}
    return figures | {"fewer_trades_by_replay": (figures["ips_sd"] / figures["replay_sd"]) ** 2}


def _known(figure: float | None) -> float:
    """A figure that the logs identify."""
    if figure is None:
        raise ValueError("these logs identify every estimate")
    return figure


def main() -> None:
    """Print the figures as one JSON line."""
    repeats = QUICK_REPEATS if "--quick" in sys.argv[1:] else REPEATS
    print(json.dumps({"repeats": repeats, "signals": SIGNALS, **simulate(repeats, covered=repeats)}))


if __name__ == "__main__":
    main()
