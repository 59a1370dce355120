"""How near a sizer comes to the best possible one: `python -m benchmarks.oracle --task L1|L2|L3 --algo NAME`.

Trains on a generated stream through the same code as on real data, scores on a fresh one, and prints progress
to stderr and one JSON line to stdout. A ratio is the sizer's utility over the oracle's on the same signals,
both as expected and so free of the noise of outcomes. With dqn+ppo, `ratio` is that of the tiers, and
`ratio_fine_tuned` that of continuous sizes, which may pass 1: the oracle takes tiers. Seconds are those of
training, its own scores for choosing the network included, Ray's start left out.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from envs.observation import Situation
from envs.oracle_market import Task, limits, market, regime_of, session
from envs.oracle_score import Sizer, Walk, walk
from envs.oracle_solution import Plan, counted_moves, oracle, solve
from envs.rewards import expected_table
from envs.signal_table import SignalTable
from market.errors import InputError
from policies.baselines import FixedSize, PlugIn
from policies.hybrid import Network, TierPolicy
from signals.fields import SIGNAL_FIELDS
from signals.outcome_model import OutcomeModel
from tuning.cluster import connected
from tuning.config import TrainConfig, parse
from tuning.fine_tune import fine_tune
from tuning.sizer import CURVE_FILE, train_sizer

Figures = dict[str, Any]

GOOD: Final = 0.95  # the ratio whose time is measured
REWARDS: Final = {"expected": "expected", "realised": "excess"}
PLANNED_ON: Final = 2_000  # signals that stand for the law when the plug-in plans ahead

# What the task itself asks for, beside the defaults that real data gets too. L1: no signal bears on a later
# one. L2, L3: a target network that follows in small steps, and what all six tiers would have brought. The
# discount of L2 leaves 0.999 of the optimum within reach; on L3 a longer view did worse: docs/learning.md.
AHEAD: Final = {
    "dqn.counterfactual": True,
    "dqn.double_q": True,
    "dqn.environments": 256,
    "dqn.training_intensity": 16,
    "dqn.replay_capacity": 1_000_000,
    "dqn.target_update": 256,
    "dqn.checkpoint_every": 10_000_000,
}
PRESETS: Final[dict[Task, Mapping[str, Any]]] = {
    "L1": {"dqn.gamma": 0.0, "dqn.report_every": 5_000, "ppo.gamma": 0.0, "fine_tune.gamma": 0.0},
    "L2": AHEAD
    | {
        "dqn.gamma": 0.95,
        "dqn.env_steps": 200_000,
        "dqn.target_rate": 0.05,
        "dqn.final_epsilon": 0.1,
        "dqn.report_every": 20_000,
    },
    "L3": AHEAD
    | {
        "dqn.gamma": 0.99,
        "dqn.env_steps": 1_500_000,
        "dqn.target_rate": 0.02,
        "dqn.final_epsilon": 0.2,
        "dqn.report_every": 150_000,
    },
}
QUICK_PRESET: Final = {
    "dqn.env_steps": 6_000,
    "dqn.report_every": 1_000,
    "ppo.env_steps": 30_000,
    "fine_tune.env_steps": 30_000,
}


@dataclass(frozen=True)
class Sizes:
    """How many signals each stream holds."""

    train: int
    select: int
    test: int
    fitted: int  # trades the plug-in learns from


FULL: Final = Sizes(train=400_000, select=36_000, test=60_000, fitted=20_000)
QUICK: Final = Sizes(train=12_000, select=6_000, test=12_000, fitted=4_000)


@dataclass(frozen=True)
class Yardstick:
    """The oracle and the rule on one stream, and any other sizer beside them."""

    task: Task
    table: SignalTable
    best: Walk
    rule: Walk

    @classmethod
    def of(cls, plan: Plan, task: Task, table: SignalTable) -> "Yardstick":
        """Score the oracle and the rule's 1x on `table`."""
        return cls(
            task, table, walk(plan.size, task, table), walk(FixedSize(1.0, "rule 1x").size, task, table)
        )

    def measure(self, sizer: Sizer, snap: bool) -> Figures:
        """Ratio and skill of a sizer, and what its sizes earned beside the oracle's as outcomes fell."""
        walked = walk(sizer, self.task, self.table, snap=snap)
        own, best, rule = (w.expected.mean() for w in (walked, self.best, self.rule))
        return {
            "ratio": own / best,
            "skill": (own - rule) / (best - rule),
            "realised": walked.realised.mean() / self.best.realised.mean(),
        }


