"""Requests to ASGI applications in this process, each at its root path as Serve mounts it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send


def ask(app: ASGIApp, method: str, path: str, *, root: str = "", **arguments: Any) -> httpx.Response:
    """The answer; an error that the application raises after answering is left to its log."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, root_path=root, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(asked())


class Mounted:
    """Several applications as one: the first part of the path names the application."""

    def __init__(self, apps: Mapping[str, ASGIApp]) -> None:
        self._apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"].split("/")[1]
        await self._apps[name]({**scope, "root_path": f"/{name}"}, receive, send)


class Here(httpx.BaseTransport):
    """`httpx.ASGITransport` for a client that does not await."""

    def __init__(self, app: ASGIApp) -> None:
        self._transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def answered() -> httpx.Response:
            answer = await self._transport.handle_async_request(request)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(answered())


def three_applications(home: Path) -> Mounted:
    """/features, /sizing and /narratives over `home`, without a model."""
    from serving.feature_desk import FeatureDesk
    from serving.feature_service import feature_api
    from serving.narrative_desk import NarrativeDesk
    from serving.narrative_service import narrative_api
    from serving.sizing_desk import SizingDesk
    from serving.sizing_service import sizing_api

    features, sizing, narratives = FeatureDesk(), SizingDesk(), NarrativeDesk()
    for desk in (features, sizing, narratives):
        desk.deploy({"home": str(home)})
    return Mounted(
        {
            "features": feature_api(features),
            "sizing": sizing_api(sizing),
            "narratives": narrative_api(narratives),
        }
    )
