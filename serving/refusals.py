"""Every answer that is no success, in one form: which field, what was seen there, how to mend it.

Knows nothing of sizes. Input is never sent back but for one short value.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from envs.guardrails import TighterLimits
from market.errors import InputError
from narratives import contexts
from serving import schemas
from serving.answers import RefusalAnswer
from serving.telemetry import Telemetry

LONGEST_VALUE: Final = 100
# Every name that a field of a request has, and those that refusals themselves give.
NAMES: Final = {
    name
    for kind in (*vars(schemas).values(), *vars(contexts).values(), TighterLimits)
    if isinstance(kind, type) and issubclass(kind, BaseModel)
    for name in kind.model_fields
} | {
    "body",
    "content-length",
    "key",
    "path",
    "method",
    "request",
    "server",
    "journal",
    "budget",
    "risk",
    "exposure",
    "streams",
    "stream_id",
}
Documented = dict[int | str, dict[str, Any]]
DOCUMENTED: Final[Documented] = {
    400: {"model": RefusalAnswer, "description": "the body is no text in UTF-8"},
    401: {"model": RefusalAnswer, "description": "no valid API key, where keys are configured"},
    413: {"model": RefusalAnswer, "description": "the body is larger than allowed"},
    422: {"model": RefusalAnswer, "description": "field, value and mend of what is wrong"},
    429: {"description": "too many requests are waiting: try again after Retry-After seconds"},
    503: {"model": RefusalAnswer, "description": "what must be written cannot be: nothing was decided"},
}
DOCUMENTED_OF_HEALTH: Final[Documented] = {status: DOCUMENTED[status] for status in (401, 429)}
DOCUMENTED_OF_STREAMS: Final[Documented] = DOCUMENTED | {
    409: {
        "model": RefusalAnswer,
        "description": "it does not follow on what the stream has seen; the mend says what does",
    },
}
DOCUMENTED_OF_A_STREAM: Final[Documented] = DOCUMENTED_OF_STREAMS | {
    404: {"model": RefusalAnswer, "description": "there is no such stream of this key"},
}
DOCUMENTED_OF_A_NARRATIVE: Final[Documented] = DOCUMENTED | {
    404: {"model": RefusalAnswer, "description": "there is no decision of that id"},
}
DOCUMENTED_OF_SIZES: Final[Documented] = DOCUMENTED | {
    409: {"model": RefusalAnswer, "description": "it contradicts what is settled; the mend says what"},
}
DOCUMENTED_OF_A_DECISION: Final[Documented] = DOCUMENTED_OF_SIZES | {
    404: {"model": RefusalAnswer, "description": "there is no decision of that id"},
}


class Unavailable(Exception):
    """Something this service stands on does not work now; a retry may succeed."""

    def __init__(self, field: str, mend: str) -> None:
        super().__init__(f"{field}: {mend}")
        self.field, self.mend = field, mend


class NotFound(InputError):
    """The thing that was named does not exist."""


class Conflict(InputError):
    """The request contradicts what an earlier one has settled."""


class OutOfStep(Conflict):
    """Another request has carried the stream on: `bars_seen` says how far."""

    def __init__(self, field: str, value: object, mend: str, bars_seen: int) -> None:
        super().__init__(field, value, mend)
        self.bars_seen = bars_seen


def refusal(status: int, field: str, mend: str, *value: object, **more: int) -> JSONResponse:
    """The answer; at most one `value`, shown if it is short; `more` are other fields of `Refusal`."""
    answer = _Refused(error_of(field, mend, *value, **more), status_code=status)
    answer.field = field
    return answer


def error_of(field: str, mend: str, *value: object, **more: int) -> dict[str, Any]:
    """The body of that answer."""
    return {"error": {"field": field} | ({"value": shown(value[0])} if value else {}) | {"mend": mend} | more}


class _Refused(JSONResponse):
    """A refusal, which the telemetry of its application hears of when it is sent."""

    field: str

    def render(self, content: Any) -> bytes:
        """In ASCII: half a surrogate that a client sent has no UTF-8."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Response`."""
        telemetry = getattr(getattr(scope.get("app"), "state", None), "telemetry", None)
        if telemetry is not None:
            telemetry.refused(self.status_code, told(self.field))
        await super().__call__(scope, receive, send)


def told(field: str) -> str:
    """`field` as it may be logged: a client may have put anything in a name's place."""
    return ".".join(part if part in NAMES or part.isdigit() else "*" for part in field.split("."))


def shown(value: object) -> object:
    """The value as it may stand in an answer: short plain ones as they are, others by kind and length."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, int):
        return value if abs(value) < 2**53 else "an integer of more than 15 digits"
    text = value if isinstance(value, str) else str(value) if not isinstance(value, Mapping | list) else ""
    if text:
        return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, Mapping | list | str) else text


def install(api: FastAPI, telemetry: Telemetry | None = None) -> None:
    """Have `api` answer every failure in this form, and `telemetry` hear of it."""
    api.state.telemetry = telemetry
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(InputError, _refused)
    api.add_exception_handler(Unavailable, _unavailable)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(Exception, _failed)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    first, more = faults[0], f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
    place = [str(part) for part in first["loc"][1:]]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        # A validator of the field itself names it again.
        field = ".".join(place if place[-1:] == [cause.field] else [*place, cause.field])
        return refusal(422, field, cause.mend + more, cause.value)
    if first["type"] == "json_invalid":
        return refusal(422, "body", f"send valid JSON ({cause} at character {place[0]})")
    field, mend = ".".join(place) or "body", first["msg"][:1].lower() + first["msg"][1:] + more
    if first["type"] == "missing":
        return refusal(422, field, mend)
    if first["type"] == "extra_forbidden":
        return refusal(422, field, f"leave it out: there is no such field{more}", first["input"])
    if first["type"] in ("too_short", "too_long"):
        bounds = first["ctx"]
        wanted = (
            f"at least {bounds['min_length']}"
            if first["type"] == "too_short"
            else f"at most {bounds['max_length']}"
        )
        return refusal(422, field, f"give {wanted}{more}", bounds["actual_length"])
    return refusal(422, field, mend, first["input"])


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InputError)
    status = 404 if isinstance(error, NotFound) else 409 if isinstance(error, Conflict) else 422
    more = {"bars_seen": error.bars_seen} if isinstance(error, OutOfStep) else {}
    return refusal(status, error.field, error.mend, error.value, **more)


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Unavailable)
    return refusal(503, error.field, error.mend)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return refusal(404, "path", "docs lists what there is", request.url.path)
    if error.status_code == 405:
        return refusal(405, "method", "docs lists what there is", request.method)
    if error.status_code == 400:
        return refusal(400, "body", "send valid JSON in UTF-8")
    return refusal(error.status_code, "request", str(error.detail))


async def _failed(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises the error again once this is sent, so that the replica's log has it whole.
    return refusal(500, "server", "the failure is in the server's log; nothing was decided")