def learned(
    config: TrainConfig, task: Task, edge: float, sizes: Sizes, plan: Plan, yardstick: Yardstick
) -> Figures:
    """Train one seed through `train_sizer` and measure it."""
    train = market(task, sizes.train, edge, seed=1_000 + config.seed, reward=config.reward)
    select = market(task, sizes.select, edge, seed=2_000 + config.seed)
    good = GOOD * walk(plan.size, task, select).expected.mean()
    seconds_to_good: list[float] = []

    with tempfile.TemporaryDirectory() as folder:
        curve = Path(folder) / CURVE_FILE
        started = time.perf_counter()

        def progress(done: int, total: int, score: float) -> None:
            passed = time.perf_counter() - started
            on_select = json.loads(curve.read_text(encoding="utf-8").splitlines()[-1])["select"]
            if on_select >= good and not seconds_to_good:
                seconds_to_good.append(passed)
            say(
                f"  seed {config.seed}: {done:,}/{total:,} steps {GOOD * on_select / good:.4f} {passed:.0f} s"
            )

        trained, reports = train_sizer(train, select, config, Path(folder), progress)
        seconds = time.perf_counter() - started
        figures = {
            **yardstick.measure(TierPolicy(trained).size, snap=True),
            "env_steps": reports[-1][0],
            "seconds": seconds,
            "seconds_to_095": seconds_to_good[0] if seconds_to_good else None,
        }
        if config.algo == "dqn+ppo":
            figures |= tuned(config, train, select, trained, Path(folder) / "fine_tune", yardstick)
    return figures


def tuned(
    config: TrainConfig,
    train: SignalTable,
    select: SignalTable,
    tiers: Network,
    folder: Path,
    yardstick: Yardstick,
) -> Figures:
    """Fine-tune one seed's tiers: the ratio with it, whatever the verdict, and the verdict beside it."""

    def progress(done: int, total: int, score: float) -> None:
        say(f"  seed {config.seed}: fine-tune {done:,}/{total:,} steps, {score:.5f} R per signal")

    started = time.perf_counter()
    policy, verdict, reports = fine_tune(train, select, tiers, config, folder, progress)
    return {
        "ratio_fine_tuned": yardstick.measure(policy.size, policy.snaps)["ratio"],
        "served": verdict.served,
        "select_difference": verdict.mean_difference,
        "select_lower_bound": verdict.lower_bound,
        "fine_tune_steps": reports[-1][0],
        "fine_tune_seconds": time.perf_counter() - started,
    }


def fitted(seed: int, task: Task, edge: float, sizes: Sizes, yardstick: Yardstick) -> Figures:
    """Fit the outcome model on one seed's trades; measure the plug-in, and the same plug-in planning ahead:
    the most that learning to allocate could add.
    """
    train = market(task, sizes.fitted, edge, seed=1_000 + seed)
    started = time.perf_counter()
    model = OutcomeModel.fit(fields_of(train.market), train.gross_r, train.time, train.exit_time)
    seconds = time.perf_counter() - started
    plan = planned(model, task, train)
    figures = yardstick.measure(believing(model, PlugIn().size), snap=True)
    return {
        **figures,
        "ratio_planned": yardstick.measure(believing(model, plan.size), snap=True)["ratio"],
        "env_steps": 0,
        "seconds": seconds,
        "seconds_to_095": seconds if figures["ratio"] >= GOOD else None,
    }


