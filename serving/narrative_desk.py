"""From a narrative request to its text: the context is given, or read from the journal by decision id.

Knows nothing of Ray or HTTP, and writes no sentence.
"""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from journal.records import NarrativeRecord, SignalRecord
from narratives.narrator import Narrator
from serving.desk import Desk, decision_of, journaled
from serving.schemas import NarrativeRequest
from serving.telemetry import FALLBACKS, JOURNAL_WAIT, NARRATIVE, NARRATIVES, Reading


class NarrativeDesk(Desk):
    """A desk with a narrator. Any replica finds any decision: the journal holds them all."""

    def __init__(self) -> None:
        super().__init__("narratives")
        self.narrator = Narrator()

    def readings(self) -> list[Reading]:
        """See `Desk.readings`."""
        fallbacks = dict(getattr(self.narrator, "fallbacks", {}))
        return super().readings() + [
            Reading(FALLBACKS, total, (reason,)) for reason, total in fallbacks.items()
        ]

    def tell(self, request: NarrativeRequest) -> dict[str, Any]:
        """The text, the facts it used and who wrote it."""
        started = time.perf_counter()
        told = self._tell(request)
        self.telemetry.took(NARRATIVE, started)
        self.telemetry.count(NARRATIVES, told["kind"], told["writer"])
        return told

    def _tell(self, request: NarrativeRequest) -> dict[str, Any]:
        if request.decision_id is None:
            context: Mapping[str, Any] = request.context or {}
        else:
            decision = decision_of(self.journal, request.decision_id)
            if request.kind == "market_narrative":
                signal = SignalRecord.of(self.journal.get(decision.signal_id))
                context = {"symbol": signal.symbol, "features": signal.features}
            else:
                context = decision.model_dump(mode="json")
        narrative = self.narrator.generate(request.kind, context).model_dump(mode="json")
        record = NarrativeRecord(
            narrative=request.kind,
            decision_id=request.decision_id,
            **{name: narrative[name] for name in ("text", "writer", "facts")},
        )
        started = time.perf_counter()
        journaled(self.journal, [record.to_entry(str(uuid.uuid4()))])
        self.telemetry.took(JOURNAL_WAIT, started)
        return {"decision_id": request.decision_id, **narrative}
