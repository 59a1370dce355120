"""The two clients against the applications, in this process: every endpoint, every failure, every retry."""

import asyncio
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from features.spec import FEATURE_NAMES
from market.errors import DataError, InputError
from serving import calls
from serving.answers import SizingAnswer
from serving.client import AsyncBallastClient, BallastClient, Refused, Retries, Unanswered
from serving.keys import add
from serving.schemas import (
    SIZING_EXAMPLE,
    FeaturesRequest,
    NarrativeRequest,
    OutcomeReport,
    SizingBatch,
    SizingRequest,
    StreamUpdate,
)
from tests.serving_bundles import bar_rows, request
from tests.serving_client import Here, Mounted, ask, three_applications

SIZE = SizingRequest.model_validate(SIZING_EXAMPLE)
KEYED = SizingRequest.model_validate(request(reserve={"key": "EURUSD-1"}))
OUTCOME = OutcomeReport.model_validate(OutcomeReport.model_config["json_schema_extra"]["examples"][0])  # type: ignore[index,call-overload]
STORY = NarrativeRequest(kind="trade_rationale", decision_id="a")
BARS = FeaturesRequest.model_validate({"bars": bar_rows(101)})
UPDATE = StreamUpdate.model_validate({"symbol": "EURUSD", "bars": bar_rows(2), "seen": 0})
METHODS: dict[str, tuple[Any, ...]] = {
    "size": (KEYED,),
    "size_batch": (SizingBatch(requests=[KEYED]),),
    "commit": ("a",),
    "settle": ("a",),
    "release": ("a",),
    "report_outcome": ("a", OUTCOME),
    "models": (),
    "sizing_health": (),
    "features": (BARS,),
    "feed_stream": ("a", UPDATE),
    "stream": ("a",),
    "drop_stream": ("a",),
    "features_health": (),
    "narrate": (STORY,),
    "narratives_health": (),
}
NOT_TWICE = {"narrate"}
AT_ONCE = Retries(times=2, first_wait=0.0)


class Awaited:
    """An `AsyncBallastClient` with the face of the other, so that every test asks both."""

    def __init__(self, app: ASGIApp, **settings: Any) -> None:
        self._app, self._settings = app, settings

    def __getattr__(self, method: str) -> Callable[..., Any]:
        async def asked(*arguments: Any) -> Any:
            transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)
            async with AsyncBallastClient("http://test", transport=transport, **self._settings) as client:
                return await getattr(client, method)(*arguments)

        return lambda *arguments: asyncio.run(asked(*arguments))


Client = Callable[..., BallastClient]


@pytest.fixture(params=["waiting", "awaiting"])
def client(request: pytest.FixtureRequest) -> Client:
    """Makes a client of an ASGI application."""
    if request.param == "awaiting":
        return Awaited  # type: ignore[return-value]
    return lambda app, **settings: BallastClient("http://test", transport=Here(app), **settings)


class Scripted:
    """An application that answers as the script says, its last line again and again, and counts."""

    def __init__(self, *script: tuple[int, dict[str, str], bytes] | Exception) -> None:
        self.script, self.asked = list(script), list[tuple[str, str]]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        line = self.script[min(len(self.asked), len(self.script) - 1)]
        self.asked.append((scope["method"], scope["path"]))
        if isinstance(line, Exception):
            raise line
        status, headers, body = line
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})


def refused(status: int, **headers: str) -> tuple[int, dict[str, str], bytes]:
    body = {"error": {"field": "thing", "value": 7, "mend": "do it"}}
    return (
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        json.dumps(body).encode(),
    )


def public(of: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(of, inspect.isfunction) if not name.startswith("_")}


def test_both_clients_have_the_same_methods_with_the_same_types() -> None:
    assert public(BallastClient) == public(AsyncBallastClient) == METHODS.keys() | {"close"}
    for name in METHODS:
        waiting, awaiting = getattr(BallastClient, name), getattr(AsyncBallastClient, name)
        assert inspect.signature(waiting) == inspect.signature(awaiting)
        assert inspect.iscoroutinefunction(awaiting)
        assert waiting.__doc__


