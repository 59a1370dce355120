"""The /features application: HTTP on one side, the feature desk on the other.

Holds no arithmetic.
"""

import time
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse
from ray import serve

from features.kernel import warm
from serving.answers import FeaturesAnswer, FeaturesHealth, StreamAnswer
from serving.application import application, endpoints_first
from serving.feature_desk import FeatureDesk
from serving.ray_telemetry import RayTelemetry
from serving.refusals import (
    DOCUMENTED,
    DOCUMENTED_OF_A_STREAM,
    DOCUMENTED_OF_HEALTH,
    DOCUMENTED_OF_STREAMS,
)
from serving.schemas import FeaturesRequest, StreamUpdate
from serving.telemetry import FEATURES
from serving.threads import in_a_thread

StreamId = Annotated[
    str,
    PathParameter(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="names one of this API key's streams",
        examples=["EURUSD-1h"],
    ),
]


def feature_api(desk: FeatureDesk) -> FastAPI:
    """The application in front of `desk`."""
    api = application(
        desk, "Ballast features", "The 31 features at the last of a row of bars, or along a stream of them."
    )

    @api.post("/", response_model=FeaturesAnswer, responses=DOCUMENTED, summary="Features at the last bar")
    @api.post("", include_in_schema=False)
    @in_a_thread
    def features(request: FeaturesRequest) -> JSONResponse:
        started = time.perf_counter()
        answer = desk.features(request)
        desk.telemetry.took(FEATURES, started, "bars")
        return JSONResponse(answer)

    @api.post(
        "/streams/{stream_id}",
        response_model=StreamAnswer,
        responses=DOCUMENTED_OF_STREAMS,
        summary="Carry a stream on by its next bars",
    )
    @in_a_thread
    def feed(stream_id: StreamId, update: StreamUpdate, http: Request) -> JSONResponse:
        started = time.perf_counter()
        answer = desk.feed(http.scope["owner"], stream_id, update)
        desk.telemetry.took(FEATURES, started, "stream")
        return JSONResponse(answer)

    @api.get(
        "/streams/{stream_id}",
        response_model=StreamAnswer,
        responses=DOCUMENTED_OF_A_STREAM,
        summary="Where a stream stands",
    )
    @in_a_thread
    def stream(stream_id: StreamId, http: Request) -> JSONResponse:
        return JSONResponse(desk.stream(http.scope["owner"], stream_id))

    @api.delete(
        "/streams/{stream_id}",
        status_code=204,
        responses=DOCUMENTED,
        summary="Forget a stream, whether there is one or not",
    )
    @in_a_thread
    def drop(stream_id: StreamId, http: Request) -> Response:
        desk.drop(http.scope["owner"], stream_id)
        return Response(status_code=204)

    @api.get(
        "/healthz",
        response_model=FeaturesHealth,
        responses=DOCUMENTED_OF_HEALTH,
        summary="Which features are computed",
    )
    async def healthz() -> JSONResponse:
        return JSONResponse(desk.health())

    return endpoints_first(api)


@serve.ingress()
class FeatureService:
    """One replica of /features."""

    def __init__(self) -> None:
        warm()  # or the first bars would wait for the compiler
        self.desk = FeatureDesk()
        self._told = RayTelemetry(self.desk, "features")

    def __del__(self) -> None:
        self._told.stop()

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Take over another home."""
        self.desk.deploy(config)

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Serve asks for it in the replica, so that nothing of it is ever pickled.
        return feature_api(self.desk)
