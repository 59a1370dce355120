"""Every failure has one form, and no large input comes back."""

import json
from typing import Annotated

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from market.errors import DataError
from serving.refusals import NotFound, Unavailable, install, shown
from tests.serving_client import ask


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: Annotated[float, Field(allow_inf_nan=False)]
    names: Annotated[list[str], Field(max_length=3)] = []


def failing() -> FastAPI:
    api = FastAPI()
    install(api)

    @api.post("/body")
    def body(body: Body) -> float:
        return body.number

    @api.get("/raise/{kind}")
    def fail(kind: str) -> None:
        raise {
            "input": DataError("bars", "x" * 5000, "give others"),
            "missing": NotFound("decision_id", "d", "give one"),
            "unavailable": Unavailable("journal", "try again"),
        }.get(kind, ZeroDivisionError("a secret"))

    return api


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", {"field": "body", "mend": "field required"}),
        (
            "{",
            {
                "field": "body",
                "mend": "send valid JSON (Expecting property name enclosed in double quotes at character 1)",
            },
        ),
        ("[]", {"field": "body", "value": "list of 0"}),
        ("{}", {"field": "number", "mend": "field required"}),
        ('{"number": NaN}', {"field": "number", "value": "nan", "mend": "input should be a finite number"}),
        ('{"number": 1e999}', {"field": "number", "value": "inf", "mend": "input should be a finite number"}),
        ('{"number": "soon"}', {"field": "number", "value": "soon"}),
        ('{"number": {"a": 1}}', {"field": "number", "value": "dict of 1"}),
        (
            '{"number": 1, "nmaes": []}',
            {"field": "nmaes", "value": "list of 0", "mend": "leave it out: there is no such field"},
        ),
        (
            '{"number": 1, "names": ["a", "b", "c", "d"]}',
            {"field": "names", "value": 4, "mend": "give at most 3"},
        ),
    ],
)
def test_invalid_body_names_field_value_and_mend(content: str, error: dict[str, object]) -> None:
    answer = ask(failing(), "POST", "/body", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert error.items() <= answer.json()["error"].items()
    assert answer.json()["error"]["mend"]


@pytest.mark.parametrize(
    "content", ['{"number": "' + "x" * 500_000 + '"}', '{"number": 1, "names": [' + "1," * 200_000 + "1]}"]
)
def test_large_input_does_not_come_back(content: str) -> None:
    answer = ask(failing(), "POST", "/body", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert len(answer.content) < 400


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"number": ' + "9" * 6000 + "}", '{"number": ' + "9" * 400 + "}", b"\xff\xfe"]
)
def test_hostile_json_is_the_clients_fault(content: str | bytes) -> None:
    answer = ask(failing(), "POST", "/body", content=content, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["mend"]


@pytest.mark.parametrize(
    ("method", "path", "status", "field"),
    [
        ("GET", "/raise/input", 422, "bars"),
        ("GET", "/raise/missing", 404, "decision_id"),
        ("GET", "/raise/unavailable", 503, "journal"),
        ("GET", "/raise/other", 500, "server"),
        ("GET", "/nowhere", 404, "path"),
        ("PUT", "/body", 405, "method"),
    ],
)
def test_every_failure_has_the_same_form(method: str, path: str, status: int, field: str) -> None:
    answer = ask(failing(), method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["field"] == field
    assert "secret" not in answer.text
    assert len(answer.content) < 400


@pytest.mark.parametrize(
    "value", [None, True, 3, 2.5, "short", 10**400, float("nan"), "x" * 9999, [1] * 9999, {"a": 1}, {1}]
)
def test_shown_value_is_short_and_plain_json(value: object) -> None:
    assert len(json.dumps(shown(value), allow_nan=False)) < 150