def test_every_endpoint_of_the_documents_has_a_method_with_its_models(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented, app = {}, three_applications(home)
    for name in ("features", "sizing", "narratives"):
        document = ask(app, "GET", f"/{name}/openapi.json").json()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                documented[method.upper(), f"/{name}{path}"] = models_of(operation)
    asked = {}
    monkeypatch.setattr(
        BallastClient, "_ask", lambda self, call: asked.update({(call.method, call.path): call}), raising=True
    )
    for method, arguments in METHODS.items():
        getattr(BallastClient(), method)(*arguments)
    assert asked.keys() == documented.keys()
    for place, call in asked.items():
        answer = getattr(call.answer, "__args__", (call.answer,))[0]
        body = None if call.body is None else type(call.body).__name__
        assert (body, getattr(answer, "__name__", None)) == documented[place], place


def models_of(operation: dict[str, Any]) -> tuple[str | None, str | None]:
    """The names of what an endpoint takes and answers."""

    def named(body: dict[str, Any]) -> str | None:
        schema = body.get("content", {}).get("application/json", {}).get("schema", {})
        return schema.get("items", schema).get("$ref", "").rpartition("/")[2] or None

    success = operation["responses"].get("200") or operation["responses"]["204"]
    return named(operation.get("requestBody", {})), named(success)


def test_a_trading_loop_goes_from_bars_to_an_outcome(home: Path, client: Client) -> None:
    loop = client(three_applications(home))
    rows = bar_rows(103)
    first = StreamUpdate.model_validate({"symbol": "EURUSD", "bars": rows[:101], "seen": 0})
    seen = loop.feed_stream("EURUSD-1h", first).bars_seen
    following = StreamUpdate.model_validate({"symbol": "EURUSD", "bars": rows[101:], "seen": seen})
    streamed = loop.feed_stream("EURUSD-1h", following)
    assert loop.stream("EURUSD-1h") == streamed
    whole = FeaturesRequest.model_validate({"symbol": "EURUSD", "bars": rows})
    assert loop.features(whole).features == streamed.features
    with pytest.raises(Refused, match="the stream has seen 103 bars") as lost:
        loop.feed_stream("EURUSD-1h", first)
    assert (lost.value.status, lost.value.field, lost.value.bars_seen) == (409, "seen", 103)
    assert streamed.features is not None
    market = {"features": {name: getattr(streamed.features, name) for name in FEATURE_NAMES}}
    asked = SizingRequest.model_validate(request(reserve={"key": "EURUSD-1"}, market=market))
    size = loop.size(asked)
    assert loop.size(asked) == size
    assert size.reservation is not None
    assert loop.commit(size.decision_id).state == "committed"
    assert (
        "EURUSD" in loop.narrate(NarrativeRequest(kind="trade_rationale", decision_id=size.decision_id)).text
    )
    outcome = loop.report_outcome(size.decision_id, OUTCOME)
    assert outcome.reservation is not None
    assert outcome.reservation.state == "settled"
    assert loop.settle(size.decision_id).state == "settled"
    assert len(loop.size_batch(SizingBatch(requests=[SIZE, SIZE])).answers) == 2
    assert loop.models() == []
    assert (loop.sizing_health().bundle, loop.narratives_health().status) == (None, "ok")
    assert loop.features_health().fingerprint == streamed.fingerprint
    loop.drop_stream("EURUSD-1h")
    with pytest.raises(Refused, match="no such stream") as gone:
        loop.stream("EURUSD-1h")
    assert gone.value.status == 404


def test_a_key_is_sent_and_its_want_is_told(home: Path, client: Client) -> None:
    key = add(home, "desk")
    app = three_applications(home)
    assert client(app, key=key).sizing_health().status == "ok"
    with pytest.raises(Refused, match="send a valid API key") as locked:
        client(app).sizing_health()
    assert (locked.value.status, locked.value.field) == (401, "key")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("first", [refused(503), refused(429), refused(408), refused(500)])
def test_only_what_changes_nothing_twice_is_asked_again(
    client: Client, method: str, first: tuple[int, dict[str, str], bytes]
) -> None:
    app = Scripted(first, refused(422))
    with pytest.raises(Refused) as error:
        getattr(client(app, retries=AT_ONCE), method)(*METHODS[method])
    once = method in NOT_TWICE
    assert (len(app.asked), error.value.status) == ((1, first[0]) if once else (2, 422))


@pytest.mark.parametrize(
    ("method", "argument"),
    [("size", SIZE), ("size_batch", SizingBatch(requests=[KEYED, SIZE]))],
)
def test_a_size_without_a_key_is_asked_once(client: Client, method: str, argument: Any) -> None:
    app = Scripted(refused(503))
    with pytest.raises(Refused):
        getattr(client(app, retries=AT_ONCE), method)(argument)
    assert len(app.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422])
def test_a_refusal_is_not_asked_again_and_has_field_value_and_mend(client: Client, status: int) -> None:
    app = Scripted(refused(status))
    with pytest.raises(InputError, match="thing: got 7; do it") as error:
        client(app, retries=AT_ONCE).size(KEYED)
    assert isinstance(error.value, Refused)
    assert (len(app.asked), error.value.status, error.value.bars_seen) == (1, status, None)


