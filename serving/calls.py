"""Each endpoint as a typed call: where it is, what it takes, what it answers, whether it may be asked twice.

Knows nothing of connections. The tests hold it against the applications' OpenAPI documents.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from market.errors import DataError, InputError
from serving.answers import (
    BatchAnswer,
    FeaturesAnswer,
    FeaturesHealth,
    ModelAnswer,
    NarrativeAnswer,
    NarrativesHealth,
    OutcomeAnswer,
    ReservationAnswer,
    SizingAnswer,
    SizingHealth,
    StreamAnswer,
)
from serving.schemas import (
    FeaturesRequest,
    NarrativeRequest,
    OutcomeReport,
    SizingBatch,
    SizingRequest,
    StreamUpdate,
)

Answer = TypeVar("Answer")

# An empty one, or one that is a way up, would lead to another endpoint.
PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request to a service. `again`: asked twice, nothing more comes of it than asked once."""

    method: Literal["GET", "POST", "DELETE"]
    path: str  # as in the documents, the application's name before it
    answer: Any  # the type of what comes back
    body: BaseModel | None = None
    parts: Mapping[str, str] = field(default_factory=dict)  # of the path, by name
    again: bool = True

    def __post_init__(self) -> None:
        for name, value in self.parts.items():
            if not PART.fullmatch(value):
                raise DataError(name, value, "give letters, digits, `.`, `_` and `-`")

    @property
    def place(self) -> str:
        """The path with its parts filled in."""
        return self.path.format(**self.parts)

    @property
    def content(self) -> bytes | None:
        """The body as JSON; what was left to its default is left out."""
        return None if self.body is None else self.body.model_dump_json(exclude_unset=True).encode()

    def read(self, content: bytes) -> Answer:
        """What was answered; fields that only a newer service knows are left out.

        Raises InputError for anything else.
        """
        if self.answer is None:
            return None  # type: ignore[return-value]  # Call[None]
        try:
            answer: Answer = _adapter(self.answer).validate_json(content, extra="ignore")
            return answer
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "answer"
            mend = f"ask a service of this client's version: {first['msg'].lower()}"
            raise InputError(place, first["input"], mend) from None


@cache
def _adapter(answer: Any) -> TypeAdapter[Any]:
    return TypeAdapter(answer)


def size(request: SizingRequest) -> Call[SizingAnswer]:
    """One signal; with a reservation's key, for good."""
    return Call("POST", "/sizing/", SizingAnswer, request, again=request.reserve is not None)


def size_batch(batch: SizingBatch) -> Call[BatchAnswer]:
    """Many signals, all or none."""
    keyed = all(request.reserve is not None for request in batch.requests)
    return Call("POST", "/sizing/batch", BatchAnswer, batch, again=keyed)


def report_outcome(decision_id: str, report: OutcomeReport) -> Call[OutcomeAnswer]:
    """What became of a signal; a repetition changes nothing."""
    path = "/sizing/{decision_id}/outcome"
    return Call("POST", path, OutcomeAnswer, report, {"decision_id": decision_id})


def move(decision_id: str, step: Literal["commit", "settle", "release"]) -> Call[ReservationAnswer]:
    """What becomes of a reservation; a repetition changes nothing."""
    path = "/sizing/{decision_id}/reservation/{step}"
    return Call("POST", path, ReservationAnswer, parts={"decision_id": decision_id, "step": step})


def models() -> Call[list[ModelAnswer]]:
    """All registered versions."""
    return Call("GET", "/sizing/models", list[ModelAnswer])


def sizing_health() -> Call[SizingHealth]:
    """What a replica sizes from."""
    return Call("GET", "/sizing/healthz", SizingHealth)


def features(request: FeaturesRequest) -> Call[FeaturesAnswer]:
    """The features at the last bar; nothing is kept."""
    return Call("POST", "/features/", FeaturesAnswer, request)


def feed(stream_id: str, update: StreamUpdate) -> Call[StreamAnswer]:
    """The next bars of a stream; the latest ones, sent again, are answered as before."""
    return Call("POST", "/features/streams/{stream_id}", StreamAnswer, update, {"stream_id": stream_id})


def stream(stream_id: str) -> Call[StreamAnswer]:
    """Where a stream stands."""
    return Call("GET", "/features/streams/{stream_id}", StreamAnswer, parts={"stream_id": stream_id})


def drop_stream(stream_id: str) -> Call[None]:
    """Forget a stream."""
    return Call("DELETE", "/features/streams/{stream_id}", None, parts={"stream_id": stream_id})


def features_health() -> Call[FeaturesHealth]:
    """Which features a replica computes."""
    return Call("GET", "/features/healthz", FeaturesHealth)


def narrate(request: NarrativeRequest) -> Call[NarrativeAnswer]:
    """A narrative, journaled each time; whole, also where the request asks for a stream."""
    whole = request.model_copy(update={"stream": False})
    return Call("POST", "/narratives/", NarrativeAnswer, whole, again=False)


def narratives_health() -> Call[NarrativesHealth]:
    """Whether a replica tells narratives, and who writes them."""
    return Call("GET", "/narratives/healthz", NarrativesHealth)
