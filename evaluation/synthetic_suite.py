"""The synthetic suite: what `benchmarks.oracle` prints for a configuration, beside the stored baseline.

Knows nothing of training. evaluation/oracle_baselines.jsonl holds lines as the benchmark printed them.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final, get_args

from envs.oracle_market import Task
from evaluation.gate import Ratio
from market.errors import DataError

Line = Mapping[str, Any]

BASELINES: Final = "oracle_baselines.jsonl"
CONFIGURATION: Final = ("task", "algo", "reward", "edge", "settings")


def ratios(lines: Sequence[Line], stored: Sequence[Line] | None = None) -> dict[str, Ratio]:
    """For each task the candidate's share of the optimum, and the baseline of the same algorithm
    configuration (algo, reward, edge, settings) on that task; see `Figures.synthetic`.

    `lines` and `stored`: what `benchmarks.oracle` prints, one line a task; the repository's baselines if
    absent. The share is the median over the line's seeds, the baseline the worst of the stored seeds. What is
    lacking is None, and passes no gate. DataError for a line that is none of the benchmark's, for a task
    given twice, and for two algorithms.
    """
    stored = baselines() if stored is None else stored
    for line in (*lines, *stored):
        if not {*CONFIGURATION, "ratio"} <= line.keys() or not line["ratio"]:
            raise DataError("oracle line", dict(line), "give what `python -m benchmarks.oracle` prints")
    own = {str(line["task"]): line for line in lines}
    if len(own) < len(lines):
        raise DataError("oracle lines", [line["task"] for line in lines], "give one line for each task")
    if len({line["algo"] for line in lines}) > 1:
        raise DataError("oracle lines", [line["algo"] for line in lines], "give lines of one algorithm")
    worst = {_configuration(line): min(line["ratio"]) for line in stored}
    return {
        task: Ratio(
            ratio=statistics.median(own[task]["ratio"]) if task in own else None,
            baseline=worst.get(_configuration(own[task])) if task in own else None,
        )
        for task in get_args(Task)
    }


def baselines() -> tuple[Line, ...]:
    """The stored lines."""
    text = resources.files("evaluation").joinpath(BASELINES).read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in text.splitlines())


def _configuration(line: Line) -> str:
    return json.dumps({key: line[key] for key in CONFIGURATION}, sort_keys=True)