def test_it_gives_up_after_so_many_times(client: Client) -> None:
    app = Scripted(refused(503))
    with pytest.raises(Refused) as error:
        client(app, retries=AT_ONCE).models()
    assert (len(app.asked), error.value.status) == (3, 503)


def test_the_proxys_own_words_are_told_as_the_rest(client: Client) -> None:
    with pytest.raises(Refused, match=r"service: got '502 Bad Gateway'; ask again later"):
        client(Scripted((502, {}, b"<html>")), retries=Retries(times=0)).models()


class Broken(httpx.BaseTransport):
    """A connection that fails so often before it holds."""

    def __init__(self, app: ASGIApp, *errors: httpx.TransportError) -> None:
        self.left, self.errors, self._inner = len(errors), errors, Here(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.left:
            self.left -= 1
            raise self.errors[self.left]
        return self._inner.handle_request(request)


LOST = [httpx.ConnectError("refused"), httpx.ReadTimeout("late"), httpx.RemoteProtocolError("cut")]


def test_a_lost_answer_is_asked_for_again_where_that_is_safe(home: Path) -> None:
    app = three_applications(home)
    with BallastClient(transport=Broken(app, *LOST), retries=Retries(first_wait=0.0)) as loop:
        assert loop.size(KEYED).multiplier == 1.0
    for transport, ask_it in (
        (Broken(app, LOST[1]), lambda loop: loop.size(SIZE)),
        (Broken(app, *LOST, LOST[0]), lambda loop: loop.size(KEYED)),
    ):
        with pytest.raises(Unanswered, match="is the service running there"):
            ask_it(BallastClient(transport=transport, retries=Retries(first_wait=0.0)))
        assert transport.left == 0


def test_an_update_whose_answer_was_lost_is_seen_once(home: Path) -> None:
    """The service takes it, the client does not hear of it, and asks again."""
    app, lost = three_applications(home), list[bytes]()

    class Deaf(Here):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            if not lost:
                lost.append(answer.content)
                raise httpx.ReadTimeout("late")
            return answer

    found = BallastClient("http://test", transport=Deaf(app)).feed_stream("a", UPDATE)
    assert found.bars_seen == 2
    assert json.loads(lost[0]) == found.model_dump(mode="json")


def test_retry_after_is_kept_and_a_long_one_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    app = Scripted(refused(429, retry_after="2"), refused(503), refused(429, retry_after="6"))
    with pytest.raises(Refused) as error:
        BallastClient("http://test", transport=Here(app)).models()
    assert (len(app.asked), error.value.status) == (3, 429)
    assert waited[0] == 2.0
    assert 0.1 <= waited[1] <= 0.2


def test_waits_grow_and_stay_bounded() -> None:
    retries = Retries(times=10, first_wait=1.0, longest_wait=4.0)
    for attempt, most in enumerate([1.0, 2.0, 4.0, 4.0]):
        assert most / 2 <= (retries.wait(attempt, None) or 0.0) <= most
    assert retries.wait(10, None) is None
    strange = httpx.Response(503, headers={"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"})
    assert (retries.wait(0, strange) or 9.0) <= 1.0


def test_a_newer_services_fields_are_left_out_and_a_strange_answer_is_refused(
    client: Client, home: Path
) -> None:
    size = client(three_applications(home)).size(SIZE).model_dump(mode="json")
    newer = Scripted((200, {}, json.dumps({**size, "colour": "red"}).encode()))
    assert client(newer).size(SIZE) == SizingAnswer.model_validate(size)
    older = Scripted((200, {}, json.dumps({**size, "multiplier": "much"}).encode()))
    with pytest.raises(InputError, match="multiplier: got 'much'; ask a service of this client's version"):
        client(older).size(SIZE)


@pytest.mark.parametrize("name", ["..", "a/b", "", "a?b", "a b"])
def test_a_name_cannot_lead_to_another_endpoint(name: str) -> None:
    with pytest.raises(DataError, match="give letters, digits"):
        BallastClient(transport=Here(Mounted({}))).drop_stream(name)


def test_what_is_not_finite_reaches_the_service_and_is_refused_there(home: Path) -> None:
    context = {"period": "this week", "trades": 1, "win_rate": float("nan")}
    with pytest.raises(Refused, match="win_rate: got 'nan'"):
        BallastClient("http://test", transport=Here(three_applications(home))).narrate(
            NarrativeRequest(kind="performance_summary", context=context)
        )


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(vars(BallastClient(key="secret")))


def test_a_narrative_is_asked_for_whole_also_by_a_request_for_a_stream() -> None:
    asked = NarrativeRequest(kind="trade_rationale", decision_id="2f6c1d0e", stream=True)
    assert calls.narrate(asked).body == asked.model_copy(update={"stream": False})
