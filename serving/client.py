"""The clients of a trading loop, one that waits and one that awaits: typed, stubborn only where it is safe.

Knows nothing of Ray. What is asked and what is read is in serving/calls.py, the same for both.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic import ValidationError

from market.errors import InputError, first_line
from serving import calls
from serving.answers import (
    BatchAnswer,
    FeaturesAnswer,
    FeaturesHealth,
    ModelAnswer,
    NarrativeAnswer,
    NarrativesHealth,
    OutcomeAnswer,
    RefusalAnswer,
    ReservationAnswer,
    SizingAnswer,
    SizingHealth,
    StreamAnswer,
)
from serving.calls import Call
from serving.schemas import (
    FeaturesRequest,
    NarrativeRequest,
    OutcomeReport,
    SizingBatch,
    SizingRequest,
    StreamUpdate,
)

URL: Final = "http://127.0.0.1:8100"
TIMEOUT: Final = 10.0  # seconds; the service itself gives up after 5

Answer = TypeVar("Answer")
Reply = httpx.Response | httpx.TransportError | None


class Refused(InputError):
    """An answer that is no success: `status` is HTTP's, `bars_seen` how far a stream is that is elsewhere."""

    def __init__(
        self, field: str, value: object, mend: str, status: int, bars_seen: int | None = None
    ) -> None:
        super().__init__(field, value, mend)
        self.status, self.bars_seen = status, bars_seen


class Unanswered(InputError):
    """No answer came: the request may or may not have been carried out."""


@dataclass(frozen=True)
class Retries:
    """How often what may be asked twice is asked again, after no answer, 408, 429 or a server's failure.

    Before the first time it waits up to `first_wait` seconds, each time up to twice as long; where the
    service says Retry-After, as long as that, but where that is longer than `longest_wait` not at all.
    """

    times: int = 3
    first_wait: float = 0.1
    longest_wait: float = 5.0

    def wait(self, attempt: int, reply: Reply) -> float | None:
        """Seconds before the next attempt; None where there is none. Attempts count from 0."""
        if attempt >= self.times:
            return None
        if isinstance(reply, httpx.Response):
            if reply.status_code not in (408, 429) and reply.status_code < 500:
                return None
            stated = reply.headers.get("retry-after", "")
            if stated.isascii() and stated.isdigit():
                return float(stated) if float(stated) <= self.longest_wait else None
        return random.uniform(0.5, 1.0) * min(self.first_wait * 2.0**attempt, self.longest_wait)


def _conversation(call: Call[Answer], retries: Retries) -> Generator[Call[Answer] | float, Reply, Answer]:
    """What a client does for a call: it sends what is yielded, or waits as long, and returns the answer."""
    for attempt in itertools.count():
        reply = yield call
        if isinstance(reply, httpx.Response) and reply.is_success:
            return call.read(reply.content)
        seconds = retries.wait(attempt, reply) if call.again else None
        if seconds is None:
            raise _failure(call, reply)
        yield seconds
    raise AssertionError("the count has no end")


def _failure(call: Call[Any], reply: Reply) -> InputError:
    """The exception for a reply that is no success."""
    if not isinstance(reply, httpx.Response):
        seen = f"{type(reply).__name__}: {first_line(reply or ValueError())}"
        return Unanswered(
            "url", f"{call.method} {call.place}", f"is the service running there, and in time? ({seen})"
        )
    try:
        told = RefusalAnswer.model_validate_json(reply.content, extra="ignore").error
        return Refused(told.field, told.value, told.mend, reply.status_code, told.bars_seen)
    except ValidationError:  # the proxy's own words
        mend = (
            "ask again later"
            if reply.status_code in (408, 429) or reply.status_code >= 500
            else "mend the URL"
        )
        return Refused("service", f"{reply.status_code} {reply.reason_phrase}", mend, reply.status_code)


