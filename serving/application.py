"""What every application has before its endpoints: documents with examples, one form of refusal, the guard.

Knows nothing of the endpoints.
"""

from typing import Final

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware

from serving import documents, refusals
from serving.desk import Desk
from serving.guard import LARGEST_BODY, Guard
from serving.json_route import JsonRoute

# Of FastAPI's own: to ask whether any is wanted takes as long as all else that it does before the guard.
NO_TELEMETRY: Final = {"tracing": False, "metrics": False, "logs": False}


def application(
    desk: Desk, title: str, description: str, largest_body: int = LARGEST_BODY, *behind: Middleware
) -> FastAPI:
    """An application of `desk` without endpoints; no body may have more than `largest_body` bytes.

    `behind`: what stands between the guard and the endpoints, the outermost first.
    """
    guard = Middleware(
        Guard, keys=lambda: desk.keys, replicas=lambda: desk.replicas, largest_body=largest_body
    )
    api = FastAPIOffline(
        redoc_url=None,
        title=title,
        description=description,
        middleware=[guard, *behind],
        telemetry=NO_TELEMETRY,
    )
    api.router.route_class = JsonRoute
    refusals.install(api, desk.telemetry)
    documents.install(api)
    return api


def endpoints_first(api: FastAPI) -> FastAPI:
    """`api` once it has all its endpoints, which then stand before its documents.

    Serve looks at one route after the other to name each request in its metrics.
    """
    api.router.routes.sort(key=lambda route: not isinstance(route, JsonRoute))
    return api
