"""Where the journal and the risk budget of a home lie, and how durable they are: environment variables.

Knows nothing of records or reservations.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from journal.budget import RiskBudget
from journal.store import Journal
from market.errors import ConfigError

URL_VARIABLE: Final = "BALLAST_JOURNAL"  # an SQLAlchemy URL; BALLAST_HOME/journal/journal.db where unset
BUDGET_VARIABLE: Final = "BALLAST_BUDGET"  # likewise; BALLAST_HOME/budget/budget.db where unset
SYNC_VARIABLE: Final = (
    "BALLAST_JOURNAL_SYNC"  # of both: NORMAL survives a killed process, FULL the loss of power
)


def journal_url(home: Path, environment: Mapping[str, str]) -> str:
    """The URL of the journal of `home`."""
    return environment.get(URL_VARIABLE) or f"sqlite:///{home / 'journal' / 'journal.db'}"


def open_journal(home: Path, writer: str, environment: Mapping[str, str]) -> Journal:
    """The door of `writer` to the journal of `home`; ConfigError for a durability that there is not."""
    return Journal(journal_url(home, environment), writer, synchronous=_durability(environment))


def open_budget(home: Path, environment: Mapping[str, str]) -> RiskBudget:
    """The risk budget of `home`; ConfigError for a durability that there is not."""
    url = environment.get(BUDGET_VARIABLE) or f"sqlite:///{home / 'budget' / 'budget.db'}"
    return RiskBudget(url, synchronous=_durability(environment))


def _durability(environment: Mapping[str, str]) -> Literal["NORMAL", "FULL"]:
    wanted = environment.get(SYNC_VARIABLE) or "NORMAL"
    if wanted not in ("NORMAL", "FULL"):
        raise ConfigError(SYNC_VARIABLE, wanted, "give NORMAL or FULL")
    return "FULL" if wanted == "FULL" else "NORMAL"
