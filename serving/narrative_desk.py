"""From a narrative request to its text: the context is given, or read from the journal by decision id.

Knows nothing of Ray or HTTP, and writes no sentence.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

from uuid_utils import uuid7

from journal.records import NarrativeRecord, SignalRecord
from market.errors import ConfigError
from narratives.language_model import LanguageModel, from_environment, narrator_of
from narratives.narrator import Narrative, Narrator
from narratives.telling import Telling
from narratives.writer import Unavailable
from serving.desk import Deployed, Desk, decision_of
from serving.schemas import NarrativeRequest
from serving.telemetry import FALLBACKS, NARRATIVE, NARRATIVES, Reading


class NarrativeDesk(Desk):
    """A desk with a narrator. Any replica finds any decision: the journal holds them all."""

    def __init__(self) -> None:
        super().__init__("narratives")
        self.narrator = Narrator()
        self._llm: LanguageModel | None = None

    def take(self, deployed: Deployed) -> None:
        """Take over a home and a language model; where that cannot be loaded, the writer before it stays."""
        super().take(deployed)
        llm = deployed.llm or from_environment(os.environ)
        if llm == self._llm:
            return
        try:
            narrator = narrator_of(llm)
        except ConfigError:
            if self._llm is None and self.narrator.writer is None:
                self.narrator = Narrator(Unavailable(str(llm.path)))
            raise
        narrator.fallbacks.update(self.narrator.fallbacks)  # counted over the replica's whole life
        self.narrator, self._llm = narrator, llm

    def readings(self) -> list[Reading]:
        """See `Desk.readings`."""
        fallbacks = dict(self.narrator.fallbacks)
        return super().readings() + [
            Reading(FALLBACKS, total, (reason,)) for reason, total in fallbacks.items()
        ]

    def tell(self, request: NarrativeRequest) -> dict[str, Any]:
        """The text, the facts it used and who wrote it."""
        started = time.perf_counter()
        return self.told(request, self.telling(request), started)

    def telling(self, request: NarrativeRequest) -> Telling[Narrative]:
        """The text in the making; InputError where there is nothing to make it of."""
        if request.decision_id is None:
            context: Mapping[str, Any] = request.context or {}
        else:
            decision = decision_of(self.journal, request.decision_id)
            if request.kind == "market_narrative":
                signal = SignalRecord.of(self.journal.get(decision.signal_id))
                context = {"symbol": signal.symbol, "features": signal.features}
            else:
                context = decision.model_dump(mode="json")
        return self.narrator.tell(request.kind, context)

    def told(self, request: NarrativeRequest, telling: Telling[Narrative], started: float) -> dict[str, Any]:
        """The whole of it, journaled: only now does it count as told, since `started` (time.perf_counter)."""
        narrative = telling.whole().model_dump(mode="json")
        record = NarrativeRecord(
            narrative=request.kind,
            decision_id=request.decision_id,
            **{name: narrative[name] for name in ("text", "writer", "facts")},
        )
        self.write([record.to_entry(str(uuid7()))])
        self.telemetry.took(NARRATIVE, started)
        self.telemetry.count(NARRATIVES, request.kind, narrative["writer"])
        return {"decision_id": request.decision_id, **narrative}

    def health(self) -> dict[str, Any]:
        """Who writes, and how often the template did in its place, by reason."""
        writer = self.narrator.writer
        return super().health() | {
            "writer": "template" if writer is None else writer.name,
            "fallbacks": dict(self.narrator.fallbacks),
        }
