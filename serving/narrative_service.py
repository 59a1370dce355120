"""The /narratives application: HTTP on one side, the narrator on the other.

Holds no arithmetic and no sentence.
"""

import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from ray import serve

from serving.answers import NarrativeAnswer, NarrativesHealth
from serving.application import application, endpoints_first
from serving.narrative_desk import NarrativeDesk
from serving.narrative_events import HEADERS, MEDIA_TYPE, events
from serving.ray_telemetry import RayTelemetry
from serving.refusals import DOCUMENTED_OF_A_NARRATIVE, DOCUMENTED_OF_HEALTH
from serving.schemas import NarrativeRequest
from serving.threads import in_a_thread


def narrative_api(desk: NarrativeDesk) -> FastAPI:
    """The application in front of `desk`."""
    api = application(desk, "Ballast narratives", "Why a size is what it is, every number a fact.")

    @api.post(
        "/",
        response_model=NarrativeAnswer,
        responses=DOCUMENTED_OF_A_NARRATIVE | {200: {"content": {MEDIA_TYPE: {}}}},
        summary="Tell one decision or context, whole or as server-sent events",
    )
    @api.post("", include_in_schema=False)
    @in_a_thread
    def narrate(request: NarrativeRequest, http: Request) -> Response:
        if request.stream or MEDIA_TYPE in http.headers.get("accept", ""):
            started = time.perf_counter()
            told = events(desk, request, desk.telling(request), started)
            return StreamingResponse(told, media_type=MEDIA_TYPE, headers=HEADERS)
        return JSONResponse(desk.tell(request))

    @api.get(
        "/healthz",
        response_model=NarrativesHealth,
        responses=DOCUMENTED_OF_HEALTH,
        summary="Whether narratives are told, and who writes them",
    )
    async def healthz() -> JSONResponse:
        return JSONResponse(desk.health())

    return endpoints_first(api)


@serve.ingress()
class NarrativeService:
    """One replica of /narratives."""

    def __init__(self) -> None:
        self.desk = NarrativeDesk()
        self._told = RayTelemetry(self.desk, "narratives")

    def __del__(self) -> None:
        self._told.stop()

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Take over another home or language model."""
        self.desk.deploy(config)

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Serve asks for it in the replica, so that nothing of it is ever pickled.
        return narrative_api(self.desk)
