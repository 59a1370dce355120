"""Where the journal of a home lies, and how durable it is: two environment variables.

Knows nothing of records.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from journal.store import Journal
from market.errors import ConfigError

URL_VARIABLE: Final = "BALLAST_JOURNAL"  # an SQLAlchemy URL; BALLAST_HOME/journal/journal.db where unset
SYNC_VARIABLE: Final = "BALLAST_JOURNAL_SYNC"  # NORMAL survives a killed process, FULL the loss of power


def journal_url(home: Path, environment: Mapping[str, str]) -> str:
    """The URL of the journal of `home`."""
    return environment.get(URL_VARIABLE) or f"sqlite:///{home / 'journal' / 'journal.db'}"


def open_journal(home: Path, writer: str, environment: Mapping[str, str]) -> Journal:
    """The door of `writer` to the journal of `home`; ConfigError for a durability that there is not."""
    wanted = environment.get(SYNC_VARIABLE) or "NORMAL"
    if wanted not in ("NORMAL", "FULL"):
        raise ConfigError(SYNC_VARIABLE, wanted, "give NORMAL or FULL")
    url = journal_url(home, environment)
    return Journal(url, writer, synchronous="FULL" if wanted == "FULL" else "NORMAL")
