"""From a narrative request to its text: the context is given, or read from the journal by decision id.

Knows nothing of Ray or HTTP, and writes no sentence.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from journal.database import NothingWritten
from journal.records import DecisionRecord, NarrativeRecord, SignalRecord
from market.errors import InputError
from narratives.narrator import Narrator
from serving.desk import Desk, journaled
from serving.refusals import NotFound, Unavailable
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
            decision = self._decision(request.decision_id)
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

    def _decision(self, decision_id: str) -> DecisionRecord:
        mend = "give the decision id of an answer of POST /sizing"
        try:
            record = self.journal.get(decision_id)
        except InputError as error:
            if error.field == "journal" and not isinstance(error, NothingWritten):
                raise Unavailable("journal", error.mend) from error
            raise NotFound("decision_id", decision_id, mend) from error
        if record.kind != "decision":
            raise NotFound("decision_id", decision_id, mend)
        return DecisionRecord.of(record)
