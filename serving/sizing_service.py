"""The /sizing application: HTTP on one side, the sizing desk on the other.

Holds no arithmetic.
"""

import gc
from typing import Annotated, Any, Final

import orjson
from fastapi import FastAPI, Response
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter
from ray import serve
from starlette.middleware import Middleware

from features import kernel
from mlops.registry import ModelVersion, read_export
from serving import position_sizer
from serving.answers import (
    BatchAnswer,
    ModelAnswer,
    OutcomeAnswer,
    ReservationAnswer,
    SizingAnswer,
    SizingHealth,
)
from serving.application import application, endpoints_first
from serving.direct import Direct
from serving.ray_telemetry import RayTelemetry
from serving.refusals import DOCUMENTED_OF_A_DECISION, DOCUMENTED_OF_HEALTH, DOCUMENTED_OF_SIZES
from serving.reservations import Step
from serving.schemas import OutcomeReport, SizingBatch, SizingRequest
from serving.sizes_together import SizesTogether
from serving.sizing_desk import SizingDesk
from serving.threads import in_a_thread

DecisionId = Annotated[
    str,
    PathParameter(
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        description="of an answer of POST /",
        examples=["2f6c1d0e-6b0e-4a3c-9f55-0a2f6a0f3f11"],
    ),
]
VERSIONS = TypeAdapter(list[ModelVersion])
LARGEST_BATCH_BODY: Final = 2_097_152  # bytes: 1,024 requests with features of 17 digits each
LARGEST_DIRECT_BODY: Final = 8_192  # bytes: features take 2,000, bars more than this; see serving.direct
YOUNG: Final = 20_000  # objects that are made before the collector looks through them


def sizing_api(desk: SizingDesk) -> FastAPI:
    """The application in front of `desk`."""
    together = SizesTogether(desk)
    api = application(
        desk,
        "Ballast sizing",
        "How large a position may be, and which rule says so.",
        LARGEST_BATCH_BODY,
        Middleware(Direct, answer=together.answer, largest=LARGEST_DIRECT_BODY),
    )

    @api.post("/", response_model=SizingAnswer, responses=DOCUMENTED_OF_SIZES, summary="Size one signal")
    @api.post("", include_in_schema=False)
    @in_a_thread
    def size(request: SizingRequest) -> Response:
        return _json(desk.decide(request))

    @api.post(
        "/batch",
        response_model=BatchAnswer,
        responses=DOCUMENTED_OF_SIZES,
        summary="Size many signals at once",
    )
    @in_a_thread
    def size_all(batch: SizingBatch) -> Response:
        return _json({"answers": desk.decide_all(batch)})

    @api.post(
        "/{decision_id}/outcome",
        response_model=OutcomeAnswer,
        responses=DOCUMENTED_OF_A_DECISION,
        summary="Report what became of a signal, skipped ones included",
    )
    @in_a_thread
    def outcome(decision_id: DecisionId, report: OutcomeReport) -> JSONResponse:
        return JSONResponse(desk.report(decision_id, report))

    @api.post(
        "/{decision_id}/reservation/{step}",
        response_model=ReservationAnswer,
        responses=DOCUMENTED_OF_A_DECISION,
        summary="Commit a reserved trade, settle it when it is closed, or release it unused",
    )
    @in_a_thread
    def reservation(
        decision_id: DecisionId,
        step: Annotated[Step, PathParameter(description="what became of the reserved trade")],
    ) -> JSONResponse:
        return JSONResponse(desk.reserved(decision_id, step))

    @api.get(
        "/models",
        response_model=list[ModelAnswer],
        responses=DOCUMENTED_OF_HEALTH,
        summary="All registered versions, oldest first",
    )
    @in_a_thread
    def models() -> JSONResponse:
        return JSONResponse(
            VERSIONS.dump_python(read_export(desk.home), mode="json", exclude={"__all__": {"path"}})
        )

    @api.get(
        "/healthz",
        response_model=SizingHealth,
        responses=DOCUMENTED_OF_HEALTH,
        summary="Which bundle answers",
    )
    async def healthz() -> JSONResponse:
        return JSONResponse(desk.health())

    return endpoints_first(api)


def _json(answer: dict[str, Any]) -> Response:
    """A quarter of what JSONResponse takes; every number in it is finite, or it could not be journaled."""
    return Response(orjson.dumps(answer), media_type="application/json")


@serve.ingress()
class SizingService:
    """One replica of /sizing."""

    def __init__(self) -> None:
        kernel.warm()  # or the first request would wait for the compiler
        position_sizer.warm()
        self.desk = SizingDesk()
        gc.freeze()  # what is there by now stays: it need not be looked through again and again
        gc.set_threshold(YOUNG)
        self._told = RayTelemetry(self.desk, "sizing")

    def __del__(self) -> None:
        self._told.stop()

    def reconfigure(self, config: dict[str, Any]) -> None:
        """A hot swap: see `SizingDesk.deploy`."""
        self.desk.deploy(config)

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Serve asks for it in the replica, so that nothing of it is ever pickled.
        return sizing_api(self.desk)
