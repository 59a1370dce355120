"""From a narrative request to its text: the context is given, or read from the journal by decision id.

Knows nothing of Ray or HTTP, and writes no sentence.
"""

import os
import uuid
from collections.abc import Mapping
from typing import Any

from journal.records import NarrativeRecord, SignalRecord
from market.errors import ConfigError
from narratives.language_model import LanguageModel, from_environment, narrator_of
from narratives.narrator import Narrative, Narrator
from narratives.telling import Telling
from narratives.writer import Unavailable
from serving.desk import Deployed, Desk, decision_of, journaled
from serving.schemas import NarrativeRequest


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
            self.narrator = narrator_of(llm)
        except ConfigError:
            if self._llm is None:
                self.narrator = Narrator(Unavailable(str(llm.path)))
            raise
        self._llm = llm

    def tell(self, request: NarrativeRequest) -> dict[str, Any]:
        """The text, the facts it used and who wrote it."""
        return self.told(request, self.telling(request))

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

    def told(self, request: NarrativeRequest, telling: Telling[Narrative]) -> dict[str, Any]:
        """The whole of it, journaled: only now does it count as told."""
        narrative = telling.whole().model_dump(mode="json")
        record = NarrativeRecord(
            narrative=request.kind,
            decision_id=request.decision_id,
            **{name: narrative[name] for name in ("text", "writer", "facts")},
        )
        journaled(self.journal, [record.to_entry(str(uuid.uuid4()))])
        return {"decision_id": request.decision_id, **narrative}

    def health(self) -> dict[str, Any]:
        """Who writes, and how often the template did in its place, by reason."""
        writer = self.narrator.writer
        return super().health() | {
            "writer": "template" if writer is None else writer.name,
            "fallbacks": dict(self.narrator.fallbacks),
        }
