"""The door of every application: an API key on every path and an end to every body, as pure ASGI.

Knows nothing of what lies behind it. Keys are kept as SHA-256 only; a keys file that changes counts at once.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.refusals import refusal

KEYS_FILE: Final = "keys.json"
KEYS_VARIABLE: Final = "BALLAST_API_KEYS_SHA256"  # hashes, separated by commas
LARGEST_BODY: Final = 1_048_576  # bytes; 5,000 bars take some 650,000

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Key(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: Hash


class _KeysFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[_Key, ...]


class Keys:
    """The API keys of a home: BALLAST_HOME/keys.json and the hashes in the environment.

    Without either, no key is asked for. Once there was a file, its loss or a fault in it shuts the door.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self._file = home / KEYS_FILE
        self._fixed = [
            text.strip().lower() for text in environment.get(KEYS_VARIABLE, "").split(",") if text.strip()
        ]
        self._version: object = None
        self._from_file: list[str] = []
        self._seen_file = False

    def required(self) -> bool:
        """Whether a request must bring a key."""
        self._refresh()
        return bool(self._fixed) or self._seen_file

    def accept(self, key: bytes) -> bool:
        """Whether `key` is one of them."""
        self._refresh()
        digest = hashlib.sha256(key).hexdigest()
        # All are compared, so that the time taken does not tell which one was near.
        return sum(hmac.compare_digest(digest, known) for known in (*self._fixed, *self._from_file)) > 0

    def _refresh(self) -> None:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            self._version, self._from_file = None, []
            return
        except OSError:
            self._seen_file, self._version, self._from_file = True, None, []
            return
        self._seen_file = True
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        if version != self._version:
            self._version = version
            try:
                content = _KeysFile.model_validate_json(self._file.read_bytes())
                self._from_file = [key.sha256 for key in content.keys]
            except (OSError, ValidationError):
                self._from_file = []


class Guard:
    """ASGI middleware: 401 without a key, 413 for a body over `largest_body`, else the application."""

    def __init__(self, app: ASGIApp, keys: Callable[[], Keys], largest_body: int = LARGEST_BODY) -> None:
        self._app, self._keys, self._largest_body = app, keys, largest_body

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
        if keys.required() and not keys.accept(_key(headers)):
            answer = refusal(401, "key", "send a valid API key as `Authorization: Bearer KEY`")
            answer.headers["www-authenticate"] = "Bearer"
            await answer(scope, receive, send)
            return
        stated = next((value for name, value in headers if name == b"content-length"), None)
        if stated is not None and not stated.isdigit():
            await refusal(400, "content-length", "give the number of bytes")(scope, receive, send)
            return
        # Compared by length first: int() of thousands of digits is refused by Python, and takes its time.
        if stated is not None and (len(stated) > 15 or int(stated) > self._largest_body):
            await self._too_large(scope, receive, send)
            return
        body = await self._whole_body(receive)
        if body is None:
            await self._too_large(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _whole_body(self, receive: Receive) -> list[Message] | None:
        """The messages of the body, None once they hold too much: a chunked body does not say so before."""
        messages, size = [], 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self._largest_body:
                return None
            if message["type"] != "http.request" or not message.get("more_body", False):
                return messages

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


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """A receive that gives `messages` first."""
    waiting = iter(messages)

    async def replayed() -> Message:
        for message in waiting:
            return message
        return await receive()

    return replayed
