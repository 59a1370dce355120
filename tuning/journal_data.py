"""`journal:URL` as a source of data: a journal's settled trades where other sources give bars.

Knows nothing of stages.
"""

from typing import Any, Final

from journal.history import History, cost_note, settled
from market.errors import ConfigError
from signals.outcomes import Costs

SCHEME: Final = "journal:"
MIXED: Final = "mixed"
NEEDS_BARS: Final = ("predictor", "profit_tiers")  # stages that a journal cannot feed


def is_journal(source: str) -> bool:
    """Whether `source` names a journal, not bars."""
    return source.startswith(SCHEME)


def journaled(source: str, costs: Costs) -> tuple[History, dict[str, Any], list[str]]:
    """The settled trades of `source`, the facts that a run keeps of them and what its user should know.

    Raises ConfigError for a source that names no database, and as `journal.history.settled`.
    """
    url = source.removeprefix(SCHEME)
    if not url:
        raise ConfigError("data", source, "give journal:URL, such as journal:sqlite:////absolute/journal.db")
    history = settled(url)
    # One strategy is the rule that was traded, as far as a journal knows one.
    rule = next(iter(history.strategies)) if len(history.strategies) == 1 else MIXED
    symbols = ", ".join(history.trades.symbols)
    facts = {
        "note": f"{len(history.trades):,} settled trades of {symbols}, as journaled",
        "digests": {"journal": history.digest},
        "rule": f"journal:{rule}",
        "strategies": dict(history.strategies),
    }
    other = cost_note(history.trades, costs)
    return history, facts, [*history.notes, *([other] if other else [])]
