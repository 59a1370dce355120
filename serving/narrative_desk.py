"""From a narrative request to its text: the context is given, or read from the journal by decision id.

Knows nothing of Ray or HTTP, and writes no sentence.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from journal.records import NarrativeRecord, SignalRecord
from narratives.narrator import Narrator
from serving.desk import Desk, decision_of, journaled
from serving.schemas import NarrativeRequest


class NarrativeDesk(Desk):
    """A desk with a narrator. Any replica finds any decision: the journal holds them all."""

    def __init__(self) -> None:
        super().__init__("narratives")
        self.narrator = Narrator()

    def tell(self, request: NarrativeRequest) -> dict[str, Any]:
        """The text, the facts it used and who wrote it."""
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
        journaled(self.journal, [record.to_entry(str(uuid.uuid4()))])
        return {"decision_id": request.decision_id, **narrative}
