"""The /features application: HTTP on one side, the feature pipeline on the other.

Holds no arithmetic.
"""

import time
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from ray import serve

from features.kernel import warm
from features.spec import FEATURE_NAMES, fingerprint
from market.bars import iso
from serving.answers import FeaturesAnswer
from serving.desk import Desk
from serving.guard import Guard
from serving.position_sizer import feature_row
from serving.ray_telemetry import RayTelemetry
from serving.refusals import DOCUMENTED, install
from serving.schemas import FeaturesRequest, bars_of
from serving.telemetry import FEATURES


def feature_api(desk: Desk) -> FastAPI:
    """The application in front of the feature pipeline."""
    api = FastAPIOffline(
        redoc_url=None, title="Ballast features", description="The 31 features at the last of a row of bars."
    )
    install(api, desk.telemetry)
    api.add_middleware(Guard, keys=lambda: desk.keys, replicas=lambda: desk.replicas)

    @api.post("/", response_model=FeaturesAnswer, responses=DOCUMENTED, summary="Features at the last bar")
    @api.post("", include_in_schema=False)
    def features(request: FeaturesRequest) -> JSONResponse:
        bars = bars_of(request.symbol, request.bars)
        started = time.perf_counter()
        values = dict(zip(FEATURE_NAMES, feature_row(bars).tolist(), strict=True))
        desk.telemetry.took(FEATURES, started)
        return JSONResponse(
            {
                "symbol": bars.symbol,
                "timestamp": iso(int(bars.time[-1])),
                "features": values,
                "bars_seen": len(bars),
                "fingerprint": fingerprint(),
            }
        )

    @api.get("/healthz", summary="Which features are computed")
    async def healthz() -> JSONResponse:
        return JSONResponse(desk.health() | {"fingerprint": fingerprint()})

    return api


@serve.ingress()
class FeatureService:
    """One replica of /features."""

    def __init__(self) -> None:
        warm()  # or the first bars would wait for the compiler
        self.desk = Desk("features")
        self._told = RayTelemetry(self.desk, "features")

    def __del__(self) -> None:
        self._told.stop()

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Take over another home."""
        self.desk.deploy(config)

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Serve asks for it in the replica, so that nothing of it is ever pickled.
        return feature_api(self.desk)
