"""The synthetic suite: what `benchmarks.oracle` prints for a configuration, beside the stored baseline.

Knows nothing of training. evaluation/oracle_baselines.jsonl holds lines as the benchmark printed them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.gate import Ratio


def ratios(lines: Sequence[Mapping[str, Any]]) -> dict[str, Ratio]:
    """By task, the candidate's share of the optimum from its `benchmarks.oracle` lines, and the baseline of
    the same algorithm configuration (algo, reward, edge, settings); see `Figures.synthetic`.
    """
    raise NotImplementedError
