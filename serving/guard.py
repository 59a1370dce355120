"""The door of every application: an API key on every path, its rate, and an end to every body, as pure ASGI.

Knows nothing of what lies behind it, nor of how keys are kept.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.keys import Keys
from serving.rates import Rates
from serving.refusals import refusal

LARGEST_BODY: Final = 1_048_576  # bytes; 5,000 bars take some 650,000
SOON: Final = 0.25  # seconds in which a body is there if its client and the network are well
SLOW_BODIES: Final = 8  # of one replica that may take longer; each holds a place that others wait for


class Guard:
    """ASGI middleware: 401 without a key, 429 if it asks too often, 413 for a body over `largest_body`.

    A body that is not there soon gets 429 too, where `SLOW_BODIES` others are waited for already: else
    clients that stop half-way would hold every place. All else is the application's. `replicas` is how many
    share the rate of a key.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Callable[[], Keys],
        largest_body: int = LARGEST_BODY,
        replicas: Callable[[], int] = lambda: 1,
    ) -> None:
        self._app, self._keys, self._replicas, self._largest_body = app, keys, replicas, largest_body
        self._rates = Rates()
        self._slow = 0  # bodies that are waited for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = scope["headers"]
        keys = self._keys()
        scope["owner"] = ""  # whose streams it may see: nobody's in particular where no key is asked for
        if keys.required():
            key = keys.find(_key(headers))
            if key is None:
                answer = refusal(401, "key", "send a valid API key as `Authorization: Bearer KEY`")
                answer.headers["www-authenticate"] = "Bearer"
                await answer(scope, receive, send)
                return
            if seconds := self._rates.wait(key, self._replicas()):
                answer = refusal(
                    429, "key", f"this key may ask {key.rate:g} times a second: wait, then ask again"
                )
                answer.headers["retry-after"] = str(math.ceil(seconds))
                await answer(scope, receive, send)
                return
            scope["owner"] = key.sha256
        stated = next((value for name, value in headers if name == b"content-length"), None)
        if stated is not None and not stated.isdigit():
            await refusal(400, "content-length", "give the number of bytes")(scope, receive, send)
            return
        # Compared by length first: int() of thousands of digits is refused by Python, and takes its time.
        if stated is not None and (len(stated) > 15 or int(stated) > self._largest_body):
            await self._too_large(scope, receive, send)
            return
        body: list[Message] = []
        try:
            async with asyncio.timeout(SOON):
                fits = await self._read(body, receive)
        except TimeoutError:
            if self._slow >= SLOW_BODIES:
                answer = refusal(429, "body", "send it without a pause, or again when fewer are on their way")
                answer.headers.update({"retry-after": "1", "connection": "close"})
                await answer(scope, receive, send)
                return
            self._slow += 1
            try:
                fits = await self._read(body, receive)
            finally:
                self._slow -= 1
        if not fits:
            await self._too_large(scope, receive, send)
            return
        await self._app(scope, first(_whole(body), receive), send)

    async def _read(self, body: list[Message], receive: Receive) -> bool:
        """Receive what is missing of `body`; False once it holds too much: in chunks it does not say before.

        It may be cancelled and called again: what was received stays in `body`.
        """
        size = sum(len(message.get("body", b"")) for message in body)
        while size <= self._largest_body:
            message = await receive()
            body.append(message)
            size += len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                break
        return size <= self._largest_body

    async def _too_large(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = refusal(413, "body", f"send at most {self._largest_body} bytes")
        answer.headers["connection"] = "close"  # what is left of the body is not read
        await answer(scope, receive, send)


def _key(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The key of a request: `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
    for name, value in headers:
        if name == b"x-api-key":
            return bytes(value.strip())
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return bytes(value[7:].strip())
    return b""


def _whole(messages: list[Message]) -> Message:
    """The message with all of the body in `messages`; where its client has gone meanwhile, that it has."""
    last = messages[-1]
    if len(messages) == 1 or last["type"] != "http.request":
        return last
    return {**last, "body": b"".join(message.get("body", b"") for message in messages)}


def first(message: Message, receive: Receive) -> Receive:
    """A receive that gives `message` first."""
    waiting = [message]

    async def received() -> Message:
        return waiting.pop() if waiting else await receive()

    return received
