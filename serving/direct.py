"""A short way past the framework for the one request that is made all day.

Knows nothing of what is asked. What FastAPI does around an endpoint (routes, dependencies, contexts, errors)
takes as long as a size. Only what succeeds is answered here: everything else goes the application's own way,
which knows how to refuse.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.guard import first

JSON: Final = (b"content-type", b"application/json")


class Direct:
    """ASGI middleware: a POST of JSON to the root of the application gets what `answer` makes of its body.

    Where that is None the request goes to `app`, as does every other and one whose body has more than
    `largest` bytes or comes in parts: stand behind the guard, which puts them together. `answer` gives JSON,
    or None for what it does not take or has to refuse.
    """

    def __init__(
        self, app: ASGIApp, answer: Callable[[bytes], Awaitable[bytes | None]], largest: int
    ) -> None:
        self._app, self._answer, self._largest = app, answer, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if not _at_the_root(scope):
            await self._app(scope, receive, send)
            return
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body", False) or not 0 < len(body) <= self._largest:
            answer = None
        else:
            answer = await self._answer(body)
        if answer is None:
            await self._app(scope, first(message, receive), send)
            return
        headers = [JSON, (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def _at_the_root(scope: Scope) -> bool:
    """Whether this is a POST of JSON to the path that all others of the application begin with."""
    return (
        scope["type"] == "http"
        and scope["method"] == "POST"
        and scope["path"].removeprefix(scope.get("root_path", "")) in ("", "/")
        and JSON in scope["headers"]
    )
