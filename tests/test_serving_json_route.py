"""Bodies that are read in one step get the answers that FastAPI's own route gives them."""

import json
from typing import Any, Final

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st

from market.errors import DataError
from serving import refusals
from serving.json_route import JSON, JsonRoute
from serving.schemas import SIZING_EXAMPLE, SizingRequest
from tests.serving_client import ask

SOUND: Final = json.dumps(SIZING_EXAMPLE)


def echoing(route: type[APIRoute]) -> FastAPI:
    """An application that answers with what it understood, but refuses 13 open trades."""
    api = FastAPI()
    api.router.route_class = route
    refusals.install(api)

    @api.post("/")
    async def echo(asked: SizingRequest) -> Response:
        if asked.account.open_trades == 13:
            raise DataError("open_trades", 13, "give a luckier number")
        return Response(asked.model_dump_json(), media_type=JSON)

    @api.post("/named/{name}")
    async def named(name: str, asked: SizingRequest, http: Request) -> Response:
        return Response(f"{name} {asked.account_id} {http.method}")

    return api


OWN, ONE_STEP = echoing(APIRoute), echoing(JsonRoute)


def answers(body: bytes, content_type: str | None = JSON, path: str = "/") -> list[tuple[int, str]]:
    headers = {} if content_type is None else {"content-type": content_type}
    asked = (ask(api, "POST", path, content=body, headers=headers) for api in (OWN, ONE_STEP))
    return [(answer.status_code, answer.text) for answer in asked]


def changed(old: str, new: str) -> bytes:
    assert old in SOUND
    return SOUND.replace(old, new, 1).encode()


BODIES: Final[dict[str, tuple[bytes, int]]] = {
    "sound": (SOUND.encode(), 200),
    "with space around": (f"\n\t {SOUND} \r\n".encode(), 200),
    "with a byte order mark": (SOUND.encode("utf-8-sig"), 200),
    "in UTF-16": (SOUND.encode("utf-16"), 200),
    "whole numbers": (changed("104000.0", "104000"), 200),
    "a name twice": (changed('"equity": 100000.0', '"equity": 1, "equity": 100000.0'), 200),
    "a name twice, then wrong": (changed('"equity": 100000.0', '"equity": 100000.0, "equity": -1'), 422),
    "an escaped name": (changed('"equity"', '"\\u0065quity"'), 200),
    "NaN": (changed("104000.0", "NaN"), 422),
    "infinity": (changed("104000.0", "-Infinity"), 422),
    "too large for a double": (changed("104000.0", "1e999"), 422),
    "many digits": (changed("104000.0", "104000" + 5000 * "0"), 400),
    "truth for a number": (changed("104000.0", "true"), 422),
    "text for a number": (changed("104000.0", '"104000"'), 422),
    "text for a whole number": (changed('"open_trades": 1', '"open_trades": "1"'), 422),
    "a fraction for a whole number": (changed('"open_trades": 1', '"open_trades": 1.5'), 422),
    "a whole number as a fraction": (changed('"open_trades": 1', '"open_trades": 1.0'), 422),
    "an unknown name": (changed('"equity"', '"equity_": 1, "equity"'), 422),
    "a number for a time": (changed('"2026-01-05T14:00:00Z"', "1767621600"), 422),
    "a time without a zone": (changed("14:00:00Z", "14:00:00"), 422),
    "a refusal of its own": (changed('"open_trades": 1', '"open_trades": 13'), 422),
    "half a surrogate": (changed("EURUSD", "\\ud800"), 422),
    "a control character": (changed("EURUSD", "EUR\nUSD"), 422),
    "cut off": (SOUND[:-1].encode(), 422),
    "something after it": (f"{SOUND}x".encode(), 422),
    "no UTF-8": (b'{"signal": "\xff"}', 400),
    "a list": (b"[]", 422),
    "nothing": (b"", 422),
    "null": (b"null", 422),
    "deep": (b"[" * 100_000, 400),
}


@pytest.mark.parametrize(("body", "status"), BODIES.values(), ids=BODIES)
def test_every_body_is_answered_as_by_the_route_of_the_framework(body: bytes, status: int) -> None:
    own, one_step = answers(body)
    assert one_step == own
    assert one_step[0] == status


@pytest.mark.parametrize("content_type", [None, "", "text/plain", f"{JSON}; charset=utf-8", "x/y+json", "a"])
def test_every_content_type_is_answered_as_by_the_route_of_the_framework(content_type: str | None) -> None:
    own, one_step = answers(SOUND.encode(), content_type)
    assert one_step == own


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=4)
)
def test_whatever_stands_in_a_field_is_answered_as_by_the_route_of_the_framework(value: Any) -> None:
    own, one_step = answers(json.dumps(SIZING_EXAMPLE | {"limits": {"rule_cap": value}}).encode())
    assert one_step == own


def test_a_sound_body_is_never_made_plain_objects_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(request: Request) -> object:
        raise AssertionError("the body was read twice")

    monkeypatch.setattr(Request, "json", never)
    assert ask(ONE_STEP, "POST", "/", json=SIZING_EXAMPLE).status_code == 200
    assert ask(OWN, "POST", "/", json=SIZING_EXAMPLE).status_code == 400


def test_an_endpoint_that_takes_more_than_a_body_gets_it() -> None:
    own, one_step = answers(SOUND.encode(), path="/named/mine")
    assert one_step == own == (200, "mine default POST")
