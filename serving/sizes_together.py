"""Requests for a size that come at once, from bytes to bytes: read, sized and journaled together.

Holds no arithmetic. One that needs more than that (a reservation, features of bars) or has to be refused is
left to the application's own way.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from journal.group import WouldWait
from market.errors import InputError
from serving.gathering import Gathering
from serving.refusals import Unavailable
from serving.schemas import SizingRequest
from serving.sizing_desk import Draft, SizingDesk


class _WorkedOut(NamedTuple):
    """What was made of bodies."""

    plain: list[bool]  # [N], whether a size was worked out for it
    drafts: list[Draft]  # of those


_Gathering = Gathering[tuple[bytes, float], _WorkedOut, bytes | None]


class SizesTogether:
    """Sizes at `desk` for requests that wait for nothing, those that come together in one transaction."""

    def __init__(self, desk: SizingDesk) -> None:
        self._desk = desk
        self._read = TypeAdapter(SizingRequest).validator.validate_json
        self._latest: tuple[asyncio.AbstractEventLoop, _Gathering] | None = None

    async def answer(self, body: bytes) -> bytes | None:
        """The body of the answer, already journaled; None where another way must be gone."""
        loop, latest = asyncio.get_running_loop(), self._latest
        if latest is None or latest[0] is not loop:  # it is one loop's: Serve has one, a test as it likes
            latest = self._latest = loop, Gathering(self._work_out, self._record)
        try:
            return await latest[1].ask((body, time.perf_counter()))
        except (InputError, Unavailable):
            return None

    def _work_out(self, asked: Sequence[tuple[bytes, float]]) -> _WorkedOut:
        requests = [(self._plain(body), started) for body, started in asked]
        plain = [request is not None for request, _ in requests]
        sized = [(request, started) for request, started in requests if request is not None]
        return _WorkedOut(plain, self._desk.drafts(sized))

    def _plain(self, body: bytes) -> SizingRequest | None:
        try:
            request = self._read(body)
        except ValidationError:
            return None
        return request if request.reserve is None and request.market.bars is None else None

    def _record(self, made: _WorkedOut, *, wait: bool) -> list[bytes | None] | None:
        try:
            answers = map(orjson.dumps, self._desk.record(made.drafts, wait=wait))
        except WouldWait:
            return None
        return [next(answers) if plain else None for plain in made.plain]