def _settings(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    """What both kinds of connections are made with."""
    headers = {"content-type": "application/json"} | (
        {} if key is None else {"authorization": f"Bearer {key}"}
    )
    return {"base_url": url, "headers": headers, "timeout": timeout}


class BallastClient:
    """A service at `url`, asked with an API `key`; a context manager that gives its connections back.

    Every method raises `Refused` for an answer that is no success and `Unanswered` where none came in
    `timeout` seconds. Asked again, as `retries` says, is only what changes nothing the second time: not a
    size without a reservation's key, nor a narrative. Threads may share a client.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout: float = TIMEOUT,
        retries: Retries = Retries(),
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(transport=transport, **_settings(url, key, timeout))
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def _ask(self, call: Call[Answer]) -> Answer:
        steps, reply = _conversation(call, self._retries), None
        try:
            while True:
                reply = self._done(steps.send(reply))
        except StopIteration as done:
            answer: Answer = done.value
            return answer

    def _done(self, step: Call[Answer] | float) -> Reply:
        if isinstance(step, float):
            time.sleep(step)
            return None
        try:
            return self._http.request(step.method, step.place, content=step.content)
        except httpx.TransportError as error:
            return error

    def size(self, request: SizingRequest) -> SizingAnswer:
        """How large the position of one signal may be, journaled."""
        return self._ask(calls.size(request))

    def size_batch(self, batch: SizingBatch) -> BatchAnswer:
        """The sizes of up to 1,024 signals: all of them or none."""
        return self._ask(calls.size_batch(batch))

    def commit(self, decision_id: str) -> ReservationAnswer:
        """Make a reserved size an open trade: before the order is sent."""
        return self._ask(calls.move(decision_id, "commit"))

    def settle(self, decision_id: str) -> ReservationAnswer:
        """Close a committed trade whose outcome is not reported."""
        return self._ask(calls.move(decision_id, "settle"))

    def release(self, decision_id: str) -> ReservationAnswer:
        """Give a reserved size back that became no trade."""
        return self._ask(calls.move(decision_id, "release"))

    def report_outcome(self, decision_id: str, report: OutcomeReport) -> OutcomeAnswer:
        """Tell what became of a decision's signal, traded or skipped."""
        return self._ask(calls.report_outcome(decision_id, report))

    def models(self) -> list[ModelAnswer]:
        """All registered versions, oldest first."""
        return self._ask(calls.models())

    def sizing_health(self) -> SizingHealth:
        """What one replica of /sizing answers from."""
        return self._ask(calls.sizing_health())

    def features(self, request: FeaturesRequest) -> FeaturesAnswer:
        """The features at the last of a row of bars."""
        return self._ask(calls.features(request))

    def feed_stream(self, stream_id: str, update: StreamUpdate) -> StreamAnswer:
        """Carry a stream on by its next bars; `Refused.bars_seen` says where it is if not where you think."""
        return self._ask(calls.feed(stream_id, update))

    def stream(self, stream_id: str) -> StreamAnswer:
        """Where a stream stands."""
        return self._ask(calls.stream(stream_id))

    def drop_stream(self, stream_id: str) -> None:
        """Forget a stream, whether there is one or not."""
        return self._ask(calls.drop_stream(stream_id))

    def features_health(self) -> FeaturesHealth:
        """Which features one replica of /features computes."""
        return self._ask(calls.features_health())

    def narrate(self, request: NarrativeRequest) -> NarrativeAnswer:
        """Tell a decision, or a context that is given, in plain English."""
        return self._ask(calls.narrate(request))

    def narratives_health(self) -> NarrativesHealth:
        """Whether one replica of /narratives answers, and who writes."""
        return self._ask(calls.narratives_health())


class AsyncBallastClient:
    """`BallastClient` for a loop that awaits: the same methods, told there, and the same rules."""

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout: float = TIMEOUT,
        retries: Retries = Retries(),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(transport=transport, **_settings(url, key, timeout))
        self._retries = retries

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(self, call: Call[Answer]) -> Answer:
        steps, reply = _conversation(call, self._retries), None
        try:
            while True:
                reply = await self._done(steps.send(reply))
        except StopIteration as done:
            answer: Answer = done.value
            return answer

    async def _done(self, step: Call[Answer] | float) -> Reply:
        if isinstance(step, float):
            await asyncio.sleep(step)
            return None
        try:
            return await self._http.request(step.method, step.place, content=step.content)
        except httpx.TransportError as error:
            return error

    async def size(self, request: SizingRequest) -> SizingAnswer:
        return await self._ask(calls.size(request))

    async def size_batch(self, batch: SizingBatch) -> BatchAnswer:
        return await self._ask(calls.size_batch(batch))

    async def commit(self, decision_id: str) -> ReservationAnswer:
        return await self._ask(calls.move(decision_id, "commit"))

    async def settle(self, decision_id: str) -> ReservationAnswer:
        return await self._ask(calls.move(decision_id, "settle"))

    async def release(self, decision_id: str) -> ReservationAnswer:
        return await self._ask(calls.move(decision_id, "release"))

    async def report_outcome(self, decision_id: str, report: OutcomeReport) -> OutcomeAnswer:
        return await self._ask(calls.report_outcome(decision_id, report))

    async def models(self) -> list[ModelAnswer]:
        return await self._ask(calls.models())

    async def sizing_health(self) -> SizingHealth:
        return await self._ask(calls.sizing_health())

    async def features(self, request: FeaturesRequest) -> FeaturesAnswer:
        return await self._ask(calls.features(request))

    async def feed_stream(self, stream_id: str, update: StreamUpdate) -> StreamAnswer:
        return await self._ask(calls.feed(stream_id, update))

    async def stream(self, stream_id: str) -> StreamAnswer:
        return await self._ask(calls.stream(stream_id))

    async def drop_stream(self, stream_id: str) -> None:
        return await self._ask(calls.drop_stream(stream_id))

    async def features_health(self) -> FeaturesHealth:
        return await self._ask(calls.features_health())

    async def narrate(self, request: NarrativeRequest) -> NarrativeAnswer:
        return await self._ask(calls.narrate(request))

    async def narratives_health(self) -> NarrativesHealth:
        return await self._ask(calls.narratives_health())
