"""From a narrative request to its text: the context is given, or read from the journal by decision id.

Knows nothing of Ray or HTTP, and writes no sentence.
"""

from collections.abc import Mapping
from typing import Any

from market.errors import InputError
from narratives.narrator import Narrator
from serving.desk import Desk
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
            record = self._decision(request.decision_id)
            if request.kind == "market_narrative":
                context = {"symbol": record["signal"]["symbol"], "features": record["features"]}
            else:
                context = record["decision"]
        narrative = self.narrator.generate(request.kind, context)
        return {"decision_id": request.decision_id, **narrative.model_dump(mode="json")}

    def _decision(self, decision_id: str) -> Mapping[str, Any]:
        mend = "give the decision id of an answer of POST /sizing"
        try:
            record = self.journal.get(decision_id)
        except InputError as error:
            if error.field == "journal" and (self.home / "journal" / "journal.db").exists():
                raise Unavailable("journal", error.mend) from error
            raise NotFound("decision_id", decision_id, mend) from error
        if record.kind != "decision":
            raise NotFound("decision_id", decision_id, mend)
        return record.payload
