"""Were the limits kept? A backtest's path gone over again, without the ledger or the guardrail that made it.

Knows nothing of policies.
"""

from envs.guardrails import Limits
from envs.signal_table import SignalTable
from evaluation.backtest import Path


def breaches(path: Path, table: SignalTable, limits: Limits, session_days: float) -> int:
    """How many decisions of `path` took more than `limits` allowed at that moment; arguments as
    `backtest.run`.
    """
    raise NotImplementedError
