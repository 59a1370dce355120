"""A narrative as server-sent events: `piece` by piece, then the whole as `narrative`, or an `error` instead.

Knows nothing of what is told. The whole is journaled before its event: pieces without it count for nothing.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from fastapi.sse import format_sse_event

from narratives.narrator import Narrative
from narratives.telling import Telling
from serving.narrative_desk import NarrativeDesk
from serving.refusals import Unavailable, error_of
from serving.schemas import NarrativeRequest

MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}  # no proxy may hold pieces back


def events(
    desk: NarrativeDesk, request: NarrativeRequest, telling: Telling[Narrative], started: float
) -> Iterator[bytes]:
    """The events of one narrative, as they come; see `NarrativeDesk.told`."""
    try:
        for piece in telling:
            yield _event("piece", {"text": piece})
        answer = desk.told(request, telling, started)
    except Unavailable as error:
        desk.telemetry.refused(503, error.field)
        yield _event("error", error_of(error.field, error.mend))
    except Exception:
        yield _event("error", error_of("server", "the failure is in the server's log; ask again"))
        raise
    else:
        yield _event("narrative", answer)


def _event(name: str, content: dict[str, Any]) -> bytes:
    return format_sse_event(event=name, data_str=json.dumps(content, ensure_ascii=False))
