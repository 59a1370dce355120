"""Tell a market, a decision, its risk or a period's results in plain English, every number a fact.

Knows nothing of Ray or HTTP: a trading loop may hold a `Narrator` in its own process.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Final

from cachetools import TTLCache
from pydantic import BaseModel, ConfigDict

from narratives import facts, template
from narratives.facts import Facts, Kind
from narratives.telling import Telling
from narratives.writer import Fallback, Writer

KEPT_SECONDS: Final = 300.0
MOST_KEPT: Final = 1024


class Narrative(BaseModel):
    """A text, the facts it was made of and who wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    kind: Kind
    facts: Facts
    writer: str = "template"


class Narrator:
    """Narratives by a writer, or by the deterministic template. Any number of threads may share one.

    With a writer the same facts are told in the same words, kept for five minutes and made once however many
    ask; it has `seconds` for each, waiting included, then the template ends the text. `fallbacks` counts by
    reason what the writer did not write: timeout, ungrounded, unavailable, error.

    Every method raises `InputError`, naming field, value and mend, for a context it cannot use
    (narratives.contexts lists what each kind needs).
    """

    def __init__(
        self,
        writer: Writer | None = None,
        seconds: float = 3.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.writer, self.fallbacks = writer, Counter[str]()
        self._seconds, self._lock = seconds, Lock()
        self._kept: TTLCache[str, Telling[Narrative]] = TTLCache(MOST_KEPT, KEPT_SECONDS, clock)
        self._threads = ThreadPoolExecutor(32, "narrator") if writer else None

    def generate_market_narrative(self, context: Mapping[str, Any]) -> Narrative:
        """What the market is doing: `symbol` and its 31 `features`."""
        return self.generate("market_narrative", context)

    def generate_trade_rationale(self, context: Mapping[str, Any]) -> Narrative:
        """Why the size is what it is: a sizing decision's details."""
        return self.generate("trade_rationale", context)

    def generate_risk_assessment(self, context: Mapping[str, Any]) -> Narrative:
        """What the trade risks and what the limits leave: a sizing decision's details."""
        return self.generate("risk_assessment", context)

    def generate_performance_summary(self, context: Mapping[str, Any]) -> Narrative:
        """What a period's closed trades came to."""
        return self.generate("performance_summary", context)

    def generate(self, kind: Kind, context: Mapping[str, Any]) -> Narrative:
        """A narrative of any kind, by its name."""
        return self.tell(kind, context).whole()

    def tell(self, kind: Kind, context: Mapping[str, Any]) -> Telling[Narrative]:
        """The same narrative piece by piece: iterate, or ask for the `whole()`."""
        known = facts.compute(kind, context)
        if self.writer is None or self._threads is None:
            return _by_template(known)
        key = hashlib.sha256(f"{self.writer.name}\n{known.model_dump_json()}".encode()).hexdigest()
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                return kept
            telling = self._kept[key] = Telling()
        deadline = time.monotonic() + self._seconds
        writer = self.writer
        self._threads.submit(telling.make, lambda say: self._write(writer, known, key, deadline, say))
        return telling

    def _write(
        self, writer: Writer, known: Facts, key: str, deadline: float, say: Callable[[str], None]
    ) -> Narrative:
        pieces: list[str] = []
        author = writer.name
        try:
            for piece in writer.write(known, int(key[:8], 16), deadline):
                pieces.append(piece)
                say(piece)
        except Exception as error:
            reason = error.reason if isinstance(error, Fallback) else "error"
            author = error.writer if isinstance(error, Fallback) else "template"
            with self._lock:
                self.fallbacks[reason] += 1
                if reason != "ungrounded":  # what else it was may be gone when the same is asked again
                    self._kept.pop(key, None)
            # A writer says what went wrong; one that does not leaves a text that nobody can vouch for.
            if pieces and not isinstance(error, Fallback):
                raise
        if not pieces:
            pieces.append(template.write(known))
            say(pieces[0])
        return Narrative(text="".join(pieces), kind=known.kind, facts=known, writer=author)


def _by_template(known: Facts) -> Telling[Narrative]:
    """Made at once: it takes less time than a thread would."""

    def write(say: Callable[[str], None]) -> Narrative:
        text = template.write(known)
        say(text)
        return Narrative(text=text, kind=known.kind, facts=known)

    telling: Telling[Narrative] = Telling()
    telling.make(write)
    return telling
