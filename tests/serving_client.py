"""One HTTP request to an ASGI application in this process, at its root path as Serve mounts it."""

import asyncio
from typing import Any

import httpx
from starlette.types import ASGIApp


def ask(app: ASGIApp, method: str, path: str, *, root: str = "", **arguments: Any) -> httpx.Response:
    """The answer; an error that the application raises after answering is left to its log."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, root_path=root, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(asked())