def planned(model: OutcomeModel, task: Task, train: SignalTable) -> Plan:
    """The dynamic programme under a fitted outcome model: its signals and regimes are those it was fitted
    on.
    """
    some = train.take(np.arange(min(len(train), PLANNED_ON)))
    probability = model.probability(fields_of(some.market))
    believed = replace(
        some,
        probability=probability,
        outcome_r=np.broadcast_to(model.outcome_r, probability.shape),
        expected=expected_table(
            probability, model.outcome_r, some.cost_r, some.impact_r, some.k, some.base_risk
        ),
    )
    return solve(task, believed, counted_moves(regime_of(train.volatility_ratio / 2.0)), name="plug-in + DP")


def believing(model: OutcomeModel, sizer: Sizer) -> Sizer:
    """`sizer` under the model's probabilities instead of the true ones."""

    def size(situation: Situation) -> npt.NDArray[np.float64]:
        probability = model.probability(fields_of(situation.observation))
        return sizer(situation._replace(probability=probability, outcome_r=model.outcome_r))

    return size


def fields_of(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The fields of signals.fields: on this market the observation holds all six as they are."""
    return rows[:, : len(SIGNAL_FIELDS)].astype(np.float64)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def benchmark(options: argparse.Namespace) -> Figures:
    """All seeds of one algorithm on one task."""
    task, edge, algo = options.task, options.edge, options.algo
    sizes = QUICK if options.quick else FULL
    own = {"limits": limits(task).model_dump(), "session": session(task).model_dump(), "algo": algo}
    own["reward"] = REWARDS[options.reward]
    given = {**PRESETS[task], **(QUICK_PRESET if options.quick else {})}
    asked = {key: value for key, value in given.items() if key.split(".")[0] in algo.split("+")}
    asked |= dict(setting.split("=", 1) for setting in options.set)
    configs = [parse(own, {**asked, "seed": seed}) for seed in range(options.seeds)]
    say(f"{task}: the oracle and the rule ...")
    plan = oracle(task, edge)
    yardstick = Yardstick.of(plan, task, market(task, sizes.test, edge, seed=3_000))
    results = []
    with connected(1 + max(c.env_runners for c in (configs[0].dqn, configs[0].ppo, configs[0].fine_tune))):
        for config in configs:
            if algo == "plugin":
                results.append(fitted(config.seed, task, edge, sizes, yardstick))
            else:
                results.append(learned(config, task, edge, sizes, plan, yardstick))
            say(f"  seed {config.seed}: " + ", ".join(f"{k} {rounded(v)}" for k, v in results[-1].items()))
    return {
        "task": task,
        "algo": algo,
        "reward": options.reward,
        "edge": edge,
        **{key: [rounded(result[key]) for result in results] for key in results[0]},
        "oracle": rounded(yardstick.best.expected.mean()),
        "oracle_by_dp": rounded(plan.value),
        "settings": asked,
    }


def rounded(figure: float | None) -> float | None:
    """Four decimals, for reading; three digits of what is smaller; a verdict as it is."""
    if figure is None or isinstance(figure, bool):
        return figure
    return round(float(figure), 4) if abs(figure) >= 0.01 else float(f"{figure:.3g}")


def main() -> None:
    """Measure, and print the figures as one JSON line; what was refused is one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=get_args(Task), default="L1")
    parser.add_argument("--algo", default="dqn", help="plugin, or what TrainConfig's `algo` accepts")
    parser.add_argument("--reward", choices=list(REWARDS), default="expected")
    parser.add_argument("--edge", type=float, default=1.0, help="1 is realistic noise")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as dqn.gamma=0")
    parser.add_argument("--quick", action="store_true", help="small streams and few steps")
    options = parser.parse_args()
    if options.seeds < 1 or not all("=" in setting for setting in options.set):
        parser.error("give at least one seed, and settings as KEY=VALUE")
    try:
        print(json.dumps(benchmark(options)))
    except InputError as refusal:
        say(str(refusal))
        sys.exit(2)


if __name__ == "__main__":
    main()
