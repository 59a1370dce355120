"""The least that Serve can do with FastAPI: an application that answers every POST with nothing.

Knows nothing of sizes. Only the benchmark deploys it, beside the three of `serving.app`.
"""

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from ray import serve


def empty_api() -> FastAPI:
    """One endpoint; the body is not even read."""
    api = FastAPI()

    @api.post("")
    @api.post("/")
    async def nothing() -> JSONResponse:
        return JSONResponse({})

    return api


@serve.ingress()
class EmptyService:
    """One replica of /empty."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Serve asks for it in the replica, as it does for the services of `serving`.
        return empty_api()


empty = serve.deployment(name="Empty")(EmptyService).bind()
